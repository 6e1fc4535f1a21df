"""Small networks of every family, in PyTorch and in Keras, with weights of their own everywhere.

``options`` write the forward pass, or a layer, differently: what somebody does who ports a model by hand.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

SIZE = 15
"""Height and width of the images: odd, and not a power of two, so that paddings are told apart after two strides."""


def randomized(model: nn.Module, seed: int = 0) -> nn.Module:
    """Nothing is left at 0 or 1, where two mistakes look the same."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.copy_(torch.randn(module.running_mean.shape, generator=generator) * 0.3)
            # Some channels are nearly dead, as in trained networks: there an epsilon shows.
            module.running_var.copy_(torch.rand(module.running_var.shape, generator=generator) * 0.5 + 0.05)
        if isinstance(module, nn.modules.batchnorm._BatchNorm | nn.LayerNorm | nn.GroupNorm):
            module.weight.data.copy_(torch.rand(module.weight.shape, generator=generator) + 0.5)
            module.bias.data.copy_(torch.randn(module.bias.shape, generator=generator) * 0.3)
        elif isinstance(module, nn.Conv1d | nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            # A gain of two keeps activations of size one through ReLUs, so that every GELU bends.
            fan = module.weight[0].numel()
            module.weight.data.copy_(torch.randn(module.weight.shape, generator=generator) * (2.0 / fan) ** 0.5)
            if module.bias is not None:
                module.bias.data.copy_(torch.randn(module.bias.shape, generator=generator) * 0.2)
        elif isinstance(module, nn.LSTM | nn.GRU | nn.RNN | nn.MultiheadAttention | nn.Embedding):
            for p in module.parameters(recurse=False):
                p.data.copy_(torch.randn(p.shape, generator=generator) * 0.4)
        for name, p in module.named_parameters(recurse=False):
            if name in ("gamma", "token", "position"):
                p.data.copy_(torch.rand(p.shape, generator=generator) + 0.3)
    return model.eval()


class Block(nn.Module):
    def __init__(self, c: int, d: int, stride: int, **options: Any) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c, d, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(d)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(d, d, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(d)
        self.down = nn.Sequential(nn.Conv2d(c, d, 1, stride, bias=False), nn.BatchNorm2d(d)) if stride > 1 else None
        self.options = options

    def forward(self, x: Any) -> Any:
        o = self.options
        y = self.conv1(x)
        y = self.relu(self.bn1(y)) if not o.get("activation first") else self.bn1(self.relu(y))
        y = self.bn2(self.conv2(y))
        skip = x if self.down is None else self.down(x)
        if o.get("no residual"):
            return self.relu(y)
        if o.get("scaled residual"):
            return self.relu(y * 0.5 + skip)
        if o.get("early activation"):
            return F.relu(y) + skip
        return self.relu(y + skip) if not o.get("no last activation") else y + skip


class Residual(nn.Module):
    """A small ResNet."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        blocks = options.pop("blocks", {})
        self.conv1 = nn.Conv2d(3, 8, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.relu = nn.ReLU()
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = Block(8, 8, 1, **blocks.get(1, {}))
        self.layer2 = Block(8, 16, 2, **blocks.get(2, {}))
        self.layer3 = Block(16, 16, 1, **blocks.get(3, {}))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(16, 10)
        self.options = options

    def forward(self, x: Any) -> Any:
        o = self.options
        if o.get("bgr"):
            x = x.flip(1)
        if o.get("range"):
            x = x * o["range"][0] + o["range"][1]
        if o.get("mean"):
            x = (x - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor([0.229, 0.224, 0.225])[
                :, None, None
            ]
        x = self.relu(self.bn1(self.conv1(x)))
        x = F.pad(x, (0, 1, 0, 1)) if o.get("extra pad") else x
        x = self.pool(x)
        x = self.layer3(self.layer2(self.layer1(x)))
        if o.get("max"):
            return self.fc(x.amax((2, 3)))
        return self.fc(torch.flatten(self.avgpool(x), 1))


class Plain(nn.Module):
    """A small VGG: flattened features, ReLU and dropout as functions."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 12, 3, stride=2, padding=1)
        self.conv3 = nn.Conv2d(12, 12, 3, padding=1)
        self.fc1 = nn.Linear(12 * 4 * 4, 20)
        self.fc2 = nn.Linear(20, 20)
        self.fc3 = nn.Linear(20, 7)
        self.options = options

    def forward(self, x: Any) -> Any:
        o = self.options
        x = F.relu(self.conv1(x))
        x = self.conv2(x)
        x = (
            x
            if o.get("no relu")
            else F.relu6(x)
            if o.get("relu6")
            else F.leaky_relu(x, 0.2)
            if o.get("leaky")
            else F.relu(x)
        )
        if o.get("average"):
            x = F.avg_pool2d(x, 2)
            x = F.pad(x, (0, 1, 0, 1))
        else:
            x = F.max_pool2d(F.pad(x, (1, 1, 1, 1)), 3, 2) if o.get("zero pad pool") else F.max_pool2d(x, 3, 2, 1)
        x = F.relu(self.conv3(x))
        x = (
            x.permute(0, 2, 3, 1).flatten(1)
            if o.get("hwc")
            else x.transpose(2, 3).flatten(1)
            if o.get("cwh")
            else x.flatten(1)
        )
        x = F.gelu(self.fc1(x), approximate="tanh" if o.get("tanh") else "none")
        x = F.dropout(x, 0.5, training=bool(o.get("dropout")))
        x = self.fc2(x)
        x = F.gelu(F.gelu(x)) if o.get("doubled") else F.silu(x) if o.get("silu") else F.gelu(x)
        x = self.fc3(x)
        return x if o.get("no softmax") else F.softmax(F.softmax(x, 1), 1) if o.get("two softmax") else F.softmax(x, 1)


class Inverted(nn.Module):
    def __init__(self, c: int, d: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(c, 2 * c, 1, bias=False), nn.BatchNorm2d(2 * c), nn.ReLU6(),
            nn.Conv2d(2 * c, 2 * c, 3, stride, 1, groups=2 * c, bias=False), nn.BatchNorm2d(2 * c), nn.ReLU6(),
            nn.Conv2d(2 * c, d, 1, bias=False), nn.BatchNorm2d(d),
        )  # fmt: skip
        self.same = stride == 1 and c == d

    def forward(self, x: Any) -> Any:
        return x + self.body(x) if self.same else self.body(x)


def mobile() -> nn.Module:
    """A small MobileNet, Sequential throughout."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8, eps=1e-3), nn.Hardswish(),
        Inverted(8, 8, 1), Inverted(8, 12, 2),
        nn.Conv2d(12, 12, 3, 1, 1, groups=3), nn.LeakyReLU(0.1), nn.AvgPool2d(3, 2, 1),
        nn.Flatten(), nn.Linear(48, 6), nn.Sigmoid(),
    )  # fmt: skip


class Dense(nn.Module):
    """A small DenseNet: batch norm first, concatenation."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(8 + 4 * k) for k in range(3)])
        self.convs = nn.ModuleList([nn.Conv2d(8 + 4 * k, 4, 3, padding=1, bias=False) for k in range(3)])
        self.norm = nn.BatchNorm2d(20)
        self.head = nn.Conv2d(20, 5, 1)
        self.options = options

    def forward(self, x: Any) -> Any:
        x = self.stem(x)
        for k, (norm, conv) in enumerate(zip(self.norms, self.convs, strict=True)):
            y = conv(F.relu(norm(x)))
            x = torch.cat([y, x] if self.options.get("cat") == k else [x, y], 1)
        x = F.relu(self.norm(x))
        return self.head(x).mean((2, 3))


class Encoder(nn.Module):
    def __init__(self, d: int, heads: int, **options: Any) -> None:
        super().__init__()
        self.ln1 = nn.LayerNorm(d, eps=1e-6)
        self.attention = nn.MultiheadAttention(d, heads, batch_first=True)
        self.ln2 = nn.LayerNorm(d, eps=1e-6)
        self.mlp1 = nn.Linear(d, 2 * d)
        self.act = nn.GELU()
        self.mlp2 = nn.Linear(2 * d, d)
        self.gamma = nn.Parameter(torch.ones(d))
        self.options = options

    def forward(self, x: Any) -> Any:
        o = self.options
        y = self.ln1(x)
        y = self.attention(y, y, y, need_weights=False)[0]
        x = y if o.get("no residual") else x + y
        y = self.mlp2(self.act(self.mlp1(self.ln2(x))))
        return x + y * self.gamma if not o.get("no scale") else x + y


class Transformer(nn.Module):
    """A small ViT."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        blocks = options.pop("blocks", {})
        self.patches = nn.Conv2d(3, 12, 5, 5)
        self.token = nn.Parameter(torch.zeros(1, 1, 12))
        self.position = nn.Parameter(torch.zeros(1, 10, 12))
        self.blocks = nn.ModuleList([Encoder(12, 3, **blocks.get(k, {})) for k in range(3)])
        self.norm = nn.LayerNorm(12, eps=1e-6)
        self.head = nn.Linear(12, 6)
        self.options = options

    def forward(self, x: Any) -> Any:
        o = self.options
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1)
        x = x if o.get("no position") else x + self.position
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, -1 if o.get("last") else 0])


class Sequence(nn.Module):
    """Tokens, a recurrent layer or two, a head."""

    def __init__(self, kind: str, **options: Any) -> None:
        super().__init__()
        self.embedding = nn.Embedding(30, 8)
        self.rnn = {"lstm": nn.LSTM, "gru": nn.GRU}[kind](8, 10, batch_first=True)
        self.head = nn.Linear(10, 5)
        self.options = options

    def forward(self, tokens: Any) -> Any:
        o = self.options
        x = self.embedding(tokens)
        x = x * 8**0.5 if o.get("scaled") else x
        y = self.rnn(x.flip(1) if o.get("backwards") else x)[0]
        return torch.tanh(self.head(y.mean(1) if o.get("mean") else y[:, -1]))


class Decoder(nn.Module):
    """A small U-Net-like decoder: transposed convolutions, resizing, group norm."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, 8, 3, 2, 1)
        self.norm = nn.GroupNorm(4, 8)
        self.up1 = nn.ConvTranspose2d(8, 8, 4, 2, 1)
        self.mid = nn.Conv2d(8, 6, 3, 1, 2, dilation=2)
        self.up2 = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
        self.out = nn.Conv2d(6, 3, 3, 1, 1, padding_mode="reflect")
        self.last = nn.Conv2d(3, 2, 1)
        self.options = options

    def forward(self, x: Any) -> Any:
        o = self.options
        x = F.silu(self.norm(self.down(x)))
        x = F.leaky_relu(self.up1(x), 0.1 if not o.get("slope") else 0.3)
        x = self.out(self.up2(F.elu(self.mid(x))))
        how = {"mode": "nearest"} if o.get("nearest") else {"mode": "bilinear", "align_corners": bool(o.get("corners"))}
        x = F.interpolate(x, size=(40, 40), **how)
        return torch.sigmoid(self.last(x))


class CodedUNet(nn.Module):
    """A U-Net whose pool, resizing, sum and activations are code."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 3, padding=1)
        self.norm, self.mid = nn.GroupNorm(4, 16), nn.Conv2d(16, 16, 3, padding=1)
        self.up, self.out = nn.Conv2d(24, 8, 3, padding=1), nn.Conv2d(8, 5, 1)
        self.options = options

    def forward(self, x: Any) -> Any:
        o = self.options
        act = o.get("act", F.relu)
        a = act(self.first(x))
        b = self.norm(self.second(o.get("pool", _halved)(a)))
        m = act(self.mid(b))
        m = m if o.get("no residual") else m + b
        mode = o.get("mode", "bilinear")
        corners = {} if "nearest" in mode else {"align_corners": bool(o.get("corners"))}
        m = F.interpolate(m, size=a.shape[2:], mode=mode, **corners)
        return self.out(act(self.up(torch.cat([a, m] if o.get("cat") else [m, a], 1))))


def _halved(x: Any) -> Any:
    return F.max_pool2d(x, 2)


class CodedAttention(nn.Module):
    """Attention over the rows of an image, in code."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.embed = nn.Linear(3 * SIZE, 24)
        self.query, self.key, self.value, self.out = (nn.Linear(24, 24) for _ in range(4))
        self.options = options

    def forward(self, x: Any) -> Any:
        o = self.options
        x = self.embed(x.transpose(1, 2).flatten(2))
        q, k, v = self.query(x), self.key(x), self.value(x)
        q, k = (k, q) if o.get("swapped") else (q, k)
        q, k, v = (t.unflatten(2, (o.get("heads", 4), -1)).transpose(1, 2) for t in (q, k, v))
        if o.get("by hand"):
            y = (q @ k.transpose(2, 3) / q.shape[-1] ** 0.5).softmax(-1) @ v
        else:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=bool(o.get("causal")), scale=o.get("scale"))
        y = y if o.get("unmerged") else y.transpose(1, 2)
        return self.out(y.reshape(x.shape))


def images(n: int = 4, seed: int = 1) -> np.ndarray:
    """(N, 3, H, W) in [0, 1]."""
    return np.random.default_rng(seed).random((n, 3, SIZE, SIZE)).astype(np.float32)


def tokens(n: int = 4, seed: int = 1) -> np.ndarray:
    """(N, 9) integers."""
    return np.random.default_rng(seed).integers(0, 30, (n, 9))
