"""The recording of the source: its weights, and the inputs and outputs of its layers in one run.

A recording can be written to a file, so that the two frameworks need not share a process.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agnostic.errors import InvalidInput
from agnostic.files import atomic_path, safetensors_as_os_errors
from agnostic.models.attached import card_of
from agnostic.models.cards import ModelCard, card_from_json, card_to_json
from agnostic.text import counted
from agnostic.transfer.access import Access, Array, InputSpec, WeightGroup

UNIT = 2.0**-24
"""The unit roundoff of float32."""

SIZE, LENGTH, BATCH = 224, 16, 2
"""Of inputs that are made here: height and width, length of a sequence, and how many."""


@dataclass(frozen=True)
class RecordedCall:
    """One call of a layer.

    Attributes:
        layer: its name.
        x, y: its first input and its first output, before a fused activation; channels last.
        floor: the difference between float32 and float64 outputs for the same input, relative to the largest magnitude;
            0 if it was not measured.
    """

    layer: str
    x: Array
    y: Array
    floor: float = 0.0


@dataclass(frozen=True)
class Recording:
    """One model and one run of it.

    Attributes:
        name: of the model, for messages.
        framework: ``"torch"`` or ``"keras"``.
        slots: in the order in which their layers first ran; those that did not run, and bare parameters, come last.
        calls: in the order in which they ended.
        inputs, outputs: of the model.
        truth: the outputs in float64; None where they cannot be had.
        floor: what float32 does to the outputs, relative to their greatest magnitude.
        card: of the model, which belongs to the weights.
    """

    name: str
    framework: str
    slots: tuple[WeightGroup, ...]
    calls: tuple[RecordedCall, ...]
    inputs: tuple[Array, ...]
    outputs: tuple[Array, ...]
    truth: tuple[Array, ...] | None
    floor: float
    card: ModelCard | None = None

    def of(self, layer: str, number: int = 0) -> RecordedCall | None:
        """A layer's call of that number, or its last where there are fewer; None for a layer that did not run."""
        found = [call for call in self.calls if call.layer == layer]
        return found[min(number, len(found) - 1)] if found else None


def distance(a: Array, b: Array) -> float:
    """The greatest difference relative to the greatest magnitude of ``b``; infinite for NaN."""
    if a.size == 0:
        return 0.0
    scale = float(np.abs(b).max())
    worst = float(np.abs(a.astype(np.float64) - b.astype(np.float64)).max())
    found = worst / scale if scale else worst
    return found if np.isfinite(found) else float("inf")


def record(source: Access, inputs: Sequence[Array], name: str) -> Recording:
    """Run the source once in its own type, and once or twice more for the noise floor.

    Raises:
        InvalidInput: two runs of the model differ, it returns no arrays, or numbers that are not finite.
    """
    layers = list(dict.fromkeys(slot.layer for slot in source.slots if slot.layer))
    calls: list[RecordedCall] = []

    def keep(layer: str, x: Array, run: Any) -> None:
        calls.append(RecordedCall(layer, x, run(None)))

    outputs = source.run(inputs, layers, keep)
    if not outputs:
        raise InvalidInput(f"{name} returns no arrays, so nothing can be verified")
    for x in (*inputs, *outputs):
        if x.dtype.kind == "f" and not np.isfinite(x).all():
            what = "the inputs are" if any(x is y for y in inputs) else f"{name} returns what is"
            raise InvalidInput(f"{what} not finite (NaN or infinity), so nothing can be verified")
    exact = source.exact()
    if exact is None:
        truth, floor = None, _perturbed(source, inputs, layers, outputs, name)
    else:
        calls, truth = _floors(exact, inputs, layers, calls)
        floor = max(distance(a, b) for a, b in zip(outputs, truth, strict=True))
        _check_repeatable(source.run(inputs), outputs, name)
    order = {layer: number for number, layer in enumerate(dict.fromkeys(call.layer for call in calls))}
    slots = sorted(source.slots, key=lambda slot: order.get(slot.layer, len(order)))
    return Recording(
        name, source.framework, tuple(slots), tuple(calls), tuple(inputs), tuple(outputs),
        None if truth is None else tuple(truth), floor, card_of(source.model),
    )  # fmt: skip


def _check_repeatable(again: Sequence[Array], outputs: Sequence[Array], name: str) -> None:
    # Threads may add in another order, which is rounding; a random layer is not.
    if any(distance(a, b) > 1e-3 for a, b in zip(again, outputs, strict=True)):
        raise InvalidInput(f"{name} computes something else each time for the same inputs: remove the random part")


def _floors(
    exact: Access, inputs: Sequence[Array], layers: Sequence[str], calls: Sequence[RecordedCall]
) -> tuple[list[RecordedCall], list[Array]]:
    """The calls with their floors, and the outputs, in float64."""
    measured: list[RecordedCall] = []
    left = iter(calls)

    def both(layer: str, x: Array, run: Any) -> None:
        call = next(left)
        measured.append(RecordedCall(layer, call.x, call.y, distance(call.y, run(call.x))))
        run(None)  # what goes on is the float64 run of the whole model

    truth = exact.run(inputs, layers, both)
    return measured, truth


def _perturbed(
    source: Access, inputs: Sequence[Array], layers: Sequence[str], outputs: Sequence[Array], name: str
) -> float:
    """What becomes of one rounding error in every layer: where there is no float64, this is the floor."""
    rng = np.random.default_rng(0)

    def moved(layer: str, x: Array, run: Any) -> Array:
        y: Array = run(None)
        return (y * (1 + UNIT * rng.standard_normal(y.shape))).astype(y.dtype)

    again = source.run(inputs, layers, moved)
    _check_repeatable(again, outputs, name)
    return max(distance(a, b) for a, b in zip(again, outputs, strict=True))


def make_inputs(first: Sequence[InputSpec], second: Sequence[InputSpec], seed: int = 0) -> list[Array]:
    """Inputs that both models take, from a seed: normally distributed numbers, and uniformly distributed tokens.

    Args:
        first, second: what the models declare; where the first leaves a size open, the second decides.

    Raises:
        InvalidInput: the models take different inputs.
    """
    if len(first) != len(second):
        raise InvalidInput(f"one model takes {counted(len(second), 'input')} and the other {len(first)}")
    rng = np.random.default_rng(seed)
    made: list[Array] = []
    for a, b in zip(first, second, strict=True):
        if len(a.shape) != len(b.shape):
            raise InvalidInput(f"one model takes inputs of shape {b.shape}, the other of {a.shape}: give inputs=")
        default = SIZE if len(a.shape) > 2 else LENGTH
        shape = []
        for x, y in zip(a.shape, b.shape, strict=True):
            fixed = x if x is not None else y
            shape.append(default if fixed is None else fixed)
        for x, size in zip(b.shape[-1:], shape[-1:], strict=True):
            if x not in (None, size):
                raise InvalidInput(f"one model takes inputs of {x} channels or features, the other of {size}")
        highs = [high for high in (a.high, b.high) if high is not None]
        if highs:
            made.append(rng.integers(1, min(highs), (BATCH, *shape)).astype(np.int32))
        else:
            made.append(rng.standard_normal((BATCH, *shape)).astype(np.float32))
    return made


# Files --------------------------------------------------------------------------------------------------------------
def save(recording: Recording, path: Path) -> None:
    """Write a recording, as safetensors with what is no array as JSON in its metadata."""
    from safetensors.numpy import save_file

    arrays: dict[str, Array] = {}
    for n, slot in enumerate(recording.slots):
        arrays |= {f"slots/{n}/{name}": x for name, x in slot.weights.items()}
    for n, call in enumerate(recording.calls):
        arrays |= {f"calls/{n}/x": call.x, f"calls/{n}/y": call.y}
    for what in ("inputs", "outputs", "truth"):
        arrays |= {f"{what}/{n}": x for n, x in enumerate(getattr(recording, what) or ())}
    about = {
        "name": recording.name, "framework": recording.framework, "floor": recording.floor,
        "truth": recording.truth is not None,
        "slots": [[s.name, s.kind, s.layer, list(s.weights), dict(s.config)] for s in recording.slots],
        "calls": [[c.layer, c.floor] for c in recording.calls],
        "card": None if (card := recording.card) is None else [card.spec, card_to_json(card)],
        "counts": [len(recording.inputs), len(recording.outputs)],
    }  # fmt: skip
    plain = {name: np.ascontiguousarray(x) for name, x in arrays.items()}
    with atomic_path(path) as temporary, safetensors_as_os_errors():
        save_file(plain, temporary, metadata={"agnostic": json.dumps(about)})


def load(path: Path) -> Recording:
    """Read what :func:`save` wrote.

    Raises:
        InvalidInput: it is no whole recording.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            about = json.loads((file.metadata() or {})["agnostic"])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
        return _assembled(about, arrays)
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise InvalidInput(f"{path} is no whole recording of a model ({error}): record it again") from None


def _assembled(about: Mapping[str, Any], arrays: Mapping[str, Array]) -> Recording:
    slots = tuple(
        WeightGroup(name, kind, layer, {k: arrays[f"slots/{n}/{k}"] for k in weights}, _tuples(config))
        for n, (name, kind, layer, weights, config) in enumerate(about["slots"])
    )
    calls = tuple(
        RecordedCall(layer, arrays[f"calls/{n}/x"], arrays[f"calls/{n}/y"], floor)
        for n, (layer, floor) in enumerate(about["calls"])
    )
    inputs, outputs = about["counts"]
    return Recording(
        about["name"], about["framework"], slots, calls,
        tuple(arrays[f"inputs/{n}"] for n in range(inputs)), tuple(arrays[f"outputs/{n}"] for n in range(outputs)),
        tuple(arrays[f"truth/{n}"] for n in range(outputs)) if about["truth"] else None, about["floor"],
        None if (card := about["card"]) is None else card_from_json(card[1], card[0]),
    )  # fmt: skip


def _tuples(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _tuples(x) for key, x in value.items()}
    return tuple(_tuples(x) for x in value) if isinstance(value, list) else value
