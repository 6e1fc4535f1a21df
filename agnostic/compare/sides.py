"""Two recorded runs as values that are equal or not: what the search for differences looks at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from agnostic.compare import match
from agnostic.compare.lowering import FLAT, kind, settings
from agnostic.compare.replay import Evaluate, Patches, leaf_arrays, slots, walk
from agnostic.program.nodes import Array, Node, Value
from agnostic.program.runs import Run


@dataclass(eq=False)
class Side:
    """One run, computed again in float64.

    Attributes:
        run: the run.
        evaluate: its backend's.
        arrays: every value.
        labels: equal values of both sides have one label; None: the other side has no such value.
        producer: the index of the node that gives a value, and which of its outputs it is.
        roots: for a value that holds another one's numbers in the same order: that one.
    """

    run: Run
    evaluate: Evaluate
    arrays: dict[Value, Array] = field(default_factory=dict)
    labels: dict[Value, int | None] = field(default_factory=dict)
    producer: dict[Value, tuple[int, int]] = field(default_factory=dict)
    roots: dict[Value, Value] = field(default_factory=dict)

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The operators."""
        return self.run.program.nodes

    def root(self, value: Value) -> Value:
        """The first value with the same numbers in the same order, on the way that the numbers came."""
        return self.roots.get(value, value)

    def made_by(self, value: Value) -> Node | None:
        """The node that gives a value; None for a leaf."""
        found = self.producer.get(value)
        return None if found is None else self.nodes[found[0]]

    def keep(self, index: int, results: tuple[Array, ...]) -> None:
        """Hold what a node gave."""
        node = self.nodes[index]
        self.arrays.update(zip(node.outputs, results, strict=True))
        for place, value in enumerate(node.outputs):
            self.producer[value] = index, place
        if kind(node) not in FLAT or not slots(node) or not isinstance(source := slots(node)[0], Value):
            return
        for value, x in zip(node.outputs, results, strict=True):
            before = self.arrays.get(source)
            if before is not None and before.size == x.size and _equal(before, x):
                self.roots[value] = self.root(source)


def _equal(x: Array, y: Array) -> bool:
    return bool(np.array_equal(x.reshape(-1), y.reshape(-1), equal_nan=x.dtype.kind in "fc"))


def first(run: Run, evaluate: Evaluate) -> tuple[Side, match.Table]:
    """A's values, and the table that B's are looked up in."""
    side, table = Side(run, evaluate), match.Table()
    for value, x in leaf_arrays(run).items():
        side.arrays[value], side.labels[value] = x, table.add(x)
    for index, results in walk(run, evaluate):
        if index >= 0:
            side.keep(index, results)
            for value, x in zip(side.nodes[index].outputs, results, strict=True):
                side.labels[value] = table.add(x)
    return side, table


def second(run: Run, evaluate: Evaluate, a: Side, table: match.Table, patches: Patches, *, loose: bool) -> Side:
    """B's values, with those of A's that they are equal to.

    Args:
        a, table: what :func:`first` gave.
        patches: repairs of B.
        loose: a value that is A's but for rounding (:data:`agnostic.compare.match.LOOSE`) goes on as A's, so that
            errors do not add up.
    """
    side = Side(run, evaluate)
    made = _makers(a)
    for value, x in leaf_arrays(run).items():
        array = patches.values.get(value, x)
        side.arrays[value], side.labels[value] = array, _leaf_label(table, a, array, value)
    steps = walk(run, evaluate, patches)
    instead: tuple[Array, ...] | None = None
    while True:
        try:
            index, results = steps.send(instead)
        except StopIteration:
            return side
        instead = None
        if index < 0:
            continue
        node, labels, taken = side.nodes[index], [], []
        for x in results:
            number = table.find(x)
            if number is None and loose and x.dtype.kind == "f":
                number = table.find(x, match.LOOSE)
                if number is not None and _is_fault(node, side, made.get(number, ()), a):
                    number = None
                x = x if number is None else table.arrays[number].reshape(x.shape)
            labels.append(number)
            taken.append(x)
        instead = tuple(taken)
        side.keep(index, instead)
        side.labels.update(zip(node.outputs, labels, strict=True))


def _makers(a: Side) -> Mapping[int, list[Node]]:
    made: dict[int, list[Node]] = {}
    for node in a.nodes:
        for value in node.outputs:
            label = a.labels[value]
            if label is not None:
                made.setdefault(label, []).append(node)
    return made


def _leaf_label(table: match.Table, a: Side, x: Array, value: Value) -> int | None:
    """The same numbers; the same but for the type that they are held in, if that is float32 and float64."""
    number = table.find(x, match.TIGHT / 10)
    if number is None and {value.dtype} & {"float32", "float64"}:
        near = table.find(x, 2.0**-23)
        if near is not None and any(
            {v.dtype, value.dtype} == {"float32", "float64"} for v in a.arrays if a.labels[v] == near
        ):
            return near
    return number


def _is_fault(node: Node, side: Side, makers: list[Node] | tuple[Node, ...], a: Side) -> bool:
    """Whether a value that is nearly A's comes from A's own operator with another setting, or another weight."""
    mine = [side.labels.get(x) if isinstance(x, Value) else x for x in slots(node)]
    for maker in makers:
        theirs = [a.labels.get(x) if isinstance(x, Value) else x for x in slots(maker)]
        if kind(maker) != kind(node) or len(mine) != len(theirs):
            continue
        apart = sum(x != y for x, y in zip(mine, theirs, strict=True))
        if apart + (settings(maker) != settings(node)) == 1:
            return True
    return False
