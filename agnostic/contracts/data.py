"""Capability: rows, sequences and images as native arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from agnostic.contracts.capability import Capability

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class Data(Protocol):
    """The operations of :mod:`agnostic.data` on native arrays. The Registration names the views of image folders."""

    def take(self, array: Any, order: npt.NDArray[np.int64]) -> Any:
        """The rows of an array in that order."""

    def pad_rows(
        self, rows: Sequence[Any], maxlen: int | None, dtype: Any, padding: str, truncating: str, value: Any
    ) -> Any:
        """:func:`agnostic.data.pad_sequences` of native arrays, one per sequence."""

    def pad_ragged(
        self,
        values: Any,
        lengths: npt.NDArray[np.int64],
        maxlen: int | None,
        dtype: Any,
        padding: str,
        truncating: str,
        value: Any,
    ) -> Any:
        """:func:`agnostic.data.pad_sequences` of native arrays stored end to end."""

    def resize(self, pixels: npt.NDArray[np.uint8], size: tuple[int, int], interpolation: str) -> npt.NDArray[np.uint8]:
        """Resize an image, averaging over the pixels that an output pixel covers.

        Args:
            pixels: (H, W) or (H, W, C), writable.
            size: (height, width).
            interpolation: ``"bilinear"`` or ``"bicubic"``.
        """

    def check_transform(self, transform: Any) -> None:
        """Raise InvalidInput for a module that cannot change one image; see :meth:`transform_image`."""

    def transform_image(self, transform: Any, image: npt.NDArray[Any], draws: int) -> npt.NDArray[Any]:
        """Apply a module of this framework to an image; ``draws`` determines all its random numbers.

        Args:
            transform: the module, accepted by :meth:`check_transform`.
            image: (H, W, C).
            draws: 0 to 2^63 - 1, a different one for each image and epoch.

        Returns:
            (H, W, C), with any shape and dtype.
        """


DATA: Capability[Data] = Capability("data", Data, "take, pad and resize its arrays")
