"""torch against Keras, and Keras against itself, on each engine in a process of its own."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import agnostic as ag

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def _checks() -> Any:
    found = importlib.util.spec_from_file_location("keras_checks", HERE / "keras_checks.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["torch", "jax", "tensorflow"])
def test_against_torch_and_itself(engine: str, images: np.ndarray[Any, Any], tmp_path: Path) -> None:
    for module in ("torch", "keras", engine):
        pytest.importorskip(module) if module == "torch" else None
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")
    checks, update = _checks(), (ag.optimizers.Adam.torch(), 2)
    trace = ag.trace(checks.torch_model(), images, tmp_path / "torch.trace", update=update)
    others = [ag.trace(checks.torch_model(x), images, tmp_path / f"{x}.trace") for x in ("gelu", "none")]
    others += [
        ag.trace(checks.torch_recurrent(x), checks.SEQUENCES, tmp_path / f"{x}.trace", update=update)
        for x in ("LSTM", "GRU")
    ]
    done = subprocess.run(
        [sys.executable, str(HERE / "keras_checks.py"), str(trace), str(tmp_path / "keras.trace"), *map(str, others)],
        env={**os.environ, "KERAS_BACKEND": engine, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'backends'}"},
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-3000:]
    assert "passed" in done.stdout
