"""What B's own code, between two layers, made of the same arrays: sums, activations, pools, orders.

Both arrays are explained from what was at hand: the outputs of the layers before. If A's is ``relu(x + y)`` and B's is
``relu(x)``, the sum is missing.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from agnostic.compare.mistakes.relations import ACTIVATIONS, Relation, words
from agnostic.compare.mistakes.trials import entries, said
from agnostic.description import Array, LayerDescription
from agnostic.errors import InvalidInput
from agnostic.reference.activations import VECTOR, activate
from agnostic.reference.layers import apply

SAMPLE = 4096
"""How many numbers are looked at first, where a function works on each by itself."""

Error = Callable[[Array, Array], float]
"""How far one array is from another, in noise floors."""


@dataclass(frozen=True)
class Expression:
    """``activation(sum of factor * source)``; ``inner`` is an activation of the first source alone."""

    activation: str
    options: tuple[tuple[str, Any], ...]
    parts: tuple[tuple[str, float], ...]
    inner: str = "linear"

    def compute(self, sources: Mapping[str, Array]) -> Array:
        """Its value."""
        with np.errstate(over="ignore", invalid="ignore"):
            terms = [factor * sources[name] for name, factor in self.parts]
            terms[0] = activate(self.inner, terms[0])
            total = sum(terms)
            return activate(self.activation, np.asarray(total), dict(self.options))

    def __str__(self) -> str:
        terms = [name if abs(f - 1) < 1e-4 else f"{f:.5g} * {name}" for name, f in self.parts]
        terms[0] = terms[0] if self.inner == "linear" else f"{self.inner}({terms[0]})"
        total = " + ".join(terms)
        return total if self.activation == "linear" else f"{words(self.activation, dict(self.options))}({total})"


def explained(target: Array, sources: Mapping[str, Array], close: Callable[[Array, Array], bool]) -> Expression | None:
    """An array as an expression of at most two of the sources; None where it is none."""
    same = {name: x for name, x in sources.items() if x.shape == target.shape}
    picked = _sample(target.size)
    flat = {name: x.reshape(-1)[picked] for name, x in same.items()}
    wanted = target.reshape(-1)[picked]
    candidates = [
        *((name,) for name in reversed(same)),
        *itertools.combinations(reversed(same), 2),
    ]
    for names in candidates:
        total = sum((flat[n] for n in names), np.zeros_like(wanted))
        for name, options in (("linear", {}), *ACTIVATIONS):
            if name in VECTOR:
                continue
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
                made = activate(name, total, options)
            if close(made, wanted):
                found = Expression(name, tuple(options.items()), tuple((n, 1.0) for n in names))
                if close(found.compute(same), target):
                    return found
    for source, x in reversed(list(same.items())) if target.ndim <= 3 else ():
        for name in ("softmax", "log_softmax"):
            if close(activate(name, x), target):
                return Expression(name, (), ((source, 1.0),))
    for one, two in itertools.permutations(reversed(same), 2):
        for name in ("relu", "gelu", "silu", "relu6", "tanh", "sigmoid"):
            if close(activate(name, flat[one]) + flat[two], wanted):
                found = Expression("linear", (), ((one, 1.0), (two, 1.0)), name)
                if close(found.compute(same), target):
                    return found
    for names in candidates:
        matrix = np.stack([flat[n] for n in names], axis=1)
        if not np.isfinite(matrix).all() or len(wanted) < 8:
            continue
        factors = np.linalg.lstsq(matrix, wanted, rcond=None)[0]
        if close(matrix @ factors, wanted):
            found = Expression("linear", (), tuple(zip(names, map(float, factors), strict=True)))
            if close(found.compute(same), target):
                return found
    return None


def _sample(size: int) -> Array:
    if size <= SAMPLE:
        return np.arange(size)
    return np.random.default_rng(0).choice(size, SAMPLE, replace=False)


def compared(a: Expression, b: Expression) -> tuple[str, dict[str, Any], str]:
    """What tells two expressions apart: (mistake, values, a clause)."""
    note = f"A's is {a}, B's is {b}"
    ours, theirs = dict(a.parts), dict(b.parts)
    values: dict[str, Any] = {"a": str(a), "b": str(b)}
    if ours.keys() != theirs.keys():
        lacking = [n for n in ours if n not in theirs]
        if lacking and not set(theirs) - set(ours):
            return "residual_missing", {**values, "a": lacking[-1]}, note
        return "residual_differs", values, note
    if a.inner != b.inner:
        return "layer_order", values, note
    if any(abs(ours[n] - theirs[n]) > 1e-4 * abs(ours[n]) for n in ours):
        factors = [ours[n] / theirs[n] for n in ours if theirs[n] and abs(ours[n] / theirs[n] - 1) > 1e-4]
        return "scale_missing", {**values, "a": f"{factors[0]:.6g}" if factors else "0"}, note
    one, two = words(a.activation, dict(a.options)), words(b.activation, dict(b.options))
    if b.activation == "linear":
        return "activation_missing", {"a": one}, note
    if a.activation == "linear":
        return "activation_extra", {"b": two}, note
    if {a.activation, b.activation} == {"gelu", "gelu_tanh"}:
        return "gelu_tanh", {"a": a.activation == "gelu_tanh", "b": b.activation == "gelu_tanh"}, note
    if a.activation == b.activation == "leaky_relu":
        return (
            "activation_slope",
            {"a": dict(a.options)["negative_slope"], "b": dict(b.options)["negative_slope"]},
            note,
        )
    return "activation_differs", {"a": one, "b": two}, note


def branches(truth: Array, output: Array, sources: Mapping[str, Array]) -> Iterator[Relation]:
    """What B added too much or too little is one of the sources, times one factor or one a channel."""
    c = truth.shape[-1]
    delta = (output - truth).reshape(-1, c)
    for name, x in reversed(list(sources.items())):
        if x.shape != truth.shape or truth.size < 16 * c:
            continue
        flat = x.reshape(-1, c)
        square = (flat * flat).sum()
        if not square:
            continue
        factor = float((flat * delta).sum() / square)
        values = {"a": name, "b": f"{factor:.6g}"}
        if abs(factor + 1) < 1e-3:
            yield Relation("residual_missing", truth - x, values=values, note=f"{name} is not added")
        elif abs(factor - 1) < 1e-3:
            yield Relation("residual_differs", truth + x, values=values, note=f"{name} is added once more")
        note = f"of {name}, which is added"
        yield Relation("scale_missing", truth + factor * x, values={"a": f"{1 / (1 + factor):.6g}"}, note=note)
        squares = (flat * flat).sum(0)
        if squares.all():
            factors = (flat * delta).sum(0) / squares
            yield Relation("scale_missing", truth + x * factors, values={"a": "A's factor a channel"}, note=note)


# Functions of one source that change its size -------------------------------------------------------------------------
def functions(x: Array, shape: tuple[int, ...]) -> Iterator[LayerDescription]:
    """Layers without weights that make such a shape of an array: pools, resizing, softmax, norms."""

    def layer(kind: str, **config: Any) -> LayerDescription:
        return LayerDescription("function", kind, config)

    if x.shape == shape:
        if x.ndim <= 3:
            for axis in range(1, x.ndim):
                for name in ("softmax", "log_softmax"):
                    yield layer("activation", activation=name, activation_options={"axis": axis})
        yield layer("unit_norm", axes=(-1,))
        for epsilon in (1e-5, 1e-6, 1e-3):
            yield layer("layer_norm", axes=(-1,), epsilon=epsilon)
    if x.ndim > 2 and len(shape) == 2 and shape == (x.shape[0], x.shape[-1]):
        yield layer("global_average_pool", rank=x.ndim - 2, keepdims=False)
        yield layer("global_max_pool", rank=x.ndim - 2, keepdims=False)
    if x.ndim == 4 and len(shape) == 4 and shape[-1] == x.shape[-1]:
        yield layer("global_average_pool", rank=2, keepdims=True)
        yield layer("global_max_pool", rank=2, keepdims=True)
        if shape[1] <= x.shape[1]:
            yield from _pools(shape, x)
        for interpolation in ("nearest", "bilinear", "bicubic"):
            for align, half in ((False, True), (True, False), (False, False)):
                cubics = (
                    ((-0.75, "clamp"), (-0.5, "renormalize")) if interpolation == "bicubic" else ((-0.75, "clamp"),)
                )
                for cubic, edges in cubics:
                    yield layer(
                        "resize", interpolation=interpolation, align_corners=align, half_pixel=half, cubic=cubic,
                        edges=edges, size=shape[1:3], scale=None,
                    )  # fmt: skip
            if interpolation != "nearest" and (shape[1] < x.shape[1] or shape[2] < x.shape[2]):
                yield layer(
                    "resize", interpolation=interpolation, align_corners=False, half_pixel=True, antialias=True,
                    cubic=-0.5, edges="renormalize", size=shape[1:3], scale=None,
                )  # fmt: skip
    if x.ndim == 3 and len(shape) == 2 and shape == (x.shape[0], x.shape[-1]):
        yield layer("crop", padding=((x.shape[1] - 1, 0),))  # the last step alone
        yield layer("crop", padding=((0, x.shape[1] - 1),))


def _pools(shape: tuple[int, ...], x: Array) -> Iterator[LayerDescription]:
    for size, stride in ((2, 2), (3, 2), (3, 3), (4, 4), (2, 1), (3, 1), (7, 7)):
        for padding in ("valid", ((1, 1), (1, 1)), "same", ((0, 1), (0, 1)), ((1, 0), (1, 0))):
            for kind in ("max_pool", "average_pool"):
                for extra in (False, True):
                    config: dict[str, Any] = {
                        "pool_size": (size, size),
                        "strides": (stride, stride),
                        "padding": padding,
                        "ceil_mode": False,
                    }
                    if padding == "valid" and extra:
                        continue
                    if kind == "average_pool":
                        config["count_include_pad"] = extra
                    elif extra:
                        config["padding_value"] = 0.0
                    yield LayerDescription("function", kind, config)


@dataclass(frozen=True)
class Called:
    """A layer without weights of one source, with an activation before it."""

    source: str
    activation: LayerDescription
    layer: LayerDescription


def function_of(target: Array, sources: Mapping[str, Array], close: Callable[[Array, Array], bool]) -> Called | None:
    """The source and the layer without weights that make an array; None where there is none."""
    plain = LayerDescription("function", "activation", {"activation": "linear", "activation_options": {}})
    acts = [plain]
    for name, options in ACTIVATIONS[:14]:
        if name not in VECTOR:
            acts.append(plain.replace(activation=name, activation_options=options))
    # Pools and resizing take each channel by itself: a few are enough.
    few = 8 if target.ndim == 4 else target.shape[-1]
    wanted = target[:2, ..., :few]
    for act in acts:
        for name, x in list(sources.items())[:-7:-1]:
            narrowed = x[:2, ..., :few] if x.shape[-1] == target.shape[-1] else x[:2]
            with np.errstate(over="ignore", invalid="ignore"):
                given = apply(act, narrowed)
            for layer in functions(given, wanted.shape):
                try:
                    made = apply(layer, given)
                except (InvalidInput, ValueError):
                    continue
                if made.size == wanted.size and close(made.reshape(wanted.shape), wanted):
                    return Called(name, act, layer)
    return None


def told_apart(a: Called, b: Called) -> tuple[str, dict[str, Any], str]:
    """What tells two calls apart: (mistake, values, a clause)."""
    if a.activation.config != b.activation.config:
        first, second = (Expression(str(x.activation.config["activation"]),
                               tuple(x.activation.config["activation_options"].items()), ((x.source, 1.0),))
                    for x in (a, b))  # fmt: skip
        return compared(first, second)
    if "crop" in (a.layer.kind, b.layer.kind):
        one, two = _step(a.layer), _step(b.layer)
        return "sequence_step", {"a": one, "b": two}, f"{two} where A takes {one}"
    if a.layer.kind == b.layer.kind:
        for mistake, _, values, note in entries(a.layer, b.layer):
            return mistake, values, note
    if all("pool" in x.layer.kind for x in (a, b)):
        return "pool_kind", {"a": said(a.layer), "b": said(b.layer)}, ""
    return "layer_kind", {"a": said(a.layer), "b": said(b.layer)}, f"B's is {said(b.layer)}"


def _step(layer: LayerDescription) -> str:
    """What is taken of a sequence, in words."""
    if layer.kind != "crop":
        return "the maximum" if "max" in layer.kind else "the mean"
    return "the first step" if layer.config["padding"][0][0] == 0 else "the last step"


def concatenated(
    target: Array, sources: Mapping[str, Array], close: Callable[[Array, Array], bool]
) -> list[str] | None:
    """The sources of which an array is made, one after the other along its features; None where it is not."""
    found: list[str] = []
    at = 0
    while at < target.shape[-1]:
        for name, x in reversed(list(sources.items())):
            width = x.shape[-1] if x.ndim else 0
            fits = x.shape[:-1] == target.shape[:-1] and 0 < width <= target.shape[-1] - at
            if fits and width < target.shape[-1] and close(x, target[..., at : at + width]):
                found.append(name)
                at += width
                break
        else:
            return None
    return found if len(found) > 1 else None
