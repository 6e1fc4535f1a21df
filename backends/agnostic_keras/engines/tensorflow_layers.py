"""Convolutions and pools on TensorFlow: Keras' own, with the bias added in one pass."""

from __future__ import annotations

from typing import Any, TypeAlias

import keras
import tensorflow as tf

Tensor: TypeAlias = Any  # tf.Tensor: TensorFlow has no types


def convolution(layer: Any, x: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
    """See :mod:`agnostic_keras.engines`."""
    convolve = keras.ops.depthwise_conv if hasattr(layer, "depth_multiplier") else keras.ops.conv
    y = convolve(x, kernel, tuple(layer.strides), layer.padding, "channels_last", layer.dilation_rate)
    return y if bias is None else tf.nn.bias_add(y, bias)


def max_pool(layer: Any, x: Tensor) -> Tensor:
    """See :mod:`agnostic_keras.engines`."""
    return keras.ops.max_pool(x, layer.pool_size, layer.strides, layer.padding, "channels_last")
