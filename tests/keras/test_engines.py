"""The tests of the folder ``engine``, on each engine of Keras, each in a process of its own."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.engines import ENGINES, run_on_engine

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_engine(engine: str) -> None:
    run_on_engine(engine, *sorted((HERE / "engine").glob("test_*.py")), variables={"AGNOSTIC_TEST_ENGINE": engine})


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
    pytest.importorskip("torch")
    if importlib.util.find_spec("keras") is None:
        pytest.skip("keras is not installed")
    environment = {k: v for k, v in os.environ.items() if k != "KERAS_BACKEND"}
    done = subprocess.run(
        [sys.executable, "-c", SECOND_ENGINE.format(root=str(ROOT))],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "loaded with the engine 'torch'" in done.stdout, done.stderr[-2000:]
    assert "start another for 'jax'" in done.stdout
