"""Operators that the vocabulary lacks: definitions by the user, and errors that name the undefined ones."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import entry_points
from typing import Any

from agnostic import display
from agnostic.errors import InvalidInput
from agnostic.program.nodes import Node, Program, Value
from agnostic.text import counted

GROUP = "agnostic.operators"
"""Entry points that each name a :class:`CustomOperator`, or a sequence of them."""


@dataclass(frozen=True, repr=False)
class CustomOperator:
    """A custom operator, and its source in one framework.

    Attributes:
        name: in the source: ``"library::operator"`` of a registered one, else the class that computes it, as
            ``"ScaledSiLU"`` or, where several have that name, ``"my_file.ScaledSiLU"``.
        to: the backend whose framework the function is written in.
        function: a function of the operands in order; its source is written into the ported file.
        shape: computes the output's shape, or a tuple of shapes, from the operands with shapes in place of arrays;
            None: the framework's shape of each run is used.
        reference: computes the output from operands as NumPy arrays in float64; None: unknown.
        flops: computes the number of operations, from the arguments of ``shape``; None: not counted.
        elementwise: whether each number of its output depends on the numbers at the same place alone, so that the
            order of axes is all the same to it.

    Example:
        >>> double = ag.custom_operator("my_library::double", to="torch", elementwise=True)(lambda x: 2 * x)
        >>> double.name, double.elementwise, double(3)
        ('my_library::double', True, 6)
    """

    name: str
    to: str
    function: Callable[..., Any]
    shape: Callable[..., Any] | None = None
    reference: Callable[..., Any] | None = None
    flops: Callable[..., int] | None = None
    elementwise: bool = False

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"<CustomOperator {display.shortened(self.name)} of {self.to}>"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        return self.function(*args, **kwargs)


def custom_operator(
    name: str,
    *,
    to: str,
    shape: Callable[..., Any] | None = None,
    reference: Callable[..., Any] | None = None,
    flops: Callable[..., int] | None = None,
    elementwise: bool = False,
) -> Callable[[Callable[..., Any]], CustomOperator]:
    """Define an operator that a port does not know by a function in the target's framework.

    Args:
        name: of the operator in the source; see :class:`CustomOperator`.
        to: the backend whose source the function is.
        shape, reference, flops, elementwise: see :class:`CustomOperator`.

    Returns:
        What :func:`agnostic.port` takes as one of its ``operators``.

    Example:
        >>> @ag.custom_operator("my_library::twist", to="keras")
        ... def twist(x, scale):
        ...     return ops.flip(x, axis=1) * scale
        >>> str(twist)
        'my_library::twist'
    """

    def made(function: Callable[..., Any]) -> CustomOperator:
        return CustomOperator(name, to, function, shape, reference, flops, elementwise)

    return made


def known(to: str, given: Iterable[CustomOperator] = ()) -> dict[str, CustomOperator]:
    """The custom operators of a backend by name: the given ones first, then those of installed packages.

    Raises:
        InvalidInput: one is not a :class:`CustomOperator`, or two have the same name.
    """
    found: dict[str, CustomOperator] = {}
    for operator in given:
        if not isinstance(operator, CustomOperator):
            raise InvalidInput(f"operators are made by agnostic.custom_operator; {operator!r} is not")
        if operator.to == to:
            if operator.name in found:
                raise InvalidInput(f"operator {operator.name!r} is spelled twice for {to}: give one")
            found[operator.name] = operator
    for operator in _installed():
        if operator.to == to:
            found.setdefault(operator.name, operator)
    return found


def _installed() -> Iterator[CustomOperator]:
    for point in entry_points(group=GROUP):
        loaded = point.load()
        for operator in loaded if isinstance(loaded, list | tuple) else (loaded,):
            if not isinstance(operator, CustomOperator):
                raise InvalidInput(
                    f"entry point {point.value!r} of group {GROUP!r} must name operators made by "
                    f"agnostic.custom_operator, not {operator!r}"
                )
            yield operator


def with_meanings(program: Program, operators: Mapping[str, CustomOperator]) -> Program:
    """The program with the definitions of its custom operators.

    Raises:
        InvalidInput: the shape rule of an operator disagrees with the framework.
    """

    def taught(node: Node) -> Node:
        name = node.attributes.get("name") if node.operator == "custom" else None
        meaning = operators.get(str(name)) or operators.get(re.split(r"[.>]", str(name))[-1]) if name else None
        if meaning is None:
            return node
        _check_shape(meaning, node)
        return replace(node, attributes={**node.attributes, "meaning": meaning})

    return replace(program, nodes=tuple(map(taught, program.nodes)))


def _check_shape(meaning: CustomOperator, node: Node) -> None:
    if meaning.shape is None:
        return
    from agnostic.program.vocabulary import shapes_of

    [operands] = shapes_of(node.operands)
    said, shapes = meaning.shape(*operands), node.attributes["shapes"]
    if tuple(said) != tuple(shapes):
        raise InvalidInput(
            f"the rule of shapes of operator {meaning.name!r} says {said}, and the model gave {shapes} ({where(node)})"
        )


def unknown(program: Program) -> list[Node]:
    """The nodes whose operator is not defined."""
    return [node for node in program.nodes if node.operator == "custom" and node.attributes.get("meaning") is None]


def sentence(node: Node, reason: str | None = None) -> str:
    """One sentence: the operator, why it is refused, where it is, and the signature of a function to write."""
    name = name_of(node)
    reason = reason or node.attributes.get("reason") or "has no translation yet"
    return f"operator {name} {reason}: {where(node)}; by hand it is a function of {_signature(node)}"


def name_of(node: Node) -> str:
    """The name of a node's operator in its framework, or in the vocabulary."""
    return str(node.attributes["name"]) if node.operator == "custom" else node.operator


def refusal(name: str, sentences: Sequence[str], fix: str) -> str:
    """The error that names every refused operator once."""
    different = list(dict.fromkeys(sentences))
    if len(different) == 1:
        return f"{different[0]}; {fix}"
    return f"{counted(len(different), 'operator')} of {name} cannot be followed: {' | '.join(different)} | {fix}"


def where(node: Node) -> str:
    """The layer, the file and the line of a node."""
    layer = f"layer {node.module!r} ({node.kind})" if node.module else node.kind or "the model"
    return f"{layer}, {node.place}" if node.place else layer


def _signature(node: Node) -> str:
    def array(value: Value) -> str:
        return f"{' x '.join(map(str, map(int, value.shape))) or 'scalar'} {value.dtype}"

    operands = [array(value) for value in node.reads]
    return f"({', '.join(operands)}) that gives {', '.join(map(array, node.outputs))}"
