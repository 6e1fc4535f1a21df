"""Recorded operators in fewer words: one name for what has several spellings, and no step that keeps all numbers."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from agnostic.program.nodes import Node

_NAMES: Mapping[str, str] = {
    "native_batch_norm": "batch_norm",
    "cudnn_batch_norm": "batch_norm",
    "native_layer_norm": "layer_norm",
    "native_group_norm": "group_norm",
    "safe_softmax": "softmax",
    "max_pool2d_with_indices": "max_pool2d",
    "max_pool3d_with_indices": "max_pool3d",
    "adaptive_max_pool2d": "adaptive_max_pool2d",
    "unsafe_view": "view",
    "unsafe_split": "split",
    "conv_transpose": "convolution",
    "t": "transpose",
}
"""Operators of the dispatcher that are another one under a second name."""

FLAT = frozenset(
    [
        "view",
        "reshape",
        "unsqueeze",
        "squeeze",
        "clone",
        "contiguous",
        "detach",
        "alias",
        "lift_fresh",
        "flatten",
        "unflatten",
        "to_copy",
        "to",
        "copy_to",
        "expand",
        "split",
        "chunk",
        "unbind",
        "select",
        "slice",
        "transpose",
        "permute",
        "movedim",
    ]
)
"""What may give the same numbers in the same order; whether it does, the numbers tell."""

MOVES = FLAT | frozenset(["flip", "roll", "index", "gather", "stack"])
"""What only moves numbers."""

PRODUCTS = frozenset({"convolution", "linear", "mm", "addmm", "bmm", "baddbmm", "embedding"})
"""What takes long to compute, and nobody forgets."""

_UNSAID = frozenset({
    "device", "layout", "memory_format", "pin_memory", "dtype", "inplace", "non_blocking", "half_to_float", "size",
    "implicit", "cudnn_enabled", "input_shape", "shape", "sparse", "scale_grad_by_freq", "padding_idx", "momentum",
    "places",
})  # fmt: skip
"""Attributes that change no number, or follow from the operands."""

_SAID_OF: Mapping[str, frozenset[str]] = {
    "to_copy": frozenset({"dtype"}), "arange": frozenset({"dtype"}), "view.gather": frozenset({"places"}),
    **dict.fromkeys(("zeros", "ones", "full", "empty"), frozenset({"size"})),
    **dict.fromkeys(("upsample_bilinear2d", "upsample_nearest2d"), frozenset({"size"})),
}  # fmt: skip
"""Those that do change numbers of an operator all the same."""

FAMILIES: tuple[frozenset[str], ...] = tuple(
    frozenset(x.split())
    for x in (
        "relu gelu silu leaky_relu elu hardtanh hardswish hardsigmoid sigmoid tanh softplus mish relu6 celu selu "
        "softmax log_softmax exp identity prelu softsign log_sigmoid",
        "max_pool2d avg_pool2d max_pool1d avg_pool1d max_pool3d avg_pool3d mean amax max sum adaptive_avg_pool2d",
        "upsample_nearest2d upsample_bilinear2d upsample_bicubic2d upsample_nearest_exact2d upsample_bilinear2d_aa "
        "upsample_bicubic2d_aa upsample_linear1d upsample_nearest1d",
        "add sub mul div rsub maximum minimum",
        "batch_norm layer_norm group_norm",
        "select mean sum amax slice",
        "constant_pad_nd reflection_pad2d replication_pad2d reflection_pad1d replication_pad1d",
        "gt lt ge le eq ne",
        "tril triu",
        "sin cos",
    )
)
"""Kinds that stand for each other when somebody takes the wrong one."""


@lru_cache(maxsize=4096)
def _kind(operator: str) -> str:
    name = operator.split(".")[1] if operator.startswith("aten.") else operator
    name = name.strip("_")
    return _NAMES.get(name, name)


def kind(node: Node) -> str:
    """What a node does, in one word."""
    return _kind(node.operator)


def settings(node: Node) -> dict[str, Any]:
    """The attributes of a node that change its numbers."""
    name = kind(node)
    said = _SAID_OF.get(name, frozenset())
    found = {key: value for key, value in node.attributes.items() if key in said or key not in _UNSAID}
    if name == "transpose":
        rank = len(node.outputs[0].shape)
        dims = [node.attributes.get("dim0", 0) % max(rank, 1), node.attributes.get("dim1", 1) % max(rank, 1)]
        found["dim0"], found["dim1"] = sorted(dims)
    elif "dim" in found and isinstance(found["dim"], int) and node.outputs[0].shape:
        rank = max(len(v.shape) for v in node.outputs) + (name in ("select", "mean", "amax", "sum"))
        found["dim"] = found["dim"] % rank
    return found


def related(a: str, b: str) -> bool:
    """Whether two kinds are of one family."""
    return any(a in family and b in family for family in FAMILIES)
