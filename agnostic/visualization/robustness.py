"""What an image must survive while it is optimized: every view of it is one affine map, drawn beforehand, and noise.

An image that excites a unit only pixel by pixel loses it when cropped, turned or shifted; so the ascent sees the image
through random views. All of a view's geometry is one matrix and one resampling.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]


class Views(Protocol):
    """What :class:`agnostic.visualization.ascent.Ascent` asks of a way to look at an image."""

    @property
    def count(self) -> int:
        """Number of views per image and step."""

    @property
    def noise(self) -> float:
        """Standard deviation of the noise added to each view, as a fraction of white."""

    @property
    def blur(self) -> float:
        """Standard deviation in pixels of the Gaussian that each view is blurred by; 0 for none."""

    @property
    def wraps(self) -> bool:
        """Whether views are of the image repeated to the right and below, so that it joins itself at its edges."""

    @property
    def keeps_places(self) -> bool:
        """Whether what is at a place of the image stays near it, so that places can be compared with a photo's."""

    def matrices(self, rng: np.random.Generator, steps: int, shape: tuple[int, int]) -> Float64 | None:
        """(steps, count, 2, 3) maps as :meth:`agnostic.ops.Ops.warp` takes them; None where nothing moves."""


@dataclass(frozen=True)
class Whole:
    """The image as it is."""

    @property
    def count(self) -> int:
        return 1

    @property
    def noise(self) -> float:
        return 0.0

    @property
    def blur(self) -> float:
        return 0.0

    @property
    def wraps(self) -> bool:
        return False

    @property
    def keeps_places(self) -> bool:
        return True

    def matrices(self, rng: np.random.Generator, steps: int, shape: tuple[int, int]) -> Float64 | None:
        return None


@dataclass(frozen=True)
class Crops:
    """Random square parts of the image, resampled to its full size.

    Attributes:
        count: crops per image and step.
        mean, deviation: the crop's side as a fraction of the image's is drawn from this normal distribution ...
        low, high: ... and clipped to this range; the position is uniform.
        noise: standard deviation of the noise added to each crop, as a fraction of white.
        blur: standard deviation in pixels of the Gaussian that each crop is blurred by.

    Source: Fel et al., 2023 (see :class:`agnostic.visualization.parameterization.Phase`), section 3.
    """

    count: int = 2
    mean: float = 0.5
    deviation: float = 0.15
    low: float = 0.2
    high: float = 1.0
    noise: float = 0.05
    blur: float = 0.0

    @property
    def wraps(self) -> bool:
        return False

    @property
    def keeps_places(self) -> bool:
        return False

    def matrices(self, rng: np.random.Generator, steps: int, shape: tuple[int, int]) -> Float64:
        side = np.clip(rng.normal(self.mean, self.deviation, (steps, self.count)), self.low, self.high)
        corner = rng.random((steps, self.count, 2)) * (1 - side[..., None])
        matrices = np.zeros((steps, self.count, 2, 3))
        matrices[..., 0, 0] = matrices[..., 1, 1] = side
        # Pixel i covers [i, i + 1): its centre i + 1/2 is mapped, and the half taken off again.
        matrices[..., 2] = corner * shape + 0.5 * side[..., None] - 0.5
        return matrices


@dataclass(frozen=True)
class Jitter:
    """The image shifted, turned and scaled about its centre, the edge pixels continued beyond it.

    Attributes:
        shift: largest shift in pixels, each way, in both directions.
        rotation: largest angle in degrees, each way.
        scale: smallest and largest magnification.
        noise: standard deviation of the noise added, as a fraction of white.
        blur: standard deviation in pixels of the Gaussian that the image is blurred by.

    Source: "Feature Visualization", Distill 2017, section "Transformation robustness".
    """

    shift: float = 8.0
    rotation: float = 10.0
    scale: tuple[float, float] = (0.9, 1.1)
    noise: float = 0.0
    blur: float = 0.0

    @property
    def count(self) -> int:
        return 1

    @property
    def wraps(self) -> bool:
        return False

    @property
    def keeps_places(self) -> bool:
        return True

    def matrices(self, rng: np.random.Generator, steps: int, shape: tuple[int, int]) -> Float64:
        size = (steps, 1)
        angle = np.deg2rad(rng.uniform(-self.rotation, self.rotation, size))
        zoom = rng.uniform(*self.scale, size)
        shift = rng.uniform(-self.shift, self.shift, (*size, 2))
        cos, sin = np.cos(angle) / zoom, np.sin(angle) / zoom
        linear = np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], -2)
        centre = (np.asarray(shape) - 1) / 2
        offset = centre + shift - linear @ centre
        return np.concatenate([linear, offset[..., None]], axis=-1)


@dataclass(frozen=True)
class Tiles:
    """The image shifted around a torus, so that copies of it side by side have no seam.

    Attributes:
        count: views per image and step; the shift is uniform.
        noise: standard deviation of the noise added, as a fraction of white.
        blur: standard deviation in pixels of the Gaussian that each view is blurred by.

    Source: Mordvintsev, Olah, Tyka, "Inceptionism", 2015, and the code published with it, for the cyclic shift.
    """

    count: int = 2
    noise: float = 0.05
    blur: float = 0.0

    @property
    def wraps(self) -> bool:
        return True

    @property
    def keeps_places(self) -> bool:
        return False

    def matrices(self, rng: np.random.Generator, steps: int, shape: tuple[int, int]) -> Float64:
        matrices = np.zeros((steps, self.count, 2, 3))
        matrices[..., 0, 0] = matrices[..., 1, 1] = 1
        matrices[..., 2] = rng.integers(0, shape, (steps, self.count, 2))
        return matrices


def blurring(length: int, deviation: float) -> Float64:
    """(length, length): a row blurred by a Gaussian; at its ends what lies inside counts alone."""
    place = np.arange(length)
    weights = np.exp(-np.square(place[:, None] - place) / (2 * deviation**2))
    found: Float64 = weights / weights.sum(1, keepdims=True)
    return found
