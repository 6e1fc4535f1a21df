"""agnostic explain: one picture, a row per method."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from agnostic.cli import main
from agnostic.files import read_image, write_png

pytest.importorskip("torch")


@pytest.fixture
def explain(model: Path, tmp_path: Path) -> Callable[..., int]:
    """Runs the command on a photo of 20 by 20 pixels."""
    photo = tmp_path / "photo.png"
    write_png(photo, np.random.default_rng(0).integers(0, 256, (20, 20, 3), np.uint8))

    def run(*arguments: str, function: str = "make", photo: Path = photo) -> int:
        return main(["explain", f"{model}:{function}", str(photo), "--out", str(tmp_path / "out"), *arguments])

    return run


def test_a_row_for_each_method(explain: Callable[..., int], tmp_path: Path, capsys: Any) -> None:
    assert explain("--class", "3", "--method", "grad_cam", "--method", "occlusion", "--size", "16") == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("grad_cam at 'down': class 3 ")
    assert out[1].startswith("occlusion: class 3 ")
    path = tmp_path / "out" / "tiny-make-photo-explain-class-3-grad_cam_occlusion-16.png"
    assert out[2] == str(path)
    assert read_image(path).shape == (2 * 21 + 5, 2 * 21 + 5, 3)
    said = json.loads(Image.open(path).text["agnostic"])
    assert said["methods"] == ["grad_cam", "occlusion"]
    assert said["class"] == "class 3"


def test_json_and_mistakes(explain: Callable[..., int], tmp_path: Path, capsys: Any) -> None:
    assert explain("--method", "gradient", "--json") == 0
    (one,) = json.loads(capsys.readouterr().out)["explained"]
    assert one["method"] == "gradient"
    assert 0 < one["probability"] <= 1
    assert one["layer"] is None
    assert explain("--method", "grad_camm") == 2
    assert "did you mean 'grad_cam'" in capsys.readouterr().err
    assert explain("--class", "9") == 2
    assert "no class 9" in capsys.readouterr().err
    assert explain(photo=tmp_path) == 2
    assert "is a folder" in capsys.readouterr().err
    # Another model's picture of this name stays.
    assert explain("--method", "gradient", "--class", "1", function="make") == 0
    capsys.readouterr()
    assert explain("--method", "gradient", "--class", "1", "--force") == 0
