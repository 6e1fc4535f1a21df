"""Runs of agnostic.extract that are killed at random moments, and go on: the store must have the same bytes.

    python tests/extract/killing.py 50       # so many kills

The model is that of the plug-in in tests/plugin, in NumPy, so that a run takes little time. Each run is a forked
process. Python tells of every file that is opened, renamed or removed, before it happens; at one of these moments, by
draw, the process kills itself. The next run is killed as well, until one comes to its end.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]
_MOMENTS = ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir")


def plugin_found(folder: Path) -> list[str]:
    """Folders for the path of Python, with which the plug-in of tests/plugin is found by its entry point."""
    told = folder / "agnostic_tiny-0.1.0.dist-info"
    told.mkdir(parents=True, exist_ok=True)
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: agnostic-tiny\nVersion: 0.1.0\n")
    (told / "entry_points.txt").write_text("[agnostic.backends]\ntiny = agnostic_tiny:registration\n")
    return [str(folder), str(ROOT / "tests" / "plugin")]


def photos(folder: Path, count: int = 22) -> Path:
    """A folder of photos, of which one is broken."""
    from PIL import Image

    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for i in range(count):
        Image.fromarray(rng.integers(0, 256, (9 + i % 3, 10, 3), np.uint8)).save(folder / f"{i:03}.png")
    (folder / "007.png").write_bytes(b"no image")
    return folder


def once(photos: Path, store: Path) -> Any:
    """A whole run."""
    import agnostic as ag

    reduce = ["mean", "max", "histogram", "covariance"]
    return ag.extract(
        ag.load("tiny:net"), photos, ["conv", "mean"], store, reduce=reduce, top=3, batch_size=2, shard=4, size=8
    )


def content(store: Path) -> dict[str, bytes]:
    """Every file in a store."""
    return {str(x.relative_to(store)): x.read_bytes() for x in sorted(store.rglob("*")) if x.is_file()}


def forked(work: Callable[[], object]) -> int:
    """The way in which a forked process ended that did some work: 0 at the end of it, else a signal or an exit code."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException:  # noqa: BLE001 - told, and the way in which the process ends
            import traceback

            traceback.print_exc()
            os._exit(3)
    _, status = os.waitpid(child, 0)
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def killed_after(moments: int, store: Path) -> Callable[[], int]:
    """Let this process be killed at a moment, counted from now; a function that says how many there were."""
    count = 0

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal count
        if event in _MOMENTS and str(store) in str(args[0]):
            count += 1
            if count == moments:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    return lambda: count


def runs(folder: Path, kills: int, seed: int = 0) -> Iterator[str]:
    """Kill runs until there were so many kills; one line for each store that came to its end.

    Raises:
        AssertionError: a store has other bytes than one whose run was not killed.
    """
    import agnostic
    import agnostic.extract.verb
    from agnostic.registry import get_backend

    agnostic.load("tiny:net")
    get_backend("tiny")
    given, whole, count = photos(folder / "photos"), folder / "whole.zarr", folder / "count"

    def counted() -> None:
        seen = killed_after(0, whole)
        once(given, whole)
        count.write_text(str(seen()))

    assert forked(counted) == 0
    moments, expected = int(count.read_text()), content(whole)
    rng, killed, store_number = np.random.default_rng(seed), 0, 0
    while killed < kills:
        store, before = folder / f"{store_number}.zarr", killed
        store_number += 1

        def run(store: Path = store) -> None:
            killed_after(int(rng.integers(1, moments)), store)
            once(given, store)

        while (ended := forked(run)) == -signal.SIGKILL:
            killed += 1
            rng.random()  # the process that was killed drew from its own copy
        assert ended == 0, f"a run that went on ended with {ended}"
        found = content(store)
        assert found.keys() == expected.keys(), sorted(found.keys() ^ expected.keys())
        assert [name for name in found if found[name] != expected[name]] == []
        yield f"killed {killed - before} times at {moments} possible moments: the same {len(found)} files"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        sys.path[:0] = [str(ROOT), str(ROOT / "backends"), *plugin_found(Path(place, "site"))]
        for line in runs(Path(place), int(sys.argv[1]), *map(int, sys.argv[2:])):
            print(line, flush=True)
