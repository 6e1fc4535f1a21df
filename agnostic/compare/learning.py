"""What a model learns from one batch: the gradients of a loss, and the weights after some steps of an optimizer.

The loss is half the mean square of each output, added up: any model has it, whatever its outputs mean, and its
gradients reach every weight that the outputs depend on.

They are written as canonical weights are: by the same names and in the same layout as a description has them, since a
conversion of layouts is linear. So gradients of two frameworks can be compared entry by entry.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from agnostic.compare import noise
from agnostic.compare.diagnosis import Finding
from agnostic.compare.inputs import Inputs, prepared
from agnostic.errors import InvalidInput
from agnostic.optimizers.specs import Spec, as_dict

if TYPE_CHECKING:
    from agnostic.compare.recording import Live, Record
    from agnostic.compare.report import Row
    from agnostic.compare.traces import Writer

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Update:
    """Some steps of an optimizer on one batch.

    Attributes:
        optimizer: a specification, such as ``agnostic.optimizers.Adam(1e-3)``.
        steps: how many.
    """

    optimizer: Spec
    steps: int

    def __post_init__(self) -> None:
        if not isinstance(self.optimizer, Spec) or not isinstance(self.steps, int) or self.steps < 1:
            raise InvalidInput(
                "update is (a specification of an optimizer, a number of steps), such as (optimizers.Adam(1e-3), 3), "
                f"not ({self.optimizer!r}, {self.steps!r})"
            )


def write(live: Live, writer: Writer, *, gradients: bool, update: Update | None) -> dict[str, Any]:
    """Add gradients, and weights after the update, to a trace, each with its noise floor.

    The floor is what a change of the inputs by their last bit does.
    """
    found: dict[str, Any] = {}
    jobs: list[tuple[str, Any]] = []
    if gradients:
        jobs.append(("gradients", live.backend.gradients_of_loss))
    if update is not None:
        jobs.append(("updated", lambda model, x: live.backend.weights_after(model, x, update.optimizer, update.steps)))
        found["update"] = {"optimizer": repr(update.optimizer), "steps": update.steps, "spec": _plain(update.optimizer)}
    nudged = Inputs(
        live.inputs.kind,
        {k: _nudged(x, live.inputs.kind) for k, x in live.inputs.arrays.items()},
        live.inputs.form,
        live.inputs.channels_first,
    )
    for what, job in jobs:
        values = canonical(live, job(live.model, prepared(live.backend, live.model, live.inputs)), what)
        again = canonical(live, job(live.model, prepared(live.backend, live.model, nudged)), what)
        entries: dict[str, dict[str, Any]] = {}
        for name, arrays in values.items():
            for entry, x in arrays.items():
                tensor = writer.add(f"{what}/{name}/{entry}", x)
                scale = noise.rms(x)
                floor = max(noise.difference(x, again[name][entry]), noise.least(scale, live.about["dtype"]))
                entries.setdefault(name, {})[entry] = {"tensor": tensor, "rms": scale, "floor": floor}
        found[what] = entries
    return found


def _plain(spec: Spec) -> dict[str, Any]:
    return {"kind": type(spec).__name__, **{k: v for k, v in as_dict(spec).items() if isinstance(v, int | float | str)}}


def _nudged(x: Array, kind: str) -> Array:
    if kind == "images" and x.dtype == np.uint8:
        x = x / np.float32(255)
    moved = noise.nudged(x, noise.unit("float32"))
    return np.clip(moved, 0, 1) if kind == "images" else moved


def canonical(live: Live, values: Mapping[str, Array], what: str) -> dict[str, dict[str, Array]]:
    """Arrays by the framework's own names of weights, as descriptions have them."""
    before = live.backend.weights(live.model)
    # What was not given has no gradient, or was not moved.
    rest = {name: np.zeros_like(x) if what == "gradients" else x for name, x in before.items()}
    try:
        live.backend.set_weights(live.model, {**rest, **{k: x for k, x in values.items() if k in rest}})
        described = live.backend.describe(live.model, live.names)
        return {x.name: {k: np.array(w) for k, w in x.weights.items() if not _statistic(k)} for x in described}
    finally:
        live.backend.set_weights(live.model, before)


def _statistic(entry: str) -> bool:
    return entry.startswith("moving_") or entry in ("mean", "variance")


def _ordered(record: Record, name: str, x: Array) -> Array:
    """Of a layer on flattened inputs: in their canonical order."""
    from agnostic.compare.context import reordered_entry

    step = next(s for s in record.steps if s.name == name)
    return reordered_entry(step.kind, x, step.inputs[0].layout) if step.inputs else x


def rows(a: Record, b: Record, pairs: Mapping[str, str]) -> list[Row]:
    """How far what both traces hold of learning is apart, layer by layer; the worst entry of each.

    Args:
        pairs: B's layer by A's.
    """
    from agnostic.compare.report import Row

    found: list[Row] = []
    assert a.trace is not None
    assert b.trace is not None
    for what in ("gradients", "updated"):
        ours, theirs = (r.trace.about.get("learning", {}).get(what, {}) for r in (a, b) if r.trace is not None)
        for name, other in pairs.items():
            entries = [k for k in ours.get(name, {}) if k in theirs.get(other, {})]
            worst: Row | None = None
            for k in entries:
                x = _ordered(a, name, a.trace.read(ours[name][k]["tensor"]))
                y = _ordered(b, other, b.trace.read(theirs[other][k]["tensor"]))
                error = noise.difference(y, x) if x.shape == y.shape else float("inf")
                floor = max(ours[name][k]["floor"], theirs[other][k]["floor"])
                kind = f"{'gradient' if what == 'gradients' else 'after the update'}: {k}"
                row = Row(name, other, kind, x.shape, None, None, error / floor, error, floor, ours[name][k]["rms"])
                if worst is None or (row.propagated or 0) > (worst.propagated or 0):
                    worst = row
            found += [worst] if worst is not None else []
    return found


def convention(a: Record, b: Record, row: Row) -> Finding | None:
    """Which convention of the optimizer leads to B's weights of one layer, where A's leads elsewhere.

    It is computed from A's weights and gradients, so both must be in A's trace, and the update be one step: the
    gradients of a second one are no longer A's.

    Returns:
        None where the traces do not hold what is needed.
    """
    from agnostic.compare.mistakes.optimizers import explain
    from agnostic.optimizers.specs import KINDS

    if a.trace is None or b.trace is None:
        return None
    ours, theirs = a.trace.about.get("learning", {}), b.trace.about.get("learning", {})
    update, start = ours.get("update"), a.description(row.a).weights
    if not update or update["steps"] != 1 or "gradients" not in ours:
        return None
    entries = [k for k in ours["gradients"].get(row.a, {}) if k in start and k in theirs["updated"].get(row.b, {})]
    if not entries:
        return None
    gradients = [a.trace.read(ours["gradients"][row.a][k]["tensor"]) for k in entries]
    after = [b.trace.read(theirs["updated"][row.b][k]["tensor"]) for k in entries]
    after = [_ordered(b, row.b, x) for x in after]
    gradients = [_ordered(a, row.a, x) for x in gradients]
    begun = [_ordered(a, row.a, start[k]) for k in entries]
    plain = dict(update["spec"])
    spec = KINDS[plain.pop("kind")](**plain)
    found = explain(spec, begun, [gradients], after)
    before = row.propagated or 0.0
    left = found.error / max(row.floor, 1e-300)
    if not found.term or left > before / 3:
        sentence = f"After the update {row.b} has other weights, and no convention that is known leads to them."
        return Finding("unexplained", sentence, "Compare the gradients of the two models.", before, before)
    return Finding(
        "optimizer_convention",
        f"The optimizers differ in one convention, {found.meaning}: {found.b} where A has {found.a}.",
        f"Build it by agnostic.optimizers.build({type(spec).__name__}({found.term}={found.a!r}, ...), model).",
        before,
        left,
    )
