"""Reductions over axes, and sums along one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from agnostic.errors import UnknownName, nearest
from agnostic.program.nodes import Array
from agnostic.program.shapes import reduced
from agnostic.program.vocabulary import Shape, operator, per_element, size


def _logsumexp(x: Array, axis: tuple[int, ...], keepdims: bool) -> Array:
    top = x.max(axis, keepdims=True)
    top = np.where(np.isfinite(top), top, 0.0)
    result: Array = np.log(np.exp(x - top).sum(axis, keepdims=True)) + top
    return result if keepdims else np.squeeze(result, axis)


FUNCTIONS: Mapping[str, Callable[..., Array]] = {
    "sum": np.sum,
    "mean": np.mean,
    "product": np.prod,
    "max": np.max,
    "min": np.min,
    "any": np.any,
    "all": np.all,
    "logsumexp": _logsumexp,
}


def _reduce_shape(x: Shape, *, function: str, axes: Sequence[int] | None = None, keep: bool = False) -> Shape:
    return reduced(x, axes, keep)


def _input_flops(x: Shape, *, out: Any, **attributes: Any) -> int:
    return size(x)


@operator(shape=_reduce_shape, flops=_input_flops)
def reduce(x: Array, *, function: str, axes: Sequence[int] | None = None, keep: bool = False) -> Array:
    """The sum, mean, product, max, min, any, all or logsumexp over axes.

    ``y = x[0] + ... + x[n - 1]`` for the sum.

    Args:
        x: any shape.
        function: one of these names.
        axes: which; None: all.
        keep: reduced axes stay, with length 1.
    """
    if function not in FUNCTIONS:
        raise UnknownName(f"no reduction {function!r}{nearest(function, FUNCTIONS)}")
    along = tuple(range(x.ndim)) if axes is None else tuple(axes)
    return np.asarray(FUNCTIONS[function](x, axis=along, keepdims=keep))


def _variance_shape(
    x: Shape, *, axes: Sequence[int] | None = None, keep: bool = False, correction: float = 0, root: bool = False
) -> Shape:
    return reduced(x, axes, keep)


@operator(shape=_variance_shape, flops=lambda x, *, out, **attributes: 3 * size(x))
def variance(
    x: Array, *, axes: Sequence[int] | None = None, keep: bool = False, correction: float = 0, root: bool = False
) -> Array:
    """The sum of squared distances from the mean, divided by n - correction; with ``root`` its square root.

    Args:
        axes: over which it is taken.
        keep: whether axes stay, with length 1.
    """
    along = tuple(range(x.ndim)) if axes is None else tuple(axes)
    result = np.asarray(x.var(along, keepdims=keep, ddof=correction))
    return np.sqrt(result) if root else result


def _norm_shape(x: Shape, *, order: float = 2, axes: Sequence[int] | None = None, keep: bool = False) -> Shape:
    return reduced(x, axes, keep)


@operator(shape=_norm_shape, flops=lambda x, *, out, **attributes: 2 * size(x))
def norm(x: Array, *, order: float = 2, axes: Sequence[int] | None = None, keep: bool = False) -> Array:
    """(sum of |x|^order)^(1 / order) over axes; the largest or smallest |x| for order infinity or minus infinity.

    ``y = (sum |x|^order)^(1 / order)``.

    Args:
        keep: whether axes stay, with length 1.
    """
    along = tuple(range(x.ndim)) if axes is None else tuple(axes)
    if np.isinf(order):
        return np.asarray((np.max if order > 0 else np.min)(np.abs(x), axis=along, keepdims=keep))
    if order == 0:
        return np.asarray((x != 0).sum(along, keepdims=keep).astype(x.dtype))
    return np.asarray((np.abs(x) ** order).sum(along, keepdims=keep) ** (1.0 / order))


def _place_shape(x: Shape, *, axis: int | None = None, keep: bool = False) -> Shape:
    return reduced(x, None if axis is None else [axis], keep)


@operator(shape=_place_shape, flops=_input_flops)
def argmax(x: Array, *, axis: int | None = None, keep: bool = False) -> Array:
    """The first place of the largest number along an axis, or in the flat array.

    ``y = min {i: x[i] = max(x)}``.

    Args:
        keep: whether axes stay, with length 1.
    """
    return np.asarray(np.argmax(x, axis, keepdims=keep))


@operator(shape=_place_shape, flops=_input_flops)
def argmin(x: Array, *, axis: int | None = None, keep: bool = False) -> Array:
    """The first place of the smallest number along an axis, or in the flat array.

    ``y = min {i: x[i] = min(x)}``.

    Args:
        keep: whether axes stay, with length 1.
    """
    return np.asarray(np.argmin(x, axis, keepdims=keep))


def _same(x: Shape, **attributes: Any) -> Shape:
    return x


@operator(shape=_same, flops=per_element)
def cumulative(x: Array, *, function: str = "sum", axis: int) -> Array:
    """The running sum, product, max or min along an axis.

    ``y[i] = x[0] + ... + x[i]`` for the sum.

    Args:
        function: ``"sum"``, ``"product"``, ``"max"`` or ``"min"``.
    """
    running: Mapping[str, Any] = {
        "sum": np.cumsum, "product": np.cumprod, "max": np.maximum.accumulate, "min": np.minimum.accumulate,
    }  # fmt: skip
    if function not in running:
        raise UnknownName(f"no running {function!r}{nearest(function, running)}")
    return np.asarray(running[function](x, axis=axis))


def _top_shape(x: Shape, *, count: int, axis: int = -1, largest: bool = True) -> tuple[Shape, Shape]:
    axis %= len(x)
    shape = (*x[:axis], count, *x[axis + 1 :])
    return shape, shape


@operator(shape=_top_shape, flops=_input_flops)
def top(x: Array, *, count: int, axis: int = -1, largest: bool = True) -> tuple[Array, Array]:
    """The ``count`` largest (or smallest) numbers along an axis in order, and their places."""
    places = np.argsort(-x if largest else x, axis=axis, kind="stable").take(range(count), axis)
    return np.take_along_axis(x, places, axis), places
