"""Pooling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from agnostic.program.nodes import Array
from agnostic.program.shapes import spatial, windows, with_spatial
from agnostic.program.vocabulary import Shape, operator, size
from agnostic.reference import windows as sliding

Pairs = Sequence[tuple[int, int]]


def _pool_shape(
    x: Shape, *, kernel: Sequence[int], stride: Sequence[int], padding: Pairs, dilation: Sequence[int] | None = None,
    ceil_mode: bool = False, channel_axis: int = 1, **attributes: Any,
) -> Shape:  # fmt: skip
    counts = windows(spatial(x, channel_axis), kernel, stride, padding, dilation or (1,) * len(kernel), ceil_mode)
    return with_spatial(x, channel_axis, counts, x[channel_axis])


def _pool_flops(x: Shape, *, out: Shape, kernel: Sequence[int], **attributes: Any) -> int:
    return size(out) * size(tuple(kernel))


@operator(shape=_pool_shape, flops=_pool_flops)
def max_pool(
    x: Array, *, kernel: Sequence[int], stride: Sequence[int], padding: Pairs, dilation: Sequence[int],
    ceil_mode: bool = False, channel_axis: int = 1, same: bool = False,
) -> Array:  # fmt: skip
    """The largest number of each window; padding counts as minus infinity.

    Args:
        x: as in ``convolution``.
        kernel, stride, dilation: per spatial axis.
        padding: before and after each spatial axis.
        ceil_mode: a last window may hang over the end.
        channel_axis: 1 or -1.
        same: as in ``convolution``.
    """
    result = sliding.max_pool(np.moveaxis(x, channel_axis, -1), kernel, stride, padding, dilation, ceil_mode)
    return np.moveaxis(result, -1, channel_axis)


@operator(shape=_pool_shape, flops=_pool_flops)
def max_pool_places(
    x: Array, *, kernel: Sequence[int], stride: Sequence[int], padding: Pairs, dilation: Sequence[int],
    ceil_mode: bool = False, channel_axis: int = 1,
) -> Array:  # fmt: skip
    """The first place of the largest number of each window of ``max_pool``, in the flat spatial axes of x.

    Args:
        kernel: the size of a window, by axis.
        stride: from one window to the next, by axis.
        padding: places before and after each axis.
        dilation: from one place of a window to the next, by axis.
        ceil_mode: whether a last window may hang over the end.
        channel_axis: the axis of the channels.
    """
    x = np.moveaxis(x, channel_axis, 1)
    sizes = x.shape[2:]
    places = np.broadcast_to(np.arange(size(sizes)).reshape(sizes), x.shape)
    counts = windows(sizes, kernel, stride, padding, dilation, ceil_mode)
    # The last axis first, so that of equal numbers the first in the flat order is found.
    for axis in range(len(sizes) + 1, 1, -1):
        k, s, (low, _), d = kernel[axis - 2], stride[axis - 2], padding[axis - 2], dilation[axis - 2]
        at = np.arange(counts[axis - 2])[:, None] * s - low + np.arange(k) * d
        outside = (at < 0) | (at >= x.shape[axis])
        at = np.clip(at, 0, x.shape[axis] - 1)
        seen = np.moveaxis(np.where(outside, -np.inf, np.moveaxis(np.take(x, at, axis), (axis, axis + 1), (-2, -1))),
                           -2, axis)  # fmt: skip
        best = np.argmax(seen, axis=-1)[..., None]
        x = np.take_along_axis(seen, best, -1)[..., 0]
        found = np.moveaxis(np.take(places, at, axis), axis + 1, -1)
        places = np.take_along_axis(found, best, -1)[..., 0]
    return np.moveaxis(places, 1, channel_axis)


@operator(shape=_pool_shape, flops=_pool_flops)
def average_pool(
    x: Array, *, kernel: Sequence[int], stride: Sequence[int], padding: Pairs, ceil_mode: bool = False,
    count_padding: bool = True, divisor: int | None = None, channel_axis: int = 1, same: bool = False,
) -> Array:  # fmt: skip
    """The mean of each window.

    Args:
        x: as in ``convolution``.
        kernel, stride: per spatial axis.
        padding: zeros before and after each spatial axis.
        ceil_mode: a last window may hang over the end; what hangs over is never counted.
        count_padding: whether the padding counts in the mean.
        divisor: what the sum is divided by, instead of the count.
        channel_axis: 1 or -1.
        same: as in ``convolution``.
    """
    result = sliding.average_pool(
        np.moveaxis(x, channel_axis, -1), kernel, stride, padding, ceil_mode, count_padding, divisor
    )
    return np.moveaxis(result, -1, channel_axis)


def _adaptive_shape(x: Shape, *, sizes: Sequence[int | None], channel_axis: int = 1) -> Shape:
    kept = [n if wanted is None else wanted for n, wanted in zip(spatial(x, channel_axis), sizes, strict=True)]
    return with_spatial(x, channel_axis, kept, x[channel_axis])


def _adaptive_flops(x: Shape, *, out: Shape, **attributes: Any) -> int:
    return size(x)


@operator(shape=_adaptive_shape, flops=_adaptive_flops)
def adaptive_average_pool(x: Array, *, sizes: Sequence[int | None], channel_axis: int = 1) -> Array:
    """The mean of n windows per spatial axis of length N; window i goes from floor(i N / n) to ceil((i + 1) N / n).

    Args:
        x: as in ``convolution``.
        sizes: windows per spatial axis; None keeps the axis.
        channel_axis: 1 or -1.
    """
    return np.moveaxis(sliding.adaptive_pool(np.moveaxis(x, channel_axis, -1), sizes, "mean"), -1, channel_axis)


@operator(shape=_adaptive_shape, flops=_adaptive_flops)
def adaptive_max_pool(x: Array, *, sizes: Sequence[int | None], channel_axis: int = 1) -> Array:
    """The largest number of each of the windows of ``adaptive_average_pool``.

    Args:
        sizes: of the output, by axis; None: the input's.
        channel_axis: the axis of the channels.
    """
    return np.moveaxis(sliding.adaptive_pool(np.moveaxis(x, channel_axis, -1), sizes, "max"), -1, channel_axis)
