"""Capability: run a model with numbers added to what its layers return, for attribution."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from agnostic.contracts.capability import Capability, Model

Array = Any
"""A native array."""


@dataclass(frozen=True)
class ForwardPass:
    """What one forward pass gave.

    Attributes:
        values: the outputs of the named layers, with what was added.
        output: what the model returned, as it is.
        arrays: the arrays in ``output``, in order.
        logits: for each of ``arrays``, what it was computed from where it is the result of a softmax or a sigmoid;
            None elsewhere.
    """

    values: Mapping[str, Array]
    output: Any
    arrays: tuple[Array, ...]
    logits: tuple[Array | None, ...]


class Attributions(Protocol):
    """ForwardPass passes whose derivatives explain an output; :mod:`agnostic.attribution` has the methods."""

    def forward(self, model: Model, inputs: Any) -> ForwardPass:
        """Run the model in inference mode, without gradients.

        Args:
            inputs: as in :func:`agnostic.capture`.
        """

    def perturbed(self, model: Model, inputs: Any, added: Mapping[str, Array]) -> ForwardPass:
        """Run the model in inference mode, with an array added to the output of each named layer.

        It can be differentiated by the gradients of the same backend with respect to the inputs and to what is added:
        the gradient with respect to zeros that are added is the gradient with respect to the layer's output.

        Args:
            inputs: as in :func:`agnostic.capture`.
            added: by layer name, of the shape of the layer's output; for layers that run once and return one array.

        Raises:
            InvalidInput: a layer returns no single array.
        """

    def guided(self) -> AbstractContextManager[list[None]]:
        """Inside, a ReLU or ReLU6 passes a gradient back only where it is positive.

        It may be written as a layer, a function or a method.

        Yields:
            A list that has one entry for each ReLU that has run.
        """


ATTRIBUTION: Capability[Attributions] = Capability("attribution", Attributions, "attribute outputs to pixels")
