"""What layers compute in, changed for the time of a run."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import keras


@dataclasses.dataclass(frozen=True)
class Policy:
    """What a layer computes in, and what it is to compute in."""

    layer: keras.Layer
    own: Any
    wanted: Any


def policies(model: keras.Layer, dtype: str) -> Sequence[Policy]:
    """Those of the layers of a model that are in float32, for another type; none for float32."""
    if dtype == "float32":
        return []
    wanted = keras.DTypePolicy(f"mixed_{dtype}")
    layers = (model, *model._flatten_layers(False, True))
    return [Policy(layer, layer.dtype_policy, wanted) for layer in layers if layer.compute_dtype == "float32"]


@contextlib.contextmanager
def computing(changed: Sequence[Policy]) -> Iterator[None]:
    """The layers compute in the wanted type inside, and in their own again afterwards."""
    try:
        for policy in changed:
            policy.layer.dtype_policy = policy.wanted
        yield
    finally:
        for policy in changed:
            policy.layer.dtype_policy = policy.own
