"""Lengths that depend on the inputs: found by reading a model at several sizes, written as expressions of shapes.

Programs that were read at different input sizes are equal apart from some numbers. These numbers become
:class:`agnostic.port.code.Dim`; each is written as the length of a value's axis, or a product or quotient of such.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from agnostic.port.code import At, Code, Dim, Infix, Ref
from agnostic.program.nodes import Leaf, Node, Program, Value, map_values


class Differ(Exception):
    """Two programs differ in more than numbers."""


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
    """Merge values: equal values stay, lengths become a :class:`Dim`; tuples are merged item by item.

    Raises:
        Differ: they differ and are not lengths.
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


@dataclass(frozen=True)
class Window:
    """A length that counts the positions of a window: (root + offset) // divisor.

    Attributes:
        root: the length that it is computed from, at each size.
        offset, divisor: numbers.
    """

    root: tuple[int, ...]
    offset: int
    divisor: int

    @property
    def sizes(self) -> tuple[int, ...]:
        """The length at each size."""
        return tuple((n + self.offset) // self.divisor for n in self.root)

    def moved(self, offset: int, stride: int) -> Window:
        """The number of positions of a window over this length: (length + offset) // stride."""
        return Window(self.root, self.offset + self.divisor * offset, self.divisor * stride)


Windows = Mapping[tuple[int, ...], Window]
"""Each length, by its value at each size, with its formula."""


def windows(program: Program) -> Windows:
    """The output lengths of convolutions, pools and padding, by the formulas of these operators.

    A formula that is found by trial may fit only the sizes that were read; these hold at every size.
    """
    known: dict[tuple[int, ...], Window] = {}
    for node in program.nodes:
        if not isinstance(node.operands[0] if node.operands else None, Value):
            continue
        x, y = node.operands[0], node.outputs[0]
        for before, after, offset, stride in _moves(node, x, y):  # type: ignore[arg-type]
            if not isinstance(before, Dim) or not isinstance(after, Dim) or after.sizes in known:
                continue
            found = known.get(before.sizes, Window(before.sizes, 0, 1)).moved(offset, stride)
            if found.sizes == after.sizes != found.root:
                known[after.sizes] = found
    return known


def _moves(node: Node, x: Value, y: Value) -> Iterator[tuple[int, int, int, int]]:
    """For each axis along which a window moves: the lengths before and after, the offset and the stride."""
    given = node.attributes
    if node.operator in ("convolution", "max_pool", "average_pool"):
        rank = len(x.shape)
        channel = int(given.get("channel_axis", 1)) % rank
        kernel = given.get("kernel") or node.operands[1].shape[2:]  # type: ignore[union-attr]
        dilation = given.get("dilation") or (1,) * len(kernel)
        axes = [axis for axis in range(1, rank) if axis != channel]
        for axis, k, s, d, (low, high) in zip(axes, kernel, given["stride"], dilation, given["padding"], strict=True):
            if given.get("same"):
                yield x.shape[axis], y.shape[axis], s - 1, s
            elif not any(isinstance(n, Dim) for n in (k, s, d, low, high)):
                # In ceil mode a last, partial window counts as well.
                more = s - 1 if given.get("ceil_mode") else 0
                yield x.shape[axis], y.shape[axis], low + high - (k - 1) * d - 1 + s + more, s
    elif node.operator == "pad":
        for n, m, (low, high) in zip(x.shape, y.shape, given["widths"], strict=True):
            if not isinstance(low, Dim) and not isinstance(high, Dim):
                yield n, m, low + high, 1
    elif node.operator == "slice":
        axis, step = given["axis"], given.get("step", 1)
        if not isinstance(given["start"], Dim) and given["stop"] == x.shape[axis]:
            yield x.shape[axis], y.shape[axis], step - 1 - given["start"], step


@dataclass(frozen=True)
class Spelled:
    """A length as code.

    Attributes:
        code: of the length.
        is_certain: whether it holds at every size, not only at those that were read.
    """

    code: Code
    is_certain: bool


def spelled(dim: Dim, near: Iterable[Value], shape: Callable[[Code], Code], known: Windows) -> Spelled | None:
    """The code of a length: an axis of a value, a product or a quotient of axes; None where nothing fits.

    Args:
        dim: the length.
        near: values whose axes may be used, the best first.
        shape: the code of a value's shape.
        known: see :func:`windows`.
    """
    first: dict[tuple[int, ...], tuple[Dim, Value, int]] = {}
    for v in near:
        for axis, length in enumerate(v.shape):
            if isinstance(length, Dim):
                first.setdefault(length.sizes, (length, v, axis))
    if dim.sizes in first:
        _, v, axis = first[dim.sizes]
        return Spelled(At(shape(Ref(v)), axis), True)
    axes = [(length, At(shape(Ref(v)), axis)) for length, v, axis in first.values()]
    if dim.sizes in known:
        counted = _counted(known[dim.sizes], axes, known)
        return None if counted is None else Spelled(counted, True)
    found = _guessed(dim, axes, known)
    return None if found is None else Spelled(found, False)


def _guessed(dim: Dim, axes: Sequence[tuple[Dim, Code]], known: Windows) -> Code | None:
    """A length by a formula that fits the sizes that were read."""
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
            return _moved(code, gap, 1)
        rest = next(
            (w for w in range(2, 65) if all(-n % w == d for n, d in zip(length.sizes, dim.sizes, strict=True))), 0
        )
        if rest:
            return Infix("%", Infix("-", None, code), rest)
        quotient = _quotient(dim, length, code, {2, *(window.divisor for window in known.values())})
        quotient = quotient if quotient is not None else _affine(dim, length, code)
        if quotient is not None:
            return quotient
    return None


def _affine(dim: Dim, length: Dim, code: Code) -> Code | None:
    """A length as ``n * factor + offset`` of another length n, as that of a signal by the number of its windows."""
    pairs = sorted(set(zip(length.sizes, dim.sizes, strict=True)))
    if len(pairs) < 2:
        return None
    steps = {((b - a) / (m - n)) if m != n else 0.5 for (n, a), (m, b) in itertools.pairwise(pairs)}
    if len(steps) > 1 or (step := steps.pop()) != int(step) or step < 2:
        return None
    return _moved(Infix("*", code, int(step)), pairs[0][1] - int(step) * pairs[0][0], 1)


def _counted(wanted: Window, axes: Iterable[tuple[Dim, Code]], known: Windows) -> Code | None:
    """A length as an expression of another length with the same root."""
    for length, code in axes:
        base = known.get(length.sizes, Window(length.sizes, 0, 1))
        gap = wanted.offset - base.offset
        if base.root == wanted.root and wanted.divisor % base.divisor == 0 and gap % base.divisor == 0:
            return _moved(code, gap // base.divisor, wanted.divisor // base.divisor)
    return None


def _moved(code: Code, offset: int, divisor: int) -> Code:
    """(code + offset) // divisor."""
    if offset:
        code = Infix("+" if offset > 0 else "-", code, abs(offset))
    return code if divisor == 1 else Infix("//", code, divisor)


def _quotient(dim: Dim, length: Dim, code: Code, divisors: Iterable[int]) -> Code | None:
    """A length as ``(n + offset) // divisor`` of another length n, as the output size of a strided window."""
    for divisor in sorted(set(divisors) - {1}):
        # (n + offset) // divisor = d holds for offsets from d * divisor - n to divisor - 1 more.
        lowest = max(d * divisor - n for n, d in zip(length.sizes, dim.sizes, strict=True))
        highest = min(d * divisor - n for n, d in zip(length.sizes, dim.sizes, strict=True)) + divisor - 1
        if lowest > highest:
            continue
        offset = next((n for n in (divisor - 1, 0) if lowest <= n <= highest), min((lowest, highest), key=abs))
        return _moved(code, offset, divisor)
    return None
