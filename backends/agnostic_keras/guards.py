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
    watch, engine = _Watch(model), engines.current()
    # A loss scale expects infinite gradients, and its own ``apply`` passes only the finite ones on.
    base = next(cls for cls in keras.optimizers.Optimizer.__mro__ if "apply" in vars(cls))
    with (
        engine.uncompiled(),
        engine.following(watch.flow),
        engine.before_gradients(watch.before_gradient),
        patched(
            [
                (keras.losses.Loss, "__call__", watch.loss_call),
                (base, "apply", watch.apply),
                (keras.optimizers.LossScaleOptimizer, "scale_loss", watch.scale_loss),
            ]
        ),
        replaced([(layer, watch.layer_call(name, layer)) for name, layer in watch.layers.items()]),
        replaced([(model, watch.compute_loss)], "compute_loss")
        if hasattr(model, "compute_loss")
        else contextlib.nullcontext(),
    ):
        try:
            yield
        finally:
            watch.active = False


class _Watch:
    """What stands in the place of Keras' functions while a model is guarded.

    Attributes:
        active: whether the context is still open, since gradients may flow after it.
        scaled: whether a loss was scaled inside.
    """

    def __init__(self, model: keras.Layer) -> None:
        self.model, self.thread = model, threading.get_ident()
        self.layers = {**named_layers(model), model.name: model}
        self.flow = guards.Flow(_values, _is_finite, engines.current().base, *_PASSED_OVER)
        self.active, self.scaled = True, False

    def _here(self) -> bool:
        return self.active and threading.get_ident() == self.thread

    def layer_call(self, name: str, layer: keras.Layer) -> Replacement:
        def call(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            found: list[Any] = []
            self.flow.enter(name)
            try:
                output = original(*args, **kwargs)
                found = _concrete(output)
            finally:
                _leave(self.flow, name, found, lambda: _cause(layer, (args, kwargs)))
            # The model's own output is its last layer's.
            return output if layer is self.model else tree.map_structure(lambda x: self._followed(x, name), output)

        return call

    def _followed(self, x: Any, name: str) -> Any:
        if not (keras.ops.is_tensor(x) and keras.backend.is_float_dtype(keras.backend.standardize_dtype(x.dtype))):
            return x

        def check(gradient: Any) -> None:
            if self._here() and not self.scaled and (bad := _bad(gradient)) is not None:
                look = "what follows the layer has no finite derivative here"
                raise _unwrapped(guards.error("gradient", name, bad, look=look))

        return engines.current().on_gradient(x, check)

    def _term(self, name: str, x: Any, bad: Any, when: str = "") -> NonFinite:
        known = _concrete(x)
        look = self.flow.look(known[0], "look at what goes into it") if known else "look at what goes into it"
        return _unwrapped(guards.error("loss term", name, bad, when=when, look=look))

    def loss_call(self, original: Callable[..., Any], loss: Any, *args: Any, **kwargs: Any) -> Any:
        value = original(loss, *args, **kwargs)
        if self._here() and (bad := _bad(value)) is not None:
            raise self._term(loss.name, value, bad)
        return value

    def scale_loss(self, original: Callable[..., Any], *args: Any) -> Any:
        self.scaled = True
        return original(*args)

    def compute_loss(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        total = original(*args, **kwargs)
        if self._here() and (bad := _bad(total)) is not None:
            raise self._term(*_added(self.layers, total, bad))
        return total

    def apply(self, original: Callable[..., Any], optimizer: Any, grads: Any, trainable_variables: Any = None) -> Any:
        variables = trainable_variables
        held = optimizer._trainable_variables if variables is None else variables
        # The last layer's come first on the way back.
        for gradient, variable in reversed(list(zip(grads, held, strict=False))) if self._here() else ():
            if gradient is not None and (bad := _bad(gradient)) is not None:
                raise _unwrapped(guards.error("gradient", variable.path, bad))
        return original(optimizer, grads, variables)

    def before_gradient(self, targets: Any) -> None:
        for x in tree.flatten(targets) if self._here() else ():
            if (bad := _bad(x)) is not None:
                line, place = guards.caller(*_PASSED_OVER)
                raise self._term(line or "loss", x, bad, f"({place})")


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
