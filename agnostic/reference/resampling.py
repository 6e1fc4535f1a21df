"""The conventions of resizing along one axis, each as the matrix from old to new pixels."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from agnostic.errors import InvalidInput

Array = np.ndarray[Any, Any]


def resize_matrix(
    old: int,
    new: int,
    interpolation: str,
    *,
    align_corners: bool = False,
    half_pixel: bool = True,
    antialias: bool = False,
    scale: float | None = None,
    cubic: float = -0.75,
    edges: str = "clamp",
) -> Array:
    """The matrix (new, old), float64, of which each row sums to 1.

    Args:
        old, new: lengths.
        interpolation: ``"nearest"``, ``"bilinear"``, ``"bicubic"``, ``"lanczos3"``, ``"lanczos5"`` or ``"area"``.
        align_corners: the first and last pixels' centres stay where they are.
        half_pixel: pixel i is centred at i + 0.5; else at i.
        antialias: where the image shrinks, the filter is widened by as much.
        scale: new pixels an old one, if it was given and is not ``new / old`` exactly.
        cubic: the cubic's slope: -0.75 in PyTorch and OpenCV, -0.5 (Keys' own) in TensorFlow and JAX.
        edges: beyond the border, ``"clamp"`` repeats the last pixel, ``"renormalize"`` leaves it out.

    Raises:
        InvalidInput: an interpolation that is none of these.

    Source: Keys, "Cubic Convolution Interpolation for Digital Image Processing", 1981; the frameworks' documents.
    """
    if interpolation == "area":
        return _area(old, new)
    ratio = old / new if scale is None else 1.0 / scale
    place = np.arange(new, dtype=np.float64)
    if align_corners:
        ratio = (old - 1) / (new - 1) if new > 1 else 0.0
        centre = place * ratio
    elif half_pixel:
        centre = (place + 0.5) * ratio - 0.5
    else:
        centre = place * ratio
    if interpolation == "nearest":
        # floor(x + 0.5) in pixel centres is floor of the coordinate in pixel edges.
        near = np.floor(centre + 0.5) if half_pixel or align_corners else np.floor(centre)
        return np.eye(old)[np.clip(near.astype(np.int64), 0, old - 1)]
    kernel, support = _kernel(interpolation, cubic)
    stretch = max(ratio, 1.0) if antialias else 1.0
    if antialias:
        edges = "renormalize"
    reach = math.ceil(support * stretch) + 1
    first = np.floor(centre).astype(np.int64)
    matrix = np.zeros((new, old))
    for offset in range(-reach, reach + 1):
        index = first + offset
        weight = kernel((index - centre) / stretch)
        if edges == "renormalize":
            weight = np.where((index >= 0) & (index < old), weight, 0.0)
        np.add.at(matrix, (np.arange(new), np.clip(index, 0, old - 1)), weight)
    total: Array = matrix.sum(axis=1, keepdims=True)
    return matrix / total


def _area(old: int, new: int) -> Array:
    """The mean over the old pixels from floor(i * old / new) to ceil((i + 1) * old / new): adaptive average pooling."""
    matrix = np.zeros((new, old))
    for i in range(new):
        a, b = i * old // new, -(-(i + 1) * old // new)
        matrix[i, a:b] = 1.0 / (b - a)
    return matrix


def _kernel(interpolation: str, a: float) -> tuple[Callable[[Array], Array], float]:
    if interpolation == "bilinear":
        return lambda x: np.maximum(1.0 - np.abs(x), 0.0), 1.0
    if interpolation == "bicubic":
        return lambda x: _cubic(np.abs(x), a), 2.0
    if interpolation in ("lanczos3", "lanczos5"):
        radius = float(interpolation[-1])
        return lambda x: np.where(np.abs(x) < radius, np.sinc(x) * np.sinc(x / radius), 0.0), radius
    raise InvalidInput(f"no interpolation {interpolation!r}, only nearest, bilinear, bicubic, lanczos3, lanczos5, area")


def _cubic(x: Array, a: float) -> Array:
    near: Array = ((a + 2) * x - (a + 3)) * x * x + 1
    far: Array = a * (((x - 5) * x + 8) * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))
