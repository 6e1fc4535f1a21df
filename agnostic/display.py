"""How values are displayed at a prompt and in a notebook: short texts, HTML tables and pictures."""

from __future__ import annotations

import base64
import dataclasses
import io
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from agnostic.arrays import dtype_name
from agnostic.text import printable

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

LIMIT = 400
"""The approximate number of characters of a ``repr``."""

ROWS = 200
"""How many rows of a table a notebook shows; it keeps every output in its file."""

PICTURES = 64
"""How many pictures a notebook shows, for the same reason."""


def shortened(value: object, width: int = 40) -> str:
    """Text on one line, its middle left out if it is longer than ``width``."""
    text = printable(value)
    if len(text) <= width:
        return text
    head = (width - 3) // 3
    return f"{text[:head]}...{text[len(text) - (width - 3 - head) :]}"


def listed(parts: Iterable[object], room: int = LIMIT - 80, width: int = 60) -> str:
    """Parts joined by commas, up to ``room`` characters, then the number of the remaining ones."""
    texts = [shortened(part, width) for part in parts]
    shown: list[str] = []
    for text in texts:
        if shown and sum(map(len, shown)) + 2 * len(shown) + len(text) > room:
            break
        shown.append(text)
    left = len(texts) - len(shown)
    return ", ".join(shown) + (f", and {left:,} more" if left else "")


def described(value: Any) -> str:
    """An array by its shape and type, such as ``(2, 3) float32``; anything else by its class name."""
    shape = getattr(value, "shape", None)
    if shape is None:
        return "None" if value is None else type(value).__name__
    return f"{tuple(shape)} {dtype_name(value)}"


def changed(value: Any) -> str:
    """A dataclass as the call that makes it, without the fields that have their defaults."""
    parts = []
    for field in dataclasses.fields(value):
        own = getattr(value, field.name)
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        if field.init and field.repr and (default is dataclasses.MISSING or own != default):
            parts.append(f"{field.name}={_terse(own)}")
    return f"{type(value).__name__}({', '.join(parts)})"


def _terse(value: Any) -> str:
    """The ``repr`` of a field; of arrays the shape, of many whole numbers the range where they are one."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"<{described(value)}>"
    if isinstance(value, tuple) and len(value) > 8:
        first = value[0]
        if isinstance(first, int) and value == tuple(range(first, first + len(value))):
            return f"tuple(range({first}, {first + len(value)}))"
        return f"<{len(value)} of {shortened(value[0])!r} to {shortened(value[-1])!r}>"
    return repr(value)


def columns(rows: Sequence[Sequence[object]]) -> str:
    """Rows below each other, each column as wide as its widest cell."""
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in cells)


def table(
    title: object,
    names: Sequence[str],
    rows: Sequence[Sequence[object]],
    notes: Sequence[object] = (),
    limit: int = ROWS,
) -> str:
    """An HTML table for a notebook; every text is escaped.

    Args:
        title: one line above the table.
        names: of the columns.
        rows: of cells.
        notes: lines between the title and the table.
        limit: how many rows are shown.
    """
    from agnostic.pages import fragment

    left = len(rows) - limit
    return fragment("table.html", {"title": title, "notes": notes, "names": names, "rows": rows[:limit], "left": left})


def figures(title: object, images: Array, labels: Sequence[object], notes: Sequence[object] = ()) -> str:
    """HTML for a notebook: pictures side by side, each above its label.

    Args:
        title: one line above the pictures.
        images: (N, H, W, C), uint8 or float32 in [0, 1], of 1 or 3 channels.
        labels: N texts; they are escaped.
        notes: lines below the title.
    """
    from agnostic.pages import fragment

    shown = [
        (base64.b64encode(png(image)).decode(), label)
        for image, label in zip(images[:PICTURES], labels, strict=False)
    ]  # fmt: skip
    left = len(images) - len(shown)
    return fragment("figures.html", {"title": title, "notes": notes, "pictures": shown, "left": left})


def lines(title: object, texts: Sequence[object], limit: int = ROWS) -> str:
    """HTML for a notebook: lines of text in a font of fixed width; they are escaped."""
    from agnostic.pages import fragment

    return fragment("lines.html", {"title": title, "lines": texts[:limit], "left": len(texts) - limit})


def png(image: Array) -> bytes:
    """A picture (H, W, C) or (H, W), uint8 or float32 in [0, 1], as the bytes of a PNG file."""
    from PIL import Image

    from agnostic.files import to_uint8

    file = io.BytesIO()
    Image.fromarray(to_uint8(image)).save(file, "PNG")
    return file.getvalue()
