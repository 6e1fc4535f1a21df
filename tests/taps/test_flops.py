"""Floating-point operations of layers, against values counted by hand and PyTorch's own counter."""

from __future__ import annotations

from typing import Any

import pytest

import agnostic as ag

torch = pytest.importorskip("torch")
nn = torch.nn


class Functional(nn.Module):
    """Products that are in no module."""

    def forward(self, x: Any) -> Any:
        y = x @ x.transpose(1, 2)  # 4 x 6 by 6 x 4
        z = torch.einsum("bij,bjk->bik", y, x)  # 4 x 4 by 4 x 6
        return nn.functional.scaled_dot_product_attention(z[:, None], x[:, None], x[:, None])


CASES = [
    (nn.Conv2d(3, 8, 3, padding=1), (3, 10, 12), 2 * 10 * 12 * 8 * 3 * 9),
    (nn.Conv2d(4, 8, 3, stride=2, groups=2), (4, 9, 9), 2 * 4 * 4 * 8 * 2 * 9),
    (nn.Conv2d(6, 6, 5, groups=6, dilation=2, bias=False), (6, 12, 12), 2 * 4 * 4 * 6 * 25),
    (nn.Conv1d(3, 5, 4), (3, 11), 2 * 8 * 5 * 3 * 4),
    (nn.Conv3d(2, 3, 2), (2, 4, 5, 6), 2 * 3 * 4 * 5 * 3 * 2 * 8),
    (nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2), (4, 5, 7), 2 * 5 * 7 * 4 * 3 * 9),
    (nn.ConvTranspose1d(3, 2, 4, stride=3), (3, 6), 2 * 6 * 3 * 2 * 4),
    (nn.Linear(7, 5), (7,), 2 * 7 * 5),
    (nn.Linear(7, 5, bias=False), (3, 7), 2 * 3 * 7 * 5),
    (nn.LSTM(6, 5, batch_first=True), (4, 6), 2 * 4 * (20 * 6 + 20 * 5)),
    (nn.GRU(6, 5, 2, batch_first=True), (4, 6), 2 * 4 * (15 * 6 + 15 * 5 + 15 * 5 + 15 * 5)),
    # Four projections of 4 x 8, and two products of 4 x 4 with heads of 4.
    (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), (4, 8),
     2 * (4 * 4 * 8 * 8 + 2 * 2 * 4 * 4 * 4 + 2 * 4 * 8 * 16)),
    (Functional(), (4, 6), 2 * (4 * 4 * 6 + 4 * 4 * 6 + 4 * 4 * (6 + 6))),
    (nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3), nn.MaxPool2d(2)), (3, 8, 8), 0),
]  # fmt: skip


@pytest.mark.parametrize(("layer", "shape", "expected"), CASES, ids=lambda x: type(x).__name__)
def test_flops_are_those_counted_by_hand(layer: Any, shape: Any, expected: int) -> None:
    for batch in (1, 3):
        listing = ag.layers(nn.Sequential(layer).eval(), torch.rand(batch, *shape))
        assert listing[0].flops == batch * expected


def test_a_layer_counts_what_is_inside_it_and_each_of_its_calls() -> None:
    conv = nn.Conv2d(3, 3, 3, padding=1)
    model = nn.Sequential(nn.Sequential(conv, nn.ReLU(), conv), nn.Conv2d(3, 2, 1), nn.ReLU())
    listing = {x.name: x.flops for x in ag.layers(model, torch.rand(1, 3, 6, 6))}
    assert listing["0"] == listing["0.0"] == 2 * 2 * 36 * 3 * 27
    assert listing["1"] == 2 * 36 * 6
    assert listing["0.1"] == listing["2"] == 0
    model.never = nn.ReLU()
    model.forward = lambda x: model[1](x)
    assert {x.name: x.flops for x in ag.layers(model, torch.rand(1, 3, 6, 6))}["never"] is None


def test_networks_cost_what_pytorchs_counter_says(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    torchvision = pytest.importorskip("torchvision")
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    # Its counter does not see what attention computes as one operator.
    request.addfinalizer(lambda: torch.backends.mha.set_fastpath_enabled(True))
    monkeypatch.setattr(torch.backends.mha, "get_fastpath_enabled", lambda: False)
    for model in (torchvision.models.resnet18(), torchvision.models.VisionTransformer(64, 16, 2, 4, 32, 64)):
        x = torch.rand(1, 3, 64, 64)
        # Before PyTorch 2.14 the counter does not know the kernel of the processor either.
        with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            model.eval()(x)
        found = {x.name: x.flops for x in ag.layers(model, x)}
        outermost = sum(n or 0 for name, n in found.items() if "." not in name)
        assert outermost == counter.get_total_flops()
        for name, counts in counter.get_flop_counts().items():
            inner = name.partition(".")[2]
            if inner in found:
                assert found[inner] == sum(counts.values()), inner
