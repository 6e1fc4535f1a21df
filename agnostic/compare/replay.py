"""Compute a recorded run again in float64, with some of its values taken from elsewhere."""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from agnostic.compare import noise
from agnostic.compare.lowering import PRODUCTS, kind
from agnostic.compare.watching import StepCounter
from agnostic.program.exact import widened
from agnostic.program.nodes import Array, Node, Value, map_values
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


KEPT_SIZE, KEPT_EVERY = 1 << 12, 8
"""So many numbers are kept in any case; and of a chain of operators, the value after so many."""

RECENT = 8
"""How many of the values that were computed again are kept for a while."""


class Values:
    """What the operators of a run give in float64.

    Products with weights are kept; other values are computed from them again when they are asked for, since together
    they would take several times the memory.

    Args:
        run, evaluate, patches: what is computed.
        base: other values of the run, which those that the patches do not change are taken from.
    """

    def __init__(self, run: Run, evaluate: Evaluate, patches: Patches = NOTHING, base: Values | None = None) -> None:
        self.run, self.evaluate, self.patches = run, evaluate, patches
        self._producers: dict[Value, int] = (
            {v: k for k, node in enumerate(run.program.nodes) for v in node.outputs}
            if base is None
            else base._producers
        )
        self._leaves: frozenset[Value] = (
            frozenset(leaf.value for leaf in run.program.leaves) if base is None else base._leaves
        )
        self._kept: dict[Value, Array] = {} if base is None else dict(base._kept)
        self._elsewhere: dict[Value, Callable[[], Array]] = {} if base is None else dict(base._elsewhere)
        self._depths: dict[Value, int] = {} if base is None else base._depths
        self._recent: OrderedDict[int, tuple[Array, ...]] = OrderedDict()

    def __getitem__(self, value: Value) -> Array:
        if value in self.patches.values:
            return self.patches.values[value]
        if value in self._kept:
            return self._kept[value]
        if value in self._elsewhere:
            return self._elsewhere[value]()
        index = self._producers.get(value)
        if index is None or value in self.run.drawn:
            return widened(self.run.arrays[value])
        node = self.run.program.nodes[index]
        if index in self._recent:
            self._recent.move_to_end(index)
        else:
            with np.errstate(all="ignore"):
                self._recent[index] = self.evaluate(node, operands_of(node, index, self.__getitem__, self.patches))
            if len(self._recent) > RECENT:
                self._recent.popitem(last=False)
        return self._recent[index][node.outputs.index(value)]

    def keep(self, index: int, results: tuple[Array, ...]) -> None:
        """Remember what a node gave, or how to compute it again."""
        node = self.run.program.nodes[index]
        given = list(node.reads)
        depth = 1 + max((self._depths.get(x, 0) for x in given), default=0)
        weighted = any(x in self._leaves and len(x.shape) > 1 for x in given)
        for value, x in zip(node.outputs, results, strict=True):
            self._elsewhere.pop(value, None)
            self._depths[value] = depth
            if weighted or depth >= KEPT_EVERY or x.size <= KEPT_SIZE or kind(node) in PRODUCTS:
                # A few numbers of a large array would keep all of it.
                self._kept[value], self._depths[value] = np.array(x) if x.size <= KEPT_SIZE else x, 0
            else:
                self._kept.pop(value, None)

    def take(self, value: Value, array: Callable[[], Array]) -> None:
        """A value is another run's."""
        self._kept.pop(value, None)
        self._elsewhere[value] = array


ReplayStep = tuple[int, tuple[Array, ...]]


def walk(
    values: Values, before: Patches | None = None, known: Callable[[int, Node], bool] = lambda index, node: False
) -> Generator[ReplayStep, tuple[Array, ...] | None, None]:
    """Each node's index and what it gives, in order; at the end -1, and the outputs. What is not read again is let go.

    A generator that is sent arrays goes on with those.

    Args:
        values: of the run; what is not computed here is read from them.
        before: the patches of an earlier replay whose values these are: nodes that the others do not change are left
            out.
        known: whether what a node gives is among the values already.
    """
    run, patches = values.run, values.patches
    changed = None if before is None else _Changed(patches, before)
    arrays: dict[Value, Array] = {}
    kept = {value for _, value in run.program.outputs}
    uses = Counter(v for node in run.program.nodes for v in node.reads)

    def read(value: Value) -> Array:
        return arrays[value] if value in arrays else values[value]

    progress = StepCounter(len(run.program.nodes))
    for index, node in enumerate(run.program.nodes):
        progress.count()
        if (changed is not None and not changed.reaches(index, node)) or known(index, node):
            continue
        if node.outputs and all(v in run.drawn or v in patches.values for v in node.outputs):
            results = tuple(values[v] for v in node.outputs)
        else:
            with np.errstate(all="ignore"):
                results = values.evaluate(node, operands_of(node, index, read, patches))
            results = tuple(
                patches.values[v].reshape(x.shape) if v in patches.values else x
                for v, x in zip(node.outputs, results, strict=True)
            )
        instead = yield index, results
        arrays.update(zip(node.outputs, instead or results, strict=True))
        for value in node.reads:
            uses[value] -= 1
            if not uses[value] and value not in kept:
                arrays.pop(value, None)
    yield -1, tuple(read(value) for _, value in run.program.outputs)


class _Changed:
    """What patches change beyond those of an earlier replay."""

    def __init__(self, patches: Patches, before: Patches) -> None:
        self.values = {v for v in patches.values if v not in before.values}
        self._nodes = {edge[0] for edge in patches.edges if edge not in before.edges}

    def reaches(self, index: int, node: Node) -> bool:
        """Whether a node gives something else; then what reads it does as well."""
        found = (
            index in self._nodes
            or any(v in self.values for v in node.outputs)
            or any(v in self.values for v in node.reads)
        )
        self.values.update(node.outputs if found else ())
        return found


def outputs(values: Values, before: Patches | None = None) -> dict[str, Array]:
    """What the run gives in float64; see :func:`walk`."""
    ((_, last),) = deque(walk(values, before), maxlen=1)
    return dict(zip((path for path, _ in values.run.program.outputs), last, strict=True))


def floors(run: Run, exact: Mapping[str, Array]) -> dict[str, float]:
    """What the run's own arithmetic does to each of its outputs: the root mean square of its distance to float64."""
    found = {}
    for path, value in run.program.outputs:
        scale = noise.rms(exact[path])
        found[path] = max(noise.difference(run.outputs[path], exact[path]), noise.least(scale, value.dtype))
    return found
