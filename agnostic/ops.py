"""The Ops contract: the array operations that the shared mathematics is written in.

Shared mathematics (objectives, image parameterizations, update rules) takes an ``ops`` and native arrays. Operators
(``+ - * / ** @ < >``, indexing with slices, ``None`` and ``...``) are those of the arrays themselves; everything else
goes through this table. No operation changes its input, and none needs a value that only a running program knows, so
the same code can be traced by torch.compile, jax.jit and tf.function.

Names and meaning are NumPy's; deviations are said in the docstrings. :class:`agnostic.reference.ops.NumpyOps` is the
float64 reference and the judge of the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = Any
"""An array of the framework at hand."""

Axis: TypeAlias = int | Sequence[int] | None


class Ops(Protocol):
    """Array operations of one framework, for one device. ``dtype`` is always a name, such as ``"float32"``."""

    name: str

    # To and from NumPy
    def asarray(self, value: npt.ArrayLike | Array, dtype: str | None = None) -> Array:
        """A native array of a NumPy array, a number, nested lists, or a native array; ``dtype`` None keeps its own."""

    def numpy(self, x: Array) -> np.ndarray[Any, Any]:
        """A NumPy array that shares no memory with later changes; bfloat16 comes as float32."""

    # Type and shape
    def dtype(self, x: Array) -> str: ...
    def cast(self, x: Array, dtype: str) -> Array: ...
    def shape(self, x: Array) -> tuple[int, ...]: ...
    def reshape(self, x: Array, shape: Sequence[int]) -> Array: ...
    def transpose(self, x: Array, axes: Sequence[int]) -> Array: ...
    def concatenate(self, arrays: Sequence[Array], axis: int = 0) -> Array: ...
    def stack(self, arrays: Sequence[Array], axis: int = 0) -> Array: ...

    def expand(self, x: Array, shape: Sequence[int]) -> Array:
        """``np.broadcast_to``: a view where the framework has views. Writing to it is an error."""

    def repeat(self, x: Array, repeats: int, axis: int) -> Array:
        """``np.repeat``: each element ``repeats`` times in a row along ``axis``, as a copy."""

    def flip(self, x: Array, axis: Axis) -> Array: ...
    def pad(self, x: Array, widths: Sequence[tuple[int, int]], value: float = 0.0) -> Array:
        """Constant padding: ``widths`` is one (before, after) a dimension."""

    # Choosing
    def take(self, x: Array, indices: Array, axis: int) -> Array:
        """``np.take``: ``indices`` is an integer array, whose shape replaces ``axis``."""

    def take_along_axis(self, x: Array, indices: Array, axis: int) -> Array: ...
    def where(self, condition: Array, a: Array, b: Array) -> Array: ...

    # Elementwise
    def abs(self, x: Array) -> Array: ...
    def sign(self, x: Array) -> Array: ...
    def sqrt(self, x: Array) -> Array: ...
    def square(self, x: Array) -> Array: ...
    def exp(self, x: Array) -> Array: ...
    def log(self, x: Array) -> Array: ...
    def sin(self, x: Array) -> Array: ...
    def cos(self, x: Array) -> Array: ...
    def tanh(self, x: Array) -> Array: ...
    def sigmoid(self, x: Array) -> Array: ...
    def floor(self, x: Array) -> Array: ...
    def maximum(self, a: Array, b: Array | float) -> Array: ...
    def minimum(self, a: Array, b: Array | float) -> Array: ...
    def clip(self, x: Array, low: float, high: float) -> Array: ...
    def isfinite(self, x: Array) -> Array: ...

    # Reductions; ``axis`` None is all axes
    def sum(self, x: Array, axis: Axis = None, keepdims: bool = False) -> Array: ...
    def mean(self, x: Array, axis: Axis = None, keepdims: bool = False) -> Array: ...
    def max(self, x: Array, axis: Axis = None, keepdims: bool = False) -> Array: ...
    def min(self, x: Array, axis: Axis = None, keepdims: bool = False) -> Array: ...

    # Products and transforms
    def matmul(self, a: Array, b: Array) -> Array: ...
    def einsum(self, equation: str, *operands: Array) -> Array: ...

    def irfft2(self, real: Array, imaginary: Array, shape: tuple[int, int]) -> Array:
        """``np.fft.irfft2(real + 1j * imaginary, s=shape, norm="ortho")`` over the last two axes."""

    def warp(self, images: Array, matrices: Array, shape: tuple[int, int]) -> Array:
        """Resample images by one affine map each, bilinearly, in one pass.

        Args:
            images: (N, H, W, C).
            matrices: (N, 2, 3). Pixel (y, x) of the output is read at ``matrix @ (y, x, 1)`` of the input, in pixels,
                with (0, 0) the centre of the first pixel. Outside the image the nearest edge pixel is read.
            shape: (height, width) of the output.

        Returns:
            (N, height, width, C), of the dtype of ``images``. Differentiable with respect to ``images``.
        """

    def stop_gradient(self, x: Array) -> Array: ...
