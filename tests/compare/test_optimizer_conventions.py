"""From weights after some steps: which convention led there."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import agnostic as ag
from agnostic import optimizers
from agnostic.compare.conventions import Observed, RuleSteps, explain
from agnostic.optimizers.specs import replace
from agnostic.reference.optimizers import replay

RNG = np.random.default_rng(0)
START = [RNG.standard_normal((4, 3)), RNG.standard_normal(5)]
GRADIENTS = [[RNG.standard_normal(x.shape) * 0.1 for x in START] for _ in range(3)]
RATES = (0.1, 0.1, 0.02)


def _explained(spec: Any, after: Any, rates: Sequence[float] = RATES, **options: Any) -> Any:
    return explain(RuleSteps(spec, tuple(rates)), Observed(START, GRADIENTS, after), **options)


@pytest.mark.parametrize(
    ("spec", "term", "value"),
    [
        (optimizers.Adam.torch(), "epsilon", 1e-3),
        (optimizers.Adam.torch(), "epsilon", 1e-7),
        (optimizers.Adam.torch(epsilon=1e-3), "epsilon_place", "before correction"),
        (optimizers.Adam.torch(weight_decay=0.1), "decay", "decoupled"),
        (optimizers.SGD.torch(momentum=0.9), "nesterov", True),
        (optimizers.SGD.torch(momentum=0.9), "convention", "keras"),
        (optimizers.SGD.torch(momentum=0.9, weight_decay=0.1), "decay", "decoupled"),
        (optimizers.SGD.torch(momentum=0.9), "momentum", 0.0),
        (optimizers.RMSprop.torch(), "epsilon_place", "inside"),
        (optimizers.RMSprop.torch(momentum=0.9), "convention", "keras"),
        (optimizers.Adagrad.torch(), "initial_accumulator", 0.1),
        (optimizers.NAdam.torch(), "momentum_decay", 1.0),
        (optimizers.NAdam.torch(), "kind", "Adam"),
    ],
)
def test_the_convention_is_found_without_being_told(spec: Any, term: str, value: Any) -> None:
    other = optimizers.Adam.torch() if term == "kind" else replace(spec, {term: value})
    after = replay(other, START, GRADIENTS, RATES)[-1]
    found = _explained(spec, after)
    assert [(x.term, x.b) for x in found.changes] == [(term, value)]
    # The very rule that made the weights: nothing is left but its own roundings.
    assert found.error <= 100 * 2.0**-53


def test_the_same_convention_is_none() -> None:
    spec = optimizers.Adam.torch()
    after = replay(spec, START, GRADIENTS, RATES)[-1]
    assert _explained(spec, after, enough=1e-15).changes == ()


def test_of_many_differences_those_are_named_that_matter() -> None:
    mine = optimizers.SGD.torch(momentum=0.9, weight_decay=0.1)
    theirs = optimizers.SGD.keras(momentum=0.8, weight_decay=0.1)
    rates = (0.1,) * 3  # at which the momentum's form changes nothing
    after = replay(theirs, START, GRADIENTS, rates)[-1]
    found = _explained(mine, after, rates, b=RuleSteps(theirs, rates), enough=1e-14)
    assert {x.term for x in found.changes} == {"momentum", "decay"}


def test_what_a_trace_says_of_itself_is_not_believed() -> None:
    mine = optimizers.SGD.torch(momentum=0.9)
    after = replay(replace(mine, {"nesterov": True}), START, GRADIENTS, RATES)[-1]
    found = _explained(mine, after, b=RuleSteps(mine, RATES), enough=1e-14)
    assert [x.term for x in found.changes] == ["nesterov"]


# Traces --------------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def model() -> Any:
    torch = pytest.importorskip("torch")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, 2))


X = RNG.standard_normal((8, 6)).astype(np.float32)


def _compared(folder: Path, models: tuple[Any, Any], updates: tuple[Any, Any]) -> ag.Comparison:
    return ag.compare(
        *(ag.trace(m, X, folder / f"{i}.trace", update=u) for i, (m, u) in enumerate(zip(models, updates, strict=True)))
    )


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize(
    ("mine", "theirs", "said"),
    [
        (optimizers.SGD.torch(learning_rate=0.1, momentum=0.9, weight_decay=0.1), {"nesterov": True}, "nesterov: True"),
        (optimizers.Adam.torch(epsilon=1e-3), {"epsilon_place": "before correction"}, "before correction where A has"),
        (optimizers.NAdam.torch(), {"momentum_decay": 1.0}, "momentum schedule of NAdam approaches beta_1: 1 where"),
    ],
)
def test_traces_of_one_step_and_of_several(
    mine: Any, theirs: dict[str, Any], said: str, steps: int, model: Any, tmp_path: Path
) -> None:
    found = _compared(tmp_path, (model, model), ((mine, steps), (replace(mine, theirs), steps)))
    assert found.first_divergence is not None
    assert found.first_divergence.kind == "update"
    assert found.diagnosis.mistake == "optimizer_convention"
    assert said in found.diagnosis[0].sentence
    assert found.diagnosis[0].after <= 10  # the threshold: nothing is left that arithmetic does not explain


def test_momentum_shows_where_the_rate_changes(model: Any, tmp_path: Path) -> None:
    pair = optimizers.SGD.torch(momentum=0.9), optimizers.SGD.keras(momentum=0.9)
    assert _compared(tmp_path, (model, model), tuple((x, [0.1, 0.1, 0.1]) for x in pair)).same
    found = _compared(tmp_path, (model, model), tuple((x, [0.1, 0.1, 0.01]) for x in pair))
    assert "momentum buffer" in found.diagnosis[0].sentence


def test_the_optimizer_is_not_blamed_for_the_model(model: Any, tmp_path: Path) -> None:
    other = copy.deepcopy(model)
    other[2].bias.data += 0.1
    update = optimizers.Adam.torch(), 3
    found = _compared(tmp_path, (model, other), (update, update))
    assert [(str(x), x.kind) for x in found.divergences] == [("2", "layer")]
    wrong = replace(update[0], {"beta_1": 0.0}), 3
    found = _compared(tmp_path, (model, other), (update, wrong))
    assert [x.kind for x in found.divergences] == ["layer", "update"]
    assert "beta 1: 0 where A has 0.9" in found.divergences[1].findings[0].sentence


def test_a_gradient_that_is_lost_is_at_its_layer(model: Any, tmp_path: Path) -> None:
    other = copy.deepcopy(model)
    other[0].weight.requires_grad_(False)
    update = optimizers.SGD(0.1), 2
    found = _compared(tmp_path, (model, other), (update, update))
    assert [(str(x), x.kind) for x in found.divergences] == [("0", "gradient")]


@pytest.mark.parametrize("clipped", [{"clip_global_norm": 0.01}, {"clip_norm": 0.01}, {"accumulate": 2}])
def test_what_spans_parameters_or_steps(clipped: dict[str, Any], model: Any, tmp_path: Path) -> None:
    spec = optimizers.SGD.torch(learning_rate=0.1, momentum=0.9, **clipped)
    assert _compared(tmp_path, (model, model), ((spec, 4), (spec, 4))).same
    found = _compared(tmp_path, (model, model), ((spec, 4), (replace(spec, dict.fromkeys(clipped, 1)), 4)))
    assert found.diagnosis.mistake == "optimizer_convention"
    assert f"{next(iter(clipped))}=" in found.diagnosis[0].fix


def test_the_model_is_as_before(model: Any, tmp_path: Path) -> None:
    before = {k: x.clone() for k, x in model.state_dict().items()}
    ag.trace(model, X, tmp_path / "a.trace", update=(optimizers.Adam(0.1), 2))
    assert all((x == before[k]).all() for k, x in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize(
    "update", [(optimizers.SGD(0.1), 0), (optimizers.SGD(0.1), []), ("SGD", 1), (optimizers.SGD(0.1), [-1.0])]
)
def test_an_update_that_is_none(update: Any, model: Any, tmp_path: Path) -> None:
    with pytest.raises(ag.InvalidInput, match="update is"):
        ag.trace(model, X, tmp_path / "a.trace", update=update)
    assert not list(tmp_path.iterdir())


def test_other_numbers_of_steps_are_not_compared(model: Any, tmp_path: Path) -> None:
    spec = optimizers.SGD(0.1)
    found = _compared(tmp_path, (model, model), ((spec, 1), (spec, 2)))
    assert any("after 1 step of A and 2 of B are not compared" in note for note in found.notes)
