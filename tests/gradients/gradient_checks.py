"""Gradients on the engine of this process; test_gradients.py runs this file once a backend and engine."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

from agnostic.errors import InvalidInput, NonFinite
from agnostic.gradients import gradients, jacobian, per_sample
from agnostic.guards import check_finite
from agnostic.ops import safe_divide, safe_log, safe_norm, safe_sqrt

if os.environ["AGNOSTIC_BACKEND"] == "torch":
    from agnostic_torch.ops import TorchOps as Ops

    ENGINE = "torch"
else:
    import keras

    from agnostic_keras.ops import KerasOps as Ops

    ENGINE = keras.config.backend()

if ENGINE == "torch":
    import torch

ops = Ops()
# Sums of at most 12 products of float32 numbers below 30: 12 * 30 * 6e-8.
NEAR = 2.2e-5


def array(*values: Any) -> Any:
    return ops.asarray(np.array(values, np.float32))


def equal(a: Any, b: Any) -> bool:
    a, b = ops.numpy(a), np.asarray(b, np.float64)
    return a.shape == b.shape and bool(np.abs(a - b).max(initial=0) < NEAR)


def compiled(function: Any) -> Any:
    if ENGINE == "torch":
        # Traced by dynamo and differentiated ahead of time as with inductor, without a C++ compiler's minutes.
        return torch.compile(function, backend="aot_eager")
    if ENGINE == "jax":
        import jax

        return jax.jit(function)
    import tensorflow as tf

    return tf.function(function, autograph=False)


def test_the_sum_over_several_outputs() -> None:
    x = array(3.0, 5.0)
    # d/dx (2 x^2 + 2 x) = 4 x + 2
    assert equal(gradients(lambda x: [2 * x**2, ops.sum(2 * x)], x), [14, 22])
    assert equal(compiled(lambda x: gradients(lambda x: [2 * x**2, ops.sum(2 * x)], x))(x), [14, 22])


def test_several_inputs_come_back_in_their_order() -> None:
    x, y = array(1.0, 2.0), array(3.0)
    first, second = gradients(lambda x, y: x**2 * y, [x, y])
    assert equal(first, [6, 12])
    assert equal(second, [5])
    same = gradients(lambda a, b: a**2 * b, [x, x])
    assert equal(same[0], [2, 8])
    assert equal(same[1], [1, 4])


def test_the_mean_gives_each_output_the_same_weight() -> None:
    x = array(1.0, 2.0, 3.0)
    # (mean(x^2) + 5 x_0) / 2: x / 3, and 5/2 more for the first.
    assert equal(gradients(lambda x: (x**2, 5 * x[0]), x, reduce="mean"), [1 / 3 + 2.5, 2 / 3, 1])


def test_weights_are_numbers_or_arrays() -> None:
    x = array(1.0, 2.0)
    got = gradients(lambda x: [x**2, x**3], x, reduce=[0.5, np.array([1.0, -1.0])])
    assert equal(got, [1 + 3, 2 - 12])
    with pytest.raises(InvalidInput, match="1 weight for 2 outputs"):
        gradients(lambda x: [x, x], x, reduce=[1.0])
    with pytest.raises(InvalidInput, match=r"shape \(3,\) for an output of shape \(2,\)"):
        gradients(lambda x: x, x, reduce=[np.ones(3)])


def test_wrong_arguments_are_one_sentence() -> None:
    x = array(1.0, 2.0)
    for reduce in ("max", None, 3):
        with pytest.raises(InvalidInput, match="reduce is 'sum', 'mean' or a list of weights"):
            gradients(lambda x: x, x, reduce=reduce)
    for weight in (None, "a"):
        with pytest.raises(InvalidInput, match="a weight is a number or an array"):
            gradients(lambda x: x, x, reduce=[weight])
    for verb in (lambda: gradients(3, x), lambda: per_sample(None, x, x), lambda: jacobian("f", x)):
        with pytest.raises(InvalidInput, match="function must be callable"):
            verb()
    for batch, message in ((None, "array 0 of the batch is None"), (np.zeros((0, 2)), "the batch is empty")):
        with pytest.raises(InvalidInput, match=message):
            per_sample(lambda x, row: x * row, x, batch)


def test_outputs_that_are_integers_or_numpy_are_constants() -> None:
    x = array(1.0, 2.0)
    for constant in (lambda x: ops.cast(x, "int32"), lambda x: ops.cast(x, "bool"), lambda x: np.ones(2, np.float32)):
        assert equal(gradients(lambda x, f=constant: [x**2, f(x)], x), [2, 4])
        with pytest.raises(InvalidInput, match="no output depends on input 0"):
            gradients(constant, x)
        assert equal(jacobian(lambda x, f=constant: [x, f(x)], x)[1], np.zeros((2, 2)))
    rows = per_sample(lambda x, row: [x * row, ops.cast(x, "int32")], x, array([1.0, 2], [3, 4]))
    assert equal(rows, [[1, 2], [3, 4]])


@pytest.mark.parametrize(
    "function",
    [
        lambda x, y: x**2,
        lambda x, y: x**2 + ops.stop_gradient(y),
        lambda x, y: [x**2, ops.cast(ops.cast(y, "int32"), "float32")],
    ],
    ids=["unused", "stopped", "through integers"],
)
def test_unconnected_inputs_raise_or_give_what_was_asked_for(function: Any) -> None:
    x, y = array(1.0, 2.0), array(3.0, np.inf)
    with pytest.raises(InvalidInput, match="no output depends on input 1"):
        gradients(function, [x, y])
    first, second = gradients(function, [x, y], unconnected="zero")
    assert equal(first, [2, 4])
    assert equal(second, [0, 0])
    assert gradients(function, [x, y], unconnected="none")[1] is None
    assert compiled(lambda x, y: gradients(function, [x, y], unconnected="none")[0])(x, y).shape == (2,)


def test_nothing_connected_and_connected_by_zero() -> None:
    x = array(1.0)
    assert gradients(lambda x: array(2.0), x, unconnected="none") is None
    assert equal(gradients(lambda x: 0 * x, x), [0])  # 0, but connected


def test_a_function_that_is_compiled_itself() -> None:
    function = compiled(lambda x, y: x**2)
    first, second = gradients(function, [array(1.0, 2.0), array(3.0)], unconnected="none")
    assert equal(first, [2, 4])
    # TensorFlow and jax see through their own compiled functions; so does PyTorch.
    assert second is None


def square_with_a_derivative_of_ten() -> Any:
    """A function that says its own derivative, in each framework's way."""
    if ENGINE == "jax":
        import jax

        function = jax.custom_vjp(lambda x: x**2)
        function.defvjp(lambda x: (x**2, None), lambda _, g: (g * 10.0,))
        return function
    if ENGINE == "tensorflow":
        import tensorflow as tf

        return tf.custom_gradient(lambda x: (x**2, lambda g: g * 10.0))

    class Square(torch.autograd.Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(x: Any) -> Any:
            return x**2

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None: ...

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return g * 10.0

    return Square.apply


def test_a_derivative_of_the_users_own_is_followed_in_every_form() -> None:
    own, x, y = square_with_a_derivative_of_ten(), array(3.0, 5.0), array(1.0)
    assert equal(gradients(own, x), [10, 10])
    assert equal(compiled(lambda x: gradients(own, x))(x), [10, 10])
    assert gradients(lambda x, y: own(x), [x, y], unconnected="none")[1] is None
    assert equal(per_sample(lambda x, w: own(x) * w, x, array([1.0, 1.0], [2.0, 3.0])), [[10, 10], [20, 30]])
    assert equal(jacobian(own, x), [[10, 0], [0, 10]])


def test_per_sample_gradients_and_jacobians_in_compiled_code() -> None:
    w, rows = array(1.0, 2.0), array([1.0, 1.0], [2.0, 3.0])
    each = compiled(lambda w, rows: per_sample(lambda w, row: ops.sum(w * row) ** 2, w, rows))
    assert equal(each(w, rows), [[6, 6], [32, 48]])
    assert equal(compiled(lambda w: jacobian(lambda w: w**2, w))(w), [[2, 0], [0, 4]])


def any_size(function: Any) -> Any:
    """Compiled for a vector of any size, as fit() does on TensorFlow; the others compile for the sizes that come."""
    if ENGINE != "tensorflow":
        return compiled(function)
    import tensorflow as tf

    return tf.function(function, input_signature=[tf.TensorSpec([None], tf.float32)])


def test_sizes_that_are_not_known_while_tracing() -> None:
    x = array(1.0, 2.0, 3.0)
    assert equal(any_size(lambda x: gradients(lambda x: [x**2, ops.sum(2 * x)], x))(x), [4, 6, 8])
    assert equal(
        any_size(lambda x: gradients(lambda x: (x**2, 5 * x[0]), x, reduce="mean"))(x), [1 / 3 + 2.5, 2 / 3, 1]
    )
    assert equal(any_size(lambda x: gradients(lambda x, y: x, [x, x], unconnected="zero")[1])(x), [0, 0, 0])
    assert equal(any_size(lambda x: per_sample(lambda w, row: ops.sum(w) * row, array(1.0), x))(x), [[1], [2], [3]])
    guarded = any_size(
        lambda x: safe_log(ops, x - 2) + safe_sqrt(ops, x - 2) + safe_divide(ops, x, x - 2) + safe_norm(ops, 0 * x)
    )
    assert equal(guarded(x), [np.log(1e-12) - 1, np.log(1e-12), 4])


def test_only_real_floating_point_is_differentiated() -> None:
    with pytest.raises(InvalidInput, match="input 0 is int32"):
        gradients(lambda x: x, ops.asarray(np.array([1], np.int32)))
    with pytest.raises(InvalidInput, match="reduce is"):
        gradients(lambda x: x, array(1.0), reduce="max")
    with pytest.raises(InvalidInput, match="no input"):
        gradients(lambda: array(1.0), [])


def test_an_embedding_adds_up_its_rows() -> None:
    table = array([1.0, 2.0], [3.0, 4.0], [5.0, 6.0])
    rows = ops.asarray(np.array([0, 2, 2], np.int32))
    assert equal(gradients(lambda t: ops.take(t, rows, 0) * 2, table), [[2, 2], [0, 0], [4, 4]])


def test_per_sample_gradients_add_up_to_the_gradient_of_the_batch() -> None:
    rng = np.random.default_rng(0)
    w, x, y = (rng.normal(size=s).astype(np.float32) for s in [(3,), (5, 3), (5,)])
    weights, inputs, targets = map(ops.asarray, (w, x, y))

    def loss(w: Any, x: Any, y: Any) -> Any:
        return (ops.sum(x * w, axis=-1) - y) ** 2

    each = per_sample(loss, weights, [inputs, targets])
    assert equal(each, 2 * (x @ w - y)[:, None] * x)
    assert equal(gradients(lambda w: loss(w, inputs, targets), weights), ops.numpy(each).astype(np.float64).sum(0))
    both = per_sample(lambda w, u, x: ops.sum(w * x), [weights, weights], inputs, unconnected="none")
    assert equal(both[0], x)
    assert both[1] is None
    with pytest.raises(InvalidInput, match="no output depends on input 0"):
        per_sample(lambda w, x: x, weights, inputs)
    with pytest.raises(InvalidInput, match="equal lengths of the first axis"):
        per_sample(loss, weights, [inputs, targets[:2]])


def test_jacobians() -> None:
    a = np.arange(6, dtype=np.float32).reshape(2, 3)
    x, y = array(1.0, 2.0, 3.0), array(2.0)
    assert equal(jacobian(lambda x: ops.sum(ops.asarray(a) * x, axis=-1), x), a)
    (xx, xy), (yx, yy) = jacobian(lambda x, y: [x**2, y * 3], [x, y])
    assert equal(xx, np.diag([2, 4, 6]))
    assert equal(xy, np.zeros((3, 1)))
    assert equal(yx, np.zeros((1, 3)))
    assert equal(yy, [[3]])


def test_the_callers_arrays_are_left_alone() -> None:
    if ENGINE != "torch":
        pytest.skip("only PyTorch's arrays carry gradients")
    x = array(1.0, 2.0).requires_grad_()
    y = x * 2
    assert equal(gradients(lambda y: y**2, y), [4, 8])
    assert x.grad is None
    with torch.no_grad():
        assert equal(gradients(lambda x: x**2, x), [2, 4])


def test_numpy_inputs_go_to_the_backend_that_is_named() -> None:
    got = gradients(lambda x: x**2, np.array([3.0], np.float32), backend=os.environ["AGNOSTIC_BACKEND"])
    assert equal(got, [6])


# Expand and repeat; see agnostic.ops.Ops ------------------------------------------------------------------------------
def test_expand_is_a_view_that_cannot_be_written_to_and_repeat_a_copy() -> None:
    x = array([1.0, 2.0])
    wide, copy = ops.expand(x, (3, 2)), ops.repeat(x, 3, 0)
    assert np.array_equal(ops.numpy(wide), ops.numpy(copy))
    if ENGINE == "torch":
        # Several elements of the view are one place in memory, and the message says so.
        with pytest.raises(RuntimeError, match="single memory location"):
            wide.add_(1)
        copy.add_(1)
        assert ops.numpy(copy).tolist() == [[2, 3]] * 3
    else:
        # Arrays of jax and TensorFlow cannot be written to at all.
        for y in (wide, copy):
            with pytest.raises(TypeError, match=r"immutable|does not support item assignment"):
                y[0, 0] = 5.0
    w = array([1.0, 2.0], [3.0, 4.0], [5.0, 6.0])
    for widened in (lambda x: ops.expand(x, (3, 2)), lambda x: ops.repeat(x, 3, 0)):
        assert equal(gradients(lambda x: widened(x) * w, x), [[9, 12]])  # noqa: B023


# Guards ---------------------------------------------------------------------------------------------------------------
def test_the_logarithm_of_a_negative_number_trains_on_and_the_safe_one_does_not() -> None:
    x = array(-1.0, 0.0, 1.0, 4.0, np.inf)
    assert np.isnan(ops.numpy(ops.log(x))[0])
    assert ops.numpy(gradients(ops.log, x))[0] == -1  # finite: this is the trap
    y, g = ops.numpy(safe_log(ops, x)), ops.numpy(gradients(lambda x: safe_log(ops, x), x))
    assert np.allclose(y, [np.log(1e-12), np.log(1e-12), 0, np.log(4), np.inf])
    assert g.tolist() == [0, 0, 1, 0.25, 0]
    assert np.isnan(ops.numpy(safe_log(ops, array(np.nan)))).all()


def test_the_safe_functions_know_whose_array_they_are_given() -> None:
    x, y = array(0.0, 4.0), array(2.0, 0.0)
    for function, given in [(safe_log, [x]), (safe_sqrt, [x]), (safe_divide, [x, y]), (safe_norm, [x])]:
        assert np.array_equal(ops.numpy(function(*given)), ops.numpy(function(ops, *given)))
        kept = [np.asarray(ops.numpy(z)) for z in given]
        assert np.allclose(function(*kept), ops.numpy(function(*given)), rtol=1e-6)
    assert np.allclose(ops.numpy(safe_log(x, least=0.5)), [np.log(0.5), np.log(4)])
    assert np.allclose(ops.numpy(safe_log(x=x, least=0.5)), [np.log(0.5), np.log(4)])
    assert ops.numpy(gradients(safe_log, x)).tolist() == [0, 0.25]
    with pytest.raises(InvalidInput, match="an array was expected, not str"):
        safe_log("x")


def test_the_safe_logarithm_is_finite_in_every_type() -> None:
    for dtype in ("float16", "bfloat16", "float32"):
        x = ops.cast(array(0.0, 2.0**-14), dtype)
        for least in (1e-12, 1e-30):
            y = ops.numpy(ops.cast(safe_log(x, least), "float32"))
            assert np.isfinite(y).all(), dtype
            assert np.isclose(y[1], -14 * np.log(2), rtol=2.0**-8)
        g = ops.numpy(ops.cast(gradients(lambda x: safe_log(x), x), "float32"))
        assert g.tolist() == [0, 2.0**14], dtype


def test_roots_quotients_and_norms_have_gradients_where_they_have_none() -> None:
    x = array(-1.0, 0.0, 4.0)
    assert ops.numpy(safe_sqrt(ops, x)).tolist() == [0, 0, 2]
    assert ops.numpy(gradients(lambda x: safe_sqrt(ops, x), x)).tolist() == [0, 0, 0.25]
    a, b = array(1.0, 2.0), array(0.0, 4.0)
    assert ops.numpy(safe_divide(ops, a, b)).tolist() == [0, 0.5]
    da, db = gradients(lambda a, b: safe_divide(ops, a, b), [a, b])
    assert ops.numpy(da).tolist() == [0, 0.25]
    assert ops.numpy(db).tolist() == [0, -0.125]
    assert ops.numpy(gradients(lambda x: safe_norm(ops, x), array(0.0, 0.0))).tolist() == [0, 0]
    assert equal(gradients(lambda x: safe_norm(ops, x), array(3.0, 4.0)), [0.6, 0.8])


def test_the_first_that_is_not_finite_is_named() -> None:
    good, bad = array(1.0, 2.0), array(1.0, np.nan, np.inf)
    check_finite(ops, {"conv1": good, "steps": ops.asarray(np.array([1]))}, kind="layer")
    big = array(3e38, 3e38)
    check_finite(ops, {"large": big}, kind="layer")  # the sum overflows, the elements do not
    with pytest.raises(NonFinite, match=r"loss term 'entropy' is not finite at step 3: 1 NaN and 1 infinite of 3"):
        check_finite(ops, [("mse", good), ("entropy", bad), ("later", bad)], kind="loss term", when="at step 3")


def test_outputs_in_dicts_and_nested() -> None:
    x = array(1.0, 2.0)
    assert equal(gradients(lambda x: {"a": x**2, "b": (x, [3 * x])}, x), [6, 8])
    found = jacobian(lambda x: {"double": 2 * x, "sum": ops.sum(x)}, x)
    assert list(found) == ["double", "sum"]
    assert equal(found["double"], [[2, 0], [0, 2]])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "input 0 is None"),
        ("a", "input 0 is a str"),
        ({"a": 1.0}, "input 0 is {'a': 1.0}"),
        (np.array(["a"]), "array of numbers of up to 64 bits, not of <U1"),
        (np.array([1.0, None]), "not of object"),
        ([[1.0, 2.0], [[3.0], [4.0, 5.0]]], "input 1 is a list of 2 .* of unequal lengths"),
        (np.arange(2), r"input 0 is int(64|32).* leave it out: gradients\(lambda x: function\(x, labels\), x\)"),
    ],
)
def test_a_wrong_input_is_one_sentence(given: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        gradients(lambda x, *_: 2 * x, given, backend=os.environ["AGNOSTIC_BACKEND"])


@pytest.mark.parametrize("returned", [None, 3.0, "a"])
def test_a_function_that_returns_no_array_is_one_sentence(returned: Any) -> None:
    with pytest.raises(InvalidInput, match="the function returns"):
        gradients(lambda x: returned, array(1.0))


def test_arrays_of_another_byte_order_are_arrays() -> None:
    x = np.array([1.0, 2.0], ">f4")
    assert equal(gradients(lambda x: x**2, x, backend=os.environ["AGNOSTIC_BACKEND"]), [2, 4])


@pytest.mark.skipif(ENGINE != "torch", reason="inference mode is PyTorch's")
def test_gradients_in_inference_mode() -> None:
    x = array(1.0, 2.0)
    with torch.inference_mode():
        inside, weights = array(1.0, 2.0) * 1, array(3.0, 4.0) * 1
        assert equal(gradients(lambda x: x**2, x), [2, 4])
        assert equal(gradients(lambda x: x**2, inside), [2, 4])
        assert equal(per_sample(lambda w, row: ops.sum(w * row), inside, ops.asarray(np.eye(2, dtype="f"))), np.eye(2))
        assert equal(jacobian(lambda x: 2 * x, inside), 2 * np.eye(2))
        with pytest.raises(InvalidInput, match=r"made inside torch\.inference_mode"):
            gradients(lambda x: x * weights, x)
