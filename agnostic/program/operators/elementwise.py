"""Functions of one number, and of two or three that broadcast."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from agnostic.errors import UnknownName, nearest
from agnostic.program.nodes import Array
from agnostic.program.shapes import broadcast
from agnostic.program.vocabulary import Shape, operator, per_element
from agnostic.reference.activations import erf


def _erfinv(y: Array) -> Array:
    """The inverse of erf: a first approximation, then Newton's method. Source: Winitzki, 2008, section 1."""
    a = 0.147
    log = np.log(1.0 - y * y)
    half = 2.0 / (np.pi * a) + log / 2.0
    x = np.asarray(np.sign(y) * np.sqrt(np.sqrt(half * half - log / a) - half))
    for _ in range(4):
        slope = 2.0 / np.sqrt(np.pi) * np.exp(-x * x)
        x = np.where(slope > 0, x - (erf(x) - y) / np.where(slope > 0, slope, 1.0), x)
    return x


def _log1p(x: Array) -> Array:
    return np.asarray(np.log1p(x))


UNARY: Mapping[str, Callable[..., Any]] = {
    "stop_gradient": np.positive,
    "negative": np.negative,
    "absolute": np.abs,
    "sign": np.sign,
    "exp": np.exp,
    "exp2": np.exp2,
    "expm1": np.expm1,
    "log": np.log,
    "log2": np.log2,
    "log10": np.log10,
    "log1p": _log1p,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1.0 / np.sqrt(x),
    "reciprocal": lambda x: 1.0 / x,
    "square": np.square,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "asinh": np.arcsinh,
    "acosh": np.arccosh,
    "atanh": np.arctanh,
    "erf": erf,
    "erfinv": _erfinv,
    "i0": np.i0,
    "floor": np.floor,
    "ceil": np.ceil,
    "round": np.round,
    "truncate": np.trunc,
    "fraction": lambda x: x - np.trunc(x),
    "not": np.logical_not,
    "real": np.real,
    "imaginary": np.imag,
    "conjugate": np.conj,
    "angle": np.angle,
    "is_nan": np.isnan,
    "is_infinite": np.isinf,
    "is_finite": np.isfinite,
}

BINARY: Mapping[str, Callable[..., Any]] = {
    "equal": np.equal,
    "not_equal": np.not_equal,
    "less": np.less,
    "less_equal": np.less_equal,
    "greater": np.greater,
    "greater_equal": np.greater_equal,
    "and": np.logical_and,
    "or": np.logical_or,
    "xor": np.logical_xor,
    "bit_and": np.bitwise_and,
    "bit_or": np.bitwise_or,
    "bit_xor": np.bitwise_xor,
    "atan2": np.arctan2,
    "floor_divide": np.floor_divide,
    # The sign of the divisor, as in Python.
    "remainder": np.remainder,
    # The sign of the dividend, as in C.
    "fmod": np.fmod,
    "gcd": np.gcd,
    "lcm": np.lcm,
    # The next number of the type that is computed in.
    "next_after": np.nextafter,
    "truncated_divide": lambda a, b: np.trunc(np.divide(a, b)),
}


def _same(x: Shape, **attributes: Any) -> Shape:
    return x


def _broadcast(*shapes: Any, **attributes: Any) -> Shape:
    return broadcast(*shapes)


@operator(shape=_same, flops=per_element)
def unary(x: Array, *, function: str) -> Array:
    """Y = f(x) by the name of a mathematical function."""
    if function not in UNARY:
        raise UnknownName(f"no function {function!r}{nearest(function, UNARY)}")
    return np.asarray(UNARY[function](x))


@operator(shape=_broadcast, flops=per_element)
def binary(a: Array, b: Array, *, function: str) -> Array:
    """Y = f(a, b): comparisons, logic, and divisions with remainder.

    Args:
        function: its name.
    """
    if function not in BINARY:
        raise UnknownName(f"no function {function!r} of two numbers{nearest(function, BINARY)}")
    return np.asarray(BINARY[function](a, b))


@operator(shape=_broadcast, flops=per_element)
def add(a: Array, b: Array) -> Array:
    """Y = a + b."""
    return np.asarray(np.add(a, b))


@operator(shape=_broadcast, flops=per_element)
def subtract(a: Array, b: Array) -> Array:
    """Y = a - b."""
    return np.asarray(np.subtract(a, b))


@operator(shape=_broadcast, flops=per_element)
def multiply(a: Array, b: Array) -> Array:
    """Y = a b."""
    return np.asarray(np.multiply(a, b))


@operator(shape=_broadcast, flops=per_element)
def divide(a: Array, b: Array) -> Array:
    """Y = a / b; integers give floating point."""
    return np.asarray(np.divide(a, b))


@operator(shape=_broadcast, flops=per_element)
def power(a: Array, b: Array) -> Array:
    """Y = a^b."""
    # An integer to a negative integer is an error in NumPy, and floating point in no framework.
    return np.asarray(np.power(a, b))


@operator(shape=_broadcast, flops=per_element)
def maximum(a: Array, b: Array) -> Array:
    """The larger of two numbers; NaN where one is NaN.

    ``y = max(a, b)``.
    """
    return np.asarray(np.maximum(a, b))


@operator(shape=_broadcast, flops=per_element)
def minimum(a: Array, b: Array) -> Array:
    """The smaller of two numbers; NaN where one is NaN.

    ``y = min(a, b)``.
    """
    return np.asarray(np.minimum(a, b))


@operator(shape=_broadcast, flops=per_element)
def where(condition: Array, a: Array, b: Array) -> Array:
    """A where the condition holds, else b.

    ``y = a if condition else b``.
    """
    return np.where(condition, a, b)


def _clip_shape(x: Shape, low: Any = None, high: Any = None) -> Shape:
    return broadcast(x, low, high)


@operator(shape=_clip_shape, flops=per_element)
def clip(x: Array, low: Any = None, high: Any = None) -> Array:
    """The number of [low, high] that is nearest to x; None: no bound.

    ``y = min(max(x, low), high)``.
    """
    x = x if low is None else np.maximum(x, low)
    return np.asarray(x if high is None else np.minimum(x, high))
