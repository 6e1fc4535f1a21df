"""Weight files of any framework as NumPy arrays by name, read without executing anything."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agnostic.errors import InvalidWeights, nearest
from agnostic.files import open_regular
from agnostic.registry import weight_reader
from agnostic.tensors import UnreadableTensors, decoded, read_header

Array = np.ndarray[Any, Any]


def read_arrays(path: Path, suffixes: Sequence[str], framework: str) -> dict[str, Array]:
    """The arrays in a weight file, by name.

    Args:
        path: ``.safetensors``, or what torch.save wrote.
        suffixes: how the names end that the caller takes; the first is ``".safetensors"``.
        framework: whose files they are, for people.

    Returns:
        Arrays on a private mapping of the file: they may be written to, the file does not change. bfloat16 and 8-bit
        floats come as float32, which holds them exactly.

    Raises:
        InvalidWeights: missing, damaged, of another format or of a type that NumPy cannot have, a pickle that would
            execute code, or more memory than :func:`agnostic.limits.allowance` grants.
    """
    if not path.exists():
        beside = [p.name for p in path.parent.glob("*")] if path.parent.is_dir() else []
        raise InvalidWeights(f"cannot read weights from {path}: there is no such file{nearest(path.name, beside)}")
    if path.is_dir():
        raise InvalidWeights(f"cannot read weights from {path}: it is a folder")
    if path.suffix not in suffixes:
        raise InvalidWeights(f"{path} is no weight file of {framework}, whose names end in {', '.join(suffixes)}")
    _refuse_what_is_no_weights(path)
    if path.suffix == ".safetensors":
        return _safetensors(path)
    reader = weight_reader(path.suffix)
    if reader is None:
        raise InvalidWeights(f"{path} is no weight file that a registered backend reads: give a .safetensors file")
    found: dict[str, Array] = reader(path)
    return found


def _refuse_what_is_no_weights(path: Path) -> None:
    """Failed downloads have weights' names too."""
    with open_regular(path, InvalidWeights) as file:
        start = file.read(64).lstrip().lower()
    if not start:
        raise InvalidWeights(f"{path} is empty: download or copy it again")
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise InvalidWeights(
            f"{path} is a web page, not weights: open it to see what the server said, and download again"
        )
    if start.startswith(b"version https://git-lfs"):
        raise InvalidWeights(f"{path} is only Git LFS's pointer to the weights: run 'git lfs pull'")


def _safetensors(path: Path) -> dict[str, Array]:
    with open_regular(path, InvalidWeights) as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        try:
            header = read_header(file, len(mapped))
            data = memoryview(mapped)[header.start :]
            # The arrays lie one after the other in the file, so they are no larger than it, but for small floats.
            return {name: decoded(data[x.start : x.end], x.code, x.shape) for name, x in header.entries.items()}
        except UnreadableTensors as error:
            raise InvalidWeights(f"{path} is no whole safetensors file ({error}): download or copy it again") from None
