"""Templates of blocks: marks replace numbers, strings and None, so that equal blocks can be found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from agnostic.port.code import (
    Apply,
    At,
    Attr,
    Code,
    Each,
    If,
    Infix,
    Listed,
    Loop,
    Name,
    Ref,
    Slice,
    parts,
    rebuilt,
    replaced,
)
from agnostic.port.writer import Body, Member, Statement
from agnostic.program.nodes import Value

Visit = Callable[[Any, str, str], Code]
"""From a literal, a hint of its meaning and its role to what stands for it."""

ROLES = {
    **dict.fromkeys(("filters", "units", "channels", "features", "hidden"), "channels"),
    **dict.fromkeys(("rows", "size", "window"), "size"),
    "heads": "heads",
}
"""What arguments count, by the last word of their names."""

SHAPED = frozenset({"reshape", "view", "broadcast_to", "expand", "zeros", "ones", "full"})
"""Functions that are called with a shape."""

WORDS = {"*": "scale", "/": "divisor", "//": "divisor", "+": "offset", "-": "offset"}


class Missing:
    """Stands for an argument of a part that a block lacks."""

    def __repr__(self) -> str:
        return "MISSING"


MISSING = Missing()


@dataclass(frozen=True)
class Mark:
    """A literal's place in a template.

    Attributes:
        number: of the mark.
        hint: the meaning of the literal: its member and argument, joined by a dot.
        role: ``"channels"``, ``"heads"``, ``"size"`` or ``""``.
    """

    number: int
    hint: str
    role: str = ""


@dataclass
class Template:
    """A block with marks in place of its literals.

    Attributes:
        members: with the code that makes each.
        statements: in order.
        inputs, outputs: values.
        stack: for a block that calls its layers one after the other, the code of all of them; else None.
    """

    members: list[tuple[Member, Code]]
    statements: list[Statement]
    inputs: list[Value]
    outputs: list[Value]
    stack: Code = None


@dataclass
class Group:
    """Blocks that become one class.

    Attributes:
        template: of all blocks.
        bodies: in order.
        columns: for each body, its values at the marks.
        name: of the class.
        parameters: names, with the value of each body.
    """

    template: Template
    bodies: list[Body] = field(default_factory=list)
    columns: list[dict[Mark, Any]] = field(default_factory=list)
    name: str = ""
    parameters: dict[str, list[Any]] = field(default_factory=dict)


def marks(template: Template) -> list[Mark]:
    """The marks in order."""
    found: dict[Mark, None] = {}

    def see(code: Code) -> None:
        if isinstance(code, Mark):
            found[code] = None
        for part in parts(code):
            see(part)

    for _, code in template.members:
        see(code)
    for statement in template.statements:
        see(statement.code)
    see(template.stack)
    return list(found)


def skeleton(template: Template) -> str:
    """A text that is equal for two templates that are equal apart from the values at their marks."""
    numbers: dict[Value, int] = {}

    def number(value: Value) -> Name:
        return Name(f"%{numbers.setdefault(value, len(numbers))}")

    def bare(piece: Code) -> Code:
        if isinstance(piece, Mark):
            return Name("#")
        return number(piece.value) if isinstance(piece, Ref) else piece

    if template.stack is not None:
        return repr(replaced(template.stack, bare))
    for value in template.inputs:
        number(value)
    members = [
        (m.name, m.layer, m.leaf and (m.leaf.value.dtype, m.leaf.role), repr(replaced(code, bare)))
        for m, code in template.members
    ]
    lines = [(repr(replaced(s.code, bare)), [number(v).text for v in s.targets]) for s in template.statements]
    kinds = [value.dtype for value in template.inputs if ":" in value.dtype]
    return repr((members, lines, kinds, [number(v).text for v in template.outputs]))


def marked(template: Template) -> tuple[Template, dict[Mark, Any]]:
    """The template with its literals replaced by marks, and the values of the marks."""
    column: dict[Mark, Any] = {}

    def mark(value: Any, hint: str, role: str) -> Code:
        found = Mark(len(column), hint, role)
        column[found] = value
        return found

    members = [
        (m, shaped(code, f"{m.name}.size", mark, "weight") if m.leaf else visited(code, m.name, mark))
        for m, code in template.members
    ]
    statements = [replace(s, code=visited(s.code, "", mark)) for s in template.statements]
    stack = None if template.stack is None else visited(template.stack, "", mark)
    return replace(template, members=members, statements=statements, stack=stack), column


def is_literal(code: Code) -> bool:
    """Whether code is a number, string, None, or a tuple of these."""
    if isinstance(code, tuple):
        return all(map(is_literal, code))
    return code is MISSING or code is None or isinstance(code, bool | int | float | str)


def shaped(shape: Code, hint: str, visit: Visit, kind: str = "") -> Code:
    """A shape with each of its numbers replaced."""
    if not isinstance(shape, tuple):
        return visited(shape, hint, visit)
    rank = len(shape)
    # An image has two sizes before its channels; heads stand there alone.
    has_heads = rank in (4, 5) and shape[-2] != shape[-3]

    def role(place: int) -> str:
        if place == rank - 1:
            return "weight" if kind else "channels"
        return "heads" if place == rank - 2 and has_heads else "weight" if kind else "size"

    owner = hint.rpartition(".")[0]

    def word(place: int) -> str:
        if role(place) != "size":
            return "size" if kind else role(place)
        return ("window" if place in (2, 4) else "rows") if rank == 6 else "size"

    return tuple(
        visit(n, f"{owner}.{word(place)}", role(place)) if is_literal(n) else visited(n, hint, visit)
        for place, n in enumerate(shape)
    )


def visited(code: Code, hint: str, visit: Visit) -> Code:
    """The code with each literal, or tuple of literals, replaced by a function of the literal, a hint and its role."""
    if is_literal(code):
        return visit(code, hint, ROLES.get(hint.rpartition(".")[2].rpartition("_")[2], ""))
    if isinstance(code, Apply):
        return _visited_call(code, hint, visit)
    if isinstance(code, Infix):
        word = WORDS.get(code.operator, "limit")
        sides = (visited(side, f"{hint}.{word}", visit) for side in (code.left, code.right))
        return Infix(code.operator, *sides)
    if isinstance(code, At):
        index = code.index if isinstance(code.index, tuple) else (code.index,)
        role = "channels" if index[0] == Name("...") else "size"
        found = tuple(_visited_index(part, hint, role, visit) for part in index)
        return At(visited(code.of, hint, visit), found if isinstance(code.index, tuple) else found[0])
    if isinstance(code, Attr):
        return Attr(visited(code.of, hint, visit), code.name)
    if isinstance(code, Listed):
        return Listed(tuple(visited(part, hint, visit) for part in code.parts))
    if isinstance(code, Each):
        ends = []
        for end in (code.start, code.stop):
            counted = visited(end.left if isinstance(end, Infix) else end, "count", visit)
            ends.append(replace(end, left=counted) if isinstance(end, Infix) else counted)
        start, stop = ends
        return Each(visited(code.code, hint, visit), code.variable, start, stop)
    if isinstance(code, If | Loop):
        return rebuilt(code, lambda part: visited(part, hint, visit))
    if isinstance(code, tuple):
        if len(code) == 2 and isinstance(code[0], Name) and code[0].text.startswith('"'):
            return (code[0], visited(code[1], code[0].text.strip('"'), visit))  # a layer of a stack under its name
        return tuple(visited(part, hint, visit) for part in code)
    return code


def _visited_call(code: Apply, hint: str, visit: Visit) -> Code:
    if isinstance(code.function, Name):
        called, function = code.function.text.rpartition(".")[2], code.function
    else:
        called = code.function.name if isinstance(code.function, Attr) else ""
        function = visited(code.function, hint, visit)
    # The parts of a stack have their own names.
    owner = next((value for key, value in code.keywords if key == "name" and isinstance(value, str)), "")
    inner = f"{hint}.{owner}" if hint and owner else owner or hint
    inside = inner.rpartition(".")[2] or called if called and code.keywords else hint
    read = shaped if called in SHAPED else visited
    args = tuple(read(arg, f"{hint}.{called}", visit) for arg in code.args)
    given = []
    for key, value in code.keywords:
        given.append((key, value if key == "name" else visited(value, f"{inside}.{key}", visit)))
    return Apply(function, args, tuple(given))


def _visited_index(index: Code, hint: str, role: str, visit: Visit) -> Code:
    if isinstance(index, Slice):
        return Slice(*(n if n is None else _visited_index(n, hint, role, visit) for n in parts(index)))
    word = "channels" if role == "channels" else "size"
    return visit(index, f"{hint}.{word}", role) if isinstance(index, int) else visited(index, hint, visit)


def called(code: Code) -> set[str]:
    """The members that a piece of code names."""
    found = {code.text[5:]} if isinstance(code, Name) and code.text.startswith("self.") else set()
    for part in parts(code):
        found |= called(part)
    return found


def names(code: Code) -> Iterator[str]:
    """The names in a piece of code."""
    if isinstance(code, Name):
        yield code.text
    for part in parts(code):
        yield from names(part)
