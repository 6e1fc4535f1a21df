"""What an image maximizes. Objectives are values: add, scale, multiply and print them.

``channel("blocks.3.0", range(64))`` is a batch of 64 objectives, one image each. Combined with an objective for one
image, that one applies to all: ``channel("conv", range(8)) + 0.1 * deepdream("blocks.3")``.

The definitions follow Olah, Mordvintsev, Schubert, "Feature Visualization", Distill 2017, doi:10.23915/distill.00007.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from agnostic.errors import InvalidInput
from agnostic.files import read_image
from agnostic.ops import Array, Ops
from agnostic.text import with_article
from agnostic.visualization.concepts import ConceptVector, concept_vector
from agnostic.visualization.function_terms import FunctionTerm
from agnostic.visualization.objective import (
    OUTPUT,
    Constant,
    FindClass,
    ImageFactors,
    LayerTerm,
    ModelLookup,
    Objective,
    Product,
    Sum,
    Term,
    View,
)
from agnostic.visualization.photo_terms import Caricature, Photo, Style
from agnostic.visualization.terms import (
    Aligned,
    Channel,
    Cosine,
    DeepDream,
    Direction,
    Diversity,
    Head,
    Logit,
    Neuron,
    Opacity,
    Position,
    Token,
    TotalVariation,
)

__all__ = [
    "OUTPUT",
    "Aligned",
    "Caricature",
    "Channel",
    "ConceptVector",
    "Constant",
    "Cosine",
    "DeepDream",
    "Direction",
    "Diversity",
    "FindClass",
    "FunctionTerm",
    "Head",
    "ImageFactors",
    "LayerTerm",
    "Logit",
    "ModelLookup",
    "Neuron",
    "Objective",
    "Opacity",
    "Photo",
    "Position",
    "Product",
    "Style",
    "Sum",
    "Term",
    "Token",
    "TotalVariation",
    "View",
    "alignment",
    "caricature",
    "channel",
    "concept",
    "concept_vector",
    "cosine",
    "deepdream",
    "direction",
    "diversity",
    "function",
    "head",
    "interpolation",
    "logit",
    "names",
    "neuron",
    "opacity",
    "position",
    "style",
    "token",
    "total_variation",
]


def __dir__() -> list[str]:
    return sorted(__all__)


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


def _place(position: Any) -> tuple[int, ...] | None:
    """A position in a layer's output, of one to three coordinates."""
    if position is None:
        return None
    place = _each(position)
    if not 1 <= len(place) <= 3 or not all(_is_integer(n) and n >= 0 for n in place):
        raise InvalidInput(f"a position is (row, column), two integers from 0, not {position!r}")
    return tuple(int(n) for n in place)


def _vectors(vector: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """(images, channels) finite numbers, a copy."""
    try:
        vectors = np.atleast_2d(np.array(vector, np.float64))
    except (TypeError, ValueError):  # text, or rows of different lengths
        raise InvalidInput(
            f"a direction is a finite vector (channels,) or (images, channels), not {vector!r}"
        ) from None
    if vectors.ndim != 2 or not vectors.size or not np.isfinite(vectors).all():
        raise InvalidInput(f"a direction is a finite vector (channels,) or (images, channels), not {vectors.shape}")
    vectors.setflags(write=False)
    return vectors


def _called(names: str | Iterable[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


def _photos(photos: Any, name: str | Iterable[str] | None) -> tuple[Photo, ...]:
    """One photo per image, from arrays, files or values."""
    several = photos if isinstance(photos, list | tuple) else [photos]
    if isinstance(photos, np.ndarray) and photos.ndim == 4:
        several = list(photos)
    names = None if name is None else _called(name)
    if not several or (names is not None and len(names) != len(several)):
        raise InvalidInput("give one photo or several, each with a name where names are given")
    return tuple(
        _photo(x, f"photo {i}" if names is None else names[i], named=names is not None) for i, x in enumerate(several)
    )


def _photo(photo: Any, name: str, *, named: bool) -> Photo:
    if isinstance(photo, Photo):
        return photo
    if isinstance(photo, str | os.PathLike):
        name = name if named else Path(photo).stem
        photo = read_image(photo)
    pixels = np.array(photo)
    fits = pixels.ndim == 3 and 0 not in pixels.shape
    in_range = pixels.dtype == np.uint8 or (
        pixels.dtype.kind == "f" and fits and pixels.min() >= 0 and pixels.max() <= 1
    )
    if not (fits and in_range):
        raise InvalidInput(
            f"a photo is a file or an array (H, W, C), uint8 or in [0, 1], not {pixels.dtype} {pixels.shape}"
        )
    pixels.setflags(write=False)
    return Photo(pixels, name)


def channel(layer: str | int, index: int | Iterable[int]) -> Objective:
    """The spatial mean of a channel of a layer: shows what the filter looks for.

    Args:
        layer: name, alias or index of a layer with positions: of an image, a row (1-D convolutions, tokens) or a
            volume. Of tokens those that are patches of the image count, where there are such.
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


def neuron(layer: str | int, index: int | Iterable[int], position: Sequence[int] | None = None) -> Objective:
    """One channel at one position (row, column) of the layer's output; the centre if None.

    Args:
        layer: name, alias or index (from 0, in execution order) of the layer.
        index: one channel, or several, with one image per channel.
        position: (row, column) from 0 in the layer's output, or in the grid of a transformer's patches; (position,) in
            a row and (depth, row, column) in a volume; None: its centre.

    Returns:
        An objective of one image per channel.

    Raises:
        InvalidInput: a channel or a position is no integer.

    Source: "Feature Visualization", Distill, 2017, section "Optimization Objectives".

    Example:
        >>> ag.visualize(model, ag.objectives.neuron("conv", 0, (4, 4)), size=16, steps=2).labels
        ('conv:0@4,4',)
    """
    return Neuron(layer, _indices(index, "channel"), _place(position))


def position(layer: str | int, position: Sequence[int] | None = None) -> Objective:
    """The mean square of all channels at one position: what the layer says of that place.

    Args:
        layer: name, alias or index of a layer with positions.
        position: as for :func:`neuron`.

    Returns:
        An objective of one image.

    Raises:
        InvalidInput: the position is not made of integers.

    Source: Olah et al., "The Building Blocks of Interpretability", Distill, 2018, section "Spatial activations".

    Example:
        >>> ag.visualize(model, ag.objectives.position("conv", (4, 4)), size=16, steps=2).labels
        ('conv@4,4',)
    """
    return Position(layer, _place(position))


def token(layer: str | int, token: int | str = "class", index: int | Iterable[int] | None = None) -> Objective:
    """One token of a transformer's layer: one of its channels, or the mean square of all.

    Args:
        layer: name, alias or index of a layer that returns a row of tokens.
        token: its number from 0, or ``"class"``; for patches by (row, column) see :func:`neuron` and :func:`position`.
        index: one channel, or several, with one image per channel; None for all in one image.

    Returns:
        An objective of one image per channel.

    Raises:
        InvalidInput: the token is neither a number nor ``"class"``.

    Source: Ghiasi et al., "What do Vision Transformers Learn? A Visual Exploration", 2022, section 3.

    Example:
        >>> ag.objectives.token("blocks.11", 0, [3, 5]).labels()
        ('blocks.11:3@token 0', 'blocks.11:5@token 0')
    """
    if token != "class" and not (_is_integer(token) and int(token) >= 0):
        raise InvalidInput(f"a token is a number from 0, or 'class', not {token!r}")
    return Token(layer, () if index is None else _indices(index, "channel"), token if token == "class" else int(token))


def head(layer: str | int, index: int | Iterable[int], heads: int | None = None) -> Objective:
    """The mean square of what one head of an attention computes.

    Args:
        layer: name, alias or index of an attention layer of the framework's own, of which the heads are looked at
            before the projection of the output; or of a layer that returns heads side by side: the projection of
            queries, keys or values, or what goes into the projection of the output (timm's ``attn.norm``). A joint
            projection of all three has three times as many heads: queries first, then keys, then values.
        index: one head, or several, with one image per head.
        heads: how many the layer has; None for an attention layer, which knows it.

    Returns:
        An objective of one image per head.

    Raises:
        InvalidInput: there is no such head, or a number is no integer.

    Source: Vaswani et al., "Attention Is All You Need", 2017, section 3.2.2.

    Example:
        >>> ag.visualize(model, ag.objectives.head("conv", range(2), 4), size=16, steps=2).labels
        ('conv:head 0', 'conv:head 1')
    """
    chosen = _indices(index, "head")
    number = 0 if heads is None else heads
    known = heads is None or (_is_integer(heads) and number >= 1 and max(chosen) < number)
    if not known or min(chosen) < 0:
        raise InvalidInput(f"a head is one of those of its layer, 0 to their number - 1, not {chosen} of {heads!r}")
    return Head(layer, chosen, int(number))


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


def direction(layer: str | int, vector: npt.ArrayLike, called: str | Iterable[str] = ()) -> Objective:
    """The dot product with ``vector``, (channels,) or (images, channels), averaged over positions.

    Args:
        layer: name, alias or index (from 0, in execution order) of the layer.
        vector: (channels,) or (images, channels), finite numbers; the norm of the vector scales the objective.
        called: the name of each vector, for labels.

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
    return Direction(layer, _vectors(vector), _called(called))


def cosine(layer: str | int, vector: npt.ArrayLike, called: str | Iterable[str] = ()) -> Objective:
    """The mean over positions of the cosine with ``vector``: towards it, however weak.

    ``direction(layer, v) * cosine(layer, v)`` is strong and pure.

    Args:
        layer: name, alias or index (from 0, in execution order) of the layer.
        vector: (channels,) or (images, channels), finite numbers, not all of them zero.
        called: the name of each vector, for labels.

    Returns:
        An objective of one image per vector.

    Raises:
        InvalidInput: a vector is zero or not finite, or vectors differ in length.

    Source: Carter et al., "Activation Atlas", Distill, 2019, section "Feature visualization".

    Example:
        >>> ag.visualize(model, ag.objectives.cosine("conv", np.eye(8)[3]), size=16, steps=2).shape
        (1, 16, 16, 3)
    """
    vectors = _vectors(vector)
    if not vectors.any(axis=1).all():
        raise InvalidInput("a vector of zeros has no direction to be near to")
    return Cosine(layer, vectors, _called(called))


def interpolation(first: Objective, second: Objective, steps: int) -> Objective:
    """From one objective to another: ``(1 - t) * first + t * second``, one image for each of several t from 0 to 1.

    All images start from the same noise and are seen through the same views; add :func:`alignment` to make neighbours
    alike.

    Args:
        first, second: objectives of one image, such as two classes.
        steps: number of images, at least 2.

    Returns:
        An objective of so many images.

    Raises:
        InvalidInput: fewer than two steps, or an objective of several images.

    Source: "Feature Visualization", Distill, 2017, section "Interaction between Neurons".

    Example:
        >>> between = ag.objectives.interpolation(ag.objectives.logit(0), ag.objectives.logit(3), 3)
        >>> between.labels()[1]
        '0.5 * class 0 + 0.5 * class 3'
        >>> ag.visualize(model, between + 0.1 * ag.objectives.alignment("conv"), size=16, steps=2).shape
        (3, 16, 16, 3)
    """
    if not _is_integer(steps) or steps < 2 or first.count != 1 or second.count != 1:
        raise InvalidInput(
            f"an interpolation is between two objectives of one image, in at least 2 steps, not of {first.count} and "
            f"{second.count} images in {steps!r}"
        )
    part = np.linspace(0.0, 1.0, int(steps))
    return ImageFactors(tuple((1 - part).tolist())) * first + ImageFactors(tuple(part.tolist())) * second


def caricature(layer: str | int, photo: Any, *, power: int = 1, name: str | Iterable[str] | None = None) -> Objective:
    """What a layer sees in a photo, overdrawn: the image whose activations point where the photo's do.

    Places are compared with places, so the recipe must not crop: ``recipe="jitter"``.

    Args:
        layer: name, alias or index of a layer with positions.
        photo: a file, an array (H, W, C) (uint8, or in [0, 1]), or several, with one image per photo. The middle is
            taken, in the size of the images.
        power: of the cosine, 0 or more; the higher, the nearer to the photo.
        name: the name of each photo, for labels.

    Returns:
        An objective of one image per photo.

    Raises:
        InvalidInput: a photo cannot be read, or the power is no integer.

    Source: Carter et al., "Activation Atlas", Distill, 2019; Olah, "Caricatures", a notebook of Lucid, 2020.

    Example:
        >>> ag.visualize(model, ag.objectives.caricature("conv", images[0]), recipe="jitter", size=16, steps=2).labels
        ('conv:photo 0',)
    """
    if not _is_integer(power) or power < 0:
        raise InvalidInput(f"the power of the cosine is an integer from 0, not {power!r}")
    return Caricature(layer, _photos(photo, name), int(power))


def style(layer: str | int, photo: Any, *, name: str | Iterable[str] | None = None) -> Objective:
    """The style of a photo: correlations between the channels of a layer, wherever they are in the image.

    Args:
        layer: name, alias or index of a layer with positions; add the styles of several layers.
        photo: as for :func:`caricature`.
        name: the name of each photo, for labels.

    Returns:
        An objective of one image per photo, 0 at most.

    Raises:
        InvalidInput: a photo cannot be read.

    Source: Gatys, Ecker, Bethge, "Image Style Transfer Using Convolutional Neural Networks", CVPR 2016, section 2.2.

    Example:
        >>> ag.visualize(model, ag.objectives.style("conv", images[0]), size=16, steps=2).scores.shape
        (2, 1)
    """
    return Style(layer, _photos(photo, name))


def concept(vector: ConceptVector) -> Objective:
    """The direction of a concept in a layer, as :func:`concept_vector` finds it in photos.

    Args:
        vector: the concept.

    Returns:
        An objective of one image.

    Source: Kim et al., "Interpretability Beyond Feature Attribution: Quantitative Testing with Concept Activation
    Vectors", ICML 2018, section 3.2.

    Example:
        >>> dark, light = np.zeros((4, 16, 16, 3)), np.ones((4, 16, 16, 3))
        >>> found = ag.objectives.concept_vector(model, "conv", light, dark, name="light")
        >>> ag.visualize(model, ag.objectives.concept(found), size=16, steps=2).labels
        ('conv:light',)
    """
    return Direction(vector.layer, _vectors(vector.vector), (vector.name,))


def function(
    of: Callable[[Ops, Mapping[str, Array]], Array],
    layers: str | Iterable[str],
    *,
    name: str | None = None,
    mixes: bool = False,
) -> Objective:
    """An objective of your own: a function of what layers return.

    Before an ascent the function is tried on arrays that refuse what a compiler cannot follow: branches on numbers,
    NumPy's functions, writing into arrays.

    Args:
        of: ``f(ops, taps)``: from the array operations (``agnostic.ops.Ops``) and the outputs by layer, each (rows,
            channels, positions ...) on every backend, to one number per row: an array (rows,).
        layers: the names of the layers that it reads; they are the keys of ``taps``.
        name: for labels; the function's own by default.
        mixes: whether the result of one row depends on others, so that all must be computed together.

    Returns:
        An objective of one image, or a term to add to one of several.

    Raises:
        InvalidInput: it is no function, or no layer is given.

    Source: the function; nothing is added to it.

    Example:
        >>> def contrast(ops, taps):
        ...     return ops.mean(ops.square(taps["conv"][:, 0] - taps["conv"][:, 1]), (1, 2))
        >>> ag.visualize(model, ag.objectives.function(contrast, "conv"), size=16, steps=2).labels
        ('contrast',)
    """
    names = (layers,) if isinstance(layers, str) else tuple(layers)
    if not callable(of) or not names:
        raise InvalidInput(
            f"an objective is made of a function f(ops, taps) and of layers' names, not {of!r}, {names!r}"
        )
    return FunctionTerm(of, names, name or str(getattr(of, "__name__", "function")), mixes)


def alignment(layer: str | int) -> Objective:
    """Make neighbours in a batch alike: ``interpolation(a, b, 8) + 0.5 * alignment(layer)``.

    Args:
        layer: name, alias or index (from 0, in execution order) of the layer.

    Returns:
        A term to add to an objective for several images, 0 at most.

    Source: Mordvintsev et al., "Differentiable Image Parameterizations", Distill, 2018, section "Aligned Feature
    Visualization Interpolation".

    Example:
        >>> objective = ag.objectives.channel("conv", [2, 5]) + ag.objectives.alignment("conv")
        >>> ag.visualize(model, objective, size=16, steps=2).shape
        (2, 16, 16, 3)
    """
    return Aligned(layer)


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


def opacity() -> Objective:
    """How opaque the image is, where its recipe gives it an alpha; ``objective * (1 - opacity())`` bares what matters.

    Returns:
        A term: the mean of the alpha over the image, in [0, 1].

    Source: Mordvintsev et al., "Differentiable Image Parameterizations", Distill, 2018, section "Transparency".

    Example:
        >>> from agnostic.visualization.layered import Alpha
        >>> objective = ag.objectives.channel("conv", 5) * (1 - ag.objectives.opacity())
        >>> ag.visualize(model, objective, recipe=ag.recipes.fourier(image=Alpha()), size=16, steps=2).shape
        (1, 16, 16, 4)
    """
    return Opacity()


def names() -> Sequence[str]:
    """The names of the functions above, for error messages and help texts.

    Returns:
        Names of functions of this module.

    Example:
        >>> "deepdream" in ag.objectives.names()
        True
    """
    return (
        "channel", "neuron", "position", "token", "head", "logit", "direction", "cosine", "concept", "interpolation",
        "deepdream", "caricature", "style", "function", "diversity", "alignment", "total_variation",
        "opacity",
    )  # fmt: skip
