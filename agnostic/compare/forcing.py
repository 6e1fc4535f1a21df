"""Teacher forcing: a live model B, each of whose layers is fed what A's received, against A's trace.

So an error does not travel: what B's layer returns is compared with what A's returned, and then A's is handed on. What
B's own code makes of it on the way to the next layer is compared with what A's layer received there: an addition, a
reshape or an activation that is no layer is judged as well.

One layer of B may stand for several of A (a convolution with its activation inside), and the other way round: where an
output does not fit the partner's, the outputs of the layers behind that have no partner are tried.
"""

from __future__ import annotations

import contextlib
import dataclasses
import weakref
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from agnostic.compare import noise
from agnostic.compare.alignment import Alignment
from agnostic.compare.calls import LayerCall
from agnostic.compare.context import (
    SOURCES,
    Inner,
    activated,
    alike,
    ends_of,
    facts,
    inner_of,
    led_in,
    reordered,
    repadded,
    sources,
    strays,
    without_border,
)
from agnostic.compare.diagnosis import Culprit
from agnostic.compare.layouts import Layout, fitted
from agnostic.compare.mistakes.strays import Stray
from agnostic.compare.noise import THRESHOLD
from agnostic.compare.recording import Live, Record, Slot, Step, layer_bound, nudge, part_of, rows_of, share_of
from agnostic.contracts.calls import CALLS
from agnostic.description import LayerDescription
from agnostic.errors import InvalidInput

Array = np.ndarray[Any, Any]

KEPT = 3
"""At how many culprits the arrays are kept for the diagnosis."""

_ACTIVATED = ("activation",)

RECURRENT = ("lstm", "gru", "rnn")


def last_steps(x: Array, bidirectional: bool) -> Array:
    """Of all steps (N, T, C) the last of each direction: the backward one ends at the first."""
    half = x.shape[-1] // 2
    return np.concatenate([x[:, -1, :half], x[:, 0, half:]], axis=-1) if bidirectional else x[:, -1]


@dataclass
class Place:
    """A segment of both models, and how far they are apart there, in A's noise floors.

    Attributes:
        a, b: the calls, by index.
        glue, isolated, propagated: see :class:`agnostic.compare.report.Row`.
        error: of the isolated output, as a root mean square.
        culprit, glue_culprit: what the diagnosis needs, for the first culprits.
        missing: A's layer, without a partner, that made the array that B's code should have made.
        extra: B's call, without a partner, before which the array was right still.
        inner: the activation that one side's layer has inside, and the other's code behind it.
    """

    a: list[int]
    b: list[int]
    glue: float | None = None
    isolated: float | None = None
    propagated: float | None = None
    error: float | None = None
    culprit: Culprit | None = None
    glue_culprit: Culprit | None = None
    missing: str | None = None
    extra: int | None = None
    inner: Inner | None = None


@dataclass
class _Open:
    """A place whose end is not found yet: B's output fits none of A's, and layers without a partner follow."""

    place: Place
    ends: list[int]
    outputs: dict[int, list[Array]]
    suspect: _Suspect


@dataclass
class _Suspect:
    """What was measured of B's layer by itself."""

    floor: float = 0.0
    again: Array | None = None
    outputs: list[Array] = field(default_factory=list)
    like: Any = None


class Forced:
    """One teacher-forced run of B; call :meth:`run`, then read :attr:`places`."""

    def __init__(self, a: Record, live: Live, b: Record, alignment: Alignment) -> None:
        self.a, self.live, self.b, self.alignment = a, live, b, alignment
        self.places: list[Place] = []
        self.output: list[Place] = []
        self._index = {(x.name, x.number): j for j, x in enumerate(b.steps)}
        self._unmatched_a = set(alignment.unmatched_a)
        self._open: _Open | None = None
        # A's arrays that were handed on, while B holds them: which array of the trace each is.
        self._handed: dict[int, tuple[weakref.ref[Any], Any, str]] = {}
        self._kept = 0
        # What B's calls without a partner received and returned, since the last one that has one.
        self._stray: dict[int, tuple[list[Array], list[Array]]] = {}
        self._tainted = False
        # The noise, in parts of their size, of B's arrays that were not replaced by A's, at the last places.
        self._carried: deque[float] = deque(maxlen=SOURCES)
        self._nudging = False
        self._glue_again: dict[int, float] = {}
        # Where a padding layer of B leads into a layer whose partner pads by itself: A's array goes in there.
        self._leads = self._led_pairs()
        self._begun: dict[int, Place] = {}

    # The run ---------------------------------------------------------------------------------------------------------
    def run(self) -> None:
        """Run B."""
        try:
            outputs = self.live.run(self._around, self.live.inputs)
        except InvalidInput as error:
            if not self.places:
                raise
            self.failure: str | None = str(error)
            self._settle()
        else:
            self.failure = None
            self._settle()
            self._outputs(outputs)
        self._glue_floors()

    def _around(self, call: LayerCall) -> Sequence[Any]:
        j = self._index.get((call.name, call.number))
        i = None if j is None else self.alignment.pairs.get(j)
        if j is None:
            return call.run()
        if i is None:
            return self._unmatched(call, j)
        self._settle()
        return self._matched(call, i, j)

    def _led_pairs(self) -> dict[int, int]:
        """B's layer by the first of the calls that lead into it."""
        found: dict[int, int] = {}
        for j, i in self.alignment.pairs.items():
            inputs = self.a.steps[i].inputs
            if len(inputs) == 1:
                before = led_in(self.b, self.alignment.unmatched_b, j, inputs[0].canonical_shape)
                found.update(dict.fromkeys(before[:1], j))
        return found

    def _begin(self, call: LayerCall, j: int) -> Sequence[Any]:
        """Feed A's input to the padding before a layer."""
        self._settle()
        i = self.alignment.pairs[j]
        place = self._begun[j] = Place([i], [j])
        fed = self._feed(call, self.a.steps[i], i, j, place)
        self._stray = {}
        return call.run(fed)

    def _unmatched(self, call: LayerCall, j: int) -> Sequence[Any]:
        if j in self._leads:
            return self._begin(call, self._leads[j])
        received = [np.array(x) for x in self._canonical(call.arrays, call.layouts)]
        outputs = call.run()
        layouts = call.output_layouts(outputs)
        returned = [np.array(x) for x in self._canonical(outputs, layouts)]
        self._stray[j] = received, returned
        opened = self._open
        if opened is None:
            return outputs
        opened.outputs[j] = returned
        for end in opened.ends:
            error, ratio = self._compare(outputs, layouts, end)
            if ratio <= THRESHOLD:
                place = opened.place
                place.b = [*opened.outputs]
                place.a, place.error, place.isolated = [k for k in opened.ends if k <= end], error, ratio
                self._open = None
                return self._hand_on(outputs, layouts, end)
        return outputs

    def _matched(self, call: LayerCall, i: int, j: int) -> Sequence[Any]:
        step, place = self.a.steps[i], self._begun.pop(j, None) or Place([i], [j])
        self.places.append(place)
        fed = self._feed(call, step, i, j, place)
        self._stray = {}
        self._carried.append(0.0)
        outputs = call.run(fed)
        layouts = call.output_layouts(outputs)
        ends = ends_of(self.a, self._unmatched_a, i)
        found: list[tuple[int, float, float]] = []
        for end in ends:
            error, ratio = self._compare(outputs, layouts, end)
            found.append((end, error, ratio))
            if ratio <= THRESHOLD:
                break
        end, error, ratio = found[-1]
        if ratio > THRESHOLD and (inner := self._inner(i, j, ends)) is not None:
            return self._activated_by_code(call, step, place, outputs, layouts, inner)
        if ratio > THRESHOLD:
            suspect = self._suspected(call, step, outputs)
            floor = max(x.floor for x in self.a.steps[i].outputs[:1]) if step.outputs else 0.0
            if suspect.floor > floor:
                found = [(e, err, min(r, err / suspect.floor)) for e, err, r in found]
            best = min(found, key=lambda x: x[2])
            if best[2] <= THRESHOLD:
                end, error, ratio = best
            elif self._tail(j):
                kept = [np.array(x) for x in self._canonical(outputs, layouts)]
                self._open = _Open(place, ends, {j: kept}, suspect)
                place.error, place.isolated = found[0][1:]
                return outputs
            else:
                end, error, ratio = self._structural(found, j)
                place.a = [k for k in ends if k <= end]
                place.error, place.isolated = error, ratio
                self._keep(place, suspect)
                # All but the last step goes on as it is, and wrong: no one's fault but this layer's.
                self._tainted = self._stepped(outputs, layouts, end) is not None
                return self._hand_on(outputs, layouts, end)
        place.a, place.error, place.isolated = [k for k in ends if k <= end], error, ratio
        return self._hand_on(outputs, layouts, end)

    def _inner(self, i: int, j: int, ends: Sequence[int]) -> Inner | None:
        """The activation that one side's layer has inside, and the other side's code must apply, if anything does."""
        return inner_of(self.a, self.b, self.alignment.pairs, i, j, ends)

    def _activated_by_code(
        self, call: LayerCall, step: Step, place: Place, outputs: Sequence[Any], layouts: Sequence[Layout], inner: Inner
    ) -> list[Any]:
        """Judge a layer with the other side's activation applied to the one that has none.

        What A's code does there, or does not, shows as glue at the next layer.
        """
        slot, handed = step.outputs[0], list(outputs)
        made, truth = fitted(self._canonical(outputs, layouts)[0], slot.canonical_shape), self.a.canonical(slot)
        if made is None:
            place.error = place.isolated = float("inf")
            return handed
        floor, given = slot.floor, made
        if inner.side == "b":
            # Noise of the layer before its activation, and the rounding after it.
            noisy = truth + np.random.default_rng(0).standard_normal(truth.shape) * slot.floor
            plain, truth = truth, inner(truth)
            floor = max(noise.difference(inner(noisy), inner(plain)), noise.least(noise.rms(truth), slot.dtype))
            shaped = fitted(truth, layouts[0].canonical_shape(tuple(outputs[0].shape)))
            assert shaped is not None
            values = np.ascontiguousarray(layouts[0].from_canonical(shaped))
            handed[0] = self.live.backend[CALLS].native(values, outputs[0])
        else:
            made = inner(made)
            # B's own array goes on, with the noise that this layer has.
            self._carried[-1] = floor / slot.rms if slot.rms else 0.0
        place.inner = inner
        place.error = noise.difference(made, truth)
        place.isolated = place.error / floor
        if place.isolated <= THRESHOLD:
            return handed
        suspect = self._suspected(call, step, outputs)
        place.isolated = place.error / max(floor, suspect.floor)
        if place.isolated > THRESHOLD:
            self._tainted = inner.side == "a"
            suspect.outputs = [given]
            self._keep(place, suspect)
            if place.culprit is not None:
                culprit = place.culprit
                which = culprit.a if inner.side == "b" else culprit.b
                applied = [*which, LayerDescription(which[-1].name, "activation", inner.config)]
                place.culprit = dataclasses.replace(
                    culprit,
                    a=applied if inner.side == "b" else culprit.a,
                    b=applied if inner.side == "a" else culprit.b,
                    truth=np.asarray(truth, np.float64),
                    output=made,
                    floor=max(floor, suspect.floor),
                    again=None if suspect.again is None or inner.side == "b" else inner(suspect.again),
                )
        return handed

    def _settle(self) -> None:
        """An open place that found no end is a culprit."""
        opened, self._open = self._open, None
        self._tainted = opened is not None
        if opened is None:
            return
        place = opened.place
        a, b = self.a.steps[place.a[0]], self.b.steps[place.b[0]]
        behind = list(opened.outputs)[1:]
        if (a.kind, b.kind) == ("separable_conv", "depthwise_conv") and behind:
            b = self.b.steps[behind[0]]
            place.b.append(behind.pop(0))
        if activated(a, self.a) and not activated(b, self.b):
            # A's layer has its activation inside, B's stands behind.
            own = len(place.b)
            for j in behind:
                place.b.append(j)
                if self.b.steps[j].kind in _ACTIVATED:
                    break
            else:
                del place.b[own:]
        found = []
        for end in opened.ends:
            outputs = opened.outputs[place.b[-1]]
            pairs = [(x, s) for x, s in zip(outputs, self.a.steps[end].outputs, strict=False)]
            errors = [self._error(x, s) for x, s in pairs] or [(float("inf"), float("inf"))]
            error, floor_ratio = max(errors, key=lambda x: x[1])
            found.append((end, error, floor_ratio))
        end, place.error, place.isolated = self._structural(found, place.b[0])
        place.a = [k for k in opened.ends if k <= end]
        opened.suspect.outputs = opened.outputs[place.b[-1]]
        self._keep(place, opened.suspect)

    def _structural(self, found: Sequence[tuple[int, float, float]], j: int) -> tuple[int, float, float]:
        """The end that the descriptions speak for, where no output fits."""
        first = self.a.steps[found[0][0]]
        if (first.kind, self.b.steps[j].kind) == ("depthwise_conv", "separable_conv") and found[1:]:
            found = found[1:]
            first = self.a.steps[found[0][0]]
        wanted = found[0]
        if activated(self.b.steps[j], self.b) and not activated(first, self.a):
            for x in found:
                if self.a.steps[x[0]].kind in _ACTIVATED:
                    return x
        if "bias" in self.b.descriptions[self.b.steps[j].name].weights and "bias" not in self._entries(first.name):
            for x in found:
                if self.a.steps[x[0]].kind in ("batch_norm", "scale"):
                    wanted = x
        return wanted

    def _entries(self, name: str) -> Mapping[str, Any]:
        return self.a.tensors(name)

    def _tail(self, j: int) -> bool:
        return j + 1 < len(self.b.steps) and j + 1 not in self.alignment.pairs

    # Arrays ----------------------------------------------------------------------------------------------------------
    def _canonical(self, arrays: Sequence[Any], layouts: Sequence[Layout]) -> list[Array]:
        return [layout.to_canonical(self.live.numpy(x)) for x, layout in zip(arrays, layouts, strict=True)]

    def _error(self, made: Array, slot: Slot, like: Any = None) -> tuple[float, float]:
        """Root mean square error of a canonical array, and the same in noise floors.

        Args:
            like: B's native array: where its type has more digits than A's, A's few are a difference, no noise.
        """
        shaped = fitted(made, slot.canonical_shape)
        if shaped is None:
            return float("inf"), float("inf")
        error = noise.difference(shaped, self.a.canonical(slot))
        return error, error / self._floor(slot, like)

    def _floor(self, slot: Slot, like: Any) -> float:
        return slot.floor if like is None else noise.finer(slot.floor, slot.dtype, self.live.backend.ops.dtype(like))

    def _compare(self, outputs: Sequence[Any], layouts: Sequence[Layout], end: int) -> tuple[float, float]:
        """Error of B's outputs against A's at one call: the worst of those that can be paired."""
        worst = (0.0, 0.0)
        stepped = self._stepped(outputs, layouts, end)
        if stepped is not None:
            error = noise.difference(stepped[1], stepped[0])
            return error, error / self._floor(self.a.steps[end].outputs[0], outputs[0])
        pairs = self._paired(outputs, layouts, self.a.steps[end].outputs)
        if not pairs:
            return float("inf"), float("inf")
        for k, slot in pairs:
            made = layouts[k].to_canonical(self.live.numpy(outputs[k]))
            worst = max(worst, self._error(made, slot, outputs[k]), key=lambda x: x[1])
        return worst

    def _paired(
        self, arrays: Sequence[Any], layouts: Sequence[Layout], slots: Sequence[Slot], share: float = 1.0
    ) -> list[tuple[int, Slot]]:
        """Which array of B stands for which of A: by position, else the first of that shape.

        Args:
            share: which part of the batch B runs on.
        """
        left, found = list(range(len(slots))), []
        for k, (x, layout) in enumerate(zip(arrays, layouts, strict=True)):
            shape = layout.canonical_shape(tuple(x.shape))
            fits = [s for s in left if alike(shape, _part_shape(slots[s], share))]
            if fits:
                chosen = k if k in fits else fits[0]
                left.remove(chosen)
                found.append((k, slots[chosen]))
        return found

    def _stepped(self, outputs: Sequence[Any], layouts: Sequence[Layout], end: int) -> tuple[Array, Array] | None:
        """What a recurrent layer made last, in each direction, of both sides: (A's, B's), where no shapes fit else.

        One side may return all steps and the other the last, or the last of both directions side by side.
        """
        step = self.a.steps[end]
        if step.kind not in RECURRENT or not step.outputs or not outputs:
            return None
        ours = self.a.canonical(step.outputs[0])
        theirs = layouts[0].to_canonical(self.live.numpy(outputs[0]))
        two = bool(self.a.descriptions[step.name].config.get("bidirectional"))
        if {ours.ndim, theirs.ndim} != {2, 3} or ours.shape[-1] != theirs.shape[-1] or len(ours) != len(theirs):
            return None
        one, other = (last_steps(x, two) if x.ndim == 3 else x for x in (ours, theirs))
        return one, other

    def _hand_on_steps(self, outputs: Sequence[Any], layouts: Sequence[Layout], last: Array, end: int) -> list[Any]:
        """A's last step in B's outputs, wherever it stands there."""
        handed = list(outputs)
        two = bool(self.a.descriptions[self.a.steps[end].name].config.get("bidirectional"))
        half = last.shape[-1] // (1 + two)
        parts = [last[:, :half], last[:, half:]] if two else [last]
        for k, (x, layout) in enumerate(zip(outputs, layouts, strict=True)):
            values = np.array(layout.to_canonical(self.live.numpy(x)))
            if k == 0 and values.ndim == 2:
                values = last.astype(values.dtype)
            elif k == 0:
                values[:, -1, :half] = parts[0]
                if two:
                    values[:, 0, half:] = parts[1]
            elif k == 1 and values.ndim == 3 and values.shape[1:] == parts[0].shape:
                values[-len(parts) :] = parts  # PyTorch's state: one row per layer and direction
            else:
                continue
            handed[k] = self._as_native(values, self.a.steps[end].outputs[0].dtype, x, layout)
        return handed

    def _native(self, slot: Slot, like: Any, layout: Layout) -> Any:
        """An array of A as B has it."""
        return self._as_native(self.a.canonical(slot), slot.dtype, like, layout)

    def _as_native(self, values: Array, dtype: str, like: Any, layout: Layout) -> Any:
        shape = layout.canonical_shape(tuple(like.shape))
        shaped = fitted(values, shape)
        assert shaped is not None
        values = np.ascontiguousarray(layout.from_canonical(shaped))
        if self._nudging:
            values = nudge(values, dtype)
        return self.live.backend[CALLS].native(values, like)

    def _feed(self, call: LayerCall, step: Step, i: int, j: int, place: Place) -> list[Any]:
        """A's inputs for B's layer; measures how far B's own are from them."""
        fed = list(call.arrays)
        tainted, self._tainted = self._tainted, False
        pairs = self._paired(call.arrays, call.layouts, step.inputs)
        if not pairs and len(call.arrays) == len(step.inputs) == 1:
            return self._feed_padded(call, step, i, j, place, tainted)
        if len(pairs) > 1:
            pairs = self._rewired(call, pairs)
        carried = max(self._carried, default=0.0)
        for k, slot in pairs:
            x, layout = call.arrays[k], call.layouts[k]
            known = self._handed.get(id(x))
            if known and known[0]() is x and known[1] == getattr(x, "_version", None) and known[2] == slot.tensor:
                place.glue = max(place.glue or 0.0, 0.0)
                continue
            made = layout.to_canonical(self.live.numpy(x))
            error, ratio = self._error(made, slot, x)
            if carried and ratio > THRESHOLD and slot.rms:
                ratio = error / max(error / ratio, carried * slot.rms)
            if self._nudging:
                self._note_again(j, k, made)
            if not tainted:
                if ratio > THRESHOLD and ratio > (place.glue or 0.0):
                    self._blame(place, slot)
                    self._keep_glue(place, i, j, k, slot, made, floor=self._floor(slot, x))
                place.glue = max(place.glue or 0.0, ratio)
            fed[k] = self._native(slot, x, layout)
        return fed

    def _feed_padded(self, call: LayerCall, step: Step, i: int, j: int, place: Place, tainted: bool) -> list[Any]:
        """Where one side's layer pads by itself, and the other was handed what is padded already."""
        if place.glue is not None:
            return list(call.arrays)  # A's array went into the padding before
        x, layout = call.arrays[0], call.layouts[0]
        shape = layout.canonical_shape(tuple(x.shape))
        before = led_in(self.a, self._unmatched_a, i, shape)
        slot = self.a.steps[before[0]].inputs[0] if before else step.inputs[0]
        values = self.a.canonical(slot)
        ours, theirs = self.a.descriptions[step.name], self.b.descriptions[call.name]
        choices = iter([values]) if before else repadded(values, shape, ours, theirs)
        made = layout.to_canonical(self.live.numpy(x))
        first = next(choices, None)
        if first is None:
            return [x]
        floor = self._floor(slot, x)
        ratio = noise.difference(made, first) / floor
        if ratio > THRESHOLD and any(noise.difference(made, known) / floor <= THRESHOLD for known in choices):
            return [x]  # the same numbers, padded at other sides: the layer's difference
        if not tainted:
            place.glue = ratio
            if place.glue > THRESHOLD:
                # The zeros around both say nothing of what is inside.
                inside = None if before or made.size < values.size else without_border(made, values.shape)
                whole = (made, first) if inside is None else (inside, values)
                self._keep_glue(place, i, j, 0, slot, *whole, floor=floor)
        return [self._as_native(first, slot.dtype, x, layout)]

    def _rewired(self, call: LayerCall, pairs: list[tuple[int, Slot]]) -> list[tuple[int, Slot]]:
        """Inputs in another order (query, value, key; the operands of an addition) by which of A's they are."""
        errors = {}
        for k, x in enumerate(call.arrays):
            made = call.layouts[k].to_canonical(self.live.numpy(x))
            for _, slot in pairs:
                errors[k, slot.tensor] = self._error(made, slot)[1]
        if all(errors[k, slot.tensor] <= THRESHOLD for k, slot in pairs):
            return pairs
        left, found = [slot for _, slot in pairs], []
        for k, _ in pairs:
            fits = [s for s in left if errors[k, s.tensor] <= THRESHOLD]
            if not fits:
                return pairs
            left.remove(fits[0])
            found.append((k, fits[0]))
        return found

    def _hand_on(self, outputs: Sequence[Any], layouts: Sequence[Layout], end: int) -> list[Any]:
        """A's outputs in place of B's."""
        stepped = self._stepped(outputs, layouts, end)
        if stepped is not None:
            return self._hand_on_steps(outputs, layouts, stepped[0], end)
        handed = list(outputs)
        for k, slot in self._paired(outputs, layouts, self.a.steps[end].outputs):
            handed[k] = self._native(slot, outputs[k], layouts[k])
            reference = weakref.ref(handed[k])
            self._handed[id(handed[k])] = (reference, getattr(handed[k], "_version", None), slot.tensor)
        for k, (x, layout, slot) in enumerate(zip(outputs, layouts, self.a.steps[end].outputs, strict=False)):
            # Of another shape than A's: what follows was made for A's.
            if handed[k] is x and len(slot.canonical_shape) == len(x.shape):
                values = np.ascontiguousarray(layout.from_canonical(self.a.canonical(slot)))
                handed[k] = self.live.backend[CALLS].native(values, x)
        return handed

    def _blame(self, place: Place, slot: Slot) -> None:
        """Whether a layer without a partner makes the difference: one that B has too much, or one that it lacks."""
        for j, (received, _) in self._stray.items():
            if any(self._error(x, slot)[1] <= THRESHOLD for x in received):
                place.extra = j
                break
        if slot.source is not None and slot.source[0] in self._unmatched_a:
            place.missing = self.a.steps[slot.source[0]].label

    # Culprits --------------------------------------------------------------------------------------------------------
    def _suspected(self, call: LayerCall, step: Step, outputs: Sequence[Any]) -> _Suspect:
        """Run B's layer twice more: is it random, and what does its own arithmetic do?"""
        first = [np.array(self.live.numpy(x)) for x in outputs]
        inputs = [self._native(slot, call.arrays[k], call.layouts[k]) for k, slot in
                  self._paired(call.arrays, call.layouts, step.inputs)]  # fmt: skip
        if len(inputs) != len(call.arrays):
            return _Suspect(outputs=self._canonical(first, call.output_layouts(outputs)), like=outputs[0])
        again = [np.array(self.live.numpy(x)) for x in call.run(inputs)]
        dtype = step.inputs[0].dtype if step.inputs else "float32"
        other = call.run(
            [self.live.backend[CALLS].native(nudge(self.live.numpy(x), dtype), x) for x in self._fresh(call, step)]
        )
        floor = noise.difference(self.live.numpy(other[0]), again[0]) if other else 0.0
        layouts = call.output_layouts(outputs)
        description = self.live.descriptions[call.name]
        differs = any(noise.difference(x, y) > layer_bound(noise.rms(y), dtype, step.inputs, description)
                      for x, y in zip(first, again, strict=True))  # fmt: skip
        return _Suspect(
            0.0 if differs else floor,
            layouts[0].to_canonical(again[0]) if again else None,
            [layout.to_canonical(x) for x, layout in zip(first, layouts, strict=True)],
            outputs[0] if outputs else None,
        )

    def _fresh(self, call: LayerCall, step: Step) -> list[Any]:
        return [
            self._native(slot, call.arrays[k], call.layouts[k])
            for k, slot in self._paired(call.arrays, call.layouts, step.inputs)
        ]

    def _keep(self, place: Place, suspect: _Suspect) -> None:
        self._kept += 1
        if self._kept > KEPT or not suspect.outputs:
            return
        first, last = self.a.steps[place.a[0]], self.a.steps[place.a[-1]]
        if not last.outputs:
            return
        flat = self._layout_of(place)
        made, slot = suspect.outputs[0], last.outputs[0]
        truth = np.asarray(self.a.canonical(slot), np.float64)
        if last.kind in RECURRENT and {made.ndim, truth.ndim} == {2, 3}:
            two = bool(self.a.descriptions[last.name].config.get("bidirectional"))
            made, truth = (last_steps(x, two) if x.ndim == 3 else x for x in (made, truth))
        shaped = fitted(made, truth.shape)
        place.culprit = Culprit(
            a=[reordered(self.a.description(self.a.steps[k].name), flat[0]) for k in place.a],
            b=[reordered(self.b.descriptions[self.b.steps[k].name], flat[1]) for k in [*self._led_in(place), *place.b]],
            place="layer",
            inputs=[self.a.canonical(x) for x in first.inputs],
            truth=truth,
            output=made if shaped is None else shaped,
            floor=max(self._floor(slot, suspect.like), suspect.floor),
            sources=sources(self.a, place.a[0]),
            again=suspect.again,
            facts=facts(self.a, self.b, place.a[0], flat[0]),
        )

    def _keep_glue(
        self,
        place: Place,
        i: int,
        j: int,
        k: int,
        slot: Slot,
        made: Array,
        truth: Array | None = None,
        *,
        floor: float,
    ) -> None:
        self._kept += 1
        if self._kept > KEPT:
            return
        flat = self._layout_of(place)
        truth = self.a.canonical(slot) if truth is None else truth
        shaped = fitted(made, truth.shape)
        first = all(x in self._unmatched_a for x in range(i))
        place.glue_culprit = Culprit(
            a=[reordered(self.a.description(self.a.steps[i].name), flat[0])],
            b=[reordered(self.b.descriptions[self.b.steps[j].name], flat[1])],
            place="glue",
            inputs=[self.a.canonical(x) for x in self.a.steps[i].inputs],
            truth=np.asarray(truth, np.float64),
            output=np.array(made if shaped is None else shaped),
            floor=floor,
            sources=sources(self.a, i),
            strays_a=strays(self.a, self._unmatched_a, i),
            strays_b=self._strays_of_b(),
            facts={**facts(self.a, self.b, i, flat[0]), "input": k, "first": first},
        )

    def _strays_of_b(self) -> list[Stray]:
        return [
            Stray(self.b.descriptions[self.b.steps[j].name], tuple(received), returned[0])
            for j, (received, returned) in self._stray.items()
            if returned
        ]

    def _led_in(self, place: Place) -> list[int]:
        inputs = self.a.steps[place.a[0]].inputs
        return led_in(self.b, self.alignment.unmatched_b, place.b[0], inputs[0].canonical_shape) if inputs else []

    def _layout_of(self, place: Place) -> tuple[Layout, Layout]:
        found = []
        for record, index in ((self.a, place.a[0]), (self.b, place.b[0])):
            inputs = record.steps[index].inputs
            found.append(inputs[0].layout if inputs else Layout())
        return found[0], found[1]

    # Ends ------------------------------------------------------------------------------------------------------------
    def _outputs(self, outputs: Sequence[Any]) -> None:
        """What the model returns, as the glue behind its last layer."""
        tainted, self._tainted = self._tainted, False
        layouts = [_output_layout(x, self.b) for x in outputs]
        pairs = self._paired(outputs, layouts, self.a.outputs)
        for k, slot in pairs:
            made = layouts[k].to_canonical(self.live.numpy(outputs[k]))
            place = Place([], [])
            if not tainted:
                error, place.glue = self._error(made, slot)
                place.error = error
                if place.glue > THRESHOLD:
                    self._blame(place, slot)
                if place.glue > THRESHOLD and self._kept < KEPT:
                    self._kept += 1
                    last = self.a.steps[-1]
                    place.glue_culprit = Culprit(
                        a=[self.a.description(last.name)],
                        b=[],
                        place="glue",
                        inputs=[self.a.canonical(slot)],
                        truth=np.asarray(self.a.canonical(slot), np.float64),
                        output=np.array(made),
                        floor=slot.floor,
                        sources=sources(self.a, len(self.a.steps)),
                        strays_a=strays(self.a, self._unmatched_a, len(self.a.steps)),
                        strays_b=self._strays_of_b(),
                        facts={**facts(self.a, self.b, len(self.a.steps), Layout()), "input": 0},
                    )
            self.output.append(place)
        if not pairs:
            self.output.append(Place([], [], glue=float("inf")))

    def _glue_floors(self) -> None:
        """Where glue differs by little, what B's own arithmetic does there: A's arrays with their last bits changed."""
        doubtful = [
            x for x in self.places if x.glue_culprit is not None and THRESHOLD < (x.glue or 0.0) < 1e4 * THRESHOLD
        ]
        if not doubtful:
            return
        second = Forced(self.a, self.live, self.b, self.alignment)
        second._nudging, second._kept = True, KEPT
        second._glue_again = {}
        second._watched = {x.b[0]: x.glue_culprit for x in doubtful if x.glue_culprit}
        with contextlib.suppress(InvalidInput):  # said already
            self.live.run(second._around, self.live.inputs)
        for x in doubtful:
            culprit, floor = x.glue_culprit, second._glue_again.get(x.b[0], 0.0)
            if culprit is not None and floor > culprit.floor:
                x.glue = noise.difference(culprit.output, np.asarray(culprit.truth, np.float32)) / floor
                if x.glue <= THRESHOLD:
                    x.glue_culprit = None

    _watched: Mapping[int, Culprit] = {}

    def _note_again(self, j: int, k: int, made: Array) -> None:
        culprit = self._watched.get(j)
        if culprit is not None and culprit.facts.get("input") == k:
            shaped = fitted(made, culprit.output.shape)
            if shaped is not None:
                self._glue_again[j] = noise.difference(shaped, culprit.output)

    # Propagated ------------------------------------------------------------------------------------------------------
    def propagate(self, wanted: set[int]) -> Iterator[tuple[Place, Array, Array]]:
        """Run B freely, and fill in the propagated errors.

        What is propagated decides nothing once each place was judged alone, on all samples: part of the batch tells.

        Args:
            wanted: the places, by index, whose canonical outputs of A and B are given back.
        """
        ends = {x.b[-1]: (n, x) for n, x in enumerate(self.places)}
        kept: list[tuple[Place, Array, Array]] = []
        share = max(share_of(self.live, x.steps) for x in (self.a, self.b))
        share = 1.0 if self.a.model["training"] else share

        def measured(made: Array, slot: Slot, inner: Inner | None = None) -> tuple[float, Array, Array] | None:
            theirs = self.a.canonical(slot, rows_of(slot, share))
            shaped = fitted(made, theirs.shape)
            if shaped is None:
                return None
            if inner is not None:
                theirs, shaped = (inner(theirs), shaped) if inner.side == "b" else (theirs, inner(shaped))
            error, part = noise.difference(shaped, theirs), noise.rms(theirs)
            error *= slot.rms / part if part > 0 and share < 1.0 else 1.0
            return error / max(slot.propagated or 0.0, slot.floor), theirs, shaped

        def around(call: LayerCall) -> Sequence[Any]:
            outputs = call.run()
            found = ends.get(self._index.get((call.name, call.number), -1))
            if found is not None:
                number, place = found
                layouts = call.output_layouts(outputs)
                slots = self.a.steps[place.a[-1]].outputs
                for k, slot in self._paired(outputs, layouts, slots, share)[:1]:
                    both = measured(layouts[k].to_canonical(self.live.numpy(outputs[k])), slot, place.inner)
                    if both is not None:
                        place.propagated, theirs, made = both
                        if number in wanted:
                            kept.append((place, np.array(theirs[:1]), np.array(made[:1])))
            return outputs

        try:
            outputs = self.live.run(around, part_of(self.live, share))
        except InvalidInput:  # said already
            outputs = ()
        layouts = [_output_layout(x, self.b) for x in outputs]
        for place, (k, slot) in zip(self.output, self._paired(outputs, layouts, self.a.outputs, share), strict=False):
            both = measured(layouts[k].to_canonical(self.live.numpy(outputs[k])), slot)
            place.propagated = float("inf") if both is None else both[0]
        yield from kept


def _part_shape(slot: Slot, share: float) -> tuple[int, ...]:
    rows, shape = rows_of(slot, share), slot.canonical_shape
    return shape if rows is None else (rows, *shape[1:])


def _output_layout(x: Any, b: Record) -> Layout:
    for step in reversed(b.steps):
        for slot in step.outputs:
            if tuple(slot.shape) == tuple(x.shape):
                return slot.layout
    return Layout()


__all__ = ["KEPT", "Forced", "Place"]
