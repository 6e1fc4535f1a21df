"""Run test files in a process of their own, because Keras reads its engine once per process."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ENGINES = ("torch", "jax", "tensorflow")
# Most of jax's time in a test is LLVM optimizing programs that run once.
FAST_START = {"jax": {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}}


def run_on_engine(
    engine: str, *files: Path, needs: tuple[str, ...] = ("keras",), variables: Mapping[str, str] | None = None
) -> None:
    """Run test files with Keras on an engine, and fail where one of them fails or none of them runs a test.

    A time limit is pytest's own, for hangs; there is no other, so that a slow machine passes.

    Args:
        engine: ``"torch"``, ``"jax"`` or ``"tensorflow"``.
        files: files or folders of tests.
        needs: modules without which the test is skipped, beside the engine.
        variables: of the environment, beside ``KERAS_BACKEND``.
    """
    for module in (*needs, engine):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *map(str, files)],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **FAST_START.get(engine, {}), **(variables or {}),
             "KERAS_BACKEND": engine},
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert re.search(r"\d+ passed", done.stdout), f"no test ran:\n{done.stdout[-2000:]}"
