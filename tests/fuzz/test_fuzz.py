"""Each fuzzer, briefly; ``scripts/fuzz`` runs them for as long as asked."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.__main__ import NAMES

ROOT = Path(__file__).parents[2]
NEEDS = {"archives": "keras", "traces": "torch", "weights": "torch"}


# Images have a test of their own. Keras takes many times longer to import than a fuzzer runs.
SHORT = [pytest.param(x, marks=pytest.mark.slow) if x == "archives" else x for x in NAMES if x != "images"]


@pytest.mark.parametrize("name", SHORT)
def test_briefly(name: str) -> None:
    if name in NEEDS and importlib.util.find_spec(NEEDS[name]) is None:
        pytest.skip(f"{NEEDS[name]} is not installed")
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", name, "--seconds", "2"],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "backends")))},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    assert "cases of seed 0" in done.stdout
