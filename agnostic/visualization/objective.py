"""What every objective is: a value for each image of a batch, that adds, scales and multiplies as numbers do."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt

from agnostic import display
from agnostic.errors import InvalidInput
from agnostic.layers import Layer
from agnostic.ops import Array, Ops, widened
from agnostic.visualization.taps import TapsByName, without_axes

OUTPUT = ""
"""The layer name that stands for the model's own output."""


FindClass: TypeAlias = Callable[[Any], tuple[int, str]]
"""From a class as the user gives it to its number in the model's output and its name for people."""


@dataclass(frozen=True)
class ModelLookup:
    """What an objective can ask of the model that it is resolved for.

    Attributes:
        layer: finds the layer of a selector.
        class_: finds the number and the name of a class.
        size: (height, width) of the images.
        measure: from a layer's name and photos (N, H, W, C), uint8 or in [0, 1], to what the layer returns for their
            middle in the size of the images: (N, channels, positions) float64.

    Example:
        >>> [field for field in ag.objectives.ModelLookup.__dataclass_fields__]
        ['layer', 'class_', 'size', 'measure']
    """

    layer: Callable[[Any], Layer]
    class_: FindClass
    size: tuple[int, int]
    measure: Callable[[str, npt.NDArray[Any]], npt.NDArray[np.float64]]


@dataclass(frozen=True)
class View:
    """The inputs of the objectives in one evaluation.

    Attributes:
        taps: one tap per layer, each of ``images * views`` rows; the views of an image are adjacent.
        pixels: (rows, H, W, C), the views themselves, in [0, 1] (the classic recipe: in 0..255).
        views: number of views per image.
        arrays: the arrays of each term (:meth:`Term.arrays`), repeated for the views, in the order of ``terms()``.
        opacity: (rows,) the mean alpha of each image; None where images are opaque.

    Example:
        >>> [field for field in ag.objectives.View.__dataclass_fields__][:2]
        ['taps', 'pixels']
    """

    taps: TapsByName
    pixels: Array
    views: int
    arrays: Iterator[tuple[Array, ...]]
    opacity: Array | None = None


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
    def resolve(self, model: ModelLookup) -> Objective:
        """The same objective with the model's own layer names and class numbers, checked against the model.

        Args:
            model: what is asked of it.

        Returns:
            An objective of the same kind.

        Raises:
            InvalidInput: the layer has no such channel or position, did not run, or does not fit the objective.
            UnknownName: no such layer or class.
        """

    @abstractmethod
    def form(self) -> Hashable:
        """What computing the objective depends on, but for the numbers of :meth:`Term.arrays`: a compiler's key.

        Returns:
            A value that two objectives share where one program computes both.
        """

    def layers(self) -> tuple[str, ...]:
        """The layers that the objective needs, each once.

        Returns:
            Their names or indices as strings; ``""`` is the model's output.
        """
        return tuple(dict.fromkeys(layer for term in self.terms() for layer in term.uses()))

    @property
    def wants_logits(self) -> bool:
        """Whether any term needs the input of a softmax."""
        return any(term.before_softmax for term in self.terms())

    @property
    def coupled(self) -> bool:
        """Whether the value of one image depends on the others, so that all must be computed together."""
        return any(term.couples for term in self.terms())

    def off(self, image: int) -> bool:
        """Whether a factor of zero switches the objective off for an image.

        Args:
            image: its number, from 0.

        Returns:
            True where it is zero, whatever the image shows.
        """
        return False

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

    def form(self) -> Hashable:
        return type(self), self.left.form(), self.right.form()

    def resolve(self, model: ModelLookup) -> Objective:
        return dataclasses.replace(self, left=self.left.resolve(model), right=self.right.resolve(model))

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
        left = _wide(ops, self.left.score(ops, view))
        return left + _wide(ops, self.right.score(ops, view))


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

    def off(self, image: int) -> bool:
        return any(x.off(image % x.count) for x in (self.left, self.right))

    def score(self, ops: Ops, view: View) -> Array:
        left = _wide(ops, self.left.score(ops, view))
        return left * _wide(ops, self.right.score(ops, view))


def _wide(ops: Ops, score: Array) -> Array:
    """A score as it can be combined with others, which may come in float32 where a layer computes in bfloat16."""
    return score if isinstance(score, float) else widened(ops, score)


class Term(Objective):
    """An objective that does not combine others.

    Example:
        >>> len(list((ag.objectives.channel("conv", 0) + ag.objectives.deepdream("relu")).terms()))
        2
    """

    numbers: ClassVar[frozenset[str]] = frozenset()
    """The fields that reach :meth:`score` through :meth:`arrays` alone, or not at all."""
    couples = False
    """Whether the value of one image depends on the others."""
    before_softmax = False
    """Whether it needs the input of a softmax."""
    keeps_places = False
    """Whether it compares places of the image with those of a photo, which views must not move far."""
    sees_alpha = False
    """Whether it looks at how opaque images are, which then must have an alpha."""
    starts_alike = False
    """Whether all images start from the same noise and are seen through the same views."""

    @property
    def count(self) -> int:
        return 1

    def terms(self) -> Iterator[Term]:
        yield self

    def form(self) -> Hashable:
        fields: tuple[Any, ...] = dataclasses.fields(self) if dataclasses.is_dataclass(self) else ()
        return type(self), *((x.name, getattr(self, x.name)) for x in fields if x.name not in self.numbers)

    def uses(self) -> tuple[str, ...]:
        """The layers that it looks at.

        Returns:
            Their names, or indices as strings.
        """
        return ()

    def arrays(self) -> tuple[npt.NDArray[Any], ...]:
        """The arrays that differ from image to image, with leading axis ``count``; backends pass them as data.

        Returns:
            A tuple of NumPy arrays, as many as :meth:`score` takes from ``view.arrays``.
        """
        return ()

    def resolve(self, model: ModelLookup) -> Objective:
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

    def uses(self) -> tuple[str, ...]:
        return (str(self.layer),)

    def resolve(self, model: ModelLookup) -> Objective:
        found = model.layer(self.layer)
        check_ran(found)
        self.check(found)
        return dataclasses.replace(self, layer=found.name)

    def check(self, layer: Layer) -> None:
        """Check that a layer fits this objective.

        Args:
            layer: the layer of the model.

        Raises:
            InvalidInput: it does not fit.
        """


def check_ran(layer: Layer) -> None:
    """Raise InvalidInput where a layer did not run, or has no channels.

    Args:
        layer: the layer of the model.
    """
    if not layer.calls:
        raise InvalidInput(f"layer {layer.name!r} ({layer.kind}) did not run: the model does not call it for an image")
    if layer.channels is None:
        what = f"has no channels (axes {layer.axes})" if layer.axes else f"returns {without_axes(layer.shape)}"
        raise InvalidInput(f"layer {layer.name!r} ({layer.kind}) {what}; choose a layer inside or after it")


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

    def off(self, image: int) -> bool:
        return self.value == 0


@dataclass(frozen=True)
class ImageFactors(Term):
    """A constant for each image, as a factor of objectives that are the same for all.

    Attributes:
        values: one per image.

    Example:
        >>> (ag.objectives.ImageFactors((0.0, 1.0)) * ag.objectives.channel("conv", 3)).labels()
        ('0 * conv:3', '1 * conv:3')
    """

    numbers = frozenset({"values"})
    starts_alike = True

    values: tuple[float, ...]

    @property
    def count(self) -> int:
        return len(self.values)

    def labels(self) -> tuple[str, ...]:
        return tuple(f"{value:.3g}" for value in self.values)

    def arrays(self) -> tuple[npt.NDArray[Any], ...]:
        return (np.asarray(self.values, np.float64),)

    def score(self, ops: Ops, view: View) -> Array:
        (values,) = next(view.arrays)
        return values

    def off(self, image: int) -> bool:
        return self.values[image] == 0
