"""Layers in NumPy: what a :class:`agnostic.description.LayerDescription` says, computed in float64.

The judge where a framework has no float64 to be trusted, and the means by which a suspected mistake is tested: change
the description, compute again, and see whether the error goes. Arrays are channels-last, ``(N, *spatial, C)``.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from agnostic.description import LayerDescription
from agnostic.errors import InvalidInput
from agnostic.reference.activations import FUNCTIONS, activate
from agnostic.reference.resampling import resize_matrix
from agnostic.registry import facts_of
from agnostic.text import counted

Array = np.ndarray[Any, Any]
LayerWeights = Mapping[str, Array]
Pairs = Sequence[tuple[int, int]]


def apply(layer: LayerDescription, inputs: Array | Sequence[Array], dtype: npt.DTypeLike = np.float64) -> Array:
    """The output of a layer.

    Args:
        layer: what to compute.
        inputs: one array or several by position, channels-last. Floating point ones are cast to ``dtype``.
        dtype: float64 or float32: the type of weights, products and sums.

    Returns:
        The output, channels-last; of several (a recurrent layer's states) the first.

    Raises:
        InvalidInput: no rule for its kind, or random numbers decide (a dropout in training mode); ask :func:`obstacle`
            first.
    """
    reason = obstacle(layer)
    if reason:
        raise InvalidInput(f"layer {layer.name!r} cannot be computed: {reason}")
    arrays = [inputs] if isinstance(inputs, np.ndarray) else list(inputs)
    arrays = [x.astype(dtype) if x.dtype.kind == "f" else x for x in map(np.asarray, arrays)]
    weights = {name: w.astype(dtype) if w.dtype.kind == "f" else w for name, w in layer.weights.items()}
    if arrays and not layer.kind.startswith("embedding"):
        arrays = [x if x.dtype.kind in "fc" else x.astype(dtype) for x in arrays]
    # Numbers that grow out of range are a layer's result, not a mistake made here.
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        try:
            result = _RULES[layer.kind](layer.config, weights, arrays)
            if layer.kind not in _OWN_ACTIVATION:
                name = layer.config.get("activation") or "linear"
                result = activate(name, result, layer.config.get("activation_options"))
        except (LookupError, TypeError, AttributeError, ArithmeticError) as error:
            # A description may come from a file of anybody.
            raise InvalidInput(
                f"the description of layer {layer.name!r} is of no {layer.kind} ({type(error).__name__}: {error})"
            ) from error
    return result


def obstacle(layer: LayerDescription) -> str | None:
    """Why a layer cannot be computed from its description, or None."""
    if layer.kind not in _RULES:
        return f"there is no rule for kind {layer.kind!r}"
    name = layer.config.get("activation") or "linear"
    if layer.kind != "activation" and name not in FUNCTIONS:
        return f"its activation {layer.config.get('activation_name', name)!r} is unknown"
    if layer.kind == "activation" and name not in FUNCTIONS and name != "prelu":
        return f"the activation {layer.config.get('activation_name', name)!r} is unknown"
    if layer.kind in ("dropout", "stochastic_depth", "noise") and layer.config.get("training"):
        return "it draws random numbers, since it is in training mode" if layer.config.get("rate") else None
    return None


def chain(layers: Sequence[LayerDescription], inputs: Array | Sequence[Array]) -> Array:
    """The output of layers one after the other; the first gets all the inputs, each other one what the last gave."""
    result: Array | Sequence[Array] = inputs
    for layer in layers:
        result = apply(layer, result)
    if not isinstance(result, np.ndarray):
        result = result[0]
    return result


# Windows --------------------------------------------------------------------------------------------------------------
def same_padding(size: int, kernel: int, stride: int, dilation: int = 1) -> tuple[int, int]:
    """TensorFlow's SAME: so much that ceil(size / stride) windows fit; the odd one goes to the end."""
    total = max((-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2


def explicit_padding(
    padding: Any, sizes: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilation: Sequence[int]
) -> list[tuple[int, int]]:
    """Padding of any form as a (low, high) pair for each spatial axis."""
    if padding == "valid":
        return [(0, 0)] * len(sizes)
    if padding == "same":
        return [same_padding(*args) for args in zip(sizes, kernel, strides, dilation, strict=True)]
    return [(int(low), int(high)) for low, high in padding]


_MODES: Mapping[str, Any] = {"zeros": "constant", "replicate": "edge", "circular": "wrap"}


def _pad(x: Array, pairs: Pairs, mode: str = "zeros", value: float = 0.0) -> Array:
    """Pad the spatial axes; a negative number cuts."""
    cut = [slice(None)]
    cut += [slice(-min(low, 0), size + min(high, 0)) for (low, high), size in zip(pairs, x.shape[1:-1], strict=True)]
    x = x[tuple(cut)]
    widths = [(0, 0), *((max(low, 0), max(high, 0)) for low, high in pairs), (0, 0)]
    if not any(map(any, widths)):
        return x
    mode = _MODES.get(mode, mode)
    if mode == "constant":
        return np.pad(x, widths, constant_values=value)
    return np.pad(x, widths, mode=mode)  # type: ignore[call-overload,no-any-return]


def _outputs(x: Array, kernel: Sequence[int], strides: Sequence[int], dilation: Sequence[int]) -> list[int]:
    return [
        max((n - (k - 1) * d - 1) // s + 1, 0)
        for n, k, s, d in zip(x.shape[1:-1], kernel, strides, dilation, strict=True)
    ]


def _taps(
    x: Array, kernel: Sequence[int], strides: Sequence[int], dilation: Sequence[int], counts: Sequence[int]
) -> Iterator[tuple[tuple[int, ...], Array]]:
    """Each place of the kernel, and what all windows see there: (N, *counts, ...), without a copy."""
    for place in itertools.product(*map(range, kernel)):
        starts = [p * d for p, d in zip(place, dilation, strict=True)]
        index = [slice(a, a + (n - 1) * s + 1, s) for a, n, s in zip(starts, counts, strides, strict=True)]
        yield place, x[(slice(None), *index)]


def _product(x: Array, kernel: Array, strides: Sequence[int], dilation: Sequence[int]) -> Array:
    """The convolution of a padded array with (*size, I, O), without groups."""
    size, (inputs, outputs) = kernel.shape[:-2], kernel.shape[-2:]
    counts = _outputs(x, size, strides, dilation)
    result = np.zeros((len(x), *counts, outputs), np.result_type(x, kernel))
    if not result.size:
        return result
    # Along the last axis a window's pixels and channels lie one after the other, so that one product takes a whole row
    # of the kernel; an image at a time, since a window is a copy.
    rows = kernel.reshape(*size[:-1], -1, outputs) if dilation[-1] == 1 else None
    for image, out in zip(x, result, strict=True):
        if rows is None:
            for place, tap in _taps(image[None], size, strides, dilation, counts):
                out += _matrix(tap[0], kernel[place])
            continue
        row = sliding_window_view(image.reshape(*image.shape[:-2], -1), size[-1] * inputs, axis=-1)
        row = row[..., :: strides[-1] * inputs, :][..., : counts[-1], :]
        for place, tap in _taps(row[None], size[:-1], strides[:-1], dilation[:-1], counts[:-1]):
            out += _matrix(tap[0], rows[place])
    return result


def _matrix(x: Array, kernel: Array) -> Array:
    """``x @ kernel`` as one product of matrices, copied first: of anything else NumPy makes many small ones."""
    return (x.reshape(-1, x.shape[-1]) @ kernel).reshape(*x.shape[:-1], -1)


def _convolution(config: Mapping[str, Any], kernel: Array, x: Array) -> Array:
    size, groups = kernel.shape[:-2], int(config.get("groups", 1))
    strides, dilation = config["strides"], config["dilation"]
    inputs = kernel.shape[-2] * groups
    if x.shape[-1] != inputs:
        raise InvalidInput(f"a convolution of {inputs} channels is given {x.shape[-1]}")
    pairs = explicit_padding(config["padding"], x.shape[1:-1], size, strides, dilation)
    x = _pad(x, pairs, config.get("padding_mode", "zeros"))
    if groups == 1:
        return _product(x, kernel, strides, dilation)
    parts = zip(np.split(x, groups, axis=-1), np.split(kernel, groups, axis=-1), strict=True)
    return np.concatenate([_product(part, w, strides, dilation) for part, w in parts], axis=-1)


def _biased(result: Array, weights: LayerWeights) -> Array:
    return result + weights["bias"] if "bias" in weights else result


def _conv(config: Mapping[str, Any], weights: LayerWeights, inputs: list[Array]) -> Array:
    return _biased(_convolution(config, weights["kernel"], inputs[0]), weights)


def _depthwise(config: Mapping[str, Any], kernel: Array, x: Array) -> Array:
    size, strides, dilation = kernel.shape[:-2], config["strides"], config["dilation"]
    if x.shape[-1] != kernel.shape[-2]:
        raise InvalidInput(f"a depthwise convolution of {kernel.shape[-2]} channels is given {x.shape[-1]}")
    pairs = explicit_padding(config["padding"], x.shape[1:-1], size, strides, dilation)
    x = _pad(x, pairs, config.get("padding_mode", "zeros"))
    counts = _outputs(x, size, strides, dilation)
    result = np.zeros((len(x), *counts, *kernel.shape[-2:]), np.result_type(x, kernel))
    for place, tap in _taps(x, size, strides, dilation, counts):
        result += tap[..., None] * kernel[place]
    return result.reshape(*result.shape[:-2], -1)


def _depthwise_conv(config: Mapping[str, Any], weights: LayerWeights, inputs: list[Array]) -> Array:
    return _biased(_depthwise(config, weights["kernel"], inputs[0]), weights)


def _separable_conv(config: Mapping[str, Any], weights: LayerWeights, inputs: list[Array]) -> Array:
    spread = _depthwise(config, weights["depthwise_kernel"], inputs[0])
    pointwise = weights["pointwise_kernel"]
    return _biased(spread @ pointwise.reshape(pointwise.shape[-2:]), weights)


def _conv_transpose(config: Mapping[str, Any], weights: LayerWeights, inputs: list[Array]) -> Array:
    x, kernel = inputs[0], weights["kernel"]
    size, strides, dilation = kernel.shape[:-2], config["strides"], config["dilation"]
    if x.shape[-1] != kernel.shape[-1]:
        raise InvalidInput(f"a transposed convolution of {kernel.shape[-1]} channels is given {x.shape[-1]}")
    full = [(n - 1) * s + (k - 1) * d + 1 for n, s, k, d in zip(x.shape[1:-1], strides, size, dilation, strict=True)]
    result = np.zeros((len(x), *full, kernel.shape[-2]), np.result_type(x, kernel))
    # The adjoint of the convolution: what it gathers is scattered.
    for place, tap in _taps(result, size, strides, dilation, x.shape[1:-1]):
        tap += x @ kernel[place].T  # a view: the sum lands in ``result``
    return _biased(_pad(result, [(-low, -high) for low, high in config["crop"]]), weights)


def _dense(config: Mapping[str, Any], weights: LayerWeights, inputs: list[Array]) -> Array:
    if inputs[0].shape[-1] != len(weights["kernel"]):
        raise InvalidInput(
            f"a dense layer of {counted(len(weights['kernel']), 'input')} is given {inputs[0].shape[-1]}"
        )
    return _biased(inputs[0] @ weights["kernel"], weights)


def _einsum_dense(config: Mapping[str, Any], weights: LayerWeights, inputs: list[Array]) -> Array:
    return _biased(np.einsum(config["equation"], inputs[0], weights["kernel"], optimize=True), weights)


# Norms ----------------------------------------------------------------------------------------------------------------
def _scaled(x: Array, weights: LayerWeights, scale: str = "gamma") -> Array:
    x = x * weights[scale] if scale in weights else x
    return x + weights["beta"] if "beta" in weights else x


def _batch_norm(config: Mapping[str, Any], weights: LayerWeights, inputs: list[Array]) -> Array:
    x = inputs[0]
    if config.get("training"):
        axes = tuple(range(x.ndim - 1))
        mean, variance = x.mean(axis=axes), x.var(axis=axes)
    else:
        mean, variance = weights["moving_mean"], weights["moving_variance"]
    return _scaled((x - mean) / np.sqrt(variance + config["epsilon"]), weights)


def _layer_norm(config: Mapping[str, Any], weights: LayerWeights, inputs: list[Array]) -> Array:
    x, axes = inputs[0], tuple(config["axes"])
    mean, variance = x.mean(axis=axes, keepdims=True), x.var(axis=axes, keepdims=True)
    return _scaled((x - mean) / np.sqrt(variance + config["epsilon"]), weights)


def _rms_norm(config: Mapping[str, Any], weights: LayerWeights, inputs: list[Array]) -> Array:
    x = inputs[0]
    square = np.mean(np.square(x), axis=tuple(config["axes"]), keepdims=True)
    return _scaled(x / np.sqrt(square + config["epsilon"]), weights, "scale")


def _group_norm(config: Mapping[str, Any], weights: LayerWeights, inputs: list[Array]) -> Array:
    x, groups = inputs[0], int(config["groups"])
    groups = x.shape[-1] if groups < 0 else groups
    if x.shape[-1] % groups:
        raise InvalidInput(f"{x.shape[-1]} channels cannot be split into {groups} groups")
    split = x.reshape(*x.shape[:-1], groups, -1)
    axes = (*range(1, x.ndim - 1), x.ndim)
    mean, variance = split.mean(axis=axes, keepdims=True), split.var(axis=axes, keepdims=True)
    return _scaled(((split - mean) / np.sqrt(variance + config["epsilon"])).reshape(x.shape), weights)


def _unit_norm(config: Mapping[str, Any], weights: LayerWeights, inputs: list[Array]) -> Array:
    x = inputs[0]
    square = np.sum(np.square(x), axis=tuple(config["axes"]), keepdims=True)
    result: Array = x / np.sqrt(np.maximum(square, 1e-12))
    return result


def _normalization(config: Mapping[str, Any], weights: LayerWeights, inputs: list[Array]) -> Array:
    deviation = np.maximum(np.sqrt(weights["variance"]), 1e-7)
    result: Array
    if config.get("invert"):
        result = weights["mean"] + inputs[0] * deviation
    else:
        result = (inputs[0] - weights["mean"]) / deviation
    return result


def _rescaling(config: Mapping[str, Any], weights: LayerWeights, inputs: list[Array]) -> Array:
    dtype = inputs[0].dtype
    result: Array = inputs[0] * np.asarray(config["factor"], dtype) + np.asarray(config["offset"], dtype)
    return result


def _scale(config: Mapping[str, Any], weights: LayerWeights, inputs: list[Array]) -> Array:
    return _scaled(inputs[0], weights)


# Activations and pools ------------------------------------------------------------------------------------------------
def native_axis(axis: int, ndim: int, config: Mapping[str, Any]) -> int:
    """Where an axis of the native layout is in the channels-last one. Images alone have another layout there."""
    if config.get("data_format") != "channels_first" or ndim < 4:
        return axis
    axis %= ndim
    return 0 if axis == 0 else ndim - 1 if axis == 1 else axis - 1


def _activation(config: Mapping[str, Any], weights: LayerWeights, inputs: list[Array]) -> Array:
    x, name, options = inputs[0], config.get("activation") or "linear", dict(config.get("activation_options") or {})
    if name == "prelu":
        return np.where(x >= 0, x, weights["alpha"] * x)
    if isinstance(options.get("axis"), int):
        options["axis"] = native_axis(options["axis"], x.ndim, config)
    return activate(name, x, options)


def _windows(config: Mapping[str, Any], x: Array) -> tuple[list[tuple[int, int]], list[int], list[int]]:
    """Padding, counts of windows, and what ceil_mode adds at the end."""
    size, strides = config["pool_size"], config["strides"]
    dilation = config.get("dilation") or (1,) * len(size)
    pairs = explicit_padding(config["padding"], x.shape[1:-1], size, strides, dilation)
    counts, extra = [], []
    for n, k, s, d, (low, high) in zip(x.shape[1:-1], size, strides, dilation, pairs, strict=True):
        span = (k - 1) * d + 1
        room = n + low + high - span
        count = (-(-room // s) if config.get("ceil_mode") else room // s) + 1
        # A window must begin inside the image or the padding before it.
        if config.get("ceil_mode") and (count - 1) * s >= n + low:
            count -= 1
        counts.append(max(count, 0))
        extra.append(max((count - 1) * s + span - (n + low + high), 0))
    return pairs, counts, extra


def _border(config: Mapping[str, Any]) -> float:
    value = config.get("padding_value")
    return -math.inf if value is None else float(value)


def _max_pool(config: Mapping[str, Any], weights: LayerWeights, inputs: list[Array]) -> Array:
    x = inputs[0]
    pairs, counts, extra = _windows(config, x)
    size = config["pool_size"]
    dilation = config.get("dilation") or (1,) * len(size)
    wide = [(low, high + more) for (low, high), more in zip(pairs, extra, strict=True)]
    # Zero padding, which is a mistake, can be asked for.
    padded = _pad(x, wide, value=_border(config))
    taps = (tap for _, tap in _taps(padded, size, config["strides"], dilation, counts))
    return functools.reduce(np.maximum, taps)


def _average_pool(config: Mapping[str, Any], weights: LayerWeights, inputs: list[Array]) -> Array:
    x = inputs[0]
    pairs, counts, extra = _windows(config, x)
    size, strides = config["pool_size"], config["strides"]
    if config.get("uneven") == "replicate" and any(low != high for low, high in pairs):
        x, pairs = _pad(x, pairs, "replicate"), [(0, 0)] * len(pairs)
    ones = np.ones((1, *x.shape[1:-1], 1), x.dtype)
    # What is averaged over: the image, or the padding as well, but never what ceil_mode adds.
    counted = _pad(ones, pairs, value=1.0 if config.get("count_include_pad") else 0.0)
    beyond = [(0, more) for more in extra]
    wide = [(low, high + more) for (low, high), more in zip(pairs, extra, strict=True)]
    once = (1,) * len(size)
    total = _summed(_taps(_pad(x, wide), size, strides, once, counts))
    divisor = config.get("divisor")
    if divisor is not None:
        return total / float(divisor)
    return total / _summed(_taps(_pad(counted, beyond), size, strides, once, counts))


def _summed(taps: Iterator[tuple[tuple[int, ...], Array]]) -> Array:
    return functools.reduce(np.add, (tap for _, tap in taps))


def _global(function: Callable[..., Array]) -> Callable[[Mapping[str, Any], LayerWeights, list[Array]], Array]:
    def rule(config: Mapping[str, Any], weights: LayerWeights, inputs: list[Array]) -> Array:
        x = inputs[0]
        return function(x, axis=tuple(range(1, x.ndim - 1)), keepdims=bool(config.get("keepdims")))

    return rule


def _adaptive_pool(config: Mapping[str, Any], weights: LayerWeights, inputs: list[Array]) -> Array:
    x = inputs[0]
    reduce = np.max if config["mode"] == "max" else np.mean
    for axis, wanted in enumerate(config["output_size"], 1):
        n = x.shape[axis]
        m = n if wanted is None else wanted
        bounds = [(i * n // m, -(-(i + 1) * n // m)) for i in range(m)]
        parts = [reduce(x.take(range(a, b), axis), axis=axis) for a, b in bounds]
        x = np.stack(parts, axis=axis)
    return x


# Shapes ---------------------------------------------------------------------------------------------------------------
def _flatten(config: Mapping[str, Any], weights: LayerWeights, inputs: list[Array]) -> Array:
    x = inputs[0]
    if config.get("order") == "channels_first" and x.ndim > 2:
        x = np.moveaxis(x, -1, 1)
    start, end = config.get("start", 1) % x.ndim, config.get("end", -1) % x.ndim
    return x.reshape(*x.shape[:start], -1, *x.shape[end + 1 :])


def _reshape(config: Mapping[str, Any], weights: LayerWeights, inputs: list[Array]) -> Array:
    x = inputs[0]
    if "axis" in config:  # one axis becomes several
        axis = config["axis"] % x.ndim
        x = x.reshape(*x.shape[:axis], *config["shape"], *x.shape[axis + 1 :])
        return np.moveaxis(x, 1, -1) if x.ndim > 3 and config.get("data_format") == "channels_first" else x
    return x.reshape(len(x), *config["shape"])


def _permute(config: Mapping[str, Any], weights: LayerWeights, inputs: list[Array]) -> Array:
    # Between the two layouts of an image nothing moves, since arrays are channels-last here whatever they are there.
    if config.get("data_format") == "channels_first":
        return inputs[0]
    return inputs[0].transpose(0, *config["dims"])


def _padding(config: Mapping[str, Any], weights: LayerWeights, inputs: list[Array]) -> Array:
    return _pad(inputs[0], config["padding"], config.get("mode", "constant"), float(config.get("value", 0.0)))


def _crop(config: Mapping[str, Any], weights: LayerWeights, inputs: list[Array]) -> Array:
    return _pad(inputs[0], [(-low, -high) for low, high in config["padding"]])


def _resize(config: Mapping[str, Any], weights: LayerWeights, inputs: list[Array]) -> Array:
    x = inputs[0]
    rank = x.ndim - 2
    size, scale = config.get("size"), config.get("scale")
    sizes = (size,) * rank if isinstance(size, int) else size
    scales = (scale,) * rank if isinstance(scale, int | float) else scale
    for axis in range(1, rank + 1):
        n = x.shape[axis]
        factor = None if scales is None else float(scales[axis - 1])
        m = int(n * factor) if factor is not None else int(sizes[axis - 1])  # type: ignore[index]
        matrix = resize_matrix(
            n, m, config["interpolation"], align_corners=bool(config.get("align_corners")),
            half_pixel=bool(config.get("half_pixel", True)), antialias=bool(config.get("antialias")),
            scale=factor, cubic=float(config.get("cubic", -0.75)), edges=str(config.get("edges", "clamp")),
        )  # fmt: skip
        x = np.moveaxis(np.tensordot(x, matrix.astype(x.dtype), (axis, 1)), -1, axis)
    return x


def _pixel_shuffle(config: Mapping[str, Any], weights: LayerWeights, inputs: list[Array]) -> Array:
    x, r = inputs[0], int(config["factor"])
    n, h, w, c = x.shape
    if config.get("inverse"):
        blocks = x.reshape(n, h // r, r, w // r, r, c)
        return blocks.transpose(0, 1, 3, 5, 2, 4).reshape(n, h // r, w // r, c * r * r)
    # Channels are (C, r, r) in PyTorch, (r, r, C) in TensorFlow's depth_to_space.
    if config.get("order") == "channels_last":
        blocks = x.reshape(n, h, w, r, r, c // (r * r))
        return blocks.transpose(0, 1, 3, 2, 4, 5).reshape(n, h * r, w * r, c // (r * r))
    blocks = x.reshape(n, h, w, c // (r * r), r, r)
    return blocks.transpose(0, 1, 4, 2, 5, 3).reshape(n, h * r, w * r, c // (r * r))


def _repeat(config: Mapping[str, Any], weights: LayerWeights, inputs: list[Array]) -> Array:
    return np.repeat(inputs[0][:, None], int(config["count"]), axis=1)


def _same(config: Mapping[str, Any], weights: LayerWeights, inputs: list[Array]) -> Array:
    return inputs[0]


def _fold(function: Callable[[Array, Array], Array]) -> Callable[[Mapping[str, Any], LayerWeights, list[Array]], Array]:
    return lambda config, weights, inputs: functools.reduce(function, inputs)


def _average(config: Mapping[str, Any], weights: LayerWeights, inputs: list[Array]) -> Array:
    return functools.reduce(np.add, inputs) / len(inputs)


def _concatenate(config: Mapping[str, Any], weights: LayerWeights, inputs: list[Array]) -> Array:
    return np.concatenate(inputs, axis=native_axis(int(config.get("axis", -1)), inputs[0].ndim, config))


# Sequences ------------------------------------------------------------------------------------------------------------
def _embedding(config: Mapping[str, Any], weights: LayerWeights, inputs: list[Array]) -> Array:
    return weights["embeddings"][inputs[0].astype(np.int64)]


def _recurrent(kind: str) -> Callable[[Mapping[str, Any], LayerWeights, list[Array]], Array]:
    cell = {"lstm": _lstm_cell, "gru": _gru_cell, "rnn": _rnn_cell}[kind]

    def rule(config: Mapping[str, Any], weights: LayerWeights, inputs: list[Array]) -> Array:
        x = inputs[0]
        directions = ("", "backward.") if config.get("bidirectional") else ("",)
        last = [np.zeros((len(x), 0), x.dtype)]
        for level in range(int(config.get("layers", 1))):
            prefix = f"{level}." if level else ""
            runs, last = [], []
            for direction in directions:
                names = {n.removeprefix(prefix + direction): w for n, w in weights.items()
                         if n.startswith(prefix + direction)}  # fmt: skip
                turned = bool(direction) != bool(config.get("go_backwards"))
                outputs = _run(cell, config, names, x[:, ::-1] if turned else x)
                last.append(outputs[:, -1])
                runs.append(outputs[:, ::-1] if direction else outputs)
            x = _merged(runs, config.get("merge", "concat"))
        return x if config.get("return_sequences", True) else _merged(last, config.get("merge", "concat"))

    return rule


def _merged(runs: list[Array], mode: str) -> Array:
    if len(runs) == 1:
        return runs[0]
    if mode == "concat":
        return np.concatenate(runs, axis=-1)
    return {"sum": runs[0] + runs[1], "ave": (runs[0] + runs[1]) / 2, "mul": runs[0] * runs[1]}[mode]


def _run(cell: Callable[..., tuple[Array, Array]], config: Mapping[str, Any], weights: LayerWeights, x: Array) -> Array:
    # With a projection what is handed on is narrower than the cell.
    h = np.zeros((len(x), len(weights["recurrent_kernel"])), x.dtype)
    state = np.zeros((len(x), int(config["units"])), x.dtype)
    projected = x @ weights["kernel"]  # all time steps at once
    outputs = []
    for t in range(x.shape[1]):
        h, state = cell(config, weights, projected[:, t], h, state)
        if "projection" in weights:
            h = h @ weights["projection"]
        outputs.append(h)
    return np.stack(outputs, axis=1)


def _activations(config: Mapping[str, Any]) -> tuple[Callable[[Array], Array], Callable[[Array], Array]]:
    inner = functools.partial(activate, config.get("recurrent_activation") or "sigmoid")
    return inner, functools.partial(activate, config.get("activation") or "tanh")


def _lstm_cell(config: Mapping[str, Any], weights: LayerWeights, x: Array, h: Array, c: Array) -> tuple[Array, Array]:
    # Hochreiter, Schmidhuber 1997, with the forget gate of Gers et al. 2000.
    inner, outer = _activations(config)
    i, f, g, o = np.split(_biased(x + h @ weights["recurrent_kernel"], weights), 4, axis=-1)
    c = inner(f) * c + inner(i) * outer(g)
    return inner(o) * outer(c), c


def _gru_cell(config: Mapping[str, Any], weights: LayerWeights, x: Array, h: Array, s: Array) -> tuple[Array, Array]:
    # Cho et al. 2014; version 1 of the paper resets the state before the product, version 3 after it.
    inner, outer = _activations(config)
    kernel, bias = weights["recurrent_kernel"], weights.get("bias")
    units = len(kernel)
    if bias is None:
        bias = np.zeros((2, 3 * units), x.dtype)
    elif bias.ndim == 1:
        bias = np.stack([bias, np.zeros_like(bias)])
    xz, xr, xh = np.split(x + bias[0], 3, axis=-1)
    if config.get("reset_after", True):
        hz, hr, hh = np.split(h @ kernel + bias[1], 3, axis=-1)
        z, r = inner(xz + hz), inner(xr + hr)
        candidate = outer(xh + r * hh)
    else:
        # There is one bias here; of two, the sum is what it would be.
        hz, hr = np.split(h @ kernel[:, : 2 * units] + bias[1, : 2 * units], 2, axis=-1)
        z, r = inner(xz + hz), inner(xr + hr)
        candidate = outer(xh + (r * h) @ kernel[:, 2 * units :] + bias[1, 2 * units :])
    h = z * h + (1 - z) * candidate
    return h, h


def _rnn_cell(config: Mapping[str, Any], weights: LayerWeights, x: Array, h: Array, s: Array) -> tuple[Array, Array]:
    _, outer = _activations(config)
    h = outer(_biased(x + h @ weights["recurrent_kernel"], weights))
    return h, h


def _attention(config: Mapping[str, Any], weights: LayerWeights, inputs: list[Array]) -> Array:
    # An input that is not given is the one before it.
    given = [*inputs, *inputs[-1:] * 2][:3]
    heads = {}
    for name, x in zip(facts_of(str(config.get("framework"))).attention_inputs, given, strict=True):
        projected = np.tensordot(x, weights[f"{name}_kernel"], (-1, 0))
        heads[name] = projected + weights[f"{name}_bias"] if f"{name}_bias" in weights else projected
    scores = np.einsum("nqhd,nkhd->nhqk", heads["query"], heads["key"], optimize=True) * config["scale"]
    if config.get("causal"):
        q, k = scores.shape[-2:]
        scores = np.where(np.tri(q, k, k - q, dtype=bool), scores, -math.inf)
    mixed = np.einsum("nhqk,nkhd->nqhd", activate("softmax", scores), heads["value"], optimize=True)
    result = np.tensordot(mixed, weights["output_kernel"], ((-2, -1), (0, 1)))
    return result + weights["output_bias"] if "output_bias" in weights else result


_RULES: Mapping[str, Callable[[Mapping[str, Any], LayerWeights, list[Array]], Array]] = {
    "conv": _conv,
    "depthwise_conv": _depthwise_conv,
    "separable_conv": _separable_conv,
    "conv_transpose": _conv_transpose,
    "dense": _dense,
    "einsum_dense": _einsum_dense,
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "group_norm": _group_norm,
    "unit_norm": _unit_norm,
    "normalization": _normalization,
    "rescaling": _rescaling,
    "scale": _scale,
    "activation": _activation,
    "max_pool": _max_pool,
    "average_pool": _average_pool,
    "global_average_pool": _global(np.mean),
    "global_max_pool": _global(np.max),
    "adaptive_pool": _adaptive_pool,
    "flatten": _flatten,
    "reshape": _reshape,
    "permute": _permute,
    "padding": _padding,
    "crop": _crop,
    "resize": _resize,
    "pixel_shuffle": _pixel_shuffle,
    "repeat": _repeat,
    "dropout": _same,
    "stochastic_depth": _same,
    "noise": _same,
    "embedding": _embedding,
    "lstm": _recurrent("lstm"),
    "gru": _recurrent("gru"),
    "rnn": _recurrent("rnn"),
    "attention": _attention,
    "add": _fold(np.add),
    "subtract": _fold(np.subtract),
    "multiply": _fold(np.multiply),
    "maximum": _fold(np.maximum),
    "minimum": _fold(np.minimum),
    "average": _average,
    "concatenate": _concatenate,
}

_OWN_ACTIVATION = frozenset({"activation", "lstm", "gru", "rnn"})
"""Kinds whose rule applies the activation itself."""
