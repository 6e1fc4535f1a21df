"""Models whose operators cannot be recorded: compared by what the layers return, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from agnostic.compare import match, noise
from agnostic.compare.layerwise import calls_of
from agnostic.compare.recording import Record, Returned
from agnostic.compare.results import Divergence, Finding, Row
from agnostic.program.nodes import Array
from agnostic.program.runs import Run

NEAR = 1e-4
"""How far the same layer's outputs of two programs in float32 may be apart, relative to them: rounding grows with the
depth, and what it grows to is not measured here."""

AHEAD = 12
"""How many layers of A are looked through for the partner of one of B."""


@dataclass(frozen=True)
class LayerList:
    """Two models as lists of what their layers returned.

    Attributes:
        rows: of the layers that have a partner, and of the outputs.
        divergences: the first place that differs, if the outputs do.
        unmatched: the labels of those without a partner, of A and of B.
        names: B's layer for A's.
    """

    rows: tuple[Row, ...]
    output: tuple[Row, ...]
    divergences: tuple[Divergence, ...]
    unmatched: tuple[tuple[str, ...], tuple[str, ...]]
    names: dict[str, str]


def compare(a: Record, b: Record) -> LayerList:
    """Compare what the layers of two models returned, in order."""
    ours, theirs = returned(a), returned(b)
    pairs = dict(_pairs(ours, theirs))
    rows = [_row(ours[i], theirs[j], apart, a.descriptions[ours[i].name].kind) for j, (i, apart) in pairs.items()]
    output = [_row(x, y, _apart(x.read(), y.read()), "output") for x, y in zip(_outputs(a), _outputs(b), strict=False)]
    short = len(_outputs(a)) != len(_outputs(b))
    found: list[Divergence] = []
    if short or any(row.verdict != "same" for row in output):
        found = [_first(ours, theirs, pairs, max((row.distance or 0.0 for row in output), default=float("inf")))]
    return LayerList(
        tuple(rows),
        tuple(output),
        tuple(found),
        (
            tuple(x.label for i, x in enumerate(ours) if i not in {i for i, _ in pairs.values()}),
            tuple(x.label for j, x in enumerate(theirs) if j not in pairs),
        ),
        {ours[i].name: theirs[j].name for j, (i, _) in pairs.items()},
    )


def returned(record: Record) -> list[Returned]:
    """What the layers of a model returned, from its program where there is one."""
    if record.program is None:
        return record.returned
    side, _ = record.program.first
    return [
        Returned(x.name, x.number, lambda v=x.outputs[0]: side.arrays[v], x.outputs[0].dtype)  # type: ignore[misc]
        for x in calls_of(record, side) if x.outputs
    ]  # fmt: skip


def _outputs(record: Record) -> list[Returned]:
    if record.program is None:
        return record.outputs
    run: Run = record.program.run

    def reader(path: str) -> Callable[[], Array]:
        return lambda: run.outputs[path]

    return [Returned("", k, reader(path), value.dtype) for k, (path, value) in enumerate(run.program.outputs)]


def _pairs(ours: Sequence[Returned], theirs: Sequence[Returned]) -> Iterator[tuple[int, tuple[int, float]]]:
    """Which call of A each of B stands for: the next one that returned the same; else the next one of its name."""
    start = 0
    for j, y in enumerate(theirs):
        one, best = y.read(), None
        for i in range(start, min(start + AHEAD, len(ours))):
            apart = _apart(ours[i].read(), one)
            if apart <= NEAR or ours[i].label == y.label:
                best = i, apart
                break
        if best is not None:
            start = best[0] + 1
            yield j, best


def _apart(x: Array, y: Array) -> float:
    """How far two arrays are apart, with the axes in the order in which they are nearest."""
    if x.size != y.size:
        return float("inf")
    ways = [y.reshape(x.shape)] if x.shape == y.shape or x.ndim != y.ndim else []
    ways += [y.transpose(order) for order in match.layouts(y.shape, x.shape)]
    return min((match.distance(x, way) for way in ways), default=match.distance(x, y))


def _row(x: Returned, y: Returned, apart: float, kind: str) -> Row:
    one = x.read()
    scale, dtype = noise.rms(one), max((x.dtype, y.dtype), key=noise.unit)
    floor = noise.least(scale, dtype)
    within = max(NEAR, 64 * noise.unit(dtype))
    return Row(x.label or "output", y.label or "output", kind, one.shape, apart * scale / floor, apart * scale, floor,
               scale, "same" if apart <= within or (not scale and not np.any(y.read())) else "shows")  # fmt: skip


def _first(
    ours: Sequence[Returned], theirs: Sequence[Returned], pairs: dict[int, tuple[int, float]], error: float
) -> Divergence:
    """The first call of B that returned something else, or has no partner, after the last one that is the same."""
    same = [j for j, (_, apart) in pairs.items() if apart <= NEAR]
    first = next((j for j in range(len(theirs)) if j not in same and not any(k > j for k in same)), len(theirs))
    after = theirs[first - 1].label if first else "input"
    finding = Finding("unexplained", "What is returned here is the first that differs.", "", error, error)
    if first == len(theirs):
        return Divergence("output", after, "code", after, error, (finding,))
    partner = ours[pairs[first][0]].label if first in pairs else ""
    return Divergence(partner, theirs[first].label, "layer", "", error, (finding,))
