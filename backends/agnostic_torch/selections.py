"""Numbers that a mask picks: ``x[mask]``, of which nobody knows how many there are.

What is computed number by number, or row by row, may be computed of all instead, and taken where the mask is true:
``x[mask] = f(x[mask])`` is a choice between ``f(x)`` and ``x``. So an operator on a selection is written for the whole
array, and the selection ends where it is written back by the same mask, or summed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from agnostic.program.builder import Builder
from agnostic.program.nodes import Value
from agnostic_torch.aten import Call, Unreadable


@dataclass(frozen=True)
class Selection:
    """Rows that a mask picks.

    Attributes:
        whole: the array: of the mask's axes one where others follow, so that axes count as those of the selection.
        mask: with the axes of the source.
        taken: the mask with the axes of ``whole`` that it picks along.
    """

    whole: Value
    mask: Value
    taken: Value


_ELEMENTWISE = frozenset((
    "abs", "absolute", "acos", "acosh", "add", "addcdiv", "addcmul", "asin", "asinh", "atan", "atan2", "atanh",
    "bitwise_and", "bitwise_not", "bitwise_or", "ceil", "clamp", "clamp_max", "clamp_min", "clip", "clone",
    "contiguous", "copysign", "cos", "cosh", "detach", "div", "divide", "elu", "eq", "erf", "erfc", "exp", "exp2",
    "expm1", "float_power", "floor", "floor_divide", "fmax", "fmin", "fmod", "frac", "ge", "gelu", "gt",
    "hardsigmoid", "hardswish", "hardtanh", "isfinite", "isinf", "isnan", "le", "leaky_relu", "lerp", "log",
    "log10", "log1p", "log2", "logical_and", "logical_not", "logical_or", "lt", "masked_fill", "maximum", "minimum",
    "mish", "mul", "multiply", "ne", "neg", "pow", "reciprocal", "relu", "relu6", "remainder", "round", "rsqrt",
    "rsub", "selu", "sigmoid", "sign", "silu", "sin", "sinh", "softplus", "sqrt", "square", "sub", "subtract",
    "tan", "tanh", "to", "true_divide", "trunc", "type_as", "where", "_to_copy",
))  # fmt: skip
_BY_ROW = frozenset(("linear", "layer_norm", "rms_norm", "softmax", "log_softmax", "dropout"))
"""What acts on each row of the selection by itself, unless its axis is the first."""


def selected(c: Call, x: Value, mask: Value) -> Selection:
    """The numbers or rows of an array where a mask is true."""
    rank = len(mask.shape)
    if rank == len(x.shape) or rank == 1:
        return Selection(x, mask, mask)
    whole = c.emit("reshape", x, shape=(-1, *x.shape[rank:]))
    return Selection(whole, mask, c.emit("reshape", mask, shape=(-1,)))


def holds(given: Any) -> bool:
    """Whether an argument is a selection, or has one among its parts."""
    return isinstance(given, Selection) or (isinstance(given, tuple) and any(map(holds, given)))


def applied(c: Call, reader: Callable[[Call], Any] | None) -> Any:
    """What an operator gives that has selections among its arguments.

    Raises:
        Unreadable: it needs the number of what is picked, or arrays that do not belong to the whole array.
    """
    name, found = c.name, [x for x in c.given.values() if isinstance(x, Selection)]
    if name == "index_put" and len(found) == 1 and isinstance(c["values"], Selection):
        return written(c, c["values"])
    if not found or any(holds(x) for x in c.given.values() if not isinstance(x, Selection)):
        raise Unreadable(_COUNTED)
    first = found[0]
    if any(not is_same(c.builder, first.mask, other.mask) for other in found[1:]):
        raise Unreadable("joins numbers that several masks pick")
    if name in ("sum", "mean") and c.x is first:
        return _reduced(c, name, first)
    by_row = name in _BY_ROW and len(first.whole.shape) > len(first.taken.shape) and not _is_first(c, first)
    if reader is None or not (name in _ELEMENTWISE or by_row):
        raise Unreadable(_COUNTED)
    _check_others(c, first)
    whole = {key: x.whole if isinstance(x, Selection) else x for key, x in c.given.items()}
    result = reader(replace(c, given=whole))
    c.check_seen()
    return Selection(result, first.mask, first.taken)


_COUNTED = "takes numbers that a mask picks, of which the data say how many there are"


def _is_first(c: Call, x: Selection) -> bool:
    """Whether an operator goes along the axis of what is picked."""
    axis = c.get("dim")
    return axis is not None and int(axis) % len(x.whole.shape) == 0


def _check_others(c: Call, x: Selection) -> None:
    """Raise Unreadable where an operand could be as long as what is picked."""
    row = x.whole.shape[len(x.taken.shape) :]
    for key, other in c.given.items():
        is_weight = key in ("weight", "bias")
        if isinstance(other, Value) and not is_weight and not _fits(other.shape, row):
            raise Unreadable(_COUNTED)


def _fits(shape: tuple[int, ...], row: tuple[int, ...]) -> bool:
    """Whether an array of this shape is the same for each row of a selection."""
    while len(shape) > len(row) and shape[0] == 1:
        shape = shape[1:]
    behind = row[len(row) - len(shape) :] if len(shape) <= len(row) else None
    return behind is not None and all(n in (1, m) for n, m in zip(shape, behind, strict=True))


def written(c: Call, value: Selection | Value | float) -> Value:
    """An array with other numbers where a mask is true.

    Raises:
        Unreadable: the numbers are of another mask, or a list of them.
    """
    x, mask = c["self"], c["indices"][0]
    row = x.shape[len(mask.shape) :]
    if isinstance(value, Selection):
        if not is_same(c.builder, mask, value.mask) or value.whole.shape[len(value.taken.shape) :] != row:
            raise Unreadable("writes numbers that another mask picks")
        new = value.whole if value.whole.shape == x.shape else c.emit("reshape", value.whole, shape=x.shape)
    elif isinstance(value, Value) and not _fits(value.shape, row):
        raise Unreadable("writes several values by a mask")
    elif isinstance(value, Value) and len(value.shape) > len(row):
        new = c.emit("reshape", value, shape=value.shape[len(value.shape) - len(row) :])
    else:
        new = c.emit("full", value, shape=(), dtype=x.dtype) if not isinstance(value, Value) else value
    if c["accumulate"]:
        new = c.emit("add", x, new)
    spread = c.emit("reshape", mask, shape=(*mask.shape, *(1,) * len(row)))
    return c.emit("where", spread, new, x, dtype=x.dtype)


def _reduced(c: Call, name: str, x: Selection) -> Value:
    """The sum or the mean of what is picked, of all numbers or for each place of a row."""
    rank, axes = len(x.taken.shape), c.get("dim")
    along = None if axes in (None, ()) else tuple(int(a) for a in (axes if isinstance(axes, tuple) else (axes,)))
    if along is not None and (along != (0,) or rank != 1):
        raise Unreadable(_COUNTED)
    row = x.whole.shape[rank:]
    spread = c.emit("reshape", x.taken, shape=(*x.taken.shape, *(1,) * len(row)))
    kept = c.emit("where", spread, x.whole, 0, dtype=x.whole.dtype)
    keep = bool(c.get("keepdim", False))
    total = c.emit("reduce", kept, function="sum", axes=along, keep=keep)
    if name == "sum":
        return total
    count = c.emit("reduce", c.emit("cast", x.taken, dtype=x.whole.dtype), function="sum", axes=None)
    size = math.prod(row) if along is None else 1
    return c.emit("divide", total, count if size == 1 else c.emit("multiply", count, size))


def is_same(builder: Builder, a: Value, b: Value) -> bool:
    """Whether two masks are one, or computed alike from the same values."""
    if a == b:
        return True
    first, second = builder.giver(a), builder.giver(b)
    if first is None or second is None or first.operator != second.operator:
        return False
    return first.attributes == second.attributes and first.operands == second.operands
