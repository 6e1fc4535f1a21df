"""What a torch module computes, framework-free. See :mod:`agnostic.description` for the conventions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from agnostic.description import Array, LayerDescription
from agnostic.errors import InvalidWeights, UnknownName, nearest
from agnostic.text import counted
from agnostic.transfer.layouts import to_canonical
from agnostic_torch.layers import check_initialized, named_layers, unwrap
from agnostic_torch.transfer import computed, inference

Parts = tuple[str, dict[str, Any], dict[str, Array]]
"""Kind, config, weights."""


def describe(model: nn.Module, names: Sequence[str] | None = None) -> list[LayerDescription]:
    """See :meth:`agnostic.contracts.description.Descriptions.describe`."""
    model = unwrap(model)
    check_initialized(model)
    known = named_layers(model)
    found = []
    for name in known if names is None else names:
        if name not in known:
            raise UnknownName(
                f"no layer {name!r} in {type(model).__name__} ({counted(len(known), 'layer')}){nearest(name, known)}"
            )
        found.append(_describe(name, known[name]))
    return found


def _describe(name: str, module: nn.Module) -> LayerDescription:
    kind: str = "other"
    config: dict[str, Any] = {}
    weights: dict[str, Array] = {}
    for cls in type(module).__mro__:
        rule = _RULES.get(f"{cls.__module__}.{cls.__qualname__}") or _RULES.get(cls.__name__)
        if rule is None:
            continue
        try:
            kind, config, weights = rule(module)
        except InvalidWeights:  # a subclass with weights of its own computes something else with them
            weights = _arrays(module)
        break
    else:
        if next(module.children(), None) is not None:
            kind = "block"
        weights = {n: _numpy(p) for n, p in module.named_parameters(recurse=False)}
    first = next((p for p in module.parameters() if p.is_floating_point()), None)
    shared: dict[str, Any] = {"class": type(module).__name__, "framework": "torch", "training": module.training}
    if first is not None:
        shared["dtype"] = str(first.dtype).removeprefix("torch.")
    return LayerDescription(name, kind, {**shared, **config}, weights)


# Arrays ---------------------------------------------------------------------------------------------------------------
def _numpy(x: Tensor) -> Array:
    x = x.detach()
    if x.is_floating_point() and (x.dtype == torch.bfloat16 or x.dtype.itemsize < 2):
        x = x.float()
    return x.cpu().numpy()


def _arrays(module: nn.Module) -> dict[str, Array]:
    """The module's own parameters and buffers, by PyTorch's names; a weight that it computes is its result."""
    own = {**module._parameters, **{n: x for n, x in module._buffers.items() if n != "num_batches_tracked"}}
    made = {source: name for source, name in computed(module).items() if "." not in name}
    with inference(module):
        own = {n: x for n, x in own.items() if n not in made} | {n: getattr(module, n) for n in made.values()}
    return {name: _numpy(x) for name, x in own.items() if x is not None}


# Convolutions, norms, activations -------------------------------------------------------------------------------------
def _conv(module: Any) -> Parts:
    padding: Any = module.padding
    if not isinstance(padding, str):
        padding = tuple((p, p) for p in padding)
    config, weights = {"strides": tuple(module.stride), "padding": padding}, _arrays(module)
    if module.groups == module.in_channels > 1:
        return "depthwise_conv", config, to_canonical("depthwise_conv", weights, channels=module.in_channels)
    return "conv", config, to_canonical("conv", weights)


def _conv_transpose(module: Any) -> Parts:
    config = {"strides": tuple(module.stride)}
    return "conv_transpose", config, to_canonical("conv_transpose", _arrays(module), groups=module.groups)


def _weighted(kind: str) -> Callable[[Any], Parts]:
    return lambda module: (kind, {}, to_canonical(kind, _arrays(module)))


def _batch_norm(module: Any) -> Parts:
    # A momentum of None is the cumulative average, which no share describes; a frozen one has none.
    momentum = getattr(module, "momentum", 0.0)
    config = {"epsilon": float(module.eps), "momentum": None if momentum is None else 1.0 - float(momentum)}
    return "batch_norm", config, to_canonical("batch_norm", _arrays(module))


def _instance_norm(module: Any) -> Parts:
    if module.track_running_stats and not module.training:
        return _batch_norm(module)
    affine = {name: x for name, x in _arrays(module).items() if not name.startswith("running")}
    return "group_norm", {"epsilon": float(module.eps)}, to_canonical("group_norm", affine)


def _group_norm(module: Any) -> Parts:
    return "group_norm", {"epsilon": float(module.eps)}, to_canonical("group_norm", _arrays(module))


def _layer_norm(module: Any) -> Parts:
    # Three axes or more are an image's, channels first.
    weights = to_canonical("layer_norm", _arrays(module), channels_first=len(module.normalized_shape) > 2)
    return "layer_norm", {"epsilon": float(module.eps)}, weights


def _rms_norm(module: Any) -> Parts:
    epsilon = torch.finfo(torch.float32).eps if module.eps is None else float(module.eps)
    return "rms_norm", {"epsilon": epsilon}, to_canonical("rms_norm", _arrays(module))


def _activation(name: str, **options: str) -> Callable[[Any], Parts]:
    def rule(module: Any) -> Parts:
        values = {ours: getattr(module, theirs) for ours, theirs in options.items()}
        values = {ours: x.item() if isinstance(x, Tensor) else x for ours, x in values.items()}
        return "activation", {"activation": name, "activation_options": values}, {}

    return rule


def _gelu(module: Any) -> Parts:
    return _activation("gelu_tanh" if module.approximate == "tanh" else "gelu")(module)


def _prelu(module: Any) -> Parts:
    kind, config, _ = _activation("prelu")(module)
    return kind, config, to_canonical("prelu", _arrays(module))


# Other layers ---------------------------------------------------------------------------------------------------------
def _pool(kind: str) -> Callable[[Any], Parts]:
    def rule(module: Any) -> Parts:
        rank = int(next(cls.__name__[-2] for cls in type(module).__mro__ if cls.__name__[-2:] in ("1d", "2d", "3d")))
        stride = module.kernel_size if module.stride is None else module.stride
        padding = tuple((p, p) for p in _tuple(module.padding, rank))
        return kind, {"strides": _tuple(stride, rank), "padding": padding}, {}

    return rule


def _tuple(value: Any, rank: int) -> tuple[int, ...]:
    return tuple(int(x) for x in value) if isinstance(value, tuple | list) else (int(value),) * rank


def _adaptive_pool(mode: str) -> Callable[[Any], Parts]:
    def rule(module: Any) -> Parts:
        size = module.output_size
        whole = all(n == 1 for n in (size if isinstance(size, tuple | list) else (size,)))
        return f"global_{mode}_pool" if whole else "adaptive_pool", {}, {}

    return rule


def _recurrent(kind: str) -> Callable[[Any], Parts]:
    def rule(module: Any) -> Parts:
        weights: dict[str, Array] = {}
        arrays = _arrays(module)
        for layer in range(module.num_layers):
            for direction in range(2 if module.bidirectional else 1):
                suffix = f"_l{layer}" + ("_reverse" if direction else "")
                prefix = "" if layer == 0 else f"{layer}."
                prefix += "backward." if direction else ""
                weights |= {f"{prefix}{k}": x for k, x in _cell(arrays, suffix, kind).items()}
        return kind, {}, weights

    return rule


def _cell(arrays: Mapping[str, Array], suffix: str, kind: str) -> dict[str, Array]:
    own = {name.removesuffix(suffix): x for name, x in arrays.items() if name.endswith(suffix)}
    projection = own.pop("weight_hr", None)
    found = to_canonical(kind, own)
    return found if projection is None else {**found, "projection": np.ascontiguousarray(projection.T)}


def _attention(module: Any) -> Parts:
    arrays = _arrays(module) | {f"out_proj.{name}": x for name, x in _arrays(module.out_proj).items()}
    # More keys than the inputs have: no other framework's layer has them.
    extra = {name: arrays.pop(name) for name in ("bias_k", "bias_v") if name in arrays}
    return "attention", {}, to_canonical("attention", arrays, heads=module.num_heads) | extra


def _plain(kind: str) -> Callable[[Any], Parts]:
    return lambda module: (kind, {}, {})


_RULES: Mapping[str, Callable[[Any], Parts]] = {
    **{f"torch.nn.modules.conv.Conv{n}d": _conv for n in (1, 2, 3)},
    **{f"torch.nn.modules.conv.ConvTranspose{n}d": _conv_transpose for n in (1, 2, 3)},
    "torch.nn.modules.linear.Linear": _weighted("dense"),
    "torch.nn.modules.linear.Identity": _activation("linear"),
    **{f"torch.nn.modules.batchnorm.BatchNorm{n}d": _batch_norm for n in (1, 2, 3)},
    "torch.nn.modules.batchnorm.SyncBatchNorm": _batch_norm,
    "torchvision.ops.misc.FrozenBatchNorm2d": _batch_norm,
    **{f"torch.nn.modules.instancenorm.InstanceNorm{n}d": _instance_norm for n in (1, 2, 3)},
    "torch.nn.modules.normalization.GroupNorm": _group_norm,
    "torch.nn.modules.normalization.LayerNorm": _layer_norm,
    # Those of torchvision's and timm's ConvNeXt put the channels last around it.
    "LayerNorm2d": _layer_norm,
    "torch.nn.modules.normalization.RMSNorm": _rms_norm,
    **{
        f"torch.nn.modules.activation.{name}": rule
        for name, rule in {
            "ReLU": _activation("relu"),
            "ReLU6": _activation("relu6"),
            "LeakyReLU": _activation("leaky_relu", negative_slope="negative_slope"),
            "ELU": _activation("elu", alpha="alpha"),
            "CELU": _activation("celu", alpha="alpha"),
            "SELU": _activation("selu"),
            "GELU": _gelu,
            "SiLU": _activation("silu"),
            "Mish": _activation("mish"),
            "Sigmoid": _activation("sigmoid"),
            "LogSigmoid": _activation("log_sigmoid"),
            "Hardsigmoid": _activation("hard_sigmoid"),
            "Hardswish": _activation("hard_silu"),
            "Tanh": _activation("tanh"),
            "Hardtanh": _activation("hard_tanh", low="min_val", high="max_val"),
            "Tanhshrink": _activation("tanh_shrink"),
            "Softplus": _activation("softplus", beta="beta", threshold="threshold"),
            "Softsign": _activation("softsign"),
            "Softshrink": _activation("soft_shrink", threshold="lambd"),
            "Hardshrink": _activation("hard_shrink", threshold="lambd"),
            "Threshold": _activation("threshold", threshold="threshold", value="value"),
            "GLU": _activation("glu"),
            "Softmax": _activation("softmax"),
            "Softmax2d": _activation("softmax"),
            "LogSoftmax": _activation("log_softmax"),
            "PReLU": _prelu,
            "MultiheadAttention": _attention,
        }.items()
    },
    **{f"torch.nn.modules.pooling.MaxPool{n}d": _pool("max_pool") for n in (1, 2, 3)},
    **{f"torch.nn.modules.pooling.AvgPool{n}d": _pool("average_pool") for n in (1, 2, 3)},
    **{f"torch.nn.modules.pooling.AdaptiveAvgPool{n}d": _adaptive_pool("average") for n in (1, 2, 3)},
    **{f"torch.nn.modules.pooling.AdaptiveMaxPool{n}d": _adaptive_pool("max") for n in (1, 2, 3)},
    "torch.nn.modules.flatten.Flatten": _plain("flatten"),
    "torch.nn.modules.flatten.Unflatten": _plain("reshape"),
    "torchvision.ops.misc.Permute": _plain("permute"),
    **{
        f"torch.nn.modules.padding.{mode}Pad{n}d": _plain("padding")
        for mode in ("Zero", "Constant", "Reflection", "Replication", "Circular")
        for n in (1, 2, 3)
    },
    "torch.nn.modules.upsampling.Upsample": _plain("resize"),
    "torch.nn.modules.pixelshuffle.PixelShuffle": _plain("pixel_shuffle"),
    "torch.nn.modules.pixelshuffle.PixelUnshuffle": _plain("pixel_shuffle"),
    **{f"torch.nn.modules.dropout.Dropout{n}": _plain("dropout") for n in ("", "1d", "2d", "3d")},
    "torch.nn.modules.dropout.AlphaDropout": _plain("dropout"),
    "torchvision.ops.stochastic_depth.StochasticDepth": _plain("stochastic_depth"),
    "DropPath": _plain("stochastic_depth"),
    "torch.nn.modules.sparse.Embedding": _weighted("embedding"),
    "torch.nn.modules.rnn.LSTM": _recurrent("lstm"),
    "torch.nn.modules.rnn.GRU": _recurrent("gru"),
    "torch.nn.modules.rnn.RNN": _recurrent("rnn"),
}
"""By class: its module and name, or its name alone where several libraries have one of their own."""
