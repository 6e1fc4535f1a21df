"""What one model does, layer by layer, with the noise floor of each."""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from agnostic.compare import noise
from agnostic.compare.calls import LayerCall
from agnostic.compare.inputs import Inputs, image_channels, prepared
from agnostic.compare.layouts import Layout
from agnostic.compare.traces import Trace, TraceWriter
from agnostic.compare.watching import Counter
from agnostic.contracts.calls import CALLS
from agnostic.contracts.description import DESCRIPTION
from agnostic.description import LayerDescription
from agnostic.errors import AgnosticError, InvalidInput
from agnostic.models.attached import card_of
from agnostic.registry import Backend, Model, backend_of
from agnostic.text import counted

Array = np.ndarray[Any, Any]

DEMANDING = frozenset({
    "conv", "depthwise_conv", "separable_conv", "conv_transpose", "dense", "einsum_dense", "attention", "lstm", "gru",
    "rnn", "embedding",
})  # fmt: skip
"""Kinds that sum many products: their rounding errors are seen, and running them twice is dear."""

SAMPLES = 4
"""The noise floor is measured on one in so many samples; it is a mean over many numbers already."""


@dataclass
class Slot:
    """One array that a layer received or returned.

    Attributes:
        tensor: its name in the file; "" where no file is written.
        shape: its native shape.
        axes, inner: its layout.
        dtype: its native type.
        rms: its root mean square.
        floor: what arithmetic does to it, as a root mean square, if all before it is given.
        propagated: what arithmetic does to it from the model's input on; None where that was not measured.
        source: (which call, which of its outputs) it is the very array of; None for an array that other code made.
    """

    tensor: str
    shape: tuple[int, ...]
    axes: str | None
    inner: tuple[int, ...]
    dtype: str
    rms: float
    floor: float = 0.0
    propagated: float | None = None
    source: tuple[int, int] | None = None

    @property
    def layout(self) -> Layout:
        """Its layout."""
        return Layout(self.axes, tuple(self.inner))

    @property
    def canonical_shape(self) -> tuple[int, ...]:
        """Its shape with the channels last."""
        return self.layout.canonical_shape(tuple(self.shape))


@dataclass
class Step:
    """One call of one layer.

    Attributes:
        name, number: which call of which layer.
        kind: of its description.
        inputs, outputs: its arrays.
        sketch: mean, root mean square, smallest and largest number of the first sample's first output: the same
            in every layout.
    """

    name: str
    number: int
    kind: str
    inputs: list[Slot] = field(default_factory=list)
    outputs: list[Slot] = field(default_factory=list)
    sketch: tuple[float, ...] = ()

    @property
    def label(self) -> str:
        """The layer's name, with the number of the call from the second on."""
        return self.name if not self.number else f"{self.name} (call {self.number + 1})"


@dataclass
class Record:
    """What one model did.

    Attributes:
        steps: the calls, in order.
        outputs: what the model returned.
        inputs: the inputs as they were given.
        model_inputs: the arrays that the model was called with.
        descriptions: of the layers, by name; with weights in memory or in the trace.
        digests: of each layer's weights, by entry.
        model: facts: class, spec, backend, engine, versions, dtype, training, preprocessing.
        notes: sentences on what could not be measured.
        trace: the file; None for a record without arrays.
    """

    steps: list[Step]
    outputs: list[Slot]
    inputs: Inputs
    model_inputs: list[Slot]
    descriptions: Mapping[str, LayerDescription]
    digests: Mapping[str, Mapping[str, str]]
    model: dict[str, Any]
    notes: list[str] = field(default_factory=list)
    trace: Trace | None = None

    def read(self, slot: Slot, rows: int | None = None) -> Array:
        """An array in the model's own layout."""
        assert self.trace is not None
        return self.trace.read(slot.tensor, rows)

    def canonical(self, slot: Slot, rows: int | None = None) -> Array:
        """An array with the channels last."""
        return slot.layout.to_canonical(self.read(slot, rows))

    def description(self, name: str) -> LayerDescription:
        """A layer with its weights."""
        found = self.descriptions[name]
        if self.trace is None:
            return found
        return LayerDescription(
            found.name, found.kind, found.config, {k: self.trace.read(v) for k, v in self.tensors(name).items()}
        )

    def tensors(self, name: str) -> Mapping[str, str]:
        """The names of a layer's weights in the file."""
        assert self.trace is not None
        found: Mapping[str, str] = self.trace.about["layers"][name]["weights"]
        return found


# Live models ---------------------------------------------------------------------------------------------------------
def leaves(descriptions: Sequence[LayerDescription]) -> list[str]:
    """The layers that are compared as a whole: those without layers inside, or that are described as a whole."""
    found: list[str] = []
    closed: tuple[str, ...] = ()
    for x in descriptions:
        if x.kind != "block" and not (closed and x.name.startswith(closed)):
            found.append(x.name)
            closed += (f"{x.name}.",)
    return found


def digest(x: Array) -> str:
    """What tells an array from others: equal for equal numbers and shapes, in whatever layout of memory."""
    data = np.ascontiguousarray(x)
    return hashlib.blake2b(data.tobytes() + repr(data.shape).encode(), digest_size=12).hexdigest()


class _Carried(BaseException):
    """Takes an error of ours through a framework that would rewrite it."""

    def __init__(self, error: AgnosticError) -> None:
        self.error = error


class Live:
    """A model that can be run, with what is known of it before it runs."""

    def __init__(self, model: Model, inputs: Inputs, spec: str | None = None) -> None:
        self.model, self.backend, self.inputs = model, backend_of(model), inputs
        described = self.backend[DESCRIPTION].describe(model)
        self.names = leaves(described)
        chosen = set(self.names)
        self._counter = Counter(len(self.names))
        self.descriptions = {x.name: x for x in described if x.name in chosen}
        self.training = self.backend[CALLS].is_training(model)
        card = card_of(model)
        self.about: dict[str, Any] = {
            "class": type(model).__name__,
            "spec": spec or (card.spec if card else None),
            "backend": self.backend.name,
            "engine": self.backend.engine,
            "versions": dict(self.backend[CALLS].versions()),
            "training": self.training,
            "dtype": _dtype(described),
            "preprocessing": asdict(card.preprocessing) if card else None,
        }

    @property
    def title(self) -> str:
        """What the model is called in a sentence."""
        return str(self.about["spec"] or self.about["class"])

    def run(
        self, around: Callable[[LayerCall], Sequence[Any]] | None, inputs: Inputs, seed: int = 0
    ) -> tuple[Any, ...]:
        """Run the model; where it fails, say for which inputs.

        Raises:
            InvalidInput: it does not take the inputs.
        """
        given = prepared(self.backend, self.model, inputs)

        def carried(call: LayerCall) -> Sequence[Any]:
            assert around is not None
            self._counter.count()
            try:
                return around(call)
            except AgnosticError as error:
                raise _Carried(error) from None

        try:
            if around is None:
                return self.backend[CALLS].run(self.model, given, seed=seed)
            with self.backend[CALLS].intercept(self.model, self.names, carried):
                return self.backend[CALLS].run(self.model, given, seed=seed)
        except _Carried as carrier:
            raise carrier.error from None
        except (RuntimeError, ValueError, TypeError, IndexError, KeyError) as error:
            if isinstance(error, InvalidInput):
                raise
            shapes = ", ".join(str(x.shape) for x in inputs.arrays.values())
            said = " ".join(str(error).split())[:240] or type(error).__name__
            raise InvalidInput(f"{self.title} does not take {inputs.kind} inputs of shape {shapes} ({said})") from error

    def numpy(self, x: Any) -> Array:
        """See :meth:`agnostic.backend.Backend.to_numpy`."""
        return self.backend[CALLS].numpy(x)


def _dtype(described: Sequence[LayerDescription]) -> str:
    """The type that most layers with weights compute in."""
    found = [str(x.config["dtype"]) for x in described if x.weights and "dtype" in x.config]
    return max(set(found), key=found.count) if found else "float32"


class _Recorder:
    """Records a run; with a writer also its arrays."""

    def __init__(self, live: Live, writer: TraceWriter | None) -> None:
        self.live, self.writer = live, writer
        self.steps: list[Step] = []
        # Which arrays the layers returned, while they live: by identity, since code in between may hand on the same.
        self._known: dict[int, tuple[weakref.ref[Any], Any, tuple[int, int], Slot]] = {}

    def __call__(self, call: LayerCall) -> Sequence[Any]:
        index = len(self.steps)
        step = Step(call.name, call.number, self.live.descriptions[call.name].kind)
        self.steps.append(step)
        for i, (x, layout) in enumerate(zip(call.arrays, call.layouts, strict=True)):
            step.inputs.append(self.slot(x, layout, f"{index}/input/{i}", reuse=True))
        outputs = call.run()
        for i, (x, layout) in enumerate(zip(outputs, call.output_layouts(outputs), strict=True)):
            slot = self.slot(x, layout, f"{index}/output/{i}")
            step.outputs.append(slot)
            self._remember(x, (index, i), slot)
            if i == 0:
                step.sketch = sketch(self.live.numpy(x))
        return outputs

    def slot(self, x: Any, layout: Layout, name: str, *, reuse: bool = False) -> Slot:
        """Record one array."""
        known = self._known.get(id(x)) if reuse else None
        if known is not None and known[0]() is x and known[1] == _version(x):
            source, slot = known[2:]
            return Slot(slot.tensor, slot.shape, layout.axes, layout.inner, slot.dtype, slot.rms, source=source)
        values = self.live.numpy(x)
        dtype = self.live.backend.ops.dtype(x)
        tensor = self.writer.add(name, values) if self.writer is not None else ""
        return Slot(tensor, tuple(values.shape), layout.axes, layout.inner, dtype, noise.rms(values))

    def _remember(self, x: Any, source: tuple[int, int], slot: Slot) -> None:
        self._known[id(x)] = (weakref.ref(x), _version(x), source, slot)


def _version(x: Any) -> Any:
    """Counts changes in place, where the framework allows them."""
    return getattr(x, "_version", None)


def sketch(x: Array) -> tuple[float, ...]:
    """Mean, root mean square, smallest and largest number of the first row."""
    row = x[0] if x.ndim > 1 else x
    if not row.size or row.dtype.kind not in "fiu":
        return ()
    with np.errstate(all="ignore"):
        return (float(row.mean()), noise.rms(row), float(row.min()), float(row.max()))


def listing(live: Live) -> Record:
    """Run a model once for the order, shapes and sketches of its calls; no arrays are kept."""
    recorder = _Recorder(live, None)
    notes: list[str] = []
    try:
        outputs = live.run(recorder, live.inputs)
    except InvalidInput as error:
        # A model that fails on its way has parted from the other before: that is what is looked for.
        if not recorder.steps:
            raise
        outputs = ()
        notes.append(f"B does not run to its end: {error}")
    slots = [recorder.slot(x, Layout(_plain_axes(x)), "") for x in outputs]
    return Record(recorder.steps, slots, live.inputs, [], live.descriptions, _digests(live), live.about, notes)


def _plain_axes(x: Any) -> str | None:
    return {2: "NC", 1: "N"}.get(len(x.shape))


def _digests(live: Live) -> dict[str, dict[str, str]]:
    return {name: {k: digest(x) for k, x in d.weights.items()} for name, d in live.descriptions.items()}


def record(live: Live, writer: TraceWriter, about: dict[str, Any]) -> None:
    """Run a model, write what it does, and measure its noise floor.

    Raises:
        InvalidInput: the model does not take the inputs, or gives something else every time.
    """
    recorder = _Recorder(live, writer)
    outputs = live.run(recorder, live.inputs)
    last = [recorder.slot(x, _output_layout(x, recorder), f"output/{i}", reuse=True) for i, x in enumerate(outputs)]
    if not recorder.steps:
        raise InvalidInput(
            f"{live.title} has {counted(len(live.names), 'layer')} and called none: there is nothing to compare "
            "layer by layer"
        )
    share = share_of(live, recorder.steps)
    if any(not s.shape or s.shape[0] % (live.inputs.batch or 1) for s in last):
        share = 1.0
    for x, slot in zip(live.run(None, part_of(live, share), seed=1), last, strict=True):
        values, before = live.numpy(x), writer.read(slot.tensor, rows_of(slot, share))
        # A network may amplify what rounding does to one layer: whether numbers are drawn is seen layer by layer.
        if noise.difference(values, before) > 1e3 * noise.least(slot.rms, slot.dtype):
            check_repeatable(live, recorder.steps, last, writer)
            break
    model_inputs = model_input_slots(live, writer)
    given = {key: writer.add(f"given/{key}", x) for key, x in live.inputs.arrays.items()}
    layers: dict[str, Any] = {}
    for name, d in live.descriptions.items():
        weights = {k: writer.add(f"weights/{name}/{k}", x) for k, x in d.weights.items()}
        layers[name] = {"kind": d.kind, "config": _plain(d.config), "weights": weights}
    digests = _digests(live)
    notes = measure(live, recorder.steps, last, writer)
    about.update(
        model=live.about,
        inputs={
            "kind": live.inputs.kind,
            "form": live.inputs.form,
            "channels_first": live.inputs.channels_first,
            "given": given,
        },
        calls=[_step(x) for x in recorder.steps],
        outputs=[asdict(x) for x in last],
        model_inputs=[asdict(x) for x in model_inputs],
        layers=layers,
        digests=digests,
        notes=notes,
    )


def model_input_slots(live: Live, writer: TraceWriter) -> list[Slot]:
    """Write what the model itself is called with."""
    found = []
    for i, (x, layout) in enumerate(model_inputs(live)):
        tensor = writer.add(f"model_input/{i}", x)
        found.append(Slot(tensor, tuple(x.shape), layout.axes, (), x.dtype.name, noise.rms(x)))
    return found


def model_inputs(live: Live) -> list[tuple[Array, Layout]]:
    """What the model itself is called with."""
    given = prepared(live.backend, live.model, live.inputs)
    items = list(given.values()) if isinstance(given, dict) else given if isinstance(given, tuple) else [given]
    arrays = [x if isinstance(x, np.ndarray) else live.numpy(x) for x in items]
    return [(x, Layout(_spatial(live, x) if x.ndim == 4 else None)) for x in arrays]


def _spatial(live: Live, x: Array) -> str:
    try:
        return "NCHW" if image_channels(live.backend, live.model, x)[0] else "NHWC"
    except InvalidInput:  # it takes no images
        return "NHWC"


def _output_layout(x: Any, recorder: _Recorder) -> Layout:
    for step in reversed(recorder.steps):
        for slot in step.outputs:
            if tuple(slot.shape) == tuple(x.shape):
                return slot.layout
    return Layout(_plain_axes(x))


def _step(x: Step) -> dict[str, Any]:
    return asdict(x)


def _plain(value: Any) -> Any:
    """What JSON can carry."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not np.isfinite(value):
        return repr(value)
    return value if isinstance(value, str | int | float | bool | None) else str(value)


# Randomness ----------------------------------------------------------------------------------------------------------
def check_repeatable(live: Live, steps: Sequence[Step], outputs: Sequence[Slot], writer: TraceWriter) -> None:
    """Run a model again, each layer on what it had in the record, and refuse one that draws numbers.

    Raises:
        InvalidInput: a layer, or the code between layers, gives something else by more than rounding does.
    """
    try:
        where = _drawn(live, steps, outputs, writer)
    except _Mismatch:
        where = ", in which layers it calls and with what"
    if where is not None:
        fix = live.backend.facts.set_inference
        raise InvalidInput(f"{live.title} is random: it gives something else for the same inputs{where}; {fix}")


def _drawn(live: Live, steps: Sequence[Step], outputs: Sequence[Slot], writer: TraceWriter) -> str | None:
    """Where a model first draws numbers, as a clause of a sentence; None where it does not."""
    second = _Second(live, steps, writer, 1.0)
    found: list[str] = []

    def look(x: Any, slot: Slot, bound: float, where: str) -> Any:
        """Whether an array is far from the record's, which goes on in its place."""
        values, made = second.read(slot), live.numpy(x)
        if made.shape != values.shape:
            raise _Mismatch
        if noise.difference(made, values) > bound:
            found.append(where)
        return live.backend[CALLS].native(values, x)

    def repeated(call: LayerCall) -> Sequence[Any]:
        step = second.step(call)
        description = live.descriptions[step.name]
        before = f", in the code before layer {step.name!r}"
        fed = [
            x if slot.source is not None else look(x, slot, _code_bound(slot), before)
            for x, slot in zip(call.arrays, step.inputs, strict=True)
        ]
        results = call.run(fed)
        if len(results) != len(step.outputs):
            raise _Mismatch
        own = f", from layer {step.name!r} ({description.config.get('class', '')}) on"
        return [
            look(x, s, layer_bound(s.rms, s.dtype, step.inputs, description), own)
            for x, s in zip(results, step.outputs, strict=True)
        ]

    made = live.run(repeated, live.inputs, seed=2)
    for x, slot in zip(made, outputs, strict=True):
        if slot.source is None:
            look(x, slot, _code_bound(slot), ", in the code after the last layer")
    return found[0] if found else None


def layer_bound(scale: float, dtype: str, received: Sequence[Slot], description: LayerDescription) -> float:
    """How far an output may be from the same call's in another run; see :func:`agnostic.compare.noise.repeated`.

    Args:
        scale: root mean square of the output.
        dtype: its type.
        received: the inputs.
    """
    dtype = max((x for x in (dtype, *(s.dtype for s in received)) if x in noise.UNIT_ROUNDOFF), key=noise.unit,
                default="float32")  # fmt: skip
    length = max((_per_sample(x) for x in received), default=1)
    kernels = [x for name, x in description.weights.items() if name.endswith("kernel") and x.ndim > 1]
    if kernels:
        # (*size, inputs, outputs), and depthwise (*size, channels, multiplier).
        length = max(int(np.prod(x.shape[: -2 if "depthwise" in description.kind else -1])) for x in kernels)
        scale = max(
            scale, float(np.sqrt(length)) * max((x.rms for x in received), default=0.0) * max(map(noise.rms, kernels))
        )
    return noise.repeated(scale, dtype, length)


def _code_bound(slot: Slot) -> float:
    return noise.repeated(slot.rms, slot.dtype, _per_sample(slot))


def _per_sample(slot: Slot) -> int:
    return int(np.prod(slot.shape[1:]))


# The noise floor -----------------------------------------------------------------------------------------------------
class _Mismatch(BaseException):
    """A second run does not call what the first called; a BaseException, since Keras rewrites others."""


def measure(live: Live, steps: Sequence[Step], outputs: Sequence[Slot], arrays: TraceWriter | Trace) -> list[str]:
    """Fill in the floors of recorded arrays.

    Two runs: in one each layer receives what it received in float32 (the floor of the layer alone, and of the code
    between layers), in the other what float64 made of the model's input (the propagated floor).

    Returns:
        Sentences on what could not be measured.
    """
    share = share_of(live, steps)
    notes = []
    for part in dict.fromkeys((share, 1.0)):
        try:
            exact = _exact(live, steps, outputs, arrays, part)
        except _Mismatch:
            notes.append("the model takes another way in a second run: noise floors are bounds, not measured")
            break
        except InvalidInput as error:
            notes.append(f"the model does not run in float64, so noise floors are estimates ({error})")
            _estimated(live, steps, outputs, arrays, part)
            break
        if not exact:
            _estimated(live, steps, outputs, arrays, part)
        # Part of a batch tells of the whole only where its samples are independent and the batch comes first.
        if all(s.floor < 1e4 * noise.unit(s.dtype) * s.rms for x in steps for s in x.outputs if s.rms):
            break
    for slot in (*(s for x in steps for s in (*x.inputs, *x.outputs)), *outputs):
        # Where float64 takes another way (an overflow, bits that are read as another type) it measures nothing.
        measured = slot.floor if np.isfinite(slot.floor) else 0.0
        slot.floor = max(measured, noise.least(slot.rms, slot.dtype))
        if slot.propagated is not None and not np.isfinite(slot.propagated):
            slot.propagated = None
    return notes


def share_of(live: Live, steps: Sequence[Step]) -> float:
    """Which part of the batch the floor, and what is propagated, are measured on; 1.0 where samples may depend."""
    batch = live.inputs.batch
    if batch is None or batch < 3 or live.training:
        return 1.0
    every = (s for x in steps for s in (*x.inputs, *x.outputs))
    if any(not s.shape or s.shape[0] % batch or (s.axes or "N")[0] != "N" for s in every):
        return 1.0
    return max(1, batch // SAMPLES) / batch


def rows_of(slot: Slot, share: float) -> int | None:
    """How many rows of an array belong to that part; None for all."""
    return None if share == 1.0 else round(slot.shape[0] * share)


def part_of(live: Live, share: float) -> Inputs:
    """The inputs of that part."""
    return live.inputs if share == 1.0 else live.inputs.first(round((live.inputs.batch or 1) * share))


class _Second:
    """A second run, compared with the first, array by array."""

    def __init__(self, live: Live, steps: Sequence[Step], arrays: TraceWriter | Trace, share: float) -> None:
        self.live, self.arrays, self.share = live, arrays, share
        self._steps = iter(steps)

    def step(self, call: LayerCall) -> Step:
        """The recorded call that this one repeats."""
        found = next(self._steps, None)
        if found is None or (found.name, found.number) != (call.name, call.number):
            raise _Mismatch
        if len(found.inputs) != len(call.arrays):
            raise _Mismatch
        return found

    def read(self, slot: Slot) -> Array:
        """What the first run had."""
        return self.arrays.read(slot.tensor, rows_of(slot, self.share))

    def scaled(self, slot: Slot, error: float, of: Array) -> float:
        """An error on part of the batch, for the whole."""
        part = noise.rms(of)
        return error * slot.rms / part if part > 0 else error


def _exact(
    live: Live, steps: Sequence[Step], outputs: Sequence[Slot], arrays: TraceWriter | Trace, share: float
) -> bool:
    """Floors by float64; False where the framework has none."""
    inputs = part_of(live, share)
    with live.backend[CALLS].in_float64(live.model) as exact:
        if not exact:
            return False
        second = _Second(live, steps, arrays, share)

        def isolated(call: LayerCall) -> Sequence[Any]:
            step = second.step(call)
            fed = []
            for x, slot in zip(call.arrays, step.inputs, strict=True):
                if slot.source is not None:
                    # What was handed on here, after the layer that it is from: A's own numbers already.
                    fed.append(x)
                    continue
                values = second.read(slot)
                if values.dtype.kind == "f":
                    made = live.numpy(x)
                    if made.shape != values.shape:
                        raise _Mismatch
                    slot.floor = max(slot.floor, second.scaled(slot, noise.difference(made, values), values))
                fed.append(live.backend[CALLS].native(values, x, dtype="float64" if values.dtype.kind == "f" else None))
            # A layer may change its input in place.
            other: list[Any] = []
            if step.kind not in DEMANDING and not live.training:
                size = noise.unit(step.inputs[0].dtype) if step.inputs else 0.0
                other = [live.backend[CALLS].native(noise.nudged(live.numpy(x), size), x) for x in fed]
            truths = [live.numpy(x) for x in call.run(fed)]
            if other:
                truths = [np.array(x) for x in truths]
            results = call.run(other) if other else ()
            bounds = [noise.difference(live.numpy(x), truth) for x, truth in zip(results, truths, strict=False)]
            handed = []
            for i, (truth, slot) in enumerate(zip(truths, step.outputs, strict=True)):
                values = second.read(slot)
                if values.dtype.kind == "f":
                    error = max([noise.difference(truth, values), *bounds[i : i + 1]])
                    slot.floor = max(slot.floor, second.scaled(slot, error, values))
                like = fed[0] if fed else results[0]
                handed.append(
                    live.backend[CALLS].native(
                        values, like, dtype="float64" if values.dtype.kind == "f" else values.dtype.name
                    )
                )
            return handed

        made = live.run(isolated, inputs)
        _raise_code_floors(second, outputs, made)
        free = _Second(live, steps, arrays, share)

        def propagated(call: LayerCall) -> Sequence[Any]:
            step, results = free.step(call), call.run()
            _propagate(free, step.outputs, results)
            return results

        _propagate(free, outputs, live.run(propagated, inputs))
    return True


def _raise_floor(second: _Second, slot: Slot, x: Any, values: Array) -> None:
    """To how far ``x``, of this run, is from the values of the record."""
    slot.floor = max(slot.floor, second.scaled(slot, noise.difference(second.live.numpy(x), values), values))


def _raise_code_floors(second: _Second, slots: Sequence[Slot], results: Sequence[Any]) -> None:
    """Of what the model's own code returns; what a layer returned has its floor from there."""
    for x, slot in zip(results, slots, strict=True):
        if slot.source is None:
            _raise_floor(second, slot, x, second.read(slot))


def _propagate(second: _Second, slots: Sequence[Slot], results: Sequence[Any]) -> None:
    for x, slot in zip(results, slots, strict=True):
        values = second.read(slot)
        error = second.scaled(slot, noise.difference(second.live.numpy(x), values), values)
        slot.propagated = max(error, slot.propagated or 0.0, noise.least(slot.rms, slot.dtype))


def _estimated(
    live: Live, steps: Sequence[Step], outputs: Sequence[Slot], arrays: TraceWriter | Trace, share: float
) -> None:
    """Floors by changing the last bit of each input, at random."""
    inputs = part_of(live, share)
    second = _Second(live, steps, arrays, share)
    backend = live.backend

    def nudged(values: Array, like: Any, dtype: str, seed: int) -> Any:
        return backend[CALLS].native(nudge(values, dtype, seed), like)

    def isolated(call: LayerCall) -> Sequence[Any]:
        step = second.step(call)
        fed = []
        for i, (x, slot) in enumerate(zip(call.arrays, step.inputs, strict=True)):
            values = second.read(slot)
            if slot.source is None and values.dtype.kind == "f":
                # The code between the layers had sources whose last bit was changed.
                _raise_floor(second, slot, x, values)
            fed.append(nudged(values, x, slot.dtype, i))
        results = call.run(fed)
        handed = []
        for i, (x, slot) in enumerate(zip(results, step.outputs, strict=True)):
            values = second.read(slot)
            _raise_floor(second, slot, x, values)
            handed.append(nudged(values, x, slot.dtype, i))
        return handed

    made = live.run(isolated, inputs)
    _raise_code_floors(second, outputs, made)
    free = _Second(live, steps, arrays, share)

    def propagated(call: LayerCall) -> Sequence[Any]:
        step = free.step(call)
        fed = [
            nudged(live.numpy(x), x, s.dtype, i) for i, (x, s) in enumerate(zip(call.arrays, step.inputs, strict=True))
        ]
        results = call.run(fed)
        _propagate(free, step.outputs, results)
        return results

    _propagate(free, outputs, live.run(propagated, inputs))


def nudge(x: Array, dtype: str, seed: int = 0) -> Array:
    """Each element changed by its last bit, up or down, at random; of bfloat16 too, which comes as float32."""
    if x.dtype.kind == "f" and dtype in ("float16", "bfloat16") and x.dtype.itemsize > 2:
        return noise.nudged(x.astype(np.float64), 2 * noise.unit(dtype), seed).astype(x.dtype)
    return noise.nudged(x, noise.unit(dtype), seed)


# From a file ---------------------------------------------------------------------------------------------------------
def opened(trace: Trace) -> Record:
    """The record in a trace.

    Raises:
        InvalidInput: the trace lacks what it should have.
    """
    about = trace.about
    if not about["outputs"]:
        raise InvalidInput(f"the trace {trace.path} holds no output of its model: there is nothing to compare")
    try:
        steps = [
            Step(x["name"], x["number"], x["kind"], _slots(x["inputs"]), _slots(x["outputs"]), tuple(x["sketch"]))
            for x in about["calls"]
        ]
        given = about["inputs"]
        arrays = {key: trace.read(name) for key, name in given["given"].items()}
        inputs = Inputs(given["kind"], arrays, given["form"], given["channels_first"])
        descriptions = {name: LayerDescription(name, x["kind"], x["config"]) for name, x in about["layers"].items()}
        return Record(
            steps, _slots(about["outputs"]), inputs, _slots(about["model_inputs"]), descriptions, about["digests"],
            about["model"], list(about["notes"]), trace,
        )  # fmt: skip
    except (KeyError, TypeError) as error:
        raise InvalidInput(f"the trace {trace.path} is damaged: {error} is missing; record it again") from None


def _slots(found: Sequence[Mapping[str, Any]]) -> list[Slot]:
    return [
        Slot(
            x["tensor"], tuple(x["shape"]), x["axes"], tuple(x["inner"]), x["dtype"], x["rms"], x["floor"],
            x["propagated"], None if x["source"] is None else (x["source"][0], x["source"][1]),
        )
        for x in found
    ]  # fmt: skip


__all__ = ["Backend", "Live", "Record", "Slot", "Step", "listing", "measure", "opened", "record"]
