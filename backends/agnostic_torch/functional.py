"""What happens to a tensor that is changed in place, said without change.

In torch a view shares its base's memory, and a write through one is seen through all of them. Here each node of the
graph looks at the memory of the node that owns it, by the steps of :mod:`agnostic.program.views`. A write gives the
owner a new value; other nodes that look at it are read anew when they are used next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx

from agnostic.errors import InvalidInput
from agnostic.program.builder import Builder
from agnostic.program.nodes import Node, Value
from agnostic.program.views import Steps, read, steps_between, written


@dataclass
class _Place:
    """What a node looks at: the owner of the memory, the steps from there, and the version that was read."""

    owner: fx.Node
    steps: Steps | None = ()
    version: int = 0


@dataclass
class Memory:
    """The value of each node, kept right under writes."""

    _values: dict[fx.Node, Any] = field(default_factory=dict)
    _places: dict[fx.Node, _Place] = field(default_factory=dict)
    _parts: dict[fx.Node, list[_Place]] = field(default_factory=dict)
    _versions: dict[fx.Node, int] = field(default_factory=dict)

    def bind(self, node: fx.Node, value: Any, emitted: Sequence[Node] = ()) -> None:
        """Give a node its value.

        Args:
            node: of the graph.
            value: what it stands for.
            emitted: what was written to compute it from its operands; tells which views it takes.
        """
        self._values[node] = value
        self._versions[node] = 0
        known = node.meta.get("val")
        if isinstance(value, Value) and isinstance(known, torch.Tensor):
            self._places[node] = self._place(node, value, known, emitted)
        else:
            self._places[node] = _Place(node)
            if isinstance(value, tuple) and isinstance(known, list | tuple):
                self._parts[node] = [
                    self._place(node, part, tensor, emitted)
                    if isinstance(part, Value) and isinstance(tensor, torch.Tensor)
                    else _Place(node)
                    for part, tensor in zip(value, known, strict=False)
                ]

    def _place(self, node: fx.Node, value: Value, known: torch.Tensor, emitted: Sequence[Node]) -> _Place:
        for base in node.all_input_nodes:
            tensor = base.meta.get("val")
            if isinstance(tensor, torch.Tensor) and base in self._places and _share_memory(tensor, known):
                place = self._places[base]
                between = steps_between(self._values[base], value, emitted)
                steps = None if between is None or place.steps is None else (*place.steps, *between)
                return _Place(place.owner, steps, self._versions[place.owner])
        return _Place(node)

    def part(self, node: fx.Node, source: fx.Node, index: int) -> None:
        """Make a node the part of another one that has several values."""
        self._values[node] = self._values[source][index]
        self._versions[node] = 0
        place = self._parts[source][index] if source in self._parts else _Place(node)
        self._places[node] = _Place(node) if place.owner is source else place

    def alias(self, node: fx.Node, other: fx.Node) -> None:
        """Make a node another name of one."""
        place = self._places[other]
        self._values[node] = self._values[other]
        self._places[node] = _Place(place.owner, place.steps, place.version)
        self._versions[node] = 0

    def read(self, node: fx.Node, builder: Builder) -> Any:
        """A node's value now.

        Raises:
            InvalidInput: it looks at memory that was written to, through a view that cannot be said in steps.
        """
        place = self._places[node]
        version = self._versions[place.owner]
        if place.version != version:
            if place.steps is None:
                raise InvalidInput(
                    f"a tensor is read that shares memory with one that was changed in place, and {node.target} is no "
                    f"view that can be followed: {builder.origin}"
                )
            self._values[node] = read(builder, self._values[place.owner], place.steps)
            place.version = version
        return self._values[node]

    def owner(self, node: fx.Node) -> fx.Node:
        """The node whose memory a node looks at."""
        return self._places[node].owner

    def write(self, node: fx.Node, value: Value, builder: Builder) -> None:
        """Give a node, and all that look at the same memory, another value.

        Raises:
            InvalidInput: the node looks at its memory through a view that cannot be said in steps.
        """
        place = self._places[node]
        if place.steps is None:
            raise InvalidInput(
                f"a tensor is changed in place through {node.target}, no view that can be followed: {builder.origin}"
            )
        owner = place.owner
        if node is not owner:
            # The owner may be behind as well, if the last write went through another owner's alias.
            self._values[owner] = written(builder, self.read(owner, builder), place.steps, value)
        self._versions[owner] += 1
        for changed in (owner, node):
            self._places[changed].version = self._versions[owner]
        self._values[node] = value


def _share_memory(a: torch.Tensor, b: torch.Tensor) -> bool:
    if a.layout != torch.strided or b.layout != torch.strided:
        return False
    return bool(a.untyped_storage()._cdata == b.untyped_storage()._cdata)
