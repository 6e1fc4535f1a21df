"""Networks of torchvision, described, so that Keras builds the same: its own twin of each, with torchvision's names.

keras.applications has networks of the same names, but most of them are others: the strides of ResNet50 are in other
layers, and those of the MobileNet and EfficientNet families have other paddings and epsilons; docs/transfer.md has the
list.

Sources: the papers named at each, with what torchvision's documentation says about where it departs from them;
channels, strides, epsilons and names are those of its state dicts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from agnostic.errors import UnknownName, nearest
from agnostic.models.aliases import aliases_of
from agnostic.models.architecture import (
    Activation,
    AdaptiveAveragePool,
    Architecture,
    ArchitectureNode,
    AveragePool,
    BatchNorm,
    Chain,
    ClassToken,
    Conv,
    Dense,
    Flatten,
    GlobalAveragePool,
    LayerNorm,
    LayerScale,
    MaxPool,
    PositionEmbedding,
    ReLU6,
    SelfAttention,
    Sequence,
    TakeFirst,
    leaves,
)
from agnostic.models.cards import ModelCard, Preprocessing
from agnostic.models.classes import imagenet_classes

CLASSES = 1000

EPSILON, MOMENTUM = 1e-5, 0.9
"""PyTorch's defaults for a batch normalization: it calls 0.1 what Keras calls 0.9."""


def twin(name: str) -> Architecture:
    """The architecture of one of :data:`TWINS`.

    Raises:
        UnknownName: it is none of them.
    """
    if name not in TWINS:
        raise UnknownName(f"no twin of {name!r}: there are {', '.join(TWINS)}{nearest(name, TWINS)}")
    return Architecture(name, (224, 224), TWINS[name]())


def card(name: str) -> ModelCard:
    """The card of a twin with torchvision's weights, which were trained on ImageNet's mean and standard deviation."""
    return ModelCard(
        spec=name,
        preprocessing=Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
        size=(224, 224),
        class_names=imagenet_classes(),
        aliases=_aliases(name),
    )


_KINDS = {Conv: "Conv2d", BatchNorm: "BatchNorm2d", Activation: "ReLU", MaxPool: "MaxPool2d", Dense: "Linear"}


def _aliases(name: str) -> Mapping[str, tuple[str, ...]]:
    """The names that torchvision's network of this name answers to beside its own."""
    return aliases_of(name[:3], [(layer, _KINDS.get(type(node), "")) for layer, node in leaves(twin(name))])


def _conv(name: str, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> Conv:
    """A convolution without bias and with half its kernel as padding, as all before a batch normalization are."""
    return Conv(name, inputs, outputs, kernel, stride, groups, padding=kernel // 2)


def _norm(name: str, channels: int, momentum: float = MOMENTUM) -> BatchNorm:
    return BatchNorm(name, channels, EPSILON, momentum)


# VGG ------------------------------------------------------------------------------------------------------------------
def _vgg(repeats: tuple[int, ...]) -> tuple[ArchitectureNode, ...]:
    """Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", 2014."""
    features: list[ArchitectureNode] = []
    channels = 3
    for count, outputs in zip(repeats, (64, 128, 256, 512, 512), strict=True):
        for _ in range(count):
            features.append(Conv(str(len(features)), channels, outputs, 3, padding=1, bias=True))
            features.append(Activation(str(len(features)), "relu"))
            channels = outputs
        features.append(MaxPool(str(len(features)), 2, 2))
    head = (
        Dense("0", 512 * 49, 4096),
        Activation("1", "relu"),
        Dense("3", 4096, 4096),
        Activation("4", "relu"),
        Dense("6", 4096, CLASSES),
    )
    return (
        Chain("features", tuple(features)),
        AdaptiveAveragePool("avgpool", 7),
        Flatten("flatten", 512, 49),
        Chain("classifier", head),
    )


# ResNet ---------------------------------------------------------------------------------------------------------------
def _resnet(repeats: tuple[int, ...], bottleneck: bool) -> tuple[ArchitectureNode, ...]:
    """He et al., "Deep Residual Learning for Image Recognition", 2015, with the stride of a bottleneck in its 3 x 3."""
    layers: list[ArchitectureNode] = [
        _conv("conv1", 3, 64, 7, 2), _norm("bn1", 64), Activation("relu", "relu"), MaxPool("maxpool", 3, 2, 1),
    ]  # fmt: skip
    channels = 64
    for number, (count, width) in enumerate(zip(repeats, (64, 128, 256, 512), strict=True), 1):
        outputs = width * 4 if bottleneck else width
        blocks = []
        for block in range(count):
            stride = 2 if block == 0 and number > 1 else 1
            blocks.append(_residual(str(block), channels, width, outputs, stride, bottleneck))
            channels = outputs
        layers.append(Chain(f"layer{number}", tuple(blocks)))
    return (*layers, GlobalAveragePool("avgpool"), Dense("fc", channels, CLASSES))


def _residual(name: str, inputs: int, width: int, outputs: int, stride: int, bottleneck: bool) -> Chain:
    convolutions = (
        [(inputs, width, 1, 1), (width, width, 3, stride), (width, outputs, 1, 1)]
        if bottleneck
        else [(inputs, width, 3, stride), (width, outputs, 3, 1)]
    )
    layers: list[ArchitectureNode] = []
    for number, (a, b, kernel, step) in enumerate(convolutions, 1):
        layers += [_conv(f"conv{number}", a, b, kernel, step), _norm(f"bn{number}", b)]
        if number < len(convolutions):
            layers.append(Activation(f"relu{number}", "relu"))
    shortcut = None
    if stride != 1 or inputs != outputs:
        shortcut = Chain("downsample", (_conv("0", inputs, outputs, 1, stride), _norm("1", outputs)))
    return Chain(name, (Chain("", tuple(layers), "add", shortcut), Activation("relu", "relu")))


# MobileNet, EfficientNet ----------------------------------------------------------------------------------------------
def _scaled(channels: float) -> int:
    """The multiple of 8 nearest to a number of channels, half rounded up, but never below nine tenths of it."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def _normalized(
    name: str, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, act: str | None = None
) -> Chain:
    """A convolution, its batch normalization, and perhaps an activation, by number."""
    layers: list[ArchitectureNode] = [_conv("0", inputs, outputs, kernel, stride, groups), _norm("1", outputs)]
    if act == "relu6":
        layers.append(ReLU6("2"))
    elif act == "silu":
        layers.append(Activation("2", "silu"))
    return Chain(name, tuple(layers))


def _mobilenet_v2() -> tuple[ArchitectureNode, ...]:
    """Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", 2018, table 2."""
    stages = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    features: list[ArchitectureNode] = [_normalized("0", 3, 32, 3, 2, act="relu6")]
    channels = 32
    for expansion, outputs, repeats, first_stride in stages:
        for block in range(repeats):
            stride = first_stride if block == 0 else 1
            hidden = channels * expansion
            inside: list[ArchitectureNode] = []
            if expansion > 1:
                inside.append(_normalized("0", channels, hidden, 1, act="relu6"))
            inside.append(_normalized(str(len(inside)), hidden, hidden, 3, stride, hidden, act="relu6"))
            inside.append(_conv(str(len(inside)), hidden, outputs, 1))
            inside.append(_norm(str(len(inside)), outputs))
            added = stride == 1 and channels == outputs
            features.append(Chain(str(len(features)), (Chain("conv", tuple(inside)),), "add" if added else None))
            channels = outputs
    features.append(_normalized(str(len(features)), channels, 1280, 1, act="relu6"))
    return (
        Chain("features", tuple(features)), GlobalAveragePool("avgpool"),
        Chain("classifier", (Dense("1", 1280, CLASSES),)),
    )  # fmt: skip


def _efficientnet_b0() -> tuple[ArchitectureNode, ...]:
    """Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", 2019, table 1."""
    stages = (
        (1, 3, 1, 16, 1), (6, 3, 2, 24, 2), (6, 5, 2, 40, 2), (6, 3, 2, 80, 3), (6, 5, 1, 112, 3), (6, 5, 2, 192, 4),
        (6, 3, 1, 320, 1),
    )  # fmt: skip
    features: list[ArchitectureNode] = [_normalized("0", 3, 32, 3, 2, act="silu")]
    channels = 32
    for expansion, kernel, first_stride, outputs, repeats in stages:
        blocks: list[ArchitectureNode] = []
        for block in range(repeats):
            stride = first_stride if block == 0 else 1
            blocks.append(_mbconv(str(block), channels, outputs, expansion, kernel, stride))
            channels = outputs
        features.append(Chain(str(len(features)), tuple(blocks)))
    features.append(_normalized(str(len(features)), channels, 1280, 1, act="silu"))
    return (
        Chain("features", tuple(features)), GlobalAveragePool("avgpool"),
        Chain("classifier", (Dense("1", 1280, CLASSES),)),
    )  # fmt: skip


def _mbconv(name: str, inputs: int, outputs: int, expansion: int, kernel: int, stride: int) -> Chain:
    hidden, squeezed = _scaled(inputs * expansion), max(1, inputs // 4)
    layers: list[ArchitectureNode] = []
    if hidden != inputs:
        layers.append(_normalized("0", inputs, hidden, 1, act="silu"))
    layers.append(_normalized(str(len(layers)), hidden, hidden, kernel, stride, hidden, act="silu"))
    excitation = (
        GlobalAveragePool("avgpool", keep=True),
        Conv("fc1", hidden, squeezed, 1, padding=0, bias=True),
        Activation("activation", "silu"),
        Conv("fc2", squeezed, hidden, 1, padding=0, bias=True),
        Activation("scale_activation", "sigmoid"),
    )
    layers.append(Chain(str(len(layers)), excitation, "multiply"))
    layers.append(_normalized(str(len(layers)), hidden, outputs, 1))
    return Chain(name, (Chain("block", tuple(layers)),), "add" if stride == 1 and inputs == outputs else None)


# DenseNet -------------------------------------------------------------------------------------------------------------
def _densenet121() -> tuple[ArchitectureNode, ...]:
    """Huang et al., "Densely Connected Convolutional Networks", 2016, table 1."""
    growth, channels = 32, 64
    features: list[ArchitectureNode] = [
        _conv("conv0", 3, channels, 7, 2), _norm("norm0", channels), Activation("relu0", "relu"),
        MaxPool("pool0", 3, 2, 1),
    ]  # fmt: skip
    for number, count in enumerate((6, 12, 24, 16), 1):
        dense: list[ArchitectureNode] = []
        for layer in range(count):
            inside = (
                _norm("norm1", channels), Activation("relu1", "relu"), _conv("conv1", channels, 4 * growth, 1),
                _norm("norm2", 4 * growth), Activation("relu2", "relu"), _conv("conv2", 4 * growth, growth, 3),
            )  # fmt: skip
            dense.append(Chain(f"denselayer{layer + 1}", inside, "concatenate"))
            channels += growth
        features.append(Chain(f"denseblock{number}", tuple(dense)))
        if number < 4:
            transition = (
                _norm("norm", channels), Activation("relu", "relu"), _conv("conv", channels, channels // 2, 1),
                AveragePool("pool", 2, 2),
            )  # fmt: skip
            channels //= 2
            features.append(Chain(f"transition{number}", transition))
    features.append(_norm("norm5", channels))
    return (
        Chain("features", tuple(features)), Activation("relu", "relu"), GlobalAveragePool("avgpool"),
        Dense("classifier", channels, CLASSES),
    )  # fmt: skip


# ConvNeXt -------------------------------------------------------------------------------------------------------------
def _convnext_tiny() -> tuple[ArchitectureNode, ...]:
    """Liu et al., "A ConvNet for the 2020s", 2022."""
    features: list[ArchitectureNode] = [Chain("0", (Conv("0", 3, 96, 4, 4, padding=0, bias=True), LayerNorm("1", 96)))]
    channels = 96
    for stage, (count, outputs) in enumerate(zip((3, 3, 9, 3), (96, 192, 384, 768), strict=True)):
        if stage:
            down = (LayerNorm("0", channels), Conv("1", channels, outputs, 2, 2, padding=0, bias=True))
            features.append(Chain(str(len(features)), down))
            channels = outputs
        blocks: list[ArchitectureNode] = []
        for block in range(count):
            inside = (
                Conv("0", channels, channels, 7, groups=channels, padding=3, bias=True), LayerNorm("2", channels),
                Dense("3", channels, 4 * channels), Activation("4", "gelu"), Dense("5", 4 * channels, channels),
            )  # fmt: skip
            blocks.append(Chain(str(block), (Chain("block", inside), LayerScale("layer_scale", channels)), "add"))
        features.append(Chain(str(len(features)), tuple(blocks)))
    head = (LayerNorm("0", channels), Dense("2", channels, CLASSES))
    return (Chain("features", tuple(features)), GlobalAveragePool("avgpool"), Chain("classifier", head))


# Vision transformer ---------------------------------------------------------------------------------------------------
def _vit_b_16() -> tuple[ArchitectureNode, ...]:
    """Dosovitskiy et al., "An Image is Worth 16x16 Words", 2020, table 1: the base size, patches of 16 x 16."""
    width, heads, patches = 768, 12, (224 // 16) ** 2
    layers: list[ArchitectureNode] = []
    for number in range(12):
        attention = (LayerNorm("ln_1", width), SelfAttention("self_attention", width, heads))
        mlp = Chain("mlp", (Dense("0", width, 4 * width), Activation("1", "gelu"), Dense("3", 4 * width, width)))
        inside = (Chain("", attention, "add"), Chain("", (LayerNorm("ln_2", width), mlp), "add"))
        layers.append(Chain(f"encoder_layer_{number}", inside))
    encoder = (
        PositionEmbedding("pos_embedding", patches + 1, width), Chain("layers", tuple(layers)), LayerNorm("ln", width),
    )  # fmt: skip
    return (
        Conv("conv_proj", 3, width, 16, 16, padding=0, bias=True), Sequence("sequence", width),
        ClassToken("class_token", width), Chain("encoder", encoder), TakeFirst("first"),
        Chain("heads", (Dense("head", width, CLASSES),)),
    )  # fmt: skip


TWINS: Mapping[str, Callable[[], tuple[ArchitectureNode, ...]]] = {
    "vgg16": lambda: _vgg((2, 2, 3, 3, 3)),
    "resnet18": lambda: _resnet((2, 2, 2, 2), bottleneck=False),
    "resnet50": lambda: _resnet((3, 4, 6, 3), bottleneck=True),
    "mobilenet_v2": _mobilenet_v2,
    "densenet121": _densenet121,
    "efficientnet_b0": _efficientnet_b0,
    "convnext_tiny": _convnext_tiny,
    "vit_b_16": _vit_b_16,
}
"""By torchvision's name."""
