"""Pictures of numbers and of places in photos."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from agnostic.display import shortened
from agnostic.visualization.colormap import colorize

_CELL, _FONT, _MARGIN = 36, 12, 8
_WIDEST = 30


def heat_map(
    values: npt.NDArray[np.float64], rows: Sequence[str], columns: Sequence[str], remark: str = ""
) -> npt.NDArray[np.uint8]:
    """A table of colours with the names of its rows and columns, and the numbers where there is room.

    Args:
        values: (rows, columns); 0 is dark, 1 is bright.
        rows, columns: names.
        remark: a sentence below the table.

    Returns:
        (H, W, 3) uint8.
    """
    from PIL import Image, ImageDraw

    font = _font()
    cell = _CELL if max(values.shape) <= 40 else 14
    names = [[shortened(x, _WIDEST) for x in side] for side in (rows, columns)]
    left, top = (int(max(font.getlength(x) for x in side)) + 2 * _MARGIN for side in names)
    height, width = top + cell * len(rows) + _MARGIN, left + cell * len(columns) + _MARGIN
    canvas = Image.new("RGB", (width, height), (255, 255, 255))
    draw = ImageDraw.Draw(canvas)
    colors = colorize(values)
    for i, name in enumerate(names[0]):
        draw.text((left - _MARGIN, top + cell * (i + 0.5)), name, (0, 0, 0), font, anchor="rm")
    for j, name in enumerate(names[1]):
        _upright(canvas, name, left + cell * j, top - _MARGIN, cell)
    for (i, j), value in np.ndenumerate(values):
        x, y = left + cell * j, top + cell * i
        color = tuple(map(int, colors[i, j]))
        draw.rectangle((x, y, x + cell - 2, y + cell - 2), color)
        if cell == _CELL:
            ink = (0, 0, 0) if sum(color) > 380 else (255, 255, 255)
            draw.text((x + cell / 2 - 1, y + cell / 2 - 1), f"{value:.2f}", ink, font, anchor="mm")
    return np.array(canvas if not remark else _with_sentence(canvas, remark))


def _with_sentence(canvas: Any, text: str) -> Any:
    """A picture with a sentence below it, in lines of its width."""
    import textwrap

    from PIL import Image, ImageDraw

    font = _font()
    width = max(canvas.width, 240)
    lines = textwrap.wrap(text, max(20, int((width - 2 * _MARGIN) / font.getlength("n"))))
    found = Image.new("RGB", (width, canvas.height + (_FONT + 4) * len(lines) + _MARGIN), (255, 255, 255))
    found.paste(canvas, (0, 0))
    for i, line in enumerate(lines):
        ImageDraw.Draw(found).text((_MARGIN, canvas.height + (_FONT + 4) * i), line, (0, 0, 0), font)
    return found


def _upright(canvas: Any, name: str, x: int, bottom: int, cell: int) -> None:
    """A name that is read from below, above a column."""
    from PIL import Image, ImageDraw

    font = _font()
    strip = Image.new("RGB", (int(font.getlength(name)) + 1, _FONT + 4), (255, 255, 255))
    ImageDraw.Draw(strip).text((0, 0), name, (0, 0, 0), font)
    turned = strip.transpose(Image.Transpose.ROTATE_90)
    canvas.paste(turned, (x + (cell - turned.width) // 2, bottom - turned.height))


def _font() -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(_FONT)


def marked(photo: npt.NDArray[np.uint8], place: Sequence[int], shape: Sequence[int]) -> npt.NDArray[np.uint8]:
    """A photo with a frame around the place of one position of a layer's output.

    Args:
        photo: (H, W, 3) uint8, as the model sees it.
        place: (row, column) in the layer's output.
        shape: (height, width) of the layer's output.

    Returns:
        A copy with a bright frame on a dark one; of an eighth of the photo at least, so that it is seen.
    """
    found = photo.copy()
    sides = []
    for at, count, length in zip(place, shape, photo.shape[:2], strict=True):
        half = max(length / count, length / 8) / 2
        centre = (at + 0.5) * length / count
        sides.append((int(np.clip(centre - half, 0, length - 1)), int(np.clip(centre + half, 1, length)) - 1))
    (top, bottom), (left, right) = sides
    for inset, color in ((0, (0, 0, 0)), (1, (255, 220, 0)), (2, (0, 0, 0))):
        if inset > min(bottom - top, right - left) // 2:
            break
        rows, columns = slice(top + inset, bottom - inset + 1), slice(left + inset, right - inset + 1)
        for line in ((top + inset, columns), (bottom - inset, columns), (rows, left + inset), (rows, right - inset)):
            found[line] = color
    return found
