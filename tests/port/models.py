"""Small models of PyTorch that have what ports stumble over."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

Tensor = torch.Tensor


class Residual(nn.Module):
    """A residual block, with a projection where the image gets smaller."""

    def __init__(self, inner: int, outer: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inner, outer, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outer)
        self.conv2 = nn.Conv2d(outer, outer, 3, 1, 1, groups=2, bias=False)
        self.bn2 = nn.BatchNorm2d(outer)
        self.downsample = (
            nn.Sequential(nn.Conv2d(inner, outer, 1, stride), nn.BatchNorm2d(outer)) if stride > 1 else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """The block."""
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)), inplace=True)


class NormAndActivation(nn.BatchNorm2d):
    """A batch norm that returns what its activation makes of it, as timm's does."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Normalized and activated."""
        return self.act(super().forward(x))


class Convolutional(nn.Module):
    """A residual network with a flatten before its first dense layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 7, 2, 3), NormAndActivation(8), nn.MaxPool2d(3, 2, 1))
        self.layer1 = nn.Sequential(Residual(8, 8), Residual(8, 8), Residual(8, 16, 2))
        self.layer2 = nn.Sequential(Residual(16, 32, 2), Residual(32, 32))
        self.pool = nn.AdaptiveAvgPool2d((2, 2))
        self.head = nn.Sequential(nn.Linear(128, 12), nn.Dropout(0.2), nn.Hardswish(), nn.Linear(12, 5))

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.head(self.pool(self.layer2(self.layer1(self.stem(x)))).flatten(1))


class Transformer(nn.Module):
    """Patches, a class token, positions, and two encoder layers."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 12, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, 12))
        self.positions = nn.Parameter(torch.randn(1, 17, 12))
        layer = nn.TransformerEncoderLayer(12, 3, 24, activation="gelu", batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(12)

    def forward(self, x: Tensor) -> Tensor:
        """The class token."""
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.positions
        return self.norm(self.encoder(x))[:, 0]


class DropPath(nn.Module):
    """Stochastic depth as timm has it: whole images lose a branch."""

    def __init__(self, drop_prob: float) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        """X, or nothing of it."""
        if not self.training or self.drop_prob == 0:
            return x
        kept = x.new_empty(len(x), 1, 1, 1).bernoulli_(1 - self.drop_prob)
        return x * kept / (1 - self.drop_prob)


class Branch(nn.Module):
    """A residual block with stochastic depth."""

    def __init__(self, drop_prob: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(6, 6, 3, padding=1)
        self.bn = nn.BatchNorm2d(6)
        self.drop_path = DropPath(drop_prob)

    def forward(self, x: Tensor) -> Tensor:
        """The block."""
        y = self.drop_path(self.bn(self.conv(x)))
        y += x  # in inference this writes to the norm's output as well, which the drop path returns
        return F.relu(y)


class Deep(nn.Module):
    """Branches with stochastic depth of growing rates, and a dropout of whole channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 1)
        self.blocks = nn.Sequential(Branch(0.1), Branch(0.3))
        self.drop = nn.Dropout2d(0.5)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.head(self.drop(self.blocks(self.stem(x))).mean((2, 3)))


class Quantized(nn.Module):
    """Pixels become rows of a codebook, whose choice the gradient passes by; weights of a mean, and a gate that is
    computed without gradients, have none either.
    """

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Conv2d(3, 1, 1)
        self.before, self.after = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 1)
        self.codes = nn.Embedding(7, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        with torch.no_grad():
            gate = self.gate(x).sigmoid()
        x = (self.before(x) * gate).permute(0, 2, 3, 1)
        near = torch.cdist(x.flatten(0, 2), self.codes.weight).argmin(1)
        chosen = self.codes(near).view(x.shape)
        y = x + (chosen - x).detach() + 0.1 * chosen * x.detach().softmax(-1)
        return self.after(y.permute(0, 3, 1, 2).tanh()).mean((2, 3))


class Language(nn.Module):
    """An embedding that is the output's weight too, a recurrent layer, and a causal mask."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        self.lstm = nn.LSTM(8, 4, bidirectional=True, batch_first=True)
        self.out = nn.Linear(8, 11, bias=False)
        self.out.weight = self.embedding.weight

    def forward(self, ids: Tensor) -> dict[str, Any]:
        """Logits, and what attention sees."""
        x = self.embedding(ids)
        y, (h, _) = self.lstm(x)
        q = y.unflatten(-1, (2, 4)).transpose(1, 2)
        mask = torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool).tril()
        seen = F.scaled_dot_product_attention(q, q, q, attn_mask=mask)
        return {"logits": self.out(y), "more": [seen.transpose(1, 2).flatten(2), h]}


class Shared(nn.Module):
    """Layers that are called twice, two inputs, a weight norm, and a write through a view."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 6, 1))
        self.down = nn.utils.parametrizations.weight_norm(nn.Conv2d(6, 4, 3, 2, 1))
        self.up = nn.ConvTranspose2d(4, 6, 3, 2, 1, output_padding=1)
        self.scale = nn.Parameter(torch.randn(6, 1, 1))

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Two images."""
        x = self.block(self.block(x) * self.scale) + y
        x[:, 1:3].relu_()
        small = F.interpolate(self.down(x), scale_factor=2, mode="bilinear")
        first, second = small.chunk(2, 1)
        return self.up(self.down(x)) + x.mean((2, 3), keepdim=True), first.softmax(1) - second


def hostile() -> nn.Module:
    """A model whose layers, and whose class, have names that are code."""
    names = ['x"; import os', '"""', "import", "a b", "build", "self", "\n1/0", "layers", "call"]
    model = nn.Sequential()
    for name in names:
        model.add_module(name, nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3)))
    model.__class__ = type('M"""; import os; os.abort()', (nn.Sequential,), {})
    return model


def models() -> dict[str, tuple[nn.Module, Any]]:
    """Each model with inputs, in inference mode, its batch norms with statistics of their own."""
    torch.manual_seed(0)
    found: dict[str, tuple[nn.Module, Any]] = {
        "convolutional": (Convolutional(), torch.randn(2, 3, 32, 32)),
        "transformer": (Transformer(), torch.randn(2, 3, 16, 16)),
        "language": (Language(), torch.tensor([[1, 2, 3, 10], [4, 5, 6, 0]])),
        "shared": (Shared(), (torch.randn(2, 6, 8, 8), torch.randn(2, 6, 8, 8))),
        "hostile": (hostile(), torch.randn(2, 3)),
    }
    for model, _ in found.values():
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(std=0.1)
            elif name.endswith("running_var"):
                buffer.uniform_(0.8, 1.2)
        model.eval()
    return found
