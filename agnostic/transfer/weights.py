"""What a program computes from weights alone, and where in the weights its numbers stand."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from agnostic.errors import InvalidWeights
from agnostic.program.nodes import Array, Node, Program, Value, map_values, values_in
from agnostic.program.vocabulary import evaluate, get, is_computable, operators
from agnostic.transfer.forms import LEARNED

_VIEWS = frozenset({
    "reshape", "permute", "slice", "select", "concatenate", "stack", "expand", "flip", "cast", "identity", "tile",
    "repeat", "roll", "dropout",
})  # fmt: skip
"""Operators that only move numbers."""
_INDEXED = frozenset({"embedding", "take", "gather", "index"})
"""Operators that move the numbers of one operand to where another one says."""


def _is_function(node: Node) -> bool:
    """Whether an operator can be computed here, and always gives the same."""
    free = LEARNED in node.attributes or get(node.operator).random if node.operator in operators() else True
    return not free and is_computable(node)


@dataclass(frozen=True)
class WeightPart:
    """One array of a use, in the layout that both frameworks' programs have in common.

    Attributes:
        value: what the program computes from weights; None where ``fixed`` says all.
        form: leads from there to the layout; it only moves numbers.
        fixed: numbers that several arrays together make.
    """

    value: Value | None
    form: Callable[[Array], Array] = lambda x: x
    fixed: Array | None = None

    def then(self, form: Callable[[Array], Array]) -> WeightPart:
        """The same, moved once more."""
        before = self.form
        return WeightPart(self.value, lambda x: form(before(x)), None if self.fixed is None else form(self.fixed))

    def backwards(self, numbers: Array, rest: float) -> Array:
        """The value of which the part has these numbers, and that is the rest elsewhere."""
        assert self.value is not None
        found = np.full(self.value.shape, rest)
        places = self.form(np.arange(found.size).reshape(found.shape))
        found.reshape(-1)[places.reshape(-1)] = np.broadcast_to(numbers, places.shape).reshape(-1)
        return found


class ProgramWeights:
    """The weights of a program, and what it computes from them before it looks at its inputs.

    Args:
        program: of which.
        arrays: parameters and buffers by name.
    """

    def __init__(self, program: Program, arrays: Mapping[str, Array]) -> None:
        self.program, self.arrays = program, arrays
        self.leaves = {leaf.value: leaf for leaf in program.leaves}
        self._givers: dict[Value, Node] = {}
        self._names: dict[Value, frozenset[str]] = {
            leaf.value: frozenset([leaf.name] if leaf.role in ("parameter", "buffer") else ())
            for leaf in program.leaves
            if leaf.role != "input"
        }
        self.buffers = frozenset(leaf.name for leaf in program.of_role("buffer"))
        for node in program.nodes:
            given = list(node.reads)
            if _is_function(node) and all(v in self._names for v in given):
                self._givers |= dict.fromkeys(node.outputs, node)
                names = frozenset(name for v in given for name in self._names[v])
                self._names |= dict.fromkeys(node.outputs, names)
        self._starts: dict[str, int] = {}
        total = 0
        for leaf in program.of_role("parameter", "buffer"):
            self._starts[leaf.name] = total
            total += int(np.prod(leaf.value.shape, dtype=np.int64))

    def names(self, value: Value) -> frozenset[str] | None:
        """The weights that a value is computed from; None where it depends on the inputs."""
        return self._names.get(value)

    def numbers(self, part: WeightPart, instead: Mapping[str, Array] | None = None) -> Array:
        """The numbers of a part.

        Args:
            instead: other numbers for some of the weights.
        """
        if part.fixed is not None or part.value is None:
            assert part.fixed is not None
            return part.fixed
        return part.form(self.value(part.value, instead or {}))

    def value(self, value: Value, instead: Mapping[str, Array]) -> Array:
        """The numbers of a value that depends on weights alone."""
        leaf = self.leaves.get(value)
        if leaf is not None:
            found = instead.get(leaf.name, self.arrays.get(leaf.name)) if leaf.array is None else leaf.array
            assert found is not None, leaf.name
            return np.asarray(found)
        node = self._givers[value]
        with np.errstate(all="ignore"):
            results = evaluate(node, lambda v: self.value(v, instead))
        return np.asarray(results[node.outputs.index(value)])

    def places(self, part: WeightPart) -> Array | None:
        """Where each number of a part stands among all weights in a row; -1: nowhere. None: it is computed."""
        found = None if part.value is None else self._places(part.value)
        return None if found is None else part.form(found)

    def _places(self, value: Value) -> Array | None:
        leaf = self.leaves.get(value)
        if leaf is not None:
            start, shape = self._starts.get(leaf.name), value.shape
            if start is None:
                return np.full(shape, -1, np.int64)
            return np.arange(start, start + int(np.prod(shape, dtype=np.int64)), dtype=np.int64).reshape(shape)
        node = self._givers[value]
        if node.operator not in _VIEWS and node.operator not in _INDEXED:
            return None
        given = {v: self._places(v) for v in node.reads}
        if node.operator in _INDEXED:
            given |= {v: self.value(v, {}) for x in node.operands[1:] for v in values_in(x)}
        if any(x is None for x in given.values()):
            return None
        operands = [map_values(x, given.__getitem__) for x in node.operands]
        if node.operator in ("cast", "identity", "dropout"):
            found: Array = operands[0]
            return found
        moved: Array = get(node.operator).evaluate(*operands, **node.attributes)
        return moved

    def undone(self, part: WeightPart, numbers: Array) -> tuple[Array, Array] | None:
        """Where the weight stands that a part is computed from, and what it must be for the part to have numbers.

        None where the computation cannot be undone: each function must have an inverse, and one operand of a weight.
        """
        value = part.value
        if value is None:
            return None
        held = part.backwards(numbers, math.nan)
        while (found := self._places(value)) is None:
            node = self._givers[value]
            owned = [k for k, x in enumerate(node.operands) if isinstance(x, Value) and self._names[x]]
            inverse = _inverse(node, lambda v: self.value(v, {}), owned[0]) if len(owned) == 1 else None
            if inverse is None:
                return None
            before = node.operands[owned[0]]
            assert isinstance(before, Value)
            with np.errstate(all="ignore"):
                held = inverse(held)
            if held.shape != before.shape:
                return None
            value = before
        return (found, held) if np.isfinite(held).all() else None

    def put(self, arrays: dict[str, Array], places: Array, numbers: Array) -> None:
        """Write numbers to their places in the arrays."""
        values = np.broadcast_to(numbers, places.shape).reshape(-1)
        for name, (inside, own) in self.inside(places).items():
            if name in arrays:
                with np.errstate(over="ignore"):
                    arrays[name].reshape(-1)[own] = values[inside]
                check_held(name, arrays[name].reshape(-1)[own], values[inside])

    def inside(self, places: Array) -> dict[str, tuple[Array, Array]]:
        """By the arrays that places are in: which of the places, and where in the array they are."""
        flat = places.reshape(-1)
        found: dict[str, tuple[Array, Array]] = {}
        for name, start in self._starts.items():
            here = np.flatnonzero((flat >= start) & (flat < start + self.arrays[name].size))
            if here.size:
                found[name] = here, flat[here] - start
        return found


def check_held(name: str, held: Array, numbers: Array) -> None:
    """Raise where an array of half precision is given numbers that are too large for it.

    Args:
        name: of the array.
        held: its numbers now.
        numbers: what it was given, of the same size.
    """
    if (np.isinf(held) & np.isfinite(numbers).reshape(held.shape)).any():
        raise InvalidWeights(
            f"{name!r} of the target is of {held.dtype}, which does not hold {np.abs(numbers).max():.4g}: make the "
            "target in a type with a larger range, such as float32 or bfloat16; no weight was changed"
        )


def _before_softplus(y: Array, beta: float = 1.0, threshold: float | None = None) -> Array:
    """log(exp(beta y) - 1) / beta, without numbers that are too large."""
    x = y + np.log(-np.expm1(-beta * y)) / beta
    return x if threshold is None else np.where(beta * y > threshold, y, x)


_INVERSES: Mapping[str, Callable[[Array], Array]] = {
    "exp": np.log, "log": np.exp, "expm1": np.log1p, "log1p": np.expm1, "negative": np.negative, "sqrt": np.square,
    "reciprocal": np.reciprocal, "tanh": np.arctanh, "sigmoid": lambda x: np.log(x / (1 - x)),
    "rsqrt": lambda x: 1 / np.square(x),
}  # fmt: skip


def _inverse(node: Node, value: Callable[[Value], Array], place: int) -> Callable[[Array], Array] | None:
    """What undoes an operator for one of its operands; None where nothing does.

    Args:
        value: the numbers of its other operands.
        place: of the operand.
    """
    if node.operator in ("activation", "unary"):
        options = dict(node.attributes)
        function = options.pop("function", "")
        return functools.partial(_before_softplus, **options) if function == "softplus" else _INVERSES.get(function)
    if node.operator in ("reshape", "cast", "identity"):
        x = node.operands[place]
        assert isinstance(x, Value)
        return lambda y: y.reshape(x.shape)
    if node.operator not in ("add", "subtract", "multiply", "divide") or len(node.operands) != 2:
        return None
    other: Any = node.operands[1 - place]
    number = np.asarray(value(other) if isinstance(other, Value) else other, np.float64)
    return {
        "add": lambda y: y - number,
        "multiply": lambda y: y / number,
        "subtract": (lambda y: number - y) if place else (lambda y: y + number),
        "divide": (lambda y: number / y) if place else (lambda y: y * number),
    }[node.operator]
