"""Small changes of a program that keep what it computes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from agnostic.program.nodes import Leaf, Node, Program, Value, substituted, values_in
from agnostic.program.vocabulary import evaluate, get

LARGEST_CONSTANT = 1 << 24
"""Numbers that a folded constant may have; what is larger stays computed."""


def without_identities(program: Program) -> Program:
    """Leave out the operators that give their operand as it is, such as a reshape to the same shape."""
    instead: dict[Value, Value] = {}
    kept = []
    for node in program.nodes:
        node = substituted(node, instead)
        if _is_identity(node):
            [source] = node.operands
            assert isinstance(source, Value)
            instead[node.outputs[0]] = source
        else:
            kept.append(node)
    outputs = tuple((path, instead.get(value, value)) for path, value in program.outputs)
    return replace(program, nodes=tuple(kept), outputs=outputs)


def _is_identity(node: Node) -> bool:
    source = node.operands[0] if node.operands else None
    if not isinstance(source, Value):
        return False
    if node.operator == "identity":
        return True
    if node.operator in ("reshape", "expand"):
        return source.shape == node.outputs[0].shape
    if node.operator == "permute":
        return list(node.attributes["axes"]) == sorted(node.attributes["axes"])
    if node.operator == "cast":
        return source.dtype == node.outputs[0].dtype
    if node.operator == "pad":
        return not any(map(any, node.attributes["widths"]))
    if node.operator == "dropout":
        return not node.attributes["rate"]
    if node.operator == "slice":
        return source.shape == node.outputs[0].shape and node.attributes.get("step", 1) == 1
    return False


def folded(program: Program) -> Program:
    """Compute what depends on constants alone: masks, positions, tables of indices.

    What needs a parameter or buffer stays, since those may change; a random operator stays too.
    """
    arrays = {leaf.value: leaf.array for leaf in program.leaves if leaf.array is not None}
    computed: dict[Value, np.ndarray] = {}
    kept = []
    for node in program.nodes:
        known = arrays | computed
        operands = [value for operand in node.operands for value in values_in(operand)]
        small = all(np.prod(value.shape, dtype=np.int64) <= LARGEST_CONSTANT for value in node.outputs)
        if small and not get(node.operator).random and all(value in known for value in operands):
            with np.errstate(all="ignore"):
                results = evaluate(node, known.__getitem__)
            computed |= dict(zip(node.outputs, map(np.asarray, results), strict=True))
        else:
            kept.append(node)
    new = [Leaf(f"constant_{value.id}", "constant", value, array) for value, array in computed.items()]
    return used(replace(program, nodes=tuple(kept), leaves=(*program.leaves, *new)))


def used(program: Program) -> Program:
    """Leave out nodes that no output needs, and constants that no node needs."""
    needed = {value for _, value in program.outputs}
    kept = []
    for node in reversed(program.nodes):
        if needed.intersection(node.outputs):
            kept.append(node)
            needed |= {value for operand in node.operands for value in values_in(operand)}
    leaves = tuple(leaf for leaf in program.leaves if leaf.role != "constant" or leaf.value in needed)
    return replace(program, nodes=tuple(reversed(kept)), leaves=leaves)


def simplified(program: Program) -> Program:
    """All passes that make a program shorter."""
    return used(folded(without_identities(program)))
