"""Stopping Keras at the first array that is not finite: layers, loss terms, gradients. See :mod:`agnostic.guards`.

Compiled code runs as it was written inside, ``fit()`` among it, so that every array has its values.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
from keras import tree

from agnostic import guards
from agnostic.errors import NonFinite
from agnostic.patching import Replacement, patched
from agnostic_keras import engines
from agnostic_keras.layers import named_layers
from agnostic_keras.ops import KerasOps
from agnostic_keras.taps import check_built, replaced

_OPS = KerasOps()
_PASSED_OVER = ("keras", "jax", "jaxlib", "tensorflow", "torch")


@contextlib.contextmanager
def guard(model: keras.Layer) -> Iterator[None]:
    """See :meth:`agnostic.contracts.guards.Guards.guard`."""
    check_built(model)
    layers = {**named_layers(model), model.name: model}
    thread, state, engine = threading.get_ident(), _State(), engines.current()
    flow = guards.Flow(_values, _is_finite, engine.base, *_PASSED_OVER)

    def here() -> bool:
        return state.active and threading.get_ident() == thread

    def watching(name: str, layer: keras.Layer) -> Replacement:
        def call(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            found: list[Any] = []
            flow.enter(name)
            try:
                output = original(*args, **kwargs)
                found = _concrete(output)
            finally:
                _leave(flow, name, found, lambda: _cause(layer, (args, kwargs)))
            # The model's own output is its last layer's.
            return output if layer is model else tree.map_structure(lambda x: _followed(x, name), output)

        return call

    def term(name: str, x: Any, bad: Any, when: str = "") -> NonFinite:
        known = _concrete(x)
        look = flow.look(known[0], "look at what goes into it") if known else "look at what goes into it"
        return _unwrapped(guards.error("loss term", name, bad, when=when, look=look))

    def _followed(x: Any, name: str) -> Any:
        if not (keras.ops.is_tensor(x) and keras.backend.is_float_dtype(keras.backend.standardize_dtype(x.dtype))):
            return x

        def check(gradient: Any) -> None:
            if here() and not state.scaled and (bad := _bad(gradient)) is not None:
                look = "what follows the layer has no finite derivative here"
                raise _unwrapped(guards.error("gradient", name, bad, look=look))

        return engines.current().on_gradient(x, check)

    def loss_call(original: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> Any:
        value = original(self, *args, **kwargs)
        if here() and (bad := _bad(value)) is not None:
            raise term(self.name, value, bad)
        return value

    def scale_loss(original: Callable[..., Any], *args: Any) -> Any:
        state.scaled = True
        return original(*args)

    def compute_loss(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        total = original(*args, **kwargs)
        if here() and (bad := _bad(total)) is not None:
            raise term(*_added(layers, total, bad))
        return total

    def apply(original: Callable[..., Any], self: Any, grads: Any, trainable_variables: Any = None) -> Any:
        variables = trainable_variables
        held = self._trainable_variables if variables is None else variables
        # The last layer's come first on the way back.
        for gradient, variable in reversed(list(zip(grads, held, strict=False))) if here() else ():
            if gradient is not None and (bad := _bad(gradient)) is not None:
                raise _unwrapped(guards.error("gradient", variable.path, bad))
        return original(self, grads, variables)

    def before_gradient(targets: Any) -> None:
        for x in tree.flatten(targets) if here() else ():
            if (bad := _bad(x)) is not None:
                line, place = guards.caller(*_PASSED_OVER)
                raise term(line or "loss", x, bad, f"({place})")

    # A loss scale expects infinite gradients, and its own ``apply`` passes only the finite ones on.
    base = next(cls for cls in keras.optimizers.Optimizer.__mro__ if "apply" in vars(cls))
    with (
        engine.uncompiled(),
        engine.following(flow),
        engine.before_gradients(before_gradient),
        patched(
            [
                (keras.losses.Loss, "__call__", loss_call),
                (base, "apply", apply),
                (keras.optimizers.LossScaleOptimizer, "scale_loss", scale_loss),
            ]
        ),
        replaced([(layer, watching(name, layer)) for name, layer in layers.items()]),
        replaced([(model, compute_loss)], "compute_loss")
        if hasattr(model, "compute_loss")
        else contextlib.nullcontext(),
    ):
        try:
            yield
        finally:
            state.active = False


class _State:
    """Whether the context is still open, since gradients may flow after it; and whether a loss was scaled inside."""

    active, scaled = True, False


def _bad(x: Any) -> Any:
    """The values of an array that is not finite; None for one that is, or has no values yet."""
    if not keras.ops.is_tensor(x):
        return x if isinstance(x, float) and any(guards.count(x)) else None
    x = engines.current().concrete(x)
    if x is None or guards.is_finite(_OPS, x):
        return None
    return _OPS.numpy(x)


def _cause(layer: keras.Layer, given: Any) -> str:
    inputs = [("input", _bad(x) is None) for x in tree.flatten(given) if keras.ops.is_tensor(x)]
    own = [(v.name, _bad(v.value) is None) for v in layer.weights]
    return guards.cause(inputs, own)


def _added(layers: Mapping[str, keras.Layer], total: Any, bad: Any) -> tuple[str, Any, Any]:
    """Which layer's regularizer or ``add_loss`` spoiled the total (name, array, values); the total where none did."""
    for name, layer in layers.items():
        for x in layer.losses:
            if (added := _bad(x)) is not None:
                return f"added by {name}", x, added
    return "total", total, bad


def _values(x: Any) -> Any:
    """An array as NumPy, in a type that NumPy knows."""
    array = np.asarray(_OPS.numpy(x) if hasattr(x, "detach") else x)
    return array if array.dtype.kind in "fciub" else array.astype(np.float32)


def _is_finite(x: Any) -> bool:
    # In NumPy, since an operation of the engine would be followed as one of the model's.
    return not any(guards.count(_values(x)))


def _concrete(structure: Any) -> list[Any]:
    """The floating point arrays in a structure that have values."""
    arrays = [x for x in tree.flatten(structure) if keras.ops.is_tensor(x)]
    floating = [x for x in arrays if keras.backend.is_float_dtype(keras.backend.standardize_dtype(x.dtype))]
    return [x for x in map(engines.current().concrete, floating) if x is not None]


def _leave(flow: guards.Flow, name: str, outputs: list[Any], look: Callable[[], str]) -> None:
    try:
        flow.leave(name, outputs, look)
    except NonFinite as error:
        raise _unwrapped(error) from None


def _unwrapped(error: NonFinite) -> NonFinite:
    """An error that passes through Keras' layers as it is, without their description of every argument."""
    error._keras_call_info_injected = True  # type: ignore[attr-defined]
    return error
