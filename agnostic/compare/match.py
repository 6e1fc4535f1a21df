"""Which values of two runs are equal, told by their signatures: arrays themselves need not be kept.

A signature is some random projections of the numbers in flat order, so that a reshape keeps it. NaN is a pattern like
any other. Where numbers are large, they count as asinh(x), so that a mask of -1e9 does not hide what stands beside it.
"""

from __future__ import annotations

import bisect
import functools
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from agnostic.program.nodes import Array

TIGHT = 1e-9
"""How far equal values of two replays in float64 may be apart: a thousandth of what one float32 rounding does."""

LOOSE = 1e-5
"""How far values may be apart where weights were multiplied into others, and rounded to float32 once more."""

LARGE = 64.0
"""Beyond, numbers count by their logarithm."""

_BLOCK, _COUNT = 2048, 4
"""Numbers are projected in blocks, and the blocks once more: a projection of all of them would be as large as they."""


@dataclass(frozen=True, eq=False)
class Signature:
    """What tells the numbers of an array from others.

    Attributes:
        size: how many.
        norm: the root of the sum of their squares.
        sums: random projections: of two arrays they are as far apart, in the mean square, as these are.
    """

    size: int
    norm: float
    sums: Array


@functools.lru_cache(maxsize=1)
def _within() -> Array:
    return np.random.default_rng(0).standard_normal((_BLOCK, _COUNT))


@functools.lru_cache(maxsize=64)
def _across(blocks: int) -> Array:
    return np.random.default_rng(blocks).standard_normal((blocks, _COUNT))


def signature(x: Array) -> Signature:
    """The signature of an array.

    Source: Johnson and Lindenstrauss, "Extensions of Lipschitz mappings into a Hilbert space" (1984).
    """
    flat = curved(x)
    whole = flat.size // _BLOCK
    blocks = flat[: whole * _BLOCK].reshape(whole, _BLOCK) @ _within()
    rest = flat[whole * _BLOCK :] @ _within()[: flat.size - whole * _BLOCK]
    sums = np.einsum("bk,bk->k", np.concatenate([blocks, rest[None]]), _across(whole + 1))
    return Signature(x.size, math.sqrt(float(flat @ flat)), sums)


def apart(a: Signature, b: Signature) -> float:
    """How far the arrays of two signatures are apart, about, relative to the first."""
    if a.size != b.size:
        return math.inf
    error = math.sqrt(float(np.mean(np.square(a.sums - b.sums))))
    return error / a.norm if a.norm else (0.0 if error == 0 else math.inf)


def curved(x: Array) -> Array:
    """The numbers in flat order, in float64, as they count; what is not finite stands as numbers of its own."""
    if x.dtype.kind == "c":
        return np.concatenate([curved(x.real), curved(x.imag)])
    flat = np.asarray(x, np.float64).reshape(-1)
    if not flat.size or max(flat.max(), -flat.min()) <= LARGE:  # False where there is NaN
        return flat
    with np.errstate(all="ignore"):
        found: Array = np.nan_to_num(np.arcsinh(flat), nan=31.7, posinf=63.1, neginf=-63.1)
    return found


def distance(x: Array, y: Array) -> float:
    """How far two arrays of one size are apart in flat order, relative to the first."""
    if x.size != y.size:
        return math.inf
    a, b = curved(x), curved(y)
    if a.size != b.size:  # real and complex numbers
        return math.inf
    scale = math.sqrt(float(a @ a))
    delta = a - b
    error = math.sqrt(float(delta @ delta))
    return error / scale if scale else (0.0 if error == 0 else math.inf)


def permutations(given: tuple[int, ...], shape: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """The orders of axes that make one shape another, the identity left out."""
    if len(given) > 5 or sorted(given) != sorted(shape):
        return
    for order in itertools.permutations(range(len(given))):
        if order != tuple(range(len(given))) and tuple(given[k] for k in order) == shape:
            yield order


def layouts(given: tuple[int, ...], shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """The orders of axes that make an output of one framework that of another.

    They are those in which frameworks differ: channels second or last, the batch first or second. Where lengths are
    equal, another order would hide that height and width are exchanged; where none of these fits, any may.
    """
    count = len(given)
    whole = tuple(range(count))
    usual = {whole}
    if count > 2:
        usual |= {(0, count - 1, *whole[1:-1]), (0, *whole[2:], 1), (1, 0, *whole[2:])}
    fitting = [order for order in sorted(usual) if tuple(given[k] for k in order) == shape]
    return fitting or list(permutations(given, shape))


class Table:
    """Values by signature. Equal ones have one number, that of the first."""

    def __init__(self) -> None:
        self.signatures: list[Signature] = []
        self._sums: dict[int, list[tuple[float, int]]] = {}

    def find(self, own: Signature, tolerance: float = TIGHT) -> int | None:
        """The number of an equal value, in flat order."""
        entries = self._sums.get(own.size)
        if not entries or not own.size:
            return None
        total = float(own.sums[0])
        # One projection of a difference is rarely eight times as large as the difference.
        reach = 16 * tolerance * own.norm + 1e-300
        best, found = tolerance, None
        for place in range(bisect.bisect_left(entries, (total - reach, -1)), len(entries)):
            value, number = entries[place]
            if value > total + reach:
                break
            error = apart(self.signatures[number], own)
            if error <= best:
                best, found = error, number
        return found

    def add(self, own: Signature) -> int:
        """The number of a value; a new one for one that is not there yet."""
        known = self.find(own)
        if known is not None:
            return known
        self.signatures.append(own)
        bisect.insort(self._sums.setdefault(own.size, []), (float(own.sums[0]), len(self.signatures) - 1))
        return len(self.signatures) - 1
