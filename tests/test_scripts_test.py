"""scripts/test with commands in the place of the checks: what fails fails the whole, and nothing outlives it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.waiting import HANG

SCRIPT = Path(__file__).parents[1] / "scripts" / "test"
CHECKS = ("ruff", "mypy", "lint-imports", "python")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with the script, and with checks that pass at once."""
    scripts, commands = tmp_path / "scripts", tmp_path / ".venv" / "bin"
    scripts.mkdir()
    commands.mkdir(parents=True)
    shutil.copy(SCRIPT, scripts)
    (scripts / "lib").write_text(
        f'root={tmp_path}\nvenv="$root/.venv"\npython="$venv/bin/python"\ntest_extras=x\n'
        "set_up() { :; }\nsay() { printf '\\n== %s\\n' \"$*\" >&2; }\n"
    )
    write(scripts / "check-wheel", "echo wheel")
    for name in CHECKS:
        write(commands / name, f"echo {name}")
    return tmp_path


def write(path: Path, code: str) -> None:
    path.write_text(f"#!/usr/bin/env bash\n{code}\n")
    path.chmod(0o755)


def started(checkout: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["bash", str(checkout / "scripts" / "test")], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip


def test_all_outputs_are_shown(checkout: Path) -> None:
    running = started(checkout)
    said = running.communicate()[0]
    assert running.returncode == 0
    assert all(f"\n{name}\n" in said for name in (*CHECKS, "wheel"))
    assert said.endswith("== All checks passed\n")
    assert not list((checkout / ".venv").glob("*.log"))


@pytest.mark.parametrize("name", [*CHECKS, "check-wheel"])
def test_one_that_fails_fails_the_whole(name: str, checkout: Path) -> None:
    folder = checkout / ("scripts" if name == "check-wheel" else ".venv/bin")
    write(folder / name, "echo what is wrong\nexit 3")
    running = started(checkout)
    said = running.communicate()[0]
    assert running.returncode == 1
    assert "\nwhat is wrong\n" in said
    assert "== FAILED: " in said
    assert said.count("; ") == (2 if name == "ruff" else 1)


@pytest.mark.parametrize("whom", ["all, as Ctrl-C does", "the script"])
@pytest.mark.parametrize("what", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_no_process(what: signal.Signals, whom: str, checkout: Path) -> None:
    # Each waits in a process of its own process, as those of the tests do.
    for path in (checkout / ".venv/bin/mypy", checkout / "scripts/check-wheel", checkout / ".venv/bin/python"):
        write(path, f"bash -c 'echo $$ >{checkout}/{path.name}.pid; sleep 3000; true'\ntrue")
    running, end = started(checkout), time.monotonic() + HANG
    names = ("mypy", "check-wheel", "python")
    while not all((checkout / f"{name}.pid").exists() for name in names) and time.monotonic() < end:
        time.sleep(0.02)
    time.sleep(0.1)
    if whom == "the script":
        running.send_signal(what)
    else:
        os.killpg(running.pid, what)
    running.communicate(timeout=HANG)  # at the end of all that could write
    assert running.returncode == 128 + what
    assert not list((checkout / ".venv").glob("*.log"))
    started_by_checks = [int((checkout / f"{name}.pid").read_text()) for name in names]
    while any(map(runs, started_by_checks)) and time.monotonic() < end:
        time.sleep(0.02)
    assert not any(map(runs, started_by_checks))


def runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True
