"""Silence the messages of libraries while a command runs, unless ``--debug`` is given."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from types import TracebackType
from typing import Any, TextIO

from agnostic.cli.common import say, say_lines
from agnostic.text import printable

# Modules whose warnings are meant for the user: ours, and the user's own file (see agnostic.models.load).
_OURS = r"_?agnostic"


@contextmanager
def libraries_silent(process: bool) -> Iterator[None]:
    """Keep back the warnings of others, their log records below an error, and what a backend names as its noise.

    Args:
        process: whether the command owns the process, and so its file descriptors.
    """
    from agnostic.registry import registrations

    added: dict[str, str] = {}
    for registration in registrations().values():
        added |= {name: value for name, value in registration.quiet.items() if name not in os.environ}
    level = logging.root.manager.disable
    os.environ.update(added)
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.filterwarnings("default", module=_OURS)
            warnings.showwarning = _show
            with records_printable(), standard_error_filtered() if process else nullcontext():
                yield
    finally:
        logging.disable(level)
        for name in added:
            os.environ.pop(name, None)


@contextmanager
def everything_said() -> Iterator[None]:
    """Show all messages of libraries, for ``--debug``, without terminal control characters."""
    with warnings.catch_warnings(), records_printable():
        warnings.showwarning = _show_all
        yield


@contextmanager
def records_printable() -> Iterator[None]:
    """Escape log messages, which may contain names from files, for the terminal."""
    make = logging.getLogRecordFactory()

    def made(*args: Any, **options: Any) -> logging.LogRecord:
        record = make(*args, **options)
        with suppress(TypeError, ValueError):  # arguments that do not fit: logging itself says so
            record.msg, record.args = printable(record.getMessage()), ()
        return record

    logging.setLogRecordFactory(made)
    try:
        yield
    finally:
        logging.setLogRecordFactory(make)


def show_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print an error that ends the process, as Python does, in characters that do not act on the terminal."""
    say_lines("".join(traceback.format_exception(kind, error, trace)).rstrip("\n"), error=True)


def _show(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    say(f"agnostic: {message}", error=True)


def _show_all(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    shown = warnings.formatwarning(printable(message), category, printable(filename), lineno, line)
    say_lines(shown.rstrip("\n"), error=True)


# C++ code writes to the descriptor itself, and TensorFlow tells of its settings before it reads how much to tell. So
# the lines go through another process, which also shows the last ones of a process that a library ends. What they name
# may be from a stranger's file, so they are escaped as by agnostic.text.printable, which that process does not import.
_FILTER = """
import re, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
for line in sys.stdin.buffer:
    if not re.match(rb"[IW]\\d{4} |WARNING: All log messages before absl", line):
        text = line.rstrip(b"\\n").decode(errors="backslashreplace")
        text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
        sys.stderr.buffer.write(text.encode() + b"\\n")
        sys.stderr.flush()
"""


@contextmanager
def standard_error_filtered() -> Iterator[None]:
    """Keep back lines of C++ libraries that are information or warnings; Python's standard error is not touched."""
    shown, python = os.dup(2), sys.stderr
    command = [sys.executable, "-I", "-S", "-c", _FILTER]
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=shown) as process,
        os.fdopen(shown, "w", buffering=1, encoding=python.encoding, errors=python.errors) as direct,
    ):
        assert process.stdin is not None
        os.dup2(process.stdin.fileno(), 2)
        process.stdin.close()
        sys.stderr = direct
        try:
            yield
        finally:
            sys.stderr = python
            os.dup2(direct.fileno(), 2)  # the filter's input ends
