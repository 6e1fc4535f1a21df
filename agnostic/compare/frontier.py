"""Where two runs part: pairs of values, one of each side, from which on both sides go on alike."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from agnostic.compare.lowering import MOVES, PARTS, kind, number, settings
from agnostic.compare.replay import slots
from agnostic.compare.sides import Side, behind
from agnostic.program.nodes import Node, Value

TRIED, MOVED = 16, 6
"""How many candidates are looked at closely; so many of them, at most, where the reader only moves numbers."""


@dataclass(frozen=True)
class Parting:
    """B uses a value where A uses another one, and both sides do the same with it.

    Attributes:
        a, b: the values.
        node, slot: the node of B that uses it, and as which operand; -1 for an output of the run.
        partner: A's node that does the same; -1 for an output.
        output: the path of the output, if it is one.
        size: how many operators stand between these values and those that both sides have.
    """

    a: Value
    b: Value
    node: int
    slot: int
    partner: int
    output: str
    size: int


def partings(a: Side, b: Side) -> list[Parting]:
    """The candidates, the smallest piece of program first."""
    present = {label for label in b.labels.values() if label is not None}
    a_slices, b_slices = _Slices(a, present), _Slices(b, None)
    found = []
    for x, y, node, slot, partner, output in _pairs(a, b, present):
        ours, theirs = a_slices.of(x), b_slices.of(y)
        size = len(ours[0]) + len(theirs[0])
        if not ours[1] & (theirs[1] | ({b.labels.get(y)} if not theirs[0] else set())):
            size += 3  # they start from nothing that they have in common
        if math.prod(x.shape) != math.prod(y.shape):
            size += 6  # most often the same operator of another block
        found.append(Parting(x, y, node, slot, partner, output, size))
    found.sort(key=lambda p: (p.size, p.node if p.node >= 0 else len(b.nodes)))
    moved = [p for p in found if p.node >= 0 and kind(b.nodes[p.node]) in MOVES]
    left_out = {id(p) for p in moved[MOVED:]}
    return [p for p in found if id(p) not in left_out][:TRIED]


def rejoined(a: Side, b: Side) -> Iterator[tuple[Value, Value, tuple[Node, Node]]]:
    """Operands of A and B that differ, and their readers, whose results are equal but for rounding."""
    for node in b.nodes:
        for value in node.outputs:
            label = b.labels.get(value)
            partner = None if label is None else a.made_by(a.named[label])
            if partner is None or kind(partner) != kind(node):
                continue
            given = list(zip(slots(partner), slots(node), strict=False))
            for x, y in given:
                if not isinstance(x, Value) or not isinstance(y, Value) or b.labels.get(y) is not None:
                    continue
                if b.apart.get(value) or _is_absorbed(a, b, (x, y), given):
                    yield x, y, (partner, node)


def _is_absorbed(a: Side, b: Side, apart: tuple[Value, Value], given: Sequence[tuple[Any, Any]]) -> bool:
    """Whether nothing is left of one operand that differs, as where it is multiplied by zero: all others are equal."""
    if apart[0].shape != apart[1].shape or a.run.program.framework != b.run.program.framework:
        return False
    return all(
        a.labels[x] == b.labels[y] if isinstance(x, Value) and isinstance(y, Value) else repr(x) == repr(y)
        for x, y in given if (x, y) != apart
    )  # fmt: skip


def _pairs(a: Side, b: Side, present: set[int]) -> Iterator[tuple[Value, Value, int, int, int, str]]:
    index: dict[Any, list[tuple[int, Value]]] = {}
    for k, node in enumerate(a.nodes):
        if not _is_step(a, k) or (all(a.labels[v] in present for v in node.outputs) and kind(node) not in PARTS):
            continue
        for slot, operand in enumerate(slots(node)):
            if isinstance(operand, Value):
                index.setdefault(_key(a, k, slot), []).append((k, operand))
    for k in _reaching(a, b):
        if not _is_step(b, k) or _stores(b, k):
            continue
        given = slots(b.nodes[k])
        unknown = {j for j, x in enumerate(given) if isinstance(x, Value) and b.labels[x] is None}
        for slot, operand in enumerate(given):
            if not isinstance(operand, Value) or unknown - {slot}:
                continue
            for partner, other in index.get(_key(b, k, slot), ()):
                if a.labels[other] != b.labels[operand] and {a.weighs(other), b.weighs(operand)} != {True, False}:
                    yield other, operand, k, slot, partner, ""
    for (path, x), (_, y) in zip(a.run.program.outputs, b.run.program.outputs, strict=False):
        if a.labels[x] != b.labels[y]:
            yield x, y, -1, 0, -1, path


def _is_step(side: Side, k: int) -> bool:
    """Whether a node does more than hand its first operand on."""
    return any(side.root(v) == v for v in side.nodes[k].outputs)


def _stores(side: Side, k: int) -> bool:
    """Whether a node only moves a weight, as the framework has it for the operator that uses it."""
    node = side.nodes[k]
    return kind(node) in (*MOVES, "concatenate") and all(side.of_weights(v) for v in node.outputs)


def _key(side: Side, k: int, slot: int) -> Any:
    node = side.nodes[k]
    others = tuple(
        (side.labels[x] if isinstance(x, Value) else repr(number(x, node))) if j != slot else "here"
        for j, x in enumerate(slots(node))
    )
    return kind(node), tuple(sorted((n, repr(x)) for n, x in settings(node).items())), others


def _reaching(a: Side, b: Side) -> list[int]:
    """B's nodes whose values A does not have, and from which an output comes that A does not have either."""
    found: set[int] = set()
    pairs = zip(a.run.program.outputs, b.run.program.outputs, strict=False)
    todo = [y for (_, x), (_, y) in pairs if b.labels[y] is None and a.labels[x] is not None]
    while todo:
        made = b.producer.get(todo.pop())
        if made is None or made[0] in found:
            continue
        found.add(made[0])
        for x in slots(b.nodes[made[0]]):
            if not isinstance(x, Value):
                continue
            if b.labels[x] is None or _is_part_of_another(b, x):
                todo.append(x)
    return sorted(found)


FOLLOWED = 5
"""How many operators lie between a part of an array and what is looked at, at most."""


def _is_part_of_another(b: Side, value: Value) -> bool:
    """Whether A has the value, but not what it, or what it is computed of, was taken out of."""
    for _ in range(FOLLOWED):
        made = b.made_by(value)
        whole = slots(made)[0] if made is not None and slots(made) else None
        if made is None or not isinstance(whole, Value):
            return False
        value = whole
        if kind(made) in PARTS and b.labels[value] is None:
            return True
    return False


class _Slices:
    """What a value is computed by, back to the values that both sides have."""

    def __init__(self, side: Side, present: set[int] | None) -> None:
        self.side, self.present = side, present
        self._found: dict[Value, tuple[frozenset[int], frozenset[int | None]]] = {}

    def of(self, value: Value) -> tuple[frozenset[int], frozenset[int | None]]:
        """The nodes, and the labels of what they start from."""
        if value not in self._found:
            self._found[value] = self._search(value)
        return self._found[value]

    def known(self, value: Value) -> bool:
        """Whether both sides have it."""
        label = self.side.labels.get(value)
        return label is not None and (self.present is None or label in self.present)

    def _search(self, value: Value) -> tuple[frozenset[int], frozenset[int | None]]:
        nodes, border = set[int](), set[int | None]()
        for one, made in behind(self.side, value, self.known):
            if made is None or self.known(one):
                border.add(self.side.labels.get(one))
            else:
                nodes.add(self.side.producer[one][0])
        return frozenset(k for k in nodes if _is_step(self.side, k)), frozenset(border)
