"""Stores of activations: what a zarr store of :func:`agnostic.extract` holds, and how it is read.

A store is a plain zarr v3 hierarchy; docs/scale.md describes it. Reading needs the package zarr and no framework.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from agnostic import display
from agnostic.errors import InvalidInput, MissingDependency, UnknownName, nearest
from agnostic.taps.reductions import State, of_data_set
from agnostic.text import counted

Array = npt.NDArray[Any]
States = dict[tuple[str, str], State]
"""What is merged over the data set, by layer and reduction: arrays by name."""

FORMAT, VERSION = "agnostic-activations", 1
_LARGEST = 1 << 16
"""Pixels on a side, which no photo that a model sees has."""
CHECKPOINT = "checkpoint"
"""The key of what a run needs to go on; it is gone when the store is complete."""
OF_SAMPLES = ("values", "mean", "max", "max_place")
"""The arrays of a layer with a row for each sample."""


@dataclass(frozen=True)
class StoredTap:
    """One call of one layer.

    Attributes:
        name: of the layer.
        kind: the framework's class name.
        axes: a letter for each dimension of ``shape``, N first; None if they are not known.
        shape: of the output for one sample.
        dtype: of the output in the model.
        call: which call of the layer, from 0.
    """

    name: str
    call: int
    kind: str
    axes: str | None
    shape: tuple[int, ...]
    dtype: str

    @property
    def sample_axes(self) -> str:
        """A letter for each dimension of ``shape``; empty where they are not known."""
        return (self.axes or "").replace("N", "")

    @property
    def channels(self) -> int | None:
        """The number of channels; None where there are none, or it is not known which axis they are."""
        return self.shape[self.sample_axes.index("C")] if "C" in self.sample_axes else None

    @property
    def positions(self) -> tuple[int, ...]:
        """The lengths of the axes that are not the channels; none where the axes are not known."""
        return tuple(n for letter, n in zip(self.sample_axes, self.shape, strict=False) if letter != "C")


@dataclass(frozen=True)
class StoreHeader:
    """The attribute ``agnostic`` of a store; docs/scale.md explains each entry."""

    format: str
    version: int
    complete: bool
    samples: int | None
    labels: bool
    shard: int
    batch: int
    reduce: tuple[str, ...]
    top: int
    dtype: str
    layers: dict[str, StoredTap]
    left_out: dict[str, str]
    fingerprint: dict[str, str]
    model: dict[str, Any]
    preprocessing: dict[str, Any]
    dataset: dict[str, Any]
    versions: dict[str, str]
    seed: int | None
    compute: str | None = None


def zarr_package() -> Any:
    """The package zarr, imported at its first use.

    Raises:
        MissingDependency: it is not installed, or older than version 3.
    """
    try:
        import zarr
    except ModuleNotFoundError as error:
        if error.name != "zarr":
            raise
        raise MissingDependency(
            "stores of activations need the package zarr: pip install 'agnostic-ml[scale]'"
        ) from None
    if int(zarr.__version__.partition(".")[0]) < 3:
        raise MissingDependency(f"stores need zarr 3, not {zarr.__version__}: pip install 'agnostic-ml[scale]'")
    return zarr


def layer_path(key: str) -> str:
    """The path of a layer's group in the store, where no name has a slash, or begins with two underscores."""
    own = quote(key, safe=" ()[],:;=+@#&!$'~")
    if not own.strip(".") or own.startswith("__"):
        own = f"%{ord(own[0]):02X}{own[1:]}" if own else "%00"
    return f"layers/{own}"


def location(path: Any) -> str:
    """A store's address as zarr takes it: a path, or a URL such as ``s3://bucket/acts.zarr``.

    Raises:
        InvalidInput: it is neither.
    """
    from agnostic.files import as_path

    if isinstance(path, str) and "://" in path:
        return path
    return str(as_path(path))


def is_local(where: str) -> bool:
    """Whether a store is a folder of this machine."""
    return "://" not in where


def opened_group(where: str, mode: str) -> Any:
    """The group at a path or URL.

    Raises:
        FileNotFoundError: there is none.
        InvalidInput: the URL cannot be reached.
        MissingDependency: its protocol needs a package.
    """
    zarr = zarr_package()
    try:
        return zarr.open_group(where, mode=mode, zarr_format=3)
    except FileNotFoundError:
        raise
    except ImportError as error:
        raise MissingDependency(f"{where!r} cannot be opened: {_first_line(error)}") from None
    except Exception as error:  # what a driver of fsspec raises is its own library's
        if is_local(where):
            raise
        raise InvalidInput(f"{where!r} cannot be opened: {_first_line(error)}") from None


def read_header(where: str) -> tuple[Any, StoreHeader]:
    """The group of a store, opened for reading, and its header.

    Raises:
        InvalidInput: there is no store, it is another kind of store, or its header is damaged.
    """
    zarr_package()
    if is_local(where) and not Path(where).is_dir():
        what = "is a file" if Path(where).exists() else f"does not exist{_near(Path(where))}"
        raise InvalidInput(f"the store {where!r} {what}: give a folder that agnostic.extract wrote")
    try:
        group = opened_group(where, "r")
    except InvalidInput:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidInput(f"{where!r} is no store of activations ({_first_line(error)})") from None
    return group, header_of(group, where)


def header_of(group: Any, where: str) -> StoreHeader:
    """The header of the store that is a group.

    Raises:
        InvalidInput: it is another kind of group, or its header is damaged.
    """
    import msgspec

    try:
        found = group.attrs.asdict()["agnostic"]
    except KeyError as error:
        raise InvalidInput(f"{where!r} is no store of activations ({_first_line(error)})") from None
    try:
        header = msgspec.convert(found, StoreHeader)
    except (msgspec.ValidationError, RecursionError) as error:
        raise InvalidInput(f"the store {where!r} is damaged, or no store of activations: {error}") from None
    if (header.format, header.version) != (FORMAT, VERSION):
        raise InvalidInput(
            f"the store {where!r} is a {header.format!r} of version {header.version}, not {FORMAT!r} of {VERSION}"
        )
    _check_consistent(where, group, header)
    return header


def _check_consistent(where: str, group: Any, header: StoreHeader) -> None:
    """Raise InvalidInput for numbers that no run writes."""
    count = header.samples
    wrong = header.shard < 1 or header.batch < 1 or header.top < 0 or (count is not None and count < 0)
    wrong = wrong or not all(map(_possible, header.layers.values())) or not _readable_again(header)
    if header.complete and not wrong:
        own = opened_array(group, where, "sample").shape
        wrong = count is None or own != (count,)
    if wrong:
        raise InvalidInput(f"the store {where!r} is damaged: its header does not fit what it holds")


def _possible(tap: StoredTap) -> bool:
    """Whether a layer may have these axes and lengths."""
    if not all(n >= 1 for n in tap.shape) or tap.call < 0:
        return False
    if tap.axes is None:
        return True
    letters = set(tap.axes)
    return letters <= set("NCHWDL") and "N" in letters and len(letters) == len(tap.axes) == len(tap.shape) + 1


def _readable_again(header: StoreHeader) -> bool:
    """Whether the data set and the size of its photos are told as a run tells them."""
    size, path, paths = header.preprocessing.get("size"), header.dataset.get("path"), header.dataset.get("paths")
    sized = size is None or (isinstance(size, list) and all(isinstance(n, int) and 0 < n < _LARGEST for n in size))
    several = paths is None or (isinstance(paths, list) and all(isinstance(x, str) for x in paths))
    return sized and several and (path is None or isinstance(path, str))


def _fits(name: str, shape: tuple[int, ...], tap: StoredTap) -> bool:
    """Whether an array of a layer may have this shape."""
    if name == "values":
        return shape[1:] == tap.shape
    channel = 0 if name in ("histogram", "covariance", "covariance_mean") else 1
    return len(shape) > channel and shape[channel] == tap.channels


def opened_array(group: Any, where: str, path: str) -> Any:
    """What is at a path of a store.

    Raises:
        InvalidInput: it is not there, or damaged.
    """
    try:
        return group[path]
    except (KeyError, OSError, ValueError, TypeError) as error:
        raise InvalidInput(f"the store {where!r} is damaged: {path!r} cannot be read ({_first_line(error)})") from None


def check_chunk(array: Any, where: str, place: tuple[int, ...]) -> None:
    """Raise InvalidInput if a chunk or shard of an array, all of which a run writes, is gone."""
    from zarr.core.sync import sync

    key = array.metadata.encode_chunk_key(place)
    there = Path(where, array.path, key).exists() if is_local(where) else sync((array.store_path / key).exists())
    if not there:
        raise InvalidInput(
            f"the store {where!r} is damaged: the file {key!r} of {array.path!r} is missing; copy the store again, or "
            "extract into another one"
        )


def whole_array(array: Any, where: str) -> Array:
    """An array of one chunk.

    Raises:
        InvalidInput: it is gone or damaged.
    """
    check_chunk(array, where, (0,) * array.ndim)
    try:
        return np.asarray(array[...])
    except (ValueError, RuntimeError, OSError) as error:
        raise InvalidInput(
            f"the store {where!r} is damaged: {array.path!r} cannot be read ({_first_line(error)})"
        ) from None


def _near(path: Path) -> str:
    try:
        return nearest(path.name, os.listdir(path.parent))
    except OSError:
        return ""


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


# The checkpoint ------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Checkpoint:
    """How far a run has come: parts that are written, samples in them, and what is merged over them."""

    parts: int
    samples: int
    states: States


def packed(checkpoint: Checkpoint) -> bytes:
    """A checkpoint as bytes, with a checksum."""
    from safetensors.numpy import save

    arrays = {
        "\n".join((*key, name)): np.ascontiguousarray(x)
        for key, state in checkpoint.states.items()
        for name, x in state.items()
    }
    content = save({**arrays, "": np.array([checkpoint.parts, checkpoint.samples], np.int64)})
    return zlib.crc32(content).to_bytes(4, "little") + content


def unpacked(data: bytes, where: str) -> Checkpoint:
    """The inverse of :func:`packed`.

    Raises:
        InvalidInput: it is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    damaged = InvalidInput(f"the store {where!r} is damaged: its checkpoint cannot be read; begin another store")
    if len(data) < 4 or zlib.crc32(data[4:]) != int.from_bytes(data[:4], "little"):
        raise damaged
    try:
        arrays = load(data[4:])
        parts, samples = arrays.pop("").tolist()
        states: States = {}
        for key, x in arrays.items():
            layer, reduction, name = key.rsplit("\n", 2)  # a layer's name may have any letter
            states.setdefault((layer, reduction), {})[name] = x
    except (SafetensorError, KeyError, ValueError):
        raise damaged from None
    return Checkpoint(parts, samples, states)


def stored_bytes(group: Any, key: str) -> bytes | None:
    """The content of a key of a store that belongs to no array; None where there is none."""
    from zarr.core.buffer import default_buffer_prototype
    from zarr.core.sync import sync

    found = sync(group.store.get(inside(group, key), default_buffer_prototype()))
    return None if found is None else bytes(found.to_bytes())


def inside(group: Any, key: str) -> str:
    """A key of a group's store."""
    return f"{group.path}/{key}" if group.path else key


# Reading -------------------------------------------------------------------------------------------------------------
class StoredRows:
    """An array of a store whose rows are samples; slices of it are read when they are asked for.

    Attributes:
        shape: of the rows that are written.
        dtype: NumPy's type.

    Example:
        >>> store = ag.extract(model, images, "conv", "rows.zarr", reduce="mean")
        >>> rows = store["conv"]["mean"]
        >>> rows.shape, rows[:1].shape, np.asarray(rows).dtype
        ((2, 8), (1, 8), dtype('float32'))
    """

    def __init__(self, array: Any, count: int, where: str) -> None:
        self._array, self._where = array, where
        self.shape: tuple[int, ...] = (count, *array.shape[1:])
        self.dtype = np.dtype(array.dtype)
        self._there: set[int] = set()

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> Any:
        first, *others = index if isinstance(index, tuple) else (index,)
        # Rows beyond those that are written are none.
        if isinstance(first, slice):
            first = slice(*first.indices(len(self)))
        elif isinstance(first, int | np.integer):
            first = range(len(self))[int(first)]
        elif first is not ...:
            first = np.arange(len(self))[first]
        else:
            return self._read((slice(0, len(self)),))[index]
        return self._read((first, *others))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        found: Array = self._read((slice(0, len(self)),))
        return found if dtype is None else found.astype(dtype, copy=False)

    def _read(self, selection: tuple[Any, ...]) -> Any:
        self._check_there(np.arange(len(self))[selection[0]])
        try:
            if any(isinstance(x, np.ndarray) for x in selection):
                return self._array.oindex[selection]
            return self._array[selection]
        except (ValueError, RuntimeError, OSError) as error:
            raise InvalidInput(
                f"the store {self._where!r} is damaged: rows of {self._array.path!r} cannot be read "
                f"({_first_line(error)})"
            ) from None

    def _check_there(self, rows: Any) -> None:
        """Raise for rows whose shard is gone, which zarr would read as rows that nobody wrote."""
        shards = {int(x) for x in np.unique(rows // (self._array.shards or self._array.chunks)[0])} - self._there
        for shard in sorted(shards):
            check_chunk(self._array, self._where, (shard,) + (0,) * (len(self.shape) - 1))
        self._there |= shards

    def __repr__(self) -> str:
        return f"<StoredRows of {self._array.path}: {self.shape}, {self.dtype}>"


class StoredLayer(Mapping[str, Any]):
    """What a store holds of one layer: arrays by name.

    ``"values"``, ``"mean"``, ``"max"`` and ``"max_place"`` have a row for each sample (:class:`StoredRows`).
    ``"top_value"``, ``"top_sample"``, ``"top_place"``, ``"histogram"``, ``"covariance"`` and ``"covariance_mean"`` are
    of the whole data set (NumPy arrays).

    Attributes:
        tap: the layer's name, kind, axes, shape and type.

    Example:
        >>> store = ag.extract(model, images, "conv", "layer.zarr", reduce=["mean", "max"], top=2)
        >>> sorted(store["conv"])
        ['max', 'max_place', 'mean', 'top_place', 'top_sample', 'top_value']
        >>> store["conv"].tap.axes
        'NCHW'
    """

    def __init__(self, tap: StoredTap, rows: Mapping[str, Any], whole: Mapping[str, Any]) -> None:
        self.tap, self._rows, self._whole = tap, dict(rows), dict(whole)

    def __getitem__(self, name: str) -> Any:
        if name in self._rows:
            return self._rows[name]
        if name in self._whole:
            return self._whole[name]()
        raise UnknownName(f"layer {self.tap.name!r} has no {name!r} in this store ({', '.join(self)})")

    def __contains__(self, name: object) -> bool:
        return name in self._rows or name in self._whole

    def __iter__(self) -> Iterator[str]:
        yield from self._rows
        yield from self._whole

    def __len__(self) -> int:
        return len(self._rows) + len(self._whole)

    @property
    def features(self) -> Any:
        """A vector for each sample: the means over positions if they are stored, else the maxima, else the values.

        Raises:
            InvalidInput: no array has a row for each sample.
        """
        for name in ("mean", "max", "values"):
            if name in self._rows:
                return self._rows[name]
        raise InvalidInput(
            f"layer {self.tap.name!r} has no row for each sample in this store: extract it with reduce='mean'"
        )

    def __repr__(self) -> str:
        return f"<StoredLayer {self.tap.name!r} ({self.tap.kind}): {', '.join(self)}>"


class ActivationStore(Mapping[str, StoredLayer]):
    """A store of activations: layers by name.

    Attributes:
        path: of the store, or its URL.
        header: all that the store says of itself; docs/scale.md explains each entry.
        done: number of samples that are written.

    Example:
        >>> store = ag.extract(model, images, ["conv", "relu"], "acts.zarr", reduce="mean")
        >>> list(store), store.complete, store.samples.tolist()
        (['conv', 'relu'], True, ['0', '1'])
    """

    def __init__(self, path: str, group: Any, header: StoreHeader, checkpoint: Checkpoint | None) -> None:
        self.path, self.header, self._group, self._checkpoint = path, header, group, checkpoint
        self.done = header.samples or 0 if header.complete else 0 if checkpoint is None else checkpoint.samples

    @property
    def complete(self) -> bool:
        """Whether the whole data set is in the store; if not, the same call of :func:`agnostic.extract` goes on."""
        return self.header.complete

    @property
    def samples(self) -> Array:
        """(n,) the name of each sample: the path of a photo below its folder, the position of a row."""
        return np.asarray(self._rows("sample"))

    @property
    def labels(self) -> npt.NDArray[np.int64] | None:
        """(n,) the label of each sample, -1 where it has none; None if the data set has none."""
        return np.asarray(self._rows("label")) if self.header.labels else None

    @property
    def unreadable(self) -> dict[str, str]:
        """Why samples could not be read, by their names; their rows are NaN."""
        problems = np.asarray(self._rows("problem"))
        return dict(zip(self.samples[problems != ""].tolist(), problems[problems != ""].tolist(), strict=True))

    @property
    def readable(self) -> npt.NDArray[np.bool_]:
        """(n,) whether a sample could be read."""
        found: npt.NDArray[np.bool_] = np.asarray(self._rows("problem")) == ""
        return found

    def __getitem__(self, name: str) -> StoredLayer:
        if name not in self.header.layers:
            known = list(self.header.layers)
            listed = f" ({', '.join(known)})" if len(known) < 9 else f" ({counted(len(known), 'layer')} are)"
            raise UnknownName(f"layer {name!r} is not in the store {self.path!r}{listed}{nearest(name, known)}")
        base = layer_path(name)
        try:
            arrays = dict(self._array_of(base).arrays())
        except (KeyError, OSError, ValueError, TypeError, AttributeError) as error:
            raise InvalidInput(
                f"the store {self.path!r} is damaged: {base!r} cannot be read ({_first_line(error)})"
            ) from None
        names, tap = list(arrays), self.header.layers[name]
        for key, array in arrays.items():
            if not _fits(key, tuple(array.shape), tap):
                raise InvalidInput(
                    f"the store {self.path!r} is damaged: {array.path!r} has the shape {array.shape}, which does not "
                    f"fit the layer's, {tap.shape}"
                )
        rows = {x: self._rows(f"{base}/{x}") for x in OF_SAMPLES if x in names}
        if self._checkpoint is None:
            others = sorted(set(names) - set(rows))
            whole: dict[str, Any] = {
                x: lambda x=x: whole_array(self._array_of(f"{base}/{x}"), self.path) for x in others
            }
        else:
            found = of_data_set(name, self._checkpoint.states)
            whole = {x: lambda x=x: found[x] for x in found}
        return StoredLayer(tap, rows, whole)

    def __contains__(self, name: object) -> bool:
        return name in self.header.layers

    def __iter__(self) -> Iterator[str]:
        return iter(self.header.layers)

    def __len__(self) -> int:
        return len(self.header.layers)

    def _array_of(self, path: str) -> Any:
        return opened_array(self._group, self.path, path)

    def _rows(self, path: str) -> StoredRows:
        return StoredRows(self._array_of(path), self.done, self.path)

    def __repr__(self) -> str:
        state = "" if self.complete else f" so far, of {self.header.samples or 'an unknown number'}"
        return (
            f"<ActivationStore {display.shortened(self.path, 80)}: {counted(self.done, 'sample')}{state}, "
            f"{counted(len(self), 'layer')} ({display.listed(self, 120)})>"
        )


def open_store(path: Any) -> ActivationStore:
    """Open a store of activations for reading; see :func:`agnostic.taps.open`."""
    where = location(path)
    group, header = read_header(where)
    checkpoint = None
    if not header.complete:
        data = stored_bytes(group, CHECKPOINT)
        checkpoint = Checkpoint(0, 0, {}) if data is None else unpacked(data, where)
    return ActivationStore(where, group, header, checkpoint)
