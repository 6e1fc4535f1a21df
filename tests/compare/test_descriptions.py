"""Descriptions of torch's layers: the kind, what a comparison reads of its settings, weights by Keras' names."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import agnostic as ag
from agnostic.compare.settings import unseen
from agnostic.contracts.description import DESCRIPTION
from agnostic.description import LayerDescription


def described(module: nn.Module) -> LayerDescription:
    model = nn.Sequential(module)
    (found,) = ag.backend_of(model)[DESCRIPTION].describe(model, ["0"])
    return found


class Masked(nn.Conv2d):
    """A subclass with an array of its own."""

    def __init__(self) -> None:
        super().__init__(3, 8, 3)
        self.register_buffer("mask", torch.ones(1, 1, 3, 3))


LAYERS = [
    (nn.Conv2d(3, 8, 3, padding="same"), "conv", {"strides": (1, 1), "padding": "same"}, {"kernel": (3, 3, 3, 8)}),
    (nn.Conv2d(4, 8, (3, 5), 2, (1, 2), groups=4), "depthwise_conv", {"strides": (2, 2), "padding": ((1, 1), (2, 2))},
     {"kernel": (3, 5, 4, 2)}),
    (nn.ConvTranspose1d(4, 6, 3, groups=2, bias=False), "conv_transpose", {}, {"kernel": (3, 6, 4)}),
    (nn.Linear(3, 2), "dense", {}, {"kernel": (3, 2), "bias": (2,)}),
    (nn.BatchNorm2d(5), "batch_norm", {"epsilon": 1e-5, "momentum": 0.9}, {"gamma": (5,), "moving_mean": (5,)}),
    (nn.InstanceNorm2d(5, affine=True), "group_norm", {"epsilon": 1e-5}, {"beta": (5,)}),
    (nn.LayerNorm((3, 4, 5)), "layer_norm", {"epsilon": 1e-5}, {"gamma": (4, 5, 3)}),
    (nn.LeakyReLU(0.3), "activation", {"activation": "leaky_relu", "activation_options": {"negative_slope": 0.3}}, {}),
    (nn.GELU("tanh"), "activation", {"activation": "gelu_tanh"}, {}),
    (nn.PReLU(4), "activation", {"activation": "prelu"}, {"alpha": (4,)}),
    (nn.MaxPool2d(3, padding=1), "max_pool", {"strides": (3, 3), "padding": ((1, 1), (1, 1))}, {}),
    (nn.AdaptiveAvgPool2d(1), "global_average_pool", {}, {}),
    (nn.AdaptiveMaxPool2d((3, None)), "adaptive_pool", {}, {}),
    (nn.LSTM(4, 5, num_layers=2, bidirectional=True), "lstm", {}, {"kernel": (4, 20), "1.backward.bias": (20,)}),
    (nn.MultiheadAttention(6, 3, add_bias_kv=True), "attention", {}, {"query_kernel": (6, 3, 2), "bias_k": (1, 1, 6)}),
    (nn.Sequential(nn.ReLU()), "block", {}, {}),
    (nn.Fold((4, 4), 2), "other", {}, {}),
    (Masked(), "other", {}, {"weight": (8, 3, 3, 3), "mask": (1, 1, 3, 3)}),
]  # fmt: skip


@pytest.mark.parametrize(("module", "kind", "config", "shapes"), LAYERS, ids=lambda x: x if isinstance(x, str) else "")
def test_a_layer_is_described(module, kind, config, shapes) -> None:
    found = described(module)
    assert found.kind == kind
    shared = {"class": type(module).__name__, "framework": "torch", "training": True}
    assert found.config.items() >= {**shared, **config}.items()
    assert {name: found.weights[name].shape for name in shapes} == shapes


def test_weights_may_be_of_types_that_numpy_lacks() -> None:
    found = described(nn.Linear(3, 2).to(torch.bfloat16))
    assert found.config["dtype"] == "bfloat16"
    assert found.weights["kernel"].dtype == "float32"


def test_settings_that_returned_the_same_are_told() -> None:
    pairs = [
        (nn.BatchNorm2d(5, momentum=0.1), nn.BatchNorm2d(5, momentum=0.01)),
        (nn.LayerNorm(5), nn.LayerNorm(5, eps=1e-6)),
        (nn.ReLU(), nn.LeakyReLU(0.2)),
        (nn.ReLU(), nn.ReLU()),
    ]
    assert unseen((described(a), described(b)) for a, b in pairs) == [
        "batch norm with momentum 0.99 where A has 0.9, which shows in training: in '0'",
        "layer norm with epsilon 1e-06 where A has 1e-05, too little to show here: in '0'",
        "leaky_relu(negative_slope=0.2) where A has relu, the same on these inputs: in '0'",
    ]
