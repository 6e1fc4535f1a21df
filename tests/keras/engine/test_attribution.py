"""Attribution where Keras differs: guided rectifiers, nested models, reused layers; parity is tests/parity's."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers as kl

import agnostic as ag
from agnostic.attribution.maps import enlarged
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


def with_random_weights(model: keras.Model) -> keras.Model:
    """Kernels and scales of a fixed seed; biases, offsets and means stay zero, variances one."""
    generator = np.random.default_rng(5)
    for x in model.weights:
        if x.name in ("kernel", "depthwise_kernel", "pointwise_kernel"):
            fan_in = np.prod(x.shape) / x.shape[-1]
            x.assign(generator.standard_normal(x.shape) * np.sqrt(2 / fan_in))
        elif x.name == "gamma":
            x.assign(generator.standard_normal(x.shape))
    ag.set_card(model, {"range": [0, 1]})
    return model


def test_relevance_adds_up_to_the_score_in_nested_and_separable_convolutions() -> None:
    inner = keras.Sequential([
        keras.Input((12, 12, 4)), kl.SeparableConv2D(4, 3, padding="same", use_bias=False), kl.BatchNormalization(),
        kl.ReLU(),
    ])  # fmt: skip
    x = inputs = keras.Input((12, 12, 3))
    x = kl.Conv2D(4, 3, padding="same")(x)
    x = kl.BatchNormalization()(x)
    x = kl.Activation("silu")(x)
    x = kl.Add()([inner(x), x])
    gate = kl.Dense(4, activation="sigmoid", use_bias=False)(kl.GlobalAveragePooling2D(keepdims=True)(x))
    x = kl.GlobalAveragePooling2D()(kl.Multiply()([x, gate]))
    model = with_random_weights(keras.Model(inputs, kl.Dense(3, use_bias=False)(x)))
    found = ag.explain(model, IMAGES, target=1, method="lrp")
    assert np.abs(found.scores).min() > 0.01
    # The variance of batch norm is 1 and its epsilon is a part of the scale; the stabilizer takes its part of each sum.
    np.testing.assert_allclose(found.maps.sum((1, 2)), found.scores, rtol=2e-3)


def test_differences_and_quotients_with_constants_are_a_part_of_the_linear_function_before() -> None:
    kernel, mean, scale = (np.random.default_rng(i).random(4).astype(np.float32) + 0.5 for i in range(3))

    def written(way: str) -> keras.Model:
        x = inputs = keras.Input((12, 12, 3))
        x = kl.Conv2D(4, 3, use_bias=False, name="conv")(x)
        if way == "layer":
            x = kl.BatchNormalization(epsilon=1e-9, name="norm")(x)
        else:
            x = 2.0 - (2.0 - keras.ops.divide(keras.ops.subtract(x, mean), scale))
        x = kl.GlobalAveragePooling2D()(kl.ReLU()(x))
        model = keras.Model(inputs, kl.Dense(3, use_bias=False, name="head")(x))
        with_random_weights(model)
        if way == "layer":
            model.get_layer("norm").set_weights([np.ones(4), np.zeros(4), mean, scale**2])
        model.get_layer("head").set_weights([np.outer(kernel, [1, -1, 0.5])])
        return model

    for method in ("lrp", "lrp_epsilon"):
        right, found = (ag.explain(written(way), IMAGES, target=1, method=method).maps for way in ("layer", "ops"))
        # The order of the sums differs: some tens of roundings.
        np.testing.assert_allclose(found, right, rtol=0, atol=64 * 2**-24 * np.abs(right).max())


def test_attention_of_keras_is_followed() -> None:
    inputs = keras.Input((12, 12, 3))
    x = kl.Reshape((9, 8))(kl.Conv2D(8, 4, 4, use_bias=False)(inputs))
    layers = [kl.MultiHeadAttention(2, 4, use_bias=False, name=f"attention{i}") for i in range(2)]
    for attention in layers:
        y = kl.LayerNormalization()(x)
        x = kl.Add()([x, attention(y, y)])
    model = with_random_weights(keras.Model(inputs, kl.Dense(3, use_bias=False)(kl.GlobalAveragePooling1D()(x))))
    found = ag.explain(model, IMAGES, target=1, method="lrp")
    np.testing.assert_allclose(found.maps.sum((1, 2)), found.scores, rtol=2e-3)
    flow = np.eye(9)
    for i, attention in enumerate(layers):
        norm = [x for x in model.layers if isinstance(x, kl.LayerNormalization)][i]
        seen = keras.Model(inputs, norm.output)(IMAGES)
        weights = keras.ops.convert_to_numpy(attention(seen, seen, return_attention_scores=True)[1]).astype(np.float64)
        flow = (weights.mean(1) + np.eye(9)) / 2 @ flow
    right = enlarged(flow.mean(1).reshape(2, 3, 3), (12, 12))
    rolled = ag.explain(model, IMAGES, target=1, method="attention_rollout").maps
    np.testing.assert_allclose(rolled, right, rtol=0, atol=200 * 2**-24 * right.max())
