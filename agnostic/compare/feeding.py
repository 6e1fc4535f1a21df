"""The inputs of one model with their axes in the order in which another one takes them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from agnostic.compare import match
from agnostic.compare.inputs import Inputs, native
from agnostic.contracts.calls import CALLS
from agnostic.contracts.inputs import INPUTS
from agnostic.errors import AgnosticError
from agnostic.models.forms import Input
from agnostic.program.nodes import Array
from agnostic.registry import Backend, Model

MOST = 9
"""How many combinations of orders are tried."""


def stated(backend: Backend, model: Model) -> Sequence[Input] | None:
    """What a model itself declares of its inputs."""
    found = backend[INPUTS].stated_inputs(model)
    return None if found is None else list(found)


def ways(
    arrays: Sequence[Array], letters: Sequence[str | None], own: Sequence[Input] | None, alike: bool
) -> Iterator[list[Array]]:
    """Inputs with their axes in orders that a model may take, the likeliest first.

    Args:
        arrays: as the other model takes them.
        letters: of the axes of each, where they are known.
        own: what the model declares.
        alike: whether both models are of one framework.
    """
    choices: list[list[Array]] = []
    for k, x in enumerate(arrays):
        orders = [tuple(range(x.ndim))]
        if x.ndim > 2:
            last, first = (0, *range(2, x.ndim), 1), (0, x.ndim - 1, *range(1, x.ndim - 1))
            said = letters[k] if k < len(letters) else None
            moved = [last, first] if said is None or said[1] == "C" else [first, last]
            orders = [*orders, *moved] if alike or x.ndim == 3 else [moved[0], *orders, moved[1]]
        found = [np.ascontiguousarray(x.transpose(order)) for order in orders]
        if own is not None and len(own) == len(arrays):
            found = [w for w in found if len(w.shape) == len(own[k].shape) and all(
                n in (None, m) for n, m in zip(own[k].shape[1:], w.shape[1:], strict=True))]  # fmt: skip
        choices.append(found)
    for chosen in itertools.islice(itertools.product(*choices), MOST):
        yield list(chosen)


def returned(backend: Backend, model: Model, inputs: Inputs) -> list[Array] | None:
    """What a model returns; None where it does not take the inputs."""
    try:
        found = backend[CALLS].run(model, native(inputs))
    except AgnosticError:
        return None
    except Exception as error:
        if not backend[INPUTS].is_refusal(error):
            raise
        return None
    return [np.array(backend[CALLS].numpy(x)) for x in found]


def turned(backend: Backend, model: Model, inputs: Inputs, wanted: Sequence[Array]) -> Inputs:
    """The inputs of a model of another framework in the order that this one takes; as they are where it takes none.

    Where it takes several orders, it is that in which it returns what the other does, or is nearest to it.

    Args:
        wanted: what the other model returned.
    """
    arrays = list(inputs.arrays.values())
    forms = [
        replace(inputs, arrays=dict(zip(inputs.arrays, moved, strict=True)))
        for moved in ways(arrays, [], stated(backend, model), alike=False)
    ]
    best, nearest = inputs, float("inf")
    for form in forms:
        outputs = returned(backend, model, form)
        if outputs is None:
            continue
        apart = max(map(_apart, wanted, outputs), default=0.0) if len(wanted) == len(outputs) else 1e300
        if apart < nearest:
            best, nearest = form, apart
        if apart < match.LOOSE:
            break
    return best


def _apart(x: Array, y: Array) -> float:
    orders = match.layouts(y.shape, x.shape)
    return min((match.distance(x, y.transpose(order)) for order in orders), default=1e300)
