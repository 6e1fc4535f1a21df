"""Loops of a program, which run some of its nodes for each place of an axis; and the same program without them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from agnostic.program.builder import Builder, NodeOrigin
from agnostic.program.nodes import Node, Program, Value, map_values, substituted
from agnostic.program.operators.loops import LOOPED


def end_of(nodes: Sequence[Node], start: int) -> int:
    """The place of the ``loop_end`` that belongs to the ``loop_start`` at a place."""
    depth = 0
    for place in range(start, len(nodes)):
        depth += {"loop_start": 1, "loop_end": -1}.get(nodes[place].operator, 0)
        if not depth:
            return place
    raise AssertionError(f"the loop at {nodes[start]} has no end")


def unrolled(program: Program) -> Program:
    """The program with the nodes of each loop once for each place."""
    if not any(node.operator in LOOPED for node in program.nodes):
        return program
    builder = Builder.of(program)
    instead: dict[Value, Value] = {}
    _write(builder, program.nodes, instead)
    outputs = tuple((path, instead.get(value, value)) for path, value in program.outputs)
    return replace(program, nodes=tuple(builder.nodes), outputs=outputs)


def _write(builder: Builder, nodes: Sequence[Node], instead: dict[Value, Value], copied: bool = False) -> None:
    """Write nodes whose operands have new values; with values of their own where they are copied."""
    place = 0
    while place < len(nodes):
        node = nodes[place]
        operands = substituted(node, instead).operands
        if node.operator == "loop_start":
            end = end_of(nodes, place)
            _write_loop(builder, replace(node, operands=operands), nodes[place + 1 : end], nodes[end], instead)
            place = end + 1
            continue
        outputs = node.outputs
        if copied:
            outputs = tuple(builder.value(value.shape, value.dtype) for value in node.outputs)
            instead |= zip(node.outputs, outputs, strict=True)
        builder.nodes.append(replace(node, operands=operands, outputs=outputs))
        place += 1


def _write_loop(builder: Builder, start: Node, body: Sequence[Node], end: Node, instead: dict[Value, Value]) -> None:
    sequences: Any = start.operands[0]
    states: list[Any] = list(start.operands[1])  # type: ignore[arg-type]
    axis, length, hidden = end.attributes["axis"], end.attributes["length"], end.attributes.get("hidden", "zeros")
    outputs: list[Value] = []
    for time in range(length):
        builder.origin = NodeOrigin.of(start)
        now = [
            builder.emit("select", x, axis=along, index=time)
            for x, along in zip(sequences, start.attributes["axes"], strict=True)
        ]
        inside = {**instead, **dict(zip(start.outputs, (*now, *states), strict=True))}
        _write(builder, [_at(node, time, len(start.calls), length) for node in body], inside, copied=True)
        builder.origin = NodeOrigin.of(end)
        inside_of = functools.partial(_known, inside)
        output, new, mask = (map_values(x, inside_of) for x in (*end.operands, None)[:3])
        if mask is not None:
            seen = builder.emit("select", mask, axis=0, index=time)
            before = states[hidden] if isinstance(hidden, int) else _before(hidden, outputs)
            output = _chosen(builder, seen, output, before)
            new = [_chosen(builder, seen, after, old) for after, old in zip(new, states, strict=True)]
        outputs.append(output)
        states = list(new)
    builder.origin = NodeOrigin.of(end)
    instead |= zip(end.outputs, (builder.emit("stack", tuple(outputs), axis=axis), *states), strict=True)


def _known(instead: dict[Value, Value], value: Value) -> Value:
    return instead.get(value, value)


def _before(hidden: str, outputs: Sequence[Value]) -> Any:
    return outputs[-1] if hidden == "last" and outputs else 0.0


def _chosen(builder: Builder, seen: Value, new: Value, old: Any) -> Value:
    seen = builder.emit("reshape", seen, shape=(*seen.shape, *(1,) * (len(new.shape) - 1)))
    chosen: Value = builder.emit("where", seen, new, old, dtype=new.dtype)
    return chosen


def _at(node: Node, time: int, depth: int, length: int) -> Node:
    """A node whose layers are called anew at each time."""
    calls = [*node.calls[:depth]]
    for call in node.calls[depth:]:
        path, _, number = call.partition("@")
        count = int(number or 0) * length + time
        calls.append(f"{path}@{count}" if count else path)
    return replace(node, calls=tuple(calls))
