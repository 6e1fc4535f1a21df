"""agnostic.signals: at whatever moment a signal arrives, the exit code tells of it, and no file is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from agnostic import cli
from tests.waiting import HANG

ROOT = Path(__file__).parents[1]

# The command of a process that sends itself the signal at the moment that is asked for.
PROGRAM = """
import atexit, os, sys, time, types, weakref
from agnostic import signals

moment, number, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3]
del sys.argv[1:]
ending = []

def arrives(*_):
    os.kill(os.getpid(), number)

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "typer":
            sys.meta_path.remove(self)
            arrives()

class Last:
    def __del__(self, arrives=arrives):
        arrives()

def command():
    from agnostic.files import atomic_path
    with atomic_path(folder + "/a.trace") as temporary:
        temporary.write_text("half")
        if moment == "writing":
            arrives()
            time.sleep(3000)
        if moment == "callback":  # whose exceptions Python prints and forgets
            x = Finder()
            kept = weakref.ref(x, arrives)
            del x
            time.sleep(3000)
        if moment == "twice":
            try:
                arrives()
                time.sleep(3000)
            finally:
                arrives()
                time.sleep(3000)
        if moment == "cleaning":
            from agnostic import temporary
            remove, temporary._remove = temporary._remove, lambda folder: (arrives(), time.sleep(3000))
            try:
                raise ValueError
            finally:
                ending.append(lambda: setattr(temporary, "_remove", remove))
    print("done")

def main():
    import agnostic.cli as cli
    sys.modules["agnostic.cli.probe"] = types.SimpleNamespace(register=lambda app: app.command("probe")(command))
    cli.COMMANDS = ("probe", "doctor")
    return cli.main(["probe"])

signals.install()
if moment == "start":
    sys.meta_path.insert(0, Finder())
if moment == "exit":
    atexit.register(arrives)
if moment == "teardown":
    sys.last_of_all = Last()
try:
    code = main()
finally:
    for step in ending:
        step()
sys.exit(code)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("moment", ["start", "writing", "callback", "twice", "cleaning", "exit", "teardown"])
def test_a_signal_at_any_moment(moment: str, number: signal.Signals, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, moment, str(int(number)), tmp_path], cwd=ROOT, capture_output=True, text=True,
        # A shell's background job ignores SIGINT, and hands that down.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL), timeout=HANG,
    )  # fmt: skip
    # Once the interpreter takes itself apart, the command is done, and nothing is left to be ended.
    expected = 0 if moment == "teardown" else cli.TERMINATED if number == signal.SIGTERM else cli.INTERRUPTED
    assert done.returncode == expected, done.stderr
    assert "Traceback" not in done.stderr
    assert os.listdir(tmp_path) == (["a.trace"] if moment in ("exit", "teardown") else [])


def test_a_signal_that_the_user_ignores_stays_ignored(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "exit", str(int(signal.SIGINT)), tmp_path], cwd=ROOT, capture_output=True,
        text=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
