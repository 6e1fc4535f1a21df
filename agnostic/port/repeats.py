"""What one call of a layer computes twice, such as a mask that two layers ask for, is computed once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from agnostic.program.nodes import Node, Program, Value, map_values, substituted
from agnostic.program.passes import used
from agnostic.program.vocabulary import get

APART = frozenset({"custom", "batch_norm", "batch_norm_training"})
"""Operators whose calls do more than give a value."""


def without_repeats(programs: Sequence[Program]) -> list[Program]:
    """One model's programs at several sizes without nodes that compute, at each of them, what a node before them does.

    Only within one call of a layer: what two layers compute alike stays in both, as their classes are one.
    """
    looped = any(node.operator == "loop_start" for node in programs[0].nodes)
    if looped or len({len(program.nodes) for program in programs}) > 1:
        return list(programs)
    constants = [
        {x.value: (x.array.dtype.str, x.array.shape, x.array.tobytes()) for x in p.leaves if x.array is not None}
        for p in programs
    ]
    weights = [{x.value for x in p.leaves if x.role in ("parameter", "buffer")} for p in programs]
    instead: list[dict[Value, Value]] = [{} for _ in programs]
    givers: list[dict[Value, Node]] = [{} for _ in programs]
    first: dict[object, list[Node]] = {}
    kept: list[list[Node]] = []
    for column in zip(*(program.nodes for program in programs), strict=True):
        nodes = [substituted(node, known) for node, known in zip(column, instead, strict=True)]
        idle = [_given_back(node, before) for node, before in zip(nodes, givers, strict=True)]
        if all(value is not None for value in idle):
            for node, value, known in zip(nodes, idle, instead, strict=True):
                known[node.outputs[0]] = value  # type: ignore[assignment]
            continue
        for node, before in zip(nodes, givers, strict=True):
            before |= dict.fromkeys(node.outputs, node)
        same = first.get(signs := tuple(map(_sign, nodes, constants)))
        plain = get(nodes[0].operator).random is False and nodes[0].operator not in APART
        if same is None or not plain or any(not w.isdisjoint(n.reads) for n, w in zip(nodes, weights, strict=True)):
            first.setdefault(signs, nodes)
            kept.append(nodes)
            continue
        for node, other, known in zip(nodes, same, instead, strict=True):
            known |= dict(zip(node.outputs, other.outputs, strict=True))
    found = []
    for place, (program, known) in enumerate(zip(programs, instead, strict=True)):
        outputs = tuple((path, known.get(value, value)) for path, value in program.outputs)
        found.append(used(replace(program, nodes=tuple(nodes[place] for nodes in kept), outputs=outputs)))
    return found


def _sign(node: Node, constants: Mapping[Value, object]) -> object:
    """What two nodes share that compute the same in one call of a layer; equal constants are one."""
    operands = repr(tuple(map_values(operand, lambda value: constants.get(value, value)) for operand in node.operands))
    types = tuple(value.dtype for value in node.outputs)
    return node.operator, node.calls or node.module, operands, repr(sorted(node.attributes.items())), types


def _given_back(node: Node, givers: Mapping[Value, Node]) -> Value | None:
    """What a node returns as it is: the x of "x and x", and "x and y" of "(x and y) and y"."""
    if node.operator != "binary" or node.attributes["function"] not in ("and", "or"):
        return None
    x, y = node.operands
    giver = givers.get(x) if isinstance(x, Value) else None
    again = giver is not None and giver.operator == "binary" and y in giver.operands
    again = again and giver is not None and giver.attributes == node.attributes
    fits = isinstance(x, Value) and (x.shape, x.dtype) == (node.outputs[0].shape, "bool")
    return x if isinstance(x, Value) and fits and (again or x == y) else None
