"""The Ops contract in Keras, for all its engines. See :mod:`agnostic.ops` for the meaning of each operation.

On jax, 64-bit arrays become 32-bit ones: jax's default, and Keras' promotion there even if ``jax_enable_x64`` is set.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from agnostic.ops import Array, Axis, widened
from agnostic_keras import engines


def _axis(axis: Axis) -> Any:
    return tuple(axis) if isinstance(axis, Sequence) else axis


class KerasOps:
    """See :class:`agnostic.ops.Ops`."""

    @property
    def name(self) -> str:
        return f"keras-{keras.config.backend()}"

    def asarray(self, value: Any, dtype: str | None = None) -> Array:
        if not keras.backend.is_keras_tensor(value) and not ops.is_tensor(value):
            value = ops.convert_to_tensor(np.asarray(value))
        return value if dtype is None else ops.cast(value, dtype)

    def numpy(self, x: Array) -> np.ndarray[Any, Any]:
        return np.array(ops.convert_to_numpy(ops.cast(x, "float32") if self.dtype(x) == "bfloat16" else x))

    def dtype(self, x: Array) -> str:
        name: str = keras.backend.standardize_dtype(x.dtype)
        return name

    def cast(self, x: Array, dtype: str) -> Array:
        return ops.cast(x, dtype)

    def shape(self, x: Array) -> tuple[int, ...]:
        return tuple(x.shape)

    def reshape(self, x: Array, shape: Sequence[int]) -> Array:
        return ops.reshape(x, tuple(shape))

    def transpose(self, x: Array, axes: Sequence[int]) -> Array:
        return ops.transpose(x, tuple(axes))

    def concatenate(self, arrays: Sequence[Array], axis: int = 0) -> Array:
        return ops.concatenate(list(arrays), axis)

    def stack(self, arrays: Sequence[Array], axis: int = 0) -> Array:
        return ops.stack(list(arrays), axis)

    def expand(self, x: Array, shape: Sequence[int]) -> Array:
        return ops.broadcast_to(x, tuple(shape))

    def repeat(self, x: Array, repeats: int, axis: int) -> Array:
        return ops.copy(ops.repeat(x, repeats, axis))  # which is a view on PyTorch

    def flip(self, x: Array, axis: Axis) -> Array:
        return ops.flip(x, _axis(axis))

    def pad(self, x: Array, widths: Sequence[tuple[int, int]], value: float = 0.0) -> Array:
        return ops.pad(x, tuple(widths), constant_values=value)

    def take(self, x: Array, indices: Array, axis: int) -> Array:
        return ops.take(x, indices, axis)

    def take_along_axis(self, x: Array, indices: Array, axis: int) -> Array:
        return ops.take_along_axis(x, indices, axis)

    def where(self, condition: Array, a: Array, b: Array) -> Array:
        return ops.where(condition, a, b)

    def abs(self, x: Array) -> Array:
        return ops.abs(x)

    def sign(self, x: Array) -> Array:
        return ops.sign(x)

    def sqrt(self, x: Array) -> Array:
        return ops.sqrt(x)

    def square(self, x: Array) -> Array:
        return ops.square(x)

    def exp(self, x: Array) -> Array:
        return ops.exp(x)

    def log(self, x: Array) -> Array:
        return ops.log(x)

    def sin(self, x: Array) -> Array:
        return ops.sin(x)

    def cos(self, x: Array) -> Array:
        return ops.cos(x)

    def tanh(self, x: Array) -> Array:
        return engines.current().tanh(x)  # keras.ops.tanh of float64 goes through float32 on jax

    def sigmoid(self, x: Array) -> Array:
        return ops.sigmoid(x)

    def floor(self, x: Array) -> Array:
        return ops.floor(x)

    def maximum(self, a: Array, b: Array | float) -> Array:
        return engines.current().maximum(a, b)  # keras.ops.maximum of float64 goes through float32 in PyTorch

    def minimum(self, a: Array, b: Array | float) -> Array:
        return engines.current().minimum(a, b)

    def clip(self, x: Array, low: float, high: float) -> Array:
        return ops.clip(x, low, high)

    def isfinite(self, x: Array) -> Array:
        return ops.isfinite(x)

    def sum(self, x: Array, axis: Axis = None, keepdims: bool = False) -> Array:
        return ops.sum(x, _axis(axis), keepdims)

    def mean(self, x: Array, axis: Axis = None, keepdims: bool = False) -> Array:
        # keras.ops.mean of float64 goes through float32 in TensorFlow.
        total = ops.sum(x, _axis(axis), keepdims)
        return total / (math.prod(x.shape) // math.prod(total.shape))

    def max(self, x: Array, axis: Axis = None, keepdims: bool = False) -> Array:
        return ops.max(x, _axis(axis), keepdims)

    def min(self, x: Array, axis: Axis = None, keepdims: bool = False) -> Array:
        return ops.min(x, _axis(axis), keepdims)

    def lerp(self, a: Array, b: Array, weight: float) -> Array:
        return a + weight * (b - a)

    def norm(self, x: Array, axis: Axis = None, keepdims: bool = False) -> Array:
        return engines.current().norm(x, _axis(axis), keepdims)

    def known(self, x: Array) -> float | None:
        value: float | None = engines.current().known(x)
        return value

    def addmm(self, x: Array, a: Array, b: Array, beta: float, alpha: float) -> Array:
        wide = beta * widened(self, x) + alpha * (widened(self, a) @ widened(self, b))
        return ops.cast(wide, self.dtype(x))

    def matmul(self, a: Array, b: Array) -> Array:
        return a @ b  # keras.ops.matmul of float64 goes through float32 in PyTorch

    def einsum(self, equation: str, *operands: Array) -> Array:
        return ops.einsum(equation, *operands)

    def irfft2(self, real: Array, imaginary: Array, shape: tuple[int, int]) -> Array:
        return engines.current().irfft2(real, imaginary, shape)

    def warp(self, images: Array, matrices: Array, shape: tuple[int, int]) -> Array:
        count, height, width, channels = images.shape
        dtype = self.dtype(images)
        # Coordinates need the digits that half precision lacks.
        exact = "float64" if dtype == "float64" else "float32"
        m = ops.cast(matrices, exact)[:, None, None]
        rows = self.asarray(np.arange(shape[0], dtype=exact)[:, None])
        columns = self.asarray(np.arange(shape[1], dtype=exact))
        y = ops.clip(m[..., 0, 0] * rows + m[..., 0, 1] * columns + m[..., 0, 2], 0, height - 1)
        x = ops.clip(m[..., 1, 0] * rows + m[..., 1, 1] * columns + m[..., 1, 2], 0, width - 1)
        top, left = ops.floor(y), ops.floor(x)
        down, across = ops.cast(y - top, dtype)[..., None], ops.cast(x - left, dtype)[..., None]
        top, left = ops.cast(top, "int32"), ops.cast(left, "int32")
        bottom, right = ops.minimum(top + 1, height - 1), ops.minimum(left + 1, width - 1)
        flat = ops.reshape(images, (count * height * width, channels))
        first = self.asarray(np.arange(count, dtype=np.int32)[:, None, None] * (height * width))

        def read(row: Array, column: Array) -> Array:
            return ops.take(flat, first + row * width + column, 0)

        upper = read(top, left) * (1 - across) + read(top, right) * across
        lower = read(bottom, left) * (1 - across) + read(bottom, right) * across
        return upper * (1 - down) + lower * down

    def stop_gradient(self, x: Array) -> Array:
        return ops.stop_gradient(x)


def ops_for(arrays: Sequence[Any] = ()) -> KerasOps:
    """See :meth:`agnostic.contracts.ops.Operations.ops_for`: the same on every device."""
    engines.current()  # an engine that cannot differentiate is refused here
    return KerasOps()


def engine() -> str:
    """The engine that Keras is loaded with."""
    engines.current()
    return str(keras.config.backend())
