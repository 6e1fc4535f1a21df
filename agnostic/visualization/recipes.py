"""Recipes: everything that an ascent needs besides the model and the objective, as frozen, printable values.

``recipes.fourier()`` is the default. ``dataclasses.replace(recipes.fourier(), steps=256)`` makes another; so do the
keyword arguments of the functions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from agnostic.errors import InvalidInput, UnknownName, nearest
from agnostic.visualization.parameterization import Fourier, Parameterization, Phase, Pixels
from agnostic.visualization.robustness import Crops, Jitter, Views, Whole
from agnostic.visualization.updates import AdamAscent, NormalizedGradient, UpdateRule

__all__ = [
    "Recipe",
    "classic",
    "fourier",
    "get",
    "is_count",
    "jitter",
    "maco",
    "names",
]


def __dir__() -> list[str]:
    return sorted(__all__)


@dataclass(frozen=True)
class Recipe:
    """How an image is found.

    Attributes:
        name: the name of the recipe.
        image: how the image is parameterized.
        views: the random views of the image that the model sees.
        update: how the parameters are updated.
        steps: number of updates.
        size: height and width in pixels, if the call gives none.
        preprocess: whether the model's own preprocessing is applied to the image. Otherwise the model gets the values
            of the image.
        importance: whether it is kept how much each pixel mattered, see
            :attr:`agnostic.visualization.images.Images.importance`. The image does not depend on it.

    Example:
        >>> import dataclasses
        >>> dataclasses.replace(ag.recipes.fourier(), steps=256).steps
        256
    """

    name: str
    image: Parameterization
    views: Views
    update: UpdateRule
    steps: int
    size: int
    preprocess: bool = True
    importance: bool = False

    def __post_init__(self) -> None:
        if not (is_count(self.steps) and is_count(self.size)):
            raise InvalidInput(f"a recipe has at least one step and one pixel, not {self.steps!r} and {self.size!r}")


def is_count(value: object) -> bool:
    """Whether a value is an integer of at least 1.

    Args:
        value: anything.

    Returns:
        True for Python's and NumPy's integers from 1 on, False for anything else.

    Example:
        >>> ag.recipes.is_count(3), ag.recipes.is_count(0), ag.recipes.is_count(True)
        (True, False, False)
    """
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and bool(value >= 1)


def _changed(recipe: Recipe, changes: dict[str, Any]) -> Recipe:
    known = [field.name for field in dataclasses.fields(Recipe)]
    for name in changes:
        if name not in known:
            raise UnknownName(f"a recipe has no {name!r}, only {', '.join(known)}{nearest(name, known)}")
    return dataclasses.replace(recipe, **changes)


def classic(**changes: Any) -> Recipe:
    """The loop of the Keras book, exactly: raw pixels into the model, normalized gradients, 40 steps of 1.

    The model gets values around 128 whatever its preprocessing is, as in the book;
    ``classic(preprocess=True)`` applies the model's own preprocessing.

    Args:
        **changes: fields of :class:`Recipe` with new values.

    Returns:
        A recipe.

    Raises:
        UnknownName: :class:`Recipe` has no such field.
        InvalidInput: fewer than one step or pixel.

    Source: Chollet, "Deep Learning with Python", 2017, section 5.4.2.

    Example:
        >>> recipe = ag.recipes.classic(steps=2)
        >>> recipe.name, recipe.steps, recipe.size
        ('classic', 2, 150)
        >>> ag.visualize(model, ag.objectives.channel("conv", 0), recipe=recipe, size=16).shape
        (1, 16, 16, 3)
    """
    recipe = Recipe("classic", Pixels(), Whole(), NormalizedGradient(), steps=40, size=150, preprocess=False)
    return _changed(recipe, changes)


def fourier(**changes: Any) -> Recipe:
    """The default: a scaled spectrum in decorrelated colours, seen through two random crops per step, optimized by
    Adam.

    Args:
        **changes: fields of :class:`Recipe` with new values.

    Returns:
        A recipe.

    Raises:
        UnknownName: :class:`Recipe` has no such field.
        InvalidInput: fewer than one step or pixel.

    Source: "Feature Visualization", Distill, 2017, for the spectrum; Fel et al., 2023, section 3, for the crops.

    Example:
        >>> recipe = ag.recipes.fourier(steps=2)
        >>> recipe.name, recipe.steps, recipe.size
        ('fourier', 2, 160)
        >>> ag.visualize(model, ag.objectives.channel("conv", 0), recipe=recipe, size=16).shape
        (1, 16, 16, 3)
    """
    return _changed(Recipe("fourier", Fourier(), Crops(), AdamAscent(), steps=128, size=160), changes)


def jitter(**changes: Any) -> Recipe:
    """The recipe of Lucid: like ``fourier``, but the whole image is seen, slightly shifted, rotated and scaled.

    Args:
        **changes: fields of :class:`Recipe` with new values.

    Returns:
        A recipe.

    Raises:
        UnknownName: :class:`Recipe` has no such field.
        InvalidInput: fewer than one step or pixel.

    Source: Olah, Mordvintsev, Schubert, "Feature Visualization", Distill, 2017, section "Transformation robustness".

    Example:
        >>> recipe = ag.recipes.jitter(steps=2)
        >>> recipe.name, recipe.steps, recipe.size
        ('jitter', 2, 160)
        >>> ag.visualize(model, ag.objectives.channel("conv", 0), recipe=recipe, size=16).shape
        (1, 16, 16, 3)
    """
    return _changed(Recipe("jitter", Fourier(), Jitter(), AdamAscent(), steps=128, size=160), changes)


def maco(**changes: Any) -> Recipe:
    """Magnitude-constrained optimization: only the phase of a natural spectrum is free.

    The authors' code looks at 32 crops per step, of half the image's side at first and a twentieth at last, and takes
    steps of 1.0 in images of 512 pixels and more. Two crops per step cannot average over views that small: each pulls
    all phases towards its own part of the image, and the objective hardly rises. So crops stay at half the side, where
    the authors' begin, and a step is 0.2 radian. The importance of pixels is kept, for
    :meth:`agnostic.visualization.images.Images.faded`.

    Args:
        **changes: fields of :class:`Recipe` with new values.

    Returns:
        A recipe.

    Raises:
        UnknownName: :class:`Recipe` has no such field.
        InvalidInput: fewer than one step or pixel.

    Source: Fel et al., 2023 (see :class:`agnostic.visualization.parameterization.Phase`).

    Example:
        >>> recipe = ag.recipes.maco(steps=2)
        >>> recipe.name, recipe.steps, recipe.size
        ('maco', 2, 224)
        >>> ag.visualize(model, ag.objectives.channel("conv", 0), recipe=recipe, size=16).shape
        (1, 16, 16, 3)
    """
    return _changed(
        Recipe("maco", Phase(), Crops(noise=0.08), AdamAscent(0.2), steps=256, size=224, importance=True), changes
    )


_RECIPES: dict[str, Callable[..., Recipe]] = {f.__name__: f for f in (fourier, classic, jitter, maco)}


def names() -> tuple[str, ...]:
    """The names of all recipes, the default first.

    Returns:
        Names that :func:`get` and ``visualize(recipe=...)`` take.

    Example:
        >>> ag.recipes.names()
        ('fourier', 'classic', 'jitter', 'maco')
    """
    return tuple(_RECIPES)


def get(recipe: str | Recipe, **changes: Any) -> Recipe:
    """The recipe of that name, or the recipe itself, changed.

    Args:
        recipe: a name of :func:`names`, or a recipe.
        **changes: fields of :class:`Recipe` with new values.

    Returns:
        A recipe.

    Raises:
        UnknownName: no recipe of that name, or no field of a name in ``changes``.

    Example:
        >>> ag.recipes.get("maco", size=64).size
        64
    """
    if isinstance(recipe, Recipe):
        return _changed(recipe, changes)
    if recipe not in _RECIPES:
        raise UnknownName(f"no recipe {recipe!r}; there are {', '.join(_RECIPES)}{nearest(str(recipe), _RECIPES)}")
    return _RECIPES[recipe](**changes)
