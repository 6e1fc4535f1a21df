"""Colour changes: those of Keras' legacy class to the last bit, and the one linear map of the modern form.

Source: the behaviour of ``keras.src.legacy.preprocessing.image``, and of Pillow's ``ImageEnhance.Brightness``.
"""

from __future__ import annotations

import math
import sys
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from agnostic.augmentation.pictures import stretched
from agnostic.errors import InvalidInput


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
    if low >= 0 and 0 < high <= 1:
        warnings.warn(
            "brightness_range works on values of 0 to 255, which are truncated to whole numbers, and this image has "
            "values of 0 to 1: it becomes black; give images of 0 to 255 and rescale=1 / 255, or use Augmentation",
            stacklevel=_level_outside(),
        )
    leaves = low < 0 or high > 255
    levels = (stretched(pixels) if leaves else pixels).astype(np.uint8)
    # Pillow multiplies 8-bit values by a float32 factor, clips, and truncates.
    table = np.clip(np.arange(256, dtype=np.float32) * np.float32(factor), 0, 255).astype(np.uint8).astype(np.float32)
    result = table[levels]
    if levels.shape[-1] == 4:
        result[..., 3] = levels[..., 3]
    return np.asarray(result / 255 * (high - low) + low if leaves else result)


def _level_outside() -> int:
    """The ``stacklevel`` of whoever called this package."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).startswith("agnostic."):
        level, frame = level + 1, frame.f_back
    return level


def linear(gain: Any, contrast: Any, offset: Any, mean: Any, low: float = 0.0) -> tuple[Any, Any]:
    """The slope and the intercept of ``(gain (x - low) - m) contrast + m + offset + low``, with ``m`` the mean of
    ``gain (x - low)``.

    Brightness, contrast about the mean, and channel shift are thereby one multiplication and one addition a pixel.

    Args:
        gain: factor of brightness, a number or an array of any framework; the others broadcast with it.
        contrast: factor of the distance from the mean.
        offset: what is added to each channel.
        mean: the mean of each image before any of this.
        low: the value of black.
    """
    slope = gain * contrast
    return slope, (1 - contrast) * gain * (mean - low) + offset + (low - slope * low)


def mean(image: npt.NDArray[Any]) -> float:
    """The mean of an image over the values that are numbers: one NaN pixel stays one NaN pixel."""
    found = float(image.mean(dtype=np.float64))
    if not math.isfinite(found):
        known = image[np.isfinite(image)]
        found = float(known.mean(dtype=np.float64)) if known.size else 0.0
    return found


_OVERSHOOT = 0.25
"""By how much of the range values may leave it, as sharp resampling lets them; they are clipped."""


def check_range(lowest: float, highest: float, value_range: tuple[float, float]) -> None:
    """Raise InvalidInput where images are in other units than the range that their values are said to have.

    Args:
        lowest, highest: the least and the largest value of the images; NaN where there is none.
        value_range: (black, white).
    """
    low, high = value_range
    margin = _OVERSHOOT * (high - low)
    if lowest < low - margin or highest > high + margin:
        raise InvalidInput(
            f"images have values from {lowest:.4g} to {highest:.4g}, and brightness, contrast and channel_shift work "
            f"on {low:g} to {high:g} here: give value_range=(low, high) such as (0, 255), or augment before normalizing"
        )


def extent(image: npt.NDArray[Any]) -> tuple[float, float]:
    """The least and the largest value of an image, but for NaN; NaN where there is no other."""
    lowest, highest = float(image.min()), float(image.max())
    if lowest != lowest:
        known = image[~np.isnan(image)]
        return (float(known.min()), float(known.max())) if known.size else (math.nan, math.nan)
    return lowest, highest
