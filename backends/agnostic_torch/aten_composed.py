"""Operators of torch that are several of the vocabulary: short-time spectra, views of memory, reductions by index."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from agnostic.program.nodes import Value
from agnostic_torch.aten import Call, Unreadable, reads


# Short-time spectra ---------------------------------------------------------------------------------------------------
def _window(c: Call) -> Value | None:
    """The window with zeros around it, as long as the transform; None where all places count alike."""
    length = int(c["n_fft"])
    own = length if c["win_length"] is None else int(c["win_length"])
    window = c["window"]
    if window is None and own == length:
        return None
    if window is None:
        window = c.emit("full", 1, shape=(own,), dtype="float32")
    low = (length - own) // 2
    return window if own == length else c.emit("pad", window, widths=((low, length - own - low),))


def _hop(c: Call) -> int:
    return int(c["n_fft"]) // 4 if c["hop_length"] is None else int(c["hop_length"])


@reads("stft")
def _stft(c: Call) -> Value:
    """Spectra of windows of a signal, (..., frequencies, times)."""
    x, window, length = c["self"], _window(c), int(c["n_fft"])
    if c.get("center") or c.get("align_to_window"):
        raise Unreadable("pads inside the operator")
    half = c["onesided"] if c["onesided"] is not None else not x.dtype.startswith("complex")
    frames = c.emit("unfold", x, axis=len(x.shape) - 1, length=length, step=_hop(c))
    frames = frames if window is None else c.emit("multiply", frames, window)
    last = (len(frames.shape) - 1,)
    norm = "ortho" if c["normalized"] else "backward"
    y = c.emit("fourier", frames, axes=last, half=bool(half), norm=norm, dtype="complex64")
    y = c.emit("permute", y, axes=(*range(len(y.shape) - 2), last[0], last[0] - 1))
    return y if c["return_complex"] else c.emit("as_real", y, dtype=x.dtype)


@reads("istft")
def _istft(c: Call) -> Value:
    """The signal whose windows have these spectra: windows are added where they overlap, and divided by their sum."""
    x, window, length, hop = c["self"], _window(c), int(c["n_fft"]), _hop(c)
    if c["return_complex"] or c["onesided"] is False:
        raise Unreadable("gives a complex signal")
    single = len(x.shape) == 2
    x = c.emit("reshape", x, shape=(1, *x.shape)) if single else x
    count, real = x.shape[2], {"complex128": "float64"}.get(x.dtype, "float32")
    norm = "ortho" if c["normalized"] else "backward"
    spectra = c.emit("permute", x, axes=(0, 2, 1))
    frames = c.emit("fourier", spectra, axes=(2,), inverse=True, half=True, length=length, norm=norm, dtype=real)
    total = length + hop * (count - 1)
    sums = {"sizes": (1, total), "kernel": (1, length), "stride": (1, hop), "padding": (0, 0), "dilation": (1, 1)}
    if window is None:
        window = c.emit("full", 1, shape=(length,), dtype=real)
    frames = c.emit("permute", c.emit("multiply", frames, window), axes=(0, 2, 1))
    signal = c.emit("reshape", c.emit("overlap_add", frames, **sums), shape=(-1, total))
    squares = c.emit("reshape", c.emit("unary", window, function="square"), shape=(1, length, 1))
    squares = c.emit("expand", squares, shape=(1, length, count))
    envelope = c.emit("reshape", c.emit("overlap_add", squares, **sums), shape=(1, total))
    start = length // 2 if c["center"] else 0
    stop = total - start if c["length"] is None else start + int(c["length"])
    if stop > total:
        raise Unreadable("gives a longer signal than its windows cover")
    cut = {"axis": 1, "start": start, "stop": stop}
    y = c.emit("divide", c.emit("slice", signal, **cut), c.emit("slice", envelope, **cut))
    return c.emit("reshape", y, shape=(-1,)) if single else y


# Memory ---------------------------------------------------------------------------------------------------------------
@reads("as_strided", "as_strided_copy")
def _as_strided(c: Call) -> Value:
    """The numbers at flat places of an array, which lies in memory as its axes are ordered."""
    if not c.node.args:
        raise Unreadable("looks at memory, whose order a recorded run does not keep")
    x, known = c["self"], c.node.args[0].meta["val"]  # type: ignore[union-attr]
    sizes, strides = ([int(n) for n in c[name]] for name in ("size", "stride"))
    offset = 0 if c["storage_offset"] is None else int(c["storage_offset"]) - int(known.storage_offset())
    if not known.is_contiguous() or offset < 0:
        raise Unreadable("looks at memory beyond its operand's axes")
    # Axes in front that are the operand's own stay, so that any batch size is taken.
    kept, inner = 0, math.prod(x.shape)
    while kept < min(len(sizes), len(x.shape)) and sizes[kept] == x.shape[kept]:
        inner //= x.shape[kept]
        behind = sum((n - 1) * s for n, s in zip(sizes[kept + 1 :], strides[kept + 1 :], strict=True))
        if strides[kept] != inner or offset + behind >= inner:
            inner *= x.shape[kept]
            break
        kept += 1
    places = np.full((), offset, np.int64)
    for n, stride in zip(sizes[kept:], strides[kept:], strict=True):
        places = places[..., None] + np.arange(n) * stride
    if places.size and places.max() >= inner:
        raise Unreadable("looks at memory beyond its operand's axes")
    table = c.builder.leaf(f"constant_{len(c.builder.leaves)}", "constant", places.shape, "int64", places)
    line = c.emit("reshape", x, shape=(*x.shape[:kept], inner))
    return c.emit("take", line, table, axis=kept)


# Reductions by index --------------------------------------------------------------------------------------------------
_SCATTERED = {"sum": "sum", "add": "sum", "mean": "sum", "prod": "product", "multiply": "product", "amax": "max",
              "amin": "min"}  # fmt: skip
_NEUTRAL = {"sum": 0, "product": 1, "max": -math.inf, "min": math.inf}


def _neutral(function: str, dtype: str) -> float:
    """What leaves the other of two numbers as it is."""
    value = _NEUTRAL[function]
    if not math.isinf(value) or dtype.startswith(("float", "bfloat")):
        return value
    info = torch.iinfo(getattr(torch, dtype))
    return info.min if value < 0 else info.max


@reads("scatter_reduce", "index_reduce")
def _scatter_reduce(c: Call) -> Value:
    """Sums, means, products or extremes of numbers that are sent to places, with those that are there or without."""
    x, ids = c["self"], c["index"]
    values = c.get("src") if c.get("src") is not None else c["source"]
    axis = int(c["dim"]) % max(len(x.shape), 1)
    if c.name.startswith("index"):
        ids = c.emit("reshape", ids, shape=tuple(-1 if a == axis else 1 for a in range(len(values.shape))))
        ids = c.emit("expand", ids, shape=values.shape)
    return _sent(c, x, ids, values, axis)


def _sent(c: Call, x: Value, ids: Value, values: Value, axis: int) -> Value:
    function, included = _SCATTERED[c["reduce"]], bool(c["include_self"])

    def scattered(start: Value, numbers: Any, word: str) -> Value:
        return c.emit("scatter", start, ids, numbers, axis=axis, accumulate=True, function=word)

    start = x
    if not included:
        start = c.emit("scatter", x, ids, _neutral(function, x.dtype), axis=axis, accumulate=False)
    y = scattered(start, values, function)
    if c["reduce"] != "mean":
        return y
    ones = c.emit("full", 1, shape=values.shape, dtype=x.dtype)
    count = scattered(c.emit("full", 1 if included else 0, shape=x.shape, dtype=x.dtype), ones, "sum")
    count = count if included else c.emit("maximum", count, 1)
    if x.dtype.startswith(("int", "uint")):
        return c.emit("binary", y, count, function="floor_divide")
    return c.emit("divide", y, count)


# Sorted places --------------------------------------------------------------------------------------------------------
@reads("searchsorted", "bucketize")
def _searchsorted(c: Call) -> Value:
    """How many numbers of a sorted sequence lie before each number."""
    line, x = (c["boundaries"], c["self"]) if "boundaries" in c.given else (c["sorted_sequence"], c["self"])
    if c.get("sorter") is not None:
        raise Unreadable("is given an order")
    right = bool(c["right"]) or c.get("side") == "right"
    if not isinstance(x, Value):
        x = c.emit("full", x, shape=(), dtype=line.dtype)
    row = c.emit("reshape", x, shape=(*x.shape, 1))
    if len(line.shape) > 1:
        line = c.emit("reshape", line, shape=(*line.shape[:-1], 1, line.shape[-1]))
    before = c.emit("binary", line, row, function="less_equal" if right else "less")
    count = c.emit("cast", before, dtype=c.dtype)
    return c.emit("reduce", count, function="sum", axes=(len(before.shape) - 1,))
