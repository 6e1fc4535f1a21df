"""Keras on TensorFlow: the ascent is one tf.function with a symbolic loop."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import tensorflow as tf

Tensor = tf.Tensor


def irfft2(real: Tensor, imaginary: Tensor, shape: tuple[int, int]) -> Tensor:
    """See :meth:`agnostic.ops.Ops.irfft2`."""
    inverse = tf.signal.irfft2d(tf.complex(real, imaginary), shape)
    return inverse * tf.constant((shape[0] * shape[1]) ** 0.5, inverse.dtype)


def tanh(x: Tensor) -> Tensor:
    """See :meth:`agnostic.ops.Ops.tanh`."""
    return tf.tanh(x)


def maximum(a: Tensor, b: Any) -> Tensor:
    """See :meth:`agnostic.ops.Ops.maximum`."""
    return tf.maximum(a, b)


def minimum(a: Tensor, b: Any) -> Tensor:
    """See :meth:`agnostic.ops.Ops.minimum`."""
    return tf.minimum(a, b)


def value_and_gradient(function: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """An array-valued function at ``x``, and the gradient of the sum of its values."""
    with tf.GradientTape() as tape:
        tape.watch(x)
        values = function(x)
    return values, tape.gradient(values, x)


def is_compiling() -> bool:
    """Whether this very moment is inside a trace, whose arrays have no values yet."""
    return tf.inside_function()


def is_abstract(x: Any) -> bool:
    """Whether an array is a trace's, without values."""
    return tf.is_tensor(x) and not hasattr(x, "numpy")


def without_gradients(function: Callable[[Any], Any], inputs: Any) -> Any:
    """``function(inputs)``, run eagerly."""
    return function(inputs)


def shapes(function: Callable[[Any], Any], inputs: Any) -> None:
    """Run a function for the shapes that it meets, without computing values."""
    tf.function(lambda x: [function(x), None][1], autograph=False).get_concrete_function(inputs)


def eagerly() -> contextlib.AbstractContextManager[Any]:
    """Nothing compiled can be made to run as written; see :func:`is_abstract` for what is traced."""
    return contextlib.nullcontext()
