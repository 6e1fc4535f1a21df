"""Pickles from strangers: checked, before they are read, for what they would make Python allocate.

What a pickle may call is decided by the ``find_class`` of who reads it. That is not enough: nine bytes can name the
memo's entry 2^30, for which Python makes room, and a count in front of a string can promise more than there is.
"""

from __future__ import annotations

import functools
import pickle
import re
from dataclasses import dataclass
from typing import NoReturn

_STOP, _LONG_BINPUT, _PUT, _FRAME = b".", b"r", b"p", b"\x95"


@dataclass(frozen=True)
class _Tables:
    """The instructions of pickles: a pattern of those that need no look, and how the others' arguments are stored."""

    plain: re.Pattern[bytes]
    counted: dict[int, int]
    lines: dict[int, int]


@functools.cache
def _tables() -> _Tables:
    import pickletools

    fixed: dict[int, bytes] = {}
    counted = {ord(_FRAME): 8}
    lines: dict[int, int] = {}
    widths = {
        pickletools.TAKEN_FROM_ARGUMENT1: 1,
        pickletools.TAKEN_FROM_ARGUMENT4: 4,
        pickletools.TAKEN_FROM_ARGUMENT4U: 4,
        pickletools.TAKEN_FROM_ARGUMENT8U: 8,
    }
    for op in pickletools.opcodes:
        code = op.code.encode("latin1")
        size = 0 if op.arg is None else op.arg.n
        if size in widths:
            counted[ord(code)] = widths[size]
        elif size == pickletools.UP_TO_NEWLINE:
            lines[ord(code)] = 2 if op.name in ("GLOBAL", "INST") else 1
        elif code not in (_STOP, _LONG_BINPUT, _FRAME):
            fixed[size] = fixed.get(size, b"") + re.escape(code)
    kinds = b"|".join(b"[%s].{%d}" % (codes, size) for size, codes in fixed.items())
    return _Tables(re.compile(b"(?s:(?:%s)*+)" % kinds), counted, lines)


def check_pickle(data: bytes, start: int = 0) -> int:
    """Refuse a pickle that would allocate out of proportion to its size, without reading it.

    Args:
        data: bytes that hold a pickle, of any protocol.
        start: where it begins.

    Returns:
        Where it ends: the position after its last instruction.

    Raises:
        pickle.UnpicklingError: an entry of the memo lies beyond the number of bytes so far (picklers number entries
            one by one), a count promises more bytes than follow, an instruction is unknown, or the end is missing.
    """
    tables = _tables()
    place = start
    while True:
        found = tables.plain.match(data, place)
        place = place if found is None else found.end()
        if place >= len(data):
            _refuse("it is cut off")
        code, place = data[place], place + 1
        if code == ord(_STOP):
            return place
        if code == ord(_LONG_BINPUT):
            _check_entry(int.from_bytes(data[place : place + 4], "little"), place)
            place += 4
        elif code in tables.counted:
            width = tables.counted[code]
            count = int.from_bytes(data[place : place + width], "little")
            place += width
            if count > len(data) - place:
                _refuse(f"it promises {count} bytes, and {max(0, len(data) - place)} follow")
            # What a frame holds are instructions.
            place += 0 if code == ord(_FRAME) else count
        elif code in tables.lines:
            line, place = _lines(data, place, tables.lines[code])
            if code == ord(_PUT) and (not line.isdigit() or len(line) > 20 or _check_entry(int(line), place)):
                _refuse("an entry of its memo has no number")
        else:
            _refuse(f"it holds the unknown instruction {bytes([code])!r}")


def _check_entry(number: int, place: int) -> bool:
    if number > place:
        _refuse(f"it asks for entry {number} of a memo after {place} bytes")
    return False


def _lines(data: bytes, place: int, count: int) -> tuple[bytes, int]:
    """The first of so many lines, and the place after them."""
    first = place
    for _ in range(count):
        end = data.find(b"\n", place)
        if end < 0:
            _refuse("it is cut off")
        place = end + 1
    return data[first:end], place


def _refuse(reason: str) -> NoReturn:
    raise pickle.UnpicklingError(f"it is no pickle that a pickler wrote: {reason}")
