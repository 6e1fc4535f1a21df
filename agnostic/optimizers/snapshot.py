"""Snapshots: an optimizer in the middle of training, as data that no framework is needed for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from agnostic.optimizers.specs import Spec

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class ParameterState:
    """The state of one parameter.

    Attributes:
        shape: of the parameter.
        step: how many steps it has made.
        slots: arrays by the names of :class:`agnostic.optimizers.rules.Rule`, and ``"average"`` for the moving average
            of the weights. Empty before the first step.
    """

    shape: tuple[int, ...]
    step: int = 0
    slots: Mapping[str, Array] = field(default_factory=dict)


@dataclass(frozen=True)
class Snapshot:
    """An optimizer and its state.

    Attributes:
        groups: (specification, names of its parameters); the specification's learning rate is the present one.
        states: by name of the parameter, in the model's own order.
        outputs_last: kernels are (..., inputs, outputs), as in Keras.
    """

    groups: tuple[tuple[Spec, tuple[str, ...]], ...]
    states: Mapping[str, ParameterState]
    outputs_last: bool


def transposed(spec: Spec, state: ParameterState, axes: tuple[int, ...]) -> ParameterState:
    """The state of the parameter ``np.transpose(parameter, axes)``."""
    if axes == tuple(range(len(state.shape))):
        return state
    slots = {}
    for name, value in state.slots.items():
        slots[name] = np.transpose(value, axes) if value.ndim == len(axes) else value
    if {"row", "column"} <= slots.keys():
        # Rows of the one layout are columns of the other.
        slots["row"], slots["column"] = slots["column"], slots["row"]
    return ParameterState(tuple(state.shape[a] for a in axes), state.step, slots)
