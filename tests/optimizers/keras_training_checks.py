"""Rates, frozen groups and gradients of every kind in Keras, on the engine of this process; test_keras.py runs it."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from agnostic import optimizers as ago
from agnostic.errors import InvalidInput, UnknownName
from agnostic.reference import optimizers as reference
from tests.optimizers.keras_checks import ENGINE, float64_on_jax, values

X, Y = np.ones((2, 3), np.float32), np.zeros((2, 3), np.float32)


@pytest.fixture(autouse=True)
def _float64() -> Any:
    with float64_on_jax():
        yield


def pair() -> keras.Model:
    """Two layers of equal shapes, all weights 0.5."""
    layers = [keras.layers.Dense(3, use_bias=False, name=name) for name in ("layer1", "layer2")]
    net = keras.Sequential([keras.Input((3,)), *layers])
    net.set_weights([np.full((3, 3), 0.5, np.float32)] * 2)
    return net


def ones(net: keras.Model, scale: float = 1.0) -> list[Any]:
    return [keras.ops.full(v.shape, scale, v.dtype) for v in net.trainable_variables]


def moved(net: keras.Model) -> list[float]:
    """How far the first weight of each layer went down."""
    return [0.5 - float(v.flat[0]) for v in values(net)]


# The rate -------------------------------------------------------------------------------------------------------------
def test_the_learning_rate_is_the_specifications_and_groups_follow_it() -> None:
    net = pair()
    optimizer = ago.build(ago.SGD(0.1), ago.groups(net, {"layer1": {"learning_rate": 0.01}}))
    assert float(keras.ops.convert_to_numpy(optimizer.learning_rate)) == pytest.approx(0.1)
    optimizer.learning_rate = 0.2
    optimizer.apply(ones(net), net.trainable_variables)
    # Rates are float32, and a weight near 0.5 keeps 6e-8.
    assert moved(net) == pytest.approx([0.02, 0.2], abs=2e-7)
    again = type(optimizer).from_config(optimizer.get_config())
    assert float(keras.ops.convert_to_numpy(again.learning_rate)) == pytest.approx(0.2)


def test_a_single_group_with_its_own_rate_leaves_the_base_to_the_specification() -> None:
    net = pair()
    optimizer = ago.build(ago.SGD(0.1), ago.groups(net, {"layer1": {"lr": 0.01}, "layer2": {"lr": 0.01}}))
    optimizer.learning_rate = 0.2
    optimizer.apply(ones(net), net.trainable_variables)
    assert moved(net) == pytest.approx([0.02, 0.02], abs=2e-7)
    # A base of 0 leads to no other rate by a factor.
    net = pair()
    ago.build(ago.SGD(0.0), ago.groups(net, {"layer1": {"lr": 0.01}})).apply(ones(net), net.trainable_variables)
    assert moved(net) == pytest.approx([0.01, 0.0], abs=2e-7)


def test_callbacks_set_and_reduce_the_base_rate() -> None:
    net = pair()
    net.compile(ago.build(ago.SGD(0.1), ago.groups(net, {"layer1": {"learning_rate": 0.01}})), "mse")
    seen = []
    callbacks = [
        keras.callbacks.LearningRateScheduler(lambda epoch, rate: [seen.append(rate), rate][1]),
        keras.callbacks.ReduceLROnPlateau(monitor="loss", factor=0.5, patience=1, min_delta=1e9, cooldown=0),
    ]
    net.fit(X, Y, epochs=3, verbose=0, callbacks=callbacks)
    assert seen == pytest.approx([0.1, 0.1, 0.05])
    assert float(keras.ops.convert_to_numpy(net.optimizer.learning_rate)) == pytest.approx(0.025)


# Frozen groups --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("options", [{}, {"accumulate": 2}, {"momentum": 0.9}])
def test_the_global_norm_is_of_what_moves(options: dict[str, Any]) -> None:
    """keras#13575: 9 gradients of 1/3 have a norm of 1; those of the frozen layer, of any size, do not count."""
    for frozen in (4.0, float("nan"), float("inf")):
        net = pair()
        net.get_layer("layer1").kernel.constraint = keras.constraints.UnitNorm()
        spec = ago.SGD(1.0, clip_global_norm=0.5, clip_convention="keras", **options)
        optimizer = ago.build(spec, ago.groups(net, {"layer1": {"trainable": False}}))
        for _ in range(options.get("accumulate", 1)):
            optimizer.apply([frozen * g for g in ones(net)[:1]] + ones(net, 1 / 3)[1:], net.trainable_variables)
        assert moved(net) == pytest.approx([0.0, 0.5 / 3], abs=2e-7)


def test_a_step_with_gradients_of_frozen_variables_alone_moves_nothing() -> None:
    net = pair()
    optimizer = ago.build(ago.SGD(1.0, clip_global_norm=0.5), ago.groups(net, {"layer1": {"trainable": False}}))
    optimizer.apply(ones(net)[:1], net.trainable_variables[:1])
    assert moved(net) == [0.0, 0.0]


def test_frozen_groups_stay_out_of_the_norm_in_fit() -> None:
    ends = []
    for freeze in ("group", "layer"):
        net = pair()
        spec = ago.SGD(0.1, clip_global_norm=0.01)
        if freeze == "layer":
            net.get_layer("layer1").trainable = False
        rules = {"layer1": {"trainable": False}} if freeze == "group" else {}
        net.compile(ago.build(spec, ago.groups(net, rules)), "mse")
        net.fit(X, Y, epochs=2, verbose=0)
        ends.append(keras.ops.convert_to_numpy(net.get_layer("layer2").kernel))
    # The same steps, compiled as two programs.
    np.testing.assert_allclose(*ends, rtol=0, atol=2e-7)


# Choosing -------------------------------------------------------------------------------------------------------------
class Subclassed(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.stem = keras.layers.Dense(3, name="first")
        self.still = keras.layers.Dense(3, name="second", trainable=False)
        self.blocks = [keras.layers.ReLU(name="act"), keras.layers.Dense(3, name="third")]

    def call(self, x: Any) -> Any:
        return self.blocks[1](self.blocks[0](self.still(self.stem(x))))


def test_a_selector_of_what_is_frozen_or_called_otherwise_says_so() -> None:
    net = Subclassed()
    net(X)
    for selector, match in [
        ("stem", "'stem' is called 'first'"),
        ("0", "'0' is called 'first'"),
        ("still", "'still' is called 'second', and is frozen: trainable is False"),
        ("second", "'second' is frozen"),
        ("act", "'act' has no weights"),
        ("blocks.1", "'blocks.1' is called 'third'"),
    ]:
        with pytest.raises(UnknownName, match=match):
            ago.groups(net, {selector: {"lr": 0.1}})


# Norms ----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("dtype", "size"), [("float16", 3e4), ("float16", 1e-4), ("float32", 1e30), ("float32", 1e-30)]
)
def test_norms_hold_squares_of_any_size(dtype: str, size: float) -> None:
    wave = np.sin(np.arange(9.0) + 1).reshape(3, 3)
    # Rounded to the type, the step and the weights.
    tolerance = 8 * {"float16": 2.0**-10, "float32": 2.0**-23}[dtype]
    for spec, start, gradient in [
        (ago.SGD(1.0, clip_norm=size / 8, clip_convention="keras"), 0 * wave, size * wave),
        (ago.SGD(1.0, clip_global_norm=size / 8, clip_convention="keras"), 0 * wave, size * wave),
        (ago.LAMB(0.1, epsilon=1e-3), size * (2 + wave) / 4, wave),
        (ago.Adafactor(0.1), size * (2 + wave) / 4, wave),
        *[(ago.Muon(0.1), (2 + wave) / 4, size * wave)] * (size > 1),
    ]:
        keras.config.set_dtype_policy(dtype)
        net = pair()
        keras.config.set_dtype_policy("float32")
        net.set_weights([start, 0 * wave])
        (held, _), g = values(net), keras.ops.cast(keras.ops.convert_to_tensor(gradient), dtype)
        # In half precision ours is built by itself: Keras' own sums squares in the gradient's type.
        optimizer = ago.build(spec, net, native=None if dtype == "float16" else False)
        optimizer.apply([g, keras.ops.zeros_like(g)], net.trainable_variables)
        exact = keras.ops.convert_to_numpy(g).astype(np.float64)
        expected = reference.replay(spec, [held.astype(np.float64)], [[exact]], outputs_last=True)[-1][0]
        most = max(np.abs(held).max(), np.abs(expected).max()) * (243 if isinstance(spec, ago.Muon) else 1)
        np.testing.assert_allclose(values(net)[0], expected, rtol=0, atol=tolerance * most, err_msg=repr(spec))


# Saved states ---------------------------------------------------------------------------------------------------------
def chain(*names: str | None) -> keras.Model:
    return keras.Sequential([keras.Input((3,)), *[keras.layers.Dense(3, use_bias=False, name=name) for name in names]])


def trained(net: keras.Model, spec: ago.Spec) -> keras.Model:
    net.compile(ago.build(spec, net, native=False), "mse")
    net.optimizer.apply([keras.ops.full((3, 3), float(i + 1)) for i in range(2)], net.trainable_variables)
    return net


def slots(net: keras.Model) -> list[float]:
    return [float(keras.ops.convert_to_numpy(s["momentum"].value).flat[0]) for s in net.optimizer._slots]


@pytest.mark.parametrize("built", [True, False])
def test_weights_files_give_each_variable_its_own_state(built: bool, tmp_path: Path) -> None:
    spec, path = ago.SGD(0.1, 0.9), tmp_path / "net.weights.h5"
    for names in (("a", "b"), (None, None)):  # unnamed layers have other numbers in every model
        trained(chain(*names), spec).save_weights(path)
        net = chain(*names)
        net.compile(ago.build(spec, net, native=False), "mse")
        if built:
            net.optimizer.build(net.trainable_variables)
        net.load_weights(path)
        net.optimizer.build(net.trainable_variables)
        assert slots(net) == [1.0, 2.0]
        assert int(keras.ops.convert_to_numpy(net.optimizer.iterations)) == 1


def test_a_saved_state_of_others_is_refused() -> None:
    store: dict[str, Any] = {}
    trained(chain("a", "b"), ago.SGD(0.1, 0.9)).optimizer.save_own_variables(store)
    swapped = trained(chain("b", "a"), ago.SGD(0.1, 0.9))
    with pytest.raises(InvalidInput, match=r"it has 'SGD momentum .*b/kernel' where the optimizer has"):
        trained(chain("a", "c"), ago.SGD(0.1, 0.9)).optimizer.load_own_variables(store)
    with pytest.raises(InvalidInput, match="where the optimizer has 'Lion mean"):
        trained(chain("a", "b"), ago.Lion(0.1)).optimizer.load_own_variables(store)
    # By name where the order is another.
    swapped.optimizer.load_own_variables(store)
    assert slots(swapped) == [2.0, 1.0]
    native = keras.optimizers.SGD(0.1, 0.9)
    native.build(swapped.trainable_variables)
    plain: dict[str, Any] = {}
    native.save_own_variables(plain)
    with pytest.raises(InvalidInput, match="does not say which variables it belongs to"):
        swapped.optimizer.load_own_variables(plain)


# Averages -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("native", [True, False])
def test_averaged_weights_are_swapped_in_and_out(native: bool) -> None:
    net = pair()
    spec = ago.SGD.keras(learning_rate=0.125, ema_momentum=0.5)
    optimizer = ago.build(spec, net, native=native)
    net.compile(optimizer, "mse")
    with pytest.raises(InvalidInput, match="before the first step"), ago.averaged_weights(optimizer):
        pass
    for _ in range(2):
        optimizer.apply(ones(net), net.trainable_variables)
    with contextlib.suppress(ZeroDivisionError), ago.averaged_weights(optimizer):
        assert moved(net) == [0.1875, 0.1875]
        net.evaluate(X, Y, verbose=0)
        with pytest.raises(InvalidInput, match="already"), ago.averaged_weights(optimizer):
            pass
        _ = 1 / 0
    assert moved(net) == [0.25, 0.25]
    optimizer.apply(ones(net), net.trainable_variables)
    with pytest.raises(InvalidInput, match="build it with ema_momentum"), ago.averaged_weights(keras.optimizers.SGD()):
        pass


# Gradients ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("options", [{}, {"clip_norm": 1.0}, {"clip_global_norm": 1.0}, {"accumulate": 2}])
def test_gradients_may_be_numpy_arrays(options: dict[str, Any]) -> None:
    ends = []
    for convert in (keras.ops.convert_to_tensor, np.asarray):
        net = pair()
        optimizer = ago.build(ago.SGD(0.1, **options), net, native=False)
        for _ in range(2):
            given = [convert(np.full((3, 3), 1.0, np.float32)), convert(np.full((3, 3), 2.0, np.float32))]
            optimizer.apply(given, net.trainable_variables)
        ends.append(values(net))
    assert all(np.array_equal(a, b) for a, b in zip(*ends, strict=True))
    assert ends[0][0].flat[0] < 0.5


def test_a_gradient_of_another_shape_is_one_sentence() -> None:
    net = pair()
    optimizer = ago.build(ago.SGD(0.1), net, native=False)
    with pytest.raises(InvalidInput, match=r"layer2/kernel' has the shape \(1,\), and the variable \(3, 3\)"):
        optimizer.apply([*ones(net)[:1], keras.ops.ones((1,))], net.trainable_variables)


def sparse(dense: np.ndarray) -> Any:
    """The engine's sparse array of a matrix, in which an entry or a row is given as two halves."""
    rows, columns = np.nonzero(dense)
    indices = np.stack([np.append(rows, rows[0]), np.append(columns, columns[0])])
    numbers = np.append(dense[rows, columns], dense[rows[0], columns[0]] / 2).astype(np.float32)
    numbers[0] /= 2
    if ENGINE == "jax":
        from jax.experimental.sparse import BCOO

        return BCOO((numbers, indices.T), shape=dense.shape)
    if ENGINE == "torch":
        import torch

        return torch.sparse_coo_tensor(indices, numbers, dense.shape)
    import tensorflow as tf

    # Rows may repeat here.
    twice = np.concatenate([dense / 2, dense / 2]).astype(np.float32)
    return tf.IndexedSlices(twice, np.concatenate([np.arange(3), np.arange(3)]), dense.shape)


@pytest.mark.parametrize("options", [{}, {"clip_global_norm": 0.1}, {"accumulate": 2}])
def test_sparse_gradients_move_every_rule_as_their_sums_do(options: dict[str, Any]) -> None:
    dense = np.array([[1.0, 0, 0], [0, 0, 2.0], [0, 0, 0]], np.float32)
    # Accumulating compiles a branch for each rule on jax, and is the same for all.
    for cls in ago.KINDS.values() if "accumulate" not in options else (ago.SGD,):
        ends = []
        for given in (keras.ops.convert_to_tensor(dense), sparse(dense)):
            net = pair()
            optimizer = ago.build(cls(0.1, **options), net, native=False)
            for _ in range(options.get("accumulate", 1)):
                optimizer.apply([given, given], net.trainable_variables)
            ends.append(values(net))
        assert all(np.array_equal(a, b) for a, b in zip(*ends, strict=True)), cls.__name__
        assert ends[0][0].flat[0] != 0.5, cls.__name__
