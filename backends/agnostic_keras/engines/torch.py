"""Keras on PyTorch: eager autograd."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

Tensor = torch.Tensor


def irfft2(real: Tensor, imaginary: Tensor, shape: tuple[int, int]) -> Tensor:
    """See :meth:`agnostic.ops.Ops.irfft2`."""
    return torch.fft.irfft2(torch.complex(real, imaginary), s=shape, norm="ortho")


def value_and_gradient(function: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """An array-valued function at ``x``, and the gradient of the sum of its values."""
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        values = function(x)
        (gradient,) = torch.autograd.grad(values.sum(), x)
    return values.detach(), gradient


def is_compiling() -> bool:
    """Whether this very moment is inside a trace, whose arrays have no values yet."""
    return torch.compiler.is_compiling()


def is_abstract(x: Any) -> bool:
    """Whether an array is a trace's, without values."""
    return isinstance(x, Tensor) and x.is_meta


def run(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function of arrays as fast as pays: here, as it is."""
    with torch.no_grad():
        return function(*arguments)
