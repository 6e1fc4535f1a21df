"""Activation functions in NumPy, by name, and the name of a function that is given as code.

Names are Keras' where it has one; ``gelu`` is the exact one and ``gelu_tanh`` its approximation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from agnostic.errors import UnknownName, nearest

Array = np.ndarray[Any, Any]


def erf(x: Array) -> Array:
    """The error function of float64, as the C library has it."""
    return np.fromiter(map(math.erf, x.ravel().tolist()), np.float64, x.size).reshape(x.shape)


def _sigmoid(x: Array) -> Array:
    # Each half where its exponential is at most 1.
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0 / (1.0 + small), small / (1.0 + small))


def _softplus(x: Array, beta: float = 1.0, threshold: float | None = None) -> Array:
    y = np.logaddexp(0.0, beta * x) / beta
    return y if threshold is None else np.where(beta * x > threshold, x, y)


def _softmax(x: Array, axis: int = -1) -> Array:
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    result: Array = e / e.sum(axis=axis, keepdims=True)
    return result


def _log_softmax(x: Array, axis: int = -1) -> Array:
    shifted = x - x.max(axis=axis, keepdims=True)
    result: Array = shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True))
    return result


def _relu(x: Array, max_value: float | None = None, negative_slope: float = 0.0, threshold: float = 0.0) -> Array:
    """The general form of Keras' ReLU layer."""
    y = np.where(x >= threshold, x, negative_slope * (x - threshold)) + 0.0  # no -0, by which a division is -inf
    return y if max_value is None else np.minimum(y, max_value)


def _elu(x: Array, alpha: float = 1.0) -> Array:
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def _celu(x: Array, alpha: float = 1.0) -> Array:
    return np.maximum(x, 0) + np.minimum(alpha * np.expm1(np.minimum(x, 0) / alpha), 0)


def _selu(x: Array) -> Array:
    # Klambauer et al., "Self-Normalizing Neural Networks", 2017.
    return 1.0507009873554805 * _elu(x, 1.6732632423543772)


def _gelu(x: Array) -> Array:
    result: Array = 0.5 * x * (1.0 + erf(x / math.sqrt(2.0)))
    return result.astype(x.dtype)


def _gelu_tanh(x: Array) -> Array:
    # Hendrycks, Gimpel, "Gaussian Error Linear Units", 2016, section 2.
    return 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


def _squareplus(x: Array, b: float = 4.0) -> Array:
    result: Array = (x + np.sqrt(x * x + b)) / 2.0
    return result


def _hard_shrink(x: Array, threshold: float = 0.5) -> Array:
    return np.where(np.abs(x) > threshold, x, 0.0)


def _threshold(x: Array, threshold: float = 0.0, value: float = 0.0) -> Array:
    return np.where(x > threshold, x, value)


def _glu(x: Array, axis: int = -1) -> Array:
    a, b = np.split(x, 2, axis=axis)
    return a * _sigmoid(b)


FUNCTIONS: Mapping[str, Callable[..., Array]] = {
    "linear": lambda x: x,
    "relu": _relu,
    "relu6": lambda x: np.clip(x, 0.0, 6.0),
    "leaky_relu": lambda x, negative_slope=0.01: np.where(x >= 0, x, negative_slope * x),
    "elu": _elu,
    "celu": _celu,
    "selu": _selu,
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
    "quick_gelu": lambda x: x * _sigmoid(1.702 * x),
    "silu": lambda x: x * _sigmoid(x),
    "mish": lambda x: x * np.tanh(_softplus(x)),
    "sigmoid": _sigmoid,
    "log_sigmoid": lambda x: -_softplus(-x),
    "hard_sigmoid": lambda x: np.clip(x / 6.0 + 0.5, 0.0, 1.0),
    # Keras 2's, and Theano's.
    "hard_sigmoid_fifth": lambda x: np.clip(0.2 * x + 0.5, 0.0, 1.0),
    "hard_silu": lambda x: x * np.clip(x / 6.0 + 0.5, 0.0, 1.0),
    "tanh": np.tanh,
    "hard_tanh": lambda x, low=-1.0, high=1.0: np.clip(x, low, high),
    "tanh_shrink": lambda x: x - np.tanh(x),
    "softplus": _softplus,
    "softsign": lambda x: x / (1.0 + np.abs(x)),
    "soft_shrink": lambda x, threshold=0.5: np.sign(x) * np.maximum(np.abs(x) - threshold, 0.0),
    "hard_shrink": _hard_shrink,
    "threshold": _threshold,
    "squareplus": _squareplus,
    "sparse_plus": lambda x: np.where(x <= -1, 0.0, np.where(x >= 1, x, 0.25 * (x + 1) ** 2)),
    "sparse_sigmoid": lambda x: np.clip(0.5 * (x + 1), 0.0, 1.0),
    "exponential": np.exp,
    "square": np.square,
    "absolute": np.abs,
    "softmax": _softmax,
    "log_softmax": _log_softmax,
    "glu": _glu,
}
"""By name; the keyword arguments are what ``activation_options`` holds, with Keras' or PyTorch's common defaults."""


def activate(name: str, x: Array, options: Mapping[str, Any] | None = None) -> Array:
    """The function of that name of ``x``.

    Args:
        x: floating point, any shape, channels-last.
        options: see :data:`FUNCTIONS`.

    Raises:
        UnknownName: there is no such activation.
    """
    if name not in FUNCTIONS:
        raise UnknownName(f"no activation {name!r}{nearest(name, FUNCTIONS)}")
    return FUNCTIONS[name](x, **(options or {}))


def name_of(function: Callable[[Array], Array]) -> tuple[str, dict[str, Any]] | None:
    """The name and the options of an activation that is given as code, found by what it returns.

    Args:
        function: takes and returns float32 arrays of shape (2, 256).

    Returns:
        None for a function that is none of :data:`FUNCTIONS`.
    """
    x = np.linspace(-8.0, 8.0, 512, dtype=np.float32).reshape(2, 256)
    try:
        y = np.asarray(function(x), np.float64)
    except Exception:  # noqa: BLE001 - a stranger's code; whatever it raises, it is no activation
        return None
    exact = x.astype(np.float64)
    for name, options in _candidates(exact, y):
        right = activate(name, exact, options)
        # A few rounded operations on numbers of this size: tanh and erf lose no more than 16 units.
        if right.shape == y.shape and np.abs(right - y).max() <= 16 * 2.0**-24 * max(1.0, np.abs(right).max()):
            return name, options
    return None


def _candidates(x: Array, y: Array) -> list[tuple[str, dict[str, Any]]]:
    found: list[tuple[str, dict[str, Any]]] = [(name, {}) for name in FUNCTIONS]
    if y.shape != x.shape:
        return found
    lowest, highest, slope = y[0, 0], y[-1, -1], float(y[0, 0] / x[0, 0])
    found += [
        ("leaky_relu", {"negative_slope": _round(slope)}),
        ("relu", {"max_value": _round(float(highest))}),
        ("relu", {"negative_slope": _round(slope), "max_value": _round(float(highest))}),
        ("elu", {"alpha": _round(float(lowest / math.expm1(x[0, 0])))}),
        ("hard_tanh", {"low": _round(float(lowest)), "high": _round(float(highest))}),
    ]
    return found


def _round(value: float) -> float:
    return float(f"{value:.6g}")
