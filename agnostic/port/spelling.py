"""What dialects share: a node with the code of its operands, the table of spellings, and the common spellings.

A dialect starts its table with :data:`COMMON` and adds its own by :func:`agnostic.tables.filling`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from agnostic.port.code import Apply, At, Code, Dim, Name, Slice, call
from agnostic.port.dialect import Unwritable, Weight
from agnostic.program.nodes import Node, Value
from agnostic.tables import filling


class Call:
    """One node with the code of its operands."""

    def __init__(self, node: Node, operands: Sequence[Code]) -> None:
        self.node = node
        self.operands = operands

    def __getitem__(self, name: str) -> Any:
        return self.node.attributes[name]

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute, or its default."""
        return self.node.attributes.get(name, default)

    @property
    def x(self) -> Code:
        """The code of the first operand."""
        return self.operands[0]

    def operand(self, place: int) -> Code:
        """The code of an operand; None where there is none."""
        return self.operands[place] if place < len(self.operands) else None

    def shape(self, place: int = 0) -> tuple[int, ...]:
        """The shape of an operand."""
        operand = self.node.operands[place]
        return operand.shape if isinstance(operand, Value) else ()

    @property
    def rank(self) -> int:
        """The number of axes of the first operand."""
        return len(self.shape())

    def is_given(self, place: int) -> bool:
        """Whether an operand is given."""
        return place < len(self.node.operands) and self.node.operands[place] is not None


def fixed(number: Any) -> int:
    """A number that is equal at every input size.

    Raises:
        Unwritable: it depends on the size.
    """
    if isinstance(number, Dim):
        raise Unwritable("with a number that depends on the size")
    return int(number)


Spelling = Callable[[Call], Code]


# Arguments of layers --------------------------------------------------------------------------------------------
def one(numbers: Sequence[Any]) -> Any:
    """One number in place of several equal ones, as layers accept it."""
    return numbers[0] if len(set(numbers)) == 1 else tuple(numbers)


def ones(numbers: Sequence[int]) -> bool:
    """Whether all are 1, the default of strides and dilations."""
    return all(n == 1 for n in numbers)


def value_at(node: Node, place: int) -> Value | None:
    """The operand at a position; None where it is a number or missing."""
    found = node.operands[place] if place < len(node.operands) else None
    return found if isinstance(found, Value) else None


def weights_at(node: Node, **places: int) -> tuple[Weight, ...]:
    """The variables of a layer: names with the positions of operands; missing operands are left out."""
    found = [(name, value_at(node, place)) for name, place in places.items()]
    return tuple(Weight(name, value) for name, value in found if value is not None)


def direct(layer: Code, operands: Sequence[Code]) -> Code:
    """A layer that is called with the first operand."""
    return Apply(layer, (operands[0],))


# Operators that are Python's indexing --------------------------------------------------------------------------
COMMON: dict[str, Spelling] = {}
_spells = filling(COMMON)


@_spells("dropout", "identity")
def _identity(c: Call) -> Code:
    return c.x


def _indexed(c: Call, axis: int, index: Code) -> Code:
    axis %= c.rank
    if axis == c.rank - 1 and c.rank > 2:
        return At(c.x, (Name("..."), index))
    return At(c.x, (*[Slice()] * axis, index))


@_spells("slice")
def _slice(c: Call) -> Code:
    axis, start, stop, step = c["axis"], c["start"], c["stop"], c.get("step", 1)
    part = Slice(start or None, None if stop == c.shape()[axis] else stop, None if step == 1 else step)
    return _indexed(c, axis, part)


@_spells("select")
def _select(c: Call) -> Code:
    last = isinstance(c["index"], Dim) and c["index"] + 1 == c.shape()[c["axis"]]
    return _indexed(c, c["axis"], -1 if last else c["index"])


@_spells("update")
def _update(c: Call) -> Code:
    stop = None if isinstance(c["stop"], Dim) and c["stop"] == c.shape()[c["axis"]] else c["stop"]
    return call("update", c.x, c.operands[1], int(c["axis"]), c["start"], stop, fixed(c.get("step", 1)))


@_spells("custom")
def _custom(c: Call) -> Code:
    # A function in the written file; the writer of the file handles it.
    raise Unwritable(c.get("reason") or "has no translation yet")
