"""Keras models as transfer sees them. See :mod:`agnostic.transfer.access`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import keras
import numpy as np
from keras import layers as kl
from keras import tree

from agnostic.errors import InvalidInput, InvalidWeights
from agnostic.models.architecture import same_padding
from agnostic.models.attached import card_of
from agnostic.patching import Replacement
from agnostic.transfer.access import ROOT, Access, AroundGroup, Array, InputSpec, Pool, WeightGroup
from agnostic.transfer.layouts import join_separable, split_separable
from agnostic_keras import engines, taps
from agnostic_keras.layers import named_layers
from agnostic_keras.ops import KerasOps

ops = KerasOps()

_CONV = kl.Conv1D.__mro__[1]
_TRANSPOSED = kl.Conv1DTranspose.__mro__[1]
_DEPTHWISE = kl.DepthwiseConv1D.__mro__[1]
_SEPARABLE = kl.SeparableConv1D.__mro__[1]
_CONV_LSTM = kl.ConvLSTM1D.__mro__[1]
_AVERAGE = (kl.AveragePooling1D, kl.AveragePooling2D, kl.AveragePooling3D)
_RECURRENT: Mapping[type, str] = {
    kl.LSTM: "lstm", kl.GRU: "gru", kl.SimpleRNN: "rnn",
    kl.LSTMCell: "lstm", kl.GRUCell: "gru", kl.SimpleRNNCell: "rnn",
}  # fmt: skip
_NORMS: Mapping[type, tuple[str, tuple[str, ...]]] = {
    kl.BatchNormalization: ("batch_norm", ("gamma", "beta", "moving_mean", "moving_variance")),
    kl.LayerNormalization: ("layer_norm", ("gamma", "beta")),
    kl.GroupNormalization: ("group_norm", ("gamma", "beta")),
    kl.PReLU: ("prelu", ("alpha",)),
}
_ATTENTION = {"query": "_query_dense", "key": "_key_dense", "value": "_value_dense", "output": "_output_dense"}


class KerasAccess(Access):
    """See :class:`agnostic.transfer.access.Access`."""

    framework = "keras"

    def __init__(self, model: keras.Layer) -> None:
        taps.check_built(model)
        self.model = model
        self._layers = {"": model, **named_layers(model), ROOT: model}
        self._variables: dict[str, dict[str, keras.Variable]] = {}
        self._slots = [slot for name, layer in self._open() for slot in self._of(name, layer)]

    @property
    def slots(self) -> Sequence[WeightGroup]:
        return self._slots

    @property
    def pools(self) -> Mapping[str, Pool]:
        return {
            name: Pool(layer.pool_size, layer.strides, "same", counts=False)
            for name, layer in self._layers.items()
            if isinstance(layer, _AVERAGE) and layer.padding == "same"
        }

    # Slots ----------------------------------------------------------------------------------------------------------
    def _open(self) -> Iterator[tuple[str, keras.Layer]]:
        closed: tuple[str, ...] = ()
        for name, layer in self._layers.items():
            if name == ROOT:
                continue
            if closed and name.startswith(closed):
                continue
            if isinstance(layer, kl.MultiHeadAttention | _CONV_LSTM) or (isinstance(layer, kl.RNN) and _cells(layer)):
                closed += (f"{name}.",)
            yield name, layer

    def _of(self, name: str, layer: keras.Layer) -> Iterator[WeightGroup]:
        if getattr(layer, "lora_enabled", False) or getattr(layer, "quantization_mode", None):
            raise InvalidInput(
                f"{name or layer.name!r} keeps its kernel quantized or in parts (LoRA), which transfer does not take "
                "apart: transfer the layer as it was before"
            )
        cells = _cells(layer) if isinstance(layer, kl.RNN) else []
        if len(cells) > 1:
            for number, cell in enumerate(cells):
                yield from self._cell(f"{name}.{number}", name, cell)
            return
        kind, variables = _described(layer)
        if kind is None:
            yield from self._bare(name, layer)
        elif kind == "separable_conv":
            arrays = {k: ops.numpy(v.value) for k, v in variables.items()}
            config = _config(layer)
            first, second = split_separable(arrays)
            self._variables[f"{name}.depthwise"] = self._variables[f"{name}.pointwise"] = variables
            yield WeightGroup(f"{name}.depthwise", "depthwise_conv", name, first, config)
            yield WeightGroup(f"{name}.pointwise", "conv", name, second, {})
        elif variables:
            self._variables[name or layer.name] = variables
            arrays = {k: ops.numpy(v.value) for k, v in variables.items()}
            yield WeightGroup(name or layer.name, kind, name or ROOT, _regrouped(kind, layer, arrays), _config(layer))

    def _cell(self, full: str, name: str, cell: keras.Layer) -> Iterator[WeightGroup]:
        """One of several cells that run as one layer."""
        kind, variables = _described(cell)
        assert kind is not None
        self._variables[full] = variables
        yield WeightGroup(full, kind, name or ROOT, {k: ops.numpy(v.value) for k, v in variables.items()})

    def _bare(self, name: str, layer: keras.Layer) -> Iterator[WeightGroup]:
        holder = bool(layer._flatten_layers(False, False)) if layer is not self.model else True
        variables = [*layer._trainable_variables, *layer._non_trainable_variables]
        if isinstance(layer, kl.SpectralNormalization):
            return  # the state of its iteration, which training alone reads; the kernel is that of the layer inside
        for variable in variables:
            # A layer that is one parameter has its name, as the parameter has in PyTorch.
            alone = len(variables) == 1 and not holder
            full = name if alone else f"{name}.{variable.name}".lstrip(".")
            self._variables[full] = {"value": variable}
            yield WeightGroup(full, "parameter", "" if holder else name, {"value": ops.numpy(variable.value)})

    def write(self, slot: WeightGroup, weights: Mapping[str, Array]) -> None:
        variables = self._variables[slot.name]
        if slot.name.endswith((".depthwise", ".pointwise")) and "pointwise_kernel" in variables:
            part = slot.name.rpartition(".")[2]
            if part == "depthwise" and np.any(weights.get("bias", 0)):
                raise InvalidWeights(
                    f"{slot.layer!r} has no bias between its depthwise and its pointwise part: make two layers of it"
                )
            now = split_separable({k: ops.numpy(v.value) for k, v in variables.items()})
            both = (weights, now[1]) if part == "depthwise" else (now[0], weights)
            weights = join_separable({"kernel": both[0]["kernel"]}, both[1])
        for name, value in weights.items():
            variables[name].assign(np.reshape(value, variables[name].shape))

    # Runs -----------------------------------------------------------------------------------------------------------
    def inputs(self) -> list[InputSpec]:
        high = next((x.input_dim for x in self._layers.values() if isinstance(x, kl.Embedding)), None)
        declared = getattr(self.model, "inputs", None)
        if declared:
            return [self._declared(x, high) for x in declared]
        card = card_of(self.model)
        for layer in self._layers.values():
            kind, variables = _described(layer)
            if isinstance(layer, _CONV):
                rank = layer.rank
                size = card.size if card is not None and card.size and rank == 2 else (None,) * rank
                return [InputSpec((*size, int(layer.kernel.shape[-2] * layer.groups)))]
            if kind == "embedding":
                return [InputSpec((None,), high)]
            if kind in ("lstm", "gru", "rnn"):
                return [InputSpec((None, int(variables["kernel"].shape[0])))]
            if kind == "dense":
                return [InputSpec((int(variables["kernel"].shape[0]),))]
            if variables:
                break
        raise InvalidInput(f"the inputs of {self.model.name!r} cannot be told from its first layer: give inputs=")

    def _declared(self, x: Any, high: int | None) -> InputSpec:
        shape = tuple(x.shape[1:])
        if len(shape) > 2 and taps.data_format(self.model) == "channels_first":
            shape = (*shape[1:], shape[0])
        card = card_of(self.model)
        if card is not None and card.size and len(shape) == 3 and shape[:2] == (None, None):
            shape = (*card.size, shape[2])
        tokens = keras.backend.standardize_dtype(x.dtype).startswith("int") or (high is not None and len(shape) == 1)
        return InputSpec(shape, high if tokens else None)

    def canonical(self, inputs: Any) -> list[Array]:
        given = inputs if isinstance(inputs, tuple | list) else (inputs,)
        arrays = [np.asarray(ops.numpy(x) if keras.ops.is_tensor(x) else x) for x in given]
        first = taps.data_format(self.model) == "channels_first"
        return [np.moveaxis(x, 1, -1) if first and x.ndim > 3 else x for x in arrays]

    def run(
        self, inputs: Sequence[Array], layers: Sequence[str] = (), around: AroundGroup | None = None
    ) -> list[Array]:
        first = taps.data_format(self.model) == "channels_first"
        native = tuple(np.moveaxis(x, -1, 1) if first and x.ndim > 3 else x for x in inputs)
        replacements = (
            [] if around is None else [(self._layers[x], _replacement(self._layers[x], x, around)) for x in layers]
        )
        with taps.replaced(replacements):
            # Not in a stateless scope: what is written in between must stay.
            output = engines.current().without_gradients(
                lambda x: taps.predict(self.model, x), native[0] if len(native) == 1 else native
            )
        found = [ops.numpy(x) for x in tree.flatten(output)]
        return [np.moveaxis(x, 1, -1) if first and x.ndim > 3 else x for x in found]

    @contextmanager
    def overridden(self, overrides: Mapping[str, Mapping[str, Any]]) -> Iterator[None]:
        with ExitStack() as stack:
            for name, override in overrides.items():
                pool = self.pools.get(name)
                stack.enter_context(
                    _changed(self._layers[name], override) if pool is None else _counting(self._layers[name], pool)
                )
            yield


# What a layer is ----------------------------------------------------------------------------------------------------
def _described(layer: keras.Layer) -> tuple[str | None, dict[str, keras.Variable]]:
    """(kind, variables by the canonical names); the kind is None where nothing is known."""
    if isinstance(layer, _SEPARABLE):
        return "separable_conv", _found(layer, ("depthwise_kernel", "pointwise_kernel", "bias"))
    if isinstance(layer, _DEPTHWISE):
        return "conv" if layer.kernel.shape[-2] == 1 else "depthwise_conv", _found(layer, ("kernel", "bias"))
    if isinstance(layer, _TRANSPOSED):
        return "conv_transpose", _found(layer, ("kernel", "bias"))
    if isinstance(layer, _CONV):
        depthwise = layer.groups > 1 and layer.kernel.shape[-2] == 1
        return "depthwise_conv" if depthwise else "conv", _found(layer, ("kernel", "bias"))
    if isinstance(layer, kl.Dense):
        return "dense", _found(layer, ("kernel", "bias"))
    if isinstance(layer, kl.EinsumDense) and _product(layer) is not None:
        return "dense", _found(layer, ("kernel", "bias"))
    if getattr(layer, "reverse_embeddings", None) is not None:
        return type(layer).__name__, _found(layer, ("embeddings", "reverse_embeddings"))
    if isinstance(layer, kl.Embedding):
        return "embedding", _found(layer, ("embeddings",))
    if isinstance(layer, kl.MultiHeadAttention):
        return "attention", {
            f"{name}_{array}": variable
            for name, attribute in _ATTENTION.items()
            for array, variable in _found(getattr(layer, attribute), ("kernel", "bias")).items()
        }
    if isinstance(layer, kl.Normalization):
        return "normalization", {
            k: v for k in ("mean", "variance") if (v := getattr(layer, f"adapt_{k}", None)) is not None
        }
    if isinstance(layer, getattr(kl, "RMSNormalization", ())):
        return "rms_norm", _found(layer, ("scale",))
    for cls, (kind, names) in _NORMS.items():
        if isinstance(layer, cls):
            return kind, _found(layer, names)
    cells = _cells(layer)
    if len(cells) == 1:
        kind = next(kind for cls, kind in _RECURRENT.items() if isinstance(cells[0], cls))
        return kind, _found(cells[0], ("kernel", "recurrent_kernel", "bias"))
    if isinstance(layer, _CONV_LSTM):
        return type(layer).__name__, _found(layer.cell, ("kernel", "recurrent_kernel", "bias"))
    if isinstance(layer, kl.EinsumDense):
        return type(layer).__name__, _found(layer, ("kernel", "bias"))
    return None, {}


def _cells(layer: keras.Layer) -> list[keras.Layer]:
    """The cells of a recurrent layer that are run one after the other, or the layer itself where it is one."""
    cell = getattr(layer, "cell", layer) if isinstance(layer, kl.RNN) else layer
    cells = list(cell.cells) if isinstance(cell, kl.StackedRNNCells) and cell is not layer else [cell]
    known = all(isinstance(x, tuple(_RECURRENT)) and not isinstance(x, kl.RNN) for x in cells)
    return cells if known else []


def _product(layer: keras.EinsumDense) -> tuple[int, int] | None:
    """How many axes at the end of an einsum's input go into how many at the end of its output, if it is a product.

    ``"abc,cd->abd"`` (1, 1) is a dense layer, ``"abc,cde->abde"`` (1, 2) one whose outputs are by head, and
    ``"abcd,cde->abe"`` (2, 1) joins the heads; others, such as ``"abc,bcd->abd"``, are no one product.
    """
    inputs, kernel, outputs = (part.replace("...", "") for part in layer.equation.replace("->", ",").split(","))
    summed = "".join(x for x in kernel if x not in outputs)
    new = "".join(x for x in kernel if x in outputs)
    if not summed or not new or kernel != summed + new or not inputs.endswith(summed) or not outputs.endswith(new):
        return None
    if inputs[: -len(summed)] != outputs[: -len(new)] or (layer.bias is not None and layer.bias.ndim != len(new)):
        return None
    return len(summed), len(new)


def _found(layer: keras.Layer, names: Sequence[str]) -> dict[str, keras.Variable]:
    return {name: variable for name in names if (variable := getattr(layer, name, None)) is not None}


def _regrouped(kind: str, layer: keras.Layer, arrays: dict[str, Array]) -> dict[str, Array]:
    """The canonical shapes: of a convolution in as many groups as channels, (*size, 1, C * M), and of an einsum."""
    if isinstance(layer, kl.EinsumDense) and kind == "dense":
        summed, _ = _product(layer) or (1, 1)
        kernel = arrays["kernel"]
        rows = math.prod(kernel.shape[:summed])
        return {name: x.reshape(rows, -1) if name == "kernel" else x.reshape(-1) for name, x in arrays.items()}
    if kind == "depthwise_conv" and isinstance(layer, _CONV):
        kernel = arrays["kernel"]
        return {**arrays, "kernel": kernel.reshape(*kernel.shape[:-2], layer.groups, -1)}
    return arrays


def _config(layer: keras.Layer) -> dict[str, Any]:
    config: dict[str, Any] = {}
    if isinstance(layer, kl.EinsumDense):
        config["what"] = f"EinsumDense({layer.equation!r})"
    epsilon = getattr(layer, "epsilon", None)
    if isinstance(epsilon, float | int):
        config["epsilon"] = float(epsilon)
    if isinstance(layer, _CONV | _DEPTHWISE | _SEPARABLE):
        config["strides"] = tuple(layer.strides)
        config["dilation"] = tuple(layer.dilation_rate)
        config["padding"] = layer.padding
    return config


# Runs ---------------------------------------------------------------------------------------------------------------
def _first(layer: keras.Layer, ndim: int) -> bool:
    """Whether an array of so many dimensions has its channels first in this layer."""
    if ndim < 3 or isinstance(layer, kl.RNN):
        return False
    if isinstance(layer, kl.BatchNormalization | kl.GroupNormalization):
        return bool(layer.axis % ndim == 1)
    return getattr(layer, "data_format", None) == "channels_first"


def _canonical(x: Any, first: bool, merged: int = 1) -> Array:
    """Channels last, and as many axes at the end in one as an einsum sums over."""
    array = ops.numpy(x)
    if merged > 1:
        return array.reshape(*array.shape[:-merged], -1)
    return np.moveaxis(array, 1, -1) if first else array


def _native(x: Array, first: bool, like: Any, merged: int = 1) -> Any:
    if merged > 1:
        x = x.reshape(*x.shape[:-1], *like.shape[-merged:])
    return ops.asarray(np.ascontiguousarray(np.moveaxis(x, -1, 1) if first else x), ops.dtype(like))


def _replacement(layer: keras.Layer, name: str, around: AroundGroup) -> Replacement:
    def call(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if not args or not keras.ops.is_tensor(args[0]):
            return original(*args, **kwargs)
        x = args[0]
        into, out = (_product(layer) if isinstance(layer, kl.EinsumDense) else None) or (1, 1)
        activation = None if isinstance(layer, kl.RNN) else layer.__dict__.get("activation")
        output: Any = None

        def run(other: Array | None) -> Array:
            nonlocal output
            new = x if other is None else _native(other, _first(layer, len(x.shape)), x, into)
            same = {k: new if v is x else v for k, v in kwargs.items()}  # self-attention is handed one array thrice
            with _attributes(layer, {} if activation is None else {"activation": None}):
                output = original(*(new if value is x else value for value in args), **same)
            found = tree.flatten(output)[0]
            return _canonical(found, _first(layer, len(found.shape)), out)

        forced = around(name, _canonical(x, _first(layer, len(x.shape)), into), run)
        if forced is not None:
            flat = tree.flatten(output)
            flat[0] = _native(forced, _first(layer, len(flat[0].shape)), flat[0], out)
            output = tree.pack_sequence_as(output, flat)
        return output if activation is None else activation(output)

    return call


@contextmanager
def _attributes(layer: keras.Layer, values: Mapping[str, Any]) -> Iterator[None]:
    # Past Keras' own __setattr__, which tracks what it is given.
    before = {name: layer.__dict__[name] for name in values}
    layer.__dict__.update(values)
    try:
        yield
    finally:
        layer.__dict__.update(before)


def _counting(layer: keras.Layer, pool: Pool) -> AbstractContextManager[None]:
    """Inside, an average pool divides by the window's size, as no pool of Keras does."""

    def call(original: Callable[..., Any], x: Any) -> Any:
        y, first = original(x), _first(layer, len(x.shape))
        spatial = x.shape[2:] if first else x.shape[1:-1]
        return y * _native(pool.share(spatial), first, y)

    return taps.replaced([(layer, call)])


@contextmanager
def _changed(layer: keras.Layer, override: Mapping[str, Any]) -> Iterator[None]:
    names = {"epsilon": "epsilon", "strides": "strides", "dilation": "dilation_rate"}
    values = {name: override[key] for key, name in names.items() if key in override}
    if "padding" not in override and "crop" not in override:
        with _attributes(layer, values):
            yield
        return
    pairs, crop = override.get("padding", "valid"), override.get("crop", ())

    def call(original: Callable[..., Any], x: Any) -> Any:
        array = _canonical(x, first := _first(layer, len(x.shape)))
        for axis, (low, high) in enumerate(crop, 1):
            array = array[(slice(None),) * axis + (slice(low, array.shape[axis] - high),)]
        wanted = pairs
        if pairs == "same":
            wanted = [
                same_padding(n, k, s)
                for n, k, s in zip(array.shape[1:-1], layer.kernel_size, layer.strides, strict=True)
            ]
        if wanted != "valid":
            array = np.pad(array, [(0, 0), *wanted, (0, 0)])
        return original(_native(array, first, x))

    with _attributes(layer, {**values, "padding": "valid"}), taps.replaced([(layer, call)]):
        yield


def access(model: keras.Layer) -> KerasAccess:
    """See :meth:`agnostic.contracts.transfer.Transfers.access`."""
    return KerasAccess(model)
