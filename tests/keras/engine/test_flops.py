"""Floating-point operations of Keras layers, against values counted by hand."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers as kl

import agnostic as ag

CASES = [
    (kl.Conv2D(8, 3, padding="same"), (10, 12, 3), 2 * 10 * 12 * 8 * 3 * 9),
    (kl.Conv2D(8, 3, strides=2, groups=2), (9, 9, 4), 2 * 4 * 4 * 8 * 2 * 9),
    (kl.Conv1D(5, 4), (11, 3), 2 * 8 * 5 * 3 * 4),
    (kl.Conv3D(3, 2), (4, 5, 6, 2), 2 * 3 * 4 * 5 * 3 * 2 * 8),
    (kl.DepthwiseConv2D(3, depth_multiplier=2), (8, 8, 4), 2 * 6 * 6 * 8 * 9),
    (kl.SeparableConv2D(5, 3), (8, 8, 4), 2 * 6 * 6 * (4 * 9 + 4 * 5)),
    (kl.Conv2DTranspose(6, 3, strides=2), (5, 7, 4), 2 * 5 * 7 * 4 * 6 * 9),
    (kl.Dense(5), (3, 7), 2 * 3 * 7 * 5),
    (kl.EinsumDense("...x,xy->...y", 5, bias_axes="y"), (3, 4, 7), 2 * 12 * 7 * 5),
    (kl.LSTM(5), (4, 6), 2 * 4 * 20 * (6 + 5)),
    (kl.Bidirectional(kl.GRU(5)), (4, 6), 2 * 2 * 4 * 15 * (6 + 5)),
    (kl.Embedding(10, 4), (5,), 0),
    (kl.BatchNormalization(), (4, 4, 3), 0),
    (kl.MaxPooling2D(), (4, 4, 3), 0),
]


def cost(build: Any, shape: tuple[int, ...], batch: int) -> Any:
    x = keras.Input(shape)
    return ag.layers(keras.Model(x, build(x)), np.zeros((batch, *shape), np.float32))[0].flops


def test_flops_are_those_counted_by_hand() -> None:
    inputs = [keras.Input(shape) for _, shape, _ in CASES]
    # One model of all, each layer by itself: a model for each would take most of a minute.
    model = keras.Model(inputs, [layer(x) for (layer, _, _), x in zip(CASES, inputs, strict=True)])
    for batch in (1, 3):
        listing = {x.name: x for x in ag.layers(model, tuple(np.zeros((batch, *shape)) for _, shape, _ in CASES))}
        found = [(type(layer).__name__, listing[layer.name].flops) for layer, _, _ in CASES]
        assert found == [(type(layer).__name__, batch * expected) for layer, _, expected in CASES]


def test_attention() -> None:
    heads = kl.MultiHeadAttention(2, 4)
    # Four projections of 3 x 8 to 8, and two products of 3 x 3 with two heads of 4.
    assert cost(lambda x: heads(x, x), (3, 8), 1) == 2 * (4 * 3 * 8 * 8 + 2 * 2 * 3 * 3 * 4)
    assert cost(lambda x: kl.Attention()([x, x]), (3, 8), 2) == 2 * 2 * 3 * 3 * 16


class Own(keras.Layer):
    """Whose matrix may be used for anything."""

    def build(self, shape: Any) -> None:
        self.matrix = self.add_weight(shape=(shape[-1], 4))

    def call(self, x: Any) -> Any:
        return x @ self.matrix


def test_what_a_layer_of_ones_own_does_is_not_known_and_blocks_are_sums() -> None:
    inner_in = keras.Input((6, 6, 3))
    conv = kl.Conv2D(3, 3, padding="same", name="conv")
    inner = keras.Model(inner_in, conv(conv(inner_in)), name="inner")
    x = keras.Input((6, 6, 3))
    model = keras.Model(x, Own(name="own")(inner(x)))
    listing = {layer.name: layer.flops for layer in ag.layers(model)}
    assert listing == {"inner": 4 * 36 * 9 * 9, "inner.conv": 4 * 36 * 9 * 9, "own": None}
    outer = keras.Model(x, keras.Sequential([Own(), kl.Dense(2, name="dense")], name="block")(x))
    listing = {layer.name: layer.flops for layer in ag.layers(outer)}
    assert listing["block"] is None
    assert listing["block.dense"] == 2 * 36 * 4 * 2
