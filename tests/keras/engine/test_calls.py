"""The layouts of what layers are called with: the order in which a flattened array counts."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import agnostic as ag

PIXELS = np.random.default_rng(0).random((4, 5, 6, 3), np.float32)


def network(*between: keras.layers.Layer) -> keras.Model:
    layers = [keras.layers.Conv2D(4, 3, name="conv"), *between, keras.layers.Dense(7, name="dense")]
    model = keras.Sequential([keras.Input(PIXELS.shape[1:]), *layers])
    model.get_layer("conv").set_weights(network.conv)
    return model


network.conv = [np.random.default_rng(1).normal(0, 0.3, shape) for shape in ((3, 3, 3, 4), (4,))]  # type: ignore[attr-defined]
KERNEL = np.random.default_rng(2).normal(0, 0.2, (3, 4, 4, 7))
"""Of the dense layer, with rows for (height, width, channel)."""

ORDERS = {
    "Permute": ((2, 0, 1), lambda: (keras.layers.Permute((3, 1, 2)), keras.layers.Flatten())),
    "two Permutes": ((1, 0, 2), lambda: (keras.layers.Permute((2, 1, 3)), keras.layers.Flatten())),
    # It moves what it takes for the channels, here the height, to the end.
    "channels first": ((1, 2, 0), lambda: (keras.layers.Flatten(data_format="channels_first"),)),
    "Reshape": ((0, 1, 2), lambda: (keras.layers.Reshape((-1,)),)),
}


@pytest.mark.parametrize("order", ORDERS)
def test_the_order_of_flattened_features_is_followed(order: str) -> None:
    moved, between = ORDERS[order]
    a, b = network(keras.layers.Flatten()), network(*between())
    bias = np.zeros(7)
    a.get_layer("dense").set_weights([KERNEL.reshape(-1, 7), bias])
    b.get_layer("dense").set_weights([KERNEL.transpose(*moved, 3).reshape(-1, 7), bias])
    np.testing.assert_allclose(np.asarray(a.predict(PIXELS)), np.asarray(b.predict(PIXELS)), atol=1e-4)
    same = ag.compare(a, b, PIXELS)
    assert same.same, str(same)

    b.get_layer("dense").set_weights([KERNEL.reshape(-1, 7), bias])
    different = ag.compare(a, b, PIXELS)
    assert different.same == (moved == (0, 1, 2)), str(different)
