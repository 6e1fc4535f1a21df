"""Runs keras_checks.py on each engine, each in a process of its own: KERAS_BACKEND is read once."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKS = Path(__file__).with_name("keras_checks.py")


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["torch", "jax", "tensorflow"])
def test_on_engine(engine: str) -> None:
    for module in ("keras", engine):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")
    environment = {**os.environ, "KERAS_BACKEND": engine, "JAX_ENABLE_X64": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(CHECKS)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=CHECKS.parents[2], timeout=280)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
