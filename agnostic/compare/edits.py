"""How two pieces of program differ: the cheapest list of edits that makes one the other.

A piece is bounded by values that both sides have. The edits are complete: a piece with all of them undone is the other
piece, operator by operator, so that it computes the same.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from agnostic.compare.lowering import MOVES, PRODUCTS, kind, number, related, settings
from agnostic.compare.replay import slots
from agnostic.compare.sides import Side
from agnostic.program.nodes import Node, Value

EditKind = Literal[
    "attribute", "number", "shape", "part", "operand", "order", "leaf", "missing", "extra", "replaced", "piece"
]

COMMUTING = frozenset({"add", "multiply", "maximum", "minimum"})

_BITS = frozenset({"bitwise_and", "bitwise_right_shift", "bitwise_not", "rshift", "view", "bit_and"})
"""Numbers cut by their bits: many operators, one thought."""

STEPS = 4000
"""How many pairs of values are looked at for one piece; beyond, the pieces are shown as they are."""


@dataclass(frozen=True)
class Edit:
    """One difference.

    Attributes:
        kind: ``"attribute"``: an operator has another setting; ``"number"``: another number as operand; ``"shape"``:
            the numbers are the same, in arrays of another shape; ``"part"``: another output of the same operator;
            ``"operand"``: another value that both sides have; ``"order"``: the operands in another order; ``"leaf"``:
            a weight or constant holds other numbers; ``"missing"``, ``"extra"``: an operator that B lacks, or has in
            addition; ``"replaced"``: another operator; ``"piece"``: computed in another way.
        a, b: the nodes of both sides, where there are any.
        name: of the attribute, or of the operator.
        ours, theirs: what each side has there: settings, numbers, shapes, or values.
    """

    kind: EditKind
    a: Node | None
    b: Node | None
    name: str = ""
    ours: Any = None
    theirs: Any = None


Script = tuple[float, tuple[Edit, ...]]


def edits(a: Side, b: Side, one: Value, other: Value, at: tuple[Node | None, Node | None]) -> Script:
    """The price and the edits between what A's value and what B's value is computed by.

    Args:
        one, other: the values.
        at: the nodes that use them.
    """
    return _Alignment(a, b).of(one, other, at)


class _Alignment:
    def __init__(self, a: Side, b: Side) -> None:
        self.a, self.b = a, b
        self.present = {label for label in b.labels.values() if label is not None}
        self._known: dict[tuple[Value, Value], Script] = {}
        self._open: set[tuple[Value, Value]] = set()
        self._sizes: dict[tuple[bool, Value], int] = {}
        self._names = [{leaf.value: leaf.name for leaf in side.run.program.leaves} for side in (a, b)]

    def of(self, one: Value, other: Value, at: tuple[Node | None, Node | None]) -> Script:
        one, other = self.a.root(one), self.b.root(other)
        label = self.b.labels.get(other)
        if label is not None and self.a.labels.get(one) == label:
            return 0.0, ()
        key = one, other
        if key in self._known:
            return self._known[key]
        if key in self._open or len(self._known) > STEPS or len(self._open) > 200:
            return self._piece(one, other, at)
        self._open.add(key)
        found = min(self._ways(one, other, at), key=lambda script: script[0])
        self._open.discard(key)
        self._known[key] = found
        return found

    def _ways(self, one: Value, other: Value, at: tuple[Node | None, Node | None]) -> list[Script]:
        x, y = self.a.made_by(one), self.b.made_by(other)
        ours, theirs = self.a.labels.get(one) in self.present, self.b.labels.get(other) is not None
        found = [self._piece(one, other, at)]
        weights = not theirs and self._weights(one, other)
        if weights and self.a.weight_of(one) is not None and self.b.weight_of(other) is not None:
            found = []  # how a framework stores a weight is no operator of the model
        if weights or (x is None and y is None) or (ours and theirs) or (x is None and theirs) or (y is None and ours):
            leaf = weights or (not theirs and y is None and x is None)
            price = (1.0 if self._named_alike(one, other) else 1.8) if leaf else 1.2
            found.append((price, (Edit("leaf" if leaf else "operand", at[0], at[1], "", one, other),)))
        if weights and len(found) == 1:
            return found
        if x is not None and y is not None and not (ours and theirs):
            found += self._paired(x, y, one, other)
        if y is not None and not theirs:
            found += self._beside(y, one, other, at, extra=True)
        if x is not None and not ours:
            found += self._beside(x, one, other, at, extra=False)
        return found

    def _weights(self, one: Value, other: Value) -> bool:
        """Whether two values are weights, which are made in two ways if they are made at all."""
        if not (self.a.of_weights(one) and self.b.of_weights(other)):
            return False
        x, y = self.a.made_by(one), self.b.made_by(other)
        moved = self.a.weight_of(one) is not None and self.b.weight_of(other) is not None
        return x is None or y is None or moved or kind(x) != kind(y) or settings(x) != settings(y)

    def _piece(self, one: Value, other: Value, at: tuple[Node | None, Node | None]) -> Script:
        size = self._size(True, one) + self._size(False, other)
        return 3.0 + size, (Edit("piece", at[0], at[1], "", one, other),)

    def _named_alike(self, one: Value, other: Value) -> bool:
        names = [self._names[k].get(value, "") for k, value in enumerate((one, other))]
        frameworks = [side.run.program.framework for side in (self.a, self.b)]
        return names[0] == names[1] or (one.shape == other.shape and frameworks[0] != frameworks[1])

    def _size(self, first: bool, value: Value) -> int:
        """How many operators a value costs that the other side does not have."""
        side = self.a if first else self.b
        key = first, value
        if key not in self._sizes:
            seen: set[int] = set()
            todo = [value]
            while todo:
                v = todo.pop()
                label, made = side.labels.get(v), side.producer.get(v)
                if made is None or made[0] in seen or (label is not None and label in self.present):
                    continue
                seen.add(made[0])
                todo += [x for x in slots(side.nodes[made[0]]) if isinstance(x, Value)]
            self._sizes[key] = sum(any(side.root(v) == v for v in side.nodes[k].outputs) for k in seen)
        return self._sizes[key]

    # Two operators ---------------------------------------------------------------------------------------------------
    def _paired(self, x: Node, y: Node, one: Value, other: Value) -> list[Script]:
        mine, yours = slots(x), slots(y)
        if kind(x) == kind(y):
            found = [self._same_kind(x, y, mine, yours, one, other)]
            if (
                len(mine) == len(yours)
                and 2 <= len(mine) <= 4
                and (kind(x) in COMMUTING or kind(x) in ("concatenate", "stack"))
            ):
                for order in itertools.permutations(range(len(yours))):
                    turned = [yours[k] for k in order]
                    alike = all(isinstance(p, Value) == isinstance(q, Value) for p, q in zip(mine, turned, strict=True))
                    if order != tuple(range(len(yours))) and alike:
                        cost, changes = self._operands(x, y, mine, turned)
                        if kind(x) in COMMUTING:
                            cost, changes = self._same_kind(x, y, mine, turned, one, other)
                            found.append((cost + 0.01, changes))
                        elif settings(x) == settings(y):
                            found.append((cost + 1, (*changes, Edit("order", x, y, kind(x), order, None))))
            return found
        count = [sum(isinstance(v, Value) for v in side) for side in (mine, yours)]
        alike = related(kind(x), kind(y))
        if not alike and count != [1, 1]:
            return []
        price = 1.3 if alike else 2.2
        change = Edit("replaced", x, y, kind(y), kind(x), kind(y))
        cost, changes = self._operands(x, y, mine[:1], yours[:1])
        if all(len(side) > 1 and isinstance(side[1], Value) for side in (mine, yours)) and count == [2, 2]:
            cost, changes = self._operands(x, y, mine, yours)
        return [(price + cost, (*changes, change))]

    def _same_kind(
        self, x: Node, y: Node, mine: Sequence[Any], yours: Sequence[Any], one: Value, other: Value
    ) -> Script:
        cost, changes = 0.0, list[Edit]()
        ours, theirs = settings(x), settings(y)
        for name in sorted(ours.keys() | theirs.keys()):
            if ours.get(name) != theirs.get(name):
                cost += 1
                changes.append(Edit("attribute", x, y, name, ours.get(name), theirs.get(name)))
        place = self.a.producer[one][1], self.b.producer[other][1]
        if place[0] != place[1]:
            cost += 1
            changes.append(Edit("part", x, y, kind(x), *place))
        more, rest = self._operands(x, y, mine, yours)
        cost += more
        if not changes and not rest:
            cost += 1
            shapes = [next((v.shape for v in side if isinstance(v, Value)), ()) for side in (mine, yours)]
            changes.append(Edit("shape", x, y, kind(x), *shapes))
        return cost, (*rest, *changes)

    def _operands(self, x: Node, y: Node, mine: Sequence[Any], yours: Sequence[Any]) -> Script:
        cost, changes = 0.0, list[Edit]()
        for p, q in itertools.zip_longest(mine, yours):
            if isinstance(p, Value) and isinstance(q, Value):
                more, found = self.of(p, q, (x, y))
                cost += more
                changes += found
            elif number(p) != number(q):
                cost += 1
                which = "number" if not isinstance(p, Value) and not isinstance(q, Value) else "operand"
                changes.append(Edit(which, x, y, kind(x), p, q))  # type: ignore[arg-type]
        return cost, tuple(changes)

    # One operator alone ----------------------------------------------------------------------------------------------
    def _beside(
        self, node: Node, one: Value, other: Value, at: tuple[Node | None, Node | None], *, extra: bool
    ) -> list[Script]:
        """B has the operator and A does not, or the other way round: its other operands are paid for."""
        found = []
        given = [v for v in slots(node) if isinstance(v, Value)]
        own = 4.0 if kind(node) in PRODUCTS else 0.3 if kind(node) in _BITS else 0.6 if kind(node) in MOVES else 1.0
        for k, kept in enumerate(given):
            price = own + sum(0.2 + self._size(not extra, v) * 0.5 for j, v in enumerate(given) if j != k)
            cost, changes = self.of(one, kept, (at[0], node)) if extra else self.of(kept, other, (node, at[1]))
            change = Edit("extra", at[0], node, kind(node), None, kept) if extra else Edit(
                "missing", node, at[1], kind(node), kept, None
            )  # fmt: skip
            found.append((price + cost, (*changes, change)))
        return found
