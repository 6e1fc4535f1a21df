"""Capability: several models as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from agnostic.contracts.capability import Capability, Model

if TYPE_CHECKING:
    from agnostic.models.cards import Preprocessing


class Ensembles(Protocol):
    """Models of models."""

    def ensemble(
        self, members: Sequence[Model], preprocessing: Sequence[Preprocessing | None], axes: str, channels: int
    ) -> Model:
        """A model that returns the mean of what several models return for the same images, in inference mode.

        Args:
            members: the models, which become its children and are not copied.
            preprocessing: of each: from images in [0, 1], which the new model takes, to what that member takes.
            axes: of the images, such as ``"NCHW"``.
            channels: of the images.

        Returns:
            It returns the mean of arrays of one shape, or a tuple of the members' outputs where they differ in shape.
        """


ENSEMBLES: Capability[Ensembles] = Capability("ensembles", Ensembles, "make one model of several")
