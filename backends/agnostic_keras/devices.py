"""Where models of Keras lie and run: see :mod:`agnostic.contracts.devices`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import keras

from agnostic.errors import InvalidInput


@contextmanager
def on_device(name: str) -> Iterator[Callable[[keras.Layer], keras.Layer]]:
    """See :meth:`agnostic.contracts.devices.Devices.on_device`. What is built inside lies there already."""
    with keras.device(usable_device(name)):
        yield lambda model: model


def usable_device(name: str) -> str:
    """The device of that name by the name that the engine uses: ``cuda`` and ``gpu`` are one thing.

    Raises:
        InvalidInput: the engine knows no such device, or this machine or this build of the engine has none.
    """
    kind, colon, number = name.partition(":")
    if kind in ("cuda", "gpu"):
        kind = "cuda" if keras.config.backend() == "torch" else "gpu"
    reason = ""
    try:
        with keras.device(kind + colon + number):
            keras.ops.convert_to_numpy(keras.ops.zeros(()))
        # TensorFlow computes elsewhere, without a word, where there is no such device.
        if kind == "gpu" and f"gpu:{number or 0}" not in (there := keras.distribution.list_devices()):
            reason = f"there are {', '.join(there)}"
    except (RuntimeError, ValueError, AssertionError, NotImplementedError) as error:  # by engine and build
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
    if reason:
        raise InvalidInput(f"the device {name!r} cannot be used ({reason}): leave device out, or give 'cpu'")
    return kind + colon + number
