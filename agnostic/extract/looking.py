"""The first batch: what layers return for it, and so what a store can hold of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from agnostic.arrays import dtype_name
from agnostic.contracts.taps import TAPS, ListingLoop
from agnostic.errors import InvalidInput
from agnostic.extract.inputs import Preparation
from agnostic.extract.parts import Forward, forward_of
from agnostic.extract.reading import ReadBatch
from agnostic.layers import Layer, chooses_many
from agnostic.models.inputs import run_layers
from agnostic.registry import Backend, Model, array_owner
from agnostic.taps.choosing import called, choose, keyed, names_of
from agnostic.taps.refusals import refusals
from agnostic.taps.stores import StoredTap
from agnostic.text import counted

_FEW = 3
"""Samples that tell whether an axis of an output is that of the samples: their number is no usual length."""


@dataclass
class FirstBatch:
    """A batch that the model ran on, for whoever computes it next.

    Attributes:
        batch: the samples.
        forward: what ran the model, prepared for the layers of the store.
        outputs: of it; None where it ran for other layers too, or once they are taken.
    """

    batch: ReadBatch
    forward: Forward
    outputs: Mapping[str, Sequence[Any]] | None

    def take(self, batch: ReadBatch) -> Mapping[str, Sequence[Any]] | None:
        """The outputs for a batch, once; None where they are not known."""
        found = self.outputs if batch is self.batch else None
        if found is not None:
            self.outputs = None
        return found


def looked(
    backend: Backend,
    model: Model,
    asked: Sequence[Any],
    batch: ReadBatch,
    preparation: Preparation,
    reduce: tuple[str, ...],
    compute: str | None,
) -> tuple[dict[str, StoredTap], dict[str, str], FirstBatch]:
    """The calls of layers that are stored, by key; why others that a glob chose are not; and the batch.

    Raises:
        UnknownName: a selector chooses no layer.
        InvalidInput: the model does not take the batch, a layer that was asked for by its name cannot be stored, or
            none can.
    """
    inputs = preparation.native(backend, model, batch.inputs)
    with refusals(backend, model, inputs):
        chosen = choose(backend, model, asked, inputs, inside_globs=True)
        names = names_of(chosen)
        forward = forward_of(backend, model, names, compute)
        outputs = forward(inputs)
        listed = forward.layers if isinstance(forward, ListingLoop) else run_layers(backend, model, inputs)
    known = {x.name: x for x in listed}
    ran = keyed(called(chosen, lambda layer: bool(outputs[layer.name])))
    layers = {key: known.get(layer.name, layer) for key, layer in ran.items()}
    calls = {
        key if number == 0 else f"{key}#{number}": (layer, number, x)
        for key, layer in layers.items()
        for number, x in enumerate(outputs[layer.name])
    }
    chance = _without_samples(backend, model, calls, batch, preparation)
    many = all(isinstance(x, str) and chooses_many(x) for x in asked)
    taps: dict[str, StoredTap] = {}
    left_out: dict[str, str] = {}
    for name, (layer, number, x) in calls.items():
        problem = _problem(layer, x, len(batch.names), name in chance, reduce)
        if problem is None:
            taps[name] = _tap(layer, number, x)
        elif many:
            left_out[name] = problem
        else:
            raise InvalidInput(f"layer {layer.name!r} cannot be stored: {problem}")
    if not taps:
        name, problem = next(iter(left_out.items()))
        raise InvalidInput(f"none of {counted(len(left_out), 'layer')} can be stored: of {name!r}, {problem}")
    stored = list(dict.fromkeys(tap.name for tap in taps.values()))
    if stored == names:
        return taps, left_out, FirstBatch(batch, forward, outputs)
    # Numbers must be those of a run that goes on, which computes these layers and no others.
    return taps, left_out, FirstBatch(batch, forward_of(backend, model, stored, compute), None)


def _tap(layer: Layer, number: int, x: Any) -> StoredTap:
    axes = layer.axes if layer.axes is not None and len(layer.axes) == len(x.shape) else None
    first = 0 if axes is None else axes.index("N")
    shape = tuple(int(n) for i, n in enumerate(x.shape) if i != first)
    return StoredTap(layer.name, number, layer.kind, axes, shape, dtype_name(x) or str(x.dtype))


def _is_array(x: Any) -> bool:
    return array_owner(x) is not None or isinstance(x, np.ndarray)


def _without_samples(
    backend: Backend,
    model: Model,
    calls: Mapping[str, tuple[Layer, int, Any]],
    batch: ReadBatch,
    preparation: Preparation,
) -> set[str]:
    """The calls of layers whose axes are not known, and whose first axis has the length of the batch by chance."""
    count = len(batch.names)
    unsure = {
        key: (layer, number)
        for key, (layer, number, x) in calls.items()
        if layer.axes is None and _is_array(x) and len(x.shape) and int(x.shape[0]) == count > _FEW
    }
    if not unsure:
        return set()
    few = preparation.native(backend, model, batch.inputs[:_FEW])
    record = backend[TAPS].capture(model, few, list(dict.fromkeys(layer.name for layer, _ in unsure.values())))

    def by_chance(layer: Layer, number: int) -> bool:
        found = record.calls(layer.name)
        return len(found) <= number or tuple(found[number].shape)[:1] != (_FEW,)

    return {key for key, call in unsure.items() if by_chance(*call)}


def _problem(layer: Layer, x: Any, batch: int, by_chance: bool, reduce: tuple[str, ...]) -> str | None:
    """Why the output of a layer cannot be stored; None where it can."""
    if not _is_array(x):
        return f"it returns {type(x).__name__}, and an array is expected"
    axes = layer.axes
    samples = x.shape[axes.index("N")] if axes and "N" in axes else x.shape[0] if len(x.shape) and not axes else None
    if samples is None or int(samples) != batch or by_chance:
        return f"its output {tuple(map(int, x.shape))} has no axis for the {counted(batch, 'sample')} of the batch"
    if 0 in x.shape:
        return f"its output {tuple(map(int, x.shape))} has no numbers"
    if "values" not in reduce and (axes is None or "C" not in axes):
        known = "its axes are not known" if axes is None else f"its axes {axes} have no channels"
        return f"{known}, and only reduce='values' does without"
    return None
