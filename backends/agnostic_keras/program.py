"""Read what a Keras model computes: the twin of :mod:`agnostic.program`.

The model is called once on Keras' own symbolic tensors, which have a shape and no numbers. Each layer runs its own
``call`` on them, which leads to the operations of ``keras.ops``; :mod:`agnostic_keras.operations` writes each of those
in the vocabulary. Weights are symbolic tensors as well, so that nothing is computed, and every engine reads the same.
"""

from __future__ import annotations

import functools
import inspect
import os
import re
import sys
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import keras
import numpy as np
from keras import tree
from keras.src import backend, ops
from keras.src.layers import layer as layer_module
from keras.src.models import Functional
from keras.src.ops.numpy import Ndim
from keras.src.ops.operation import Operation
from keras.src.utils import tf_utils

from agnostic.errors import InvalidInput
from agnostic.patching import Replacement, patched
from agnostic.port.names import is_constant
from agnostic.port.sample import with_arrays
from agnostic.program.builder import Builder, NodeOrigin
from agnostic.program.evaluate import leaves
from agnostic.program.nodes import Array, Program, Role, Value
from agnostic.program.passes import biases_absorbed, crops_absorbed, paddings_absorbed, scales_absorbed
from agnostic.program.runs import LayerRun
from agnostic.text import counted
from agnostic_keras import construction, custom, engines, recurrence, rereading
from agnostic_keras.calls import in_order, numpy
from agnostic_keras.composed import COMPOSED, REFUSED
from agnostic_keras.layers import named_layers
from agnostic_keras.operations import CREATIONS, LAYERS, OWN_SHAPES, READERS, TEXT, Call, Unreadable, of_text
from agnostic_keras.taps import _any_size, _arguments, _native, check_built, refuse_unbuilt
from agnostic_keras.weights import _variables

_INTERNAL = {"agnostic", "agnostic_keras", "keras", "torch", "jax", "tensorflow", "optree", "contextlib", "functools"}
"""Packages whose lines are not the user's."""


def program(model: keras.Layer, inputs: Any, opaque: Collection[str] = ()) -> Program:
    """See :meth:`agnostic.contracts.program.Programs.program`.

    Args:
        model: any built model or layer whose ``call`` is written in Keras: without branches on values, and without
            functions of the engine.
        inputs: as in :func:`agnostic.capture`.
        opaque: names of operations and layers that are not followed into.

    Raises:
        InvalidInput: the model branches on values, or leaves Keras outside of a layer of its own; says in which layer,
            and on which line where that is known.
    """
    try:
        return read(model, inputs, opaque, loops=True, lengths=True)[1]
    except (InvalidInput, AssertionError):
        # A layer may ask for the numbers of an array that it made.
        return read(model, inputs, opaque, loops=True)[1]


def recorded(model: keras.Layer, inputs: Any, opaque: Collection[str] = ()) -> list[tuple[list[Any], list[Any]]]:
    """See :meth:`agnostic.contracts.program.Programs.recorded`."""
    recorder, found = read(model, inputs, opaque)
    return list(custom.recorded(found, recorder.customs, arrays_of(found, model, inputs), recorder.value))


def arrays_of(found: Program, model: keras.Layer, inputs: Any) -> dict[Value, Array]:
    """What a model's program begins with: these inputs, the model's weights now, and constants."""
    given = (np.array(numpy(x)) for x in in_order(_native(model, inputs)))
    weights = {name: np.array(numpy(variable)) for name, variable in _variables(model).items()}
    return leaves(found, dict(zip((leaf.name for leaf in found.of_role("input")), given, strict=True)), weights)


def read(
    model: keras.Layer, inputs: Any, opaque: Collection[str] = (), *, loops: bool = False, lengths: bool = False
) -> tuple[Recorder, Program]:
    """The program, and what wrote it down; ``loops`` and ``lengths`` as in :class:`Recorder`."""
    check_built(model)
    recorder = Recorder(model, opaque, loops, lengths)
    _refuse_text(recorder, inputs)
    inputs = _native(model, inputs)
    given, named = recorder.inputs(inputs)
    keywords = {"training": False} if getattr(model, "_call_has_training_arg", False) else {}
    with recorder.recording(), _any_size(model, inputs):
        try:
            results = model(*given, **named, **keywords)
            outputs = {path: recorder.output(x) for path, x in _paths(results) if x is not None}
        except Unreadable as error:
            raise InvalidInput(f"{error}: {recorder.failed or recorder.origin()}") from None
        except (*custom.FAILURES, *engines.current().REFUSALS) as error:
            # What layers of strangers raise on tensors without numbers is of many classes.
            raise InvalidInput(_refusal(model, error, recorder)) from error
    modules = {path: _kind(layer) for path, layer in {"": model, **named_layers(model)}.items()}
    found = recorder.builder.program(_title(model), "keras", outputs, modules)
    found = replace(found, called=construction.called(model))
    for absorbed in (biases_absorbed, crops_absorbed, paddings_absorbed, scales_absorbed):
        found = absorbed(found)
    return recorder, found


def _refuse_text(recorder: Recorder, inputs: Any) -> None:
    """Name the layer that takes text, where an input is text.

    Raises:
        InvalidInput: an input is.
    """
    if any(np.asarray(x).dtype.kind in "USO" for x in in_order(inputs) if isinstance(x, np.ndarray | str)):
        layers = named_layers(recorder.model).items()
        name, layer = next(((n, layer) for n, layer in layers if type(layer).__name__ in TEXT), ("", None))
        if layer is not None:
            origin = NodeOrigin(name, type(layer).__name__, *recorder.made.get(id(layer), (None, None)))
            raise InvalidInput(f"{of_text(layer)}: {origin}")


def _kind(layer: keras.Layer) -> str:
    """The class name; of a graph of layers that of all of them, whatever class of the user's it has."""
    return "Functional" if isinstance(layer, Functional) else type(layer).__name__


def _refusal(model: keras.Layer, error: Exception, recorder: Recorder) -> str:
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return (
        f"{type(model).__name__} cannot be followed in {recorder.failed or recorder.origin()}: {first[:200]}; "
        "a program needs layers that are written in keras.ops, without branches on values and functions of the engine"
    )


def _paths(results: Any) -> Iterator[tuple[str, Any]]:
    """A path per output: keys and places joined by dots; ``""`` for a lone tensor."""
    if isinstance(results, Mapping):
        for key, part in results.items():
            yield from ((f"{key}.{path}".rstrip("."), x) for path, x in _paths(part))
    elif isinstance(results, list | tuple):
        for place, part in enumerate(results):
            yield from ((f"{place}.{path}".rstrip("."), x) for path, x in _paths(part))
    else:
        yield "", results


@dataclass
class Recorder:
    """Writes down what a model does with symbolic tensors.

    Attributes:
        model: that is read.
        opaque: names of operations and layers that are not followed into.
        loops: whether a recurrent cell is written once, in a loop, and not for each time.
        lengths: whether arrays that are made of numbers alone are written as nodes, and not as constants.
        builder: holds what was written.
        failed: where an error was raised; None if there was none.
        customs: calls of what has no translation.
        layers: calls of layers.
    """

    model: keras.Layer
    opaque: Collection[str] = ()
    loops: bool = False
    lengths: bool = False
    builder: Builder = field(default_factory=Builder)
    failed: NodeOrigin | None = None
    customs: list[custom.CustomCall] = field(default_factory=list)
    layers: list[LayerRun] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._values: dict[int, Value] = {}
        # An identity is a tensor's only as long as the tensor is there.
        self._kept: list[Any] = []
        self._open: list[tuple[str, keras.Layer]] = []
        self._calls: list[str] = []
        self._counts: dict[int, int] = {}
        self._names = {id(layer): name for name, layer in named_layers(self.model).items()}
        self._names[id(self.model)] = ""
        self._lowering: list[type] = []
        self._drawn: dict[int, NodeOrigin] = {}
        self._symbols: dict[int, Any] = {}
        self._place: construction.Place | None = None
        self._variables: dict[int, Any] = {}
        self.scope = keras.StatelessScope()
        trainable = _trainable(self.model)
        for name, variable in _variables(self.model).items():
            dtype = keras.backend.standardize_dtype(variable.dtype)
            if id(variable) not in trainable and is_constant(name):
                value = self.builder.leaf(name, "constant", variable.shape, dtype, np.array(numpy(variable)))
            else:
                role: Role = "parameter" if id(variable) in trainable else "buffer"
                value = self.builder.leaf(name, role, variable.shape, dtype)
            self._variables[id(variable)] = self.scope.state_mapping[id(variable)] = self.bind(
                keras.KerasTensor(variable.shape, dtype), value
            )

    def inputs(self, given: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments of symbolic tensors in the place of the arrays that the model is called with, and their leaves."""
        names = iter(_input_names(self.model, given))

        def symbol(x: Any) -> Any:
            dtype = keras.backend.standardize_dtype(x.dtype)
            shape = tuple(int(n) for n in x.shape)
            return self.bind(keras.KerasTensor(shape, dtype), self.builder.leaf(next(names), "input", shape, dtype))

        found = with_arrays(given, symbol)  # in the user's order; tree.map_structure sorts on some engines
        if getattr(self.model, "inputs", None):
            return (found,), {}
        return _arguments(self.model, found)

    def bind(self, symbol: Any, value: Value) -> Any:
        """Make a symbolic tensor stand for a value."""
        self._values[id(symbol)] = value
        self._kept.append(symbol)
        return symbol

    def value(self, x: Any) -> Any:
        """What an argument is in a program: a value, a number, or a tuple of these."""
        if isinstance(x, keras.Variable):
            x = x.value
        if isinstance(x, keras.KerasTensor):
            if id(x) in self._drawn:
                self.failed = self._drawn[id(x)]
                raise Unreadable("random numbers are drawn in inference")
            if id(x) not in self._values:
                raise Unreadable("a symbolic tensor is used that this call of the model did not make")
            return self._values[id(x)]
        if isinstance(x, list | tuple):
            return tuple(self.value(part) for part in x)
        if keras.ops.is_tensor(x) or isinstance(x, np.ndarray | np.generic):
            return self._constant(x)
        return x

    def output(self, x: Any) -> Value:
        """The value of a result, which may be a number."""
        found = self.value(x)
        if isinstance(found, Value):
            return found
        number: Value = self.builder.emit("full", found, shape=(), dtype=str(np.asarray(found).dtype))
        return number

    def _constant(self, x: Any) -> Any:
        if id(x) in self._values:
            return self._values[id(x)]
        array = x if isinstance(x, np.ndarray | np.generic) else numpy(x)
        if array.ndim == 0:
            return array.item()
        name = f"constant_{len(self._kept)}"
        value = self.builder.leaf(name, "constant", array.shape, str(array.dtype), np.array(array))
        return self._values[id(self.bind(x, value))]

    # Where things happen ------------------------------------------------------------------------------------------
    def origin(self, error: Exception | None = None) -> NodeOrigin:
        """The layer that runs now, and the user's line that led here, or to an error."""
        path, layer = self._open[-1] if self._open else ("", self.model)
        file, line = _user_line(error)
        if file is None and self._place is not None:
            file, line = self._place
        if file is None:
            made = (self.made.get(id(running)) for _, running in reversed(self._open))
            file, line = next(filter(None, made), (None, None))
        return NodeOrigin(path, type(layer).__name__, file, line, tuple(self._calls))

    @functools.cached_property
    def made(self) -> dict[int, construction.Place]:
        """Where layers were made and operations of graphs called, by their identities."""
        return construction.places(self.model)

    @contextmanager
    def _inside(self, layer: keras.Layer) -> Iterator[None]:
        # A layer that is made while the model runs has no name.
        name = self._names.get(id(layer), self._open[-1][0] if self._open else "")
        number = self._counts.get(id(layer), 0)
        self._counts[id(layer)] = number + 1
        self._open.append((name, layer))
        self._calls.append(f"{name}@{number}" if number else name)
        try:
            yield
        except Exception as error:
            self.failed = self.failed or self.origin(error)
            raise
        finally:
            self._open.pop()
            self._calls.pop()

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Inside, what was written down is taken back where Unloopable is raised, which ends the block."""
        parts: tuple[list[Any], ...] = (self.builder.nodes, self.builder.leaves, self.customs, self.layers)
        counts, called = list(map(len, parts)), dict(self._counts)
        try:
            yield
        except recurrence.Unloopable:
            for part, count in zip(parts, counts, strict=True):
                del part[count:]
            self._counts = called

    @property
    def depth(self) -> int:
        """The number of layers that run now, the model among them."""
        return len(self._calls)

    # What happens -------------------------------------------------------------------------------------------------
    def _layer(self, original: Callable[..., Any], layer: keras.Layer, *args: Any, **kwargs: Any) -> Any:
        with self._inside(layer):
            if getattr(layer, "quantization_mode", None) is not None:
                raise Unreadable(f"a layer of class {type(layer).__name__} computes in {layer.quantization_mode}")
            known = type(layer).__module__.startswith("keras.") or rereading.is_ours(type(layer))
            reader = LAYERS.get(type(layer).__name__) if known else None
            if layer is not self.model and custom.is_among(custom.layer_name(layer), self.opaque):
                return self._opaque_layer(layer, args, kwargs, "has no translation yet")
            found = NotImplemented if reader is None else reader(self, layer, *args, **kwargs)
            found = self._called(layer, args, kwargs) if found is NotImplemented else found
            self._note_call(args, kwargs, found)
            return found

    def _note_call(self, args: Any, kwargs: Any, results: Any) -> None:
        name, _, number = self._calls[-1].partition("@")
        inputs, outputs = (
            tuple(self._values[id(x)] for x in in_order(given) if id(x) in self._values)
            for given in ((args, kwargs), results)
        )
        if name:
            self.layers.append(LayerRun(name, int(number or 0), inputs, outputs))

    def _called(self, layer: keras.Layer, args: Any, kwargs: Any) -> Any:
        """What a layer's own ``call`` does; one node of a layer of the user's that leaves Keras."""
        start = len(self.builder.nodes)
        try:
            return layer.call(*args, **kwargs)
        except custom.FAILURES as error:
            if layer is self.model or not custom.is_users(layer) or custom.is_branch(error):
                raise
            del self.builder.nodes[start:]
            said = str(error).strip().partition("\n")[0][:120]
            try:
                found = self._opaque_layer(layer, args, kwargs, f"leaves Keras ({said})", error)
            except custom.FAILURES:
                raise error from None
            self.failed = None
            return found

    def _opaque_layer(
        self, layer: keras.Layer, args: Any, kwargs: Any, reason: str, error: Exception | None = None
    ) -> Any:
        found = self.origin(error)
        if found.file is None or error is None:
            found = replace(found, **custom.place_of(layer))
        self.builder.origin = found
        operands = custom.operands_of_layer(layer, args, kwargs, self.value)
        spec = custom.tried(layer.call, args, kwargs)
        return self._custom(custom.layer_name(layer), layer.call, args, kwargs, operands, spec, reason)

    def _custom(
        self, name: str, function: Any, args: Any, kwargs: Any, operands: Mapping[str, Any], spec: Any, reason: str
    ) -> Any:
        """Something that has no translation, as one node; returns symbolic tensors."""
        symbols = list(tree.flatten(spec))
        shapes = tuple(tuple(int(n) for n in x.shape) for x in symbols)
        results = self.builder.emit(
            "custom", tuple(operands.values()), dtype=keras.backend.standardize_dtype(symbols[0].dtype), name=name,
            shapes=shapes if len(symbols) > 1 else shapes[0], arguments=tuple(operands), reason=reason,
        )  # fmt: skip
        results = results if isinstance(results, tuple) else (results,)
        kept = tuple(
            self.builder.retype(value, keras.backend.standardize_dtype(x.dtype))
            for value, x in zip(results, symbols, strict=True)
        )
        self.customs.append(custom.CustomCall(function, args, kwargs, kept))
        for symbol, value in zip(symbols, kept, strict=True):
            self.bind(symbol, value)
        return tuple(symbols) if len(symbols) > 1 else symbols[0]

    def operation(self, original: Callable[..., Any], operation: Operation, *args: Any, **kwargs: Any) -> Any:
        """Write one operation of ``keras.ops``; returns symbolic tensors."""
        before, self._place = self._place, self.made.get(id(operation)) or self._place
        try:
            return self._operation(operation, *args, **kwargs)
        finally:
            self._place = before

    def _operation(self, operation: Operation, *args: Any, **kwargs: Any) -> Any:
        kind = type(operation)
        reader = READERS.get(kind.__name__) if kind.__module__.startswith("keras.") else None
        self.builder.origin = self.origin()
        args, kwargs = tree.map_structure(self._known, (args, kwargs))
        for name in vars(operation).keys() & SIZES:
            if keras.ops.is_tensor(size := getattr(operation, name)):
                setattr(operation, name, tuple(map(int, numpy(size).ravel())))
        if kind is Ndim:
            return len(args[0].shape)  # Layers branch on it.
        if self._drawn and any(id(x) in self._drawn for x in tree.flatten((args, kwargs))):
            return tree.map_structure(self._marked, operation.compute_output_spec(*args, **kwargs))
        name = kind.__name__ if kind.__module__.startswith("keras.") else f"{kind.__module__}.{kind.__qualname__}"
        if custom.is_among(name, self.opaque):
            return self._opaque_operation(operation, name, args, kwargs, "has no translation yet")
        if reader is None:
            composed = COMPOSED.get(kind.__name__) if kind.__module__.startswith("keras.") else None
            if composed is not None:
                return self._composed(operation, composed, name, args, kwargs)
            return self._lowered(operation, name, args, kwargs)
        spec = None if kind.__name__ in OWN_SHAPES else operation.compute_output_spec(*args, **kwargs)
        if any(None in x.shape for x in tree.flatten(spec) if isinstance(x, keras.KerasTensor)):
            raise Unreadable(f"operation {kind.__name__} gives a shape that depends on the data")
        start = len(self.builder.nodes)
        try:
            result = reader(Call.of(operation, args, kwargs, self, spec))
        except Unreadable as error:
            del self.builder.nodes[start:]
            return self._opaque_operation(operation, name, args, kwargs, str(error))
        return self.symbolic(result) if spec is None else self._results(kind.__name__, spec, result)

    def _opaque_operation(self, operation: Operation, name: str, args: Any, kwargs: Any, reason: str) -> Any:
        spec = operation.compute_output_spec(*args, **kwargs)
        if any(None in x.shape for x in tree.flatten(spec)):
            raise Unreadable(f"operation {name} gives a shape that depends on the data")
        operands = custom.operands_of_operation(operation, args, kwargs, self.value)
        return self._custom(name, operation.call, args, kwargs, operands, spec, reason)

    def _composed(self, operation: Operation, composed: Callable[..., Any], name: str, args: Any, kwargs: Any) -> Any:
        """An operation as others of keras.ops."""
        start = len(self.builder.nodes)
        try:
            found = composed(operation, *args, **kwargs)
        except Unreadable as error:
            del self.builder.nodes[start:]
            return self._opaque_operation(operation, name, args, kwargs, str(error))
        if not isinstance(found, keras.KerasTensor):
            return found
        return _converted(found, operation.compute_output_spec(*args, **kwargs).dtype)

    def _lowered(self, operation: Operation, name: str, args: Any, kwargs: Any) -> Any:
        """Without a reader: what its own ``call`` does, if that is written in other operations."""
        kind = type(operation)
        if kind in self._lowering:
            raise Unreadable(f"operation {kind.__name__} has no translation yet")
        self._lowering.append(kind)
        start = len(self.builder.nodes)
        try:
            return operation.call(*args, **kwargs)
        except (Unreadable, *custom.FAILURES):
            del self.builder.nodes[start:]
            self.failed = None
            return self._opaque_operation(operation, name, args, kwargs, REFUSED.get(name, "has no translation yet"))
        finally:
            self._lowering.pop()

    def _results(self, name: str, spec: Any, result: Any) -> Any:
        symbols, values = tree.flatten(spec), list(result) if isinstance(result, tuple) else [result]
        if len(symbols) != len(values):
            raise AssertionError(f"{name} gives {counted(len(symbols), 'tensor')}, and its translation {len(values)}")
        for symbol, value in zip(symbols, values, strict=True):
            if not isinstance(value, Value):
                value = self.builder.emit("full", value, shape=symbol.shape, dtype=symbol.dtype)
            if tuple(symbol.shape) != value.shape:
                raise AssertionError(f"{name} gives {symbol.shape}, and its translation {value.shape}: {self.origin()}")
            self.bind(symbol, self.builder.retype(value, keras.backend.standardize_dtype(symbol.dtype)))
        return spec

    def symbolic(self, result: Any) -> Any:
        """Symbolic tensors for values that a reader of a whole layer wrote."""
        if isinstance(result, Value):
            return self.bind(keras.KerasTensor(result.shape, result.dtype), result)
        return tuple(map(self.symbolic, result))

    def emit(self, operator: str, *operands: Any, **attributes: Any) -> Any:
        """Write a node of the layer that runs now."""
        self.builder.origin = self.origin()
        return self.builder.emit(operator, *operands, **attributes)

    def _draw(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """What a layer draws and does not use in inference is no harm."""
        symbols = [x for x in tree.flatten((args, kwargs)) if isinstance(x, keras.KerasTensor)]
        drawn = symbols[0] if symbols else original(*args, **kwargs)
        return self._marked(keras.KerasTensor(drawn.shape, keras.backend.standardize_dtype(drawn.dtype)))

    def _marked(self, symbol: Any) -> Any:
        self._kept.append(symbol)
        self._drawn[id(symbol)] = self.origin()
        return symbol

    # How it is seen -----------------------------------------------------------------------------------------------
    def _known(self, x: Any) -> Any:
        return x.value if isinstance(x, keras.Variable) and id(x) in self._variables else x

    def _symbol(self, x: Any) -> Any:
        if not keras.ops.is_tensor(x):
            return x
        if id(x) not in self._symbols:
            value = self._constant(x)
            if not isinstance(value, Value):
                array = numpy(x)
                name = f"constant_{len(self._kept)}"
                value = self.builder.leaf(name, "constant", array.shape, str(array.dtype), array)
                self._kept.append(x)
            self._symbols[id(x)] = self.symbolic(value)
        return self._symbols[id(x)]

    def _through(self, function: Callable[..., Any]) -> Replacement:
        """A function of the engine, which on symbolic tensors is a function of ``keras.ops``."""

        def call(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            given = tree.map_structure(self._known, (args, kwargs))
            if not backend.any_symbolic_tensors(*given):
                return self._made(function.__name__, original, *args, **kwargs)
            # keras.ops looks at some of its arguments only to see whether they are symbolic.
            args, kwargs = tree.map_structure(self._symbol, given)
            return function(*args, **kwargs)

        return call

    def _made(self, name: str, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """An array that depends on numbers alone: a node, since the numbers may be lengths of the inputs."""
        result = original(*args, **kwargs)
        if not self.lengths or name not in CREATIONS or not self._open or not keras.ops.is_tensor(result):
            return result
        bound = inspect.signature(original).bind(*args, **kwargs)
        bound.apply_defaults()
        if any(keras.ops.is_tensor(x) for x in tree.flatten(bound.arguments)):
            return result
        self.builder.origin = self.origin()
        dtype = keras.backend.standardize_dtype(result.dtype)
        value = CREATIONS[name](self.builder, bound.arguments, tuple(map(int, result.shape)), dtype)
        return result if value is None else self.symbolic(value)

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Inside, layers and operations on symbolic tensors are written down."""
        patches: list[tuple[Any, str, Replacement]] = [
            (Operation, "symbolic_call", self.operation),
            (layer_module.Layer, "symbolic_call", self._layer),
            (layer_module.Layer, "_maybe_build", refuse_unbuilt),
            # What the model's own layers are called with now must leave no trace in them.
            (layer_module, "Node", lambda original, *args, **kwargs: None),
            # A loss is nothing that the model gives.
            (layer_module.Layer, "add_loss", lambda original, layer, loss: None),
            (keras.KerasTensor, "__getitem__", _part),
            # TensorFlow's own way, from which the layer turns to the general one where it raises this.
            (tf_utils, "tf_encode_categorical_inputs", _no_value),
            *recurrence.patches(self),
            *rereading.patches(self, self.model),
            *((module, name, self._through(function)) for module, name, function in _engine_functions()),
            *((backend.random, name, self._draw) for name in _DRAWS),
        ]
        # What a layer draws or counts while it is read is not the model's.
        with patched(patches), self.scope, _whole_errors():
            yield


@contextmanager
def _whole_errors() -> Iterator[None]:
    """Inside, Keras raises what was raised, and no sentence of its own about it."""
    before = keras.config.is_traceback_filtering_enabled()
    keras.config.disable_traceback_filtering()
    try:
        yield
    finally:
        if before:
            keras.config.enable_traceback_filtering()


def _no_value(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    raise ValueError("a symbolic tensor has no values")


def _converted(x: Any, dtype: Any = None, **options: Any) -> Any:
    same = dtype is None or keras.backend.standardize_dtype(dtype) == keras.backend.standardize_dtype(x.dtype)
    return x if same else ops.cast(x, dtype)


def _part(original: Callable[..., Any], x: Any, key: Any) -> Any:
    """A part of a symbolic tensor, which takes less than a tensor does: a slice or a new axis must be in a tuple."""
    return original(x, (key,) if key is None or key is Ellipsis or isinstance(key, slice) else key)


_DRAWS = ("normal", "uniform", "categorical", "randint", "truncated_normal", "dropout", "shuffle", "gamma", "binomial",
          "beta")  # fmt: skip


SIZES = {"newshape", "repeats", "shape"}
"""Options of operations that are lengths, which a layer may have put into an array."""

_COMMON = ("keras.src.backend.common", "keras.src.backend.config")


def _engine_functions() -> Iterator[tuple[Any, str, Callable[..., Any]]]:
    """The engine's functions, wherever Keras looks them up, with those of ``keras.ops`` that have their names."""
    skipped = {"shape", "is_tensor", "convert_to_numpy", "custom_gradient"}
    package = sys.modules[f"keras.src.backend.{keras.config.backend()}"]
    families = (backend.core, backend.numpy, backend.nn, backend.math, backend.linalg)
    for module, public in (*((x, ops) for x in (backend, package, *families)), (backend.image, ops.image)):
        for name, function in vars(module).items():
            found = _converted if name == "convert_to_tensor" else getattr(public, name, None)
            home = str(getattr(function, "__module__", None))
            engine = home.startswith("keras.src.backend.") and not home.startswith(_COMMON)
            if engine and not isinstance(function, type) and callable(found) and name not in skipped:
                yield module, name, found


def _trainable(model: keras.Layer) -> set[int]:
    owners = (model, *named_layers(model).values())
    return {id(variable) for owner in owners for variable in owner._trainable_variables}


_UNNAMED = re.compile(r"input_layer(_\d+)?")
_PLAIN = ("Functional", "Sequential")


def _title(model: keras.Layer) -> str:
    """The model's class name; the name of a model of no class of its own."""
    kind = type(model).__name__
    return kind if kind not in _PLAIN or re.fullmatch(rf"{kind.lower()}(_\d+)?", model.name) else str(model.name)


def _input_names(model: keras.Layer, given: Any) -> list[str]:
    count = sum(1 for _ in in_order(given))
    declared = getattr(model, "inputs", None)
    if isinstance(given, Mapping):
        # In the user's order; Keras sorts the keys of a dict, and so what the model declares.
        names = [path for path, _ in _paths(given)]
    elif declared:
        names = [str(x._keras_history.operation.name) for x in declared]
        names = ["inputs"] if len(names) == 1 and _UNNAMED.fullmatch(names[0]) else names
    else:
        names = [name for name in model._call_signature.parameters if name not in ("training", "mask")]
    return names if len(names) == count and len(set(names)) == count else [f"input_{i}" for i in range(count)]


def _user_line(error: Exception | None = None) -> tuple[str | None, int | None]:
    """File and line of the innermost frame that belongs to neither Keras, its engine, nor us: now, or of an error."""
    frames = traceback.walk_stack(sys._getframe(1)) if error is None else traceback.walk_tb(error.__traceback__)
    found: tuple[str | None, int | None] = None, None
    for frame, line in frames:
        package = str(frame.f_globals.get("__name__")).partition(".")[0]
        if error is None and package == "agnostic_keras" and frame.f_code.co_name == "read":
            break
        if package not in _INTERNAL and os.path.isabs(frame.f_code.co_filename):
            found = frame.f_code.co_filename, line
            if error is None:
                break
    return found
