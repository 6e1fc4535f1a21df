"""Products and norms of the source that are one product of the target.

A norm with fixed statistics is a factor and an offset for each channel. Right after a product these are the product's
as well: its kernel times the factor, its bias times the factor plus the offset. Products with nothing but sums and
factors between them, such as the two of a low-rank adapter beside a third, are one product, whose kernel and bias are
what they give for one feature at a time, and for none.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from agnostic.program.nodes import Node, Value, readers_of
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
    for node in found.program.nodes if any(count > 0 for count in more.values()) else ():
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
    if node.operator not in _AFFINE or LEARNED in node.attributes:
        return False
    if node.operator == "convolution":
        kernel = node.operands[1]
        alone = node.attributes.get("groups", 1) == 1 and isinstance(kernel, Value) and math.prod(kernel.shape[2:]) == 1
        return data == [0] and alone and not any(map(any, node.attributes["padding"])) and set(
            node.attributes["stride"]) == {1}  # fmt: skip
    return data in ([0], [1]) if node.operator == "multiply" else data == [0] or node.operator in ("add", "subtract")


def _one_product(found: Uses, region: _Region) -> Use | None:
    """The product that a region is; None where its features lie along different axes, or are not all that changes."""
    start, end = region.start, region.end
    rank = len(start.shape)
    along = {
        (-1 if node.operator == "linear" else node.attributes.get("channel_axis", 1)) % rank
        for node in region.nodes if node.operator in ("linear", "convolution", "batch_norm")
    }  # fmt: skip
    if len(along) != 1 or len(end.shape) != rank or along == {0}:
        return None
    (axis,) = along
    width, shape = start.shape[axis], [1] * rank
    shape[axis] = width
    ones = np.concatenate([np.zeros((1, width)), np.eye(width)]).reshape(width + 1, *shape[1:])
    known = {start: ones}
    for node in region.nodes:
        with np.errstate(all="ignore"):
            results = evaluate(node, lambda v: known[v] if v in known else found.weights.value(v, {}))
        known[node.outputs[0]] = np.asarray(results[0])
    result = known[end]
    if result.shape != (width + 1, *shape[1:axis], end.shape[axis], *shape[axis + 1 :]):
        return None
    rows = result.reshape(width + 1, -1).astype(np.float64)
    first, last = region.uses[0], region.uses[-1]
    leaves = tuple(dict.fromkeys(name for use in region.uses for name in use.names(found.weights)))
    layers = tuple(dict.fromkeys(use.layer or ", ".join(use.names(found.weights)) for use in region.uses))
    return Use(
        "product", (rows.shape[1], width),
        {"kernel": WeightPart(None, fixed=(rows[1:] - rows[0]).T), "bias": WeightPart(None, fixed=rows[0])},
        region.nodes, (start,), (end,), first.rows, last.columns, {"leaves": leaves, "merged": layers},
    )  # fmt: skip
