"""Keras on jax: pure functions, jitted; the whole ascent is one scan."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

Array = jax.Array


def irfft2(real: Array, imaginary: Array, shape: tuple[int, int]) -> Array:
    """See :meth:`agnostic.ops.Ops.irfft2`."""
    return jnp.fft.irfft2(jax.lax.complex(real, imaginary), s=shape, norm="ortho")


def tanh(x: Array) -> Array:
    """See :meth:`agnostic.ops.Ops.tanh`."""
    return jnp.tanh(x)


def maximum(a: Array, b: Any) -> Array:
    """See :meth:`agnostic.ops.Ops.maximum`."""
    return jnp.maximum(a, b)


def minimum(a: Array, b: Any) -> Array:
    """See :meth:`agnostic.ops.Ops.minimum`."""
    return jnp.minimum(a, b)


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


program: Any = None
"""Arrays of jax cannot be written to: rules are traced."""


# Guards; see agnostic_keras.guards ----------------------------------------------------------------------------------
def uncompiled() -> contextlib.AbstractContextManager[Any]:
    """Compiled code, compiled before or not, runs as it was written inside."""
    return jax.disable_jit()


def concrete(x: Array) -> Array | None:
    """An array's values, also while it is differentiated; None while it is traced, when it has none."""
    while isinstance(x, jax.core.Tracer):
        x = getattr(x, "primal", None)
    return x


def on_gradient(x: Array, function: Callable[[Array], None]) -> Array:
    """``x``, such that ``function`` is called with its gradient on the way back."""

    @jax.custom_vjp
    def identity(x: Array) -> Array:
        return x

    def back(_: None, gradient: Array) -> tuple[Array]:
        function(gradient)
        return (gradient,)

    identity.defvjp(lambda x: (x, None), back)
    return identity(x)


def before_gradients(function: Callable[[Any], None]) -> contextlib.AbstractContextManager[Any]:
    """Functions are differentiated in jax, not values: there is nothing to look at."""
    return contextlib.nullcontext()


def climber(network: Any) -> Callable[..., Any]:
    """The whole ascent of a micro-batch as one jitted scan over the steps; compiled once for each shape.

    Args:
        network: an :class:`agnostic_keras.ascent.Network`.

    Returns:
        A function of (parameters, state, schedule, data, on_step) that returns (pixels, scores, finite gradients).
    """

    @jax.jit
    def compiled(parameters: Array, state: Any, schedule: Any, data: Any) -> tuple[Array, Array, Array]:
        def step(carry: tuple[Array, Any], now: Any) -> tuple[tuple[Array, Any], tuple[Array, Array]]:
            parameters, state = carry
            scores, gradient = value_and_gradient(lambda x: network.score(x, now, data), parameters)
            return network.update(parameters, gradient, state, now), (scores, network.finite(gradient))

        (parameters, _), (scores, finite) = jax.lax.scan(step, (parameters, state), schedule)
        return network.display(parameters, data), scores, finite

    def climb(
        parameters: Array, state: Any, schedule: Any, data: Any, on_step: Callable[[], None] | None
    ) -> tuple[Array, Array, Array]:
        results = jax.block_until_ready(compiled(parameters, state, schedule, data))
        for _ in range(len(results[1]) if on_step else 0):
            on_step()
        return results

    return climb


# Gradients; see agnostic_keras.gradients -----------------------------------------------------------------------------
def pullback(
    function: Callable[..., list[Array]], inputs: Sequence[Array], cotangents: Callable[[list[Array]], list[Array]]
) -> list[Array | None]:
    """See :func:`agnostic_keras.gradients.pullback`."""
    outputs, forward = jax.linearize(function, *inputs)
    # jax answers 0 where nothing is connected: what the linear program does not read is not.
    program = jax.make_jaxpr(forward)(*inputs)
    read = set().union(*_read(program.jaxpr))
    transpose = jax.linear_transpose(forward, *inputs)
    found = transpose([w.astype(y.dtype) for y, w in zip(outputs, cotangents(outputs), strict=True)])
    return [g if i in read else None for i, g in enumerate(found)]


def _read(program: Any) -> list[set[int]]:
    """For each output of a jaxpr, the numbers of the inputs that it depends on."""
    known: dict[Any, set[int]] = {v: {i} for i, v in enumerate(program.invars)}

    def of(v: Any) -> set[int]:
        # Literals cannot be looked up.
        return set() if hasattr(v, "val") else known.get(v, set())

    for equation in program.eqns:
        inner = equation.params.get("jaxpr") if equation.primitive.name in ("pjit", "jit", "closed_call") else None
        if inner is None:
            everything = set().union(*map(of, equation.invars))
            depends = [everything] * len(equation.outvars)
        else:
            within = _read(getattr(inner, "jaxpr", inner))
            depends = [set().union(*(of(equation.invars[i]) for i in own)) for own in within]
        known.update(zip(equation.outvars, depends, strict=True))
    return [of(v) for v in program.outvars]


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
