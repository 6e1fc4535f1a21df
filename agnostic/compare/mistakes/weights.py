"""How the weights of one layer became another's: turned, swapped, permuted, rounded, left out, or simply others."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from agnostic.description import Array, LayerDescription
from agnostic.reference.rounding import fits, rounded
from agnostic.registry import facts_of

NEGLIGIBLE = 2.0**-22
"""Relative difference below which two float32 weights are the same: one rounding more on the way."""


def differing(a: LayerDescription, b: LayerDescription) -> list[str]:
    """The names of the weights that are not the same in both; a missing one differs."""
    found = []
    for name in {**a.weights, **b.weights}:
        x, y = a.weights.get(name), b.weights.get(name)
        if x is None or y is None or not same(x, y):
            found.append(name)
    return found


def same(x: Array, y: Array) -> bool:
    """Whether two arrays are equal but for a rounding."""
    if x.shape != y.shape:
        return False
    scale = float(np.abs(x).max(initial=0.0))
    return bool(np.abs(x.astype(np.float64) - y).max(initial=0.0) <= NEGLIGIBLE * scale)


def name_of(a: LayerDescription, b: LayerDescription, names: list[str]) -> tuple[str, dict[str, Any], str]:
    """What happened to the weights: (mistake, values for its words, a clause)."""
    for rule in (_missing, _swapped, _statistics, _turned, _gates, _rows, _digits, _scaled, _permuted):
        found = rule(a, b, names)
        if found is not None:
            return found
    return "weights_differ", {}, _how_far(a, b, names)


FoundMistake = tuple[str, dict[str, Any], str] | None


def _how_far(a: LayerDescription, b: LayerDescription, names: list[str]) -> str:
    shown = []
    for name in names:
        x, y = a.weights.get(name), b.weights.get(name)
        if x is None or y is None or x.shape != y.shape:
            shown.append(f"{name} has shape {None if y is None else y.shape}, A's {None if x is None else x.shape}")
        else:
            scale = float(np.abs(x).max(initial=0.0)) or 1.0
            shown.append(f"{name} by {float(np.abs(x - y).max(initial=0.0)) / scale:.1e} of its largest")
    return ", ".join(shown)


_INITIAL = {"moving_mean": 0.0, "moving_variance": 1.0, "gamma": 1.0, "scale": 1.0, "beta": 0.0, "bias": 0.0}


def _missing(a: LayerDescription, b: LayerDescription, names: list[str]) -> FoundMistake:
    """One side's are absent or as they were made, the other's are not."""
    for lacking, note in ((b, ""), (a, "A's are as they were made, B's are not")):

        def absent(name: str, side: LayerDescription = lacking) -> bool:
            y, initial = side.weights.get(name), _INITIAL.get(name.rpartition(".")[2].removeprefix("output_"))
            return initial is not None and (y is None or bool((y == initial).all()))

        if not all(map(absent, names)):
            continue
        values: dict[str, Any] = {"fix": f"Load {b.name}'s weights into A's {a.name} as well."} if note else {}
        plain = {name.rpartition(".")[2].removeprefix("output_") for name in names}
        if plain <= {"moving_mean", "moving_variance"}:
            return "statistics_missing", values, note
        if plain <= {"bias", "beta"}:
            return "bias_missing", values, note
        if plain <= {"gamma", "scale"}:
            return "scale_missing", {"a": "A's factor per channel", **values}, note
        return "weights_differ", values, note or "B's are as they were made"
    return None


def _swapped(a: LayerDescription, b: LayerDescription, names: list[str]) -> FoundMistake:
    for x, y, mistake in (
        ("gamma", "beta", "gamma_beta_swapped"),
        ("moving_mean", "moving_variance", "mean_variance_swapped"),
    ):
        if x not in a.weights or y not in a.weights or x not in b.weights or y not in b.weights:
            continue
        # A mean in a variance's place is made positive by some: the other half is evidence enough.
        one, two = same(a.weights[x], b.weights[y]), same(a.weights[y], b.weights[x])
        if (one and two) or (x == "moving_mean" and (one or two) and set(names) == {x, y}):
            return mistake, {}, ""
    if len(names) > 1 and all(n in a.weights and n in b.weights for n in names):
        for order in itertools.islice(itertools.permutations(names), 24):
            if all(same(a.weights[x], b.weights[y]) for x, y in zip(names, order, strict=True)):
                return "weights_permuted", {}, f"{', '.join(order)} stand where {', '.join(names)} belong"
    return None


def _statistics(a: LayerDescription, b: LayerDescription, names: list[str]) -> FoundMistake:
    if not set(names) <= {"moving_mean", "moving_variance"}:
        return None
    if any(not {"moving_mean", "moving_variance"} <= x.weights.keys() for x in (a, b)):
        return None
    mean_a, mean_b = a.weights["moving_mean"].astype(np.float64), b.weights["moving_mean"].astype(np.float64)
    var_a, var_b = a.weights["moving_variance"].astype(np.float64), b.weights["moving_variance"].astype(np.float64)
    if names == ["moving_variance"]:
        for made, said in ((np.sqrt(var_a), "its root"), (1 / var_a, "its inverse"), (var_a**2, "its square")):
            if np.allclose(made, var_b, rtol=1e-5, atol=0):
                return "variance_convention", {}, f"B has {said}"
        ratio = var_b / var_a
        if np.ptp(ratio) < 1e-5 * abs(ratio.mean()):
            return "variance_convention", {}, f"B's is A's times {ratio.mean():.6g}"
    # From 0 and 1, n steps of a share m lead to (1 - m^n) of the batch's mean, and m^n + (1 - m^n) of its variance.
    one, two = a.config.get("momentum"), b.config.get("momentum")
    if not isinstance(one, float | int) or not isinstance(two, float | int) or one == two:
        one, two = None, None
    usable = np.abs(mean_a) > 1e-3 * np.abs(mean_a).max(initial=0.0)
    if usable.sum() >= 2:
        ratio = mean_b[usable] / mean_a[usable]
        if one is not None and two is not None:
            values = {"a": _native_momentum(float(one), b.framework), "b": _native_momentum(float(two), b.framework)}
            steps = range(1, 200)
            expected = [(1 - two**n) / (1 - one**n) for n in steps if one**n < 1]
            close = any(abs(np.median(ratio) - e) < 0.02 * e for e in expected)
            if close or np.ptp(ratio) < 0.05 * abs(np.median(ratio)):
                return "batch_norm_momentum", values, ""
    return None


def _native_momentum(kept: float, framework: str) -> float:
    return kept if facts_of(framework).momentum_kept else round(1 - kept, 10)


def _turned(a: LayerDescription, b: LayerDescription, names: list[str]) -> FoundMistake:
    """A kernel with its axes swapped or turned round."""
    kernels = [n for n in names if n in a.weights and n in b.weights and a.weights[n].ndim >= 2]
    if not kernels or a.kind == "embedding":
        return None
    name = kernels[0]
    x, y = a.weights[name], b.weights[name]
    if x.shape != y.shape:
        return None
    spatial = tuple(range(x.ndim - 2))
    recurrent = a.kind in ("lstm", "gru", "rnn")
    for axes in _subsets(spatial):
        if same(np.flip(x, axes), y):
            return "kernel_flipped", {}, f"{name} is turned round along {_axes(axes)}"
    if not recurrent:
        if x.ndim > 2 and x.shape[-2] > 1 and same(np.flip(x, x.ndim - 2), y):
            return "channel_order", {}, f"the input channels of {name} are in reverse order"
        for order in itertools.permutations(range(x.ndim)):
            if order != tuple(range(x.ndim)) and x.transpose(order).shape == y.shape and same(x.transpose(order), y):
                return "kernel_transposed", {}, f"the axes of {name} are in the order {order}"
        for order in itertools.permutations(range(x.ndim)):
            # Reshaped where it should have been transposed.
            if order != tuple(range(x.ndim)) and same(np.ascontiguousarray(x.transpose(order)).reshape(x.shape), y):
                return "kernel_transposed", {}, f"{name} was reshaped, not transposed"
            inverse = np.argsort(order)
            shape = tuple(x.shape[k] for k in order)
            if order != tuple(range(x.ndim)) and same(x.reshape(shape).transpose(inverse), y):
                return "kernel_transposed", {}, f"{name} was reshaped, not transposed"
    elif x.shape[0] == x.shape[1] and same(x.T, y):
        return "kernel_transposed", {}, f"{name} is transposed"
    groups = int(a.config.get("groups") or 1)
    outputs = x.shape[-1]
    for g in {groups, *(k for k in range(2, outputs) if a.kind in ("conv", "depthwise_conv") and outputs % k == 0)}:
        if g > 1 and outputs % g == 0:
            mixed = x.reshape(*x.shape[:-1], g, -1).swapaxes(-1, -2).reshape(x.shape)
            if same(mixed, y):
                return "groups", {"a": groups}, f"the outputs of {name} are interleaved by {g}"
            blocks = x.reshape(*x.shape[:-1], g, -1)
            if any(same(np.roll(blocks, s, -2).reshape(x.shape), y) for s in range(1, min(g, 9))):
                return "groups", {"a": groups}, f"the groups of {name} are in another order"
            if same(blocks[..., ::-1, :].reshape(x.shape), y):
                return "groups", {"a": groups}, f"the groups of {name} are in reverse order"
    if a.kind == "depthwise_conv" and x.shape[-1] > 1:
        mixed = x.reshape(*x.shape[:-2], x.shape[-1], x.shape[-2]).swapaxes(-1, -2)
        if same(np.ascontiguousarray(mixed), y):
            return "groups", {"a": "as many as channels"}, "channels and multiplier are swapped"
    return None


def _subsets(axes: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    for n in range(len(axes), 0, -1):
        yield from itertools.combinations(axes, n)


def _axes(axes: tuple[int, ...]) -> str:
    return "axis " + " and ".join(map(str, axes)) if len(axes) == 1 else "axes " + " and ".join(map(str, axes))


_GATES = {"lstm": "ifco", "gru": "zrh"}


def _gates(a: LayerDescription, b: LayerDescription, names: list[str]) -> FoundMistake:
    if a.kind not in _GATES or a.kind != b.kind:
        return None
    letters = _GATES[a.kind]
    name = next((n for n in names if n in a.weights and n in b.weights and n.endswith("kernel")), None)
    name = name or next((n for n in names if n in a.weights and n in b.weights), None)
    if name is None or a.weights[name].shape != b.weights[name].shape:
        return None
    gates = np.split(a.weights[name], len(letters), axis=-1)
    for order in itertools.permutations(range(len(letters))):
        if order != tuple(range(len(letters))) and same(np.concatenate([gates[g] for g in order], -1), b.weights[name]):
            return "gate_order", {}, f"{name} has them in the order {''.join(letters[g] for g in order)}, not {letters}"
    if names == ["bias"] and a.weights["bias"].ndim == 2 and same(a.weights["bias"][::-1], b.weights["bias"]):
        return "weights_permuted", {}, "the two biases are swapped"
    return None


def _rows(a: LayerDescription, b: LayerDescription, names: list[str]) -> FoundMistake:
    """The rows of a kernel in another order: the features before it were flattened otherwise."""
    if "kernel" not in names or a.kind != "dense" or "kernel" not in a.weights or "kernel" not in b.weights:
        return None
    x, y = a.weights["kernel"], b.weights["kernel"]
    if x.shape != y.shape or len(x) < 4:
        return None
    order_x, order_y = np.lexsort(x.T[:3]), np.lexsort(y.T[:3])
    if same(x[order_x], y[order_y]):
        return "flatten_order", {}, "the rows of the kernel are A's in another order"
    return None


def _digits(a: LayerDescription, b: LayerDescription, names: list[str]) -> FoundMistake:
    shared = [n for n in names if n in a.weights and n in b.weights and a.weights[n].shape == b.weights[n].shape]
    if len(shared) != len(names):
        return None
    for dtype in ("bfloat16", "float16", "tf32"):
        for one, two, whose in ((a, b, "the weights"), (b, a, "A's weights")):
            if all(same(rounded(one.weights[n], dtype), two.weights[n]) for n in shared):
                return "dtype", {"b": dtype}, f"{whose} were rounded to {dtype}"
    for dtype in ("bfloat16", "float16"):
        for one, two, whose in ((a, b, "the weights"), (b, a, "A's weights")):
            rough = all(fits(two.weights[n], dtype) for n in shared)
            close = all(np.allclose(one.weights[n], two.weights[n], rtol=2.0**-7, atol=1e-6) for n in shared)
            if rough and close and not all(fits(one.weights[n], dtype) for n in shared):
                return "dtype", {"b": dtype}, f"{whose} were rounded to {dtype}"
    return None


def _scaled(a: LayerDescription, b: LayerDescription, names: list[str]) -> FoundMistake:
    factors = []
    for name in names:
        x, y = a.weights.get(name), b.weights.get(name)
        if x is None or y is None or x.shape != y.shape:
            return None
        square = float(np.vdot(x, x))
        factor = float(np.vdot(x, y)) / square if square else 0.0
        if not factor or not np.allclose(x * factor, y, rtol=1e-5, atol=1e-6 * float(np.abs(y).max(initial=0.0))):
            return None
        factors.append(factor)
    if max(factors) - min(factors) > 1e-4 * abs(factors[0]):
        return None
    return "weights_scaled", {"b": f"{factors[0]:.6g}"}, ""


def _permuted(a: LayerDescription, b: LayerDescription, names: list[str]) -> FoundMistake:
    for name in names:
        x, y = a.weights.get(name), b.weights.get(name)
        if x is None or y is None or x.size != y.size or not same(np.sort(x, axis=None), np.sort(y, axis=None)):
            return None
    if a.kind in ("conv", "dense", "depthwise_conv", "conv_transpose") and "kernel" in names:
        return "kernel_transposed", {}, "the kernel has A's numbers in another order"
    return "weights_permuted", {}, "the numbers are A's"
