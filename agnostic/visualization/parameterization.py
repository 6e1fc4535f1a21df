"""How an image is written down while it is optimized: as pixels, as a scaled spectrum, or as the phase of one.

Each parameterization says how the parameters start (NumPy float64, from a generator), which arrays it needs at every
step, and how parameters become an image (over Ops, so that every backend differentiates the same function).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from agnostic.ops import Array, Ops

Float64 = npt.NDArray[np.float64]

# The square root of the covariance of natural images' colours, measured on ImageNet by the authors of Lucid
# (lucid/optvis/param/color.py, Apache-2.0).
_COLOUR_COVARIANCE_ROOT = np.array([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]])
COLOUR_CORRELATION: Float64 = _COLOUR_COVARIANCE_ROOT / np.linalg.norm(_COLOUR_COVARIANCE_ROOT, axis=0).max()
"""(3, 3): maps decorrelated colours to correlated ones, ``rgb = matrix @ decorrelated``; its longest column is 1."""


class Parameterization(Protocol):
    """What :class:`agnostic.visualization.ascent.Ascent` asks of a parameterization."""

    @property
    def white(self) -> float:
        """The value of a white pixel in :meth:`image`: 1.0 or 255.0."""

    def initial(self, rng: np.random.Generator, shape: tuple[int, int, int]) -> Float64:
        """The start of one image of (height, width, channels)."""

    def parameters_of(self, image: Float64) -> Float64:
        """The parameters of an image (height, width, channels) in [0, 1]: the inverse of :meth:`image`.

        As near to it as this way of writing an image down can come; see the class.
        """

    def constants(self, shape: tuple[int, int, int]) -> dict[str, Float64]:
        """Arrays that :meth:`image` needs, the same for all images and steps."""

    def image(self, ops: Ops, parameters: Array, constants: Mapping[str, Array], shape: tuple[int, int, int]) -> Array:
        """(images, height, width, channels), in 0..``white`` (pixels may leave the range)."""

    def display(self, ops: Ops, images: Array) -> Array:
        """The finished images, in [0, 1]."""


@dataclass(frozen=True)
class Pixels:
    """The pixels themselves, in 0..255, starting as grey noise; displayed with their own mean and contrast.

    Attributes:
        low, spread: the start is uniform in [low, low + spread).
        contrast: the standard deviation of the displayed image.
        epsilon: added to the standard deviation before dividing.

    Source: Chollet, "Deep Learning with Python", 2017, section 5.4.2, listings 5.38 and 5.39.
    """

    low: float = 128.0
    spread: float = 20.0
    contrast: float = 0.1
    epsilon: float = 1e-5

    @property
    def white(self) -> float:
        return 255.0

    def initial(self, rng: np.random.Generator, shape: tuple[int, int, int]) -> Float64:
        return rng.random(shape) * self.spread + self.low

    def parameters_of(self, image: Float64) -> Float64:
        return image * self.white

    def constants(self, shape: tuple[int, int, int]) -> dict[str, Float64]:
        return {}

    def image(self, ops: Ops, parameters: Array, constants: Mapping[str, Array], shape: tuple[int, int, int]) -> Array:
        return parameters

    def display(self, ops: Ops, images: Array) -> Array:
        axes = (1, 2, 3)
        centred = images - ops.mean(images, axis=axes, keepdims=True)
        deviation = ops.sqrt(ops.mean(ops.square(centred), axis=axes, keepdims=True))
        return ops.clip(centred / (deviation + self.epsilon) * self.contrast + 0.5, 0.0, 1.0)


def frequencies(height: int, width: int) -> Float64:
    """(height, width // 2 + 1): the absolute spatial frequency of each term of ``rfft2``, in cycles a pixel."""
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :]
    return np.asarray(np.sqrt(fy * fy + fx * fx), np.float64)


def _correlated(ops: Ops, images: Array, constants: Mapping[str, Array]) -> Array:
    """Sigmoid of (images, channels, height, width) as channels-last, colours correlated where there are three."""
    images = ops.transpose(images, (0, 2, 3, 1))
    if "colour" in constants:
        images = ops.matmul(images, constants["colour"])
    return ops.sigmoid(images)


def _decorrelated(image: Float64) -> Float64:
    """What :func:`_correlated` makes an image (height, width, channels) of: (channels, height, width).

    Black and white are infinite, and gradients all but vanish on the way there; so values stay within [0.01, 0.99].
    """
    clipped = np.clip(image, 0.01, 0.99)
    values = np.log(clipped / (1 - clipped))
    if image.shape[2] == 3:
        values = values @ np.linalg.inv(COLOUR_CORRELATION.T)
    return np.asarray(np.moveaxis(values, 2, 0), np.float64)


@dataclass(frozen=True)
class Fourier:
    """A spectrum scaled by 1/frequency, so that all scales of an image learn at one rate, in decorrelated colours.

    A start image is taken as it is, but for values below 0.01 and above 0.99: black and white lie at infinity.

    Attributes:
        deviation: standard deviation of the spectrum at the start.
        decay: the power of the frequency that the spectrum is divided by.
        gain: the image before the sigmoid is multiplied by it.

    Source: "Feature Visualization", Distill 2017, section "Preconditioning and Parameterization".
    """

    deviation: float = 0.01
    decay: float = 1.0
    gain: float = 0.25

    @property
    def white(self) -> float:
        return 1.0

    def initial(self, rng: np.random.Generator, shape: tuple[int, int, int]) -> Float64:
        height, width, channels = shape
        return rng.normal(0.0, self.deviation, (2, channels, height, width // 2 + 1))

    def parameters_of(self, image: Float64) -> Float64:
        spectrum = np.fft.rfft2(_decorrelated(image), norm="ortho") / self._scale(*image.shape[:2])
        return np.stack([spectrum.real, spectrum.imag])

    def _scale(self, height: int, width: int) -> Float64:
        lowest = 1.0 / max(height, width)
        return np.asarray(self.gain / np.maximum(frequencies(height, width), lowest) ** self.decay, np.float64)

    def constants(self, shape: tuple[int, int, int]) -> dict[str, Float64]:
        height, width, channels = shape
        constants = {"scale": self._scale(height, width)}
        if channels == 3:
            constants["colour"] = COLOUR_CORRELATION.T
        return constants

    def image(self, ops: Ops, parameters: Array, constants: Mapping[str, Array], shape: tuple[int, int, int]) -> Array:
        spectrum = parameters * constants["scale"]
        return _correlated(ops, ops.irfft2(spectrum[:, 0], spectrum[:, 1], shape[:2]), constants)

    def display(self, ops: Ops, images: Array) -> Array:
        return ops.clip(images, 0.0, 1.0)


@dataclass(frozen=True)
class Phase:
    """The phase of a spectrum whose magnitude is held at that of natural images: no contrast to be gained by noise.

    Of a start image the phase is taken, which holds its edges; contrast and mean are those of the constraint.

    Attributes:
        decay: the magnitude is 1 / frequency ** decay, the law that photographs follow on average (Field, 1987). The
            paper uses the mean spectrum of ImageNet instead, which is not ours to ship.
        contrast: standard deviation of the image before colours and sigmoid.

    Source: Fel et al., "Unlocking Feature Visualization for Deeper Networks with MAgnitude Constrained Optimization",
    NeurIPS 2023, section 3.
    """

    decay: float = 1.0
    contrast: float = 1.0

    @property
    def white(self) -> float:
        return 1.0

    def initial(self, rng: np.random.Generator, shape: tuple[int, int, int]) -> Float64:
        height, width, channels = shape
        return rng.uniform(-np.pi, np.pi, (channels, height, width // 2 + 1))

    def parameters_of(self, image: Float64) -> Float64:
        return np.asarray(np.angle(np.fft.rfft2(_decorrelated(image))), np.float64)

    def constants(self, shape: tuple[int, int, int]) -> dict[str, Float64]:
        height, width, channels = shape
        frequency = frequencies(height, width)
        frequency[0, 0] = np.inf  # the mean is the display's affair
        magnitude = frequency**-self.decay
        weight = np.full(magnitude.shape, 2.0)  # rfft2 holds each of these terms for its mirror image as well
        weight[:, 0] = 1.0
        if width % 2 == 0:
            weight[:, -1] = 1.0
        power = np.sum(weight * magnitude**2) / (height * width)
        constants = {"magnitude": magnitude * (self.contrast / np.sqrt(power))}
        if channels == 3:
            constants["colour"] = COLOUR_CORRELATION.T
        return constants

    def image(self, ops: Ops, parameters: Array, constants: Mapping[str, Array], shape: tuple[int, int, int]) -> Array:
        magnitude = constants["magnitude"]
        image = ops.irfft2(magnitude * ops.cos(parameters), magnitude * ops.sin(parameters), shape[:2])
        return _correlated(ops, image, constants)

    def display(self, ops: Ops, images: Array) -> Array:
        return ops.clip(images, 0.0, 1.0)
