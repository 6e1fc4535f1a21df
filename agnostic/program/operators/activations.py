"""Functions between layers."""

from __future__ import annotations

from typing import Any

import numpy as np

from agnostic.program.nodes import Array
from agnostic.program.vocabulary import Shape, operator, per_element, size
from agnostic.reference.activations import activate


def _activation_shape(x: Shape, *, function: str, axis: int = -1, **options: Any) -> Shape:
    if function != "glu":
        return x
    axis %= len(x)
    return (*x[:axis], x[axis] // 2, *x[axis + 1 :])


@operator(shape=_activation_shape, flops=per_element)
def activation(x: Array, *, function: str, **options: Any) -> Array:
    """Y = f(x), by the name and the options of :data:`agnostic.reference.activations.FUNCTIONS`.

    Args:
        function: its name.
    """
    return activate(function, x, options)


def _same(x: Shape, *others: Any, **attributes: Any) -> Shape:
    return x


@operator(shape=_same, flops=per_element)
def prelu(x: Array, slope: Array, *, channel_axis: int = 1) -> Array:
    """Y = x where x >= 0, else slope x, with one slope for all or one per channel.

    Args:
        channel_axis: the axis of the channels.
    """
    shape = [1] * x.ndim
    if slope.size > 1:
        shape[channel_axis] = -1
    return np.where(x >= 0, x, slope.reshape(shape) * x)


def _softmax_flops(x: Shape, *, out: Shape, **attributes: Any) -> int:
    return 5 * size(out)


@operator(shape=_same, flops=_softmax_flops)
def softmax(x: Array, *, axis: int) -> Array:
    """Y = exp(x - m) / sum of exp(x - m) along an axis, with m the largest x there."""
    return activate("softmax", x, {"axis": axis})


@operator(shape=_same, flops=_softmax_flops)
def log_softmax(x: Array, *, axis: int) -> Array:
    """The logarithm of the softmax along an axis.

    ``y = x - log(sum(exp(x)))``.
    """
    return activate("log_softmax", x, {"axis": axis})


@operator(shape=_same, random=True)
def dropout(
    x: Array, *, rate: float, training: bool = False, axes: tuple[int, ...] | None = None, noise: str = "zeros",
) -> Array:  # fmt: skip
    """X itself in inference; in training each number is zero with probability ``rate``, others grow by 1 / (1 - rate).

    With ``axes``, what differs in other axes alone is zero together: (0,) is stochastic depth, which drops images.
    With ``noise="alpha"`` a number becomes the least that a SELU gives, and all are scaled and shifted so that mean and
    variance stay 0 and 1; with ``"gaussian"`` each is multiplied by a normal number of mean 1 and variance
    rate / (1 - rate). The reference computes inference.
    """
    return x


@operator(shape=_same)
def identity(x: Array) -> Array:
    """X itself: what a framework calls detach, alias, contiguous or clone."""
    return x
