"""Stochastic depth, which inference does not run: kept in programs as a dropout that whole images share.

torchvision, timm and transformers each have a class for it. Their forward returns its input in inference mode, so that
an exported graph knows nothing of them, and a model written from it would be trained without.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn import functional as F

_NAMES = re.compile(r"(StochasticDepth|DropPath|DropConnect)$")


def depths(model: nn.Module) -> dict[str, tuple[float, tuple[int, ...]]]:
    """The rate of each layer of stochastic depth by its path, and the axes along which it draws."""
    found: dict[str, tuple[float, tuple[int, ...]]] = {}
    for path, module in model.named_modules():
        rate = getattr(module, "p", getattr(module, "drop_prob", None))
        if _NAMES.search(type(module).__name__) and isinstance(rate, float) and rate > 0 and not module.training:
            found[path] = (rate, () if getattr(module, "mode", "row") == "batch" else (0,))
    return found


@contextlib.contextmanager
def seen(model: nn.Module) -> Iterator[None]:
    """Inside, layers of stochastic depth call a dropout in inference mode, which an exported graph keeps."""
    modules = dict(model.named_modules())
    changed = []
    for path, (rate, _) in depths(model).items():
        module = modules[path]
        if "forward" not in vars(module):

            def forward(x: torch.Tensor, rate: float = rate) -> torch.Tensor:
                return F.dropout(x, rate, training=False)

            module.forward = forward
            changed.append(module)
    try:
        yield
    finally:
        for module in changed:
            del module.forward
