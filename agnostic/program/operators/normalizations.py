"""Normalizations, by given or by measured statistics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from agnostic.errors import InvalidInput
from agnostic.program.nodes import Array
from agnostic.program.vocabulary import Shape, operator, size


def _same(x: Shape, *others: Any, **attributes: Any) -> Shape:
    return x


def _scaled(
    x: Shape, scale: Shape | None = None, offset: Shape | None = None, *, axes: Sequence[int], epsilon: float
) -> Shape:
    sizes = tuple(x[axis] for axis in axes)
    for weight in (scale, offset):
        if weight is not None and weight != sizes:
            raise InvalidInput(f"numbers of sizes {sizes} are scaled by a weight of shape {weight}: they must be equal")
    return x


def _flops(x: Shape, *others: Any, out: Shape, **attributes: Any) -> int:
    return 2 * size(out)


def _statistics_flops(x: Shape, *others: Any, out: Shape, **attributes: Any) -> int:
    return 5 * size(out)


def _along(vector: Array | None, rank: int, axis: int) -> Any:
    """A vector laid along one axis; None stays None."""
    if vector is None:
        return None
    shape = [1] * rank
    shape[axis] = -1
    return vector.reshape(shape)


def _affine(x: Array, scale: Array | None, offset: Array | None) -> Array:
    x = x if scale is None else x * scale
    return x if offset is None else x + offset


@operator(shape=_same, flops=_flops)
def batch_norm(
    x: Array, mean: Array, variance: Array, scale: Array | None = None, offset: Array | None = None, *,
    epsilon: float, momentum: float = 0.1, channel_axis: int = 1,
) -> Array:  # fmt: skip
    """Y = scale (x - mean) / sqrt(variance + epsilon) + offset, per channel, by given statistics.

    ``momentum`` is the share of a batch in the statistics when the model is trained; it has no part in inference.

    Source: Ioffe, Szegedy, "Batch Normalization", 2015, algorithm 2.

    Args:
        channel_axis: the axis of the channels.
    """
    mean, variance, scale, offset = (_along(v, x.ndim, channel_axis) for v in (mean, variance, scale, offset))
    return _affine((x - mean) / np.sqrt(variance + epsilon), scale, offset)


def _standardized(x: Array, axes: tuple[int, ...], epsilon: float) -> Array:
    result: Array = (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + epsilon)
    return result


@operator(shape=_same, flops=_statistics_flops)
def batch_norm_training(
    x: Array, scale: Array | None = None, offset: Array | None = None, *, epsilon: float, channel_axis: int = 1
) -> Array:
    """Batch norm by the batch's own mean and (biased) variance, per channel.

    ``y = (x - mean) / sqrt(variance + epsilon) * scale + offset``.

    Args:
        epsilon: is added to the variance.
        channel_axis: the axis of the channels.
    """
    axes = tuple(axis for axis in range(x.ndim) if axis != channel_axis % x.ndim)
    scale, offset = (_along(v, x.ndim, channel_axis) for v in (scale, offset))
    return _affine(_standardized(x, axes, epsilon), scale, offset)


@operator(shape=_scaled, flops=_statistics_flops)
def layer_norm(
    x: Array, scale: Array | None = None, offset: Array | None = None, *, axes: Sequence[int], epsilon: float
) -> Array:
    """Y = scale (x - mean) / sqrt(variance + epsilon) + offset, statistics over ``axes``, which end the array.

    Args:
        x: any shape.
        scale, offset: the shape of ``axes``.
        axes: negative, increasing.
        epsilon: added to the biased variance.

    Source: Ba, Kiros, Hinton, "Layer Normalization", 2016.
    """
    return _affine(_standardized(x, tuple(axes), epsilon), scale, offset)


@operator(shape=_scaled, flops=_statistics_flops)
def rms_norm(x: Array, scale: Array | None = None, *, axes: Sequence[int], epsilon: float) -> Array:
    """Y = scale x / sqrt(mean of x^2 + epsilon). Source: Zhang, Sennrich, 2019.

    Args:
        axes: over which it is taken.
    """
    result: Array = x / np.sqrt(np.square(x).mean(tuple(axes), keepdims=True) + epsilon)
    return _affine(result, scale, None)


@operator(shape=_same, flops=_statistics_flops)
def group_norm(
    x: Array, scale: Array | None = None, offset: Array | None = None, *, groups: int, epsilon: float,
    channel_axis: int = 1,
) -> Array:  # fmt: skip
    """Channels fall into ``groups`` groups; each is standardized over its channels and all spatial axes.

    Source: Wu, He, "Group Normalization", 2018. As many groups as channels: instance normalization.

    Args:
        epsilon: is added to the variance.
        channel_axis: the axis of the channels.
    """
    first = np.moveaxis(x, channel_axis, 1)
    blocks = first.reshape(len(x), groups, -1)
    result = np.moveaxis(_standardized(blocks, (2,), epsilon).reshape(first.shape), 1, channel_axis)
    scale, offset = (_along(v, x.ndim, channel_axis) for v in (scale, offset))
    return _affine(result, scale, offset)
