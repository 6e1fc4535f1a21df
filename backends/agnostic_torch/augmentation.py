"""Augmentation in PyTorch: batches are warped where they are, in one call of ``grid_sample``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from agnostic.augmentation import Augmentation, Parameters, color
from agnostic.reference.warp import FillMode, check_fill_mode, check_order


def warp(
    images: torch.Tensor,
    matrices: torch.Tensor,
    shape: tuple[int, int] | None = None,
    *,
    order: int = 1,
    fill_mode: str = "nearest",
    cval: float = 0.0,
) -> torch.Tensor:
    """Resample a batch by one affine map each, as :func:`agnostic.reference.warp.warp` does, on the images' device.

    Positions are computed and brought into the image in float64 (float32 where the device has no float64), so that
    what ``grid_sample`` does outside the image never matters. Differentiable with respect to the images.

    Args:
        images: (N, C, H, W), floating point.
        matrices: (N, 2, 3); output pixel (y, x) is read at ``matrix @ (y, x, 1)`` of the input.
        shape: (height, width) of the output; None: that of the images.
        order: 0 reads the nearest pixel, 1 interpolates bilinearly.
        fill_mode: ``"constant"``, ``"nearest"``, ``"reflect"`` or ``"wrap"``.
        cval: what ``"constant"`` fills with.

    Returns:
        (N, C, height, width), of the images' dtype.
    """
    mode, order = check_fill_mode(fill_mode), check_order(order)
    height, width = images.shape[2:]
    rows, columns = (height, width) if shape is None else shape
    real = torch.float32 if images.device.type == "mps" else torch.float64
    m = matrices.to(images.device, real)[:, :, :, None, None]
    y = torch.arange(rows, device=images.device, dtype=real)[:, None]
    x = torch.arange(columns, device=images.device, dtype=real)
    # In the order of the reference, which decides at jumps.
    position = m[:, :, 2] + y * m[:, :, 0] + x * m[:, :, 1]
    folded = torch.stack([_fold(position[:, 0], height, mode), _fold(position[:, 1], width, mode)], dim=1)
    if order == 0:
        folded = torch.floor(folded + 0.5)
    last = torch.tensor([height - 1, width - 1], device=images.device, dtype=real)[:, None, None]
    grid = (2 * folded / last.clamp(min=1) - 1).flip(1).movedim(1, -1)
    result = torch.nn.functional.grid_sample(
        images,
        grid.to(images.dtype),
        mode="nearest" if order == 0 else "bilinear",
        padding_mode="border",
        align_corners=True,
    )
    if mode == "constant":
        outside = ((position < 0) | (position > last)).any(dim=1, keepdim=True)
        result = result.masked_fill(outside, cval)
    return result


def _fold(position: torch.Tensor, length: int, mode: FillMode) -> torch.Tensor:
    """:func:`agnostic.reference.warp.fold`."""
    last = length - 1
    if length == 1:
        return torch.zeros_like(position)
    if mode == "wrap":
        wrapped = torch.remainder(position, last)
        # A position that is a whole number of periods above the image is its first pixel, one below it the last.
        wrapped = torch.where((position < 0) & (wrapped == 0), torch.full_like(wrapped, last), wrapped)
        return torch.where((position < 0) | (position > last), wrapped, position)
    if mode == "reflect":
        inside = torch.remainder(position, 2 * length)
        mirrored = torch.where(inside >= length - 0.5, 2 * length - 1 - inside, inside)
        position = torch.where((position < 0) | (position > last), mirrored, position)
    return position.clamp(0, last)


def apply(
    augmentation: Augmentation, images: torch.Tensor, parameters: Sequence[Parameters], layout: str
) -> torch.Tensor:
    """A batch of images, each changed by its parameters.

    Args:
        images: (N, C, H, W) or (N, H, W, C) by ``layout``, of any dtype and device.

    Returns:
        A tensor of the same shape, dtype and device.
    """
    if images.device.type == "cpu" and not images.requires_grad and images.dtype in (torch.float32, torch.uint8):
        # OpenCV is several times faster than grid_sample there, and has no gradients to give.
        moved = torch.empty_like(images)
        source, target = ((x.movedim(1, 3) if layout == "NCHW" else x).numpy() for x in (images, moved))
        augmentation.apply_all(source, parameters, target)
        return moved
    x = images if layout == "NCHW" else images.movedim(3, 1)
    dtype = x.dtype
    white = augmentation.white_of(_numpy_dtype(dtype))
    # Half precision has no room for positions or for whole numbers of masks; float64 holds 32-bit labels.
    wide = (
        torch.float32
        if dtype in (torch.uint8, torch.int8, torch.int16, torch.bool, torch.float16, torch.bfloat16)
        else (dtype if dtype.is_floating_point or x.device.type == "mps" else torch.float64)
    )
    x = x.to(wide)
    matrices = np.stack([p.matrix for p in parameters])
    if not (matrices == np.eye(2, 3)).all():
        x = warp(
            x,
            torch.from_numpy(matrices),
            order=augmentation.order,
            fill_mode=augmentation.fill_mode,
            cval=augmentation.fill_value,
        )
    if augmentation.changes_color:
        gain, contrast = (
            torch.tensor([getattr(p, name) for p in parameters], device=x.device, dtype=x.dtype)[:, None, None, None]
            for name in ("brightness", "contrast")
        )
        shift = np.stack([p.channel_shift for p in parameters])[:, :, None, None] * white
        offset = torch.from_numpy(shift).to(x.device, x.dtype)
        slope, intercept = color.linear(gain, contrast, offset, x.mean(dim=(1, 2, 3), keepdim=True))
        x = (x * slope + intercept).clamp(0, white)
    if not dtype.is_floating_point:
        x = torch.trunc(x + torch.copysign(torch.full_like(x, 0.5), x))
        if dtype != torch.bool:
            limits = torch.iinfo(dtype)
            x = x.clamp(limits.min, limits.max)
    x = x.to(dtype)
    return x if layout == "NCHW" else x.movedim(1, 3)


def _numpy_dtype(dtype: torch.dtype) -> Any:
    if dtype == torch.bool:
        return np.uint8
    return np.float32 if dtype.is_floating_point else str(dtype).removeprefix("torch.")


class RandomAugmentation(torch.nn.Module):
    """Augments (N, C, H, W) batches in training mode; the number of images seen is part of its state.

    Args:
        augmentation: what happens to the images.
        seed: with the number of images seen so far, all that the parameters depend on.
    """

    seen: torch.Tensor

    def __init__(self, augmentation: Augmentation, seed: int) -> None:
        super().__init__()
        self.augmentation = augmentation
        self.seed = seed
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The batch, augmented in training mode and as it is in evaluation."""
        if not self.training:
            return images
        first = int(self.seen)
        self.seen += len(images)
        result: torch.Tensor = self.augmentation(images, seed=self.seed, index=first)
        return result

    def extra_repr(self) -> str:
        return f"{self.augmentation}, seed={self.seed}"
