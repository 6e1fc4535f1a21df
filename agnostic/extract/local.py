"""The local engine: reading, computing and writing at the same time, in one process."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from agnostic.augmentation.parallel import available
from agnostic.extract.inputs import Preparation
from agnostic.extract.looking import FirstBatch
from agnostic.extract.parts import PartWorker
from agnostic.extract.reading import batches
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
    coming = start + sum(len(x.names) for x in read)
    reading = batches(samples, preparation, coming, header.batch, workers or available(), worker.staged)
    with ThreadPoolExecutor(1, thread_name_prefix="agnostic-writing") as pool:
        written: Future[None] | None = None
        try:
            for part in worker.parts(itertools.chain(read, reading), header.shard // header.batch, done):
                if written is not None:
                    written.result()
                written = pool.submit(writer.write, part)
            if written is not None:
                written.result()
        finally:
            reading.close()
