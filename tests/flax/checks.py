"""Run where agnostic-flax is registered: a framework that agnostic has never heard of is looked into."""

from __future__ import annotations

import flax.nnx as nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import agnostic as ag
from agnostic.testing import Subject, run


class Net(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.conv = nnx.Conv(3, 4, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.last = nnx.Conv(4, 6, (3, 3), rngs=rngs)
        self.dense = nnx.Linear(6, 5, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = jnp.tanh(self.norm(self.conv(x)))
        return self.dense(self.last(x).mean((1, 2)))


def net() -> Net:
    model = Net(nnx.Rngs(0))
    model.eval()
    return model


def test_it_conforms() -> None:
    subject = Subject("flax", net, layer="conv", recipes=("classic", "fourier"))
    names = ["layers", "inputs", "taps", "ops", "ascent"]
    assert run(subject, names) == []


def test_layers_are_captured_and_drawn() -> None:
    model = net()
    assert ag.backend_of(model).name == "flax"
    assert [layer.name for layer in ag.layers(model)][:2] == ["conv", "norm"]
    x = np.random.default_rng(0).random((2, 8, 8, 3), np.float32)
    assert np.allclose(ag.capture(model, x, "kind:Linear").numpy()["dense"], model(x), atol=1e-6)
    images = ag.visualize(model, ag.objectives.logit([0, 1]), recipe="fourier", size=16, steps=6)
    assert (images.scores[-1] > images.scores[0]).all()


def test_what_it_does_not_do_is_said() -> None:
    with pytest.raises(ag.InvalidInput, match="the backend 'flax' cannot build optimizers"):
        ag.optimizers.groups(net(), {})
