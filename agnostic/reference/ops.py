"""The Ops contract in NumPy: the reference that backends are held to, and what framework-free code computes with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from agnostic.contracts.ops import Axis

_Array = np.ndarray[Any, Any]


def _array(x: Any) -> _Array:
    """An array where NumPy gave a number; what is an array by NumPy's protocols stays what it is."""
    return np.asarray(x) if isinstance(x, np.generic) else x


def _axis(axis: Axis) -> int | tuple[int, ...] | None:
    return tuple(axis) if isinstance(axis, Sequence) else axis


class NumpyOps:
    """See :class:`agnostic.ops.Ops`. Types follow NumPy's promotion: float64 in, float64 out.

    Nothing is made a NumPy array that is one by NumPy's protocols (``__array_ufunc__``, ``__array_function__``): a
    backend whose arrays follow them can use these operations.
    """

    name = "numpy"

    def asarray(self, value: npt.ArrayLike, dtype: str | None = None) -> _Array:
        return np.asarray(value, dtype=dtype)

    def numpy(self, x: _Array) -> _Array:
        return np.array(x)

    def dtype(self, x: _Array) -> str:
        return str(x.dtype.name)

    def cast(self, x: _Array, dtype: str) -> _Array:
        return x.astype(dtype, copy=False)

    def shape(self, x: _Array) -> tuple[int, ...]:
        return tuple(x.shape)

    def reshape(self, x: _Array, shape: Sequence[int]) -> _Array:
        return x.reshape(tuple(shape))

    def transpose(self, x: _Array, axes: Sequence[int]) -> _Array:
        return x.transpose(tuple(axes))

    def concatenate(self, arrays: Sequence[_Array], axis: int = 0) -> _Array:
        return np.concatenate(arrays, axis)

    def stack(self, arrays: Sequence[_Array], axis: int = 0) -> _Array:
        return np.stack(arrays, axis)

    def expand(self, x: _Array, shape: Sequence[int]) -> _Array:
        return np.broadcast_to(x, tuple(shape))

    def repeat(self, x: _Array, repeats: int, axis: int) -> _Array:
        return np.repeat(x, repeats, axis)

    def flip(self, x: _Array, axis: Axis) -> _Array:
        return np.flip(x, _axis(axis))

    def pad(self, x: _Array, widths: Sequence[tuple[int, int]], value: float = 0.0) -> _Array:
        return np.pad(x, tuple(widths), constant_values=value)

    def take(self, x: _Array, indices: _Array, axis: int) -> _Array:
        return np.take(x, indices, axis)

    def take_along_axis(self, x: _Array, indices: _Array, axis: int) -> _Array:
        return np.take_along_axis(x, indices, axis)

    def where(self, condition: _Array, a: _Array, b: _Array) -> _Array:
        return np.where(condition, a, b)

    def abs(self, x: _Array) -> _Array:
        return np.abs(x)

    def sign(self, x: _Array) -> _Array:
        return np.sign(x)

    def sqrt(self, x: _Array) -> _Array:
        return np.sqrt(x)

    def square(self, x: _Array) -> _Array:
        return np.square(x)

    def exp(self, x: _Array) -> _Array:
        return np.exp(x)

    def log(self, x: _Array) -> _Array:
        return np.log(x)

    def sin(self, x: _Array) -> _Array:
        return np.sin(x)

    def cos(self, x: _Array) -> _Array:
        return np.cos(x)

    def tanh(self, x: _Array) -> _Array:
        return np.tanh(x)

    def sigmoid(self, x: _Array) -> _Array:
        # The form that overflows on neither side.
        return 0.5 * (np.tanh(0.5 * x) + 1.0)

    def floor(self, x: _Array) -> _Array:
        return np.floor(x)

    def maximum(self, a: _Array, b: _Array | float) -> _Array:
        return np.maximum(a, b)

    def minimum(self, a: _Array, b: _Array | float) -> _Array:
        return np.minimum(a, b)

    def clip(self, x: _Array, low: float, high: float) -> _Array:
        return np.clip(x, low, high)

    def isfinite(self, x: _Array) -> _Array:
        return np.isfinite(x)

    def sum(self, x: _Array, axis: Axis = None, keepdims: bool = False) -> _Array:
        return _array(np.sum(x, axis=_axis(axis), keepdims=keepdims))

    def mean(self, x: _Array, axis: Axis = None, keepdims: bool = False) -> _Array:
        return _array(np.mean(x, axis=_axis(axis), keepdims=keepdims))

    def max(self, x: _Array, axis: Axis = None, keepdims: bool = False) -> _Array:
        return _array(np.max(x, axis=_axis(axis), keepdims=keepdims))

    def min(self, x: _Array, axis: Axis = None, keepdims: bool = False) -> _Array:
        return _array(np.min(x, axis=_axis(axis), keepdims=keepdims))

    def lerp(self, a: _Array, b: _Array, weight: float) -> _Array:
        return _array(a + weight * (b - a))

    def norm(self, x: _Array, axis: Axis = None, keepdims: bool = False) -> _Array:
        with np.errstate(over="ignore", under="ignore"):
            return _array(np.sqrt(np.sum(np.square(x), axis=_axis(axis), keepdims=keepdims)))

    def known(self, x: _Array) -> float | None:
        return None  # the reference computes in one way alone

    def addmm(self, x: _Array, a: _Array, b: _Array, beta: float, alpha: float) -> _Array:
        return _array(beta * x + alpha * np.matmul(a, b))

    def matmul(self, a: _Array, b: _Array) -> _Array:
        return _array(np.matmul(a, b))

    def einsum(self, equation: str, *operands: _Array) -> _Array:
        result: _Array = np.einsum(equation, *operands, optimize=len(operands) > 2)
        return result

    def irfft2(self, real: _Array, imaginary: _Array, shape: tuple[int, int]) -> _Array:
        return np.fft.irfft2(real + 1j * imaginary, s=shape, norm="ortho").astype(real.dtype, copy=False)

    def warp(self, images: _Array, matrices: _Array, shape: tuple[int, int]) -> _Array:
        count, height, width, _ = images.shape
        rows, columns = np.mgrid[: shape[0], : shape[1]]
        points = np.stack([rows, columns, np.ones_like(rows)]).reshape(3, -1)
        y, x = np.moveaxis(np.asarray(matrices, np.float64) @ points, 1, 0)
        y, x = np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)
        top, left = np.floor(y).astype(np.intp), np.floor(x).astype(np.intp)
        bottom, right = np.minimum(top + 1, height - 1), np.minimum(left + 1, width - 1)
        down, across = (y - top)[..., None], (x - left)[..., None]
        n = np.arange(count)[:, None]
        upper = images[n, top, left] * (1 - across) + images[n, top, right] * across
        lower = images[n, bottom, left] * (1 - across) + images[n, bottom, right] * across
        warped = upper * (1 - down) + lower * down
        result: _Array = warped.reshape(count, *shape, -1).astype(images.dtype, copy=False)
        return result

    def stop_gradient(self, x: _Array) -> _Array:
        return x


ops = NumpyOps()
