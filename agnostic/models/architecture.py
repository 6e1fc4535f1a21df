"""A network described without a framework.

A description is a tree of frozen nodes. A leaf is one layer; a :class:`Chain` runs its layers one after the other and
may add its input to its output. A backend builds the native model by following the tree, with one case a node class,
so that the layers have the same names everywhere: a layer's path is the names from the root to it, joined by dots.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True)
class Conv:
    """A convolution without bias and with :func:`same_padding`.

    Attributes:
        name: within the chain that it stands in.
        inputs, outputs: channels.
        kernel, stride: height and width alike.
        groups: 1, or ``inputs`` for a depthwise convolution.
    """

    name: str
    inputs: int
    outputs: int
    kernel: int
    stride: int = 1
    groups: int = 1


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
class GlobalAveragePool:
    """The mean over height and width: (N, channels)."""

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
        residual: whether the chain's input is added to the output of its last layer.
    """

    name: str
    layers: tuple[Node, ...]
    residual: bool = False


Leaf: TypeAlias = Conv | BatchNorm | ReLU6 | GlobalAveragePool | Dense
Node: TypeAlias = Leaf | Chain


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
    layers: tuple[Node, ...]


def leaves(architecture: Architecture) -> Iterator[tuple[str, Leaf]]:
    """(path, node) of every layer that is no chain, in the order in which they run."""
    return _leaves("", architecture.layers)


def _leaves(prefix: str, nodes: Iterable[Node]) -> Iterator[tuple[str, Leaf]]:
    for node in nodes:
        if isinstance(node, Chain):
            yield from _leaves(f"{prefix}{node.name}.", node.layers)
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


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Pixels of zeros before and after an axis, so that the output has ceil(size / stride) pixels.

    The total is the least that suffices, and an odd pixel goes to the end: it depends on the input's size, which a
    fixed padding cannot express when the stride is above 1.

    Source: the "SAME" padding of TensorFlow (tf.nn, "Notes on padding").
    """
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2
