"""Image files: damaged files of every format give an image or one sentence, whichever reader reads them."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.fuzz import images


def prepare(folder: Path) -> Callable[[random.Random], str]:
    """One case: a damaged file, read by every reader."""
    warnings.simplefilter("ignore")  # Pillow's, about what it repairs
    originals, path = images.originals(), folder / "image"

    def one(rng: random.Random) -> str:
        kind = rng.choice(sorted(originals))
        path.write_bytes(images.mutated(originals[kind], np.random.default_rng(rng.getrandbits(64))))
        for name, (read, dtype) in images.READERS.items():
            what = images.fault(read, dtype, path)
            assert what is None, f"{kind}, {name}: {what}"
        return "read or refused"

    return one
