"""Products and norms of the source that are one product of the target.

A norm with fixed statistics is a factor and an offset for each channel. Right after a product these are the product's
as well: its kernel times the factor, its bias times the factor plus the offset. Products with nothing but sums and
factors between them, such as the two of a low-rank adapter beside a third, are one product, and so are convolutions
whose windows lie around the same places, such as those of a block that is trained with branches.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from agnostic.program.nodes import Array, Node, Value, readers_of
from agnostic.program.vocabulary import evaluate
from agnostic.transfer.forms import LEARNED
from agnostic.transfer.use import Use, after
from agnostic.transfer.uses import Uses
from agnostic.transfer.weights import WeightPart

_PRODUCTS = ("product", "convolution", "transposed")


def without_norms(found: Uses, other: Uses) -> Uses:
    """The source, with the norms in their products where no such product of the target has a norm after it."""
    theirs = {use.key for use, _ in _normed(other)}
    folded = {id(use): norm for use, norm in _normed(found) if use.key not in theirs}
    made = {id(use): _joined(use, folded[id(use)], found) for use in found.uses if id(use) in folded}
    return found.replaced({**made, **{id(norm): made[use] for use, norm in folded.items()}})


def _normed(found: Uses) -> list[tuple[Use, Use]]:
    """The products with a batch norm right after them, and that."""
    users, returned = readers_of(found.program.nodes), {value for _, value in found.program.outputs}
    norms = {id(use.nodes[0]): use for use in found.uses if use.kind == "norm" and "variance" in use.parts}
    pairs = []
    for use in found.uses:
        node = after(users, returned, use.outputs[0]) if use.kind in _PRODUCTS and len(use.outputs) == 1 else None
        norm = None if node is None else norms.get(id(node))
        if norm is not None and norm.dims == use.dims[:1]:
            pairs.append((use, norm))
    return pairs


def _joined(use: Use, norm: Use, found: Uses) -> Use:
    """A product and its norm as one product."""
    parts = {role: found.weights.numbers(part).astype(np.float64) for role, part in (use.parts | norm.parts).items()}
    deviation = np.sqrt(parts["variance"] + norm.settings["epsilon"])
    scale = parts.get("scale", np.ones_like(deviation)) / deviation
    kernel = parts["kernel"] * scale.reshape(-1, *[1] * (parts["kernel"].ndim - 1))
    bias = (parts.get("bias", 0.0) - parts.get("mean", 0.0)) * scale + parts.get("shift", 0.0)
    leaves = tuple(dict.fromkeys([*use.names(found.weights), *norm.names(found.weights)]))
    return replace(
        use, parts={"kernel": WeightPart(None, fixed=kernel), "bias": WeightPart(None, fixed=bias)},
        nodes=[*use.nodes, *norm.nodes], outputs=norm.outputs, columns=norm.columns,
        settings={**use.settings, "leaves": leaves, "folded": norm.layer},
    )  # fmt: skip


# Products beside and behind each other -------------------------------------------------------------------------------
def merged(found: Uses, other: Uses) -> Uses:
    """The source, with products that the target lacks in the one that it has instead."""
    more = Counter[object](use.key for use in found.uses)
    more.subtract(use.key for use in other.uses)
    instead: dict[int, Use | None] = {}
    for node in reversed(found.program.nodes) if any(count > 0 for count in more.values()) else ():
        if node.operator not in _AFFINE or len(node.outputs) != 1:
            continue
        for region in _regions(found, node.outputs[0]):
            if any(id(use) in instead for use in region.uses) or all(more[use.key] <= 0 for use in region.uses):
                continue
            one = _one_product(found, region)
            if one is not None and more[one.key] - sum(use.key == one.key for use in region.uses) < 0:
                instead |= {id(use): one for use in region.uses}
                more.subtract(use.key for use in region.uses)
                more[one.key] += 1
                break
    return found.replaced(instead)


_AFFINE = frozenset({
    "linear", "convolution", "batch_norm", "add", "subtract", "multiply", "divide", "identity", "cast", "dropout",
})  # fmt: skip


@dataclass(frozen=True)
class _Region:
    """Operators between two values that change one by nothing but factors and sums over its features.

    Attributes:
        start, end: the values.
        nodes: in the order in which they run.
        uses: of weights, among them.
    """

    start: Value
    end: Value
    nodes: list[Node]
    uses: list[Use]


def _regions(found: Uses, end: Value) -> Iterator[_Region]:
    """Those that end at a value and have several uses, the smallest first."""
    places = {value: place for place, node in enumerate(found.program.nodes) for value in node.outputs}
    users, returned = readers_of(found.program.nodes), {value for _, value in found.program.outputs}
    inside: dict[int, Node] = {}
    open_ends = {end}
    while True:
        last = max(open_ends, key=lambda v: places.get(v, -1))
        place = places.get(last, -1)
        node = found.program.nodes[place] if place >= 0 else None
        if node is None or not _is_affine(found, node):
            return
        if last != end and (last in returned or any(x not in inside.values() for x in users[last])):
            return
        inside[place] = node
        open_ends = (open_ends - {last}) | {v for v in node.reads if found.weights.names(v) is None}
        owned = {id(use): use for k in sorted(inside) for use in found.owners.get(k, ())}
        if len(open_ends) == 1 and len(owned) > 1:
            nodes = [inside[k] for k in sorted(inside)]
            if all(x in nodes for use in owned.values() for x in use.nodes):
                yield _Region(next(iter(open_ends)), end, nodes, list(owned.values()))


def _is_affine(found: Uses, node: Node) -> bool:
    data = [k for k, x in enumerate(node.operands) if isinstance(x, Value) and found.weights.names(x) is None]
    if node.operator not in _AFFINE or LEARNED in node.attributes or "float" not in node.outputs[0].dtype:
        return False
    if node.operator == "convolution":
        return data == [0] and node.attributes.get("groups", 1) == 1 and _is_centred(node)
    return data in ([0], [1]) if node.operator == "multiply" else data == [0] or node.operator in ("add", "subtract")


def _is_centred(node: Node) -> bool:
    """Whether each window of a convolution lies around its place, so that others over the same numbers lie inside."""
    kernel = node.operands[1]
    sizes = kernel.shape[2:] if isinstance(kernel, Value) else ()
    pads, dilation = node.attributes["padding"], node.attributes["dilation"]
    return bool(sizes) and all(
        size % 2 and tuple(pad) == ((size - 1) // 2,) * 2 and (dilated == 1 or size == 1)
        for size, pad, dilated in zip(sizes, pads, dilation, strict=True)
    )


def _one_product(found: Uses, region: _Region) -> Use | None:
    """The product or convolution that a region is; None where its features lie along different axes.

    It is what the region makes of one number at a time, in a window of the largest kernel's size, and of none.
    """
    start, end = region.start, region.end
    rank = len(start.shape)
    along = {
        (-1 if node.operator == "linear" else node.attributes.get("channel_axis", 1)) % rank
        for node in region.nodes if node.operator in ("linear", "convolution", "batch_norm")
    }  # fmt: skip
    if len(along) != 1 or len(end.shape) != rank or along == {0}:
        return None
    (axis,) = along
    windows = [(_window(node), node) for node in region.nodes if node.operator == "convolution"]
    if any(math.prod(size) > 1 and node.operands[0] != start for size, node in windows):
        return None  # what is padded has an offset already
    sizes = [size for size, _ in windows] or [(1,) * (rank - 2)]
    size = tuple(map(max, zip(*sizes, strict=True)))
    if size not in sizes or any(_varies(node, axis, found) for node in region.nodes):
        return None
    width, inside = start.shape[axis], start.shape[axis] * math.prod(size)
    basis = np.concatenate([np.zeros((1, inside)), np.eye(inside)]).reshape(inside + 1, width, *size)
    known = {start: np.moveaxis(basis, 1, axis)}
    for node in region.nodes:
        known[node.outputs[0]] = _in_window(found, node, known, axis)
    result = known[end]
    if result.size != (inside + 1) * end.shape[axis]:
        return None
    rows = result.reshape(inside + 1, -1).astype(np.float64)
    first, last = region.uses[0], region.uses[-1]
    settings = next((u.settings for u in region.uses if u.dims[2:] == size and size), {})
    leaves = tuple(dict.fromkeys(name for use in region.uses for name in use.names(found.weights)))
    layers = tuple(dict.fromkeys(use.layer or ", ".join(use.names(found.weights)) for use in region.uses))
    alone = math.prod(size) == 1
    kernel = (rows[1:] - rows[0]).T.reshape(-1, width, *(() if alone else size))
    return Use(
        "product" if alone else "convolution", kernel.shape,
        {"kernel": WeightPart(None, fixed=kernel), "bias": WeightPart(None, fixed=rows[0])},
        region.nodes, (start,), (end,), first.rows, last.columns, {**settings, "leaves": leaves, "merged": layers},
    )  # fmt: skip


def _varies(node: Node, axis: int, found: Uses) -> bool:
    """Whether a factor or a sum is another one from place to place, as a table of positions is."""
    rank = len(node.outputs[0].shape)
    fixed = [v for v in node.reads if found.weights.names(v) is not None]
    return node.operator in ("add", "subtract", "multiply", "divide") and any(
        math.prod(v.shape) != (v.shape[axis - rank] if rank - len(v.shape) <= axis else 1) for v in fixed
    )


def _window(node: Node) -> tuple[int, ...]:
    return node.operands[1].shape[2:]  # type: ignore[union-attr]


def _in_window(found: Uses, node: Node, known: Mapping[Value, Array], axis: int) -> Array:
    """What an operator gives in the middle of a window."""
    given = {v: known[v] for v in node.reads if v in known}
    size: tuple[int, ...] | None = None
    if node.operator == "convolution":
        size, none = _window(node), [1] * len(_window(node))
        attributes = {**node.attributes, "stride": none, "dilation": none, "padding": [(0, 0)] * len(none)}
        node = replace(node, attributes=attributes)
    elif len(given) > 1:
        size = min((np.moveaxis(x, axis, 1).shape[2:] for x in given.values()), key=math.prod)
    if size is not None:
        given = {v: _middle(x, axis, size) for v, x in given.items()}
    with np.errstate(all="ignore"):
        return np.asarray(evaluate(node, lambda v: given[v] if v in given else found.weights.value(v, {}))[0])


def _middle(x: Array, axis: int, size: Sequence[int]) -> Array:
    x = np.moveaxis(x, axis, 1)
    cut = [slice((n - m) // 2, (n - m) // 2 + m) for n, m in zip(x.shape[2:], size, strict=True)]
    return np.moveaxis(x[(slice(None), slice(None), *cut)], 1, axis)
