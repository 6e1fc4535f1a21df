"""A part of a data set, computed: rows for each sample, and states of what is merged over samples."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from inspect import signature
from typing import Any

import numpy as np
import numpy.typing as npt

from agnostic.arrays import in_main_memory
from agnostic.contracts.calls import CALLS
from agnostic.contracts.copies import COPIES, Copies
from agnostic.contracts.ops import OPS
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


@dataclass(frozen=True)
class _Begun:
    """A batch whose outputs are computed, or being computed.

    Attributes:
        batch: the samples.
        outputs: by layer; empty where all that is needed of them is on its way here.
        names: what is on its way: layer, and "mean", "max", "place" or "values".
        fetched: waits for it.
    """

    batch: ReadBatch
    outputs: Mapping[str, Any]
    names: Sequence[tuple[str, str]]
    fetched: Callable[[], Sequence[Array]]


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
        self._copies: Copies = self._backend[COPIES] if COPIES in self._backend else CopiesAtOnce(self._backend)
        self._numbers: dict[str, Any] = {}

    def staged(self, batch: ReadBatch) -> ReadBatch:
        """A batch in the memory that the model's device reads; any thread may call it."""
        return replace(batch, inputs=self._copies.staged(self._model, batch.inputs))

    def parts(
        self, batches: Iterable[ReadBatch], count: int, done: Callable[[int], None] = lambda count: None
    ) -> Iterator[ComputedPart]:
        """Compute parts.

        Args:
            batches: of one part after the other, in order.
            count: of the batches of a part.
            done: called with the number of samples of each batch.

        Raises:
            InvalidInput: the model does not take a batch, or a layer returns another shape than before.
        """
        coming = self._one_ahead(batches)
        while (part := self._part(itertools.islice(coming, count), done)) is not None:
            yield part

    def _part(self, batches: Iterator[_Begun], done: Callable[[int], None]) -> ComputedPart | None:
        """A part; None where there is no batch. Of each batch only what the part needs is kept."""
        start: int | None = None
        names, labels, problems = list[str](), list[int](), list[str]()
        rows: dict[tuple[str, str], list[Array]] = {}
        states = start_states(self._header)
        for begun in batches:
            for key, x in self._rows_and_states(begun, states).items():
                rows.setdefault(key, []).append(x)
            batch = begun.batch
            start = batch.start if start is None else start
            names += batch.names
            labels += batch.labels
            problems += batch.problems
            done(len(batch.names))
            del begun, batch  # else they would be held while the next is computed
        if start is None:
            return None
        whole = {key: x[0] if len(x) == 1 else np.concatenate(x) for key, x in rows.items()}
        return ComputedPart(start, names, labels, problems, whole, states)

    def _one_ahead(self, batches: Iterable[ReadBatch]) -> Iterator[_Begun]:
        """Each batch, when the next one has begun as well, so that a device computes while numbers are used here."""
        waiting: _Begun | None = None
        try:
            for batch in batches:
                begun = self._begun(batch)
                if waiting is not None:
                    yield waiting
                waiting = begun
                if begun.outputs:
                    # The processor computed it: another would only take memory.
                    yield begun
                    waiting = None
                del begun, batch
        except Exception:
            # It may be the last one of a part, which is then kept.
            if waiting is not None:
                yield waiting
            raise
        if waiting is not None:
            yield waiting

    def _begun(self, batch: ReadBatch) -> _Begun:
        found = self._known(batch) or self._computed(batch)
        outputs: dict[str, Any] = {}
        fetch: dict[tuple[str, str], Any] = {}
        for key, tap in self._header.layers.items():
            calls = found[tap.name]
            if len(calls) <= tap.call:
                raise InvalidInput(f"layer {tap.name!r} did not run for samples from {batch.start} on, and ran before")
            x = calls[tap.call]
            _check_shape(tap, x, batch)
            here = in_main_memory(x)
            fetch |= {(key, name): value for name, value in self._reduced(key, tap, x, here).items()}
            if here:
                outputs[key] = x
        return _Begun(batch, outputs, list(fetch), self._copies.fetching(list(fetch.values())))

    def _computed(self, batch: ReadBatch) -> Mapping[str, Sequence[Any]]:
        inputs = self._copies.sent(
            self._model, lambda: self._preparation.native(self._backend, self._model, batch.inputs)
        )
        with refusals(self._backend, self._model, inputs):
            return self._forward(inputs)

    def _reduced(self, key: str, tap: StoredTap, x: Any, here: bool) -> dict[str, Any]:
        """What is needed of the output of a layer, as native arrays; places only where it is not in main memory."""
        ops = self._backend[OPS].ops_for([x])
        wanted, axes, found = self._wanted[key], tap.axes or "", dict[str, Any]()
        top = self._header.top and tap.channels is not None
        if "mean" in wanted:
            found["mean"] = reductions.mean(ops, x, axes)
        if "max" in wanted or top:
            found["max"] = reductions.maximum(ops, x, axes)
            if tap.positions and not here:
                if key not in self._numbers:
                    self._numbers[key] = reductions.place_numbers(ops, x, axes)
                found["place"] = reductions.flat_places(ops, x, axes, self._numbers[key])
        if "values" in wanted or self._over[key]:
            found["values"] = x
        return found

    def _rows_and_states(self, begun: _Begun, states: States) -> Rows:
        """The rows of a batch, as they are stored; the states are updated."""
        readable, fetched = begun.batch.readable, dict[str, dict[str, Array]]()
        for (key, name), x in zip(begun.names, begun.fetched(), strict=True):
            fetched.setdefault(key, {})[name] = x
        rows: Rows = {}
        for key, tap in self._header.layers.items():
            found = fetched.get(key, {})
            for name in ("mean", "max"):
                if name in self._wanted[key]:
                    rows[key, name] = stored_as(found[name], self._header.dtype, tap.name)
            places = self._places(key, tap, found, begun.outputs.get(key))
            if "max_place" in self._wanted[key] and places is not None:
                rows[key, "max_place"] = places
            if (key, "top") in states:
                self._use_highest(key, tap, found["max"], places, begun, states)
            if "values" in found:
                self._use_values(key, tap, found["values"], readable, rows, states)
        return {key: _without(x, readable) for key, x in rows.items()}

    def _places(self, key: str, tap: StoredTap, found: Mapping[str, Array], x: Any) -> Array | None:
        """(N, C, axes) the places of all maxima; None where only those that are asked for are looked for."""
        if "place" in found:
            return reductions.unravelled(found["place"].reshape(found["max"].shape), tap.positions)
        if "max_place" in self._wanted[key]:
            return reductions.places(self._backend[CALLS].numpy(x), tap.axes or "")
        return None if tap.positions or "max" not in found else np.zeros((*found["max"].shape, 0), np.int32)

    def _use_highest(
        self, key: str, tap: StoredTap, highest: Array, places: Array | None, begun: _Begun, states: States
    ) -> None:
        """The samples that excite channels most, with those of a batch."""
        state, start = states[key, "top"], begun.batch.start
        known = np.where(begun.batch.readable[:, None], highest, np.float32(np.nan)).astype(np.float32, copy=False)
        chosen = reductions.top_candidates(state, known)
        if not len(chosen[0]):
            return
        if places is None:
            own = reductions.places(self._backend[CALLS].numpy(begun.outputs[key]), tap.axes or "", chosen)
        else:
            own = places[chosen]
        states[key, "top"] = reductions.top_update(state, known, np.arange(start, start + len(known)), chosen, own)

    def _use_values(
        self, key: str, tap: StoredTap, whole: Array, readable: npt.NDArray[np.bool_], rows: Rows, states: States
    ) -> None:
        """Of the whole output of a layer: rows of it, and what is merged over samples."""
        axes = tap.axes or ""
        if "values" in self._wanted[key]:
            first = axes.index("N") if axes else 0
            rows[key, "values"] = stored_as(np.moveaxis(whole, first, 0), self._header.dtype, tap.name)
        if not self._over[key]:
            return
        channels = np.moveaxis(whole, (axes.index("N"), axes.index("C")), (0, -1))
        channels = channels if readable.all() else channels[readable]
        flat = channels.reshape(-1, channels.shape[-1]).astype(np.float32, copy=False)
        for name in self._over[key]:
            states[key, name] = reductions.OVER_SAMPLES[name].update(states[key, name], flat)


class CopiesAtOnce(Copies):
    """Copies of a backend that has no others: each is waited for."""

    def __init__(self, backend: Backend) -> None:
        self._numpy = backend[CALLS].numpy

    def staged(self, model: Model, batch: Array) -> Array:
        """The batch itself."""
        return batch

    def sent(self, model: Model, make: Callable[[], Any]) -> Any:
        """What is made."""
        return make()

    def fetching(self, arrays: Sequence[Any]) -> Callable[[], Sequence[Array]]:
        """A function that copies."""
        return lambda: [self._numpy(x) for x in arrays]


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
