"""Evaluate with the moving average of the weights."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from agnostic.contracts.optimizers import OPTIMIZERS
from agnostic.registry import optimizer_backend


def averaged_weights(optimizer: Any) -> AbstractContextManager[None]:
    """A context in which the model has the moving average of its weights; its own are restored afterwards.

    Memory: one more copy of the weights inside. Only weights that the optimizer updates are averaged, not the
    statistics of normalization layers. In ``fit()``, Keras' own callback ``SwapEMAWeights`` does this at every
    evaluation.

    Args:
        optimizer: built by :func:`build` from a specification with ``ema_momentum``, or a Keras optimizer with
            ``use_ema=True``, after its first step.

    Returns:
        A context manager. Do not call ``step`` inside: our PyTorch optimizer raises an error.

    Raises:
        InvalidInput: the optimizer keeps no average, has none yet, or the context is already open.

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
