"""A folder of images with one subfolder per class, read one image at a time."""

from __future__ import annotations

import copy
import hashlib
import inspect
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol, TypeGuard, cast

import numpy as np
import numpy.typing as npt

from agnostic import display
from agnostic.checks import one_of, whole_number
from agnostic.contracts.data import DATA
from agnostic.data.batches import Batches
from agnostic.data.images import COLORS, Reading, read_image
from agnostic.data.weights import class_weights
from agnostic.decoding import SUFFIXES
from agnostic.errors import InvalidInput, nearest
from agnostic.files import files_below, folders_in
from agnostic.registry import backend_name, get_backend
from agnostic.text import counted

Array = npt.NDArray[Any]

CLASS_MODES = ("sparse", "binary", "categorical", None)
DTYPES = ("float32", "uint8")

_UNIT = np.float32(1 / 255)


class Applied(Protocol):
    """An augmentation in two steps, as :class:`agnostic.augmentation.Augmentation`: draw, then change."""

    def parameters(self, seed: int, index: int, shape: Sequence[int], epoch: int = 0) -> Any: ...

    def apply(self, image: Array, parameters: Any) -> Array: ...


Augment = Applied | Callable[..., Array]


@dataclass(frozen=True, eq=False, repr=False)
class ImageFolder:
    """The images of a folder, listed once and read on access.


    Unusual files: EXIF orientation is applied. CMYK is converted to RGB, colour profiles are not used.
    16 bits become 8 by their range (colour files by their high byte). Truncated and empty files, other formats, broken
    links, floating-point images and (unless ``first_frame``) animations are errors that name the file.

    Args:
        directory: the folder. Its subfolders are the classes, in the order of their names; images may lie at any depth
            below. Names that begin with a dot, and files without an image extension, are ignored.
        size: (height, width) that images are resized to, without keeping their aspect ratio; None: not resized, and
            then all images of a batch must have the same size.
        classes: the subfolders to take, in the order of their indices; None: all of them.
        class_mode: the form of labels: ``"sparse"``: (n,) int64 indices; ``"binary"``: (n,) float32 of 0 and 1, for two
            classes; ``"categorical"``: (n, classes) float32 one-hot; None: none, and ``directory`` needs no subfolders.
        color: ``"rgb"``, ``"grayscale"`` or ``"rgba"``.
        interpolation: of the resizing: ``"nearest"``, ``"bilinear"``, ``"bicubic"``, ``"lanczos"``, ``"box"`` or
            ``"hamming"``; all but the first average over the pixels that an output pixel covers.
        dtype: of the images: ``"float32"``, in [0, 1], or ``"uint8"``.
        augmentation: an :class:`agnostic.augmentation.Augmentation`, or an object with its ``parameters(seed, index,
            shape, epoch)`` and ``apply(image, parameters)``; or a function, called as ``augmentation(image, seed=,
            epoch=, index=)``. It gets one (H, W, C) image in ``dtype`` and its index in ``files``, and returns an image
            of the same shape and dtype that depends only on these. Or a transform of torchvision (v2, or any
            ``torch.nn.Module``): it gets a (C, H, W) tensor, and its draws depend only on seed, epoch and index.
        on_error: for a file that cannot be read: ``"raise"`` an error, or ``"skip"`` it: its batch is smaller, and it
            is reported at the end of the epoch.
        background: (r, g, b) behind transparent pixels, if ``color`` has no alpha.
        first_frame: take the first image of files that hold several (animations, pages); else they are an error.
        scaled: reduce JPEG files during decoding if they are much larger than ``size``; differs from full
            decoding by 0.2 of 255 in the mean (see :data:`agnostic.data.images.SCALED`).
        decoder: of JPEG files: ``"opencv"``, ``"pillow"``, or ``"auto"``, the first of these that is installed; the
            pixels are the same.
        resizer: ``"pillow"``, or ``"torch"``, four times as fast and within 1 of 255 of it; for bilinear and bicubic.

    Attributes:
        files: (n,) paths relative to ``directory``, with ``/``; the index of an image is its position here.
        labels: (n,) int64 class indices; -1 where ``class_mode`` is None.
        class_names: the classes in the order of their indices.

    Raises:
        InvalidInput: there is no such folder, class or image, a class is empty (with ``on_error="skip"`` it keeps its
            index), or ``class_mode="binary"`` without exactly two classes.

    Example:
        >>> folder = ag.data.ImageFolder("photos", size=(8, 8))
        >>> len(folder), folder.class_names, folder.labels.tolist()
        (6, ('cat', 'dog'), [0, 0, 0, 1, 1, 1])
        >>> folder[0].shape, folder[0].dtype
        ((8, 8, 3), dtype('float32'))
    """

    directory: str | os.PathLike[str]
    size: tuple[int, int] | None = (256, 256)
    classes: Sequence[str] | None = None
    class_mode: str | None = "sparse"
    color: str = "rgb"
    interpolation: str = "bilinear"
    dtype: str = "float32"
    augmentation: Augment | None = None
    on_error: str = "raise"
    background: tuple[int, int, int] = (255, 255, 255)
    first_frame: bool = False
    scaled: bool = True
    decoder: str = "auto"
    resizer: str = "pillow"
    files: tuple[str, ...] = field(init=False, repr=False)
    labels: npt.NDArray[np.int64] = field(init=False, repr=False)
    class_names: tuple[str, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        for name, choices in (("class_mode", CLASS_MODES), ("dtype", DTYPES), ("on_error", ("raise", "skip"))):
            one_of(name, getattr(self, name), choices)
        if self.augmentation is not None:
            _check_augmentation(self.augmentation)
        shared = (f.name for f in fields(Reading))
        reading = Reading(**{name: getattr(self, name) for name in shared})
        names, files, labels = _listing(self)
        object.__setattr__(self, "_reading", reading)
        object.__setattr__(self, "size", reading.size)
        object.__setattr__(self, "class_names", names)
        object.__setattr__(self, "files", files)
        object.__setattr__(self, "labels", np.array(labels, np.int64))

    def __repr__(self) -> str:
        size = "any size" if self.size is None else f"{self.size[0]} x {self.size[1]}"
        classes = f", {counted(len(self.class_names), 'class', 'classes')} ({display.listed(self.class_names, 120)})"
        return (
            f"<ImageFolder {display.shortened(self.directory, 80)}: {counted(len(self), 'image')}"
            f"{classes if self.class_names else ''}, {size}, {self.color}, {self.dtype}>"
        )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Array:
        """The image at ``index``, before augmentation: (H, W, C) in ``dtype``."""
        return _converted(self._read(range(len(self))[index]), self.dtype)

    @property
    def empty_classes(self) -> tuple[str, ...]:
        """The classes without images, which ``on_error="skip"`` allows."""
        present = set(self.labels.tolist())
        return tuple(name for label, name in enumerate(self.class_names) if label not in present)

    @property
    def channels(self) -> int:
        """The number of channels of every image."""
        return COLORS[self.color][1]

    def path(self, index: int) -> Path:
        """Where the file at ``index`` is.

        Args:
            index: of an image, 0 .. n - 1.

        Returns:
            The path of its file.
        """
        return Path(self.directory, self.files[index])

    def sample(self, index: int, *, seed: int = 0, epoch: int = 0) -> Array:
        """The image at ``index`` as a batch of that epoch has it: (H, W, C) in ``dtype``, augmented.

        Args:
            index: of an image, 0 .. n - 1.
            seed: of the augmentation, a non-negative integer.
            epoch: from 0; each epoch draws new changes.

        Returns:
            (H, W, C); in [0, 1] where the dtype is floating point and ``scaled`` is True, else in [0, 255].

        Raises:
            InvalidInput: the file cannot be read, or the augmentation changes the shape or the dtype.
        """
        image = self[index]
        if self.augmentation is None:
            return image
        if _applied(self.augmentation):
            drawn = self.augmentation.parameters(seed, index, image.shape, epoch)
            augmented = self.augmentation.apply(image, drawn)
        elif owner := _owner(self.augmentation):
            draws = np.random.SeedSequence((seed, epoch, index)).generate_state(1, np.uint64)[0]
            augmented = get_backend(owner)[DATA].transform_image(self.augmentation, image, int(draws) >> 1)
        else:
            augmented = cast("Callable[..., Array]", self.augmentation)(image, seed=seed, epoch=epoch, index=index)
        if getattr(augmented, "shape", None) != image.shape or augmented.dtype != image.dtype:
            raise InvalidInput(
                f"the augmentation turned an image of {_shape(image)} into {_shape(augmented)}; it must keep both"
            )
        return augmented

    def sample_into(self, out: Array, index: int, seed: int, epoch: int) -> None:
        """Write :meth:`sample` to ``out``, in one pass where nothing is augmented.

        Args:
            out: (H, W, C), of the folder's dtype; it is written.
            index, seed, epoch: see :meth:`sample`.

        Raises:
            InvalidInput: see :meth:`sample`.
        """
        if self.augmentation is None and self.dtype == "float32":
            np.multiply(self._read(index), _UNIT, out=out)
        else:
            out[...] = self._read(index) if self.augmentation is None else self.sample(index, seed=seed, epoch=epoch)

    def split(self, validation: float, seed: int = 0) -> tuple[ImageFolder, ImageFolder]:
        """Two folders of these images, for training and for validation; the second one is not augmented.

        Each class is split separately, so that both parts have its share. The choice depends only on the seed and the
        number of files.

        Args:
            validation: the fraction of each class that goes to validation, rounded; at least one image goes
                and at least one stays.
            seed: of the choice.

        Returns:
            (training, validation).

        Raises:
            InvalidInput: the fraction is not between 0 and 1, or a class has one image only.

        Example:
            >>> training, validation = ag.data.ImageFolder("photos", size=(8, 8)).split(0.3)
            >>> len(training), len(validation)
            (4, 2)
        """
        if not isinstance(validation, int | float) or not 0 < validation < 1:
            raise InvalidInput(f"validation must be a fraction between 0 and 1, such as 0.2, not {validation!r}")
        random = np.random.default_rng(whole_number("seed", seed))
        held_out = np.zeros(len(self), bool)
        for label in np.unique(self.labels):
            members = np.flatnonzero(self.labels == label)
            if len(members) < 2:
                name = self.class_names[label] if label >= 0 else os.fspath(self.directory)
                raise InvalidInput(f"{name!r} has one image only, and a split needs two; add images or leave it out")
            count = min(max(round(validation * len(members)), 1), len(members) - 1)
            held_out[random.permutation(members)[:count]] = True
        return _part(self, ~held_out), _part(self, held_out, augmentation=None)

    def class_weights(self) -> dict[int, float]:
        """A weight per class that gives all classes the same importance; see :func:`agnostic.data.class_weights`.

        Returns:
            A weight by class index.

        Raises:
            InvalidInput: the folder has no classes.
        """
        if not self.class_names:
            raise InvalidInput("images without classes (class_mode=None) have no class weights")
        return class_weights(self.labels, len(self.class_names))

    def targets(self, indices: npt.NDArray[np.int64]) -> Array | None:
        """The labels of these images in the form of ``class_mode``; None where that is None.

        Args:
            indices: (k,) of images.

        Returns:
            (k,) int64 for ``"sparse"``, (k,) float32 for ``"binary"``, (k, classes) float32 for ``"categorical"``.
        """
        labels = self.labels[indices]
        if self.class_mode is None:
            return None
        if self.class_mode == "binary":
            return labels.astype(np.float32)
        if self.class_mode == "categorical":
            return np.eye(len(self.class_names), dtype=np.float32)[labels]
        return labels

    def digest(self) -> str:
        """A hash of the file names in order: shows whether a saved position is still valid.

        Returns:
            Hexadecimal digits.
        """
        names = "\0".join(self.files)
        return hashlib.sha256(names.encode("utf-8", "surrogateescape")).hexdigest()

    def batches(
        self,
        batch_size: int = 32,
        *,
        seed: int = 0,
        shuffle: bool = True,
        workers: int = 2,
        drop_last: bool = False,
    ) -> Batches:
        """Batches of all images, an epoch at a time; see :class:`agnostic.data.Batches`.

        Args:
            batch_size: images in a batch; the last one of an epoch may have fewer.
            seed: of the order and the augmentation.
            shuffle: a new order every epoch; False: the order of ``files``.
            workers: threads that read ahead; 0: read on demand. The batches are the same for any number.
            drop_last: leave out a last batch that is incomplete.

        Returns:
            The batches, at the beginning of epoch 0.

        Raises:
            InvalidInput: an argument is out of its range.

        Example:
            >>> for images, labels in ag.data.ImageFolder("photos", size=(8, 8)).batches(4, seed=0):
            ...     print(images.shape, labels.shape)
            (4, 8, 8, 3) (4,)
            (2, 8, 8, 3) (2,)
        """
        return Batches(self, batch_size, seed=seed, shuffle=shuffle, workers=workers, drop_last=drop_last)

    def _read(self, index: int) -> npt.NDArray[np.uint8]:
        reading: Reading = self._reading  # type: ignore[attr-defined]
        return read_image(self.path(index), reading)


def _listing(folder: ImageFolder) -> tuple[tuple[str, ...], tuple[str, ...], list[int]]:
    """(class names, files, the label of each file) of a folder."""
    root = Path(folder.directory)
    where = repr(os.fspath(root))
    if folder.class_mode is None and folder.classes is None:
        files = tuple(files_below(root, SUFFIXES))
        if not files:
            raise InvalidInput(f"no images in {where}, that is, files ending in {', '.join(SUFFIXES)}")
        return (), files, [-1] * len(files)
    found = folders_in(root)
    names = tuple(found if folder.classes is None else folder.classes)
    if len(set(names)) != len(names):
        raise InvalidInput(f"classes must differ from each other: {', '.join(names)}")
    for name in names:
        if name not in found:
            raise InvalidInput(f"no class folder {name!r} in {where}{nearest(name, found)}")
    if not names:
        raise InvalidInput(f"no class folders in {where}; class_mode=None takes images without classes")
    if folder.class_mode == "binary" and len(names) != 2:
        raise InvalidInput(
            f"class_mode 'binary' needs two classes and {where} has {len(names)} ({', '.join(names[:9])}); "
            "use 'sparse' or 'categorical'"
        )
    files_of = [[f"{name}/{file}" for file in files_below(root / name, SUFFIXES)] for name in names]
    empty = [name for name, files in zip(names, files_of, strict=False) if not files]
    if empty and (folder.on_error == "raise" or len(empty) == len(names)):
        raise InvalidInput(
            f"the class folder {os.fspath(root / empty[0])!r} has no images (names ending in "
            f"{', '.join(SUFFIXES)}); remove it, leave it out of classes, or give on_error='skip'"
        )
    labels = [label for label, files in enumerate(files_of) for _ in files]
    return names, tuple(file for files in files_of for file in files), labels


def _part(folder: ImageFolder, chosen: npt.NDArray[np.bool_], **changes: Any) -> ImageFolder:
    """A folder of some of these images, read in the same way but for ``changes``."""
    part = copy.copy(folder)
    files = tuple(file for file, taken in zip(folder.files, chosen.tolist(), strict=True) if taken)
    for name, value in {"files": files, "labels": folder.labels[chosen], **changes}.items():
        object.__setattr__(part, name, value)
    return part


def _converted(pixels: npt.NDArray[np.uint8], dtype: str) -> Array:
    if dtype == "uint8":
        # Pillow's pixels are not writable; an augmentation may well work in place.
        return pixels if pixels.flags.writeable else pixels.copy()
    return np.multiply(pixels, _UNIT, dtype=np.float32)


def _applied(augmentation: Any) -> TypeGuard[Applied]:
    # A framework's modules have methods of these names as well, which mean other things.
    return hasattr(augmentation, "parameters") and hasattr(augmentation, "apply") and not _owner(augmentation)


def _owner(augmentation: Any) -> str | None:
    """The backend whose framework an augmentation is a module of; None for what is no module."""
    try:
        return backend_name(augmentation)
    except InvalidInput:
        return None


def _check_augmentation(augmentation: Any) -> None:
    if owner := _owner(augmentation):
        get_backend(owner)[DATA].check_transform(augmentation)
        return
    if _applied(augmentation):
        return
    if not callable(augmentation):
        raise InvalidInput(f"augmentation must be an Augmentation or a function, not {augmentation!r}")
    try:
        signature = inspect.signature(augmentation)
    except (TypeError, ValueError):  # compiled functions need not have one
        return
    try:
        signature.bind(None, seed=0, epoch=0, index=0)
    except TypeError:
        name = getattr(augmentation, "__name__", type(augmentation).__name__)
        raise InvalidInput(
            f"augmentation is called as augmentation(image, seed=, epoch=, index=), and {name}{signature} has other "
            "arguments; wrap it in a function that uses this seed, or give an Augmentation"
        ) from None


def _shape(image: Any) -> str:
    return f"{getattr(image, 'shape', type(image).__name__)} {getattr(image, 'dtype', '')}".strip()
