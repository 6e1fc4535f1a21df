"""Convolutions and pools on jax: from jax's own gradients XLA makes slow code on a CPU, slower still inside a loop."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from agnostic_keras.engines import pads, pads_back

Array = jax.Array


def convolution(layer: Any, x: Array, kernel: Array, bias: Array | None) -> Array:
    """See :mod:`agnostic_keras.engines`; the gradient of ``x`` is written as one more forward convolution."""
    if hasattr(layer, "depth_multiplier"):
        kernel = kernel.reshape(*kernel.shape[:2], 1, -1)
    height, width, inputs, outputs = kernel.shape
    groups, dilation = x.shape[3] // inputs, layer.dilation_rate
    around, back = pads(layer, x.shape[1:3], (height, width)), pads_back(layer, x.shape[1:3], (height, width))

    def backward(kernel: Array, g: Array) -> tuple[Array, None]:
        turned = kernel[::-1, ::-1].reshape(height, width, inputs, groups, -1).swapaxes(2, 4)
        turned = turned.reshape(height, width, outputs // groups, -1)
        return _convolve(g, turned, (1, 1), back, layer.strides, dilation), None

    forward = jax.custom_vjp(lambda x, kernel: _convolve(x, kernel, layer.strides, around, (1, 1), dilation))
    forward.defvjp(lambda x, kernel: (forward(x, kernel), kernel), backward)
    return forward(x, kernel) + (0 if bias is None else bias)


def _convolve(x: Array, kernel: Array, strides: Any, padding: Any, stretch: Any, dilation: Any) -> Array:
    groups = x.shape[3] // kernel.shape[2]
    if kernel.shape[2:] == (1, groups) and groups > 1:  # XLA's own depthwise convolution takes up to 30 times as long
        edges = [(low, high, s - 1) for (low, high), s in zip(padding, stretch, strict=True)]
        x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *edges, (0, 0, 0)])
        windows = _windows(x, kernel.shape[:2], strides, dilation)
        return functools.reduce(jnp.add, map(jnp.multiply, kernel.reshape(-1, groups), windows))
    return lax.conv_general_dilated(x, kernel, strides, padding, stretch, dilation, ("NHWC", "HWIO", "NHWC"), groups)


def _windows(x: Array, size: Any, strides: Any, dilation: Any = (1, 1)) -> list[Array]:
    """For each place in a window, in order, what all windows have there."""
    places = itertools.product(*(range(0, k * d, d) for k, d in zip(size, dilation, strict=True)))
    high, wide = (n - (k - 1) * d for n, k, d in zip(x.shape[1:3], size, dilation, strict=True))
    return [x[:, i : i + high : strides[0], j : j + wide : strides[1]] for i, j in places]


def max_pool(layer: Any, x: Array) -> Array:
    """See :mod:`agnostic_keras.engines`; by choices, whose gradient goes to the first of several largest, as XLA's."""
    x = jnp.pad(x, ((0, 0), *pads(layer, x.shape[1:3], layer.pool_size), (0, 0)), constant_values=-jnp.inf)
    windows = _windows(x, layer.pool_size, layer.strides)
    return functools.reduce(lambda y, x: jnp.where((x > y) | (x != x), x, y), windows)  # not a number stays
