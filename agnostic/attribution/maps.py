"""Maps over an image: their size, and how they look."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from agnostic.reference.resampling import resize_matrix
from agnostic.visualization.colormap import colorize

Maps = npt.NDArray[np.float64]


def enlarged(maps: Maps, size: tuple[int, int]) -> Maps:
    """Maps (..., h, w) in another size (height, width), bilinear with the centres of the pixels aligned."""
    for axis, length in ((-2, size[0]), (-1, size[1])):
        matrix = resize_matrix(maps.shape[axis], length, "bilinear")
        maps = np.moveaxis(np.moveaxis(maps, axis, -1) @ matrix.T, -1, axis)
    return maps


def blurred(images: npt.NDArray[np.float32], deviation: float) -> npt.NDArray[np.float32]:
    """Images (N, H, W, C) under a Gaussian of a standard deviation in pixels, above 0, renewed at the edges."""
    found = images.astype(np.float64)
    for axis in (1, 2):
        places = np.arange(images.shape[axis])
        weights = np.exp(-0.5 * ((places[:, None] - places) / deviation) ** 2)
        weights /= weights.sum(1, keepdims=True)
        found = np.moveaxis(np.tensordot(weights, found, (1, axis)), 0, axis)
    return found.astype(np.float32)


def overlay(image: npt.NDArray[Any], map_: npt.NDArray[Any], opacity: float = 0.5) -> npt.NDArray[np.uint8]:
    """A map over its image.

    Args:
        image: (H, W, C), uint8 or floating point in [0, 1].
        map_: (H, W), any numbers; those below 0 count as 0, and the 99th percentile is the brightest.
        opacity: of the map, 0 to 1.

    Returns:
        (H, W, 3) uint8: the image in grey below the colours of the map.
    """
    pixels = image / 255 if image.dtype == np.uint8 else image.astype(np.float64)
    grey = np.repeat(pixels.mean(-1, keepdims=True), 3, -1)
    positive = np.maximum(map_.astype(np.float64), 0)
    top = np.percentile(positive, 99) or positive.max() or 1.0
    colours = colorize(positive / top) / 255
    found: npt.NDArray[np.uint8] = np.rint(255 * ((1 - opacity) * grey + opacity * colours)).astype(np.uint8)
    return found
