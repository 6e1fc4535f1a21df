"""The busy fraction of a GPU, with a command in the place of the driver's."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from tests.waiting import HANG

BENCH = Path(__file__).parents[1] / "scripts" / "bench"


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch) -> type:
    monkeypatch.syspath_prepend(str(BENCH))
    from busy import Busy

    found: type = Busy
    return found


def test_the_fraction_is_the_mean_of_the_samples_inside(
    busy: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = tmp_path / "nvidia-smi"
    command.write_text(
        f"#!{sys.executable}\nimport sys, time\n"
        "assert '--id=1' in sys.argv\nfor x in (0, 90, 70, '[N/A]'):\n    print(x, flush=True)\ntime.sleep(3000)\n"
    )
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    end = time.monotonic() + HANG
    with busy(1) as found:
        while len(found.samples) < 3 and time.monotonic() < end:
            time.sleep(0.01)
    assert found.samples == [0.9, 0.7]
    assert found.fraction == pytest.approx(0.8)


def test_without_a_driver_there_is_none(busy: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with busy() as found:
        pass
    assert found.fraction is None
