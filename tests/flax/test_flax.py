"""Proof beyond a toy: a backend for Flax, registered by an entry point, without a change in agnostic."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


@pytest.mark.slow
def test_flax_is_looked_into(tmp_path: Path) -> None:
    pytest.importorskip("flax")
    about = tmp_path / "agnostic_flax-0.1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: agnostic-flax\nVersion: 0.1\n")
    (about / "entry_points.txt").write_text("[agnostic.backends]\nflax = agnostic_flax:registration\n")
    path = os.pathsep.join(map(str, (tmp_path, HERE, ROOT, ROOT / "backends")))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE / "checks.py")],
        env={**os.environ, "PYTHONPATH": path}, cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert re.search(r"\d+ passed", done.stdout), done.stdout
