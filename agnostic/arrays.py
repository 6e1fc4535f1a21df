"""NumPy arrays as frameworks take them, and inputs as text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from agnostic.errors import InvalidInput
from agnostic.text import type_named

Array = np.ndarray[Any, Any]


def of_numbers(array: Array, what: str = "an input") -> Array:
    """An array of numbers in the machine's byte order; the same array where it is so.

    Args:
        array: any array.
        what: it is, for the error.

    Raises:
        InvalidInput: it holds objects, text, dates or records, numbers that no framework has (longdouble), or masked
            entries.
    """
    if array.dtype.kind not in "biufc" or array.dtype in (np.longdouble, np.clongdouble):
        fix = "" if array.dtype.kind != "O" else "; arrays of several shapes go in one by one"
        raise InvalidInput(f"{what} is an array of numbers of up to 64 bits, not of {array.dtype} {array.shape}{fix}")
    if np.ma.is_masked(array):
        raise InvalidInput(f"{what} is a masked array, whose masked entries have no value: give x.filled(value)")
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def dtype_name(value: Any) -> str:
    """The type of an array's elements by the name that NumPy and frameworks share; ``""`` for what has no type.

    Example:
        >>> import torch
        >>> dtype_name(torch.ones(2))
        'float32'
    """
    # "float32", "torch.float32", "<dtype: 'float32'>"
    words = re.findall(r"\w+", str(getattr(value, "dtype", "")))
    return words[-1] if words else ""


def in_main_memory(x: Any) -> bool:
    """Whether an array says, by the protocol DLPack, that NumPy can look at it where it is."""
    device = getattr(x, "__dlpack_device__", None)
    # 1 is the processor's own memory, 3 that which a GPU reads as well.
    return device is not None and int(device()[0]) in (1, 3)


def describe(value: Any, depth: int = 2) -> str:
    """What an input is, in a few words: the type and shape of arrays, the kind of all else.

    Args:
        value: anything.
        depth: how far into lists, tuples and dicts.
    """
    if isinstance(value, Mapping | tuple | list) and len(value) and not depth:
        return "..."
    if isinstance(value, Mapping):
        items = [f"{key!r}: {describe(item, depth - 1)}" for key, item in list(value.items())[:4]]
        return "{" + ", ".join(items) + "}"
    if isinstance(value, tuple | list):
        items = [describe(item, depth - 1) for item in value[:4]] + ["..."] * (len(value) > 4)
        some = "..." if set(items) == {"..."} else ", ".join(items)
        return f"({some})" if isinstance(value, tuple) else f"a list of {len(value)} ({some})"
    try:
        return f"{str(value.dtype).rpartition('.')[2]} {tuple(value.shape)}"
    except (AttributeError, TypeError, RuntimeError):  # no array, or one that has no shape of its own (nested tensors)
        return repr(value) if value is None or isinstance(value, bool | int | float) else type_named(value)
