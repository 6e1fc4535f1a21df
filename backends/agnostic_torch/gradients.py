"""Gradients in PyTorch; see :mod:`agnostic.gradients`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from agnostic_torch.ops import TorchOps

Tensor = torch.Tensor
Function = Callable[..., list[Tensor]]
Cotangents = Callable[[list[Tensor]], list[Tensor]]


def ops_for(arrays: Sequence[Any]) -> TorchOps:
    """The operations for the device of the first tensor."""
    return TorchOps(next((x.device for x in arrays if isinstance(x, Tensor)), "cpu"))


def pullback(function: Function, inputs: Sequence[Tensor], cotangents: Cotangents) -> list[Tensor | None]:
    """The gradients of the weighted sum of the outputs; None for an input that is not connected."""
    # New leaves: the caller's own .grad, and the graph that leads to its tensors, stay as they are.
    leaves = [x.detach().requires_grad_() for x in inputs]
    with torch.enable_grad():
        outputs = function(*leaves)
    weights = cotangents(outputs)
    followed = [(y, w) for y, w in zip(outputs, weights, strict=True) if y.requires_grad]
    if not followed:
        return [None] * len(inputs)
    ys, ws = zip(*followed, strict=True)
    return list(torch.autograd.grad(ys, leaves, ws, allow_unused=True))


def per_sample(
    function: Function, inputs: Sequence[Tensor], batch: Sequence[Tensor], cotangents: Cotangents
) -> list[Tensor]:
    """(N, ...) gradients; zeros for an input that is not connected."""

    def total(x: tuple[Tensor, ...], rows: tuple[Tensor, ...]) -> Tensor:
        outputs = function(*x, *rows)
        terms = [(y * w).sum() for y, w in zip(outputs, cotangents(outputs), strict=True)]
        return torch.stack(terms).sum()

    detached = tuple(x.detach() for x in inputs)
    return list(torch.func.vmap(torch.func.grad(total), (None, 0))(detached, tuple(batch)))


def jacobian(function: Function, inputs: Sequence[Tensor]) -> list[list[Tensor]]:
    """For each output, for each input: (*output, *input)."""
    detached = tuple(x.detach() for x in inputs)
    rows = torch.func.jacrev(lambda *x: tuple(function(*x)), tuple(range(len(inputs))))(*detached)
    return [list(row) for row in rows]
