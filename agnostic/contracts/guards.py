"""Capability: stop at the first number that is not finite."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from agnostic.contracts.capability import Capability, Model


class Guards(Protocol):
    """Guards against NaN and infinity."""

    def guard(self, model: Model) -> AbstractContextManager[None]:
        """Raise NonFinite inside for the first layer, loss term or gradient of the model that is not finite."""


GUARDS: Capability[Guards] = Capability("guards", Guards, "tell where a number stops being finite")
