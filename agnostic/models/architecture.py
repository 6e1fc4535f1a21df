"""A network described without a framework.

A description is a tree of frozen nodes. A leaf is one layer; a :class:`Chain` runs its layers one after the other and
may add its input to its output. A backend builds the native model by following the tree, with one case a node class,
so that the layers have the same names everywhere: a layer's path is the names from the root to it, joined by dots.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias


@dataclass(frozen=True)
class Conv:
    """A convolution.

    Attributes:
        name: within the chain that it stands in.
        inputs, outputs: channels.
        kernel, stride: height and width alike.
        groups: 1, or ``inputs`` for a depthwise convolution.
        padding: zeros on each of the four sides, or ``"same"``: :func:`agnostic.reference.windows.same_padding`.
        bias: whether it has one.
    """

    name: str
    inputs: int
    outputs: int
    kernel: int
    stride: int = 1
    groups: int = 1
    padding: int | Literal["same"] = "same"
    bias: bool = False


@dataclass(frozen=True)
class BatchNorm:
    """Batch normalization over all axes but the channels, with scale and shift.

    Attributes:
        epsilon: added to the variance.
        momentum: the part of the running statistics that one step of training keeps. (TensorFlow's and Keras'
            convention; PyTorch calls 1 minus this number its momentum.)
    """

    name: str
    channels: int
    epsilon: float = 1e-3
    momentum: float = 0.99


@dataclass(frozen=True)
class ReLU6:
    """min(max(x, 0), 6)."""

    name: str


@dataclass(frozen=True)
class Activation:
    """A function of each number.

    Attributes:
        function: ``"relu"``, ``"silu"``, ``"gelu"`` (with the exact error function) or ``"sigmoid"``.
    """

    name: str
    function: Literal["relu", "silu", "gelu", "sigmoid"]


@dataclass(frozen=True)
class LayerNorm:
    """Normalization of the channels at each position, with scale and shift."""

    name: str
    channels: int
    epsilon: float = 1e-6


@dataclass(frozen=True)
class MaxPool:
    """The greatest of each window; what is padded on the four sides is smaller than anything."""

    name: str
    kernel: int
    stride: int
    padding: int = 0


@dataclass(frozen=True)
class AveragePool:
    """The mean of each window, without padding."""

    name: str
    kernel: int
    stride: int


@dataclass(frozen=True)
class AdaptiveAveragePool:
    """The means of ``size`` x ``size`` windows that cover the image, whatever its size."""

    name: str
    size: int


@dataclass(frozen=True)
class GlobalAveragePool:
    """The mean over height and width: (N, channels), or (N, 1, 1, channels) with ``keep``."""

    name: str
    keep: bool = False


@dataclass(frozen=True)
class Flatten:
    """An image as one row of features, in the order that its framework stores them: (N, positions * channels)."""

    name: str
    channels: int
    positions: int


@dataclass(frozen=True)
class LayerScale:
    """One factor per channel."""

    name: str
    channels: int


@dataclass(frozen=True)
class Sequence:
    """An image as a sequence of its positions, row by row: (N, H * W, channels)."""

    name: str
    channels: int


@dataclass(frozen=True)
class ClassToken:
    """One more position, learned, before all others."""

    name: str
    channels: int


@dataclass(frozen=True)
class PositionEmbedding:
    """A learned summand for each position."""

    name: str
    length: int
    channels: int


@dataclass(frozen=True)
class SelfAttention:
    """Multi-head attention of a sequence to itself, with biases."""

    name: str
    channels: int
    heads: int


@dataclass(frozen=True)
class TakeFirst:
    """The first position of a sequence: (N, channels)."""

    name: str


@dataclass(frozen=True)
class Dense:
    """A matrix product and a bias."""

    name: str
    inputs: int
    outputs: int


@dataclass(frozen=True)
class Chain:
    """Layers that run one after the other.

    Attributes:
        name: ``""`` for one whose layers have their names in the chain around it.
        merge: what becomes of the chain's input at the end: it is added to the output of the last layer, multiplied
            with it, or stands before it among the channels.
        shortcut: what the input goes through first, where it is merged; its layers stand within the chain.
    """

    name: str
    layers: tuple[ArchitectureNode, ...]
    merge: Literal["add", "multiply", "concatenate"] | None = None
    shortcut: Chain | None = None


ArchitectureLeaf: TypeAlias = (
    Conv | BatchNorm | ReLU6 | Activation | LayerNorm | MaxPool | AveragePool | AdaptiveAveragePool | GlobalAveragePool
    | Flatten | Dense | LayerScale | Sequence | ClassToken | PositionEmbedding | SelfAttention | TakeFirst
)  # fmt: skip
ArchitectureNode: TypeAlias = ArchitectureLeaf | Chain


@dataclass(frozen=True)
class Architecture:
    """A whole network, from images to logits.

    Attributes:
        name: such as ``"efficientnet_lite0"``.
        size: (height, width) of the images that it was designed for; every other size is computed as well.
        layers: what runs, one after the other.
    """

    name: str
    size: tuple[int, int]
    layers: tuple[ArchitectureNode, ...]


def leaves(architecture: Architecture) -> Iterator[tuple[str, ArchitectureLeaf]]:
    """(path, node) of every layer that is no chain, in the order in which they run."""
    return _leaves("", architecture.layers)


def _leaves(prefix: str, nodes: Iterable[ArchitectureNode]) -> Iterator[tuple[str, ArchitectureLeaf]]:
    for node in nodes:
        if isinstance(node, Chain):
            inside = f"{prefix}{node.name}." if node.name else prefix
            yield from _leaves(inside, node.layers)
            if node.shortcut is not None:
                yield from _leaves(inside, (node.shortcut,))
        else:
            yield prefix + node.name, node


def weight_shapes(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """The shape of every parameter and running statistic, by ``path.weight`` and so on, in PyTorch's names and layout.

    A convolution's weight is (outputs, inputs / groups, height, width), that of a dense layer (outputs, inputs).
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for path, node in leaves(architecture):
        match node:
            case Conv():
                shapes[f"{path}.weight"] = (node.outputs, node.inputs // node.groups, node.kernel, node.kernel)
                if node.bias:
                    shapes[f"{path}.bias"] = (node.outputs,)
            case LayerNorm():
                shapes[f"{path}.weight"] = shapes[f"{path}.bias"] = (node.channels,)
            case LayerScale():
                shapes[path] = (node.channels, 1, 1)
            case ClassToken():
                shapes[path] = (1, 1, node.channels)
            case PositionEmbedding():
                shapes[path] = (1, node.length, node.channels)
            case SelfAttention():
                shapes[f"{path}.in_proj_weight"] = (3 * node.channels, node.channels)
                shapes[f"{path}.in_proj_bias"] = (3 * node.channels,)
                shapes[f"{path}.out_proj.weight"] = (node.channels, node.channels)
                shapes[f"{path}.out_proj.bias"] = (node.channels,)
            case BatchNorm():
                for name in ("weight", "bias", "running_mean", "running_var"):
                    shapes[f"{path}.{name}"] = (node.channels,)
            case Dense():
                shapes[f"{path}.weight"] = (node.outputs, node.inputs)
                shapes[f"{path}.bias"] = (node.outputs,)
    return shapes


def parameters(architecture: Architecture) -> int:
    """The number of scalars that training changes; running statistics are not among them."""
    shapes = weight_shapes(architecture)
    return sum(math.prod(shape) for name, shape in shapes.items() if ".running_" not in name)
