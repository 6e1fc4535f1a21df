"""The two sides of a transfer: the program of each model, its weights, and the inputs that both run on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from agnostic import axes
from agnostic.compare.feeding import returned, stated, ways
from agnostic.compare.inputs import Inputs, native
from agnostic.compare.recording import Record
from agnostic.contracts.inputs import INPUTS
from agnostic.contracts.program import PROGRAM
from agnostic.contracts.weights import WEIGHTS
from agnostic.errors import InvalidInput
from agnostic.models.attached import card_of
from agnostic.models.forms import Input
from agnostic.models.inputs import Size, inputs_of
from agnostic.program.loops import unrolled
from agnostic.program.nodes import Array, Program, Value, substituted
from agnostic.program.passes import simplified, without_identities
from agnostic.registry import Backend, Model
from agnostic.transfer.orders import dimensions

LENGTH, BATCH = 16, 2
"""Of inputs that are made here: the length of a sequence, and how many."""


@dataclass(frozen=True, eq=False)
class ModelReading:
    """A model that was read.

    Attributes:
        name: of the model, for messages.
        framework: its backend's name.
        arrays: parameters and buffers by name.
        program: None where it cannot be read.
        reason: why it cannot be read.
    """

    name: str
    framework: str
    arrays: Mapping[str, Array]
    program: Program | None
    reason: str = ""

    @property
    def is_whole(self) -> bool:
        """Whether all that it computes could be read; a layer that leaves its framework could not."""
        return self.program is not None and all(node.operator != "custom" for node in self.program.nodes)

    @property
    def letters(self) -> list[str | None]:
        """The letters of each input's axes; None where one is unknown."""
        if self.program is None:
            return []
        known = dimensions(self.program)
        return [axes.letters(known[leaf.value]) for leaf in self.program.of_role("input")]


def name_of(model: Model) -> str:
    """The name of a model: its specification, its own name, or its class."""
    card = card_of(model)
    if card is not None:
        return card.spec
    name = vars(model).get("_name") or getattr(model, "name", None)
    return name if isinstance(name, str) else type(model).__name__


def read(backend: Backend, model: Model, inputs: Inputs, name: str) -> ModelReading:
    """Read a model on inputs; what cannot be read has a reason."""
    return _read(backend, model, backend[WEIGHTS].weights(model), inputs, name)


def _read(backend: Backend, model: Model, arrays: Mapping[str, Array], inputs: Inputs, name: str) -> ModelReading:
    try:
        found = _with_weights(unrolled(backend[PROGRAM].program(model, native(inputs))), arrays)
        return ModelReading(name, backend.name, arrays, simplified(found))
    except InvalidInput as error:
        return ModelReading(name, backend.name, arrays, None, str(error))


def _with_weights(program: Program, arrays: Mapping[str, Array]) -> Program:
    """The program with its weights as such, where a reader took them for constants."""
    used = {value for node in program.nodes for value in node.reads}
    free = [leaf for leaf in program.of_role("parameter") if leaf.value not in used and leaf.name in arrays]
    instead: dict[Value, Value] = {}
    for leaf in program.leaves:
        if leaf.role != "constant" or leaf.array is None or leaf.array.dtype.kind != "f":
            continue
        for one in free:
            if one.value.shape == leaf.array.shape and np.array_equal(arrays[one.name], leaf.array):
                instead[leaf.value] = one.value
                free.remove(one)
                break
    return replace(program, nodes=tuple(substituted(node, instead) for node in program.nodes))


def as_run(found: ModelReading, record: Record) -> ModelReading:
    """The same with the operators that ran, where the model could not be read without running it."""
    if found.is_whole or record.program is None:
        return found
    run = record.program.run
    leaves = tuple(
        leaf if leaf.role != "constant" else replace(leaf, array=np.asarray(run.arrays[leaf.value]))
        for leaf in run.program.leaves
    )
    return replace(found, program=without_identities(replace(run.program, leaves=leaves)))


def made(backend: Backend, model: Model, size: Size | None, seed: int, like: Sequence[Input] | None) -> Inputs:
    """Inputs from a seed: normally distributed numbers, and tokens that every table has.

    Args:
        size: height and width of the images; None: the model's own.
        seed: of the numbers.
        like: what the other model declares, which decides where this one leaves a length open.

    Raises:
        InvalidInput: what the model takes is not known.
    """
    near = next((x.size for x in like or () if x.is_image and x.size), None)
    forms = inputs_of(backend, model, size=size, near=near)
    rng = np.random.default_rng(seed)
    arrays: dict[str, Array] = {}
    for k, form in enumerate(forms):
        other = like[k] if like is not None and len(like) == len(forms) else None
        shape = [BATCH, *(_length(form, other, axis) for axis in form.axes[1:])]
        x = rng.integers(1, 10, shape) if form.integer else rng.standard_normal(shape).astype(np.float32)
        arrays[str(k)] = x.astype(np.int64) if form.integer else x
    return Inputs("native", arrays, "array" if len(arrays) == 1 else "tuple")


def _length(form: Input, other: Input | None, axis: str) -> int:
    own = form.length(axis)
    theirs = None if other is None else other.length(axis)
    return own or theirs or LENGTH


def read_alike(
    backend: Backend, model: Model, source: ModelReading, inputs: Inputs, name: str
) -> tuple[ModelReading, Inputs]:
    """The target read on the source's inputs, each with its axes in the target's order.

    Raises:
        InvalidInput: the target takes other inputs.
    """
    own, letters, arrays = stated(backend, model), source.letters, backend[WEIGHTS].weights(model)
    is_named = set(inputs.arrays) == set(backend[INPUTS].input_names(model))
    first: tuple[ModelReading, Inputs] | None = None
    last: ModelReading | None = None
    for moved in ways(list(inputs.arrays.values()), letters, own, source.framework == backend.name):
        form = replace(inputs, arrays=dict(zip(inputs.arrays, moved, strict=True)))
        if form.form == "dict" and backend.name != source.framework and not is_named:
            form = replace(form, form="tuple" if len(moved) > 1 else "array")
        found = _read(backend, model, arrays, form, name)
        if found.program is not None and _agree(letters, inputs, found.letters, moved):
            return found, form
        last = last or found
        if first is None and (found.program is not None or returned(backend, model, form) is not None):
            first = found, form
    if first is not None:
        return first
    shapes = " and ".join(str(x.shape) for x in inputs.arrays.values())
    why = last.reason if last is not None else f"it declares {[x.shape for x in own or ()]}"
    raise InvalidInput(
        f"{name} does not take inputs of shape {shapes}, as {source.name} does ({why[:300]}): give inputs= that both "
        "models take"
    )


def _agree(ours: Sequence[str | None], inputs: Inputs, theirs: Sequence[str | None], moved: Sequence[Array]) -> bool:
    """Whether the axes stand for the same on both sides, as far as that is known."""
    for a, x, b, y in zip(ours, inputs.arrays.values(), theirs, moved, strict=False):
        if a is None or b is None or len(a) != len(b):
            continue
        if x.shape[a.index("C")] != y.shape[b.index("C")] if "C" in a and "C" in b else False:
            return False
    return True
