"""The local engine: reading, computing and writing at the same time, in one process."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from agnostic.augmentation.parallel import available
from agnostic.extract.inputs import Preparation
from agnostic.extract.looking import FirstBatch
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
    first: FirstBatch | None,
) -> None:
    """Compute and write all parts that are not in the store.

    Args:
        model: a native model.
        samples, preparation: what it runs on.
        writer: of the store.
        workers: threads that read; None: one for each core.
        done: called with the number of samples of each batch.
        first: the first batch of a new store, which the model ran on.
    """
    header, start = writer.header, writer.checkpoint.samples
    if first is None:
        worker, read = PartWorker(model, preparation, header), []
    else:
        worker, read = PartWorker(model, preparation, header, first.forward, first.take), [first.batch]
    reading = batches(
        samples, preparation, start + sum(len(x.names) for x in read), header.batch, workers or available()
    )
    with ThreadPoolExecutor(1, thread_name_prefix="agnostic-writing") as pool:
        written: Future[None] | None = None
        try:
            for group in _grouped(itertools.chain(read, reading), header.shard // header.batch):
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
