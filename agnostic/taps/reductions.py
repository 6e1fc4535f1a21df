"""Reductions of layer outputs: of each sample over its positions, and of the data set over its samples.

What is reduced over the data set has a state: that of a part of the samples is updated batch by batch, and parts are
merged in their order. So the result does not depend on who computed which part, to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from agnostic.contracts.ops import Ops

Array = npt.NDArray[Any]
State = dict[str, Array]

NAMES = ("values", "mean", "max", "histogram", "covariance")
"""What :func:`agnostic.extract` takes as ``reduce``."""

_OCTAVES = 24
"""The bins of histograms reach from 2 ** -24 to 2 ** 24, beside one for all below and one for all above."""
_PER_OCTAVE = 8


def positions(axes: str) -> tuple[int, ...]:
    """The dimensions that are neither the batch nor the channels."""
    return tuple(i for i, letter in enumerate(axes) if letter not in "NC")


# Of each sample ------------------------------------------------------------------------------------------------------
def mean(ops: Ops, x: Any, axes: str) -> Any:
    """The mean over positions.

    Args:
        ops: of the framework of ``x``.
        x: the output of a layer for a batch.
        axes: one letter per dimension, N and C among them.

    Returns:
        (N, C) float32.
    """
    x = ops.cast(x, "float32")
    over = positions(axes)
    return _channels_second(ops, ops.mean(x, over) if over else x, axes)


def maximum(ops: Ops, x: Any, axes: str) -> tuple[Any, Any | None]:
    """The maximum over positions, and its place: the first in memory order of several.

    Args as for :func:`mean`.

    Returns:
        (N, C) float32, and (N, C) int32: the position, counted along the rows; None for a layer without positions.
    """
    x = ops.cast(x, "float32")
    over = positions(axes)
    if not over:
        return _channels_second(ops, x, axes), None
    shape = ops.shape(x)
    highest = ops.max(x, over, keepdims=True)
    lengths = [shape[i] for i in over]
    number = np.arange(int(np.prod(lengths)), dtype=np.int32)
    where = ops.asarray(number.reshape([shape[i] if i in over else 1 for i in range(len(axes))]), "int32")
    beyond = ops.asarray(np.full([1] * len(axes), len(number), np.int32), "int32")
    place = ops.min(ops.where(x < highest, beyond, where), over)
    flat = ops.reshape(highest, [n for i, n in enumerate(shape) if i not in over])
    return _channels_second(ops, flat, axes), _channels_second(ops, place, axes)


def _channels_second(ops: Ops, x: Any, axes: str) -> Any:
    return x if axes.index("N") < axes.index("C") else ops.transpose(x, (1, 0))


def unraveled(place: Array, lengths: tuple[int, ...]) -> npt.NDArray[np.int32]:
    """(N, C, number of position axes) of positions that are counted along the rows."""
    found: npt.NDArray[np.int32] = np.stack(np.unravel_index(place, lengths), -1).astype(np.int32)
    return found


# Of the data set -----------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class DataSetReduction:
    """A reduction over samples.

    Attributes:
        start: the state before the first sample: of the number of channels.
        update: the state after a batch: of the state, and (samples * positions, C) float32.
        merge: the state of two parts of the data set, one after the other.
        arrays: the arrays in the store, of the state at the end.
    """

    start: Callable[[int], State]
    update: Callable[[State, Array], State]
    merge: Callable[[State, State], State]
    arrays: Callable[[State], Mapping[str, Array]]


def edges() -> npt.NDArray[np.float64]:
    """(bins + 1,) the borders of the bins of histograms: eight per octave on both sides of zero.

    So a quantile is known to an eighth of its octave. A border belongs to the bin farther from zero; the bin in the
    middle holds what is nearer to zero than 2 ** -24.
    """
    steps = 2.0 ** np.arange(-_OCTAVES, _OCTAVES)[:, None] * (1 + np.arange(_PER_OCTAVE) / _PER_OCTAVE)
    above = np.append(steps.reshape(-1), 2.0**_OCTAVES)
    return np.concatenate([[-np.inf], -above[::-1], above, [np.inf]])


def bins(x: Array) -> npt.NDArray[np.int64]:
    """The bin of each float32 number; NaN counts as infinity of its sign."""
    bits = np.ascontiguousarray(x, np.float32).view(np.int32)
    # The exponent and three bits of the mantissa: eight steps an octave.
    steps = ((bits & 0x7FFFFFFF) >> 20).astype(np.int64)
    lowest, most = (127 - _OCTAVES) * _PER_OCTAVE, 2 * _OCTAVES * _PER_OCTAVE
    away = np.clip(steps - lowest, -1, most) + 1
    return most + 1 + np.where(bits < 0, -away, away)


def _counted(state: State, rows: Array) -> State:
    channels, count = state["count"].shape
    flat = (bins(rows) + np.arange(channels) * count).reshape(-1)
    return {"count": state["count"] + np.bincount(flat, minlength=channels * count).reshape(channels, count)}


def _summed(state: State, rows: Array) -> State:
    # In float64 the products of float32 numbers are exact.
    wide = rows.astype(np.float64)
    return {
        "count": state["count"] + len(rows),
        "total": state["total"] + wide.sum(0),
        "products": state["products"] + wide.T @ wide,
    }


def _added(a: State, b: State) -> State:
    return {name: a[name] + b[name] for name in a}


def _covariance(state: State) -> Mapping[str, Array]:
    count = max(int(state["count"][0]), 1)
    average = state["total"] / count
    return {"covariance": state["products"] / count - np.outer(average, average), "covariance_mean": average}


OVER_SAMPLES: Mapping[str, DataSetReduction] = {
    "histogram": DataSetReduction(
        lambda channels: {"count": np.zeros((channels, len(edges()) - 1), np.int64)},
        _counted,
        _added,
        lambda state: {"histogram": state["count"]},
    ),
    "covariance": DataSetReduction(
        lambda channels: {
            "count": np.zeros(1, np.int64),
            "total": np.zeros(channels),
            "products": np.zeros((channels, channels)),
        },
        _summed,
        _added,
        _covariance,
    ),
}


# The highest of each channel -----------------------------------------------------------------------------------------
def top_start(count: int, channels: int, axes: int) -> State:
    """No sample yet: (count, C) values of minus infinity, samples of -1, and places (count, C, axes)."""
    return {
        "value": np.full((count, channels), -np.inf, np.float32),
        "sample": np.full((count, channels), -1, np.int64),
        "place": np.zeros((count, channels, axes), np.int32),
    }


def top_merge(a: State, b: State) -> State:
    """The highest of two parts of the data set, ``a`` before ``b``; of equals the first stays."""
    both = {name: np.concatenate([a[name], b[name]]) for name in a}
    count = len(a["value"])
    order = np.argsort(-both["value"], axis=0, kind="stable")[:count]
    return {
        "value": np.take_along_axis(both["value"], order, 0),
        "sample": np.take_along_axis(both["sample"], order, 0),
        "place": np.take_along_axis(both["place"], order[:, :, None], 0),
    }


def top_update(state: State, values: Array, samples: Array, places: Array) -> State:
    """With a batch: (N, C) maxima, (N,) samples and (N, C, axes) places; NaN is never high."""
    rows = np.repeat(samples[:, None], values.shape[1], 1)
    known = np.where(np.isnan(values), np.float32(-np.inf), values)
    return top_merge(state, {"value": known, "sample": np.where(known == -np.inf, -1, rows), "place": places})


def of_data_set(key: str, states: Mapping[tuple[str, str, str], Array]) -> dict[str, Array]:
    """The arrays of the whole data set of one layer, from all states."""
    own: dict[str, State] = {}
    for (layer, reduction, name), x in states.items():
        if layer == key:
            own.setdefault(reduction, {})[name] = x
    found: dict[str, Array] = {}
    for reduction, state in own.items():
        if reduction == "top":
            found |= {f"top_{name}": x for name, x in state.items() if name != "place" or x.shape[-1]}
        else:
            found |= OVER_SAMPLES[reduction].arrays(state)
    return found
