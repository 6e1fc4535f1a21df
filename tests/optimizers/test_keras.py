"""Runs the checks beside it on each engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engines import ENGINES, run_on_engine

HERE = Path(__file__).parent


def run(engine: str, *files: str, needs: tuple[str, ...] = ("keras",)) -> None:
    run_on_engine(engine, *(HERE / file for file in files), needs=needs)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_optimizers_on_engine(engine: str) -> None:
    run(engine, "keras_checks.py", "keras_training_checks.py")


# PyTorch's optimizers end a process that has TensorFlow.
@pytest.mark.slow
@pytest.mark.parametrize("engine", ["torch", "jax"])
def test_conversion_on_engine(engine: str) -> None:
    run(engine, "conversion_checks.py", *["preset_checks.py"] * (engine == "jax"), needs=("keras", "torch"))
