"""What guards watch on PyTorch; see :mod:`agnostic_keras.guards`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from agnostic.guards import Flow
from agnostic_torch.guards import follow

Tensor = torch.Tensor


def concrete(x: Tensor) -> Tensor | None:
    """An array's values; None where it has none."""
    return None if x.device.type == "meta" else x


def on_gradient(x: Tensor, function: Callable[[Tensor], None]) -> Tensor:
    """``x``, such that ``function`` is called with its gradient on the way back."""
    if x.requires_grad:
        x.register_hook(function)
    return x


class _Backward(TorchFunctionMode):
    def __init__(self, function: Callable[[Any], None]) -> None:
        super().__init__()
        self._function = function

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (Tensor.backward, torch.autograd.grad):
            self._function(args[0] if args else next(iter(kwargs.values())))
        return func(*args, **(kwargs or {}))


def before_gradients(function: Callable[[Any], None]) -> contextlib.AbstractContextManager[Any]:
    """Inside, ``function`` is called with what ``backward`` is called on."""
    return _Backward(function)


class _Following(TorchFunctionMode):
    def __init__(self, flow: Flow) -> None:
        super().__init__()
        self._flow = flow

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return follow(self._flow, func, args, kwargs or {})


def following(flow: Flow) -> contextlib.AbstractContextManager[Any]:
    """Inside, ``flow`` is told of each operation of this thread."""
    return _Following(flow)


def base(x: Tensor) -> Tensor | None:
    """The array that another one is a view of."""
    return x._base
