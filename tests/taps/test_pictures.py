"""Activations as tiles, and the colours that they are shown in."""

import numpy as np
import pytest

from agnostic.errors import InvalidInput, NonFinite
from agnostic.taps.pictures import tiles
from agnostic.visualization.colormap import colorize, table

DARK, BRIGHT = table()[0], table()[-1]


def lightness(rgb):
    """CIE 1976 L* of sRGB (IEC 61966-2-1 for the transfer curve, Y of the sRGB primaries)."""
    x = rgb / 255
    linear = np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
    y = linear @ np.array([0.2126, 0.7152, 0.0722])
    return np.where(y > (6 / 29) ** 3, 116 * np.cbrt(y) - 16, y * (29 / 3) ** 3)


def test_the_colours_grow_evenly_lighter():
    light = lightness(table().astype(float))
    assert light[0] < 10
    assert light[-1] > 95
    # Even steps, but for 8 bits a channel and for what OKLab's lightness and L* disagree about.
    assert np.abs(light - np.linspace(light[0], light[-1], 256)).max() < 3
    assert (np.diff(light) > 0).all()


def test_no_colour_was_cut_off_at_the_edge_of_what_a_screen_shows():
    # A channel that is clipped stays at 0 or 255 for a while.
    for channel in table().T:
        for edge in (0, 255):
            assert (channel == edge).sum() <= 12


def test_colorize():
    assert (colorize(np.array([-1.0, 0, 1, 2])) == [DARK, DARK, BRIGHT, BRIGHT]).all()
    assert colorize(np.zeros((2, 3))).shape == (2, 3, 3)


@pytest.mark.parametrize("axes", ["NCHW", "NHWC", "CHW", "HWC"])
def test_layouts(axes):
    maps = np.arange(2 * 100 * 120, dtype=np.float32).reshape(2, 100, 120)
    activation = maps if "CH" in axes else np.moveaxis(maps, 0, -1)
    drawn = tiles(activation[None] if "N" in axes else activation, axes, [1], layer="a")
    assert drawn.shape == (1, 100, 120, 3)
    assert drawn.dtype == np.uint8
    assert (drawn[0, 0, 0] == DARK).all()
    assert (drawn[0, -1, -1] == BRIGHT).all()


def test_each_channel_has_its_own_scale():
    maps = np.stack([np.linspace(0, 1, 12000), np.linspace(5, 5e6, 12000)]).reshape(1, 2, 100, 120)
    first, second, again = tiles(maps, "NCHW", [1, 0, 1], layer="a").astype(int)
    assert np.abs(first - second).max() <= 3  # one step of the table, from rounding
    assert (first == again).all()


def test_outliers_do_not_darken_the_rest():
    maps = np.tile(np.linspace(0, 1, 100), (100, 1))[None, None]
    maps[0, 0, 0, 0] = 1e6
    drawn = tiles(maps, "NCHW", [0], layer="a")
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) > 90


def test_sparse_and_constant_channels():
    maps = np.zeros((1, 2, 100, 100))
    maps[0, 0, 50, 50] = 3  # one place of ten thousand, far beyond the 99th percentile
    sparse, constant = tiles(maps, "NCHW", [0, 1], layer="a")
    assert (sparse[50, 50] == BRIGHT).all()
    assert (sparse[0, 0] == DARK).all()
    assert (constant == DARK).all()


def test_small_maps_are_enlarged_pixel_by_pixel():
    maps = np.arange(21, dtype=float).reshape(1, 1, 3, 7)
    drawn = tiles(maps, "NCHW", [0], layer="a")
    assert drawn.shape == (1, 42, 98, 3)
    assert all(
        len(np.unique(drawn[0, y : y + 14, x : x + 14].reshape(-1, 3), axis=0)) == 1 for y in (0, 28) for x in (0, 84)
    )


def test_what_cannot_be_drawn():
    for axes, shape in (("NC", (1, 3)), ("NLC", (1, 3, 3)), ("NCHW", (2, 3, 4, 4))):
        with pytest.raises(InvalidInput, match="layer 'a' is drawn for one image with height and width"):
            tiles(np.zeros(shape), axes, [0], layer="a")
    maps = np.zeros((1, 3, 4, 4))
    maps[0, 2, 0, 0] = np.nan
    with pytest.raises(NonFinite, match="channel 2 of layer 'a' holds NaN or infinity"):
        tiles(maps, "NCHW", [0, 2], layer="a")
    assert tiles(maps, "NCHW", [0, 1], layer="a").shape[0] == 2
