"""What a backend says to have source written for its framework: how one operator is spelled, and how a class looks.

The neutral half (:mod:`agnostic.port.blocks`, :mod:`agnostic.port.writer`) decides what is a class, an attribute, a
statement, and which name each has. A dialect, ``backends/agnostic_NAME/writer.py``, knows none of that: it is given one
node at a time, in a program whose axes are already the framework's own (:mod:`agnostic.port.layout`), and answers with
a piece of code (:mod:`agnostic.port.code`). Its module has an object ``DIALECT`` of this protocol.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from agnostic.port.code import Apply, Code
from agnostic.port.layout import Rearrangement
from agnostic.program.nodes import Leaf, Node, Value


@dataclass(frozen=True)
class Weight:
    """A variable of a layer, and where its numbers come from.

    Attributes:
        name: the variable's name in the layer, such as ``"kernel"``.
        value: of the program's parameter or buffer.
        step: how its numbers are reordered; None: not at all.
    """

    name: str
    value: Value
    step: Rearrangement | None = None


@dataclass(frozen=True)
class LayerNode:
    """A node that becomes a layer with weights (or a state) of its own.

    Attributes:
        constructor: makes it; the writer adds the name. Arguments should be keywords with telling names, since those
            that differ between equal blocks become arguments of the block by these names.
        apply: from the layer's own code, ``self.conv1``, and the code of the node's operands, to the code of a call.
        weights: its variables.
        stem: what to call it where the model has no name for it, such as ``"conv"``.
    """

    constructor: Apply
    apply: Callable[[Code, Sequence[Code]], Code]
    weights: tuple[Weight, ...] = ()
    stem: str = "layer"


@dataclass(frozen=True)
class Attribute:
    """What a class makes when it is constructed.

    Attributes:
        name: of the attribute.
        layer: the name of the layer or weight, as the model has it.
        code: makes it; of a weight None.
        leaf: of a weight the program's leaf, with its new shape.
    """

    name: str
    layer: str
    code: Code = None
    leaf: Leaf | None = None


@dataclass(frozen=True)
class Class:
    """A class to be written.

    Attributes:
        name: of the class.
        doc: where in the model its blocks are; ``""`` where that cannot be said.
        parameters: of the constructor, with defaults (``...``: none).
        attributes: in order.
        inputs: variables of the call.
        body: the lines of the call, the return included, not indented.
        root: whether it is the model itself.
        stack: of a class that calls its layers one after the other the call of :meth:`Dialect.stacked`; else None.
    """

    name: str
    doc: str
    parameters: Sequence[tuple[str, Any]]
    attributes: Sequence[Attribute]
    inputs: Sequence[str]
    body: Sequence[str]
    root: bool = False
    stack: Code = None


@dataclass(frozen=True)
class File:
    """A whole file to be written.

    Attributes:
        doc: what the model is, where it came from, which axes its inputs have.
        classes: those that others use first; the model itself last.
        example: the shape and type of each input.
        helpers: names of :attr:`Dialect.helpers` that are called.
        register: a name for what belongs to this file.
        functions: source of functions that belong to this model alone.
    """

    doc: str
    classes: Sequence[Class]
    example: Sequence[tuple[tuple[int, ...], str]]
    helpers: Sequence[str]
    register: str
    functions: Sequence[str] = ()


@dataclass(frozen=True)
class Testing:
    """Pieces of a test of a written file, each an expression with ``{}`` for its operand.

    Attributes:
        imports: the lines that import the framework.
        native: an array of the framework from one of NumPy.
        numpy: and back.
        call: the output of ``model`` for a list of arrays, ``inputs``.
    """

    imports: str
    native: str
    numpy: str
    call: str


class Dialect(Protocol):
    """How source of one framework is spelled."""

    name: str
    """The backend's name."""

    channels: int
    """The axis of an image's channels: -1 or 1."""

    reserved: frozenset[str]
    """Names that attributes of a class must not have, since the framework uses them."""

    modules: frozenset[str]
    """Names by which a file of the framework imports modules."""

    lists: bool
    """Whether layers in a list keep the names that they are made with."""

    helpers: Mapping[str, str]
    """Functions that may be called, by name, with their source; written into the file if they are used."""

    testing: Testing
    """How a test of a written file is spelled."""

    def expression(self, node: Node, operands: Sequence[Code]) -> Code:
        """The code of a node without weights of its own.

        Args:
            node: what to write. Lengths that change with the inputs are :class:`agnostic.port.code.Dim`; they may be
                passed on in the code, where the writer replaces them, but not computed with.
            operands: the code of its operands, numbers and None as they are.

        Raises:
            Unwritable: there is no code for it.
        """
        ...

    def layer(self, node: Node) -> LayerNode | None:
        """The layer that a node becomes if its weights are its own; None where it has none."""
        ...

    def as_layer(self, node: Node) -> Code | None:
        """A layer without weights that computes the node of its first operand, for a sequence; None: there is none."""
        ...

    def named(self, constructor: Code, name: Code) -> Code:
        """The code that makes a layer under a name, where the framework wants to be told."""
        ...

    def stacked(self, layers: Sequence[Code]) -> Code:
        """The code of a layer that calls layers one after the other."""
        ...

    def unstacked(self, array: Code, axis: int) -> Code:
        """The code of all items along an axis, which it is no more an axis of."""
        ...

    def split(self, array: Code, count: int, axis: int) -> Code:
        """The code of so many equal parts along an axis."""
        ...

    def shape(self, array: Code) -> Code:
        """The code of an array's shape, whose items are lengths."""
        ...

    def file(self, file: File) -> str:
        """The source text; formatted or not, the caller formats it."""
        ...


@dataclass(frozen=True)
class Unwritable(Exception):
    """A dialect has no code for a node; the message completes "operator X ..."."""

    message: str = ""

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True)
class Written:
    """A source, and what it takes to fill it with numbers and to compare it.

    Attributes:
        text: the source.
        weights: for each variable of the new model, by its path with slashes: the leaf, and steps that reorder it.
        layers: for each layer of the new model, by its path with dots: the program's value that it returns.
        notes: what a reader should know, such as sizes that are fixed.
    """

    text: str
    weights: Mapping[str, tuple[Leaf, tuple[Rearrangement, ...]]]
    layers: Mapping[str, Value]
    notes: tuple[str, ...] = field(default=())
