"""Capability: choose the device of models."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

from agnostic.contracts.capability import Capability, Model


class Devices(Protocol):
    """Devices."""

    def on_device(self, name: str) -> AbstractContextManager[Callable[[Model], Model]]:
        """A context in which models are built and run on a device; it yields a function that moves a model there.

        Args:
            name: ``"cpu"``, ``"cuda"`` or ``"gpu"`` (the same), with a number as ``"cuda:1"``, or another that the
                framework knows.

        Raises:
            InvalidInput: there is no such device.
        """


DEVICES: Capability[Devices] = Capability("devices", Devices, "choose a device: leave out device")
