"""Capability: describe layers without any framework."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from agnostic.contracts.capability import Capability, Model

if TYPE_CHECKING:
    from agnostic.description import LayerDescription


class Descriptions(Protocol):
    """Descriptions of layers."""

    def describe(self, model: Model, names: Sequence[str] | None = None) -> Sequence[LayerDescription]:
        """Describe what layers compute.

        Args:
            names: which layers, by the names of :meth:`agnostic.contracts.layers.LayerTree.tree`; None: all of them, in
                that order.

        Returns:
            One description per name; kind ``"other"`` for layers that this backend does not know.
        """


DESCRIPTION: Capability[Descriptions] = Capability("description", Descriptions, "describe layers")
