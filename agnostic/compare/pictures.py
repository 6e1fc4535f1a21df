"""Activations of both models side by side, for the report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from agnostic.compare import match
from agnostic.compare.layerwise import LayerPairs
from agnostic.compare.results import Divergence, Pictures
from agnostic.program.nodes import Array
from agnostic.registry import get_backend

PICTURED = 6
"""How many layers are shown beside the first that differs."""

CHANNELS = 4

_LARGEST = 128


def of(layers: LayerPairs, found: Sequence[Divergence]) -> Iterator[Pictures]:
    """Of layers through the depth, and of the first that differs."""
    spatial = [j for j, i in layers.pairs.items() if layers.calls_a[i].outputs and _is_image(layers, i)]
    wanted = {spatial[round(k * (len(spatial) - 1) / (PICTURED - 1))] for k in range(PICTURED)} if spatial else set()
    first = found[0].b if found else None
    wanted |= {j for j in spatial if layers.calls_b[j].name == first}
    last = get_backend(layers.a[0].model["backend"]).facts.channels_last
    for j in sorted(wanted):
        x, y = layers.calls_a[layers.pairs[j]].outputs[0], layers.calls_b[j].outputs[:1]
        a = layers.a[1].arrays[x][:1].reshape(1, *x.shape[1:])
        b = layers.b[1].arrays[y[0]][:1] if y else a[:0]
        turned = _turned(a, b.reshape(1, *y[0].shape[1:]) if y else b)
        if turned is not None:
            yield picture(layers.calls_b[j].label, *((z if last else np.moveaxis(z, 1, -1)) for z in (a, turned)))


def _is_image(layers: LayerPairs, i: int) -> bool:
    shape = layers.calls_a[i].outputs[0].shape
    sides = shape[1:3] if get_backend(layers.a[0].model["backend"]).facts.channels_last else shape[2:]
    return len(shape) == 4 and min(sides) > 1


def _turned(a: Array, b: Array) -> Array | None:
    """B's activation with its axes in A's order: that in which they are nearest."""
    ways = [b] if b.shape == a.shape else []
    ways += [b.transpose(order) for order in match.permutations(b.shape, a.shape)]
    return min(ways, key=lambda way: match.distance(a, way), default=None)


def picture(layer: str, a: Array, b: Array) -> Pictures:
    """The channels in which two activations (1, H, W, C) differ most."""
    with np.errstate(all="ignore"):
        delta = np.nan_to_num(np.square(np.asarray(a[0], np.float64) - b[0]).mean((0, 1)))
    chosen = tuple(int(c) for c in np.argsort(-delta, kind="stable")[:CHANNELS])
    step = max(1, -(-max(a.shape[1:3]) // _LARGEST))
    first, second = (
        np.ascontiguousarray(np.moveaxis(x[0, ::step, ::step][..., list(chosen)], -1, 0), np.float32) for x in (a, b)
    )
    return Pictures(layer, chosen, first, second)
