"""What a trace may say of itself: the schema of its metadata, and what must hold between its parts.

A trace comes from anybody. What is checked here, the code that compares may rely on.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from agnostic.compare.layouts import Layout
from agnostic.errors import InvalidInput
from agnostic.tensors import Entry
from agnostic.text import counted

DEEPEST = 12
"""How deep values may be nested in a layer's description."""

NameText = Annotated[str, Meta(max_length=4096)]
Text = Annotated[str, Meta(max_length=1 << 20)]
NonNegative = Annotated[float, Meta(ge=0)]
Count = Annotated[int, Meta(ge=0, le=1 << 31)]
Length = Annotated[int, Meta(ge=0, le=1 << 48)]
DType = Literal[
    "float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint64", "uint32", "uint16",
    "uint8", "bool",
]  # fmt: skip
Axes = Annotated[str, Meta(pattern=r"^[A-Z?]*(\([A-Z]+\))?[A-Z?]*$", max_length=32)]


class Slot(Struct, forbid_unknown_fields=True):
    """See :class:`agnostic.compare.recording.Slot`."""

    tensor: NameText
    shape: list[Length]
    axes: Axes | None
    inner: list[Length]
    dtype: DType
    rms: NonNegative
    floor: NonNegative
    propagated: NonNegative | None
    source: tuple[Count, Count] | None


class Step(Struct, forbid_unknown_fields=True):
    """See :class:`agnostic.compare.recording.Step`."""

    name: NameText
    number: Count
    kind: NameText
    inputs: list[Slot]
    outputs: list[Slot]
    sketch: Annotated[list[float], Meta(max_length=4)]


class Preprocessing(Struct, forbid_unknown_fields=True):
    """See :class:`agnostic.models.cards.Preprocessing`."""

    mean: list[float]
    std: list[float]
    scale: float
    channel_order: Literal["RGB", "BGR"]


class ModelFacts(Struct, forbid_unknown_fields=True):
    """What is known of a model."""

    class_: NameText = msgspec.field(name="class")
    spec: NameText | None
    backend: NameText
    engine: NameText | None
    versions: dict[NameText, NameText]
    training: bool
    dtype: DType
    preprocessing: Preprocessing | None


class Inputs(Struct, forbid_unknown_fields=True):
    """See :class:`agnostic.compare.inputs.Inputs`."""

    kind: Literal["images", "native"]
    form: Literal["array", "tuple", "dict"]
    channels_first: bool
    given: Annotated[dict[NameText, NameText], Meta(min_length=1)]


class LayerDescription(Struct, forbid_unknown_fields=True):
    """See :class:`agnostic.description.LayerDescription`."""

    kind: NameText
    config: dict[NameText, Any]
    weights: dict[NameText, NameText]


class LearnedEntry(Struct, forbid_unknown_fields=True):
    """One entry of what a layer learns."""

    tensor: NameText
    rms: NonNegative
    floor: NonNegative | None
    parts: Count
    learns: NameText | msgspec.UnsetType = msgspec.UNSET
    propagated: NonNegative | msgspec.UnsetType = msgspec.UNSET


class Update(Struct, forbid_unknown_fields=True):
    """By which optimizer the weights were updated."""

    optimizer: Text
    steps: Count
    rates: list[NonNegative]
    norms: list[NonNegative]
    spec: dict[NameText, Any]


ByLayer = dict[NameText, dict[NameText, LearnedEntry]]


class Learning(Struct, forbid_unknown_fields=True):
    """Gradients, and weights after an update."""

    gradients: ByLayer | msgspec.UnsetType = msgspec.UNSET
    updated: ByLayer | msgspec.UnsetType = msgspec.UNSET
    steps: list[dict[NameText, dict[NameText, NameText]]] | msgspec.UnsetType = msgspec.UNSET
    update: Update | msgspec.UnsetType = msgspec.UNSET


class About(Struct, forbid_unknown_fields=True):
    """All of it; docs/traces.md tells the keys."""

    format: Literal["agnostic-trace"]
    version: int
    model: ModelFacts
    inputs: Inputs
    calls: Annotated[list[Step], Meta(min_length=1)]
    outputs: list[Slot]
    model_inputs: list[Slot]
    layers: dict[NameText, LayerDescription]
    digests: dict[NameText, dict[NameText, NameText]]
    learning: Learning
    notes: list[Text]
    checksums: dict[NameText, Annotated[int, Meta(ge=0, lt=1 << 32)]]


def validate(about: Any, entries: Mapping[str, Entry], path: Path) -> dict[str, Any]:
    """Whether metadata are as the schema says, and fit each other and the arrays.

    Args:
        about: the metadata, as JSON gives them.
        entries: the arrays, by name.
        path: of the file, for people.

    Returns:
        The metadata in the types of the schema: JSON may write a float as a whole number of any length.

    Raises:
        InvalidInput: they do not.
    """
    try:
        found = msgspec.convert(about, About)
    except (msgspec.ValidationError, RecursionError) as error:
        raise InvalidInput(f"the metadata of the trace {path} are damaged ({error}): record it again") from None
    for wrong in _contradictions(found, entries):
        raise InvalidInput(f"the metadata of the trace {path} contradict themselves ({wrong}): record it again")
    plain: dict[str, Any] = msgspec.to_builtins(found)
    return plain


def _contradictions(x: About, entries: Mapping[str, Entry]) -> Iterator[str]:
    """Everything that is wrong, in words."""
    if x.checksums.keys() != entries.keys():
        yield "there are not as many checksums as arrays"
    yield from _wrong_layers(x, entries)
    numbered: dict[str, int] = {}
    for i, call in enumerate(x.calls):
        layer = x.layers.get(call.name)
        if layer is None or layer.kind != call.kind:
            yield f"call {i} is of no layer that is described"
        if call.number != numbered.get(call.name, 0):
            yield f"call {i} has another number"
        numbered[call.name] = call.number + 1
        if len(call.sketch) not in (0, 4):
            yield f"the sketch of call {i} has {counted(len(call.sketch), 'number')}"
        for slot in (*call.inputs, *call.outputs):
            yield from _wrong_slot(slot, x.calls[:i], entries)
    for slot in (*x.outputs, *x.model_inputs):
        yield from _wrong_slot(slot, x.calls, entries)
    if any(name not in entries for name in x.inputs.given.values()):
        yield "an input is missing"
    if x.inputs.form == "array" and list(x.inputs.given) != ["0"]:
        yield "an array alone is input 0"
    if x.inputs.kind == "images" and [len(entries[n].shape) for n in x.inputs.given.values() if n in entries] != [4]:
        yield "images are one array (N, H, W, C)"
    yield from _wrong_learning(x, entries)


def _wrong_slot(slot: Slot, before: list[Step], entries: Mapping[str, Entry]) -> Iterator[str]:
    entry = entries.get(slot.tensor)
    if entry is None or list(entry.shape) != slot.shape:
        yield f"the array {slot.tensor!r} is missing or has another shape"
    try:
        Layout(slot.axes, tuple(slot.inner))
    except ValueError as error:
        yield str(error)
    letters = re.sub(r"[()?]", "", slot.axes or "")
    if len(set(letters)) != len(letters):
        yield f"an axis stands twice in {slot.axes!r}"
    if slot.source is not None:
        call, output = slot.source
        if call >= len(before) or output >= len(before[call].outputs):
            yield f"the array {slot.tensor!r} is from a call that was not made before"
        elif before[call].outputs[output].tensor != slot.tensor:
            yield f"the array {slot.tensor!r} is said to be another"


def _wrong_layers(x: About, entries: Mapping[str, Entry]) -> Iterator[str]:
    # No length in a description is larger than what it describes: padding, a size, a number of units.
    largest = max(1024, 2 * max((n for entry in entries.values() for n in entry.shape), default=0))
    for name, layer in x.layers.items():
        if any(tensor not in entries for tensor in layer.weights.values()):
            yield f"a weight of {name!r} is missing"
        if any(not isinstance(layer.config.get(key, ""), str | None) for key in ("activation", "recurrent_activation")):
            yield f"the activation of {name!r} has no name"
        yield from (f"{name!r}: {wrong}" for wrong in _wrong_values(layer.config, largest))
        if x.digests.get(name, {}).keys() - layer.weights.keys():
            yield f"a digest of {name!r} is of no weight"


def _wrong_values(value: Any, largest: int, depth: int = 0) -> Iterator[str]:
    if depth > DEEPEST:
        yield f"its description is nested more than {DEEPEST} deep"
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _wrong_values(inner, largest, depth + 1)
    elif isinstance(value, int) and abs(value) > largest:
        yield f"its description holds {value}, and no array is as large"
    elif isinstance(value, float) and not math.isfinite(value):
        yield "its description holds a number that is not finite"


def _wrong_learning(x: About, entries: Mapping[str, Entry]) -> Iterator[str]:
    update = x.learning.update or None
    steps = x.learning.steps or []
    if (x.learning.updated is not msgspec.UNSET) != (update is not None):
        yield "weights after an update come with the optimizer"
    if update is not None and not update.steps == len(update.rates) == len(update.norms) == len(steps):
        yield "the steps of the update differ in number"
    for learned in (x.learning.gradients or {}, x.learning.updated or {}):
        for name, arrays in learned.items():
            weights = x.layers[name].weights if name in x.layers else {}
            for key, entry in arrays.items():
                names = [entry.tensor, *([entry.learns] if isinstance(entry.learns, str) else [])]
                if learned is x.learning.updated:
                    names += [step.get(name, {}).get(key, "") for step in steps]
                shape = entries[weights[key]].shape if weights.get(key) in entries else None
                if any(tensor not in entries or entries[tensor].shape != shape for tensor in names):
                    yield f"what {name!r} learns is missing or has another shape"
    if any(tensor not in entries for step in steps for arrays in step.values() for tensor in arrays.values()):
        yield "the gradient of a step is missing"
