"""Images with an alpha, images that share what is coarse, and which pixels mattered."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

import agnostic as ag
from agnostic.errors import InvalidInput
from agnostic.reference.ops import NumpyOps
from agnostic.visualization.layered import Alpha, Shared, backgrounds
from agnostic.visualization.parameterization import CPPN, Fourier, Masked, Phase, Pixels, Pyramid
from agnostic.visualization.recipes import Recipe
from agnostic.visualization.robustness import Whole

ops = NumpyOps()
channel, opacity, visualize = ag.objectives.channel, ag.objectives.opacity, ag.visualize


def drawn(image: object, parameters: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    return image.image(ops, parameters, image.constants(shape), shape)  # type: ignore[attr-defined]


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.Tanh(), nn.Conv2d(4, 4, 3)).eval()


def plain(**changes: object) -> Recipe:
    """The image as it is, without noise, so that what is seen is what is drawn."""
    return ag.recipes.fourier(views=Whole(), preprocess=False, **changes)


# Alpha ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("inside", [Fourier(), Phase(), Pyramid(), CPPN(width=3, depth=2)])
@pytest.mark.parametrize("channels", [1, 3])
def test_alpha_is_one_more_channel_that_is_written_down_alike(inside: Fourier, channels: int) -> None:
    image, shape = Alpha(inside), (9, 8, channels)
    start = np.stack([image.initial(np.random.default_rng(i), shape) for i in range(2)])
    found = drawn(image, start, shape)
    assert found.shape == (2, 9, 8, channels + 1)
    size = inside.initial(np.random.default_rng(0), shape).size
    for part, rows in (
        (found[..., :channels], start[:, :size]),
        (found[..., channels:], start[:, size:]),
    ):
        own = (9, 8, part.shape[-1])
        rows = rows.reshape(2, *inside.initial(np.random.default_rng(0), own).shape)
        np.testing.assert_array_equal(part, drawn(inside, rows, own))


def test_an_image_is_opaque_where_it_starts_from_a_photo() -> None:
    photo = np.random.default_rng(0).random((8, 8, 3)) * 0.9 + 0.05
    image = Alpha(Fourier())
    found = drawn(image, image.parameters_of(photo)[None], photo.shape)[0]
    # A transform there and back, a logarithm and its inverse, in float64.
    np.testing.assert_allclose(found[..., :3], photo, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found[..., 3], 0.99, rtol=0, atol=1e-12)
    faint = np.concatenate([photo, np.full((8, 8, 1), 0.25)], 2)
    np.testing.assert_allclose(drawn(image, image.parameters_of(faint)[None], photo.shape)[0], faint, atol=1e-12)


@pytest.mark.parametrize("inside", [Pixels(), Alpha()])
def test_alpha_is_for_opaque_images_in_the_unit_range(inside: object) -> None:
    with pytest.raises(InvalidInput, match=r"^alpha is for an opaque image in \[0, 1\], such as Fourier\(\), not "):
        Alpha(inside)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match=r"put the mask inside, as Alpha\(Masked\(\.\.\.\)\)$"):
        Masked(Alpha(), np.ones((4, 4)), np.zeros((4, 4, 3)))


def test_backgrounds_are_random_images_without_a_seam() -> None:
    found = backgrounds(np.random.default_rng(0), (64, 32, 3))
    assert found.shape == (64, 32, 3)
    assert 0 < found.min() < 0.2
    assert 0.8 < found.max() < 1
    inside, seam = np.abs(np.diff(found, axis=0)).mean(), np.abs(found[0] - found[-1]).mean()
    assert seam < 2 * inside  # as near as neighbours are


def test_the_model_sees_what_is_opaque_and_a_background_through_the_rest(model: nn.Module) -> None:
    seen: list[torch.Tensor] = []
    model[0].register_forward_pre_hook(lambda module, args: seen.append(args[0].detach().clone()))
    start = np.full((16, 16, 3), 0.5, np.float32)
    recipe = plain(image=Alpha(), steps=3)
    found = visualize(model, channel("2", [1, 2]), recipe=recipe, start=start, micro_batch=2)
    assert found.shape == (2, 16, 16, 4)
    rows = np.stack([x.numpy() for x in seen if len(x) == 2])[-3:]  # (steps, images, C, H, W)
    # At the start 0.99 of each pixel is the image, and 0.01 the background: another one in each step and image.
    behind = (rows[0] - 0.99 * 0.5) / 0.01
    assert -1e-3 < behind.min() < behind.max() < 1 + 1e-3
    assert np.abs(behind[0] - behind[1]).mean() > 0.1
    assert np.abs(rows[0] - rows[1]).max() > 1e-3


def test_opacity_is_the_mean_alpha_and_pays_for_what_is_not_needed(model: nn.Module) -> None:
    recipe = plain(image=Alpha(), steps=30)
    found = visualize(model, 1e-6 * channel("2", 1) - opacity(), recipe=recipe, size=16)
    assert found.scores[0, 0] == pytest.approx(-0.5, abs=0.1)  # a spectrum of deviation 0.01 about a half
    assert np.asarray(found)[..., 3].mean() < 0.4
    with pytest.raises(InvalidInput, match=r"^the images of 'fourier' are opaque, so they have no opacity: use "):
        visualize(model, channel("2", 1) * (1 - opacity()), size=16, steps=1)


# Shared --------------------------------------------------------------------------------------------------------------
def test_what_is_coarse_is_the_same_for_all_images_of_a_batch() -> None:
    image, shape = Shared(Fourier(deviation=0.0), coarser=(2, 5), deviation=1.0), (10, 10, 3)
    start = np.stack([image.initial(np.random.default_rng(i), shape) for i in range(3)])
    found = drawn(image, start, shape)
    np.testing.assert_array_equal(found[1:], found[:-1])
    assert found[0].std() > 0.05
    # The mean of the copies counts, whichever of them moves.
    moved = start.copy()
    moved[1, -1] += 3.0
    each = start.copy()
    each[:, -1] += 1.0
    np.testing.assert_allclose(drawn(image, moved, shape), drawn(image, each, shape), rtol=0, atol=1e-14)


def test_own_parts_differ_and_a_start_is_taken_as_it_is() -> None:
    photo = np.random.default_rng(0).random((8, 12, 3)) * 0.9 + 0.05
    for inside in (Fourier(), Pyramid(levels=2)):
        image = Shared(inside)
        both = np.stack([image.parameters_of(photo), image.parameters_of(1 - photo)])
        np.testing.assert_allclose(drawn(image, both, photo.shape), np.stack([photo, 1 - photo]), atol=1e-12)


def test_shared_images_are_computed_together_and_look_more_alike(model: nn.Module) -> None:
    def apart(image: object) -> float:
        found = visualize(
            model, channel("2", [0, 1]), recipe=plain(image=image, steps=20), size=16, micro_batch=1, seed=3
        )
        return float(np.abs(np.diff(np.asarray(found), axis=0)).mean())

    assert apart(Shared()) < apart(Fourier())
    assert Alpha(Shared()).couples
    assert Masked(Shared(), np.ones((4, 4)), np.zeros((4, 4, 3))).couples


# Importance ----------------------------------------------------------------------------------------------------------
def test_the_importance_of_pixels_is_the_sum_of_absolute_gradients(model: nn.Module) -> None:
    recipe = ag.recipes.classic(steps=3, importance=True)
    without = visualize(model, channel("2", [0, 3]), recipe=dataclasses.replace(recipe, importance=False), size=12)
    found = visualize(model, channel("2", [0, 3]), recipe=recipe, size=12)
    np.testing.assert_array_equal(np.asarray(found), np.asarray(without))
    assert without.importance is None
    assert found.importance is not None
    # The same steps by hand, in float64, from the recipe's own start.
    pixels = np.stack([_start(i) for i in (0, 3)])
    double, expected = model.double(), np.zeros((2, 12, 12))
    for _ in range(3):
        x = torch.from_numpy(pixels).permute(0, 3, 1, 2).requires_grad_()
        score = double(x).mean((2, 3))[[0, 1], [0, 3]].sum()
        gradient = torch.autograd.grad(score, x)[0].permute(0, 2, 3, 1).numpy()
        expected += np.abs(gradient).sum(3)
        root = np.sqrt((gradient**2).mean((1, 2, 3), keepdims=True))
        pixels = pixels + gradient / (root + 1e-5)
    # Two convolutions of float32 there and back: 27 and 36 products in each sum, of pixels in 0..255 before a tanh.
    np.testing.assert_allclose(found.importance, expected, rtol=0, atol=1e-4 * expected.max())
    assert found[1:].importance is not None
    assert found[1:].importance.shape == (1, 12, 12)


def _start(index: int) -> np.ndarray:
    import zlib

    rng = np.random.default_rng((0, zlib.crc32(f"2:{index}".encode()), 0, 0))
    return rng.random((12, 12, 3)) * 20 + 128


def test_what_never_mattered_fades(model: nn.Module) -> None:
    found = visualize(model, channel("2", 0), recipe=ag.recipes.maco(steps=2, size=16))
    assert found.importance is not None
    faded = found.faded()
    assert faded.shape == (1, 16, 16, 4)
    np.testing.assert_array_equal(faded[..., :3], np.asarray(found))
    opaque = found.importance >= np.percentile(found.importance, 80)
    np.testing.assert_array_equal(faded[..., 3] == 1, opaque)
    assert not faded[0, -1, -1, 3]  # no kernel of stride 2 reaches the last row of 16
    assert (found.faded(100)[..., 3] == 1).sum() == 1
    with pytest.raises(InvalidInput, match=r"use a recipe that keeps it, such as maco\(\) or fourier\("):
        visualize(model, channel("2", 0), size=16, steps=1).faded()
    with pytest.raises(InvalidInput, match=r"^opaque images .* fade, from a percentile above 0 to 100, not .* from 0$"):
        found.faded(0)
