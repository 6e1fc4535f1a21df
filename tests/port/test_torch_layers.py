"""Layers of torch.nn and kinds of functional code, each in a model of its own, run in one process of Keras."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import agnostic as ag
from agnostic.contracts.writer import WRITER
from agnostic.port.check import judged, run_in_process, trial
from agnostic.port.verb import cases, drafted_for
from agnostic.registry import backend_of, get_backend

Tensor = torch.Tensor
IMAGE = torch.randn(2, 4, 9, 7, generator=torch.Generator().manual_seed(0))
ROWS = torch.randn(3, 6, 8, generator=torch.Generator().manual_seed(1))
IDS = torch.tensor([[1, 2, 3, 9], [4, 5, 6, 0]])


LENGTHS = {"rotary": "batch and length", "positions": "batch and length", "each its own": "batch"}
"""What of their inputs' sizes is free in some of the models."""


IN_PLACE: dict[str, Callable[[Tensor], Tensor]] = {
    "scatter_add": lambda x: x.scatter_add_(1, torch.zeros_like(x[:, :2]).long(), x[:, :2].clone()),
    "index_add": lambda x: x.index_add_(1, torch.tensor([0, 0, 3]), x[:, :3].clone()),
    "addcmul": lambda x: x.addcmul_(x, x, value=0.5),
    "cumsum": lambda x: x.cumsum_(1),
    "triu": lambda x: x.triu_(),
    "lerp": lambda x: x.lerp_(x * x, 0.3),
    "clamp_min": lambda x: x.clamp_min_(0.1),
    "transpose": lambda x: x.transpose_(1, 2),
    "or": lambda x: operator.ior(x > 0, x < -0.5).float(),
    "and": lambda x: operator.iand(x > 0, x < 0.5).float(),
}
"""Operators that change their first argument; each has a reader by the name of the one that does not."""


class Branch(nn.Module):
    """A branch beside another one, which may be a stack; a stack may be of branches: kinds hold each other."""

    def __init__(self, beside: nn.Module | None = None) -> None:
        super().__init__()
        self.first, self.second, self.beside = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, padding=1), beside

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.second(torch.relu(self.first(x)))) + (x if self.beside is None else self.beside(x))


def in_place_by_mask(x: Tensor) -> Tensor:
    """As PointNet++ keeps the distances to the nearest point: written by a mask, in the type that they have."""
    near, found = torch.ones_like(x) * 0.5, x.abs()
    mask = found < near
    near[mask] = found[mask].to(near.dtype)
    return near


class Of(nn.Module):
    """A function, and the layers and weights that it uses."""

    def __init__(self, function: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *inputs: Tensor) -> Any:
        """What the function gives for itself and the inputs."""
        return self.function(self, *inputs)


class Caching(nn.Module):
    """Keeps what it made of the length of its input, once as a buffer and once as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.scales, self.ramp, self.known = nn.Linear(8, 8), [torch.rand(8, 8)], None, {}
        self.register_buffer("table", torch.zeros(1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if len(self.table) != x.shape[1]:
            self.table = torch.arange(x.shape[1]).to(x)[:, None] * torch.ones(8)
        if self.ramp is None:
            self.ramp = torch.linspace(0, 1, x.shape[1]).to(x)[:, None]
        if x.device not in self.known:
            self.known[x.device] = self.layer.bias[self.table[0].long()]
        return self.layer(x) @ self.scales[0] @ self.table.mT + self.ramp + self.known[x.device][:6]


def unpooled(model: Any, x: Tensor) -> Tensor:
    y, places = F.max_pool2d(x, 3, 2, 1, return_indices=True)
    found: Tensor = F.max_unpool2d(y, places, 3, 2, 1, output_size=x.shape[2:])
    return found


def stepped(model: Any, x: Tensor) -> Any:
    state = None
    for t in range(3):
        state = model.cell(x[:, t], state)
    return state


def written_through_views(model: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    y = x * 1
    first, second = y.chunk(2, 1)
    first.relu_()
    second[..., 0] = 3
    turned = y.transpose(1, 2)
    turned[:, 1].mul_(2)
    y[:, torch.tensor([0, 2])] = 1.0
    return y, turned


def listed(model: Any, x: Tensor) -> Tensor:
    found = torch.zeros(())
    for layer, part in zip(model.layers, (x, x * 2, x + 1), strict=True):
        found = found + layer(part).tanh()
    return found


def decoded(model: Any, x: Tensor, memory: Tensor) -> Tensor:
    mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
    found: Tensor = model.decoder(x, memory, tgt_mask=mask, tgt_is_causal=True)
    return found


def padded(model: Any, x: Tensor, hidden: Tensor) -> Any:
    return model.attention(x, x, x, key_padding_mask=hidden)


def hidden_rows(model: Any, x: Tensor, seen: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(x, x, x, attn_mask=seen)


def halved(model: Any, x: Tensor) -> Tensor:
    with torch.autocast("cpu", enabled=False):
        y = model.layer(x.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = F.linear(y, model.layer.weight[:, :4]).relu()
    return y.float()


def packed(model: Any, x: Tensor, lengths: Tensor) -> Any:
    given = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    y, (h, c) = model.lstm(given)
    y, counts = nn.utils.rnn.pad_packed_sequence(y, batch_first=True)
    z, last = model.gru(nn.utils.rnn.pack_padded_sequence(x, [6, 5, 2], batch_first=True), h[:1])
    z, _ = nn.utils.rnn.pad_packed_sequence(z, padding_value=-1.0, total_length=7)
    return y, counts, h, c, z, last


def spectrum(model: Any, x: Tensor) -> tuple[Tensor, ...]:
    found = torch.fft.rfft2(x.permute(0, 2, 3, 1), dim=(1, 2), norm="ortho") * torch.view_as_complex(model.filter)
    mixed = torch.fft.irfft2(found, s=x.shape[2:], dim=(1, 2), norm="ortho").permute(0, 3, 1, 2)
    turned = torch.fft.fftshift(torch.fft.ifft(torch.complex(x, x.flip(1)), n=5, dim=1), dim=1).conj()
    return mixed, turned.imag, torch.fft.fft2(x).abs(), torch.fft.rfft(x, n=12).angle()


def solved(model: Any, x: Tensor) -> tuple[Tensor, ...]:
    a = x[:, :, :6] @ x[:, :, :6].mT + torch.eye(6)
    return torch.linalg.inv(a), torch.linalg.det(a), torch.linalg.cholesky(a), torch.linalg.solve(a, x)


class Rotary(nn.Module):
    """Positions as turns of complex numbers, cut from a table."""

    def __init__(self) -> None:
        super().__init__()
        angles = torch.arange(64.0)[:, None] / torch.tensor([1.0, 10.0, 100.0, 1000.0])
        self.register_buffer("turns", torch.polar(torch.ones_like(angles), angles), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Rows."""
        numbers = torch.view_as_complex(x.float().reshape(*x.shape[:-1], -1, 2))
        return torch.view_as_real(numbers * self.turns[: x.shape[1]]).flatten(2).type_as(x)


def positions(model: Any, x: Tensor) -> tuple[Tensor, ...]:
    """Tables that follow from the length are computed from it."""
    places = torch.arange(x.shape[1])
    gaps = (places[None] - places[:, None]).abs()
    angles = torch.linspace(0, 1, x.shape[1])[:, None] * model.speeds
    scores = x @ x.mT - gaps.float().log1p()
    return scores.masked_fill(gaps > 2, -math.inf).softmax(-1) @ (x + angles.sin()), x.std(1), x.var(1, correction=0.5)


def picked(model: Any, x: Tensor, seen: Tensor) -> tuple[Tensor, ...]:
    """Rows and numbers that a mask picks, changed and written back."""
    y = x.clone()
    y[seen] = model.token
    y[~seen] = model.layer(y[~seen]).softmax(1)
    z = x * 1
    z[z > 1] *= 0.5
    z[z < 0] += z[z < 0].sqrt().nan_to_num() + 2
    return y, z, x[seen].mean(), x[x > 0].sum()


def sent(model: Any, x: Tensor, i: Tensor) -> tuple[Tensor, ...]:
    """Extremes and means of what is sent to places, and places among sorted numbers."""
    ids = i[:1, :, None].expand(len(x), 4, 8) % 6
    found = [
        x.scatter_reduce(1, ids, x[:, :4] * 2, way, include_self=way == "amax") for way in ("amax", "amin", "mean")
    ]
    table = torch.zeros(3, 8).index_reduce(0, torch.arange(len(x)) % 3, x[:, 0], "amax")
    edges = torch.tensor([-1.0, 0.0, 1.0])
    return (
        *found,
        table,
        i.scatter_reduce(1, i % 2, i - 9, "amin"),
        i.byte().scatter_reduce(1, i % 2, i.byte(), "mean"),
        torch.bucketize(x, edges, right=True),
        torch.searchsorted(x.sort(2).values, x),
        x.round(decimals=1),
    )


def framed(model: Any, x: Tensor) -> tuple[Tensor, ...]:
    """Windows of a signal, their spectra, and the signal of those."""
    window = torch.hann_window(16)
    found = torch.stft(x, 16, 4, 12, window[:12], return_complex=True, normalized=True)
    return (
        found.abs(),
        torch.istft(found * 2, 16, 4, 12, window[:12], normalized=True),
        x.as_strided((2, 5, 4), (40, 3, 1)),
    )


def each_its_own(model: Any, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """A kernel for each image, and numbers that are complex."""
    kernels = model.layer(z).reshape(-1, 4, 3, 3)
    y = F.conv2d(x.reshape(1, -1, *x.shape[2:]), kernels, stride=2, padding=1, groups=len(x))
    y = y.reshape(len(x), 6, *y.shape[2:])
    return (y[:, :4].permute(0, 2, 3, 1) * model.turn).abs(), model.turn


def constants(model: Any, x: Tensor) -> tuple[Tensor, ...]:
    rows, columns = torch.tril_indices(5, 5)
    return torch.ones(3), x[:, rows, columns], x.median(1).values, x.cummax(1).values, x[:, :6, :6].diagonal(0, 1, 2)


def layers() -> dict[str, tuple[nn.Module, Any]]:
    """Each model and its inputs."""
    torch.manual_seed(0)
    grid = torch.randn(2, 4, 5, 2)
    hidden = torch.tensor([[False] * 6, [False] * 4 + [True] * 2, [False] * 5 + [True]])
    seen = torch.rand(3, 6, 6) > 0.3
    seen[0, 2] = False
    found: dict[str, tuple[nn.Module, Any]] = {
        "reflect": (nn.Conv3d(4, 6, 3, padding=1, padding_mode="reflect"), torch.randn(2, 4, 5, 6, 7)),
        "transposed": (nn.ConvTranspose2d(4, 6, 3, 3, 2, 1, groups=2, dilation=2), IMAGE),
        "strided and dilated": (nn.Conv1d(4, 6, 3, stride=2, dilation=2, padding=1, groups=2), torch.randn(2, 4, 11)),
        "average": (nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False), IMAGE),
        "unpooled": (Of(unpooled), IMAGE),
        "places": (nn.MaxPool2d(3, 2, 1, return_indices=True, ceil_mode=True), IMAGE),
        "one group": (nn.GroupNorm(1, 4), IMAGE + 30),
        "instance norm": (nn.InstanceNorm2d(4, affine=True), IMAGE),
        "local response": (nn.LocalResponseNorm(2), IMAGE),
        "truth": (Of(lambda m, x: {"seen": x > 0, "rows": (x, (x > 0.3).any(-1))}), ROWS),
        "tails": (Of(lambda m, x: m.loss.log_prob(x[:, 0]), loss=nn.AdaptiveLogSoftmaxWithLoss(8, 20, [4, 10])), ROWS),
        "narrow": (Of(halved, layer=nn.Linear(8, 4)), ROWS),
        "packed": (
            Of(packed, lstm=nn.LSTM(8, 4, 2, bidirectional=True, batch_first=True), gru=nn.GRU(8, 4, batch_first=True)),
            (ROWS, torch.tensor([3, 5, 4])),
        ),
        "spectrum": (Of(spectrum, filter=nn.Parameter(torch.randn(9, 4, 4, 2))), IMAGE),
        "solved": (Of(solved), ROWS),
        "rotary": (Rotary(), ROWS),
        "positions": (Of(positions, speeds=nn.Parameter(torch.rand(8))), ROWS),
        "picked": (
            Of(picked, token=nn.Parameter(torch.randn(8)), layer=nn.Linear(8, 8)),
            (ROWS, torch.rand(3, 6, generator=torch.Generator().manual_seed(2)) > 0.5),
        ),
        "sent": (Of(sent), (ROWS, IDS)),
        "framed": (Of(framed), torch.randn(2, 40)),
        "each its own": (
            Of(each_its_own, layer=nn.Linear(3, 216), turn=nn.Parameter(torch.randn(4, dtype=torch.complex64))),
            (IMAGE, torch.randn(2, 3)),
        ),
        "softplus": (nn.Softplus(2, 1), IMAGE),
        "lstm cell": (Of(stepped, cell=nn.LSTMCell(8, 4)), ROWS),
        "gru cell": (Of(stepped, cell=nn.GRUCell(8, 4, bias=False)), ROWS),
        "rnn cell": (Of(stepped, cell=nn.RNNCell(8, 4, nonlinearity="relu")), ROWS),
        "projected": (nn.LSTM(8, 6, 2, batch_first=True, bidirectional=True, proj_size=3), ROWS),
        "attention": (Of(padded, attention=nn.MultiheadAttention(8, 2, batch_first=True)), (ROWS, hidden)),
        "decoder": (
            Of(decoded, decoder=nn.TransformerDecoder(nn.TransformerDecoderLayer(8, 2, 16, batch_first=True), 1)),
            (ROWS, ROWS[:, :4]),
        ),
        "hidden rows": (Of(hidden_rows), (ROWS, seen)),
        "largest norm": (nn.Embedding(10, 6, max_norm=1.0), IDS),
        "bags": (nn.EmbeddingBag(10, 6, mode="mean", padding_idx=0), IDS),
        "bags of offsets": (
            Of(lambda m, i, o: m.bag(i, o), bag=nn.EmbeddingBag(10, 6, mode="max")),
            (torch.tensor([1, 2, 3, 4, 5, 6]), torch.tensor([0, 2, 5])),
        ),
        "bilinear": (nn.Bilinear(4, 5, 3), (torch.randn(2, 6, 4), torch.randn(2, 6, 5))),
        "cosine": (nn.CosineSimilarity(1), (IMAGE, IMAGE.flip(0))),
        "distance": (nn.PairwiseDistance(1, keepdim=True), (ROWS, ROWS.flip(0))),
        "fold": (nn.Fold((7, 8), (2, 3), dilation=2, stride=(1, 2), padding=(0, 1)), torch.randn(2, 12, 15)),
        "affine": (
            Of(lambda m, x, t: F.grid_sample(x, F.affine_grid(t, x.shape, align_corners=True), align_corners=True)),
            (IMAGE, torch.randn(2, 2, 3) / 2),
        ),
        "weight norm": (nn.utils.parametrizations.weight_norm(nn.Linear(7, 3), dim=None), IMAGE),
        "views": (Of(written_through_views), ROWS),
        "listed": (Of(listed, layers=nn.ModuleList([nn.Linear(8, 3) for _ in range(3)])), ROWS),
        "constants": (Of(constants), ROWS),
        "remembered": (Caching(), ROWS),
        "each image its kernel": (
            Of(
                lambda m, x, k: F.conv_transpose2d(
                    x.reshape(1, -1, 9, 7), k.view(-1, 2, 3, 3), stride=2, padding=1, groups=len(x)
                ).view(len(x), 2, 17, 13)
            ),
            (IMAGE, torch.randn(2, 4 * 2 * 9)),
        ),
        "hashed": (Of(lambda m, i: (i * torch.tensor(2654435761) ^ (i + 3) * 805459861) % 64), IDS),
        "neutral": (Of(lambda m, x: sum([x[:, 0] * 1, x[:, 1] + 0.0])), ROWS),
        "shifts": (Of(lambda m, i: ((i * 3) >> 1, ~i, i & 3)), IDS),
        "scattered": (Of(lambda m, x: x.scatter_add(1, torch.zeros_like(x[:, :2]).long(), x[:, :2])), ROWS),
        **{
            f"{name} in place": (Of(lambda m, x, change=change: change(x.sin())), ROWS)
            for name, change in IN_PLACE.items()
        },
        "one for many": (
            Of(
                lambda m, x: (
                    torch.einsum("bic,bjc->bij", x, x[:, :1, :1]),
                    torch.einsum("bic,jc->ibj", x[:, :1], x[0]),
                )
            ),
            ROWS,
        ),
        "apart": (Of(lambda m, x: x[:, torch.tensor([1, 2])][:, :, torch.tensor([0, 3])].fmod(0.3)), ROWS),
    }
    for method in ("bilinear", "nearest", "bicubic"):
        for fill in ("zeros", "border", "reflection"):
            read = Of(lambda m, x, g, method=method, fill=fill: F.grid_sample(x, g, method, fill, align_corners=False))
            found[f"{method} {fill}"] = (read, (IMAGE, grid))
    for model, _ in found.values():
        model.eval()
    return found


def test_each_layer_and_each_kind_of_code_computes_the_same(tmp_path: Path) -> None:
    writer, trials = get_backend("keras")[WRITER], {}
    for number, (name, (model, inputs)) in enumerate(layers().items()):
        backend = backend_of(model)
        written = drafted_for(backend, model, inputs, writer.dialect())
        path = tmp_path / f"model_{number}.py"
        path.write_text(written.draft.written.text)
        weights = writer.write_weights(written.arrays, tmp_path, path.stem)
        given = cases(backend, inputs, written.variation)
        if name in LENGTHS:
            assert written.variation is not None
            assert written.variation.name == LENGTHS[name], (name, written.notes)
        trials[name] = trial(backend, model, written.draft, given, "keras", path, weights)
    outcomes = run_in_process([found.job for found in trials.values()], {"KERAS_BACKEND": "torch"})
    wrong = {}
    for (name, found), outcome in zip(trials.items(), outcomes, strict=True):
        rows = [] if isinstance(outcome, str) else judged(found, outcome)
        if not rows or not all(row.is_same for row in rows):
            wrong[name] = outcome if isinstance(outcome, str) else [row for row in rows if not row.is_same]
    assert not wrong


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        return x * self.count


@pytest.mark.parametrize(
    ("model", "inputs", "said"),
    [
        (Counting(), ROWS, "buffer 'count' is changed by each call"),
        (nn.FractionalMaxPool2d(2, output_size=3), IMAGE, "rand"),
        (Of(lambda m, x: torch.linalg.svd(x).S), ROWS, "svd"),
        (nn.AdaptiveMaxPool2d(3, return_indices=True), IMAGE, "result 1 of operator aten.adaptive_max_pool2d"),
        (Of(lambda m, x: x[x > 0]), ROWS, "numbers that a mask picks"),
    ],
)
def test_what_cannot_be_ported_is_refused_by_name(model: nn.Module, inputs: Tensor, said: str) -> None:
    with pytest.raises(ag.InvalidInput, match=said):
        ag.port(model.eval(), "keras", inputs, check=False)


def test_dropouts_keep_their_kind_of_noise() -> None:
    model = nn.Sequential(
        nn.Linear(8, 8), nn.AlphaDropout(0.25), nn.Linear(8, 8), nn.FeatureAlphaDropout(0.125), nn.Linear(8, 8)
    )
    source = ag.port(model.eval(), "keras", ROWS, check=False).source
    assert "layers.AlphaDropout(0.25" in source
    assert re.search(r"layers.AlphaDropout\(0.125, noise_shape=\(None, None, 1\)", source)


def test_a_comment_says_where_axes_are_moved_and_what_for() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.PixelShuffle(2), nn.Conv2d(2, 4, 1), nn.Flatten(), nn.BatchNorm1d(4 * 64)
    )
    ported = ag.port(model.eval(), "keras", torch.randn(2, 3, 4, 4), check=False)
    assert ported.source.startswith('"""Sequential for Keras, ported from torch. Images have their channels last."""')
    said = re.findall("# axes moved for (.*)\\n.*ops.transpose", ported.source)
    assert said == ["convolution", "batch_norm"]
    assert len(said) == ported.source.count("ops.transpose")


class Remembering(nn.Module):
    """Returns an object of its own beside an array, as models of language return what they remember."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> dict[str, Any]:
        """Rows, and an object."""
        return {"rows": self.layer(x).relu(), "memory": Of(constants)}


def test_an_object_in_the_output_is_left_out_with_a_note() -> None:
    ported = ag.port(Remembering().eval(), "keras", ROWS, check=False)
    assert any("object of class Of in the output is left out" in note for note in ported.report.notes)
    assert re.search(r"return dict\(rows=.*\)\n", ported.source)
