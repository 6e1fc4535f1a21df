"""Operators that have no translation: an operation of ``keras.ops``, or a layer of the user's that leaves Keras.

Each is one node. What it gives is known by running it alone, on numbers where only shapes are wanted.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import tree
from keras.src.ops.operation import Operation

from agnostic.program.nodes import Array, Program, Value
from agnostic.program.vocabulary import evaluate
from agnostic_keras.calls import numpy

FAILURES = (RuntimeError, ValueError, TypeError, AssertionError, NotImplementedError, AttributeError, IndexError)
"""What functions of an engine, or of NumPy, raise on tensors without numbers is of many classes."""

_BRANCH = re.compile(r"as a boolean|truth value|__bool__|iterat", re.I)
"""What is raised where a layer looks at values to choose what it does."""


@dataclass(frozen=True)
class CustomCall:
    """One call of something that has no translation.

    Attributes:
        function: computes it, of what it was called with.
        args, kwargs: that, with symbolic tensors.
        results: the values that it gave.
    """

    function: Callable[..., Any]
    args: Any
    kwargs: Any
    results: tuple[Value, ...]

    def on(self, array: Callable[[Any], Any]) -> list[Any]:
        """What it gives, with the arrays that are given for symbolic tensors."""
        return on(self.function, self.args, self.kwargs, array)


def on(function: Callable[..., Any], args: Any, kwargs: Any, array: Callable[[Any], Any]) -> list[Any]:
    """What a function gives on arrays in the place of symbolic tensors, in order."""

    def real(x: Any) -> Any:
        return keras.ops.convert_to_tensor(array(x), dtype=x.dtype) if isinstance(x, keras.KerasTensor) else x

    # A new scope, since in the one that a model is read in variables are symbolic.
    with keras.StatelessScope():
        given, named = tree.map_structure(real, (args, kwargs))
        return list(tree.flatten(function(*given, **named)))


def tried(function: Callable[..., Any], args: Any, kwargs: Any) -> list[keras.KerasTensor]:
    """Symbolic tensors of the shapes that a function gives, by running it on numbers."""
    generator = np.random.default_rng(0)

    def numbers(x: Any) -> Array:
        floating = keras.backend.is_float_dtype(x.dtype)
        return generator.standard_normal(x.shape) if floating else np.zeros(x.shape, "int64")

    found = on(function, args, kwargs, numbers)
    return [keras.KerasTensor(tuple(x.shape), keras.backend.standardize_dtype(x.dtype)) for x in found]


# Names and operands ---------------------------------------------------------------------------------------------------
def layer_name(layer: keras.Layer) -> str:
    """What a layer is called as an operator: its registered name, or its class with its module."""
    kind = type(layer)
    if isinstance(layer, keras.layers.Lambda):
        return f"Lambda.{layer.name}"
    registered = str(keras.saving.get_registered_name(kind))
    return registered if ">" in registered else f"{kind.__module__}.{kind.__qualname__}"


def place_of(layer: keras.Layer) -> dict[str, Any]:
    """The file and the line of a layer's ``call``; nothing where it has none in Python."""
    code = getattr(inspect.unwrap(layer.call), "__code__", None)
    return {} if code is None else {"file": code.co_filename, "line": code.co_firstlineno}


def is_users(layer: keras.Layer) -> bool:
    """Whether a layer's ``call`` is the user's."""
    return isinstance(layer, keras.layers.Lambda) or type(layer).__module__.partition(".")[0] != "keras"


def is_among(name: str, names: Collection[str]) -> bool:
    """Whether an operator is one of several, which may be named without their modules."""
    return name in names or re.split(r"[.>]", name)[-1] in names


def is_branch(error: Exception) -> bool:
    """Whether an error says that values are looked at."""
    return _BRANCH.search(str(error)) is not None


def operands_of_layer(layer: keras.Layer, args: Any, kwargs: Any, value: Callable[[Any], Any]) -> dict[str, Any]:
    """What a layer computes with, by name: arguments, weights, and its own numbers.

    Args:
        value: from a symbolic tensor, a variable or anything else to an operand.
    """
    found = _arguments(layer.call, args, kwargs, value)
    for variable in layer.weights:
        found[_free(variable.name, found)] = value(variable)
    base = set(keras.Layer.get_config(keras.layers.Identity()))
    for name, x in _config(layer).items():
        if name not in base and _is_plain(x):
            found[_free(name, found)] = _tuple(x)
    return found


def operands_of_operation(operation: Operation, args: Any, kwargs: Any, value: Callable[[Any], Any]) -> dict[str, Any]:
    """What an operation computes with, by name: arguments, and its options."""
    found = _arguments(operation.call, args, kwargs, value)
    for name in inspect.signature(type(operation).__init__).parameters:
        x = getattr(operation, name, None)
        if name not in ("self", "name", "dtype") and hasattr(operation, name) and _is_plain(x):
            found[_free(name, found)] = _tuple(x)
    return found


def _arguments(function: Callable[..., Any], args: Any, kwargs: Any, value: Callable[[Any], Any]) -> dict[str, Any]:
    bound = inspect.signature(function).bind(*args, **kwargs)
    found: dict[str, Any] = {}
    for name, x in bound.arguments.items():
        if name in ("training", "mask") and (x is None or isinstance(x, bool)):
            continue
        parameter = inspect.signature(function).parameters[name]
        if parameter.kind is parameter.VAR_KEYWORD:
            found |= {key: value(part) for key, part in x.items()}
        elif isinstance(x, Mapping):
            found |= {f"{name}_{key}": value(part) for key, part in x.items()}
        else:
            found[name] = value(x)
    return found


def _config(layer: keras.Layer) -> Mapping[str, Any]:
    try:
        return dict(layer.get_config())
    except NotImplementedError:  # a layer with arguments that it cannot write down
        return {}


def _free(name: str, taken: Collection[str]) -> str:
    return name if name not in taken else _free(f"{name}_", taken)


def _is_plain(x: Any) -> bool:
    if isinstance(x, list | tuple):
        return all(map(_is_plain, x))
    return x is None or isinstance(x, bool | int | float | str)


def _tuple(x: Any) -> Any:
    return tuple(map(_tuple, x)) if isinstance(x, list | tuple) else x


# What goes in and comes out -------------------------------------------------------------------------------------------
def recorded(
    program: Program, calls: Sequence[CustomCall], given: Mapping[Value, Array], value: Callable[[Any], Value]
) -> Iterator[tuple[list[Array], list[Array]]]:
    """What each call is given and gives: it is run by itself, and all around it by the references in float64.

    Args:
        program: with a node of each call.
        calls: in order.
        given: the arrays of the leaves.
        value: of a symbolic tensor.
    """
    by_result = {call.results: call for call in calls}
    arrays = dict(given)
    for node in program.nodes:
        if node.operator != "custom":
            with np.errstate(all="ignore"):
                arrays |= dict(zip(node.outputs, evaluate(node, arrays.__getitem__), strict=True))
            continue
        call = by_result[node.outputs]
        taken = [x for x in tree.flatten((call.args, call.kwargs)) if isinstance(x, keras.KerasTensor)]
        results = [np.array(numpy(x)) for x in call.on(_looked_up(arrays, value))]
        arrays |= dict(zip(node.outputs, results, strict=True))
        yield [np.asarray(arrays[value(x)]) for x in taken], results


def _looked_up(arrays: Mapping[Value, Array], value: Callable[[Any], Value]) -> Callable[[Any], Array]:
    return lambda x: arrays[value(x)]
