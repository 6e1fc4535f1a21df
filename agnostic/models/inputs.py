"""The shapes of a model's inputs: stated by the user, the card or the model, or found by trial runs.

All public functions use this module. If a model declares its inputs, that is used. Any other model runs on zeros: its
layers with parameters report the input that they received and the inputs that they take
(:class:`agnostic.models.forms.Received`), and the next shape to try follows from the difference.
"""

from __future__ import annotations

import heapq
import itertools
import math
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from agnostic.contracts.inputs import INPUTS
from agnostic.errors import AgnosticError, InvalidInput
from agnostic.layers import Layer
from agnostic.models.attached import card_of
from agnostic.models.forms import Input, ModelRun, Received, Takes
from agnostic.registry import Backend, Model

Size = int | Sequence[int]
"""Height and width in pixels: one number for both, or two."""


# The verbs' side -----------------------------------------------------------------------------------------------------
def inputs_of(
    backend: Backend,
    model: Model,
    *,
    size: Size | None = None,
    channels: int | None = None,
    near: Size | None = None,
) -> tuple[Input, ...]:
    """The inputs of a model, in order.

    Args:
        size: height and width of the images; None: the model's own.
        channels: of its images, if the user gives them.
        near: height and width of the images if the model has no size of its own; None: 224.

    Raises:
        InvalidInput: the model does not declare its inputs, and they cannot be found by running it.
    """
    card = card_of(model)
    own = None if card is None else card.size
    if channels is None and card is not None and card.channels is not None:
        channels = card.channels
    stated = backend[INPUTS].stated_inputs(model)
    if stated is not None:
        found = tuple(_filled(x, own, channels) for x in stated)
    else:
        first = [sides(x) for x in (size, own, near) if x is not None] or [(224, 224)]
        found = _find(backend, model, list(dict.fromkeys(first)), channels)
    if size is not None:
        resized = [x for x in found if x.is_image] or [x for x in found if x.channels_last]
        if not resized:
            raise InvalidInput(f"{type(model).__name__} takes no images ({said(found)}): leave out size")
        return tuple(sized(x, size) if x in resized else x for x in found)
    return tuple(sized(x, near or 224) if x.is_image and x.size is None else x for x in found)


def sized(image: Input, size: Size) -> Input:
    """An image, the frames of a volume, or a row, of a height and width.

    Raises:
        InvalidInput: a row is more than one pixel high.
    """
    height, width = sides(size)
    if "H" not in image.axes and height not in (1, width):
        raise InvalidInput(f"a row has a length and no height: give size={width}, not {size!r}")
    return image.sized(height, width)


def stated_image(
    backend: Backend, model: Model, place: int | None, size: tuple[int, int] | None, channels: int | None
) -> Input | None:
    """The input that a model declares at a place, its free lengths as given; None where it declares none there."""
    stated = backend[INPUTS].stated_inputs(model)
    if stated is None or place is None or place >= len(stated):
        return None
    return _filled(stated[place], size, channels)


def find_image(
    backend: Backend,
    model: Model,
    sizes: Sequence[tuple[int, int]],
    channels: int | None,
    run: Callable[[npt.NDArray[Any]], ModelRun],
    place: int,
) -> Input:
    """The one input of a model that takes images, found by running it with its other inputs given.

    Args:
        sizes: to try first.
        channels: of the images, where they are known.
        run: a trial with these images.
        place: of the images among the arrays that the model is called with, as in :attr:`Received.argument`.

    Raises:
        InvalidInput: none is found.
    """

    def trial(candidate: InputChoice) -> ModelRun:
        found = run(candidate[0].zeros())
        received = tuple(_seen_from(x, place) for x in found.received)
        failed_in = None if found.failed_in is None else _seen_from(found.failed_in, place)
        return replace(found, received=received, failed_in=failed_in)

    return _find(backend, model, sizes, channels, _Search(1, trial, place))[0]


def _seen_from(received: Received, place: int) -> Received:
    """The same, where the images are the only input that can change; -1 stands for any other."""
    if received.argument is None:
        return received
    return replace(received, argument=0 if received.argument == place else _OTHER)


_OTHER = -1


def image_input(
    backend: Backend,
    model: Model,
    *,
    size: Size | None = None,
    channels: int | None = None,
    near: Size | None = None,
) -> Input:
    """The one input of a model that takes images.

    Args as for :func:`inputs_of`.

    Raises:
        InvalidInput: it takes no images, or other inputs too.
    """
    found = inputs_of(backend, model, size=size, channels=channels, near=near)
    if len(found) == 1 and found[0].is_image:
        return found[0]
    raise InvalidInput(f"{type(model).__name__} does not take only images: {said(found)}; give a model that does")


def said(found: Sequence[Input], names: Sequence[str] = ()) -> str:
    """The inputs of a model as text, with their names if it has several."""
    shapes = [f"{x.axes} {tuple('free' if n is None else n for n in x.shape)}" for x in found]
    if len(found) > 1 and len(names) >= len(found):
        shapes = [f"{name!r} {shape}" for name, shape in zip(names, shapes, strict=False)]
    return f"its {'inputs are' if found[1:] else 'input is'} {' and '.join(shapes)}"


def examples(backend: Backend, model: Model, *, size: Size | None = None, channels: int | None = None) -> Any:
    """Zeros that the model takes, in its own array type.

    Raises:
        InvalidInput: see :func:`inputs_of`.
    """
    found = inputs_of(backend, model, size=size, channels=channels)
    return backend[INPUTS].native_inputs(model, [x.zeros() for x in found])


def layers_of(
    backend: Backend, model: Model, *, size: Size | None = None, channels: int | None = None
) -> Sequence[Layer]:
    """The layers of a model, run on zeros.

    Raises:
        InvalidInput: see :func:`inputs_of`; or the model does not take images of this size.
    """
    given = examples(backend, model, size=size, channels=channels)
    trial = backend[INPUTS].trial(model, given)
    if trial.error is not None:
        raise refused(model, trial, size)
    return trial.layers


def run_layers(backend: Backend, model: Model, inputs: Any) -> list[Layer]:
    """The model's layers in the order in which they first run on inputs; those that do not run follow at the end.

    Args:
        inputs: what the model is called with: a native array, a NumPy array in the model's own layout, or a tuple or
            dict of them.

    Raises:
        Exception: what the model raises.
    """
    trial = backend[INPUTS].trial(model, inputs)
    if trial.error is not None:
        raise trial.error
    return list(trial.layers)


def refused(model: Model, trial: ModelRun, size: Size | None, *, others: bool = False) -> Exception:
    """The error for a model that does not take zeros of the tried shape.

    Args:
        others: the user gave inputs beside the images, which may be what it does not take.
    """
    if isinstance(trial.error, AgnosticError):
        return trial.error
    what = "zeros of the shape that it declares" if size is None else "images of {} x {} pixels".format(*sides(size))
    fix = "give inputs=" if size is None else "choose another size, or leave out size"
    if others:
        what, fix = f"these inputs with {what}", f"check the shape and type of the others, or {fix}"
    said = InvalidInput(f"{type(model).__name__} does not take {what} ({trial.reason}): {fix}")
    said.__cause__ = trial.error
    return said


def sides(size: Size) -> tuple[int, int]:
    """(height, width).

    Raises:
        InvalidInput: it is neither one positive integer nor two.
    """
    pair = tuple(size) if isinstance(size, Sequence) else (size, size)
    if len(pair) != 2 or not all(isinstance(n, int | np.integer) and not isinstance(n, bool) and n >= 1 for n in pair):
        raise InvalidInput(f"size is one number of pixels or (height, width), at least 1, not {size!r}")
    return int(pair[0]), int(pair[1])


def _filled(stated: Input, size: tuple[int, int] | None, channels: int | None) -> Input:
    """A declared input, its free lengths as the card says."""
    lengths: dict[str, int] = {}
    if size is not None and stated.is_image:
        lengths = {axis: n for axis, n in zip("HW", size, strict=True) if stated.length(axis) is None}
    if stated.is_image and stated.length("C") is None:
        lengths["C"] = channels or 3
    return stated.having(**lengths)


# The search ----------------------------------------------------------------------------------------------------------
InputChoice = tuple[Input, ...]

_SIDES = (224, 32, 28, 64, 96, 128, 299, 256, 384, 48, 16, 160, 192, 512)
_LENGTH, _TOKENS = 64, 16
_TRIALS = 40
_FIRST = 1_000_000
"""More than any number of layers: expected shapes are tried before those derived from failures."""
_MOST_CHANNELS = 512
"""More channels than that are features, not those of an image."""

_found: weakref.WeakKeyDictionary[Any, dict[int | None, InputChoice]] = weakref.WeakKeyDictionary()
"""The inputs found for a model, which are tried first the next time. By the place of the images; None: all inputs."""


@dataclass(frozen=True)
class _Search:
    """The goal of the search.

    Attributes:
        count: number of inputs.
        trial: a run on zeros.
        place: of the images, where the other inputs are given.
    """

    count: int
    trial: Callable[[InputChoice], ModelRun]
    place: int | None = None


def _find(
    backend: Backend,
    model: Model,
    sizes: Sequence[tuple[int, int]],
    channels: int | None,
    search: _Search | None = None,
) -> InputChoice:
    """The first inputs that the model takes; of those that are tried next, the ones after the longest run first."""
    inputs = backend[INPUTS]
    search = search or _Search(
        inputs.input_count(model),
        lambda candidate: inputs.trial(model, inputs.native_inputs(model, [x.zeros() for x in candidate])),
    )
    count, known = search.count, _found.setdefault(model, {})
    numbers = itertools.count()
    queue: list[tuple[int, int, InputChoice]] = []
    tried: set[InputChoice] = set()

    def later(candidate: InputChoice, progress: int) -> None:
        images = search.place is None or candidate[0].is_image
        if images and candidate not in tried:
            tried.add(candidate)
            heapq.heappush(queue, (-progress, next(numbers), candidate))

    before = known.get(search.place)
    if before is not None and (channels is None or all(x.length("C") == channels for x in before if x.is_image)):
        for height, width in sizes:
            later(tuple(x.having(H=height, W=width) if x.is_image else x for x in before), _FIRST)
        later(before, _FIRST)
    for size in sizes:
        later((Input((1, channels or 3, *size), "NCHW"),) * count, _FIRST)
    best: tuple[int, ModelRun] | None = None
    for _ in range(_TRIALS):
        if not queue:
            break
        candidate = heapq.heappop(queue)[2]
        trial = search.trial(candidate)
        if isinstance(trial.error, AgnosticError):
            raise trial.error
        if trial.error is None and trial.batch in (None, 1):
            known[search.place] = candidate
            return candidate
        progress = len(trial.received) - (trial.failed_in is not None)
        if best is None or progress > best[0]:
            best = progress, trial
        for other in _next(candidate, trial, channels):
            later(other, progress)
    reason = best[1].reason if best is not None else ""
    if search.place is not None:
        raise InvalidInput(
            f"{type(model).__name__} does not take these inputs with any tried images"
            f"{f' ({reason})' if reason else ''}: check the shape and type of the others, or give an example of the "
            "images in their place, their height and width as size=, or their channels as channels_in="
        )
    raise InvalidInput(
        f"{type(model).__name__} does not declare the shapes of its inputs, and trial runs did not find them"
        f"{f' ({reason})' if reason else ''}: give example inputs as inputs=, the height and width of its images as "
        "size=, or their channels as channels_in="
    )


def _next(candidate: InputChoice, trial: ModelRun, channels: int | None) -> Iterator[InputChoice]:
    """The next candidates after a failed one."""
    at = trial.failed_in
    if trial.error is None and trial.received:  # it ran, but took one sample for several
        at = next((x for x in trial.received if x.argument != _OTHER), None)
    if at is not None and at.argument == _OTHER:
        return
    places = range(len(candidate)) if at is None or at.argument is None else [at.argument]
    for place in places:
        ways = (
            [_sizes(candidate[place])]
            if at is None
            else [_fitting(candidate[place], at, len(candidate) == 1), _sizes(candidate[place])]
        )
        for other in itertools.chain(*ways):
            if channels is not None and other.is_image and other.length("C") != channels:
                continue
            yield (*candidate[:place], other, *candidate[place + 1 :])


def _fitting(given: Input, at: Received, alone: bool) -> Iterator[Input]:
    """Inputs that come nearer to what a layer takes."""
    takes, shape = at.takes, at.shape
    if takes.integer:
        yield Input((1, _TOKENS), "NL", integer=True)
        return
    if takes.ranks and len(shape) not in takes.ranks:
        yield from _templates(takes, alone, given)
        return
    got, wanted = shape[takes.axis], takes.length
    if at.argument is not None and not (given.is_image and takes.ranks):
        yield from _templates(takes, alone, given)
    if given.is_image:
        yield from _channels(given, got, wanted)
        if len(shape) == 2:  # all that is left of an image is in one row
            yield from _positions(given, got, wanted)
    elif (length := given.length("L")) is not None:
        if got == length and given.length("C") is not None:  # a transposed row: what was taken for its length is not
            yield Input((1, length, wanted), "NLC") if given.axes == "NCL" else Input((1, wanted, length), "NCL")
        if wanted * length % got == 0:
            yield given.having(L=wanted * length // got)
    if len(given.shape) == len(shape):
        yield from _templates(takes, alone, given)


def _templates(takes: Takes, alone: bool, given: Input) -> Iterator[Input]:
    """Inputs as a layer takes them, were it the first; images before others for the only input of a model."""
    (height, width), n = given.size or (_SIDES[0], _SIDES[0]), takes.length
    first = {
        2: Input((1, n), "NC"),
        3: Input((1, n, _LENGTH), "NCL"),
        4: Input((1, n, height, width), "NCHW"),
        5: Input((1, n, 16, 112, 112), "NCDHW"),
    }
    last = {
        2: Input((1, n), "NC"),
        3: Input((1, _LENGTH, n), "NLC"),
        4: Input((1, height, width, n), "NHWC"),
        5: Input((1, 16, 112, 112, n), "NDHWC"),
    }
    images_first = alone and n in (1, 3, 4)  # as many channels as images have
    for rank in takes.ranks or ((4, 3, 2) if images_first else (2, 3, 4)):
        if rank in first:
            yield (last if takes.axis < 0 else first)[rank]


def _channels(given: Input, got: int, wanted: int) -> Iterator[Input]:
    """Images with other channels, or with the channels in another place."""
    channels = given.length("C") or 3
    if got in (given.length("H"), given.length("W")):  # a permuted image: what was taken for a side is the channels
        axes = "NHWC" if given.axes == "NCHW" else "NCHW"
        lengths = {"N": 1, "C": wanted, "H": given.length("H"), "W": given.length("W")}
        if wanted <= _MOST_CHANNELS:
            yield Input(tuple(lengths[axis] for axis in axes), axes)
        if wanted != channels:
            yield Input(tuple({**lengths, "C": channels}[axis] for axis in axes), axes)
    if got and wanted * channels % got == 0 and 0 < wanted * channels // got <= _MOST_CHANNELS:
        yield given.having(C=wanted * channels // got)
    if 0 < channels + wanted - got <= 64:
        yield given.having(C=channels + wanted - got)


def _positions(given: Input, got: int, wanted: int) -> Iterator[Input]:
    """Square images of which so many features are left over; of all features alone, too."""
    for channels in dict.fromkeys((given.length("C") or 3, 1, 3)):
        side = math.isqrt(wanted // channels)
        if side > 1 and channels * side * side == wanted:
            yield given.having(C=channels, H=side, W=side)
    height, width = given.length("H"), given.length("W")
    if height is None or height != width or not got:
        return
    # The features that reach a dense layer grow with the area; the borders that convolutions cut off do not.
    near = round(height * math.sqrt(wanted / got))
    # Several may leave as many: the usual ones first.
    usual = [side for side in sorted(_SIDES) if near - 2 <= side <= 1.5 * near + 8]
    for side in dict.fromkeys((*usual, *(near + step for step in (0, 1, 2, -1, 3, 4, -2, 5, 6) if near + step > 0))):
        yield given.having(H=side, W=side)


def _sizes(given: Input) -> Iterator[Input]:
    """The usual sizes; and the other order of the axes."""
    if not given.is_image:
        return
    for side in _SIDES:
        yield given.having(H=side, W=side)
    lengths: Mapping[str, int | None] = {axis: given.length(axis) for axis in "NCHW"}
    axes = "NHWC" if given.axes == "NCHW" else "NCHW"
    yield Input(tuple(lengths[axis] for axis in axes), axes)
    for channels in (3, 1, 4, 2):
        yield given.having(C=channels)
