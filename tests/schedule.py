"""Which tests a worker of pytest-xdist is given at once, and in which order: the time of the suite depends on it."""

from __future__ import annotations

import functools
import re
from pathlib import Path

TESTS = Path(__file__).parent

# What takes longest, the longest first: no worker is left with one of these while the others have ended.
LONGEST = (
    "keras/test_engines.py", "transfer/test_transfer.py", "parity/test_parity.py", "compare/test_faults.py",
    "optimizers/test_keras.py", "port/test_port_keras.py", "gradients/test_gradients.py",
    "compare/test_compare_keras.py", "optimizers/test_field_guide.py", "augmentation/test_augmentation.py",
    "test_docs_pages.py", "data/test_folder_keras.py",
)  # fmt: skip


def scope(test: str) -> str:
    """What a worker is given at once, by a test's identifier.

    All tests of a file, as they share models, and those that measure memory or send signals count on order; but tests
    that run in the process of an engine go with all others of that engine, so that the process starts once.
    """
    file, _, name = test.partition("::")
    engine = re.search(r"[\[-](torch|jax|tensorflow)\]$", name)
    return f"the process of {engine[1]}" if engine and _asks_for_engines(TESTS.parent / file) else file


@functools.cache
def _asks_for_engines(file: Path) -> bool:
    return "_on_engine(" in file.read_text()


def place(file: Path) -> int:
    """Where the tests of a file come, among all files."""
    known = {TESTS / name: number for number, name in enumerate(LONGEST)}
    return known.get(file, len(known))
