"""Small networks as users write them in Keras, for :mod:`tests.compare.keras_mutations` to break."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers, ops


def causal() -> keras.Model:
    x = inputs = keras.Input((12, 4))
    skips = []
    for rate in (1, 2, 4):
        tanh = layers.Conv1D(6, 2, padding="causal", dilation_rate=rate, activation="tanh")(x)
        gate = layers.Conv1D(6, 2, padding="causal", dilation_rate=rate, activation="sigmoid")(x)
        joined = layers.Multiply()([tanh, gate])
        skips.append(layers.Conv1D(5, 1)(joined))
        x = layers.Add()([layers.Conv1D(4, 1)(joined), x])
    y = layers.ReLU()(layers.Add()(skips))
    y = layers.AveragePooling1D(2)(y)
    return keras.Model(inputs, layers.Conv1D(3, 1, activation="softmax")(y))


def video() -> keras.Model:
    x = inputs = keras.Input((4, 8, 8, 3))
    x = layers.Conv3D(6, 3, strides=(1, 2, 2), padding="same", use_bias=False)(x)
    x = layers.BatchNormalization(epsilon=1e-3)(x)
    x = layers.Activation("swish")(x)
    x = layers.MaxPooling3D((2, 1, 1))(x)
    x = layers.TimeDistributed(layers.Conv2D(4, 3, padding="same", activation="relu"))(x)
    x = layers.GlobalAveragePooling3D()(x)
    return keras.Model(inputs, layers.Dense(3)(x))


def siamese() -> keras.Model:
    x = image = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, activation="relu")(x)
    x = layers.MaxPooling2D(2)(x)
    x = layers.Conv2D(8, 3, padding="same", activation="elu")(x)
    x = layers.Flatten()(x)
    encoder = keras.Model(image, layers.Dense(7)(x))
    left, right = keras.Input((8, 8, 3)), keras.Input((8, 8, 3))
    a, b = encoder(left), encoder(right)
    a, b = layers.UnitNormalization()(a), layers.UnitNormalization()(b)
    both = layers.Concatenate()([ops.abs(a - b), a * b])
    return keras.Model([left, right], layers.Dense(1, activation="sigmoid")(both))


def tagger() -> keras.Model:
    tokens = keras.Input((7,), dtype="int32")
    x = layers.Embedding(20, 6, mask_zero=True)(tokens)
    x = layers.Bidirectional(layers.LSTM(5, return_sequences=True))(x)
    x = layers.LayerNormalization(epsilon=1e-3)(x)
    x = layers.Dense(6, activation="tanh")(x)
    return keras.Model(tokens, layers.TimeDistributed(layers.Dense(4, activation="softmax"))(x))


def sentiment() -> keras.Model:
    return keras.Sequential([
        keras.Input((7,), dtype="int32"),
        layers.Embedding(20, 6, mask_zero=True),
        layers.GRU(6, return_sequences=True),
        layers.GlobalAveragePooling1D(),
        layers.Dense(8, activation="gelu"),
        layers.Dense(3),
    ])  # fmt: skip


def translation() -> keras.Model:
    source, target = keras.Input((6,), dtype="int32"), keras.Input((5,), dtype="int32")
    x = layers.Embedding(20, 6)(source)
    _, h, c = layers.LSTM(8, return_state=True)(x)
    y = layers.Embedding(20, 6)(target)
    y = layers.LSTM(8, return_sequences=True)(y, initial_state=[h, c])
    return keras.Model([source, target], layers.Dense(20)(y))


def encoder() -> keras.Model:
    tokens = keras.Input((7,), dtype="int32")
    position = layers.Embedding(7, 8)(ops.cumsum(ops.ones_like(tokens), axis=1) - 1)
    x = layers.Embedding(20, 8, mask_zero=True)(tokens) + position
    y = layers.MultiHeadAttention(num_heads=2, key_dim=4)(x, x)
    x = layers.LayerNormalization(epsilon=1e-6)(layers.Add()([x, y]))
    y = layers.Dense(12, activation="gelu")(x)
    y = layers.Dense(8)(y)
    x = layers.LayerNormalization(epsilon=1e-6)(layers.Add()([x, y]))
    return keras.Model(tokens, layers.Dense(3)(x[:, 0]))


def decoder() -> keras.Model:
    tokens, memory = keras.Input((5,), dtype="int32"), keras.Input((6, 8))
    x = layers.Embedding(20, 8)(tokens)
    y = layers.LayerNormalization()(x)
    x = x + layers.MultiHeadAttention(2, 4)(y, y, use_causal_mask=True)
    y = layers.LayerNormalization()(x)
    x = x + layers.MultiHeadAttention(2, 3)(y, memory, memory)
    y = layers.LayerNormalization()(x)
    x = x + layers.Dense(8)(layers.Dense(12, activation="relu")(y))
    return keras.Model([tokens, memory], layers.Dense(20)(x))


def unet() -> keras.Model:
    def block(x: Any, filters: int) -> Any:
        x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
        x = layers.BatchNormalization(epsilon=1e-3)(x)
        return layers.Activation("relu")(x)

    x = inputs = keras.Input((8, 8, 3))
    one = block(x, 6)
    two = block(layers.MaxPooling2D(2)(one), 8)
    x = block(layers.AveragePooling2D(2)(two), 8)
    x = layers.Conv2DTranspose(8, 3, strides=2, padding="same")(x)
    x = block(layers.Concatenate()([x, two]), 6)
    x = layers.UpSampling2D(2, interpolation="bilinear")(x)
    x = layers.Concatenate()([x, one])
    return keras.Model(inputs, layers.Conv2D(2, 1, activation="sigmoid")(x))


def squeeze() -> keras.Model:
    x = inputs = keras.Input((9, 9, 3))
    x = layers.ZeroPadding2D(((1, 1), (1, 1)))(x)
    x = layers.Conv2D(8, 3, strides=2, use_bias=False)(x)
    x = layers.GroupNormalization(4, epsilon=1e-3)(x)
    x = ops.hard_silu(x)
    y = layers.DepthwiseConv2D(3, padding="same")(x)
    s = layers.GlobalAveragePooling2D(keepdims=True)(y)
    s = layers.Conv2D(4, 1, activation="relu")(s)
    s = layers.Conv2D(8, 1, activation="hard_sigmoid")(s)
    y = layers.Multiply()([y, s])
    x = layers.Add()([x, y])
    x = layers.SeparableConv2D(6, 3, strides=2, padding="same", activation="relu6")(x)
    return keras.Model(inputs, layers.Dense(4)(layers.GlobalMaxPooling2D()(x)))


def prepared() -> keras.Model:
    x = inputs = keras.Input((10, 10, 3))
    x = layers.Rescaling(1 / 127.5, offset=-1.0)(x)
    x = layers.Resizing(8, 8, interpolation="bilinear")(x)
    x = layers.Normalization(mean=(0.1, 0.2, 0.3), variance=(0.5, 0.6, 0.7))(x)
    x = layers.Conv2D(6, 3, padding="same", strides=2)(x)
    x = layers.LeakyReLU(negative_slope=0.2)(x)
    x = layers.AveragePooling2D(3, strides=1, padding="same")(x)
    x = layers.Dropout(0.5)(layers.Flatten()(x))
    return keras.Model(inputs, layers.Dense(4)(x))


def table() -> keras.Model:
    numbers, city = keras.Input((5,), name="numbers"), keras.Input((1,), dtype="int32", name="city")
    x = layers.Normalization(mean=0.2, variance=1.5)(numbers)
    c = layers.Flatten()(layers.Embedding(9, 4)(city))
    x = layers.Concatenate()([layers.Dense(4, activation="selu")(x), c])
    y = layers.Dense(8, activation="relu")(x)
    y = layers.BatchNormalization()(y)
    x = layers.Maximum()([layers.Dense(8)(x), y])
    return keras.Model({"numbers": numbers, "city": city}, layers.Dense(1)(x))


def inception() -> keras.Model:
    x = inputs = keras.Input((8, 8, 4))
    one = layers.Conv2D(4, 1, activation="relu")(x)
    two = layers.Conv2D(4, (1, 3), padding="same", activation="relu")(x)
    two = layers.Conv2D(4, (3, 1), padding="same", activation="relu")(two)
    three = layers.AveragePooling2D(3, 1, padding="same")(x)
    three = layers.Conv2D(4, 1, activation="relu")(three)
    four = layers.Conv2D(4, 3, dilation_rate=2, padding="same", activation="relu")(x)
    x = layers.Concatenate(axis=-1)([one, two, three, four])
    x = layers.Conv2D(8, 3, groups=4, padding="same")(x) * 0.3
    x = layers.PReLU(shared_axes=(1, 2))(x)
    x = layers.Cropping2D(((1, 0), (0, 1)))(x)
    return keras.Model(inputs, layers.GlobalAveragePooling2D()(x))


def pooling() -> keras.Model:
    x = inputs = keras.Input((6, 8))
    h = layers.Bidirectional(layers.GRU(4, return_sequences=True))(x)
    scores = layers.Dense(1)(layers.Dense(5, activation="tanh")(h))
    weights = layers.Softmax(axis=1)(scores)
    y = layers.Flatten()(layers.Dot(axes=1)([weights, h]))
    z = layers.Permute((2, 1))(x)
    z = layers.Dense(6, activation="mish")(z)
    z = layers.Permute((2, 1))(z)
    z = layers.GlobalMaxPooling1D()(layers.Add()([x, z]))
    y = layers.RepeatVector(3)(layers.Concatenate()([y, z]))
    return keras.Model(inputs, layers.SimpleRNN(5)(y))


@keras.saving.register_keras_serializable("tests")
class Patches(layers.Layer):
    def __init__(self, width: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.width, self.projection = width, layers.Conv2D(width, 4, strides=4)

    def build(self, shape: Any) -> None:
        self.projection.build(shape)
        count = (shape[1] // 4) * (shape[2] // 4)
        self.token = self.add_weight(shape=(1, 1, self.width), name="token")
        self.position = self.add_weight(shape=(1, count + 1, self.width), name="position")

    def call(self, x: Any) -> Any:
        x = self.projection(x)
        x = ops.reshape(x, (ops.shape(x)[0], -1, self.width))
        token = ops.broadcast_to(self.token, (ops.shape(x)[0], 1, self.width))
        return ops.concatenate([token, x], axis=1) + self.position


@keras.saving.register_keras_serializable("tests")
class Block(layers.Layer):
    def __init__(self, width: int, heads: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.heads = heads
        self.norm1, self.norm2 = layers.LayerNormalization(epsilon=1e-6), layers.LayerNormalization(epsilon=1e-6)
        self.qkv, self.out = layers.Dense(3 * width), layers.Dense(width)
        self.up, self.down = layers.Dense(2 * width), layers.Dense(width)

    def build(self, shape: Any) -> None:
        width = shape[-1]
        for layer in (self.norm1, self.norm2, self.qkv, self.out, self.up):
            layer.build(shape)
        self.down.build((*shape[:-1], 2 * width))

    def call(self, x: Any) -> Any:
        _, length, width = x.shape
        y = ops.reshape(self.qkv(self.norm1(x)), (-1, length, 3, self.heads, width // self.heads))
        q, k, v = ops.unstack(ops.transpose(y, (2, 0, 3, 1, 4)), axis=0)
        scores = ops.matmul(q, ops.transpose(k, (0, 1, 3, 2))) * (width // self.heads) ** -0.5
        scores = ops.softmax(scores, axis=-1)
        y = ops.reshape(ops.transpose(ops.matmul(scores, v), (0, 2, 1, 3)), (-1, length, width))
        x = x + self.out(y)
        y = self.norm2(x)
        y = keras.activations.gelu(self.up(y), approximate=False)
        return x + self.down(y)


@keras.saving.register_keras_serializable("tests")
class Vision(keras.Model):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.patches = Patches(12)
        self.blocks = [Block(12, 3, name="block_0"), Block(12, 3, name="block_1")]
        self.norm, self.head = layers.LayerNormalization(epsilon=1e-6), layers.Dense(4)

    def call(self, x: Any) -> Any:
        x = self.patches(x)
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        return self.head(x[:, 0])


def vision() -> keras.Model:
    model = Vision()
    model(np.zeros((1, 8, 8, 3), np.float32))
    return model


def _draw(*shape: int) -> Callable[[], Any]:
    return lambda: np.random.default_rng(1).standard_normal(shape).astype(np.float32)


def _tokens(*shape: int) -> Any:
    found = np.random.default_rng(1).integers(1, 9, shape).astype(np.int32)
    found[0, -2:] = 0
    return found


NETWORKS: dict[str, tuple[Callable[[], keras.Model], Callable[[], Any]]] = {
    "causal": (causal, _draw(2, 12, 4)),
    "video": (video, _draw(2, 4, 8, 8, 3)),
    "siamese": (siamese, lambda: (_draw(2, 8, 8, 3)(), _draw(2, 8, 8, 3)()[:, ::-1].copy())),
    "tagger": (tagger, lambda: _tokens(2, 7)),
    "sentiment": (sentiment, lambda: _tokens(2, 7)),
    "translation": (translation, lambda: (_tokens(2, 6), _tokens(2, 5))),
    "encoder": (encoder, lambda: _tokens(2, 7)),
    "decoder": (decoder, lambda: (_tokens(2, 5), _draw(2, 6, 8)())),
    "unet": (unet, _draw(2, 8, 8, 3)),
    "squeeze": (squeeze, _draw(2, 9, 9, 3)),
    "prepared": (prepared, lambda: 40 * _draw(2, 10, 10, 3)()),
    "table": (table, lambda: {"numbers": _draw(3, 5)(), "city": np.array([[1], [5], [7]], np.int32)}),
    "inception": (inception, _draw(2, 8, 8, 4)),
    "pooling": (pooling, _draw(2, 6, 8)),
    "vision": (vision, _draw(2, 8, 8, 3)),
}
"""By name: makes the network, and its inputs."""


def weights(model: keras.Model) -> list[Any]:
    """Numbers for the weights of a network, none of them a default."""
    rng, found = np.random.default_rng(3), []
    for variable in model.weights:
        size = tuple(variable.shape)
        if not variable.dtype.startswith("float"):
            found.append(np.array(variable))
        elif variable.name in ("moving_variance", "gamma", "alpha"):
            found.append(rng.uniform(0.5, 1.5, size))
        elif variable.name in ("mean", "variance", "count"):
            found.append(keras.ops.convert_to_numpy(variable.value))
        else:
            found.append(rng.normal(size=size) / np.sqrt(max(np.prod(size[:-1]), 1.0) if len(size) > 1 else 4.0))
    return found
