"""Stopping PyTorch at the first array that is not finite: layers, loss terms, gradients. See :mod:`agnostic.guards`."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.overrides import TorchFunctionMode

from agnostic import guards
from agnostic.patching import patched
from agnostic_torch import values
from agnostic_torch.layers import named_layers, unwrap
from agnostic_torch.ops import TorchOps
from agnostic_torch.taps import eager, hooks, leaves


def is_finite(x: Tensor) -> bool:
    """Whether all numbers in a tensor are finite; integers are, and the meta device has no numbers."""
    if not (x.is_floating_point() or x.is_complex()) or x.device.type == "meta":
        return True
    return all(_is_finite(part) for part in values.parts(x))


def _is_finite(x: Tensor) -> bool:
    if x.dtype.itemsize < 2:
        x = x.float()  # few operations know the smallest types
    return guards.is_finite(TorchOps(x.device), torch.view_as_real(x.resolve_conj()) if x.is_complex() else x)


def _numpy(x: Tensor) -> Any:
    arrays = [values.to_numpy(part) for part in values.parts(x)]
    return arrays[0] if len(arrays) == 1 else np.concatenate([array.ravel() for array in arrays])


@contextlib.contextmanager
def guard(model: nn.Module) -> Iterator[None]:
    """See :meth:`agnostic.contracts.guards.Guards.guard`.

    A loss term is a scalar that depends on weights, made outside the model's layers. A GradScaler expects infinite
    gradients and leaves out their steps: where one scales the loss, gradients are looked at when a step is made.
    """
    model = unwrap(model)
    layers = {**named_layers(model), "": model}
    flow = guards.Flow(_numpy, is_finite, lambda x: x._base, "torch")
    thread = threading.get_ident()

    def enter(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any) -> None:
            if threading.get_ident() == thread:
                flow.enter(name)

        return hook

    with eager(), hooks() as handles, _scaled() as scaled:
        watching = _Gradients(model, scaled)
        for path, module in layers.items():
            name = path or type(model).__name__
            handles.append(module.register_forward_pre_hook(enter(name)))
            after = _after(name, flow, watching)
            handles.append(module.register_forward_hook(after, with_kwargs=True, always_call=True))
        handles += watching.on_parameters()
        handles.append(register_optimizer_step_pre_hook(watching.before_step))
        try:
            with _Operations(flow):
                yield
        finally:
            watching.active = False


def _after(name: str, flow: guards.Flow, watching: _Gradients) -> Callable[..., None]:
    thread = threading.get_ident()

    def hook(module: nn.Module, args: Any, *rest: Any) -> None:
        if threading.get_ident() != thread:
            return
        # After an error in the layer there is no output.
        kwargs, output = rest if len(rest) == 2 else ({}, None)
        found = list(leaves(output))

        def look() -> str:
            given = [("input", is_finite(i)) for i in leaves((args, kwargs))]
            own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
            return guards.cause(given, [(n, is_finite(w)) for n, w in own])

        flow.leave(name, found, look)
        # The backward pass computes checkpointed parts again: their outputs are hooked already.
        if torch._C._current_graph_task_id() == -1:
            for x in found:
                if x.requires_grad:
                    x.register_hook(watching.hook(name, "what follows the layer has no finite derivative here"))

    return hook


class _Gradients:
    """Checks of gradients as they come in the backward pass."""

    def __init__(self, model: nn.Module, scaled: Callable[[], bool]) -> None:
        self.active, self._scaled = True, scaled
        self._parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._names = {id(p): name for name, p in self._parameters.items()}

    def hook(self, name: str, look: str) -> Callable[[Tensor], None]:
        """A hook for a tensor whose gradient is named ``name``."""

        def check(gradient: Tensor) -> None:
            if self.active and not self._scaled() and not is_finite(gradient):
                raise guards.error("gradient", name, _numpy(gradient), look=look)

        return check

    def on_parameters(self) -> Iterator[Any]:
        """The handles of hooks on every parameter."""
        for name, p in self._parameters.items():
            yield p.register_hook(
                self.hook(name, "what reaches the layer is finite: its product with what it was given is not")
            )

    def before_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        """Look at what a loss scale lets pass: it makes no step with infinite gradients."""
        if not (self.active and self._scaled()):
            return
        for group in optimizer.param_groups:
            for p in group["params"]:
                if p.grad is not None and not is_finite(p.grad):
                    raise guards.error("gradient", self._names.get(id(p), "of an unnamed parameter"), _numpy(p.grad))


@contextlib.contextmanager
def _scaled() -> Iterator[Callable[[], bool]]:
    """Whether a loss was scaled inside."""
    seen: list[bool] = []

    def scale(original: Callable[..., Any], self: Any, outputs: Any) -> Any:
        if self.is_enabled() and not seen:
            seen.append(True)
        return original(self, outputs)

    with patched([(torch.amp.GradScaler, "scale", scale)]):
        yield lambda: bool(seen)


class _Operations(TorchFunctionMode):
    """Follows numbers that are not finite, and stops at the first loss term that they reach, outside of layers."""

    def __init__(self, flow: guards.Flow) -> None:
        super().__init__()
        self._flow = flow

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (Tensor.backward, torch.autograd.grad, torch.autograd.backward):
            for x in leaves(args[0] if args else next(iter(kwargs.values()))):
                self._check(x, "loss")
            return func(*args, **kwargs)
        return follow(self._flow, func, args, kwargs, self._check)

    def _check(self, x: Tensor, name: str) -> None:
        # An infinity in a mask is no mistake, and neither is a NaN that is thrown away: a scalar is what is left.
        if is_finite(x):
            return
        line, place = guards.caller("torch")
        look = self._flow.look(x, "the layers before it are finite")
        raise guards.error("loss term", line or name, _numpy(x), when=f"({place})", look=look)


def follow(
    flow: guards.Flow, func: Any, args: Any, kwargs: Any, scalar: Callable[[Tensor, str], None] | None = None
) -> Any:
    """Run an operation for a :class:`torch.overrides.TorchFunctionMode`, and tell ``flow`` of it.

    Args:
        scalar: called with what may be a loss term, and the operation's name.
    """
    given = list(leaves((args, kwargs)))
    versions = [None if x.is_inference() else x._version for x in given]
    result = func(*args, **kwargs)
    changed = [x for x, v in zip(given, versions, strict=True) if v is not None and x._version != v]
    name = getattr(func, "__name__", str(func)).strip("_")
    written = any(isinstance(x, float) and not math.isfinite(x) for x in (*args, *kwargs.values()))
    outputs = [x for x in (*leaves(result), *changed) if x.is_floating_point() or x.is_complex()]
    flow.operation(name, [x for x in given if x.is_floating_point()], outputs, written=written)
    is_term = isinstance(result, Tensor) and result.ndim == 0 and result.requires_grad
    if scalar is not None and is_term and not flow.inside:
        scalar(result, name)
    return result
