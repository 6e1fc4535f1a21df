"""Two traces against each other: no model runs.

A layer is isolated by its description: what A's layer would have made of B's inputs is computed in NumPy, in float64
(:mod:`agnostic.reference.layers`), and compared with what B's layer did make of them. A description is trusted where it
reproduces A's own outputs. A layer that no description explains is judged by what is propagated, as long as nothing
before it differs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from agnostic.compare import learned as learn
from agnostic.compare import noise
from agnostic.compare.alignment import Alignment, align
from agnostic.compare.context import (
    Inner,
    activated,
    alike,
    ends_of,
    facts,
    inner_of,
    led_in,
    reordered,
    sources,
    strays,
)
from agnostic.compare.diagnosis import Culprit
from agnostic.compare.forcing import KEPT, Place
from agnostic.compare.layouts import Layout, fitted
from agnostic.compare.noise import THRESHOLD
from agnostic.compare.recording import Record, Slot, Step
from agnostic.compare.report import Comparison, Pictures
from agnostic.description import LayerDescription
from agnostic.errors import InvalidInput
from agnostic.reference.layers import chain, obstacle
from agnostic.text import counted

Array = np.ndarray[Any, Any]

SAMPLES = 2
"""How many samples the reference computes."""

_MOVED = ("flatten", "reshape", "permute", "block", "other")
"""Kinds that only move numbers, whose canonical order the reference does not know; and those that nobody described."""


class Offline:
    """The comparison of two records, place by place; like :class:`agnostic.compare.forcing.Forced` in what it gives."""

    def __init__(self, a: Record, b: Record, alignment: Alignment) -> None:
        self.a, self.b, self.alignment = a, b, alignment
        self.places: list[Place] = []
        self.output: list[Place] = []
        self.judged = 0
        self._parted = False
        self._kept = 0
        # Calls of B that have an activation inside where A has none, or the other way round.
        self._coded: set[int] = set()
        self._unmatched_a, self._unmatched_b = set(alignment.unmatched_a), set(alignment.unmatched_b)

    def run(self) -> None:
        """Walk through B."""
        for j, i in self.alignment.pairs.items():
            place = self._place(i, j)
            self.places.append(place)
            self._parted = self._parted or any(x is not None and x > THRESHOLD for x in (place.glue, place.isolated))
        for ours, theirs in zip(self.a.outputs, self.b.outputs, strict=False):
            place = Place([], [])
            place.propagated, place.error = self._apart(ours, theirs)
            if not self._parted or self._sourced(ours, theirs):
                place.glue = 0.0 if self._sourced(ours, theirs) else place.propagated
            if place.glue is not None and place.glue > THRESHOLD and self._kept < KEPT:
                place.glue_culprit = self._glue_culprit(len(self.a.steps), len(self.b.steps), ours, theirs, 0)
            self.output.append(place)
        if not self.output:
            self.output.append(Place([], [], glue=float("inf")))

    @property
    def parted(self) -> bool:
        """Whether a place differs, or what the models return."""
        return self._parted or any(x.glue is not None and x.glue > THRESHOLD for x in self.output)

    def _place(self, i: int, j: int) -> Place:
        a, b = self.a.steps[i], self.b.steps[j]
        place = Place(*self._segments(i, j))
        end, last = self.a.steps[place.a[-1]], self.b.steps[place.b[-1]]
        for k, (ours, theirs) in enumerate(self._inputs(a, b)):
            if self._sourced(ours, theirs):
                place.glue = max(place.glue or 0.0, 0.0)
            elif not self._parted:
                ratio, _ = self._apart(ours, theirs)
                if ratio > THRESHOLD and ratio > (place.glue or 0.0):
                    place.glue_culprit = self._glue_culprit(i, j, ours, theirs, k)
                place.glue = max(place.glue or 0.0, ratio)
        parted = self._parted or (place.glue or 0.0) > THRESHOLD
        pairs = [(x, y) for x, y in zip(end.outputs, last.outputs, strict=False) if alike(*_shapes(x, y))]
        if not pairs:
            pairs = [(x, y) for y in last.outputs for x in end.outputs if alike(*_shapes(x, y))][:1]
        if not pairs:
            place.isolated = place.error = float("inf")
            return place
        apart, inner = [self._apart(x, y) for x, y in pairs], None
        if max(apart)[0] > THRESHOLD:
            ends = ends_of(self.a, self._unmatched_a, i)
            inner = inner_of(self.a, self.b, self.alignment.pairs, i, j, ends)
        if inner is not None:
            # What code does there, or does not, shows as glue at the next layer.
            self._coded.add(j)
            place.a, place.b = place.a[:1], place.b[:1]
            pairs = [(a.outputs[0], b.outputs[0])]
            apart = [self._apart(*pairs[0], inner)]
        place.propagated, _ = max(apart)
        judged = self._isolated(place, pairs[0], inner)
        if judged is None and not parted:
            place.isolated, place.error = max(apart)
            if place.isolated > THRESHOLD:
                self._keep(place, pairs[0], None, inner)
        return place

    def _inputs(self, a: Step, b: Step) -> list[tuple[Slot, Slot]]:
        return [(x, y) for x, y in zip(a.inputs, b.inputs, strict=False) if alike(*_shapes(x, y))]

    def _segments(self, i: int, j: int) -> tuple[list[int], list[int]]:
        """The calls of both sides that stand for each other: with what follows in line, if that is nearer."""
        ours, theirs = ends_of(self.a, self._unmatched_a, i), ends_of(self.b, self._unmatched_b, j)
        if len(ours) == len(theirs) == 1:
            return ours, theirs
        if activated(self.a.steps[i], self.a) and not activated(self.b.steps[j], self.b):
            # A's layer has its activation inside, B's stands behind.
            for n, k in enumerate(theirs):
                if self.b.steps[k].kind == "activation":
                    return ours[:1], theirs[: n + 1]
        # One side alone goes on: what both have behind would be matched.
        tried = [(n + 1, 1) for n in range(len(ours))] + [(1, n + 1) for n in range(1, len(theirs))]
        ratios = []
        for m, n in tried:
            pair = self.a.steps[ours[m - 1]].outputs[:1], self.b.steps[theirs[n - 1]].outputs[:1]
            fits = pair[0] and pair[1] and alike(*_shapes(pair[0][0], pair[1][0]))
            ratios.append(self._apart(pair[0][0], pair[1][0])[0] if fits else float("inf"))
            if ratios[-1] <= THRESHOLD:
                break
        m, n = tried[int(np.argmin(ratios))]
        return ours[:m], theirs[:n]

    def _sourced(self, ours: Slot, theirs: Slot) -> bool:
        """Whether both are the very outputs of matched calls: no code made anything of them."""
        if ours.source is None or theirs.source is None:
            return False
        (i, m), (j, n) = ours.source, theirs.source
        place = next((x for x in self.places if j in x.b), None)
        return m == n and place is not None and (place.a[-1], place.b[-1]) == (i, j) and j not in self._coded

    def _apart(self, ours: Slot, theirs: Slot, inner: Inner | None = None) -> tuple[float, float]:
        """How far two arrays are apart, in propagated noise floors, and as a root mean square.

        Args:
            inner: an activation that the array of one side has been through.
        """
        known, made = self.a.canonical(ours), fitted(self.b.canonical(theirs), ours.canonical_shape)
        if made is None:
            return float("inf"), float("inf")
        floors = [max(slot.floor, self._propagated(slot)) for slot in (ours, theirs)]
        if inner is not None and inner.side == "b":
            known, floors[0] = _through(inner, known, floors[0], ours.dtype)
        elif inner is not None:
            made, floors[1] = _through(inner, made, floors[1], theirs.dtype)
        error = noise.difference(made, known)
        return error / max(floors), error

    def _propagated(self, slot: Slot) -> float:
        """The propagated floor; of an array that code made, the largest of what ran before, relative to its scale."""
        if slot.propagated is not None:
            return slot.propagated
        record = self.a if any(slot is s for x in (*self.a.steps,) for s in x.inputs) else self.b
        before, found = 0.0, 0.0
        for x in record.steps:
            if any(slot is s for s in x.inputs):
                found = before
                break
            for s in x.outputs:
                if s.rms > 0 and s.propagated is not None:
                    before = max(before, s.propagated / s.rms)
        return found * slot.rms

    def _isolated(self, place: Place, pair: tuple[Slot, Slot], inner: Inner | None) -> float | None:
        """B's layer by A's description on B's inputs; None where no description tells."""
        first, b = self.a.steps[place.a[0]], self.b.steps[place.b[0]]
        before = self._before(place)
        first, b = (
            (self.a.steps[before[0][0]] if before[0] else first),
            (self.b.steps[before[1][0]] if before[1] else b),
        )
        layers = [self.a.description(self.a.steps[i].name) for i in (*before[0], *place.a)]
        if any(x.kind in _MOVED or x.config.get("overridden") or obstacle(x) for x in layers):
            return None
        if len(first.inputs) != len(b.inputs) or not b.inputs:
            return None
        layers[0] = reordered(layers[0], first.inputs[0].layout)
        ours, theirs = pair
        rows = _rows(self.a, (*first.inputs, ours)), _rows(self.b, (*b.inputs, theirs))
        try:
            known = chain(layers, [self.a.canonical(x, rows[0]) for x in first.inputs])
            expected = chain(layers, [self.b.canonical(x, rows[1]) for x in b.inputs])
        except (InvalidInput, ValueError, IndexError):
            # The description does not fit what ran: then it is not to be trusted.
            return None
        recorded = self.a.canonical(ours, rows[0])
        check = fitted(known, recorded.shape)
        if check is None or noise.difference(check, recorded) > THRESHOLD * max(
            ours.floor, noise.least(ours.rms, ours.dtype)
        ):
            return None
        self.judged += 1
        made = self.b.canonical(theirs, rows[1])
        shaped = fitted(expected, made.shape)
        if shaped is None:
            place.isolated = place.error = float("inf")
            return place.isolated
        # The floor grows with the numbers: B's may be others than A's by now.
        floor = max(ours.floor, theirs.floor, noise.least(theirs.rms, theirs.dtype))
        if inner is not None and inner.side == "b":
            floor = max(_through(inner, shaped, ours.floor, ours.dtype)[1], theirs.floor)
            shaped = inner(shaped)
        elif inner is not None:
            made, passed = _through(inner, made, theirs.floor, theirs.dtype)
            floor = max(ours.floor, passed)
        place.error = noise.difference(shaped, made)
        place.isolated = place.error / floor
        if place.isolated > THRESHOLD:
            self._keep(place, pair, shaped, inner)
        return place.isolated

    def _before(self, place: Place) -> tuple[list[int], list[int]]:
        """Calls of A and of B without a partner that belong to a place, since only there the inputs fit."""
        a, b = self.a.steps[place.a[0]], self.b.steps[place.b[0]]
        if not a.inputs or not b.inputs:
            return [], []
        unmatched = self.alignment.unmatched_a, self.alignment.unmatched_b
        led = led_in(self.b, unmatched[1], place.b[0], a.inputs[0].canonical_shape)
        return ([] if led else led_in(self.a, unmatched[0], place.a[0], b.inputs[0].canonical_shape)), led

    def _keep(self, place: Place, pair: tuple[Slot, Slot], truth: Array | None, inner: Inner | None) -> None:
        self._kept += 1
        if self._kept > KEPT:
            return
        ours, theirs = pair
        before = self._before(place)
        chosen = [*before[0], *place.a], [*before[1], *place.b]
        a, b = self.a.steps[chosen[0][0]], self.b.steps[chosen[1][0]]
        by_description = truth is not None
        rows = _rows(self.b, (*b.inputs, theirs)) if by_description else None
        record, step = (self.b, b) if by_description else (self.a, a)
        place.culprit = Culprit(
            a=[reordered(self.a.description(self.a.steps[k].name), _flat(a)) for k in chosen[0]],
            b=[reordered(self.b.description(self.b.steps[k].name), _flat(b)) for k in chosen[1]],
            place="layer",
            inputs=[record.canonical(x, rows) for x in step.inputs],
            truth=np.asarray(self.a.canonical(ours), np.float64) if truth is None else truth,
            output=self.b.canonical(theirs, rows),
            floor=max(ours.floor, theirs.floor),
            sources=sources(self.a, place.a[0]),
            facts=facts(self.a, self.b, place.a[0], _flat(a)),
        )
        if inner is None:
            return
        # The other side's code applies the activation: so does a layer here.
        found = place.culprit
        applied = LayerDescription(a.name if inner.side == "b" else b.name, "activation", inner.config)
        if inner.side == "a":
            place.culprit = dataclasses.replace(found, b=[*found.b, applied], output=inner(found.output))
        else:
            exact = found.truth if by_description else inner(found.truth)
            place.culprit = dataclasses.replace(found, a=[*found.a, applied], truth=exact)

    def _glue_culprit(self, i: int, j: int, ours: Slot, theirs: Slot, k: int) -> Culprit | None:
        self._kept += 1
        if self._kept > KEPT:
            return None
        made = self.b.canonical(theirs)
        shaped = fitted(made, ours.canonical_shape)
        a = self.a.steps[min(i, len(self.a.steps) - 1)]
        return Culprit(
            a=[reordered(self.a.description(a.name), _flat(a))],
            b=[] if j == len(self.b.steps) else [self.b.description(self.b.steps[j].name)],
            place="glue",
            inputs=[self.a.canonical(x) for x in (a.inputs if i < len(self.a.steps) else [ours])],
            truth=np.asarray(self.a.canonical(ours), np.float64),
            output=made if shaped is None else shaped,
            floor=max(ours.floor, self._propagated(ours)),
            sources=sources(self.a, i),
            strays_a=strays(self.a, self.alignment.unmatched_a, i),
            strays_b=strays(self.b, self.alignment.unmatched_b, j),
            facts={**facts(self.a, self.b, i, _flat(a)), "input": k},
        )


def _shapes(x: Slot, y: Slot) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return x.canonical_shape, y.canonical_shape


def _through(inner: Inner, x: Array, floor: float, dtype: str) -> tuple[Array, float]:
    """An array behind an activation, and its noise floor there."""
    made = inner(x)
    noisy = inner(x + np.random.default_rng(0).standard_normal(x.shape) * floor)
    return made, max(noise.difference(noisy, inner(x.astype(np.float64))), noise.least(noise.rms(made), dtype))


def _flat(step: Step) -> Layout:
    return step.inputs[0].layout if step.inputs else Layout()


def _rows(record: Record, slots: tuple[Slot, ...]) -> int | None:
    """How many rows are the first samples; None where the batch does not come first."""
    batch = record.inputs.batch
    if not batch or batch <= SAMPLES or record.model.get("training"):
        return None
    if any(not s.shape or s.shape[0] != batch or (s.axes or "N")[0] != "N" for s in slots):
        return None
    return SAMPLES


def compare_records(a: Record, b: Record, chosen: Mapping[str, str] | None = None) -> Comparison:
    """Compare two traces.

    Raises:
        InvalidInput: they were recorded for other inputs.
    """
    from agnostic.compare import verbs

    _check_inputs(a, b)
    alignment = align(a, b, chosen)
    found = Offline(a, b, alignment)
    found.run()
    notes = [*a.notes, *b.notes]
    if found.judged < len(found.places):
        notes.append(
            f"{len(found.places) - found.judged} of {counted(len(found.places), 'place')} could not be judged "
            "alone from the "
            "traces"
        )
    names = {a.steps[x.a[0]].name: b.steps[x.b[0]].name for x in found.places}
    learned = learn.compare(a, b, names, parted=found.parted)
    return verbs.comparison(a, b, alignment, found, notes, _pictures(found), isolated=found.judged > 0, learned=learned)


def _check_inputs(a: Record, b: Record) -> None:
    same = a.inputs.form == b.inputs.form and list(a.inputs.arrays) == list(b.inputs.arrays)
    same = same and all(np.array_equal(x, b.inputs.arrays[k]) for k, x in a.inputs.arrays.items())
    if same:
        return
    shapes = [", ".join(str(x.shape) for x in r.inputs.arrays.values()) for r in (a, b)]
    if len(a.model_inputs) == len(b.model_inputs):
        # Each side may have been given its own layout of the same numbers.
        pairs = zip(a.model_inputs, b.model_inputs, strict=True)
        if all(
            (made := fitted(b.canonical(y), x.canonical_shape)) is not None and np.allclose(made, a.canonical(x))
            for x, y in pairs
        ):
            return
    what = f"inputs of shape {shapes[0]} and {shapes[1]}" if shapes[0] != shapes[1] else "other numbers of equal shape"
    raise InvalidInput(f"the traces were recorded for different inputs ({what}): record both for the same ones")


def _pictures(found: Offline) -> list[Pictures]:
    from agnostic.compare import verbs

    wanted, culprits = verbs.pictured(found)
    pictures = []
    for n in sorted(wanted):
        place = found.places[n]
        ours, theirs = found.a.steps[place.a[-1]].outputs[0], found.b.steps[place.b[-1]].outputs[0]
        made = fitted(found.b.canonical(theirs), ours.canonical_shape)
        if made is not None:
            label = found.b.steps[place.b[-1]].label
            picture = verbs.picture(label, found.a.canonical(ours)[:1], made[:1], isolated=False)
            pictures += [picture] if picture else []
    del culprits
    return pictures
