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


Identity = Annotated[int, Meta(ge=0, le=1 << 48)]


class Returned(Struct, forbid_unknown_fields=True):
    """See :class:`agnostic.compare.recording.Returned`."""

    name: NameText
    number: Count
    tensor: NameText
    dtype: DType


class Node(Struct, forbid_unknown_fields=True):
    """See :class:`agnostic.program.nodes.Node`."""

    operator: NameText
    operands: list[Any]
    attributes: dict[NameText, Any]
    outputs: list[Identity]
    module: NameText
    kind: NameText
    file: NameText | None
    line: Count | None


class Output(Struct, forbid_unknown_fields=True):
    """One array that a program gives."""

    path: NameText
    value: Identity
    floor: NonNegative
    tensor: NameText
    exact: NameText


class Program(Struct, forbid_unknown_fields=True):
    """See :class:`agnostic.program.runs.Run`."""

    name: NameText
    framework: NameText
    modules: dict[NameText, NameText]
    values: list[tuple[Identity, Annotated[list[Length], Meta(max_length=32)], NameText]]
    leaves: list[tuple[NameText, Literal["input", "parameter", "buffer", "constant"], Identity]]
    arrays: list[tuple[Identity, NameText]]
    nodes: list[Node]
    drawn: list[Identity]
    outputs: list[Output]
    calls: list[tuple[NameText, Count, list[Identity], list[Identity]]]


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
    fed: list[NameText]
    layers: dict[NameText, LayerDescription]
    program: Program | None
    reason: Text
    returned: list[Returned]
    outputs: list[Returned]
    layouts: dict[NameText, tuple[Axes | None, list[Length]]]
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
    if x.program is not None:
        yield from _wrong_program(x.program, entries)
    elif not x.outputs:
        yield "it holds no output of its model"
    for found in (*x.returned, *x.outputs):
        if found.tensor not in entries:
            yield f"the array {found.tensor!r} is missing"
    for name, (axes, inner) in x.layouts.items():
        yield from _wrong_layout(name, axes, inner)
    if any(name not in entries for name in x.fed):
        yield "an input of the model is missing"
    if any(name not in entries for name in x.inputs.given.values()):
        yield "an input is missing"
    if x.inputs.form == "array" and list(x.inputs.given) != ["0"]:
        yield "an array alone is input 0"
    if x.inputs.kind == "images" and [len(entries[n].shape) for n in x.inputs.given.values() if n in entries] != [4]:
        yield "images are one array (N, H, W, C)"
    yield from _wrong_learning(x, entries)


def _wrong_layout(name: str, axes: str | None, inner: list[int]) -> Iterator[str]:
    try:
        Layout(axes, tuple(inner))
    except ValueError as error:
        yield f"{name!r}: {error}"
    letters = re.sub(r"[()?]", "", axes or "")
    if len(set(letters)) != len(letters):
        yield f"an axis stands twice in {axes!r}"


def _wrong_program(x: Program, entries: Mapping[str, Entry]) -> Iterator[str]:
    """Values are given once, before they are used, and their arrays are there."""
    shapes = {number: tuple(shape) for number, shape, _ in x.values}
    if len(shapes) != len(x.values):
        yield "a value is described twice"
    given = {number for _, _, number in x.leaves}
    arrays = dict(x.arrays)
    if given - arrays.keys() or given - shapes.keys() or len(given) != len(x.leaves):
        yield "a leaf of the program has no array, or is there twice"
    if any(number not in arrays for number in x.drawn):
        yield "a value that was drawn has no array"
    for number, tensor in x.arrays:
        if number not in shapes or tensor not in entries or entries[tensor].shape != shapes[number]:
            yield f"the array {tensor!r} is missing or has another shape"
    for k, node in enumerate(x.nodes):
        for part in (*node.operands, *node.attributes.values()):
            yield from (f"operator {k}: {wrong}" for wrong in _wrong_part(part, given, entries))
        if any(number in given or number not in shapes for number in node.outputs):
            yield f"what operator {k} gives is not described, or given before"
        given.update(node.outputs)
    if not x.outputs:
        yield "the program gives nothing"
    for output in x.outputs:
        same = output.exact in entries and output.tensor in entries
        if output.value not in given or not same or entries[output.exact].shape != entries[output.tensor].shape:
            yield f"the output {output.path!r} is missing"
    if any(number not in given for _, _, *lists in x.calls for numbers in lists for number in numbers):
        yield "a layer has a value that the program does not give"


def _wrong_part(x: Any, given: set[int], entries: Mapping[str, Entry], depth: int = 0) -> Iterator[str]:
    """Of an operand or an attribute: a number, a text, nothing, several of these, or a reference."""
    if depth > DEEPEST:
        yield f"its operands are nested more than {DEEPEST} deep"
    elif isinstance(x, list):
        for part in x:
            yield from _wrong_part(part, given, entries, depth + 1)
    elif isinstance(x, dict):
        if len(x) != 1 or not _is_reference(*next(iter(x.items())), given, entries):
            yield f"{str(x)[:60]} refers to nothing"
    elif isinstance(x, float) and not math.isfinite(x):
        yield "a number is not finite"
    elif isinstance(x, int) and not -(1 << 63) <= x < 1 << 63:
        yield f"it has the number {x}"


def _is_reference(key: Any, x: Any, given: set[int], entries: Mapping[str, Entry]) -> bool:
    match key:
        case "value":
            return isinstance(x, int) and x in given
        case "array":
            return isinstance(x, str) and x in entries
        case "number":
            return isinstance(x, str) and len(x) < 64 and _is_number(x)
        case "lost":
            return isinstance(x, str)
    return False


def _is_number(x: str) -> bool:
    try:
        complex(x)
    except ValueError:
        return False
    return True


def _wrong_layers(x: About, entries: Mapping[str, Entry]) -> Iterator[str]:
    # No length in a description is larger than what it describes: padding, a size, a number of units.
    largest = max(1024, 2 * max((n for entry in entries.values() for n in entry.shape), default=0))
    for name, layer in x.layers.items():
        if any(tensor not in entries for tensor in layer.weights.values()):
            yield f"a weight of {name!r} is missing"
        if any(not isinstance(layer.config.get(key, ""), str | None) for key in ("activation", "recurrent_activation")):
            yield f"the activation of {name!r} has no name"
        yield from (f"{name!r}: {wrong}" for wrong in _wrong_values(layer.config, largest))


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
