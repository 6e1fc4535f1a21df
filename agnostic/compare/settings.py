"""Settings in which matched layers differ although their outputs do not: training or other inputs would show it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from agnostic.compare.mistakes.relations import words
from agnostic.compare.mistakes.segments import pairs, parts
from agnostic.compare.noise import THRESHOLD
from agnostic.description import LayerDescription

if TYPE_CHECKING:
    from agnostic.compare.forcing import Place
    from agnostic.compare.recording import Record

SHOWN = 3
"""How many layers a note names."""


def unseen(a: Record, b: Record, places: Sequence[Place]) -> list[str]:
    """A sentence for each such setting, with the layers of B that have it."""
    layers: dict[str, dict[str, None]] = {}
    for place in places:
        if any(x is None or x > THRESHOLD for x in (place.isolated, place.glue or 0.0)):
            continue  # what differs there is said by the diagnosis
        ours = parts([a.descriptions[a.steps[i].name] for i in place.a])
        theirs = parts([b.descriptions[b.steps[j].name] for j in place.b])
        for i, j in pairs(ours, theirs):
            if i is not None and j is not None and ours[i].kind == theirs[j].kind:
                for sentence in _differing(ours[i], theirs[j]):
                    layers.setdefault(sentence, {})[theirs[j].name] = None
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
    return words(str(x.config.get("activation")), x.config.get("activation_options"))


def _padding(x: Any) -> str:
    return str(tuple(map(tuple, x)) if isinstance(x, list | tuple) else x)
