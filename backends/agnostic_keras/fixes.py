"""Code that fixes what a comparison found; see :mod:`agnostic.contracts.fixes`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agnostic.contracts.fixes import SourceForm

_ATTRIBUTES: Mapping[str, Mapping[str, str]] = {
    "batch_norm": {"epsilon": "epsilon"},
    "layer_norm": {"epsilon": "epsilon"},
    "rms_norm": {"epsilon": "epsilon"},
    "group_norm": {"epsilon": "epsilon", "groups": "groups"},
    "leaky_relu": {"negative_slope": "negative_slope"},
    "elu": {"alpha": "alpha"},
    "convolution": {"stride": "strides", "dilation": "dilation_rate", "groups": "groups"},
    "max_pool": {"kernel": "pool_size", "stride": "strides"},
    "average_pool": {"kernel": "pool_size", "stride": "strides"},
}
"""What layers call the attributes of their operators, by operator; of those that a layer looks up when it is called."""

_ACTIVATING = frozenset({
    "Dense", "EinsumDense", "Activation", "Conv1D", "Conv2D", "Conv3D", "DepthwiseConv1D", "DepthwiseConv2D",
    "SeparableConv1D", "SeparableConv2D", "Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose",
})  # fmt: skip
"""Layers that apply their ``activation`` last."""

_OWN = {"leaky_relu": ("LeakyReLU",), "elu": ("ELU",), "softmax": ("Softmax",)}
"""Operators whose settings only these layers have as attributes; in others they are those of a function."""

_FUNCTIONS: Mapping[str, str] = {
    "gelu_tanh": "lambda x: keras.activations.gelu(x, approximate=True)",
    "exp": "keras.activations.exponential",
} | {
    name: f"keras.activations.{name}"
    for name in (
        "relu",
        "gelu",
        "silu",
        "sigmoid",
        "tanh",
        "elu",
        "selu",
        "celu",
        "softplus",
        "softsign",
        "relu6",
        "mish",
        "hard_silu",
        "hard_sigmoid",
        "log_sigmoid",
        "exponential",
        "softmax",
        "log_softmax",
        "linear",
        "squareplus",
        "soft_shrink",
        "hard_shrink",
        "tanh_shrink",
        "hard_tanh",
    )
}


def setting(layer: str, kind: str, operator: str, name: str, value: Any, *, line: bool = False) -> str | None:
    """See :meth:`agnostic.contracts.fixes.Fixes.setting`."""
    if operator == "gelu" and name == "approximate":
        operator, value = "activation", "gelu_tanh" if value == "tanh" else "gelu"
    if operator == "activation":
        found = _FUNCTIONS.get(value) if kind in _ACTIVATING else None
        return None if found is None else f"import keras; {_layer(layer)}.activation = {found}"
    attribute = _ATTRIBUTES.get(operator, {}).get(name)
    if attribute is None or kind not in _OWN.get(operator, (kind,)):
        return None
    return f"{_layer(layer)}.{attribute} = {value!r}"


def _layer(name: str, model: str = "model") -> str:
    """The layer of a name: models find theirs by name, and other layers hold theirs in a list."""
    first, *inner = name.split(".")
    found = f"{model}.get_layer({first!r})"
    for one in inner:
        found = f"next(x for x in {found}._flatten_layers(include_self=False) if x.name == {one!r})"
    return found


def weight(role: str, name: str, undo: str) -> str | None:
    """See :meth:`agnostic.contracts.fixes.Fixes.weight`."""
    return None


def copied(to: tuple[str, str], source: tuple[str, str]) -> str | None:
    """See :meth:`agnostic.contracts.fixes.Fixes.copied`."""
    return None


def reading(model: str, role: str, name: str) -> str | None:
    """See :meth:`agnostic.contracts.fixes.Fixes.reading`."""
    variable = _variable(name, model)
    return None if variable is None else f"keras.ops.convert_to_numpy({variable})"


def writing(role: str, name: str, array: str) -> str | None:
    """See :meth:`agnostic.contracts.fixes.Fixes.writing`."""
    variable = _variable(name, "model")
    return None if variable is None else f"{variable}.assign({array})"


def _variable(name: str, model: str) -> str | None:
    """A weight; a number behind its name tells apart what has one name, which no look-up does."""
    if "#" in name:
        return None
    layer, _, own = name.rpartition(".")
    owner = _layer(layer, model) if layer else model
    return f"next(v for v in {owner}.variables if v.name == {own!r})"


def settings(layer: str, source: str) -> str | None:
    """See :meth:`agnostic.contracts.fixes.Fixes.settings`."""
    return None


def layer(name: str, source: str | None) -> str | None:
    """See :meth:`agnostic.contracts.fixes.Fixes.layer`."""
    return None


# Source ---------------------------------------------------------------------------------------------------------------
_SPELLED: Mapping[str, SourceForm] = {
    "convolution": SourceForm("Conv|DepthwiseConv|SeparableConv", "conv|depthwise_conv|separable_conv"),
    "transposed_convolution": SourceForm("Conv1DTranspose|Conv2DTranspose|Conv3DTranspose", "conv_transpose"),
    "linear": SourceForm("Dense|EinsumDense", "matmul|dot", "@"),
    "matmul": SourceForm("", "matmul|dot", "@"),
    "batch_norm": SourceForm("BatchNormalization"),
    "layer_norm": SourceForm("LayerNormalization"),
    "group_norm": SourceForm("GroupNormalization"),
    "embedding": SourceForm("Embedding"),
    "max_pool": SourceForm("MaxPooling|MaxPool", "max_pool"),
    "average_pool": SourceForm("AveragePooling|AvgPool", "average_pool"),
    "max": SourceForm("GlobalMaxPooling|GlobalMaxPool", "max|amax"),
    "mean": SourceForm("GlobalAveragePooling|GlobalAvgPool", "mean|average"),
    "add": SourceForm("Add", "add", "+ -"),
    "subtract": SourceForm("Subtract", "subtract", "-"),
    "multiply": SourceForm("Multiply", "multiply", "* /"),
    "divide": SourceForm("", "divide|true_divide", "/"),
    "power": SourceForm("", "power", "**"),
    "maximum": SourceForm("Maximum", "maximum"),
    "minimum": SourceForm("Minimum", "minimum"),
    "concatenate": SourceForm("Concatenate", "concatenate"),
    "softmax": SourceForm("Softmax", "softmax", text="softmax"),
    "permute": SourceForm("Permute", "transpose"),
    "pad": SourceForm("ZeroPadding", "pad", text="constant"),
    "resize_bilinear": SourceForm(text="bilinear"),
    "resize_nearest": SourceForm("UpSampling", text="nearest"),
    "resize_bicubic": SourceForm(text="bicubic"),
    **{f"pad_{mode}": SourceForm("", "pad", text=mode) for mode in ("reflect", "symmetric")},
    **{x: SourceForm("", x) for x in ("sum", "min", "prod", "stack", "log_softmax", "where")},
    **{x: SourceForm("", x, unary=True) for x in ("exp", "log", "log1p", "sqrt", "abs", "sin", "cos", "square")},
    **{
        name: SourceForm(f"Activation('{name}')", name, text=name, unary=True)
        for name in ("silu", "sigmoid", "tanh", "selu", "celu", "softplus", "softsign", "relu6", "mish", "hard_silu",
                     "hard_sigmoid", "log_sigmoid")
    },
    "silu": SourceForm("Activation('silu')", "silu|swish", text="silu", unary=True),
    "hard_silu": SourceForm("Activation('hard_silu')", "hard_silu|hard_swish", text="hard_silu", unary=True),
    "relu": SourceForm("ReLU", "relu", text="relu", unary=True),
    "gelu": SourceForm("Activation('gelu')", "gelu(approximate=False)", text="gelu", unary=True),
    "gelu_tanh": SourceForm("", "gelu(approximate=True)", unary=True),
    "leaky_relu": SourceForm("LeakyReLU", "leaky_relu", text="leaky_relu"),
    "elu": SourceForm("ELU", "elu", text="elu", unary=True),
}  # fmt: skip

_PARAMETERS: Mapping[str, tuple[str, ...]] = {
    **{f"Conv{k}D": ("filters", "kernel_size", "strides", "padding") for k in (1, 2, 3)},
    **{f"DepthwiseConv{k}D": ("kernel_size", "strides", "padding") for k in (1, 2)},
    **{f"{name}{k}D": ("pool_size", "strides", "padding")
       for name in ("MaxPooling", "AveragePooling", "MaxPool", "AvgPool") for k in (1, 2, 3)},
    **{f"{name}{k}D{more}": ("filters", "kernel_size", "strides", "padding")
       for name, more in (("SeparableConv", ""), ("Conv", "Transpose")) for k in (1, 2, 3)},
    **dict.fromkeys(("softmax", "log_softmax", "mean", "max", "min", "sum", "prod", "amax"), ("x", "axis")),
    **dict.fromkeys(("Softmax", "Concatenate"), ("axis",)),
    **dict.fromkeys(("LayerNormalization", "RMSNormalization"), ("axis", "epsilon")),
    "BatchNormalization": ("axis", "momentum", "epsilon"),
    "GroupNormalization": ("groups", "axis", "epsilon"),
    "LeakyReLU": ("negative_slope",),
    "ELU": ("alpha",),
    "leaky_relu": ("x", "negative_slope"),
    "elu": ("x", "alpha"),
    "Dense": ("units", "activation"),
    "Activation": ("activation",),
    "concatenate": ("xs", "axis"),
    "stack": ("x", "axis"),
    "pad": ("x", "pad_width", "mode", "constant_values"),
    "max_pool": ("inputs", "pool_size", "strides", "padding"),
    "average_pool": ("inputs", "pool_size", "strides", "padding"),
    "UpSampling2D": ("size", "data_format", "interpolation"),
    "Resizing": ("height", "width", "interpolation"),
}  # fmt: skip

_KEYWORDS: Mapping[str, Mapping[str, str]] = {
    "pad": {"value": "constant_values", "text": "mode"},
    "concatenate": {"axis": "axis"},
    "stack": {"axis": "axis"},
    **{name: {"axis": "axis"} for name in ("softmax", "log_softmax")},
    **{name: {"axes": "axis"} for name in ("mean", "max", "min", "sum", "prod")},
}


def spelled(kind: str) -> SourceForm:
    """See :meth:`agnostic.contracts.fixes.Fixes.spelled`."""
    return _SPELLED.get(kind, SourceForm())


def packages() -> tuple[str, ...]:
    """See :meth:`agnostic.contracts.fixes.Fixes.packages`."""
    return "keras.ops", "keras.src.ops"


def parameters(name: str) -> tuple[str, ...]:
    """See :meth:`agnostic.contracts.fixes.Fixes.parameters`."""
    return _PARAMETERS.get(name, ())


def keyword(kind: str, name: str) -> str | None:
    """See :meth:`agnostic.contracts.fixes.Fixes.keyword`."""
    if name == "text":
        family, _, _ = kind.partition("_")
        return {"pad": "mode", "resize": "interpolation"}.get(family, "activation")
    return {**_ATTRIBUTES.get(kind, {}), **_KEYWORDS.get(kind, {})}.get(name)


def padding(
    name: str, kernel: Sequence[int], attributes: Mapping[str, Any], pairs: Sequence[tuple[int, int]]
) -> str | None:
    """See :meth:`agnostic.contracts.fixes.Fixes.padding`."""
    strides = attributes["stride"]
    if not any(map(any, pairs)):
        return "valid"
    dilation = attributes.get("dilation") or (1,) * len(kernel)
    spans = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    if name == "Conv1D" and tuple(pairs) == ((spans[0], 0),):
        return "causal"
    same = tuple((n // 2, n - n // 2) for n in spans)
    return "same" if all(n == 1 for n in strides) and tuple(map(tuple, pairs)) == same else None
