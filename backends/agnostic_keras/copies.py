"""Copies between main memory and a device, as far as the engine can: see :mod:`agnostic.contracts.copies`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy.typing as npt

from agnostic.arrays import dtype_name
from agnostic_keras import engines
from agnostic_keras.calls import numpy

Array = npt.NDArray[Any]


def staged(model: keras.Layer, batch: Array) -> Array:
    """See :meth:`agnostic.contracts.copies.Copies.staged`."""
    found: Array = engines.current().staged(model, batch)
    return found


def sent(model: keras.Layer, make: Callable[[], Any]) -> Any:
    """See :meth:`agnostic.contracts.copies.Copies.sent`."""
    return engines.current().sent(model, make)


def fetching(arrays: Sequence[Any]) -> Callable[[], Sequence[Array]]:
    """See :meth:`agnostic.contracts.copies.Copies.fetching`."""
    in_numpy = [keras.ops.cast(x, "float32") if dtype_name(x) == "bfloat16" else x for x in arrays]
    fetched = engines.current().fetching(in_numpy)
    return lambda: [numpy(x) for x in fetched()]
