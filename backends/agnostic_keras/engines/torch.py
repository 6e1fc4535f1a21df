"""Keras on PyTorch: eager autograd."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from typing import Any

import torch

Tensor = torch.Tensor


def irfft2(real: Tensor, imaginary: Tensor, shape: tuple[int, int]) -> Tensor:
    """See :meth:`agnostic.ops.Ops.irfft2`."""
    return torch.fft.irfft2(torch.complex(real, imaginary), s=shape, norm="ortho")


def tanh(x: Tensor) -> Tensor:
    """See :meth:`agnostic.ops.Ops.tanh`."""
    return x.tanh()


def maximum(a: Tensor, b: Any) -> Tensor:
    """See :meth:`agnostic.ops.Ops.maximum`."""
    return torch.maximum(a, torch.as_tensor(b, dtype=a.dtype, device=a.device))


def minimum(a: Tensor, b: Any) -> Tensor:
    """See :meth:`agnostic.ops.Ops.minimum`."""
    return torch.minimum(a, torch.as_tensor(b, dtype=a.dtype, device=a.device))


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


def without_gradients(function: Callable[[Any], Any], inputs: Any) -> Any:
    """``function(inputs)``, run eagerly, nothing kept for a backward pass."""
    with eagerly(), torch.no_grad():
        return function(inputs)


shapes = without_gradients
"""Run a function for the shapes that it meets: on PyTorch not every operation has a meta form, so for its values."""


def eagerly() -> contextlib.AbstractContextManager[Any]:
    """Compiled code runs as it was written inside; a tap inside of it would be missed."""
    if "torch._dynamo" not in sys.modules:
        return contextlib.nullcontext()
    return torch.compiler.set_stance("force_eager")
