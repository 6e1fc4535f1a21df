"""Several Keras models as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from agnostic.models.cards import Preprocessing
from agnostic_keras.ops import KerasOps


class _Prepared(keras.layers.Layer):
    """Images in [0, 1] in the range of a model."""

    def __init__(self, preprocessing: Preprocessing, axes: str, **options: Any) -> None:
        super().__init__(**options)
        self._preprocessing, self._axes = preprocessing, axes

    def call(self, images: Any) -> Any:
        """The same images."""
        last = keras.ops.transpose(images, [self._axes.index(axis) for axis in "NHWC"])
        found = self._preprocessing.apply(KerasOps(), last)
        return keras.ops.transpose(found, ["NHWC".index(axis) for axis in self._axes])

    def compute_output_shape(self, input_shape: Any) -> Any:
        """That of the images."""
        return input_shape


def ensemble(
    members: Sequence[keras.Model], preprocessing: Sequence[Preprocessing | None], axes: str, channels: int
) -> keras.Model:
    """See :meth:`agnostic.contracts.ensembles.Ensembles.ensemble`."""
    images = keras.Input(tuple(channels if axis == "C" else None for axis in axes[1:]))
    outputs = [
        member(images if own is None else _Prepared(own, axes, name=f"prepared_{number}")(images))
        for number, (member, own) in enumerate(zip(members, preprocessing, strict=True))
    ]
    alike = all(hasattr(x, "shape") for x in outputs) and len({tuple(x.shape) for x in outputs}) == 1
    return keras.Model(images, keras.layers.average(outputs) if alike else outputs)
