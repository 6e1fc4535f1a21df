"""The objectives that measure an image against a photo: a caricature of it, and its style."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from agnostic import display
from agnostic.layers import Layer
from agnostic.ops import Array, Ops
from agnostic.visualization.objective import LayerTerm, ModelLookup, Objective, View, check_ran
from agnostic.visualization.terms import LEAST, check_positions


@dataclass(frozen=True, eq=False, repr=False)
class Photo:
    """A photo as a value: equal to another one of the same pixels and name.

    Attributes:
        pixels: (H, W, C), uint8 or floating point in [0, 1]; not to be written to.
        name: for people.

    Example:
        >>> ag.objectives.Photo(np.zeros((2, 3, 3), np.uint8), "black")
        Photo('black', 2 x 3)
    """

    pixels: npt.NDArray[Any]
    name: str

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Photo) and self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())

    def _identity(self) -> tuple[Any, ...]:
        return self.name, self.pixels.shape, str(self.pixels.dtype), self.pixels.tobytes()

    def __repr__(self) -> str:
        return f"Photo({self.name!r}, {self.pixels.shape[0]} x {self.pixels.shape[1]})"


@dataclass(frozen=True, repr=False)
class _OfPhotos(LayerTerm):
    """A term that compares a layer with what it returns for a photo, one photo per image.

    Attributes:
        photos: one per image.
        targets: (images, ...) what the model returned for them; None before the objective is resolved.
    """

    numbers = frozenset({"photos", "targets"})

    photos: tuple[Photo, ...]
    targets: npt.NDArray[np.float64] | None = dataclasses.field(default=None, repr=False, compare=False, kw_only=True)

    def __repr__(self) -> str:
        return display.changed(self)

    @property
    def count(self) -> int:
        return len(self.photos)

    def arrays(self) -> tuple[npt.NDArray[Any], ...]:
        return () if self.targets is None else (self.targets,)

    def check(self, layer: Layer) -> None:
        check_positions(layer)

    def resolve(self, model: ModelLookup) -> Objective:
        found = model.layer(self.layer)
        check_ran(found)
        self.check(found)
        seen = np.concatenate([model.measure(found.name, photo.pixels[None]) for photo in self.photos])
        return dataclasses.replace(self, layer=found.name, targets=self.target(seen))

    def target(self, seen: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """What is kept of (images, channels, positions) of the photos."""
        return seen


@dataclass(frozen=True, repr=False)
class Caricature(_OfPhotos):
    """The dot product of a layer with what it returns for a photo, times a power of their cosine: its photo, overdrawn.

    Attributes:
        photos: one per image.
        power: of the cosine, 0 or more; the higher, the nearer to the photo.
        targets: what the model returned for the photos, once the objective is resolved.

    Source: Carter et al., "Activation Atlas", Distill, 2019, section "Feature visualization", for the product; Olah,
    "Caricatures", 2020 (https://github.com/tensorflow/lucid, notebook "Caricatures"), for whole layers.

    Example:
        >>> black = np.zeros((16, 16, 3), np.uint8)
        >>> ag.objectives.caricature("conv", black).labels()
        ('conv:photo 0',)
    """

    keeps_places = True

    power: int = 1

    def labels(self) -> tuple[str, ...]:
        return tuple(f"{self.layer}:{photo.name}" for photo in self.photos)

    def target(self, seen: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        # Of length one, so that the objective has the scale of the layer, whatever the photo.
        length = np.sqrt(np.square(seen).sum((1, 2), keepdims=True))
        return seen / np.where(length == 0, 1, length)

    def score(self, ops: Ops, view: View) -> Array:
        (target,) = next(view.arrays)
        value = view.taps[str(self.layer)].canonical(ops)
        dot = ops.sum(value * ops.cast(target, ops.dtype(value)), axis=(1, 2))
        length = ops.sqrt(ops.maximum(ops.sum(ops.square(value), axis=(1, 2)), LEAST))
        # Below a tenth the power has no slope to speak of, and below zero a wrong sign.
        cosine = ops.maximum(dot / length, 0.1)
        for _ in range(self.power):
            dot = dot * cosine
        return dot


@dataclass(frozen=True, repr=False)
class Style(_OfPhotos):
    """Minus the mean square difference of a layer's Gram matrix from a photo's, relative to the photo's mean square.

    Attributes:
        photos: one per image.
        targets: the photos' Gram matrices, once the objective is resolved.

    Source: Gatys, Ecker, Bethge, "Image Style Transfer Using Convolutional Neural Networks", CVPR 2016, section 2.2.

    Example:
        >>> black = np.zeros((16, 16, 3), np.uint8)
        >>> ag.objectives.style("conv", black).labels()
        ('conv:style of photo 0',)
    """

    def labels(self) -> tuple[str, ...]:
        return tuple(f"{self.layer}:style of {photo.name}" for photo in self.photos)

    def target(self, seen: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        found: npt.NDArray[np.float64] = np.einsum("rcp,rdp->rcd", seen, seen) / seen.shape[2]
        return found

    def score(self, ops: Ops, view: View) -> Array:
        (target,) = next(view.arrays)
        value = view.taps[str(self.layer)].canonical(ops)
        gram = ops.einsum("rcp,rdp->rcd", value, value) / ops.shape(value)[2]
        target = ops.cast(target, ops.dtype(gram))
        whole = ops.maximum(ops.mean(ops.square(target), axis=(1, 2)), LEAST)
        return -ops.mean(ops.square(gram - target), axis=(1, 2)) / whole
