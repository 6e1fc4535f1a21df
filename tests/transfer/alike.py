"""Pairs of models of one architecture, written differently or alike inside, and whether they are the same.

A case makes (source, target, inputs in the source's layout) and says whether the target then computes what the source
does. Run as a script, it prints a table for the engine of ``KERAS_BACKEND``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import torch
from keras import layers as kl
from torch import Tensor, nn
from torch.nn import functional as F

import agnostic as ag
from agnostic.errors import AgnosticError
from tests.transfer.pairs import Only, Pool, keras_model, randomized

Made = tuple[Any, Any, Any]
CASES: dict[str, tuple[Callable[[], Made], bool]] = {}


def case(same: bool = True) -> Callable[[Callable[[], Made]], Callable[[], Made]]:
    """Register a function under its own name."""

    def keep(make: Callable[[], Made]) -> Callable[[], Made]:
        CASES[make.__name__] = make, same
        return make

    return keep


def noise(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(5).standard_normal((2, *shape)).astype(np.float32)


def seeded(model: Any, seed: int = 0) -> Any:
    """Each weight of a Keras model, from a seed."""
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        if keras.backend.standardize_dtype(variable.dtype).startswith(("float", "bfloat")):
            low = 0.5 if "variance" in variable.name or "gamma" in variable.name else -0.4
            variable.assign(rng.uniform(low, low + 0.8, variable.shape))
    return model


class Applied(nn.Module):
    """Modules in a function."""

    def __init__(self, how: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        for name, part in parts.items():
            if isinstance(part, Tensor) and not isinstance(part, nn.Parameter):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)
        self.how = how

    def forward(self, *x: Any) -> Any:
        return self.how(self, *x)


# Branches that look alike --------------------------------------------------------------------------------------------
def _inception(order: str) -> nn.Module:
    def how(m: Any, x: Any) -> Any:
        made = {"a": lambda: m.a(x), "b": lambda: m.b2(m.b1(x).relu()), "c": lambda: m.c3(m.c2(m.c1(x).relu()).relu())}
        found = {name: made[name]() for name in order}
        return x + 0.3 * m.up(torch.cat([found["a"], found["b"], found["c"]], 1).relu())

    return Applied(
        how, a=nn.Conv2d(8, 4, 1), b1=nn.Conv2d(8, 4, 1), b2=nn.Conv2d(4, 4, 3, padding=1), c1=nn.Conv2d(8, 4, 1),
        c2=nn.Conv2d(4, 4, 3, padding=1), c3=nn.Conv2d(4, 4, 3, padding=1), up=nn.Conv2d(12, 8, 1),
    )  # fmt: skip


def _keras_inception() -> Any:
    x = entrance = keras.Input((8, 8, 8))
    c = kl.Conv2D(4, 1, activation="relu")(x)
    c = kl.Conv2D(4, 3, padding="same")(kl.Conv2D(4, 3, padding="same", activation="relu")(c))
    b = kl.Conv2D(4, 3, padding="same")(kl.Conv2D(4, 1, activation="relu")(x))
    a = kl.Conv2D(4, 1)(x)
    y = kl.Conv2D(8, 1)(kl.ReLU()(kl.Concatenate()([a, b, c])))
    return seeded(keras.Model(entrance, kl.Add()([x, kl.Rescaling(0.3)(y)])))


@case()
def branches_of_an_inception_block() -> Made:
    return randomized(_inception("abc")), _keras_inception(), noise(8, 8, 8)


@case()
def branches_of_an_inception_block_back() -> Made:
    return _keras_inception(), randomized(_inception("bca"), 1), noise(8, 8, 8)


@case()
def branches_that_run_in_another_order() -> Made:
    return randomized(_inception("abc")), randomized(nn.Sequential(_inception("cab")), 1), noise(8, 8, 8)


class Experts(nn.Module):
    def __init__(self, listed: bool) -> None:
        super().__init__()
        self.gate = nn.Linear(6, 3)
        made = [nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6)) for _ in range(3)]
        if listed:
            self.experts = nn.ModuleList(made)
        else:
            self.third, self.first, self.second = made
        self.listed = listed

    def forward(self, x: Tensor) -> Any:
        weights = self.gate(x).softmax(-1)
        experts = self.experts if self.listed else (self.first, self.second, self.third)
        return sum(weights[..., k : k + 1] * expert(x) for k, expert in enumerate(experts))


@case()
def experts() -> Made:
    return randomized(Experts(True)), randomized(Experts(False), 1), noise(5, 6)


@case()
def experts_with_equal_weights() -> Made:
    source = randomized(Experts(True))
    for expert in source.experts[1:]:
        expert.load_state_dict(source.experts[0].state_dict())
    return source, randomized(Experts(False), 1), noise(5, 6)


@case()
def siamese() -> Made:
    tower = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3), Pool())
    there = Applied(lambda m, a, b: m.head(m.tower(a) - m.tower(b)), tower=tower, head=nn.Linear(5, 2))
    a, b = keras.Input((9, 9, 3)), keras.Input((9, 9, 3))
    inner = keras.Sequential([kl.Conv2D(4, 3, activation="relu"), kl.Conv2D(5, 3), kl.GlobalAveragePooling2D()])
    here = keras.Model([a, b], kl.Dense(2)(kl.Subtract()([inner(a), inner(b)])))
    x = torch.from_numpy(noise(3, 9, 9))
    return randomized(there), here, (x, x.flip(2) * 0.7)


# Attention -----------------------------------------------------------------------------------------------------------
def _heads(x: Tensor) -> Tensor:
    return x.unflatten(-1, (2, 4)).transpose(1, 2)


def _attention(fused: bool, names: str = "qkv") -> nn.Module:
    def separate(m: Any, x: Any) -> Any:
        q, k, v = (_heads(getattr(m, name)(x)) for name in names)
        scores = (q @ k.transpose(-1, -2) / 2).softmax(-1)
        return m.out((scores @ v).transpose(1, 2).flatten(2))

    def together(m: Any, x: Any) -> Any:
        q, k, v = m.qkv(x).reshape(len(x), -1, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        return m.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))

    if fused:
        return Applied(together, qkv=nn.Linear(8, 24), out=nn.Linear(8, 8))
    return Applied(separate, **{name: nn.Linear(8, 8) for name in sorted(names)}, out=nn.Linear(8, 8))


def _keras_attention() -> Any:
    x = keras.Input((7, 8))
    return seeded(keras.Model(x, kl.MultiHeadAttention(2, 4)(x, x)))


@case()
def linear_layers_to_an_attention_layer() -> Made:
    return randomized(_attention(False)), _keras_attention(), torch.from_numpy(noise(7, 8))


@case()
def fused_projections_to_an_attention_layer() -> Made:
    return randomized(_attention(True)), _keras_attention(), torch.from_numpy(noise(7, 8))


@case()
def an_attention_layer_to_fused_projections() -> Made:
    return _keras_attention(), randomized(_attention(True), 1), noise(7, 8)


@case()
def multihead_attention_to_linear_layers() -> Made:
    there = nn.Sequential(Only(nn.MultiheadAttention(8, 2, batch_first=True)))
    return randomized(there), randomized(_attention(False, "vqk"), 1), torch.from_numpy(noise(7, 8))


@case()
def fused_projections_to_multihead_attention() -> Made:
    there = nn.Sequential(Only(nn.MultiheadAttention(8, 2, batch_first=True)))
    return randomized(_attention(True)), randomized(there, 1), torch.from_numpy(noise(7, 8))


class Transposed(nn.Module):
    """A linear layer that keeps its matrix as (inputs, outputs), as GPT-2's."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(inputs, outputs)), nn.Parameter(torch.randn(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x.reshape(-1, x.shape[-1]), self.weight).reshape(*x.shape[:-1], -1)


@case()
def a_transposed_linear_layer() -> Made:
    there = nn.Sequential(Transposed(6, 6), nn.GELU(approximate="tanh"), Transposed(6, 3))
    here = keras_model((5, 6), kl.Dense(6), kl.Activation(lambda x: keras.activations.gelu(x, True)), kl.Dense(3))
    return randomized(there), here, torch.from_numpy(noise(5, 6))


@case()
def masks_in_buffers() -> Made:
    def how(m: Any, x: Any) -> Any:
        scores = (m.q(x) @ m.k(x).transpose(1, 2)).masked_fill(m.mask == 0, float("-inf"))
        return scores.softmax(-1) @ x

    there = Applied(how, q=nn.Linear(6, 6), k=nn.Linear(6, 6), mask=torch.tril(torch.ones(5, 5)))

    def free(m: Any, x: Any) -> Any:
        mask = torch.ones(5, 5, dtype=torch.bool).tril()
        return (m.b(x) @ m.a(x).transpose(1, 2)).masked_fill(~mask, float("-inf")).softmax(-1) @ x

    return randomized(there), randomized(Applied(free, a=nn.Linear(6, 6), b=nn.Linear(6, 6)), 1), noise(5, 6)


# Norms ---------------------------------------------------------------------------------------------------------------
class OwnNorm(nn.Module):
    """A norm over the last axis, by its formula."""

    def __init__(self, size: int, centred: bool) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(size))
        self.shift = nn.Parameter(torch.zeros(size)) if centred else None

    def forward(self, x: Tensor) -> Tensor:
        if self.shift is None:
            return self.gain * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))
        x = x - x.mean(-1, keepdim=True)
        return self.gain * x / torch.sqrt(x.pow(2).mean(-1, keepdim=True) + 1e-3) + self.shift


@case()
def an_rms_norm_of_ones_own() -> Made:
    there = nn.Sequential(nn.Linear(6, 8), OwnNorm(8, False), nn.Linear(8, 3), OwnNorm(3, False))
    here = keras_model(
        (5, 6), kl.Dense(8), kl.RMSNormalization(epsilon=1e-6), kl.Dense(3), kl.RMSNormalization(epsilon=1e-6)
    )
    return randomized(there), here, torch.from_numpy(noise(5, 6))


@case()
def a_layer_norm_of_ones_own() -> Made:
    here = keras_model((5, 6), kl.Dense(8), kl.LayerNormalization(), kl.Dense(3))
    return (
        randomized(nn.Sequential(nn.Linear(6, 8), OwnNorm(8, True), nn.Linear(8, 3))),
        here,
        torch.from_numpy(noise(5, 6)),
    )


@case()
def a_layer_norm_into_ones_own() -> Made:
    here = keras_model((5, 6), kl.Dense(8), kl.LayerNormalization(), kl.Dense(3))
    return seeded(here), randomized(nn.Sequential(nn.Linear(6, 8), OwnNorm(8, True), nn.Linear(8, 3)), 1), noise(5, 6)


class Frozen(nn.Module):
    """As torchvision's FrozenBatchNorm2d."""

    def __init__(self, size: int) -> None:
        super().__init__()
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, torch.rand(size) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        w, b, mean, variance = (x.reshape(1, -1, 1, 1) for x in self.buffers())
        scale = w * (variance + 1e-3).rsqrt()
        return x * scale + (b - mean * scale)


def _keras_normed() -> Any:
    return seeded(
        keras_model((8, 8, 3), kl.Conv2D(4, 3, use_bias=False), kl.BatchNormalization(), kl.ReLU(), kl.Conv2D(2, 3))
    )


@case()
def a_frozen_batch_norm() -> Made:
    there = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), Frozen(4), nn.ReLU(), nn.Conv2d(4, 2, 3))
    return randomized(there), _keras_normed(), torch.from_numpy(noise(3, 8, 8))


@case()
def into_a_frozen_batch_norm() -> Made:
    there = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), Frozen(4), nn.ReLU(), nn.Conv2d(4, 2, 3))
    return _keras_normed(), randomized(there, 1), noise(8, 8, 3)


# Images --------------------------------------------------------------------------------------------------------------
@case()
def a_transposed_convolution_that_crops() -> Made:
    there = nn.Sequential(nn.ConvTranspose2d(4, 3, 4, 2, 1), nn.ReLU(), nn.Conv2d(3, 2, 3, padding=1))
    here = keras_model(
        (5, 5, 4), kl.Conv2DTranspose(3, 4, 2), kl.Cropping2D(1), kl.ReLU(), kl.Conv2D(2, 3, padding="same")
    )
    return randomized(there), here, torch.from_numpy(noise(4, 5, 5))


@case()
def a_transposed_convolution_of_the_same_size() -> Made:
    here = keras_model((5, 5, 4), kl.Conv2DTranspose(3, 4, 2, "same"), kl.ReLU(), kl.Conv2D(2, 3, padding="same"))
    there = nn.Sequential(nn.ConvTranspose2d(4, 3, 4, 2, 1), nn.ReLU(), nn.Conv2d(3, 2, 3, padding=1))
    return seeded(here), randomized(there, 1), noise(5, 5, 4)


@case()
def pools_that_round_up() -> Made:
    there = nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(3, 2, ceil_mode=True), nn.Flatten(), nn.Linear(64, 3))
    here = keras_model(
        (10, 10, 3),
        kl.Conv2D(4, 3),
        kl.ZeroPadding2D(((0, 1), (0, 1))),
        kl.MaxPooling2D(3, 2),
        kl.Flatten(),
        kl.Dense(3),
    )
    there[0].bias.data.fill_(20.0)  # all positive: then zeros around change no maximum
    source = randomized(there)
    source[0].bias.data.fill_(20.0)
    return source, here, torch.from_numpy(noise(3, 10, 10))


@case()
def a_decoder_from_a_vector() -> Made:
    there = nn.Sequential(nn.Linear(5, 48), nn.ReLU(), nn.Unflatten(1, (3, 4, 4)), nn.Conv2d(3, 2, 3))
    here = keras_model((5,), kl.Dense(48, "relu"), kl.Reshape((4, 4, 3)), kl.Conv2D(2, 3))
    return randomized(there), here, torch.from_numpy(noise(5))


@case()
def a_square_output() -> Made:
    here = keras_model((7, 7, 3), kl.Conv2D(4, 3, activation="relu"), kl.Conv2D(3, 3))
    return (
        randomized(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 3))),
        here,
        torch.from_numpy(noise(3, 7, 7)),
    )


@case()
def padding_that_reflects() -> Made:
    there = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), nn.ReLU(), nn.Conv2d(4, 2, 1))
    other = nn.Sequential(nn.Sequential(nn.ReflectionPad2d(1), nn.Conv2d(3, 4, 3)), nn.ReLU(), nn.Conv2d(4, 2, 1))
    return randomized(there), randomized(other, 1), torch.from_numpy(noise(3, 8, 8))


@case(same=False)
def padding_that_reflects_in_one_alone() -> Made:
    there = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), nn.ReLU(), nn.Conv2d(4, 2, 1))
    here = keras_model((8, 8, 3), kl.Conv2D(4, 3, padding="same", activation="relu"), kl.Conv2D(2, 1))
    return randomized(there), here, torch.from_numpy(noise(3, 8, 8))


@case(same=False)
def another_activation() -> Made:
    here = keras_model((8, 8, 3), kl.Conv2D(4, 3, activation="gelu"), kl.Conv2D(2, 1))
    there = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU(approximate="tanh"), nn.Conv2d(4, 2, 1))
    return randomized(there), here, torch.from_numpy(noise(3, 8, 8))


@case(same=False)
def another_epsilon() -> Made:
    here = keras_model((8, 8, 3), kl.Conv2D(4, 3), kl.BatchNormalization(), kl.Conv2D(2, 1))
    there = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))
    return randomized(there), here, torch.from_numpy(noise(3, 8, 8))


@case()
def a_head_for_training_alone() -> Made:
    def how(m: Any, x: Any) -> Any:
        y = m.body(x).relu()
        return (m.head(y), m.aux(y)) if m.training else m.head(y)

    parts = {"body": nn.Conv2d(3, 4, 3), "head": nn.Conv2d(4, 2, 1), "aux": nn.Conv2d(4, 2, 1)}
    here = keras_model((8, 8, 3), kl.Conv2D(4, 3, activation="relu"), kl.Conv2D(2, 1))
    return randomized(Applied(how, **parts)), here, torch.from_numpy(noise(3, 8, 8))


# Sequences and precision ---------------------------------------------------------------------------------------------
class Packed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(5, 6, 2, batch_first=True), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(x, torch.tensor([4, 2]), batch_first=True)
        out: Tensor = self.head(self.lstm(packed)[1][0][-1])
        return out


@case()
def packed_sequences() -> Made:
    x = noise(4, 5)
    x[1, 2:] = 0
    here = keras_model((4, 5), kl.Masking(), kl.LSTM(6, return_sequences=True), kl.LSTM(6), kl.Dense(2))
    return randomized(Packed()), here, torch.from_numpy(x)


@case()
def bidirectional_layers() -> Made:
    there = nn.Sequential(Only(nn.LSTM(5, 4, bidirectional=True, batch_first=True)), nn.Linear(8, 2))
    here = keras_model((6, 5), kl.Bidirectional(kl.LSTM(4, return_sequences=True)), kl.Dense(2))
    return randomized(there), here, torch.from_numpy(noise(6, 5))


@case()
def a_tied_head() -> Made:
    class Tied(nn.Module):
        def __init__(self, tied: bool) -> None:
            super().__init__()
            self.table, self.mix, self.head = nn.Embedding(20, 8), nn.Linear(8, 8), nn.Linear(8, 20, bias=False)
            if tied:
                self.head.weight = self.table.weight

        def forward(self, x: Tensor) -> Any:
            return self.head(self.mix(self.table(x)).relu())

    return randomized(Tied(True)), randomized(nn.Sequential(Tied(False)), 1), torch.randint(0, 20, (2, 5))


def _half(dtype: torch.dtype) -> Made:
    there = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.Flatten(), nn.Linear(64, 3)).to(dtype)
    other = nn.Sequential(
        nn.Sequential(*[nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3)]), nn.Flatten(), nn.Linear(64, 3)
    )
    return randomized(there), randomized(other.to(dtype), 1), torch.from_numpy(noise(3, 8, 8)).to(dtype)


@case()
def float16() -> Made:
    return _half(torch.float16)


@case()
def bfloat16() -> Made:
    return _half(torch.bfloat16)


@case()
def another_name_and_framework() -> Made:
    def make() -> Any:
        return keras_model((8, 8, 3), kl.Conv2D(4, 3), kl.BatchNormalization(), kl.ReLU(), kl.Flatten(), kl.Dense(3))

    return seeded(make()), seeded(make(), 1), noise(8, 8, 3)


class Skip(nn.Module):
    """An encoder and a decoder whose halves meet in a concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.up, self.mix, self.out = nn.ConvTranspose2d(4, 5, 2, 2), nn.Conv2d(9, 6, 3, padding=1), nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = torch.relu(self.norm(self.down(x)))
        b = self.up(F.max_pool2d(a, 2))
        return self.out(torch.relu(self.mix(torch.cat([b, a], 1))))


def _keras_skip(*, norm: bool) -> Any:
    image = keras.Input((8, 8, 3))
    a = kl.Conv2D(4, 3, padding="same")(image)
    a = kl.ReLU()(kl.BatchNormalization(epsilon=1e-5)(a) if norm else a)
    b = kl.Conv2DTranspose(5, 2, strides=2)(kl.MaxPooling2D(2)(a))
    x = kl.Conv2D(6, 3, padding="same", activation="relu")(kl.Concatenate()([a, b]))
    return keras.Model(image, kl.Conv2D(2, 1)(x))


@case()
def parts_in_another_order() -> Made:
    return randomized(Skip()), _keras_skip(norm=True), noise(3, 8, 8)


@case()
def parts_in_another_order_back() -> Made:
    return seeded(_keras_skip(norm=True)), randomized(Skip(), 1), noise(8, 8, 3)


@case()
def a_folded_batch_norm() -> Made:
    return randomized(Skip()), _keras_skip(norm=False), noise(3, 8, 8)


class Temperature(nn.Module):
    """A scale that is trained as its logarithm."""

    def __init__(self) -> None:
        super().__init__()
        self.logarithm = nn.Parameter(torch.tensor(0.3))

    def forward(self, x: Tensor) -> Tensor:
        return self.logarithm.exp() * x


class KerasTemperature(kl.Layer):
    def build(self, shape: Any) -> None:
        self.logarithm = self.add_weight(shape=(1, 1), name="logarithm")

    def call(self, x: Any) -> Any:
        return x * keras.ops.exp(self.logarithm[0][None])


@case()
def a_scale_that_is_computed() -> Made:
    tokens = keras.Input((8,))
    target = keras.Model(tokens, KerasTemperature()(kl.Dense(3)(tokens)))
    return randomized(nn.Sequential(nn.Linear(8, 3), Temperature())), target, noise(8)


class Softness(nn.Module):
    """A scale that is trained as what gives it by a steeper softplus."""

    def __init__(self) -> None:
        super().__init__()
        self.raw = nn.Parameter(torch.tensor([0.3, 15.0, 2.0]))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.softplus(self.raw, beta=2.0, threshold=20.0) * x


@case()
def a_scale_that_is_a_steeper_softplus() -> Made:
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor([0.2, 40.0, 800.0]))

        def forward(self, x: Tensor) -> Tensor:
            return self.scale * x

    return (nn.Sequential(randomized(nn.Linear(8, 3)), Scale()),
            nn.Sequential(randomized(nn.Linear(8, 3), 1), Softness()), noise(8))  # fmt: skip


# One operator for several -------------------------------------------------------------------------------------------
@case()
def low_rank_adapters_into_the_layers_that_they_adapt() -> Made:
    def adapted(m: Any, x: Any) -> Any:
        return m.base(x) + 2.0 * m.up(m.down(x))

    def make(wide: int, out: int) -> nn.Module:
        down, up = nn.Linear(wide, 2, bias=False), nn.Linear(2, out, bias=False)
        return Applied(adapted, base=nn.Linear(wide, out), down=down, up=up)

    target = keras_model((6,), kl.Dense(8, activation="relu"), kl.Dense(3))
    return randomized(nn.Sequential(make(6, 8), nn.ReLU(), make(8, 3))), target, noise(6)


@case()
def a_norm_before_a_product_into_that() -> Made:
    source = nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    target = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    return randomized(source), randomized(target, 1), noise(6)


class Halves(nn.Module):
    """A convolution in two groups, as two."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3)
        self.bottom, self.top = nn.Conv2d(4, 6, 3), nn.Conv2d(4, 6, 3)

    def forward(self, x: Tensor) -> Tensor:
        one, two = self.first(x).relu().chunk(2, 1)
        bottom = self.bottom(two)
        return torch.cat([self.top(one), bottom], 1)


@case()
def groups_apart() -> Made:
    source = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 12, 3, groups=2))
    return randomized(source), randomized(Halves(), 1), noise(3, 8, 8)


@case()
def groups_together() -> Made:
    target = keras_model((8, 8, 3), kl.Conv2D(8, 3, activation="relu"), kl.Conv2D(12, 3, groups=2))
    return randomized(Halves()), target, noise(3, 8, 8)


@case()
def windows_over_all_features_of_words() -> Made:
    def how(m: Any, x: Any) -> Any:
        found = [c(m.words(x)[:, None]).relu().squeeze(3).amax(2) for c in (m.two, m.three)]
        return m.out(torch.cat(found, 1))

    two, three = (nn.Conv2d(1, 4, (k, 6)) for k in (2, 3))
    source = Applied(how, words=nn.Embedding(9, 6), two=two, three=three, out=nn.Linear(8, 3))
    words = keras.Input((7,), dtype="int32")
    x = kl.Embedding(9, 6)(words)
    found = [kl.GlobalMaxPooling1D()(kl.Conv1D(4, k, activation="relu")(x)) for k in (2, 3)]
    target = keras.Model(words, kl.Dense(3)(kl.Concatenate()(found)))
    return randomized(source), target, np.random.default_rng(0).integers(0, 9, (2, 7))


@case()
def patches_by_a_product() -> Made:
    def how(m: Any, x: Any) -> Any:
        rows = x.reshape(len(x), 3, 2, 4, 2, 4).permute(0, 2, 4, 3, 5, 1).reshape(len(x), 4, 48)
        return m.norm(m.patches(rows))

    source = Applied(how, patches=nn.Linear(48, 8), norm=nn.LayerNorm(8))
    target = keras_model((8, 8, 3), kl.Conv2D(8, 4, strides=4), kl.Reshape((4, 8)), kl.LayerNormalization(epsilon=1e-5))
    return randomized(source), target, noise(3, 8, 8)


@keras.saving.register_keras_serializable("tests")
class Queries(kl.Layer):
    """What is learned and asks."""

    def build(self, shape: Any) -> None:
        self.queries = self.add_weight(shape=(1, 3, 8), name="queries")

    def call(self, x: Any) -> Any:
        return keras.ops.repeat(self.queries, keras.ops.shape(x)[0], axis=0)


@case()
def queries_that_are_learned() -> Made:
    def how(m: Any, x: Any) -> Any:
        asked = m.latents.expand(len(x), -1, -1)
        return m.norm(asked + m.attention(asked, x, x)[0])

    attention = nn.MultiheadAttention(8, 2, kdim=6, vdim=6, batch_first=True)
    source = Applied(how, latents=nn.Parameter(torch.randn(3, 8)), attention=attention, norm=nn.LayerNorm(8))
    entrance = keras.Input((5, 6))
    asked = Queries()(entrance)
    y = kl.Add()([asked, kl.MultiHeadAttention(2, 4)(asked, entrance)])
    return randomized(source), keras.Model(entrance, kl.LayerNormalization(epsilon=1e-5)(y)), noise(5, 6)


@case()
def a_gate_as_half_of_a_convolution() -> Made:
    entrance = keras.Input((9, 4))
    gate = kl.Conv1D(6, 3, activation="sigmoid")(entrance)
    target = keras.Model(entrance, kl.Multiply()([kl.Conv1D(6, 3)(entrance), gate]))
    return randomized(nn.Sequential(nn.Conv1d(4, 12, 3), nn.GLU(1))), target, noise(4, 9)


def _turning(halves: bool) -> nn.Module:
    """Attention with rotary positions: pairs of features in two halves, or side by side."""

    def turned(x: Any) -> Any:
        angle = torch.outer(torch.arange(5.0), torch.tensor([1.0, 0.01]))
        one, two = (x[..., :2], x[..., 2:]) if halves else (x[..., ::2], x[..., 1::2])
        parts = one * angle.cos() - two * angle.sin(), two * angle.cos() + one * angle.sin()
        return torch.cat(parts, -1) if halves else torch.stack(parts, -1).flatten(-2)

    def how(m: Any, x: Any) -> Any:
        q, k, v = (f(x).unflatten(-1, (2, 4)).transpose(1, 2) for f in (m.q, m.k, m.v))
        return m.out(F.scaled_dot_product_attention(turned(q), turned(k), v).transpose(1, 2).flatten(2))

    return Applied(how, **{name: nn.Linear(8, 8, bias=False) for name in ("q", "k", "v", "out")})


@case()
def rotary_positions_of_halves_and_of_neighbours() -> Made:
    return randomized(_turning(halves=True)), randomized(nn.Sequential(_turning(halves=False)), 1), noise(5, 8)


@case()
def the_last_states_of_a_stack() -> Made:
    def how(m: Any, x: Any) -> Any:
        _, (states, _) = m.rnn(x)
        return m.out(torch.cat([states[-2], states[-1]], 1))

    rnn = nn.LSTM(4, 3, 2, batch_first=True, bidirectional=True)
    source = Applied(how, rnn=rnn, out=nn.Linear(6, 2))
    first, second = (kl.Bidirectional(kl.LSTM(3, return_sequences=more)) for more in (True, False))
    return randomized(source), keras_model((3, 4), first, second, kl.Dense(2)), noise(3, 4)


class Branched(nn.Module):
    """A block that is trained with branches, which are added up."""

    def __init__(self) -> None:
        super().__init__()
        self.three, self.one = nn.Conv2d(4, 4, 3, 2, 1, bias=False), nn.Conv2d(4, 4, 1, 2, bias=False)
        self.again, self.alone = nn.Conv2d(4, 4, 3, 1, 1), nn.Conv2d(4, 4, 1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(4) for _ in range(5))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norms[0](self.three(x)) + self.norms[1](self.one(x)))
        return self.norms[2](self.again(x)) + self.norms[3](self.alone(x)) + self.norms[4](x)


@case()
def branches_into_one_convolution() -> Made:
    target = keras_model((8, 8, 4), kl.ZeroPadding2D(1), kl.Conv2D(4, 3, 2, activation="relu"),
                         kl.Conv2D(4, 3, padding="same"))  # fmt: skip
    return randomized(Branched()).eval(), target, noise(4, 8, 8)


@case()
def a_table_that_is_indexed_and_inputs_by_name() -> Made:
    def how(self: Any, tokens: Tensor, facts: Tensor) -> Tensor:
        return self.out(torch.tanh(self.table[tokens].mean(1) + self.facts(facts)))

    source = Applied(how, table=nn.Parameter(torch.randn(9, 6)), facts=nn.Linear(3, 6), out=nn.Linear(6, 2))
    source.forward = lambda tokens, facts: how(source, tokens, facts)
    tokens, facts = keras.Input((5,), dtype="int64", name="tokens"), keras.Input((3,), name="facts")
    both = kl.Add()([kl.GlobalAveragePooling1D()(kl.Embedding(9, 6)(tokens)), kl.Dense(6)(facts)])
    target = keras.Model({"tokens": tokens, "facts": facts}, kl.Dense(2)(kl.Activation("tanh")(both)))
    return source, target, {"tokens": np.arange(10).reshape(2, 5) % 9, "facts": noise(3)}


@case()
def directions_that_are_added_up() -> Made:
    def how(self: Any, x: Tensor) -> Tensor:
        forward, backward = self.gru(x)[0].chunk(2, -1)
        return forward + backward

    source = Applied(how, gru=nn.GRU(3, 4, batch_first=True, bidirectional=True))
    target = keras_model((6, 3), kl.Bidirectional(kl.GRU(4, return_sequences=True), merge_mode="sum"))
    return source, target, noise(6, 3)


@case()
def two_norms_of_one_array() -> Made:
    def how(self: Any, x: Tensor) -> Tensor:
        k = self.second(x)
        return x + self.attention(self.first(x), k, k)[0]

    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    target = randomized(Applied(how, first=nn.LayerNorm(8), second=nn.LayerNorm(8), attention=attention))
    x = keras.Input((6, 8))
    norms = [kl.LayerNormalization(epsilon=1e-5)(x) for _ in range(2)]
    return seeded(keras.Model(x, x + kl.MultiHeadAttention(2, 4)(*norms))), target, noise(6, 8)


@case()
def a_model_in_data_parallel() -> Made:
    source = nn.DataParallel(randomized(nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)))).eval()
    return source, keras_model((4,), kl.Dense(5, activation="relu"), kl.Dense(3)), noise(4)


def tried(name: str) -> tuple[bool | None, str]:
    """Whether a transfer says that the two are the same, or None where it raises; and its words."""
    make, _ = CASES[name]
    torch.manual_seed(0)
    try:
        source, target, x = make()
        report = ag.transfer(source, target, inputs=x)
    except AgnosticError as error:
        return None, f"{type(error).__name__}: {error}"
    return bool(report.verified), str(report)


def results() -> dict[str, Any]:
    """What every case gave, for the process of an engine."""
    return {name: list(tried(name)) for name in CASES}


if __name__ == "__main__":
    right = 0
    for chosen in sys.argv[1:] or CASES:
        start = time.perf_counter()
        found, text = tried(chosen)
        right += found is CASES[chosen][1]
        mark = "right" if found is CASES[chosen][1] else "WRONG"
        print(f"{mark} {chosen} {found} {time.perf_counter() - start:.1f} s", flush=True)
        if mark == "WRONG" or len(sys.argv) == 2:
            print(text[:1500])
    print(right, "of", len(sys.argv[1:] or CASES))
