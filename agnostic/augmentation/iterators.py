"""The iterators of :class:`agnostic.augmentation.ImageDataGenerator`.

There are two ways in, and they draw differently, as in Keras' legacy class. ``next(iterator)`` runs for ever and draws
a new permutation at the start of every epoch. ``iterator[i]``, which ``model.fit`` uses, keeps its permutation until
``on_epoch_end()``. Both seed the stream with ``seed`` plus the number of batches made so far, whichever way.

The legacy class knows no worker processes: their copies of an iterator would all draw the same, in each epoch again.
There the streams of :mod:`agnostic.augmentation.loaders` take over.
"""

from __future__ import annotations

import multiprocessing
import operator
import os
import sys
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from agnostic.augmentation import inputs, loaders, parallel, pictures, streams
from agnostic.checks import one_of, whole_number
from agnostic.contracts.augmentation import Loading
from agnostic.errors import InvalidInput, InvalidType, UnknownName, nearest
from agnostic.files import files_below, folders_in
from agnostic.text import counted, type_named

Array = npt.NDArray[Any]
EXTENSIONS = ("png", "jpg", "jpeg", "bmp", "ppm", "tif", "tiff")


class Transforms(Protocol):
    """What iterators need of :class:`agnostic.augmentation.ImageDataGenerator`."""

    _random: np.random.RandomState
    _validation_split: float

    def fill(self, batch: Array, read: Callable[[int], Array]) -> None:
        """Write the images that ``read`` gives into the batch, transformed."""


class Iterator:
    """Batches of ``n`` samples, endlessly by ``next`` and by index ``0 .. len - 1``.

    A batch is made from its own random stream, so threads may draw batches at the same time.

    Args:
        n: number of samples.
        batch_size: the last batch of an epoch may be smaller.
        shuffle: draw a permutation each epoch.
        seed: the batches that follow are those of this seed; None: they follow the generator's own stream.
        generator: what transforms the images.
    """

    def __init__(self, n: int, batch_size: int, shuffle: bool, seed: int | None, generator: Transforms | None) -> None:
        self.n = n
        self.batch_size = whole_number("batch_size", batch_size, 1)
        self.shuffle = shuffle
        self.seed = None if seed is None else whole_number("seed", seed, most=2**32 - 1)
        self.batch_index = 0
        self.total_batches_seen = 0
        self.index_array: npt.NDArray[np.int64] | None = None
        self.image_data_generator = generator
        self.lock = threading.Lock()
        self._home = os.getpid()
        self._epoch = 0
        self._identity: int | None = None
        self._passes: dict[Any, loaders.Passes] = {}
        if seed is None:
            self._random = np.random.RandomState() if generator is None else generator._random
        else:
            self._random = np.random.RandomState(seed)

    def __repr__(self) -> str:
        order = "shuffled" if self.shuffle else "in order"
        made = f"{counted(self.n, 'image')} in batches of {self.batch_size}, {order}, seed {self.seed}"
        return f"<{type(self).__name__}: {made}, {self.image_data_generator!r}>"

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "lock"}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state)
        self.lock = threading.Lock()
        if multiprocessing.parent_process() is None:
            self._home = os.getpid()

    def __len__(self) -> int:
        return (self.n + self.batch_size - 1) // self.batch_size

    def __iter__(self) -> Iterator:
        return self

    def __next__(self) -> Any:
        loading = loaders.loading(sys._getframe(1))
        with self.lock:
            self._begin_batch()
            if loading is not None and loading.seed is not None:
                self._random = self._stream(loading.seed, loading.worker, self.total_batches_seen)
            if self.batch_index == 0:
                self._set_index_array()
            assert self.index_array is not None
            start = self.batch_index * self.batch_size % self.n
            self.batch_index = self.batch_index + 1 if start + self.batch_size < self.n else 0
            chosen, random = self.index_array[start : start + self.batch_size], self._random
        with streams.drawing_from(random):
            return self._get_batches_of_transformed_samples(chosen)

    def __getitem__(self, idx: int) -> Any:
        if not hasattr(idx, "__index__"):
            raise InvalidType(f"a batch is asked for by one whole number, not {idx!r}")
        idx = operator.index(idx)
        if not 0 <= idx < len(self):
            raise InvalidInput(f"no batch {idx}: there are {len(self)}, 0 to {len(self) - 1}")
        loading = loaders.loading(sys._getframe(1))
        with self.lock:
            copied = os.getpid() != self._home or (loading is not None and loading.seed is not None)
            order, random = self._copy_begins(idx, loading) if copied else self._begins(idx, loading)
        with streams.drawing_from(random):
            return self._get_batches_of_transformed_samples(order[self.batch_size * idx : self.batch_size * (idx + 1)])

    def on_epoch_end(self) -> None:
        """Draw the permutation of the next epoch, from where the stream of the last batch stands."""
        self._passes.clear()
        self._next_epoch()

    def _next_epoch(self) -> None:
        self._set_index_array()
        self._epoch += 1

    def _begins(self, idx: int, loading: Loading | None) -> tuple[Array, np.random.RandomState]:
        """The order and the stream of a batch where the iterator was made: those of the legacy class.

        A loader that iterates here does not say where its epochs end; what it asks for does.
        """
        if loading is not None and self._passes.setdefault(None, loaders.Passes()).take(idx, len(self)):
            self._next_epoch()
        self._begin_batch()
        if self.index_array is None:
            self._set_index_array()
        assert self.index_array is not None
        return self.index_array, self._random

    def _copy_begins(self, idx: int, loading: Loading | None) -> tuple[Array, np.random.RandomState]:
        """The order and the stream of a batch in a worker; see :mod:`agnostic.augmentation.loaders`."""
        _check_images(self.n)
        told = loading is not None and loading.seed is not None
        where = (loading.seed, loading.worker) if loading is not None and loading.seed is not None else (self._epoch, 0)
        passes = self._passes.setdefault(where, loaders.Passes())
        passes.take(idx, len(range(where[1], len(self), loading.workers if loading is not None else 1)))
        random = self._stream(*where, passes.number, idx + 1)
        if not told and passes.number == 0 and self.index_array is not None:
            # The copy was made within an epoch whose order was drawn already.
            return self.index_array, random
        if not self.shuffle:
            return np.arange(self.n), random
        return self._stream(where[0], passes.number).permutation(self.n), random

    def _stream(self, *key: int) -> np.random.RandomState:
        """A stream of this iterator that depends on these numbers."""
        if self._identity is None:
            self._identity = loaders.identity(self.seed, self._random)
        return loaders.stream((self._identity, len(key), *key))

    def reset(self) -> None:
        """Let the next ``next`` begin a new epoch; the batches seen still count."""
        self.batch_index = 0

    def _begin_batch(self) -> None:
        _check_images(self.n)
        if self.seed is not None:
            self._random = np.random.RandomState(self.seed + self.total_batches_seen)
        self.total_batches_seen += 1

    def _set_index_array(self) -> None:
        self.index_array = self._random.permutation(self.n) if self.shuffle else np.arange(self.n)

    def _get_batches_of_transformed_samples(self, index_array: npt.NDArray[np.int64]) -> Any:
        """The batch of the chosen samples; draws come from the stream in force."""
        raise NotImplementedError


def _check_images(count: int) -> None:
    if count == 0:
        raise InvalidInput("there are no images to make a batch of")


def _fill(generator: Transforms | None, batch: Array, read: Callable[[int], Array]) -> None:
    """Write the images that ``read`` gives, transformed where there is a generator."""
    if generator is not None:
        generator.fill(batch, read)
        return

    def copy(k: int) -> None:
        batch[k] = read(k)

    parallel.each(copy, len(batch))


class _Saving:
    """Writes the images of a batch to a folder, each under a name that ends in a random number."""

    save_to_dir: str | None
    save_prefix: str
    save_format: str
    data_format: str

    def _save(
        self, batch: Array, index_array: npt.NDArray[np.int64], names: int, random: np.random.RandomState
    ) -> None:
        if not self.save_to_dir:
            return
        for image, index in zip(batch, index_array, strict=True):
            pixels = image.transpose(1, 2, 0) if self.data_format == "channels_first" else image
            name = f"{self.save_prefix}_{index}_{random.randint(names)}.{self.save_format}"
            pictures.to_picture(pixels).save(os.path.join(self.save_to_dir, name))


class NumpyArrayIterator(_Saving, Iterator):
    """Batches of an array of images in memory.

    Args:
        x: (N, H, W, C), or (N, C, H, W) with channels first; or a pair of it and further arrays of the same length,
            which come along untransformed.
        y: labels of the same length, or None.
        image_data_generator: what transforms the images.
        sample_weight: weights of the same length, or None.
        subset: ``"training"``, ``"validation"``, or None for all.
        ignore_class_split: do not ask that both subsets have the same classes.
        save_to_dir: a folder to which the transformed images are written, with ``save_prefix`` and ``save_format``.

    A batch is ``x``, ``(x, y)`` or ``(x, y, weight)``, with ``[x, *further]`` for ``x`` where further arrays came.

    Raises:
        InvalidInput: lengths differ, the images have no four axes, or a subset lacks a class.
    """

    def __init__(
        self,
        x: Any,
        y: Any,
        image_data_generator: Transforms,
        batch_size: int = 32,
        shuffle: bool = False,
        sample_weight: Any = None,
        seed: int | None = None,
        data_format: str = "channels_last",
        save_to_dir: str | None = None,
        save_prefix: str = "",
        save_format: str = "png",
        subset: str | None = None,
        ignore_class_split: bool = False,
        dtype: str = "float32",
    ) -> None:
        x, further = _images(x, dtype)
        for name, other in (("y", y), ("sample_weight", sample_weight), *(("x[1]", a) for a in further)):
            _check_length(name, other, len(x))
        if subset is not None:
            assert image_data_generator is not None
            cut = int(len(x) * image_data_generator._validation_split)
            part = slice(None, cut) if _is_validation(subset) else slice(cut, None)
            if y is not None and not ignore_class_split and set(np.unique(y[:cut])) != set(np.unique(y[cut:])):
                raise InvalidInput(
                    "training and validation images have different classes: shuffle labels and images that are sorted "
                    "by class, or give ignore_class_split=True"
                )
            x, further = x[part], [a[part] for a in further]
            y = None if y is None else y[part]
            # The legacy class forgets to cut the weights, which gives images the weights of others.
            sample_weight = None if sample_weight is None else sample_weight[part]
        self.x = x
        channels = self.x.shape[1 if data_format == "channels_first" else 3]
        if channels not in (1, 3, 4):
            warnings.warn(
                f"images of shape {self.x.shape} have {channels} channels in data_format {data_format!r}, and "
                "1, 3 or 4 are usual",
                stacklevel=3,
            )
        self.x_misc = further
        self.y = None if y is None else np.asarray(y)
        self.sample_weight = None if sample_weight is None else np.asarray(sample_weight)
        self.dtype = dtype
        self.data_format = data_format
        self.save_to_dir, self.save_prefix, self.save_format = save_to_dir, save_prefix, save_format
        super().__init__(len(self.x), batch_size, shuffle, seed, image_data_generator)

    def _get_batches_of_transformed_samples(self, index_array: npt.NDArray[np.int64]) -> Any:
        batch = np.empty((len(index_array), *self.x.shape[1:]), self.dtype)
        _fill(self.image_data_generator, batch, lambda k: self.x[index_array[k]])
        self._save(batch, index_array, 10**4, streams.current(self._random))
        images = [batch, *(a[index_array] for a in self.x_misc)] if self.x_misc else batch
        if self.y is None:
            return images
        if self.sample_weight is None:
            return images, self.y[index_array]
        return images, self.y[index_array], self.sample_weight[index_array]


def _images(x: Any, dtype: str) -> tuple[Array, list[Array]]:
    """The images, and the further arrays that may come with them in a pair."""
    further: list[Any] = []
    if isinstance(x, tuple | list):
        if len(x) != 2:
            raise InvalidInput(
                f"x is an array of images, or a pair of it and further arrays, not {type_named(x)} of "
                f"{len(x)}; numpy.stack makes an array of a list of images"
            )
        further = [np.asarray(a) for a in (x[1] if isinstance(x[1], list) else [x[1]])]
        x = x[0]
    images = inputs.as_array(x, "images", dtype)
    if images.ndim != 4 or 0 in images.shape[1:]:
        raise InvalidInput(f"images have four axes, the last three of 1 or more, not shape {images.shape}")
    return images, further


def _check_length(name: str, values: Any, images: int) -> None:
    if values is None:
        return
    if not hasattr(values, "__len__"):
        raise InvalidInput(f"{name} is a sequence, one for each of the {counted(images, 'image')}, not {values!r:.60}")
    if len(values) != images:
        raise InvalidInput(f"{name} has length {len(values)}, and there are {counted(images, 'image')}")


class _FileIterator(_Saving, Iterator):
    """What the iterators over files share: reading, resizing, labels."""

    class_modes: tuple[str | None, ...]
    class_indices: dict[str, int]
    classes: Any
    filenames: list[str]
    _filepaths: list[str]

    def _set_files(
        self,
        generator: Transforms | None,
        target_size: Sequence[int],
        color_mode: str,
        class_mode: str | None,
        data_format: str,
        save_to_dir: str | None,
        save_prefix: str,
        save_format: str,
        subset: str | None,
        interpolation: str,
        keep_aspect_ratio: bool,
        dtype: str,
    ) -> None:
        pictures.check_color_mode(color_mode)
        pictures.check_interpolation(interpolation)
        one_of("class_mode", class_mode, self.class_modes)
        self.target_size = pictures.check_size(target_size)
        self.color_mode = color_mode
        self.class_mode = class_mode
        self.data_format = data_format
        channels = pictures.COLOR_CHANNELS[color_mode]
        first = data_format == "channels_first"
        self.image_shape = (channels, *self.target_size) if first else (*self.target_size, channels)
        self.save_to_dir, self.save_prefix, self.save_format = save_to_dir, save_prefix, save_format
        self.interpolation = interpolation
        self.keep_aspect_ratio = keep_aspect_ratio
        self.dtype = dtype
        self.subset = subset
        self.split: tuple[float, float] | None = None
        if subset is not None:
            fraction = 0.0 if generator is None else generator._validation_split
            self.split = (0, fraction) if _is_validation(subset) else (fraction, 1)

    @property
    def filepaths(self) -> list[str]:
        """The path of every sample's file."""
        return self._filepaths

    @property
    def labels(self) -> Any:
        """What a batch's labels are chosen from."""
        return self.classes

    @property
    def sample_weight(self) -> Array | None:
        """The weight of every sample, or None."""
        return None

    def _get_batches_of_transformed_samples(self, index_array: npt.NDArray[np.int64]) -> Any:
        batch = np.empty((len(index_array), *self.image_shape), self.dtype)
        paths = self.filepaths

        def read(k: int) -> Array:
            image = pictures.load(
                paths[index_array[k]], self.color_mode, self.target_size, self.interpolation, self.keep_aspect_ratio
            )
            return image.transpose(2, 0, 1) if self.data_format == "channels_first" else image

        _fill(self.image_data_generator, batch, read)
        self._save(batch, index_array, 10**7, streams.current(self._random))
        if self.class_mode is None:
            return batch
        labels = self._batch_labels(batch, index_array)
        return (batch, labels) if self.sample_weight is None else (batch, labels, self.sample_weight[index_array])

    def _batch_labels(self, batch: Array, index_array: npt.NDArray[np.int64]) -> Any:
        if self.class_mode == "input":
            return batch.copy()
        if self.class_mode == "multi_output":
            return [output[index_array] for output in self.labels]
        if self.class_mode == "raw":
            return self.labels[index_array]
        chosen = [self.classes[index] for index in index_array]
        if self.class_mode in ("binary", "sparse"):
            return np.array(chosen, self.dtype)
        hot = np.zeros((len(chosen), len(self.class_indices)), self.dtype)
        for row, label in zip(hot, chosen, strict=True):
            row[label] = 1
        return hot


class DirectoryIterator(_FileIterator):
    """Batches of the picture files in a folder that has a folder for each class.

    Files are found at any depth below a class folder, by their extension, in the order of their folders and names.
    Hidden files and folders (names that begin with a dot, such as ``.ipynb_checkpoints``) are left out.

    Args:
        directory: the folder.
        image_data_generator: what transforms the images.
        target_size: (height, width) that every image is resized to.
        color_mode: ``"rgb"``, ``"rgba"`` or ``"grayscale"``.
        classes: names of the class folders, in the order of their labels; None: all folders, sorted.
        class_mode: ``"categorical"`` (one-hot), ``"binary"``, ``"sparse"`` (index), ``"input"`` (the images) or None.
        follow_links: look into linked folders.
        subset: ``"training"``, ``"validation"``, or None for all.
        interpolation: how images are resized; see :func:`agnostic.augmentation.pictures.load`.
        keep_aspect_ratio: cut the centre before resizing.

    Attributes: ``class_indices``, ``classes``, ``filenames``, ``filepaths``, ``samples``, ``num_classes``.

    Raises:
        InvalidInput: a folder does not exist or cannot be read, there are no picture files in its class folders, or an
            option is unknown.
    """

    class_modes = ("categorical", "binary", "sparse", "input", None)

    def __init__(
        self,
        directory: str | os.PathLike[str],
        image_data_generator: Transforms | None,
        target_size: Sequence[int] = (256, 256),
        color_mode: str = "rgb",
        classes: Sequence[str] | None = None,
        class_mode: str | None = "categorical",
        batch_size: int = 32,
        shuffle: bool = True,
        seed: int | None = None,
        data_format: str = "channels_last",
        save_to_dir: str | None = None,
        save_prefix: str = "",
        save_format: str = "png",
        follow_links: bool = False,
        subset: str | None = None,
        interpolation: str = "nearest",
        keep_aspect_ratio: bool = False,
        dtype: str = "float32",
    ) -> None:
        self._set_files(
            image_data_generator, target_size, color_mode, class_mode, data_format, save_to_dir, save_prefix,
            save_format, subset, interpolation, keep_aspect_ratio, dtype,
        )  # fmt: skip
        self.directory = directory
        names = list(classes) if classes else folders_in(directory)
        if class_mode == "binary" and len(names) != 2:
            warnings.warn(
                f"class_mode 'binary' is meant for two classes, and {directory!r} has {len(names)}", stacklevel=3
            )
        self.num_classes = len(names)
        self.class_indices = {name: k for k, name in enumerate(names)}
        self.filenames = []
        labels: list[int] = []
        for name, label in self.class_indices.items():
            files = _picture_files(os.path.join(directory, name), name, follow_links)
            if self.split is not None:
                files = files[int(self.split[0] * len(files)) : int(self.split[1] * len(files))]
            self.filenames += files
            labels += [label] * len(files)
        self.classes = np.array(labels, np.int32)
        self.samples = len(self.filenames)
        if not self.samples:
            raise InvalidInput(_without_files(directory, names, subset))
        self._filepaths = [os.path.join(directory, name) for name in self.filenames]
        print(f"Found {self.samples} images belonging to {self.num_classes} classes.")  # noqa: T201 - as the legacy class does
        super().__init__(self.samples, batch_size, shuffle, seed, image_data_generator)


class DataFrameIterator(_FileIterator):
    """Batches of picture files that a table names.

    Args:
        dataframe: a pandas DataFrame, or anything that gives a column by ``table[name]``, such as a dict of lists.
        directory: the folder that relative names start from; None: the working folder.
        x_col: the column of file names.
        y_col: the column of labels, or a list of columns for ``"multi_output"`` and ``"raw"``.
        weight_col: the column of sample weights, or None.
        classes: names of the classes, in the order of their labels; rows of others are left out. None: all, sorted.
        class_mode: ``"categorical"`` (labels may be lists), ``"binary"``, ``"sparse"``, ``"input"``,
            ``"multi_output"`` (a list of arrays), ``"raw"`` (the values), or None.
        validate_filenames: leave out rows whose file does not exist or has another extension, with a warning.

    The other arguments are those of :class:`DirectoryIterator`.

    Raises:
        InvalidInput: the number of classes does not suit ``class_mode``, or no row has a file. A column whose values
            are of another type raises :class:`agnostic.errors.InvalidType`, also a TypeError; a missing column a
            KeyError: the classes of errors are Keras' and pandas'.
    """

    class_modes = ("binary", "categorical", "input", "multi_output", "raw", "sparse", None)

    def __init__(
        self,
        dataframe: Any,
        directory: str | os.PathLike[str] | None = None,
        image_data_generator: Transforms | None = None,
        x_col: str = "filename",
        y_col: str | Sequence[str] = "class",
        weight_col: str | None = None,
        target_size: Sequence[int] = (256, 256),
        color_mode: str = "rgb",
        classes: Sequence[str] | None = None,
        class_mode: str | None = "categorical",
        batch_size: int = 32,
        shuffle: bool = True,
        seed: int | None = None,
        data_format: str = "channels_last",
        save_to_dir: str | None = None,
        save_prefix: str = "",
        save_format: str = "png",
        subset: str | None = None,
        interpolation: str = "nearest",
        keep_aspect_ratio: bool = False,
        dtype: str = "float32",
        validate_filenames: bool = True,
    ) -> None:
        self._set_files(
            image_data_generator, target_size, color_mode, class_mode, data_format, save_to_dir, save_prefix,
            save_format, subset, interpolation, keep_aspect_ratio, dtype,
        )  # fmt: skip
        self.directory = directory or ""
        names = list(_column(dataframe, x_col))
        keep = self._usable(names, x_col, validate_filenames)
        labels: list[Any] | None = None
        if class_mode in ("binary", "categorical", "sparse"):
            labels, classes = _labels(dataframe, y_col, keep, classes, class_mode)
            keep &= np.array([label is not None for label in labels], bool)
            self.class_indices = {name: k for k, name in enumerate(classes)}
        elif classes:
            warnings.warn(f"classes are not used with class_mode {class_mode!r}", stacklevel=3)
        rows = np.flatnonzero(keep)
        if self.split is not None:
            rows = rows[int(self.split[0] * len(rows)) : int(self.split[1] * len(rows))]
        self.filenames = [names[k] for k in rows]
        self._filepaths = [os.path.join(self.directory, name) for name in self.filenames]
        self.classes = None if labels is None else [_indices(labels[k], self.class_indices) for k in rows]
        self._targets = None if labels is not None else _targets(dataframe, class_mode, y_col, rows, len(names))
        self._sample_weight = None if weight_col is None else _weights(dataframe, weight_col, len(names))[rows]
        self.samples = len(self.filenames)
        if not self.samples:
            part = "" if subset is None else f" in the subset {subset!r}"
            raise InvalidInput(
                f"of {counted(len(names), 'row')} none has a picture file that can be used{part}: see x_col {x_col!r}, "
                "directory, classes and validation_split"
            )
        validated = "validated" if validate_filenames else "non-validated"
        belonging = f" belonging to {len(self.class_indices)} classes" if labels is not None else ""
        print(f"Found {self.samples} {validated} image filenames{belonging}.")  # noqa: T201 - as the legacy class does
        super().__init__(self.samples, batch_size, shuffle, seed, image_data_generator)

    def _usable(self, names: Sequence[Any], x_col: str, validate: bool) -> npt.NDArray[np.bool_]:
        """Which of the names in a column are of picture files that exist; all of them where that is not asked."""
        wrong = next((name for name in names if not isinstance(name, str)), None)
        if wrong is not None or None in names:
            raise InvalidType(f"all values of x_col {x_col!r} must be file names, not {wrong!r}")
        keep = np.ones(len(names), bool)
        if validate:
            keep[:] = [name.lower().endswith(EXTENSIONS) and os.path.isfile(self._path(name)) for name in names]
        if not keep.all():
            missing = names[int(np.argmin(keep))]
            warnings.warn(
                f"{(~keep).sum()} of {counted(len(names), 'file')} in column {x_col!r} do not exist or are no "
                f"picture files and are left out, the first of them {missing!r}",
                stacklevel=4,
            )
        return keep

    def _path(self, name: str) -> Path:
        return Path(self.directory, name)

    @property
    def labels(self) -> Any:
        return self._targets if self.class_mode in ("multi_output", "raw") else self.classes

    @property
    def sample_weight(self) -> Array | None:
        return self._sample_weight


def _labels(
    table: Any, y_col: str | Sequence[str], keep: npt.NDArray[np.bool_], classes: Sequence[str] | None, class_mode: str
) -> tuple[list[Any], list[str]]:
    """The label of each row, None for one of an unwanted class, and the classes in the order of their indices."""
    if not isinstance(y_col, str):
        raise InvalidType(f"class_mode {class_mode!r} takes one column of labels, not {y_col!r}")
    return _check_classes(list(_column(table, y_col, len(keep))), keep, classes, class_mode, y_col)


def _indices(label: str | Sequence[str], index: Mapping[str, int]) -> int | list[int]:
    return index[label] if isinstance(label, str) else [index[one] for one in label]


def _targets(table: Any, class_mode: str | None, y_col: str | Sequence[str], rows: Array, count: int) -> Any:
    """The labels that are values, of the chosen of ``count`` rows; None where the mode has none."""
    if class_mode == "multi_output":
        if isinstance(y_col, str):
            raise InvalidType(f"class_mode 'multi_output' takes a list of columns as y_col, not {y_col!r}")
        return [np.array(list(_column(table, name, count)))[rows] for name in y_col]
    if class_mode != "raw":
        return None
    columns = [np.asarray(_column(table, name, count)) for name in ([y_col] if isinstance(y_col, str) else y_col)]
    return (columns[0] if isinstance(y_col, str) else np.stack(columns, axis=1))[rows]


def _weights(table: Any, column: str, count: int) -> Array:
    weights = np.asarray(_column(table, column, count))
    if weights.dtype.kind not in "iuf":
        raise InvalidType(f"all values of weight_col {column!r} must be numbers")
    return weights


class _UnknownColumn(UnknownName, InvalidInput, KeyError):
    """A table has no such column; a KeyError, as a data frame raises it."""


def _without_files(directory: str | os.PathLike[str], names: Sequence[str], subset: str | None) -> str:
    """Why a folder gives no samples, and what to do."""
    where = repr(os.fspath(directory))
    if subset is not None and any(_picture_files(os.path.join(directory, name), name, False) for name in names):
        return f"the subset {subset!r} of {where} has no images: the classes are too small for this validation_split"
    if names:
        return f"no images in the class folders of {where} (names ending in {', '.join(EXTENSIONS)})"
    own = [x for x in files_below(directory, EXTENSIONS) if os.path.basename(x) == x]
    above, leaf = os.path.split(os.path.abspath(directory))
    return (
        f"no class folders in {where}, which has {counted(len(own), 'image')} itself: give the folder above, "
        "or for images "
        f"without classes flow_from_directory({above!r}, classes=[{leaf!r}], class_mode=None)"
    )


def _is_validation(subset: str) -> bool:
    if subset not in ("training", "validation"):
        raise InvalidInput(f"subset is 'training' or 'validation', not {subset!r}")
    return subset == "validation"


def _picture_files(folder: str, name: str, follow_links: bool) -> list[str]:
    """The picture files below a class folder, as paths from the folder above it."""
    files = [os.path.join(name, file) for file in files_below(folder, EXTENSIONS, follow_links)]
    # Keras' order: by the path of the folder as text, where "a-b" comes before "a/b".
    return sorted(files, key=os.path.dirname)


def _column(table: Any, name: str, rows: int | None = None) -> Any:
    """A column of a table, of that many rows where a number is given."""
    try:
        column = table[name]
    except KeyError as error:
        columns = [str(c) for c in getattr(table, "columns", table)]
        raise _UnknownColumn(f"the table has no column {name!r}{nearest(str(name), columns)}") from error
    except TypeError:
        raise InvalidType(f"dataframe is a pandas DataFrame or a dict of columns, not {type(table).__name__}") from None
    if rows is not None and len(column) != rows:
        raise InvalidInput(
            f"the column {name!r} has {counted(len(column), 'row')}, and that of the file names has {rows}"
        )
    return column


def _check_classes(
    labels: list[Any], keep: npt.NDArray[np.bool_], classes: Sequence[str] | None, class_mode: str, y_col: str
) -> tuple[list[Any], list[str]]:
    """The labels with those of unwanted classes set to None, and the classes in the order of their indices."""
    kinds = (str, list, tuple) if class_mode == "categorical" else (str,)
    wrong = next((x for x in labels if not isinstance(x, kinds)), None)
    if wrong is not None or None in labels:
        allowed = "strings, lists or tuples" if class_mode == "categorical" else "strings"
        raise InvalidType(f"class_mode {class_mode!r} takes labels that are {allowed}; column {y_col!r} has {wrong!r}")
    count = len(set(classes)) if classes else len(set(labels)) if class_mode == "binary" else 0
    if class_mode == "binary" and count != 2:
        raise InvalidInput(f"class_mode 'binary' takes two classes, and {count} are given")
    if not classes:
        kept = [x for x, valid in zip(labels, keep, strict=True) if valid]
        return labels, sorted({one for x in kept for one in ([x] if isinstance(x, str) else x)})
    wanted = list(dict.fromkeys(classes))
    return [_wanted(x, wanted) for x in labels], wanted


def _wanted(label: Any, wanted: Sequence[str]) -> Any:
    if isinstance(label, str):
        return label if label in wanted else None
    return [one for one in label if one in wanted] or None
