"""Where in the user's source an operation of a functional model was called, which Keras does not keep.

An operation is a function of ``keras.ops``, or an operator of Python on symbolic tensors. The call that made it has its
arguments, and its operands come from where the graph says that they do.
"""

from __future__ import annotations

import ast
import functools
import inspect
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
from keras.src.ops.operation import Operation

_SIGNS = {
    ast.Add: "__add__", ast.Sub: "__sub__", ast.Mult: "__mul__", ast.Div: "__truediv__", ast.FloorDiv: "__floordiv__",
    ast.Mod: "__mod__", ast.Pow: "__pow__", ast.MatMult: "__matmul__", ast.USub: "__neg__", ast.Gt: "__gt__",
    ast.Lt: "__lt__", ast.GtE: "__ge__", ast.LtE: "__le__", ast.Eq: "__eq__", ast.NotEq: "__ne__",
}  # fmt: skip
"""What Python calls the methods of its operators."""

_INPUTS = frozenset({"Input", "InputLayer"})

_METHODS = {name: x for name, x in vars(keras.KerasTensor).items() if name in (*_SIGNS.values(), "__getitem__")}
"""Those methods, as they are while no model is read."""


@dataclass(frozen=True)
class _Assignment:
    """A name is given a value.

    Attributes:
        name, line: which and where.
        value: what; None where it is no expression of its own, as in a loop.
        sure: whether it stands where every run of the function comes by.
    """

    name: str
    line: int
    value: ast.expr | None
    sure: bool


@dataclass(frozen=True)
class GraphCall:
    """A call of a function, or an operator, in a source file.

    Attributes:
        name: of the function, or of the operator's method.
        line: where it stands; that of a layer, where the layer is made.
        given, keywords: its arguments.
        scope: the assignments of its function, in order.
    """

    name: str
    line: int
    given: tuple[ast.expr, ...]
    keywords: Mapping[str, ast.expr]
    scope: Sequence[_Assignment]

    def likeness(self, operation: Operation) -> int:
        """How many operands are known to come from where the operation's do; -1 where it cannot have made it."""
        if isinstance(operation, keras.Layer):
            nodes = operation._inbound_nodes
            pairs = list(zip(self.given, nodes[0].arguments.args, strict=False)) if len(nodes) == 1 else []
            counts = [self._agrees(x, value) for x, value in pairs]
            return -1 if -1 in counts else sum(counts)
        bound, actual = _bound(self), _actual(operation)
        if bound is None or actual is None:
            return -1
        count = 0
        for name, value in actual.items():
            if name not in bound:
                continue
            expression, default = bound[name]
            if expression is None:
                if _plain(default) != _plain(value):
                    return -1
                continue
            found = self._agrees(expression, value)
            if found < 0:
                return -1
            count += found
        return count

    def _agrees(self, expression: ast.expr, value: Any) -> int:
        several = isinstance(value, list | tuple) and any(isinstance(x, keras.KerasTensor) for x in value)
        if several and isinstance(expression, ast.List | ast.Tuple):
            if len(value) != len(expression.elts):
                return -1
            parts = [self._agrees(x, y) for x, y in zip(expression.elts, value, strict=True)]
            return -1 if -1 in parts else sum(parts)
        if not isinstance(value, keras.KerasTensor):
            try:
                return 0 if _plain(_constant(expression)) == _plain(value) else -1
            except ValueError:
                return 0
        names, made = may_make(value._keras_history.operation), set(self._makers(expression, self.line))
        if made & names:
            return 1
        return 0 if any(name not in _known() for name in made) else -1

    def _makers(self, x: ast.expr, line: int, depth: int = 0) -> Iterator[str]:
        """The names of what may have made the value of an expression; "" for what is not known."""
        if isinstance(x, ast.Call):
            inner = x.func.func if isinstance(x.func, ast.Call) else x.func
            yield _called(inner)
        elif isinstance(x, ast.BinOp | ast.UnaryOp):
            yield _SIGNS.get(type(x.op), "")
        elif isinstance(x, ast.Subscript):
            yield "__getitem__"
        elif isinstance(x, ast.Name) and depth < 8:
            given = [a for a in self.scope if a.name == x.id]
            before = [a for a in given if a.line < line]
            last = max((k for k, a in enumerate(before) if a.sure), default=None)
            turned = [a for a in given if a.line >= line and not a.sure]  # by the turn of a loop before, perhaps
            for one in [*turned, *before[last:]]:
                yield from self._makers(one.value, one.line, depth + 1) if one.value is not None else [""]
            if last is None:
                yield ""
        else:
            yield ""


def graph_calls(text: str) -> Iterator[GraphCall]:
    """The calls of a source file."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return
    functions = [x for x in ast.walk(tree) if isinstance(x, ast.FunctionDef | ast.AsyncFunctionDef)]
    for scope in (tree, *functions):
        inner = {id(y) for x in ast.walk(scope) if x is not scope and x in functions for y in ast.walk(x) if y is not x}
        own = [x for x in ast.walk(scope) if id(x) not in inner]
        assigned = sorted(_assignments(own, set(map(id, scope.body))), key=lambda a: a.line)
        for x in own:
            yield from _calls_of(x, assigned)


def _calls_of(x: ast.AST, scope: Sequence[_Assignment]) -> Iterator[GraphCall]:
    if isinstance(x, ast.Call):
        keywords = {k.arg: k.value for k in x.keywords if k.arg is not None}
        if len(keywords) == len(x.keywords) and not any(isinstance(a, ast.Starred) for a in x.args):
            made = x.func.func if isinstance(x.func, ast.Call) else x.func  # a layer is called where it is made
            yield GraphCall(_called(made), x.func.lineno, tuple(x.args), keywords, scope)
    elif isinstance(x, ast.BinOp):
        yield GraphCall(_SIGNS.get(type(x.op), ""), x.lineno, (x.left, x.right), {}, scope)
    elif isinstance(x, ast.AugAssign):
        yield GraphCall(_SIGNS.get(type(x.op), ""), x.lineno, (_read(x.target), x.value), {}, scope)
    elif isinstance(x, ast.UnaryOp):
        yield GraphCall(_SIGNS.get(type(x.op), ""), x.lineno, (x.operand,), {}, scope)
    elif isinstance(x, ast.Compare) and len(x.ops) == 1:
        yield GraphCall(_SIGNS.get(type(x.ops[0]), ""), x.lineno, (x.left, *x.comparators), {}, scope)
    elif isinstance(x, ast.Subscript) and isinstance(x.ctx, ast.Load):
        yield GraphCall("__getitem__", x.lineno, (x.value, x.slice), {}, scope)


def _read(target: ast.expr) -> ast.expr:
    return ast.Name(target.id, ast.Load()) if isinstance(target, ast.Name) else target


def _assignments(own: Sequence[ast.AST], sure: set[int]) -> Iterator[_Assignment]:
    for x in own:
        if isinstance(x, ast.Assign):
            for target in x.targets:
                if isinstance(target, ast.Name):
                    yield _Assignment(target.id, x.lineno, x.value, id(x) in sure)
                else:
                    names = [y.id for y in ast.walk(target) if isinstance(y, ast.Name)]
                    yield from (_Assignment(name, x.lineno, None, id(x) in sure) for name in names)
        elif isinstance(x, ast.AugAssign) and isinstance(x.target, ast.Name):
            value = ast.BinOp(_read(x.target), x.op, x.value)
            yield _Assignment(x.target.id, x.lineno, value, id(x) in sure)
        elif isinstance(x, ast.For | ast.comprehension):
            names = [y.id for y in ast.walk(x.target) if isinstance(y, ast.Name)]
            yield from (_Assignment(name, getattr(x, "lineno", 0), None, sure=False) for name in names)


def _called(x: ast.expr) -> str:
    return x.attr if isinstance(x, ast.Attribute) else getattr(x, "id", "")


def _constant(x: ast.expr) -> Any:
    """The value of an expression of constants, slices among them.

    Raises:
        ValueError: it is not one.
    """
    if isinstance(x, ast.Slice):
        return slice(*(None if y is None else _constant(y) for y in (x.lower, x.upper, x.step)))
    if isinstance(x, ast.Tuple | ast.List):
        return tuple(map(_constant, x.elts))
    return ast.literal_eval(x)


def _plain(x: Any) -> Any:
    if isinstance(x, slice):
        return "slice", x.start, x.stop, x.step
    x = tuple(map(_plain, x)) if isinstance(x, list | tuple) else x
    return x[0] if isinstance(x, tuple) and len(x) == 1 else x


# What made an operation -----------------------------------------------------------------------------------------------
@functools.cache
def _functions() -> Mapping[str, types.FunctionType]:
    """The functions that make operations, by name, and the methods of symbolic tensors."""
    modules = (keras.activations, keras.ops)
    found = {name: x for module in modules for name, x in vars(module).items() if isinstance(x, types.FunctionType)}
    return {**found, **_METHODS}


@functools.cache
def _made_by() -> Mapping[str, frozenset[str]]:
    """The names of the functions that may make an operation, by its class."""
    found: dict[str, set[str]] = {}
    for name, function in _functions().items():
        for kind in function.__code__.co_names:
            found.setdefault(kind, set()).add(name)
    return {kind: frozenset(names) for kind, names in found.items()}


@functools.cache
def _known() -> frozenset[str]:
    """Names that make one operation or one layer, and nothing else."""
    return frozenset({*_functions(), *_INPUTS, *(n for n, x in vars(keras.layers).items() if isinstance(x, type))})


def may_make(operation: Operation) -> frozenset[str]:
    """The names of the functions and methods of which a call may make an operation."""
    if isinstance(operation, keras.layers.InputLayer):
        return _INPUTS
    kind = type(operation).__name__
    return frozenset({kind}) if isinstance(operation, keras.Layer) else _made_by().get(kind, frozenset())


def _bound(call: GraphCall) -> dict[str, tuple[ast.expr | None, Any]] | None:
    """What each parameter is given: an expression, or else its default."""
    names = list(inspect.signature(_functions()[call.name]).parameters.values())
    if call.name.startswith("__"):
        return dict(zip(("x1", "x2"), ((x, None) for x in call.given), strict=False))
    if len(call.given) > len(names) or not call.keywords.keys() <= {p.name for p in names}:
        return None
    found = {p.name: (call.keywords.get(p.name), p.default) for p in names}
    return {**found, **{p.name: (x, None) for p, x in zip(names, call.given, strict=False)}}


def _actual(operation: Operation) -> dict[str, Any] | None:
    """What an operation was made with and called with."""
    auto = getattr(operation, "_auto_config", None)
    nodes = operation._inbound_nodes
    if auto is None or len(nodes) != 1:
        return None
    given, names = nodes[0].arguments, [x for x in inspect.signature(type(operation).call).parameters if x != "self"]
    if _made_by().get(type(operation).__name__, frozenset()) & _METHODS.keys():
        names = ["x1", "x2"]
    return {**auto.config, **dict(zip(names, given.args, strict=False)), **given.kwargs}
