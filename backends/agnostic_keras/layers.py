"""Naming the layers of a Keras model, and telling the axes of their outputs. See :mod:`agnostic.layers`.

A layer's name is the names from the model to it, joined by dots: ``"encoder.conv1"`` is the layer ``conv1`` of the
model ``encoder`` inside the model. Two siblings of one name, which a subclassed model may have, are told apart by
``#2``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import keras

from agnostic.layers import Layer, Seen, seen_layer
from agnostic.models.aliases import aliases_of
from agnostic.models.attached import card_of
from agnostic_keras.axes import Following
from agnostic_keras.flops import flops


def named_layers(model: keras.Layer) -> dict[str, keras.Layer]:
    """Every layer inside a model by its first name, in the order of registration; not the model, not its inputs."""
    found: dict[str, keras.Layer] = {}
    _collect(model, "", found, {id(model)})
    return found


def _collect(parent: keras.Layer, prefix: str, found: dict[str, keras.Layer], seen: set[int]) -> None:
    for layer in _children(parent):
        if id(layer) in seen or isinstance(layer, keras.layers.InputLayer):
            continue
        seen.add(id(layer))
        name, number = prefix + layer.name, 2
        while name in found:
            name, number = f"{prefix}{layer.name}#{number}", number + 1
        found[name] = layer
        _collect(layer, f"{name}.", found, seen)


def _children(layer: keras.Layer) -> Iterator[keras.Layer]:
    # Public for models alone, though every layer keeps the layers that are its attributes.
    yield from layer.layers if isinstance(layer, keras.Model) else layer._flatten_layers(False, False)


def tree(model: keras.Layer) -> list[Layer]:
    """The layers as they are registered, without running the model."""
    layers = [
        Layer(name, type(layer).__name__, None, None, None, _size(layer), calls=0)
        for name, layer in named_layers(model).items()
    ]
    return _with_aliases(model, layers)


def _size(layer: keras.Layer) -> int:
    # Running statistics are variables in Keras, and buffers, not parameters, elsewhere. A frozen layer has all its
    # parameters still: so each variable is asked what it was made as.
    owners = (layer, *layer._flatten_layers(False, True))
    trainable = {id(v): v for owner in owners for v in owner._trainable_variables}
    return sum(math.prod(v.shape) for v in trainable.values())


def _with_aliases(model: keras.Layer, layers: list[Layer]) -> list[Layer]:
    card = card_of(model)
    parents = {x.name.rpartition(".")[0] for x in layers}
    leaves = [(x.name, x.kind) for x in layers if x.name not in parents]
    known = dict(aliases_of(f"{type(model).__module__}.{type(model).__qualname__}", leaves))
    if card is not None:
        known |= card.aliases
    taken = {x.name for x in layers}
    return [
        Layer(
            x.name, x.kind, x.shape, x.axes, x.channels, x.parameters, x.calls,
            tuple(alias for alias in known.get(x.name, ()) if alias not in taken), x.flops, x.heads,
        )
        for x in layers
    ]  # fmt: skip


def layer_name(model: keras.Layer, layer: Any) -> str | None:
    """See :meth:`agnostic.contracts.layers.LayerTree.layer_name`."""
    return next((name for name, x in named_layers(model).items() if x is layer), None)


def expected(model: keras.Layer, layer: str | None) -> str | None:
    """See :meth:`agnostic.contracts.layers.LayerTree.expected`: what the input_spec, or the model's inputs, declare."""
    return _declared(model if layer is None else named_layers(model)[layer])


def _declared(layer: keras.Layer) -> str | None:
    declared = getattr(layer, "inputs", None)
    if declared:
        found = [f"{keras.backend.standardize_dtype(x.dtype)} {tuple(x.shape)}" for x in declared]
        return ", ".join(found)
    spec = layer.input_spec
    if spec is None or isinstance(spec, list | tuple):
        return None
    if spec.shape is not None:
        return str(tuple(spec.shape))
    rank = spec.ndim or max([spec.min_ndim or 0, *(axis + 1 for axis in (spec.axes or {}) if axis >= 0)])
    sizes: list[Any] = [None] * rank
    for axis, size in (spec.axes or {}).items():
        if -rank <= axis < rank:
            sizes[axis] = size
    return ("" if spec.ndim else "at least ") + f"{rank} dimensions, {tuple(sizes)}"


class Listing:
    """Watches one forward pass and tells the layers in the order in which they first ran."""

    def __init__(self, model: keras.Layer) -> None:
        self.model = model
        self.modules = named_layers(model)
        self.calls: dict[str, int] = {}
        """How often each layer was called."""
        self._shapes: dict[str, Seen | None] = {}
        self._open: list[tuple[str, int, int]] = []
        # What has been counted so far, and by layer; None where it is not known.
        self._total = 0
        self._unknown = 0
        self._spent: dict[str, int | None] = {}
        self.axes = Following()

    def enter(self, name: str) -> None:
        """A layer is being called."""
        self.calls[name] = self.calls.get(name, 0) + 1
        self._open.append((name, self._total, self._unknown))

    def leave(self, name: str, inputs: Any, output: Any) -> None:
        """A layer returned."""
        # A call that failed, and whose error the model caught, never came here.
        while self._open:
            top, total, unknown = self._open.pop()
            if top == name:
                self._count(name, flops(self.modules[name], inputs, output), total, unknown)
                break
        if isinstance(self.modules[name], keras.layers.RNN | keras.layers.Bidirectional):
            self.axes.recurrent(next(iter(keras.tree.flatten(inputs)), None), output)
        if not hasattr(output, "shape"):
            self._shapes.setdefault(name, None)
            return
        sizes = tuple(output.shape)
        self._shapes.setdefault(name, (sizes, self.axes.of(output)))

    def _count(self, name: str, own: int | None, total: int, unknown: int) -> None:
        """Count what a call cost, and what ran inside it since there were ``total`` operations."""
        self._total += own or 0
        self._unknown += own is None
        before = self._spent.get(name, 0)
        known = before is not None and self._unknown == unknown
        self._spent[name] = (before or 0) + self._total - total if known else None

    def layers(self) -> list[Layer]:
        """In the order of the first call; those that did not run follow. A call that never returned does not count."""
        for name, *_ in self._open:
            self.calls[name] -= 1
            if not self.calls[name]:
                del self.calls[name]
        self._open.clear()
        self.axes.ended()
        order = [*self.calls, *(name for name in self.modules if name not in self.calls)]
        return _with_aliases(self.model, [self._layer(name) for name in order])

    def _layer(self, name: str) -> Layer:
        layer, seen = self.modules[name], self._shapes.get(name)
        spent = self._spent.get(name)
        kind, parameters, calls = type(layer).__name__, _size(layer), self.calls.get(name, 0)
        return seen_layer(name, kind, seen, parameters, calls, spent, _heads(layer))


def _heads(layer: keras.Layer) -> int | None:
    """The number of heads of an attention."""
    if isinstance(layer, keras.layers.GroupQueryAttention):
        return int(layer.num_query_heads)
    return int(layer.num_heads) if isinstance(layer, keras.layers.MultiHeadAttention) else None
