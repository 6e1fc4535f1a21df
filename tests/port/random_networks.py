"""Small networks of torch that are drawn at random: layers of images or of tokens, weights and buffers of any shape.

    PYTHONPATH=.:backends KERAS_BACKEND=torch python tests/port/random_networks.py 0 500

ports the networks of these seeds to Keras and back, and prints those that do not return as they were.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

import agnostic as ag

Generator = np.random.Generator


class Scale(nn.Module):
    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(shape))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.weight


class Residual(nn.Module):
    def __init__(self, *body: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(*body)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x)


class Parallel(nn.Module):
    def __init__(self, left: nn.Module, right: nn.Module) -> None:
        super().__init__()
        self.left, self.right = left, right

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.left(x), self.right(x)], 1)


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = (
            nn.Conv2d(channels, max(channels // 2, 1), 1),
            nn.Conv2d(max(channels // 2, 1), channels, 1),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(self.fc2(F.silu(self.fc1(F.adaptive_avg_pool2d(x, 1)))))


class ChannelNorm(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(channels)), nn.Parameter(torch.randn(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = x.mean(1, keepdim=True)
        spread = (x - mean).pow(2).mean(1, keepdim=True)
        return (x - mean) / torch.sqrt(spread + 1e-6) * self.weight[:, None, None] + self.bias[:, None, None]


class Positions(nn.Module):
    def __init__(self, tokens: int, width: int, batched: bool) -> None:
        super().__init__()
        self.pos_embed = nn.Parameter(torch.randn(*(1,) * batched, tokens, width))
        self.cls_token = nn.Parameter(torch.randn(1, 1, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.cls_token.expand(len(x), -1, -1), x + self.pos_embed], 1)


class Attention(nn.Module):
    def __init__(self, width: int, heads: int, bias: bool) -> None:
        super().__init__()
        self.heads, self.gamma = heads, nn.Parameter(torch.randn(width))
        self.qkv, self.proj = nn.Linear(width, 3 * width, bias=bias), nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, n, d = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        seen = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, d)
        return self.gamma * self.proj(seen)


class Attending(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.attn(x, x, x, need_weights=False)[0]
        return found


class Recurrent(nn.Module):
    def __init__(self, rnn: nn.RNNBase) -> None:
        super().__init__()
        self.rnn = rnn

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.rnn(x)[0]
        return found


def of_image(g: Generator, c: int) -> tuple[nn.Module, int]:
    """A layer of (N, c, H, W), and the channels that it gives."""
    out, yes = int(g.choice([1, 2, 3, 4, 6, 8])), bool(g.integers(2))
    activations = (nn.ReLU(), nn.GELU(), nn.SiLU(), nn.PReLU(c), nn.PReLU(1), nn.LeakyReLU(0.2), nn.Hardswish(),
                   nn.Softplus())  # fmt: skip
    kinds: list[Callable[[], tuple[nn.Module, int]]] = [
        lambda: (nn.Conv2d(c, out, int(g.choice([1, 3, 5])), padding=int(g.integers(0, 2)), bias=yes), out),
        lambda: (nn.Conv2d(c, c * 2, 3, padding=1, groups=c), c * 2),
        lambda: (nn.BatchNorm2d(c, affine=yes), c), lambda: (nn.GroupNorm(1 if c % 2 else 2, c), c),
        lambda: (activations[int(g.integers(len(activations)))], c),
        lambda: (nn.MaxPool2d(2, 2, ceil_mode=bool(g.integers(2))) if yes else nn.MaxPool2d(3, 2, 1), c),
        lambda: (nn.AvgPool2d(3, 1, 1, count_include_pad=yes), c),
        lambda: (Residual(nn.Conv2d(c, c, 3, padding=1), nn.ReLU()), c),
        lambda: (Parallel(nn.Conv2d(c, out, 1), nn.Conv2d(c, 2, 3, padding=1)), out + 2),
        lambda: (SqueezeExcite(c), c), lambda: (Scale(1, c, 1, 1), c), lambda: (nn.ConvTranspose2d(c, out, 2, 2), out),
        lambda: (ChannelNorm(c), c), lambda: (nn.Upsample(scale_factor=2, mode="bilinear" if yes else "nearest"), c),
        lambda: (nn.InstanceNorm2d(c, affine=yes), c), lambda: (Scale(c if yes else 1, 1, 1), c),
    ]  # fmt: skip
    return kinds[int(g.integers(len(kinds)))]()


class OfImages(nn.Module):
    """Layers of images, then a head, with weights and buffers beside them whose shapes have axes of length 1."""

    def __init__(self, g: Generator) -> None:
        super().__init__()
        c, layers = 3, []
        for _ in range(int(g.integers(2, 6))):
            layer, c = of_image(g, c)
            layers.append(layer)
        self.features = nn.Sequential(*layers) if g.integers(2) else nn.ModuleList(layers)
        self.way, self.head = int(g.integers(3)), nn.Linear(c, int(g.choice([1, 3])))
        self.logit_scale = nn.Parameter(torch.randn(()) if g.integers(2) else torch.randn(1))
        self.register_buffer("shift", torch.randn(1, c) if g.integers(2) else torch.randn(c))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.features:  # type: ignore[union-attr]
            x = layer(x)
        if self.way == 0:
            return self.head(x.mean((2, 3)) + self.shift) * self.logit_scale.exp()
        if self.way == 1:
            return self.head(x.flatten(2).amax(2) - self.shift) * self.logit_scale
        x = x + self.head(x.mean((2, 3))).mean()
        return x * (self.shift[..., None, None] if self.shift.ndim == 2 else self.shift.mean()) * self.logit_scale


def of_tokens(g: Generator, d: int, n: int) -> tuple[nn.Module, int]:
    """A layer of (N, n, d), and the tokens that it gives."""
    yes = bool(g.integers(2))
    kinds: list[Callable[[], tuple[nn.Module, int]]] = [
        lambda: (Residual(nn.LayerNorm(d), nn.Linear(d, 2 * d), nn.GELU(), nn.Linear(2 * d, d)), n),
        lambda: (Residual(Attention(d, 2, yes)), n), lambda: (Residual(Attending(d, 2)), n),
        lambda: (Positions(n, d, yes), n + 1),
        lambda: (Recurrent((nn.LSTM, nn.GRU, nn.RNN)[int(g.integers(3))](d, d, batch_first=True, bias=yes)), n),
        lambda: (Scale(1, n, d) if yes else Scale(n, 1), n),
        lambda: (nn.TransformerEncoderLayer(d, 2, 12, batch_first=True, norm_first=yes), n),
        lambda: (nn.RMSNorm(d) if yes else nn.LayerNorm(d, bias=bool(g.integers(2))), n),
        lambda: (nn.Sequential(nn.Linear(d, d, bias=False), nn.Tanh()), n),
        lambda: (Scale(1, 1, 1) if yes else Scale(d), n),
    ]  # fmt: skip
    return kinds[int(g.integers(len(kinds)))]()


class OfTokens(nn.Module):
    """Layers of tokens, or of numbers that stand for them, then a head."""

    def __init__(self, g: Generator) -> None:
        super().__init__()
        d, n, layers = 8, 5, []
        self.embed = nn.Embedding(11, d) if g.integers(2) else nn.Identity()
        for _ in range(int(g.integers(2, 5))):
            layer, n = of_tokens(g, d, n)
            layers.append(layer)
        self.blocks, self.norm, self.head = nn.ModuleList(layers), nn.LayerNorm(d), nn.Linear(d, 3)
        self.bias, self.pools = nn.Parameter(torch.randn(1, 3)), bool(g.integers(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x)
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        return self.head(x.mean(1) if self.pools else x[:, 0]) + self.bias


def network(seed: int) -> tuple[nn.Module, torch.Tensor]:
    """A network in inference mode, of images for odd seeds and of tokens for even ones, and what it is called with."""
    g = np.random.default_rng(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = OfImages(g) if seed % 2 else OfTokens(g)
        for name, weight in itertools.chain(model.named_buffers(), model.named_parameters()):
            if "running" in name or (isinstance(weight, nn.Parameter) and weight.ndim == 1):
                nn.init.uniform_(weight, 0.3, 1.2) if weight.is_floating_point() else None
        if seed % 2:
            given = torch.randn(2, 3, 12, 11)
        else:
            given = torch.randint(0, 11, (2, 5)) if isinstance(model.embed, nn.Embedding) else torch.randn(2, 5, 8)
    return model.eval(), given


def lost(seed: int) -> str:
    """What is not as it was when a network has been ported to Keras and back; ``""``: nothing."""
    model, x = network(seed)
    there = ag.port(model, "keras", x, check=False)
    [order] = there.report.draft.laid.inputs.values()
    again: Any = ag.port(there.model, "torch", np.ascontiguousarray(x.numpy().transpose(order)), check=False).model
    shapes, found = ({k: tuple(v.shape) for k, v in m.state_dict().items()} for m in (model, again))
    if shapes != found:
        return f"state_dict: {sorted(set(shapes.items()) ^ set(found.items()))}"
    with torch.no_grad():
        right, got = model(x), again(x)
    if right.shape != got.shape:
        return f"shape: {tuple(right.shape)} became {tuple(got.shape)}"
    error = float((got - right).abs().max() / right.abs().max())
    # Two roundings of each of at most 600 products in a sum, seven layers deep, in another order: independent errors.
    return "" if error <= 2 * 600**0.5 * 7 * 2.0**-24 else f"numbers: {error:.1e} of the largest"


if __name__ == "__main__":
    for number in range(*map(int, sys.argv[1:3])):
        said = lost(number)
        if said:
            print(number, said, flush=True)
