"""Expressions of source code as data, so that they can be compared before they are written."""

from __future__ import annotations

import keyword
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from agnostic.program.nodes import Value

Code = Any
"""A :class:`Ref`, :class:`Name`, :class:`Apply`, :class:`Infix`, :class:`At`, :class:`Slice`, :class:`Attr`,
:class:`Listed`, :class:`Each` or :class:`If`; or a number, string, None or a tuple, which stand for themselves."""


@dataclass(frozen=True)
class Ref:
    """The variable that holds a value."""

    value: Value


@dataclass(frozen=True)
class Name:
    """A name, such as ``ops.relu`` or ``self.conv1``."""

    text: str


@dataclass(frozen=True)
class Apply:
    """A call."""

    function: Code
    args: tuple[Code, ...] = ()
    keywords: tuple[tuple[str, Code], ...] = ()


@dataclass(frozen=True)
class Infix:
    """A sum, product, comparison and so on; without a left side the negative of the right one."""

    operator: str
    left: Code
    right: Code


@dataclass(frozen=True)
class At:
    """An item or part: ``x[:, 0]``; the index is code, or text in a :class:`Name`, or a tuple of these."""

    of: Code
    index: Code


@dataclass(frozen=True)
class Slice:
    """A slice inside an :class:`At`; None where an end or the step is omitted."""

    start: Code = None
    stop: Code = None
    step: Code = None


@dataclass(frozen=True)
class Attr:
    """An attribute: ``x.shape``."""

    of: Code
    name: str


@dataclass(frozen=True)
class Listed:
    """A list."""

    parts: tuple[Code, ...]


@dataclass(frozen=True)
class Each:
    """Several arguments: ``*(code for variable in range(start, stop))``."""

    code: Code
    variable: str
    start: Code
    stop: Code


@dataclass(frozen=True)
class If:
    """``then if condition else otherwise``."""

    condition: Code
    then: Code
    otherwise: Code


@dataclass(frozen=True)
class Loop:
    """The result of a loop over layers; it is always a whole statement.

    Attributes:
        layers: a list of layers.
        start: the input of the first layer.
        others, keywords: further arguments of each call.
        grows: whether each layer is called with the list of all earlier results, not only with the last one.
    """

    layers: Code
    start: Code
    others: tuple[Code, ...] = ()
    keywords: tuple[tuple[str, Code], ...] = ()
    grows: bool = False


class Dim(int):
    """A length that changes with the inputs.

    Attributes:
        sizes: the length in each of the programs that were read.
    """

    sizes: tuple[int, ...]

    def __new__(cls, sizes: tuple[int, ...]) -> Dim:
        """The lengths; as a number it equals the first of them."""
        found = super().__new__(cls, sizes[0])
        found.sizes = sizes
        return found

    def __eq__(self, other: object) -> bool:
        return self.sizes == (other.sizes if isinstance(other, Dim) else (other,) * len(self.sizes))

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = int.__hash__

    def __repr__(self) -> str:
        return f"Dim{self.sizes}"


def call(function: str | Code, *args: Code, **keywords: Code) -> Apply:
    """A call of a function by its name; arguments that are ``...`` are left out."""
    name = Name(function) if isinstance(function, str) else function
    return Apply(name, args, tuple((key, value) for key, value in keywords.items() if value is not ...))


def parts(code: Code) -> tuple[Code, ...]:
    """The direct parts of a piece of code."""
    if isinstance(code, Apply):
        return (code.function, *code.args, *(value for _, value in code.keywords))
    if isinstance(code, Infix):
        return (code.left, code.right)
    if isinstance(code, At):
        return (code.of, code.index)
    if isinstance(code, Slice):
        return (code.start, code.stop, code.step)
    if isinstance(code, Attr):
        return (code.of,)
    if isinstance(code, Listed):
        return code.parts
    if isinstance(code, Each):
        return (code.code, code.start, code.stop)
    if isinstance(code, If):
        return (code.condition, code.then, code.otherwise)
    if isinstance(code, Loop):
        return (code.layers, code.start, *code.others, *(value for _, value in code.keywords))
    return code if isinstance(code, tuple) else ()


def rebuilt(code: Code, function: Callable[[Code], Code]) -> Code:
    """The code with each of its direct parts replaced by the function's result."""
    if isinstance(code, Apply):
        return Apply(
            function(code.function),
            tuple(function(arg) for arg in code.args),
            tuple((name, function(value)) for name, value in code.keywords),
        )
    if isinstance(code, Infix):
        return Infix(code.operator, function(code.left), function(code.right))
    if isinstance(code, At):
        return At(function(code.of), function(code.index))
    if isinstance(code, Slice):
        return Slice(*map(function, parts(code)))
    if isinstance(code, Attr):
        return Attr(function(code.of), code.name)
    if isinstance(code, Listed):
        return Listed(tuple(map(function, code.parts)))
    if isinstance(code, Each):
        return Each(function(code.code), code.variable, function(code.start), function(code.stop))
    if isinstance(code, If):
        return If(function(code.condition), function(code.then), function(code.otherwise))
    if isinstance(code, Loop):
        keywords = tuple((name, function(value)) for name, value in code.keywords)
        others = tuple(map(function, code.others))
        return Loop(function(code.layers), function(code.start), others, keywords, code.grows)
    return tuple(map(function, code)) if isinstance(code, tuple) else code


def replaced(code: Code, instead: Callable[[Code], Code]) -> Code:
    """Replace pieces of code, outermost first. Where the function returns a piece unchanged, its parts are visited."""
    found = instead(code)
    if found is not code:
        return found
    return rebuilt(code, lambda part: replaced(part, instead))


def polished(
    code: Code,
    ours: Callable[[str], bool],
    leading: Collection[str],
    is_default: Callable[[str, str, Code], bool],
    own: Callable[[str, Mapping[str, Code]], str],
) -> Code:
    """The code of a constructor as it is usually written: without defaults, first arguments without names.

    Args:
        code: what is written.
        ours: whether a function that is called has the arguments of a layer.
        leading: the arguments that are written without their names, as long as they come first.
        is_default: whether an argument need not be written, by the name of what is called, its name and its value.
        own: the name of what is called, by that of the helper and the arguments that are left.
    """
    if not isinstance(code, Apply):
        return rebuilt(code, lambda part: polished(part, ours, leading, is_default, own))
    called = code.function.text if isinstance(code.function, Name) else ""
    is_ours = ours(called)
    args = [polished(arg, ours, leading, is_default, own) for arg in code.args]
    keywords: list[tuple[str, Code]] = []
    for name, value in code.keywords:
        if is_ours and is_default(called, name, value):
            continue
        short = polished(value, ours, leading, is_default, own)
        if is_ours and name in leading and not keywords:
            args.append(short)
        else:
            keywords.append((name, short))
    function = Name(own(called, dict(keywords))) if called else code.function
    return Apply(function, tuple(args), tuple(keywords))


def refs(code: Code) -> Iterator[Value]:
    """The values that a piece of code reads."""
    if isinstance(code, Ref):
        yield code.value
    for part in parts(code):
        yield from refs(part)


_STRENGTH = {"or": 1, "and": 2, "==": 4, "!=": 4, "<": 4, "<=": 4, ">": 4, ">=": 4, "|": 5, "^": 6, "&": 7,
             "+": 9, "-": 9, "*": 10, "/": 10, "//": 10, "%": 10, "@": 10, "**": 12}  # fmt: skip


def text(code: Code, names: Callable[[Value], str], strength: int = 0) -> str:
    """Source text of a piece of code.

    Args:
        code: what to write.
        names: the variable of each value.
        strength: precedence of the enclosing operator; a weaker expression gets parentheses.
    """
    if isinstance(code, Ref):
        return names(code.value)
    if isinstance(code, Name):
        return code.text
    if isinstance(code, Apply):
        args = [text(arg, names) for arg in code.args]
        args += [f"{name}={text(value, names)}" for name, value in code.keywords]
        return f"{text(code.function, names, 20)}({', '.join(args)})"
    if isinstance(code, At):
        index = code.index if isinstance(code.index, tuple) and code.index else (code.index,)
        return f"{text(code.of, names, 20)}[{', '.join(text(part, names) for part in index)}]"
    if isinstance(code, Slice):
        found = ["" if part is None else text(part, names) for part in parts(code)][: 2 if code.step is None else 3]
        if all(re.fullmatch(r"-?\w*", part) for part in found):
            return ":".join(found)
        return " : ".join(found).strip()  # formatters put spaces around operators in slices that are more than names
    if isinstance(code, Attr):
        return f"{text(code.of, names, 20)}.{code.name}"
    if isinstance(code, Listed):
        if len(code.parts) == 1 and isinstance(code.parts[0], Each):
            return f"[{text(code.parts[0], names)[2:-1]}]"
        return f"[{', '.join(text(part, names) for part in code.parts)}]"
    if isinstance(code, Each):
        span = text(code.stop, names)
        span = span if code.start == 0 else f"{text(code.start, names)}, {span}"
        return f"*({text(code.code, names)} for {code.variable} in range({span}))"
    if isinstance(code, If):
        pieces = (text(piece, names, 1) for piece in (code.then, code.condition, code.otherwise))
        written = "{} if {} else {}".format(*pieces)
        return f"({written})" if strength else written
    if isinstance(code, Infix) and code.left is None:
        written = f"{code.operator}{text(code.right, names, 11)}"
        return f"({written})" if strength > 10 else written
    if isinstance(code, Infix):
        own = _STRENGTH[code.operator]
        written = f"{text(code.left, names, own)} {code.operator} {text(code.right, names, own + 1)}"
        return f"({written})" if own < strength else written
    if isinstance(code, tuple):
        inner = ", ".join(text(part, names) for part in code)
        return f"({inner},)" if len(code) == 1 else f"({inner})"
    written = literal(code)
    return f"({written})" if (strength and written.startswith("-")) or (strength > 10 and "**" in written) else written


def literal(value: Any) -> str:
    """Source text of a number, string or None."""
    if isinstance(value, bool) or value is None:
        return repr(value)
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, float):
        if not math.isfinite(value):
            return f'float("{value}")'
        if 1e-3 < value < 1 and len(repr(value)) > 9 and _is_root(root := round(value**-2), -0.5, value):
            return f"{root}**-0.5"
        if 1 < value < 1e3 and len(repr(value)) > 9 and _is_root(square := round(value**2), 0.5, value):
            return f"{square}**0.5"
        return repr(float(value))
    if isinstance(value, complex):
        return repr(value)
    if isinstance(value, str):
        return '"' + repr(value)[1:-1].replace("\\'", "'").replace('"', '\\"') + '"'
    raise TypeError(f"{value!r} has no literal")


def _is_root(number: int, power: float, value: float) -> bool:
    """Whether a value is that power of a number that is no square, such as of the channels of a head."""
    return number < 10**5 and math.isqrt(number) ** 2 != number and bool(number**power == value)


def identifier(name: str, taken: Mapping[str, Any] | frozenset[str] | set[str] = frozenset()) -> str:
    """A Python identifier from any text: other characters become ``_``; never a name that is taken."""
    found = re.sub(r"[^A-Za-z0-9_]", "_", name) or "_"
    found = re.sub(r"__+", "_", found)
    if found[0].isdigit():
        found = "_" + found
    if keyword.iskeyword(found) or keyword.issoftkeyword(found):
        found += "_"
    chosen, number = found, 2
    while chosen in taken:
        chosen, number = f"{found.rstrip('_')}_{number}", number + 1
    return chosen


def class_name(kind: str, taken: set[str]) -> str:
    """A class name from any text: ``_DenseLayer`` becomes ``DenseLayer``, ``multi head`` ``MultiHead``."""
    words = re.findall(r"[A-Za-z0-9]+", kind) or ["Block"]
    found = "".join(word[0].upper() + word[1:] for word in words)
    if found[0].isdigit():
        found = "Block" + found
    return identifier(found, taken)
