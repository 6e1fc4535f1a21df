"""Build a program node by node. Every backend's reader uses this."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from agnostic.errors import InvalidInput
from agnostic.program.nodes import Array, Leaf, Node, Operand, Program, Role, Value, values_in
from agnostic.program.vocabulary import get, shapes_of


@dataclass(frozen=True)
class NodeOrigin:
    """Where a node comes from; see :class:`agnostic.program.nodes.Node`."""

    module: str = ""
    kind: str = ""
    file: str | None = None
    line: int | None = None
    calls: tuple[str, ...] = ()

    @classmethod
    def of(cls, node: Node) -> NodeOrigin:
        """Where a node that stands in a program comes from."""
        return cls(node.module, node.kind, node.file, node.line, node.calls)

    def is_within(self, other: NodeOrigin) -> bool:
        """Whether the other one's module is this one's, or holds it."""
        return not other.module or f"{self.module}.".startswith(f"{other.module}.")

    def __str__(self) -> str:
        layer = f"layer {self.module!r} ({self.kind})" if self.module else self.kind or "the model"
        return layer if self.file is None else f"{layer}, {self.file}:{self.line}"


@dataclass
class Builder:
    """Collects leaves and nodes in the order in which a reader finds them.

    Attributes:
        origin: the source of the nodes that are emitted next.
    """

    leaves: list[Leaf] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    origin: NodeOrigin = NodeOrigin()
    _count: int = 0
    _leaves: dict[Value, Leaf] = field(default_factory=dict, repr=False)
    _places: dict[Value, int] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, program: Program) -> Builder:
        """One with the leaves of a program, whose values have numbers that the program does not use."""
        return cls(list(program.leaves), _count=program.last_id)

    def value(self, shape: Any, dtype: str) -> Value:
        """A new value."""
        self._count += 1
        return Value(self._count, tuple(int(n) for n in shape), dtype)

    def leaf(self, name: str, role: Role, shape: Any, dtype: str, array: Array | None = None) -> Value:
        """Add a leaf; return its value."""
        value = self.value(shape, dtype)
        self.leaves.append(Leaf(name, role, value, array))
        return value

    def emit(self, operator: str, *operands: Operand, dtype: str | None = None, **attributes: Any) -> Any:
        """Add a node; return its value, or a tuple of values where the operator has several outputs.

        Args:
            operator: a name of the vocabulary.
            operands: in the order of its parameters; trailing None may be left out.
            dtype: of the outputs, and the attribute of that name; None: of the first operand that is a value.
            attributes: of the operator; all that have no default.

        Raises:
            InvalidInput: the shapes do not fit the operator.
        """
        entry = get(operator)
        unknown = next((name for name in attributes if name not in entry.defaults and not entry.options), None)
        if unknown is not None:
            raise InvalidInput(f"operator {operator!r} has no attribute {unknown!r} ({', '.join(entry.defaults)})")
        if "dtype" in entry.defaults:
            attributes["dtype"] = dtype
        elif dtype is None:
            dtype = next((value.dtype for operand in operands for value in values_in(operand)), "float32")
        assert dtype is not None
        shapes = entry.shape(*shapes_of(operands), **attributes)
        several = bool(shapes) and isinstance(shapes[0], tuple)
        outputs = tuple(self.value(shape, dtype) for shape in (shapes if several else [shapes]))
        where = self.origin
        self.nodes.append(
            Node(operator, operands, attributes, outputs, where.module, where.kind, where.file, where.line, where.calls)
        )
        return outputs if several else outputs[0]

    def retype(self, value: Value, dtype: str) -> Value:
        """Change the type of a value in the node that computes it; nothing is cast."""
        if value.dtype == dtype:
            return value
        changed = Value(value.id, value.shape, dtype)
        for place in range(len(self.nodes) - 1, -1, -1):
            node = self.nodes[place]
            if value in node.outputs:
                outputs = tuple(changed if output == value else output for output in node.outputs)
                self.nodes[place] = replace(node, outputs=outputs)
                break
        return changed

    def is_weight(self, value: Value) -> bool:
        """Whether a value is a parameter or buffer."""
        leaf = self.leaf_of(value)
        return leaf is not None and leaf.role in ("parameter", "buffer")

    def giver(self, value: Value) -> Node | None:
        """The node that computes a value; None for a leaf."""
        if self.leaf_of(value) is not None:
            return None
        place = self._places.get(value, -1)
        if not 0 <= place < len(self.nodes) or value not in self.nodes[place].outputs:
            # Nodes may be taken out and replaced; most are asked for soon after they were written.
            backwards = range(len(self.nodes) - 1, -1, -1)
            place = next((k for k in backwards if value in self.nodes[k].outputs), -1)
            self._places[value] = place
        return self.nodes[place] if place >= 0 else None

    def leaf_of(self, value: Value) -> Leaf | None:
        """The leaf of a value; None for what a node computes."""
        if len(self._leaves) < len(self.leaves):
            self._leaves = {leaf.value: leaf for leaf in self.leaves}
        return self._leaves.get(value)

    def program(
        self, name: str, framework: str, outputs: Mapping[str, Value], modules: Mapping[str, str] | None = None
    ) -> Program:
        """The program."""
        order = {"input": 0, "parameter": 1, "buffer": 2, "constant": 3}
        leaves = sorted(self.leaves, key=lambda leaf: order[leaf.role])
        return Program(name, framework, tuple(leaves), tuple(self.nodes), tuple(outputs.items()), modules or {})
