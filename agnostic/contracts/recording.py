"""Capability: record what a run of a model computes, operator by operator, and compute operators again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from agnostic.contracts.capability import Capability, Model

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agnostic.program.nodes import Array, Node
    from agnostic.program.runs import Run


class Recordings(Protocol):
    """Records of runs, and their operators in float64."""

    def obstacle(self, model: Model) -> str | None:
        """Why runs of the model cannot be recorded, in one sentence; None where they can."""

    def record(self, model: Model, inputs: Any) -> Run:
        """Run the model as it is, in the mode that it is in, and write down each operator.

        Args:
            inputs: as in :func:`agnostic.capture`.

        Raises:
            InvalidInput: the run uses arrays that have no numbers of their own to keep.
        """

    def evaluates(self, operator: str) -> bool:
        """Whether :meth:`evaluate` knows an operator of a record that another process, or a stranger, made."""

    def evaluate(self, node: Node, operands: Sequence[Any]) -> tuple[Array, ...]:
        """What an operator of a record gives for other operands, in float64.

        Args:
            node: of a record; its attributes say what is computed.
            operands: in the place of the node's own: arrays (floating point in float64), numbers, None, or tuples of
                these.

        Raises:
            InvalidInput: the operator does not take such operands.
        """


RECORDING: Capability[Recordings] = Capability("recording", Recordings, "record the operators of a run")
