"""Optimizers in NumPy float64: the judge of both frameworks, and the ruler by which conventions are measured.

:func:`run` follows a specification on a function's gradients, :func:`replay` on gradients that were recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from agnostic.errors import InvalidInput
from agnostic.optimizers import rules
from agnostic.optimizers.specs import Spec, replace
from agnostic.reference.ops import ops
from agnostic.text import counted, type_named

Float64 = npt.NDArray[np.float64]
Gradient = Callable[[list[Float64]], Sequence[Float64]]


def run(
    spec: Spec,
    parameters: Sequence[npt.ArrayLike],
    gradient: Gradient,
    rates: Sequence[float],
    *,
    outputs_last: bool = False,
) -> list[list[Float64]]:
    """Follow a specification, one step per learning rate.

    Args:
        spec: everything but the learning rate is taken from it.
        parameters: where the steps start.
        gradient: parameters -> their gradients.
        rates: (steps,) learning rates.
        outputs_last: matrices are (inputs, outputs), as in Keras.

    Returns:
        The parameters after each step.
    """
    now = [np.array(p, np.float64) for p in parameters]
    state = [initial_state(spec, p.shape) for p in now]
    average: list[Float64] | None = None
    summed = [np.zeros_like(p) for p in now]
    path = []
    t = 0
    for call, rate in enumerate(rates, 1):
        summed = [s + np.asarray(g, np.float64) for s, g in zip(summed, gradient(now), strict=True)]
        if call % spec.accumulate == 0:
            t += 1
            gradients = rules.clip(ops, spec, [s / spec.accumulate for s in summed])
            summed = [np.zeros_like(p) for p in now]
            for i, g in enumerate(gradients):
                scalars = {name: state[i][name] for name in rules.scalar_slots(spec)}
                numbers, scalars = rules.python_numbers(spec, t, rate, scalars)
                now[i], arrays = rules.step(ops, spec, now[i], g, state[i], {**numbers, "outputs_last": outputs_last})
                state[i] = {**arrays, **{name: np.asarray(a) for name, a in scalars.items()}}
            if spec.ema_momentum is not None:
                m = spec.ema_momentum
                old = now if average is None else average
                average = [m * a + (1 - m) * p for a, p in zip(old, now, strict=True)]
                if spec.ema_overwrite is not None and t % spec.ema_overwrite == 0:
                    now = list(average)
        path.append([p.copy() for p in now])
    return path


def replay(
    spec: Spec,
    parameters: Sequence[npt.ArrayLike],
    gradients: Sequence[Sequence[npt.ArrayLike]],
    rates: Sequence[float] | None = None,
    *,
    outputs_last: bool = False,
) -> list[list[Float64]]:
    """Where a specification leads with gradients that were recorded: what tells one convention from another.

    Args:
        spec: as in :func:`run`.
        parameters: where the steps start.
        gradients: for each step, the gradient of each parameter, of the parameter's shape.
        rates: (steps,) learning rates. None: the specification's own, which must be a number, at every step.
        outputs_last: matrices are (inputs, outputs), as in Keras.

    Returns:
        The parameters after each step.

    Raises:
        InvalidInput: the gradients of a step are not one for each parameter, of its shape; or there are not as many
            rates as steps.

    Example:
        >>> path = replay(SGD(1.0, momentum=0.5), [[0.0]], [[[1.0]], [[1.0]]], [1.0, 0.1])
        >>> [float(p[0][0]) for p in path]
        [-1.0, -1.15]
    """
    if rates is None:
        if not isinstance(spec.learning_rate, int | float):
            raise InvalidInput(f"the learning rate is {type_named(spec.learning_rate)}: give the rate of each step")
        rates = [float(spec.learning_rate)] * len(gradients)
    if len(rates) != len(gradients):
        raise InvalidInput(
            f"{counted(len(rates), 'learning rate')} for {counted(len(gradients), 'step')} of gradients: give "
            "one for each"
        )
    shapes = [np.shape(p) for p in parameters]
    for number, given in enumerate(gradients, 1):
        if [np.shape(g) for g in given] != shapes:
            found = ", ".join(str(np.shape(g)) for g in given)
            raise InvalidInput(
                f"the gradients of step {number} have the shapes {found}, and the parameters "
                f"{', '.join(map(str, shapes))}: give one gradient for each parameter, in the same order"
            )
    recorded = iter(gradients)
    return run(
        spec,
        parameters,
        lambda _: [np.asarray(g, np.float64) for g in next(recorded)],
        rates,
        outputs_last=outputs_last,
    )


def initial_state(spec: Spec, shape: tuple[int, ...]) -> dict[str, npt.NDArray[Any]]:
    """The state of one parameter before the first step."""
    slots = rules.rule_of(spec).slots(spec, shape)
    return {name: np.full(slot.shape, slot.value, slot.dtype or np.float64) for name, slot in slots.items()}


def standard_problem() -> tuple[list[Float64], Gradient, list[float]]:
    """The problem on which differences are measured: (parameters, gradient, learning rates of 5 steps).

    A 3 x 4 matrix and a vector of 4, in a loss that is smooth, is not separable, and has small gradients somewhere, at
    a learning rate that changes.
    """
    rng = np.random.default_rng(6)
    x, y = rng.normal(size=(8, 3)), rng.normal(size=(8, 4))
    start = [rng.normal(size=(3, 4)), rng.normal(size=4)]

    def gradient(parameters: list[Float64]) -> list[Float64]:
        weight, bias = parameters
        # The loss is the mean of (tanh(x W + b) - y)^2 / 2.
        out = np.tanh(x @ weight + bias)
        back = (out - y) * (1 - out**2) / len(x)
        return [x.T @ back, back.sum(0)]

    return start, gradient, [0.1, 0.1, 0.03, 0.05, 0.01]


def difference(first: Spec, second: Spec) -> float:
    """The greatest difference of any parameter after 5 steps of the standard problem."""
    start, gradient, rates = standard_problem()
    ends = []
    for spec in (first, second):
        # Muon moves matrices alone.
        parameters = start[:1] if type(spec).__name__ == "Muon" else start
        ends.append(run(spec, parameters, _with_zero_bias(gradient, start, len(parameters)), rates)[-1])
    return max(float(np.abs(a - b).max()) for a, b in zip(*ends, strict=True))


def _with_zero_bias(gradient: Gradient, start: list[Float64], count: int) -> Gradient:
    return lambda parameters: gradient([*parameters, *start[count:]])[:count]


def terms(first: Spec, second: Spec) -> Mapping[str, float]:
    """What each field in which two specifications of a kind differ is worth by itself, as in :func:`difference`."""
    found = {}
    for name, value in vars(second).items():
        if name != "learning_rate" and getattr(first, name) != value:
            found[name] = difference(first, replace(first, {name: value}))
    return found
