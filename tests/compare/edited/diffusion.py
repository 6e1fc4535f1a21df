# ruff: noqa
# fmt: off
import math
import torch
import torch.nn as nn
import torch.nn.functional as F


def timestep_embedding(t, dim, max_period=10000):
    half = dim // 2
    freqs = torch.exp(-math.log(max_period) * torch.arange(0, half, dtype=torch.float32) / half)
    args = t[:, None].float() * freqs[None]
    return torch.cat([torch.cos(args), torch.sin(args)], dim=-1)


class ResBlock(nn.Module):
    def __init__(self, cin, cout, temb):
        super().__init__()
        self.norm1 = nn.GroupNorm(4, cin)
        self.conv1 = nn.Conv2d(cin, cout, 3, padding=1)
        self.emb = nn.Linear(temb, 2 * cout)
        self.norm2 = nn.GroupNorm(4, cout)
        self.conv2 = nn.Conv2d(cout, cout, 3, padding=1)
        self.skip = nn.Conv2d(cin, cout, 1) if cin != cout else nn.Identity()

    def forward(self, x, emb):
        h = self.conv1(F.silu(self.norm1(x)))
        scale, shift = self.emb(F.silu(emb))[:, :, None, None].chunk(2, dim=1)
        h = self.norm2(h) * (1 + scale) + shift
        h = self.conv2(F.silu(h))
        return h + self.skip(x)


class SpatialAttention(nn.Module):
    def __init__(self, c, heads):
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(4, c)
        self.qkv = nn.Conv1d(c, 3 * c, 1)
        self.proj = nn.Conv1d(c, c, 1)

    def forward(self, x):
        b, c, *spatial = x.shape
        x = x.reshape(b, c, -1)
        qkv = self.qkv(self.norm(x))
        ch = c // self.heads
        q, k, v = qkv.reshape(b * self.heads, ch * 3, -1).split(ch, dim=1)
        scale = 1 / math.sqrt(math.sqrt(ch))
        weight = torch.einsum("bct,bcs->bts", q * scale, k * scale)
        weight = torch.softmax(weight, dim=-1)
        a = torch.einsum("bts,bcs->bct", weight, v).reshape(b, c, -1)
        return (x + self.proj(a)).reshape(b, c, *spatial)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.time = nn.Sequential(nn.Linear(16, 32), nn.SiLU(), nn.Linear(32, 32))
        self.inp = nn.Conv2d(3, 8, 3, padding=1)
        self.down1 = ResBlock(8, 8, 32)
        self.pool = nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.down2 = ResBlock(8, 16, 32)
        self.attn = SpatialAttention(16, 2)
        self.mid = ResBlock(16, 16, 32)
        self.up = nn.Conv2d(16, 8, 3, padding=1)
        self.up1 = ResBlock(16, 8, 32)
        self.out = nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, x, t):
        emb = self.time(timestep_embedding(t, 16))
        h1 = self.down1(self.inp(x), emb)
        h = self.down2(self.pool(h1), emb)
        h = self.mid(self.attn(h), emb)
        h = self.up(F.interpolate(h, scale_factor=2, mode="nearest"))
        h = self.up1(torch.cat([h, h1], dim=1), emb)
        return self.out(F.silu(h))


def inputs(rng):
    import numpy as np
    return (rng.standard_normal((2, 3, 8, 8)).astype(np.float32), np.array([3.0, 411.0], np.float32))


FAULTS = [
    ("cos and sin swapped", "torch.cat([torch.cos(args), torch.sin(args)]", "torch.cat([torch.sin(args), torch.cos(args)]", "concatenation_order layer_order activation_differs"),
    ("period", "max_period=10000", "max_period=1000", "constant_factor constant_offset wrong_constant weights_differ"),
    ("halves of chunk swapped", "scale, shift = self.emb", "shift, scale = self.emb", "wrong_part"),
    ("no 1 +", "* (1 + scale) +", "* scale +", "constant_offset constant_factor"),
    ("norm after", "h = self.norm2(h) * (1 + scale) + shift", "h = self.norm2(h * (1 + scale) + shift)", "layer_order"),
    ("skip concat order", "torch.cat([h, h1], dim=1)", "torch.cat([h1, h], dim=1)", "concatenation_order"),
    ("attention softmax axis", "torch.softmax(weight, dim=-1)", "torch.softmax(weight, dim=1)", "softmax_axis"),
    ("scale not fourth root", "scale = 1 / math.sqrt(math.sqrt(ch))", "scale = 1 / math.sqrt(ch)", "attention_scale"),
    ("qkv split legacy order", "qkv.reshape(b * self.heads, ch * 3, -1).split(ch, dim=1)", "qkv.reshape(b, 3, self.heads * ch, -1).unbind(1); q, k, v = [y.reshape(b * self.heads, ch, -1) for y in (q, k, v)]", "attention_heads"),
    ("upsample bilinear", 'mode="nearest")', 'mode="bilinear")', "interpolation"),
    ("group count", "self.norm2 = nn.GroupNorm(4, cout)", "self.norm2 = nn.GroupNorm(8, cout)", "norm_groups"),
    ("no silu on emb", "self.emb(F.silu(emb))", "self.emb(emb)", "activation_missing"),
    ("final silu missing", "self.out(F.silu(h))", "self.out(h)", "activation_missing"),
    ("residual after skip of h", "return h + self.skip(x)", "return h", "residual_missing"),
    ("gelu for silu everywhere", "h = self.conv2(F.silu(h))", "h = self.conv2(F.gelu(h))", "activation_differs"),
    ("attention residual of the norm", "(x + self.proj(a))", "(self.norm(x) + self.proj(a))", "layer_order residual_differs layer_extra"),
]
CORRECT = [
    ("scale at once", 'torch.einsum("bct,bcs->bts", q * scale, k * scale)', '(q.transpose(1, 2) @ k) * scale ** 2'),
    ("nearest by repeat", 'F.interpolate(h, scale_factor=2, mode="nearest")', 'h.repeat_interleave(2, 2).repeat_interleave(2, 3)'),
    ("silu by hand", "h = self.conv2(F.silu(h))", "h = self.conv2(h * torch.sigmoid(h))"),
    ("modulate distributed", "h = self.norm2(h) * (1 + scale) + shift", "n = self.norm2(h); h = n + n * scale + shift"),
]
