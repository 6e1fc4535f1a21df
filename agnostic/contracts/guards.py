"""Capability: stop at the first number that is not finite."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from agnostic.contracts.capability import Capability, Model


class Guards(Protocol):
    """Guards against NaN and infinity."""

    def guard(self, model: Model) -> AbstractContextManager[None]:
        """A context that raises NonFinite for the first layer, loss term or gradient that is not finite."""


GUARDS: Capability[Guards] = Capability("guards", Guards, "find the first number that is not finite")
