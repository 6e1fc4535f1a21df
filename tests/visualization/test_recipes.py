"""Recipes are values: frozen, printable, replaceable, and found by name."""

from __future__ import annotations

import dataclasses

import pytest

import agnostic as ag
from agnostic.visualization.ascent import Settings
from agnostic.visualization.parameterization import Fourier, Phase, Pixels
from agnostic.visualization.recipes import Recipe
from agnostic.visualization.robustness import Crops, Jitter, Whole
from agnostic.visualization.updates import AdamAscent, NormalizedGradient

NAMES = ["fourier", "classic", "jitter", "maco"]


def test_there_are_these() -> None:
    assert list(ag.recipes.names()) == NAMES
    assert [ag.recipes.get(name) for name in NAMES] == [getattr(ag.recipes, name)() for name in NAMES]
    assert [ag.recipes.get(name).name for name in NAMES] == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_prints_itself_as_what_makes_it(name: str) -> None:
    recipe = ag.recipes.get(name)
    known = dict.fromkeys([Recipe, Fourier, Phase, Pixels, Crops, Jitter, Whole, AdamAscent, NormalizedGradient])
    assert eval(repr(recipe), {cls.__name__: cls for cls in known}) == recipe  # noqa: S307 - our own text
    assert hash(recipe) == hash(ag.recipes.get(name))


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_is_frozen_and_replaceable(name: str) -> None:
    recipe = ag.recipes.get(name)
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipe.steps = 3  # type: ignore[misc]
    changed = dataclasses.replace(recipe, steps=3)
    assert changed == ag.recipes.get(name, steps=3) == ag.recipes.get(recipe, steps=3) != recipe
    assert recipe.steps != 3


def test_the_classic_recipe_is_the_books() -> None:
    recipe = ag.recipes.classic()
    assert (recipe.steps, recipe.size, recipe.preprocess) == (40, 150, False)
    assert recipe.image == Pixels(low=128.0, spread=20.0, contrast=0.1, epsilon=1e-5)
    assert recipe.update == NormalizedGradient(learning_rate=1.0, epsilon=1e-5)
    assert recipe.views == Whole()


def test_the_default_is_what_was_measured() -> None:
    recipe = ag.recipes.fourier()
    assert recipe.views == Crops(count=2, mean=0.5, deviation=0.15, low=0.2, high=1.0, noise=0.05)
    assert recipe.update == AdamAscent(learning_rate=0.05)
    assert (recipe.steps, recipe.size, recipe.preprocess) == (128, 160, True)


def test_an_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(ag.UnknownName, match=r"no recipe 'furier'; there are fourier, .*did you mean 'fourier'"):
        ag.recipes.get("furier")


def test_an_unknown_field_names_the_nearest() -> None:
    with pytest.raises(ag.UnknownName, match=r"no 'step', only name, .*did you mean 'steps'"):
        ag.recipes.classic(step=3)


@pytest.mark.parametrize(
    "changes", [{"steps": 0}, {"steps": -1}, {"size": 0}, {"steps": 2.5}, {"steps": True}, {"size": "8"}]
)
def test_steps_and_size_are_positive_integers(changes: dict[str, object]) -> None:
    with pytest.raises(ag.InvalidInput, match="at least one step and one pixel"):
        ag.recipes.fourier(**changes)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"micro_batch": 0}, "at least 1, not 0"),
        ({"micro_batch": 2.5}, "at least 1, not 2.5"),
        ({"dtype": "int8"}, "dtype is one of float32, bfloat16, float64, float16, not 'int8'"),
        ({"memory_format": "channels_first"}, "memory_format is one of channels_last, contiguous"),
    ],
)
def test_settings_are_checked(options: dict[str, object], words: str) -> None:
    with pytest.raises(ag.InvalidInput, match=words):
        Settings(**options)
