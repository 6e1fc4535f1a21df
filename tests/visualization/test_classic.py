"""The classic recipe is the book's loop: a straightforward float64 implementation of it finds the same images."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

import agnostic as ag
from agnostic.visualization.parameterization import Pixels
from agnostic.visualization.verb import Options, prepare

torch = pytest.importorskip("torch")

SPATIAL = ("stem", "act", "down", "norm", "relu", "dilated", "grouped", "mirrored", "block.two", "block")
Read = Callable[[Any], Any]

# Images are float32 in [0, 1]: rounded by at most 2^-25. As much again is left for 40 steps of float64 noise, 2^28
# times its unit roundoff.
TOLERANCE = 2.0**-24


def start(seed: int, label: str, shape: tuple[int, int, int]) -> np.ndarray:
    """Grey noise from the seed and what the image shows."""
    rng = np.random.default_rng((seed, zlib.crc32(label.encode()), 0, 0))
    return rng.random(shape) * 20 + 128


def book(read: Read, channel: int, image: np.ndarray, steps: int = 40) -> np.ndarray:
    """The loop of the book in float64. ``read``: from (1, C, H, W) to the layer's output."""
    x = torch.tensor(image).permute(2, 0, 1)[None]
    for _ in range(steps):
        x = x.detach().requires_grad_()
        loss = read(x)[:, channel].mean()
        (gradient,) = torch.autograd.grad(loss, x)
        gradient = gradient / (torch.sqrt(torch.mean(gradient**2)) + 1e-5)
        x = x + gradient * 1.0
    shown = x.detach()[0].permute(1, 2, 0).numpy()
    shown = (shown - shown.mean()) / (shown.std() + 1e-5) * 0.1 + 0.5
    return np.clip(shown, 0, 1)


@pytest.mark.parametrize("layer", SPATIAL)
def test_the_classic_recipe_is_the_books_loop(network: Any, up_to: Any, layer: str) -> None:
    images = ag.visualize(
        network, ag.objectives.channel(layer, [0, 5]), recipe="classic", size=16, dtype="float64", seed=3
    )
    network.double()
    for image, channel in zip(images, (0, 5), strict=True):
        expected = book(lambda x: up_to(network, layer, x), channel, start(3, f"{layer}:{channel}", (16, 16, 3)))
        assert expected.std() > 0.05  # something was drawn
        np.testing.assert_allclose(image, expected, rtol=0, atol=TOLERANCE)


def test_it_is_so_for_images_that_are_not_square_and_grey_ones(make_network: Any, up_to: Any) -> None:
    network = make_network(1)
    image = ag.visualize(network, ag.objectives.channel("block", 2), recipe="classic", size=(12, 20), dtype="float64")[
        0
    ]
    assert image.shape == (12, 20, 1)
    network.double()
    expected = book(lambda x: up_to(network, "block", x), 2, start(0, "block:2", (12, 20, 1)))
    np.testing.assert_allclose(image, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("memory_format", ["channels_last", "contiguous"])
def test_the_memory_format_changes_nothing_but_rounding(network: Any, up_to: Any, memory_format: str) -> None:
    image = ag.visualize(
        network,
        ag.objectives.channel("dilated", 1),
        recipe="classic",
        size=16,
        dtype="float64",
        memory_format=memory_format,
    )[0]
    network.double()
    expected = book(lambda x: up_to(network, "dilated", x), 1, start(0, "dilated:1", (16, 16, 3)))
    np.testing.assert_allclose(image, expected, rtol=0, atol=TOLERANCE)


def test_the_start_is_what_the_seed_gives(network: Any) -> None:
    _, ascent = prepare(network, ag.objectives.channel("stem", [4, 1]), Options("classic", 9, seed=7))
    first = ascent.initial(range(2))
    assert first.dtype == np.float64
    np.testing.assert_array_equal(first[0], start(7, "stem:4", (9, 9, 3)))
    np.testing.assert_array_equal(first[1], start(7, "stem:1", (9, 9, 3)))
    np.testing.assert_array_equal(ascent.initial(range(1, 2))[0], first[1])


@dataclass(frozen=True)
class Moved(Pixels):
    """Shows how far the pixels have moved from their middle, unclipped."""

    def display(self, ops: Any, images: Any) -> Any:
        return images - 138.0


@pytest.mark.parametrize("layer", SPATIAL)
def test_in_float32_one_step_is_the_same_gradient(network: Any, up_to: Any, layer: str) -> None:
    recipe = replace(ag.recipes.classic(steps=1), image=Moved())
    image = ag.visualize(network, ag.objectives.channel(layer, 3), recipe=recipe, size=16, dtype="float32")[0]
    first = start(0, f"{layer}:3", (16, 16, 3))
    network.double()
    x = torch.tensor(first).permute(2, 0, 1)[None].requires_grad_()
    (gradient,) = torch.autograd.grad(up_to(network, layer, x)[:, 3].mean(), x)
    gradient = gradient[0].permute(1, 2, 0).numpy()
    expected = gradient / (np.sqrt((gradient**2).mean()) + 1e-5)
    # The pixels of about 138 are rounded to 2^-17 at the start and again after the step. The gradient passes through at
    # most seven layers, forward and back, of at most 72 products each: relative error 2 * 7 * 72 * 2^-24 in the worst
    # case. A unit within that of zero may count as on instead of off: none does here.
    error = np.asarray(image, np.float64) - (first - 138 + expected)
    assert np.sqrt((error**2).mean()) < 2 * 2.0**-17 + 2 * 7 * 72 * 2.0**-24
    assert np.sqrt((expected**2).mean()) > 0.05  # not one: epsilon is of the size of these gradients


def test_scores_are_the_mean_of_the_channel_before_every_step(network: Any, up_to: Any) -> None:
    images = ag.visualize(
        network, ag.objectives.channel("down", [1, 2]), recipe="classic", size=16, steps=3, dtype="float64"
    )
    assert images.scores.shape == (3, 2)
    assert images.scores.dtype == np.float64
    network.double()
    first = torch.tensor(start(0, "down:2", (16, 16, 3))).permute(2, 0, 1)[None]
    with torch.no_grad():
        expected = up_to(network, "down", first)[0, 2].mean().item()
    assert images.scores[0, 1] == pytest.approx(expected, rel=1e-12)
    assert (np.diff(images.scores, axis=0) > 0).all()


def test_without_its_preprocessing_unless_asked_for(network: Any, up_to: Any) -> None:
    from agnostic.models.attached import attach
    from agnostic.models.cards import ModelCard, Preprocessing

    attach(network, ModelCard("x", Preprocessing((100.0, 110.0, 120.0), (2.0, 3.0, 4.0), 255.0, "BGR"), (16, 16)))
    objective = ag.objectives.channel("down", 1)
    raw = ag.visualize(network, objective, recipe="classic", size=16, steps=5, dtype="float64")[0]
    prepared = ag.visualize(
        network, objective, recipe=ag.recipes.classic(preprocess=True, steps=5), size=16, dtype="float64"
    )[0]
    network.double()
    first = start(0, "down:1", (16, 16, 3))
    mean, std = (torch.tensor(x, dtype=torch.float64)[:, None, None] for x in ((100, 110, 120), (2, 3, 4)))
    np.testing.assert_allclose(raw, book(lambda x: up_to(network, "down", x), 1, first, 5), rtol=0, atol=TOLERANCE)
    expected = book(lambda x: up_to(network, "down", (x.flip(1) - mean) / std), 1, first, 5)
    np.testing.assert_allclose(prepared, expected, rtol=0, atol=TOLERANCE)
    assert np.abs(raw - prepared).max() > 0.1
