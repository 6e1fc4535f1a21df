"""In which order a program's arrays hold their numbers: the letters of each axis, followed through its operators.

Two models of one architecture flatten an image in different orders, and so need the rows of a weight in different
orders. What an axis stands for is followed by :mod:`agnostic.axes`; here each operator of the vocabulary says what it
does with its axes, and :func:`rearranged` gives the order that leads from the one model to the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from agnostic import axes
from agnostic.axes import POSITIONS, Dimension, Dimensions
from agnostic.program.nodes import Array, Node, Program, Value

_IMAGES = frozenset({
    "convolution", "transposed_convolution", "max_pool", "average_pool", "adaptive_average_pool", "adaptive_max_pool",
    "batch_norm", "batch_norm_training", "group_norm", "prelu", "resize",
})  # fmt: skip
_RECURRENT = frozenset({"lstm", "gru", "rnn"})

KnownDimensions = Mapping[Value, Dimensions]
_OrderRule = Callable[[Node, KnownDimensions, tuple[int, ...]], Dimensions | None]


def dimensions(program: Program) -> dict[Value, Dimensions]:
    """What each dimension of each array stands for; weights are left out."""
    found: dict[Value, Dimensions] = {
        leaf.value: axes.unknown(leaf.value.shape) for leaf in program.leaves if leaf.role == "input"
    }
    for node in program.nodes:
        given = [v for v in node.reads if v in found]
        if not given:
            continue  # computed from weights alone
        for place, value in enumerate(node.outputs):
            dims = _result(node, found, value.shape, place)
            found[value] = axes.unknown(value.shape) if dims is None else dims
    for leaf in program.leaves:
        if leaf.role == "input":
            axes.assume(found[leaf.value], integers=leaf.value.dtype.startswith("int"))
    return found


def _result(node: Node, known: KnownDimensions, shape: tuple[int, ...], place: int) -> Dimensions | None:
    first = node.operands[0] if node.operands else None
    x = known.get(first) if isinstance(first, Value) else None
    if node.operator in _IMAGES and x is not None:
        return _image(node, x, shape)
    if node.operator in _RECURRENT and x is not None:
        return (*x[:2], axes.new(shape[-1], "C")) if place == 0 else None
    if (rule := _RULES.get(node.operator)) is not None:
        return rule(node, known, shape)
    operands = [known[v] for v in node.reads if v in known]
    if any(len(dims) == len(shape) for dims in operands):
        return axes.together(operands, shape)
    return None


def _image(node: Node, x: Dimensions, shape: tuple[int, ...]) -> Dimensions | None:
    last = node.attributes.get("channel_axis", 1) % len(x) != 1 and len(x) > 2
    row = POSITIONS.get(len(x) - 2)
    if row is None:
        return x
    names = f"N{row}C" if last else f"NC{row}"
    if node.operator in ("convolution", "transposed_convolution"):
        return axes.convolved(x, shape, names)
    axes.tell(x, names)
    return axes.all_resized(x, shape)


def _linear(node: Node, known: KnownDimensions, shape: tuple[int, ...]) -> Dimensions | None:
    x = _of(node, known, 0)
    if x is None or len(shape) != len(x):
        return None
    (features,) = axes.mixed(x[-1], x[:-1], shape[-1])
    features.free = True
    return (*x[:-1], (features,))


def _matmul(node: Node, known: KnownDimensions, shape: tuple[int, ...]) -> Dimensions | None:
    first, second = _of(node, known, 0), _of(node, known, 1)
    if len(shape) < 2 or any(x is not None and len(x) < 2 for x in (first, second)):
        return None
    return axes.product(first, second, shape)


def _einsum(node: Node, known: KnownDimensions, shape: tuple[int, ...]) -> Dimensions | None:
    operands = node.operands[0]
    assert isinstance(operands, tuple)
    given = [known.get(x) if isinstance(x, Value) else None for x in operands]
    return axes.einsum(node.attributes["equation"], given, shape)


def _reshape(node: Node, known: KnownDimensions, shape: tuple[int, ...]) -> Dimensions | None:
    x = _of(node, known, 0)
    return None if x is None else axes.reshaped(x, shape)


def _permute(node: Node, known: KnownDimensions, shape: tuple[int, ...]) -> Dimensions | None:
    x = _of(node, known, 0)
    return None if x is None else tuple(x[axis] for axis in node.attributes["axes"])


def _select(node: Node, known: KnownDimensions, shape: tuple[int, ...]) -> Dimensions | None:
    x, axis = _of(node, known, 0), node.attributes["axis"]
    return None if x is None else (*x[: axis % len(x)], *x[axis % len(x) + 1 :])


def _concatenate(node: Node, known: KnownDimensions, shape: tuple[int, ...]) -> Dimensions | None:
    parts = node.operands[0]
    assert isinstance(parts, tuple)
    return axes.concatenated([known[x] for x in parts if isinstance(x, Value) and x in known], shape)


def _stack(node: Node, known: KnownDimensions, shape: tuple[int, ...]) -> Dimensions | None:
    parts, axis = node.operands[0], node.attributes["axis"] % len(shape)
    assert isinstance(parts, tuple)
    x = next(known[v] for v in parts if isinstance(v, Value) and v in known)
    return (*x[:axis], axes.new(shape[axis]), *x[axis:])


def _reduce(node: Node, known: KnownDimensions, shape: tuple[int, ...]) -> Dimensions | None:
    x, over = _of(node, known, 0), node.attributes.get("axes")
    if x is None:
        return None
    gone = {axis % len(x) for axis in (range(len(x)) if over is None else over)} if x else set()
    if len(shape) == len(x):
        return axes.all_resized(x, shape)
    return tuple(dim for axis, dim in enumerate(x) if axis not in gone)


def _attention(node: Node, known: KnownDimensions, shape: tuple[int, ...]) -> Dimensions | None:
    query, value = _of(node, known, 0), _of(node, known, 2)
    return None if query is None or value is None else (*query[:-1], value[-1])


def _embedding(node: Node, known: KnownDimensions, shape: tuple[int, ...]) -> Dimensions | None:
    ids = _of(node, known, 1)
    return None if ids is None else (*ids, axes.new(shape[-1], "C"))


_RULES: Mapping[str, _OrderRule] = {
    "linear": _linear, "matmul": _matmul, "einsum": _einsum, "reshape": _reshape, "permute": _permute,
    "select": _select, "concatenate": _concatenate, "stack": _stack, "reduce": _reduce, "variance": _reduce,
    "attention": _attention, "embedding": _embedding,
    **dict.fromkeys(
        ("slice", "pad", "flip", "roll", "tile", "repeat", "update"),
        lambda node, known, shape: None if (x := _of(node, known, 0)) is None else axes.all_resized(x, shape),
    ),
}  # fmt: skip


def _of(node: Node, known: KnownDimensions, place: int) -> Dimensions | None:
    operand = node.operands[place] if place < len(node.operands) else None
    return known.get(operand) if isinstance(operand, Value) else None


AxisOrder = tuple[tuple[str, int], ...]
"""What the numbers in a row are made of, the outermost first: a letter and a length; positions are one letter, S."""


def order(parts: Sequence[Dimension]) -> AxisOrder | None:
    """Of several dimensions in a row; None where a letter is unknown."""
    found: list[tuple[str, int]] = []
    for axis in (part for dimension in parts for whole in dimension for part in whole.parts):
        letter = axis.letter.known
        if axis.size == 1:
            continue
        if letter is None:
            return None
        letter = "S" if letter in "DHWL" else letter
        if found and found[-1][0] == letter:
            found[-1] = letter, found[-1][1] * axis.size
        else:
            found.append((letter, axis.size))
    return tuple(found)


def rearranged(source: AxisOrder | None, target: AxisOrder | None) -> Array | None:
    """Where the target's numbers stand among the source's; None where both have one order, or nothing is known."""
    if source is None or target is None or source == target or len({letter for letter, _ in source}) != len(source):
        return None
    if sorted(source) != sorted(target):
        return None
    places = np.arange(math.prod(size for _, size in source)).reshape([size for _, size in source])
    return places.transpose([source.index(part) for part in target]).reshape(-1)
