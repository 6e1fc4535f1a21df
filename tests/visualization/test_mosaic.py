"""A mosaic: where each image goes, and what is between them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import agnostic as ag


@given(
    count=st.integers(1, 12), height=st.integers(1, 5), width=st.integers(1, 5), columns=st.integers(1, 9),
    gap=st.integers(0, 4), tail=st.sampled_from([(), (1,), (3,), (4,)]),
)  # fmt: skip
def test_every_image_stands_in_its_place_and_the_rest_is_black(
    count: int, height: int, width: int, columns: int, gap: int, tail: tuple[int, ...]
) -> None:
    images = np.random.default_rng(0).integers(1, 255, (count, height, width, *tail)).astype(np.uint8)
    made = ag.mosaic(images, columns=columns, gap=gap)
    across = min(columns, count)
    down = (count + across - 1) // across
    assert made.shape == (down * (height + gap) + gap, across * (width + gap) + gap, *tail)
    rest = made.copy()
    for i, image in enumerate(images):
        y, x = gap + (i // across) * (height + gap), gap + (i % across) * (width + gap)
        np.testing.assert_array_equal(made[y : y + height, x : x + width], image)
        rest[y : y + height, x : x + width] = 0
    assert not rest.any()


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64", "uint16"])
def test_the_type_is_that_of_the_images(dtype: str) -> None:
    assert ag.mosaic(np.ones((3, 2, 2, 3), dtype)).dtype == dtype


def test_the_seeds_layout() -> None:
    # 64 filters of 150 x 150, 8 in a row, 5 pixels between them; with a gap around the whole as well.
    assert ag.mosaic(np.zeros((64, 150, 150, 3), np.uint8)).shape == (8 * 155 + 5, 8 * 155 + 5, 3)
    assert ag.mosaic(np.zeros((3, 10, 10, 3))).shape == (20, 3 * 15 + 5, 3)


def test_images_are_not_changed_and_lists_are_taken() -> None:
    images = [np.full((2, 2), i, np.float32) for i in range(3)]
    made = ag.mosaic(images, columns=2, gap=1)
    made[:] = 9
    assert images[1][0, 0] == 1


@pytest.mark.parametrize(
    ("shape", "options", "words"),
    [
        ((2, 2), {}, r"\(2, 2\)"),
        ((0, 2, 2, 3), {}, "N > 0"),
        ((1, 1, 2, 2, 3), {}, r"\(1, 1, 2, 2, 3\)"),
        ((1, 2, 2, 3), {"columns": 0}, "at least one column"),
        ((1, 2, 2, 3), {"gap": -1}, "gap of at least 0"),
    ],
)
def test_what_is_no_batch_of_images_is_refused(shape: tuple[int, ...], options: dict[str, int], words: str) -> None:
    with pytest.raises(ag.InvalidInput, match=words):
        ag.mosaic(np.zeros(shape), **options)
