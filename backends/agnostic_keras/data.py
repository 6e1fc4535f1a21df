"""Data for Keras: tensors of its engines in another order, and image folders as PyDataset."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import numpy.typing as npt


def take(tensor: Any, order: npt.NDArray[np.int64]) -> Any:
    """The rows of a tensorflow tensor or a jax array in that order."""
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is not None and isinstance(tensor, tensorflow.Tensor):
        return tensorflow.gather(tensor, order)
    return tensor[order]
