"""Layers as grids over the image: positions of convolutions, tokens of transformers."""

from __future__ import annotations

import math

from agnostic.layers import Layer

_MOST_EXTRA = 16
"""Tokens that stand for no patch, before the others: classes, distillation, registers."""


def grid(layer: Layer, size: tuple[int, int]) -> tuple[int, int, int] | None:
    """(height, width, other tokens before them) of what a layer returns for images of a size; None if it is no grid.

    Tokens are a grid where their number, without a few others before them, is that of square patches of the image.
    """
    if layer.shape is None or layer.axes is None or "N" not in layer.axes:
        return None
    lengths = dict(zip(layer.axes, layer.shape, strict=True))
    if layer.spatial and len(layer.axes) == 4:
        height, width = lengths["H"] or 0, lengths["W"] or 0
        return (height, width, 0) if height * width > 1 else None
    return token_grid(layer, size)


def token_grid(layer: Layer, size: tuple[int, int]) -> tuple[int, int, int] | None:
    """The same of tokens alone; None for any other layer."""
    if layer.shape is None or layer.axes is None or sorted(layer.axes) != sorted("NLC"):
        return None
    # Channels before places are those of a convolution over a row, to which no token is added.
    most = _MOST_EXTRA if layer.axes.endswith("C") else 1
    return patches(layer.shape[layer.axes.index("L")] or 0, size, most)


def patches(tokens: int, size: tuple[int, int], most: int = _MOST_EXTRA) -> tuple[int, int, int] | None:
    """The same of a number of tokens, of which fewer than ``most`` stand for no patch."""
    for extra in range(min(most, tokens - 3)):
        height = round(math.sqrt((tokens - extra) * size[0] / size[1]))
        if height > 1 and (tokens - extra) % height == 0:
            width = (tokens - extra) // height
            if width > 1 and math.isclose(size[0] / height, size[1] / width, rel_tol=0.02):
                return height, width, extra
    return None
