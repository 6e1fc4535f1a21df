"""The numbers in a tensor of any layout, as ordinary tensors and as NumPy arrays."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from agnostic.errors import InvalidInput


def parts(x: Tensor) -> list[Tensor]:
    """A tensor as dense ones, detached: one, or one for each part of a nested tensor.

    Sparse tensors are filled up, and quantized ones are the real numbers that they stand for.

    Raises:
        InvalidInput: a tensor on the meta device has a shape and no numbers.
    """
    x = x.detach()
    if x.device.type == "meta":
        raise InvalidInput(
            f"a tensor of shape {tuple(x.shape)} is on the meta device, which keeps no numbers: give the model weights "
            "and inputs on a real device"
        )
    if x.is_nested:
        return [dense for part in x.unbind() for dense in parts(part)]
    if x.is_quantized:
        return [x.dequantize()]
    return [x if x.layout == torch.strided else x.to_dense()]


def copied(x: Tensor) -> Tensor:
    """A copy that changes in place do not reach; a quantized tensor itself: not each kind of it can be copied."""
    return x if x.is_quantized else x.clone()


def to_numpy(x: Tensor) -> Any:
    """A tensor as NumPy, in main memory; bfloat16 and smaller come as float32, a nested tensor as a list of arrays."""
    arrays = [readable(part.cpu()).numpy() for part in parts(x)]
    return arrays if x.is_nested else arrays[0]


def readable(x: Tensor) -> Tensor:
    """An ordinary tensor in a type that NumPy has, and as it is written."""
    if x.is_floating_point() and (x.dtype == torch.bfloat16 or x.dtype.itemsize < 2):
        x = x.float()
    elif x.dtype == torch.complex32:
        x = x.to(torch.complex64)
    return x.resolve_conj().resolve_neg()
