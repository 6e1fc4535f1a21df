"""Linear layers whose outputs are cut into parts, as one layer a part: queries, keys and values from one matrix."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np

from agnostic.errors import InvalidInput
from agnostic.program.builder import Builder, NodeOrigin
from agnostic.program.exact import evaluated
from agnostic.program.nodes import Array, Node, Value, readers_of
from agnostic.program.runs import Run

MOVES = ("reshape", "permute", "slice", "select")
"""What an output goes through before it is used."""

LARGEST = 1 << 22
"""Numbers of an output that are followed one by one."""


def with_parts(run: Run) -> Run:
    """The run with a layer for each part of an output, where all that is used are parts."""
    readers = readers_of(run.program.nodes)
    kept = {value for _, value in run.program.outputs}
    builder = Builder.of(run.program)
    replaced: dict[Value, list[Node]] = {}
    for node in run.program.nodes:
        if node.operator == "linear" and node.outputs[0].shape and math.prod(node.outputs[0].shape) <= LARGEST:
            replaced |= _parts(node, readers, kept, builder)
    nodes = tuple(x for node in run.program.nodes for x in replaced.get(node.outputs[0], [node]))
    return replace(run, program=replace(run.program, leaves=tuple(builder.leaves), nodes=nodes))


def _parts(node: Node, readers: dict[Value, list[Node]], kept: set[Value], builder: Builder) -> dict[Value, list[Node]]:
    """For the values that are parts of a layer's output: the nodes that give them by themselves."""
    whole, weight = node.outputs[0], node.operands[1]
    if not isinstance(weight, Value) or len(weight.shape) != 2:
        return {}
    ends: list[tuple[Value, Array]] = []
    todo = [(whole, np.arange(math.prod(whole.shape)).reshape(whole.shape))]
    while todo:
        value, places = todo.pop()
        if value in kept:
            return {}
        for reader in readers.get(value, ()):
            if reader.operator not in MOVES or value != reader.operands[0]:
                return {}
            [found] = evaluated(reader, [places])
            if found.size < places.size:
                ends.append((reader.outputs[0], found))
            else:
                todo.append((reader.outputs[0], found))
    written: dict[Value, list[Node]] = {}
    for value, places in ends:
        part = _part(node, value, places, builder)
        if part is None:
            return {}
        written[value] = part
    return written


def _part(node: Node, value: Value, places: Array, builder: Builder) -> list[Node] | None:
    """The nodes that give one part; None where it is no block of the layer's outputs for each row."""
    *rows, features = node.outputs[0].shape
    columns = np.unique(places % features)
    start, stop = int(columns[0]), int(columns[-1]) + 1
    if stop - start != columns.size or places.size != math.prod(rows) * columns.size or columns.size == features:
        return None
    own = places // features * columns.size + places % features - start
    shape = (*rows, columns.size)
    order = _order(own, shape)
    if order is None:
        return None
    builder.nodes = []
    builder.origin = NodeOrigin.of(node)
    x, *weights = node.operands
    cut = [builder.emit("slice", w, axis=0, start=start, stop=stop) if isinstance(w, Value) else w for w in weights]
    try:
        result = builder.emit("linear", x, *cut, dtype=value.dtype)
    except InvalidInput:
        return None
    result = result if order == tuple(range(len(order))) else builder.emit("permute", result, axes=order)
    if result.shape != value.shape or len(builder.nodes) == 0:
        builder.emit("reshape", result, shape=value.shape)
    builder.nodes[-1] = replace(builder.nodes[-1], outputs=(value,))
    return builder.nodes


def _order(own: Array, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """The order of axes in which numbers 0, 1, ... of this shape come as given."""
    line = np.arange(own.size).reshape(shape)
    flat = own.reshape(-1)
    for order in itertools.permutations(range(len(shape))) if len(shape) < 6 else ():
        if np.array_equal(line.transpose(order).reshape(-1), flat):
            return order
    return None
