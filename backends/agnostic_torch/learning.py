"""Gradients of a loss, and what an optimizer makes of them; see :mod:`agnostic.compare.learning`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from agnostic.optimizers.build import build
from agnostic_torch.layers import unwrap
from agnostic_torch.taps import _arguments, leaves, to_numpy
from agnostic_torch.weights import set_state


def gradients(model: nn.Module, inputs: Any) -> dict[str, np.ndarray[Any, Any]]:
    """See :meth:`agnostic.contracts.learning.LearningSteps.gradients`."""
    model = unwrap(model)
    with _restored(model):
        _backward(model, inputs)
        return {name: to_numpy(p.grad) for name, p in model.named_parameters() if p.grad is not None}


def steps(
    model: nn.Module, inputs: Any, spec: Any, rates: Sequence[float]
) -> Iterator[tuple[dict[str, np.ndarray[Any, Any]], dict[str, np.ndarray[Any, Any]]]]:
    """See :meth:`agnostic.contracts.learning.LearningSteps.steps`."""
    model = unwrap(model)
    with _restored(model):
        optimizer = build(spec, model)
        for rate in rates:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.zero_grad()
            _backward(model, inputs)
            # Some optimizers work on the gradients in place.
            used = {name: np.array(to_numpy(p.grad)) for name, p in model.named_parameters() if p.grad is not None}
            optimizer.step()
            yield used, {name: np.array(to_numpy(p)) for name, p in model.named_parameters()}


def _backward(model: nn.Module, inputs: Any) -> None:
    args, kwargs = _arguments(model, inputs)
    with torch.enable_grad():
        outputs = [x for x in leaves(model(*args, **kwargs)) if x.is_floating_point() and x.requires_grad]
        terms = [x.square().mean() / 2 for x in outputs]
        if terms:
            torch.stack(terms).sum().backward()


@contextlib.contextmanager
def _restored(model: nn.Module) -> Iterator[None]:
    """Weights, statistics and gradients are as before afterwards, and so are random numbers."""
    state = {name: x.clone() for name, x in model.state_dict().items() if isinstance(x, Tensor)}
    before = [(p, p.grad) for p in model.parameters()]
    devices = sorted({x.device.index for x in model.parameters() if x.device.type == "cuda"})
    try:
        with torch.random.fork_rng(devices=devices):
            for p, _ in before:
                p.grad = None
            yield
    finally:
        set_state(model, state)
        for p, gradient in before:
            p.grad = gradient
