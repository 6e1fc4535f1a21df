"""Capability: native optimizers of specifications, and their state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

from agnostic.contracts.capability import Capability, Model

if TYPE_CHECKING:
    from agnostic.optimizers.inventory import Inventory, ParameterGroup
    from agnostic.optimizers.snapshot import Snapshot
    from agnostic.optimizers.specs import Spec


class Optimizers(Protocol):
    """Optimizers of the framework."""

    def inventory(self, model: Model) -> Inventory:
        """The trainable parameters of a model by name, and the layers that hold them."""

    def members(self, params: Any) -> Iterator[tuple[str, Any]]:
        """The parameters in ``"params"`` of one dict of a list of groups, as (name, parameter)."""

    def build(
        self,
        spec: Spec,
        resolved: Sequence[tuple[Spec, ParameterGroup]],
        native: bool | None,
        options: Mapping[str, Any],
    ) -> Any:
        """A native optimizer: the framework's own class where that is exact, else ours on the shared rule.

        Args:
            spec: of the whole; what it does to all parameters together holds for every group.
            resolved: each group with its own specification.
            native: True insists on the framework's own class, False on ours.
            options: of the framework's own class alone.
        """

    def read(self, optimizer: Any, model: Model = None) -> Snapshot:
        """An optimizer in the middle of training as plain data, in the names and the order of a model."""

    def averaged_weights(self, optimizer: Any) -> AbstractContextManager[None]:
        """See :func:`agnostic.optimizers.averaged_weights`."""

    def restore(self, optimizer: Any, snapshot: Snapshot, names: Mapping[int, str], parameters: Sequence[Any]) -> None:
        """Put a snapshot's state into a new optimizer.

        Args:
            names: of the parameters in the snapshot, by ``id``.
            parameters: all trainable parameters of the model, in its order.
        """


OPTIMIZERS: Capability[Optimizers] = Capability("optimizers", Optimizers, "build optimizers")
