"""The functions that look inside a model: list its layers and record their outputs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, Literal

import numpy.typing as npt

from agnostic.contracts.guards import GUARDS
from agnostic.contracts.layers import LAYERS
from agnostic.contracts.taps import TAPS
from agnostic.errors import InvalidInput
from agnostic.layers import Layers
from agnostic.models.attached import card_of
from agnostic.models.inputs import Size, layers_of, run_layers
from agnostic.models.preparing import model_inputs
from agnostic.registry import Backend, Model, model_backend
from agnostic.taps.choosing import Selectors, as_selectors, called, choose, keyed, names_of
from agnostic.taps.records import Activations
from agnostic.taps.refusals import refusals


def layers(model: Model, inputs: Any = None, *, size: Size | None = None, channels_in: int | None = None) -> Layers:
    """The layers of a model in the order in which they first run; those that do not run follow.

    The model runs in inference mode: once, or a few times if it does not declare the shapes of its inputs.

    Args:
        model: a native model.
        inputs: what the model is called with, as in :func:`capture`. None: zeros. Their shape is the one that the model
            declares, that its card states, or that trial runs find; see :mod:`agnostic.models.inputs`.
        size: height and width of the images, one number or two; None: the model's own.
        channels_in: number of channels of the images, if the model does not declare it.

    Returns:
        A list of :class:`agnostic.layers.Layer`; ``print`` shows it as a table.

    Raises:
        InvalidInput: the model does not take the inputs, or images of this size, or no shape can be found.

    Example:
        >>> [(layer.name, layer.kind, layer.shape) for layer in ag.layers(model)][:2]
        [('conv', 'Conv2d', (None, 8, 224, 224)), ('norm', 'BatchNorm2d', (None, 8, 224, 224))]
    """
    backend = model_backend(model)
    if inputs is not None:
        if size is not None or channels_in is not None:
            raise InvalidInput("inputs already have a size and channels: leave out size and channels_in")
        with refusals(backend, model, inputs):
            return Layers(run_layers(backend, model, inputs))
    return Layers(layers_of(backend, model, size=size, channels=channels_in))


def capture(model: Model, inputs: Any, layers: Selectors) -> Activations:
    """Run a model in inference mode and return the outputs of the chosen layers.

    The first call with inputs of a new shape runs the whole model. Later calls stop after the last chosen layer, if
    none of them runs again. Training flags are restored afterwards.

    Args:
        model: a native model.
        inputs: one input, a tuple of positional inputs, or a dict of named ones. An input is a native array, or a NumPy
            array in the model's own layout. NumPy arrays are moved to the model's device; floating-point ones are
            converted to the model's dtype. Pass images in [0, 1] through :func:`prepare` first.
        layers: names, globs, indices, kinds, or the model's own layer objects; see :mod:`agnostic.layers`.

    Returns:
        The outputs by layer name. If a glob or a kind chooses layers that did not run, they are left out.

    Raises:
        UnknownName: a selector chooses no layer.
        InvalidInput: the model does not take these inputs; a layer chosen by name or index did not run; or no layer
            that a glob chooses ran.

    Example:
        >>> record = ag.capture(model, ag.prepare(model, images), ["conv", "kind:ReLU"])
        >>> record
        Activations(conv: (2, 8, 16, 16), relu: (2, 8, 16, 16))
        >>> record["relu"].min() >= 0
        tensor(True)
    """
    backend = model_backend(model)
    with refusals(backend, model, inputs):
        chosen = choose(backend, model, layers, inputs)
        record = backend[TAPS].capture(model, inputs, names_of(chosen))
    ran = {key: record.layer(x.name) for key, x in keyed(called(chosen, lambda x: bool(record.calls(x.name)))).items()}
    return record.rekeyed(ran, _about(backend, model, inputs), partial(backend[LAYERS].layer_name, model))


@contextmanager
def watch(
    model: Model, layers: Selectors = (), *, detach: bool = False, nonfinite: Literal["raise"] | None = None
) -> Iterator[Activations]:
    """Record the outputs of the chosen layers while the context is open.

    Each call of a layer adds one entry to the record. Gradients flow through the recorded arrays. The hooks are removed
    at the end, also after an error. The recorded array is not changed by later in-place operations of the model.
    Compiled code calls no hooks, so it runs uncompiled inside the context.

    With ``nonfinite="raise"``, code inside the context stops at the first number that is NaN or infinite, and the error
    says where it is. This includes ``fit()`` and functions that were compiled before. Checked are:

    - the output of the model, or of a layer that is called directly. The error names the first layer whose number
      reaches it. A number that a later operation makes finite again, such as the infinity of a mask, is no error.
      Nor is an infinity that the program writes as a constant (``masked_fill``), unless it reaches a loss term;
    - a loss term. In PyTorch: a scalar that depends on weights, or the tensor that ``backward`` is called on. In
      Keras: the result of a ``keras.losses.Loss``, a regularizer, ``add_loss`` or ``compute_loss``, or the value that
      a tape differentiates. Pass any other loss, such as your own for jax.grad, to
      ``record.check({"entropy": entropy})``. The error names the first operation whose number reaches it;
    - a gradient of a layer's output or of a weight. Infinite gradients of a scaled loss are no error, since loss
      scaling skips those steps.

    Every operation of this thread is checked, which costs one pass over its results. Whole arrays are followed, not
    their elements: if two arrays with bad numbers are joined, the error names the earlier one, even if its part is cut
    off later. Operations inside TorchScript, custom autograd functions and tf.data graphs are not visible: the error
    names the layer around them.

    Args:
        model: a native model.
        layers: names, globs or kinds; an index needs a run of the model, with inputs that its card or its first layer
            implies. May be empty with ``nonfinite``.
        detach: keep copies without gradients.
        nonfinite: ``"raise"``, or None for no check.

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
    asked = as_selectors(backend, model, layers)
    chosen = choose(backend, model, asked, None) if asked or nonfinite is None else []
    # The guard comes first, so that it sees the arrays of the model, not the recorded copies.
    with (
        nullcontext() if nonfinite is None else backend[GUARDS].guard(model),
        backend[TAPS].watch(model, names_of(chosen), detach=detach) as record,
    ):
        yield record.rekeyed(keyed(chosen), _about(backend, model, None), partial(backend[LAYERS].layer_name, model))


def submodel(model: Model, layers: Selectors) -> Model:
    """A native model that returns the outputs of the chosen layers, as Keras' ``Model(inputs, outputs)`` does.

    It shares the weights of the model, and stops after the last chosen layer.

    Args:
        model: a native model.
        layers: as in :func:`watch`.

    Returns:
        A model whose call returns an array for one layer, or a list of arrays for several, in the order of ``layers``.

    Raises:
        UnknownName: a selector chooses no layer.

    Example:
        >>> ag.submodel(model, ["conv", "pool"])(ag.prepare(model, images))[1].shape
        torch.Size([2, 8, 1, 1])
    """
    backend = model_backend(model)
    return backend[TAPS].submodel(model, names_of(choose(backend, model, layers, None)))


def prepare(
    model: Model,
    images: npt.ArrayLike | str | os.PathLike[str],
    *,
    inputs: Any = None,
    image: int | str | None = None,
    size: Size | None = None,
    channels_in: int | None = None,
) -> Any:
    """Convert images to what a model takes: its size, preprocessing, layout and array type.

    Each image is resized; its centre is cropped if the aspect ratio differs. The command ``agnostic taps`` does the
    same.

    Args:
        model: a native model, whose card says how images are preprocessed; without a card they stay in [0, 1], or in
            the range that the model's own first layer expects.
        images: (N, H, W, C), (H, W, C) or (H, W) for grey; uint8, or floating point in [0, 1]. Or an image file.
        inputs: for a model with several inputs: the other inputs, as in :func:`capture`, with None (or a missing name)
            in the place of the images: ``(None, age)`` or ``{"age": age}``. A batch of 1 is repeated
            for every image.
        image: position or name of the input that takes the images, if ``inputs`` does not show it.
        size: height and width, one number or two; None: the model's own where it has one, else that of the images.
        channels_in: channels of the model's images, if the model does not declare it.

    Returns:
        The arguments of the model: a batch of N images, or of one. With ``inputs``: the tuple or dict of all its
        inputs. Without ``inputs``, for a model with several: only the images.

    Raises:
        InvalidInput: a wrong shape, type or range, or a number of channels that the model does not take; or it is not
            clear which of several inputs takes the images.
        UnknownName: no input is called ``image``.

    Example:
        >>> ag.prepare(model, images).shape
        torch.Size([2, 3, 16, 16])
        >>> ag.prepare(model, "photos/cat/0.png", size=8).shape
        torch.Size([1, 3, 8, 8])
    """
    return model_inputs(model, images, inputs=inputs, image=image, size=size, channels_in=channels_in)


# What a record says of its origin ------------------------------------------------------------------------------------
def _about(backend: Backend, model: Model, inputs: Any) -> dict[str, Any]:
    """What a record stores about the model and its inputs; None for unknown inputs."""
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
