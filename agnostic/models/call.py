"""The arguments of a model with several inputs: images at one place, the user's arrays at the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from agnostic.arrays import describe, of_numbers
from agnostic.contracts.inputs import INPUTS
from agnostic.contracts.ops import OPS
from agnostic.errors import AgnosticError, InvalidInput, UnknownName, nearest
from agnostic.models.attached import card_of
from agnostic.models.forms import Input, ModelRun
from agnostic.models.inputs import Size, find_image, inputs_of, said, sides, sized, stated_image
from agnostic.registry import Backend, Model
from agnostic.text import counted

NestedPath = tuple[int | str, ...]
"""A place in nested inputs: positions in tuples and lists, names in dicts."""

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class _Given:
    """A mark in a structure for one of the user's arrays."""

    number: int


@dataclass(frozen=True)
class _Images:
    """A mark in a structure for the images."""


@dataclass(frozen=True)
class ModelCall:
    """The arguments of a model's call; by default only images.

    Attributes:
        structure: tuples, lists and dicts, in which marks stand for the images and for the other arrays; all else in it
            (None, numbers, strings) is passed as it is.
        place: of the images.
        others: the other arrays, in order, each with a batch axis first: of 1, or of one row for each image.
        names: of the model's inputs by position, for messages.
    """

    structure: Any = _Images()
    place: NestedPath = ()
    others: tuple[Array, ...] = field(default=(), compare=False)
    names: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The name of the input of the images."""
        return _label(self.place, self.names)

    def having(self, images: Any, others: Sequence[Any]) -> Any:
        """The structure, with native arrays in the place of the images and of :attr:`others`."""

        def fill(mark: Any) -> Any:
            return images if isinstance(mark, _Images) else others[mark.number] if isinstance(mark, _Given) else mark

        return _mapped(fill, self.structure)

    def native(self, backend: Backend, model: Model, images: Array) -> Any:
        """The structure with native arrays: images in the model's own layout, and a row of the others for each."""
        rows = [backend[INPUTS].native_inputs(model, [x]) for x in self.rows(range(len(images)), len(images), 1)]
        return self.having(backend[INPUTS].native_inputs(model, [images]), rows)

    def rows(self, images: range, count: int, views: int) -> list[Array]:
        """The other arrays for some of ``count`` images, each row ``views`` times.

        Raises:
            InvalidInput: an array has neither one row nor one row per image.
        """
        found = []
        for number, x in enumerate(self.others):
            if len(x) not in (1, count):
                raise InvalidInput(
                    f"the input {_label(self._path(number), self.names)!r} has {counted(len(x), 'row')} for "
                    f"{counted(count, 'image')}: give a batch of 1 for all images, or one row per image"
                )
            own = x[images.start : images.stop] if len(x) == count else np.repeat(x, len(images), axis=0)
            found.append(np.repeat(own, views, axis=0) if views > 1 else own)
        return found

    def first(self) -> ModelCall:
        """The same with the first row of every other array."""
        return replace(self, others=tuple(x[:1] for x in self.others))

    @property
    def number(self) -> int:
        """Of the images among all arrays, in order."""
        marks = [x for _, x in _leaves(self.structure) if isinstance(x, _Given | _Images)]
        return next(i for i, x in enumerate(marks) if isinstance(x, _Images))

    def _path(self, number: int) -> NestedPath:
        return next(path for path, x in _leaves(self.structure) if x == _Given(number))


def picture_call(
    backend: Backend,
    model: Model,
    *,
    inputs: Any = None,
    image: int | str | None = None,
    size: Size | None = None,
    channels: int | None = None,
    near: Size | None = None,
    drawn: bool = False,
) -> tuple[Input, ModelCall]:
    """The input of a model that an image is made for, and the other arguments of the call.

    Args:
        inputs: the arguments of the model, as in :func:`agnostic.capture`; None, a missing name or an example marks the
            place of the image. None: the image is the only input.
        image: position or name of the input that the image is made for. None: the place where ``inputs`` has None or
            lacks a required name, else the only input of four dimensions.
        size, channels, near: as for :func:`agnostic.models.inputs.inputs_of`.
        drawn: a row or a volume will do where the model takes no image, see :class:`agnostic.models.forms.Input`.

    Raises:
        InvalidInput: it is not clear which input is meant, another one is missing, or the model does not take these.
        UnknownName: no input has this name.
    """
    if inputs is None:
        found = inputs_of(backend, model, size=size, channels=channels, near=near)
        names = _names(backend, model)
        place = _chosen(model, found, names, image, drawn)
        if len(found) > 1:
            others = [_called(i, names) for i in range(len(found)) if i != place]
            raise InvalidInput(
                f"{type(model).__name__} takes {' and '.join(others)} besides {_called(place, names)} ({said(found)}): "
                f"give its arguments as inputs={_form(len(found), names, place)}"
            )
        return found[place], ModelCall()
    call, example = _call(backend, model, inputs, image)
    form = _image_at(backend, model, call, example, size, channels, near)
    return form, call


def image_among(
    backend: Backend,
    model: Model,
    *,
    image: int | str | None = None,
    size: Size | None = None,
    channels: int | None = None,
    near: Size | None = None,
) -> tuple[Input, int]:
    """The only input of a model, which takes images, and its place.

    Args as for :func:`picture_call`.

    Raises:
        InvalidInput, UnknownName: see :func:`picture_call`.
    """
    found = inputs_of(backend, model, size=size, channels=channels, near=near)
    place = _chosen(model, found, _names(backend, model), image)
    return found[place], place


def number_of(backend: Backend, model: Model, call: ModelCall) -> int:
    """The place of the images among the inputs that a model declares; 0 where they are inside of one."""
    return _number(call.place, _names(backend, model)) or 0


def _chosen(
    model: Model, found: Sequence[Input], names: Sequence[str], image: int | str | None, drawn: bool = False
) -> int:
    """The place of the input that a picture is made for, among those that a model declares or that were found.

    Raises:
        InvalidInput, UnknownName: see :func:`picture_call`.
    """
    name = type(model).__name__
    if image is not None:
        place = _place(image, names, len(found))
        if not (found[place].is_image or (drawn and found[place].channels_last)):
            raise InvalidInput(f"{_called(place, names)} of {name} takes no images: {said(found, names)}")
        return place
    places = [i for i, x in enumerate(found) if x.is_image]
    if drawn and not places:
        places = [i for i, x in enumerate(found) if x.channels_last]
    if len(places) == 1:
        return places[0]
    if not places:
        raise InvalidInput(f"{name} takes no images: {said(found, names)}; give a model that does")
    raise InvalidInput(
        f"{name} has {counted(len(places), 'input')} of images ({said(found, names)}): choose one by its "
        f"position or name, such as image={_choice(places[0], names)!r}"
    )


# Which input is meant ------------------------------------------------------------------------------------------------
def _call(backend: Backend, model: Model, inputs: Any, image: int | str | None) -> tuple[ModelCall, Any]:
    """The arguments of a model, and the example in the place of the images, or None."""
    names, count = _names(backend, model), backend[INPUTS].input_count(model)
    given = _completed(inputs, names, count, image)
    if isinstance(given, Mapping):
        _check_names(model, given, names, count, backend[INPUTS].takes_other_names(model))
    if not isinstance(given, Mapping) and (len(given) if isinstance(given, tuple | list) else 1) < count:
        listed = f" ({', '.join(names[:count])})" if names else ""
        raise InvalidInput(
            f"{type(model).__name__} takes {counted(count, 'input')}{listed}, and inputs is "
            f"{describe(inputs)}: give all of them, with None for the image, as inputs={_form(count, names, 0)}"
        )
    leaves = list(_leaves(given))
    place = _meant(model, leaves, given, names, count, image)
    others: list[Array] = []

    def mark(path: NestedPath, x: Any) -> Any:
        if path == place:
            return _Images()
        if not _is_array(x):
            return x
        others.append(_as_numpy(backend, _label(path, names), x))
        return _Given(len(others) - 1)

    structure = _with_paths(mark, given)
    return ModelCall(structure, place, tuple(others), tuple(names)), next(x for path, x in leaves if path == place)


def _check_names(model: Model, given: Mapping[Any, Any], names: Sequence[str], count: int, others: bool) -> None:
    """Raise where a name is missing, or unknown to a model that takes no ``others``."""
    unknown = [] if others else [x for x in given if x not in names]
    if unknown and (count > 1 or len(unknown) < len(given)) and names:
        raise UnknownName(
            f"{type(model).__name__} has no input {unknown[0]!r} (they are {', '.join(map(repr, names))})"
            f"{nearest(str(unknown[0]), names)}"
        )
    missing = [x for x in names[:count] if x not in given]
    if missing and not unknown:
        raise InvalidInput(
            f"{type(model).__name__} takes {', '.join(names[:count])}, and inputs has "
            f"{', '.join(map(str, given)) or 'none of them'}: give {' and '.join(missing)} as well, and None "
            "for the image"
        )


def _completed(inputs: Any, names: Sequence[str], count: int, image: int | str | None) -> Any:
    """The inputs, with None for a named one that a picture is made for and that was left out."""
    if not isinstance(inputs, Mapping):
        return tuple(inputs) if isinstance(inputs, list) and 1 < count == len(inputs) else inputs
    counts = isinstance(image, int | np.integer) and not isinstance(image, bool) and 0 <= image < len(names)
    named = names[int(image)] if counts else image  # type: ignore[arg-type]
    missing = [named] if named in names else [x for x in names[:count] if x not in inputs]
    # None for an input that a call does not require is its value; of a single one it is not known whether it does.
    optional = names[count:] if count > 1 else ()
    if image is None and any(x is None for name, x in inputs.items() if name not in optional):
        return dict(inputs)
    # Where none of the names is the model's own, it takes the dict as one input.
    if len(missing) == 1 and missing[0] not in inputs and all(x in names for x in inputs):
        return {**inputs, missing[0]: None}
    return dict(inputs)


def _meant(
    model: Model,
    leaves: Sequence[tuple[NestedPath, Any]],
    given: Any,
    names: Sequence[str],
    count: int,
    image: int | str | None,
) -> NestedPath:
    paths = [path for path, _ in leaves]
    if image is not None:
        return _named_path(paths, given, names, image)
    empty = [path for path, x in leaves if x is None]
    required = [path for path in empty if path and path[0] in (*range(count), *names[:count])]
    for found in (empty, required):
        if len(found) == 1:
            return found[0]
    pictures = [path for path, x in leaves if _is_array(x) and len(x.shape) == 4]
    if not empty and len(pictures) == 1:
        return pictures[0]
    among = [path for path, x in leaves if path in (*empty, *pictures)] or paths
    listed = ", ".join(f"{_label(path, names)!r}: {describe(x)}" for path, x in leaves if path) or describe(given)
    if not (empty or pictures):
        raise InvalidInput(
            f"inputs has no place for the image of {type(model).__name__} ({listed}): give None there, or an example, "
            "an array of four dimensions"
        )
    first = _label(among[0], names)
    raise InvalidInput(
        f"it is not clear which input of {type(model).__name__} the image is made for ({listed}): choose "
        f"it by its position or name, such as image={int(first) if first.isdecimal() else first!r}, or give None in "
        "its place only"
    )


def _named_path(paths: Sequence[NestedPath], given: Any, names: Sequence[str], image: int | str) -> NestedPath:
    if isinstance(given, Mapping):
        found = [p for p in paths if p[-1:] == (image,) or image in (_label(p), _label(p, names))]
        if not isinstance(image, str) or not found:
            order = [x for x in names if x in given] or [str(x) for x in given]
            found = [(order[_place(image, order, len(order))],)]
    elif isinstance(given, tuple | list):
        wanted = image if isinstance(image, str) else None
        found = [p for p in paths if p[-1:] == (wanted,) or wanted in (_label(p), _label(p, names))]
        if not found:
            found = [(_place(image, names, len(given)),)]
    else:
        _place(image, names, 1)
        found = [()]
    if len(found) != 1 or found[0] not in paths:
        listed = ", ".join(repr(_label(path)) for path in paths)
        raise InvalidInput(f"image={image!r} is not a single array of inputs: they are {listed}")
    return found[0]


def _place(image: int | str, names: Sequence[str], count: int) -> int:
    """The position of an input by its position or name."""
    if isinstance(image, str):
        if image not in names[:count]:
            known = f" (they are {', '.join(map(repr, names[:count]))})" if names else ""
            raise UnknownName(f"the model has no input {image!r}{known}{nearest(image, names)}")
        return list(names).index(image)
    if isinstance(image, bool) or not isinstance(image, int | np.integer):
        raise InvalidInput(f"image is the position or the name of an input, not {image!r}")
    if not 0 <= image < count:
        raise InvalidInput(f"there is no input {image}: the model has {counted(count, 'input')}, counted from 0")
    return int(image)


def _names(backend: Backend, model: Model) -> Sequence[str]:
    return list(backend[INPUTS].input_names(model))


def _called(place: int, names: Sequence[str]) -> str:
    return f"the input {names[place]!r}" if place < len(names) else f"the input {place}"


def _choice(place: int, names: Sequence[str]) -> int | str:
    return names[place] if place < len(names) else place


def _form(count: int, names: Sequence[str], place: int) -> str:
    """How inputs are written, for a message: ``(None, age)``."""
    words = [names[i] if i < len(names) else f"input_{i}" for i in range(count)]
    return f"({', '.join('None' if i == place else word for i, word in enumerate(words))})"


# What the image looks like -------------------------------------------------------------------------------------------
def _image_at(
    backend: Backend,
    model: Model,
    call: ModelCall,
    example: Any,
    size: Size | None,
    channels: int | None,
    near: Size | None,
) -> Input:
    if example is not None:
        _check_example(example, call, size, channels)
    card = card_of(model)
    own = None if card is None else card.size
    if channels is None and card is not None:
        channels = card.channels
    names, first = _names(backend, model), call.first()
    declared = stated_image(backend, model, _number(call.place, names), own, channels)
    if declared is not None and not declared.is_image:
        raise InvalidInput(f"the input {call.label!r} of {type(model).__name__} takes no images: {said([declared])}")

    def run(images: Array) -> ModelRun:
        return backend[INPUTS].trial(model, first.native(backend, model, images))

    if example is not None:
        return _like(example, declared, run, call)
    if declared is not None:
        if size is not None:
            height, width = sides(size)
            return declared.having(H=height, W=width)
        return declared if declared.size is not None else sized(declared, near or 224)
    wanted = [sides(x) for x in (size, own, near) if x is not None] or [(224, 224)]
    found = find_image(backend, model, list(dict.fromkeys(wanted)), channels, run, call.number)
    if size is not None:
        height, width = sides(size)
        return found.having(H=height, W=width)
    return found


def _number(place: NestedPath, names: Sequence[str]) -> int | None:
    """The position of an input that a model may declare; None for a place inside one."""
    if len(place) > 1:
        return None
    at = place[0] if place else 0
    if isinstance(at, str):
        return names.index(at) if at in names else None
    return at


def _check_example(example: Any, call: ModelCall, size: Size | None, channels: int | None) -> None:
    shape = getattr(example, "shape", ())
    if len(shape) != 4 or 0 in shape:
        raise InvalidInput(
            f"the input {call.label!r} is {describe(example)}: give a batch of images, with 4 dimensions"
        )
    if size is not None or channels is not None:
        raise InvalidInput(
            "the example in inputs has a size and channels of its own: leave out size and channels_in, or give None "
            "in its place"
        )


def _like(example: Any, declared: Input | None, run: Callable[[Array], ModelRun], call: ModelCall) -> Input:
    """An input of an example's shape, with the axes that the model gives them."""
    shape = tuple(int(n) for n in example.shape)
    if declared is not None:
        return Input((1, *shape[1:]), declared.axes)
    first, last = Input((1, *shape[1:]), "NCHW"), Input((1, *shape[1:]), "NHWC")
    for at in run(first.zeros()).received:
        if len(at.shape) != 4 or not at.takes.ranks or at.argument not in (None, call.number):
            continue
        if at.argument is not None:
            return last if at.takes.axis % 4 == 3 else first
        channels = at.shape[at.takes.axis]
        if (shape[1] == channels) != (shape[3] == channels):
            return first if shape[1] == channels else last
    return last if shape[3] in (1, 3, 4) and shape[1] not in (1, 3, 4) else first


# Nested inputs -------------------------------------------------------------------------------------------------------
def _is_array(x: Any) -> bool:
    return bool(getattr(x, "shape", None))


def _as_numpy(backend: Backend, label: str, x: Any) -> Array:
    try:
        array = x if isinstance(x, np.ndarray) else backend[OPS].ops_for([x]).numpy(x)
    except AgnosticError:
        raise
    except (TypeError, ValueError, RuntimeError, NotImplementedError) as error:
        raise InvalidInput(f"the input {label!r} is {describe(x)}, whose values cannot be read") from error
    return of_numbers(array, f"the input {label!r}")


def _label(path: NestedPath, names: Sequence[str] = ()) -> str:
    """Such as ``"0.age"``; the position of a model's own input is its name."""
    first, rest = path[:1], path[1:]
    if first and isinstance(first[0], int) and first[0] < len(names):
        first = (names[first[0]],)
    return ".".join(map(str, (*first, *rest)))


def _leaves(value: Any, path: NestedPath = ()) -> Iterator[tuple[NestedPath, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(item, (*path, key))
    elif isinstance(value, tuple | list):
        for i, item in enumerate(value):
            yield from _leaves(item, (*path, i))
    else:
        yield path, value


def _with_paths(function: Callable[[NestedPath, Any], Any], value: Any, path: NestedPath = ()) -> Any:
    if isinstance(value, Mapping):
        return {key: _with_paths(function, item, (*path, key)) for key, item in value.items()}
    if isinstance(value, tuple | list):
        items = [_with_paths(function, item, (*path, i)) for i, item in enumerate(value)]
        return items if isinstance(value, list) else tuple(items)
    return function(path, value)


def _mapped(function: Callable[[Any], Any], value: Any) -> Any:
    return _with_paths(lambda _, x: function(x), value)
