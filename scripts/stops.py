"""Extractions that are stopped: killed at random moments, and on a disk that is full; the store has the same bytes.

    .venv/bin/python scripts/stops.py 50 [--seed 0]       # so many kills
    sudo .venv/bin/python scripts/stops.py 0 --disk 1     # on a disk of so many megabytes, mounted for it

On the disk a run ends with a sentence each time that there is no room; then a file that filled it is made smaller, and
the run goes on.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]


@contextmanager
def disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """A disk of so many megabytes in memory, as long as the context is open; needs the right to mount."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def full(folder: Path, megabytes: int) -> Iterator[str]:
    """Run on a full disk until there is room; one line for each stop.

    Raises:
        AssertionError: the store has other bytes than one whose run was not stopped.
    """
    from agnostic import InvalidInput
    from agnostic.taps import open as opened
    from tests.extract.killing import content, once, photos

    given, whole = photos(folder / "photos"), folder / "whole.zarr"
    once(given, whole)
    with disk(folder / "disk", megabytes) as place:
        ballast, store, size = place / "ballast", place / "a.zarr", megabytes << 20
        while size > 0:
            size -= 16384
            ballast.write_bytes(bytes(size))
            try:
                once(given, store)
                break
            except InvalidInput as error:
                said = str(error)
            kept = opened(store).done if (store / "checkpoint").exists() else 0
            assert f"the first {kept} of" in said, said
            assert not list(store.rglob("*.partial")), "a temporary file is left over"
            yield re.sub(r"'.*?'", "the store", said, count=1)
            ballast.unlink()
        assert content(store) == content(whole)
    yield "went on to the end: the same bytes"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kills", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--disk", type=int, metavar="MEGABYTES")
    arguments = parser.parse_args()
    sys.path[:0] = [str(ROOT), str(ROOT / "backends")]
    from tests.extract.killing import plugin_found, runs

    with tempfile.TemporaryDirectory() as place:
        sys.path[:0] = plugin_found(Path(place, "site"))
        for line in runs(Path(place), arguments.kills, arguments.seed):
            print(line, flush=True)
        if arguments.disk:
            for line in full(Path(place, "full"), arguments.disk):
                print(line, flush=True)


if __name__ == "__main__":
    main()
