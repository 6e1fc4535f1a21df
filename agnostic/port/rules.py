"""How each operator of the vocabulary meets axes in another order. See :mod:`agnostic.port.layout`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from agnostic.port.laid import (
    Axis,
    Factor,
    Laid,
    common,
    flat,
    fresh,
    grouped,
    is_woven,
    natural,
    permuted,
    refactored,
    reshaped,
    size,
)
from agnostic.port.layout import IMAGES, LayoutState, mapped, whole
from agnostic.program.nodes import Node, Value
from agnostic.tables import filling

LayoutRule = Callable[[LayoutState, Node], None]
RULES: dict[str, LayoutRule] = {}
rule = filling(RULES)
"""Make a function the rule of operators."""


def default(state: LayoutState, node: Node) -> None:
    """Operands and outputs have the axes of the source."""
    results = state.emit(mapped(node, lambda v: state.source(state.of(v))), node.attributes)
    for place, value in enumerate(results if isinstance(results, tuple) else (results,)):
        found = natural(value)
        state.give(found.axes, found.order, value, place)


# Element by element ---------------------------------------------------------------------------------------------------
ELEMENTWISE = ("add", "subtract", "multiply", "divide", "power", "maximum", "minimum", "where", "clip", "binary")
UNARY = ("unary", "cast", "identity")


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
    aligned = _aligned(arrays, len(shape))
    if aligned is None:
        default(state, node)
        return
    main = aligned[next(i for i, x in enumerate(arrays) if x is main)]
    matches = [_match(main, x) for x in aligned]
    order = tuple(part for axis in main.order for part in _cut(axis, matches))
    values = iter([_like(state, x, match, order) for x, match in zip(aligned, matches, strict=True)])
    operands = [next(values) if isinstance(o, Value) else o for o in node.operands]
    state.give(main.axes, order, state.emit(operands, node.attributes))


def _cost(state: LayoutState, x: Laid) -> tuple[bool, bool, bool, int]:
    """How unsuitable a value's order is for what it is joined with: images with moved channels are best."""
    return state.is_leaf(x), whole(x) is None, x.is_natural, len(x.order)


def _aligned(arrays: Sequence[Laid], rank: int) -> list[Laid] | None:
    """The arrays with as many axes, and the factors of each axis of the same sizes where it is not of length 1."""
    found = [replace(x, axes=((),) * (rank - len(x.axes)) + x.axes) for x in arrays]
    for place in range(rank):
        owners = [i for i, x in enumerate(found) if x.axes[place]]
        if not owners:
            continue
        lengths: list[int] | None = [factor.size for factor in found[owners[0]].axes[place]]
        for i in owners[1:]:
            lengths = common(fresh_factors(lengths or []), found[i].axes[place])
            if lengths is None:
                return None
        for i in owners:
            found[i] = refined(found[i], place, lengths or [])
    return found


def fresh_factors(lengths: Sequence[int]) -> Axis:
    """New factors of these sizes."""
    return tuple(map(Factor, lengths))


def refined(x: Laid, place: int, lengths: Sequence[int]) -> Laid:
    """The value with an axis in factors of these sizes, which its own can be split into."""
    found = grouped(x.axes[place], lengths)
    assert found is not None, (x, place, lengths)
    return refactored(x, found[1])


def _match(main: Laid, other: Laid) -> dict[Factor, Factor]:
    """The other's factor for each of the first's that it has."""
    pairs: dict[Factor, Factor] = {}
    for mine, theirs in zip(main.axes, other.axes, strict=True):
        if theirs:
            pairs |= dict(zip(mine, theirs, strict=True))
    return pairs


def _cut(axis: Axis, matches: Sequence[dict[Factor, Factor]]) -> list[Axis]:
    """An axis in runs of factors that the same arrays have."""
    if not axis:
        return [axis]
    runs: list[list[Factor]] = []
    for factor in axis:
        has = [factor in match for match in matches]
        if runs and [runs[-1][-1] in match for match in matches] == has:
            runs[-1].append(factor)
        else:
            runs.append([factor])
    return [tuple(run) for run in runs]


def _like(state: LayoutState, x: Laid, match: dict[Factor, Factor], order: Sequence[Axis]) -> Value:
    """A value in another's order; missing axes have length 1, and are left out in front."""
    wanted = [tuple(match[f] for f in axis) if all(f in match for f in axis) else () for axis in order]
    if not all(f in match for axis in order for f in axis):
        while wanted and not wanted[0]:
            wanted.pop(0)
    return state.realized(x, wanted)


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
    """A mean over the whole image leaves no axes of length 1 behind, unless a convolution needs them."""
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
def _rest(x: Laid, gone: Axis) -> list[Axis]:
    """The axes beside those factors: as in the source where that moves nothing, or axes are woven into each other.

    The second are windows: what follows, until they are put together again, needs them as the source has them.
    """
    natural_ = [axis for axis in x.axes if axis and not set(axis) & set(gone)]
    if is_woven(x) or flat(natural_) == tuple(f for f in flat(x.order) if f not in gone):
        return natural_
    return [left for axis in x.order if (left := tuple(f for f in axis if f not in gone))]


@rule("linear")
def _linear(state: LayoutState, node: Node) -> None:
    operands = list(node.operands)
    x, weight = state.of(operands[0]), state.of(operands[1])  # type: ignore[arg-type]
    if len(weight.axes) != 2:
        default(state, node)
        return
    last = x.axes[-1]
    inside = tuple(f for f in flat(x.order) if f in last)
    rest = _rest(x, last)
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
    rest = _rest(x, over)
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
def isolated(x: Laid, places: Sequence[int]) -> list[Axis] | None:
    """An order in which each of these axes of the source is an axis by itself, all else as it lies.

    An axis whose factors lie apart is put together where the first of them is.

    Returns:
        None where an axis has length 1.
    """
    order = list(x.order)
    for place in places:
        axis = x.axes[place]
        if not axis:
            return None
        line = flat(order)
        start = line.index(axis[0])
        if line[start : start + len(axis)] != axis:
            order = _gathered(order, axis)
        else:
            order = _cut_out(order, axis)
    return order


def _gathered(order: Sequence[Axis], axis: Axis) -> list[Axis]:
    """The order with factors that lie apart put together in the place of the first of them."""
    found: list[Axis] = []
    for piece in order:
        run: list[Factor] = []
        for factor in piece:
            if factor not in axis:
                run.append(factor)
                continue
            found += [tuple(run)] if run else []
            found += [axis] if factor == axis[0] else []
            run = []
        found += [tuple(run)] if run or not piece else []
    return found


def _cut_out(order: Sequence[Axis], axis: Axis) -> list[Axis]:
    """The order with factors that lie side by side as an axis by themselves."""
    found: list[Axis] = []
    for piece in order:
        inside = [i for i, f in enumerate(piece) if f in axis]
        if not inside:
            found.append(piece)
            continue
        front, back = piece[: inside[0]], piece[inside[-1] + 1 :]
        found += [front] if front else []
        found += [axis] if axis not in found else []
        found += [back] if back else []
    return found


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
    order = [part for axis in x.order for part in _cut(axis, [dict.fromkeys(gone, next(iter(gone)))])]
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
        # Cut where no border is: each axis is put together where it begins, and cut anew.
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
    # Each part's own axis is one factor for the time of the comparison with the others.
    without = [replace(x, axes=tuple(() if i == place else a for i, a in enumerate(x.axes))) for x in parts]
    aligned = _aligned(without, rank)
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
        match = _match(aligned[which], x)
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
    aligned = _aligned(parts, len(parts[0].axes))
    main = None if aligned is None else aligned[0]
    if aligned is None or main is None or any(len(_match(main, x)) != len(flat(main.axes)) for x in aligned):
        default(state, node)
        return
    place = int(node.attributes["axis"]) % (len(main.axes) + 1)
    following = main.axes[place] if place < len(main.axes) else ()
    where = next((i for i, axis in enumerate(main.order) if following and axis[:1] == following[:1]), len(main.order))
    values = tuple(_like(state, x, _match(main, x), main.order) for x in aligned)
    value = state.emit([values], {"axis": where})
    new = fresh(len(parts))
    axes, order = list(main.axes), list(main.order)
    axes.insert(place, new)
    order.insert(where, new)
    state.give(axes, order, value)


# Products -------------------------------------------------------------------------------------------------------------
@rule("matmul")
def _matmul(state: LayoutState, node: Node) -> None:
    a, b = (state.of(v) for v in node.operands)  # type: ignore[arg-type]
    if len(a.axes) < 2 or len(b.axes) < 2:
        default(state, node)
        return
    if a.is_natural and b.is_natural and len(a.axes) == len(b.axes) == 2:
        default(state, node)
        return
    letters = "abcdefghijklmnopqrstuvwxyz"
    rank = max(len(a.axes), len(b.axes))
    batch = letters[: rank - 2]
    equation = f"{batch[rank - len(a.axes) :]}xy,{batch[rank - len(b.axes) :]}yz->{batch}xz"
    _einsum_of(state, node, [a, b], equation)


@rule("einsum")
def _einsum(state: LayoutState, node: Node) -> None:
    operands = [state.of(v) for v in node.operands[0]]  # type: ignore[union-attr, arg-type]
    equation = str(node.attributes["equation"])
    if any(len(set(term)) < len(term) for term in equation.partition("->")[0].split(",")):
        default(state, node)
        return
    _einsum_of(state, node, operands, equation)


def _einsum_of(state: LayoutState, node: Node, operands: Sequence[Laid], equation: str) -> None:
    """A sum of products over axes that lie in any order: each factor gets a letter of its own."""
    left, _, right = equation.partition("->")
    terms = left.split(",")
    found = _lettered(operands, terms)
    if found is None:
        default(state, node)
        return
    xs, axes_of = found
    names = _letters(
        [[f for axis in x.order for f in _ids(axis, x, term, axes_of)] for x, term in zip(xs, terms, strict=True)]
    )
    values, spelled = [], []
    for x, term in zip(xs, terms, strict=True):
        runs = _runs(flat(x.order), _ids(flat(x.order), x, term, axes_of), names)
        order, word = [axis for axis, _ in runs], "".join(letter for _, letter in runs)
        values.append(state.realized(x, order))
        spelled.append(word)
    result = _result_order(state, node, right, axes_of, names)
    value = state.emit([tuple(values)], {"equation": f"{','.join(spelled)}->{result}"}, "einsum")
    factors = {name: Factor(size) for name, size in ((n, n[2]) for letter in right for n in axes_of[letter])}
    axes = [tuple(factors[name] for name in axes_of[letter]) for letter in right]
    order = [tuple(factors[name] for name in names if names[name] == letter) for letter in result]
    state.give(axes, order, value)


def _result_order(
    state: LayoutState, node: Node, right: str, axes_of: dict[str, list[Any]], names: dict[Any, str]
) -> str:
    """The source's order, or the one that a permutation will ask for."""
    users = state.consumers.get(node.outputs[0], ())
    if len(users) == 1 and users[0].operator == "permute":
        right = "".join(right[axis] for axis in users[0].attributes["axes"])
    return "".join(dict.fromkeys(names[name] for letter in right for name in axes_of[letter]))


def _lettered(operands: Sequence[Laid], terms: Sequence[str]) -> tuple[list[Laid], dict[str, list[Any]]] | None:
    """Operands whose axes of one letter have factors of the same sizes; and (letter, place, size) for each factor."""
    xs = list(operands)
    axes_of: dict[str, list[Any]] = {}
    for letter in dict.fromkeys("".join(terms)):
        owners = [(i, term.index(letter)) for i, term in enumerate(terms) if letter in term]
        lengths: list[int] | None = []
        for i, place in owners:
            if xs[i].axes[place]:
                lengths = (
                    common(fresh_factors(lengths), xs[i].axes[place])
                    if lengths
                    else [f.size for f in xs[i].axes[place]]
                )
                if lengths is None:
                    return None
        for i, place in owners:
            if xs[i].axes[place]:
                xs[i] = refined(xs[i], place, lengths or [])
        axes_of[letter] = [(letter, n, size) for n, size in enumerate(lengths or [])]
    return xs, axes_of


def _ids(axis: Axis, x: Laid, term: str, axes_of: dict[str, list[Any]]) -> list[Any]:
    """The name of each factor of an axis that lies in memory."""
    known = {
        f: name for letter, a in zip(term, x.axes, strict=True) if a for f, name in zip(a, axes_of[letter], strict=True)
    }
    return [known[f] for f in axis]


def _letters(orders: Sequence[Sequence[Any]]) -> dict[Any, str]:
    """A letter for each factor; one for several that follow each other wherever they are."""
    following: dict[Any, set[Any]] = {}
    for order in orders:
        for name, after in zip(order, [*order[1:], None], strict=True):
            following.setdefault(name, set()).add(after)
    before: dict[Any, set[Any]] = {}
    for order in orders:
        for name, previous in zip(order, [None, *order[:-1]], strict=True):
            before.setdefault(name, set()).add(previous)
    free = iter("bqhdkcefgijlmnopqrstuvwxyzabcdefg")
    used: set[str] = set()
    names: dict[Any, str] = {}
    for order in orders:
        for name in order:
            if name in names:
                continue
            previous = next(iter(before[name])) if len(before[name]) == 1 else None
            joined = (
                previous is not None
                and following[previous] == {name}
                and previous[0] == name[0]
                and previous[1] == name[1] - 1
                and previous in names
            )
            if joined:
                names[name] = names[previous]
            else:
                letter = next(x for x in free if x not in used)
                used.add(letter)
                names[name] = letter
    return names


def _runs(axis: Axis, ids: Sequence[Any], names: dict[Any, str]) -> list[tuple[Axis, str]]:
    runs: list[tuple[Axis, str]] = []
    for factor, name in zip(axis, ids, strict=True):
        letter = names[name]
        if runs and runs[-1][1] == letter:
            runs[-1] = ((*runs[-1][0], factor), letter)
        else:
            runs.append(((factor,), letter))
    return runs


@rule("attention")
def _attention(state: LayoutState, node: Node) -> None:
    query, key, value, *mask = node.operands
    parts = [state.of(v) for v in (query, key, value)]  # type: ignore[arg-type]
    if any(len(x.axes) != 4 for x in parts) or node.attributes.get("place_axis", -2) != -2:
        default(state, node)
        return
    # Heads lie behind the places, since they come from one product whose channels are split.
    values = [state.realized(x, [x.axes[place] for place in (0, 2, 1, 3)]) for x in parts]
    rest = [map_source(state, operand) for operand in mask]
    found = state.emit([*values, *rest], {**node.attributes, "place_axis": -3})
    axes = [*parts[0].axes[:3], fresh(found.shape[-1])]
    state.give(axes, [axes[place] for place in (0, 2, 1, 3)], found)


# What the vocabulary does not have ------------------------------------------------------------------------------------
@rule("custom")
def _custom(state: LayoutState, node: Node) -> None:
    """Operands and outputs as in the source; those of one that works place by place as the first of them lies."""
    meaning, shapes = node.attributes.get("meaning"), node.attributes["shapes"]
    [operands] = node.operands
    arrays = [state.of(o) for o in operands if isinstance(o, Value)]  # type: ignore[union-attr]
    if meaning is not None and meaning.elementwise and arrays and all(x.shape in (shapes, ()) for x in arrays):
        main = next((x for x in arrays if x.shape == shapes), arrays[0])
        aligned = _aligned(arrays, len(main.axes))
        if aligned is not None:
            first = aligned[next(i for i, x in enumerate(arrays) if x is main)]
            values = iter([_like(state, x, _match(first, x), first.order) for x in aligned])
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
    """The batch comes first where it lies first; states and weights have the axes of the source."""
    x = state.of(node.operands[0])  # type: ignore[arg-type]
    time, batch, channels = x.axes
    if x.order != (batch, time, channels) or node.attributes.get("batch_first") or not batch or not time:
        default(state, node)
        return
    others = [map_source(state, operand) for operand in node.operands[1:]]
    outputs, *last = state.emit([x.value, *others], {**node.attributes, "batch_first": True})
    new = fresh(outputs.shape[-1])
    state.give((time, batch, new), (batch, time, new), outputs)
    for place, value in enumerate(last, 1):
        found = natural(value)
        state.give(found.axes, found.order, value, place)
