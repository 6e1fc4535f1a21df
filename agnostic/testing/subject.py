"""What the conformance kit examines, and how its checks speak."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from agnostic.contracts.capability import Capability, Model
from agnostic.contracts.inputs import INPUTS
from agnostic.models.inputs import image_input
from agnostic.registry import Backend, get_backend

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Subject:
    """What is examined.

    Attributes:
        backend: the name that it is registered by.
        model: makes a small model of it that takes images, in inference mode, with the same weights each time.
        layer: the name of one of its layers, with height, width and at least two channels, that runs once.
        size: height and width of the images to try.
        recipes: those that the backend can climb by.
        several: makes a model with several inputs, and what it is called with around a picture, as ``inputs`` of
            :func:`agnostic.visualize`: NumPy arrays of floating point with one row. It has ``layer`` too, which depends
            on all of them. None: the backend has no such models.

    Example:
        >>> import torch
        >>> Subject("torch", lambda: torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3)).eval(), layer="0").channels
        3
    """

    backend: str
    model: Callable[[], Model]
    layer: str
    size: int = 16
    recipes: tuple[str, ...] = ("classic", "fourier")
    several: Callable[[], tuple[Model, Any]] | None = None

    @property
    def owner(self) -> Backend:
        """The backend."""
        return get_backend(self.backend)

    @property
    def channels(self) -> int:
        """Channels of the images."""
        return image_input(self.owner, self.model(), size=self.size).length("C") or 0

    def pixels(self, seed: int = 0) -> Array:
        """Two images.

        Args:
            seed: of their pixels.

        Returns:
            (2, size, size, C) float32 in [0, 1].
        """
        shape = (2, self.size, self.size, self.channels)
        return np.random.default_rng(seed).random(shape, np.float32)

    def images(self, model: Model) -> Any:
        """Two images as a model takes them.

        Args:
            model: that :attr:`model` made.

        Returns:
            What the model is called with.
        """
        form = image_input(self.owner, model, size=self.size)
        return self.owner[INPUTS].native_inputs(model, [form.arrange(self.pixels())])

    def output(self, model: Model) -> Array:
        """What a model returns for :meth:`images`.

        Args:
            model: that :attr:`model` made.

        Returns:
            The one array, as NumPy.
        """
        return self.owner.ops.numpy(model(self.images(model)))


class Broken(AssertionError):
    """A promise of the contract is not kept."""


def require(holds: Any, key: Capability[Any], member: str, said: str) -> None:
    """Raise Broken with what is wrong, and with the contract of the function that is at fault."""
    if not holds:
        raise Broken(f"{said}. {member!r} must return {key.returns(member)}: {summary(key, member)}")


def due(key: Capability[Any], member: str) -> str:
    """What is said of a function that is missing."""
    return f"{member!r} is missing; it must return {key.returns(member)}: {summary(key, member)}"


def summary(key: Capability[Any], member: str) -> str:
    """The first line of a function's contract."""
    return (inspect.getdoc(getattr(key.contract, member)) or "").partition("\n")[0]
