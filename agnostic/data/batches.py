"""Batches of an image folder: read ahead by threads, the same for any number of threads, resumable at any sample.

Threads, not processes: decoding, resizing and warping release Python's lock, nothing is pickled, and a batch is written
once, into its place. Memory holds the current batch and a fixed number of later ones.
"""

from __future__ import annotations

import itertools
import os
import warnings
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from agnostic import display
from agnostic.checks import whole_number
from agnostic.data.images import UnreadableFile
from agnostic.errors import InvalidInput
from agnostic.registry import view, view_method
from agnostic.text import counted

Array = npt.NDArray[Any]

_AHEAD = 2
"""Batches that are being read while one is used."""

Span = tuple[int, int]
"""Start and end position in the order of an epoch."""


class Samples(Protocol):
    """The data source of batches: see the attributes and methods of :class:`agnostic.data.ImageFolder`."""

    @property
    def directory(self) -> str | os.PathLike[str]: ...
    @property
    def files(self) -> Sequence[str]: ...
    @property
    def size(self) -> tuple[int, int] | None: ...
    @property
    def channels(self) -> int: ...
    @property
    def dtype(self) -> str: ...
    @property
    def on_error(self) -> str: ...
    @property
    def empty_classes(self) -> Sequence[str]: ...
    def __len__(self) -> int: ...
    def sample(self, index: int, *, seed: int, epoch: int) -> Array: ...
    def sample_into(self, out: Array, index: int, seed: int, epoch: int) -> None: ...
    def targets(self, indices: npt.NDArray[np.int64]) -> Array | None: ...
    def digest(self) -> str: ...


class SkippedFiles(UserWarning):
    """A warning with the files that an epoch skipped, and the reasons.

    Example:
        >>> import warnings
        >>> warnings.simplefilter("error", ag.data.SkippedFiles)  # fail where on_error="skip" would only warn
    """


@dataclass(frozen=True, repr=False)
class Loaded:
    """A batch and its position.

    Attributes:
        stop: the position in the epoch after this batch.
        images: (n, H, W, C); n may be smaller than the span, and 0, where files were skipped.
        labels: in the form of the folder's ``class_mode``; None where that is None.
        skipped: (file, reason) of the files left out.
    """

    stop: int
    images: Array
    labels: Array | None
    skipped: tuple[tuple[str, str], ...] = ()

    def __repr__(self) -> str:
        arrays = f"images {display.described(self.images)}, labels {display.described(self.labels)}"
        return f"<Loaded: {arrays}, {counted(len(self.skipped), 'file')} left out>"

    @property
    def batch(self) -> Any:
        """``(images, labels)``, or only the images."""
        return self.images if self.labels is None else (self.images, self.labels)


class Batches:
    """The batches of a folder, an epoch at a time.

    ``for images, labels in batches`` reads the rest of the epoch; the next such loop is the next epoch. After a loop
    that ended early, the next one continues with the next sample. So does another process that loads
    :meth:`state_dict`.

    Images are (n, H, W, C) in the folder's dtype; without labels (``class_mode=None``) only images are returned. The
    order of an epoch depends on the seed, the epoch and the number of files; the pixels also on the image's index, and
    on nothing else.

    Args:
        folder, batch_size, seed, shuffle, workers, drop_last: see :meth:`agnostic.data.ImageFolder.batches`.

    Attributes:
        epoch: the epoch that the next batch belongs to, from 0.
        position: number of its samples that were returned.
        skipped: (file, reason) of the files skipped in it so far.

    Raises:
        InvalidInput: an argument is out of its range.

    Example:
        >>> batches = ag.data.ImageFolder("photos", size=(8, 8)).batches(4, seed=0)
        >>> [images.shape for images, labels in batches]
        [(4, 8, 8, 3), (2, 8, 8, 3)]
        >>> batches.epoch
        1
    """

    def __init__(
        self,
        folder: Samples,
        batch_size: int = 32,
        *,
        seed: int = 0,
        shuffle: bool = True,
        workers: int = 2,
        drop_last: bool = False,
    ) -> None:
        self.folder = folder
        self.batch_size = whole_number("batch_size", batch_size, 1)
        self.seed = whole_number("seed", seed)
        self.workers = whole_number("workers", workers)
        self.shuffle = bool(shuffle)
        self.drop_last = bool(drop_last)
        self.epoch = 0
        self.position = 0
        self.skipped: list[tuple[str, str]] = []

    def __repr__(self) -> str:
        images = counted(len(self.folder), "image")
        return f"<Batches of {self.batch_size} from {images}: epoch {self.epoch}, {self.position} returned>"

    def __len__(self) -> int:
        """Batches in a whole epoch."""
        return len(self.spans(0))

    def __iter__(self) -> Iterator[Any]:
        for loaded in self.produce(self.epoch, self.spans()):
            self.advance(loaded)
            if len(loaded.images):
                yield loaded.batch
        self.finish()

    # Position -----------------------------------------------------------------------------------------------------
    def order(self, epoch: int) -> npt.NDArray[np.int64]:
        """(n,) The images of an epoch in its order.

        Args:
            epoch: from 0.

        Returns:
            (n,) int64 indices into the folder's files.
        """
        n = len(self.folder)
        if not self.shuffle:
            return np.arange(n)
        return np.random.default_rng([self.seed, epoch]).permutation(n)

    def spans(self, start: int | None = None) -> list[Span]:
        """The batches of an epoch from position ``start`` on; None: from where it stands.

        Args:
            start: a position in the epoch, 0 .. number of images; None: the present one.

        Returns:
            (first position, position after the last) of each batch.
        """
        n, step = len(self.folder), self.batch_size
        starts = range(self.position if start is None else start, n, step)
        return [(a, min(a + step, n)) for a in starts if not self.drop_last or a + step <= n]

    def advance(self, loaded: Loaded) -> None:
        """Note that this batch was returned.

        Args:
            loaded: the batch.
        """
        self.position = loaded.stop
        self.skipped += loaded.skipped

    def finish(self) -> None:
        """End the epoch: report skipped files, and start the next one."""
        skipped, self.skipped = self.skipped, []
        self.epoch, self.position = self.epoch + 1, 0
        self.report(skipped)

    def report(self, skipped: Sequence[tuple[str, str]]) -> None:
        """Warn once of the files and the empty class folders that an epoch left out, if it left out any.

        Args:
            skipped: (file, reason) of each file that was left out.
        """
        empty = self.folder.empty_classes
        parts = []
        if skipped:
            shown = "; ".join(reason for _, reason in skipped[:5]) + ("; ..." if len(skipped) > 5 else "")
            parts.append(f"skipped {len(skipped)} of {counted(len(self.folder), 'file')}: {shown}")
        if empty:
            parts.append(f"no images in the class folders {', '.join(map(repr, empty))}")
        if parts:
            warnings.warn("; ".join(parts), SkippedFiles, stacklevel=2)

    def state_dict(self) -> dict[str, Any]:
        """The position as JSON values: it counts returned batches, not those read ahead.

        Returns:
            A dict for :meth:`load_state_dict`.

        Example:
            >>> batches = ag.data.ImageFolder("photos", size=(8, 8)).batches(4, seed=0)
            >>> _ = next(iter(batches))
            >>> state = batches.state_dict()
            >>> other = ag.data.ImageFolder("photos", size=(8, 8)).batches(4)
            >>> other.load_state_dict(state)
            >>> other.position
            4
        """
        return {
            "version": 1,
            "epoch": self.epoch,
            "position": self.position,
            "seed": self.seed,
            "shuffle": self.shuffle,
            "files": self.folder.digest(),
            "skipped": [list(pair) for pair in self.skipped],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to a saved position. Seed and order become those of the state; the batch size may differ.

        Args:
            state: what :meth:`state_dict` returned.

        Raises:
            InvalidInput: it is not a state, or the files of the folder have changed.
        """
        try:
            version, epoch, position = (state[key] for key in ("version", "epoch", "position"))
            seed, shuffle, files = (state[key] for key in ("seed", "shuffle", "files"))
            skipped = [(str(file), str(reason)) for file, reason in state["skipped"]]
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidInput(
                f"this is not a state of image batches ({error!r}); give the result of state_dict()"
            ) from None
        if version != 1:
            raise InvalidInput(f"the state has version {version!r}, and version 1 is known; a newer agnostic wrote it")
        if files != self.folder.digest():
            raise InvalidInput(
                f"the folder {str(self.folder.directory)!r} has other files than when the state was saved, "
                "so its position has no meaning"
            )
        integers = all(type(value) is int and value >= 0 for value in (epoch, position, seed))
        if not integers or position > len(self.folder):
            raise InvalidInput(
                f"the state is at epoch {epoch!r}, position {position!r} of {counted(len(self.folder), 'file')}"
            )
        self.epoch, self.position, self.seed, self.shuffle = epoch, position, seed, bool(shuffle)
        self.skipped = skipped

    # Reading ------------------------------------------------------------------------------------------------------
    def load(self, epoch: int, span: Span) -> Loaded:
        """Read one batch of any epoch now.

        Args:
            epoch: from 0.
            span: one of :meth:`spans`.

        Returns:
            The batch, with the files that were left out.
        """
        return next(self.produce(epoch, [span], workers=0))

    def produce(self, epoch: int, spans: Sequence[Span], workers: int | None = None) -> Iterator[Loaded]:
        """Read these batches of an epoch, ahead by ``workers`` threads; the position is not touched.

        Args:
            epoch: from 0.
            spans: of the batches, as :meth:`spans` gives them.
            workers: threads that read ahead; 0: read on demand; None: the setting of the batches.

        Returns:
            The batches in the order of ``spans``.
        """
        workers = self.workers if workers is None else workers
        order = self.order(epoch)
        if not workers:
            for span in spans:
                pending = _Pending(self, epoch, order, span)
                for place in range(len(pending.indices)):
                    pending.read(place)
                yield pending.loaded()
            return
        pool = ThreadPoolExecutor(workers, thread_name_prefix="agnostic-images")
        waiting: deque[tuple[_Pending, list[Future[None]]]] = deque()
        coming = iter(spans)
        try:
            while True:
                for span in itertools.islice(coming, _AHEAD + 1 - len(waiting)):
                    pending = _Pending(self, epoch, order, span)
                    places = range(len(pending.indices))
                    waiting.append((pending, [pool.submit(pending.read, place) for place in places]))
                if not waiting:
                    return
                pending, futures = waiting.popleft()
                for future in futures:
                    future.result()
                yield pending.loaded()
        finally:
            pool.shutdown(cancel_futures=True)

    # Views --------------------------------------------------------------------------------------------------------
    def view(self, name: str, **options: Any) -> Any:
        """These batches as a framework's data set; ``view("dataloader")`` is ``dataloader()``.

        The backends provide the views:

        - ``torch()``: a ``torch.utils.data.IterableDataset`` of (n, C, H, W) tensors.
        - ``dataloader(**options)``: a ``torch.utils.data.DataLoader`` with ``state_dict`` and ``load_state_dict``;
          options are of DataLoader, such as ``num_workers`` (0: the threads of these batches read) and ``pin_memory``.
        - ``keras(**options)``: a ``keras.utils.PyDataset`` of an epoch, for ``model.fit(dataset, epochs=...)``; options
          are of PyDataset, such as ``workers``. InvalidInput where the epoch has begun already: an epoch of Keras has
          one length.
        - ``keras_stream(**options)``: a PyDataset, epoch after epoch without end, from the next sample on:
          ``stream = batches.keras_stream()``, ``model.fit(stream, steps_per_epoch=len(batches),
          callbacks=[stream.callback()])``. The callback moves the position with every trained batch.

        Args:
            name: of the view.
            **options: of the view.

        Returns:
            A data set of the framework.

        Raises:
            UnknownName: no registered backend has such a view.

        Example:
            >>> loader = ag.data.ImageFolder("photos", size=(8, 8)).batches(4, seed=0).dataloader()
            >>> next(iter(loader))[0].shape
            torch.Size([4, 3, 8, 8])
        """
        return view("batches", name)(self, **options)

    def __getattr__(self, name: str) -> Any:
        return view_method(self, "batches", name)


class _Pending:
    """A batch that one or several threads are reading, one place each."""

    def __init__(self, batches: Batches, epoch: int, order: npt.NDArray[np.int64], span: Span) -> None:
        self.folder, self.seed, self.epoch = batches.folder, batches.seed, epoch
        self.stop = span[1]
        self.indices = order[span[0] : span[1]]
        self.images: list[Array | None] = [None] * len(self.indices)
        self.out: Array | None = None
        if self.folder.size is not None:
            self.out = np.empty((len(self.indices), *self.folder.size, self.folder.channels), self.folder.dtype)
        self.reasons: dict[int, str] = {}

    def read(self, place: int) -> None:
        index = int(self.indices[place])
        try:
            if self.out is not None:
                self.folder.sample_into(self.out[place], index, self.seed, self.epoch)
            else:
                self.images[place] = self.folder.sample(index, seed=self.seed, epoch=self.epoch)
        except UnreadableFile as error:
            if self.folder.on_error == "raise":
                raise
            self.reasons[place] = str(error)

    def loaded(self) -> Loaded:
        skipped = tuple((self.folder.files[self.indices[place]], self.reasons[place]) for place in sorted(self.reasons))
        kept = [place for place in range(len(self.indices)) if place not in self.reasons]
        indices = self.indices[kept] if skipped else self.indices
        if self.out is not None:
            images = self.out[kept] if skipped else self.out
        else:
            images = self._stacked(kept)
        return Loaded(self.stop, images, self.folder.targets(indices), skipped)

    def _stacked(self, kept: list[int]) -> Array:
        images = [image for place in kept if (image := self.images[place]) is not None]
        if not images:
            return np.empty((0, 0, 0, self.folder.channels), self.folder.dtype)
        for place, image in zip(kept, images, strict=False):
            if image.shape != images[0].shape:
                first, other = (self.folder.files[self.indices[p]] for p in (kept[0], place))
                raise InvalidInput(
                    f"images of one batch need one size: {first!r} is {images[0].shape[:2]}, {other!r} is "
                    f"{image.shape[:2]}; give size=(height, width)"
                )
        return np.stack(images)
