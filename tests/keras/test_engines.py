"""The tests of the folder ``engine``, on each engine of Keras, each in a process of its own."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("engine", ["torch", "jax", "tensorflow"])
def test_engine(engine: str) -> None:
    for module in ("keras", engine):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE / "engine")],
        env={**os.environ, "KERAS_BACKEND": engine, "AGNOSTIC_TEST_ENGINE": engine},
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout


SECOND_ENGINE = """
import os, sys
sys.path[:0] = [{root!r}, {root!r} + "/backends"]
import agnostic as ag
ag.load("efficientnet_lite0", backend="keras", engine="torch", weights="random")
try:
    ag.load("efficientnet_lite0", backend="keras", engine="jax", weights="random")
except ag.InvalidInput as error:
    print(error)
"""


@pytest.mark.slow
def test_a_second_engine_in_one_process_is_one_sentence() -> None:
    for module in ("keras", "torch"):
        pytest.importorskip(module) if module == "torch" else None
    environment = {k: v for k, v in os.environ.items() if k != "KERAS_BACKEND"}
    done = subprocess.run(
        [sys.executable, "-c", SECOND_ENGINE.format(root=str(ROOT))],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "loaded with the engine 'torch'" in done.stdout, done.stderr[-2000:]
    assert "start another for 'jax'" in done.stdout
