"""Augmentation in models and data of Keras, on the engine of this process; test_augmentation.py runs this file."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from agnostic.augmentation import Augmentation, ImageDataGenerator

RANDOM = Augmentation(rotation=(-40, 40), zoom=(0.8, 1.2), brightness=(0.5, 1.5), horizontal_flip=0.5)
IMAGES = np.random.default_rng(0).uniform(0, 1, (8, 12, 10, 3)).astype("float32")


def network(layer: keras.Layer) -> keras.Model:
    model = keras.Sequential([keras.Input((12, 10, 3)), layer, keras.layers.Flatten(), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


def test_a_layer_in_a_model_that_is_trained_saved_and_loaded(tmp_path):
    layer = RANDOM.keras_layer(seed=3)
    model = network(layer)
    model.fit(IMAGES, np.zeros(8), batch_size=4, epochs=2, shuffle=False, verbose=0)
    assert int(layer.seen) == 16
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(layer(keras.ops.convert_to_tensor(IMAGES))), IMAGES)
    model.save(tmp_path / "model.keras")
    assert keras.saving.load_model(tmp_path / "model.keras").layers[0].augmentation == RANDOM


def test_a_layer_computes_what_the_call_does():
    got = RANDOM.keras_layer(seed=3)(keras.ops.convert_to_tensor(IMAGES), training=True)
    # Two sides, each within 0.01 of 255 before a brightness of up to 1.5.
    assert np.abs(keras.ops.convert_to_numpy(got) - RANDOM(IMAGES, seed=3)).max() <= 2 * 0.01 / 255 * 1.5


@pytest.mark.parametrize("shape", [(3, 16, 16), (16, 16)])
def test_a_layout_that_is_not_said_is_refused(shape):
    with pytest.raises(ValueError, match=r"layout|four axes"):
        keras.Sequential([keras.Input(shape), RANDOM.keras_layer(seed=3)])


def test_channels_first():
    first = keras.Sequential([keras.Input((3, 16, 16)), RANDOM.keras_layer(seed=3, layout="NCHW")])
    assert first.output_shape[1:] == (3, 16, 16)


def test_a_model_is_trained_on_a_flow():
    flow = ImageDataGenerator(rotation_range=10).flow(IMAGES, np.zeros(8), batch_size=4, seed=0)
    assert isinstance(flow, keras.utils.PyDataset)
    network(keras.layers.Identity()).fit(flow, epochs=2, verbose=0)
    assert flow.total_batches_seen >= 4


@pytest.mark.skipif(keras.config.backend() != "tensorflow", reason="of tensorflow")
def test_tensors_and_datasets_of_tensorflow():
    import tensorflow as tf

    expected = RANDOM(IMAGES, seed=3)
    native = RANDOM(tf.constant(IMAGES), seed=3)
    assert isinstance(native, tf.Tensor)
    np.testing.assert_array_equal(native.numpy(), expected)
    data = tf.data.Dataset.from_tensor_slices(IMAGES).enumerate()
    data = data.map(RANDOM.tensorflow_map(seed=3), num_parallel_calls=2).batch(8)
    np.testing.assert_array_equal(next(iter(data)).numpy(), expected)
