"""Resizing, and what moves channels into space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from agnostic.program.nodes import Array
from agnostic.program.shapes import spatial, with_spatial
from agnostic.program.vocabulary import Shape, operator, size
from agnostic.reference.resampling import resize_matrix


def _resize_shape(x: Shape, *, sizes: Sequence[int], channel_axis: int = 1, **attributes: Any) -> Shape:
    return with_spatial(x, channel_axis, sizes, x[channel_axis])


def _resize_flops(x: Shape, *, out: Shape, channel_axis: int = 1, **attributes: Any) -> int:
    # A bilinear pixel is two products and a sum per axis.
    return 3 * size(out) * len(spatial(x, channel_axis))


@operator(shape=_resize_shape, flops=_resize_flops)
def resize(
    x: Array, *, sizes: Sequence[int], method: str, align_corners: bool = False, half_pixel: bool = True,
    antialias: bool = False, scales: Sequence[float | None] | None = None, cubic: float = -0.75, edges: str = "clamp",
    channel_axis: int = 1,
) -> Array:  # fmt: skip
    """Each spatial axis by a matrix from old to new pixels: :func:`agnostic.reference.resampling.resize_matrix`.

    Args:
        x: as in ``convolution``.
        sizes: new pixels per spatial axis.
        method: ``"nearest"``, ``"bilinear"``, ``"bicubic"``, ``"lanczos3"``, ``"lanczos5"`` or ``"area"``.
        align_corners, half_pixel, antialias, cubic, edges: see there.
        scales: new pixels per old one where they are not exactly the ratio of the sizes.
        channel_axis: 1 or -1.
    """
    axes = [axis for axis in range(1, x.ndim) if axis != channel_axis % x.ndim]
    for axis, wanted, scale in zip(axes, sizes, scales or (None,) * len(axes), strict=True):
        matrix = resize_matrix(
            x.shape[axis], wanted, method, align_corners=align_corners, half_pixel=half_pixel, antialias=antialias,
            scale=scale, cubic=cubic, edges=edges,
        )  # fmt: skip
        x = np.moveaxis(np.tensordot(x, matrix.astype(x.dtype), (axis, 1)), -1, axis)
    return x


def _grid_shape(x: Shape, grid: Shape, **attributes: Any) -> Shape:
    return (*x[:2], *grid[1:-1])


def _grid_flops(x: Shape, grid: Shape, *, out: Shape, **attributes: Any) -> int:
    return int(2 * size(out) * 2 ** grid[-1])


@operator(shape=_grid_shape, flops=_grid_flops)
def sample(
    x: Array, grid: Array, *, method: str = "bilinear", fill: str = "zeros", align_corners: bool = False
) -> Array:
    """X read at the places of a grid.

    Args:
        x: (N, C, H, W).
        grid: (N, h, w, 2): column and row in [-1, 1]; -1 and 1 are the outer pixels' centres with ``align_corners``,
            else their outer edges.
        method: ``"bilinear"`` or ``"nearest"``.
        fill: what is outside: ``"zeros"`` or ``"border"``.
        align_corners: see above.
    """
    height, width = x.shape[2:]
    places = []
    for axis, length in ((1, height), (0, width)):
        p = grid[..., axis]
        place = (p + 1) / 2 * (length - 1) if align_corners else ((p + 1) * length - 1) / 2
        places.append(np.clip(place, 0, length - 1) if fill == "border" else place)
    batch = np.arange(len(x))[:, None, None]

    def pixel(row: Array, column: Array) -> Array:
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        found = x[batch, :, np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)]
        return np.where(inside[..., None], found, 0.0)

    if method == "nearest":
        near = [np.round(p).astype(np.int64) for p in places]
        return np.moveaxis(pixel(*near), -1, 1)
    result: Any = 0.0
    low = [np.floor(p).astype(np.int64) for p in places]
    for dr in (0, 1):
        for dc in (0, 1):
            row, column = low[0] + dr, low[1] + dc
            weight = (1 - np.abs(places[0] - row)) * (1 - np.abs(places[1] - column))
            result = result + weight[..., None] * pixel(row, column)
    return np.moveaxis(result, -1, 1)


def _patches_shape(
    x: Shape, *, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
) -> Shape:
    counts = [
        (n + 2 * p - (k - 1) * d - 1) // s + 1
        for n, k, s, p, d in zip(x[2:], kernel, stride, padding, dilation, strict=True)
    ]
    return (x[0], x[1] * size(tuple(kernel)), size(tuple(counts)))


@operator(shape=_patches_shape)
def patches(
    x: Array, *, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
) -> Array:
    """The windows of an image as columns: (N, C * places of the kernel, windows).

    Args:
        x: (N, C, H, W).
        kernel, stride, padding, dilation: per spatial axis; padding is zeros on both sides.
    """
    counts = [
        (n + 2 * p - (k - 1) * d - 1) // s + 1
        for n, k, s, p, d in zip(x.shape[2:], kernel, stride, padding, dilation, strict=True)
    ]
    padded = np.pad(x, [(0, 0), (0, 0), *((p, p) for p in padding)])
    rows = []
    for place in np.ndindex(*kernel):
        window = [
            slice(p * d, p * d + (n - 1) * s + 1, s) for p, d, n, s in zip(place, dilation, counts, stride, strict=True)
        ]
        rows.append(padded[(slice(None), slice(None), *window)].reshape(*x.shape[:2], -1))
    return np.stack(rows, axis=2).reshape(len(x), -1, size(tuple(counts)))
