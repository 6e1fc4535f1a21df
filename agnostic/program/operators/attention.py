"""Attention."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from agnostic.program.nodes import Array
from agnostic.program.vocabulary import Shape, operator, size
from agnostic.reference.activations import activate


def _shape(query: Shape, key: Shape, value: Shape, mask: Any = None, **attributes: Any) -> Shape:
    return (*query[:-1], value[-1])


def _flops(
    query: Shape, key: Shape, value: Shape, mask: Any = None, *, out: Shape, place_axis: int = -2, **attributes: Any
) -> int:
    return 2 * size(query[:-1]) * key[place_axis] * (query[-1] + value[-1])


@operator(shape=_shape, flops=_flops)
def attention(
    query: Array, key: Array, value: Array, mask: Array | None = None, *, scale: float | None = None,
    causal: bool = False, shared_heads: bool = False, place_axis: int = -2,
) -> Array:  # fmt: skip
    """softmax(scale Q K^T + mask) V over the axis of places and the last one.

    ``y = softmax(scale Q K^T + mask) V``.

    Args:
        query: (..., Q, D).
        key: (..., K, D).
        value: (..., K, E).
        mask: broadcasts to (..., Q, K): added if it is floating point; where it is boolean, False hides a place.
        scale: 1 / sqrt(D) by default.
        causal: query i sees the keys up to i.
        shared_heads: axis -3 of key and value is shorter, and each of their heads serves several of the query's.
        place_axis: -2; -3 where query, key, value and the result have the places before the heads.

    Source: Vaswani et al., "Attention Is All You Need", 2017, section 3.2.1.
    """
    if place_axis == -3:
        query, key, value = (np.swapaxes(x, -2, -3) for x in (query, key, value))
    if shared_heads:
        times = query.shape[-3] // key.shape[-3]
        key, value = np.repeat(key, times, -3), np.repeat(value, times, -3)
    scores = query @ np.swapaxes(key, -1, -2) * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    if causal:
        scores = np.where(np.tril(np.ones(scores.shape[-2:], bool)), scores, -np.inf)
    if mask is not None:
        scores = np.where(mask, scores, -np.inf) if mask.dtype == bool else scores + mask
    # A place from which all others are hidden sees nothing.
    blind = np.isneginf(scores).all(-1, keepdims=True)
    result: Array = np.where(blind, 0.0, activate("softmax", np.where(blind, 0.0, scores), {"axis": -1})) @ value
    return np.swapaxes(result, -2, -3) if place_axis == -3 else result
