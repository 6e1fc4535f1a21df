"""The checks of scripts/gpu-checks, where there is a GPU; and that it says what it ran, where there is none."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

ROOT = Path(__file__).parents[2]
PARTS = ("torch", "keras-torch", "keras-jax", "keras-tensorflow")


def run(folder: Path, *options: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "gpu-checks"), str(folder), *options],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    report = (folder / "report.txt").read_text()
    assert report == done.stdout
    return done.returncode, report


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("part", PARTS)
def test_on_a_gpu(part: str, tmp_path: Path) -> None:
    code, report = run(tmp_path, "--only", part)
    assert code == 0, report


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.slow
def test_without_a_gpu_it_says_that_nothing_was_run(tmp_path: Path) -> None:
    code, report = run(tmp_path, "--only", "torch")
    assert code == 2
    assert "torch: NOT RUN, torch sees no GPU" in report
    assert "0 passed, 0 failed" in report


def test_a_check_that_fails_or_does_not_end_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    import time

    from tests.gpu import running

    def fails(device: str) -> None:
        assert device == "cuda"

    checks: dict[str, Any] = {
        "check_one": lambda device: f"on {device}",
        "check_two": fails,
        "check_three": lambda device: time.sleep(3000),
        "other": fails,
    }
    assert running.run(checks, "cpu", 1.0) == 1
    said = capsys.readouterr().out
    assert re.search(r"passed one \([0-9.]+ s\): on cpu", said)
    assert "FAILED two\nTraceback" in said
    assert "not done after 2 s" in said
    assert "other" not in said
