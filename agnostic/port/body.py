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
    scope = _Scope(kept, body.outputs, blocks, {"self", *modules, *blocks.dialect.helpers, *_called(statements)})
    inputs = [scope.argument(body, value) for value in body.inputs]
    result: Code = tuple(map(Ref, body.outputs))
    if root:
        result = _result([path for path, _ in blocks.program.outputs], body.outputs)
    elif len(result) == 1:
        [result] = result
    lines = []
    for place, (targets, code, moved) in enumerate(kept):
        lines += [f"# axes moved for {'the output' if word == 'output' else word}" for word in moved]
        if isinstance(code, Loop):
            lines += _loop(code, scope.names, scope.result(code, targets[0], place))
        elif place == len(kept) - 1 and len(targets) == 1 and result == Ref(targets[0]):
            result = code
        else:
            written = text(code, scope.names.__getitem__)
            target = ", ".join(scope.targets(targets, code, place))
            lines += _assigned(target, code, written, scope.names)
    lines.append(f"return {_bare(text(result, scope.names.__getitem__), result)}")
    return Lines(inputs, lines)


class _Scope:
    """The variables of a method while its statements are written one after the other.

    Args:
        statements: targets, code, and what axes are moved for.
        outputs: what the method returns.
        blocks: the writer of the bodies.
        taken: names that no variable may have.

    Attributes:
        names: of the values that have one so far.
    """

    def __init__(
        self, statements: Sequence[tuple[tuple[Value, ...], Code, tuple[str, ...]]], outputs: Sequence[Value],
        blocks: Blocks, taken: set[str],
    ) -> None:  # fmt: skip
        self.names: dict[Value, str] = {}
        self._blocks, self._taken = blocks, taken
        # The place of the statement that reads a value last.
        self._last: dict[Value, int] = {}
        for place, (_, code, _) in enumerate(statements):
            self._last |= dict.fromkeys(refs(code), place)
        self._last |= dict.fromkeys(outputs, len(statements))

    def _alive(self, place: int) -> set[str]:
        """The names of values that are read after a statement."""
        return {name for value, name in self.names.items() if self._last.get(value, -1) > place}

    def argument(self, body: Body, value: Value) -> str:
        """Name an argument."""
        wanted = _argument(body, value, self._blocks, self.names)
        self.names[value] = identifier(wanted, {*self.names.values(), *self._taken})
        return self.names[value]

    def result(self, code: Loop, target: Value, place: int) -> str:
        """Name the result of a loop: as its start value where nothing reads that later, else by a new name."""
        start = None if code.grows else self.names[code.start.value]
        if start is None or start in self._alive(place):
            start = identifier("features" if code.grows else "y", set(self.names.values()))
        self.names[target] = start
        return start

    def targets(self, targets: Sequence[Value], code: Code, place: int) -> list[str]:
        """Name what a statement assigns; ``_`` where nothing reads it.

        A value is called as the user calls it, else by a letter, at best by that of a value that is read here last.
        """
        read = [v for v in dict.fromkeys(refs(code)) if self._last[v] == place and v in self.names]
        ending = [self.names[v] for v in read if ":" not in v.dtype and self.names[v] in LETTERS]
        alive = self._alive(place)
        for target in targets:
            if target not in self._last:
                self.names[target] = "_"
                continue
            said = self._blocks.variables.names.get(target, "")
            known = [said] if said and said not in self._taken else []
            free = (name for name in (*known, *ending, *LETTERS) if name not in alive)
            self.names[target] = next(free, "") or identifier(_result_of(code), alive | self._taken)
            alive.add(self.names[target])
        return [self.names[target] for target in targets]


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
