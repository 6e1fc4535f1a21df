"""All cases of one framework, computed into a file: those of Keras in the process of its engine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

import agnostic as ag
from agnostic.registry import backend_of
from agnostic.testing import operations
from agnostic.visualization.ascent import Ascent
from tests.engines import optimize_graphs
from tests.parity import cases, tolerances


@contextmanager
def moved_start(run: int) -> Iterator[None]:
    """Ascents start from parameters that are off by as much as float32 makes a layer's output be off."""
    rng = np.random.default_rng(run)
    initial = Ascent.initial

    def moved(self: Ascent, images: range) -> np.ndarray:
        start = initial(self, images)
        return start * (1 + tolerances.LAYER_NOISE * rng.standard_normal(start.shape))

    Ascent.initial = moved  # type: ignore[method-assign]
    try:
        yield
    finally:
        Ascent.initial = initial  # type: ignore[method-assign]


def main(framework: str, out: str | Path) -> None:
    """Compute the cases of ``"numpy"``, ``"torch"``, ``"torch-float64"`` or ``"keras-ENGINE"`` into an .npz file."""
    if framework == "keras-tensorflow":
        optimize_graphs(True)  # as its users have it
    try:
        np.savez(out, **_results(framework))
    finally:
        if framework == "keras-tensorflow":
            optimize_graphs(False)


def _results(framework: str) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}

    def keep(area: str, results: object) -> None:
        found.update({f"{area}/{name}": array for name, array in results})

    if framework == "numpy":
        from agnostic.reference.ops import NumpyOps

        keep("ops", operations.results(NumpyOps()))
    else:
        backend, _, rest = framework.partition("-")
        dtype = "float64" if rest == "float64" else "float32"
        model = ag.load("efficientnet_lite0", backend=backend, engine=rest if backend == "keras" else None)
        if dtype == "float64":
            model = model.double()
        else:
            keep("ops", operations.results(backend_of(model).ops))
        found["listing"] = np.array(cases.listing(model))
        keep("taps", cases.taps(model))
        keep("ascents/embedded", cases.ascents(model, "blocks.2.0", dtype))
        if dtype == "float64":
            for run in range(tolerances.MOVED_RUNS):
                with moved_start(run):
                    keep(f"moved {run}/embedded", cases.ascents(model, "blocks.2.0", dtype))
        small = cases.smooth(backend)
        small = small.double() if dtype == "float64" else small
        keep("gradients", cases.gradients(small, dtype))
        tokens = cases.patches(backend)
        keep("gradients", cases.gradients(tokens.double() if dtype == "float64" else tokens, dtype, cases.TOKENS))
        ag.set_card(small, {"range": [0, 1]})
        keep("ascents/smooth", cases.ascents(small, "tanh", dtype, preprocess=True))
        keep("explanations", cases.explanations(small))
        pair = cases.paired(backend)
        pair = pair.double() if dtype == "float64" else pair
        ag.set_card(pair, {"range": [0, 1]})
        inputs = {"age": np.array([[0.4, 1.0], [-1.0, 0.5], [2.0, 0.0]])}  # a row for each picture
        keep("ascents/paired", cases.ascents(pair, "tanh", dtype, preprocess=True, inputs=inputs))
        if backend == "keras":
            assert backend_of(model).engine == rest
    return found
