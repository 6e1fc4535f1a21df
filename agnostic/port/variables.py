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
    for (file, _, statement, _), found in groupby(program.nodes, _statement_of):
        nodes = list(found)
        names |= _assigned(statement, nodes)
        for node in nodes:
            if node.line is not None and node.module not in arguments:
                arguments[node.module] = _parsed(file).arguments.get(node.line, "")
    return Variables(names, {path: name for path, name in arguments.items() if name})


def _assigned(statement: tuple[str, ...], nodes: Sequence[Node]) -> dict[Value, str]:
    """The names that values of one statement get."""
    values = [value for node in nodes for value in node.outputs]
    if len(statement) < 2:
        return {value: name for value in values for name in statement if name}
    read = {value for node in nodes for value in node.reads}
    left = [(node.operator, value) for node in nodes for value in node.outputs if value not in read]
    if len(left) != len(statement) or len({operator for operator, _ in left}) > 1:
        return {}  # such as the two states of a cell, which are in no known order
    return {value: name for (_, value), name in zip(left, statement, strict=True) if name}


def _statement_of(node: Node) -> tuple[str, int, tuple[str, ...], tuple[str, ...]]:
    """File, first line and targets of the assignment that a node computes for, and the calls of layers around it."""
    if node.file is None or node.line is None:
        return "", 0, (), ()
    return (node.file, *_parsed(node.file).targets.get(node.line, (0, ())), node.calls)


@dataclass(frozen=True)
class _Parsed:
    """A file: first lines and targets of its assignments, and the first argument of its functions, by line."""

    targets: Mapping[int, tuple[int, tuple[str, ...]]] = field(default_factory=dict)
    arguments: Mapping[int, str] = field(default_factory=dict)


@functools.lru_cache(maxsize=64)
def _parsed(file: str) -> _Parsed:
    try:
        tree = ast.parse("".join(linecache.getlines(file)))
    except (SyntaxError, ValueError):
        return _Parsed()  # what stands there now is no source, such as a cell that was edited
    targets: dict[int, tuple[int, tuple[str, ...]]] = {}
    arguments: dict[int, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            parts = target.elts if isinstance(target, ast.Tuple | ast.List) else [target]
            lines = range(node.lineno, (node.end_lineno or node.lineno) + 1)
            named = tuple(_usable(x.id) if isinstance(x, ast.Name) else "" for x in parts)
            targets |= dict.fromkeys(lines, (node.lineno, named))
        elif isinstance(node, ast.FunctionDef) and node.name in ("forward", "call") and len(node.args.args) > 1:
            lines = range(node.lineno, (node.end_lineno or node.lineno) + 1)
            arguments |= dict.fromkeys(lines, _usable(node.args.args[1].arg))
    return _Parsed(targets, arguments)


def _usable(name: str) -> str:
    """A name as it may be written, or ``""``: not one of Python's own, and short."""
    fit = name.isascii() and len(name) <= LONGEST and not name.startswith("_") and not hasattr(builtins, name)
    return name if fit else ""
