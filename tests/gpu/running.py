"""Runs checks one after the other and says of each whether it passed; for scripts/gpu-checks, which needs no pytest."""

from __future__ import annotations

import contextlib
import io
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from agnostic.errors import InvalidInput

EACH = 150  # seconds for one check, most of which take less than one


class TooLong(BaseException):  # the command turns an Exception into an exit code
    """A check did not end."""


@contextlib.contextmanager
def _limited(seconds: float) -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise TooLong(f"not done after {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(max(1, int(seconds)))
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def run(checks: Mapping[str, Any], device: str, seconds: float) -> int:
    """Run every function whose name starts with ``check_``, and print a line for each; 1 if one failed.

    Args:
        checks: names and values of a module. A check takes the device and returns what is worth knowing, or None.
        device: such as ``"cuda"``.
        seconds: after which no further check starts.
    """
    end, failed = time.monotonic() + seconds, False
    for name, check in list(checks.items()):
        if not name.startswith("check_"):
            continue
        title, begun = name.removeprefix("check_").replace("_", " "), time.monotonic()
        if begun > end:
            print(f"FAILED {title}: no time was left", flush=True)
            failed = True
            continue
        try:
            with _limited(min(EACH, end - begun + 1)):
                remark = check(device)
        except (Exception, TooLong):  # noqa: BLE001  one check must not take the others with it
            failed = True
            print(f"FAILED {title}\n{traceback.format_exc()}", flush=True)
        else:
            print(f"passed {title} ({time.monotonic() - begun:.1f} s){': ' + remark if remark else ''}", flush=True)
    return int(failed)


def main(checks: Mapping[str, Any]) -> int:
    """Run the checks of a module on the device and for the seconds of the command line."""
    return run(checks, sys.argv[1], float(sys.argv[2]))


def refused(call: Callable[[], Any], *words: str, error: type[Exception] = InvalidInput) -> str:
    """The one sentence that a call is refused with, which holds some words."""
    said = None
    try:
        call()
    except error as raised:
        said = str(raised)
    assert said is not None, "it was not refused"
    assert "\n" not in said, said
    for word in words:
        assert word in said, f"{word!r} is not in {said!r}"
    return said


def command(*arguments: str) -> tuple[int, str, str]:
    """The exit code, output and errors of ``agnostic ARGUMENTS``, in this process."""
    from agnostic.cli import main

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(list(arguments))
    return code, out.getvalue(), err.getvalue()


def succeeded(*arguments: str) -> str:
    """What ``agnostic ARGUMENTS`` prints, which ends well."""
    code, out, err = command(*arguments)
    assert code == 0, f"{arguments}: exit code {code}\n{out[-2000:]}\n{err[-2000:]}"
    return out
