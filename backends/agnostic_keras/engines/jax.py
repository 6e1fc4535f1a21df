"""Keras on jax: pure functions, jitted; the whole ascent is one scan."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
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
    return is_abstract(jnp.zeros(()))


def is_abstract(x: Any) -> bool:
    """Whether an array is a trace's, without values."""
    return isinstance(x, jax.core.Tracer)


def without_gradients(function: Callable[[Any], Any], inputs: Any) -> Any:
    """``function(inputs)``, run eagerly."""
    return function(inputs)


def shapes(function: Callable[[Any], Any], inputs: Any) -> None:
    """Run a function for the shapes that it meets, without computing values."""
    jax.eval_shape(lambda x: [function(x), None][1], inputs)


def eagerly() -> contextlib.AbstractContextManager[Any]:
    """Nothing compiled can be made to run as written; see :func:`is_abstract` for what is traced."""
    return contextlib.nullcontext()
