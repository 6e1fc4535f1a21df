"""Names of weights: which ones a layer's are, and how a name says that a weight lies beside others in its block.

A layer's weights are named for the layer: ``conv1.weight``. A block may hold weights itself, ``in_proj_weight``, and
use them as a layer does. Where the target has them in a layer, that layer's name ends in ``_``: ``in_proj_``, or ``_``
for ``weight``. So the way back is known: the weights of ``in_proj_`` are the block's own, and their names begin so.

A list that holds layers and is not called stands in no path of a framework that names layers by their calls: there the
dot behind it is a dash, ``blocks-0``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

USUAL = frozenset({
    "weight", "bias", "running_mean", "running_var", "kernel", "gamma", "beta", "moving_mean", "moving_variance",
    "embeddings", "alpha", "scale", "depthwise_kernel", "pointwise_kernel", "recurrent_kernel", "weight_ih",
    "weight_hh", "weight_hr", "bias_ih", "bias_hh", "weight_ih_l0", "weight_hh_l0", "weight_hr_l0", "bias_ih_l0",
    "bias_hh_l0", "mean", "variance",
})  # fmt: skip
"""What frameworks call the weights of layers."""

CONSTANT = "constant_"
"""How the names begin of arrays that are in the file of weights, and are no weight or buffer of the model."""

ENDINGS = ("weight", "bias", "running_mean", "running_var")
"""What names of weights end in, where a block has those of several layers itself."""


def dotted(path: str) -> str:
    """The path of a layer as the other framework says it: dots between blocks, and for a list that holds layers."""
    return path.replace("/", ".").replace("-", ".")


def is_usual(name: str) -> bool:
    """Whether the last part of a weight's name is a layer's for it; a computed one may have a ``_`` behind it."""
    return name.rpartition(".")[2].rstrip("_") in USUAL


def is_constant(name: str) -> bool:
    """Whether an array of a written file is a constant."""
    return name.rpartition(".")[2].startswith(CONSTANT)


def beside(names: Sequence[str]) -> str | None:
    """The name of a layer for weights that their block holds itself: what their names begin with alike.

    Args:
        names: their last parts.

    Returns:
        ``"in_proj_"`` for ``in_proj_weight`` and ``in_proj_bias``, ``"_"`` for ``weight``; None: they have no such
        names in common.
    """
    found = [re.fullmatch(rf"(|.*_)({'|'.join(ENDINGS)})", name) for name in names]
    starts = {match[1] for match in found if match is not None}
    return (next(iter(starts)) or "_") if len(starts) == 1 and all(found) else None


def own(owner: str, name: str) -> str | None:
    """The name of a weight of a layer that stands for weights of its block; None: it is a layer like others.

    Args:
        owner: the layer's path.
        name: what the target calls the weight.
    """
    path, _, layer = owner.rpartition(".")
    if not layer.endswith("_"):
        return None
    return f"{path}.{layer.lstrip('_')}{name}".removeprefix(".")
