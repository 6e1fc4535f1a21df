"""Lengths that change with the inputs: found by reading a model at several sizes, said by what is at hand.

Programs that were read at different sizes of the inputs are the same but for some numbers. Those become
:class:`agnostic.port.code.Dim`, and each is written as a length of some value, or a product or quotient of one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from agnostic.port.code import At, Code, Dim, Infix, Ref
from agnostic.program.nodes import Leaf, Program, Value, map_values


class Differ(Exception):
    """Two programs are not the same but for numbers."""


def merged(programs: Sequence[Program]) -> Program:
    """One program whose lengths are :class:`agnostic.port.code.Dim` where the programs differ.

    Raises:
        Differ: they differ in more than lengths.
    """
    first = programs[0]
    if len({len(program.nodes) for program in programs}) > 1 or len({len(p.leaves) for p in programs}) > 1:
        raise Differ("they have different operators")
    known: dict[Value, Value] = {}

    def value(values: Sequence[Value]) -> Value:
        if len({len(v.shape) for v in values}) > 1:
            raise Differ("a value has different axes")
        shape = tuple(number(lengths) for lengths in zip(*(v.shape for v in values), strict=True))
        known[values[0]] = Value(values[0].id, shape, values[0].dtype)
        return known[values[0]]

    leaves = [_leaf(found, value) for found in zip(*(p.leaves for p in programs), strict=True)]
    nodes = []
    ids = [{leaf.value: n for n, leaf in enumerate(p.leaves)} for p in programs]
    for found in zip(*(program.nodes for program in programs), strict=True):
        if len({(node.operator, node.module) for node in found}) > 1:
            raise Differ(f"{found[0].operator} in {found[0].module!r} is another operator at another size")
        for mine, node in zip(ids, found, strict=True):
            mine |= {v: len(mine) + n for n, v in enumerate(node.outputs)}
        if (
            len(
                {
                    repr([map_values(o, m.get) for o in n.operands if not _number(o)])
                    for m, n in zip(ids, found, strict=True)
                }
            )
            > 1
        ):
            raise Differ(f"{found[0].operator} in {found[0].module!r} has other operands at another size")
        operands = tuple(
            map_values(o, lambda v: known[v]) if not _number(o) else number([n.operands[i] for n in found])
            for i, o in enumerate(found[0].operands)
        )
        names = found[0].attributes
        if any(node.attributes.keys() != names.keys() for node in found):
            raise Differ(f"{found[0].operator} in {found[0].module!r} has other attributes at another size")
        attributes = {name: number([node.attributes[name] for node in found]) for name in names}
        outputs = tuple(value(vs) for vs in zip(*(node.outputs for node in found), strict=True))
        nodes.append(replace(found[0], operands=operands, attributes=attributes, outputs=outputs))
    results = tuple((path, known[v]) for path, v in first.outputs)
    return replace(first, nodes=tuple(nodes), leaves=tuple(leaves), outputs=results)


def _number(operand: Any) -> bool:
    return not isinstance(operand, Value | tuple)


def _leaf(leaves: Sequence[Leaf], value: Callable[[Sequence[Value]], Value]) -> Leaf:
    first = leaves[0]
    if len({(leaf.role, leaf.name) for leaf in leaves if leaf.role != "constant"}) > 1:
        raise Differ("they have different weights")
    for leaf in leaves[1:]:
        if first.role != "input" and leaf.value.shape != first.value.shape:
            raise Differ(f"{first.role} {first.name!r} has another shape at another size")
        floating = first.array is not None and first.array.dtype.kind == "f"
        if first.array is not None and not np.array_equal(first.array, np.asarray(leaf.array), equal_nan=floating):
            raise Differ(f"constant {first.name!r} holds other numbers at another size")
    return replace(first, value=value([leaf.value for leaf in leaves]))


def number(values: Sequence[Any]) -> Any:
    """One value for several: itself if they are equal, a :class:`Dim` if they are lengths; so for each part of tuples.

    Raises:
        Differ: they differ, and are no lengths.
    """
    first = values[0]
    if isinstance(first, list | tuple):
        if any(not isinstance(v, list | tuple) or len(v) != len(first) for v in values):
            raise Differ(f"{first} has another length at another size")
        return tuple(number(found) for found in zip(*values, strict=True))
    if all(v == first or (v != v and first != first) for v in values):
        return first
    if all(isinstance(v, int) and not isinstance(v, bool) for v in values):
        return Dim(tuple(values))
    raise Differ(f"{first} becomes {values[1]} at another size")


def lengths(code: Code) -> Iterator[Dim]:
    """The lengths in an attribute."""
    if isinstance(code, Dim):
        yield code
    elif isinstance(code, tuple):
        for part in code:
            yield from lengths(part)


def spelled(dim: Dim, near: Iterable[Value], shape: Callable[[Code], Code]) -> Code | None:
    """A length as code, by the axes of values: as one of them, a product or quotient; None where there is none.

    Args:
        dim: which.
        near: values whose axes may be used, the best first.
        shape: the code of a value's shape.
    """
    axes = [
        (length, At(shape(Ref(v)), axis))
        for v in near
        for axis, length in enumerate(v.shape)
        if isinstance(length, Dim)
    ]
    for length, code in axes:
        if length.sizes == dim.sizes:
            return code
    for length, code in axes:
        ratios = {(a / b) for a, b in zip(dim.sizes, length.sizes, strict=True)}
        if len(ratios) == 1:
            ratio = ratios.pop()
            if ratio == int(ratio):
                return Infix("*", code, int(ratio))
            if 1 / ratio == int(1 / ratio):
                return Infix("//", code, int(1 / ratio))
    for length, code in axes:
        for other, second in axes:
            products = [a * b for a, b in zip(length.sizes, other.sizes, strict=True)]
            if tuple(products) == dim.sizes:
                return Infix("*", code, second)
            ratios = {d / p for d, p in zip(dim.sizes, products, strict=True)}
            if len(ratios) == 1 and 1 / (ratio := ratios.pop()) == int(1 / ratio):
                return Infix("//", Infix("*", code, second), int(1 / ratio))
    for length, code in axes:
        gaps = {a - b for a, b in zip(dim.sizes, length.sizes, strict=True)}
        if len(gaps) == 1:
            gap = gaps.pop()
            return Infix("+" if gap > 0 else "-", code, abs(gap))
        quotient = _quotient(dim, length, code)
        if quotient is not None:
            return quotient
    return None


def _quotient(dim: Dim, length: Dim, code: Code) -> Code | None:
    """A length as the whole part of another, more or less some, divided: as a window that moves by a stride counts."""
    for divisor in range(2, 65):
        # (n + offset) // divisor = d holds for offsets from d * divisor - n to divisor - 1 more.
        lowest = max(d * divisor - n for n, d in zip(length.sizes, dim.sizes, strict=True))
        highest = min(d * divisor - n for n, d in zip(length.sizes, dim.sizes, strict=True)) + divisor - 1
        if lowest > highest:
            continue
        offset = next((n for n in (divisor - 1, 0) if lowest <= n <= highest), min((lowest, highest), key=abs))
        if not offset:
            return Infix("//", code, divisor)
        return Infix("//", Infix("+" if offset > 0 else "-", code, abs(offset)), divisor)
    return None
