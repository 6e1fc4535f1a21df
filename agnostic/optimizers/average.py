"""The moving average of the weights in the weights' place, for evaluation."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from agnostic.contracts.optimizers import OPTIMIZERS
from agnostic.registry import optimizer_backend


def averaged_weights(optimizer: Any) -> AbstractContextManager[None]:
    """Inside, the model has the moving average of its weights; after it, also after an error, its own again.

    Memory: one more copy of the weights inside. Only what the optimizer moves is averaged: statistics of normalization
    layers stay as they are. In ``fit()``, Keras' own callback ``SwapEMAWeights`` does this at every evaluation.

    Args:
        optimizer: what :func:`build` made of a specification with ``ema_momentum``, or a Keras optimizer with
            ``use_ema=True``, after its first step.

    Returns:
        A context manager. Make no step inside: ours in PyTorch refuses it.

    Raises:
        InvalidInput: the optimizer keeps no average, has none yet, or the averages are in place already.

    Example:
        >>> import torch
        >>> from agnostic import optimizers
        >>> model = torch.nn.Linear(2, 1)
        >>> optimizer = optimizers.build(optimizers.SGD(0.1, ema_momentum=0.9), model)
        >>> model(torch.ones(1, 2)).sum().backward()
        >>> _ = optimizer.step()
        >>> with optimizers.averaged_weights(optimizer):
        ...     prediction = model(torch.ones(1, 2))
    """
    return optimizer_backend(optimizer)[OPTIMIZERS].averaged_weights(optimizer)
