"""Descriptions of Keras layers, executed in NumPy float64, against what the engine computes in float32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers as kl

import agnostic as ag
from agnostic.contracts.description import DESCRIPTION
from agnostic.description import LayerDescription
from agnostic.reference.layers import apply, obstacle

CASES: dict[str, tuple[Callable[[], Any], tuple[int, ...]]] = {
    "conv": (lambda: kl.Conv2D(4, 3, activation="relu"), (9, 10, 3)),
    "conv same": (lambda: kl.Conv2D(4, (3, 4), strides=2, padding="same"), (9, 10, 3)),
    "conv groups": (lambda: kl.Conv2D(8, 3, groups=2, dilation_rate=2, use_bias=False), (9, 10, 6)),
    "conv depthwise": (lambda: kl.Conv2D(8, 3, groups=4), (9, 10, 4)),
    "conv causal": (lambda: kl.Conv1D(4, 3, padding="causal", dilation_rate=2), (9, 3)),
    "depthwise": (lambda: kl.DepthwiseConv2D(3, strides=2, padding="same", depth_multiplier=2), (9, 10, 3)),
    "separable": (lambda: kl.SeparableConv2D(5, 3, padding="same", activation="tanh"), (9, 10, 3)),
    "transposed": (lambda: kl.Conv2DTranspose(5, 3, strides=2, padding="same"), (5, 6, 3)),
    "transposed even": (lambda: kl.Conv2DTranspose(5, 4, strides=2, padding="same"), (5, 6, 3)),
    "transposed valid": (lambda: kl.Conv2DTranspose(5, 3, strides=2), (5, 6, 3)),
    "dense": (lambda: kl.Dense(5, activation="gelu"), (7,)),
    "einsum": (lambda: kl.EinsumDense("abc,cde->abde", (None, 2, 5), bias_axes="de"), (4, 7)),
    "batch norm": (lambda: kl.BatchNormalization(epsilon=1e-2), (5, 6, 4)),
    "layer norm": (lambda: kl.LayerNormalization(), (5, 6)),
    "rms norm": (lambda: kl.RMSNormalization(), (5, 6)),
    "group norm": (lambda: kl.GroupNormalization(2), (5, 6, 4)),
    "instance norm": (lambda: kl.GroupNormalization(-1), (5, 6, 4)),
    "unit norm": (lambda: kl.UnitNormalization(), (6,)),
    "normalization": (lambda: kl.Normalization(mean=[0.1, 0.2, 0.3], variance=[1.0, 2.0, 3.0]), (5, 6, 3)),
    "rescaling": (lambda: kl.Rescaling([1.0, 2.0, 3.0], 0.5), (5, 6, 3)),
    **{
        f"activation {name}": (lambda name=name: kl.Activation(name), (6, 5))
        for name in (
            "relu", "relu6", "leaky_relu", "elu", "celu", "selu", "gelu", "silu", "mish", "sigmoid", "log_sigmoid",
            "hard_sigmoid", "hard_silu", "tanh", "hard_tanh", "tanh_shrink", "softplus", "softsign", "soft_shrink",
            "hard_shrink", "squareplus", "sparse_plus", "sparse_sigmoid", "exponential", "softmax", "log_softmax",
            "linear",
        )
    },
    "activation by code": (lambda: kl.Activation(lambda x: keras.ops.gelu(x)), (6, 5)),
    "activation clipped": (lambda: kl.Dense(4, activation=lambda x: keras.ops.relu(x) * 1.0), (5,)),
    "relu layer": (lambda: kl.ReLU(max_value=4.0, negative_slope=0.1, threshold=0.2), (6, 5)),
    "leaky relu layer": (lambda: kl.LeakyReLU(), (6, 5)),
    "prelu": (lambda: kl.PReLU(shared_axes=[1, 2]), (5, 6, 3)),
    "softmax layer": (lambda: kl.Softmax(axis=1), (6, 5)),
    "max pool": (lambda: kl.MaxPooling2D(3, 2, "same"), (8, 9, 3)),
    "average pool": (lambda: kl.AveragePooling2D(3, 2, "same"), (8, 9, 3)),
    "average pool valid": (lambda: kl.AveragePooling2D(2), (8, 9, 3)),
    "global pool": (lambda: kl.GlobalAveragePooling2D(), (8, 9, 3)),
    "global max": (lambda: kl.GlobalMaxPooling2D(keepdims=True), (8, 9, 3)),
    "adaptive": (lambda: kl.AdaptiveAveragePooling2D((3, 4)), (8, 9, 3)),
    "flatten": (lambda: kl.Flatten(), (3, 4, 5)),
    "reshape": (lambda: kl.Reshape((4, 15)), (3, 4, 5)),
    "permute": (lambda: kl.Permute((2, 1, 3)), (3, 4, 5)),
    "repeat": (lambda: kl.RepeatVector(3), (4,)),
    "padding": (lambda: kl.ZeroPadding2D(((1, 2), (0, 3))), (4, 5, 3)),
    "crop": (lambda: kl.Cropping2D(((1, 2), (0, 3))), (8, 9, 3)),
    "nearest": (lambda: kl.UpSampling2D(2), (4, 5, 3)),
    "bilinear": (lambda: kl.UpSampling2D(2, interpolation="bilinear"), (4, 5, 3)),
    "bicubic": (lambda: kl.UpSampling2D(2, interpolation="bicubic"), (4, 5, 3)),
    "resizing": (lambda: kl.Resizing(7, 9), (4, 5, 3)),
    "resizing down": (lambda: kl.Resizing(5, 4, antialias=True), (11, 9, 3)),
    "resizing cubic": (lambda: kl.Resizing(8, 10, interpolation="bicubic", antialias=True), (4, 5, 3)),
    "resizing nearest": (lambda: kl.Resizing(7, 3, interpolation="nearest"), (4, 5, 3)),
    "dropout": (lambda: kl.Dropout(0.5), (6,)),
    "lstm": (lambda: kl.LSTM(4), (6, 3)),
    "lstm sequence": (lambda: kl.LSTM(4, return_sequences=True, go_backwards=True), (6, 3)),
    "gru": (lambda: kl.GRU(4), (6, 3)),
    "gru before": (lambda: kl.GRU(4, reset_after=False), (6, 3)),
    "rnn": (lambda: kl.SimpleRNN(4), (6, 3)),
    "bidirectional": (lambda: kl.Bidirectional(kl.GRU(4)), (6, 3)),
    "bidirectional sequence": (lambda: kl.Bidirectional(kl.LSTM(4, return_sequences=True), "sum"), (6, 3)),
    "attention": (lambda: kl.MultiHeadAttention(3, 4), (6, 12)),
}  # fmt: skip


def described(layer: Any, shape: tuple[int, ...]) -> tuple[LayerDescription, Any, np.ndarray]:
    """The layer with weights of its own everywhere, its description, and what the engine makes of an input."""
    x = np.random.default_rng(5).standard_normal((2, *shape)).astype(np.float32)
    inputs = keras.Input(shape)
    model = keras.Model(inputs, layer(inputs, inputs) if isinstance(layer, kl.MultiHeadAttention) else layer(inputs))
    rng = np.random.default_rng(7)
    for w in layer.weights:
        if not w.name.startswith("seed"):
            # Positive, since one of them is a variance.
            w.assign((rng.random(w.shape) + 0.1).astype(np.float32) * (0.3 if "kernel" in w.name else 1.0))
    (found,) = ag.backend_of(model)[DESCRIPTION].describe(model, [layer.name])
    output = model(x, training=False)
    return found, x, np.asarray(ag.backend_of(model).ops.numpy(output), np.float64)


@pytest.mark.parametrize("name", CASES)
def test_layer(name: str) -> None:
    make, shape = CASES[name]
    layer, x, right = described(make(), shape)
    assert obstacle(layer) is None
    assert layer.kind not in ("other", "block")
    assert layer.config["framework"] == "keras"
    result = apply(layer, x)
    assert result.shape == right.shape
    # Sums of at most 60 products in float32, and a few such layers one after the other (a recurrent layer: 6 steps).
    most = 6 * 60 * 2.0**-24 * max(1.0, np.abs(right).max())
    assert np.abs(result - right).max() <= most


def test_an_activation_that_nobody_knows_is_other() -> None:
    layer, _, _ = described(kl.Activation(lambda x: keras.ops.sin(x)), (4,))
    assert layer.config["activation"] == "other"
    assert obstacle(layer)


def test_training_in_the_graph_is_seen() -> None:
    inputs = keras.Input((4,))
    model = keras.Model(inputs, kl.BatchNormalization(name="norm")(inputs, training=True))
    (layer,) = ag.backend_of(model)[DESCRIPTION].describe(model)
    assert layer.config["training"] is True


def test_a_subclass_is_marked() -> None:
    class Mine(kl.Conv2D):
        def call(self, x: Any) -> Any:
            return super().call(x) + 1

    layer, _, _ = described(Mine(2, 3), (5, 5, 3))
    assert layer.kind == "conv"
    assert layer.config["overridden"] is True
