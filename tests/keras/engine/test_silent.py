"""Objectives without a gradient are told, on the engine of this process, as they are in PyTorch."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers as kl

import agnostic as ag


@keras.saving.register_keras_serializable("agnostic-tests")
class Cut(keras.Layer):
    """Passes values on, and no gradient: by stop_gradient, or by rounding."""

    def __init__(self, how: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.how = how

    def call(self, x: Any) -> Any:
        return keras.ops.stop_gradient(x) if self.how == "stop" else keras.ops.round(x * 8) / 8


def model(cut: str | None = None) -> keras.Model:
    """Channel 1 of ``conv`` has no weights, channel 1 of ``relu`` is off besides."""
    x = keras.Input((16, 16, 3))
    y = x if cut is None else Cut(cut, name="cut")(x)
    y = kl.ReLU(name="relu")(kl.Conv2D(4, 3, name="conv")(y))
    made = keras.Model(x, kl.Dense(3, name="dense")(kl.GlobalAveragePooling2D(name="mean")(y)))
    kernel = np.random.default_rng(0).normal(0, 0.1, (3, 3, 3, 4))
    kernel[..., 1] = 0
    made.get_layer("conv").set_weights([kernel, np.array([1.0, -1, 1, 1])])
    return made


channel = ag.objectives.channel


def draw(network: keras.Model, objective: Any, **options: Any) -> Any:
    return ag.visualize(network, objective, **{"recipe": "fourier", "size": 16, "steps": 3, **options})


@pytest.mark.parametrize("cut", ["stop", "round"])
def test_a_cut_path_is_one_sentence(cut: str) -> None:
    for objective in (channel("relu", [0, 2]), ag.objectives.logit(1) - 0.1 * ag.objectives.total_variation()):
        with pytest.raises(ag.InvalidInput, match=r"no gradient reaches .*'.*', so (it|they) stay") as caught:
            draw(model(cut), objective)
        assert "\n" not in str(caught.value)


def test_a_dead_channel_among_others_has_a_remark() -> None:
    for layer in ("relu", "conv"):
        images = draw(model(), channel(layer, [0, 1, 2]), micro_batch=1)
        assert [bool(remark) for remark in images.remarks] == [False, True, False]
        assert repr(f"{layer}:1") in images.remarks[1]
        with pytest.raises(ag.InvalidInput, match=f"'{layer}:1'"):
            draw(model(), channel(layer, 1), recipe="classic")


def test_a_silent_part_of_a_sum_has_a_remark() -> None:
    objective = channel("relu", [0, 1]) - 0.5 * (channel("conv", 2) + channel("conv", 3))
    other, silent = draw(model(), objective - ag.objectives.total_variation(), micro_batch=1).remarks
    assert other == ""
    assert "the part 'relu:1' does nothing" in silent
