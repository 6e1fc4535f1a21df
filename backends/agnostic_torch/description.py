"""What a torch module computes, framework-free. See :mod:`agnostic.description` for the conventions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from agnostic.description import Array, LayerDescription
from agnostic.errors import UnknownName, nearest
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
    overridden = False
    cls: Any
    for cls in type(module).__mro__:
        rule = _RULES.get(f"{cls.__module__}.{cls.__qualname__}") or _RULES.get(cls.__name__)
        if rule is not None:
            kind, config, weights = rule(module)
            overridden = type(module).forward is not cls.forward or "forward" in vars(module)
            break
    else:
        if next(module.children(), None) is not None:
            kind = "block"
        weights = {n: _numpy(p) for n, p in module.named_parameters(recurse=False)}
    first = next((p for p in module.parameters() if p.is_floating_point()), None)
    shared: dict[str, Any] = {"class": type(module).__name__, "framework": "torch", "training": module.training}
    if first is not None:
        shared["dtype"] = str(first.dtype).removeprefix("torch.")
    if overridden:
        shared["overridden"] = True
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


def _tuple(value: Any, rank: int) -> tuple[int, ...]:
    return tuple(int(x) for x in value) if isinstance(value, tuple | list) else (int(value),) * rank


# Convolutions and dense layers ----------------------------------------------------------------------------------------
def _conv(module: Any) -> Parts:
    rank = module.weight.dim() - 2
    padding: Any = module.padding
    if isinstance(padding, str):
        # PyTorch's "same" needs stride 1, and puts the odd one at the end as TensorFlow's does.
        padding = padding if padding == "valid" else "same"
    else:
        padding = tuple((p, p) for p in _tuple(padding, rank))
    config = {
        "rank": rank,
        "filters": module.out_channels,
        "kernel_size": tuple(module.kernel_size),
        "strides": tuple(module.stride),
        "padding": padding,
        "padding_mode": module.padding_mode,
        "dilation": tuple(module.dilation),
        "activation": "linear",
        "data_format": "channels_first",
    }
    weights = _arrays(module)
    if module.groups == module.in_channels > 1:
        return "depthwise_conv", config, to_canonical("depthwise_conv", weights, channels=module.in_channels)
    return "conv", {**config, "groups": module.groups}, to_canonical("conv", weights)


def _conv_transpose(module: Any) -> Parts:
    rank = module.weight.dim() - 2
    padding, extra = _tuple(module.padding, rank), _tuple(module.output_padding, rank)
    config = {
        "rank": rank,
        "filters": module.out_channels,
        "kernel_size": tuple(module.kernel_size),
        "strides": tuple(module.stride),
        "dilation": tuple(module.dilation),
        # Groups are zeros in the kernel, which has all of them.
        "groups": 1,
        "crop": tuple((p, p - o) for p, o in zip(padding, extra, strict=True)),
        "activation": "linear",
        "data_format": "channels_first",
    }
    return "conv_transpose", config, to_canonical("conv_transpose", _arrays(module), groups=module.groups)


def _dense(module: Any) -> Parts:
    return "dense", {"activation": "linear"}, to_canonical("dense", _arrays(module))


# Norms ----------------------------------------------------------------------------------------------------------------
def _batch_norm(module: Any) -> Parts:
    config = {
        "axis": 1,
        "epsilon": float(module.eps),
        # None is the cumulative average, which no share describes.
        "momentum": None if module.momentum is None else 1.0 - float(module.momentum),
        "unbiased": True,
        # Without running statistics it is in training mode always.
        "training": bool(module.training or module.running_mean is None),
        "data_format": "channels_first",
    }
    return "batch_norm", config, to_canonical("batch_norm", _arrays(module))


def _instance_norm(module: Any) -> Parts:
    if module.track_running_stats and not module.training:
        return _batch_norm(module)
    config = {"groups": module.num_features, "epsilon": float(module.eps), "data_format": "channels_first"}
    affine = {name: x for name, x in _arrays(module).items() if not name.startswith("running")}
    return "group_norm", config, to_canonical("group_norm", affine)


def _group_norm(module: Any) -> Parts:
    config = {"groups": module.num_groups, "epsilon": float(module.eps), "data_format": "channels_first"}
    return "group_norm", config, to_canonical("group_norm", _arrays(module))


def _layer_norm(module: Any) -> Parts:
    axes = tuple(range(-len(module.normalized_shape), 0))
    # Three axes or more are an image's, channels first.
    weights = to_canonical("layer_norm", _arrays(module), channels_first=len(axes) > 2)
    return "layer_norm", {"axes": axes, "epsilon": float(module.eps)}, weights


def _rms_norm(module: Any) -> Parts:
    axes = tuple(range(-len(module.normalized_shape), 0))
    epsilon = torch.finfo(torch.float32).eps if module.eps is None else float(module.eps)
    return "rms_norm", {"axes": axes, "epsilon": epsilon}, to_canonical("rms_norm", _arrays(module))


# Activations ----------------------------------------------------------------------------------------------------------
def _activation(name: str, **options: str) -> Callable[[Any], Parts]:
    def rule(module: Any) -> Parts:
        values = {ours: _value(getattr(module, theirs)) for ours, theirs in options.items()}
        return "activation", {"activation": name, "activation_options": values}, {}

    return rule


def _value(x: Any) -> Any:
    return x.item() if isinstance(x, Tensor) else x


def _gelu(module: Any) -> Parts:
    name = "gelu_tanh" if module.approximate == "tanh" else "gelu"
    return "activation", {"activation": name, "activation_options": {}}, {}


def _along(name: str) -> Callable[[Any], Parts]:
    def rule(module: Any) -> Parts:
        axis = getattr(module, "dim", 1)
        options = {"axis": -1 if axis is None else axis}
        return "activation", {"activation": name, "activation_options": options, "data_format": "channels_first"}, {}

    return rule


def _prelu(module: Any) -> Parts:
    return "activation", {"activation": "prelu", "activation_options": {}}, to_canonical("prelu", _arrays(module))


# Pools ----------------------------------------------------------------------------------------------------------------
def _rank(module: nn.Module) -> int:
    return int(next(cls.__name__[-2] for cls in type(module).__mro__ if cls.__name__[-2:] in ("1d", "2d", "3d")))


def _pool(module: Any, kind: str) -> Parts:
    rank = _rank(module)
    padding = _tuple(module.padding, rank)
    config = {
        "rank": rank,
        "pool_size": _tuple(module.kernel_size, rank),
        "strides": _tuple(module.kernel_size if module.stride is None else module.stride, rank),
        "padding": tuple((p, p) for p in padding),
        "ceil_mode": bool(module.ceil_mode),
        "data_format": "channels_first",
    }
    if kind == "max_pool":
        config["dilation"] = _tuple(module.dilation, rank)
    else:
        config["count_include_pad"] = bool(module.count_include_pad)
        config["divisor"] = getattr(module, "divisor_override", None)
    return kind, config, {}


def _adaptive_pool(mode: str) -> Callable[[Any], Parts]:
    def rule(module: Any) -> Parts:
        rank = _rank(module)
        size = module.output_size
        size = tuple(size) if isinstance(size, tuple | list) else (size,) * rank
        if all(n == 1 for n in size):
            config = {"rank": rank, "keepdims": True, "data_format": "channels_first"}
            return f"global_{mode}_pool", config, {}
        config = {"rank": rank, "output_size": size, "mode": mode, "data_format": "channels_first"}
        return "adaptive_pool", config, {}

    return rule


# Shapes ---------------------------------------------------------------------------------------------------------------
def _flatten(module: Any) -> Parts:
    config = {"start": module.start_dim, "end": module.end_dim, "order": "channels_first"}
    return "flatten", config, {}


def _padding(mode: str) -> Callable[[Any], Parts]:
    def rule(module: Any) -> Parts:
        rank = _rank(module)
        # PyTorch names the last axis first.
        flat = _tuple(module.padding, 2 * rank)
        pairs = tuple(zip(flat[::2], flat[1::2], strict=True))[::-1]
        config = {
            "padding": pairs,
            "mode": mode,
            "value": float(getattr(module, "value", 0.0)),
            "data_format": "channels_first",
        }
        return "padding", config, {}

    return rule


def _resize(module: Any) -> Parts:
    mode = module.mode
    interpolation = {"linear": "bilinear", "trilinear": "bilinear", "nearest-exact": "nearest"}.get(mode, mode)
    align = bool(getattr(module, "align_corners", False))
    size, scale = module.size, module.scale_factor
    config = {
        "interpolation": interpolation,
        "align_corners": align,
        # PyTorch's "nearest" takes the pixel at floor(i * scale), everything else looks at centres.
        "half_pixel": not align and mode != "nearest",
        "antialias": False,
        "size": tuple(size) if isinstance(size, tuple | list) else size,
        "scale": tuple(scale) if isinstance(scale, tuple | list) else scale,
        "data_format": "channels_first",
    }
    return "resize", config, {}


def _pixel_shuffle(inverse: bool) -> Callable[[Any], Parts]:
    def rule(module: Any) -> Parts:
        factor = module.downscale_factor if inverse else module.upscale_factor
        return "pixel_shuffle", {"factor": factor, "inverse": inverse, "data_format": "channels_first"}, {}

    return rule


def _permute(module: Any) -> Parts:
    return "permute", {"dims": tuple(module.dims), "data_format": "channels_first"}, {}


def _unflatten(module: Any) -> Parts:
    config = {"shape": tuple(module.unflattened_size), "axis": module.dim, "data_format": "channels_first"}
    return "reshape", config, {}


# Noise ----------------------------------------------------------------------------------------------------------------
def _dropout(whole_channels: bool) -> Callable[[Any], Parts]:
    def rule(module: Any) -> Parts:
        return "dropout", {"rate": float(module.p), "spatial": whole_channels}, {}

    return rule


def _stochastic_depth(module: Any) -> Parts:
    return "stochastic_depth", {"rate": float(getattr(module, "p", getattr(module, "drop_prob", 0.0)) or 0.0)}, {}


# Sequences ------------------------------------------------------------------------------------------------------------
def _embedding(module: Any) -> Parts:
    return "embedding", {"padding_index": module.padding_idx}, to_canonical("embedding", _arrays(module))


def _recurrent(kind: str) -> Callable[[Any], Parts]:
    def rule(module: Any) -> Parts:
        directions = 2 if module.bidirectional else 1
        config = {
            "units": module.hidden_size,
            "layers": module.num_layers,
            "bidirectional": bool(module.bidirectional),
            "return_sequences": True,
            "activation": "relu" if getattr(module, "nonlinearity", "tanh") == "relu" else "tanh",
            "recurrent_activation": "sigmoid",
            "reset_after": True,
            "gates": {"lstm": "ifco", "gru": "rzh", "rnn": "h"}[kind],
            "rate": float(module.dropout),
            "batch_first": bool(module.batch_first),
            "projection": int(getattr(module, "proj_size", 0)),
        }
        weights: dict[str, Array] = {}
        arrays = _arrays(module)
        for layer in range(module.num_layers):
            for direction in range(directions):
                suffix = f"_l{layer}" + ("_reverse" if direction else "")
                prefix = "" if layer == 0 else f"{layer}."
                prefix += "backward." if direction else ""
                weights |= {f"{prefix}{k}": x for k, x in _cell(arrays, suffix, kind).items()}
        return kind, config, weights

    return rule


def _cell(arrays: Mapping[str, Array], suffix: str, kind: str) -> dict[str, Array]:
    own = {name.removesuffix(suffix): x for name, x in arrays.items() if name.endswith(suffix)}
    projection = own.pop("weight_hr", None)
    found = to_canonical(kind, own)
    return found if projection is None else {**found, "projection": np.ascontiguousarray(projection.T)}


def _attention(module: Any) -> Parts:
    config = {
        "heads": module.num_heads,
        "key_dim": module.head_dim,
        "scale": float(module.head_dim) ** -0.5,
        "rate": float(module.dropout),
        "batch_first": bool(module.batch_first),
    }
    arrays = _arrays(module) | {f"out_proj.{name}": x for name, x in _arrays(module.out_proj).items()}
    extra = {name: arrays.pop(name) for name in ("bias_k", "bias_v") if name in arrays}
    if extra or module.add_zero_attn:
        # More keys than the inputs have: no other framework's layer, nor the reference, has them.
        config["overridden"] = True
    return "attention", config, to_canonical("attention", arrays, heads=module.num_heads) | extra


def _constant(kind: str, **config: Any) -> Callable[[Any], Parts]:
    return lambda module: (kind, dict(config), {})


_RULES: Mapping[str, Callable[[Any], Parts]] = {
    **{f"torch.nn.modules.conv.Conv{n}d": _conv for n in (1, 2, 3)},
    **{f"torch.nn.modules.conv.ConvTranspose{n}d": _conv_transpose for n in (1, 2, 3)},
    "torch.nn.modules.linear.Linear": _dense,
    "torch.nn.modules.linear.Identity": _constant("activation", activation="linear", activation_options={}),
    **{f"torch.nn.modules.batchnorm.BatchNorm{n}d": _batch_norm for n in (1, 2, 3)},
    "torch.nn.modules.batchnorm.SyncBatchNorm": _batch_norm,
    "torchvision.ops.misc.FrozenBatchNorm2d": lambda module: (
        "batch_norm",
        {"axis": 1, "epsilon": float(module.eps), "momentum": 1.0, "training": False, "data_format": "channels_first"},
        to_canonical("batch_norm", _arrays(module)),
    ),
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
            "GLU": _along("glu"),
            "Softmax": _along("softmax"),
            "Softmax2d": _constant(
                "activation", activation="softmax", activation_options={"axis": -3}, data_format="channels_first"
            ),
            "LogSoftmax": _along("log_softmax"),
            "PReLU": _prelu,
            "MultiheadAttention": _attention,
        }.items()
    },
    **{f"torch.nn.modules.pooling.MaxPool{n}d": lambda module: _pool(module, "max_pool") for n in (1, 2, 3)},
    **{f"torch.nn.modules.pooling.AvgPool{n}d": lambda module: _pool(module, "average_pool") for n in (1, 2, 3)},
    **{f"torch.nn.modules.pooling.AdaptiveAvgPool{n}d": _adaptive_pool("average") for n in (1, 2, 3)},
    **{f"torch.nn.modules.pooling.AdaptiveMaxPool{n}d": _adaptive_pool("max") for n in (1, 2, 3)},
    "torch.nn.modules.flatten.Flatten": _flatten,
    "torch.nn.modules.flatten.Unflatten": _unflatten,
    "torchvision.ops.misc.Permute": _permute,
    **{f"torch.nn.modules.padding.ZeroPad{n}d": _padding("constant") for n in (1, 2, 3)},
    **{f"torch.nn.modules.padding.ConstantPad{n}d": _padding("constant") for n in (1, 2, 3)},
    **{f"torch.nn.modules.padding.ReflectionPad{n}d": _padding("reflect") for n in (1, 2, 3)},
    **{f"torch.nn.modules.padding.ReplicationPad{n}d": _padding("replicate") for n in (1, 2, 3)},
    **{f"torch.nn.modules.padding.CircularPad{n}d": _padding("circular") for n in (1, 2, 3)},
    "torch.nn.modules.upsampling.Upsample": _resize,
    "torch.nn.modules.pixelshuffle.PixelShuffle": _pixel_shuffle(False),
    "torch.nn.modules.pixelshuffle.PixelUnshuffle": _pixel_shuffle(True),
    **{f"torch.nn.modules.dropout.Dropout{n}": _dropout(bool(n)) for n in ("", "1d", "2d", "3d")},
    "torch.nn.modules.dropout.AlphaDropout": _dropout(False),
    "torchvision.ops.stochastic_depth.StochasticDepth": _stochastic_depth,
    "DropPath": _stochastic_depth,
    "torch.nn.modules.sparse.Embedding": _embedding,
    "torch.nn.modules.rnn.LSTM": _recurrent("lstm"),
    "torch.nn.modules.rnn.GRU": _recurrent("gru"),
    "torch.nn.modules.rnn.RNN": _recurrent("rnn"),
}
"""By class: its module and name, or its name alone where several libraries have one of their own."""
