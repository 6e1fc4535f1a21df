"""What a torch module receives: see :mod:`agnostic.models.inputs`."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from agnostic.models.cards import ModelCard, Preprocessing
from agnostic.models.classes import imagenet_classes
from agnostic.models.forms import Input, ModelRun, Received, Takes, is_python_refusal
from agnostic_torch.layers import check_initialized, unwrap
from agnostic_torch.taps import TapRecorder, _arguments, _native, hooks, inference, leaves


def stated_inputs(model: nn.Module) -> Sequence[Input] | None:
    """None: a module does not declare its inputs."""
    return None


def stated_preprocessing(model: nn.Module, place: int = 0) -> Preprocessing | None:
    """None: a module does not say which range it expects."""
    return None


def stated_card(model: nn.Module) -> ModelCard | None:
    """See :meth:`agnostic.contracts.inputs.ModelInputs.stated_card`: timm's ``pretrained_cfg``."""
    described = getattr(model, "pretrained_cfg", None)
    if not isinstance(described, Mapping):
        return None
    mean, std, size = (described.get(key) for key in ("mean", "std", "input_size"))
    if not (mean and std and size and len(mean) == len(std) and len(size) == 3):
        return None
    name, tag = described.get("architecture"), described.get("tag")
    # A thousand classes are ImageNet's in every model that timm ships; a head of the user's own has another number.
    classes = getattr(model, "num_classes", None)
    names = imagenet_classes() if classes == 1000 == described.get("num_classes") else None
    return ModelCard(
        spec=f"timm:{name}.{tag}" if tag else f"timm:{name}",
        preprocessing=Preprocessing(mean=tuple(mean), std=tuple(std)),
        size=(size[1], size[2]),
        class_names=names,
    )


def is_refusal(error: Exception) -> bool:
    """See :meth:`agnostic.contracts.inputs.ModelInputs.is_refusal`."""
    return is_python_refusal(error) and not isinstance(error, torch.OutOfMemoryError)


def input_count(model: nn.Module) -> int:
    """See :meth:`agnostic.contracts.inputs.ModelInputs.input_count`."""
    return max(1, sum(x.default is x.empty for x in _parameters(model)))


def input_names(model: nn.Module) -> Sequence[str]:
    """See :meth:`agnostic.contracts.inputs.ModelInputs.input_names`."""
    parameters = _parameters(model)
    return [x.name for x in sorted(parameters, key=lambda x: x.default is not x.empty)]


def takes_other_names(model: nn.Module) -> bool:
    """See :meth:`agnostic.contracts.inputs.ModelInputs.takes_other_names`."""
    return any(x.kind is x.VAR_KEYWORD for x in _signature(model))


def _parameters(model: nn.Module) -> list[inspect.Parameter]:
    """The named parameters of a model's ``forward``; none where it is no Python function."""
    return [x for x in _signature(model) if x.kind not in (x.VAR_POSITIONAL, x.VAR_KEYWORD)]


def _signature(model: nn.Module) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(unwrap(model).forward).parameters.values())
    except (TypeError, ValueError):
        return []


def native_inputs(model: nn.Module, arrays: Sequence[npt.NDArray[Any]]) -> Any:
    """See :meth:`agnostic.contracts.inputs.ModelInputs.native_inputs`."""
    found = tuple(_native(unwrap(model), np.ascontiguousarray(x), set()) for x in arrays)
    return found[0] if len(found) == 1 else found


def trial(model: nn.Module, inputs: Any) -> ModelRun:
    """See :meth:`agnostic.contracts.inputs.ModelInputs.trial`."""
    model = unwrap(model)
    check_initialized(model)
    args, kwargs = _arguments(model, inputs)
    devices = {x.device for x in model.parameters() if x.device.type not in ("cpu", "meta")}
    taps = TapRecorder(model)
    # Looking must not change what is drawn next.
    with (
        inference(model),
        torch.random.fork_rng(devices=[x.index for x in devices if x.type == "cuda"]),
        _receiving(model, tuple(leaves((args, kwargs)))) as seen,
    ):
        try:
            layers = taps.run(args, kwargs)[1].layers
        except Exception as error:  # noqa: BLE001 - a model may raise anything at all
            open_ = seen.open[-1] if seen.open else None
            return ModelRun(taps.partial, error, tuple(seen.received), open_)
    return ModelRun(list(layers), None, tuple(seen.received), None, seen.batch)


class _Seen:
    """What layers with parameters received so far."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.open: list[Received] = []
        self.batch: int | None = 1


@contextmanager
def _receiving(model: nn.Module, given: Sequence[Any]) -> Iterator[_Seen]:
    """Watch what the layers with parameters are given inside."""
    seen, thread = _Seen(), threading.get_ident()
    takes: dict[nn.Module, Takes] = {}
    arguments = {id(x): place for place, x in enumerate(given)}

    def before(name: str, takes: Takes) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Mapping[str, Any]) -> None:
            x = next(leaves((args, kwargs)), None)
            if threading.get_ident() == thread and x is not None and not x.is_nested:
                seen.received.append(Received(name, takes, tuple(x.shape), arguments.get(id(x))))
                seen.open.append(seen.received[-1])

        return hook

    def after(module: nn.Module, args: Any, output: Any) -> None:
        if threading.get_ident() == thread and seen.open and seen.open[-1].takes is takes[module]:
            seen.open.pop()

    def ended(module: nn.Module, args: Any, output: Any) -> None:
        if isinstance(output, list) and output and all(isinstance(x, Mapping) for x in output):
            seen.batch = len(output)  # of a detector, an entry for each image
            return
        first = next(leaves(output), None)
        seen.batch = first.shape[0] if first is not None and not first.is_nested and first.ndim else None

    with hooks() as handles:
        for name, module in model.named_modules():
            what = taken_by(module)
            if what is not None:
                takes[module] = what
                handles.append(module.register_forward_pre_hook(before(name, what), with_kwargs=True))
                handles.append(module.register_forward_hook(after))
        handles.append(model.register_forward_hook(ended))
        yield seen


def taken_by(module: nn.Module) -> Takes | None:
    """What a module's parameters say of its input; None where they say nothing."""
    match module:
        case _ConvNd():
            return Takes((len(module.kernel_size) + 2,), 1, module.in_channels)
        case nn.BatchNorm1d():
            return Takes((2, 3), 1, module.num_features)
        case _NormBase():
            digit = type(module).__name__[-2:-1]
            return Takes((int(digit) + 2,) if digit.isdecimal() else (), 1, module.num_features)
        case nn.GroupNorm():
            return Takes((), 1, module.num_channels)
        case nn.LayerNorm() | nn.RMSNorm():
            return Takes((), -1, module.normalized_shape[-1])
        case nn.Linear():
            return Takes((), -1, module.in_features)
        case nn.Embedding() | nn.EmbeddingBag():
            return Takes((), 0, module.num_embeddings, integer=True)
        case nn.RNNBase():
            return Takes((3,), -1, module.input_size)
        case nn.MultiheadAttention():
            return Takes((3,), -1, module.embed_dim)
        case nn.TransformerEncoderLayer():
            return Takes((3,), -1, module.linear1.in_features)
    return None
