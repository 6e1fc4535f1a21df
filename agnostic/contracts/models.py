"""Capability: make models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from agnostic.contracts.capability import Capability, Model

if TYPE_CHECKING:
    from agnostic.models.architecture import Architecture


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


MODELS: Capability[Models] = Capability("models", Models, "make models")
