"""Snapshots: an optimizer in the middle of training, as data, without a framework."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from agnostic import display
from agnostic.optimizers.specs import Spec
from agnostic.text import counted

Array = npt.NDArray[Any]


@dataclass(frozen=True, repr=False)
class ParameterState:
    """The state of one parameter.

    Attributes:
        shape: of the parameter.
        step: number of steps so far.
        slots: arrays by the names of :class:`agnostic.optimizers.rules.Rule`, and ``"average"`` for the moving average
            of the weights. Empty before the first step.
    """

    shape: tuple[int, ...]
    step: int = 0
    slots: Mapping[str, Array] = field(default_factory=dict)

    def __repr__(self) -> str:
        slots = display.listed(f"{name} {display.described(x)}" for name, x in self.slots.items())
        return f"<ParameterState: {self.shape}, step {self.step}, {slots or 'no slots'}>"


@dataclass(frozen=True, repr=False)
class Snapshot:
    """An optimizer and its state.

    Attributes:
        groups: (specification, names of its parameters); the specification's learning rate is the present one.
        states: of each parameter that moves, by name, in the model's own order.
        shapes: of every parameter, those that do not move among them, in the same order.
        outputs_last: kernels are (..., inputs, outputs), as in Keras.
        learning_rate: the present rate of the optimizer as a whole, beside those of its groups: a number or a schedule.
        in_order: False: the order of the parameters is that of the groups, and not known to be the model's.
    """

    groups: tuple[tuple[Spec, tuple[str, ...]], ...]
    states: Mapping[str, ParameterState]
    shapes: Mapping[str, tuple[int, ...]]
    outputs_last: bool
    learning_rate: Any
    in_order: bool = True

    def __repr__(self) -> str:
        groups = display.listed(f"{spec!r} of {counted(len(names), 'parameter')}" for spec, names in self.groups)
        steps = sorted({state.step for state in self.states.values()})
        return f"<Snapshot at step {display.listed(steps, 40) or 0}: {groups}>"

    def _repr_html_(self) -> str:
        rows = [
            (name, "x".join(map(str, x.shape)), x.step, ", ".join(x.slots)) for name, x in self.states.items()
        ]  # fmt: skip
        return display.table(repr(self).strip("<>"), ("parameter", "shape", "step", "slots"), rows)


@dataclass(frozen=True)
class ParameterLayout:
    """How one framework's array of a parameter becomes the other's.

    ``transpose(reshape(x, seen), axes)``, in ``shape``.
    """

    seen: tuple[int, ...]
    axes: tuple[int, ...]
    shape: tuple[int, ...]

    def __call__(self, x: Array) -> Array:
        return np.ascontiguousarray(x.reshape(self.seen).transpose(self.axes).reshape(self.shape))


def carried(state: ParameterState, layout: ParameterLayout) -> ParameterState:
    """The state of the parameter in its other layout."""
    factored = {"row", "column"} & state.slots.keys()
    slots = {}
    for name, value in state.slots.items():
        if name in factored:
            # Of matrices alone: rows of the one layout are columns of the other.
            turned = layout.axes != tuple(range(len(layout.axes)))
            other = {"row": "column", "column": "row"}[name] if turned else name
            slots[other] = value.transpose(layout.axes)
        else:
            slots[name] = layout(value) if value.shape == state.shape else value
    return ParameterState(layout.shape, state.step, slots)
