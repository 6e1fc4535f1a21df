"""From a program to source text and weights: the steps of a port in order, without running the result."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from agnostic.errors import InvalidInput
from agnostic.port.classes import Classes
from agnostic.port.code import Dim, Name, class_name, identifier, parts
from agnostic.port.dialect import Class, Dialect, File, Written
from agnostic.port.functions import LONGEST, Functions, Stub
from agnostic.port.hierarchy import nested
from agnostic.port.laying import laid_out
from agnostic.port.layout import LaidOut, Rearrangement
from agnostic.port.lists import joined_inputs
from agnostic.port.loops import HELPER, Unlooped
from agnostic.port.names import dotted
from agnostic.port.padding import agreed
from agnostic.port.repeats import without_repeats
from agnostic.port.sizes import merged
from agnostic.port.writer import Blocks, Body
from agnostic.program import custom
from agnostic.program.loops import unrolled
from agnostic.program.nodes import Array, Leaf, Node, Program, Value


@dataclass(frozen=True)
class Draft:
    """A written port, and its relation to the source model.

    Attributes:
        program: the program of the source, at the first size.
        laid: the same program with the axes of the target.
        written: the source text, its weights and layers.
        stubs: calls of functions that the user fills in; their nodes belong to the laid program.
        has_guesses: whether the formula of a length was found by trial.
        layers: the source's name of each layer of the port.
        names: the source's name of each weight that has another in the laid program.
    """

    program: Program
    laid: LaidOut
    written: Written
    stubs: tuple[Stub, ...] = ()
    has_guesses: bool = False
    layers: Mapping[str, str] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)

    def arrays(self, weights: Mapping[str, Array]) -> dict[str, Array]:
        """The new model's variables by path, from the source model's weights by name."""
        found = {}
        for path, (leaf, steps) in self.written.weights.items():
            array = np.asarray(weights[self.names.get(leaf.name, leaf.name)]) if leaf.array is None else leaf.array
            first = [self.laid.weights[leaf.name]] if leaf.array is None and leaf.name in self.laid.weights else []
            for step in [*first, *steps]:
                array = step(array)
            if array.dtype.kind == "f":
                array = array.astype(np.float32)
            elif array.dtype.kind in "iu" and array.dtype.itemsize > 4:
                array = _in_32_bits(array)
            found[path] = array
        return found


def _in_32_bits(array: Array) -> Array:
    """Whole numbers of 32 bits: the largest for one that stands for the largest, else the lowest bits, of which sums,
    products and bits of others, as in a hash, have the lowest too.
    """
    far = np.abs(array.astype(np.float64)) >= 2.0**62
    return np.where(far, np.clip(array, -(2**31), 2**31 - 1), array).astype(np.int32)


class Unported(InvalidInput):
    """Operators that cannot be written, all of them."""


def drafted(programs: Sequence[Program], dialect: Dialect, *, stubs: bool = False) -> Draft:
    """Write the source of a program; a loop place by place where it cannot be written as one.

    Args:
        programs: of the same model, read at one or more input sizes; lengths that differ stay variable in the source.
        dialect: of the target.
        stubs: whether operators that cannot be written become functions to fill in.

    Raises:
        Unported: operators cannot be written; the message says which and where.
        Differ: the programs differ in more than lengths.
    """
    try:
        if HELPER in dialect.helpers:
            return _drafted(programs, dialect, stubs)
    except Unlooped:
        pass
    return _drafted(list(map(unrolled, programs)), dialect, stubs)


def _drafted(programs: Sequence[Program], dialect: Dialect, stubs: bool) -> Draft:
    programs = without_repeats(agreed(programs))
    sorted_ = [nested(program) for program in programs]
    laid = [laid_out(found.program, dialect.channels) for found in sorted_]
    program = merged([found.program for found in laid]) if len(laid) > 1 else laid[0].program
    inputs = program.of_role("input")
    taken = {*dialect.helpers, *(leaf.name for leaf in inputs)}
    functions = Functions(dialect.name, dialect.modules, taken)
    reasons = {id(move.node): move.operator for move in laid[0].moves}
    moved = {
        id(node): reasons[id(first)]
        for node, first in zip(program.nodes, laid[0].program.nodes, strict=True)
        if id(first) in reasons
    }
    blocks = Blocks(program, dialect, functions, moved)
    root = blocks.root()
    joined_inputs(root)
    if functions.stubs and not stubs:
        said = [custom.sentence(stub.node, stub.reason) for stub in functions.stubs]
        raise Unported(custom.refusal(program.name, said, FIX))
    classes = Classes(blocks, root).all()
    weights: dict[str, tuple[Leaf, tuple[Rearrangement, ...]]] = {}
    layers: dict[str, Value] = {}
    _collect(root, "", weights, layers)
    paths = {inner: dialect.layer_path(inner) for inner in layers}
    helpers = _helpers(classes, dialect, blocks)
    name = file_name(program)
    turned = any(list(places) != sorted(places) for places in laid[0].inputs.values())
    order = f" Images have their channels {'last' if dialect.channels == -1 else 'first'}." if turned else ""
    one = 1 if not any(map(_picks_more, program.nodes)) else None
    file = File(
        doc=f"{class_name(program.name, set())} for {dialect.name.capitalize()}, ported from {program.framework}."
        + order,
        classes=classes,
        example=[
            (
                tuple(
                    (one or int(n)) if isinstance(n, Dim) and not i else int(n) for i, n in enumerate(leaf.value.shape)
                ),
                leaf.value.dtype,
            )
            for leaf in inputs
        ],
        helpers=helpers,
        register=name,
        functions=functions.texts(name),
    )
    text = dialect.file(file)
    places = {id(node): place for place, node in enumerate(program.nodes)}
    opened = [replace(stub, node=laid[0].program.nodes[places[id(stub.node)]]) for stub in functions.stubs]
    written = Written(text, weights, {paths[inner]: value for inner, value in layers.items()})
    known = {dotted(path): sorted_[0].layers.get(path, path) for path in sorted_[0].program.modules}
    old = {paths[inner]: known.get(dotted(inner), dotted(inner)) for inner in layers}
    return Draft(programs[0], laid[0], written, tuple(opened), blocks.has_guesses, old, sorted_[0].weights)


FIX = (
    "write functions to fill in (stubs=True, --stubs), or define how the operator is written (operators=, --operators)"
)
"""What to do about operators that cannot be written."""


def _picks_more(node: Node) -> bool:
    """Whether a place other than the first is taken of an axis of any length: one item of a batch is not enough."""
    x, given = node.operands[0] if node.operands else None, node.attributes
    if node.operator != "select" or not isinstance(x, Value):
        return False
    return isinstance(x.shape[given["axis"]], Dim) and not isinstance(given["index"], Dim) and given["index"] > 0


def file_name(program: Program) -> str:
    """The name of a written file, without its ending."""
    return identifier(program.name[:LONGEST]).lower()


def _collect(body: Body, path: str, weights: dict[str, Any], layers: dict[str, Value]) -> None:
    """The variables and layers of a body by their paths in the new model."""
    for member in body.members:
        inner = f"{path}/{member.layer}" if path else member.layer
        if member.body is not None:
            if len(member.body.outputs) == 1:
                layers[inner] = member.body.outputs[0]
            # What a layer in a loop gives is no value of the program.
            _collect(member.body, inner, weights, {} if member.body.repeats else layers)
        elif member.leaf is not None:
            weights[inner] = (member.leaf, ())
        else:
            if member.output is not None:
                layers[inner] = member.output
            weights |= {f"{inner}/{name}": (leaf, steps) for name, leaf, steps in member.weights}


_SAID = re.compile(r'"""[^"]*"""|^ *# .*$|  # [^"\n]*$', re.MULTILINE)
"""Docstrings and comments."""


def called_in(helpers: Mapping[str, str], *texts: str) -> list[str]:
    """The helpers that source texts name, with those that these name, in the order of their table.

    Args:
        helpers: their source by name.
        texts: any part of the source.
    """
    waiting, found = list(texts), set[str]()
    while waiting:
        words = set(re.findall(r"(?<![.\w])\w+", _SAID.sub("", waiting.pop())))
        new = {name for name in helpers if name in words} - found
        found |= new
        waiting += [helpers[name] for name in new]
    return [name for name in helpers if name in found]


def _helpers(classes: Sequence[Class], dialect: Dialect, blocks: Blocks) -> list[str]:
    """The helpers with these names, and those that they call, in the order of the table."""
    lines = [line for c in classes for line in c.body]
    words = {"Block"} if classes else set()

    def see(code: Any) -> None:
        if isinstance(code, Name):
            words.add(code.text)
        for part in parts(code):
            see(part)

    for written in classes:
        for attribute in written.attributes:
            see(attribute.code)
        see(written.stack)
    return called_in(dialect.helpers, *lines, *words)
