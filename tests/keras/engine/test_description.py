"""Descriptions of Keras' layers: the kind, what a comparison reads of its settings, weights by name."""

from __future__ import annotations

import keras
import pytest
from keras import layers as kl

import agnostic as ag
from agnostic.contracts.description import DESCRIPTION

LAYERS = [
    (lambda: kl.Conv2D(4, 3, 2, "same"), (9, 9, 3), "conv", {"strides": (2, 2), "padding": "same"}, {}),
    (lambda: kl.Conv2D(8, 3, groups=4), (9, 9, 4), "depthwise_conv", {"padding": "valid"}, {"kernel": (3, 3, 4, 2)}),
    (lambda: kl.Conv1D(4, 3, padding="causal", dilation_rate=2), (9, 3), "conv", {"padding": ((4, 0),)}, {}),
    (lambda: kl.DepthwiseConv2D(3), (9, 9, 3), "depthwise_conv", {}, {"kernel": (3, 3, 3, 1), "bias": (3,)}),
    (lambda: kl.SeparableConv2D(5, 3), (9, 9, 3), "separable_conv", {}, {"pointwise_kernel": (1, 1, 3, 5)}),
    (lambda: kl.BatchNormalization(epsilon=1e-2), (5, 4), "batch_norm", {"epsilon": 1e-2, "momentum": 0.99}, {}),
    (lambda: kl.Normalization(mean=[1.0, 2.0], variance=[1.0, 2.0]), (5, 2), "normalization", {}, {"variance": (2,)}),
    (lambda: kl.Activation("gelu"), (5,), "activation", {"activation": "gelu"}, {}),
    (lambda: kl.Activation(lambda x: keras.ops.gelu(x)), (5,), "activation", {"activation": "gelu_tanh"}, {}),
    (lambda: kl.Activation(lambda x: keras.ops.sin(x)), (5,), "activation", {"activation": "other"}, {}),
    (lambda: kl.ReLU(6.0), (5,), "activation", {"activation": "relu6"}, {}),
    (lambda: kl.PReLU(), (5,), "activation", {"activation": "prelu"}, {"alpha": (5,)}),
    (lambda: kl.MaxPooling2D(3, 2, "same"), (8, 8, 3), "max_pool", {"strides": (2, 2), "padding": "same"}, {}),
    (lambda: kl.Bidirectional(kl.GRU(4)), (6, 3), "gru", {}, {"kernel": (3, 12), "backward.bias": (2, 12)}),
    (lambda: kl.Add(), (5,), "add", {}, {}),
]  # fmt: skip


@pytest.mark.parametrize("case", range(len(LAYERS)))
def test_a_layer_is_described(case) -> None:
    make, shape, kind, config, shapes = LAYERS[case]
    layer, inputs = make(), keras.Input(shape)
    model = keras.Model(inputs, layer([inputs, inputs]) if isinstance(layer, kl.Add) else layer(inputs))
    (found,) = ag.backend_of(model)[DESCRIPTION].describe(model, [layer.name])
    assert found.kind == kind
    shared = {"class": type(layer).__name__, "framework": "keras", "dtype": "float32", "training": False}
    assert found.config.items() >= {**shared, **config}.items()
    assert {name: found.weights[name].shape for name in shapes} == shapes


def test_training_in_the_graph_is_seen() -> None:
    inputs = keras.Input((4,))
    model = keras.Model(inputs, kl.BatchNormalization(name="norm")(inputs, training=True))
    (layer,) = ag.backend_of(model)[DESCRIPTION].describe(model)
    assert layer.config["training"] is True
