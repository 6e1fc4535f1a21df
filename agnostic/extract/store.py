"""Writing stores: created, continued after a stop, refused where they belong to something else.

The samples are written in parts. A part is a shard of every array with a row for each sample, and then the checkpoint:
one key that says how many parts are there, with what is merged over their samples. What a run that was stopped wrote
after its last checkpoint is written again, with the same bytes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from agnostic.errors import InvalidInput
from agnostic.extract.parts import ComputedPart, arrays_of, merged, start_states
from agnostic.taps.reductions import edges, of_data_set
from agnostic.taps.stores import (
    CHECKPOINT,
    Checkpoint,
    StoredTap,
    StoreHeader,
    header_of,
    inside,
    is_local,
    layer_path,
    opened_array,
    opened_group,
    packed,
    read_header,
    stored_bytes,
    unpacked,
    zarr_package,
)

_PARTIAL = "*.partial"
"""Names of files that zarr writes before it renames them: what a process that was killed left."""
_CHUNK_BYTES = 1 << 20
_EVERY_CHUNK = {"write_empty_chunks": True}
"""Else a shard that is not there might be lost, or hold nothing but the fill value."""
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_DIMENSIONS = {"C": "channel", "H": "height", "W": "width", "D": "depth", "L": "position"}


# Opening -------------------------------------------------------------------------------------------------------------
@contextmanager
def only_writer(where: str) -> Iterator[None]:
    """Inside, no other process of this machine writes into the store, whose folder is made if it is missing.

    The lock is on the folder itself, and the system gives it back when the process ends, however it ends.

    Raises:
        InvalidInput: another process writes into it, or the folder cannot be made.
    """
    if not is_local(where):
        yield
        return
    folder = Path(where)
    try:
        made = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise InvalidInput(f"cannot write {where!r}: {(error.strerror or str(error)).lower()}") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InvalidInput(
                f"another process writes into the store {where!r}: wait until it has ended, or choose another store"
            ) from None
        yield
    finally:
        if made:
            with contextlib.suppress(OSError):
                folder.rmdir()  # where nothing was written
        os.close(descriptor)


def existing(where: str) -> StoreHeader | None:
    """The header of the store that is there; None where a new one may be made.

    Raises:
        InvalidInput: something else is there.
    """
    zarr_package()
    if is_local(where):
        content = [x for x in os.listdir(where) if not x.endswith(".partial")]
        if not content:
            return None
        if "zarr.json" not in content:
            raise InvalidInput(f"the folder {where!r} is no store of activations, and not empty: choose another name")
        return read_header(where)[1]
    try:
        group = opened_group(where, "r")
    except FileNotFoundError:
        return None
    return header_of(group, where)


_WHAT = {
    "model": "another model, or other weights",
    "preprocessing": "another preprocessing",
    "dataset": "another data set",
    "layers": "other layers",
    "versions": "other versions of its libraries",
}


def check_same(where: str, found: StoreHeader, wanted: Mapping[str, str], settings: Mapping[str, Any]) -> None:
    """Raise unless a store was begun with the same model, preprocessing, data set and settings.

    Args:
        where: the store.
        found: its header.
        wanted: the fingerprints of this run.
        settings: of this run: entries of the header that the user chose.

    Raises:
        InvalidInput: names what differs.
    """
    for name, digest in wanted.items():
        if found.fingerprint.get(name) != digest:
            raise InvalidInput(
                f"the store {where!r} holds activations of {_WHAT[name]}: choose another name for this run"
            )
    for name, value in settings.items():
        if getattr(found, name) != value:
            raise InvalidInput(
                f"the store {where!r} was begun with {name}={_shown(getattr(found, name))}, not {_shown(value)}: "
                "give the same, or choose another name for this run"
            )


def _shown(value: Any) -> str:
    return repr(list(value)) if isinstance(value, tuple) else repr(value)


# Writing -------------------------------------------------------------------------------------------------------------
class StoreWriter:
    """Writes parts in their order.

    Attributes:
        where: the path or URL of the store.
        header: of the store.
        checkpoint: how far it is.
    """

    def __init__(self, where: str, header: StoreHeader, group: Any, checkpoint: Checkpoint) -> None:
        self.header, self.checkpoint = header, checkpoint
        self.where, self._group, self._rows = where, group, RowWriter(group, where)

    @classmethod
    def created(cls, where: str, header: StoreHeader) -> StoreWriter:
        """A new store, with all its arrays and nothing in them."""
        zarr = zarr_package()
        with _room(where, 0, header.samples):
            if is_local(where):
                _emptied(Path(where))
            group = zarr.create_group(
                where, zarr_format=3, overwrite=not is_local(where), attributes=_attributes(header)
            )
            writer = cls(where, header, group, Checkpoint(0, 0, start_states(header)))
            _make_arrays(group, header)
            writer._save(writer.checkpoint)
        return writer

    @classmethod
    def continued(cls, where: str, header: StoreHeader) -> StoreWriter | None:
        """A store that was begun, as far as its checkpoint, or is complete; None where there is no checkpoint yet."""
        group = opened_group(where, "r+")
        if is_local(where):
            _remove_partial(Path(where))
        data = stored_bytes(group, CHECKPOINT)
        if header.complete:
            writer = cls(where, header, group, Checkpoint(0, header.samples or 0, {}))
            if data is not None:
                writer.tidy()
            return writer
        return None if data is None else cls(where, header, group, unpacked(data, where))

    def write(self, part: ComputedPart) -> None:
        """Write the rows of the next part, then commit it.

        Raises:
            InvalidInput: there is no room; what was written before stays.
        """
        with self._room():
            self.reserve(part.start + len(part.names))
            self._rows.put_part(part)
        self.commit(part)

    def commit(self, part: ComputedPart) -> None:
        """Let the next part, whose rows are written, belong to the store.

        Raises:
            InvalidInput: there is no room; what was written before stays.
        """
        done, start = self.checkpoint, part.start
        assert start == done.samples, "parts are committed in their order"
        text = np.dtypes.StringDType()
        with self._room():
            told = {"sample": np.array(part.names, text), "problem": np.array(part.problems, text)}
            if self.header.labels:
                told["label"] = np.array(part.labels, np.int64)
            self._rows.put(start, told)
            self._save(Checkpoint(done.parts + 1, start + len(part.names), merged(done.states, part.states)))

    def reserve(self, count: int) -> None:
        """Let the arrays have so many rows at least, where the number of samples is not known."""
        if self.header.samples is None:
            self._resize(count, lambda length: length < count)

    def _resize(self, count: int, when: Callable[[int], bool]) -> None:
        for path in _paths_of_rows(self.header):
            array = opened_array(self._group, self.where, path)
            if when(array.shape[0]):
                array.resize((count, *array.shape[1:]))

    def _room(self) -> AbstractContextManager[None]:
        return _room(self.where, self.checkpoint.samples, self.header.samples)

    def finish(self) -> None:
        """Write what is merged over the samples, and that the store is complete."""
        count = self.checkpoint.samples
        with self._room():
            self._resize(count, lambda length: length != count)
            for key, tap in self.header.layers.items():
                for name, x in of_data_set(key, self.checkpoint.states).items():
                    _make_whole(self._group[layer_path(key)], name, x, tap)
            self.header = dataclasses.replace(self.header, complete=True, samples=count)
            self._group.attrs.put(_attributes(self.header))
        self.tidy()

    def tidy(self) -> None:
        """Remove what only a run that goes on needs."""
        from zarr.core.sync import sync

        sync(self._group.store.delete(inside(self._group, CHECKPOINT)))

    def _save(self, checkpoint: Checkpoint) -> None:
        from zarr.core.buffer import default_buffer_prototype
        from zarr.core.sync import sync

        content = default_buffer_prototype().buffer.from_bytes(packed(checkpoint))
        sync(self._group.store.set(inside(self._group, CHECKPOINT), content))
        self.checkpoint = checkpoint


class RowWriter:
    """Writes rows of arrays, which it opens once.

    Attributes:
        group: of the store, open for writing.
        where: its path or URL.
    """

    def __init__(self, group: Any, where: str) -> None:
        self.group, self.where = group, where
        self._arrays: dict[str, Any] = {}

    def put_part(self, part: ComputedPart) -> None:
        """Write the rows of a part, which belong to the store once the part is committed."""
        self.put(part.start, {f"{layer_path(key)}/{name}": x for (key, name), x in part.rows.items()})

    def put(self, start: int, arrays: Mapping[str, Any]) -> None:
        """Write rows of arrays by path; local ones are on the disk afterwards."""
        written = []
        for path, rows in arrays.items():
            array = self._array(path, start + len(rows))
            array[start : start + len(rows)] = rows
            shard = (start // array.shards[0],) + (0,) * (array.ndim - 1)
            written.append(Path(self.where, path, str(array.metadata.encode_chunk_key(shard))))
        if is_local(self.where):
            _flush(written)

    def _array(self, path: str, count: int) -> Any:
        found = self._arrays.get(path)
        # Where the number of samples is not known, arrays grow.
        if found is None or found.shape[0] < count:
            found = opened_array(self.group, self.where, path).with_config(_EVERY_CHUNK)
            self._arrays[path] = found
        return found


def _attributes(header: StoreHeader) -> dict[str, Any]:
    import json

    import msgspec

    return {"agnostic": json.loads(msgspec.json.encode(header))}


@contextmanager
def _room(where: str, done: int, count: int | None) -> Iterator[None]:
    """Inside, a full disk is a sentence."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        of = "" if count is None else f" of {count}"
        raise InvalidInput(
            f"cannot write {where!r}: {os.strerror(error.errno).lower()}; the first {done}{of} samples are kept: make "
            "room, and run the same again to go on"
        ) from None


def _emptied(folder: Path) -> None:
    """Remove what a run that was stopped before its first checkpoint left."""
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        else:
            os.unlink(entry.path)


def _remove_partial(folder: Path) -> None:
    for path in folder.rglob(_PARTIAL):
        path.unlink(missing_ok=True)


def _flush(paths: list[Path]) -> None:
    """Wait until files are on the disk: the checkpoint that follows must not outlive them when the power fails."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


# Arrays --------------------------------------------------------------------------------------------------------------
def _paths_of_rows(header: StoreHeader) -> list[str]:
    own = ["sample", "problem", *(["label"] if header.labels else [])]
    return own + [f"{layer_path(key)}/{name}" for key, tap in header.layers.items() for name in arrays_of(header, tap)]


def _make_arrays(group: Any, header: StoreHeader) -> None:
    count, shard = header.samples or 0, header.shard
    for name, about in (
        ("sample", "name of the sample"),
        ("problem", "why it could not be read; empty where it could"),
    ):
        _make(group, name, (count,), "string", ["sample"], {"description": about}, shard)
    if header.labels:
        _make(group, "label", (count,), "int64", ["sample"], {"description": "label; -1 for none"}, shard)
    for key, tap in header.layers.items():
        said = {"name": tap.name, "call": tap.call, "kind": tap.kind, "axes": tap.axes, "shape": list(tap.shape)}
        own = group.create_group(layer_path(key), attributes={"agnostic": said})
        for name in arrays_of(header, tap):
            shape, dtype, dimensions = _form(name, tap, header.dtype)
            attributes = {"units": "1", "description": _ABOUT[name].format(layer=tap.name)}
            _make(own, name, (count, *shape), dtype, ["sample", *dimensions], attributes, shard)


_ABOUT = {
    "values": "output of {layer}",
    "mean": "mean of the output of {layer} over positions",
    "max": "maximum of the output of {layer} over positions",
    "max_place": "indices of the position of the maximum",
    "top_value": "highest maxima of each channel over all samples, in descending order",
    "top_sample": "the positions of their samples; -1 for none",
    "top_place": "indices of their positions in the output",
    "histogram": "number of values of each channel in each bin, over samples and positions",
    "covariance": "covariance of channels, over samples and positions",
    "covariance_mean": "mean of each channel, over samples and positions",
}


def _form(name: str, tap: StoredTap, dtype: str) -> tuple[tuple[int, ...], str, list[str]]:
    """The shape for a sample, the type and the names of the dimensions of an array with a row for each."""
    if name == "values":
        floating = tap.dtype.startswith(("float", "bfloat"))
        own = {"bfloat16": "float32"}.get(dtype, dtype) if floating else tap.dtype
        unnamed = [f"axis{i}" for i in range(1, len(tap.shape) + 1)]
        return tap.shape, own, unnamed if tap.axes is None else [_DIMENSIONS[x] for x in tap.sample_axes]
    assert tap.channels is not None
    if name == "max_place":
        return (tap.channels, len(tap.positions)), "int32", ["channel", "axis"]
    return (tap.channels,), {"bfloat16": "float32"}.get(dtype, dtype), ["channel"]


def _make(
    group: Any,
    name: str,
    shape: tuple[int, ...],
    dtype: str,
    dimensions: list[str],
    attributes: dict[str, Any],
    shard: int,
) -> None:
    text = dtype == "string"
    row = 8 if text else int(np.prod(shape[1:], dtype=np.int64)) * np.dtype(dtype).itemsize
    group.create_array(
        name,
        shape=shape,
        dtype=dtype,
        chunks=(_divisor(shard, _CHUNK_BYTES // max(row, 1)), *(max(n, 1) for n in shape[1:])),
        shards=(shard, *(max(n, 1) for n in shape[1:])),
        compressors=None if text else _compressors(dtype),
        fill_value="" if text else np.nan if dtype.startswith("float") else 0,
        dimension_names=dimensions,
        attributes=attributes,
    )


def _compressors(dtype: str) -> list[Any]:
    """Bytes of equal weight side by side, then zstd, as docs/scale.md measures; and a checksum of each chunk."""
    from zarr.codecs import BloscCodec, Crc32cCodec

    return [BloscCodec(cname="zstd", clevel=1, shuffle="shuffle", typesize=np.dtype(dtype).itemsize), Crc32cCodec()]


def _divisor(n: int, most: int) -> int:
    """The greatest divisor of n that is at most that, and at least 1."""
    return next(d for d in range(min(n, max(most, 1)), 0, -1) if n % d == 0)


def _make_whole(group: Any, name: str, x: Any, tap: StoredTap) -> None:
    """An array of the whole data set."""
    dimensions = {
        "top_value": ["rank", "channel"],
        "top_sample": ["rank", "channel"],
        "top_place": ["rank", "channel", "axis"],
        "histogram": ["channel", "bin"],
        "covariance": ["channel", "other_channel"],
        "covariance_mean": ["channel"],
    }[name]
    attributes: dict[str, Any] = {"units": "1", "description": _ABOUT[name].format(layer=tap.name)}
    if name == "histogram":
        attributes["borders"] = [float(x) for x in edges()[1:-1]]
    array = group.create_array(
        name,
        shape=x.shape,
        dtype=x.dtype,
        chunks=tuple(max(n, 1) for n in x.shape),
        compressors=_compressors(x.dtype.name),
        dimension_names=dimensions,
        attributes=attributes,
        overwrite=True,
        config=_EVERY_CHUNK,
    )
    array[...] = x
