"""Gradient ascent on images: the mathematics, once. A backend runs the loop; see :mod:`agnostic.contracts.ascent`."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from agnostic.checks import one_of
from agnostic.errors import InvalidInput, NonFinite
from agnostic.layers import Layer
from agnostic.models.call import ModelCall
from agnostic.models.cards import Preprocessing
from agnostic.models.forms import Input
from agnostic.ops import Array, Ops
from agnostic.renamed import old_names
from agnostic.text import counted
from agnostic.visualization import recipes
from agnostic.visualization.grids import token_grid
from agnostic.visualization.layered import backgrounds
from agnostic.visualization.objective import Objective, View
from agnostic.visualization.recipes import Recipe
from agnostic.visualization.robustness import blurring
from agnostic.visualization.taps import Tap
from agnostic.visualization.terms import Channel, Head
from agnostic.visualization.updates import State

Float64 = npt.NDArray[np.float64]
Forward = Callable[[Array], Mapping[str, Tap]]
"""A function of the backend: inputs of the model, channels last, to the taps of the objective's layers."""

_NOISE_KEY = zlib.crc32(b"noise")
_BACKGROUND_KEY = zlib.crc32(b"background")


@dataclass(frozen=True)
class Settings:
    """How an ascent is computed: changes the speed, not the result. None: the backend chooses.

    Attributes:
        micro_batch: number of images that are computed together.
        dtype: of the network: ``"float32"``, ``"bfloat16"``, ``"float64"`` or ``"float16"``. The image, its gradient
            and the update are float32, or float64 with a float64 network. In PyTorch on a GPU float32 is TF32 where the
            framework's own settings say so, and never if it is asked for here by name.
        memory_format: ``"channels_last"`` or ``"contiguous"``, if the framework has both.
        device: as the framework names it, such as ``"cuda:0"``; None: the device of the model.
        on_step: called after every step with the number of images that it advanced.
        every: after so many steps, and at the end, ``on_images`` is called.
        on_images: called with the images' numbers, the steps that are done, and the images as they are,
            (n, H, W, C) float32 in [0, 1].
    """

    micro_batch: int | None = None
    dtype: str | None = None
    memory_format: str | None = None
    device: str | None = None
    on_step: Callable[[int], None] | None = field(default=None, compare=False)
    every: int | None = None
    on_images: Callable[[range, int, npt.NDArray[np.float32]], None] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if self.every is not None and not recipes.is_count(self.every):
            raise InvalidInput(f"every is a number of steps, at least 1, not {self.every!r}")
        if self.micro_batch is not None and not recipes.is_count(self.micro_batch):
            raise InvalidInput(
                f"micro_batch is the number of images computed together, at least 1, not {self.micro_batch!r}"
            )
        if self.dtype is not None:
            one_of("dtype", self.dtype, ("float32", "bfloat16", "float64", "float16"))
        if self.memory_format is not None:
            one_of("memory_format", self.memory_format, ("channels_last", "contiguous"))


@dataclass(frozen=True)
class Climbed:
    """A micro-batch of images that a backend has finished.

    Attributes:
        images: which of the ascent's images these are.
        pixels: (n, H, W, C) float32 in [0, 1].
        scores: (steps, n) float64: the objective before each update.
        reached: (n,) whether, in any step, any number of the gradient that the network passed back to any view of the
            image differed from zero. An image that no gradient reached is still its start; see :meth:`Ascent.remarks`.
        parts: (n, parts) the same for each part of the objective (:meth:`Ascent.part_scores`), at the start or at the
            end; None where the objective has one part.
        importance: (n, H, W) float32, see :attr:`agnostic.visualization.images.Images.importance`; None where the
            recipe does not keep it.
        computed: the type that the network computed in, such as ``"bfloat16"``; ``"tf32"`` where a GPU multiplies
            float32 with 10 bits.
    """

    images: range
    pixels: npt.NDArray[np.float32]
    scores: Float64
    reached: npt.NDArray[np.bool_]
    parts: npt.NDArray[np.bool_] | None = None
    importance: npt.NDArray[np.float32] | None = None
    computed: str = ""


_IMAGES_ALONE = ModelCall()
_AS_COMPUTED = Input((None, None, None, None), "NHWC")


@dataclass(frozen=True)
class Ascent:
    """One objective maximized by one recipe: all numbers of the ascent, and the functions of one step.

    All random numbers and schedules are computed here, in NumPy float64, for each image separately. The stream of an
    image depends on the seed and on its objective, so the image is the same in any batch and micro-batch.

    Attributes:
        objective: resolved: the model's own layer names, class numbers instead of names.
        recipe: how the images are found.
        shape: (height, width, channels) of the images.
        seed: of all randomness.
        preprocessing: from [0, 1] to the range of the model; None: the model gets the image as it is.
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
    """The input of the model that the image is for; by default channels last."""
    call: ModelCall = _IMAGES_ALONE
    """The arguments of the model's call; by default only the images."""
    looked_at: Mapping[str, int] = field(default_factory=dict)
    """By layer the number of the call that the objective looks at, from 0; the last one of a layer that is not here."""

    unused: tuple[str, ...] = field(default=(), compare=False)
    """Layers that run only after all that the objective looks at, for a backend that need not copy their weights."""

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

    @property
    def shown(self) -> tuple[int, int, int]:
        """(height, width, channels) of the finished images."""
        times, (height, width, channels) = self.recipe.image.enlarged, self.shape
        return height * times, width * times, channels + int(self.recipe.image.alpha)

    # Numbers, in NumPy ----------------------------------------------------------------------------------------------
    def initial(self, images: range) -> Float64:
        """(images, ...): the parameters at the start."""
        if self.start is not None:
            written = [self.recipe.image.parameters_of(image) for image in self.start]
            return np.stack([written[i if len(written) > 1 else 0] for i in images])
        return np.stack([self.recipe.image.initial(rng, self.shape) for rng in _generators(self, images, 0)])

    def schedule(self, images: range) -> dict[str, npt.NDArray[Any]]:
        """The numbers that change from step to step; the first axis of each array is the step.

        ``matrices`` (steps, rows, 2, 3), ``noise`` and ``background`` (steps, rows, 2) corners of windows into the
        constants of these names, and the update rule's own (steps,) arrays.
        """
        schedule: dict[str, npt.NDArray[Any]] = dict(self.recipe.update.schedule(self.steps))
        views, (height, width, _) = self.recipe.views, self.shape
        drawn = [views.matrices(rng, self.steps, (height, width)) for rng in _generators(self, images, 1)]
        moved = [matrices for matrices in drawn if matrices is not None]
        if moved:
            schedule["matrices"] = np.concatenate(moved, axis=1)
        windows = {"noise": (2, bool(views.noise)), "background": (3, self.recipe.image.alpha)}
        for name, (purpose, is_wanted) in windows.items():
            if is_wanted:
                corners = [
                    rng.integers(0, (height, width), (self.steps, self.views, 2))
                    for rng in _generators(self, images, purpose)
                ]
                schedule[name] = np.concatenate(corners, axis=1)
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
        if self.recipe.image.alpha:
            height, width, channels = self.shape
            rng = np.random.default_rng((self.seed, _BACKGROUND_KEY))
            constants["background"] = backgrounds(rng, (2 * height, 2 * width, channels))
        if self.recipe.views.blur:
            for name, length in zip(("blur down", "blur across"), self.shape[:2], strict=True):
                constants[name] = blurring(length, self.recipe.views.blur)
        return constants

    def arrays(self, images: range) -> list[tuple[npt.NDArray[Any], ...]]:
        """The arrays of each term that differ from row to row, with leading axis images * views."""
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
        """The other inputs of the model, with leading axis images * views; see :meth:`ModelCall.having`."""
        return self.call.rows(images, self.count, self.views)

    def last_call(self, layer: str) -> int:
        """The number, from 0, of the call of a layer that the objective uses."""
        return self.looked_at.get(layer, max(self.listing[layer].calls, 1) - 1)

    def channel_means(self, images: range) -> dict[str, list[npt.NDArray[np.int64]]]:
        """The channel indices (images,) of each layer that is used only through spatial means of single channels.

        A backend may compute these without the other channels, through :attr:`Tap.channel_mean_of`.
        """
        wanted: dict[str, list[npt.NDArray[np.int64]]] = {}
        others: set[str] = set()
        for term, arrays in zip(self.objective.terms(), self.arrays(images), strict=True):
            if isinstance(term, Channel):
                wanted.setdefault(str(term.layer), []).append(arrays[0][:: self.views])
            else:
                others.update(term.uses())
        return {layer: indices for layer, indices in wanted.items() if layer not in others}

    # Functions of one step, over Ops --------------------------------------------------------------------------------
    def score(
        self,
        ops: Ops,
        forward: Forward,
        parameters: Array,
        now: Mapping[str, Array],
        arrays: Sequence[tuple[Array, ...]],
        constants: Mapping[str, Array],
        added: Array | None = None,
    ) -> Array:
        """(images,): the objective, averaged over the views of each image.

        ``added``: zeros (images, H, W, channels) that are added to the images, for the gradient with respect to pixels.
        """
        return _scores(self, ops, forward, parameters, now, arrays, constants, [(self.objective, 0)], added)[0]

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
        return _scores(self, ops, forward, parameters, now, arrays, constants, self.objective.parts())

    def update(
        self, ops: Ops, parameters: Array, gradient: Array, state: State, now: Mapping[str, Array]
    ) -> tuple[Array, State]:
        """New parameters and state of the update rule."""
        return self.recipe.update.step(ops, parameters, gradient, state, now)

    def display(self, ops: Ops, parameters: Array, constants: Mapping[str, Array]) -> Array:
        """(images, H, W, C) in [0, 1], of the shape :attr:`shown`."""
        shape = (*self.shown[:2], self.shape[2])
        return self.recipe.image.display(ops, self.recipe.image.image(ops, parameters, constants, shape))


def layers_of_heads(ascent: Ascent) -> frozenset[str]:
    """The attention layers of which the heads are looked at, before the projection of their output."""
    layers = ascent.listing
    terms = [x for x in ascent.objective.terms() if any(name in layers and layers[name].heads for name in x.uses())]
    found = frozenset(str(x.layer) for x in terms if isinstance(x, Head))
    if other := next((x for x in terms if not isinstance(x, Head) and found & {*x.uses()}), None):
        raise InvalidInput(
            f"{other.labels()[0]!r} looks at what a layer returns of which another term looks at the heads: draw the "
            "two one after the other"
        )
    return found


def is_coupled(ascent: Ascent) -> bool:
    """Whether one image depends on the others, so that all must be computed together."""
    return ascent.objective.coupled or ascent.recipe.image.couples


def pixel_importance(ops: Ops, gradient: Array) -> Array:
    """(images, H, W): what one step adds to the importance of pixels.

    Args:
        ops: the array operations.
        gradient: of the objective with respect to the images, (images, H, W, channels).

    Source: Fel et al., 2023 (see :class:`agnostic.visualization.parameterization.Phase`), section 3.3.
    """
    return ops.sum(ops.abs(gradient), 3)


def _generators(ascent: Ascent, images: range, purpose: int) -> Iterator[np.random.Generator]:
    """A random generator for each of the images, and for one purpose."""
    # By the first layer of the objective: a regularizer added to an objective must not change where it starts.
    terms = list(ascent.objective.terms())
    labels, seen = next((term for term in terms if term.uses()), ascent.objective).labels(), Counter[str]()
    alike = any(term.starts_alike for term in terms)
    for index in range(ascent.count):
        if alike:
            if index in images:
                yield np.random.default_rng((ascent.seed, zlib.crc32(labels[0].encode()), 0, purpose))
            continue
        label = labels[index % len(labels)]
        # The same objective twice in one call, as diversity wants it, must start from different images.
        key = (ascent.seed, zlib.crc32(label.encode()), seen[label], purpose)
        seen[label] += 1
        if index in images:
            yield np.random.default_rng(key)


def _scores(
    ascent: Ascent,
    ops: Ops,
    forward: Forward,
    parameters: Array,
    now: Mapping[str, Array],
    arrays: Sequence[tuple[Array, ...]],
    constants: Mapping[str, Array],
    parts: Sequence[tuple[Objective, int]],
    added: Array | None = None,
) -> list[Array]:
    images = ascent.recipe.image.image(ops, parameters, constants, ascent.shape)
    images = images if added is None else images + added
    height, width, channels = ascent.shape
    rows = ops.repeat(images, ascent.views, 0) if ascent.views > 1 else images
    if ascent.recipe.views.wraps:
        rows = ops.concatenate([rows, rows], 1)
        rows = ops.concatenate([rows, rows], 2)
    if "matrices" in now:
        rows = ops.warp(rows, now["matrices"], (height, width))
    opacity = None
    if ascent.recipe.image.alpha:
        opacity = ops.repeat(ops.mean(images[..., channels:], (1, 2, 3)), ascent.views, 0)
        alpha = rows[..., channels:]
        behind = _window(ops, constants["background"], now["background"], ascent.shape)
        rows = rows[..., :channels] * alpha + behind * (1 - alpha)
    if "blur down" in constants:
        rows = ops.einsum("yh,nhwc,xw->nyxc", constants["blur down"], rows, constants["blur across"])
    if "noise" in now:
        rows = rows + _window(ops, constants["noise"], now["noise"], ascent.shape)
    inputs = ascent.input.unfolded(ops, rows)
    if ascent.preprocessing is not None:
        white = ascent.recipe.image.white
        inputs = ascent.preprocessing.apply(ops, inputs if white == 1.0 else inputs / white)
    taps, numbered = _on_grids(ascent, forward(inputs)), list(_numbered(ascent.objective, arrays))
    for tap in taps.values():
        tap.check_rows(ops, ops.shape(rows)[0])
    found = []
    for part, first in parts:
        scores = part.score(ops, View(taps, rows, ascent.views, iter(numbered[first:]), opacity))
        found.append(ops.mean(ops.reshape(ops.cast(scores, ops.dtype(parameters)), (-1, ascent.views)), axis=1))
    return found


def _on_grids(ascent: Ascent, taps: Mapping[str, Tap]) -> dict[str, Tap]:
    """The taps, with the grid of those that are tokens."""
    grids = {name: token_grid(layer, ascent.shape[:2]) for name, layer in ascent.listing.items()}
    return {name: replace(tap, grid=grids[name]) if grids.get(name) else tap for name, tap in taps.items()}


def _window(ops: Ops, field: Array, corners: Array, shape: tuple[int, int, int]) -> Array:
    """(rows, H, W, C): a part of a field of twice the height and width for each row, from its corner on."""
    height, width, _ = shape
    y = corners[:, 0, None, None] + ops.asarray(np.arange(height)[:, None])
    x = corners[:, 1, None, None] + ops.asarray(np.arange(width)[None, :])
    return ops.take(ops.reshape(field, (4 * height * width, -1)), y * (2 * width) + x, 0)


def check_finite(
    ascent: Ascent, images: range, scores: npt.NDArray[np.floating], finite: npt.NDArray[np.bool_], before: int = 0
) -> None:
    """Raise NonFinite for the first step whose score or gradient is not finite.

    Args:
        ascent: what was climbed.
        images: which of its images these are.
        scores: (steps, n): the objective in some steps, one after the other.
        finite: (steps, n): whether its gradient was finite.
        before: number of steps before these.
    """
    known = np.isfinite(scores)
    for step, place in np.argwhere(~(known & finite))[:1].tolist():
        what = "gradient of the objective" if known[step, place] else "objective"
        raise NonFinite(
            f"the {what} for {ascent.objective.labels()[images[place]]!r} is not finite at step {before + step + 1} of "
            f"{ascent.steps}: check the model's weights and the range of its input, or use dtype='float32'"
        )


def remarks_on(ascent: Ascent, climbed: Climbed) -> list[str]:
    """A remark on each image of a micro-batch for the user; empty if there is none."""
    objective, labels = ascent.objective, ascent.objective.labels()
    return [
        _silent_part(objective, labels[image], image, () if climbed.parts is None else climbed.parts[place].tolist())
        if reached
        else f"{_UNREACHED} {labels[image]!r}, so it stays unchanged: {_SILENT}"
        for place, (image, reached) in enumerate(zip(climbed.images, climbed.reached.tolist(), strict=True))
    ]


def _silent_part(objective: Objective, label: str, image: int, reached: Sequence[bool]) -> str:
    parts = [(part.labels(), part.off(image % part.count)) for part, _ in objective.parts()]
    silent = [own[image % len(own)] for (own, off), seen in zip(parts, reached, strict=False) if not (seen or off)]
    if not silent:
        return ""
    return (
        f"of {label!r} the part {' and the part '.join(map(repr, silent))} does nothing: no gradient reaches the "
        f"image from it, neither at the start nor at the end: {_SILENT}"
    )


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


if not TYPE_CHECKING:
    __getattr__ = old_names(
        __name__,
        {"Images": "agnostic.visualization.images:Images", "visualize": "agnostic.visualization.verb:visualize"},
    )
