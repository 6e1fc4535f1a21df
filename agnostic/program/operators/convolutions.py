"""Convolutions and their adjoints, in one to three dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from agnostic.program.nodes import Array
from agnostic.program.shapes import spatial, windows, with_spatial
from agnostic.program.vocabulary import Shape, operator, size
from agnostic.reference import windows as sliding

Pairs = Sequence[tuple[int, int]]


def _convolution_shape(
    x: Shape, kernel: Shape, bias: Shape | None = None, *, stride: Sequence[int], padding: Pairs,
    dilation: Sequence[int], groups: int = 1, channel_axis: int = 1, same: bool = False,
) -> Shape:  # fmt: skip
    counts = windows(spatial(x, channel_axis), kernel[2:], stride, padding, dilation)
    return with_spatial(x, channel_axis, counts, kernel[0])


def _convolution_flops(x: Shape, kernel: Shape, bias: Shape | None = None, *, out: Shape, **attributes: Any) -> int:
    return 2 * size(out) * size(kernel[1:])


@operator(shape=_convolution_shape, flops=_convolution_flops)
def convolution(
    x: Array, kernel: Array, bias: Array | None = None, *, stride: Sequence[int], padding: Pairs,
    dilation: Sequence[int], groups: int = 1, channel_axis: int = 1, same: bool = False,
) -> Array:  # fmt: skip
    """y[o, p] = b[o] + sum over i, k of w[o, i, k] x[i, p stride + k dilation], which is a cross-correlation.

    Args:
        x: the batch, the channels (at ``channel_axis``) and the spatial axes.
        kernel: (O, I / groups, *size).
        bias: (O,).
        stride: per spatial axis.
        padding: zeros before and after each spatial axis.
        dilation: the distance of neighbouring places of the kernel, per spatial axis.
        groups: channels and outputs fall into so many groups, which are convolved by themselves.
        channel_axis: 1 or -1.
        same: the padding is what this size of the image needs for as many places as strides, the smaller half before.
    """
    result = sliding.convolution(
        np.moveaxis(x, channel_axis, -1), np.moveaxis(kernel, (1, 0), (-2, -1)), stride, padding, dilation, groups
    )
    return np.moveaxis(result if bias is None else result + bias, -1, channel_axis)


def _transposed_shape(
    x: Shape, kernel: Shape, bias: Shape | None = None, *, stride: Sequence[int], crop: Pairs, extra: Sequence[int],
    dilation: Sequence[int], groups: int = 1, channel_axis: int = 1,
) -> Shape:  # fmt: skip
    sizes = [
        (n - 1) * s + (k - 1) * d + 1 - low - high + more
        for n, k, s, d, (low, high), more in zip(
            spatial(x, channel_axis), kernel[2:], stride, dilation, crop, extra, strict=True
        )
    ]
    return with_spatial(x, channel_axis, sizes, kernel[1] * groups)


def _transposed_flops(x: Shape, kernel: Shape, bias: Shape | None = None, *, out: Shape, **attributes: Any) -> int:
    return 2 * size(x) * size(kernel[1:])


@operator(shape=_transposed_shape, flops=_transposed_flops)
def transposed_convolution(
    x: Array, kernel: Array, bias: Array | None = None, *, stride: Sequence[int], crop: Pairs, extra: Sequence[int],
    dilation: Sequence[int], groups: int = 1, channel_axis: int = 1,
) -> Array:  # fmt: skip
    """The adjoint of a convolution: y[o, p stride + k dilation] is the sum of w[i, o, k] x[i, p] over i, k, plus b[o].

    Args:
        x: as in ``convolution``.
        kernel: (I, O / groups, *size).
        bias: (O,).
        stride: per spatial axis.
        crop: what is cut from the full result before and after each spatial axis.
        extra: zeros after each spatial axis, before the bias is added.
        dilation: per spatial axis.
        groups: as in ``convolution``.
        channel_axis: 1 or -1.
    """
    cut = [(low, high - more) for (low, high), more in zip(crop, extra, strict=True)]
    images = np.split(np.moveaxis(x, channel_axis, -1), groups, axis=-1)
    kernels = [np.moveaxis(w, (1, 0), (-2, -1)) for w in np.split(kernel, groups, axis=0)]
    parts = [
        sliding.transposed_convolution(image, w, stride, cut, dilation)
        for image, w in zip(images, kernels, strict=True)
    ]
    result = np.concatenate(parts, axis=-1)
    return np.moveaxis(result if bias is None else result + bias, -1, channel_axis)
