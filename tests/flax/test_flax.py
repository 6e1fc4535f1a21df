"""Proof beyond a toy: a backend for Flax, registered by an entry point, without a change in agnostic."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.engines import run_apart

HERE = Path(__file__).parent


@pytest.mark.slow
def test_flax_is_looked_into(tmp_path: Path) -> None:
    pytest.importorskip("flax")
    about = tmp_path / "agnostic_flax-0.1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: agnostic-flax\nVersion: 0.1\n")
    (about / "entry_points.txt").write_text("[agnostic.backends]\nflax = agnostic_flax:registration\n")
    run_apart(HERE / "checks.py", variables={"PYTHONPATH": os.pathsep.join(map(str, (tmp_path, HERE)))})
