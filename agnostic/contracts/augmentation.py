"""Capability: augment batches of native arrays."""

from __future__ import annotations

from collections.abc import Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from agnostic.contracts.capability import Capability

if TYPE_CHECKING:
    from agnostic.augmentation.loaders import Loading
    from agnostic.augmentation.modern import Augmentation, Parameters

_I = TypeVar("_I")


class Augmentations(Protocol):
    """Batches of images, and what the framework's data loaders say."""

    def check_concrete(self, images: Any) -> None:
        """Raise InvalidInput for an array without values in memory, or without real numbers."""

    def apply(
        self, augmentation: Augmentation, images: Any, parameters: Sequence[Parameters], layout: str, filling: str
    ) -> Any:
        """A batch of images, each changed by its parameters.

        Args:
            images: (N, H, W, C) or (N, C, H, W) by ``layout``, of any dtype and device.
            parameters: one per image.
            filling: what the user calls the value that fills what lies outside of the images, for an error.

        Returns:
            An array of the same shape, dtype and device.
        """

    def dataset_class(self, cls: type[_I]) -> type[_I]:
        """A class of :mod:`agnostic.augmentation.iterators`, such that the framework takes it as a data set."""

    def loading(self, caller: FrameType) -> Loading | None:
        """What the framework's data loader says of where it asks for a batch; None where none asks.

        Args:
            caller: the frame that the batch is asked for from.
        """


AUGMENTATION: Capability[Augmentations] = Capability("augmentation", Augmentations, "augment its arrays")
