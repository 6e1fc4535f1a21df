"""The objectives of one layer: its channels and places, directions in it, and the layer as a whole."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from agnostic.errors import InvalidInput
from agnostic.layers import Layer
from agnostic.ops import Array, Ops
from agnostic.text import counted
from agnostic.visualization.objective import OUTPUT, LayerTerm, ModelLookup, Objective, Term, View
from agnostic.visualization.taps import has_positions, no_spatial_output

LEAST = 1e-20
"""A bound inside of roots, whose derivative at zero is infinite: a layer may return only zeros."""


def check_channels(channels: Iterable[int], layer: Layer) -> None:
    """Raise InvalidInput where a layer has no such channels.

    Args:
        channels: their numbers, from 0.
        layer: the layer of the model.
    """
    if layer.channels is None:
        raise InvalidInput(f"layer {layer.name!r} ({layer.kind}) has no channel axis")
    for channel in channels:
        if not 0 <= channel < layer.channels:
            raise InvalidInput(
                f"no channel {channel} in layer {layer.name!r}: it has {layer.channels}, 0 to {layer.channels - 1}"
            )


def check_positions(layer: Layer) -> None:
    """Raise InvalidInput where a layer has no positions.

    Args:
        layer: the layer of the model.
    """
    if not has_positions(layer.axes):
        raise no_spatial_output(layer.name, layer.axes, layer.shape)


@dataclass(frozen=True, repr=False)
class _Channels(LayerTerm):
    """A term of one channel per image.

    Attributes:
        channels: one per image, 0 .. channels of the layer - 1.
    """

    numbers = frozenset({"channels"})

    channels: tuple[int, ...]

    @property
    def count(self) -> int:
        return len(self.channels)

    def arrays(self) -> tuple[npt.NDArray[Any], ...]:
        return (np.asarray(self.channels, np.int64),)


@dataclass(frozen=True, repr=False)
class Channel(_Channels):
    """The mean of one channel per image over all positions: of an image, a row or a volume, or the patches' tokens.

    Attributes:
        channels: one per image, 0 .. channels of the layer - 1.

    Source: Olah, Mordvintsev, Schubert, "Feature Visualization", Distill, 2017, section "Optimization Objectives".

    Example:
        >>> ag.objectives.channel("conv", [3, 5]).labels()
        ('conv:3', 'conv:5')
    """

    def labels(self) -> tuple[str, ...]:
        return tuple(f"{self.layer}:{c}" for c in self.channels)

    def check(self, layer: Layer) -> None:
        check_positions(layer)
        check_channels(self.channels, layer)

    def score(self, ops: Ops, view: View) -> Array:
        index, number = next(view.arrays)
        return view.taps[str(self.layer)].channel_mean(ops, index, number)


@dataclass(frozen=True, repr=False)
class Neuron(_Channels):
    """One channel at one position, or one unit of a layer without positions.

    Attributes:
        channels: one per image, 0 .. channels of the layer - 1.
        position: (row, column) in the layer's output, or in the grid of its patches; (position,) in a row, also of
            patches, and (depth, row, column) in a volume; None: the centre.

    Source: "Feature Visualization", Distill, 2017, section "Optimization Objectives".

    Example:
        >>> ag.objectives.neuron("conv", 3, (0, 7)).labels()
        ('conv:3@0,7',)
    """

    position: tuple[int, ...] | None

    def labels(self) -> tuple[str, ...]:
        at = "" if self.position is None else f"@{','.join(map(str, self.position))}"
        return tuple(f"{self.layer}:{c}{at}" for c in self.channels)

    def check(self, layer: Layer) -> None:
        check_channels(self.channels, layer)
        if self.position is not None:
            check_positions(layer)

    def score(self, ops: Ops, view: View) -> Array:
        (index,) = next(view.arrays)
        tap = view.taps[str(self.layer)]
        values = tap.channels(ops, index)
        return values[:, tap.number(ops, self.position)] if has_positions(tap.axes) else ops.mean(values, axis=1)


@dataclass(frozen=True, repr=False)
class Position(LayerTerm):
    """The mean square of all channels at one position: what the layer says of that place.

    Attributes:
        position: as of :class:`Neuron`.

    Source: Olah et al., "The Building Blocks of Interpretability", Distill, 2018, section "Spatial activations".

    Example:
        >>> ag.objectives.position("conv", (0, 7)).labels()
        ('conv@0,7',)
    """

    position: tuple[int, ...] | None

    def labels(self) -> tuple[str, ...]:
        at = "centre" if self.position is None else ",".join(map(str, self.position))
        return (f"{self.layer}@{at}",)

    def check(self, layer: Layer) -> None:
        check_positions(layer)

    def score(self, ops: Ops, view: View) -> Array:
        next(view.arrays)
        tap = view.taps[str(self.layer)]
        return ops.mean(ops.square(tap.positions(ops)[:, :, tap.number(ops, self.position)]), axis=1)


@dataclass(frozen=True, repr=False)
class Token(_Channels):
    """One token of a layer that returns a row of them: one of its channels per image, or all of them.

    Attributes:
        channels: one per image; empty for the mean square of all.
        token: its number, from 0; ``"class"`` for the first of those that stand for no patch.

    Source: Ghiasi et al., "What do Vision Transformers Learn? A Visual Exploration", 2022, section 3.

    Example:
        >>> ag.objectives.token("blocks.11", "class", [3, 5]).labels()
        ('blocks.11:3@class token', 'blocks.11:5@class token')
    """

    token: int | str

    def form(self) -> Hashable:
        return super().form(), bool(self.channels)

    @property
    def count(self) -> int:
        return max(1, len(self.channels))

    def arrays(self) -> tuple[npt.NDArray[Any], ...]:
        return super().arrays() if self.channels else ()

    def labels(self) -> tuple[str, ...]:
        at = f"@{self.token} token" if isinstance(self.token, str) else f"@token {self.token}"
        return tuple(f"{self.layer}:{c}{at}" for c in self.channels) or (f"{self.layer}{at}",)

    def check(self, layer: Layer) -> None:
        check_channels(self.channels, layer)
        if layer.axes is None or sorted(layer.axes) != sorted("NLC"):
            raise InvalidInput(
                f"layer {layer.name!r} ({layer.kind}) returns no row of tokens (axes {layer.axes}): choose a block or "
                "a normalization of a transformer, or neuron(...) and position(...) for places of convolutions"
            )
        tokens = layer.shape[layer.axes.index("L")] if layer.shape else None
        if isinstance(self.token, int) and tokens is not None and not 0 <= self.token < tokens:
            raise InvalidInput(f"no token {self.token} in layer {layer.name!r}: it has {tokens}, 0 to {tokens - 1}")

    def score(self, ops: Ops, view: View) -> Array:
        chosen = next(view.arrays)
        tap = view.taps[str(self.layer)]
        if self.token == "class" and (tap.grid is None or not tap.grid[2]):
            raise InvalidInput(
                f"layer {tap.layer!r} has no class token: its tokens are patches; give the number of a token"
            )
        value = tap.canonical(ops)[:, :, 0 if isinstance(self.token, str) else self.token]
        if not chosen:
            return ops.mean(ops.square(value), axis=1)
        rows = ops.shape(value)[0]
        return ops.reshape(ops.take_along_axis(value, ops.reshape(chosen[0], (rows, 1)), 1), (rows,))


@dataclass(frozen=True, repr=False)
class Head(LayerTerm):
    """The mean square of what one head of an attention computes, one head per image.

    Attributes:
        heads: one per image, from 0.
        number: of all heads that the layer has side by side; 0 for those of an attention layer, which knows it.

    Source: Olah et al. (see :class:`Channel`) for a group of channels; Vaswani et al., "Attention Is All You Need",
    2017, section 3.2.2, for the order of heads.

    Example:
        >>> ag.objectives.head("blocks.3.attn.norm", [0, 5], 12).labels()
        ('blocks.3.attn.norm:head 0', 'blocks.3.attn.norm:head 5')
    """

    numbers = frozenset({"heads"})

    heads: tuple[int, ...]
    number: int

    @property
    def count(self) -> int:
        return len(self.heads)

    def labels(self) -> tuple[str, ...]:
        return tuple(f"{self.layer}:head {h}" for h in self.heads)

    def arrays(self) -> tuple[npt.NDArray[Any], ...]:
        return (np.asarray(self.heads, np.int64),)

    def resolve(self, model: ModelLookup) -> Objective:
        found = model.layer(self.layer)
        if not found.calls:
            return super().resolve(model)  # which says so
        number = self.number or found.heads
        if not number:
            raise InvalidInput(
                f"layer {found.name!r} ({found.kind}) is no attention that is known: say how many heads are side by "
                "side in what it returns, head(layer, index, heads)"
            )
        if not max(self.heads) < number:
            raise InvalidInput(f"no head {max(self.heads)} in layer {found.name!r}: it has {number}, from 0")
        resolved = dataclasses.replace(self, layer=found.name, number=number)
        resolved.check(found)
        return resolved

    def check(self, layer: Layer) -> None:
        if layer.heads is not None:
            if layer.heads != self.number:
                raise InvalidInput(f"layer {layer.name!r} has {layer.heads} heads, not {self.number}: leave it out")
        elif layer.channels is None:
            self._axis(layer.name, tuple(n or 0 for n in layer.shape or ()))
        elif layer.channels % self.number:
            raise InvalidInput(
                f"the {layer.channels} channels of layer {layer.name!r} are not those of {self.number} heads side "
                "by side"
            )

    def _axis(self, layer: str, shape: tuple[int, ...]) -> int:
        """Which axis is that of the heads, where no channels are known."""
        found = [i for i, n in enumerate(shape) if i and n == self.number]
        if len(found) != 1:
            raise InvalidInput(
                f"layer {layer!r} returns {shape}, in which no one axis is that of {self.number} heads: choose the "
                "projection of the queries, keys or values, or what goes into the output's projection"
            )
        return found[0]

    def score(self, ops: Ops, view: View) -> Array:
        (index,) = next(view.arrays)
        tap = view.taps[str(self.layer)]
        if "C" in tap.axes:
            value = tap.canonical(ops)
            rows = ops.shape(value)[0]
            value = ops.reshape(value, (rows, self.number, -1))
        else:
            shape = ops.shape(tap.value)
            axis, rows = self._axis(tap.layer, tuple(shape)), shape[0]
            order = [0, axis, *(i for i in range(1, len(shape)) if i != axis)]
            value = ops.reshape(ops.transpose(tap.value, order), (rows, self.number, -1))
        squares = ops.mean(ops.square(value), axis=2)
        return ops.reshape(ops.take_along_axis(squares, ops.reshape(index, (rows, 1)), 1), (rows,))


@dataclass(frozen=True, repr=False)
class Logit(LayerTerm):
    """One output of the model before any softmax, one class per image.

    Attributes:
        classes: numbers, or names before they are resolved.
        called: the name of each class; empty if only the model's card knows it.

    Source: Simonyan, Vedaldi, Zisserman, "Deep Inside Convolutional Networks", 2014, section 2.

    Example:
        >>> ag.objectives.logit(["zebra", 2]).labels()
        ('zebra', 'class 2')
    """

    before_softmax = True
    numbers = frozenset({"classes", "called"})

    classes: tuple[int | str, ...]
    called: tuple[str, ...] = dataclasses.field(default=(), repr=False, compare=False)

    @property
    def count(self) -> int:
        return len(self.classes)

    def labels(self) -> tuple[str, ...]:
        return self.called or tuple(c if isinstance(c, str) else f"class {c}" for c in self.classes)

    def arrays(self) -> tuple[npt.NDArray[Any], ...]:
        return (np.asarray(self.classes, np.int64),)

    def resolve(self, model: ModelLookup) -> Objective:
        found = [model.class_(c) for c in self.classes]
        chosen = dataclasses.replace(self, classes=tuple(n for n, _ in found), called=tuple(name for _, name in found))
        return chosen if self.layer == OUTPUT else LayerTerm.resolve(chosen, model)

    def check(self, layer: Layer) -> None:
        check_channels((int(c) for c in self.classes), layer)

    def score(self, ops: Ops, view: View) -> Array:
        (index,) = next(view.arrays)
        tap = view.taps[str(self.layer)].before_softmax()
        outputs = ops.shape(tap.value)[tap.axes.index("C")]
        for wanted in self.classes:
            if not 0 <= int(wanted) < outputs:
                raise InvalidInput(f"no class {wanted}: the model has {counted(outputs, 'output')}, 0 to {outputs - 1}")
        return ops.mean(tap.channels(ops, index), axis=1)


@dataclass(frozen=True, eq=False, repr=False)
class Direction(LayerTerm):
    """The mean over positions of the dot product of the activation vector with a given vector, one vector per image.

    Attributes:
        vectors: (images, channels) float64.
        called: the name of each vector; empty to number them.

    Source: "Feature Visualization", Distill, 2017, section "Interaction between Neurons".

    Example:
        >>> ag.objectives.direction("conv", np.ones((2, 8))).count
        2
    """

    what: ClassVar[str] = "direction"
    numbers = frozenset({"vectors", "called"})

    vectors: npt.NDArray[np.float64]
    called: tuple[str, ...] = ()

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())

    def _identity(self) -> tuple[Any, ...]:
        return self.layer, self.vectors.shape, self.vectors.tobytes(), self.called

    @property
    def count(self) -> int:
        return len(self.vectors)

    def labels(self) -> tuple[str, ...]:
        names = self.called or tuple(f"{self.what} {i}" for i in range(self.count))
        return tuple(f"{self.layer}:{name}" for name in names)

    def arrays(self) -> tuple[npt.NDArray[Any], ...]:
        return (self.vectors,)

    def check(self, layer: Layer) -> None:
        if layer.channels != self.vectors.shape[1]:
            raise InvalidInput(
                f"a direction in layer {layer.name!r} has {layer.channels} components, not {self.vectors.shape[1]}"
            )

    def score(self, ops: Ops, view: View) -> Array:
        (vectors,) = next(view.arrays)
        value = ops.mean(view.taps[str(self.layer)].positions(ops), axis=2)
        return ops.sum(value * ops.cast(vectors, ops.dtype(value)), axis=1)


@dataclass(frozen=True, eq=False, repr=False)
class Cosine(Direction):
    """The mean over positions of the cosine of the activation vector and a given vector, one vector per image.

    Attributes:
        vectors: (images, channels) float64, none of them zero.
        called: the name of each vector; empty to number them.

    Source: Carter et al., "Activation Atlas", Distill, 2019, section "Feature visualization", whose objective is the
    product of this and :class:`Direction`.

    Example:
        >>> ag.objectives.cosine("conv", np.eye(8)[:2]).labels()
        ('conv:cosine 0', 'conv:cosine 1')
    """

    what: ClassVar[str] = "cosine"

    def score(self, ops: Ops, view: View) -> Array:
        (vectors,) = next(view.arrays)
        value = view.taps[str(self.layer)].positions(ops)
        vectors = ops.cast(vectors, ops.dtype(value))
        dot = ops.sum(value * vectors[:, :, None], axis=1)
        squares = ops.sum(ops.square(value), axis=1) * ops.sum(ops.square(vectors), axis=1, keepdims=True)
        return ops.mean(dot / ops.sqrt(ops.maximum(squares, LEAST)), axis=1)


@dataclass(frozen=True)
class DeepDream(LayerTerm):
    """The mean square of a whole layer: strengthens what the layer already sees.

    Source: Mordvintsev, Olah, Tyka, "Inceptionism", 2015, and the code published with it.

    Example:
        >>> ag.objectives.deepdream("conv").labels()
        ('conv:deepdream',)
    """

    def labels(self) -> tuple[str, ...]:
        return (f"{self.layer}:deepdream",)

    def score(self, ops: Ops, view: View) -> Array:
        next(view.arrays)
        return ops.mean(ops.square(view.taps[str(self.layer)].canonical(ops)), axis=(1, 2))


@dataclass(frozen=True)
class Diversity(LayerTerm):
    """Minus the mean cosine similarity of an image's channel correlations with those of the other images.

    Every view of an image is compared with every view of every other image.

    Source: "Feature Visualization", section "Diversity"; the correlations are Gatys' Gram matrices.

    Example:
        >>> ag.objectives.diversity("conv").coupled
        True
    """

    couples = True

    def labels(self) -> tuple[str, ...]:
        return (f"{self.layer}:diversity",)

    def score(self, ops: Ops, view: View) -> Array:
        next(view.arrays)
        value = view.taps[str(self.layer)].canonical(ops)
        rows, channels, _ = ops.shape(value)
        images = rows // view.views
        if images < 2:
            raise InvalidInput("diversity compares images with one another: ask for at least two")
        gram = ops.reshape(ops.einsum("rcp,rdp->rcd", value, value), (images, view.views, channels * channels))
        gram = gram / ops.sqrt(ops.maximum(ops.sum(ops.square(gram), axis=2, keepdims=True), LEAST))
        # A mean of cosines is one cosine with a mean, so no table of all pairs of views is needed.
        mean = ops.mean(gram, axis=1)
        others = (ops.sum(mean, axis=0, keepdims=True) - mean) / (images - 1)
        return -ops.reshape(ops.einsum("nvk,nk->nv", gram, others), (rows,))


@dataclass(frozen=True)
class Aligned(LayerTerm):
    """Minus the mean square difference of a layer between neighbouring images, relative to the layer's mean square.

    Source: Mordvintsev et al., "Differentiable Image Parameterizations", Distill, 2018, section "Aligned Feature
    Visualization Interpolation".

    Example:
        >>> ag.objectives.alignment("conv").coupled
        True
    """

    couples = True
    starts_alike = True

    def labels(self) -> tuple[str, ...]:
        return (f"{self.layer}:alignment",)

    def score(self, ops: Ops, view: View) -> Array:
        next(view.arrays)
        value = view.taps[str(self.layer)].canonical(ops)
        images = ops.shape(value)[0] // view.views
        if images < 2:
            raise InvalidInput("alignment compares an image with its neighbours: ask for at least two")
        mean = ops.mean(ops.reshape(value, (images, view.views, -1)), axis=1)
        whole = ops.maximum(ops.stop_gradient(ops.mean(ops.square(mean))), LEAST)
        steps = ops.mean(ops.square(mean[1:] - mean[:-1]), axis=1) / whole
        none = steps[:1] * 0
        inner = ops.concatenate([none, steps]) + ops.concatenate([steps, none])
        neighbours = np.full(images, 2.0)
        neighbours[[0, -1]] = 1.0
        return -ops.repeat(inner / ops.asarray(neighbours, ops.dtype(inner)), view.views, 0)


@dataclass(frozen=True)
class TotalVariation(Term):
    """The mean absolute difference of neighbouring pixels; with a negative factor it smooths the image.

    Source: Mahendran, Vedaldi, "Understanding Deep Image Representations by Inverting Them", 2015.

    Example:
        >>> ag.objectives.total_variation().labels()
        ('total variation',)
    """

    def labels(self) -> tuple[str, ...]:
        return ("total variation",)

    def score(self, ops: Ops, view: View) -> Array:
        next(view.arrays)
        x = view.pixels
        down = ops.mean(ops.abs(x[:, 1:] - x[:, :-1]), axis=(1, 2, 3))
        return down + ops.mean(ops.abs(x[:, :, 1:] - x[:, :, :-1]), axis=(1, 2, 3))


@dataclass(frozen=True)
class Opacity(Term):
    """The mean alpha of the whole image, whatever part of it a view shows.

    Source: Mordvintsev et al., "Differentiable Image Parameterizations", Distill, 2018, section "Transparency".

    Example:
        >>> ag.objectives.opacity().labels()
        ('opacity',)
    """

    sees_alpha = True

    def labels(self) -> tuple[str, ...]:
        return ("opacity",)

    def score(self, ops: Ops, view: View) -> Array:
        next(view.arrays)
        return view.opacity
