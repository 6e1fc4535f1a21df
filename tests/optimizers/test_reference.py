"""The NumPy reference: what it computes from recorded gradients, against numbers by hand."""

from __future__ import annotations

import doctest

import numpy as np
import pytest

from agnostic import optimizers as ago
from agnostic.errors import InvalidInput
from agnostic.reference import optimizers as reference

START, GRADIENT, RATES = reference.standard_problem()


def recorded(spec: ago.Spec) -> list[list[np.ndarray]]:
    """The gradients that a run of the standard problem meets on its way."""
    seen: list[list[np.ndarray]] = []

    def gradient(now: list[np.ndarray]) -> list[np.ndarray]:
        seen.append(list(GRADIENT(now)))
        return seen[-1]

    reference.run(spec, START, gradient, RATES)
    return seen


@pytest.mark.parametrize("spec", [ago.SGD(0.1, 0.9), ago.Adam(0.1, accumulate=2), ago.RMSprop(0.1, clip_norm=0.1)])
def test_recorded_gradients_lead_where_the_function_led(spec: ago.Spec) -> None:
    path = reference.replay(spec, START, recorded(spec), RATES)
    for got, expected in zip(path, reference.run(spec, START, GRADIENT, RATES), strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(got, expected, strict=True))


def test_recorded_gradients_tell_the_convention() -> None:
    truth = ago.SGD(0.1, 0.9, convention="keras")
    gradients = recorded(truth)
    end = reference.run(truth, START, GRADIENT, RATES)[-1]
    off = {}
    for convention in ("torch", "keras", "classical"):
        path = reference.replay(ago.SGD(0.1, 0.9, convention=convention), START, gradients, RATES)
        off[convention] = max(float(np.abs(a - b).max()) for a, b in zip(path[-1], end, strict=True))
    # Keras' form and the classical one differ in a sign that they take back: rounding.
    assert off["keras"] == 0
    assert off["classical"] < 1e-15
    assert off["torch"] > 1e-2


def test_by_hand() -> None:
    # v = 1, p = -1; v = 0.5 + 1, p = -1 - 0.1 * 1.5.
    path = reference.replay(ago.SGD(1.0, 0.5), [[0.0]], [[[1.0]], [[1.0]]], [1.0, 0.1])
    assert [float(p[0][0]) for p in path] == [-1.0, -1.15]
    # Without rates, the specification's own: -1, then -1 - 1.5.
    path = reference.replay(ago.SGD(1.0, 0.5), [[0.0]], [[[1.0]], [[1.0]]])
    assert [float(p[0][0]) for p in path] == [-1.0, -2.5]


def test_gradients_that_do_not_fit_are_errors() -> None:
    with pytest.raises(InvalidInput, match=r"step 2 have the shapes \(3,\), and the parameters \(2,\)"):
        reference.replay(ago.SGD(1.0), [np.zeros(2)], [[np.zeros(2)], [np.zeros(3)]])
    with pytest.raises(InvalidInput, match="1 learning rate for 2 steps"):
        reference.replay(ago.SGD(1.0), [np.zeros(2)], [[np.zeros(2)]] * 2, [0.1])
    with pytest.raises(InvalidInput, match="give the rate of each step"):
        reference.replay(ago.SGD(lambda: 0.1), [np.zeros(2)], [[np.zeros(2)]])


def test_the_example_of_replay_runs() -> None:
    # The others are public: tests/test_reference.py runs them.
    assert doctest.testmod(reference, extraglobs={"SGD": ago.SGD}, raise_on_error=True).attempted
