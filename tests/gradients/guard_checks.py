"""``watch(nonfinite="raise")`` on the engine of this process; test_gradients.py runs this file."""

from __future__ import annotations

import collections
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import agnostic as ag
from agnostic.errors import InvalidInput, NonFinite
from agnostic.registry import get_backend

TORCH = os.environ["AGNOSTIC_BACKEND"] == "torch"
if TORCH:
    ENGINE = "torch"
else:
    import keras

    ENGINE = keras.config.backend()
if ENGINE == "torch":
    import torch
ops = get_backend(os.environ["AGNOSTIC_BACKEND"]).ops

X, Y = np.ones((5, 3), np.float32), np.zeros((5, 2), np.float32)
Loss = Callable[[Any], Any]


def net(**options: Any) -> Any:
    if TORCH:
        torch.manual_seed(0)
        layers = {"fc1": torch.nn.Linear(3, 4), "act": torch.nn.ReLU(), "fc2": torch.nn.Linear(4, 2)}
        return torch.nn.Sequential(collections.OrderedDict(layers))
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(4, activation="relu", name="fc1"),
            keras.layers.Dense(2, name="fc2", **options),
        ]
    )


def spoil(model: Any, layer: str = "fc2") -> None:
    if TORCH:
        with torch.no_grad():
            model.get_submodule(layer).weight[0, 0] = float("nan")
        return
    weights = model.get_layer(layer).get_weights()
    weights[0][0, 0] = np.nan
    model.get_layer(layer).set_weights(weights)


def differentiate(model: Any, loss: Loss) -> None:
    """The gradient of a loss of the model's output with respect to its weights, by a loop written by hand."""
    if ENGINE == "torch":
        loss(model(ops.asarray(X))).backward()
    elif ENGINE == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            value = loss(model(X))
        tape.gradient(value, [v.value for v in model.trainable_variables])
    else:
        import jax

        still = [v.value for v in model.non_trainable_variables]
        now = [v.value for v in model.trainable_variables]
        jax.value_and_grad(lambda now: loss(model.stateless_call(now, still, X)[0]))(now)


def mean_log(x: Any) -> Any:
    return ops.mean(ops.log(x))


@pytest.mark.parametrize("layers", ["fc2", "fc1", "*", ()])
def test_the_first_layer_is_named_whichever_is_recorded(layers: Any) -> None:
    model = net()
    spoil(model)
    with (
        pytest.raises(NonFinite, match=r"layer 'fc2' is not finite: 5 NaN and 0 infinite of 10") as raised,
        ag.watch(model, layers, nonfinite="raise"),
    ):
        model(ops.asarray(X))
    assert ("weight" if TORCH else "kernel") in str(raised.value)
    with (
        pytest.raises(NonFinite, match=r"layer 'fc1' .* its input is not finite already"),
        ag.watch(model, layers, nonfinite="raise"),
    ):
        model(ops.asarray(X * np.inf))


def test_finite_training_goes_on_and_nothing_stays_behind() -> None:
    model = net()
    with ag.watch(model, "fc1", nonfinite="raise", detach=True) as record:
        # Infinities that are masked away, and a NaN that is, are no mistake.
        differentiate(model, lambda y: ops.mean(ops.where(y > 1e6, ops.log(y - 1e9), y * y)))
    assert record.numpy()["fc1"].shape == (5, 4)
    spoil(model)
    assert np.isnan(ops.numpy(model(ops.asarray(X)))).any()
    # Without the guard NaN flows, also through a graph that was made inside.
    if ENGINE == "torch":
        model = net()
        with ag.watch(model, nonfinite="raise"):
            y = model(ops.asarray(X))
        (y * float("nan")).sum().backward()


def test_a_loss_that_is_no_number_is_named_though_its_gradient_is_finite() -> None:
    model = net()
    if ENGINE == "jax":

        def loss(y: Any) -> Any:
            entropy = mean_log(-1 - y * y)
            record.check({"square": ops.mean(y * y), "entropy": entropy})
            return entropy

        with (
            pytest.raises(NonFinite, match=r"loss term 'entropy' .* 1 NaN"),
            ag.watch(model, nonfinite="raise") as record,
        ):
            differentiate(model, loss)
        return
    # The line of the program that made it is its name.
    with pytest.raises(NonFinite, match=r"loss term '.*guard_checks\.py:\d+"), ag.watch(model, nonfinite="raise"):
        differentiate(model, lambda y: ops.mean(y * y) + mean_log(-1 - y * y))


def test_what_healed_is_not_blamed_for_what_reaches_the_loss() -> None:
    model = net()

    def loss(y: Any) -> Any:
        infinite = ops.where(y < 1e6, y * 0 - np.inf, y)
        healed = ops.mean(ops.where(y < 1e6, y, infinite)) + ops.mean(ops.exp(infinite))
        bad = ops.log(-1 - y * y)
        return healed + mean_of(bad)

    def mean_of(x: Any) -> Any:
        total = ops.mean(x)
        if ENGINE == "jax":
            # jax differentiates functions, not values: the loss is looked at where Keras computes it.
            term = keras.losses.MeanAbsoluteError(name="term")
            return term(x, 0 * x)
        return total

    with pytest.raises(NonFinite, match=r"(?s)loss term .*reaches it is [lL]og") as raised:  # noqa: SIM117
        with ag.watch(model, nonfinite="raise"):
            differentiate(model, loss)
    assert "guard_checks.py" in str(raised.value)


class Masked:
    """A layer whose infinities the next one, or what follows the model, makes finite again."""

    @staticmethod
    def mask(x: Any) -> Any:
        return ops.where(x < 1e6, x * 0 - np.inf, x)

    @staticmethod
    def heal(x: Any) -> Any:
        return ops.exp(x)

    @staticmethod
    def divide(x: Any) -> Any:
        return (x + 1) / (x * 0)


def chain(*functions: Callable[[Any], Any]) -> Any:
    if TORCH:

        class Function(torch.nn.Module):
            def __init__(self, function: Callable[[Any], Any]) -> None:
                super().__init__()
                self.function = function

            def forward(self, x: Any) -> Any:
                return self.function(x)

        layers = [(f.__name__, Function(f)) for f in functions]
        return torch.nn.Sequential(collections.OrderedDict([("fc", torch.nn.Linear(3, 2)), *layers]))

    class Layer(keras.layers.Layer):
        def __init__(self, function: Callable[[Any], Any]) -> None:
            super().__init__(name=function.__name__)
            self.function = function

        def call(self, x: Any) -> Any:
            return self.function(x)

        def compute_output_shape(self, shape: Any) -> Any:
            return shape

    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="fc"), *map(Layer, functions)])


def test_a_layer_whose_infinity_heals_is_no_mistake_and_the_one_that_reaches_the_output_is_named() -> None:
    with ag.watch(model := chain(Masked.mask, Masked.heal), nonfinite="raise"):
        model(ops.asarray(X))
    with (
        pytest.raises(NonFinite, match=r"layer 'divide' is not finite: .* it happens in the layer itself"),
        ag.watch(model := chain(Masked.mask, Masked.heal, Masked.divide), nonfinite="raise"),
    ):
        model(ops.asarray(X))


def test_a_gradient_is_named_by_the_layer_that_it_reaches_first() -> None:
    model = net()
    # The root of 0 is 0, and its derivative infinite: times 0, NaN.
    with pytest.raises(NonFinite, match="gradient 'fc2' is not finite: 10 NaN"), ag.watch(model, nonfinite="raise"):
        differentiate(model, lambda y: ops.mean(ops.sqrt(0 * y)))


def test_terms_are_checked_in_their_order() -> None:
    model = net()
    with ag.watch(model, nonfinite="raise") as record:
        record.check({"one": ops.asarray(np.ones(2)), "two": 3.0, "count": ops.asarray(np.array([1]))})
        with pytest.raises(NonFinite, match=r"penalty 'two' is not finite: 0 NaN and 1 infinite of 1"):
            record.check({"one": 1.0, "two": float("inf"), "three": float("nan")}, kind="penalty")


def test_wrong_use() -> None:
    with pytest.raises(InvalidInput, match="nonfinite is 'raise' or None, not 'warn'"):
        ag.watch(net(), "fc1", nonfinite="warn").__enter__()
    with pytest.raises(ag.AgnosticError):
        ag.watch(net(), ()).__enter__()


# Compiled code --------------------------------------------------------------------------------------------------------
def test_a_function_that_was_compiled_before_is_looked_into() -> None:
    model = net()
    if ENGINE == "torch":
        function = torch.compile(model, backend="eager") if TORCH else model
    elif ENGINE == "jax":
        import jax

        function = jax.jit(lambda x: model(x))
    else:
        import tensorflow as tf

        function = tf.function(lambda x: model(x))
    x = ops.asarray(X)
    function(x)
    spoil(model, "fc1")
    if ENGINE == "jax":
        # A jitted function holds the weights of its first call.
        function = jax.jit(lambda x: model(x))
    with pytest.raises(NonFinite, match="layer 'fc1'"), ag.watch(model, nonfinite="raise"):
        function(x)


needs_keras = pytest.mark.skipif(TORCH, reason="fit() is Keras'")


@needs_keras
def test_fit_is_looked_into_and_compiled_again_afterwards() -> None:
    model = net()
    model.compile("adam", "mse")
    model.fit(X, Y, verbose=0)
    with ag.watch(model, "fc1", nonfinite="raise", detach=True) as record:
        model.fit(X, Y, batch_size=2, verbose=0)
    assert len(record.calls("fc1")) == 3
    model.fit(X, Y, verbose=0)
    spoil(model)
    with pytest.raises(NonFinite, match=r"layer 'fc2' .* its kernel is not finite"), ag.watch(model, nonfinite="raise"):
        model.fit(X, Y, verbose=0)


def entropy(y_true: Any, y_pred: Any) -> Any:
    return mean_log(-1 - y_pred * y_pred)


@needs_keras
@pytest.mark.parametrize(
    ("options", "loss", "message"),
    [
        ({}, entropy, "loss term 'entropy'"),
        ({"kernel_regularizer": lambda w: ops.log(-1 - ops.sum(w * w))}, "mse", "loss term 'added by fc2'"),
        ({}, lambda _, y: ops.mean(ops.sqrt(0 * y)), "gradient 'fc2'"),
        ({"kernel_regularizer": lambda w: ops.sum(ops.sqrt(0 * w))}, "mse", "gradient '.*fc2/kernel'"),
    ],
    ids=["loss", "regularizer", "gradient of an output", "gradient of a weight"],
)
def test_what_fit_computes_is_named(options: Any, loss: Any, message: str) -> None:
    model = net(**options)
    model.compile("sgd", loss)
    with pytest.raises(NonFinite, match=message), ag.watch(model, nonfinite="raise"):
        model.fit(X, Y, verbose=0)


@pytest.mark.parametrize("scale", [2.0**10, 2.0**127])
def test_infinite_gradients_of_a_scaled_loss_are_let_pass(scale: float) -> None:
    if TORCH:
        model = net()
        scaler, optimizer = torch.amp.GradScaler("cpu", init_scale=scale), torch.optim.SGD(model.parameters(), 0.1)
        with ag.watch(model, nonfinite="raise"):
            for _ in range(2):
                optimizer.zero_grad()
                scaler.scale(model(ops.asarray(X)).square().mean()).backward()
                scaler.step(optimizer)
                scaler.update()
        return
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = net()
        sgd = keras.optimizers.SGD(0.1)
        model.compile(keras.optimizers.LossScaleOptimizer(sgd, initial_scale=scale), "mse")
        with ag.watch(model, nonfinite="raise"):
            model.fit(X, Y, verbose=0, epochs=2)
    finally:
        keras.config.set_dtype_policy("float32")


@pytest.mark.skipif(not TORCH, reason="Keras' optimizers are given gradients")
def test_in_torch_a_gradient_is_named_by_the_weight_where_the_weight_alone_has_it() -> None:
    model = net()
    with pytest.raises(NonFinite, match=r"gradient 'fc1\.weight' is not finite"), ag.watch(model, nonfinite="raise"):
        (model.fc1.weight * 0).sqrt().sum().backward()
    # The hooks are gone.
    (model.fc1.weight * 0).sqrt().sum().backward()
