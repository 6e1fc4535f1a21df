"""Small networks of many kinds, for :mod:`tests.compare.mutations` to break."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from tests.compare.networks import randomized


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 8, 3, padding=1)
        self.na, self.nb = nn.BatchNorm2d(6), nn.BatchNorm2d(8)
        self.up, self.out = nn.ConvTranspose2d(8, 6, 2, 2), nn.Conv2d(12, 2, 1)

    def forward(self, x: Any) -> Any:
        a = F.relu(self.na(self.a(x)))
        b = F.relu(self.nb(self.b(F.max_pool2d(a, 2))))
        b = F.interpolate(F.avg_pool2d(b, 3, 1, 1), scale_factor=2, mode="bilinear")
        return self.out(torch.cat([F.leaky_relu(self.up(F.max_pool2d(b, 2)), 0.2), a], 1))


class Windows(nn.Module):
    """A window attention with a table of relative positions, shifted."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm, self.qkv, self.out = (
            nn.Conv2d(3, 8, 2, 2),
            nn.LayerNorm(8),
            nn.Linear(8, 24),
            nn.Linear(8, 8),
        )
        self.table = nn.Parameter(torch.randn(9, 2))
        self.register_buffer("index", torch.arange(16).view(4, 4) % 9)

    def forward(self, x: Any) -> Any:
        x = self.embed(x).permute(0, 2, 3, 1)
        n, h, w, c = x.shape
        y = torch.roll(self.norm(x), (-1, -1), (1, 2))
        y = y.view(n, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, c)
        q, k, v = self.qkv(y).view(-1, 4, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        scores = q * 0.5 @ k.transpose(-2, -1) + self.table[self.index].permute(2, 0, 1)
        y = self.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(-1, 4, c))
        y = y.view(n, h // 2, w // 2, 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(n, h, w, c)
        return x + torch.roll(y, (1, 1), (1, 2))


class ConvNeXt(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.deep = nn.Conv2d(3, 8, 2, 2), nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.norm, self.one, self.two = nn.LayerNorm(8, eps=1e-6), nn.Linear(8, 16), nn.Linear(16, 8)
        self.gamma, self.head = nn.Parameter(torch.rand(8) + 0.5), nn.Linear(8, 4)

    def forward(self, x: Any) -> Any:
        x = self.stem(x)
        y = self.deep(x).permute(0, 2, 3, 1)
        y = self.gamma * self.two(F.gelu(self.one(self.norm(y))))
        return self.head((x + y.permute(0, 3, 1, 2)).mean((2, 3)))


class Squeeze(nn.Module):
    """A MobileNetV3 block with squeeze and excite."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.deep, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, 2, 1, groups=8), nn.Conv2d(8, 4, 1)
        self.n1, self.n2 = nn.BatchNorm2d(8, eps=1e-3), nn.BatchNorm2d(8, eps=1e-3)
        self.less, self.more = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)

    def forward(self, x: Any) -> Any:
        x = F.hardswish(self.n1(self.wide(x)))
        x = self.n2(self.deep(x))
        s = F.hardsigmoid(self.more(F.relu(self.less(x.mean((2, 3), keepdim=True)))))
        return self.last(F.hardswish(x * s)).mean((2, 3))


class Text(nn.Module):
    def __init__(self, kind: Any) -> None:
        super().__init__()
        self.embedding, self.rnn, self.head = nn.Embedding(20, 6), kind(6, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, tokens: Any) -> Any:
        keep = (tokens > 4).unsqueeze(-1)
        y, _ = self.rnn(self.embedding(tokens))
        y = y * keep
        return self.head(y.sum(1) / keep.sum(1).clamp(min=1))


class Causal(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList([nn.Conv1d(4, 8, 3, dilation=d) for d in (1, 2, 4)])
        self.head = nn.Conv1d(4, 2, 1)

    def forward(self, x: Any) -> Any:
        for conv, d in zip(self.convs, (1, 2, 4), strict=True):
            a, b = conv(F.pad(x, (2 * d, 0))).chunk(2, 1)
            x = x + torch.tanh(a) * torch.sigmoid(b)
        return self.head(x)[..., -1]


class Video(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv3d(3, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.Linear(4, 3)

    def forward(self, x: Any) -> Any:
        return self.head(F.max_pool3d(F.silu(self.norm(self.conv(x))), 2).mean((2, 3, 4)))


class Siamese(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 6, 3, padding=1), nn.Linear(6, 2)

    def forward(self, x: Any, y: Any) -> Any:
        a, b = (F.relu(self.conv(v)).mean((2, 3)) for v in (x, y))
        return self.head((a - b).abs())


class Boxes(nn.Module):
    """A detection head: grids, exponents, anchors."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 14, 1)
        self.register_buffer("anchors", torch.tensor([[1.0, 2.0], [3.0, 1.5]]))

    def forward(self, x: Any) -> Any:
        y = self.head(F.silu(self.conv(x)))
        n, _, h, w = y.shape
        y = y.view(n, 2, 7, h, w).permute(0, 1, 3, 4, 2)
        rows, columns = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
        grid = torch.stack([columns, rows], -1).float()
        center = (y[..., :2].sigmoid() + grid) * 2
        size = y[..., 2:4].exp() * self.anchors.view(1, 2, 1, 1, 2)
        return torch.cat([center, size, y[..., 4:].sigmoid()], -1).flatten(1, 3)


class Decoder(nn.Module):
    """A language model: positions, a causal mask, rotary angles and grouped queries."""

    def __init__(self, rotary: bool) -> None:
        super().__init__()
        self.embedding, self.norm = nn.Embedding(20, 16), nn.LayerNorm(16)
        self.q, self.k, self.v, self.out = nn.Linear(16, 16), nn.Linear(16, 8), nn.Linear(16, 8), nn.Linear(16, 16)
        self.up, self.gate, self.down = nn.Linear(16, 24), nn.Linear(16, 24), nn.Linear(24, 16)
        self.position, self.rotary = nn.Parameter(torch.randn(7, 16)), rotary

    def turn(self, x: Any) -> Any:
        angle = torch.arange(x.shape[-2])[:, None] / 50 ** (torch.arange(2) / 2)
        a, b = x.chunk(2, -1)
        return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], -1)

    def forward(self, tokens: Any) -> Any:
        x = self.embedding(tokens)
        x = x if self.rotary else x + self.position
        y = self.norm(x)
        q, k, v = (f(y).unflatten(-1, (-1, 4)).transpose(1, 2) for f in (self.q, self.k, self.v))
        k, v = k.repeat_interleave(2, 1), v.repeat_interleave(2, 1)
        q, k = (self.turn(q), self.turn(k)) if self.rotary else (q, k)
        hidden = torch.ones(7, 7, dtype=torch.bool).triu(1)
        scores = (q @ k.transpose(-2, -1) / 2).masked_fill(hidden, float("-inf"))
        x = x + self.out((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))
        return x + self.down(F.silu(self.gate(x)) * self.up(x))


class Mixer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.n1, self.n2 = nn.Conv2d(3, 8, 4, 4), nn.LayerNorm(8), nn.LayerNorm(8)
        self.t1, self.t2, self.c1, self.c2 = nn.Linear(4, 6), nn.Linear(6, 4), nn.Linear(8, 12), nn.Linear(12, 8)

    def forward(self, x: Any) -> Any:
        x = self.embed(x).flatten(2).transpose(1, 2)
        x = x + self.t2(F.gelu(self.t1(self.n1(x).transpose(1, 2)))).transpose(1, 2)
        return x + self.c2(F.gelu(self.c1(self.n2(x))))


class Experts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.router, self.experts = nn.Linear(6, 3), nn.ModuleList([nn.Linear(6, 6) for _ in range(3)])

    def forward(self, x: Any) -> Any:
        share = self.router(x).softmax(-1)
        return sum(share[..., k : k + 1] * torch.relu(f(x)) for k, f in enumerate(self.experts))


class Vision(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 12, 4, 4)
        self.token, self.position = nn.Parameter(torch.randn(1, 1, 12)), nn.Parameter(torch.randn(1, 5, 12))
        self.block = nn.TransformerEncoderLayer(12, 3, 24, activation="gelu", batch_first=True, norm_first=True)
        self.norm, self.head = nn.LayerNorm(12), nn.Linear(12, 4)

    def forward(self, x: Any) -> Any:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.position
        return self.head(self.norm(self.block(x))[:, 0])


def _edited(name: str) -> tuple[Callable[[], nn.Module], Callable[[], Any]]:
    module = importlib.import_module(f"tests.compare.edited.{name}")
    FILES[module.__file__ or name] = name
    return module.Net, lambda: module.inputs(np.random.default_rng(3))


FILES: dict[str, str] = {__file__: ""}
"""The sources, in which operators are changed."""


def _images(*shape: int) -> Callable[[], Any]:
    return lambda: np.random.default_rng(1).standard_normal(shape).astype(np.float32)


def _tokens() -> Any:
    return np.random.default_rng(1).integers(0, 20, (3, 7))


ARCHITECTURES: dict[str, tuple[Callable[[], nn.Module], Callable[[], Any]]] = {
    "unet": (UNet, _images(2, 3, 8, 8)),
    "windows": (Windows, _images(2, 3, 8, 8)),
    "convnext": (ConvNeXt, _images(2, 3, 8, 8)),
    "squeeze": (Squeeze, _images(2, 3, 9, 9)),
    "lstm": (lambda: Text(nn.LSTM), _tokens),
    "gru": (lambda: Text(nn.GRU), _tokens),
    "causal": (Causal, _images(2, 4, 12)),
    "video": (Video, _images(2, 3, 4, 6, 6)),
    "siamese": (Siamese, lambda: (_images(2, 3, 8, 8)(), _images(2, 3, 8, 8)()[:, ::-1].copy())),
    "boxes": (Boxes, _images(2, 3, 8, 8)),
    "decoder": (lambda: Decoder(False), _tokens),
    "rotary": (lambda: Decoder(True), _tokens),
    "mixer": (Mixer, _images(2, 3, 8, 8)),
    "experts": (Experts, _images(3, 5, 6)),
    "vision": (Vision, _images(2, 3, 8, 8)),
    **{name: _edited(name) for name in ("conformer", "detr", "diffusion", "gan", "llama", "pointer", "yolo")},
}
"""By name: makes the network, and its inputs."""


def made(name: str) -> tuple[nn.Module, Any]:
    """A network with weights of its own everywhere, and its inputs."""
    make, inputs = ARCHITECTURES[name]
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return randomized(make()), inputs()
