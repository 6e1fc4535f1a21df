"""A comparison as one page of HTML that needs nothing else: the verdict, a plot of the errors, pictures, the table."""

from __future__ import annotations

import base64
import datetime as dt
import io
import itertools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from agnostic.compare.noise import THRESHOLD
from agnostic.compare.results import Pictures, Row, floors, name_of
from agnostic.files import atomic_path
from agnostic.pages import render
from agnostic.text import counted
from agnostic.version import __version__

Array = np.ndarray[Any, Any]

_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 1000, 300, 66, 24
_LOWEST = -2.0  # decades of noise floors


def write(comparison: Any, headline: str, path: str | os.PathLike[str], command: str = "") -> None:
    """See :meth:`agnostic.compare.report.Comparison.html`.

    Args:
        comparison: an :class:`agnostic.compare.report.Comparison`.
        headline: the result in one sentence.
        command: that made it.
    """
    rows = [*comparison.table, *comparison.output]
    values = {
        "a": name_of(comparison.a),
        "b": name_of(comparison.b),
        "found": comparison,
        "headline": headline,
        "threshold": f"{THRESHOLD:g}",
        "groups": list(_groups(rows)),
        "plot": _plot(rows),
        "pictures": [_shown(x) for x in comparison.pictures],
        "date": dt.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        "command": command,
        "version": __version__,
        "marks": MARKS,
    }
    filters: dict[str, Callable[..., Any]] = {"floors": floors, "relative": _relative}
    text = render("comparison.html", values, style="comparison.css", filters=filters)
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


MARKS = {"layer": "differs here", "code": "the code before it differs", "shows": "shows an earlier difference",
         "inside": "differs inside, the outputs do not", "same": ""}  # fmt: skip
"""What a row's verdict means."""

GROUPED = 8
"""From how many rows on that are the same and follow each other they are one."""


def _groups(rows: Sequence[Row]) -> Iterator[tuple[str, list[Row]]]:
    """The rows, with a title for those that are folded: many that are the same, one after the other."""
    between: list[Row] = []
    for same, found in itertools.groupby(rows, key=lambda row: row.verdict == "same" and row.kind != "output"):
        group = list(found)
        if not same or len(group) < GROUPED:
            between += group
            continue
        if between:
            yield "", between
        between = []
        yield f"{counted(len(group), 'layer')} the same", group
    if between:
        yield "", between


def _relative(row: Row) -> str:
    return f"{row.floor / row.scale:.1e}" if row.scale else ""


# The plot ------------------------------------------------------------------------------------------------------------
def _plot(rows: Sequence[Row]) -> dict[str, Any] | None:
    """Where everything in the plot stands; None where there is nothing to plot."""
    if not rows:
        return None
    values = [r.distance for r in rows if r.distance and math.isfinite(r.distance)]
    top = max(2.0, math.ceil(math.log10(max(values, default=1.0)) + 0.2))

    def up(value: float) -> float:
        decades = top + 0.1 if math.isinf(value) else math.log10(max(value, 10**_LOWEST))
        return (_HEIGHT - _BOTTOM) * (1 - (min(decades, top + 0.1) - _LOWEST) / (top + 0.2 - _LOWEST))

    step = (_WIDTH - _LEFT - 12) / len(rows)

    def across(i: int) -> float:
        return _LEFT + 6 + step * (i + 0.5)

    points = (f"{across(i):.1f},{up(r.distance):.1f}" for i, r in enumerate(rows) if r.distance is not None)
    decades = range(int(_LOWEST), int(top) + 1, max(1, round((top - _LOWEST) / 8)))
    first = next((i for i, r in enumerate(rows) if r.verdict in ("layer", "code")), None)
    return {
        "width": _WIDTH, "height": _HEIGHT, "left": _LEFT, "bottom": _HEIGHT - _BOTTOM,
        "lines": [{"y": f"{(y := up(10.0**x)):.1f}", "label_y": f"{y + 4:.1f}", "label": _power(x)} for x in decades],
        "limit": f"{up(THRESHOLD):.1f}",
        "line": " ".join(points),
        "dots": list(_dots(rows, across, up, max(1.8, min(4.0, step / 2)))),
        "first": None if first is None else _named(rows[first].b, across(first)),
        "end": "output" if rows[-1].kind == "output" else "output, gradients, updates",
    }  # fmt: skip


def _dots(
    rows: Sequence[Row], across: Callable[[int], float], up: Callable[[float], float], radius: float
) -> Iterator[dict[str, str]]:
    for i, r in enumerate(rows):
        if r.distance is not None:
            yield {
                "color": r.verdict, "x": f"{across(i):.1f}", "y": f"{up(r.distance):.1f}", "radius": f"{radius:.1f}",
                "title": f"{r.b}: {floors(r.distance)}",
            }  # fmt: skip


def _named(name: str, x: float) -> dict[str, str]:
    left = x > 0.7 * _WIDTH
    return {
        "name": name, "x": f"{x:.1f}", "label_x": f"{x + (-6 if left else 6):.1f}", "anchor": "end" if left else "start"
    }  # fmt: skip


def _power(decade: int) -> str:
    digits = str(decade).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return {0: "1", 1: "10"}.get(decade, f"10{digits}")


# Pictures ------------------------------------------------------------------------------------------------------------
def _shown(found: Pictures) -> dict[str, Any]:
    largest = float(np.nanmax(np.abs(np.where(np.isfinite(found.a - found.b), found.a - found.b, 0.0))))
    captions = {"A": "A", "B": "B", "|B - A|": f"|B - A|, at most {largest:.3g}"}
    return {
        "layer": found.layer,
        "channels": ", ".join(map(str, found.channels)),
        "panels": [{"title": title, "caption": captions[title], "png": png} for title, png in _triptych(found)],
    }


def _triptych(shown: Pictures) -> Iterator[tuple[str, str]]:
    from agnostic.visualization.colormap import colorize

    scaled = [_scaled(x, y) for x, y in zip(shown.a, shown.b, strict=True)]
    for title, i in (("A", 0), ("B", 1)):
        yield title, _png(_tiled([np.rint(pair[i] * 255).astype(np.uint8) for pair in scaled]))
    delta = [np.nan_to_num(np.abs(y - x), posinf=np.inf) for x, y in zip(shown.a, shown.b, strict=True)]
    largest = max(float(x[np.isfinite(x)].max(initial=0.0)) for x in delta)
    yield "|B - A|", _png(_tiled([colorize(x / largest if largest > 0 else x) for x in delta]))


def _scaled(a: Array, b: Array) -> tuple[Array, Array]:
    """One channel of both in [0, 1], by A's 1st and 99th percentile; what is no number is white."""
    finite = a[np.isfinite(a)]
    low, high = (float(np.percentile(finite, q)) for q in (1, 99)) if finite.size else (0.0, 1.0)
    high = high if high > low else low + 1.0
    first, second = (np.nan_to_num(np.clip((x - low) / (high - low), 0, 1), nan=1.0) for x in (a, b))
    return first, second


_TILE, _GAP, _GREY = 128, 4, 128


def _tiled(tiles: Sequence[Array]) -> Array:
    """Pictures (H, W) or (H, W, 3) as one, two in a row, with a grey line between.

    Small ones are enlarged first: the line would be as wide as their elements.
    """
    times = max(1, _TILE // max(tiles[0].shape[:2]))
    large = [x.repeat(times, 0).repeat(times, 1) for x in tiles]
    height, width = large[0].shape[:2]
    columns = 1 if len(large) == 1 else 2
    lines = -(-len(large) // columns)
    size = (lines * (height + _GAP) - _GAP, columns * (width + _GAP) - _GAP)
    out = np.full((*size, *large[0].shape[2:]), _GREY, np.uint8)
    for i, tile in enumerate(large):
        r, c = divmod(i, columns)
        out[r * (height + _GAP) :, c * (width + _GAP) :][:height, :width] = tile
    return out


def _png(pixels: Array) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()
