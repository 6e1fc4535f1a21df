"""How the numbers of one weight became another's: turned, permuted, scaled, rounded, as they were made, or others."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from agnostic.program.nodes import Array
from agnostic.reference.rounding import fits


@dataclass(frozen=True)
class LeafRelation:
    """What B's weight is, in A's terms.

    Attributes:
        mistake: its key.
        words: what completes "B's weight ...".
        undo: an expression over ``p`` that gives A's numbers; "" where only A has them.
    """

    mistake: str
    words: str
    undo: str = ""


def relation(x: Array, y: Array, name: str) -> LeafRelation:
    """What B's numbers are to A's.

    Args:
        x, y: A's and B's.
        name: of the weight.
    """
    x, y = (z.astype(np.float64) if z.dtype.kind in "bui" else z for z in (x, y))  # truth values have no difference
    # Each of them is looked for only where none before it is found: large weights take seconds.
    found = itertools.chain(_as_made(x, y, name), _turned(x, y), _scaled(x, y, name), _rounded(x, y), _permuted(x, y))
    first = next(found, None)
    if first is not None:
        return first
    if x.shape != y.shape:
        return LeafRelation("weights_differ", f"has shape {y.shape}, A's has {x.shape}")
    scale = float(np.abs(x).max(initial=0.0)) or 1.0
    share = float(np.mean(x != y))
    largest = float(np.abs(x - y).max(initial=0.0)) / scale
    return LeafRelation(
        "weights_differ", f"differs in {share:.0%} of its numbers, by at most {largest:.1e} of A's largest"
    )


def _same(x: Array, y: Array) -> bool:
    """Equal but for a rounding in float32."""
    if x.shape != y.shape:
        return False
    allowed = 2.0**-22 * float(np.abs(x).max(initial=0.0))
    # Other numbers are other from the start, as a rule.
    near = (np.abs(one - other).max(initial=0.0) <= allowed for one, other in ((x.flat[:64], y.flat[:64]), (x, y)))
    return all(near)


def _as_made(x: Array, y: Array, name: str) -> Iterator[LeafRelation]:
    last = name.rpartition(".")[2]
    if not y.size:
        return
    if (y == 0).all() and (x != 0).any():
        mistake = "weights_differ" if y.ndim > 1 else "statistics_missing" if "mean" in last else "bias_missing"
        yield LeafRelation(mistake, "is 0 everywhere, A's is not")
    if y.ndim < 2 and (y == 1).all() and (x != 1).any():
        yield LeafRelation("statistics_missing" if "var" in last else "scale_missing", "is 1 everywhere, A's is not")


def _turned(x: Array, y: Array) -> Iterator[LeafRelation]:
    axes = tuple(k for k in range(x.ndim) if x.shape[k] > 1)
    if x.shape == y.shape:
        for count in range(1, len(axes) + 1):
            for chosen in itertools.combinations(axes, count):
                if _same(x, np.flip(y, chosen)):
                    listed = ", ".join(map(str, chosen))
                    first = chosen == (1,) and x.shape[1] in (3, 4)
                    mistake = "channel_order" if first else "kernel_flipped" if min(chosen) > 1 else "weights_permuted"
                    yield LeafRelation(mistake, f"is A's turned round along axis {listed}", f"p.flip({listed})")
    for order in itertools.permutations(range(y.ndim)):
        if order != tuple(range(y.ndim)) and y.ndim < 6:
            turned = y.transpose(order)
            if _same(x, turned):
                yield LeafRelation(
                    "kernel_transposed", f"is A's with its axes as {_inverse(order)}", f"p.permute{order}"
                )
            elif turned.size == x.size and _same(x, np.ascontiguousarray(turned).reshape(x.shape)):
                yield LeafRelation(
                    "kernel_transposed",
                    f"is A's with its axes as {_inverse(order)}, put into the shape {y.shape}",
                    f"p.permute{order}.reshape{x.shape}",
                )
    if x.ndim == 2 and x.shape == y.shape and _same(x, y.reshape(x.shape[::-1]).T):
        yield LeafRelation("kernel_transposed", "is A's transposed, put into the shape that A's had",
                       f"p.reshape{x.shape[::-1]}.T")  # fmt: skip


def _inverse(order: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(order.index(k) for k in range(len(order)))


def _scaled(x: Array, y: Array, name: str) -> Iterator[LeafRelation]:
    if x.shape != y.shape or not np.any(x):
        return
    factor = float((np.vdot(x, y) / np.vdot(x, x)).real)
    if factor and _same(y, x * factor):
        yield LeafRelation("weights_scaled", f"is A's times {factor:.6g}", f"p / {factor!r}")
    if (x > 0).all() and (y > 0).all():
        for words, made, undo in (("the root of A's", np.sqrt(x), "p ** 2"), ("the square of A's", x**2, "p.sqrt()"),
                                  ("1 through A's", 1 / x, "1 / p"), ("1 through the root of A's", x**-0.5, "p ** -2"),
                                  ("the logarithm of A's", np.log(x), "p.exp()")):  # fmt: skip
            if _same(made, y):
                yield LeafRelation("variance_convention", f"is {words}", undo)


def _rounded(x: Array, y: Array) -> Iterator[LeafRelation]:
    if np.iscomplexobj(x) or np.iscomplexobj(y) or x.shape != y.shape:
        return
    if not np.abs(x - y).max(initial=0.0) <= 2.0**-7 * np.abs(x).max(initial=0.0):
        return
    for dtype in ("bfloat16", "float16"):
        if fits(y, dtype) and not fits(x, dtype):
            yield LeafRelation("dtype", f"is A's rounded to {dtype}")
        if fits(x, dtype) and not fits(y, dtype):
            yield LeafRelation("dtype", f"is not rounded, and A's is rounded to {dtype}")


def _permuted(x: Array, y: Array) -> Iterator[LeafRelation]:
    if x.shape != y.shape:
        return
    for axis in range(x.ndim):
        order = _order(np.moveaxis(x, axis, 0), np.moveaxis(y, axis, 0))
        if order is not None:
            yield LeafRelation(
                *_named(order, axis, x), f"p.index_select({axis}, torch.tensor({_inverse(tuple(order))}))"
            )


def _order(x: Array, y: Array) -> list[int] | None:
    """Which of A's slices each of B's is."""
    rows = {row.tobytes(): k for k, row in enumerate(np.ascontiguousarray(x))}
    found = [rows.get(row.tobytes(), -1) for row in np.ascontiguousarray(y)]
    return found if len(set(found)) == len(found) and -1 not in found else None


def _named(order: list[int], axis: int, x: Array) -> tuple[str, str]:
    what = ("rows", "columns")[axis] if axis < 2 else f"places along axis {axis}"
    size = len(order)
    for parts in (2, 3, 4):
        if size % parts == 0 and size > parts:
            step = size // parts
            blocks = [order[k * step] // step for k in range(parts)]
            if order == [b * step + k for b in blocks for k in range(step)]:
                return "gate_order", f"is A's with its {parts} blocks of {what} as {tuple(blocks)}"
    for one in range(2, size):
        if size % one == 0 and order == list(np.arange(size).reshape(one, -1).T.reshape(-1)):
            mistake = "groups" if axis == 0 else "flatten_order"
            return mistake, f"is A's with its {what} in the order of ({one}, {size // one}) read by columns"
    if axis == 1 and _is_axes(order):
        return "flatten_order", f"is A's with its {what} flattened in another order of axes"
    return "weights_permuted", f"is A's with its {what} in another order"


def _is_axes(order: list[int]) -> bool:
    """Whether an order is that of three axes turned."""
    size = len(order)
    for one in range(2, size):
        for two in range(2, size // one + 1):
            if size % (one * two) == 0:
                cube = np.arange(size).reshape(one, two, -1)
                if any(order == list(cube.transpose(p).reshape(-1)) for p in itertools.permutations(range(3))):
                    return True
    return False
