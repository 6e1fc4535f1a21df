"""Write the body of ``call``: choose variables and their names, and which expressions are nested in others."""

from __future__ import annotations

import keyword
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agnostic.port.code import Apply, At, Code, If, Loop, Name, Ref, identifier, parts, refs, replaced, text
from agnostic.program.nodes import Value

if TYPE_CHECKING:
    from agnostic.port.writer import Blocks, Body, Statement

WIDTH = 76
"""Expressions longer than this are not written inside of others."""

LINE = 109
"""The longest statement of a method that fits into a line."""

LETTERS = ("x", "y", "z", "u", "v", "w")


@dataclass(frozen=True)
class Lines:
    """The ``call`` method of a class: its arguments and its lines."""

    inputs: list[str]
    body: list[str]


def lines_of(
    body: Body, statements: Sequence[Statement], blocks: Blocks, modules: Collection[str], *, root: bool
) -> Lines:
    """Write the lines of a block's ``call``. No variable has the name of an imported module or of a helper."""
    kept = _inlined(statements, body.outputs)
    taken = {"self", *modules, *blocks.dialect.helpers, *_called(statements)}
    names: dict[Value, str] = {}
    inputs = []
    for value in body.inputs:
        names[value] = identifier(_argument(body, value, blocks, names), {*names.values(), *taken})
        inputs.append(names[value])
    result = (
        _result([path for path, _ in blocks.program.outputs], body.outputs) if root else tuple(map(Ref, body.outputs))
    )
    if isinstance(result, tuple) and len(result) == 1 and not root:
        [result] = result
    last: dict[Value, int] = {}
    for place, (_, code, _) in enumerate(kept):
        last |= dict.fromkeys(refs(code), place)
    last |= dict.fromkeys(body.outputs, len(kept))
    lines = []
    for place, (targets, code, moved) in enumerate(kept):
        lines += [f"# axes moved for {'the output' if word == 'output' else word}" for word in moved]
        if isinstance(code, Loop):
            [target] = targets
            names[target] = (
                identifier("features", set(names.values())) if code.grows else _result_name(code, names, last, place)
            )
            lines += _loop(code, names, names[target])
            continue
        if place == len(kept) - 1 and len(targets) == 1 and result == Ref(targets[0]):
            result = code
            break
        written = text(code, names.__getitem__)
        dying = [names[v] for v in dict.fromkeys(refs(code)) if last[v] == place and v in names and ":" not in v.dtype]
        alive = {name for v, name in names.items() if last.get(v, -1) > place}
        for target in targets:
            if target not in last:
                names[target] = "_"
                continue
            reusable = next((name for name in dying if name in LETTERS and name not in alive), None)
            said = blocks.variables.names.get(target, "")
            name = said if said and said not in alive | taken else reusable
            name = name or next((x for x in LETTERS if x not in alive), None)
            name = name or identifier(_result_of(code), alive | taken)
            names[target] = name
            alive.add(name)
        lines += _assigned(", ".join(names[t] for t in targets), code, written, names)
    lines.append(f"return {_bare(text(result, names.__getitem__), result)}")
    return Lines(inputs, lines)


def _assigned(target: str, code: Code, written: str, names: Mapping[Value, str]) -> list[str]:
    """An assignment; one that is longer than a line and else leaves its target as it is becomes an if statement."""
    if isinstance(code, If) and len(target) + len(written) > LINE and text(code.otherwise, names.__getitem__) == target:
        start = f"if {text(code.condition, names.__getitem__)}:"
        return [start, f"    {target} = {text(code.then, names.__getitem__)}"]
    return [f"{target} = {written}"]


def _argument(body: Body, value: Value, blocks: Blocks, names: Mapping[Value, str]) -> str:
    """What an argument of a block is called: as the user does, else by a letter."""
    leaf = blocks.leaves.get(value)
    if leaf is not None:
        return leaf.name.rpartition(".")[2]
    if value.dtype == "list":
        return "features"
    if ":" in value.dtype:
        return value.dtype.partition(":")[2]
    known = blocks.variables
    said = known.arguments.get(body.path, "") if len(body.inputs) == 1 else known.names.get(value, "")
    letter = next((letter for letter in LETTERS if letter not in names.values()), "x")
    return said if said and said not in names.values() else letter


def _called(statements: Sequence[Statement]) -> set[str]:
    """The names of functions and modules that statements use, and of the layer that a loop calls."""
    waiting, found = [statement.code for statement in statements], set[str]()
    while waiting:
        code = waiting.pop()
        if isinstance(code, Name):
            found.add(code.text.partition(".")[0])
        elif isinstance(code, Loop):
            found.add("layer")
        waiting += parts(code)
    return found


def _result_of(code: Code) -> str:
    """What a result is called that nothing else has a name for: by what gives it."""
    while isinstance(code, At):
        code = code.of
    called = code.function.text if isinstance(code, Apply) and isinstance(code.function, Name) else ""
    return called.rpartition(".")[2].rstrip("0123456789_") or "value"


def _result_name(code: Loop, names: Mapping[Value, str], last: Mapping[Value, int], place: int) -> str:
    """The variable of a loop's result: that of its start value where nothing reads it later, else a new one."""
    alive = {name for value, name in names.items() if last.get(value, -1) > place}
    start = names[code.start.value]
    return start if start not in alive else identifier("y", set(names.values()))


def _loop(code: Loop, names: Mapping[Value, str], name: str) -> list[str]:
    start = text(code.start, names.__getitem__)
    begin = [] if start == name else [f"{name} = {start}"]
    others = "".join(f", {text(other, names.__getitem__)}" for other in code.others)
    others += "".join(f", {name}={text(other, names.__getitem__)}" for name, other in code.keywords)
    called = f"layer({name}{others})"
    step = f"{name}.append({called})" if code.grows else f"{name} = {called}"
    return [*begin, f"for layer in {text(code.layers, names.__getitem__)}:", f"    {step}"]


def _bare(written: str, code: Code) -> str:
    return written[1:-1] if isinstance(code, tuple) and len(code) > 1 else written


def _inlined(
    statements: Sequence[Statement], outputs: Sequence[Value]
) -> list[tuple[tuple[Value, ...], Code, tuple[str, ...]]]:
    """Nest the expression of a value in the next statement if only that statement reads it and the line stays short."""
    uses = Counter(value for statement in statements for value in refs(statement.code))
    uses.update(outputs)
    found: list[tuple[tuple[Value, ...], Code, tuple[str, ...]]] = []
    for statement in statements:
        targets, code, moved = statement.targets, statement.code, statement.moved
        read = [place for place, target in enumerate(targets) if uses[target]]
        if len(read) == 1 < len(targets) and not isinstance(code, Loop):
            targets, code = (targets[read[0]],), At(code, read[0])
        while found:
            given, inner, before = found[-1]
            if isinstance(inner, Loop) or isinstance(code, Loop):
                break
            if len(given) != 1 or uses[given[0]] != 1 or given[0] not in set(refs(code)):
                break
            [target] = given

            def instead(piece: Code, target: Value = target, inner: Code = inner) -> Code:
                return inner if isinstance(piece, Ref) and piece.value == target else piece

            joined = replaced(code, instead)
            if len(text(joined, lambda v: "x")) > WIDTH or _depth(joined) > 4:
                break
            code, moved = joined, tuple(dict.fromkeys((*before, *moved)))
            found.pop()
        found.append((targets, code, moved))
    return found


def _depth(code: Code) -> int:
    if isinstance(code, Apply):
        return 1 + max((_depth(part) for part in (*code.args, *(v for _, v in code.keywords))), default=0)
    return max((_depth(part) for part in parts(code)), default=0)


def _result(paths: Sequence[str], outputs: Sequence[Value]) -> Code:
    """The return value of a model, from the paths of its outputs: one array, or nested tuples and dicts."""
    if list(paths) == [""]:
        return Ref(outputs[0])
    heads = list(dict.fromkeys(path.partition(".")[0] for path in paths))
    parts = []
    for head in heads:
        inner = [
            (path.partition(".")[2], v)
            for path, v in zip(paths, outputs, strict=True)
            if path.partition(".")[0] == head
        ]
        parts.append(_result([path for path, _ in inner], [v for _, v in inner]))
    if heads == [str(n) for n in range(len(heads))]:
        return tuple(parts)
    return (
        Apply(Name("dict"), (), tuple(zip(heads, parts, strict=True)))
        if all(map(_is_keyword_argument, heads))
        else _as_dict(tuple(zip(heads, parts, strict=True)))
    )


def _is_keyword_argument(name: str) -> bool:
    # Python normalizes identifiers (NFKC): the key in the dict would differ from the name.
    return name.isidentifier() and name.isascii() and not keyword.iskeyword(name) and name != "__debug__"


def _as_dict(items: tuple[tuple[str, Code], ...]) -> Code:
    return Apply(Name("dict"), (tuple((key, value) for key, value in items),))
