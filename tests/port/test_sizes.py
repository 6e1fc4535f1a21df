"""Which sizes of a port are free: read at odd sizes, and compared at one that took no part."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import agnostic as ag
from agnostic.contracts.writer import WRITER
from agnostic.port.check import judged, run_in_process, trial
from agnostic.port.verb import cases, drafted_for
from agnostic.registry import backend_of, engine_environment, get_backend

pytestmark = pytest.mark.usefixtures("prepared_processes")

Tensor = torch.Tensor


class Leaking(nn.Module):
    """Everything whose size is easily taken for a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 5, 2)
        self.down = nn.Sequential(nn.MaxPool2d(3, 2, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, 3, 1))
        self.same = nn.Conv2d(4, 4, 4, padding="same")
        self.head = nn.Linear(4 * 3 * 2, 5)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """An image as large as the stem's, pooled windows, and tokens."""
        x = self.stem(x)
        y = self.same(self.down(x))
        up = F.interpolate(y, size=x.shape[2:], mode="bilinear") + x
        twice = F.interpolate(y, scale_factor=2.0, mode="nearest")
        tokens = twice.flatten(2).transpose(1, 2)
        tokens = F.softmax(tokens @ tokens.transpose(1, 2) / 2, -1) @ tokens
        back = tokens.transpose(1, 2).reshape(len(x), 4, twice.shape[2], twice.shape[3])
        return up, self.head(F.adaptive_avg_pool2d(up, (3, 2)).flatten(1)), back + twice


class Hanging(nn.Module):
    """Windows that hang over the border, at odd sizes alone."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """An image."""
        x = F.max_pool2d(self.conv(x), 3, 2, ceil_mode=True)
        return F.avg_pool2d(x, 2, 2, ceil_mode=True)


class Stepping(nn.Module):
    """Takes images of multiples of 32 alone."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 8, 8)
        self.up = nn.ConvTranspose2d(4, 3, 8, 8)

    def forward(self, x: Tensor) -> Tensor:
        """An image."""
        assert x.shape[2] % 32 == x.shape[3] % 32 == 0, "images must be multiples of 32"
        return x + self.up(self.conv(x))


class Fixed(nn.Module):
    """A dense layer over the whole image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3)
        self.head = nn.Linear(2 * 6 * 6, 5)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.head(self.conv(x).flatten(1))


class Mixing(nn.Module):
    """Sees tokens as an image again, of a size that it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 4, 3, padding=1, groups=4), nn.LayerNorm(4)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        """Tokens."""
        image = self.conv(x.transpose(1, 2).reshape(len(x), 4, height, width))
        return self.norm(image.flatten(2).transpose(1, 2)) + x


class Told(nn.Module):
    """Lengths that no array in a block tells, and that strides give otherwise than they seem to at most sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down = nn.Conv2d(3, 4, 7, 4, 3), nn.Conv2d(4, 4, 3, 2, 1)
        self.blocks = nn.ModuleList([Mixing(), Mixing(), Mixing(), Mixing()])

    def forward(self, x: Tensor) -> Tensor:
        """An image."""
        for conv, blocks in ((self.stem, self.blocks[:2]), (self.down, self.blocks[2:])):
            x = conv(x)
            batch, _, height, width = x.shape
            tokens = x.flatten(2).transpose(1, 2)
            for block in blocks:
                tokens = block(tokens, height, width)
            x = tokens.transpose(1, 2).reshape(batch, 4, height, width)
        return x


def missing(n: int, kernel: int, stride: int) -> tuple[int, int]:
    total = max((-(-n // stride) - 1) * stride + kernel - n, 0)
    return total // 2, total - total // 2


class Bordered(nn.Module):
    """Borders as wide as the size of the image wants, cut off again."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 4, 3, 2), nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """An image, and a pooled one."""
        height, width = x.shape[2:]
        x = self.stem(F.pad(x, (*missing(width, 3, 2), *missing(height, 3, 2))))
        height, width = x.shape[2:]
        y = self.conv(F.pad(x, (0, -width % 4, 0, -height % 4)))
        pooled = F.avg_pool2d(F.pad(x, (*missing(width, 2, 2), *missing(height, 2, 2))), 2, 2)
        return F.interpolate(F.avg_pool2d(y, 4), scale_factor=4)[:, :, :height, :width] + x, pooled


class Ranged(nn.Module):
    """Takes numbers of one range alone, mirrors as many rows as the size wants, and repeats anchors for each image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """An image, anchors, and classes."""
        height, width = x.shape[2:]
        y = self.conv(F.pad(x, (1, width % 2, 2, height % 2), mode="reflect"))
        behind = F.pad(y.permute(2, 3, 0, 1), (0, 0, 0, 0, 0, 0, 1, 1)).permute(2, 3, 0, 1)
        anchors = torch.stack(torch.meshgrid(torch.arange(3.0), torch.arange(5.0), indexing="ij"), -1).reshape(-1, 2)
        each = torch.cat([anchors] * len(x), 0), torch.stack([anchors] * len(x), 0)
        classes = F.one_hot((x[:, 0] * 4).long(), 4).float().mean((1, 2))
        return (
            F.pad(behind.permute(2, 3, 0, 1), (0, 0, 0, 0, 1, 1), mode="replicate"),
            each[0] + each[1].flatten(0, 1),
            classes,
        )


class Windows(nn.Module):
    """Products within windows of an image."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix = nn.Linear(16, 16)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """An image with its channels last."""
        batch, height, width, channels = x.shape
        x = x.view(batch, height // 4, 4, width // 4, 4, channels).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, channels)
        x = self.out(self.mix(x.transpose(1, 2)).transpose(1, 2))
        x = x.view(batch, height // 4, width // 4, 4, 4, channels).permute(0, 1, 3, 2, 4, 5)
        return x.reshape(batch, height, width, channels)


class Windowing(nn.Module):
    """A residual block with windows."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.windows, self.drop = Windows(width), nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        """An image with its channels last."""
        return x + self.drop(self.windows(x))


class Windowed(nn.Module):
    """Blocks with windows, of which the last have one each."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down = nn.Conv2d(3, 4, 2, 2), nn.Conv2d(4, 6, 2, 2)
        self.first, self.last = Windowing(4), nn.Sequential(Windowing(6), Windowing(6))
        self.head = nn.Linear(6 * 16, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = self.first(self.stem(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.head(self.last(self.down(x).permute(0, 2, 3, 1)).flatten(1))


MODELS: dict[type[nn.Module], tuple[int, str, str]] = {
    Leaking: (32, "batch and image size", ""),
    Hanging: (16, "batch|batch and image size", ""),
    Stepping: (32, "batch and image size in steps of 32", r"Not free: batch and image size \(.*multiples of 32"),
    Told: (32, "batch and image size", ""),
    Bordered: (32, "batch and image size", ""),
    Ranged: (16, "batch and image size", ""),
    Windowed: (16, "batch", ""),
    Fixed: (8, "batch", "Not free: batch and image size in whole multiples"),
}
"""The size of each model's images, what is free, and what is said of why not more."""


def test_ports_are_compared_at_a_size_that_took_no_part(tmp_path: Path) -> None:
    torch.manual_seed(0)
    writer, trials = get_backend("keras")[WRITER], []
    for kind, (size, free, why) in MODELS.items():
        model, x = kind().eval(), torch.rand(2, 3, size, size)
        backend = backend_of(model)
        written = drafted_for(backend, model, x, writer.dialect())
        assert written.variation is not None
        assert re.fullmatch(free, written.variation.name), (kind, written.notes)
        assert re.search(why, " ".join(written.notes)), (kind, written.notes)
        assert written.variation.checked not in written.variation.shapes
        path = tmp_path / f"{kind.__name__.lower()}.py"
        path.write_text(written.draft.written.text)
        weights = writer.write_weights(written.arrays, tmp_path, path.stem)
        given = cases(backend, x, written.variation)
        if "image size" in free and kind is not Stepping and "image" in written.variation.name:
            [(_, _, height, width)] = written.variation.checked
            assert height % 2
            assert width % 2
            assert height != width
        trials.append(trial(backend, model, written.draft, given, "keras", path, weights))
    # Blocks with one window are those of several: their numbers of rows are an argument.
    assert re.findall(r"class (Window\w*)\(", (tmp_path / "windowed.py").read_text()) == [
        "Windows",
        "Windowing",
        "Windowed",
    ]
    outcomes = run_in_process([found.job for found in trials], engine_environment("torch"))
    for kind, found, outcome in zip(MODELS, trials, outcomes, strict=True):
        rows = judged(found, outcome)
        assert {row.case for row in rows} == {0, 1}
        assert not [row for row in rows if not row.is_same], (kind, rows)


class Branching(nn.Module):
    """Computes otherwise at odd sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        """An image."""
        if x.shape[2] % 2:
            x = x.relu()
        return self.conv(x[:, :, ::2])


def test_a_model_that_computes_otherwise_at_odd_sizes_says_so() -> None:
    ported = ag.port(Branching().eval(), "keras", torch.randn(2, 3, 32, 32), check=False)
    assert ported.report.free == "batch and image size in steps of 32"
    assert any("different operators" in note for note in ported.report.notes)
