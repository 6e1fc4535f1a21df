"""Layer-wise relevance and attention on torch: conservation, and closed forms, however a model is written."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
nn = torch.nn
F = torch.nn.functional

import agnostic as ag  # noqa: E402
from agnostic.attribution.maps import blurred, enlarged  # noqa: E402
from agnostic.errors import InvalidInput  # noqa: E402
from tests.attribution.small_network import filled  # noqa: E402

IMAGES = np.random.default_rng(3).random((2, 8, 8, 3)).astype(np.float32)
X = torch.from_numpy(IMAGES.transpose(0, 3, 1, 2).copy())
LRP = ("lrp", "lrp_epsilon", "lrp_gamma")


def made(model: Any, *, bias: bool = False) -> Any:
    """A model with weights of a fixed seed, which takes images in [0, 1] as they are."""
    filled(model, bias=bias)
    if isinstance(model, Transformer):
        nn.init.zeros_(model.token)  # it would take relevance, as a bias does
    ag.set_card(model, {"range": [0, 1]})
    return model.eval()


class Written(nn.Module):
    """The same residual block with squeeze and excitation, in one of several ways."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.stem, self.norm = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.conv, self.norm2 = nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.gate, self.head = nn.Conv2d(6, 6, 1), nn.Linear(6, 4)
        self.relu = nn.ReLU(inplace=way == "in place")

    def forward(self, x: Any) -> Any:
        if self.way == "functions":
            x = F.conv2d(x, self.stem.weight, self.stem.bias, padding=1)
            x = F.batch_norm(x, self.norm.running_mean, self.norm.running_var, self.norm.weight, self.norm.bias)
            x = F.relu(x)
            y = torch.conv2d(x, self.conv.weight, self.conv.bias, padding=1)
            y = F.batch_norm(y, self.norm2.running_mean, self.norm2.running_var, self.norm2.weight, self.norm2.bias)
            gate = F.conv2d(y.mean((2, 3), keepdim=True), self.gate.weight, self.gate.bias).sigmoid()
            pooled = (y * gate + x).clamp(min=0).mean((2, 3))
            return pooled @ self.head.weight.t() + self.head.bias
        if self.way == "frozen":
            norm, norm2 = frozen(self.norm), frozen(self.norm2)
        elif self.way == "by its formula":
            norm, norm2 = formula(self.norm), formula(self.norm2)
        else:
            norm, norm2 = self.norm, self.norm2
        x = self.relu(norm(self.stem(x)))
        y = norm2(self.conv(x))
        gate = torch.sigmoid(self.gate(y.mean((2, 3), keepdim=True)))
        if self.way == "in place":
            y *= gate
        else:
            y = gate * y
        y += x
        return self.head(self.relu(y).mean((2, 3)))


def frozen(norm: Any) -> Any:
    """Batch norm as a product and a sum, as detectors have it."""
    scale = (norm.weight * torch.rsqrt(norm.running_var + norm.eps)).reshape(1, -1, 1, 1)
    offset = norm.bias.reshape(1, -1, 1, 1) - norm.running_mean.reshape(1, -1, 1, 1) * scale
    return lambda x: x * scale + offset


def formula(norm: Any) -> Any:
    """Batch norm as differences and quotients, of a number too."""
    mean, bias = norm.running_mean.reshape(1, -1, 1, 1), norm.bias.reshape(1, -1, 1, 1)
    scale = (torch.sqrt(norm.running_var + norm.eps) / norm.weight).reshape(1, -1, 1, 1)
    return lambda x: 3.0 - ((bias.neg() + 3.0) - (x - mean) / scale)


@pytest.mark.parametrize("method", LRP)
def test_relevance_does_not_depend_on_how_a_model_is_written(method: str) -> None:
    found = {}
    for way in ("modules", "in place", "functions", "frozen", "by its formula"):
        model = made(Written(way), bias=True)
        found[way] = ag.explain(model, IMAGES, target=2, method=method).maps
    most = np.abs(found["modules"]).max()
    # The order of the sums differs: some tens of roundings.
    for way in ("in place", "functions", "frozen", "by its formula"):
        np.testing.assert_allclose(found[way], found["modules"], rtol=0, atol=64 * 2**-24 * most, err_msg=way)


@pytest.mark.parametrize("method", LRP)
@pytest.mark.parametrize("kind", ["residual", "transformer"])
def test_without_biases_relevance_adds_up_to_the_score(kind: str, method: str) -> None:
    model = made(Written("modules") if kind == "residual" else Transformer())
    found = ag.explain(model, IMAGES, target=2, method=method)
    # Each sum over 192 pixels of both signs, each pixel with the rounding of some ten layers; epsilon takes its part
    # of each number.
    floor = 200 * 2**-24 * np.abs(found.maps).sum((1, 2)).max()
    np.testing.assert_allclose(found.maps.sum((1, 2)), found.scores, rtol=1e-3, atol=floor)
    assert np.abs(found.scores).min() > 0.01


def test_biases_take_the_relevance_that_they_contribute() -> None:
    model = made(nn.Sequential(nn.Flatten(), nn.Linear(192, 2)), bias=True)
    found = ag.explain(model, IMAGES, target=1, method="lrp_epsilon")
    np.testing.assert_allclose(found.maps.sum((1, 2)), np.asarray(found.scores) - model[1].bias[1].item(), rtol=1e-4)
    large = ag.explain(model, IMAGES, target=1, method="lrp_epsilon", epsilon=0.5).maps
    score = np.asarray(found.scores)
    np.testing.assert_allclose(
        large, found.maps * (np.abs(score) / (np.abs(score) + 0.5))[:, None, None], rtol=1e-4, atol=1e-6
    )
    for wrong in ({"epsilon": 0}, {"epsilon": float("inf")}, {"gamma": float("inf")}, {"gamma": -1}, {"gamma": True}):
        with pytest.raises(InvalidInput, match=next(iter(wrong))):
            ag.explain(model, IMAGES, method="lrp", **wrong)


class Transformer(nn.Module):
    """Sixteen patches and a class token through layers of attention of a kind."""

    def __init__(self, kind: str = "fused", pool: str = "token") -> None:
        super().__init__()
        self.kind, self.pool = kind, pool
        self.patches, self.token = nn.Conv2d(3, 8, 2, 2), nn.Parameter(torch.zeros(1, 1, 8))
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(8, 2, 16, activation="gelu", batch_first=True, norm_first=True) for _ in range(3)
        )
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 4)

    def forward(self, x: Any) -> Any:
        x = torch.cat([self.token.expand(len(x), -1, -1), self.patches(x).flatten(2).transpose(1, 2)], 1)
        for block in self.blocks:
            x = block(x) if self.kind == "fused" else self.by_hand(block, x)
        x = self.norm(x)
        return self.head(x[:, 0] if self.pool == "token" else x[:, 1:].mean(1))

    def by_hand(self, block: Any, x: Any) -> Any:
        """The layer in bare functions; its attention is one, fused, or a softmax between two products."""
        y = block.norm1(x)
        q, k, v = (y @ block.self_attn.in_proj_weight.t() + block.self_attn.in_proj_bias).chunk(3, -1)
        q, k, v = (z.unflatten(-1, (2, 4)).transpose(1, 2) for z in (q, k, v))
        if self.kind == "scaled_dot_product":
            y = F.scaled_dot_product_attention(q, k, v)
        else:
            y = (q / 2 @ k.transpose(-2, -1)).softmax(-1) @ v
        x = x + block.self_attn.out_proj(y.transpose(1, 2).flatten(2))
        return x + block.linear2(F.gelu(block.linear1(block.norm2(x))))


@pytest.mark.parametrize("method", ["lrp", "attention_rollout"])
def test_attention_is_the_same_fused_or_by_hand(method: str) -> None:
    kinds = ("fused", "scaled_dot_product", "by hand")
    maps = [
        ag.explain(made(Transformer(kind), bias=True), IMAGES, target=2, method=method, micro_batch=1).maps
        for kind in kinds
    ]
    for other in maps[1:]:
        np.testing.assert_allclose(other, maps[0], rtol=0, atol=1000 * 2**-24 * np.abs(maps[0]).max())


def test_weights_of_attention_that_a_gate_changes_in_place_are_no_constant() -> None:
    class Gated(nn.Module):
        def __init__(self, way: str) -> None:
            super().__init__()
            self.way, self.values, self.gate = way, nn.Linear(3, 4), nn.Linear(3, 1)

        def forward(self, x: Any) -> Any:
            x = x.flatten(2).transpose(1, 2)
            weights = torch.softmax(input=x @ x.transpose(1, 2), dim=-1)
            gate = self.gate(x)
            weights = weights.mul_(gate) if self.way == "in place" else weights * gate
            return (weights @ self.values(x)).mean(1)

    one, other = (
        ag.explain(made(Gated(way), bias=True), IMAGES, target=2, method="lrp").maps for way in ("in place", "new")
    )
    np.testing.assert_allclose(one, other, rtol=0, atol=64 * 2**-24 * np.abs(other).max())
    assert np.abs(other).max() > 0


@pytest.mark.parametrize("pool", ["token", "mean"])
def test_a_rollout_multiplies_the_weights_of_all_layers(pool: str) -> None:
    model, weights = made(Transformer("by hand", pool), bias=True), []
    softmax = torch.Tensor.softmax
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(torch.Tensor, "softmax", lambda x, *args: weights.append(softmax(x, *args)) or weights[-1])
        model(X)
    flow = torch.eye(17)
    for one in weights:
        flow = (one.mean(1) + torch.eye(17)) / 2 @ flow
    read = flow[:, 0] if pool == "token" else flow[:, 1:].mean(1)
    right = enlarged(read[:, 1:].reshape(2, 4, 4).double().numpy(), (8, 8))
    found = ag.explain(model, IMAGES, target=2, method="attention_rollout")
    np.testing.assert_allclose(found.maps, right, rtol=0, atol=200 * 2**-24 * right.max())


def test_what_has_no_rollout_is_told() -> None:
    with pytest.raises(InvalidInput, match=r"runs no attention .*layer_cam"):
        ag.explain(made(Written("modules")), IMAGES, method="attention_rollout")

    class Windows(Transformer):
        def forward(self, x: Any) -> Any:
            x = self.patches(x).flatten(2).transpose(1, 2).reshape(-1, 4, 8)
            x = self.by_hand(self.blocks[0], x).reshape(-1, 16, 8)
            return self.head(x.mean(1))

    with pytest.raises(InvalidInput, match="attends within windows"):
        ag.explain(made(Windows("by hand")), IMAGES, method="attention_rollout")


def test_the_slope_of_a_norm_at_zeros_is_no_part_of_a_path() -> None:
    """A norm of zeros divides by the root of its epsilon, which made maps a thousand times as large as the score."""

    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 8, 4, 4, bias=False), nn.Linear(8, 5)
            self.norm = nn.Sequential(nn.LayerNorm(8), nn.LayerNorm(8))

        def forward(self, x: Any) -> Any:
            return self.head(self.norm(self.conv(x).permute(0, 2, 3, 1)).mean((1, 2)))

    model = made(Normed())
    straight = ag.explain(model, IMAGES, target=1, method="integrated_gradients").maps
    guided = ag.explain(model, IMAGES, target=1, method="guided_integrated_gradients").maps
    assert np.abs(guided).max() < 10 * np.abs(straight).max()


@pytest.mark.parametrize("method", ["blur_integrated_gradients", "guided_integrated_gradients"])
def test_other_paths_add_up_to_the_difference_of_the_scores_as_well(method: str) -> None:
    model = made(Written("modules"), bias=True)
    found = ag.explain(model, IMAGES, target=1, method=method, steps=200)
    start = blurred(IMAGES, 8 / 6) if method.startswith("blur") else 0 * IMAGES
    with torch.no_grad():
        before = model(torch.from_numpy(start.transpose(0, 3, 1, 2).copy()))[:, 1].numpy()
    difference = np.asarray(found.scores) - before
    # The quadrature of a function with kinks: its error falls with the number of steps.
    np.testing.assert_allclose(found.maps.sum((1, 2)), difference, atol=2e-2 * np.abs(found.maps).sum((1, 2)).max())
    straight = ag.explain(model, IMAGES, target=1, method="integrated_gradients", steps=64).maps
    assert np.abs(found.maps - straight).max() > 0.005 * np.abs(straight).max()
