# ruff: noqa
# fmt: off
import math
import torch
import torch.nn as nn
import torch.nn.functional as F


def positional_encoding(x, L):
    freqs = 2.0 ** torch.arange(L) * math.pi
    out = [x]
    for f in freqs:
        out += [torch.sin(x * f), torch.cos(x * f)]
    return torch.cat(out, -1)


class Net(nn.Module):
    def __init__(self, L=3, D=2, W=16):
        super().__init__()
        self.L, self.D = L, D
        cx, cd = 3 + 6 * L, 3 + 6 * D
        self.pts = nn.ModuleList([nn.Linear(cx, W)] + [nn.Linear(W + cx if i == 1 else W, W) for i in range(3)])
        self.feature, self.alpha = nn.Linear(W, W), nn.Linear(W, 1)
        self.views, self.rgb = nn.Linear(W + cd, 8), nn.Linear(8, 3)

    def forward(self, rays_o, rays_d):
        t = torch.linspace(0.5, 1.5, 6)
        pts = rays_o[:, None] + rays_d[:, None] * t[None, :, None]
        x = positional_encoding(pts, self.L)
        d = F.normalize(rays_d, dim=-1)
        d = positional_encoding(d, self.D)[:, None].expand(-1, 6, -1)
        h = x
        for i, l in enumerate(self.pts):
            h = F.relu(l(h))
            if i == 1:
                h = torch.cat([x, h], -1)
        sigma = F.softplus(self.alpha(h).squeeze(-1) - 1)
        h = torch.cat([self.feature(h), d], -1)
        rgb = torch.sigmoid(self.rgb(F.relu(self.views(h))))
        delta = torch.cat([t[1:] - t[:-1], torch.full((1,), 1e10)])
        alpha = 1 - torch.exp(-sigma * delta)
        trans = torch.cumprod(torch.cat([torch.ones_like(alpha[:, :1]), 1 - alpha + 1e-10], -1), -1)[:, :-1]
        weights = alpha * trans
        return (weights[..., None] * rgb).sum(-2), (weights * t).sum(-1)


def inputs(rng):
    return (rng.standard_normal((3, 3)).astype("float32"), rng.standard_normal((3, 3)).astype("float32"))


FAULTS = [
    ("sin cos order", "[torch.sin(x * f), torch.cos(x * f)]", "[torch.cos(x * f), torch.sin(x * f)]", "concatenation_order layer_order activation_differs"),
    ("pi forgotten", "torch.arange(L) * math.pi", "torch.arange(L)", "constant_factor scale_missing"),
    ("identity last", "return torch.cat(out, -1)", "return torch.cat(out[1:] + out[:1], -1)", "concatenation_order"),
    ("skip order", "h = torch.cat([x, h], -1)", "h = torch.cat([h, x], -1)", "concatenation_order"),
    ("directions not normalized", "d = F.normalize(rays_d, dim=-1)", "d = rays_d", "layer_missing"),
    ("relu sigma", "F.softplus(self.alpha(h).squeeze(-1) - 1)", "F.relu(self.alpha(h).squeeze(-1) - 1)", "activation_differs"),
    ("shift missing", "F.softplus(self.alpha(h).squeeze(-1) - 1)", "F.softplus(self.alpha(h).squeeze(-1))", "constant_offset residual_missing"),
    ("inclusive cumprod", ", -1)[:, :-1]\n", ", -1)[:, 1:]\n", "wrong_part"),
    ("rgb tanh", "rgb = torch.sigmoid(self.rgb", "rgb = torch.tanh(self.rgb", "activation_differs"),
    ("mean of colours", "(weights[..., None] * rgb).sum(-2)", "(weights[..., None] * rgb).mean(-2)", "pool_kind reduction"),
    ("depth without weights", "(weights * t).sum(-1)", "(alpha * t).sum(-1)", "layer_order scale_missing"),
    ("delta last", "torch.full((1,), 1e10)", "torch.full((1,), 0.2)", "wrong_constant constant_factor constant"),
    ("t range", "torch.linspace(0.5, 1.5, 6)", "torch.linspace(0.5, 2.5, 6)", "wrong_constant other_setting constant_factor"),
    ("feature relu", "torch.cat([self.feature(h), d], -1)", "torch.cat([F.relu(self.feature(h)), d], -1)", "activation_extra"),
    ("sign", "torch.exp(-sigma * delta)", "torch.exp(sigma.neg() * 0.5 * delta)", "constant_factor"),
]
CORRECT = [
    ("einsum", "(weights[..., None] * rgb).sum(-2)", "torch.einsum('nt,ntc->nc', weights, rgb)"),
    ("trans by exp", "1 - torch.exp(-sigma * delta)", "1 - torch.exp(-sigma).pow(delta)"),
    ("matvec", "(weights * t).sum(-1)", "weights @ t"),
    ("normalize by hand", "F.normalize(rays_d, dim=-1)", "rays_d / rays_d.norm(dim=-1, keepdim=True)"),
]
