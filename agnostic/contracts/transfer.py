"""Capability: show a model to :func:`agnostic.transfer`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from agnostic.contracts.capability import Capability, Model

if TYPE_CHECKING:
    from agnostic.transfer.access import Access


class Transfers(Protocol):
    """Models as transfer sees them."""

    def access(self, model: Model) -> Access:
        """A model's weights as slots, and runs of it in between."""


TRANSFER: Capability[Transfers] = Capability("transfer", Transfers, "transfer weights")
