"""SIGINT and SIGTERM in the process of the command line: no signal is lost, none leaves a file behind.

While a command runs, a signal unwinds it by an exception, so that terminals and files are put right. Before and after,
there is nothing to unwind, and the process ends on the spot. In both cases its exit code is 128 plus the signal's
number.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def install() -> None:
    """Let signals end this process on the spot until it has ended; called once, as early as possible."""
    _handle(_leave)
    # Registered first, so called last. What remains is Python's own end, during which it gives the signals back to the
    # system, which would end the process by them although the command is done.
    atexit.register(_handle, signal.SIG_IGN)


@contextmanager
def unwinding() -> Iterator[None]:
    """Let signals unwind the block: SIGINT by KeyboardInterrupt, SIGTERM by SystemExit."""
    if threading.current_thread() is not threading.main_thread():  # only there can signals be handled
        yield
        return
    before = {number: signal.getsignal(number) for number in (*_SIGNALS, signal.SIGALRM)}
    hook = sys.unraisablehook

    def again(unraisable: Any) -> None:
        # An exception that is raised while an object is finalized, or in a callback of a weak reference (of which the
        # import of a framework has thousands), is printed and forgotten. The signal is sent once more, a bit later.
        if isinstance(unraisable.exc_value, KeyboardInterrupt | SystemExit):
            number = signal.SIGINT if isinstance(unraisable.exc_value, KeyboardInterrupt) else signal.SIGTERM
            signal.signal(signal.SIGALRM, lambda alarm, frame: os.kill(os.getpid(), number))
            signal.setitimer(signal.ITIMER_REAL, 0.001)
        else:
            hook(unraisable)

    try:
        sys.unraisablehook = again
        _handle(_unwind)
        yield
    finally:
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)


def _handle(handler: Callable[[int, FrameType | None], Any] | signal.Handlers) -> None:
    for number in _SIGNALS:
        # A shell's background job ignores SIGINT, and nohup's kind of program others; that is the user's will.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def _unwind(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    _handle(signal.SIG_IGN)
    if (temporary := sys.modules.get("agnostic.temporary")) is not None:
        temporary.remove_held()
    if number == signal.SIGINT:
        os.write(2, b"agnostic: interrupted\n")
    os._exit(128 + number)
