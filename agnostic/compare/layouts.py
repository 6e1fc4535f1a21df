"""How an array is laid out, and the way to the one layout in which two frameworks are compared.

The canonical layout has the batch first and the channels last: ``NHWC``, ``NLC``, ``NC``. An array that was flattened
keeps its order: ``"N(CHW)"`` holds channels, height and width in one dimension, and is canonical as ``"N(HWC)"``. So
the flattened activations of two frameworks can be compared, and handed from one to the other, although each counts
in an order of its own.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Layout:
    """The letters of an array's dimensions.

    Attributes:
        axes: one letter per dimension, as in :class:`agnostic.layers.Layer`; letters in brackets share one. None where
            they are not known: the array is then taken as it is.
        inner: the lengths of the letters in brackets.
    """

    axes: str | None = None
    inner: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        bracket = re.search(r"\((\w+)\)", self.axes or "")
        if len(self.inner) != (len(bracket[1]) if bracket else 0):
            raise ValueError(f"{self.axes!r} needs the lengths of the letters in brackets, not {self.inner}")

    def _unfolded(self, shape: tuple[int, ...]) -> tuple[str, tuple[int, ...]] | None:
        """Letters and lengths with the brackets opened; None where the letters do not fit the shape."""
        if self.axes is None:
            return None
        groups = re.findall(r"\((\w+)\)|(\w)", self.axes)
        if len(groups) != len(shape):
            return None
        letters, sizes = "", list[int]()
        for (many, one), size in zip(groups, shape, strict=True):
            letters += many or one
            sizes += self.inner if many else [size]
        return (letters, tuple(sizes)) if math.prod(sizes) == math.prod(shape) else None

    def _order(self, letters: str) -> list[int]:
        """The dimensions in canonical order: the batch, all others in the order of L, D, H, W, the channels."""
        rest = sorted((i for i, x in enumerate(letters) if x not in "NC"), key=lambda i: "LDHW".find(letters[i]))
        return [*(i for i, x in enumerate(letters) if x == "N"), *rest, *(i for i, x in enumerate(letters) if x == "C")]

    def to_canonical(self, x: Array) -> Array:
        """Channels last; a view where that is possible."""
        found = self._unfolded(x.shape)
        if found is None:
            return x
        letters, sizes = found
        moved = x.reshape(sizes).transpose(self._order(letters))
        return moved.reshape(x.shape) if self.inner else moved
