"""The file that holds what one model did: written as the layers run, read one array at a time. See docs/traces.md.

It is a safetensors file. Room for its header is left at the start and filled at the end, so that a trace may be larger
than memory; until then it has another name. What a trace says of itself is JSON, in the header's metadata.
"""

from __future__ import annotations

import hashlib
import json
import os
import queue
import struct
import threading
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from agnostic.errors import InvalidInput
from agnostic.files import atomic_path, open_regular
from agnostic.tensors import CODES, LONGEST_HEADER, UnreadableTensors, read_header

Array = np.ndarray[Any, Any]

FORMAT, VERSION = "agnostic-trace", 3
SUFFIX = ".trace"

_CODES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8",
    "uint64": "U64", "uint32": "U32", "uint16": "U16", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip
_DTYPES = {code: name for name, code in _CODES.items()}
_ROOM = 1 << 16
_NO_SUM = "0" * 64


def checksum(x: Array) -> int:
    """The CRC-32 of an array's bytes."""
    return zlib.crc32(np.ascontiguousarray(x).reshape(-1).view(np.uint8).data if x.size else b"")


def _signed(header: bytes) -> str:
    """What the header's own checksum is: of all of it, with zeros where the checksum stands."""
    return hashlib.sha256(header).hexdigest()


class TraceWriter:
    """Adds arrays to a file that is being made; see :func:`writing`.

    A thread writes and sums up, while the model goes on: both are waits of the kernel or of one core. An array is
    copied first, since a layer behind may change it in place; there are two buffers, as large as the largest array.
    """

    def __init__(self, file: BinaryIO, room: int) -> None:
        self._file, self._room = file, room
        self._entries: dict[str, dict[str, Any]] = {}
        self._sums: dict[str, int] = {}
        self._end = 0
        self._error: Exception | None = None
        self._free: queue.SimpleQueue[Array] = queue.SimpleQueue()
        for _ in range(2):
            self._free.put(np.empty(0, np.uint8))
        self._jobs: queue.Queue[tuple[str, Array, Array, int] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._work, name="agnostic-trace", daemon=True)
        self._thread.start()

    def add(self, name: str, x: Array) -> str:
        """Write an array under a name that is free; it may change afterwards.

        Returns:
            The name.

        Raises:
            InvalidInput: no array of numbers, or what was added before could not be written.
        """
        if x.dtype.name not in _CODES:
            raise InvalidInput(f"a trace holds numbers, and {name!r} is {x.dtype}")
        if name in self._entries:
            raise ValueError(f"{name!r} is taken")
        buffer = self._free.get()
        if buffer.size < x.nbytes:
            buffer = np.empty(x.nbytes, np.uint8)
        data = buffer[: x.nbytes].view(x.dtype.newbyteorder("<")).reshape(x.shape)
        np.copyto(data, x)
        self._entries[name] = {
            "dtype": _CODES[x.dtype.name], "shape": list(x.shape), "data_offsets": [self._end, self._end + x.nbytes],
        }  # fmt: skip
        self._jobs.put((name, data, buffer, self._end))
        self._end += x.nbytes
        self._check()
        return name

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            name, data, buffer, offset = job
            if self._error is None:
                try:
                    self._write(data.reshape(-1).view(np.uint8), 8 + self._room + offset)
                    self._sums[name] = checksum(data)
                except (OSError, ValueError, MemoryError) as error:  # raised where the next array is added
                    self._error = error
            self._free.put(buffer)
            self._jobs.task_done()
        self._jobs.task_done()

    def _write(self, data: Array, start: int) -> None:
        view, done = memoryview(data.data), 0
        while done < len(view):
            done += os.pwrite(self._file.fileno(), view[done:], start + done)

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    def _settle(self) -> None:
        """Wait until all that was added is in the file."""
        self._jobs.join()
        self._check()

    def close(self) -> None:
        """End the thread, once it has written what was added."""
        if self._thread.is_alive():
            self._jobs.put(None)
            self._thread.join()

    def read(self, name: str, rows: int | None = None) -> Array:
        """An array that was added, or its first rows."""
        self._settle()
        found = _empty(self._entries[name], rows)
        view = memoryview(found.reshape(-1).view(np.uint8).data) if found.size else memoryview(b"")
        done, start = 0, 8 + self._room + int(self._entries[name]["data_offsets"][0])
        while done < len(view):
            done += os.preadv(self._file.fileno(), [view[done:]], start + done)
        return found

    def finish(self, about: Mapping[str, Any]) -> None:
        """Write the header; where the room does not suffice, move the data back."""
        self._settle()
        said = {"format": FORMAT, "version": VERSION, **about, "checksums": self._sums}
        try:
            text = json.dumps(said, allow_nan=False)
        except ValueError:
            raise InvalidInput(
                "a trace holds finite sizes and noise floors, and the model's activations are too large for that: "
                "scale its inputs or weights"
            ) from None
        # The checksum comes first, so that nothing else can look like the place that is kept for it.
        metadata = {"checksum": _NO_SUM, "agnostic": text}
        header = json.dumps({"__metadata__": metadata, **self._entries}, separators=(",", ":")).encode()
        if len(header) > LONGEST_HEADER:
            raise InvalidInput(f"the header of a trace may have {LONGEST_HEADER} bytes, and this has {len(header)}")
        if len(header) > self._room:
            self._move(len(header) + -len(header) % 8)
        whole = struct.pack("<Q", self._room) + header.ljust(self._room)
        self._file.seek(0)
        self._file.write(whole.replace(_NO_SUM.encode(), _signed(whole).encode(), 1))
        self._file.flush()

    def _move(self, room: int) -> None:
        step, done = 1 << 26, self._end
        while done > 0:
            size = min(step, done)
            self._file.seek(8 + self._room + done - size)
            block = self._file.read(size)
            self._file.seek(8 + room + done - size)
            self._file.write(block)
            done -= size
        self._room = room


@contextmanager
def writing(path: str | os.PathLike[str], layers: int) -> Iterator[tuple[TraceWriter, dict[str, Any]]]:
    """A writer, and the dict to fill with what the trace says of itself; the file is there once the block has ended.

    Args:
        layers: about how many calls will be recorded, for the room of the header.

    Raises:
        InvalidInput: the file cannot be written.
    """
    about: dict[str, Any] = {}
    # Not "w+b": a file that was cut to nothing is sent to the disk when it is closed (ext4), which takes a while.
    with atomic_path(path) as temporary, open(temporary, "r+b") as file:
        writer = TraceWriter(file, _ROOM + 2048 * layers)
        try:
            yield writer, about
            writer.finish(about)
        finally:
            writer.close()


class Trace:
    """A trace, open for reading; nothing but its header is in memory.

    Attributes:
        path: of the file.
        about: what it says of itself; docs/traces.md tells the keys.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open a file, and check its header.

        Raises:
            InvalidInput: there is no such file, it is no trace, or it is cut off or damaged.
        """
        self.path = Path(path)
        with open_regular(self.path) as file:
            try:
                header = read_header(file, os.fstat(file.fileno()).st_size)
            except UnreadableTensors as error:
                raise InvalidInput(f"{self.path} is no trace, or damaged ({error}): record or copy it again") from None
            file.seek(0)
            text = file.read(header.start)
        self._start, self._entries = header.start, header.entries
        self._checked: set[str] = set()
        self.about = self._about(header.metadata, text)

    def _about(self, metadata: Mapping[str, str], text: bytes) -> dict[str, Any]:
        import msgspec

        from agnostic.compare.schema import validate

        try:
            about: Any = msgspec.json.decode(metadata["agnostic"])
            version = about["version"] if about["format"] == FORMAT else None
        except (msgspec.DecodeError, RecursionError, LookupError, TypeError):
            version = None
        if version is None:
            raise InvalidInput(f"{self.path} is no trace: record one with agnostic trace")
        if version != VERSION:
            raise InvalidInput(
                f"the trace {self.path} has version {str(version)[:9]}, and this agnostic reads {VERSION}: "
                "record it again"
            )
        stated = metadata.get("checksum", "")
        if len(stated) != len(_NO_SUM) or _signed(text.replace(stated.encode(), _NO_SUM.encode(), 1)) != stated:
            raise InvalidInput(f"the header of the trace {self.path} is damaged: record or copy it again")
        return validate(about, self._entries, self.path)

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of an array."""
        return self._entries[name].shape

    def read(self, name: str, rows: int | None = None) -> Array:
        """An array, or its first rows, in memory of its own.

        Raises:
            InvalidInput: the file changed or is damaged.
        """
        entry = self._entries[name]
        shape = entry.shape if rows is None or not entry.shape else (min(rows, entry.shape[0]), *entry.shape[1:])
        found = np.empty(shape, CODES[entry.code])
        with open_regular(self.path) as file:
            file.seek(self._start + entry.start)
            count = file.readinto(found.reshape(-1).view(np.uint8).data) if found.size else 0  # type: ignore[attr-defined]
            if count != found.nbytes:
                raise InvalidInput(f"the trace {self.path} is cut off: the array {name!r} is not whole")
            if name not in self._checked:
                self._check(name, found, file, entry.end - entry.start - count)
        return found

    def _check(self, name: str, found: Array, file: BinaryIO, left: int) -> None:
        """Compare an array with its checksum: what was read of it, and the rest of it, which is not kept."""
        total = checksum(found)
        while left > 0 and (block := file.read(min(left, 1 << 24))):
            total, left = zlib.crc32(block, total), left - len(block)
        if left or total != self.about["checksums"][name]:
            raise InvalidInput(f"the trace {self.path} is damaged: the array {name!r} is not what was written")
        self._checked.add(name)


def _empty(entry: Mapping[str, Any], rows: int | None) -> Array:
    shape = tuple(entry["shape"])
    if rows is not None and shape:
        shape = (min(rows, shape[0]), *shape[1:])
    return np.empty(shape, _DTYPES[entry["dtype"]])


def is_trace(path: str | os.PathLike[str]) -> bool:
    """Whether a file's name, or else its content, is a trace's."""
    return Path(path).suffix == SUFFIX
