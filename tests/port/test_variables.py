"""Variables of written source have the names that they have in the user's."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

import agnostic as ag


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.cell = nn.Linear(8, 24), nn.LSTMCell(8, 4)

    def forward(self, tokens: torch.Tensor, ops: torch.Tensor) -> tuple[torch.Tensor, ...]:
        queries, keys, sum = self.qkv(tokens).chunk(3, -1)
        scores = queries @ keys.transpose(1, 2)
        scores = scores.softmax(-1) + scores.mean()
        layers = scores + ops
        hidden, memory = self.cell(tokens[:, 0])
        return scores @ sum, layers, hidden + memory, queries, scores


def test_variables_have_the_users_names_where_these_can_be_had() -> None:
    given = (torch.randn(2, 5, 8), torch.randn(2, 5, 5))
    source = ag.port(Attention().eval(), "keras", given, check=False).source
    body = source[source.index("class Attention") :]
    # sum is Python's own; ops and layers are what the written file imports; which of a cell's results is which, no name
    # of the user's tells.
    assert "queries, keys, x = ops.split(self.qkv(tokens), 3, axis=-1)" in body
    assert "scores = " in body
    assert not [name for name in ("sum = ", "ops = ", "layers = ", "memory = ") if f"        {name}" in body]
    assert "tokens, ops_2 = inputs" in body


class Pairs(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        low, high = x.chunk(2, -1)
        low, high = (low * high.exp()).chunk(2, -1)
        return low - high * low


def test_equal_assignments_after_each_other_are_two() -> None:
    source = ag.port(Pairs().eval(), "keras", torch.randn(2, 8), check=False).source
    assert source.count("low, high = ") == 2


class Part(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: torch.Tensor, more: torch.Tensor) -> torch.Tensor:
        return self.b(torch.relu(self.a(x) + more)) + x


class Repeated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList([Part() for _ in range(4)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        layer = x.sin()
        y = layer.cos()
        for part in self.parts:
            y = part(y, layer)
        return y * layer


def test_no_variable_has_the_name_that_a_written_loop_gives_its_layers() -> None:
    source = ag.port(Repeated().eval(), "keras", torch.randn(2, 8), check=False).source
    assert "def call(self, y, layer_2)" in source
    assert "y = layer(y, layer_2)" in source


def test_files_that_are_no_source_now_give_no_names(tmp_path: Path) -> None:
    path = tmp_path / "edited.py"
    path.write_text("def make_model():\n    return (\n")
    code = (
        "class Net(nn.Module):\n    def forward(self, x):\n        doubled = x * 2\n"
        "        return doubled, doubled + 1\n"
    )
    space = {"nn": nn}
    exec(compile(code, str(path), "exec"), space)  # noqa: S102
    source = ag.port(space["Net"]().eval(), "keras", torch.randn(2, 3), check=False).source
    assert "x = x * 2" in source


def test_what_a_layer_computes_twice_is_written_once_and_a_model_may_compute_nothing() -> None:
    class Twice(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen = x > 0
            return torch.where((x > 0) & seen, x.sin() * x.sin(), x)

    source = ag.port(Twice().eval(), "keras", torch.randn(2, 8), check=False).source
    assert (source.count("ops.greater("), source.count("ops.sin("), source.count("logical_and(")) == (1, 1, 0), source
    assert ag.port(nn.Identity().eval(), "keras", torch.randn(2, 8)).report.is_same
