"""The verbs that look inside a model: which layers it has, and what they return."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from numbers import Integral
from typing import Any, Literal

import numpy.typing as npt

from agnostic.contracts.guards import GUARDS
from agnostic.contracts.layers import LAYERS
from agnostic.contracts.taps import TAPS
from agnostic.errors import InvalidInput
from agnostic.layers import Layer, Layers, Selector, chooses_many, select
from agnostic.models.attached import card_of
from agnostic.models.inputs import Size, layers_of, run_layers
from agnostic.models.preparing import model_inputs
from agnostic.registry import Backend, Model, model_backend
from agnostic.taps.records import Activations
from agnostic.taps.refusals import refusals

Selectors = Selector | Iterable[Selector]


def layers(model: Model, inputs: Any = None, *, size: Size | None = None, channels_in: int | None = None) -> Layers:
    """The layers of a model in the order in which they first run; those that do not run follow.

    The model is run in inference mode: once, or a few times where it does not declare what its inputs look like.

    Args:
        model: a native model.
        inputs: what the model is called with, as in :func:`capture`. None: zeros of the shape that the model declares,
            that its card says, or that is found by running it; see :mod:`agnostic.models.inputs`.
        size: height and width of the images, one number or two; None: the model's own.
        channels_in: channels of the images, where the model does not tell.

    Returns:
        A list; ``print`` shows it as a table.

    Raises:
        InvalidInput: the model does not take the inputs, or images of this size, or no shape can be found.

    Example:
        >>> [(layer.name, layer.kind, layer.shape) for layer in ag.layers(model)][:2]
        [('conv', 'Conv2d', (None, 8, 224, 224)), ('norm', 'BatchNorm2d', (None, 8, 224, 224))]
    """
    backend = model_backend(model)
    if inputs is not None:
        if size is not None or channels_in is not None:
            raise InvalidInput("inputs have a size and channels of their own: leave size and channels_in out")
        with refusals(backend, model, inputs):
            return Layers(run_layers(backend, model, inputs))
    return Layers(layers_of(backend, model, size=size, channels=channels_in))


def capture(model: Model, inputs: Any, layers: Selectors) -> Activations:
    """Run a model in inference mode and return what the chosen layers return.

    The model is run as far as the last chosen layer, where it is known that none of them runs again: the first call for
    inputs of a new shape runs all of it. Training flags are as before afterwards.

    Args:
        model: a native model.
        inputs: one input, a tuple of positional inputs, or a dict of named ones. An input is a native array, or a NumPy
            array in the model's own layout, which is moved to the model's device and, if it is floating point, to its
            type. Images in [0, 1] go through :func:`prepare` first.
        layers: names, globs, indices, kinds, or the model's own layer objects; see :mod:`agnostic.layers`.

    Returns:
        The outputs by layer name. Of the layers that a glob or a kind chooses, those that did not run are left out.

    Raises:
        UnknownName: a selector chooses no layer.
        InvalidInput: the model does not take these inputs; a layer that was asked for by name or index did not run, or
            none of a glob's did.

    Example:
        >>> record = ag.capture(model, ag.prepare(model, images), ["conv", "kind:ReLU"])
        >>> record
        Activations(conv: (2, 8, 16, 16), relu: (2, 8, 16, 16))
        >>> record["relu"].min() >= 0
        tensor(True)
    """
    backend = model_backend(model)
    with refusals(backend, model, inputs):
        chosen = _choose(backend, model, layers, inputs)
        record = backend[TAPS].capture(model, inputs, _names(chosen))
    ran = []
    for selector, found in chosen:
        called = [record.layer(layer.name) for layer in found if record.calls(layer.name)]
        if not called or (len(called) < len(found) and not chooses_many(selector)):
            layer = next(layer for layer in found if not record.calls(layer.name))
            raise InvalidInput(
                f"layer {layer.name!r} ({layer.kind}) did not run: with these inputs the model does not call it; "
                "agnostic.layers(model) tells how often each layer runs"
            )
        ran.append((selector, called))
    return record.rekeyed(_keyed(ran), _about(backend, model, inputs), partial(backend[LAYERS].layer_name, model))


@contextmanager
def watch(
    model: Model, layers: Selectors = (), *, detach: bool = False, nonfinite: Literal["raise"] | None = None
) -> Iterator[Activations]:
    """Record what the chosen layers return, in whatever runs inside the context.

    A record grows by one for each call of the layer. Gradients flow through it. The hooks are removed at the end, also
    after an error. Each record is a copy as far as the model goes on with another one, since what follows might change
    it in place. Compiled code calls no hooks, so it runs uncompiled inside.

    With ``nonfinite="raise"`` whatever runs inside, ``fit()`` and functions that were compiled before among it, stops
    at the first number that is NaN or infinite, and says where that is:

    - what the model returns, or a layer that is called by itself. Named is the first layer whose number reaches it;
      what a later operation makes finite again, such as the infinity of a mask, is let pass. So is an infinity that the
      program itself writes down (``masked_fill``), unless a loss term is reached;
    - a loss term. In PyTorch: a scalar that depends on weights, or what ``backward`` is called on. In Keras: what a
      ``keras.losses.Loss``, a regularizer, ``add_loss`` or ``compute_loss`` gives, or what a tape differentiates. Any
      other, such as one written by hand for jax.grad, is given to ``record.check({"entropy": entropy})``. Named is the
      first operation whose number reaches it;
    - a gradient: of a layer's output, on its way back, or of a weight. Infinite gradients of a scaled loss, whose steps
      the scale leaves out, are let pass.

    Every operation of this thread is looked at, which costs a pass over its results. Arrays are followed, not their
    elements: of two bad arrays that were joined, the earlier one is named, also if its part was cut off. Operations in
    TorchScript, custom autograd functions and graphs of tf.data are not seen: the layer around them is named.

    Args:
        model: a native model.
        layers: names, globs or kinds; an index needs the model to be run, with inputs that its card or its first layer
            implies. May be empty with ``nonfinite``.
        detach: keep copies without gradients.
        nonfinite: ``"raise"``, or None to let numbers be what they are.

    Returns:
        A context manager that yields the record.

    Raises:
        UnknownName: a selector chooses no layer.
        NonFinite: see above.

    Example:
        >>> import torch
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 1))
        >>> with watch(model, nonfinite="raise"):
        ...     loss = (model(torch.ones(4, 2)).square() - 1e6).log().mean()
        Traceback (most recent call last):
        agnostic.errors.NonFinite: loss term ...
    """
    if nonfinite not in (None, "raise"):
        raise InvalidInput(f"nonfinite is 'raise' or None, not {nonfinite!r}")
    backend = model_backend(model)
    asked = _asked(backend, model, layers)
    chosen = _choose(backend, model, asked, None) if asked or nonfinite is None else []
    # The guard comes first, so that it sees what the model computed, and not a copy that was recorded.
    with (
        nullcontext() if nonfinite is None else backend[GUARDS].guard(model),
        backend[TAPS].watch(model, _names(chosen), detach=detach) as record,
    ):
        yield record.rekeyed(_keyed(chosen), _about(backend, model, None), partial(backend[LAYERS].layer_name, model))


def submodel(model: Model, layers: Selectors) -> Model:
    """A native model that returns what the chosen layers return, as the Keras idiom ``Model(inputs, outputs)``.

    It shares the weights of the model, and runs as far as the last chosen layer.

    Args:
        model: a native model.
        layers: as in :func:`watch`.

    Returns:
        A model whose call returns one array for one layer, and a list of arrays for several, in the order asked for.

    Raises:
        UnknownName: a selector chooses no layer.

    Example:
        >>> ag.submodel(model, ["conv", "pool"])(ag.prepare(model, images))[1].shape
        torch.Size([2, 8, 1, 1])
    """
    backend = model_backend(model)
    return backend[TAPS].submodel(model, _names(_choose(backend, model, layers, None)))


def prepare(
    model: Model,
    images: npt.ArrayLike | str | os.PathLike[str],
    *,
    inputs: Any = None,
    image: int | str | None = None,
    size: Size | None = None,
    channels_in: int | None = None,
) -> Any:
    """Images as a model takes them: its own size, preprocessing, layout and array type.

    Each image is resized, and its middle cut out where the shape differs, as the command ``agnostic taps`` does it.

    Args:
        model: a native model, whose card says how images are preprocessed; without a card they stay in [0, 1], or in
            the range that the model's own first layer expects.
        images: (N, H, W, C), (H, W, C) or (H, W) for grey; uint8, or floating point in [0, 1]. Or an image file.
        inputs: of a model with several inputs, what it is called with beside the images, as in :func:`capture`, with
            None (or nothing, for a name) in their place: ``(None, age)`` or ``{"age": age}``. A batch of 1 is repeated
            for every image.
        image: position or name of the input that takes the images, where ``inputs`` does not tell.
        size: height and width, one number or two; None: the model's own where it has one, else that of the images.
        channels_in: channels of the model's images, where it does not tell.

    Returns:
        What the model is called with: the batch of N images, or of one; with ``inputs``, the tuple or dict of all its
        inputs. Without ``inputs``, for a model with several, the images alone.

    Raises:
        InvalidInput: another shape, type or range, or another number of channels than the model takes; it does not
            follow which of several inputs takes the images.
        UnknownName: no input is called ``image``.

    Example:
        >>> ag.prepare(model, images).shape
        torch.Size([2, 3, 16, 16])
        >>> ag.prepare(model, "photos/cat/0.png", size=8).shape
        torch.Size([1, 3, 8, 8])
    """
    return model_inputs(model, images, inputs=inputs, image=image, size=size, channels_in=channels_in)


# Choosing ------------------------------------------------------------------------------------------------------------
Chosen = list[tuple[Selector, list[Layer]]]
"""Each selector with the layers that it chooses."""


def _choose(backend: Backend, model: Model, selectors: Selectors, inputs: Any) -> Chosen:
    """The model is run only for an index, which counts in execution order."""
    asked = _asked(backend, model, selectors)
    by_index = any(isinstance(x, Integral) for x in asked)
    listing = _listing(backend, model, inputs) if by_index else backend[LAYERS].tree(model)
    name = type(model).__name__
    if not asked:
        select(listing, asked, model=name)
    return [(selector, select(listing, [selector], model=name)) for selector in asked]


def _asked(backend: Backend, model: Model, selectors: Any) -> list[Any]:
    """Selectors one by one, the model's own layer objects by their names."""

    def named(x: Any) -> Any:
        return x if isinstance(x, str | Integral | Layer) else backend[LAYERS].layer_name(model, x) or x

    # A layer object may itself be a sequence of layers.
    one = named(selectors)
    if isinstance(one, str | bytes | Integral | Layer) or not isinstance(one, Iterable):
        return [one]
    try:
        several = list(one)
    except (TypeError, NotImplementedError):  # symbolic tensors, and tensors without axes, refuse it
        return [one]
    return [named(x) for x in several]


def _listing(backend: Backend, model: Model, inputs: Any) -> Sequence[Layer]:
    return layers_of(backend, model) if inputs is None else run_layers(backend, model, inputs)


def _about(backend: Backend, model: Model, inputs: Any) -> dict[str, Any]:
    """What a record says of the model and of its inputs; None for inputs that are not known."""
    card = card_of(model)
    given = {"": inputs} if not isinstance(inputs, Mapping | tuple | list) else inputs
    items = given.items() if isinstance(given, Mapping) else enumerate(given)
    return {
        "model": type(model).__name__,
        "spec": None if card is None else card.spec,
        "backend": backend.name,
        "engine": backend.engine,
        "inputs": None if inputs is None else {str(key): _described(x) for key, x in items},
    }


def _described(x: Any) -> str:
    """The type and shape of an input, such as ``"torch.float32 (1, 3, 224, 224)"``."""
    shape = getattr(x, "shape", None)
    return type(x).__name__ if shape is None else f"{getattr(x, 'dtype', type(x).__name__)} {tuple(shape)}"


def _names(chosen: Chosen) -> list[str]:
    return list(dict.fromkeys(layer.name for _, found in chosen for layer in found))


def _keyed(chosen: Chosen) -> dict[str, Layer]:
    """Each layer once, under the name by which it was first asked for: its own, or an alias."""
    keys: dict[str, tuple[str, Layer]] = {}
    for selector, found in chosen:
        for layer in found:
            alias = isinstance(selector, str) and selector in layer.aliases
            keys.setdefault(layer.name, (str(selector) if alias else layer.name, layer))
    return dict(keys.values())
