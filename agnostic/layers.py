"""Naming and choosing layers: by exact name, alias, glob, index or kind.

A selector is a string, an integer or a layer:

- ``"features.0"``: an exact name, or an alias (``"block1_conv1"`` for the same layer of VGG16)
- ``"blocks.3.*"``: a glob, matched component by component as in a file system: ``*`` stays within one
  dot-separated component, ``**`` crosses them, ``?`` and ``[...]`` as in :mod:`fnmatch`
- ``"kind:Conv2d"``: every layer of that kind (the framework's class name, case-insensitive)
- ``5`` or ``-1``: the index in execution order
- a :class:`Layer`, as :func:`agnostic.layers` lists them; functions that take a model also take the framework's own
  layer objects, such as ``model[0]`` or ``model.get_layer("conv")``
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, SupportsIndex, overload

from agnostic import display
from agnostic.axes import Dimensions, letters
from agnostic.errors import InvalidInput, UnknownName, nearest
from agnostic.text import counted, type_named


@dataclass(frozen=True)
class Layer:
    """One layer of a model, as seen when the model runs.

    Attributes:
        name: the framework's own path, such as ``"features.0"``; every function that takes a layer takes it.
        kind: the framework's class name, such as ``"Conv2d"``.
        shape: shape of the output with None for the batch, in the framework's own layout; None for a layer that
            did not run or whose output is not one array.
        axes: one letter per dimension of ``shape``: N batch, C channel, H height, W width, D depth, L sequence, as in
            ``"NCHW"``; None if ``shape`` is None, if the axes cannot be inferred, or if a dimension has no letter (the
            windows of all images in one dimension, the heads of an attention).
        channels: length of the channel axis; None if there is none.
        parameters: number of scalar parameters in the layer, including its children.
        calls: how often the layer ran in one forward pass; 0 for a layer that did not run.
        aliases: other names that choose this layer.
        flops: floating-point operations of all its calls in that pass, including its children, for the batch
            that the model ran on (one image, if no inputs were given): two per multiply-add of convolutions,
            matrix products, attention and recurrent steps. What costs a few operations per number (activations,
            normalizations, pools, biases, sums, resampling) and embeddings count as 0. None if not known.
        heads: of an attention layer, the number of its heads; None for any other layer.

    Example:
        >>> layer = ag.layers(model)[0]
        >>> layer.name, layer.kind, layer.axes, layer.parameters
        ('conv', 'Conv2d', 'NCHW', 224)
    """

    name: str
    kind: str
    shape: tuple[int | None, ...] | None
    axes: str | None
    channels: int | None
    parameters: int
    calls: int = 1
    aliases: tuple[str, ...] = ()
    flops: int | None = None
    heads: int | None = None

    @property
    def spatial(self) -> bool:
        """Whether the output has channels, a height and a width."""
        return self.axes is not None and set("CHW") <= set(self.axes)


Seen = tuple[tuple[int | None, ...], Dimensions | None]
"""The shape of an array that a layer returned, and its dimensions, None where they are not known."""


def seen_layer(
    name: str, kind: str, seen: Seen | None, parameters: int, calls: int, flops: int | None, heads: int | None = None
) -> Layer:
    """A layer as a run showed it; ``seen`` is None where it returned no array."""
    if seen is None:
        return Layer(name, kind, None, None, None, parameters, calls, flops=flops, heads=heads)
    sizes, axes = seen[0], None if seen[1] is None else letters(seen[1])
    if axes is None:
        return Layer(name, kind, (None, *sizes[1:]), None, None, parameters, calls, flops=flops, heads=heads)
    shape = tuple(None if letter == "N" else size for letter, size in zip(axes, sizes, strict=True))
    channels = sizes[axes.index("C")] if "C" in axes else None
    return Layer(name, kind, shape, axes, channels, parameters, calls, flops=flops, heads=heads)


class Layers(list[Layer]):
    """The layers of a model, in execution order: a list whose ``print`` is a table of all of them.

    Example:
        >>> ag.layers(model)[:3]
        <3 layers: conv (Conv2d), norm (BatchNorm2d), relu (ReLU)>
        >>> print(ag.layers(model, ag.prepare(model, images))[:2])
        name  kind         shape            axes  parameters  FLOPs
        conv  Conv2d       N x 8 x 16 x 16  NCHW  224         221,184
        norm  BatchNorm2d  N x 8 x 16 x 16  NCHW  16          0
    """

    @overload
    def __getitem__(self, index: SupportsIndex) -> Layer: ...
    @overload
    def __getitem__(self, index: slice) -> Layers: ...
    def __getitem__(self, index: Any) -> Layer | Layers:
        found = super().__getitem__(index)
        return Layers(found) if isinstance(index, slice) else found

    def __repr__(self) -> str:
        return f"<{counted(len(self), 'layer')}: {display.listed(f'{x.name} ({x.kind})' for x in self)}>"

    def __str__(self) -> str:
        return display.columns([_TITLES, *map(_cells, self)])

    def _repr_html_(self) -> str:
        return display.table(counted(len(self), "layer"), _TITLES, [_cells(x) for x in self])


_TITLES = ("name", "kind", "shape", "axes", "parameters", "FLOPs")


def _cells(layer: Layer) -> tuple[str, ...]:
    """The cells of a layer's row in the table."""
    shape = "-" if layer.shape is None else " x ".join("N" if n is None else str(n) for n in layer.shape)
    flops = "-" if layer.flops is None else f"{layer.flops:,}"
    return layer.name, layer.kind, shape, layer.axes or "-", f"{layer.parameters:,}", flops


Selector = str | int | Layer
"""A value that chooses layers; see the module's docstring."""


@functools.lru_cache(maxsize=256)
def _glob_pattern(glob: str) -> re.Pattern[str]:
    """A regular expression for a glob whose ``*`` does not cross dots."""
    parts: list[str] = []
    i = 0
    while i < len(glob):
        if glob.startswith("**", i):
            parts.append(".*")
            i += 2
        elif glob[i] == "*":
            parts.append("[^.]*")
            i += 1
        elif glob[i] == "?":
            parts.append("[^.]")
            i += 1
        elif glob[i] == "[" and "]" in glob[i + 2 :]:
            end = glob.index("]", i + 2)
            body = glob[i + 1 : end].replace("\\", "\\\\")
            parts.append("[" + ("^" + body[1:] if body.startswith("!") else body) + "]")
            i = end + 1
        else:
            parts.append(re.escape(glob[i]))
            i += 1
    return re.compile("".join(parts))


def is_glob(selector: Selector) -> bool:
    """Whether a selector may choose several layers by a pattern."""
    return isinstance(selector, str) and any(c in selector for c in "*?[")


def chooses_many(selector: Selector) -> bool:
    """Whether a selector may choose several layers: a glob, or a kind."""
    return is_glob(selector) or (isinstance(selector, str) and selector.startswith("kind:"))


def select(
    layers: Sequence[Layer], selectors: Selector | Iterable[Selector], *, model: str = "the model"
) -> list[Layer]:
    """The layers that the selectors choose, in the order of the selectors, each once.

    Args:
        layers: the layers to choose from, in execution order.
        selectors: one selector or several; see the module's docstring.
        model: the name of the model in errors.

    Raises:
        UnknownName: a selector chooses nothing; the message names the nearest layers.
        InvalidInput: a selector is of another type, or no selector is given.
    """
    if isinstance(selectors, str | bytes) or not isinstance(selectors, Iterable):
        selectors = [selectors]  # type: ignore[list-item]  # other types are refused below
    chosen: dict[str, Layer] = {}
    empty = True
    for selector in selectors:
        empty = False
        for layer in _select_one(layers, selector, model):
            chosen.setdefault(layer.name, layer)
    if empty:
        raise InvalidInput("no layer is given: give a name, a glob, an index or 'kind:Conv2d'")
    return list(chosen.values())


def _select_one(layers: Sequence[Layer], selector: Any, model: str) -> list[Layer]:
    if isinstance(selector, Layer):
        selector = selector.name
    if isinstance(selector, bool) or not isinstance(selector, str | Integral):
        kind = selector if isinstance(selector, bool | float | None) else type_named(selector)
        raise InvalidInput(
            f"a layer is chosen by a name, a glob, an index, 'kind:Conv2d' or a layer of the model, not by {kind}"
        )
    if not isinstance(selector, str):
        if not -len(layers) <= int(selector) < len(layers):
            has = f"{counted(len(layers), 'layer')}, 0 to {len(layers) - 1}" if layers else "no layers"
            raise UnknownName(f"no layer {selector} in {model}: it has {has}")
        return [layers[int(selector)]]
    exact = [layer for layer in layers if layer.name == selector] or [
        layer for layer in layers if selector in layer.aliases
    ]
    if exact:
        return exact[:1]
    if selector.startswith("kind:"):
        kind = selector.removeprefix("kind:").lower()
        found = [layer for layer in layers if layer.kind.lower() == kind]
        if not found:
            kinds = sorted({layer.kind for layer in layers})
            raise UnknownName(f"no layer of kind {selector[5:]!r} in {model}; its kinds are {', '.join(kinds)}")
        return found
    if is_glob(selector):
        pattern = _glob_pattern(selector)
        found = [x for x in layers if any(pattern.fullmatch(name) for name in (x.name, *x.aliases))]
        if found:
            return found
    what = f"matches {selector!r}" if is_glob(selector) else repr(selector)
    raise UnknownName(f"no layer {what} in {model} ({counted(len(layers), 'layer')}){_near(selector, layers)}")


def _near(selector: str, layers: Sequence[Layer]) -> str:
    return nearest(selector, [name for layer in layers for name in (layer.name, *layer.aliases)])
