"""Weights that are complex numbers, as pairs of real ones: what layers and files of every framework hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from agnostic.program.nodes import Array, Leaf, Node, Program, Value


def is_complex(value: Value) -> bool:
    """Whether an array holds complex numbers."""
    return value.dtype.startswith("complex")


def in_pairs(program: Program) -> Program:
    """The program with complex weights and constants as pairs along a new last axis, from which it makes them."""
    highest = program.last_id
    leaves = list[Leaf]()
    pairs: dict[Value, Value] = {}
    for leaf in program.leaves:
        if leaf.role == "input" or not is_complex(leaf.value):
            leaves.append(leaf)
            continue
        value = Value(highest + 1 + len(pairs), (*leaf.value.shape, 2), "float32")
        leaves.append(Leaf(leaf.name, leaf.role, value, None if leaf.array is None else as_pairs(leaf.array)))
        pairs[leaf.value] = value
    if not pairs:
        return program
    nodes = list[Node]()
    for node in program.nodes:
        # Each is made where it is first read.
        for value in filter(pairs.__contains__, dict.fromkeys(node.reads)):
            nodes.append(_made(value, pairs.pop(value), node))
        nodes.append(node)
    last = Node("identity", (), {}, (), kind=program.name, calls=("",))
    nodes += [_made(value, pairs.pop(value), last) for _, value in program.outputs if value in pairs]
    return replace(program, leaves=tuple(leaves), nodes=tuple(nodes))


def _made(value: Value, pairs: Value, reader: Node) -> Node:
    """The node that makes complex numbers of pairs, where another one is."""
    return replace(reader, operator="as_complex", operands=(pairs,), attributes={}, outputs=(value,))


def as_pairs(array: Array) -> Array:
    """Complex numbers as pairs (real, imaginary) along a new last axis."""
    return np.stack([array.real, array.imag], axis=-1)


def weights_in_pairs(weights: Mapping[str, Array]) -> Mapping[str, Array]:
    """Weights by name, the complex ones as pairs."""
    return {name: as_pairs(array) if np.iscomplexobj(array) else array for name, array in weights.items()}
