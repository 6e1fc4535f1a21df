"""The page of a port: the verdict first, what is free, each layer, transposes with their reasons, how it was made."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from torch import nn

import agnostic as ag
from agnostic.port.check import Found, distance, reference
from agnostic.registry import backend_of


class Text(HTMLParser):
    """The pieces of text of a page, and whether each table can be moved sideways on a narrow screen."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[str] = []
        self.classes: list[str] = []
        self.scrolled: list[bool] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what is around a table."""
        if tag == "div":
            self.classes.append(dict(attrs).get("class") or "")
        elif tag == "table":
            self.scrolled.append("scroll" in self.classes)

    def handle_endtag(self, tag: str) -> None:
        """Leave a part of the page."""
        if tag == "div":
            self.classes.pop()

    def handle_data(self, data: str) -> None:
        """Keep what is shown."""
        if data.strip():
            self.pieces.append(" ".join(data.split()))


class Shuffling(nn.Module):
    """A transpose that has to remain: positions become features."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.mix = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """An image, mixed along its width."""
        return self.mix(self.conv(x))


def test_the_page_says_the_verdict_first_and_why_transposes_remain() -> None:
    ported = ag.port(Shuffling().eval(), "keras", torch.randn(2, 3, 8, 8), check=False)
    rows = (Found("", "", 0, 1e-7, 1e-7), Found("conv", "conv", 0, 0.5, 1e-7), Found("mix", "mix", 0, 1e-7, 1e-7))
    report = replace(ported.report, found=rows, command="agnostic port '<b>x</b>' --to keras")
    page = Text()
    html = report.html()
    page.feed(html)
    text = page.pieces
    start = text.index("Shuffling in keras", 1)
    assert re.match(r"Shuffling computes the same in keras: .* 1 of 2 layers agree", text[start + 1])
    facts = dict(zip(text[start + 2 :: 2], text[start + 3 :: 2], strict=False))
    assert facts["source"] == f"Shuffling, torch {torch.__version__.partition('+')[0]}"
    assert facts["target"].startswith("keras ")
    assert facts["free"] == report.free
    assert facts["made by"] == "agnostic port '<b>x</b>' --to keras"
    assert facts["with"] == f"agnostic {ag.__version__}"
    assert text[text.index("conv") + 1 :][:4] == ["given", "5.0e-01", "1.0e-07", "differs"]
    place = text.index("Transposes that remain")
    assert [move.operator for move in report.draft.laid.moves] == ["linear", "output"]
    assert text[place + 6 : place + 9] == ["linear", "mix", "1"]
    assert re.search(r"test_report\.py:\d+", text[place + 9])
    assert page.scrolled
    assert all(page.scrolled)
    assert "width=device-width" in html


def test_whole_numbers_have_a_floor_where_there_is_no_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """They cannot be rounded in another way, but what layers make of them can: the floor was 0."""

    @contextlib.contextmanager
    def narrow(model: nn.Module) -> Iterator[bool]:
        yield False

    monkeypatch.setattr("agnostic_torch.calls.in_float64", narrow)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(7, 8), nn.Linear(8, 8)).eval()
    found = reference(backend_of(model), model, torch.tensor([[1, 2, 3]]), ["1"], ["0", "1"])
    # Two roundings of inputs and outputs, and a sum of 8 products.
    assert 0 < found.layer_floors["1"] < 10 * 2.0**-24
    assert 0 < found.output_floors[0] < 10 * 2.0**-24


@pytest.mark.parametrize(
    ("mine", "right", "expected"),
    [
        (np.int8([5]), np.int8([-128]), 133 / 128),
        (np.array([True]), np.array([False]), 1),
        (np.array([1e308]), np.array([-1e308]), np.inf),
        (np.array([np.inf, 1]), np.array([-np.inf, 1]), np.inf),
        (np.array([np.nan, 1]), np.array([np.inf, 1]), np.inf),
        (np.array([np.nan, -np.inf, 1.5]), np.array([np.nan, -np.inf, 1]), 0.5),
        (np.array([1.0, 2]), np.array([np.nan, 2]), np.inf),
    ],
)
def test_a_distance_is_never_negative_and_infinite_where_infinities_differ(
    mine: np.ndarray, right: np.ndarray, expected: float
) -> None:
    assert distance(mine, right) == expected
