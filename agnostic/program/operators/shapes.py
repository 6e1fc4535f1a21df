"""What moves numbers without computing any."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from agnostic.program.nodes import Array
from agnostic.program.vocabulary import Shape, operator, size


def _reshape(x: Shape, *, shape: Sequence[int]) -> Shape:
    known = size(tuple(n for n in shape if n != -1))
    return tuple(size(x) // known if n == -1 else n for n in shape)


@operator(shape=_reshape)
def reshape(x: Array, *, shape: Sequence[int]) -> Array:
    """The same numbers in the same order under another shape; one length may be -1."""
    return x.reshape(tuple(shape))


def _permute(x: Shape, *, axes: Sequence[int]) -> Shape:
    return tuple(x[axis] for axis in axes)


@operator(shape=_permute)
def permute(x: Array, *, axes: Sequence[int]) -> Array:
    """Axis i of the result is axis ``axes[i]`` of x."""
    return x.transpose(tuple(axes))


def _expand(x: Shape, *, shape: Sequence[int]) -> Shape:
    return tuple(shape)


@operator(shape=_expand)
def expand(x: Array, *, shape: Sequence[int]) -> Array:
    """X repeated along its axes of length 1, and along new leading axes, to a shape."""
    return np.broadcast_to(x, tuple(shape))


def _slice(x: Shape, *, axis: int, start: int, stop: int, step: int = 1) -> Shape:
    axis %= len(x)
    return (*x[:axis], len(range(x[axis])[start:stop:step]), *x[axis + 1 :])


@operator(shape=_slice)
def slice_(x: Array, *, axis: int, start: int, stop: int, step: int = 1) -> Array:
    """The places start, start + step, ... before stop of one axis."""
    index = [slice(None)] * x.ndim
    index[axis] = slice(start, stop, step)
    return x[tuple(index)]


def _select(x: Shape, *, axis: int, index: int) -> Shape:
    axis %= len(x)
    return (*x[:axis], *x[axis + 1 :])


@operator(shape=_select)
def select(x: Array, *, axis: int, index: int) -> Array:
    """One place of an axis, which is gone then.

    Args:
        index: which place.
    """
    return np.asarray(np.take(x, index, axis))


def _update(x: Shape, value: Any, *, axis: int, start: int, stop: int, step: int = 1) -> Shape:
    return x


@operator(shape=_update)
def update(x: Array, value: Array, *, axis: int, start: int, stop: int, step: int = 1) -> Array:
    """X with the places start, start + step, ... before stop of one axis replaced by ``value``, which broadcasts."""
    result = x.copy()
    index = [slice(None)] * x.ndim
    index[axis] = slice(start, stop, step)
    result[tuple(index)] = value
    return result


def _concatenate(parts: list[Shape], *, axis: int) -> Shape:
    # An empty vector joins anything, by PyTorch's old rule.
    parts = [part for part in parts if part != (0,)] or parts
    axis %= len(parts[0])
    return (*parts[0][:axis], sum(part[axis] for part in parts), *parts[0][axis + 1 :])


@operator(shape=_concatenate)
def concatenate(parts: tuple[Array, ...], *, axis: int) -> Array:
    """The arrays one after the other along an axis."""
    kept = [part for part in parts if part.shape != (0,)] or list(parts)
    return np.concatenate(kept, axis)


def _stack(parts: list[Shape], *, axis: int) -> Shape:
    axis %= len(parts[0]) + 1
    return (*parts[0][:axis], len(parts), *parts[0][axis:])


@operator(shape=_stack)
def stack(parts: tuple[Array, ...], *, axis: int) -> Array:
    """The arrays side by side along a new axis."""
    return np.stack(parts, axis)


def _pad(x: Shape, *, widths: Sequence[tuple[int, int]], mode: str = "constant", value: float = 0.0) -> Shape:
    return tuple(n + low + high for n, (low, high) in zip(x, widths, strict=True))


_MODES = {"replicate": "edge", "circular": "wrap"}


@operator(shape=_pad)
def pad(x: Array, *, widths: Sequence[tuple[int, int]], mode: str = "constant", value: float = 0.0) -> Array:
    """X with numbers before and after each axis.

    Args:
        x: any shape.
        widths: how many before and after, per axis; a negative number cuts.
        mode: ``"constant"``, ``"reflect"`` (without the edge), ``"replicate"`` (the edge) or ``"circular"``.
        value: of the constant.
    """
    cut = tuple(slice(-min(low, 0), n + min(high, 0)) for n, (low, high) in zip(x.shape, widths, strict=True))
    grown = [(max(low, 0), max(high, 0)) for low, high in widths]
    if mode == "constant":
        return np.pad(x[cut], grown, constant_values=value)
    result: Array = np.pad(x[cut], grown, mode=_MODES.get(mode, mode))  # type: ignore[call-overload]
    return result


def _roll(x: Shape, *, shifts: Sequence[int], axes: Sequence[int]) -> Shape:
    return x


@operator(shape=_roll)
def roll(x: Array, *, shifts: Sequence[int], axes: Sequence[int]) -> Array:
    """Places move by ``shifts`` along ``axes``; what leaves at the end comes in at the start."""
    return np.roll(x, tuple(shifts), tuple(axes))


def _flip(x: Shape, *, axes: Sequence[int]) -> Shape:
    return x


@operator(shape=_flip)
def flip(x: Array, *, axes: Sequence[int]) -> Array:
    """The order along ``axes`` reversed."""
    return np.flip(x, tuple(axes))


def _tile(x: Shape, *, counts: Sequence[int]) -> Shape:
    x = (1,) * (len(counts) - len(x)) + x
    return tuple(n * count for n, count in zip(x, counts, strict=True))


@operator(shape=_tile)
def tile(x: Array, *, counts: Sequence[int]) -> Array:
    """X as a whole repeated ``counts`` times along each axis; new axes come first."""
    return np.tile(x, tuple(counts))


def _repeat(x: Shape, *, count: int, axis: int) -> Shape:
    axis %= len(x)
    return (*x[:axis], x[axis] * count, *x[axis + 1 :])


@operator(shape=_repeat)
def repeat(x: Array, *, count: int, axis: int) -> Array:
    """Each place of an axis repeated ``count`` times, copies beside each other."""
    return np.repeat(x, count, axis)


def _triangle(x: Shape, *, diagonal: int = 0, upper: bool = False) -> Shape:
    return x


@operator(shape=_triangle)
def triangle(x: Array, *, diagonal: int = 0, upper: bool = False) -> Array:
    """The last two axes with zeros beyond a diagonal: the lower part stays, or the upper one."""
    return np.triu(x, diagonal) if upper else np.tril(x, diagonal)


def _unfold(x: Shape, *, axis: int, length: int, step: int) -> Shape:
    axis %= len(x)
    return (*x[:axis], (x[axis] - length) // step + 1, *x[axis + 1 :], length)


@operator(shape=_unfold)
def unfold(x: Array, *, axis: int, length: int, step: int) -> Array:
    """Windows of ``length`` at every ``step`` of an axis; the places within a window become the last axis."""
    views = np.lib.stride_tricks.sliding_window_view(x, length, axis)
    index = [slice(None)] * views.ndim
    index[axis % x.ndim] = slice(None, None, step)
    return views[tuple(index)]


def _cast(x: Shape, *, dtype: str) -> Shape:
    return x


@operator(shape=_cast)
def cast(x: Array, *, dtype: str) -> Array:
    """X in another type. The reference keeps floating point as it is, so that float64 stays float64."""
    if dtype == "bool":
        return x.astype(bool)
    if dtype.startswith(("int", "uint")):
        return x.astype(dtype)
    return x if x.dtype.kind in "fc" else x.astype(np.float64)
