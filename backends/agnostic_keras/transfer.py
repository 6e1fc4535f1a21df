"""Weights of Keras models as transfer writes them; see :mod:`agnostic.contracts.transfer`."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from agnostic_keras.weights import _variables


def inference(model: keras.Layer) -> contextlib.AbstractContextManager[None]:
    """See :meth:`agnostic.contracts.transfer.Transfers.inference`: Keras is told at each call."""
    return contextlib.nullcontext()


def computed(model: keras.Layer) -> dict[str, str]:
    """See :meth:`agnostic.contracts.transfer.Transfers.computed`: no layer of Keras does so."""
    return {}


def assign(model: keras.Layer, values: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """See :meth:`agnostic.contracts.transfer.Transfers.assign`."""
    variables = _variables(model)
    for name, value in values.items():
        variables[name].assign(np.reshape(value, variables[name].shape))
