"""The parts of a program: values, leaves and nodes.

A program describes one run of a model without its framework: a list of nodes in execution order. Each node applies one
operator of :mod:`agnostic.program.vocabulary` to outputs of earlier nodes and to leaves.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from agnostic import display
from agnostic.text import counted

Array = np.ndarray[Any, Any]
Role = Literal["input", "parameter", "buffer", "constant"]


@dataclass(frozen=True)
class Value:
    """An array that flows through a program; equal values are the same array.

    Attributes:
        id: a number that is unique in the program.
        shape: the sizes of its axes in the run that was read.
        dtype: NumPy's name of its type, or ``"bfloat16"``.
    """

    id: int
    shape: tuple[int, ...] = field(compare=False)
    dtype: str = field(compare=False)

    def __repr__(self) -> str:
        return f"%{self.id}"


Operand = Value | bool | int | float | complex | str | None | tuple["Operand", ...]
"""What an operator is applied to: a value, a number, nothing, or several of these."""


@dataclass(frozen=True)
class Leaf:
    """A value that no node computes.

    Attributes:
        name: for an input, the parameter's name in the model's call; for a parameter or buffer, the framework's name,
            such as ``"layer1.0.conv1.weight"``; for a constant, a generated name, ``"constant_3"``.
        role: its role.
        value: the value.
        array: for a constant, its array; else None.
    """

    name: str
    role: Role
    value: Value
    array: Array | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Node:
    """One application of an operator.

    Attributes:
        operator: its name in the vocabulary.
        operands: in the order of the operator's parameters.
        attributes: by name; attributes equal to their default may be missing.
        outputs: the values that it computes.
        module: the path of the layer that ran it, ``""`` for the model itself.
        kind: that layer's class name.
        file: the user's source file; None where it is not known.
        line: the line there, from 1.
        calls: the enclosing layer calls, outermost first: the layer's path, with ``@n`` for the call after n earlier
            calls of the same layer, such as ``("", "block@1", "block.conv@1")``. () where a reader does not record
            them.
    """

    operator: str
    operands: tuple[Operand, ...]
    attributes: Mapping[str, Any]
    outputs: tuple[Value, ...]
    module: str = ""
    kind: str = ""
    file: str | None = None
    line: int | None = None
    calls: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        """File and line, or ``""``."""
        return "" if self.file is None else f"{self.file}:{self.line}"

    @property
    def reads(self) -> tuple[Value, ...]:
        """The values among the operands, in order; one that is read twice is there twice."""
        return tuple(value for operand in self.operands for value in values_in(operand))


@dataclass(frozen=True, repr=False)
class Program:
    """What a model computes.

    Attributes:
        name: the model's class name.
        framework: whose model it is.
        leaves: inputs first, in the order of the call; then parameters, buffers and constants.
        nodes: in execution order.
        outputs: the path in the model's result (``""`` for a single array, ``"0"``, ``"logits"``, ``"0.1"``) and the
            value.
        modules: the class name of each layer by its path, including layers that run no operator themselves.
        notes: sentences on what the program does not describe.
        called: the name that the user's source gives a layer, by its path, whose own name the framework made up.

    Example:
        >>> program = ag.program(model, ag.prepare(model, images))
        >>> [node.operator for node in program.nodes][:2]
        ['convolution', 'batch_norm']
    """

    name: str
    framework: str
    leaves: tuple[Leaf, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[tuple[str, Value], ...]
    modules: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)
    notes: tuple[str, ...] = field(default=(), compare=False, repr=False)
    called: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    def __repr__(self) -> str:
        return f"<{self._title}; print() shows the program>"

    def __str__(self) -> str:
        from agnostic.program.text import text

        return text(self)

    def _repr_html_(self) -> str:
        return display.lines(self._title, str(self).split("\n")[1:])

    @property
    def _title(self) -> str:
        parameters = sum(math.prod(leaf.value.shape) for leaf in self.of_role("parameter"))
        return (
            f"Program of {display.shortened(self.name)} ({self.framework}): {counted(len(self.nodes), 'operator')}, "
            f"{counted(parameters, 'parameter')}"
        )

    def of_role(self, *roles: Role) -> list[Leaf]:
        """The leaves of these roles, in order.

        Args:
            roles: ``"input"``, ``"parameter"``, ``"buffer"`` or ``"constant"``.

        Returns:
            The leaves.
        """
        return [leaf for leaf in self.leaves if leaf.role in roles]

    @property
    def last_id(self) -> int:
        """The highest number of a value; 0 where there is none."""
        made = (value.id for node in self.nodes for value in node.outputs)
        return max([0, *made, *(leaf.value.id for leaf in self.leaves)])

    @property
    def flops(self) -> int:
        """Floating-point operations of one run; a multiplication and an addition are two."""
        from agnostic.program.vocabulary import flops

        total, times = 0, [1]
        for node in reversed(self.nodes):
            if node.operator == "loop_end":
                times.append(times[-1] * node.attributes["length"])
            total += times[-1] * flops(node)
            if node.operator == "loop_start":
                times.pop()
        return total


def values_in(operand: Operand) -> Iterator[Value]:
    """The values in an operand."""
    if isinstance(operand, Value):
        yield operand
    elif isinstance(operand, tuple):
        for part in operand:
            yield from values_in(part)


def givers_of(nodes: Iterable[Node]) -> dict[Value, Node]:
    """The node that computes each value."""
    return {value: node for node in nodes for value in node.outputs}


def readers_of(nodes: Iterable[Node]) -> dict[Value, list[Node]]:
    """The nodes that read each value that is read, in order."""
    found: dict[Value, list[Node]] = defaultdict(list)
    for node in nodes:
        for value in dict.fromkeys(node.reads):
            found[value].append(node)
    return found


def read_counts(program: Program) -> Counter[Value]:
    """How often each value is read, by nodes and as an output."""
    found = Counter(value for node in program.nodes for value in node.reads)
    found.update(value for _, value in program.outputs)
    return found


def map_values(operand: Operand, function: Callable[[Value], Any]) -> Any:
    """The operand with each value replaced by the function's result."""
    if isinstance(operand, Value):
        return function(operand)
    if isinstance(operand, tuple):
        return tuple(map_values(part, function) for part in operand)
    return operand


def substituted(node: Node, instead: Mapping[Value, Value]) -> Node:
    """The node with its operands replaced as the mapping says."""
    operands = tuple(map_values(operand, lambda value: instead.get(value, value)) for operand in node.operands)
    return node if operands == node.operands else replace(node, operands=operands)
