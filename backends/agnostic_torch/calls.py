"""Calls of torch modules, intercepted; see :mod:`agnostic.compare.calls`."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from agnostic.compare.calls import Around
from agnostic.compare.layouts import Layout
from agnostic_torch.layers import Axes, named_layers, unwrap
from agnostic_torch.taps import Eager, _arguments, _mapped, leaves, to_numpy


class ModuleCall:
    """See :class:`agnostic.compare.calls.Call`."""

    def __init__(
        self, name: str, number: int, forward: Callable[..., Any], given: tuple[Any, Any], tracker: Tracker
    ) -> None:
        self.name, self.number = name, number
        self._forward, self._given, self._tracker = forward, given, tracker
        self.arrays = tuple(x for x in leaves(given) if x.dtype != torch.bool)
        self.layouts = tuple(tracker.of_input(name, x) for x in self.arrays)
        self._output: Any = None

    def run(self, arrays: Sequence[Tensor] | None = None) -> tuple[Tensor, ...]:
        """See :meth:`agnostic.compare.calls.Call.run`."""
        args, kwargs = self._given if arrays is None else _replaced(self._given, arrays)
        self._output = self._forward(*args, **kwargs)
        return tuple(x for x in leaves(self._output) if x.dtype != torch.bool)

    def output_layouts(self, outputs: Sequence[Tensor]) -> tuple[Layout, ...]:
        """See :meth:`agnostic.compare.calls.Call.output_layouts`."""
        return self._tracker.of_outputs(self.name, self.arrays, self.layouts, outputs)

    def returned(self, arrays: Sequence[Tensor]) -> Any:
        """The structure that the layer returned last, with these arrays in it."""
        self.output_layouts(arrays)  # what comes next is laid out after these, whether or not somebody asked
        return _replaced(self._output, arrays)


def _replaced(structure: Any, arrays: Sequence[Tensor]) -> Any:
    rest = iter(arrays)
    return _mapped(lambda x: x if x.dtype == torch.bool else next(rest), structure)


class Tracker:
    """Follows the layouts of arrays from module to module."""

    def __init__(self, model: nn.Module) -> None:
        self._axes, self._modules = Axes(model), named_layers(model)
        # Of flattened arrays: by shape, the letters and lengths inside.
        self._flat: dict[tuple[int, ...], Layout] = {}
        self._spatial: tuple[str, tuple[int, ...]] | None = None

    def of_input(self, name: str, x: Tensor) -> Layout:
        """The layout of an array that a module is called with."""
        shape = tuple(x.shape)
        if x.ndim == 2 and (flat := self._flattened(shape)) is not None:
            return flat
        axes = self._axes._own(name, self._modules[name], x) or self._axes._inherited(x)
        self._see(axes, shape)
        return Layout(axes)

    def of_outputs(
        self, name: str, arrays: Sequence[Tensor], layouts: Sequence[Layout], outputs: Sequence[Tensor]
    ) -> tuple[Layout, ...]:
        """The layouts of what a module returned."""
        found = []
        module = self._modules[name]
        for output in outputs:
            shape = tuple(output.shape)
            if output.ndim == 2 and type(module).__name__ != "Linear" and (flat := self._flattened(shape)) is not None:
                found.append(flat)
                continue
            if output.ndim == 2:
                self._flat.pop(shape, None)
            axes = self._axes.of(name, module, True, tuple(arrays[:1]), output)
            self._see(axes, shape)
            found.append(Layout(axes))
        return tuple(found)

    def _see(self, axes: str | None, shape: tuple[int, ...]) -> None:
        if axes in ("NCHW", "NCDHW", "NHWC", "NDHWC") and math.prod(shape[2:]) > 1:
            self._spatial = axes, shape
            flat = (shape[0], math.prod(shape[1:]))
            self._flat[flat] = Layout(f"N({axes[1:]})", shape[1:])

    def _flattened(self, shape: tuple[int, ...]) -> Layout | None:
        """Its layout. A number for each channel of the last image is a mean of that, no older image flattened."""
        flat = self._flat.get(shape)
        if flat is not None and self._spatial is not None:
            axes, last = self._spatial
            if last[axes.index("C")] == shape[1] and flat.inner != last[1:]:
                self._flat.pop(shape)
                return None
        return flat


@contextlib.contextmanager
def intercept(model: nn.Module, names: Sequence[str], around: Around) -> Iterator[None]:
    """See :meth:`agnostic.backend.Backend.intercept`."""
    model = unwrap(model)
    tracker, counts = Tracker(model), dict[str, int]()
    changed: list[tuple[dict[str, Any], Any]] = []
    try:
        modules = named_layers(model)
        for name in names:
            module = modules[name]
            changed.append((vars(module), vars(module).get("forward")))
            vars(module)["forward"] = _wrapped(name, module.forward, tracker, counts, around)
        with Eager():
            yield
    finally:
        for attributes, before in reversed(changed):
            if before is None:
                attributes.pop("forward", None)
            else:
                attributes["forward"] = before


def _wrapped(
    name: str, forward: Callable[..., Any], tracker: Tracker, counts: dict[str, int], around: Around
) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        number = counts.get(name, 0)
        counts[name] = number + 1
        one = ModuleCall(name, number, forward, (args, kwargs), tracker)
        return one.returned(around(one))

    return call


def run(model: nn.Module, inputs: Any, seed: int) -> tuple[Tensor, ...]:
    """See :meth:`agnostic.backend.Backend.run`."""
    model = unwrap(model)
    args, kwargs = _arguments(model, inputs)
    buffers = [(x, x.clone()) for x in model.buffers()]
    devices = sorted({x.device.index for x in model.parameters() if x.device.type == "cuda"})
    with torch.random.fork_rng(devices=devices), torch.no_grad():
        torch.random.default_generator.manual_seed(seed)
        for device in devices:
            torch.cuda.default_generators[device].manual_seed(seed)
        try:
            return tuple(x for x in leaves(model(*args, **kwargs)) if x.dtype != torch.bool)
        finally:
            # In training mode a batch norm counts and averages.
            for buffer, before in buffers:
                buffer.copy_(before)


@contextlib.contextmanager
def in_float64(model: nn.Module) -> Iterator[bool]:
    """See :meth:`agnostic.backend.Backend.in_float64`; exact, since each float32 number is a float64 number."""
    model = unwrap(model)
    changed: list[tuple[Tensor, Tensor]] = []
    try:
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point() and tensor.dtype != torch.float64:
                changed.append((tensor, tensor.data))
                tensor.data = tensor.data.double()
        yield True
    finally:
        for tensor, before in changed:
            tensor.data = before


def is_training(model: nn.Module) -> bool:
    """See :meth:`agnostic.backend.Backend.is_training`."""
    return any(module.training for module in unwrap(model).modules())


def numpy(x: Tensor) -> np.ndarray[Any, Any]:
    """Without a copy where the memory is the main one's."""
    found: np.ndarray[Any, Any] = to_numpy(x)
    return found


def native(x: np.ndarray[Any, Any], like: Tensor, dtype: str | None = None) -> Tensor:
    """On the device of another array, in its type or the named one."""
    array = np.ascontiguousarray(x)
    if not array.flags.writeable:
        array = array.copy()
    return torch.from_numpy(array).to(like.device, like.dtype if dtype is None else getattr(torch, dtype))


def versions() -> Mapping[str, str]:
    """See :meth:`agnostic.backend.Backend.versions`."""
    return {"torch": torch.__version__}
