"""Compute a recorded run again in float64, with some of its values taken from elsewhere."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from agnostic.compare import noise
from agnostic.program.nodes import Array, Node, Value, map_values, values_in
from agnostic.program.runs import Run

Evaluate = Callable[[Node, Sequence[Any]], tuple[Array, ...]]
Edge = tuple[int, int]
"""An operand of a node: the node's index, and the operand's place in :func:`slots`."""


@dataclass(frozen=True)
class Patches:
    """What is taken from elsewhere.

    Attributes:
        values: instead of a value, wherever it is used.
        edges: instead of one operand of one node.
    """

    values: Mapping[Value, Array] = field(default_factory=dict)
    edges: Mapping[Edge, Array] = field(default_factory=dict)


NOTHING = Patches()


def slots(node: Node) -> list[Any]:
    """The operands of a node in one list: values, numbers and None; those of a tuple one by one."""
    found: list[Any] = []

    def add(operand: Any) -> None:
        if isinstance(operand, tuple):
            for part in operand:
                add(part)
        else:
            found.append(operand)

    for operand in node.operands:
        add(operand)
    return found


def filled(node: Node, arrays: Sequence[Any]) -> tuple[Any, ...]:
    """The operands of a node with these in the place of :func:`slots`."""
    rest = iter(arrays)

    def fill(operand: Any) -> Any:
        return tuple(map(fill, operand)) if isinstance(operand, tuple) else next(rest)

    return tuple(fill(operand) for operand in node.operands)


def operands_of(node: Node, index: int, read: Callable[[Value], Array], patches: Patches) -> tuple[Any, ...]:
    """What a node is applied to."""
    if not any(edge[0] == index for edge in patches.edges):
        return tuple(map_values(x, read) for x in node.operands)
    given = [
        patches.edges[index, k] if (index, k) in patches.edges else read(x) if isinstance(x, Value) else x
        for k, x in enumerate(slots(node))
    ]
    return filled(node, given)


def leaf_arrays(run: Run) -> dict[Value, Array]:
    """What a run starts from, floating point in float64."""
    return {value: widened(x) for value, x in run.arrays.items()}


def widened(x: Array) -> Array:
    """An array in the type of a replay."""
    if x.dtype.kind == "f":
        return x.astype(np.float64, copy=False)
    return x.astype(np.complex128, copy=False) if x.dtype.kind == "c" else x


ReplayStep = tuple[int, tuple[Array, ...]]


def walk(
    run: Run, evaluate: Evaluate, patches: Patches = NOTHING
) -> Generator[ReplayStep, tuple[Array, ...] | None, None]:
    """Each node's index and what it gives, in order; arrays that no later node reads are let go.

    A generator that is sent arrays goes on with those.
    """
    arrays = leaf_arrays(run) | dict(patches.values)
    kept = {value for _, value in run.program.outputs}
    uses = Counter(v for node in run.program.nodes for x in node.operands for v in values_in(x))
    for index, node in enumerate(run.program.nodes):
        if node.outputs and all(v in run.drawn or v in patches.values for v in node.outputs):
            results = tuple(arrays[v] for v in node.outputs)
        else:
            with np.errstate(all="ignore"):
                results = evaluate(node, operands_of(node, index, arrays.__getitem__, patches))
            results = tuple(
                patches.values.get(v, x).reshape(x.shape) if v in patches.values else x
                for v, x in zip(node.outputs, results, strict=True)
            )
        instead = yield index, results
        arrays.update(zip(node.outputs, instead or results, strict=True))
        for operand in node.operands:
            for value in values_in(operand):
                uses[value] -= 1
                if not uses[value] and value not in kept:
                    arrays.pop(value, None)
    yield -1, tuple(arrays[value] for _, value in run.program.outputs)


def outputs(run: Run, evaluate: Evaluate, patches: Patches = NOTHING) -> dict[str, Array]:
    """What the run gives in float64."""
    ((_, last),) = deque(walk(run, evaluate, patches), maxlen=1)
    return dict(zip((path for path, _ in run.program.outputs), last, strict=True))


def floors(run: Run, exact: Mapping[str, Array]) -> dict[str, float]:
    """What the run's own arithmetic does to each of its outputs: the root mean square of its distance to float64."""
    found = {}
    for path, value in run.program.outputs:
        scale = noise.rms(exact[path])
        found[path] = max(noise.difference(run.outputs[path], exact[path]), noise.least(scale, value.dtype))
    return found
