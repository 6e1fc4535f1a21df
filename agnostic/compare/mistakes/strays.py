"""Layers that one side has, where the other's own code does the same: each of them otherwise, and what follows again.

Keras models have a layer for an activation, a resizing, a sum; PyTorch models write them as code. What the code does is
not known, but what the layers do is: where changing one of them gives what the code made, that is the difference.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from agnostic.compare.mistakes.relations import ACTIVATIONS, evident, words
from agnostic.compare.mistakes.trials import activation_difference, entries, said, variants
from agnostic.description import Array, LayerDescription
from agnostic.errors import InvalidInput
from agnostic.reference.activations import VECTOR, activate
from agnostic.reference.layers import apply

Close = Callable[[Array, Array], bool]


@dataclass(frozen=True)
class Stray:
    """A call of a layer that the other side has no layer for.

    Attributes:
        layer: its description.
        inputs, output: its arrays, channels last.
    """

    layer: LayerDescription
    inputs: tuple[Array, ...]
    output: Array


@dataclass(frozen=True)
class Replay:
    """What came out at the end of a few strays, were one of them otherwise.

    Attributes:
        mistake: a key of the catalogue.
        made: the array that the last of them would have handed on.
        layer: the name of the one that was changed.
        values, note: for the words.
        before: whether it is what the layer was given that was changed.
    """

    mistake: str
    made: Array
    layer: str
    values: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""
    before: bool = False


def replays(
    strays: Sequence[Stray], end: Array, side: Literal["a", "b"], sources: Mapping[str, Array], close: Close
) -> Iterator[Replay]:
    """Every known mistake at each of the strays, in order: what can be done early or late is said of the first.

    Args:
        end: what they handed on: the array in which the two sides differ.
        side: whose layers they are. Of A's, what is made is A with the mistake; of B's, it is B without it.
        sources: what ran before, by name.
    """
    known = [_told(x, close) for x in strays]
    for k in range(len(known)):
        if not _leads(known, k, end):
            continue
        for change in _changes(known, k, side, sources):
            made = _again(known, k, change.made, end, close)
            if made is not None:
                yield dataclasses.replace(change, made=made)


def _told(stray: Stray, close: Close) -> Stray:
    """A stray with a description that is true of it, where there is one: an activation of a function of its own."""
    made = _made(stray.layer, stray.inputs)
    if made is not None and made.shape == stray.output.shape and close(made, stray.output):
        return stray
    if len(stray.inputs) == 1 and np.array_equal(stray.inputs[0].ravel(), stray.output.ravel()):
        # Where the channels are last whatever the framework says, a permutation and a flattening move nothing.
        config: dict[str, Any] = {"shape": stray.output.shape[1:]}
        return dataclasses.replace(stray, layer=LayerDescription(stray.layer.name, "reshape", config))
    function = stray.layer.kind in ("activation", "other")
    if function and len(stray.inputs) == 1 and stray.inputs[0].shape == stray.output.shape:
        for name, options in ACTIVATIONS:
            if name in VECTOR and stray.output.ndim > 3:
                continue
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
                if close(activate(name, stray.inputs[0], options), stray.output):
                    config = {"activation": name, "activation_options": options}
                    return dataclasses.replace(stray, layer=LayerDescription(stray.layer.name, "activation", config))
    kind = "other" if function else "unknown"
    return dataclasses.replace(stray, layer=LayerDescription(stray.layer.name, kind, stray.layer.config))


def _made(layer: LayerDescription, inputs: Sequence[Array]) -> Array | None:
    try:
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            return apply(layer, list(inputs))
    except (InvalidInput, ValueError, KeyError, IndexError, TypeError, ZeroDivisionError):
        return None  # not a layer that is described, or not for such an input


def _same(x: Array, y: Array) -> bool:
    return x.shape == y.shape and np.array_equal(x, y)


def _leads(strays: Sequence[Stray], k: int, end: Array) -> bool:
    """Whether what a stray returned goes into the end, by strays alone."""
    reached = [strays[k].output]
    for later in strays[k + 1 :]:
        if any(_same(x, y) for x in later.inputs for y in reached):
            reached.append(later.output)
    return any(x.size == end.size and np.array_equal(x.ravel(), end.ravel()) for x in reached)


def _again(strays: Sequence[Stray], k: int, new: Array, end: Array, close: Close) -> Array | None:
    """The end, were the output of a stray another; None where a layer on the way is not described."""
    changed = [(strays[k].output, new)]
    for later in strays[k + 1 :]:
        inputs = [next((n for old, n in reversed(changed) if _same(x, old)), x) for x in later.inputs]
        if all(x is y for x, y in zip(inputs, later.inputs, strict=True)):
            continue
        made = _made(later.layer, inputs)
        if made is None:
            return None
        changed.append((later.output, made))
    for old, made in reversed(changed):
        if old.size == end.size and np.array_equal(old.ravel(), end.ravel()):
            return made.reshape(end.shape) if made.size == end.size else made
    return None


def _changes(
    strays: Sequence[Stray], k: int, side: Literal["a", "b"], sources: Mapping[str, Array]
) -> Iterator[Replay]:
    """What a stray would return, were it otherwise."""
    stray, name = strays[k], strays[k].layer.name
    layer, inputs = stray.layer, stray.inputs
    missing, extra = ("missing", "extra") if side == "a" else ("extra", "missing")
    if layer.kind not in ("other", "unknown"):
        for mistake, new, values, note in variants(layer):
            if layer.kind == "activation" and mistake != "softmax_axis":
                continue  # below, by what it computes
            made = _made(new, inputs)
            if made is None:
                continue
            if side == "b" and new.kind == layer.kind:
                mistake, _, values, note = next(entries(new, layer), (mistake, {}, values, note))
            yield Replay(mistake, made, name, values, note)
    first = inputs[0] if inputs else stray.output
    # Left out, before another function: a ReLU of what is positive changes nothing either.
    if len(inputs) == 1 and first.shape == stray.output.shape:
        kind = "activation" if layer.kind == "activation" else "layer"
        mistake = "dropout_on" if layer.config.get("rate") else f"{kind}_{missing}"
        own_name = str(layer.config.get("activation"))
        if side == "b" and kind == "activation" and evident(own_name, first):
            mistake = "activation_doubled"
        yield Replay(mistake, first, name, {"a": said(layer), "b": said(layer)})
    if layer.kind in ("activation", "other") and first.shape == stray.output.shape and len(inputs) == 1:
        own = str(layer.config.get("activation", "another function")), layer.config.get("activation_options") or {}
        for other in _functions(first):
            pair = (own, other) if side == "a" else (other, own)
            mistake, values = activation_difference(*pair)
            note = f"{words(*pair[1])} where A has {words(*pair[0])}"
            yield Replay(mistake, _activated(other, first), name, values, note)
    if layer.kind == "concatenate":
        for order in itertools.islice(itertools.permutations(range(len(inputs))), 1, 24):
            made = _made(layer, [inputs[i] for i in order])
            if made is not None:
                yield Replay("concatenation_order", made, name, {"a": "A's order"})
    if len(inputs) > 1 and layer.kind in ("add", "average", "multiply", "maximum", "subtract"):
        for i in range(len(inputs)):
            rest = [x for n, x in enumerate(inputs) if n != i]
            made = rest[0] if len(rest) == 1 else _made(layer, rest)
            if made is not None and made.shape == stray.output.shape:
                values = {"a": f"one of the inputs of layer {name!r}", "b": name}
                yield Replay("residual_missing" if side == "a" else "residual_differs", made, name, values)
        for kind in ("add", "multiply", "maximum", "subtract"):
            if kind != layer.kind and (made := _made(layer.replace(kind=kind), inputs)) is not None:
                yield Replay("layer_kind", made, name, {"a": layer.kind if side == "a" else kind, "b": kind})
    for before in (True, False):
        x = first if before else stray.output
        if before and (len(inputs) != 1 or layer.kind in ("activation", "other", "unknown")):
            continue
        for other in _functions(x):
            made = _activated(other, x)
            again = None if not before else _made(layer, [made])
            if before and again is None:
                continue
            mistake = f"activation_{extra}"
            if side == "a" and evident(other[0], x):
                mistake = "activation_doubled"
            said_so = {"a": words(*other), "b": words(*other)}
            yield Replay(mistake, made if again is None else again, name, said_so, "", before)
    for source, x in reversed(list(sources.items())):
        if x.shape == stray.output.shape and not _same(x, stray.output):
            mistake = "residual_differs" if side == "a" else "residual_missing"
            yield Replay(mistake, stray.output + x, name, {"a": source, "b": source}, f"{source} is added by one side")


NamedFunction = tuple[str, Mapping[str, Any]]


def _functions(x: Array) -> Iterator[NamedFunction]:
    for name, options in ACTIVATIONS:
        if name not in VECTOR or x.ndim <= 3:
            yield name, options


def _activated(function: NamedFunction, x: Array) -> Array:
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        return activate(function[0], x, function[1])
