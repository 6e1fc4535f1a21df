"""How two pieces of program differ: the cheapest list of edits that makes one the other.

A piece is bounded by values that both sides have. The edits are complete: a piece with all of them undone is the other
piece, operator by operator, so that it computes the same.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from agnostic.compare.judging import of_one_framework
from agnostic.compare.lowering import MOVES, PRODUCTS, is_hiding, kind, number, related, settings
from agnostic.compare.replay import slots
from agnostic.compare.sides import Side, behind
from agnostic.program.nodes import Node, Value

EditKind = Literal[
    "attribute", "number", "shape", "part", "operand", "order", "leaf", "missing", "extra", "replaced", "piece"
]

COMMUTING = frozenset({"add", "multiply", "maximum", "minimum"})
JOINS = frozenset({"concatenate", "stack"})

_BITS = frozenset({"bitwise_and", "bitwise_right_shift", "bitwise_not", "rshift", "view", "bit_and"})
"""Numbers cut by their bits: many operators, one thought."""

_STORED = frozenset({"permute", "reshape", "slice", "select", "concatenate", "stack", "cast"})
"""What a framework does with a weight before an operator of another framework's takes it."""

STEPS = 4000
"""How many pairs of values are looked at for one piece; beyond, the pieces are shown as they are."""


@dataclass(frozen=True)
class Edit:
    """One difference.

    Attributes:
        kind: ``"attribute"``: an operator has another setting; ``"number"``: another number as operand; ``"shape"``:
            the numbers are the same, in arrays of another shape; ``"part"``: another output of the same operator;
            ``"operand"``: another value that both sides have; ``"order"``: the operands in another order; ``"leaf"``:
            a weight or constant holds other numbers; ``"missing"``: an operator that B lacks, with its operand and
            B's value in its place; ``"extra"``: one that B has in addition; ``"replaced"``: another operator;
            ``"piece"``: computed in another way.
        a, b: the nodes of both sides, where there are any.
        name: of the attribute, or of the operator.
        ours, theirs: what each side has there: settings, numbers, shapes, or values.
        price: how unlikely it is.
    """

    kind: EditKind
    a: Node | None
    b: Node | None
    name: str = ""
    ours: Any = None
    theirs: Any = None
    price: float = 1.0


def is_about_hiding(edit: Edit) -> bool:
    """Whether an edit is about which number hides scores from a softmax: any that is low enough does."""
    return edit.kind == "number" and all(isinstance(x, int | float) and is_hiding(x) for x in (edit.ours, edit.theirs))


Script = tuple[Edit, ...]


def price(script: Script) -> float:
    """The price of some edits."""
    return sum(edit.price for edit in script)


def _is_present(side: Side, present: set[int], value: Value) -> bool:
    return side.labels.get(value) in present


def _joined(*scripts: Script) -> Script:
    """Edits of several operands: what is used twice is paid for once."""
    return tuple({id(edit): edit for script in scripts for edit in script}.values())


def edits(a: Side, b: Side, one: Value, other: Value, at: tuple[Node | None, Node | None]) -> Script:
    """The edits between what A's value and what B's value is computed by.

    Args:
        one, other: the values.
        at: the nodes that use them.
    """
    return _Alignment(a, b).of(one, other, at)


def _is_no_bias(a: Side, p: Any, b: Side, q: Any, node: Node) -> bool:
    """Whether one side adds zeros to a product, and the other nothing."""
    side, bias = (a, p) if isinstance(p, Value) else (b, q)
    return None in (p, q) and kind(node) in PRODUCTS and side.of_weights(bias) and not side.arrays[bias].any()


def _alike(mine: Sequence[Any], yours: Sequence[Any]) -> bool:
    """Whether numbers stand against numbers."""
    return all(isinstance(p, Value) == isinstance(q, Value) for p, q in zip(mine, yours, strict=True))


def _of_one_layer(b: Side, script: Script, node: Node) -> Script:
    """Edits, of which those of the weights of one operator are one thought."""
    own = [e for e in script if e.b is node and e.kind in ("leaf", "operand") and isinstance(e.theirs, Value)
           and b.of_weights(e.theirs)]  # fmt: skip
    rest = {id(e) for e in own[1:]}
    return tuple(replace(e, price=min(e.price, 0.2)) if id(e) in rest else e for e in script)


def _unseen(x: Node, y: Node) -> Edit:
    """What is left where operators have equal settings and operands, and give other numbers."""
    for p, q in zip(slots(x), slots(y), strict=False):
        if number(p) != number(q) and not isinstance(p, Value) and not isinstance(q, Value):
            return Edit("number", x, y, kind(x), p, q)
    for name in sorted(x.attributes.keys() & y.attributes.keys()):
        if name == "places" and repr(x.attributes[name]) != repr(y.attributes[name]):
            return Edit("attribute", x, y, name, x.attributes[name], y.attributes[name])
    ours, theirs = (next((v.shape for v in slots(node) if isinstance(v, Value)), ()) for node in (x, y))
    return Edit("shape", x, y, kind(x), ours, theirs)


class _Alignment:
    def __init__(self, a: Side, b: Side) -> None:
        self.a, self.b = a, b
        self.present = {label for label in b.labels.values() if label is not None}
        self._known: dict[tuple[Value, Value], Script] = {}
        self._open: set[tuple[Value, Value]] = set()
        self._sizes: dict[tuple[bool, Value], int] = {}

    def of(self, one: Value, other: Value, at: tuple[Node | None, Node | None]) -> Script:
        one, other = self.a.root(one), self.b.root(other)
        label = self.b.labels.get(other)
        if label is not None and self.a.labels.get(one) == label:
            return ()
        key = one, other
        if key in self._known:
            return self._known[key]
        if key in self._open or len(self._known) > STEPS or len(self._open) > 200:
            return self._piece(one, other, at)
        self._open.add(key)
        found = min(self._ways(one, other, at), key=price)
        self._open.discard(key)
        self._known[key] = found
        return found

    def _ways(self, one: Value, other: Value, at: tuple[Node | None, Node | None]) -> list[Script]:
        x, y = self.a.made_by(one), self.b.made_by(other)
        ours, theirs = self.a.labels.get(one) in self.present, self.b.labels.get(other) is not None
        found = [self._piece(one, other, at)]
        weights = not theirs and self._weights(one, other)
        frameworks = not of_one_framework(self.a.run, self.b.run)
        if frameworks and not (ours and theirs) and self._is_stored(self.a, one) and self._is_stored(self.b, other):
            own = 1.0 if self._named_alike(one, other) else 1.8
            return [(Edit("operand" if theirs else "leaf", at[0], at[1], "", one, other, own),)]
        if weights and self.a.weight_of(one) is not None and self.b.weight_of(other) is not None:
            found = []  # how a framework stores a weight is no operator of the model
        if weights or (x is None and y is None) or (ours and theirs) or (x is None and theirs) or (y is None and ours):
            leaf = weights or (not theirs and y is None and x is None)
            own = (1.0 if self._named_alike(one, other) else 1.8) if leaf else 1.2
            own = 3.0 if weights and found and x is not None and y is not None else own  # two ways to compute it
            found.append((Edit("leaf" if leaf else "operand", at[0], at[1], "", one, other, own),))
        if weights and len(found) == 1:
            return found
        if not ours and not theirs and (x is None) != (y is None) and self._is_constant(one, other):
            found.append((Edit("leaf", at[0], at[1], "", one, other, 1.2),))
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

    def _is_stored(self, side: Side, value: Value) -> bool:
        """Whether a value is a weight as it is kept; frameworks keep parts, such as gates, in orders of their own."""
        made = side.made_by(value)
        if made is None:
            return side.role_of(value) in ("parameter", "buffer")
        return kind(made) in _STORED and all(self._is_stored(side, x) for x in slots(made) if isinstance(x, Value))

    def _is_constant(self, one: Value, other: Value) -> bool:
        """Whether two values come of no input and no weight, such as masks, which one side may have computed before."""
        return self.a.weighs(one) is None and self.b.weighs(other) is None and one.shape == other.shape

    def _piece(self, one: Value, other: Value, at: tuple[Node | None, Node | None]) -> Script:
        size = self._size(True, one) + self._size(False, other)
        return (Edit("piece", at[0], at[1], "", one, other, 3.0 + size),)

    def _named_alike(self, one: Value, other: Value) -> bool:
        ours, theirs = self.a.name_of(one), self.b.name_of(other)
        alike = math.prod(one.shape) == math.prod(other.shape)
        return ours == theirs or (alike and not of_one_framework(self.a.run, self.b.run))

    def _size(self, first: bool, value: Value) -> int:
        """How many operators a value costs that the other side does not have."""
        side, key = self.a if first else self.b, (first, value)
        if key not in self._sizes:
            both = functools.partial(_is_present, side, self.present)
            nodes = {side.producer[v][0] for v, made in behind(side, value, both) if made is not None and not both(v)}
            self._sizes[key] = sum(any(side.root(v) == v for v in side.nodes[k].outputs) for k in nodes)
        return self._sizes[key]

    # Two operators ---------------------------------------------------------------------------------------------------
    def _paired(self, x: Node, y: Node, one: Value, other: Value) -> list[Script]:
        mine, yours = slots(x), slots(y)
        if kind(x) == kind(y):
            found = [self._same_kind(x, y, mine, yours, one, other)]
            if len(mine) != len(yours):
                return found
            if kind(x) in COMMUTING and len(mine) == 2 and _alike(mine, yours[::-1]):
                found.append(self._same_kind(x, y, mine, yours[::-1], one, other))
            if kind(x) in JOINS and settings(x) == settings(y):
                for order in self._orders(mine, yours):
                    moved = Edit("order", x, y, kind(x), order, None)
                    found.append((*self._operands(x, y, mine, [yours[k] for k in order]), moved))
            return found
        count = [sum(isinstance(v, Value) for v in side) for side in (mine, yours)]
        alike = related(kind(x), kind(y))
        if not alike and count != [1, 1]:
            return []
        own = 1.3 if alike else 1.8
        both = count == [2, 2] and all(len(side) > 1 and isinstance(side[1], Value) for side in (mine, yours))
        if not both:  # what only one of them is applied to is dropped, or comes in
            own += self._others(mine[1:], False) + self._others(yours[1:], True)
        rest = self._operands(x, y, mine, yours) if both else self._operands(x, y, mine[:1], yours[:1])
        return [(*rest, Edit("replaced", x, y, kind(y), kind(x), kind(y), own))]

    def _orders(self, mine: Sequence[Any], yours: Sequence[Any]) -> Iterator[tuple[int, ...]]:
        """Orders of the parts that B joins: that of equal parts, and where they are few, any."""
        given = [[side.labels.get(v) for v in parts] for side, parts in ((self.a, mine), (self.b, yours))]
        left, equal = list(range(len(yours))), list[int]()
        for label in given[0]:
            k = next((j for j in left if label is not None and given[1][j] == label), -1)
            equal.append(k)
            left = [j for j in left if j != k]
        order = tuple(left.pop(0) if k < 0 else k for k in equal)
        whole = tuple(range(len(yours)))
        orders = {order, *(itertools.permutations(whole) if len(whole) < 4 else ())}
        yield from sorted(orders - {whole})

    def _others(self, given: Sequence[Any], extra: bool) -> float:
        """The price of what an operator is applied to besides."""
        return sum(0.2 + self._size(not extra, v) * 0.5 for v in given if isinstance(v, Value))

    def _same_kind(
        self, x: Node, y: Node, mine: Sequence[Any], yours: Sequence[Any], one: Value, other: Value
    ) -> Script:
        changes = list[Edit]()
        ours, theirs = settings(x), settings(y)
        for name in sorted(ours.keys() | theirs.keys()):
            if ours.get(name) != theirs.get(name):
                own = 0.2 if changes else 1.0  # settings of one operator stand at one line
                changes.append(Edit("attribute", x, y, name, ours.get(name), theirs.get(name), own))
        places = self.a.producer[one][1], self.b.producer[other][1]
        if places[0] != places[1]:
            changes.append(Edit("part", x, y, kind(x), *places))
        rest = self._operands(x, y, mine, yours)
        if not changes and not rest:
            changes.append(_unseen(x, y))
        return (*rest, *changes)

    def _operands(self, x: Node, y: Node, mine: Sequence[Any], yours: Sequence[Any]) -> Script:
        found = list[Script]()
        for p, q in itertools.zip_longest(mine, yours):
            if isinstance(p, Value) and isinstance(q, Value):
                found.append(self.of(p, q, (x, y)))
            elif number(p, x) != number(q, y) and not _is_no_bias(self.a, p, self.b, q, x):
                which = "number" if not isinstance(p, Value) and not isinstance(q, Value) else "operand"
                found.append((Edit(which, x, y, kind(x), p, q),))  # type: ignore[arg-type]
        return _of_one_layer(self.b, _joined(*found), y)

    # One operator alone ----------------------------------------------------------------------------------------------
    def _beside(
        self, node: Node, one: Value, other: Value, at: tuple[Node | None, Node | None], *, extra: bool
    ) -> list[Script]:
        """B has the operator and A does not, or the other way round: its other operands are paid for."""
        found = []
        given = [v for v in slots(node) if isinstance(v, Value)]
        own = 4.0 if kind(node) in PRODUCTS else 0.3 if kind(node) in _BITS else 0.6 if kind(node) in MOVES else 1.0
        for k, kept in enumerate(given):
            cost = own + self._others([v for j, v in enumerate(given) if j != k], extra)
            rest = self.of(one, kept, (at[0], node)) if extra else self.of(kept, other, (node, at[1]))
            change = Edit("extra", at[0], node, kind(node), None, kept, cost) if extra else Edit(
                "missing", node, at[1], kind(node), kept, other, cost
            )  # fmt: skip
            found.append((*rest, change))
        return found
