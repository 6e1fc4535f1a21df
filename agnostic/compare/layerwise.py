"""The layers of two models side by side: which stands for which, what each returned, and which weights differ."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from agnostic.compare import match, noise
from agnostic.compare.recording import Record
from agnostic.compare.results import Row
from agnostic.compare.sides import Side
from agnostic.description import LayerDescription
from agnostic.errors import UnknownName, nearest
from agnostic.program.nodes import Array, Value
from agnostic.program.runs import LayerRun, Run
from agnostic.text import counted


@dataclass(frozen=True, eq=False)
class LayerPairs:
    """The calls of both models' layers.

    Attributes:
        a, b: what was recorded, each with its values.
        calls_a, calls_b: in the order in which they ran.
        pairs: A's call for each call of B that has a partner, by their numbers.
    """

    a: tuple[Record, Side]
    b: tuple[Record, Side]
    calls_a: Sequence[LayerRun]
    calls_b: Sequence[LayerRun]
    pairs: Mapping[int, int]

    @property
    def names(self) -> dict[str, str]:
        """B's layer for each layer of A that has a partner, or whose weights one of B's has.

        A layer that computes its activation itself returns what the other side's activation returns.
        """
        found = {self.calls_a[i].name: self.calls_b[j].name for j, i in self.pairs.items()}
        holding = [y for x, y in found.items() if _leaves(self.b[1], y) and not _leaves(self.a[1], x)]
        for call in self.calls_a:
            if call.name not in found and _leaves(self.a[1], call.name):
                found.update((call.name, y) for y in holding if self._alike(call.name, y))
        return found

    @property
    def unmatched(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The calls without a partner, of A and of B."""
        used = set(self.pairs.values())
        return (
            tuple(x.label for i, x in enumerate(self.calls_a) if i not in used),
            tuple(x.label for j, x in enumerate(self.calls_b) if j not in self.pairs),
        )

    def equal(self, j: int) -> bool:
        """Whether a matched call of B returned what A's did."""
        one, two = self.calls_a[self.pairs[j]].outputs[:1], self.calls_b[j].outputs[:1]
        return len(one) == len(two) and all(
            _label(self.a[1], x) == _label(self.b[1], y) for x, y in zip(one, two, strict=True)
        )

    def fed_alike(self, j: int) -> bool:
        """Whether a call of B was given what A has as well."""
        return all(_label(self.b[1], x) is not None for x in self.calls_b[j].inputs)

    def rows(self) -> list[Row]:
        """A row for each matched call of B."""
        return [self._row(j, i) for j, i in sorted(self.pairs.items())]

    def _row(self, j: int, i: int) -> Row:
        one, two = self.calls_a[i], self.calls_b[j]
        kind = self.a[0].descriptions[one.name].kind
        if not one.outputs or not two.outputs:
            return Row(one.label, two.label, kind, (), None, None, 0.0, 0.0)
        x, y = one.outputs[0], two.outputs[0]
        ours, theirs = self.a[1].signatures[x], self.b[1].signatures[y]
        scale = ours.norm / math.sqrt(max(ours.size, 1))
        floor = noise.least(scale, max((x.dtype, y.dtype), key=noise.unit))
        apart = self.b[1].apart.get(y, 0.0) if self.equal(j) else match.apart(ours, theirs)
        error = apart * scale if scale else apart
        verdict = "same" if self.equal(j) or error <= noise.THRESHOLD * floor else "shows"
        return Row(one.label, two.label, kind, x.shape, error / floor, error, floor, scale, verdict)

    def weights(self) -> tuple[int, int]:
        """How many matched layers have weights, and in how many of them B's are other numbers."""
        matched = ((self.calls_a[i].name, self.calls_b[j].name) for j, i in self.pairs.items())
        kinds = self.a[0].descriptions, self.b[0].descriptions
        pairs = dict.fromkeys((a, b) for a, b in matched if kinds[0][a].kind == kinds[1][b].kind)
        both = [(a, b) for a, b in pairs if _weights(self.a[1], a) and _weights(self.b[1], b)]
        return len(both), sum(not self._alike(a, b) for a, b in both)

    def _alike(self, a: str, b: str) -> bool:
        """Whether two layers hold the same numbers; those of two frameworks may be in another order."""
        if set(_weights(self.a[1], a)) == set(_weights(self.b[1], b)):
            return True
        if self.a[0].model["backend"] == self.b[0].model["backend"]:
            return False
        ours, theirs = (
            [np.sort(x, None) for x in _numbers(side, name)] for (_, side), name in ((self.a, a), (self.b, b))
        )
        return all(any(x.size == y.size and np.allclose(x, y, 1e-6, 0) for x in ours) for y in theirs)


def _label(side: Side, value: Value) -> int | None:
    return side.labels.get(value)


def _leaves(side: Side, name: str) -> list[Value]:
    return [
        leaf.value for leaf in side.run.program.of_role("parameter", "buffer")
        if leaf.name.startswith((f"{name}.", f"{name}/")) and leaf.value.shape
    ]  # fmt: skip


def _weights(side: Side, name: str) -> list[int | None]:
    """Labels of a layer's weights; -1 for numbers that the other side does not have."""
    return [-1 if (label := side.labels.get(value)) is None else label for value in _leaves(side, name)]


def _numbers(side: Side, name: str) -> list[Array]:
    return [side.arrays[value] for value in _leaves(side, name)]


def layers(a: tuple[Record, Side], b: tuple[Record, Side], chosen: Mapping[str, str] | None = None) -> LayerPairs:
    """Match the calls of two models: by what they return, by their weights, their names, or their kinds and order.

    Args:
        chosen: B's layer for layers of A, which the user knows better.

    Raises:
        UnknownName: a chosen layer does not exist, or did not run.
    """
    calls = calls_of(*a), calls_of(*b)
    pairs = dict(_chosen(calls, chosen or {}))
    descriptions = a[0].descriptions, b[0].descriptions
    for rule in (_by_value, _by_weights, _by_name, _by_order):
        free = _Free(calls, descriptions, (a[1], b[1]), pairs)
        pairs |= dict(rule(free))
    return LayerPairs(a, b, *calls, dict(sorted(pairs.items())))


def calls_of(record: Record, side: Side) -> list[LayerRun]:
    """The calls of those layers that are compared as a whole."""
    calls = side.run.calls or tuple(_derived(side.run))
    return [x for x in calls if x.name in record.descriptions and all(v in side.signatures for v in x.outputs[:1])]


def _derived(run: Run) -> Iterator[LayerRun]:
    """Calls by the operators that ran inside of a layer, one after the other, where a backend does not tell."""
    numbers: dict[str, int] = {}
    nodes = run.program.nodes
    for k, node in enumerate(nodes):
        following = nodes[k + 1].module if k + 1 < len(nodes) else None
        if node.module and following != node.module and node.outputs:
            number = numbers.get(node.module, 0)
            numbers[node.module] = number + 1
            yield LayerRun(node.module, number, (), node.outputs[:1])


def _chosen(
    calls: tuple[Sequence[LayerRun], Sequence[LayerRun]], chosen: Mapping[str, str]
) -> Iterator[tuple[int, int]]:
    for names in chosen.items():
        found = []
        for name, listed, which in zip(names, calls, "AB", strict=True):
            places = [i for i, x in enumerate(listed) if name in (x.name, x.label)]
            if not places:
                known = list(dict.fromkeys(x.name for x in listed))
                raise UnknownName(
                    f"no layer {name!r} runs in {which} ({counted(len(known), 'layer')}){nearest(name, known)}"
                )
            found.append(places)
        yield from zip(found[1], found[0], strict=False)


@dataclass(frozen=True)
class _Free:
    """What has no partner yet."""

    calls: tuple[Sequence[LayerRun], Sequence[LayerRun]]
    descriptions: tuple[Mapping[str, LayerDescription], Mapping[str, LayerDescription]]
    sides: tuple[Side, Side]
    pairs: Mapping[int, int]

    def a(self) -> list[int]:
        """Calls of A."""
        used = set(self.pairs.values())
        return [i for i in range(len(self.calls[0])) if i not in used]

    def b(self) -> list[int]:
        """Calls of B."""
        return [j for j in range(len(self.calls[1])) if j not in self.pairs]

    def kind(self, side: int, index: int) -> str:
        """The kind of a call's layer."""
        return self.descriptions[side][self.calls[side][index].name].kind


def _by_value(free: _Free) -> Iterator[tuple[int, int]]:
    """Those that return the same; of several, the one of the same name, then of the same kind."""
    found: dict[int, list[int]] = {}
    for i in free.a():
        for value in free.calls[0][i].outputs[:1]:
            found.setdefault(free.sides[0].labels[value] or 0, []).append(i)
    for j in free.b():
        labels = [free.sides[1].labels.get(value) for value in free.calls[1][j].outputs[:1]]
        candidates = found.get(labels[0], []) if labels and labels[0] is not None else []
        if not candidates:
            continue
        call = free.calls[1][j]

        def rank(i: int, call: LayerRun = call, j: int = j) -> tuple[bool, bool]:
            return free.calls[0][i].label != call.label, free.kind(0, i) != free.kind(1, j)

        best = min(candidates, key=rank)
        if all(rank(best)) and free.kind(1, j) in ("dropout", "other", "flatten"):
            continue  # a layer that gives what it is given stands for none of another kind
        candidates.remove(best)
        yield j, best


def _by_weights(free: _Free) -> Iterator[tuple[int, int]]:
    """Those whose weights are the same."""
    found: dict[tuple[int | None, ...], list[int]] = {}
    for i in free.a():
        weights = _weights(free.sides[0], free.calls[0][i].name)
        if weights and -1 not in weights:
            found.setdefault(tuple(weights), []).append(i)
    for j in free.b():
        same = found.get(tuple(_weights(free.sides[1], free.calls[1][j].name)))
        if same:
            yield j, same.pop(0)


def _by_name(free: _Free) -> Iterator[tuple[int, int]]:
    names = {free.calls[0][i].label: i for i in free.a()}
    for j in free.b():
        i = names.get(free.calls[1][j].label)
        if i is not None:
            yield j, i


def _by_order(free: _Free) -> Iterator[tuple[int, int]]:
    """In the gaps between those that are matched, layers of one kind, in order."""
    waiting = free.a()
    for j in free.b():
        before = max((free.pairs[k] for k in free.pairs if k < j), default=-1)
        after = min((free.pairs[k] for k in free.pairs if k > j), default=len(free.calls[0]))
        for i in waiting:
            if before < i < after and free.kind(0, i) == free.kind(1, j):
                waiting.remove(i)
                yield j, i
                break
