"""Captions: where they stand, that they are legible and cut, and that the pictures stay what they are."""

from __future__ import annotations

import numpy as np
import pytest

import agnostic as ag
from agnostic.visualization.captions import captioned

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 60, 120, 3), np.uint8)
LINE = 15  # the font has a twelfth of the width, 10 pixels


def test_each_caption_is_below_its_image_and_the_title_above_all() -> None:
    made = captioned(IMAGES, ["one", "", "three"], columns=2, title="title")
    top = LINE + 5
    assert made.shape == (top + 2 * (60 + LINE + 5) + 5, 2 * 125 + 5, 3)
    for i, image in enumerate(IMAGES):
        y, x = top + 5 + i // 2 * (60 + LINE + 5), 5 + i % 2 * 125
        np.testing.assert_array_equal(made[y : y + 60, x : x + 120], image)
        below = made[y + 60 : y + 60 + LINE, x : x + 120]
        assert (below.max() > 200) == (i != 1)
        below[:] = 0
        made[y : y + 60, x : x + 120] = 0
    assert made[5:top, 5:].max() > 200
    made[:top] = 0
    assert not made.any()


def test_without_texts_it_is_a_mosaic() -> None:
    np.testing.assert_array_equal(captioned(IMAGES, [""] * 3, columns=2), ag.mosaic(IMAGES, columns=2))
    floats = captioned(IMAGES[..., :1] / 255, [""] * 3)
    np.testing.assert_array_equal(floats, np.repeat(ag.mosaic(IMAGES[..., :1]), 3, -1))


def test_a_long_text_is_cut_where_the_image_ends() -> None:
    long = captioned(IMAGES[:1], ["m" * 400])
    assert long.shape == captioned(IMAGES[:1], ["m"]).shape
    line = long[65 : 65 + LINE, 5:125]
    assert line[:, -4:].max() == 0 or line[-6:, -12:].max() > 0  # dots at most
    assert captioned(IMAGES[:1, :, :8], ["mmm"]).shape == (60 + 14 + 10, 18, 3)  # not even dots fit


def test_captions_fit_their_images() -> None:
    with pytest.raises(ag.InvalidInput, match=r"2 captions for \(3, 60, 120, 3\)"):
        captioned(IMAGES, ["a", "b"])
