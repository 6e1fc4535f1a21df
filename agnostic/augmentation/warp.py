"""The warp for use: OpenCV where it agrees with the reference, the float64 reference where it does not."""

from __future__ import annotations

import functools
import importlib
from types import ModuleType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from agnostic.errors import InvalidInput, MissingDependency
from agnostic.reference import warp as reference

Path = Literal["auto", "exact", "fast"]

# float32 holds a position below 512 to 2^-16 / 2 pixel; two axes, 255 grey levels a pixel: 2 * 255 * 2^-17 = 0.004.
_TILE = 512
AGREEMENT = 0.01
"""How far, in units of 1/255 of the range, a path may be from the reference to be taken without being asked for."""


@functools.cache
def opencv() -> ModuleType | None:
    """OpenCV if it is installed, else None."""
    try:
        return importlib.import_module("cv2")
    except ModuleNotFoundError:
        return None


@functools.cache
def opencv_agrees() -> bool:
    """Whether the installed OpenCV interpolates as the reference does: up to version 4 it rounds to 1/32 of a pixel."""
    if opencv() is None:
        return False
    board = (255.0 * (np.indices((40, 40)).sum(axis=0) % 2))[..., None].astype(np.float32)
    matrix = np.array([[0.91, 0.32, -3.3], [-0.28, 1.07, 4.7]])
    exact = reference.warp(board, matrix)
    # OpenCV has a routine for each number of channels.
    fast = (_remap(board.repeat(count, axis=2), matrix, (40, 40), 1, "nearest", 0.0) for count in (1, 3, 4))
    return bool(max(np.abs(result - exact).max() for result in fast) < AGREEMENT)


def warp(
    image: npt.NDArray[Any],
    matrix: npt.ArrayLike,
    shape: tuple[int, int] | None = None,
    *,
    order: int = 1,
    fill_mode: str = "nearest",
    cval: float = 0.0,
    path: Path = "auto",
) -> npt.NDArray[Any]:
    """Resample an image by one affine map, all channels at once, in its own dtype.

    Args:
        image: (H, W, C) of any real dtype; integers are rounded to the nearest and clipped.
        matrix: (2, 3); output pixel (y, x) is read at ``matrix @ (y, x, 1)`` of the input.
        shape: (height, width) of the output; None: that of the image.
        order: 0 reads the nearest pixel, 1 interpolates bilinearly.
        fill_mode: ``"constant"``, ``"nearest"``, ``"reflect"`` or ``"wrap"``; see :mod:`agnostic.reference.warp`.
        cval: what ``"constant"`` fills with.
        path: ``"exact"`` is float64; ``"fast"`` is the installed OpenCV, whatever its accuracy; ``"auto"`` is OpenCV
            for float32 and uint8 if it agrees with the reference to 0.01 of 255 before rounding, else float64.

    Returns:
        (height, width, C), of the dtype of the image.

    Raises:
        MissingDependency: ``path`` is ``"fast"`` and OpenCV is not installed.
        InvalidInput: see :func:`agnostic.reference.warp.warp`; or an unknown ``path``.
    """
    if path not in ("auto", "exact", "fast"):
        raise InvalidInput(f"path {path!r} is none of 'auto', 'exact', 'fast'")
    if path == "fast" and opencv() is None:
        raise MissingDependency(
            "path 'fast' needs the package 'opencv-python-headless': pip install 'agnostic-ml[augment]'"
        )
    suits = image.dtype.char in "fB" and image.ndim == 3 and image.size > 0
    if path != "exact" and suits and (path == "fast" or opencv_agrees()):
        mode, m = reference.check_fill_mode(fill_mode), np.asarray(matrix, np.float64)
        return _remap(image, m, image.shape[:2] if shape is None else shape, reference.check_order(order), mode, cval)
    return to_dtype(reference.warp(image, matrix, shape, order=order, fill_mode=fill_mode, cval=cval), image.dtype)


def to_dtype(values: npt.NDArray[Any] | np.floating[Any], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Real values in another dtype: integers are rounded, halves away from zero, and clipped to the dtype's range."""
    dtype = np.dtype(dtype)
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        values = np.clip(np.trunc(values + np.copysign(0.5, values)), info.min, info.max)
    return np.asarray(values).astype(dtype, copy=False)


def _remap(
    image: npt.NDArray[Any],
    matrix: npt.NDArray[np.float64],
    shape: tuple[int, int],
    order: int,
    fill_mode: reference.FillMode,
    cval: float,
) -> npt.NDArray[Any]:
    """The warp by OpenCV's remap, whose positions are computed and folded in float64 first."""
    height, width, channels = image.shape
    if max(height, width, *shape) <= _TILE:
        return _remap_tile(image, *_positions(matrix, 0, 0, *shape), order, fill_mode, cval)
    result = np.empty((*shape, channels), image.dtype)
    for top in range(0, shape[0], _TILE // 2):
        for left in range(0, shape[1], _TILE // 2):
            part = result[top : top + _TILE // 2, left : left + _TILE // 2]
            rows, columns = _positions(matrix, top, left, *part.shape[:2])
            r, c = reference.fold(rows, height, fill_mode), reference.fold(columns, width, fill_mode)
            # Read from a window of the image, so that positions stay small enough for float32.
            y, x = int(r.min()), int(c.min())
            window = image[y : int(r.max()) + 2, x : int(c.max()) + 2]
            part[:] = _remap_tile(window, r - y, c - x, order, "nearest", cval)
            if fill_mode == "constant":
                part[reference.outside(rows, columns, (height, width))] = to_dtype(np.float64(cval), image.dtype)
    return result


def _remap_tile(
    image: npt.NDArray[Any],
    rows: npt.NDArray[np.float64],
    columns: npt.NDArray[np.float64],
    order: int,
    fill_mode: reference.FillMode,
    cval: float,
) -> npt.NDArray[Any]:
    cv2 = opencv()
    assert cv2 is not None
    height, width, channels = image.shape
    # An affine map is at its extremes in the corners.
    far = max(abs(p.item(k)) for p in (rows, columns) for k in (0, p.shape[1] - 1, -p.shape[1], -1))
    border = cv2.BORDER_REFLECT if fill_mode == "reflect" and order == 1 else cv2.BORDER_REPLICATE
    if fill_mode == "wrap" or (fill_mode == "reflect" and order == 0) or far > 2 * _TILE:
        # OpenCV's own wrap has another period, and half-way positions round to the other side in a mirror.
        r, c = reference.fold(rows, height, fill_mode), reference.fold(columns, width, fill_mode)
    else:
        r, c = rows, columns
    if order == 0:
        r, c = np.floor(r + 0.5), np.floor(c + 0.5)
    y, x = r.astype(np.float32), c.astype(np.float32)
    method = cv2.INTER_NEAREST if order == 0 else cv2.INTER_LINEAR
    parts: list[npt.NDArray[Any]] = []
    while (k := sum(part.shape[-1] for part in parts)) < channels:
        # OpenCV reads at most four channels at once; of two it rounds the positions to 1/32 of a pixel.
        count = next(c for c in (4, 3, 1) if c <= channels - k)
        part = cv2.remap(image[..., k : k + count], x, y, method, borderMode=border)
        parts.append(part.reshape(*r.shape, count))
    result: npt.NDArray[Any] = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)
    if fill_mode == "constant":
        result[reference.outside(rows, columns, (height, width))] = to_dtype(np.float64(cval), image.dtype)
    return result


def _positions(
    matrix: npt.NDArray[np.float64], top: int, left: int, height: int, width: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """:func:`agnostic.reference.warp.positions` of a window of the output, as two products of rank two: three times
    faster than broadcast additions, and rounded as often.
    """
    y, x = _ramp(top, height), _ramp(left, width)
    down, along = np.ones((2, height, 2)), np.ones((2, 2, width))
    for axis in (0, 1):
        down[axis, :, 0] = y * matrix[axis, 0] + matrix[axis, 2]
        along[axis, 1] = x * matrix[axis, 1]
    return down[0] @ along[0], down[1] @ along[1]


@functools.lru_cache(maxsize=64)
def _ramp(start: int, length: int) -> npt.NDArray[np.float64]:
    return np.arange(start, start + length, dtype=np.float64)
