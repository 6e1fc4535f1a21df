"""Runs the checks beside it on each engine, each in a process of its own: KERAS_BACKEND is read once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engines import ENGINES, run_on_engine

HERE = Path(__file__).parent
FILES = {
    "torch": ("keras_checks.py", "keras_training_checks.py", "conversion_checks.py"),
    "jax": ("keras_checks.py", "keras_training_checks.py", "conversion_checks.py", "preset_checks.py"),
    # Conversions need torch.optim, which ends a process that has tensorflow in it.
    "tensorflow": ("keras_checks.py", "keras_training_checks.py"),
}


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_optimizers_on_engine(engine: str) -> None:
    needs = ("keras",) if engine == "tensorflow" else ("keras", "torch")
    run_on_engine(engine, *(HERE / x for x in FILES[engine]), needs=needs, variables={"JAX_ENABLE_X64": "1"})
