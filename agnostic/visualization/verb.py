"""``visualize``: resolve and check its arguments, then let the model's backend run the ascent."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from agnostic.arrays import describe
from agnostic.contracts.ascent import ASCENT
from agnostic.contracts.inputs import INPUTS
from agnostic.contracts.taps import TAPS
from agnostic.errors import InvalidInput
from agnostic.layers import Layer, select
from agnostic.models.attached import card_of
from agnostic.models.call import ModelCall, number_of, picture_call
from agnostic.models.cards import ModelCard, Preprocessing
from agnostic.models.classes import class_index, class_label
from agnostic.models.forms import Input, ModelRun
from agnostic.models.inputs import Size, refused, sides
from agnostic.models.preparing import images_for, preprocessed, preprocessing_of
from agnostic.registry import Backend, Model, backend_of
from agnostic.text import counted
from agnostic.visualization import recipes
from agnostic.visualization.ascent import Ascent, Settings, check_reached, remarks_on
from agnostic.visualization.images import Images
from agnostic.visualization.live import NotebookPicture
from agnostic.visualization.objective import OUTPUT, ModelLookup, Objective, check_ran
from agnostic.visualization.reach import calls_reached
from agnostic.visualization.recipes import Recipe

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Options:
    """How images are made, whatever they show: the arguments of :func:`visualize` with these names."""

    recipe: str | Recipe = "fourier"
    size: Size | None = None
    steps: int | None = None
    seed: int = 0
    start: npt.ArrayLike | None = None
    inputs: Any = None
    image: int | str | None = None
    channels_in: int | None = None

    def checked_recipe(self) -> Recipe:
        """The recipe, with as many steps as are asked for.

        Raises:
            UnknownName: there is no such recipe.
            InvalidInput: a number is out of its range.
        """
        if isinstance(self.seed, bool) or not isinstance(self.seed, int | np.integer) or self.seed < 0:
            raise InvalidInput(f"a seed is a non-negative integer, not {self.seed!r}")
        return recipes.get(self.recipe, **({} if self.steps is None else {"steps": self.steps}))


def prepare(model: Model, objective: Objective, options: Options) -> tuple[Backend, Ascent]:
    """Resolve and check the arguments of :func:`visualize`, without computing an image.

    Raises:
        UnknownName: no such layer, class or recipe; the message names the nearest.
        InvalidInput: a channel out of range, a layer that does not fit the objective, a size or seed of the wrong type;
            for a model with several inputs: it is not clear which one the image is for, an input is missing or has a
            wrong number of rows, or the layer does not depend on the input of the image.
    """
    if not isinstance(objective, Objective):
        raise InvalidInput(
            f"an objective is made by agnostic.objectives, such as channel('layer', 5), not {objective!r}"
        )
    tried = _tried(backend_of(model), model, options)
    backend, recipe, form, call = tried.backend, tried.recipe, tried.form, tried.call
    shape = form.pixels
    first = None if options.start is None else _images(options.start, shape[2])
    resolved = objective.resolve(
        ModelLookup(tried.layer, functools.partial(_class, card_of(model)), shape[:2], tried.measured)
    )
    _check_views(resolved, recipe)
    if first is not None:
        _check_start(first, shape[:2], resolved.count)
    if tried.failed is not None and OUTPUT in resolved.layers():
        raise tried.failed
    layers = tried.run.layers
    ascent = Ascent(
        objective=resolved,
        recipe=recipe,
        shape=shape,
        seed=int(options.seed),
        preprocessing=tried.preprocessing,
        start=first,
        listing={x.name: x for x in layers if x.name in resolved.layers()},
        input=form,
        widest=max((math.prod(n or 1 for n in x.shape[1:]) for x in layers if x.shape), default=1),
        call=call,
        unused=_after(layers, resolved.layers()),
    )
    ascent.others(range(ascent.count))  # raises for rows that do not fit the images
    if call.place and tried.failed is None:
        ascent = replace(ascent, looked_at=_looked_at(backend, model, ascent))
    return backend, ascent


def measurer(
    backend: Backend, model: Model, layer: Any, options: Options
) -> tuple[str, Callable[[str, npt.NDArray[Any]], Float64]]:
    """The model's own name of a layer, and what measures photos there; see :attr:`ModelLookup.measure`.

    Raises:
        InvalidInput, UnknownName: see :func:`prepare`.
    """
    tried = _tried(backend, model, options)
    found = tried.layer(layer)
    check_ran(found)
    return found.name, tried.measured


@dataclass(frozen=True)
class _Tried:
    """A model and how an ascent runs it, tried on one image.

    Attributes:
        backend, model: the model and who runs it.
        recipe: how images are found.
        form, call: the form of the images, and the other arguments of the call.
        run: the trial.
        failed: what to tell of the trial where it did not reach its end.
        preprocessing: from [0, 1] to the range of the model; None: the model gets images as they are.
    """

    backend: Backend
    model: Model
    recipe: Recipe
    form: Input
    call: ModelCall
    run: ModelRun
    failed: Exception | None
    preprocessing: Preprocessing | None

    def layer(self, selector: Any) -> Layer:
        """The one layer of an objective."""
        found = select(self.run.layers, selector)
        if len(found) != 1:
            raise InvalidInput(f"{selector!r} chooses {counted(len(found), 'layer')}; an objective needs exactly one")
        if self.failed is not None and not found[0].calls:
            raise self.failed
        return found[0]

    def measured(self, layer: str, photos: npt.NDArray[Any]) -> Float64:
        """(N, channels, positions): what a layer returns for photos, as the ascent's network would see them."""
        backend, recipe = self.backend, self.recipe
        if "D" in self.form.axes:
            raise InvalidInput("the objective compares with photos, and the model takes volumes: choose another one")
        pixels = images_for(self.form, photos)
        given = preprocessed(pixels, self.preprocessing) * np.float32(1.0 if recipe.preprocess else recipe.image.white)
        found = []
        for one in given:  # one by one, so that a folder of photos takes no more memory than one of them
            native = self.call.first().native(backend, self.model, self.form.arrange(one[None]))
            record = backend[TAPS].capture(self.model, native, [layer]).numpy()
            value, axes = np.asarray(record.calls(layer)[-1], np.float64), record.axes(layer) or ""
            order = [axes.index("N"), axes.index("C"), *(i for i, axis in enumerate(axes) if axis not in "NC")]
            moved = np.transpose(value, order)
            found.append(moved.reshape(*moved.shape[:2], -1))
        return np.concatenate(found)


def _tried(backend: Backend, model: Model, options: Options) -> _Tried:
    recipe = options.checked_recipe()
    form, call, run = shown(backend, model, options)
    failed = None if run.error is None else refused(model, run, form.size, others=bool(call.others))
    place = number_of(backend, model, call)
    preprocessing = preprocessing_of(backend, model, place) if recipe.preprocess else None
    return _Tried(backend, model, recipe, form, call, run, failed, preprocessing)


def _check_views(objective: Objective, recipe: Recipe) -> None:
    """Raise InvalidInput where the recipe does not fit: its views move places far, or its images have no alpha."""
    term = next((term for term in objective.terms() if term.keeps_places), None)
    if term is not None and not recipe.views.keeps_places:
        raise InvalidInput(
            f"{term.labels()[0]!r} compares places of the image with those of a photo, which the random crops of "
            f"{recipe.name!r} move: use recipe='jitter'"
        )
    if not recipe.image.alpha and any(term.sees_alpha for term in objective.terms()):
        raise InvalidInput(
            f"the images of {recipe.name!r} are opaque, so they have no opacity: use a recipe with an alpha, such as "
            "fourier(image=Alpha()), with Alpha of agnostic.visualization.layered"
        )


def _after(listing: Sequence[Layer], wanted: Sequence[str]) -> tuple[str, ...]:
    """The layers that run only after all wanted ones have returned; none where that is not sure."""
    places = [i for i, layer in enumerate(listing) if layer.name in wanted]
    if OUTPUT in wanted or not places or any(listing[i].calls != 1 for i in places):
        return ()
    # What runs inside of a layer follows it.
    inside = tuple(f"{name}." for name in wanted)
    later = [x for x in listing[max(places) + 1 :] if x.calls and not x.name.startswith(inside)]
    return tuple(x.name for x in later)


def _class(card: ModelCard | None, wanted: Any) -> tuple[int, str]:
    """The number and the label of a class, by its name or number."""
    names = None if card is None else card.class_names
    if names is None and isinstance(wanted, str):
        raise InvalidInput(f"the model has no class names to find {wanted!r} among: give the class's number")
    number = class_index(wanted, names) if names is not None else int(wanted)
    return number, class_label(number, names)


def _looked_at(backend: Backend, model: Model, ascent: Ascent) -> Mapping[str, int]:
    def picture(number: int) -> npt.NDArray[np.float32]:
        noise = np.random.default_rng(number).random((1, *ascent.shape))
        return ascent.input.arrange(preprocessed(noise, ascent.preprocessing))

    layers = [x for x in ascent.objective.layers() if x != OUTPUT]
    return calls_reached(backend, model, ascent.call.first(), picture, layers) if layers else {}


def shown(backend: Backend, model: Model, options: Options) -> tuple[Input, ModelCall, ModelRun]:
    """The form of the model's images, the other arguments of its call, and a trial run on one image.

    The run may fail after some layer, for example where a dense head does not fit another size. The size is that of the
    options, or of their start; else the model's own, or the recipe's where the model has none.

    Raises:
        InvalidInput: the model takes no images, or no layer takes images of this size.
    """
    size = _pixels(options.start) if options.size is None and options.start is not None else options.size
    form, call = picture_call(
        backend, model, inputs=options.inputs, image=options.image, size=size, channels=options.channels_in,
        near=options.checked_recipe().size, drawn=True,
    )  # fmt: skip
    if form.length("D") is not None and options.start is not None:
        raise InvalidInput("the frames of a volume start from noise: leave out start")
    if "L" in form.axes and form.length("L") is None:
        form = form.having(L=sides(options.checked_recipe().size)[1])
    trial = backend[INPUTS].trial(model, call.first().native(backend, model, form.zeros()))
    if trial.error is not None and not any(x.calls for x in trial.layers):
        raise refused(model, trial, form.size, others=bool(call.others))
    return form, call, trial


def _pixels(start: npt.ArrayLike) -> tuple[int, int]:
    """Height and width of the image that the user starts from."""
    given = np.asarray(start)
    if given.ndim not in (3, 4) or not given.size:
        what = f"shape {given.shape}" if given.ndim else describe(start)
        raise InvalidInput(f"start is an image (H, W, C) or one per image (N, H, W, C), not {what}")
    return given.shape[-3], given.shape[-2]


def _images(start: npt.ArrayLike, channels: int) -> Float64:
    """(1 or more, H, W, C) float64 in [0, 1], from the argument ``start``."""
    given = np.asarray(start)
    images = given[None] if given.ndim == 3 else given
    if images.ndim != 4 or images.shape[3] != channels or 0 in images.shape:
        raise InvalidInput(
            f"start is an image (H, W, {channels}) or one per image, channels last, not {np.shape(start)}"
        )
    if images.dtype == np.uint8:
        return images / 255
    # Written so that NaN fails as well.
    if not (np.issubdtype(images.dtype, np.floating) and images.min() >= 0 and images.max() <= 1):
        found = f"in [{images.min()}, {images.max()}]" if images.dtype.kind == "f" else str(images.dtype)
        raise InvalidInput(f"start is uint8, or floating point in [0, 1], not {found}")
    return images.astype(np.float64)


def _check_start(start: Float64, size: tuple[int, int], count: int) -> None:
    if start.shape[1:3] != size:
        have, want = (f"{height} x {width}" for height, width in (start.shape[1:3], size))
        raise InvalidInput(f"the start is {have} pixels and the size {want}: leave out size, or resize the start")
    if len(start) not in (1, count):
        raise InvalidInput(
            f"{counted(len(start), 'start')} for {counted(count, 'image')}: give one for all images, or one per image"
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
    every: int | None = None,
    on_images: Callable[[range, int, npt.NDArray[np.float32]], None] | None = None,
    live: bool = False,
) -> Images:
    """Images that maximize an objective, by gradient ascent.

    Args:
        model: a native model. Its weights and its mode (train, eval) are not changed; the images are computed in
            inference mode.
        objective: from :mod:`agnostic.visualization.objectives`.
        recipe: a recipe of :mod:`agnostic.visualization.recipes`, or its name.
        size: height and width in pixels, one number or two. None: the size of ``start``, else the model's own, else the
            recipe's. Layers before a part of fixed size (a dense head) can be drawn in any size.
        steps: number of updates; None: the recipe's.
        seed: seed of all random numbers, which are the same on any device. On one processor the same seed and call give
            the same images for any micro-batch; a GPU may round otherwise in another micro-batch.
        start: the image to start from instead of noise: (H, W, C), or one per image (N, H, W, C); uint8, or floating
            point in [0, 1]. ``fourier`` and ``jitter`` start from it as it is, except for pure black and white;
            ``classic`` changes its contrast; ``maco`` takes its phase, which has the edges.
        inputs: for a model with several inputs: its arguments as in :func:`agnostic.capture`, a tuple of positional
            inputs or a dict of named ones, nested as the model takes them. None (or a missing name) marks the place of
            the image: ``(None, age)`` or ``{"age": age}``. An example image there is used only for its shape. The
            other inputs are fixed: native or NumPy arrays in the model's own layout and range, with a batch of 1 for
            all images, or one row per image.
        image: position or name of the input that the image is made for, if ``inputs`` does not show it. If a layer runs
            several times, such as a tower that two inputs share, its last call that depends on the image counts.
        channels_in: number of channels of the images, if the model does not declare it.
        micro_batch, dtype, memory_format, device, on_step, every, on_images: see :class:`Settings`.
        live: show the images in a notebook while they are drawn.

    Returns:
        (N, H, W, C) float32 in [0, 1]; see :class:`Images`. An image that no gradient reached is unchanged, and
        has a sentence in ``.remarks``. A model that takes rows, such as sounds, gives images one pixel high; one that
        takes volumes, such as videos, gives their frames side by side, (N, H, D * W, C).

    Raises:
        UnknownName, InvalidInput: see :func:`prepare`.
        InvalidInput: no gradient reaches any of the images.
        NonFinite: the objective or its gradient is not finite; the message names the step.

    Example:
        >>> found = ag.visualize(model, ag.objectives.channel("conv", [0, 5]), size=16, steps=2, seed=0)
        >>> found
        <Images 2 x 16 x 16 x 3 float32: conv:0, conv:5>
    """
    options = Options(recipe, size, steps, seed, start, inputs, image, channels_in)
    backend, ascent = prepare(model, objective, options)
    if live:
        if on_images is not None:
            raise InvalidInput("live=True shows the images by itself: leave out on_images")
        every, on_images = every or max(1, ascent.steps // 16), NotebookPicture().show
    if on_images is not None and "D" in ascent.input.axes:
        given = on_images
        on_images = lambda images, done, pixels: given(images, done, ascent.input.shown(pixels))  # noqa: E731
    settings = Settings(micro_batch, dtype, memory_format, device, on_step, every, on_images)
    pixels = np.empty((ascent.count, *ascent.shown), np.float32)
    scores = np.empty((ascent.steps, ascent.count))
    remarks: list[str] = []
    importance = np.empty((ascent.count, *ascent.shape[:2]), np.float32) if ascent.recipe.importance else None
    for climbed in backend[ASCENT].ascend(model, ascent, settings):
        images = climbed.images
        pixels[images.start : images.stop] = climbed.pixels
        scores[:, images.start : images.stop] = climbed.scores
        remarks += remarks_on(ascent, climbed)
        if importance is not None:
            importance[images.start : images.stop] = climbed.importance
    labels = ascent.objective.labels()
    check_reached(labels, remarks)
    pixels = ascent.input.shown(pixels)
    if importance is not None:
        importance = np.tile(importance, (1, 1, pixels.shape[2] // importance.shape[2]))
    return Images.of(pixels, labels, scores, ascent.recipe, remarks, importance)
