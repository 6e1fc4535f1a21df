"""Which features come into each use of weights, and in which order: models concatenate parts in different orders.

A feature is told by a number: which use of weights gave it, and as which of that use's features. What changes no
feature by another, such as a pool or an activation, hands these numbers on; a concatenation puts them in a row; a sum
of two arrays has a number for each pair.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from agnostic.program.nodes import Array, Node, Value, values_in
from agnostic.transfer.matching import UsePair
from agnostic.transfer.use import Use
from agnostic.transfer.uses import Uses

_GIVE = ("product", "convolution", "transposed", "table", "lstm", "gru", "rnn")
"""Kinds of uses that make features of their own."""
_ALONE = frozenset({
    "activation", "unary", "clip", "cast", "identity", "dropout", "max_pool", "average_pool", "adaptive_average_pool",
    "adaptive_max_pool", "resize", "pad", "reduce", "batch_norm", "prelu", "permute", "reshape", "slice", "select",
})  # fmt: skip
"""Operators on one array that change no feature by another."""
_TOGETHER = frozenset({"add", "multiply", "subtract", "divide", "maximum", "minimum"})
_COMMUTE = frozenset({"add", "multiply", "maximum", "minimum"})


@dataclass(frozen=True, eq=False)
class _Features:
    """The features of an array.

    Attributes:
        axis: along which they stand, from the end.
        numbers: one for each.
    """

    axis: int
    numbers: Array


def orders(pairs: Sequence[UsePair], source: Uses, target: Uses) -> dict[int, Array]:
    """Where the target's features that come into a use stand among the source's, by the identity of the target's use.

    Left out where both have one order, or where nothing is known of one.
    """
    ours = _Reading(source, {id(p.source): k for k, p in enumerate(pairs)}, {})
    found: dict[int, Array] = {}
    theirs = _Reading(target, {id(p.target): k for k, p in enumerate(pairs)}, found)
    ours.read({})
    theirs.read({id(p.target): given for p in pairs if (given := ours.given.get(id(p.source))) is not None})
    return found


class _Reading:
    """One program's features.

    Args:
        found: its uses.
        numbers: of the pairs, by the identity of a use.
        moved: where the orders are collected.
    """

    def __init__(self, found: Uses, numbers: Mapping[int, int], moved: dict[int, Array]) -> None:
        self.found, self.numbers, self.moved = found, numbers, moved
        self.known: dict[Value, _Features] = {}
        self.given: dict[int, Array] = {}

    def read(self, wanted: Mapping[int, Array]) -> None:
        """Follow the features through the program.

        Args:
            wanted: what comes into the source's uses, by the identity of the target's.
        """
        for place, node in enumerate(self.found.program.nodes):
            first = [use for use in self.found.owners.get(place, ()) if use.nodes[0] is node]
            for use in first:
                self._look(use, wanted)
            made = self._made(first, node) if first else None
            result = made if made is not None else self._handed_on(node)
            if result is not None:
                self.known[node.outputs[0]] = result

    def _look(self, use: Use, wanted: Mapping[int, Array]) -> None:
        here = self.known.get(use.data[0]) if len(use.data) == 1 else None
        if here is None:
            return
        self.given[id(use)] = here.numbers
        there = wanted.get(id(use))
        if there is None or there.size != here.numbers.size or (there == here.numbers).all():
            return
        if np.unique(there).size == there.size and (np.sort(there) == np.sort(here.numbers)).all():
            self.moved[id(use)] = np.argsort(there)[np.argsort(np.argsort(here.numbers))]

    def _made(self, uses: Sequence[Use], node: Node) -> _Features | None:
        """The features that a use makes."""
        use = uses[0]
        value, number = node.outputs[0], self.numbers.get(id(use))
        if len(uses) != 1 or use.kind not in _GIVE or number is None or value in self.found.pieces:
            return None
        axis = node.attributes.get("channel_axis", 1) if "convolution" in node.operator else -1
        if not value.shape:
            return None
        size = value.shape[axis]
        own: Array = np.arange(size)
        if node.attributes.get("groups", 1) == size and id(use) in self.moved:
            own = self.moved[id(use)]  # a convolution of each channel alone keeps their order
        return _Features(axis % len(value.shape) - len(value.shape), number * (1 << 32) + own)

    def _handed_on(self, node: Node) -> _Features | None:
        """The features of what an operator gives, where it changes none by another."""
        given = [v for v in node.reads if self.found.weights.names(v) is None]
        known = [self.known.get(v) for v in given]
        if not given or not node.outputs[0].shape or any(x is None for x in known):
            return None
        features = [x for x in known if x is not None]
        if node.operator == "concatenate":
            return self._concatenated(node, features)
        if node.operator in _TOGETHER:
            return self._together(node, given, features)
        if node.operator in _ALONE and len(given) == 1:
            return self._alone(node, given[0], features[0])
        return None

    def _alone(self, node: Node, value: Value, features: _Features) -> _Features | None:
        shape, result = value.shape, node.outputs[0].shape
        axis, size = features.axis, features.numbers.size
        if node.operator == "permute":
            place = tuple(a % len(shape) for a in node.attributes["axes"]).index(axis % len(shape))
            return _Features(place - len(result), features.numbers)
        if node.operator == "reshape":
            # Only axes of one position come or go beside the features.
            kept = [k for k, n in enumerate(result) if n == size]
            around = [n for k, n in enumerate(shape) if k != axis % len(shape) and n != 1]
            if len(kept) != 1 or around != [n for n in result if n not in (1, size)]:
                return None
            return _Features(kept[0] - len(result), features.numbers)
        if node.operator in ("reduce", "select"):
            over = node.attributes.get("axes" if node.operator == "reduce" else "axis")
            axes = range(len(shape)) if over is None else (over,) if isinstance(over, int) else over
            gone = {a % len(shape) for a in axes}
            if axis % len(shape) in gone:
                return None
            after = 0 if len(result) == len(shape) else sum(a > axis % len(shape) for a in gone)
            return _Features(axis + after, features.numbers)
        same = len(result) == len(shape) and result[axis] == size
        return features if same else None

    def _together(self, node: Node, given: Sequence[Value], features: Sequence[_Features]) -> _Features | None:
        first = features[0]
        size = node.outputs[0].shape[first.axis] if len(node.outputs[0].shape) >= -first.axis else 0
        if size != first.numbers.size or any(x.axis != first.axis for x in features):
            return None
        if len(given) == 1:
            return first
        numbers = [x.numbers for x in features]
        if any(x.size != size for x in numbers):
            return None
        if all((x == numbers[0]).all() for x in numbers):
            return first
        both = np.stack(numbers, -1)
        rows = np.sort(both, -1) if node.operator in _COMMUTE else both
        return _Features(first.axis, np.array([hash((node.operator, *row)) for row in rows.tolist()]))

    def _concatenated(self, node: Node, features: Sequence[_Features]) -> _Features | None:
        rank, axis = len(node.outputs[0].shape), node.attributes.get("axis", 0)
        parts = list(values_in(node.operands[0]))
        if len(parts) != len(features) or len({x.axis for x in features}) != 1:
            return None
        if axis % rank - rank != features[0].axis:
            same = all(np.array_equal(x.numbers, features[0].numbers) for x in features)
            return features[0] if same else None
        return _Features(features[0].axis, np.concatenate([x.numbers for x in features]))
