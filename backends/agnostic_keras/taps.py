"""Taps by a layer's own ``call``, on any Keras model: functional, Sequential, nested, subclassed.

``layer.call`` runs whenever a layer computes, eagerly and while a function is traced, on every engine; for the time of
a run it is replaced, on the one layer object, by a function that records what the original returns. So inside
``jax.jit`` and ``tf.function`` a record holds the arrays of the trace, and can be returned from the function.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import itertools
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import tree
from keras.src.backend.common.symbolic_scope import in_symbolic_scope

from agnostic.arrays import dtype_name, of_numbers
from agnostic.contracts.taps import ListingLoop
from agnostic.errors import InvalidInput, UnknownName, nearest
from agnostic.layers import Layer
from agnostic.patching import Replacement, patched
from agnostic.taps.records import Activations
from agnostic.text import counted
from agnostic_keras import engines
from agnostic_keras.layers import Listing, named_layers
from agnostic_keras.layers import tree as registered
from agnostic_keras.ops import KerasOps
from agnostic_keras.policies import computing, policies

ops = KerasOps()

_last: weakref.WeakKeyDictionary[keras.Layer, list[Layer]] = weakref.WeakKeyDictionary()
"""What the last run of a model told about its layers."""


class Stop(BaseException):
    """Ends a run after the last wanted layer; a BaseException, since Keras rewrites the exceptions that pass it."""


# Replacing a layer's call --------------------------------------------------------------------------------------------
def replaced(
    replacements: Sequence[tuple[keras.Layer, Replacement]], method: str | None = None
) -> contextlib.AbstractContextManager[None]:
    """Inside, each layer's ``call`` is the replacement in this thread; afterwards, also after an error, its own again.

    Args:
        method: another method to replace.
    """
    return patched([(layer, method or _call_of(layer), replacement) for layer, replacement in replacements])


def _call_of(layer: keras.Layer) -> str:
    return "call" if layer.quantization_mode is None else "quantized_call"


def _chosen(model: keras.Layer, names: Sequence[str]) -> dict[str, keras.Layer]:
    found = named_layers(model)
    for name in names:
        if name not in found:
            raise UnknownName(
                f"no layer {name!r} in {model.name} ({counted(len(found), 'layer')}){nearest(name, found)}"
            )
    return {name: found[name] for name in names}


def _has_weights(layer: keras.Layer) -> bool:
    """Whether a layer is to have weights; one without may be made and never called."""
    return any(name.endswith("_initializer") for name in vars(layer))


# Inputs --------------------------------------------------------------------------------------------------------------
def check_built(model: keras.Layer) -> None:
    """Raise InvalidInput for a model that has no weights yet. A layer of a built model may never be called."""
    for layer in (model, *named_layers(model).values()):
        if not layer.built and (layer is model or not model.weights):
            raise _unbuilt("" if layer is model else f"layer {layer.name!r} of ", model)


def refuse_unbuilt(original: Callable[..., Any], layer: keras.Layer, *args: Any, **kwargs: Any) -> Any:
    """In the place of what builds a layer when it is called: to look at a model must not give it weights."""
    if not layer.built and _has_weights(layer):
        raise _unbuilt("", layer)
    return original(layer, *args, **kwargs)


def _unbuilt(whose: str, layer: keras.Layer) -> InvalidInput:
    return InvalidInput(
        f"{whose}{layer.name!r} ({type(layer).__name__}) has no weights yet: "
        "call the model once on a batch, or model.build((None, height, width, channels)), before looking inside"
    )


def data_format(model: keras.Layer) -> str:
    """Whether a model takes its images channels first or last: its first layer that says so decides."""
    for layer in named_layers(model).values():
        if getattr(layer, "data_format", None) in ("channels_first", "channels_last"):
            return str(layer.data_format)
    return str(keras.config.image_data_format())


def _native(model: keras.Layer, inputs: Any) -> Any:
    """NumPy arrays as native arrays, floating point ones in the type that the model computes in."""

    def native(x: Any) -> Any:
        if isinstance(x, np.ndarray):
            x = of_numbers(x)
            return ops.asarray(x, model.compute_dtype if x.dtype.kind == "f" else None)
        return x

    return tree.map_structure(native, inputs)


def predict(model: keras.Layer, inputs: Any) -> Any:
    """The model's output in inference mode: for one input, a tuple or list of positional ones, or a dict."""
    training = {"training": False} if "training" in inspect.signature(type(model).call).parameters else {}
    inputs = _native(model, inputs)
    _check_declared(model, inputs)
    if not getattr(model, "inputs", None):
        args, kwargs = _arguments(model, inputs)
        return model(*args, **kwargs, **training)
    with _any_size(model, inputs):
        # A functional model takes all its inputs as one structure, and knows dicts by the names of its inputs.
        return model(list(inputs) if isinstance(inputs, tuple) else inputs, **training)


def call_parameters(model: keras.Layer) -> list[inspect.Parameter]:
    """The named parameters of a model's ``call`` that take inputs."""
    parameters = list(inspect.signature(type(model).call).parameters.values())[1:]  # the model itself comes first
    unnamed = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [x for x in parameters if x.kind not in unnamed and x.name not in ("training", "mask")]


def _takes_any(model: keras.Layer) -> bool:
    parameters = inspect.signature(type(model).call).parameters.values()
    return any(x.kind is x.VAR_POSITIONAL for x in parameters)


def takes_any_name(model: keras.Layer) -> bool:
    """Whether ``call`` of a model without declared inputs has ``**kwargs``."""
    parameters = inspect.signature(type(model).call).parameters.values()
    return not getattr(model, "inputs", None) and any(x.kind is x.VAR_KEYWORD for x in parameters)


def _arguments(model: keras.Layer, inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments of a model without declared inputs.

    A dict of names of ``call``'s parameters is those parameters, and any other one input.
    """
    names = [x.name for x in call_parameters(model)]
    if isinstance(inputs, tuple):
        # A call that takes all inputs as one list, as those of Keras' own models do.
        return ((list(inputs),) if len(inputs) > 1 and len(names) == 1 and not _takes_any(model) else inputs), {}
    named = isinstance(inputs, dict) and bool(names) and names[0] in inputs
    if named and (takes_any_name(model) or all(x in names for x in inputs)):
        # Keras wants the first one by position.
        return (inputs[names[0]],), {name: x for name, x in inputs.items() if name != names[0]}
    return (inputs,), {}


def _check_declared(model: keras.Layer, inputs: Any) -> None:
    """Raise ValueError for what Keras itself would drop: inputs beyond the declared ones, and imaginary parts."""
    declared = getattr(model, "inputs", None)
    if not declared:
        return
    given = tree.flatten(inputs)
    if isinstance(inputs, tuple | list) and len(given) > len(declared):
        raise ValueError(f"the model has {counted(len(declared), 'input')}, and is given {len(given)}")
    if not any("complex" in str(x.dtype) for x in declared) and any(
        "complex" in str(getattr(x, "dtype", "")) for x in given
    ):
        raise ValueError("the model's inputs are real numbers")


@contextlib.contextmanager
def _any_size(model: keras.Layer, inputs: Any) -> Iterator[None]:
    """Let images of another size than the declared one in: what needs that size, a dense head, refuses them itself.

    So a convolutional part, which takes any size, runs as far as it is wanted.
    """
    structure = _graph(model).input if getattr(model, "inputs", None) else []
    declared, given = tree.flatten(structure), tree.flatten(inputs)
    if isinstance(inputs, dict) and not isinstance(structure, dict):
        given = [inputs.get(x.name) for x in declared]
    others = False
    for x, one in zip(given, declared, strict=False) if len(given) == len(declared) else ():
        shape, wanted = tuple(getattr(x, "shape", ())), tuple(one.shape)
        images = len(shape) == len(wanted) == 4
        channel = 1 if images and data_format(model) == "channels_first" else -1
        others |= images and shape[channel] == wanted[channel] and shape[1:] != wanted[1:]
    if not others:
        yield
        return
    containers = [x for x in (model, *named_layers(model).values()) if hasattr(_graph(x), "_nodes_by_depth")]
    checked = list({id(x): x for container in containers for x in (container, _graph(container))}.values())
    with replaced([(x, _unchecked) for x in checked], "_assert_input_compatibility"):
        yield


def _unchecked(original: Callable[..., Any], *args: Any) -> None:
    return None


# Runs ----------------------------------------------------------------------------------------------------------------
def _watching(listing: Listing) -> list[tuple[keras.Layer, Replacement]]:
    def watch(name: str) -> Replacement:
        def call(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            listing.enter(name)
            output = original(*args, **kwargs)
            listing.leave(name, (args, kwargs), output)
            return output

        return call

    return [(layer, watch(name)) for name, layer in listing.modules.items()]


def calls_in(model: keras.Layer) -> Mapping[str, int] | None:
    """How often each layer runs in one call of the model, read from its symbolic graph; None where part has none."""
    named = named_layers(model)
    names = {id(layer): name for name, layer in named.items()}
    counts: dict[str, int] = dict.fromkeys(named, 0)

    def count(container: keras.Layer, times: int) -> bool:
        graph = _graph(container)
        if not hasattr(graph, "_nodes_by_depth") or not _is_graph(container):
            return False
        for node in _nodes(graph):
            operation = node.operation
            if node.is_input or id(operation) not in names:
                continue
            counts[names[id(operation)]] += times
            inside = operation._flatten_layers(False, False)
            if inside and not count(operation, times):
                return False
        return True

    return counts if count(model, 1) else None


def _graph(model: keras.Layer) -> Any:
    """The object that holds a model's symbolic graph, if it has one: a Sequential keeps it inside."""
    return getattr(model, "_functional", None) or model


def _nodes(graph: Any) -> Iterator[Any]:
    return itertools.chain.from_iterable(graph._nodes_by_depth.values())


def _is_graph(model: keras.Layer) -> bool:
    """Whether a model's ``call`` is its symbolic graph's, and not written by hand."""
    owner = next(cls for cls in type(model).__mro__ if "call" in vars(cls))
    return owner.__module__.startswith("keras.src.models.")


class TapRun:
    """One forward pass that records the outputs of named layers, and may end after the last of them."""

    def __init__(self, model: keras.Layer, names: Sequence[str]) -> None:
        self.model, self.names = model, tuple(names)
        self._layers = _chosen(model, names)
        self._counts = calls_in(model)

    def __call__(self, inputs: Any, listing: Listing | None = None) -> dict[str, list[Any]]:
        """What each call of each layer returned."""
        inputs = _native(self.model, inputs)
        records: dict[str, list[Any]] = {name: [] for name in self.names}
        left = -1
        if self._counts is not None and all(self._counts[name] for name in self.names):
            left = sum(self._counts[name] for name in self.names)

        def keep(name: str) -> Replacement:
            def call(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
                nonlocal left
                output = original(*args, **kwargs)
                records[name].append(output)
                left -= 1
                if left == 0:
                    raise Stop
                return output

            return call

        watching = [] if listing is None else _watching(listing)
        # The inner replacement of a layer is the listing's, so that it has seen the output when the run ends.
        keeping = [(layer, keep(name)) for name, layer in self._layers.items()]
        followed = contextlib.nullcontext() if listing is None else listing.axes.following(inputs)
        with replaced([*watching, *keeping]), followed, contextlib.suppress(Stop):
            predict(self.model, inputs)
        return records


def capture(model: keras.Layer, inputs: Any, names: Sequence[str]) -> Activations:
    """See :meth:`agnostic.contracts.taps.Taps.capture`."""
    check_built(model)
    listing = Listing(model)
    run, engine = TapRun(model, names), engines.current()
    filled = not engine.EMPTY_BATCHES and _is_empty(inputs)
    if filled:
        inputs = tree.map_structure(_one_row, inputs)
    with keras.StatelessScope():
        records = engine.without_gradients(functools.partial(run, listing=listing), inputs)
    if filled:
        records = tree.map_structure(lambda x: x[:0] if _has_rows(x) else x, records)
    known = {x.name: x for x in listing.layers()}
    return Activations({name: known[name] for name in names}, records, to_numpy)


def loop(
    model: keras.Layer, names: Sequence[str], *, dtype: str | None = None
) -> Callable[[Any], Mapping[str, Sequence[Any]]] | None:
    """See :meth:`agnostic.contracts.taps.Taps.loop`."""
    check_built(model)
    layers, told = TapRun(model, names), list[Layer]()

    def traced(inputs: Any) -> Any:
        # The first trace lists the layers.
        listing = None if told else Listing(model)
        found = layers(inputs, listing)
        told.extend(listing.layers() if listing is not None else ())
        # A compiled function returns arrays only.
        return tree.map_structure(_array_or_none, found)

    compiled = engines.current().compiled(model, traced)
    changed = policies(model, dtype or "float32")

    def run(inputs: Any) -> Mapping[str, list[Any]]:
        with computing(changed):
            found: Mapping[str, list[Any]] = compiled(_native(model, inputs))
        return found

    return ListingLoop(run, told)


def _array_or_none(x: Any) -> Any:
    return x if hasattr(x, "shape") else None


def _has_rows(x: Any) -> bool:
    return bool(getattr(x, "shape", ()))


def _one_row(x: Any) -> Any:
    if not _has_rows(x):
        return x
    shape = (1, *x.shape[1:])
    return np.zeros(shape, x.dtype) if isinstance(x, np.ndarray) else keras.ops.zeros(shape, dtype_name(x))


def _is_empty(inputs: Any) -> bool:
    """Whether all arrays among inputs are batches of no samples."""
    shapes = [x.shape for x in tree.flatten(inputs) if _has_rows(x)]
    return {shape[0] for shape in shapes} == {0} and not any(None in shape for shape in shapes)


@contextlib.contextmanager
def watch(model: keras.Layer, names: Sequence[str], *, detach: bool = False) -> Iterator[Activations]:
    """See :meth:`agnostic.contracts.taps.Taps.watch`.

    Compiled code, ``fit()`` and ``predict()`` among it, runs uncompiled inside. Entered inside a compiled function, the
    record holds the arrays of the trace.

    Raises:
        InvalidInput: a layer runs inside a function that the engine compiles all the same, such as one that is mapped
            over a ``tf.data.Dataset``: its arrays have no values outside.
    """
    check_built(model)
    engine = engines.current()
    chosen = _chosen(model, names)
    known = {x.name: x for x in (_last.get(model) or registered(model))}
    records: dict[str, list[Any]] = {name: [] for name in names}
    compiling, symbolic = engine.is_compiling(), in_symbolic_scope()

    def keep(name: str) -> Replacement:
        def call(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            output = original(*args, **kwargs)
            if in_symbolic_scope() and not symbolic:
                return output  # Keras asks for shapes, as fit() does before its first step
            if not compiling and engine.is_compiling():
                raise _unwrapped(
                    f"layer {name!r} runs inside a compiled function, where its output has no values: enter watch "
                    "inside the compiled function, and return the record from it"
                )
            records[name].append(tree.map_structure(ops.stop_gradient, output) if detach else output)
            return output

        return call

    uncompiled = contextlib.nullcontext() if compiling else engine.uncompiled()
    with uncompiled, replaced([(layer, keep(name)) for name, layer in chosen.items()]):
        yield Activations({name: known[name] for name in names}, records, to_numpy)


def _unwrapped(message: str) -> InvalidInput:
    """An error that passes through Keras' layers as it is, without their description of every argument."""
    error = InvalidInput(message)
    error._keras_call_info_injected = True  # type: ignore[attr-defined]
    return error


def to_numpy(value: Any) -> Any:
    """The same structure with NumPy arrays; bfloat16 comes as float32."""
    concrete = engines.current().concrete

    def numpy(x: Any) -> Any:
        if not keras.ops.is_tensor(x):
            return x
        known = concrete(x)
        # Without values, as inside a compiled function, Keras' own error is the one to see.
        return ops.numpy(x if known is None else known)

    return tree.map_structure(numpy, value)


# Submodels -----------------------------------------------------------------------------------------------------------
@keras.saving.register_keras_serializable("agnostic")
class Submodel(keras.Model):
    """Returns the outputs of layers of a model that has no symbolic graph to cut, or that lie inside nested models."""

    def __init__(self, model: keras.Layer, names: Sequence[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.model, self.names = model, tuple(names)
        self.built = True

    # An error of ours that leaves one of these must leave the model its weights.
    def fit(self, *args: Any, **kwargs: Any) -> Any:
        """As Keras' own."""
        with engines.current().weights_kept():
            return super().fit(*args, **kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """As Keras' own."""
        with engines.current().weights_kept():
            return super().evaluate(*args, **kwargs)

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        """As Keras' own."""
        with engines.current().weights_kept():
            return super().predict(*args, **kwargs)

    def call(self, inputs: Any) -> Any:
        """The output of the one layer, or a list of the outputs of several."""
        outputs = TapRun(self.model, self.names)(inputs)
        for name, calls in outputs.items():
            if len(calls) != 1:
                times = f"ran {counted(len(calls), 'time')}" if calls else "did not run"
                raise _unwrapped(f"layer {name!r} {times}; a submodel returns layers that run once")
        found = [outputs[name][0] for name in self.names]
        return found[0] if len(found) == 1 else found

    def get_config(self) -> dict[str, Any]:
        """What Keras needs to make it again."""
        return {**super().get_config(), "model": keras.saving.serialize_keras_object(self.model), "names": self.names}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Submodel:
        """The inverse of :meth:`get_config`."""
        return cls(keras.saving.deserialize_keras_object(config.pop("model"), custom_objects), **config)


def submodel(model: keras.Layer, names: Sequence[str]) -> keras.Model:
    """See :mod:`agnostic.contracts.taps`: ``keras.Model(model.inputs, outputs)`` where there is a graph."""
    check_built(model)
    chosen = _chosen(model, names)
    counts = calls_in(model)
    if counts is not None and getattr(model, "inputs", None):
        symbols = _symbols(model)
        if all(counts[name] == 1 and id(layer) in symbols for name, layer in chosen.items()):
            outputs = [symbols[id(layer)] for layer in chosen.values()]
            return keras.Model(_graph(model).input, outputs[0] if len(outputs) == 1 else outputs)
    return Submodel(model, names)


def _symbols(model: keras.Layer) -> dict[int, Any]:
    """The symbolic output of each operation of a model's own graph, by the operation's id."""
    return {
        id(node.operation): node.outputs[0] if len(node.outputs) == 1 else list(node.outputs)
        for node in _nodes(_graph(model))
        if not node.is_input
    }
