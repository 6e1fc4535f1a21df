"""What guards watch on jax; see :mod:`agnostic_keras.guards`."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np
from jax._src import core

from agnostic.guards import Flow
from agnostic.patching import held, patched

Array = jax.Array


@contextlib.contextmanager
def uncompiled() -> Iterator[None]:
    """Compiled code, compiled before or not, runs as it was written inside; its errors leave models their weights."""
    with held(("jit", threading.get_ident()), jax.disable_jit), weights_kept():
        yield


@contextlib.contextmanager
def weights_kept() -> Iterator[None]:
    """Inside, whatever ends ``fit()``, ``evaluate()`` or ``predict()`` leaves the model with its last weights.

    While Keras steps, a model's variables hold nothing (``purge_model_variables``), and the arrays are handed from step
    to step. They come back at the end of an epoch, but not after an error in the first step, nor at all after one in
    ``evaluate()`` or ``predict()``.
    """
    trainer = next(cls for cls in keras.Model.__mro__ if "_get_jax_state" in vars(cls))
    taken: dict[int, tuple[keras.Variable, Any]] = {}

    def take(original: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> Any:
        optimizer = getattr(self, "optimizer", None)  # a model that was never compiled has none
        for v in (*self.variables, *self.metrics_variables, *(optimizer.variables if optimizer else ())):
            if v._value is not None:
                # A compiled step may give the memory of what it is handed to its results.
                plain = jax.config.jax_disable_jit  # type: ignore[attr-defined]
                taken[id(v)] = v, v._value if plain else jnp.copy(v._value)
        return original(self, *args, **kwargs)

    def ended(original: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return original(self, *args, **kwargs)
        except BaseException:
            if not any(map(_is_gone, jax.tree.leaves(getattr(self, "_jax_state", None)))):
                self.jax_state_sync()
            for v, value in taken.values():
                if v._value is None or _is_gone(v._value):
                    v._value = value
            self._jax_state, self._jax_state_synced = None, True
            raise
        finally:
            taken.clear()

    steps = ("fit", "evaluate", "predict", "train_on_batch", "test_on_batch", "predict_on_batch")
    with patched([(trainer, "_get_jax_state", take), *((trainer, name, ended) for name in steps)]):
        yield


def _is_gone(x: Any) -> bool:
    return isinstance(x, jax.Array) and not isinstance(x, jax.core.Tracer) and x.is_deleted()


def concrete(x: Array) -> Array | None:
    """An array's values, also while it is differentiated; None while it is traced, when it has none."""
    found: Array | None = x
    while isinstance(found, jax.core.Tracer):
        found = getattr(found, "primal", None)
    return found


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


@contextlib.contextmanager
def following(flow: Flow) -> Iterator[None]:
    """Inside, ``flow`` is told of each operation of this thread that runs on values, also while it is differentiated.

    Compiled code is seen as one that runs uncompiled, see :func:`uncompiled`.
    """

    def ran(original: Callable[..., Any], self: Any, primitive: Any, arguments: Any, *rest: Any) -> Any:
        result = original(self, primitive, arguments, *rest)
        numbers = [x for x in arguments if isinstance(x, float | np.floating)]
        outputs = result if primitive.multiple_results else [result]
        written = not all(map(math.isfinite, numbers))
        flow.operation(primitive.name, _floating(arguments), _floating(outputs), written=written)
        return result

    with patched([(core.EvalTrace, "process_primitive", ran)]):
        yield


def _floating(arrays: Any) -> list[Array]:
    return [
        x
        for x in arrays
        if isinstance(x, jax.Array) and not isinstance(x, jax.core.Tracer) and jnp.issubdtype(x.dtype, jnp.floating)
    ]


def base(x: Array) -> None:
    """The array that another one is a view of: nothing is changed in place here."""
