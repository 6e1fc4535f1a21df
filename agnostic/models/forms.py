"""The forms of a model's inputs, and the results of a trial run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from agnostic.layers import Layer
from agnostic.renamed import old_names

_CHANNELS_LAST = {"".join(sorted(axes)): axes for axes in ("NHWC", "NLC", "NDHWC")}
_ROW, _VOLUME = "NLC", "NDHWC"


@dataclass(frozen=True)
class Input:
    """One input of a model.

    A row (a sound, a series) is drawn as an image one pixel high, a volume (a video) as an image whose channels are
    those of its frames, one frame after the other.

    Attributes:
        shape: with a batch of one; None for a variable length.
        axes: one letter per dimension, as in :class:`agnostic.layers.Layer`: ``"NCHW"``, ``"NHWC"``, ``"NLC"``.
        integer: whether it holds indices.
    """

    shape: tuple[int | None, ...]
    axes: str
    integer: bool = False

    def length(self, axis: str) -> int | None:
        """The length of an axis; None if it is variable or there is no such axis."""
        return self.shape[self.axes.index(axis)] if axis in self.axes else None

    @property
    def is_image(self) -> bool:
        """Whether it is a batch of images."""
        return sorted(self.axes) == sorted("NCHW")

    @property
    def channels_last(self) -> str:
        """The axes with the channels last: ``"NHWC"``, ``"NLC"`` or ``"NDHWC"``; empty for what is not drawn."""
        return "" if self.integer else _CHANNELS_LAST.get("".join(sorted(self.axes)), "")

    @property
    def pixels(self) -> tuple[int, int, int]:
        """(height, width, channels) of the image that it is drawn as."""
        height, width, channels = (self.length(axis) or 1 for axis in ("H", "W", "C"))
        if self.channels_last == _ROW:
            return 1, self.length("L") or 1, channels
        return height, width, channels * (self.length("D") or 1)

    @property
    def size(self) -> tuple[int, int] | None:
        """(height, width) of an image, where both are known."""
        height, width = self.length("H"), self.length("W")
        return None if height is None or width is None else (height, width)

    def having(self, **lengths: int) -> Input:
        """The same with other lengths, by axis: ``having(H=48, W=96)``."""
        shape = tuple(lengths.get(axis, n) for axis, n in zip(self.axes, self.shape, strict=True))
        return replace(self, shape=shape)

    def sized(self, height: int, width: int) -> Input:
        """The same in another size; a row is as long as an image of it is wide."""
        return self.having(L=width) if self.channels_last == _ROW else self.having(H=height, W=width)

    def unfolded(self, ops: Any, images: Any) -> Any:
        """Images (N, height, width, channels) as :attr:`channels_last` has them, over any array operations."""
        if self.channels_last == _ROW:
            return images[:, 0]
        if self.channels_last != _VOLUME:
            return images
        rows, height, width, channels = ops.shape(images)
        frames = ops.reshape(images, (rows, height, width, -1, self.length("C") or channels))
        return ops.transpose(frames, (0, 3, 1, 2, 4))

    def shown(self, images: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Finished images (N, height, width, channels): the frames of a volume side by side, (N, H, D * W, C)."""
        if self.channels_last != _VOLUME:
            return images
        rows, height, width, _ = images.shape
        frames = images.reshape(rows, height, width, -1, self.length("C") or 1)
        return frames.transpose(0, 1, 3, 2, 4).reshape(rows, height, -1, frames.shape[4])

    def zeros(self, default: int = 224) -> npt.NDArray[Any]:
        """Zeros of this shape; a free length is ``default``."""
        shape = [default if n is None else n for n in self.shape]
        return np.zeros(shape, np.int64 if self.integer else np.float32)

    def arrange(self, images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """What :meth:`unfolded` gives in the order of these axes."""
        return np.ascontiguousarray(np.transpose(images, [self.channels_last.index(axis) for axis in self.axes]))


@dataclass(frozen=True)
class Takes:
    """The inputs that a layer with parameters takes.

    Attributes:
        ranks: numbers of dimensions that it takes; empty for any.
        axis: the dimension whose length its parameters fix, from the front or, negative, from the end.
        length: of that dimension.
        integer: whether it takes indices.
    """

    ranks: tuple[int, ...]
    axis: int
    length: int
    integer: bool = False

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether a shape has the right number of dimensions, and the right length where it matters."""
        if self.integer:
            return True
        if (self.ranks and len(shape) not in self.ranks) or not -len(shape) <= self.axis < len(shape):
            return False
        return shape[self.axis] == self.length


@dataclass(frozen=True)
class Received:
    """The input of one layer in a run.

    Attributes:
        layer: its name.
        takes: the inputs that it takes.
        shape: of its input.
        argument: the position of its input among the model's inputs; None if the model computed it.
    """

    layer: str
    takes: Takes
    shape: tuple[int, ...]
    argument: int | None


@dataclass(frozen=True)
class ModelRun:
    """The result of a trial run of a model, also of a failed one.

    Attributes:
        layers: in the order in which they first ran; those that did not run follow, with no calls.
        error: the error of the model; None if the run succeeded.
        received: by the layers with parameters, in order.
        failed_in: the layer with parameters inside which the run failed, if it was in one.
        batch: the length of the first axis of the output; None if it has none, or was not checked.
    """

    layers: Sequence[Layer]
    error: Exception | None = None
    received: Sequence[Received] = ()
    failed_in: Received | None = None
    batch: int | None = 1

    @property
    def reason(self) -> str:
        """What went wrong, on one line."""
        if self.error is None:
            return ""
        lines = [line.strip() for line in str(self.error).splitlines()]
        said = next((x for x in lines if x and "Exception encountered" not in x), type(self.error).__name__)
        return said.replace("\x1b[1m", "").replace("\x1b[0m", "")[:200]


def is_python_refusal(error: Exception) -> bool:
    """Whether an error of a run is of a class that means unsuitable inputs, and is not out of memory."""
    kinds = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError)
    return isinstance(error, kinds) and "RESOURCE_EXHAUSTED" not in str(error)


if not TYPE_CHECKING:
    __getattr__ = old_names(__name__, {"Trial": "ModelRun"})
