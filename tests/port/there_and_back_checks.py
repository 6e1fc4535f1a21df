"""Models that go to the other framework and come back are themselves: the same numbers, under the same names.

In one process with torch, which only Keras' engine torch allows.
"""

from __future__ import annotations

import inspect
import os
import re
from typing import Any

import keras
import numpy as np
import pytest
import torch
from keras import layers as kl
from torch import nn
from torch.nn import functional as F

import agnostic as ag
from agnostic_torch.writer import DEFAULTS
from tests.port.random_networks import lost

U = 2.0**-24


class Bottleneck(nn.Module):
    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, 4, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 4, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(4)
        self.downsample = nn.Sequential(nn.Conv2d(width, 4, 1, stride), nn.BatchNorm2d(4)) if stride > 1 else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, 2, 1)
        self.pool = nn.MaxPool2d(3, 2, 1, ceil_mode=True)
        self.layer1 = nn.Sequential(Bottleneck(6, 2), Bottleneck(4, 1))
        self.heads = nn.Sequential(nn.Linear(4, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.heads(self.layer1(self.pool(self.stem(x))).mean((2, 3)))


class MobileNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1, bias=False), nn.BatchNorm2d(6), nn.ReLU6()),
            nn.Sequential(nn.Conv2d(6, 6, 3, 2, 1, groups=6, bias=False), nn.BatchNorm2d(6), nn.ReLU6(),
                          nn.Conv2d(6, 8, 1, bias=False), nn.BatchNorm2d(8)),
        )  # fmt: skip
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(8, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(F.adaptive_avg_pool2d(self.features(x), 1).flatten(1))


class Dense(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(n), nn.PReLU(n), nn.Conv2d(n, 3, 3, padding=1)) for n in (3, 6, 9)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)


class Tokens(nn.Module):
    """A vision transformer with torch's own attention, whose input projection is a weight of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, 8, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.encoder = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, activation="gelu"), 2, enable_nested_tensor=False
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.proj(x).flatten(2).transpose(1, 2)
        return self.encoder(torch.cat([self.token.expand(len(x), -1, -1), x], 1))[:, 0]


class Text(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.lstm = nn.LSTM(6, 5, num_layers=2, bidirectional=True, batch_first=True)
        self.gru = nn.GRU(10, 4, batch_first=True)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.gru(self.lstm(self.embed(ids))[0])[0]


class Autoencoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.GroupNorm(4, 8), nn.SiLU())
        self.up = nn.Sequential(nn.ConvTranspose2d(8, 6, 4, 2, 1), nn.InstanceNorm2d(6, affine=True), nn.SiLU(),
                                nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(6, 3, 1))  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.up(self.down(x))


class Siamese(nn.Module):
    """One tower for two images, weights and buffers of the model's own, and a dict of results."""

    def __init__(self) -> None:
        super().__init__()
        self.tower = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.Tanh(), nn.Flatten(), nn.Linear(36, 5))
        self.mix = nn.Bilinear(5, 5, 4)
        self.scale = nn.Parameter(torch.randn(4))
        self.projection_weight = nn.Parameter(torch.randn(3, 4))
        self.projection_bias = nn.Parameter(torch.randn(3))
        self.register_buffer("shift", torch.randn(4))

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> dict[str, torch.Tensor]:
        a, b = self.tower(a), self.tower(b)
        y = self.mix(a, b) * self.scale + self.shift
        return {"near": F.cosine_similarity(a, b), "kind": F.linear(y, self.projection_weight, self.projection_bias)}


class Scales(nn.Module):
    """Weights with axes of length 1, one whose axes are added where it is used, and images that only means show."""

    def __init__(self) -> None:
        super().__init__()
        shapes = ((1, 3, 1, 1), (3, 1, 1), (1, 1, 1), (3,), (1, 3), (1,))
        self.scales = nn.ParameterList([nn.Parameter(torch.rand(shape) + 0.5) for shape in shapes])
        self.slope, self.conv = nn.PReLU(1), nn.Conv2d(3, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b, c, d, e, f = self.scales
        x = self.slope(x)  # in Keras, a condition
        x = x * torch.sigmoid(self.conv(x.mean((2, 3), keepdim=True)))
        return (x * a + b) * c * d[:, None, None] * e[:, :, None, None] - f


class Windows(nn.Module):
    """Layers whose defaults are not those of others: a pool's stride, a root mean square's epsilon."""

    def __init__(self) -> None:
        super().__init__()
        self.pools = nn.Sequential(
            nn.AvgPool2d(3, 1, 1, count_include_pad=False), nn.MaxPool2d(2, 1), nn.Conv2d(3, 4, 1)
        )
        self.norm = nn.Sequential(nn.RMSNorm(4, eps=1e-5), nn.Linear(4, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.pools(x).permute(0, 2, 3, 1) * 1e-3)


def images(*size: int) -> torch.Tensor:
    return torch.randn(2, 3, *size)


def models() -> dict[str, tuple[nn.Module, tuple[torch.Tensor, ...], int]]:
    """Each with its inputs, and the longest sum of products on the way of its numbers."""
    ids = torch.randint(0, 11, (2, 7))
    return {
        "resnet": (ResNet(), (images(33, 30),), 27), "mobilenet": (MobileNet(), (images(17, 16),), 27),
        "densenet": (Dense(), (images(9, 8),), 81), "tokens": (Tokens(), (images(8, 8),), 48),
        "text": (Text(), (ids,), 10), "autoencoder": (Autoencoder(), (images(8, 8),), 72),
        "scales": (Scales(), (images(5, 4),), 3), "windows": (Windows(), (images(6, 5),), 9),
        "siamese": (Siamese(), (images(8, 8), images(8, 8)), 36), "lstm": (nn.LSTM(4, 5), (torch.randn(6, 2, 4),), 5),
    }  # fmt: skip


def test_what_is_left_out_of_source_is_what_torch_takes() -> None:
    for pattern, known in DEFAULTS.items():
        kinds = [name for name in dir(nn) if re.fullmatch(pattern, name)]
        assert len(kinds) >= 3, pattern
        for kind in kinds:
            taken = inspect.signature(getattr(nn, kind)).parameters
            # Of recurrent layers, all arguments are by name in one mapping.
            named = {name: taken[name].default for name in known if name in taken}
            assert named == {name: known[name] for name in named}, kind


def arrays(results: Any) -> list[np.ndarray]:
    return [x.detach().numpy() for x in keras.tree.flatten(results)]


@pytest.mark.parametrize("name", list(models()))
def test_from_torch_to_keras_and_back(name: str) -> None:
    torch.manual_seed(0)
    model, given, products = models()[name]
    for buffer in model.buffers():
        if buffer.is_floating_point():
            nn.init.uniform_(buffer, 0.5, 1.5)
    model.eval()
    there = ag.port(model, "keras", dict(zip("ab", given, strict=True)) if len(given) > 1 else given[0], check=False)
    moved = [
        np.ascontiguousarray(x.numpy().transpose(order))
        for x, order in zip(given, there.report.draft.laid.inputs.values(), strict=True)
    ]
    back = ag.port(there.model, "torch", moved if len(moved) > 1 else moved[0], check=False).model
    own, found = model.state_dict(), back.state_dict()
    assert found.keys() == own.keys()
    for key, value in own.items():
        if not key.endswith("num_batches_tracked"):
            np.testing.assert_array_equal(found[key].numpy(), value.numpy(), key, strict=True)
    with torch.no_grad():
        for new, old in zip(arrays(back(*given)), arrays(model(*given)), strict=True):
            # Sums of so many products, ten layers deep at most, in another order.
            np.testing.assert_allclose(new, old, rtol=0, atol=10 * products * U * max(1, np.abs(old).max()))


class Lengths(nn.Module):
    """Sequences of several lengths."""

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.layer = kind(3, 4, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(x, torch.tensor([5, 2]), batch_first=True)
        return nn.utils.rnn.pad_packed_sequence(self.layer(packed)[0], batch_first=True)[0]


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_lengths_of_sequences_are_not_lost_on_the_way_back(kind: type[nn.RNNBase]) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 5, 3)
    model = Lengths(kind).eval()
    there = ag.port(model, "keras", x, check=False)
    back = ag.port(there.model, "torch", x.numpy(), check=False)
    assert back.model.state_dict().keys() == model.state_dict().keys()
    assert all(weight.trainable for weight in there.model.weights if "constant" not in weight.path)
    # Four gates of sums of four products, five steps deep.
    np.testing.assert_allclose(back.model(x).detach(), model(x).detach(), rtol=0, atol=5 * 16 * U)


def functional() -> keras.Model:
    """Blocks by names, a model inside, a layer that is called twice, two inputs."""
    x, y = keras.Input((16, 16, 3), name="image"), keras.Input((5,), name="extra")
    z = kl.Conv2D(8, 3, 2, padding="same", name="stem")(x)
    for block in ("block_1", "block_2"):
        v = kl.Conv2D(4, 1, name=f"{block}_1_conv")(z)
        v = kl.ReLU(name=f"{block}_1_relu")(kl.BatchNormalization(name=f"{block}_1_bn")(v))
        z = kl.Add(name=f"{block}_add")([z, kl.Conv2D(8, 3, padding="same", name=f"{block}_2_conv")(v)])
    inner = keras.Sequential(
        [keras.Input((8,)), kl.Dense(6, "gelu", name="wide"), kl.Dense(8, name="narrow")], name="mlp"
    )
    shared = kl.Dense(8, name="shared")
    v = shared(inner(shared(kl.GlobalAveragePooling2D()(z))))
    return keras.Model([x, y], kl.Dense(3, "softmax", name="head")(kl.Concatenate()([v, y])), name="pair")


def test_from_keras_to_torch_and_back() -> None:
    keras.utils.set_random_seed(0)
    model, generator = functional(), np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(generator.uniform(0.5, 1.5, weight.shape))
    x = [generator.standard_normal((2, 16, 16, 3)).astype("float32"), generator.standard_normal((2, 5)).astype("f")]
    there = ag.port(model, "torch", x, check=False)
    names = set(there.layers.values())
    weighty = {layer.name for layer in model.layers if layer.weights} - {"mlp"} | {"mlp.wide", "mlp.narrow"}
    assert weighty <= names
    assert there.layers["block.1.conv_1"] == "block_1_1_conv"
    assert there.weights["block/1/bn_1/running_var"] == "block_1_1_bn.moving_variance"
    given = (torch.from_numpy(x[0]).permute(0, 3, 1, 2), torch.from_numpy(x[1]))
    back = ag.port(there.model, "keras", dict(zip(("image", "extra"), given, strict=True)), check=False)
    renamed = {there.layers.get(name, name) for name in back.layers.values()}
    assert weighty <= renamed
    result = back.model([x[0], x[1]], training=False)
    want = np.asarray(model(x, training=False).detach())
    # Sums of 72 products, ten layers deep.
    np.testing.assert_allclose(np.asarray(result.detach()), want, rtol=0, atol=10 * 72 * U)


RANDOM = range(int(os.environ.get("AGNOSTIC_RANDOM_NETWORKS", "0"))) or (2, 3, 511)
"""Seeds; 511 subtracts a buffer of shape (1, 1) from a mean that keeps no axis of length 1."""


@pytest.mark.parametrize("seed", RANDOM)
def test_networks_of_random_layers_come_back_as_they_were(seed: int) -> None:
    assert lost(seed) == ""
