"""Code that fixes what a comparison found; see :mod:`agnostic.contracts.fixes`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_ATTRIBUTES: Mapping[str, Mapping[str, str]] = {
    "batch_norm": {"epsilon": "epsilon"},
    "layer_norm": {"epsilon": "epsilon"},
    "rms_norm": {"epsilon": "epsilon"},
    "group_norm": {"epsilon": "epsilon", "groups": "groups"},
    "leaky_relu": {"negative_slope": "negative_slope"},
    "elu": {"alpha": "alpha"},
    "softmax": {"axis": "axis"},
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
