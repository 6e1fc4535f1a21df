"""Capability: gradient ascent on images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

from agnostic.contracts.capability import Capability, Model

if TYPE_CHECKING:
    from agnostic.visualization.ascent import Ascent, Climbed, Settings


class Ascents(Protocol):
    """The loop of an ascent; the mathematics is :class:`agnostic.visualization.ascent.Ascent`'s."""

    def ascend(self, model: Model, ascent: Ascent, settings: Settings) -> Iterator[Climbed]:
        """Run the ascent in micro-batches.

        A path without a gradient gives a gradient of zeros, never an error: see ``reached`` of
        :class:`agnostic.visualization.ascent.Climbed`.

        Yields:
            The result of each micro-batch, as soon as it is finished.

        Raises:
            NonFinite: the objective or its gradient is not finite; the message names the step.
        """


ASCENT: Capability[Ascents] = Capability("ascent", Ascents, "run gradient ascent")
