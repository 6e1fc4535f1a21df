"""Patches of Keras source: each makes a file compute what PyTorch's code does; where none is sure to, none is given."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

import agnostic as ag
from tests.compare.edits import patched
from tests.compare.keras_checks import carry, loaded

_HEAD = """
import keras
from keras import layers, ops


def unused(z):
    return ops.leaky_relu(z, 0.3)


def make():
    i = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, padding="same", name="one")(i)
    y = layers.Conv2D(4, 3, padding="same", name="two")(x)
"""

_LOOP = """
    for _ in range(2):
        y = {}
    return keras.Model(i, y)
"""

_NORM = torch.zeros(4), torch.ones(4), torch.ones(4), torch.zeros(4)

PATCHED: tuple[tuple[Callable[[Any, Any], Any], str], ...] = (
    # What is missing for all readers of a value, or for one
    (lambda x, y: x.relu().tanh() + x.relu().sin() + y, "ops.tanh(x) + ops.sin(x) + y"),
    (lambda x, y: x + y.relu().tanh() + y.relu().sin(), "x + ops.tanh(y) + ops.sin(y)"),
    # What an operator binds, and which operand comes first
    (lambda x, y: (x + y) * x.tanh(), "x * y * ops.tanh(x)"),
    (lambda x, y: x.tanh() * (x + y), "ops.tanh(x) - (x + y)"),
    (lambda x, y: (x + y) * 0.5, "x + y"),
    (lambda x, y: x + (2 - y).tanh(), "x + ops.tanh(y)"),
    (lambda x, y: x + (x - y).tanh(), "x + ops.tanh(y)"),
    (lambda x, y: x * 2 - y, "(x + y) * 2 - y"),
    # Numbers on either side
    (lambda x, y: x + (2 - y), "x + (1 - y)"),
    (lambda x, y: x * (y**2 - 3), "x * (y ** 2 - 1)"),
    (lambda x, y: x + y / 3, "x + y / 5"),
    # Arguments without a name, and a function that its module has not
    (lambda x, y: x + F.leaky_relu(y, 0.2), "x + ops.leaky_relu(y, 0.3)"),
    (lambda x, y: x + F.leaky_relu(y, 0.2), "x + layers.LeakyReLU(0.3)(y)"),
    (lambda x, y: x + F.elu(y, 0.5), "x + keras.activations.elu(y, 0.9)"),
    (lambda x, y: torch.cat([x, y], 1), "layers.Concatenate(1)([x, y])"),
    (lambda x, y: x + y.softmax(1), "x + layers.Softmax(1)(y)"),
    (lambda x, y: x + F.batch_norm(y, *_NORM), "x + layers.BatchNormalization(-1, 0.9, 1.0)(y)"),
    (lambda x, y: x + y.exp(), "x + keras.activations.tanh(y)"),
    # A name that is given twice, and a layer that stands in a loop
    (lambda x, y: F.silu(F.silu(x + y)), "y\n    y = x + y" + _LOOP.format("layers.Activation('relu')(y)")),
)
"""What PyTorch computes of the results of two convolutions, and what Keras does instead."""

COMMENTED: tuple[tuple[Callable[[Any, Any], Any], str], ...] = (
    (lambda x, y: (x + 1) * y * 0.5, "y\n    k = 0.25\n    return keras.Model(i, (x + 1) * y * k)"),
    (lambda x, y: x + F.silu(y), "x + ops.relu(x=y)"),
    (lambda x, y: x + y + F.max_pool2d(y.relu(), 3, 1, 1), "x + y + layers.MaxPooling2D(3, 1, 'same')(y)"),
    (lambda x, y: F.max_pool2d(x + y, 3, 2), "layers.MaxPooling2D(2)(x + y)"),
    (lambda x, y: x + F.elu(y, 0.5), "x + layers.Activation('elu')(y)"),
    (lambda x, y: F.leaky_relu(F.leaky_relu(x + y, 0.2) - 1, 0.3) - 1,
     "y\n    y = x + y" + _LOOP.format("ops.leaky_relu(y, 0.3) - 1")),
    (lambda x, y: F.relu(x * y) + torch.tanh(x * y),
     "y\n    h = ops.relu(x * y)\n    return keras.Model(i, h + ops.tanh(y))"),
)  # fmt: skip
"""The same, where no expression is sure to be the one."""


def check(folder: Path) -> None:
    """Every case, and layers that apply their activation themselves."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        one, two = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
    images = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)

    class Net(nn.Module):
        def __init__(self, how: Callable[[Any, Any], Any]) -> None:
            super().__init__()
            self.one, self.two, self.how = one, two, how

        def forward(self, x: Any) -> Any:
            x = self.one(x)
            return self.how(x, self.two(x))

    def made(text: str) -> Any:
        model = loaded(folder, text)
        for name, source in (("one", one), ("two", two)):
            carry(model.get_layer(name), source)
        return model

    def fixed(how: Callable[[Any, Any], Any], text: str) -> tuple[Any, str]:
        """Whether the patched file computes the same; None where there is no patch; and what was found."""
        a = Net(how).eval()
        found = ag.compare(a, made(text), images)
        fixes = [x.fix for d in found.divergences for x in d.findings]
        if not all(x.startswith("--- ") for x in fixes):
            return None, str(found)
        return bool(fixes) and ag.compare(a, made(patched(text, fixes)), images).same, "\n".join([str(found), *fixes])

    for wanted, cases in ((True, PATCHED), (None, COMMENTED)):
        for how, what in cases:
            text = f"{_HEAD}    y = {what}" if "return" in what else f"{_HEAD}    return keras.Model(i, {what})\n"
            same, said = fixed(how, text)
            assert same is wanted, said
    active = _HEAD.replace('name="two")', 'activation="relu", name="two")') + "    return keras.Model(i, x + y)\n"
    same, said = fixed(lambda x, y: x + y, active)
    assert same, said
    same, said = fixed(lambda x, y: x + F.relu(y + x), active)
    assert same is None, said
    looped = f"{_HEAD}    y = x + y{_LOOP.format('ops.leaky_relu(y, 0.3) - 1')}"
    second = Net(lambda x, y: F.leaky_relu(F.leaky_relu(x + y, 0.3) - 1, 0.2) - 1).eval()
    place = ag.compare(second, made(looped), images).divergences[0].findings[0].place_b
    assert "leaky_relu(y" in looped.split("\n")[int(place.rpartition(":")[2]) - 1], place
    del sys.modules["network"]
