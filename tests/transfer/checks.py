"""What transfer does with one engine of Keras beside the pairs: each function is a test, run by worker.py."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import torch
from keras import layers as kl
from torch import nn
from torch.nn.utils import parametrizations, prune

import agnostic as ag
from agnostic.contracts.weights import WEIGHTS
from agnostic.errors import InvalidInput, InvalidWeights
from agnostic.models.attached import attach, card_of
from agnostic.models.cards import ModelCard, Preprocessing
from agnostic.registry import backend_of
from tests.transfer.documented import missing
from tests.transfer.pairs import Only, keras_model, randomized

CHECKS: dict[str, Callable[[], None]] = {}


def check(function: Callable[[], None]) -> Callable[[], None]:
    CHECKS[function.__name__] = function
    return function


def images(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).standard_normal((2, *shape)).astype(np.float32)


def first(x: np.ndarray[Any, Any]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 1)))


def filled(model: Any, seed: int = 0) -> Any:
    """Every weight of a Keras model from a seed; statistics positive."""
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        if "seed" not in variable.name:
            variable.assign(rng.uniform(0.2, 1.0, variable.shape) * (1 if "var" in variable.name else 0.5))
    return model


def raises(kind: type[Exception], said: str, call: Callable[[], Any]) -> None:
    with pytest.raises(kind) as caught:
        call()
    assert said in str(caught.value), str(caught.value)
    assert "\n" not in str(caught.value)


# Between two of Keras ------------------------------------------------------------------------------------------------
@check
def keras_to_keras_under_other_names() -> None:
    def make() -> Any:
        return keras_model(
            (9, 9, 3), kl.Conv2D(4, 3), kl.BatchNormalization(), kl.ReLU(), kl.SeparableConv2D(5, 3), kl.Flatten(),
            kl.Dense(3, "tanh"), kl.Reshape((1, 3)), kl.GRU(2),
        )  # fmt: skip

    source, target = filled(make()), filled(make(), 1)
    report = ag.transfer(source, target, inputs=images(9, 9, 3))
    assert report.verified, report
    assert {row.target for row in report.rows} != {row.source for row in report.rows}
    for a, b in zip(source.weights, target.weights, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(a.value), keras.ops.convert_to_numpy(b.value))


@check
def keras_to_keras_of_kinds_that_pytorch_lacks() -> None:
    def make() -> Any:
        return keras_model(
            (4, 6, 6, 2), kl.ConvLSTM2D(3, 3), kl.EinsumDense("abcd,bde->abce", (4, 4, 5)), kl.Flatten(), kl.Dense(2)
        )

    report = ag.transfer(filled(make()), filled(make(), 1), inputs=images(4, 6, 6, 2))
    assert report.verified, report
    assert len(report.rows) == 3


# A bias that the target has no place for ------------------------------------------------------------------------------
@check
def a_bias_goes_into_the_batch_norm_after_it() -> None:
    source = filled(
        keras_model(
            (9, 9, 3), kl.Conv2D(4, 3), kl.BatchNormalization(epsilon=1e-5), kl.ReLU(), kl.DepthwiseConv2D(3),
            kl.BatchNormalization(epsilon=1e-5), kl.GlobalAveragePooling2D(), kl.Dense(5),
            kl.BatchNormalization(epsilon=1e-5),
        )
    )  # fmt: skip
    target = nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=4, bias=False),
        nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5, bias=False), nn.BatchNorm1d(5),
    ).eval()  # fmt: skip
    report = ag.transfer(source, target, inputs=images(9, 9, 3))
    assert report.verified, report
    notes = [note for row in report.rows for note in row.notes]
    assert [x for x in notes if "subtracted from the mean of '1'" in x], notes
    assert len(notes) == 3, notes
    norm, bias = source.layers[2], keras.ops.convert_to_numpy(source.layers[1].bias)
    expected = keras.ops.convert_to_numpy(norm.moving_mean) - bias
    np.testing.assert_allclose(target[1].running_mean.numpy(), expected, rtol=0, atol=2**-23)


@check
def a_bias_with_nothing_after_it_that_could_take_it() -> None:
    source = filled(keras_model((9, 9, 3), kl.Conv2D(4, 3), kl.ReLU(), kl.BatchNormalization(epsilon=1e-5)))
    target = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.ReLU(), nn.BatchNorm2d(4)).eval()
    before = target[0].weight.detach().clone()
    said = "has a bias, '0' of Sequential none, and no batch norm right after it"
    raises(InvalidWeights, said, lambda: ag.transfer(source, target, inputs=images(9, 9, 3)))
    assert torch.equal(before, target[0].weight)


@check
def both_biases_of_a_separable_convolution() -> None:
    source = nn.Sequential(
        nn.Conv2d(3, 6, 3, groups=3), nn.Conv2d(6, 5, 1), nn.ReLU(), nn.Conv2d(5, 5, 3, groups=5), nn.Conv2d(5, 4, 1),
        nn.BatchNorm2d(4),
    )  # fmt: skip
    target = keras_model(
        (9, 9, 3), kl.SeparableConv2D(5, 3, depth_multiplier=2, activation="relu"),
        kl.SeparableConv2D(4, 3, use_bias=False), kl.BatchNormalization(epsilon=1e-5),
    )  # fmt: skip
    report = ag.transfer(randomized(source), target, inputs=first(images(9, 9, 3)))
    assert report.verified, report


# What differs, and its fix --------------------------------------------------------------------------------------------
class Pooled(nn.Module):
    """As torchvision's Inception: an average pool, by a function, that counts the zeros around."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.b(nn.functional.avg_pool2d(self.a(x), 3, 2, 1))
        return out


@check
def average_pools_that_count_their_padding() -> None:
    target = keras_model((9, 9, 3), kl.Conv2D(4, 1), kl.AveragePooling2D(3, 2, "same", name="pool"), kl.Conv2D(5, 3))
    report = ag.transfer(randomized(Pooled()), target, inputs=first(images(9, 9, 3)))
    assert not report.verified
    assert any("pool" in x for x in report.differences), report.differences
    assert report.error > 1e-2
    # And the other way: from Keras, which never counts them.
    other = nn.Sequential(nn.Conv2d(3, 4, 1), nn.AvgPool2d(3, 2, 1), nn.Conv2d(4, 5, 3)).eval()
    assert not ag.transfer(target, other, inputs=images(9, 9, 3)).verified
    right = nn.Sequential(nn.Conv2d(3, 4, 1), nn.AvgPool2d(3, 2, 1, count_include_pad=False), nn.Conv2d(4, 5, 3))
    assert ag.transfer(target, right.eval(), inputs=images(9, 9, 3)).verified


@check
def settings_that_differ_are_no_obstacle_to_the_match() -> None:
    def make(padding: int, epsilon: float) -> Any:
        return nn.Sequential(nn.Conv2d(3, 4, 3, 2, padding), nn.BatchNorm2d(4, eps=epsilon), nn.Conv2d(4, 2, 3))

    target = keras_model((10, 10, 3), kl.Conv2D(4, 3, 2, "same", name="c"), kl.BatchNormalization(), kl.Conv2D(2, 3))
    there = ag.transfer(randomized(make(1, 1e-5)), target, inputs=first(images(10, 10, 3)))
    back = ag.transfer(target, make(1, 1e-5).eval(), inputs=images(10, 10, 3))
    for report in (there, back):
        assert not report.verified
        assert report.differences
        assert {row.matched for row in report.rows} == {"structure"}
    padded = nn.Conv2d(3, 4, 3, 2), nn.BatchNorm2d(4, eps=1e-3), nn.Conv2d(4, 2, 3)
    same = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), *padded)
    assert ag.transfer(target, same.eval(), inputs=images(10, 10, 3)).verified


@check
def a_wide_kernel_is_not_a_high_one() -> None:
    source = randomized(nn.Sequential(nn.Conv2d(4, 4, (1, 3)), nn.Conv2d(4, 4, (3, 1))))
    target = keras_model((9, 9, 4), kl.Conv2D(4, (1, 3)), kl.Conv2D(4, (1, 3)))
    raises(InvalidWeights, "have no counterpart", lambda: ag.transfer(source, target, inputs=first(images(9, 9, 4))))


# Kinds without a counterpart ------------------------------------------------------------------------------------------
@check
def kinds_without_a_counterpart_are_named() -> None:
    def keras_side(layer: Any, shape: tuple[int, ...]) -> Callable[[], Any]:
        target = keras_model(shape, layer)
        source = nn.Conv3d(shape[-1], 3, 1) if len(shape) > 3 else nn.Linear(shape[-1], 3)
        x = first(images(*shape)) if len(shape) > 3 else images(*shape)
        return lambda: ag.transfer(source, target, inputs=x)

    for layer, shape in (
        (kl.ConvLSTM2D(3, 3), (4, 6, 6, 2)), (kl.EinsumDense("abc,bcd->abd", (4, 5)), (4, 2)), (kl.GRU(3), (4, 2)),
    ):  # fmt: skip
        raises(InvalidWeights, f"have no counterpart, such as '{layer.name}", keras_side(layer, shape))
    before = keras_model((4, 2), kl.GRU(3, reset_after=False))
    gru = nn.Sequential(Only(nn.GRU(2, 3, batch_first=True), last=True)).eval()
    x = torch.from_numpy(images(4, 2))
    raises(InvalidWeights, "make it with reset_after=True", lambda: ag.transfer(gru, before, inputs=x))

    dense = keras_model((7, 6), kl.Dense(3))

    class Attending(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.MultiheadAttention(6, 2, add_bias_kv=True, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.inner(x, x, x)[0]
            return out

    projected = nn.LSTM(6, 4, proj_size=3, batch_first=True)
    for module in (projected, nn.BatchNorm1d(7, track_running_stats=False), Attending()):
        source = nn.Sequential(module).eval()
        said = "have no counterpart, such as 'dense"
        raises(InvalidWeights, said, lambda s=source: ag.transfer(s, dense, inputs=torch.from_numpy(images(7, 6))))
    lora = keras_model((7, 6), kl.Dense(3))
    lora.layers[1].enable_lora(2)
    raises(InvalidWeights, "cannot be set", lambda: ag.transfer(dense, lora, inputs=images(7, 6)))
    large = nn.Linear(6, 5)
    nn.init.constant_(large.weight, 1e5)
    half = keras.Sequential([keras.Input((7, 6)), kl.Dense(5, dtype="float16")])
    said = "float16, which does not hold 1e+05"
    raises(InvalidWeights, said, lambda: ag.transfer(large, half, inputs=images(7, 6)))

    class Placed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.three, self.one = nn.Conv2d(4, 4, 3, 1, 1), nn.Conv2d(4, 4, 1)
            self.table = nn.Parameter(torch.ones(4, 8, 8))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.three(x) + self.one(x + self.table)
            return out

    single = keras_model((8, 8, 4), kl.Conv2D(4, 3, padding="same"))
    x = torch.from_numpy(images(4, 8, 8))
    raises(InvalidWeights, "'table' (parameter, table (4, 8, 8))", lambda: ag.transfer(Placed(), single, inputs=x))
    raises(InvalidInput, "", lambda: ag.transfer(nn.LazyLinear(3), dense, inputs=torch.zeros(2, 7, 6)))


@check
def every_layer_with_weights_stands_in_the_docs() -> None:
    assert not missing(keras.layers, keras.layers.Layer, r"add_weight\(")


# Weights that are computed from others --------------------------------------------------------------------------------
@check
def normed_weights() -> None:
    def make(norm: Callable[[Any], Any]) -> Any:
        return nn.Sequential(norm(nn.Conv2d(3, 4, 3)), nn.ReLU(), norm(nn.Conv2d(4, 5, 3)))

    target = keras_model((9, 9, 3), kl.Conv2D(4, 3, activation="relu"), kl.Conv2D(5, 3))
    for norm in (parametrizations.weight_norm, nn.utils.weight_norm, parametrizations.spectral_norm):
        source = make(norm).train()  # in which spectral norm changes its state at each look
        state = {name: x.clone() for name, x in source.state_dict().items()}
        report = ag.transfer(source, target, inputs=first(images(9, 9, 3)))
        assert report.verified, report
        assert all(torch.equal(x, state[name]) for name, x in source.state_dict().items())
    filled(target)
    for norm in (parametrizations.weight_norm, nn.utils.weight_norm):
        report = ag.transfer(target, make(norm).eval(), inputs=images(9, 9, 3))
        assert report.verified, report
    held = make(parametrizations.spectral_norm).eval()
    raises(InvalidWeights, "remove_parametrizations", lambda: ag.transfer(target, held, inputs=images(9, 9, 3)))


@check
def spectral_normalization_of_keras() -> None:
    source = randomized(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3)))
    target = keras_model(
        (9, 9, 3),
        kl.SpectralNormalization(kl.Conv2D(4, 3, activation="relu")),
        kl.SpectralNormalization(kl.Conv2D(5, 3)),
    )
    assert ag.transfer(source, target, inputs=first(images(9, 9, 3))).verified


@check
def pruned_weights() -> None:
    source = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
    prune.l1_unstructured(source[0], "weight", 0.5)
    target = keras_model((7, 6), kl.Dense(5, "relu"), kl.Dense(3))
    assert ag.transfer(source, target, inputs=torch.from_numpy(images(7, 6))).verified
    assert ag.transfer(target, source, inputs=images(7, 6)).verified  # the same places are zero
    filled(target)
    before = {name: x.clone() for name, x in source.state_dict().items()}
    raises(
        InvalidWeights,
        "Linear computes its weight from others",
        lambda: ag.transfer(target, source, inputs=images(7, 6)),
    )
    assert all(torch.equal(x, before[name]) for name, x in source.state_dict().items() if "orig" not in name)


# Cards and files ------------------------------------------------------------------------------------------------------
@check
def the_card_goes_with_the_weights_and_into_the_file() -> None:
    source = randomized(nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)))
    preprocessing = Preprocessing((0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
    attach(source, ModelCard("of the source", preprocessing, (12, 14), ("cat", "dog"), {"0": ("stem",)}))
    target = keras_model(
        (None, None, 3), kl.Rescaling(1 / 127.5, -1), kl.Conv2D(4, 3), kl.GlobalAveragePooling2D(), kl.Dense(2)
    )
    assert ag.transfer(source, target).verified
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "target.keras"
        backend_of(target)[WEIGHTS].save(target, path)
        loaded = ag.load(str(path))
        plain = keras.saving.load_model(path)
    card = card_of(loaded)
    assert card is not None
    assert (card.spec, card.size, card.class_names) == (str(path), (12, 14), ("cat", "dog"))
    assert not card.aliases
    # (x - mean) / std is what the convolution must be handed, after the target's own x / 127.5 - 1.
    photo = np.random.default_rng(1).random((1, 12, 14, 3)).astype(np.float32)
    handed = (photo * card.preprocessing.scale - card.preprocessing.mean) / np.array(card.preprocessing.std)
    np.testing.assert_allclose(
        handed / 127.5 - 1, (photo - preprocessing.mean) / np.array(preprocessing.std), atol=1e-5
    )
    with torch.no_grad():
        right = source(first(((photo - preprocessing.mean) / np.array(preprocessing.std)).astype(np.float32))).numpy()
    for model in (loaded, plain):
        found = keras.ops.convert_to_numpy(model(handed.astype(np.float32)))
        np.testing.assert_allclose(found, right, atol=1e-5 * np.abs(right).max())


@check
def a_twin_takes_a_file_of_torchvisions() -> None:
    import torchvision

    source = randomized(torchvision.models.resnet18())
    x = images(32, 32, 3)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.pth"
        torch.save(source.state_dict(), path)
        twin = ag.load("resnet18", backend="keras", weights=path)
    found = keras.ops.convert_to_numpy(twin(x, training=False))
    with torch.no_grad():
        right = source.double()(first(x).double()).numpy()
    # 16 floors of at least 8 roundings each: as a transfer is verified.
    assert np.abs(found - right).max() <= 16 * 8 * 2.0**-24 * np.abs(right).max()


@check
def a_function_takes_numbered_weights() -> None:
    makes = "import keras\ndef make():\n    return keras.Sequential([keras.Input((4,)), keras.layers.Dense({})])\n"
    with tempfile.TemporaryDirectory() as folder:
        mine, other, path = Path(folder) / "mine.py", Path(folder) / "other.py", Path(folder) / "a.weights.h5"
        mine.write_text(makes.format(3))
        other.write_text(makes.format(2))
        model = filled(ag.load(f"{mine}:make"))
        backend_of(model)[WEIGHTS].save(model, path)
        again = ag.load(f"{mine}:make", weights=path)
        for a, b in zip(model.get_weights(), again.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
        raises(InvalidWeights, f"{path} does not fit {other}:make", lambda: ag.load(f"{other}:make", weights=path))
        gone = Path(folder) / "none.weights.h5"
        raises(InvalidWeights, f"'{gone}': there is no such file", lambda: ag.load(f"{mine}:make", weights=gone))


@check
def a_broken_card_is_one_sentence() -> None:
    import zipfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.keras"
        keras_model((4,), kl.Dense(2)).save(path)
        with zipfile.ZipFile(path, "a") as file:
            file.writestr("agnostic.json", '{"size": 3}')
        raises(InvalidInput, "is not valid", lambda: ag.load(str(path)))
