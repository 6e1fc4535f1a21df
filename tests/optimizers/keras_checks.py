"""Optimizers in Keras, on the engine of this process; test_keras.py runs this file once an engine."""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from agnostic import optimizers as ago
from agnostic.errors import InvalidInput, UnknownName
from agnostic.optimizers import specs
from agnostic.reference import optimizers as reference
from tests.optimizers.problems import CASES

ENGINE = keras.config.backend()
START, GRADIENT, RATES = reference.standard_problem()
LONG = [*RATES, 0.02, 0.04]

# As in test_torch.py.
EXACT = 1e-12
# What Keras' own classes lose by passing numbers through float32 (6e-8) in float64: rates, corrections, epsilon.
NATIVE = {"torch": 1e-7, "jax": 1e-7, "tensorflow": 1e-5}[ENGINE]


def float64_on_jax() -> AbstractContextManager[Any]:
    """jax makes float32 of float64 outside of this."""
    if ENGINE != "jax":
        return contextlib.nullcontext()
    import jax

    return jax.enable_x64(True)


@pytest.fixture(autouse=True)
def _float64() -> Any:
    floatx, policy = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    with float64_on_jax():
        yield
    keras.config.set_floatx(floatx)
    keras.config.set_dtype_policy(policy)


def model() -> keras.Model:
    x = keras.Input((3,))
    net = keras.Model(x, keras.layers.Dense(4, name="head")(x))
    net.set_weights(START)
    return net


def values(net: keras.Model) -> list[np.ndarray]:
    return [np.array(keras.ops.convert_to_numpy(v.value)) for v in net.trainable_variables]


def follow(optimizer: Any, net: keras.Model, rates: Sequence[float] = LONG) -> list[np.ndarray]:
    for rate in rates:
        optimizer.learning_rate = rate
        gradients = [keras.ops.convert_to_tensor(g) for g in GRADIENT(values(net))]
        optimizer.apply(gradients, net.trainable_variables)
    return values(net)


def far(a: Sequence[np.ndarray], b: Sequence[np.ndarray]) -> float:
    return max(float(np.abs(x - y).max()) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("case", CASES)
def test_our_rule_and_the_native_optimizer_follow_the_reference(case: str) -> None:
    cls, options = CASES[case]
    for framework in cls.natives:
        spec = getattr(cls, framework)(**options)
        expected = reference.run(spec, START, GRADIENT, LONG)[-1]
        net = model()
        assert far(follow(ago.build(spec, net, native=False), net), expected) < EXACT
        if framework == "keras":
            net = model()
            optimizer = ago.build(spec, net)
            assert type(optimizer).__module__.startswith("keras.")
            assert far(follow(optimizer, net), expected) < NATIVE


def test_muon_follows_the_reference_in_keras_layout() -> None:
    for spec in (ago.Muon.keras(), ago.Muon.torch(iteration_dtype="parameter")):
        x = keras.Input((3,))
        net = keras.Model(x, keras.layers.Dense(4, use_bias=False)(x))
        net.set_weights(START[:1])
        optimizer = ago.build(spec, net, native=False)
        for rate in RATES:
            optimizer.learning_rate = rate
            g = GRADIENT([values(net)[0], START[1]])[0]
            optimizer.apply([keras.ops.convert_to_tensor(g)], net.trainable_variables)
        path = reference.run(spec, START[:1], lambda p: GRADIENT([*p, START[1]])[:1], RATES, outputs_last=True)
        # Newton-Schulz triples small singular values at each of 5 iterations: rounding grows by 3^5 = 243.
        assert far(values(net), path[-1]) < 243 * EXACT


@pytest.mark.parametrize("convention", ["torch", "keras"])
@pytest.mark.parametrize(
    "options",
    [{"clip_norm": 0.05}, {"clip_global_norm": 0.05}, {"clip_value": 0.01}, {"accumulate": 2}, {"ema_momentum": 0.5}],
)
def test_clipping_averages_and_accumulation_follow_the_reference(convention: str, options: dict[str, Any]) -> None:
    spec = ago.SGD(0.1, 0.9, clip_convention=convention, **options)
    rates = [0.1, 0.1, 0.03, 0.03]
    net = model()
    optimizer = ago.build(spec, net, native=False)
    assert far(follow(optimizer, net, rates), reference.run(spec, START, GRADIENT, rates)[-1]) < EXACT
    plain = ago.SGD(0.1, 0.9)
    if "ema_momentum" not in options:
        assert far(values(net), reference.run(plain, START, GRADIENT, rates)[-1]) > 1e-3
        return
    path = reference.run(plain, START, GRADIENT, rates)
    average = path[0]
    for p in path[1:]:
        average = [0.5 * a + 0.5 * q for a, q in zip(average, p, strict=True)]
    optimizer.finalize_variable_values(net.trainable_variables)
    assert far(values(net), average) < EXACT


def network() -> keras.Model:
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((4, 4, 1)),
            # Without a bias, which the normalization would take away again: its gradient is rounding, of which Adam
            # makes whole steps.
            keras.layers.Conv2D(2, 3, use_bias=False, name="block1_conv1"),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.Flatten(),
            keras.layers.Dense(3, name="head"),
        ]
    )


X = np.linspace(-1, 1, 8 * 16).reshape(8, 4, 4, 1)
Y = np.arange(8 * 3).reshape(8, 3) / 10


def fit(
    net: keras.Model, optimizer: Any, epochs: int = 2, jit: bool | str = "auto", **options: Any
) -> list[np.ndarray]:
    net.compile(optimizer, "mse", jit_compile=jit)
    net.fit(X, Y, batch_size=4, epochs=epochs, shuffle=False, verbose=0, **options)
    return values(net)


# PyTorch's engine compiles by triton, which needs a compiler and minutes; Keras itself leaves it eager. Without its
# compiler jax takes half a minute a fit, most of it Keras' own; the calls of `apply` here run rules without one.
JIT = {"torch": [False], "jax": [True], "tensorflow": [True, False]}[ENGINE]


@pytest.mark.parametrize("jit", JIT)
def test_groups_in_fit_give_layers_their_own_rate_decay_and_rule_and_freeze(jit: bool) -> None:
    net = network()
    before = values(net)
    groups = ago.groups(
        net,
        {
            "block1_*": {"learning_rate": 0.001, "momentum": 0.5},
            "norm": {"trainable": False},
            "**.bias": {"spec": ago.Adam(0.02)},
        },
    )
    optimizer = ago.build(ago.SGD(0.01, 0.9), groups)
    assert "SGD(learning_rate=0.001, momentum=0.5)" in repr(optimizer)
    assert len(repr(optimizer)) < 400
    got = fit(net, optimizer, jit=jit)
    names = [v.path for v in net.trainable_variables]
    moved = {n: not np.array_equal(a, b) for n, a, b in zip(names, before, got, strict=True)}
    assert [n for n in names if not moved[n]] == [v.path for v in net.get_layer("norm").trainable_variables]
    # The same by hand: each group's own optimizer on its own variables, everything else the same.
    other = network()
    own = keras.optimizers
    parts = [own.SGD(0.001, 0.5), own.SGD(0.01, 0.9), own.Adam(0.02, epsilon=0.0)]
    # Keras' convention of momentum is torch's at a constant rate; so is epsilon's place at 0.
    which = [0, None, None, 1, 2]
    loss = keras.losses.MeanSquaredError()
    for _ in range(2):
        for start in (0, 4):
            grads = gradients(other, loss, X[start : start + 4], Y[start : start + 4])
            for i, part in enumerate(parts):
                mine = [(g, v) for g, v, w in zip(grads, other.trainable_variables, which, strict=True) if w == i]
                part.apply([g for g, _ in mine], [v for _, v in mine])
    # Gradients of float64 networks go through float32 in many layers, by other kernels when jitted; Adam's first steps
    # have the size of the rate whatever the gradient: 4 steps of 0.02 times rounding of 6e-8 over gradients of 1e-3.
    assert far(got, values(other)) < 1e-4


@functools.cache
def differentiated(net: keras.Model, loss: Any) -> Any:
    """In jax, compiled once: outside of a compiled function each operation is compiled, many at each call."""
    import jax

    def total(now: list[Any], still: list[Any], x: Any, y: Any) -> tuple[Any, Any]:
        out, new = net.stateless_call(now, still, x, training=True)
        return loss(y, out), new

    return jax.jit(jax.grad(total, has_aux=True))


def gradients(net: keras.Model, loss: Any, x: np.ndarray, y: np.ndarray) -> list[Any]:
    variables = net.trainable_variables
    x, y = keras.ops.convert_to_tensor(x), keras.ops.convert_to_tensor(y)
    if ENGINE == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            value = loss(y, net(x, training=True))
        return tape.gradient(value, [v.value for v in variables])
    if ENGINE == "torch":
        net.zero_grad()
        loss(y, net(x, training=True)).backward()
        return [v.value.grad for v in variables]
    still = [v.value for v in net.non_trainable_variables]
    grads, new = differentiated(net, loss)([v.value for v in variables], still, x, y)
    for v, value in zip(net.non_trainable_variables, new, strict=True):
        v.assign(value)
    return grads


@pytest.mark.parametrize("jit", JIT)
def test_our_rules_equal_keras_own_in_fit(jit: bool) -> None:
    chosen = [ago.SGD.keras(momentum=0.9, learning_rate=0.05), ago.Adam.keras(), ago.NAdam.keras()]
    for spec in chosen:
        ends = []
        for native in (True, False):
            net = network()
            ends.append(fit(net, ago.build(spec, net, native=native), jit=jit))
        # Keras computes corrections in float32 numbers: 1e-5 of a step of 1e-3 in TensorFlow, 4 steps.
        assert far(*ends) < 1e-6


CONTINUED = """
import sys
from tests.engines import keep_out, spare_time
keep_out()
import keras
import numpy as np
import agnostic_keras.optimizers  # Keras loads what has been registered
spare_time()  # as in the process that compares: TensorFlow's optimized graphs round otherwise
for policy, path, data, out in zip(*[iter(sys.argv[1:])] * 4):
    keras.config.set_dtype_policy(policy)  # the loss is computed in it, and the file does not say it
    net, data = keras.models.load_model(path), np.load(data)
    net.fit(data["x"], data["y"], batch_size=4, shuffle=False, verbose=0)
    np.savez(out, *[keras.ops.convert_to_numpy(v.value) for v in net.trainable_variables])
"""


def test_a_model_that_was_saved_continues_in_a_new_process_as_the_one_that_was_not(tmp_path: Path) -> None:
    keras.config.set_floatx("float32")
    schedule = keras.optimizers.schedules.CosineDecay(0.01, 40)
    frozen = {"norm": {"trainable": False}}
    cases = {
        "groups": (
            "float32",
            ago.SGD(0.01, 0.9),
            {"head": {"spec": ago.NAdam(0.01), "weight_decay": 0.1}, **frozen},
        ),
        "schedules": (
            "float32",
            ago.AdamW(schedule, clip_global_norm=1.0, ema_momentum=0.9, ema_overwrite=3),
            {"head.kernel": {"learning_rate": 0.01}, "head.bias": {"learning_rate": schedule}},
        ),
        "scaled": ("mixed_float16", ago.Adam(0.01, accumulate=2), {"head": {"lr": 0.02}}),
    }
    np.savez(tmp_path / "data.npz", x=X, y=Y)
    ends, arguments = [], []
    for name, (policy, spec, rules) in cases.items():
        keras.config.set_dtype_policy(policy)
        net = network()
        fit(net, ago.build(spec, ago.groups(net, rules)))
        net.save(tmp_path / f"{name}.keras")
        net.fit(X, Y, batch_size=4, shuffle=False, verbose=0)
        kind = "LossScaleOptimizer" if policy == "mixed_float16" else "RuleOptimizer"
        assert type(net.optimizer).__name__ == kind
        ends.append(values(net))
        arguments += [policy, tmp_path / f"{name}.keras", tmp_path / "data.npz", tmp_path / f"{name}.npz"]
    command = [sys.executable, "-c", CONTINUED, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    for name, end in zip(cases, ends, strict=True):
        with np.load(tmp_path / f"{name}.npz") as arrays:
            assert far(list(arrays.values()), end) == 0, name


def test_weights_files_carry_the_state(tmp_path: Path) -> None:
    ends, path = [], tmp_path / "net.weights.h5"
    for loaded in (False, True):
        net = network()
        optimizer = ago.build(ago.NAdam(0.01), ago.groups(net, {"head": {"lr": 0.02}}))
        if loaded:
            net.compile(optimizer, "mse")
            optimizer.build(net.trainable_variables)
            net.load_weights(path)
        else:
            fit(net, optimizer)
            net.save_weights(path)
        net.fit(X, Y, batch_size=4, shuffle=False, verbose=0)
        ends.append(values(net))
    assert far(*ends) == 0


def test_training_goes_on_after_the_average_took_the_weights_place() -> None:
    spec = ago.SGD(0.1, 0.9, ema_momentum=0.5)
    net = model()
    net.compile(ago.build(spec, net), "mse")
    for _ in range(2):  # Keras' own fails on jax here
        net.fit(X[:, 0, :3, 0], np.ones((8, 4)), batch_size=4, shuffle=False, verbose=0)
    average = keras.ops.convert_to_numpy(net.optimizer._model_variables_moving_average[0].value)
    assert np.array_equal(values(net)[0], average)
    if ENGINE == "jax":
        own = ago.SGD.keras(momentum=0.9, ema_momentum=0.5)
        assert type(ago.build(own, net)).__name__ == "RuleOptimizer"


def test_an_embedding_moves_by_the_sum_over_the_rows_that_repeat() -> None:
    """Keras' own square each occurrence by itself on TensorFlow."""
    table = np.linspace(-1, 1, 12).reshape(6, 2)
    ids, target = np.array([[0, 2, 2]]), np.ones((1, 3, 2))
    for options in ({}, {"clip_global_norm": 0.01}):
        spec = ago.Adam(0.1, epsilon=1e-3, **options)
        net = keras.Sequential([keras.Input((3,), dtype="int32"), keras.layers.Embedding(6, 2)])
        net.set_weights([table])
        net.compile(ago.build(spec, net, native=False), "mse")
        net.fit(ids, target, epochs=3, verbose=0)

        def gradient(parameters: list[np.ndarray]) -> list[np.ndarray]:
            total = np.zeros_like(table)
            np.add.at(total, ids[0], (parameters[0][ids[0]] - 1) / 3)
            return [total]

        # Losses go through float32 in Keras; 3 steps of 0.1.
        assert far(values(net), reference.run(spec, [table], gradient, [0.1] * 3)[-1]) < 1e-5


def test_keras_schedules_and_callbacks_move_every_group() -> None:
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 1, 0.5)
    net = model()
    optimizer = ago.build(ago.SGD(schedule, 0.9), net)
    for _ in range(4):
        optimizer.apply([keras.ops.convert_to_tensor(g) for g in GRADIENT(values(net))], net.trainable_variables)
    # A schedule is float32 in Keras: 6e-8 of steps that sum to less than 1.
    expected = reference.run(ago.SGD(0.1, 0.9), START, GRADIENT, [0.1, 0.05, 0.025, 0.0125])[-1]
    assert far(values(net), expected) < 1e-6

    # A schedule of a layer's own, and a rate that stays, beside the schedule of the others.
    steep = keras.optimizers.schedules.ExponentialDecay(0.4, 1, 0.25)
    for own, rates in ((steep, [0.4, 0.1, 0.025]), (0.3, [0.3] * 3)):
        net = model()
        optimizer = ago.build(ago.SGD(schedule, 0.9), ago.groups(net, {"head.bias": {"learning_rate": own}}))
        for _ in range(3):
            optimizer.apply([keras.ops.convert_to_tensor(g) for g in GRADIENT(START)], net.trainable_variables)
        kernel = reference.replay(ago.SGD(0.1, 0.9), START, [GRADIENT(START)] * 3, [0.1, 0.05, 0.025])[-1][0]
        bias = reference.replay(ago.SGD(0.1, 0.9), START, [GRADIENT(START)] * 3, rates)[-1][1]
        assert far(values(net), [kernel, bias]) < 1e-6

    net, before = network(), values(network())
    optimizer = ago.build(ago.SGD(0.01), ago.groups(net, {"head": {"learning_rate": 0.02}}))
    fit(net, optimizer, callbacks=[keras.callbacks.LearningRateScheduler(lambda epoch: 0.0)])
    assert far(values(net), before) == 0


def test_mixed_precision_with_a_loss_scale() -> None:
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("mixed_float16")
    net = network()
    scaled = keras.optimizers.LossScaleOptimizer(ago.build(ago.SGD(0.01, 0.9), net), initial_scale=1024.0)
    before = values(net)
    got = fit(net, scaled, jit=ENGINE == "jax")
    assert all(np.isfinite(v).all() for v in got)
    assert far(got, before) > 1e-3


def test_errors_say_what_to_do() -> None:
    net = network()
    with pytest.raises(UnknownName, match="did you mean 'head'"):
        ago.groups(net, {"haed": {"learning_rate": 0.1}})
    with pytest.raises(UnknownName, match="no layer matches"):
        ago.groups(net, {"enc/*": {"learning_rate": 0.1}})  # Keras' own MultiOptimizer ignores this
    with pytest.raises(InvalidInput, match="has no variables yet"):
        ago.build(ago.SGD(0.1), keras.Sequential([keras.layers.Dense(1)]))
    optimizer = ago.build(ago.SGD(0.1, 0.9), net)
    with pytest.raises(InvalidInput, match="is in no group"):
        optimizer.build(model().trainable_variables)
    with pytest.raises(InvalidInput, match="momentum buffer holds"):
        ago.build(ago.SGD(0.1, 0.9), net, native=True)
    # Keras' own takes no None.
    assert type(ago.build(ago.Adafactor(0.1, epsilon_place="added"), net)).__name__ == "RuleOptimizer"


def test_the_list_of_dicts_works_with_layers_and_variables() -> None:
    net = network()
    before = values(net)
    head, conv = net.get_layer("head"), net.get_layer("block1_conv1")
    still = {"params": net.get_layer("norm"), "lr": 0.0}
    dicts = [{"params": conv}, still, {"params": [head.kernel, head.bias], "lr": 0.1}]
    got = fit(net, ago.build(ago.SGD(0.01, 0.9), dicts))
    same = [np.array_equal(a, b) for a, b in zip(before, got, strict=True)]
    assert same == [False, True, True, False, False]


def test_every_engine_was_asked_for() -> None:
    assert os.environ["KERAS_BACKEND"] == ENGINE
    assert specs.KINDS.keys() == {cls.__name__ for cls, _ in CASES.values()} | {"Muon"}
