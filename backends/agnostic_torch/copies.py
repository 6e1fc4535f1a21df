"""Copies between main memory and a GPU, in streams of their own: see :mod:`agnostic.contracts.copies`."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from agnostic_torch import values
from agnostic_torch.taps import leaves

Array = npt.NDArray[Any]


def staged(model: nn.Module, batch: Array) -> Array:
    """See :meth:`agnostic.contracts.copies.Copies.staged`: page-locked memory, if the model is on a GPU."""
    if _gpu(model) is None:
        return batch
    host = torch.empty(batch.shape, dtype=torch.from_numpy(np.empty(0, batch.dtype)).dtype, pin_memory=True)
    found: Array = host.numpy()  # which keeps the tensor's memory
    found[...] = batch
    return found


def sent(model: nn.Module, make: Callable[[], Any]) -> Any:
    """See :meth:`agnostic.contracts.copies.Copies.sent`."""
    device = _gpu(model)
    if device is None:
        return make()
    beside, computing = _stream(device, "in"), torch.cuda.current_stream(device)
    with torch.cuda.stream(beside):
        found = make()
    computing.wait_stream(beside)
    for x in leaves(found):
        if _is_on_gpu(x):
            # Its memory was taken in one stream and is read in the other: it is free again after both.
            x.record_stream(computing)
    return found


def fetching(arrays: Sequence[Tensor]) -> Callable[[], Sequence[Array]]:
    """See :meth:`agnostic.contracts.copies.Copies.fetching`."""
    begun = [_begun(x) if _is_on_gpu(x) else x for x in arrays]
    events = [_recorded(device) for device in {x.device for x in arrays if _is_on_gpu(x)}]

    def fetched() -> Sequence[Array]:
        for event in events:
            event.synchronize()
        return [values.to_numpy(x) for x in begun]

    return fetched


def _begun(x: Tensor) -> Tensor:
    """A tensor in page-locked memory, which the numbers of one on a GPU are on their way to."""
    x = values.readable(x.detach())
    beside = _stream(x.device, "out")
    beside.wait_stream(torch.cuda.current_stream(x.device))
    with torch.cuda.stream(beside):
        host = torch.empty_like(x, device="cpu", pin_memory=True)
        host.copy_(x, non_blocking=True)
    x.record_stream(beside)
    return host


def _recorded(device: torch.device) -> torch.cuda.Event:
    """An event after all that is on its way from a GPU."""
    event = torch.cuda.Event()
    event.record(_stream(device, "out"))
    return event


def _is_on_gpu(x: Tensor) -> bool:
    """Whether an ordinary tensor is on a GPU; others, such as sparse ones, have no memory to copy in one piece."""
    return x.is_cuda and x.layout == torch.strided and not x.is_nested and not x.is_quantized


def _gpu(model: nn.Module) -> torch.device | None:
    """The GPU that a model is on, as far as its first weight or buffer tells."""
    first = next(itertools.chain(model.parameters(), model.buffers()), None)
    return first.device if first is not None and first.is_cuda else None


@functools.cache
def _stream(device: torch.device, direction: str) -> torch.cuda.Stream:
    """The stream of the copies to or from a GPU."""
    return torch.cuda.Stream(device)
