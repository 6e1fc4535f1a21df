"""Two recorded runs as values that are equal or not: what the search for differences looks at."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from agnostic.compare import match
from agnostic.compare.lowering import FLAT, kind, related, settings
from agnostic.compare.match import Signature
from agnostic.compare.replay import KEPT_SIZE, NOTHING, Evaluate, Patches, Values, slots, walk
from agnostic.program.exact import widened
from agnostic.program.nodes import Array, Leaf, Node, Value, readers_of
from agnostic.program.runs import Run


@dataclass(eq=False)
class Side:
    """One run, computed again in float64.

    Attributes:
        run: the run.
        arrays: every value, when asked for.
        signatures: of every value.
        labels: equal values of both sides have one label; None: the other side has no such value.
        apart: how far a value is from the other side's of its label, relative to it.
        producer: the index of the node that gives a value, and which of its outputs it is.
        roots: for a value that holds another one's numbers in the same order: that one.
        named: a value of each label.
        loose: how far a value of B may be from one of A's that it is taken for.
    """

    run: Run
    arrays: Values
    signatures: dict[Value, Signature] = field(default_factory=dict)
    labels: dict[Value, int | None] = field(default_factory=dict)
    apart: dict[Value, float] = field(default_factory=dict)
    producer: dict[Value, tuple[int, int]] = field(default_factory=dict)
    roots: dict[Value, Value] = field(default_factory=dict)
    named: dict[int, Value] = field(default_factory=dict)
    loose: float = match.LOOSE
    _of_weights: dict[Value, bool | None] = field(default_factory=dict)

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The operators."""
        return self.run.program.nodes

    @property
    def evaluate(self) -> Evaluate:
        """What computes them."""
        return self.arrays.evaluate

    def root(self, value: Value) -> Value:
        """The first value with the same numbers in the same order, on the way that the numbers came."""
        return self.roots.get(value, value)

    def of_weights(self, value: Value) -> bool:
        """Whether a value is a parameter or buffer, or computed of these alone."""
        return self.weighs(value) is True

    def weight_of(self, value: Value) -> Value | None:
        """The parameter or buffer whose numbers a value is, perhaps with its axes in another order; None for others."""
        made = self.made_by(value)
        while made is not None and made.operator in ("permute", "reshape"):
            value = slots(made)[0]
            made = self.made_by(value)
        return value if made is None and self.role_of(value) in ("parameter", "buffer") else None

    def weighs(self, value: Value) -> bool | None:
        """Whether a value comes from weights; None for one that comes from nothing."""
        if value not in self._of_weights:
            made = self.made_by(value)
            if made is None:
                self._of_weights[value] = {"parameter": True, "buffer": True, "input": False}.get(self.role_of(value))
            else:
                parts = [self.weighs(x) for x in slots(made) if isinstance(x, Value)]
                self._of_weights[value] = False if False in parts else True if True in parts else None
        return self._of_weights[value]

    @functools.cached_property
    def leaves(self) -> Mapping[Value, Leaf]:
        """The leaves by their values."""
        return {leaf.value: leaf for leaf in self.run.program.leaves}

    @functools.cached_property
    def readers(self) -> Mapping[Value, Sequence[Node]]:
        """The nodes that read each value."""
        return readers_of(self.nodes)

    def role_of(self, value: Value) -> str:
        """The role of a leaf; "" for any other value."""
        leaf = self.leaves.get(value)
        return "" if leaf is None else leaf.role

    def name_of(self, value: Value) -> str:
        """The name of a leaf; "" for any other value."""
        leaf = self.leaves.get(value)
        return "" if leaf is None else leaf.name

    def made_by(self, value: Value) -> Node | None:
        """The node that gives a value; None for a leaf."""
        found = self.producer.get(value)
        return None if found is None else self.nodes[found[0]]

    def keep(self, index: int, results: tuple[Array, ...], signed: Sequence[Signature]) -> None:
        """Hold what a node gave."""
        node = self.nodes[index]
        self.arrays.keep(index, results)
        for place, (value, own) in enumerate(zip(node.outputs, signed, strict=True)):
            self.producer[value] = index, place
            self.signatures[value] = own
        self._rooted(node)

    def share(self, index: int, other: Side, partner: Node) -> None:
        """A node gives what one of the other side gives."""
        node = self.nodes[index]
        for place, (value, source) in enumerate(zip(node.outputs, partner.outputs, strict=True)):
            self.producer[value] = index, place
            self.signatures[value] = other.signatures[source]
            self.arrays.take(value, functools.partial(_shaped, other, source, value.shape))
            self.label(value, other.labels[source])
        self._rooted(node)

    def _rooted(self, node: Node) -> None:
        source = slots(node)[0] if kind(node) in FLAT and slots(node) else None
        for value in node.outputs:
            self.roots.pop(value, None)
            if isinstance(source, Value) and _equal(self.signatures[source], self.signatures[value]):
                self.roots[value] = self.root(source)

    def label(self, value: Value, number: int | None, apart: float = 0.0) -> None:
        """Give a value its label."""
        self.labels[value], self.apart[value] = number, apart
        if number is not None:
            self.named.setdefault(number, value)


def behind(side: Side, value: Value, ends: Callable[[Value], bool]) -> Iterator[tuple[Value, Node | None]]:
    """A value and all that it is computed of, back to leaves and to values that end the way, with what gives them."""
    seen, todo = set[Value](), [value]
    while todo:
        one = todo.pop()
        if one in seen:
            continue
        seen.add(one)
        made = side.made_by(one)
        yield one, made
        if made is not None and not ends(one):
            todo += [x for x in reversed(slots(made)) if isinstance(x, Value)]


def _equal(x: Signature, y: Signature) -> bool:
    return x.size == y.size and bool(np.array_equal(x.sums, y.sums))


def first(run: Run, evaluate: Evaluate) -> tuple[Side, match.Table]:
    """A's values, and the table that B's are looked up in."""
    side, table = Side(run, Values(run, evaluate)), match.Table()
    for value, x in run.arrays.items():
        side.signatures[value] = match.signature(widened(x))
        side.label(value, table.add(side.signatures[value]))
    for index, results in walk(side.arrays):
        if index >= 0:
            signed = [match.signature(x) for x in results]
            side.keep(index, results, signed)
            for value, own in zip(side.nodes[index].outputs, signed, strict=True):
                side.label(value, table.add(own))
    return side, table


def second(
    run: Run, evaluate: Evaluate, a: Side, table: match.Table, patches: Patches = NOTHING, base: Side | None = None,
    *, loose: float = match.LOOSE,
) -> Side:  # fmt: skip
    """B's values, with those of A's that they are equal to.

    A value that is A's but for rounding goes on as A's, so that errors do not add up.

    Args:
        a, table: what :func:`first` gave.
        patches: repairs of B.
        base: B with some of these repairs: what the others do not change is taken from there.
        loose: what is rounding; that of the base, where there is one.
    """
    values = Values(run, evaluate, patches, None if base is None else base.arrays)
    side = Side(run, values, loose=loose if base is None else base.loose)
    if base is not None:
        for name in ("signatures", "labels", "apart", "producer", "roots", "named"):
            setattr(side, name, dict(getattr(base, name)))
    made = _makers(a)
    for value, x in run.arrays.items():
        if base is None or (value in patches.values) != (value in base.arrays.patches.values):
            side.signatures[value] = own = match.signature(patches.values.get(value, widened(x)))
            side.label(value, *_leaf_label(table, a, own, value))
    computed = _computed(a)

    def known(index: int, node: Node) -> bool:
        """Whether A applies the same operator to the same values: then what it gives is A's as well."""
        partner = (
            computed.get(_application(side, node)) if not any(edge[0] == index for edge in patches.edges) else None
        )
        if partner is None or any(v in run.drawn or v in patches.values for v in node.outputs):
            return False
        side.share(index, a, partner)
        return True

    steps = walk(side.arrays, None if base is None else base.arrays.patches, known)
    instead: tuple[Array, ...] | None = None
    while True:
        try:
            index, results = steps.send(instead)
        except StopIteration:
            return side
        if index >= 0:
            instead = _labelled(side, index, results, a, table, made)


def _labelled(
    side: Side, index: int, results: tuple[Array, ...], a: Side, table: match.Table, made: Mapping[int, list[Node]]
) -> tuple[Array, ...]:
    """Label what a node of B gave.

    Returns:
        What B goes on with.
    """
    node, signed, taken, labels = side.nodes[index], [], [], []
    for value, x in zip(node.outputs, results, strict=True):
        own = match.signature(x)
        number, apart = table.find(own), 0.0
        if number is None and x.dtype.kind == "f":
            number = table.find(own, side.loose)
            if number is not None and _is_fault(node, side, made.get(number, ()), a):
                number = None
            if number is not None:
                apart, own = match.apart(table.signatures[number], own), table.signatures[number]
                x = a.arrays[a.named[number]].reshape(x.shape)
        signed.append(own)
        taken.append(x)
        labels.append((value, number, apart))
    side.keep(index, tuple(taken), signed)
    for (value, number, apart), x in zip(labels, taken, strict=True):
        side.label(value, number, apart)
        if number is not None and (apart or x.size > KEPT_SIZE):
            side.arrays.take(value, functools.partial(_shaped, a, a.named[number], x.shape))
    return tuple(taken)


def _application(side: Side, node: Node) -> Any:
    """What a node is and what it is applied to: nodes for which this is equal give the same."""
    given = list[tuple[Any, Any]]()
    for x in slots(node):
        if isinstance(x, Value):
            # What is equal but for rounding was taken over; a weight in another precision was not.
            if side.labels[x] is None or (side.apart[x] and x not in side.producer):
                return None
            given.append((side.labels[x], x.shape))
        else:
            given.append((type(x).__name__, repr(x)))
    if not all(isinstance(x, str | int | float | bool | tuple | None) for x in node.attributes.values()):
        return None
    return node.operator, repr(sorted(node.attributes.items())), tuple(given), tuple(v.shape for v in node.outputs)


def _computed(a: Side) -> Mapping[Any, Node]:
    found: dict[Any, Node] = {}
    for node in a.nodes:
        key = None if any(v in a.run.drawn for v in node.outputs) else _application(a, node)
        if key is not None:
            found.setdefault(key, node)
    return found


def _makers(a: Side) -> Mapping[int, list[Node]]:
    made: dict[int, list[Node]] = {}
    for node in a.nodes:
        for value in node.outputs:
            label = a.labels[value]
            if label is not None:
                made.setdefault(label, []).append(node)
    return made


def _shaped(a: Side, value: Value, shape: tuple[int, ...]) -> Array:
    return a.arrays[value].reshape(shape)


def _leaf_label(table: match.Table, a: Side, own: Signature, value: Value) -> tuple[int | None, float]:
    """The same numbers; the same but for the type that they are held in, if that is float32 and float64."""
    number = table.find(own, match.TIGHT / 10)
    if number is None and {value.dtype} & {"float32", "float64"}:
        near = table.find(own, 2.0**-22)
        if near is not None and a.named[near] in a.producer and a.of_weights(a.named[near]):
            return near, match.apart(table.signatures[near], own)  # A adds two weights, which B holds added and rounded
        if near is not None and any(
            {v.dtype, value.dtype} == {"float32", "float64"} for v, label in a.labels.items() if label == near
        ):
            return near, match.apart(table.signatures[near], own)
    return number, 0.0


def _is_fault(node: Node, side: Side, makers: list[Node] | tuple[Node, ...], a: Side) -> bool:
    """Whether a value that is nearly A's comes from A's own operator with another setting, or another weight."""
    mine = [side.labels.get(x) if isinstance(x, Value) else x for x in slots(node)]
    for maker in makers:
        theirs = [a.labels.get(x) if isinstance(x, Value) else x for x in slots(maker)]
        if kind(maker) != kind(node) and related(kind(maker), kind(node)) and mine[:1] == theirs[:1]:
            return True
        if kind(maker) != kind(node) or len(mine) != len(theirs):
            continue
        apart = sum(x != y for x, y in zip(mine, theirs, strict=True))
        if apart + (settings(maker) != settings(node)) == 1:
            return True
    return False
