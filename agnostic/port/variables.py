"""What the user's own source calls the values of a program, so that the written source calls them the same."""

from __future__ import annotations

import ast
import builtins
import functools
import linecache
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from agnostic.program.nodes import Node, Program, Value

LONGEST = 20
"""Letters of a name that is taken over."""


@dataclass(frozen=True)
class Variables:
    """Names of the user's.

    Attributes:
        names: of the variable that a value was assigned to, alone or as a part of what was.
        arguments: of the first argument of a layer's forward, by the layer's path.
    """

    names: Mapping[Value, str] = field(default_factory=dict)
    arguments: Mapping[str, str] = field(default_factory=dict)


def variables(program: Program) -> Variables:
    """Find the names of a program's values in the files that its nodes come from."""
    names: dict[Value, str] = {}
    arguments: dict[str, str] = {}
    for (file, _, statement), found in groupby(program.nodes, _statement_of):
        nodes = list(found)
        for _, run in groupby(nodes, functools.partial(_call_of, program)):
            names |= _assigned(statement, list(run))
        for node in nodes:
            if node.line is not None and node.module not in arguments:
                arguments[node.module] = _parsed(file).arguments.get(node.line, "")
    return Variables(names, {path: name for path, name in arguments.items() if name})


def _call_of(program: Program, node: Node) -> tuple[str, ...]:
    """The layer whose line a node computes for, or the layer that this line calls: what runs in there is not the line's
    own. () where the line is in no layer, as those are that make a graph of layers.
    """
    owner = _parsed(node.file).classes.get(node.line) if node.file is not None and node.line is not None else None
    for depth in range(len(node.calls) - 1, -1, -1):
        path = node.calls[depth].partition("@")[0]
        if owner is not None and (program.modules.get(path) or (not path and program.name)) == owner:
            return node.calls[: depth + 2]
    return ()


def _assigned(statement: tuple[str, ...], nodes: Sequence[Node]) -> dict[Value, str]:
    """The names of what one call gives to a statement: what the call itself reads again has none."""
    read = {value for node in nodes for value in node.reads}
    left = [(node.operator, value) for node in nodes for value in node.outputs if value not in read]
    if len(statement) < 2:
        return {value: name for _, value in left for name in statement if name}
    if len(left) != len(statement) or len({operator for operator, _ in left}) > 1:
        return {}  # such as the two states of a cell, which are in no known order
    return {value: name for (_, value), name in zip(left, statement, strict=True) if name}


def _statement_of(node: Node) -> tuple[str, int, tuple[str, ...]]:
    """File, first line and targets of the assignment that a node computes for."""
    if node.file is None or node.line is None:
        return "", 0, ()
    return (node.file, *_parsed(node.file).targets.get(node.line, (0, ())))


@dataclass(frozen=True)
class _Parsed:
    """A file, by line: targets of assignments with their first line, the first argument of functions, classes."""

    targets: Mapping[int, tuple[int, tuple[str, ...]]] = field(default_factory=dict)
    arguments: Mapping[int, str] = field(default_factory=dict)
    classes: Mapping[int, str] = field(default_factory=dict)


@functools.lru_cache(maxsize=64)
def _parsed(file: str) -> _Parsed:
    try:
        tree = ast.parse("".join(linecache.getlines(file)))
    except (SyntaxError, ValueError):
        return _Parsed()  # what stands there now is no source, such as a cell that was edited
    targets: dict[int, tuple[int, tuple[str, ...]]] = {}
    arguments: dict[int, str] = {}
    classes: dict[int, str] = {}
    for node in ast.walk(tree):  # what stands in another comes after it
        if not isinstance(node, ast.stmt):
            continue
        lines = range(node.lineno, (node.end_lineno or node.lineno) + 1)
        if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            parts = target.elts if isinstance(target, ast.Tuple | ast.List) else [target]
            named = tuple(_usable(x.id) if isinstance(x, ast.Name) else "" for x in parts)
            targets |= dict.fromkeys(lines, (node.lineno, named))
        elif isinstance(node, ast.FunctionDef) and node.name in ("forward", "call") and len(node.args.args) > 1:
            arguments |= dict.fromkeys(lines, _usable(node.args.args[1].arg))
        elif isinstance(node, ast.ClassDef):
            classes |= dict.fromkeys(lines, node.name)
    return _Parsed(targets, arguments, classes)


def _usable(name: str) -> str:
    """A name as it may be written, or ``""``: not one of Python's own, and short."""
    fit = name.isascii() and len(name) <= LONGEST and not name.startswith("_") and not hasattr(builtins, name)
    return name if fit else ""
