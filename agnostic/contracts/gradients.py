"""Capability: differentiate functions of native arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from agnostic.contracts.capability import Capability

Array = Any
"""A native array."""


Function = Callable[..., list[Array]]
Cotangents = Callable[[list[Array]], list[Array]]
"""From the outputs of a function to the factors of their elements in the sum."""


class Gradients(Protocol):
    """Derivatives; :mod:`agnostic.gradients` has the meaning of each."""

    def detached(self, inputs: Sequence[Array]) -> list[Array]:
        """The arrays, detached from earlier computations."""

    def pullback(self, function: Function, inputs: Sequence[Array], cotangents: Cotangents) -> list[Array | None]:
        """The gradients of the weighted sum of the outputs; None for an input that is not connected."""

    def per_sample(
        self, function: Function, inputs: Sequence[Array], batch: Sequence[Array], cotangents: Cotangents
    ) -> list[Array]:
        """(N, ...) gradients; zeros for an input that is not connected.

        Args:
            function: called with the inputs and one sample of each array of the batch, without its first axis.
        """

    def jacobian(self, function: Function, inputs: Sequence[Array]) -> list[list[Array]]:
        """For each output, for each input: (*output, *input)."""


GRADIENTS: Capability[Gradients] = Capability("gradients", Gradients, "differentiate")
