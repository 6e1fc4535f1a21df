"""``agnostic.transfer``: copy the weights of one model into another, and check by running both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from agnostic.contracts.transfer import TRANSFER
from agnostic.errors import AgnosticError, InvalidInput, InvalidWeights
from agnostic.models.architecture import same_padding
from agnostic.models.attached import attach, card_of
from agnostic.registry import Model, facts_of, model_backend
from agnostic.text import counted
from agnostic.transfer.access import Access, Array, WeightGroup
from agnostic.transfer.layouts import KINDS
from agnostic.transfer.matching import (
    SAME,
    Arrangement,
    Candidate,
    arranged,
    best,
    by_name,
    converted_weights,
    filled,
    folded,
    parameters_in_order,
    relative_distance,
    without_bias,
)
from agnostic.transfer.recording import UNIT, RecordedCall, Recording, distance, make_inputs, record
from agnostic.transfer.report import TransferReport, TransferRow

ALLOWED = 16.0
"""How many times the noise floor an error may be.

Two correct float32 programs of one layer differ in the order of their sums. A floor is the greater of what was measured
in the source, float32 against float64, and LEAST. In the eight twins of docs/transfer.md, on three engines, the worst
layer was 5.2 of its floors off (scripts/transfer-table.py --twins says which); an epsilon of 1e-3 for 1e-5,
with variances near 1, is 1000 floors.
"""

RECURRENT = ("lstm", "gru", "rnn")

PASSES = 64
"""How many other choices are tried at most where branches begin alike."""

LEAST = 8 * UNIT
"""The least floor: a measured one can be zero by luck. Of the sums of a layer, blocked by 8 and more, u log2(n) is what
remains of n roundings, and log2(n) is 8 and more wherever layers are wide enough to matter."""


def transfer(source: Model, target: Model, *, inputs: Any = None) -> TransferReport:
    """Copy the weights of one model into another of the same architecture, and check by running both.

    It works in both directions between PyTorch and Keras, and within each. Layers are matched by name if all names
    agree. Otherwise the target runs on the inputs of the source, and each of its layers gets the weights of the source
    layer that received the same input; names and order decide between several. Finally both models run and their
    outputs are compared, since equal shapes prove nothing.

    Args:
        source: a native model.
        target: a native model, built. Its weights are replaced. Its card is replaced by the source's, if that has one,
            since the preparation of images belongs to the weights.
        inputs: the inputs of the source, in its own layout: an array, native or NumPy, or a tuple of them. None: random
            inputs with a batch of two, from a fixed seed, of the size that the models declare, or 224.

    Returns:
        A report with the matches, the error of each layer and of the outputs, and the fixes if the architectures
        differ. It prints as a table; ``report.verified`` is the verdict.

    Raises:
        InvalidWeights: layers have no counterpart; the message names them. The target is unchanged.
        InvalidInput: the models do not take the inputs, or cannot run in one process.

    Example:
        >>> target = copy.deepcopy(model)
        >>> nn.init.zeros_(target.head.weight)
        Parameter containing:
        ...
        >>> report = ag.transfer(model, target, inputs=ag.prepare(model, images))
        >>> report.verified
        True
    """
    there, here = (model_backend(model)[TRANSFER].access(model) for model in (source, target))
    given = _inputs(there, here, inputs)
    return into(here, record(there, given, name_of(source)), name_of(target))


def name_of(model: Model) -> str:
    """The name of a model: its specification, its own name, or its class."""
    from agnostic.models.attached import card_of

    card = card_of(model)
    if card is not None:
        return card.spec
    name = vars(model).get("_name") or getattr(model, "name", None)
    return name if isinstance(name, str) else type(model).__name__


def _inputs(there: Access, here: Access, inputs: Any) -> list[Array]:
    if inputs is not None:
        return there.canonical(inputs)
    try:
        second = there.inputs()
    except InvalidInput:
        second = here.inputs()
    try:
        first = here.inputs()
    except InvalidInput:
        first = second
    return make_inputs(first, second)


def into(target: Access, recording: Recording, name: str) -> TransferReport:
    """The second half of :func:`transfer`: from a recording of the source, perhaps made in another process.

    Args:
        name: of the target, for messages.
    """
    before = {slot.name: slot for slot in target.slots}
    try:
        return _Transfer(target, recording, name).report()
    except BaseException:
        for slot in before.values():
            target.write(slot, slot.weights)
        raise


@dataclass(frozen=True)
class _Match:
    """A slot of the target's counterpart.

    Attributes:
        less: the source's bias, for which the target has no place: what follows must take it.
        more: what this slot takes of such a bias: onto its own bias, or off its mean.
        passed: whether another part of the same layer has taken the bias.
    """

    source: WeightGroup
    how: Literal["name", "data", "order"]
    arrangement: Arrangement = SAME
    less: Array | None = None
    more: Array | None = None
    passed: bool = False


@dataclass(frozen=True)
class _PendingBias:
    """A bias that a layer of the target had no place for, and the output that lacks it."""

    layer: str
    bias: Array
    y: Array


@dataclass
class _Seen:
    """What the pass saw of one layer of the target."""

    error: float | None = None
    input_error: float | None = None
    floor: float = 0.0
    shape: tuple[int, ...] = ()
    notes: list[str] = field(default_factory=list)


class _Prepared(Exception):
    """The target prepares its inputs by itself: ``its = given * gain + offset``, per channel."""

    def __init__(self, gain: Array, offset: Array) -> None:
        super().__init__()
        self.gain, self.offset = gain, offset


class _Transfer:
    def __init__(self, target: Access, recording: Recording, name: str) -> None:
        self.target, self.recording, self.name = target, recording, name
        self.slots = list(target.slots)
        self.by_layer: dict[str, list[WeightGroup]] = {}
        for slot in self.slots:
            if slot.layer and slot.kind != "normalization":
                self.by_layer.setdefault(slot.layer, []).append(slot)
        self.of_source: dict[str, list[WeightGroup]] = {}
        for slot in recording.slots:
            self.of_source.setdefault(slot.layer, []).append(slot)
        self.position = {slot.name: number for number, slot in enumerate(recording.slots)}
        self.matches: dict[str, _Match] = {}
        self.seen: dict[str, _Seen] = {}
        self.order: list[str] = []
        self.overrides: dict[str, dict[str, Any]] = {}
        self.notes: list[str] = []
        self.inputs = list(recording.inputs)
        self.prepared: _Prepared | None = None
        self.ties: dict[str, list[str]] = {}
        self.forced: dict[str, str] = {}
        self.pooled: list[tuple[str, Array, Array]] = []
        self.pending: list[_PendingBias] = []
        self.absorbed: dict[str, str] = {}
        self.tried: set[tuple[str, str, int]] = set()

    # Matching -------------------------------------------------------------------------------------------------------
    def report(self) -> TransferReport:
        self._match_what_needs_no_run()
        try:
            self._pass()
        except _Prepared as prepared:
            self._unprepare(prepared)
            self._pass()
        self._reconsider()
        self._finish_what_did_not_run()
        self._check_complete()
        report = self._verified()
        self._hand_over_card()
        return report

    def _match_what_needs_no_run(self) -> None:
        counted = [slot for slot in self.slots if slot.kind != "normalization"]
        named = by_name(self.recording.slots, counted)
        if named is not None:
            for slot in counted:
                self._match(slot, named[slot.name], "name")
        else:
            wanted = [slot for slot in counted if slot.kind == "parameter"]
            known = [slot for slot in self.recording.slots if slot.kind == "parameter"]
            found = parameters_in_order(known, wanted)
            self.matches = {name: _Match(source, "order") for name, source in found.items()}
        for slot in self.slots:
            if slot.kind == "normalization":
                self._normalization(slot)
            elif slot.kind == "parameter" and slot.name in self.matches:
                self._write(slot, self.matches[slot.name])

    def _normalization(self, slot: WeightGroup) -> None:
        fitting = [
            s for s in self.recording.slots if s.kind == "normalization" and converted_weights(s, slot) is not None
        ]
        free = [s for s in fitting if s.name not in {m.source.name for m in self.matches.values()}]
        if free:
            self.matches[slot.name] = _Match(free[0], "order")
            self._write(slot, self.matches[slot.name])

    def _unmatched(self) -> list[WeightGroup]:
        taken = {match.source.name for match in self.matches.values()}
        return [slot for slot in self.recording.slots if slot.name not in taken]

    def _converted(self, source: WeightGroup, target: WeightGroup) -> dict[str, Array] | None:
        """The source's weights as the target's; without their bias, if the target has no place for it but may pass."""
        found = converted_weights(source, target)
        if found is None and target.layer and (bare := without_bias(source, target)) is not None:
            found = converted_weights(bare, target)
        return found

    def _match(self, slot: WeightGroup, source: WeightGroup, how: Literal["name", "data", "order"]) -> None:
        less = source.weights["bias"] if converted_weights(source, slot) is None else None
        self.matches[slot.name] = _Match(source, how, less=less)

    def _write(self, slot: WeightGroup, match: _Match) -> None:
        weights = self._converted(match.source, slot)
        assert weights is not None
        if match.more is not None:
            name, sign = ("moving_mean", -1) if slot.kind == "batch_norm" else ("bias", 1)
            weights[name] = (weights[name].astype(np.float64) + sign * match.more).astype(weights[name].dtype)
        self.target.write(slot, match.arrangement.weights(slot.kind, weights))

    # The pass -------------------------------------------------------------------------------------------------------
    def _pass(self) -> None:
        """Run the target: each layer gets the input of its source layer, and its output is replaced by the source's."""
        numbers: Counter[str] = Counter()
        pools = self.target.pools

        def around(layer: str, x: Array, run: Callable[[Array | None], Array]) -> Array | None:
            if layer in pools:
                y, share = run(None), pools[layer].share(x.shape[1:-1])
                other = y / share if pools[layer].counts else y * share
                self.pooled.append((layer, y, other.astype(y.dtype)))
                return None
            number = numbers[layer]
            numbers[layer] += 1
            return self._layer(layer, number, x, run)

        try:
            self.target.run(self.inputs, [*self.by_layer, *pools], around)
        except (_Prepared, AgnosticError):
            raise
        except Exception as error:
            cause: BaseException | None = error
            while cause is not None:  # frameworks wrap what passes through them
                if isinstance(cause, _Prepared | AgnosticError):
                    raise cause from None
                cause = cause.__cause__ or cause.__context__
            said = " ".join(str(error).split())[:200]
            if len(self.order) < 2:
                shapes = " and ".join(str(x.shape) for x in self.inputs)
                raise InvalidInput(
                    f"{self.name} does not take inputs of shape {shapes}, channels last ({said}): give inputs= that "
                    "both models take"
                ) from error
            after = f" after layer {self.order[-1]!r}"
            raise InvalidInput(
                f"{self.name} cannot continue{after} with the arrays of {self.recording.name} ({said}): there the "
                "architectures differ"
            ) from error

    def _layer(self, layer: str, number: int, x: Array, run: Callable[[Array | None], Array]) -> Array | None:
        slots = self.by_layer[layer]
        first = number == 0
        x = self._counted(x)
        pending = self._pending_bias(slots, x)
        x = x if pending is None else x + pending.bias
        if first:
            self.order.append(layer)
            self._match_layer(slots, x)
        match = self.matches.get(slots[0].name)
        last = self.matches.get(slots[-1].name)
        if match is None or last is None:
            run(None)
            return None
        inside, outside = self._call_at_input(match.source, number), self._call_at_output(last.source, number)
        if inside is not None and slots[0].kind in RECURRENT and inside.x.ndim != x.ndim:
            inside = outside = None  # a cell that is called step by step, and a layer that takes the whole sequence
        seen = self.seen.setdefault(layer, _Seen())
        if inside is None:
            arrangement, handed = SAME, None
        else:
            arrangement = arranged(inside.x, x, self._channels_before(inside))
            if arrangement.how != "unlike":  # such as a head that is applied to one position or to all
                seen.input_error = max(seen.input_error or 0.0, arrangement.distance)
            handed = None if arrangement.how == "unlike" else arrangement.forward(inside.x, x)
            if self.prepared is None and self._is_first(inside) and x.ndim > 2 and arrangement.distance > 1e-4:
                self._check_preparation(arrangement, handed, x)
        if first:
            if arrangement.how == "flatten":
                seen.notes.append("rows reordered from one flatten order to the other")
                self.matches[slots[0].name] = match = replace(match, arrangement=arrangement)
            if pending is not None:
                self.matches[slots[0].name] = match = replace(match, more=pending.bias)
                self.absorbed[pending.layer] = layer
            self._pass_on(slots)
            for slot in slots:
                self._write(slot, self.matches[slot.name])
            last = self.matches[slots[-1].name]
        y = run(handed if handed is None or pending is None else handed - pending.bias)
        if outside is None:
            return None
        right = arrangement.outputs(slots[-1].kind).forward(outside.y, y)
        if first:
            self._override(layer, slots[0], match.source, arrangement, x, inside)
        if right.size == y.size and right.shape != y.shape and right.shape[-1] == y.shape[-1]:
            right = right.reshape(y.shape)
        if right.shape != y.shape:
            # A stack or a direction that is separate in only one framework, or a stride in another layer.
            if right.ndim == y.ndim > 2 and right.shape[-1] == y.shape[-1]:
                seen.error = float("inf")
                return right
            return None
        if last.less is not None:
            right = (right - last.less).astype(y.dtype)
            self.pending.append(_PendingBias(layer, last.less, right))
        seen.error = max(seen.error or 0.0, distance(y, right))
        seen.floor = max(seen.floor, outside.floor)
        return right.astype(y.dtype)

    def _counted(self, x: Array) -> Array:
        """The input of a layer, if an average pool before it would count its padding as the source's does."""
        for layer, y, other in self.pooled:
            if y.shape != x.shape or not np.array_equal(y, x) or np.array_equal(y, other):
                continue
            handed = [call.x for call in self.recording.calls if call.x.shape == x.shape]
            if any(relative_distance(h, other) < 1e-4 for h in handed) and all(
                relative_distance(h, x) > 1e-3 for h in handed
            ):
                self.overrides[layer] = {"counts": not self.target.pools[layer].counts}
                return other
        return x

    def _pending_bias(self, slots: Sequence[WeightGroup], x: Array) -> _PendingBias | None:
        """The bias that the layer before had no place for, where this one, a batch norm, can take it off its mean."""
        if slots[0].kind != "batch_norm" or "moving_mean" not in slots[0].weights:
            return None
        return next((o for o in reversed(self.pending) if o.y.shape == x.shape and np.array_equal(o.y, x)), None)

    def _pass_on(self, slots: Sequence[WeightGroup]) -> None:
        """A bias between the two parts of a separable convolution goes through the second, a product at each pixel."""
        for slot, after in pairwise(slots):
            match, then = self.matches[slot.name], self.matches[after.name]
            if match.less is None or slot.kind != "depthwise_conv" or after.kind != "conv":
                continue
            kernel = then.source.weights["kernel"]
            through = match.less.astype(np.float64) @ kernel.reshape(-1, kernel.shape[-1])
            self.matches[slot.name] = replace(match, less=None, passed=True)
            if "bias" in after.weights:
                self.matches[after.name] = replace(then, more=through)
            else:
                self.matches[after.name] = replace(then, less=through if then.less is None else then.less + through)

    def _call_at_input(self, source: WeightGroup, number: int) -> RecordedCall | None:
        return self.recording.of(source.layer, number) if self.of_source[source.layer][0] is source else None

    def _call_at_output(self, source: WeightGroup, number: int) -> RecordedCall | None:
        return self.recording.of(source.layer, number) if self.of_source[source.layer][-1] is source else None

    def _is_first(self, call: RecordedCall) -> bool:
        return call is self.recording.calls[0]

    def _channels_before(self, call: RecordedCall) -> list[int]:
        """Of the images that came before a call, the last first."""
        number = next(n for n, other in enumerate(self.recording.calls) if other is call)
        return [c.y.shape[-1] for c in reversed(self.recording.calls[:number]) if c.y.ndim > 2]

    def _match_layer(self, slots: Sequence[WeightGroup], x: Array) -> None:
        for part, slot in enumerate(slots):
            if slot.name in self.matches:
                continue
            candidates = []
            for source in self._unmatched():
                if self.forced.get(slot.name, source.name) != source.name or self._converted(source, slot) is None:
                    continue
                if slot.name not in self.forced and source.name in self.forced.values():
                    continue
                call = self._call_at_input(source, 0)
                if part or call is None:
                    arrangement = Arrangement("unlike", float("inf") if call is not None or part else 10.0)
                else:
                    arrangement = arranged(call.x, x, self._channels_before(call))
                candidates.append(Candidate(source, arrangement, self.position[source.name]))
            if not candidates:
                continue
            if part or all(not np.isfinite(c.arrangement.distance) for c in candidates):
                chosen = min(candidates, key=lambda c: c.order)
                self._match(slot, chosen.slot, "order")
            else:
                chosen, alike = best(slot, candidates)
                if len(alike) > 1:
                    self.ties[slot.name] = [c.slot.name for c in alike]
                sure = len(alike) == 1 and chosen.arrangement.distance < 1e-2
                self._match(slot, chosen.slot, "data" if sure else "order")

    def _reconsider(self) -> None:
        """Try the other ways where several layers were handed the same input, as at the start of branches.

        A wrong one shows where its output arrives: the first layer that is handed something else. Another choice is
        kept if it moves that place back.
        """
        for _ in range(PASSES):
            place = self._first_inconsistent()
            if place == len(self.order):
                return
            ties = [name for name in reversed(self.ties) if self._place(name) < place]
            for name in ties:
                if self._retried(name, place):
                    break
            else:
                return

    def _retried(self, name: str, place: int) -> bool:
        now = self.matches[name].source.name
        for other in self.ties[name]:
            if other == now or (name, other, place) in self.tried:
                continue
            self.tried.add((name, other, place))
            before = (dict(self.forced), dict(self.matches), dict(self.seen), list(self.order), dict(self.overrides))
            ties, paid = dict(self.ties), dict(self.absorbed)
            self.forced[name] = other
            self._restart()
            try:
                self._pass()
                better = self._first_inconsistent() > place
            except InvalidInput:
                better = False
            if better:
                return True
            self.forced, self.matches, self.seen, self.order, self.overrides = before
            self.ties, self.absorbed = ties, paid
            for slot in self.slots:
                if slot.name in self.matches:
                    self._write(slot, self.matches[slot.name])
            if len(self.tried) > PASSES:
                return False
        return False

    def _restart(self) -> None:
        for state in (self.order, self.seen, self.overrides, self.ties, self.pooled, self.pending, self.absorbed):
            state.clear()
        kept = ("parameter", "normalization")
        self.matches = {k: m for k, m in self.matches.items() if m.how == "name" or self._kind(k) in kept}

    def _first_inconsistent(self) -> int:
        """The number of the first layer that was handed quite another input than its counterpart, or has none."""
        for number, layer in enumerate(self.order):
            seen = self.seen.get(layer)
            if any(slot.name not in self.matches for slot in self.by_layer[layer]):
                return number
            if seen is not None and (seen.input_error or 0.0) > 1e-2:
                return number
        return len(self.order)

    def _place(self, name: str) -> int:
        layer = next(slot.layer for slot in self.slots if slot.name == name)
        return self.order.index(layer)

    # Inputs that one side prepares ----------------------------------------------------------------------------------
    def _check_preparation(self, arrangement: Arrangement, handed: Array | None, x: Array) -> None:
        """Whether the target scales its inputs, per channel, before its first layer."""
        if handed is None or handed.shape != x.shape or len(self.inputs) != 1:
            return
        rows, wanted = handed.reshape(-1, handed.shape[-1]).astype(np.float64), x.reshape(-1, x.shape[-1])
        # Where one side pads with zeros first, they are no part of the line.
        inner = (rows != 0).all(1)
        rows, wanted = rows[inner], wanted[inner].astype(np.float64)
        mean, spread = rows.mean(0), rows.std(0)
        gain = ((rows - mean) * (wanted - wanted.mean(0))).mean(0) / np.maximum(spread, 1e-30) ** 2
        offset = wanted.mean(0) - gain * mean
        rest = relative_distance(rows * gain + offset, wanted)
        if rest < 1e-4 and (gain != 0).all() and (np.abs(gain - 1) > 1e-6).any():
            raise _Prepared(gain, offset)

    def _unprepare(self, prepared: _Prepared) -> None:
        """Hand the target what becomes, after its own preparation, what the source was handed."""
        gain = prepared.gain
        offset = np.where(np.abs(prepared.offset) < 1e-6 * np.abs(gain), 0.0, prepared.offset)
        self.prepared = _Prepared(gain, offset)
        self.inputs = [((self.recording.inputs[0].astype(np.float64) - offset) / gain).astype(np.float32)]
        self._restart()
        shift = "" if (offset == 0).all() else f" + {_numbers(-offset / gain)}"
        self.notes.append(
            f"{self.name} prepares its inputs itself: give it x * {_numbers(1 / gain)}{shift} where "
            f"{self.recording.name} gets x"
        )

    def _kind(self, name: str) -> str:
        return next(slot.kind for slot in self.slots if slot.name == name)

    # Settings that differ ---------------------------------------------------------------------------------------------
    def _override(
        self,
        layer: str,
        target: WeightGroup,
        source: WeightGroup,
        arrangement: Arrangement,
        x: Array,
        inside: RecordedCall | None,
    ) -> None:
        """Note what differs in the two layers' settings, and what would make the target's as the source's."""
        ours, theirs = target.config, source.config
        override: dict[str, Any] = {}
        for key in ("epsilon", "strides", "dilation"):
            if key == "epsilon" and folded(source, target):
                continue
            if key in ours and key in theirs and ours[key] != theirs[key]:
                override[key] = theirs[key]
        if "padding" in ours and "padding" in theirs and inside is not None and x.ndim > 2:
            padding = self._padding(replace(target, config={**ours, **override}), source, arrangement, x, inside)
            if padding is not None:
                override |= padding
        if override:
            self.overrides[layer] = override
            self.seen[layer].notes += [_said(key, override[key], ours.get(key)) for key in override if key != "crop"]

    def _padding(
        self, target: WeightGroup, source: WeightGroup, arrangement: Arrangement, x: Array, inside: RecordedCall
    ) -> dict[str, Any] | None:
        rank = x.ndim - 2
        none = ((0, 0),) * rank
        before, theirs = (arrangement.target_padding or none), (arrangement.source_padding or none)
        ours = _added(before, _pairs(target, x.shape[1:-1]))
        right = _added(theirs, _pairs(source, inside.x.shape[1:-1]))
        if ours == right:
            return None
        crop = {"crop": before} if before != none else {}
        return {"padding": "same" if source.config["padding"] == "same" and theirs == none else right, **crop}

    # The end --------------------------------------------------------------------------------------------------------
    def _finish_what_did_not_run(self) -> None:
        """Layers that run only in training, such as auxiliary heads: by name, else by order."""
        ran = {call.layer for call in self.recording.calls}
        for slot in self.slots:
            if slot.name in self.matches:
                if slot.layer in self.by_layer and slot.layer not in self.seen and slot.kind != "parameter":
                    self._write(slot, self.matches[slot.name])
                continue
            if slot.kind == "normalization" or slot.layer in self.order:
                continue
            idle = [s for s in self._unmatched() if s.layer not in ran and converted_weights(s, slot) is not None]
            if idle:
                self.matches[slot.name] = _Match(idle[0], "order")
                self._write(slot, self.matches[slot.name])

    def _check_complete(self) -> None:
        ran = {call.layer for call in self.recording.calls}
        missing = [s for s in self.slots if s.name not in self.matches and s.kind != "normalization"]
        # An array that is another layer's as well went with that.
        taken = {match.source.name for match in self.matches.values()}
        missing = [s for s in missing if s.config.get("tied") not in self.matches]
        left = [s for s in self._unmatched() if s.kind != "normalization" and s.config.get("tied") not in taken]
        over = [s for s in left if s.layer in ran or s.kind == "parameter"]
        idle = [s for s in left if s not in over]
        if idle:
            self.notes.append(
                f"{len(idle)} of the layers of {self.recording.name} did not run and were skipped, such as "
                f"{idle[0].name!r}"
            )
        if missing or over:
            raise InvalidWeights(self._misfit(missing, over))
        for slot in self.slots:
            match = self.matches.get(slot.name)
            if match is not None and match.less is not None and match.less.any() and slot.layer not in self.absorbed:
                raise InvalidWeights(
                    f"{match.source.name!r} of {self.recording.name} has a bias, {slot.name!r} of {self.name} none, "
                    "and no batch norm right after it can absorb it: give the layer a bias; no weight was changed"
                )

    def _misfit(self, missing: Sequence[WeightGroup], over: Sequence[WeightGroup]) -> str:
        said = []
        if missing:
            near = next((s for s in over if s.kind == missing[0].kind), None)
            beside = "" if near is None else f", where {near.name!r} of {self.recording.name} has {_shapes(near)}"
            said.append(
                f"{len(missing)} of the {counted(len(self.slots), 'layer')} of {self.name} have no counterpart, "
                "such as "
                f"{missing[0].name!r} ({missing[0].kind}, {_shapes(missing[0])}){beside}"
            )
        if over:
            said.append(
                f"{len(over)} of the {counted(len(self.recording.slots), 'layer')} of {self.recording.name} are "
                "left over, such "
                f"as {over[0].name!r} ({over[0].kind}, {_shapes(over[0])})"
            )
        advice = "the two must have the same architecture"
        if any(s.kind == "gru" and s.weights.get("bias", np.zeros((2, 1))).ndim == 1 for s in (*missing, *over)):
            advice = "a GRU with reset_after=False has no counterpart: make it with reset_after=True"
        foreign = next((s for s in (*missing, *over) if s.kind not in (*KINDS, "parameter")), None)
        if foreign is not None and self.recording.framework != self.target.framework:
            advice = f"{foreign.config.get('what', foreign.kind)} has no counterpart in the other framework"
        return f"{' and '.join(said)}: {advice}; no weight was changed"

    def _hand_over_card(self) -> None:
        """The preparation of images and the class names belong to the weights."""
        card, own = self.recording.card, card_of(self.target.model)
        if card is None:
            return
        prepared = card.preprocessing
        if self.prepared is not None:
            gain, offset = self.prepared.gain, self.prepared.offset
            if (gain <= 0).any() or len(gain) != len(prepared.std):
                return
            mean = np.asarray(prepared.mean) + offset * prepared.std
            prepared = replace(prepared, mean=tuple(mean.tolist()), std=tuple((gain * prepared.std).tolist()))
        size = card.size
        with suppress(InvalidInput):  # the target's, if it takes one size alone
            shape = self.target.inputs()[0].shape
            sides = size or (None, None)
            if len(shape) == 3 and (height := shape[0] or sides[0]) and (width := shape[1] or sides[1]):
                size = (height, width)
        spec, aliases = (self.name, {}) if own is None else (own.spec, own.aliases)
        attach(self.target.model, replace(card, spec=spec, preprocessing=prepared, size=size, aliases=aliases))

    def _verified(self) -> TransferReport:
        error, floor, note = self._compared({})
        allowed = ALLOWED * max(floor, LEAST)
        rows = self._rows()
        differences = [
            f"{row.target!r}: {'; '.join(row.notes) or 'its output differs for the same input and weights'}"
            for row in rows
            if row.differs
        ]
        differences += [
            f"{layer!r}: {'leaves out' if override['counts'] else 'counts'} the zeros of its padding, and the source "
            f"{'counts them' if override['counts'] else 'leaves them out'}"
            for layer, override in self.overrides.items()
            if "counts" in override
        ]
        differences += self._between()
        fixed = None
        if self.overrides and (error > allowed or differences):
            fixed = self._fixed_error()
        if note:
            differences.append(note)
        if error > allowed and not differences:
            differences.append(
                "the outputs differ, though each layer computes the same: check the code after the last layer"
            )
        if all(len(x) > 1 and (x == x[:1]).all() for x in self.recording.outputs):
            self.notes.append(
                f"{self.recording.name} returns the same for all inputs (is its last layer all zeros?), so its "
                "outputs prove nothing: only its layers were compared"
            )
        sizes = ", ".join(" x ".join(map(str, x.shape)) for x in self.inputs)
        return TransferReport(
            self.recording.name, self.name, tuple(rows), error, floor, allowed, fixed, tuple(differences),
            tuple(self.notes), sizes, {"overrides": dict(self.overrides)},
        )  # fmt: skip

    def _fixed_error(self) -> float | None:
        """The error with all fixes applied; None where the target cannot be run with them."""
        try:
            return self._compared(self.overrides)[0]
        except AgnosticError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a framework raises for sizes that do not fit
            said = " ".join(str(error).split())[:200]
            self.notes.append(f"{self.name} cannot be run with the settings of {self.recording.name} ({said})")
            return None

    def _compared(self, overrides: Mapping[str, Mapping[str, Any]]) -> tuple[float, float, str]:
        """(error, floor, a difference at the very end), of the target with its overrides."""
        with self.target.overridden(overrides):
            outputs = self.target.run(self.inputs)
        theirs = self.recording.outputs
        if len(outputs) != len(theirs):
            return float("inf"), 0.0, f"one model returns {counted(len(theirs), 'array')} and the other {len(outputs)}"
        truth, floor, tried = self.recording.truth, self.recording.floor, list(outputs)
        if truth is None:
            exact = self.target.exact()
            if exact is None:
                truth = theirs
            else:
                with exact.overridden(overrides):
                    truth, tried = tuple(exact.run(self.inputs)), list(theirs)
                floor = max(floor, *(distance(_like(a, b), b) for a, b in zip(outputs, truth, strict=True)))
        error = max(distance(_like(a, b), b) for a, b in zip(tried, truth, strict=True))
        if error > 1e-3 and len(truth) == 1 and truth[0].ndim == 2:
            for which, a, b in (
                (self.name, tried[0], _softmax(truth[0])), (self.recording.name, _softmax(tried[0]), truth[0]),
            ):  # fmt: skip
                if distance(a, b) < 1e-4:
                    ours = (
                        which == self.name
                        if self.recording.truth is not None or truth is theirs
                        else which != self.name
                    )
                    whose = self.name if ours else self.recording.name
                    return distance(a, b), floor, f"{whose} ends with a softmax, and the other with logits"
        return error, floor, ""

    def _rows(self) -> list[TransferRow]:
        ran = {layer: number for number, layer in enumerate(self.order)}
        rows = []
        for slot in sorted(self.slots, key=lambda s: ran.get(s.layer, len(ran))):
            match = self.matches.get(slot.name)
            if match is None:
                continue
            seen = self.seen.get(slot.layer, _Seen()) if slot.layer else _Seen()
            notes = list(seen.notes)
            if zeroed := filled(match.source, slot):
                notes.append(f"{' and '.join(zeroed)} set to a value without effect, since the source has none")
            if match.passed:
                notes.append("the bias is absorbed by the next part, since the target has none here")
            if match.less is not None and slot.layer in self.absorbed:
                notes.append(
                    f"bias subtracted from the moving_mean of {self.absorbed[slot.layer]!r}, since the target has none"
                )
            if folded(match.source, slot):
                notes.append("gamma and epsilon are absorbed by moving_variance, since the target has no gamma")
            if match.arrangement.rows is None and slot.kind == "parameter" and match.how != "name":
                notes.append("matched by shape and order")
            if slot.kind in ("lstm", "rnn") and _biases(self.recording.framework) > _biases(self.target.framework):
                notes.append("two biases added up")
            error = seen.error
            differs = error is not None and error > ALLOWED * max(seen.floor, LEAST)
            rows.append(
                TransferRow(
                    slot.name, match.source.name, slot.kind, tuple(slot.weights), match.how, error, seen.floor,
                    seen.input_error, tuple(notes), differs,
                )
            )  # fmt: skip
        return rows

    def _between(self) -> list[str]:
        """Where what runs between two layers differs: the next was handed something else."""
        found = []
        for number, layer in enumerate(self.order):
            seen = self.seen.get(layer)
            if seen is None or seen.input_error is None or layer in self.overrides:
                continue
            # Inputs are compared by their mean square, which rounding changes by less than the greatest error.
            if seen.input_error > ALLOWED * LEAST:
                before = f"between {self.order[number - 1]!r} and {layer!r}" if number else f"before {layer!r}"
                found.append(
                    f"{before}: {layer!r} is handed something else ({seen.input_error:.1e}), so that an activation, a "
                    "pooling, or an addition in between differs"
                )
        return found


# Small ones ---------------------------------------------------------------------------------------------------------
def _pairs(slot: WeightGroup, size: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """The zeros that a layer puts around an input of a size, a pair an axis."""
    padding, kernel = slot.config["padding"], next(x for k, x in slot.weights.items() if k.endswith("kernel"))
    if padding == "valid":
        return ((0, 0),) * len(size)
    if padding == "same":
        rates = slot.config.get("dilation", (1,) * len(size))
        return tuple(
            same_padding(n, (k - 1) * d + 1, s)
            for n, k, d, s in zip(size, kernel.shape, rates, slot.config["strides"], strict=False)
        )
    if padding == "causal":
        return (((kernel.shape[0] - 1) * slot.config["dilation"][0], 0),)
    return tuple(tuple(pair) for pair in padding)


def _added(a: Sequence[tuple[int, int]], b: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    return tuple((p[0] + q[0], p[1] + q[1]) for p, q in zip(a, b, strict=True))


def _like(a: Array, b: Array) -> Array:
    """An output in the shape of another, where that only adds or drops axes of one, or turns a sequence round."""
    if a.size != b.size:
        return np.full_like(b, np.inf)
    if a.ndim == b.ndim == 3:  # (N, L, features) or (N, channels, L): nothing but the numbers tells
        ways = [x for x in (a, a.swapaxes(1, 2)) if x.shape == b.shape]
        return min(ways, key=lambda x: distance(x, b)) if ways else np.full_like(b, np.inf)
    return a.reshape(b.shape)


def _softmax(x: Array) -> Array:
    powers = np.exp(x.astype(np.float64) - x.max(-1, keepdims=True))
    found: Array = powers / powers.sum(-1, keepdims=True)
    return found


def _said(key: str, wanted: Any, now: Any) -> str:
    return f"{key} is {_shown(now)} and the source's {_shown(wanted)}"


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _shapes(slot: WeightGroup) -> str:
    return ", ".join(f"{name} {shape}" for name, shape in slot.shapes.items())


def _numbers(x: Array) -> str:
    rounded = [f"{float(v):.5g}" for v in x]
    return rounded[0] if len(set(rounded)) == 1 else f"({', '.join(rounded)})"


def _biases(framework: str) -> int:
    """Number of bias vectors per recurrent layer."""
    return facts_of(framework).recurrent_biases
