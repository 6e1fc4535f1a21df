"""Constants that an operator can compute: one number everywhere, a range, or an array repeated along the batch.

Such a constant may have a length that depends on the inputs: the initial zeros of a recurrent layer, positions of a
sequence, a mask repeated for each item of the batch.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np

from agnostic.program.nodes import Leaf, Node, Program, Value, substituted
from agnostic.program.passes import used


def simple_constants(program: Program) -> Program:
    """Replace constants by operators that compute them, where possible."""
    first: dict[Value, Node] = {}
    by_call, computed = _by_call(program), {v for node in program.nodes for v in node.outputs}
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
        calls = _home(leaf.value, reader.calls, by_call, computed)
        module, kind, follower = reader.module, reader.kind, reader
        if calls != reader.calls:
            module = calls[-1].partition("@")[0]
            kind = program.modules.get(module, program.name)
            key = reader.calls[len(calls)]
            follower = by_call[key.partition("@")[0]][key][0]
        placed = [replace(n, module=module, kind=kind, file=reader.file, line=reader.line, calls=calls) for n in nodes]
        before.setdefault(id(follower), []).extend(placed)
        instead[leaf.value] = nodes[-1].outputs[0]
    nodes = []
    for node in program.nodes:
        nodes += [*before.get(id(node), []), substituted(node, instead)]
    outputs = tuple((path, instead.get(value, value)) for path, value in program.outputs)
    return used(replace(program, nodes=tuple(nodes), leaves=tuple(leaves), outputs=outputs))


def _by_call(program: Program) -> dict[str, dict[str, list[Node]]]:
    """The nodes of each call of a layer, by the layer's path."""
    found: dict[str, dict[str, list[Node]]] = {}
    for node in program.nodes:
        for key in node.calls[1:]:
            found.setdefault(key.partition("@")[0], {}).setdefault(key, []).append(node)
    return found


def _home(
    value: Value, calls: tuple[str, ...], by_call: Mapping[str, Mapping[str, list[Node]]], computed: Collection[Value]
) -> tuple[str, ...]:
    """The calls inside of which a constant is made: outside of those that are given another value at another time."""
    while len(calls) > 1:
        own = by_call[calls[-1].partition("@")[0]]
        others = (nodes for key, nodes in own.items() if key != calls[-1])
        if not any(_is_argument(value, own[calls[-1]], nodes, computed) for nodes in others):
            break
        calls = calls[:-1]
    return calls


def _is_argument(value: Value, nodes: Sequence[Node], others: Sequence[Node], computed: Collection[Value]) -> bool:
    """Whether a constant of one call of a layer is in its other call a value that was computed before that call."""
    made = {v for node in others for v in node.outputs}
    return any(
        a == value and b in computed and b not in made and node.operator == other.operator
        for node, other in zip(nodes, others, strict=False)
        for a, b in zip(node.operands, other.operands, strict=False)
    )


def _computed(leaf: Leaf, highest: int) -> tuple[list[Node], Leaf | None] | None:
    """The nodes that compute a constant, and the smaller constant that they read, if any."""
    array, value = leaf.array, leaf.value
    assert array is not None
    if array.size < 2 or array.dtype.kind not in "fciub":
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
