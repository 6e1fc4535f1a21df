"""Carrying optimizers between PyTorch and Keras, on the engine of this process; test_keras.py runs this file.

Nothing here may import tensorflow, which fit() does on every engine: torch.optim brings an LLVM of its own, and the two
abort in one process.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import pytest
import torch

from agnostic import optimizers as ago
from agnostic.errors import InvalidInput
from tests.optimizers.keras_checks import EXACT, GRADIENT, LONG, NATIVE, START, _float64, far, follow, model, values
from tests.optimizers.problems import CASES

__all__ = ["_float64"]


def torch_model() -> Any:
    net = torch.nn.Linear(3, 4).double()
    load(net, START)
    return net


def load(net: Any, weights: Sequence[np.ndarray]) -> None:
    with torch.no_grad():
        net.weight.copy_(torch.tensor(weights[0].T))
        net.bias.copy_(torch.tensor(weights[1]))


def torch_values(net: Any) -> list[np.ndarray]:
    return [net.weight.detach().numpy().T.copy(), net.bias.detach().numpy().copy()]


def torch_follow(optimizer: Any, net: Any, rates: Sequence[float]) -> list[np.ndarray]:
    for rate in rates:
        for group in optimizer.param_groups:
            group["lr"] = rate
        weight, bias = GRADIENT(torch_values(net))
        net.weight.grad, net.bias.grad = torch.tensor(weight.T.copy()), torch.tensor(bias)
        optimizer.step()
    return torch_values(net)


@pytest.mark.parametrize("at", [0, 2])
@pytest.mark.parametrize("case", [c for c, (cls, _) in CASES.items() if "torch" in cls.natives])
def test_a_torch_optimizer_goes_on_in_keras(case: str, at: int) -> None:
    cls, options = CASES[case]
    source = torch_model()
    optimizer = ago.build(cls.torch(**options), source, native=True)
    torch_follow(optimizer, source, LONG[:at])
    target = model()
    target.set_weights(torch_values(source))
    carried = ago.convert(optimizer, "keras", target, source=source)
    expected = torch_follow(optimizer, source, LONG[at:])
    tolerance = EXACT if type(carried).__name__ == "RuleOptimizer" else NATIVE
    assert far(follow(carried, target, LONG[at:]), expected) < tolerance


@pytest.mark.parametrize("at", [0, 2])
@pytest.mark.parametrize("case", [c for c, (cls, _) in CASES.items() if "keras" in cls.natives])
def test_a_keras_optimizer_goes_on_in_torch(case: str, at: int) -> None:
    cls, options = CASES[case]
    source = model()
    optimizer = ago.build(cls.keras(**options), source, native=True)
    follow(optimizer, source, LONG[:at])
    target = torch_model()
    load(target, values(source))
    carried = ago.convert(optimizer, "torch", target, source=source)
    expected = follow(optimizer, source, LONG[at:])
    assert far(torch_follow(carried, target, LONG[at:]), expected) < NATIVE


def test_groups_and_frozen_layers_are_carried_there_and_back() -> None:
    source = torch_model()
    optimizer = ago.build(
        ago.Adam(0.1, clip_global_norm=0.5),
        ago.groups(source, {"weight": {"weight_decay": 0.1}, "bias": {"lr": 0.05, "betas": (0.8, 0.99)}}),
    )
    for g, p in zip(GRADIENT(torch_values(source)), (source.weight, source.bias), strict=True):
        p.grad = torch.tensor(np.ascontiguousarray(g.T))
    optimizer.step()
    middle = model()
    middle.set_weights(torch_values(source))
    there = ago.convert(optimizer, "keras", middle, source=source)
    last = torch_model()
    back = ago.convert(there, "torch", last, source=middle)
    for a, b in zip(optimizer.param_groups, back.param_groups, strict=True):
        assert {k: v for k, v in a.items() if k != "params"} == {k: v for k, v in b.items() if k != "params"}
    for p, q in zip(source.parameters(), last.parameters(), strict=True):
        for name, value in optimizer.state[p].items():
            assert torch.equal(value, back.state[q][name]), name

    frozen = ago.build(ago.SGD(0.1, 0.9), ago.groups(source, {"bias": {"trainable": False}}))
    carried = ago.convert(frozen, "keras", middle, source=source)
    before = values(middle)
    after = follow(carried, middle, [0.1])
    assert np.array_equal(before[1], after[1])
    assert not np.array_equal(before[0], after[0])


def test_what_has_no_exact_form_is_an_error_with_the_term_and_its_size() -> None:
    net = torch_model()
    with pytest.raises(InvalidInput, match=r"epsilon_place .* [0-9.]+e[-+][0-9]+ after 5 steps"):
        ago.convert(torch.optim.RMSprop(net.parameters(), eps=1e-3), "keras", model(), native=True)
    allowed = ago.convert(
        torch.optim.RMSprop(net.parameters()), "keras", model(), native=True, allow=("epsilon_place",)
    )
    assert isinstance(allowed, keras.optimizers.RMSprop)
    with pytest.raises(InvalidInput, match="LBFGS has no specification"):
        ago.convert(torch.optim.LBFGS(net.parameters()), "keras", model())
    with pytest.raises(InvalidInput, match="Ftrl has no specification"):
        ago.convert(keras.optimizers.Ftrl(), "torch", net, source=model())
    with pytest.raises(InvalidInput, match="maximize"):
        ago.convert(torch.optim.SGD(net.parameters(), 0.1, maximize=True), "keras", model())
    bare = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, use_bias=False)])
    with pytest.raises(InvalidInput, match="bfloat16"):
        ago.convert(torch.optim.Muon([net.weight]), "keras", bare)
    conv = torch.nn.Conv2d(1, 2, 3)
    image = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Conv2D(2, 3)])
    with pytest.raises(InvalidInput, match="Adafactor has no exact form"):
        ago.convert(torch.optim.Adafactor(conv.parameters()), "keras", image)
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 1, 0.5)
    with pytest.raises(InvalidInput, match="ExponentialDecay"):
        ago.convert(keras.optimizers.SGD(schedule), "torch", net, source=model())
    with pytest.raises(InvalidInput, match="not the same parameter"):
        ago.convert(torch.optim.SGD(torch.nn.Linear(5, 5).parameters(), 0.1), "keras", model())


def test_convolutions_change_their_layout() -> None:
    rng = np.random.default_rng(0)
    conv, depth = torch.nn.Conv2d(3, 3, 2).double(), torch.nn.Conv2d(3, 6, 2, groups=3).double()
    source = torch.nn.Sequential(conv, depth)
    optimizer = torch.optim.SGD(source.parameters(), 0.1, momentum=0.9)
    for p in source.parameters():
        p.grad = torch.tensor(rng.normal(size=p.shape))
    optimizer.step()
    target = keras.Sequential(
        [keras.Input((8, 8, 3)), keras.layers.Conv2D(3, 2), keras.layers.DepthwiseConv2D(2, depth_multiplier=2)]
    )
    carried = ago.read(ago.convert(optimizer, "keras", target, source=source), target)
    kernel, _, depthwise, _ = (state.slots["momentum"] for state in carried.states.values())
    assert np.array_equal(kernel, conv.weight.grad.numpy().transpose(2, 3, 1, 0))
    # PyTorch's channel 2 c + m of the output belongs to channel c of the input.
    expected = depth.weight.grad.numpy().reshape(3, 2, 2, 2).transpose(2, 3, 0, 1)
    assert np.array_equal(depthwise, expected)
    back = ago.convert(ago.convert(optimizer, "keras", target, source=source), "torch", source, source=target)
    for p in source.parameters():
        assert torch.equal(back.state[p]["momentum_buffer"], optimizer.state[p]["momentum_buffer"])
