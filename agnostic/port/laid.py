"""How the axes of a value lie in memory: axes as tuples of factors, and the physical order of those.

A framework that wants channels last meets permute, view and flatten of one that has them first. Here these compute
nothing: each axis of the source is a tuple of factors, most significant first, and the order in which the factors lie
in memory is kept apart. Only :func:`realized` moves numbers.
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
    """A part of an axis, of at least two places; equal only to itself.

    Attributes:
        size: places.
        id: what tells it from others.
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
    """A value of the source program, and where its numbers are in the target.

    Attributes:
        value: of the target program.
        axes: of the source's value.
        order: of the target's value, the same factors; () for an axis of length 1.
        seen: how many nodes the target had when the source took this view, and how many views there had been; None
            where the value is what a node gave.
        origin: of that view.
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
        """Whether the target's value is the source's, axis by axis."""
        return self.order == self.axes

    def place(self, axis: Axis) -> int | None:
        """Which axis of the target's value an axis is; None where it is none, or shares one."""
        return self.order.index(axis) if axis and axis in self.order else None


def natural(value: Value) -> Laid:
    """A value that lies as it does in the source."""
    axes = tuple(map(fresh, value.shape))
    return Laid(value, axes, axes)


def flat(axes: Iterable[Axis]) -> Axis:
    """All factors of several axes."""
    return tuple(factor for axis in axes for factor in axis)


def permuted(x: Laid, axes: Sequence[int]) -> Laid:
    """Axis i of the result is axis ``axes[i]``; nothing moves."""
    return replace(x, axes=tuple(x.axes[axis] for axis in axes))


def refactored(x: Laid, instead: dict[Factor, Axis]) -> Laid:
    """The same value with factors split into smaller ones."""

    def split(axis: Axis) -> Axis:
        return tuple(part for factor in axis for part in instead.get(factor, (factor,)))

    return replace(x, axes=tuple(map(split, x.axes)), order=tuple(map(split, x.order))) if instead else x


def grouped(factors: Sequence[Factor], lengths: Sequence[int]) -> tuple[list[Axis], dict[Factor, Axis]] | None:
    """Factors dealt out to axes of given lengths, splitting where one is cut in two.

    Returns:
        The axes in the new factors, and what became of those that were split; None where the lengths cut a factor
        where it has no border, as when (4, 6) becomes (8, 3).
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
    """Under another shape; nothing moves. None where factors would have to be cut where they have no border."""
    found = grouped(flat(x.axes), shape)
    if found is None:
        return None
    axes, instead = found
    return replace(refactored(x, instead), axes=tuple(axes))


def borders(axis: Axis) -> list[int]:
    """Where its factors begin, as places of the least significant end: of (7, 8) they are 8 and 56."""
    found, total = [], 1
    for factor in reversed(axis):
        total *= factor.size
        found.append(total)
    return found


def common(a: Axis, b: Axis) -> list[int] | None:
    """The lengths of factors that both axes can be split into, most significant first; None where there are none."""
    cuts = sorted({*borders(a), *borders(b)})
    lengths, before = [], 1
    for cut in cuts:
        if cut % before:
            return None
        lengths.append(cut // before)
        before = cut
    return lengths[::-1]


def is_woven(x: Laid) -> bool:
    """Whether two axes lie in each other, as a, b, a, b: those of windows, before numbers are moved."""
    owner = {factor: place for place, axis in enumerate(x.axes) for factor in axis}
    line = [place for place, _ in itertools.groupby(owner[factor] for factor in flat(x.order))]
    for a, b in itertools.combinations(dict.fromkeys(line), 2):
        between = [place for place, _ in itertools.groupby(place for place in line if place in (a, b))]
        if len(between) > 3:
            return True
    return False


def atoms(have: Sequence[Axis], want: Sequence[Axis]) -> list[Axis]:
    """The longest runs of factors within axes that stay together between two orders, in the first order."""
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
