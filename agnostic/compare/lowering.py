"""Operators in the words of the search for differences: one word for each, and the settings that change numbers."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Mapping
from typing import Any

from agnostic.program.nodes import Node, values_in
from agnostic.program.vocabulary import operators

FLAT = frozenset(["reshape", "expand", "slice", "select", "permute", "cast", "identity", "dropout"])
"""What may give the same numbers in the same order; whether it does, the numbers tell."""

MOVES = FLAT | frozenset(["flip", "roll", "index", "take", "gather", "stack", "tile", "repeat", "view.gather"])
"""What only moves numbers."""

PARTS = frozenset(["slice", "select", "index", "take", "gather"])
"""Operators that take parts out of an array."""

PRODUCTS = frozenset(
    {"convolution", "transposed_convolution", "linear", "matmul", "einsum", "embedding", "lstm", "gru", "rnn"}
)
"""What takes long to compute, and nobody forgets."""

_UNSAID = frozenset({
    "momentum", "same", "shape", "shapes", "dtype", "meaning", "reason", "arguments", "function", "name", "method",
    "half_pixel", "cubic", "edges", "scales", "length", "batch_first", "places", "device", "layout", "pin_memory",
    "memory_format", "size",
})  # fmt: skip
"""Attributes that change no number, or follow from the operands, or are said by the operator's word."""

_SAID_OF: Mapping[str, frozenset[str]] = {
    "cast": frozenset({"dtype"}),
    "full": frozenset({"shape"}),
    "resize_nearest": frozenset({"half_pixel"}),
    "resize_bicubic": frozenset({"cubic", "edges"}),
    "rnn": frozenset({"function"}),
    "sample": frozenset({"method"}),
}
"""Those that do change numbers of an operator all the same."""

_LEFT_OUT: Mapping[str, Mapping[str, Any]] = {"softplus": {"beta": 1, "threshold": 20}}
"""What a function is with, where a framework does not say it."""

AXES = frozenset({"axis", "axes", "channel_axis"})
"""Attributes that name axes."""

FAMILIES: tuple[frozenset[str], ...] = tuple(
    frozenset(x.split())
    for x in (
        "relu gelu gelu_tanh quick_gelu silu leaky_relu elu hard_tanh hard_silu hard_sigmoid hard_sigmoid_fifth "
        "sigmoid tanh softplus mish relu6 celu selu softmax log_softmax exp linear_activation prelu softsign "
        "log_sigmoid squareplus soft_shrink hard_shrink tanh_shrink threshold exponential",
        "max_pool average_pool mean max sum adaptive_average_pool adaptive_max_pool",
        "resize_nearest resize_bilinear resize_bicubic resize_lanczos3 resize_lanczos5 resize_area",
        "add subtract multiply divide maximum minimum",
        "batch_norm batch_norm_training layer_norm group_norm rms_norm",
        "select mean sum max slice",
        "pad pad_reflect pad_replicate pad_circular pad_symmetric",
        "greater less greater_equal less_equal equal not_equal",
        "triangle",
        "sin cos",
    )
)
"""Kinds that stand for each other when somebody takes the wrong one."""

_BY_FUNCTION = frozenset({"activation", "unary", "binary", "reduce"})


def kind(node: Node) -> str:
    """What a node does, in one word."""
    name = node.operator
    if name in _BY_FUNCTION:
        found = str(node.attributes["function"])
        return "linear_activation" if found == "linear" else found
    if name == "pad" and (mode := node.attributes.get("mode", "constant")) != "constant":
        return f"pad_{mode}"
    if name == "resize":
        return f"resize_{node.attributes['method']}"
    if name == "custom":
        return str(node.attributes["name"])
    if name.startswith("aten."):
        return name.split(".")[1].strip("_").removesuffix("_kernel")
    return name


def settings(node: Node) -> dict[str, Any]:
    """The attributes of a node that change its numbers; axes from 0."""
    said = _SAID_OF.get(kind(node), frozenset())
    given = {**_defaults(node.operator), **node.attributes}
    found = {key: value for key, value in given.items() if key in said or key not in _UNSAID}
    for key, value in _LEFT_OUT.get(kind(node), {}).items():
        found[key] = value if found.get(key) is None else found[key]
    rank = rank_of(node)
    if "channel_axis" in found and found["channel_axis"] is None:
        found["channel_axis"] = 1
    for key in AXES & found.keys():
        found[key] = _from_start(found[key], rank)
    return {key: tuple(value) if isinstance(value, list) else value for key, value in found.items()}


@functools.cache
def _defaults(operator: str) -> Mapping[str, Any]:
    known = operators().get(operator)
    if known is None or operator == "custom":
        return {}
    return {name: x for name, x in known.defaults.items() if x is not inspect.Parameter.empty}


def rank_of(node: Node) -> int:
    """The number of axes that a node's axes are counted in."""
    shapes = [v.shape for x in node.operands[:1] for v in values_in(x)]
    return max(map(len, shapes), default=0) + (node.operator == "stack")


def _from_start(axes: Any, rank: int) -> Any:
    if isinstance(axes, tuple | list):
        return tuple(_from_start(axis, rank) for axis in axes)
    return axes % rank if isinstance(axes, int) and rank else axes


def related(a: str, b: str) -> bool:
    """Whether two kinds are of one family."""
    return any(a in family and b in family for family in FAMILIES)


HIDING = -1e4
"""Scores that are as low or lower have no part in a softmax: which number it is does not matter."""


def is_hiding(x: float) -> bool:
    """Whether a number hides what it stands for from a softmax."""
    return x <= HIDING


def number(x: Any, node: Node | None = None) -> Any:
    """An operand that is a number, as it is compared: but for rounding, and whatever its type.

    Args:
        node: that it is an operand of; of a mask, all numbers that hide are one.
    """
    if not isinstance(x, int | float) or isinstance(x, bool):
        return x
    return -math.inf if node is not None and node.operator == "where" and is_hiding(x) else float(f"{x:.9g}")
