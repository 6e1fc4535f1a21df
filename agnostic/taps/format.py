"""The file of a record: its header, its checksums, and how it is written. docs/taps.md describes it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from agnostic import tensors
from agnostic.arrays import describe, dtype_name
from agnostic.errors import InvalidInput
from agnostic.files import atomic_path
from agnostic.layers import Layer
from agnostic.text import counted
from agnostic.version import __version__

Array = np.ndarray[Any, Any]

FORMAT, VERSION = "agnostic-record", 1
_CODES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32",
    "int16": "I16", "int8": "I8", "uint64": "U64", "uint32": "U32", "uint16": "U16", "uint8": "U8", "bool": "BOOL",
    "complex64": "C64", "complex128": "C128",
}  # fmt: skip


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


def write(
    path: str | os.PathLike[str],
    layers: Mapping[str, Layer],
    calls: Mapping[str, Iterable[tuple[Any, Any]]],
    about: Mapping[str, Any],
    note: Mapping[str, Any] | None,
) -> None:
    """Write the file of a record.

    Args:
        path: the file; one that is there is replaced when the new one is whole.
        layers: by key.
        calls: by layer's own name what each call returned: as it is, and with NumPy arrays in place of native ones.
        about: the model and its inputs, as JSON can hold them.
        note: what else is to be known of it, as JSON can hold it.

    Raises:
        InvalidInput: a layer returned something else than arrays, numbers and strings, or the file cannot be written.
    """
    if not isinstance(note, Mapping | None):
        raise InvalidInput(f"a note is a dict, such as {{'photo': 'cat.jpg'}}, not {describe(note)}")
    arrays: dict[str, tuple[str, Array]] = {}
    types: dict[str, str] = {}
    written: dict[str, list[Any]] = {}
    for layer, returned in calls.items():
        written[layer] = []
        for number, (native, plain) in enumerate(returned):
            names = _names(layer, number, arrays)
            written[layer].append(_written(native, plain, names, arrays, types, layer))
    header = {
        "format": FORMAT,
        "version": VERSION,
        "layers": {key: dataclasses.asdict(layer) for key, layer in layers.items()},
        "calls": written,
        "types": types,
        "about": {**about, "agnostic": __version__},
        "note": dict(note or {}),
        "checksums": {name: zlib.crc32(_bytes(x)) for name, (_, x) in arrays.items()},
    }
    try:
        text = json.dumps(header, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(f"a note holds what JSON can: numbers, strings, lists and dicts of them ({error})") from None
    _write_arrays(path, text, arrays)


def _write_arrays(path: str | os.PathLike[str], text: str, arrays: Mapping[str, tuple[str, Array]]) -> None:
    # The widest numbers first, so that each array begins where its type may.
    order = sorted(arrays, key=lambda name: -tensors.width(arrays[name][0]))
    entries: dict[str, Any] = {}
    end = 0
    for name in order:
        code, x = arrays[name]
        entries[name] = {"dtype": code, "shape": list(x.shape), "data_offsets": [end, end + x.nbytes]}
        end += x.nbytes
    summed = checksum(text, {n: (e["dtype"], e["shape"], *e["data_offsets"]) for n, e in entries.items()})
    header = json.dumps({"__metadata__": {"agnostic": text, "checksum": summed}, **entries}).encode()
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


def checksum(text: str, entries: Mapping[str, Sequence[Any]]) -> str:
    """Of all that the header says."""
    known = json.dumps([text, sorted([name, *entry] for name, entry in entries.items())])
    return hashlib.blake2b(known.encode(), digest_size=16).hexdigest()
