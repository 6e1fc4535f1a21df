"""Runs gradient_checks.py and guard_checks.py on each backend and engine, each in a process of its own."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKS = [Path(__file__).with_name(name) for name in ("gradient_checks.py", "guard_checks.py")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "engine"), [("torch", "torch"), ("keras", "torch"), ("keras", "jax"), ("keras", "tensorflow")]
)
def test_on_engine(backend: str, engine: str) -> None:
    for module in (backend, engine):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")
    own = {"AGNOSTIC_BACKEND": backend, "KERAS_BACKEND": engine, "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *map(str, CHECKS)]
    done = subprocess.run(
        command, env={**os.environ, **own}, capture_output=True, text=True, cwd=CHECKS[0].parents[2], timeout=280
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
