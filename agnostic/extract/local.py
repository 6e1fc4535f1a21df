"""The local engine: reading, computing and writing at the same time, in one process."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from agnostic.augmentation.parallel import available
from agnostic.extract.inputs import Preparation
from agnostic.extract.parts import ComputedPart, PartWorker
from agnostic.extract.reading import ReadBatch, batches
from agnostic.extract.samples import SampleSource
from agnostic.extract.store import StoreWriter
from agnostic.registry import Model


def run_local(
    model: Model,
    samples: SampleSource,
    preparation: Preparation,
    writer: StoreWriter,
    workers: int | None,
    done: Callable[[int], None],
) -> None:
    """Compute and write all parts that are not in the store.

    Args:
        model: a native model.
        samples, preparation: what it runs on.
        writer: of the store.
        workers: threads that read; None: one for each core.
        done: called with the number of samples of each batch.
    """
    header = writer.header
    worker = PartWorker(model, preparation, header)
    reading = batches(samples, preparation, writer.checkpoint.samples, header.batch, workers or available())
    with ThreadPoolExecutor(1, thread_name_prefix="agnostic-writing") as pool:
        written: Future[None] | None = None
        try:
            for group in _grouped(reading, header.shard // header.batch):
                part: ComputedPart = worker.part(group, done)
                if written is not None:
                    written.result()
                written = pool.submit(writer.write, part)
            if written is not None:
                written.result()
        finally:
            reading.close()


def _grouped(reading: Iterator[ReadBatch], count: int) -> Iterator[Iterator[ReadBatch]]:
    """The batches of each part; each group is taken to its end before the next."""
    for first in reading:
        yield itertools.chain([first], itertools.islice(reading, count - 1))
