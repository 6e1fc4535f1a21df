"""Taps on Keras: in compiled code, in threads, and after whatever ends a run."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers as kl

import agnostic as ag

ENGINE = keras.config.backend()
X, Y = np.ones((4, 3), np.float32), np.zeros((4, 2), np.float32)


def net() -> keras.Model:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3,)), kl.Dense(4, activation="relu", name="fc1"), kl.Dense(2, name="fc2")])
    model.compile("sgd", "mse")
    return model


def test_a_batch_of_no_samples_has_outputs_of_no_samples() -> None:
    image = keras.Input((12, 12, 3))
    x = kl.DepthwiseConv2D(3, name="depthwise")(kl.Conv2D(4, 3, use_bias=False, name="conv")(image))
    model = keras.Model(image, kl.Dense(2, name="dense")(kl.GlobalAveragePooling2D()(x)))
    for none in (np.zeros((0, 12, 12, 3)), keras.ops.zeros((0, 12, 12, 3))):
        found = ag.capture(model, none, ["conv", "depthwise", "dense"]).numpy()
        assert {name: x.shape for name, x in found.items()} == {
            "conv": (0, 10, 10, 4), "depthwise": (0, 8, 8, 4), "dense": (0, 2),
        }  # fmt: skip
        assert all(x.dtype == np.float32 for x in found.values())


class Twice(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.dense = kl.Dense(3, name="dense")

    def call(self, x: Any) -> Any:
        return self.dense(self.dense(x))


class Raises(keras.callbacks.Callback):
    """Ends a run as Ctrl-C does, at one of the moments at which Keras calls a callback."""

    def __init__(self, moment: str) -> None:
        super().__init__()
        setattr(self, moment, self._raise)

    def _raise(self, *args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt


# Weights --------------------------------------------------------------------------------------------------------------
def guarded(run: Callable[..., Any], **options: Any) -> Callable[[keras.Model], None]:
    def call(model: keras.Model) -> None:
        with ag.watch(model, nonfinite="raise"):
            run(model, **options)

    return call


def infinite_loss(y_true: Any, y_pred: Any) -> Any:
    return keras.ops.mean(keras.ops.log(0 * y_pred))


def fit(model: keras.Model, **options: Any) -> None:
    model.fit(X, Y, verbose=0, **options)


def bad_fit(model: keras.Model) -> None:
    model.compile("sgd", infinite_loss)
    fit(model)


def bad_epoch(model: keras.Model) -> None:
    """The second batch cannot be used, after the first has made a step with a gradient of 0."""
    model.compile(keras.optimizers.SGD(0.0), "mse")
    fit(model, batch_size=2, callbacks=[keras.callbacks.LambdaCallback(on_train_batch_end=lambda *_, **__: 1 / 0)])


@pytest.mark.parametrize(
    "run",
    [
        guarded(bad_fit),
        guarded(bad_epoch),
        guarded(lambda m: m.predict(X * np.inf, verbose=0)),
        guarded(lambda m: m.evaluate(X * np.nan, Y, verbose=0)),
        guarded(lambda m: m.train_on_batch(X * np.nan, Y)),
        guarded(fit, callbacks=[Raises("on_train_batch_begin")]),
        guarded(lambda m: m.evaluate(X, Y, verbose=0, callbacks=[Raises("on_test_batch_end")])),
        guarded(lambda m: m.predict(X, verbose=0, callbacks=[Raises("on_predict_batch_end")])),
    ],
)
def test_what_ends_a_run_leaves_the_weights_of_before(run: Callable[[keras.Model], None]) -> None:
    model = net()
    before = model.get_weights()
    with pytest.raises((ArithmeticError, KeyboardInterrupt)):
        run(model)
    for now, then in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)
    model.compile("sgd", "mse")
    model.fit(X, Y, verbose=0)
    assert np.isfinite(model.predict(X, verbose=0)).all()


def test_a_model_around_the_watched_one_keeps_its_weights() -> None:
    model = net()
    outer = keras.Sequential([keras.Input((3,)), model, kl.Dense(1)])
    with pytest.raises(ag.NonFinite), ag.watch(model, nonfinite="raise"):
        outer.predict(X * np.nan, verbose=0)
    assert outer.predict(X, verbose=0).shape == (4, 1)


def test_a_submodel_that_cannot_be_run_leaves_the_model_its_weights() -> None:
    model = Twice()
    model(X)
    with pytest.raises(ag.InvalidInput, match=r"layer 'dense' ran 2 times"):
        ag.submodel(model, "dense").predict(X, verbose=0)
    assert [x.shape for x in model.get_weights()] == [(3, 3), (3,)]


# Compiled code --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("before", [False, True])
def test_predict_and_fit_are_recorded_compiled_before_or_not(before: bool) -> None:
    model = net()
    if before:
        model.predict(X, verbose=0)
        fit(model)
    with ag.watch(model, "fc1") as record:
        model.predict(X, batch_size=2, verbose=0)
    assert [x.shape for x in record.numpy().calls("fc1")] == [(2, 4), (2, 4)]
    with ag.watch(model, "fc1") as record:
        fit(model, batch_size=2, epochs=2)
    found = record.numpy().calls("fc1")
    # What Keras does for shapes alone, before the first step, is no call.
    assert len(found) == 4
    assert all(np.isfinite(x).all() for x in found)
    fit(model)


# Threads --------------------------------------------------------------------------------------------------------------
def test_calls_of_other_threads_are_not_recorded() -> None:
    model = net()
    other = threading.Thread(target=lambda: model(2 * X))
    with ag.watch(model, "fc1", nonfinite="raise") as record:
        model(X)
        other.start()
        other.join()
    assert len(record.calls("fc1")) == 1


def test_contexts_that_overlap_end_in_any_order() -> None:
    model = net()
    first, second = ag.watch(model, "fc1"), ag.watch(model, ["fc1", "fc2"])
    one, two = first.__enter__(), second.__enter__()
    model(X)
    first.__exit__(None, None, None)
    model(X)
    second.__exit__(None, None, None)
    model(X)
    assert (len(one.calls("fc1")), len(two.calls("fc1")), len(two.calls("fc2"))) == (1, 2, 2)
    assert all("call" not in vars(layer) for layer in (model, *model.layers))
    assert compiles()


def compiles() -> bool:
    """Whether the engine runs compiled code as such, as it does where nobody asked for anything else."""
    if ENGINE == "torch":
        from torch._dynamo import eval_frame

        return bool(eval_frame._stance.stance == "default")
    if ENGINE == "jax":
        import jax

        return not jax.config.jax_disable_jit
    import tensorflow as tf

    return not tf.config.functions_run_eagerly()


def test_two_threads_capture_on_one_model() -> None:
    model, found, barrier = net(), dict[int, list[Any]](), threading.Barrier(2)

    def run(number: int) -> None:
        barrier.wait()
        found[number] = [ag.capture(model, X * number, "fc*").numpy()["fc1"] for _ in range(5)]

    threads = [threading.Thread(target=run, args=(number,)) for number in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [1, 2]
    for number, records in found.items():
        expected = ag.capture(model, X * number, "fc1").numpy()["fc1"]
        for record in records:
            np.testing.assert_array_equal(record, expected)
    assert all("call" not in vars(layer) for layer in model.layers)
