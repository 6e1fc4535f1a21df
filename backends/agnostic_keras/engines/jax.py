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

from agnostic_keras.engines import pads

Array = jax.Array
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


def eagerly() -> contextlib.AbstractContextManager[Any]:
    """Nothing compiled can be made to run as written: a tap inside is refused, see :func:`is_compiling`."""
    return contextlib.nullcontext()


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

    def climb(
        parameters: Array, state: Any, schedule: Any, data: Any, on_step: Callable[[], None] | None
    ) -> tuple[Array, Array, Array]:
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
    groups = x.shape[3] // inputs
    reach = [(k - 1) * d + 1 for k, d in zip((height, width), layer.dilation_rate, strict=True)]
    around = pads(layer, x.shape[1:3], reach)
    common = {"rhs_dilation": layer.dilation_rate, "dimension_numbers": ("NHWC", "HWIO", "NHWC")}
    convolve = functools.partial(lax.conv_general_dilated, feature_group_count=groups, **common)

    def backward(kernel: Array, g: Array) -> tuple[Array, None]:
        turned = kernel[::-1, ::-1].reshape(height, width, inputs, groups, -1).swapaxes(2, 4)
        sizes = zip(x.shape[1:3], reach, around, layer.strides, g.shape[1:3], strict=True)
        rest = [(k - 1 - low, n - 1 - (m - 1) * s + low) for n, k, (low, _), s, m in sizes]
        turned = turned.reshape(height, width, outputs // groups, -1)
        return convolve(g, turned, (1, 1), rest, lhs_dilation=layer.strides), None

    forward = jax.custom_vjp(lambda x, kernel: convolve(x, kernel, layer.strides, around))
    forward.defvjp(lambda x, kernel: (forward(x, kernel), kernel), backward)
    y = forward(x, kernel)
    return y if bias is None else y + bias


def max_pool(layer: Any, x: Array) -> Array:
    """See :mod:`agnostic_keras.engines`; by choices, whose gradient goes to the first of several largest, as XLA's."""
    (height, width), (down, across) = layer.pool_size, layer.strides
    x = jnp.pad(x, ((0, 0), *pads(layer, x.shape[1:3], layer.pool_size), (0, 0)), constant_values=-jnp.inf)
    ends = x.shape[1] - height + 1, x.shape[2] - width + 1
    places = itertools.product(range(height), range(width))
    pieces = [x[:, i : i + ends[0] : down, j : j + ends[1] : across] for i, j in places]
    return functools.reduce(lambda y, x: jnp.where((x > y) | (x != x), x, y), pieces)  # not a number stays


# Gradients; see agnostic_keras.gradients -----------------------------------------------------------------------------
def pullback(
    function: Callable[..., list[Array]], inputs: Sequence[Array], cotangents: Callable[[list[Array]], list[Array]]
) -> list[Array | None]:
    """See :func:`agnostic_keras.gradients.pullback`."""
    outputs, forward = jax.linearize(function, *inputs)
    # jax answers 0 where nothing is connected: what the linear program does not need is not.
    program = jax.make_jaxpr(forward)(*inputs).jaxpr
    _, needed = dce_jaxpr(program, [True] * len(program.outvars))
    transpose = jax.linear_transpose(forward, *inputs)
    found = transpose([w.astype(y.dtype) for y, w in zip(outputs, cotangents(outputs), strict=True)])
    return [g if connected else None for g, connected in zip(found, needed, strict=True)]


def per_sample(
    function: Callable[..., list[Array]],
    inputs: Sequence[Array],
    batch: Sequence[Array],
    cotangents: Callable[[list[Array]], list[Array]],
) -> list[Array]:
    """See :func:`agnostic_keras.gradients.per_sample`."""

    def total(x: tuple[Array, ...], rows: tuple[Array, ...]) -> Array:
        outputs = function(*x, *rows)
        return sum((y * w).sum() for y, w in zip(outputs, cotangents(outputs), strict=True))

    return list(jax.vmap(jax.grad(total), (None, 0))(tuple(inputs), tuple(batch)))


def jacobian(function: Callable[..., list[Array]], inputs: Sequence[Array]) -> list[list[Array]]:
    """See :func:`agnostic_keras.gradients.jacobian`."""
    return [list(row) for row in jax.jacrev(function, tuple(range(len(inputs))))(*inputs)]
