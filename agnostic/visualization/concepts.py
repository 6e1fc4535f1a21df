"""The direction of a concept in a layer, from photos that show it and photos that do not."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from agnostic import display
from agnostic.errors import InvalidInput
from agnostic.files import photos_below, read_image
from agnostic.registry import backend_of
from agnostic.text import counted

Float64 = npt.NDArray[np.float64]

METHODS = ("mean", "probe")


@dataclass(frozen=True, eq=False, repr=False)
class ConceptVector:
    """A direction in the channels of a layer, of length one.

    Attributes:
        layer: the model's own name of it.
        vector: (channels,) float64.
        name: of the concept.
        method: ``"mean"`` or ``"probe"``.
        accuracy: the part of the photos held out that the direction sorts right, each class counted alike; 0.5 is
            chance. None where none was held out.
        photos: how many show the concept, and how many do not.

    Example:
        >>> dark, light = np.zeros((4, 16, 16, 3)), np.ones((4, 16, 16, 3))
        >>> ag.objectives.concept_vector(model, "conv", light, dark, name="light")
        <concept 'light' in 'conv' by probe: 4 photos against 4, held-out accuracy 1.00>
    """

    layer: str
    vector: Float64
    name: str
    method: str
    accuracy: float | None
    photos: tuple[int, int]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ConceptVector) and self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())

    def _identity(self) -> tuple[Any, ...]:
        return self.layer, self.vector.tobytes(), self.name, self.method, self.accuracy, self.photos

    def __repr__(self) -> str:
        held = "" if self.accuracy is None else f", held-out accuracy {self.accuracy:.2f}"
        one, other = self.photos
        return (
            f"<concept {display.shortened(self.name)!r} in {self.layer!r} by {self.method}: "
            f"{counted(one, 'photo')} against {other}{held}>"
        )


def concept_vector(
    model: Any,
    layer: str | int,
    examples: Any,
    others: Any,
    *,
    method: str = "probe",
    held_out: float = 0.25,
    name: str | None = None,
    seed: int = 0,
) -> ConceptVector:
    """The direction in a layer that tells photos of a concept from others.

    Each photo counts by its mean activation over positions. ``"mean"`` is the difference of the two means, ``"probe"``
    the normal of a logistic regression with a ridge chosen by the spread of the activations. The accuracy is that of
    the direction on photos that took no part in finding it.

    Args:
        model: a native model.
        layer: name, alias or index of a layer with channels.
        examples, others: photos of the concept and others: a folder, a list of files or of arrays (H, W, C), or an
            array (N, H, W, C), uint8 or in [0, 1]; two of each at least.
        method: ``"probe"`` or ``"mean"``.
        held_out: the part of the photos that the accuracy is measured on, 0 to 0.5; 0 for none.
        name: of the concept; the folder's by default.
        seed: of the choice of the photos held out.

    Returns:
        The direction, for :func:`agnostic.objectives.concept`.

    Raises:
        InvalidInput: too few photos, or photos that the layer does not tell apart.

    Source: Kim et al., "Interpretability Beyond Feature Attribution: Quantitative Testing with Concept Activation
    Vectors", ICML 2018, section 3.2, for the probe; Larsen et al., "Autoencoding beyond pixels", ICML 2016, section
    4.2, for the difference of means.

    Example:
        >>> dark, light = np.zeros((4, 16, 16, 3)), np.ones((4, 16, 16, 3))
        >>> found = ag.objectives.concept_vector(model, "conv", light, dark, method="mean", name="light")
        >>> found.vector.shape, found.accuracy
        ((8,), 1.0)
    """
    if method not in METHODS:
        raise InvalidInput(f"a concept's direction is found by 'mean' or 'probe', not {method!r}")
    if not 0 <= held_out <= 0.5:
        raise InvalidInput(f"the part held out is from 0 to 0.5, not {held_out!r}")
    sets = [photos_of(examples), photos_of(others)]
    if min(map(len, sets)) < 2:
        raise InvalidInput(
            f"a direction needs at least 2 photos of the concept and 2 others, not {len(sets[0])} and {len(sets[1])}"
        )
    from agnostic.visualization.verb import Options, measurer

    own, measure = measurer(backend_of(model), model, layer, Options(recipe="jitter"))
    shows, shows_not = (np.concatenate([measure(own, x[None]).mean(2) for x in photos]) for photos in sets)
    vector, accuracy = _direction(shows, shows_not, method, held_out, np.random.default_rng(seed))
    called = name or (Path(examples).name if isinstance(examples, str | os.PathLike) else "concept")
    return ConceptVector(own, vector, called, method, accuracy, (len(shows), len(shows_not)))


def photos_of(given: Any) -> Sequence[npt.NDArray[Any]]:
    """Photos (H, W, C) from a folder, files or arrays."""
    if isinstance(given, str | os.PathLike):
        folder = Path(given)
        if not folder.is_dir():
            raise InvalidInput(f"{str(given)!r} is no folder of photos")
        given = [folder / name for name in photos_below(folder)]
    return [read_image(x) if isinstance(x, str | os.PathLike) else np.asarray(x) for x in given]


def _direction(
    shows: Float64, others: Float64, method: str, held_out: float, rng: np.random.Generator
) -> tuple[Float64, float | None]:
    """A vector of length one, and its accuracy on photos that were held out while it was found."""
    parts = [(rng.permutation(len(x)), round(held_out * len(x)) or (1 if held_out else 0)) for x in (shows, others)]
    accuracy = None
    if held_out:
        kept = [x[order[n:]] for x, (order, n) in zip((shows, others), parts, strict=True)]
        out = [x[order[:n]] for x, (order, n) in zip((shows, others), parts, strict=True)]
        vector, threshold = _fit(kept[0], kept[1], method)
        accuracy = float(((out[0] @ vector > threshold).mean() + (out[1] @ vector <= threshold).mean()) / 2)
    return _fit(shows, others, method)[0], accuracy


def _fit(shows: Float64, others: Float64, method: str) -> tuple[Float64, float]:
    """A direction of length one and the threshold along it above which a photo shows the concept."""
    if method == "mean":
        vector = shows.mean(0) - others.mean(0)
        threshold = float(vector @ (shows.mean(0) + others.mean(0)) / 2)
    else:
        vector, threshold = _logistic(np.concatenate([shows, others]), np.arange(len(shows) + len(others)) < len(shows))
    length = float(np.linalg.norm(vector))
    if not length > 0:
        raise InvalidInput("the layer gives the same for photos of the concept and for others: choose another layer")
    return vector / length, threshold / length


def _logistic(x: Float64, shows: npt.NDArray[np.bool_], ridge: float = 1.0, steps: int = 50) -> tuple[Float64, float]:
    """Weights of a logistic regression and the threshold along them, by Newton's method.

    In the space that the photos span, which has no more dimensions than photos, so that wide layers cost little. The
    ridge is relative to the mean variance there.

    Source: Hastie, Tibshirani, Friedman, "The Elements of Statistical Learning", 2nd edition, sections
    4.4.1 and 18.3.5.
    """
    centre = x.mean(0)
    _, spread, axes = np.linalg.svd(x - centre, full_matrices=False)
    scale = np.sqrt(np.square(spread).sum() / len(x)) or 1.0
    inside = np.column_stack([(x - centre) @ axes.T / scale, np.ones(len(x))])
    penalty = np.diag([ridge] * len(spread) + [0.0])
    weights = np.zeros(inside.shape[1])
    # Each class counts alike, however many photos it has.
    balance = np.where(shows, 0.5 / shows.mean(), 0.5 / (~shows).mean())
    for _ in range(steps):
        p = 1 / (1 + np.exp(-np.clip(inside @ weights, -500, 500)))
        gradient = inside.T @ (balance * (p - shows)) + penalty @ weights
        curvature = inside.T @ (inside * (balance * p * (1 - p) + 1e-12)[:, None]) + penalty
        step = np.linalg.solve(curvature, gradient)
        weights -= step
        if np.abs(step).max() < 1e-10:
            break
    vector = weights[:-1] @ axes / scale
    return vector, float(vector @ centre - weights[-1])
