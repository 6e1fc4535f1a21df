"""Functions over the array operations of any framework: norms, and functions with a gradient everywhere.

The operations themselves are a contract, :class:`agnostic.contracts.ops.Ops`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from agnostic.contracts.ops import OPS, Array, Axis, Ops
from agnostic.errors import InvalidInput
from agnostic.reference.ops import ops as _numpy_ops
from agnostic.registry import array_owner, get_backend

__all__ = [
    "Array",
    "Axis",
    "Ops",
    "norm",
    "norms",
    "safe_divide",
    "safe_log",
    "safe_norm",
    "safe_sqrt",
    "widened",
]


def __dir__() -> list[str]:
    return sorted(__all__)


# Norms ----------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Safe:
    """Between which magnitudes squares can be summed, and a power of 2 that leads there from outside.

    A sum of 2^30 squares neither overflows nor loses digits to numbers below the least; multiplying by a power of 2
    rounds nothing, so that a norm is the same number with the scale and without.
    """

    least: float
    most: float
    factor: float


_SAFE: Mapping[str, _Safe] = {
    "float32": _Safe(2.0**-40, 2.0**48, 2.0**90),
    "float64": _Safe(2.0**-400, 2.0**450, 2.0**600),
}


def widened(ops: Ops, x: Array) -> Array:
    """float16 and bfloat16 as float32; other types as they are.

    Args:
        ops: the operations of the framework at hand.
        x: floating point, any shape.

    Returns:
        float32 or float64, of the same shape.

    Example:
        >>> from agnostic.reference.ops import NumpyOps
        >>> ag.ops.widened(NumpyOps(), np.ones(2, np.float16)).dtype
        dtype('float32')
    """
    return ops.cast(x, "float32") if ops.dtype(x) in ("float16", "bfloat16") else x


def norm(ops: Ops, x: Array, axis: Axis = None, keepdims: bool = False) -> Array:
    """The Euclidean norm, whose squares neither overflow nor vanish; its gradient at 0 is 0.

    Args:
        ops: the operations of the framework at hand.
        x: floating point, any shape.
        axis: what to sum over; None: all axes.
        keepdims: keep those axes, with length 1.

    Returns:
        The norm over ``axis``, in float32 for half precision, in whose own type it may not fit; else in the type of
        ``x``. Infinite elements give infinity, NaN gives NaN.

    Source: Blue, "A Portable Fortran Program to Find the Euclidean Norm of a Vector", 1978.

    Example:
        >>> from agnostic.reference.ops import NumpyOps
        >>> float(ag.ops.norm(NumpyOps(), np.array([3e200, 4e200]))) / 1e200
        5.0
    """
    if axis is None and not keepdims:
        return norms(ops, [x])[0]
    x = widened(ops, x)
    if ops.dtype(x) not in _SAFE or 0 in ops.shape(x):
        return ops.norm(x, axis, keepdims)
    scale = _scale(ops, ops.max(ops.abs(x), axis, keepdims=True))
    length = ops.norm(x * scale, axis, keepdims)
    # The greatest of the one element that is left along ``axis``: a reshape without sizes, which a trace may not know.
    return length / (scale if keepdims else ops.max(scale, axis))


def norms(ops: Ops, arrays: Sequence[Array]) -> Array:
    """The Euclidean norm of each of several arrays, as by :func:`norm`: (arrays,), in the widest of their types.

    Costs one pass over an array where its norm is at hand (:meth:`Ops.known`), else three, as a maximum comes first.

    Args:
        ops: the operations of the framework at hand.
        arrays: floating point, any shapes; at least one.

    Returns:
        (arrays,), float32 or float64.

    Example:
        >>> from agnostic.reference.ops import NumpyOps
        >>> ag.ops.norms(NumpyOps(), [np.array([3.0, 4.0]), np.array([2.0])]).tolist()
        [5.0, 2.0]
    """
    wide = [widened(ops, x) for x in arrays]
    dtype = "float64" if any(ops.dtype(x) == "float64" for x in wide) else "float32"
    wide = [ops.cast(x, dtype) for x in wide]
    safe, lengths = _SAFE[dtype], []
    for x in wide:
        lengths.append(ops.norm(x))
        value = ops.known(lengths[-1])
        if value is None or not ((value == 0 and 0 in ops.shape(x)) or safe.least <= value <= safe.most):
            break
    else:
        return ops.stack(lengths)
    largest = [ops.max(ops.abs(x)) if 0 not in ops.shape(x) else ops.sum(x) for x in wide]
    scales = _scale(ops, ops.stack(largest))
    return ops.stack([ops.norm(x * scales[i]) for i, x in enumerate(wide)]) / scales


def _scale(ops: Ops, largest: Array) -> Array:
    """What brings numbers of at most ``largest`` to where they can be squared: a power of 2, mostly 1."""
    safe = _SAFE[ops.dtype(largest)]
    largest = ops.stop_gradient(largest)
    small, large = (ops.cast(x, ops.dtype(largest)) for x in (largest < safe.least, largest > safe.most))
    return ((1 - small) + small * safe.factor) * ((1 - large) + large / safe.factor)


# Functions with a defined value and gradient everywhere ---------------------------------------------------------------
# The input is made safe before the function, not its result after it: a result that ``where`` throws away still sends
# its gradient, and 0 times infinity is NaN.


def _constant(ops: Ops, like: Array, value: float) -> Array:
    # Not from ``like * 0``, which is NaN where ``like`` is infinite.
    return ops.cast(ops.asarray(np.asarray(value)), ops.dtype(like))


# The smallest number whose reciprocal, which is the gradient of the logarithm, the type can hold.
_LEAST = {"float16": 2.0**-14}


def _ops_of(x: Any) -> Ops:
    """The operations of the framework that an array belongs to, on its device; NumPy's for NumPy's."""
    owner = array_owner(x)
    if owner is not None:
        return get_backend(owner.name)[OPS].ops_for([x])
    if not isinstance(x, np.ndarray | np.generic):
        raise InvalidInput(f"an array was expected, not {type(x).__name__}")
    return _numpy_ops


def _ops_inferred(function: Callable[..., Array]) -> Callable[..., Array]:
    """``function(ops, x, ...)`` that may be called as ``function(x, ...)``: whose array it is, tells the operations."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Array:
        if "ops" in kwargs or (args and hasattr(args[0], "stop_gradient")):
            return function(*args, **kwargs)
        return function(_ops_of(args[0] if args else kwargs["x"]), *args, **kwargs)

    return call


@_ops_inferred
def safe_log(ops: Ops, x: Array, least: float = 1e-12) -> Array:
    """``log(max(x, least))``: where ``x`` is less, the value is ``log(least)`` and the gradient 0. NaN stays NaN.

    Args:
        ops: may be left out: ``safe_log(x)``.
        x: of a floating-point type.
        least: greater than 0. In float16 it is at least 2^-14, whose reciprocal that type can hold.

    Returns:
        The shape and dtype of ``x``; at least ``log(least)``.

    Source: the FAQ of jax, "Gradients contain NaN where using where", for the bound inside.

    Example:
        >>> x = torch.tensor([0.0, 1.0], requires_grad=True)
        >>> ag.ops.safe_log(x).sum().backward()
        >>> x.grad
        tensor([0., 1.])
    """
    least = max(least, _LEAST.get(ops.dtype(x), 0.0))
    low = x < least
    return ops.log(ops.where(low, _constant(ops, x, least), x))


@_ops_inferred
def safe_sqrt(ops: Ops, x: Array) -> Array:
    """The square root; 0 with gradient 0 where ``x`` is 0 or negative. NaN stays NaN.

    Args:
        ops: the operations of the framework at hand; may be left out.
        x: floating point, any shape.

    Returns:
        The shape and dtype of ``x``; 0 or more.

    Example:
        >>> x = torch.tensor([0.0, 4.0], requires_grad=True)
        >>> ag.ops.safe_sqrt(x).sum().backward()
        >>> x.grad
        tensor([0.0000, 0.2500])
    """
    low = x <= 0
    return ops.where(low, _constant(ops, x, 0.0), ops.sqrt(ops.where(low, _constant(ops, x, 1.0), x)))


@_ops_inferred
def safe_divide(ops: Ops, a: Array, b: Array) -> Array:
    """``a / b``; 0 with gradients 0 where ``b`` is 0. NaN stays NaN.

    Args:
        ops: the operations of the framework at hand; may be left out.
        a, b: floating point, of shapes that broadcast.

    Returns:
        The shape that ``a`` and ``b`` broadcast to.

    Example:
        >>> ag.ops.safe_divide(torch.tensor([1.0, 1.0]), torch.tensor([0.0, 2.0]))
        tensor([0.0000, 0.5000])
    """
    zero = b == 0
    quotient = a / ops.where(zero, _constant(ops, b, 1.0), b)
    return ops.where(zero, _constant(ops, quotient, 0.0), quotient)


@_ops_inferred
def safe_norm(ops: Ops, x: Array, axis: Axis = None, keepdims: bool = False) -> Array:
    """:func:`norm` in the type of ``x``; its gradient at 0 is 0, where jax and TensorFlow give NaN.

    Args:
        ops: the operations of the framework at hand; may be left out.
        x: floating point, any shape.
        axis: what to sum over; None: all axes.
        keepdims: keep those axes, with length 1.

    Returns:
        The dtype of ``x``; 0 or more.

    Example:
        >>> x = torch.zeros(2, requires_grad=True)
        >>> ag.ops.safe_norm(x).backward()
        >>> x.grad
        tensor([0., 0.])
    """
    return ops.cast(norm(ops, x, axis, keepdims), ops.dtype(x))
