"""From sampled numbers to the one matrix that an image is read by.

A matrix is (2, 3) float64 and maps a pixel (row, column) of the output to where it is read in the input, both counted
from the centre of the first pixel.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from agnostic.errors import InvalidInput

Float: TypeAlias = npt.NDArray[np.float64]


def classic_matrix(parameters: Mapping[str, Any], shape: tuple[int, int]) -> Float | None:
    """The matrix of Keras' legacy transform, flips included.

    The legacy class builds the map in the order rotation, shift, shear, zoom, for axes (row, column), and swaps the two
    axes at the end, the centre along with them. So ``tx``, drawn from the height, moves columns, and an image that is
    not square turns about a point beside its centre. Both are kept: the pixels are the contract here.

    Args:
        parameters: ``theta`` and ``shear`` in degrees, ``tx`` and ``ty`` in pixels, ``zx`` and ``zy`` as factors,
            ``flip_horizontal`` and ``flip_vertical``; what is missing changes nothing.
        shape: (height, width).

    Returns:
        (2, 3), or None where nothing is moved, or moved only by flips.
    """
    get = parameters.get
    theta, tx, ty, shear = get("theta", 0), get("tx", 0), get("ty", 0), get("shear", 0)
    zx, zy = get("zx", 1), get("zy", 1)
    if theta == 0 and tx == 0 and ty == 0 and shear == 0 and zx == 1 and zy == 1:
        return None
    cos, sin = math.cos(math.radians(theta)), math.sin(math.radians(theta))
    lean, upright = math.sin(math.radians(shear)), math.cos(math.radians(shear))
    # rotation [[cos, -sin], [sin, cos]] @ shift @ shear [[1, -lean], [0, upright]] @ zoom diag(zx, zy), about (p, q)
    a, b = cos * zx, (-cos * lean - sin * upright) * zy
    c, d = sin * zx, (-sin * lean + cos * upright) * zy
    p, q = shape[0] / 2 - 0.5, shape[1] / 2 - 0.5
    e, f = cos * tx - sin * ty + p, sin * tx + cos * ty + q
    # The axes are exchanged only now.
    e, f = -c * p - d * q + f, -a * p - b * q + e
    if get("flip_vertical", False):
        d, e, b, f = -d, e + d * (shape[0] - 1), -b, f + b * (shape[0] - 1)
    if get("flip_horizontal", False):
        c, e, a, f = -c, e + c * (shape[1] - 1), -a, f + a * (shape[1] - 1)
    return np.array([[d, c, e], [b, a, f]], np.float64)


def classic_product(parameters: Mapping[str, Any], shape: tuple[int, int]) -> Float | None:
    """The matrix of Keras' legacy transform without flips, multiplied as the legacy class does it: to the last bit.

    :func:`classic_matrix` is the same but for rounding and takes a fifth of the time. Where an image may jump (at the
    border of a constant, between two nearest pixels), rounding decides.

    Args and result: those of :func:`classic_matrix`.
    """
    get = parameters.get
    factors = []
    if (theta := get("theta", 0)) != 0:
        cos, sin = np.cos(np.deg2rad(theta)), np.sin(np.deg2rad(theta))
        factors.append([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    if get("tx", 0) != 0 or get("ty", 0) != 0:
        factors.append([[1, 0, get("tx", 0)], [0, 1, get("ty", 0)], [0, 0, 1]])
    if (shear := get("shear", 0)) != 0:
        factors.append([[1, -np.sin(np.deg2rad(shear)), 0], [0, np.cos(np.deg2rad(shear)), 0], [0, 0, 1]])
    if get("zx", 1) != 1 or get("zy", 1) != 1:
        factors.append([[get("zx", 1), 0, 0], [0, get("zy", 1), 0], [0, 0, 1]])
    if not factors:
        return None
    p, q = shape[0] / 2 - 0.5, shape[1] / 2 - 0.5
    there, back = np.array([[1, 0, p], [0, 1, q], [0, 0, 1]]), np.array([[1, 0, -p], [0, 1, -q], [0, 0, 1]])
    product: Float = np.dot(np.dot(there, functools.reduce(np.dot, [np.array(f, np.float64) for f in factors])), back)
    # The axes are exchanged only now.
    exchanged: Float = product[[1, 0]][:, [1, 0, 2]]
    return exchanged


def cos_sin(degrees: float) -> tuple[float, float]:
    """Cosine and sine of an angle in degrees, exact at each quarter turn."""
    quarters = round(degrees / 90)
    rest = math.radians(degrees - 90 * quarters)
    cos, sin = math.cos(rest), math.sin(rest)
    for _ in range(quarters % 4):
        cos, sin = -sin, cos
    return cos, sin


def inverse(matrix: Float) -> Float:
    """The matrix of the map back: from a position of the input to the pixel of the output that shows it."""
    linear = np.linalg.inv(matrix[:, :2])
    return np.concatenate([linear, -linear @ matrix[:, 2:]], axis=1)


def move_points(points: npt.ArrayLike, matrix: Float) -> Float:
    """Where key points of the input appear in the output.

    Args:
        points: (..., 2), each (x, y) with (0, 0) the centre of the first pixel.
        matrix: (2, 3).

    Returns:
        (..., 2) float64; points that left the image are not clipped.

    Raises:
        InvalidInput: they have another shape, or are no finite numbers.
    """
    back = inverse(matrix)
    p = _rows(points, 2, "points", "(x, y)")
    moved = p[..., ::-1] @ back[:, :2].T + back[:, 2]
    return np.asarray(moved[..., ::-1])


def move_boxes(boxes: npt.ArrayLike, matrix: Float, shape: tuple[int, int]) -> Float:
    """The smallest upright boxes around the moved boxes, clipped to the image.

    Args:
        boxes: (K, 4), each (left, top, right, bottom) as pixel edges: the whole image is (0, 0, width, height).
        matrix: (2, 3).
        shape: (height, width) of the output.

    Returns:
        (K, 4) float64, in the order given; a box that left the image has no area.

    Raises:
        InvalidInput: they have another shape, or end before they begin.
    """
    b = _rows(boxes, 4, "boxes", "(left, top, right, bottom)").reshape(-1, 4)
    if (b[:, 2:] < b[:, :2]).any():
        worst = b[(b[:, 2:] < b[:, :2]).any(axis=1)][0].tolist()
        raise InvalidInput(f"a box is (left, top, right, bottom) with right and bottom not below, not {worst}")
    # Edges lie half a pixel before the centres that the matrix speaks of.
    corners = move_points(b[:, [[0, 1], [2, 1], [0, 3], [2, 3]]] - 0.5, matrix) + 0.5
    limit = np.array([shape[1], shape[0]], np.float64)
    low, high = corners.min(axis=1), corners.max(axis=1)
    return np.concatenate([np.clip(low, 0, limit), np.clip(high, 0, limit)], axis=1)


def _rows(values: npt.ArrayLike, width: int, name: str, meaning: str) -> Float:
    """Finite numbers of shape (..., width); an empty list has none."""
    try:
        rows = np.asarray(values, np.float64)
    except (TypeError, ValueError):
        rows = np.full(1, np.nan)
    except RuntimeError as error:  # of a tensor whose values are not at hand
        raise InvalidInput(f"{name} cannot be made a NumPy array: {error}") from None
    if rows.shape == (0,):
        return rows.reshape(0, width)
    if rows.ndim == 0 or rows.shape[-1] != width or not np.isfinite(rows).all():
        raise InvalidInput(f"{name} are finite numbers {meaning} of shape (K, {width}), not {values!r:.80}")
    return rows
