# ruff: noqa
# fmt: off
import math
import torch
from torch import nn
import torch.nn.functional as F


class RMSNorm(nn.Module):
    def __init__(self, dim, eps=1e-5):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.rand(dim) + 0.5)

    def forward(self, x):
        out = x.float() * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + self.eps)
        return out.type_as(x) * self.weight


def precompute_freqs(dim, end, theta=10000.0):
    freqs = 1.0 / (theta ** (torch.arange(0, dim, 2)[: (dim // 2)].float() / dim))
    freqs = torch.outer(torch.arange(end), freqs)
    return torch.cos(freqs), torch.sin(freqs)


def rotate_half(x):
    x1 = x[..., : x.shape[-1] // 2]
    x2 = x[..., x.shape[-1] // 2 :]
    return torch.cat((-x2, x1), dim=-1)


def repeat_kv(x, n_rep):
    bs, slen, n_kv, hd = x.shape
    return x[:, :, :, None, :].expand(bs, slen, n_kv, n_rep, hd).reshape(bs, slen, n_kv * n_rep, hd)


class Attention(nn.Module):
    def __init__(self, dim, heads, kv):
        super().__init__()
        self.h, self.kv, self.d = heads, kv, dim // heads
        self.wq = nn.Linear(dim, heads * self.d, bias=False)
        self.wk = nn.Linear(dim, kv * self.d, bias=False)
        self.wv = nn.Linear(dim, kv * self.d, bias=False)
        self.wo = nn.Linear(heads * self.d, dim, bias=False)

    def forward(self, x, cos, sin, mask):
        b, s, _ = x.shape
        xq, xk, xv = self.wq(x), self.wk(x), self.wv(x)
        xq = xq.view(b, s, self.h, self.d)
        xk = xk.view(b, s, self.kv, self.d)
        xv = xv.view(b, s, self.kv, self.d)
        xq = xq * cos + rotate_half(xq) * sin
        xk = xk * cos + rotate_half(xk) * sin
        keys, values = repeat_kv(xk, self.h // self.kv), repeat_kv(xv, self.h // self.kv)
        xq, keys, values = xq.transpose(1, 2), keys.transpose(1, 2), values.transpose(1, 2)
        scores = torch.matmul(xq, keys.transpose(2, 3)) / math.sqrt(self.d)
        scores = scores + mask
        scores = F.softmax(scores.float(), dim=-1).type_as(xq)
        out = torch.matmul(scores, values).transpose(1, 2).contiguous().view(b, s, -1)
        return self.wo(out)


class Block(nn.Module):
    def __init__(self, dim, heads, kv):
        super().__init__()
        self.attention = Attention(dim, heads, kv)
        self.w1 = nn.Linear(dim, 24, bias=False)
        self.w2 = nn.Linear(24, dim, bias=False)
        self.w3 = nn.Linear(dim, 24, bias=False)
        self.attention_norm, self.ffn_norm = RMSNorm(dim), RMSNorm(dim)

    def forward(self, x, cos, sin, mask):
        h = x + self.attention(self.attention_norm(x), cos, sin, mask)
        n = self.ffn_norm(h)
        return h + self.w2(F.silu(self.w1(n)) * self.w3(n))


class Net(nn.Module):
    def __init__(self, vocab=23, dim=16):
        super().__init__()
        self.tok_embeddings = nn.Embedding(vocab, dim)
        self.layers = nn.ModuleList([Block(dim, 4, 2) for _ in range(2)])
        self.norm = RMSNorm(dim)
        self.output = nn.Linear(dim, vocab, bias=False)
        self.output.weight = self.tok_embeddings.weight

    def forward(self, tokens):
        h = self.tok_embeddings(tokens)
        s = tokens.shape[1]
        cos, sin = precompute_freqs(4, s)
        cos = torch.cat([cos, cos], -1)[None, :, None, :]
        sin = torch.cat([sin, sin], -1)[None, :, None, :]
        mask = torch.full((s, s), float("-inf"))
        mask = torch.triu(mask, diagonal=1)
        for layer in self.layers:
            h = layer(h, cos, sin, mask)
        return self.output(self.norm(h))


def inputs(rng):
    return rng.integers(0, 23, (2, 7))


FAULTS = [
    ("rotate sign", "torch.cat((-x2, x1), dim=-1)", "torch.cat((x2, -x1), dim=-1)", "wrong_part layer_order activation_missing concatenation_order"),
    ("rotate interleaved", "x1 = x[..., : x.shape[-1] // 2]\n    x2 = x[..., x.shape[-1] // 2 :]", "x1 = x[..., ::2]\n    x2 = x[..., 1::2]", "wrong_part"),
    ("k not rotated", "xk = xk * cos + rotate_half(xk) * sin", "pass", "layer_missing rotary_missing residual_missing scale_missing"),
    ("v rotated", "keys, values = repeat_kv(xk", "xv = xv * cos + rotate_half(xv) * sin\n        keys, values = repeat_kv(xk", "layer_extra residual_differs constant_factor"),
    ("theta", "theta=10000.0", "theta=500000.0", "constant_factor wrong_constant"),
    ("sin cos swapped", "return torch.cos(freqs), torch.sin(freqs)", "return torch.sin(freqs), torch.cos(freqs)", "activation_differs layer_order layer_kind"),
    ("gqa tiled", "return x[:, :, :, None, :].expand(bs, slen, n_kv, n_rep, hd).reshape(bs, slen, n_kv * n_rep, hd)", "return x.repeat(1, 1, n_rep, 1)", "attention_heads features_permuted layer_kind repeat_order"),
    ("mask diagonal 0", "mask = torch.triu(mask, diagonal=1)", "mask = torch.triu(mask, diagonal=2)", "attention_mask"),
    ("mask lower", "mask = torch.triu(mask, diagonal=1)", "mask = torch.tril(mask, diagonal=-1)", "attention_mask"),
    ("mask missing", "scores = scores + mask", "pass", "attention_mask"),
    ("scale", "/ math.sqrt(self.d)", "/ self.d", "attention_scale"),
    ("scale missing", " / math.sqrt(self.d)", "", "attention_scale"),
    ("eps", "eps=1e-5", "eps=1e-1", "norm_epsilon"),
    ("eps outside", "torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + self.eps)", "1 / (torch.sqrt(x.float().pow(2).mean(-1, keepdim=True)) + 0.1)", "norm_epsilon constant_offset layer_order layer_kind"),
    ("norm is layer norm", "out = x.float() *", "x = x - x.mean(-1, keepdim=True)\n        out = x.float() *", "layer_kind residual_differs layer_extra"),
    ("gate swapped", "F.silu(self.w1(n)) * self.w3(n)", "self.w1(n) * F.silu(self.w3(n))", "weights_permuted layer_order weights_differ activation_missing"),
    ("gate relu", "F.silu(self.w1(n))", "F.relu(self.w1(n))", "activation_differs"),
    ("ffn norm missing", "n = self.ffn_norm(h)", "n = h", "layer_missing"),
    ("ffn of x", "return h + self.w2", "return x + self.w2", "residual_differs layer_order"),
    ("embedding scaled", "h = self.tok_embeddings(tokens)", "h = self.tok_embeddings(tokens) * 4", "constant_factor"),
    ("heads merged wrongly", "torch.matmul(scores, values).transpose(1, 2).contiguous().view(b, s, -1)", "torch.matmul(scores, values).contiguous().view(b, s, -1)", "attention_heads features_permuted layer_missing"),
    ("position off by one", "torch.outer(torch.arange(end), freqs)", "torch.outer(torch.arange(1, end + 1) * 1.1, freqs)", "constant_factor wrong_constant"),
    ("final norm missing", "return self.output(self.norm(h))", "return self.output(h)", "layer_missing"),
    ("rms weight plus one", "return out.type_as(x) * self.weight", "return out.type_as(x) * (1 + self.weight)", "constant_offset residual_differs"),
]
CORRECT = [
    ("positions off", "torch.outer(torch.arange(end), freqs)", "torch.outer(torch.arange(5, end + 5), freqs)"),
    ("sdpa causal", "scores = torch.matmul(xq, keys.transpose(2, 3)) / math.sqrt(self.d)\n        scores = scores + mask\n        scores = F.softmax(scores.float(), dim=-1).type_as(xq)\n        out = torch.matmul(scores, values)", "out = F.scaled_dot_product_attention(xq, keys, values, is_causal=True)"),
    ("gqa by repeat_interleave", "return x[:, :, :, None, :].expand(bs, slen, n_kv, n_rep, hd).reshape(bs, slen, n_kv * n_rep, hd)", "return x.repeat_interleave(n_rep, 2)"),
    ("functional rms", "out = x.float() * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + self.eps)\n        return out.type_as(x) * self.weight", "return F.rms_norm(x, (x.shape[-1],), self.weight, self.eps)"),
    ("masked_fill", "scores = scores + mask", "scores = scores.masked_fill(mask < 0, -1e30)"),
    ("grouped einsum", "scores = torch.matmul(xq, keys.transpose(2, 3)) / math.sqrt(self.d)", "scores = torch.einsum('bgrqd,bgkd->bgrqk', xq.unflatten(1, (self.kv, -1)), xk.transpose(1, 2)).flatten(1, 2) * self.d ** -0.5"),
    ("complex rotation", "xq = xq * cos + rotate_half(xq) * sin", "c, s_ = cos[..., :2], sin[..., :2]; a_, b_ = xq[..., :2], xq[..., 2:]; xq = torch.cat([a_ * c - b_ * s_, b_ * c + a_ * s_], -1)"),
]
