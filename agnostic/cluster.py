"""Work on the processes of a Ray cluster: tasks in their order, and those of a process that died again."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from agnostic.errors import AgnosticError, InvalidInput, MissingDependency
from agnostic.text import counted

ENGINES = ("local", "ray")
"""Who computes: this process, or those of a Ray cluster."""


def check_address(engine: str, address: str | None) -> None:
    """Raise InvalidInput for the address of a cluster that nobody asked."""
    if address is not None and engine != "ray":
        raise InvalidInput(f"the address {address!r} is for the engine 'ray': choose that, or leave out the address")


_AHEAD = 2
"""Tasks that wait for each worker, or for one before them."""
_MOST_TRIES = 3


@dataclass(frozen=True)
class Task:
    """What one worker does at once.

    Attributes:
        name: for messages: a noun in the plural, such as "samples 8 to 11".
        work: what the worker's function is called with.
    """

    name: str
    work: Any


@contextmanager
def workers(
    make: Callable[..., Callable[[Any], Any]],
    given: tuple[Any, ...],
    count: int | None,
    address: str | None,
    spare: int = 0,
) -> Iterator[Workers]:
    """Processes of a cluster, which end with the block.

    Args:
        make: called once in each process, with ``given``, for the function that does its tasks.
        given: sent to each process once.
        count: of processes; None: one for each GPU of the cluster, or for each processor where it has no GPU.
        address: of the cluster; None: the one that runs already, or a local one.
        spare: processors that are left for other tasks of this program.

    Raises:
        InvalidInput: there is no such cluster.
        MissingDependency: ray is not installed.
    """
    ray = _package()
    with _connected(ray, address):
        resources = ray.cluster_resources()
        gpus, cores = int(resources.get("GPU", 0)), int(resources.get("CPU", 1))
        number = count or gpus or max(1, cores - spare)
        # Workers that reserve every processor would let other tasks wait for ever.
        reserved = 1 if not spare or number + spare <= cores else 0
        options = {"num_cpus": reserved, "num_gpus": 1 if gpus else 0, "max_restarts": 0}
        pool = Workers(ray, ray.remote(**options)(_Worker), ray.put((make, given)), number)
        try:
            yield pool
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
    except Exception as error:  # noqa: BLE001 - Ray raises this very class where its processes take too long to start
        which = "start a local Ray cluster" if address is None else f"connect to the Ray cluster {address!r}"
        advice = "" if address is None else "; if it asks for a token, set RAY_AUTH_MODE=token here as well"
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InvalidInput(f"cannot {which} ({reason}){advice}") from None
    try:
        yield
    finally:
        ray.shutdown()


def own_cores() -> int:
    """The cores for one worker, in it: on a node with GPUs those for each GPU, else one."""
    ray = _package()
    here = ray.get_runtime_context().get_node_id()
    has = next(node["Resources"] for node in ray.nodes() if node["NodeID"] == here)
    gpus = int(has.get("GPU", 0))
    return max(1, int(has.get("CPU", 1)) // gpus) if gpus else 1


class _Worker:
    """An actor."""

    def __init__(self, made: tuple[Callable[..., Callable[[Any], Any]], tuple[Any, ...]]) -> None:
        make, given = made
        self._function = make(*given)

    def ready(self) -> None:
        """Return once it is made."""

    def do(self, work: Any) -> Any:
        return self._function(work)


class Workers:
    """Actors, and the tasks that they are doing.

    A task is given to an actor that runs: one that takes the place of a lost machine's may wait for ever to start.

    Attributes:
        count: of the actors.
    """

    def __init__(self, ray: Any, actor: Any, made: Any, count: int) -> None:
        self._ray, self._actor, self._made, self.count = ray, actor, made, count
        self._starting: dict[Any, Any] = {}
        self._idle: list[Any] = []
        self._busy: dict[Any, tuple[Any, int, Task]] = {}
        self._failed_starts = 0

    def results(self, tasks: Iterable[Task]) -> Iterator[Any]:
        """What each task gave, in their order; each is done by the first worker that is free.

        Raises:
            InvalidInput: a task ended several workers, or none starts.
            AgnosticError: what a worker raised: where its task stands in the order, whichever worker was faster.
        """
        coming = enumerate(tasks)
        order: deque[int] = deque()
        ready: dict[int, Any] = {}
        waiting: deque[tuple[int, Task]] = deque()
        tries: dict[int, int] = {}
        while True:
            while len(order) < self.count * _AHEAD and (following := next(coming, None)) is not None:
                order.append(following[0])
                waiting.append(following)
            if not order:
                return
            self._give(waiting)
            ended = self._ended()
            if ended is None:
                continue
            number, task, died, result = ended
            if died:
                tries[number] = tries.get(number, 0) + 1
                if tries[number] < _MOST_TRIES:
                    waiting.appendleft((number, task))
                    continue
                result = InvalidInput(
                    f"{task.name} ended their worker {counted(_MOST_TRIES, 'time')}: give fewer workers, or less for "
                    "each to do at once"
                )
            ready[number] = result
            while order and order[0] in ready:
                found = ready.pop(order.popleft())
                if isinstance(found, AgnosticError):
                    raise found
                yield found

    def _give(self, waiting: deque[tuple[int, Task]]) -> None:
        """Give tasks to the workers that are free, and start others for what is left."""
        while waiting and self._idle:
            (number, task), worker = waiting.popleft(), self._idle.pop()
            self._busy[worker.do.remote(task.work)] = worker, number, task
        while (
            self._failed_starts < _MOST_TRIES
            and len(self._starting) < len(waiting)
            and len(self._starting) + len(self._busy) < self.count
        ):
            worker = self._actor.remote(self._made)
            self._starting[worker.ready.remote()] = worker

    def _ended(self) -> tuple[int, Task, bool, Any] | None:
        """The next task that has ended, whether its worker died, and its result or what the worker refused.

        None where a worker started instead.
        """
        ray = self._ray
        died = ray.exceptions.RayActorError, ray.exceptions.WorkerCrashedError
        (reference, *_), _ = ray.wait([*self._busy, *self._starting], num_returns=1)
        if reference in self._starting:
            worker = self._starting.pop(reference)
            try:
                ray.get(reference)
            except died as error:
                self._failed_starts += 1
                # Where others work, their tasks go on: a machine that is lost takes all that start on it.
                if self._failed_starts >= _MOST_TRIES and not self._busy and not self._starting:
                    reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
                    raise InvalidInput(
                        f"{counted(self._failed_starts, 'worker')} ended while they started ({reason})"
                    ) from None
            else:
                self._failed_starts = 0
                self._idle.append(worker)
            return None
        worker, number, task = self._busy.pop(reference)
        self._failed_starts = 0  # others are tried again
        try:
            found = ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            if not isinstance(error.cause, AgnosticError):
                raise
            found = error.cause
        except died:
            return number, task, True, None
        self._idle.append(worker)
        return number, task, False, found

    def close(self) -> None:
        """End the workers."""
        for worker in [*self._idle, *self._starting.values(), *(worker for worker, _, _ in self._busy.values())]:
            self._ray.kill(worker, no_restart=True)
