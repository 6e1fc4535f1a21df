"""Write layers and values as lists: inputs that are concatenated, layers that are called in a loop.

A layer that concatenates all of its inputs takes them as one list, so that one class serves any number of inputs.
Layers that differ only by a number in their names and are called one after the other become a list and a loop.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

from agnostic.port.code import (
    Apply,
    At,
    Code,
    Dim,
    Each,
    Infix,
    Listed,
    Loop,
    Name,
    Ref,
    Slice,
    identifier,
    parts,
    refs,
    replaced,
)
from agnostic.port.dialect import Dialect
from agnostic.port.writer import Body, Member, Statement
from agnostic.program.nodes import Value

LIST = "list"
"""The type of a value that stands for a list of arrays."""

Naming = Callable[[Code, Code], Code]
"""Gives the code that makes a layer under a name."""


def joined_inputs(root: Body) -> None:
    """Let blocks that only concatenate their inputs take one list; all blocks of a kind do, or none."""
    kinds: dict[str, list[Body]] = {}
    for found in {body.path: body for body in root.bodies}.values():
        kinds.setdefault(found.kind, []).append(found)
    changed = set()
    for bodies in kinds.values():
        places = [_joined(body) for body in bodies]
        if any(place is None for place in places) or all(len(body.inputs) < 2 for body in bodies):
            continue
        for body, place in zip(bodies, places, strict=True):
            assert place is not None
            whole = Value(-1 - body.inputs[0].id, (), LIST)
            listed = Listed(tuple(map(Ref, body.inputs)))
            statement = body.statements[place]
            body.statements[place] = replace(
                statement,
                code=replaced(statement.code, lambda c: Ref(whole) if c == listed else c),  # noqa: B023
            )
            body.inputs = [whole]
            changed.add(body.path)
    for body in root.bodies:
        called = {f"self.{m.name}" for m in body.members if m.body is not None and m.body.path in changed}
        for place, statement in enumerate(body.statements):
            code = statement.code
            if isinstance(code, Apply) and isinstance(code.function, Name) and code.function.text in called:
                body.statements[place] = replace(statement, code=replace(code, args=(Listed(code.args),)))


def _joined(body: Body) -> int | None:
    """The statement that concatenates all inputs of a block, if no other statement reads them."""
    listed = Listed(tuple(map(Ref, body.inputs)))
    readers = [n for n, s in enumerate(body.statements) if set(refs(s.code)) & set(body.inputs)]
    if not body.path or body.repeats or len(readers) != 1 or set(body.inputs) & set(body.outputs):
        return None
    [place] = readers
    uses = Counter(refs(body.statements[place].code))
    if any(uses[value] > 1 for value in body.inputs) or not _has(body.statements[place].code, listed):
        return None
    return place


def _has(code: Code, wanted: Code) -> bool:
    return code == wanted or any(_has(part, wanted) for part in parts(code))


def loops(
    members: Sequence[tuple[Member, Code]], statements: Sequence[Statement], outputs: Sequence[Value], named: Naming
) -> tuple[list[tuple[Member, Code]], list[Statement]]:
    """Replace runs of equal layers by a list and a loop over it.

    Args:
        members: the members of a block, with the code that makes each.
        statements: the statements of the block, in order.
        outputs: the outputs of the block.
        named: see :data:`Naming`.
    """
    made, found = list(members), list(statements)
    start = 0
    while start < len(found):
        for kind in (_growing, _chained):
            loop = kind(made, found, start, outputs)
            if loop is not None:
                made, found = _rewritten(made, found, start, *loop, named)
                break
        start += 1
    return made, found


def _member_of(statement: Statement, members: Sequence[tuple[Member, Code]]) -> tuple[Member, Code] | None:
    code = statement.code
    if not isinstance(code, Apply) or not isinstance(code.function, Name) or len(statement.targets) != 1:
        return None
    return next(((m, c) for m, c in members if code.function.text == f"self.{m.name}" and m.leaf is None), None)


def _follows(first: tuple[Member, Code], other: tuple[Member, Code] | None, step: int) -> bool:
    """Whether two layers are equal apart from the number at the end of the name, which is larger by a given step."""
    if other is None or other[1] != first[1]:
        return False
    one, two = (re.fullmatch(r"([\w-]*?)(\d+)", found[0].layer) for found in (first, other))
    return one is not None and two is not None and one[1] == two[1] and int(two[2]) == int(one[2]) + step


def _growing(
    members: Sequence[tuple[Member, Code]], statements: Sequence[Statement], start: int, outputs: Sequence[Value]
) -> tuple[int, Loop, Code] | None:
    """A run of layers, each called with the list of all earlier results: its length, the loop, the whole list."""
    first = _member_of(statements[start], members)
    if first is None or len(statements[start].code.args) != 1 or not isinstance(statements[start].code.args[0], Listed):
        return None
    begin = before = statements[start].code.args[0]
    count = 0
    for statement in statements[start:]:
        if not _follows(first, _member_of(statement, members), count) or statement.code.args != (before,):
            break
        before = Listed((*before.parts, Ref(statement.targets[0])))
        count += 1
    values = {s.targets[0] for s in statements[start : start + count]}
    rest = Counter(v for s in statements[start + count :] for v in refs(s.code) if v in values)
    if count < 2 or any(v in values for v in outputs) or any(rest[v] != 1 for v in values):
        return None
    if not any(_has(s.code, before) for s in statements[start + count :]):
        return None
    return count, Loop(Name(""), begin, (), grows=True), before


def _chained(
    members: Sequence[tuple[Member, Code]], statements: Sequence[Statement], start: int, outputs: Sequence[Value]
) -> tuple[int, Loop, Code] | None:
    """A run of layers, each called with the result of the one before: its length, the loop, the last result."""
    first = _member_of(statements[start], members)
    if first is None or not statements[start].code.args or not isinstance(statements[start].code.args[0], Ref):
        return None
    begin = before = statements[start].code.args[0]
    others, keywords = statements[start].code.args[1:], statements[start].code.keywords
    uses = Counter(v for s in statements for v in refs(s.code)) + Counter(outputs)
    count = 0
    for statement in statements[start:]:
        if not _follows(first, _member_of(statement, members), count) or statement.code.args != (before, *others):
            break
        if statement.code.keywords != keywords:
            break
        if count and uses[before.value] != 1:
            break
        before = Ref(statement.targets[0])
        count += 1
    return None if count < 3 else (count, Loop(Name(""), begin, others, keywords), before)


def _rewritten(
    members: Sequence[tuple[Member, Code]], statements: Sequence[Statement], start: int, count: int, loop: Loop,
    whole: Code, named: Naming,
) -> tuple[list[tuple[Member, Code]], list[Statement]]:  # fmt: skip
    """The members and statements, with a loop in place of a run of calls."""
    gone = [_member_of(s, members) for s in statements[start : start + count]]
    first = gone[0]
    assert first is not None
    names = {found[0].name for found in gone if found is not None}
    match = re.fullmatch(r"([\w-]*?)(\d+)", first[0].layer)
    assert match is not None
    prefix, number = match[1], int(match[2])
    word = prefix.strip("_-")
    plural = f"{word[:-1]}_list" if word.endswith("s") else f"{word}s"
    name = identifier(f"{word or 'layer'}_layers" if len(prefix) < 4 else plural, names)
    each = Each(named(first[1], Name(f'f"{prefix}{{i}}"')), "i", number, Infix("+", count, number) if number else count)
    member = Member(name, "", constructor=Listed((each,)))
    made: list[tuple[Member, Code]] = []
    for other, code in members:
        if other is first[0]:
            made.append((member, Listed((each,))))
        elif other.name not in names:
            made.append((other, code))
    last = statements[start + count - 1].targets[0]
    target = Value(-1 - last.id, (), LIST) if loop.grows else last
    new = Statement((target,), replace(loop, layers=Name(f"self.{name}")))
    rest = [
        replace(s, code=replaced(s.code, lambda c: Ref(target) if c == whole else c))
        for s in statements[start + count :]
    ]
    return made, [*statements[:start], new, *rest]


def taken_apart(statements: Sequence[Statement], dialect: Dialect) -> list[Statement]:
    """Merge statements that take all items, or equal parts, along an axis into one statement."""
    found: list[Statement] = []
    place = 0
    while place < len(statements):
        count, code = _parts_from(statements, place, dialect)
        targets = tuple(target for s in statements[place : place + count] for target in s.targets)
        found.append(Statement(targets, code) if count > 1 else statements[place])
        place += max(count, 1)
    return found


def _parts_from(statements: Sequence[Statement], start: int, dialect: Dialect) -> tuple[int, Code]:
    first = statements[start].code
    if not isinstance(first, At) or not isinstance(first.of, Ref) or not isinstance(first.index, tuple):
        return 1, None
    value, before, count = first.of.value, first.index[:-1], 0
    axis = len(value.shape) - 1 if Name("...") in before else len(before)
    ends = []
    for statement in statements[start:]:
        code = statement.code
        if not isinstance(code, At) or code.of != first.of or code.index[:-1] != before:
            break
        ends.append(code.index[-1])
        count += 1
    if isinstance(value.shape[axis], Dim):
        return 0, None
    size = int(value.shape[axis])
    if ends == list(range(size)) and size > 1:
        return count, dialect.unstacked(first.of, axis)
    part = size // count
    edges = [(i * part or None, (i + 1) * part if (i + 1) * part < size else None) for i in range(count)]
    if count > 1 and part * count == size and ends == [Slice(*edge) for edge in edges]:
        return count, dialect.split(first.of, count, -1 if axis == len(value.shape) - 1 else axis)
    return 1, None
