"""Calls of Keras layers, intercepted on any engine; see :mod:`agnostic.compare.calls`."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import tree

from agnostic.compare.calls import Around
from agnostic.compare.layouts import Layout
from agnostic.patching import Replacement, patched
from agnostic_keras import engines
from agnostic_keras.layers import named_layers
from agnostic_keras.ops import KerasOps
from agnostic_keras.taps import check_built, predict, refuse_unbuilt, replaced

Array = Any

_ops = KerasOps()


def _is_array(x: Any) -> bool:
    return bool(keras.ops.is_tensor(x)) and keras.backend.standardize_dtype(x.dtype) != "bool"


class LayerCall:
    """See :class:`agnostic.compare.calls.LayerCall`."""

    def __init__(
        self, name: str, number: int, call: Callable[..., Any], given: tuple[Any, Any], tracker: Tracker
    ) -> None:
        self.name, self.number = name, number
        self._call, self._given, self._tracker = call, given, tracker
        self.arrays = tuple(x for x in tree.flatten(given) if _is_array(x))
        self.layouts = tuple(tracker.of_input(name, x) for x in self.arrays)
        self._output: Any = None
        self._found: dict[tuple[tuple[int, ...], ...], tuple[Layout, ...]] = {}

    def run(self, arrays: Sequence[Array] | None = None) -> tuple[Array, ...]:
        """See :meth:`agnostic.compare.calls.LayerCall.run`."""
        args, kwargs = self._given if arrays is None else _replaced(self._given, arrays)
        self._output = self._call(*args, **kwargs)
        return tuple(x for x in tree.flatten(self._output) if _is_array(x))

    def output_layouts(self, outputs: Sequence[Array]) -> tuple[Layout, ...]:
        """See :meth:`agnostic.compare.calls.LayerCall.output_layouts`."""
        # Once a call: a Permute moves the letters of the last array, and must not move them again.
        shapes = tuple(tuple(x.shape) for x in outputs)
        if shapes not in self._found:
            self._found[shapes] = self._tracker.of_outputs(self.name, outputs)
        return self._found[shapes]

    def returned(self, arrays: Sequence[Array]) -> Any:
        """The structure that the layer returned last, with these arrays in it."""
        self.output_layouts(arrays)  # what comes next is laid out after these, whether or not somebody asked
        return _replaced(self._output, arrays)


def _replaced(structure: Any, arrays: Sequence[Array]) -> Any:
    rest = iter(arrays)
    return tree.map_structure(lambda x: next(rest) if _is_array(x) else x, structure)


_CHANNELS_LAST = {1: "N", 2: "NC", 3: "NLC", 4: "NHWC", 5: "NDHWC"}
_CHANNELS_FIRST = {1: "N", 2: "NC", 3: "NCL", 4: "NCHW", 5: "NCDHW"}


class Tracker:
    """Follows the layouts of arrays from layer to layer."""

    def __init__(self, model: keras.Layer) -> None:
        self._modules = named_layers(model)
        # The letters of the last output of each number of dimensions.
        self._letters: dict[int, str] = {}
        # The last array of each number of dimensions: its letters and shape.
        self._last: dict[int, tuple[str, tuple[int, ...]]] = {}
        # Of flattened arrays: by shape, the letters and lengths inside.
        self._flat: dict[tuple[int, ...], Layout] = {}

    def of_input(self, name: str, x: Array) -> Layout:
        """The layout of an array that a layer is called with."""
        shape = tuple(x.shape)
        if len(shape) == 2 and (flat := self._flattened(shape)) is not None:
            return flat
        layer = self._modules[name]
        own = _has_own_axes(layer) or isinstance(layer, keras.layers.Dense)
        axes = self._axes(layer, len(shape)) if own else self._inherited(shape)
        if axes is None:
            axes = self._axes(layer, len(shape))
        self._see(axes, shape)
        key = (shape[0], math.prod(shape[1:])) if shape else ()
        if isinstance(layer, keras.layers.Flatten) and layer.data_format == "channels_first" and key in self._flat:
            self._flat[key] = _channels_last(self._flat[key])  # it moves the channels before it flattens
        return Layout(axes)

    def of_outputs(self, name: str, outputs: Sequence[Array]) -> tuple[Layout, ...]:
        """The layouts of what a layer returned."""
        layer, found = self._modules[name], []
        for output in outputs:
            shape = tuple(output.shape)
            dense = isinstance(layer, keras.layers.Dense)
            if len(shape) == 2 and not dense and (flat := self._flattened(shape)) is not None:
                found.append(flat)
                continue
            if len(shape) == 2:
                self._flat.pop(shape, None)
            own = dense or isinstance(layer, keras.layers.Permute) or _has_own_axes(layer)
            axes = None if own else self._inherited(shape)
            axes = axes or self._axes(layer, len(shape))
            self._see(axes, shape)
            found.append(Layout(axes))
        return tuple(found)

    def _flattened(self, shape: tuple[int, ...]) -> Layout | None:
        """Its layout. A number for each channel of the last image is a mean of that, no older image flattened."""
        flat = self._flat.get(shape)
        if flat is not None and (found := self._last.get(len(flat.inner) + 1)) is not None:
            axes, last = found
            if last[axes.index("C")] == shape[1] and flat.inner != last[1:]:
                self._flat.pop(shape)
                return None
        return flat

    def _inherited(self, shape: tuple[int, ...]) -> str | None:
        """The letters of the last array with as many dimensions, moved where the shape says so."""
        axes, before = self._last.get(len(shape), (None, ()))
        if axes is None or shape == before:
            return axes
        channels, rest = before[axes.index("C")], axes.replace("C", "")
        other = f"N{rest[1:]}C" if axes[1] == "C" else f"NC{rest[1:]}"
        # Where height or width is as long as the channels, only the same lengths in another order prove a move.
        doubtful = before.count(channels) > 1 and sorted(shape[1:]) != sorted(before[1:])
        if shape[axes.index("C")] != channels and shape[other.index("C")] == channels and not doubtful:
            return other
        return axes

    def _see(self, axes: str | None, shape: tuple[int, ...]) -> None:
        if axes is None or "C" not in axes:
            return
        self._last[len(shape)] = axes, shape
        self._letters[len(shape)] = axes
        if len(shape) > 3 and math.prod(shape[2:]) > 1:
            self._flat[(shape[0], math.prod(shape[1:]))] = Layout(f"N({axes[1:]})", shape[1:])

    def _axes(self, layer: keras.Layer, ndim: int) -> str | None:
        data_format = getattr(layer, "data_format", None)
        if data_format is None and isinstance(layer, keras.layers.BatchNormalization) and isinstance(layer.axis, int):
            data_format = "channels_last" if layer.axis % ndim == ndim - 1 else "channels_first"
        if data_format is not None:
            return (_CHANNELS_FIRST if data_format == "channels_first" else _CHANNELS_LAST).get(ndim)
        if isinstance(layer, keras.layers.Permute) and ndim in self._letters:
            before = self._letters[ndim]
            return before[0] + "".join(before[d] for d in layer.dims)
        if isinstance(layer, keras.layers.Dense):
            return _CHANNELS_LAST.get(ndim)
        if ndim in self._letters:
            return self._letters[ndim]
        first = keras.config.image_data_format() == "channels_first" and ndim > 3
        return (_CHANNELS_FIRST if first else _CHANNELS_LAST).get(ndim)


def _has_own_axes(layer: keras.Layer) -> bool:
    """Whether a layer takes and gives one layout; Flatten has a ``data_format`` and takes any."""
    return getattr(layer, "data_format", None) is not None and not isinstance(layer, keras.layers.Flatten)


def _channels_last(flat: Layout) -> Layout:
    letters = (flat.axes or "").removeprefix("N(").removesuffix(")")
    order = [*range(1, len(letters)), 0]  # Flatten moves the first dimension to the end, whatever it is
    return Layout(f"N({''.join(letters[i] for i in order)})", tuple(flat.inner[i] for i in order))


@contextlib.contextmanager
def intercept(model: keras.Layer, names: Sequence[str], around: Around) -> Iterator[None]:
    """See :meth:`agnostic.contracts.calls.Calls.intercept`."""
    check_built(model)
    layers, tracker = named_layers(model), Tracker(model)
    counts: dict[str, int] = {}

    def wrapped(name: str) -> Replacement:
        def call(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            number = counts.get(name, 0)
            counts[name] = number + 1
            one = LayerCall(name, number, original, (args, kwargs), tracker)
            return one.returned(around(one))

        return call

    with engines.current().eagerly(), replaced([(layers[name], wrapped(name)) for name in names]):
        yield


def run(model: keras.Layer, inputs: Any, seed: int = 0) -> tuple[Array, ...]:
    """See :meth:`agnostic.contracts.calls.Calls.run`."""
    return tuple(x for x in returned(model, inputs, seed) if _is_array(x))


def returned(model: keras.Layer, inputs: Any, seed: int = 0) -> tuple[Array, ...]:
    """See :meth:`agnostic.contracts.calls.Calls.returned`."""
    # The states of random generators and statistics that a run would change stay in the scope.
    with keras.StatelessScope() as scope, patched([(keras.layers.Layer, "_maybe_build", refuse_unbuilt)]):
        for number, state in enumerate(_seeds(model)):
            scope.add_update((state, _ops.asarray(np.array([seed, number], np.uint32), state.dtype)))
        outputs = engines.current().without_gradients(functools.partial(predict, model), inputs)
    return tuple(x for x in in_order(outputs) if keras.ops.is_tensor(x))


def in_order(result: Any) -> Iterator[Any]:
    """What is in dicts, lists and tuples, in their own order; Keras' ``tree.flatten`` sorts the keys of dicts."""
    if isinstance(result, Mapping | list | tuple):
        for part in result.values() if isinstance(result, Mapping) else result:
            yield from in_order(part)
    else:
        yield result


def _seeds(model: keras.Layer) -> list[keras.Variable]:
    return [v for v in model.variables if v.name.startswith("seed_generator_state")]


@contextlib.contextmanager
def in_float64(model: keras.Layer) -> Iterator[bool]:
    """See :meth:`agnostic.contracts.calls.Calls.in_float64`: only torch can be told to leave float32 everywhere."""
    policy = model.dtype_policy
    with engines.current().in_float64(model.variables) as exact:
        try:
            if exact:
                model.dtype_policy = keras.DTypePolicy("float64")  # what inputs are turned into
            yield exact
        finally:
            model.dtype_policy = policy


def is_training(model: keras.Layer) -> bool:
    """See :meth:`agnostic.contracts.calls.Calls.is_training`; whether the model's own graph says so for a layer."""
    from agnostic_keras.description import _training

    return any(_training(layer) for layer in named_layers(model).values())


def numpy(x: Array) -> np.ndarray[Any, Any]:
    """Without a copy where the engine can."""
    if keras.backend.standardize_dtype(x.dtype) == "bfloat16":
        x = keras.ops.cast(x, "float32")
    return np.asarray(keras.ops.convert_to_numpy(x))


def native(x: np.ndarray[Any, Any], like: Array, dtype: str | None = None) -> Array:
    """In the type of another array, or the named one."""
    return _ops.asarray(np.ascontiguousarray(x), dtype or keras.backend.standardize_dtype(like.dtype))


def versions() -> Mapping[str, str]:
    """See :meth:`agnostic.contracts.calls.Calls.versions`."""
    import importlib.metadata

    engine = keras.config.backend()
    for name in (engine, f"{engine}-cpu"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return {"keras": keras.__version__, engine: importlib.metadata.version(name)}
    return {"keras": keras.__version__}
