"""Equal blocks become one class: what differs between them becomes its arguments.

Two blocks are equal if their members and statements are, apart from numbers, strings and None. Blocks without blocks
inside are compared first, since the class of a block inside is part of what is compared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from agnostic.port.body import Lines, lines_of
from agnostic.port.code import (
    Apply,
    At,
    Attr,
    Code,
    Each,
    Infix,
    Listed,
    Name,
    Ref,
    class_name,
    identifier,
    replaced,
)
from agnostic.port.dialect import Attribute, Class, Dialect
from agnostic.port.writer import Blocks, Body, Member, Statement
from agnostic.program.nodes import Value

Visit = Callable[[Any, str], Code]


@dataclass
class Group:
    """Blocks that become one class.

    Attributes:
        name: of the class.
        bodies: in order.
        codes: of each body its members' codes and its statements, all with literals.
        parameters: names, with what each body gives.
    """

    name: str
    bodies: list[Body] = field(default_factory=list)
    codes: list[tuple[list[Code], list[Statement]]] = field(default_factory=list)
    parameters: dict[str, list[Any]] = field(default_factory=dict)


class Classes:
    """Makes the classes of a model.

    Args:
        blocks: that wrote the bodies.
        root: the model's.
    """

    def __init__(self, blocks: Blocks, root: Body) -> None:
        self.blocks = blocks
        self.dialect: Dialect = blocks.dialect
        self.root = root
        self.constructors: dict[str, Code] = {}
        self.classes: list[Class] = []
        self._taken: set[str] = set()

    def all(self) -> list[Class]:
        """Those that others use first, the model last."""
        bodies = {body.path: body for body in self.root.bodies}
        heights: dict[str, int] = {}
        for path, body in bodies.items():
            heights[path] = 1 + max((heights[m.body.path] for m in body.members if m.body is not None), default=0)
        for height in sorted(set(heights.values())):
            groups: dict[Any, Group] = {}
            for path, body in bodies.items():
                if heights[path] != height:
                    continue
                codes = [self._member_code(member) for member in body.members]
                if body.is_chain:
                    self.constructors[path] = self._chain(body, codes)
                    continue
                key = (body.kind, *self._skeleton(body, codes))
                group = groups.setdefault(key, Group(""))
                group.bodies.append(body)
                group.codes.append((codes, body.statements))
            for group in groups.values():
                self._finish(group)
        return self.classes

    # Members ----------------------------------------------------------------------------------------------------------
    def _member_code(self, member: Member) -> Code:
        if member.body is not None:
            return self.constructors[member.body.path]
        if member.leaf is not None:
            return tuple(member.leaf.value.shape)
        return member.constructor

    def _chain(self, body: Body, codes: Sequence[Code]) -> Code:
        """A stack of what the block calls."""
        by_name = {f"self.{m.name}": (m.layer, code) for m, code in zip(body.members, codes, strict=True)}
        parts: list[tuple[str, Code]] = []
        givers = {value: node for node in self.blocks.program.nodes for value in node.outputs}
        for statement in body.statements:
            called = statement.code.function.text
            if called in by_name:
                parts.append(by_name[called])
            else:
                node = givers[statement.targets[0]]
                relative = node.module.removeprefix(f"{body.path}.") if node.module != body.path else node.operator
                name, number = identifier("n" + relative)[1:], 2
                while name in [known for known, _ in parts]:
                    name, number = f"{name}_{number}", number + 1
                parts.append((name, self.dialect.as_layer(node)))
        return self.dialect.stacked(self._runs(parts))

    def _runs(self, parts: Sequence[tuple[str, Code]]) -> list[Code]:
        """Layers under their names; three or more that are equal but for a number in the name as one expression."""
        found: list[Code] = []
        place = 0
        while place < len(parts):
            name, code = parts[place]
            prefix = name.rstrip("0123456789")
            end = place + 1
            if name != prefix:
                first = int(name[len(prefix) :])
                while end < len(parts) and parts[end] == (f"{prefix}{first + end - place}", code):
                    end += 1
            if end - place > 1:
                each = Name("str(i)") if not prefix else Name(f'f"{prefix}{{i}}"')
                found.append(Each(self.dialect.named(code, each), "i", first, first + end - place))
            else:
                found.append(self.dialect.named(code, name))
                end = place + 1
            place = end
        return found

    # Comparing --------------------------------------------------------------------------------------------------------
    def _skeleton(self, body: Body, codes: Sequence[Code]) -> tuple[Any, ...]:
        numbers: dict[Value, int] = {}

        def number(value: Value) -> Name:
            return Name(f"%{numbers.setdefault(value, len(numbers))}")

        def bare(code: Code) -> str:
            hidden = visited(code, "", lambda value, hint: Name("#"))
            return repr(replaced(hidden, lambda piece: number(piece.value) if isinstance(piece, Ref) else piece))

        for value in body.inputs:
            number(value)
        members = [
            (
                m.name,
                m.layer,
                m.leaf is None,
                m.leaf.value.dtype if m.leaf else "",
                m.leaf.role if m.leaf else "",
                bare(c),
            )
            for m, c in zip(body.members, codes, strict=True)
        ]
        lines = [(bare(s.code), [number(v).text for v in s.targets]) for s in body.statements]
        outputs = [number(v).text for v in body.outputs]
        paths = [path for path, _ in self.blocks.program.outputs] if not body.path else []
        return repr(members), repr(lines), repr(outputs), repr(paths)

    def _finish(self, group: Group) -> None:
        """Choose the parameters, write the class, and say how each body is constructed."""
        first = group.bodies[0]
        group.name = class_name(first.kind or first.path.rpartition(".")[2], self._taken)
        self._taken.add(group.name)
        columns = [self._literals(body, codes) for body, (codes, _) in zip(group.bodies, group.codes, strict=True)]
        chosen = self._parameters(group, columns)
        used_in_call: set[str] = set()
        places = iter(chosen)

        def in_constructor(value: Any, hint: str) -> Code:
            return next(places)

        def in_call(value: Any, hint: str) -> Code:
            found = next(places)
            if isinstance(found, Name | Infix) or found != value:
                names = {p.text for p in _names(found)}
                used_in_call.update(names)
                return replaced(
                    found, lambda c: Name(f"self.{c.text}") if isinstance(c, Name) and c.text in names else c
                )
            return found

        codes, statements = group.codes[0]
        attributes = []
        for member, code in zip(first.members, codes, strict=True):
            shown = visited(code, member.name, in_constructor)
            attributes.append(Attribute(member.name, member.layer, shown, member.leaf))
        shown_statements = [replace(s, code=visited(s.code, "", in_call)) for s in statements]
        keep = [Attribute(name, "", Name(name)) for name in group.parameters if name in used_in_call]
        lines: Lines = lines_of(first, shown_statements, self.blocks, self.dialect.modules, root=not first.path)
        self.classes.append(
            Class(
                group.name, _doc(first), [(name, ...) for name in group.parameters], [*keep, *attributes],
                lines.inputs, lines.body, root=not first.path,
            )
        )  # fmt: skip
        for place, body in enumerate(group.bodies):
            given = tuple((name, values[place]) for name, values in group.parameters.items())
            self.constructors[body.path] = Apply(Name(group.name), (), given)

    def _literals(self, body: Body, codes: Sequence[Code]) -> list[tuple[Any, str]]:
        found: list[tuple[Any, str]] = []

        def see(value: Any, hint: str) -> Code:
            found.append((value, hint))
            return value

        for member, code in zip(body.members, codes, strict=True):
            visited(code, member.name, see)
        for statement in body.statements:
            visited(statement.code, "", see)
        return found

    def _parameters(self, group: Group, columns: Sequence[Sequence[tuple[Any, str]]]) -> list[Code]:
        """For each literal itself, or the parameter that gives it."""
        taken = {member.name for member in group.bodies[0].members} | set(self.dialect.reserved)
        known: list[tuple[list[Any], str]] = []
        chosen: list[Code] = []
        for place, (value, hint) in enumerate(columns[0]):
            values = [column[place][0] for column in columns]
            if all(_same(v, value) for v in values):
                chosen.append(value)
                continue
            name = next((name for other, name in known if all(map(_same, other, values))), None)
            if name is None:
                multiple = _multiple(known, values)
                if multiple is not None:
                    chosen.append(multiple)
                    continue
                name = identifier(_parameter_name(hint, {n for _, n in known} | taken), taken | {n for _, n in known})
                known.append((values, name))
                group.parameters[name] = values
            chosen.append(Name(name))
        return chosen


def _parameter_name(hint: str, taken: set[str]) -> str:
    """The argument's own name; with the member's before it where that is taken."""
    owner, _, name = hint.rpartition(".")
    if name not in taken or not owner:
        return name or "size"
    return f"{owner}_{name}"


def _same(a: Any, b: Any) -> bool:
    return type(a) is type(b) and (a == b or (a != a and b != b))


def _multiple(known: Sequence[tuple[list[Any], str]], values: Sequence[Any]) -> Code | None:
    """The values as a whole multiple of another parameter's."""
    for other, name in known:
        if all(
            type(a) is int and type(b) is int and a > 0 and b > a and b % a == 0
            for a, b in zip(other, values, strict=True)
        ):
            ratios = {b // a for a, b in zip(other, values, strict=True)}
            if len(ratios) == 1:
                return Infix("*", ratios.pop(), Name(name))
    return None


def _names(code: Code) -> list[Name]:
    if isinstance(code, Name):
        return [code]
    return [*_names(code.left), *_names(code.right)] if isinstance(code, Infix) else []


def _is_literal(code: Code) -> bool:
    if isinstance(code, tuple):
        return all(map(_is_literal, code))
    return code is None or isinstance(code, bool | int | float | str)


def visited(code: Code, hint: str, visit: Visit) -> Code:
    """The code with each literal, or tuple of literals, replaced by what is given for it and a hint of its meaning."""
    if _is_literal(code):
        return visit(code, hint)
    if isinstance(code, Apply):
        called = code.function.text.rpartition(".")[2] if isinstance(code.function, Name) else ""
        function = code.function if isinstance(code.function, Name) else visited(code.function, hint, visit)
        args = tuple(visited(arg, f"{hint}.{called}", visit) for arg in code.args)
        return Apply(function, args, tuple((k, visited(v, f"{hint}.{k}", visit)) for k, v in code.keywords))
    if isinstance(code, Infix):
        word = {"*": "scale", "/": "divisor", "//": "divisor", "+": "offset", "-": "offset"}.get(code.operator, "limit")
        return Infix(
            code.operator, visited(code.left, f"{hint}.{word}", visit), visited(code.right, f"{hint}.{word}", visit)
        )
    if isinstance(code, At):
        return At(
            visited(code.of, hint, visit),
            code.index if isinstance(code.index, int) else visited(code.index, hint, visit),
        )
    if isinstance(code, Attr):
        return Attr(visited(code.of, hint, visit), code.name)
    if isinstance(code, Listed):
        return Listed(tuple(visited(part, hint, visit) for part in code.parts))
    if isinstance(code, Each):
        return Each(visited(code.code, hint, visit), code.variable, code.start, code.stop)
    if isinstance(code, tuple):
        return tuple(visited(part, hint, visit) for part in code)
    return code


def _doc(body: Body) -> str:
    return f"The model {body.kind}." if not body.path else f"{body.kind or 'A block'} of the model."
