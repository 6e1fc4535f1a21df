"""Capability: run models from source that was written for a framework."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from agnostic.contracts.capability import Capability, Model

if TYPE_CHECKING:
    import numpy.typing as npt

Arrays = Mapping[str, "npt.NDArray[Any]"]


class PortedModels(Protocol):
    """Models from written source."""

    def run(
        self, model: Model, inputs: Sequence[npt.NDArray[Any]], layers: Sequence[str]
    ) -> tuple[list[npt.NDArray[Any]], Arrays]:
        """The outputs of a model in inference mode, in order, and the output of the first call of each named layer.

        Args:
            inputs: in the order of the call, in the model's own layout.
            layers: by name; a layer whose output is not a single array is left out.
        """


PORTED: Capability[PortedModels] = Capability("ported", PortedModels, "run written source")
