"""Numbers that others published: the test vectors of Keras and PyTorch, by the reference; see tests/golden."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agnostic.optimizers.specs import KINDS
from agnostic.reference import optimizers as reference

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
KERAS: dict[str, Any] = json.loads((GOLDEN / "keras_optimizers.json").read_text())
TORCH: dict[str, Any] = json.loads((GOLDEN / "torch_optimizers.json").read_text())


@pytest.mark.parametrize("kind", KERAS["cases"])
def test_keras(kind: str) -> None:
    case = KERAS["cases"][kind]
    spec = KINDS[kind].keras(**case["options"])
    gradients = [[np.full(10, 0.01)], *[[np.arange(1, 11) / 10]] * 4]
    path = reference.replay(spec, [np.ones(10)], gradients)
    # 4 digits; where the vector repeats one element, what Keras' own test allows.
    allowed = 1e-3 if kind in ("Adam", "LAMB") else 0.5e-4 + 1e-6
    assert np.abs(np.array([p for (p,) in path]) - case["path"]).max() < allowed


def test_the_first_step_of_lamb_in_keras() -> None:
    case = KERAS["first step of LAMB"]
    (((end,)),) = reference.replay(KINDS["LAMB"].keras(**case["options"]), [case["start"]], [[case["gradient"]]])
    assert np.abs(end - case["end"]).max() < 1e-4  # cut, not rounded


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def gradient(parameters: list[np.ndarray]) -> list[np.ndarray]:
    """Of the sum of the outputs of the network of PyTorch's script."""
    weight_1, bias_1, weight_2, bias_2 = parameters
    x = np.array(TORCH["inputs"])
    hidden = sigmoid(x @ weight_1.T + bias_1)
    out = sigmoid(hidden @ weight_2.T + bias_2)
    back = out * (1 - out)
    inner = (back @ weight_2) * hidden * (1 - hidden)
    return [inner.T @ x, inner.sum(0), back.T @ hidden, back.sum(0)]


@pytest.mark.parametrize("kind", TORCH["cases"])
def test_torch_for_hundreds_of_steps(kind: str) -> None:
    case = dict(TORCH["cases"][kind])
    spec = KINDS[kind].torch(**case.pop("options"))
    start = [np.reshape(p, s) for p, s in zip(TORCH["start"], [(3, 2), 3, (1, 3), 1], strict=True)]
    path = reference.run(spec, start, gradient, [spec.learning_rate] * max(map(int, case)))
    for steps, expected in case.items():
        for got, wanted in zip(path[int(steps) - 1], expected, strict=True):
            # Numbers up to 15, each step rounded a few times: 500 * 10 * 15 * 1.1e-16 at most.
            assert np.abs(got.ravel() - wanted).max() < 8e-12
