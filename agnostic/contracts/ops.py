"""Capability: the array operations that shared mathematics is written in.

Shared mathematics (objectives, image parameterizations, update rules) takes an ``ops`` and native arrays. Operators
(``+ - * / ** @ < >``, indexing with slices, ``None`` and ``...``) are those of the arrays themselves; everything else
goes through the table :class:`Ops`. No operation changes its input, and none needs a value that only a running program
knows, so the same code can be traced by torch.compile, jax.jit and tf.function.

Names and meaning are NumPy's; deviations are said in the docstrings. :class:`agnostic.reference.ops.NumpyOps` is the
float64 reference and the judge of the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from agnostic.contracts.capability import Capability

if TYPE_CHECKING:  # ``agnostic --help`` imports this module, and no NumPy
    import numpy as np
    import numpy.typing as npt

Array: TypeAlias = Any
"""An array of the framework at hand."""

Axis: TypeAlias = int | Sequence[int] | None


class Ops(Protocol):
    """Array operations of one framework, for one device. ``dtype`` is always a name, such as ``"float32"``.

    The operations take

    - ``x``, ``a``, ``b``, ``condition``, ``indices``, ``real``, ``imaginary``, ``arrays``, ``operands``: native arrays
      of any shape and dtype that the operation makes sense for; what is elementwise broadcasts;
    - ``axis``, ``axes``: axes counted from 0, or from the end by negative numbers; None is all axes;
    - ``keepdims``: keep the axes that are reduced, with length 1;
    - ``shape``, ``widths``, ``repeats``, ``low``, ``high``, ``weight``, ``beta``, ``alpha``, ``equation``, ``value``:
      Python numbers, tuples and texts, never arrays,

    and return a new native array of the dtype of their array, unless they say otherwise.

    Example:
        >>> from agnostic.reference.ops import NumpyOps
        >>> ops = NumpyOps()
        >>> ops.mean(ops.square(ops.asarray([1.0, 3.0]))).item()
        5.0
    """

    @property
    def name(self) -> str:
        """What computes."""
        ...

    # To and from NumPy
    def asarray(self, value: npt.ArrayLike | Array, dtype: str | None = None) -> Array:
        """A native array of a NumPy array, a number, nested lists, or a native array; ``dtype`` None keeps its own."""

    def numpy(self, x: Array) -> np.ndarray[Any, Any]:
        """A NumPy array that shares no memory with later changes; bfloat16 comes as float32."""

    # Type and shape
    def dtype(self, x: Array) -> str:
        """The name of the type of the elements, such as ``"float32"``."""

    def cast(self, x: Array, dtype: str) -> Array:
        """The same numbers in another type."""

    def shape(self, x: Array) -> tuple[int, ...]:
        """The sizes of the axes; in a trace those that are not known may be symbols."""

    def reshape(self, x: Array, shape: Sequence[int]) -> Array:
        """``np.reshape``: -1 stands for what is left."""

    def transpose(self, x: Array, axes: Sequence[int]) -> Array:
        """``np.transpose``: axis i of the result is axis ``axes[i]`` of ``x``."""

    def concatenate(self, arrays: Sequence[Array], axis: int = 0) -> Array:
        """``np.concatenate``."""

    def stack(self, arrays: Sequence[Array], axis: int = 0) -> Array:
        """``np.stack``: along a new axis."""

    def expand(self, x: Array, shape: Sequence[int]) -> Array:
        """``np.broadcast_to``: a view where the framework has views. Writing to it is an error."""

    def repeat(self, x: Array, repeats: int, axis: int) -> Array:
        """``np.repeat``: each element ``repeats`` times in a row along ``axis``, as a copy."""

    def flip(self, x: Array, axis: Axis) -> Array:
        """``np.flip``: the elements along ``axis`` in reverse order."""

    def pad(self, x: Array, widths: Sequence[tuple[int, int]], value: float = 0.0) -> Array:
        """Constant padding: ``widths`` is one (before, after) a dimension."""

    # Choosing
    def take(self, x: Array, indices: Array, axis: int) -> Array:
        """``np.take``: ``indices`` is an integer array, whose shape replaces ``axis``."""

    def take_along_axis(self, x: Array, indices: Array, axis: int) -> Array:
        """``np.take_along_axis``: ``indices`` is an integer array with as many axes as ``x``."""

    def where(self, condition: Array, a: Array, b: Array) -> Array:
        """``a`` where the condition is true, else ``b``; the three broadcast."""

    # Elementwise
    def abs(self, x: Array) -> Array:
        """The absolute value."""

    def sign(self, x: Array) -> Array:
        """-1, 0 or 1."""

    def sqrt(self, x: Array) -> Array:
        """The square root."""

    def square(self, x: Array) -> Array:
        """The square."""

    def exp(self, x: Array) -> Array:
        """The exponential."""

    def log(self, x: Array) -> Array:
        """The natural logarithm."""

    def sin(self, x: Array) -> Array:
        """The sine, of radians."""

    def cos(self, x: Array) -> Array:
        """The cosine, of radians."""

    def tanh(self, x: Array) -> Array:
        """The hyperbolic tangent."""

    def sigmoid(self, x: Array) -> Array:
        """``1 / (1 + exp(-x))``."""

    def floor(self, x: Array) -> Array:
        """The greatest integer that is not above."""

    def maximum(self, a: Array, b: Array | float) -> Array:
        """The greater of two, element by element."""

    def minimum(self, a: Array, b: Array | float) -> Array:
        """The smaller of two, element by element."""

    def clip(self, x: Array, low: float, high: float) -> Array:
        """``minimum(maximum(x, low), high)``."""

    def isfinite(self, x: Array) -> Array:
        """True where an element is neither infinite nor NaN."""

    def lerp(self, a: Array, b: Array, weight: float) -> Array:
        """``a + weight * (b - a)``, as exactly as the framework has it."""

    # Reductions; ``axis`` None is all axes
    def sum(self, x: Array, axis: Axis = None, keepdims: bool = False) -> Array:
        """The sum over ``axis``."""

    def mean(self, x: Array, axis: Axis = None, keepdims: bool = False) -> Array:
        """The mean over ``axis``."""

    def max(self, x: Array, axis: Axis = None, keepdims: bool = False) -> Array:
        """The greatest over ``axis``."""

    def min(self, x: Array, axis: Axis = None, keepdims: bool = False) -> Array:
        """The smallest over ``axis``."""

    def norm(self, x: Array, axis: Axis = None, keepdims: bool = False) -> Array:
        """``sqrt(sum(x ** 2))`` as it stands, with gradient 0 at 0: squares may be too large or too small for the type.

        :func:`norm` is what shared mathematics calls.
        """

    def known(self, x: Array) -> float | None:
        """The value of an array of one element where it is at hand; None in a trace, or where it takes waiting for."""

    # Products and transforms
    def matmul(self, a: Array, b: Array) -> Array:
        """``np.matmul``."""

    def addmm(self, x: Array, a: Array, b: Array, beta: float, alpha: float) -> Array:
        """``beta * x + alpha * (a @ b)`` of matrices; in half precision it is rounded once, at the end."""

    def einsum(self, equation: str, *operands: Array) -> Array:
        """``np.einsum``, with an explicit output."""

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

    def stop_gradient(self, x: Array) -> Array:
        """``x``, through which no gradient flows."""


class Operations(Protocol):
    """The operations, and what computes them."""

    def ops_for(self, arrays: Sequence[Any] = ()) -> Ops:
        """The operations on the device of the first native array among these."""

    def engine(self) -> str:
        """What computes: the backend's own name, unless it computes by other frameworks, one at a time."""


OPS: Capability[Operations] = Capability("ops", Operations, "compute")
