"""Where models of PyTorch lie and run: see :mod:`agnostic.contracts.devices`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from agnostic.errors import InvalidInput


@contextmanager
def on_device(name: str) -> Iterator[Callable[[nn.Module], nn.Module]]:
    """See :meth:`agnostic.contracts.devices.Devices.on_device`. Inputs follow a module to its device."""
    device = usable_device(name)
    yield lambda model: model.to(device)


def usable_device(name: str) -> torch.device:
    """The device of that name; ``cuda`` and ``gpu`` are one thing.

    Raises:
        InvalidInput: torch knows no such device, or this machine or this build of torch has none.
    """
    kind, colon, number = name.partition(":")
    try:
        device = torch.device(("cuda" if kind == "gpu" else kind) + colon + number)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # what torch raises, depending on its build
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InvalidInput(f"the device {name!r} cannot be used ({reason}): leave device out, or give 'cpu'") from None
    return device
