"""What libraries say while a command runs: nothing below an error, unless --debug is given."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from agnostic.cli import main
from agnostic.registry import Registration

ROOT = Path(__file__).parents[2]

# A user's file whose libraries talk in every way there is.
TALKS = """
import logging, os, warnings
import torch
from torch import nn

def make():
    warnings.warn("of the user's own file")
    warnings.warn_explicit("of a library", UserWarning, "library.py", 1, module="library")
    logging.getLogger("library").warning("a record")
    logging.getLogger("library").error("an error's record")
    os.write(2, b"WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\\n"
                b"I0000 00:00:1 1 port.cc:153] information\\nW0000 00:00:1 1 x.cc:1] warning\\n"
                b"E0000 00:00:1 1 x.cc:1] error\\n")
    os.write(2, (os.environ.get("TF_CPP_MIN_LOG_LEVEL", "none") + "\\n").encode())
    return nn.Sequential(nn.Conv2d(3, 2, 3))
"""


@pytest.fixture
def talks(tmp_path: Path) -> str:
    (tmp_path / "talks.py").write_text(TALKS)
    return f"{tmp_path / 'talks.py'}:make"


def said(*arguments: str) -> list[str]:
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run(
        [sys.executable, "-m", "agnostic", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stderr.splitlines()


def test_only_errors_and_what_the_user_wrote_are_shown(talks: str) -> None:
    pytest.importorskip("torch")
    # The lines of C++ go another way than those of Python, and may come between them.
    assert sorted(said("layers", talks)) == [
        "2", "E0000 00:00:1 1 x.cc:1] error", "agnostic: of the user's own file", "an error's record",
    ]  # fmt: skip


def test_debug_shows_everything(talks: str) -> None:
    pytest.importorskip("torch")
    lines = "\n".join(said("layers", talks, "--debug"))
    for part in ("of a library", "a record", "I0000", "W0000", "E0000", "WARNING: All log", "none"):
        assert part in lines


def test_afterwards_everything_is_as_it_was(talks: str, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    before = dict(os.environ), warnings.showwarning, list(warnings.filters), sys.stderr
    assert main(["layers", talks]) == 0
    assert (dict(os.environ), warnings.showwarning, list(warnings.filters), sys.stderr) == before
    assert logging.getLogger().isEnabledFor(logging.WARNING)
    capfd.readouterr()
    os.write(2, b"I0000 still shown\n")
    assert capfd.readouterr().err == "I0000 still shown\n"


def test_a_backend_without_noise_says_nothing_of_it() -> None:
    assert Registration("x", (), "x:X", "x", "x").quiet == {}
