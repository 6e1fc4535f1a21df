"""Activations as pictures: one tile a channel."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from agnostic.errors import InvalidInput, NonFinite
from agnostic.visualization.colormap import colorize

_PERCENTILES = (1.0, 99.0)
_TILE = 96
"""Tiles are enlarged by a whole number, until they have at least this many pixels on their longer side."""


def tiles(activation: npt.NDArray[Any], axes: str, channels: npt.ArrayLike, *, layer: str) -> npt.NDArray[np.uint8]:
    """Each channel as an image of its own, from its own first to its own 99th percentile.

    Args:
        activation: the output of a layer for one image.
        axes: one letter per dimension: C, H, W, and N of length one, as in ``"NCHW"``.
        channels: which ones, in this order.
        layer: what to call it in an error.

    Returns:
        (number of channels, height, width, 3): dark is low, bright is high; a constant channel is dark. Small ones are
        enlarged by a whole number, pixel by pixel.

    Raises:
        InvalidInput: the axes are not those of one image.
        NonFinite: a channel holds NaN or infinity.
    """
    if sorted(axes) not in (sorted("NCHW"), sorted("CHW")) or ("N" in axes and activation.shape[axes.index("N")] != 1):
        raise InvalidInput(
            f"layer {layer!r} is drawn for one image with height and width, not {axes}{activation.shape}"
        )
    order = [axes.index(letter) for letter in ("N" * ("N" in axes) + "CHW")]
    maps = np.transpose(activation, order).reshape(-1, *(activation.shape[i] for i in order[-2:]))
    maps = maps[np.asarray(channels)].astype(np.float64)
    finite = np.isfinite(maps).all(axis=(1, 2))
    if not finite.all():
        raise NonFinite(
            f"channel {np.asarray(channels)[~finite][0]} of layer {layer!r} holds NaN or infinity: "
            "check the model's weights and the range of its input"
        )
    low, high = np.percentile(maps, _PERCENTILES, axis=(1, 2), keepdims=True)
    # A channel that answers in less than one place of a hundred is all but constant between the percentiles.
    sparse = high <= low
    low = np.where(sparse, maps.min(axis=(1, 2), keepdims=True), low)
    high = np.where(sparse, maps.max(axis=(1, 2), keepdims=True), high)
    span = np.where(high > low, high - low, 1.0)
    factor = -(-_TILE // max(maps.shape[1:]))
    return np.repeat(np.repeat(colorize((maps - low) / span), factor, axis=1), factor, axis=2)
