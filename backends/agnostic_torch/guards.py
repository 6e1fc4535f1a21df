"""Stopping PyTorch at the first array that is not finite: layers, loss terms, gradients. See :mod:`agnostic.guards`."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.overrides import TorchFunctionMode

from agnostic import guards
from agnostic.errors import NonFinite
from agnostic.patching import patched
from agnostic_torch import values
from agnostic_torch.layers import named_layers, unwrap
from agnostic_torch.ops import TorchOps
from agnostic_torch.taps import Eager, hooks, leaves


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
    """See :meth:`agnostic.backend.Backend.guard`.

    A loss term is a scalar that depends on weights, made outside the model's layers. A GradScaler expects infinite
    gradients and leaves out their steps: where one scales the loss, gradients are looked at when a step is made.
    """
    model = unwrap(model)
    layers = {**named_layers(model), "": model}
    with Eager(), hooks() as handles, _scaled() as scaled:
        watching = _Gradients(model, scaled)
        inside = _Inside()
        for name, module in layers.items():
            handles.append(module.register_forward_pre_hook(inside.enter))
            after = _after(name or type(model).__name__, inside, watching)
            handles.append(module.register_forward_hook(after, with_kwargs=True, always_call=True))
        handles += watching.on_parameters()
        handles.append(register_optimizer_step_pre_hook(watching.before_step))
        try:
            with Losses(inside):
                yield
        finally:
            watching.active = False


class _Inside:
    """How deep in the model's layers this thread is."""

    def __init__(self) -> None:
        self.depth, self.thread = 0, threading.get_ident()

    def __bool__(self) -> bool:
        return self.depth > 0

    def enter(self, module: nn.Module, args: Any) -> None:
        self.depth += threading.get_ident() == self.thread


def _after(name: str, inside: _Inside, watching: _Gradients) -> Callable[..., None]:
    def hook(module: nn.Module, args: Any, *rest: Any) -> None:
        if threading.get_ident() != inside.thread:
            return
        inside.depth -= 1
        # After an error in the layer there is no output.
        kwargs, output = rest if len(rest) == 2 else ({}, None)
        if output is None:
            return
        found = list(leaves(output))
        for x in found:
            if not is_finite(x):
                given = [("input", is_finite(i)) for i in leaves((args, kwargs))]
                own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
                look = guards.cause(given, [(n, is_finite(w)) for n, w in own])
                raise guards.error("layer", name, _numpy(x), look=look)
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


class Losses(TorchFunctionMode):
    """Stops at the first scalar that depends on weights, outside of a model's layers, that is not finite."""

    def __init__(self, inside: Any) -> None:
        """``inside`` is true while a layer runs, which is looked at by itself."""
        super().__init__()
        self._inside = inside
        self._first: str | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (Tensor.backward, torch.autograd.grad, torch.autograd.backward):
            self._before_backward(args[0] if args else next(iter(kwargs.values())))
        result = func(*args, **(kwargs or {}))
        if not self._inside and isinstance(result, Tensor) and result.requires_grad and not is_finite(result):
            name = getattr(func, "__name__", str(func)).strip("_")
            line, place = guards.caller("torch")
            if self._first is None:
                self._first = f"{name} at {place}"
            # An infinity in a mask is no mistake, and neither is a NaN that is thrown away: a scalar is what is left.
            if result.ndim == 0:
                raise self._error(result, line or name, place)
        return result

    def _before_backward(self, outputs: Any) -> None:
        for x in leaves(outputs):
            if not is_finite(x):
                line, place = guards.caller("torch")
                raise self._error(x, line or "loss", place)

    def _error(self, x: Tensor, line: str, place: str) -> NonFinite:
        look = "the layers before it are finite"
        if self._first is not None:
            look = f"the operation that first gave such a number is {self._first}"
        return guards.error("loss term", line, _numpy(x), when=f"({place})", look=look)
