"""One use of weights in a program; :mod:`agnostic.transfer.uses` finds them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agnostic.axes import Dimension
from agnostic.program.nodes import Node, Value
from agnostic.transfer.orders import AxisOrder, order
from agnostic.transfer.weights import ProgramWeights, WeightPart

MOVES = frozenset({"reshape", "permute", "cast", "identity", "dropout", "expand"})
"""Operators that hand all numbers on."""


@dataclass(eq=False)
class Use:
    """One use of weights.

    Attributes:
        kind: ``"product"``, ``"convolution"``, ``"transposed"``, ``"norm"``, ``"table"``, ``"lstm"``, ``"gru"``,
            ``"rnn"``, or the operator's name.
        dims: the sizes that its counterpart has as well.
        parts: its arrays by role.
        nodes: the operators that it is made of, the first of them the one that is handed the data.
        data: what it is applied to.
        outputs: what it gives.
        rows, columns: what stands along the features that come in, and that go out.
        settings: what else decides what it computes.
    """

    kind: str
    dims: tuple[int, ...]
    parts: dict[str, WeightPart]
    nodes: list[Node]
    data: tuple[Value, ...]
    outputs: tuple[Value, ...]
    rows: tuple[Dimension, ...] = ()
    columns: tuple[Dimension, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, tuple[int, ...]]:
        """What its counterpart has as well."""
        return self.kind, self.dims

    @property
    def layer(self) -> str:
        """The layer that runs it."""
        return self.nodes[0].module

    def names(self, weights: ProgramWeights) -> list[str]:
        """Of its weights."""
        found = [n for part in self.parts.values() if part.value for n in sorted(weights.names(part.value) or ())]
        return list(dict.fromkeys([*found, *self.settings.get("leaves", ())]))

    @property
    def rows_order(self) -> AxisOrder | None:
        """The order of the features that come in."""
        return order(self.rows)

    @property
    def columns_order(self) -> AxisOrder | None:
        """The order of the features that go out."""
        return order(self.columns)


def after(users: Mapping[Value, Sequence[Node]], returned: Collection[Value], value: Value) -> Node | None:
    """The only node that computes with a value, whatever moves its numbers on the way.

    Args:
        users: see :func:`agnostic.program.nodes.readers_of`.
        returned: the program's outputs.
        value: which.
    """
    while value not in returned and len(here := users.get(value, ())) == 1:
        if here[0].operator not in MOVES:
            return here[0]
        value = here[0].outputs[0]
    return None
