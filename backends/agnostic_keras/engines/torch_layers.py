"""Convolutions and pools on PyTorch: Keras copies into another memory format before each, and back after it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from agnostic_keras.engines import pads

Tensor = torch.Tensor


def convolution(layer: Any, x: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
    """See :mod:`agnostic_keras.engines`."""
    depthwise = hasattr(layer, "depth_multiplier")
    weight = kernel.permute(2, 3, 0, 1).flatten(0, 1)[:, None] if depthwise else kernel.permute(3, 2, 0, 1)
    x, padding = _padded(layer, x, kernel.shape[:2], 0.0)
    options = layer.strides, padding, layer.dilation_rate, x.shape[1] // weight.shape[1]
    return F.conv2d(x, weight, bias, *options).permute(0, 2, 3, 1)


def max_pool(layer: Any, x: Tensor) -> Tensor:
    """See :mod:`agnostic_keras.engines`."""
    x, padding = _padded(layer, x, layer.pool_size, float("-inf"))
    return F.max_pool2d(x, layer.pool_size, layer.strides, padding).permute(0, 2, 3, 1)


def _padded(layer: Any, x: Tensor, window: Sequence[int], value: float) -> tuple[Tensor, Any]:
    """PyTorch's view of the input, padded where two sides differ, and what the operation itself is to pad."""
    x = x.permute(0, 3, 1, 2)
    (top, bottom), (left, right) = pads(layer, x.shape[2:], window)
    same = top == bottom and left == right
    return (x, (top, left)) if same else (F.pad(x, (left, right, top, bottom), value=value), 0)
