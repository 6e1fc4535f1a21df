"""How one array becomes the other: relations that hold or do not, whatever computed the two."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from agnostic.description import Array
from agnostic.reference.activations import VECTOR, activate
from agnostic.reference.rounding import fits, rounded

ACTIVATIONS: tuple[tuple[str, Mapping[str, Any]], ...] = (
    ("relu", {}),
    ("relu6", {}),
    ("gelu", {}),
    ("gelu_tanh", {}),
    ("silu", {}),
    ("sigmoid", {}),
    ("tanh", {}),
    ("softmax", {"axis": -1}),
    ("leaky_relu", {"negative_slope": 0.01}),
    ("leaky_relu", {"negative_slope": 0.1}),
    ("leaky_relu", {"negative_slope": 0.2}),
    ("leaky_relu", {"negative_slope": 0.3}),
    ("elu", {}),
    ("selu", {}),
    ("hard_silu", {}),
    ("hard_sigmoid", {}),
    ("softplus", {}),
    ("mish", {}),
    ("quick_gelu", {}),
    ("log_softmax", {"axis": -1}),
    ("celu", {}),
    ("softsign", {}),
    ("log_sigmoid", {}),
    ("exponential", {}),
    ("absolute", {}),
    ("square", {}),
)
"""Those that are tried where nobody says which one there is; the usual ones first."""


@dataclass(frozen=True)
class Relation:
    """A candidate: B's array as a function of A's.

    Attributes:
        mistake: a key of the catalogue.
        made: what B's array would be, if this were the mistake; or, with ``fixed``, what A's would be.
        fixed: whether ``made`` is B's array after the fix, to be compared with A's.
        values: for the words of the fix.
        note: a clause for the sentence.
    """

    mistake: str
    made: Array
    fixed: bool = False
    values: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""


def words(name: str, options: Mapping[str, Any] | None = None) -> str:
    """An activation as it is written."""
    shown = {k: v for k, v in (options or {}).items() if k != "axis" and v is not None}
    return f"{name}({', '.join(f'{k}={v}' for k, v in shown.items())})" if shown else name


def plausible(activation: str, x: Array) -> bool:
    """Whether an array can be what an activation returned, of those whose range says something."""
    low, high = float(x.min(initial=np.inf)), float(x.max(initial=-np.inf))
    if activation == "softmax":
        return low >= 0 and bool(np.allclose(x.sum(-1), 1, atol=1e-5))
    if activation == "log_softmax":
        return high <= 0 and bool(np.allclose(np.exp(x).sum(-1), 1, atol=1e-5))
    ranges = {
        "sigmoid": (0.0, 1.0), "tanh": (-1.0, 1.0), "gelu": (-0.17, np.inf), "gelu_tanh": (-0.1701, np.inf),
        "silu": (-0.2785, np.inf), "mish": (-0.309, np.inf), "hard_silu": (-0.3751, np.inf), "elu": (-1.0, np.inf),
        "selu": (-1.7581, np.inf), "softplus": (0.0, np.inf), "hard_sigmoid": (0.0, 1.0), "softsign": (-1.0, 1.0),
        "relu": (0.0, np.inf), "relu6": (0.0, 6.0), "exponential": (0.0, np.inf), "square": (0.0, np.inf),
    }  # fmt: skip
    if activation not in ranges:
        return False
    least, most = ranges[activation]
    return least <= low and high <= most


def evident(activation: str, x: Array) -> bool:
    """Whether an array is what an activation returned, as far as its numbers show: they reach its bounds."""
    if not plausible(activation, x):
        return False
    low, high = float(x.min(initial=np.inf)), float(x.max(initial=-np.inf))
    reached = {
        "sigmoid": low > 0.0 and high < 1.0, "tanh": max(-low, high) > 0.9, "gelu": low < -0.15,
        "gelu_tanh": low < -0.15, "silu": low < -0.25, "mish": low < -0.28, "hard_silu": low < -0.35,
        "elu": low < -0.8, "selu": low < -1.4, "softmax": True, "log_softmax": True,
    }  # fmt: skip
    return reached.get(activation, False)


def relations(truth: Array, output: Array, *, after: str | None = None, first: bool = False) -> Iterator[Relation]:
    """Candidates, the most specific ones first.

    Args:
        truth, output: of one shape, float64.
        after: the activation that A applied last, if it is known: a second one doubles it.
        first: whether the arrays are the model's input.
    """
    yield from _orders(truth, output, first)
    yield from _activations(truth, output, after)
    yield from _dropped(truth, output)
    yield from _affine(truth, output, first)
    yield from _normalized(truth, output)
    yield from _digits(truth, output)


# Order ----------------------------------------------------------------------------------------------------------------
def _orders(truth: Array, output: Array, first: bool) -> Iterator[Relation]:
    if truth.ndim >= 3:
        for axis in range(1, truth.ndim - 1):
            yield Relation("reversed", np.flip(truth, axis), values={"b": f"axis {axis}"})
        if truth.ndim == 4 and truth.shape[1] == truth.shape[2]:
            yield Relation("spatial_transposed", truth.swapaxes(1, 2))
    order = permutation(truth, output)
    if order is not None:
        yield Relation(order_name(order, first, truth.ndim), truth[..., order])


def permutation(truth: Array, output: Array) -> Array | None:
    """Which feature of A each feature of B is, if B's features are A's in another order; None otherwise.

    Features are told apart by their values, so it is found only where no two are alike: the nearest one in two random
    projections, then checked by the caller.
    """
    c = truth.shape[-1]
    if c < 2 or truth.shape != output.shape:
        return None
    a, b = truth.reshape(-1, c).T, output.reshape(-1, c).T
    direction = np.random.default_rng(0).standard_normal(a.shape[1])
    key_a, key_b = a @ direction, b @ direction
    sorted_a, sorted_b = np.argsort(key_a, kind="stable"), np.argsort(key_b, kind="stable")
    order = np.empty(c, np.int64)
    order[sorted_b] = sorted_a
    if np.array_equal(order, np.arange(c)):
        return None
    scale = np.abs(key_a).max()
    if not np.isfinite(scale) or np.abs(key_a[sorted_a] - key_b[sorted_b]).max() > 1e-3 * scale:
        return None
    return order


def order_name(order: Array, first: bool = False, ndim: int = 4) -> str:
    """What a permutation of features is called; those of an image are channels, others may have been flattened."""
    c = len(order)
    if np.array_equal(order, np.arange(c)[::-1]) and (c == 3 or first):
        return "channel_order"
    turns = (np.diff(order) != 1).sum()
    if turns == 1 and order[0] != 0:
        return "concatenation_order"
    for groups in range(2, c):
        if c % groups == 0 and np.array_equal(order, np.arange(c).reshape(groups, -1).T.ravel()):
            return "flatten_order" if c > 64 or ndim < 4 else "groups"
    # A few whole blocks in another order are parts that were put together otherwise.
    return "concatenation_order" if turns <= min(6, c // 4) else "features_permuted"


def flattenings(x: Array, sizes: tuple[int, ...]) -> Iterator[Array]:
    """Features that were flattened from (*spatial, C), as other orders would have them, or would be read."""
    whole = x.reshape(len(x), *sizes)
    axes = tuple(range(1, len(sizes) + 1))
    for order in itertools.permutations(axes):
        if order != axes:
            yield whole.transpose(0, *order).reshape(x.shape)
            read = x.reshape(len(x), *(sizes[k - 1] for k in order))
            yield read.transpose(0, *(1 + np.argsort(order))).reshape(x.shape)


# Activations ----------------------------------------------------------------------------------------------------------
def _activations(truth: Array, output: Array, after: str | None) -> Iterator[Relation]:
    for name, options in ACTIVATIONS:
        if name in VECTOR and truth.ndim > 3:
            continue
        said = words(name, options)
        again = after == name or (after is None and evident(name, truth))
        extra = "activation_doubled" if again else "activation_extra"
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            yield Relation(extra, activate(name, truth, options), values={"b": said})
            yield Relation("activation_missing", activate(name, output, options), fixed=True, values={"a": said})


_INVERSE: Mapping[str, Any] = {
    "sigmoid": lambda y: np.log(y / (1 - y)),
    "tanh": np.arctanh,
    "softplus": lambda y: np.log(np.expm1(y)),
}
"""Activations that can be undone."""


def exchanged(truth: Array, output: Array) -> Iterator[Relation]:
    """One activation in another's place, where what was activated is not at hand: one of them can be undone."""
    for name, inverse in _INVERSE.items():
        for known, other, fixed in ((truth, output, False), (output, truth, True)):
            if not plausible(name, known):
                continue
            with np.errstate(all="ignore"):
                before = inverse(known)
            if not np.isfinite(before).all():
                continue
            for second, options in ACTIVATIONS:
                if second == name or (second in VECTOR and truth.ndim > 3) or not plausible(second, other):
                    continue
                said = (name, words(second, options))[:: -1 if fixed else 1]
                with np.errstate(all="ignore"):
                    made = activate(second, before, options)
                yield Relation("activation_differs", made, fixed=fixed, values={"a": said[0], "b": said[1]})


# Numbers --------------------------------------------------------------------------------------------------------------
def _dropped(truth: Array, output: Array) -> Iterator[Relation]:
    """Some elements are zero, all others A's times one number above 1."""
    kept = (output != 0) & (truth != 0)
    gone = (output == 0) & (truth != 0)
    if gone.sum() < 1 or kept.sum() < 8:
        return
    factor = float(np.median(output[kept] / truth[kept]))
    if 1.0 <= factor < 20.0:
        share = gone.sum() / (gone.sum() + kept.sum())
        yield Relation("dropout_on", np.where(gone, 0.0, truth * factor), note=f"{share:.0%} of the numbers are zero")


def _affine(truth: Array, output: Array, first: bool) -> Iterator[Relation]:
    """One factor and one offset for all, or for each channel."""
    if truth.size < 8:
        return
    pairs = [(truth, "")]
    if first and truth.shape[-1] == 3:
        pairs.append((truth[..., ::-1], "with the channels reversed as well"))
    for x, note in pairs:
        scale, offset = _fitted(x.reshape(-1, 1), output.reshape(-1, 1))
        made = x * scale + offset
        if first:
            yield Relation("preprocessing_range", made, values=_range(scale, offset), note=note)
        else:
            factor, shift = float(scale[0]), float(offset[0])
            only = x * _slope(x, output)
            yield Relation(
                "scale_missing" if factor < 1 else "constant_factor",
                only,
                values={"a": f"{1 / factor:.6g}" if factor else "0", "b": f"{factor:.6g}"},
            )
            yield Relation("constant_offset", x + (output - x).mean(), values={"b": f"{shift:.6g}"})
    for axis in range(1, truth.ndim - 1) if not first else ():
        # Channels may stand anywhere in what code hands on.
        x, y = np.moveaxis(truth, axis, -1), np.moveaxis(output, axis, -1)
        square = (x * x).reshape(-1, x.shape[-1]).sum(0)
        if truth.size >= 16 * len(square) and square.all():
            made = x * ((x * y).reshape(-1, x.shape[-1]).sum(0) / square)
            yield Relation("scale_missing", np.moveaxis(made, -1, axis), values={"a": f"a factor along axis {axis}"})
    if truth.ndim > 2 and len(truth) > 1 and not first:
        note = "the same for every sample, as a position embedding is"
        yield Relation("bias_missing", truth + (output - truth).mean(0), note=note)
    c = truth.shape[-1]
    if truth.size < 4 * c:
        return
    for x, note in pairs:
        scale, offset = _fitted(x.reshape(-1, c), output.reshape(-1, c))
        made = x * scale + offset
        if first:
            yield Relation("preprocessing_range", made, values=_range(scale, offset), note=note)
        elif truth.size >= 16 * c:
            flat, out = x.reshape(-1, c), output.reshape(-1, c)
            square = (flat * flat).sum(0)
            factors = (flat * out).sum(0) / np.where(square == 0, 1.0, square)
            yield Relation("scale_missing", x * factors, values={"a": "one factor per channel"})
            yield Relation("bias_missing", x + (out - flat).mean(0))


def _normalized(truth: Array, output: Array) -> Iterator[Relation]:
    """Each row is A's times a factor near 1, but for one offset per feature: another epsilon of a norm.

    A norm divides each row by the root of its variance plus epsilon, so another epsilon is one factor per row, on one
    side of 1. With an offset b behind it B's row is ``b + r (a - b)``; r and b are fitted in turn.
    """
    c = truth.shape[-1]
    x, y = truth.reshape(-1, c), output.reshape(-1, c)
    if c < 8 or len(x) < 4:
        return
    offset = np.zeros(c)
    delta = y - x
    for _ in range(20):
        shifted = x - offset
        square = (shifted * shifted).sum(1)
        if not square.all():
            return
        rate = (delta * shifted).sum(1) / square
        total = float((rate * rate).sum())
        if not total or np.abs(rate).max() > 0.5:
            return
        offset = (rate @ (rate[:, None] * x - delta)) / total
    rate = (delta * (x - offset)).sum(1) / ((x - offset) ** 2).sum(1)
    if (rate > 0).all() or (rate < 0).all():
        made = (x + rate[:, None] * (x - offset)).reshape(truth.shape)
        which = "larger" if (rate < 0).all() else "smaller"
        note = f"each row has a factor of its own, {1 + rate.min():.6f} to {1 + rate.max():.6f}: B's epsilon is {which}"
        yield Relation("layer_norm_epsilon", made, values={"a": "A's"}, note=note)


def _slope(x: Array, y: Array) -> float:
    square = float((x * x).sum())
    return float((x * y).sum()) / square if square else 0.0


def _fitted(x: Array, y: Array) -> tuple[Array, Array]:
    """Least squares of ``y = scale * x + offset``, a column each."""
    mean_x, mean_y = x.mean(0), y.mean(0)
    dx = x - mean_x
    square = (dx * dx).sum(0)
    scale = (dx * (y - mean_y)).sum(0) / np.where(square == 0, 1.0, square)
    return scale, mean_y - scale * mean_x


def _range(scale: Array, offset: Array) -> dict[str, str]:
    factors, shifts = 1.0 / np.where(scale == 0, 1.0, scale), -offset / np.where(scale == 0, 1.0, scale)
    shown = ", ".join(f"{f:.5g} * x + {s:.3g}" for f, s in zip(factors, shifts, strict=True))
    return {"a": f"B's x is A's after {shown}"}


def _digits(truth: Array, output: Array) -> Iterator[Relation]:
    for dtype, unit in (("bfloat16", 2.0**-8), ("float16", 2.0**-11)):
        for rough, exact, fixed in ((output, truth, False), (truth, output, True)):
            if not fits(rough, dtype) or fits(exact, dtype):
                continue
            made = rounded(exact, dtype)
            # Steps before the last rounding were rounded as well: a few units of the type, no more.
            scale = float(np.sqrt(np.mean(np.square(exact))))
            if float(np.sqrt(np.mean(np.square(rough - exact)))) <= 8 * unit * scale:
                made = rough
            note = "it is A that has them" if fixed else ""
            yield Relation("dtype", made, fixed=fixed, values={"b": dtype}, note=note)
