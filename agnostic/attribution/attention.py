"""Where attention flows: the weights of all layers of a transformer, multiplied."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from agnostic.attribution.network import ExplainedModel
from agnostic.errors import InvalidInput
from agnostic.text import counted
from agnostic.visualization.grids import patches, token_grid

Array = npt.NDArray[np.float64]


def rollout(network: ExplainedModel) -> Array:
    """(N, height, width): the attention that patches get from the tokens that the scores are read from.

    Raises:
        InvalidInput: the model has no attention of all patches with each other, or of several grids of them.
    """
    weights_of_all = network.attention()
    counts = {x.shape[-1] for x in weights_of_all if patches(x.shape[-1], network.size) is not None}
    if len(counts) != 1:
        what = "no attention" if not counts else f"attention over {sorted(counts)} tokens"
        raise InvalidInput(
            f"a rollout follows the attention of all patches of an image with each other, and the model runs {what} "
            "of that kind: use method='layer_cam' or 'lrp'"
        )
    (tokens,) = counts
    flow = np.tile(np.eye(tokens), (network.count, 1, 1))
    for weights in weights_of_all:
        if weights.shape[-1] == tokens:
            flow = (weights.mean(1) + np.eye(tokens)) / 2 @ flow
    height, width, extra = patches(tokens, network.size) or (0, 0, 0)
    read = _read_tokens(network, tokens, extra)
    maps = (flow * read[:, :, None]).sum(1) / read.sum(1, keepdims=True)
    found: Array = maps[:, extra:].reshape(-1, height, width)
    return found


def _read_tokens(network: ExplainedModel, tokens: int, extra: int) -> Array:
    """(N, tokens): 1 for the tokens that the scores are read from: those with a gradient after the last layer."""
    for layer in reversed(network.listing):
        axes, shape = layer.axes or "", layer.shape or ()
        if layer.calls != 1 or token_grid(layer, network.size) is None or shape[axes.index("L")] != tokens:
            continue
        gradients = network.gradients(network.images, np.arange(network.count), [layer]).gradients[layer.name]
        read = np.abs(np.transpose(gradients, [axes.index(x) for x in "NLC"])).sum(2) > 0
        if read.any(1).all():
            found: Array = read.astype(np.float64)
            return found
    if not extra:
        return np.ones((network.count, tokens))
    raise InvalidInput(
        f"none of the model's layers returns {counted(tokens, 'token')} from which its scores are read: use "
        "method='layer_cam' or 'lrp'"
    )
