"""Read what ``torch.save`` wrote, without torch and without executing anything: NumPy arrays by name.

A checkpoint is a pickle whose tensors point into raw storages beside it. The pickle is read by a machine that can build
plain values alone (:mod:`agnostic.models.pickles`), and the storages are mapped into memory, not copied.
"""

from __future__ import annotations

import io
import math
import mmap
import re
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from agnostic.errors import InvalidWeights
from agnostic.files import open_regular
from agnostic.limits import allowance, refusal
from agnostic.models import pickles
from agnostic.tensors import CODES, UnreadableTensors, decoded, decoded_width, width
from agnostic.text import counted, with_article

Array = np.ndarray[Any, Any]

_MAGIC = 0x1950A86A20F9469CFC6C
"""The first pickle of the format that torch.save wrote before PyTorch 1.6."""

_STORAGES = {
    "DoubleStorage": "F64", "FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16",
    "LongStorage": "I64", "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8", "ByteStorage": "U8",
    "BoolStorage": "BOOL", "ComplexFloatStorage": "C64", "ComplexDoubleStorage": "C128",
}  # fmt: skip
_DTYPES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32",
    "int16": "I16", "int8": "I8", "uint64": "U64", "uint32": "U32", "uint16": "U16", "uint8": "U8", "bool": "BOOL",
    "complex64": "C64", "complex128": "C128", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2",
}  # fmt: skip

_OTHERS = {
    "torch._utils._rebuild_qtensor": "quantized",
    "torch._utils._rebuild_sparse_tensor": "sparse",
    "torch._utils._rebuild_sparse_csr_tensor": "sparse",
    "torch._utils._rebuild_meta_tensor_no_storage": "meta",
    "torch._utils._rebuild_nested_tensor": "nested",
}
"""What torch rebuilds tensors by that are no plain arrays of numbers."""

_OTHER_DTYPE = re.compile(r"torch\.((float|complex|bits|q?u?int)\d\w*)")
"""Types of torch that are not among :data:`_DTYPES`."""

NESTED = ("state_dict", "model_state_dict", "model", "weights")
"""Keys under which training scripts keep the state dict, beside the epoch and the optimizer."""

_DEEPEST = 8
_MOST_AXES = 32


@dataclass(frozen=True)
class _Storage:
    """One array of numbers that tensors are views of."""

    code: str
    key: str
    count: int

    @property
    def bytes(self) -> int:
        return self.count * width(self.code)


@dataclass(frozen=True)
class _Tensor:
    """A view of a storage, in elements."""

    storage: _Storage
    code: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    conjugate: bool = False
    negative: bool = False


def read_checkpoint(path: Path) -> dict[str, Array]:
    """The tensors of a state dict, by name, in PyTorch's own layout.

    Args:
        path: what torch.save wrote, in any of its versions: a state dict, alone or under a key of :data:`NESTED`.
            Entries that are no tensors are left out. bfloat16 and 8-bit floats come as float32, which holds them
            exactly.

    Returns:
        Arrays on a private mapping of the file: they may be written to, the file does not change.

    Raises:
        InvalidWeights: missing, damaged, no state dict, a pickle that would execute code, tensors of another kind
            (quantized, sparse, meta), or more memory than :func:`agnostic.limits.allowance` grants.

    Source: torch/serialization.py of PyTorch, ``_save`` and ``_legacy_save``.
    """
    with open_regular(path, InvalidWeights) as file:
        try:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        except (ValueError, OSError):
            raise InvalidWeights(f"{path} is empty: download or copy it again") from None
    try:
        found = _Checkpoint(path, mapped)
        content, raw = found.zipped() if zipfile.is_zipfile(_file(mapped)) else found.legacy()
        tensors = _tensors(content, path)
        found.check_size(tensors)
        return {name: _array(tensor, raw) for name, tensor in tensors.items()}
    except InvalidWeights:
        raise
    except pickles.Forbidden as error:
        raise _forbidden(path, str(error)) from None
    except (
        pickles.Damaged, ValueError, LookupError, TypeError, EOFError, OverflowError, RuntimeError, NotImplementedError,
        zipfile.BadZipFile, zlib.error,
    ) as error:  # fmt: skip
        # What zipfile raises on damaged archives, and what a content of another kind than a checkpoint's leads to.
        said = " ".join(str(error).split())[:160] or type(error).__name__
        raise InvalidWeights(
            f"{path} is damaged, cut off, or no weight file of PyTorch ({said}): download or copy it again"
        ) from None


def _forbidden(path: Path, name: str) -> InvalidWeights:
    if name in _OTHERS:
        return InvalidWeights(
            f"{path} holds {with_article(_OTHERS[name])} tensor, and weights are dense arrays of numbers: save what "
            "its dequantize() or to_dense() returns"
        )
    if found := _OTHER_DTYPE.fullmatch(name):
        return InvalidWeights(
            f"{path} holds a tensor of type {found[1]}, which NumPy does not have: save it as float32 or complex64"
        )
    return InvalidWeights(
        f"reading {path} would execute code ({name}), which agnostic never does: ask its author for a "
        ".safetensors file, or for what torch.save(model.state_dict(), file) writes"
    )


class _Checkpoint:
    """A file that is being read."""

    def __init__(self, path: Path, mapped: mmap.mmap) -> None:
        self._path, self._mapped, self._size = path, mapped, len(mapped)
        self._left = allowance(self._size) // pickles.BYTES
        self._storages: dict[str, _Storage] = {}
        self._known: dict[tuple[str, str], Any] = {
            ("collections", "OrderedDict"): self._dict,
            ("torch", "Size"): lambda shape: shape,
            ("torch._utils", "_rebuild_tensor"): _rebuild,
            ("torch._utils", "_rebuild_tensor_v2"): _rebuild,
            ("torch._utils", "_rebuild_tensor_v3"): _rebuild_typed,
            ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
            ("torch", "device"): lambda *_: None,
            ("torch.storage", "UntypedStorage"): "U8",
            ("torch", "UntypedStorage"): "U8",
            **{("torch", name): code for name, code in _STORAGES.items()},
            **{("torch", name): code for name, code in _DTYPES.items()},
        }

    def _dict(self, pairs: Any = ()) -> dict[Any, Any]:
        # A list that is copied again and again makes much of a small file.
        self._left -= len(pairs)
        if self._left < 0:
            raise pickles.Damaged("more values than the file's size allows")
        found: dict[str, Any] = {}
        for key, value in pairs:
            if not isinstance(key, str):
                raise pickles.Damaged("a key that is no text")
            found[key] = value
        return found

    def _read(self, stream: Any) -> Any:
        return pickles.read(stream, self._known, self._storage, self._left)

    def _storage(self, reference: Any) -> _Storage:
        kind, code, key, _, count, *view = reference
        if kind != "storage" or code not in CODES or any(view) or not isinstance(count, int) or count < 0:
            raise pickles.Damaged("an unknown reference")
        return self._storages.setdefault(str(key), _Storage(code, str(key), count))

    def check_size(self, tensors: Mapping[str, _Tensor]) -> None:
        """Views of one storage cost nothing until they are copied, as they will be."""
        needed = sum(math.prod(x.shape) * decoded_width(x.code) for x in tensors.values())
        if needed > allowance(self._size):
            raise InvalidWeights(refusal(str(self._path), needed, self._size))

    def zipped(self) -> tuple[Any, Callable[[_Storage], memoryview]]:
        """The format since PyTorch 1.6: a zip of ``data.pkl`` and one file a storage."""
        archive = zipfile.ZipFile(_file(self._mapped))
        members = {x.filename: x for x in archive.infolist()}
        expanded = sum(x.file_size for x in members.values() if x.compress_type != zipfile.ZIP_STORED)
        if expanded > allowance(self._size):
            raise InvalidWeights(refusal(str(self._path), expanded, self._size))
        if any(name.endswith("/constants.pkl") for name in members):
            raise InvalidWeights(
                f"{self._path} is a TorchScript program, not weights: save its state_dict() from where you trust and "
                "run it"
            )
        pickled = next((name for name in members if name.endswith("/data.pkl") or name == "data.pkl"), None)
        if pickled is None:
            raise ValueError("an archive without data.pkl")
        folder = pickled.removesuffix("data.pkl")
        if folder + "byteorder" in members and archive.read(folder + "byteorder") != b"little":
            raise ValueError("big-endian numbers")

        # Once, however many tensors are views of it: an array keeps what it is a view of.
        found: dict[str, memoryview] = {}

        def raw(storage: _Storage) -> memoryview:
            member = members[f"{folder}data/{storage.key}"]
            if member.file_size < storage.bytes:
                raise EOFError("a storage is cut off")
            if storage.key not in found:
                found[storage.key] = self._member(archive, member)
            return found[storage.key]

        return self._read(io.BytesIO(self._member(archive, members[pickled]))), raw

    def _member(self, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> memoryview:
        """The bytes of a member: in place, if they are stored as they are."""
        if member.compress_type != zipfile.ZIP_STORED:
            return memoryview(bytearray(archive.read(member)))
        start = member.header_offset
        header = self._mapped[start : start + 30]
        if header[:4] != b"PK\x03\x04" or member.flag_bits & 1 or member.compress_size != member.file_size:
            raise zipfile.BadZipFile("a member without a header")
        start += 30 + int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        found = memoryview(self._mapped)[start : start + member.file_size]
        if len(found) != member.file_size:
            raise EOFError("a storage is cut off")
        if zlib.crc32(found) != member.CRC:
            raise ValueError(f"the checksum of {member.filename!r} does not fit")
        return found

    def legacy(self) -> tuple[Any, Callable[[_Storage], memoryview]]:
        """The format before: pickles of a magic number, a version, the machine, the content, the keys; storages."""
        if self._read(self._mapped) != _MAGIC:
            raise ValueError("another magic number")
        _, machine = self._read(self._mapped), self._read(self._mapped)
        if not machine["little_endian"]:
            raise ValueError("big-endian numbers")
        content, keys = self._read(self._mapped), self._read(self._mapped)
        found: dict[str, memoryview] = {}
        position, view = self._mapped.tell(), memoryview(self._mapped)
        for key in keys:
            storage = self._storages[str(key)]
            count, position = int.from_bytes(view[position : position + 8], "little"), position + 8
            found[storage.key], position = view[position : position + storage.bytes], position + storage.bytes
            if count != storage.count or len(found[storage.key]) != storage.bytes:
                raise EOFError("a storage is cut off")
        return content, lambda storage: found[storage.key]


def _file(mapped: mmap.mmap) -> BinaryIO:
    return io.BufferedReader(_Raw(mapped))


class _Raw(io.RawIOBase):
    """A mapping as a file of its own place."""

    def __init__(self, mapped: mmap.mmap) -> None:
        self._view, self._place = memoryview(mapped), 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._place = max(0, offset + {0: 0, 1: self._place, 2: len(self._view)}[whence])
        return self._place

    def readinto(self, buffer: Any) -> int:
        found = self._view[self._place : self._place + len(buffer)]
        buffer[: len(found)] = found
        self._place += len(found)
        return len(found)


# Tensors -------------------------------------------------------------------------------------------------------------
def _rebuild(storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any) -> _Tensor:
    """What the file calls torch's function of this name by; the rest is about gradients, but for the last."""
    if not isinstance(storage, _Storage):
        raise pickles.Damaged("a tensor without a storage")
    return _tensor(storage, storage.code, offset, shape, strides, rest[2] if len(rest) > 2 else None)


def _rebuild_typed(
    storage: Any, offset: Any, shape: Any, strides: Any, _gradient: Any, _hooks: Any, code: Any, *rest: Any
) -> _Tensor:
    """The same for types that have no storage class of their own: the storage holds bytes."""
    if not isinstance(storage, _Storage) or code not in CODES:
        raise pickles.Damaged("a tensor without a storage")
    return _tensor(storage, code, offset, shape, strides, rest[0] if rest else None)


def _tensor(storage: _Storage, code: str, offset: Any, shape: Any, strides: Any, bits: Any) -> _Tensor:
    numbers = (offset, *shape, *strides)
    if not all(isinstance(x, int) and 0 <= x < 1 << 62 for x in numbers) or len(shape) != len(strides):
        raise pickles.Damaged("a tensor of no shape")
    if len(shape) > _MOST_AXES:
        raise pickles.Damaged(f"a tensor with {counted(len(shape), 'axis', 'axes')}")
    bits = bits if isinstance(bits, Mapping) else {}
    return _Tensor(
        storage, code, offset, tuple(shape), tuple(strides), bool(bits.get("conj")), bool(bits.get("neg"))
    )  # fmt: skip


def _tensors(content: Any, path: Path) -> dict[str, _Tensor]:
    """Those of the state dict, which may be an entry of an entry."""
    for _ in range(_DEEPEST):
        if not isinstance(content, Mapping):
            break
        inner = next((content[key] for key in NESTED if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            break
        content = inner
    if isinstance(content, Mapping):
        if found := {name: x for name, x in content.items() if isinstance(name, str) and isinstance(x, _Tensor)}:
            return found
        holds = f"a dict of {', '.join(map(repr, list(content)[:5]))}" if content else "nothing"
    else:
        holds = "Tensor" if isinstance(content, _Tensor) else type(content).__name__
    raise InvalidWeights(f"{path} holds {holds}, and no tensors by name, as model.state_dict() has them")


def _array(tensor: _Tensor, raw: Callable[[_Storage], memoryview]) -> Array:
    count = tensor.storage.bytes // width(tensor.code)
    _check_bounds(tensor.offset, tensor.shape, tensor.strides, count)
    data = raw(tensor.storage)
    if not math.prod(tensor.shape):
        return decoded(data[:0], tensor.code, tensor.shape)
    # Only what the tensor sees: it may be a small part of a large storage, which a conversion would copy.
    last = tensor.offset + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.strides, strict=True))
    size = width(tensor.code)
    try:
        flat = decoded(
            data[tensor.offset * size : (last + 1) * size], tensor.code, (last + 1 - tensor.offset,)
        )  # fmt: skip
    except UnreadableTensors as error:
        raise ValueError(str(error)) from None
    view = np.lib.stride_tricks.as_strided(flat, tensor.shape, [s * flat.itemsize for s in tensor.strides])
    if tensor.conjugate:
        view = view.conj()
    return -view if tensor.negative else view


def _check_bounds(offset: int, shape: Sequence[int], strides: Sequence[int], count: int) -> None:
    """A view that leaves its storage would read foreign memory."""
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    if math.prod(shape) and last >= count:
        raise ValueError("a tensor beyond its storage")
