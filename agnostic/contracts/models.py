"""Capability: make models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from agnostic.contracts.capability import Capability, Model

if TYPE_CHECKING:
    from agnostic.models.architecture import Architecture
    from agnostic.models.cards import Preprocessing


class Models(Protocol):
    """Models by description and by specification."""

    def build(self, architecture: Architecture) -> Model:
        """A native model of a described architecture, in inference mode, with random weights."""

    def load(self, spec: str, weights: str | Path | None = None, *, trust: bool = False) -> Model:
        """A model by a specification, such as ``"torchvision:vgg16"``.

        Args:
            weights: ``"default"`` (or None), ``"random"``, or the path of a weight file.
            trust: whether a model file may name any function and contain code.
        """

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


MODELS: Capability[Models] = Capability("models", Models, "make models")
