"""Views: read a part of an array, and compute the whole array after a write to the part.

A program has no memory, so a write through a view becomes a new value of the base. Each step of a view is a node of the
vocabulary that moves numbers without computing, and each step can be inverted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from agnostic.program.builder import Builder
from agnostic.program.nodes import Node, Value, givers_of

Steps = tuple[Node, ...]


def steps_between(base: Value, view: Value, nodes: Sequence[Node]) -> Steps | None:
    """The nodes that lead from a base to its view; () where both are the same value.

    Args:
        base: the base.
        view: the view.
        nodes: the nodes to search, in order.

    Returns:
        The nodes; None where one of them cannot be inverted.
    """
    givers = givers_of(nodes)
    found: list[Node] = []
    while view != base:
        node = givers.get(view)
        if node is None or node.operator not in {*_BACK, *_ALIASES} or not isinstance(node.operands[0], Value):
            return None
        if node.operator not in _ALIASES:
            found.append(node)
        view = node.operands[0]
    return tuple(reversed(found))


def read(builder: Builder, base: Value, steps: Steps) -> Value:
    """Apply the steps to another base of the same shape."""
    value = base
    for step in steps:
        value = builder.emit(step.operator, value, dtype=base.dtype, **step.attributes)
    return value


def written(builder: Builder, base: Value, steps: Steps, part: Value) -> Value:
    """The base after its view was replaced."""
    wholes, whole = [], base
    for step in steps:
        wholes.append(whole)
        whole = read(builder, whole, (step,))
    for step, whole in zip(reversed(steps), reversed(wholes), strict=True):
        part = _BACK[step.operator](builder, whole, part, step)
    return part


def _reshaped(builder: Builder, whole: Value, part: Value, step: Node) -> Value:
    value: Value = builder.emit("reshape", part, shape=whole.shape)
    return value


def _permuted(builder: Builder, whole: Value, part: Value, step: Node) -> Value:
    axes = step.attributes["axes"]
    value: Value = builder.emit("permute", part, axes=tuple(sorted(range(len(axes)), key=axes.__getitem__)))
    return value


def _sliced(builder: Builder, whole: Value, part: Value, step: Node) -> Value:
    value: Value = builder.emit("update", whole, part, dtype=whole.dtype, **step.attributes)
    return value


def _selected(builder: Builder, whole: Value, part: Value, step: Node) -> Value:
    axis, index = step.attributes["axis"], step.attributes["index"]
    shape = (*whole.shape[:axis], 1, *whole.shape[axis + 1 :])
    row = builder.emit("reshape", part, shape=shape)
    value: Value = builder.emit("update", whole, row, dtype=whole.dtype, axis=axis, start=index, stop=index + 1)
    return value


def _same(builder: Builder, whole: Value, part: Value, step: Node) -> Value:
    return part


_BACK: Mapping[str, Callable[[Builder, Value, Value, Node], Value]] = {
    "reshape": _reshaped,
    "permute": _permuted,
    "slice": _sliced,
    "select": _selected,
    "identity": _same,
    "unary": _same,  # of those, the one that stops gradients alone is a view
}

_ALIASES = frozenset({"dropout"})
"""Operators that return their operand itself in inference mode, so that a write to one is a write to the other."""
