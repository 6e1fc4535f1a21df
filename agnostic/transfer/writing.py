"""The numbers that go from the uses of one program into those of another, each in the target's order.

Only numbers are moved, with these exceptions, which keep what is computed: two biases of a recurrent layer are one in a
framework that has one; a norm with statistics becomes a scale and a shift, or the other way; what only one side has
takes the value without effect; and a bias for which the target has no place is taken off the mean of the batch norm, or
goes through the product, right after it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from agnostic.errors import InvalidWeights
from agnostic.program.nodes import Array, readers_of
from agnostic.transfer.features import orders
from agnostic.transfer.matching import UsePair
from agnostic.transfer.orders import rearranged
from agnostic.transfer.use import Use, after
from agnostic.transfer.uses import Uses
from agnostic.transfer.weights import WeightPart

NEUTRAL: Mapping[str, float] = {
    "bias": 0.0, "second_bias": 0.0, "shift": 0.0, "mean": 0.0, "minus": 0.0, "scale": 1.0, "over": 1.0,
}  # fmt: skip
"""What an array that a layer lacks would hold."""

PRODUCTS = ("product", "convolution", "transposed")
RECURRENT = ("lstm", "gru", "rnn")


@dataclass(eq=False)
class WritePlan:
    """What one use of the target gets.

    Attributes:
        pair: the uses.
        numbers: by role, in the target's order, float64 where they were computed with.
        notes: what was done to them beside moving.
        left: a bias that the target has no place for, until another use takes it.
    """

    pair: UsePair
    numbers: dict[str, Array]
    notes: list[str] = field(default_factory=list)
    left: Array | None = None


def planned(pairs: Sequence[UsePair], source: Uses, target: Uses, names: tuple[str, str]) -> list[WritePlan]:
    """What each use of the target gets.

    Args:
        names: of the source and the target, for messages.

    Raises:
        InvalidWeights: an array has no place in its counterpart.
    """
    moved = orders(pairs, source, target)
    plans = [_plan(pair, source, target, moved.get(id(pair.target))) for pair in pairs]
    for plan in plans:
        if plan.left is not None:
            _hand_on(plan, plans, target, names)
    return plans


def _plan(pair: UsePair, source: Uses, target: Uses, moved: Array | None) -> WritePlan:
    a, b = pair.source, pair.target
    numbers = {role: np.asarray(source.weights.numbers(part)) for role, part in a.parts.items()}
    plan = WritePlan(pair, numbers)
    if a.kind in PRODUCTS:
        _product(plan, b)
    elif a.kind == "norm":
        _norm(plan, b)
    elif a.kind in RECURRENT:
        _recurrent(plan, b)
    _reorder(plan, a, b)
    if moved is not None:
        _follow(plan, moved)
    if "folded" in a.settings:
        plan.notes.append(f"the batch norm {a.settings['folded']!r} is absorbed, since the target has none")
    if len(layers := a.settings.get("merged", ())) > 1:
        plan.notes.append(f"{', '.join(map(repr, layers))} are one here")
    for role, part in b.parts.items():
        if role not in plan.numbers:
            if role not in NEUTRAL and role != "variance":
                raise InvalidWeights(_no_place(pair, role))
            shape = target.weights.numbers(part).shape
            value = 1 - b.settings.get("epsilon", 0.0) if role == "variance" else NEUTRAL[role]
            plan.numbers[role] = np.full(shape, value)
            plan.notes.append(f"{role} set to a value without effect, since the source has none")
    for role in [role for role in plan.numbers if role not in b.parts]:
        x = plan.numbers.pop(role)
        if a.kind == "norm" and role == "variance":
            continue
        if role not in NEUTRAL or (x != NEUTRAL[role]).any():
            raise InvalidWeights(_no_place(pair, role))
    return plan


def _no_place(pair: UsePair, role: str) -> str:
    a, b = pair.source, pair.target
    have, lack = (b, a) if role in b.parts else (a, b)
    sides = ("the target", "the source") if role in b.parts else ("the source", "the target")
    return (
        f"{have.layer!r} of {sides[0]} has a {role}, and {lack.layer!r} of {sides[1]} has none: the two must have the "
        "same architecture; no weight was changed"
    )


def _product(plan: WritePlan, b: Use) -> None:
    bias = plan.numbers.get("bias")
    if bias is not None and "bias" not in b.parts:
        plan.numbers.pop("bias")
        if (bias != 0).any():
            plan.left = bias


def _norm(plan: WritePlan, b: Use) -> None:
    """A norm with statistics, where the target has none, or the other way round."""
    a, numbers = plan.pair.source, plan.numbers
    if "variance" in numbers and "variance" not in b.parts:
        deviation = np.sqrt(numbers.pop("variance").astype(np.float64) + a.settings["epsilon"])
        scale = numbers.get("scale", np.ones(deviation.size)) / deviation
        numbers["shift"] = numbers.get("shift", np.zeros(deviation.size)) - numbers.pop("mean", 0.0) * scale
        numbers["scale"] = scale
        plan.notes.append("statistics are absorbed by its scale and shift, since the target has none")
    scale = numbers.get("scale")
    if scale is not None and "scale" not in b.parts and "variance" in numbers and (scale > 0).all():
        if (scale != 1).any():
            variance = (numbers["variance"].astype(np.float64) + a.settings["epsilon"]) / np.square(scale, dtype=float)
            numbers["variance"] = variance - b.settings["epsilon"]
            plan.notes.append("scale and epsilon are absorbed by its variance, since the target has no scale")
        numbers.pop("scale")


def _recurrent(plan: WritePlan, b: Use) -> None:
    a, numbers = plan.pair.source, plan.numbers
    resets = [use.settings.get("reset_after") for use in (a, b)]
    if None not in resets and resets[0] != resets[1]:
        before, fix = (b, "make it with reset_after=True") if resets[0] else (a, "train it with reset_after=True")
        raise InvalidWeights(
            f"{before.layer!r} is a GRU that resets its state before the recurrent product, and its counterpart does "
            f"so after it, which no weights make up for: {fix}; no weight was changed"
        )
    if "second_bias" in numbers and "second_bias" not in b.parts:
        if plan.pair.source.kind == "gru":
            raise InvalidWeights(
                f"{b.layer!r} is a GRU with one bias, which has no counterpart: make it with reset_after=True; "
                "no weight was changed"
            )
        numbers["bias"] = numbers["bias"] + numbers.pop("second_bias")
        plan.notes.append("two biases added up")


def _reorder(plan: WritePlan, a: Use, b: Use) -> None:
    """The features that come in, and those that go out, in the target's order."""
    numbers = plan.numbers
    rows, columns = rearranged(a.rows_order, b.rows_order), rearranged(a.columns_order, b.columns_order)
    if a.kind in PRODUCTS or a.kind in RECURRENT:
        if rows is not None and numbers["kernel"].shape[1] == rows.size:
            numbers["kernel"] = numbers["kernel"][:, rows]
            plan.notes.append("rows reordered from one flatten order to the other")
        if columns is not None and a.kind == "product":
            numbers |= {role: x[columns] for role, x in numbers.items() if len(x) == columns.size}
            plan.left = plan.left if plan.left is None else plan.left[columns]
            plan.notes.append("columns reordered from one order of an image to the other")
    elif columns is not None:
        moved = {role: x[columns] for role, x in numbers.items() if x.shape == columns.shape}
        if moved:
            numbers |= moved
            plan.notes.append("reordered from one order of an image to the other")
    if a.kind == "slope":
        _slope(plan, b)


def _follow(plan: WritePlan, moved: Array) -> None:
    """Features that come in another order, since the target concatenates in another order."""
    kernel = plan.numbers.get("kernel")
    if kernel is None or (kernel.shape[1] != moved.size and kernel.shape[0] == moved.size):
        found = {role: x[moved] for role, x in plan.numbers.items() if x.ndim and len(x) == moved.size}
    else:
        found = {"kernel": kernel[:, moved]} if kernel.shape[1] == moved.size else {}
    if found:
        plan.numbers |= found
        plan.notes.append("reordered, since the parts of a concatenation come in another order")


def _slope(plan: WritePlan, b: Use) -> None:
    """The slopes of a PReLU: one, one for each channel, or one for each number, of which many may be equal."""
    x = plan.numbers["slope"]
    wanted = b.settings["size"]
    ours, theirs = plan.pair.source.settings["channels"], b.settings["channels"]
    if x.size == wanted:
        return
    by_channel = x.reshape(-1, ours) if x.size >= ours else x.reshape(1, -1)
    if x.size > wanted and (by_channel == by_channel[0]).all():
        x = by_channel[0]
    if x.size not in (1, theirs) or wanted % x.size:
        raise InvalidWeights(_no_place(plan.pair, "slope"))
    plan.numbers["slope"] = np.tile(x, wanted // x.size)


# A bias that has no place --------------------------------------------------------------------------------------------
def _hand_on(plan: WritePlan, plans: Sequence[WritePlan], target: Uses, names: tuple[str, str]) -> None:
    after = _directly_after(plan.pair.target, target)
    other = next((p for p in plans if after is not None and p.pair.target is after), None)
    bias = plan.left
    assert bias is not None
    plan.left = None
    if other is not None and "mean" in other.numbers and other.pair.target.kind == "norm":
        other.numbers["mean"] = other.numbers["mean"].astype(np.float64) - bias
        plan.notes.append(f"bias subtracted from the mean of {other.pair.target.layer!r}, since the target has none")
        return
    kernel = None if other is None else other.numbers.get("kernel")
    if other is not None and kernel is not None and other.pair.target.kind == "product":
        through = kernel.astype(np.float64) @ bias
        plan.notes.append("the bias is absorbed by the next part, since the target has none here")
        if "bias" in other.numbers:
            other.numbers["bias"] = other.numbers["bias"] + through
        else:
            other.left = through if other.left is None else other.left + through
            _hand_on(other, plans, target, names)
        return
    raise InvalidWeights(
        f"{plan.pair.source.layer!r} of {names[0]} has a bias, {plan.pair.target.layer!r} of {names[1]} none, and no "
        "batch norm right after it can absorb it: give the layer a bias; no weight was changed"
    )


def _directly_after(use: Use, found: Uses) -> Use | None:
    """The only use of what a use gives, with nothing in between but moves of its numbers."""
    node = after(readers_of(found.program.nodes), {value for _, value in found.program.outputs}, use.outputs[0])
    return None if node is None else next((u for u in found.uses if u.nodes[0] is node), None)


# Into the arrays -----------------------------------------------------------------------------------------------------
def written(
    plans: Sequence[WritePlan], source: Uses, target: Uses, computed: Mapping[str, str]
) -> dict[str, Array]:  # fmt: skip
    """The target's weights by name, with what it gets.

    Args:
        computed: see :meth:`agnostic.contracts.transfer.Transfers.computed`.

    Raises:
        InvalidWeights: numbers have no place.
    """
    weights = target.weights
    names = {n for plan in plans for n in plan.pair.target.names(weights)}
    arrays = {name: np.array(weights.arrays[name], order="C") for name in names}
    whole: dict[str, Array] = {}
    placed: list[tuple[WritePlan, str, Array]] = []
    for plan in plans:
        for role, part in plan.pair.target.parts.items():
            numbers, places = plan.numbers[role], weights.places(part)
            if places is None:
                undone = weights.undone(part, numbers) if computed.keys().isdisjoint(_names(part, target)) else None
                if undone is None:
                    whole |= _whole(plan, role, numbers, target, computed)
                else:
                    weights.put(arrays, *undone)
                continue
            weights.put(arrays, places, numbers)
            placed.append((plan, role, numbers))
    for plan, role, numbers in placed:
        now = plan.pair.target.parts[role].form(weights.value(plan.pair.target.parts[role].value, arrays))  # type: ignore[arg-type]
        if not np.array_equal(now, np.broadcast_to(numbers, now.shape).astype(now.dtype)):
            raise InvalidWeights(
                f"the {role} of {plan.pair.source.layer!r} has no place in {plan.pair.target.layer!r}, which "
                f"{_why(plan)}; no weight was changed"
            )
    _complete(placed, arrays, source, target)
    return {name: x for name, x in arrays.items() if name not in computed} | whole


def _complete(
    placed: Sequence[tuple[WritePlan, str, Array]], arrays: dict[str, Array], source: Uses, target: Uses
) -> None:  # fmt: skip
    """Write the rest of arrays of which these inputs use a part, such as a table of positions.

    Raises:
        InvalidWeights: the source's array is of another size.
    """
    parts: dict[str, list[tuple[Array, WritePlan, str]]] = {}
    for plan, role, _ in placed:
        places = target.weights.places(plan.pair.target.parts[role])
        assert places is not None
        for name, (_, own) in target.weights.inside(places).items():
            parts.setdefault(name, []).append((own, plan, role))
    for name, found in parts.items():
        used = np.unique(np.concatenate([own for own, _, _ in found]))
        before = target.weights.arrays[name]
        if used.size == before.size or np.allclose(arrays[name], before, atol=1e-6):
            continue
        _, plan, role = found[0]
        theirs = source.weights.places(plan.pair.source.parts[role])
        inside = {} if theirs is None else source.weights.inside(theirs)
        other, (_, own) = next(iter(inside.items()), ("", (used, used)))
        whole = source.weights.arrays.get(other, used)
        if whole.shape != before.shape or not np.array_equal(np.unique(own), used):
            raise InvalidWeights(
                f"{name!r} of the target has the shape {before.shape}, and {other or plan.pair.source.layer!r} of the "
                f"source {whole.shape}, so that {before.size - used.size:,} of its numbers get no value: make the "
                "target with as many positions, or interpolate the source's array first; no weight was changed"
            )
        rest = np.setdiff1d(np.arange(before.size), used)
        arrays[name].reshape(-1)[rest] = whole.reshape(-1)[rest]


def _why(plan: WritePlan) -> str:
    if plan.pair.target.kind == "transposed":
        return "computes in groups: make the layer with groups=1"
    return "shares it with another layer that gets other numbers"


def _names(part: WeightPart, target: Uses) -> frozenset[str]:
    return frozenset() if part.value is None else target.weights.names(part.value) or frozenset()


def _whole(plan: WritePlan, role: str, numbers: Array, target: Uses, computed: Mapping[str, str]) -> dict[str, Array]:
    """A weight that is computed from others, as it is to be."""
    part = plan.pair.target.parts[role]
    names = _names(part, target)
    made = {computed.get(name) for name in names}
    if part.value is None or len(made) != 1 or None in made:
        raise InvalidWeights(
            f"the {role} of {plan.pair.target.layer!r} is computed from other weights in such a way that it cannot be "
            "set; no weight was changed"
        )
    (name,) = made
    assert name is not None
    return {name: part.backwards(numbers, 0.0)}
