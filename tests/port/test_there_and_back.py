"""Runs the checks beside it with Keras on torch, where both frameworks are in one process."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engines import run_on_engine

CHECKS = [Path(__file__).with_name(name) for name in ("there_and_back_checks.py", "training_checks.py")]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["torch"])
def test_ports_of_one_process(engine: str) -> None:
    run_on_engine(engine, *CHECKS)
