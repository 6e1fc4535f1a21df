"""Keras on jax: pure functions, jitted; the whole ascent is one scan."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.interpreters.partial_eval import dce_jaxpr

from agnostic_keras.engines import pads, pads_back

Array = jax.Array
Function = Callable[..., list[Array]]
Cotangents = Callable[[list[Array]], list[Array]]
tanh, maximum, minimum = jnp.tanh, jnp.maximum, jnp.minimum


def irfft2(real: Array, imaginary: Array, shape: tuple[int, int]) -> Array:
    """See :meth:`agnostic.ops.Ops.irfft2`."""
    return jnp.fft.irfft2(lax.complex(real, imaginary), s=shape, norm="ortho")


def value_and_gradient(function: Callable[[Array], Array], x: Array) -> tuple[Array, Array]:
    """An array-valued function at ``x``, and the gradient of the sum of its values."""

    def total(x: Array) -> tuple[Array, Array]:
        values = function(x)
        return values.sum(), values

    (_, values), gradient = jax.value_and_grad(total, has_aux=True)(x)
    return values, gradient


def is_compiling() -> bool:
    """Whether this very moment is inside a trace, whose arrays have no values yet."""
    return isinstance(jnp.zeros(()), jax.core.Tracer)


def without_gradients(function: Callable[[Any], Any], inputs: Any) -> Any:
    """``function(inputs)``, run eagerly."""
    return function(inputs)


def shapes(function: Callable[[Any], Any], inputs: Any) -> None:
    """Run a function for the shapes that it meets, without computing values."""
    jax.eval_shape(lambda x: [function(x), None][1], inputs)


eagerly = contextlib.nullcontext
"""Nothing compiled can be made to run as written: a tap inside is refused, see :func:`is_compiling`."""


def climber(network: Any) -> Callable[..., Any]:
    """The whole ascent of a micro-batch as one jitted scan over the steps; compiled once for each shape."""

    @jax.jit
    def compiled(parameters: Array, state: Any, schedule: Any, data: Any) -> tuple[Array, Array, Array]:
        def step(carry: tuple[Array, Any], now: Any) -> tuple[tuple[Array, Any], tuple[Array, Array]]:
            parameters, state = carry
            scores, gradient = value_and_gradient(lambda x: network.score(x, now, data), parameters)
            return network.update(parameters, gradient, state, now), (scores, network.finite(gradient))

        (parameters, _), (scores, finite) = lax.scan(step, (parameters, state), schedule)
        return network.display(parameters, data), scores, finite

    def climb(parameters: Array, state: Any, schedule: Any, data: Any, on_step: Callable[[], None] | None) -> Any:
        results = jax.block_until_ready(compiled(parameters, state, schedule, data))
        for _ in range(len(results[1]) if on_step else 0):
            on_step()
        return results

    return climb


# Layers: from jax's own gradients XLA makes slow code on a CPU, slower still inside a loop ----------------------------
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
        return sum(map(jnp.multiply, kernel.reshape(-1, groups), _windows(x, kernel.shape[:2], strides, dilation)))
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


# Gradients; see agnostic_keras.gradients -----------------------------------------------------------------------------
def pullback(function: Function, inputs: Sequence[Array], cotangents: Cotangents) -> list[Array | None]:
    """See :func:`agnostic_keras.gradients.pullback`."""
    outputs, forward = jax.linearize(function, *inputs)
    # jax answers 0 where nothing is connected: what the linear program does not need is not.
    program = jax.make_jaxpr(forward)(*inputs).jaxpr
    _, needed = dce_jaxpr(program, [True] * len(program.outvars))
    transpose = jax.linear_transpose(forward, *inputs)
    found = transpose([w.astype(y.dtype) for y, w in zip(outputs, cotangents(outputs), strict=True)])
    return [g if connected else None for g, connected in zip(found, needed, strict=True)]


def per_sample(
    function: Function, inputs: Sequence[Array], batch: Sequence[Array], cotangents: Cotangents
) -> list[Array]:
    """See :func:`agnostic_keras.gradients.per_sample`."""

    def total(x: tuple[Array, ...], rows: tuple[Array, ...]) -> Array:
        outputs = function(*x, *rows)
        return sum((y * w).sum() for y, w in zip(outputs, cotangents(outputs), strict=True))

    return list(jax.vmap(jax.grad(total), (None, 0))(tuple(inputs), tuple(batch)))


def jacobian(function: Function, inputs: Sequence[Array]) -> list[list[Array]]:
    """See :func:`agnostic_keras.gradients.jacobian`."""
    return [list(row) for row in jax.jacrev(function, tuple(range(len(inputs))))(*inputs)]
