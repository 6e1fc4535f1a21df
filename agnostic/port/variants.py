"""Merge blocks of which some lack parts: an argument of the class says whether the part is present."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from agnostic.port.code import Apply, Code, If, Infix, Name, Ref, refs, replaced
from agnostic.port.templates import MISSING, Group, Mark, Template, called, marks, names
from agnostic.port.writer import Member, Statement
from agnostic.program.nodes import Value

TRIES = 2000
"""The number of steps after which the alignment of two blocks is given up."""


def merged(groups: list[Group]) -> list[Group]:
    """Merge groups of which some lack parts: an argument says whether the part is present."""
    groups = sorted(groups, key=lambda group: -len(group.template.statements))
    again = True
    while again and len(groups) > 1:
        again = False
        best: tuple[tuple[int, int], int, int, BlockAlignment] | None = None
        for one, other in itertools.permutations(range(len(groups)), 2):
            if _is_chain(groups[one]) and _is_chain(groups[other]):
                continue  # a stack is shorter than a class with conditions
            found = _side_by_side(groups[one].template, groups[other].template)
            if found is None:
                continue
            # The largest group absorbs the others, the most similar first.
            order = (-len(groups[one].template.statements), len(found.gone))
            if best is None or order < best[0]:
                best = (order, one, other, found)
        if best is not None:
            _, one, other, found = best
            groups[one] = _with_options(groups[one], groups[other], found)
            del groups[other]
            again = True
    return groups


def _is_chain(group: Group) -> bool:
    return all(body.is_chain for body in group.bodies)


@dataclass(frozen=True)
class BlockAlignment:
    """The alignment of a smaller block with a larger one.

    Attributes:
        values: values of the smaller block, by the values of the larger one.
        pairs: positions of equal statements.
        gone: for each position of a statement that the smaller block lacks, the value that replaces its result.
        given: arguments of the larger block that are fixed in the smaller one.
    """

    values: Mapping[Value, Value]
    pairs: tuple[tuple[int, int], ...] = ()
    gone: Mapping[int, Value] = field(default_factory=dict)
    given: Mapping[Code, bool] = field(default_factory=dict)


def _side_by_side(whole: Template, part: Template) -> BlockAlignment | None:
    """Align a smaller block with a larger one; None unless it is the larger one without some parts."""
    if not 0 <= len(whole.statements) - len(part.statements) <= 12 or len(whole.inputs) != len(part.inputs):
        return None
    first = BlockAlignment(dict(zip(whole.inputs, part.inputs, strict=True)))
    return next(_aligned(whole, part, 0, 0, first, iter(range(TRIES))), None)


def _aligned(
    whole: Template, part: Template, i: int, j: int, state: BlockAlignment, tries: Iterator[int]
) -> Iterator[BlockAlignment]:
    if next(tries, None) is None:
        return
    if i == len(whole.statements):
        if j == len(part.statements) and [state.values.get(v) for v in whole.outputs] == part.outputs:
            yield state
        return
    statement = whole.statements[i]
    for code, given in _readings(statement.code, state.given):
        if j < len(part.statements) and _are_equal(whole, part, code, part.statements[j].code, state.values):
            values = {**state.values, **dict(zip(statement.targets, part.statements[j].targets, strict=False))}
            paired = replace(state, values=values, pairs=(*state.pairs, (i, j)), given=given)
            if len(statement.targets) == len(part.statements[j].targets):
                yield from _aligned(whole, part, i + 1, j + 1, paired, tries)
    if len(statement.targets) != 1:
        return
    [target] = statement.targets
    code = statement.code
    is_off = isinstance(code, If) and not state.given.get(code.condition, False)
    if is_off and isinstance(code.otherwise, Ref) and code.otherwise.value in state.values:
        values = {**state.values, target: state.values[code.otherwise.value]}
        given = {**state.given, code.condition: False}
        yield from _aligned(whole, part, i + 1, j, replace(state, values=values, given=given), tries)
    for instead in dict.fromkeys(v for v in refs(statement.code) if v in state.values):
        values = {**state.values, target: state.values[instead]}
        skipped = replace(state, values=values, gone={**state.gone, i: instead})
        yield from _aligned(whole, part, i + 1, j, skipped, tries)
    if not any(v in state.values for v in refs(statement.code)):
        # It reads only weights or constants, for a later part that is missing as well.
        yield from _aligned(whole, part, i + 1, j, replace(state, gone={**state.gone, i: target}), tries)


def _readings(code: Code, given: Mapping[Code, bool]) -> Iterator[tuple[Code, Mapping[Code, bool]]]:
    """The forms of a statement: itself, or one branch of its condition."""
    yield code, given
    if isinstance(code, If):
        for is_true, side in ((True, code.then), (False, code.otherwise)):
            if given.get(code.condition, is_true) == is_true:
                yield side, {**given, code.condition: is_true}


def _are_equal(whole: Template, part: Template, one: Code, other: Code, values: Mapping[Value, Value]) -> bool:
    def bare(piece: Code) -> Code:
        return Name("#") if isinstance(piece, Mark) else piece

    def mine(piece: Code) -> Code:
        if isinstance(piece, Ref):
            return Ref(values[piece.value]) if piece.value in values else Name("?")
        return bare(piece)

    if repr(replaced(one, mine)) != repr(replaced(other, bare)):
        return False
    return all(_same_member(whole, part, name) for name in called(one))


def _same_member(whole: Template, part: Template, name: str) -> bool:
    sides = [[(m, code) for m, code in t.members if m.name == name] for t in (whole, part)]
    if not all(sides):
        return False
    shown = [repr(replaced(_made(code), lambda c: Name("#") if isinstance(c, Mark) else c)) for [(_, code)] in sides]
    first, second = (side[0][0] for side in sides)
    return shown[0] == shown[1] and (first.layer, first.leaf is None) == (second.layer, second.leaf is None)


def _made(code: Code) -> Code:
    return code.then if isinstance(code, If) else code


def _with_options(larger: Group, smaller: Group, found: BlockAlignment) -> Group:
    whole, part = larger.template, smaller.template
    left = {name for i, s in enumerate(whole.statements) if i not in found.gone for name in called(s.code)}
    lost = {name for i in found.gone for name in called(whole.statements[i].code)} - left
    gone = [(m, code) for m, code in whole.members if m.name in lost]
    word = _word([whole.statements[i].code for i in sorted(found.gone)], [m for m, _ in gone])
    flag = Mark(1 + max((mark.number for mark in marks(whole)), default=-1), f".{word}")
    layer = next((m.name for m, code in gone if m.leaf is None and m.name == word), None)
    condition: Code = flag if layer is None else Name(f"self.{layer}")
    members = [(m, If(flag, code, None) if m.name in lost and not isinstance(code, If) else code)
               for m, code in whole.members]  # fmt: skip
    statements = _conditional(whole, found, condition)
    full = replace(whole, members=members, statements=statements)
    places = dict(_mark_pairs(whole, part, found))
    known = {c: value for c, value in found.given.items() if isinstance(c, Mark)}
    known |= {code.condition: found.given[Name(f"self.{m.name}")] for m, code in whole.members
              if isinstance(code, If) and Name(f"self.{m.name}") in found.given}  # fmt: skip
    has_flag = flag in marks(full)
    columns = [{**column, flag: True} if has_flag else column for column in larger.columns]
    for column in smaller.columns:
        new: dict[Mark, Any] = {mark: column[places[mark]] if mark in places else MISSING for mark in marks(full)}
        columns.append(new | known | ({flag: False} if has_flag else {}))
    return Group(full, [*larger.bodies, *smaller.bodies], columns)


def _conditional(whole: Template, found: BlockAlignment, condition: Code) -> list[Statement]:
    """The statements; each run of optional ones becomes one conditional statement."""
    statements: list[Statement] = []
    inside: dict[Value, Code] = {}
    for i, statement in enumerate(whole.statements):
        code = replaced(statement.code, lambda c: inside.get(c.value, c) if isinstance(c, Ref) else c)
        if i not in found.gone:
            statements.append(replace(statement, code=code))
            continue
        [target] = statement.targets
        following = i + 1 in found.gone and target in set(refs(whole.statements[i + 1].code))
        uses = sum(v == target for s in whole.statements for v in refs(s.code)) + whole.outputs.count(target)
        if (following or found.gone[i] == target) and uses == 1:
            inside[target] = code
            continue
        instead = found.gone[i]
        while (place := _giver(whole, instead)) in found.gone and instead in inside:
            instead = found.gone[place]
        statements.append(replace(statement, code=If(condition, code, Ref(instead))))
    return statements


def _giver(whole: Template, value: Value) -> int:
    return next((i for i, s in enumerate(whole.statements) if value in s.targets), -1)


def _mark_pairs(whole: Template, part: Template, found: BlockAlignment) -> Iterator[tuple[Mark, Mark]]:
    """Pairs of marks of the larger and the smaller block at equal places."""

    def see(one: Code, other: Code) -> Iterator[tuple[Mark, Mark]]:
        template = [Statement((), one)], [Statement((), other)]
        yield from zip(*(marks(Template([], side, [], [])) for side in template), strict=True)

    for i, j in found.pairs:
        code, other = whole.statements[i].code, part.statements[j].code
        if isinstance(code, If) and not isinstance(other, If):
            code = code.then if found.given.get(code.condition, True) else code.otherwise
        yield from see(code, other)
    theirs = {m.name: code for m, code in part.members}
    for m, code in whole.members:
        if m.name in theirs:
            yield from see(_made(code), _made(theirs[m.name]))


def _word(codes: Sequence[Code], members: Sequence[Member]) -> str:
    """The name of the argument that says whether a part is present."""
    functions = {name.rpartition(".")[2] for code in codes for name in names(code)}
    if "roll" in functions:
        return "shifted"
    if {"reshape", "transpose"} <= functions or {"reshape", "permute"} <= functions:
        return "windowed"
    layers = [m.name for m in members if m.leaf is None]
    if layers:
        return layers[0]
    if len(codes) == 1 and isinstance(codes[0], Infix) and codes[0].operator == "+":
        return "residual"
    called_ = [code.function.text.rpartition(".")[2] for code in codes
               if isinstance(code, Apply) and isinstance(code.function, Name)]  # fmt: skip
    return f"has_{called_[0]}" if called_ else "active"
