"""Functions in a written file for operators that the dialect lacks: custom operators, and stubs to fill in."""

from __future__ import annotations

import ast
import builtins
import inspect
import re
import symtable
import textwrap
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from agnostic.errors import InvalidInput
from agnostic.port.code import Apply, Code, Dim, Name, identifier
from agnostic.program import custom
from agnostic.program.custom import CustomOperator
from agnostic.program.nodes import Node, Value
from agnostic.program.vocabulary import get
from agnostic.text import printable

LONGEST = 60
"""Letters of a name that is made of one of the model's, which may be of any length."""


@dataclass(frozen=True)
class Stub:
    """One call of a function that is to be filled in.

    Attributes:
        function: its name in the file.
        parameters: the names of its parameters in this call, in order.
        node: the node that it computes.
        reason: why the dialect cannot write it.
    """

    function: str
    parameters: tuple[str, ...]
    node: Node
    reason: str

    @property
    def operands(self) -> tuple[Any, ...]:
        """The arguments of the call: a value or number for each parameter."""
        if self.node.operator == "custom":
            return tuple(self.node.operands[0])  # type: ignore[arg-type]
        return (*self.node.operands, *(value for _, value in _options(self.node)))


@dataclass
class Functions:
    """The functions that a file needs, collected while it is written.

    Args:
        to: the dialect's name.
        modules: what the file imports.
        taken: names that no function may have.
    """

    to: str
    modules: Collection[str]
    taken: Collection[str]
    stubs: list[Stub] = field(default_factory=list)
    _names: dict[str, str] = field(default_factory=dict)
    _taught: dict[str, str] = field(default_factory=dict)

    def call(self, node: Node, operands: Sequence[Code], reason: str) -> Code:
        """The code of a call of the function that computes a node."""
        meaning = node.attributes.get("meaning") if node.operator == "custom" else None
        if meaning is not None:
            name = self._name(meaning.function.__name__, meaning.name)
            self._taught.setdefault(name, spelled(meaning, name, self.modules))
            return called(name, _parameters_of(meaning, len(operands[0])), operands[0], node.operands[0])
        source = str(node.attributes["name"]) if node.operator == "custom" else node.operator
        name = self._name(_snake(re.split(r"::|[.>]", source)[-1]), source)
        if node.operator == "custom":
            names = _unique(node.attributes["arguments"])
            self.stubs.append(Stub(name, names, node, reason))
            return called(name, names, operands[0], node.operands[0])
        options = _options(node)
        names = _unique([*get(node.operator).operands[: len(operands)], *(key for key, _ in options)])
        self.stubs.append(Stub(name, names, node, reason))
        values = tuple(value for _, value in options)
        return called(name, names, (*operands, *values), (*node.operands, *values))

    def _name(self, wanted: str, source: str) -> str:
        if source not in self._names:
            taken = {*self.taken, *self.modules, *dir(builtins), *self._names.values(), "make_model", "register"}
            self._names[source] = identifier(wanted[:LONGEST], taken)
        return self._names[source]

    def texts(self, name: str) -> list[str]:
        """The source of each function.

        Args:
            name: of the file, without its ending.
        """
        calls: dict[str, list[Stub]] = {}
        for stub in self.stubs:
            calls.setdefault(stub.function, []).append(stub)
        return [*self._taught.values(), *(_to_fill_in(found, name) for found in calls.values())]


def called(name: str, parameters: Sequence[str], codes: Sequence[Code], operands: Any) -> Apply:
    """A call: leading arrays by position; everything from the first argument that is no array on by name."""
    args: list[Code] = []
    keywords: list[tuple[str, Code]] = []
    for parameter, code, operand in zip(parameters, codes, operands, strict=True):
        if not parameter:
            args.append(code)
        elif keywords or not _has_value(operand):
            keywords.append((parameter, code))
        else:
            args.append(code)
    return Apply(Name(name), tuple(args), tuple(keywords))


def _has_value(operand: Any) -> bool:
    return isinstance(operand, Value) or (isinstance(operand, tuple) and any(map(_has_value, operand)))


def _options(node: Node) -> list[tuple[str, Any]]:
    """The attributes of a node as arguments."""
    return [(name, value) for name, value in node.attributes.items() if name != "dtype" and _is_plain(value)]


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)


def _unique(names: Sequence[str]) -> tuple[str, ...]:
    found: list[str] = []
    for name in names:
        found.append(identifier(_snake(name)[:LONGEST], set(found)))
    return tuple(found)


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


# Taught ---------------------------------------------------------------------------------------------------------------
def _parameters_of(meaning: CustomOperator, count: int) -> list[str]:
    """A name for each operand; ``""`` for one that can only be given by position.

    Raises:
        InvalidInput: the function takes fewer operands than the operator has.
    """
    known = inspect.signature(meaning.function).parameters.values()
    names = [p.name for p in known if p.kind is p.POSITIONAL_OR_KEYWORD]
    if any(p.kind is p.VAR_POSITIONAL for p in known):
        return [""] * count
    if len(names) < count or any(p.default is p.empty for p in known if p.name in names[count:]):
        raise InvalidInput(
            f"operator {meaning.name!r} has {count} operands, and its spelling {meaning.function.__name__} takes "
            f"({', '.join(names)})"
        )
    return names[:count]


def spelled(meaning: CustomOperator, name: str, modules: Collection[str]) -> str:
    """The source of the function that spells an operator, renamed.

    Raises:
        InvalidInput: it has no source, such as a lambda, or uses names that the written file does not have.
    """
    what = f"the spelling of operator {meaning.name!r}"
    try:
        source = textwrap.dedent(inspect.getsource(meaning.function))
    except (OSError, TypeError) as error:
        raise InvalidInput(f"{what} has no source: define it by def in a file") from error
    tree = ast.parse(source)
    function = tree.body[0]
    if not isinstance(function, ast.FunctionDef):
        raise InvalidInput(f"{what} is no function made by def: {source.strip()[:80]}")
    text = _without_annotations(function, source, name)
    missing = sorted(set(_globals(text)) - {*modules, *dir(builtins), name})
    if missing:
        raise InvalidInput(
            f"{what} uses {', '.join(missing)}, which the written file does not have (it has "
            f"{', '.join(sorted(modules))}): import or define it inside the function"
        )
    return text


def _without_annotations(function: ast.FunctionDef, source: str, name: str) -> str:
    """The source of a function, renamed, without decorators and annotations, whose names the written file may lack."""
    arguments = function.args
    for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg):
        if argument is not None:
            argument.annotation = None
    bare = ast.FunctionDef(
        name=name, args=arguments, body=[ast.Pass()], decorator_list=[], lineno=function.lineno, col_offset=0
    )
    header = ast.unparse(bare).partition("\n")[0]
    first = function.body[0]
    if first.lineno == function.lineno:
        bare.body = function.body
        return ast.unparse(bare)
    return "\n".join([header, *source.splitlines()[first.lineno - 1 : function.end_lineno]])


def _globals(text: str) -> Iterator[str]:
    def of(table: symtable.SymbolTable) -> Iterator[str]:
        if table.get_type() == "function":
            yield from (s.get_name() for s in table.get_symbols() if s.is_global() and s.is_referenced())
        for child in table.get_children():
            yield from of(child)

    yield from of(symtable.symtable(text, "<spelling>", "exec"))
    # Defaults and annotations are evaluated outside of the function.
    outside = symtable.symtable(text, "<spelling>", "exec")
    yield from (s.get_name() for s in outside.get_symbols() if s.is_referenced() and not s.is_assigned())


# To be filled in ------------------------------------------------------------------------------------------------------
def _to_fill_in(calls: Sequence[Stub], name: str) -> str:
    """The source of a stub that raises NotImplementedError."""
    longest = max(calls, key=lambda stub: len(stub.parameters))
    shared = min(len(stub.parameters) for stub in calls)
    parameters = [p if place < shared else f"{p}=None" for place, p in enumerate(longest.parameters)]
    node = longest.node
    source = node.attributes["name"] if node.operator == "custom" else node.operator
    where = dict.fromkeys(_plain_text(custom.where(stub.node)) for stub in calls)
    lines = [
        f"def {longest.function}({', '.join(parameters)}):",
        f'    """TO BE FILLED IN: {_plain_text(source)} of the source.',
        "",
        *(f"    {line}" for line in textwrap.wrap(f"It is called in {'; in '.join(where)}.", 108)),
        "    Its arrays have the axes of the source:" if node.operator == "custom" else "    Its arrays:",
        *(f"    - {p}: {_as_text(operand)}" for p, operand in zip(longest.parameters, longest.operands, strict=True)),
        f"    - returns {', '.join(map(_as_text, node.outputs))}",
        "",
        f"    test_{name}.py tests it on what the source computed.",
        '    """',
        f'    raise NotImplementedError("{longest.function} is to be filled in: see test_{name}.py")',
    ]
    # Lines of the docstring alone may be cut.
    return "\n".join(line if place in (0, len(lines) - 1) else line[:118] for place, line in enumerate(lines))


def _as_text(operand: Any) -> str:
    if isinstance(operand, Value):
        return f"{' x '.join(str(int(n)) for n in operand.shape) or 'scalar'} {operand.dtype}"
    if _has_value(operand):
        return f"({', '.join(map(_as_text, operand))})"
    return f"such as {_plain_text(repr(_without_lengths(operand)))}"


def _without_lengths(operand: Any) -> Any:
    if isinstance(operand, tuple | list):
        return tuple(map(_without_lengths, operand))
    return int(operand) if isinstance(operand, Dim) else operand


def _plain_text(text: str) -> str:
    """Text that is safe in a docstring: one line without quotes, backslashes and control characters."""
    return printable(text).replace("\\", "/").replace('"', "'").replace("\n", " ")
