"""Programs of Keras models: what is read computes in NumPy what the model computes, and every engine reads the same.

The judge is tensorflow in float64, where both sides round each operation to u = 2^-53; the other engines, and a few
functions of tensorflow (constants, resizing), compute in float32 even so: an error of n u with u = 2^-24 for sums of n
products. Wrong attributes differ by 1e-3 and more.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers as kl
from keras import ops

import agnostic as ag
from agnostic.contracts.weights import WEIGHTS
from agnostic.program.evaluate import run, walk
from agnostic.program.nodes import Program
from agnostic_keras.taps import predict

ENGINE = keras.config.backend()
FLOAT32 = 512 * 2.0**-24
"""For the longest sum of these tests, 500 products."""


@pytest.fixture(autouse=True)
def _small_names() -> Iterator[None]:
    keras.backend.clear_session()
    yield
    keras.config.set_floatx("float32")


def numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).standard_normal(shape).astype(keras.config.floatx())


def shaken(model: keras.Model) -> keras.Model:
    """The model with other weights than initializers give: zeros and ones hide mistakes."""
    generator = np.random.default_rng(0)
    for weight in model.weights:
        if weight.name in ("gamma", "scale", "moving_variance", "variance"):
            weight.assign(generator.uniform(0.5, 1.5, weight.shape))
        elif weight.dtype.startswith("float"):
            weight.assign(keras.ops.convert_to_numpy(weight.value) + 0.1 * generator.standard_normal(weight.shape))
    return model


def compared(model: Any, inputs: Any, tolerance: float = FLOAT32) -> Program:
    """Read a model, run what was read, and compare it with the model."""
    program = ag.program(model, inputs)
    names = [leaf.name for leaf in program.of_role("input")]
    given = dict(zip(names, map(np.asarray, keras.tree.flatten(inputs)), strict=True))
    weights = ag.backend_of(model)[WEIGHTS].weights(model)
    for node, results in walk(program, given, weights):
        for value, result in zip(node.outputs, results, strict=True):
            assert np.shape(result) == value.shape, f"{node.operator}: the rule of shapes says {value.shape}"
    found = run(program, given, weights)
    # On jax each operation would be compiled by itself, if the model were called.
    compiled = ENGINE == "jax" and getattr(model, "inputs", None)
    results = model.predict(inputs, verbose=0) if compiled else predict(model, inputs)
    right = results if isinstance(results, dict) else dict(zip(found, keras.tree.flatten(results), strict=True))
    assert set(found) == set(right)
    for path, mine in found.items():
        theirs = np.asarray(ops.convert_to_numpy(right[path]), np.float64)
        error = np.abs(np.asarray(mine, np.float64) - theirs).max()
        assert error <= tolerance * max(1.0, np.abs(theirs).max()), f"{path}: {error}"
    return program


def image_layers() -> list[keras.Layer]:
    same: dict[str, Any] = {"padding": "same"}
    return [
        kl.Conv2D(4, 3, 2, activation="gelu", groups=2, **same), kl.Conv2D(4, (3, 2), dilation_rate=2, use_bias=False),
        kl.DepthwiseConv2D(3, 2, depth_multiplier=2, **same), kl.SeparableConv2D(4, 3, activation="relu"),
        kl.Conv2DTranspose(4, 3, 2, **same), kl.Conv2DTranspose(4, 3, 2, output_padding=1),
        kl.Conv2DTranspose(4, 2, 3), kl.Conv2DTranspose(4, 4, 2, activation="tanh", **same),
        kl.BatchNormalization(), kl.BatchNormalization(axis=1, scale=False), kl.GroupNormalization(3),
        kl.GroupNormalization(-1), kl.LayerNormalization(axis=[1, 3]), kl.UnitNormalization(), kl.Rescaling(2.0, -1.0),
        kl.Normalization(mean=[1.0] * 6, variance=[2.0] * 6), kl.MaxPooling2D(3, 2, **same), kl.MaxPooling2D((2, 3), 1),
        kl.AveragePooling2D((2, 3), 1), kl.GlobalAveragePooling2D(), kl.GlobalMaxPooling2D(keepdims=True),
        kl.AdaptiveAveragePooling2D((4, 3)), kl.AdaptiveMaxPooling2D(3), kl.PReLU(), kl.PReLU(shared_axes=[1, 2]),
        kl.Flatten(), kl.Flatten(data_format="channels_first"), kl.Reshape((4, -1)), kl.Permute((3, 1, 2)),
        kl.ZeroPadding2D(((1, 2), (0, 3))), kl.Cropping2D(((1, 2), (0, 3))), kl.UpSampling2D((2, 3)),
        kl.Resizing(13, 5, interpolation="nearest"), kl.Resizing(13, 5), kl.Resizing(5, 7, crop_to_aspect_ratio=True),
        kl.Resizing(5, 12, pad_to_aspect_ratio=True), kl.CenterCrop(4, 5), kl.RandomFlip(), kl.RandomRotation(0.1),
        kl.Dropout(0.3), kl.SpatialDropout2D(0.3), kl.GaussianNoise(0.1), kl.Identity(),
    ]  # fmt: skip


def sequence_layers() -> list[keras.Layer]:
    every: dict[str, Any] = {"return_sequences": True}
    return [
        kl.Conv1D(4, 3, padding="causal", dilation_rate=2), kl.Conv1D(4, 3, 2, padding="same"),
        kl.DepthwiseConv1D(3, depth_multiplier=2), kl.SeparableConv1D(4, 3), kl.Conv1DTranspose(4, 3, 2),
        kl.Dense(5, activation="silu"), kl.EinsumDense("abc,cd->abd", (None, 4), bias_axes="d"), kl.RMSNormalization(),
        kl.LayerNormalization(), kl.MaxPooling1D(2, padding="same"),
        kl.GlobalAveragePooling1D(), kl.AdaptiveAveragePooling1D(3), kl.Softmax(axis=(1, 2)), kl.ReLU(2.0, 0.1, 0.3),
        kl.LeakyReLU(0.2), kl.ELU(0.5), kl.UpSampling1D(2), kl.ZeroPadding1D(2), kl.Cropping1D(1),
        kl.LSTM(4), kl.LSTM(4, go_backwards=True, **every), kl.LSTM(4, activation="relu", use_bias=False),
        kl.GRU(4, **every), kl.GRU(4, reset_after=False), kl.SimpleRNN(4), kl.Bidirectional(kl.LSTM(4, **every)),
        kl.Bidirectional(kl.GRU(3), merge_mode="sum"), kl.RNN([kl.LSTMCell(4), kl.GRUCell(3)]),
        kl.TimeDistributed(kl.Dense(3)), kl.Masking(0.0), kl.SpectralNormalization(kl.Dense(4)),
        # On torch Keras cannot normalize an axis that is not the last.
        *([] if ENGINE == "torch" else [kl.LayerNormalization(axis=1)]),
        kl.Lambda(lambda x: x[:, ::2, None, 1] * 2 + ops.sin(x[:, 1:4, :1])),
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["images", "sequences"])
def test_each_layer_is_read_as_keras_computes_it(kind: str) -> None:
    if ENGINE == "tensorflow":
        keras.config.set_floatx("float64")
    x = numbers(2, 9, 8, 6) if kind == "images" else numbers(2, 5, 6)
    made = image_layers() if kind == "images" else sequence_layers()
    given = keras.Input(x.shape[1:])
    outputs = {f"{number} {layer.name}": layer(given) for number, layer in enumerate(made)}
    model = shaken(keras.Model(given, outputs))
    program = compared(model, x, tolerance=4e-6 if ENGINE == "tensorflow" else FLOAT32)
    # A layer of Keras' own that computes is named by its path; nothing here was called in a line of its own.
    assert {node.module for node in program.nodes} - {"", *(f"{layer.name}" for layer in made)} <= set(program.modules)


def test_float64_is_exact_where_the_engine_has_it() -> None:
    if ENGINE != "tensorflow":
        pytest.skip("computes many layers in float32 whatever their type")
    keras.config.set_floatx("float64")
    x = keras.Input((17, 15, 3))
    y = kl.Conv2D(8, 3, 2, padding="same")(x)
    y = kl.ReLU()(kl.BatchNormalization()(y))
    y = kl.Add()([kl.DepthwiseConv2D(3, padding="same")(y), y])
    y = kl.LSTM(5)(kl.Reshape((-1, 8))(kl.MaxPooling2D(2, padding="same")(y)))
    compared(shaken(keras.Model(x, kl.Dense(4, activation="softmax")(y))), numbers(2, 17, 15, 3), 500 * 2.0**-53)


def small() -> keras.Model:
    x = keras.Input((9, 8, 3), name="image")
    inner = keras.Sequential([keras.Input((5, 4, 4)), kl.DepthwiseConv2D(3, name="depthwise"), kl.ReLU()], name="inner")
    shared = kl.Dense(4, name="shared")
    y = kl.BatchNormalization(name="bn")(kl.Conv2D(4, 3, 2, padding="same", name="conv")(x))
    y = shared(kl.Dropout(0.5, name="drop")(shared(inner(y))))
    return keras.Model(x, ops.mean(y, axis=(1, 2)) * 2.0, name="small")


SMALL = """\
small (keras): 13 operators, 180 parameters, 10,696 floating-point operations
input image: 2 x 9 x 8 x 3 float32
conv: Conv2D
  %1 = permute(conv.kernel) axes=(3, 2, 0, 1)
  %2 = convolution(image, %1, conv.bias) stride=2 x 2 padding=(2 x 1, (0, 1)) dilation=2 x 1 channel_axis=-1 same=True
bn: BatchNormalization
  %3 = batch_norm(%2, bn.moving_mean, bn.moving_variance, bn.gamma, bn.beta) epsilon=0.001 channel_axis=-1 momentum=0.01
inner.depthwise: DepthwiseConv2D
  %4 = permute(inner.depthwise.kernel) axes=(2, 3, 0, 1)
  %5 = convolution(%3, %4, inner.depthwise.bias) groups=4 stride=2 x 1 padding=2 x 2 x 0 dilation=2 x 1 channel_axis=-1
"""


def test_every_engine_reads_the_same_program_and_leaves_no_trace() -> None:
    model = small()
    layer = model.get_layer("shared")
    before = len(layer._inbound_nodes), len(layer._outbound_nodes)
    text = str(ag.program(model, np.zeros((2, 9, 8, 3), np.float32)))
    shown = [
        line[: line.rfind("  ")].rstrip() if line.startswith("  ") else line.partition("  ")[0]
        for line in text.splitlines()
    ]
    lines = Path(__file__).read_text().splitlines()
    made = next(k for k, line in enumerate(lines, 1) if 'name="conv")' in line)
    assert f"conv: Conv2D  {__file__}:{made}" in text.splitlines()
    assert shown[: SMALL.count("\n")] == SMALL.splitlines()
    assert (len(layer._inbound_nodes), len(layer._outbound_nodes)) == before
    compared(model, numbers(2, 9, 8, 3))


class Block(keras.layers.Layer):
    """Weights of its own, arithmetic between weights, operators of Python, and a layer inside."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.inside = kl.Dense(4)

    def build(self, shape: Any) -> None:
        self.a = self.add_weight(shape=(4,), name="a")
        self.b = self.add_weight(shape=(4,), name="b", trainable=False)
        self.inside.build(shape)

    def call(self, x: Any, scale: Any = 1.0) -> Any:
        w = self.a * 2 + self.b
        y = self.inside(x) @ ops.outer(w, self.a + 0)
        return {"y": (1 - y) * ops.cast(scale, x.dtype), "w": ops.where(y > 0, w, -y)}


class Two(keras.Model):
    """A subclassed model with two inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.block = Block()

    def call(self, x: Any, scale: Any) -> Any:
        found = self.block(x, scale=scale)
        return found["y"] + found["w"], [x[..., -1], found["w"]]


def test_subclassed_models_are_read_by_running_them_with_lines() -> None:
    model = Two()
    inputs = (numbers(2, 3, 4), np.float32([[[2.0]], [[3.0]]]))
    model(*inputs)
    program = compared(shaken(model), inputs)
    assert [leaf.name for leaf in program.of_role("input")] == ["x", "scale"]
    assert [path for path, _ in program.outputs] == ["0", "1.0", "1.1"]
    assert {leaf.name: leaf.role for leaf in program.leaves if "block.a" in leaf.name or "block.b" in leaf.name} == {
        "block.a": "parameter",
        "block.b": "buffer",
    }
    linear = next(node for node in program.nodes if node.operator == "linear")
    assert linear.module == "block.dense"
    assert linear.file == __file__
    assert "self.inside(x)" in Path(__file__).read_text().splitlines()[(linear.line or 1) - 1]


def test_masks_go_where_keras_sends_them() -> None:
    ids = np.array([[1, 2, 0, 3, 0], [4, 0, 0, 6, 5]])
    given = keras.Input((5,), dtype="int32")
    x = kl.Embedding(9, 4, mask_zero=True)(given)
    outputs = [
        kl.LSTM(3, return_sequences=True)(x), kl.Bidirectional(kl.GRU(3))(x), kl.MultiHeadAttention(2, 3)(x, x),
        kl.GlobalAveragePooling1D()(x), kl.Attention(use_scale=True)([x, x]), kl.AdditiveAttention()([x, x]),
        kl.MultiHeadAttention(2, 3)(x, x, use_causal_mask=True), kl.GroupQueryAttention(3, 4, 2)(x, x),
        kl.CategoryEncoding(9, output_mode="multi_hot")(given), kl.Dot((1, 1), normalize=True)([x, x]),
    ]  # fmt: skip
    compared(shaken(keras.Model(given, outputs)), ids)


def test_operations_of_functional_graphs_are_read() -> None:
    a, b = keras.Input((5, 6), name="a"), keras.Input((5, 6), name="b")
    y = ops.einsum("...ij,...kj->...ik", a, b)
    outputs = {
        "sums": ops.logsumexp(y, axis=-1) + ops.std(y, axis=-1) - ops.max(ops.cumsum(y, axis=1), axis=-1),
        "parts": ops.concatenate([part[:, ::2] for part in ops.split(y, [2, 3], axis=2)], axis=-1),
        "sorted": ops.sort(y, axis=1) * ops.cast(ops.argmax(y, axis=-1, keepdims=True), "float32"),
        "moved": ops.moveaxis(ops.stack([a, b], axis=1), (1, 3), (3, 1)),
        "top": ops.top_k(a, 2)[0] + ops.take_along_axis(a, ops.argsort(b, axis=-1), axis=-1)[..., :2],
        "rolled": ops.pad(ops.roll(a, 1, axis=2), ((0, 0), (1, 0), (0, 2)), mode="reflect"),
        "logic": ops.where(ops.logical_or(a > b, ops.isnan(a)), ops.clip(a, -0.5, 1.0), ops.divide_no_nan(b, a)),
        "norms": ops.matmul(ops.swapaxes(ops.normalize(a), 1, 2), ops.sqrt(ops.sum(ops.square(b), -1, keepdims=True))),
        "hot": ops.one_hot(ops.cast(ops.clip(ops.round(a), 0, 2), "int32"), 3) * ops.tril(ops.ones((6, 3))),
        "heads": ops.dot_product_attention(*(ops.reshape(x, (-1, 5, 2, 3)) for x in (a, b, a + b)), is_causal=True),
        "waves": ops.rfft(a)[1] ** 2 + ops.tensordot(b, ops.arange(24.0).reshape(6, 4) if ENGINE != "tensorflow"
                                                      else ops.reshape(ops.arange(24.0), (6, 4)), axes=1),
        "last": ops.tile(ops.flip(a, axis=1), (1, 2, 1)) + ops.repeat(b, 2, axis=1)[:, ..., None, 0],
    }  # fmt: skip
    program = compared(keras.Model([a, b], outputs), [numbers(2, 5, 6), numbers(2, 5, 6)[::-1].copy()])
    assert [leaf.name for leaf in program.of_role("input")] == ["a", "b"]


class Around(keras.Model):
    """A model of one layer, which is called with values first."""

    def __init__(self, layer: keras.Layer, **options: Any) -> None:
        super().__init__()
        self.layer, self.options = layer, options

    def call(self, x: Any) -> Any:
        return self.layer(x, **self.options)


class Branch(keras.layers.Layer):
    def call(self, x: Any) -> Any:
        if ops.sum(x) > 0:  # the line that the message names
            return x
        return -x


class Draws(keras.layers.Layer):
    def call(self, x: Any) -> Any:
        return x + keras.random.normal((2, 4))


class Unknown(keras.layers.Layer):
    def call(self, x: Any) -> Any:
        return ops.view(x, "int32")


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (Branch(name="cut"), (2, 4), r"layer 'cut' \(Branch\), .*test_program\.py:\d+.*without branches on values"),
        (Draws(name="noise"), (2, 4), r"random numbers are drawn in inference: layer 'noise' \(Draws\), .*\.py:\d+"),
        (Unknown(name="odd"), (2, 4, 4), r"operator View reads the bits.*: layer 'odd' \(Unknown\), .*\.py:\d+"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_layer_and_line(layer: Any, shape: tuple[int, ...], message: str) -> None:
    model = Around(layer)
    model(np.ones(shape, np.float32) + np.eye(4, dtype=np.float32)[: shape[-2]])
    with pytest.raises(ag.InvalidInput, match=message):
        ag.program(model, np.ones(shape, np.float32))


def test_batch_norm_in_training_is_read_as_such() -> None:
    model = Around(kl.BatchNormalization(), training=True)
    model(numbers(3, 4))
    before = [np.array(keras.ops.convert_to_numpy(w.value)) for w in model.weights]
    program = ag.program(model, numbers(3, 4))
    assert [node.operator for node in program.nodes] == ["batch_norm_training"]
    for old, weight in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(old, keras.ops.convert_to_numpy(weight.value))


@pytest.mark.parametrize("name", ["MobileNetV2"])
def test_networks_of_keras_are_read_whole(name: str) -> None:
    model = getattr(keras.applications, name)(weights=None, input_shape=(32, 32, 3), alpha=0.35, classes=10)
    program = compared(shaken(model), numbers(2, 32, 32, 3), tolerance=32 * FLOAT32)
    names = {leaf.name for leaf in program.of_role("parameter", "buffer")}
    assert names == set(ag.backend_of(model)[WEIGHTS].weights(model))
    assert Path(__file__).name not in str(program)
