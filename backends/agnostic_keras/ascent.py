"""The ascent in Keras: what :mod:`agnostic.visualization.ascent` describes, as functions that an engine can compile.

The network is cut at the last layer of the objective by an exception, while it runs or while it is traced; its weights
are data, never differentiated. Of a convolution whose single channels are wanted, only those are computed: with their
part of the kernel, then the layer's own activation.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import layers as kl

from agnostic.errors import InvalidInput
from agnostic.ops import Array
from agnostic.patching import Replacement
from agnostic.text import counted
from agnostic.visualization.ascent import (
    Ascent,
    Climbed,
    Settings,
    check_finite,
    is_coupled,
    layers_of_heads,
    pixel_importance,
)
from agnostic.visualization.objectives import OUTPUT
from agnostic.visualization.taps import Tap
from agnostic_keras import engines
from agnostic_keras.devices import usable_device
from agnostic_keras.layers import named_layers
from agnostic_keras.logits import remembered
from agnostic_keras.ops import KerasOps
from agnostic_keras.policies import computing, policies
from agnostic_keras.taps import Stop, check_built, predict, replaced

# Bytes of the largest activation of a micro-batch, the most rows, and input channels from which bfloat16 pays: see
# agnostic_torch.ascent.
_ACTIVATION_BYTES = 24 * 2**20
_MOST_ROWS = 16
_WIDE = 32

_ELEMENTWISE = {
    getattr(keras.activations, name)
    for name in (
        "linear", "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "softplus", "softsign",
        "sigmoid", "hard_sigmoid", "hard_silu", "tanh", "exponential", "mish",
    )
}  # fmt: skip
"""Activations of each element by itself, so that one channel's are those of the channel alone."""

Data = dict[str, Any]
"""What a step needs and does not change: weights, constants, the terms' arrays, the wanted channels."""


def ascend(model: keras.Layer, ascent: Ascent, settings: Settings) -> Iterator[Climbed]:
    """See :mod:`agnostic.contracts.ascent`. Compiled engines report the steps of a micro-batch when it ends.

    Raises:
        InvalidInput: float64 is asked for, to which several of Keras' layers are not accurate on any engine.
    """
    check_built(model)
    if settings.dtype == "float64":
        raise InvalidInput(
            "Keras' layers compute float64 to float32's accuracy in many cases, so it is not offered: "
            "use dtype='float32', or the torch backend for float64"
        )
    dtype = settings.dtype or choose_dtype(model, keras.config.backend())
    size = ascent.count if is_coupled(ascent) else settings.micro_batch or choose_micro_batch(ascent, dtype)
    # Micro-batches of one size are compiled once.
    size = math.ceil(ascent.count / math.ceil(ascent.count / size))
    device = usable_device(settings.device) if settings.device else None
    # Constants are made here, and lie where the images will. No scope reaches over a yield: the caller has its own.
    with _on(device):
        network = Network(model, ascent, dtype)
        climb = _climber(model, network, device)
    for start in range(0, ascent.count, size):
        images = range(start, min(start + size, ascent.count))
        with _on(device):
            climbed, finite = _climbed(network, climb, images, size, settings)
        check_finite(ascent, images, climbed.scores, finite)
        yield replace(climbed, computed=_computed(dtype, network))


def _computed(dtype: str, network: Network) -> str:
    """See :attr:`agnostic.visualization.ascent.Climbed.computed`; on a GPU each engine chooses, and need not tell."""
    place = str(getattr(next(iter(network.shared["weights"]), None), "device", "")).lower()
    return "float32 or tf32" if dtype == "float32" and ("gpu" in place or "cuda" in place) else dtype


_KEPT = "_agnostic_climbers"
_MOST_KEPT = 8


def _climber(model: keras.Layer, network: Network, device: str | None) -> Callable[..., Any]:
    """What an engine compiles for an ascent, kept with the model: compiling takes longer than many an ascent.

    Weights, channels and other numbers are its arguments. Its key is what it was compiled for: the objective's form,
    the recipe, the shape of the images, and the settings of all layers: one that was changed is compiled again.
    """
    key = network.key(device)
    # Not an attribute, which Keras would track and save.
    kept: dict[Any, tuple[Network, Callable[..., Any]]] = vars(model).setdefault(_KEPT, {})
    largest = max(
        (int(c) for term in network.ascent.objective.terms() for c in getattr(term, "classes", ())), default=-1
    )
    if key in kept and largest < (kept[key][0].outputs or 0) + (largest < 0):
        return kept[key][1]
    traced = network.without_data()
    climb: Callable[..., Any] = engines.current().climber(traced)
    if key is not None:
        while len(kept) >= _MOST_KEPT:
            del kept[next(iter(kept))]
        kept[key] = traced, climb
    return climb


def _on(device: str | None) -> contextlib.AbstractContextManager[Any]:
    return contextlib.nullcontext() if device is None else keras.device(device)


@functools.cache
def _multiplies_bfloat16() -> bool:
    try:
        flags = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:  # not Linux
        return False
    return not flags.isdisjoint({"amx_bf16", "avx512_bf16"})


def choose_dtype(model: keras.Layer, engine: str) -> str:
    """bfloat16 where the processor multiplies it and the engine uses that, else float32: as the torch backend does.

    Narrow, grouped and depthwise convolutions do not gain, and jax computes convolutions without it.
    """
    if engine == "jax" or not _multiplies_bfloat16():
        return "float32"
    layers = list(named_layers(model).values())
    grouped = any(
        isinstance(layer, kl.DepthwiseConv2D | kl.SeparableConv2D) or getattr(layer, "groups", 1) > 1
        for layer in layers
    )
    wide = any(isinstance(layer, kl.Conv2D) and layer.kernel.shape[-2] >= _WIDE for layer in layers)
    return "bfloat16" if wide and not grouped else "float32"


def choose_micro_batch(ascent: Ascent, dtype: str) -> int:
    """Images whose largest activation fits the cache, see ``_ACTIVATION_BYTES``; independent of the load."""
    rows = min(_ACTIVATION_BYTES // (ascent.widest * (4 if dtype == "float32" else 2)), _MOST_ROWS)
    return max(1, rows // ascent.views)


def _climbed(
    network: Network, climb: Callable[..., Any], images: range, size: int, settings: Settings
) -> tuple[Climbed, npt.NDArray[np.bool_]]:
    """A micro-batch of ``size`` images, and whether the gradients were finite (steps, images)."""
    ascent, ops = network.ascent, network.ops
    views = ascent.views

    def filled(array: npt.NDArray[Any], axis: int = 0, rows: int = 1) -> Array:
        # The last micro-batch is filled up with copies of its last image, so that its arrays have the compiled shape.
        missing = size - len(images)
        if missing:
            last = np.take(array, range(array.shape[axis] - rows, array.shape[axis]), axis)
            array = np.concatenate([array, *[last] * missing], axis)
        return network.data(array)

    parameters = filled(ascent.initial(images))
    state = ascent.recipe.update.initial_state(parameters), network.importance(parameters)
    schedule = {
        name: filled(array, 1, views) if array.ndim > 1 else network.data(array)
        for name, array in ascent.schedule(images).items()
    }
    data = network.shared | {
        "arrays": [tuple(filled(array, rows=views) for array in own) for own in ascent.arrays(images)],
        "others": [filled(array, rows=views) for array in ascent.others(images)],
        "channels": {
            layer: [filled(index) for index in indices]
            for layer, indices in ascent.channel_means(images).items()
            if layer in network.sliced
        },
    }
    count, steps = len(images), ascent.steps
    every, done = (steps if settings.on_images is None else min(settings.every or steps, steps)), 0
    seen: list[Any] = []
    parts: Any = False
    while done < steps:
        now = {name: array[done : done + every] for name, array in schedule.items()}
        shown, parameters, state, *own, reached_parts = climb(parameters, state, now, data)
        seen.append([ops.numpy(x) for x in own])
        parts, before, done = parts | ops.numpy(reached_parts), done, min(done + every, steps)
        pixels = ops.numpy(shown)
        if settings.on_step is not None:
            for _ in range(done - before):
                settings.on_step(count)
        if settings.on_images is not None:
            settings.on_images(images, done, pixels[:count].astype(np.float32))
    scores, finite, reached = (np.concatenate(x) for x in zip(*seen, strict=True))
    climbed = Climbed(
        images,
        pixels[:count].astype(np.float32),
        scores[:, :count].astype(np.float64),
        np.asarray(reached.any(0))[:count],
        parts[:count] if parts.shape[1] else None,
        ops.numpy(state[1])[:count].astype(np.float32) if ascent.recipe.importance else None,
    )
    return climbed, finite[:, :count]


class Network:
    """The model, cut and frozen, and the functions of one step: what an engine's ``climber`` compiles.

    Attributes:
        ascent: the mathematics.
        ops: the array operations.
        shared: the part of a step's data that is the same for all micro-batches.
        sliced: the layers whose wanted channels are computed alone.
    """

    def __init__(self, model: keras.Layer, ascent: Ascent, dtype: str) -> None:
        self.ascent, self.ops = ascent, KerasOps()
        self._model, self._dtype = model, dtype
        named = named_layers(model)
        self._wanted = {layer: named[layer] for layer in ascent.objective.layers() if layer != OUTPUT}
        self._of_heads = layers_of_heads(ascent)
        self._policies = policies(model, dtype)
        self._quick = [(layer, quick) for layer in named.values() if (quick := _quick(layer)) is not None]
        self._variables = model.variables
        self.outputs: int | None = None
        """The number of classes, once the whole model was traced; an index is compared with it while it is traced."""
        self.sliced = {
            layer
            for layer in ascent.channel_means(range(ascent.count))
            if _is_sliceable(named[layer]) and ascent.listing[layer].calls == 1
        }
        # The engine leaves out what it does not use; a copy in another type it would be given all the same.
        used = {id(x) for name, layer in named.items() if name not in ascent.unused for x in _own_variables(layer)}
        unused = {id(x) for name in ascent.unused for x in named[name].variables} - used
        self.shared: Data = {
            "weights": [self._frozen(x, converted=id(x) not in unused) for x in self._variables],
            "constants": {name: self.data(array) for name, array in ascent.constants().items()},
        }

    def key(self, device: str | None) -> Any:
        """What a compiled ascent depends on besides its arguments; None where that cannot be told."""
        ascent, layers = self.ascent, (self._model, *self._model._flatten_layers(False, True))
        listing = tuple((name, x.axes, x.shape) for name, x in ascent.listing.items())
        looked_at = tuple(ascent.looked_at.items())
        key = (
            ascent.objective.form(), ascent.recipe, ascent.shape, ascent.preprocessing, listing, looked_at,
            ascent.input, repr(ascent.call.structure), self._dtype, device, keras.config.floatx(),
            frozenset(self.sliced), tuple(_settings(layer) for layer in layers),
        )  # fmt: skip
        try:
            hash(key)
        except TypeError:  # a parameterization of the user's that is no value
            return None
        return key

    def without_data(self) -> Network:
        """The same without the arrays that a compiled ascent is given."""
        found = copy.copy(self)
        found.shared = {}
        return found

    def data(self, array: npt.NDArray[Any]) -> Array:
        """A native array; floating point becomes float32."""
        return self.ops.asarray(array.astype(np.float32) if array.dtype.kind == "f" else array)

    def _frozen(self, variable: keras.Variable, *, converted: bool) -> Array:
        value = self.ops.stop_gradient(keras.ops.convert_to_tensor(variable.value))
        # Keras keeps statistics in float32 in every policy.
        converted = converted and variable.dtype == "float32" and variable._autocast
        return self.ops.cast(value, self._dtype) if converted else value

    # Functions of one step ------------------------------------------------------------------------------------------
    def probes(self, parameters: Array) -> tuple[Array, Array]:
        """Zeros that are added to what the network is given, (images * views, H, W, C), and to the images.

        Their gradients are what the network passes back, without what regularizers do to the same pixels, and what
        tells the importance of pixels.
        """
        count, (height, width, channels) = parameters.shape[0], self.ascent.shape
        seen = keras.ops.zeros((count * self.ascent.views, height, width, channels), "float32")
        of_images = (count, height, width, self.ascent.shown[2]) if self.ascent.recipe.importance else (count, 0)
        return (
            self.ascent.input.unfolded(self.ops, seen),
            keras.ops.zeros(of_images, "float32"),
        )

    def importance(self, parameters: Array) -> Array:
        """The importance of pixels before the first step, (images, H, W); nothing where it is not kept."""
        shape = self.ascent.shape[:2] if self.ascent.recipe.importance else (0, 0)
        return keras.ops.zeros((parameters.shape[0], *shape), "float32")

    def score(self, point: tuple[Array, Array, Array], now: Mapping[str, Array], data: Data) -> Array:
        """(images,): the objective, of the images' parameters and the :meth:`probes`."""
        parameters, probe, added = point

        def forward(inputs: Array) -> Mapping[str, Tap]:
            return self._forward(inputs + probe, data)

        return self.ascent.score(
            self.ops, forward, parameters, now, data["arrays"], data["constants"],
            added if self.ascent.recipe.importance else None,
        )  # fmt: skip

    def parts_reached(self, parameters: Array, probe: Array, now: Mapping[str, Array], data: Data) -> Array:
        """(images, parts): whether a gradient of each part of the objective comes back; none where there is one part.

        See :attr:`agnostic.visualization.ascent.Climbed.parts`.
        """
        parts = len(self.ascent.objective.parts())
        if parts < 2:
            return keras.ops.zeros((parameters.shape[0], 0), "bool")

        def score(number: int, point: tuple[Array, Array]) -> Array:
            def forward(inputs: Array) -> Mapping[str, Tap]:
                return self._forward(inputs + point[1], data)

            arrays, constants = data["arrays"], data["constants"]
            return self.ascent.part_scores(self.ops, forward, point[0], now, arrays, constants)[number]

        differentiate = engines.current().value_and_gradient
        found = [differentiate(functools.partial(score, i), (parameters, probe))[1][1] for i in range(parts)]
        return keras.ops.stack([self.reached(received) for received in found], 1)

    def update(
        self, parameters: Array, gradient: Array, of_pixels: Array, state: Any, now: Mapping[str, Array]
    ) -> tuple[Array, Any]:
        """New parameters and state: that of the rule, and the importance of pixels."""
        own, weights = state
        parameters, own = self.ascent.update(self.ops, parameters, gradient, own, now)
        if self.ascent.recipe.importance:
            weights = weights + pixel_importance(self.ops, of_pixels)
        return parameters, (own, weights)

    def finite(self, gradient: Array) -> Array:
        """(images,): whether the gradient is finite; a sum is only if all its terms are."""
        return self.ops.isfinite(self.ops.sum(gradient, tuple(range(1, len(gradient.shape)))))

    def reached(self, received: Array) -> Array:
        """(images,): whether any number of the gradient of the first of the :meth:`probes` differs from zero."""
        rows = self.ops.reshape(received, (received.shape[0] // self.ascent.views, -1))
        return self.ops.max(self.ops.abs(rows), 1) != 0

    def display(self, parameters: Array, data: Data) -> Array:
        """(images, H, W, C) in [0, 1]."""
        return self.ascent.display(self.ops, parameters, data["constants"])

    # The network, cut -----------------------------------------------------------------------------------------------
    def _forward(self, inputs: Array, data: Data) -> Mapping[str, Tap]:
        taps: dict[str, Tap] = {}
        # Calls of each layer that are still to come, the last of them the one that is looked at.
        left = {layer: self.ascent.last_call(layer) + 1 for layer in self._wanted}
        cut = OUTPUT not in self.ascent.objective.layers()

        def tapping(name: str, layer: keras.Layer) -> Replacement:
            axes = self.ascent.listing[name].axes or ""

            def call(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
                if not left[name]:
                    return original(*args, **kwargs)
                left[name] -= 1
                last = cut and not any(left.values())
                output = None
                if name in self.sliced:
                    x = args[0] if args else kwargs["inputs"]
                    means = [_channel_means(self.ops, layer, x, index) for index in data["channels"][name]]
                    taps[name] = Tap(name, None, axes, means.__getitem__)
                    output = None if last else original(*args, **kwargs)
                elif name in self._of_heads:
                    taps[name] = _side_by_side(self.ops, name, args[0] if args else kwargs["inputs"])
                    output = None if last else original(*args, **kwargs)
                else:
                    output = original(*args, **kwargs)
                    taps[name] = Tap(name, output, axes, logits=logits.before(output))
                if last:
                    raise Stop
                return output

            return call

        scope = _holding(self._variables, data["weights"])
        axes, given = self.ascent.input.axes, self.ascent.input.channels_last
        if axes != given:
            inputs = self.ops.transpose(inputs, tuple(given.index(axis) for axis in axes))
        # Heads are looked at in what goes into the projection of the output.
        tapped = {name: x._output_dense if name in self._of_heads else x for name, x in self._wanted.items()}
        taped = [(tapped[name], tapping(name, layer)) for name, layer in self._wanted.items()]
        with (
            scope,
            computing(self._policies),
            remembered(self.ascent.objective.wants_logits) as logits,
            replaced([*self._quick, *taped]),
        ):
            try:
                # A copy: on an engine whose arrays can change in place, the next step must be given the same.
                others = [keras.ops.copy(x) for x in data["others"]]
                output = predict(self._model, self.ascent.call.having(inputs, others))
            except Stop:
                return taps
        self.outputs = _count_of_classes(output)
        taps[OUTPUT] = Tap(OUTPUT, output, "NC", logits=logits.before(output))
        return taps


def _own_variables(layer: keras.Layer) -> list[keras.Variable]:
    """The variables of a layer itself, without those of layers inside."""
    return [*layer._trainable_variables, *layer._non_trainable_variables]


def _holding(variables: Sequence[keras.Variable], values: Sequence[Array]) -> keras.StatelessScope:
    """A scope in which variables have these values."""
    scope = keras.StatelessScope()
    for variable, value in zip(variables, values, strict=True):
        # Not through the constructor, which would cast to the variable's own type.
        scope.state_mapping[id(variable)] = value
    return scope


def _side_by_side(ops: KerasOps, name: str, x: Array) -> Tap:
    """The tap of what goes into an attention's projection of the output, (N, places ..., heads, channels)."""
    shape = ops.shape(x)
    return Tap(name, ops.reshape(x, (shape[0], -1, shape[-2] * shape[-1])), "NLC")


def _count_of_classes(output: Any) -> int:
    """The number of classes of a model's output.

    Raises:
        InvalidInput: the output is not (batch, classes).
    """
    if hasattr(output, "shape") and len(output.shape) == 2:
        return int(output.shape[1])
    has_axes = hasattr(output, "shape")
    what = counted(len(output.shape), "axis", "axes") if has_axes else f"type {type(output).__name__}"
    raise InvalidInput(
        f"the model's output has {what}, not (batch, classes): give logit(..., layer=...) the layer of the logits"
    )


def _is_plain(layer: keras.Layer) -> bool:
    """Whether a layer is a convolution or a pooling of Keras' own, used as it is."""
    return (
        type(layer) in (kl.Conv2D, kl.DepthwiseConv2D, kl.MaxPooling2D)
        and "call" not in vars(layer)
        and layer.quantization_mode is None
        and not getattr(layer, "lora_enabled", False)
        and layer.padding in ("same", "valid")
    )


def _quick(layer: keras.Layer) -> Replacement | None:
    """What a plain layer does, by the engine's fastest means; None for another layer."""
    if not _is_plain(layer):
        return None
    engine = engines.current()

    def pool(original: Callable[..., Any], inputs: Array) -> Array:
        return _in_layout(layer, engine.max_pool(layer, _channels_last(layer, inputs)))

    def convolve(original: Callable[..., Any], inputs: Array) -> Array:
        bias = keras.ops.convert_to_tensor(layer.bias) if layer.use_bias else None
        kernel = keras.ops.convert_to_tensor(layer.kernel)
        y = _in_layout(layer, engine.convolution(layer, _channels_last(layer, inputs), kernel, bias))
        return y if layer.activation is None else layer.activation(y)

    return pool if isinstance(layer, kl.MaxPooling2D) else convolve


def _channels_last(layer: keras.Layer, x: Array) -> Array:
    return keras.ops.transpose(x, (0, 2, 3, 1)) if layer.data_format == "channels_first" else x


def _in_layout(layer: keras.Layer, y: Array) -> Array:
    return keras.ops.transpose(y, (0, 3, 1, 2)) if layer.data_format == "channels_first" else y


def _is_sliceable(layer: keras.Layer) -> bool:
    """Whether one channel of a layer's output is a convolution with one slice of its kernel, and an activation."""
    return type(layer) is kl.Conv2D and _is_plain(layer) and layer.groups == 1 and layer.activation in _ELEMENTWISE


def _channel_means(ops: KerasOps, layer: kl.Conv2D, x: Array, channels: Array) -> Array:
    """(rows,): the spatial mean of one channel an image of a sliceable layer's output.

    Args:
        x: the layer's input, rows = images * views.
        channels: (images,) which channel.
    """
    kernel = ops.take(keras.ops.convert_to_tensor(layer.kernel), channels, 3)
    bias = ops.take(keras.ops.convert_to_tensor(layer.bias), channels, 0) if layer.use_bias else None
    y = layer.activation(engines.current().convolution(layer, _channels_last(layer, x), kernel, bias))
    means = ops.mean(ops.cast(y, "float32"), (1, 2))
    # Every image's convolution with every image's kernel: what belongs together is on the diagonal.
    images = channels.shape[0]
    means = ops.reshape(means, (images, -1, images)) * ops.asarray(np.eye(images, dtype=np.float32)[:, None])
    return ops.reshape(ops.sum(means, 2), (-1,))


# Types ---------------------------------------------------------------------------------------------------------------
_OF_TRAINING = frozenset({"train_function", "test_function", "predict_function", "stop_training"})


def _settings(layer: keras.Layer) -> tuple[Any, ...]:
    """What a layer computes with besides its variables, as a key: its class, and plain values and functions in it."""
    own = {k: x for k, x in vars(layer).items() if k not in _OF_TRAINING}
    plain = tuple((k, repr(x)) for k, x in own.items() if isinstance(x, bool | int | float | str | tuple | None))
    calls = tuple((k, id(x)) for k, x in own.items() if callable(x) and not isinstance(x, keras.Layer))
    return type(layer), layer.compute_dtype, plain, calls
