"""Inputs of other sizes than those given: to find out which lengths of a model are free."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from agnostic.contracts.calls import CALLS
from agnostic.port.layout import channel_axis
from agnostic.program.nodes import Program
from agnostic.registry import Backend

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Variation:
    """One way in which the sizes of inputs may change.

    Attributes:
        name: what changes: ``"batch"``, ``"batch and image size"``, ``"batch and length"``.
        shapes: of each array of the inputs, at each size.
    """

    name: str
    shapes: tuple[tuple[Shape, ...], ...]


def arrays(inputs: Any) -> list[Any]:
    """The arrays in tuples, lists and dicts, in order."""
    if isinstance(inputs, Mapping):
        return [x for value in inputs.values() for x in arrays(value)]
    if isinstance(inputs, list | tuple):
        return [x for value in inputs for x in arrays(value)]
    return [inputs] if hasattr(inputs, "shape") and hasattr(inputs, "dtype") else []


def with_arrays(inputs: Any, function: Callable[[Any], Any]) -> Any:
    """The same structure with each array replaced."""
    if isinstance(inputs, Mapping):
        return type(inputs)({key: with_arrays(value, function) for key, value in inputs.items()})  # type: ignore[call-arg]
    if isinstance(inputs, list | tuple):
        return type(inputs)(with_arrays(value, function) for value in inputs)
    return function(inputs) if hasattr(inputs, "shape") and hasattr(inputs, "dtype") else inputs


def sampled(backend: Backend, inputs: Any, shapes: Sequence[Shape], seed: int = 0) -> Any:
    """Inputs of other shapes: floating-point numbers from a normal distribution, others repeated from those given."""
    generator = np.random.default_rng(seed)
    given = iter(shapes)

    def one(x: Any) -> Any:
        shape = next(given)
        array = x if isinstance(x, np.ndarray) else backend[CALLS].numpy(x)
        if array.dtype.kind == "f":
            new = generator.standard_normal(shape).astype(array.dtype)
        else:
            new = np.resize(array, shape) if array.size else np.zeros(shape, array.dtype)
        return new if isinstance(x, np.ndarray) else backend[CALLS].native(new, x)

    return with_arrays(inputs, one)


def variations(program: Program, inputs: Any) -> list[Variation]:
    """Ways in which the inputs' sizes may change, the most free first; the last keeps all but the batch."""
    given = [tuple(int(n) for n in x.shape) for x in arrays(inputs)]
    leaves = program.of_role("input")
    batch = given[0][0] if given and given[0] else 1
    first, second = (batch, batch + 1) if batch > 1 else (2, 3)

    def batched(shapes: Sequence[Shape], n: int) -> tuple[Shape, ...]:
        return tuple((n, *s[1:]) if s and s[0] == batch else s for s in shapes)

    found = []
    spatial: dict[int, list[int]] = {}
    if len(leaves) == len(given):
        for place, leaf in enumerate(leaves):
            axis = channel_axis(leaf.value, program)
            if axis is not None:
                spatial[place] = [a for a in range(1, len(given[place])) if a != axis % len(given[place])]
    for place, shape in enumerate(given):
        # What has the size of an image, and is added to one, has to keep it.
        like = next((i for i in spatial if place not in spatial and shape[2:] == given[i][2:] and len(shape) > 2), None)
        if like is not None:
            spatial[place] = spatial[like]
    if spatial:
        grown = [
            tuple(n * (2 + axes.index(a) % 2) if a in (axes := spatial.get(i, [])) else n for a, n in enumerate(shape))
            for i, shape in enumerate(given)
        ]
        found.append(Variation("batch and image size", (batched(given, first), batched(grown, second))))
    elif given and len(given[0]) > 1:
        length = given[0][1]
        longer = [(s[0], length + 3, *s[2:]) if len(s) > 1 and s[1] == length else s for s in given]
        found.append(Variation("batch and length", (batched(given, first), batched(longer, second))))
    found.append(Variation("batch", (batched(given, first), batched(given, second))))
    return found
