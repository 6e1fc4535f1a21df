"""Write the measured parts of docs/differences: the table of optimizers and the plot of the logarithm."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "backends")]

from agnostic.files import atomic_path, write_png  # noqa: E402
from agnostic.optimizers.differences import markdown  # noqa: E402

GUIDE = ROOT / "docs" / "differences"


def table() -> None:
    page = GUIDE / "optimizers.md"
    text = page.read_text().partition("| optimizer |")[0]
    with atomic_path(page) as temporary:
        temporary.write_text(text + markdown())


def plot() -> None:
    """log(x) in black where it is one, 1/x in red on both sides of 0, axes in grey; no plotting library is needed."""
    from PIL import Image, ImageDraw

    width, height, scale = 640, 400, 4  # drawn 4 times as large, then averaged: smooth lines
    image = Image.new("RGB", (width * scale, height * scale), "white")
    draw = ImageDraw.Draw(image)

    def at(x: float, y: float) -> tuple[float, float]:
        return (x + 4) / 8 * width * scale, (4 - y) / 8 * height * scale

    draw.line([at(-4, 0), at(4, 0)], fill="lightgrey", width=scale * 2)
    draw.line([at(0, -4), at(0, 4)], fill="lightgrey", width=scale * 2)
    for low, high, function, colour in [
        (1e-3, 4, np.log, "black"),
        (-4, -0.2, lambda x: 1 / x, "firebrick"),
        (0.2, 4, lambda x: 1 / x, "firebrick"),
    ]:
        xs = np.linspace(low, high, 400)
        draw.line([at(x, y) for x, y in zip(xs, function(xs), strict=True)], fill=colour, width=scale * 2)
    for text, x, y, colour in [
        ("log x", 2.2, 1.5, "black"),
        ("its gradient 1/x", 0.6, 2.6, "firebrick"),
        ("log x is NaN here, its gradient is finite", -3.9, 1.0, "dimgrey"),
    ]:
        draw.text(at(x, y), text, fill=colour, font_size=16 * scale)
    write_png(GUIDE / "log.png", np.asarray(image.resize((width, height), Image.Resampling.LANCZOS)))


if __name__ == "__main__":
    table()
    plot()
