"""``agnostic layers`` and ``agnostic taps``, from the command line to the files."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from agnostic import cli
from agnostic.files import read_image, write_png

pytest.importorskip("torch")

MODEL = """
import torch
from torch import nn


class Small(nn.Module):
    def __init__(self, channels):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(channels, 6, 3)
        self.act = nn.ReLU(inplace=True)
        self.blocks = nn.ModuleList([nn.Conv2d(6, 6, 1), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 3)])
        self.unused = nn.Linear(1, 1)

    def forward(self, x):
        x = self.act(0.5 - self.act(self.conv(x)))
        for block in self.blocks:
            x = block(x)
        return x


def colour():
    return Small(3)


def grey():
    return Small(1)


def broken():
    model = Small(3)
    model.conv.weight.data[2] = torch.nan
    return model


class Aged(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.years = nn.Conv2d(3, 6, 3), nn.Linear(2, 6)

    def forward(self, photo, age):
        return self.conv(photo) * self.years(age)[:, :, None, None]


def aged():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Aged()


def tokens():
    return nn.Sequential(nn.Embedding(3, 4))
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    (tmp_path / "model.py").write_text(MODEL)
    photo = np.zeros((60, 80, 3), np.uint8)
    photo[:, :, 0] = np.arange(80) * 3
    write_png(tmp_path / "photo.png", photo)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(place, capsys):
    def command(*arguments, code=0):
        assert cli.main([str(argument) for argument in arguments]) == code
        captured = capsys.readouterr()
        if code:
            assert captured.err.count("\n") == 1
            return captured.err
        assert captured.err == ""
        return captured.out

    return command


# agnostic layers -----------------------------------------------------------------------------------------------------
def test_layers_as_a_table(run):
    lines = run("layers", "model.py:colour", "--size", 32).splitlines()
    cells = [re.split(r"\s{2,}", line.strip()) for line in lines]
    assert cells[0] == ["name", "kind", "shape", "axes", "channels", "parameters", "FLOPs", "calls"]
    assert cells[1] == ["conv", "Conv2d", "N x 6 x 30 x 30", "NCHW", "6", "168", f"{2 * 30 * 30 * 6 * 27:,}", "1"]
    assert cells[2] == ["act", "ReLU", "N x 6 x 30 x 30", "NCHW", "6", "0", "0", "2"]
    assert cells[-2] == ["unused", "Linear", "-", "-", "-", "2", "-", "0"]
    numbers = re.fullmatch(r"7 layers, ([\d,]+) parameters, ([\d,]+) FLOPs \(two per multiply-add\)", lines[-1])
    assert numbers is not None
    assert int(numbers[2].replace(",", "")) >= 2 * 30 * 30 * 6 * 27


def test_layers_are_chosen_and_aliases_shown(run):
    out = run("layers", "torchvision:vgg11", "--layer", "block1_*", "--layer", "kind:Linear", "--size", 64)
    assert "block1_conv1" in out
    assert [line.split()[0] for line in out.splitlines()[1:-1]] == [
        "features.0", "features.1", "features.2", "classifier.0", "classifier.3", "classifier.6",
    ]  # fmt: skip
    assert "calls" not in out


def test_a_long_name_is_not_cut_in_a_pipe(run, place):
    name = "a" * 200
    source = (
        f"from torch import nn\ndef make():\n    m = nn.Sequential()\n    m.{name} = nn.Conv2d(3, 4, 1)\n    return m\n"
    )
    (place / "long.py").write_text(source)
    assert name in run("layers", "long.py:make")


def test_layers_as_json(run):
    (found,) = json.loads(run("layers", "model.py:grey", "--layer", "conv", "--size", 16, "--json"))
    assert found == {
        "name": "conv", "kind": "Conv2d", "shape": [None, 6, 14, 14], "axes": "NCHW", "channels": 6, "parameters": 60,
        "calls": 1, "aliases": [], "heads": None, "flops": 2 * 14 * 14 * 6 * 9,
    }  # fmt: skip


@pytest.mark.parametrize("given", [("--size", 16, 20), ("--size", "16x20"), ("--inputs", "1x1x16x20")])
def test_height_and_width_or_example_inputs(run, given):
    (found,) = json.loads(run("layers", "model.py:grey", "--layer", "conv", *given, "--json"))
    assert found["shape"] == [None, 6, 14, 18]


def test_layers_wrong_use(run):
    assert "--size takes a height" in run("layers", "model.py:colour", "--size", "wide", code=2)
    assert "does not take images of 2 x 2 pixels" in run("layers", "model.py:colour", "--size", 2, code=2)
    assert "no layer 'cnov' in model.py:colour" in run("layers", "model.py:colour", "--layer", "cnov", code=2)
    assert "Sequential takes no images (its input is NL (1, 16))" in run(
        "layers", "model.py:tokens", "--size", 8, code=2
    )


# agnostic taps -------------------------------------------------------------------------------------------------------
def test_taps_draws_a_mosaic_a_layer(run, place):
    out = run("taps", "model.py:colour", "photo.png", "--layer", "conv", "--size", 34, "--columns", 4, "--out", "pics",
              "--no-labels")  # fmt: skip
    first, last = out.splitlines()
    assert first == "pics/model-colour-conv-photo-34.png (6 of 6 channels, 32 x 32)"
    assert last.startswith("1 photo drawn in ")
    # 32 pixels three times; six tiles, four in a row, gaps of five.
    assert read_image(place / "pics/model-colour-conv-photo-34.png").shape == (2 * 101 + 5, 4 * 101 + 5, 3)


def test_taps_shows_what_the_layer_returned(run, place):
    import torch

    import agnostic as ag
    from agnostic.taps.pictures import tiles

    run("taps", "model.py:colour", "photo.png", "--layer", "conv", "--channels", "4,1", "--size", 60, "--no-labels")
    drawn = read_image(place / "pictures/model-colour-conv-photo-channels-4-1-60.png")
    # The middle of the photo, which has the height already, as numbers in [0, 1].
    photo = read_image(place / "photo.png")[:, 10:70] / np.float32(255)
    model = ag.load("model.py:colour")
    with torch.no_grad():
        expected = model.conv(torch.from_numpy(photo).permute(2, 0, 1)[None]).numpy()
    first, second = tiles(expected, "NCHW", [4, 1], layer="conv")
    side = len(first)
    # One step of the colour table, since the model may be computed in another order.
    for tile, left in ((first, 5), (second, 10 + side)):
        assert np.abs(drawn[5 : 5 + side, left : left + side].astype(int) - tile).max() <= 4


def test_taps_of_a_glob_leaves_out_what_has_no_picture(run):
    out = run("taps", "model.py:grey", "photo.png", "--layer", "blocks.*", "--layer", "conv", "--size", 20)
    assert [line.split()[0] for line in out.splitlines()[:-2]] == [
        "pictures/model-grey-blocks.0-photo-20.png", "pictures/model-grey-blocks.1-photo-20.png",
        "pictures/model-grey-conv-photo-20.png",
    ]  # fmt: skip
    assert out.splitlines()[-2] == "skipped, without height and width: blocks.2, blocks.3"


def test_taps_draws_every_call(run):
    report = json.loads(run("taps", "model.py:colour", "photo.png", "--layer", "act", "--size", 20, "--json"))
    assert [one["path"] for one in report["mosaics"]] == [
        "pictures/model-colour-act-call1-photo-20.png", "pictures/model-colour-act-call2-photo-20.png",
    ]  # fmt: skip
    first, second = (read_image(one["path"]) for one in report["mosaics"])
    assert (first != second).any()
    assert report["left_out"] == []


def test_taps_of_a_folder(run, place):
    folder = place / "photos" / "inner"
    folder.mkdir(parents=True)
    pixels = read_image(place / "photo.png")
    for name, image in (("inner/a.png", pixels), ("inner-a.png", 255 - pixels), ("b.png", pixels)):
        write_png(place / "photos" / name, image)
    (place / "photos/bad.jpg").write_text("no image")
    (place / "photos/notes.txt").write_text("no photo")
    report = json.loads(run("taps", "model.py:colour", "photos", "--layer", "conv", "--size", 20, "--json"))
    drawn = {one["photo"]: one["path"] for one in report["mosaics"]}
    assert len(report["mosaics"]) == len({one["path"] for one in report["mosaics"]}) == 3
    assert drawn["b.png"] == "pictures/model-colour-conv-b.png-20.png"
    assert len(report["unreadable"]) == 1
    assert "bad.jpg" in report["unreadable"][0]
    assert "skipped: cannot read 'photos/bad.jpg'" in run("taps", "model.py:colour", "photos", "--layer", "conv")
    single = run("taps", "model.py:colour", "photos/b.png", "--layer", "conv", "--size", 20).split()[0]
    np.testing.assert_array_equal(read_image(place / single), read_image(place / drawn["b.png"]))
    (place / "empty").mkdir()
    assert "'empty' has no photos" in run("taps", "model.py:colour", "empty", "--layer", "conv", code=2)


def test_taps_writes_over_other_pictures_by_force_alone(run, place):
    command = ("taps", "model.py:colour", "photo.png", "--layer", "conv", "--size", 20)
    path = place / run(*command).split()[0]
    before = path.read_bytes()
    run(*command)
    assert path.read_bytes() == before
    write_png(place / "photo.png", 255 - read_image(place / "photo.png"))
    assert "is there already, made otherwise (inputs)" in run(*command, code=2)
    assert path.read_bytes() == before
    run(*command, "--force")
    assert path.read_bytes() != before
    said = json.loads(Image.open(path).text["agnostic"])
    assert said.keys() >= {
        "fingerprint", "inputs", "layer", "channels", "call", "model", "weights", "photo", "versions",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("model.py:colour", "photo.png", "--layer", "blocks.3"), "layer 'blocks.3' has no height and width to draw"),
        (("model.py:colour", "photo.png", "--layer", "kind:Linear"), "'blocks.3' has no height and width to draw"),
        (("model.py:colour", "photo.png", "--layer", "unused"), "layer 'unused' has no height and width to draw"),
        (("model.py:colour", "photo.png", "--layer", "block"), "no layer 'block' in model.py:colour"),
        (("model.py:colour", "photo.png", "--layer", "conv", "--channels", "6"), "no channel 6 in layer 'conv'"),
        (("model.py:colour", "none.png", "--layer", "conv"), "cannot read 'none.png'"),
        (("model.py:colour", "model.py", "--layer", "conv"), "cannot read 'model.py': it is no image"),
        (("model.py:colour", "photo.png", "--layer", "conv", "--out", "photo.png"), "cannot write"),
        (("model.py:tokens", "photo.png", "--layer", "0"), "takes no images (its input is NL (1, 16))"),
        (("model.py:broken", "photo.png", "--layer", "conv"), "channel 2 of layer 'conv' holds NaN or infinity"),
        (("model.py:colour", "photo.png"), "--layer"),
    ],
)
def test_taps_wrong_use(run, place, arguments, sentence):
    assert sentence in run("taps", *arguments, *(("--size", 20) if len(arguments) > 2 else ()), code=2)
    assert sorted(path.name for path in place.iterdir() if path.suffix != "") == ["model.py", "photo.png"]
    assert not list(place.glob("pictures/*"))


# Devices -------------------------------------------------------------------------------------------------------------
PHOTO = ["photo.png", "--layer", "conv", "--size", "16"]


@pytest.mark.parametrize(
    "command",
    [
        ["layers", "model.py:colour"],
        ["program", "model.py:colour"],
        ["taps", "model.py:colour", *PHOTO],
        ["filters", "model.py:colour", "--layer", "conv", "--size", "16"],
        ["classes", "model.py:colour", "1", "--size", "16"],
    ],
    ids=lambda command: command[0],
)
def test_a_device_that_is_not_there(place, capsys, command):
    for device in ("cuda:77", "gpu:77", "nowhere"):
        assert cli.main([*command, "--backend", "torch", "--device", device]) == 2
        said = capsys.readouterr().err.splitlines()
        assert len(said) == 1
        assert said[0].startswith(f"agnostic: the device '{device}' cannot be used (")


def test_the_device_is_where_the_model_runs(place, capsys):
    assert cli.main(["layers", "model.py:colour", "--size", "16"]) == 0
    listed = capsys.readouterr().out
    # On meta there are shapes and no values: nothing can have run elsewhere.
    assert cli.main(["layers", "model.py:colour", "--size", "16", "--backend", "torch", "--device", "meta"]) == 0
    assert capsys.readouterr().out == listed
    assert cli.main(["taps", "model.py:colour", *PHOTO, "--backend", "torch", "--device", "cpu"]) == 0
    capsys.readouterr()
    assert cli.main(["layers", "model.py:colour", "--device", "cpu"]) == 2
    assert "only the function knows its framework: give the backend as well" in capsys.readouterr().err


def test_taps_of_a_model_with_several_inputs(run, place):
    np.save(place / "age.npy", np.array([[1.0, 2.0]], np.float32))
    np.savez(place / "age.npz", age=np.array([[1.0, 2.0]], np.float32))
    command = ("taps", "model.py:aged", "photo.png", "--layer", "conv", "--size", 20)
    by_name = json.loads(run(*command, "--inputs", "age.npz", "--json"))["mosaics"][0]
    assert by_name["called_with"] == ["age.npz"]
    command = command[:-2]
    example = ("--inputs", "1x3x20x20", "--inputs", "age.npy", "--image", "photo")
    by_position = json.loads(run(*command, *example, "--json"))["mosaics"][0]
    assert by_position["image"] == "photo"
    assert by_position["path"] != by_name["path"]
    assert np.array_equal(*(read_image(place / x["path"]) for x in (by_name, by_position)))
    np.savez(place / "age.npz", age=np.array([[1.0, 3.0]], np.float32))
    again = ("--inputs", "age.npz", "--size", 20)
    assert "is there already, made otherwise (inputs)" in run(*command, *again, code=2)
    assert "no input 'foto' (they are 'photo', 'age'); did you mean 'photo'" in run(
        *command, *again, "--image", "foto", code=2
    )
    assert "takes no images" in run(*command, "--size", 20, "--image", "1", code=2)


def test_both_words_for_a_gpu_are_one_device(monkeypatch):
    from agnostic_torch import devices

    asked = []
    # No GPU is needed: what is passed on is looked at.
    monkeypatch.setattr(devices.torch, "empty", lambda shape, device: asked.append(device))
    assert devices.usable_device("gpu:1") == devices.usable_device("cuda:1") == asked[0] == asked[1]
    assert str(asked[0]) == "cuda:1"


def test_trace_takes_a_card(tmp_path):
    from agnostic.compare.traces import Trace

    (tmp_path / "card.json").write_text('{"size": [20, 24]}')
    (tmp_path / "net.py").write_text(
        "from torch import nn\ndef make():\n    return nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU())\n"
    )
    write_png(tmp_path / "photo.png", np.zeros((30, 40, 3), np.float32))
    out = tmp_path / "a.trace"
    options = ["--images", str(tmp_path / "photo.png"), "--card", str(tmp_path / "card.json"), "--out", str(out)]
    assert cli.main(["trace", f"{tmp_path / 'net.py'}:make", *options]) == 0
    trace = Trace(out)
    assert trace.read(trace.about["fed"][0]).shape == (1, 3, 20, 24)
