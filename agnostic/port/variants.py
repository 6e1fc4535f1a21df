"""Blocks that differ by a part that some lack become one, with an argument that says whether it is there."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

from agnostic.port.code import Code, If, Infix, Name, Ref, refs, replaced
from agnostic.port.templates import MISSING, Group, Mark, Template, called, marks, skeleton
from agnostic.program.nodes import Value


def merged(groups: list[Group]) -> list[Group]:
    """Groups that differ by a part that one lacks become one, with an argument that says whether it is there."""
    groups = sorted(groups, key=lambda group: -len(group.template.statements))
    again = True
    while again and len(groups) > 1:
        again = False
        for one, other in itertools.permutations(range(len(groups)), 2):
            if _is_chain(groups[one]) and _is_chain(groups[other]):
                continue  # a stack is shorter than a class with conditions
            found = _without_a_part(groups[one], groups[other])
            if found is not None:
                groups[one] = found
                del groups[other]
                again = True
                break
    return groups


def _is_chain(group: Group) -> bool:
    return all(body.is_chain for body in group.bodies)


def _without_a_part(larger: Group, smaller: Group) -> Group | None:
    """The larger group with one of its parts optional, if the smaller one is it without that part."""
    template, wanted = larger.template, skeleton(smaller.template)
    if len(template.members) < len(smaller.template.members):
        return None
    for option in _options(template):
        if skeleton(option.without) != wanted:
            continue
        flag = Mark(1 + max((mark.number for mark in marks(template)), default=-1), f".{option.word}")
        full = option.having(flag)
        places = dict(zip(marks(option.without), marks(smaller.template), strict=True))
        columns = [{**column, flag: True} for column in larger.columns]
        columns += [
            {mark: column[places[mark]] if mark in places else MISSING for mark in marks(full)} | {flag: False}
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
    left = {name for s in rest for name in called(s.code)}
    gone = tuple(m.name for m, _ in template.members if m.name in called(code) and m.name not in left)
    members = [(m, c) for m, c in template.members if m.name not in gone]
    outputs = [instead if value == target else value for value in template.outputs]
    without = Template(members, rest, template.inputs, outputs)
    return Option(template, without, first, last, code, instead, gone)


def _with(code: Code, value: Value, instead: Code) -> Code:
    return replaced(code, lambda piece: instead if isinstance(piece, Ref) and piece.value == value else piece)
