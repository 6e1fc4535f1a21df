"""What a Keras model declares of its inputs, and what its layers receive: see :mod:`agnostic.models.inputs`."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import layers as kl
from keras import tree

from agnostic.models.cards import ModelCard, Preprocessing
from agnostic.models.forms import Input, ModelRun, Received, Takes, is_python_refusal
from agnostic.patching import Replacement
from agnostic_keras import engines
from agnostic_keras.layers import Listing, named_layers
from agnostic_keras.taps import (
    _graph,
    _is_graph,
    _last,
    _native,
    _watching,
    call_parameters,
    check_built,
    data_format,
    ops,
    predict,
    replaced,
    takes_any_name,
)

_FIRST = {1: "N", 2: "NC", 3: "NCL", 4: "NCHW", 5: "NCDHW"}
_LAST = {1: "N", 2: "NC", 3: "NLC", 4: "NHWC", 5: "NDHWC"}


# What a model declares -----------------------------------------------------------------------------------------------
def stated_inputs(model: keras.Layer) -> Sequence[Input] | None:
    """See :meth:`agnostic.contracts.inputs.ModelInputs.stated_inputs`."""
    check_built(model)
    if getattr(model, "inputs", None):
        found = [_input(model, x.shape, str(x.dtype)) for x in tree.flatten(_graph(model).input)]
    else:
        # What a subclassed model was built for: by its first call, or by build().
        shapes = list((getattr(model, "_build_shapes_dict", None) or {}).values())
        if not all(
            isinstance(shape, tuple) and all(n is None or isinstance(n, int) for n in shape) for shape in shapes
        ):
            return None
        found = [_input(model, shape, "float32") for shape in shapes]
        if len(found) != input_count(model):
            return None
    return None if not found or None in found else found  # type: ignore[return-value]


def _input(model: keras.Layer, shape: Sequence[int | None], dtype: str) -> Input | None:
    integer = "int" in dtype
    axes = "NL" if integer and len(shape) == 2 else (_FIRST if _channels_first(model) else _LAST).get(len(shape))
    return None if axes is None else Input((1, *shape[1:]), axes, integer)


def _channels_first(model: keras.Layer) -> bool:
    return data_format(model) == "channels_first"


def input_count(model: keras.Layer) -> int:
    """See :meth:`agnostic.contracts.inputs.ModelInputs.input_count`."""
    if getattr(model, "inputs", None):
        return len(tree.flatten(_graph(model).input))
    return max(1, sum(x.default is x.empty for x in call_parameters(model)))


def input_names(model: keras.Layer) -> Sequence[str]:
    """See :meth:`agnostic.contracts.inputs.ModelInputs.input_names`."""
    if getattr(model, "inputs", None):
        structure = _graph(model).input
        # As tree.flatten orders them.
        return sorted(structure) if isinstance(structure, dict) else [x.name for x in tree.flatten(structure)]
    return [x.name for x in sorted(call_parameters(model), key=lambda x: x.default is not x.empty)]


def takes_other_names(model: keras.Layer) -> bool:
    """See :meth:`agnostic.contracts.inputs.ModelInputs.takes_other_names`."""
    return takes_any_name(model)


def native_inputs(model: keras.Layer, arrays: Sequence[npt.NDArray[Any]]) -> Any:
    """See :meth:`agnostic.contracts.inputs.ModelInputs.native_inputs`."""
    if getattr(model, "inputs", None):
        structure = _graph(model).input
        declared = tree.flatten(structure)
        if len(declared) == len(arrays):
            found = [ops.asarray(x, str(kt.dtype)) for x, kt in zip(arrays, declared, strict=True)]
            return found[0] if len(found) == 1 else tree.pack_sequence_as(structure, found)
    found = [_native(model, x) for x in arrays]
    return found[0] if len(found) == 1 else tuple(found)


# The range that a model expects --------------------------------------------------------------------------------------
_UNCHANGED = (
    kl.InputLayer, kl.Resizing, kl.CenterCrop, kl.RandomCrop, kl.RandomFlip, kl.RandomRotation, kl.RandomTranslation,
    kl.RandomZoom, kl.ZeroPadding2D, kl.Cropping2D, kl.Permute, kl.Identity, kl.GaussianNoise, kl.Dropout,
)  # fmt: skip
"""Layers after which pixels are in the range in which they were."""


def stated_preprocessing(model: keras.Layer, place: int = 0) -> Preprocessing | None:
    """See :meth:`agnostic.contracts.inputs.ModelInputs.stated_preprocessing`: from a rescaling that comes first."""
    first = next(_first_steps(model, place), None)
    match first:
        case kl.Rescaling():
            largest = float(np.abs(np.asarray(first.scale, np.float64)).max())
            bytes_expected = largest * 255 < _HALFWAY
        case kl.Normalization() if not first.invert and getattr(first, "mean", None) is not None:
            mean, variance = (np.asarray(ops.numpy(x), np.float64) for x in (first.mean, first.variance))
            bytes_expected = bool((np.abs(mean) + np.sqrt(variance)).max() > 255 / _HALFWAY)
        case float():
            bytes_expected = abs(first) * 255 < _HALFWAY
        case _:
            return None
    return Preprocessing((0.0,), (1.0,), scale=255.0) if bytes_expected else None


_HALFWAY = 32
"""A rescaling makes numbers of about one. One that would leave 255 below this is not meant for [0, 1]: 1/255, 1/127.5
and the like leave 1 to 5, those for [0, 1] 255 and more."""


def _first_steps(model: keras.Layer, place: int) -> Iterator[Any]:
    """The layers and operations that change an image's values, in order; a number for a product with it.

    Args:
        place: of the image among the model's inputs: what follows from others alone is passed by.
    """
    if hasattr(_graph(model), "_nodes_by_depth") and _is_graph(model):
        depths = _graph(model)._nodes_by_depth
        reached = {id(tree.flatten(_graph(model).input)[place])}
        for node in (node for depth in sorted(depths, reverse=True) for node in depths[depth]):
            at = next((i for i, x in enumerate(node.input_tensors) if id(x) in reached), None)
            if at is not None and not node.is_input:
                reached.update(map(id, node.output_tensors))
                yield from _steps_of(node, at)
        return
    if not any(isinstance(x, kl.Rescaling | kl.Normalization) for x in named_layers(model).values()):
        return
    stated = stated_inputs(model)
    if stated is None:
        return
    found = trial(model, native_inputs(model, [x.zeros() for x in stated]))
    # Of several inputs only the images have four dimensions, as far as can be told.
    images = [x for x in found.layers if x.calls and (len(stated) == 1 or len(x.shape or ()) == 4)]
    named, ran = named_layers(model), [x.name for x in images]
    for name in ran:
        if not named[name]._flatten_layers(False, False) and not isinstance(named[name], _UNCHANGED):
            yield named[name]


def _steps_of(node: Any, place: int) -> Iterator[Any]:
    operation = node.operation
    if isinstance(operation, _UNCHANGED):
        return
    if isinstance(operation, keras.Model):
        yield from _first_steps(operation, place)
        return
    numbers = [x for x in node.arguments.args if isinstance(x, int | float)]
    match type(operation).__name__, numbers:
        case (("TrueDivide" | "Divide"), [by]) if by:
            yield 1.0 / by
        case "Multiply", [by]:
            yield float(by)
        case _:
            yield operation


# What layers receive -------------------------------------------------------------------------------------------------
def trial(model: keras.Layer, inputs: Any) -> ModelRun:
    """See :meth:`agnostic.contracts.inputs.ModelInputs.trial`; shapes without values where the engine can."""
    check_built(model)
    given, listing, seen = _native(model, inputs), Listing(model), _Seen()

    def run(inputs: Any) -> Any:
        seen.given(inputs, given)
        with listing.axes.following(inputs):
            output = predict(model, inputs)
        first = next((x for x in tree.flatten(output) if hasattr(x, "shape")), None)
        seen.batch = None if first is None or not len(first.shape) else first.shape[0]
        return output

    error: Exception | None = None
    # The states of random generators and statistics that a run would change stay in the scope.
    with _receiving(model, seen), replaced(_watching(listing)), keras.StatelessScope():
        try:
            engines.current().shapes(run, given)
        except Exception as raised:  # noqa: BLE001 - a model may raise anything at all
            error = raised
    if error is None:
        _last[model] = listing.layers()
    failed_in = seen.open[-1] if error is not None and seen.open else None
    return ModelRun(listing.layers(), error, tuple(seen.received), failed_in, seen.batch)


class _Seen:
    """What layers with parameters received so far."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.open: list[Received] = []
        self.batch: int | None = 1
        self.thread = threading.get_ident()
        self._arguments: dict[int, int] = {}

    def given(self, inputs: Any, written: Any) -> None:
        """The run begins, on these arrays, which the user has in the order of ``written``."""
        self._arguments = {id(x): place for place, x in enumerate(_in_order(inputs, written))}

    def enter(self, name: str, takes: Takes, x: Any) -> None:
        """A layer is called with an array."""
        self.received.append(Received(name, takes, tuple(x.shape), self._arguments.get(id(x))))
        self.open.append(self.received[-1])


def _in_order(inputs: Any, written: Any) -> Iterator[Any]:
    """The arrays in nested inputs in the order of ``written``: Keras and the engines sort the names of dicts."""
    if isinstance(inputs, dict | tuple | list):
        for key in written if isinstance(inputs, dict) else range(len(inputs)):
            yield from _in_order(inputs[key], written[key])
    elif hasattr(inputs, "shape"):
        yield inputs


@contextlib.contextmanager
def _receiving(model: keras.Layer, seen: _Seen) -> Iterator[None]:
    """Watch what the layers with parameters are given inside; before Keras checks it."""

    def entering(name: str, takes: Takes) -> Replacement:
        def check(original: Callable[..., Any], *args: Any) -> Any:
            x = next((x for x in tree.flatten(args) if hasattr(x, "shape")), None)
            if x is not None and threading.get_ident() == seen.thread:
                seen.enter(name, takes, x)
            return original(*args)

        return check

    def leaving(name: str) -> Replacement:
        def call(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            output = original(*args, **kwargs)
            if threading.get_ident() == seen.thread and seen.open and seen.open[-1].layer == name:
                seen.open.pop()
            return output

        return call

    takes = [(name, layer, what) for name, layer in named_layers(model).items() if (what := taken_by(layer))]
    checks = [(layer, entering(name, what)) for name, layer, what in takes]
    calls = [(layer, leaving(name)) for name, layer, _ in takes]
    with replaced(checks, "_assert_input_compatibility"), replaced(calls):
        yield


def taken_by(layer: keras.Layer) -> Takes | None:
    """What a layer's parameters say of its input; None where they say nothing."""
    if isinstance(layer, kl.Embedding):
        return Takes((), 0, layer.input_dim, integer=True)
    if layer._flatten_layers(False, False):
        return None
    spec = layer.input_spec
    axes = getattr(spec, "axes", None)
    if not axes or None in axes.values():
        return None
    axis, length = next(iter(axes.items()))
    rank = getattr(layer, "rank", None)
    ranks = (rank + 2,) if isinstance(rank, int) else () if spec.ndim is None else (spec.ndim,)
    return Takes(ranks, int(axis), int(length))


def stated_card(model: keras.Layer) -> ModelCard | None:
    """None: Keras' models do not describe what they expect."""
    return None


def is_refusal(error: Exception) -> bool:
    """See :meth:`agnostic.contracts.inputs.ModelInputs.is_refusal`."""
    return is_python_refusal(error) or isinstance(error, engines.current().REFUSALS)
