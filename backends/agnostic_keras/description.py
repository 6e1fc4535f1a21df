"""What a Keras layer computes, framework-free. See :mod:`agnostic.description` for the conventions."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

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
    overridden = False
    cls: Any
    for cls in type(layer).__mro__:
        rule = _RULES.get(cls.__name__) if cls.__module__.startswith("keras.") else None
        rule = rule or _OTHERS.get(cls.__name__)
        if rule is not None:
            kind, config, weights = rule(layer)
            overridden = type(layer).call is not cls.call or "call" in vars(layer)
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
    if getattr(layer, "data_format", None) is not None:
        shared["data_format"] = layer.data_format
    if overridden:
        shared["overridden"] = True
    return LayerDescription(name, kind, {**shared, **config}, weights)


def _training(layer: keras.Layer) -> bool:
    """Whether the layer's place in a symbolic graph fixes ``training=True``; what a ``call`` says is not seen."""
    for node in getattr(layer, "_inbound_nodes", ()):
        arguments = node.arguments
        if arguments.kwargs.get("training") is True:
            return True
    return False


# Arrays and activations -----------------------------------------------------------------------------------------------
_ops = KerasOps()


def _numpy(variable: Any) -> Array:
    return _ops.numpy(variable.value if isinstance(variable, keras.Variable) else variable)


def _present(layer: Any, *names: str, **renamed: str) -> dict[str, Array]:
    attributes = {**{n: n for n in names}, **renamed}
    found = {ours: getattr(layer, theirs, None) for ours, theirs in attributes.items()}
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
    return tuple(x) if isinstance(x, list | tuple) else x


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


# Convolutions and dense layers ----------------------------------------------------------------------------------------
def _conv(layer: Any) -> Parts:
    padding: Any = layer.padding
    if padding == "causal":
        padding = tuple((d * (k - 1), 0) for k, d in zip(layer.kernel_size, layer.dilation_rate, strict=True))
    config = {
        "rank": layer.rank,
        "kernel_size": tuple(layer.kernel_size),
        "strides": tuple(layer.strides),
        "padding": padding,
        "padding_mode": "zeros",
        "dilation": tuple(layer.dilation_rate),
        **_named(layer.activation),
    }
    if hasattr(layer, "depth_multiplier"):
        if hasattr(layer, "pointwise_kernel"):
            config["filters"] = layer.filters
            weights = _present(layer, "depthwise_kernel", "pointwise_kernel", "bias")
            return "separable_conv", config, weights
        return "depthwise_conv", config, _present(layer, "bias", kernel="kernel")
    config["filters"] = layer.filters
    weights = _present(layer, "kernel", "bias")
    kernel = weights["kernel"]
    if kernel.shape[-2] == 1 and layer.groups > 1 and layer.filters % layer.groups == 0:
        # As many groups as inputs: (*size, 1, C * M) to (*size, C, M).
        weights["kernel"] = kernel.reshape(*kernel.shape[:-2], layer.groups, -1)
        return "depthwise_conv", config, weights
    return "conv", {**config, "groups": layer.groups}, weights


def _conv_transpose(layer: Any) -> Parts:
    extra = layer.output_padding
    rank = layer.rank
    extra = (None,) * rank if extra is None else (extra,) * rank if isinstance(extra, int) else tuple(extra)
    config = {
        "rank": rank,
        "filters": layer.filters,
        "kernel_size": tuple(layer.kernel_size),
        "strides": tuple(layer.strides),
        "dilation": tuple(layer.dilation_rate),
        "groups": 1,
        "padding": layer.padding,
        "crop": tuple(
            _crop((k - 1) * d + 1, s, layer.padding, o)
            for k, d, s, o in zip(layer.kernel_size, layer.dilation_rate, layer.strides, extra, strict=True)
        ),
        **_named(layer.activation),
    }
    return "conv_transpose", config, _present(layer, "kernel", "bias")


def _crop(size: int, stride: int, padding: str, extra: int | None) -> tuple[int, int]:
    """What Keras cuts from the full output of one axis, whose length is ``(n - 1) * stride + size``.

    Source: Keras 3, ``backend.common.backend_utils``, the conversion for JAX.
    """
    if padding == "valid":
        return 0, -(max(size, stride) - size if extra is None else extra)
    total = stride + size - 2 if extra is None else size + size % 2 - 2 + extra
    left = min(total // 2 + total % 2, size - 1)
    return size - 1 - left, size - 1 - (total - left)


def _dense(layer: Any) -> Parts:
    return "dense", _named(layer.activation), _present(layer, "kernel", "bias")


def _einsum_dense(layer: Any) -> Parts:
    config = {"equation": layer.equation, **_named(layer.activation)}
    return "einsum_dense", config, _present(layer, "kernel", "bias")


# Norms ----------------------------------------------------------------------------------------------------------------
def _batch_norm(layer: Any) -> Parts:
    config = {
        "axis": layer.axis,
        "epsilon": layer.epsilon,
        "momentum": layer.momentum,
        "unbiased": False,
        "training": _training(layer) and bool(layer.trainable),
    }
    return "batch_norm", config, _present(layer, "gamma", "beta", "moving_mean", "moving_variance")


def _layer_norm(layer: Any) -> Parts:
    axes = layer.axis if isinstance(layer.axis, list | tuple) else (layer.axis,)
    kind = "layer_norm"
    if getattr(layer, "rms_scaling", False):
        kind = "rms_norm"
    return kind, {"axes": tuple(axes), "epsilon": float(layer.epsilon)}, _present(layer, "gamma", "beta")


def _rms_norm(layer: Any) -> Parts:
    axes = layer.axis if isinstance(layer.axis, list | tuple) else (layer.axis,)
    return "rms_norm", {"axes": tuple(axes), "epsilon": float(layer.epsilon)}, _present(layer, "scale")


def _group_norm(layer: Any) -> Parts:
    weights = _present(layer, "gamma", "beta")
    groups = layer.groups
    if groups == -1:  # as many groups as channels
        groups = next(iter(weights.values())).shape[-1] if weights else -1
    return "group_norm", {"groups": groups, "epsilon": float(layer.epsilon), "axis": layer.axis}, weights


def _unit_norm(layer: Any) -> Parts:
    return "unit_norm", {"axes": tuple(layer.axis if isinstance(layer.axis, list | tuple) else (layer.axis,))}, {}


def _normalization(layer: Any) -> Parts:
    weights = {"mean": _numpy(layer.mean).ravel(), "variance": _numpy(layer.variance).ravel()}
    return "normalization", {"invert": bool(layer.invert)}, weights


def _rescaling(layer: Any) -> Parts:
    return "rescaling", {"factor": _listed(layer.scale), "offset": _listed(layer.offset)}, {}


def _listed(x: Any) -> Any:
    values = np.asarray(x, np.float64)
    return float(values) if values.ndim == 0 else tuple(values.ravel().tolist())


# Pools ----------------------------------------------------------------------------------------------------------------
def _pool(kind: str) -> Callable[[Any], Parts]:
    def rule(layer: Any) -> Parts:
        rank = len(layer.pool_size) if isinstance(layer.pool_size, list | tuple) else 1
        config = {
            "rank": rank,
            "pool_size": _tuple(layer.pool_size, rank),
            "strides": _tuple(layer.strides, rank),
            "padding": layer.padding,
            "ceil_mode": False,
        }
        if kind == "average_pool":
            # "same" leaves the padding out of the mean.
            config |= {"count_include_pad": False, "divisor": None}
            if keras.config.backend() == "torch":
                # Where SAME pads the two ends unequally, this engine repeats the edge, and the others leave it out.
                config["uneven"] = "replicate"
        return kind, config, {}

    return rule


def _tuple(value: Any, rank: int) -> tuple[int, ...]:
    return tuple(int(x) for x in value) if isinstance(value, tuple | list) else (int(value),) * rank


def _global_pool(mode: str) -> Callable[[Any], Parts]:
    def rule(layer: Any) -> Parts:
        return f"global_{mode}_pool", {"rank": layer.input_spec.ndim - 2, "keepdims": bool(layer.keepdims)}, {}

    return rule


def _adaptive_pool(mode: str) -> Callable[[Any], Parts]:
    def rule(layer: Any) -> Parts:
        rank = layer.input_spec.ndim - 2 if layer.input_spec is not None else len(layer.output_size)
        return "adaptive_pool", {"rank": rank, "output_size": _tuple(layer.output_size, rank), "mode": mode}, {}

    return rule


# Shapes ---------------------------------------------------------------------------------------------------------------
def _flatten(layer: Any) -> Parts:
    # With channels first Keras puts the channels last before it flattens.
    return "flatten", {"start": 1, "end": -1, "order": "channels_last"}, {}


def _reshape(layer: Any) -> Parts:
    return "reshape", {"shape": tuple(layer.target_shape)}, {}


def _pairs(value: Any) -> tuple[tuple[int, int], ...]:
    if isinstance(value[0], int):
        return ((value[0], value[1]),)
    return tuple((int(a), int(b)) for a, b in value)


def _padding(layer: Any) -> Parts:
    return "padding", {"padding": _pairs(layer.padding), "mode": "constant", "value": 0.0}, {}


def _crop_layer(layer: Any) -> Parts:
    return "crop", {"padding": _pairs(layer.cropping)}, {}


def _convention(layer: Any) -> dict[str, Any]:
    """How the engine resizes. Without antialiasing, PyTorch's cubic is another one than TensorFlow's and JAX's."""
    antialias = bool(getattr(layer, "antialias", False))
    torch = keras.config.backend() == "torch" and not antialias
    return {
        "interpolation": getattr(layer, "interpolation", "nearest"),
        "align_corners": False,
        "half_pixel": True,
        "antialias": antialias,
        "cubic": -0.75 if torch else -0.5,
        "edges": "clamp" if torch else "renormalize",
    }


def _upsampling(layer: Any) -> Parts:
    config = {
        **_convention(layer),
        "size": None,
        "scale": tuple(layer.size) if isinstance(layer.size, tuple | list) else (layer.size,),
    }
    return "resize", config, {}


def _resizing(layer: Any) -> Parts:
    config = {
        **_convention(layer),
        "size": (layer.height, layer.width),
        "scale": None,
        "crop_to_aspect_ratio": bool(layer.crop_to_aspect_ratio),
        "pad_to_aspect_ratio": bool(layer.pad_to_aspect_ratio),
    }
    return "resize", config, {}


# Sequences ------------------------------------------------------------------------------------------------------------
def _embedding(layer: Any) -> Parts:
    return "embedding", {"padding_index": None}, _present(layer, "embeddings")


def _recurrent(kind: str) -> Callable[[Any], Parts]:
    def rule(layer: Any) -> Parts:
        config: dict[str, Any] = {
            "units": layer.units,
            "layers": 1,
            "bidirectional": False,
            "return_sequences": bool(layer.return_sequences),
            "return_state": bool(layer.return_state),
            "go_backwards": bool(layer.go_backwards),
            "activation": _named(layer.activation)["activation"],
            "recurrent_activation": "sigmoid",
            "reset_after": bool(getattr(layer, "reset_after", True)),
            "gates": {"lstm": "ifco", "gru": "zrh", "rnn": "h"}[kind],
            "rate": float(layer.dropout),
            "recurrent_rate": float(layer.recurrent_dropout),
            "batch_first": True,
        }
        if hasattr(layer, "recurrent_activation"):
            config["recurrent_activation"] = _named(layer.recurrent_activation)["activation"]
        return kind, config, _present(layer.cell, "kernel", "recurrent_kernel", "bias")

    return rule


def _bidirectional(layer: Any) -> Parts:
    names = {"LSTM": "lstm", "GRU": "gru", "SimpleRNN": "rnn"}
    inner = type(layer.forward_layer).__name__
    if inner not in names:
        return "block", {}, {}
    kind, config, weights = _recurrent(names[inner])(layer.forward_layer)
    backward = _recurrent(names[inner])(layer.backward_layer)[2]
    config |= {"bidirectional": True, "merge": layer.merge_mode}
    return kind, config, weights | {f"backward.{k}": x for k, x in backward.items()}


def _attention(layer: Any) -> Parts:
    config = {
        "heads": layer._num_heads,
        "key_dim": layer._key_dim,
        "scale": float(layer._inverse_sqrt_key_dim),
        "rate": float(layer._dropout),
        "batch_first": True,
    }
    weights: dict[str, Array] = {}
    for name, dense in zip(
        ("query", "key", "value", "output"),
        (layer._query_dense, layer._key_dense, layer._value_dense, layer._output_dense),
        strict=True,
    ):
        weights |= {f"{name}_{k}": x for k, x in _present(dense, "kernel", "bias").items()}
    return "attention", config, weights


def _constant(kind: str, **config: Any) -> Callable[[Any], Parts]:
    return lambda layer: (kind, dict(config), {})


def _dropout(kind: str = "dropout") -> Callable[[Any], Parts]:
    def rule(layer: Any) -> Parts:
        rate = getattr(layer, "rate", getattr(layer, "stddev", getattr(layer, "drop_path_rate", 0.0)))
        return kind, {"rate": float(rate), "spatial": type(layer).__name__.startswith("Spatial")}, {}

    return rule


_RULES: Mapping[str, Callable[[Any], Parts]] = {
    **{f"{kind}Conv{n}D": _conv for kind in ("", "Depthwise", "Separable") for n in (1, 2, 3)},
    **{f"Conv{n}DTranspose": _conv_transpose for n in (1, 2, 3)},
    "Dense": _dense,
    "EinsumDense": _einsum_dense,
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm,
    "RMSNormalization": _rms_norm,
    "GroupNormalization": _group_norm,
    "UnitNormalization": _unit_norm,
    "Normalization": _normalization,
    "Rescaling": _rescaling,
    "Activation": lambda layer: ("activation", _named(layer.activation), {}),
    "ReLU": _relu,
    "LeakyReLU": _activation("leaky_relu", negative_slope="negative_slope"),
    "ELU": _activation("elu", alpha="alpha"),
    "PReLU": lambda layer: ("activation", {"activation": "prelu", "activation_options": {}}, _present(layer, "alpha")),
    "Softmax": _activation("softmax", axis="axis"),
    "Identity": _constant("activation", activation="linear", activation_options={}),
    **{f"MaxPooling{n}D": _pool("max_pool") for n in (1, 2, 3)},
    **{f"AveragePooling{n}D": _pool("average_pool") for n in (1, 2, 3)},
    **{f"GlobalAveragePooling{n}D": _global_pool("average") for n in (1, 2, 3)},
    **{f"GlobalMaxPooling{n}D": _global_pool("max") for n in (1, 2, 3)},
    **{f"AdaptiveAveragePooling{n}D": _adaptive_pool("average") for n in (1, 2, 3)},
    **{f"AdaptiveMaxPooling{n}D": _adaptive_pool("max") for n in (1, 2, 3)},
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Permute": lambda layer: ("permute", {"dims": tuple(layer.dims)}, {}),
    "RepeatVector": lambda layer: ("repeat", {"count": layer.n}, {}),
    **{f"ZeroPadding{n}D": _padding for n in (1, 2, 3)},
    **{f"Cropping{n}D": _crop_layer for n in (1, 2, 3)},
    **{f"UpSampling{n}D": _upsampling for n in (1, 2, 3)},
    "Resizing": _resizing,
    **{name: _dropout() for name in ("Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D")},
    **{name: _dropout("noise") for name in ("GaussianDropout", "GaussianNoise", "AlphaDropout")},
    "Embedding": _embedding,
    "LSTM": _recurrent("lstm"),
    "GRU": _recurrent("gru"),
    "SimpleRNN": _recurrent("rnn"),
    "Bidirectional": _bidirectional,
    "MultiHeadAttention": _attention,
    **{n: _constant(n.lower()) for n in ("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum")},
    "Concatenate": lambda layer: ("concatenate", {"axis": layer.axis}, {}),
}
"""By the class's name, of Keras' own classes."""

_OTHERS: Mapping[str, Callable[[Any], Parts]] = {
    # Those of keras.applications' ConvNeXt.
    "LayerScale": lambda layer: ("scale", {}, _present(layer, gamma="gamma")),
    "StochasticDepth": _dropout("stochastic_depth"),
}
"""By the class's name, of classes that are no public part of Keras."""
