"""PyTorch models: built from a described architecture, or made by torchvision or timm."""

from __future__ import annotations

import http.client
import importlib
import inspect
import pickle
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agnostic.errors import InvalidInput, InvalidWeights, MissingDependency, UnknownName, nearest
from agnostic.models import architecture as described
from agnostic.models import efficientnet_lite
from agnostic.models.architecture import Architecture
from agnostic.models.attached import attach, card_of
from agnostic.models.cards import ModelCard, Preprocessing
from agnostic.models.specs import WeightsChoice, parse, parse_weights
from agnostic.reference.windows import same_padding
from agnostic.text import counted
from agnostic_torch.weights import read_state, set_state

# What a download raises: no connection, a wrong checksum, a broken answer, or a damaged file in the cache.
_DOWNLOAD = (OSError, RuntimeError, http.client.HTTPException, pickle.UnpicklingError, EOFError)


# Described architectures --------------------------------------------------------------------------------------------
class Conv2dSame(nn.Conv2d):
    """A convolution whose padding follows from the size of its input, by ``same_padding``."""

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C', ceil(H / stride), ceil(W / stride))."""
        top, bottom = same_padding(input.shape[-2], self.kernel_size[0], self.stride[0])
        left, right = same_padding(input.shape[-1], self.kernel_size[1], self.stride[1])
        if top == bottom and left == right:  # without a copy of the input
            return F.conv2d(input, self.weight, self.bias, self.stride, (top, left), self.dilation, self.groups)
        padded = F.pad(input, (left, right, top, bottom))
        return F.conv2d(padded, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class Residual(nn.Sequential):
    """Layers that run one after the other, and whose input is added to the output of the last."""

    def forward(self, input: Tensor) -> Tensor:
        """An output of the input's shape."""
        output: Tensor = super().forward(input)  # type: ignore[no-untyped-call]
        return input + output


class GlobalAveragePool(nn.Module):
    """The mean over height and width."""

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C)."""
        return input.mean((2, 3))


def build(architecture: Architecture) -> nn.Module:
    """See :meth:`agnostic.contracts.models.Models.build`. The random weights are the same every time."""
    with _own_randomness():
        return _sequential(architecture.layers).eval()


def _sequential(nodes: Iterable[described.ArchitectureNode], cls: type[nn.Sequential] = nn.Sequential) -> nn.Sequential:
    layers = cls()
    for node in nodes:
        layers.add_module(node.name, _layer(node))
    return layers


def _layer(node: described.ArchitectureNode) -> nn.Module:
    match node:
        case described.Chain():
            if node.merge not in (None, "add") or node.shortcut is not None or not node.name:
                raise _is_in_torchvision(node)
            return _sequential(node.layers, Residual if node.merge == "add" else nn.Sequential)
        case described.Conv() if node.padding != "same" or node.bias:
            raise _is_in_torchvision(node)
        case described.Conv(stride=1) if node.kernel % 2:  # always symmetric
            return nn.Conv2d(
                node.inputs, node.outputs, node.kernel, padding=node.kernel // 2, groups=node.groups, bias=False
            )
        case described.Conv():
            return Conv2dSame(node.inputs, node.outputs, node.kernel, node.stride, groups=node.groups, bias=False)
        case described.BatchNorm():
            return nn.BatchNorm2d(node.channels, eps=node.epsilon, momentum=1 - node.momentum)
        case described.ReLU6():
            return nn.ReLU6(inplace=True)  # its input is a batch norm's output, which nothing else reads
        case described.GlobalAveragePool():
            return GlobalAveragePool()
        case described.Dense():
            return nn.Linear(node.inputs, node.outputs)
        case _:
            raise _is_in_torchvision(node)


def _is_in_torchvision(node: described.ArchitectureNode) -> InvalidInput:
    return InvalidInput(
        f"PyTorch builds no described layer {node.name!r} ({type(node).__name__}): the networks that have one are "
        "torchvision's, such as 'torchvision:resnet50'"
    )


@contextmanager
def _own_randomness() -> Iterator[None]:
    """Draw weights on the CPU from a fixed seed, and leave the global generator as it was."""
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        yield


# Models by specification --------------------------------------------------------------------------------------------
def load(spec: str, weights: str | Path | None = None, *, trust: bool = False) -> nn.Module:
    """See :meth:`agnostic.contracts.models.Models.load`; of the embedded networks, torchvision and timm."""
    parsed, chosen = parse(spec), parse_weights(weights)
    match parsed.family:
        case "embedded":
            model, card = _embedded(parsed.name, chosen)
        case "torchvision" | "twin":
            model, card = _torchvision(parsed.name, chosen)
        case "timm":
            model, card = _timm(parsed.name, chosen)
        case _:
            raise InvalidInput(
                f"PyTorch cannot make {spec!r}; it makes 'efficientnet_lite0', 'torchvision:vgg16' and 'timm:resnet18'"
            )
    if card is not None:
        attach(model, card)
    return model.eval()


def _embedded(variant: str, weights: WeightsChoice) -> tuple[nn.Module, ModelCard | None]:
    architecture = efficientnet_lite.efficientnet_lite(variant)
    model = build(architecture)
    if weights != "random":
        path = efficientnet_lite.weights_file(variant) if weights == "default" else weights
        _fill(model, path, architecture.name, efficientnet_lite.from_package(read_state(path), architecture))
    return model, efficientnet_lite.card(variant)


def _torchvision(name: str, weights: WeightsChoice) -> tuple[nn.Module, ModelCard | None]:
    models = _library("torchvision", "'agnostic-ml[torch]'").models
    known = models.list_models()
    if name not in known:
        raise UnknownName(f"no model {name!r} in torchvision ({counted(len(known), 'model')}){nearest(name, known)}")
    pretrained = getattr(models.get_model_weights(name), "DEFAULT", None)
    if weights == "default":
        if pretrained is None:
            raise InvalidWeights(f"torchvision has no weights for {name}: give a file, or weights='random'")
        with _downloading(f"torchvision:{name}", pretrained.url):
            # Fetches and checks the file, and proves that reading it executes nothing, before torchvision reads it.
            pretrained.get_state_dict(progress=True, check_hash=True, weights_only=True)
        model = models.get_model(name, weights=pretrained)
    else:
        # Without this, a segmentation or detection model would download the weights of its backbone.
        backbone = "weights_backbone" in inspect.signature(models.get_model_builder(name)).parameters
        with _own_randomness():
            model = models.get_model(name, weights=None, **({"weights_backbone": None} if backbone else {}))
        if isinstance(weights, Path):
            _fill(model, weights, f"torchvision:{name}", read_state(weights))
    return model, _torchvision_card(name, pretrained)


def _torchvision_card(name: str, pretrained: Any) -> ModelCard | None:
    """From what torchvision says about the model's default weights; None for those that normalize by themselves."""
    preset = None if pretrained is None else pretrained.transforms()
    mean, std = getattr(preset, "mean", None), getattr(preset, "std", None)
    size = getattr(preset, "crop_size", None) or getattr(preset, "resize_size", None)
    if not (mean and std and size):
        return None
    return ModelCard(
        spec=f"torchvision:{name}",
        preprocessing=Preprocessing(mean=tuple(mean), std=tuple(std)),
        size=(size[0], size[-1]),
        class_names=tuple(pretrained.meta.get("categories", ())) or None,
    )


def _timm(name: str, weights: WeightsChoice) -> tuple[nn.Module, ModelCard | None]:
    timm = _library("timm", "timm")
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        raise UnknownName(f"no model {architecture!r} in timm{nearest(architecture, timm.list_models())}")
    pretrained = timm.list_pretrained(f"{architecture}.*")
    if tag and name not in pretrained:
        raise UnknownName(f"no weights {tag!r} for {architecture} in timm{nearest(name, pretrained)}")
    if weights == "default":
        if not pretrained:
            raise InvalidWeights(f"timm has no weights for {architecture}: give a file, or weights='random'")
        with _downloading(f"timm:{name}", "huggingface.co"):
            model = timm.create_model(name, pretrained=True)
    else:
        with _own_randomness():
            model = timm.create_model(name, pretrained=False)
        if isinstance(weights, Path):
            _fill(model, weights, f"timm:{name}", read_state(weights))
    return model, card_of(model)


def _fill(model: nn.Module, path: Path, name: str, state: dict[str, Tensor]) -> None:
    try:
        set_state(model, state)
    except InvalidWeights as error:
        raise InvalidWeights(f"{path} does not fit {name}: {error}") from None


def _library(name: str, install: str) -> ModuleType:
    # A library that is there but broken must be reported as it is, so only its absence is translated.
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise MissingDependency(f"the models of {name} need the package {name!r}: pip install {install}") from None


@contextmanager
def _downloading(spec: str, source: str) -> Iterator[None]:
    try:
        yield
    except _DOWNLOAD as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise InvalidWeights(
            f"cannot get the weights of {spec} from {source} ({reason}): connect to the network, or give their file as "
            "weights=..., or weights='random'"
        ) from error
