"""The engine for clusters: workers of Ray compute parts and write their shards; this process commits them in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from agnostic.cluster import Task, own_cores, workers
from agnostic.extract.inputs import Preparation
from agnostic.extract.parts import ComputedPart, PartWorker
from agnostic.extract.reading import ReadBatch, batches
from agnostic.extract.samples import SampleSource
from agnostic.extract.store import RowWriter, StoreWriter
from agnostic.registry import Model
from agnostic.taps.stores import StoreHeader, zarr_package


def run_on_cluster(
    model: Model,
    samples: SampleSource,
    preparation: Preparation,
    writer: StoreWriter,
    count: int | None,
    done: Callable[[int], None],
    address: str | None,
) -> None:
    """Compute and write all parts that are not in the store.

    Args:
        model: a native model, which is sent to every worker once.
        samples, preparation: what it runs on. A data set that is read by position is read by the workers; any other is
            read here.
        writer: of the store, which the workers reach under the same path or URL.
        count: of processes; None: one for each GPU of the cluster, or for each processor where it has no GPU.
        done: called with the number of samples of each part.
        address: of the cluster; None: the one that runs already, or a local one.

    Raises:
        InvalidInput: a part ended its worker several times; or what a worker raised.
        MissingDependency: ray is not installed.
    """
    given = (model, replace(samples, iterate=None), preparation, writer.header, writer.where)
    spare = 0 if samples.read is not None else 1  # what is read here may come from tasks of the same cluster
    with workers(_PartMaker, given, count, address, spare) as pool:
        for part in pool.results(_tasks(samples, preparation, writer)):
            writer.commit(part)
            done(len(part.names))


# The parts -----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Part:
    """A part: the position of its first sample and that after its last, and its batches if they are read here."""

    start: int
    stop: int
    read: tuple[ReadBatch, ...] | None = None


def _tasks(samples: SampleSource, preparation: Preparation, writer: StoreWriter) -> Iterator[Task]:
    """The parts that are not in the store, in order."""
    start, shard, size = writer.checkpoint.samples, writer.header.shard, writer.header.batch
    if samples.read is not None:
        assert samples.count is not None
        for first in range(start, samples.count, shard):
            yield _task(_Part(first, min(first + shard, samples.count)))
        return
    reading = batches(samples, preparation, start, size, 1)
    group: list[ReadBatch] = []
    try:
        for batch in reading:
            group.append(batch)
            if len(group) == shard // size:
                yield _read_here(group, writer)
                group = []
        if group:
            yield _read_here(group, writer)
    finally:
        reading.close()


def _read_here(group: list[ReadBatch], writer: StoreWriter) -> Task:
    stop = group[-1].start + len(group[-1].names)
    writer.reserve(stop)  # before a worker writes there
    return _task(_Part(group[0].start, stop, tuple(group)))


def _task(part: _Part) -> Task:
    return Task(f"samples {part.start} to {part.stop - 1}", part)


# In a worker ---------------------------------------------------------------------------------------------------------
class _PartMaker:
    """Holds the model, reads and computes parts, and writes their rows."""

    def __init__(
        self, model: Model, samples: SampleSource, preparation: Preparation, header: StoreHeader, where: str
    ) -> None:
        self._samples, self._preparation, self._header = samples, preparation, header
        self._worker = PartWorker(model, preparation, header)
        self._threads = own_cores()
        self._rows = RowWriter(zarr_package().open_group(where, mode="r+", zarr_format=3), where)

    def __call__(self, part: _Part) -> ComputedPart:
        """Compute a part and write its rows; what is left of it goes to the process that commits."""
        header, worker = self._header, self._worker
        if part.read is None:
            read: Iterator[ReadBatch] = batches(
                self._samples, self._preparation, part.start, header.batch, self._threads, worker.staged, part.stop
            )
        else:
            read = map(worker.staged, part.read)
        (found,) = worker.parts(read, header.shard // header.batch)
        self._rows.put_part(found)
        return replace(found, rows={})
