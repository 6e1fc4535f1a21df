"""The type that a port computes in: its weights are float32, whatever the source has, so it computes in float32."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from agnostic.program.nodes import Leaf, Node, Program, Value, map_values

ROUNDINGS: Mapping[str, float] = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
"""The unit roundoff of each floating type: half the distance from 1 to the next number."""


def narrowest(program: Program) -> str:
    """The floating type with the largest unit roundoff that a program computes in; ``"float32"`` where it has none."""
    found = {value.dtype for node in program.nodes for value in node.outputs} & set(ROUNDINGS)
    return max(found, key=ROUNDINGS.__getitem__, default="float32")


def in_float32(program: Program) -> Program:
    """The program with each floating value in float32; casts between floating types become identities."""
    known: dict[Value, Value] = {}

    def typed(value: Value) -> Value:
        if value not in known:
            known[value] = replace(value, dtype="float32") if value.dtype in ROUNDINGS else value
        return known[value]

    def leaf(x: Leaf) -> Leaf:
        array = x.array
        if array is not None and x.value.dtype in ROUNDINGS and array.dtype.kind == "f":
            array = array.astype(np.float32)
        return replace(x, value=typed(x.value), array=array)

    def node(x: Node) -> Node:
        attributes = x.attributes
        if attributes.get("dtype") in ROUNDINGS:
            attributes = {**attributes, "dtype": "float32"}
        operands = tuple(map_values(operand, typed) for operand in x.operands)
        return replace(x, operands=operands, attributes=attributes, outputs=tuple(map(typed, x.outputs)))

    outputs = tuple((path, typed(value)) for path, value in program.outputs)
    leaves = tuple(map(leaf, program.leaves))
    return replace(program, leaves=leaves, nodes=tuple(map(node, program.nodes)), outputs=outputs)
