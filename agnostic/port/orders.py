"""Common memory orders of several values: common factors, isolated axes, and the axes beside reduced ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from agnostic.port.laid import Axis, Factor, Laid, common, flat, grouped, is_woven, refactored


def in_common_factors(arrays: Sequence[Laid], rank: int) -> list[Laid] | None:
    """The arrays with equal numbers of axes; the factors of each axis have equal sizes, unless its length is 1."""
    found = [replace(x, axes=((),) * (rank - len(x.axes)) + x.axes) for x in arrays]
    for place in range(rank):
        owners = [i for i, x in enumerate(found) if x.axes[place]]
        if not owners:
            continue
        lengths: list[int] | None = [factor.size for factor in found[owners[0]].axes[place]]
        for i in owners[1:]:
            lengths = common(fresh_factors(lengths or []), found[i].axes[place])
            if lengths is None:
                return None
        for i in owners:
            found[i] = refined(found[i], place, lengths or [])
    return found


def fresh_factors(lengths: Sequence[int]) -> Axis:
    """New factors of these sizes."""
    return tuple(map(Factor, lengths))


def refined(x: Laid, place: int, lengths: Sequence[int]) -> Laid:
    """The value with an axis split into factors of these sizes."""
    found = grouped(x.axes[place], lengths)
    assert found is not None, (x, place, lengths)
    return refactored(x, found[1])


def match_of(main: Laid, other: Laid) -> dict[Factor, Factor]:
    """A mapping from the factors of the first array to those of the second."""
    pairs: dict[Factor, Factor] = {}
    for mine, theirs in zip(main.axes, other.axes, strict=True):
        if theirs:
            pairs |= dict(zip(mine, theirs, strict=True))
    return pairs


def cut_apart(axis: Axis, matches: Sequence[dict[Factor, Factor]]) -> list[Axis]:
    """Cut an axis into runs of factors that belong to the same arrays."""
    if not axis:
        return [axis]
    runs: list[list[Factor]] = []
    for factor in axis:
        has = [factor in match for match in matches]
        if runs and [runs[-1][-1] in match for match in matches] == has:
            runs[-1].append(factor)
        else:
            runs.append([factor])
    return [tuple(run) for run in runs]


def axes_beside(x: Laid, gone: Axis) -> list[Axis]:
    """The axes beside these factors: as in the source where that moves nothing, or where axes are interleaved.

    Interleaved axes are windows: the operators up to the merge of the windows need them as in the source.
    """
    natural_ = [axis for axis in x.axes if axis and not set(axis) & set(gone)]
    if is_woven(x) or flat(natural_) == tuple(f for f in flat(x.order) if f not in gone):
        return natural_
    return [left for axis in x.order if (left := tuple(f for f in axis if f not in gone))]


def isolated(x: Laid, places: Sequence[int]) -> list[Axis] | None:
    """An order in which each of these source axes is one axis; everything else keeps its place.

    An axis whose factors are not contiguous is gathered at the place of its first factor.

    Returns:
        None where an axis has length 1.
    """
    order = list(x.order)
    for place in places:
        axis = x.axes[place]
        if not axis:
            return None
        line = flat(order)
        start = line.index(axis[0])
        if line[start : start + len(axis)] != axis:
            order = _gathered(order, axis)
        else:
            order = _cut_out(order, axis)
    return order


def _gathered(order: Sequence[Axis], axis: Axis) -> list[Axis]:
    """The order with factors gathered at the place of the first of them."""
    found: list[Axis] = []
    for piece in order:
        run: list[Factor] = []
        for factor in piece:
            if factor not in axis:
                run.append(factor)
                continue
            found += [tuple(run)] if run else []
            found += [axis] if factor == axis[0] else []
            run = []
        found += [tuple(run)] if run or not piece else []
    return found


def _cut_out(order: Sequence[Axis], axis: Axis) -> list[Axis]:
    """The order with contiguous factors as a separate axis."""
    found: list[Axis] = []
    for piece in order:
        inside = [i for i, f in enumerate(piece) if f in axis]
        if not inside:
            found.append(piece)
            continue
        front, back = piece[: inside[0]], piece[inside[-1] + 1 :]
        found += [front] if front else []
        found += [axis] if axis not in found else []
        found += [back] if back else []
    return found
