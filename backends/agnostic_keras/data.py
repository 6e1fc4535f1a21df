"""Data for Keras: rows and sequences of tensors of its engines, and images resized.

Frameworks are imported by the functions that need them: whoever has jax alone needs no Keras.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from agnostic.data.sequences import Ragged, pad_sequences
from agnostic.errors import InvalidInput
from agnostic.text import type_named


def take(array: Any, order: npt.NDArray[np.int64]) -> Any:
    """See :meth:`agnostic.contracts.data.Data.take`; of a tensorflow tensor or a jax array."""
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is not None and isinstance(array, tensorflow.Tensor):
        return tensorflow.gather(array, order)
    return array[order]


def pad_rows(
    rows: Sequence[Any], maxlen: int | None, dtype: Any, padding: str, truncating: str, value: Any
) -> npt.NDArray[Any]:
    """See :meth:`agnostic.contracts.data.Data.pad_rows`: NumPy, as ``keras.utils.pad_sequences`` returns."""
    found: npt.NDArray[Any] = pad_sequences(
        [np.asarray(row) for row in rows], maxlen, dtype, padding, truncating, value
    )
    return found


def pad_ragged(
    values: Any,
    lengths: npt.NDArray[np.int64],
    maxlen: int | None,
    dtype: Any,
    padding: str,
    truncating: str,
    value: Any,
) -> npt.NDArray[Any]:
    """See :meth:`agnostic.contracts.data.Data.pad_ragged`: NumPy, as ``keras.utils.pad_sequences`` returns."""
    ragged = Ragged(np.asarray(values), lengths)
    found: npt.NDArray[Any] = pad_sequences(ragged, maxlen, dtype, padding, truncating, value)
    return found


def resize(pixels: npt.NDArray[np.uint8], size: tuple[int, int], interpolation: str) -> npt.NDArray[np.uint8]:
    """See :meth:`agnostic.contracts.data.Data.resize`; rounded to the nearest, halves to even."""
    import keras

    image = (pixels if pixels.ndim == 3 else pixels[:, :, None]).astype(np.float32)
    resized = keras.ops.image.resize(
        image, size, interpolation=interpolation, antialias=True, data_format="channels_last"
    )
    out: npt.NDArray[np.uint8] = np.rint(keras.ops.convert_to_numpy(resized)).clip(0, 255).astype(np.uint8)
    return out if pixels.ndim == 3 else out[:, :, 0]


def check_transform(transform: Any) -> None:
    """See :meth:`agnostic.contracts.data.Data.check_transform`: the random state of a layer cannot be set per image."""
    raise InvalidInput(
        f"augmentation is {type_named(transform)}, and modules of its framework cannot be seeded for each image; "
        "wrap it in a function (image, *, seed, epoch, index), or give an agnostic Augmentation"
    )


def transform_image(transform: Any, image: npt.NDArray[Any], draws: int) -> npt.NDArray[Any]:
    """See :meth:`agnostic.contracts.data.Data.transform_image`."""
    check_transform(transform)
    return image
