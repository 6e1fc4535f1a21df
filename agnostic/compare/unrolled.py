"""Recurrent layers step by step, for the comparison with a model that writes the steps out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from agnostic.program.builder import Builder, NodeOrigin
from agnostic.program.nodes import Node, Program, Value
from agnostic.program.runs import Run
from agnostic.program.vocabulary import operand_named

LAYERS = ("lstm", "gru", "rnn")

States = tuple[Value, ...]


def alike(a: Run, b: Run) -> tuple[Run, Run]:
    """Both runs, with recurrent layers step by step where only one of them has such layers."""
    if _count(a.program) == _count(b.program):
        return a, b
    return unrolled(a), unrolled(b)


def _count(program: Program) -> Counter[str]:
    return Counter(node.operator for node in program.nodes if node.operator in LAYERS)


def unrolled(run: Run) -> Run:
    """The run with each recurrent layer as its steps."""
    program = run.program
    builder = Builder.of(program)
    for node in program.nodes:
        if node.operator not in LAYERS or node.attributes.get("batch_first") or _has_projection(node):
            builder.nodes.append(node)
            continue
        builder.origin = NodeOrigin.of(node)
        _layer(node, builder)
    return replace(run, program=replace(program, leaves=tuple(builder.leaves), nodes=tuple(builder.nodes)))


def _has_projection(node: Node) -> bool:
    return node.operator == "lstm" and operand_named(node, "projection") is not None


def _layer(node: Node, builder: Builder) -> None:
    emit = builder.emit
    count = 2 if node.operator == "lstm" else 1
    x, *rest = node.operands
    states, (kernel, recurrent, *biases) = rest[:count], rest[count:]
    one, two = (*biases, None, None)[:2]
    mask = operand_named(node, "mask")
    both = builder.giver(one) if isinstance(one, Value) and two is None else None
    if both is not None and both.operator == "add":
        one, two = both.operands  # a bias of the input and one of the state
    assert isinstance(x, Value)
    assert isinstance(recurrent, Value)
    units = recurrent.shape[-1]
    now = tuple(
        s if isinstance(s, Value) else emit("full", 0, shape=(x.shape[1], units), dtype=x.dtype) for s in states
    )
    fixed = emit("linear", x, kernel, one)
    step: Callable[..., States] = {"lstm": _lstm, "gru": _gru, "rnn": _rnn}[node.operator]
    outputs: list[Value] = []
    times = range(x.shape[0])
    for time in reversed(times) if node.attributes.get("reverse") else times:
        given = emit("select", fixed, axis=0, index=time)
        new = step(emit, node, given, now, recurrent, two, units)
        outputs.append(new[0])
        if mask is not None:
            seen = emit("reshape", emit("select", mask, axis=0, index=time), shape=(-1, 1))
            other = 0.0 if node.attributes.get("zeros", True) else now[0]
            outputs[-1] = emit("where", seen, new[0], other, dtype=x.dtype)
            new = tuple(emit("where", seen, *pair, dtype=x.dtype) for pair in zip(new, now, strict=True))
        now = new
    if node.attributes.get("reverse"):
        outputs.reverse()
    emit("stack", tuple(outputs), axis=0)
    builder.nodes[-1] = replace(builder.nodes[-1], outputs=node.outputs[:1])
    for state, value in zip(now, node.outputs[1:], strict=True):
        emit("identity", state)
        builder.nodes[-1] = replace(builder.nodes[-1], outputs=(value,))


def _gates(emit: Any, x: Value, count: int, units: int) -> list[Value]:
    return [emit("slice", x, axis=1, start=k * units, stop=(k + 1) * units) for k in range(count)]


def _lstm(emit: Any, node: Node, x: Value, now: States, recurrent: Value, bias: Any, units: int) -> States:
    h, c = now
    i, f, g, o = _gates(emit, emit("add", x, emit("linear", h, recurrent, bias)), 4, units)
    i, f, o = (emit("activation", gate, function="sigmoid") for gate in (i, f, o))
    kept = emit("multiply", f, c)
    c = emit("add", kept, emit("multiply", i, emit("activation", g, function="tanh")))
    return emit("multiply", o, emit("activation", c, function="tanh")), c


def _gru(emit: Any, node: Node, x: Value, now: States, recurrent: Value, bias: Any, units: int) -> States:
    [h] = now
    xr, xz, xn = _gates(emit, x, 3, units)
    if node.attributes.get("reset_after", True):
        hr, hz, hn = _gates(emit, emit("linear", h, recurrent, bias), 3, units)
    else:
        parts = [emit("slice", recurrent, axis=0, start=k * units, stop=(k + 1) * units) for k in range(3)]
        offsets = [None] * 3
        if isinstance(bias, Value):
            offsets = [emit("slice", bias, axis=0, start=k * units, stop=(k + 1) * units) for k in range(3)]
        hr, hz = (emit("linear", h, w, b) for w, b in zip(parts[:2], offsets[:2], strict=True))
    r = emit("activation", emit("add", xr, hr), function="sigmoid")
    z = emit("activation", emit("add", xz, hz), function="sigmoid")
    if node.attributes.get("reset_after", True):
        inner = emit("multiply", r, hn)
    else:
        inner = emit("linear", emit("multiply", r, h), parts[2], offsets[2])
    n = emit("activation", emit("add", xn, inner), function="tanh")
    fresh = emit("multiply", emit("subtract", 1, z, dtype=z.dtype), n)
    return (emit("add", fresh, emit("multiply", z, h)),)


def _rnn(emit: Any, node: Node, x: Value, now: States, recurrent: Value, bias: Any, units: int) -> States:
    [h] = now
    total = emit("add", x, emit("linear", h, recurrent, bias))
    return (emit("activation", total, function=node.attributes.get("function", "tanh")),)
