"""Animations: their frames are those of the ascent, their files are whole and no larger than allowed."""

from __future__ import annotations

import base64
import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import agnostic as ag
from agnostic.cli import main, terminal
from agnostic.files import write_png
from agnostic.visualization.animation import (
    FORMATS,
    Film,
    animate_ascent,
    animate_walk,
    read_animation,
    write_animation,
)  # fmt: skip

pytest.importorskip("torch")
CHANNEL = ag.objectives.channel
OPTIONS = {"size": 16, "dtype": "float32"}
NET = (
    "import torch\nfrom torch import nn\n\n\ndef make():\n    torch.manual_seed(0)\n    return nn.Sequential("
    "nn.Conv2d(3, 4, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))\n"
)


def test_frames_are_the_ascent_of_so_many_steps(network: Any) -> None:
    seen: list[tuple[range, int]] = []
    film = Film(columns=3)

    def both(images: range, steps: int, pixels: Any) -> None:
        seen.append((images, steps))
        film.add(images, steps, pixels)

    objective = CHANNEL("block", [1, 2, 3, 4])
    images = ag.visualize(network, objective, steps=6, every=2, on_images=both, micro_batch=2, **OPTIONS)
    assert seen == [(range(a, a + 2), n) for a in (0, 2) for n in (2, 4, 6)]
    frames = film.array()
    assert frames.shape == (3, 2 * 21 + 5, 3 * 21 + 5, 3)
    last = np.rint(ag.mosaic(np.asarray(images), columns=3) * 255).astype(np.uint8)
    np.testing.assert_array_equal(frames[-1], last)
    assert (frames[0] != frames[1]).any()
    quiet = ag.visualize(network, objective, steps=6, micro_batch=2, **OPTIONS)
    np.testing.assert_array_equal(quiet, images)  # looking changes nothing


def test_the_last_step_is_shown_and_frames_are_no_more_than_asked_for(network: Any) -> None:
    seen: list[int] = []
    ag.visualize(network, CHANNEL("block", 1), steps=5, every=2, on_images=lambda *x: seen.append(x[1]), **OPTIONS)
    assert seen == [2, 4, 5]
    assert len(animate_ascent(network, CHANNEL("block", 1), frames=4, steps=6, **OPTIONS)) == 3


def test_an_ascent_and_a_walk_have_their_frames(network: Any) -> None:
    assert animate_ascent(network, CHANNEL("block", 1), frames=4, steps=8, **OPTIONS).shape == (4, 16, 16, 3)
    stops = [CHANNEL("block", 1), CHANNEL("block", 2), CHANNEL("block", 5)]
    walk = animate_walk(network, stops, frames=3, steps=4, **OPTIONS)
    assert len(walk) == 2 * 3 + 1
    closed = animate_walk(network, stops, frames=3, closed=True, align="block", steps=4, **OPTIONS)
    assert len(closed) == 3 * 3
    for i, stop in ((0, stops[0]), (6, stops[2])):  # the ends are drawn for the objective alone
        alone = ag.visualize(network, stop + 0 * CHANNEL("block", 0), steps=4, **OPTIONS)
        assert np.abs(np.asarray(alone[0]) * 255 - walk[i]).mean() < 60
    apart = np.abs(np.diff(walk.astype(float), axis=0)).mean((1, 2, 3))
    assert apart.max() < np.abs(walk[0].astype(float) - walk[-1]).mean()  # no step is as long as the whole way
    with pytest.raises(ag.InvalidInput, match="two objectives or more, not 1 objective"):
        animate_walk(network, stops[:1], **OPTIONS)
    with pytest.raises(ag.InvalidInput, match="every is a number of steps"):
        ag.visualize(network, stops[0], every=0, **OPTIONS)


def test_a_film_needs_all_images_in_each_frame() -> None:
    film = Film()
    with pytest.raises(ag.InvalidInput, match="equally many images"):
        film.array()
    film.add(range(2), 1, np.zeros((2, 4, 4, 3), np.float32))
    film.add(range(1), 2, np.zeros((1, 4, 4, 3), np.float32))
    with pytest.raises(ag.InvalidInput, match="equally many images"):
        film.array()


# Files ----------------------------------------------------------------------------------------------------------------
def moving() -> np.ndarray:
    """A square that goes over a smooth ground, ten frames."""
    y, x = np.mgrid[:96, :128]
    frames = np.stack([np.stack([x, y + x // 2, np.full_like(x, 90)], -1)] * 10).astype(np.uint8)
    for i, frame in enumerate(frames):
        frame[30:50, 5 + 10 * i : 25 + 10 * i] = (250, 20, 20)
    return frames


def read(path: Path) -> tuple[np.ndarray, float]:
    """The frames of a file, and the seconds of one of them."""
    if path.suffix == ".mp4":
        av = pytest.importorskip("av")
        with av.open(str(path)) as container:
            rate = container.streams.video[0].average_rate
            return np.stack([x.to_ndarray(format="rgb24") for x in container.decode(video=0)]), float(1 / rate)
    image, frames, times = Image.open(path), [], []
    for i in range(image.n_frames):
        image.seek(i)
        frames.append(np.asarray(image.convert("RGB")))
        times.append(image.info["duration"])
    return np.stack(frames), float(np.mean(times)) / 1000


def about(path: Path) -> Any:
    """What a file says of how it was made."""
    image = Image.open(path)
    said = {".gif": image.info.get("comment"), ".webp": image.getexif().get(0x010E)}
    return json.loads(said.get(path.suffix) or image.info["agnostic"])


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_has_the_frames_and_the_time(suffix: str, tmp_path: Path) -> None:
    if suffix == ".mp4":
        pytest.importorskip("av")
    path = write_animation(tmp_path / f"a{suffix}", moving(), seconds=2, about='{"seed": 3}')
    frames, each = read(path)
    if suffix != ".mp4":
        assert about(path) == {"seed": 3}
    assert frames.shape == moving().shape
    assert each == pytest.approx(0.2, rel=0.01)
    # Lossy formats and palettes keep a smooth picture within a few levels of 255.
    assert np.abs(frames.astype(int) - moving()).mean() < (1 if suffix in (".png", ".apng") else 8)
    assert not list(tmp_path.glob("*.tmp*"))


@pytest.mark.parametrize("suffix", [".webp", ".gif", ".png"])
def test_a_bound_is_kept_by_less_quality_then_by_smaller_pictures(suffix: str, tmp_path: Path) -> None:
    noisy = moving() ^ np.random.default_rng(0).integers(0, 32, (10, 96, 128, 3), np.uint8)
    whole = write_animation(tmp_path / f"a{suffix}", noisy).stat().st_size
    small = write_animation(tmp_path / f"b{suffix}", noisy, most_bytes=whole * 2 // 3)
    assert small.stat().st_size <= whole * 2 // 3
    smaller = write_animation(tmp_path / f"c{suffix}", noisy, most_bytes=whole // 3)
    assert smaller.stat().st_size <= whole // 3
    assert len(read(smaller)[0]) == 10
    with pytest.raises(ag.InvalidInput, match="do not fit into 100 bytes"):
        write_animation(tmp_path / f"d{suffix}", noisy, most_bytes=100)
    assert not (tmp_path / f"d{suffix}").exists()


def test_what_is_no_animation_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, frames, words in (
        ("a.avi", moving(), "ends in .webp, .gif"),
        ("a.gif", moving()[:1], "two frames or more"),
        ("a.gif", moving()[0], "two frames or more"),
    ):
        with pytest.raises(ag.InvalidInput, match=words):
            write_animation(tmp_path / name, frames)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ag.MissingDependency, match="pip install 'agnostic-ml\\[video\\]'"):
        write_animation(tmp_path / "a.mp4", moving())


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_damaged_file_is_told(suffix: str, tmp_path: Path) -> None:
    if suffix == ".mp4":
        pytest.importorskip("av")
    path = write_animation(tmp_path / f"a{suffix}", moving(), about="a walk")
    data = path.read_bytes()
    assert read_animation(path)[1] == "a walk"
    for damaged in (b"", b"x" * 99, data[: len(data) // 3]):
        path.write_bytes(damaged)
        with pytest.raises(ag.InvalidInput, match="cannot read"):
            read_animation(path)


def test_live_pictures_are_shown_and_replaced_in_a_notebook(network: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ag.InvalidInput, match="in a notebook, and none runs here"):
        ag.visualize(network, CHANNEL("block", 1), live=True, steps=2, **OPTIONS)
    shown: list[tuple[str, dict[str, Any]]] = []

    class Handle:
        def update(self, data: dict[str, Any], raw: bool) -> None:
            shown.append(("update", data))

    def display(data: dict[str, Any], raw: bool, display_id: bool) -> Handle:
        shown.append(("display", data))
        return Handle()

    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: object()))
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=display))
    ag.visualize(network, CHANNEL("block", [1, 2]), live=True, every=2, steps=4, **OPTIONS)
    assert [how for how, _ in shown] == ["display", "update"]
    assert [data["text/plain"] for _, data in shown] == ["step 2", "step 4"]
    assert Image.open(io.BytesIO(shown[1][1]["image/png"])).size == (47, 26)


# Terminals ------------------------------------------------------------------------------------------------------------
def test_a_terminal_is_known_by_what_it_calls_itself() -> None:
    for environment, protocol in (
        ({"TERM": "xterm-kitty"}, "kitty"), ({"KITTY_WINDOW_ID": "1"}, "kitty"), ({"TERM_PROGRAM": "ghostty"}, "kitty"),
        ({"TERM_PROGRAM": "iTerm.app"}, "iterm"), ({"TERM_PROGRAM": "WezTerm"}, "iterm"), ({"TERM": "foot"}, "sixel"),
        ({"TERM": "xterm-256color"}, None), ({}, None), ({"TERM": "xterm-kitty", "TMUX": "x"}, None),
    ):  # fmt: skip
        assert terminal.protocol_of(environment) == protocol


def decoded_sixel(data: bytes, size: tuple[int, int]) -> np.ndarray:
    """(height, width, 3): what a terminal would show."""
    import re

    width, height = size
    assert data.startswith(b'\x1bPq"1;1;%d;%d' % (width, height))
    assert data.endswith(b"\x1b\\")
    palette, colour, x, y = {}, 0, 0, 0
    shown = np.zeros((height + 6, width, 3))
    body = data[len(b'\x1bPq"1;1;%d;%d' % (width, height)) : -2]
    for token in re.finditer(rb"#(\d+);2;(\d+);(\d+);(\d+)|#(\d+)|!(\d+)(.)|([$-])|([?-~])", body):
        if token[1]:
            palette[int(token[1])] = [int(v) * 2.55 for v in token.group(2, 3, 4)]
        elif token[5]:
            colour = int(token[5])
        elif token[8]:
            x, y = 0, y + 6 * (token[8] == b"-")
        else:
            bits, count = (token[7] or token[9])[0] - 63, int(token[6] or 1)
            for row in range(6):
                if bits >> row & 1:
                    shown[y + row, x : x + count] = palette[colour]
            x += count
    return shown[:height]


def test_each_protocol_sends_the_picture(tmp_path: Path) -> None:
    frame = moving()[0][:50, :40]
    write_png(tmp_path / "a.png", frame)
    png = (tmp_path / "a.png").read_bytes()
    kitty = terminal.encoded(png, "kitty")
    parts = [x.split(b";", 1) for x in kitty.split(b"\x1b\\")[:-1]]
    assert parts[0][0] == b"\x1b_Ga=T,f=100,q=2,m=%d" % (len(parts) > 1)
    assert parts[-1][0].endswith(b"m=0")
    iterm = terminal.encoded(png, "iterm")
    assert iterm.startswith(b"\x1b]1337;File=inline=1;size=")
    for data in (b"".join(x for _, x in parts), iterm.split(b":", 1)[1][:-1]):
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))), frame)
    shown = decoded_sixel(terminal.encoded(png, "sixel"), (40, 50))
    assert np.abs(shown - frame).mean() < 6  # 255 colours, each to a hundredth


def test_redo_does_not_trust_what_an_animation_says(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "net.py").write_text(NET)
    monkeypatch.chdir(tmp_path)
    assert main(["animate", "net.py:make", "1", "3", "--walk", "--size", "64", "--steps", "4", "--out", "w.webp"]) == 0
    frames, said = read_animation("w.webp")[0], about(tmp_path / "w.webp")

    def redone(text: str, shown: Any = frames) -> int:
        capsys.readouterr()
        write_animation("x.webp", shown, about=text)
        return main(["redo", "x.webp", "--model", "net.py:make"])

    for change, words in (
        ({"classes": []}, "give classes, or --layer"),
        ({"layer": "0"}, "give classes, or --layer"),
        ({"frames": -1}, "at least 1, not -1"),
        ({"seconds": 0.0}, "in a time above 0"),
        ({"card": "/etc/passwd"}, "passwd"),
    ):
        assert redone(json.dumps({**said, "redo": {**said["redo"], **change}})) == 2
        assert words in capsys.readouterr().err
    for text in ("a walk", "[" * 9000, "[]", "{}"):
        assert redone(text) == 2
        assert "does not say how to draw it again" in capsys.readouterr().err
    assert redone(json.dumps(said), frames[:-2]) == 1
    assert f"x.webp: drawn again it has {len(frames)} frames, not {len(frames) - 2}" in capsys.readouterr().out


# The command ----------------------------------------------------------------------------------------------------------
def test_the_command_writes_an_animation(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "net.py").write_text(NET)
    monkeypatch.chdir(tmp_path)
    common = ["animate", "net.py:make", "--size", "64", "--steps", "4", "--frames", "2"]
    assert main([*common, "1", "3", "--walk", "--out", "w.gif"]) == 0
    assert "w.gif (3 frames of 64 x 64, " in capsys.readouterr().out
    assert main([*common, "--layer", "0", "--channels", "0,2-3", "--out", "a.webp", "--json"]) == 0
    assert len(read(tmp_path / "a.webp")[0]) == 2
    said = about(tmp_path / "a.webp")
    assert said["shown"] == ["0:0", "0:2", "0:3"]
    assert {"fingerprint", "versions", "recipe", "seed", "steps", "size"} <= {*said}
    capsys.readouterr()
    for name in ("w.gif", "a.webp"):
        assert main(["redo", name, "--model", "net.py:make", "--out", f"again-{name}"]) == 0
        assert capsys.readouterr().out == f"{name}: drawn again, bit for bit the same\n"
        np.testing.assert_array_equal(read_animation(f"again-{name}")[0], read_animation(name)[0])
    (tmp_path / "net.py").write_text((tmp_path / "net.py").read_text().replace("seed(0)", "seed(1)"))
    assert main(["redo", "w.gif", "--model", "net.py:make"]) == 1
    assert "other now: the model's weights" in capsys.readouterr().out
    assert main(["redo", "w.gif"]) == 2
    assert "a file whose code would run" in capsys.readouterr().err
    assert main(["redo", "w.gif", "--model", "net.py:make", "--out", "b.webp"]) == 2
    assert "--out ends in .gif, as the animation does, not in '.webp'" in capsys.readouterr().err
    for wrong, words in (
        (["1", "--out", "w.gif"], "is there already"),
        (["1", "--out", "w.avi"], "--out ends in"),
        (["--out", "b.gif"], "give classes, or --layer"),
        (["1", "--out", "b.gif", "--most", "x"], "--most is a number of bytes"),
        (["--layer", "0", "--channels", "3-1", "--out", "b.gif"], "channels are given as"),
        (["9", "--out", "b.gif"], "no class 9"),
    ):
        assert main([*common, *wrong]) == 2
        assert words in capsys.readouterr().err
