"""Views: crops and jitter are affine maps that stay where they should, and noise is a window into one field."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agnostic.reference.ops import NumpyOps
from agnostic.visualization import objectives, recipes
from agnostic.visualization.ascent import Ascent
from agnostic.visualization.robustness import Crops, Jitter, Tiles, Whole, blurring

ops = NumpyOps()
IDENTITY = np.array([[1.0, 0, 0], [0, 1, 0]])
sides = st.floats(0.05, 1.0)


def corners(matrices: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """(..., 2, 2): where the upper left corner of the first pixel and the lower right one of the last are read."""
    ends = np.array([[-0.5, -0.5, 1], [shape[0] - 0.5, shape[1] - 0.5, 1]])
    return matrices @ ends.T


@given(
    seed=st.integers(0, 2**32), low=sides, high=sides, mean=sides, height=st.integers(1, 300), width=st.integers(1, 300)
)
def test_crops_stay_inside_the_image(seed: int, low: float, high: float, mean: float, height: int, width: int) -> None:
    crops = Crops(count=3, mean=mean, deviation=0.3, low=min(low, high), high=max(low, high))
    matrices = crops.matrices(np.random.default_rng(seed), 5, (height, width))
    assert matrices.shape == (5, 3, 2, 3)
    assert matrices.dtype == np.float64
    found = corners(matrices, (height, width))
    # Rounding of a few numbers of at most 300.
    assert (found >= -0.5 - 1e-12 * 300).all()
    assert (found[..., 0, :] <= height - 0.5 + 1e-12 * 300).all()
    assert (found[..., 1, :] <= width - 0.5 + 1e-12 * 300).all()
    # The same fraction of height and width, upright.
    fraction = (found[..., 1] - found[..., 0]) / (height, width)
    np.testing.assert_allclose(fraction[..., 0], fraction[..., 1], rtol=1e-9)
    assert (matrices[..., 0, 1] == 0).all()
    assert (matrices[..., 1, 0] == 0).all()


def test_the_sides_of_crops_have_the_distribution_asked_for_and_their_places_are_uniform() -> None:
    steps, shape = 20_000, (40, 60)
    matrices = Crops(count=2).matrices(np.random.default_rng(0), steps, shape).reshape(-1, 2, 3)
    side = matrices[:, 0, 0]
    assert side.min() == 0.2  # clipped, two standard deviations away: 2.3 % of them
    assert side.max() == 1.0
    assert np.mean(side == 0.2) == pytest.approx(0.0228, abs=5 * np.sqrt(0.0228 / side.size))
    assert np.median(side) == pytest.approx(0.5, abs=5 * 1.2533 * 0.15 / np.sqrt(side.size))
    # A quarter of a normal distribution lies beyond 0.6745 standard deviations on each side, unclipped.
    assert np.quantile(side, 0.75) == pytest.approx(0.5 + 0.6745 * 0.15, abs=0.005)
    free = side < 0.9
    place = (corners(matrices, shape)[free, :, 0] + 0.5) / ((1 - side[free, None]) * shape)
    # Uniform in [0, 1]: mean 1/2, variance 1/12, in both directions and independently.
    np.testing.assert_allclose(place.mean(0), 0.5, atol=5 * np.sqrt(1 / 12 / len(place)))
    np.testing.assert_allclose(place.var(0), 1 / 12, atol=0.005)
    assert abs(np.corrcoef(place.T)[0, 1]) < 5 / np.sqrt(len(place))


@pytest.mark.parametrize("shape", [(7, 7), (5, 12), (1, 1)])
def test_a_crop_of_the_whole_image_is_the_identity(shape: tuple[int, int]) -> None:
    matrices = Crops(count=1, low=1.0, high=1.0).matrices(np.random.default_rng(0), 3, shape)
    np.testing.assert_allclose(matrices, np.broadcast_to(IDENTITY, (3, 1, 2, 3)), rtol=0, atol=1e-15)


def test_a_crop_reads_the_centres_of_its_part() -> None:
    # Half of 4 pixels from the left edge: 4 reading points, a half pixel apart, symmetric about the part's middle.
    matrices = Crops(count=1, low=0.5, high=0.5).matrices(np.random.default_rng(0), 1, (4, 4))[0]
    matrices[..., 2] = 0.5 * 0.5 - 0.5  # the corner (0, 0)
    read = matrices[0] @ np.stack([np.arange(4), np.arange(4), np.ones(4)])
    np.testing.assert_allclose(read[0] + 0.5, [0.25, 0.75, 1.25, 1.75])
    # ... which is what the middle formula says for the drawn corner as well.
    drawn = Crops(count=1, low=0.5, high=0.5).matrices(np.random.default_rng(3), 4, (4, 4))
    first = corners(drawn, (4, 4))[..., 0]
    np.testing.assert_allclose(drawn[..., 2] + 0.5, first + 0.5 + 0.25, atol=1e-14)


def test_jitter_of_nothing_is_the_identity() -> None:
    still = Jitter(shift=0, rotation=0, scale=(1, 1))
    matrices = still.matrices(np.random.default_rng(0), 4, (6, 9))
    np.testing.assert_array_equal(matrices, np.broadcast_to(IDENTITY, (4, 1, 2, 3)))


@given(seed=st.integers(0, 2**32), rotation=st.floats(0, 180), zoom=st.floats(0.5, 2), shift=st.floats(0, 20))
def test_jitter_turns_and_scales_about_the_centre_and_shifts(
    seed: int, rotation: float, zoom: float, shift: float
) -> None:
    shape = (11, 16)
    matrices = Jitter(shift, rotation, (zoom, zoom)).matrices(np.random.default_rng(seed), 6, shape)
    linear = matrices[..., :2]
    # A rotation by at most the angle, divided by the magnification.
    np.testing.assert_allclose(
        linear @ np.swapaxes(linear, -1, -2), np.broadcast_to(np.eye(2) / zoom**2, linear.shape), atol=1e-12
    )
    np.testing.assert_allclose(np.linalg.det(linear), zoom**-2, rtol=1e-12)
    assert (linear[..., 0, 0] * zoom >= np.cos(np.deg2rad(rotation)) - 1e-12).all()
    centre = np.array([5.0, 7.5])
    moved = linear @ centre + matrices[..., 2] - centre
    assert (np.abs(moved) <= shift + 1e-12).all()


def test_jitter_uses_its_whole_range() -> None:
    matrices = Jitter(8, 10, (0.9, 1.1)).matrices(np.random.default_rng(0), 5000, (20, 20))[:, 0]
    angle = np.rad2deg(np.arctan2(matrices[:, 1, 0], matrices[:, 0, 0]))
    zoom = 1 / np.sqrt(np.linalg.det(matrices[..., :2]))
    for values, low, high in ((angle, -10, 10), (zoom, 0.9, 1.1)):
        assert low <= values.min() < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < values.max() <= high


@pytest.mark.parametrize("views", [Crops(), Jitter(noise=0.1)])
def test_the_same_generator_gives_the_same_views_and_leaves_the_global_one_alone(views: Crops | Jitter) -> None:
    before = np.random.get_state()[1].copy()
    one, two = (views.matrices(np.random.default_rng(5), 3, (8, 8)) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, views.matrices(np.random.default_rng(6), 3, (8, 8)))
    np.testing.assert_array_equal(before, np.random.get_state()[1])


def test_a_whole_image_is_one_still_view() -> None:
    assert (Whole().count, Whole().noise) == (1, 0.0)
    assert Whole().matrices(np.random.default_rng(0), 3, (4, 4)) is None


def seen(views: object, shape: tuple[int, int, int] = (6, 8, 3), steps: int = 5) -> tuple[np.ndarray, Ascent]:
    """(steps, rows, H, W, C): what the network is given of a white image by an ascent of two objectives."""
    recipe = dataclasses.replace(recipes.fourier(steps=steps), views=views)
    ascent = Ascent(objectives.channel("a", [0, 1]), recipe, shape, 0, None, {}, 1)
    images = range(ascent.count)
    schedule, constants, rows = ascent.schedule(images), ascent.constants(), []

    class Stop(Exception):
        pass

    def forward(inputs: np.ndarray) -> dict[str, object]:
        rows.append(inputs)
        raise Stop

    for step in range(steps):
        now = {name: values[step] for name, values in schedule.items()}
        with pytest.raises(Stop):
            ascent.score(ops, forward, np.zeros_like(ascent.initial(images)), now, (), constants)
    return np.stack(rows), ascent


def test_noise_is_a_window_into_one_field_of_the_deviation_asked_for() -> None:
    rows, ascent = seen(Crops(count=2, noise=0.05))
    assert rows.shape == (5, 4, 6, 8, 3)
    field = ascent.constants()["noise"]
    assert field.shape == (12, 16, 3)
    assert field.std() == pytest.approx(0.05, rel=5 / np.sqrt(2 * field.size))
    windows = np.lib.stride_tricks.sliding_window_view(field, (6, 8, 3))[:, :, 0]
    noise = rows - 0.5  # an empty spectrum is mid grey, however it is cropped
    found = np.abs(noise[:, :, None, None] - windows).max((-3, -2, -1)).reshape(20, -1)
    assert (found.min(1) < 1e-15).all()  # each row is one of the windows
    assert len(set(found.argmin(1))) > 10  # and not always the same one


def test_without_noise_and_movement_the_network_sees_the_image() -> None:
    rows, ascent = seen(Whole())
    assert rows.shape == (5, 2, 6, 8, 3)
    assert (rows == 0.5).all()
    assert set(ascent.schedule(range(2))) == {"learning_rate", "correction_1", "correction_2"}


# Tiles and blur -------------------------------------------------------------------------------------------------------
def seen_of(recipe: recipes.Recipe, image: np.ndarray) -> np.ndarray:
    """(rows, H, W, C): what the model sees of an image in the first step."""
    found: list[np.ndarray] = []
    height, width, channels = image.shape
    ascent = Ascent(objectives.total_variation(), recipe, (height, width, channels), 3, None, {}, 1, image[None])
    now = {name: array[0] for name, array in ascent.schedule(range(1)).items()}
    arrays, constants = ascent.arrays(range(1)), ascent.constants()
    ascent.score(ops, lambda rows: [found.append(rows), {}][1], ascent.initial(range(1)), now, arrays, constants)
    return found[0]


def test_tiles_are_windows_of_the_image_beside_itself() -> None:
    image = np.random.default_rng(0).uniform(0.1, 0.9, (6, 5, 3))
    rows = seen_of(recipes.fourier(views=Tiles(count=4, noise=0)), image)
    places = [(y, x) for y in range(6) for x in range(5)]
    shifts = [
        next((y, x) for y, x in places if np.allclose(np.roll(image, (-y, -x), (0, 1)), row, atol=1e-9)) for row in rows
    ]
    assert len(set(shifts)) > 1


def test_blur_is_a_gaussian_that_keeps_the_mean_brightness() -> None:
    image = np.full((9, 7, 3), 0.25)
    recipe = recipes.fourier(views=Jitter(shift=0, rotation=0, scale=(1, 1), blur=1.5))
    np.testing.assert_allclose(seen_of(recipe, image)[0], image, rtol=1e-9)
    image[4, 3] = 0.75
    row = seen_of(recipe, image)[0]
    expected = 0.25 + 0.5 * np.outer(blurring(9, 1.5)[:, 4], blurring(7, 1.5)[:, 3])
    np.testing.assert_allclose(row[..., 0], expected, rtol=1e-9)
    np.testing.assert_allclose(blurring(9, 1.5).sum(1), 1, rtol=1e-12)
    assert blurring(9, 1.5)[4, 5] / blurring(9, 1.5)[4, 4] == pytest.approx(np.exp(-1 / (2 * 1.5**2)))


def test_a_tile_has_no_seam(network: object) -> None:
    import agnostic as ag

    recipe = recipes.fourier(views=Tiles())
    image = np.asarray(ag.visualize(network, objectives.channel("block", 3), recipe=recipe, size=16, steps=30)[0])
    inner = np.abs(np.diff(image, axis=0)).mean() + np.abs(np.diff(image, axis=1)).mean()
    across = np.abs(image[0] - image[-1]).mean() + np.abs(image[:, 0] - image[:, -1]).mean()
    assert across < 2 * inner  # the step across the seam is like any other
