"""A program as text for people, and as data for machines."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from agnostic.program.nodes import Leaf, Node, Operand, Program, Value
from agnostic.program.vocabulary import get
from agnostic.text import counted


def text(program: Program) -> str:
    """The program line by line: a heading per layer, a line per operator, its output's shape at the end."""
    names = {leaf.value: leaf.name for leaf in program.leaves}
    computed = (value for node in program.nodes for value in node.outputs)
    names |= {value: f"%{number}" for number, value in enumerate(computed, 1)}
    parameters = sum(_size(leaf) for leaf in program.leaves if leaf.role == "parameter")
    lines = [
        f"{program.name} ({program.framework}): {counted(len(program.nodes), 'operator')}, "
        f"{counted(parameters, 'parameter')}, "
        f"{program.flops:,} floating-point operations",
        *(f"input {leaf.name}: {_array(leaf.value)}" for leaf in program.of_role("input")),
    ]
    rows = [(_call(node, names), ", ".join(map(_array, node.outputs)), node) for node in program.nodes]
    width = min(max((len(call) for call, _, _ in rows), default=0), 96)
    before: tuple[str, str] | None = None
    for call, shapes, node in rows:
        if (node.module, node.kind) != before:
            lines.append(f"{node.module or '(model)'}: {node.kind}" + (f"  {node.place}" if node.place else ""))
            before = node.module, node.kind
        lines.append(f"  {call:{width}s}  {shapes}")
    for path, value in program.outputs:
        lines.append(f"output{' ' + path if path else ''}: {names[value]}")
    lines += [f"note: {note}" for note in program.notes]
    return "\n".join(lines)


def _size(leaf: Leaf) -> int:
    total = 1
    for length in leaf.value.shape:
        total *= length
    return total


def _array(value: Value) -> str:
    return f"{' x '.join(map(str, value.shape)) or 'scalar'} {value.dtype}"


def _operand(operand: Operand, names: dict[Value, str]) -> str:
    if isinstance(operand, Value):
        return names[operand]
    if isinstance(operand, tuple):
        return f"[{', '.join(_operand(part, names) for part in operand)}]"
    return "-" if operand is None else repr(operand)


def _call(node: Node, names: dict[Value, str]) -> str:
    outputs = ", ".join(names[value] for value in node.outputs)
    operands = ", ".join(_operand(operand, names) for operand in node.operands)
    return f"{outputs} = {node.operator}({operands}){''.join(_attributes(node))}"


def _attributes(node: Node) -> Iterator[str]:
    defaults = get(node.operator).defaults
    for name, value in node.attributes.items():
        if name not in defaults or value != defaults[name]:
            yield f" {name}={_short(value)}"


def _short(value: Any) -> str:
    if isinstance(value, list | tuple):
        # (1, 1) says no more than 1.
        if len(value) > 1 and all(part == value[0] for part in value):
            return f"{len(value)} x {_short(value[0])}"
        return f"({', '.join(map(_short, value))})"
    return str(value)


def data(program: Program) -> dict[str, Any]:
    """The program as lists, dicts, strings and numbers for JSON; constants without their numbers.

    Infinity and NaN, which JSON lacks, become ``{"number": "-inf"}``.
    """

    def operand(given: Any) -> Any:
        if isinstance(given, Value):
            return {"value": given.id}
        if isinstance(given, list | tuple):
            return [operand(part) for part in given]
        return {"number": str(given)} if isinstance(given, float) and not math.isfinite(given) else given

    def value(given: Value) -> dict[str, Any]:
        return {"id": given.id, "shape": list(given.shape), "dtype": given.dtype}

    return {
        "name": program.name,
        "framework": program.framework,
        "flops": program.flops,
        "leaves": [{"name": leaf.name, "role": leaf.role, **value(leaf.value)} for leaf in program.leaves],
        "nodes": [
            {
                "operator": node.operator,
                "operands": [operand(given) for given in node.operands],
                "attributes": {name: operand(given) for name, given in node.attributes.items()},
                "outputs": [value(given) for given in node.outputs],
                "module": node.module,
                "kind": node.kind,
                "file": node.file,
                "line": node.line,
            }
            for node in program.nodes
        ],
        "outputs": [{"path": path, "value": value.id} for path, value in program.outputs],
        "notes": list(program.notes),
    }
