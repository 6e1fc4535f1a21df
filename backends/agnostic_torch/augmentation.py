"""Augmentation in PyTorch: batches are warped where they are, in one call of ``grid_sample``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import FrameType
from typing import Any, TypeVar

import numpy as np
import torch

from agnostic.augmentation import Augmentation, Parameters, color, iterators
from agnostic.augmentation.modern import FILL_MODES
from agnostic.contracts.augmentation import Loading
from agnostic.errors import InvalidInput
from agnostic.reference.warp import FillMode, check_fill_mode, check_order

_I = TypeVar("_I", bound=iterators.Iterator)


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
        images: (N, C, H, W), floating point; of any dtype with order 0, whose values are moved as they are.
        matrices: (N, 2, 3); output pixel (y, x) is read at ``matrix @ (y, x, 1)`` of the input.
        shape: (height, width) of the output; None: that of the images.
        order: 0 reads the nearest pixel, 1 interpolates bilinearly.
        fill_mode: one of :data:`agnostic.reference.warp.FILL_MODES`.
        cval: what ``"constant"`` and ``"grid-constant"`` fill with.

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
    if mode in ("grid-constant", "grid-wrap"):
        # One pixel of what lies around the image: its frame. Then all that is read is inside.
        images, folded = _framed(images, mode, cval), torch.floor(folded + 0.5) + 1 if order == 0 else folded + 1
    elif order == 0:
        folded = torch.floor(folded + 0.5)
    result = _gather(images, folded) if order == 0 else _blend(images, folded)
    if mode == "constant":
        last = torch.tensor([height - 1, width - 1], device=images.device, dtype=real)[:, None, None]
        outside = ((position < 0) | (position > last)).any(dim=1, keepdim=True)
        result = result.masked_fill(outside, cval)
    return result


def _framed(images: torch.Tensor, mode: FillMode, cval: float) -> torch.Tensor:
    """:func:`agnostic.reference.warp.framed` of a batch."""
    height, width = images.shape[2:]
    if mode == "grid-constant":
        framed = torch.full((*images.shape[:2], height + 2, width + 2), cval, dtype=images.dtype, device=images.device)
        framed[:, :, 1:-1, 1:-1] = images
        return framed
    rows, columns = (torch.arange(-1, side + 1, device=images.device) % side for side in (height, width))
    return images[:, :, rows][:, :, :, columns]


def _gather(images: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
    """The pixels at whole rows and columns (N, 2, height, width): moved, never computed with."""
    count, channels, _, width = images.shape
    place = (pixels[:, 0] * width + pixels[:, 1]).to(torch.int64).flatten(1)
    found = images.flatten(2).gather(2, place[:, None].expand(count, channels, place.shape[1]))
    return found.reshape(count, channels, *pixels.shape[2:])


def _blend(images: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """The images read bilinearly at positions (N, 2, height, width) inside of them."""
    height, width = images.shape[2:]
    last = torch.tensor([height - 1, width - 1], device=images.device, dtype=positions.dtype)[:, None, None]
    grid = (2 * positions / last.clamp(min=1) - 1).flip(1).movedim(1, -1)
    return torch.nn.functional.grid_sample(
        images, grid.to(images.dtype), mode="bilinear", padding_mode="border", align_corners=True
    )


def _fold(position: torch.Tensor, length: int, mode: FillMode) -> torch.Tensor:
    """:func:`agnostic.reference.warp.fold`."""
    last = length - 1
    if mode == "grid-constant":
        return position.clamp(-1, length)
    if mode == "grid-wrap":
        below, above = -torch.trunc(-position / length) - 1, torch.trunc(position / length)
        return position - length * torch.where(position < 0, below, above)
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
    augmentation: Augmentation, images: torch.Tensor, parameters: Sequence[Parameters], layout: str, filling: str
) -> torch.Tensor:
    """See :meth:`agnostic.contracts.augmentation.Augmentations.apply`."""
    augmentation.check_fill(numpy_dtype(images), filling)
    if images.device.type == "cpu" and not images.requires_grad and images.dtype in (torch.float32, torch.uint8):
        # OpenCV is several times faster than grid_sample there, and has no gradients to give.
        moved = torch.empty_like(images)
        source, target = ((x.movedim(1, 3) if layout == "NCHW" else x).numpy() for x in (images, moved))
        augmentation.apply_all(source, parameters, target)
        return moved
    x = images if layout == "NCHW" else images.movedim(3, 1)
    matrices = np.stack([p.matrix for p in parameters]) if parameters else np.empty((0, 2, 3))
    moves = not (matrices == np.eye(2, 3)).all()
    options: dict[str, Any] = {"fill_mode": FILL_MODES[augmentation.fill_mode], "cval": augmentation.fill_value}
    if augmentation.order == 0 and not augmentation.changes_color:
        x = _moved(x, torch.from_numpy(matrices), options) if moves else x.clone()
        return x if layout == "NCHW" else x.movedim(1, 3)
    dtype = x.dtype
    x = x.to(_wide(x))
    value_range = augmentation.range_of(numpy_dtype(images)) if augmentation.changes_color else (0.0, 1.0)
    if augmentation.changes_color and (dtype.is_signed or augmentation.declared_range is not None) and x.numel():
        color.check_range(*_extent(x), value_range)
    if moves:
        x = warp(x, torch.from_numpy(matrices), order=augmentation.order, **options)
    if augmentation.changes_color:
        x = _colored(x, parameters, value_range)
    if dtype == torch.bool:
        x = x >= 0.5
    elif not dtype.is_floating_point:
        limits = torch.iinfo(dtype)
        x = torch.trunc(x + torch.copysign(torch.full_like(x, 0.5), x)).clamp(limits.min, limits.max)
    x = x.to(dtype)
    return x if layout == "NCHW" else x.movedim(1, 3)


def check_concrete(images: torch.Tensor) -> None:
    """Raise InvalidInput for tensors without pixels in memory, or without real numbers."""
    if images.layout != torch.strided or images.is_quantized or images.is_nested or images.device.type == "meta":
        kinds = {"quantized": images.is_quantized, "nested": images.is_nested, "on the device 'meta'": images.is_meta}
        kind = next((name for name, found in kinds.items() if found), str(images.layout))
        raise InvalidInput(f"images are a dense tensor of numbers, and this one is {kind}: convert it first")
    if images.dtype not in _NUMBERS:
        raise InvalidInput(f"images have dtype {images.dtype}, and integers, floating point or booleans are expected")


_NUMBERS = {torch.bool, torch.uint8, torch.uint16, torch.uint32, torch.uint64}
_NUMBERS |= {torch.int8, torch.int16, torch.int32, torch.int64}
_NUMBERS |= {torch.float16, torch.bfloat16, torch.float32, torch.float64}
"""What has the operations that are needed here: types of 8 bits and less for storage have not."""


def _wide(x: torch.Tensor) -> torch.dtype:
    """The dtype to compute in: half precision has no room for positions, and float64 holds 32-bit integers."""
    if x.dtype in (torch.float32, torch.float64):
        return x.dtype
    narrow = x.dtype.is_floating_point or x.dtype.itemsize < 4
    return torch.float32 if narrow or x.device.type == "mps" else torch.float64


def _moved(x: torch.Tensor, matrices: torch.Tensor, options: dict[str, Any]) -> torch.Tensor:
    """The warp of order 0, which moves the bits of any dtype."""
    bits = _BITS.get(x.dtype)
    if bits is None:
        return warp(x, matrices, order=0, **options)
    filler = torch.tensor(int(options["cval"]), dtype=x.dtype).view(bits).item()
    return warp(x.view(bits), matrices, order=0, **(options | {"cval": filler})).view(x.dtype)


# PyTorch has few operations for these; moving their bits is the same.
_BITS = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}


def _extent(x: torch.Tensor) -> tuple[float, float]:
    """:func:`agnostic.augmentation.color.extent` of a batch: one pass, and on an accelerator one synchronization."""
    lowest, highest = (float(value) for value in x.detach().aminmax())
    if lowest != lowest:
        known = x.detach()[~x.isnan()]
        return _extent(known) if known.numel() else (math.nan, math.nan)
    return lowest, highest


def _colored(x: torch.Tensor, parameters: Sequence[Parameters], value_range: tuple[float, float]) -> torch.Tensor:
    low, high = value_range
    gain, contrast = (
        torch.tensor([getattr(p, name) for p in parameters], device=x.device, dtype=x.dtype)[:, None, None, None]
        for name in ("brightness", "contrast")
    )
    shift = np.stack([p.channel_shift for p in parameters])[:, :, None, None] * (high - low)
    offset = torch.from_numpy(shift).to(x.device, x.dtype)
    # Of the values that are numbers: one NaN pixel stays one NaN pixel.
    spread = any(p.contrast != 1 for p in parameters)
    mean = x.nanmean(dim=(1, 2, 3), keepdim=True).nan_to_num(low) if spread else torch.full_like(gain, low)
    slope, intercept = color.linear(gain, contrast, offset, mean, low)
    changed: torch.Tensor = (x * slope + intercept).clamp(low, high)
    return changed


def dataset_class(cls: type[_I]) -> type[_I]:
    """The iterator class itself: what has a length and batches by index is a map-style dataset."""
    return cls


def loading(caller: FrameType) -> Loading | None:
    """What a ``DataLoader`` says of where it asks for a batch; None where none asks.

    Without workers it says nothing: then the caller's module tells, which is how a batch that it asks for differs from
    one that a user or another framework's loop asks for.
    """
    info = torch.utils.data.get_worker_info()
    if info is not None:
        return Loading(info.seed - info.id, info.id, info.num_workers)
    return Loading() if str(caller.f_globals.get("__name__")).startswith("torch.utils.data.") else None


def numpy_dtype(images: torch.Tensor) -> np.dtype[Any]:
    """NumPy's dtype that has the range of a tensor's: for bfloat16 it is float32."""
    check_concrete(images)
    return np.dtype(np.float32 if images.dtype == torch.bfloat16 else str(images.dtype).removeprefix("torch."))


class RandomAugmentation(torch.nn.Module):
    """Augments (N, C, H, W) batches in training mode; the number of images seen is part of its state.

    Args:
        augmentation: what happens to the images.
        seed: with the number of images seen so far, all that the parameters depend on; but for workers of a
            ``DataLoader``, which hold copies: there the seed of the worker comes in, which differs by worker and epoch
            and follows ``torch.manual_seed`` or the loader's generator.
        layout: ``"NCHW"`` or ``"NHWC"``; None: NCHW, and an error where the shape looks like the other.
    """

    seen: torch.Tensor

    def __init__(self, augmentation: Augmentation, seed: int, layout: str | None = None) -> None:
        super().__init__()
        self.augmentation = augmentation
        self.seed = seed
        self.layout = layout
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The batch, augmented in training mode and as it is in evaluation."""
        if not self.training:
            return images
        first = int(self.seen)
        worker = torch.utils.data.get_worker_info()
        result: torch.Tensor = self.augmentation(
            images, seed=self.seed, index=first, epoch=0 if worker is None else worker.seed, layout=self.layout
        )
        self.seen += len(images)
        return result

    def extra_repr(self) -> str:
        return f"{self.augmentation}, seed={self.seed}"
