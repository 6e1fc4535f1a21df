"""Layers put in another's place, padding in a layer of its own, and settings that no output shows."""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

import agnostic as ag  # noqa: E402


def network(*changes: tuple[str, Any]) -> Any:
    torch.manual_seed(0)
    layers = OrderedDict(
        first=nn.Conv2d(3, 6, 3, padding=1), act=nn.ReLU(), pool=nn.AvgPool2d(2, 2), norm=nn.BatchNorm2d(6),
        second=nn.Conv2d(6, 8, 3, stride=2, padding=1), peak=nn.MaxPool2d(3, 2, padding=1), flat=nn.Flatten(),
        ln=nn.LayerNorm(32), fc=nn.Linear(32, 4),
    )  # fmt: skip
    model = nn.Sequential(layers)
    with torch.no_grad():
        model.norm.running_mean.normal_(0, 0.3)
        model.norm.running_var.uniform_(0.3, 2)
        model.second.bias.sub_(3.0)  # the maximum of negative numbers
    for name, module in changes:
        setattr(model, name, module)
    return model.eval()


@pytest.fixture
def inputs() -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).random((3, 3, 16, 16), np.float32)


def behind(padding: Any, layer: Any) -> Any:
    return nn.Sequential(OrderedDict(pad=padding, layer=layer))


def padded_apart(model: Any, name: str, padding: Any) -> Any:
    layer = copy.deepcopy(getattr(model, name))
    layer.padding = 0 if isinstance(layer.padding, int) else (0, 0)
    return behind(padding, layer)


def test_a_pool_of_another_kind_is_matched_and_blamed_itself(inputs: np.ndarray[Any, Any]) -> None:
    found = ag.compare(network(), network(("pool", nn.MaxPool2d(2, 2))), inputs)
    assert ("pool", "pool") in found.matches
    assert str(found.first_divergence) == "pool"
    assert found.diagnosis.mistake == "pool_kind"


def test_padding_in_a_layer_of_its_own_is_no_difference(inputs: np.ndarray[Any, Any]) -> None:
    right = network()
    least = nn.ConstantPad2d(1, -float("inf"))
    version = network(
        ("second", padded_apart(right, "second", nn.ZeroPad2d(1))), ("peak", padded_apart(right, "peak", least))
    )
    assert ag.compare(right, version, inputs).same


def test_zeros_before_a_maximum(inputs: np.ndarray[Any, Any]) -> None:
    right = network()
    found = ag.compare(right, network(("peak", padded_apart(right, "peak", nn.ZeroPad2d(1)))), inputs)
    assert str(found.first_divergence) == "peak.pad"
    assert found.diagnosis.mistake == "max_pool_padding"


def test_zeros_before_an_average_are_counted(inputs: np.ndarray[Any, Any]) -> None:
    right = network(("peak", nn.AvgPool2d(3, 2, padding=1, count_include_pad=False)))
    found = ag.compare(right, network(("peak", padded_apart(right, "peak", nn.ZeroPad2d(1)))), inputs)
    assert str(found.first_divergence) == "peak.layer"
    assert found.diagnosis.mistake == "average_pool_padding"


class Ranged(nn.Module):
    """Prepares the images before a padding layer of its own."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Any) -> Any:
        return self.model(x * 2 - 1)


def test_what_goes_wrong_before_a_padding_layer_is_named(inputs: np.ndarray[Any, Any]) -> None:
    right = network()
    version = Ranged(network(("first", padded_apart(right, "first", nn.ZeroPad2d(1)))))
    found = ag.compare(right, version, inputs)
    assert found.first_divergence is not None
    assert found.first_divergence.kind == "code"
    assert found.diagnosis.mistake == "preprocessing_range"
    assert len(found.divergences) == 1


def test_the_code_behind_the_last_layer_is_named_by_it(inputs: np.ndarray[Any, Any]) -> None:
    class Soft(type(network())):  # type: ignore[misc]
        def forward(self, x: Any) -> Any:
            return super().forward(x).softmax(-1)

    version = network()
    version.__class__ = Soft
    found = ag.compare(network(), version, inputs)
    assert found.first_divergence is not None
    assert (found.first_divergence.a, found.first_divergence.b) == ("output", "fc")
    assert found.first_divergence.where == "between 'fc' and the output"


def test_a_setting_that_no_output_shows_is_noted(inputs: np.ndarray[Any, Any]) -> None:
    version = network()
    version.norm.momentum = 0.01
    version.norm.eps *= 1 + 1e-4
    found = ag.compare(network(), version, inputs)
    assert found.same
    said = [x for x in found.notes if "norm" in x]
    assert len(said) == 2, found.notes
    assert all(x.endswith("in 'norm'") for x in said), said
    assert said[0] in str(found)
    assert not [x for x in ag.compare(network(), network(), inputs).notes if "where A has" in x]
