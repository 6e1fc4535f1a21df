"""Arrays as files hold them: types by the codes of safetensors, and the header of a safetensors file, checked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

Array = np.ndarray[Any, Any]

CODES: Mapping[str, str] = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1", "U64": "<u8",
    "U32": "<u4", "U16": "<u2", "U8": "|u1", "BOOL": "|b1", "C64": "<c8", "C128": "<c16",
    # What NumPy has no type for, by the bits.
    "BF16": "<u2", "F8_E4M3": "|u1", "F8_E5M2": "|u1",
}  # fmt: skip
"""The type of the stored numbers, by code."""

_AS_FLOAT32 = frozenset({"BF16", "F8_E4M3", "F8_E5M2"})

LONGEST_HEADER = 100_000_000
"""In bytes; safetensors refuses longer ones as well."""

_LARGEST = 1 << 48
_MOST_AXES = 32


class UnreadableTensors(ValueError):
    """Why a file cannot be read, as a phrase that continues a sentence."""


def width(code: str) -> int:
    """How many bytes a number takes in a file."""
    return np.dtype(CODES[code]).itemsize


def decoded_width(code: str) -> int:
    """How many bytes a number takes in an array of :func:`decoded`: more than in the file for the small floats."""
    return 4 if code in _AS_FLOAT32 else width(code)


def decoded(data: memoryview | bytearray | bytes, code: str, shape: tuple[int, ...]) -> Array:
    """Numbers from a file.

    Args:
        data: as many bytes as the shape and the type need.
        code: one of :data:`CODES`.
        shape: of the array.

    Returns:
        A view of the data where NumPy has the type; float32 for bfloat16 and 8-bit floats, which it holds exactly.

    Raises:
        Unreadable: truth values that are neither 0 nor 1.
    """
    stored: Array = np.frombuffer(data, CODES[code]).reshape(shape)
    if code == "BF16":
        return (stored.astype(np.uint32) << 16).view(np.float32)
    if code == "F8_E5M2":  # the upper half of a float16
        return (stored.astype(np.uint16) << 8).view(np.float16).astype(np.float32)
    if code == "F8_E4M3":
        return _e4m3()[stored]
    if code == "BOOL" and stored.size and stored.view(np.uint8).max() > 1:
        raise UnreadableTensors("a truth value is neither 0 nor 1")
    return stored if stored.flags.aligned else stored.copy()


def _e4m3() -> Array:
    """All 8-bit floats with 4 bits of exponent and 3 of fraction, without infinities.

    Source: Micikevicius et al., "FP8 Formats for Deep Learning", 2022, table 1.
    """
    bits = np.arange(256)
    exponent, fraction = bits >> 3 & 15, bits & 7
    values = np.where(exponent == 0, fraction * 2.0**-9, (8 + fraction) * 2.0 ** (exponent - 10.0))
    values[bits & 127 == 127] = np.nan
    return np.where(bits >> 7, -values, values).astype(np.float32)


# Safetensors ---------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Entry:
    """Where an array is in a file.

    Attributes:
        code: of its type, one of :data:`CODES`.
        shape: of the array.
        start, end: the bytes, from the end of the header on.
    """

    code: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class Header:
    """What stands before the arrays.

    Attributes:
        entries: by name.
        metadata: text by key.
        start: where the arrays begin in the file.
    """

    entries: Mapping[str, Entry]
    metadata: Mapping[str, str]
    start: int


def read_header(file: BinaryIO, size: int) -> Header:
    """The header of a safetensors file.

    Args:
        file: open at its start.
        size: of the file, in bytes.

    Raises:
        Unreadable: it is no whole safetensors file, or holds arrays of a type that NumPy cannot have.

    Source: the format's description in https://github.com/huggingface/safetensors.
    """
    start = file.read(8)
    length = int.from_bytes(start, "little") if len(start) == 8 else 0
    if not 2 <= length <= LONGEST_HEADER:
        raise UnreadableTensors("it does not start as a safetensors file does")
    if 8 + length > size:
        raise UnreadableTensors("it is cut off inside its header")
    entries, metadata = _parsed(file.read(length))
    end = 0
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].end)):
        if entry.start != end:
            raise UnreadableTensors(f"the array {name!r} does not start where the one before it ends")
        end = entry.end
    if size != 8 + length + end:
        what = "cut off" if size < 8 + length + end else "longer than its header says"
        raise UnreadableTensors(f"it is {what}: {size} bytes, and {8 + length + end} are due")
    return Header(entries, metadata, 8 + length)


def _parsed(header: bytes) -> tuple[dict[str, Entry], dict[str, str]]:
    import msgspec

    stored = msgspec.defstruct(
        "Stored", [("dtype", str), ("shape", list[int]), ("data_offsets", tuple[int, int])], forbid_unknown_fields=True
    )
    try:
        found = msgspec.json.decode(header, type=dict[str, msgspec.Raw])
        metadata = msgspec.json.decode(found.pop("__metadata__", msgspec.Raw(b"{}")), type=dict[str, str])
        entries = {name: _entry(name, msgspec.json.decode(raw, type=stored)) for name, raw in found.items()}
    except UnreadableTensors:
        raise
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UnreadableTensors(f"its header is damaged ({error})") from None
    return entries, metadata


def _entry(name: str, found: Any) -> Entry:
    if found.dtype not in CODES:
        raise UnreadableTensors(
            f"the array {name!r} has the type {found.dtype}, and those that are read are {_known()}"
        )
    shape, (start, end) = tuple(found.shape), found.data_offsets
    if len(shape) > _MOST_AXES or not all(0 <= n < _LARGEST for n in shape):
        raise UnreadableTensors(f"the array {name!r} has an impossible shape")
    if not 0 <= start <= end or end - start != math.prod(shape) * width(found.dtype):
        raise UnreadableTensors(f"the array {name!r} has other bytes than its shape needs")
    return Entry(found.dtype, shape, start, end)


def _known() -> str:
    return ", ".join(CODES)
