"""How the parameters of an image climb: the two update rules of the recipes, with their schedules as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from agnostic.ops import Array, Ops
from agnostic.optimizers import rules
from agnostic.renamed import old_names

Float64 = npt.NDArray[np.float64]
State = tuple[Array, ...]


class UpdateRule(Protocol):
    """What :class:`agnostic.visualization.ascent.Ascent` asks of an update rule."""

    def schedule(self, steps: int) -> dict[str, Float64]:
        """(steps,) arrays: the numbers that change from step to step."""

    def initial_state(self, parameters: Array) -> State:
        """The state before the first step."""

    def step(
        self, ops: Ops, parameters: Array, gradient: Array, state: State, now: Mapping[str, Array]
    ) -> tuple[Array, State]:
        """New parameters and state; ``now`` is the schedule at this step."""


@dataclass(frozen=True)
class NormalizedGradient:
    """Steps of one root mean square: see :func:`agnostic.optimizers.rules.normalized_gradient_step`."""

    learning_rate: float = 1.0
    epsilon: float = 1e-5

    def schedule(self, steps: int) -> dict[str, Float64]:
        return {"learning_rate": np.full(steps, self.learning_rate)}

    def initial_state(self, parameters: Array) -> State:
        return ()

    def step(
        self, ops: Ops, parameters: Array, gradient: Array, state: State, now: Mapping[str, Array]
    ) -> tuple[Array, State]:
        step = rules.normalized_gradient_step(ops, gradient, learning_rate=now["learning_rate"], epsilon=self.epsilon)
        return parameters + step, state


@dataclass(frozen=True)
class AdamAscent:
    """Adam, climbing: see :func:`agnostic.optimizers.rules.adam_step`."""

    learning_rate: float = 0.05
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8

    def schedule(self, steps: int) -> dict[str, Float64]:
        t = np.arange(1, steps + 1, dtype=np.float64)
        return {
            "learning_rate": np.full(steps, self.learning_rate),
            "correction_1": 1 - self.beta_1**t,
            "correction_2": 1 - self.beta_2**t,
        }

    def initial_state(self, parameters: Array) -> State:
        zeros = parameters * 0
        return zeros, zeros

    def step(
        self, ops: Ops, parameters: Array, gradient: Array, state: State, now: Mapping[str, Array]
    ) -> tuple[Array, State]:
        step, mean, square = rules.adam_step(
            ops,
            gradient,
            *state,
            learning_rate=now["learning_rate"],
            beta_1=self.beta_1,
            beta_2=self.beta_2,
            epsilon=self.epsilon,
            correction_1=now["correction_1"],
            correction_2=now["correction_2"],
        )
        return parameters + step, (mean, square)


if not TYPE_CHECKING:
    __getattr__ = old_names(__name__, {"Adam": "AdamAscent", "Update": "UpdateRule"})
