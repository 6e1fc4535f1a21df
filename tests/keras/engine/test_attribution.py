"""Attribution where Keras differs: guided rectifiers, nested models, reused layers; parity is tests/parity's."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers as kl

import agnostic as ag
from agnostic.errors import InvalidInput

IMAGES = np.random.default_rng(0).random((2, 12, 12, 3)).astype(np.float32)


@pytest.mark.parametrize("activation", ["relu", "relu6"])
def test_guided_gradients_follow_their_definition(activation: str) -> None:
    """One hidden layer: what comes back is the kernel's columns, where head and unit are positive."""
    inputs = keras.Input((12, 12, 3))
    hidden = kl.Dense(7, activation=activation, name="hidden")(kl.Flatten()(inputs))
    model = keras.Model(inputs, kl.Dense(2, activation="softmax", name="head")(hidden))
    ag.set_card(model, {"range": [0, 1]})
    kernel, bias = (np.asarray(keras.ops.convert_to_numpy(x), np.float64) for x in model.get_layer("hidden").weights)
    head = keras.ops.convert_to_numpy(model.get_layer("head").kernel).astype(np.float64)
    units = IMAGES.reshape(2, -1) @ kernel + bias
    inside = (units > 0) & (units < (6 if activation == "relu6" else np.inf))
    right = (inside * np.maximum(head[:, 1], 0)) @ kernel.T
    found = ag.explain(model, IMAGES, target=1, method="guided_backpropagation")
    expected = np.abs(right).reshape(2, 12, 12, 3).max(-1)
    np.testing.assert_allclose(found.maps, expected, atol=1e-5 * expected.max())


def test_a_nested_model_that_is_used_twice() -> None:
    tower = keras.Sequential([keras.Input((12, 12, 3)), kl.Conv2D(4, 3, activation="relu"), kl.GlobalMaxPooling2D()])
    left, right = keras.Input((12, 12, 3), name="left"), keras.Input((12, 12, 3), name="right")
    model = keras.Model([left, right], kl.Dense(3, name="head")(kl.Subtract()([tower(left), tower(right)])))
    ag.set_card(model, {"range": [0, 1]})
    found = ag.explain(model, IMAGES, image="left", inputs={"right": IMAGES[::-1]}, target=2, method="gradient")
    assert found.maps.shape == (2, 12, 12)
    assert found.maps.max() > 0
    with pytest.raises(InvalidInput, match="no layer of the model is a grid"):
        ag.explain(model, IMAGES, image="left", inputs={"right": IMAGES[::-1]}, target=2)


def test_channels_first_and_half_precision() -> None:
    policy = keras.DTypePolicy("mixed_bfloat16")
    model = keras.Sequential([
        keras.Input((12, 12, 3)), kl.Conv2D(5, 3, activation="relu", name="conv", dtype=policy),
        kl.GlobalAveragePooling2D(), kl.Dense(4, dtype="float32", name="head"),
    ])  # fmt: skip
    ag.set_card(model, {"range": [0, 1]})
    found = ag.explain(model, IMAGES, target=1)
    assert found.layer == "conv"
    assert found.maps.shape == (2, 12, 12)
    assert np.isfinite(found.maps).all()
