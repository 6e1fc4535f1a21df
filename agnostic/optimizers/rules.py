"""Update rules as pure functions over Ops: state in, state out. Written once, for every backend.

Rules maximize nothing and minimize nothing by themselves: they return the step, and the caller adds or subtracts it.
"""

from __future__ import annotations

from agnostic.ops import Array, Ops


def adam_step(
    ops: Ops,
    gradient: Array,
    mean: Array,
    square: Array,
    *,
    learning_rate: Array | float,
    beta_1: float,
    beta_2: float,
    epsilon: float,
    correction_1: Array | float,
    correction_2: Array | float,
) -> tuple[Array, Array, Array]:
    """One step of Adam, with epsilon outside the root and after the bias correction, as in PyTorch.

    Args:
        gradient, mean, square: of one shape; the moments start at zero.
        correction_1, correction_2: ``1 - beta ** t`` with t = 1 for the first step, computed beforehand in float64.

    Returns:
        (step, new mean, new square).

    Source: Kingma, Ba, "Adam", 2015, algorithm 1.
    """
    mean = beta_1 * mean + (1 - beta_1) * gradient
    square = beta_2 * square + (1 - beta_2) * ops.square(gradient)
    step = learning_rate * (mean / correction_1) / (ops.sqrt(square / correction_2) + epsilon)
    return step, mean, square


def normalized_gradient_step(ops: Ops, gradient: Array, *, learning_rate: Array | float, epsilon: float) -> Array:
    """A step of fixed root mean square an image: ``learning_rate * g / (sqrt(mean(g ** 2)) + epsilon)``.

    Args:
        gradient: (images, ...); the mean is taken for each image by itself.

    Source: Chollet, "Deep Learning with Python", 2017, listing 5.38.
    """
    axes = tuple(range(1, len(ops.shape(gradient))))
    scale = ops.sqrt(ops.mean(ops.square(gradient), axis=axes, keepdims=True)) + epsilon
    return learning_rate * gradient / scale
