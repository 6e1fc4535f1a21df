"""Which use of weights in one program is which in another: by structure, from the inputs and from the outputs.

A use is told by its kind and sizes, by the uses whose results reach it, and by those that its own result reaches, all
the way to the inputs and outputs. What stands between two uses counts only where that does not decide: then the places
in a concatenation or an attention do, then functions, then strides. What is alike in all of these is taken in order,
since nothing depends on it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from agnostic.errors import InvalidWeights
from agnostic.program.nodes import Node, Value
from agnostic.transfer.use import MOVES, Use
from agnostic.transfer.uses import Uses

Color = int
_PASSED = MOVES | {"pad"}
_PLACED = frozenset({"concatenate", "attention", "matmul", "subtract", "divide", "where", "select", "slice"})
_CUTS = ("select", "slice")
_ARITHMETIC = ("subtract", "divide", "where")
_ALIKE = {"einsum": "matmul", "stack": "concatenate"}
"""Operators that put their operands in places as others do."""


@dataclass(frozen=True, eq=False)
class UsePair:
    """A use of the target, and the use of the source that it is.

    Attributes:
        how: ``"name"``, ``"structure"`` or ``"order"``: where the programs differ around them.
    """

    source: Use
    target: Use
    how: str


class UseGraph:
    """The uses of a program, and which one's results reach which; inputs and outputs count as well, as numbers below 0.

    Attributes:
        before, after: for each use, by its place.
    """

    def __init__(self, found: Uses) -> None:
        self.found, self.uses = found, found.uses
        self.numbers = {id(use): k for k, use in enumerate(self.uses)}
        self.before: list[set[int]] = [set() for _ in self.uses]
        self.after: list[set[int]] = [set() for _ in self.uses]
        program = found.program
        reached: dict[Value, frozenset[int]] = {
            leaf.value: frozenset([-1 - k]) for k, leaf in enumerate(program.of_role("input"))
        }
        for place, node in enumerate(program.nodes):
            owners = [self.numbers[id(use)] for use in found.owners.get(place, ())]
            given = frozenset().union(*(reached.get(v, frozenset()) for v in node.reads))
            for number in owners:
                if self.uses[number].nodes[0] is node:
                    self.before[number] = set(given)
            for value in node.outputs:
                piece = found.pieces.get(value)
                if piece is not None:
                    reached[value] = frozenset([self.numbers[id(piece)]])
                else:
                    reached[value] = frozenset(owners) if owners else given
        for number, sources in enumerate(self.before):
            for source in sources:
                if source >= 0:
                    self.after[source].add(number)
        for k, (_, value) in enumerate(program.outputs):
            for source in reached.get(value, ()):
                if source >= 0:
                    self.after[source].add(-1 - k)

    def colors(self) -> list[tuple[Hashable, Hashable]]:
        """For each use what it is with all that leads to it, and with all that it leads to."""
        keys = [(use.kind, use.dims) for use in self.uses]
        there: list[Hashable] = []
        for number, key in enumerate(keys):
            there.append(hash((key, frozenset(there[k] if k >= 0 else k for k in self.before[number]))))
        back: list[Hashable] = [None] * len(keys)
        for number in range(len(keys) - 1, -1, -1):
            back[number] = hash((keys[number], frozenset(back[k] if k >= 0 else k for k in self.after[number])))
        return list(zip(there, back, strict=True))

    def details(self, level: int) -> list[tuple[Hashable, ...]]:
        """For each use its settings, what stands before it up to other uses, and what after it.

        Args:
            level: 0: places among operands; 1: functions as well; 2: strides as well.
        """
        ahead, behind = self._ahead(level), self._behind(level)
        found: list[tuple[Hashable, ...]] = []
        for use in self.uses:
            said = tuple(sorted((k, repr(v)) for k, v in use.settings.items() if k in _TOLD[level]))
            given = tuple(behind.get(v) for v in use.data)
            found.append((said, given, hash(frozenset(Counter(ahead.get(v) for v in use.outputs).items()))))
        return found

    def _ahead(self, level: int) -> dict[Value, Hashable]:
        """What becomes of each value up to the next uses."""
        users: dict[Value, list[Hashable]] = {}
        for path, value in self.found.program.outputs:
            users.setdefault(value, []).append(("output", path))
        found: dict[Value, Hashable] = {}
        for place in range(len(self.found.program.nodes) - 1, -1, -1):
            node = self.found.program.nodes[place]
            owners = self.found.owners.get(place, ())
            given = [(k, v) for k, v in enumerate(node.reads)]
            for value in node.outputs:
                found[value] = hash(tuple(sorted(map(repr, users.get(value, ())))))
            label = self._label(node, level)
            said: list[Hashable]
            if owners and owners[0].nodes[0] is node:
                said = [("use", use.kind, use.dims) for use in owners]
            elif label is None or owners:
                said = users.get(node.outputs[0], [])
            elif node.operator == "attention":
                self._attention_ahead(node, users, found[node.outputs[0]])
                continue
            else:
                said = [(label, tuple(found[v] for v in node.outputs))]
            for k, value in given:
                placed = label is not None and label[0] in _PLACED and not owners
                users.setdefault(value, []).extend([(x, k) for x in said] if placed else said)
        return found

    def _label(self, node: Node, level: int) -> tuple[Any, ...] | None:
        """What an operator is called between two uses; None for one that is not told."""
        if node.operator in _PASSED:
            return None
        given = {v for v in node.reads if self.found.weights.names(v) is None}
        placed = _ALIKE.get(node.operator, node.operator)
        if placed not in _PLACED or (placed in _ARITHMETIC and len(given) < 2):
            return (node.operator, node.attributes.get("function")) if level else None
        return (placed, node.attributes.get("index"), node.attributes.get("start")) if placed in _CUTS else (placed,)

    def _attention_ahead(self, node: Node, users: dict[Value, list[Hashable]], after: Hashable) -> None:
        """An attention is told as the two products that it is, since not all frameworks have an operator for it."""

        def of(which: Hashable) -> Hashable:
            return hash(tuple(sorted(map(repr, [which]))))

        product: Hashable = ((("matmul",), (after,)), 0)
        scores = (("matmul",), (of(product),))
        said = ((scores, 0), (scores, 1), ((("matmul",), (after,)), 1))
        for operand, one in zip(node.operands[:3], said, strict=True):
            if isinstance(operand, Value):
                users.setdefault(operand, []).append(one)

    def _behind(self, level: int) -> dict[Value, Hashable]:
        """What each value is made of, back to the uses before."""
        found: dict[Value, Hashable] = {
            leaf.value: ("input", k) for k, leaf in enumerate(self.found.program.of_role("input"))
        }
        for place, node in enumerate(self.found.program.nodes):
            owners = self.found.owners.get(place, ())
            given = [found.get(v, "constant") for v in node.reads]
            for value in node.outputs:
                label = self._label(node, level)
                piece = self.found.pieces.get(value)
                if owners or piece is not None:
                    givers = owners if piece is None else [piece]
                    found[value] = hash(("use", tuple(sorted((u.kind, u.dims) for u in givers))))
                elif node.operator == "attention":
                    found[value] = hash((("matmul",), (hash((("matmul",), tuple(given[:2]))), given[2])))
                elif label is None:
                    found[value] = given[0] if given else "constant"
                else:
                    ordered = given if label[0] in _PLACED else sorted(map(repr, given))
                    found[value] = hash((label, tuple(ordered)))
        return found


_TOLD = (
    ("reverse",),
    ("reverse", "function", "reset_after"),
    ("reverse", "function", "reset_after", "stride", "dilation"),
)


def matched(source: Uses, target: Uses) -> list[UsePair]:
    """The pairs, in the order of the target; what has no counterpart is left out.

    Raises:
        InvalidWeights: two places of the source could as well be one place of the target; names both.
    """
    search = _Matching(UseGraph(source), UseGraph(target))
    ours, theirs = search.a.colors(), search.b.colors()
    # Where they differ in one place, what comes before it agrees from the inputs on, and what follows to the outputs.
    search.by_color(ours, theirs)
    for k in range(2):
        search.by_color([color[k] for color in ours], [color[k] for color in theirs])
    search.by_neighbours()
    return [UsePair(source.uses[a], target.uses[b], search.how[b]) for b, a in sorted(search.partner.items())]


class _Matching:
    """Which uses of the target have which partner so far."""

    def __init__(self, a: UseGraph, b: UseGraph) -> None:
        self.a, self.b = a, b
        self.partner: dict[int, int] = {}
        self.taken: dict[int, int] = {}
        self.how: dict[int, str] = {}
        self._details: dict[int, tuple[list[tuple[Hashable, ...]], list[tuple[Hashable, ...]]]] = {}

    def take(self, a: int, b: int, how: str) -> None:
        """Make a pair."""
        self.partner[b], self.taken[a], self.how[b] = a, b, how

    def by_color(self, ours: Sequence[Hashable], theirs: Sequence[Hashable]) -> None:
        """Pairs of one color."""
        groups: dict[Hashable, list[int]] = {}
        for number, color in enumerate(ours):
            groups.setdefault(color, []).append(number)
        peers: dict[Hashable, list[int]] = {}
        for number, color in enumerate(theirs):
            peers.setdefault(color, []).append(number)
        for number, color in enumerate(theirs):
            if number in self.partner or len(groups.get(color, ())) != len(peers[color]):
                continue
            candidates = [a for a in groups[color] if a not in self.taken and self._fits(a, number)]
            others = [b for b in peers[color] if b not in self.partner and self._alike(b, number)]
            if candidates:
                self.take(self._chosen(candidates, others, number), number, "structure")

    def _fits(self, a: int, b: int) -> bool:
        """Whether no neighbour that has a partner says otherwise."""
        for ours, theirs in ((self.a.before[a], self.b.before[b]), (self.a.after[a], self.b.after[b])):
            if any(k >= 0 and k in self.partner and self.partner[k] not in ours for k in theirs):
                return False
            if any(k >= 0 and k in self.taken and self.taken[k] not in theirs for k in ours):
                return False
        return True

    def _alike(self, b: int, other: int) -> bool:
        """Whether two uses of the target have the same neighbours that have partners."""

        def known(of: set[int]) -> set[int]:
            return {k for k in of if k < 0 or k in self.partner}

        return known(self.b.before[b]) == known(self.b.before[other]) and known(self.b.after[b]) == known(
            self.b.after[other]
        )

    def _chosen(self, candidates: list[int], others: list[int], number: int) -> int:
        """One of several, by what stands between the uses, from the plainest to the finest."""
        unsure = False
        for level in range(len(_TOLD)):
            if len(candidates) == 1:
                return candidates[0]
            if level not in self._details:
                self._details[level] = self.a.details(level), self.b.details(level)
            ours, theirs = self._details[level]
            for part, wanted in enumerate(theirs[number]):
                here, there = [ours[a][part] for a in candidates], [theirs[b][part] for b in others]
                if Counter(here) == Counter(there):
                    candidates = [a for a in candidates if ours[a][part] == wanted]
                    others = [b for b in others if theirs[b][part] == wanted]
                else:
                    unsure = unsure or (len(set(here)) > 1 and len(set(there)) > 1)
        if unsure and len(candidates) > 1:
            return self._named(candidates, number)
        return candidates[0]

    def _named(self, candidates: list[int], number: int) -> int:
        """By name, where structure does not tell; equal weights need not be told apart.

        Raises:
            InvalidWeights: nothing tells.
        """
        name = _last(self.b.uses[number].layer)
        same = [a for a in candidates if _last(self.a.uses[a].layer) == name]
        if len(same) == 1:
            return same[0]
        first, second = (self.a.uses[a] for a in candidates[:2])
        weights = self.a.found.weights
        if all(
            np.array_equal(weights.numbers(part), weights.numbers(second.parts[role]))
            for role, part in first.parts.items()
            if role in second.parts
        ):
            return candidates[0]
        raise InvalidWeights(
            f"{first.layer!r} and {second.layer!r} of the source could both be {self.b.uses[number].layer!r} of the "
            "target: what comes before and after them is alike, and what they differ in, the target's layers do not "
            "have; give the layers the same names in both models; no weight was changed"
        )

    def by_neighbours(self) -> None:
        """What is left goes to what fits and has most neighbours in common, in order."""
        keys = [(use.kind, use.dims) for use in self.a.uses]
        for number, use in enumerate(self.b.uses):
            if number in self.partner:
                continue
            candidates = [a for a, key in enumerate(keys) if key == (use.kind, use.dims) and a not in self.taken]
            if candidates:
                best = max(candidates, key=lambda a: (self._in_common(a, number), -a))
                self.take(best, number, "order")

    def _in_common(self, a: int, b: int) -> float:
        found = 0.0
        for ours, theirs in ((self.a.before[a], self.b.before[b]), (self.a.after[a], self.b.after[b])):
            there = {self.partner.get(k) if k >= 0 else k for k in theirs} - {None}
            here = {k for k in ours if k < 0 or k in self.taken}
            found += len(here & there) / max(len(here | there), 1)
        return found


def _last(name: str) -> str:
    return name.rpartition(".")[2].rpartition("/")[2]
