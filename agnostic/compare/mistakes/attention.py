"""Attention that is written as code between layers: which one, from the arrays before and behind it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from agnostic.description import Array

Close = Callable[[Array, Array], bool]

LARGEST = 1 << 22
"""Numbers in all scores of one sample, beyond which nothing is tried."""


@dataclass(frozen=True)
class Attended:
    """``softmax(scale * q k^T) v`` over heads.

    Attributes:
        sources: the names of query, key and value.
        heads: how many.
        scale: of the scores.
        causal: whether the future is masked.
        merged: whether the heads were put side by side again before the features were read.
    """

    sources: tuple[str, str, str]
    heads: int
    scale: float
    causal: bool
    merged: bool

    def compute(self, arrays: tuple[Array, Array, Array]) -> Array:
        """Its value for query, key and value (N, L, C)."""
        n, length, width = arrays[0].shape
        q, k, v = (x.reshape(len(x), x.shape[1], self.heads, -1).transpose(0, 2, 1, 3) for x in arrays)
        scores = self.scale * (q @ k.swapaxes(-1, -2))
        if self.causal:
            scores = np.where(np.tri(length, scores.shape[-1], dtype=bool), scores, -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        made: Array = (weights / weights.sum(-1, keepdims=True)) @ v
        return (made.transpose(0, 2, 1, 3) if self.merged else made).reshape(n, length, width)


def _triples(sources: Mapping[str, Array], width: int) -> Iterator[tuple[tuple[str, str, str], tuple[Array, ...]]]:
    """Three arrays of a width, in the order in which they ran first; or one that holds all three."""
    for name, x in reversed(list(sources.items())):
        if x.ndim == 3 and x.shape[-1] == 3 * width:
            parts = np.split(x, 3, axis=-1)
            for order in itertools.permutations(range(3)):
                first, second, third = (f"{name}[{i}]" for i in order)
                yield (first, second, third), tuple(parts[i] for i in order)
    fits = [(name, x) for name, x in sources.items() if x.ndim == 3 and x.shape[-1] == width]
    # Query, key and value are what layers returned, where there are three such.
    returned = [x for x in fits if not x[0].startswith("the input of ")]
    alike = (returned if len(returned) > 2 else fits)[-4:]
    for chosen in itertools.combinations(reversed(alike), 3):
        for one, two, three in itertools.permutations(reversed(chosen)):
            yield (one[0], two[0], three[0]), (one[1], two[1], three[1])


def attended(target: Array, sources: Mapping[str, Array], close: Close) -> Attended | None:
    """An array (N, L, C) as the attention of three sources; None where it is none."""
    if target.ndim != 3 or target.shape[1] < 2 or target.shape[1] ** 2 * 16 > LARGEST:
        return None
    width, wanted = target.shape[-1], target[:1]
    for names, arrays in _triples(sources, width):
        if len({x.shape for x in arrays}) > 1 or arrays[0].shape != target.shape:
            continue
        first = arrays[0][:1], arrays[1][:1], arrays[2][:1]
        for heads in (h for h in range(1, min(width, 16) + 1) if width % h == 0):
            size = width // heads
            for scale in dict.fromkeys((size**-0.5, 1.0, width**-0.5, 1.0 / size)):
                for causal, merged in itertools.product((False, True), (True, False)):
                    found = Attended(names, heads, scale, causal, merged)
                    with np.errstate(over="ignore", invalid="ignore"):
                        if close(found.compute(first), wanted) and close(
                            found.compute((arrays[0], arrays[1], arrays[2])), target
                        ):
                            return found
    return None


def attentions_apart(a: Attended, b: Attended) -> tuple[str, dict[str, Any], str] | None:
    """What tells two attentions apart: (mistake, values, a clause); None where that is more than one thing."""
    found: list[tuple[str, dict[str, Any], str]] = []
    if a.sources != b.sources:
        order = ", ".join(a.sources)
        found.append(("layer_order", {"a": order}, f"query, key and value are {', '.join(b.sources)}, A's {order}"))
    if a.heads != b.heads:
        found.append(("attention_heads", {"a": a.heads, "b": b.heads}, f"{b.heads} heads where A has {a.heads}"))
    elif a.scale != b.scale:
        found.append(("attention_scale", {"a": f"{a.scale:.6g}"}, f"{b.scale:.6g} where A has {a.scale:.6g}"))
    if a.causal != b.causal:
        found.append(("attention_mask", {"a": a.causal}, ""))
    if a.merged != b.merged:
        note = "the heads are not put side by side again" if a.merged else "A's heads are not put side by side again"
        found.append(("features_permuted", {}, note))
    return found[0] if len(found) == 1 else None
