"""Capability: read what a model computes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from agnostic.contracts.capability import Capability, Model

if TYPE_CHECKING:
    from agnostic.program.nodes import Program


class Programs(Protocol):
    """Programs of models."""

    def program(self, model: Model, inputs: Any) -> Program:
        """What the model computes, as it is, for :func:`agnostic.program`.

        Args:
            inputs: as in :func:`agnostic.capture`.

        Raises:
            InvalidInput: the model cannot be followed.
        """


PROGRAM: Capability[Programs] = Capability("program", Programs, "read the program of a model")
