"""The pass that gives a program the axes of another framework: channels last, or channels first.

The result is a program of the same vocabulary that computes the same numbers. Inputs and outputs may have other axes,
and weights another order; :class:`LaidOut` says which. Where renaming axes is enough, nothing moves: the order is
propagated and weights are reordered once. The transposes that remain are listed with their reason.
:mod:`agnostic.port.rules` has one rule per operator; an operator without a rule gets operands with the source's axes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from agnostic.port.laid import Axis, Laid, atoms, flat, size
from agnostic.program.builder import Builder
from agnostic.program.nodes import Array, Leaf, Node, Program, Value, map_values, readers_of

IMAGES = frozenset(
    {
        "convolution", "transposed_convolution", "max_pool", "max_pool_places", "average_pool", "adaptive_average_pool",
        "adaptive_max_pool", "batch_norm", "batch_norm_training", "group_norm", "prelu", "resize",
    }
)  # fmt: skip
"""Operators that have a ``channel_axis``."""

ELEMENTWISE = ("add", "subtract", "multiply", "divide", "power", "maximum", "minimum", "where", "clip", "binary")
UNARY = ("unary", "cast", "identity")

VIEWS = frozenset({"permute", "reshape"})
"""Operators that compute nothing."""

FOLLOWING = frozenset(
    {*ELEMENTWISE, *UNARY, "activation", "dropout", "pad", "concatenate", "slice", "reduce", "variance", "norm"}
)
"""Operators through which an image stays an image."""


@dataclass(frozen=True)
class Rearrangement:
    """The reordering of a weight's numbers: a reshape, a permutation, a reshape."""

    split: tuple[int, ...]
    axes: tuple[int, ...]
    shape: tuple[int, ...]

    def __call__(self, x: Array) -> Array:
        """The reordered numbers."""
        # ascontiguousarray gives a scalar one axis.
        return np.ascontiguousarray(x.reshape(self.split).transpose(self.axes)).reshape(self.shape)

    @property
    def is_nothing(self) -> bool:
        """Whether it changes only the shape."""
        return self.axes == tuple(range(len(self.axes)))

    def back(self, x: Array, shape: Sequence[int]) -> Array:
        """The inverse: the numbers in their old order and shape."""
        moved = x.reshape([self.split[axis] for axis in self.axes])
        return moved.transpose(np.argsort(self.axes)).reshape(tuple(shape))


@dataclass(frozen=True)
class Move:
    """A transpose that remains.

    Attributes:
        node: the transpose in the new program.
        operator: the operator that needs its operand in that order.
        module: the path of that operator's layer.
    """

    node: Node
    operator: str
    module: str


@dataclass(frozen=True)
class LaidOut:
    """A program in the axes of another framework.

    Attributes:
        program: the program.
        weights: by name, the reordering of each parameter or buffer that changed.
        inputs: for each axis of each input, the axis in the source: (0, 2, 3, 1) from channels first to channels last.
        outputs: the same for each output, by path.
        moves: the transposes that remain.
        places: for each value of the source with an equal in the new program: that value, and its axes as for outputs.
    """

    program: Program
    weights: Mapping[str, Rearrangement]
    inputs: Mapping[str, tuple[int, ...]]
    outputs: Mapping[str, tuple[int, ...]]
    moves: tuple[Move, ...]
    places: Mapping[Value, tuple[Value, tuple[int, ...]]]


class Pinned(Exception):
    """A weight is needed in two orders, so it keeps the order of the source."""


@dataclass
class LayoutState:
    """The state that the rules of :mod:`agnostic.port.rules` work on.

    Attributes:
        builder: writes the new program.
        channels: the axis of an image's channels in the target: 1 or -1.
        node: the current node of the source.
        consumers: the nodes that read each value of the source.
        carried: for states of loops, the axes of the source in the order in which they lie from place to place.
        loops: those that are open, the outermost first.
        in_order: values with their numbers in an order in which they were moved.
    """

    builder: Builder
    channels: int
    node: Node
    consumers: Mapping[Value, Sequence[Node]]
    pinned: frozenset[str] = frozenset()
    carried: Mapping[Value, tuple[int, ...]] = field(default_factory=dict)
    loops: list[Any] = field(default_factory=list)
    laid: dict[Value, Laid] = field(default_factory=dict)
    steps: dict[str, Rearrangement] = field(default_factory=dict)
    moves: list[Move] = field(default_factory=list)
    inserted: list[tuple[tuple[int, int], Node]] = field(default_factory=list)
    views: int = 0
    pending: dict[Value, Leaf] = field(default_factory=dict)
    in_order: dict[tuple[Value, tuple[Axis, ...]], Value] = field(default_factory=dict)
    _settled: dict[Value, tuple[Rearrangement, Value]] = field(default_factory=dict)

    def of(self, value: Value) -> Laid:
        """The layout of a value of the source."""
        return self.laid[value]

    def is_leaf(self, x: Laid) -> bool:
        """Whether it is a weight or constant, which can be reordered at no cost."""
        return x.value in self.pending

    def shape_of_weight(self, x: Laid) -> tuple[int, ...] | None:
        """The shape of a parameter or buffer in the source; None for what is neither."""
        leaf = self.pending.get(x.value)
        return None if leaf is None or leaf.array is not None else leaf.value.shape

    def realized(self, x: Laid, order: Sequence[Axis]) -> Value:
        """The value with its numbers in a given order. This is the only place where numbers are moved.

        Args:
            x: the value.
            order: its factors, for each axis of the result.
        """
        order = tuple(order)
        if self.is_leaf(x):
            return self._leaf(x, order)
        if x.order == order:
            return x.value
        key = (x.value, tuple(order))
        if key not in self.in_order:
            before = len(self.moves)
            self.in_order[key] = self._there(x, order)
            if len(self.moves) > before:
                _remember(self, x, order, self.in_order[key])
        return self.in_order[key]

    def _there(self, x: Laid, order: tuple[Axis, ...]) -> Value:
        """Move the numbers where the source took the view that needs it, not where the view is read."""
        if x.seen is None:
            return self._moved(x.value, x.order, order)
        count, origin = len(self.builder.nodes), self.builder.origin
        self.builder.origin = x.origin
        value = self._moved(x.value, x.order, order)
        self.builder.origin = origin
        self.inserted += [(x.seen, node) for node in self.builder.nodes[count:]]
        del self.builder.nodes[count:]
        return value

    def view(self, value: Value, x: Laid) -> None:
        """Set the layout of a view of the source; nothing is moved yet."""
        self.views += 1
        self.laid[value] = replace(x, seen=(len(self.builder.nodes), self.views), origin=self.builder.origin)

    def settled(self) -> None:
        """Insert the transposes of views at the places of the views."""
        nodes: list[Node] = []
        moved = sorted(self.inserted, key=lambda found: found[0])
        for place, node in enumerate([*self.builder.nodes, None]):
            while moved and moved[0][0][0] <= place:
                nodes.append(moved.pop(0)[1])
            if node is not None:
                nodes.append(node)
        self.builder.nodes[:] = nodes

    def source(self, x: Laid) -> Value:
        """The value with the axes of the source."""
        return self.realized(x, x.axes)

    def _moved(self, value: Value, have: tuple[Axis, ...], want: tuple[Axis, ...]) -> Value:
        runs, wanted = atoms(have, want), flat(want)
        order = sorted(range(len(runs)), key=lambda i: wanted.index(runs[i][0]))
        if order != list(range(len(runs))):
            value = self.shaped(value, tuple(map(size, runs)))
            value = self.builder.emit("permute", value, axes=tuple(order))
            self.moves.append(Move(self.builder.nodes[-1], self.node.operator, self.node.module))
        return self.shaped(value, tuple(map(size, want)))

    def shaped(self, value: Value, shape: tuple[int, ...]) -> Value:
        """The value in another shape."""
        if value.shape == shape:
            return value
        shaped: Value = self.builder.emit("reshape", value, shape=shape)
        return shaped

    def _leaf(self, x: Laid, order: tuple[Axis, ...]) -> Value:
        leaf = self.pending[x.value]
        runs, wanted = atoms(x.order, order), flat(order)
        axes = tuple(sorted(range(len(runs)), key=lambda i: wanted.index(runs[i][0])))
        step = Rearrangement(tuple(map(size, runs)), axes, tuple(map(size, order)))
        if x.value in self._settled:
            settled, value = self._settled[x.value]
            if settled == step:
                return value
            if leaf.array is None or leaf.name in self.pinned:
                return self._pinned(x, order, leaf)
        elif leaf.name in self.pinned:
            return self._pinned(x, order, leaf)
        array = None if leaf.array is None else step(leaf.array)
        name = leaf.name if x.value not in self._settled else f"{leaf.name}_{len(self.builder.leaves)}"
        value = self.builder.leaf(name, leaf.role, step.shape, x.value.dtype, array)
        self._settled[x.value] = (step, value)
        if leaf.array is None and (not step.is_nothing or step.shape != leaf.value.shape):
            self.steps[leaf.name] = step
        return value

    def _pinned(self, x: Laid, order: tuple[Axis, ...], leaf: Leaf) -> Value:
        if leaf.name not in self.pinned:
            raise Pinned(leaf.name)
        if x.value not in self._settled:
            value = self.builder.leaf(leaf.name, leaf.role, leaf.value.shape, leaf.value.dtype)
            step = Rearrangement(leaf.value.shape, tuple(range(len(leaf.value.shape))), leaf.value.shape)
            self._settled[x.value] = (step, value)
        value = self._settled[x.value][1]
        key = (value, order)
        if key not in self.in_order:
            self.in_order[key] = self._moved(value, x.order, order)
        return self.in_order[key]

    def emit(self, operands: Sequence[Any], attributes: Mapping[str, Any], operator: str | None = None) -> Any:
        """A node of the new program for the node of the source: other operands, other attributes.

        Returns:
            Its output, or a tuple of outputs.
        """
        given = {name: value for name, value in attributes.items() if name != "dtype"}
        return self.builder.emit(operator or self.node.operator, *operands, dtype=self.node.outputs[0].dtype, **given)

    def give(self, axes: Sequence[Axis], order: Sequence[Axis], value: Value, output: int = 0) -> None:
        """Set the layout of an output of the node."""
        found = Laid(value, tuple(axes), tuple(order))
        assert found.shape == self.node.outputs[output].shape, (self.node, found)
        assert tuple(map(size, order)) == value.shape, (self.node, found)
        self.laid[self.node.outputs[output]] = found


def _remember(state: LayoutState, x: Laid, order: tuple[Axis, ...], value: Value) -> None:
    """Remember a moved value, so that later readers reuse it."""
    for operand in state.node.reads:
        known = state.laid[operand]
        if known.value == x.value and known.axes == x.axes:
            state.laid[operand] = Laid(value, x.axes, order)


def channel_axis(value: Value, program: Program) -> int | None:
    """The channel axis of an input that is an image; None for one that no operator uses as an image."""
    return input_axis(value, readers_of(program.nodes))


def input_axis(value: Value, consumers: Mapping[Value, Sequence[Node]]) -> int | None:
    """As :func:`image_axis`, and of an input whose channels the model itself moves behind height and width."""
    rank = len(value.shape)
    last = (0, *range(2, rank), 1)
    for node in _uses(value, consumers):
        if node.operator in IMAGES:
            return int(node.attributes.get("channel_axis", 1))
        if node.operator == "permute" and rank > 3 and node.attributes["axes"] == last:
            return 1
    return None


def image_axis(value: Value, consumers: Mapping[Value, Sequence[Node]]) -> int | None:
    """The channel axis, according to the first operator that uses the value as an image."""
    uses = (node for node in _uses(value, consumers) if node.operator in IMAGES)
    return next((int(node.attributes.get("channel_axis", 1)) for node in uses), None)


def _uses(value: Value, consumers: Mapping[Value, Sequence[Node]]) -> Iterator[Node]:
    """The operators that read a value, or what others make of it that leave its axes as they are."""
    seen, waiting = {value}, [value]
    while waiting:
        for node in consumers.get(waiting.pop(0), ()):
            is_image = node.operator in IMAGES and len(value.shape) > 2
            if node.operator not in IMAGES or (is_image and node.operands[0] in seen):
                yield node
            if node.operator in FOLLOWING and len(node.outputs[0].shape) == len(value.shape):
                waiting += [v for v in node.outputs if v not in seen]
                seen.update(node.outputs)


def whole(x: Laid) -> tuple[Value, tuple[int, ...]] | None:
    """The value and the source axis of each of its axes; None unless each axis is one axis of the source."""
    if len(x.order) != len(x.axes):
        return None
    left = list(range(len(x.axes)))
    places = []
    for axis in x.order:
        place = next((i for i in left if x.axes[i] == axis), None)
        if place is None:
            return None
        left.remove(place)
        places.append(place)
    return x.value, tuple(places)


def substituted(node: Node, operands: Sequence[Any]) -> Node:
    """The node with other operands."""
    return replace(node, operands=tuple(operands))


def mapped(node: Node, function: Any) -> list[Any]:
    """The operands with values replaced."""
    return [map_values(operand, function) for operand in node.operands]
