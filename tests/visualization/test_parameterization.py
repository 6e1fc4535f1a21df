"""How images are written down: pixels, a scaled spectrum, the phase of one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agnostic.errors import InvalidInput
from agnostic.reference.ops import NumpyOps
from agnostic.visualization.parameterization import (
    COLOUR_CORRELATION,
    CPPN,
    Fourier,
    Masked,
    Phase,
    Pixels,
    Pyramid,
    frequencies,
)

ops = NumpyOps()
SHAPES = [(8, 8, 3), (7, 9, 3), (6, 5, 1), (1, 4, 3), (3, 2, 2)]


def logit(x: np.ndarray) -> np.ndarray:
    return np.log(x) - np.log1p(-x)


# Pixels ---------------------------------------------------------------------------------------------------------------
def test_pixels_start_as_the_book_says_and_are_the_image() -> None:
    start = Pixels().initial(np.random.default_rng(4), (5, 6, 3))
    np.testing.assert_array_equal(start, np.random.default_rng(4).random((5, 6, 3)) * 20 + 128)
    assert Pixels().constants((5, 6, 3)) == {}
    assert Pixels().image(ops, start[None], {}, (5, 6, 3)) is not None
    np.testing.assert_array_equal(Pixels().image(ops, start[None], {}, (5, 6, 3)), start[None])
    assert Pixels().white == 255


def test_pixels_are_displayed_by_their_own_mean_and_deviation_an_image() -> None:
    images = np.random.default_rng(0).normal(100, 30, (2, 9, 9, 3)) * np.array([1, 1e-3])[:, None, None, None]
    shown = Pixels().display(ops, images)
    for image, found in zip(images, shown, strict=True):
        expected = np.clip((image - image.mean()) / (image.std() + 1e-5) * 0.1 + 0.5, 0, 1)
        # The mean of 243 numbers of 100 in float64, divided by a deviation of 30.
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13)
    # An image without any contrast is grey, not a division by zero.
    np.testing.assert_array_equal(Pixels().display(ops, np.full((1, 3, 3, 3), 7.0)), np.full((1, 3, 3, 3), 0.5))


# Fourier --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("image", [Fourier(), Phase(), Pyramid(), CPPN(width=3, depth=2)])
def test_parameters_become_images_of_the_shape(
    image: Fourier | Phase | Pyramid | CPPN, shape: tuple[int, int, int]
) -> None:
    start = np.stack([image.initial(np.random.default_rng(i), shape) for i in range(2)])
    pixels = image.image(ops, start, image.constants(shape), shape)
    assert pixels.shape == (2, *shape)
    assert 0 < pixels.min() <= pixels.max() < 1
    np.testing.assert_array_equal(image.display(ops, pixels), pixels)


@pytest.mark.parametrize("shape", SHAPES)
def test_an_empty_spectrum_is_mid_grey(shape: tuple[int, int, int]) -> None:
    fourier = Fourier()
    empty = np.zeros_like(fourier.initial(np.random.default_rng(0), shape))[None]
    np.testing.assert_array_equal(fourier.image(ops, empty, fourier.constants(shape), shape), np.full((1, *shape), 0.5))


def test_frequencies_are_in_cycles_a_pixel() -> None:
    found = frequencies(8, 6)
    assert found.shape == (8, 4)
    assert found[0, 0] == 0
    assert found[2, 0] == found[6, 0] == 0.25
    assert found[0, 3] == 0.5
    assert found[4, 3] == pytest.approx(np.hypot(0.5, 0.5))


def test_the_spectrum_is_scaled_by_one_over_its_frequency_and_a_quarter() -> None:
    scale = Fourier().constants((8, 16, 3))["scale"]
    assert scale[0, 1] == 0.25 * 16  # one cycle in 16 pixels
    assert scale[0, 0] == 0.25 * 16  # the mean as the lowest frequency
    assert scale[0, 8] == 0.25 * 2
    assert scale[3, 4] == pytest.approx(0.25 / np.hypot(3 / 8, 4 / 16))
    np.testing.assert_allclose(Fourier(decay=2, gain=1).constants((8, 16, 3))["scale"], (4 * scale) ** 2)


def test_the_start_of_the_spectrum_has_the_deviation_asked_for() -> None:
    start = Fourier(deviation=0.3).initial(np.random.default_rng(0), (40, 40, 3))
    assert start.std() == pytest.approx(0.3, rel=5 / np.sqrt(2 * start.size))
    assert abs(start.mean()) < 5 * 0.3 / np.sqrt(start.size)


@pytest.mark.parametrize("shape", [(8, 10), (7, 10), (8, 9), (1, 5)])
def test_the_inverse_transform_is_orthonormal(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    image = rng.standard_normal(shape)
    spectrum = np.fft.rfft2(image, norm="ortho")
    back = ops.irfft2(spectrum.real, spectrum.imag, shape)
    # An orthonormal pair of transforms of n numbers: a few log2(n) roundings.
    np.testing.assert_allclose(back, image, rtol=0, atol=100 * 2**-53)
    weight = np.full(spectrum.shape, 2.0)
    weight[:, 0] = 1
    if shape[1] % 2 == 0:
        weight[:, -1] = 1
    # Parseval: the energies are equal, each inner term counted for its mirror image as well.
    assert (weight * np.abs(spectrum) ** 2).sum() == pytest.approx((back**2).sum(), rel=1e-13)


@pytest.mark.parametrize("shape", [(8, 10, 3), (7, 9, 3), (6, 5, 1)])
def test_fourier_is_the_straightforward_formula(shape: tuple[int, int, int]) -> None:
    fourier, rng = Fourier(), np.random.default_rng(1)
    parameters = rng.standard_normal((2, 2, shape[2], shape[0], shape[1] // 2 + 1))
    found = fourier.image(ops, parameters, fourier.constants(shape), shape)
    height, width, channels = shape
    for n in range(2):
        planes = []
        for c in range(channels):
            spectrum = parameters[n, 0, c] + 1j * parameters[n, 1, c]
            f = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
            spectrum = spectrum / np.maximum(f, 1 / max(height, width))
            planes.append(np.fft.irfft2(spectrum, (height, width)) * np.sqrt(height * width) / 4)
        plane = np.stack(planes, -1)
        if channels == 3:
            plane = np.einsum("rd,hwd->hwr", COLOUR_CORRELATION, plane)
        np.testing.assert_allclose(found[n], 1 / (1 + np.exp(-plane)), rtol=0, atol=1e-14)


def test_colours_are_correlated_as_in_photographs() -> None:
    # Lucid's table, whose longest column is scaled to one: sqrt(0.26^2 + 0.27^2 + 0.27^2) = 0.46195.
    np.testing.assert_allclose(COLOUR_CORRELATION[:, 0], np.array([0.26, 0.27, 0.27]) / 0.4619523784, rtol=1e-9)
    np.testing.assert_allclose(COLOUR_CORRELATION[:, 1], np.array([0.09, 0.00, -0.09]) / 0.4619523784, rtol=1e-9)
    np.testing.assert_allclose(COLOUR_CORRELATION[:, 2], np.array([0.02, -0.05, 0.03]) / 0.4619523784, rtol=1e-9)
    assert np.linalg.norm(COLOUR_CORRELATION, axis=0).max() == pytest.approx(1, rel=1e-15)
    # The first decorrelated channel is brightness: alone it makes an image of all but grey.
    fourier, shape = Fourier(), (8, 8, 3)
    parameters = fourier.initial(np.random.default_rng(0), shape)[None] * 100
    parameters[:, :, 1:] = 0
    r, g, b = np.moveaxis(logit(fourier.image(ops, parameters, fourier.constants(shape), shape)), -1, 0)
    np.testing.assert_allclose(r, g * 26 / 27, rtol=0, atol=1e-12)
    np.testing.assert_allclose(b, g, rtol=0, atol=1e-12)


@pytest.mark.parametrize("image", [Fourier(deviation=1.0), Phase(), Pixels()])
@pytest.mark.parametrize("shape", [(6, 8, 3), (5, 7, 1)])
def test_the_gradient_is_that_of_finite_differences(
    image: Fourier | Phase | Pixels, shape: tuple[int, int, int]
) -> None:
    torch = pytest.importorskip("torch")
    from agnostic_torch.ops import TorchOps

    rng, torch_ops = np.random.default_rng(2), TorchOps()
    start = np.stack([image.initial(rng, shape) for _ in range(2)])
    weights = rng.standard_normal((2, *shape))
    constants = image.constants(shape)

    def value(parameters: np.ndarray) -> float:
        return float((weights * image.display(ops, image.image(ops, parameters, constants, shape))).sum())

    parameters = torch.tensor(start, requires_grad=True)
    native = {name: torch_ops.asarray(array) for name, array in constants.items()}
    shown = image.display(torch_ops, image.image(torch_ops, parameters, native, shape))
    (gradient,) = torch.autograd.grad((torch.tensor(weights) * shown).sum(), parameters)
    for _ in range(5):
        direction = rng.standard_normal(start.shape)
        h = 1e-5
        difference = (value(start + h * direction) - value(start - h * direction)) / (2 * h)
        # Central differences: h^2 of curvature (1e-10), and 2^-53 of a value of about ten over h (1e-10).
        assert float((gradient.numpy() * direction).sum()) == pytest.approx(difference, rel=1e-7, abs=1e-7)


# Phase ----------------------------------------------------------------------------------------------------------------
@given(seed=st.integers(0, 2**32), shape=st.sampled_from([(8, 10), (7, 9), (6, 5), (12, 12)]))
def test_the_magnitude_of_the_spectrum_stays_whatever_the_phase(seed: int, shape: tuple[int, int]) -> None:
    phase, full = Phase(), (*shape, 1)  # one channel: no colours between spectrum and sigmoid
    parameters = np.random.default_rng(seed).uniform(-9, 9, phase.initial(np.random.default_rng(0), full).shape)[None]
    constants = phase.constants(full)
    spectrum = np.fft.rfft2(logit(phase.image(ops, parameters, constants, full))[0, ..., 0], norm="ortho")
    given_ = constants["magnitude"]
    inner = slice(1, -1 if shape[1] % 2 == 0 else None)
    # Values of the logit up to 5 lose e^5 roundings in the sigmoid and back.
    np.testing.assert_allclose(np.abs(spectrum)[:, inner], given_[:, inner], rtol=0, atol=1e-12)
    # The terms that are their own mirror image, or have it in their column, keep what is real of them together.
    assert (np.abs(spectrum) <= given_ + 1e-12).all()
    assert given_[0, 0] == 0


def test_the_magnitude_falls_as_one_over_the_frequency_to_the_contrast_asked_for() -> None:
    shape = (32, 32, 1)
    magnitude = Phase(contrast=0.7).constants(shape)["magnitude"]
    assert magnitude[0, 2] == pytest.approx(magnitude[0, 1] / 2)
    assert magnitude[3, 4] == pytest.approx(magnitude[0, 1] / 5)
    assert Phase(decay=2).constants(shape)["magnitude"][0, 2] == pytest.approx(
        Phase(decay=2).constants(shape)["magnitude"][0, 1] / 4
    )
    phase = Phase(contrast=0.7)
    start = np.stack([phase.initial(np.random.default_rng(i), shape) for i in range(200)])
    assert np.abs(start).max() <= np.pi
    images = logit(phase.image(ops, start, phase.constants(shape), shape))
    # Parseval gives the deviation of every image but for the terms of the first and last column (a quarter of the
    # power at this decay), of which random phases keep half on average.
    assert 0.55 < np.sqrt((images**2).mean()) < 0.7


# Pyramids, small networks, masks --------------------------------------------------------------------------------------
@pytest.mark.parametrize("shape", SHAPES)
def test_a_pyramid_writes_an_image_down_and_adds_its_levels(shape: tuple[int, int, int]) -> None:
    image = np.random.default_rng(0).uniform(0.05, 0.95, shape)
    pyramid = Pyramid(levels=3)
    written = pyramid.parameters_of(image)
    assert written.shape == pyramid.initial(np.random.default_rng(0), shape).shape
    constants = pyramid.constants(shape)
    np.testing.assert_allclose(pyramid.image(ops, written[None], constants, shape)[0], image, rtol=1e-12)
    # A number of the coarsest level moves a whole part of the image, one of the finest a pixel.
    moved = {}
    for place in (0, len(written) - 1):
        changed = written.copy()
        changed[place] += 0.5
        apart = np.abs(pyramid.image(ops, changed[None], constants, shape)[0] - image).max(-1)
        moved[place] = int((apart > 1e-9).sum())
    assert moved[0] == 1
    assert moved[len(written) - 1] > 1


def test_a_small_network_has_any_resolution() -> None:
    shape, cppn = (5, 7, 3), CPPN(width=4, depth=2, enlarged=3)
    start = np.stack([cppn.initial(np.random.default_rng(i), shape) for i in range(2)])
    # Colours come in with the last layer, whose weights are zero at the start.
    np.testing.assert_array_equal(cppn.image(ops, start, cppn.constants(shape), shape), np.full((2, *shape), 0.5))
    start += np.random.default_rng(9).normal(0, 0.3, start.shape)
    small, large = (cppn.image(ops, start, cppn.constants(shape), s) for s in (shape, (15, 21, 3)))
    np.testing.assert_allclose(small, large[:, 1::3, 1::3], rtol=1e-12)  # the centres of both lie on each other
    with pytest.raises(InvalidInput, match="writes no given image down"):
        cppn.parameters_of(np.zeros(shape))


def test_a_mask_keeps_what_is_around_it() -> None:
    shape, rng = (6, 4, 3), np.random.default_rng(0)
    mask, around = np.zeros((6, 4)), rng.random(shape)
    mask[1:3, 1:3] = 1
    for inside in (Fourier(), Pixels()):
        masked = Masked(inside, mask, around)
        found = masked.image(ops, masked.initial(rng, shape)[None], masked.constants(shape), shape)
        shown = masked.display(ops, found)[0]
        np.testing.assert_allclose(shown[mask == 0], around[mask == 0], rtol=1e-12)
        assert (np.abs(shown - around)[mask == 1] > 1e-3).all()
        assert masked == Masked(inside, mask.copy(), around)
        assert masked != Masked(inside, 1 - mask, around)
        assert hash(masked) == hash(Masked(inside, mask.copy(), around))
    for wrong, words in ((Masked(Fourier(), mask[1:], around), "have the size of the image"),
                         (Masked(Fourier(), mask * 2, around), r"are in \[0, 1\]")):  # fmt: skip
        with pytest.raises(InvalidInput, match=words):
            wrong.constants(shape)
