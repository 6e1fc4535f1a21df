"""The two update rules that images climb by, against the formulas, and torch's Adam."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from agnostic.optimizers.rules import adam_step, normalized_gradient_step
from agnostic.reference.ops import NumpyOps
from agnostic.visualization.updates import AdamAscent, NormalizedGradient

ops = NumpyOps()
U = 2.0**-53


def test_adam_is_that_of_torch() -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    start, gradients = rng.standard_normal((2, 5)), rng.standard_normal((30, 2, 5))
    ours = AdamAscent(learning_rate=0.05, beta_1=0.8, beta_2=0.95, epsilon=1e-3)
    theirs = torch.tensor(start, requires_grad=True)
    optimizer = torch.optim.Adam([theirs], lr=0.05, betas=(0.8, 0.95), eps=1e-3, maximize=True)
    parameters, state, schedule = start, ours.initial_state(start), ours.schedule(len(gradients))
    for step, gradient in enumerate(gradients):
        now = {name: values[step] for name, values in schedule.items()}
        parameters, state = ours.step(ops, parameters, gradient, state, now)
        theirs.grad = torch.tensor(gradient)
        optimizer.step()
    # 30 steps of about ten float64 operations on numbers of order one, none of which cancels to below 1e-3 (epsilon).
    np.testing.assert_allclose(parameters, theirs.detach().numpy(), rtol=0, atol=30 * 10 * U * 1e2)


def test_adams_first_step_is_the_learning_rate_whatever_the_gradient() -> None:
    gradient = np.array([1e-3, -5.0, 2e4])
    adam = AdamAscent(0.1, epsilon=0.0)
    now = {name: values[0] for name, values in adam.schedule(1).items()}
    moved, (mean, square) = adam.step(ops, np.zeros(3), gradient, adam.initial_state(np.zeros(3)), now)
    # Corrected, the moments of one gradient are the gradient and its square: the step is lr * g / |g|.
    np.testing.assert_allclose(moved, 0.1 * np.sign(gradient), rtol=10 * U)
    np.testing.assert_allclose(mean, 0.1 * gradient, rtol=4 * U)
    np.testing.assert_allclose(square, 0.001 * gradient**2, rtol=20 * U)  # 1 - 0.999 loses three digits


def test_adam_keeps_epsilon_outside_the_root_and_after_the_correction() -> None:
    step, _, _ = adam_step(
        ops, np.array([1.0]), np.array([0.0]), np.array([0.0]),
        learning_rate=1.0, beta_1=0.9, beta_2=0.99, epsilon=0.5, correction_1=0.1, correction_2=0.01,
    )  # fmt: skip
    assert step[0] == pytest.approx(1 / 1.5, rel=1e-13)


def test_the_rules_change_none_of_their_arguments() -> None:
    gradient, mean, square = np.full(3, 2.0), np.full(3, 0.5), np.full(3, 0.25)
    adam_step(
        ops, gradient, mean, square,
        learning_rate=1.0, beta_1=0.9, beta_2=0.99, epsilon=0.5, correction_1=0.1, correction_2=0.01,
    )  # fmt: skip
    normalized_gradient_step(ops, gradient[None], learning_rate=1.0, epsilon=1e-5)
    assert (gradient == 2).all()
    assert (mean == 0.5).all()
    assert (square == 0.25).all()


finite = st.floats(-1e3, 1e3).filter(lambda x: x == 0 or abs(x) > 1e-3)


@given(gradient=arrays(np.float64, (3, 4, 2), elements=finite))
def test_a_normalized_step_has_one_root_mean_square_an_image(gradient: np.ndarray) -> None:
    step = normalized_gradient_step(ops, gradient, learning_rate=2.0, epsilon=1e-5)
    size = np.sqrt((gradient**2).mean((1, 2)))
    np.testing.assert_allclose(np.sqrt((step**2).mean((1, 2))), 2 * size / (size + 1e-5), rtol=1e-12)
    # Each image by itself: the first alone makes the same step.
    np.testing.assert_array_equal(
        normalized_gradient_step(ops, gradient[:1], learning_rate=2.0, epsilon=1e-5), step[:1]
    )
    np.testing.assert_allclose(step * (size + 1e-5)[:, None, None], 2 * gradient, rtol=1e-12)


def test_a_flat_objective_moves_nothing() -> None:
    update = NormalizedGradient()
    now = {name: values[0] for name, values in update.schedule(1).items()}
    moved, state = update.step(ops, np.ones((1, 4)), np.zeros((1, 4)), update.initial_state(np.ones((1, 4))), now)
    assert state == ()
    np.testing.assert_array_equal(moved, np.ones((1, 4)))
