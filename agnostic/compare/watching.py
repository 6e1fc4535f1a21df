"""How far a recording or a comparison is, for whoever shows it: also when another process does it."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar

Watch = Callable[[str, int, int], None]
"""Called with what is done, the number of its steps so far, and about how many there will be."""

EVERY = 0.1
"""Seconds between two reports of a process."""

_watch: ContextVar[Watch | None] = ContextVar("watch", default=None)


@contextlib.contextmanager
def watched(watch: Watch | None) -> Iterator[None]:
    """Inside, it is called while models run; also for those that run in another process."""
    token = _watch.set(watch)
    try:
        yield
    finally:
        _watch.reset(token)


def watching() -> Watch | None:
    """Who watches now."""
    return _watch.get()


class StepCounter:
    """Counts the steps of one thing that is done, such as the operators of one replay."""

    def __init__(self, total: int) -> None:
        self._done, self._total = 0, total

    def count(self) -> None:
        """One more."""
        self._done += 1
        if (watch := watching()) is not None:
            watch("", self._done, max(self._done, self._total))


def sender(descriptor: int) -> Watch:
    """Reports to a pipe, a line at a time, some times a second."""
    last = 0.0

    def send(what: str, done: int, total: int) -> None:
        nonlocal last
        if (now := time.monotonic()) - last >= EVERY:
            last = now
            with contextlib.suppress(OSError):  # the reader has left
                os.write(descriptor, f"{done} {total}\n".encode())

    return send


@contextlib.contextmanager
def receiver(what: str) -> Iterator[int | None]:
    """A pipe whose reports go to whoever watches here; None where nobody does."""
    watch = watching()
    if watch is None:
        yield None
        return
    here, there = os.pipe()

    def pass_on() -> None:
        with os.fdopen(here) as lines:
            for line in lines:
                done, total = map(int, line.split())
                watch(what, done, total)

    thread = threading.Thread(target=pass_on, name="agnostic-progress", daemon=True)
    thread.start()
    try:
        yield there
    finally:
        os.close(there)
        thread.join(timeout=5)
