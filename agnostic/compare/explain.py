"""Why the outputs of two recorded runs differ: take the smallest difference out of B, run B again, and go on.

What is proven was run: with the differences undone, B's outputs are A's.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from agnostic.compare import match
from agnostic.compare.edits import Edit
from agnostic.compare.judging import Recorded, apart, of_one_framework, permuted
from agnostic.compare.leaf_relations import LeafRelation
from agnostic.compare.lowering import kind
from agnostic.compare.prove import Difference, Search, chosen
from agnostic.compare.replay import Patches
from agnostic.compare.sides import Side, second
from agnostic.errors import InvalidInput
from agnostic.program.nodes import Value

ROUNDS = 24
"""How many mistakes are looked for, one after the other."""

REPEATS = 400
"""How many places these may stand at."""


@dataclass(frozen=True)
class DifferenceSummary:
    """What explains that the outputs differ.

    Attributes:
        a, b: the sides, B as it was recorded.
        differences: in the order in which they were found.
        proven: whether B without them gives A's outputs.
        left: how far B without them is from A, relative to A's outputs.
    """

    a: Side
    b: Side
    differences: tuple[Difference, ...]
    proven: bool
    left: float

    @functools.cached_property
    def relations(self) -> dict[tuple[Value, Value], LeafRelation]:
        """What B's leaves are to A's, as far as it was looked up: it takes seconds, and is told several times."""
        return {}


def explain(a: Recorded, b: Recorded, original: Side) -> DifferenceSummary:
    """The differences between two runs whose outputs differ.

    Args:
        original: B's values as it was recorded; see :func:`agnostic.compare.sides.second`.
    """
    found = _explained(a, b, original)
    if found.differences:
        return found
    # All that differs is as small as a rounding of weights: where there is none, it is told from equal values.
    return _explained(a, b, second(b.run, b.evaluate, *a.first, loose=match.TIGHT))


def _explained(a: Recorded, b: Recorded, original: Side) -> DifferenceSummary:
    patches, found, done, known = Patches(), list[Difference](), set[str](), set[Any]()
    ours, table = a.first
    theirs, others = original, 0
    while others < ROUNDS and len(found) < REPEATS and not _equal(ours, theirs, done):
        search = Search(a, b, theirs, patches, frozenset(done))
        one = _repeated(search, known) or chosen(search)
        if one is None:
            break
        difference, changed = one
        found.append(difference)
        if changed is patches:
            done.add(difference.parting.output)
        mistake = in_common(difference.edits)
        others += mistake not in known
        known.add(mistake)
        patches = changed
        try:
            theirs = second(b.run, b.evaluate, ours, table, patches, theirs)
        except (InvalidInput, ValueError):  # an array of another shape does not fit what follows
            break
    left = _left(ours, theirs, done)
    return DifferenceSummary(ours, original, tuple(found), bool(found) and _equal(ours, theirs, done), left)


def in_common(changes: Sequence[Edit]) -> Any:
    """What is equal of two differences that are one mistake at two places; a weight is a mistake of its own."""
    parts = []
    for edit in changes:
        node = edit.b if edit.b is not None else edit.a
        if edit.kind in ("leaf", "piece") or node is None:
            return object()
        told = [repr(x) if not isinstance(x, Value) else "" for x in (edit.ours, edit.theirs)]
        parts.append((edit.kind, kind(node), node.kind, node.file, node.line, edit.name, *told))
    return tuple(parts)


def _repeated(search: Search, known: set[Any]) -> tuple[Difference, Patches] | None:
    """The first place where a mistake that was found elsewhere stands again."""
    again = [d for _, d in search.candidates if d.parting.node >= 0 and in_common(d.edits) in known] if known else []
    for difference in sorted(again, key=lambda d: d.parting.node):
        for repaired in search.repairs(difference):
            return difference, repaired
    return None


def _equal(a: Side, b: Side, done: set[str]) -> bool:
    pairs = zip(a.run.program.outputs, b.run.program.outputs, strict=True)
    framework = of_one_framework(a.run, b.run)
    return all(path in done or a.labels[x] == b.labels[y] or permuted(a.arrays[x], b.arrays[y], framework, b.loose)
               for (path, x), (_, y) in pairs)  # fmt: skip


def _left(a: Side, b: Side, done: set[str]) -> float:
    pairs = zip(a.run.program.outputs, b.run.program.outputs, strict=True)
    framework = of_one_framework(a.run, b.run)
    left = (apart(a.arrays[x], b.arrays[y], framework) for (path, x), (_, y) in pairs if path not in done)
    return max(left, default=0)
