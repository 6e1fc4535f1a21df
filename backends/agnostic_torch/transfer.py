"""Weights of torch modules as transfer writes them; see :mod:`agnostic.contracts.transfer`."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import prune
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from agnostic.errors import InvalidWeights
from agnostic.text import type_named
from agnostic_torch import taps
from agnostic_torch.layers import unwrap

_COMPUTING = (WeightNorm, SpectralNorm, prune.BasePruningMethod)
_ENDINGS = ("_v", "_g", "_orig", "_u", "_mask")
"""What the hooks call the tensors that they compute a weight from."""


def inference(model: nn.Module) -> AbstractContextManager[None]:
    """See :meth:`agnostic.contracts.transfer.Transfers.inference`."""
    return taps.inference(unwrap(model))


def computed(model: nn.Module) -> dict[str, str]:
    """See :meth:`agnostic.contracts.transfer.Transfers.computed`: parametrizations, and the hooks before them."""
    found: dict[str, str] = {}
    for path, module in unwrap(model).named_modules():
        prefix = f"{path}." if path else ""
        for name, inner in getattr(module, "parametrizations", {}).items():
            own = dict(inner.named_parameters()) | dict(inner.named_buffers())
            found |= {f"{prefix}parametrizations.{name}.{x}": f"{prefix}{name}" for x in own}
        for hook in module._forward_pre_hooks.values():
            if isinstance(hook, _COMPUTING):
                name = getattr(hook, "name", None) or getattr(hook, "_tensor_name", "weight")
                found |= {f"{prefix}{name}{end}": f"{prefix}{name}" for end in _ENDINGS}
    return found


def assign(model: nn.Module, values: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """See :meth:`agnostic.contracts.transfer.Transfers.assign`."""
    model = unwrap(model)
    with inference(model):  # in training, to read a weight under a spectral norm is to take a step of its iteration
        for path, value in values.items():
            owner, _, name = path.rpartition(".")
            module = model.get_submodule(owner)
            current: Tensor = getattr(module, name)
            tensor = torch.from_numpy(np.array(value)).to(current.device, current.dtype).reshape(current.shape)
            if name in module._parameters or name in module._buffers:
                current.copy_(tensor)
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


def _compute(module: nn.Module) -> None:
    """Bring weights up to date that a hook computes from others before each call: weight_norm, spectral_norm, prune."""
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, _COMPUTING):
            hook(module, None)
