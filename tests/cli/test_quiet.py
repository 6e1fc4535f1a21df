"""What libraries say while a command runs: nothing below an error, unless --debug is given."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from agnostic.cli import main
from agnostic.registry import Registration
from tests.forks import run_prepared

ROOT = Path(__file__).parents[2]

# A user's file whose libraries talk in every way there is.
TALKS = """
import atexit, logging, os, sys, warnings
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
    # PyTorch's compiler takes four seconds to import, and nothing here compiles.
    atexit.register(lambda: "torch._dynamo" in sys.modules and os.write(2, b"E0000 the compiler was imported\\n"))
    os.write(2, (os.environ.get("TF_CPP_MIN_LOG_LEVEL", "none") + "\\n").encode())
    return nn.Sequential(nn.Conv2d(3, 2, 3))
"""


@pytest.fixture
def talks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    (tmp_path / "talks.py").write_text(TALKS)
    return f"{tmp_path / 'talks.py'}:make"


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own, which has imported PyTorch."""
    return run_prepared("from agnostic.__main__ import run; run()", *arguments, cwd=ROOT, variables={})


def said(*arguments: str) -> list[str]:
    done = command(*arguments)
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


ACTS = """
import logging, os, warnings
import torch

BAD = "a\\x1b]0;title\\x07\\nagnostic: all is well\\u202e"

def make():
    warnings.warn(BAD)
    logging.getLogger("library").error("%s", BAD)
    os.write(2, b"E0000 x\\x1b]0;title\\x07\\n")
    return torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3))

def fails():
    raise SystemError(BAD)
"""


@pytest.mark.parametrize("options", [[], ["--debug"]], ids=["", "debug"])
def test_what_libraries_say_does_not_act_on_the_terminal(options: list[str], tmp_path: Path) -> None:
    pytest.importorskip("torch")
    (tmp_path / "acts.py").write_text(ACTS)
    model = f"{tmp_path / 'acts.py'}:make"
    done = command("layers", model, *options)
    assert done.returncode == 0, done.stderr
    text = done.stderr
    # Only --debug leaves the descriptor of C++ code as it is.
    lines = [line for line in text.split("\n") if not (options and line.startswith("E0000"))]
    assert all(line.isprintable() for line in lines), text
    assert text.count("a\\x1b]0;title\\x07") == 2
    assert "\nagnostic: all is well" not in text


def test_a_traceback_does_not_act_on_the_terminal(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    (tmp_path / "acts.py").write_text(ACTS)
    model = f"{tmp_path / 'acts.py'}:fails"
    done = command("layers", model, "--debug")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert all(line.isprintable() for line in done.stderr.split("\n")), done.stderr


def test_afterwards_everything_is_as_it_was(talks: str, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")

    def state() -> Any:
        # PyTorch names its compiler's cache in the environment when that is first imported.
        ours = {name: value for name, value in os.environ.items() if not name.startswith("TORCH")}
        return ours, warnings.showwarning, list(warnings.filters), sys.stderr, logging.getLogRecordFactory()

    before = state()
    assert main(["layers", talks]) == 0
    assert state() == before
    assert logging.getLogger().isEnabledFor(logging.WARNING)
    capfd.readouterr()
    os.write(2, b"I0000 still shown\n")
    assert capfd.readouterr().err == "I0000 still shown\n"


def test_a_backend_without_noise_says_nothing_of_it() -> None:
    assert Registration("x", (), "x:X", "x", "x").quiet == {}
