"""From weights after some steps: which convention led there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from agnostic import optimizers
from agnostic.compare.mistakes.optimizers import explain
from agnostic.optimizers.specs import replace
from agnostic.reference.optimizers import replay

RNG = np.random.default_rng(0)
START = [RNG.standard_normal((4, 3)), RNG.standard_normal(5)]
GRADIENTS = [[RNG.standard_normal(x.shape) * 0.1 for x in START] for _ in range(3)]


@pytest.mark.parametrize(
    ("spec", "term", "value"),
    [
        (optimizers.Adam.torch(learning_rate=0.01), "epsilon", 1e-3),
        (optimizers.Adam.torch(learning_rate=0.01), "epsilon", 1e-7),
        (optimizers.Adam.torch(learning_rate=0.01, weight_decay=0.1), "decay", "decoupled"),
        (optimizers.SGD.torch(learning_rate=0.1, momentum=0.9), "nesterov", True),
        (optimizers.SGD.torch(learning_rate=0.1, momentum=0.9, weight_decay=0.1), "decay", "decoupled"),
        (optimizers.SGD.torch(learning_rate=0.1, momentum=0.9), "momentum", 0.0),
        (optimizers.RMSprop.torch(learning_rate=0.01), "epsilon_place", "inside"),
        (optimizers.Adagrad.torch(learning_rate=0.1), "initial_accumulator", 0.1),
    ],
)
def test_the_convention_is_found(spec: Any, term: str, value: Any) -> None:
    if term == "epsilon_place":
        value = next(v for v in type(spec).choices["epsilon_place"] if v != spec.epsilon_place)
    after = replay(replace(spec, {term: value}), START, GRADIENTS)[-1]
    found = explain(spec, START, GRADIENTS, after)
    assert found.term == term
    assert found.b == value
    # The very rule that made the weights: nothing is left but its own roundings.
    assert found.error <= 100 * 2.0**-53


def test_the_same_convention_is_none() -> None:
    spec = optimizers.Adam.torch(learning_rate=0.01)
    assert explain(spec, START, GRADIENTS, replay(spec, START, GRADIENTS)[-1]).term == ""


def test_two_traces_of_one_step_tell_the_convention(tmp_path: Any) -> None:
    torch = pytest.importorskip("torch")
    import agnostic as ag

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, 2))
    x = RNG.standard_normal((8, 6)).astype(np.float32)
    mine = optimizers.SGD.torch(learning_rate=0.1, momentum=0.9, weight_decay=0.1)
    theirs = replace(mine, {"nesterov": True})
    a = ag.trace(model, x, tmp_path / "a.trace", gradients=True, update=(mine, 1))
    b = ag.trace(model, x, tmp_path / "b.trace", gradients=True, update=(theirs, 1))
    found = ag.compare(a, b)
    assert not found.same
    assert found.diagnosis.mistake == "optimizer_convention"
    assert "True where A has False" in found.diagnosis[0].sentence
