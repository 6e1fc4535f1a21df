"""Commands of two models look for both files before they load either."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agnostic.cli import main


@pytest.mark.parametrize(
    "arguments",
    [
        ["compare", "torchvision:resnet50", "none.keras", "--inputs", "x.npy"],
        ["compare", "none.py:make", "torchvision:resnet50", "--inputs", "x.npy"],
        ["compare", "torchvision:resnet50", "torchvision:resnet50", "--weights-b", "none.pth", "--inputs", "x.npy"],
        ["transfer", "torchvision:resnet50", "none.keras", "--out", "a.keras"],
        ["transfer", "torchvision:resnet50", "torchvision:resnet50", "--weights", "none.pth", "--out", "a.pth"],
    ],
)
def test_a_missing_file_is_told_before_anything_is_loaded(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def start(*arguments: Any, **options: Any) -> None:
        raise AssertionError("a process was started")

    np.save(tmp_path / "x.npy", np.zeros((1, 3, 8, 8)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(subprocess, "Popen", start)
    assert main(arguments) == 2
    assert "cannot read 'none." in capsys.readouterr().err
    assert sorted(x.name for x in tmp_path.iterdir()) == ["x.npy"]
