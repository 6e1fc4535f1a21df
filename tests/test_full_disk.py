"""Where there is no room for a file, every writer says so in one sentence, and leaves nothing behind.

A limit on the size of a file (RLIMIT_FSIZE) stands for the full disk: both end a write with an error of the system, at
a number of bytes that can be chosen here.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import agnostic as ag
from agnostic.cli import main
from agnostic.contracts.weights import WEIGHTS
from agnostic.files import atomic_path, write_png
from agnostic.registry import backend_of

MESSAGE = r"^cannot write '\S+': file too large; make room or choose another folder$"


@contextmanager
def room(size: int) -> Iterator[None]:
    """No file may become longer than that."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def weights(path: Path) -> None:
    torch = pytest.importorskip("torch")
    model = torch.nn.Sequential(torch.nn.Linear(50, 50), torch.nn.Linear(50, 1000))
    backend_of(model)[WEIGHTS].save(model, path)


def picture(path: Path) -> None:
    write_png(path, np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8))


def trace(path: Path) -> None:
    torch = pytest.importorskip("torch")
    ag.trace(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3)), np.zeros((1, 64, 64, 3), np.float32), path)


def text(path: Path) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text("x" * 250_000)


@pytest.mark.parametrize(
    ("name", "write"),
    [("a.pth", weights), ("a.pt", weights), ("a.safetensors", weights), ("a.png", picture), ("a.trace", trace),
     ("a.html", text)],
)  # fmt: skip
def test_every_writer_says_it_wherever_the_room_ends(name: str, write: Callable[[Path], Any], tmp_path: Path) -> None:
    (tmp_path / name).write_text("old")
    # In the header, between entries, in the data, and in the last bytes of a file of more than 200,000.
    for size in (0, 100, 1000, 4096, 50_000, 150_000):
        with room(size), pytest.raises(ag.InvalidInput, match=MESSAGE):
            write(tmp_path / name)
        assert os.listdir(tmp_path) == [name]
        assert (tmp_path / name).read_text() == "old"


def test_transfer_says_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    (tmp_path / "tiny.py").write_text(
        "from torch import nn\ndef make(): return nn.Sequential(nn.Conv2d(3, 9, 9), nn.Flatten(), nn.Linear(9, 2000))"
    )
    (tmp_path / "out").mkdir()
    spec, out = f"{tmp_path / 'tiny.py'}:make", tmp_path / "out" / "a.pth"
    # The recording, which goes from one process to the other through a file, is smaller than the weights.
    with room(90_000):
        code = main(["transfer", spec, spec, "--size", "9", "--out", str(out)])
    assert code == 2, capsys.readouterr().err
    assert "agnostic: cannot write" in capsys.readouterr().err
    assert os.listdir(tmp_path / "out") == []
