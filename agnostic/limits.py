"""How much memory a file may ask for."""

from __future__ import annotations

import os

from agnostic.errors import InvalidInput
from agnostic.text import counted

FACTOR, LEAST = 16, 1 << 28
VARIABLE = "AGNOSTIC_FILE_MEMORY"
"""The environment variable that sets the limit, in bytes, in place of the one that follows from the file's size."""


def allowance(size: int) -> int:
    """How many bytes the content of a file may take in memory: 16 times its size, and 256 MiB in any case.

    What is read from a file is rarely larger than the file. A file may claim to be: a shape that no data stand behind,
    an archive that expands a thousandfold, a thousand arrays that are views of one.

    Args:
        size: of the file, in bytes.

    Raises:
        InvalidInput: the environment variable ``AGNOSTIC_FILE_MEMORY`` is set to what is no number of bytes.
    """
    text = os.environ.get(VARIABLE, "")
    if not text:
        return max(FACTOR * size, LEAST)
    if not text.isdecimal():
        raise InvalidInput(f"the environment variable {VARIABLE} is a number of bytes, not {text!r}")
    return int(text)


def refusal(what: str, needed: int, size: int) -> str:
    """The sentence about a file that asks for more."""
    return (
        f"{what} asks for {_bytes(needed)} of memory, and {_bytes(allowance(size))} are allowed for its "
        f"{_bytes(size)}: if you trust it, set the environment variable {VARIABLE} to as many bytes"
    )


def _bytes(count: int) -> str:
    for unit, power in (("TB", 4), ("GB", 3), ("MB", 2), ("kB", 1)):
        if count >= 1000**power:
            return f"{count // (1000**power // 10) / 10:,.1f} {unit}" if count < 10**18 else "more than a million TB"
    return counted(count, "byte")
