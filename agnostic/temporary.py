"""Temporary folders that do not outlive their process, or only until the next one that works in the same place.

A folder is removed when its block ends, and what a signal kept from being removed when the interpreter ends. A process
that was killed leaves its folders behind. Each holds a locked file, and the system releases the locks of a dead
process: the next process that makes a folder in the same place removes those whose lock it can get. The identifier of a
process would not do: it means nothing to another machine or container that shares the disk, and is given away again.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NAME = re.compile(r"\.agnostic-[0-9a-f]{16}")
_LOCK = ".agnostic-lock"

# The folders of this process, and the process that made them: a forked child inherits the table, and not the folders.
_held: dict[Path, int] = {}
# Where this process has looked for what dead ones left.
_looked: set[Path] = set()


@contextmanager
def temporary_folder(inside: str | os.PathLike[str] | None = None) -> Iterator[Path]:
    """A new, empty folder that is removed, with all that is in it, when the block ends.

    Args:
        inside: the folder to make it in; None is the system's folder for temporary files.

    Raises:
        OSError: it cannot be made.
    """
    # Absolute, since it is removed from wherever the process works by then.
    parent = Path(os.path.abspath(tempfile.gettempdir() if inside is None else inside))
    if parent not in _looked:
        _looked.add(parent)
        _remove_what_dead_processes_left(parent)
    folder = parent / ""
    lock = None
    try:
        while lock is None:
            folder = parent / f".agnostic-{secrets.token_hex(8)}"
            _held[folder] = os.getpid()
            lock = _made(folder)
        yield folder
    finally:
        _remove(folder)
        _held.pop(folder, None)
        if lock is not None:
            os.close(lock)


def remove_held() -> None:
    """Remove the temporary folders of this process, where a block was left without its end."""
    for folder, process in list(_held.items()):
        if process == os.getpid():
            _remove(folder)
            _held.pop(folder, None)


atexit.register(remove_held)


def _made(folder: Path) -> int | None:
    """Make a folder and lock it; the lock's descriptor, or None where a process that tidies up was faster."""
    folder.mkdir(mode=0o700)
    try:
        lock = os.open(folder / _LOCK, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    except OSError:
        return lock  # a file system without locks: nobody else gets this one either, and so nobody removes the folder
    if os.fstat(lock).st_nlink == 0:
        os.close(lock)
        return None
    return lock


def _remove(folder: Path) -> None:
    """Remove a folder, its lock last: until then it is known for what it is."""
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            if entry.name == _LOCK:
                continue
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):
                    os.unlink(entry.path)
    with contextlib.suppress(OSError):
        os.unlink(folder / _LOCK)
    with contextlib.suppress(OSError):
        folder.rmdir()


def _remove_what_dead_processes_left(parent: Path) -> None:
    with contextlib.suppress(OSError), os.scandir(parent) as entries:
        # Only one's own: in the system's folder there are those of other users.
        found = [
            Path(entry.path)
            for entry in entries
            if _NAME.fullmatch(entry.name)
            and entry.is_dir(follow_symlinks=False)
            and entry.stat(follow_symlinks=False).st_uid == os.geteuid()
        ]
        for folder in found:
            _remove_if_dead(folder)


def _remove_if_dead(folder: Path) -> None:
    try:
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        # Its process was killed between two steps, or is between them now and will make another. If empty, it goes.
        with contextlib.suppress(OSError):
            folder.rmdir()
        return
    except OSError:
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _remove(folder)
    except OSError:
        pass  # its process lives, or the file system has no locks
    finally:
        os.close(lock)
