"""Equal blocks become one class: what differs between them becomes its arguments.

Two blocks are equal if their members and statements are, apart from numbers, strings and None. Blocks without blocks
inside are compared first, since the class of a block inside is part of what is compared.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from agnostic.port.body import Lines, lines_of
from agnostic.port.code import (
    Apply,
    At,
    Attr,
    Code,
    Each,
    If,
    Infix,
    Listed,
    Name,
    Ref,
    class_name,
    identifier,
    parts,
    refs,
    replaced,
)
from agnostic.port.dialect import Attribute, Class, Dialect
from agnostic.port.writer import Blocks, Body, Member, Statement
from agnostic.program.nodes import Value

Visit = Callable[[Any, str], Code]


class _Missing:
    """Stands for an argument of a part that a block does not have."""

    def __repr__(self) -> str:
        return "MISSING"


MISSING = _Missing()


@dataclass(frozen=True)
class Mark:
    """A literal's place in a template."""

    number: int
    hint: str


@dataclass
class Template:
    """A block with marks in the place of its literals.

    Attributes:
        members: with the code that makes each.
        statements: in order.
        inputs, outputs: values.
    """

    members: list[tuple[Member, Code]]
    statements: list[Statement]
    inputs: list[Value]
    outputs: list[Value]


@dataclass
class Group:
    """Blocks that become one class.

    Attributes:
        template: what they share.
        bodies: in order.
        columns: of each body, what stands at each mark.
        name: of the class.
        parameters: names, with what each body gives.
    """

    template: Template
    bodies: list[Body] = field(default_factory=list)
    columns: list[dict[Mark, Any]] = field(default_factory=list)
    name: str = ""
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
        # A class of the model may be called as a helper is, which other classes build upon.
        self._taken: set[str] = {*self.dialect.helpers, *self.dialect.modules}

    def all(self) -> list[Class]:
        """Those that others use first, the model last."""
        bodies = {body.path: body for body in self.root.bodies}
        heights = _heights(bodies)
        for height in sorted(set(heights.values())):
            level = [body for path, body in bodies.items() if heights[path] == height]
            kinds: dict[str, list[Body]] = {}
            for body in level:
                kinds.setdefault(body.kind if body.path else "", []).append(body)
            for found in kinds.values():
                self._kind(found)
        return self.classes

    def _kind(self, bodies: Sequence[Body]) -> None:
        """Write the classes of all blocks of a kind."""
        groups: dict[Any, Group] = {}
        for body in bodies:
            template, column = self._template(body)
            group = groups.setdefault(_skeleton(template), Group(template))
            # Equal skeletons have their marks in one order.
            group.columns.append(dict(zip(_marks(group.template), column.values(), strict=True)))
            group.bodies.append(body)
        for group in merged(list(groups.values())):
            if self._is_inline(group):
                for body in group.bodies:
                    self.constructors[body.path] = self._chain(body, [self._member_code(m) for m in body.members])
            else:
                self._finish(group)

    def _is_inline(self, group: Group) -> bool:
        """Whether blocks are written where they are made: chains that are not made twice, or of blocks alone."""
        chains = all(body.is_chain for body in group.bodies)
        return chains and (
            len(group.bodies) == 1 or all(member.body is not None for member, _ in group.template.members)
        )

    def _template(self, body: Body) -> tuple[Template, dict[Mark, Any]]:
        column: dict[Mark, Any] = {}

        def mark(value: Any, hint: str) -> Code:
            found = Mark(len(column), hint)
            column[found] = value
            return found

        hints = {m.name: f"{m.name}.{m.name}_shape" if m.leaf else m.name for m in body.members}
        members = [(m, visited(self._member_code(m), hints[m.name], mark)) for m in body.members]
        statements = [replace(s, code=visited(s.code, "", mark)) for s in body.statements]
        return Template(members, statements, body.inputs, body.outputs), column

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
                taken = {member.layer for member in body.members} | {known for known, _ in parts}
                name = identifier(f"n{relative}")[1:]
                # What only puts axes in order for a layer has that layer's path.
                name = identifier(node.operator, taken) if name in taken else name
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

    # Classes ----------------------------------------------------------------------------------------------------------
    def _finish(self, group: Group) -> None:
        """Choose the parameters, write the class, and say how each body is constructed."""
        first, template = group.bodies[0], group.template
        group.name = class_name(first.kind or first.path.rpartition(".")[2], self._taken)
        self._taken.add(group.name)
        chosen = self._parameters(group)
        used_in_call: set[str] = set()

        def in_call(piece: Code) -> Code:
            if not isinstance(piece, Mark):
                return piece
            names = {p.text for p in _names(chosen[piece])}
            used_in_call.update(names)
            return replaced(
                chosen[piece], lambda c: Name(f"self.{c.text}") if isinstance(c, Name) and c.text in names else c
            )

        def in_constructor(piece: Code) -> Code:
            return chosen[piece] if isinstance(piece, Mark) else piece

        attributes = [
            # Weights are made when the layer is built, where an argument is known as what the layer keeps.
            Attribute(
                member.name,
                member.layer,
                _plain(replaced(code, in_call if member.leaf else in_constructor)),
                member.leaf,
            )
            for member, code in template.members
        ]
        shown = [replace(s, code=_plain(replaced(s.code, in_call))) for s in template.statements]
        keep = [Attribute(name, "", Name(name)) for name in group.parameters if name in used_in_call]
        body = replace(first, inputs=template.inputs, outputs=template.outputs)
        lines: Lines = lines_of(body, shown, self.blocks, self.dialect.modules, root=not first.path)
        defaults = {name: _default(values) for name, values in group.parameters.items()}
        order = sorted(group.parameters, key=lambda name: defaults[name] is not ...)
        self.classes.append(
            Class(
                group.name, _doc(first, group.name), [(name, defaults[name]) for name in order], [*keep, *attributes],
                lines.inputs, lines.body, root=not first.path,
            )
        )  # fmt: skip
        for place, body in enumerate(group.bodies):
            given = [(name, group.parameters[name][place]) for name in order]
            kept = tuple((n, v) for n, v in given if v is not MISSING and not _same(v, defaults[n]))
            self.constructors[body.path] = Apply(Name(group.name), (), kept)

    def _parameters(self, group: Group) -> dict[Mark, Code]:
        """For each mark a literal, or the parameter that gives it."""
        members = {member.name for member, _ in group.template.members}
        optional = {code.condition: m.name for m, code in group.template.members if isinstance(code, If)}
        taken = members | set(self.dialect.reserved)
        known: list[tuple[list[Any], str]] = []
        chosen: dict[Mark, Code] = {}
        for mark in _marks(group.template):
            values = [column[mark] for column in group.columns]
            given = [value for value in values if value is not MISSING]
            if all(_same(value, given[0]) for value in given):
                chosen[mark] = given[0]
                continue
            name = next((name for other, name in known if all(map(_same, other, values))), None)
            if name is None:
                multiple = _multiple(known, values)
                if multiple is not None:
                    chosen[mark] = multiple
                    continue
                names = {n for _, n in known}
                name = identifier(_parameter_name(mark.hint, names | taken), names | taken)
                if mark in optional and optional[mark] not in names:
                    name = optional[mark]
                known.append((values, name))
                group.parameters[name] = values
            chosen[mark] = Name(name)
        return chosen


def _heights(bodies: Mapping[str, Body]) -> dict[str, int]:
    """How many levels of blocks are inside of each; the same for all of a kind, so that they can be compared."""
    heights: dict[str, int] = dict.fromkeys(bodies, 1)
    for _ in range(64):
        before = dict(heights)
        for path, body in bodies.items():
            inside = [heights[m.body.path] for m in body.members if m.body is not None]
            heights[path] = max([heights[path], *(1 + height for height in inside)])
        kinds: dict[str, int] = {}
        for path, body in bodies.items():
            if body.path:
                kinds[body.kind] = max(kinds.get(body.kind, 1), heights[path])
        nested = {kind for kind in kinds if any(_holds(body, kind) for body in bodies.values() if body.kind == kind)}
        for path, body in bodies.items():
            if body.path and body.kind not in nested:
                heights[path] = kinds[body.kind]
        if heights == before:
            break
    return heights


def _holds(body: Body, kind: str) -> bool:
    return any(m.body is not None and (m.body.kind == kind or _holds(m.body, kind)) for m in body.members)


def _marks(template: Template) -> list[Mark]:
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
    return list(found)


def _skeleton(template: Template) -> str:
    """A text that two templates share if they are equal apart from what stands at their marks."""
    numbers: dict[Value, int] = {}

    def number(value: Value) -> Name:
        return Name(f"%{numbers.setdefault(value, len(numbers))}")

    def bare(piece: Code) -> Code:
        if isinstance(piece, Mark):
            return Name("#")
        return number(piece.value) if isinstance(piece, Ref) else piece

    for value in template.inputs:
        number(value)
    members = [
        (m.name, m.layer, m.leaf and (m.leaf.value.dtype, m.leaf.role), repr(replaced(code, bare)))
        for m, code in template.members
    ]
    lines = [(repr(replaced(s.code, bare)), [number(v).text for v in s.targets]) for s in template.statements]
    return repr((members, lines, [number(v).text for v in template.outputs]))


def merged(groups: list[Group]) -> list[Group]:
    """Groups that differ by a part that one lacks become one, with an argument that says whether it is there."""
    groups = sorted(groups, key=lambda group: -len(group.template.statements))
    again = True
    while again and len(groups) > 1:
        again = False
        for one, other in itertools.permutations(range(len(groups)), 2):
            found = _without_a_part(groups[one], groups[other])
            if found is not None:
                groups[one] = found
                del groups[other]
                again = True
                break
    return groups


def _without_a_part(larger: Group, smaller: Group) -> Group | None:
    """The larger group with one of its parts optional, if the smaller one is it without that part."""
    template, wanted = larger.template, _skeleton(smaller.template)
    if len(template.members) < len(smaller.template.members):
        return None
    for option in _options(template):
        if _skeleton(option.without) != wanted:
            continue
        flag = Mark(1 + max((mark.number for mark in _marks(template)), default=-1), f".{option.word}")
        full = option.having(flag)
        places = dict(zip(_marks(option.without), _marks(smaller.template), strict=True))
        columns = [{**column, flag: True} for column in larger.columns]
        columns += [
            {mark: column[places[mark]] if mark in places else MISSING for mark in _marks(full)} | {flag: False}
            for column in smaller.columns
        ]
        return Group(full, [*larger.bodies, *smaller.bodies], columns)
    return None


@dataclass(frozen=True)
class Option:
    """A part of a template that may be left out.

    Attributes:
        template: the whole.
        without: the template without the part.
        first, last: its statements.
        code: them as one expression.
        instead: the value that stands for what the part gives.
        gone: names of members that only the part calls.
    """

    template: Template
    without: Template
    first: int
    last: int
    code: Code
    instead: Value
    gone: tuple[str, ...]

    @property
    def word(self) -> str:
        """What to call the argument that says whether the part is there."""
        if self.gone:
            return self.gone[0]
        return "residual" if isinstance(self.code, Infix) and self.code.operator == "+" else "active"

    def having(self, flag: Mark) -> Template:
        """The template with the part where the flag is true."""
        members = [(m, If(flag, code, None) if m.name in self.gone else code) for m, code in self.template.members]
        condition = Name(f"self.{self.gone[0]}") if self.gone else flag
        last = self.template.statements[self.last]
        statement = replace(last, code=If(condition, self.code, Ref(self.instead)))
        kept = self.template.statements
        return replace(
            self.template, members=members, statements=[*kept[: self.first], statement, *kept[self.last + 1 :]]
        )


def _options(template: Template) -> Iterator[Option]:
    statements = template.statements
    uses = Counter(value for statement in statements for value in refs(statement.code))
    uses.update(template.outputs)
    for last, statement in enumerate(statements):
        code = statement.code
        for first in range(last, max(last - 6, -1), -1):
            if len(statements[first].targets) != 1:
                break
            if first < last:
                [inner] = statements[first].targets
                if uses[inner] != 1 or inner not in set(refs(code)):
                    break
                code = _with(code, inner, statements[first].code)
            if isinstance(code, If):
                break
            for instead in dict.fromkeys(refs(code)):
                yield _option(template, first, last, code, instead)


def _option(template: Template, first: int, last: int, code: Code, instead: Value) -> Option:
    [target] = template.statements[last].targets
    rest = [*template.statements[:first], *template.statements[last + 1 :]]
    rest = [replace(s, code=_with(s.code, target, Ref(instead))) for s in rest]
    left = {name for s in rest for name in _called(s.code)}
    gone = tuple(m.name for m, _ in template.members if m.name in _called(code) and m.name not in left)
    members = [(m, c) for m, c in template.members if m.name not in gone]
    outputs = [instead if value == target else value for value in template.outputs]
    without = Template(members, rest, template.inputs, outputs)
    return Option(template, without, first, last, code, instead, gone)


def _with(code: Code, value: Value, instead: Code) -> Code:
    return replaced(code, lambda piece: instead if isinstance(piece, Ref) and piece.value == value else piece)


def _called(code: Code) -> set[str]:
    """The members that a piece of code names."""
    found = {code.text[5:]} if isinstance(code, Name) and code.text.startswith("self.") else set()
    for part in parts(code):
        found |= _called(part)
    return found


def _plain(code: Code) -> Code:
    """The code without conditions that are known."""

    def simpler(piece: Code) -> Code:
        if isinstance(piece, If) and isinstance(piece.condition, bool):
            return _plain(piece.then if piece.condition else piece.otherwise)
        return piece

    return replaced(code, simpler)


def _default(values: Sequence[Any]) -> Any:
    """The default of an argument: what most give; ``...`` where there is none."""
    if any(value is MISSING for value in values):
        return None
    best = max(values, key=lambda value: (sum(_same(value, v) for v in values), value in (False, 1)))
    return best if 2 * sum(_same(best, v) for v in values) > len(values) or isinstance(best, bool) else ...


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
    if isinstance(code, If):
        return If(*(visited(part, hint, visit) for part in parts(code)))
    if isinstance(code, tuple):
        return tuple(visited(part, hint, visit) for part in code)
    return code


def _doc(body: Body, name: str) -> str:
    """What a class is; from its checked name, since a model's own may be anything."""
    return f"The model {name}." if not body.path else f"{name} of the model."
