"""Capability: name the layers of a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from agnostic.contracts.capability import Capability, Model

if TYPE_CHECKING:
    from agnostic.layers import Layer


class LayerTree(Protocol):
    """The layers of a model as they are registered; nothing is run."""

    def tree(self, model: Model) -> Sequence[Layer]:
        """The model's layers in the order of registration: no shapes, axes, channels or calls."""

    def layer_name(self, model: Model, layer: Any) -> str | None:
        """The name in :meth:`tree` of one of the model's own layer objects; None for anything else."""

    def expected(self, model: Model, layer: str | None) -> str | None:
        """The inputs of the named layer or of the model, as text for an error; None if not known."""


LAYERS: Capability[LayerTree] = Capability("layers", LayerTree, "list the layers of a model")
