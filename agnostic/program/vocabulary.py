"""The operators that programs are written in, each defined once.

An operator is a function over NumPy arrays, in ``agnostic/program/operators/``: its positional parameters are the
operands, its keyword-only parameters are the attributes with their defaults, its docstring defines it, and its result
in float64 is the reference. It is registered with its shape rule and its operation count.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agnostic.errors import InvalidInput, UnknownName, nearest
from agnostic.program.nodes import Array, Node, Operand, Value, map_values
from agnostic.text import counted

Shape = tuple[int, ...]
FAMILIES = (
    "products", "convolutions", "normalizations", "activations", "pooling", "shapes", "reductions", "elementwise",
    "indexing", "attention", "recurrent", "loops", "resampling", "constants", "complexes", "matrices", "custom",
)  # fmt: skip


@dataclass(frozen=True)
class Operator:
    """One entry of the vocabulary.

    Attributes:
        name: as in :attr:`agnostic.program.nodes.Node.operator`.
        evaluate: the reference: NumPy arrays in, NumPy arrays out.
        shape: computes the output's shape, or a tuple of shapes, from the attributes and the operands with shapes in
            place of values.
        flops: computes the number of operations from the same arguments and the output's shape.
        random: whether the result depends on random numbers in training.
    """

    name: str
    evaluate: Callable[..., Any]
    shape: Callable[..., Any]
    flops: Callable[..., int]
    random: bool = False

    @property
    def summary(self) -> str:
        """The first line of its docstring."""
        return (inspect.getdoc(self.evaluate) or "").partition("\n")[0]

    @functools.cached_property
    def operands(self) -> tuple[str, ...]:
        """The names of its operands."""
        kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
        return tuple(p.name for p in inspect.signature(self.evaluate).parameters.values() if p.kind in kinds)

    @functools.cached_property
    def options(self) -> bool:
        """Whether it takes further attributes."""
        kinds = [p.kind for p in inspect.signature(self.evaluate).parameters.values()]
        return inspect.Parameter.VAR_KEYWORD in kinds

    @functools.cached_property
    def defaults(self) -> Mapping[str, Any]:
        """Its attributes with their defaults; ``inspect.Parameter.empty`` where one must be given."""
        parameters = inspect.signature(self.evaluate).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}


_REGISTERED: dict[str, Operator] = {}


def per_element(*shapes: Any, out: Any, **attributes: Any) -> int:
    """One operation per number of the output."""
    return size(out)


def none(*shapes: Any, out: Any, **attributes: Any) -> int:
    """No operation: numbers are moved, not computed."""
    return 0


def operator(
    *, shape: Callable[..., Any], flops: Callable[..., int] = none, random: bool = False
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function as an operator of the vocabulary, under its name without a trailing underscore.

    Raises:
        InvalidInput: another operator has the name.
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        name = function.__name__.rstrip("_")
        if name in _REGISTERED:
            raise InvalidInput(f"there is an operator {name!r} already: {_REGISTERED[name].summary}")
        _REGISTERED[name] = Operator(name, function, shape, flops, random)
        return function

    return register


@functools.cache
def _families() -> None:
    for family in FAMILIES:
        importlib.import_module(f"agnostic.program.operators.{family}")


def operators() -> Mapping[str, Operator]:
    """The whole vocabulary by name."""
    _families()
    return _REGISTERED


def get(name: str) -> Operator:
    """One operator.

    Raises:
        UnknownName: there is none of that name.
    """
    known = operators()
    if name not in known:
        raise UnknownName(
            f"no operator {name!r} in the vocabulary ({counted(len(known), 'operator')}){nearest(name, known)}"
        )
    return known[name]


def size(shape: Any) -> int:
    """The number of elements of a shape, or of several shapes together."""
    if shape and isinstance(shape[0], tuple):
        return sum(map(size, shape))
    total = 1
    for length in shape:
        total *= length
    return total


def shapes_of(operands: Sequence[Operand]) -> tuple[Any, ...]:
    """The operands with shapes in place of values; a number has the shape ()."""

    def shape(operand: Operand) -> Any:
        if isinstance(operand, tuple):
            return [shape(part) for part in operand]
        if isinstance(operand, Value):
            return operand.shape
        return () if isinstance(operand, int | float | complex) else None

    return tuple(shape(operand) for operand in operands)


def operand_named(node: Node, name: str) -> Operand:
    """An operand of a node by its name; None where it is left out."""
    place = get(node.operator).operands.index(name)
    return node.operands[place] if place < len(node.operands) else None


def output_shape(node: Node) -> Any:
    """The shape of a node's output by the vocabulary's rule, or a tuple of shapes."""
    return get(node.operator).shape(*shapes_of(node.operands), **node.attributes)


def flops(node: Node) -> int:
    """Floating-point operations of a node; a multiplication and an addition are two."""
    out = node.outputs[0].shape if len(node.outputs) == 1 else tuple(value.shape for value in node.outputs)
    return int(get(node.operator).flops(*shapes_of(node.operands), out=out, **node.attributes))


def evaluate(node: Node, arrays: Callable[[Value], Array]) -> tuple[Array, ...]:
    """Compute the outputs of a node by the reference.

    Args:
        node: the node to compute.
        arrays: returns the array of each operand.
    """
    operands = [map_values(operand, arrays) for operand in node.operands]
    result = get(node.operator).evaluate(*operands, **node.attributes)
    return result if isinstance(result, tuple) else (result,)


def is_computable(node: Node) -> bool:
    """Whether a node has a reference: not the ends of a loop; custom operators only if the user gave one."""
    if node.operator in ("loop_start", "loop_end"):
        return False
    if node.operator != "custom":
        return True
    meaning = node.attributes.get("meaning")
    return meaning is not None and meaning.reference is not None
