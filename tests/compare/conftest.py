"""Inputs that all comparisons share."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest


@pytest.fixture(scope="session")
def images() -> np.ndarray[Any, Any]:
    """(3, 16, 16, 3) in [0, 1]."""
    return np.random.default_rng(0).random((3, 16, 16, 3), np.float32)


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Small layers on several threads wait for each other, all the longer on a busy machine."""
    if importlib.util.find_spec("torch") is not None:
        import torch

        torch.set_num_threads(1)
