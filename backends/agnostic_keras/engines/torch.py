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


def climber(network: Any) -> Callable[..., Any]:
    """The ascent of a micro-batch as a loop of eager autograd.

    Args:
        network: an :class:`agnostic_keras.ascent.Network`.

    Returns:
        A function of (parameters, state, schedule, data, on_step) that returns (pixels, scores, finite gradients).
    """

    def climb(
        parameters: Tensor, state: Any, schedule: Any, data: Any, on_step: Callable[[], None] | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        scores, finite = [], []
        with eagerly():
            for t in range(len(next(iter(schedule.values())))):
                now = {name: array[t] for name, array in schedule.items()}
                values, gradient = value_and_gradient(lambda x, now=now: network.score(x, now, data), parameters)
                with torch.no_grad():
                    parameters, state = network.update(parameters, gradient, state, now)
                    scores.append(values)
                    finite.append(network.finite(gradient))
                if on_step is not None:
                    on_step()
            with torch.no_grad():
                return network.display(parameters, data), torch.stack(scores), torch.stack(finite)

    return climb
