"""Windows over the spatial axes of channels-last arrays, (N, *spatial, C): convolutions and pooling in NumPy."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from agnostic.errors import InvalidInput

Array = np.ndarray[Any, Any]
Pairs = Sequence[tuple[int, int]]
Sizes = Sequence[int]


def same_padding(size: int, kernel: int, stride: int, dilation: int = 1) -> tuple[int, int]:
    """Zeros before and after an axis, so that the output has ceil(size / stride) places.

    The total is the least that suffices, and an odd one goes to the end: it depends on the input's size, which a fixed
    padding cannot express when the stride is above 1.

    Source: the "SAME" padding of TensorFlow (tf.nn, "Notes on padding").
    """
    total = max((-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2


def convolution(x: Array, kernel: Array, stride: Sizes, padding: Pairs, dilation: Sizes, groups: int = 1) -> Array:
    """The cross-correlation of (N, *spatial, I) with a kernel (*size, I / groups, O).

    Raises:
        InvalidInput: x has other channels.
    """
    inputs = kernel.shape[-2] * groups
    if x.shape[-1] != inputs:
        raise InvalidInput(f"a convolution of {inputs} channels is given {x.shape[-1]}")
    x = _pad(x, padding)
    if groups == 1:
        return _product(x, kernel, stride, dilation)
    if groups == inputs:
        return _depthwise(x, kernel, stride, dilation)
    parts = zip(np.split(x, groups, axis=-1), np.split(kernel, groups, axis=-1), strict=True)
    return np.concatenate([_product(part, w, stride, dilation) for part, w in parts], axis=-1)


def transposed_convolution(x: Array, kernel: Array, stride: Sizes, crop: Pairs, dilation: Sizes) -> Array:
    """The adjoint of a convolution, of (N, *spatial, I) with a kernel (*size, O, I).

    Args:
        crop: what is cut from the full result before and after each spatial axis; a negative number adds zeros.

    Raises:
        InvalidInput: x has other channels.
    """
    if x.shape[-1] != kernel.shape[-1]:
        raise InvalidInput(f"a transposed convolution of {kernel.shape[-1]} channels is given {x.shape[-1]}")
    size = kernel.shape[:-2]
    full = [(n - 1) * s + (k - 1) * d + 1 for n, s, k, d in zip(x.shape[1:-1], stride, size, dilation, strict=True)]
    result = np.zeros((len(x), *full, kernel.shape[-2]), np.result_type(x, kernel))
    # What the convolution gathers is scattered.
    for place, tap in _taps(result, size, stride, dilation, x.shape[1:-1]):
        tap += x @ kernel[place].T  # a view: the sum is written into ``result``
    return _pad(result, [(-low, -high) for low, high in crop])


def max_pool(x: Array, size: Sizes, stride: Sizes, padding: Pairs, dilation: Sizes, ceil_mode: bool = False) -> Array:
    """The largest number of each window; padding counts as minus infinity."""
    counts, extra = _counts(x, size, stride, padding, dilation, ceil_mode)
    lowest = -math.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
    padded = _pad(x, [(low, high + more) for (low, high), more in zip(padding, extra, strict=True)], lowest)
    return functools.reduce(np.maximum, (tap for _, tap in _taps(padded, size, stride, dilation, counts)))


def average_pool(
    x: Array, size: Sizes, stride: Sizes, padding: Pairs, ceil_mode: bool = False, count_padding: bool = True,
    divisor: int | None = None,
) -> Array:  # fmt: skip
    """The mean of each window, over the image and perhaps its padding, but never over what ``ceil_mode`` adds."""
    once = (1,) * len(size)
    counts, extra = _counts(x, size, stride, padding, once, ceil_mode)
    beyond = [(0, more) for more in extra]

    def summed(image: Array, value: float) -> Array:
        padded = _pad(_pad(image, padding, value), beyond)
        return functools.reduce(np.add, (tap for _, tap in _taps(padded, size, stride, once, counts)))

    total = summed(x, 0.0)
    if divisor is not None:
        return total / float(divisor)
    return total / summed(np.ones((1, *x.shape[1:-1], 1), x.dtype), 1.0 if count_padding else 0.0)


def adaptive_pool(x: Array, sizes: Sequence[int | None], mode: str) -> Array:
    """The mean, or with ``mode="max"`` the largest number, of n windows per axis; None keeps the axis."""
    reduce = np.max if mode == "max" else np.mean
    for axis, wanted in enumerate(sizes, 1):
        n = x.shape[axis]
        if wanted is None or wanted == n:
            continue
        bounds = [(i * n // wanted, -(-(i + 1) * n // wanted)) for i in range(wanted)]
        x = np.stack([reduce(x.take(range(a, b), axis), axis=axis) for a, b in bounds], axis=axis)
    return x


def _pad(x: Array, pairs: Pairs, value: float = 0.0) -> Array:
    """Pad the spatial axes; a negative number cuts."""
    cut = [slice(None)]
    cut += [slice(-min(low, 0), size + min(high, 0)) for (low, high), size in zip(pairs, x.shape[1:-1], strict=True)]
    widths = [(0, 0), *((max(low, 0), max(high, 0)) for low, high in pairs), (0, 0)]
    x = x[tuple(cut)]
    return np.pad(x, widths, constant_values=value) if any(map(any, widths)) else x


def _counts(
    x: Array, size: Sizes, stride: Sizes, padding: Pairs, dilation: Sizes, ceil_mode: bool = False
) -> tuple[list[int], list[int]]:
    """The number of windows per axis, and the places that the last one needs beyond the padding with ``ceil_mode``."""
    counts, extra = [], []
    for n, k, s, (low, high), d in zip(x.shape[1:-1], size, stride, padding, dilation, strict=True):
        room = n + low + high - (k - 1) * d - 1
        count = (-(-room // s) if ceil_mode else room // s) + 1
        # A window must begin inside the image or the padding before it.
        if ceil_mode and (count - 1) * s >= n + low:
            count -= 1
        counts.append(max(count, 0))
        extra.append(max((count - 1) * s - room, 0))
    return counts, extra


def _taps(
    x: Array, size: Sizes, stride: Sizes, dilation: Sizes, counts: Iterable[int]
) -> Iterator[tuple[tuple[int, ...], Array]]:
    """Each place of the kernel, and what all windows see there: (N, *counts, ...), without a copy."""
    for place in itertools.product(*map(range, size)):
        starts = [p * d for p, d in zip(place, dilation, strict=True)]
        index = [slice(a, a + (n - 1) * s + 1, s) for a, n, s in zip(starts, counts, stride, strict=True)]
        yield place, x[(slice(None), *index)]


def _product(x: Array, kernel: Array, stride: Sizes, dilation: Sizes) -> Array:
    """The convolution of a padded array with (*size, I, O), without groups."""
    size, (inputs, outputs) = kernel.shape[:-2], kernel.shape[-2:]
    counts, _ = _counts(x, size, stride, [(0, 0)] * len(size), dilation)
    result = np.zeros((len(x), *counts, outputs), np.result_type(x, kernel))
    if not result.size:
        return result
    # Along the last axis a window's pixels and channels lie one after the other, so that one product takes a whole row
    # of the kernel; an image at a time, since a window is a copy.
    rows = kernel.reshape(*size[:-1], -1, outputs) if dilation[-1] == 1 else None
    for image, out in zip(x, result, strict=True):
        if rows is None:
            for place, tap in _taps(image[None], size, stride, dilation, counts):
                out += _matrix(tap[0], kernel[place])
            continue
        row = sliding_window_view(image.reshape(*image.shape[:-2], -1), size[-1] * inputs, axis=-1)
        row = row[..., :: stride[-1] * inputs, :][..., : counts[-1], :]
        for place, tap in _taps(row[None], size[:-1], stride[:-1], dilation[:-1], counts[:-1]):
            out += _matrix(tap[0], rows[place])
    return result


def _matrix(x: Array, kernel: Array) -> Array:
    """``x @ kernel`` as one product of matrices, copied first: of anything else NumPy makes many small ones."""
    return (x.reshape(-1, x.shape[-1]) @ kernel).reshape(*x.shape[:-1], -1)


def _depthwise(x: Array, kernel: Array, stride: Sizes, dilation: Sizes) -> Array:
    """The convolution of a padded array with (*size, 1, O), each channel by itself."""
    size, channels = kernel.shape[:-2], x.shape[-1]
    kernel = kernel.reshape(*size, channels, -1)
    counts, _ = _counts(x, size, stride, [(0, 0)] * len(size), dilation)
    result = np.zeros((len(x), *counts, *kernel.shape[-2:]), np.result_type(x, kernel))
    for place, tap in _taps(x, size, stride, dilation, counts):
        result += tap[..., None] * kernel[place]
    return result.reshape(*result.shape[:-2], -1)
