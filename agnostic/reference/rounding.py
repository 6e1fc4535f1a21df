"""Types with fewer digits, in NumPy: what a number becomes when it is stored in one, or read by one."""

from __future__ import annotations

from typing import Any

import numpy as np

from agnostic.errors import InvalidInput

Array = np.ndarray[Any, Any]

DIGITS = {"bfloat16": 8, "float16": 11, "tf32": 11, "float32": 24}
"""Binary digits of the significand, the leading one included. A TF32 product reads float32 numbers with 11."""


def rounded(x: Array, dtype: str) -> Array:
    """``x`` in float64, rounded to the nearest number of a type, ties to even.

    Raises:
        InvalidInput: a type that is none of :data:`DIGITS`.
    """
    if dtype not in DIGITS:
        raise InvalidInput(f"no rounding to {dtype!r}, only {', '.join(DIGITS)}")
    if dtype == "float16":
        return np.asarray(x, np.float64).astype(np.float16).astype(np.float64)
    # Bits of float32 that the type does not have are rounded away.
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32).astype(np.uint64)
    away = 24 - DIGITS[dtype]
    if away:
        odd = (bits >> np.uint64(away)) & np.uint64(1)
        bits = (bits + np.uint64((1 << (away - 1)) - 1) + odd) >> np.uint64(away) << np.uint64(away)
    result: Array = bits.astype(np.uint32).view(np.float32).astype(np.float64).reshape(np.shape(x))
    return np.where(np.isfinite(x), result, np.asarray(x, np.float64))


def fits(x: Array, dtype: str) -> bool:
    """Whether every number of an array is one of the type, and the array says anything: it is not mostly zeros."""
    finite = np.asarray(x, np.float64)[np.isfinite(x)]
    nonzero = finite[finite != 0]
    if nonzero.size < 16 or np.array_equal(nonzero, np.round(nonzero)):
        return False
    return bool(np.array_equal(rounded(nonzero, dtype), nonzero))
