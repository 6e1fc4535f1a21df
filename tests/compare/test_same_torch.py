"""Pairs that compute the same, by another program or in another order of arithmetic: none may be called different."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import agnostic as ag

torch = pytest.importorskip("torch")
nn, F = torch.nn, torch.nn.functional


def _seeded(make: Callable[[], Any]) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = make().eval()
        for x in model.modules():
            if isinstance(x, nn.BatchNorm2d):
                x.running_mean.normal_(0, 0.3)
                x.running_var.uniform_(0.5, 2)
                x.weight.data.uniform_(0.5, 1.5)
    return model


def _plain() -> Any:
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(3, 8, 3, padding=1, bias=False), norm=nn.BatchNorm2d(8), act=nn.ReLU(),
            conv2=nn.Conv2d(8, 16, 3, stride=2, padding=1), act2=nn.GELU(), drop=nn.Dropout(0.5),
            pool=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten(), head=nn.Linear(16, 5), soft=nn.Softmax(-1),
        )
    )  # fmt: skip


class Functional(nn.Module):
    """What _plain computes, with functions where it has modules, and other names."""

    def __init__(self, of: Any) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = of.conv, of.norm, of.conv2, of.head

    def forward(self, x: Any) -> Any:
        x = F.gelu(self.c(F.relu(self.b(self.a(x)))))
        return self.d(x.mean((2, 3))).softmax(-1)


class Fused(nn.Module):
    """The batch norm in the convolution's weights."""

    def __init__(self, of: Any) -> None:
        super().__init__()
        self.first = nn.utils.fusion.fuse_conv_bn_eval(of.conv, of.norm)
        self.rest = of[2:]

    def forward(self, x: Any) -> Any:
        return self.rest(self.first(x))


class Branches(nn.Module):
    """Two branches of equal shapes, a shared layer, dense connections."""

    def __init__(self, swapped: bool = False) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 3, padding=1)
        self.shared, self.last, self.act = nn.Conv2d(4, 4, 1), nn.Conv2d(8, 2, 3), nn.ReLU(inplace=True)
        self.swapped = swapped

    def forward(self, x: Any) -> Any:
        def right() -> Any:
            return self.shared(self.act(self.right(x)))

        def left() -> Any:
            return self.shared(self.act(self.left(x)))

        if self.swapped:
            y, z = right(), left()
        else:
            z, y = left(), right()
        return self.last(torch.cat([z, z + y], 1))


class Attention(nn.Module):
    """A transformer block; by hand the projections are linear layers and functions."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(3, 16)
        self.norm, self.attention = nn.LayerNorm(16, eps=1e-6), nn.MultiheadAttention(16, 4, batch_first=True)
        self.mlp, self.out = nn.Linear(16, 32), nn.Linear(32, 4)

    def forward(self, x: Any) -> Any:
        x = self.embed(x.flatten(2).transpose(1, 2))
        y = self.norm(x)
        x = x + self.attend(y)
        return self.out(F.gelu(self.mlp(x)))

    def attend(self, y: Any) -> Any:
        return self.attention(y, y, y, need_weights=False)[0]


class ByHand(Attention):
    def attend(self, y: Any) -> Any:
        m = self.attention
        q, k, v = F.linear(y, m.in_proj_weight, m.in_proj_bias).chunk(3, -1)
        q, k, v = (x.unflatten(-1, (4, 4)).transpose(1, 2) for x in (q, k, v))
        z = (q @ k.transpose(-1, -2) / 2).softmax(-1) @ v
        return m.out_proj(z.transpose(1, 2).flatten(2))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.gru = nn.LSTM(3, 8, bidirectional=True), nn.GRU(16, 4, batch_first=True)

    def forward(self, x: Any) -> Any:
        x, _ = self.lstm(x.flatten(2).permute(2, 0, 1))
        return self.gru(x.transpose(0, 1))[0][:, -1]


class Two(nn.Module):
    """Two inputs and two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 3), nn.Bilinear(3, 5, 2)

    def forward(self, x: Any, y: Any) -> Any:
        x = self.a(x)
        return {"sum": x, "both": self.b(x, y)}


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.out = nn.Embedding(11, 6, padding_idx=0), nn.Linear(6, 3)

    def forward(self, x: Any) -> Any:
        return self.out(self.embed(x))


def _deep() -> Any:
    layers = [x for _ in range(60) for x in (nn.Conv2d(4, 4, 3, padding=1), nn.Tanh())]
    return nn.Sequential(nn.Conv2d(3, 4, 1), *layers)


def _scaled(factor: float) -> Callable[[], Any]:
    def make() -> Any:
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.LayerNorm([4, 12, 12]))
        model[0].weight.data *= factor
        model[0].bias.data *= factor
        return model

    return make


def _zeros() -> Any:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1), nn.Softmax(1))
    model[0].bias.data.fill_(-100.0)
    nn.init.zeros_(model[3].weight)
    return model


def _saturated() -> Any:
    model = nn.Sequential(nn.Flatten(), nn.Linear(768, 10), nn.Softmax(-1))
    model[1].weight.data *= 1000
    return model


def _last_channels(model: Any) -> Any:
    return copy.deepcopy(model).to(memory_format=torch.channels_last)


def _swapped(model: Any) -> Any:
    other = copy.deepcopy(model)
    other.swapped = True
    return other


def _by_hand(model: Any) -> Any:
    other = ByHand()
    other.load_state_dict(model.state_dict())
    return other.eval()


PAIRS: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "itself": (_plain, lambda m: m),
    "functions": (_plain, Functional),
    "fused": (_plain, Fused),
    "split": (lambda: Fused(_seeded(_plain)), lambda m: _seeded(_plain)),
    "memory": (_plain, _last_channels),
    "branches": (Branches, _swapped),
    "attention": (Attention, _by_hand),
    "attention-opened": (lambda: _by_hand(_seeded(Attention)), lambda m: _seeded(Attention)),
    "recurrent": (Recurrent, copy.deepcopy),
    "deep": (_deep, _last_channels),
    "tiny": (_scaled(1e-20), _last_channels),
    "denormal": (_scaled(1e-39), _last_channels),
    "huge": (_scaled(1e15), _last_channels),
    "zeros": (_zeros, _last_channels),
    "saturated": (_saturated, copy.deepcopy),
    "half": (lambda: _plain().half(), _last_channels),
    "bfloat16": (lambda: _plain().bfloat16(), _last_channels),
    "double": (lambda: _plain().double(), _last_channels),
}


@pytest.mark.parametrize("name", PAIRS)
def test_a_correct_pair_is_the_same(name: str, images: np.ndarray[Any, Any]) -> None:
    make, other = PAIRS[name]
    a = _seeded(make)
    b = other(a)
    if name.startswith(("attention", "recurrent")):  # they have no convolution, so they take no images as such
        images = np.moveaxis(images, -1, 1)
    found = ag.compare(a, b.eval(), images)
    assert found.same, str(found)
    # Not by looking away: the operators were compared, and the layers that stand for each other return the same.
    assert not any("not by the operators" in note for note in found.notes), found.notes
    assert any(x.verdict == "same" for x in found.table)
    ag.testing.assert_same_model(a, b, images)


def test_several_inputs_and_outputs() -> None:
    rng = np.random.default_rng(1)
    a = _seeded(Two)
    inputs = {"x": rng.normal(size=(5, 4)).astype(np.float32), "y": rng.normal(size=(5, 5)).astype(np.float32)}
    found = ag.compare(a, copy.deepcopy(a), inputs)
    assert found.same
    assert len(found.output) == 2
    b = copy.deepcopy(a)
    b.b.bias.data += 1e-3
    assert str(ag.compare(a, b, tuple(inputs.values())).first_divergence) == "b"


def test_tokens() -> None:
    tokens = np.random.default_rng(2).integers(0, 11, (4, 7))
    a = _seeded(Tokens)
    assert ag.compare(a, copy.deepcopy(a), tokens).same
    b = copy.deepcopy(a)
    b.embed.weight.data[3] += 1e-3
    assert str(ag.compare(a, b, tokens).first_divergence) == "embed"


def test_what_fusing_did_is_one_place(images: np.ndarray[Any, Any]) -> None:
    a = _seeded(_plain)
    found = ag.compare(a, Fused(a).eval(), images)
    assert found.matches[0] == ("norm", "first")
    assert found.unmatched["a"] == ("conv",)
    assert found.weights[1] == 0
    assert ag.compare(Fused(a).eval(), a, images).matches[0] == ("first", "norm")


def test_the_models_are_left_as_they_were(images: np.ndarray[Any, Any]) -> None:
    a = _seeded(_plain)
    a.norm.train()
    before = {k: v.clone() for k, v in a.state_dict().items()}
    state = torch.random.get_rng_state()
    ag.compare(a, copy.deepcopy(a), images)
    assert a.norm.training
    assert not a.conv.training
    for name, value in a.state_dict().items():
        assert value.dtype == before[name].dtype
        assert torch.equal(value, before[name]), name
    assert torch.equal(torch.random.get_rng_state(), state)
    assert "forward" not in vars(a.conv)
