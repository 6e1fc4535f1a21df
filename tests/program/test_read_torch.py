"""Programs of torch models: what is read computes in float64 what torch computes in float64.

Both sides round each operation in float64, in another order at most, so they agree to about n u for the longest sum,
n = 4608 products here, u = 2^-53: 5e-13 relative to the largest output. Wrong attributes differ by 1e-3 and more.
"""

from __future__ import annotations

import copy
import re
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import FlopCounterMode

import agnostic as ag
from agnostic.program.evaluate import run, walk
from agnostic.program.nodes import Program

TOLERANCE = 4608 * 2.0**-53


def double(x: Any) -> Any:
    return x.double() if isinstance(x, torch.Tensor) and x.is_floating_point() else x


def arrays(model: nn.Module, program: Program, inputs: tuple[Any, ...]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Inputs and weights of a program as float64 arrays by name."""
    given = [double(x).numpy() for x in pytree.tree_leaves(inputs)]
    named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    weights = {name: double(x.detach()).numpy() for name, x in named}
    return dict(zip((leaf.name for leaf in program.of_role("input")), given, strict=True)), weights


def agrees(model: nn.Module, *inputs: Any) -> Program:
    """Read a model, run what was read, and compare with the model in float64."""
    program = ag.program(model, inputs)
    given, weights = arrays(model, program, inputs)
    for node, results in walk(program, given, weights):
        for value, result in zip(node.outputs, results, strict=True):
            assert np.shape(result) == value.shape, f"{node.operator}: the rule of shapes says {value.shape}"
    found = run(program, given, weights)
    with torch.no_grad():
        returned = copy.deepcopy(model).double()(*pytree.tree_map(double, inputs))
    right = [x.numpy() for x in pytree.tree_leaves(returned) if isinstance(x, torch.Tensor)]
    assert len(found) == len(right)
    for mine, theirs in zip(found.values(), right, strict=True):
        assert np.abs(mine - theirs).max() <= TOLERANCE * max(1.0, np.abs(theirs).max())
    return program


IMAGE = torch.randn(2, 6, 9, 8, generator=torch.Generator().manual_seed(0))
LAYERS = [
    nn.Conv2d(6, 4, 3, 2, 1, groups=2),
    nn.Conv2d(6, 4, (3, 2), padding="same", dilation=2),
    nn.Conv2d(6, 4, 3, padding=1, padding_mode="circular"),
    nn.ConvTranspose2d(6, 4, 3, 2, 1, output_padding=1, groups=2),
    nn.BatchNorm2d(6), nn.InstanceNorm2d(6, affine=True), nn.GroupNorm(3, 6), nn.LayerNorm([9, 8]), nn.RMSNorm(8, 1e-6),
    nn.LocalResponseNorm(3),
    nn.MaxPool2d(3, 2, 1, ceil_mode=True), nn.MaxPool2d((2, 3), 1, 1, dilation=(2, 1)),
    nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False), nn.AvgPool2d(3, 2, 1, divisor_override=5),
    nn.AdaptiveAvgPool2d((4, None)), nn.AdaptiveMaxPool2d(3), nn.LPPool2d(2, 2),
    nn.ReLU(inplace=True), nn.ReLU6(), nn.LeakyReLU(0.2), nn.ELU(0.5), nn.CELU(2.0), nn.SELU(), nn.GELU(),
    nn.GELU("tanh"), nn.SiLU(), nn.Mish(), nn.Sigmoid(), nn.LogSigmoid(), nn.Hardsigmoid(), nn.Hardswish(), nn.Tanh(),
    nn.Hardtanh(-0.5, 2),
    nn.Softplus(2.0), nn.Softshrink(), nn.Hardshrink(), nn.Threshold(0.1, 3.0), nn.GLU(1), nn.PReLU(6), nn.RReLU(),
    nn.Softmax(1), nn.LogSoftmax(-1), nn.Softmin(2), nn.Softsign(), nn.Tanhshrink(),
    nn.ReflectionPad2d((1, 2, 3, 0)), nn.ReplicationPad2d(2), nn.ZeroPad2d((1, -1, 0, 2)), nn.ConstantPad2d(1, 3.5),
    nn.Upsample(scale_factor=1.7, mode="bilinear"), nn.Upsample((13, 5), mode="bicubic"), nn.Upsample(scale_factor=2),
    nn.Upsample((4, 15), mode="bilinear", align_corners=True), nn.Upsample((4, 5), mode="nearest-exact"),
    nn.PixelShuffle(1), nn.ChannelShuffle(3), nn.Unfold(3, 2, 1), nn.Flatten(), nn.Unflatten(1, (2, 3)),
    nn.Dropout(0.3), nn.Identity(), nn.Linear(8, 5), nn.utils.parametrizations.weight_norm(nn.Linear(8, 5)),
]  # fmt: skip


@pytest.mark.parametrize("layer", LAYERS, ids=lambda x: repr(x).partition("\n")[0][:60])
def test_each_layer_is_read_as_torch_computes_it(layer: nn.Module) -> None:
    agrees(nn.Sequential(layer).eval(), IMAGE.clone())


class Recurrent(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> Any:
        return self.layer(x)


@pytest.mark.parametrize(
    "layer",
    [
        nn.LSTM(6, 4, 2, bidirectional=True), nn.LSTM(6, 4, proj_size=3, batch_first=True), nn.GRU(6, 4, bias=False),
        nn.RNN(6, 4, nonlinearity="relu"), nn.TransformerEncoderLayer(6, 2, 8, batch_first=True, norm_first=True),
    ],
    ids=lambda x: type(x).__name__,
)  # fmt: skip
def test_sequences_are_read_as_torch_computes_them(layer: nn.Module) -> None:
    agrees(Recurrent(layer).eval(), torch.randn(5, 3, 6, generator=torch.Generator().manual_seed(0)))


def test_batch_norm_in_training_reads_the_statistics_of_the_batch() -> None:
    program = agrees(nn.Sequential(nn.BatchNorm2d(6)).train(), IMAGE)
    assert [node.operator for node in program.nodes] == ["batch_norm_training"]


class Functional(nn.Module):
    """What is not a layer: sums of Einstein, places, masks, cuts, attention."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(7, 8))
        self.register_buffer("places", torch.tensor([[0, 2], [1, 3]]))

    def forward(self, x: torch.Tensor, ids: torch.Tensor) -> dict[str, Any]:
        a, b, c = x.chunk(3, dim=1)
        mask = torch.ones(9, 9, device=x.device).tril(diagonal=1).bool()
        q = x.flatten(2).transpose(1, 2).unflatten(1, (9, 8)).mean(2)
        scores = torch.einsum("bqd,bkd->bqk", q, q).masked_fill(~mask, float("-inf")).softmax(-1)
        top, order = x.mean((2, 3)).topk(2)
        return {
            "attention": F.scaled_dot_product_attention(q, q, q, is_causal=True),
            "scores": scores @ q,
            "parts": [torch.cat([c, a], 1).roll((1, -2), (2, 3)), torch.stack([a, b], -1).amax(-1)],
            "rows": self.table[ids] + F.embedding(ids, self.table) * torch.arange(8),
            "picked": x[:, self.places, 2:5, -1] ** 2
            - x.std(dim=1, keepdim=True).clamp(max=1)[:, :, 2:5, -1:].squeeze(-1),
            "top": top + order,
            "norm": F.normalize(x, dim=1).sin().cumsum(1).where(x > 0, x.new_zeros(())),
            "spectrum": torch.fft.rfft2(x, norm="ortho").abs(),
        }


def test_functional_code_is_read_with_its_constants_folded() -> None:
    program = agrees(Functional(), IMAGE, torch.tensor([[1, 2, 2], [6, 0, 3]]))
    operators = [node.operator for node in program.nodes]
    assert "triangle" not in operators
    assert "arange" not in operators
    assert {path for path, _ in program.outputs} >= {"attention", "parts.0", "parts.1", "spectrum"}


class InPlace(nn.Module):
    """Writes through views, after and before other views were taken of the same memory."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        flat = x.permute(0, 2, 3, 1).reshape(2, -1)  # a copy: no write reaches it
        x = x + 1
        row = x[:, 1]
        columns = x.transpose(2, 3)
        row.mul_(2)
        x[:, :, ::2].add_(1)
        first, second = x.split(5, 2)
        first.relu_()
        columns[:, :, 1:3] = 7.0
        x.view(2, -1)[:, 3:9].clamp_(max=0.5)
        x[:, 2].zero_()
        return x + row.sum(), flat, second, columns * 1, x.masked_fill_(x > 3, -1.0)


def test_a_write_in_place_reaches_all_views_of_the_memory_and_nothing_else() -> None:
    agrees(InPlace(), IMAGE)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "shufflenet_v2_x0_5"])
def test_networks_of_torchvision_are_read_whole(name: str) -> None:
    torch.manual_seed(0)
    model = torchvision.models.get_model(name, weights=None).eval()
    program = agrees(model, torch.randn(2, 3, 32, 32))
    modules = dict(model.named_modules())
    assert all(type(modules[node.module]).__name__ == node.kind for node in program.nodes)
    assert all(node.file and node.file.endswith(".py") and node.line for node in program.nodes)
    assert {leaf.name for leaf in program.of_role("parameter")} == {name for name, _ in model.named_parameters()}


def test_operations_are_counted_as_torch_counts_them() -> None:
    model = torchvision.models.resnet18(weights=None).eval()
    x = torch.randn(2, 3, 32, 32)
    with FlopCounterMode(display=False) as counter:
        model(x)
    program = ag.program(model, x)
    from agnostic.program.vocabulary import flops

    products = sum(flops(node) for node in program.nodes if node.operator in ("convolution", "linear"))
    # torch counts products of matrices and convolutions alone.
    assert products == counter.get_total_flops()
    assert program.flops > products


class Branch(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.sum() > 0:  # the line that the message names
            return x
        return -x


def test_a_branch_on_values_is_refused_with_its_line() -> None:
    with pytest.raises(ag.InvalidInput, match=r"Branch.*test_read_torch\.py:\d+.*without branches on values"):
        ag.program(Branch(), torch.ones(2, 3))


class Unknown(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.qr(x)[0]


def test_an_operator_without_translation_is_named_with_its_layer_and_line() -> None:
    with pytest.raises(ag.InvalidInput, match=r"linalg_qr.*layer '0' \(Unknown\).*test_read_torch\.py:\d+"):
        ag.program(nn.Sequential(Unknown()), torch.eye(3)[None])


class Item(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * float(x.sum().item())


class Leaving(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(x.numpy() + 1)


class Places(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.nonzero()


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (Item(), r"depends on values of the data \(return x \* float"),
        (Leaving(), r"leaves torch for NumPy \(return torch\.from_numpy"),
        (Places(), r"nonzero.* shape depends on the data: layer '1' \(Places\).*test_read_torch\.py:\d+"),
    ],
)
def test_what_depends_on_the_data_is_refused_with_its_layer_line_and_code(
    layer: nn.Module, reason: str, capfd: pytest.CaptureFixture[str]
) -> None:
    model = nn.Sequential(nn.Linear(3, 3), layer)
    with pytest.raises(ag.InvalidInput, match=reason) as caught:
        ag.program(model, torch.ones(2, 3))
    assert "'1'" in str(caught.value)
    assert "test_read_torch.py:" in str(caught.value)
    assert capfd.readouterr().err == ""  # torch prints the graph so far


class Asks(nn.Module):
    """Asks a buffer, a check and an integer of the inputs for numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.register_buffer("parts", torch.tensor([1, 2]))
        self.register_buffer("doubled", torch.tensor(True))

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        assert torch.isfinite(x).all()
        first, _ = torch.split(self.linear(x[:, : lengths.max().item()]), self.parts.tolist(), dim=-1)
        return first * 2 if self.doubled else first


class Branches(Asks):
    """Asks the data as well."""

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        return super().forward(x, lengths) + 1 if x.mean() > 0 else x


class Doubling(torch.autograd.Function):
    """Export fails here at first, and begins again with this function as an operator."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(x.numpy() * 2) if type(x) is torch.Tensor else torch.empty(x.tolist())

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient * 2


class Repeated(nn.Module):
    """One line that is told something else each time."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("counts", torch.tensor([2, 3]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for count in self.counts:
            x = Doubling.apply(x.sin() * count.item())
        return x


class Ranged(nn.Module):
    """Divides pixels that reach to 255."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x / 255 if x.abs().max() > 1 else x


def test_a_reading_that_begins_again_is_told_the_first_answer_first() -> None:
    x = torch.randn(2, 3)
    model = Repeated().eval()
    found = ag.port(model, "torch", x, stubs=True, check=False)
    assert re.findall(r"\* (\d)\b", found.source) == ["2", "3"], found.source
    assert any(": 2, 3 for 'x = Doubling.apply(" in note for note in found.report.notes), found.report.notes


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_whether_numbers_reach_a_limit_is_decided_by_the_data(dtype: torch.dtype) -> None:
    with pytest.raises(ag.InvalidInput, match="values of the data"):
        ag.program(Ranged(), torch.randn(20, 4, dtype=dtype))


class Signed(nn.Module):
    """Asks for a sign which the bias decides, unless inputs are large."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.linear.bias.data += 1e4

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if self.linear(x).sum() > 0 else -x


def test_a_branch_that_the_bias_decides_for_small_inputs_is_refused() -> None:
    torch.manual_seed(0)
    with pytest.raises(ag.InvalidInput, match=r"values of the data .*return x if self"):
        ag.program(Signed().eval(), torch.randn(2, 4))


def test_what_no_real_number_decides_is_read_with_its_answer_and_said() -> None:
    given = (torch.randn(2, 5, 4), torch.tensor([3, 2]))
    model = Asks().eval()
    program = ag.program(model, given)
    assert program.outputs[0][1].shape == (2, 3, 1)
    assert len(program.notes) == 4
    assert any(" 3 for 'first, _ = torch.split(" in note and "test_read_torch.py" in note for note in program.notes)
    assert str(program).endswith(f"note: {program.notes[-1]}")
    found = ag.port(model, "torch", given, check=False)
    torch.testing.assert_close(found.model(*given), model(*given))
    assert program.notes[0] in found.report.notes
    with pytest.raises(ag.InvalidInput, match=r"values of the data \(return super\(\)\.forward.*if x\.mean\(\) > 0"):
        ag.program(Branches().eval(), given)


def test_a_check_that_half_precision_passes_is_read_too() -> None:
    given = (torch.ones(2, 5, 4, dtype=torch.half), torch.tensor([3, 2]))
    assert len(ag.program(Asks().eval().half(), given).notes) == 4
