"""Gradients in PyTorch; see :mod:`agnostic.gradients`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import torch

from agnostic.errors import InvalidInput

Tensor = torch.Tensor
Function = Callable[..., list[Tensor]]
Cotangents = Callable[[list[Tensor]], list[Tensor]]


def pullback(function: Function, inputs: Sequence[Tensor], cotangents: Cotangents) -> list[Tensor | None]:
    """The gradients of the weighted sum of the outputs; None for an input that is not connected."""
    with differentiable():
        # New leaves: the caller's own .grad, and the graph that leads to its tensors, stay as they are.
        leaves = [x.requires_grad_() for x in detached(inputs)]
        outputs = function(*leaves)
        weights = cotangents(outputs)
        followed = [(y, w) for y, w in zip(outputs, weights, strict=True) if y.requires_grad]
        if not followed:
            return [None] * len(inputs)
        ys, ws = zip(*followed, strict=True)
        return list(torch.autograd.grad(ys, leaves, ws, allow_unused=True))


@contextlib.contextmanager
def differentiable() -> Iterator[None]:
    """Inside, gradients are kept, also where torch.no_grad or torch.inference_mode is in force around.

    Raises:
        InvalidInput: what is differentiated uses tensors that were made in inference mode.
    """
    with torch.inference_mode(False), torch.enable_grad():
        try:
            yield
        except RuntimeError as error:
            if "Inference tensors cannot be saved for backward" not in str(error):
                raise
            raise InvalidInput(
                "the function uses tensors that were made inside torch.inference_mode, such as a model's weights, and "
                "PyTorch keeps no gradients through them: make the model outside of it, or give clones"
            ) from error


def detached(inputs: Sequence[Tensor]) -> list[Tensor]:
    """Arrays without their graphs; those of inference mode as copies, which can be differentiated."""
    with torch.inference_mode(False):
        return [x.clone() if x.is_inference() else x.detach() for x in inputs]


def per_sample(
    function: Function, inputs: Sequence[Tensor], batch: Sequence[Tensor], cotangents: Cotangents
) -> list[Tensor]:
    """(N, ...) gradients; zeros for an input that is not connected."""

    def total(x: tuple[Tensor, ...], rows: tuple[Tensor, ...]) -> Tensor:
        outputs = function(*x, *rows)
        terms = [(y * w).sum() for y, w in zip(outputs, cotangents(outputs), strict=True)]
        return torch.stack(terms).sum()

    with differentiable():
        per_row = torch.func.vmap(torch.func.grad(total), (None, 0))
        return list(per_row(tuple(detached(inputs)), tuple(detached(batch))))


def jacobian(function: Function, inputs: Sequence[Tensor]) -> list[list[Tensor]]:
    """For each output, for each input: (*output, *input)."""
    with differentiable():
        derivative = torch.func.jacrev(lambda *x: tuple(function(*x)), tuple(range(len(inputs))))
        return [list(row) for row in derivative(*detached(inputs))]
