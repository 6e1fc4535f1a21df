"""What a block is, by what it computes: a name for its class where the source has none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from agnostic.program.nodes import Node, Value

NORMS = frozenset({"batch_norm", "layer_norm", "group_norm", "rms_norm"})
PRODUCTS = frozenset({"convolution", "transposed_convolution", "linear"})
POOLS = frozenset({"max_pool", "average_pool"})


def kind_of(nodes: Sequence[Node], weights: AbstractSet[Value]) -> str:
    """The usual name of what a block computes.

    Args:
        nodes: of the block, in order.
        weights: the values of the program that are weights.

    Returns:
        A class name; ``"Block"`` where it is none that is known.
    """
    operators = [node.operator for node in nodes]
    products = [node for node in nodes if node.operator in PRODUCTS]
    made = {value for node in nodes for value in node.outputs}
    outside = {value for node in nodes for value in node.reads} - made - weights
    joins = [n for n in nodes if n.operator == "concatenate" and n.outputs[0].shape]
    residual = any(
        n.operator == "add" and all(isinstance(o, Value) and (o in made or o in outside) for o in n.operands)
        for n in nodes
    )
    if "attention" in operators or ("softmax" in operators and {"matmul", "einsum"} & set(operators)):
        return "TransformerBlock" if residual and len(products) > 1 else "Attention"
    if any(_is_depthwise(node) for node in products) and len(products) > 1:
        return "InvertedResidual" if operators[-1] in (*PRODUCTS, *NORMS, "add", "dropout") else "SeparableBlock"
    if "multiply" in operators and _is_gate(nodes, products):
        return "SqueezeExcitation"
    if any(value in outside for node in joins for value in node.reads):
        return "DenseLayer"
    if joins:
        return "Branches"
    if residual:
        sizes = [math.prod(node.operands[1].shape[2:]) for node in products if node.operator == "convolution"]  # type: ignore[union-attr]
        wide = [place for place, size in enumerate(sizes) if size > 1]
        narrow = [place for place, size in enumerate(sizes) if size == 1]
        return "Bottleneck" if wide and narrow and narrow[0] < wide[0] < narrow[-1] else "Residual"
    return _plain(operators, products)


def _is_depthwise(node: Node) -> bool:
    kernel = node.operands[1]
    return node.operator == "convolution" and isinstance(kernel, Value) and kernel.shape[1] == 1 < kernel.shape[0]


def _is_gate(nodes: Sequence[Node], products: Sequence[Node]) -> bool:
    """Whether what was averaged over an image scales it."""
    pooled = any(n.operator == "reduce" and n.attributes.get("function") == "mean" for n in nodes)
    return len(products) == 2 and (pooled or any("average_pool" in node.operator for node in nodes))


def _plain(operators: Sequence[str], products: Sequence[Node]) -> str:
    """One thing after the other."""
    if not products:
        return "Block"
    if operators[-1] in POOLS and operators[0] in NORMS:
        return "Transition"
    word = "Linear" if all(node.operator == "linear" for node in products) else "Conv"
    if len(products) > 1:
        return "Mlp" if word == "Linear" else "ConvBlock"
    norm = "Norm" if NORMS & set(operators) else ""
    return f"{word}{norm}{'Activation' if 'activation' in operators else ''}"
