"""NumPy arrays as frameworks take them, and inputs in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from agnostic.errors import InvalidInput

Array = np.ndarray[Any, Any]


def of_numbers(array: Array, what: str = "an input") -> Array:
    """An array of numbers in the machine's byte order; the same array where it is so.

    Args:
        array: any array.
        what: it is, for the error.

    Raises:
        InvalidInput: it holds objects, text, dates or records, or numbers that no framework has (longdouble).
    """
    if array.dtype.kind not in "biufc" or array.dtype in (np.longdouble, np.clongdouble):
        fix = "" if array.dtype.kind != "O" else "; arrays of several shapes go in one by one"
        raise InvalidInput(f"{what} is an array of numbers of up to 64 bits, not of {array.dtype} {array.shape}{fix}")
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def describe(value: Any) -> str:
    """What an input is, in a few words: the type and shape of arrays, the kind of all else."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key!r}: {describe(item)}" for key, item in list(value.items())[:4]) + "}"
    if isinstance(value, tuple | list):
        some = ", ".join(describe(item) for item in value[:4]) + (", ..." if len(value) > 4 else "")
        return f"({some})" if isinstance(value, tuple) else f"a list of {len(value)} ({some})"
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if dtype is not None and shape is not None:
        return f"{str(dtype).rpartition('.')[2]} {tuple(shape)}"
    return repr(value) if value is None or isinstance(value, bool | int | float) else f"a {type(value).__name__}"
