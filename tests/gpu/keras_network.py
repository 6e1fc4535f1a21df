"""A small network of Keras, for the checks and for the command."""

from __future__ import annotations

import keras
from keras import layers as kl


def make() -> keras.Model:
    """Convolutions and a dense head, the same every time."""
    keras.utils.set_random_seed(0)
    return keras.Sequential([
        keras.Input((24, 24, 3)), kl.Conv2D(8, 3, padding="same", activation="relu", name="stem"),
        kl.Conv2D(8, 3, strides=2, name="conv"), kl.GlobalAveragePooling2D(name="pool"), kl.Dense(5, name="head"),
    ])  # fmt: skip
