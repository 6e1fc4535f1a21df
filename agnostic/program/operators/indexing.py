"""What looks places up."""

from __future__ import annotations

from typing import Any

import numpy as np

from agnostic.program.nodes import Array
from agnostic.program.shapes import broadcast
from agnostic.program.vocabulary import Shape, operator


def _embedding_shape(table: Shape, ids: Shape) -> Shape:
    return (*ids, *table[1:])


@operator(shape=_embedding_shape)
def embedding(table: Array, ids: Array) -> Array:
    """Row ``ids[...]`` of a table.

    Args:
        table: (rows, features).
        ids: integers, any shape.
    """
    return table[ids]


def _take_shape(x: Shape, ids: Shape, *, axis: int) -> Shape:
    axis %= len(x)
    return (*x[:axis], *ids, *x[axis + 1 :])


@operator(shape=_take_shape)
def take(x: Array, ids: Array, *, axis: int) -> Array:
    """The places ``ids`` of one axis."""
    return np.take(x, ids, axis)


def _gather_shape(x: Shape, ids: Shape, *, axis: int) -> Shape:
    return ids


@operator(shape=_gather_shape)
def gather(x: Array, ids: Array, *, axis: int) -> Array:
    """y[i, j, k] = x[ids[i, j, k], j, k] for axis 0, and so on; the other axes of ``ids`` may be shorter."""
    result: Array = x[_places(ids, axis)]
    return result


def _places(ids: Array, axis: int) -> Any:
    found: list[Any] = list(np.ogrid[tuple(map(slice, ids.shape))])
    found[axis] = ids
    return tuple(found)


def _index_shape(x: Shape, indices: list[Any]) -> Shape:
    # Masks have shapes that depend on data; the reader gives those itself.
    kept = [axis for axis, index in enumerate(indices) if index is not None]
    block = broadcast(*(indices[axis] for axis in kept))
    rest = [n for axis, n in enumerate(x) if axis not in kept]
    together = kept == list(range(kept[0], kept[-1] + 1))
    place = kept[0] if together else 0
    return (*rest[:place], *block, *rest[place:])


@operator(shape=_index_shape)
def index(x: Array, indices: tuple[Any, ...]) -> Array:
    """x[i, j, ...] as in NumPy; None stands for a whole axis.

    Args:
        x: any shape.
        indices: per axis integers, which broadcast together, or None.
    """
    result: Array = x[tuple(slice(None) if i is None else i for i in indices)]
    return result


def _write_shape(x: Shape, indices: list[Any], value: Any, *, accumulate: bool = False) -> Shape:
    return x


@operator(shape=_write_shape)
def write(x: Array, indices: tuple[Any, ...], value: Array, *, accumulate: bool = False) -> Array:
    """X with ``value`` at x[i, j, ...], or added there.

    Args:
        accumulate: whether numbers are added to what is there.
    """
    result = x.copy()
    places: Any = tuple(slice(None) if i is None else i for i in indices)
    if accumulate:
        np.add.at(result, places, value)
    else:
        result[places] = value
    return result


def _scatter_shape(
    x: Shape, ids: Shape, value: Any, *, axis: int, accumulate: bool = False, function: str = "sum"
) -> Shape:
    return x


_TOGETHER: dict[str, np.ufunc] = {"sum": np.add, "product": np.multiply, "max": np.maximum, "min": np.minimum}


@operator(shape=_scatter_shape)
def scatter(x: Array, ids: Array, value: Any, *, axis: int, accumulate: bool = False, function: str = "sum") -> Array:
    """X with ``value[i, j, k]`` at [ids[i, j, k], j, k] for axis 0, and so on, or together with what is there.

    Args:
        accumulate: whether numbers are added to what is there.
        function: what is done instead of adding: ``"sum"``, ``"product"``, ``"max"`` or ``"min"``.
    """
    result = x.copy()
    places = _places(ids, axis)
    chosen = value[tuple(map(slice, ids.shape))] if np.ndim(value) else value
    if accumulate:
        _TOGETHER[function].at(result, places, chosen)
    else:
        result[places] = chosen
    return result


def _one_hot_shape(ids: Shape, *, classes: int) -> Shape:
    return (*ids, classes)


@operator(shape=_one_hot_shape)
def one_hot(ids: Array, *, classes: int) -> Array:
    """1 at the place of each id along a new last axis, else 0; integers.

    Args:
        classes: how many there are.
    """
    return np.eye(classes, dtype=np.int64)[ids]
