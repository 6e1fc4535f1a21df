"""Keras models written as torch source are trained as their sources: gradients, statistics of batch norms, dropouts.

In one process with torch, which only Keras' engine torch allows. Both compute in float32: a gradient may be off by the
roundings of a sum of 288 products of the size of the largest gradient; a bias before a batch norm has nothing but
roundings.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import torch
from keras import layers as kl

import agnostic as ag
from agnostic_keras.weights import _variables
from tests.port.training import weighted

TOLERANCE = 288 * 2.0**-24


def model() -> keras.Model:
    """Blocks by names, a shared layer, SAME with strides, dropouts, several norms, a gate without gradients."""
    x = keras.Input((None, None, 3), name="image")
    y = kl.Conv2D(8, 3, 2, padding="same", use_bias=False, name="stem")(x)
    y = kl.ReLU(6.0)(kl.BatchNormalization(momentum=0.9, name="stem_bn")(y))
    for block in ("stage_1", "stage_2"):
        z = kl.SeparableConv2D(8, 3, padding="same", name=f"{block}_conv")(y)
        z = kl.BatchNormalization(scale=False, name=f"{block}_bn")(z)
        z = kl.Dropout(0.3, noise_shape=(None, 1, 1, 1), name=f"{block}_drop")(z)
        y = kl.PReLU(shared_axes=[1, 2], name=f"{block}_act")(kl.Add()([y, z]))
    shared = kl.Conv2D(8, 3, padding="same", activation="tanh", name="shared")
    y = kl.GroupNormalization(4, name="group")(shared(shared(y)))
    y = kl.LayerNormalization(name="norm")(kl.GlobalAveragePooling2D()(y))
    y = kl.Dropout(0.4)(y * keras.ops.stop_gradient(keras.ops.sigmoid(y)))
    return keras.Model(x, kl.Dense(5, activation="softmax", name="head")(y), name="trained")


@pytest.fixture(scope="module")
def pair() -> tuple[keras.Model, Any, np.ndarray]:
    keras.utils.set_random_seed(0)
    source, generator = model(), np.random.default_rng(0)
    for weight in source.weights:
        low, high = (0.5, 1.5) if weight.name in ("gamma", "moving_variance") else (-0.4, 0.4)
        weight.assign(generator.uniform(low, high, weight.shape))
    x = generator.standard_normal((4, 15, 14, 3)).astype("float32")
    return source, ag.port(source, "torch", x, check=False), x


def test_dropouts_keep_their_rates(pair: Any) -> None:
    source, ported, _ = pair
    rates = sorted(layer.rate for layer in source.layers if isinstance(layer, kl.Dropout))
    found = [
        m for m in ported.model.modules() if isinstance(m, torch.nn.Dropout) or type(m).__name__ == "SharedDropout"
    ]
    assert sorted(m.p for m in found) == rates
    assert sorted(getattr(m, "axes", ()) for m in found) == [(), (0,), (0,)]


@pytest.mark.parametrize("training", [False, True])
def test_gradients_and_statistics_are_the_sources(pair: Any, training: bool) -> None:
    source, ported, x = pair
    known = {name: variable.numpy().copy() for name, variable in _variables(source).items()}
    made = ported.model.train(training)
    for layer in source.layers:
        if isinstance(layer, kl.Dropout):
            layer.rate = 0.0
    for module in made.modules():
        if isinstance(module, torch.nn.Dropout) or type(module).__name__ == "SharedDropout":
            module.p = 0.0

    def like(numbers: Any, y: Any) -> Any:
        return torch.as_tensor(numbers, dtype=y.dtype)

    for variable in source.trainable_variables:
        variable.value.grad = None
    weighted([source(x, training=training)], like).backward()
    weighted([made(torch.from_numpy(x).permute(0, 3, 1, 2))], like).backward()
    grads = {
        name: variable.value.grad.numpy() if variable.trainable else variable.numpy()
        for name, variable in _variables(source).items()
    }
    wanted = ported.report.draft.arrays(grads)
    counts = {"stem_bn": 4 * 8 * 7, "stage_1_bn": 4 * 8 * 7, "stage_2_bn": 4 * 8 * 7}
    before = ported.report.draft.arrays(known)
    own = {**dict(made.named_parameters()), **dict(made.named_buffers())}
    largest = max(np.abs(want).max() for want in wanted.values())
    checked = 0
    for path, want in wanted.items():
        found = own[path.replace("/", ".")]
        value = (found.grad if isinstance(found, torch.nn.Parameter) else found).numpy()
        if training and path.endswith("running_var"):
            # Keras divides the variance that it keeps by n, torch by n - 1.
            kept = 0.9 if "stem" in path else 0.99
            owner = ported.weights[path].rpartition(".")[0]
            share = (counts[owner] - 1) / counts[owner]
            value = kept * before[path] + (value - kept * before[path]) * share
        np.testing.assert_allclose(value, want, rtol=0, atol=TOLERANCE * largest, err_msg=path)
        checked += 1
    assert checked == len(source.weights)
    for name, variable in _variables(source).items():
        variable.assign(known[name])
    made.load_state_dict({**made.state_dict(), **{k.replace("/", "."): torch.from_numpy(v) for k, v in before.items()}})
    made.zero_grad()
