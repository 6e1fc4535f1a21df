"""Independent pieces of work, an image each, over the processor's cores."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from agnostic.opencv import opencv

_MOST = 16


def available() -> int:
    """How many threads work: those that OpenCV was given, so that ``cv2.setNumThreads`` rules both; else the cores."""
    cv2 = opencv()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores if cv2 is None else cv2.getNumThreads(), _MOST))


def each(work: Callable[[int], object], count: int) -> None:
    """Call ``work(0)`` .. ``work(count - 1)``, in threads, each taking the next that nobody has taken.

    The threads live as long as the call: nothing is left behind that a forked process would wait for in vain. An error
    stops the rest and is raised; of several, the one with the lowest index.
    """
    workers = min(available(), count)
    if workers < 2:
        for k in range(count):
            work(k)
        return
    # `next` of a counter is one step under Python's lock.
    coming = itertools.count()
    errors: list[tuple[int, BaseException]] = []

    def take() -> None:
        while not errors and (k := next(coming)) < count:
            try:
                work(k)
            except BaseException as error:  # noqa: BLE001 - raised below, where it can be seen
                errors.append((k, error))

    with ThreadPoolExecutor(workers - 1, thread_name_prefix="agnostic-augmentation") as pool:
        for _ in range(workers - 1):
            pool.submit(take)
        # This thread takes its share: a new one in its stead would begin on a core that is busy already.
        take()
    if errors:
        raise min(errors, key=lambda entry: entry[0])[1]
