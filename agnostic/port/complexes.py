"""Weights that are complex numbers, as pairs of real ones: what layers and files of every framework hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from agnostic.program.nodes import Array, Leaf, Program, Value


def is_complex(value: Value) -> bool:
    """Whether an array holds complex numbers."""
    return value.dtype.startswith("complex")


def in_pairs(program: Program) -> Program:
    """The program with complex weights and constants as pairs along a new last axis, from which it makes them."""
    pairs = {leaf.value: leaf for leaf in program.leaves if leaf.role != "input" and is_complex(leaf.value)}
    if not pairs:
        return program
    highest = program.last_id
    leaves, made = [], {}
    for leaf in program.leaves:
        if leaf.value not in pairs:
            leaves.append(leaf)
            continue
        highest += 1
        value = Value(highest, (*leaf.value.shape, 2), "float32")
        leaves.append(Leaf(leaf.name, leaf.role, value, None if leaf.array is None else as_pairs(leaf.array)))
        made[leaf.value] = value
    nodes, done = [], set[Value]()
    for node in program.nodes:
        for value in node.reads:
            if value in made and value not in done:
                done.add(value)
                nodes.append(
                    replace(node, operator="as_complex", operands=(made[value],), attributes={}, outputs=(value,))
                )
        nodes.append(node)
    return replace(program, leaves=tuple(leaves), nodes=tuple(nodes))


def as_pairs(array: Array) -> Array:
    """Complex numbers as pairs (real, imaginary) along a new last axis."""
    return np.stack([array.real, array.imag], axis=-1)


def weights_in_pairs(weights: Mapping[str, Array]) -> Mapping[str, Array]:
    """Weights by name, the complex ones as pairs."""
    return {name: as_pairs(array) if np.iscomplexobj(array) else array for name, array in weights.items()}
