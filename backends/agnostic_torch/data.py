"""Data for torch: sequences of tensors, and image folders as IterableDataset and DataLoader."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from agnostic.data.sequences import check_sides, width_of
from agnostic.errors import InvalidInput


def take(tensor: torch.Tensor, order: npt.NDArray[np.int64]) -> torch.Tensor:
    """The rows of ``tensor`` in that order."""
    return tensor.index_select(0, torch.from_numpy(order).to(tensor.device))


# Sequences --------------------------------------------------------------------------------------------------------
def pad_tensors(
    rows: list[torch.Tensor], maxlen: int | None, dtype: Any, padding: str, truncating: str, value: Any
) -> torch.Tensor:
    """:func:`agnostic.data.pad_sequences` of a list of tensors, on their device, differentiable."""
    for position, row in enumerate(rows):
        if row.ndim == 0:
            raise InvalidInput(f"the tensor at position {position} has no dimension and so no length")
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
