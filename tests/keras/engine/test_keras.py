"""What the Keras backend promises on the engine of this process."""

from __future__ import annotations

import contextlib
import functools
import os
import random
import resource
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers as kl

import agnostic as ag
from agnostic.contracts.weights import WEIGHTS
from agnostic.models.load import loaded
from agnostic.testing import Subject, run
from agnostic.visualization.ascent import Ascent
from agnostic_keras import ascent

ENGINE = os.environ["AGNOSTIC_TEST_ENGINE"]
X = np.random.default_rng(0).random((2, 8, 8, 3))
EXACT = 1e-6  # a few float32 roundings of numbers of size one


def numpy(x: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(x))


def functional() -> keras.Model:
    """A shared layer, a nested model, two outputs."""
    inner_in = keras.Input((8, 8, 3))
    inner = keras.Model(inner_in, kl.Conv2D(5, 1, name="b")(kl.Conv2D(4, 3, name="a")(inner_in)) + 0.5, name="inner")
    shared, x = kl.Conv2D(3, 3, padding="same", activation="relu", name="shared"), keras.Input((8, 8, 3))
    y = inner(kl.BatchNormalization(name="norm")(shared(shared(x))))
    return keras.Model(x, [kl.Dense(2, name="dense")(kl.GlobalAveragePooling2D(name="mean")(y)), y])


def sequential() -> keras.Model:
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((None, None, 3)), kl.Conv2D(4, 3, name="conv"), kl.Activation("tanh", name="tanh"),
            kl.Dropout(0.5, name="drop"), kl.GlobalAveragePooling2D(name="mean"), kl.Dense(3, name="dense"),
        ]
    )  # fmt: skip


class Subclassed(keras.Model):
    """No symbolic graph; two siblings of one name; a dict as output."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = kl.Conv2D(4, 3, name="conv")
        self.drop = kl.Dropout(0.5, name="drop")
        self.heads = [kl.Dense(3, name="head"), kl.Dense(2, name="head")]

    def call(self, x: Any, training: bool = False) -> dict[str, Any]:
        y = keras.ops.mean(self.drop(self.conv(x), training=training), (1, 2))
        return {"out": self.heads[1](self.heads[0](y))}


def subclassed() -> keras.Model:
    model = Subclassed()
    model(X.astype("float32"))
    return model


# Layers and taps -----------------------------------------------------------------------------------------------------
def test_layers_in_the_order_in_which_they_run() -> None:
    listing = ag.layers(functional())
    assert [x.name for x in listing] == ["shared", "norm", "inner", "inner.a", "inner.b", "mean", "dense"]
    by_name = {x.name: x for x in listing}
    assert by_name["shared"].calls == 2
    assert by_name["inner.b"].shape == (None, 6, 6, 5)
    assert by_name["inner.b"].axes == "NHWC"
    assert by_name["norm"].parameters == 6  # scale and shift; running statistics are no parameters
    assert [x.name for x in ag.layers(subclassed(), X)] == ["conv", "drop", "head", "head#2"]


@pytest.mark.parametrize("make", [functional, sequential, subclassed])
def test_taps_are_what_the_model_computes_and_cutting_changes_nothing(make: Any) -> None:
    model = make()
    whole = ag.capture(model, X, "**")
    for name in whole:
        alone = ag.capture(model, X, name)
        assert len(alone.calls(name)) == len(whole.calls(name))
        for a, b in zip(alone.calls(name), whole.calls(name), strict=True):
            if hasattr(a, "shape"):
                np.testing.assert_allclose(numpy(a), numpy(b), atol=EXACT)
    output = keras.tree.flatten(model(X.astype("float32"), training=False))[0]
    last = {functional: "dense", sequential: "dense", subclassed: "head#2"}[make]
    np.testing.assert_allclose(numpy(whole[last]), numpy(output), atol=EXACT)


def test_shared_layers_have_one_record_a_call() -> None:
    record = ag.capture(functional(), X, "shared")
    assert len(record.calls("shared")) == 2
    with pytest.raises(ag.InvalidInput, match="ran 2 times"):
        record["shared"]


def test_several_inputs_by_position_and_by_name() -> None:
    p, q = keras.Input((3,), name="p"), keras.Input((3,), name="q")
    out = kl.Concatenate(name="cat")([kl.Dense(2, name="dense")(p), q])
    ones, zeros = np.ones((2, 3)), np.zeros((2, 3))
    by_position = ag.capture(keras.Model([p, q], out), (ones, zeros), "cat").numpy()["cat"]
    by_name = ag.capture(keras.Model({"p": p, "q": q}, out), {"p": ones, "q": zeros}, "cat").numpy()["cat"]
    np.testing.assert_array_equal(by_position, by_name)
    assert by_position[:, 2:].tolist() == zeros.tolist()


@pytest.mark.parametrize("make", [functional, sequential, subclassed])
def test_watch_removes_its_hooks_also_after_an_error(make: Any) -> None:
    model = make()
    before = {name: dict(vars(layer)) for name, layer in _layers(model).items()}

    def fail() -> None:
        model(X.astype("float32"))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), ag.watch(model, "**") as record:
        fail()
    assert all(record.calls(name) for name in record)
    assert {name: dict(vars(layer)) for name, layer in _layers(model).items()} == before


def _layers(model: keras.Model) -> dict[str, Any]:
    from agnostic_keras.layers import named_layers

    return named_layers(model)


def test_submodels_are_native_and_predict() -> None:
    model = functional()
    for name, kind in (("dense", "Functional"), ("inner.a", "Submodel")):
        part = ag.submodel(model, name)
        assert type(part).__name__ == kind
        np.testing.assert_allclose(part.predict(X, verbose=0), ag.capture(model, X, name).numpy()[name], atol=EXACT)
    two = ag.submodel(subclassed(), ["head#2", "conv"])(X.astype("float32"))
    assert [tuple(x.shape) for x in two] == [(2, 2), (2, 6, 6, 4)]


@pytest.mark.skipif(ENGINE == "tensorflow", reason="TensorFlow computes no channels-first convolution on every CPU")
def test_channels_first() -> None:
    model = keras.Sequential([keras.Input((3, 8, 8)), kl.Conv2D(4, 3, data_format="channels_first", name="conv")])
    (layer,) = ag.layers(model)
    assert (layer.axes, layer.shape, layer.channels) == ("NCHW", (None, 4, 6, 6), 4)
    images = ag.visualize(model, ag.objectives.channel("conv", [0, 1]), recipe="classic", size=8, steps=2)
    last = keras.Sequential([keras.Input((8, 8, 3)), kl.Conv2D(4, 3, name="conv")])
    last.set_weights(model.get_weights())
    other = ag.visualize(last, ag.objectives.channel("conv", [0, 1]), recipe="classic", size=8, steps=2)
    np.testing.assert_allclose(images, other, atol=1e-4)  # two steps, of a linear layer, in another layout


# Eager or graph ------------------------------------------------------------------------------------------------------
def test_the_same_call_works_eagerly_and_compiled() -> None:
    model, x = subclassed(), keras.ops.convert_to_tensor(X, "float32")

    def tap(x: Any) -> Any:
        with ag.watch(model, "conv") as record:
            model(x)
        return record["conv"]

    eager = numpy(tap(x))
    np.testing.assert_allclose(numpy(compiled(tap)(x)), eager, atol=EXACT)
    np.testing.assert_allclose(eager, ag.capture(model, X, "conv").numpy()["conv"], atol=EXACT)


def compiled(function: Any) -> Any:
    if ENGINE == "jax":
        import jax

        return jax.jit(function)
    if ENGINE == "tensorflow":
        import tensorflow as tf

        return tf.function(function, autograph=False)
    import torch

    return torch.compile(function, backend="eager")


def test_gradients_flow_through_taps() -> None:
    from agnostic_keras import engines

    model, x = sequential(), keras.ops.convert_to_tensor(X, "float32")

    def mean(x: Any) -> Any:
        with ag.watch(model, "conv") as record:
            model(x)
        return keras.ops.mean(record["conv"], (1, 2, 3))

    values, gradient = engines.current().value_and_gradient(mean, x)
    step = np.random.default_rng(1).normal(size=X.shape)
    step /= np.linalg.norm(step)
    # The convolution is linear, so a difference over any distance is its derivative.
    moved = numpy(mean(keras.ops.convert_to_tensor(X + step, "float32"))) - numpy(values)
    np.testing.assert_allclose((numpy(gradient) * step).sum((1, 2, 3)), moved, atol=1e-5)


# Ascent --------------------------------------------------------------------------------------------------------------
def several() -> tuple[keras.Model, Any]:
    keras.utils.set_random_seed(0)
    image, age = keras.Input((None, None, 3), name="image"), keras.Input((2,), name="age")
    factors = kl.Reshape((1, 1, 4))(kl.Dense(4)(age))
    seen = kl.Multiply()([kl.Conv2D(4, 3)(image), factors])  # no tanh: pixels up to 255 would saturate it
    return keras.Model([image, age], kl.Conv2D(3, 3, name="conv")(seen)), {"age": np.array([[0.5, -1.0]])}


def test_conforms() -> None:
    recipes = ("classic", "fourier", "jitter", "maco")
    failures = run(Subject("keras", sequential, layer="conv", recipes=recipes, several=several))
    assert not failures, "\n".join(failures)


def test_traced_once_whatever_the_steps_and_micro_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    score = Ascent.score
    monkeypatch.setattr(Ascent, "score", lambda self, *args: [calls.append(1), score(self, *args)][1])
    ag.visualize(sequential(), ag.objectives.channel("tanh", [0, 1, 2, 3, 0]), size=8, steps=6, micro_batch=2)
    assert len(calls) == (3 * 6 if ENGINE == "torch" else 1)


@pytest.mark.parametrize(
    "layer",
    [
        kl.Conv2D(6, 3, padding="same", activation="relu"), kl.Conv2D(6, (3, 5), (2, 1), use_bias=False),
        kl.Conv2D(6, 4, 3, "same"), kl.Conv2D(6, 3, padding="same", dilation_rate=2), kl.Conv2D(6, 1, 2),
        kl.Conv2D(6, 3, 2, "same", groups=2), kl.DepthwiseConv2D(3, padding="same", activation="tanh"),
        kl.DepthwiseConv2D(5, 2, "same", depth_multiplier=2), kl.MaxPooling2D(2), kl.MaxPooling2D(3, 2, "same"),
        kl.MaxPooling2D((3, 2), (1, 2), "same"), kl.MaxPooling2D(2, 3),
    ],
    ids=lambda layer: type(layer).__name__,
)  # fmt: skip
@pytest.mark.parametrize("side", [10, 11])
def test_quick_layers_compute_what_the_layers_do(layer: keras.Layer, side: int) -> None:
    from agnostic_keras import engines

    rng = np.random.default_rng(side)
    # Zeros above all, as behind a ReLU: of several largest values the first takes the gradient.
    x = keras.ops.convert_to_tensor(np.maximum(rng.normal(size=(2, side, side, 4)), 0), "float32")
    weights = keras.ops.convert_to_tensor(rng.normal(size=layer(x).shape), "float32")
    quick = ascent._quick(layer)
    assert quick is not None

    def both(function: Any) -> Any:
        return engines.current().value_and_gradient(lambda x: keras.ops.sum(function(x) * weights, (1, 2, 3)), x)

    for ours, theirs in zip(both(functools.partial(quick, None)), both(layer), strict=True):
        # Sums of at most 5 * 3 * 4 products, and then of 11 * 11 * 8 of these, of numbers of size one.
        np.testing.assert_allclose(numpy(ours), numpy(theirs), atol=1e-4)


def test_layers_that_are_not_plain_run_as_they_are() -> None:
    class Own(kl.Conv2D):
        def call(self, inputs: Any) -> Any:
            return super().call(inputs) + 1

    patched = kl.Conv2D(4, 3)
    patched.call = lambda inputs: inputs
    assert [ascent._quick(layer) for layer in (Own(4, 3), patched, kl.Conv1D(4, 3), kl.Dense(4))] == [None] * 4


def test_a_channel_alone_equals_the_same_channel_of_the_whole_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    x = keras.Input((8, 8, 3))
    model = keras.Model(x, kl.Conv2D(6, 3, activation="softplus", name="conv", strides=2)(kl.Conv2D(4, 3)(x)))
    asked = []
    means = ascent._channel_means
    monkeypatch.setattr(ascent, "_channel_means", lambda *args: [asked.append(1), means(*args)][1])

    def climb() -> Any:
        return ag.visualize(model, ag.objectives.channel("conv", [5, 2]), size=8, steps=3, dtype="float32")

    alone = climb()
    assert asked
    monkeypatch.setattr(ascent, "_is_sliceable", lambda layer: False)
    np.testing.assert_allclose(alone.scores, climb().scores, rtol=1e-5)


def test_weights_and_policies_stay_as_they_were() -> None:
    model = sequential()
    before = model.get_weights()
    policies = [layer.dtype_policy.name for layer in model.layers]
    state = random.getstate()
    ag.visualize(model, ag.objectives.channel("tanh", 1), size=8, steps=2, dtype="bfloat16")
    assert [layer.dtype_policy.name for layer in model.layers] == policies
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    assert random.getstate() == state


def test_a_step_that_is_not_finite_is_named() -> None:
    model = sequential()
    weights = model.get_weights()
    weights[0][:] = np.nan
    model.set_weights(weights)
    with pytest.raises(ag.NonFinite, match="at step 1 of 2"):
        ag.visualize(model, ag.objectives.channel("tanh", 1), recipe="classic", size=8, steps=2)


# Models and bad input ------------------------------------------------------------------------------------------------
def test_a_model_without_weights() -> None:
    with pytest.raises(ag.InvalidInput, match="has no weights yet: call the model once"):
        ag.layers(keras.Sequential([kl.Conv2D(3, 3)]))


def test_a_layer_of_a_nested_model_is_named_by_its_path() -> None:
    with pytest.raises(ag.UnknownName, match=r"did you mean .*'inner\.a'"):
        ag.capture(functional(), X, "inner/a")


def test_float64_is_refused() -> None:
    with pytest.raises(ag.InvalidInput, match="torch backend for float64"):
        ag.visualize(sequential(), ag.objectives.channel("tanh", 1), size=8, steps=1, dtype="float64")


def test_files_are_read_without_executing_code(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    model = sequential()
    model.save(path)
    loaded = ag.load(str(path))
    np.testing.assert_allclose(
        ag.capture(loaded, X, "dense").numpy()["dense"], ag.capture(model, X, "dense").numpy()["dense"], atol=EXACT
    )
    unsafe = tmp_path / "unsafe.keras"
    keras.Sequential([keras.Input((2,)), kl.Lambda(lambda x: x + 1)]).save(unsafe)
    with pytest.raises(ag.InvalidWeights, match=r"would call a Lambda layer's code.*trust=True"):
        ag.load(str(unsafe))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ag.InvalidWeights, match="damaged"):
        ag.load(str(path))


def test_random_weights_are_the_same_every_time_and_leave_the_generators_alone() -> None:
    states = random.getstate(), np.random.get_state()[1].tolist()
    first, second = (ag.load("efficientnet_lite0", backend="keras", weights="random") for _ in range(2))
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states
    assert all(np.array_equal(a, b) for a, b in zip(first.get_weights(), second.get_weights(), strict=True))


def test_where_there_is_no_room_for_a_file_it_is_one_sentence(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((50,)), kl.Dense(1000)])
    backend = ag.backend_of(model)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)  # stands for the full disk
    for name in ("a.keras", "a.weights.h5", "a.safetensors"):
        for size in (
            0,
            1000,
            100_000,
            203_000,
        ):  # of 204,000 bytes of weights: a failed write of HDF5 would be fatal later
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
            try:
                with pytest.raises(ag.InvalidInput, match="file too large; make room or choose another folder"):
                    backend[WEIGHTS].save(model, tmp_path / name)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, before)
            assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("device", ["cuda:77", "gpu:77", "nonsense"])
def test_a_device_that_is_not_there_is_one_sentence(device: str) -> None:
    with pytest.raises(ag.InvalidInput, match=f"the device '{device}' cannot be used"):
        ag.visualize(sequential(), ag.objectives.channel("conv", 0), size=16, steps=1, device=device)

    with pytest.raises(ag.InvalidInput, match=f"the device '{device}' cannot be used"):
        loaded("efficientnet_lite0", backend="keras", weights="random", device=device).__enter__()


def test_a_model_is_built_and_run_on_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own.py").write_text(
        'import keras\nmake = lambda: keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="head")])\n'
    )
    scopes: list[str] = []
    original = keras.device
    monkeypatch.setattr(keras, "device", lambda name: scopes.append(name) or original(name))
    with loaded(f"{tmp_path}/own.py:make", backend="keras", device="cpu") as model:
        assert scopes[-1] == "cpu"
        assert ag.capture(model, np.ones((1, 3), np.float32), "head")["head"].shape == (1, 2)


@pytest.mark.parametrize("word", ["cuda", "gpu"])
def test_both_words_for_a_gpu_reach_the_engine_in_its_own(word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # No GPU is needed: what is passed on is looked at.
    asked: list[str] = []

    def device(name: str) -> Any:
        asked.append(name)
        return contextlib.nullcontext()

    monkeypatch.setattr(keras, "device", device)
    monkeypatch.setattr(keras.distribution, "list_devices", lambda: ["gpu:0", "gpu:1"])
    assert ascent.usable_device(f"{word}:1") == asked[0] == ("cuda:1" if ENGINE == "torch" else "gpu:1")


# Kept between calls ---------------------------------------------------------------------------------------------------
def test_a_step_is_compiled_once_for_all_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    climber = ascent.engines.current().climber
    monkeypatch.setattr(ascent.engines.current(), "climber", lambda network: [made.append(1), climber(network)][1])
    model, options = sequential(), {"size": 8, "steps": 2}
    channel, logit = ag.objectives.channel, ag.objectives.logit

    def draw(objective: Any, **more: Any) -> np.ndarray:
        return np.asarray(ag.visualize(model, objective, **{**options, **more}))

    first = draw(channel("conv", [0, 1]))
    other = draw(channel("conv", [2, 3]), seed=1)
    assert len(made) == 1
    np.testing.assert_array_equal(draw(channel("conv", [0, 1])), first)
    assert (other != first).any()
    layer = model.get_layer("conv")
    before = layer.get_weights()
    layer.set_weights([-x for x in before])  # weights are arguments
    assert (draw(channel("conv", [0, 1])) != first).any()
    assert len(made) == 1
    layer.set_weights(before)
    draw(channel("conv", [0, 1]), recipe="jitter")  # another program
    draw(ag.objectives.neuron("conv", 0, (1, 1)))
    draw(ag.objectives.neuron("conv", 0, (2, 1)))
    assert len(made) == 4
    layer.activation = keras.activations.tanh  # a layer that computes something else
    assert (draw(channel("conv", [0, 1])) != first).any()
    assert len(made) == 5
    draw(logit([0, 1]))
    with pytest.raises(ag.InvalidInput, match="no class 99"):
        draw(logit([0, 99]))


def test_frames_are_given_on_every_engine() -> None:
    film, model, objective = ag.animation.Film(), sequential(), ag.objectives.channel("conv", [0, 1, 2])
    options = {"size": 8, "steps": 5, "micro_batch": 2}
    seen = ag.visualize(model, objective, every=2, on_images=film.add, **options)
    assert sorted(film.frames) == [2, 4, 5]
    np.testing.assert_array_equal(np.stack([film.frames[5][i] for i in range(3)]), seen)
    # A program of two steps rounds as one of five does, or by a few units in the last place.
    np.testing.assert_allclose(np.asarray(ag.visualize(model, objective, **options)), seen, atol=1e-3)
    np.testing.assert_allclose(seen.scores[0], ag.visualize(model, objective, **options).scores[0], rtol=1e-5)
