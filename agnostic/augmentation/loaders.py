"""Batches by index in the workers of a framework's data loader, which hold copies of an iterator.

A copy knows nothing of the epochs that the original sees, and would draw what the other copies draw. So in a worker the
order of an epoch and the numbers of a batch come from streams of their own: pure functions of the iterator's seed, of
what the loader says of this worker and of the pass over the batches, and of the batch's index.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from types import FrameType

import numpy as np

from agnostic.contracts.augmentation import AUGMENTATION, Loading
from agnostic.registry import loaded


def loading(caller: FrameType) -> Loading | None:
    """What the data loader that asks for a batch says; None where none asks.

    Args:
        caller: the frame that the batch is asked for from.
    """
    for twin in loaded(AUGMENTATION):
        if (found := twin.loading(caller)) is not None:
            return found
    return None


@dataclass
class Passes:
    """Which pass over the batches a worker is in: nobody tells it when an epoch ends.

    A pass is over when all batches that fall to the worker were taken, or when one is asked for again.
    """

    number: int = 0
    taken: set[int] = field(default_factory=set)

    def take(self, index: int, share: int) -> bool:
        """Note that a batch is taken; whether it is the first one of another pass than the one before.

        Args:
            index: of the batch.
            share: how many batches of a pass fall to this worker.
        """
        begins = index in self.taken or len(self.taken) >= share
        if begins:
            self.number += 1
            self.taken.clear()
        self.taken.add(index)
        return begins


def stream(key: Iterable[int]) -> np.random.RandomState:
    """A random stream that depends on these whole numbers of 0 or more."""
    return np.random.RandomState(np.random.SeedSequence(list(key)).generate_state(8))


def identity(seed: int | None, random: np.random.RandomState) -> int:
    """A number that stands for an iterator's randomness: its seed, or the state of the stream that it follows."""
    if seed is not None:
        return int(seed)
    _, state, position, *_ = random.get_state(legacy=True)
    return int.from_bytes(
        hashlib.sha256(np.asarray(state).tobytes() + bytes(str(position), "ascii")).digest()[:16], "big"
    )
