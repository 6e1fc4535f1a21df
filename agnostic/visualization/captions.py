"""Mosaics with a caption below each image and a title above all, in the font that Pillow brings along."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from agnostic.errors import InvalidInput
from agnostic.text import counted, printable
from agnostic.visualization.mosaic import mosaic

_SMALLEST, _LARGEST = 9, 14
"""Of the font, in pixels: below, letters cannot be read; above, they take the place of pictures."""
_PARTS = 12
"""A letter is as high as this part of an image's width."""


def captioned(
    images: npt.NDArray[Any], captions: Sequence[str], *, columns: int = 8, gap: int = 5, title: str = ""
) -> npt.NDArray[np.uint8]:
    """Images side by side, each with a line of text below it, and one above all.

    A text that is too long for its place is cut, and ends in dots.

    Args:
        images: (N, H, W, C) with 1 or 3 channels, uint8 or floating point in [0, 1].
        captions: one per image; empty for none.
        columns: number of images per row.
        gap: pixels between images and around all of them.
        title: above all; empty for none.

    Returns:
        (height, width, 3) uint8: as :func:`mosaic` with rows for the texts, white on black.

    Raises:
        InvalidInput: there are not as many captions as images, or no such images.
    """
    pixels = np.asarray(images)
    if pixels.ndim != 4 or len(captions) != len(pixels) or pixels.shape[3] not in (1, 3):
        raise InvalidInput(
            f"captions are for images (N, H, W, 1 or 3), one each, not {counted(len(captions), 'caption')} for "
            f"{pixels.shape}"
        )
    if pixels.dtype != np.uint8:
        pixels = np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8)
    pixels = np.broadcast_to(pixels, (*pixels.shape[:3], 3))
    size = min(max(pixels.shape[2] // _PARTS, _SMALLEST), _LARGEST)
    if any(captions):
        lines = np.stack([_line(text, pixels.shape[2], size) for text in captions])
        pixels = np.concatenate([pixels, lines], axis=1)
    made = mosaic(pixels, columns, gap)
    if title and made.shape[1] > 2 * gap:
        line = _line(title, made.shape[1] - 2 * gap, size)
        top = np.zeros((line.shape[0] + gap, made.shape[1], 3), np.uint8)
        top[gap:, gap : gap + line.shape[1]] = line
        made = np.concatenate([top, made])
    return np.ascontiguousarray(made)


def _line(text: str, width: int, size: int) -> npt.NDArray[np.uint8]:
    """(height, width, 3): one line of text, white on black, cut to the width."""
    from PIL import Image, ImageDraw, ImageFont

    # Without FreeType Pillow has one bitmap font, of one size.
    font: Any = ImageFont.load_default(size)
    text = printable(text)
    if font.getlength(text) > width:
        while text and font.getlength(text + "...") > width:
            text = text[:-1]
        text += "..." if text else ""
    image = Image.new("L", (width, round(size * 1.5)))
    ImageDraw.Draw(image).text((0, round(size * 0.1)), text, fill=255, font=font)
    return np.repeat(np.asarray(image)[..., None], 3, axis=2)
