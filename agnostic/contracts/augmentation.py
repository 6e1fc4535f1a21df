"""Capability: augment batches of native arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from agnostic.contracts.capability import Capability

if TYPE_CHECKING:  # ``agnostic --help`` imports this module, and no NumPy
    import numpy as np
    import numpy.typing as npt

_I = TypeVar("_I")


@dataclass(frozen=True)
class Loading:
    """Facts of the framework's data loader about the current request for a batch.

    Attributes:
        seed: a number that the workers of an epoch share, drawn anew for each epoch, except for persistent workers;
            None in the process that iterates over the loader.
        worker: which of the workers this is.
        workers: how many there are.
    """

    seed: int | None = None
    worker: int = 0
    workers: int = 1


@dataclass(frozen=True, eq=False)
class Parameters:
    """The change of one image.

    Attributes:
        matrix: (2, 3) float64; output pixel (y, x) is read at ``matrix @ (y, x, 1)`` of the input, in pixels.
        brightness: factor of all values.
        contrast: factor of the distance from the image's mean.
        channel_shift: (C,) float64, added to each channel, as a fraction of the range of values.

    Example:
        >>> ag.augmentation.Augmentation(horizontal_flip=1.0).parameters(0, 0, (8, 8)).matrix.tolist()
        [[1.0, 0.0, 0.0], [0.0, -1.0, 7.0]]
    """

    matrix: npt.NDArray[np.float64]
    brightness: float
    contrast: float
    channel_shift: npt.NDArray[np.float64]


class Changes(Protocol):
    """The parts that a backend needs of :class:`agnostic.augmentation.Augmentation`; see there."""

    @property
    def order(self) -> int: ...
    @property
    def fill_mode(self) -> str: ...
    @property
    def fill_value(self) -> float: ...
    @property
    def changes_color(self) -> bool: ...
    @property
    def declared_range(self) -> tuple[float, float] | None: ...
    def range_of(self, dtype: npt.DTypeLike) -> tuple[float, float]: ...
    def check_fill(self, dtype: npt.DTypeLike, name: str = "fill_value") -> None: ...
    def apply_all(
        self, images: npt.NDArray[Any], parameters: Sequence[Parameters], out: npt.NDArray[Any] | None = None
    ) -> npt.NDArray[Any]: ...
    def apply_numpy(
        self, images: npt.NDArray[Any], chosen: Sequence[Parameters], layout: str, filling: str
    ) -> npt.NDArray[Any]: ...


class Augmentations(Protocol):
    """Batches of images, and what the framework's data loaders say."""

    def check_concrete(self, images: Any) -> None:
        """Raise InvalidInput for an array without values in memory, or without real numbers."""

    def apply(
        self, augmentation: Changes, images: Any, parameters: Sequence[Parameters], layout: str, filling: str
    ) -> Any:
        """A batch of images, each changed by its parameters.

        Args:
            images: (N, H, W, C) or (N, C, H, W) by ``layout``, of any dtype and device.
            parameters: one per image.
            filling: the user's name of the value that fills pixels outside of the images, for an error.

        Returns:
            An array of the same shape, dtype and device.
        """

    def dataset_class(self, cls: type[_I]) -> type[_I]:
        """A class of :mod:`agnostic.augmentation.iterators`, as a class that the framework takes as a data set."""

    def loading(self, caller: FrameType) -> Loading | None:
        """Facts of the data loader that requests a batch; None if no data loader does.

        Args:
            caller: the frame that requests the batch.
        """


AUGMENTATION: Capability[Augmentations] = Capability("augmentation", Augmentations, "augment its arrays")
