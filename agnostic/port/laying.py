"""Give a whole program the axes of another framework, operator by operator, by the rules."""

from __future__ import annotations

from collections.abc import Mapping

from agnostic.port.laid import Laid, flat, fresh, is_woven, natural, size
from agnostic.port.layout import VIEWS, LaidOut, LayoutState, Pinned, image_axis, input_axis, whole
from agnostic.port.loops import LOOPS, Carried
from agnostic.port.products import PRODUCTS, absorbed
from agnostic.port.rules import RULES, default
from agnostic.program.builder import Builder, NodeOrigin
from agnostic.program.nodes import Node, Program, Value, readers_of


def laid_out(program: Program, channels: int) -> LaidOut:
    """Give a program the axes of another framework.

    Args:
        program: a simplified program.
        channels: the axis of an image's channels in the target: -1 (last) or 1 (first).
    """
    pinned: frozenset[str] = frozenset()
    carried: dict[Value, tuple[int, ...]] = {}
    while True:
        try:
            return _laid_out(program, channels, pinned, carried)
        except Pinned as found:
            pinned |= {str(found)}
        except Carried as found:
            carried |= found.orders


def _laid_out(
    program: Program, channels: int, pinned: frozenset[str], carried: Mapping[Value, tuple[int, ...]]
) -> LaidOut:
    rules = {**RULES, **PRODUCTS, **LOOPS}
    builder = Builder(_count=program.last_id)
    state = LayoutState(builder, channels, Node("", (), {}, ()), readers_of(program.nodes), pinned, carried)
    inputs = {}
    for leaf in program.leaves:
        if leaf.role == "input":
            places = _input_places(leaf.value, state)
            axes = tuple(map(fresh, leaf.value.shape))
            order = tuple(axes[axis] for axis in places)
            value = state.builder.leaf(leaf.name, "input", tuple(map(size, order)), leaf.value.dtype)
            state.laid[leaf.value] = Laid(value, axes, order)
            inputs[leaf.name] = places
        else:
            state.laid[leaf.value] = natural(leaf.value)
            state.pending[leaf.value] = leaf
    for node in program.nodes:
        state.node = node
        state.builder.origin = NodeOrigin.of(node)
        for read in node.reads:
            _leave(state, read)
        empty = any(0 in value.shape for value in (*node.outputs, *node.reads))
        (default if empty else rules.get(node.operator, default))(state, node)
    # A transpose that only the model's result needs belongs to the model itself.
    state.builder.origin = NodeOrigin("", program.name, calls=("",))
    state.node = Node("output", (), {}, ())
    results, outputs = {}, {}
    for path, value in program.outputs:
        results[path], outputs[path] = _output(state, value)
    state.settled()
    new = state.builder.program(program.name, program.framework, results, program.modules)
    new, moves = absorbed(new, state.moves)
    places_of = {value: found for value, x in state.laid.items() if (found := whole(x)) is not None}
    return LaidOut(new, state.steps, inputs, outputs, tuple(moves), places_of)


def _leave(state: LayoutState, value: Value) -> None:
    """Give a view the axes of the source in the layer that took it, before another layer computes with it: where
    that changes only the shape, and where it merges windows, which costs no more there.
    """
    x = state.laid[value]
    if x.seen is None or state.node.operator in VIEWS or state.is_leaf(x) or state.builder.origin.is_within(x.origin):
        return
    if flat(x.order) == flat(x.axes) or (is_woven(x) and image_axis(value, state.consumers) in (None, state.channels)):
        order = tuple(axis for place, axis in enumerate(x.axes) if axis or not place)
        state.laid[value] = Laid(state.realized(x, order), x.axes, order)


def _input_places(value: Value, state: LayoutState) -> tuple[int, ...]:
    """For each axis of the target's input, the axis in the source: channels move if the value is used as an image."""
    rank = len(value.shape)
    same = tuple(range(rank))
    axis = input_axis(value, state.consumers)
    if axis is None or axis % rank == state.channels % rank:
        return same
    others = [place for place in same if place not in (0, axis % rank)]
    return (0, *others, axis % rank) if state.channels == -1 else (0, axis % rank, *others)


def _output(state: LayoutState, value: Value) -> tuple[Value, tuple[int, ...]]:
    """An output unchanged where it is an image with moved channels; else with the axes of the source."""
    x = state.of(value)
    found, rank = whole(x), len(x.axes)
    if found is not None and not state.is_leaf(x):
        spatial = list(range(2, rank))
        if found[1] in ((0, *spatial, 1), (0, rank - 1, *range(1, rank - 1))):
            return found
    if state.is_leaf(x):
        # A weight or constant that a model returns may have no other reader.
        return state.builder.emit("identity", state.source(x)), tuple(range(rank))
    return state.source(x), tuple(range(rank))
