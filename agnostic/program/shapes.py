"""Shape arithmetic that several operators share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agnostic.errors import InvalidInput

Shape = tuple[int, ...]


def broadcast(*shapes: Any) -> Shape:
    """The shape that arrays of these shapes broadcast to, as in NumPy.

    Raises:
        InvalidInput: they do not broadcast.
    """
    given = [shape for shape in shapes if shape is not None]
    rank = max(map(len, given), default=0)
    found = [1] * rank
    for shape in given:
        for axis, length in enumerate(shape, rank - len(shape)):
            if length != 1 and found[axis] not in (1, length):
                raise InvalidInput(f"shapes {', '.join(map(str, given))} do not broadcast")
            found[axis] = length if length != 1 else found[axis]
    return tuple(found)


def reduced(shape: Shape, axes: Sequence[int] | None, keep: bool) -> Shape:
    """The shape after a reduction over the axes; None: over all."""
    gone = set(range(len(shape))) if axes is None else {axis % len(shape) for axis in axes} if shape else set()
    if keep:
        return tuple(1 if axis in gone else n for axis, n in enumerate(shape))
    return tuple(n for axis, n in enumerate(shape) if axis not in gone)


def spatial(shape: Shape, channel_axis: int) -> Shape:
    """The sizes between the batch and the channels."""
    channel = channel_axis % len(shape)
    return tuple(n for axis, n in enumerate(shape) if axis not in (0, channel))


def with_spatial(shape: Shape, channel_axis: int, sizes: Sequence[int], channels: int) -> Shape:
    """A shape with other spatial sizes and channels."""
    channel = channel_axis % len(shape)
    remaining = iter(sizes)
    return tuple(n if axis == 0 else channels if axis == channel else next(remaining) for axis, n in enumerate(shape))


def windows(
    sizes: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[tuple[int, int]],
    dilation: Sequence[int],
    ceil_mode: bool = False,
) -> tuple[int, ...]:
    """The number of windows per axis.

    With ``ceil_mode`` the last window may exceed the end, if it begins inside the image or the padding before it.
    """
    counts = []
    for n, k, s, (low, high), d in zip(sizes, kernel, stride, padding, dilation, strict=True):
        room = n + low + high - (k - 1) * d - 1
        count = (-(-room // s) if ceil_mode else room // s) + 1
        if ceil_mode and (count - 1) * s >= n + low:
            count -= 1
        counts.append(max(count, 0))
    return tuple(counts)
