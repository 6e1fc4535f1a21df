"""A network as attribution sees it: scores of images, and their gradients with respect to pixels and layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from agnostic.contracts.attribution import ATTRIBUTION, ForwardPass, FunctionRules
from agnostic.contracts.gradients import GRADIENTS
from agnostic.contracts.inputs import INPUTS
from agnostic.contracts.ops import OPS
from agnostic.errors import InvalidInput, NonFinite
from agnostic.layers import Layer
from agnostic.models.call import ModelCall
from agnostic.models.forms import Input
from agnostic.models.inputs import run_layers
from agnostic.ops import Array, Ops
from agnostic.registry import Backend, Model
from agnostic.text import counted

ModelImages = npt.NDArray[np.float32]
Target = Callable[[Ops, Any], Array]
"""From what the model returned for N rows to their N scores."""

RulesFor = Callable[[Ops], FunctionRules]
"""Makes what takes the place of functions inside of a model, for one run."""


@dataclass(frozen=True)
class ScoreGradients:
    """Scores of rows and their gradients, in float64.

    Attributes:
        scores: (rows,).
        pixels: (rows, H, W, C): the gradient with respect to what the model is given.
        values: by layer, (rows, ...): its output, in its own layout.
        gradients: by layer, of the same shape.
    """

    scores: npt.NDArray[np.float64]
    pixels: npt.NDArray[np.float64]
    values: dict[str, npt.NDArray[np.float64]]
    gradients: dict[str, npt.NDArray[np.float64]]


@dataclass(frozen=True)
class ExplainedModel:
    """A model, what it is called with, and the scores that are explained.

    A *row* is an image as the model is given it: one of the images, or a changed copy of one of them.

    Attributes:
        backend, model: the model and who runs it.
        form, call: its input of images, and the inputs around it.
        shown: the images (N, H, W, C) in the model's size, uint8 or floating point in [0, 1].
        images: the same as the model takes them, channels last.
        micro_batch: rows that are computed together.
        target: a function of the user; None where classes are explained.
        classes: (N,) the class of each image; without meaning where there is a target.
    """

    backend: Backend
    model: Model
    form: Input
    call: ModelCall
    shown: npt.NDArray[Any] = field(repr=False)
    images: ModelImages = field(repr=False)
    micro_batch: int
    target: Target | None
    classes: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    @property
    def count(self) -> int:
        """The number of images."""
        return len(self.images)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the images."""
        return int(self.images.shape[1]), int(self.images.shape[2])

    @cached_property
    def listing(self) -> Sequence[Layer]:
        """The layers that run, in order; the model is run once for it, by the methods that look at layers."""
        first = self.call.first().native(self.backend, self.model, self.form.arrange(self.images[:1]))
        return [x for x in run_layers(self.backend, self.model, first) if x.calls]

    def predictions(
        self, rows: ModelImages, owners: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """(rows, classes): the logits of rows, and their probabilities.

        Args:
            rows, owners: as for :meth:`scores`.
        """
        logits, probabilities = [], []
        for part, own in self._batches(rows, owners):
            ops, forward = self._forward(part, own)
            number = _classes_at(ops, forward, len(part))
            before = forward.logits[number]
            given = np.asarray(ops.numpy(forward.arrays[number]), np.float64)
            logits.append(given if before is None else np.asarray(ops.numpy(before), np.float64))
            probabilities.append(_softmax(given) if before is None else given)
        return np.concatenate(logits), np.concatenate(probabilities)

    def scores(self, rows: ModelImages, owners: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """(rows,): the score of each row.

        Args:
            rows: (rows, H, W, C), as the model takes them.
            owners: (rows,) which image each is a copy of.
        """
        found = []
        for part, own in self._batches(rows, owners):
            ops, forward = self._forward(part, own)
            found.append(np.asarray(ops.numpy(self._score(ops, forward, own)), np.float64))
        return finite(np.concatenate(found))

    def attention(self) -> list[npt.NDArray[np.float64]]:
        """The weights of each attention on the images, in order, (N, heads, places, places); others are left out."""
        parts = []
        for part, own in self._batches(self.images, np.arange(self.count)):
            weights = AttentionWeights()
            ops, _ = self._forward(part, own, weights)
            arrays = [np.asarray(ops.numpy(x), np.float64) for x in weights.found]
            parts.append([x for x in (_by_head(x, len(part)) for x in arrays) if x is not None])
        return [np.concatenate(x) for x in zip(*parts, strict=True)]

    def gradients(
        self, rows: ModelImages, owners: npt.NDArray[np.int64], layers: Sequence[Layer] = (), *, guided: bool = False,
        rules: RulesFor | None = None,
    ) -> ScoreGradients:  # fmt: skip
        """The scores of rows, and their gradients.

        Args:
            rows, owners: as for :meth:`scores`.
            layers: whose outputs' gradients are wanted as well.
            guided: ReLUs pass back positive gradients alone.
            rules: makes what takes the place of functions inside of the model, for one run.

        Raises:
            InvalidInput: ``guided``, and the model has no ReLU; a layer gives no row for each row.
            NonFinite: a score or a gradient is not finite.
        """
        parts = [self._gradients(part, own, layers, guided, rules) for part, own in self._batches(rows, owners)]
        return ScoreGradients(
            finite(np.concatenate([x.scores for x in parts])),
            finite(np.concatenate([x.pixels for x in parts])),
            {x.name: np.concatenate([part.values[x.name] for part in parts]) for x in layers},
            {x.name: np.concatenate([part.gradients[x.name] for part in parts]) for x in layers},
        )

    def _gradients(
        self, rows: ModelImages, owners: npt.NDArray[np.int64], layers: Sequence[Layer], guided: bool,
        rules: RulesFor | None,
    ) -> ScoreGradients:  # fmt: skip
        attribution = self.backend[ATTRIBUTION]
        native = self.backend[INPUTS].native_inputs(self.model, [self.form.arrange(rows)])
        ops = self.backend[OPS].ops_for([native])
        dtype = ops.dtype(native)
        zeros = [ops.asarray(np.zeros(_shape(x, len(rows)), np.float32), dtype) for x in layers]
        seen: list[Array] = []

        def function(image: Array, *added: Array) -> list[Array]:
            named = {x.name: array for x, array in zip(layers, added, strict=True)}
            forward = attribution.perturbed(self.model, self._having(image, owners), named, rules and rules(ops))
            score = self._score(ops, forward, owners)
            return [ops.cast(score, dtype), *(ops.cast(forward.values[x.name], dtype) for x in layers)]

        def cotangents(outputs: list[Array]) -> list[Array]:
            # The scores count, the layers' outputs are only looked at.
            seen[:] = outputs
            return [ops.asarray(np.full(ops.shape(y), float(i == 0)), ops.dtype(y)) for i, y in enumerate(outputs)]

        with attribution.guided() if guided else nullcontext([None]) as ran:
            found = self.backend[GRADIENTS].pullback(function, [native, *zeros], cotangents)
        if not ran:
            raise InvalidInput("the model runs no ReLU that could be guided: use method='gradient'")
        arrays = [
            np.zeros(ops.shape(x)) if g is None else np.asarray(ops.numpy(g), np.float64)
            for g, x in zip(found, [native, *zeros], strict=True)
        ]
        values = [np.asarray(ops.numpy(x), np.float64) for x in seen]
        names = [x.name for x in layers]
        pixels = np.transpose(arrays[0], [self.form.axes.index(axis) for axis in "NHWC"])
        return ScoreGradients(
            values[0], pixels, dict(zip(names, values[1:], strict=True)), dict(zip(names, arrays[1:], strict=True))
        )

    def _batches(
        self, rows: ModelImages, owners: npt.NDArray[np.int64]
    ) -> Iterator[tuple[ModelImages, npt.NDArray[np.int64]]]:
        for start in range(0, len(rows), self.micro_batch):
            yield rows[start : start + self.micro_batch], owners[start : start + self.micro_batch]

    def _having(self, image: Array, owners: npt.NDArray[np.int64]) -> Any:
        """What the model is called with: the rows, and for each what is given beside its image."""
        given = [x[owners] if len(x) == self.count else np.repeat(x, len(owners), 0) for x in self._others()]
        others = [self.backend[INPUTS].native_inputs(self.model, [x]) for x in given]
        return self.call.having(image, others)

    def _others(self) -> Sequence[npt.NDArray[Any]]:
        found: list[npt.NDArray[Any]] = self.call.rows(range(self.count), self.count, 1)
        return found

    def _forward(
        self, rows: ModelImages, owners: npt.NDArray[np.int64], rules: FunctionRules | None = None
    ) -> tuple[Ops, ForwardPass]:
        native = self.backend[INPUTS].native_inputs(self.model, [self.form.arrange(rows)])
        ops = self.backend[OPS].ops_for([native])
        return ops, self.backend[ATTRIBUTION].forward(self.model, self._having(native, owners), rules)

    def _score(self, ops: Ops, forward: ForwardPass, owners: npt.NDArray[np.int64]) -> Array:
        """(rows,): what is explained."""
        if self.target is not None:
            score = self.target(ops, forward.output)
            shape = tuple(getattr(score, "shape", ()))
            if shape != (len(owners),):
                raise InvalidInput(
                    f"a target function returns one score per image, of shape ({len(owners)},), not {shape}"
                )
            return score
        number = _classes_at(ops, forward, len(owners))
        before = forward.logits[number]
        values = forward.arrays[number] if before is None else before
        index = ops.asarray(self.classes[owners][:, None])
        return ops.reshape(ops.take_along_axis(values, index, 1), (len(owners),))


class AttentionWeights(FunctionRules):
    """Keeps what each softmax over the last axis gave."""

    def __init__(self) -> None:
        self.found: list[Array] = []

    def softmax(self, function: Callable[[Array], Array], x: Array) -> Array:
        """The softmax, which is kept."""
        self.found.append(function(x))
        return self.found[-1]

    def attention(
        self, function: Callable[[Array, Array, Array], Array], query: Array, key: Array, value: Array,
        weights: Callable[[], Array],
    ) -> Array:  # fmt: skip
        """The attention; its weights are kept."""
        self.found.append(weights())
        return function(query, key, value)


def _by_head(x: npt.NDArray[np.float64], rows: int) -> npt.NDArray[np.float64] | None:
    """(rows, heads, places, places) of a softmax; None where it is not that of all places with each other."""
    if x.ndim not in (3, 4) or x.shape[-1] != x.shape[-2] or x.shape[-1] == 1:
        return None
    if x.ndim == 4 and len(x) != rows:
        raise InvalidInput(
            "the model attends within windows, between which attention cannot be followed: use method='layer_cam' or "
            "'lrp'"
        )
    return x if x.ndim == 4 else x.reshape(rows, -1, *x.shape[1:])


def _classes_at(ops: Ops, forward: ForwardPass, rows: int) -> int:
    """Which array of a model's output is (rows, classes)."""
    shapes = [tuple(ops.shape(x)) for x in forward.arrays]
    found = [i for i, shape in enumerate(shapes) if len(shape) == 2 and shape[0] == rows]
    if len(found) != 1:
        listed = ", ".join(map(str, shapes)) or "no array"
        raise InvalidInput(
            f"the model returns {listed}, and not one array (batch, classes): give target=f(ops, output), a function "
            "that returns one score per image"
        )
    return found[0]


def _shape(layer: Layer, rows: int) -> tuple[int, ...]:
    """Of a layer's output for some rows."""
    if layer.shape is None or layer.axes is None or "N" not in layer.axes or layer.calls != 1:
        what = (
            f"runs {counted(layer.calls, 'time')}"
            if layer.calls != 1
            else "gives no array with a batch axis that is known"
        )
        raise InvalidInput(f"layer {layer.name!r} {what}: choose a layer that runs once and gives one array")
    return tuple(rows if axis == "N" else int(n or 0) for axis, n in zip(layer.axes, layer.shape, strict=True))


def _softmax(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    e = np.exp(x - x.max(1, keepdims=True))
    found: npt.NDArray[np.float64] = e / e.sum(1, keepdims=True)
    return found


def finite(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The same numbers; NonFinite where one of them is not finite."""
    if not np.isfinite(x).all():
        raise NonFinite("the score or its gradient is not finite: check the model's weights and the range of its input")
    return x
