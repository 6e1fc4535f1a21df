"""How an image is written down while it is optimized: pixels, a scaled spectrum, its phase, a pyramid, a small network.

Each parameterization says how the parameters start (NumPy float64, from a generator), which arrays it needs at every
step, and how parameters become an image (over Ops, so that every backend differentiates the same function).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from agnostic import display
from agnostic.errors import InvalidInput
from agnostic.ops import Array, Ops
from agnostic.reference.resampling import resize_matrix

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

    @property
    def enlarged(self) -> int:
        """How many times as high and wide as what the model sees the finished image is."""

    @property
    def alpha(self) -> bool:
        """Whether the last channel of :meth:`image` is how opaque a pixel is, in [0, 1]."""

    @property
    def couples(self) -> bool:
        """Whether an image depends on the parameters of the others, so that all must be computed together."""

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


class Plain(Parameterization, Protocol):
    """What most parameterizations are: opaque images by themselves, in [0, 1] and in the size that the model sees."""

    @property
    def white(self) -> float:
        return 1.0

    @property
    def enlarged(self) -> int:
        return 1

    @property
    def alpha(self) -> bool:
        return False

    @property
    def couples(self) -> bool:
        return False

    def display(self, ops: Ops, images: Array) -> Array:
        return ops.clip(images, 0.0, 1.0)


@dataclass(frozen=True)
class Pixels(Plain):
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


def correlated(ops: Ops, images: Array, constants: Mapping[str, Array]) -> Array:
    """Sigmoid of (images, channels, height, width) as channels-last, colours correlated where there are three."""
    images = ops.transpose(images, (0, 2, 3, 1))
    if "colour" in constants:
        images = ops.matmul(images, constants["colour"])
    return ops.sigmoid(images)


def _decorrelated(image: Float64) -> Float64:
    """What :func:`correlated` makes an image (height, width, channels) of: (channels, height, width).

    Black and white are infinite, and gradients all but vanish on the way there; so values stay within [0.01, 0.99].
    """
    clipped = np.clip(image, 0.01, 0.99)
    values = np.log(clipped / (1 - clipped))
    if image.shape[2] == 3:
        values = values @ np.linalg.inv(COLOUR_CORRELATION.T)
    return np.asarray(np.moveaxis(values, 2, 0), np.float64)


@dataclass(frozen=True)
class Fourier(Plain):
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

    def unbounded(
        self, ops: Ops, parameters: Array, constants: Mapping[str, Array], shape: tuple[int, int, int]
    ) -> Array:
        """(images, channels, height, width) before colours are correlated and bounded by a sigmoid."""
        spectrum = parameters * constants["scale"]
        return ops.irfft2(spectrum[:, 0], spectrum[:, 1], shape[:2])

    def image(self, ops: Ops, parameters: Array, constants: Mapping[str, Array], shape: tuple[int, int, int]) -> Array:
        return correlated(ops, self.unbounded(ops, parameters, constants, shape), constants)


@dataclass(frozen=True)
class Phase(Plain):
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
        return correlated(ops, image, constants)


@dataclass(frozen=True)
class Pyramid(Plain):
    """A sum of images, each half as large as the one before, in decorrelated colours: large shapes learn as fast.

    A start image is taken as it is, as the finest level, but for values below 0.01 and above 0.99.

    Attributes:
        levels: number of images; fewer where the smallest would have less than a pixel.
        deviation: standard deviation of each level at the start.

    Source: Burt, Adelson, "The Laplacian Pyramid as a Compact Image Code", 1983, for the sum of levels; Mordvintsev,
    Olah, Tyka, "Inceptionism", 2015, for ascents on it.
    """

    levels: int = 5
    deviation: float = 0.05

    def _sizes(self, shape: tuple[int, int, int]) -> list[tuple[int, int]]:
        halvings = [2**level for level in range(self.levels) if 2**level <= max(shape[:2])]
        return [(-(-shape[0] // n), -(-shape[1] // n)) for n in halvings]

    def initial(self, rng: np.random.Generator, shape: tuple[int, int, int]) -> Float64:
        return rng.normal(0.0, self.deviation, sum(h * w for h, w in self._sizes(shape)) * shape[2])

    def parameters_of(self, image: Float64) -> Float64:
        height, width, channels = image.shape
        rest = sum(h * w for h, w in self._sizes((height, width, channels))[1:]) * channels
        return np.concatenate([_decorrelated(image).reshape(-1), np.zeros(rest)])

    def constants(self, shape: tuple[int, int, int]) -> dict[str, Float64]:
        constants = {}
        for level, (height, width) in enumerate(self._sizes(shape)):
            constants[f"down {level}"] = resize_matrix(height, shape[0], "bilinear")
            constants[f"across {level}"] = resize_matrix(width, shape[1], "bilinear")
        if shape[2] == 3:
            constants["colour"] = COLOUR_CORRELATION.T
        return constants

    def unbounded(
        self, ops: Ops, parameters: Array, constants: Mapping[str, Array], shape: tuple[int, int, int]
    ) -> Array:
        """(images, channels, height, width) before colours are correlated and bounded by a sigmoid."""
        start, images = 0, []
        for level, (height, width) in enumerate(self._sizes(shape)):
            end = start + height * width * shape[2]
            own = ops.reshape(parameters[:, start:end], (-1, shape[2], height, width))
            down, across = constants[f"down {level}"], constants[f"across {level}"]
            images.append(own if level == 0 else ops.einsum("yh,nchw,xw->ncyx", down, own, across))
            start = end
        return sum(images[1:], images[0])

    def image(self, ops: Ops, parameters: Array, constants: Mapping[str, Array], shape: tuple[int, int, int]) -> Array:
        return correlated(ops, self.unbounded(ops, parameters, constants, shape), constants)


@dataclass(frozen=True)
class CPPN(Plain):
    """A small network from the place of a pixel to its colour: smooth, and of any resolution. Wants a rate near 0.005.

    It cannot start from an image.

    Attributes:
        width: units of each layer.
        depth: hidden layers.
        enlarged: how many times as high and wide the finished image is as what the model sees.

    Source: Stanley, "Compositional Pattern Producing Networks", 2007; Mordvintsev et al., "Differentiable Image
    Parameterizations", Distill, 2018, section "Compositional Pattern Producing Networks". Each unit gives a hyperbolic
    tangent and its square, as theirs gives an arc tangent and its square.
    """

    width: int = 16
    depth: int = 6
    enlarged: int = 1

    def _layers(self, channels: int) -> list[tuple[int, int]]:
        widths = [2, *[2 * self.width] * self.depth]
        return [*((given, self.width) for given in widths[:-1]), (widths[-1], channels)]

    def initial(self, rng: np.random.Generator, shape: tuple[int, int, int]) -> Float64:
        *hidden, last = self._layers(shape[2])
        found = [np.append(rng.normal(0, given**-0.5, (given, wanted)), np.zeros(wanted)) for given, wanted in hidden]
        return np.concatenate([*found, np.zeros((last[0] + 1) * last[1])])

    def parameters_of(self, image: Float64) -> Float64:
        raise InvalidInput("a CPPN writes no given image down: leave out the start, or choose another parameterization")

    def constants(self, shape: tuple[int, int, int]) -> dict[str, Float64]:
        constants = {}
        for times in {1, self.enlarged}:
            height, width = shape[0] * times, shape[1] * times
            # So that the places of a square have the deviation 1 in each direction.
            y, x = (np.sqrt(3) * (2 * (np.arange(n) + 0.5) / n - 1) for n in (height, width))
            places = np.stack(np.meshgrid(x, y), -1) * (min(height, width) ** -1 * np.array([width, height]))
            constants[f"places {height} {width}"] = places.reshape(-1, 2)
        if shape[2] == 3:
            constants["colour"] = COLOUR_CORRELATION.T
        return constants

    def image(self, ops: Ops, parameters: Array, constants: Mapping[str, Array], shape: tuple[int, int, int]) -> Array:
        height, width, channels = shape
        layers, start = self._layers(channels), 0
        x = constants[f"places {height} {width}"]
        for number, (given, wanted) in enumerate(layers):
            weights = ops.reshape(parameters[:, start : start + given * wanted], (-1, given, wanted))
            start += given * wanted
            x = ops.einsum("pi,nio->npo" if number == 0 else "npi,nio->npo", x, weights)
            x = x + ops.reshape(parameters[:, start : start + wanted], (-1, 1, wanted))
            start += wanted
            if number < len(layers) - 1:
                curve = ops.tanh(x)
                # Means and deviations for a standard normal: 0 and 0.63, 0.39 and 0.33.
                x = ops.concatenate([curve / 0.63, (ops.square(curve) - 0.39) / 0.33], 2)
        return correlated(ops, ops.reshape(ops.transpose(x, (0, 2, 1)), (-1, channels, height, width)), constants)


@dataclass(frozen=True, eq=False, repr=False)
class Masked(Plain):
    """An image that is optimized inside of a mask, and stays what is given around it.

    Attributes:
        inside: how the part inside is written down.
        mask: (H, W) in [0, 1]: 1 inside, 0 around, between them a mixture.
        around: (H, W, C) in [0, 1].

    Source: Porter, Duff, "Compositing Digital Images", 1984, operator "over", for the mixture.
    """

    inside: Parameterization
    mask: Float64
    around: Float64

    def __post_init__(self) -> None:
        if self.inside.alpha:
            raise InvalidInput("what a mask lets through is opaque: put the mask inside, as Alpha(Masked(...))")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Masked) and self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())

    def _identity(self) -> tuple[Any, ...]:
        return self.inside, *((x.shape, np.asarray(x, np.float64).tobytes()) for x in (self.mask, self.around))

    def __repr__(self) -> str:
        return display.changed(self)

    @property
    def white(self) -> float:
        return self.inside.white

    @property
    def couples(self) -> bool:
        return self.inside.couples

    def initial(self, rng: np.random.Generator, shape: tuple[int, int, int]) -> Float64:
        return self.inside.initial(rng, shape)

    def parameters_of(self, image: Float64) -> Float64:
        return self.inside.parameters_of(image)

    def constants(self, shape: tuple[int, int, int]) -> dict[str, Float64]:
        mask, around = np.asarray(self.mask, np.float64), np.asarray(self.around, np.float64)
        if mask.shape != shape[:2] or around.shape != shape:
            raise InvalidInput(
                f"a mask and what is around it have the size of the image, {shape[:2]} and {shape}, not {mask.shape} "
                f"and {around.shape}"
            )
        if not all(x.min() >= 0 and x.max() <= 1 for x in (mask, around)):
            raise InvalidInput("a mask and what is around it are in [0, 1]")
        own = {"mask": mask[..., None], "around": (1 - mask[..., None]) * around * self.white}
        return {**self.inside.constants(shape), **own}

    def image(self, ops: Ops, parameters: Array, constants: Mapping[str, Array], shape: tuple[int, int, int]) -> Array:
        return self.inside.image(ops, parameters, constants, shape) * constants["mask"] + constants["around"]

    def display(self, ops: Ops, images: Array) -> Array:
        return ops.clip(images / self.white, 0.0, 1.0)
