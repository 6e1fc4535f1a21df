"""Which convention of an optimizer leads from the same weights and gradients to the weights that B has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from agnostic.description import Array
from agnostic.errors import InvalidInput
from agnostic.optimizers.specs import TERMS, Spec, as_dict, replace
from agnostic.reference.optimizers import replay

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


@dataclass(frozen=True)
class Convention:
    """A specification that explains what B did.

    Attributes:
        term: the field that differs; "" where A's own specification explains B.
        a, b: its value in A, and in what explains B.
        error: what is left, as a root mean square.
    """

    term: str
    a: object
    b: object
    error: float

    @property
    def meaning(self) -> str:
        """The term in words."""
        return TERMS.get(self.term, self.term.replace("_", " "))


def explain(
    spec: Spec, start: Sequence[Array], gradients: Sequence[Sequence[Array]], after: Sequence[Array]
) -> Convention:
    """The specification nearest to what was observed: A's own, or A's with one convention or number changed.

    Args:
        spec: A's; its learning rate is a number.
        start: the weights before, an array a parameter.
        gradients: for each step, one for each parameter.
        after: B's weights after the last step.

    Returns:
        The one that leaves the least; of equals the first.
    """
    own = as_dict(spec)
    best = Convention("", None, None, _left(spec, start, gradients, after))
    for term, value in _changes(spec):
        try:
            error = _left(replace(spec, {term: value}), start, gradients, after)
        except (InvalidInput, ValueError, ArithmeticError):
            continue  # the two do not go together
        if error < best.error * (1 - 1e-6):
            best = Convention(term, own[term], value, error)
    return best


def _changes(spec: Spec) -> Iterator[tuple[str, object]]:
    own = as_dict(spec)
    for term, values in ({**Spec.choices, **type(spec).choices, **_VALUES}).items():
        if term in own:
            yield from ((term, value) for value in values if value != own[term])


def _left(spec: Spec, start: Sequence[Array], gradients: Sequence[Sequence[Array]], after: Sequence[Array]) -> float:
    with np.errstate(all="ignore"):
        reached = replay(spec, start, gradients, outputs_last=True)[-1]
    squares = [np.mean(np.square(x - y)) for x, y in zip(reached, after, strict=True)]
    error = float(np.sqrt(np.mean(squares)))
    return error if error == error else float("inf")
