"""Records on disk: one safetensors file, whose header describes the layers, the model and the inputs.

Reading needs no framework and reads one array at a time. The header is checked against its schema and its checksum,
each array against its checksum. docs/taps.md describes the format.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agnostic import display, tensors
from agnostic.errors import InvalidInput
from agnostic.files import as_path, open_regular
from agnostic.taps.format import FORMAT, VERSION, Said, checksum
from agnostic.taps.records import Activations

Array = np.ndarray[Any, Any]

_DEEPEST = 32


class Stored(Activations):
    """A record in a file. Each access reads an array and verifies its checksum.

    Attributes:
        path: of the file.
        about: the model, its inputs, the backend and the engine, as far as they were known.
        note: the argument of ``save``.

    Example:
        >>> ag.capture(model, ag.prepare(model, images), "conv").save("conv.safetensors", note={"photo": "cat"})
        >>> stored = ag.taps.open("conv.safetensors")
        >>> stored.note, stored.dtype("conv")
        ({'photo': 'cat'}, 'float32')
    """

    def __init__(self, path: Path, header: tensors.Header, said: Said) -> None:
        self.path, self.note = path, said.note
        self._header, self._said = header, said
        super().__init__(said.layers, _Calls(said.calls, self._read), _same, said.about)

    def dtype(self, name: str) -> str:
        """The dtype of a layer's first array when it was recorded, such as ``"bfloat16"``, which is read as float32.

        Args:
            name: of the layer.

        Returns:
            NumPy's name of the type, or ``"bfloat16"``.

        Raises:
            InvalidInput: the layer has no array in the record.
            UnknownName: no such layer.
        """
        names = [n for call in self._said.calls[self.layer(name).name] for n in _arrays_in(call)]
        if not names:
            raise InvalidInput(f"layer {name!r} has no array in this record")
        return self._said.types.get(names[0]) or np.dtype(tensors.CODES[self._header.entries[names[0]].code]).name

    def _read(self, name: str) -> Array:
        entry = self._header.entries[name]
        with open_regular(self.path) as file:
            file.seek(self._header.start + entry.start)
            data = bytearray(file.read(entry.end - entry.start))
        if len(data) != entry.end - entry.start or zlib.crc32(data) != self._said.checksums[name]:
            raise InvalidInput(f"{str(self.path)!r} is damaged: the array {name!r} has another checksum")
        return tensors.decoded(data, entry.code, entry.shape)

    def __repr__(self) -> str:
        shapes = display.listed(f"{key}: {shape}" for key, shape in self._shapes())
        return f"Stored({display.shortened(self.path)!r}, {shapes})"

    def _shapes(self) -> Iterator[tuple[str, str]]:
        return ((key, ", ".join(map(self._shape, self._said.calls[x.name]))) for key, x in self.layers.items())

    def _shape(self, call: Any) -> str:
        return str(self._header.entries[call["array"]].shape) if "array" in call else next(iter(call))


class _Calls(Mapping[str, Sequence[Any]]):
    """The outputs of each call by layer; arrays are read on access."""

    def __init__(self, calls: Mapping[str, list[Any]], read: Callable[[str], Array]) -> None:
        self._calls, self._read = calls, read

    def __getitem__(self, name: str) -> Sequence[Any]:
        return [self._made(call) for call in self._calls[name]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._calls)

    def __len__(self) -> int:
        return len(self._calls)

    def _made(self, call: Any) -> Any:
        ((kind, content),) = call.items()
        if kind == "array":
            return self._read(content)
        if kind == "dict":
            return {key: self._made(x) for key, x in content.items()}
        if kind == "value":
            return content
        made = [self._made(x) for x in content]
        return tuple(made) if kind == "tuple" else made


def _same(x: Any) -> Any:
    return x


def open_record(path: str | os.PathLike[str]) -> Any:
    """Open a saved record, or a store of activations. Arrays are read on access. No framework is needed.

    In a record bfloat16 is read as float32, which is exact; :meth:`Stored.dtype` returns the original dtype. A named
    tuple is read as a tuple, and a dataclass as a dict.

    Args:
        path: a file that ``record.save`` wrote; or the folder or URL of a store that :func:`agnostic.extract` wrote,
            also an unfinished one.

    Returns:
        A :class:`Stored` record with NumPy arrays, or an :class:`agnostic.taps.stores.ActivationStore`.

    Raises:
        InvalidInput: the file does not exist, is not a record or a store, or is damaged.
        MissingDependency: for a store, the package zarr is not installed.

    Example:
        >>> ag.capture(model, ag.prepare(model, images), "conv").save("conv.safetensors")
        >>> ag.taps.open("conv.safetensors")["conv"].shape
        (2, 8, 16, 16)
    """
    where = as_path(path)
    if "://" in os.fspath(path) or where.is_dir():
        from agnostic.taps.stores import open_store

        return open_store(path)
    with open_regular(where) as file:
        try:
            header = tensors.read_header(file, os.fstat(file.fileno()).st_size)
            said = _said(header)
        except tensors.UnreadableTensors as reason:
            raise InvalidInput(f"cannot read the record {str(where)!r}: {reason}") from None
    return Stored(where, header, said)


def _said(header: tensors.Header) -> Said:
    import msgspec

    text = header.metadata.get("agnostic")
    if text is None:
        raise tensors.UnreadableTensors("it has no header of a record")
    entries = {name: (e.code, list(e.shape), e.start, e.end) for name, e in header.entries.items()}
    if header.metadata.get("checksum") != checksum(text, entries):
        raise tensors.UnreadableTensors("its header is damaged, or it is not a record: the checksum differs")
    try:
        said = msgspec.json.decode(text, type=Said)
    except (msgspec.DecodeError, RecursionError) as error:
        raise tensors.UnreadableTensors(f"it has no header of a record ({error})") from None
    if (said.format, said.version) != (FORMAT, VERSION):
        raise tensors.UnreadableTensors(
            f"it is a {said.format!r} of version {said.version}, not {FORMAT!r} of {VERSION}"
        )
    if {x.name for x in said.layers.values()} != said.calls.keys():
        raise tensors.UnreadableTensors("its layers and its calls differ")
    names = [name for calls in said.calls.values() for call in calls for name in _arrays_in(call)]
    if sorted(names) != sorted(header.entries) or said.checksums.keys() != header.entries.keys():
        raise tensors.UnreadableTensors("its layers and its arrays differ")
    return said


def _arrays_in(call: Any, depth: int = 0) -> Iterator[str]:
    """The names of the arrays of one call, in order; checks that it is what :func:`_written` makes."""
    if depth > _DEEPEST or not isinstance(call, dict) or len(call) != 1:
        raise tensors.UnreadableTensors("what a layer returned is not described in it")
    ((kind, content),) = call.items()
    if kind == "array" and isinstance(content, str):
        yield content
    elif (kind in ("list", "tuple") and isinstance(content, list)) or (kind == "dict" and isinstance(content, dict)):
        for inner in content.values() if isinstance(content, dict) else content:
            yield from _arrays_in(inner, depth + 1)
    elif kind != "value" or isinstance(content, dict | list):
        raise tensors.UnreadableTensors("what a layer returned is not described in it")
