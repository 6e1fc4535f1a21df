"""The batches of an image folder as torch's IterableDataset and DataLoader."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from agnostic.data.batches import Batches, Loaded
from agnostic.errors import InvalidInput


class ImageStream(IterableDataset[Any]):
    """The batches of an image folder as tensors; give it to a DataLoader with ``batch_size=None``.

    Images are (n, C, H, W), in torch's channels-last memory format, not copied; labels are int64 or float32. In several
    worker processes each reads every so-manieth batch, so a DataLoader gives the same batches in the same order for any
    number of them. The position moves in this process alone: with workers, use :class:`ImageLoader`.
    """

    def __init__(self, batches: Batches) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        for loaded in _share(self.batches):
            self.batches.advance(loaded)
            if len(loaded.images):
                yield _tensors(loaded)
        self.batches.finish()


class _Loads(IterableDataset[Loaded]):
    """The same with what each batch took beside it, for a loader that keeps the position itself."""

    def __init__(self, batches: Batches) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[Any]:
        for loaded in _share(self.batches):
            yield _tensors(loaded), len(loaded.images), loaded.stop, loaded.skipped


class ImageLoader(DataLoader[Any]):
    """The batches of an image folder as a DataLoader that can be resumed at the very next sample.

    Args:
        batches: what is loaded; its position moves with every batch that is handed out.
        **options: of DataLoader. ``num_workers`` 0, the default: the threads of ``batches`` read; more: as many
            processes do, each by itself.

    Raises:
        InvalidInput: an option that ``batches`` decides (batch size, order, sampler), or ``persistent_workers``, whose
            processes would not learn of a new position.
    """

    def __init__(self, batches: Batches, **options: Any) -> None:
        for name in ("batch_size", "shuffle", "sampler", "batch_sampler", "drop_last", "collate_fn"):
            if name in options:
                raise InvalidInput(f"{name} is decided by the batches; give it to ImageFolder.batches()")
        if options.get("persistent_workers"):
            raise InvalidInput("persistent_workers would go on from an old position; leave it out")
        super().__init__(_Loads(batches), batch_size=None, collate_fn=_as_it_is, **options)
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        for tensors, count, stop, skipped in super().__iter__():
            self.batches.advance(Loaded(stop, np.empty(0), None, tuple(map(tuple, skipped))))
            if count:
                yield tensors
        self.batches.finish()

    def state_dict(self) -> dict[str, Any]:
        """See :meth:`agnostic.data.Batches.state_dict`; what worker processes read ahead does not count."""
        return self.batches.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See :meth:`agnostic.data.Batches.load_state_dict`."""
        self.batches.load_state_dict(state)


def _share(batches: Batches) -> Iterator[Loaded]:
    """What this process reads: everything, or in a worker every so-manieth batch."""
    spans = batches.spans()
    worker = get_worker_info()
    if worker is None:
        return batches.produce(batches.epoch, spans)
    return batches.produce(batches.epoch, spans[worker.id :: worker.num_workers], workers=0)


def _tensors(loaded: Loaded) -> Any:
    images = torch.from_numpy(loaded.images).permute(0, 3, 1, 2)
    return images if loaded.labels is None else (images, torch.from_numpy(loaded.labels))


def _as_it_is(batch: Any) -> Any:
    return batch
