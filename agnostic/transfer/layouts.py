"""The weights of PyTorch's layers in the names and layouts of Keras, which descriptions and traces have.

The canonical layout is Keras': output channels last, an attention's projections separate, a GRU's gates in the order z,
r, h. PyTorch has the output channels first; its names differ as well. All functions take and give NumPy arrays, of any
dtype, and only move numbers, with one exception: PyTorch's LSTM and RNN have two biases that are only ever added, which
are one bias in Keras.

==================== ======================================== ========================================================
kind                 PyTorch                                  Keras
==================== ======================================== ========================================================
conv                 weight (O, I / groups, *size), bias      kernel (*size, I / groups, O), bias
depthwise_conv       weight (C * M, 1, *size), bias           kernel (*size, C, M), bias (C * M)
conv_transpose       weight (I, O / groups, *size), bias      kernel (*size, O, I), with zeros between groups; bias
dense                weight (O, I), bias                      kernel (I, O), bias
batch_norm           weight, bias, running_mean, running_var  gamma, beta, moving_mean, moving_variance
layer_norm           weight, bias: (C, *size) or (features)   gamma, beta: (*size, C) or (features)
group_norm           weight, bias                             gamma, beta
rms_norm             weight                                   scale
prelu                weight (C)                               alpha, (C) after the axes of size 1
embedding            weight (tokens, features)                embeddings, the same
lstm, gru, rnn       weight_ih (G * H, I), weight_hh (G * H,  kernel (I, G * H), recurrent_kernel (H, G * H), bias
                     H), bias_ih, bias_hh (G * H)             (G * H); of a GRU (2, G * H)
attention            in_proj_weight (3 E, E), or q_, k_,      query_, key_, value_kernel (E, heads, D) and _bias (heads,
                     v_proj_weight; in_proj_bias;             D); output_kernel (heads, D, E), output_bias (E)
                     out_proj.weight, out_proj.bias
==================== ======================================== ========================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from agnostic.errors import InvalidInput, InvalidWeights, nearest
from agnostic.models.architecture import (
    Architecture,
    ArchitectureLeaf,
    BatchNorm,
    ClassToken,
    Conv,
    Dense,
    Flatten,
    LayerNorm,
    LayerScale,
    PositionEmbedding,
    SelfAttention,
    leaves,
)

Array = np.ndarray[Any, Any]
Arrays = Mapping[str, Array]

GATES: Mapping[str, tuple[int, ...]] = {"lstm": (0, 1, 2, 3), "gru": (1, 0, 2), "rnn": (0,)}
"""Where each of Keras' gates stands in PyTorch: i, f, c, o are i, f, g, o; z, r, h are r, z, n turned round."""

_NOT_TRANSFERRED = ("num_batches_tracked",)
"""Counters that inference never reads, and that Keras does not keep."""


def to_canonical(kind: str, weights: Arrays, *, channels: int | None = None, groups: int = 1, heads: int = 1,
             channels_first: bool = False) -> dict[str, Array]:  # fmt: skip
    """A layer's weights, by PyTorch's names and in its layout, as Keras has them.

    Args:
        kind: one of the table above.
        weights: an entry that a layer lacks, such as a bias, is lacking in both frameworks. Names are without what
            numbers PyTorch's stacked layers: ``"weight_ih"`` for ``"weight_ih_l0_reverse"``.
        channels: C, of a depthwise convolution whose multiplier is not 1.
        groups: of a transposed convolution.
        heads: of an attention.
        channels_first: whether a layer normalization reduces over (C, *size), as over images.

    Raises:
        InvalidInput: no such kind.
        InvalidWeights: an entry that layers of the kind do not have.
    """
    given = {name: np.asarray(x) for name, x in weights.items() if name not in _NOT_TRANSFERRED}
    if kind not in _KINDS:
        raise InvalidInput(f"no rule to transfer a layer of kind {kind!r}, only {', '.join(_KINDS)}")
    for name in given:
        if name not in (known := _KINDS[kind][0]):
            close = nearest(name, known)
            raise InvalidWeights(f"a layer of kind {kind!r} has no {name!r}, only {', '.join(known)}{close}")
    match kind:
        case "conv_transpose":
            moved = {name: _transposed_to_canonical(x, groups) if name == "weight" else x for name, x in given.items()}
        case "depthwise_conv":
            moved = {
                name: _depthwise_to_canonical(x, channels or len(x)) if name == "weight" else x
                for name, x in given.items()
            }
        case "layer_norm":
            moved = {name: np.moveaxis(x, 0, -1) if channels_first else x for name, x in given.items()}
        case "lstm" | "gru" | "rnn":
            return _contiguous(_recurrent_to_canonical(kind, given))
        case "attention":
            return _contiguous(_attention_to_canonical(given, heads))
        case _:
            moved = {name: _to_last(kind, name, x) for name, x in given.items()}
    names = dict(zip(*_KINDS[kind], strict=True))
    return _contiguous({names[name]: x for name, x in moved.items()})


_NORM = (("weight", "bias"), ("gamma", "beta"))
_LINEAR = (("weight", "bias"), ("kernel", "bias"))
_RECURRENT = (("weight_ih", "weight_hh", "bias_ih", "bias_hh"), ("kernel", "recurrent_kernel", "bias"))
_PROJECTIONS = ("query", "key", "value")

_KINDS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "conv": _LINEAR,
    "depthwise_conv": _LINEAR,
    "conv_transpose": _LINEAR,
    "dense": _LINEAR,
    "batch_norm": (
        ("weight", "bias", "running_mean", "running_var"),
        ("gamma", "beta", "moving_mean", "moving_variance"),
    ),
    "layer_norm": _NORM,
    "group_norm": _NORM,
    "rms_norm": (("weight",), ("scale",)),
    "prelu": (("weight",), ("alpha",)),
    "embedding": (("weight",), ("embeddings",)),
    "lstm": _RECURRENT,
    "gru": _RECURRENT,
    "rnn": _RECURRENT,
    "attention": (
        (
            "in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight", "in_proj_bias",
            "out_proj.weight", "out_proj.bias",
        ),
        tuple(f"{name}_{array}" for name in (*_PROJECTIONS, "output") for array in ("kernel", "bias")),
    ),
}  # fmt: skip
"""The names of a layer's arrays in PyTorch and in Keras, one for one where they correspond one for one."""


def _contiguous(arrays: Arrays) -> dict[str, Array]:
    return {name: np.array(x, order="C") for name, x in arrays.items()}


# Products -----------------------------------------------------------------------------------------------------------
def _to_last(kind: str, name: str, x: Array) -> Array:
    """The first two axes of a kernel, (O, I, *size), go to the end: (*size, I, O)."""
    if name == "weight" and kind in ("conv", "dense"):
        return x.transpose(*range(2, x.ndim), 1, 0)
    return x


def _depthwise_to_canonical(x: Array, channels: int) -> Array:
    """(C * M, 1, *size) to (*size, C, M): output c * M + m comes from channel c in both frameworks."""
    if channels < 1 or len(x) % channels:
        raise InvalidWeights(f"a depthwise kernel {x.shape} does not have a multiple of {channels} outputs")
    by_channel = x[:, 0].reshape(channels, len(x) // channels, *x.shape[2:])
    return by_channel.transpose(*range(2, by_channel.ndim), 0, 1)


def _transposed_to_canonical(x: Array, groups: int) -> Array:
    """(I, O / groups, *size) to (*size, O, I). Keras has no groups: they are blocks, and what lies between is zero."""
    inputs, outputs = x.shape[:2]
    full = np.zeros((inputs, outputs * groups, *x.shape[2:]), x.dtype)
    for g, rows in enumerate(np.split(np.arange(inputs), groups)):
        full[rows, g * outputs : (g + 1) * outputs] = x[rows]
    return full.transpose(*range(2, full.ndim), 1, 0)


def flattened_rows(channels: int, positions: int) -> Array:
    """Where Keras finds, in PyTorch's order, each feature of a flattened image.

    PyTorch flattens (C, H, W) and Keras (H, W, C): ``torch_features[flattened_rows(C, H * W)]`` are Keras' features,
    and ``np.argsort(...)`` of it leads back. The rows of a dense kernel after a flatten move likewise.
    """
    return np.arange(channels * positions).reshape(channels, positions).T.reshape(-1)


# Recurrence ---------------------------------------------------------------------------------------------------------
def _reordered(kind: str, x: Array, axis: int) -> Array:
    """PyTorch's gates in Keras' order along an axis."""
    gates = np.split(x, len(GATES[kind]), axis)
    return np.concatenate([gates[g] for g in GATES[kind]], axis)


def _recurrent_to_canonical(kind: str, given: Arrays) -> dict[str, Array]:
    found = {}
    for theirs, ours in (("weight_ih", "kernel"), ("weight_hh", "recurrent_kernel")):
        if theirs in given:
            found[ours] = _reordered(kind, given[theirs], 0).T
    biases = [_reordered(kind, given[name], 0) for name in ("bias_ih", "bias_hh") if name in given]
    if len(biases) == 1:
        raise InvalidWeights(f"a layer of kind {kind!r} has bias_ih and bias_hh, or neither, not one of them")
    if biases:
        # A GRU multiplies its second bias by the reset gate, so there the two are not one.
        found["bias"] = np.stack(biases) if kind == "gru" else biases[0] + biases[1]
    return found


# Attention ----------------------------------------------------------------------------------------------------------
def _attention_to_canonical(given: Arrays, heads: int) -> dict[str, Array]:
    if "in_proj_weight" in given:
        kernels = np.split(given["in_proj_weight"], 3)
    else:
        kernels = [given[f"{name}_proj_weight"] for name in "qkv" if f"{name}_proj_weight" in given]
    found: dict[str, Array] = {}
    for name, kernel in zip(_PROJECTIONS, kernels, strict=False):
        found[f"{name}_kernel"] = kernel.T.reshape(kernel.shape[1], heads, -1)
    if "in_proj_bias" in given:
        for name, bias in zip(_PROJECTIONS, np.split(given["in_proj_bias"], 3), strict=True):
            found[f"{name}_bias"] = bias.reshape(heads, -1)
    if "out_proj.weight" in given:
        kernel = given["out_proj.weight"]
        found["output_kernel"] = kernel.T.reshape(heads, -1, len(kernel))
    if "out_proj.bias" in given:
        found["output_bias"] = given["out_proj.bias"]
    return found


# Described architectures --------------------------------------------------------------------------------------------
def kind_of(node: ArchitectureLeaf) -> str | None:
    """The kind of a described layer; None for one without weights."""
    match node:
        case Conv():
            return "depthwise_conv" if node.groups == node.inputs == node.outputs > 1 else "conv"
        case BatchNorm():
            return "batch_norm"
        case Dense():
            return "dense"
        case LayerNorm():
            return "layer_norm"
        case SelfAttention():
            return "attention"
    return None


def architecture_to_canonical(architecture: Architecture, weights: Mapping[str, Array]) -> dict[str, Array]:
    """All weights of a described network, ``path.weight`` and so on, as Keras has them, ``path.kernel`` and so on.

    Entries of layers that the network does not have stay as they are, for the model to refuse.
    """
    left = dict(weights)
    converted: dict[str, Array] = {}
    flat: Flatten | None = None
    for path, node in leaves(architecture):
        if isinstance(node, Flatten):
            flat = node
        if isinstance(node, LayerScale | ClassToken | PositionEmbedding) and path in left:
            value = left.pop(path)
            converted[f"{path}.value"] = value.reshape(-1) if isinstance(node, LayerScale) else value
        kind = kind_of(node)
        if kind is None:
            continue
        own = {name.removeprefix(f"{path}."): left.pop(name) for name in list(left) if name.startswith(f"{path}.")}
        heads = node.heads if isinstance(node, SelfAttention) else 1
        arrays = to_canonical(kind, own, heads=heads)
        if isinstance(node, Dense) and flat is not None:
            if "kernel" in arrays:
                arrays["kernel"] = arrays["kernel"][flattened_rows(flat.channels, flat.positions)]
            flat = None
        converted |= {f"{path}.{_in_canonical(kind, name)}": x for name, x in arrays.items()}
    return converted | left


def _in_canonical(kind: str, name: str) -> str:
    """The path of an array within its layer, where the layer has layers of its own."""
    if kind != "attention":
        return name
    part, _, array = name.rpartition("_")
    return f"{'attention_output' if part == 'output' else part}.{array}"
