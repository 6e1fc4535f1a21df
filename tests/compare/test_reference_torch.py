"""Descriptions of torch modules, executed in NumPy, against torch in float64: one is right only if the other is."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

import agnostic as ag  # noqa: E402
from agnostic.contracts.description import DESCRIPTION  # noqa: E402
from agnostic.description import LayerDescription  # noqa: E402
from agnostic.errors import InvalidInput  # noqa: E402
from agnostic.reference.layers import apply, obstacle  # noqa: E402


def image(channels: int, *sizes: int) -> Any:
    return (channels, *sizes)


CASES: dict[str, tuple[Callable[[], Any], tuple[int, ...]]] = {
    "conv": (lambda: nn.Conv2d(3, 8, 3), (3, 9, 10)),
    "conv many channels": (lambda: nn.Conv2d(20, 8, 3, padding=1), (20, 9, 10)),
    "conv stride": (lambda: nn.Conv2d(3, 8, (3, 5), stride=(2, 3), padding=(1, 2)), (3, 9, 10)),
    "conv groups": (lambda: nn.Conv2d(6, 8, 3, groups=2, padding=1, bias=False), (6, 9, 10)),
    "conv dilation": (lambda: nn.Conv2d(3, 4, 3, dilation=(2, 3), padding=2), (3, 12, 10)),
    "conv same": (lambda: nn.Conv2d(3, 4, (4, 3), padding="same", dilation=(1, 2)), (3, 9, 10)),
    "conv reflect": (lambda: nn.Conv2d(3, 4, 3, padding=2, padding_mode="reflect"), (3, 9, 10)),
    "conv replicate": (lambda: nn.Conv2d(3, 4, 3, padding=2, padding_mode="replicate"), (3, 9, 10)),
    "conv circular": (lambda: nn.Conv2d(3, 4, 3, padding=2, padding_mode="circular"), (3, 9, 10)),
    "conv 1d": (lambda: nn.Conv1d(5, 6, 4, stride=2, padding=1), (5, 13)),
    "conv 3d": (lambda: nn.Conv3d(2, 3, (2, 3, 3), padding=1), (2, 5, 6, 7)),
    "depthwise": (lambda: nn.Conv2d(6, 6, 3, groups=6, padding=1, stride=2), (6, 9, 10)),
    "depthwise multiplier": (lambda: nn.Conv2d(4, 12, 3, groups=4), (4, 9, 10)),
    "transposed": (lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1), (4, 5, 6)),
    "transposed dilation": (lambda: nn.ConvTranspose2d(4, 6, (2, 3), stride=(3, 1), dilation=2), (4, 5, 6)),
    "transposed groups": (lambda: nn.ConvTranspose2d(4, 6, 4, stride=2, padding=1, groups=2), (4, 5, 6)),
    "transposed 1d": (lambda: nn.ConvTranspose1d(4, 6, 4, stride=2, padding=1), (4, 5)),
    "dense": (lambda: nn.Linear(7, 5), (7,)),
    "dense sequence": (lambda: nn.Linear(7, 5, bias=False), (4, 7)),
    "batch norm": (lambda: nn.BatchNorm2d(5, eps=1e-3), (5, 6, 7)),
    "batch norm train": (lambda: nn.BatchNorm2d(5).train(), (5, 6, 7)),
    "batch norm plain": (lambda: nn.BatchNorm2d(5, affine=False, track_running_stats=False), (5, 6, 7)),
    "batch norm 1d": (lambda: nn.BatchNorm1d(5), (5,)),
    "layer norm": (lambda: nn.LayerNorm(7, eps=1e-6), (4, 7)),
    "layer norm images": (lambda: nn.LayerNorm((3, 4, 5)), (3, 4, 5)),
    "group norm": (lambda: nn.GroupNorm(3, 6), (6, 4, 5)),
    "instance norm": (lambda: nn.InstanceNorm2d(6, affine=True), (6, 4, 5)),
    "rms norm": (lambda: nn.RMSNorm(7, eps=1e-5), (4, 7)),
    **{
        name: (lambda name=name: getattr(nn, name)(), (6, 4, 5))
        for name in (
            "ReLU", "ReLU6", "LeakyReLU", "ELU", "CELU", "SELU", "GELU", "SiLU", "Mish", "Sigmoid", "LogSigmoid",
            "Hardsigmoid", "Hardswish", "Tanh", "Hardtanh", "Tanhshrink", "Softplus", "Softsign", "Softshrink",
            "Hardshrink", "PReLU", "Softmax2d", "Identity",
        )
    },
    "gelu tanh": (lambda: nn.GELU(approximate="tanh"), (6, 4, 5)),
    "leaky relu": (lambda: nn.LeakyReLU(0.3), (6, 4, 5)),
    "softmax": (lambda: nn.Softmax(dim=-1), (4, 7)),
    "softmax channels": (lambda: nn.Softmax(dim=1), (6, 4, 5)),
    "log softmax": (lambda: nn.LogSoftmax(dim=1), (7,)),
    "prelu channels": (lambda: nn.PReLU(6), (6, 4, 5)),
    "threshold": (lambda: nn.Threshold(0.3, -2.0), (6, 4, 5)),
    "glu": (lambda: nn.GLU(dim=1), (6, 4, 5)),
    "max pool": (lambda: nn.MaxPool2d(3, 2, 1), (3, 8, 9)),
    "max pool ceil": (lambda: nn.MaxPool2d(3, 2, 1, ceil_mode=True), (3, 8, 9)),
    "max pool dilation": (lambda: nn.MaxPool2d(2, 1, dilation=2), (3, 8, 9)),
    "average pool": (lambda: nn.AvgPool2d(3, 2, 1), (3, 8, 9)),
    "average pool inside": (lambda: nn.AvgPool2d(3, 2, 1, count_include_pad=False), (3, 8, 9)),
    "average pool ceil": (lambda: nn.AvgPool2d(3, 2, 1, ceil_mode=True), (3, 8, 9)),
    "average pool ceil inside": (lambda: nn.AvgPool2d(3, 2, 1, True, False), (3, 8, 9)),
    "average pool divisor": (lambda: nn.AvgPool2d(2, divisor_override=3), (3, 8, 9)),
    "global pool": (lambda: nn.AdaptiveAvgPool2d(1), (3, 8, 9)),
    "global max": (lambda: nn.AdaptiveMaxPool2d(1), (3, 8, 9)),
    "adaptive pool": (lambda: nn.AdaptiveAvgPool2d((3, 5)), (3, 8, 9)),
    "adaptive max": (lambda: nn.AdaptiveMaxPool2d((3, None)), (3, 8, 9)),
    "flatten": (lambda: nn.Flatten(), (3, 4, 5)),
    "zero pad": (lambda: nn.ZeroPad2d((1, 2, 3, 0)), (3, 4, 5)),
    "constant pad": (lambda: nn.ConstantPad2d(2, -0.5), (3, 4, 5)),
    "reflection pad": (lambda: nn.ReflectionPad2d((1, 2, 3, 0)), (3, 4, 5)),
    "pixel shuffle": (lambda: nn.PixelShuffle(2), (12, 3, 4)),
    "pixel unshuffle": (lambda: nn.PixelUnshuffle(2), (3, 6, 4)),
    "nearest": (lambda: nn.Upsample(scale_factor=2), (3, 4, 5)),
    "nearest size": (lambda: nn.Upsample(size=(7, 3)), (3, 4, 5)),
    "bilinear": (lambda: nn.Upsample(scale_factor=2, mode="bilinear"), (3, 4, 5)),
    "bilinear scale": (lambda: nn.Upsample(scale_factor=1.7, mode="bilinear"), (3, 4, 5)),
    "bilinear corners": (lambda: nn.Upsample(size=(7, 9), mode="bilinear", align_corners=True), (3, 4, 5)),
    "bicubic": (lambda: nn.Upsample(scale_factor=3, mode="bicubic"), (3, 4, 5)),
    "bicubic corners": (lambda: nn.Upsample(scale_factor=3, mode="bicubic", align_corners=True), (3, 4, 5)),
    "linear": (lambda: nn.Upsample(scale_factor=2, mode="linear"), (3, 6)),
    "dropout": (lambda: nn.Dropout(0.5), (3, 6)),
    "lstm": (lambda: nn.LSTM(4, 5, batch_first=True), (6, 4)),
    "lstm deep": (lambda: nn.LSTM(4, 5, num_layers=2, bidirectional=True, batch_first=True), (6, 4)),
    "lstm projection": (lambda: nn.LSTM(4, 5, proj_size=3, bias=False, batch_first=True), (6, 4)),
    "gru": (lambda: nn.GRU(4, 5, batch_first=True), (6, 4)),
    "gru plain": (lambda: nn.GRU(4, 5, bias=False, bidirectional=True, batch_first=True), (6, 4)),
    "rnn": (lambda: nn.RNN(4, 5, nonlinearity="relu", batch_first=True), (6, 4)),
    "attention": (lambda: nn.MultiheadAttention(12, 3, batch_first=True), (6, 12)),
}  # fmt: skip


def described(module: Any) -> LayerDescription:
    (found,) = ag.backend_of(nn.Sequential(module))[DESCRIPTION].describe(nn.Sequential(module), ["0"])
    return found


def randomized(make: Callable[[], Any]) -> Any:
    """With statistics and factors of its own everywhere, so that none can be left out or swapped unseen."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        module = make()
        training = getattr(module, "training", False) and isinstance(module, nn.BatchNorm2d)
        module = module.double()
        for name, x in module.named_buffers():
            if x.is_floating_point():
                x.copy_(torch.rand_like(x) + (0.5 if "var" in name else 0.0))
        for p in module.parameters():
            p.data.add_(0.3 * torch.rand_like(p))
    return module if training and module.momentum == 0.1 and module.affine else module.eval()


@pytest.mark.parametrize("name", CASES)
def test_layer(name: str) -> None:
    make, shape = CASES[name]
    module = randomized(make)
    if name == "batch norm train":
        module.train()
    x = np.random.default_rng(5).standard_normal((2, *shape))
    with torch.no_grad():
        native = torch.from_numpy(x)
        y = module(native, native, native) if name == "attention" else module(native)
    y = (y[0] if isinstance(y, tuple) else y).numpy()
    spatial = "sequence" not in name and not any(
        key in name for key in ("lstm", "gru", "rnn", "attention", "layer norm", "rms", "softmax", "dropout")
    )
    spatial = spatial or name in ("softmax channels", "layer norm images")
    layer = described(module)
    inputs = np.moveaxis(x, 1, -1) if spatial and x.ndim > 2 else x
    result = apply(layer, inputs)
    right = np.moveaxis(y, 1, -1) if spatial and y.ndim > 2 else y
    assert not layer.config.get("overridden")
    assert obstacle(layer) is None
    assert result.dtype == np.float64
    assert result.shape == right.shape
    # Sums of at most 200 products in float64 on either side, and a few dozen steps where a state goes on.
    most = 2 * 200 * 2.0**-53 * max(1.0, np.abs(right).max()) * (20 if "lstm" in name or "gru" in name else 1)
    assert np.abs(result - right).max() <= most
    single = apply(layer, inputs, np.float32)
    assert single.dtype == np.float32
    assert np.abs(single - right).max() <= most * 2.0**29


def test_every_case_has_a_kind() -> None:
    kinds = {described(make()).kind for make, _ in CASES.values()}
    assert "other" not in kinds
    assert "block" not in kinds


def test_what_cannot_be_computed_says_why() -> None:
    layer = described(nn.Dropout(0.5).train())
    assert "random" in str(obstacle(layer))
    with pytest.raises(InvalidInput, match="training mode"):
        apply(layer, np.zeros((1, 3)))
    assert "no rule" in str(obstacle(described(nn.PixelShuffle(2)).replace(kind="strange")))


def test_a_subclass_that_computes_otherwise_is_marked() -> None:
    class Mine(nn.Conv2d):
        def forward(self, x: Any) -> Any:
            return super().forward(x) + 1

    assert described(Mine(3, 4, 3)).config["overridden"] is True
    assert described(Mine(3, 4, 3)).kind == "conv"


def test_an_embedding_takes_rows() -> None:
    module = nn.Embedding(7, 3)
    tokens = np.array([[0, 6, 2]])
    assert np.array_equal(apply(described(module), tokens), module.weight.detach().double().numpy()[tokens])


def test_a_conv_in_parts_equals_the_whole() -> None:
    """A batch is computed as its images are, so memory, not the result, decides the batch."""
    layer = described(randomized(lambda: nn.Conv2d(3, 4, 3, padding=1)))
    x = np.random.default_rng(0).standard_normal((3, 6, 7, 3))
    assert np.array_equal(apply(layer, x), np.concatenate([apply(layer, x[i : i + 1]) for i in range(3)]))


def test_adjoint() -> None:
    """<conv(x), y> = <x, conv_transpose(y)> with one kernel: the definition of a transposed convolution."""
    rng = np.random.default_rng(1)
    kernel = rng.standard_normal((3, 4, 5, 6))
    config = {"strides": (2, 3), "dilation": (1, 2), "padding": "valid", "groups": 1, "crop": ((0, 0), (0, 0))}
    forward = LayerDescription("f", "conv", config, {"kernel": kernel})
    back = LayerDescription("b", "conv_transpose", config, {"kernel": kernel})
    x = rng.standard_normal((2, 3 + 2 * 3, 7 + 3 * 2, 5))
    y = apply(forward, x)
    z = rng.standard_normal(y.shape)
    left, right = np.vdot(y, z), np.vdot(x, apply(back, z))
    assert math.isclose(left, right, rel_tol=2.0**-53 * x.size * 60)
