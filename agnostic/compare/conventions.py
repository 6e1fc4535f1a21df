"""Which convention of an optimizer leads from the same weights and gradients to the weights that B has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from agnostic.description import Array
from agnostic.errors import AgnosticError
from agnostic.optimizers.specs import KINDS, TERMS, Spec, as_dict, make, replace

_VALUES = {
    "epsilon": (1e-8, 1e-7, 1e-6, 1e-10, 1e-3, 0.0),
    "nesterov": (True, False),
    "dampening": (0.0, 0.1, 0.9),
    "weight_decay": (0.0, 0.01, 0.004),
    "initial_accumulator": (0.0, 0.1),
    "amsgrad": (True, False),
    "centered": (True, False),
    "momentum_decay": (0.004, 1.0, 0.0),
    "momentum": (0.0, 0.9),
    "beta_1": (0.9, 0.0),
    "beta_2": (0.999, 0.99),
    "rho": (0.9, 0.95, 0.99),
}
"""Numbers that frameworks and papers use by default; conventions come from the specification itself."""

_TOGETHER = 3
"""How many terms are changed at once, where nothing is known of B's optimizer."""


@dataclass(frozen=True)
class Change:
    """One term in which B's rule is another.

    Attributes:
        term: a field of the specification, or ``"kind"``.
        a, b: its value in A, and in what explains B.
    """

    term: str
    a: object
    b: object

    @property
    def meaning(self) -> str:
        """The term as text."""
        return {"kind": "the kind of optimizer"}.get(self.term, TERMS.get(self.term, self.term.replace("_", " ")))


@dataclass(frozen=True)
class Convention:
    """A specification that explains what B did.

    Attributes:
        changes: the terms that differ from A's, that with the greatest effect first; none where A's own explains B.
        error: what is left, as a root mean square.
    """

    changes: tuple[Change, ...]
    error: float


@dataclass(frozen=True)
class RuleSteps:
    """A specification at the learning rates of some steps."""

    spec: Spec
    rates: tuple[float, ...]

    def changed(self, change: Change) -> RuleSteps:
        """With one term of another value.

        Raises:
            AgnosticError: it does not go together with the others.
        """
        if change.term == "learning_rate":
            return RuleSteps(self.spec, tuple(change.b))  # type: ignore[arg-type]
        if change.term == "kind":
            return RuleSteps(_as_kind(self.spec, str(change.b)), self.rates)
        return RuleSteps(replace(self.spec, {change.term: change.b}), self.rates)


@dataclass(frozen=True)
class Observed:
    """What an optimizer did to some parameters.

    Attributes:
        start: the weights before, one array per parameter.
        gradients: for each step, one for each parameter.
        after: the weights after the last step.
        norms: the norm of all gradients of the model, for each step; none where no rule asks for it.
        parts: of how many weights, each of which learns, a parameter is the sum.
    """

    start: Sequence[Array]
    gradients: Sequence[Sequence[Array]]
    after: Sequence[Array]
    norms: Sequence[float] = ()
    parts: int = 1

    def left(self, rule: RuleSteps) -> float:
        """What a rule does not explain, as a root mean square; infinite where it leads nowhere."""
        from agnostic.compare.learning import followed

        squares = []
        for i, (start, after) in enumerate(zip(self.start, self.after, strict=True)):
            used = [step[i] for step in self.gradients]
            reached = followed(rule.spec, rule.rates, self.norms or [0.0] * len(used), start, used, self.parts)
            if reached is None:
                return float("inf")
            squares.append(np.mean(np.square(reached - after)))
        error = float(np.sqrt(np.mean(squares)))
        return error if error == error else float("inf")


def explain(a: RuleSteps, seen: Observed, *, b: RuleSteps | None = None, enough: float = 0.0) -> Convention:
    """How A's rule must be changed to do what was observed.

    Args:
        b: what B says that it computes. It is not believed: it is computed.
        enough: an error that arithmetic explains.

    Returns:
        No changes where A's own rule explains what was seen. Else the fewest that are known to.
    """
    own = seen.left(a)
    if own <= enough:
        return Convention((), own)
    if b is not None:
        left = seen.left(b)
        if left <= max(enough, own / 3):
            return _reduced(a, b, seen, max(enough, 2 * left))
    return _searched(a, seen, own, enough)


def _reduced(a: RuleSteps, b: RuleSteps, seen: Observed, enough: float) -> Convention:
    """Those of the differences between two rules that are needed to explain what was seen."""
    changes = _between(a, b)
    for change in list(changes):
        rest = [x for x in changes if x is not change]
        if (rule := _all(a, rest)) is not None and seen.left(rule) <= enough:
            changes = rest
    alone = {x.term: seen.left(rule) if (rule := _all(a, [x])) else float("inf") for x in changes}
    changes.sort(key=lambda x: (x.term != "kind", alone[x.term]))
    rule = _all(a, changes)
    return Convention(tuple(changes), seen.left(b if rule is None else rule))


def _between(a: RuleSteps, b: RuleSteps) -> list[Change]:
    found, base = [], a.spec
    if type(a.spec) is not type(b.spec):
        found.append(Change("kind", type(a.spec).__name__, type(b.spec).__name__))
        base = _as_kind(a.spec, type(b.spec).__name__)
    if a.rates != b.rates:
        found.append(Change("learning_rate", list(a.rates), list(b.rates)))
    ours, theirs = as_dict(base), as_dict(b.spec)
    return found + [Change(k, ours[k], theirs[k]) for k in theirs if k != "learning_rate" and ours.get(k) != theirs[k]]


def _as_kind(spec: Spec, kind: str) -> Spec:
    """The same hyperparameters for another kind of optimizer, as far as it has them."""
    cls = KINDS[kind]
    known = as_dict(cls(spec.learning_rate))
    kept = {k: v for k, v in as_dict(spec).items() if k in known and k not in {**Spec.choices, **cls.choices}}
    return make(cls, kept)


def _all(a: RuleSteps, changes: Sequence[Change]) -> RuleSteps | None:
    try:
        for change in sorted(changes, key=lambda x: x.term != "kind"):
            a = a.changed(change)
    except (AgnosticError, TypeError):
        return None
    return a


def _searched(a: RuleSteps, seen: Observed, own: float, enough: float) -> Convention:
    """One change, or a few, of those that are known; as many as each still removes two thirds of what is left."""
    best, rule = Convention((), own), a
    while best.error > enough and len(best.changes) < _TOGETHER:
        found: tuple[float, Change, RuleSteps] | None = None
        for change in _changes(rule):
            tried = _all(rule, [change])
            if tried is None or change.term in {x.term for x in best.changes}:
                continue
            left = seen.left(tried)
            if left < (best.error if found is None else found[0]) * (1 - 1e-6):
                found = left, change, tried
        if found is None or (best.changes and found[0] > best.error / 3):
            break
        best, rule = Convention((*best.changes, found[1]), found[0]), found[2]
    return best


def _changes(rule: RuleSteps) -> Iterator[Change]:
    own = as_dict(rule.spec)
    for term, values in ({**Spec.choices, **type(rule.spec).choices, **_VALUES}).items():
        if term in own:
            yield from (Change(term, own[term], value) for value in values if value != own[term])
    name = type(rule.spec).__name__
    for kind in KINDS:
        if kind != name:
            yield Change("kind", name, kind)
    for native in type(rule.spec).natives.values():
        rate = native.defaults.get("learning_rate")
        if rate is not None and set(rule.rates) != {rate}:
            yield Change("learning_rate", list(rule.rates), [rate] * len(rule.rates))
