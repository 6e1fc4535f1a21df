"""Write the measured parts of docs/differences: the table of optimizers and the plots, without a plotting library."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "backends")]

from agnostic import optimizers as ago  # noqa: E402
from agnostic.files import atomic_path, write_png  # noqa: E402
from agnostic.optimizers.differences import markdown  # noqa: E402
from agnostic.reference import optimizers as reference  # noqa: E402

GUIDE = ROOT / "docs" / "differences"
WIDTH, HEIGHT, SCALE = 640, 400, 4  # drawn 4 times as large, then averaged: smooth lines

# Told apart by everyone: Okabe, Ito, "Color Universal Design", 2008. PyTorch is vermilion, Keras blue, on every plot.
TORCH, KERAS, BOTH, GREY, PALE = "#D55E00", "#0072B2", "#000000", "#6E6E6E", "#DDDDDD"

Points = tuple[Sequence[float], Sequence[float]]


def table() -> None:
    page = GUIDE / "optimizers.md"
    text = page.read_text().partition("| optimizer |")[0]
    with atomic_path(page) as temporary:
        temporary.write_text(text + markdown())


# Drawing --------------------------------------------------------------------------------------------------------------
class Canvas:
    """A picture in units of its final pixels."""

    def __init__(self) -> None:
        self.image = Image.new("RGB", (WIDTH * SCALE, HEIGHT * SCALE), "white")
        self.pen = ImageDraw.Draw(self.image)

    def line(self, points: Sequence[tuple[float, float]], colour: str, width: float = 2.5, dash: float = 0) -> None:
        """A line through points; ``dash``: pixels on and off."""
        for part in _dashes(points, dash) if dash else [points]:
            self.pen.line([(x * SCALE, y * SCALE) for x, y in part], colour, round(width * SCALE), joint="curve")

    def box(self, left: float, top: float, right: float, bottom: float, **style: Any) -> None:
        """A rectangle; ``fill`` and ``outline`` as Pillow's."""
        width = round(style.pop("width", 1.5) * SCALE)
        self.pen.rectangle([left * SCALE, top * SCALE, right * SCALE, bottom * SCALE], width=width, **style)

    def text(self, x: float, y: float, words: str, colour: str = BOTH, size: float = 16, anchor: str = "lm") -> None:
        """Words at a point; ``anchor`` as Pillow's."""
        self.pen.text((x * SCALE, y * SCALE), words, colour, anchor=anchor, font_size=size * SCALE, align="center")

    def save(self, name: str) -> None:
        """Write it to the guide, in few colours: such pictures lose nothing by it."""
        small = self.image.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)
        write_png(GUIDE / name, np.asarray(small.quantize(64).convert("RGB")))


def _dashes(points: Sequence[tuple[float, float]], length: float) -> list[list[tuple[float, float]]]:
    array = np.array(points, float)
    along = np.r_[0, np.cumsum(np.hypot(*np.diff(array, axis=0).T))]
    found = []
    for start in np.arange(0, along[-1], 2 * length):
        at = np.linspace(start, min(start + length, along[-1]), 8)
        found.append([(float(np.interp(a, along, array[:, 0])), float(np.interp(a, along, array[:, 1]))) for a in at])
    return found


@dataclass(frozen=True)
class Axes:
    """A plane of two quantities on a canvas.

    Attributes:
        canvas: what it is drawn on.
        frame: left, top, right, bottom in pixels.
        x, y: (first, last) of each quantity.
        log: both are drawn by their logarithms.
    """

    canvas: Canvas
    frame: tuple[float, float, float, float]
    x: tuple[float, float]
    y: tuple[float, float]
    log: bool = False

    def at(self, x: float, y: float) -> tuple[float, float]:
        """The pixel of a point."""
        left, top, right, bottom = self.frame
        see: Callable[[float], float] = math.log10 if self.log else float
        across, up = ((see(v) - see(low)) / (see(high) - see(low)) for v, (low, high) in ((x, self.x), (y, self.y)))
        return left + across * (right - left), bottom - up * (bottom - top)

    def ticks(self, xs: Sequence[float], ys: Sequence[float], x_title: str, y_title: str) -> None:
        """Grey lines with their numbers, and what the quantities are."""
        left, top, right, bottom = self.frame
        for x in xs:
            self.canvas.line([self.at(x, self.y[0]), self.at(x, self.y[1])], PALE, 1)
            self.canvas.text(self.at(x, self.y[0])[0], bottom + 14, self._number(x), GREY, 14, "mm")
        for y in ys:
            self.canvas.line([self.at(self.x[0], y), self.at(self.x[1], y)], PALE, 1)
            self.canvas.text(left - 8, self.at(self.x[0], y)[1], self._number(y), GREY, 14, "rm")
        self.canvas.text((left + right) / 2, bottom + 36, x_title, GREY, 15, "mm")
        self.canvas.text(left - 30, top - 18, y_title, GREY, 15, "lm")

    def curve(self, points: Points, colour: str, dash: float = 0) -> None:
        """A line through the points that lie in the frame."""
        low, high = self.y
        inside = [self.at(x, y) for x, y in zip(*points, strict=True) if low <= y <= high]
        self.canvas.line(inside, colour, dash=dash)

    def label(self, x: float, y: float, words: str, colour: str, anchor: str = "lm") -> None:
        """Words beside a curve, in its colour."""
        self.canvas.text(*self.at(x, y), words, colour, 16, anchor)

    def _number(self, value: float) -> str:
        return f"{value:g}" if not self.log or value in (1, 10) else f"1e{round(math.log10(value))}"


# Plots ----------------------------------------------------------------------------------------------------------------
def logarithm() -> None:
    canvas = Canvas()
    axes = Axes(canvas, (60, 40, 620, 340), (-4, 4), (-4, 4))
    axes.ticks(range(-4, 5), range(-4, 5, 2), "x", "value")
    for x, y in (((-4, 4), (0, 0)), ((0, 0), (-4, 4))):
        axes.curve((x, y), GREY)
    right, left = np.linspace(0.02, 4, 400), np.linspace(-4, -0.25, 200)
    axes.curve((right, np.log(right)), BOTH)
    for xs in (left, np.linspace(0.25, 4, 200)):
        axes.curve((xs, 1 / xs), TORCH, 7)
    axes.label(2.3, 1.35, "log x", BOTH)
    axes.label(0.6, 2.6, "its gradient, 1/x", TORCH)
    axes.label(-3.9, 0.7, "log x is NaN here", BOTH)
    axes.label(-3.9, -1.3, "its gradient is finite", TORCH)
    canvas.save("log.png")


def momentum() -> None:
    """A gradient of 1 at every step; the rate falls to a tenth in the middle."""
    rates = [0.1] * 10 + [0.01] * 20
    paths = {}
    for form in ("torch", "keras"):
        spec = ago.SGD(0.1, 0.9, convention=form)
        path = reference.replay(spec, [np.zeros(1)], [[np.ones(1)]] * len(rates), rates)
        paths[form] = [0.0, *(float(-p[0][0]) for p in path)]
    canvas = Canvas()
    axes = Axes(canvas, (60, 40, 620, 340), (0, 30), (0, 12))
    corners = (*axes.at(10, 12), *axes.at(30, 0))
    canvas.box(*corners, fill="#F4F4F4", width=0)
    axes.ticks(range(0, 31, 5), range(0, 13, 3), "step", "distance gone")
    steps = range(31)
    axes.curve((steps, paths["torch"]), TORCH, 7)
    axes.curve((steps, paths["keras"]), KERAS)
    axes.label(11, 9.9, "Keras: past gradients", KERAS)
    axes.label(11, 9.1, "keep the old rate", KERAS)
    axes.label(15, 3.4, "PyTorch: they take the new rate", TORCH)
    axes.label(5, 11.2, "rate 0.1", GREY, "mm")
    axes.label(20, 11.2, "rate 0.01", GREY, "mm")
    canvas.save("momentum.png")


def epsilon() -> None:
    """The step over the rate, by the size of the gradient, at PyTorch's and Keras' places of an epsilon of 1e-7."""
    sizes = np.logspace(-10, -2, 161)

    def step(spec: Any) -> np.ndarray:
        return np.array([float(-reference.replay(spec, [np.zeros(1)], [[np.array([g])]])[0][0][0]) for g in sizes])

    canvas = Canvas()
    for left, title, make in (
        (60, "Adam, first step", lambda place: ago.Adam(1.0, epsilon=1e-7, epsilon_place=place)),
        (370, "RMSprop, constant gradient", lambda place: ago.RMSprop(1.0, 0.0, epsilon=1e-7, epsilon_place=place)),
    ):
        adam = left == 60
        places = ("after correction", "before correction") if adam else ("outside", "inside")
        axes = Axes(canvas, (left, 62, left + 250, 340), (1e-10, 1e-2), (1e-7, 10), log=True)
        axes.ticks([1e-10, 1e-8, 1e-6, 1e-4, 1e-2], [1e-6, 1e-4, 1e-2, 1] if adam else [], "gradient", "")
        axes.curve((sizes, step(make(places[0]))), TORCH, 7)
        axes.curve((sizes, step(make(places[1]))), KERAS)
        canvas.text(left + 125, 46, title, BOTH, 16, "mm")
        canvas.text(left + 160, 290, "PyTorch", TORCH)
        canvas.text(left + 160, 312, "Keras", KERAS)
        canvas.line([(left + 118, 290), (left + 152, 290)], TORCH, dash=7)
        canvas.line([(left + 118, 312), (left + 152, 312)], KERAS)
    canvas.text(30, 22, "step / learning rate", GREY, 15)
    canvas.save("epsilon.png")


def padding() -> None:
    """Windows of 3 with stride 2 over a row of pixels, of even and of odd size."""
    canvas = Canvas()
    cell = 38
    for column, size in enumerate((4, 5)):
        left = 40 + 310 * column
        canvas.text(left + 130, 26, f"{size} pixels, kernel 3, stride 2", BOTH, 17, "mm")
        total = max((math.ceil(size / 2) - 1) * 2 + 3 - size, 0)
        rows = (("PyTorch, padding=1", TORCH, 1, 1), ("Keras, same", KERAS, total // 2, total - total // 2))
        for row, (title, colour, before, after) in enumerate(rows):
            top = 92 + 160 * row
            canvas.text(left, top - 26, title, colour, 16)
            for i in range(-before, size + after):
                x, padded = left + (i + 1) * cell, not 0 <= i < size
                canvas.box(x, top, x + cell, top + cell, fill="white" if padded else "#E8E8E8", outline=GREY, width=1)
                canvas.text(x + cell / 2, top + cell / 2, "0" if padded else str(i), GREY if padded else BOTH, 15, "mm")
            for n, first in enumerate(range(-before, size + after - 2, 2)):
                x, y = left + (first + 1) * cell, top + cell + 14 + 18 * n
                canvas.line([(x + 3, y - 5), (x + 3, y), (x + 3 * cell - 3, y), (x + 3 * cell - 3, y - 5)], colour)
    canvas.text(170, 380, "Keras reads one pixel further on", GREY, 15, "mm")
    canvas.text(480, 380, "the same pixels", GREY, 15, "mm")
    canvas.save("padding.png")


def batch_norm() -> None:
    """The running mean of data whose mean is 1, by the number of batches."""
    batches = np.arange(101)
    canvas = Canvas()
    axes = Axes(canvas, (60, 40, 620, 340), (0, 100), (0, 1.1))
    axes.ticks(range(0, 101, 20), [0, 0.25, 0.5, 0.75, 1], "batches seen", "running mean, of data whose mean is 1")
    axes.curve((batches, 1 - 0.9**batches), KERAS)
    axes.curve((batches, 1 - 0.9**batches), TORCH, 7)
    axes.curve((batches, 1 - 0.99**batches), KERAS)
    axes.label(18, 0.74, "PyTorch 0.1, its default,", TORCH)
    axes.label(18, 0.66, "is Keras 0.9", KERAS)
    axes.label(45, 0.29, "Keras 0.99, its default", KERAS)
    canvas.save("batch-norm.png")


if __name__ == "__main__":
    table()
    for plot in (logarithm, momentum, epsilon, padding, batch_norm):
        plot()
