"""A recorded run: each operator in execution order, with the arrays that are needed to replay it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from agnostic.program.nodes import Array, Program, Value


@dataclass(frozen=True)
class LayerRun:
    """One call of one layer.

    Attributes:
        name: the layer's path.
        number: of the call of this layer, from 0.
        inputs, outputs: the arguments and results of the call, in order.
    """

    name: str
    number: int
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]

    @property
    def label(self) -> str:
        """The layer's name, with the number of the call from the second on."""
        return self.name if not self.number else f"{self.name} (call {self.number + 1})"


@dataclass(frozen=True, eq=False)
class Run:
    """One run of a model, as its framework's dispatcher saw it.

    Attributes:
        program: the operators in the order in which they ran, under the framework's own names, such as
            ``"aten.addmm.default"``; an operator that writes into an operand gives a new value instead.
        arrays: of the leaves, as the model holds them; and of what cannot be computed again (:attr:`drawn`).
        drawn: the values that depend on random numbers.
        outputs: what the run gave, by the paths of :attr:`agnostic.program.nodes.Program.outputs`, in its own type.
        notes: sentences on what the record does not hold.
        calls: of the layers, in the order in which they returned; () where a backend does not tell.
    """

    program: Program
    arrays: Mapping[Value, Array]
    drawn: frozenset[Value]
    outputs: Mapping[str, Array]
    notes: tuple[str, ...] = ()
    calls: tuple[LayerRun, ...] = ()
