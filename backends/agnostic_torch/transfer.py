"""Torch modules as transfer sees them. See :mod:`agnostic.transfer.access`."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import prune
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from agnostic.errors import InvalidInput, InvalidWeights
from agnostic.models.attached import card_of
from agnostic.text import type_named
from agnostic.transfer.access import ROOT, Access, AroundGroup, Array, InputSpec, Pool, WeightGroup
from agnostic.transfer.layouts import from_canonical, to_canonical
from agnostic_torch.layers import unwrap

_CONV = nn.modules.conv._ConvNd
_TRANSPOSED = nn.modules.conv._ConvTransposeNd
_BATCH_NORM = nn.modules.batchnorm._BatchNorm
_INSTANCE_NORM = nn.modules.instancenorm._InstanceNorm
_RECURRENT: Mapping[type, str] = {
    nn.LSTM: "lstm", nn.GRU: "gru", nn.RNN: "rnn", nn.LSTMCell: "lstm", nn.GRUCell: "gru", nn.RNNCell: "rnn",
}  # fmt: skip
_POOLS: Mapping[type, int] = {nn.AvgPool1d: 1, nn.AvgPool2d: 2, nn.AvgPool3d: 3}
_COMPUTING = (WeightNorm, SpectralNorm, prune.BasePruningMethod)
_GATED = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


class TorchAccess(Access):
    """See :class:`agnostic.transfer.access.Access`."""

    framework = "torch"

    def __init__(self, model: nn.Module) -> None:
        self.model = unwrap(model)
        self._owners: dict[str, tuple[nn.Module, str, dict[str, Any], dict[str, Any]]] = {}

    @functools.cached_property
    def slots(self) -> Sequence[WeightGroup]:
        # In inference mode: in training, to read a weight under a spectral norm is to take a step of its iteration.
        with _inference(self.model):
            found = [slot for name, module in self._modules() for slot in self._of(name, module)]
        return [self._tied(slot, found[:number]) for number, slot in enumerate(found)]

    @property
    def pools(self) -> Mapping[str, Pool]:
        return {name: pool for name, module in self._modules() if (pool := _pool(module)) is not None}

    # Slots ----------------------------------------------------------------------------------------------------------
    def _modules(self) -> Iterator[tuple[str, nn.Module]]:
        closed: tuple[str, ...] = ()
        for name, module in self.model.named_modules():
            if name.startswith(closed) and closed:
                continue
            if isinstance(module, nn.MultiheadAttention | nn.modules.rnn.RNNBase):
                if not name:
                    yield name, module
                    return
                closed += (f"{name}.",)
            if hasattr(module, "parametrizations"):
                closed += (f"{name}.parametrizations".lstrip("."),)
            yield name, module

    def _tied(self, slot: WeightGroup, before: Sequence[WeightGroup]) -> WeightGroup:
        """A slot, with the name of an earlier one whose array is its own: the head of many a language model."""
        if slot.kind not in ("dense", "embedding") or len(slot.weights) != 1:
            return slot
        weight = getattr(self._owners[slot.name][0], "weight", None)
        for other in before:
            if other.kind in ("dense", "embedding") and getattr(self._owners[other.name][0], "weight", None) is weight:
                return replace(slot, config={**slot.config, "tied": other.name})
        return slot

    def _of(self, name: str, module: nn.Module) -> Iterator[WeightGroup]:
        lazy = [x for x in module._parameters.values() if x is not None and nn.parameter.is_lazy(x)]
        if lazy:
            raise InvalidInput(f"{name or type(module).__name__!r} has no weights yet: call the model once on a batch")
        _compute(module)
        kind, there, back = _kind(module)
        if kind is None and (own := _foreign(module)):
            self._owners[full := name or type(module).__name__] = (module, "", {}, {})
            yield WeightGroup(full, type(module).__name__, name or ROOT, own, {"what": _what(module)})
            return
        if kind is None:
            yield from self._bare(name, module)
            return
        parts = _parts(module) if kind in ("lstm", "gru", "rnn") else {"": ""}
        for part in parts:
            native = _arrays(module, kind, part)
            if not native:
                continue
            full = f"{name}.{part.removeprefix('_')}".rstrip(".").lstrip(".") or type(module).__name__
            self._owners[full] = (module, part, there, back)
            yield WeightGroup(full, kind, name or ROOT, to_canonical(kind, native, **there), _config(kind, module))

    def _bare(self, name: str, module: nn.Module) -> Iterator[WeightGroup]:
        own = {**module._parameters, **{k: v for k, v in module._buffers.items() if _kept(module, k, v)}}
        holder = next(module.children(), None) is not None
        for parameter, value in own.items():
            if value is None:
                continue
            full = f"{name}.{parameter}".lstrip(".")
            self._owners[full] = (module, parameter, {}, {})
            yield WeightGroup(full, "parameter", "" if holder else name or ROOT, {"value": _numpy(value)})

    def write(self, slot: WeightGroup, weights: Mapping[str, Array]) -> None:
        module, part, _, back = self._owners[slot.name]
        if slot.kind == "parameter":
            native = {part: weights["value"]}
        elif slot.kind == type(module).__name__:
            native = dict(weights)
        else:
            native = {
                _native_name(slot.kind, name, part): x for name, x in from_canonical(slot.kind, weights, **back).items()
            }
            if slot.kind == "embedding" and getattr(module, "padding_idx", None) is not None:
                native["weight"] = np.array(native["weight"])
        for name, value in native.items():
            _assign(module, name, value)

    # Runs -----------------------------------------------------------------------------------------------------------
    def inputs(self) -> list[InputSpec]:
        card = card_of(self.model)
        size = (None, None, None) if card is None or card.size is None else card.size
        for _, module in self._modules():
            kind, _, _ = _kind(module)
            own: Any = module
            if isinstance(module, _CONV):
                rank = len(module.kernel_size)
                fixed = getattr(self.model, "image_size", None)  # a vision transformer takes one size alone
                sizes = (fixed,) * rank if isinstance(fixed, int) else size[:rank] if rank == 2 else (None,) * rank
                return [InputSpec((*sizes, module.in_channels))]
            if kind == "embedding":
                return [InputSpec((None,), own.num_embeddings)]
            if kind in ("lstm", "gru", "rnn"):
                return [InputSpec((None, own.input_size))]
            if isinstance(module, nn.Linear):
                return [InputSpec((module.in_features,))]
            if next(module.parameters(recurse=False), None) is not None and next(module.children(), None) is None:
                break
        raise InvalidInput(
            f"the inputs of {type(self.model).__name__} cannot be told from its first layer: give inputs="
        )

    def canonical(self, inputs: Any) -> list[Array]:
        given = inputs if isinstance(inputs, tuple) else (inputs,)
        arrays = [_numpy(x) if isinstance(x, Tensor) else np.asarray(x) for x in given]
        return [np.moveaxis(x, 1, -1) if self._moves(x) else x for x in arrays]

    def _moves(self, x: Array) -> bool:
        """Whether an input has its channels first: an image, or what a 1-D convolution takes."""
        if x.ndim == 3:
            first = next((m for _, m in self._modules() if _kind(m)[0] is not None), None)
            return isinstance(first, _CONV) and len(first.kernel_size) == 1
        return x.ndim > 3

    def run(
        self, inputs: Sequence[Array], layers: Sequence[str] = (), around: AroundGroup | None = None
    ) -> list[Array]:
        first = next((p for p in self.model.parameters() if p.is_floating_point()), torch.empty(0))
        native = [_tensor(np.moveaxis(x, -1, 1) if self._moves(x) else x, first) for x in inputs]
        modules = {**dict(self.model.named_modules()), ROOT: self.model}
        with ExitStack() as stack:
            stack.enter_context(_inference(self.model))
            if around is not None:
                for name in layers:
                    stack.enter_context(_replaced(modules[name], name, around))
            output = self.model(*native)
        return [_image_last(_numpy(x)) for x in _flat(output)]

    @contextmanager
    def overridden(self, overrides: Mapping[str, Mapping[str, Any]]) -> Iterator[None]:
        modules = {**dict(self.model.named_modules()), ROOT: self.model}
        with ExitStack() as stack:
            for name, override in overrides.items():
                stack.enter_context(_changed(modules[name], override))
            yield

    def exact(self) -> Access:
        with torch.no_grad(), _inference(self.model):
            for module in self.model.modules():
                _compute(module)  # what is computed with a gradient cannot be copied
        return TorchAccess(copy.deepcopy(self.model).double())


# What a module is ---------------------------------------------------------------------------------------------------
def _kind(module: nn.Module) -> tuple[str | None, dict[str, Any], dict[str, Any]]:
    """(kind, what to_canonical has to know, what from_canonical has to know)."""
    match module:
        case _TRANSPOSED():
            return "conv_transpose", {"groups": module.groups}, {"groups": module.groups}
        case _CONV() if module.groups == module.in_channels > 1:
            return "depthwise_conv", {"channels": module.in_channels}, {}
        case _CONV():
            return "conv", {}, {}
        case nn.Linear():
            return "dense", {}, {}
        case _INSTANCE_NORM() if module.running_mean is None:
            return "group_norm", {}, {}
        case _INSTANCE_NORM() | _BATCH_NORM() if module.running_mean is not None:
            return "batch_norm", {}, {}
        case nn.LayerNorm():
            first = {"channels_first": len(module.normalized_shape) > 2}
            return "layer_norm", first, first
        case nn.GroupNorm():
            return "group_norm", {}, {}
        case nn.PReLU():
            return "prelu", {}, {}
        case nn.Embedding() | nn.EmbeddingBag():
            return "embedding", {}, {}
        case nn.MultiheadAttention() if module.bias_k is None and not module.add_zero_attn:
            return "attention", {"heads": module.num_heads}, {"packed": module._qkv_same_embed_dim}
    if isinstance(module, getattr(nn, "RMSNorm", ())):
        return "rms_norm", {}, {}
    if type(module).__name__ == "FrozenBatchNorm2d":
        return "batch_norm", {}, {}
    for cls, kind in _RECURRENT.items():
        # A projection of the state is one more matrix, which Keras does not have.
        if isinstance(module, cls) and not getattr(module, "proj_size", 0):
            return kind, {}, {}
    return None, {}, {}


def _foreign(module: nn.Module) -> dict[str, Array]:
    """The weights of a module of PyTorch's own that has no rule, by its own names; empty for one that holds others."""
    if not type(module).__module__.startswith("torch.nn.") or isinstance(module, nn.ParameterList | nn.ParameterDict):
        return {}
    if next(module.children(), None) is not None and not isinstance(module, nn.MultiheadAttention):
        return {}
    own = [*module.named_parameters(), *((k, v) for k, v in module._buffers.items() if _kept(module, k, v))]
    return {name: _numpy(x) for name, x in own if x is not None}


def _what(module: nn.Module) -> str:
    """What of a module is in the way of a rule."""
    name = type(module).__name__
    match module:
        case nn.LSTM():
            return f"{name} with proj_size"
        case nn.MultiheadAttention():
            return f"{name} with add_bias_kv or add_zero_attn"
        case _BATCH_NORM():
            return f"{name} without running statistics"
    return name


def _compute(module: nn.Module) -> None:
    """Bring weights up to date that a hook computes from others before each call: weight_norm, spectral_norm, prune."""
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, _COMPUTING):
            hook(module, None)


def _parts(module: Any) -> list[str]:
    """What PyTorch appends to the names of a recurrent module's arrays: a layer's number, and the direction."""
    if isinstance(module, nn.modules.rnn.RNNCellBase):
        return [""]
    ways = ("", "_reverse") if module.bidirectional else ("",)
    return [f"_l{layer}{way}" for layer in range(int(module.num_layers)) for way in ways]


def _native_name(kind: str, name: str, part: str) -> str:
    return name + part if kind in ("lstm", "gru", "rnn") else name


def _arrays(module: nn.Module, kind: str, part: str) -> dict[str, Array]:
    if kind == "attention":
        names = ["in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight", "in_proj_bias"]
        found = {name: getattr(module, name) for name in names}
        found |= {f"out_proj.{name}": getattr(module.out_proj, name) for name in ("weight", "bias")}
    elif kind in ("lstm", "gru", "rnn"):
        found = {name: getattr(module, name + part, None) for name in _GATED}
    else:
        statistics = ("running_mean", "running_var") if kind == "batch_norm" else ()
        found = {name: getattr(module, name, None) for name in ("weight", "bias", *statistics)}
    # Not copied here: the change of layout copies.
    return {name: _view(x) for name, x in found.items() if x is not None}


def _config(kind: str, module: nn.Module) -> dict[str, Any]:
    config: dict[str, Any] = {}
    epsilon = getattr(module, "eps", None)
    if epsilon is not None:
        config["epsilon"] = float(epsilon)
    if isinstance(module, _CONV):
        config["strides"] = tuple(module.stride)
        config["dilation"] = tuple(module.dilation)
        if type(module).__name__ == "Conv2dSame":
            config["padding"] = "same"
        elif isinstance(module, _TRANSPOSED):
            pass
        elif isinstance(module.padding, str):
            config["padding"] = tuple(
                (d * (k - 1) // 2, d * (k - 1) - d * (k - 1) // 2)
                for k, d in zip(module.kernel_size, module.dilation, strict=True)
            ) if module.padding == "same" else "valid"  # fmt: skip
        else:
            config["padding"] = tuple((p, p) for p in module.padding) if any(module.padding) else "valid"
    return config


def _pool(module: nn.Module) -> Pool | None:
    """An average pool that pads; not one whose windows reach beyond the padding, or that divides by a given number."""
    own: Any = module
    if not isinstance(module, tuple(_POOLS)) or own.ceil_mode or getattr(own, "divisor_override", None):
        return None
    rank = next(rank for cls, rank in _POOLS.items() if isinstance(module, cls))
    size, strides, padding = (
        tuple(x) if isinstance(x, tuple) else (x,) * rank for x in (own.kernel_size, own.stride, own.padding)
    )
    return Pool(size, strides, tuple((p, p) for p in padding), own.count_include_pad) if any(padding) else None


def _kept(module: nn.Module, name: str, value: Tensor | None) -> bool:
    return value is not None and value.is_floating_point() and name not in module._non_persistent_buffers_set


def _assign(module: nn.Module, path: str, value: Array) -> None:
    *inside, name = path.split(".")
    for child in inside:
        module = getattr(module, child)
    current: Tensor = getattr(module, name)
    tensor = torch.from_numpy(np.array(value)).to(current.device, current.dtype)
    with torch.no_grad():
        if name in module._parameters or name in module._buffers:
            current.copy_(tensor.reshape(current.shape))
        else:
            _assign_computed(module, name, tensor)


def _assign_computed(module: nn.Module, name: str, wanted: Tensor) -> None:
    """Set a weight that is computed from others, by what computes it."""
    own = module._parameters
    direction, length, original = (own.get(f"{name}_{end}") for end in ("v", "g", "orig"))
    said = ""
    try:
        if direction is not None and length is not None:
            hook = next(h for h in module._forward_pre_hooks.values() if isinstance(h, WeightNorm) and h.name == name)
            direction.copy_(wanted)
            length.copy_(torch.norm_except_dim(wanted, 2, hook.dim))
        elif original is not None:
            original.copy_(wanted)
        else:
            setattr(module, name, wanted)  # a parametrization, whose own inverse is asked
    except (NotImplementedError, RuntimeError, ValueError) as error:
        said = f" ({' '.join(str(error).split())[:100]})"
    _compute(module)
    if said or not torch.allclose(getattr(module, name), wanted, rtol=1e-5, atol=1e-6 * float(wanted.abs().max())):
        raise InvalidWeights(
            f"{type_named(module)} computes its {name} from others (a parametrization, spectral norm, or pruning) "
            f"in such a way that it cannot be what the source has{said}: take that off, as with "
            "torch.nn.utils.parametrize.remove_parametrizations, and put it on again afterwards"
        )


# Arrays -------------------------------------------------------------------------------------------------------------
def _view(x: Tensor) -> Array:
    x = x.detach()
    found: Array = (x.float() if x.dtype in (torch.bfloat16, torch.float16) else x).cpu().numpy()
    return found


def _numpy(x: Tensor) -> Array:
    # A copy: what follows may change the tensor in place.
    return _view(x).copy()


def _tensor(x: Array, like: Tensor) -> Tensor:
    tensor = torch.from_numpy(np.array(x, order="C")).to(like.device)
    return tensor.to(like.dtype) if tensor.is_floating_point() else tensor


def _flat(output: Any) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    values = output.values() if isinstance(output, Mapping) else output if isinstance(output, tuple | list) else ()
    return [x for value in values for x in _flat(value)]


def _image_last(x: Array) -> Array:
    return np.moveaxis(x, 1, -1) if x.ndim > 3 else x


def _to_last(module: nn.Module, x: Tensor) -> tuple[int, int] | None:
    """The axis that moves to become canonical, and where to; None where none does."""
    if isinstance(module, nn.MultiheadAttention | nn.modules.rnn.RNNBase):
        return None if module.batch_first or x.ndim < 3 else (0, 1)
    if isinstance(module, nn.LayerNorm) and len(module.normalized_shape) == 1:
        features = module.normalized_shape[0]
        # A subclass that permutes by itself, as torchvision's and timm's LayerNorm2d.
        first = x.ndim > 3 and type(module) is not nn.LayerNorm and x.shape[1] == features
        return (1, x.ndim - 1) if first else None
    if isinstance(module, nn.Linear | nn.Embedding) or type(module).__name__.startswith("RMSNorm"):
        return None
    known = _kind(module)[0] is not None or isinstance(module, tuple(_POOLS))
    return (1, x.ndim - 1) if x.ndim > 2 and known else None


def _canonical(x: Tensor, axes: tuple[int, int] | None) -> Array:
    return _numpy(x if axes is None else x.movedim(*axes))


def _native(x: Array, axes: tuple[int, int] | None, like: Tensor) -> Tensor:
    tensor = torch.from_numpy(np.array(x)).to(like.device)
    tensor = tensor.to(like.dtype) if tensor.is_floating_point() else tensor
    return tensor if axes is None else tensor.movedim(axes[1], axes[0])


# Runs ---------------------------------------------------------------------------------------------------------------
@contextmanager
def _inference(model: nn.Module) -> Iterator[None]:
    training = {module: module.training for module in model.modules()}
    fast = torch.backends.mha.get_fastpath_enabled()
    model.eval()
    torch.backends.mha.set_fastpath_enabled(False)  # it computes past the modules
    try:
        with torch.no_grad():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for module, mode in training.items():
            module.training = mode


@contextmanager
def _forward(module: nn.Module, call: Callable[..., Any]) -> Iterator[None]:
    """Inside, ``call(original, *args, **kwargs)`` in place of the module's forward."""
    original, before = module.forward, vars(module).get("forward")
    vars(module)["forward"] = lambda *args, **kwargs: call(original, *args, **kwargs)
    try:
        yield
    finally:
        if before is None:
            del vars(module)["forward"]
        else:
            vars(module)["forward"] = before


def _replaced(module: nn.Module, name: str, around: AroundGroup) -> Any:
    def call(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if not args or not isinstance(args[0], Tensor):
            return original(*args, **kwargs)
        x = args[0]
        axes = _to_last(module, x)
        output: Any = None

        def run(other: Array | None) -> Array:
            nonlocal output
            new = x if other is None else _native(other, axes, x)
            # Self-attention is handed one tensor three times.
            output = original(*(new if value is x else value for value in args), **kwargs)
            first = _flat(output)[0]
            return _canonical(first, axes if first.ndim == x.ndim else None)

        forced = around(name, _canonical(x, axes), run)
        if forced is None:
            return output
        first = _flat(output)[0]
        replaced = _native(forced, axes if first.ndim == x.ndim else None, first)
        return replaced if isinstance(output, Tensor) else (replaced, *output[1:])

    return _forward(module, call)


@contextmanager
def _changed(module: nn.Module, override: Mapping[str, Any]) -> Iterator[None]:
    names = {"epsilon": "eps", "strides": "stride", "dilation": "dilation", "counts": "count_include_pad"}
    before = {name: getattr(module, name) for key, name in names.items() if key in override}
    with ExitStack() as stack:
        try:
            for key, name in names.items():
                if key in override:
                    setattr(module, name, override[key])
            if "padding" in override or "crop" in override:
                stack.enter_context(_forward(module, _padded(module, override)))
            yield
        finally:
            for name, value in before.items():
                setattr(module, name, value)


def _padded(module: Any, override: Mapping[str, Any]) -> Callable[..., Any]:
    pairs = override.get("padding", "valid")
    crop = override.get("crop", ())

    def call(original: Callable[..., Any], x: Tensor) -> Tensor:
        for axis, (low, high) in enumerate(crop, 2):
            x = x.narrow(axis, low, x.shape[axis] - low - high)
        rank = len(module.kernel_size)
        if pairs == "same":
            from agnostic.models.architecture import same_padding

            wanted = [same_padding(x.shape[2 + i], module.kernel_size[i], module.stride[i]) for i in range(rank)]
        else:
            wanted = [(0, 0)] * rank if pairs == "valid" else list(pairs)
        x = F.pad(x, [n for pair in reversed(wanted) for n in pair])
        function = (F.conv1d, F.conv2d, F.conv3d)[rank - 1]
        return function(x, module.weight, module.bias, module.stride, 0, module.dilation, module.groups)

    return call


def access(model: nn.Module) -> TorchAccess:
    """See :meth:`agnostic.contracts.transfer.Transfers.access`."""
    return TorchAccess(model)
