"""Data for torch: rows and sequences of tensors, images resized, and modules as augmentations of single images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.overrides import TorchFunctionMode

from agnostic.data.sequences import Ragged, check_sides, pad_sequences, width_of
from agnostic.errors import InvalidInput


def take(array: torch.Tensor, order: npt.NDArray[np.int64]) -> torch.Tensor:
    """See :meth:`agnostic.contracts.data.Data.take`."""
    return array.index_select(0, torch.from_numpy(order).to(array.device))


_IN_NUMPY = {
    torch.bool,
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.float16,
    torch.float32,
    torch.float64,
}
"""What NumPy has as well, by the same name; its memory is shared, and NumPy moves it faster."""


# Sequences --------------------------------------------------------------------------------------------------------
def pad_rows(
    rows: Sequence[torch.Tensor], maxlen: int | None, dtype: Any, padding: str, truncating: str, value: Any
) -> torch.Tensor:
    """:func:`agnostic.data.pad_sequences` of a list of tensors, on their device, differentiable."""
    for position, row in enumerate(rows):
        if row.ndim == 0:
            raise InvalidInput(f"the tensor at position {position} has no dimension and so no length")
    if all(row.device.type == "cpu" and not row.requires_grad and row.dtype in _IN_NUMPY for row in rows):
        kind = _dtype(dtype)
        if kind in _IN_NUMPY and isinstance(value, int | float):
            arrays = [row.numpy() for row in rows]
            return torch.from_numpy(pad_sequences(arrays, maxlen, str(kind)[6:], padding, truncating, value))
    full = [row for row in rows if len(row)]
    shape = full[0].shape[1:] if full else torch.Size()
    for position, row in enumerate(rows):
        if len(row) and row.shape[1:] != shape:
            raise InvalidInput(
                f"the elements of the sequence at position {position} have shape {tuple(row.shape[1:])}; those before "
                f"it have {tuple(shape)}, and one tensor needs one shape"
            )
        if row.device != rows[0].device:
            raise InvalidInput(f"the tensor at position {position} is on {row.device}, the first on {rows[0].device}")
    lengths = np.array([len(row) for row in rows], np.int64)
    values = torch.cat(full) if full else rows[0][:0]
    return pad_ragged(values, lengths, maxlen, dtype, padding, truncating, value)


def pad_ragged(
    values: torch.Tensor,
    lengths: npt.NDArray[np.int64],
    maxlen: int | None,
    dtype: Any,
    padding: str,
    truncating: str,
    value: Any,
) -> torch.Tensor:
    """:func:`agnostic.data.pad_sequences` of tensors stored end to end, on their device, differentiable."""
    kind = _dtype(dtype)
    if not isinstance(value, int | float):
        raise InvalidInput(f"value {value!r} does not fit a tensor; give a number")
    if values.device.type == "cpu" and not values.requires_grad and {kind, values.dtype} <= _IN_NUMPY:
        ragged = Ragged(values.numpy(), lengths)
        return torch.from_numpy(pad_sequences(ragged, maxlen, str(kind)[6:], padding, truncating, value))
    width = width_of(lengths, maxlen)
    if width < 0:
        raise InvalidInput(f"maxlen must be 0 or more, not {maxlen}")
    # Converted by NumPy's rule, so that 2.5 pads integers with 2 as it does there.
    fill = value if kind.is_floating_point or kind.is_complex else int(value)
    out = torch.full((len(lengths), width, *values.shape[1:]), fill, dtype=kind, device=values.device)
    if not lengths.any():
        return out
    check_sides(padding, truncating)
    if width == 0:
        raise InvalidInput("maxlen 0 keeps nothing of the sequences; give 1 or more")
    # Positions are counted where the values are: only the lengths cross to the device.
    counts = torch.from_numpy(lengths).to(values.device)
    if (lengths > width).any():
        starts = torch.cumsum(counts, 0) - counts
        index = torch.arange(len(values), device=values.device) - torch.repeat_interleave(starts, counts)
        if truncating == "pre":
            values = values[index >= torch.repeat_interleave(counts - width, counts)]
        else:
            values = values[index < width]
    columns = torch.arange(width, device=values.device)
    kept = counts.clamp(max=width)[:, None]
    occupied = columns < kept if padding == "post" else columns >= width - kept
    occupied = occupied.reshape(*occupied.shape, *(1,) * (out.ndim - 2))
    return out.masked_scatter(occupied, values.to(kind))


def _dtype(dtype: Any) -> torch.dtype:
    kind = dtype
    if not isinstance(kind, torch.dtype):
        # NumPy's names, classes and objects go by their name; bool_ is its own.
        name = dtype if isinstance(dtype, str) else getattr(dtype, "__name__", str(dtype))
        kind = getattr(torch, name.rstrip("_"), None)
    if not isinstance(kind, torch.dtype):
        raise InvalidInput(f"dtype {dtype!r} is none of torch's; give a name such as 'int32', 'int64' or 'float32'")
    return kind


# Images -----------------------------------------------------------------------------------------------------------
def resize(pixels: npt.NDArray[np.uint8], size: tuple[int, int], interpolation: str) -> npt.NDArray[np.uint8]:
    """Resize an image, averaging over the pixels that an output pixel covers.

    Args:
        pixels: (H, W) or (H, W, C), writable.
        size: (height, width).
        interpolation: ``"bilinear"`` or ``"bicubic"``.
    """
    image = torch.from_numpy(pixels if pixels.ndim == 3 else pixels[:, :, None]).permute(2, 0, 1)[None]
    resized = torch.nn.functional.interpolate(image, size, mode=interpolation, antialias=True)
    out: npt.NDArray[np.uint8] = resized[0].permute(1, 2, 0).contiguous().numpy()
    return out if pixels.ndim == 3 else out[:, :, 0]


_RANDOM = frozenset(
    (
        "bernoulli",
        "bernoulli_",
        "binomial",
        "cauchy_",
        "exponential_",
        "geometric_",
        "log_normal_",
        "multinomial",
        "normal",
        "normal_",
        "poisson",
        "rand",
        "rand_like",
        "randint",
        "randint_like",
        "randn",
        "randn_like",
        "random_",
        "randperm",
        "uniform_",
        "_sample_dirichlet",
        "_standard_gamma",
    )
)
"""The names of torch's functions and methods that draw random numbers and take a ``generator``."""


class _DrawingFrom(TorchFunctionMode):
    """Random numbers come from one generator, in this thread: the global one is neither read nor changed."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.generator = generator

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if getattr(func, "__name__", "") in _RANDOM and kwargs.get("generator") is None:
            kwargs["generator"] = self.generator
        return func(*args, **kwargs)


def check_transform(transform: torch.nn.Module) -> None:
    """Every module may be one: what it makes of an image is checked where it makes it."""


def transform_image(transform: torch.nn.Module, image: npt.NDArray[Any], draws: int) -> npt.NDArray[Any]:
    """See :meth:`agnostic.contracts.data.Data.transform_image`."""
    tensor = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
    with torch.no_grad(), _DrawingFrom(torch.Generator().manual_seed(draws)):
        changed = transform(tensor)
    if not isinstance(changed, torch.Tensor) or changed.ndim != 3:
        what = f"shape {tuple(changed.shape)}" if isinstance(changed, torch.Tensor) else type(changed).__name__
        raise InvalidInput(f"the augmentation made {what} of a (C, H, W) tensor; it must make such a tensor again")
    return changed.permute(1, 2, 0).numpy()
