"""What a backend supplies to write source for its framework: the code of each operator, and the text of files.

The neutral half (:mod:`agnostic.port.blocks`, :mod:`agnostic.port.writer`) chooses classes, attributes, statements and
their names. A dialect, ``backends/agnostic_NAME/writer.py``, gets one node at a time, in a program whose axes are
already in the framework's order (:mod:`agnostic.port.layout`), and returns a piece of code (:mod:`agnostic.port.code`).
Its module has an object ``DIALECT`` of this protocol.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from agnostic.port.code import Apply, Code
from agnostic.port.layout import Rearrangement
from agnostic.program.nodes import Leaf, Node, Value


@dataclass(frozen=True)
class Weight:
    """A variable of a layer, and the source of its numbers.

    Attributes:
        name: the variable's name in the layer, such as ``"kernel"``.
        value: the program's parameter or buffer.
        step: how its numbers are reordered; None: they are not.
    """

    name: str
    value: Value
    step: Rearrangement | None = None


@dataclass(frozen=True)
class LayerNode:
    """A node that becomes a layer with weights (or a state) of its own.

    Attributes:
        constructor: code that makes the layer; the writer adds the name. Use keyword arguments with clear names: those
            that differ between equal blocks become arguments of the block under these names.
        apply: from the code of the layer, ``self.conv1``, and the code of the node's operands, to the code of a call.
        weights: the variables of the layer.
        stem: the name of the layer where the model has none, such as ``"conv"``.
    """

    constructor: Apply
    apply: Callable[[Code, Sequence[Code]], Code]
    weights: tuple[Weight, ...] = ()
    stem: str = "layer"


@dataclass(frozen=True)
class Attribute:
    """An attribute that a class makes in its constructor.

    Attributes:
        name: of the attribute.
        layer: the name of the layer or weight in the model.
        code: makes the layer; None for a weight.
        leaf: for a weight, the program's leaf with its new shape.
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
        doc: the place of its blocks in the model; ``""`` where there is no short description.
        parameters: of the constructor, with defaults (``...``: none).
        attributes: in order.
        inputs: variables of the call.
        body: the lines of ``call`` with the return, not indented.
        root: whether it is the model itself.
        stack: for a class that calls its layers one after the other, the call of :meth:`Dialect.stacked`; else None.
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
        doc: the model, its origin, and the axes of its inputs.
        classes: a class comes before those that use it; the model comes last.
        example: the shape and type of each input.
        helpers: names of the functions of :attr:`Dialect.helpers` that the file calls.
        register: a name that identifies this file.
        functions: source of functions of this model only.
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
        native: a framework array from a NumPy array.
        numpy: a NumPy array from a framework array.
        call: the output of ``model`` for a list of arrays, ``inputs``.
    """

    imports: str
    native: str
    numpy: str
    call: str


class Dialect(Protocol):
    """How source for one framework is written."""

    name: str
    """The backend's name."""

    channels: int
    """The axis of an image's channels: -1 or 1."""

    reserved: frozenset[str]
    """Names that attributes of a class must not have, since the framework uses them."""

    modules: frozenset[str]
    """Names under which a written file imports modules."""

    lists: bool
    """Whether layers in a list keep the names given to their constructors."""

    holds_weights: bool
    """Whether a block that holds weights itself calls functions with them; else they are a layer's."""

    helpers: Mapping[str, str]
    """Functions that may be called, by name, with their source; written into the file if they are used."""

    testing: Testing
    """Pieces of a test of a written file."""

    def expression(self, node: Node, operands: Sequence[Code]) -> Code:
        """The code of a node without weights of its own.

        Args:
            node: the node to write. Lengths that depend on the inputs are :class:`agnostic.port.code.Dim`: put them
                into the code, where the writer replaces them, and do not compute with them.
            operands: the code of its operands; numbers and None unchanged.

        Raises:
            Unwritable: there is no code for it.
        """
        ...

    def layer(self, node: Node) -> LayerNode | None:
        """The layer for a node that has its own weights; None where the framework has no such layer."""
        ...

    def as_layer(self, node: Node) -> Code | None:
        """A layer without weights that applies the node to its first operand, for stacks; None: there is none."""
        ...

    def layer_path(self, path: str) -> str:
        """The path by which the framework's own naming knows a layer: of names joined by slashes, one by dots."""
        ...

    def named(self, constructor: Code, name: Code) -> Code:
        """The code that constructs a layer with a name, where the framework takes names."""
        ...

    def stacked(self, layers: Sequence[Code]) -> Code:
        """The code of a layer that calls layers one after the other."""
        ...

    def unstacked(self, array: Code, axis: int) -> Code:
        """The code that splits an array into all items along an axis, and removes the axis."""
        ...

    def split(self, array: Code, count: int, axis: int) -> Code:
        """The code that splits an array into equal parts along an axis."""
        ...

    def shape(self, array: Code) -> Code:
        """The code of an array's shape, whose items are lengths."""
        ...

    def beside(self, code: Code, array: Code) -> Code:
        """The code of an array that is made of numbers alone, on the device of another array."""
        ...

    def file(self, file: File) -> str:
        """The source text; the caller formats it."""
        ...


@dataclass(frozen=True)
class Unwritable(Exception):
    """A dialect has no code for a node; the message completes "operator X ..."."""

    message: str = ""

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True)
class Written:
    """A written source, with what is needed to load its weights and to compare it.

    Attributes:
        text: the source.
        weights: for each variable of the new model, by its path with slashes: the leaf, and the steps that reorder it.
        layers: for each layer of the new model, by its path with dots: the program's value that it returns.
    """

    text: str
    weights: Mapping[str, tuple[Leaf, tuple[Rearrangement, ...]]]
    layers: Mapping[str, Value]
