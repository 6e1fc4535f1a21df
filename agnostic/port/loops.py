"""Loops in a port: their layout, and what a block that runs for each place of an axis is given and gives.

The nodes of a loop are a call of one layer, so that they become a block, which a helper of the written file calls for
each place. A program whose loops cannot be written so is written out place by place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from agnostic.port.laid import Axis, Laid, fresh
from agnostic.port.layout import LayoutState, whole
from agnostic.port.orders import isolated
from agnostic.port.rules import LayoutRule
from agnostic.program.builder import NodeOrigin
from agnostic.program.nodes import Node, Value
from agnostic.tables import filling

HELPER = "over_time"
"""The function of a written file that calls a block for each place."""

LOOPS: dict[str, LayoutRule] = {}
loop = filling(LOOPS)
"""Register a function as the rule of an end of a loop."""


class Unlooped(Exception):
    """A loop cannot be written as one."""


class Carried(Exception):
    """States lie in another order after a place than before it.

    Attributes:
        orders: for states at the beginning of a place, the axes of the source in the order that they have after it.
    """

    def __init__(self, orders: Mapping[Value, tuple[int, ...]]) -> None:
        super().__init__()
        self.orders = orders


@dataclass
class OpenLoop:
    """A loop whose end is not reached.

    Attributes:
        node: its start.
        laid, in_order: what was known of values at its start; inside of it, others are moved at each place anew.
        orders: of its states.
    """

    node: Node
    laid: Mapping[Value, Laid] = field(repr=False)
    in_order: Mapping[Any, Value] = field(repr=False)
    orders: list[tuple[int, ...]]


@loop("loop_start")
def _start(state: LayoutState, node: Node) -> None:
    sequences, states = ([state.of(v) for v in part] for part in node.operands)  # type: ignore[union-attr, arg-type]
    values, along, laid = [], [], []
    for x, axis in zip(sequences, node.attributes["axes"], strict=True):
        order = isolated(x, [axis]) or list(x.axes)
        place = order.index(x.axes[axis]) if x.axes[axis] else axis
        values.append(state.realized(x, order))
        along.append(place)
        laid.append((_without(x.axes, axis), _without(order, place)))
    orders = []
    for x, value in zip(states, node.outputs[len(sequences) :], strict=True):
        axes = tuple(map(fresh, x.shape))
        orders.append(state.carried.get(value, tuple(range(len(axes)))))
        values.append(state.realized(x, [x.axes[place] for place in orders[-1]]))
        laid.append((axes, tuple(axes[place] for place in orders[-1])))
    count = len(sequences)
    state.loops.append(OpenLoop(node, dict(state.laid), dict(state.in_order), orders))
    results = state.emit([tuple(values[:count]), tuple(values[count:])], {"axes": tuple(along)})
    _give(state, node, results, laid)


@loop("loop_end")
def _end(state: LayoutState, node: Node) -> None:
    opened = state.loops.pop()
    output, states = state.of(node.operands[0]), [state.of(v) for v in node.operands[1]]  # type: ignore[union-attr, arg-type]
    found = [whole(x) for x in states]
    news = dict(zip(opened.node.outputs[-len(states) :] if states else (), found, strict=True))
    other = {
        value: new[1]
        for (value, new), order in zip(news.items(), opened.orders, strict=True)
        if new is not None and new[1] != order and value not in state.carried
    }
    if other:
        raise Carried(other)
    # What is moved for the next place is moved by the block.
    origin = state.builder.origin
    state.builder.origin = _called(state.builder.nodes[-1], len(node.calls))
    order = output.order if whole(output) is not None else output.axes
    value = state.realized(output, order)
    after = tuple(
        state.realized(x, [x.axes[p] for p in places]) for x, places in zip(states, opened.orders, strict=True)
    )
    state.builder.origin = origin
    mask = [state.source(state.of(v)) for v in node.operands[2:] if isinstance(v, Value)]
    axis = int(node.attributes["axis"])
    following = output.axes[axis] if axis < len(output.axes) else ()
    place = list(order).index(following) if following else len(order)
    results = state.emit([value, after, *mask], {**node.attributes, "axis": place})
    new = fresh(int(node.attributes["length"]))
    laid = [(_with(output.axes, axis, new), _with(order, place, new))]
    laid += [(x.axes, tuple(x.axes[p] for p in places)) for x, places in zip(states, opened.orders, strict=True)]
    state.laid.update(opened.laid)
    state.in_order = dict(opened.in_order)
    _give(state, node, results, laid)


def _give(state: LayoutState, node: Node, results: Sequence[Value], laid: Sequence[Any]) -> None:
    for number, (value, (axes, order)) in enumerate(zip(results, laid, strict=True)):
        state.give(axes, order, state.builder.retype(value, node.outputs[number].dtype), number)


def _without(axes: Sequence[Axis], place: int) -> tuple[Axis, ...]:
    return (*axes[:place], *axes[place + 1 :])


def _with(axes: Sequence[Axis], place: int, new: Axis) -> tuple[Axis, ...]:
    return (*axes[:place], new, *axes[place:])


def _called(node: Node, depth: int) -> NodeOrigin:
    """The call that a node belongs to, below so many that run."""
    if len(node.calls) <= depth:
        raise Unlooped
    module = node.calls[depth].partition("@")[0]
    return replace(NodeOrigin.of(node), module=module, kind="", calls=node.calls[: depth + 1])
