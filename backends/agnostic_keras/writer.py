"""How source for Keras is spelled. See :mod:`agnostic.port.dialect`.

The source needs Keras and NumPy alone, on any of its engines. Images have their channels last.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from agnostic.errors import InvalidInput
from agnostic.files import atomic_path
from agnostic.port.code import (
    Apply,
    At,
    Code,
    Dim,
    If,
    Infix,
    Listed,
    Name,
    call,
    identifier,
    parts,
    polished,
    rebuilt,
    replaced,
    text,
)
from agnostic.port.dialect import Attribute, Class, File, LayerNode, Testing, Unwritable, Weight
from agnostic.port.layout import Rearrangement
from agnostic.port.spelling import COMMON, Call, Spelling, direct, fixed, one, ones, value_at, weights_at
from agnostic.port.wrapping import wrapped
from agnostic.program.nodes import Node, Value
from agnostic.program.vocabulary import get
from agnostic.tables import filling
from agnostic_keras.channels_first import expression as channels_first_expression
from agnostic_keras.channels_first import layer as channels_first_layer
from agnostic_keras.helpers import HELPERS

SPELLINGS: dict[str, Spelling] = dict(COMMON)
spells = filling(SPELLINGS)


def _name(operator: str, *args: Code, **keywords: Code) -> Apply:
    return call(f"ops.{operator}", *args, **keywords)


def _step(shape: Sequence[int], axes: Sequence[int], result: Sequence[int] | None = None) -> Rearrangement:
    shape = tuple(int(n) for n in shape)
    return Rearrangement(
        shape, tuple(axes), tuple(shape[a] for a in axes) if result is None else tuple(map(int, result))
    )


# Layers ---------------------------------------------------------------------------------------------------------------
def _padded(x: Code, padding: Sequence[tuple[int, int]], value: float = 0.0) -> Code:
    """The image with numbers around it, or itself."""
    if not any(map(any, padding)):
        return x
    widths = ((0, 0), *((fixed(low), fixed(high)) for low, high in padding), (0, 0))
    options = {} if value == 0 else {"constant_values": Name("-np.inf") if value == float("-inf") else value}
    return _name("pad", x, widths, **options)


def _half(kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int], padding: Any) -> bool:
    """Whether each side is padded by half the kernel: as padding="same" of Keras does at any size without strides."""
    return all(
        low + high == (k - 1) * d and low == (low + high) // 2 and (low == high or ones(stride))
        for (low, high), k, d in zip(padding, kernel, dilation, strict=True)
    )


def _convolution_layer(node: Node) -> LayerNode | None:
    given = node.attributes
    kernel = value_at(node, 1)
    if kernel is None or len(kernel.shape) not in (3, 4, 5):
        return None
    rank = len(kernel.shape) - 2
    sizes, (out, inner) = kernel.shape[2:], kernel.shape[:2]
    groups, bias = int(given.get("groups", 1)), value_at(node, 2)
    stride, dilation, padding = given["stride"], given["dilation"], given["padding"]
    if not ones(stride) and not ones(dilation):
        if all(k == 1 for k in sizes):
            dilation = (1,) * rank
        else:
            return None
    same = bool(given.get("same"))
    half = not same and any(map(any, padding)) and _half(sizes, stride, dilation, padding)
    depthwise = groups > 1 and inner == 1 and rank < 3 and len(set(stride)) == 1
    if groups > 1 and not depthwise and rank == 3:
        return None
    # The subclass in helpers pads both sides alike where there are strides; any other border is padded before.
    prefix = "" if half else "layers."
    options = {
        "kernel_size": one(sizes), "strides": one(stride), "padding": "same" if half or same else "valid",
        "dilation_rate": one(dilation), "use_bias": bias is not None,
    }  # fmt: skip
    spatial = tuple(range(2, rank + 2))
    if depthwise:
        step = Rearrangement(
            (groups, out // groups, *sizes), (*(2 + n for n in range(rank)), 0, 1), (*sizes, groups, out // groups)
        )
        constructor = call(f"{prefix}DepthwiseConv{rank}D", **options, depth_multiplier=out // groups)
    else:
        step = _step(kernel.shape, (*spatial, 1, 0))
        constructor = call(f"{prefix}Conv{rank}D", filters=out, **options, groups=groups)

    def apply(layer: Code, operands: Sequence[Code]) -> Code:
        return Apply(layer, (operands[0] if half or same else _padded(operands[0], padding),))

    return LayerNode(constructor, apply, (Weight("kernel", kernel, step), *weights_at(node, bias=2)), "conv")


def _transposed_layer(node: Node) -> LayerNode | None:
    given, kernel = node.attributes, value_at(node, 1)
    if kernel is None or given.get("groups", 1) != 1 or not ones(given["dilation"]):
        return None
    rank = len(kernel.shape) - 2
    if any(more > high for (_, high), more in zip(given["crop"], given["extra"], strict=True)):
        return None
    spatial = tuple(range(2, rank + 2))
    constructor = call(
        f"layers.Conv{rank}DTranspose", filters=kernel.shape[1], kernel_size=one(kernel.shape[2:]),
        strides=one(given["stride"]), use_bias=value_at(node, 2) is not None,
    )  # fmt: skip

    def apply(layer: Code, operands: Sequence[Code]) -> Code:
        return _cropped(Apply(layer, (operands[0],)), node)

    step = _step(kernel.shape, (*spatial, 1, 0))
    return LayerNode(constructor, apply, (Weight("kernel", kernel, step), *weights_at(node, bias=2)), "conv")


def _cropped(code: Code, node: Node) -> Code:
    """What Keras' transposed convolution gives beyond what is wanted, cut away."""
    given, kernel = node.attributes, node.operands[1]
    assert isinstance(kernel, Value)
    cuts = []
    for (low, high), more, k, s in zip(given["crop"], given["extra"], kernel.shape[2:], given["stride"], strict=True):
        # Keras gives at least one stride for each place, also where the kernel is smaller.
        cuts.append((low, high - more + max(s - k, 0)))
    if not any(map(any, cuts)):
        return code
    index = [":"] + [f"{low or ''}:{-high if high else ''}" for low, high in cuts]
    return At(code, Name(", ".join(index)))


def _linear_layer(node: Node) -> LayerNode | None:
    weight = value_at(node, 1)
    x = value_at(node, 0)
    if weight is None or len(weight.shape) != 2 or 0 in weight.shape or x is None or len(x.shape) < 2:
        return None
    constructor = call("layers.Dense", units=weight.shape[0], use_bias=value_at(node, 2) is not None)
    kernel = Weight("kernel", weight, _step(weight.shape, (1, 0)))
    return LayerNode(constructor, direct, (kernel, *weights_at(node, bias=2)), "dense")


def _batch_norm_layer(node: Node) -> LayerNode | None:
    given = node.attributes
    if value_at(node, 1) is None or value_at(node, 2) is None:
        return None
    scale, offset = value_at(node, 3), value_at(node, 4)
    constructor = call(
        "layers.BatchNormalization", epsilon=given["epsilon"], momentum=round(1 - given.get("momentum", 0.1), 10),
        center=offset is not None, scale=scale is not None,
    )  # fmt: skip
    weights = weights_at(node, moving_mean=1, moving_variance=2, gamma=3, beta=4)
    return LayerNode(constructor, direct, weights, "norm")


def _layer_norm_layer(node: Node) -> LayerNode | None:
    scale, offset = value_at(node, 1), value_at(node, 2)
    if len(node.attributes["axes"]) != 1 or (scale is None and offset is None):
        return None
    constructor = call(
        "layers.LayerNormalization", epsilon=node.attributes["epsilon"], center=offset is not None,
        scale=scale is not None,
    )  # fmt: skip
    return LayerNode(constructor, direct, weights_at(node, gamma=1, beta=2), "norm")


def _rms_norm_layer(node: Node) -> LayerNode | None:
    if len(node.attributes["axes"]) != 1 or value_at(node, 1) is None:
        return None
    constructor = call("layers.RMSNormalization", epsilon=node.attributes["epsilon"])
    return LayerNode(constructor, direct, weights_at(node, scale=1), "norm")


def _group_norm_layer(node: Node) -> LayerNode | None:
    scale, offset = value_at(node, 1), value_at(node, 2)
    x = value_at(node, 0)
    if scale is None or offset is None or x is None or isinstance(x.shape[-1], Dim):
        return None
    constructor = call("GroupNormalization", groups=node.attributes["groups"], epsilon=node.attributes["epsilon"])
    return LayerNode(constructor, direct, weights_at(node, gamma=1, beta=2), "norm")


def _prelu_layer(node: Node) -> LayerNode | None:
    x, slope = value_at(node, 0), value_at(node, 1)
    if x is None or slope is None or slope.shape != x.shape[-1:]:
        return None
    shared = tuple(range(1, len(x.shape) - 1))
    constructor = call("layers.PReLU", shared_axes=shared or ...)
    step = Rearrangement(slope.shape, (0,), ((1,) * len(shared)) + slope.shape)
    return LayerNode(constructor, direct, (Weight("alpha", slope, step),), "prelu")


def _embedding_layer(node: Node) -> LayerNode | None:
    table = value_at(node, 0)
    if table is None or len(table.shape) != 2 or not isinstance(node.operands[1], Value):
        return None
    constructor = call("layers.Embedding", input_dim=table.shape[0], output_dim=table.shape[1])

    def apply(layer: Code, operands: Sequence[Code]) -> Code:
        return Apply(layer, (operands[1],))

    return LayerNode(constructor, apply, weights_at(node, embeddings=0), "embedding")


def _dropout_layer(node: Node) -> LayerNode | None:
    axes, x, noise = node.attributes.get("axes"), value_at(node, 0), node.attributes.get("noise", "zeros")
    kind = {"alpha": "layers.AlphaDropout", "gaussian": "layers.GaussianDropout"}.get(noise, "layers.Dropout")
    if axes is None or x is None:
        return LayerNode(call(kind, rate=node.attributes["rate"]), direct, (), "dropout")
    # None: as many as the array has; numbers along the other axes are dropped together.
    sizes = ["None" if axis in axes else "1" for axis in range(len(x.shape))]
    shape = Name(f"({', '.join(sizes)}{',' * (len(sizes) == 1)})")
    stem = "dropout" if len(axes) > 1 else "stochastic_depth"
    return LayerNode(call(kind, rate=node.attributes["rate"], noise_shape=shape), direct, (), stem)


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
}


# Products with weights that are no layer's own ------------------------------------------------------------------
@spells("linear")
def _linear(c: Call) -> Code:
    product = _name("matmul", c.x, _name("transpose", c.operands[1]) if len(c.shape(1)) == 2 else c.operands[1])
    return Infix("+", product, c.operands[2]) if c.is_given(2) else product


@spells("convolution")
def _convolution(c: Call) -> Code:
    rank = len(c.shape(1)) - 2
    sizes, stride, dilation = c.shape(1)[2:], c["stride"], c["dilation"]
    kernel = _name("transpose", c.operands[1], (*range(2, rank + 2), 1, 0))
    groups = c.get("groups", 1)
    x = c.x if c.get("same") else _padded(c.x, c["padding"])
    options: dict[str, Any] = {"strides": one(stride)} if not ones(stride) else {}
    if c.get("same"):
        options["padding"] = "same"
        if not ones(stride) and not (ones(dilation) and groups == 1):
            raise Unwritable("whose border depends on the size has no spelling with dilation or groups in Keras")
    if not ones(dilation) and not ones(sizes):
        if not ones(stride):
            # Keras has no strides with dilation: each place is computed, and every stride-th kept.
            options = {}
        options["dilation_rate"] = one(dilation)
    if isinstance(groups, Dim):
        # A kernel for each image, as a group of channels of one image.
        if c.get("same"):
            raise Unwritable("with as many groups as there are images and a border that depends on the size")
        options = {name: c[theirs] for name, theirs in (("strides", "stride"), ("dilation_rate", "dilation"))}
        options = {name: one(given) for name, given in options.items() if not ones(given)}
        code: Code = call("conv_by_group", x, kernel, groups, **options)
        return Infix("+", code, c.operands[2]) if c.is_given(2) else code
    if groups > 1 and rank == 3:
        code = call("grouped_conv", x, kernel, groups, **options)
    else:
        code = _name("conv", x, kernel, **options)
    if "dilation_rate" in options and not ones(stride):
        code = At(code, Name(", ".join([":"] + [f"::{s}" for s in stride])))
    return Infix("+", code, c.operands[2]) if c.is_given(2) else code


@spells("transposed_convolution")
def _transposed(c: Call) -> Code:
    rank = len(c.shape(1)) - 2
    kernel = _name("transpose", c.operands[1], (*range(2, rank + 2), 0, 1))
    crop = tuple(
        (fixed(low), fixed(high) - fixed(more)) for (low, high), more in zip(c["crop"], c["extra"], strict=True)
    )
    groups = c.get("groups", 1)
    # With a kernel for each image, the images are groups of channels of one.
    code: Code = call(
        "conv_transpose_by_group" if isinstance(groups, Dim) else "conv_transpose", c.x, kernel,
        strides=tuple(c["stride"]), dilation=tuple(c["dilation"]), crop=crop, groups=groups,
    )  # fmt: skip
    return Infix("+", code, c.operands[2]) if c.is_given(2) else code


@spells("embedding")
def _embedding(c: Call) -> Code:
    return _name("take", c.x, c.operands[1], axis=0)


def _affine(code: Code, scale: Code, offset: Code) -> Code:
    code = code if scale is None else Infix("*", code, scale)
    return code if offset is None else Infix("+", code, offset)


@spells("batch_norm")
def _batch_norm(c: Call) -> Code:
    root = _name("sqrt", Infix("+", c.operands[2], c["epsilon"]))
    return _affine(Infix("/", Infix("-", c.x, c.operands[1]), root), c.operand(3), c.operand(4))


@spells("batch_norm_training")
def _batch_norm_training(c: Call) -> Code:
    axes = tuple(range(len(c.shape()) - 1))
    return _affine(call("standardize", c.x, axes, c["epsilon"]), c.operand(1), c.operand(2))


@spells("layer_norm")
def _layer_norm(c: Call) -> Code:
    axes = tuple(c["axes"])
    return _affine(
        call("standardize", c.x, axes[0] if len(axes) == 1 else axes, c["epsilon"]), c.operand(1), c.operand(2)
    )


@spells("rms_norm")
def _rms_norm(c: Call) -> Code:
    axes = tuple(c["axes"])
    mean = _name("mean", _name("square", c.x), axis=axes[0] if len(axes) == 1 else axes, keepdims=True)
    return _affine(Infix("*", c.x, _name("rsqrt", Infix("+", mean, c["epsilon"]))), c.operand(1), None)


@spells("group_norm")
def _group_norm(c: Call) -> Code:
    return _affine(call("standardize_groups", c.x, c["groups"], c["epsilon"]), c.operand(1), c.operand(2))


@spells("prelu")
def _prelu(c: Call) -> Code:
    return _name("where", Infix(">=", c.x, 0), c.x, Infix("*", c.operands[1], c.x))


# Activations ----------------------------------------------------------------------------------------------------------
_PLAIN = {
    "relu": "relu", "relu6": "relu6", "selu": "selu", "silu": "silu", "sigmoid": "sigmoid", "tanh": "tanh",
    "log_sigmoid": "log_sigmoid", "hard_sigmoid": "hard_sigmoid", "hard_silu": "hard_silu", "mish": None,
    "linear": None, "softsign": "softsign", "tanh_shrink": "tanh_shrink", "exponential": "exp",
}  # fmt: skip


@spells("activation")
def _activation(c: Call) -> Code:
    function = c["function"]
    options = {name: value for name, value in c.node.attributes.items() if name != "function"}
    if function == "gelu":
        return _name("gelu", c.x, approximate=False)
    if function == "gelu_tanh":
        return _name("gelu", c.x, approximate=True)
    if function == "softplus":
        beta, threshold = options.get("beta", 1), options.get("threshold", 20)
        code: Code = _name("softplus", c.x if beta == 1 else Infix("*", c.x, beta))
        code = code if beta == 1 else Infix("/", code, beta)
        # Beyond 15 the softplus is the number itself, to the last digit of float32.
        return code if threshold >= 15 else _name("where", Infix(">", c.x, threshold / beta), c.x, code)
    if function == "hard_tanh" and (options.get("low"), options.get("high")) == (0, 6):
        return _name("relu6", c.x)
    if function == "hard_tanh":
        return _name("clip", c.x, options.get("low", -1), options.get("high", 1))
    if function == "leaky_relu":
        return _name("leaky_relu", c.x, negative_slope=options.get("negative_slope", 0.01))
    if function in ("elu", "celu"):
        return _name(function, c.x, alpha=options.get("alpha", 1.0))
    if function == "mish":
        return Infix("*", c.x, _name("tanh", _name("softplus", c.x)))
    if function in ("soft_shrink", "hard_shrink"):
        return _name(function, c.x, threshold=options.get("threshold", 0.5))
    if function == "threshold":
        return _name("where", Infix(">", c.x, options["threshold"]), c.x, options["value"])
    if function == "glu":
        return _name("glu", c.x, axis=options.get("axis", -1))
    if function == "softmax":
        return _name("softmax", c.x, axis=options.get("axis", -1))
    plain = _PLAIN.get(function)
    if options or not plain:
        raise Unwritable(f"of function {function!r} has no spelling in Keras")
    return _name(plain, c.x)


@spells("softmax", "log_softmax")
def _softmax(c: Call) -> Code:
    axis = c["axis"] - len(c.shape()) if c["axis"] >= 0 else c["axis"]
    return _name(c.node.operator, c.x, **({} if axis == -1 else {"axis": axis}))


# Pooling and resizing -------------------------------------------------------------------------------------------------
@spells("max_pool")
def _max_pool(c: Call) -> Code:
    if c.get("same") and ones(c["dilation"]):
        return _name("max_pool", c.x, pool_size=one(c["kernel"]), strides=one(c["stride"]), padding="same")
    if c.get("ceil_mode", False) or not ones(c["dilation"]):
        return call(
            "max_pool", c.x, tuple(c["kernel"]), tuple(c["stride"]), tuple(map(tuple, c["padding"])),
            tuple(c["dilation"]), ceil_mode=bool(c.get("ceil_mode", False)),
        )  # fmt: skip
    x = _padded(c.x, c["padding"], float("-inf"))
    return _name("max_pool", x, pool_size=one(c["kernel"]), strides=one(c["stride"]))


@spells("max_pool_places")
def _max_pool_places(c: Call) -> Code:
    return call(
        "max_pool_places", c.x, tuple(c["kernel"]), tuple(c["stride"]), tuple(map(tuple, c["padding"])),
        tuple(c["dilation"]), ceil_mode=bool(c.get("ceil_mode", False)),
    )  # fmt: skip


@spells("average_pool")
def _average_pool(c: Call) -> Code:
    if c.get("same"):
        # Keras' own leaves the border out of the mean, or repeats the image there, as its engine likes.
        return call("average_pool_same", c.x, tuple(c["kernel"]), tuple(c["stride"]))
    padded = any(map(any, c["padding"]))
    if c.get("ceil_mode", False) or c.get("divisor") or (padded and not c.get("count_padding", True)):
        return call(
            "average_pool", c.x, tuple(c["kernel"]), tuple(c["stride"]), tuple(map(tuple, c["padding"])),
            ceil_mode=bool(c.get("ceil_mode", False)), count_padding=bool(c.get("count_padding", True)),
            divisor=c.get("divisor"),
        )  # fmt: skip
    return _name("average_pool", _padded(c.x, c["padding"]), pool_size=one(c["kernel"]), strides=one(c["stride"]))


@spells("adaptive_average_pool", "adaptive_max_pool")
def _adaptive(c: Call) -> Code:
    word = "mean" if "average" in c.node.operator else "max"
    sizes = tuple(c["sizes"])
    rank = len(sizes)
    if all(n == 1 for n in sizes):
        return _name(word, c.x, axis=tuple(range(1, rank + 1)), keepdims=True)
    return call(f"adaptive_{word}", c.x, sizes)


def _times(n: int, m: int) -> int:
    """How many times one length is another, at each size that was read; 0 where that is no whole number."""
    count = max(len(x.sizes) if isinstance(x, Dim) else 1 for x in (n, m))
    lengths = [x.sizes if isinstance(x, Dim) else (x,) * count for x in (n, m)]
    found = {0 if a % b else a // b for a, b in zip(*lengths, strict=True)}
    return found.pop() if len(found) == 1 else 0


@spells("resize")
def _resize(c: Call) -> Code:
    method, scales = c["method"], c.get("scales")
    sizes = tuple(c["sizes"])
    before = c.shape()[1:-1]
    exact = scales is None or all(
        s is None or abs(s - n / m) < 1e-9 for s, n, m in zip(scales, sizes, before, strict=True)
    )
    times = [_times(n, m) for n, m in zip(sizes, before, strict=True)]
    if method == "nearest" and exact and not c.get("half_pixel", True) and all(times):
        code: Code = c.x
        for axis, n in enumerate(times, 1):
            code = code if n == 1 else _name("repeat", code, n, axis=axis)
        return code
    options: dict[str, Any] = {}
    if c.get("align_corners"):
        options["align_corners"] = True
    if not c.get("half_pixel", True):
        options["half_pixel"] = False
    if c.get("antialias"):
        options["antialias"] = True
    if method == "bicubic":
        options["cubic"] = c.get("cubic", -0.75)
    if not exact:
        options["scales"] = tuple(scales)
    return call("resize", c.x, sizes, method, **options)


# What moves numbers ---------------------------------------------------------------------------------------------------
@spells("reshape")
def _reshape(c: Call) -> Code:
    return _name("reshape", c.x, tuple(c["shape"]))


@spells("permute")
def _permute(c: Call) -> Code:
    return _name("transpose", c.x, tuple(c["axes"]))


@spells("expand")
def _expand(c: Call) -> Code:
    return _name("broadcast_to", c.x, tuple(c["shape"]))


@spells("concatenate")
def _concatenate(c: Call) -> Code:
    axis = c["axis"]
    rank = len(c.node.outputs[0].shape)
    return _name("concatenate", Listed(tuple(c.x)), axis=-1 if axis == rank - 1 else axis)


@spells("stack")
def _stack(c: Call) -> Code:
    return _name("stack", Listed(tuple(c.x)), axis=c["axis"])


@spells("pad")
def _pad(c: Call) -> Code:
    widths, mode = tuple(map(tuple, c["widths"])), c.get("mode", "constant")
    if any(isinstance(n, Dim) and min(n.sizes) < 0 for pair in widths for n in pair):
        raise Unwritable("that adds at some sizes and cuts at others")
    # torch pads the last three axes at most in ways other than by a constant, and never the first of three or more.
    if (
        any(n < 0 for pair in widths for n in pair)
        or mode in ("replicate", "circular")
        or (mode != "constant" and (len(widths) > 4 or (len(widths) > 2 and any(widths[0]))))
    ):
        return call("pad", c.x, widths, mode=mode, value=c.get("value", 0.0))
    if mode == "constant":
        value = c.get("value", 0.0)
        return _name("pad", c.x, widths, **({"constant_values": value} if value else {}))
    return _name("pad", c.x, widths, mode=mode)


@spells("roll")
def _roll(c: Call) -> Code:
    code = c.x
    for shift, axis in zip(c["shifts"], c["axes"], strict=True):
        code = _name("roll", code, shift, axis=axis)
    return code


@spells("flip")
def _flip(c: Call) -> Code:
    return _name("flip", c.x, axis=tuple(c["axes"]) if len(c["axes"]) > 1 else c["axes"][0])


@spells("tile")
def _tile(c: Call) -> Code:
    return _name("tile", c.x, tuple(c["counts"]))


@spells("repeat")
def _repeat(c: Call) -> Code:
    return _name("repeat", c.x, c["count"], axis=c["axis"])


@spells("triangle")
def _triangle(c: Call) -> Code:
    return _name("triu" if c.get("upper") else "tril", c.x, k=c.get("diagonal", 0))


@spells("unfold")
def _unfold(c: Call) -> Code:
    return call("unfold", c.x, int(c["axis"]), fixed(c["length"]), fixed(c["step"]))


@spells("overlap_add")
def _overlap_add(c: Call) -> Code:
    names = ("sizes", "kernel", "stride", "padding", "dilation")
    return call("overlap_add", c.x, *(tuple(c[name]) for name in names))


@spells("patches")
def _patches(c: Call) -> Code:
    return call("patches", c.x, tuple(c["kernel"]), tuple(c["stride"]), tuple(c["padding"]), tuple(c["dilation"]))


_DTYPES = {"int64": "int32", "float64": "float32", "uint64": "uint32"}


def _dtype(name: str) -> str:
    """A type that all engines have: jax has no 64 bits unless told so."""
    return _DTYPES.get(name, name)


@spells("cast")
def _cast(c: Call) -> Code:
    return _name("cast", c.x, _dtype(c["dtype"]))


@spells("full")
def _full(c: Call) -> Code:
    shape, dtype = tuple(c["shape"]), _dtype(c["dtype"])
    options = {} if dtype == "float32" else {"dtype": dtype}
    if c.x in (0, 1) and not isinstance(c.x, bool):
        return _name("ones" if c.x else "zeros", shape, **options)
    return _name("full", shape, c.x, **options)


@spells("arange")
def _arange(c: Call) -> Code:
    start, stop, step = c.operands
    dtype = _dtype(c["dtype"])
    if step == 1 and start == 0:
        return _name("arange", stop, dtype=dtype)
    return _name("arange", start, stop, *([] if step == 1 else [step]), dtype=dtype)


@spells("linspace")
def _linspace(c: Call) -> Code:
    dtype = _dtype(c["dtype"])
    options = {} if dtype == "float32" else {"dtype": dtype}
    return _name("linspace", c.x, c.operands[1], c["count"], **options)


@spells("eye")
def _eye(c: Call) -> Code:
    rows, columns, dtype = c["rows"], c["columns"], _dtype(c["dtype"])
    options: dict[str, Any] = {} if dtype == "float32" else {"dtype": dtype}
    return _name("eye", rows, *([] if rows == columns else [columns]), **options)


# Reductions -----------------------------------------------------------------------------------------------------------
def _axis(c: Call) -> dict[str, Any]:
    axes = c.get("axes")
    found: dict[str, Any] = {}
    if axes is not None:
        found["axis"] = axes[0] if len(axes) == 1 else tuple(axes)
    if c.get("keep", False):
        found["keepdims"] = True
    return found


_REDUCTIONS = {"sum": "sum", "mean": "mean", "product": "prod", "max": "max", "min": "min", "any": "any", "all": "all",
               "logsumexp": "logsumexp"}  # fmt: skip


@spells("reduce")
def _reduce(c: Call) -> Code:
    if c["function"] not in _REDUCTIONS:
        raise Unwritable(f"of function {c['function']!r} has no spelling in Keras")
    return _name(_REDUCTIONS[c["function"]], c.x, **_axis(c))


@spells("variance")
def _variance(c: Call) -> Code:
    correction = c.get("correction", 0)
    axes = c.get("axes")
    sizes = [c.shape()[a] for a in (range(len(c.shape())) if axes is None else axes)]
    code: Code = _name("var", c.x, **_axis(c))
    if correction and any(isinstance(n, Dim) for n in sizes):
        count: Code = sizes[0]
        for n in sizes[1:]:
            count = Infix("*", count, n)
        less = int(correction) if correction == int(correction) else correction
        code = Infix("*", code, Infix("/", count, Infix("-", count, less)))
    elif correction:
        n = math.prod(sizes)
        code = Infix("*", code, n / (n - correction))
    return _name("sqrt", code) if c.get("root") else code


@spells("norm")
def _norm(c: Call) -> Code:
    order = c.get("order", 2)
    if order == 2:
        return _name("sqrt", _name("sum", _name("square", c.x), **_axis(c)))
    if order == 1:
        return _name("sum", _name("abs", c.x), **_axis(c))
    if math.isinf(order):
        return _name("max" if order > 0 else "min", _name("abs", c.x), **_axis(c))
    if order == 0:
        raise Unwritable("of order 0 has no spelling in Keras")
    return Infix("**", _name("sum", Infix("**", _name("abs", c.x), order), **_axis(c)), 1 / order)


@spells("argmax", "argmin")
def _place(c: Call) -> Code:
    return _name(c.node.operator, c.x, axis=c.get("axis"), **({"keepdims": True} if c.get("keep") else {}))


@spells("cumulative")
def _cumulative(c: Call) -> Code:
    function = {"sum": "cumsum", "product": "cumprod"}.get(c.get("function", "sum"))
    if function is None:
        return _name("associative_scan", Name(f"ops.{c['function']}imum"), c.x, axis=c["axis"])
    return _name(function, c.x, axis=c["axis"])


@spells("top")
def _top(c: Call) -> Code:
    return call("top", c.x, c["count"], c.get("axis", -1), largest=c.get("largest", True))


# Element by element ---------------------------------------------------------------------------------------------------
_SIGNS = {"add": "+", "subtract": "-", "multiply": "*", "divide": "/", "power": "**"}


@spells(*_SIGNS)
def _arithmetic(c: Call) -> Code:
    return Infix(_SIGNS[c.node.operator], c.x, c.operands[1])


@spells("maximum", "minimum")
def _larger(c: Call) -> Code:
    return _name(c.node.operator, c.x, c.operands[1])


@spells("where")
def _where(c: Call) -> Code:
    # jax's own function takes no variable of Keras.
    own = [isinstance(code, Name) and code.text.startswith("self.") for code in c.operands]
    operands = [_name("convert_to_tensor", x) if is_own else x for x, is_own in zip(c.operands, own, strict=True)]
    return _name("where", *operands)


@spells("clip")
def _clip(c: Call) -> Code:
    low, high = c.operand(1), c.operand(2)
    if low is None:
        return _name("minimum", c.x, high)
    return _name("maximum", c.x, low) if high is None else _name("clip", c.x, low, high)


_UNARY = {
    "stop_gradient": "stop_gradient", "absolute": "abs", "sign": "sign", "exp": "exp", "expm1": "expm1", "log": "log",
    "log2": "log2", "log10": "log10", "log1p": "log1p", "sqrt": "sqrt", "rsqrt": "rsqrt", "reciprocal": "reciprocal",
    "square": "square", "sin": "sin", "cos": "cos", "tan": "tan", "asin": "arcsin", "acos": "arccos", "atan": "arctan",
    "sinh": "sinh", "cosh": "cosh", "asinh": "arcsinh", "acosh": "arccosh", "atanh": "arctanh", "erf": "erf",
    "floor": "floor", "ceil": "ceil", "round": "round", "truncate": "trunc", "not": "logical_not", "is_nan": "isnan",
    "is_infinite": "isinf", "is_finite": "isfinite", "exp2": "exp2",
    "erfinv": "erfinv", "i0": "i0", "real": "real", "imaginary": "imag", "conjugate": "conj", "angle": "angle",
}  # fmt: skip


@spells("unary")
def _unary(c: Call) -> Code:
    function = c["function"]
    if function == "fraction":
        return Infix("-", c.x, _name("trunc", c.x))
    if function == "negative":
        return Infix("-", None, c.x)
    if function not in _UNARY:
        raise Unwritable(f"of function {function!r} has no spelling in Keras")
    return _name(_UNARY[function], c.x)


_BINARY = {
    "equal": "equal", "not_equal": "not_equal", "less": "less", "less_equal": "less_equal", "greater": "greater",
    "greater_equal": "greater_equal", "and": "logical_and", "or": "logical_or", "xor": "logical_xor",
    "bit_and": "bitwise_and", "bit_or": "bitwise_or", "bit_xor": "bitwise_xor", "atan2": "arctan2",
    "floor_divide": "floor_divide", "remainder": "mod", "gcd": "gcd", "lcm": "lcm", "next_after": "nextafter",
}  # fmt: skip


@spells("binary")
def _binary(c: Call) -> Code:
    function = c["function"]
    if function == "truncated_divide":
        return _name("trunc", Infix("/", c.x, c.operands[1]))
    if function == "fmod":
        return Infix("-", c.x, Infix("*", _name("trunc", Infix("/", c.x, c.operands[1])), c.operands[1]))
    if function not in _BINARY:
        raise Unwritable(f"of function {function!r} has no spelling in Keras")
    return _name(_BINARY[function], c.x, c.operands[1])


# Products -------------------------------------------------------------------------------------------------------------
@spells("matmul")
def _matmul(c: Call) -> Code:
    return _name("matmul", c.x, c.operands[1])


@spells("einsum")
def _einsum(c: Call) -> Code:
    return _name("einsum", c["equation"], *c.x)


@spells("outer")
def _outer(c: Call) -> Code:
    a, b = len(c.shape(0)), len(c.shape(1))
    if a == b == 1:
        return _name("outer", c.x, c.operands[1])
    raise Unwritable("of more than vectors has no spelling in Keras")


@spells("attention")
def _attention(c: Call) -> Code:
    options: dict[str, Any] = {}
    if c.is_given(3):
        options["mask"] = c.operands[3]
    if c.get("causal"):
        options["causal"] = True
    if c.get("scale") is not None and not math.isclose(c["scale"], c.shape(0)[-1] ** -0.5, rel_tol=1e-9):
        options["scale"] = c["scale"]
    if c.get("place_axis", -2) == -3 and len(c.shape()) == 4 and not c.get("shared_heads"):
        if options or c.shape(0)[2:] != c.shape(2)[2:]:
            return call("masked_attention", *c.operands[:3], **options)
        return _name("dot_product_attention", *c.operands[:3])
    if c.get("shared_heads"):
        options["shared_heads"] = True
    if c.get("place_axis", -2) == -3:
        options["heads_last"] = True
    return call("general_attention", *c.operands[:3], **options)


# Places ---------------------------------------------------------------------------------------------------------------
@spells("take")
def _take(c: Call) -> Code:
    return _name("take", c.x, c.operands[1], axis=c["axis"])


@spells("gather")
def _gather(c: Call) -> Code:
    index, shape, axis = c.shape(1), c.shape(0), c["axis"] % len(c.shape(0))
    fewer = any(n != m for a, (n, m) in enumerate(zip(index, shape, strict=True)) if a != axis)
    return call("gather" if fewer else "ops.take_along_axis", c.x, c.operands[1], axis=axis)


@spells("index")
def _index(c: Call) -> Code:
    indices = c.operands[1]
    kept = [axis for axis, index in enumerate(indices) if index is not None]
    if len(kept) == 1:
        return _name("take", c.x, indices[kept[0]], axis=kept[0])
    if kept != list(range(kept[0], kept[-1] + 1)):
        return call("pick_apart", c.x, tuple(indices))
    return call("pick", c.x, tuple(indices[axis] for axis in kept), kept[0])


@spells("write")
def _write(c: Call) -> Code:
    return call("write", c.x, tuple(c.operands[1]), c.operands[2], **({"add": True} if c.get("accumulate") else {}))


@spells("scatter")
def _scatter(c: Call) -> Code:
    options = {"reduce": c.get("function", "sum")} if c.get("accumulate") else {}
    if options.get("reduce") == "product":
        raise Unwritable("that multiplies has no spelling in Keras")
    return call("scatter", c.x, c.operands[1], c.operands[2], c["axis"] % len(c.shape()), **options)


@spells("one_hot")
def _one_hot(c: Call) -> Code:
    return _name("one_hot", c.x, c["classes"])


# Recurrent layers -----------------------------------------------------------------------------------------------------
@spells("lstm", "gru", "rnn")
def _recurrent(c: Call) -> Code:
    names = {"function": "activation"}
    defaults = get(c.node.operator).defaults
    options = {names.get(name, name): x for name, x in c.node.attributes.items() if x != defaults[name]}
    return call(c.node.operator, *c.operands, **options)


# Matrices -------------------------------------------------------------------------------------------------------------
@spells("inverse", "determinant")
def _inverse(c: Call) -> Code:
    return _name({"inverse": "inv", "determinant": "det"}[c.node.operator], c.x)


@spells("cholesky")
def _cholesky(c: Call) -> Code:
    return _name("cholesky", c.x, **({"upper": True} if c.get("upper") else {}))


@spells("solve")
def _solve(c: Call) -> Code:
    return _name("solve", c.x, c.operands[1])


@spells("triangular_solve")
def _triangular_solve(c: Call) -> Code:
    return _name("solve_triangular", c.x, c.operands[1], lower=bool(c.get("lower", False)))


@spells("qr")
def _qr(c: Call) -> Code:
    return _name("qr", c.x, **({"mode": "complete"} if c.get("complete") else {}))


@spells("svd")
def _svd(c: Call) -> Code:
    return _name("svd", c.x, full_matrices=bool(c.get("full", False)))


@spells("eigh", "log_determinant", "lu")
def _of_matrix(c: Call) -> Code:
    return _name({"eigh": "eigh", "log_determinant": "slogdet", "lu": "lu_factor"}[c.node.operator], c.x)


# Complex numbers ------------------------------------------------------------------------------------------------------
@spells("as_complex", "as_real")
def _complex(c: Call) -> Code:
    return _name(f"view_{c.node.operator}", c.x)


@spells("fourier")
def _fourier(c: Call) -> Code:
    axes = tuple(axis - c.rank for axis in c["axes"])
    options: dict[str, Any] = {name: True for name in ("inverse", "half") if c.get(name)}
    if options.keys() == {"inverse", "half"}:
        options["length"] = c["length"]
    if c.get("norm", "backward") != "backward":
        options["norm"] = c["norm"]
    return call("fourier", c.x, axes, **options)


@spells("sample")
def _sample(c: Call) -> Code:
    return call(
        "sample", c.x, c.operands[1], method=c.get("method", "bilinear"), fill=c.get("fill", "zeros"),
        align_corners=c.get("align_corners", False),
    )  # fmt: skip


# The dialect ----------------------------------------------------------------------------------------------------------
RESERVED = frozenset({
    "activity_regularizer", "add_loss", "add_metric", "add_weight", "autocast", "build", "build_from_config",
    "built", "call", "compile", "compiled", "compute_dtype", "compute_mask", "compute_output_shape",
    "compute_output_spec", "count_params", "dtype", "dtype_policy", "evaluate", "export", "fit", "from_config",
    "get_config", "get_layer", "get_weights", "input", "input_dtype", "input_spec", "inputs", "jit_compile",
    "keras", "kwargs", "layers", "load_weights", "loss", "losses", "metrics", "metrics_variables", "name",
    "non_trainable_variables", "non_trainable_weights", "np", "ops", "optimizer", "output", "outputs", "parts",
    "path", "predict", "quantize", "register", "rematerialize", "reset_metrics", "run_eagerly", "save",
    "save_weights", "self", "set_weights", "stack", "stateless_call", "stop_training", "summary",
    "supports_masking", "symbolic_call", "test_step", "train_step", "trainable", "trainable_variables",
    "trainable_weights", "training", "variable_dtype", "variables", "weights",
})  # fmt: skip
"""What Keras' layers and models have as attributes, and what the source itself names."""


class KerasDialect:
    """Source for Keras 3, channels last."""

    name = "keras"
    channels = -1
    reserved = RESERVED
    modules = frozenset(("keras", "layers", "ops", "np"))
    lists = True
    holds_weights = False
    helpers: Mapping[str, str] = HELPERS
    testing = Testing(
        imports="from keras import ops",
        native="ops.convert_to_tensor({})",
        numpy="ops.convert_to_numpy({})",
        call="model(inputs[0] if len(inputs) == 1 else inputs, training=False)",
    )

    def expression(self, node: Node, operands: Sequence[Code]) -> Code:
        """See :meth:`agnostic.port.dialect.Dialect.expression`."""
        spelling = SPELLINGS.get(node.operator)
        if spelling is None:
            raise Unwritable("has no spelling in Keras yet")
        return spelling(Call(node, operands))

    def layer(self, node: Node) -> LayerNode | None:
        """See :meth:`agnostic.port.dialect.Dialect.layer`."""
        found = LAYERS.get(node.operator)
        return None if found is None else found(node)

    def as_layer(self, node: Node) -> Code | None:
        """See :meth:`agnostic.port.dialect.Dialect.as_layer`."""
        given = dict(node.attributes)
        if node.operator == "activation":
            function = given.pop("function")
            if function == "gelu":
                return call("layers.Activation", "gelu")  # which is the exact one, unlike ops.gelu by default
            if function == "hard_tanh" and (given.get("low"), given.get("high")) == (0, 6):
                return call("layers.Activation", "relu6")
            if function == "leaky_relu":
                return call("layers.LeakyReLU", negative_slope=given.get("negative_slope", 0.01))
            if not given and _PLAIN.get(function):
                return call("layers.Activation", str(_PLAIN[function]))
            return None
        if node.operator == "reshape" and len(node.outputs[0].shape) == 2 and len(given["shape"]) == 2:
            source = node.operands[0]
            assert isinstance(source, Value)
            return call("layers.Flatten") if source.shape[0] == node.outputs[0].shape[0] else None
        return None

    def layer_path(self, path: str) -> str:
        """See :meth:`agnostic.port.dialect.Dialect.layer_path`."""
        return path.replace("/", ".")

    def named(self, constructor: Code, name: Code) -> Code:
        """See :meth:`agnostic.port.dialect.Dialect.named`."""
        if isinstance(constructor, If):
            return If(constructor.condition, self.named(constructor.then, name), constructor.otherwise)
        assert isinstance(constructor, Apply)
        return Apply(constructor.function, constructor.args, (*constructor.keywords, ("name", name)))

    def stacked(self, layers: Sequence[Code]) -> Code:
        """See :meth:`agnostic.port.dialect.Dialect.stacked`."""
        return Apply(Name("Block"), tuple(layers))

    def unstacked(self, array: Code, axis: int) -> Code:
        """See :meth:`agnostic.port.dialect.Dialect.unstacked`."""
        return call("ops.unstack", array, axis=axis)

    def split(self, array: Code, count: int, axis: int) -> Code:
        """See :meth:`agnostic.port.dialect.Dialect.split`."""
        return call("ops.split", array, count, axis=axis)

    def shape(self, array: Code) -> Code:
        """See :meth:`agnostic.port.dialect.Dialect.shape`."""
        return call("ops.shape", array)

    def beside(self, code: Code, array: Code) -> Code:
        """See :meth:`agnostic.port.dialect.Dialect.beside`; Keras moves arrays itself."""
        return code

    def file(self, file: File) -> str:
        """See :meth:`agnostic.port.dialect.Dialect.file`."""
        partials = _partials(file)
        lines = [f'"""{file.doc}"""', "", *(["from functools import partial"] if partials else [])]
        lines += ["from pathlib import Path", "", "import keras", "import numpy as np", "from keras import layers, ops"]
        head = len(lines)
        lines += ["", 'WEIGHTS = Path(__file__).with_suffix(".npz")']
        lines += [f'register = keras.saving.register_keras_serializable("{file.register}")']
        for (layer, arguments), name in partials.items():
            lines.append(f"{name} = partial({layer}, {arguments})")
        lines.append("")
        classes = [replace(written, **_shortened(written, partials)) for written in file.classes]
        used = " ".join(text(code, str) for written in classes for code in _codes(written))
        for helper in file.helpers:
            if helper in _CONVOLUTIONS and not re.search(rf"(?<![.\w]){helper}\(", used):
                continue  # without strides it is Keras' own
            lines += ["", HELPERS[helper].strip(), ""]
        for function in file.functions:
            lines += ["", function, ""]
        for written in classes:
            lines += ["", *self._class(written), ""]
        lines += ["", *_make_model(file)]
        if not re.search(r"\bops\.", "\n".join(lines)):
            lines[head - 1] = "from keras import layers"
        return _tidy(wrapped("\n".join(lines))) + "\n"

    def _class(self, written: Class) -> list[str]:
        base = "Block, keras.Model" if written.root else "Block"
        given = "".join(f", {n}" if d is ... else f", {n}={text(d, str)}" for n, d in written.parameters)
        lines = ["@register", f"class {written.name}({base}):" + (f"  # {written.doc}" if written.doc else "")]
        if written.stack is not None:
            made = ", ".join(text(part, str) for part in written.stack.args)
            return [*lines, f"    def __init__(self{given}, **kwargs):", f"        super().__init__({made}, **kwargs)"]
        layers = [a for a in written.attributes if a.leaf is None]
        weights = [a for a in written.attributes if a.leaf is not None]
        if layers or given:
            lines += [f"    def __init__(self{given}, **kwargs):", "        super().__init__(**kwargs)"]
            lines += [f"        {line}" for a in layers for line in _assigned(f"self.{a.name}", a.code)]
            lines.append("")
        if weights:
            lines += ["    def build(self, input_shape):"]
            lines += [f"        {line}" for a in weights for line in _weight(a)]
            lines.append("")
        inputs = list(written.inputs)
        if written.root:
            # Without the argument, fit would run layers as in inference: a call hands on what it was called with.
            given = inputs[0] if len(inputs) == 1 else "inputs"
            lines += [f"    def call(self, {given}, training=None):"]
            lines += [f"        {', '.join(inputs)} = inputs"] if len(inputs) > 1 else []
        else:
            lines += [f"    def call({', '.join(['self', *inputs])}):"]
        return lines + [f"        {line}" for line in written.body]


DIALECT = KerasDialect()


class ChannelsFirstDialect(KerasDialect):
    """Source for Keras 3, channels first."""

    channels = 1

    def layer(self, node: Node) -> LayerNode | None:
        """See :meth:`agnostic.port.dialect.Dialect.layer`."""
        return channels_first_layer(node, super().layer)

    def expression(self, node: Node, operands: Sequence[Code]) -> Code:
        """See :meth:`agnostic.port.dialect.Dialect.expression`."""
        return channels_first_expression(node, operands, super().expression)


def _made(attribute: Attribute) -> Code:
    """The code that makes a layer, under its name in the model."""
    code = DIALECT.named(attribute.code, attribute.layer) if attribute.layer else attribute.code
    return _polished(code)


def _assigned(name: str, code: Code) -> list[str]:
    """The lines that give a name what code makes; a long condition as a statement."""
    line = f"{name} = {text(code, str)}"
    if isinstance(code, If) and code.otherwise is None and len(line) > 110:
        made = f"    {name} = {text(code.then, str)}"
        return [f"{name} = None", f"if {text(code.condition, str)}:", made]
    return [line]


def _codes(written: Class) -> list[Code]:
    """The code of a class that makes layers."""
    found = [a.code for a in written.attributes if a.leaf is None]
    return found if written.stack is None else [*found, *written.stack.args]


def _shortened(written: Class, partials: Mapping[tuple[str, str], str]) -> dict[str, Any]:
    """The attributes and the stack of a class with layers made as they are usually written."""

    def short(piece: Code) -> Code:
        if isinstance(piece, Apply) and (key := _options(piece)) in partials:
            gone = {name for name, value in piece.keywords if _is_option(name, value)}
            kept = tuple((name, rebuilt(value, lambda c: replaced(c, short))) for name, value in piece.keywords
                         if name not in gone)  # fmt: skip
            return Apply(Name(partials[key]), piece.args, kept)
        return piece

    attributes = [a if a.leaf is not None else replace(a, code=replaced(_made(a), short)) for a in written.attributes]
    stack = None if written.stack is None else replaced(_polished(written.stack), short)
    return {"attributes": attributes, "stack": stack}


def _is_option(name: str, value: Code) -> bool:
    """Whether an argument of a norm is the same for many of them."""
    return name in ("epsilon", "momentum") and isinstance(value, int | float)


def _options(code: Apply) -> tuple[str, str]:
    """A norm's class, and the options that it may share with others."""
    called = code.function.text if isinstance(code.function, Name) else ""
    if not re.fullmatch(r"layers\.\w+Normalization", called):
        return ("", "")
    return called, ", ".join(f"{name}={text(value, str)}" for name, value in code.keywords if _is_option(name, value))


def _partials(file: File) -> dict[tuple[str, str], str]:
    """Names for norms that are made alike three times and more."""
    counts: Counter[tuple[str, str]] = Counter()

    def see(code: Code) -> None:
        if isinstance(code, Apply):
            counts[_options(code)] += 1
        for part in parts(code):
            see(part)

    for written in file.classes:
        for code in _codes(written):
            see(_polished(code))
    found: dict[tuple[str, str], str] = {}
    for (layer, arguments), count in counts.items():
        if count > 2 and arguments:
            wanted = layer.rpartition(".")[2].replace("Normalization", "Norm")
            found[layer, arguments] = identifier(wanted, {c.name for c in file.classes} | set(found.values()))
    return found


def _tidy(source: str) -> str:
    """The source with no more than two empty lines in a row."""
    return re.sub(r"\n{4,}", "\n\n\n", source).strip()


_CONVOLUTIONS = frozenset({*(f"Conv{rank}D" for rank in (1, 2, 3)), "DepthwiseConv1D", "DepthwiseConv2D"})
"""Helpers that stand for layers of Keras of the same name."""

DEFAULTS: Mapping[str, Any] = {
    "strides": 1, "dilation_rate": 1, "groups": 1, "use_bias": True, "center": True, "scale": True,
    "depth_multiplier": 1,
}  # fmt: skip
"""Arguments of layers that need not be written where they have these values."""

LEADING = ("filters", "kernel_size", "units", "rate", "input_dim", "output_dim")
"""Arguments of layers that are written without their names, in this order."""


def _polished(code: Code) -> Code:
    return polished(code, _is_layers, LEADING, _is_default, _own)


def _is_layers(called: str) -> bool:
    """Whether a layer of Keras or its helper is called; a block may be named nearly so, and has its own arguments."""
    return called.startswith("layers.") or re.fullmatch(r"(Depthwise)?Conv\dD", called) is not None


def _is_default(called: str, name: str, value: Code) -> bool:
    """Whether an argument has the value that it has anyway, which is None for those that are not listed."""
    known = DEFAULTS.get(name)
    return (name == "padding" and value == "valid") or (type(known) is type(value) and known == value)


def _own(called: str, keywords: Mapping[str, Code]) -> str:
    """The layer of Keras in place of the helper, where it does."""
    return f"layers.{called}" if called in _CONVOLUTIONS and "strides" not in keywords else called


def _weight(attribute: Attribute) -> list[str]:
    """The lines that make a weight."""
    leaf, code = attribute.leaf, attribute.code
    assert leaf is not None
    if isinstance(code, If):
        inner = _weight(replace(attribute, code=code.then))
        return [f"if {text(code.condition, str)}:", *(f"    {line}" for line in inner)]
    options = f'shape={text(code, str)}, name="{attribute.layer}"'
    if leaf.role != "parameter":
        dtype = _dtype(leaf.value.dtype)
        options += "" if dtype == "float32" else f', dtype="{dtype}"'
        options += ', initializer="zeros", trainable=False'
    return [f"self.{attribute.name} = self.add_weight({options})"]


def _make_model(file: File) -> list[str]:
    root = file.classes[-1].name
    examples = []
    for shape, dtype in file.example:
        sizes = text(tuple(int(n) for n in shape), str)
        examples.append(f'np.zeros({sizes}, "{_dtype(dtype)}")')
    example = examples[0] if len(examples) == 1 else f"[{', '.join(examples)}]"
    return [
        "def make_model(weights=WEIGHTS):",
        f'    """{root} with the weights of a file, by default the one beside this; None: random weights."""',
        f"    model = {root}()",
        f"    model({example})  # makes the weights",
        "    if weights is not None:",
        "        with np.load(weights) as arrays:",
        "            for variable in model.weights:",
        '                variable.assign(arrays[variable.path.partition("/")[2]])',
        "    return model",
    ]


def dialect(channels_first: bool = False) -> KerasDialect:
    """See :meth:`agnostic.contracts.writer.SourceWriter.dialect`."""
    return ChannelsFirstDialect() if channels_first else DIALECT


def check_engine(engine: str | None, channels_first: bool) -> None:
    """See :meth:`agnostic.contracts.writer.Writer.check_engine`."""
    if channels_first and (engine or _default_engine()) == "tensorflow":
        raise InvalidInput(
            "TensorFlow has no convolutions with channels first on a CPU: run the port on another engine "
            "(--engine jax, --engine torch), leave channels_first out, or write the source alone (--unchecked)"
        )


def _default_engine() -> str:
    """What Keras computes with where nothing is said: the environment's, its settings file's, or TensorFlow."""
    if "KERAS_BACKEND" in os.environ:
        return os.environ["KERAS_BACKEND"]
    settings = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras")) / "keras.json"
    try:
        return str(json.loads(settings.read_text()).get("backend", "tensorflow"))
    except (OSError, ValueError):
        return "tensorflow"


def write_weights(arrays: Mapping[str, npt.NDArray[Any]], folder: Path, name: str) -> Path:
    """See :meth:`agnostic.contracts.writer.SourceWriter.write_weights`; an archive of NumPy's."""
    path = folder / f"{name}.npz"
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    return path
