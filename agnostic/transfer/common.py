"""The uses of weights of two models in forms that both have: what one writes as several operators, another does as one.

Each change is made only where one model has what the other lacks, and the other has what would come of it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from agnostic import axes
from agnostic.axes import Dimension
from agnostic.program.nodes import Array, Program
from agnostic.transfer.folding import merged, without_norms
from agnostic.transfer.forms import group_kernel, with_groups_apart, with_learned, with_parts
from agnostic.transfer.use import Use
from agnostic.transfer.uses import Uses, is_fixed, uses_of

Given = tuple[Program, Mapping[str, Array]]
"""A program, and its parameters and buffers by name."""


def uses_of_both(source: Given, target: Given) -> tuple[Uses, Uses]:
    """The uses of both."""
    given = [(with_learned(with_parts(program)), arrays) for program, arrays in (source, target)]
    one, two = (uses_of(*x) for x in given)
    for k, (found, other) in enumerate(((one, two), (two, one))):
        wanted = _groups(found, other)
        if wanted:
            program, arrays = given[k]
            given[k] = with_groups_apart(program, wanted), arrays
    one, two = (
        found if found.program is program else uses_of(program, arrays)
        for found, (program, arrays) in zip((one, two), given, strict=True)
    )
    one, two = _whole(one, two), _whole(two, one)
    one, two = _contracted(one, two), _contracted(two, one)
    one = merged(without_norms(one, two), two)
    return _without_fixed(one, two), _without_fixed(two, one)


def _without_fixed(found: Uses, other: Uses) -> Uses:
    """Without the buffers that one side alone keeps, such as a mask that the other computes."""
    keys = {use.key for use in other.uses}
    return found.replaced({id(u): None for u in found.uses if is_fixed(u, found.weights) and u.key not in keys})


def _surplus(found: Uses, other: Uses) -> Counter[object]:
    """How many more uses of a kind and size one side has."""
    count = Counter[object](use.key for use in found.uses)
    count.subtract(use.key for use in other.uses)
    return count


def _groups(found: Uses, other: Uses) -> set[tuple[int, ...]]:
    """Kernels of one group, of convolutions that the other side has apart."""
    more = _surplus(found, other)
    grouped = [u for u in found.uses if u.kind == "convolution" and u.nodes[0].attributes.get("groups", 1) > 1]
    kernels = {group_kernel(use.nodes[0]) for use in grouped if more[use.key] > 0}
    return {
        kernel for kernel in kernels
        if min(more["convolution", kernel], more["product", kernel[:2]] if math.prod(kernel[2:]) == 1 else 0) < 0
    }  # fmt: skip


def _whole(found: Uses, other: Uses) -> Uses:
    """Products that were cut in pieces as a whole, where the other side has that and not the pieces."""
    more = _surplus(found, other)
    instead: dict[int, Use | None] = {}
    for whole, pieces in found.cuts:
        if more[whole.key] < 0 and any(more[piece.key] > 0 for piece in pieces):
            instead |= {id(piece): whole for piece in pieces}
            more[whole.key] += 1
            more.subtract(piece.key for piece in pieces)
    return found.replaced(instead)


# Convolutions ---------------------------------------------------------------------------------------------------------
def _contracted(found: Uses, other: Uses) -> Uses:
    """Convolutions whose windows do not overlap as the products that they are, where the other side has these."""
    more = _surplus(found, other)
    instead: dict[int, Use | None] = {}
    for use in found.uses:
        if use.kind != "convolution" or more[use.key] <= 0:
            continue
        fitting = (x for x in _without_windows(use) if more[x.key] < 0)
        if (one := next(fitting, None)) is not None:
            instead[id(use)] = one
            more[use.key] -= 1
            more[one.key] += 1
    return found.replaced(instead)


def _without_windows(use: Use) -> Iterable[Use]:
    """A convolution over fewer axes, and a product, where its windows cover an axis, or lie side by side."""
    node, sizes = use.nodes[0], use.dims[2:]
    places: Sequence[Dimension] = use.settings["places"]
    if node.attributes.get("groups", 1) != 1 or len(places) != len(sizes):
        return
    attributes = [node.attributes[key] for key in ("stride", "padding", "dilation")]
    whole, apart = [], []
    for axis, (place, size, stride, pad, dilation) in enumerate(zip(places, sizes, *attributes, strict=True)):
        alone = not any(pad) and dilation == 1
        if alone and axes.length(place) == size:
            whole.append(axis)
        if alone and (axes.length(place) == size or (stride == size and not axes.length(place) % size)):
            apart.append(axis)
    for gone in dict.fromkeys((tuple(whole), tuple(apart))):
        inside = [_inside(places[axis], sizes[axis]) for axis in gone]
        if gone and all(x is not None for x in inside):
            yield _over_fewer(use, gone, [x for x in inside if x is not None])


def _inside(place: Dimension, size: int) -> Dimension | None:
    """The part of an axis that is a place in a window."""
    cut = axes.reshaped((place,), (axes.length(place) // size, size))
    return None if cut is None else cut[1]


def _over_fewer(use: Use, gone: Sequence[int], inside: Sequence[Dimension]) -> Use:
    """A convolution whose axes that are gone are features."""
    kept = [axis for axis in range(len(use.dims) - 2) if axis not in gone]
    moved = [0, 1, *(axis + 2 for axis in (*gone, *kept))]
    rest = tuple(use.dims[axis + 2] for axis in kept)

    def form(x: Array) -> Array:
        return x.reshape(x.shape[:2] + use.dims[2:]).transpose(moved).reshape(len(x), -1, *rest)

    width = use.dims[1] * math.prod(use.dims[axis + 2] for axis in gone)
    settings = {key: [use.settings[key][axis] for axis in kept] for key in ("stride", "dilation")} if kept else {}
    return replace(
        use, kind="convolution" if kept else "product", dims=(use.dims[0], width, *rest),
        parts=use.parts | {"kernel": use.parts["kernel"].then(form)}, rows=(*use.rows, *inside),
        settings={**settings, "places": [use.settings["places"][axis] for axis in kept]},
    )  # fmt: skip
