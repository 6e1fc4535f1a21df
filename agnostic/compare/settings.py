"""Settings in which matched layers differ although their outputs do not: training or other inputs would show it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from agnostic.description import LayerDescription

SHOWN = 3
"""How many layers a note names."""


def unseen(pairs: Iterable[tuple[LayerDescription, LayerDescription]]) -> list[str]:
    """A sentence for each such setting, with the layers of B that have it.

    Args:
        pairs: matched layers of A and of B that returned the same.
    """
    layers: dict[str, dict[str, None]] = {}
    for ours, theirs in pairs:
        if ours.kind == theirs.kind:
            for sentence in _differing(ours, theirs):
                layers.setdefault(sentence, {})[theirs.name] = None
    return [_said(sentence, list(names)) for sentence, names in layers.items()]


def _said(sentence: str, names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{sentence} in {', '.join(map(repr, names[:SHOWN]))}{more}"


def _differing(a: LayerDescription, b: LayerDescription) -> Iterator[str]:
    kind = a.kind.replace("_", " ")
    for key, why in (("epsilon", "too little to show here"), ("momentum", "which shows in training")):
        ours, theirs = a.config.get(key), b.config.get(key)
        if isinstance(ours, float) and isinstance(theirs, float) and not _equal(ours, theirs):
            yield f"{kind} with {key} {theirs:g} where A has {ours:g}, {why}:"
    if a.kind == "activation" and _activation(a) != _activation(b):
        yield f"{_activation(b)} where A has {_activation(a)}, the same on these inputs:"
    one, two = a.config.get("padding"), b.config.get("padding")
    if one != two and "same" in (one, two) and max(a.config.get("strides") or (1,)) > 1:
        yield f"{kind} with padding {_padding(two)} where A has {_padding(one)}, the same at this size alone:"


def _equal(x: float, y: float) -> bool:
    return abs(x - y) <= 1e-9 * max(abs(x), abs(y))


def _activation(x: LayerDescription) -> str:
    options = x.config.get("activation_options") or {}
    listed = ", ".join(f"{k}={v}" for k, v in options.items() if k != "axis" and v is not None)
    return f"{x.config.get('activation')}{f'({listed})' if listed else ''}"


def _padding(x: Any) -> str:
    return str(tuple(map(tuple, x)) if isinstance(x, list | tuple) else x)
