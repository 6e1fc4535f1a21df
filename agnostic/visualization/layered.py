"""Parameterizations around another one: images that are transparent in part, and images that share what is coarse."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from agnostic.errors import InvalidInput
from agnostic.ops import Array, Ops
from agnostic.reference.ops import NumpyOps
from agnostic.reference.resampling import resize_matrix
from agnostic.visualization.parameterization import (
    Float64,
    Fourier,
    Parameterization,
    Phase,
    Plain,
    Pyramid,
    correlated,
)

Shape = tuple[int, int, int]


def _shape_of(inside: Any, shape: Shape) -> tuple[int, ...]:
    """The shape of one image's parameters."""
    return _started(inside, shape)


@functools.lru_cache(maxsize=64)  # asked in every step of an ascent that is not compiled
def _started(inside: Any, shape: Shape) -> tuple[int, ...]:
    found: tuple[int, ...] = inside.initial(np.random.default_rng(0), shape).shape
    return found


@dataclass(frozen=True)
class Alpha(Plain):
    """An image with a last channel that says how opaque each pixel is.

    The model sees it over random backgrounds, another one in each view, so that what must not show through is opaque.
    ``objective * (1 - ag.objectives.opacity())`` leaves opaque only what the objective needs.

    Attributes:
        inside: how the colours are written down; the opacity is written down in the same way, with one channel.

    Source: Mordvintsev et al., "Differentiable Image Parameterizations", Distill, 2018, section "Transparency".
    """

    inside: Parameterization = field(default_factory=Fourier)

    def __post_init__(self) -> None:
        if self.inside.white != 1.0 or self.inside.alpha:
            raise InvalidInput(f"alpha is for an opaque image in [0, 1], such as Fourier(), not {self.inside!r}")

    @property
    def alpha(self) -> bool:
        return True

    @property
    def couples(self) -> bool:
        return self.inside.couples

    @property
    def enlarged(self) -> int:
        return self.inside.enlarged

    def initial(self, rng: np.random.Generator, shape: Shape) -> Float64:
        return np.concatenate([self.inside.initial(rng, own).reshape(-1) for own in _layers(shape)])

    def parameters_of(self, image: Float64) -> Float64:
        opaque = image if image.shape[2] in (2, 4) else np.concatenate([image, np.ones_like(image[..., :1])], 2)
        parts = opaque[..., :-1], opaque[..., -1:]
        return np.concatenate([self.inside.parameters_of(part).reshape(-1) for part in parts])

    def constants(self, shape: Shape) -> dict[str, Float64]:
        return {
            f"{layer} {name}": array
            for layer, own in zip(("colours", "opacity"), _layers(shape), strict=True)
            for name, array in self.inside.constants(own).items()
        }

    def image(self, ops: Ops, parameters: Array, constants: Mapping[str, Array], shape: Shape) -> Array:
        parts, start = [], 0
        for layer, own in zip(("colours", "opacity"), _layers(shape), strict=True):
            # Not of the enlarged image, whose parameters are the same.
            written = _shape_of(self.inside, own)
            end = start + math.prod(written)
            known = {x.removeprefix(f"{layer} "): a for x, a in constants.items() if x.startswith(f"{layer} ")}
            rows = ops.reshape(parameters[:, start:end], (-1, *written))
            parts.append(self.inside.image(ops, rows, known, own))
            start = end
        return ops.concatenate(parts, 3)


def _layers(shape: Shape) -> tuple[Shape, Shape]:
    """The shapes of colours and of opacity."""
    return shape, (*shape[:2], 1)


@dataclass(frozen=True)
class Shared(Plain):
    """Images of a batch that share their coarse shapes, so that they look alike wherever their objectives let them.

    To each image of its own the same coarse images are added, before colours and sigmoid. All images are computed
    together.

    Attributes:
        inside: how an image's own part is written down.
        coarser: how many times as coarse as the image each shared one is.
        deviation: standard deviation of the shared images at the start.

    Source: Mordvintsev et al., "Differentiable Image Parameterizations", Distill, 2018, section "Aligned Feature
    Visualization Interpolation".
    """

    inside: Fourier | Pyramid = field(default_factory=Fourier)
    coarser: tuple[int, ...] = (2, 4, 8, 16)
    deviation: float = 0.01

    @property
    def couples(self) -> bool:
        return True

    def _sizes(self, shape: Shape) -> list[tuple[int, int]]:
        return [(-(-shape[0] // times), -(-shape[1] // times)) for times in self.coarser]

    def _shared(self, shape: Shape) -> int:
        return sum(height * width for height, width in self._sizes(shape)) * shape[2]

    def initial(self, rng: np.random.Generator, shape: Shape) -> Float64:
        own = self.inside.initial(rng, shape)
        return np.concatenate([own.reshape(-1), rng.normal(0.0, self.deviation, self._shared(shape))])

    def parameters_of(self, image: Float64) -> Float64:
        height, width, channels = image.shape
        own = self.inside.parameters_of(image)
        return np.concatenate([own.reshape(-1), np.zeros(self._shared((height, width, channels)))])

    def constants(self, shape: Shape) -> dict[str, Float64]:
        constants = dict(self.inside.constants(shape))
        for level, (height, width) in enumerate(self._sizes(shape)):
            constants[f"shared down {level}"] = resize_matrix(height, shape[0], "bilinear")
            constants[f"shared across {level}"] = resize_matrix(width, shape[1], "bilinear")
        return constants

    def image(self, ops: Ops, parameters: Array, constants: Mapping[str, Array], shape: Shape) -> Array:
        written = _shape_of(self.inside, shape)
        start = math.prod(written)
        own = ops.reshape(parameters[:, :start], (-1, *written))
        found = self.inside.unbounded(ops, own, constants, shape)
        # Each image holds a copy of what is shared. It is their mean, so all copies get one gradient.
        shared = ops.mean(parameters[:, start:], 0)
        start = 0
        for level, (height, width) in enumerate(self._sizes(shape)):
            end = start + height * width * shape[2]
            coarse = ops.reshape(shared[start:end], (1, shape[2], height, width))
            down, across = constants[f"shared down {level}"], constants[f"shared across {level}"]
            found = found + ops.einsum("yh,nchw,xw->ncyx", down, coarse, across)
            start = end
        return correlated(ops, found, constants)


def backgrounds(rng: np.random.Generator, shape: Shape) -> Float64:
    """(H, W, C) in [0, 1]: a random image with the spectrum of photographs, that joins itself at its edges."""
    noise = Phase()
    found = noise.image(NumpyOps(), noise.initial(rng, shape)[None], noise.constants(shape), shape)
    return np.asarray(found[0], np.float64)
