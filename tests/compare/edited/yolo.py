# ruff: noqa
# fmt: off
import torch
import torch.nn as nn


def autopad(k, p=None):
    return k // 2 if p is None else p


class Conv(nn.Module):
    def __init__(self, c1, c2, k=1, s=1):
        super().__init__()
        self.conv = nn.Conv2d(c1, c2, k, s, autopad(k), bias=False)
        self.bn = nn.BatchNorm2d(c2, eps=1e-3)
        self.act = nn.SiLU()

    def forward(self, x):
        return self.act(self.bn(self.conv(x)))


class C2f(nn.Module):
    def __init__(self, c1, c2):
        super().__init__()
        self.c = c2 // 2
        self.cv1 = Conv(c1, 2 * self.c, 1)
        self.m = nn.ModuleList([Conv(self.c, self.c, 3) for _ in range(2)])
        self.cv2 = Conv(4 * self.c, c2, 1)

    def forward(self, x):
        y = list(self.cv1(x).chunk(2, 1))
        y.extend(m(y[-1]) for m in self.m)
        return self.cv2(torch.cat(y, 1))


class SPPF(nn.Module):
    def __init__(self, c1, c2, k=5):
        super().__init__()
        self.cv1, self.cv2 = Conv(c1, c1 // 2), Conv(c1 * 2, c2)
        self.m = nn.MaxPool2d(kernel_size=k, stride=1, padding=k // 2)

    def forward(self, x):
        x = self.cv1(x)
        y1 = self.m(x)
        y2 = self.m(y1)
        return self.cv2(torch.cat((x, y1, y2, self.m(y2)), 1))


class Detect(nn.Module):
    def __init__(self, nc, anchors, ch):
        super().__init__()
        self.nc, self.no, self.na = nc, nc + 5, len(anchors[0]) // 2
        self.register_buffer("anchors", torch.tensor(anchors).float().view(len(anchors), -1, 2))
        self.stride = [4, 8]
        self.m = nn.ModuleList(nn.Conv2d(x, self.no * self.na, 1) for x in ch)

    def forward(self, x):
        z = []
        for i in range(len(x)):
            p = self.m[i](x[i])
            bs, _, ny, nx = p.shape
            p = p.view(bs, self.na, self.no, ny, nx).permute(0, 1, 3, 4, 2).contiguous()
            yv, xv = torch.meshgrid(torch.arange(ny), torch.arange(nx), indexing="ij")
            grid = torch.stack((xv, yv), 2).expand(1, self.na, ny, nx, 2) - 0.5
            anchor = (self.anchors[i] * self.stride[i]).view(1, self.na, 1, 1, 2)
            xy, wh, conf = p.sigmoid().split((2, 2, self.nc + 1), 4)
            xy = (xy * 2 + grid) * self.stride[i]
            wh = (wh * 2) ** 2 * anchor
            z.append(torch.cat((xy, wh, conf), 4).view(bs, -1, self.no))
        return torch.cat(z, 1)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.s1, self.s2 = Conv(3, 8, 3, 2), Conv(8, 8, 3, 2)
        self.c1 = C2f(8, 8)
        self.s3 = Conv(8, 16, 3, 2)
        self.sppf = SPPF(16, 16)
        self.up = nn.Upsample(scale_factor=2, mode="nearest")
        self.c2 = C2f(24, 8)
        self.detect = Detect(3, [[1, 2, 3, 1.5], [4, 3, 2, 5]], (8, 16))

    def forward(self, x):
        p3 = self.c1(self.s2(self.s1(x)))
        p4 = self.sppf(self.s3(p3))
        n3 = self.c2(torch.cat([self.up(p4), p3], 1))
        return self.detect([n3, p4])


def inputs(rng):
    return rng.random((2, 3, 32, 32)).astype("float32")


FAULTS = [
    ("grid xy", "torch.stack((xv, yv), 2)", "torch.stack((yv, xv), 2)", "concatenation_order"),
    ("grid offset", "ny, nx, 2) - 0.5", "ny, nx, 2)", "constant_offset residual_missing"),
    ("wh exp", "wh = (wh * 2) ** 2 * anchor", "wh = torch.exp(wh) * anchor", "activation_differs layer_kind"),
    ("wh no square", "(wh * 2) ** 2 * anchor", "(wh * 2) * anchor", "activation_missing layer_missing"),
    ("xy factor", "xy * 2 + grid", "xy + grid", "constant_factor scale_missing"),
    ("stride of other level", "xy = (xy * 2 + grid) * self.stride[i]", "xy = (xy * 2 + grid) * self.stride[0]", "constant_factor"),
    ("anchors not scaled", "anchor = (self.anchors[i] * self.stride[i])", "anchor = (self.anchors[i])", "scale_missing constant_factor"),
    ("view order", "p.view(bs, self.na, self.no, ny, nx).permute(0, 1, 3, 4, 2)", "p.view(bs, self.no, self.na, ny, nx).permute(0, 2, 3, 4, 1)", "attention_heads features_permuted channel_split"),
    ("xy transposed", "permute(0, 1, 3, 4, 2)", "permute(0, 1, 4, 3, 2)", "features_permuted"),
    ("sppf parallel", "y2 = self.m(y1)", "y2 = self.m(x)", "layer_order"),
    ("sppf order", "torch.cat((x, y1, y2, self.m(y2)), 1)", "torch.cat((y1, x, y2, self.m(y2)), 1)", "concatenation_order"),
    ("c2f first half", "y.extend(m(y[-1]) for m in self.m)", "y.extend(m(y[0]) for m in self.m)", "layer_order wrong_part"),
    ("fpn order", "torch.cat([self.up(p4), p3], 1)", "torch.cat([p3, self.up(p4)], 1)", "concatenation_order"),
    ("bn eps", "eps=1e-3", "eps=1e-5", "batch_norm_epsilon"),
    ("act hardswish", "self.act = nn.SiLU()", "self.act = nn.Hardswish()", "activation_differs"),
    ("no sigmoid", "xy, wh, conf = p.sigmoid().split", "xy, wh, conf = p.split", "activation_missing"),
    ("up bilinear", 'mode="nearest"', 'mode="bilinear"', "interpolation"),
]
CORRECT = [
    ("strided grid", "xy = (xy * 2 + grid) * self.stride[i]", "xy = xy * (2 * self.stride[i]) + grid * self.stride[i]"),
    ("square", "(wh * 2) ** 2 * anchor", "wh * wh * 4 * anchor"),
    ("split", "y = list(self.cv1(x).chunk(2, 1))", "w = self.cv1(x); y = [w[:, : self.c], w[:, self.c :]]"),
    ("cumulative pool", "self.m(y2)), 1)", "torch.nn.functional.max_pool2d(x, 13, 1, 6)), 1)"),
]
