"""What surrounds a place where two models are compared: what follows in line, what ran before, facts of the models."""

from __future__ import annotations

import functools
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from agnostic.compare.layouts import Layout
from agnostic.compare.mistakes.strays import Stray
from agnostic.compare.recording import Record, Step
from agnostic.description import LayerDescription
from agnostic.reference.activations import FUNCTIONS, activate
from agnostic.reference.layers import explicit_padding

Array = np.ndarray[Any, Any]

SOURCES = 10
"""How many of the arrays before a culprit the diagnosis may look at."""

_FOLLOWING = ("batch_norm", "scale", "activation", "dropout", "other")
"""Kinds that another framework's layer may have inside."""


def alike(shape: Sequence[int], other: Sequence[int]) -> bool:
    """Whether two shapes differ in dimensions of length 1 alone."""
    return tuple(shape) == tuple(other) or [x for x in shape if x != 1] == [x for x in other if x != 1]


def ends_of(a: Record, unmatched: Container[int], i: int) -> list[int]:
    """The calls of A at which a segment that starts at ``i`` may end: those without a partner that follow in line."""
    ends = [i]
    for k in range(i + 1, len(a.steps)):
        step = a.steps[k]
        pointwise = a.steps[k - 1].kind == "depthwise_conv" and step.kind == "conv"
        if k not in unmatched or not step.inputs or not (step.kind in _FOLLOWING or pointwise):
            break
        source = step.inputs[0].source
        if source is None or source[0] != k - 1:
            break
        ends.append(k)
    return ends


def led_in(record: Record, unmatched: Container[int], index: int, shape: Sequence[int]) -> list[int]:
    """The calls without a partner right before a call, from the one on that received an array of a shape.

    A layer with padding of its own stands for a padding layer and one without: their inputs fit at the padding. Empty
    where the call itself received that shape, or nothing before it did.
    """
    found: list[int] = []
    while record.steps[index].inputs:
        slot = record.steps[index].inputs[0]
        if alike(slot.canonical_shape, shape):
            return found
        if slot.source is None or slot.source[0] not in unmatched:
            return []
        index = slot.source[0]
        found.insert(0, index)
    return []


def repadded(x: Array, shape: Sequence[int], ours: LayerDescription, theirs: LayerDescription) -> Iterator[Array]:
    """A's input as B's layer gets it, where one side's code pads and the other's layer does, in whatever way fits.

    Args:
        x: what A's layer received, (N, *spatial, C).
        shape: of what B's layer received.
        ours, theirs: the layers.

    Yields:
        Padded, or cut, as the layer that does it itself says, first; then in other ways of that size. Empty where no
        padding tells the shapes apart.
    """
    kinds = ("conv", "depthwise_conv", "max_pool", "average_pool")
    if ours.kind not in kinds or theirs.kind not in kinds or len(shape) != x.ndim or x.ndim < 3:
        return
    extra = [n - m for n, m in zip(shape[1:-1], x.shape[1:-1], strict=True)]
    if (shape[0], shape[-1]) != (x.shape[0], x.shape[-1]) or not any(extra):
        return
    inside = ours if min(extra) >= 0 else theirs
    smaller = x.shape[1:-1] if inside is ours else tuple(shape[1:-1])
    size: Any = inside.config.get("kernel_size") or inside.config.get("pool_size")
    dilation = inside.config.get("dilation") or (1,) * len(extra)
    pairs = explicit_padding(inside.config["padding"], smaller, size, inside.config["strides"], dilation)
    ways: list[tuple[tuple[int, int], ...]] = (
        [tuple(pairs)] if [sum(p) for p in pairs] == [abs(n) for n in extra] else []
    )
    for low in range(max(map(abs, extra)) + 1):
        way = tuple((min(low, abs(n)), abs(n) - min(low, abs(n))) for n in extra)
        if way not in ways:
            ways.append(way)
    own = "lowest" if inside.kind == "max_pool" else str(inside.config.get("padding_mode") or "zeros")
    every = [(way, mode) for mode in dict.fromkeys((own, *_BORDERS)) for way in ways]
    if inside is ours:
        found = (_bordered(x, way, mode) for way, mode in every)
    else:
        found = (unbordered(x, way, mode) for way, mode in every)
    yield from (x for x in found if x is not None)


IndexPairs = Sequence[tuple[int, int]]

_BORDERS: Mapping[str, Mapping[str, Any]] = {
    "zeros": {"mode": "constant", "constant_values": 0.0},
    "lowest": {"mode": "constant", "constant_values": -np.inf},
    "reflect": {"mode": "reflect"},
    "replicate": {"mode": "edge"},
    "circular": {"mode": "wrap"},
}


def _bordered(x: Array, way: IndexPairs, mode: str) -> Array | None:
    if mode in ("reflect", "circular") and any(max(p) >= n for p, n in zip(way, x.shape[1:-1], strict=True)):
        return None
    made: Array = np.pad(x, ((0, 0), *way, (0, 0)), **_BORDERS[mode])
    return made


def unbordered(x: Array, way: IndexPairs, mode: str) -> Array | None:
    """An array (N, *spatial, C) without a border; None where that is not its border."""
    cut = x[(slice(None), *(slice(low, n - high) for (low, high), n in zip(way, x.shape[1:-1], strict=True)))]
    whole = _bordered(cut, way, mode) if cut.size else None
    return cut if whole is not None and np.array_equal(whole, x) else None


def without_border(x: Array, shape: Sequence[int]) -> Array | None:
    """An array without the border that gives it more height and width than a shape has; None where it has none."""
    extra = [n - m for n, m in zip(x.shape[1:-1], shape[1:-1], strict=True)]
    for low in range(max(extra, default=0) + 1):
        way = [(min(low, n), n - min(low, n)) for n in extra]
        for mode in _BORDERS:
            if min(extra) >= 0 and (cut := unbordered(x, way, mode)) is not None:
                return cut
    return None


@dataclass(frozen=True)
class Inner:
    """An activation inside one side's layer; the other side has it in its code, if at all.

    Attributes:
        side: whose layer it is inside: ``"a"`` or ``"b"``.
        name, options: of the activation, see :func:`agnostic.reference.activations.activate`.
    """

    side: str
    name: str
    options: Mapping[str, Any]

    def __call__(self, x: Array) -> Array:
        with np.errstate(over="ignore", invalid="ignore"):
            made = activate(self.name, np.asarray(x, np.float64), self.options)
        return made.astype(x.dtype) if x.dtype.kind == "f" else made

    @property
    def config(self) -> dict[str, Any]:
        """Of a layer that does this alone."""
        return {"activation": self.name, "activation_options": self.options}


def activated(step: Step, record: Record) -> bool:
    """Whether a layer that is no activation has one inside."""
    config = record.descriptions[step.name].config
    return step.kind != "activation" and config.get("activation", "linear") not in ("linear", None)


def inner_of(a: Record, b: Record, pairs: Mapping[int, int], i: int, j: int, ends: Sequence[int]) -> Inner | None:
    """The activation that one side's layer has inside, and the other side's code must apply, if anything does.

    Args:
        pairs: A's call for each matched call of B.
        i, j: the calls of A and B.
        ends: see :func:`ends_of`.
    """
    ours, theirs = a.descriptions[a.steps[i].name], b.descriptions[b.steps[j].name]
    one, two = activated(a.steps[i], a), activated(b.steps[j], b)
    if one == two or ours.kind != theirs.kind or ours.kind in ("lstm", "gru", "rnn"):
        return None
    if two and any(a.steps[k].kind == "activation" for k in ends):
        return None
    follows = j + 1 < len(b.steps) and j + 1 not in pairs
    if one and follows and b.steps[j + 1].kind == "activation":
        return None
    config = (ours if one else theirs).config
    name, options = str(config["activation"]), dict(config.get("activation_options") or {})
    return Inner("a" if one else "b", name, options) if name in FUNCTIONS else None


class Sources(Mapping[str, Array]):
    """Arrays by name, each read from the trace when it is asked for: together they may not fit into memory."""

    def __init__(self, read: Mapping[str, Callable[[], Array]]) -> None:
        self._read = read

    def __getitem__(self, name: str) -> Array:
        return self._read[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._read)

    def __len__(self) -> int:
        return len(self._read)


def _in_text(label: str) -> str:
    """A layer's name as part of an expression: a number, such as ``"0"``, is quoted."""
    return repr(label) if label[:1].isdigit() else label


def sources(a: Record, before: int) -> Sources:
    """The arrays before a call of A, canonical: the images, the model's input, the last outputs by layer.

    What code made and handed to a layer, such as a sum, is one as well.
    """
    found: dict[str, Callable[[], Array]] = {}
    if before < SOURCES:
        if a.inputs.kind == "images":
            images = a.inputs.arrays["0"]
            found["images"] = lambda: images / np.float32(255) if images.dtype == np.uint8 else images
        for k, slot in enumerate(a.model_inputs):
            found["input" if not k else f"input {k}"] = functools.partial(a.canonical, slot)
    for step in a.steps[max(0, before - SOURCES) : before]:
        for slot in step.inputs[:1]:
            if slot.source is None:
                found[f"the input of {_in_text(step.label)}"] = functools.partial(a.canonical, slot)
        for slot in step.outputs[:1]:
            found[_in_text(step.label)] = functools.partial(a.canonical, slot)
    return Sources(found)


def strays(record: Record, unmatched: Container[int], before: int) -> list[Stray]:
    """The calls without a partner among those shortly before a call."""
    found: list[Stray] = []
    for k in range(max(0, before - SOURCES), before):
        step = record.steps[k]
        if k in unmatched and step.inputs and step.outputs:
            received = tuple(record.canonical(x) for x in step.inputs)
            found.append(Stray(record.description(step.name), received, record.canonical(step.outputs[0])))
    return found


def facts(a: Record, b: Record, before: int, flat: Layout) -> dict[str, Any]:
    """Of both models as wholes; see :class:`agnostic.compare.diagnosis.Culprit`.

    Args:
        before: the call of A at the culprit.
        flat: the layout of what it receives. Where that is flattened, ``flattened`` is (H, W, C): the arrays and the
            descriptions of a culprit count in this order, whatever the framework's own.
    """
    found: dict[str, Any] = {"first": before == 0}
    for which, about in (("a", a.model), ("b", b.model)):
        found[f"{which}_framework"] = about["backend"]
        found[f"{which}_dtype"] = about["dtype"]
        found[f"{which}_training"] = about["training"]
        if about["preprocessing"]:
            found[f"{which}_preprocessing"] = about["preprocessing"]
    if flat.inner:
        letters = (flat.axes or "").partition("(")[2].rstrip(")")
        sizes = dict(zip(letters, flat.inner, strict=True))
        found["flattened"] = tuple(sizes[x] for x in (*(y for y in letters if y != "C"), "C"))
    return found


def reordered(description: LayerDescription, layout: Layout) -> LayerDescription:
    """A layer on flattened inputs with its weights in the canonical order of those inputs."""
    if not layout.inner:
        return description
    weights = {k: reordered_entry(description.kind, x, layout) for k, x in description.weights.items()}
    found: LayerDescription = description.replace(weights=weights)
    return found


def reordered_entry(kind: str, x: Array, layout: Layout) -> Array:
    """One array of a layer's weights, or of their gradients, in that order."""
    size = int(np.prod(layout.inner))
    if not layout.inner or kind not in ("dense", "batch_norm", "layer_norm", "rms_norm", "scale", "normalization"):
        return x
    if not x.ndim or x.shape[0] != size or (x.ndim == 1 and kind == "dense"):
        return x
    rows = layout.to_canonical(np.ascontiguousarray(x.reshape(size, -1).T)).T
    return np.ascontiguousarray(rows).reshape(x.shape)
