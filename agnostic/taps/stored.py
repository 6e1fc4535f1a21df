"""Records on disk: one safetensors file, whose header says what was recorded, of which model and on what inputs.

Reading needs no framework, reads one array at a time, and checks what it reads: the header against its schema and its
checksum, each array against its own. docs/taps.md describes the format.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agnostic import __version__, display, tensors
from agnostic.arrays import describe, dtype_name
from agnostic.errors import InvalidInput
from agnostic.files import as_path, atomic_path, open_regular
from agnostic.layers import Layer
from agnostic.taps.records import Activations
from agnostic.text import counted

Array = np.ndarray[Any, Any]

FORMAT, VERSION = "agnostic-record", 1
_DEEPEST = 32
_CODES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32",
    "int16": "I16", "int8": "I8", "uint64": "U64", "uint32": "U32", "uint16": "U16", "uint8": "U8", "bool": "BOOL",
    "complex64": "C64", "complex128": "C128",
}  # fmt: skip


# Writing -------------------------------------------------------------------------------------------------------------
def save(record: Activations, path: str | os.PathLike[str], note: Mapping[str, Any] | None = None) -> None:
    """See :meth:`agnostic.taps.records.Activations.save`."""
    if not isinstance(note, Mapping | None):
        raise InvalidInput(f"a note is a dict, such as {{'photo': 'cat.jpg'}}, not {describe(note)}")
    arrays: dict[str, tuple[str, Array]] = {}
    types: dict[str, str] = {}
    calls: dict[str, list[Any]] = {}
    for layer in {x.name: x for x in record.layers.values()}.values():
        calls[layer.name] = []
        for number, (native, plain) in enumerate(record.both(layer.name)):
            names = _names(layer.name, number, arrays)
            calls[layer.name].append(_written(native, plain, names, arrays, types, layer.name))
    about = {
        "format": FORMAT,
        "version": VERSION,
        "layers": {key: dataclasses.asdict(layer) for key, layer in record.layers.items()},
        "calls": calls,
        "types": types,
        "about": {**record.about, "agnostic": __version__},
        "note": dict(note or {}),
        "checksums": {name: zlib.crc32(_bytes(x)) for name, (_, x) in arrays.items()},
    }
    try:
        text = json.dumps(about, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(f"a note holds what JSON can: numbers, words, lists and dicts of them ({error})") from None
    # The widest numbers first, so that each array begins where its type may.
    order = sorted(arrays, key=lambda name: -tensors.width(arrays[name][0]))
    entries: dict[str, Any] = {}
    end = 0
    for name in order:
        code, x = arrays[name]
        entries[name] = {"dtype": code, "shape": list(x.shape), "data_offsets": [end, end + x.nbytes]}
        end += x.nbytes
    checksum = _checksum(text, {n: (e["dtype"], e["shape"], *e["data_offsets"]) for n, e in entries.items()})
    header = json.dumps({"__metadata__": {"agnostic": text, "checksum": checksum}, **entries}).encode()
    header += b" " * (-len(header) % 8)
    if len(header) > tensors.LONGEST_HEADER:
        raise InvalidInput(f"{counted(len(arrays), 'array')} are too many for one file: save fewer layers")
    with atomic_path(path) as temporary, open(temporary, "r+b") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for name in order:
            file.write(_bytes(arrays[name][1]))


def _names(layer: str, call: int, taken: Mapping[str, Any]) -> Iterator[str]:
    """Names for the arrays of a call: the layer's own, and numbered ones after it."""
    first = layer if call == 0 else f"{layer}#{call}"
    number = 0
    while True:
        name = first if number == 0 else f"{first}/{number}"
        number += 1
        if name not in taken and name != "__metadata__":
            yield name


def _written(
    native: Any, plain: Any, names: Iterator[str], arrays: dict[str, tuple[str, Array]], types: dict[str, str],
    layer: str,
) -> Any:  # fmt: skip
    """What JSON says of a layer's output: of its arrays the names."""

    def inner(pairs: Iterator[tuple[Any, Any]]) -> list[Any]:
        return [_written(a, b, names, arrays, types, layer) for a, b in pairs]

    if isinstance(plain, np.ndarray | np.generic):
        name = next(names)
        array, own = np.asarray(plain), dtype_name(native)
        arrays[name] = _encoded(array, own, layer)
        if own and own != array.dtype.name:
            types[name] = own
        return {"array": name}
    if dataclasses.is_dataclass(plain) and not isinstance(plain, type):
        fields = [field.name for field in dataclasses.fields(plain)]
        native, plain = ({name: getattr(x, name) for name in fields} for x in (native, plain))
    if isinstance(plain, Mapping):
        keys = list(plain)
        return {"dict": dict(zip(map(str, keys), inner((native[k], plain[k]) for k in keys), strict=True))}
    if isinstance(plain, list | tuple):
        return {"tuple" if isinstance(plain, tuple) else "list": inner(zip(native, plain, strict=True))}
    if plain is None or isinstance(plain, bool | int | float | str):
        return {"value": plain}
    raise InvalidInput(f"layer {layer!r} returned {type(plain).__name__}, which no file of arrays can hold")


def _encoded(x: Array, own: str, layer: str) -> tuple[str, Array]:
    """The code of an array's type in a file, and the numbers as they are stored."""
    if own == "bfloat16" and x.dtype == np.float32:  # whose lower half is zeros
        return "BF16", np.asarray(x.view(np.uint32) >> 16, "<u2", order="C")
    if x.dtype.name not in _CODES:
        raise InvalidInput(f"layer {layer!r} returned an array of {x.dtype}, which no file of numbers can hold")
    code = _CODES[x.dtype.name]
    return code, np.asarray(x, tensors.CODES[code], order="C")


def _bytes(x: Array) -> memoryview:
    return memoryview(x.reshape(-1).view(np.uint8).data) if x.size else memoryview(b"")


def _checksum(text: str, entries: Mapping[str, Sequence[Any]]) -> str:
    """Of all that the header says."""
    known = json.dumps([text, sorted([name, *entry] for name, entry in entries.items())])
    return hashlib.blake2b(known.encode(), digest_size=16).hexdigest()


# Reading -------------------------------------------------------------------------------------------------------------
@dataclasses.dataclass(frozen=True)
class Said:
    """The JSON text in the header, decoded: see docs/taps.md."""

    format: str
    version: int
    layers: dict[str, Layer]
    calls: dict[str, list[Any]]
    types: dict[str, str]
    about: dict[str, Any]
    note: dict[str, Any]
    checksums: dict[str, int]


class Stored(Activations):
    """A record in a file. An array is read, and checked, each time that it is asked for.

    Attributes:
        path: of the file.
        about: the model and its inputs, and what computed, as far as the record knew them.
        note: what was given to ``save``.

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
        """The type that a layer's first array had when it was recorded, such as ``"bfloat16"``, read as float32.

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
            raise InvalidInput(f"{str(self.path)!r} is damaged: the array {name!r} is not the one that was saved")
        return tensors.decoded(data, entry.code, entry.shape)

    def __repr__(self) -> str:
        shapes = display.listed(f"{key}: {shape}" for key, shape in self._shapes())
        return f"Stored({display.shortened(self.path)!r}, {shapes})"

    def _shapes(self) -> Iterator[tuple[str, str]]:
        return ((key, ", ".join(map(self._shape, self._said.calls[x.name]))) for key, x in self.layers.items())

    def _shape(self, call: Any) -> str:
        return str(self._header.entries[call["array"]].shape) if "array" in call else next(iter(call))


class _Calls(Mapping[str, Sequence[Any]]):
    """By layer what each call returned, its arrays read when the layer is asked for."""

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


def open_record(path: str | os.PathLike[str]) -> Stored:
    """A record that was saved, with NumPy arrays, each read when it is asked for. No framework is needed.

    bfloat16 is read as float32, which holds it exactly; :meth:`Stored.dtype` tells what it was. A named tuple is read
    as a tuple, and a dataclass as a dict.

    Args:
        path: of a file that ``record.save`` wrote.

    Returns:
        A record whose arrays are NumPy's.

    Raises:
        InvalidInput: there is no such file, it holds no record, or it is damaged.

    Example:
        >>> ag.capture(model, ag.prepare(model, images), "conv").save("conv.safetensors")
        >>> ag.taps.open("conv.safetensors")["conv"].shape
        (2, 8, 16, 16)
    """
    where = as_path(path)
    with open_regular(where) as file:
        try:
            header = tensors.read_header(file, os.fstat(file.fileno()).st_size)
            said = _said(header)
        except tensors.Unreadable as reason:
            raise InvalidInput(f"cannot read the record {str(where)!r}: {reason}") from None
    return Stored(where, header, said)


def _said(header: tensors.Header) -> Said:
    import msgspec

    text = header.metadata.get("agnostic")
    if text is None:
        raise tensors.Unreadable("its header is not that of a record")
    entries = {name: (e.code, list(e.shape), e.start, e.end) for name, e in header.entries.items()}
    if header.metadata.get("checksum") != _checksum(text, entries):
        raise tensors.Unreadable("its header is damaged, or it is no record: its checksum differs")
    try:
        said = msgspec.json.decode(text, type=Said)
    except (msgspec.DecodeError, RecursionError) as error:
        raise tensors.Unreadable(f"its header is not that of a record ({error})") from None
    if (said.format, said.version) != (FORMAT, VERSION):
        raise tensors.Unreadable(f"it is a {said.format!r} of version {said.version}, not {FORMAT!r} of {VERSION}")
    if {x.name for x in said.layers.values()} != said.calls.keys():
        raise tensors.Unreadable("its layers and its calls differ")
    names = [name for calls in said.calls.values() for call in calls for name in _arrays_in(call)]
    if sorted(names) != sorted(header.entries) or said.checksums.keys() != header.entries.keys():
        raise tensors.Unreadable("its layers and its arrays differ")
    return said


def _arrays_in(call: Any, depth: int = 0) -> Iterator[str]:
    """The names of the arrays of one call, in order; checks that it is what :func:`_written` makes."""
    if depth > _DEEPEST or not isinstance(call, dict) or len(call) != 1:
        raise tensors.Unreadable("what a layer returned is not described in it")
    ((kind, content),) = call.items()
    if kind == "array" and isinstance(content, str):
        yield content
    elif (kind in ("list", "tuple") and isinstance(content, list)) or (kind == "dict" and isinstance(content, dict)):
        for inner in content.values() if isinstance(content, dict) else content:
            yield from _arrays_in(inner, depth + 1)
    elif kind != "value" or isinstance(content, dict | list):
        raise tensors.Unreadable("what a layer returned is not described in it")
