"""What guards watch on jax; see :mod:`agnostic_keras.guards`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import jax

Array = jax.Array


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
