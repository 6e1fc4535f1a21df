"""What an objective sees of a layer: a tap, in canonical order, whatever the framework's layout."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from agnostic.errors import InvalidInput
from agnostic.ops import Array, Ops
from agnostic.text import counted


@dataclass(frozen=True)
class Tap:
    """The output of one layer for a batch of rows, a row being one view of one image.

    Attributes:
        layer: its name.
        value: the framework's own array; None where ``channel_mean_of`` answers all that is asked.
        axes: one letter per dimension of ``value``, as in :class:`agnostic.layers.Layer`.
        channel_mean_of: set by a backend that computes a wanted channel's spatial mean without the other channels:
            takes the number of the channel objective among those on this layer, returns (rows,).
        logits: of the shape of ``value``: what it was computed from, where it is the result of a softmax or a sigmoid.
        grid: (height, width, other tokens before them), where the layer gives tokens that are patches of the image.
    """

    layer: str
    value: Array
    axes: str
    channel_mean_of: Callable[[int], Array] | None = None
    logits: Array | None = None
    grid: tuple[int, int, int] | None = None

    def check_rows(self, ops: Ops, rows: int) -> None:
        """Whether the layer gives one row for each that the model was given.

        Raises:
            InvalidInput: it gives another number.
        """
        if self.value is not None and "N" in self.axes:
            _check_rows(self.layer, ops.shape(self.value)[self.axes.index("N")], rows)

    def before_softmax(self) -> Tap:
        """The tap of what a softmax or a sigmoid was given, where this is its result; else this tap."""
        return self if self.logits is None else replace(self, value=self.logits, logits=None)

    def canonical(self, ops: Ops) -> Array:
        """(rows, channels, positions), positions in row-major order; one position for a layer without any."""
        order = [self.axes.index("N"), self.axes.index("C")]
        order += [i for i in range(len(self.axes)) if i not in order]
        value = ops.transpose(self.value, order)
        shape = ops.shape(value)
        return ops.reshape(value, (shape[0], shape[1], -1))

    def positions(self, ops: Ops) -> Array:
        """(rows, channels, positions) as :meth:`canonical`, without tokens that stand for no place in the image."""
        value = self.canonical(ops)
        return value if self.grid is None or not self.grid[2] else value[:, :, self.grid[2] :]

    def lengths(self, ops: Ops) -> tuple[int, ...]:
        """Of the axes of the positions, the outermost first: (height, width) of images and of patches."""
        if self.grid is not None:
            return self.grid[:2]
        shape = ops.shape(self.value)
        return tuple(n for n, axis in zip(shape, self.axes, strict=True) if axis not in "NC")

    def number(self, ops: Ops, place: Sequence[int] | None) -> int:
        """Of a place among the :meth:`positions`; None: the centre. One number is a place in a row, also of patches.

        Raises:
            InvalidInput: there is no such place.
        """
        lengths = self.lengths(ops)
        if self.grid is not None and place is not None and len(place) == 1:
            lengths = (math.prod(lengths),)
        where = tuple(n // 2 for n in lengths) if place is None else tuple(place)
        if len(where) != len(lengths) or not all(0 <= i < n for i, n in zip(where, lengths, strict=False)):
            have = (
                f"{lengths[0]} high and {lengths[1]} wide"
                if len(lengths) == 2
                else f"{' x '.join(map(str, lengths))} positions"
            )
            raise InvalidInput(f"no position ({', '.join(map(str, where))}) in layer {self.layer!r}: it is {have}")
        found = 0
        for i, n in zip(where, lengths, strict=True):
            found = found * n + i
        return found

    def channels(self, ops: Ops, indices: Array) -> Array:
        """(rows, positions): the channel ``indices[row]`` of each row. ``indices`` (rows,) integers."""
        value = self.positions(ops)
        rows, _, positions = ops.shape(value)
        index = ops.expand(ops.reshape(indices, (rows, 1, 1)), (rows, 1, positions))
        return ops.reshape(ops.take_along_axis(value, index, 1), (rows, positions))

    def channel_mean(self, ops: Ops, indices: Array, number: int) -> Array:
        """(rows,): the spatial mean of the channel ``indices[row]`` of each row."""
        if self.channel_mean_of is not None:
            means = self.channel_mean_of(number)
            _check_rows(self.layer, ops.shape(means)[0], ops.shape(indices)[0])
            return means
        return ops.mean(self.channels(ops, indices), axis=1)


TapsByName = Mapping[str, Tap]


def _check_rows(layer: str, found: int, rows: int) -> None:
    if found != rows:
        raise InvalidInput(
            f"layer {layer!r} gives {counted(found, 'row')} for a batch of {rows}: which of them belong to which image "
            "is not known; choose a layer that gives one for each"
        )


def without_axes(shape: Sequence[int | None] | None) -> str:
    """What a layer returns whose axes are not known."""
    if shape is None:
        return "no single array"
    said = ", ".join("N" if n is None else str(n) for n in shape)
    return f"an array ({said}) whose dimensions are not known, or are not only batch, channels and positions"


def no_spatial_output(layer: str, axes: str | None, shape: Sequence[int | None] | None = None) -> InvalidInput:
    """The error for a layer whose output has no positions."""
    what = "one number per channel" if axes == "NC" else f"axes {axes}" if axes else without_axes(shape)
    return InvalidInput(
        f"layer {layer!r} has no spatial output ({what}); choose a convolution or a block, "
        "or logit(...) and neuron(...) for layers without height and width"
    )


def has_positions(axes: str | None) -> bool:
    """Whether a layer of these axes gives channels at positions: of an image, a row or a volume, or tokens."""
    return axes is not None and {"N", "C"} < set(axes)
