"""Capability: get and set weights of models, and read and write weight files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from agnostic.contracts.capability import Capability, Model

if TYPE_CHECKING:
    import numpy.typing as npt

Arrays = Mapping[str, "npt.NDArray[Any]"]


class Weights(Protocol):
    """Weights and their files."""

    def weights(self, model: Model) -> Arrays:
        """Every parameter and buffer by name, copied to NumPy in the framework's own layout."""

    def set_weights(self, model: Model, values: Arrays) -> None:
        """Set all parameters and buffers, or none.

        Raises:
            InvalidWeights: an entry is missing, unexpected or has a wrong shape.
        """

    def read_weights(self, path: Path) -> Arrays:
        """Read a weight file of this framework without executing code from it.

        Raises:
            InvalidWeights: the file is missing or corrupt, or a pickle that needs code execution.
        """

    def load_weights(self, model: Model, path: Path, name: str) -> None:
        """Set every parameter and buffer from a weight file, also of a format that only the model itself can read.

        Args:
            name: of the model, for messages.

        Raises:
            InvalidWeights: the file cannot be read, or does not fit.
        """

    def save(self, model: Model, path: Path) -> None:
        """Write a model, or its weights, in the format of the file's suffix; completely, or not at all.

        Raises:
            InvalidInput: this framework has no such format, or the file cannot be written.
        """


WEIGHTS: Capability[Weights] = Capability("weights", Weights, "read and write weights")
