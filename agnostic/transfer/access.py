"""What transfer needs from a backend: the weights of a model in groups, in the canonical layout, and runs of the model.

Arrays are NumPy throughout, channels last, ``(N, *spatial, C)`` or ``(N, L, features)``, whatever the framework's
layout.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from agnostic.contracts.capability import Model
from agnostic.models.architecture import same_padding
from agnostic.renamed import old_names

Array = np.ndarray[Any, Any]

Padding = str | tuple[tuple[int, int], ...]
"""``"same"``, ``"valid"``, or the zeros before and after each spatial axis."""


ROOT = "."
"""The name of a model as a layer, if it is one layer itself."""


@dataclass(frozen=True)
class WeightGroup:
    """The weights of one layer, or of one part of it, that are transferred together.

    Attributes:
        name: of the layer in its model, with the part where there are several: ``"rnn.l1_reverse"``; of a bare
            parameter, its own name.
        kind: as in :mod:`agnostic.transfer.layouts`, or ``"parameter"``, ``"normalization"``; the name of the class of
            a layer of the framework's own that the other framework lacks.
        layer: what runs: the layer's name, :data:`ROOT` for the model itself; ``""`` for a parameter that stands in a
            layer that holds others.
        weights: by Keras' names, in its layout.
        config: what decides, beside the weights, what the layer computes, as far as it can be told apart:
            ``epsilon``, ``strides``, ``padding``, ``dilation``; ``tied``: an earlier slot that has the same array;
            ``what``: of a class without a counterpart, what it is called in a sentence.
    """

    name: str
    kind: str
    layer: str
    weights: Mapping[str, Array]
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each weight."""
        return {name: tuple(x.shape) for name, x in self.weights.items()}


@dataclass(frozen=True)
class Pool:
    """An average pool that pads.

    Attributes:
        size, strides: one number per spatial axis.
        padding: the zeros around its input.
        counts: whether the zeros count: it divides by the window's size, else by what of the window lies on the image.
    """

    size: tuple[int, ...]
    strides: tuple[int, ...]
    padding: Padding
    counts: bool

    def share(self, spatial: Sequence[int]) -> Array:
        """How much of each window lies on an image of that size: (1, *windows, 1), from 0 to 1."""
        found = np.ones(())
        for axis, (n, k, s) in enumerate(zip(spatial, self.size, self.strides, strict=True)):
            low, high = same_padding(n, k, s) if isinstance(self.padding, str) else self.padding[axis]
            starts = np.arange((n + low + high - k) // s + 1) * s - low
            inside = (np.minimum(starts + k, n) - np.maximum(starts, 0)) / k
            found = np.multiply.outer(found, inside)
        return found[None, ..., None]


@dataclass(frozen=True)
class InputSpec:
    """One input of a model.

    Attributes:
        shape: channels last, without the batch; None where any size does.
        high: one above the highest integer that is allowed, for tokens; None for real numbers.
    """

    shape: tuple[int | None, ...]
    high: int | None = None


AroundGroup = Callable[[str, Array, Callable[[Array | None], Array]], Array | None]
"""Called as ``around(layer, x, run)`` in place of a layer: ``run(None)`` computes its output for its own input, and
``run(other)`` for another; both before a fused activation. What it returns, if anything, is what the layer is taken to
have returned: the activation follows."""


class Access(ABC):
    """Access to one model for transfer."""

    framework: str
    """``"torch"`` or ``"keras"``."""
    model: Model

    @property
    @abstractmethod
    def slots(self) -> Sequence[WeightGroup]:
        """All slots in the order of registration. Bare parameters may come before the layers around them."""

    @property
    def pools(self) -> Mapping[str, Pool]:
        """The average pools that pad, by the layer's name."""
        return {}

    @abstractmethod
    def write(self, slot: WeightGroup, weights: Mapping[str, Array]) -> None:
        """Set a slot's weights, all of them, of the shapes that the slot has.

        Raises:
            InvalidWeights: the framework has no place for these numbers; says why.
        """

    @abstractmethod
    def inputs(self) -> list[InputSpec]:
        """The inputs of the model.

        Raises:
            InvalidInput: they are not known.
        """

    @abstractmethod
    def canonical(self, inputs: Any) -> list[Array]:
        """The inputs in the model's own layout, one or a tuple, as canonical arrays."""

    @abstractmethod
    def run(
        self, inputs: Sequence[Array], layers: Sequence[str] = (), around: AroundGroup | None = None
    ) -> list[Array]:
        """Call the model in inference mode, with ``around`` in place of the named layers, and return its outputs."""

    @abstractmethod
    def overridden(self, overrides: Mapping[str, Mapping[str, Any]]) -> AbstractContextManager[None]:
        """A context in which layers have the given epsilon, strides, dilation or (explicit) padding.

        ``crop``, one pair per axis, is what the layers before have padded already, and what is taken off first.
        ``counts`` is a pool's, as of :class:`Pool`.
        """

    def exact(self) -> Access | None:
        """A copy that computes in float64, or None where the framework has none that can be relied on."""
        return None


if not TYPE_CHECKING:
    __getattr__ = old_names(__name__, {"Slot": "WeightGroup"})
