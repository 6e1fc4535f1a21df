"""Recorded runs in one form, so that what two frameworks write in two ways is one operator here.

Padding of a window is an operator before it; attention, products by letters and pools over whole images are the
operators that they are made of; what gives its operand as it is, is left out. No value that is left changes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from agnostic.compare.lowering import is_hiding
from agnostic.compare.orders import without_orders
from agnostic.compare.packed import with_parts
from agnostic.program.builder import Builder, NodeOrigin
from agnostic.program.nodes import Node, Program, Value, givers_of, read_counts, substituted
from agnostic.program.passes import biases_absorbed, is_identity, used
from agnostic.program.runs import Run
from agnostic.program.vocabulary import operand_named
from agnostic.tables import filling

Form = Callable[[Node, Builder], bool]
FORMS: dict[str, Form] = {}
forms = filling(FORMS)
"""Of the operators that are written otherwise: writes nodes, whose last gives the node's values, or all that does not
already have them; whether it did."""


def canonical(run: Run) -> Run:
    """The run in that form."""
    program = run.program
    builder = Builder.of(program)
    instead: dict[Value, Value] = {}
    for node in program.nodes:
        node = substituted(node, instead)
        if is_identity(node, inference=True):
            [instead[node.outputs[0]]] = node.operands  # type: ignore[assignment]
            continue
        builder.origin = NodeOrigin.of(node)
        start, form = len(builder.nodes), FORMS.get(node.operator)
        if form is None or any(v in run.drawn for v in node.outputs) or not form(node, builder):
            del builder.nodes[start:]
            builder.nodes.append(node)
        elif builder.nodes[-1].operator == "identity":
            [instead[node.outputs[0]]] = builder.nodes.pop().operands  # type: ignore[assignment]
        elif len(builder.nodes[-1].outputs) == len(node.outputs):
            builder.nodes[-1] = replace(builder.nodes[-1], outputs=node.outputs)
    outputs = tuple((path, instead.get(value, value)) for path, value in program.outputs)
    program = replace(program, leaves=tuple(builder.leaves), nodes=tuple(builder.nodes), outputs=outputs)
    program = _with_biases(biases_absorbed(program))
    kept = {leaf.value for leaf in program.leaves} | run.drawn
    calls = tuple(
        replace(call, inputs=tuple(instead.get(v, v) for v in call.inputs),
                outputs=tuple(instead.get(v, v) for v in call.outputs)) for call in run.calls
    )  # fmt: skip
    arrays = {v: x for v, x in run.arrays.items() if v in kept}
    return needed(without_orders(with_parts(replace(run, program=program, arrays=arrays, calls=calls))))


def needed(run: Run) -> Run:
    """The run without operators that neither an output nor a layer's table needs."""
    wanted = {value for call in run.calls for value in (*call.inputs, *call.outputs)} | run.drawn
    return replace(run, program=used(run.program, wanted))


# Windows -------------------------------------------------------------------------------------------------------------
def _padded(node: Node, builder: Builder, value: float) -> Any:
    """A window's first operand with its padding, and the window's attributes without."""
    x, pairs = node.operands[0], tuple(node.attributes["padding"])
    assert isinstance(x, Value)
    axis = node.attributes.get("channel_axis", 1) % len(x.shape)
    widths: list[tuple[int, int]] = [(int(low), int(high)) for low, high in pairs]
    widths.insert(axis - 1, (0, 0))
    if any(map(any, widths)):
        x = builder.emit("pad", x, widths=((0, 0), *widths), mode="constant", value=value)
    attributes = {k: v for k, v in node.attributes.items() if k != "same"}
    return x, {**attributes, "padding": ((0, 0),) * len(pairs)}


@forms("convolution")
def _convolution(node: Node, builder: Builder) -> bool:
    x, attributes = _padded(node, builder, 0.0)
    builder.emit("convolution", x, *node.operands[1:], **attributes)
    return True


def _thinned(node: Node, builder: Builder) -> bool:
    """A pool over images of one row, as some frameworks compute one over a sequence: a pool over the sequence."""
    x, names = node.operands[0], ("kernel", "stride", "dilation", "padding")
    if not isinstance(x, Value) or len(x.shape) < 4 or node.attributes.get("channel_axis", 1) != 1:
        return False
    count = len(x.shape) - 2
    given = {name: tuple(node.attributes[name]) for name in names if node.attributes.get(name) is not None}
    rows = [
        k for k in range(count) if x.shape[k + 2] == 1 and given["kernel"][k] == 1 and given["padding"][k] == (0, 0)
    ]
    if not rows or len(rows) == count:
        return False
    kept = [k for k in range(count) if k not in rows]
    line = builder.emit("reshape", x, shape=(*x.shape[:2], *(x.shape[k + 2] for k in kept)))
    fewer = {name: tuple(values[k] for k in kept) for name, values in given.items()}
    pooled = builder.emit(node.operator, line, **{**node.attributes, **fewer})
    builder.emit("reshape", pooled, shape=node.outputs[0].shape)
    return True


@forms("max_pool")
def _max_pool(node: Node, builder: Builder) -> bool:
    if _thinned(node, builder):
        return True
    if node.attributes.get("ceil_mode") and any(map(any, node.attributes["padding"])):
        return False  # how many windows there are depends on what is padding
    x, attributes = _padded(node, builder, -math.inf)
    builder.emit("max_pool", x, **attributes)
    return True


@forms("average_pool")
def _average_pool(node: Node, builder: Builder) -> bool:
    if _thinned(node, builder):
        return True
    if not any(map(any, node.attributes["padding"])) and not node.attributes.get("ceil_mode"):
        x, attributes = _padded(node, builder, 0.0)
        builder.emit("average_pool", x, **{**attributes, "count_padding": True})
        return True
    if node.attributes.get("ceil_mode") or not node.attributes.get("count_padding", True):
        return False
    x, attributes = _padded(node, builder, 0.0)
    builder.emit("average_pool", x, **attributes)
    return True


@forms("adaptive_average_pool", "adaptive_max_pool")
def _adaptive(node: Node, builder: Builder) -> bool:
    x = node.operands[0]
    if any(n != 1 for n in node.attributes["sizes"]) or not isinstance(x, Value):
        return False
    channels = node.attributes.get("channel_axis", 1) % len(x.shape)
    axes = tuple(axis for axis in range(1, len(x.shape)) if axis != channels)
    function = "mean" if node.operator == "adaptive_average_pool" else "max"
    whole = builder.emit("reduce", x, function=function, axes=axes)
    builder.emit("reshape", whole, shape=node.outputs[0].shape)
    return True


@forms("reduce")
def _reduced(node: Node, builder: Builder) -> bool:
    """The axes in order, and gone; those of length 1 in their place are a shape."""
    x, axes = node.operands[0], node.attributes.get("axes")
    if not isinstance(x, Value) or axes is None:
        return False
    axes = tuple(sorted(axis % len(x.shape) for axis in axes))
    whole = builder.emit("reduce", x, **{**node.attributes, "axes": axes, "keep": False})
    builder.nodes[-1] = replace(builder.nodes[-1], outputs=(builder.retype(whole, node.outputs[0].dtype),))
    if node.attributes.get("keep"):
        builder.emit("reshape", builder.nodes[-1].outputs[0], shape=node.outputs[0].shape)
    return True


@forms("batch_norm")
def _batch_norm(node: Node, builder: Builder) -> bool:
    """By the batch's own mean and variance, if those are its statistics."""
    x, mean, variance, *rest = node.operands
    givers = [builder.giver(v) if isinstance(v, Value) else None for v in (mean, variance)]
    if not isinstance(x, Value) or any(giver is None for giver in givers):
        return False
    while (giver := givers[0]) is not None and giver.operator in ("reshape", "cast") and giver.operands[0] != x:
        givers[0] = builder.giver(giver.operands[0])  # type: ignore[arg-type]
    while (giver := givers[1]) is not None and giver.operator in ("reshape", "cast") and giver.operands[0] != x:
        givers[1] = builder.giver(giver.operands[0])  # type: ignore[arg-type]
    first, second = givers
    if first is None or second is None or first.operator != "reduce" or first.attributes["function"] != "mean":
        return False
    if second.operator != "variance" or first.operands[0] != x or second.operands[0] != x:
        return False
    builder.emit(
        "batch_norm_training", x, *rest, epsilon=node.attributes["epsilon"],
        channel_axis=node.attributes.get("channel_axis", 1),
    )  # fmt: skip
    return True


@forms("batch_norm_training")
def _instance_norm(node: Node, builder: Builder) -> bool:
    """Samples that were put among the channels: each channel of each sample is a group of its own."""
    x, *rest = node.operands
    giver = builder.giver(x) if isinstance(x, Value) else None
    if giver is None or giver.operator != "reshape" or x.shape[0] != 1:  # type: ignore[union-attr]
        return False
    [images] = giver.operands
    assert isinstance(images, Value)
    if images.shape[0] * images.shape[1] != x.shape[1] or images.shape[2:] != x.shape[2:]:  # type: ignore[union-attr]
        return False
    weights = [_repeated(builder, w, images.shape[1]) if isinstance(w, Value) else w for w in rest]
    if any(x is not None and y is None for x, y in zip(rest, weights, strict=True)):
        return False
    groups, epsilon = images.shape[1], node.attributes["epsilon"]
    y = builder.emit("group_norm", images, *weights, groups=groups, epsilon=epsilon)
    builder.emit("reshape", y, shape=node.outputs[0].shape)
    return True


def _repeated(builder: Builder, value: Value, count: int) -> Value | None:
    """The numbers that an array repeats, so many of them; None where it does something else."""
    while value.shape != (count,):
        giver = builder.giver(value)
        if giver is None or giver.operator not in ("tile", "repeat", "expand", "reshape"):
            return None
        [value] = giver.operands  # type: ignore[assignment]
    return value


@forms("activation")
def _glu(node: Node, builder: Builder) -> bool:
    """The one half times the sigmoid of the other."""
    x = node.operands[0]
    if node.attributes["function"] != "glu" or not isinstance(x, Value):
        return False
    axis = node.attributes.get("axis", -1) % len(x.shape)
    half = x.shape[axis] // 2
    one = builder.emit("slice", x, axis=axis, start=0, stop=half)
    two = builder.emit("slice", x, axis=axis, start=half, stop=2 * half)
    builder.emit("multiply", one, builder.emit("activation", two, function="sigmoid"), dtype=node.outputs[0].dtype)
    return True


# Products ------------------------------------------------------------------------------------------------------------
@forms("attention")
def _attention(node: Node, builder: Builder) -> bool:
    query, key, value, mask = (*node.operands, None)[:4]
    if not all(isinstance(x, Value) for x in (query, key, value)) or node.attributes.get("shared_heads"):
        return False
    if isinstance(mask, Value) and mask.dtype == "bool":
        return False  # a place that sees nothing gives zeros, which its parts do not
    rank, places = len(query.shape), node.attributes.get("place_axis", -2)  # type: ignore[union-attr]
    turned = (*range(rank - 3), rank - 2, rank - 3, rank - 1)
    if places == -3:
        query, key, value = (builder.emit("permute", x, axes=turned) for x in (query, key, value))
    scale = node.attributes.get("scale")
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale  # type: ignore[union-attr]
    query = builder.emit("multiply", query, float(scale)) if scale != 1 else query
    key = builder.emit("permute", key, axes=(*range(rank - 2), rank - 1, rank - 2))
    scores = builder.emit("matmul", query, key)
    if node.attributes.get("causal"):
        ones = builder.emit("full", 1, shape=scores.shape[-2:], dtype="bool")
        seen = builder.emit("triangle", ones, diagonal=0, upper=False)
        scores = builder.emit("where", seen, scores, -math.inf, dtype=scores.dtype)
    if isinstance(mask, Value):
        scores = builder.emit("add", scores, mask)
    weights = builder.emit("softmax", scores, axis=rank - 1)
    result = builder.emit("matmul", weights, value)
    if places == -3:
        builder.emit("permute", result, axes=turned)
    return True


@forms("einsum")
def _einsum(node: Node, builder: Builder) -> bool:
    """Two operands: turned and reshaped, a matrix product, and back; of a weight, a linear layer."""
    [operands] = node.operands
    left, _, right = node.attributes["equation"].partition("->")
    terms = left.split(",")
    if not isinstance(operands, tuple) or len(terms) != 2 or any(len(set(t)) != len(t) for t in terms):
        return False
    one, two = terms
    if not all(x in right or x in (two if x in one else one) for x in one + two):
        return False
    a, b = operands
    if not isinstance(a, Value) or not isinstance(b, Value):
        return False
    if _is_weight(builder, a) and not _is_weight(builder, b):
        (a, b), (one, two) = (b, a), (two, one)
    sizes = dict(zip(one, a.shape, strict=True)) | dict(zip(two, b.shape, strict=True))
    batch = [x for x in one if x in two and x in right]
    summed = [x for x in one if x in two and x not in right]
    rows, columns = ([x for x in term if x in right and x not in batch] for term in (one, two))
    if batch or not _is_weight(builder, b):
        first = _arranged(builder, a, one, [batch, rows, summed], sizes, len(batch))
        second = _arranged(builder, b, two, [batch, summed, columns], sizes, len(batch))
        product = builder.emit("matmul", first, second)
    else:
        first = _arranged(builder, a, one, [rows, summed], sizes, len(rows))
        second = _arranged(builder, b, two, [columns, summed], sizes, 0)
        product = builder.emit("linear", first, second)
    found = [*batch, *rows, *columns]
    shape = tuple(sizes[x] for x in found)
    if product.shape != shape:
        product = builder.emit("reshape", product, shape=shape)
    axes = tuple(found.index(x) for x in right)
    if axes != tuple(range(len(axes))):
        builder.emit("permute", product, axes=axes)
    return True


@forms("matmul")
def _matmul(node: Node, builder: Builder) -> bool:
    """With a weight a linear layer; else what its operands are multiplied by multiplies the product."""
    x, y = node.operands
    if not isinstance(x, Value) or not isinstance(y, Value):
        return False
    if len(y.shape) == 2 and len(x.shape) > 1 and _is_weight(builder, y):
        builder.emit("linear", x, builder.emit("permute", y, axes=(1, 0)))
        return True
    (one, a), (two, b) = _unscaled(builder, x), _unscaled(builder, y)
    if a * b == 1:
        return False
    builder.emit("multiply", builder.emit("matmul", one, two), a * b)
    return True


def _unscaled(builder: Builder, value: Value) -> tuple[Value, float]:
    """A value without the number that it was multiplied by, before it was only moved; and the number."""
    moves: list[Node] = []
    giver = builder.giver(value)
    while giver is not None and giver.operator in ("permute", "reshape") and isinstance(giver.operands[0], Value):
        moves.append(giver)
        giver = builder.giver(giver.operands[0])
    if giver is None or giver.operator != "multiply":
        return value, 1.0
    source, number = giver.operands
    if not isinstance(source, Value) or isinstance(number, Value | tuple) or source.shape != giver.outputs[0].shape:
        return value, 1.0
    for move in reversed(moves):
        source = builder.emit(move.operator, source, **move.attributes)
    assert isinstance(source, Value)
    return source, float(number)  # type: ignore[arg-type]


@forms("divide")
def _divide(node: Node, builder: Builder) -> bool:
    x, number = node.operands
    if not isinstance(x, Value) or isinstance(number, Value | bool) or not number or not _is_floating(node):
        return False
    builder.emit("multiply", x, 1 / number, dtype=node.outputs[0].dtype)  # type: ignore[operator]
    return True


@forms("subtract")
def _subtract(node: Node, builder: Builder) -> bool:
    x, number = node.operands
    if not isinstance(x, Value) or isinstance(number, Value | bool) or not _is_floating(node):
        return False
    builder.emit("add", x, -number, dtype=node.outputs[0].dtype)  # type: ignore[operator]
    return True


@forms("add")
def _masked(node: Node, builder: Builder) -> bool:
    """Scores plus an array that is 0 where a mask says so, and lower than all scores elsewhere: scores by that mask."""
    for scores, added in (node.operands, node.operands[::-1]):
        giver = builder.giver(added) if isinstance(added, Value) else None
        if giver is None or giver.operator != "where" or not isinstance(scores, Value):
            continue
        mask, *numbers = giver.operands
        values = [_number_of(builder, x) for x in numbers]
        if (
            scores.shape == node.outputs[0].shape
            and 0 in values
            and any(x is not None and is_hiding(x) for x in values)
        ):
            parts = (scores if x == 0 else x for x in values)
            builder.emit("where", mask, *parts, dtype=node.outputs[0].dtype)
            return True
    return False


@forms("where")
def _where(node: Node, builder: Builder) -> bool:
    """By a mask that is not the opposite of another one."""
    mask, one, two = node.operands
    giver = builder.giver(mask) if isinstance(mask, Value) else None
    if giver is None or giver.attributes.get("function") != "not":
        return False
    builder.emit("where", giver.operands[0], two, one, dtype=node.outputs[0].dtype)
    return True


def _number_of(builder: Builder, x: Any) -> float | None:
    """An operand that is one number, perhaps as an array."""
    giver = builder.giver(x) if isinstance(x, Value) else None
    if giver is not None and giver.operator == "full":
        x = giver.operands[0]
    return float(x) if isinstance(x, int | float) else None


@forms("multiply")
def _mish(node: Node, builder: Builder) -> bool:
    """The activation that some write as its formula."""
    for x, y in (node.operands, node.operands[::-1]):
        outer = builder.giver(y) if isinstance(y, Value) else None
        if outer is None or outer.attributes.get("function") != "tanh" or not isinstance(outer.operands[0], Value):
            continue
        inner = builder.giver(outer.operands[0])
        if inner is not None and inner.attributes.get("function") == "softplus" and inner.operands[0] == x:
            builder.emit("activation", x, function="mish")
            return True
    return False


def _is_floating(node: Node) -> bool:
    return node.outputs[0].dtype.startswith(("float", "bfloat"))


def _is_weight(builder: Builder, value: Value) -> bool:
    """Whether a value is a parameter, or was only moved since."""
    giver = builder.giver(value)
    while giver is not None and giver.operator in _MOVES and isinstance(giver.operands[0], Value):
        value = giver.operands[0]
        giver = builder.giver(value)
    return giver is None and builder.is_weight(value)


_MOVES = ("permute", "reshape", "slice", "select")


def _arranged(builder: Builder, x: Value, term: str, groups: list[list[str]], sizes: dict[str, int], apart: int) -> Any:
    """The axes of a term in the order of the groups, each group one axis behind the first ``apart`` axes."""
    order = [letter for group in groups for letter in group]
    axes = tuple(term.index(letter) for letter in order)
    value = x if axes == tuple(range(len(axes))) else builder.emit("permute", x, axes=axes)
    shape = [sizes[letter] for letter in order[:apart]]
    rest = order[apart:]
    for group in groups:
        inside = [letter for letter in group if letter in rest]
        if inside or not group:
            shape.append(math.prod(sizes[letter] for letter in inside))
    return value if tuple(shape) == value.shape else builder.emit("reshape", value, shape=tuple(shape))


def _with_biases(program: Program) -> Program:
    """Make an addition of a weight, behind a linear layer whose outputs were put into several axes, its bias."""
    builder = Builder.of(program)
    builder.nodes = list(program.nodes)
    givers, uses = givers_of(program.nodes), read_counts(program)
    instead: dict[Value, list[Node]] = {}
    for node in program.nodes:
        if node.operator != "add":
            continue
        for shaped, bias in (node.operands, node.operands[::-1]):
            split = givers.get(shaped) if isinstance(shaped, Value) and uses[shaped] == 1 else None
            if split is None or split.operator != "reshape" or not isinstance(bias, Value):
                continue
            assert isinstance(shaped, Value)
            linear = givers.get(split.operands[0])  # type: ignore[arg-type]
            if linear is None or linear.operator != "linear" or uses[linear.outputs[0]] != 1:
                continue
            if len(linear.operands) > 2 and linear.operands[2] is not None:
                continue
            if _fills(bias.shape, split.outputs[0].shape, linear.outputs[0].shape) and _is_weight(builder, bias):
                builder.nodes = list(program.nodes)
                builder.origin = NodeOrigin.of(linear)
                flat = builder.emit("reshape", bias, shape=linear.outputs[0].shape[-1:])
                whole = replace(linear, operands=(*linear.operands[:2], flat))
                last = replace(split, outputs=node.outputs)
                instead |= {linear.outputs[0]: [], shaped: [], node.outputs[0]: [builder.nodes[-1], whole, last]}
                break
    nodes = [x for node in program.nodes for x in instead.get(node.outputs[0], [node])]
    return replace(program, nodes=tuple(nodes))


def _fills(bias: tuple[int, ...], shape: tuple[int, ...], flat: tuple[int, ...]) -> bool:
    """Whether a bias has a number for each output of a linear layer, in the axes that these were put into."""
    while bias and bias[0] == 1:
        bias = bias[1:]
    return bias == shape[len(shape) - len(bias) :] and math.prod(bias) == flat[-1]


# Recurrent layers ----------------------------------------------------------------------------------------------------
@forms("lstm", "gru", "rnn")
def _recurrent(node: Node, builder: Builder) -> bool:
    """The time first, nothing for states of zeros, one bias where there are two that are only added.

    The last state is the last step, so that another step is told from it.
    """
    count = 2 if node.operator == "lstm" else 1
    first = 3 + count
    operands = [*node.operands, *[None] * 8][: max(len(node.operands), first + 2)]
    for k in range(1, 1 + count):
        operands[k] = None if _is_zero(operands[k], builder) else operands[k]
    pair = operands[first : first + 2]
    if node.operator != "gru" and all(isinstance(x, Value) for x in pair):
        operands[first], operands[first + 1] = builder.emit("add", *pair), None
    turned = bool(node.attributes.get("batch_first"))
    if turned:
        operands[0] = builder.emit("permute", operands[0], axes=(1, 0, 2))
    run, state, *_ = builder.emit(node.operator, *operands, **{**node.attributes, "batch_first": False})
    masked = isinstance(operand_named(node, "mask"), Value) or state.shape != run.shape[1:]
    state = node.outputs[1] if masked else state
    builder.nodes[-1] = replace(
        builder.nodes[-1], outputs=(run if turned else node.outputs[0], state, *node.outputs[2:])
    )
    if turned:
        builder.emit("permute", run, axes=(1, 0, 2))
        builder.nodes[-1] = replace(builder.nodes[-1], outputs=node.outputs[:1])
    if not masked:
        last = 0 if node.attributes.get("reverse") else run.shape[0] - 1
        builder.emit("select", run if turned else node.outputs[0], axis=0, index=last)
        builder.nodes[-1] = replace(builder.nodes[-1], outputs=node.outputs[1:2])
    return True


def _is_zero(value: Any, builder: Builder) -> bool:
    """Whether an operand is an array of zeros that was made for it."""
    while isinstance(value, Value) and (giver := builder.giver(value)) is not None:
        if giver.operator == "full":
            return not isinstance(giver.operands[0], Value) and giver.operands[0] == 0
        if giver.operator not in (*_MOVES, "expand", "cast"):
            return False
        value = giver.operands[0]
    leaf = builder.leaf_of(value)
    return leaf is not None and leaf.role == "constant" and leaf.array is not None and not leaf.array.any()
