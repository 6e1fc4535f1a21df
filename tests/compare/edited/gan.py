# ruff: noqa
# fmt: off
import torch
from torch import nn
import torch.nn.functional as F
from torch.nn.utils.parametrizations import spectral_norm


class PixelNorm(nn.Module):
    def forward(self, x):
        return x * torch.rsqrt(torch.mean(x ** 2, dim=1, keepdim=True) + 1e-8)


class ModConv(nn.Module):
    def __init__(self, i, o, k, w):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(1, o, i, k, k))
        self.affine = nn.Linear(w, i)
        self.scale = 1 / (i * k * k) ** 0.5
        self.pad = k // 2
        self.bias = nn.Parameter(torch.randn(o))

    def forward(self, x, s):
        b, i, h, w = x.shape
        style = self.affine(s).view(b, 1, i, 1, 1) + 1
        weight = self.scale * self.weight * style
        demod = torch.rsqrt(weight.pow(2).sum([2, 3, 4]) + 1e-8)
        weight = weight * demod.view(b, -1, 1, 1, 1)
        weight = weight.view(-1, i, *weight.shape[3:])
        x = F.conv2d(x.reshape(1, b * i, h, w), weight, padding=self.pad, groups=b)
        x = x.view(b, -1, h, w)
        return F.leaky_relu(x + self.bias.view(1, -1, 1, 1), 0.2) * 2 ** 0.5


class Net(nn.Module):
    def __init__(self, z=6, w=8):
        super().__init__()
        self.mapping = nn.Sequential(PixelNorm(), nn.Linear(z, w), nn.LeakyReLU(0.2), nn.Linear(w, w), nn.LeakyReLU(0.2))
        self.const = nn.Parameter(torch.randn(1, 8, 4, 4))
        self.c1, self.c2 = ModConv(8, 8, 3, w), ModConv(8, 6, 3, w)
        self.rgb1, self.rgb2 = nn.Conv2d(8, 3, 1), spectral_norm(nn.Conv2d(6, 3, 1))
        self.noise = nn.Parameter(torch.tensor(0.3))
        self.register_buffer("noise_map", torch.randn(1, 1, 8, 8))

    def forward(self, z):
        s = self.mapping(z)
        x = self.const.repeat(z.shape[0], 1, 1, 1)
        x = self.c1(x, s)
        rgb = self.rgb1(x)
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        x = x + self.noise * self.noise_map
        x = self.c2(x, s)
        rgb = F.interpolate(rgb, scale_factor=2, mode="bilinear", align_corners=False) + self.rgb2(x)
        return torch.tanh(rgb)


def inputs(rng):
    return rng.standard_normal((3, 6)).astype("float32")


FAULTS = [
    ("no demodulation", "weight = weight * demod.view(b, -1, 1, 1, 1)", "pass", "scale_missing"),
    ("demod axis", "weight.pow(2).sum([2, 3, 4])", "weight.pow(2).mean([2, 3, 4])", "pool_kind reduction"),
    ("style without 1", ".view(b, 1, i, 1, 1) + 1", ".view(b, 1, i, 1, 1)", "constant_offset residual_missing"),
    ("gain missing", "0.2) * 2 ** 0.5", "0.2)", "scale_missing constant_factor"),
    ("gain 2", "0.2) * 2 ** 0.5", "0.2) * 2", "constant_factor"),
    ("slope", "F.leaky_relu(x + self.bias.view(1, -1, 1, 1), 0.2)", "F.leaky_relu(x + self.bias.view(1, -1, 1, 1), 0.1)", "activation_slope"),
    ("bias after", "F.leaky_relu(x + self.bias.view(1, -1, 1, 1), 0.2) * 2 ** 0.5", "(F.leaky_relu(x, 0.2) + self.bias.view(1, -1, 1, 1)) * 2 ** 0.5", "layer_order"),
    ("noise missing", "x = x + self.noise * self.noise_map", "pass", "residual_missing bias_missing layer_missing"),
    ("noise after c2", "x = x + self.noise * self.noise_map\n        x = self.c2(x, s)", "x = self.c2(x, s) + self.noise * self.noise_map", "layer_order"),
    ("align", 'x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)', 'x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)', "align_corners"),
    ("nearest rgb", 'rgb = F.interpolate(rgb, scale_factor=2, mode="bilinear", align_corners=False)', 'rgb = F.interpolate(rgb, scale_factor=2, mode="nearest")', "interpolation"),
    ("pixel norm axis", "torch.mean(x ** 2, dim=1, keepdim=True)", "torch.mean(x ** 2, dim=0, keepdim=True)", "norm_axes wrong_axis"),
    ("sigmoid", "return torch.tanh(rgb)", "return torch.sigmoid(rgb)", "activation_differs"),
    ("rgb after", "rgb = self.rgb1(x)\n        x = F.interpolate", "rgb = self.rgb1(x * 0.5)\n        x = F.interpolate", "constant_factor"),
    ("noise times", "x + self.noise * self.noise_map", "x + self.noise_map", "scale_missing layer_missing"),
]
CORRECT = [
    ("scale input and output", "x = F.conv2d(x.reshape(1, b * i, h, w), weight, padding=self.pad, groups=b)\n        x = x.view(b, -1, h, w)", "x = torch.cat([F.conv2d(x[j : j + 1], weight.view(b, -1, i, *weight.shape[2:])[j], padding=self.pad) for j in range(b)])"),
    ("expand", "self.const.repeat(z.shape[0], 1, 1, 1)", "self.const.expand(z.shape[0], -1, -1, -1)"),
    ("upsample before rgb", 'rgb = F.interpolate(rgb, scale_factor=2, mode="bilinear", align_corners=False)', 'rgb = F.interpolate(rgb, size=(8, 8), mode="bilinear")'),
]
