"""Ports of torch models to Keras: the written source computes the same on each engine, at two sizes of the inputs."""

from __future__ import annotations

import ast
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import agnostic as ag
from agnostic.cli import main
from agnostic.contracts.writer import WRITER
from agnostic.port.check import judged, run_in_process, trial
from agnostic.port.verb import cases, drafted_for
from agnostic.registry import backend_of, get_backend
from tests.port.models import Convolutional, models

pytestmark = pytest.mark.usefixtures("prepared_processes")


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Each model, written."""
    folder = tmp_path_factory.mktemp("ported")
    writer, found = get_backend("keras")[WRITER], {}
    for name, (model, inputs) in models().items():
        backend = backend_of(model)
        written = drafted_for(backend, model, inputs, writer.dialect())
        path = folder / f"{name}.py"
        path.write_text(written.draft.written.text)
        weights = writer.write_weights(written.arrays, folder, name)
        given = cases(backend, inputs, written.variation)
        found[name] = (trial(backend, model, written.draft, given, "keras", path, weights), written)
    return found


@pytest.mark.parametrize("engine", ["jax", "torch", "tensorflow"])
def test_outputs_and_layers_are_the_same_on_each_engine(trials: dict[str, Any], engine: str) -> None:
    for module in ("keras", engine):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")
    outcomes = run_in_process([found.job for found, _ in trials.values()], {"KERAS_BACKEND": engine})
    for (name, (found, written)), outcome in zip(trials.items(), outcomes, strict=True):
        rows = judged(found, outcome)
        wrong = [row for row in rows if not row.is_same]
        assert not wrong, (name, wrong)
        assert {row.case for row in rows} == {0, 1}, name
        # Layers that return several arrays, share their weights or are called twice have no partner.
        assert len([row for row in rows if row.name]) >= 10 or name in ("language", "shared"), name
        assert not written.draft.laid.moves or name in ("language", "shared"), (name, written.draft.laid.moves)


def test_sizes_are_free_where_the_source_takes_them(trials: dict[str, Any]) -> None:
    free = {name: written.variation.name for name, (_, written) in trials.items()}
    assert free["convolutional"] == free["shared"] == "batch and image size"
    assert free["language"] == "batch and length"
    assert free["transformer"] == "batch"


def test_names_of_a_model_cannot_become_code(trials: dict[str, Any]) -> None:
    text = trials["hostile"][1].draft.written.text
    tree = ast.parse(text)
    calls = {
        node.func.attr for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    }
    assert "abort" not in calls
    assert {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names} == {
        "keras",
        "numpy",
    }


def test_equal_blocks_are_one_class_with_arguments(trials: dict[str, Any]) -> None:
    tree = ast.parse(trials["convolutional"][1].draft.written.text)
    classes = [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
    assert sum(name.startswith("Residual") for name in classes) == 1
    assert classes[-1] == "Convolutional"


class Scaled(nn.Module):
    """Holds what it is given, which may hold one of these."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """A product."""
        return self.conv(x) * self.inner(x)


class Summed(Scaled):
    """As Scaled, with a sum."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """A sum."""
        return self.conv(x) + self.inner(x)


def test_kinds_of_blocks_may_hold_each_other() -> None:
    model = nn.Sequential(
        Scaled(Summed(nn.Tanh())), Summed(Scaled(nn.Tanh())), Scaled(Summed(nn.Tanh())),
        Summed(nn.Sequential(Scaled(nn.Tanh()), nn.ReLU())),
    )  # fmt: skip
    written = drafted_for(backend_of(model), model, torch.randn(2, 4, 6, 6), get_backend("keras")[WRITER].dialect())
    classes = [node.name for node in ast.parse(written.draft.written.text).body if isinstance(node, ast.ClassDef)]
    found = sorted(name for name in classes if name.startswith(("Scaled", "Summed")))
    assert found == ["Scaled", "Scaled_2", "Summed", "Summed_2", "Summed_3"]  # alone or with another inside


def test_the_source_passes_ruff(trials: dict[str, Any], tmp_path: Path) -> None:
    if importlib.util.find_spec("ruff") is None:
        pytest.skip("ruff is not installed")
    for name, (_, written) in trials.items():
        (tmp_path / f"{name}.py").write_text(written.draft.written.text)
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--isolated", "--line-length=120", "--select=E,F,W,I,B,UP",
         str(tmp_path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


class Orthogonal(nn.Module):
    """Runs an operator that is not in the vocabulary."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The first factor."""
        return torch.linalg.qr(x)[0].abs()


def test_what_cannot_be_written_is_named_with_its_layer_and_line() -> None:
    with pytest.raises(
        ag.InvalidInput, match=r"operator aten::linalg_qr .*layer '0' \(Orthogonal\).*test_port_keras\.py:\d+"
    ):
        ag.port(nn.Sequential(Orthogonal()).eval(), "keras", torch.zeros(2, 3))
    with pytest.raises(ag.InvalidInput, match=r"training mode.*eval\(\)"):
        ag.port(Convolutional(), "keras", torch.zeros(2, 3, 32, 32))


def test_the_command_writes_source_weights_and_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.py").write_text(
        "import torch\n\n\ndef make_model():\n"
        "    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU()).eval()\n"
    )
    arguments = ["--to", "keras", "--out", str(tmp_path / "out"), "--inputs", "1x3x8x8", "--engine", "jax", "--json"]
    assert main(["port", f"{tmp_path}/mine.py:make_model", *arguments]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["same"] is True
    assert said["transposes"] == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "report.html",
        "sequential.npz",
        "sequential.py",
    ]


def test_channels_first_keeps_the_layout_of_the_source() -> None:
    for name, layers in (("convolutional", 10), ("shared", 3)):
        model, inputs = models()[name]
        ported = ag.port(model, "keras", inputs, channels_first=True, engine="torch")
        assert ported.report.is_same, str(ported.report)
        assert len([row for row in ported.report.found if row.name and row.is_same]) >= layers
        assert not ported.report.draft.laid.moves
        given = [x.shape for x in (inputs if isinstance(inputs, tuple) else (inputs,))]
        assert [leaf.value.shape for leaf in ported.report.draft.laid.program.of_role("input")] == [*map(tuple, given)]
        assert 'data_format="channels_first"' in ported.source
    with pytest.raises(ag.InvalidInput, match=r"TensorFlow has no convolutions with channels first.*--engine jax"):
        ag.port(model, "keras", inputs, channels_first=True, engine="tensorflow")
