"""Capability: write some of a model's weights, for :func:`agnostic.transfer`."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

from agnostic.contracts.capability import Capability, Model

if TYPE_CHECKING:
    import numpy.typing as npt


class Transfers(Protocol):
    """The weights of a model as transfer writes them."""

    def inference(self, model: Model) -> AbstractContextManager[None]:
        """A context in which the model computes what it does in inference; afterwards it is in the mode it was in."""

    def computed(self, model: Model) -> Mapping[str, str]:
        """The weights that the model computes from others before it uses them: by the names of the others.

        Such as ``{"conv.weight_g": "conv.weight", "conv.weight_v": "conv.weight"}``.
        """

    def assign(self, model: Model, values: Mapping[str, npt.NDArray[Any]]) -> None:
        """Set some weights, cast to their types.

        Args:
            values: by the names of :meth:`agnostic.contracts.weights.Weights.weights`, or those of :meth:`computed`.

        Raises:
            InvalidWeights: what computes a weight from others cannot give these numbers; says why.
        """


TRANSFER: Capability[Transfers] = Capability("transfer", Transfers, "transfer weights")
