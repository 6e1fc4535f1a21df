"""Naming the layers of a torch module, and telling the axes of their outputs. See :mod:`agnostic.layers`."""

from __future__ import annotations

import re
import sys
import weakref
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from agnostic.errors import InvalidInput
from agnostic.layers import Layer
from agnostic.models.aliases import aliases_of
from agnostic.models.cards import card_of
from agnostic_torch.flops import Flops

_CHANNELS_FIRST = {1: "NCL", 2: "NCHW", 3: "NCDHW"}
_CHANNELS_LAST = {2: "NC", 3: "NLC", 4: "NHWC", 5: "NDHWC"}
_UNKNOWN = {0: "", 1: "N", 2: "NC", 3: "NLC", 4: "NCHW", 5: "NCDHW"}
# Modules that put the features last, whatever their input; by class name, so that subclasses elsewhere count as well.
_FEATURES_LAST = {"Linear", "Bilinear", "LayerNorm", "RMSNorm", "Embedding", "EmbeddingBag", "MultiheadAttention"}


# Operators after which a dimension may be another one than before, though there are as many.
_REGROUPING = frozenset({
    "view", "_unsafe_view", "reshape", "_reshape_alias", "as_strided", "mm", "addmm", "bmm", "baddbmm", "einsum",
})  # fmt: skip


def unwrap(model: nn.Module) -> nn.Module:
    """The user's own model inside what torch.compile, DataParallel and DistributedDataParallel put around it."""
    while True:
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        elif is_compiled(model):
            model = model._orig_mod  # type: ignore[assignment]
        else:
            return model


def is_compiled(module: nn.Module) -> bool:
    """Whether a module is what torch.compile returned; asked without importing the compiler."""
    compiler = sys.modules.get("torch._dynamo.eval_frame")
    return compiler is not None and isinstance(module, compiler.OptimizedModule)


def named_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Every module that can be called and calls hooks, by its first name, in the order of registration.

    The model itself is none of them.

    Raises:
        InvalidInput: the model is TorchScript, inside which no hooks run.
    """
    if isinstance(model, torch.jit.ScriptModule):
        raise InvalidInput(
            "the layers of a TorchScript model cannot be seen, since no hooks run inside; give its original"
        )
    found: dict[str, nn.Module] = {}
    closed: tuple[str, ...] = ()
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            closed += (f"{name}.",)
        # ModuleList and its like hold layers and are none.
        elif name and not name.startswith(closed) and _callable(module):
            found[name] = module
    return found


def _callable(module: nn.Module) -> bool:
    return type(module).forward is not nn.Module.forward or "forward" in vars(module)


def tree(model: nn.Module) -> list[Layer]:
    """The layers as they are registered, without running the model."""
    modules, sizes = named_layers(model), _sizes(model)
    layers = (
        Layer(name, type(module).__name__, None, None, None, sizes[module], calls=0) for name, module in modules.items()
    )
    return _with_aliases(model, layers)


def _sizes(model: nn.Module) -> dict[nn.Module, int]:
    """The number of scalar parameters in each module, shared ones counted once in each."""
    found: dict[nn.Module, dict[nn.Parameter, int]] = {}

    def collect(module: nn.Module) -> dict[nn.Parameter, int]:
        if module not in found:
            own = {p: _size(p) for p in module._parameters.values() if p is not None}
            for child in module._modules.values():
                if child is not None:
                    own.update(collect(child))
            found[module] = own
        return found[module]

    collect(model)
    return {module: sum(parameters.values()) for module, parameters in found.items()}


def _size(parameter: nn.Parameter) -> int:
    # A lazy parameter has no size yet.
    return 0 if isinstance(parameter, nn.parameter.UninitializedParameter) else parameter.numel()


def _with_aliases(model: nn.Module, layers: Iterable[Layer]) -> list[Layer]:
    """With the second names of shared modules, and those by which the model is known elsewhere."""
    layers = list(layers)
    first: dict[nn.Module, str] = {}
    names: dict[str, tuple[str, ...]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if (known_as := first.setdefault(module, name)) != name:
            names[known_as] = (*names.get(known_as, ()), name)
    parents = {x.name.rpartition(".")[0] for x in layers}
    leaves = [(x.name, x.kind) for x in layers if x.name not in parents]
    card = card_of(model)
    known = dict(aliases_of(f"{type(model).__module__}.{type(model).__qualname__}", leaves))
    if card is not None:
        known |= card.aliases
    taken = {x.name for x in layers}.union(*names.values())
    return [
        Layer(
            x.name, x.kind, x.shape, x.axes, x.channels, x.parameters, x.calls,
            (*names.get(x.name, ()), *(alias for alias in known.get(x.name, ()) if alias not in taken)), x.flops,
        )
        for x in layers
    ]  # fmt: skip


def expected(module: nn.Module) -> str | None:
    """See :meth:`agnostic.backend.Backend.expected`."""
    weight = next(module.parameters(recurse=False), None)
    dtype = "" if weight is None else f"{str(weight.dtype).removeprefix('torch.')} "
    on = "" if weight is None or weight.device.type == "cpu" else f" on {weight.device}"
    spatial = re.search(r"([123])d$", type(module).__name__)
    axes = {"1": ", L", "2": ", H, W", "3": ", D, H, W"}[spatial[1]] if spatial else ", ..."
    sizes = vars(module)
    if (channels := sizes.get("in_channels", sizes.get("num_features", sizes.get("num_channels")))) is not None:
        return f"{dtype}(N, {channels}{axes}){on}"
    if (number := sizes.get("num_embeddings")) is not None:
        return f"integers from 0 to {number - 1}{on}"
    if (shape := sizes.get("normalized_shape")) is not None:
        return f"{dtype}(..., {', '.join(map(str, shape))}){on}"
    size = sizes.get("in_features", sizes.get("input_size", sizes.get("embed_dim")))
    return None if size is None else f"{dtype}(..., {size}){on}"


class Listing:
    """Watches one forward pass, module by module, and tells the layers in the order in which they first ran."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.modules = named_layers(model)
        self._axes = Axes(model)
        self.operator = self._axes.operator
        self.flops = Flops()
        """To be entered around the pass."""
        self._spent: dict[str, int] = {}
        # Of each open call: the name, whether no other call came inside, and what had been counted by then.
        self._open: list[list[Any]] = []
        self._calls: dict[str, int] = {}
        self._shapes: dict[str, tuple[tuple[int, ...], str | None] | None] = {}

    def enter(self, name: str) -> None:
        """A layer is being called."""
        self._calls[name] = self._calls.get(name, 0) + 1
        if self._open:
            self._open[-1][1] = False
        self._open.append([name, True, self.flops.total])

    def leave(self, name: str, args: tuple[Any, ...], output: Any) -> None:
        """A layer returned."""
        leaf = True
        # A call that failed, and whose error the model caught, never came here.
        while self._open:
            top, leaf, before = self._open.pop()
            if top == name:
                self._spent[name] = self._spent.get(name, 0) + self.flops.total - before
                break
        axes = self._axes.of(name, self.modules[name], leaf, args, output)
        if name not in self._shapes:
            self._shapes[name] = (tuple(output.shape), axes) if _is_array(output) else None

    @property
    def calls(self) -> Mapping[str, int]:
        """How often each layer was called."""
        return self._calls

    def layers(self) -> list[Layer]:
        """In the order of the first call; those that did not run follow. A call that never returned does not count."""
        for name, *_ in self._open:
            self._calls[name] -= 1
            if not self._calls[name]:
                del self._calls[name]
        self._open.clear()
        order = [*self._calls, *(name for name in self.modules if name not in self._calls)]
        sizes = _sizes(self.model)
        return _with_aliases(self.model, [self._layer(name, sizes[self.modules[name]]) for name in order])

    def _layer(self, name: str, parameters: int) -> Layer:
        module, seen = self.modules[name], self._shapes.get(name)
        flops = self._spent.get(name)
        kind, calls = type(module).__name__, self._calls.get(name, 0)
        if seen is None:
            return Layer(name, kind, None, None, None, parameters, calls, flops=flops)
        sizes, axes = seen
        if axes is None:
            return Layer(name, kind, (None, *sizes[1:]), None, None, parameters, calls, flops=flops)
        shape = tuple(None if letter == "N" else size for letter, size in zip(axes, sizes, strict=True))
        channels = sizes[axes.index("C")] if "C" in axes else None
        return Layer(name, kind, shape, axes, channels, parameters, calls, flops=flops)


class Axes:
    """The letters of the dimensions of each layer's output, followed through the model as it runs."""

    def __init__(self, model: nn.Module) -> None:
        # The last output of each number of dimensions: its letters and its shape.
        self._last: dict[int, tuple[str, tuple[int, ...]]] = {}
        self._letters: dict[int, tuple[weakref.ref[Tensor], str]] = {}
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
        axes = axes or self._followed(output) or self._inherited(output)
        if axes is not None and len(axes) == output.ndim:
            self._follow(output, axes)
        self._remember(output, axes)
        return axes

    # The letters of arrays themselves, as operators hand them on; by identity, as long as the array is there.
    def _follow(self, tensor: Tensor, axes: str) -> None:
        self._letters[id(tensor)] = weakref.ref(tensor), axes

    def _followed(self, tensor: Tensor) -> str | None:
        found = self._letters.get(id(tensor))
        return found[1] if found is not None and found[0]() is tensor and len(found[1]) == tensor.ndim else None

    def operator(self, name: str, args: Sequence[Any], result: Any) -> None:
        """An operator was applied: one that reorders dimensions reorders the letters, others of equal rank keep them.

        Args:
            name: of the operator, such as ``"permute"``.
            result: an array, or a list of parts of one.
        """
        if name in _REGROUPING:
            return
        given = [x for x in _arrays(list(args)) + _arrays(args[0] if args else None) if id(x) in self._letters]
        given = [x for x in given if not x.is_nested and self._followed(x)]
        for output in _arrays(result) if given else []:
            if output.is_nested:
                continue
            # Of several operands the one of the output's shape: the others are spread over it.
            same = [x for x in given if x.ndim == output.ndim]
            source = next((x for x in same if x.shape == output.shape), next(iter(same), None))
            axes = None if source is None else self._followed(source)
            if axes is None:
                continue
            if name == "permute":
                axes = "".join(axes[d] for d in args[1])
            elif name in ("transpose", "t"):
                first, second = (args[1] % output.ndim, args[2] % output.ndim) if name == "transpose" else (0, 1)
                letters = list(axes)
                letters[first], letters[second] = letters[second], letters[first]
                axes = "".join(letters)
            self._follow(output, axes)

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
