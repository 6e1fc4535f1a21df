"""Calls of torch modules, intercepted; see :mod:`agnostic.compare.calls`."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from agnostic.compare.calls import Around
from agnostic.compare.layouts import Layout
from agnostic_torch.layers import named_layers, unwrap
from agnostic_torch.taps import STANDARD, _arguments, _mapped, eager, leaves, to_numpy


class ModuleCall:
    """See :class:`agnostic.compare.calls.LayerCall`."""

    def __init__(
        self, name: str, number: int, forward: Callable[..., Any], given: tuple[Any, Any], tracker: Tracker
    ) -> None:
        self.name, self.number = name, number
        self._forward, self._given, self._tracker = forward, given, tracker
        self.arrays = tuple(x for x in leaves(given) if x.dtype != torch.bool)
        self.layouts = tuple(tracker.of_input(name, x) for x in self.arrays)
        self._output: Any = None

    def run(self, arrays: Sequence[Tensor] | None = None) -> tuple[Tensor, ...]:
        """See :meth:`agnostic.compare.calls.LayerCall.run`."""
        args, kwargs = self._given if arrays is None else _replaced(self._given, arrays)
        self._output = self._forward(*args, **kwargs)
        return tuple(x for x in leaves(self._output) if x.dtype != torch.bool)

    def output_layouts(self, outputs: Sequence[Tensor]) -> tuple[Layout, ...]:
        """See :meth:`agnostic.compare.calls.LayerCall.output_layouts`."""
        return self._tracker.of_outputs(self.name, self.arrays, self.layouts, outputs)

    def returned(self, arrays: Sequence[Tensor]) -> Any:
        """The structure that the layer returned last, with these arrays in it."""
        self.output_layouts(arrays)  # what comes next is laid out after these, whether or not somebody asked
        return _replaced(self._output, arrays)


def _replaced(structure: Any, arrays: Sequence[Tensor]) -> Any:
    rest = iter(arrays)
    return _mapped(lambda x: x if x.dtype == torch.bool else next(rest), structure)


_CHANNELS_FIRST = {1: "NCL", 2: "NCHW", 3: "NCDHW"}
_CHANNELS_LAST = {2: "NC", 3: "NLC", 4: "NHWC", 5: "NDHWC"}
_UNKNOWN = {0: "", 1: "N", 2: "NC", 3: "NLC", 4: "NCHW", 5: "NCDHW"}
# Modules that put the features last, whatever their input; by class name, so that subclasses elsewhere count as well.
_FEATURES_LAST = {"Linear", "Bilinear", "LayerNorm", "RMSNorm", "Embedding", "EmbeddingBag", "MultiheadAttention"}


class _Axes:
    """The letters of the dimensions of each module's output, as far as kinds of modules and shapes suggest them."""

    def __init__(self, model: nn.Module) -> None:
        # The last output of each number of dimensions: its letters and its shape.
        self._last: dict[int, tuple[str, tuple[int, ...]]] = {}
        # Modules inside of one that has the sequence first.
        self._sequence_first: set[str] = set()
        for name, module in model.named_modules():
            if any(getattr(x, "batch_first", True) is False for x in (module, getattr(module, "self_attn", None))):
                self._sequence_first.update(f"{name}.{x}".strip(".") for x, _ in module.named_modules())

    def of(self, name: str, module: nn.Module, leaf: bool, args: tuple[Any, ...], output: Any) -> str | None:
        """The letters of a layer's output, None for an output that is no array or has more dimensions than letters."""
        if not _is_array(output):
            for tensor in _arrays(output)[:1]:
                self._remember(tensor, self._own(name, module, tensor) or self._inherited(tensor))
            return None
        axes = (self._own(name, module, output) or self._moved(module, args, output)) if leaf else None
        axes = axes or self._inherited(output)
        self._remember(output, axes)
        return axes

    def _remember(self, output: Tensor, axes: str | None) -> None:
        if axes is not None:
            self._last[output.ndim] = (axes, tuple(output.shape))

    def _own(self, name: str, module: nn.Module, output: Tensor) -> str | None:
        """What the kind of a layer alone tells."""
        for cls in type(module).__mro__:
            spatial = re.search(r"([123])d$", cls.__name__)
            if spatial:
                axes = _CHANNELS_FIRST[int(spatial[1])]
                # One dimension less is an input without a batch, but two dimensions are a batch of features.
                if output.ndim == len(axes):
                    return axes
                return axes[1:] if 2 < output.ndim == len(axes) - 1 else None
            if cls.__name__ in _FEATURES_LAST and len(getattr(module, "normalized_shape", (1,))) == 1:
                if output.ndim == 3 and (name in self._sequence_first or self._follows("LNC", output)):
                    return "LNC"
                return _CHANNELS_LAST.get(output.ndim)
        return None

    def _follows(self, axes: str, output: Tensor) -> bool:
        """Whether the last output had these axes and the same length of all but the channels."""
        last, shape = self._last.get(output.ndim, (None, ()))
        return last == axes and all(a == b for a, b, x in zip(shape, output.shape, axes, strict=True) if x != "C")

    def _moved(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> str | None:
        """The letters after a module that only moves or merges dimensions."""
        if not args or not _is_array(args[0]) or args[0].ndim not in self._last:
            return None
        before = self._last[args[0].ndim][0]
        dims = getattr(module, "dims", None)
        if type(module).__name__ == "Permute" and dims is not None and len(dims) == output.ndim == len(before):
            return "".join(before[d] for d in dims)
        if isinstance(module, nn.Flatten) and output.ndim == 3 and before == "NCHW":
            return "NCL"
        return None

    def _inherited(self, output: Tensor) -> str | None:
        """The letters of the last output with as many dimensions, moved where its shape says so."""
        axes, shape = self._last.get(output.ndim, (_UNKNOWN.get(output.ndim), None))
        if axes is None or shape is None or "C" not in axes or tuple(output.shape) == shape:
            return axes
        # A function that moves the channels between two modules shows in the shape alone.
        channels, other = shape[axes.index("C")], axes[0] + _swap(axes[1:])
        if output.shape[axes.index("C")] != channels and output.shape[other.index("C")] == channels:
            return other
        return axes


def _swap(axes: str) -> str:
    """Channels first to channels last and back, the batch left out."""
    return axes[1:] + "C" if axes.startswith("C") else "C" + axes.replace("C", "")


def _is_array(x: Any) -> bool:
    """Whether something is a tensor with a shape: the parts of a nested one have several."""
    return isinstance(x, Tensor) and not x.is_nested


def _arrays(output: Any) -> list[Tensor]:
    if _is_array(output):
        return [output]
    if isinstance(output, Mapping):
        output = tuple(output.values())
    return [x for x in output if _is_array(x)] if isinstance(output, tuple | list) else []


class Tracker:
    """Follows the layouts of arrays from module to module."""

    def __init__(self, model: nn.Module) -> None:
        self._axes, self._modules = _Axes(model), named_layers(model)
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
    """See :meth:`agnostic.contracts.calls.Calls.intercept`."""
    model = unwrap(model)
    tracker, counts = Tracker(model), dict[str, int]()
    changed: list[tuple[dict[str, Any], Any]] = []
    try:
        modules = named_layers(model)
        for name in names:
            module = modules[name]
            changed.append((vars(module), vars(module).get("forward")))
            vars(module)["forward"] = _wrapped(name, module.forward, tracker, counts, around)
        with eager():
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


def run(model: nn.Module, inputs: Any, seed: int = 0) -> tuple[Tensor, ...]:
    """See :meth:`agnostic.contracts.calls.Calls.run`."""
    return tuple(x for x in returned(model, inputs, seed) if x.dtype != torch.bool)


def returned(model: nn.Module, inputs: Any, seed: int = 0) -> tuple[Tensor, ...]:
    """See :meth:`agnostic.contracts.calls.Calls.returned`."""
    model = unwrap(model)
    args, kwargs = _arguments(model, inputs)
    devices = sorted({x.device.index for x in model.parameters() if x.device.type == "cuda"})
    with torch.random.fork_rng(devices=devices), torch.no_grad(), unchanged(model):
        torch.default_generator.manual_seed(seed)
        for device in devices:
            torch.cuda.default_generators[device].manual_seed(seed)
        return tuple(leaves(model(*args, **kwargs)))


@contextlib.contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """What a forward changes is put back: the statistics of a batch norm in training mode, and the tensors that modules
    keep in attributes and buffers for the next call, such as positions for images of this size and type.
    """
    buffers = [(x, x.clone()) for x in model.buffers()]
    modules = [module for module in model.modules() if not isinstance(module, torch.jit.ScriptModule)]
    held = [(module, dict(vars(module)), dict(module._buffers)) for module in modules]
    containers = [(x, x.copy()) for x in {id(x): x for module in modules for x in _containers(_own(module))}.values()]
    try:
        yield
    finally:
        for module, attributes, own in held:
            for name in vars(module).keys() - attributes.keys():
                del vars(module)[name]
            vars(module).update(attributes)
            module._buffers.clear()
            module._buffers.update(own)
        for container, before in containers:
            container.clear()
            container.update(before) if isinstance(container, dict) else container.extend(before)
        with torch.no_grad():
            for buffer, kept in buffers:
                buffer.copy_(kept)


def _own(module: nn.Module) -> dict[str, Any]:
    """The attributes of a module that not every module has."""
    return {name: value for name, value in vars(module).items() if name not in STANDARD}


def _containers(value: Any, inside: tuple[int, ...] = ()) -> Iterator[Any]:
    """The lists and dicts in a value, outermost first."""
    if type(value) not in (dict, list, tuple) or id(value) in inside:
        return  # other classes may refuse to be emptied
    if type(value) is not tuple:
        yield value
    for part in value.values() if isinstance(value, dict) else value:
        yield from _containers(part, (*inside, id(value)))


@contextlib.contextmanager
def in_float64(model: nn.Module) -> Iterator[bool]:
    """See :meth:`agnostic.contracts.calls.Calls.in_float64`; exact, since each float32 number is a float64 number."""
    model = unwrap(model)
    with wide((*model.parameters(), *model.buffers(), *_in_attributes(model))):
        yield True


@contextlib.contextmanager
def wide(tensors: Iterable[Tensor]) -> Iterator[None]:
    """Inside, these tensors are of float64, and so is what is computed."""
    changed: list[tuple[Tensor, Tensor]] = []
    default = torch.get_default_dtype()
    try:
        # What a forward makes anew, such as a causal mask, is of the default type.
        torch.set_default_dtype(torch.float64)
        for tensor in tensors:
            widest = torch.complex128 if tensor.is_complex() else torch.float64
            if (tensor.is_floating_point() or tensor.is_complex()) and tensor.dtype != widest:
                changed.append((tensor, tensor.data))
                tensor.data = tensor.data.to(widest)
        with _Wide():
            yield
    finally:
        torch.set_default_dtype(default)
        for tensor, before in changed:
            tensor.data = before


def _in_attributes(model: nn.Module) -> Iterator[Tensor]:
    """Tensors that modules hold themselves, by no name that a state_dict has; in lists, tuples and dicts too."""
    for module in model.modules():
        yield from (x for x in pytree.tree_leaves(_own(module)) if isinstance(x, Tensor))


class _Wide(TorchDispatchMode):
    """Inside, what asks for a narrower type by name, as ``x.float()`` does, gets float64."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # True would import torch._dynamo with the first operation

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if kwargs.get("dtype") in (torch.float32, torch.float16, torch.bfloat16):
            kwargs["dtype"] = torch.float64
        elif kwargs.get("dtype") in (torch.complex32, torch.complex64):
            kwargs["dtype"] = torch.complex128
        return function(*args, **kwargs)


def is_training(model: nn.Module) -> bool:
    """See :meth:`agnostic.contracts.calls.Calls.is_training`."""
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
    """See :meth:`agnostic.contracts.calls.Calls.versions`."""
    return {"torch": torch.__version__}
