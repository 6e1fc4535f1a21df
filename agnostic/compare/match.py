"""Which values of two runs are equal: found by a signature, and verified number by number.

The signature is a random projection of asinh(x) in flat order, so that a reshape keeps it and a mask of -1e9 does not
hide what stands beside it. NaN is a pattern like any other.
"""

from __future__ import annotations

import bisect
import functools
import itertools
import math
from collections.abc import Iterator

import numpy as np

from agnostic.program.nodes import Array

TIGHT = 1e-9
"""How far equal values of two replays in float64 may be apart: a thousandth of what one float32 rounding does."""

LOOSE = 1e-5
"""How far values may be apart where weights were multiplied into others, and rounded to float32 once more."""


@functools.lru_cache(maxsize=64)
def _projection(size: int) -> Array:
    return np.random.default_rng(size).standard_normal(size) / math.sqrt(size)


def curved(x: Array) -> Array:
    """Asinh of the numbers in flat order, in float64; what is not finite stands as numbers of its own."""
    flat = np.asarray(x.real if x.dtype.kind == "c" else x, np.float64).reshape(-1)
    with np.errstate(all="ignore"):
        found: Array = np.nan_to_num(np.arcsinh(flat), nan=31.7, posinf=63.1, neginf=-63.1)
    return found


def distance(x: Array, y: Array) -> float:
    """How far two arrays of one size are apart in flat order, relative to the first."""
    if x.size != y.size:
        return math.inf
    a, b = curved(x), curved(y)
    scale = math.sqrt(float(a @ a))
    apart = a - b
    error = math.sqrt(float(apart @ apart))
    if x.dtype.kind == "c" and y.dtype.kind == "c":
        error += math.sqrt(float(np.sum(np.square((x.imag - y.imag).reshape(-1)))))
    return error / scale if scale else (0.0 if error == 0 else math.inf)


def permutations(x: Array, shape: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """The orders of axes that give an array this shape, the identity left out."""
    if x.ndim != len(shape) or x.ndim > 5 or sorted(x.shape) != sorted(shape):
        return
    for order in itertools.permutations(range(x.ndim)):
        if order != tuple(range(x.ndim)) and tuple(x.shape[k] for k in order) == shape:
            yield order


class Table:
    """Values by signature. Equal ones have one number, that of the first."""

    def __init__(self) -> None:
        self.arrays: list[Array] = []
        self._sums: dict[int, list[tuple[float, int]]] = {}

    def find(self, x: Array, tolerance: float = TIGHT) -> int | None:
        """The number of an equal value, in flat order."""
        entries = self._sums.get(x.size)
        if not entries or not x.size:
            return None
        own = curved(x)
        total = float(own @ _projection(x.size))
        # The projection of an error of random direction is of its own size: eight times that, none is lost.
        reach = 8 * tolerance * math.sqrt(float(own @ own) / x.size) * 2 + 1e-300
        low = bisect.bisect_left(entries, (total - reach, -1))
        best, found = tolerance, None
        for place in range(low, len(entries)):
            value, number = entries[place]
            if value > total + reach:
                break
            apart = distance(self.arrays[number], x)
            if apart <= best:
                best, found = apart, number
        return found

    def add(self, x: Array) -> int:
        """The number of a value; a new one for one that is not there yet."""
        known = self.find(x)
        if known is not None:
            return known
        self.arrays.append(x)
        entry = (float(curved(x) @ _projection(x.size)) if x.size else 0.0, len(self.arrays) - 1)
        bisect.insort(self._sums.setdefault(x.size, []), entry)
        return len(self.arrays) - 1
