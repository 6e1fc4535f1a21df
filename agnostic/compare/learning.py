"""What a model learns from one batch: the gradients of a loss, and the weights after some steps of an optimizer.

The loss is half the mean square of each output, added up: any model has it, whatever its outputs mean, and its
gradients reach every weight that the outputs depend on.

They are written as canonical weights are: by the same names and in the same layout as a description has them, since a
conversion of layouts is linear. So gradients of two frameworks can be compared entry by entry. An entry may be the sum
of several weights (PyTorch's LSTM has two biases where Keras has one): its gradient is that of one of them.

The gradients of every step are written, so that an optimizer can be judged alone: what A's rule makes of B's own
gradients, in float64, against what B's optimizer made of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from agnostic.compare import noise
from agnostic.compare.calls import LayerCall
from agnostic.compare.inputs import Inputs, prepared
from agnostic.compare.live import Live
from agnostic.compare.traces import TraceWriter
from agnostic.contracts.calls import CALLS
from agnostic.contracts.description import DESCRIPTION
from agnostic.contracts.learning import LEARNING
from agnostic.contracts.weights import WEIGHTS
from agnostic.errors import InvalidInput
from agnostic.optimizers.specs import KINDS, Spec, as_dict, make, replace
from agnostic.text import type_named

Array = np.ndarray[Any, Any]

DRAWS = 2
"""How often the last bits are changed at random, for the noise floor: some entries have few elements."""

Canonical = dict[str, dict[str, Array]]
"""Arrays by layer and entry."""

EXPLAINED = 1e-3
"""How much of a change float32 may blur: 1 - 0.999 has a relative error of 6e-5 in it, and a few operations follow."""


@dataclass(frozen=True)
class Update:
    """Some steps of an optimizer on one batch.

    Attributes:
        optimizer: a specification, such as ``agnostic.optimizers.Adam(1e-3)``.
        steps: how many; or the learning rate of each.
    """

    optimizer: Spec
    steps: int | Sequence[float]

    def __post_init__(self) -> None:
        if isinstance(self.optimizer, Spec):
            if isinstance(self.steps, int) and not isinstance(self.steps, bool) and self.steps >= 1:
                if isinstance(self.optimizer.learning_rate, int | float):
                    return
                raise InvalidInput(
                    f"the learning rate is {type_named(self.optimizer.learning_rate)}: give the rate of each step "
                    "in place of their number, such as (optimizer, [0.1, 0.1, 0.01])"
                )
            if isinstance(self.steps, Sequence) and self.steps and all(_rate(x) for x in self.steps):
                return
        raise InvalidInput(
            "update is (a specification of an optimizer, a number of steps or the learning rate of each), such as "
            f"(optimizers.Adam(1e-3), 3), not ({self.optimizer!r}, {self.steps!r})"
        )

    @property
    def rates(self) -> list[float]:
        """The learning rate of each step."""
        if isinstance(self.steps, int):
            return [float(self.optimizer.learning_rate)] * self.steps
        return [float(x) for x in self.steps]


def _rate(x: Any) -> bool:
    return isinstance(x, int | float) and not isinstance(x, bool) and 0 <= x < float("inf")


# Recording -----------------------------------------------------------------------------------------------------------
def write(live: Live, writer: TraceWriter, *, gradients: bool, update: Update | None) -> dict[str, Any]:
    """Add gradients, and weights after the update, to a trace, each with its noise floor.

    From the model's inputs on, the floor is what random changes of the last bit do: of the inputs, of the weights and
    of what each layer returns. Of an update alone, it is how far float64 is from it by the same rule and gradients.
    """
    if update is None and not gradients:
        return {}
    first: Canonical = {}
    last: Canonical = {}
    names: list[dict[str, dict[str, str]]] = []
    counts: Canonical = {}
    norms: list[float] = []
    for step, (used, after) in enumerate(_steps(live, live.inputs, update)):
        counts = counts or _counts(live, used)
        scaled = _shared(canonical(live, used, "gradients"), counts)
        names.append(_put(writer, f"step/{step + 1}", scaled))
        norms.append(float(np.sqrt(sum(noise.rms(x) ** 2 * x.size for x in used.values()))))
        first, last = first or scaled, after
    shaken: list[tuple[Canonical, Canonical]] = []
    for seed in range(DRAWS):
        moved: list[tuple[Canonical, Canonical]] = []
        with _shaken(live, seed) as inputs:
            for used, after in _steps(live, inputs, update):
                moved.append(({} if moved else _shared(canonical(live, used, "gradients"), counts), after))
        shaken.append((moved[0][0], moved[-1][1]))
    dtype = live.about["dtype"]
    found: dict[str, Any] = {"gradients": _entries(writer, names[0], first, [x for x, _ in shaken], counts, dtype)}
    if update is None:
        return found
    reached = _put(writer, "updated", last)
    found["updated"] = _entries(writer, reached, last, [x for _, x in shaken], counts, dtype)
    found["steps"] = names
    rates, spec = update.rates, _plain(update.optimizer)
    found["update"] = {
        "optimizer": repr(update.optimizer), "steps": len(rates), "rates": rates, "norms": norms, "spec": spec,
    }  # fmt: skip
    start = canonical(live, {}, "updated")
    for name, entries in found["updated"].items():
        for entry, about in entries.items():
            about["propagated"], about["floor"] = about["floor"], None
            if not about["parts"]:
                continue
            recorded = [writer.read(step[name][entry]) for step in names]
            made = followed(rule_of(spec), rates, norms, start[name][entry], recorded, about["parts"])
            if made is not None:
                about["floor"] = _floor(made, start[name][entry], last[name][entry], dtype)
    return found


def _floor(made: Array, start: Array, after: Array, dtype: str) -> float | None:
    """How exact an update is by itself; None where its own rule does not explain it."""
    error, moved = noise.difference(made, after), noise.difference(after, start)
    least = noise.least(noise.rms(after), dtype)
    return max(error, least) if error <= max(EXPLAINED * moved, 4 * least) else None


def _steps(live: Live, inputs: Inputs, update: Update | None) -> Iterator[tuple[Mapping[str, Array], Canonical]]:
    """(the gradients by the framework's names, the canonical weights after the last step) of each step."""
    given = prepared(live.backend, live.model, inputs)
    if update is None:
        yield live.backend[LEARNING].gradients(live.model, given), {}
        return
    rates = update.rates
    with closing(live.backend[LEARNING].steps(live.model, given, update.optimizer, rates)) as steps:  # type: ignore[type-var]
        for number, (used, after) in enumerate(steps, 1):
            yield used, canonical(live, after, "updated") if number == len(rates) else {}


def _put(writer: TraceWriter, prefix: str, values: Canonical) -> dict[str, dict[str, str]]:
    return {
        name: {entry: writer.add(f"{prefix}/{name}/{entry}", x) for entry, x in arrays.items()}
        for name, arrays in values.items()
    }


def _entries(
    writer: TraceWriter,
    names: Mapping[str, Mapping[str, str]],
    values: Canonical,
    shaken: Sequence[Canonical],
    counts: Canonical,
    dtype: str,
) -> dict[str, dict[str, dict[str, Any]]]:
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for name, arrays in values.items():
        for entry, x in arrays.items():
            scale = noise.rms(x)
            floor = max(*(noise.difference(x, again[name][entry]) for again in shaken), noise.least(scale, dtype))
            found.setdefault(name, {})[entry] = {
                "tensor": names[name][entry], "rms": scale, "floor": floor,
                "parts": int(counts[name][entry].max(initial=0)),
            }  # fmt: skip
            if counts[name][entry].min(initial=1) < counts[name][entry].max(initial=0) == 1:
                # Groups, one kernel for all: what lies between the blocks is 0, and does not learn.
                found[name][entry]["learns"] = writer.add(f"{names[name][entry]}/learns", counts[name][entry] > 0)
    return found


def _counts(live: Live, used: Mapping[str, Array]) -> Canonical:
    """How many weights that learn each element is the sum of."""
    ones = {name: np.ones_like(x) for name, x in used.items()}
    return {
        name: {entry: np.rint(np.abs(x)) for entry, x in arrays.items()}
        for name, arrays in canonical(live, ones, "gradients").items()
    }


def _shared(gradients: Canonical, counts: Canonical) -> Canonical:
    """The gradient of one of the weights that an entry is the sum of; they are equal."""
    return {
        name: {
            entry: x if (counts[name][entry] <= 1).all() else x / np.maximum(counts[name][entry], 1).astype(x.dtype)
            for entry, x in arrays.items()
        }
        for name, arrays in gradients.items()
    }


def _plain(spec: Spec) -> dict[str, Any]:
    plain = {k: list(v) if isinstance(v, tuple) else v for k, v in as_dict(spec).items()}
    return {"kind": type(spec).__name__, **{k: v for k, v in plain.items() if isinstance(v, int | float | str | list)}}


@contextmanager
def _shaken(live: Live, seed: int) -> Iterator[Inputs]:
    """Inside, every number on the way from the inputs to the loss has its last bit changed, at random.

    What a layer returns is changed by a factor, so that what comes back through it is as well.

    Yields:
        The inputs.
    """
    dtype, inputs, numbers = live.about["dtype"], live.inputs, itertools.count()

    def around(call: LayerCall) -> Sequence[Any]:
        found = []
        for x in call.run():
            type_of = live.backend.ops.dtype(x)
            if "float" in type_of:
                signs = np.random.default_rng((seed, next(numbers))).integers(0, 2, tuple(x.shape)) * 2 - 1
                factor = (1 + 2 * noise.unit(type_of) * signs).astype(np.float32)
                x = x * live.backend[CALLS].native(factor, x)
            found.append(x)
        return found

    def moved(x: Array) -> Array:
        if inputs.kind == "images" and x.dtype == np.uint8:
            x = x / np.float32(255)
        found = noise.nudged(x, noise.unit("float32"), seed)
        return np.clip(found, 0, 1) if inputs.kind == "images" else found

    before = live.backend[WEIGHTS].weights(live.model)
    given = Inputs(inputs.kind, {k: moved(x) for k, x in inputs.arrays.items()}, inputs.form, inputs.channels_first)
    try:
        live.backend[WEIGHTS].set_weights(live.model, {k: noise.nudge(x, dtype, seed) for k, x in before.items()})
        with live.backend[CALLS].intercept(live.model, live.names, around):
            yield given
    finally:
        live.backend[WEIGHTS].set_weights(live.model, before)


def canonical(live: Live, values: Mapping[str, Array], what: str) -> Canonical:
    """Arrays by the framework's own names of weights, as descriptions have them."""
    before = live.backend[WEIGHTS].weights(live.model)
    # What was not given has no gradient, or was not moved.
    rest = {name: np.zeros_like(x) if what == "gradients" else x for name, x in before.items()}
    try:
        live.backend[WEIGHTS].set_weights(live.model, {**rest, **{k: x for k, x in values.items() if k in rest}})
        described = live.backend[DESCRIPTION].describe(live.model, live.names)
        return {x.name: {k: np.array(w) for k, w in x.weights.items() if not _statistic(k)} for x in described}
    finally:
        live.backend[WEIGHTS].set_weights(live.model, before)


def _statistic(entry: str) -> bool:
    return entry.startswith("moving_") or entry in ("mean", "variance")


# A rule on recorded gradients ----------------------------------------------------------------------------------------
def rule_of(plain: Mapping[str, Any]) -> Spec:
    """The specification in a trace.

    Raises:
        InvalidInput: there is none of that name, or its numbers do not go together.
    """
    options: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in plain.items() if k != "kind"}
    if plain.get("kind") not in KINDS:
        raise InvalidInput(f"a trace holds an update by {plain.get('kind')!r}, which this agnostic does not know")
    try:
        return make(KINDS[plain["kind"]], {"learning_rate": 0.0, **options})
    except TypeError as error:
        raise InvalidInput(f"a trace holds an update whose numbers are none ({error})") from None


def followed(
    spec: Spec, rates: Sequence[float], norms: Sequence[float], start: Array, gradients: Sequence[Array], parts: int = 1
) -> Array | None:
    """Where a rule leads one entry of a layer, in float64.

    Args:
        rates: the learning rate of each step.
        norms: the L2 norm of all gradients together at each step.
        gradients: of each step.
        parts: of how many weights the entry is the sum.

    Returns:
        The weights after the last step; None where one entry cannot tell: the rule depends on the layout, or on weights
        of which only the sum is known.
    """
    from agnostic.optimizers import rules
    from agnostic.reference.optimizers import replay

    if parts > 1 and (spec.weight_decay or spec.ema_overwrite or not rules.rule_of(spec).elementwise):
        return None
    # In the reference a bound on the norm of all gradients would see one parameter.
    bound = spec.clip_global_norm
    if bound is not None:
        spec = replace(spec, {"clip_global_norm": None})
        scales = [rules.clip_scale(spec, bound, n) for n in norms]
        gradients = [g * s for g, s in zip(gradients, scales, strict=True)]
    try:
        with np.errstate(all="ignore"):
            reached = replay(spec, [start], [[g] for g in gradients], rates, outputs_last=True)[-1][0]
    except (InvalidInput, ValueError, ArithmeticError):
        return None
    return reached if parts <= 1 else start + parts * (reached - start)
