# ruff: noqa
# fmt: off
import math
import torch
from torch import nn
import torch.nn.functional as F


class FeedForward(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.norm, self.l1, self.l2 = nn.LayerNorm(d), nn.Linear(d, 3 * d), nn.Linear(3 * d, d)

    def forward(self, x):
        return self.l2(F.silu(self.l1(self.norm(x))))


class ConvModule(nn.Module):
    def __init__(self, d, k=5):
        super().__init__()
        self.norm = nn.LayerNorm(d)
        self.pw1, self.dw, self.bn, self.pw2 = nn.Conv1d(d, 2 * d, 1), nn.Conv1d(d, d, k, padding=k // 2, groups=d), nn.BatchNorm1d(d), nn.Conv1d(d, d, 1)

    def forward(self, x):
        x = self.norm(x).transpose(1, 2)
        x = F.glu(self.pw1(x), dim=1)
        x = F.silu(self.bn(self.dw(x)))
        return self.pw2(x).transpose(1, 2)


class RelAttention(nn.Module):
    def __init__(self, d, h):
        super().__init__()
        self.h, self.dk = h, d // h
        self.norm = nn.LayerNorm(d)
        self.q, self.k, self.v, self.pos, self.out = nn.Linear(d, d), nn.Linear(d, d), nn.Linear(d, d), nn.Linear(d, d, bias=False), nn.Linear(d, d)
        self.u, self.w = nn.Parameter(torch.randn(h, d // h)), nn.Parameter(torch.randn(h, d // h))

    def rel_shift(self, x):
        b, h, t, p = x.shape
        x = F.pad(x, (1, 0)).view(b, h, p + 1, t)
        return x[:, :, 1:].view(b, h, t, p)[..., : p // 2 + 1]

    def forward(self, x, pe, mask):
        b, t, d = x.shape
        x = self.norm(x)
        q = self.q(x).view(b, t, self.h, self.dk)
        k = self.k(x).view(b, t, self.h, self.dk).transpose(1, 2)
        v = self.v(x).view(b, t, self.h, self.dk).transpose(1, 2)
        p = self.pos(pe).view(1, -1, self.h, self.dk).transpose(1, 2)
        ac = (q + self.u).transpose(1, 2) @ k.transpose(-2, -1)
        bd = self.rel_shift((q + self.w).transpose(1, 2) @ p.transpose(-2, -1))
        scores = (ac + bd) / math.sqrt(self.dk)
        scores = scores.masked_fill(mask[:, None, None, :], -1e4)
        return self.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(b, t, d))


class Net(nn.Module):
    def __init__(self, d=12):
        super().__init__()
        self.sub = nn.Conv1d(6, d, 3, stride=2, padding=1)
        self.ff1, self.ff2 = FeedForward(d), FeedForward(d)
        self.attn, self.conv = RelAttention(d, 3), ConvModule(d)
        self.norm, self.head = nn.LayerNorm(d), nn.Linear(d, 5)
        self.d = d

    def positions(self, t):
        pos = torch.arange(t - 1, -t, -1).float()[:, None]
        div = torch.exp(torch.arange(0, self.d, 2).float() * -(math.log(10000.0) / self.d))
        pe = torch.zeros(2 * t - 1, self.d)
        pe[:, 0::2] = torch.sin(pos * div)
        pe[:, 1::2] = torch.cos(pos * div)
        return pe

    def forward(self, x, lengths):
        x = F.relu(self.sub(x)).transpose(1, 2)
        t = x.shape[1]
        mask = torch.arange(t)[None] >= ((lengths + 1) // 2)[:, None]
        x = x + 0.5 * self.ff1(x)
        x = x + self.attn(x, self.positions(t), mask)
        x = x + self.conv(x)
        x = x + 0.5 * self.ff2(x)
        y = self.norm(x).masked_fill(mask[..., None], 0.0)
        return F.log_softmax(self.head(y.sum(1) / (~mask).sum(1, keepdim=True)), -1)


def inputs(rng):
    import numpy as np
    return (rng.standard_normal((2, 6, 14)).astype("float32"), np.array([14, 9]))


FAULTS = [
    ("half missing", "x = x + 0.5 * self.ff2(x)", "x = x + self.ff2(x)", "scale_missing constant_factor"),
    ("glu halves", "x = F.glu(self.pw1(x), dim=1)", "a, b = self.pw1(x).chunk(2, 1); x = torch.sigmoid(a) * b", "wrong_part"),
    ("glu axis", "x = F.glu(self.pw1(x), dim=1)", "a, b = self.pw1(x).chunk(2, 1); x = torch.tanh(b) * a", "activation_differs"),
    ("u and w swapped", "(q + self.u).transpose(1, 2) @ k", "(q + self.w).transpose(1, 2) @ k", "weights_permuted weights_differ layer_order"),
    ("rel shift missing", "bd = self.rel_shift((q + self.w).transpose(1, 2) @ p.transpose(-2, -1))", "bd = ((q + self.w).transpose(1, 2) @ p.transpose(-2, -1))[..., :t]", "layer_missing padding wrong_part"),
    ("bd missing", "(ac + bd) / math.sqrt", "(ac) / math.sqrt", "residual_missing attention_mask bias_missing"),
    ("scale only ac", "(ac + bd) / math.sqrt(self.dk)", "ac / math.sqrt(self.dk) + bd", "attention_scale scale_missing layer_order"),
    ("mask inverted", "masked_fill(mask[:, None, None, :], -1e4)", "masked_fill(~mask[:, None, None, :], -1e4)", "attention_mask"),
    ("mask of rows", "masked_fill(mask[:, None, None, :], -1e4)", "masked_fill(mask[:, None, :, None], -1e4)", "attention_mask features_permuted"),
    ("mask strict", ">= ((lengths + 1) // 2)", "> ((lengths + 1) // 2)", "attention_mask layer_kind comparison"),
    ("positions reversed", "torch.arange(t - 1, -t, -1)", "torch.arange(-t + 1, t)", "wrong_constant other_setting reversed constant_factor"),
    ("sin cos", "pe[:, 0::2] = torch.sin(pos * div)\n        pe[:, 1::2] = torch.cos(pos * div)", "pe[:, 1::2] = torch.sin(pos * div)\n        pe[:, 0::2] = torch.cos(pos * div)", "activation_differs wrong_part layer_order concatenation_order layer_kind"),
    ("bn skipped", "F.silu(self.bn(self.dw(x)))", "F.silu(self.dw(x))", "layer_missing"),
    ("mean over all", "(~mask).sum(1, keepdim=True)", "t", "constant_factor layer_order wrong_constant layer_kind"),
    ("conv before attention", "x = x + self.attn(x, self.positions(t), mask)\n        x = x + self.conv(x)", "x = x + self.conv(x)\n        x = x + self.attn(x, self.positions(t), mask)", "layer_order"),
    ("causal depthwise", "F.silu(self.bn(self.dw(x)))", "F.silu(self.bn(F.conv1d(F.pad(x, (4, 0)), self.dw.weight, self.dw.bias, groups=x.shape[1])))", "padding same_padding pad_then_stride"),
]
CORRECT = [
    ("glu by hand", "x = F.glu(self.pw1(x), dim=1)", "a, b = self.pw1(x).chunk(2, 1); x = a * torch.sigmoid(b)"),
    ("additive mask", "scores = scores.masked_fill(mask[:, None, None, :], -1e4)", "scores = scores + mask[:, None, None, :].float() * -1e4"),
    ("bmm masks", "y.sum(1) / (~mask).sum(1, keepdim=True)", "(self.norm(x) * (~mask)[..., None]).sum(1) / (~mask).float().sum(1, keepdim=True)"),
]
