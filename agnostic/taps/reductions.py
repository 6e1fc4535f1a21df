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


def maximum(ops: Ops, x: Any, axes: str) -> Any:
    """The maximum over positions; NaN where there is one.

    Args as for :func:`mean`.

    Returns:
        (N, C) float32.
    """
    x, over = ops.cast(x, "float32"), positions(axes)
    return _channels_second(ops, ops.max(x, over) if over else x, axes)


def places(x: Array, axes: str, chosen: tuple[Array, Array] | None = None) -> npt.NDArray[np.int32]:
    """Where the maximum over positions is: the first place in memory order of several, or of NaN.

    Args:
        x: the output of a layer for a batch, in NumPy.
        axes: as for :func:`mean`; with positions.
        chosen: (k,) samples and (k,) channels, of which alone the places are looked for; None: all.

    Returns:
        (N, C, number of position axes), or (k, number of position axes): indices.
    """
    whole = np.transpose(x, _positions_last(axes))
    rows = whole if chosen is None else whole[chosen]
    count = 2 if chosen is None else 1
    return unravelled(rows.reshape(*rows.shape[:count], -1).argmax(-1), rows.shape[count:])


def unravelled(flat: Array, lengths: tuple[int, ...]) -> npt.NDArray[np.int32]:
    """Places that are counted along rows as indices of each axis, of these lengths, last."""
    return np.stack(np.unravel_index(flat, lengths), -1).astype(np.int32)


def flat_places(ops: Ops, x: Any, axes: str, numbers: Any) -> Any:
    """As :func:`places`, of all maxima and by the device that holds ``x``: a native (N * C,) int32, for `unravelled`.

    Args:
        numbers: of :func:`place_numbers`.
    """
    x, order = ops.cast(x, "float32"), _positions_last(axes)
    samples, channels = (ops.shape(x)[i] for i in order[:2])
    rows = ops.reshape(ops.transpose(x, order), (samples * channels, -1))
    highest = ops.max(rows, 1, keepdims=True)
    # What is NaN compares with nothing, itself among it.
    number, beyond = numbers
    return ops.min(ops.where(rows == rows, ops.where(rows >= highest, number, beyond), number), 1)


def place_numbers(ops: Ops, x: Any, axes: str) -> Any:
    """The numbers of places, and a higher one, beside ``x``: made once, since copying them waits for the device."""
    count = int(np.prod([int(ops.shape(x)[i]) for i in positions(axes)]))
    number = ops.asarray(np.arange(count, dtype=np.int32)[None], "int32")
    return number, ops.asarray(np.full((1, 1), count, np.int32), "int32")


def _positions_last(axes: str) -> tuple[int, ...]:
    """The order of dimensions in which samples and channels come first."""
    return axes.index("N"), axes.index("C"), *positions(axes)


def _channels_second(ops: Ops, x: Any, axes: str) -> Any:
    return x if axes.index("N") < axes.index("C") else ops.transpose(x, (1, 0))


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


def bins(x: Array) -> npt.NDArray[np.int32]:
    """The bin of each float32 number that is not NaN."""
    bits = np.ascontiguousarray(x, np.float32).view(np.int32)
    # The exponent and three bits of the mantissa: eight steps an octave.
    away = (bits & 0x7FFFFFFF) >> 20
    lowest, most = (127 - _OCTAVES) * _PER_OCTAVE, 2 * _OCTAVES * _PER_OCTAVE
    away -= lowest
    np.clip(away, -1, most, out=away)
    away += 1
    np.negative(away, out=away, where=bits < 0)
    away += most + 1
    return away


def _counted(state: State, rows: Array) -> State:
    channels, count = state["count"].shape
    flat = bins(rows) + np.arange(channels, dtype=np.int32) * np.int32(count)
    unknown = np.isnan(rows)
    # NaN is in no bin.
    flat = flat[~unknown] if unknown.any() else flat.reshape(-1)
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


def top_candidates(state: State, values: Array) -> tuple[Array, Array]:
    """The rows and channels of those (N, C) maxima that are among the highest; NaN is never high."""
    # Of equals the first stays.
    samples, channels = np.nonzero(values > state["value"][-1])
    return samples, channels


def top_update(state: State, values: Array, samples: Array, chosen: tuple[Array, Array], places: Array) -> State:
    """With a batch.

    Args:
        state: before it.
        values: (N, C) maxima.
        samples: (N,) their positions in the data set.
        chosen: of :func:`top_candidates`.
        places: (k, axes) of those.
    """
    rows, channels = chosen
    # Of most channels a batch has no candidate.
    own = np.unique(channels)
    column = np.searchsorted(own, channels)
    batch = top_start(len(values), len(own), places.shape[-1])
    batch["value"][rows, column] = values[chosen]
    batch["sample"][rows, column] = samples[rows]
    batch["place"][rows, column] = places
    merged = top_merge({name: x[:, own] for name, x in state.items()}, batch)
    found = {name: x.copy() for name, x in state.items()}
    for name, x in merged.items():
        found[name][:, own] = x
    return found


def of_data_set(key: str, states: Mapping[tuple[str, str], State]) -> dict[str, Array]:
    """The arrays of the whole data set of one layer, from all states."""
    found: dict[str, Array] = {}
    for (layer, reduction), state in states.items():
        if layer != key:
            continue
        if reduction == "top":
            found |= {f"top_{name}": x for name, x in state.items() if name != "place" or x.shape[-1]}
        else:
            found |= OVER_SAMPLES[reduction].arrays(state)
    return found
