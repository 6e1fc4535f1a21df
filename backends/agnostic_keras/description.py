"""What a Keras layer computes, framework-free. See :mod:`agnostic.description` for the conventions."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from agnostic.description import Array, LayerDescription
from agnostic.errors import UnknownName, nearest
from agnostic.reference.activations import FUNCTIONS, name_of
from agnostic.text import counted
from agnostic_keras.layers import named_layers
from agnostic_keras.ops import KerasOps

Parts = tuple[str, dict[str, Any], dict[str, Array]]
"""Kind, config, weights."""


def describe(model: keras.Layer, names: Sequence[str] | None = None) -> list[LayerDescription]:
    """See :meth:`agnostic.contracts.description.Descriptions.describe`."""
    known = named_layers(model)
    found = []
    for name in known if names is None else names:
        if name not in known:
            raise UnknownName(
                f"no layer {name!r} in {model.name} ({counted(len(known), 'layer')}){nearest(name, known)}"
            )
        found.append(_describe(name, known[name]))
    return found


def _describe(name: str, layer: keras.Layer) -> LayerDescription:
    kind: str = "other"
    config: dict[str, Any] = {}
    weights: dict[str, Array] = {}
    for cls in type(layer).__mro__:
        rule = _RULES.get(cls.__name__) if cls.__module__.startswith("keras.") else None
        rule = rule or _OTHERS.get(cls.__name__)
        if rule is not None:
            kind, config, weights = rule(layer)
            break
    else:
        if layer._flatten_layers(False, False):
            kind = "block"
        weights = {v.name: _numpy(v) for v in (*layer._trainable_variables, *layer._non_trainable_variables)}
    shared: dict[str, Any] = {
        "class": type(layer).__name__,
        "framework": "keras",
        "dtype": keras.backend.standardize_dtype(layer.compute_dtype),
        "training": _training(layer),
    }
    return LayerDescription(name, kind, {**shared, **config}, weights)


def _training(layer: keras.Layer) -> bool:
    """Whether the layer's place in a symbolic graph fixes ``training=True``; what a ``call`` says is not seen."""
    nodes = getattr(layer, "_inbound_nodes", ())
    if not any(node.arguments.kwargs.get("training") is True for node in nodes):
        return False
    # Layers that prepare images have True as their default, which is in the graph, and no choice of the user's.
    default = inspect.signature(layer.call).parameters.get("training")
    return default is None or default.default is not True


# Arrays and activations -----------------------------------------------------------------------------------------------
_ops = KerasOps()


def _numpy(variable: Any) -> Array:
    return _ops.numpy(variable.value if isinstance(variable, keras.Variable) else variable)


def _present(layer: Any, *names: str) -> dict[str, Array]:
    found = {name: getattr(layer, name, None) for name in names}
    return {name: _numpy(x) for name, x in found.items() if x is not None}


_DEFAULTS: Mapping[str, Mapping[str, Any]] = {"leaky_relu": {"negative_slope": 0.2}}
"""Of functions whose defaults are not those of our table."""


def _named(function: Any) -> dict[str, Any]:
    """The ``activation`` and ``activation_options`` of what a layer holds as its activation."""
    if function is None:
        return {"activation": "linear", "activation_options": {}}
    if isinstance(function, keras.Layer):
        kind, config, weights = next(
            (_RULES[c.__name__](function) for c in type(function).__mro__ if c.__name__ in _RULES), ("other", {}, {})
        )
        if kind == "activation" and not weights:
            return {key: config[key] for key in ("activation", "activation_options")}
    name = getattr(function, "__name__", type(function).__name__)
    if getattr(keras.activations, name, None) is function and name in FUNCTIONS:
        return {"activation": name, "activation_options": dict(_DEFAULTS.get(name, {}))}

    # keras.ops.gelu is the approximate one, and a lambda has no name at all: what it computes tells.
    @functools.wraps(function)
    def evaluated(x: Array) -> Array:
        return _ops.numpy(function(keras.ops.convert_to_tensor(x)))

    found = name_of(evaluated)
    if found is None:
        return {"activation": "other", "activation_options": {}, "activation_name": name}
    return {"activation": found[0], "activation_options": found[1]}


def _activation(name: str, **options: str) -> Callable[[Any], Parts]:
    def rule(layer: Any) -> Parts:
        values = {ours: _number(getattr(layer, theirs)) for ours, theirs in options.items()}
        return "activation", {"activation": name, "activation_options": values}, {}

    return rule


def _number(x: Any) -> Any:
    if hasattr(x, "shape"):
        return float(_ops.numpy(x))
    return x


def _relu(layer: Any) -> Parts:
    options = {
        "max_value": _number(layer.max_value),
        "negative_slope": _number(layer.negative_slope),
        "threshold": _number(layer.threshold),
    }
    if options["negative_slope"] == 0.0 and options["threshold"] == 0.0 and options["max_value"] in (None, 6.0):
        name = "relu" if options["max_value"] is None else "relu6"
        return "activation", {"activation": name, "activation_options": {}}, {}
    return "activation", {"activation": "relu", "activation_options": options}, {}


# Layers ---------------------------------------------------------------------------------------------------------------
def _weighted(kind: str, *names: str) -> Callable[[Any], Parts]:
    return lambda layer: (kind, {}, _present(layer, *names))


def _plain(kind: str) -> Callable[[Any], Parts]:
    return lambda layer: (kind, {}, {})


def _conv(layer: Any) -> Parts:
    padding: Any = layer.padding
    if padding == "causal":
        padding = tuple((d * (k - 1), 0) for k, d in zip(layer.kernel_size, layer.dilation_rate, strict=True))
    config = {"strides": tuple(layer.strides), "padding": padding}
    if hasattr(layer, "pointwise_kernel"):
        return "separable_conv", config, _present(layer, "depthwise_kernel", "pointwise_kernel", "bias")
    weights = _present(layer, "kernel", "bias")
    if hasattr(layer, "depth_multiplier"):
        return "depthwise_conv", config, weights
    kernel = weights["kernel"]
    if kernel.shape[-2] == 1 and layer.groups > 1 and layer.filters % layer.groups == 0:
        # As many groups as inputs: (*size, 1, C * M) to (*size, C, M).
        weights["kernel"] = kernel.reshape(*kernel.shape[:-2], layer.groups, -1)
        return "depthwise_conv", config, weights
    return "conv", config, weights


def _conv_transpose(layer: Any) -> Parts:
    config = {"strides": tuple(layer.strides), "padding": layer.padding}
    return "conv_transpose", config, _present(layer, "kernel", "bias")


def _batch_norm(layer: Any) -> Parts:
    config = {"epsilon": layer.epsilon, "momentum": layer.momentum}
    return "batch_norm", config, _present(layer, "gamma", "beta", "moving_mean", "moving_variance")


def _norm(kind: str, *names: str) -> Callable[[Any], Parts]:
    return lambda layer: (kind, {"epsilon": float(layer.epsilon)}, _present(layer, *names))


def _layer_norm(layer: Any) -> Parts:
    return _norm("rms_norm" if getattr(layer, "rms_scaling", False) else "layer_norm", "gamma", "beta")(layer)


def _normalization(layer: Any) -> Parts:
    return "normalization", {}, {"mean": _numpy(layer.mean).ravel(), "variance": _numpy(layer.variance).ravel()}


def _prelu(layer: Any) -> Parts:
    kind, config, _ = _activation("prelu")(layer)
    return kind, config, _present(layer, "alpha")


def _pool(kind: str) -> Callable[[Any], Parts]:
    return lambda layer: (kind, {"strides": _tuple(layer.strides), "padding": layer.padding}, {})


def _tuple(value: Any) -> tuple[int, ...]:
    return tuple(int(x) for x in value) if isinstance(value, tuple | list) else (int(value),)


def _recurrent(kind: str) -> Callable[[Any], Parts]:
    return lambda layer: (kind, {}, _present(layer.cell, "kernel", "recurrent_kernel", "bias"))


def _bidirectional(layer: Any) -> Parts:
    kind, _, weights = _RULES.get(type(layer.forward_layer).__name__, _plain("block"))(layer.forward_layer)
    if kind not in ("lstm", "gru", "rnn"):
        return "block", {}, {}
    backward = _recurrent(kind)(layer.backward_layer)[2]
    return kind, {}, weights | {f"backward.{k}": x for k, x in backward.items()}


def _attention(layer: Any) -> Parts:
    weights: dict[str, Array] = {}
    for name in ("query", "key", "value", "output"):
        weights |= {f"{name}_{k}": x for k, x in _present(getattr(layer, f"_{name}_dense"), "kernel", "bias").items()}
    return "attention", {}, weights


_RULES: Mapping[str, Callable[[Any], Parts]] = {
    **{f"{kind}Conv{n}D": _conv for kind in ("", "Depthwise", "Separable") for n in (1, 2, 3)},
    **{f"Conv{n}DTranspose": _conv_transpose for n in (1, 2, 3)},
    "Dense": _weighted("dense", "kernel", "bias"),
    "EinsumDense": _weighted("einsum_dense", "kernel", "bias"),
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm,
    "RMSNormalization": _norm("rms_norm", "scale"),
    "GroupNormalization": _norm("group_norm", "gamma", "beta"),
    "UnitNormalization": _plain("unit_norm"),
    "Normalization": _normalization,
    "Rescaling": _plain("rescaling"),
    "Activation": lambda layer: ("activation", _named(layer.activation), {}),
    "ReLU": _relu,
    "LeakyReLU": _activation("leaky_relu", negative_slope="negative_slope"),
    "ELU": _activation("elu", alpha="alpha"),
    "PReLU": _prelu,
    "Softmax": _activation("softmax"),
    "Identity": _activation("linear"),
    **{f"MaxPooling{n}D": _pool("max_pool") for n in (1, 2, 3)},
    **{f"AveragePooling{n}D": _pool("average_pool") for n in (1, 2, 3)},
    **{f"GlobalAveragePooling{n}D": _plain("global_average_pool") for n in (1, 2, 3)},
    **{f"GlobalMaxPooling{n}D": _plain("global_max_pool") for n in (1, 2, 3)},
    **{f"AdaptiveAveragePooling{n}D": _plain("adaptive_pool") for n in (1, 2, 3)},
    **{f"AdaptiveMaxPooling{n}D": _plain("adaptive_pool") for n in (1, 2, 3)},
    "Flatten": _plain("flatten"),
    "Reshape": _plain("reshape"),
    "Permute": _plain("permute"),
    "RepeatVector": _plain("repeat"),
    **{f"ZeroPadding{n}D": _plain("padding") for n in (1, 2, 3)},
    **{f"Cropping{n}D": _plain("crop") for n in (1, 2, 3)},
    **{f"UpSampling{n}D": _plain("resize") for n in (1, 2, 3)},
    "Resizing": _plain("resize"),
    **{name: _plain("dropout") for name in ("Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D")},
    **{name: _plain("noise") for name in ("GaussianDropout", "GaussianNoise", "AlphaDropout")},
    "Embedding": _weighted("embedding", "embeddings"),
    "LSTM": _recurrent("lstm"),
    "GRU": _recurrent("gru"),
    "SimpleRNN": _recurrent("rnn"),
    "Bidirectional": _bidirectional,
    "MultiHeadAttention": _attention,
    **{n: _plain(n.lower()) for n in ("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Concatenate")},
}
"""By the class's name, of Keras' own classes."""

_OTHERS: Mapping[str, Callable[[Any], Parts]] = {
    # Those of keras.applications' ConvNeXt.
    "LayerScale": _weighted("scale", "gamma"),
    "StochasticDepth": _plain("stochastic_depth"),
}
"""By the class's name, of classes that are no public part of Keras."""
