"""logit() looks at what a softmax or a sigmoid was given, however that is written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import agnostic as ag

torch = pytest.importorskip("torch")
nn, F = torch.nn, torch.nn.functional

OPTIONS: dict[str, Any] = {"size": 8, "steps": 2, "recipe": "classic", "dtype": "float32"}
ENDS: dict[str, Callable[[Any], Any]] = {
    "functional": lambda x: F.softmax(x, 1),
    "function": lambda x: torch.softmax(input=x, dim=1),
    "method": lambda x: x.softmax(-1),
    "module": nn.Softmax(1),
    "log": lambda x: F.log_softmax(x, 1),
    "log module": nn.LogSoftmax(1),
    "sigmoid": torch.sigmoid,
    "sigmoid module": nn.Sigmoid(),
    "moved after it": lambda x: F.softmax(x, 1)[..., None].float().view(-1, 5),
}


class Ending(nn.Module):
    def __init__(self, network: Any, end: Callable[[Any], Any]) -> None:
        super().__init__()
        self.network, self.end = network, end

    def forward(self, x: Any) -> Any:
        return self.end(self.network(x))


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_the_value_before_the_softmax_is_climbed(network: Any, end: Any) -> None:
    right = ag.visualize(network, ag.objectives.logit([1, 2]), **OPTIONS)
    found = ag.visualize(Ending(network, end).eval(), ag.objectives.logit([1, 2]), **OPTIONS)
    assert np.array_equal(found, right)
    assert np.array_equal(found.scores, right.scores)


def test_a_softmax_that_is_named_is_left_out_for_logits_alone(network: Any) -> None:
    model = nn.Sequential(network, nn.Softmax(1)).eval()
    right = ag.visualize(network, ag.objectives.logit(1), **OPTIONS)
    assert np.array_equal(ag.visualize(model, ag.objectives.logit(1, layer="1"), **OPTIONS), right)
    probability = ag.visualize(model, ag.objectives.neuron("1", 1), **OPTIONS).scores
    assert ((probability > 0) & (probability < 1)).all()
