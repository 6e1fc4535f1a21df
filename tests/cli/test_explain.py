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
    assert explain("--class", "3", "--method", "grad_cam", "--method", "occlusion", "--size", "16", "--no-labels") == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("grad_cam at 'down': class 3 ")
    assert out[1].startswith("occlusion: class 3 ")
    path = tmp_path / "out" / "tiny-make-photo-explain-class-3-grad_cam_occlusion-16.png"
    assert out[2] == str(path)
    assert read_image(path).shape == (2 * 21 + 5, 2 * 21 + 5, 3)
    said = json.loads(Image.open(path).text["agnostic"])
    assert said["methods"] == ["grad_cam", "occlusion"]
    assert said["class"] == "class 3"
    assert said["versions"].keys() >= {"agnostic", "torch"}
    assert out[3].startswith("1 photo drawn in ")


def test_captions_and_a_folder_of_photos(explain: Callable[..., int], tmp_path: Path, capsys: Any) -> None:
    photos = tmp_path / "photos"
    for name in ("a", "b"):
        write_png(photos / f"{name}.png", np.full((20, 20, 3), 60 if name == "a" else 200, np.uint8))
    (photos / "bad.png").write_text("no image")
    assert explain("--method", "gradient", "--class", "1", "--size", "48", "--json", photo=photos) == 0
    report = json.loads(capsys.readouterr().out)
    first, second = (Path(x["path"]) for x in report["pictures"])
    assert first != second
    assert "bad.png" in report["unreadable"][0]
    line = 14  # the smallest font, one and a half times as high
    assert read_image(first).shape == (48 + line + 10, 2 * 48 + 15, 3)
    below = read_image(first)[5 + 48 : 5 + 48 + line, 5:53]
    assert below.max() > 200  # letters
    assert (below != read_image(second)[5 + 48 : 5 + 48 + line, 5:53]).any()  # other letters
    assert explain("--method", "gradient", "--class", "1", "--size", "48", photo=photos) == 0
    out = capsys.readouterr().out
    assert "skipped: cannot read" in out
    assert "2 photos drawn in" in out


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
    (tmp_path / "empty").mkdir()
    assert explain(photo=tmp_path / "empty") == 2
    assert "has no photos" in capsys.readouterr().err
    # Another model's picture of this name stays.
    assert explain("--method", "gradient", "--class", "1", function="make") == 0
    capsys.readouterr()
    assert explain("--method", "gradient", "--class", "1", "--force") == 0


def test_an_explanation_is_drawn_again(explain: Callable[..., int], model: Path, tmp_path: Path, capsys: Any) -> None:
    options = ("--method", "lrp", "--method", "smoothgrad", "--class", "2", "--seed", "3", "--samples", "4")
    assert explain(*options, "--json") == 0
    (plain,) = (read_image(json.loads(capsys.readouterr().out)["path"]),)
    options += ("--epsilon", "0.5", "--gamma", "0")
    assert explain(*options, "--json") == 0
    picture, again = Path(json.loads(capsys.readouterr().out)["path"]), tmp_path / "again.png"
    assert "epsilon-0.5-gamma-0" in picture.name
    assert np.abs(read_image(picture).astype(int) - plain).max() > 0
    redo = ("redo", str(picture), "--model", f"{model}:make")
    assert main([*redo, "--out", str(again)]) == 0
    assert capsys.readouterr().out == f"{picture}: drawn again, bit for bit the same\n"
    before, after = (json.loads(Image.open(path).text["agnostic"]) for path in (picture, again))
    assert before["redo"] == after["redo"]
    assert before["photo_digest"] == after["photo_digest"]
    other = tmp_path / "elsewhere" / "photo.png"
    write_png(other, np.random.default_rng(1).integers(0, 256, (20, 20, 3), np.uint8))
    assert main([*redo, "--photo", str(other)]) == 1
    assert "other now: the photo" in capsys.readouterr().out
    # Another photo of the same name is not written over the first.
    assert explain(*options, photo=other) == 2
    assert "--force" in capsys.readouterr().err
    said = json.loads(Image.open(picture).text["agnostic"])
    said["redo"]["methods"] = ["no_method"]
    write_png(again, read_image(picture), {"agnostic": json.dumps(said)})
    assert main(["redo", str(again), "--model", f"{model}:make"]) == 2
    assert "no method 'no_method'" in capsys.readouterr().err
