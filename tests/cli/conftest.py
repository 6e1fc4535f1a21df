"""A model in a user's own file, and commands that draw it quickly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

MODEL = """
from collections import OrderedDict

import torch
from torch import nn


def make(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(OrderedDict(
            stem=nn.Conv2d(3, 6, 3, padding=1), act=nn.ReLU(), down=nn.Conv2d(6, 70, 3, stride=2),
            pool=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten(), head=nn.Linear(70, 5),
        ))


def other():
    return make(1)


def bad():
    model = make()
    model.stem.weight.data[4, 0, 0, 0] = float("nan")
    return model


def four():
    return nn.Sequential(nn.Conv2d(4, 6, 3))


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.years, self.mix = nn.Conv2d(3, 6, 3), nn.Linear(2, 6), nn.Conv2d(6, 4, 3)

    def forward(self, left, right, age):
        return self.mix((self.stem(left).tanh() - self.stem(right).tanh()) * self.years(age)[:, :, None, None])


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.patches, self.first = nn.Conv2d(3, 8, 4, stride=4), nn.Parameter(torch.ones(1, 1, 8))
        self.block, self.norm, self.head = nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 5)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = self.norm(self.block(torch.cat([self.first.expand(len(x), -1, -1), x], 1)).tanh())
        return self.head(x[:, 0])


def tokens():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Tokens()


def pair():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Pair()
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A file with functions that make tiny models: make, other, bad, four, tokens, pair."""
    pytest.importorskip("torch")
    path = tmp_path / "tiny.py"
    path.write_text(MODEL)
    return path


@pytest.fixture
def command(model: Path, tmp_path: Path) -> Callable[..., int]:
    """Runs ``agnostic NAME tiny.py:make ARGUMENTS`` on small images into the folder ``out``; returns the exit code."""
    from agnostic.cli import main

    def run(name: str, *arguments: str, function: str = "make", out: Path = tmp_path / "out") -> int:
        options = ["--size", "16", "--steps", "2", "--no-labels", "--out", str(out)]
        return main([name, f"{model}:{function}", *options, *arguments])

    return run
