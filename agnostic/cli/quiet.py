"""What libraries say on their own account while a command runs: nothing, unless ``--debug`` is given."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TextIO

from agnostic.cli.common import say

# Modules whose warnings are meant for the user: ours, and the user's own file (see agnostic.models.load).
_OURS = r"_?agnostic"


@contextmanager
def libraries_silent(process: bool) -> Iterator[None]:
    """Keep back the warnings of others, their log records below an error, and what a backend names as its noise.

    Args:
        process: whether the command has the process for itself, and so its descriptors.
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
            with standard_error_filtered() if process else nullcontext():
                yield
    finally:
        logging.disable(level)
        for name in added:
            os.environ.pop(name, None)


def _show(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    say(f"agnostic: {message}", error=True)


# C++ code writes to the descriptor itself, and TensorFlow tells of its settings before it reads how much to tell. So
# the lines go through another process, which also shows the last ones of a process that a library ends.
_FILTER = """
import re, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
for line in sys.stdin.buffer:
    if not re.match(rb"[IW]\\d{4} |WARNING: All log messages before absl", line):
        sys.stderr.buffer.write(line)
        sys.stderr.flush()
"""


@contextmanager
def standard_error_filtered() -> Iterator[None]:
    """Keep back lines of C++ libraries that are informations or warnings; Python's standard error is not touched."""
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
