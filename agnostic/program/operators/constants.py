"""Arrays that depend on nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from agnostic.program.nodes import Array
from agnostic.program.vocabulary import Shape, operator


def _typed(x: Array, dtype: str) -> Array:
    return x.astype(np.float64 if dtype.startswith(("float", "bfloat")) else dtype)


def _full_shape(value: Any, *, shape: Sequence[int], dtype: str) -> Shape:
    return tuple(shape)


@operator(shape=_full_shape)
def full(value: Any, *, shape: Sequence[int], dtype: str) -> Array:
    """One number everywhere.

    Args:
        shape: of the output.
    """
    return _typed(np.full(tuple(shape), value), dtype)


def _range_shape(start: Any, stop: Any, step: Any = 1, *, dtype: str, length: int) -> Shape:
    return (length,)


@operator(shape=_range_shape)
def arange(start: float, stop: float, step: float = 1, *, dtype: str, length: int) -> Array:
    """start, start + step, ... before stop; ``length`` numbers."""
    return _typed(start + step * np.arange(length), dtype)


@operator(shape=lambda start, stop, *, count, dtype: (count,))
def linspace(start: float, stop: float, *, count: int, dtype: str) -> Array:
    """``count`` numbers from start to stop, both ends included, at equal distances."""
    return _typed(np.linspace(start, stop, count), dtype)


@operator(shape=lambda *, rows, columns, dtype: (rows, columns))
def eye(*, rows: int, columns: int, dtype: str) -> Array:
    """1 on the diagonal, else 0.

    Args:
        rows: how many.
        columns: how many.
    """
    return _typed(np.eye(rows, columns), dtype)
