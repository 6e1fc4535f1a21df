"""The memory layout of a value: each axis as a tuple of factors, and the physical order of all factors.

A source with channels first uses permute, view and flatten; the target has channels last. Here these operators compute
nothing: each axis of the source is a tuple of factors, most significant first, and the order of the factors in memory
is stored separately. Only ``LayoutState.realized`` moves numbers.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from agnostic.program.builder import NodeOrigin
from agnostic.program.nodes import Value

_COUNT = itertools.count()


@dataclass(frozen=True)
class Factor:
    """A factor of an axis, of length 2 or more; equal only to itself.

    Attributes:
        size: its length.
        id: its identity.
    """

    size: int = field(compare=False)
    id: int = field(default_factory=_COUNT.__next__)


Axis = tuple[Factor, ...]
"""Factors, most significant first; () for a length of 1."""


def size(axis: Iterable[Factor]) -> int:
    """The length of an axis."""
    return math.prod(factor.size for factor in axis)


def fresh(length: int) -> Axis:
    """A new axis of that length."""
    return () if length == 1 else (Factor(length),)


@dataclass(frozen=True)
class Laid:
    """A value of the source program, and its layout in the target.

    Attributes:
        value: the value of the target program.
        axes: the axes of the source's value, as factors.
        order: the axes of the target's value, as the same factors; () for an axis of length 1.
        seen: for a view, the number of nodes of the target and of views when the source took it; None for the result of
            a node.
        origin: the value that the view was taken of.
    """

    value: Value
    axes: tuple[Axis, ...]
    order: tuple[Axis, ...]
    seen: tuple[int, int] | None = field(default=None, compare=False)
    origin: NodeOrigin = field(default=NodeOrigin(), compare=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """The source's shape."""
        return tuple(map(size, self.axes))

    @property
    def is_natural(self) -> bool:
        """Whether the target's value has the axes of the source, in the same order."""
        return self.order == self.axes

    def place(self, axis: Axis) -> int | None:
        """The axis of the target's value that equals an axis of the source; None where there is none."""
        return self.order.index(axis) if axis and axis in self.order else None


def natural(value: Value) -> Laid:
    """A value with the layout of the source."""
    axes = tuple(map(fresh, value.shape))
    return Laid(value, axes, axes)


def flat(axes: Iterable[Axis]) -> Axis:
    """The factors of several axes, in order."""
    return tuple(factor for axis in axes for factor in axis)


def permuted(x: Laid, axes: Sequence[int]) -> Laid:
    """Axis i of the result is axis ``axes[i]``; nothing moves."""
    return replace(x, axes=tuple(x.axes[axis] for axis in axes))


def refactored(x: Laid, instead: dict[Factor, Axis]) -> Laid:
    """The same value with some factors split into smaller ones."""

    def split(axis: Axis) -> Axis:
        return tuple(part for factor in axis for part in instead.get(factor, (factor,)))

    return replace(x, axes=tuple(map(split, x.axes)), order=tuple(map(split, x.order))) if instead else x


def grouped(factors: Sequence[Factor], lengths: Sequence[int]) -> tuple[list[Axis], dict[Factor, Axis]] | None:
    """Distribute factors over axes of given lengths; a factor that spans two axes is split.

    Returns:
        The axes in the new factors, and a mapping from split factors to their parts; None where a factor cannot be
        split at that place, as when (4, 6) becomes (8, 3).
    """
    if math.prod(lengths) == 0:
        return None  # of nothing, each length may be any
    axes: list[Axis] = []
    instead: dict[Factor, Axis] = {}
    rest = list(reversed(factors))
    origin: dict[Factor, Factor] = {}
    for length in lengths:
        axis: list[Factor] = []
        while length > 1:
            if not rest:
                return None
            factor = rest.pop()
            if length % factor.size == 0:
                axis.append(factor)
                length //= factor.size
                continue
            if factor.size % length:
                return None
            parts = (Factor(length), Factor(factor.size // length))
            whole = origin.get(factor, factor)
            instead[whole] = (*instead.get(whole, (factor,))[:-1], *parts)
            origin |= dict.fromkeys(parts, whole)
            axis.append(parts[0])
            rest.append(parts[1])
            length = 1
        axes.append(tuple(axis))
    return None if rest else (axes, instead)


def reshaped(x: Laid, shape: Sequence[int]) -> Laid | None:
    """The value with another shape; nothing moves. None where a factor cannot be split at the new borders."""
    found = grouped(flat(x.axes), shape)
    if found is None:
        return None
    axes, instead = found
    return replace(refactored(x, instead), axes=tuple(axes))


def borders(axis: Axis) -> list[int]:
    """The strides at which its factors end: 8 and 56 for (7, 8)."""
    found, total = [], 1
    for factor in reversed(axis):
        total *= factor.size
        found.append(total)
    return found


def common(a: Axis, b: Axis) -> list[int] | None:
    """Lengths of factors that both axes can be split into, most significant first; None where there are none."""
    cuts = sorted({*borders(a), *borders(b)})
    lengths, before = [], 1
    for cut in cuts:
        if cut % before:
            return None
        lengths.append(cut // before)
        before = cut
    return lengths[::-1]


def is_woven(x: Laid) -> bool:
    """Whether the factors of two axes alternate in memory, as a, b, a, b. Windows do, before numbers are moved."""
    owner = {factor: place for place, axis in enumerate(x.axes) for factor in axis}
    line = [place for place, _ in itertools.groupby(owner[factor] for factor in flat(x.order))]
    for a, b in itertools.combinations(dict.fromkeys(line), 2):
        between = [place for place, _ in itertools.groupby(place for place in line if place in (a, b))]
        if len(between) > 3:
            return True
    return False


def atoms(have: Sequence[Axis], want: Sequence[Axis]) -> list[Axis]:
    """The longest runs of factors, within axes, that are contiguous in both orders; sorted by the first order."""
    after = {a: b for axis in want for a, b in itertools.pairwise(axis)}
    runs: list[list[Factor]] = []
    for axis in have:
        runs += [[factor] for factor in axis[:1]]
        for factor in axis[1:]:
            if after.get(runs[-1][-1]) == factor:
                runs[-1].append(factor)
            else:
                runs.append([factor])
    return [tuple(run) for run in runs]
