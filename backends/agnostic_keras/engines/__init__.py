"""What the engines of Keras do differently: gradients, compilation, the loop. One module each, the same functions."""

from __future__ import annotations

import functools
import importlib
from types import ModuleType

import keras

from agnostic.errors import InvalidInput

NAMES = ("torch", "jax", "tensorflow")


@functools.cache
def current() -> ModuleType:
    """The module of the engine that Keras runs on in this process."""
    name = keras.config.backend()
    if name not in NAMES:
        raise InvalidInput(
            f"Keras runs on {name!r} here, which cannot differentiate: set KERAS_BACKEND to {', '.join(NAMES)} "
            "before keras is imported"
        )
    return importlib.import_module(f"{__name__}.{name}")
