"""Keras on PyTorch: eager autograd."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from agnostic_keras.engines import pads

Tensor = torch.Tensor
tanh = torch.tanh


def irfft2(real: Tensor, imaginary: Tensor, shape: tuple[int, int]) -> Tensor:
    """See :meth:`agnostic.ops.Ops.irfft2`."""
    return torch.fft.irfft2(torch.complex(real, imaginary), s=shape, norm="ortho")


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


def without_gradients(function: Callable[[Any], Any], inputs: Any) -> Any:
    """``function(inputs)``, run eagerly, nothing kept for a backward pass."""
    with eagerly(), torch.no_grad():
        return function(inputs)


shapes = without_gradients
"""Run a function for the shapes that it meets: on PyTorch not every operation has a meta form, so for its values."""


def eagerly() -> contextlib.AbstractContextManager[Any]:
    """Compiled code runs as it was written inside; a tap inside of it would be missed."""
    if "torch._dynamo" not in sys.modules or torch.compiler.is_compiling():
        return contextlib.nullcontext()
    return torch.compiler.set_stance("force_eager")


def climber(network: Any) -> Callable[..., Any]:
    """The ascent of a micro-batch as a loop of eager autograd."""

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


# Layers: Keras copies into another memory format before each, and back after it ---------------------------------------
def convolution(layer: Any, x: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
    """See :mod:`agnostic_keras.engines`."""
    depthwise = hasattr(layer, "depth_multiplier")
    weight = kernel.permute(2, 3, 0, 1).flatten(0, 1)[:, None] if depthwise else kernel.permute(3, 2, 0, 1)
    x, padding = _padded(layer, x, kernel.shape[:2], 0.0)
    options = layer.strides, padding, layer.dilation_rate, x.shape[1] // weight.shape[1]
    return F.conv2d(x, weight, bias, *options).permute(0, 2, 3, 1)


def max_pool(layer: Any, x: Tensor) -> Tensor:
    """See :mod:`agnostic_keras.engines`."""
    x, padding = _padded(layer, x, layer.pool_size, float("-inf"))
    return F.max_pool2d(x, layer.pool_size, layer.strides, padding).permute(0, 2, 3, 1)


def _padded(layer: Any, x: Tensor, window: Sequence[int], value: float) -> tuple[Tensor, Any]:
    """PyTorch's view of the input, padded where two sides differ, and what the operation itself is to pad."""
    x = x.permute(0, 3, 1, 2)
    (top, bottom), (left, right) = pads(layer, x.shape[2:], window)
    same = top == bottom and left == right
    return (x, (top, left)) if same else (F.pad(x, (left, right, top, bottom), value=value), 0)


# Gradients; see agnostic_keras.gradients -----------------------------------------------------------------------------
def pullback(
    function: Callable[..., list[Tensor]],
    inputs: Sequence[Tensor],
    cotangents: Callable[[list[Tensor]], list[Tensor]],
) -> list[Tensor | None]:
    """See :func:`agnostic_keras.gradients.pullback`."""
    leaves = [x.detach().requires_grad_() for x in inputs]
    with torch.enable_grad():
        outputs = function(*leaves)
    followed = [(y, w) for y, w in zip(outputs, cotangents(outputs), strict=True) if y.requires_grad]
    if not followed:
        return [None] * len(inputs)
    ys, ws = zip(*followed, strict=True)
    return list(torch.autograd.grad(ys, leaves, ws, allow_unused=True))


def per_sample(
    function: Callable[..., list[Tensor]],
    inputs: Sequence[Tensor],
    batch: Sequence[Tensor],
    cotangents: Callable[[list[Tensor]], list[Tensor]],
) -> list[Tensor]:
    """See :func:`agnostic_keras.gradients.per_sample`."""

    def total(x: tuple[Tensor, ...], rows: tuple[Tensor, ...]) -> Tensor:
        outputs = function(*x, *rows)
        return torch.stack([(y * w).sum() for y, w in zip(outputs, cotangents(outputs), strict=True)]).sum()

    return list(torch.func.vmap(torch.func.grad(total), (None, 0))(tuple(x.detach() for x in inputs), tuple(batch)))


def jacobian(function: Callable[..., list[Tensor]], inputs: Sequence[Tensor]) -> list[list[Tensor]]:
    """See :func:`agnostic_keras.gradients.jacobian`."""
    detached = tuple(x.detach() for x in inputs)
    rows = torch.func.jacrev(lambda *x: tuple(function(*x)), tuple(range(len(inputs))))(*detached)
    return [list(row) for row in rows]
