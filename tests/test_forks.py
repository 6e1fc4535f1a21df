"""Forks of a process that has imported are as fresh processes are, in all that a test may see."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agnostic import processes
from tests import forks
from tests.waiting import HANG

SEEN = """
import os, sys
print(sys.argv, os.getcwd(), os.environ["OWN"], os.environ.get("GONE"), sys.stdin.read())
print("error", file=sys.stderr)
os.write(int(sys.argv[1]), b"inherited")
"""


@pytest.fixture
def light(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forks of a process that has imported next to nothing."""
    monkeypatch.setattr(forks, "IMPORTS", {"": ("json",)})
    monkeypatch.setattr(forks, "_templates", {})


def started(code: str, folder: Path, popen: object) -> tuple[str, str, int, bytes]:
    """What a process writes, its exit code, and what it wrote to a descriptor that it inherited."""
    reading, writing = os.pipe()
    environment = {**forks.environment({"OWN": "ours"}), "KERAS_BACKEND": ""}
    with open(reading, "rb") as told:
        child = popen(  # type: ignore[operator]
            [sys.executable, "-c", code, str(writing)], env=environment, cwd=folder, text=True, pass_fds=[writing],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        os.close(writing)
        child.stdin.write("input")
        child.stdin.close()
        child.stdin = None
        out, err = child.communicate()
        return out, err, child.returncode, told.read()


@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux alone")
@pytest.mark.parametrize(
    "end",
    ["", "sys.exit(3)", "sys.exit('said')", "raise ValueError('said')", "os.kill(os.getpid(), 15)", "os._exit(5)"],
)
def test_a_fork_is_as_a_fresh_process(light: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    monkeypatch.setenv("GONE", "in the process that forks")
    code = f"{SEEN}sys.stdout.flush(); {end}"
    forked = started("import sys; sys.stdin.read()", tmp_path, forks._popen)
    assert forked[2] == 0
    monkeypatch.delenv("GONE")
    fresh, forked = (started(code, tmp_path, popen) for popen in (subprocess.Popen, forks._popen))
    assert "inherited" in forked[3].decode()
    assert "ours None input" in forked[0]
    assert (forked[0], forked[2:]) == (fresh[0], fresh[2:])
    assert forked[1].splitlines()[-1] == fresh[1].splitlines()[-1]


@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux alone")
def test_a_fork_ends_with_the_block_that_started_it(light: None, prepared_processes: None) -> None:
    with processes.started(
        f"print('here', flush=True); import time; time.sleep({HANG})", environment={"KERAS_BACKEND": ""},
        stdout=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
        assert process.poll() is None
    assert process.wait() == -9
