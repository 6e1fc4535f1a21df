"""Programs in the form in which their weights are read: one operator of one model is several of another's.

What is learned and put into a layer, such as the queries of a decoder, flows like an input. Parts of a row that come
out of it again are those parts. A convolution in groups is one for each group, where the other model has these.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from agnostic.compare.canonical import FORMS, Form
from agnostic.program.builder import Builder, NodeOrigin
from agnostic.program.nodes import Node, Program, Value, givers_of, substituted, values_in
from agnostic.program.passes import used

LEARNED = "learned"
"""The attribute of an operator that hands on what is computed from weights, as if it were an input."""

_APPLIED = frozenset({"linear", "convolution", "transposed_convolution", "lstm", "gru", "rnn"})
_SCALED = frozenset({"layer_norm", "rms_norm"})


def with_parts(program: Program) -> Program:
    """The program with gates as the halves that they multiply, and with parts of a row as what they were before."""
    return used(_rewritten(program, {"activation": FORMS["activation"], "select": _part, "slice": _part}))


def _rewritten(program: Program, written: Mapping[str, Form]) -> Program:
    """The program with what forms write for operators; see :data:`agnostic.compare.canonical.FORMS`."""
    builder = Builder.of(program)
    instead: dict[Value, Value] = {}
    for node in program.nodes:
        node = substituted(node, instead)
        builder.origin = NodeOrigin.of(node)
        form = written.get(node.operator)
        if form is None or not form(node, builder):
            builder.nodes.append(node)
        elif builder.nodes[-1].operator == "identity":
            [instead[node.outputs[0]]] = builder.nodes.pop().operands  # type: ignore[assignment]
        else:
            builder.nodes[-1] = replace(builder.nodes[-1], outputs=node.outputs)
    outputs = tuple((path, instead.get(value, value)) for path, value in program.outputs)
    return replace(program, leaves=tuple(builder.leaves), nodes=tuple(builder.nodes), outputs=outputs)


def _part(node: Node, builder: Builder) -> bool:
    """One of several that were stacked, or that were concatenated, whatever order of axes they have since."""
    x = node.operands[0]
    assert isinstance(x, Value)
    giver = builder.giver(x)
    rank, wanted = len(x.shape), node.attributes["axis"] % len(x.shape)
    turn = None
    if giver is not None and giver.operator == "permute" and node.operator == "slice":
        turn = tuple(axis % rank for axis in giver.attributes["axes"])
        wanted = turn[wanted]
        giver = builder.giver(giver.operands[0])  # type: ignore[arg-type]
    if giver is None or giver.operator not in ("stack", "concatenate") or not isinstance(giver.operands[0], tuple):
        return False
    axis = giver.attributes.get("axis", 0)
    if axis % rank != wanted:
        return False
    parts = giver.operands[0]
    if node.operator == "select" and giver.operator == "stack":
        builder.emit("identity", parts[node.attributes["index"]])
        return True
    start = 0
    for part in parts if node.operator == "slice" and giver.operator == "concatenate" else ():
        if not isinstance(part, Value):
            return False
        if start == node.attributes["start"] and start + part.shape[axis] == node.attributes["stop"]:
            if turn is None:
                builder.emit("identity", part)
            else:
                builder.emit("permute", part, axes=turn)
            return True
        start += part.shape[axis]
    return False


def with_groups_apart(program: Program, kernels: Collection[tuple[int, ...]]) -> Program:
    """The program with one convolution for each group.

    Args:
        kernels: the shapes of a group's kernel for which this is done.
    """

    def form(node: Node, builder: Builder) -> bool:
        groups = node.attributes.get("groups", 1)
        if groups == 1 or group_kernel(node) not in kernels:
            return False
        x, kernel, bias = (*node.operands, None)[:3]
        assert isinstance(x, Value)
        assert isinstance(kernel, Value)
        axis = node.attributes.get("channel_axis", 1) % len(x.shape)

        def part(value: Value, axis: int, k: int) -> Value:
            size = value.shape[axis] // groups
            found: Value = builder.emit("slice", value, axis=axis, start=k * size, stop=(k + 1) * size)
            return found

        attributes = {key: value for key, value in node.attributes.items() if key != "groups"}
        parts = tuple(
            builder.emit("convolution", part(x, axis, k), part(kernel, 0, k),
                         part(bias, 0, k) if isinstance(bias, Value) else None, **attributes)
            for k in range(groups)
        )  # fmt: skip
        builder.emit("concatenate", parts, axis=axis)
        return True

    return _rewritten(program, {"convolution": form})


def group_kernel(node: Node) -> tuple[int, ...]:
    """The shape of the kernel of one group of a convolution."""
    kernel = node.operands[1]
    assert isinstance(kernel, Value)
    return (kernel.shape[0] // node.attributes.get("groups", 1), *kernel.shape[1:])


def with_learned(program: Program) -> Program:
    """The program with an operator before each layer that is applied to weights, which hands these on."""
    fixed = {leaf.value for leaf in program.leaves if leaf.role != "input"}
    givers = givers_of(program.nodes)
    builder = Builder.of(program)
    kernels = _computed_kernels(program)
    given: dict[Value, Value] = {}
    for node in program.nodes:
        x = node.operands[0] if node.operands else None
        scaled = node.operator in _SCALED and any(isinstance(v, Value) for v in node.operands[1:])
        is_layer = (node.operator in _APPLIED or scaled) and node.outputs[0] not in kernels
        if isinstance(x, Value) and x in fixed and is_layer:
            if x not in given:
                given[x] = builder.value(x.shape, x.dtype)
                builder.nodes.append(replace(
                    node, operator="identity", operands=(_before_moves(x, givers),), attributes={LEARNED: True},
                    outputs=(given[x],),
                ))  # fmt: skip
            node = replace(node, operands=(given[x], *node.operands[1:]))
        elif node.reads and all(v in fixed for v in node.reads):
            fixed.update(node.outputs)
        builder.nodes.append(node)
    return replace(program, nodes=tuple(builder.nodes))


def _computed_kernels(program: Program) -> set[Value]:
    """What goes into the weights of layers, as the product of two low-rank kernels does."""
    found: set[Value] = set()
    for node in reversed(program.nodes):
        if found.intersection(node.outputs):
            found.update(node.reads)
        elif node.operator in _APPLIED or node.operator == "matmul":
            found.update(v for operand in node.operands[1:] for v in values_in(operand))
    return found


def _before_moves(value: Value, givers: dict[Value, Node]) -> Value:
    """The weights of which a value has the numbers, whatever repeats and turns them."""
    first = value
    while (giver := givers.get(value)) is not None:
        if giver.operator not in ("expand", "repeat", "tile", "permute", "reshape", "cast", "identity", "dropout"):
            return first
        value = giver.operands[0]  # type: ignore[assignment]
    return value
