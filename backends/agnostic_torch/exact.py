"""Operators of the vocabulary in float64: by torch where it is faster, else by the vocabulary's references."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from agnostic.program.exact import evaluated
from agnostic.program.nodes import Array, Node

_CONVOLUTIONS = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}


def exact(node: Node, operands: Sequence[Any]) -> tuple[Array, ...]:
    """What an operator gives; see :func:`agnostic.program.exact.evaluated`.

    Raises:
        InvalidInput: it does not take such operands.
    """
    if node.operator == "convolution" and _fits(node, operands):
        return (_convolution(node, *operands),)
    return evaluated(node, operands)


def _fits(node: Node, operands: Sequence[Any]) -> bool:
    """Whether torch takes the operands; what it does not take, the reference refuses in words."""
    x, kernel, bias = (*operands, None)[:3]
    if not all(
        isinstance(y, np.ndarray) and y.dtype == np.float64 for y in (x, kernel, *([bias] * (bias is not None)))
    ):
        return False
    channels = x.shape[node.attributes.get("channel_axis", 1)] if x.ndim == kernel.ndim else -1
    return (
        x.ndim - 2 in _CONVOLUTIONS
        and channels == kernel.shape[1] * node.attributes.get("groups", 1)
        and all(n + sum(pair) >= (k - 1) * d + 1 for n, k, d, pair in _windows(node, x, kernel))
        and bool(x.size and kernel.size)
    )


def _windows(node: Node, x: Array, kernel: Array) -> Any:
    axis = node.attributes.get("channel_axis", 1) % x.ndim
    sizes = [n for k, n in enumerate(x.shape) if k not in (0, axis)]
    return zip(sizes, kernel.shape[2:], node.attributes["dilation"], node.attributes["padding"], strict=True)


def _convolution(node: Node, x: Array, kernel: Array, bias: Array | None = None) -> Array:
    axis = node.attributes.get("channel_axis", 1)
    pairs = node.attributes["padding"]
    images, weights = (tensor(np.ascontiguousarray(array)) for array in (np.moveaxis(x, axis, 1), kernel))
    if any(map(any, pairs)):
        images = functional.pad(images, [n for pair in reversed(tuple(pairs)) for n in pair])
    with torch.no_grad():
        found = _CONVOLUTIONS[x.ndim - 2](
            images, weights, None if bias is None else tensor(bias), tuple(node.attributes["stride"]), 0,
            tuple(node.attributes["dilation"]), node.attributes.get("groups", 1),
        )  # fmt: skip
    result: Array = np.moveaxis(found.numpy(), 1, axis)
    return result


def tensor(x: Array) -> Tensor:
    """An array as a tensor; a copy where torch could not have its memory: read-only, or walked backwards."""
    return torch.from_numpy(x if x.flags.writeable and min(x.strides, default=0) >= 0 else x.copy())
