"""Constants that an operator can compute: one number everywhere, a range, or an array repeated along the batch.

Such a constant may have a length that depends on the inputs: the initial zeros of a recurrent layer, positions of a
sequence, a mask repeated for each item of the batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from agnostic.program.nodes import Leaf, Node, Program, Value, substituted
from agnostic.program.passes import used


def simple_constants(program: Program) -> Program:
    """Replace constants by operators that compute them, where possible."""
    first: dict[Value, Node] = {}
    for node in program.nodes:
        for value in node.reads:
            first.setdefault(value, node)
    highest = program.last_id
    instead: dict[Value, Value] = {}
    before: dict[int, list[Node]] = {}
    leaves: list[Leaf] = []
    for leaf in program.leaves:
        found = None if leaf.array is None or leaf.value not in first else _computed(leaf, highest)
        leaves.append(leaf)
        if found is None:
            continue
        nodes, smaller = found
        highest = max(v.id for v in (*(v for n in nodes for v in n.outputs), *([smaller.value] if smaller else ())))
        if smaller is not None:
            leaves.append(smaller)
        reader = first[leaf.value]
        placed = [
            replace(n, module=reader.module, kind=reader.kind, file=reader.file, line=reader.line, calls=reader.calls)
            for n in nodes
        ]
        before.setdefault(id(reader), []).extend(placed)
        instead[leaf.value] = nodes[-1].outputs[0]
    nodes = []
    for node in program.nodes:
        nodes += [*before.get(id(node), []), substituted(node, instead)]
    outputs = tuple((path, instead.get(value, value)) for path, value in program.outputs)
    return used(replace(program, nodes=tuple(nodes), leaves=tuple(leaves), outputs=outputs))


def _computed(leaf: Leaf, highest: int) -> tuple[list[Node], Leaf | None] | None:
    """The nodes that compute a constant, and the smaller constant that they read, if any."""
    array, value = leaf.array, leaf.value
    assert array is not None
    if array.size < 2 or array.dtype.kind not in "fiub":
        return None
    if np.all(array == array.flat[0]):
        return [
            _node("full", (array.flat[0].item(),), {"shape": value.shape, "dtype": value.dtype}, value, highest + 1)
        ], None
    if len(array) > 1 and np.array_equal(array, np.broadcast_to(array[:1], array.shape)):
        shape = (1, *value.shape[1:])
        smaller = Leaf(leaf.name, "constant", Value(highest + 1, shape, value.dtype), array[:1])
        inner = _computed(smaller, highest + 2)
        expand = {"shape": value.shape}
        if inner is not None and inner[1] is None:
            last = inner[0][-1].outputs[0]
            return [*inner[0], _node("expand", (last,), expand, value, last.id + 1)], None
        return [_node("expand", (smaller.value,), expand, value, highest + 2)], smaller
    if array.ndim == 2 and np.array_equal(array, np.eye(*array.shape)):
        attributes = {"rows": value.shape[0], "columns": value.shape[1], "dtype": value.dtype}
        return [_node("eye", (), attributes, value, highest + 1)], None
    n = array.size
    if array.dtype.kind in "iu" and n == max(array.shape) and np.array_equal(array.reshape(-1), np.arange(n)):
        attributes = {"dtype": value.dtype, "length": n}
        line = replace(value, shape=(n,))
        places = _node("arange", (0, n, 1), attributes, line, highest + 1)
        if array.ndim == 1:
            return [places], None
        return [places, _node("reshape", (places.outputs[0],), {"shape": value.shape}, value, highest + 2)], None
    return None


def _node(
    operator: str, operands: tuple[object, ...], attributes: Mapping[str, object], like: Value, number: int
) -> Node:
    return Node(operator, operands, attributes, (replace(like, id=number),))  # type: ignore[arg-type]


def outputs_computed(program: Program) -> Program:
    """Give each output that is a weight or constant an operator that returns it."""
    fixed = {leaf.value: leaf for leaf in program.leaves if leaf.role != "input"}
    highest = program.last_id
    nodes, outputs = list(program.nodes), []
    for path, value in program.outputs:
        leaf = fixed.get(value)
        if leaf is not None:
            highest += 1
            number = leaf.array is not None and leaf.array.size == 1
            operator, operand = (
                ("full", leaf.array.item()) if number and leaf.array is not None else ("identity", value)
            )
            attributes = {"shape": value.shape, "dtype": value.dtype} if number else {}
            made = _node(operator, (operand,), attributes, value, highest)
            nodes.append(replace(made, kind=program.name, calls=("",)))
            value = made.outputs[0]
        outputs.append((path, value))
    return replace(program, nodes=tuple(nodes), outputs=tuple(outputs))
