"""Resizing, and what moves channels into space."""

from __future__ import annotations

import itertools
import math
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


def _bicubic(t: Array) -> list[Array]:
    """The shares of the four pixels around a place that is t after the second. Source: Keys, 1981, with a = -0.75."""
    a = -0.75
    near = [(a + 2) * x**3 - (a + 3) * x**2 + 1 for x in (t, 1 - t)]
    far = [a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a for x in (1 + t, 2 - t)]
    return [far[0], *near, far[1]]


def _inside(place: Array, length: int, fill: str, align_corners: bool) -> Array:
    """A place moved into the image, as ``fill`` says."""
    if fill == "reflection":
        low, span = (0.0, length - 1.0) if align_corners else (-0.5, float(length))
        away = np.abs(place - low)
        turns = np.floor(away / span) if span else away * 0
        rest = away - turns * span
        place = np.where(turns % 2 == 0, rest + low, span - rest + low)
    return place if fill == "zeros" else np.clip(place, 0, length - 1)


@operator(shape=_grid_shape, flops=_grid_flops)
def sample(
    x: Array, grid: Array, *, method: str = "bilinear", fill: str = "zeros", align_corners: bool = False
) -> Array:
    """X read at the places of a grid.

    Args:
        x: (N, C, *size), with one to three spatial axes.
        grid: (N, *places, axes): column, row, ... in [-1, 1]; -1 and 1 are the outer pixels' centres with
            ``align_corners``, else their outer edges.
        method: ``"bilinear"``, ``"nearest"`` or ``"bicubic"``.
        fill: what is outside: ``"zeros"``, ``"border"`` or ``"reflection"``.
        align_corners: see above.
    """
    sizes = x.shape[2:]
    taps: list[list[tuple[Array, Any]]] = []
    for axis, n in enumerate(sizes):
        p = grid[..., len(sizes) - 1 - axis]
        place = (p + 1) / 2 * (n - 1) if align_corners else ((p + 1) * n - 1) / 2
        if method == "bicubic":
            first = np.floor(place)
            shares = _bicubic(place - first)
            taps.append([(_inside(first + i - 1, n, fill, align_corners), w) for i, w in enumerate(shares)])
            continue
        place = _inside(place, n, fill, align_corners)
        first = np.floor(place)
        near = [(np.round(place), 1.0)]
        taps.append(near if method == "nearest" else [(first, 1 - place + first), (first + 1, place - first)])
    batch = np.arange(len(x)).reshape(-1, *(1,) * len(sizes))
    result: Any = 0.0
    for chosen in itertools.product(*taps):
        places = [np.round(place).astype(np.int64) for place, _ in chosen]
        inside = math.prod((p >= 0) & (p < n) for p, n in zip(places, sizes, strict=True))
        clipped = [np.clip(p, 0, n - 1) for p, n in zip(places, sizes, strict=True)]
        share = math.prod(w for _, w in chosen) * inside
        result = result + np.asarray(share)[..., None] * np.moveaxis(x, 1, -1)[(batch, *clipped)]
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


def _overlap_shape(
    x: Shape, *, sizes: Sequence[int], kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int],
    dilation: Sequence[int],
) -> Shape:  # fmt: skip
    return (x[0], x[1] // size(tuple(kernel)), *sizes)


@operator(shape=_overlap_shape, flops=lambda x, *, out, **attributes: size(x))
def overlap_add(
    x: Array, *, sizes: Sequence[int], kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int],
    dilation: Sequence[int],
) -> Array:  # fmt: skip
    """The adjoint of ``patches``: windows are put back at their places in an image, and added where they overlap.

    Args:
        x: (N, C * places of the kernel, windows).
        sizes: height and width of the image.
        kernel, stride, padding, dilation: as in ``patches``.
    """
    counts = [
        (n + 2 * p - (k - 1) * d - 1) // s + 1
        for n, k, s, p, d in zip(sizes, kernel, stride, padding, dilation, strict=True)
    ]
    parts = x.reshape(len(x), -1, *kernel, *counts)
    image = np.zeros((*parts.shape[:2], *(n + 2 * p for n, p in zip(sizes, padding, strict=True))), x.dtype)
    for place in np.ndindex(*kernel):
        window = [
            slice(p * d, p * d + (n - 1) * s + 1, s) for p, d, n, s in zip(place, dilation, counts, stride, strict=True)
        ]
        image[(slice(None), slice(None), *window)] += parts[(slice(None), slice(None), *place)]
    return image[(slice(None), slice(None), *(slice(p, p + n) for n, p in zip(sizes, padding, strict=True)))]
