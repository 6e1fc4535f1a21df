"""Data sets of any kind as samples: read by position, or one after the other from the beginning."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agnostic.arrays import describe
from agnostic.contracts.ops import OPS
from agnostic.errors import InvalidInput
from agnostic.extract.tars import TarImages
from agnostic.files import as_path, photos_below, read_image
from agnostic.registry import array_owner, get_backend
from agnostic.text import counted

_LOOKED_AT = 8
"""Samples of a data set without names or sizes whose content is part of its fingerprint, evenly spaced."""
_NO_LABEL = -1


@dataclass(frozen=True)
class Sample:
    """One sample.

    Attributes:
        name: by which it is known in the store.
        value: an image or another input of the model, as a NumPy array.
        label: an integer, or None.
        native: whether the data set gave the value as an array of a framework.
    """

    name: str
    value: np.ndarray[Any, Any]
    label: int | None = None
    native: bool = False


@dataclass(frozen=True)
class SampleSource:
    """A data set.

    Attributes:
        kind: what it is, for the store.
        about: how it can be read again, for the store.
        digest: of what is in it: a store is continued with the same only.
        count: number of samples; None where only the end will tell.
        labels: whether they have integer labels.
        read: the sample at a position; None where samples are read one after the other only. Raises InvalidInput for
            one that cannot be read.
        rows: the values from one position to another as one array, and their labels, where that is cheaper than one by
            one.
        iterate: all samples from the beginning, where ``read`` is None.
        first: the first sample, where ``read`` is None.
        name: of the sample at a position, also where it cannot be read.
    """

    kind: str
    about: Mapping[str, Any]
    digest: str
    count: int | None
    labels: bool = False
    read: Callable[[int], Sample] | None = None
    rows: Callable[[int, int], tuple[np.ndarray[Any, Any], list[int]]] | None = None
    iterate: Callable[[], Iterator[Sample]] | None = None
    first: Sample | None = None
    name: Callable[[int], str] = str


def samples_of(given: Any, field: str | None = None) -> SampleSource:
    """A data set of any kind as samples.

    Args:
        given: see :func:`agnostic.extract`.
        field: of samples that are dicts, the entry that is the image.

    Raises:
        InvalidInput: it is none of these, it is empty, or its order changes from run to run.
    """
    found = _recognized(given, field)
    if found.count == 0:
        raise InvalidInput(f"the data set is empty: {describe(given)} has no sample")
    return found


def _recognized(given: Any, field: str | None) -> SampleSource:
    if isinstance(given, SampleSource):
        return given
    if isinstance(given, str | os.PathLike):
        return _at_path(as_path(given))
    if _is_array(given):
        return _array(given, None)
    if isinstance(given, tuple) and len(given) == 2 and _is_array(given[0]):
        return _array(*given)
    if isinstance(given, list | tuple) and given and all(isinstance(x, str | os.PathLike) for x in given):
        paths = [as_path(x) for x in given]
        return (
            _tars(paths) if all(x.suffix == ".tar" for x in paths) else _files(None, list(map(os.fspath, paths)), None)
        )
    if isinstance(given, Mapping):
        raise InvalidInput(
            f"a dict of {', '.join(map(str, given))} is no data set: give one of them, or (images, labels)"
        )
    if hasattr(given, "sample_into") and hasattr(given, "files"):  # agnostic.data.ImageFolder
        return _image_folder(given)
    if hasattr(given, "iter_rows") and hasattr(given, "iter_batches"):
        return _ray_data(given, field)
    if hasattr(given, "as_numpy_iterator"):
        return _numpy_stream(given, field)
    if hasattr(given, "dataset") and hasattr(given, "collate_fn"):
        return _loader(given, field)
    if hasattr(given, "on_epoch_end") and hasattr(given, "__getitem__"):
        return _sequence_of_batches(given, field)
    if hasattr(given, "__getitem__") and (hasattr(given, "__len__") or getattr(given, "shape", None)):
        return _sequence(given, field)
    if isinstance(given, Iterator):
        raise InvalidInput(
            f"{describe(given)} can be read once only, and a run that was stopped reads it again: give an object with "
            "__iter__, such as a list or a data set"
        )
    if isinstance(given, Iterable):
        return _stream("iterable", given, lambda: _named(iter(given), field))
    raise InvalidInput(
        f"{describe(given)} is no data set: give a folder or .tar files of photos, arrays of images (N, H, W, C), or "
        "an object with __len__ and __getitem__, or with __iter__"
    )


def _is_array(given: Any) -> bool:
    return isinstance(given, np.ndarray) or array_owner(given) is not None


# Files ---------------------------------------------------------------------------------------------------------------
def _at_path(path: Path) -> SampleSource:
    if path.is_dir():
        return _files(path, photos_below(path), None)
    if path.suffix == ".tar" or any(letter in path.name for letter in "*{["):
        return _tars(_expanded(path))
    if path.suffix == ".npy":
        return _array(_mapped(path), None, {"path": str(path.absolute())})
    return _files(path.parent, [path.name], None)


def _expanded(path: Path) -> list[Path]:
    """The files of a pattern: ``*``, ``[...]``, or numbers as in ``shard-{000..012}.tar``."""
    import re

    span = re.search(r"\{(\d+)\.\.(\d+)\}", path.name)
    if span is None:
        found = sorted(path.parent.glob(path.name)) if not path.exists() else [path]
    else:
        first, last = span.groups()
        numbers = (f"{n:0{len(first)}d}" for n in range(int(first), int(last) + 1))
        found = [path.parent / f"{path.name[: span.start()]}{n}{path.name[span.end() :]}" for n in numbers]
    if not found:
        raise InvalidInput(f"there is no file {str(path)!r}")
    return found


def _mapped(path: Path) -> np.ndarray[Any, Any]:
    from agnostic.files import open_regular

    open_regular(path).close()
    try:
        found: np.ndarray[Any, Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise InvalidInput(f"cannot read {str(path)!r}: it is no .npy file of numbers ({error})") from None
    return found


@dataclass(frozen=True)
class _ImageFiles:
    """Reads image files by position."""

    folder: Path | None
    names: Sequence[str]
    labels: Sequence[int] | None

    def __call__(self, index: int) -> Sample:
        name = self.names[index]
        path = Path(name) if self.folder is None else self.folder / name
        return Sample(name, read_image(path), None if self.labels is None else self.labels[index])

    def name(self, index: int) -> str:
        return self.names[index]

    def digest(self) -> str:
        """Of names and lengths: whether a file changed within its length, its content alone would tell."""
        digest = hashlib.blake2b(digest_size=16)
        for name in self.names:
            path = Path(name) if self.folder is None else self.folder / name
            try:
                size = path.stat().st_size
            except OSError:
                size = -1
            digest.update(f"{name}\0{size}\0".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()


def _files(folder: Path | None, names: Sequence[str], labels: Sequence[int] | None) -> SampleSource:
    own = _ImageFiles(folder, tuple(names), labels)
    about = {} if folder is None else {"path": str(folder.absolute())}
    return SampleSource("photos", about, own.digest(), len(names), labels is not None, own, name=own.name)


def _image_folder(given: Any) -> SampleSource:
    labels = None if given.class_mode is None else given.labels.tolist()
    return _files(Path(given.directory), given.files, labels)


def _tars(paths: Sequence[Path]) -> SampleSource:
    own = TarImages.opened(paths)
    about = {"paths": [str(x.absolute()) for x in paths]}

    return SampleSource("tars", about, own.digest(), len(own), own.labeled, _TarReader(own), name=own.name)


@dataclass(frozen=True)
class _TarReader:
    """Reads the photos in .tar files by position."""

    tars: TarImages

    def __call__(self, index: int) -> Sample:
        return Sample(self.tars.name(index), self.tars.image(index), self.tars.label(index))


# Rows and objects ----------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Rows:
    """Reads the rows of arrays."""

    array: Any
    labels: np.ndarray[Any, Any] | None
    native: bool

    def __call__(self, index: int) -> Sample:
        label = None if self.labels is None else int(self.labels[index])
        return Sample(str(index), np.asarray(self.array[index]), label, self.native)

    def several(self, start: int, stop: int) -> tuple[np.ndarray[Any, Any], list[int]]:
        rows = self.array[start:stop]
        labels = [_NO_LABEL] * (stop - start) if self.labels is None else self.labels[start:stop].tolist()
        # A memory map is read here.
        return np.array(rows) if isinstance(rows, np.memmap) else np.asarray(rows), labels


def _array(given: Any, labels: Any, about: Mapping[str, Any] | None = None) -> SampleSource:
    array, native = _as_numpy(given)
    known = None if labels is None else _as_numpy(labels)[0]
    if array.ndim < 2:
        raise InvalidInput(f"a data set as an array has a row for each sample, not {describe(given)}")
    if known is not None and (known.shape != array.shape[:1] or known.dtype.kind not in "ui"):
        raise InvalidInput(f"labels are {counted(len(array), 'integer')}, one for each sample, not {describe(labels)}")
    digest = hashlib.blake2b(f"{array.dtype}{array.shape}".encode(), digest_size=16)
    for index in _spread(len(array)):
        digest.update(np.ascontiguousarray(array[index]).tobytes())
    read = _Rows(array, known, native)
    return SampleSource("array", about or {}, digest.hexdigest(), len(array), known is not None, read, read.several)


@dataclass(frozen=True)
class _Items:
    """Reads the items of an object with ``__getitem__``."""

    items: Any
    field: str | None

    def __call__(self, index: int) -> Sample:
        return _sample(self.items[index], str(index), self.field)


def _sequence(given: Any, field: str | None) -> SampleSource:
    read = _Items(given, field)
    # Arrays on disk, such as zarr's, have a shape and no length.
    count = len(given) if hasattr(given, "__len__") else int(given.shape[0])
    digest, labels = _looked_at(read, count)
    return SampleSource("items", {"class": type(given).__name__}, digest, count, labels, read)


def _sequence_of_batches(given: Any, field: str | None) -> SampleSource:
    """A data set of Keras' kind: item i is a batch."""
    batches = len(given)
    if not batches:
        return SampleSource("batches", {}, "", 0)

    def iterate() -> Iterator[Sample]:
        return _unbatched((given[i] for i in range(batches)), field)

    return _stream("batches", given, iterate)


def _looked_at(read: Callable[[int], Sample], count: int) -> tuple[str, bool]:
    """A digest of some samples, and whether the first that can be read has a label."""
    digest, labels = hashlib.blake2b(str(count).encode(), digest_size=16), False
    for number, index in enumerate(_spread(count)):
        try:
            found = read(index)
        except InvalidInput as error:
            digest.update(str(error).encode())
            continue
        again = read(index) if number == 0 else found
        if not np.array_equal(again.value, found.value):
            raise InvalidInput(
                "the data set gives another sample each time it is asked for the same: a run that goes on after a stop "
                "needs the same ones, so leave out random changes"
            )
        labels = labels or found.label is not None
        _add(digest, found)
    return digest.hexdigest(), labels


def _spread(count: int) -> list[int]:
    return sorted(set(np.linspace(0, count - 1, min(count, _LOOKED_AT)).astype(int).tolist())) if count else []


# One after the other -------------------------------------------------------------------------------------------------
def _stream(kind: str, given: Any, iterate: Callable[[], Iterator[Sample]]) -> SampleSource:
    """A data set that is read from its beginning: its first samples are its fingerprint."""
    first = list(itertools.islice(iterate(), _LOOKED_AT))
    digest = hashlib.blake2b(digest_size=16)
    for found in first:
        _add(digest, found)
    labels = any(found.label is not None for found in first)
    count = len(first) if len(first) < _LOOKED_AT else None
    about = {"class": type(given).__name__}
    return SampleSource(
        kind, about, digest.hexdigest(), count, labels, iterate=iterate, first=first[0] if first else None
    )


def _add(digest: Any, sample: Sample) -> None:
    digest.update(f"{sample.value.dtype}{sample.value.shape}".encode())
    digest.update(np.ascontiguousarray(sample.value).tobytes())


def _numpy_stream(given: Any, field: str | None) -> SampleSource:
    """A data set with ``as_numpy_iterator``, as tf.data's: of samples, or of batches, as its specification says."""
    batched = any(len(x.shape) == 4 for x in _leaves(given.element_spec))

    def iterate() -> Iterator[Sample]:
        items = given.as_numpy_iterator()
        return _unbatched(items, field) if batched else _named(items, field)

    return _stream("stream", given, iterate)


def _ray_data(given: Any, field: str | None) -> SampleSource:
    """A data set of Ray, which streams its blocks from the processes of a cluster."""

    def iterate() -> Iterator[Sample]:
        options = given.context.execution_options
        before, options.preserve_order = options.preserve_order, True  # else blocks come as they are finished
        try:
            yield from _named(given.iter_rows(), field)
        finally:
            options.preserve_order = before

    return _stream("rows", given, iterate)


def _loader(given: Any, field: str | None) -> SampleSource:
    """A loader of PyTorch's kind, whose ``sampler`` gives the order."""
    if "Random" in type(getattr(given, "sampler", None)).__name__:
        raise InvalidInput(
            f"the {type(given).__name__} shuffles its samples, and rows of a store are in a fixed order: give one with "
            "shuffle=False, or its dataset"
        )
    batched = getattr(given, "batch_sampler", None) is not None or getattr(given, "batch_size", None) is not None

    def iterate() -> Iterator[Sample]:
        return _unbatched(iter(given), field) if batched else _named(iter(given), field)

    return _stream("loader", given, iterate)


def _named(items: Iterable[Any], field: str | None) -> Iterator[Sample]:
    return (_sample(item, str(number), field) for number, item in enumerate(items))


def _unbatched(batches: Iterable[Any], field: str | None) -> Iterator[Sample]:
    number = 0
    for batch in batches:
        for value, label, native in _rows_of(batch, field):
            yield Sample(str(number), value, label, native)
            number += 1


def _rows_of(batch: Any, field: str | None) -> Iterator[tuple[np.ndarray[Any, Any], int | None, bool]]:
    value, label, _ = _parts(batch, field)
    values, native = _as_numpy(value)
    labels = None if label is None else np.asarray(_as_numpy(label)[0])
    known = labels is not None and labels.shape == values.shape[:1] and labels.dtype.kind in "ui"
    for i, row in enumerate(values):
        yield row, int(labels[i]) if known and labels is not None else None, native


# One item ------------------------------------------------------------------------------------------------------------
_IMAGES = ("image", "img", "jpg", "jpeg", "png", "webp", "pixel_values", "input", "inputs")
_LABELS = ("label", "labels", "cls", "target", "class")
_NAMES = ("__key__", "path")


def _sample(item: Any, name: str, field: str | None) -> Sample:
    value, label, key = _parts(item, field)
    array, native = _as_numpy(value)
    return Sample(name if key is None else key, array, _whole(label), native)


def _parts(item: Any, field: str | None) -> tuple[Any, Any, str | None]:
    """The image of an item, its label and its name, where it has them."""
    if isinstance(item, Mapping):
        key = field if field is not None else next((x for x in _IMAGES if x in item), None)
        if key is None or key not in item:
            raise InvalidInput(
                f"samples are dicts of {', '.join(map(str, item))}: name the image's entry, as field='image'"
            )
        label = next((item[x] for x in _LABELS if x in item and x != key), None)
        name = next((item[x] for x in _NAMES if isinstance(item.get(x), str)), None)
        return item[key], label, name
    if isinstance(item, tuple | list) and item:
        return item[0], item[1] if len(item) > 1 else None, None
    return item, None, None


def _whole(label: Any) -> int | None:
    """A label that is one integer; None for any other."""
    if label is None:
        return None
    try:
        found = np.asarray(_as_numpy(label)[0])
    except InvalidInput:
        return None
    return int(found.reshape(())) if found.size == 1 and found.dtype.kind in "ui" else None


def _as_numpy(value: Any) -> tuple[np.ndarray[Any, Any], bool]:
    """An array, or Pillow's image, as NumPy, and whether it belongs to a framework."""
    owner = array_owner(value)
    if owner is not None:
        return get_backend(owner.name)[OPS].ops_for([value]).numpy(value), True
    if isinstance(value, str | os.PathLike):
        return read_image(value), False
    if hasattr(value, "convert") and hasattr(value, "getbands"):  # Pillow's image
        from agnostic import decoding

        return np.array(decoding.in_color(value, "RGB", (255, 255, 255))), False
    # A memory map stays one.
    found = value if isinstance(value, np.ndarray) else np.asarray(value)
    if found.dtype.kind not in "uifb":
        raise InvalidInput(f"a sample is an image or an array of numbers, not {describe(value)}")
    return found, False


def _leaves(spec: Any) -> Iterator[Any]:
    if isinstance(spec, Mapping):
        for x in spec.values():
            yield from _leaves(x)
    elif isinstance(spec, tuple | list):
        for x in spec:
            yield from _leaves(x)
    elif getattr(spec, "shape", None) is not None:
        yield spec


def stored_name(name: str) -> str:
    """A name or message as a store has it: bytes that are no text, as file systems allow them, are written out."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def label_or_none(label: int | None) -> int:
    """The label as a store has it."""
    return _NO_LABEL if label is None else label
