"""How the two frameworks lay out the weights of one layer, and the way between, exact in both directions.

The canonical layout is Keras': output channels last, an attention's projections separate, a GRU's gates in the order z,
r, h. PyTorch has the output channels first; its names differ as well. All functions take and give NumPy arrays, of any
dtype, and only move numbers, with one exception: PyTorch's LSTM and RNN have two biases that are only ever added, which
are one bias in Keras. Back in PyTorch, the first is that sum and the second zero, so the way from Keras and back is
exact, and the way from PyTorch and back keeps what the layer computes.

==================== ======================================== ========================================================
kind                 PyTorch                                  Keras
==================== ======================================== ========================================================
conv                 weight (O, I / groups, *size), bias      kernel (*size, I / groups, O), bias
depthwise_conv       weight (C * M, 1, *size), bias           kernel (*size, C, M), bias (C * M)
conv_transpose       weight (I, O / groups, *size), bias      kernel (*size, O, I), with zeros between groups; bias
separable_conv       two layers                               depthwise_kernel, pointwise_kernel, bias
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
    _check_names(kind, given, _KINDS[_known(kind)][0])
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


def from_canonical(kind: str, weights: Arrays, *, groups: int = 1, packed: bool = True,
             channels_first: bool = False) -> dict[str, Array]:  # fmt: skip
    """The inverse of :func:`to_canonical`.

    Args:
        packed: whether an attention keeps its three projections in one array, as PyTorch does where query, key and
            value have as many features.

    Raises:
        InvalidInput: no such kind.
        InvalidWeights: an entry that layers of the kind do not have, or numbers that PyTorch has no place for; says
            which.
    """
    given = {name: np.asarray(x) for name, x in weights.items()}
    _check_names(kind, given, _KINDS[_known(kind)][1])
    match kind:
        case "conv_transpose":
            moved = {
                name: _transposed_from_canonical(x, groups) if name == "kernel" else x for name, x in given.items()
            }
        case "depthwise_conv":
            moved = {name: _depthwise_from_canonical(x) if name == "kernel" else x for name, x in given.items()}
        case "layer_norm":
            moved = {name: np.moveaxis(x, -1, 0) if channels_first else x for name, x in given.items()}
        case "prelu":
            moved = {name: _alpha_from_canonical(x) for name, x in given.items()}
        case "lstm" | "gru" | "rnn":
            return _contiguous(_recurrent_from_canonical(kind, given))
        case "attention":
            return _contiguous(_attention_from_canonical(given, packed))
        case _:
            moved = {name: _to_first(kind, name, x) for name, x in given.items()}
    names = {canonical: first for first, canonical in zip(*_KINDS[kind], strict=True)}
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

KINDS = tuple(_KINDS)


def _known(kind: str) -> str:
    if kind not in _KINDS:
        raise InvalidInput(f"no rule to transfer a layer of kind {kind!r}, only {', '.join(_KINDS)}")
    return kind


def _check_names(kind: str, given: Arrays, known: tuple[str, ...]) -> None:
    for name in given:
        if name not in known:
            close = nearest(name, known)
            raise InvalidWeights(f"a layer of kind {kind!r} has no {name!r}, only {', '.join(known)}{close}")


def _contiguous(arrays: Arrays) -> dict[str, Array]:
    return {name: np.array(x, order="C") for name, x in arrays.items()}


# Products -----------------------------------------------------------------------------------------------------------
def _to_last(kind: str, name: str, x: Array) -> Array:
    """The first two axes of a kernel, (O, I, *size), go to the end: (*size, I, O)."""
    if name == "weight" and kind in ("conv", "dense"):
        return x.transpose(*range(2, x.ndim), 1, 0)
    return x


def _to_first(kind: str, name: str, x: Array) -> Array:
    if name == "kernel" and kind in ("conv", "dense"):
        return x.transpose(x.ndim - 1, x.ndim - 2, *range(x.ndim - 2))
    return x


def _depthwise_to_canonical(x: Array, channels: int) -> Array:
    """(C * M, 1, *size) to (*size, C, M): output c * M + m comes from channel c in both frameworks."""
    if channels < 1 or len(x) % channels:
        raise InvalidWeights(f"a depthwise kernel {x.shape} does not have a multiple of {channels} outputs")
    by_channel = x[:, 0].reshape(channels, len(x) // channels, *x.shape[2:])
    return by_channel.transpose(*range(2, by_channel.ndim), 0, 1)


def _depthwise_from_canonical(x: Array) -> Array:
    by_channel = x.transpose(x.ndim - 2, x.ndim - 1, *range(x.ndim - 2))
    return by_channel.reshape(-1, 1, *x.shape[:-2])


def _transposed_to_canonical(x: Array, groups: int) -> Array:
    """(I, O / groups, *size) to (*size, O, I). Keras has no groups: they are blocks, and what lies between is zero."""
    inputs, outputs = x.shape[:2]
    full = np.zeros((inputs, outputs * groups, *x.shape[2:]), x.dtype)
    for rows, columns in _blocks(inputs, outputs * groups, groups):
        full[rows, columns] = x[rows]
    return full.transpose(*range(2, full.ndim), 1, 0)


def _transposed_from_canonical(x: Array, groups: int) -> Array:
    full = x.transpose(x.ndim - 1, x.ndim - 2, *range(x.ndim - 2))
    inputs, outputs = full.shape[:2]
    kept = np.zeros((inputs, outputs // groups, *full.shape[2:]), x.dtype)
    rest = full.copy()
    for rows, columns in _blocks(inputs, outputs, groups):
        kept[rows] = full[rows, columns]
        rest[rows, columns] = 0
    if rest.any():
        raise InvalidWeights(
            f"a transposed convolution in {groups} groups has no place for weights between the groups: "
            "make PyTorch's layer with groups=1"
        )
    return kept


def _blocks(inputs: int, outputs: int, groups: int) -> list[tuple[slice, slice]]:
    rows, columns = inputs // groups, outputs // groups
    return [(slice(g * rows, (g + 1) * rows), slice(g * columns, (g + 1) * columns)) for g in range(groups)]


def split_separable(weights: Arrays) -> tuple[dict[str, Array], dict[str, Array]]:
    """A separable convolution of Keras as the two layers that it is: one of kind depthwise_conv, one of kind conv."""
    bias = {"bias": weights["bias"]} if "bias" in weights else {}
    return {"kernel": weights["depthwise_kernel"]}, {"kernel": weights["pointwise_kernel"], **bias}


def join_separable(depthwise: Arrays, pointwise: Arrays) -> dict[str, Array]:
    """The inverse of :func:`split_separable`; a bias of the depthwise part goes through the pointwise product."""
    joined = {"depthwise_kernel": depthwise["kernel"], "pointwise_kernel": pointwise["kernel"]}
    bias = pointwise.get("bias")
    if "bias" in depthwise:
        kernel = pointwise["kernel"]
        through = depthwise["bias"] @ kernel.reshape(-1, kernel.shape[-1])
        bias = through if bias is None else bias + through
    return joined if bias is None else {**joined, "bias": bias}


def flattened_rows(channels: int, positions: int) -> Array:
    """Where Keras finds, in PyTorch's order, each feature of a flattened image.

    PyTorch flattens (C, H, W) and Keras (H, W, C): ``torch_features[flattened_rows(C, H * W)]`` are Keras' features,
    and ``np.argsort(...)`` of it leads back. The rows of a dense kernel after a flatten move likewise.
    """
    return np.arange(channels * positions).reshape(channels, positions).T.reshape(-1)


def _alpha_from_canonical(x: Array) -> Array:
    """One slope per channel; Keras may have one at each position, which must then be the same at all."""
    by_position = x.reshape(-1, x.shape[-1])
    if (by_position != by_position[0]).any():
        raise InvalidWeights(
            f"a PReLU with a slope at each position {x.shape} has no counterpart in PyTorch (one per channel): "
            "make Keras' layer with shared_axes=[1, 2]"
        )
    slopes: Array = by_position[0]
    return slopes


# Recurrence ---------------------------------------------------------------------------------------------------------
def _reordered(kind: str, x: Array, axis: int) -> Array:
    """PyTorch's gates in Keras' order along an axis, and the other way round, since the order is its own inverse."""
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


def _recurrent_from_canonical(kind: str, given: Arrays) -> dict[str, Array]:
    found = {}
    for ours, theirs in (("kernel", "weight_ih"), ("recurrent_kernel", "weight_hh")):
        if ours in given:
            found[theirs] = _reordered(kind, given[ours].T, 0)
    if "bias" not in given:
        return found
    bias = given["bias"]
    if kind == "gru":
        if bias.ndim != 2:
            raise InvalidWeights(
                "a GRU with reset_after=False computes what no GRU of PyTorch does: make Keras' layer with "
                "reset_after=True, and train it again"
            )
        both = _reordered(kind, bias, 1)
        return {**found, "bias_ih": both[0], "bias_hh": both[1]}
    first = _reordered(kind, bias, 0)
    return {**found, "bias_ih": first, "bias_hh": np.zeros_like(first)}


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


def _attention_from_canonical(given: Arrays, packed: bool) -> dict[str, Array]:
    found: dict[str, Array] = {}
    kernels = {name: x.reshape(len(x), -1).T for name in _PROJECTIONS if (x := given.get(f"{name}_kernel")) is not None}
    if packed and kernels:
        if len({x.shape[1] for x in kernels.values()}) != 1 or len(kernels) != 3:
            raise InvalidWeights(
                "query, key and value with unlike numbers of features do not fit an attention of PyTorch that has one "
                "array for the three: make it with kdim= and vdim="
            )
        found["in_proj_weight"] = np.concatenate([kernels[name] for name in _PROJECTIONS])
    else:
        found |= {f"{name[0]}_proj_weight": x for name, x in kernels.items()}
    biases = [given[f"{name}_bias"].reshape(-1) for name in _PROJECTIONS if f"{name}_bias" in given]
    if biases:
        found["in_proj_bias"] = np.concatenate(biases)
    if "output_kernel" in given:
        kernel = given["output_kernel"]
        found["out_proj.weight"] = kernel.reshape(-1, kernel.shape[-1]).T
    if "output_bias" in given:
        found["out_proj.bias"] = given["output_bias"]
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
