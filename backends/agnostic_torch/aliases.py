"""Which value a tensor holds while tensors share memory and are written to: functional names for imperative code.

Tensors are told apart by the memory that they show: (storage, offset, sizes, strides). Each storage counts its writes.
A tensor that shows memory which was written to through another tensor, since its value was named, is given a new value:
its old one with the written numbers put in. That tensors overlap is tested number by number, since the gates of a
recurrent layer interleave.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agnostic.program.nodes import Value

Key = tuple[int, tuple[int, ...], tuple[int, ...]]
Emit = Callable[[str, tuple[Any, ...], dict[str, Any], Tensor], Value]

GATHER, SCATTER = "view.gather", "view.scatter"
"""Operators of a record: the numbers at flat places of an array, and an array with other numbers put there."""


@dataclass
class _Storage:
    values: dict[Key, tuple[Value, int]] = field(default_factory=dict)
    writes: list[tuple[int, Key, Value]] = field(default_factory=list)
    version: int = 0


class Aliases:
    """Names values of tensors.

    Args:
        emit: writes down an operator of our own: name, operands, attributes, and a tensor like its output.
    """

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._storages: dict[int, _Storage] = {}
        self._alive: list[Tensor] = []
        self._places: dict[Key, np.ndarray[Any, Any]] = {}

    def read(self, x: Tensor) -> Value | None:
        """The value that a tensor holds now; None for memory that is not known."""
        storage, key = self._storages.get(_memory(x)), _key(x)
        if storage is None:
            return None
        value, version = storage.values.get(key) or self._covered(storage, key, x)
        if value is None:
            return None
        for number, written, new in storage.writes:
            if number > version:
                value = self._updated(value, key, new, written, x)
        storage.values[key] = value, storage.version
        return value

    def bind(self, x: Tensor, value: Value) -> None:
        """A tensor that an operator gave holds this value."""
        storage = self._keep(x)
        storage.values[_key(x)] = value, storage.version

    def write(self, x: Tensor, value: Value) -> None:
        """A tensor was written to, and holds this value now."""
        storage, key = self._keep(x), _key(x)
        storage.version += 1
        storage.writes.append((storage.version, key, value))
        storage.values[key] = value, storage.version

    def _keep(self, x: Tensor) -> _Storage:
        self._alive.append(x)  # memory that is given back is used again
        return self._storages.setdefault(_memory(x), _Storage())

    def _covered(self, storage: _Storage, key: Key, x: Tensor) -> tuple[Value | None, int]:
        """A view that no operator made, out of a value that shows all of its memory."""
        for other, (value, version) in storage.values.items():
            places = self._found(key, other)
            if (places >= 0).all():
                return self._emit(GATHER, (value,), {"places": places, "shape": tuple(x.shape)}, x), version
        return None, 0

    def _updated(self, value: Value, key: Key, new: Value, written: Key, x: Tensor) -> Value:
        if written == key:
            return new
        places = self._found(key, written)
        if (places < 0).all():
            return value
        return self._emit(SCATTER, (value, new), {"places": places}, x)

    def _found(self, key: Key, other: Key) -> np.ndarray[Any, Any]:
        """For each number of one view, in order, where in the other it is; -1 where it is not there."""
        mine, theirs = self._numbers(key), self._numbers(other)
        order = np.argsort(theirs, kind="stable")
        if not theirs.size:
            return np.full(mine.shape, -1)
        at = np.minimum(np.searchsorted(theirs, mine, sorter=order), theirs.size - 1)
        found = order[at]
        return np.where(theirs[found] == mine, found, -1)

    def _numbers(self, key: Key) -> np.ndarray[Any, Any]:
        """The flat places in memory that a view shows, in its order."""
        if key not in self._places:
            offset, sizes, strides = key
            places = np.full(sizes, offset, np.int64)
            for axis, (size, stride) in enumerate(zip(sizes, strides, strict=True)):
                line = np.arange(size) * stride
                places += line.reshape([-1 if k == axis else 1 for k in range(len(sizes))])
            self._places[key] = places.reshape(-1)
        return self._places[key]


def _memory(x: Tensor) -> int:
    return int(x.untyped_storage()._cdata)


def _key(x: Tensor) -> Key:
    return int(x.storage_offset()), tuple(x.shape), tuple(x.stride())


def gathered(operator: str, operands: tuple[Tensor, ...], places: np.ndarray[Any, Any], shape: Any) -> Tensor:
    """What :data:`GATHER` and :data:`SCATTER` give."""
    index = torch.from_numpy(np.maximum(places, 0))
    if operator == GATHER:
        return operands[0].reshape(-1)[index].reshape(shape)
    old, new = operands
    changed = torch.from_numpy(places >= 0)
    return torch.where(changed, new.reshape(-1)[index], old.reshape(-1)).reshape(old.shape)
