"""Many images as one: a grid with gaps."""

from __future__ import annotations

from typing import Any

import numpy as np

from agnostic.errors import InvalidInput

_Array = np.ndarray[Any, Any]


def mosaic(images: _Array, columns: int = 8, gap: int = 5) -> _Array:
    """Images side by side, row by row, with black gaps between them and around them.

    Args:
        images: (N, H, W, C) or (N, H, W), any dtype.
        columns: number of images per row; fewer images make a narrower mosaic.
        gap: pixels between images and around all of them.

    Returns:
        (rows * (H + gap) + gap, columns * (W + gap) + gap, C), of the images' dtype; places without an image are black.

    Raises:
        InvalidInput: not a batch of images, an empty one, less than one column or a negative gap.

    Example:
        >>> ag.mosaic(images, columns=2, gap=1).shape
        (18, 35, 3)
    """
    images = np.asarray(images)
    if images.ndim not in (3, 4) or not len(images):
        raise InvalidInput(f"a mosaic is made of images (N, H, W, C) or (N, H, W) with N > 0, not {images.shape}")
    if columns < 1 or gap < 0:
        raise InvalidInput(f"a mosaic has at least one column and a gap of at least 0, not {columns} and {gap}")
    count, height, width = images.shape[:3]
    columns = min(columns, count)
    rows = -(-count // columns)
    canvas = np.zeros((rows * (height + gap) + gap, columns * (width + gap) + gap, *images.shape[3:]), images.dtype)
    for i, image in enumerate(images):
        top, left = (i // columns) * (height + gap) + gap, (i % columns) * (width + gap) + gap
        canvas[top : top + height, left : left + width] = image
    return canvas
