"""How source for torch is spelled. See :mod:`agnostic.port.dialect`.

The source needs torch alone. Images have their channels first, and a state_dict has the source model's names.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from keyword import iskeyword
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from agnostic.files import atomic_path
from agnostic.port.code import (
    Apply,
    At,
    Attr,
    Code,
    Dim,
    Each,
    If,
    Infix,
    Listed,
    Name,
    call,
    identifier,
    literal,
    polished,
    text,
)
from agnostic.port.dialect import Attribute, Class, File, LayerNode, Testing, Unwritable
from agnostic.port.names import CONSTANT, dotted
from agnostic.port.sources import called_in
from agnostic.port.spelling import COMMON, Call, Spelling, direct, one, ones, value_at, weights_at
from agnostic.port.wrapping import wrapped
from agnostic.program.nodes import Node, Value
from agnostic.program.vocabulary import get, operand_named
from agnostic.tables import filling
from agnostic_torch.helpers import HELPERS

SPELLINGS: dict[str, Spelling] = dict(COMMON)
spells = filling(SPELLINGS)


def _name(function: str, *args: Code, **keywords: Code) -> Apply:
    return call(f"torch.{function}", *args, **keywords)


def _functional(function: str, *args: Code, **keywords: Code) -> Apply:
    return call(f"F.{function}", *args, **keywords)


def _method(x: Code, name: str, *args: Code, **keywords: Code) -> Apply:
    return call(Attr(x, name), *args, **keywords)


# Padding --------------------------------------------------------------------------------------------------------------
def _symmetric(node: Node) -> bool:
    """Whether the padding is as much on both sides, whatever the size of the image."""
    given = node.attributes
    if given.get("same") and not ones(given["stride"]):
        return False
    return all(low == high and not isinstance(low, Dim) and not isinstance(high, Dim) for low, high in given["padding"])


def _widths(padding: Sequence[tuple[int, int]]) -> tuple[int, ...]:
    """As F.pad takes them: from the last axis."""
    return tuple(int(n) for pair in reversed(padding) for n in pair)


def _padded(x: Code, node: Node, kernel: Sequence[int], value: float = 0.0) -> Code:
    """The image with the padding that a layer of torch cannot do itself."""
    given = node.attributes
    options = {"value": value} if value else {}
    if given.get("same"):
        dilation = given.get("dilation") or (1,) * len(kernel)
        if not ones(dilation):
            options["dilation"] = one(dilation)
        return call("pad_same", x, one(kernel), one(given["stride"]), **options)
    if any(isinstance(n, Dim) for pair in given["padding"] for n in pair):
        raise Unwritable("with a padding that changes with the size")
    return _functional("pad", x, _widths(given["padding"]), **options)


# Layers ---------------------------------------------------------------------------------------------------------------
def _without(constructor: Apply, node: Node, **places: int) -> Apply:
    """The layer without the weights that are not there."""
    missing = [name for name, place in places.items() if value_at(node, place) is None]
    return call("without", constructor, *missing) if missing else constructor


def _spread(node: Node) -> dict[str, Any]:
    """How a convolution moves over the image."""
    given = node.attributes
    return {
        "stride": one(given["stride"]), "dilation": one(given["dilation"]), "groups": int(given.get("groups", 1)),
    }  # fmt: skip


def _padding(node: Node) -> Any:
    """What a convolution pads by: as torch's own, or as :data:`HELPERS`' does."""
    given = node.attributes
    if _symmetric(node):
        return one(tuple(int(low) for low, _ in given["padding"]))
    if given.get("same"):
        return "same"
    if any(isinstance(n, Dim) for pair in given["padding"] for n in pair):
        raise Unwritable("with a padding that changes with the size")
    return _widths(given["padding"])


def _convolution_layer(node: Node) -> LayerNode | None:
    kernel = value_at(node, 1)
    if kernel is None or len(kernel.shape) not in (3, 4, 5):
        return None
    rank, spread = len(kernel.shape) - 2, _spread(node)
    try:
        padding = _padding(node)
    except Unwritable:
        return None
    constructor = call(
        f"Conv{rank}d", in_channels=kernel.shape[1] * spread["groups"], out_channels=kernel.shape[0],
        kernel_size=one(kernel.shape[2:]), stride=spread["stride"], padding=padding, dilation=spread["dilation"],
        groups=spread["groups"], bias=value_at(node, 2) is not None,
    )  # fmt: skip
    return LayerNode(constructor, direct, weights_at(node, weight=1, bias=2), "conv")


def _transposed_parts(node: Node) -> tuple[dict[str, Any], list[tuple[int, int]]]:
    """Options of a transposed convolution, and what is to be cut from what it gives."""
    given = node.attributes
    padding, more, cuts = [], [], []
    for (low, high), extra, s, d in zip(given["crop"], given["extra"], given["stride"], given["dilation"], strict=True):
        behind = low - high + extra  # what torch is to add behind, if it cuts as much there as in front
        if 0 <= behind < max(s, d):
            padding.append(low)
            more.append(behind)
            cuts.append((0, 0))
        elif behind < 0:
            padding.append(low)
            more.append(0)
            cuts.append((0, -behind))
        else:
            raise Unwritable("that adds more than a stride behind its result")
    spread = _spread(node)
    options = {
        "stride": spread["stride"], "padding": one(padding), "output_padding": one(more), "groups": spread["groups"],
        "dilation": spread["dilation"],
    }  # fmt: skip
    return options, cuts


def _cut(code: Code, cuts: Sequence[tuple[int, int]]) -> Code:
    if not any(map(any, cuts)):
        return code
    return At(code, Name(", ".join([":", ":"] + [f"{low or ''}:{-high if high else ''}" for low, high in cuts])))


def _transposed_layer(node: Node) -> LayerNode | None:
    kernel = value_at(node, 1)
    if kernel is None:
        return None
    rank, groups = len(kernel.shape) - 2, int(node.attributes.get("groups", 1))
    try:
        options, cuts = _transposed_parts(node)
    except Unwritable:
        return None
    constructor = call(
        f"nn.ConvTranspose{rank}d", in_channels=kernel.shape[0], out_channels=kernel.shape[1] * groups,
        kernel_size=one(kernel.shape[2:]), **options, bias=value_at(node, 2) is not None,
    )  # fmt: skip

    def apply(layer: Code, operands: Sequence[Code]) -> Code:
        return _cut(Apply(layer, (operands[0],)), cuts)

    return LayerNode(constructor, apply, weights_at(node, weight=1, bias=2), "conv")


def _linear_layer(node: Node) -> LayerNode | None:
    weight = value_at(node, 1)
    if weight is None or len(weight.shape) != 2:
        return None
    constructor = call(
        "nn.Linear", in_features=weight.shape[1], out_features=weight.shape[0], bias=value_at(node, 2) is not None,
    )  # fmt: skip
    return LayerNode(constructor, direct, weights_at(node, weight=1, bias=2), "linear")


def _batch_norm_layer(node: Node) -> LayerNode | None:
    given, mean, x = node.attributes, value_at(node, 1), value_at(node, 0)
    if mean is None or value_at(node, 2) is None or x is None or not 2 <= len(x.shape) <= 5:
        return None
    affine = value_at(node, 3) is not None or value_at(node, 4) is not None
    constructor = call(
        f"nn.BatchNorm{max(len(x.shape) - 2, 1)}d", num_features=mean.shape[0],
        eps=given["epsilon"], momentum=given.get("momentum", 0.1), affine=affine,
    )  # fmt: skip
    constructor = _without(constructor, node, weight=3, bias=4) if affine else constructor
    weights = weights_at(node, running_mean=1, running_var=2, weight=3, bias=4)
    return LayerNode(constructor, direct, weights, "norm")


def _layer_norm_layer(node: Node) -> LayerNode | None:
    scale, offset = value_at(node, 1), value_at(node, 2)
    weight = scale if scale is not None else offset
    if weight is None:
        return None
    epsilon = node.attributes["epsilon"]
    constructor = call(
        "nn.LayerNorm", normalized_shape=_sizes(weight.shape), eps=epsilon, bias=offset is not None,
    )  # fmt: skip
    constructor = _without(constructor, node, weight=1)
    return LayerNode(constructor, direct, weights_at(node, weight=1, bias=2), "norm")


def _sizes(shape: Sequence[int]) -> Any:
    return int(shape[0]) if len(shape) == 1 else tuple(map(int, shape))


def _rms_norm_layer(node: Node) -> LayerNode | None:
    scale = value_at(node, 1)
    if scale is None:
        return None
    constructor = call("nn.RMSNorm", normalized_shape=_sizes(scale.shape), eps=node.attributes["epsilon"])
    return LayerNode(constructor, direct, weights_at(node, weight=1), "norm")


def _group_norm_layer(node: Node) -> LayerNode | None:
    scale, offset = value_at(node, 1), value_at(node, 2)
    weight = scale if scale is not None else offset
    if weight is None:
        return None
    epsilon = node.attributes["epsilon"]
    constructor = call(
        "nn.GroupNorm", num_groups=int(node.attributes["groups"]), num_channels=weight.shape[0],
        eps=epsilon,
    )  # fmt: skip
    return LayerNode(_without(constructor, node, weight=1, bias=2), direct, weights_at(node, weight=1, bias=2), "norm")


def _prelu_layer(node: Node) -> LayerNode | None:
    slope = value_at(node, 1)
    if slope is None or len(slope.shape) != 1:
        return None
    constructor = call("nn.PReLU", num_parameters=slope.shape[0])
    return LayerNode(constructor, direct, weights_at(node, weight=1), "prelu")


def _embedding_layer(node: Node) -> LayerNode | None:
    table = value_at(node, 0)
    if table is None or len(table.shape) != 2 or not isinstance(node.operands[1], Value):
        return None
    constructor = call("nn.Embedding", num_embeddings=table.shape[0], embedding_dim=table.shape[1])

    def apply(layer: Code, operands: Sequence[Code]) -> Code:
        return Apply(layer, (operands[1],))

    return LayerNode(constructor, apply, weights_at(node, weight=0), "embedding")


def _dropout_layer(node: Node) -> LayerNode | None:
    rate, axes, x = node.attributes["rate"], node.attributes.get("axes"), value_at(node, 0)
    rank, noise = 0 if x is None else len(x.shape), node.attributes.get("noise", "zeros")
    if noise == "gaussian" and axes is None:
        return LayerNode(call("GaussianDropout", p=rate), direct, (), "dropout")
    if noise != "zeros" and (axes is None or tuple(axes) == (0, 1)):
        return LayerNode(call(f"nn.{'Feature' if axes else ''}AlphaDropout", p=rate), direct, (), "dropout")
    if axes is None:
        return LayerNode(call("nn.Dropout", p=rate), direct, (), "dropout")
    if tuple(axes) == (0, 1) and rank in (3, 4, 5):
        return LayerNode(call(f"nn.Dropout{rank - 2}d", p=rate), direct, (), "dropout")
    return LayerNode(call("SharedDropout", p=rate, axes=tuple(axes)), direct, (), "stochastic_depth")


def _has_mask(node: Node) -> bool:
    """Whether a recurrent operator is told which places it sees."""
    return operand_named(node, "mask") is not None


def _recurrent_layer(node: Node) -> LayerNode | None:
    given, operator = node.attributes, node.operator
    states = 2 if operator == "lstm" else 1
    kernel, recurrent = value_at(node, 1 + states), value_at(node, 2 + states)
    projection = value_at(node, 5 + states) if operator == "lstm" else None
    if kernel is None or recurrent is None or not given.get("reset_after", True):
        return None
    if given.get("function", "tanh") not in ("tanh", "relu"):
        return None
    places = {"weight_ih_l0": 1 + states, "weight_hh_l0": 2 + states, "bias_ih_l0": 3 + states,
              "bias_hh_l0": 4 + states}  # fmt: skip
    biases = [value_at(node, place) is not None for place in (3 + states, 4 + states)]
    units = len(range(recurrent.shape[0])) // {"lstm": 4, "gru": 3, "rnn": 1}[operator]
    options: dict[str, Any] = {"bias": ... if any(biases) else False}
    if projection is not None:
        options["proj_size"] = projection.shape[0]
        places["weight_hr_l0"] = 5 + states
    if given.get("function", "tanh") != "tanh":
        options["nonlinearity"] = given["function"]
    if given.get("batch_first"):
        options["batch_first"] = True
    constructor = call(f"nn.{operator.upper()}", input_size=kernel.shape[1], hidden_size=units, **options)
    if any(biases) and not all(biases):
        constructor = call("zeroed", constructor, "bias_hh_l0" if biases[0] else "bias_ih_l0")
    options = {name: given[name] for name in ("zeros", "reverse") if name in given} if _has_mask(node) else {
        "reverse": given.get("reverse", False)}  # fmt: skip
    options = {name: value for name, value in options.items() if value != get(operator).defaults[name]}

    def apply(layer: Code, operands: Sequence[Code]) -> Code:
        started = [state for state in operands[1 : 1 + states] if state is not None]
        if _has_mask(node):
            return call("recurrent_masked", layer, operands[0], operands[-1], *started, **options)
        return call("recurrent", layer, operands[0], *started, **options)

    return LayerNode(constructor, apply, weights_at(node, **places), operator)


LAYERS: Mapping[str, Callable[[Node], LayerNode | None]] = {
    "convolution": _convolution_layer,
    "transposed_convolution": _transposed_layer,
    "linear": _linear_layer,
    "batch_norm": _batch_norm_layer,
    "layer_norm": _layer_norm_layer,
    "rms_norm": _rms_norm_layer,
    "group_norm": _group_norm_layer,
    "prelu": _prelu_layer,
    "embedding": _embedding_layer,
    "dropout": _dropout_layer,
    "lstm": _recurrent_layer,
    "gru": _recurrent_layer,
    "rnn": _recurrent_layer,
}


# Products with weights that are no layer's own ------------------------------------------------------------------------
@spells("linear")
def _linear(c: Call) -> Code:
    return _functional("linear", c.x, c.operands[1], *([] if c.operand(2) is None else [c.operands[2]]))


@spells("convolution")
def _convolution(c: Call) -> Code:
    kernel = value_at(c.node, 1)
    assert kernel is not None
    inside = _symmetric(c.node)
    x = c.x if inside else _padded(c.x, c.node, kernel.shape[2:])
    options = {"bias": None if c.operand(2) is None else c.operands[2], **_spread(c.node)}
    options["padding"] = _padding(c.node) if inside else 0
    rank = len(kernel.shape) - 2
    options = {name: value for name, value in options.items() if not _is_default(f"Conv{rank}d", name, value)}
    return _functional(f"conv{rank}d", x, c.operands[1], **options)


@spells("transposed_convolution")
def _transposed(c: Call) -> Code:
    options, cuts = _transposed_parts(c.node)
    options = {"bias": None if c.operand(2) is None else c.operands[2], **options}
    rank = len(c.shape(1)) - 2
    options = {name: value for name, value in options.items() if not _is_default(f"ConvTranspose{rank}d", name, value)}
    return _cut(_functional(f"conv_transpose{rank}d", c.x, c.operands[1], **options), cuts)


@spells("embedding")
def _embedding(c: Call) -> Code:
    if len(c.shape(0)) != 2:
        return call("take", c.x, c.operands[1], 0)
    return _functional("embedding", c.operands[1], c.x)


def _affine(c: Call, first: int) -> dict[str, Code]:
    names = {"weight": c.operand(first), "bias": c.operand(first + 1)}
    return {name: code for name, code in names.items() if code is not None}


@spells("batch_norm")
def _batch_norm(c: Call) -> Code:
    return _functional(
        "batch_norm", c.x, c.operands[1], c.operands[2], **_affine(c, 3), training=Name("self.training"),
        momentum=c.get("momentum", 0.1), eps=c["epsilon"],
    )  # fmt: skip


@spells("batch_norm_training")
def _batch_norm_training(c: Call) -> Code:
    return _functional("batch_norm", c.x, None, None, **_affine(c, 1), training=True, eps=c["epsilon"])


@spells("layer_norm")
def _layer_norm(c: Call) -> Code:
    shape = tuple(int(n) for n in c.shape()[-len(c["axes"]) :])
    return _functional("layer_norm", c.x, shape, **_affine(c, 1), eps=c["epsilon"])


@spells("rms_norm")
def _rms_norm(c: Call) -> Code:
    shape = tuple(int(n) for n in c.shape()[-len(c["axes"]) :])
    weight = {} if c.operand(1) is None else {"weight": c.operands[1]}
    return _functional("rms_norm", c.x, shape, **weight, eps=c["epsilon"])


@spells("group_norm")
def _group_norm(c: Call) -> Code:
    return _functional("group_norm", c.x, int(c["groups"]), **_affine(c, 1), eps=c["epsilon"])


@spells("prelu")
def _prelu(c: Call) -> Code:
    return _functional("prelu", c.x, c.operands[1])


# Activations ----------------------------------------------------------------------------------------------------------
_PLAIN = {
    "relu": "F.relu", "relu6": "F.relu6", "selu": "F.selu", "silu": "F.silu", "sigmoid": "torch.sigmoid",
    "tanh": "torch.tanh", "log_sigmoid": "F.logsigmoid", "hard_sigmoid": "F.hardsigmoid", "hard_silu": "F.hardswish",
    "mish": "F.mish", "softsign": "F.softsign", "tanh_shrink": "F.tanhshrink", "exponential": "torch.exp",
    "gelu": "F.gelu", "softplus": "F.softplus", "square": "torch.square", "absolute": "torch.abs",
}  # fmt: skip
_OPTIONS: dict[str, tuple[str, dict[str, str], dict[str, Any]]] = {
    "leaky_relu": ("F.leaky_relu", {"negative_slope": "negative_slope"}, {"negative_slope": 0.01}),
    "elu": ("F.elu", {"alpha": "alpha"}, {"alpha": 1.0}),
    "celu": ("F.celu", {"alpha": "alpha"}, {"alpha": 1.0}),
    "hard_tanh": ("F.hardtanh", {"low": "min_val", "high": "max_val"}, {"low": -1.0, "high": 1.0}),
    "soft_shrink": ("F.softshrink", {"threshold": "lambd"}, {"threshold": 0.5}),
    "hard_shrink": ("F.hardshrink", {"threshold": "lambd"}, {"threshold": 0.5}),
    "threshold": ("F.threshold", {"threshold": "threshold", "value": "value"}, {}),
    "glu": ("F.glu", {"axis": "dim"}, {"axis": -1}),
    "softmax": ("F.softmax", {"axis": "dim"}, {}),
    "softplus": ("F.softplus", {"beta": "beta", "threshold": "threshold"}, {"beta": 1.0, "threshold": 20.0}),
}


@spells("activation")
def _activation(c: Call) -> Code:
    function = c["function"]
    options = {name: value for name, value in c.node.attributes.items() if name != "function"}
    if function == "linear":
        return c.x
    if function in _PLAIN and not options:
        return call(_PLAIN[function], c.x)
    if function in _OPTIONS:
        name, names, defaults = _OPTIONS[function]
        if function in ("softmax", "glu"):
            options.setdefault("axis", -1)
        given = {names[n]: v for n, v in options.items() if n in names and v is not None and v != defaults.get(n)}
        return call(name, c.x, **given)
    if function == "gelu_tanh":
        return _functional("gelu", c.x, approximate="tanh")
    if function == "quick_gelu":
        return Infix("*", c.x, _name("sigmoid", Infix("*", c.x, 1.702)))
    if function == "sparse_sigmoid":
        return _name("clamp", Infix("*", Infix("+", c.x, 1), 0.5), 0, 1)
    if function == "sparse_plus":
        middle = Infix("*", _name("square", Infix("+", c.x, 1)), 0.25)
        return _name("where", Infix("<=", c.x, -1), 0.0, _name("where", Infix(">=", c.x, 1), c.x, middle))
    if function == "squareplus":
        root = _name("sqrt", Infix("+", Infix("*", c.x, c.x), options.get("b", 4.0)))
        return Infix("/", Infix("+", c.x, root), 2)
    raise Unwritable(f"of function {function!r} has no spelling in torch")


@spells("softmax", "log_softmax")
def _softmax(c: Call) -> Code:
    axis = c["axis"] - c.rank if c["axis"] == c.rank - 1 else c["axis"]
    return _functional(c.node.operator, c.x, dim=axis)


# Pooling and resizing -------------------------------------------------------------------------------------------------
def _pooled(c: Call, function: str, x: Code, padding: Any, **options: Any) -> Code:
    rank = len(c["kernel"])
    stride = ... if tuple(c["stride"]) == tuple(c["kernel"]) else one(c["stride"])
    return _functional(f"{function}{rank}d", x, kernel_size=one(c["kernel"]), stride=stride, padding=padding, **options)


def _half(c: Call) -> bool:
    """Whether torch's pools can pad so: as much on both sides, half a window at most."""
    return _symmetric(c.node) and all(low <= k // 2 for (low, _), k in zip(c["padding"], c["kernel"], strict=True))


@spells("max_pool", "max_pool_places")
def _max_pool(c: Call) -> Code:
    options = {
        "return_indices": True if c.node.operator == "max_pool_places" else ...,
        "dilation": ... if ones(c["dilation"]) else one(c["dilation"]),
        "ceil_mode": True if c.get("ceil_mode") else ...,
    }
    if not _half(c):
        return _pooled(c, "max_pool", _padded(c.x, c.node, c["kernel"], -math.inf), ..., **options)
    padding = tuple(low for low, _ in c["padding"])
    return _pooled(c, "max_pool", c.x, one(padding) if any(padding) else ..., **options)


@spells("average_pool")
def _average_pool(c: Call) -> Code:
    counted, divisor = c.get("count_padding", True), c.get("divisor")
    options = {
        "ceil_mode": True if c.get("ceil_mode") else ...,
        "divisor_override": ... if divisor is None else divisor,
    }
    if not _half(c):
        if counted or divisor is not None:
            return _pooled(c, "avg_pool", _padded(c.x, c.node, c["kernel"]), ..., **options)
        if c.get("ceil_mode"):
            raise Unwritable("with ceil_mode and another padding on each side has no spelling in torch")
        around = {} if c.get("same") else {"padding": tuple(map(tuple, c["padding"]))}
        return call("average_pool", c.x, one(c["kernel"]), one(c["stride"]), **around)
    padding = tuple(low for low, _ in c["padding"])
    if any(padding) and not counted:
        options["count_include_pad"] = False
    return _pooled(c, "avg_pool", c.x, one(padding) if any(padding) else ..., **options)


@spells("adaptive_average_pool", "adaptive_max_pool")
def _adaptive(c: Call) -> Code:
    word = "avg" if "average" in c.node.operator else "max"
    return _functional(f"adaptive_{word}_pool{len(c['sizes'])}d", c.x, one(c["sizes"]))


@spells("resize")
def _resize(c: Call) -> Code:
    method, scales, sizes = c["method"], c.get("scales"), tuple(c["sizes"])
    before = c.shape()[2:]
    linear = ("linear", "bilinear", "trilinear")[len(sizes) - 1]
    modes = {"nearest": "nearest", "bilinear": linear, "bicubic": "bicubic", "area": "area"}
    keys = method == "bicubic" and c.get("cubic", -0.75) == -0.5 and c.get("edges") == "renormalize"
    if (keys and not c.get("antialias")) or method in ("lanczos3", "lanczos5"):
        return call("resize", c.x, sizes, method, **({"antialias": True} if c.get("antialias") else {}))
    if method not in modes or (method == "bicubic" and c.get("cubic", -0.75) != -0.75 and not keys):
        raise Unwritable(f"of method {method!r} has no spelling in torch")
    options: dict[str, Any] = {}
    mode = modes[method]
    if method == "nearest" and c.get("half_pixel", True):
        mode = "nearest-exact"
    if c.get("align_corners"):
        options["align_corners"] = True
    grows = all(n >= m for n, m in zip(sizes, before, strict=True))
    if c.get("antialias") and not (method == "bilinear" and grows):
        options["antialias"] = True
    # By how much, where that was given: a size would hold for one size of the image.
    given = scales is not None and all(s is not None for s in scales)
    where = {"scale_factor": one(scales)} if given else {"size": sizes}
    return _functional("interpolate", c.x, **where, mode=mode, **options)


# What moves numbers ---------------------------------------------------------------------------------------------------
@spells("reshape")
def _reshape(c: Call) -> Code:
    out = c.node.outputs[0].shape
    if len(out) == 2 and c.rank > 2 and out[0] == c.shape()[0]:
        return _method(c.x, "flatten", 1)
    return _method(c.x, "reshape", tuple(c["shape"]))


@spells("permute")
def _permute(c: Call) -> Code:
    axes = tuple(c["axes"])
    moved = [i for i, axis in enumerate(axes) if i != axis]
    if len(moved) == 2:
        return _method(c.x, "transpose", *moved)
    return _method(c.x, "permute", axes)


@spells("expand")
def _expand(c: Call) -> Code:
    return _method(c.x, "expand", tuple(c["shape"]))


@spells("concatenate")
def _concatenate(c: Call) -> Code:
    return _name("cat", Listed(tuple(c.x)), dim=c["axis"])


@spells("stack")
def _stack(c: Call) -> Code:
    return _name("stack", Listed(tuple(c.x)), dim=c["axis"])


@spells("pad")
def _pad(c: Call) -> Code:
    widths, mode, value = [tuple(w) for w in c["widths"]], c.get("mode", "constant"), c.get("value", 0.0)
    if any(isinstance(n, Dim) for pair in widths for n in pair):
        raise Unwritable("by widths that change with the size")
    first = next((i for i, pair in enumerate(widths) if any(pair)), len(widths) - 1)
    if mode == "constant":
        return _functional("pad", c.x, _widths(widths[first:]), **({"value": value} if value else {}))
    if first >= 2 and len(widths) - 2 <= 3 and all(n >= 0 for pair in widths for n in pair):
        return _functional("pad", c.x, _widths(widths[2:]), mode=mode)
    return call("pad", c.x, tuple(widths), mode)


@spells("roll")
def _roll(c: Call) -> Code:
    return _name("roll", c.x, _one_of(c["shifts"]), dims=_one_of(c["axes"]))


def _one_of(numbers: Sequence[Any]) -> Any:
    return numbers[0] if len(numbers) == 1 else tuple(numbers)


@spells("flip")
def _flip(c: Call) -> Code:
    return _name("flip", c.x, tuple(c["axes"]))


@spells("tile")
def _tile(c: Call) -> Code:
    return _name("tile", c.x, tuple(c["counts"]))


@spells("repeat")
def _repeat(c: Call) -> Code:
    return _name("repeat_interleave", c.x, c["count"], dim=c["axis"])


@spells("triangle")
def _triangle(c: Call) -> Code:
    diagonal = {"diagonal": c["diagonal"]} if c.get("diagonal") else {}
    return _name("triu" if c.get("upper") else "tril", c.x, **diagonal)


@spells("unfold")
def _unfold(c: Call) -> Code:
    return _method(c.x, "unfold", int(c["axis"]), int(c["length"]), int(c["step"]))


@spells("patches")
def _patches(c: Call) -> Code:
    options = {name: one(c[name]) for name in ("dilation", "padding", "stride")}
    return _functional("unfold", c.x, one(c["kernel"]), **options)


@spells("overlap_add")
def _overlap_add(c: Call) -> Code:
    options = {name: one(c[name]) for name in ("dilation", "padding", "stride")}
    return _functional("fold", c.x, tuple(c["sizes"]), one(c["kernel"]), **options)


def _dtype(name: str) -> Name:
    return Name(f"torch.{name}")


@spells("cast")
def _cast(c: Call) -> Code:
    return _method(c.x, "to", _dtype(c["dtype"]))


MAKERS = {f"torch.{name}" for name in ("full", "ones", "zeros", "arange", "linspace", "eye")}
"""Functions that make an array of numbers alone."""


@spells("full")
def _full(c: Call) -> Code:
    shape, options = tuple(c["shape"]), {"dtype": _dtype(c["dtype"])}
    if type(c.x) in (bool, int, float) and c.x in (0, 1):
        return _name("ones" if c.x else "zeros", shape, **options)
    return _name("full", shape, c.x, **options)


@spells("arange")
def _arange(c: Call) -> Code:
    start, stop, step = (*c.operands, 1)[:3]
    given = (stop,) if type(start) is type(step) is int and (start, step) == (0, 1) else (start, stop, step)
    return _name("arange", *given, dtype=_dtype(c["dtype"]))


@spells("linspace")
def _linspace(c: Call) -> Code:
    return _name("linspace", *c.operands, c["count"], dtype=_dtype(c["dtype"]))


@spells("eye")
def _eye(c: Call) -> Code:
    return _name("eye", c["rows"], c["columns"], dtype=_dtype(c["dtype"]))


# Reductions -----------------------------------------------------------------------------------------------------------
def _axis(c: Call) -> dict[str, Any]:
    axes = c.get("axes")
    found: dict[str, Any] = {}
    if axes is not None:
        found["dim"] = axes[0] if len(axes) == 1 else tuple(axes)
    if c.get("keep", False):
        found["dim"] = found.get("dim", tuple(range(c.rank)))
        found["keepdim"] = True
    return found


_REDUCTIONS = {"sum": "sum", "mean": "mean", "max": "amax", "min": "amin", "any": "any", "all": "all",
               "logsumexp": "logsumexp"}  # fmt: skip


@spells("reduce")
def _reduce(c: Call) -> Code:
    function = c["function"]
    options = _axis(c)
    if function == "product":
        code = c.x
        for axis in sorted((a % c.rank for a in c.get("axes") or range(c.rank)), reverse=True):
            code = _name("prod", code, dim=axis, **({"keepdim": True} if c.get("keep") else {}))
        return code
    if function not in _REDUCTIONS:
        raise Unwritable(f"of function {function!r} has no spelling in torch")
    if function in ("max", "min", "logsumexp") and "dim" not in options:
        options = {"dim": tuple(range(c.rank))}
    return _method(c.x, _REDUCTIONS[function], **options)


@spells("variance")
def _variance(c: Call) -> Code:
    options = _axis(c)
    options.setdefault("dim", tuple(range(c.rank)))
    return _name("std" if c.get("root") else "var", c.x, correction=int(c.get("correction", 0)), **options)


@spells("norm")
def _norm(c: Call) -> Code:
    order = {"ord": c["order"]} if c.get("order", 2) != 2 else {}
    return _name("linalg.vector_norm", c.x, **order, **_axis(c))


@spells("argmax", "argmin")
def _place(c: Call) -> Code:
    return _name(c.node.operator, c.x, dim=c.get("axis"), **({"keepdim": True} if c.get("keep") else {}))


@spells("cumulative")
def _cumulative(c: Call) -> Code:
    function = {"sum": "cumsum", "product": "cumprod", "max": "cummax", "min": "cummin"}[c.get("function", "sum")]
    code = _name(function, c.x, dim=c["axis"])
    return At(code, 0) if function in ("cummax", "cummin") else code


@spells("top")
def _top(c: Call) -> Code:
    axis, largest = c.get("axis", -1) % c.rank, c.get("largest", True)
    if c["count"] == c.shape()[axis]:
        return _name("sort", c.x, dim=axis, descending=bool(largest), stable=True)
    return _name("topk", c.x, c["count"], dim=axis, largest=bool(largest))


# Element by element ---------------------------------------------------------------------------------------------------
_SIGNS = {"add": "+", "subtract": "-", "multiply": "*", "divide": "/", "power": "**"}


@spells(*_SIGNS)
def _arithmetic(c: Call) -> Code:
    return Infix(_SIGNS[c.node.operator], c.x, c.operands[1])


@spells("maximum", "minimum")
def _larger(c: Call) -> Code:
    a, b = c.x, c.operands[1]
    for number, code in ((a, b), (b, a)):
        if isinstance(number, int | float):
            return _name("clamp", code, **{"min" if c.node.operator == "maximum" else "max": number})
    return _name(c.node.operator, a, b)


def _array(code: Code) -> Code:
    """A number as an array, where torch wants one."""
    return _name("tensor", code) if isinstance(code, bool | int | float) else code


@spells("where")
def _where(c: Call) -> Code:
    return _name("where", _array(c.x), *c.operands[1:])


@spells("clip")
def _clip(c: Call) -> Code:
    bounds = {"min": c.operand(1), "max": c.operand(2)}
    return _name("clamp", c.x, **{name: bound for name, bound in bounds.items() if bound is not None})


_UNARY = {
    "stop_gradient": "detach", "negative": "neg", "absolute": "abs", "sign": "sign", "exp": "exp", "expm1": "expm1",
    "log": "log",
    "log2": "log2", "log10": "log10", "log1p": "log1p", "sqrt": "sqrt", "rsqrt": "rsqrt", "reciprocal": "reciprocal",
    "square": "square", "sin": "sin", "cos": "cos", "tan": "tan", "asin": "asin", "acos": "acos", "atan": "atan",
    "sinh": "sinh", "cosh": "cosh", "asinh": "asinh", "acosh": "acosh", "atanh": "atanh", "erf": "erf",
    "floor": "floor", "ceil": "ceil", "round": "round", "truncate": "trunc", "not": "logical_not", "is_nan": "isnan",
    "is_infinite": "isinf", "is_finite": "isfinite", "exp2": "exp2", "fraction": "frac",
    "erfinv": "erfinv", "i0": "i0", "real": "real", "imaginary": "imag", "conjugate": "conj_physical", "angle": "angle",
}  # fmt: skip


@spells("unary")
def _unary(c: Call) -> Code:
    if c["function"] not in _UNARY:
        raise Unwritable(f"of function {c['function']!r} has no spelling in torch")
    return _name(_UNARY[c["function"]], c.x)


_COMPARED = {"equal": "==", "not_equal": "!=", "less": "<", "less_equal": "<=", "greater": ">", "greater_equal": ">="}
_BINARY = {
    "and": "logical_and", "or": "logical_or", "xor": "logical_xor", "bit_and": "bitwise_and", "bit_or": "bitwise_or",
    "bit_xor": "bitwise_xor", "atan2": "atan2", "floor_divide": "floor_divide", "remainder": "remainder",
    "fmod": "fmod", "gcd": "gcd", "lcm": "lcm", "next_after": "nextafter",
}  # fmt: skip


@spells("binary")
def _binary(c: Call) -> Code:
    function = c["function"]
    if function in _COMPARED:
        return Infix(_COMPARED[function], c.x, c.operands[1])
    a, b = _array(c.x), c.operands[1]
    b = _array(b) if function in ("and", "or", "xor", "atan2") else b
    if function == "truncated_divide":
        return _name("div", a, b, rounding_mode="trunc")
    if function not in _BINARY:
        raise Unwritable(f"of function {function!r} has no spelling in torch")
    return _name(_BINARY[function], a, b)


# Products -------------------------------------------------------------------------------------------------------------
@spells("matmul")
def _matmul(c: Call) -> Code:
    return Infix("@", c.x, c.operands[1])


@spells("einsum")
def _einsum(c: Call) -> Code:
    return _name("einsum", c["equation"], *c.x)


@spells("outer")
def _outer(c: Call) -> Code:
    if c.rank == len(c.shape(1)) == 1:
        return _name("outer", c.x, c.operands[1])
    return _name("tensordot", c.x, c.operands[1], dims=0)


@spells("attention")
def _attention(c: Call) -> Code:
    options: dict[str, Any] = {}
    if c.operand(3) is not None:
        options["attn_mask"] = c.operands[3]
    if c.get("causal"):
        options["is_causal"] = True
    if c.get("scale") is not None and not math.isclose(c["scale"], c.shape(0)[-1] ** -0.5, rel_tol=1e-9):
        options["scale"] = c["scale"]
    if c.get("shared_heads"):
        options["enable_gqa"] = True
    if c.get("place_axis", -2) == -3:
        return call("attention", *c.operands[:3], **options)
    return _functional("scaled_dot_product_attention", *c.operands[:3], **options)


# Places ---------------------------------------------------------------------------------------------------------------
@spells("take")
def _take(c: Call) -> Code:
    if len(c.shape(1)) == 1:
        return _name("index_select", c.x, c["axis"], c.operands[1])
    return call("take", c.x, c.operands[1], c["axis"])


def _long(code: Code, value: Any) -> Code:
    """Places as torch wants them in most functions: of 64 bits."""
    return code if isinstance(value, Value) and value.dtype == "int64" else _method(code, "long")


@spells("gather")
def _gather(c: Call) -> Code:
    return _name("gather", c.x, c["axis"], _long(c.operands[1], c.node.operands[1]))


@spells("index")
def _index(c: Call) -> Code:
    parts = tuple(Name("slice(None)") if index is None else index for index in c.operands[1])
    return At(c.x, parts[0] if len(parts) == 1 else parts)


@spells("write")
def _write(c: Call) -> Code:
    indices = c.operands[1]
    if any(index is None for index in indices):
        raise Unwritable("along some axes alone has no spelling in torch yet")
    accumulate = {"accumulate": True} if c.get("accumulate") else {}
    value = c.operands[2] if isinstance(c.node.operands[2], Value) else _name("full_like", c.x, c.operands[2])
    return _name("index_put", c.x, tuple(indices), value, **accumulate)


@spells("scatter")
def _scatter(c: Call) -> Code:
    places = _long(c.operands[1], c.node.operands[1])
    function = c.get("function", "sum")
    if c.get("accumulate") and function != "sum":
        reduce = {"product": "prod", "max": "amax", "min": "amin"}[function]
        return _name("scatter_reduce", c.x, c["axis"], places, c.operands[2], reduce)
    return _name("scatter_add" if c.get("accumulate") else "scatter", c.x, c["axis"], places, c.operands[2])


@spells("one_hot")
def _one_hot(c: Call) -> Code:
    return _functional("one_hot", _long(c.x, c.node.operands[0]), c["classes"])


# Recurrent layers whose weights are no layer's own --------------------------------------------------------------------
@spells("lstm", "gru", "rnn")
def _recurrent(c: Call) -> Code:
    operator = get(c.node.operator)
    operands = dict(zip(operator.operands, c.operands, strict=False))
    if _has_mask(c.node) and operands.get("projection") is not None:
        raise Unwritable("with a mask and a projection of weights that are shared has no spelling in torch")
    options = {name: x for name, x in c.node.attributes.items() if x != operator.defaults[name]}
    mask = {"mask": operands.pop("mask")} if _has_mask(c.node) else {}
    return call(c.node.operator, *operands.values(), **mask, **options)


@spells("sample")
def _sample(c: Call) -> Code:
    return _functional(
        "grid_sample", c.x, c.operands[1], mode=c.get("method", "bilinear"), padding_mode=c.get("fill", "zeros"),
        align_corners=bool(c.get("align_corners", False)),
    )  # fmt: skip


# Matrices -------------------------------------------------------------------------------------------------------------
_MATRICES: dict[str, tuple[str, dict[str, str]]] = {
    "inverse": ("inv", {}), "determinant": ("det", {}), "cholesky": ("cholesky", {"upper": "upper"}),
    "solve": ("solve", {}), "log_determinant": ("slogdet", {}), "svd": ("svd", {"full": "full_matrices"}),
    "eigh": ("eigh", {}),
}  # fmt: skip
"""Functions of ``torch.linalg``, and the names of the options, all of which are given."""


@spells(*_MATRICES)
def _matrices(c: Call) -> Code:
    function, names = _MATRICES[c.node.operator]
    options = {theirs: bool(c.get(ours, False)) for ours, theirs in names.items()}
    return _name(f"linalg.{function}", *c.operands, **options)


@spells("qr")
def _qr(c: Call) -> Code:
    return _name("linalg.qr", c.x, **({"mode": "complete"} if c.get("complete") else {}))


@spells("triangular_solve")
def _triangular_solve(c: Call) -> Code:
    upper = {"upper": not c.get("lower", False)}
    if len(c.shape(1)) > 1:
        return _name("linalg.solve_triangular", c.x, c.operands[1], **upper)
    columns = At(c.operands[1], (Name("..."), None))
    return At(_name("linalg.solve_triangular", c.x, columns, **upper), (Name("..."), 0))


@spells("lu")
def _lu(c: Call) -> Code:
    return call("lu", c.x)


# Complex numbers ------------------------------------------------------------------------------------------------------
@spells("as_complex")
def _as_complex(c: Call) -> Code:
    return _name("view_as_complex", _method(c.x, "contiguous"))


@spells("as_real")
def _as_real(c: Call) -> Code:
    return _name("view_as_real", c.x)


@spells("fourier")
def _fourier(c: Call) -> Code:
    inverse, half, axes = c.get("inverse"), c.get("half"), tuple(c["axes"])
    options: dict[str, Any] = {"dim": axes}
    if c.get("norm", "backward") != "backward":
        options["norm"] = c["norm"]
    if half and inverse and c.get("length"):
        options["s"] = (*(int(c.shape()[a]) for a in axes[:-1]), int(c["length"]))
    return _name(f"fft.{'i' if inverse else ''}{'r' if half else ''}fftn", c.x, **options)


# The dialect ----------------------------------------------------------------------------------------------------------
RESERVED = frozenset({
    "T_destination", "add_module", "apply", "bfloat16", "buffers", "call_super_init", "children", "compile", "cpu",
    "cuda", "double", "dump_patches", "eval", "extra_repr", "float", "forward", "get_buffer", "get_extra_state",
    "get_parameter", "get_submodule", "half", "ipu", "load_state_dict", "modules", "mtia", "named_buffers",
    "named_children", "named_modules", "named_parameters", "parameters", "register_backward_hook", "register_buffer",
    "register_forward_hook", "register_forward_pre_hook", "register_full_backward_hook",
    "register_full_backward_pre_hook", "register_load_state_dict_post_hook", "register_load_state_dict_pre_hook",
    "register_module", "register_parameter", "register_state_dict_post_hook", "register_state_dict_pre_hook",
    "requires_grad_", "set_extra_state", "set_submodule", "share_memory", "state_dict", "to", "to_empty", "train",
    "type", "xpu", "zero_grad", "training", "torch", "nn", "F", "self", "json", "Path", "WEIGHTS",
})  # fmt: skip
"""What modules of torch have as attributes, and what the source itself names."""

_ACTIVATIONS = {
    "relu": "ReLU", "relu6": "ReLU6", "selu": "SELU", "silu": "SiLU", "sigmoid": "Sigmoid", "tanh": "Tanh",
    "log_sigmoid": "LogSigmoid", "hard_sigmoid": "Hardsigmoid", "hard_silu": "Hardswish", "mish": "Mish",
    "softsign": "Softsign", "tanh_shrink": "Tanhshrink", "gelu": "GELU", "softplus": "Softplus",
}  # fmt: skip


class TorchDialect:
    """Source for torch, channels first."""

    name = "torch"
    channels = 1
    reserved = RESERVED
    modules = frozenset(("torch", "nn", "F", "json"))
    lists = False
    holds_weights = True
    helpers: Mapping[str, str] = HELPERS
    testing = Testing(
        imports="import torch", native="torch.from_numpy({})", numpy="{}.detach().numpy()", call="model(*inputs)"
    )

    def expression(self, node: Node, operands: Sequence[Code]) -> Code:
        """See :meth:`agnostic.port.dialect.Dialect.expression`."""
        spelling = SPELLINGS.get(node.operator)
        if spelling is None:
            raise Unwritable("has no spelling in torch yet")
        return spelling(Call(node, operands))

    def layer(self, node: Node) -> LayerNode | None:
        """See :meth:`agnostic.port.dialect.Dialect.layer`."""
        found = LAYERS.get(node.operator)
        return None if found is None else found(node)

    def as_layer(self, node: Node) -> Code | None:
        """See :meth:`agnostic.port.dialect.Dialect.as_layer`."""
        given, operator = dict(node.attributes), node.operator
        if operator == "activation":
            function = given.pop("function")
            if function == "gelu_tanh":
                return call("nn.GELU", approximate="tanh")
            if function == "leaky_relu":
                return call("nn.LeakyReLU", given.get("negative_slope", 0.01))
            if function not in _ACTIVATIONS or any(value is not None for value in given.values()):
                return None
            return call(f"nn.{_ACTIVATIONS[function]}")
        if operator in ("max_pool", "average_pool", "adaptive_average_pool", "adaptive_max_pool", "reshape"):
            return _as_layer(SPELLINGS[operator](Call(node, [Name("x")])))
        return None

    def layer_path(self, path: str) -> str:
        """See :meth:`agnostic.port.dialect.Dialect.layer_path`."""
        return ".".join(map(_free, path.split("/")))

    def named(self, constructor: Code, name: Code) -> Code:
        """A pair, which :meth:`stacked` takes apart; the name is no number of the layer's that may differ."""
        return (Name(literal(name)) if isinstance(name, str) else name, constructor)

    def stacked(self, layers: Sequence[Code]) -> Code:
        """See :meth:`agnostic.port.dialect.Dialect.stacked`."""
        place, plain = 0, True
        for layer in layers:
            name, count = (layer.code[0], _count_of(layer)) if isinstance(layer, Each) else (layer[0], 1)
            numbered = (
                name == Name("str(i)") and layer.start == place
                if isinstance(layer, Each)
                else name == Name(literal(str(place)))
            )
            plain, place = plain and numbered, place + count
        if plain:
            return Apply(Name("nn.Sequential"), tuple(
                Each(layer.code[1], layer.variable, layer.start, layer.stop) if isinstance(layer, Each) else layer[1]
                for layer in layers
            ))  # fmt: skip
        names = [None if isinstance(layer, Each) else layer[0].text[1:-1] for layer in layers]
        if all(name is not None and re.fullmatch(r"[A-Za-z_]\w*", name) and not iskeyword(name) for name in names):
            pairs = zip(names, (layer[1] for layer in layers), strict=True)
            return call("nn.Sequential", Apply(Name("OrderedDict"), (), tuple(pairs)))  # type: ignore[arg-type]
        return call("nn.Sequential", call("OrderedDict", Listed(tuple(layers))))

    def unstacked(self, array: Code, axis: int) -> Code:
        """See :meth:`agnostic.port.dialect.Dialect.unstacked`."""
        return call(Attr(array, "unbind"), axis)

    def split(self, array: Code, count: int, axis: int) -> Code:
        """See :meth:`agnostic.port.dialect.Dialect.split`."""
        return call(Attr(array, "chunk"), count, axis)

    def shape(self, array: Code) -> Code:
        """See :meth:`agnostic.port.dialect.Dialect.shape`."""
        return Attr(array, "shape")

    def beside(self, code: Code, array: Code) -> Code:
        """See :meth:`agnostic.port.dialect.Dialect.beside`."""
        made = isinstance(code, Apply) and isinstance(code.function, Name) and code.function.text in MAKERS
        return replace(code, keywords=(*code.keywords, ("device", Attr(array, "device")))) if made else code

    def file(self, file: File) -> str:
        """See :meth:`agnostic.port.dialect.Dialect.file`."""
        classes = [line for written in file.classes for line in ("", *_class(written), "")]
        body = "\n".join(classes)
        helpers = called_in(HELPERS, body, *file.functions, "read_weights")
        lines = [f'"""{file.doc}"""', "", "import json"]
        lines += ["from collections import OrderedDict"] if "OrderedDict(" in body else []
        lines += ["from pathlib import Path", "", "import torch", "from torch import nn"]
        used = "\n".join([body, *file.functions, *(HELPERS[name] for name in helpers)])
        lines += ["from torch.nn import functional as F"] if re.search(r"\bF\.", used) else []
        for helper in helpers:
            lines += ["", "", HELPERS[helper].strip()]
        for function in file.functions:
            lines += ["", "", function]
        lines += ["", *classes, "", *_make_model(file)]
        return wrapped("\n".join(lines) + "\n")


def _count_of(each: Each) -> Any:
    """How many layers a loop makes, which its end says as that many more than its start, or where it starts at 0."""
    return each.stop.left if isinstance(each.stop, Infix) else each.stop if each.start == 0 else each.stop - each.start


_LAYERS = {"avg_pool": "AvgPool", "max_pool": "MaxPool", "adaptive_avg_pool": "AdaptiveAvgPool",
           "adaptive_max_pool": "AdaptiveMaxPool"}  # fmt: skip


def _as_layer(code: Code) -> Code | None:
    """The layer that does what a call of a function of x does; None where torch has none."""
    if code == _method(Name("x"), "flatten", 1):
        return call("nn.Flatten")
    if not isinstance(code, Apply) or not isinstance(code.function, Name) or code.args[:1] != (Name("x"),):
        return None
    found = re.fullmatch(r"F\.(\w+_pool)(\d)d", code.function.text)
    if found is None:
        return None
    return Apply(Name(f"nn.{_LAYERS[found[1]]}{found[2]}d"), code.args[1:], code.keywords)


DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    r"Conv(Transpose)?\dd": {"stride": 1, "padding": 0, "dilation": 1, "groups": 1, "bias": True, "output_padding": 0},
    r"(Avg|Max)Pool\dd": {"padding": 0, "dilation": 1},
    r"(Batch|Group|Layer)Norm(\dd)?": {"eps": 1e-5, "momentum": 0.1, "affine": True, "bias": True},
    r"InstanceNorm\dd": {"eps": 1e-5, "momentum": 0.1},
    r"Linear|Bilinear|MultiheadAttention|(LSTM|GRU|RNN)(Cell)?": {"bias": True},
}
"""By a pattern of the names of layers: their arguments that need not be written where they have these values."""

LEADING = ("in_channels", "out_channels", "in_features", "out_features", "num_features", "num_groups", "num_channels",
           "num_embeddings", "embedding_dim", "normalized_shape", "p", "num_parameters")  # fmt: skip
"""Arguments of layers that are written without their names, in this order."""


def _is_default(called: str, name: str, value: Code) -> bool:
    """Whether an argument of a layer has the value that it has anyway; a function has no bias where a layer has one."""
    kind = called.rpartition(".")[2]
    known = next((own.get(name, ...) for pattern, own in DEFAULTS.items() if re.fullmatch(pattern, kind)), ...)
    return (name == "bias" and value is None) or (type(known) is type(value) and known == value)


def _polished(code: Code) -> Code:
    return polished(
        code, lambda called: called.startswith("nn.") or _is_convolution(called), LEADING, _is_default, _own
    )


def _is_convolution(called: str) -> bool:
    """Whether a helper stands for a convolution of torch's."""
    return re.fullmatch(r"Conv\dd", called) is not None


def _own(called: str, keywords: Mapping[str, Code]) -> str:
    """The layer of torch in place of the helper, where it does."""
    itself = _is_convolution(called) and _pads_itself(keywords.get("padding", 0), int(called[-2]))
    return f"nn.{called}" if itself else called


def _pads_itself(padding: Code, rank: int) -> bool:
    """Whether torch's own convolution pads so: by a number, or one for each axis."""
    if isinstance(padding, tuple):
        return len(padding) == rank and all(type(n) is int for n in padding)
    return type(padding) is int


def _class(written: Class) -> list[str]:
    attributes = [a if a.leaf is not None else replace(a, code=_polished(a.code)) for a in written.attributes]
    written = replace(written, attributes=attributes, stack=_polished(written.stack))
    given = "".join(f", {n}" if d is ... else f", {n}={text(d, str)}" for n, d in written.parameters)
    base = "nn.Module" if written.stack is None else "nn.Sequential"
    lines = [f"class {written.name}({base}):" + (f"  # {written.doc}" if written.doc else "")]
    if written.stack is not None:
        made = ", ".join(text(part, str) for part in written.stack.args)
        return [*lines, f"    def __init__(self{given}):", f"        super().__init__({made})"]
    lists = _lists(written.attributes)
    places = {id(a): f"self.{name}[{n}]" for name, held in lists.items() for n, a in enumerate(held)}
    if written.attributes or given:
        lines += [f"    def __init__(self{given}):", "        super().__init__()"]
        for a in written.attributes:
            name = _key(a).partition(".")[0]
            if id(a) not in places:
                lines += [f"        {line}" for line in _lines_of(a)]
            elif a is lists[name][0]:
                listed = Listed(tuple(_repeated([held.code for held in lists[name]])))
                lines.append(f"        self.{name} = nn.ModuleList({text(listed, str)})")
        lines.append("")
    lines.append(f"    def forward({', '.join(['self', *written.inputs])}):")
    body = "\n".join(f"        {line}" for line in written.body)
    for a in written.attributes:
        if _key(a) != a.name:
            held_as = (places.get(id(a)) or _held(a)).replace("\\", "\\\\")
            body = re.sub(rf"\bself\.{re.escape(a.name)}\b", held_as, body)
    return [*lines, *body.split("\n")]


def _key(attribute: Attribute) -> str:
    """Its name in a state_dict: the model's own, but where modules of torch have something of that name."""
    return _free(attribute.layer) if attribute.layer else attribute.name


def _free(name: str) -> str:
    first, *rest = dotted(name).split(".")
    return ".".join([identifier(first, RESERVED) if first in RESERVED else first, *rest])


def _held(attribute: Attribute) -> str:
    """How a call names what it has under a name that is no attribute's."""
    name = _key(attribute)
    if "." not in name:
        return f"getattr(self, {literal(name)})"
    kind = "submodule" if attribute.leaf is None else "parameter" if attribute.leaf.role == "parameter" else "buffer"
    return f"self.get_{kind}({literal(name)})"


def _lists(attributes: Sequence[Attribute]) -> dict[str, list[Attribute]]:
    """Layers that a list holds, by the list's name: all of ``blocks.0``, ``blocks.1`` and so on."""
    found: dict[str, list[Attribute]] = {}
    for attribute in attributes:
        first, _, rest = _key(attribute).partition(".")
        if rest:
            found.setdefault(first, []).append(attribute)
    names = {_key(attribute) for attribute in attributes}

    def is_list(name: str, held: Sequence[Attribute]) -> bool:
        places = [_key(a).partition(".")[2] for a in held]
        plain = all(a.leaf is None and not isinstance(a.code, If) for a in held)
        return plain and name not in names and places == [str(n) for n in range(len(held))]

    return {name: held for name, held in found.items() if is_list(name, held)}


def _repeated(codes: Sequence[Code]) -> list[Code]:
    """Equal layers, one after the other, as a loop."""
    found: list[Code] = []
    for code in codes:
        if found and isinstance(found[-1], Each) and found[-1].code == code:
            found[-1] = replace(found[-1], stop=found[-1].stop + 1)
        elif found and found[-1] == code:
            found[-1] = Each(code, "_", 0, 2)
        else:
            found.append(code)
    return found


def _lines_of(attribute: Attribute) -> list[str]:
    code = attribute.code
    if attribute.leaf is not None and isinstance(code, If):
        return [f"if {text(code.condition, str)}:", f"    {_made(replace(attribute, code=code.then))}"]
    return [_made(attribute)]


def _made(attribute: Attribute) -> str:
    """The statement that makes an attribute, under the name that it has in the model."""
    name, leaf = _key(attribute), attribute.leaf
    if leaf is None:
        code = text(attribute.code, str)
        if "." in name:
            return f"hold(self, {literal(name)}, {code})"
        return f"self.{name} = {code}" if name == attribute.name else f"self.add_module({literal(name)}, {code})"
    shape = text(attribute.code, str)
    if leaf.role == "parameter":
        code = f"nn.Parameter(torch.empty({shape}))"
        if "." in name:
            return f"hold(self, {literal(name)}, {code})"
        return (
            f"self.{name} = {code}" if name == attribute.name else f"self.register_parameter({literal(name)}, {code})"
        )
    dtype = leaf.value.dtype
    options = "" if dtype == "float32" else f", dtype=torch.{dtype}"
    kept = ", persistent=False" if leaf.role == "constant" else ""
    if "." in name:
        return f"hold(self, {literal(name)}, torch.zeros({shape}{options}){kept})"
    return f"self.register_buffer({literal(name)}, torch.zeros({shape}{options}){kept})"


_MADE = '("num_batches_tracked", "bias_hh_l0", "bias_ih_l0")'
"""What is in a state_dict and comes from no file: counters, and the second bias of a recurrent layer that has one."""


def _make_model(file: File) -> list[str]:
    root = file.classes[-1].name
    has_constants = any(a.leaf is not None and a.leaf.role == "constant" for c in file.classes for a in c.attributes)
    constants = [
        "        for name, buffer in model.named_buffers():",
        f'            if name.rpartition(".")[2].startswith("{CONSTANT}"):  # which is in no state_dict',
        "                buffer.copy_(arrays.pop(name))",
    ]
    return [
        'WEIGHTS = Path(__file__).with_suffix(".safetensors")',
        "",
        "",
        "def make_model(weights=WEIGHTS):",
        f'    """{root} with the weights of a file, by default the one beside this; None: random weights."""',
        f"    model = {root}()",
        "    if weights is not None:",
        "        arrays = read_weights(weights)",
        *(constants if has_constants else []),
        "        missing, unexpected = model.load_state_dict(arrays, strict=False)",
        f"        missing = [name for name in missing if not name.endswith({_MADE})]",
        "        if missing or unexpected:",
        '            raise ValueError(f"{weights} lacks {missing}, and has {unexpected}, which is not in the model")',
        "    return model.eval()",
    ]


DIALECT = TorchDialect()


# Capability writer ----------------------------------------------------------------------------------------------------
def dialect(channels_first: bool = False) -> TorchDialect:
    """See :meth:`agnostic.contracts.writer.SourceWriter.dialect`; channels come first here in any case."""
    return DIALECT


def check_engine(engine: str | None, channels_first: bool) -> None:
    """See :meth:`agnostic.contracts.writer.Writer.check_engine`; torch is its own engine."""


def write_weights(arrays: Mapping[str, npt.NDArray[Any]], folder: Path, name: str) -> Path:
    """See :meth:`agnostic.contracts.writer.SourceWriter.write_weights`: a .safetensors file by state_dict names."""
    from safetensors.numpy import save_file

    path = folder / f"{name}.safetensors"
    with atomic_path(path) as temporary:
        save_file({DIALECT.layer_path(key): np.ascontiguousarray(x) for key, x in arrays.items()}, temporary)
    return path
