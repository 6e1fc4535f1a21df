"""Naming the layers of a torch module, and telling the axes of their outputs. See :mod:`agnostic.layers`."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from agnostic.errors import InvalidInput
from agnostic.layers import Layer, Seen, seen_layer
from agnostic.models.aliases import aliases_of
from agnostic.models.attached import card_of
from agnostic_torch.axes import Following
from agnostic_torch.flops import Flops


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
    model = unwrap(model)
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


def check_initialized(model: nn.Module) -> None:
    """Refuse a model with lazy layers that have not run: running it would draw its weights.

    Raises:
        InvalidInput: a parameter has no shape yet.
    """
    for name, parameter in model.named_parameters():
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise InvalidInput(
                f"the parameter {name!r} of {type(model).__name__} has no shape yet (a lazy layer): "
                "call the model once on a batch before looking inside"
            )


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
    known = dict(aliases_of(family(model), leaves))
    if card is not None:
        known |= card.aliases
    taken = {x.name for x in layers}.union(*names.values())
    return [
        Layer(
            x.name, x.kind, x.shape, x.axes, x.channels, x.parameters, x.calls,
            (*names.get(x.name, ()), *(alias for alias in known.get(x.name, ()) if alias not in taken)), x.flops,
            x.heads,
        )
        for x in layers
    ]  # fmt: skip


FAMILIES = {"torchvision.models.vgg.VGG": "vgg"}
"""The families of :mod:`agnostic.models.aliases`, by the model's class."""


def family(model: nn.Module) -> str:
    """The family of a model's class; ``""`` for none that is known."""
    return FAMILIES.get(f"{type(model).__module__}.{type(model).__qualname__}", "")


def layer_name(model: nn.Module, layer: Any) -> str | None:
    """See :meth:`agnostic.contracts.layers.LayerTree.layer_name`."""
    return next((name for name, x in named_layers(unwrap(model)).items() if x is layer), None)


def expected(model: nn.Module, layer: str | None) -> str | None:
    """See :meth:`agnostic.contracts.layers.LayerTree.expected`: what the layer's sizes say."""
    if layer is None:
        return None
    module = named_layers(unwrap(model))[layer]
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
        self.axes = Following()
        self.flops = Flops()
        """To be entered around the pass."""
        self._spent: dict[str, int] = {}
        # Of each open call: the name, and what had been counted by then.
        self._open: list[tuple[str, int]] = []
        self._calls: dict[str, int] = {}
        self._shapes: dict[str, Seen | None] = {}

    def enter(self, name: str, args: tuple[Any, ...]) -> None:
        """A layer is being called."""
        self._calls[name] = self._calls.get(name, 0) + 1
        self._open.append((name, self.flops.total))
        # Of a layer that keeps a sequence's positions first or second, that is known which; in every other layer only
        # by what operators do.
        batch_first = getattr(self.modules[name], "batch_first", None)
        if isinstance(batch_first, bool) and args:
            self.axes.set_letters(args[0], "NLC" if batch_first else "LNC")

    def leave(self, name: str, args: tuple[Any, ...], output: Any) -> None:
        """A layer returned."""
        # A call that failed, and whose error the model caught, never came here.
        while self._open:
            top, before = self._open.pop()
            if top == name:
                self._spent[name] = self._spent.get(name, 0) + self.flops.total - before
                break
        if isinstance(self.modules[name], nn.RNNBase) and args:
            self.axes.recurrent(args[0], output)
        if name not in self._shapes:
            self._shapes[name] = (tuple(output.shape), self.axes.of(output)) if _is_array(output) else None

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
        self.axes.ended()
        order = [*self._calls, *(name for name in self.modules if name not in self._calls)]
        sizes = _sizes(self.model)
        return _with_aliases(self.model, [self._layer(name, sizes[self.modules[name]]) for name in order])

    def _layer(self, name: str, parameters: int) -> Layer:
        module, seen = self.modules[name], self._shapes.get(name)
        flops = self._spent.get(name)
        kind, calls = type(module).__name__, self._calls.get(name, 0)
        heads = module.num_heads if isinstance(module, nn.MultiheadAttention) else None
        return seen_layer(name, kind, seen, parameters, calls, flops, heads)


def _is_array(x: Any) -> bool:
    """Whether something is a tensor with a shape: the parts of a nested one have several."""
    return isinstance(x, Tensor) and not x.is_nested
