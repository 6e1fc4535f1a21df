"""How the two frameworks lay out the weights of one layer, and the way between, exact in both directions.

PyTorch has the output channels first, Keras last; their names differ as well. All functions take and give NumPy arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from agnostic.errors import InvalidInput, InvalidWeights, nearest
from agnostic.models.architecture import Architecture, BatchNorm, Conv, Dense, Leaf, leaves

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Entry:
    """One array of a layer.

    Attributes:
        torch, keras: its name in either framework.
        to_keras, to_torch: from the other's layout; each undoes the other.
    """

    torch: str
    keras: str
    to_keras: Callable[[Array], Array]
    to_torch: Callable[[Array], Array]


def _same(x: Array) -> Array:
    return x


def _depthwise_to_keras(x: Array) -> Array:
    """(C * M, 1, H, W) to (H, W, C, M) for a multiplier M of 1, the only one whose C the array alone tells."""
    return x.transpose(2, 3, 0, 1)


_BIAS = Entry("bias", "bias", _same, _same)

ENTRIES: Mapping[str, tuple[Entry, ...]] = {
    # (O, I / groups, H, W) and (H, W, I / groups, O)
    "conv": (Entry("weight", "kernel", lambda x: x.transpose(2, 3, 1, 0), lambda x: x.transpose(3, 2, 0, 1)), _BIAS),
    # (C, 1, H, W) and (H, W, C, 1)
    "depthwise": (Entry("weight", "kernel", _depthwise_to_keras, lambda x: x.transpose(2, 3, 0, 1)), _BIAS),
    # (O, I) and (I, O)
    "dense": (Entry("weight", "kernel", np.transpose, np.transpose), _BIAS),
    "batch_norm": (
        Entry("weight", "gamma", _same, _same),
        Entry("bias", "beta", _same, _same),
        Entry("running_mean", "moving_mean", _same, _same),
        Entry("running_var", "moving_variance", _same, _same),
    ),
}
"""By kind of layer. An entry that a layer lacks, such as a bias, is lacking in both frameworks."""

_NOT_TRANSFERRED = ("num_batches_tracked",)
"""Counters that inference never reads, and that Keras does not keep."""


def to_keras(kind: str, weights: Mapping[str, Array]) -> dict[str, Array]:
    """A layer's weights, by PyTorch's names and in its layout, as Keras has them.

    Args:
        kind: a key of :data:`ENTRIES`.

    Raises:
        InvalidInput: no such kind.
        InvalidWeights: an entry that layers of the kind do not have.
    """
    by_name = {entry.torch: entry for entry in _entries(kind)}
    given = {name: x for name, x in weights.items() if name not in _NOT_TRANSFERRED}
    _check_names(kind, given, by_name)
    return {by_name[name].keras: np.ascontiguousarray(by_name[name].to_keras(x)) for name, x in given.items()}


def to_torch(kind: str, weights: Mapping[str, Array]) -> dict[str, Array]:
    """The inverse of :func:`to_keras`."""
    by_name = {entry.keras: entry for entry in _entries(kind)}
    _check_names(kind, weights, by_name)
    return {by_name[name].torch: np.ascontiguousarray(by_name[name].to_torch(x)) for name, x in weights.items()}


def _entries(kind: str) -> tuple[Entry, ...]:
    if kind not in ENTRIES:
        raise InvalidInput(f"no rule to transfer a layer of kind {kind!r}, only {', '.join(ENTRIES)}")
    return ENTRIES[kind]


def _check_names(kind: str, given: Mapping[str, Array], known: Mapping[str, Entry]) -> None:
    for name in given:
        if name not in known:
            close = nearest(name, known)
            raise InvalidWeights(f"a layer of kind {kind!r} has no {name!r}, only {', '.join(known)}{close}")


# Described architectures --------------------------------------------------------------------------------------------
def kind_of(node: Leaf) -> str | None:
    """The kind of a described layer; None for one without weights."""
    match node:
        case Conv():
            return "depthwise" if node.groups == node.inputs == node.outputs > 1 else "conv"
        case BatchNorm():
            return "batch_norm"
        case Dense():
            return "dense"
    return None


def architecture_to_keras(architecture: Architecture, weights: Mapping[str, Array]) -> dict[str, Array]:
    """All weights of a described network, ``path.weight`` and so on, as Keras has them, ``path.kernel`` and so on.

    Entries of layers that the network does not have stay as they are, for the model to refuse.
    """
    kinds = {path: kind for path, node in leaves(architecture) if (kind := kind_of(node)) is not None}
    converted: dict[str, Array] = {}
    for name, value in weights.items():
        path, _, entry = name.rpartition(".")
        renamed = to_keras(kinds[path], {entry: value}) if path in kinds else {entry: value}
        converted |= {f"{path}.{ours}": x for ours, x in renamed.items()}
    return converted
