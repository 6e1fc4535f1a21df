"""Runs the checks beside it with Keras on torch, where both frameworks are in one process."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engines import run_on_engine


@pytest.mark.slow
@pytest.mark.parametrize("checks", ["there_and_back_checks.py", "training_checks.py"])
def test_ports_of_one_process(checks: str) -> None:
    run_on_engine("torch", Path(__file__).with_name(checks))
