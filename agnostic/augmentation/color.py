"""Colour changes: those of Keras' legacy class to the last bit, and the one linear map of the modern form."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from agnostic.augmentation.pictures import stretched


def channel_shift(image: npt.NDArray[Any], intensity: float) -> npt.NDArray[Any]:
    """Add one number to all channels and clip to the range that the image had: Keras' channel shift."""
    return np.clip(image + intensity, image.min(), image.max())


def brightness(image: npt.NDArray[Any], factor: float) -> npt.NDArray[np.float32]:
    """Keras' brightness: the values are truncated to 8 bits, multiplied, and truncated again.

    An image that leaves [0, 255] is spread over it before, and brought back afterwards. The alpha channel of four
    keeps its brightness.

    Args:
        image: (H, W, C).
        factor: 0 is black, 1 changes nothing but the truncation.

    Returns:
        (H, W, C) float32.
    """
    pixels = np.asarray(image, np.float32)
    low, high = image.min(), image.max()
    leaves = low < 0 or high > 255
    levels = (stretched(pixels) if leaves else pixels).astype(np.uint8)
    # Pillow multiplies 8-bit values by a float32 factor, clips, and truncates.
    table = np.clip(np.arange(256, dtype=np.float32) * np.float32(factor), 0, 255).astype(np.uint8).astype(np.float32)
    result = table[levels]
    if levels.shape[-1] == 4:
        result[..., 3] = levels[..., 3]
    return np.asarray(result / 255 * (high - low) + low if leaves else result)


def linear(gain: Any, contrast: Any, offset: Any, mean: Any) -> tuple[Any, Any]:
    """The slope and the intercept of ``(gain x - m) contrast + m + offset``, with ``m`` the mean of ``gain x``.

    Brightness, contrast about the mean, and channel shift are thereby one multiplication and one addition a pixel.

    Args:
        gain: factor of brightness, a number or an array of any framework; the others broadcast with it.
        contrast: factor of the distance from the mean.
        offset: what is added to each channel.
        mean: the mean of each image before any of this.
    """
    return gain * contrast, (1 - contrast) * gain * mean + offset
