"""Capability: the array operations that shared mathematics is written in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from agnostic.contracts.capability import Capability

if TYPE_CHECKING:
    from agnostic.ops import Ops


class Operations(Protocol):
    """The operations, and what computes them."""

    def ops_for(self, arrays: Sequence[Any] = ()) -> Ops:
        """The operations on the device of the first native array among these."""

    def engine(self) -> str:
        """What computes: the backend's own name, unless it computes by other frameworks, one at a time."""


OPS: Capability[Operations] = Capability("ops", Operations, "compute")
