"""Gradient ascent on images: the mathematics, once. A backend runs the loop; see :mod:`agnostic.contracts.ascent`."""

from __future__ import annotations

import math
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from agnostic import display
from agnostic.arrays import describe
from agnostic.contracts.ascent import ASCENT
from agnostic.contracts.inputs import INPUTS
from agnostic.errors import InvalidInput
from agnostic.layers import Layer, select
from agnostic.models.attached import card_of
from agnostic.models.call import Call, number_of, picture_call
from agnostic.models.cards import Preprocessing
from agnostic.models.classes import class_index, class_label
from agnostic.models.forms import Input, Trial
from agnostic.models.inputs import Size, refused
from agnostic.models.preparing import preprocessed, preprocessing_of
from agnostic.ops import Array, Ops
from agnostic.registry import Backend, Model, backend_of
from agnostic.text import counted
from agnostic.visualization import recipes
from agnostic.visualization.mosaic import mosaic
from agnostic.visualization.objectives import OUTPUT, Channel, LayerTerm, Objective, View
from agnostic.visualization.reach import calls_reached
from agnostic.visualization.recipes import Recipe
from agnostic.visualization.taps import Tap
from agnostic.visualization.updates import State

Float64 = npt.NDArray[np.float64]
Forward = Callable[[Array], Mapping[str, Tap]]
"""What a backend supplies: (rows, H, W, C) inputs of the model, to the taps of the objective's layers."""

_NOISE_KEY = zlib.crc32(b"noise")


@dataclass(frozen=True)
class Settings:
    """How an ascent is computed, which changes its speed but not what is computed. None: the backend chooses.

    Attributes:
        micro_batch: images that are computed together.
        dtype: of the network: ``"float32"``, ``"bfloat16"``, ``"float64"`` or ``"float16"``. The image, its gradient
            and the update are float32, or float64 with a float64 network.
        memory_format: ``"channels_last"`` or ``"contiguous"``, where the framework knows the difference.
        device: in the framework's own words, such as ``"cuda:0"``; None is where the model is.
        on_step: called after every step with the number of images that it advanced.
    """

    micro_batch: int | None = None
    dtype: str | None = None
    memory_format: str | None = None
    device: str | None = None
    on_step: Callable[[int], None] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if self.micro_batch is not None and not recipes.is_count(self.micro_batch):
            raise InvalidInput(
                f"micro_batch is the number of images computed together, at least 1, not {self.micro_batch!r}"
            )
        _one_of("dtype", self.dtype, ("float32", "bfloat16", "float64", "float16"))
        _one_of("memory_format", self.memory_format, ("channels_last", "contiguous"))


@dataclass(frozen=True)
class Climbed:
    """A micro-batch of images that a backend has finished.

    Attributes:
        images: which of the ascent's images these are.
        pixels: (n, H, W, C) float32 in [0, 1].
        scores: (steps, n) float64: the objective before each update.
        reached: (n,) whether, in any step, any number of the gradient that the network passed back to any view of the
            image differed from zero. An image that no gradient reached is still its start; see :meth:`Ascent.remarks`.
        parts: (n, parts) the same of each of the objective's parts alone (:meth:`Ascent.part_scores`), at the start or
            at the end; None where the objective has one part.
    """

    images: range
    pixels: npt.NDArray[np.float32]
    scores: Float64
    reached: npt.NDArray[np.bool_]
    parts: npt.NDArray[np.bool_] | None = None


def _one_of(what: str, value: str | None, choices: Sequence[str]) -> None:
    if value is not None and value not in choices:
        raise InvalidInput(f"{what} is one of {', '.join(choices)}, not {value!r}")


_IMAGES_ALONE = Call()
_AS_COMPUTED = Input((None, None, None, None), "NHWC")


@dataclass(frozen=True)
class Ascent:
    """One objective, climbed by one recipe: every number that the ascent needs, and the functions of one step.

    All randomness and every schedule is computed here, in NumPy float64, for each image by itself: its stream depends
    on the seed and on what the image shows, so that it looks the same alone or among others, in any micro-batch.

    Attributes:
        objective: resolved: the model's own layer names, class numbers instead of names.
        recipe: how the images are found.
        shape: (height, width, channels) of the images.
        seed: of all randomness.
        preprocessing: from [0, 1] to what the model expects; None to give the model the image as it is.
        listing: the layers of the objective, by name, as they are with inputs of this shape.
    """

    objective: Objective
    recipe: Recipe
    shape: tuple[int, int, int]
    seed: int
    preprocessing: Preprocessing | None
    listing: Mapping[str, Layer]
    widest: int
    """Elements of the largest activation of one row; a backend chooses the micro-batch by it."""
    start: Float64 | None = field(default=None, compare=False)
    """(1 or images, H, W, C) in [0, 1]: what the images start from; None to start from noise."""
    input: Input = _AS_COMPUTED
    """What one image is to the model; by default in the order in which images are computed."""
    call: Call = _IMAGES_ALONE
    """What the model is called with around the images; by default them alone."""
    looked_at: Mapping[str, int] = field(default_factory=dict)
    """By layer the number of the call that the objective looks at, from 0; the last one of a layer that is not here."""

    @property
    def count(self) -> int:
        """Number of images."""
        return self.objective.count

    @property
    def steps(self) -> int:
        """Number of updates."""
        return self.recipe.steps

    @property
    def views(self) -> int:
        """Rows that the model sees for each image."""
        return self.recipe.views.count

    # Numbers, in NumPy ----------------------------------------------------------------------------------------------
    def _generators(self, images: range, purpose: int) -> Iterator[np.random.Generator]:
        # By the first layer that is looked at: a regularizer added to an objective must not change where it starts.
        first = next((term for term in self.objective.terms() if isinstance(term, LayerTerm)), self.objective)
        labels, seen = first.labels(), Counter[str]()
        for index in range(self.count):
            label = labels[index % len(labels)]
            # The same objective twice in one call, as diversity wants it, must start from different images.
            key = (self.seed, zlib.crc32(label.encode()), seen[label], purpose)
            seen[label] += 1
            if index in images:
                yield np.random.default_rng(key)

    def initial(self, images: range) -> Float64:
        """(images, ...): the parameters at the start."""
        if self.start is not None:
            written = [self.recipe.image.parameters_of(image) for image in self.start]
            return np.stack([written[i if len(written) > 1 else 0] for i in images])
        return np.stack([self.recipe.image.initial(rng, self.shape) for rng in self._generators(images, 0)])

    def schedule(self, images: range) -> dict[str, npt.NDArray[Any]]:
        """What changes from step to step, each array with the steps as its first axis.

        ``matrices`` (steps, rows, 2, 3), ``noise`` (steps, rows, 2) corners of windows into the noise constant, and
        the update rule's own (steps,) arrays.
        """
        schedule: dict[str, npt.NDArray[Any]] = dict(self.recipe.update.schedule(self.steps))
        views, (height, width, _) = self.recipe.views, self.shape
        drawn = [views.matrices(rng, self.steps, (height, width)) for rng in self._generators(images, 1)]
        moved = [matrices for matrices in drawn if matrices is not None]
        if moved:
            schedule["matrices"] = np.concatenate(moved, axis=1)
        if views.noise:
            corners = [
                rng.integers(0, (height, width), (self.steps, self.views, 2)) for rng in self._generators(images, 2)
            ]
            schedule["noise"] = np.concatenate(corners, axis=1)
        return schedule

    def constants(self) -> dict[str, Float64]:
        """Arrays that are the same for all images and steps."""
        constants = self.recipe.image.constants(self.shape)
        if self.recipe.views.noise:
            # Windows into one field, twice the image's size, serve all steps: fresh noise for every row and step would
            # cost more than the forward pass of a small network, and would not fit into a compiled loop.
            height, width, channels = self.shape
            field = np.random.default_rng((self.seed, _NOISE_KEY)).standard_normal((2 * height, 2 * width, channels))
            constants["noise"] = field * self.recipe.views.noise * self.recipe.image.white
        return constants

    def arrays(self, images: range) -> list[tuple[npt.NDArray[Any], ...]]:
        """For each term of the objective what differs from row to row, leading axis images * views."""
        arrays = []
        for term in self.objective.terms():
            own = (
                term.arrays()
                if term.count == self.count
                else tuple(np.repeat(a, self.count, axis=0) for a in term.arrays())
            )
            arrays.append(tuple(np.repeat(a[images.start : images.stop], self.views, axis=0) for a in own))
        return arrays

    def others(self, images: range) -> list[npt.NDArray[Any]]:
        """What the model is given beside images, leading axis images * views; see :meth:`Call.having`."""
        return self.call.rows(images, self.count, self.views)

    def last_call(self, layer: str) -> int:
        """The number, from 0, of the call of a layer that the objective looks at."""
        return self.looked_at.get(layer, max(self.listing[layer].calls, 1) - 1)

    def channel_means(self, images: range) -> dict[str, list[npt.NDArray[np.int64]]]:
        """For each layer of which nothing but spatial means of single channels is wanted: their indices (images,).

        A backend may compute these without the other channels, through :attr:`Tap.channel_mean_of`.
        """
        wanted: dict[str, list[npt.NDArray[np.int64]]] = {}
        others = set()
        for term, arrays in zip(self.objective.terms(), self.arrays(images), strict=True):
            if isinstance(term, Channel):
                wanted.setdefault(str(term.layer), []).append(arrays[0][:: self.views])
            elif isinstance(term, LayerTerm):
                others.add(str(term.layer))
        return {layer: indices for layer, indices in wanted.items() if layer not in others}

    def remarks(self, climbed: Climbed) -> list[str]:
        """For each image of a micro-batch what a user must know about it; empty where there is nothing to say."""
        labels = self.objective.labels()
        return [
            self._silent_part(labels[image], image, () if climbed.parts is None else climbed.parts[place].tolist())
            if reached
            else f"{_UNREACHED} {labels[image]!r}, so it stays unchanged: {_SILENT}"
            for place, (image, reached) in enumerate(zip(climbed.images, climbed.reached.tolist(), strict=True))
        ]

    def _silent_part(self, label: str, image: int, reached: Sequence[bool]) -> str:
        names = [part.labels() for part, _ in self.objective.parts()]
        silent = [own[image % len(own)] for own, seen in zip(names, reached, strict=False) if not seen]
        if not silent:
            return ""
        return (
            f"of {label!r} the part {' and the part '.join(map(repr, silent))} does nothing: no gradient reaches the "
            f"image from it, neither at the start nor at the end: {_SILENT}"
        )

    # Functions of one step, over Ops --------------------------------------------------------------------------------
    def score(
        self,
        ops: Ops,
        forward: Forward,
        parameters: Array,
        now: Mapping[str, Array],
        arrays: Sequence[tuple[Array, ...]],
        constants: Mapping[str, Array],
    ) -> Array:
        """(images,): the objective, averaged over the views of each image."""
        return self._scores(ops, forward, parameters, now, arrays, constants, [(self.objective, 0)])[0]

    def part_scores(
        self,
        ops: Ops,
        forward: Forward,
        parameters: Array,
        now: Mapping[str, Array],
        arrays: Sequence[tuple[Array, ...]],
        constants: Mapping[str, Array],
    ) -> list[Array]:
        """The same of each of the objective's parts, see :meth:`Objective.parts`, from one run of the network."""
        return self._scores(ops, forward, parameters, now, arrays, constants, self.objective.parts())

    def _scores(
        self,
        ops: Ops,
        forward: Forward,
        parameters: Array,
        now: Mapping[str, Array],
        arrays: Sequence[tuple[Array, ...]],
        constants: Mapping[str, Array],
        parts: Sequence[tuple[Objective, int]],
    ) -> list[Array]:
        images = self.recipe.image.image(ops, parameters, constants, self.shape)
        height, width, _ = self.shape
        rows = ops.repeat(images, self.views, 0) if self.views > 1 else images
        if "matrices" in now:
            rows = ops.warp(rows, now["matrices"], (height, width))
        if "noise" in now:
            rows = rows + self._noise(ops, constants["noise"], now["noise"])
        inputs = rows
        if self.preprocessing is not None:
            white = self.recipe.image.white
            inputs = self.preprocessing.apply(ops, rows if white == 1.0 else rows / white)
        taps, numbered = forward(inputs), list(_numbered(self.objective, arrays))
        for tap in taps.values():
            tap.check_rows(ops, ops.shape(rows)[0])
        found = []
        for part, first in parts:
            scores = part.score(ops, View(taps, rows, self.views, iter(numbered[first:])))
            found.append(ops.mean(ops.reshape(ops.cast(scores, ops.dtype(parameters)), (-1, self.views)), axis=1))
        return found

    def _noise(self, ops: Ops, field: Array, corners: Array) -> Array:
        height, width, _ = self.shape
        y = corners[:, 0, None, None] + ops.asarray(np.arange(height)[:, None])
        x = corners[:, 1, None, None] + ops.asarray(np.arange(width)[None, :])
        return ops.take(ops.reshape(field, (4 * height * width, -1)), y * (2 * width) + x, 0)

    def update(
        self, ops: Ops, parameters: Array, gradient: Array, state: State, now: Mapping[str, Array]
    ) -> tuple[Array, State]:
        """New parameters and state of the update rule."""
        return self.recipe.update.step(ops, parameters, gradient, state, now)

    def display(self, ops: Ops, parameters: Array, constants: Mapping[str, Array]) -> Array:
        """(images, H, W, C) in [0, 1]."""
        return self.recipe.image.display(ops, self.recipe.image.image(ops, parameters, constants, self.shape))


_UNREACHED = "no gradient reaches the image from"

# Zeros are all that can be seen: no framework tells a unit that is off from a path that is cut.
_SILENT = (
    "the unit gives a constant (a ReLU that is off everywhere, weights of zero), or the model cuts the way "
    "back (detach, stop_gradient, no_grad, rounding); choose a layer before the activation or before the cut, or try "
    "another seed or start"
)


def check_reached(labels: Sequence[str], remarks: Sequence[str]) -> None:
    """Raise InvalidInput where no gradient reached any of the images, so that none of them is of any use.

    Args:
        labels: of the images.
        remarks: on them, see :meth:`Ascent.remarks`.
    """
    if not remarks or not all(remark.startswith(_UNREACHED) for remark in remarks):
        return
    if len(remarks) == 1:
        raise InvalidInput(remarks[0])
    which = f"any of the {counted(len(labels), 'image')}, from {labels[0]!r} to {labels[-1]!r}"
    raise InvalidInput(f"no gradient reaches {which}, so they stay unchanged: {_SILENT}")


def _numbered(objective: Objective, arrays: Sequence[tuple[Array, ...]]) -> Iterator[tuple[Array, ...]]:
    """Each term's arrays, followed by its number among the channel terms of its layer."""
    numbers: Counter[str] = Counter()
    for term, own in zip(objective.terms(), arrays, strict=True):
        if isinstance(term, Channel):
            yield (*own, numbers[str(term.layer)])
            numbers[str(term.layer)] += 1
        else:
            yield own


class Images(np.ndarray[tuple[int, ...], np.dtype[np.float32]]):
    """(N, H, W, C) float32 in [0, 1], with what they show.

    Attributes:
        labels: a short name for each image, such as ``"blocks.3.0:5"`` or ``"espresso"``.
        scores: (steps, N) float64: the objective before each update.
        recipe: how they were found.
        remarks: one sentence for each image that does not show what was asked for, such as one that no gradient
            reached, or that a part of its objective did not; an empty string for every other image.

    Example:
        >>> found = ag.visualize(model, ag.objectives.channel("conv", range(3)), size=16, steps=2)
        >>> found[1:].labels, found.scores.shape
        (('conv:1', 'conv:2'), (2, 3))
    """

    labels: tuple[str, ...]
    scores: Float64
    recipe: Recipe
    remarks: tuple[str, ...]

    @classmethod
    def of(
        cls,
        pixels: npt.NDArray[np.float32],
        labels: Sequence[str],
        scores: Float64,
        recipe: Recipe,
        remarks: Sequence[str],
    ) -> Images:
        """The same memory, seen as Images.

        Args:
            pixels: (N, H, W, C) float32 in [0, 1].
            labels, scores, recipe, remarks: see the attributes.

        Returns:
            A view of ``pixels``.
        """
        images = pixels.view(cls)
        images.labels, images.scores, images.recipe = tuple(labels), scores, recipe
        images.remarks = tuple(remarks)
        return images

    def __getitem__(self, index: Any) -> Any:
        """The pixels; some of the images, chosen by a number, a slice or a list, keep what belongs to them."""
        found = super().__getitem__(index)
        first = index[0] if isinstance(index, tuple) and index else index
        labelled = isinstance(found, Images) and hasattr(self, "labels") and self.ndim == 4
        if labelled and isinstance(first, int | np.integer | slice | list):
            chosen = np.atleast_1d(np.arange(len(self.labels))[first])
            found.labels, found.remarks = (tuple(x[i] for i in chosen) for x in (self.labels, self.remarks))
            found.scores, found.recipe = self.scores[:, chosen], self.recipe
        return found

    def __repr__(self) -> str:
        labels = f": {display.listed(self.labels)}" if hasattr(self, "labels") else ""
        return f"<Images {' x '.join(map(str, self.shape))} {self.dtype}{labels}>"

    def __str__(self) -> str:
        return repr(self)

    def _repr_html_(self) -> str | None:
        if self.ndim != 4 or not hasattr(self, "labels") or self._repr_png_() is None:
            return None
        captions = [label for label, _ in zip(self.labels, self, strict=False)]
        notes = [f"{label}: {remark}" for label, remark in zip(self.labels, self.remarks, strict=True) if remark]
        title = f"{counted(len(self), 'image')}, recipe {self.recipe.name}"
        return display.figures(title, np.asarray(self), captions, notes)

    def _repr_png_(self) -> bytes | None:
        pixels = np.asarray(self)
        if pixels.ndim not in (3, 4) or 0 in pixels.shape or pixels.shape[-1] not in (1, 3):
            return None
        if not (pixels.min() >= 0 and pixels.max() <= 1):
            return None
        return display.png(pixels if pixels.ndim == 3 else mosaic(pixels[: display.PICTURES]))


def prepare(
    model: Model,
    objective: Objective,
    *,
    recipe: str | Recipe = "fourier",
    size: Size | None = None,
    steps: int | None = None,
    seed: int = 0,
    start: npt.ArrayLike | None = None,
    inputs: Any = None,
    image: int | str | None = None,
    channels_in: int | None = None,
) -> tuple[Backend, Ascent]:
    """Resolve and check everything that :func:`visualize` is given, without computing an image.

    Raises:
        UnknownName: no such layer, class or recipe; names the nearest.
        InvalidInput: a channel out of range, a layer that cannot serve the objective, a size or seed of the wrong kind;
            of several inputs it does not follow which one is meant, one is missing or has another number of rows, or
            the layer does not depend on the one that the picture is made for.
    """
    if not isinstance(objective, Objective):
        raise InvalidInput(
            f"an objective is made by agnostic.objectives, such as channel('layer', 5), not {objective!r}"
        )
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise InvalidInput(f"a seed is a non-negative integer, not {seed!r}")
    chosen = recipes.get(recipe, **({} if steps is None else {"steps": steps}))
    backend, card = backend_of(model), card_of(model)
    if start is not None and size is None:
        size = _pixels(start)
    form, call, trial = shown(
        backend, model, size=size, near=chosen.size, inputs=inputs, image=image, channels_in=channels_in
    )
    listing = trial.layers
    shape = (form.length("H") or 1, form.length("W") or 1, form.length("C") or 1)
    first = None if start is None else _images(start, shape[2])

    def layer(selector: Any) -> Layer:
        found = select(listing, selector)
        if len(found) != 1:
            raise InvalidInput(f"{selector!r} chooses {counted(len(found), 'layer')}; an objective looks at one")
        if trial.error is not None and not found[0].calls:
            raise refused(model, trial, form.size, others=bool(call.others))
        return found[0]

    def class_(wanted: Any) -> tuple[int, str]:
        names = None if card is None else card.class_names
        if names is None and isinstance(wanted, str):
            raise InvalidInput(f"the model has no class names to find {wanted!r} among: give the class's number")
        number = class_index(wanted, names) if names is not None else int(wanted)
        return number, class_label(number, names)

    resolved = objective.resolve(layer, class_)
    if first is not None:
        _check_start(first, shape[:2], resolved.count)
    if trial.error is not None and OUTPUT in resolved.layers():
        raise refused(model, trial, form.size, others=bool(call.others))
    place = number_of(backend, model, call)
    ascent = Ascent(
        objective=resolved,
        recipe=chosen,
        shape=shape,
        seed=int(seed),
        preprocessing=preprocessing_of(backend, model, place) if chosen.preprocess else None,
        start=first,
        listing={x.name: x for x in listing if x.name in resolved.layers()},
        input=form,
        widest=max((math.prod(n or 1 for n in x.shape[1:]) for x in listing if x.shape), default=1),
        call=call,
    )
    ascent.others(range(ascent.count))  # rows that do not fit the images are told now
    if call.place and trial.error is None:
        ascent = replace(ascent, looked_at=_looked_at(backend, model, ascent))
    return backend, ascent


def _looked_at(backend: Backend, model: Model, ascent: Ascent) -> Mapping[str, int]:
    def picture(number: int) -> npt.NDArray[np.float32]:
        noise = np.random.default_rng(number).random((1, *ascent.shape))
        return ascent.input.arrange(preprocessed(noise, ascent.preprocessing))

    layers = [x for x in ascent.objective.layers() if x != OUTPUT]
    return calls_reached(backend, model, ascent.call.first(), picture, layers) if layers else {}


def shown(
    backend: Backend,
    model: Model,
    *,
    size: Size | None,
    near: Size,
    inputs: Any = None,
    image: int | str | None = None,
    channels_in: int | None = None,
) -> tuple[Input, Call, Trial]:
    """What the model's images look like, what it is called with around them, and a run on one of that shape.

    The run may have failed beyond some layer, as where a dense head does not fit another size.

    Args:
        size: None: the model's own; where it has none, ``near``.
        inputs, image: see :func:`visualize`.

    Raises:
        InvalidInput: the model takes no images, or no layer takes images of this size.
    """
    form, call = picture_call(backend, model, inputs=inputs, image=image, size=size, channels=channels_in, near=near)
    trial = backend[INPUTS].trial(model, call.first().native(backend, model, form.zeros()))
    if trial.error is not None and not any(x.calls for x in trial.layers):
        raise refused(model, trial, form.size, others=bool(call.others))
    return form, call, trial


def _pixels(start: npt.ArrayLike) -> tuple[int, int]:
    """Height and width of what a user gives to start from."""
    given = np.asarray(start)
    if given.ndim not in (3, 4) or not given.size:
        what = f"shape {given.shape}" if given.ndim else describe(start)
        raise InvalidInput(f"a start is an image (H, W, C) or one for each image (N, H, W, C), not {what}")
    return given.shape[-3], given.shape[-2]


def _images(start: npt.ArrayLike, channels: int) -> Float64:
    """(1 or more, H, W, C) float64 in [0, 1], from what a user gives to start from."""
    given = np.asarray(start)
    images = given[None] if given.ndim == 3 else given
    if images.ndim != 4 or images.shape[3] != channels or 0 in images.shape:
        raise InvalidInput(
            f"a start is an image (H, W, {channels}) or one for each image, channels last, not {np.shape(start)}"
        )
    if images.dtype == np.uint8:
        return images / 255
    # Written so that NaN fails as well.
    if not (np.issubdtype(images.dtype, np.floating) and images.min() >= 0 and images.max() <= 1):
        found = f"in [{images.min()}, {images.max()}]" if images.dtype.kind == "f" else str(images.dtype)
        raise InvalidInput(f"a start is uint8, or floating point and in [0, 1], not {found}")
    return images.astype(np.float64)


def _check_start(start: Float64, size: tuple[int, int], count: int) -> None:
    if start.shape[1:3] != size:
        have, want = (f"{height} x {width}" for height, width in (start.shape[1:3], size))
        raise InvalidInput(f"the start is {have} pixels and the size {want}: leave size out, or resize the start")
    if len(start) not in (1, count):
        raise InvalidInput(
            f"{counted(len(start), 'start')} for {counted(count, 'image')}: give one for all of them, or one for each"
        )


def visualize(
    model: Model,
    objective: Objective,
    *,
    recipe: str | Recipe = "fourier",
    size: Size | None = None,
    steps: int | None = None,
    seed: int = 0,
    start: npt.ArrayLike | None = None,
    inputs: Any = None,
    image: int | str | None = None,
    channels_in: int | None = None,
    micro_batch: int | None = None,
    dtype: str | None = None,
    memory_format: str | None = None,
    device: str | None = None,
    on_step: Callable[[int], None] | None = None,
) -> Images:
    """Images that maximize an objective, by gradient ascent.

    Args:
        model: a native model. Its weights are neither changed nor differentiated, its mode (train, eval) is left as
            it is; the images are computed in inference mode.
        objective: from :mod:`agnostic.visualization.objectives`.
        recipe: a recipe of :mod:`agnostic.visualization.recipes`, or its name.
        size: height and width in pixels, one number or two; None is that of ``start``, else the model's own, or the
            recipe's where the model has none. A layer that runs before a part of fixed size (a dense head) can be drawn
            in any size.
        steps: number of updates; None is the recipe's.
        seed: of all randomness. The same seed and call give the same images, whatever the micro-batch.
        start: what to start from instead of noise: an image (H, W, C), or one for each image (N, H, W, C); uint8, or
            floating point in [0, 1]. Recipes in ``fourier``'s way of writing an image down take it as it is but for
            black and white, ``classic`` shows it with its own contrast, and ``maco`` takes its phase, which has the
            edges.
        inputs: of a model with several inputs, what it is called with, as in :func:`agnostic.capture`: a tuple of
            positional inputs, or a dict of named ones, nested as the model takes them. None, or nothing for a name,
            stands in the place of the picture: ``(None, age)`` or ``{"age": age}``; an example of the picture is taken
            for its shape alone. The others are fixed: native or NumPy arrays in the model's own layout and range, with
            a batch of 1 for all images, or a row for each.
        image: position or name of the input that the picture is made for, where ``inputs`` does not tell. Of a layer
            that runs several times, as a tower that two inputs share, the last call that depends on it is looked at.
        channels_in: channels of the images, where the model does not tell.
        micro_batch, dtype, memory_format, device, on_step: see :class:`Settings`.

    Returns:
        (N, H, W, C) float32 in [0, 1]; see :class:`Images`. An image that no gradient reached is its own start, and has
        a sentence in ``.remarks``.

    Raises:
        UnknownName, InvalidInput: see :func:`prepare`.
        InvalidInput: no gradient reaches any of the images.
        NonFinite: the objective or its gradient stopped being finite; says at which step.

    Example:
        >>> found = ag.visualize(model, ag.objectives.channel("conv", [0, 5]), size=16, steps=2, seed=0)
        >>> found
        <Images 2 x 16 x 16 x 3 float32: conv:0, conv:5>
    """
    backend, ascent = prepare(
        model, objective, recipe=recipe, size=size, steps=steps, seed=seed, start=start, inputs=inputs, image=image,
        channels_in=channels_in,
    )  # fmt: skip
    settings = Settings(micro_batch, dtype, memory_format, device, on_step)
    pixels = np.empty((ascent.count, *ascent.shape), np.float32)
    scores = np.empty((ascent.steps, ascent.count))
    remarks: list[str] = []
    for climbed in backend[ASCENT].ascend(model, ascent, settings):
        images = climbed.images
        pixels[images.start : images.stop] = climbed.pixels
        scores[:, images.start : images.stop] = climbed.scores
        remarks += ascent.remarks(climbed)
    labels = ascent.objective.labels()
    check_reached(labels, remarks)
    return Images.of(pixels, labels, scores, ascent.recipe, remarks)
