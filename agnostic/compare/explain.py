"""Why the outputs of two recorded runs differ: take the smallest difference out of B, run B again, and go on.

What is proven was run: with the differences undone, B's outputs are A's.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from agnostic.compare import match, noise
from agnostic.compare.canonical import canonical
from agnostic.compare.edits import Edit, edits, price
from agnostic.compare.frontier import Parting, partings
from agnostic.compare.lowering import kind
from agnostic.compare.replay import Evaluate, Patches, Values, floors, operands_of, outputs, slots
from agnostic.compare.sides import Side, first, second
from agnostic.errors import InvalidInput
from agnostic.program.nodes import Array, Node, Value
from agnostic.program.runs import Run
from agnostic.text import counted

ROUNDS = 24
"""How many mistakes are looked for, one after the other."""

REPEATS = 400
"""How many places these may stand at."""

TRUSTED = 0.05
"""How far a replay in float64 may be from the run itself, relative to its output; beyond, it is another program."""


@dataclass(eq=False)
class Recorded:
    """A run with what computes its operators.

    Attributes:
        run: the run.
        evaluate: its backend's.
        exact: the outputs in float64; they are computed when they are asked for.

    Raises:
        InvalidInput: it cannot be replayed; says why.
    """

    run: Run
    evaluate: Evaluate

    def __post_init__(self) -> None:
        if self.run.notes:
            notes = "; ".join(self.run.notes)
            raise InvalidInput(f"{self.run.program.name} cannot be run again from its record: {notes}")
        self.run = canonical(self.run)

    @functools.cached_property
    def first(self) -> tuple[Side, match.Table]:
        """See :func:`agnostic.compare.sides.first`."""
        return first(self.run, self.evaluate)

    @functools.cached_property
    def exact(self) -> dict[str, Array]:
        """What the run gives in float64.

        Raises:
            InvalidInput: the replay is not what ran.
        """
        if "first" in vars(self):
            return self.checked({path: self.first[0].arrays[value] for path, value in self.run.program.outputs})
        return self.checked(outputs(Values(self.run, self.evaluate)))

    @functools.cached_property
    def floors(self) -> dict[str, float]:
        """What arithmetic does to each output, as a root mean square."""
        return floors(self.run, self.exact)

    def check(self) -> None:
        """Replay the run.

        Raises:
            InvalidInput: it cannot be replayed; says why.
        """
        _ = self.first, self.exact

    def checked(self, exact: dict[str, Array]) -> dict[str, Array]:
        """The outputs of a replay, if they are those of the run.

        Raises:
            InvalidInput: they are not.
        """
        found = floors(self.run, exact)
        for path, value in self.run.program.outputs:
            scale = noise.rms(exact[path])
            if value.dtype in ("float32", "float64") and found[path] > TRUSTED * scale and np.isfinite(scale):
                raise InvalidInput(f"{self.run.program.name} run again from its record gives something else")
        return exact


@dataclass(frozen=True)
class Judged:
    """One output of both models.

    Attributes:
        path: in A's result.
        shape: of A's.
        error: root mean square of the difference.
        floor: what arithmetic explains.
        scale: root mean square of A's output.
    """

    path: str
    shape: tuple[int, ...]
    error: float
    floor: float
    scale: float

    @property
    def floors(self) -> float:
        """The error in units of the floor."""
        return self.error / self.floor if self.floor else (0.0 if self.error == 0 else float("inf"))

    @property
    def same(self) -> bool:
        """Whether arithmetic explains the error."""
        return self.floors <= noise.THRESHOLD


@dataclass(frozen=True)
class Difference:
    """A place where B computes something else.

    Attributes:
        parting: the values.
        edits: what B has otherwise; undone, it computes A's value.
        a, b: the nodes that use the value, or None at an output.
        size: of the two pieces of program.
    """

    parting: Parting
    edits: tuple[Edit, ...]
    a: Node | None
    b: Node | None


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


def judged(a: Recorded, b: Recorded) -> list[Judged]:
    """The outputs of both, each with what arithmetic explains: the floor of the coarser side.

    Half precision against more digits is no matter of arithmetic: there it is the finer side's floor.

    Raises:
        InvalidInput: the models return other numbers of arrays, or other shapes.
    """
    ours, theirs = a.run.program.outputs, b.run.program.outputs
    if len(ours) != len(theirs):
        raise InvalidInput(f"A returns {counted(len(ours), 'array')}, B {len(theirs)}")
    found, halves = [], (_halves(a.run), _halves(b.run))
    for (path, _), (other, _) in zip(ours, theirs, strict=True):
        x, y = a.run.outputs[path], b.run.outputs[other]
        turned = _turned(a.exact[path], b.exact[other], y, x.shape, _alike(a.run, b.run))
        floor = _floor(halves, a.floors[path], b.floors[other])
        error = float("inf") if turned is None else noise.difference(x, turned)
        found.append(Judged(path, x.shape, error, floor, noise.rms(a.exact[path])))
    return found


def _halves(run: Run) -> bool:
    """Whether some of its numbers have half precision."""
    return any(v.dtype in ("float16", "bfloat16") for node in run.program.nodes for v in node.outputs)


def _floor(halves: tuple[bool, bool], ours: float, theirs: float) -> float:
    if halves[0] != halves[1]:
        return theirs if halves[0] else ours
    return max(ours, theirs)


def _turned(exact: Array, other: Array, y: Array, shape: tuple[int, ...], alike: bool) -> Array | None:
    """B's output with its axes in A's order: in one framework as it is, if it fits; else the nearest."""
    orders = _orders(y.shape, shape, alike)
    if not orders:
        return y.reshape(shape) if y.size == int(np.prod(shape)) else None
    return y.transpose(min(orders, key=lambda order: match.distance(exact, other.transpose(order))))


def _orders(given: tuple[int, ...], shape: tuple[int, ...], alike: bool) -> list[tuple[int, ...]]:
    return [tuple(range(len(given)))] if alike and given == shape else match.layouts(given, shape)


def explain(a: Recorded, b: Recorded, original: Side) -> DifferenceSummary:
    """The differences between two runs whose outputs differ.

    Args:
        original: B's values as it was recorded; see :func:`agnostic.compare.sides.second`.
    """
    patches, found, done, known = Patches(), list[Difference](), set[str](), set[Any]()
    ours, table = a.first
    theirs, others = original, 0
    while others < ROUNDS and len(found) < REPEATS and not _equal(ours, theirs, done):
        search = _Search(a, b, theirs, patches, frozenset(done))
        chosen = _repeated(search, known) or _chosen(search)
        if chosen is None:
            break
        difference, changed = chosen
        found.append(difference)
        if changed is patches:
            done.add(difference.parting.output)
        mistake = _mistake(difference.edits)
        others += mistake not in known
        known.add(mistake)
        patches = changed
        try:
            theirs = second(b.run, b.evaluate, ours, table, patches, theirs)
        except (InvalidInput, ValueError):  # an array of another shape does not fit what follows
            break
    left = _left(ours, theirs, done)
    return DifferenceSummary(ours, original, tuple(found), bool(found) and _equal(ours, theirs, done), left)


def _mistake(changes: Sequence[Edit]) -> Any:
    """What two differences have in common that are one mistake at two places; a weight is a mistake of its own."""
    parts = []
    for edit in changes:
        node = edit.b if edit.b is not None else edit.a
        if edit.kind in ("leaf", "piece") or node is None:
            return object()
        told = [repr(x) if not isinstance(x, Value) else "" for x in (edit.ours, edit.theirs)]
        parts.append((edit.kind, kind(node), node.kind, node.file, node.line, edit.name, *told))
    return tuple(parts)


def _alike(a: Run, b: Run) -> bool:
    return a.program.framework == b.program.framework


def _equal(a: Side, b: Side, done: set[str]) -> bool:
    pairs = zip(a.run.program.outputs, b.run.program.outputs, strict=True)
    alike = _alike(a.run, b.run)
    return all(path in done or a.labels[x] == b.labels[y] or _permuted(a.arrays[x], b.arrays[y], alike)
               for (path, x), (_, y) in pairs)  # fmt: skip


def _permuted(x: Array, y: Array, alike: bool) -> bool:
    return any(match.distance(x, y.transpose(order)) <= match.LOOSE for order in _orders(y.shape, x.shape, alike))


def _left(a: Side, b: Side, done: set[str]) -> float:
    pairs = zip(a.run.program.outputs, b.run.program.outputs, strict=True)
    return max((match.distance(a.arrays[x], b.arrays[y]) for (path, x), (_, y) in pairs if path not in done), default=0)


@dataclass(frozen=True)
class _Search:
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
        """Whether B with these repairs gives A's outputs."""
        return _proves(self.a, self.b, self.theirs, patches, self.done, difference.parting)

    def gain(self, patches: Patches) -> int:
        """How many more values of B are A's with these repairs."""
        ours, table = self.a.first
        try:
            found = second(self.b.run, self.b.evaluate, ours, table, patches, self.theirs)
        except (InvalidInput, ValueError):
            return -1
        return sum(label is not None for label in found.labels.values())


def _repeated(search: _Search, known: set[Any]) -> tuple[Difference, Patches] | None:
    """The first place where a mistake that was found elsewhere stands again."""
    again = [d for _, d in search.candidates if d.parting.node >= 0 and _mistake(d.edits) in known] if known else []
    for difference in sorted(again, key=lambda d: d.parting.node):
        for repaired in search.repairs(difference):
            return difference, repaired
    return None


def _chosen(search: _Search) -> tuple[Difference, Patches] | None:
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


PROVED = 16
"""How many candidates are undone on trial at each step."""

WEIGHED = 8
"""How many are weighed by what follows, where none explains all."""


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


def _proves(a: Recorded, b: Recorded, now: Side, patches: Patches, done: frozenset[str], parting: Parting) -> bool:
    """Whether B with these repairs, of which it has all but one now, gives A's outputs."""
    try:
        found = outputs(Values(b.run, b.evaluate, patches, now.arrays), now.arrays.patches)
    except (InvalidInput, ValueError):
        return False
    pairs = zip(a.run.program.outputs, b.run.program.outputs, strict=True)
    return all(
        path in done
        or (parting.node < 0 and path == parting.output)
        or match.distance(a.exact[path], found[other]) <= match.LOOSE
        or _permuted(a.exact[path], found[other], _alike(a.run, b.run))
        for (path, _), (other, _) in pairs
    )  # fmt: skip


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
    return all(table.find(match.signature(x), match.LOOSE) == label for x, label in zip(main, wanted, strict=False))
