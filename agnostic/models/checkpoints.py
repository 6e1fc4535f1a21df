"""Read what ``torch.save`` wrote, without torch and without executing anything: NumPy arrays by name.

A checkpoint is a pickle whose tensors point into raw storages beside it. The unpickler here knows the few names that a
state dict consists of, and refuses every other one; so no byte of a file can call anything but these.
"""

from __future__ import annotations

import io
import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from agnostic.errors import InvalidWeights

Array = np.ndarray[Any, Any]

_MAGIC = 0x1950A86A20F9469CFC6C
"""The first pickle of the format that torch.save wrote before PyTorch 1.6."""

_STORAGES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
    "BoolStorage": "?",
}

_NESTED = ("state_dict", "model_state_dict", "model", "weights")
"""Keys under which training scripts keep the state dict, beside the epoch and the optimizer."""


@dataclass(frozen=True)
class _Storage:
    """One array of numbers that tensors are views of."""

    dtype: str
    key: str
    count: int

    @property
    def bytes(self) -> int:
        return self.count * (2 if self.dtype == "bfloat16" else np.dtype(self.dtype).itemsize)


@dataclass(frozen=True)
class _Tensor:
    """A view of a storage, in elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Rebuild:
    """What the file calls torch's function by. Without attributes, so that the file cannot set any."""

    __slots__ = ()

    def __call__(self, storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _Tensor:
        if not (isinstance(storage, _Storage) and len(shape) == len(strides)):
            raise pickle.UnpicklingError("a tensor without a storage")
        return _Tensor(storage, int(offset), tuple(map(int, shape)), tuple(map(int, strides)))


class _RebuildParameter:
    __slots__ = ()

    def __call__(self, tensor: Any, *_: Any) -> Any:
        return tensor


class _ForbiddenError(Exception):
    """A name that no state dict needs."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _Rebuild()
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return _RebuildParameter()
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        raise _ForbiddenError(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _, count, *view = pid
        if kind != "storage" or any(view):
            raise pickle.UnpicklingError(f"an unknown reference {kind!r}")
        return _Storage(str(dtype), str(key), int(count))


def read_checkpoint(path: Path) -> dict[str, Array]:
    """The tensors of a state dict, by name, in PyTorch's own layout.

    Args:
        path: ``.pth`` or ``.pt``, of any version of torch.save: a state dict, alone or under a key such as
            ``"state_dict"``. Entries that are no tensors are left out; bfloat16 comes as float32.

    Raises:
        InvalidWeights: missing, damaged, no state dict, or a pickle that needs code execution.

    Source: torch/serialization.py of PyTorch, ``_save`` and ``_legacy_save``.
    """
    if not path.is_file():
        raise InvalidWeights(f"cannot read weights from {path}: there is no such file")
    try:
        with path.open("rb") as file:
            content, raw = _zipped(file) if zipfile.is_zipfile(file) else _legacy(file)
            return {name: _array(tensor, raw) for name, tensor in _tensors(content, path).items()}
    except InvalidWeights:
        raise
    except _ForbiddenError as error:
        raise InvalidWeights(
            f"reading {path} would execute code ({error}), which agnostic never does: ask its author for a "
            ".safetensors file, or for what torch.save(model.state_dict(), file) writes"
        ) from None
    except Exception as error:  # noqa: BLE001 - a damaged pickle can raise anything at all
        raise InvalidWeights(
            f"{path} is damaged, cut off, or no weight file of PyTorch ({type(error).__name__}): "
            "download or copy it again"
        ) from None


def _zipped(file: BinaryIO) -> tuple[Any, Callable[[_Storage], bytes]]:
    """The format since PyTorch 1.6: a zip of ``data.pkl`` and one file a storage."""
    archive = zipfile.ZipFile(file)
    names = archive.namelist()
    pickled = next(name for name in names if name.endswith("/data.pkl"))
    folder = pickled.removesuffix("data.pkl")
    if folder + "byteorder" in names and archive.read(folder + "byteorder") != b"little":
        raise ValueError("big-endian numbers")

    def raw(storage: _Storage) -> bytes:
        name = f"{folder}data/{storage.key}"
        if archive.getinfo(name).file_size < storage.bytes:
            raise EOFError("a storage is cut off")
        return archive.read(name)

    return _Unpickler(io.BytesIO(archive.read(pickled))).load(), raw


def _legacy(file: BinaryIO) -> tuple[Any, Callable[[_Storage], bytes]]:
    """The format before: pickles of a magic number, a version, the machine, the content and the keys; then storages."""
    file.seek(0)
    if _Unpickler(file).load() != _MAGIC:
        raise ValueError("another magic number")
    _, machine, seen = _Unpickler(file).load(), _Unpickler(file).load(), _Recording(file)
    if not machine["little_endian"]:
        raise ValueError("big-endian numbers")
    content = seen.load()
    found: dict[str, bytes] = {}
    for key in _Unpickler(file).load():
        storage = seen.storages[str(key)]
        count = int.from_bytes(file.read(8), "little")
        found[storage.key] = file.read(storage.bytes)
        if count != storage.count or len(found[storage.key]) != storage.bytes:
            raise EOFError("a storage is cut off")
    return content, lambda storage: found[storage.key]


class _Recording(_Unpickler):
    """Keeps the storages that it met, by key."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self.storages: dict[str, _Storage] = {}

    def persistent_load(self, pid: Any) -> _Storage:
        storage = super().persistent_load(pid)
        return self.storages.setdefault(storage.key, storage)


def _tensors(content: Any, path: Path) -> dict[str, _Tensor]:
    if isinstance(content, Mapping):
        for key in _NESTED:
            if isinstance(content.get(key), Mapping):
                return _tensors(content[key], path)
        found = {name: x for name, x in content.items() if isinstance(name, str) and isinstance(x, _Tensor)}
        if found:
            return found
    raise InvalidWeights(f"{path} holds no tensors by name, as torch.save(model.state_dict(), file) writes them")


def _array(tensor: _Tensor, raw: Callable[[_Storage], bytes]) -> Array:
    storage = tensor.storage
    _check_bounds(tensor.offset, tensor.shape, tensor.strides, storage.count)
    if storage.dtype == "bfloat16":
        halves = np.frombuffer(raw(storage), "<u2", storage.count)
        flat: Array = (halves.astype(np.uint32) << 16).view(np.float32)
    else:
        flat = np.frombuffer(raw(storage), storage.dtype, storage.count)
    size = flat.itemsize
    view = np.lib.stride_tricks.as_strided(flat[tensor.offset :], tensor.shape, [s * size for s in tensor.strides])
    return np.array(view)


def _check_bounds(offset: int, shape: Sequence[int], strides: Sequence[int], count: int) -> None:
    """A view that leaves its storage would read foreign memory; one that repeats it, fill all of ours."""
    if min((offset, *shape, *strides)) < 0 or math.prod(shape) > count:
        raise ValueError("a tensor larger than its storage")
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    if math.prod(shape) and last >= count:
        raise ValueError("a tensor beyond its storage")
