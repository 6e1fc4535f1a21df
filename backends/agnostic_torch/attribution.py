"""Attribution in PyTorch, by forward hooks; see :mod:`agnostic.contracts.attribution`."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from agnostic.contracts.attribution import ForwardPass, FunctionRules
from agnostic.errors import InvalidInput
from agnostic_torch.functions import replaced_functions
from agnostic_torch.layers import named_layers, unwrap
from agnostic_torch.logits import Logits
from agnostic_torch.taps import _arguments, _Evaluated, eager, hooks, leaves


def forward(model: nn.Module, inputs: Any, rules: FunctionRules | None = None) -> ForwardPass:
    """See :meth:`agnostic.contracts.attribution.Attributions.forward`."""
    with torch.no_grad():
        return perturbed(model, inputs, {}, rules)


def perturbed(
    model: nn.Module, inputs: Any, added: Mapping[str, Tensor], rules: FunctionRules | None = None
) -> ForwardPass:
    """See :meth:`agnostic.contracts.attribution.Attributions.perturbed`."""
    model = unwrap(model)
    modules = named_layers(model)
    values: dict[str, Tensor] = {}

    def adding(name: str) -> Callable[..., Any]:
        def hook(module: nn.Module, args: Any, output: Any) -> Tensor:
            if not isinstance(output, Tensor):
                raise InvalidInput(f"layer {name!r} returns {type(output).__name__}, not one array: choose another")
            values[name] = output + added[name].to(output.dtype)
            # The model may change what it is given in place; the record stays.
            return values[name].clone()

        return hook

    args, kwargs = _arguments(model, inputs)
    with eager(), _Evaluated(model), hooks() as handles, replaced_functions(rules, (args, kwargs)), Logits() as logits:
        for name in added:
            handles.append(modules[name].register_forward_hook(adding(name)))
        output = model(*args, **kwargs)
    arrays = tuple(leaves(output))
    return ForwardPass(values, output, arrays, tuple(map(logits.before, arrays)))


class _Guided(torch.autograd.Function):
    """A ReLU, bounded or not, whose gradient is zero where the gradient that comes is not positive."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, most: float) -> Tensor:
        """The input between 0 and ``most``."""
        ctx.save_for_backward((x > 0) & (x < most))
        return x.clamp(0, most)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """The gradient where it is positive and the input was inside of the bounds."""
        (inside,) = ctx.saved_tensors
        return torch.where(inside, gradients[0].clamp(min=0), 0), None


_RELUS = {
    **dict.fromkeys((F.relu, F.relu_, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_), math.inf),
    F.relu6: 6.0,
}
"""Functions that are rectifiers, and their upper bounds."""


def _bound(func: Any, args: Any, kwargs: Any) -> float | None:
    """The upper bound of a rectifier; None for another function."""
    if func in (F.hardtanh, F.hardtanh_):  # what nn.ReLU6 calls
        bounds = dict(zip(("min_val", "max_val"), args[1:3], strict=False)) | kwargs
        return float(bounds.get("max_val", 1.0)) if bounds.get("min_val", -1.0) == 0 else None
    return _RELUS.get(func)


class _GuidedMode(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.ran: list[None] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        most = _bound(func, args, kwargs)
        if most is None:
            return func(*args, **kwargs)
        self.ran.append(None)
        return _Guided.apply(args[0] if args else kwargs["input"], most)


@contextlib.contextmanager
def guided() -> Iterator[list[None]]:
    """See :meth:`agnostic.contracts.attribution.Attributions.guided`."""
    with _GuidedMode() as mode:
        yield mode.ran
