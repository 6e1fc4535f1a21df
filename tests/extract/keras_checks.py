"""Run on engines of Keras: its models, and its data sets."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import agnostic as ag
from tests.extract.killing import content

IMAGES = np.random.default_rng(0).integers(0, 256, (11, 9, 9, 3), np.uint8)
LABELS = np.arange(11) % 3


def network() -> Any:
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((9, 9, 3))
    x = keras.layers.Conv2D(4, 3, name="conv")(x)
    shared = keras.layers.ReLU(name="act")
    x = shared(keras.layers.BatchNormalization(name="norm")(shared(x)))
    x = keras.layers.Dropout(0.5, name="drop")(x)
    return keras.Model(inputs, keras.layers.Dense(2, name="head")(keras.layers.GlobalAveragePooling2D(name="pool")(x)))


def test_what_is_stored_is_what_layers_return(tmp_path: Path) -> None:
    model = network()
    store = ag.extract(
        model,
        IMAGES,
        ["conv", "act", "head"],
        tmp_path / "a.zarr",
        reduce=["values", "mean", "max"],
        batch_size=4,
        shard=4,
    )
    expected = ag.capture(model, ag.prepare(model, IMAGES), ["conv", "act", "head"]).numpy()
    # Compiled, and in other batches: sums of 27 and 4 products, and of 49 positions, in another order.
    close = {"rtol": 1e-5, "atol": 1e-5}
    assert list(store) == ["conv", "act", "act#1", "head"]
    np.testing.assert_allclose(store["conv"]["values"], expected["conv"], **close)
    np.testing.assert_allclose(store["act#1"]["values"], expected.calls("act")[1], **close)
    np.testing.assert_allclose(store["conv"]["mean"], expected["conv"].mean((1, 2)), **close)
    np.testing.assert_array_equal(store["conv"]["max"], np.asarray(store["conv"]["values"]).max((1, 2)))
    places = np.asarray(store["conv"]["max_place"])
    values = np.asarray(store["conv"]["values"])
    found = values[np.arange(11)[:, None], places[..., 0], places[..., 1], np.arange(4)]
    np.testing.assert_array_equal(found, store["conv"]["max"])
    np.testing.assert_allclose(store["head"]["mean"], expected["head"], **close)


class Counted(keras.layers.Layer):  # type: ignore[misc]
    """Counts how often its code runs."""

    ran = 0

    def call(self, x: Any) -> Any:
        type(self).ran += 1
        return 2 * x


def test_the_trace_of_a_run_lists_the_layers(tmp_path: Path) -> None:
    inputs = keras.Input((9, 9, 3))
    x = keras.layers.Conv2D(4, 3, name="conv")(inputs)
    model = keras.Model(inputs, keras.layers.Flatten(name="flat")(Counted(name="twice")(x)))
    Counted.ran = 0
    store = ag.extract(model, IMAGES[:8], ["conv", "twice", "flat"], tmp_path / "a.zarr", batch_size=4)
    # One trace where an engine compiles, else a run for each batch.
    assert Counted.ran == (2 if os.environ["AGNOSTIC_TEST_ENGINE"] == "torch" else 1)
    listed = {x.name: x for x in ag.layers(model)}
    assert {key: (x.kind, x.axes) for key, x in store.header.layers.items()} == {
        key: (listed[key].kind, listed[key].axes) for key in store
    }


def test_layers_may_compute_in_bfloat16(tmp_path: Path) -> None:
    model = network()
    store = ag.extract(model, IMAGES, "conv", tmp_path / "a.zarr", compute="bfloat16")
    assert {x.compute_dtype for x in model.layers} == {"float32"}
    expected = ag.capture(model, ag.prepare(model, IMAGES), "conv").numpy()["conv"]
    error = np.abs(np.asarray(store["conv"]["values"]) - expected).max() / np.abs(expected).max()
    # 27 products of numbers that are rounded to 8 bits, a half of the last place each, and their sum.
    assert 1e-5 < error < 2 * 2.0**-8


def test_a_run_that_stopped_goes_on(tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"reduce": ["mean", "covariance"], "batch_size": 4, "shard": 4}
    model, left = network(), [6]

    def progress(steps: int, total: int | None) -> None:
        left[0] -= steps
        if left[0] < 0:
            raise InterruptedError

    ag.extract(model, IMAGES, "conv", tmp_path / "whole.zarr", **arguments)
    with pytest.raises(InterruptedError):
        ag.extract(model, IMAGES, "conv", tmp_path / "a.zarr", progress=progress, **arguments)
    ag.extract(model, IMAGES, "conv", tmp_path / "a.zarr", **arguments)
    assert content(tmp_path / "a.zarr") == content(tmp_path / "whole.zarr")


def test_weights_may_change_between_runs(tmp_path: Path) -> None:
    model = network()
    one = ag.extract(model, IMAGES, "conv", tmp_path / "1.zarr", reduce="mean")
    model.get_layer("conv").bias.assign_add(np.ones(4))
    other = ag.extract(model, IMAGES, "conv", tmp_path / "2.zarr", reduce="mean")
    np.testing.assert_allclose(np.asarray(other["conv"]["mean"]) - one["conv"]["mean"], 1, rtol=1e-5)


class Batches(keras.utils.PyDataset):
    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Any:
        rows = slice(4 * index, 4 * index + 4)
        return IMAGES[rows], LABELS[rows]


def test_data_sets_of_keras_and_tensorflow(tmp_path: Path) -> None:
    model = network()
    expected = ag.extract(model, IMAGES, "conv", tmp_path / "a.zarr", reduce="mean", batch_size=4)["conv"]["mean"]
    given = {"batches": Batches()}
    if os.environ["AGNOSTIC_TEST_ENGINE"] == "tensorflow":
        import tensorflow as tf

        rows = tf.data.Dataset.from_tensor_slices((IMAGES, LABELS))
        given |= {"tf.data": rows, "tf.data in batches": rows.batch(3)}
    for name, dataset in given.items():
        store = ag.extract(model, dataset, "conv", tmp_path / f"{name}.zarr", reduce="mean", batch_size=4)
        np.testing.assert_allclose(store["conv"]["mean"], expected, rtol=1e-5, atol=1e-6)
        assert store.labels is not None
        assert store.labels.tolist() == LABELS.tolist()
