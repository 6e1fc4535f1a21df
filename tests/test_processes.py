"""agnostic.processes: what works for a process ends with it, however it ends."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from agnostic import errors
from agnostic.processes import describe, raise_described, started
from tests.waiting import HANG

ROOT = Path(__file__).parents[1]
PARENT = """
import subprocess, sys, time
from agnostic import processes
processes._BY_PIPE = sys.argv[1] == "pipe"
with processes.started("print('working', flush=True); import time; time.sleep(3000)", stdout=subprocess.PIPE) as child:
    child.stdout.readline()
    print(child.pid, flush=True)
    time.sleep(3000)
"""


def ended(process: int, within: float = HANG) -> bool:
    """Whether a process, which need not be a child of this one, has ended (a zombie has)."""
    until = time.monotonic() + within
    while time.monotonic() < until:
        state = Path(f"/proc/{process}/stat")
        try:
            if state.read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.01)
    return False


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("way", ["system", "pipe"])
def test_a_process_ends_with_the_one_that_started_it(way: str) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, way], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert not ended(child, within=0.1)
    parent.kill()
    parent.communicate()
    assert ended(child)


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_a_process_whose_parent_has_ended_before_it_could_ask_ends_as_well() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from agnostic.processes import end_with; end_with(1 << 22); print('lives')"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (-9, "")


def test_the_block_ends_the_process_and_gives_it_our_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "only_here.py").write_text("value = 7")
    monkeypatch.syspath_prepend(str(tmp_path))
    code = "import sys, time, only_here; print(only_here.value, sys.argv[1], flush=True); time.sleep(3000)"
    with started(code, ["a b"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "7 a b\n"
    assert process.returncode == -9


@pytest.mark.parametrize(
    "error",
    [
        errors.UnknownName("no layer 'x'"),
        errors.NonFinite("nan"),
        OSError(28, "No space left on device", "a.pth"),
        PermissionError(13, "Permission denied"),
    ],
)
def test_an_error_of_the_other_process_is_raised_here_as_it_was(error: errors.AgnosticError | OSError) -> None:
    with pytest.raises(type(error)) as raised:
        raise_described(describe(error))
    assert str(raised.value) == str(error)
    raise_described({"done": True})


def test_an_error_of_a_subclass_is_raised_as_the_class_that_users_know() -> None:
    class Special(errors.InvalidWeights):
        pass

    with pytest.raises(errors.InvalidWeights, match="cut off"):
        raise_described(describe(Special("cut off")))
