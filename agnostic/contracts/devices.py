"""Capability: choose where models lie and run."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

from agnostic.contracts.capability import Capability, Model


class Devices(Protocol):
    """Devices."""

    def on_device(self, name: str) -> AbstractContextManager[Callable[[Model], Model]]:
        """Inside, models are built and run on a device; given is a function that brings a model there, and returns it.

        Args:
            name: ``"cpu"``, ``"cuda"`` or ``"gpu"`` (one thing), with a number as ``"cuda:1"``, or another that the
                framework knows.

        Raises:
            InvalidInput: there is no such device.
        """


DEVICES: Capability[Devices] = Capability("devices", Devices, "choose a device: leave device out")
