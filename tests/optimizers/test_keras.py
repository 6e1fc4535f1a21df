"""Runs the checks beside it on each engine, each in a process of its own: KERAS_BACKEND is read once."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def run(files: tuple[str, ...], engine: str, *needed: str) -> None:
    for module in ("keras", engine, *needed):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")
    environment = {**os.environ, "KERAS_BACKEND": engine, "JAX_ENABLE_X64": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *(str(HERE / file) for file in files)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=HERE.parents[1], timeout=290)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["torch", "jax", "tensorflow"])
def test_optimizers_on_engine(engine: str) -> None:
    run(("keras_checks.py", "keras_training_checks.py"), engine)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["torch", "jax"])
def test_conversion_on_engine(engine: str) -> None:
    run(("conversion_checks.py", *["preset_checks.py"] * (engine == "jax")), engine, "torch")
