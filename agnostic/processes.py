"""Other processes of Python that work for this one: they find the same packages, and end when this one ends.

Whatever ends a process, also ``kill -9``, ends those that it started: the system sees to that on Linux; elsewhere the
other process reads from a pipe that nobody writes to, and that is closed when this process ends. The work of such a
process is written into folders of the one that started it, which therefore may end it at any moment.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agnostic import errors
from agnostic.errors import AgnosticError

_BY_PIPE = sys.platform != "linux"
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


@contextmanager
def started(
    code: str,
    arguments: Sequence[str] = (),
    *,
    flags: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
    **streams: Any,
) -> Iterator[subprocess.Popen[str]]:
    """A process that executes Python code; it is ended with the block, if it has not ended by then.

    It is of the thread that starts it: on Linux it ends with that thread.

    Args:
        code: what it executes.
        arguments: its ``sys.argv[1:]``.
        flags: options of the interpreter.
        environment: variables in addition to those of this process.
        pass_fds: descriptors that it inherits.
        streams: ``stdin``, ``stdout``, ``stderr`` as of :class:`subprocess.Popen`; text.
    """
    # Whatever made this process find its packages: the path may have been changed since it started.
    path = os.pathsep.join(dict.fromkeys([*map(os.path.abspath, filter(None, sys.path)), *_roots()]))
    ends = os.pipe() if _BY_PIPE else None
    first = f"from agnostic.processes import end_with; end_with({os.getpid()}, {None if ends is None else ends[0]})\n"
    try:
        process = subprocess.Popen(
            [sys.executable, *flags, "-c", first + code, *arguments],
            env={**os.environ, "PYTHONPATH": path, **(environment or {})}, text=True,
            pass_fds=[*pass_fds, *([] if ends is None else ends[:1])], **streams,
        )  # fmt: skip
        try:
            yield process
        finally:
            process.kill()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    stream.close()
            process.wait()
    finally:
        for end in ends or ():
            os.close(end)


def end_with(parent: int, pipe: int | None = None) -> None:
    """Let this process end when the one that started it ends; called by the other process, first of all.

    Ctrl-C, which a terminal sends to both, is left to the one that started this one.

    Args:
        parent: the identifier of the process that started this one.
        pipe: the end for reading of a pipe whose other end ``parent`` has; None where the system has a signal for it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if pipe is not None:
        threading.Thread(target=_end_with_pipe, args=(pipe,), name="agnostic-parent", daemon=True).start()
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it had ended before
        os.kill(os.getpid(), signal.SIGKILL)


def describe(error: AgnosticError | OSError) -> dict[str, Any]:
    """An error as JSON, for :func:`raise_described` in the process that started this one."""
    if isinstance(error, OSError) and not isinstance(error, AgnosticError):
        name = None if error.filename is None else os.fsdecode(error.filename)
        return {"error": "OSError", "message": [error.errno, error.strerror or str(error), name]}
    kind = next(c.__name__ for c in type(error).__mro__ if hasattr(errors, c.__name__))
    return {"error": kind, "message": str(error)}


def raise_described(answer: Mapping[str, Any]) -> None:
    """Raise the error that an answer describes, if it describes one."""
    if answer.get("error") == "OSError":
        raise OSError(*answer["message"])
    if "error" in answer:
        raise getattr(errors, answer["error"])(answer["message"])


def _end_with_pipe(pipe: int) -> None:
    os.read(pipe, 1)
    os.kill(os.getpid(), signal.SIGKILL)


def _roots() -> list[str]:
    """Where this package lies, and in a checkout its backends."""
    root = Path(__file__).resolve().parents[1]
    return [str(root), *([str(root / "backends")] if (root / "backends").is_dir() else [])]
