"""The reference warp: one affine map, one resampling, in NumPy float64; the judge of every faster one.

Positions are (row, column) in pixels, with (0, 0) the centre of the first pixel. What lies outside the image is decided
by folding a position back into it, as SciPy's ``ndimage.affine_transform`` does (``d c b a | a b c d | d c b a``):

============= ============================= ========================================================================
mode          an image ``a b c d``          said exactly
============= ============================= ========================================================================
constant      ``k k k | a b c d | k k k``   ``cval`` as soon as the position leaves the outermost pixel centres; nothing
                                            is blended across the border
grid-constant ``k k k | a b c d | k k k``   the image lies among pixels of ``cval``: between the outermost centre and
                                            the next one the two are blended
nearest       ``a a a | a b c d | d d d``   the nearest edge pixel
reflect       ``c b a | a b c d | d c b``   mirrored at half a pixel outside the outermost centres
wrap          ``b c d | a b c d | a b c``   period ``length - 1``: the centres of the first and the last pixel coincide,
                                            so one of the two never shows
grid-wrap     ``b c d | a b c d | a b c``   period ``length``: copies of the image lie side by side
============= ============================= ========================================================================

``constant`` and ``wrap`` jump at the centre of the outermost pixels: a position that rounding puts beyond it, as a turn
by 90 degrees does, shows something else. ``grid-constant`` and ``grid-wrap`` are continuous there.

Source: https://docs.scipy.org/doc/scipy/reference/generated/scipy.ndimage.affine_transform.html; the half-pixel
subtleties were found by comparing with it, which the tests repeat.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, cast, get_args

import numpy as np
import numpy.typing as npt

from agnostic.checks import one_of
from agnostic.errors import InvalidInput

Float: TypeAlias = npt.NDArray[np.float64]
FillMode = Literal["constant", "nearest", "reflect", "wrap", "grid-constant", "grid-wrap"]
FILL_MODES: tuple[str, ...] = get_args(FillMode)


def check_fill_mode(fill_mode: str) -> FillMode:
    """The fill mode itself; InvalidInput names the valid ones if it is none of them."""
    one_of("fill_mode", fill_mode, FILL_MODES)
    return cast(FillMode, fill_mode)


def check_order(order: int) -> int:
    """The interpolation order itself; 0 is the nearest pixel, 1 is bilinear."""
    if order not in (0, 1):
        raise InvalidInput(f"interpolation order {order!r} is not supported: give 0 (nearest pixel) or 1 (bilinear)")
    return int(order)


def positions(matrix: npt.ArrayLike, shape: tuple[int, int]) -> tuple[Float, Float]:
    """Where each output pixel is read, as row and column positions of the input.

    Args:
        matrix: (2, 3); output pixel (y, x) is read at ``matrix @ (y, x, 1)``.
        shape: (height, width) of the output.

    Returns:
        Two arrays (height, width).
    """
    m = np.asarray(matrix, np.float64)
    y = np.arange(shape[0], dtype=np.float64)[:, None]
    x = np.arange(shape[1], dtype=np.float64)[None, :]
    # The order of these additions is SciPy's: a half-way position must round to the same side.
    return m[0, 2] + y * m[0, 0] + x * m[0, 1], m[1, 2] + y * m[1, 0] + x * m[1, 1]


def fold(position: Float, length: int, fill_mode: FillMode) -> Float:
    """Positions brought into ``[0, length - 1]``, where reading them gives what the mode puts at the original ones.

    For ``"constant"`` they are clipped; which of them show ``cval`` is the question of :func:`outside`. The modes of
    the grid read between the border and the pixel beyond it too, in ``[-1, length]``: see :func:`framed`.
    """
    last = length - 1
    if fill_mode == "grid-constant":
        return np.clip(position, -1, length)
    if fill_mode == "grid-wrap":
        periods = np.where(position < 0, -np.trunc(-position / length) - 1, np.trunc(position / length))
        return np.asarray(position - length * periods)
    if fill_mode in ("constant", "nearest") or length == 1:
        return np.clip(position, 0, last)
    low, high = position < 0, position > last
    if not (low.any() or high.any()):
        return position
    if fill_mode == "wrap":
        below = position + last * (np.trunc(-position / last) + 1)
        above = position - last * np.trunc(position / last)
        return np.where(low, below, np.where(high, above, position))
    period = 2 * length
    below = np.where(position < -period, position + period * np.trunc(-position / period), position)
    below = np.where(below < -length, below + period, -below - 1)
    above = position - period * np.trunc(position / period)
    above = np.where(above >= length, period - above - 1, above)
    # Half a pixel on either side of the image both neighbours are the edge pixel.
    return np.clip(np.where(low, below, np.where(high, above, position)), 0, last)


def outside(rows: Float, columns: Float, shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Which positions lie beyond the outermost pixel centres: those that ``"constant"`` fills with ``cval``."""
    return (rows < 0) | (rows > shape[0] - 1) | (columns < 0) | (columns > shape[1] - 1)


def framed(image: npt.NDArray[Any], fill_mode: FillMode, cval: float) -> npt.NDArray[Any]:
    """The image (H, W, C) within the frame, one pixel wide, that its grid mode puts around it: (H + 2, W + 2, C)."""
    height, width, channels = image.shape
    if fill_mode == "grid-wrap":
        return np.asarray(image[np.arange(-1, height + 1) % height][:, np.arange(-1, width + 1) % width])
    result = np.full((height + 2, width + 2, channels), cval, image.dtype)
    result[1:-1, 1:-1] = image
    return result


def places(
    image: npt.NDArray[Any],
    matrix: npt.ArrayLike,
    shape: tuple[int, int] | None = None,
    *,
    fill_mode: FillMode,
    cval: float,
) -> tuple[npt.NDArray[Any], int, Float, Float, npt.NDArray[np.bool_] | None]:
    """What is read, where its first pixel is (1 within a frame), the rows and columns to read at, as seen from there,
    and where ``cval`` goes afterwards (None: nowhere).

    Raises:
        InvalidInput: the image is not (H, W, C) with at least one pixel.
    """
    if image.ndim != 3 or 0 in image.shape[:2]:
        raise InvalidInput(f"an image is (H, W, C) with at least one pixel, not of shape {image.shape}")
    height, width = image.shape[:2]
    rows, columns = positions(matrix, (height, width) if shape is None else shape)
    r, c = fold(rows, height, fill_mode), fold(columns, width, fill_mode)
    if fill_mode in ("grid-constant", "grid-wrap"):
        return framed(image, fill_mode, cval), 1, r, c, None
    return image, 0, r, c, outside(rows, columns, (height, width)) if fill_mode == "constant" else None


def nearest_pixels(
    image: npt.NDArray[Any],
    matrix: npt.ArrayLike,
    shape: tuple[int, int] | None = None,
    *,
    fill_mode: str = "nearest",
    cval: float = 0.0,
) -> npt.NDArray[Any]:
    """:func:`warp` of order 0 in the dtype of the image, of any kind: values are moved and never computed with."""
    image, first, r, c, filled = places(image, matrix, shape, fill_mode=check_fill_mode(fill_mode), cval=cval)
    y, x = np.floor(r + 0.5).astype(np.intp) + first, np.floor(c + 0.5).astype(np.intp) + first
    result: npt.NDArray[Any] = image[y, x]
    if filled is not None:
        result[filled] = cval
    return result


def warp(
    image: npt.NDArray[Any],
    matrix: npt.ArrayLike,
    shape: tuple[int, int] | None = None,
    *,
    order: int = 1,
    fill_mode: str = "nearest",
    cval: float = 0.0,
) -> Float:
    """Resample an image by one affine map, all channels at once.

    Args:
        image: (H, W, C), any real dtype.
        matrix: (2, 3); output pixel (y, x) is read at ``matrix @ (y, x, 1)`` of the input, in pixels, with (0, 0) the
            centre of the first pixel.
        shape: (height, width) of the output; None: that of the image.
        order: 0 reads the nearest pixel, 1 interpolates bilinearly.
        fill_mode: one of :data:`FILL_MODES`; see the module's docstring.
        cval: what ``"constant"`` fills with.

    Returns:
        (height, width, C) float64.

    Raises:
        InvalidInput: the image is not (H, W, C) with at least one pixel, or an option is unknown.
    """
    order, mode = check_order(order), check_fill_mode(fill_mode)
    if order == 0:
        return nearest_pixels(np.asarray(image, np.float64), matrix, shape, fill_mode=mode, cval=cval)
    image, first, r, c, filled = places(np.asarray(image, np.float64), matrix, shape, fill_mode=mode, cval=cval)
    top, left = np.floor(r), np.floor(c)
    down, right = (r - top)[..., None], (c - left)[..., None]
    y0, x0 = top.astype(np.intp) + first, left.astype(np.intp) + first
    y1, x1 = np.minimum(y0 + 1, image.shape[0] - 1), np.minimum(x0 + 1, image.shape[1] - 1)
    result: Float = image[y0, x0] * (1 - down) * (1 - right)
    result += image[y0, x1] * (1 - down) * right
    result += image[y1, x0] * down * (1 - right)
    result += image[y1, x1] * down * right
    if filled is not None:
        result[filled] = cval
    return result
