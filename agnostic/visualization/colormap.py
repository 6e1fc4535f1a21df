"""Numbers as colours: one map, even to the eye, computed from a few points."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt

# Chroma and hue (degrees) in OKLCh at even steps of lightness: violet, blue, teal, green, yellow. The chroma stays
# inside of what sRGB can show at each step.
_LIGHTNESS = (0.22, 0.96)
_CHROMA = (0.07, 0.13, 0.128, 0.094, 0.095, 0.124, 0.165, 0.185, 0.16)
_HUE = (302, 293, 272, 235, 195, 165, 145, 125, 108)

# From OKLab to the cone responses (to be cubed), and from those to linear sRGB.
# Source: Björn Ottosson, "A perceptual color space for image processing", 2020.
_TO_CONES = np.array(
    [
        [1.0, 0.3963377774, 0.2158037573],
        [1.0, -0.1055613458, -0.0638541728],
        [1.0, -0.0894841775, -1.2914855480],
    ]
)
_TO_LINEAR = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)


@functools.cache
def table() -> npt.NDArray[np.uint8]:
    """(256, 3) sRGB, from dark violet to light yellow, of evenly rising lightness."""
    position, points = np.linspace(0, 1, 256), np.linspace(0, 1, len(_HUE))
    chroma, hue = np.interp(position, points, _CHROMA), np.radians(np.interp(position, points, _HUE))
    lightness = np.interp(position, (0, 1), _LIGHTNESS)
    lab = np.stack([lightness, chroma * np.cos(hue), chroma * np.sin(hue)], axis=1)
    linear = ((lab @ _TO_CONES.T) ** 3 @ _TO_LINEAR.T).clip(0, 1)
    # The transfer curve of sRGB (IEC 61966-2-1).
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    colors: npt.NDArray[np.uint8] = np.rint(encoded * 255).astype(np.uint8)
    colors.setflags(write=False)
    return colors


def colorize(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Values in [0, 1], of any shape, as (..., 3) sRGB; what is outside is clipped."""
    colors: npt.NDArray[np.uint8] = table()[np.rint(np.clip(values, 0, 1) * 255).astype(np.intp)]
    return colors
