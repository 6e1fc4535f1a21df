"""agnostic.temporary: no folder outlives its process by more than one run, and no living one is touched."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from agnostic import temporary
from agnostic.files import atomic_path
from agnostic.temporary import temporary_folder

ROOT = Path(__file__).parents[1]
HOLDS = """
import sys, time
from agnostic.files import atomic_path
from agnostic.temporary import temporary_folder
with atomic_path(sys.argv[1] + "/a.weights.h5") as file, temporary_folder() as folder:
    file.write_text("half")
    (folder / "sub").mkdir()
    (folder / "sub" / "x").write_text("x")
    print("holding", flush=True)
    time.sleep(3000)
"""


@pytest.fixture
def looked_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a new process."""
    monkeypatch.setattr(temporary, "_looked", set())


def hold(folder: Path) -> subprocess.Popen[str]:
    """A process that is writing a file in ``folder/out``, with ``folder/tmp`` for its temporary files."""
    (folder / "tmp").mkdir(exist_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(folder / "out")],
        cwd=ROOT, env={**os.environ, "TMPDIR": str(folder / "tmp")}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "holding\n"
    return process


def contents(folder: Path) -> list[list[str]]:
    return [sorted(os.listdir(folder / name)) for name in ("out", "tmp")]


@pytest.mark.usefixtures("looked_nowhere")
def test_a_living_process_keeps_its_folders_and_a_dead_one_loses_them(tmp_path: Path) -> None:
    process = hold(tmp_path)
    with temporary_folder(tmp_path / "out"), temporary_folder(tmp_path / "tmp"):
        pass
    kept = contents(tmp_path)
    assert [len(names) for names in kept] == [1, 1]
    process.kill()
    process.communicate()
    assert contents(tmp_path) == kept
    temporary._looked.clear()
    with atomic_path(tmp_path / "out" / "b.txt"), temporary_folder(tmp_path / "tmp") as mine:
        assert contents(tmp_path)[1] == [mine.name]
    assert contents(tmp_path) == [["b.txt"], []]


@pytest.mark.usefixtures("looked_nowhere")
def test_only_what_is_certainly_ours_is_removed(tmp_path: Path) -> None:
    name = ".agnostic-0123456789abcdef"
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / ".agnostic-lock").touch()
    (tmp_path / name).symlink_to(tmp_path / "elsewhere")
    (tmp_path / ".agnostic-fedcba9876543210").mkdir()  # without a lock, and not empty: somebody else's
    (tmp_path / ".agnostic-fedcba9876543210" / "theirs").touch()
    (tmp_path / ".agnostic-0000000000000000").mkdir()  # its process was killed before it could lock it
    (tmp_path / ".agnostic-notes").mkdir()
    (tmp_path / ".agnostic-notes" / ".agnostic-lock").touch()
    before = sorted(os.listdir(tmp_path))
    with temporary_folder(tmp_path):
        pass
    assert sorted(os.listdir(tmp_path)) == [x for x in before if not x.endswith("0000")]
    assert os.listdir(tmp_path / "elsewhere") == [".agnostic-lock"]


@pytest.mark.usefixtures("looked_nowhere")
def test_a_folder_that_was_taken_for_a_dead_one_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Another process that tidies up runs between each two steps of making the first folder.
    opened, locked = os.open, temporary.fcntl.flock
    made: list[str] = []

    def opening(path: str | Path, *rest: int) -> int:
        if not made and str(path).endswith("lock"):
            made.append(str(path))
            temporary._remove_if_dead(Path(path).parent)
        return opened(path, *rest)

    def locking(descriptor: int, operation: int) -> None:
        if len(made) == 1:
            made.append("")
            (dead,) = tmp_path.glob(".agnostic-*")
            temporary._remove_if_dead(dead)
        locked(descriptor, operation)

    monkeypatch.setattr(os, "open", opening)
    monkeypatch.setattr(temporary.fcntl, "flock", locking)
    with temporary_folder(tmp_path) as folder:
        assert len(made) == 2
        assert os.listdir(tmp_path) == [folder.name]
        (folder / "file").touch()
    assert os.listdir(tmp_path) == []


def test_a_forked_child_leaves_the_folder_to_its_parent(tmp_path: Path) -> None:
    program = (
        "import os, sys\n"
        "from agnostic.temporary import temporary_folder\n"
        "with temporary_folder(sys.argv[1]) as folder:\n"
        "    child = os.fork()\n"
        "    if child:\n"
        "        os.waitpid(child, 0); print(folder.exists())\n"
        "    else:\n"
        "        import atexit; atexit._run_exitfuncs(); os._exit(0)"
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "True\n", done.stderr
    assert os.listdir(tmp_path) == []


def test_a_block_that_a_signal_kept_from_ending_leaves_nothing_at_the_end(tmp_path: Path) -> None:
    # The generator never comes to its `finally`: a second Ctrl-C arrives while the first unwinds.
    program = (
        "import sys\n"
        "from agnostic import temporary\n"
        "def interrupted(folder): raise KeyboardInterrupt\n"
        "remove, temporary._remove = temporary._remove, interrupted\n"
        "try:\n"
        "    with temporary.temporary_folder(sys.argv[1]): raise KeyboardInterrupt\n"
        "finally:\n"
        "    temporary._remove = remove"
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == -signal.SIGINT
    assert os.listdir(tmp_path) == []
