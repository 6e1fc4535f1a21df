"""What a softmax or a sigmoid was computed from, however it is written: as a layer, an activation or an operation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from keras.src import backend

from agnostic.ops import Array
from agnostic.patching import Replacement, patched

_SQUASHING = ("softmax", "log_softmax", "sigmoid", "log_sigmoid")


class Logits:
    """For the result of every softmax or sigmoid inside of :func:`remembered`, what it was computed from."""

    def __init__(self) -> None:
        # The results are kept as well, so that no other array takes their identity.
        self._before: dict[int, tuple[Array, Array]] = {}

    def add(self, result: Array, given: Array) -> None:
        """Remember one."""
        self._before[id(result)] = result, given

    def before(self, result: Array) -> Array | None:
        """What an array was computed from by a softmax or a sigmoid; None where it is the result of neither."""
        found = self._before.get(id(result))
        return None if found is None else found[1]


@contextmanager
def remembered(wanted: bool) -> Iterator[Logits]:
    """Watch the functions of the engine that all of Keras' ways lead to, where it is wanted."""
    logits = Logits()

    def squash(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        logits.add(result, args[0] if args else kwargs["x"])
        return result

    replacement: Replacement = squash
    with patched([(backend.nn, name, replacement) for name in _SQUASHING] if wanted else []):
        yield logits
