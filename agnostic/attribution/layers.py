"""Layers as grids over the image: positions of convolutions, tokens of transformers; and which layer to look at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from agnostic.attribution.network import ExplainedModel
from agnostic.errors import InvalidInput
from agnostic.layers import Layer, Selector, select
from agnostic.text import counted
from agnostic.visualization.grids import grid as layer_grid

Array = npt.NDArray[np.float64]

_TOGETHER = 12
"""Layers whose gradients are asked for in one run, from the end of the model; most models need one run."""


def grid(layer: Layer, size: tuple[int, int]) -> tuple[int, int, int] | None:
    """As :func:`agnostic.visualization.grids.grid`, of a layer that runs once; None for others."""
    return layer_grid(layer, size) if layer.calls == 1 else None


def on_grid(layer: Layer, values: npt.NDArray[np.float64], size: tuple[int, int]) -> npt.NDArray[np.float64]:
    """(rows, channels, height, width) of a layer's output, without the tokens that stand for no patch."""
    found, axes = grid(layer, size), layer.axes or ""
    if found is None:
        shape = "no single array" if layer.shape is None else f"{layer.axes} {layer.shape}"
        raise InvalidInput(
            f"layer {layer.name!r} is no grid over the image ({shape}, {counted(layer.calls, 'call')}): choose a "
            "convolution, a block, or a layer of patches that runs once"
        )
    height, width, extra = found
    order = [axes.index("N"), axes.index("C"), *(i for i, axis in enumerate(axes) if axis not in "NC")]
    moved = np.transpose(values, order)
    rows, channels = moved.shape[:2]
    # Height before width, whatever lay first in the layer's own order.
    if axes.find("W") < axes.find("H"):
        moved = np.swapaxes(moved, 2, 3)
    flat = moved.reshape(rows, channels, -1)[..., extra:]
    return flat.reshape(rows, channels, height, width)


def layer_gradients(network: ExplainedModel, selector: Selector | None) -> tuple[Layer, Array, Array]:
    """The layer whose channels a class activation map weighs, its output, and the gradient of the scores there.

    Without a selector: the last one with weights that is a grid and from which the scores have a gradient at its
    patches, or what follows it, or holds it, at the same resolution: the last block of a ResNet, the last ReLU of a
    VGG, what goes into the last attention of a ViT, after which the class token alone counts. Where the score is of one
    channel alone, as in the map of a class that segmentation returns, there is nothing to weigh: a layer before it.

    Returns:
        The layer, and two arrays (N, channels, height, width).

    Raises:
        InvalidInput, UnknownName: no layer is such a grid; the selector chooses none, or several.
    """
    size = network.size
    if selector is not None:
        candidates = select(network.listing, selector)
        if len(candidates) != 1:
            found = counted(len(candidates), "layer")
            raise InvalidInput(f"{selector!r} chooses {found}: a class activation map is of one")
        # Told before the model runs.
        on_grid(candidates[0], np.zeros([n or 1 for n in candidates[0].shape or ()]), size)
    else:
        candidates = _candidates(network.listing, size)
    only: tuple[Layer, Array, Array] | None = None
    for start in range(0, len(candidates), _TOGETHER):
        tried = candidates[start : start + _TOGETHER]
        seen = network.gradients(network.images, np.arange(network.count), tried)
        for layer in tried:
            gradients = on_grid(layer, seen.gradients[layer.name], size)
            weighed = (gradients != 0).any((2, 3)).sum(1).max()  # the most that the score of an image depends on
            one = layer, on_grid(layer, seen.values[layer.name], size), gradients
            if selector is not None or weighed > 1:
                return one
            if weighed and only is None:
                only = one
    if only is not None:
        return only
    raise InvalidInput(
        "no layer of the model is a grid over the image that its scores depend on: choose one with layer=..., or a "
        "method that needs none, such as 'integrated_gradients' or 'occlusion'"
    )


def _candidates(listing: Sequence[Layer], size: tuple[int, int]) -> list[Layer]:
    """Grids from the end of the model; for each layer with weights first what holds or follows it."""
    grids = [x for x in listing if x.name and grid(x, size) is not None]
    holders = {x.name for x in listing if any(y.name.startswith(f"{x.name}.") for y in listing)}
    found: dict[str, Layer] = {}
    for i in reversed(range(len(grids))):
        leaf = grids[i]
        if leaf.name in holders or not leaf.parameters:
            continue
        same = [x for x in grids if grid(x, size) == grid(leaf, size)]
        around = [x for x in same if leaf.name.startswith(f"{x.name}.")]
        after = [x for x in grids[i + 1 :] if x in same and not x.parameters and x.name not in holders]
        found.update((x.name, x) for x in (*around, *after[:1], leaf))
    return list(found.values())
