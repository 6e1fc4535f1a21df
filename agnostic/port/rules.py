"""The layout rule of each operator of the vocabulary. See :mod:`agnostic.port.layout`."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from agnostic.port.laid import (
    Axis,
    Factor,
    Laid,
    flat,
    fresh,
    natural,
    permuted,
    reshaped,
    size,
)
from agnostic.port.layout import ELEMENTWISE, IMAGES, UNARY, LayoutState, mapped, whole
from agnostic.port.orders import axes_beside, cut_apart, in_common_factors, isolated, match_of, refined
from agnostic.program.nodes import Node, Value
from agnostic.program.vocabulary import get
from agnostic.tables import filling

LayoutRule = Callable[[LayoutState, Node], None]
RULES: dict[str, LayoutRule] = {}
rule = filling(RULES)
"""Register a function as the rule of operators."""


def default(state: LayoutState, node: Node) -> None:
    """Operands and outputs have the axes of the source."""
    results = state.emit(mapped(node, lambda v: state.source(state.of(v))), node.attributes)
    for place, value in enumerate(results if isinstance(results, tuple) else (results,)):
        found = natural(value)
        state.give(found.axes, found.order, value, place)


# Element by element ---------------------------------------------------------------------------------------------------
@rule(*UNARY)
def _unary(state: LayoutState, node: Node) -> None:
    x = state.of(node.operands[0])  # type: ignore[arg-type]
    value = state.realized(x, x.order)
    state.give(x.axes, x.order, state.emit([value, *node.operands[1:]], node.attributes))


@rule("dropout")
def _dropout(state: LayoutState, node: Node) -> None:
    x, axes = state.of(node.operands[0]), node.attributes.get("axes")  # type: ignore[arg-type]
    if axes is None:
        _unary(state, node)
        return
    order = isolated(x, [axis for axis in axes if x.axes[axis]])
    if order is None or any(not x.axes[axis] for axis in axes):
        default(state, node)
        return
    along = tuple(sorted(order.index(x.axes[axis]) for axis in axes))
    state.give(x.axes, order, state.emit([state.realized(x, order)], {**node.attributes, "axes": along}))


@rule(*ELEMENTWISE)
def _elementwise(state: LayoutState, node: Node) -> None:
    shape = node.outputs[0].shape
    given = [state.of(o) if isinstance(o, Value) else o for o in node.operands]
    arrays = [x for x in given if isinstance(x, Laid)]
    full = [x for x in arrays if x.shape == shape]
    if not full:
        default(state, node)
        return
    main = min(full, key=lambda x: _cost(state, x))
    aligned = in_common_factors(arrays, len(shape))
    if aligned is None:
        default(state, node)
        return
    main = aligned[next(i for i, x in enumerate(arrays) if x is main)]
    matches = [match_of(main, x) for x in aligned]
    order = tuple(part for axis in main.order for part in cut_apart(axis, matches))
    values = iter([_like(state, x, match, order) for x, match in zip(aligned, matches, strict=True)])
    operands = [next(values) if isinstance(o, Value) else o for o in node.operands]
    state.give(main.axes, order, state.emit(operands, node.attributes))


def _cost(state: LayoutState, x: Laid) -> tuple[bool, bool, bool, int]:
    """A cost of using a value's order for the other operands: images with moved channels cost least."""
    return state.is_leaf(x), whole(x) is None, x.is_natural, len(x.order)


def _like(state: LayoutState, x: Laid, match: dict[Factor, Factor], order: Sequence[Axis]) -> Value:
    """A value in the order of another; missing axes have length 1 and are left out in front."""
    wanted = [tuple(match[f] for f in axis) if all(f in match for f in axis) else () for axis in order]
    if all(f in match for axis in order for f in axis):
        return state.realized(x, wanted)
    source = state.shape_of_weight(x)
    if source is not None and len(source) >= sum(map(bool, wanted)):
        kept = _as_in_source(wanted, source)
        value = state.realized(x, kept)
        broadcasts = kept == wanted[len(wanted) - len(kept) :]
        return value if broadcasts else state.shaped(value, _without_first_ones(tuple(map(size, wanted))))
    while wanted and not wanted[0]:
        wanted.pop(0)
    return state.realized(x, wanted)


def _as_in_source(wanted: list[Axis], source: tuple[int, ...]) -> list[Axis]:
    """As many of the axes as a weight has in the source, by whose shape a state_dict knows it."""
    ones = [place for place, axis in enumerate(wanted) if not axis]
    missing = len(source) - (len(wanted) - len(ones))
    count = min(missing, len(ones))

    def left(chosen: Sequence[int]) -> list[Axis]:
        return [axis for place, axis in enumerate(wanted) if axis or place in chosen]

    def cost(kept: list[Axis]) -> tuple[bool, bool]:
        return tuple(map(size, kept)) != source, kept != wanted[len(wanted) - len(kept) :]

    # Where the other operand has dropped axes of length 1, the weight has more axes than are left.
    return [()] * (missing - count) + min(map(left, itertools.combinations(ones, count)), key=cost)


def _without_first_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(itertools.dropwhile(lambda n: n == 1, shape))


@rule("activation")
def _activation(state: LayoutState, node: Node) -> None:
    (_along if "axis" in node.attributes or node.attributes["function"] == "glu" else _unary)(state, node)


# Images ---------------------------------------------------------------------------------------------------------------
@rule(*IMAGES)
def _image(state: LayoutState, node: Node) -> None:
    x = state.of(node.operands[0])  # type: ignore[arg-type]
    rank = len(x.axes)
    channel = int(node.attributes.get("channel_axis", 1)) % rank
    sizes = [axis for axis in range(1, rank) if axis != channel]
    places = (0, *sizes, channel) if state.channels == -1 else (0, channel, *sizes)
    value = state.realized(x, [x.axes[place] for place in places])
    others = [map_source(state, operand) for operand in node.operands[1:]]
    value = state.emit([value, *others], {**node.attributes, "channel_axis": state.channels})
    order = [x.axes[place] if n == x.shape[place] else fresh(n) for place, n in zip(places, value.shape, strict=True)]
    axes: list[Axis] = [()] * rank
    for place, axis in zip(places, order, strict=True):
        axes[place] = axis
    state.give(axes, order, value)


@rule("adaptive_average_pool")
def _pooled(state: LayoutState, node: Node) -> None:
    """Drop the axes of length 1 of a mean over the whole image, unless a convolution needs them."""
    x = state.of(node.operands[0])  # type: ignore[arg-type]
    rank = len(x.axes)
    channel = int(node.attributes.get("channel_axis", 1)) % rank
    over = [axis for axis in range(1, rank) if axis != channel]
    users = state.consumers.get(node.outputs[0], ())
    if any(n != 1 for n in node.attributes["sizes"]) or any(user.operator != "reshape" for user in users) or not users:
        _image(state, node)
        return
    order = [x.axes[place] for place in ((0, *over, channel) if state.channels == -1 else (0, channel, *over))]
    along = tuple(range(1, rank - 1)) if state.channels == -1 else tuple(range(2, rank))
    value = state.emit([state.realized(x, order)], {"function": "mean", "axes": along, "keep": False}, "reduce")
    axes: list[Axis] = [() if axis in over else x.axes[axis] for axis in range(rank)]
    state.give(axes, [x.axes[0], x.axes[channel]], value)


def map_source(state: LayoutState, operand: Any) -> Any:
    """An operand with the axes of the source."""
    return state.source(state.of(operand)) if isinstance(operand, Value) else operand


# The last axes --------------------------------------------------------------------------------------------------------
@rule("linear")
def _linear(state: LayoutState, node: Node) -> None:
    operands = list(node.operands)
    x, weight = state.of(operands[0]), state.of(operands[1])  # type: ignore[arg-type]
    if len(weight.axes) != 2:
        default(state, node)
        return
    last = x.axes[-1]
    inside = tuple(f for f in flat(x.order) if f in last)
    rest = axes_beside(x, last)
    weight = refined(weight, 1, [f.size for f in last]) if last else weight
    match = dict(zip(last, weight.axes[1], strict=True))
    operands[0] = state.realized(x, [*rest, inside])
    operands[1] = state.realized(weight, [weight.axes[0], tuple(match[f] for f in inside)])
    operands[2:] = [map_source(state, operand) for operand in operands[2:]]
    value = state.emit(operands, node.attributes)
    new = fresh(value.shape[-1])
    state.give([*x.axes[:-1], new], [*rest, new], value)


@rule("layer_norm", "rms_norm")
def _norm(state: LayoutState, node: Node) -> None:
    operands = list(node.operands)
    x = state.of(operands[0])  # type: ignore[arg-type]
    count = len(node.attributes["axes"])
    over = flat(x.axes[-count:])
    pieces = [tuple(f for f in axis if f in over) for axis in x.order]
    inside: list[Axis] = [axis for axis in pieces if axis]
    if count == 1 or not inside:
        inside = [flat(inside)]
    rest = axes_beside(x, over)
    operands[0] = state.realized(x, [*rest, *inside])
    for place, operand in enumerate(operands[1:], 1):
        if isinstance(operand, Value):
            scale = state.of(operand)
            for axis in range(count):
                if x.axes[axis - count]:
                    scale = refined(scale, axis, [f.size for f in x.axes[axis - count]])
            match = dict(zip(over, flat(scale.axes), strict=True))
            operands[place] = state.realized(scale, [tuple(match[f] for f in axis) for axis in inside])
    value = state.emit(operands, {**node.attributes, "axes": tuple(range(-len(inside), 0))})
    state.give(x.axes, [*rest, *inside], value)


# Along axes -----------------------------------------------------------------------------------------------------------
@rule("softmax", "log_softmax", "cumulative", "repeat", "slice")
def _along(state: LayoutState, node: Node) -> None:
    x = state.of(node.operands[0])  # type: ignore[arg-type]
    place = int(node.attributes.get("axis", -1)) % len(x.axes)
    order = isolated(x, [place])
    if order is None:
        default(state, node)
        return
    axis = x.axes[place]
    where = order.index(axis)
    value = state.emit([state.realized(x, order)], {**node.attributes, "axis": where})
    new = axis if value.shape[where] == x.shape[place] else fresh(value.shape[where])
    axes = [new if i == place else a for i, a in enumerate(x.axes)]
    state.give(axes, [new if a == axis else a for a in order], value)


@rule("select")
def _select(state: LayoutState, node: Node) -> None:
    x = state.of(node.operands[0])  # type: ignore[arg-type]
    place = int(node.attributes["axis"]) % len(x.axes)
    order = isolated(x, [place])
    if order is None:
        default(state, node)
        return
    axis = x.axes[place]
    value = state.emit([state.realized(x, order)], {**node.attributes, "axis": order.index(axis)})
    state.give([a for i, a in enumerate(x.axes) if i != place], [a for a in order if a != axis], value)


@rule("argmax", "argmin")
def _place_of(state: LayoutState, node: Node) -> None:
    x = state.of(node.operands[0])  # type: ignore[arg-type]
    axis = node.attributes.get("axis")
    order = None if axis is None else isolated(x, [axis % len(x.axes)])
    if axis is None or order is None:
        default(state, node)
        return
    factors, keep = x.axes[axis % len(x.axes)], bool(node.attributes.get("keep", False))
    value = state.emit([state.realized(x, order)], {**node.attributes, "axis": order.index(factors)})
    axes: list[Axis] = [() if i == axis % len(x.axes) else a for i, a in enumerate(x.axes)]
    if not keep:
        del axes[axis % len(x.axes)]
    state.give(axes, [() if a == factors else a for a in order if keep or a != factors], value)


@rule("pad", "roll", "flip")
def _along_several(state: LayoutState, node: Node) -> None:
    x = state.of(node.operands[0])  # type: ignore[arg-type]
    given = node.attributes
    if node.operator == "pad":
        places = [axis for axis, width in enumerate(given["widths"]) if tuple(width) != (0, 0)]
    else:
        places = [axis % len(x.axes) for axis in given["axes"]]
    order = isolated(x, places)
    if order is None:
        default(state, node)
        return
    where = [order.index(x.axes[place]) for place in places]
    if node.operator == "pad":
        widths = [(0, 0)] * len(order)
        for place, axis in zip(places, where, strict=True):
            widths[axis] = given["widths"][place]
        given = {**given, "widths": tuple(widths)}
    else:
        given = {**given, "axes": tuple(where)}
    value = state.emit([state.realized(x, order)], given)
    instead = {x.axes[p]: fresh(value.shape[w]) for p, w in zip(places, where, strict=True)}
    if node.operator != "pad":
        instead = {}
    state.give([instead.get(a, a) for a in x.axes], [instead.get(a, a) for a in order], value)


@rule("reduce", "variance", "norm")
def _reduce(state: LayoutState, node: Node) -> None:
    x = state.of(node.operands[0])  # type: ignore[arg-type]
    given = node.attributes
    rank = len(x.axes)
    axes = range(rank) if given.get("axes") is None else [axis % rank for axis in given["axes"]]
    gone = set(flat(x.axes[axis] for axis in axes))
    if not gone:
        default(state, node)
        return
    order = [part for axis in x.order for part in cut_apart(axis, [dict.fromkeys(gone, next(iter(gone)))])]
    order = [axis for axis in order if axis or len(order) == rank]
    along = tuple(i for i, axis in enumerate(order) if axis and axis[0] in gone)
    keep = bool(given.get("keep", False))
    value = state.emit([state.realized(x, order)], {**given, "axes": along})
    left: list[Axis] = [() if i in along else axis for i, axis in enumerate(order) if keep or i not in along]
    new: list[Axis] = [() if i in axes else axis for i, axis in enumerate(x.axes) if keep or i not in axes]
    state.give(new, left, value)


# What moves nothing ---------------------------------------------------------------------------------------------------
@rule("permute")
def _permute(state: LayoutState, node: Node) -> None:
    x = state.of(node.operands[0])  # type: ignore[arg-type]
    state.view(node.outputs[0], permuted(x, node.attributes["axes"]))


@rule("reshape")
def _reshape(state: LayoutState, node: Node) -> None:
    x = state.of(node.operands[0])  # type: ignore[arg-type]
    found = reshaped(x, node.outputs[0].shape)
    if found is None:
        # Where a factor cannot be split, each axis is gathered first and then split.
        order = isolated(x, [place for place, axis in enumerate(x.axes) if len(axis) > 1])
        assert order is not None
        whole_axes = {axis: fresh(size(axis)) for axis in x.axes}
        axes = tuple(whole_axes[axis] for axis in x.axes)
        x = Laid(state.realized(x, order), axes, tuple(whole_axes[axis] for axis in order))
        found = reshaped(x, node.outputs[0].shape)
    if found is None:
        default(state, node)
    else:
        state.view(node.outputs[0], found)


@rule("expand")
def _expand(state: LayoutState, node: Node) -> None:
    x, out = state.of(node.operands[0]), node.outputs[0]  # type: ignore[arg-type]
    users = state.consumers.get(out, ())
    # A sum or product broadcasts by itself, if another of its operands has the whole shape.
    if users and all(
        user.operator in ELEMENTWISE
        and any(isinstance(o, Value) and o != out and o.shape == user.outputs[0].shape for o in user.operands)
        for user in users
    ):
        state.laid[out] = replace(x, axes=((),) * (len(out.shape) - len(x.axes)) + x.axes)
        return
    default(state, node)


# Several arrays -------------------------------------------------------------------------------------------------------
@rule("concatenate")
def _concatenate(state: LayoutState, node: Node) -> None:
    parts = [state.of(v) for v in node.operands[0]]  # type: ignore[union-attr, arg-type]
    rank = len(node.outputs[0].shape)
    place = int(node.attributes["axis"]) % rank
    main = min(parts, key=lambda x: _cost(state, x))
    if any(len(x.axes) != rank or (not x.axes[place] and x is main) for x in parts):
        default(state, node)
        return
    # For the comparison, the concatenated axis of each part counts as one factor.
    without = [replace(x, axes=tuple(() if i == place else a for i, a in enumerate(x.axes))) for x in parts]
    aligned = in_common_factors(without, rank)
    which = next(i for i, x in enumerate(parts) if x is main)
    if (
        aligned is None
        or (order := isolated(replace(aligned[which], axes=_with(aligned[which], main, place)), [place])) is None
    ):
        default(state, node)
        return
    own = main.axes[place]
    values = []
    for x, part in zip(aligned, parts, strict=True):
        match = match_of(aligned[which], x)
        if any(f not in match for axis in order if axis != own for f in axis):
            default(state, node)
            return
        wanted = [part.axes[place] if axis == own else tuple(match[f] for f in axis) for axis in order]
        values.append(state.realized(x, wanted))
    where = order.index(own)
    value = state.emit([tuple(values)], {"axis": where})
    new = fresh(value.shape[where])
    axes = [new if i == place else a for i, a in enumerate(aligned[which].axes)]
    state.give(axes, [new if axis == own else axis for axis in order], value)


def _with(x: Laid, whole: Laid, place: int) -> tuple[Axis, ...]:
    return tuple(whole.axes[place] if i == place else axis for i, axis in enumerate(x.axes))


@rule("stack")
def _stack(state: LayoutState, node: Node) -> None:
    parts = [state.of(v) for v in node.operands[0]]  # type: ignore[union-attr, arg-type]
    aligned = in_common_factors(parts, len(parts[0].axes))
    main = None if aligned is None else aligned[0]
    if aligned is None or main is None or any(len(match_of(main, x)) != len(flat(main.axes)) for x in aligned):
        default(state, node)
        return
    place = int(node.attributes["axis"]) % (len(main.axes) + 1)
    following = main.axes[place] if place < len(main.axes) else ()
    where = next((i for i, axis in enumerate(main.order) if following and axis[:1] == following[:1]), len(main.order))
    values = tuple(_like(state, x, match_of(main, x), main.order) for x in aligned)
    value = state.emit([values], {"axis": where})
    new = fresh(len(parts))
    axes, order = list(main.axes), list(main.order)
    axes.insert(place, new)
    order.insert(where, new)
    state.give(axes, order, value)


# What the vocabulary does not have ------------------------------------------------------------------------------------
@rule("custom")
def _custom(state: LayoutState, node: Node) -> None:
    """Operands and outputs as in the source; an elementwise operator uses the layout of its first operand."""
    meaning, shapes = node.attributes.get("meaning"), node.attributes["shapes"]
    [operands] = node.operands
    arrays = [state.of(o) for o in operands if isinstance(o, Value)]  # type: ignore[union-attr]
    if meaning is not None and meaning.elementwise and arrays and all(x.shape in (shapes, ()) for x in arrays):
        main = next((x for x in arrays if x.shape == shapes), arrays[0])
        aligned = in_common_factors(arrays, len(main.axes))
        if aligned is not None:
            first = aligned[next(i for i, x in enumerate(arrays) if x is main)]
            values = iter([_like(state, x, match_of(first, x), first.order) for x in aligned])
            given = tuple(next(values) if isinstance(o, Value) else o for o in operands)  # type: ignore[union-attr]
            value = state.emit([given], {**node.attributes, "shapes": tuple(map(size, first.order))})
            state.give(first.axes, first.order, value)
            return
    results = state.emit(mapped(node, lambda v: state.source(state.of(v))), node.attributes)
    for place, value in enumerate(results if isinstance(results, tuple) else (results,)):
        found = natural(state.builder.retype(value, node.outputs[place].dtype))
        state.give(found.axes, found.order, found.value, place)


@rule("lstm", "gru", "rnn")
def _recurrent(state: LayoutState, node: Node) -> None:
    """Batch first where it is first in memory; states and weights keep the axes of the source."""
    x = state.of(node.operands[0])  # type: ignore[arg-type]
    time, batch, channels = x.axes
    if x.order != (batch, time, channels) or node.attributes.get("batch_first") or not batch or not time:
        default(state, node)
        return
    *others, mask = (*node.operands[1:], None)[: get(node.operator).operands.index("mask")]
    others = [map_source(state, operand) for operand in others]
    if isinstance(mask, Value):
        laid = state.of(mask)
        others.append(state.realized(laid, laid.axes[::-1]))
    outputs, *last = state.emit([x.value, *others], {**node.attributes, "batch_first": True})
    new = fresh(outputs.shape[-1])
    state.give((time, batch, new), (batch, time, new), outputs)
    for place, value in enumerate(last, 1):
        found = natural(value)
        state.give(found.axes, found.order, value, place)
