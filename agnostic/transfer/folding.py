"""Batch norms that only one of two models has, since the other has folded them into the products before them.

A norm with fixed statistics is a factor and an offset for each channel. Right after a product these are the product's
as well: its kernel times the factor, its bias times the factor plus the offset.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from agnostic.program.nodes import readers_of
from agnostic.transfer.use import Use, after
from agnostic.transfer.uses import Uses
from agnostic.transfer.weights import WeightPart

_PRODUCTS = ("product", "convolution", "transposed")


def without_norms(found: Uses, other: Uses) -> Uses:
    """The source, with the norms in their products where no such product of the target has a norm after it."""
    theirs = {(use.kind, use.dims) for use, _ in _normed(other)}
    folded = {id(use): norm for use, norm in _normed(found) if (use.kind, use.dims) not in theirs}
    gone = {id(norm) for norm in folded.values()}
    made = {id(use): _joined(use, folded[id(use)], found) for use in found.uses if id(use) in folded}
    if not made:
        return found
    whole = {id(norm): made[use] for use, norm in folded.items()}
    owners = {
        place: list({id(x): x for x in (made.get(id(u)) or whole.get(id(u)) or u for u in owned)}.values())
        for place, owned in found.owners.items()
    }
    uses = [made.get(id(use), use) for use in found.uses if id(use) not in gone]
    return replace(found, uses=uses, owners=owners)


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
