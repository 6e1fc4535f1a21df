"""Which random stream a draw comes from.

Keras' legacy class draws everything from NumPy's global stream, which its iterators seed anew before each batch. Here
that stream is a private ``RandomState`` with the same seeds: the numbers are the same, and the global one is neither
read nor changed. The iterator that makes a batch puts its stream in force for the draws that happen meanwhile, through
methods whose signature has no room for a stream and which users override.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np

_in_force: ContextVar[np.random.RandomState | None] = ContextVar("agnostic_augmentation_stream", default=None)


def current(otherwise: np.random.RandomState) -> np.random.RandomState:
    """The stream in force in this thread, or the one given."""
    stream = _in_force.get()
    return otherwise if stream is None else stream


@contextmanager
def drawing_from(stream: np.random.RandomState) -> Iterator[None]:
    """Put a stream in force inside the context, for this thread."""
    token = _in_force.set(stream)
    try:
        yield
    finally:
        _in_force.reset(token)
