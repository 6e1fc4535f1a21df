"""A file of Python as a tree whose expressions can be found by their line, and written otherwise."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SIGNS = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.Pow: "**", ast.MatMult: "@"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, eq=False)
class SourceTree:
    """A file of Python."""

    path: str
    text: str
    tree: ast.Module

    @functools.cached_property
    def _parents(self) -> dict[int, ast.AST]:
        return {id(child): x for x in ast.walk(self.tree) for child in ast.iter_child_nodes(x)}

    @functools.cached_property
    def names(self) -> frozenset[str]:
        """Every name in it."""
        imported = {a.asname or a.name for x in ast.walk(self.tree) if isinstance(x, ast.ImportFrom | ast.Import)
                    for a in x.names}  # fmt: skip
        return frozenset({x.id for x in ast.walk(self.tree) if isinstance(x, ast.Name)} | imported)

    def alias(self, package: str) -> str | None:
        """What the file calls a package that it imports, or that is inside one; None where it does not."""
        found = []
        for x in ast.walk(self.tree):
            for a in x.names if isinstance(x, ast.ImportFrom | ast.Import) else ():
                whole = f"{x.module}.{a.name}" if isinstance(x, ast.ImportFrom) else a.name
                if f"{package}.".startswith(f"{whole}."):
                    found.append((a.asname or a.name) + package.removeprefix(whole))
        return min(found, key=len, default=None)

    def of(self, x: ast.expr) -> str:
        """The text of an expression."""
        start, end = self._span(x)
        return self.text.encode()[start:end].decode()

    def operand(self, x: ast.expr) -> str:
        """The text of an expression as an operator's operand."""
        loose = ast.BinOp | ast.UnaryOp | ast.BoolOp | ast.Compare | ast.IfExp | ast.Lambda
        return f"({self.of(x)})" if isinstance(x, loose) else self.of(x)

    def in_place(self, x: ast.expr, text: str) -> str:
        """An operator's text where an expression stands: in parentheses where another operator takes it."""
        start, end = self._span(x)
        data = self.text.encode()
        taken = isinstance(self._parents[id(x)], ast.operator | ast.BinOp | ast.UnaryOp | ast.Compare | ast.Attribute
                           | ast.Subscript)  # fmt: skip
        return f"({text})" if taken and (data[start - 1 : start], data[end : end + 1]) != (b"(", b")") else text

    def at(self, line: int | None) -> Sequence[ast.expr]:
        """The calls, operators and parts of arrays of a line, in the order in which they are computed."""
        kinds = ast.Call | ast.BinOp | ast.Subscript
        whole = [
            x for x in ast.walk(self.tree) if isinstance(x, kinds) and x.lineno <= (line or 0) <= (x.end_lineno or 0)
        ]
        inner = {id(x.func) for x in whole if isinstance(x, ast.Call)}
        found = [x for x in whole if id(x) not in inner]
        own = [x for x in found if x.lineno == line] or found
        return sorted(own, key=lambda x: (x.end_lineno or 0, x.end_col_offset or 0))

    def maker(self, call: ast.Call) -> ast.Call:
        """The call that makes what is called, where that is a layer; else the call itself."""
        if isinstance(call.func, ast.Call):
            return call.func
        wanted = ast.unparse(call.func)
        scope = self._around(call, ast.ClassDef) if wanted.startswith("self.") else self._around(call, Function)
        given = [x.value for x in ast.walk(scope or self.tree)
                 if isinstance(x, ast.Assign) and wanted in map(ast.unparse, x.targets)]  # fmt: skip
        return given[0] if len(given) == 1 and isinstance(given[0], ast.Call) else call

    def _around(self, x: ast.AST, kind: Any) -> ast.AST | None:
        above = self._parents.get(id(x))
        while above is not None and not isinstance(above, kind):
            above = self._parents.get(id(above))
        return above

    def given_at(self, line: int | None, used: int, place: int, count: int) -> str | None:
        """The name that a line gives to what it computes, or to one of several results, if it has it at another."""
        for x in ast.walk(self.tree):
            if isinstance(x, ast.Assign) and len(x.targets) == 1 and x.lineno == line:
                [target] = x.targets
                if isinstance(target, ast.Tuple) and len(target.elts) == count:
                    target = target.elts[place]
                if isinstance(target, ast.Name) and x.lineno < used and self.holds(target, used):
                    return target.id
        return None

    def holds(self, name: ast.Name, line: int) -> bool:
        """Whether a name means at a line of the same function what it means here."""
        scope = self._around(name, Function) or self.tree
        if scope is not self.tree and not scope.lineno <= line <= (scope.end_lineno or 0):  # type: ignore[attr-defined]
            return False
        given = [x.lineno for x in ast.walk(scope) if isinstance(x, ast.Name) and x.id == name.id
                 and isinstance(x.ctx, ast.Store) and x is not name]  # fmt: skip
        start, end = sorted((name.lineno, line))
        return not any(start <= k < end for k in given)

    def source(self, x: ast.expr) -> ast.expr:
        """What an expression is: for a name, what it was given last before."""
        scope = self._around(x, Function) or self.tree
        given = [y for y in ast.walk(scope) if isinstance(y, ast.Assign) and y.lineno < x.lineno
                 and isinstance(x, ast.Name) and [ast.unparse(t) for t in y.targets] == [x.id]]  # fmt: skip
        return max(given, key=lambda y: y.lineno).value if given else x

    def changed(self, changes: Sequence[tuple[ast.expr, str]]) -> str | None:
        """The text with other expressions; None where two of them overlap, or it is no Python any more."""
        data, end = self.text.encode(), len(self.text.encode()) + 1
        spans = sorted({(*self._span(x), text) for x, text in changes}, reverse=True)
        for start, stop, text in spans:
            if stop > end:
                return None
            data, end = data[:start] + text.encode() + data[stop:], start
        try:
            ast.parse(data)
        except SyntaxError:
            return None
        return data.decode()

    @functools.cached_property
    def _starts(self) -> list[int]:
        starts = [0]
        for row in self.text.encode().splitlines(keepends=True):
            starts.append(starts[-1] + len(row))
        return starts

    def _span(self, x: ast.expr) -> tuple[int, int]:
        assert x.end_lineno is not None
        assert x.end_col_offset is not None
        return self._starts[x.lineno - 1] + x.col_offset, self._starts[x.end_lineno - 1] + x.end_col_offset


@functools.lru_cache(maxsize=8)
def _parsed(path: str, text: str) -> SourceTree:
    return SourceTree(path, text, ast.parse(text))


def source_tree(path: str) -> SourceTree | None:
    """A file; None where it cannot be read as Python."""
    try:
        return _parsed(path, Path(path).read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return None


def called(x: ast.Call) -> str:
    """The name of what is called, without what stands before its last dot."""
    return x.func.attr if isinstance(x.func, ast.Attribute) else getattr(x.func, "id", "")


def texts_in(x: ast.Call) -> Iterator[ast.Constant]:
    """The constants among the arguments of a call."""
    yield from (a for a in (*x.args, *(k.value for k in x.keywords)) if isinstance(a, ast.Constant))


def constant(x: ast.expr | None, default: Any) -> Any:
    """The value of an expression of constants, ``default`` where there is none; None where it is not of constants."""
    try:
        return default if x is None else ast.literal_eval(x)
    except ValueError:
        return None


def is_number(x: ast.expr) -> bool:
    """Whether an expression is arithmetic of numbers."""
    parts = list(ast.walk(x))
    plain = ast.Constant | ast.Name | ast.Attribute | ast.BinOp | ast.UnaryOp | ast.operator | ast.unaryop
    return all(isinstance(p, plain | ast.expr_context) for p in parts) and any(
        isinstance(p, ast.Constant) for p in parts
    )


def is_plain(call: ast.Call) -> bool:
    """Whether all arguments of a call stand there, none of them in a list or mapping that is spread."""
    return all(k.arg for k in call.keywords) and not any(isinstance(a, ast.Starred) for a in call.args)
