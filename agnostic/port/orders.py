"""In which order the axes of values can lie together: in common factors, one axis by itself, beside what is used up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from agnostic.port.laid import Axis, Factor, Laid, common, flat, grouped, is_woven, refactored


def in_common_factors(arrays: Sequence[Laid], rank: int) -> list[Laid] | None:
    """The arrays with as many axes, and the factors of each axis of the same sizes where it is not of length 1."""
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
    """The value with an axis in factors of these sizes, which its own can be split into."""
    found = grouped(x.axes[place], lengths)
    assert found is not None, (x, place, lengths)
    return refactored(x, found[1])


def match_of(main: Laid, other: Laid) -> dict[Factor, Factor]:
    """The other's factor for each of the first's that it has."""
    pairs: dict[Factor, Factor] = {}
    for mine, theirs in zip(main.axes, other.axes, strict=True):
        if theirs:
            pairs |= dict(zip(mine, theirs, strict=True))
    return pairs


def cut_apart(axis: Axis, matches: Sequence[dict[Factor, Factor]]) -> list[Axis]:
    """An axis in runs of factors that the same arrays have."""
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
    """The axes beside those factors: as in the source where that moves nothing, or axes are woven into each other.

    The second are windows: what follows, until they are put together again, needs them as the source has them.
    """
    natural_ = [axis for axis in x.axes if axis and not set(axis) & set(gone)]
    if is_woven(x) or flat(natural_) == tuple(f for f in flat(x.order) if f not in gone):
        return natural_
    return [left for axis in x.order if (left := tuple(f for f in axis if f not in gone))]


def isolated(x: Laid, places: Sequence[int]) -> list[Axis] | None:
    """An order in which each of these axes of the source is an axis by itself, all else as it lies.

    An axis whose factors lie apart is put together where the first of them is.

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
    """The order with factors that lie apart put together in the place of the first of them."""
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
    """The order with factors that lie side by side as an axis by themselves."""
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
