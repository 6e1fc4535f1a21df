"""Models compared by the operators that run: correct pairs that are written otherwise, and what is said of mistakes."""

from __future__ import annotations

import copy
import html
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import agnostic as ag
from agnostic.compare.leaf_relations import relation
from agnostic.compare.source_patch import source_patch
from agnostic.program.nodes import Node

torch = pytest.importorskip("torch")
nn, F = torch.nn, torch.nn.functional

from tests.compare import networks as net  # noqa: E402 - needs torch


class Code(nn.Module):
    """A forward pass as a function of its layers."""

    def __init__(self, forward: Callable[..., Any], **layers: Any) -> None:
        super().__init__()
        for name, layer in layers.items():
            if isinstance(layer, torch.Tensor) and not isinstance(layer, nn.Parameter):
                self.register_buffer(name, layer)
            else:
                setattr(self, name, layer)
        self._forward = forward

    def forward(self, *inputs: Any) -> Any:
        return self._forward(self, *inputs)


def _made(make: Callable[[], Any]) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return net.randomized(make())


def _normal(*shape: int, seed: int = 1) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


# Correct pairs: (A, B, inputs) ---------------------------------------------------------------------------------------
def _attention(mask: str = "", first: bool = True, sdpa: bool = False) -> Callable[[Any, Any], Any]:
    def forward(self: Any, x: Any) -> Any:
        if mask == "padding":
            return self.a(x, x, x, key_padding_mask=torch.zeros(x.shape[:2], dtype=torch.bool), need_weights=False)[0]
        if mask == "zeros":
            return self.a(x, x, x, attn_mask=torch.zeros(x.shape[1], x.shape[1]), need_weights=False)[0]
        if not first:
            return self.a(*[x.transpose(0, 1)] * 3, need_weights=False)[0].transpose(0, 1)
        if sdpa:
            q, k, v = (
                F.linear(x, w, b).unflatten(-1, (3, -1)).transpose(1, 2)
                for w, b in zip(self.a.in_proj_weight.chunk(3), self.a.in_proj_bias.chunk(3), strict=True)
            )
            return self.a.out_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return self.a(x, x, x, need_weights=False)[0]

    return forward


def _multihead(**options: Any) -> tuple[Any, Any, Any]:
    a = _made(lambda: nn.MultiheadAttention(12, 3, batch_first=True))
    b = copy.deepcopy(a)
    b.batch_first = options.get("first", True)
    return Code(_attention(), a=a).eval(), Code(_attention(**options), a=b).eval(), _normal(2, 5, 12)


def _linears() -> tuple[Any, Any, Any]:
    """Three Linear layers against one MultiheadAttention, and scores by hand."""
    a = _made(lambda: nn.MultiheadAttention(12, 3, batch_first=True))
    layers = {}
    for k, name in enumerate(("q", "k", "v")):
        layers[name] = nn.Linear(12, 12)
        layers[name].weight.data = a.in_proj_weight.data[12 * k : 12 * k + 12].clone()
        layers[name].bias.data = a.in_proj_bias.data[12 * k : 12 * k + 12].clone()

    def forward(self: Any, x: Any) -> Any:
        q, k, v = (f(x).unflatten(-1, (3, 4)).transpose(1, 2) for f in (self.q, self.k, self.v))
        return self.out((torch.matmul(q, k.mT) / 2).softmax(-1).matmul(v).transpose(1, 2).flatten(2))

    return (
        Code(_attention(), a=a).eval(),
        Code(forward, out=copy.deepcopy(a.out_proj), **layers).eval(),
        _normal(2, 5, 12),
    )


def _rope(interleaved: bool) -> Callable[[Any, Any], Any]:
    def turn(x: Any) -> Any:
        angle = torch.arange(x.shape[1], dtype=x.dtype)[:, None] / 100 ** (torch.arange(4, dtype=x.dtype) / 4)
        c, s = angle.cos(), angle.sin()
        if interleaved:
            a, b = x[..., ::2], x[..., 1::2]
            return torch.stack([a * c - b * s, a * s + b * c], -1).flatten(-2)
        a, b = x.chunk(2, -1)
        return torch.cat([a * c - b * s, a * s + b * c], -1)

    def forward(self: Any, x: Any) -> Any:
        q, k = turn(self.q(x)), turn(self.k(x))
        return (q @ k.mT).softmax(-1) @ x

    return forward


def _permuted_rope() -> tuple[Any, Any, Any]:
    layers = {name: _made(lambda: nn.Linear(8, 8)) for name in ("q", "k")}
    layers["k"].weight.data += 0.1
    b = copy.deepcopy(layers)
    for layer in b.values():
        for p in layer.parameters():
            p.data = torch.stack([p.data[:4], p.data[4:]], 1).flatten(0, 1)
    return Code(_rope(False), **layers).eval(), Code(_rope(True), **b).eval(), _normal(2, 5, 8)


def _layer_scale() -> tuple[Any, Any, Any]:
    a = _made(lambda: Code(lambda s, x: x + s.gamma * s.f(x), f=nn.Linear(8, 8), gamma=nn.Parameter(torch.rand(8))))
    b = Code(lambda s, x: x + s.f(x), f=copy.deepcopy(a.f)).eval()
    b.f.weight.data *= a.gamma.data[:, None]
    b.f.bias.data *= a.gamma.data
    return a, b, _normal(4, 8)


def _repvgg() -> tuple[Any, Any, Any]:
    a = _made(
        lambda: Code(
            lambda s, x: F.relu(s.n3(s.c3(x)) + s.n1(s.c1(x)) + s.n0(x)),
            c3=nn.Conv2d(4, 4, 3, padding=1, bias=False), c1=nn.Conv2d(4, 4, 1, bias=False),
            n3=nn.BatchNorm2d(4), n1=nn.BatchNorm2d(4), n0=nn.BatchNorm2d(4),
        )
    )  # fmt: skip
    kernel, bias = torch.zeros(4, 4, 3, 3), torch.zeros(4)
    identity = torch.eye(4)[:, :, None, None]
    for norm, weight in ((a.n3, a.c3.weight), (a.n1, F.pad(a.c1.weight, (1,) * 4)), (a.n0, F.pad(identity, (1,) * 4))):
        factor = norm.weight / (norm.running_var + norm.eps).sqrt()
        kernel += (weight * factor[:, None, None, None]).data
        bias += (norm.bias - norm.running_mean * factor).data
    b = Code(lambda s, x: F.relu(s.c(x)), c=nn.Conv2d(4, 4, 3, padding=1)).eval()
    b.c.weight.data, b.c.bias.data = kernel, bias
    return a, b, _normal(2, 4, 7, 7)


def _siamese() -> tuple[Any, Any, Any]:
    body = _made(lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()))

    def batched(self: Any, x: Any, y: Any) -> Any:
        one, two = self.body(torch.cat([x, y])).chunk(2)
        return (one - two).abs()

    a = Code(lambda s, x, y: (s.body(x) - s.body(y)).abs(), body=body).eval()
    return a, Code(batched, body=copy.deepcopy(body)).eval(), (_normal(2, 3, 8, 8), _normal(2, 3, 8, 8, seed=2))


def _pool_commuted() -> tuple[Any, Any, Any]:
    conv = _made(lambda: nn.Conv2d(3, 5, 1))
    a = Code(lambda s, x: s.c(F.avg_pool2d(x, 2)), c=conv).eval()
    return a, Code(lambda s, x: F.avg_pool2d(s.c(x), 2), c=copy.deepcopy(conv)).eval(), _normal(2, 3, 8, 8)


def _each_step() -> tuple[Any, Any, Any]:
    layer = _made(lambda: nn.Linear(6, 4))
    a = Code(lambda s, x: torch.stack([s.f(x[:, t]) for t in range(x.shape[1])], 1), f=layer).eval()
    return a, Code(lambda s, x: s.f(x), f=copy.deepcopy(layer)).eval(), _normal(2, 5, 6)


def _conv3d() -> tuple[Any, Any, Any]:
    one = _made(lambda: nn.Conv1d(3, 4, 3, padding=1))
    three = nn.Conv3d(3, 4, (3, 1, 1), padding=(1, 0, 0)).eval()
    three.weight.data, three.bias.data = one.weight.data[..., None, None].clone(), one.bias.data.clone()
    return (Code(lambda s, x: s.c(x), c=one).eval(),
            Code(lambda s, x: s.c(x[..., None, None])[..., 0, 0], c=three).eval(), _normal(2, 3, 9))  # fmt: skip


def _nan() -> tuple[Any, Any, Any]:
    layer = _made(lambda: nn.Linear(6, 4))
    a = Code(lambda s, x: s.f(x).sub(0.5).sqrt(), f=layer).eval()
    return a, Code(lambda s, x: (s.f(x) - 0.5) ** 0.5, f=copy.deepcopy(layer)).eval(), _normal(3, 6)


def _tokens_last() -> tuple[Any, Any, Any]:
    conv = _made(lambda: nn.Conv2d(3, 5, 1))
    linear = nn.Linear(3, 5).eval()
    linear.weight.data, linear.bias.data = conv.weight.data[:, :, 0, 0].clone(), conv.bias.data.clone()
    a = Code(lambda s, x: F.gelu(s.c(x)).flatten(2).transpose(1, 2), c=conv).eval()
    return a, Code(lambda s, x: F.gelu(s.f(x.flatten(2).transpose(1, 2))), f=linear).eval(), _normal(2, 3, 6, 6)


def _float64() -> tuple[Any, Any, Any]:
    a = _made(lambda: nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 3)))
    return copy.deepcopy(a).double(), a, _normal(3, 6)


CORRECT: dict[str, Callable[[], tuple[Any, Any, Any]]] = {
    "padding mask that hides nothing": lambda: _multihead(mask="padding"),
    "mask of zeros": lambda: _multihead(mask="zeros"),
    "sequence first": lambda: _multihead(first=False),
    "fused attention": lambda: _multihead(sdpa=True),
    "three linear layers": _linears,
    "rotary weights permuted": _permuted_rope,
    "layer scale folded": _layer_scale,
    "branches folded": _repvgg,
    "two images in one batch": _siamese,
    "pool before the 1 x 1": _pool_commuted,
    "step by step": _each_step,
    "a volume of one row": _conv3d,
    "NaN": _nan,
    "(N, H W, C)": _tokens_last,
    "float64 against float32": _float64,
    "float32 against float64": lambda: (lambda a, b, x: (b, a, x))(*_float64()),
}


@pytest.mark.parametrize("name", CORRECT)
def test_a_correct_pair_raises_no_alarm(name: str) -> None:
    a, b, inputs = CORRECT[name]()
    found = ag.compare(a, b, inputs)
    assert found.same, str(found)
    assert not any("not by the operators" in note for note in found.notes)


# Mistakes ------------------------------------------------------------------------------------------------------------
def _fixed(fix: str, model: Any, other: Any) -> None:
    """Run a fix as it is printed."""
    exec(fix, {"model": model, "other": other, "torch": torch, "ag": ag, "copy": copy})  # noqa: S102 - our own text


def _weights(change: Callable[[Any], None], name: str = "layer2.conv1") -> Callable[[Any], None]:
    def fault(model: Any) -> None:
        with torch.no_grad():
            change(model.get_submodule(name))

    return fault


def _epsilons(model: Any) -> None:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-3


RUNNABLE: dict[str, tuple[Callable[[Any], None], str]] = {
    "epsilon": (_weights(lambda m: setattr(m, "eps", 1e-3), "layer1.bn1"), "batch_norm_epsilon"),
    "epsilon everywhere": (_epsilons, "batch_norm_epsilon"),
    "training": (_weights(lambda m: m.train(), "layer1.bn2"), "train_mode"),
    "flipped": (_weights(lambda m: m.weight.copy_(m.weight.flip(2, 3))), "kernel_flipped"),
    "scaled": (_weights(lambda m: m.weight.mul_(1.5)), "weights_scaled"),
    "rows": (_weights(lambda m: m.weight.copy_(m.weight.roll(3, 0))), "weights_permuted"),
    "others": (
        _weights(lambda m: m.weight.copy_(torch.linspace(-1, 1, m.weight.numel()).view_as(m.weight))),
        "weights_differ",
    ),
    "statistics": (_weights(lambda m: m.reset_running_stats(), "layer2.bn1"), "statistics_missing"),
    "swapped": (
        _weights(lambda m: (w := m.weight.clone(), m.weight.copy_(m.bias), m.bias.copy_(w)), "layer1.bn1"),
        "gamma_beta_swapped",
    ),
}


@pytest.mark.parametrize("name", RUNNABLE)
def test_a_fix_runs(name: str) -> None:
    fault, mistake = RUNNABLE[name]
    a = net.randomized(net.Residual())
    b = copy.deepcopy(a)
    fault(b)
    found = ag.compare(a, b, net.images())
    (one,) = found.divergences
    assert one.findings[0].mistake == mistake, str(found)
    assert one.findings[0].proven
    assert one.findings[0].after < 10 < one.findings[0].before
    _fixed(one.findings[0].fix, b, a)
    assert ag.compare(a, b, net.images()).same


# Names by what stands around -----------------------------------------------------------------------------------------
def _encoder(batch_first: bool, norm_first: bool = True) -> Any:
    layer = nn.TransformerEncoderLayer(12, 3, 24, batch_first=batch_first, norm_first=norm_first)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


def _coded(forward: Callable[..., Any], **made: Callable[[], Any]) -> Any:
    return _made(lambda: Code(forward, **{name: make() for name, make in made.items()}))


_DENSE = {"f": lambda: nn.Linear(6, 6), "g": lambda: nn.Linear(6, 6)}
_IMAGE = {"f": lambda: nn.Conv2d(3, 4, 1), "n": lambda: nn.LayerNorm(4)}

AROUND: dict[str, tuple[Callable[[], Any], Callable[[], Any], tuple[int, ...], str]] = {
    "time and batch of each layer exchanged": (
        lambda: _made(lambda: _encoder(True)), lambda: _made(lambda: _encoder(False)), (3, 4, 12), "features_permuted",
    ),
    "norm behind the block": (
        lambda: _made(lambda: _encoder(True)), lambda: _made(lambda: _encoder(True, False)), (3, 4, 12), "layer_order",
    ),
    "parts of turned arrays": (
        lambda: _coded(lambda s, x: torch.cat([s.f(x).flatten(2).mT, torch.ones(len(x), 1, 4)], 1), **_IMAGE),
        lambda: _coded(lambda s, x: torch.cat([torch.ones(len(x), 1, 4), s.f(x).flatten(2).mT], 1), **_IMAGE),
        (2, 3, 5, 5), "concatenation_order",
    ),
    "SELU by its function": (
        lambda: _coded(lambda s, x: s.g(F.selu(s.f(x))), **_DENSE),
        lambda: _coded(lambda s, x: s.g(F.elu(s.f(x))), **_DENSE), (4, 6), "activation_differs",
    ),
    "instance norm": (
        lambda: _coded(lambda s, x: F.instance_norm(s.f(x), eps=1e-5), **_IMAGE),
        lambda: _coded(lambda s, x: F.instance_norm(s.f(x), eps=1e-1), **_IMAGE), (2, 3, 5, 5), "norm_epsilon",
    ),
    "a product added to scores": (
        lambda: _coded(lambda s, x: (s.f(x) @ x.mT + s.g(x) @ x.mT).softmax(-1) @ x, **_DENSE),
        lambda: _coded(lambda s, x: (s.f(x) @ x.mT).softmax(-1) @ x, **_DENSE), (2, 4, 6), "residual_missing",
    ),
    "a sum that is used elsewhere": (
        lambda: _coded(lambda s, x: s.g(s.f(x) + x).tanh() * (s.f(x) + x).exp(), **_DENSE),
        lambda: _coded(lambda s, x: s.g(s.f(x) + x).tanh() * x.exp(), **_DENSE), (4, 6), "residual_missing",
    ),
    "resized behind the layer": (
        lambda: _coded(lambda s, x: s.f(F.interpolate(x, scale_factor=2)), **_IMAGE),
        lambda: _coded(lambda s, x: F.interpolate(s.f(x), scale_factor=2, mode="bilinear"), **_IMAGE),
        (2, 3, 5, 5), "interpolation",
    ),
    "shifted round": (
        lambda: _coded(lambda s, x: s.g(F.pad(s.f(x), (0, 0, 1, 0))[:, :-1]), **_DENSE),
        lambda: _coded(lambda s, x: s.g(s.f(x).roll(1, 1)), **_DENSE), (2, 4, 6), "padding_mode",
    ),
    "tokens shifted, steps by hand": (
        lambda: _coded(lambda s, x: sum(s.g(e) * k for k, e in enumerate(s.e(F.pad(x, (1, 0))).unbind(1), 1)),
                       e=lambda: nn.Embedding(9, 6), **_DENSE),
        lambda: _coded(lambda s, x: sum(s.g(e) * k for k, e in enumerate(s.e(F.pad(x, (0, 1))).unbind(1), 1)),
                       e=lambda: nn.Embedding(9, 6), **_DENSE),
        (2, 4), "same_padding",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", AROUND)
def test_a_mistake_is_named_by_what_stands_around_it(name: str) -> None:
    a, b, shape, mistake = AROUND[name]
    tokens = np.random.default_rng(1).integers(0, 9, shape)
    found = ag.compare(a().eval(), b().eval(), tokens if len(shape) == 2 and shape[1] == 4 else _normal(*shape))
    first = found.divergences[0].findings[0]
    assert first.mistake == mistake, str(found)
    assert first.proven
    if mistake == "features_permuted":
        (one,) = found.divergences
        assert "The same in 2 layers" in one.findings[0].sentence


def test_a_layer_without_room_for_the_weights_is_exchanged() -> None:
    a = _made(lambda: nn.Sequential(nn.Conv2d(4, 8, 3, groups=4), nn.ReLU(), nn.InstanceNorm2d(8, affine=True)))
    b = _made(lambda: nn.Sequential(nn.Conv2d(4, 8, 3, groups=2), nn.ReLU(), nn.InstanceNorm2d(8)))
    found = ag.compare(a, b, _normal(2, 4, 6, 6))
    for one in found.divergences:
        _fixed(one.findings[0].fix, b, a)
    assert ag.compare(a, b, _normal(2, 4, 6, 6)).same, str(found)


def test_a_patch_may_use_what_the_class_of_the_framework_has(tmp_path: Path) -> None:
    text = "class Net(Module):\n    def forward(self, x):\n        x = self.f(x)\n        return drop(x, {})\n"
    nodes = []
    for name, given in (("a", "0.2, self.training"), ("b", "0.2")):
        (tmp_path / f"{name}.py").write_text(text.format(given), encoding="utf-8")
        nodes.append(Node("multiply", (), {}, (), "", "", str(tmp_path / f"{name}.py"), 4))
    assert "+        return drop(x, 0.2, self.training)" in source_patch(nodes[:1], nodes[1:])
    (tmp_path / "a.py").write_text(text.format("self.rate").replace("x = ", "self.rate = "), encoding="utf-8")
    assert source_patch(nodes[:1], nodes[1:]) == ""


def test_the_places_of_both_sides() -> None:
    a, b = net.randomized(net.CodedUNet()), net.randomized(net.CodedUNet(mode="nearest"))
    b.load_state_dict(a.state_dict())
    finding = ag.compare(a, b, net.images()).diagnosis[0]
    assert finding.proven
    assert "resize_nearest stands where A has resize_bilinear" in finding.sentence
    for place in (finding.place_a, finding.place_b):
        file, _, line = place.rpartition(":")
        with open(file, encoding="utf-8") as source:
            assert "F.interpolate(m" in source.read().splitlines()[int(line) - 1]


def test_a_difference_that_the_outputs_do_not_show_is_a_remark() -> None:
    a = _made(lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3)))
    a[2].weight.data.zero_()
    b = copy.deepcopy(a)
    b[0].bias.data += 1.0
    found = ag.compare(a, b, net.images())
    assert found.same
    assert "At layer '0' 0.bias differs" in found.remarks[0]
    assert found.remarks[0].endswith("The outputs do not show it.")
    assert "remark: At layer '0'" in str(found)
    assert not ag.compare(a, b, net.images(), strict=True).same


class Scaled(nn.Module):
    """A block whose branch is multiplied by 1e-6, as LayerScale starts."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.wide, self.act, self.back = nn.LayerNorm(8), nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8)
        self.scale = nn.Parameter(torch.full((8,), 1e-6))

    def forward(self, x: Any) -> Any:
        return x + self.scale * self.back(self.act(self.wide(self.norm(x))))


def test_a_damped_difference_is_a_remark_with_its_name_and_its_size() -> None:
    a = _made(lambda: nn.Sequential(nn.Linear(5, 8), Scaled(), Scaled(), nn.Linear(8, 3)))
    for block in a[1:3]:
        block.scale.data.fill_(1e-6)
    b = copy.deepcopy(a)
    b[1].act, b[2].act = nn.ReLU(), nn.ReLU()
    found = ag.compare(a, b, _normal(4, 5))
    assert found.same
    assert "relu stands where A has gelu. The same in 2 places. The outputs are" in found.remarks[0]
    assert float(found.remarks[0].partition("outputs are ")[2].split()[0]) < 1e-5
    assert not ag.compare(a, b, _normal(4, 5), strict=True).same


def test_a_mask_is_one_whether_it_is_added_or_chosen_by() -> None:
    def forward(self: Any, x: Any) -> Any:
        q, k, v = self.qkv(x).unflatten(-1, (3, -1)).unsqueeze(1).unbind(3)
        if self.whole:
            return F.scaled_dot_product_attention(q, k, v, is_causal=True)
        scores = (q @ k.mT) * self.scale
        return scores.masked_fill(~torch.ones(5, 5).tril(self.diagonal).bool(), -1e9).softmax(self.axis) @ v

    def model(whole: bool, scale: float = 0.5, diagonal: int = 0, axis: int = -1) -> Any:
        found = Code(forward, qkv=_made(lambda: nn.Linear(4, 12)))
        found.whole, found.scale, found.diagonal, found.axis = whole, scale, diagonal, axis
        return found.eval()

    x = _normal(2, 5, 4)
    assert ag.compare(model(True), model(False), x).same
    for options, mistake in (({"scale": 1.0}, "attention_scale"), ({"axis": -2}, "softmax_axis"),
                             ({"diagonal": 1}, "attention_mask")):  # fmt: skip
        found = ag.compare(model(True), model(False, **options), x)
        assert [d.findings[0].mistake for d in found.divergences] == [mistake], str(found)
        assert found.diagnosis[0].proven


def test_what_is_smaller_than_a_rounding_of_weights_and_shows_is_named() -> None:
    def model(epsilon: float) -> Any:
        return Code(lambda self, x: self.a(x) + 1e-3 * self.n(x), a=_made(lambda: nn.Linear(6, 6)),
                    n=_made(lambda: nn.LayerNorm(6, eps=epsilon)))  # fmt: skip

    found = ag.compare(model(1e-5).eval(), model(3e-3).eval(), _normal(4, 6))
    [one] = found.divergences
    assert 1 < one.error < 1000
    assert one.findings[0].mistake == "layer_norm_epsilon"
    assert one.findings[0].proven


def test_a_mistake_at_more_places_than_there_are_rounds_is_one_finding(tmp_path: Path) -> None:
    a = _made(lambda: nn.Sequential(*[nn.Sequential(nn.Linear(6, 6), nn.LayerNorm(6), nn.Tanh()) for _ in range(40)]))
    b = copy.deepcopy(a)
    for module in b.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 0.1
    found = ag.compare(a, b, _normal(4, 6))
    (one,) = found.divergences
    assert one.findings[0].mistake == "layer_norm_epsilon"
    assert "The same in 40 layers" in one.findings[0].sentence
    found.html(tmp_path / "page.html")
    page = html.unescape((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert f"<pre>{one.findings[0].fix}</pre>" in page  # with its lines
    assert one.findings[0].proven
    _fixed(one.findings[0].fix, b, a)
    assert ag.compare(a, b, _normal(4, 6)).same


class Masked(nn.Module):
    """Holds which places are seen."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)
        self.register_buffer("mask", torch.ones(6, 6, dtype=torch.bool).tril())

    def forward(self, x: Any) -> Any:
        return torch.where(self.mask, self.layer(x), torch.zeros(()))


def test_a_buffer_of_truth_values_that_differs_is_a_mask() -> None:
    a = _made(Masked)
    b = copy.deepcopy(a)
    b.mask.copy_(b.mask.tril(-1))
    (one,) = ag.compare(a, b, _normal(6, 6)).divergences
    assert one.findings[0].mistake == "attention_mask"
    assert one.findings[0].proven
    _fixed(one.findings[0].fix, b, a)
    assert ag.compare(a, b, _normal(6, 6)).same


def test_what_complex_numbers_are_to_others_is_told_without_a_warning() -> None:
    x = np.exp(1j * np.random.default_rng(2).normal(size=(4, 6)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert relation(x, 2 * x, "turns").mistake == "weights_scaled"
        assert relation(x, x.conj(), "turns").mistake == "weights_differ"


def test_two_mistakes_are_two_findings() -> None:
    a = net.randomized(net.Plain())
    b = net.randomized(net.Plain(tanh=True, leaky=True))
    b.load_state_dict(a.state_dict())
    found = ag.compare(a, b, net.images())
    assert [x.findings[0].mistake for x in found.divergences] == ["activation_differs", "gelu_tanh"]
    assert all(x.findings[0].proven for x in found.divergences)


class _Sampling(torch.nn.Module):
    """A grid sampled by some settings, and an activation that may give nothing but zeros."""

    def __init__(self, function=torch.nn.functional.softplus, **settings) -> None:
        super().__init__()
        self.function, self.settings = function, {"mode": "bilinear", "align_corners": False, **settings}

    def forward(self, x):
        grid = torch.stack(torch.meshgrid(torch.linspace(-1.1, 0.9, 5), torch.linspace(-1, 1, 6), indexing="ij"), -1)
        return self.function(torch.nn.functional.grid_sample(x, grid.expand(len(x), 5, 6, 2), **self.settings) - 9)


@pytest.mark.parametrize(("fault", "mistake"), [
    ({"align_corners": True}, "align_corners"), ({"mode": "nearest"}, "interpolation"),
    ({"padding_mode": "border"}, "padding_mode"), ({"function": torch.relu}, "activation_differs"),
])  # fmt: skip
def test_settings_of_a_sampled_grid_are_named_and_outputs_may_be_zeros(fault, mistake) -> None:
    found = ag.compare(_Sampling(), _Sampling(**fault), np.random.default_rng(0).random((2, 3, 4, 4), np.float32))
    assert [x.findings[0].mistake for x in found.divergences] == [mistake]
    assert found.divergences[0].findings[0].proven


def test_what_cannot_be_recorded_is_said() -> None:
    layer = _made(lambda: nn.Linear(6, 4))
    a = Code(lambda s, x: s.f(x), f=layer).eval()
    b = Code(lambda s, x: s.f(torch.from_numpy(np.asarray(x.detach().numpy()))), f=copy.deepcopy(layer)).eval()
    found = ag.compare(a, b, _normal(3, 6))
    assert found.same
    assert any("numbers leave torch" in note for note in found.notes)


def test_half_precision_against_float32_differs() -> None:
    a = _made(lambda: nn.Sequential(nn.Linear(6, 32), nn.GELU(), nn.Linear(32, 3)))
    b = copy.deepcopy(a).half().float()
    assert not ag.compare(a, b, _normal(3, 6)).same
    assert not ag.compare(b, a, _normal(3, 6)).same


def test_truth_values_are_compared() -> None:
    layer = _made(lambda: nn.Linear(6, 4))
    a = Code(lambda s, x: (s.f(x), s.f(x) > 0), f=layer).eval()
    b = Code(lambda s, x: (s.f(x), s.f(x) > 0.5), f=copy.deepcopy(layer)).eval()
    assert ag.compare(a, copy.deepcopy(a), _normal(9, 6)).same
    found = ag.compare(a, b, _normal(9, 6))
    assert not found.same
    assert [row.verdict for row in found.output] == ["same", "shows"]


def test_writes_in_place_are_followed() -> None:
    """Through overlapping views: gates that interleave in memory, a slice that is written to."""

    def forward(self: Any, x: Any) -> Any:
        y = self.f(x).clone()
        y[:, ::2].mul_(2)
        y[:, 1:3] += 1
        gates = y.view(-1, 2, 4).transpose(1, 2)
        gates[..., 0].sigmoid_()
        return y * gates.reshape(y.shape)

    layer = _made(lambda: nn.Linear(6, 8))
    a = Code(forward, f=layer).eval()
    b = Code(forward, f=copy.deepcopy(layer)).eval()
    b.f.bias.data[3] += 0.5
    finding = ag.compare(a, b, _normal(3, 6)).diagnosis[0]
    assert finding.mistake == "weights_differ"
    assert finding.proven


SOURCE = """
import torch
from torch import nn

def make(mode):
    torch.manual_seed(0)
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.c, self.d = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 2, 1)
        def forward(self, x):
            return self.d(nn.functional.interpolate(self.c(x), scale_factor=2, mode=mode))
    return Net().eval()

def right():
    return make("bilinear")

def wrong():
    return make("bicubic")
"""


def test_specifications_of_one_framework_are_compared_by_their_operators(tmp_path: Path) -> None:
    file = tmp_path / "nets.py"
    file.write_text(SOURCE)
    images = _normal(2, 3, 8, 8)
    finding = ag.compare(f"{file}:right", f"{file}:wrong", images).diagnosis[0]
    assert finding.mistake == "interpolation"
    assert finding.proven
    assert finding.place_b.endswith("nets.py:12")


def test_strides_that_stand_at_another_layer_of_a_block() -> None:
    def block(strides: tuple[int, int]) -> Callable[[], Any]:
        def forward(self: Any, x: Any) -> Any:
            inner = F.relu(self.norms[0](self.one(x)))
            return F.relu(self.norms[2](self.last(F.relu(self.norms[1](self.two(inner))))) + self.beside(x))

        return lambda: Code(
            forward, one=nn.Conv2d(4, 4, 1, strides[0]), two=nn.Conv2d(4, 4, 3, strides[1], 1), last=nn.Conv2d(4, 6, 1),
            beside=nn.Conv2d(4, 6, 1, 2), norms=nn.ModuleList(nn.BatchNorm2d(n) for n in (4, 4, 6)),
        )  # fmt: skip

    def net(strides: tuple[int, int]) -> Any:
        first = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
        rest = nn.Conv2d(6, 4, 1), nn.ReLU()
        return _made(lambda: nn.Sequential(first, block(strides)(), *rest, block(strides)(), nn.Flatten()))

    found = ag.compare(net((1, 2)), net((2, 1)), inputs=_normal(2, 3, 16, 16))
    said = " ".join(f.sentence for d in found.divergences for f in d.findings)
    assert all(d.findings[0].proven for d in found.divergences), said
    assert "stride=(2, 2), A's has (1, 1)" in said
    assert "stride=(1, 1), A's has (2, 2)" in said


def test_a_difference_of_which_nothing_is_left_is_a_remark() -> None:
    def gated(by: float) -> Any:
        gate = nn.Parameter(torch.zeros(4))
        return Code(lambda self, x: self.first(x) + self.gate * torch.tanh(x * by), first=nn.Linear(4, 4), gate=gate)

    a, b = gated(1.5), gated(2.5)
    b.load_state_dict(a.state_dict())
    found = ag.compare(a, b, inputs=_normal(2, 4))
    assert found.same
    assert any("multiply by 2.5 stands where A has 1.5" in remark for remark in found.remarks)
