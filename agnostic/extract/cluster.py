"""The engine for clusters: workers of Ray compute parts and write their shards; this process commits them in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from agnostic.errors import AgnosticError, InvalidInput, MissingDependency
from agnostic.extract.inputs import Preparation
from agnostic.extract.parts import ComputedPart, PartWorker
from agnostic.extract.reading import ReadBatch, batches, read_batch
from agnostic.extract.samples import SampleSource
from agnostic.extract.store import RowWriter, StoreWriter
from agnostic.registry import Model
from agnostic.taps.stores import StoreHeader, zarr_package
from agnostic.text import counted

_AHEAD = 2
"""Parts that wait for each worker, or for one before them."""
_MOST_TRIES = 3


def run_on_cluster(
    model: Model,
    samples: SampleSource,
    preparation: Preparation,
    writer: StoreWriter,
    workers: int | None,
    done: Callable[[int], None],
    address: str | None,
) -> None:
    """Compute and write all parts that are not in the store.

    Args:
        model: a native model, which is sent to every worker once.
        samples, preparation: what it runs on. A data set that is read by position is read by the workers; any other is
            read here.
        writer: of the store, which the workers reach under the same path or URL.
        workers: processes; None: one for each GPU of the cluster, or for each processor where it has no GPU.
        done: called with the number of samples of each part.
        address: of the cluster; None: the one that runs already, or a local one.

    Raises:
        InvalidInput: a part ended its worker several times; or what a worker raised.
        MissingDependency: ray is not installed.
    """
    ray = _package()
    with _connected(ray, address):
        resources = ray.cluster_resources()
        gpus = int(resources.get("GPU", 0))
        count = workers or gpus or max(1, int(resources.get("CPU", 1)))
        options = {"num_cpus": 1, "num_gpus": 1 if gpus else 0, "max_restarts": 0}
        given = ray.put((model, replace(samples, iterate=None), preparation, writer.header, writer.where))
        pool = _Pool(ray, ray.remote(**options)(_ClusterWorker), given, count)
        try:
            for part in pool.computed(_tasks(samples, preparation, writer)):
                writer.commit(part)
                done(len(part.names))
        finally:
            pool.close()


def _package() -> Any:
    try:
        import ray
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise MissingDependency("engine='ray' needs the package ray: pip install 'agnostic-ml[cluster]'") from None
    return ray


@contextmanager
def _connected(ray: Any, address: str | None) -> Iterator[None]:
    """Inside, this process is connected to a cluster; one that it started ends with the block."""
    if ray.is_initialized():
        yield
        return
    try:
        ray.init(address, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise InvalidInput(f"cannot connect to the Ray cluster {address!r} ({str(error).splitlines()[0]})") from None
    try:
        yield
    finally:
        ray.shutdown()


# The parts -----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Task:
    """A part: the position of its first sample and that after its last, and its batches if they are read here."""

    start: int
    stop: int
    read: tuple[ReadBatch, ...] | None = None


def _tasks(samples: SampleSource, preparation: Preparation, writer: StoreWriter) -> Iterator[_Task]:
    """The parts that are not in the store, in order."""
    start, shard, size = writer.checkpoint.samples, writer.header.shard, writer.header.batch
    if samples.read is not None:
        assert samples.count is not None
        for first in range(start, samples.count, shard):
            yield _Task(first, min(first + shard, samples.count))
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


def _read_here(group: list[ReadBatch], writer: StoreWriter) -> _Task:
    stop = group[-1].start + len(group[-1].names)
    writer.reserve(stop)  # before a worker writes there
    return _Task(group[0].start, stop, tuple(group))


# In a worker ---------------------------------------------------------------------------------------------------------
class _ClusterWorker:
    """An actor: holds the model, reads and computes parts, and writes their rows."""

    def __init__(self, given: tuple[Model, SampleSource, Preparation, StoreHeader, str]) -> None:
        model, self._samples, self._preparation, self._header, where = given
        self._worker = PartWorker(model, self._preparation, self._header)
        self._rows = RowWriter(zarr_package().open_group(where, mode="r+", zarr_format=3), where)

    def part(self, task: _Task) -> ComputedPart:
        """Compute a part and write its rows; what is left of it goes to the process that commits."""
        size = self._header.batch
        read = task.read or (
            read_batch(self._samples, self._preparation, first, min(first + size, task.stop))
            for first in range(task.start, task.stop, size)
        )
        found = self._worker.part(read)
        self._rows.put_part(found)
        return replace(found, rows={})


# Here ----------------------------------------------------------------------------------------------------------------
class _Pool:
    """Workers, and the parts that they are computing."""

    def __init__(self, ray: Any, actor: Any, given: Any, count: int) -> None:
        self._ray, self._actor, self._given = ray, actor, given
        self._idle: list[Any] = [self._actor.remote(given) for _ in range(count)]
        self._busy: dict[Any, tuple[Any, _Task]] = {}
        self._count = count

    def computed(self, tasks: Iterator[_Task]) -> Iterator[ComputedPart]:
        """The parts in their order, each computed by the first worker that is free; those of a dead worker again.

        An error is raised where its part stands in the order: all before it are done, whichever worker was faster.
        """
        order: deque[int] = deque()
        ready: dict[int, ComputedPart | AgnosticError] = {}
        waiting: deque[_Task] = deque()
        tries: dict[int, int] = {}
        while True:
            while len(order) < self._count * _AHEAD and (task := next(tasks, None)) is not None:
                order.append(task.start)
                waiting.append(task)
            if not order:
                return
            while self._idle and waiting:
                task, worker = waiting.popleft(), self._idle.pop()
                self._busy[worker.part.remote(task)] = worker, task
            task, result = self._ended()
            if result is not None:
                ready[task.start] = result
            else:
                tries[task.start] = tries.get(task.start, 0) + 1
                if tries[task.start] < _MOST_TRIES:
                    waiting.appendleft(task)
                    continue
                ready[task.start] = InvalidInput(
                    f"samples {task.start} to {task.stop - 1} ended their worker {counted(_MOST_TRIES, 'time')}: "
                    "give fewer workers, or a smaller batch_size"
                )
            while order and order[0] in ready:
                found = ready.pop(order.popleft())
                if isinstance(found, AgnosticError):
                    raise found
                yield found

    def _ended(self) -> tuple[_Task, ComputedPart | AgnosticError | None]:
        """The next part that has ended: its result, what the worker refused, or None where its worker died.

        In the place of a dead worker is a new one.
        """
        ray = self._ray
        (reference, *_), _ = ray.wait(list(self._busy), num_returns=1)
        worker, task = self._busy.pop(reference)
        try:
            found: ComputedPart = ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            if not isinstance(error.cause, AgnosticError):
                raise
            self._idle.append(worker)
            return task, error.cause
        except (ray.exceptions.RayActorError, ray.exceptions.WorkerCrashedError):
            self._idle.append(self._actor.remote(self._given))
            return task, None
        self._idle.append(worker)
        return task, found

    def close(self) -> None:
        """End the workers."""
        for worker in [*self._idle, *(worker for worker, _ in self._busy.values())]:
            self._ray.kill(worker, no_restart=True)
