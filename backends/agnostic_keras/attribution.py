"""Attribution in Keras, by replaced calls; see :mod:`agnostic.contracts.attribution`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
from keras import tree
from keras.src import backend

from agnostic.contracts.attribution import ForwardPass, FunctionRules
from agnostic.errors import InvalidInput
from agnostic.patching import Replacement, patched
from agnostic_keras import engines
from agnostic_keras.functions import replaced_functions
from agnostic_keras.layers import named_layers
from agnostic_keras.logits import remembered
from agnostic_keras.taps import check_built, predict, replaced

Array = Any


def forward(model: keras.Layer, inputs: Any, rules: FunctionRules | None = None) -> ForwardPass:
    """See :meth:`agnostic.contracts.attribution.Attributions.forward`."""
    found: ForwardPass = engines.current().without_gradients(lambda x: perturbed(model, x, {}, rules), inputs)
    return found


def perturbed(
    model: keras.Layer, inputs: Any, added: Mapping[str, Array], rules: FunctionRules | None = None
) -> ForwardPass:
    """See :meth:`agnostic.contracts.attribution.Attributions.perturbed`."""
    check_built(model)
    layers = named_layers(model)
    values: dict[str, Array] = {}

    def adding(name: str) -> Replacement:
        def call(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Array:
            output = original(*args, **kwargs)
            if not keras.ops.is_tensor(output):
                raise InvalidInput(f"layer {name!r} returns {type(output).__name__}, not one array: choose another")
            values[name] = output + keras.ops.cast(added[name], output.dtype)
            # On an engine whose arrays can change in place, the record stays.
            return keras.ops.copy(values[name])

        return call

    adds = [(layers[name], adding(name)) for name in added]
    with keras.StatelessScope(), replaced_functions(rules), remembered(True) as logits, replaced(adds):
        output = predict(model, inputs)
    arrays = tuple(x for x in tree.flatten(output) if keras.ops.is_tensor(x))
    return ForwardPass(values, output, arrays, tuple(map(logits.before, arrays)))


def _guided(x: Array, original: Callable[..., Array], slope: Callable[[Array], Array]) -> Array:
    """A rectifier whose gradient is zero where the gradient that comes is not positive.

    Args:
        x: its input.
        original: the rectifier.
        slope: whether an input is where the rectifier passes gradients.
    """

    @keras.ops.custom_gradient  # type: ignore[untyped-decorator]
    def rectified(x: Array) -> Any:
        def gradient(*args: Array, upstream: Array = None) -> Array:
            received = args[0] if upstream is None else upstream
            return keras.ops.where(slope(x), keras.ops.maximum(received, 0), keras.ops.zeros_like(x))

        return original(x), gradient

    return rectified(x)


_SLOPES: dict[str, Callable[[Array], Array]] = {
    "relu": lambda x: x > 0,
    "relu6": lambda x: keras.ops.logical_and(x > 0, x < 6),
}
"""Rectifiers by the names of the engine's functions, and where they pass gradients."""


@contextlib.contextmanager
def guided() -> Iterator[list[None]]:
    """See :meth:`agnostic.contracts.attribution.Attributions.guided`."""
    ran: list[None] = []

    def rectify(slope: Callable[[Array], Array]) -> Replacement:
        def call(original: Callable[..., Any], x: Array) -> Array:
            ran.append(None)
            return _guided(x, original, slope)

        return call

    with patched([(backend.nn, name, rectify(slope)) for name, slope in _SLOPES.items()]):
        yield ran
