"""Gradients in Keras, on the engine at hand; see :mod:`agnostic.gradients`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from agnostic_keras import engines

Array = Any
Function = Callable[..., list[Array]]
Cotangents = Callable[[list[Array]], list[Array]]


def detached(inputs: Sequence[Array]) -> list[Array]:
    """Arrays without what a run before remembers of them: here nothing is remembered."""
    return list(inputs)


def pullback(function: Function, inputs: Sequence[Array], cotangents: Cotangents) -> list[Array | None]:
    """The gradients of the weighted sum of the outputs; None for an input that is not connected."""
    found: list[Array | None] = engines.current().pullback(function, inputs, cotangents)
    return found


def per_sample(
    function: Function, inputs: Sequence[Array], batch: Sequence[Array], cotangents: Cotangents
) -> list[Array]:
    """(N, ...) gradients; zeros for an input that is not connected."""
    found: list[Array] = engines.current().per_sample(function, inputs, batch, cotangents)
    return found


def jacobian(function: Function, inputs: Sequence[Array]) -> list[list[Array]]:
    """For each output, for each input: (*output, *input)."""
    found: list[list[Array]] = engines.current().jacobian(function, inputs)
    return found
