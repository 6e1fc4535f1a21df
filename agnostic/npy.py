"""NumPy's ``.npy`` and ``.npz`` files from strangers: what they announce is checked before memory is taken for it.

A header of 128 bytes can announce any shape, and a compressed archive can unpack to a thousand times its size. An array
takes no more than the bytes that are there, and an archive may unpack to no more than a limit that the caller gives.
"""

from __future__ import annotations

import io
import math
import os
import zipfile
import zlib
from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from agnostic.checks import whole_number
from agnostic.errors import InvalidInput
from agnostic.files import open_regular
from agnostic.limits import VARIABLE, allowance

Array = npt.NDArray[Any]

_MAGIC = b"\x93NUMPY"
_CHUNK = 1 << 20
_LONGEST_HEADER = 10_000


def read_arrays(path: str | os.PathLike[str], limit: int | None = None) -> Array | dict[str, Array]:
    """The array of a ``.npy`` file, or those of a ``.npz`` file by name; nothing is unpickled.

    Args:
        path: the file; its content decides what it is.
        limit: bytes that compressed arrays may unpack to, together; None: see :func:`agnostic.limits.allowance`.

    Raises:
        InvalidInput: it cannot be read, is neither, is damaged, holds anything but numbers, or unpacks to more.
    """
    where = repr(os.fspath(path))
    with open_regular(path) as file:
        start = file.read(len(_MAGIC))
        size = os.fstat(file.fileno()).st_size
        file.seek(0)
        if start == _MAGIC:
            return numbers(file, size, where)
        if start[:2] != b"PK":
            raise InvalidInput(f"cannot read {where}: it is neither a .npy file nor a .npz file of NumPy")
        members = unpacked(file, where, limit=limit)
    return {
        name.removesuffix(".npy"): numbers(io.BytesIO(data), len(data), f"{name!r} in {where}")
        for name, data in members.items()
    }


def unpacked(
    file: BinaryIO, where: str, names: Sequence[str] | None = None, limit: int | None = None
) -> dict[str, bytes]:
    """The content of an archive's members, by name.

    Args:
        file: the open archive.
        where: what to call it in messages.
        names: the members to read; None: all that end in ``.npy``.
        limit: bytes that the compressed ones may unpack to, together; None: see :func:`agnostic.limits.allowance`.

    Raises:
        InvalidInput: it is no whole archive, lacks a member, or unpacks to more than ``limit``.
    """
    size = file.seek(0, os.SEEK_END)
    most = allowance(size) if limit is None else whole_number("limit", limit)
    raised = f"set the environment variable {VARIABLE} higher" if limit is None else "give a higher limit"
    excess = (
        f"{where} unpacks to more than {most} bytes; if you trust it, {raised}, or store it without compression "
        "(numpy.savez)"
    )
    try:
        with zipfile.ZipFile(file) as archive:
            present = archive.namelist()
            wanted = [x for x in present if x.endswith(".npy")] if names is None else list(names)
            if missing := [name.removesuffix(".npy") for name in wanted if name not in present]:
                raise InvalidInput(f"{where} has no array {', '.join(missing)}")
            stored, members, left = size, {}, most
            for name in wanted:
                info = archive.getinfo(name)
                if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise InvalidInput(f"{name!r} in {where} is compressed by another method than NumPy's, deflate")
                # What is stored is bounded by the file; members that overlap are not, so together.
                packed = info.compress_type == zipfile.ZIP_DEFLATED
                data = _member(archive, info, left if packed else stored, excess)
                members[name] = data
                left, stored = (left - len(data), stored) if packed else (left, stored - len(data))
            return members
    except InvalidInput:
        raise
    # What zipfile raises on damaged archives and on encrypted ones (RuntimeError).
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, RuntimeError, NotImplementedError) as error:
        raise InvalidInput(f"{where} is no readable .npz archive: {error}") from None


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, most: int, excess: str) -> bytes:
    # The size in the archive's directory may lie, so what is read is bounded, not what is announced.
    data = bytearray()
    with archive.open(info) as member:
        while chunk := member.read(_CHUNK):
            data += chunk
            if len(data) > most:
                raise InvalidInput(excess)
    return bytes(data)


def header(file: BinaryIO, where: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype that a ``.npy`` file announces; the file stands at the array's first byte afterwards.

    Raises:
        InvalidInput: it has no header that NumPy can read.
    """
    try:
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0), (3, 0)):
            raise ValueError(f"version {version} of the format is unknown")
        # NumPy makes room for as long a header as is announced, 4 GB at most, and looks at the length afterwards.
        announced = file.read(2 if version[0] == 1 else 4)
        if int.from_bytes(announced, "little") > _LONGEST_HEADER:
            raise ValueError(f"its header is longer than {_LONGEST_HEADER} bytes")
        file.seek(-len(announced), os.SEEK_CUR)
        # Format 3 differs from 2 in the header's encoding alone, which is ASCII for every dtype that is taken here.
        read = np.lib.format.read_array_header_1_0 if version[0] == 1 else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
    except Exception as error:  # noqa: BLE001 - the header is a Python expression, whose parsing may fail anyhow
        said = str(error).partition("\n")[0] or type(error).__name__
        raise InvalidInput(f"{where} holds an array that NumPy cannot read: {said}") from None
    return shape, dtype


def numbers(file: BinaryIO, size: int, where: str) -> Array:
    """An array of numbers of a ``.npy`` file.

    Args:
        file: open, at its start.
        size: of the file in bytes.
        where: what to call it in messages.

    Raises:
        InvalidInput: it is damaged, announces more than it has, or holds something else than numbers.
    """
    start = file.tell()
    shape, dtype = header(file, where)
    if dtype.kind not in "biufc":
        raise InvalidInput(f"{where} holds {dtype}, and numbers are expected")
    due, there = math.prod(shape) * dtype.itemsize, size - (file.tell() - start)
    if min(shape, default=0) < 0 or due > there:
        raise InvalidInput(
            f"{where} is cut off: its array of shape {shape} and {dtype} has {due} bytes, {there} follow"
        )
    file.seek(start)
    try:
        return np.lib.format.read_array(file, allow_pickle=False)
    # A shape of no elements may have sides that no array has; a side may be True; the format may be a later one.
    except (ValueError, TypeError, OverflowError) as error:
        raise InvalidInput(f"{where} holds an array that NumPy cannot read: {error}") from None
