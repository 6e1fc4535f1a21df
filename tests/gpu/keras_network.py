"""A small network of Keras, for the checks and for the command."""

from __future__ import annotations

import keras
import numpy as np
from keras import layers as kl


def make() -> keras.Model:
    """Convolutions and a dense head with the same weights every time: an engine's own draws differ by the device."""
    model = keras.Sequential([
        keras.Input((24, 24, 3)), kl.Conv2D(8, 3, padding="same", activation="relu", name="stem"),
        kl.Conv2D(8, 3, strides=2, name="conv"), kl.GlobalAveragePooling2D(name="pool"), kl.Dense(5, name="head"),
    ])  # fmt: skip
    draws = np.random.default_rng(0)
    model.set_weights([draws.standard_normal(w.shape, np.float32) * 0.1 for w in model.get_weights()])
    return model
