"""agnostic redo: the same pixels again, what differs if not, and files that say what is not true."""

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


def said(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Image.open(path).text["agnostic"])
    return found


def rewritten(path: Path, **changes: Any) -> Path:
    """A copy of a picture whose file says something else."""
    other = path.with_name(f"{len(list(path.parent.iterdir()))}-{path.name}")
    write_png(other, read_image(path), {"agnostic": json.dumps({**said(path), **changes})})
    return other


@pytest.fixture
def drawn(command: Callable[..., int], tmp_path: Path) -> tuple[Path, Path, Path, Path]:
    """A labelled mosaic of filters, one of its images, a negative one, and a mosaic of classes."""
    write_png(tmp_path / "photo.png", np.random.default_rng(0).integers(0, 256, (20, 20, 3), np.uint8))
    options = ("--labels", "--seed", "3", "--start", str(tmp_path / "photo.png"))
    assert command("filters", "--layer", "stem", "--channels", "0-2", "--recipe", "jitter", *options) == 0
    assert command("filters", "--layer", "stem", "--channels", "0,4", "--negative") == 0
    assert command("classes", "3", "1") == 0
    out = tmp_path / "out"
    (mosaic,) = out.glob("tiny-make-stem-0-2-jitter*.png")
    (negative,) = out.glob("tiny-make-stem-negative-0_4*.png")
    (classes,) = out.glob("tiny-make-classes*.png")
    return mosaic, out / "tiny-make-stem-jitter-16-2steps-seed3-from-photo" / "0002.png", negative, classes


def test_pictures_are_drawn_again_bit_for_bit(
    drawn: tuple[Path, ...], model: Path, tmp_path: Path, capsys: Any
) -> None:
    for picture in drawn:
        capsys.readouterr()
        again = tmp_path / "again.png"
        assert main(["redo", str(picture), "--model", f"{model}:make", "--out", str(again)]) == 0
        assert capsys.readouterr().out == f"{picture}: drawn again, bit for bit the same\n"
        np.testing.assert_array_equal(read_image(again), read_image(picture))
        assert said(again)["redo"] == said(picture)["redo"]


def test_outputs_of_layers_are_drawn_again(model: Path, tmp_path: Path, capsys: Any) -> None:
    photo = tmp_path / "photo.png"
    write_png(photo, np.random.default_rng(0).integers(0, 256, (20, 24, 3), np.uint8))
    shown = ["--layer", "stem", "--channels", "0,3", "--columns", "1", "--size", "16", "--out", str(tmp_path / "out")]
    assert main(["taps", f"{model}:make", str(photo), *shown]) == 0
    (mosaic,) = (tmp_path / "out").glob("tiny-make-stem-photo*.png")
    capsys.readouterr()
    again = ["redo", str(mosaic), "--model", f"{model}:make", "--out", str(tmp_path / "again.png")]
    assert main(again) == 0
    assert capsys.readouterr().out == f"{mosaic}: drawn again, bit for bit the same\n"
    assert said(tmp_path / "again.png") == {**said(mosaic), "model": f"{model}:make"}
    write_png(tmp_path / "other.png", np.zeros((20, 24, 3), np.uint8))
    assert main([*again, "--photo", str(tmp_path / "other.png")]) == 1
    assert main(["redo", str(rewritten(mosaic, redo={**said(mosaic)["redo"], "call": 2})), *again[2:]]) == 2
    assert "the picture is of call 2 of 'stem', which the model runs 1 time" in capsys.readouterr().err


def test_a_mosaic_starts_from_each_photo_of_a_folder(
    command: Callable[..., int], model: Path, tmp_path: Path, capsys: Any
) -> None:
    photos, rng = tmp_path / "photos", np.random.default_rng(0)
    photos.mkdir()
    for name in ("a.png", "b.png"):
        write_png(photos / name, rng.integers(0, 256, (20, 20, 3), np.uint8))
    (photos / "c.png").write_bytes(b"x")
    shown = ("--layer", "stem", "--channels", "0-1", "--recipe", "jitter")
    assert command("filters", *shown, "--start", str(photos)) == 0
    assert f"skipped: cannot read '{photos / 'c.png'}'" in capsys.readouterr().out
    first, second = sorted((tmp_path / "out").glob("tiny-make-stem-0-1-jitter*.png"))
    assert (first.name[-15:], second.name[-15:]) == ("-from-a.png.png", "-from-b.png.png")
    assert command("filters", *shown, "--start", str(photos / "b.png"), out=tmp_path / "one") == 0
    (alone,) = (tmp_path / "one").glob("*.png")
    np.testing.assert_array_equal(read_image(second), read_image(alone))
    assert (read_image(first) != read_image(second)).any()
    assert main(["redo", str(second), "--model", f"{model}:make"]) == 0


def test_a_label_tells_the_channel_and_the_score(drawn: tuple[Path, ...]) -> None:
    assert read_image(drawn[0]).shape == ((9 + 5 + 5) + 16 + (9 + 5) + 10, 3 * 21 + 5, 3)
    assert said(drawn[2])["labels"] is False
    assert said(drawn[1])["computed"] == "float32"
    assert said(drawn[2].parent / "tiny-make-stem-negative-fourier-16-2steps" / "0004.png")["label"] == "-1 * stem:4"


def test_what_never_mattered_is_transparent_and_white_in_the_mosaic(
    command: Callable[..., int], model: Path, tmp_path: Path, capsys: Any
) -> None:
    drawn = ("--layer", "down", "--channels", "0-1", "--no-labels")
    assert command("filters", *drawn) == 0
    assert command("filters", *drawn, "--transparent") == 0
    out = tmp_path / "out"
    (whole,), (single,) = (
        list(out.glob(x)) for x in ("tiny-make-down-0-1*-transparent.png", "tiny*-transparent/0001.png")
    )
    opaque = read_image(single.parents[1] / single.parent.name.removesuffix("-transparent") / "0001.png")
    faded = np.asarray(Image.open(single))
    assert faded.shape == (16, 16, 4)
    np.testing.assert_array_equal(faded[..., :3], opaque)
    # The kernel of stride 2 after one of padding 1: the last column of 16 is seen by few of its places.
    assert faded[..., 3].min() < 255 == faded[..., 3].max()
    np.testing.assert_array_equal(read_image(whole)[5:21, 26:42], read_image(single))
    for picture in (whole, single):
        capsys.readouterr()
        assert main(["redo", str(picture), "--model", f"{model}:make"]) == 0
    assert said(single)["transparent"] is True


def test_what_differs_is_told(drawn: tuple[Path, ...], model: Path, capsys: Any) -> None:
    assert main(["redo", str(drawn[1]), "--model", f"{model}:other"]) == 1
    out = capsys.readouterr().out
    assert "of 256 differ, by at most" in out
    assert out.endswith("; other now: the model's weights\n")
    pixels = read_image(drawn[1]).copy()
    pixels[0, 0, 0] ^= 1
    write_png(drawn[1], pixels, {"agnostic": json.dumps(said(drawn[1]))})
    assert main(["redo", str(drawn[1]), "--model", f"{model}:make", "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == {"picture": str(drawn[1]), "same": False, "changed": [], "out": None}


def test_a_file_is_not_trusted(drawn: tuple[Path, ...], model: Path, tmp_path: Path, capsys: Any) -> None:
    picture = drawn[0]
    given = ["--model", f"{model}:make"]
    redo = said(picture)["redo"]
    plain = tmp_path / "plain.png"
    write_png(plain, np.zeros((4, 4, 3), np.uint8))
    write_png(tmp_path / "deep.png", np.zeros((4, 4, 3), np.uint8), {"agnostic": "[" * 9000})
    for path, options, words in (
        (tmp_path / "deep.png", given, "does not say how to draw it again"),
        (picture, [], "a file whose code would run: give it as --model"),
        (rewritten(picture, model="a/b.keras"), [], "give it as --model"),
        (plain, given, "does not say how to draw it again"),
        (rewritten(picture, redo={**redo, "seed": "3"}), given, "is not valid"),
        (rewritten(picture, redo={**redo, "command": "rm"}), given, "no command that can be repeated: 'rm'"),
        (rewritten(picture, redo={**redo, "trust": True}), given, "is not valid"),
        (rewritten(picture, redo={**redo, "items": ["../../x"]}), given, "no channels or classes by number"),
        (rewritten(picture, redo={**redo, "recipe": "x"}), given, "no recipe 'x'"),
    ):
        capsys.readouterr()
        assert main(["redo", str(path), *options]) == 2
        assert words in capsys.readouterr().err
