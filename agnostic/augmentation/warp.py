"""The warp for use: OpenCV where it agrees with the reference, the float64 reference where it does not.

Source: :mod:`agnostic.reference.warp`, which names that of each convention.
"""

from __future__ import annotations

import functools
import importlib
import threading
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from agnostic.checks import one_of
from agnostic.errors import InvalidInput, MissingDependency
from agnostic.opencv import opencv
from agnostic.reference import warp as reference

WarpMethod = Literal["auto", "exact", "fast"]

# float32 holds a position below 512 to 2^-16 / 2 pixel; two axes, 255 grey levels a pixel: 2 * 255 * 2^-17 = 0.004.
_TILE = 512

# warpAffine makes the positions itself, in float32: three rounded coefficients and two rounded sums. Up to this side,
# and to positions of _FAR, the five together were 0.008 of 255 at most on a checkerboard, the worst there is.
_SHORT = 160
_FAR = 256

_CACHE_LINE = 64

# OpenCV keeps coordinates in 16 bits.
_LONGEST = 2**15 - 1

AGREEMENT = 0.01
"""How far, in units of 1/255 of the range, a path may be from the reference to be taken without being asked for."""


@functools.cache
def opencv_agrees() -> bool:
    """Whether the installed OpenCV interpolates as the reference does: up to version 4 it rounds to 1/32 of a pixel."""
    if opencv() is None:
        return False
    board = (255.0 * (np.indices((40, 40)).sum(axis=0) % 2))[..., None].astype(np.float32)
    matrix = np.array([[0.91, 0.32, -3.3], [-0.28, 1.07, 4.7]])
    exact = reference.warp(board, matrix)
    # OpenCV has a routine for each number of channels.
    for count in (1, 3, 4):
        image = board.repeat(count, axis=2)
        remapped = _remap(image, matrix, (40, 40), 1, "nearest", 0.0)
        border = _border(image, matrix, (40, 40), "nearest")
        assert border is not None
        affine = _affine(image, matrix, (40, 40), border, 0.0, None)
        if max(np.abs(remapped - exact).max(), np.abs(affine - exact).max()) >= AGREEMENT:
            return False
    return True


def warp(
    image: npt.NDArray[Any],
    matrix: npt.ArrayLike,
    shape: tuple[int, int] | None = None,
    *,
    order: int = 1,
    fill_mode: str = "nearest",
    cval: float = 0.0,
    path: WarpMethod = "auto",
    out: npt.NDArray[Any] | None = None,
) -> npt.NDArray[Any]:
    """Resample an image by one affine map, all channels at once, in its own dtype.

    Args:
        image: (H, W, C) of any real dtype; integers are rounded to the nearest and clipped. With order 0 the dtype may
            be any, and values are moved as they are.
        matrix: (2, 3); output pixel (y, x) is read at ``matrix @ (y, x, 1)`` of the input.
        shape: (height, width) of the output; None: that of the image.
        order: 0 reads the nearest pixel, 1 interpolates bilinearly.
        fill_mode: one of :data:`agnostic.reference.warp.FILL_MODES`; see there.
        cval: what ``"constant"`` and ``"grid-constant"`` fill with, a value that the dtype has.
        path: ``"exact"`` is float64; ``"fast"`` is the installed OpenCV, whatever its accuracy; ``"auto"`` is OpenCV
            for float32 and uint8 if it agrees with the reference to 0.01 of 255 before rounding, else float64.
        out: (height, width, C) of the dtype of the image: where the result is written.

    Returns:
        (height, width, C), of the dtype of the image; ``out`` if it was given.

    Raises:
        MissingDependency: ``path`` is ``"fast"`` and OpenCV is not installed.
        InvalidInput: see :func:`agnostic.reference.warp.warp`; or an unknown ``path``.
    """
    check_path(path)
    if path == "fast" and opencv() is None:
        raise MissingDependency(
            "path 'fast' needs the package 'opencv-python-headless': pip install 'agnostic-ml[augment]'"
        )
    suits = image.dtype in (np.float32, np.uint8) and image.ndim == 3 and image.size > 0
    suits = suits and max(*image.shape[:2], *(shape or ())) + 2 < _LONGEST
    if path != "exact" and suits and (path == "fast" or opencv_agrees()):
        mode, m = reference.check_fill_mode(fill_mode), np.asarray(matrix, np.float64)
        size = image.shape[:2] if shape is None else (int(shape[0]), int(shape[1]))
        if reference.check_order(order) == 1 and (border := _border(image, m, size, mode)) is not None:
            if out is None or out.flags.c_contiguous or _planes(out) is not None:
                return _affine(image, m, size, border, cval, out)
            result = _affine(image, m, size, border, cval, None)
        else:
            result = _remap(image, m, size, order, mode, cval)
    elif reference.check_order(order) == 0:
        result = reference.nearest_pixels(image, matrix, shape, fill_mode=fill_mode, cval=cval)
    else:
        exact = reference.warp(image, matrix, shape, order=order, fill_mode=fill_mode, cval=cval)
        result = to_dtype(exact, image.dtype)
    if out is None:
        return result
    out[...] = result
    return out


def check_path(path: str) -> None:
    """Raise InvalidInput unless the path is known."""
    one_of("path", path, ("auto", "exact", "fast"))


def spline(
    image: npt.NDArray[Any], matrix: npt.ArrayLike, *, order: int, fill_mode: str, cval: float
) -> npt.NDArray[Any]:
    """The warp by splines of order 2 to 5, by SciPy, in the dtype of the image.

    Args and result: those of :func:`warp`.

    Raises:
        MissingDependency: SciPy is not installed.
        InvalidInput: it has no splines of the dtype.
    """
    m = np.asarray(matrix, np.float64)
    mode = reference.check_fill_mode(fill_mode)
    try:
        ndimage = importlib.import_module("scipy.ndimage")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "scipy":
            raise
        raise MissingDependency(
            f"interpolation of order {order} needs the package 'scipy': pip install scipy"
        ) from None
    if image.dtype.kind not in "biu" and image.dtype not in (np.float32, np.float64):
        raise InvalidInput(f"splines take float32, float64 or integers, and the image has dtype {image.dtype}")
    channels = [
        ndimage.affine_transform(image[..., k], m[:, :2], m[:, 2], order=order, mode=mode, cval=cval)
        for k in range(image.shape[2])
    ]
    return np.stack(channels, axis=-1)


def to_dtype(values: npt.NDArray[Any] | np.floating[Any], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Real values in another dtype: integers are rounded, halves away from zero, and clipped to the dtype's range.

    Of booleans, half and more is true.
    """
    dtype = np.dtype(dtype)
    if dtype.kind == "b":
        return np.asarray(values >= 0.5)
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        values = np.clip(np.trunc(values + np.copysign(0.5, values)), info.min, info.max)
    return np.asarray(values).astype(dtype, copy=False)


def _border(
    image: npt.NDArray[Any], matrix: npt.NDArray[np.float64], shape: tuple[int, int], fill_mode: reference.FillMode
) -> int | None:
    """OpenCV's name of the fill mode, where its warpAffine is as exact as its remap is; else None."""
    cv2 = opencv()
    # Of two channels warpAffine rounds positions to 1/32 of a pixel.
    if fill_mode not in ("nearest", "reflect", "grid-constant") or image.shape[2] not in (1, 3, 4):
        return None
    if max(image.shape[0], image.shape[1], shape[0], shape[1]) > _SHORT or _farthest(matrix, shape) > _FAR:
        return None
    name = {"nearest": "BORDER_REPLICATE", "reflect": "BORDER_REFLECT", "grid-constant": "BORDER_CONSTANT"}[fill_mode]
    border: int = getattr(cv2, name)
    return border


def _farthest(matrix: npt.NDArray[np.float64], shape: tuple[int, int]) -> float:
    """The largest coordinate, in magnitude, that any pixel of the output is read at: an affine map's are in corners."""
    down, right = shape[0] - 1, shape[1] - 1
    far = 0.0
    for a, b, start in matrix.tolist():
        y, x = a * down, b * right
        far = max(far, start + max(y, 0.0) + max(x, 0.0), -start - min(y, 0.0) - min(x, 0.0))
    return far


def _affine(
    image: npt.NDArray[Any],
    matrix: npt.NDArray[np.float64],
    shape: tuple[int, int],
    border: int,
    cval: float,
    out: npt.NDArray[Any] | None,
) -> npt.NDArray[Any]:
    """The warp by OpenCV's warpAffine: no positions in memory, and the result straight to its place.

    Images whose channels lie in planes, as torch has them, are interleaved before and separated after.
    """
    cv2 = opencv()
    (a, b, c), (d, e, f) = matrix.tolist()
    # OpenCV counts (x, y).
    across, flags = np.array([[e, d, f], [b, a, c]]), cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    count = image.shape[2]
    # Three channels of 8 bits take OpenCV a third longer than four.
    wide = 4 if count == 3 and image.dtype == np.uint8 else count
    planes = None if out is None or count == 1 else _planes(out)
    aside = planes is not None or wide != count
    place = _scratch.target(shape, wide, image.dtype) if aside else None if out is None else _in_order(out)
    result: npt.NDArray[Any] = cv2.warpAffine(
        _woven(image, wide), across, (shape[1], shape[0]), place, flags, border, (cval,) * 4
    )
    if planes is not None:
        cv2.split(result, planes + [_scratch.source(shape, 1, image.dtype)] * (wide - count))
    elif aside:
        result = cv2.cvtColor(result, cv2.COLOR_RGBA2RGB, None if out is None else _in_order(out))
    return result.reshape(*shape, count) if out is None else out


def _in_order(image: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The same memory, where it lies in one piece, with the strides that OpenCV checks.

    NumPy keeps any stride along an axis of length 1, such as the one of a grey image whose channel came first, and
    calls the array contiguous all the same.
    """
    return image.reshape(-1).reshape(image.shape) if image.flags.c_contiguous else image


def _planes(image: npt.NDArray[Any]) -> list[npt.NDArray[Any]] | None:
    """The channels, each (H, W), where each of them lies in one piece."""
    apart = image.transpose(2, 0, 1)
    return list(_in_order(apart)) if apart.flags.c_contiguous else None


def _woven(image: npt.NDArray[Any], count: int) -> npt.NDArray[Any]:
    """The image with its channels side by side, filled up to ``count``, and in the processor's cache."""
    cv2 = opencv()
    channels = image.shape[2]
    planes = _planes(image) if channels > 1 else None
    if planes is None and count == channels:
        woven = _in_order(image)
    else:
        woven = _scratch.source(image.shape, count, image.dtype)
        if planes is None:
            cv2.cvtColor(image, cv2.COLOR_RGB2RGBA, woven)
            return woven
        # This may write past the cache.
        cv2.merge(planes + planes[-1:] * (count - channels), woven)
    if woven.flags.c_contiguous:
        # A slanting walk through memory that is not in the cache takes as long as the warp; this straight one does not.
        np.bitwise_or.reduce(woven.reshape(-1).view(np.uint8)[::_CACHE_LINE])
    return woven


class _Scratch(threading.local):
    """Two images that each thread keeps, for what lies between two steps: new memory would cost as much as a step."""

    def __init__(self) -> None:
        self._memory = np.empty((2, 4 * _SHORT * _SHORT), np.float32)

    def source(self, shape: Sequence[int], channels: int, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        return self._image(0, shape, channels, dtype)

    def target(self, shape: Sequence[int], channels: int, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        return self._image(1, shape, channels, dtype)

    def _image(self, which: int, shape: Sequence[int], channels: int, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        height, width = shape[:2]
        flat: npt.NDArray[Any] = self._memory[which].view(dtype)[: height * width * channels]
        return flat.reshape(height, width, channels)


_scratch = _Scratch()


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
    if not image.flags.c_contiguous:
        # Planes are woven by OpenCV in a fifth of NumPy's time.
        planes = _planes(image) if channels <= 4 else None
        image = np.ascontiguousarray(image) if planes is None else opencv().merge(planes)
    if max(height, width, *shape) <= _TILE and fill_mode != "grid-wrap":
        if order == 1 and fill_mode in ("nearest", "grid-constant") and _farthest(matrix, shape) <= 2 * _TILE:
            # Nothing to fold: the positions are rounded to float32 as they are added.
            return _read(image, *_positions(matrix, 0, 0, *shape, np.float32), order, fill_mode, cval)
        return _remap_tile(image, *_positions(matrix, 0, 0, *shape), order, fill_mode, cval)
    frame = int(fill_mode in ("grid-wrap", "grid-constant"))
    if frame:
        image = reference.framed(image, fill_mode, cval)
    result = np.empty((*shape, channels), image.dtype)
    for top in range(0, shape[0], _TILE // 2):
        for left in range(0, shape[1], _TILE // 2):
            part = result[top : top + _TILE // 2, left : left + _TILE // 2]
            rows, columns = _positions(matrix, top, left, *part.shape[:2])
            r, c = reference.fold(rows, height, fill_mode), reference.fold(columns, width, fill_mode)
            if order == 0:
                r, c = np.floor(r + 0.5), np.floor(c + 0.5)
            r, c = r + frame, c + frame
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
    height, width, _ = image.shape
    far = max(abs(p.item(k)) for p in (rows, columns) for k in (0, p.shape[1] - 1, -p.shape[1], -1))
    if fill_mode == "wrap" or (fill_mode == "reflect" and (order == 0 or far > _TILE)) or far > 2 * _TILE:
        # OpenCV's own wrap has another period; in its mirror half-way positions round to the other side, and what comes
        # back from afar is as coarse as it was there.
        r, c = reference.fold(rows, height, fill_mode), reference.fold(columns, width, fill_mode)
    else:
        r, c = rows, columns
    if order == 0:
        r, c = np.floor(r + 0.5), np.floor(c + 0.5)
    result = _read(image, r.astype(np.float32), c.astype(np.float32), order, fill_mode, cval)
    if fill_mode == "constant":
        result[reference.outside(rows, columns, (height, width))] = to_dtype(np.float64(cval), image.dtype)
    return result


def _read(
    image: npt.NDArray[Any],
    rows: npt.NDArray[np.float32],
    columns: npt.NDArray[np.float32],
    order: int,
    fill_mode: reference.FillMode,
    cval: float,
) -> npt.NDArray[Any]:
    """OpenCV's remap of any number of channels."""
    cv2 = opencv()
    channels = image.shape[2]
    border = cv2.BORDER_REFLECT if fill_mode == "reflect" and order == 1 else cv2.BORDER_REPLICATE
    border = cv2.BORDER_CONSTANT if fill_mode == "grid-constant" else border
    method = cv2.INTER_NEAREST if order == 0 else cv2.INTER_LINEAR
    parts: list[npt.NDArray[Any]] = []
    while (k := sum(part.shape[-1] for part in parts)) < channels:
        # OpenCV reads at most four channels at once; of two it rounds the positions to 1/32 of a pixel.
        count = next(c for c in (4, 3, 1) if c <= channels - k)
        part = cv2.remap(image[..., k : k + count], columns, rows, method, borderMode=border, borderValue=(cval,) * 4)
        parts.append(part.reshape(*rows.shape, count))
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)


def _positions(
    matrix: npt.NDArray[np.float64],
    top: int,
    left: int,
    height: int,
    width: int,
    dtype: type[np.floating[Any]] = np.float64,
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """:func:`agnostic.reference.warp.positions` of a window of the output, added in float64 and in the same order."""
    y, x = _ramp(top, height), _ramp(left, width)
    result = np.empty((2, height, width), dtype)
    for axis in (0, 1):
        down = y * matrix[axis, 0] + matrix[axis, 2]
        np.add(down[:, None], x * matrix[axis, 1], out=result[axis], casting="same_kind")
    return result[0], result[1]


@functools.lru_cache(maxsize=64)
def _ramp(start: int, length: int) -> npt.NDArray[np.float64]:
    return np.arange(start, start + length, dtype=np.float64)
