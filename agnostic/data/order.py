"""One permutation for several arrays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from agnostic.checks import whole_number
from agnostic.contracts.data import DATA
from agnostic.data.sequences import NDArray
from agnostic.errors import InvalidInput
from agnostic.registry import array_owner, get_backend
from agnostic.text import type_named


class Permuted(Sequence[Any]):
    """A sequence in another order, read element by element on access: nothing is copied.

    Args:
        source: anything with a length and integer indices: a list, a memory map, an HDF5 dataset.
        order: (n,) indices into ``source``.

    Example:
        >>> ag.data.shuffle(["a", "b", "c"], seed=1)
        Permuted(3 of list)
    """

    def __init__(self, source: Any, order: NDArray) -> None:
        self.source = source
        self.order = order

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: Any) -> Any:
        """The element at ``index``; for a slice, a view of that part."""
        if isinstance(index, slice):
            return Permuted(self.source, self.order[index])
        return self.source[int(self.order[index])]

    def __iter__(self) -> Iterator[Any]:
        return (self.source[i] for i in self.order.tolist())

    def __repr__(self) -> str:
        return f"Permuted({len(self)} of {type(self.source).__name__})"


def shuffle(*arrays: Any, seed: int) -> Any:
    """Shuffle arrays, tensors and lists in the same random order.

    The order depends only on ``seed`` and the length. No global random state is read or changed.

    Args:
        *arrays: of equal length. NumPy arrays and tensors of torch, jax and tensorflow (on any device) are
            copied and keep their type. Lists, tuples, memory maps and anything else with a length and integer indices
            become a :class:`Permuted`, which copies nothing; ``list()`` makes a list of it.
        seed: a non-negative integer.

    Returns:
        A tuple of the shuffled arrays; for one argument, the array itself.

    Raises:
        InvalidInput: no argument, different lengths, an argument without a length or an order, or an invalid seed.

    Example:
        >>> x, y = ag.data.shuffle(np.arange(4), np.arange(4) * 10, seed=0)
        >>> bool((y == x * 10).all())
        True
    """
    seed = whole_number("seed", seed)
    if not arrays:
        raise InvalidInput("nothing to shuffle: give one array or several")
    lengths = [_length(array, position) for position, array in enumerate(arrays)]
    if len(set(lengths)) > 1:
        raise InvalidInput(
            f"arrays of lengths {', '.join(map(str, lengths))} cannot share one order; give equal lengths"
        )
    order = np.random.default_rng(seed).permutation(lengths[0])
    shuffled = tuple(_take(array, order) for array in arrays)
    return shuffled if len(shuffled) > 1 else shuffled[0]


def _length(array: Any, position: int) -> int:
    try:
        length = len(array)
    except TypeError:
        raise InvalidInput(
            f"the array at position {position} is {type_named(array)} without a length; make it a list first"
        ) from None
    if isinstance(array, dict | set | frozenset | str | bytes) or not hasattr(array, "__getitem__"):
        raise InvalidInput(
            f"the array at position {position} is {type_named(array)}, which has no rows to reorder; "
            "give an array, a tensor or a list"
        )
    return length


def _take(array: Any, order: NDArray) -> Any:
    if isinstance(array, np.memmap):
        return Permuted(array, order)
    if isinstance(array, np.ndarray):
        return array[order]
    found = array_owner(array)
    if found is not None:
        return get_backend(found.name)[DATA].take(array, order)
    if hasattr(array, "iloc"):
        # A data frame's own brackets choose columns.
        return array.iloc[order]
    return Permuted(array, order)
