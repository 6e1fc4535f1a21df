"""What an image maximizes. Objectives are values: add, scale, multiply and print them.

``channel("blocks.3.0", range(64))`` is a batch of 64 objectives, one image each. Combined with an objective for one
image, that one applies to all: ``channel("conv", range(8)) + 0.1 * deepdream("blocks.3")``.

The definitions follow Olah, Mordvintsev, Schubert, "Feature Visualization", Distill 2017, doi:10.23915/distill.00007.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from agnostic import display
from agnostic.errors import InvalidInput
from agnostic.layers import Layer
from agnostic.ops import Array, Ops
from agnostic.text import counted, with_article
from agnostic.visualization.taps import TapsByName, no_spatial_output, without_axes

__all__ = [
    "OUTPUT",
    "Channel",
    "Constant",
    "DeepDream",
    "Direction",
    "Diversity",
    "FindClass",
    "LayerTerm",
    "Logit",
    "Neuron",
    "Objective",
    "Product",
    "Sum",
    "Term",
    "TotalVariation",
    "View",
    "channel",
    "deepdream",
    "direction",
    "diversity",
    "logit",
    "names",
    "neuron",
    "total_variation",
]


def __dir__() -> list[str]:
    return sorted(__all__)


OUTPUT = ""
"""The layer name that stands for the model's own output."""


FindClass: TypeAlias = Callable[[Any], tuple[int, str]]
"""From a class as the user gives it to its number in the model's output and its name for people."""


@dataclass(frozen=True)
class View:
    """The inputs of the objectives in one evaluation.

    Attributes:
        taps: one tap per layer, each of ``images * views`` rows; the views of an image are adjacent.
        pixels: (rows, H, W, C), the views themselves, in [0, 1] (the classic recipe: in 0..255).
        views: number of views per image.
        arrays: the arrays of each term (:meth:`Term.arrays`), repeated for the views, in the order of ``terms()``.

    Example:
        >>> [field for field in ag.objectives.View.__dataclass_fields__][:2]
        ['taps', 'pixels']
    """

    taps: TapsByName
    pixels: Array
    views: int
    arrays: Iterator[tuple[Array, ...]]


class Objective(ABC):
    """A scalar for each image of a batch, to be maximized.

    Example:
        >>> objective = ag.objectives.channel("conv", [0, 1]) - 0.1 * ag.objectives.total_variation()
        >>> objective.count, objective.layers()
        (2, ('conv',))
    """

    @property
    @abstractmethod
    def count(self) -> int:
        """Number of images."""

    @abstractmethod
    def labels(self) -> tuple[str, ...]:
        """A short name for each image.

        Returns:
            ``count`` strings.
        """

    @abstractmethod
    def terms(self) -> Iterator[Term]:
        """The terms of the objective, from left to right.

        Returns:
            An iterator of the terms.
        """

    @abstractmethod
    def score(self, ops: Ops, view: View) -> Array:
        """The value for every view. Consumes ``view.arrays`` in the order of :meth:`terms`.

        Args:
            ops: the array operations of the framework.
            view: the outputs of the model and its layers for the images.

        Returns:
            (rows,), in the dtype of the layer's output.
        """

    @abstractmethod
    def resolve(self, layer: Callable[[Any], Layer], class_: FindClass) -> Objective:
        """The same objective with the model's own layer names and class numbers, checked against the model.

        Args:
            layer: finds the layer of a selector.
            class_: finds the number and the name of a class.

        Returns:
            An objective of the same kind.

        Raises:
            InvalidInput: the layer has no such channel or position, did not run, or does not fit the objective.
            UnknownName: no such layer or class.
        """

    def layers(self) -> tuple[str, ...]:
        """The layers that the objective needs, each once.

        Returns:
            Their names or indices as strings; ``""`` is the model's output.
        """
        return tuple(dict.fromkeys(str(term.layer) for term in self.terms() if isinstance(term, LayerTerm)))

    @property
    def wants_logits(self) -> bool:
        """Whether any term needs the input of a softmax."""
        return any(isinstance(term, Logit) for term in self.terms())

    @property
    def coupled(self) -> bool:
        """Whether the value of one image depends on the others, so that all must be computed together."""
        return any(term.couples for term in self.terms())

    def parts(self, first: int = 0) -> tuple[tuple[Objective, int], ...]:
        """The summands that use a layer, each with the number of its first term.

        Args:
            first: the number of this objective's first term.

        Returns:
            (summand, number of its first term) for each.
        """
        return ((self, first),) if self.layers() else ()

    def __add__(self, other: Objective | float) -> Objective:
        return Sum(self, other if isinstance(other, Objective) else Constant(float(other)))

    def __radd__(self, other: float) -> Objective:
        return Sum(Constant(float(other)), self)

    def __sub__(self, other: Objective | float) -> Objective:
        return self + (-1.0 * other)

    def __rsub__(self, other: float) -> Objective:
        return Constant(float(other)) + (-1.0 * self)

    def __mul__(self, other: Objective | float) -> Objective:
        return Product(self, other if isinstance(other, Objective) else Constant(float(other)))

    def __rmul__(self, other: float) -> Objective:
        return Product(Constant(float(other)), self)

    def __neg__(self) -> Objective:
        return -1.0 * self


@dataclass(frozen=True)
class _Pair(Objective):
    """Two objectives as one.

    Attributes:
        left, right: for one image, or for as many images as the other.
    """

    left: Objective
    right: Objective

    def __post_init__(self) -> None:
        counts = {self.left.count, self.right.count} - {1}
        if len(counts) > 1:
            raise InvalidInput(
                f"objectives of {self.left.count} and {self.right.count} images cannot be combined: "
                "both must have the same number, or one of them a single image"
            )

    @property
    def count(self) -> int:
        return max(self.left.count, self.right.count)

    def terms(self) -> Iterator[Term]:
        yield from self.left.terms()
        yield from self.right.terms()

    def resolve(self, layer: Callable[[Any], Layer], class_: FindClass) -> Objective:
        left, right = self.left.resolve(layer, class_), self.right.resolve(layer, class_)
        return dataclasses.replace(self, left=left, right=right)

    def _labels(self, sign: str) -> tuple[str, ...]:
        left, right = self.left.labels(), self.right.labels()
        return tuple(f"{left[i % len(left)]}{sign}{right[i % len(right)]}" for i in range(self.count))


@dataclass(frozen=True)
class Sum(_Pair):
    """left + right.

    Example:
        >>> ag.objectives.channel("conv", 0) + 1
        Sum(left=Channel(layer='conv', channels=(0,)), right=Constant(value=1.0))
    """

    def parts(self, first: int = 0) -> tuple[tuple[Objective, int], ...]:
        return self.left.parts(first) + self.right.parts(first + sum(1 for _ in self.left.terms()))

    def labels(self) -> tuple[str, ...]:
        return self._labels(" + ")

    def score(self, ops: Ops, view: View) -> Array:
        left = self.left.score(ops, view)
        return left + self.right.score(ops, view)


@dataclass(frozen=True)
class Product(_Pair):
    """left * right.

    Example:
        >>> 2 * ag.objectives.deepdream("conv")
        Product(left=Constant(value=2.0), right=DeepDream(layer='conv'))
    """

    def parts(self, first: int = 0) -> tuple[tuple[Objective, int], ...]:
        second = first + sum(1 for _ in self.left.terms())
        left, right = self.left.parts(first), self.right.parts(second)
        # A factor that uses no layer is a factor of every part of a sum: -1 * (a + b).
        several = left if not right else right if not left else ()
        return several if len(several) > 1 else super().parts(first)

    def labels(self) -> tuple[str, ...]:
        return self._labels(" * ")

    def score(self, ops: Ops, view: View) -> Array:
        left = self.left.score(ops, view)
        return left * self.right.score(ops, view)


class Term(Objective):
    """An objective that does not combine others.

    Example:
        >>> len(list((ag.objectives.channel("conv", 0) + ag.objectives.deepdream("relu")).terms()))
        2
    """

    couples = False

    @property
    def count(self) -> int:
        return 1

    def terms(self) -> Iterator[Term]:
        yield self

    def arrays(self) -> tuple[npt.NDArray[Any], ...]:
        """The arrays that differ from image to image, with leading axis ``count``; backends pass them as data.

        Returns:
            A tuple of NumPy arrays, as many as :meth:`score` takes from ``view.arrays``.
        """
        return ()

    def resolve(self, layer: Callable[[Any], Layer], class_: FindClass) -> Objective:
        return self


@dataclass(frozen=True)
class LayerTerm(Term):
    """A term that uses one layer.

    Attributes:
        layer: name, alias or index of the layer; the framework's own name once it is resolved.

    Example:
        >>> ag.objectives.deepdream("conv").layer
        'conv'
    """

    layer: str | int

    def __repr__(self) -> str:
        return display.changed(self)

    def resolve(self, layer: Callable[[Any], Layer], class_: FindClass) -> Objective:
        found = layer(self.layer)
        if not found.calls:
            raise InvalidInput(
                f"layer {found.name!r} ({found.kind}) did not run: the model does not call it for an image"
            )
        if found.channels is None:
            what = f"has no channels (axes {found.axes})" if found.axes else f"returns {without_axes(found.shape)}"
            raise InvalidInput(f"layer {found.name!r} ({found.kind}) {what}; choose a layer inside or after it")
        self.check(found)
        return dataclasses.replace(self, layer=found.name)

    def check(self, layer: Layer) -> None:
        """Check that a layer fits this objective.

        Args:
            layer: the layer of the model.

        Raises:
            InvalidInput: it does not fit.
        """


def _indices(value: int | Iterable[int], what: str) -> tuple[int, ...]:
    values = _each(value)
    if not values or not all(map(_is_integer, values)):
        raise InvalidInput(f"{with_article(what)} is an integer or a non-empty sequence of integers, not {value!r}")
    return tuple(int(v) for v in values)


def _each(value: Any) -> tuple[Any, ...]:
    """One value per image; a single value stands for one image."""
    if isinstance(value, str):
        return (value,)
    try:
        return tuple(value)
    except TypeError:  # not a sequence: an array without axes only claims to be one
        return (value,)


def _is_integer(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _check_channels(channels: Iterable[int], layer: Layer) -> None:
    if layer.channels is None:
        raise InvalidInput(f"layer {layer.name!r} ({layer.kind}) has no channel axis")
    for channel in channels:
        if not 0 <= channel < layer.channels:
            raise InvalidInput(
                f"no channel {channel} in layer {layer.name!r}: it has {layer.channels}, 0 to {layer.channels - 1}"
            )


@dataclass(frozen=True)
class Constant(Term):
    """A constant; scalars in ``2 * objective`` become one.

    Attributes:
        value: the number.

    Example:
        >>> ag.objectives.Constant(2.0).labels()
        ('2',)
    """

    value: float

    def labels(self) -> tuple[str, ...]:
        return (f"{self.value:g}",)

    def score(self, ops: Ops, view: View) -> Array:
        next(view.arrays)
        return self.value


@dataclass(frozen=True, repr=False)
class Channel(LayerTerm):
    """The spatial mean of one channel per image.

    Attributes:
        channels: one per image, 0 .. channels of the layer - 1.

    Source: Olah, Mordvintsev, Schubert, "Feature Visualization", Distill, 2017, section "Optimization Objectives".

    Example:
        >>> ag.objectives.channel("conv", [3, 5]).labels()
        ('conv:3', 'conv:5')
    """

    channels: tuple[int, ...]

    @property
    def count(self) -> int:
        return len(self.channels)

    def labels(self) -> tuple[str, ...]:
        return tuple(f"{self.layer}:{c}" for c in self.channels)

    def arrays(self) -> tuple[npt.NDArray[Any], ...]:
        return (np.asarray(self.channels, np.int64),)

    def check(self, layer: Layer) -> None:
        if not layer.spatial:
            raise no_spatial_output(layer.name, layer.axes, layer.shape)
        _check_channels(self.channels, layer)

    def score(self, ops: Ops, view: View) -> Array:
        index, number = next(view.arrays)
        return view.taps[str(self.layer)].channel_mean(ops, index, number)


@dataclass(frozen=True, repr=False)
class Neuron(LayerTerm):
    """One channel at one position, or one unit of a layer without positions.

    Attributes:
        channels: one per image, 0 .. channels of the layer - 1.
        position: (row, column) in the layer's output; None: the centre.

    Source: "Feature Visualization", Distill, 2017, section "Optimization Objectives".

    Example:
        >>> ag.objectives.neuron("conv", 3, (0, 7)).labels()
        ('conv:3@0,7',)
    """

    channels: tuple[int, ...]
    position: tuple[int, int] | None

    @property
    def count(self) -> int:
        return len(self.channels)

    def labels(self) -> tuple[str, ...]:
        at = "" if self.position is None else f"@{self.position[0]},{self.position[1]}"
        return tuple(f"{self.layer}:{c}{at}" for c in self.channels)

    def arrays(self) -> tuple[npt.NDArray[Any], ...]:
        return (np.asarray(self.channels, np.int64),)

    def check(self, layer: Layer) -> None:
        _check_channels(self.channels, layer)
        if self.position is not None and not layer.spatial:
            raise no_spatial_output(layer.name, layer.axes, layer.shape)

    def score(self, ops: Ops, view: View) -> Array:
        (index,) = next(view.arrays)
        tap = view.taps[str(self.layer)]
        values = tap.channels(ops, index)
        if "H" not in tap.axes:
            return ops.mean(values, axis=1)
        height, width = tap.spatial_shape(ops)
        y, x = (height // 2, width // 2) if self.position is None else self.position
        if not (0 <= y < height and 0 <= x < width):
            raise InvalidInput(f"no position ({y}, {x}) in layer {tap.layer!r}: it is {height} high and {width} wide")
        return values[:, y * width + x]


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

    classes: tuple[int | str, ...]
    called: tuple[str, ...] = dataclasses.field(default=(), repr=False, compare=False)

    @property
    def count(self) -> int:
        return len(self.classes)

    def labels(self) -> tuple[str, ...]:
        return self.called or tuple(c if isinstance(c, str) else f"class {c}" for c in self.classes)

    def arrays(self) -> tuple[npt.NDArray[Any], ...]:
        return (np.asarray(self.classes, np.int64),)

    def resolve(self, layer: Callable[[Any], Layer], class_: FindClass) -> Objective:
        found = [class_(c) for c in self.classes]
        chosen = dataclasses.replace(self, classes=tuple(n for n, _ in found), called=tuple(name for _, name in found))
        return chosen if self.layer == OUTPUT else LayerTerm.resolve(chosen, layer, class_)

    def check(self, layer: Layer) -> None:
        _check_channels((int(c) for c in self.classes), layer)

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

    Source: "Feature Visualization", Distill, 2017, section "Interaction between Neurons".

    Example:
        >>> ag.objectives.direction("conv", np.ones((2, 8))).count
        2
    """

    vectors: npt.NDArray[np.float64]

    @property
    def count(self) -> int:
        return len(self.vectors)

    def labels(self) -> tuple[str, ...]:
        return tuple(f"{self.layer}:direction {i}" for i in range(self.count))

    def arrays(self) -> tuple[npt.NDArray[Any], ...]:
        return (self.vectors,)

    def check(self, layer: Layer) -> None:
        if layer.channels != self.vectors.shape[1]:
            raise InvalidInput(
                f"a direction in layer {layer.name!r} has {layer.channels} components, not {self.vectors.shape[1]}"
            )

    def score(self, ops: Ops, view: View) -> Array:
        (vectors,) = next(view.arrays)
        value = ops.mean(view.taps[str(self.layer)].canonical(ops), axis=2)
        return ops.sum(value * ops.cast(vectors, ops.dtype(value)), axis=1)


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
        # The bound is inside the root, whose derivative at zero is infinite: a layer may return only zeros.
        gram = gram / ops.sqrt(ops.maximum(ops.sum(ops.square(gram), axis=2, keepdims=True), 1e-20))
        # A mean of cosines is one cosine with a mean, so no table of all pairs of views is needed.
        mean = ops.mean(gram, axis=1)
        others = (ops.sum(mean, axis=0, keepdims=True) - mean) / (images - 1)
        return -ops.reshape(ops.einsum("nvk,nk->nv", gram, others), (rows,))


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


def channel(layer: str | int, index: int | Iterable[int]) -> Objective:
    """The spatial mean of a channel of a layer: shows what the filter looks for.

    Args:
        layer: name, alias or index of a layer with height and width.
        index: one channel, or several, with one image per channel.

    Returns:
        An objective of one image per channel.

    Raises:
        InvalidInput: a channel is no integer.

    Source: "Feature Visualization", Distill, 2017, section "Optimization Objectives".

    Example:
        >>> found = ag.visualize(model, ag.objectives.channel("conv", range(4)), size=16, steps=2)
        >>> found.shape, found.labels
        ((4, 16, 16, 3), ('conv:0', 'conv:1', 'conv:2', 'conv:3'))
    """
    return Channel(layer, _indices(index, "channel"))


def neuron(layer: str | int, index: int | Iterable[int], position: tuple[int, int] | None = None) -> Objective:
    """One channel at one position (row, column) of the layer's output; the centre if None.

    Args:
        layer: name, alias or index (from 0, in execution order) of the layer.
        index: one channel, or several, with one image per channel.
        position: (row, column) from 0 in the layer's output; None: its centre.

    Returns:
        An objective of one image per channel.

    Raises:
        InvalidInput: a channel or a position is no integer.

    Source: "Feature Visualization", Distill, 2017, section "Optimization Objectives".

    Example:
        >>> ag.visualize(model, ag.objectives.neuron("conv", 0, (4, 4)), size=16, steps=2).labels
        ('conv:0@4,4',)
    """
    if position is not None:
        place = _each(position)
        if len(place) != 2 or not all(_is_integer(n) and n >= 0 for n in place):
            raise InvalidInput(f"a position is (row, column), two integers from 0, not {position!r}")
        position = int(place[0]), int(place[1])
    return Neuron(layer, _indices(index, "channel"), position)


def logit(class_: int | str | Iterable[int | str], layer: str | int = OUTPUT) -> Objective:
    """The model's output for a class before any softmax or sigmoid, by number or name.

    A probability also rises when only the other classes fall. So a final softmax, log-softmax or sigmoid of the output
    (or of the layer) is left out, whether it is a layer, an activation or a function. One that is written as
    exponentials over their sum is not recognized: then name the layer of the logits.

    Args:
        class_: a number or a name, or several, with one image per class.
        layer: name, alias or index of the layer of the logits; the model's output by default.

    Returns:
        An objective of one image per class.

    Raises:
        InvalidInput: a class is neither a number nor a name, or there is none.

    Source: Simonyan, Vedaldi, Zisserman, "Deep Inside Convolutional Networks", 2014, section 2.

    Example:
        >>> ag.visualize(model, ag.objectives.logit([0, 3]), size=16, steps=2).labels
        ('class 0', 'class 3')
    """
    classes = _each(class_)
    if not classes:
        raise InvalidInput("no class is given: give a number, a name, or several")
    for c in classes:
        if not (isinstance(c, str) or _is_integer(c)):
            raise InvalidInput(f"a class is a number or a name, not {c!r}")
    return Logit(layer, tuple(c if isinstance(c, str) else int(c) for c in classes))


def direction(layer: str | int, vector: npt.ArrayLike) -> Objective:
    """The dot product with ``vector``, (channels,) or (images, channels), averaged over positions.

    Args:
        layer: name, alias or index (from 0, in execution order) of the layer.
        vector: (channels,) or (images, channels), finite numbers; the norm of the vector scales the objective.

    Returns:
        An objective of one image per vector.

    Raises:
        InvalidInput: the vector is not finite, or vectors differ in length.

    Source: "Feature Visualization", Distill, 2017, section "Interaction between Neurons".

    Example:
        >>> towards = np.zeros(8)
        >>> towards[:2] = 1, -1
        >>> ag.visualize(model, ag.objectives.direction("conv", towards), size=16, steps=2).shape
        (1, 16, 16, 3)
    """
    try:
        vectors = np.atleast_2d(np.array(vector, np.float64))
    except (TypeError, ValueError):  # text, or rows of different lengths
        raise InvalidInput(
            f"a direction is a finite vector (channels,) or (images, channels), not {vector!r}"
        ) from None
    if vectors.ndim != 2 or not vectors.size or not np.isfinite(vectors).all():
        raise InvalidInput(f"a direction is a finite vector (channels,) or (images, channels), not {vectors.shape}")
    return Direction(layer, vectors)


def deepdream(layer: str | int) -> Objective:
    """The mean square of a whole layer: whatever the layer sees already, more of it.

    Args:
        layer: name, alias or index (from 0, in execution order) of the layer.

    Returns:
        An objective of one image.

    Source: Mordvintsev, Olah, Tyka, "Inceptionism", 2015, and the code published with it.

    Example:
        >>> dream = ag.visualize(model, ag.objectives.deepdream("relu"), start=images[0], steps=2)
        >>> dream.shape
        (1, 16, 16, 3)
    """
    return DeepDream(layer)


def diversity(layer: str | int) -> Objective:
    """Reward differences between the images of a batch: ``channel(layer, [5] * 4) + 10 * diversity(layer)``.

    Args:
        layer: name, alias or index (from 0, in execution order) of the layer.

    Returns:
        A term to add to an objective for several images.

    Source: "Feature Visualization", Distill, 2017, section "Diversity".

    Example:
        >>> objective = ag.objectives.channel("conv", [5] * 2) + 10 * ag.objectives.diversity("conv")
        >>> ag.visualize(model, objective, size=16, steps=2).shape
        (2, 16, 16, 3)
    """
    return Diversity(layer)


def total_variation() -> Objective:
    """The roughness of the image; ``objective - 0.1 * total_variation()`` smooths.

    Returns:
        A term: the mean absolute difference of neighbouring pixels, 0 or more.

    Source: Mahendran, Vedaldi, "Understanding Deep Image Representations by Inverting Them", 2015.

    Example:
        >>> objective = ag.objectives.channel("conv", 5) - 0.1 * ag.objectives.total_variation()
        >>> ag.visualize(model, objective, size=16, steps=2).shape
        (1, 16, 16, 3)
    """
    return TotalVariation()


def names() -> Sequence[str]:
    """The names of the functions above, for error messages and help texts.

    Returns:
        Names of functions of this module.

    Example:
        >>> "deepdream" in ag.objectives.names()
        True
    """
    return ("channel", "neuron", "logit", "direction", "deepdream", "diversity", "total_variation")
