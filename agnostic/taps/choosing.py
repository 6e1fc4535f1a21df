"""Selectors as a user gives them, and the layers of a model that they choose."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from numbers import Integral
from typing import Any

from agnostic.contracts.layers import LAYERS
from agnostic.errors import InvalidInput
from agnostic.layers import Layer, Selector, chooses_many, is_glob, select
from agnostic.models.inputs import layers_of, run_layers
from agnostic.registry import Backend, Model

Selectors = Selector | Iterable[Selector]
Chosen = list[tuple[Selector, list[Layer]]]
"""Each selector with the layers that it chooses."""


def as_selectors(backend: Backend, model: Model, selectors: Any) -> list[Any]:
    """Selectors one by one, the model's own layer objects by their names.

    Args:
        selectors: one or several.
    """

    def named(x: Any) -> Any:
        return x if isinstance(x, str | Integral | Layer) else backend[LAYERS].layer_name(model, x) or x

    # A layer object may itself be a sequence of layers.
    one = named(selectors)
    if isinstance(one, str | bytes | Integral | Layer) or not isinstance(one, Iterable):
        return [one]
    try:
        several = list(one)
    except (TypeError, NotImplementedError):  # symbolic tensors, and tensors without axes, refuse it
        return [one]
    return [named(x) for x in several]


def choose(backend: Backend, model: Model, selectors: Selectors, inputs: Any, *, inside_globs: bool = False) -> Chosen:
    """The layers that each selector chooses; they may never run.

    Args:
        selectors: one or several.
        inputs: of the model, which it runs on where a selector is an index, since that counts in execution order; None:
            zeros.
        inside_globs: whether a glob chooses the numbered layers inside of what it matches too: ``blocks.5.2`` inside
            of ``blocks.5``, and not ``blocks.5.2.conv``.

    Raises:
        UnknownName: a selector chooses no layer.
        InvalidInput: there is no selector, or one is of another type.
    """
    asked = as_selectors(backend, model, selectors)
    by_index = any(isinstance(x, Integral) for x in asked)
    listing = _listing(backend, model, inputs) if by_index else backend[LAYERS].tree(model)
    name = type(model).__name__
    if not asked:
        select(listing, asked, model=name)
    chosen = [(selector, select(listing, [selector], model=name)) for selector in asked]
    if not inside_globs:
        return chosen
    return [(selector, _with_numbered(listing, found) if is_glob(selector) else found) for selector, found in chosen]


def _listing(backend: Backend, model: Model, inputs: Any) -> Sequence[Layer]:
    return layers_of(backend, model) if inputs is None else run_layers(backend, model, inputs)


def _with_numbered(listing: Sequence[Layer], found: Sequence[Layer]) -> list[Layer]:
    """Layers, and those whose names continue theirs by numbers only, in the order of the listing."""
    names = {x.name for x in found}

    def within(name: str) -> bool:
        while name not in names:
            name, _, last = name.rpartition(".")
            if not last.isdecimal() or not name:
                return False
        return True

    return [x for x in listing if within(x.name)]


def called(chosen: Chosen, ran: Callable[[Layer], bool]) -> Chosen:
    """Those that ran.

    Args:
        chosen: of :func:`choose`.
        ran: whether a layer did.

    Raises:
        InvalidInput: a layer chosen by its name did not, or none of those that a glob or a kind chooses.
    """
    found: Chosen = []
    for selector, layers in chosen:
        own = [layer for layer in layers if ran(layer)]
        if not own or (len(own) < len(layers) and not chooses_many(selector)):
            layer = next(layer for layer in layers if not ran(layer))
            raise InvalidInput(
                f"layer {layer.name!r} ({layer.kind}) did not run: with these inputs the model does not call it; "
                "agnostic.layers(model) shows how often each layer runs"
            )
        found.append((selector, own))
    return found


def names_of(chosen: Chosen) -> list[str]:
    """The names of all layers, each once."""
    return list(dict.fromkeys(layer.name for _, found in chosen for layer in found))


def keyed(chosen: Chosen) -> dict[str, Layer]:
    """Each layer once, under the name by which it was first asked for: its own, or an alias."""
    keys: dict[str, tuple[str, Layer]] = {}
    for selector, found in chosen:
        for layer in found:
            alias = isinstance(selector, str) and selector in layer.aliases
            keys.setdefault(layer.name, (str(selector) if alias else layer.name, layer))
    return dict(keys.values())
