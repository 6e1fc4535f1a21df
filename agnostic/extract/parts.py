"""A part of a data set, computed: rows for each sample, and states of what is merged over samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

import numpy as np
import numpy.typing as npt

from agnostic.contracts.calls import CALLS
from agnostic.contracts.ops import Ops
from agnostic.contracts.taps import TAPS
from agnostic.errors import InvalidInput
from agnostic.extract.inputs import Preparation
from agnostic.extract.reading import ReadBatch
from agnostic.registry import Backend, Model, model_backend
from agnostic.taps import reductions
from agnostic.taps.refusals import refusals
from agnostic.taps.stores import OF_SAMPLES, States, StoredTap, StoreHeader

Array = npt.NDArray[Any]
Rows = dict[tuple[str, str], Array]
"""Arrays with a row for each sample, by layer and name."""
Forward = Callable[[Any], Mapping[str, Sequence[Any]]]
"""From a model's inputs to what each call of each layer returned."""


@dataclass(frozen=True)
class ComputedPart:
    """The samples from ``start`` on, for the store.

    Attributes:
        start: position of the first sample.
        names, labels, problems: of the samples; a problem is empty where a sample could be read.
        rows: for each sample.
        states: of the reductions over samples.
    """

    start: int
    names: list[str]
    labels: list[int]
    problems: list[str]
    rows: Rows
    states: States


class PartWorker:
    """Runs a model on batches, and reduces what its layers return."""

    def __init__(
        self,
        model: Model,
        preparation: Preparation,
        header: StoreHeader,
        forward: Forward | None = None,
        known: Callable[[ReadBatch], Mapping[str, Sequence[Any]] | None] = lambda batch: None,
    ) -> None:
        """Prepare.

        Args:
            model: a native model.
            preparation, header: of its inputs and of the store.
            forward: of :func:`forward_of` for the layers of the store; None: it is made here.
            known: what is known already of the outputs for a batch.
        """
        self._backend: Backend = model_backend(model)
        self._model, self._preparation, self._header = model, preparation, header
        self._wanted = {key: arrays_of(header, tap) for key, tap in header.layers.items()}
        self._over = {
            key: [name for name in header.reduce if name in reductions.OVER_SAMPLES and tap.channels is not None]
            for key, tap in header.layers.items()
        }
        names = list(dict.fromkeys(tap.name for tap in header.layers.values()))
        self._forward = forward_of(self._backend, model, names, header.compute) if forward is None else forward
        self._known = known

    def part(self, batches: Iterable[ReadBatch], done: Callable[[int], None] = lambda count: None) -> ComputedPart:
        """Compute a part.

        Args:
            batches: its batches, in order.
            done: called with the number of samples of each batch.

        Raises:
            InvalidInput: the model does not take a batch, or a layer returns another shape than before.
        """
        found: list[ReadBatch] = []
        rows: dict[tuple[str, str], list[Array]] = {}
        states = start_states(self._header)
        for batch in batches:
            own = self._rows_and_states(batch, states)
            for key, x in own.items():
                rows.setdefault(key, []).append(x)
            found.append(batch)
            done(len(batch.names))
        return ComputedPart(
            found[0].start,
            [x for batch in found for x in batch.names],
            [x for batch in found for x in batch.labels],
            [x for batch in found for x in batch.problems],
            {key: x[0] if len(x) == 1 else np.concatenate(x) for key, x in rows.items()},
            states,
        )

    def _rows_and_states(self, batch: ReadBatch, states: States) -> Rows:
        """The rows of a batch; the states are updated."""
        outputs = self._known(batch) or self._computed(batch)
        readable = np.array([not x for x in batch.problems])
        rows: Rows = {}
        for key, tap in self._header.layers.items():
            calls = outputs[tap.name]
            if len(calls) <= tap.call:
                raise InvalidInput(f"layer {tap.name!r} did not run for samples from {batch.start} on, and ran before")
            x = calls[tap.call]
            _check_shape(tap, x, batch)
            for name, found in self._reduced(key, tap, x, batch.start, readable, states).items():
                rows[key, name] = _without(found, readable)
        return rows

    def _computed(self, batch: ReadBatch) -> Mapping[str, Sequence[Any]]:
        inputs = self._preparation.native(self._backend, self._model, batch.inputs)
        with refusals(self._backend, self._model, inputs):
            return self._forward(inputs)

    def _reduced(
        self, key: str, tap: StoredTap, x: Any, start: int, readable: npt.NDArray[np.bool_], states: States
    ) -> dict[str, Array]:
        """Of one layer for one batch: the rows, as they are stored."""
        rows: dict[str, Array] = {}
        ops, numpy = self._backend.ops, self._backend[CALLS].numpy
        wanted, over, axes, dtype = self._wanted[key], self._over[key], tap.axes or "", self._header.dtype
        if "mean" in wanted:
            rows["mean"] = stored_as(numpy(reductions.mean(ops, x, axes)), dtype, tap.name)
        best = states.get((key, "top"))
        if "max" in wanted or best is not None:
            highest = np.asarray(numpy(reductions.maximum(ops, x, axes)), np.float32)
            if "max" in wanted:
                rows["max"] = stored_as(highest, dtype, tap.name)
            if "max_place" in wanted:
                rows["max_place"] = reductions.places(ops, x, axes)
            if best is not None:
                known = np.where(readable[:, None], highest, np.float32(np.nan))
                states[key, "top"] = _with_highest(ops, best, x, tap, known, start, rows.get("max_place"))
        if not over and "values" not in wanted:
            return rows
        whole = numpy(x)
        if "values" in wanted:
            first = axes.index("N") if axes else 0
            rows["values"] = stored_as(np.moveaxis(whole, first, 0), dtype, tap.name)
        if over:
            channels = np.moveaxis(whole, (axes.index("N"), axes.index("C")), (0, -1))
            channels = channels if readable.all() else channels[readable]
            flat = channels.reshape(-1, channels.shape[-1]).astype(np.float32, copy=False)
            for name in over:
                states[key, name] = reductions.OVER_SAMPLES[name].update(states[key, name], flat)
        return rows


def _with_highest(
    ops: Ops, state: reductions.State, x: Any, tap: StoredTap, highest: Array, start: int, known: Array | None
) -> reductions.State:
    """The state of the highest maxima with those of a batch, whose places may be known."""
    chosen = reductions.top_candidates(state, highest)
    if not len(chosen[0]):
        return state
    if not tap.positions:
        places = np.zeros((len(chosen[0]), 0), np.int32)
    else:
        places = reductions.places(ops, x, tap.axes or "", chosen) if known is None else known[chosen]
    return reductions.top_update(state, highest, np.arange(start, start + len(highest)), chosen, places)


def forward_of(backend: Backend, model: Model, names: Sequence[str], compute: str | None = None) -> Forward:
    """A function of a model's inputs that returns what each call of each named layer returned.

    Args:
        compute: what layers compute in; None: their own type.

    Raises:
        InvalidInput: the backend computes in the layers' own type only.
    """
    make = backend[TAPS].loop
    if compute is None:
        loop = make(model, names)
    else:
        # A third party's loop may know one type only.
        loop = make(model, names, dtype=compute) if "dtype" in signature(make).parameters else None
        if loop is None:
            raise InvalidInput(
                f"the backend {backend.name!r} runs a model in its own type only: leave out compute={compute!r}"
            )
    if loop is not None:
        return loop

    def run(inputs: Any) -> Mapping[str, Sequence[Any]]:
        record = backend[TAPS].capture(model, inputs, names)
        return {name: record.calls(name) for name in names}

    return run


def _check_shape(tap: StoredTap, x: Any, batch: ReadBatch) -> None:
    shape = tuple(map(int, getattr(x, "shape", ())))
    first = tap.axes.index("N") if tap.axes else 0
    expected = (*tap.shape[:first], len(batch.names), *tap.shape[first:])
    if shape != expected:
        raise InvalidInput(
            f"layer {tap.name!r} returned {shape or type(x).__name__} for samples {batch.start} to "
            f"{batch.start + len(batch.names) - 1}, and {expected} was expected after the first batch: a layer in a "
            "store has one shape, so leave it out"
        )


def _without(rows: Array, readable: npt.NDArray[np.bool_]) -> Array:
    """Rows of samples that could not be read as NaN, or -1 for integers."""
    if readable.all():
        return rows
    found = np.array(rows)
    found[~readable] = np.nan if found.dtype.kind == "f" else 0 if found.dtype.kind in "ub" else -1
    return found


def stored_as(x: Array, dtype: str, layer: str) -> Array:
    """Numbers as they are stored: bfloat16 as float32 that are rounded to it, which any reader understands.

    Raises:
        InvalidInput: float16 does not reach that far.
    """
    if x.dtype.kind != "f":
        return x
    if dtype == "float16":
        with np.errstate(over="ignore"):
            half = x.astype(np.float16)
        beyond = np.isinf(half) & np.isfinite(x)
        if beyond.any():
            raise InvalidInput(
                f"layer {layer!r} returned {np.abs(x[beyond]).max():.3g}, and float16 ends at 65504: store it with "
                "dtype='bfloat16' or 'float32'"
            )
        return half
    wide = np.ascontiguousarray(x, np.float32)
    if dtype == "float32":
        return wide
    bits = wide.view(np.uint32)
    # To the nearest, ties to even; NaN stays.
    rounded = (bits + (0x7FFF + ((bits >> 16) & 1)).astype(np.uint32)) & np.uint32(0xFFFF0000)
    found: Array = np.where(np.isnan(wide), wide, rounded.view(np.float32))
    return found


# What there is for a layer -------------------------------------------------------------------------------------------
def arrays_of(header: StoreHeader, tap: StoredTap) -> tuple[str, ...]:
    """The names of the arrays of a layer that have a row for each sample."""
    found = [name for name in header.reduce if name in OF_SAMPLES and (name == "values" or tap.channels is not None)]
    if "max" in found and tap.positions:
        found.append("max_place")
    return tuple(found)


def start_states(header: StoreHeader) -> States:
    """The states before the first sample."""
    states: States = {}
    for key, tap in header.layers.items():
        count = tap.channels
        if count is None:
            continue
        own = {
            name: reductions.OVER_SAMPLES[name].start(count)
            for name in header.reduce
            if name in reductions.OVER_SAMPLES
        }
        if header.top:
            own["top"] = reductions.top_start(header.top, count, len(tap.positions))
        states |= {(key, name): state for name, state in own.items()}
    return states


def merged(a: States, b: States) -> States:
    """The states of two parts of the data set, one after the other."""
    found = {}
    for (key, name), state in a.items():
        merge = reductions.top_merge if name == "top" else reductions.OVER_SAMPLES[name].merge
        found[key, name] = merge(state, b[key, name])
    return found
