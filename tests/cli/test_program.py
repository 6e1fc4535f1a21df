"""``agnostic program``: a model's operators as text and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agnostic.cli import main

SOURCE = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, stride=2)

    def forward(self, x):
        return self.stem(x).masked_fill(torch.ones(1).bool(), -float("inf")).relu()


class Picky(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Linear(3, 3)

    def forward(self, x):
        return x if self.scale(x).sum() > 0 else -x


def make():
    return Net().eval()


def picky():
    return Picky()
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "net.py"
    path.write_text(SOURCE)
    return path


def test_it_prints_operators_with_layers_and_lines(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["program", f"{source}:make", "--size", "8", "12"]) == 0
    printed = capsys.readouterr().out
    assert "stem: Conv2d" in printed
    assert "net.py:12" in printed
    assert "convolution(x, stem.weight, stem.bias) stride=2 x 2" in printed
    assert "1 x 4 x 3 x 5 float32" in printed


def test_json_holds_the_same_and_infinity_too(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["program", f"{source}:make", "--inputs", "2x3x9x9", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [node["operator"] for node in found["nodes"]] == ["convolution", "where", "activation"]
    assert {"number": "-inf"} in found["nodes"][1]["operands"]


def test_a_branch_on_values_is_wrong_use_and_named(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["program", f"{source}:picky", "--inputs", "2x3"]) == 2
    assert "net.py:21" in capsys.readouterr().err
