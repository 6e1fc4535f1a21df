"""Capability: show a model to :func:`agnostic.transfer`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from agnostic.contracts.capability import Capability, Model

if TYPE_CHECKING:
    from agnostic.transfer.access import Access


class Transfers(Protocol):
    """Access to models for the transfer of weights."""

    def access(self, model: Model) -> Access:
        """The weights of a model in groups, and runs of the model."""


TRANSFER: Capability[Transfers] = Capability("transfer", Transfers, "transfer weights")
