"""Differences on trial: what B is without one, and whether that is A."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from agnostic.compare import match
from agnostic.compare.edits import Edit, edits, is_about_hiding, price
from agnostic.compare.frontier import Parting, partings
from agnostic.compare.judging import Recorded, of_one_framework, permuted
from agnostic.compare.replay import Patches, Values, operands_of, outputs, slots
from agnostic.compare.sides import Side, second
from agnostic.errors import InvalidInput
from agnostic.program.nodes import Array, Node

PROVED = 16
"""How many candidates are undone on trial at each step."""

WEIGHED = 8
"""How many are weighed by what follows, where none explains all."""


@dataclass(frozen=True)
class Difference:
    """A place where B computes something else.

    Attributes:
        parting: the values.
        edits: what B has otherwise; undone, it computes A's value.
        a, b: the nodes that use the value, or None at an output.
    """

    parting: Parting
    edits: tuple[Edit, ...]
    a: Node | None
    b: Node | None


@dataclass(frozen=True)
class Search:
    """Where the search stands.

    Attributes:
        a, b: the records.
        theirs: B's values with the repairs so far.
        patches: those repairs.
        done: the outputs that are explained.
    """

    a: Recorded
    b: Recorded
    theirs: Side
    patches: Patches
    done: frozenset[str]

    @functools.cached_property
    def candidates(self) -> list[tuple[float, Difference]]:
        """The differences with their prices, the cheapest first."""
        ours, found = self.a.first[0], []
        for parting in self.partings:
            if parting.output in self.done and parting.output:
                continue
            at = (None, None) if parting.node < 0 else (ours.nodes[parting.partner], self.theirs.nodes[parting.node])
            script = edits(ours, self.theirs, parting.a, parting.b, at)
            # What is aligned by two ways is one edit.
            changes = tuple({(e.kind, id(e.a), id(e.b), e.name, repr(e.theirs)): e for e in script}.values())
            changes = tuple(edit for edit in changes if not is_about_hiding(edit)) or changes
            if parting.node < 0 and not of_one_framework(self.a.run, self.b.run):  # each returns its own order of axes
                changes = tuple(e for e in changes if e.kind != "extra" or e.name != "permute") or changes
            order = parting.node if parting.node >= 0 else len(self.theirs.nodes)
            found.append((price(changes), parting.size, order, Difference(parting, changes, *at)))
        return [(cost, difference) for cost, _, _, difference in sorted(found, key=lambda x: x[:3])]

    @functools.cached_property
    def partings(self) -> list[Parting]:
        """The places."""
        return partings(self.a.first[0], self.theirs)

    def repairs(self, difference: Difference) -> Iterator[Patches]:
        """B without a difference, if that gives what A has next: at its place; and wherever else it is the same."""
        ours, table = self.a.first
        parting = difference.parting
        for array in _forms(ours, self.theirs, parting):
            if parting.node < 0 or _goes_on(ours, self.theirs, table, parting, array):
                yield from _repairs(self.theirs, self.patches, parting, array, self.partings)
                return

    def proves(self, difference: Difference, patches: Patches) -> bool:
        """Whether B with these repairs, of which it has all but one now, gives A's outputs."""
        now, parting = self.theirs.arrays, difference.parting
        try:
            found = outputs(Values(self.b.run, self.b.evaluate, patches, now), now.patches)
        except (InvalidInput, ValueError):
            return False
        framework = of_one_framework(self.a.run, self.b.run)
        pairs = zip(self.a.run.program.outputs, self.b.run.program.outputs, strict=True)
        return all(
            path in self.done
            or (parting.node < 0 and path == parting.output)
            or match.distance(self.a.exact[path], found[other]) <= self.theirs.loose
            or permuted(self.a.exact[path], found[other], framework, self.theirs.loose)
            for (path, _), (other, _) in pairs
        )  # fmt: skip

    def gain(self, patches: Patches) -> int:
        """How many more values of B are A's with these repairs."""
        ours, table = self.a.first
        try:
            found = second(self.b.run, self.b.evaluate, ours, table, patches, self.theirs)
        except (InvalidInput, ValueError):
            return -1
        return sum(label is not None for label in found.labels.values())


def chosen(search: Search) -> tuple[Difference, Patches] | None:
    """The cheapest difference that alone makes B's outputs A's; where none does, that after which most is A's."""
    unproven, tried = list[tuple[Difference, Patches]](), 0
    limit = float("inf")
    for cost, difference in search.candidates:
        if cost > limit or tried >= PROVED:
            break
        whole = _weights_repaired(search.a.first[0], search.patches, difference.edits)
        if whole is not None and search.proves(difference, whole):
            return difference, whole
        for repaired in search.repairs(difference):
            limit = min(limit, 2 * cost + 6)
            tried += 1
            if search.proves(difference, repaired):
                return difference, repaired
            unproven.append((difference, repaired))
    return max(unproven[:WEIGHED], key=lambda x: search.gain(x[1]), default=None)


def _weights_repaired(a: Side, patches: Patches, changes: Sequence[Edit]) -> Patches | None:
    """B with A's weights in the place of its own, wherever they are used, if nothing else differs."""
    if not changes or any(edit.kind != "leaf" or edit.theirs in patches.values for edit in changes):
        return None
    if any(edit.ours.shape != edit.theirs.shape for edit in changes):
        return None
    return replace(patches, values={**patches.values, **{edit.theirs: a.arrays[edit.ours] for edit in changes}})


def _repairs(
    b: Side, patches: Patches, parting: Parting, array: Array, everywhere: Sequence[Parting]
) -> Iterator[Patches]:
    """B with A's value at a parting; and wherever B has the one value for the other, if it is several times."""
    one = _repaired(b, patches, parting, array)
    if one is None:
        return
    yield one
    alike = {(p.node, p.slot) for p in everywhere if (p.a, p.b) == (parting.a, parting.b) and p.node >= 0}
    if len(alike) > 1 and len(one.edges) > len(patches.edges):
        yield replace(one, edges={**one.edges, **dict.fromkeys(alike, array)})


def _repaired(b: Side, patches: Patches, parting: Parting, array: Array) -> Patches | None:
    """B with A's value at a parting; None where that was done before."""
    if b.labels[parting.b] is None:
        root = b.root(parting.b)
        if root in patches.values:
            return None
        size = b.arrays[root].size
        return replace(
            patches,
            values={**patches.values, root: array.reshape(b.arrays[root].shape) if array.size == size else array},
        )
    if parting.node < 0:
        return patches
    if (parting.node, parting.slot) in patches.edges:
        return None
    return replace(patches, edges={**patches.edges, (parting.node, parting.slot): array})


def _forms(a: Side, b: Side, parting: Parting) -> Iterator[Array]:
    x, y = a.arrays[parting.a], b.arrays[parting.b]
    if x.size == y.size:
        yield x.reshape(y.shape)
        for order in match.permutations(x.shape, y.shape):
            yield np.ascontiguousarray(x.transpose(order))
    else:
        yield x


def _goes_on(a: Side, b: Side, table: match.Table, parting: Parting, array: Array) -> bool:
    """Whether B's operator makes of A's value what A has there."""
    given = operands_of(
        b.nodes[parting.node], parting.node, b.arrays.__getitem__, Patches(edges={(parting.node, parting.slot): array})
    )
    try:
        with np.errstate(all="ignore"):
            results = b.evaluate(b.nodes[parting.node], given)
    except InvalidInput:
        return False
    wanted = [a.labels[v] for v in a.nodes[parting.partner].outputs]
    main = results[:1] if slots(b.nodes[parting.node]) else results
    return all(table.find(match.signature(x), b.loose) == label for x, label in zip(main, wanted, strict=False))
