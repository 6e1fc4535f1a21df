"""Which weights belong to which, and how the arrays of one side become those of the other.

Whether two slots can belong together is said by their kinds and shapes; whether they do, by their names where all of
them agree, and else by the data: the target runs on what the source was given, and a layer of the target is the layer
of the source that was handed the same input. Order in time and names decide between layers that were handed the same.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from agnostic.transfer.access import Array, WeightGroup
from agnostic.transfer.layouts import flattened_rows

DEFAULTS: Mapping[str, float] = {
    "bias": 0.0, "beta": 0.0, "gamma": 1.0, "scale": 1.0, "moving_mean": 0.0, "moving_variance": 1.0,
}  # fmt: skip
"""What a layer that lacks an entry computes with in its place."""


# Weights ------------------------------------------------------------------------------------------------------------
def converted_weights(source: WeightGroup, target: WeightGroup) -> dict[str, Array] | None:
    """The source's weights as the target's slot holds them, or None where they do not fit.

    An entry that the source lacks gets the number that makes it do nothing, such as a bias of zeros; one that the
    target lacks must be that number already.
    """
    if source.kind != target.kind and {source.kind, target.kind} != {"conv", "dense"}:
        return None
    if folded(source, target):
        source = _without_gamma(source, target)
    found: dict[str, Array] = {}
    for name, wanted in target.weights.items():
        if name in source.weights:
            value = _reshaped(source.weights[name], wanted.shape, target.kind, name)
            if value is None:
                return None
            found[name] = value
        elif (default := _default(name)) is not None:
            found[name] = np.full(wanted.shape, default, wanted.dtype)
        else:
            return None
    for name, value in source.weights.items():
        if name not in target.weights and (_default(name) is None or (value != _default(name)).any()):
            return None
    return found


def folded(source: WeightGroup, target: WeightGroup) -> bool:
    """Whether a batch normalization's gamma goes into its variance, since the target has none: if it is positive."""
    gamma = source.weights.get("gamma")
    if source.kind != "batch_norm" or gamma is None or "gamma" in target.weights or target.kind != "batch_norm":
        return False
    return bool((gamma > 0).all() and (gamma != 1).any())


def _without_gamma(source: WeightGroup, target: WeightGroup) -> WeightGroup:
    """With gamma / sqrt(v + e) = 1 / sqrt(v' + e'), where v' is the new variance and e' the target's epsilon."""
    arrays = {name: x for name, x in source.weights.items() if name != "gamma"}
    gamma = source.weights["gamma"].astype(np.float64)
    variance = (arrays["moving_variance"].astype(np.float64) + source.config["epsilon"]) / gamma**2
    arrays["moving_variance"] = (variance - target.config["epsilon"]).astype(np.float32)
    return replace(source, weights=arrays)


PRODUCTS = ("conv", "depthwise_conv", "conv_transpose", "dense")
"""Kinds whose bias is added at the end, so that it can be taken out of their output again."""


def without_bias(source: WeightGroup, target: WeightGroup) -> WeightGroup | None:
    """The source without its bias, where the target has no place for one; None where that is not what is in the way."""
    if source.kind not in PRODUCTS or "bias" not in source.weights or "bias" in target.weights:
        return None
    return replace(source, weights={name: x for name, x in source.weights.items() if name != "bias"})


def filled(source: WeightGroup, target: WeightGroup) -> tuple[str, ...]:
    """The entries that only the target has, and that got their default."""
    return tuple(name for name in target.weights if name not in source.weights)


def _default(name: str) -> float | None:
    return DEFAULTS.get("bias" if name.endswith("_bias") else name)


def _reshaped(x: Array, shape: tuple[int, ...], kind: str, name: str) -> Array | None:
    """An array in another shape, where there is one sensible way; else None."""
    if x.shape == shape:
        return x
    if name == "alpha":
        return _slopes(x, shape)
    if np.prod(shape) != x.size:
        return None
    squeezed = tuple(n for n in shape if n != 1)
    # Of two kernels of one rank, (1, 7) is not (7, 1).
    product = kind in ("conv", "dense") and x.ndim != len(shape)
    if tuple(n for n in x.shape if n != 1) == squeezed and (kind == "parameter" or product):
        return x.reshape(shape)
    if kind == "parameter" and x.ndim >= 3:  # such as a position embedding of an image, channels first or last
        for moved in (np.moveaxis(x, 1, -1), np.moveaxis(x, -1, 1), np.moveaxis(x, 0, -1), np.moveaxis(x, -1, 0)):
            if tuple(n for n in moved.shape if n != 1) == squeezed:
                return moved.reshape(shape)
    return None


def _slopes(x: Array, shape: tuple[int, ...]) -> Array | None:
    """The slopes of a PReLU: one, one per channel, or one per channel and position, of which many may be the same."""
    by_position = x.reshape(-1, x.shape[-1])
    if x.size > np.prod(shape) and (by_position == by_position[0]).all():
        x = by_position[0]
    if x.size == x.shape[-1]:
        x = x.reshape(-1)
    fits = x.size == 1 or x.shape == shape or (x.ndim == 1 and x.shape == shape[-1:])
    return np.array(np.broadcast_to(x, shape)) if fits else None


# Arrangements -------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Arrangement:
    """How the input of a layer in the source becomes that of its counterpart, and how near the two then are.

    Attributes:
        how: ``"same"``, ``"reshape"``; ``"flatten"``: the features are in another order; ``"pad"``: one of the two was
            padded already; ``"unlike"``: their sizes have nothing to do with each other.
        distance: of the arranged source's input and the target's: the root of the mean square of the difference over
            that of the target's.
        rows: for ``"flatten"``, where the target's features stand among the source's.
        target_padding, source_padding: for ``"pad"``, what was padded before, a pair a spatial axis.
    """

    how: Literal["same", "reshape", "flatten", "pad", "unlike"]
    distance: float
    rows: Array | None = None
    target_padding: tuple[tuple[int, int], ...] = ()
    source_padding: tuple[tuple[int, int], ...] = ()

    def forward(self, x: Array, like: Array) -> Array:
        """What stands in the source's arrangement, in the target's."""
        match self.how:
            case "reshape":
                return x.reshape(like.shape)
            case "flatten":
                return x[..., self.rows]
            case "pad":
                x = x[_inside(x.shape, self.source_padding)]
                return np.pad(x, [(0, 0), *self.target_padding, (0, 0)])
        return x

    def weights(self, kind: str, weights: Mapping[str, Array]) -> dict[str, Array]:
        """A layer's weights with the features that come in in the target's order."""
        if self.rows is None:
            return dict(weights)
        if kind in ("dense", "lstm", "gru", "rnn"):
            return {name: x[self.rows] if name == "kernel" else x for name, x in weights.items()}
        if kind in ("batch_norm", "layer_norm", "rms_norm", "group_norm", "prelu"):
            return {name: x[..., self.rows] for name, x in weights.items()}
        return dict(weights)

    def outputs(self, kind: str) -> Arrangement:
        """The same of the layer's outputs."""
        if self.how == "flatten" and kind in ("batch_norm", "layer_norm", "rms_norm", "group_norm", "prelu"):
            return self
        return SAME


SAME = Arrangement("same", 0.0)
UNLIKE = Arrangement("unlike", float("inf"))


def arranged(source: Array, target: Array, channels: Iterable[int] = ()) -> Arrangement:
    """The arrangement that brings the source's input nearest to the target's.

    Args:
        channels: what the images had that may have been flattened on the way.
    """
    if source.shape == target.shape:
        best = Arrangement("same", relative_distance(source, target))
        if best.distance < 1e-3 or source.ndim > 3:
            return best
        features = source.shape[-1]
        for c in dict.fromkeys(channels):
            if 1 < c < features and features % c == 0:
                order = flattened_rows(c, features // c)
                for rows in (order, np.argsort(order)):
                    d = relative_distance(source[..., rows], target)
                    if d < best.distance / 10:
                        best = Arrangement("flatten", d, rows)
        return best
    if source.size == target.size and source.shape[0] == target.shape[0] and source.shape[-1] == target.shape[-1]:
        return Arrangement("reshape", relative_distance(source.reshape(target.shape), target))
    if source.ndim == target.ndim > 2 and (source.shape[0], source.shape[-1]) == (target.shape[0], target.shape[-1]):
        return _padded(source, target)
    return UNLIKE


def relative_distance(a: Array, b: Array) -> float:
    """The root of the mean square of the difference, over that of ``b``."""
    if a.dtype.kind in "iu" and b.dtype.kind in "iu":
        return float((a != b).mean())
    scale = float(np.sqrt(np.mean(np.square(b, dtype=np.float64))))
    found = float(np.sqrt(np.mean(np.square(a.astype(np.float64) - b)))) / (scale or 1.0)
    return found if np.isfinite(found) else float("inf")


def _padded(source: Array, target: Array) -> Arrangement:
    more = [t - s for s, t in zip(source.shape[1:-1], target.shape[1:-1], strict=True)]
    if not (all(n >= 0 for n in more) or all(n <= 0 for n in more)):
        return UNLIKE
    bigger, smaller = (target, source) if max(more) > 0 else (source, target)
    best = float("inf")
    chosen: tuple[tuple[int, int], ...] = ()
    total = [abs(n) for n in more]
    # Nearly always alike on all axes; so few places are tried: the middle, and either end.
    for place in (lambda n: n // 2, lambda n: 0, lambda n: n, lambda n: n - n // 2):
        pairs = tuple((place(n), n - place(n)) for n in total)
        d = relative_distance(bigger[_inside(bigger.shape, pairs)], smaller)
        if d < best:
            best, chosen = d, pairs
    nothing = ((0, 0),) * len(total)
    if bigger is target:
        return Arrangement("pad", best, None, chosen, nothing)
    return Arrangement("pad", best, None, nothing, chosen)


def _inside(shape: tuple[int, ...], pairs: Sequence[tuple[int, int]]) -> tuple[slice, ...]:
    inner = (slice(low, n - high) for n, (low, high) in zip(shape[1:-1], pairs, strict=True))
    return (slice(None), *inner, slice(None))


# Choice -------------------------------------------------------------------------------------------------------------
def by_name(sources: Sequence[WeightGroup], targets: Sequence[WeightGroup]) -> dict[str, WeightGroup] | None:
    """The source's slot by the target's name, where every slot of the target finds one that fits; else None."""
    known = {_plain(slot.name): slot for slot in sources}
    found = {}
    for target in targets:
        source = known.get(_plain(target.name))
        if source is None or converted_weights(source, target) is None:
            return None
        found[target.name] = source
    return found


def parameters_in_order(sources: Sequence[WeightGroup], targets: Sequence[WeightGroup]) -> dict[str, WeightGroup]:
    """Bare parameters, which no input tells apart: by name, and else the next that fits, in order of registration."""
    left = list(sources)
    found = {}
    for target in targets:
        fitting = [slot for slot in left if converted_weights(slot, target) is not None]
        if not fitting:
            continue
        last = _plain(target.name).rpartition(".")[2]
        same = [slot for slot in fitting if _plain(slot.name).rpartition(".")[2] == last]
        found[target.name] = (same or fitting)[0]
        left.remove(found[target.name])
    return found


def _plain(name: str) -> str:
    return name.replace("/", ".").lower()


@dataclass(frozen=True)
class Candidate:
    """A slot of the source that may be the one, with how its input arrives."""

    slot: WeightGroup
    arrangement: Arrangement
    order: int


def best(target: WeightGroup, candidates: Sequence[Candidate]) -> tuple[Candidate, list[Candidate]]:
    """The one whose input is nearest, and all that were handed the same; names, then order, decide between those."""
    nearest = min(c.arrangement.distance for c in candidates)
    # Inputs that are the same differ by rounding, 1e-6; inputs of two layers by 1e-2 and more.
    alike = [c for c in candidates if c.arrangement.distance <= max(10 * nearest, 1e-4)]
    if nearest > 0.1:  # what came before differs so much that data tells little: then the next in order
        alike = [c for c in candidates if c.arrangement.distance <= 2 * nearest]
    namesakes = [c for c in alike if _plain(c.slot.name) == _plain(target.name)]
    chosen = min(namesakes or alike, key=lambda c: c.order)
    return chosen, alike


def similar(a: str, b: str) -> float:
    """How alike two names are, from 0 to 1."""
    return difflib.SequenceMatcher(None, _plain(a), _plain(b)).ratio()


def widened(arrangement: Arrangement) -> Arrangement:
    """Without the distance, for arrays that are not inputs."""
    return replace(arrangement, distance=0.0)
