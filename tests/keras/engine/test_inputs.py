"""Keras models: inputs that are declared or found, any size before a dense head, ranges, logits."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers as kl

import agnostic as ag
from agnostic.models.inputs import inputs_of
from agnostic.models.preparing import preprocessing_of
from agnostic.registry import backend_of

OPTIONS: dict[str, Any] = {"steps": 2, "recipe": "classic", "dtype": "float32"}


class HeadFirst(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.head, self.stem = kl.Dense(5), kl.Conv2D(4, 3)

    def call(self, x: Any) -> Any:
        return self.head(keras.ops.mean(self.stem(x), (1, 2)))


class Two(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.head, self.stem = kl.Dense(4), kl.Conv2D(4, 3)

    def call(self, image: Any, vector: Any) -> Any:
        return self.head(vector) + keras.ops.mean(self.stem(image), (1, 2))


def _forms(model: Any) -> list[tuple[str, tuple[int | None, ...]]]:
    return [(x.axes, x.shape) for x in inputs_of(backend_of(model), model, near=20)]


def test_inputs() -> None:
    model, two = HeadFirst(), Two()
    model(np.zeros((2, 12, 14, 2), np.float32))
    two(np.zeros((2, 9, 9, 3), np.float32), np.zeros((2, 7), np.float32))
    assert _forms(model) == [("NHWC", (1, 12, 14, 2))]
    assert _forms(two) == [("NHWC", (1, 20, 20, 3)), ("NC", (1, 7))]
    assert {x.calls for x in ag.layers(two)} == {1}
    image, vector = keras.Input((None, None, 1), name="image"), keras.Input((6,), name="vector")
    both = keras.Model({"image": image, "vector": vector}, kl.GlobalMaxPooling2D()(image) + kl.Dense(1)(vector))
    assert _forms(both) == [("NHWC", (1, 20, 20, 1)), ("NC", (1, 6))]
    assert ag.layers(both)
    with pytest.raises(ag.InvalidInput, match=r"'vector' besides the input 'image' .its inputs are NHWC .* and NC"):
        ag.visualize(both, ag.objectives.logit(0))


def test_a_part_before_a_dense_head_takes_any_size() -> None:
    image = keras.Input((16, 16, 3))
    body = keras.Model(image, kl.Conv2D(4, 3, name="inner")(image), name="body")
    model = keras.Model(image, kl.Dense(2)(kl.Flatten()(kl.Conv2D(5, 3, name="conv")(body(image)))))
    for layer in ("conv", "body.inner"):
        found = ag.visualize(model, ag.objectives.channel(layer, 0), size=(10, 12), **OPTIONS)
        assert found.shape == (1, 10, 12, 3)
        assert found.scores[-1] > found.scores[0]
    assert ag.capture(model, np.zeros((1, 9, 9, 3), np.float32), "conv")["conv"].shape == (1, 5, 5, 5)
    assert ag.visualize(model, ag.objectives.logit(0), **OPTIONS).shape == (1, 16, 16, 3)
    with pytest.raises(ag.InvalidInput, match=r"does not take images of 10 x 10 pixels \(.*choose another size"):
        ag.visualize(model, ag.objectives.logit(0), size=10, **OPTIONS)


def test_the_range_is_told_by_the_models_own_rescaling() -> None:
    image = keras.Input((4, 4, 3))
    normalization = kl.Normalization(mean=[120.0] * 3, variance=[60.0**2] * 3)
    inner = keras.Model(image, kl.Rescaling(1 / 127.5, -1)(image))
    bytes_expected = (
        kl.Rescaling(1 / 255)(image), image / 255.0, image * (1 / 255), normalization(image), inner(image),
        kl.Rescaling(1 / 255)(kl.RandomFlip()(image)),
    )  # fmt: skip
    photo = np.full((4, 4, 3), 51, np.uint8)
    for x in bytes_expected:
        model = keras.Model(image, kl.Conv2D(2, 1)(x))
        # 51 / 255 * 255, each rounded by 2^-24.
        np.testing.assert_allclose(keras.ops.convert_to_numpy(ag.prepare(model, photo)), 51.0, rtol=2**-22)
    unit = kl.Rescaling(2.0, -1.0)(image), kl.Normalization(mean=0.45, variance=0.05)(image), image
    for x in unit:
        model = keras.Model(image, kl.Conv2D(2, 1)(x))
        assert preprocessing_of(backend_of(model), model) is None


def test_logits_are_what_is_before_the_softmax() -> None:
    image = keras.Input((8, 8, 3))
    x = kl.GlobalAveragePooling2D()(kl.Conv2D(4, 3)(image))
    plain, inside = kl.Dense(5), kl.Dense(5, activation="softmax")
    logits, probabilities = plain(x), inside(x)
    inside.set_weights(plain.get_weights())
    right = ag.visualize(keras.Model(image, logits), ag.objectives.logit([1, 2]), **OPTIONS)
    ends = probabilities, kl.Softmax()(logits), keras.ops.softmax(logits), kl.Activation("sigmoid")(logits)
    for end in ends:
        found = ag.visualize(keras.Model(image, end), ag.objectives.logit([1, 2]), **OPTIONS)
        # The same functions of the same numbers, compiled once more.
        np.testing.assert_allclose(found, right, rtol=0, atol=2**-20)


class Mixed(keras.Model):
    """Layers, operations and arithmetic, one after the other; all lengths are 8, so that no shape tells anything."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.tokens, self.norm = kl.Conv2D(8, 1), kl.ReLU(), kl.LayerNormalization()
        self.attention, self.up, self.turned = kl.MultiHeadAttention(2, 4), kl.Dense(64), kl.Activation("relu")

    def call(self, x: Any) -> Any:
        x = self.tokens(keras.ops.reshape(self.conv(x), (-1, 64, 8)))
        y = self.norm(x)
        x = x + self.attention(y, y)
        return self.turned(keras.ops.transpose(self.up(x), (0, 2, 1)))


def test_axes_are_followed() -> None:
    mixed = Mixed()
    mixed(np.zeros((2, 8, 8, 3), np.float32))
    axes = {x.kind: x.axes for x in ag.layers(mixed) if "." not in x.name}
    assert axes == {
        "Conv2D": "NHWC", "ReLU": "NLC", "LayerNormalization": "NLC", "MultiHeadAttention": "NLC", "Dense": "NLC",
        "Activation": "NCL",
    }  # fmt: skip
    image = keras.Input((3, 8, 8))
    x = kl.Conv2D(8, 1, data_format="channels_first")(image)
    for layer in (
        kl.BatchNormalization(axis=1), kl.Permute((3, 1, 2)), kl.ReLU(), kl.Permute((3, 1, 2)), kl.ReLU(),
        kl.Reshape((64, 8)), kl.Permute((2, 1)), kl.Dense(8), kl.ReLU(), kl.GlobalAveragePooling1D("channels_first"),
    ):  # fmt: skip
        x = layer(x)
    found = [x.axes for x in ag.layers(keras.Model(image, x))]
    assert found == ["NCHW", "NCHW", "NWCH", "NWCH", "NHWC", "NHWC", "NLC", "NCL", "NCL", "NCL", "NC"]


def test_rows_and_volumes_are_drawn() -> None:
    row, volume = keras.Input((20, 2)), keras.Input((4, 8, 8, 3))
    objective = ag.objectives.channel("conv", [0, 1])
    for image, layer, shape in (
        (row, kl.Conv1D(4, 3, name="conv"), (2, 1, 20, 2)),
        (volume, kl.Conv3D(4, 3, name="conv"), (2, 8, 4 * 8, 3)),
    ):
        found = ag.visualize(keras.Model(image, layer(image)), objective, **OPTIONS)
        assert found.shape == shape
        assert (found.scores[-1] > found.scores[0]).all()
    free = keras.Input((None, 1))
    found = ag.visualize(keras.Model(free, kl.Conv1D(2, 3, name="conv")(free)), objective, size=12, **OPTIONS)
    assert found.shape == (2, 1, 12, 1)
