"""Small models, each in both frameworks: every kind of layer that both share, and the traps that each has.

A pair is (PyTorch's, Keras', shape of the inputs without the batch, channels last; an int is a length of tokens).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import torch
from keras import layers as kl
from torch import Tensor, nn

Pair = tuple[Callable[[], Any], Callable[[], Any], Any]
PAIRS: dict[str, Pair] = {}


def pair(shape: Any) -> Callable[[Callable[[], tuple[Any, Any]]], Callable[[], tuple[Any, Any]]]:
    """Register a function that makes both models under its own name."""

    def keep(make: Callable[[], tuple[Any, Any]]) -> Callable[[], tuple[Any, Any]]:
        PAIRS[make.__name__] = (lambda: make()[0], lambda: make()[1], shape)
        return make

    return keep


def keras_model(shape: Any, *layers: Any) -> Any:
    entrance = keras.Input((shape,), dtype="int32") if isinstance(shape, int) else keras.Input(shape)
    x = entrance
    for layer in layers:
        x = layer(x)
    return keras.Model(entrance, x)


class Pool(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(tuple(range(2, x.ndim)))


class Only(nn.Module):
    """What a recurrent layer or an attention returns first."""

    def __init__(self, inner: nn.Module, last: bool = False) -> None:
        super().__init__()
        self.inner, self.last = inner, last

    def forward(self, x: Tensor) -> Tensor:
        out = self.inner(x, x, x)[0] if isinstance(self.inner, nn.MultiheadAttention) else self.inner(x)[0]
        return out[:, -1] if self.last else out


@pair((20, 3))
def conv1d() -> tuple[Any, Any]:
    there = nn.Sequential(
        nn.Conv1d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv1d(8, 8, 5, stride=2), nn.Tanh(),
        nn.Conv1d(8, 6, 3, dilation=2), Pool(), nn.Linear(6, 4),
    )  # fmt: skip
    here = keras_model(
        (20, 3), kl.Conv1D(8, 3, padding="same", activation="relu"), kl.Conv1D(8, 5, 2, activation="tanh"),
        kl.Conv1D(6, 3, dilation_rate=2), kl.GlobalAveragePooling1D(), kl.Dense(4),
    )  # fmt: skip
    return there, here


@pair((13, 12, 3))
def conv2d_with_norm_and_fused_activations() -> tuple[Any, Any]:
    there = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8, eps=1e-3), nn.ReLU(inplace=True), nn.MaxPool2d(2),
        nn.Conv2d(8, 12, (3, 2), padding="same"), nn.SiLU(), nn.Conv2d(12, 5, 1), Pool(),
    )  # fmt: skip
    here = keras_model(
        (13, 12, 3), kl.Conv2D(8, 3, use_bias=False), kl.BatchNormalization(), kl.ReLU(), kl.MaxPooling2D(2),
        kl.Conv2D(12, (3, 2), padding="same", activation="silu"), kl.Conv2D(5, 1), kl.GlobalAveragePooling2D(),
    )  # fmt: skip
    return there, here


@pair((6, 7, 8, 2))
def conv3d() -> tuple[Any, Any]:
    there = nn.Sequential(
        nn.Conv3d(2, 4, 3), nn.ReLU(), nn.BatchNorm3d(4, eps=1e-3), nn.Conv3d(4, 3, (1, 2, 3), (1, 2, 1))
    )
    here = keras_model(
        (6, 7, 8, 2), kl.Conv3D(4, 3, activation="relu"), kl.BatchNormalization(), kl.Conv3D(3, (1, 2, 3), (1, 2, 1))
    )
    return there, here


@pair((9, 9, 4))
def grouped_and_depthwise() -> tuple[Any, Any]:
    there = nn.Sequential(
        nn.Conv2d(4, 8, 3, groups=2),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, groups=8),
        nn.ReLU(),
        nn.Conv2d(16, 16, 1, groups=16),
    )
    here = keras_model(
        (9, 9, 4), kl.Conv2D(8, 3, groups=2, activation="relu"),
        kl.DepthwiseConv2D(3, depth_multiplier=2, activation="relu"), kl.Conv2D(16, 1, groups=16),
    )  # fmt: skip
    return there, here


@pair((10, 4))
def depthwise_1d() -> tuple[Any, Any]:
    there = nn.Sequential(nn.Conv1d(4, 12, 3, groups=4), nn.Conv1d(12, 3, 1))
    return there, keras_model((10, 4), kl.DepthwiseConv1D(3, depth_multiplier=3), kl.Conv1D(3, 1))


@pair((9, 8, 3))
def separable() -> tuple[Any, Any]:
    there = nn.Sequential(
        nn.Conv2d(3, 6, 3, groups=3, bias=False), nn.Conv2d(6, 5, 1), nn.ReLU(),
        nn.Conv2d(5, 5, 3, padding=1, groups=5, bias=False), nn.Conv2d(5, 4, 1),
    )  # fmt: skip
    here = keras_model(
        (9, 8, 3),
        kl.SeparableConv2D(5, 3, depth_multiplier=2, activation="relu"),
        kl.SeparableConv2D(4, 3, padding="same"),
    )
    return there, here


@pair((5, 6, 4))
def transposed() -> tuple[Any, Any]:
    there = nn.Sequential(
        nn.ConvTranspose2d(4, 6, 3, stride=2), nn.ReLU(), nn.ConvTranspose2d(6, 4, 2, stride=2, groups=2, bias=False)
    )
    here = keras_model(
        (5, 6, 4), kl.Conv2DTranspose(6, 3, 2, activation="relu"), kl.Conv2DTranspose(4, 2, 2, use_bias=False)
    )
    return there, here


@pair((5, 4))
def transposed_1d() -> tuple[Any, Any]:
    there = nn.Sequential(nn.ConvTranspose1d(4, 3, 3, stride=2), nn.ConvTranspose1d(3, 2, 3))
    return there, keras_model((5, 4), kl.Conv1DTranspose(3, 3, 2), kl.Conv1DTranspose(2, 3))


@pair((3, 4, 5, 2))
def transposed_3d() -> tuple[Any, Any]:
    return nn.Sequential(nn.ConvTranspose3d(2, 3, (2, 3, 2), stride=2)), keras_model(
        (3, 4, 5, 2), kl.Conv3DTranspose(3, (2, 3, 2), 2)
    )


@pair((6, 5, 3))
def flatten() -> tuple[Any, Any]:
    there = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 7), nn.ReLU(), nn.Linear(7, 3))
    here = keras_model((6, 5, 3), kl.Conv2D(4, 3, activation="relu"), kl.Flatten(), kl.Dense(7, "relu"), kl.Dense(3))
    return there, here


@pair((6, 5, 3))
def flatten_with_norms() -> tuple[Any, Any]:
    there = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.BatchNorm1d(8, eps=1e-3),
        nn.LayerNorm(8, eps=1e-3),
        nn.Linear(8, 3),
    )
    here = keras_model(
        (6, 5, 3),
        kl.Conv2D(4, 3),
        kl.MaxPooling2D(2),
        kl.Flatten(),
        kl.BatchNormalization(),
        kl.LayerNormalization(),
        kl.Dense(3),
    )
    return there, here


@pair((6, 5, 4))
def norms() -> tuple[Any, Any]:
    there = nn.Sequential(
        nn.Conv2d(4, 8, 1), nn.GroupNorm(2, 8, eps=1e-3), nn.InstanceNorm2d(8, eps=1e-3, affine=True),
        nn.Conv2d(8, 6, 1), nn.LayerNorm((6, 6, 5), eps=1e-3), nn.BatchNorm2d(6, eps=1e-3, affine=False),
        nn.BatchNorm2d(6, eps=1e-3),
    )  # fmt: skip
    here = keras_model(
        (6, 5, 4), kl.Conv2D(8, 1), kl.GroupNormalization(2), kl.GroupNormalization(-1), kl.Conv2D(6, 1),
        kl.LayerNormalization(axis=[1, 2, 3]), kl.BatchNormalization(center=False, scale=False),
        kl.BatchNormalization(),
    )  # fmt: skip
    return there, here


@pair((7, 6))
def root_mean_square_norm() -> tuple[Any, Any]:
    there = nn.Sequential(nn.Linear(6, 8), nn.RMSNorm(8, eps=1e-6), nn.Linear(8, 3))
    return there, keras_model((7, 6), kl.Dense(8), kl.RMSNormalization(epsilon=1e-6), kl.Dense(3))


@pair(11)
def embedding_and_lstm() -> tuple[Any, Any]:
    there = nn.Sequential(nn.Embedding(50, 8), Only(nn.LSTM(8, 6, batch_first=True), last=True), nn.Linear(6, 2))
    return there, keras_model(11, kl.Embedding(50, 8), kl.LSTM(6), kl.Dense(2))


@pair((9, 5))
def stacked_lstm() -> tuple[Any, Any]:
    there = nn.Sequential(Only(nn.LSTM(5, 6, num_layers=3, batch_first=True)), nn.Linear(6, 2))
    stack = [kl.LSTM(6, return_sequences=True) for _ in range(3)]
    return there, keras_model((9, 5), *stack, kl.Dense(2))


@pair((9, 5))
def gru() -> tuple[Any, Any]:
    there = nn.Sequential(Only(nn.GRU(5, 6, batch_first=True)), nn.Linear(6, 2))
    return there, keras_model((9, 5), kl.GRU(6, return_sequences=True), kl.Dense(2))


@pair((9, 5))
def bidirectional_stacked_gru() -> tuple[Any, Any]:
    there = nn.Sequential(Only(nn.GRU(5, 4, num_layers=2, bidirectional=True, batch_first=True)), nn.Linear(8, 2))
    stack = [kl.Bidirectional(kl.GRU(4, return_sequences=True)) for _ in range(2)]
    return there, keras_model((9, 5), *stack, kl.Dense(2))


@pair((9, 5))
def simple_rnn_without_bias() -> tuple[Any, Any]:
    there = nn.Sequential(Only(nn.RNN(5, 6, batch_first=True, bias=False)), Only(nn.RNN(6, 4, batch_first=True)))
    return there, keras_model(
        (9, 5), kl.SimpleRNN(6, use_bias=False, return_sequences=True), kl.SimpleRNN(4, return_sequences=True)
    )


@pair((7, 8))
def attention() -> tuple[Any, Any]:
    there = nn.Sequential(
        nn.LayerNorm(8, eps=1e-3), Only(nn.MultiheadAttention(8, 2, batch_first=True)), nn.Linear(8, 3)
    )
    entrance = keras.Input((7, 8))
    x = kl.LayerNormalization()(entrance)
    x = kl.MultiHeadAttention(2, 4)(x, x)
    return there, keras.Model(entrance, kl.Dense(3)(x))


class Scores(nn.Module):
    """Attention of one's own, with a weight that is no layer: a scale, or a vector that sums a tanh."""

    def __init__(self, additive: bool) -> None:
        super().__init__()
        self.additive = additive
        self.scale = nn.Parameter(torch.ones(8) if additive else torch.tensor(1.7))

    def forward(self, x: Tensor) -> Tensor:
        if self.additive:
            scores = (self.scale * torch.tanh(x[:, :, None] + x[:, None])).sum(-1)
        else:
            scores = self.scale * x @ x.transpose(1, 2)
        return scores.softmax(-1) @ x


@pair((7, 6))
def attention_with_a_bare_weight() -> tuple[Any, Any]:
    there = nn.Sequential(nn.Linear(6, 8), Scores(False), nn.Linear(8, 8), Scores(True), nn.Linear(8, 3))
    entrance = keras.Input((7, 6))
    x = kl.Dense(8)(entrance)
    x = kl.Dense(8)(kl.Attention(use_scale=True)([x, x]))
    return there, keras.Model(entrance, kl.Dense(3)(kl.AdditiveAttention()([x, x])))


class GroupedQueries(nn.Module):
    """Four heads of queries to two of keys and values, of PyTorch's function, which has no module."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(8, 16), nn.Linear(8, 8), nn.Linear(8, 8)
        self.out = nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        heads = [f(x).unflatten(-1, (-1, 4)).transpose(1, 2) for f in (self.q, self.k, self.v)]
        y = nn.functional.scaled_dot_product_attention(*heads, enable_gqa=True)
        out: Tensor = self.out(y.transpose(1, 2).flatten(2))
        return out


@pair((7, 8))
def grouped_query_attention() -> tuple[Any, Any]:
    entrance = keras.Input((7, 8))
    x = kl.GroupQueryAttention(head_dim=4, num_query_heads=4, num_key_value_heads=2)(entrance, entrance)
    return nn.Sequential(GroupedQueries(), nn.Linear(8, 3)), keras.Model(entrance, kl.Dense(3)(x))


@pair((7, 6))
def einsum() -> tuple[Any, Any]:
    there = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5, bias=False), nn.Linear(5, 3))
    here = keras_model(
        (7, 6), kl.EinsumDense("abc,cde->abde", (None, 2, 4), bias_axes="de", activation="relu"),
        kl.EinsumDense("abde,def->abf", (None, 5)), kl.EinsumDense("...x,xy->...y", 3, bias_axes="y"),
    )  # fmt: skip
    return there, here


@pair((7, 6))
def time_distributed() -> tuple[Any, Any]:
    there = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
    return there, keras_model((7, 6), kl.TimeDistributed(kl.Dense(5, "relu")), kl.TimeDistributed(kl.Dense(3)))


@pair((9, 5))
def cells_in_a_stack() -> tuple[Any, Any]:
    there = nn.Sequential(Only(nn.LSTM(5, 6, num_layers=2, batch_first=True)), Only(nn.GRU(6, 4, batch_first=True)))
    stack = kl.StackedRNNCells([kl.LSTMCell(6), kl.LSTMCell(6)])
    return there, keras_model(
        (9, 5), kl.RNN(stack, return_sequences=True), kl.RNN(kl.GRUCell(4), return_sequences=True)
    )


class Steps(nn.Module):
    """A cell of PyTorch, called step by step."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(5, 6)

    def forward(self, x: Tensor) -> Tensor:
        state = None
        for step in x.unbind(1):
            state = self.cell(step, state)
        assert state is not None
        return state[0]


@pair((9, 5))
def a_cell_step_by_step() -> tuple[Any, Any]:
    return nn.Sequential(Steps(), nn.Linear(6, 2)), keras_model((9, 5), kl.LSTM(6), kl.Dense(2))


class Tied(nn.Module):
    """The head is the embedding once more."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix, self.head = nn.Embedding(50, 8), nn.Linear(8, 8), nn.Linear(8, 50, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.mix(self.embed(x)).relu())
        return out


@pair(11)
def tied_embedding() -> tuple[Any, Any]:
    embed, entrance = kl.ReversibleEmbedding(50, 8), keras.Input((11,), dtype="int32")
    x = embed(kl.Dense(8, "relu")(embed(entrance)), reverse=True)
    return Tied(), keras.Model(entrance, x)


@pair(11)
def embedding_bag() -> tuple[Any, Any]:
    there = nn.Sequential(nn.EmbeddingBag(50, 8), nn.Linear(8, 2))
    return there, keras_model(11, kl.Embedding(50, 8), kl.GlobalAveragePooling1D(), kl.Dense(2))


@pair((6, 5, 4))
def instance_norm_with_statistics() -> tuple[Any, Any]:
    there = nn.Sequential(nn.Conv2d(4, 3, 1), nn.InstanceNorm2d(3, eps=1e-3, affine=True, track_running_stats=True))
    return there, keras_model((6, 5, 4), kl.Conv2D(3, 1), kl.BatchNormalization())


@pair((6, 5, 3))
def prelu() -> tuple[Any, Any]:
    there = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.PReLU(4), nn.Conv2d(4, 4, 1), nn.PReLU(4), nn.Flatten(), nn.Linear(48, 3)
    )
    here = keras_model(
        (6, 5, 3), kl.Conv2D(4, 3), kl.PReLU(shared_axes=[1, 2]), kl.Conv2D(4, 1), kl.PReLU(), kl.Flatten(), kl.Dense(3)
    )
    return there, here


class Tokens(nn.Module):
    """What a vision transformer has beside layers."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Conv2d(3, 6, 4, stride=4)
        self.class_token = nn.Parameter(torch.zeros(1, 1, 6))
        self.position = nn.Parameter(torch.zeros(1, 5, 6))
        self.scale = nn.Parameter(torch.ones(6))
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.project(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_token.expand(len(x), -1, -1), x], 1) + self.position
        head: Tensor = self.head((x * self.scale)[:, 0])
        return head


class Weight(kl.Layer):
    """A bare weight, applied by a function."""

    def __init__(self, shape: tuple[int, ...], how: Callable[[Any, Any], Any]) -> None:
        super().__init__()
        self.value = self.add_weight(shape=shape, initializer="ones", name="value")
        self.how = how

    def call(self, x: Any) -> Any:
        return self.how(x, self.value)


@pair((8, 8, 3))
def bare_parameters() -> tuple[Any, Any]:
    def before(x: Any, token: Any) -> Any:
        return keras.ops.concatenate([keras.ops.tile(token, (keras.ops.shape(x)[0], 1, 1)), x], 1)

    here = keras_model(
        (8, 8, 3), kl.Conv2D(6, 4, 4), kl.Reshape((4, 6)), Weight((1, 1, 6), before),
        Weight((1, 5, 6), lambda x, w: x + w),
        Weight((6,), lambda x, w: x * w), Weight0(), kl.Dense(2),
    )  # fmt: skip
    return Tokens(), here


class Weight0(kl.Layer):
    """The first position."""

    def call(self, x: Any) -> Any:
        return x[:, 0]


@pair((8, 8, 3))
def inputs_that_one_side_prepares() -> tuple[Any, Any]:
    there = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3), Pool())
    here = keras_model(
        (8, 8, 3), kl.Rescaling(1 / 127.5, -1), kl.Normalization(mean=[0.1, 0.2, 0.3], variance=[0.5, 0.6, 0.7]),
        kl.Conv2D(4, 3, padding="same", activation="relu"), kl.Conv2D(4, 3), kl.GlobalAveragePooling2D(),
    )  # fmt: skip
    return there, here


class Branches(nn.Module):
    """Two branches of equal shapes, and a sum: order in time alone would not tell which is which."""

    def __init__(self) -> None:
        super().__init__()
        self.a1, self.a2 = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, padding=1)
        self.b = nn.Conv2d(3, 4, 1)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        b = self.b(x)
        a = self.a2(self.a1(x).relu())
        head: Tensor = self.head((a + b).relu().mean((2, 3)))
        return head


@pair((8, 8, 3))
def branches() -> tuple[Any, Any]:
    entrance = keras.Input((8, 8, 3))
    a = kl.Conv2D(4, 1, activation="relu", name="long1")(entrance)
    a = kl.Conv2D(4, 3, padding="same", name="long2")(a)
    b = kl.Conv2D(4, 1, name="short")(entrance)
    x = kl.GlobalAveragePooling2D()(kl.ReLU()(kl.Add()([a, b])))
    return Branches(), keras.Model(entrance, kl.Dense(2)(x))


def randomized(model: Any, seed: int = 0) -> Any:
    """Every parameter and statistic of a torch module from a seed, so that none is what it would be by default."""
    generator = torch.Generator().manual_seed(seed)
    for name, x in [*model.named_parameters(), *model.named_buffers()]:
        if not x.is_floating_point():
            continue
        if name.endswith("running_var") or (x.ndim == 1 and name.endswith(("weight", "scale"))):
            x.data.copy_(torch.rand(x.shape, generator=generator) + 0.5)
        elif x.ndim == 1:
            x.data.copy_(torch.randn(x.shape, generator=generator) * 0.1)
        elif name.endswith(("class_token", "position", "pos_embedding")):
            x.data.copy_(torch.randn(x.shape, generator=generator) * 0.5)
        elif name.endswith("layer_scale"):
            x.data.copy_(torch.rand(x.shape, generator=generator) + 0.5)
    return model.eval()
