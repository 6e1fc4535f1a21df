"""Runs in the words of the vocabulary: what torch records, and forms that two frameworks share."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import agnostic as ag

torch = pytest.importorskip("torch")
nn, F = torch.nn, torch.nn.functional

from agnostic.compare.inputs import collect, prepared  # noqa: E402
from agnostic.compare.judging import Recorded  # noqa: E402 - after torch
from agnostic.contracts.recording import RECORDING  # noqa: E402
from agnostic.program.vocabulary import operators  # noqa: E402
from tests.compare import architectures, networks  # noqa: E402
from tests.compare.test_programs import Code, _made, _normal  # noqa: E402


def _recorded(model: Any, inputs: Any) -> Recorded:
    backend = ag.backend_of(model)
    recording = backend[RECORDING]
    return Recorded(
        recording.record(model, prepared(backend, model, collect(backend, model, inputs))), recording.evaluate
    )


@pytest.mark.parametrize("name", architectures.ARCHITECTURES)
def test_every_operator_is_one_of_the_vocabulary(name: str) -> None:
    model, inputs = architectures.made(name)
    found = _recorded(model, inputs)
    written = {"view.gather", "view.scatter"}  # what code writes into parts of an array
    assert {node.operator for node in found.run.program.nodes} <= {*operators(), *written}
    for path, exact in found.exact.items():
        # Sixty rounded operations, each off by at most 2^-24 of its result, and sums that stretch that.
        error = np.abs(found.run.outputs[path] - exact).max() / np.abs(exact).max()
        assert error < 60 * 2.0**-24 * 10, (name, path, error)


def test_channels_last_code_has_the_values_of_channels_first() -> None:
    def last(self: Any, x: Any) -> Any:
        x = x.permute(0, 2, 3, 1)
        mean, variance = self.norm.running_mean, self.norm.running_var
        x = (x - mean) / torch.sqrt(variance + self.norm.eps) * self.norm.weight + self.norm.bias
        return F.relu(x).mean((1, 2))

    norm = _made(lambda: nn.BatchNorm2d(4))
    a = Code(lambda s, x: F.softmax(s.norm(x), 1).mean((2, 3)), norm=norm).eval()
    b = Code(lambda s, x: F.softmax(s.norm(x).permute(0, 2, 3, 1), 3).mean((1, 2)), norm=norm).eval()
    x = _normal(2, 4, 5, 5)
    kinds = [[node.operator for node in _recorded(model, x).run.program.nodes] for model in (a, b)]
    assert kinds[0] == kinds[1]
    assert ag.compare(a, b, x).same
    assert not ag.compare(a, Code(last, norm=norm).eval(), x).same


def test_query_key_and_value_of_one_matrix_are_layers_of_their_own() -> None:
    model = networks.randomized(nn.MultiheadAttention(12, 3, batch_first=True))
    code = Code(lambda s, x: s.a(x, x, x, need_weights=False)[0], a=model).eval()
    found = _recorded(code, _normal(2, 5, 12)).run.program.nodes
    assert sum(node.operator == "linear" for node in found) == 4
    assert sum(node.operator == "multiply" for node in found) == 1, "one scale of the scores"


def _cells(kind: str) -> Any:
    layer = _made(lambda: getattr(nn, kind)(4, 3, batch_first=True))
    cell = getattr(nn, f"{kind}Cell")(4, 3)
    for name, parameter in cell.named_parameters():
        parameter.data = getattr(layer, f"{name}_l0").data.clone()

    def steps(self: Any, x: Any) -> Any:
        state, outputs = None, []
        for t in range(x.shape[1]):
            state = self.cell(x[:, t], state)
            outputs.append(state[0] if kind == "LSTM" else state)
        return torch.stack(outputs, 1)

    return Code(lambda s, x: s.f(x)[0], f=layer).eval(), Code(steps, cell=cell).eval()


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_a_recurrent_layer_is_its_steps(kind: str) -> None:
    a, b = _cells(kind)
    x = _normal(2, 4, 4)
    for pair in ((a, b), (b, a)):
        assert ag.compare(*pair, x).same
    b.cell.weight_hh.data *= 1.5
    finding = ag.compare(a, b, x).diagnosis[0]
    assert finding.mistake == "weights_scaled", finding
    assert finding.proven


def test_a_record_is_made_without_tf32_and_leaves_the_setting_as_it_was() -> None:
    seen = []

    class Watched(nn.Module):
        def forward(self, x: Any) -> Any:
            seen.append(torch.backends.cudnn.allow_tf32)
            return 2 * x

    model = Watched()
    backend = ag.backend_of(model)
    for setting in (True, False):
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=setting):
            backend[RECORDING].record(model, torch.ones(2, 3))
            assert torch.backends.cudnn.allow_tf32 is setting
    assert seen == [False, False]
