"""What B's own code, between two layers, made of the same arrays: sums, activations, pools, orders.

Both arrays are explained from what was at hand: the outputs of the layers before. If A's is ``relu(x + y)`` and B's is
``relu(x)``, the sum is missing.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from agnostic.compare.mistakes.relations import ACTIVATIONS, Relation, words
from agnostic.compare.mistakes.trials import activation_difference, entries, said
from agnostic.description import Array, LayerDescription
from agnostic.errors import InvalidInput
from agnostic.reference.activations import VECTOR, activate
from agnostic.reference.layers import apply

SAMPLE = 4096
"""How many numbers are looked at first, where a function works on each by itself."""

NamedFunction = tuple[str, tuple[tuple[str, Any], ...]]
"""An activation by its name and its options."""


@dataclass(frozen=True)
class ScaledActivation:
    """``factor * activation(source)``."""

    source: str
    factor: float = 1.0
    activation: str = "linear"
    options: tuple[tuple[str, Any], ...] = ()

    def compute(self, sources: Mapping[str, Array]) -> Array:
        """Its value."""
        return self.factor * activate(self.activation, sources[self.source], dict(self.options))

    def __str__(self) -> str:
        plain = self.activation == "linear"
        x = self.source if plain else f"{words(self.activation, dict(self.options))}({self.source})"
        return x if abs(self.factor - 1) < 1e-4 else f"{self.factor:.5g} * {x}"


@dataclass(frozen=True)
class Expression:
    """``activation(sum of terms)``."""

    activation: str
    options: tuple[tuple[str, Any], ...]
    parts: tuple[ScaledActivation, ...]

    def compute(self, sources: Mapping[str, Array]) -> Array:
        """Its value."""
        with np.errstate(over="ignore", invalid="ignore"):
            total = np.asarray(sum(x.compute(sources) for x in self.parts))
            return activate(self.activation, total, dict(self.options))

    @property
    def names(self) -> set[str]:
        """Of the sources."""
        return {x.source for x in self.parts}

    def __str__(self) -> str:
        total = " + ".join(map(str, self.parts))
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
                found = Expression(name, tuple(options.items()), tuple(ScaledActivation(n) for n in names))
                if close(found.compute(same), target):
                    return found
    for source, x in reversed(list(same.items())) if target.ndim <= 3 else ():
        for name in ("softmax", "log_softmax"):
            if close(activate(name, x), target):
                return Expression(name, (), (ScaledActivation(source),))
    for one, two in itertools.permutations(reversed(same), 2):
        for name in INNER:
            if close(activate(name, flat[one]) + flat[two], wanted):
                found = Expression("linear", (), (ScaledActivation(one, 1.0, name), ScaledActivation(two)))
                if close(found.compute(same), target):
                    return found
    for names in candidates:
        matrix = np.stack([flat[n] for n in names], axis=1)
        if not np.isfinite(matrix).all() or len(wanted) < 8:
            continue
        factors = np.linalg.lstsq(matrix, wanted, rcond=None)[0]
        if close(matrix @ factors, wanted):
            found = Expression(
                "linear", (), tuple(ScaledActivation(n, float(f)) for n, f in zip(names, factors, strict=True))
            )
            if close(found.compute(same), target):
                return found
    return None


INNER = ("relu", "gelu", "silu", "relu6", "tanh", "sigmoid")
"""Activations that are tried on one part of a sum."""


def _sample(size: int) -> Array:
    if size <= SAMPLE:
        return np.arange(size)
    return np.random.default_rng(0).choice(size, SAMPLE, replace=False)


def compared(a: Expression, b: Expression) -> tuple[str, dict[str, Any], str]:
    """What tells two expressions apart: (mistake, values, a clause)."""
    note = f"A's is {a}, B's is {b}"
    ours, theirs = {x.source: x for x in a.parts}, {x.source: x for x in b.parts}
    values: dict[str, Any] = {"a": str(a), "b": str(b)}
    if ours.keys() != theirs.keys():
        lacking = [n for n in ours if n not in theirs]
        if lacking and not set(theirs) - set(ours):
            return "residual_missing", {**values, "a": lacking[-1]}, note
        return "residual_differs", values, note
    inner = [n for n in ours if (ours[n].activation, ours[n].options) != (theirs[n].activation, theirs[n].options)]
    outer = (a.activation, a.options) != (b.activation, b.options)
    if inner and outer:
        return "layer_order", values, note
    if not inner and any(abs(ours[n].factor - theirs[n].factor) > 1e-4 * abs(ours[n].factor) for n in ours):
        factors = [ours[n].factor / theirs[n].factor for n in ours
                   if theirs[n].factor and abs(ours[n].factor / theirs[n].factor - 1) > 1e-4]  # fmt: skip
        return "scale_missing", {**values, "a": f"{factors[0]:.6g}" if factors else "0"}, note
    if inner:
        one, two = ours[inner[0]], theirs[inner[0]]
        return *activation_difference((one.activation, dict(one.options)), (two.activation, dict(two.options))), note
    return *activation_difference((a.activation, dict(a.options)), (b.activation, dict(b.options))), note


def branches(truth: Array, output: Array, sources: Mapping[str, Array]) -> Iterator[Relation]:
    """What B added too much or too little is one of the sources, times one factor or one per channel."""
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
            yield Relation("scale_missing", truth + x * factors, values={"a": "A's factor per channel"}, note=note)


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
            for scale, (align, half) in itertools.product(_scales(x.shape, shape), _CENTRES):
                cubics = (
                    ((-0.75, "clamp"), (-0.5, "renormalize")) if interpolation == "bicubic" else ((-0.75, "clamp"),)
                )
                for cubic, edges in cubics:
                    yield layer(
                        "resize", interpolation=interpolation, align_corners=align, half_pixel=half, cubic=cubic,
                        edges=edges, size=shape[1:3], scale=scale,
                    )  # fmt: skip
            if interpolation != "nearest" and (shape[1] < x.shape[1] or shape[2] < x.shape[2]):
                for scale in _scales(x.shape, shape):
                    yield layer(
                        "resize", interpolation=interpolation, align_corners=False, half_pixel=True, antialias=True,
                        cubic=-0.5, edges="renormalize", size=shape[1:3], scale=scale,
                    )  # fmt: skip
    if x.ndim == 3 and len(shape) == 2 and shape == (x.shape[0], x.shape[-1]):
        yield layer("crop", padding=((x.shape[1] - 1, 0),))  # the last step alone
        yield layer("crop", padding=((0, x.shape[1] - 1),))


_CENTRES = ((False, True), (True, False), (False, False))


def _scales(before: tuple[int, ...], after: tuple[int, ...]) -> list[float | None]:
    """The factor of the sizes themselves, and those round ones that lead to the same sizes: PyTorch keeps them."""
    found: list[float | None] = [None]
    for factor in (0.5, 0.25, 1 / 3, 2.0, 3.0, 4.0):
        pairs = list(zip(before[1:3], after[1:3], strict=True))
        if all(int(n * factor) == m for n, m in pairs) and any(n * factor != m for n, m in pairs):
            found.append(factor)
    return found


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


Close = Callable[[Array, Array], bool]


@dataclass(frozen=True)
class Called:
    """A layer without weights of an expression, with an activation behind it."""

    before: Expression
    layer: LayerDescription
    after: NamedFunction = ("linear", ())

    def compute(self, sources: Mapping[str, Array]) -> Array:
        """Its value."""
        made = apply(self.layer, self.before.compute(sources))
        return activate(self.after[0], made, dict(self.after[1]))

    def __str__(self) -> str:
        made = f"{said(self.layer)}({self.before})"
        return made if self.after[0] == "linear" else f"{words(self.after[0], dict(self.after[1]))}({made})"


@dataclass(frozen=True)
class Joined:
    """Arrays one after the other along the features."""

    parts: tuple[Expression | Called, ...]

    def __str__(self) -> str:
        return ", ".join(map(str, self.parts))


Made = Expression | Called | Joined

SUMMED = ("average_pool", "global_average_pool", "resize", "crop")
"""Kinds of a sum of which is the sum of theirs."""

RECENT = 6
"""How many of the sources may have gone through a function."""


def functions_of(target: Array, sources: Mapping[str, Array], close: Close) -> list[Called]:
    """The layers without weights, of expressions of the sources, that make an array.

    Pools and resizing take each channel by itself: a few are enough. What a sum of two sources becomes under a linear
    one is the sum of what both become, so that one run of it tells of all pairs.
    """
    few = 8 if target.ndim == 4 else target.shape[-1]
    wanted = target[:2, ..., :few]
    groups: dict[tuple[int, ...], dict[str, Array]] = {}
    for name, x in list(sources.items())[: -RECENT - 1 : -1]:
        narrowed = x[:2, ..., :few] if x.shape[-1] == target.shape[-1] else x[:2]
        groups.setdefault(narrowed.shape, {})[name] = narrowed
    for stage in (_singles, _sums):
        found: list[Called] = []
        for group in groups.values():
            bases = stage(group)
            if not bases:
                continue
            for layer in functions(bases[0][1], wanted.shape):
                for call in _matches(layer, bases, wanted, close):
                    with np.errstate(over="ignore", invalid="ignore"):
                        made = call.compute({n: sources[n] for n in call.before.names})
                    if made.size == target.size and close(made.reshape(target.shape), target):
                        found.append(call)
        if found:
            return sorted(found, key=_unusual)
    return []


def _unusual(call: Called) -> int:
    """How far down the list of activations those of a call stand: of what computes the same the usual one is meant."""
    names = [x for x, _ in ACTIVATIONS]
    used = (call.after[0], call.before.activation, *(x.activation for x in call.before.parts))
    return sum(1 + names.index(x) for x in used if x in names)


Bases = list[tuple[Expression, Array]]


def _singles(group: Mapping[str, Array]) -> Bases:
    found: Bases = []
    for name, options in (("linear", {}), *ACTIVATIONS[:14]):
        if name in VECTOR:
            continue
        for source, x in group.items():
            with np.errstate(over="ignore", invalid="ignore"):
                found.append(
                    (Expression(name, tuple(options.items()), (ScaledActivation(source),)), activate(name, x, options))
                )
    return found


def _sums(group: Mapping[str, Array]) -> Bases:
    """What goes through a function that is not linear, or is activated as a whole."""
    found: Bases = []
    for one, two in itertools.combinations(group, 2):
        for name in ("linear", *INNER):
            whole = Expression(name, (), (ScaledActivation(one), ScaledActivation(two)))
            found.append((whole, whole.compute(group)))
            for first, second in ((one, two), (two, one)) if name != "linear" else ():
                part = Expression("linear", (), (ScaledActivation(first, 1.0, name), ScaledActivation(second)))
                found.append((part, part.compute(group)))
    return found


def _matches(layer: LayerDescription, bases: Bases, wanted: Array, close: Close) -> Iterator[Called]:
    """Which of the bases a layer makes the wanted array of."""
    example = bases[0][1]
    try:
        if apply(layer, example[:1, ..., :1] if example.ndim == 4 else example[:1]).size == 0:
            return
        if example.ndim == 4:
            whole = apply(layer, np.concatenate([x for _, x in bases], axis=-1))
            if whole.size != wanted.size * len(bases):
                return
            made = [x.reshape(wanted.shape) for x in np.split(whole, len(bases), axis=-1)]
        else:
            made = [apply(layer, x) for _, x in bases]
    except (InvalidInput, ValueError):
        return
    if made[0].size != wanted.size:
        return
    made = [x.reshape(wanted.shape) for x in made]
    for (expression, _), x in zip(bases, made, strict=True):
        if close(x, wanted):
            yield Called(expression, layer)
        elif expression.activation == "linear" and layer.kind in SUMMED:
            for name in INNER:
                if close(activate(name, x), wanted):
                    yield Called(expression, layer, (name, ()))
    singles = [i for i, (x, _) in enumerate(bases) if len(x.parts) == 1]
    if layer.kind not in SUMMED or len(singles) < 2:
        return
    direction = np.random.default_rng(0).standard_normal(wanted.size)
    keys = np.asarray([direction @ made[i].ravel() for i in singles])
    gaps = np.abs(keys[:, None] + keys[None, :] - direction @ wanted.ravel())
    for flat in np.argsort(gaps, axis=None)[:8]:
        i, j = (singles[int(k)] for k in np.unravel_index(flat, gaps.shape))
        one, two = bases[i][0], bases[j][0]
        if i < j and one.names != two.names and close(made[i] + made[j], wanted):
            terms = (ScaledActivation(x.parts[0].source, 1.0, x.activation, x.options) for x in (one, two))
            yield Called(Expression("linear", (), tuple(terms)), layer)


def told_apart(a: Made, b: Made) -> tuple[str, dict[str, Any], str] | None:
    """What tells two explanations apart: (mistake, values, a clause); None where that is more than one thing."""
    if isinstance(a, Joined) and isinstance(b, Joined):
        one, two = list(map(str, a.parts)), list(map(str, b.parts))
        if sorted(one) == sorted(two) and one != two:
            return "concatenation_order", {"a": str(a)}, f"{b} where A has {a}"
        differ = [(x, y) for x, y in zip(a.parts, b.parts, strict=False) if str(x) != str(y) or x != y]
        return told_apart(*differ[0]) if len(one) == len(two) and len(differ) == 1 else None
    if isinstance(a, Expression) and isinstance(b, Expression):
        return compared(a, b) if a != b else None
    if not isinstance(a, Called) or not isinstance(b, Called):
        return None
    if a.after != b.after and a.layer == b.layer and a.before == b.before:
        note = f"A's is {a}, B's is {b}"
        return *activation_difference((a.after[0], dict(a.after[1])), (b.after[0], dict(b.after[1]))), note
    if a.layer == b.layer and a.after == b.after and a.before != b.before:
        return compared(a.before, b.before)
    if a.before != b.before or a.after != b.after:
        return None
    if "crop" in (a.layer.kind, b.layer.kind):
        first, second = _step(a.layer), _step(b.layer)
        return "sequence_step", {"a": first, "b": second}, f"{second} where A takes {first}"
    if a.layer.kind == b.layer.kind:
        for mistake, _, values, note in entries(a.layer, b.layer):
            return mistake, values, note
    if all("pool" in x.layer.kind for x in (a, b)):
        return "pool_kind", {"a": said(a.layer), "b": said(b.layer)}, ""
    return "layer_kind", {"a": said(a.layer), "b": said(b.layer)}, f"B's is {said(b.layer)}"


def nearest(ours: Sequence[Called], theirs: Sequence[Called]) -> tuple[Called, Called] | None:
    """Of all ways to make both arrays, the two that are most alike: a 2 x 2 mean is a bilinear halving as well."""
    pairs = itertools.product(ours, theirs)

    def alike(pair: tuple[Called, Called]) -> int:
        a, b = pair
        differing = sum(1 for _ in entries(a.layer, b.layer)) if a.layer.kind == b.layer.kind else 9
        return 10 * (a.before != b.before) + 10 * (a.after != b.after) + differing

    return min((x for x in pairs if told_apart(*x) is not None), key=alike, default=None)


def _step(layer: LayerDescription) -> str:
    """What is taken of a sequence, in words."""
    if layer.kind != "crop":
        return "the maximum" if "max" in layer.kind else "the mean"
    return "the first step" if layer.config["padding"][0][0] == 0 else "the last step"


def joined(target: Array, sources: Mapping[str, Array], close: Close) -> Joined | None:
    """The parts of which an array is put together along its features; None where they are not found.

    Those that are sources, or activated ones, are found where they lie; what is between is a function of sources.
    """
    width, at = target.shape[-1], 0
    bases: Bases = []
    for name, options in (("linear", {}), *ACTIVATIONS[:14]):
        for source, x in reversed(list(sources.items())):
            if x.shape[:-1] == target.shape[:-1] and x.shape[-1] < width and name not in VECTOR:
                with np.errstate(over="ignore", invalid="ignore"):
                    made = activate(name, x, options)
                bases.append((Expression(name, tuple(options.items()), (ScaledActivation(source),)), made))
    placed: dict[int, tuple[Expression, int]] = {}
    while at < width:
        for expression, x in bases:
            size = x.shape[-1]
            if at + size <= width and close(x, target[..., at : at + size]):
                placed[at] = expression, size
                at += size
                break
        else:
            at += 1
    parts: list[Expression | Called] = []
    ends = [0]
    for start, (expression, size) in sorted(placed.items()):
        gap = _gap(target[..., ends[-1] : start], sources, close) if start > ends[-1] else ()
        if gap is None:
            return None
        parts += [*gap, expression]
        ends.append(start + size)
    if placed and ends[-1] < width:
        gap = _gap(target[..., ends[-1] :], sources, close)
        if gap is None:
            return None
        parts += gap
    return Joined(tuple(parts)) if len(parts) > 1 else None


def _gap(target: Array, sources: Mapping[str, Array], close: Close) -> Sequence[Expression | Called] | None:
    expression = explained(target, sources, close)
    if expression is not None:
        return (expression,)
    return functions_of(target, sources, close)[:1] or None
