"""The parameters of a model, and groups of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agnostic import display
from agnostic.layers import Layer


@dataclass(frozen=True)
class Inventory:
    """The trainable parameters of a model, and its layers, which they are chosen by.

    Attributes:
        parameters: by name, in the model's own order: ``"features.0.weight"``, ``"dense/kernel"``.
        layers: every layer that has parameters, the parameters themselves among them, with the names of what it holds.
        backend: the backend's name.
        absent: finds the layers and parameters of the model that nothing can be chosen by, each with what it is: "is
            frozen", "is called 'dense_3'".
    """

    parameters: Mapping[str, Any]
    layers: Sequence[tuple[Layer, tuple[str, ...]]]
    backend: str
    absent: Callable[[], Sequence[tuple[Layer, str]]] = tuple


@dataclass(frozen=True, repr=False)
class ParameterGroup:
    """Parameters that share their hyperparameters.

    Attributes:
        options: fields of the specification by name, in place of the ones that :func:`build` is given. ``spec``
            replaces the whole specification.
        parameters: (name, native parameter).
        trainable: False: these parameters are never moved.
    """

    options: Mapping[str, Any]
    parameters: tuple[tuple[str, Any], ...]
    trainable: bool = True

    def __repr__(self) -> str:
        return f"Group({self.said}: {display.listed((name for name, _ in self.parameters), 200)})"

    @property
    def said(self) -> str:
        """The options as text."""
        options = display.listed((f"{name}={value!r}" for name, value in self.options.items()), 120)
        return "frozen" if not self.trainable else options or "no options of its own"
