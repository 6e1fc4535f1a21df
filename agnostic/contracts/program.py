"""Capability: read the operators of a model."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Protocol

from agnostic.contracts.capability import Capability, Model

if TYPE_CHECKING:
    import numpy.typing as npt

    from agnostic.program.nodes import Program


class Programs(Protocol):
    """Programs of models."""

    def program(self, model: Model, inputs: Any, opaque: Collection[str] = ()) -> Program:
        """The program of the model, for :func:`agnostic.program`.

        An operator that has no translation is a node of the operator ``custom``.

        Args:
            inputs: as in :func:`agnostic.capture`.
            opaque: names of operators, functions or layers that are such nodes in any case.

        Raises:
            InvalidInput: the model cannot be followed.
        """

    def recorded(
        self, model: Model, inputs: Any, opaque: Collection[str] = ()
    ) -> list[tuple[list[npt.NDArray[Any]], list[npt.NDArray[Any]]]]:
        """What each ``custom`` node of :meth:`program` is given and gives, in a run of the model.

        Args:
            inputs, opaque: as for the program.

        Returns:
            For each of these nodes in order the arrays among its operands, and those that it gives.
        """


PROGRAM: Capability[Programs] = Capability("program", Programs, "read the program of a model")
