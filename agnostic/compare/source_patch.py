"""A fix of code as a patch of B's file: lines of A's function in the place of B's, where the two are written alike."""

from __future__ import annotations

import ast
import builtins
import difflib
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from agnostic.files import shown_path
from agnostic.program.nodes import Node

ALIKE = 0.4
"""How much of two functions must be equal: of others, a line of one means nothing in the other."""

HUNKS = 3
"""So many changes of a function are its mistake, where none of them stands at the place itself."""


@dataclass(frozen=True)
class _Source:
    """A file of Python.

    Attributes:
        path: of the file.
        lines: its lines.
        functions: the first and the last line of each function, from 1, by its qualified name.
        names: every name, argument and attribute in it.
        made: those of them that it gives values to, or may, by their names as texts.
    """

    path: str
    lines: list[str]
    functions: dict[str, tuple[int, int]]
    names: frozenset[str]
    made: frozenset[str]


def source_patch(ours: Sequence[Node | None], theirs: Sequence[Node | None]) -> str:
    """What makes B's functions A's at the places of a difference.

    Args:
        ours, theirs: the operators of both sides that the difference is about.

    Returns:
        A unified diff of B's file; "" where the functions are not written alike, or A's lines use names that B's file
        does not have.
    """
    places = [{(n.file, n.line) for n in nodes if n is not None and n.file and n.line} for nodes in (ours, theirs)]
    if any(len({file for file, _ in some}) != 1 for some in places):
        return ""
    a, b = (_read(next(iter(some))[0]) for some in places)
    if a is None or b is None:
        return ""
    lines = [{line for _, line in some} for some in places]
    names = [name for name in a.functions.keys() & b.functions.keys() if _inside(a, name, lines[0])
             or _inside(b, name, lines[1])]  # fmt: skip
    changes = [change for name in names for change in _changes(a, b, name, lines)]
    if not changes:  # a caller gives it something else
        everywhere = a.functions.keys() & b.functions.keys() - set(names)
        changes = [change for name in everywhere for change in _changes(a, b, name, lines)]
        changes = changes if len(changes) <= HUNKS else []
    return _patch(a, b, sorted(changes))


def _read(path: str) -> _Source | None:
    try:
        return _parsed(path, Path(path).read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return None


@functools.lru_cache(maxsize=8)
def _parsed(path: str, text: str) -> _Source:
    """A file of Python; one file often has many differences."""
    tree = ast.parse(text)
    functions = dict(_functions(tree, ""))
    # A buffer is registered by a text.
    keys = ("id", "attr", "arg", "name", "asname", "value")
    found = [(x, getattr(x, key)) for x in ast.walk(tree) for key in keys if isinstance(getattr(x, key, None), str)]
    made = frozenset(name for x, name in found if not isinstance(getattr(x, "ctx", None), ast.Load))
    names = frozenset(name for _, name in found)
    return _Source(path, text.splitlines(keepends=True), functions, names, made)


def _functions(tree: ast.AST, prefix: str) -> Iterator[tuple[str, tuple[int, int]]]:
    for x in ast.iter_child_nodes(tree):
        if isinstance(x, ast.FunctionDef | ast.AsyncFunctionDef):
            yield prefix + x.name, (x.lineno, x.end_lineno or x.lineno)
        if isinstance(x, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield from _functions(x, f"{prefix}{x.name}.")
        else:
            yield from _functions(x, prefix)


def _inside(source: _Source, name: str, lines: set[int]) -> bool:
    first, last = source.functions[name]
    return any(first <= line <= last for line in lines)


_Change = tuple[int, int, int, int]
"""Lines i to j of B's file, from 0, are lines k to l of A's."""


def _changes(a: _Source, b: _Source, name: str, lines: Sequence[set[int]]) -> list[_Change]:
    (start, end), (first, last) = a.functions[name], b.functions[name]
    ours, theirs = a.lines[start - 1 : end], b.lines[first - 1 : last]
    matcher = difflib.SequenceMatcher(None, [x.strip() for x in theirs], [x.strip() for x in ours], autojunk=False)
    if len(ours) > 3 and matcher.ratio() < ALIKE:
        return []
    found = [(i + first - 1, j + first - 1, k + start - 1, m + start - 1)
             for tag, i, j, k, m in matcher.get_opcodes() if tag != "equal"]  # fmt: skip
    near = [x for x in found if _touches(x[0], x[1], lines[1]) or _touches(x[2], x[3], lines[0])]
    return near or (found if len(found) <= HUNKS else [])


def _touches(start: int, end: int, lines: set[int]) -> bool:
    return any(start <= line <= end + 1 for line in lines)


def _patch(a: _Source, b: _Source, changes: Sequence[_Change]) -> str:
    if not changes:
        return ""
    fixed = list(b.lines)
    for i, j, k, m in reversed(changes):
        fixed[i:j] = a.lines[k:m]
    try:
        tree = ast.parse("".join(fixed))
    except SyntaxError:
        return ""
    known = b.names | frozenset(dir(builtins))
    made = {x.id for x in ast.walk(tree) if isinstance(x, ast.Name) and isinstance(x.ctx, ast.Store)}
    used = {x.id for x in ast.walk(tree) if isinstance(x, ast.Name)}
    # What a model lacks, no line gives it; what the framework's class has, it has.
    own = {x.attr for x in ast.walk(tree) if isinstance(x, ast.Attribute) and isinstance(x.value, ast.Name)
           and x.value.id == "self"}  # fmt: skip
    if (used - made | own & a.made) - known:
        return ""
    path = shown_path(b.path)
    return "".join(difflib.unified_diff(b.lines, fixed, path, path, n=1)).rstrip("\n")
