"""Every kind of layer both ways, on the three engines; and what transfer says where two models are not one.

Equal weights in equal layers differ by rounding alone: a report is verified only within a few times the noise floor,
and the way back must give the very arrays that left, to the last bit.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import agnostic as ag
from agnostic.errors import InvalidInput, InvalidWeights
from tests.engines import ENGINES, call_on_engine
from tests.transfer.documented import missing

HERE = Path(__file__).parent

torch = pytest.importorskip("torch")
pytest.importorskip("torchvision")
nn = torch.nn

# Read, not imported: importing the pairs would load Keras, with an engine, into this process.
NAMES = re.findall(r"^@pair\(.*\)\ndef (\w+)", (HERE / "pairs.py").read_text(), re.M)
CHECKS = re.findall(r"^@check\ndef (\w+)", (HERE / "checks.py").read_text(), re.M)
ELSEWHERE = re.findall(r'"(\w+)"', (HERE / "worker.py").read_text().partition("ELSEWHERE = (")[2].partition(")")[0])
SUMMED = {
    "embedding_and_lstm": 2, "stacked_lstm": 6, "simple_rnn_without_bias": 2, "cells_in_a_stack": 4,
    "a_cell_step_by_step": 2,
}  # fmt: skip
"""How many arrays do not come back as they were: two biases that are only ever added are one in Keras."""


@pytest.fixture(scope="module")
def results() -> Callable[[str], dict[str, Any]]:
    """What was found on an engine, by pair."""
    return functools.cache(lambda engine: call_on_engine(engine, "tests.transfer.worker:results"))


# Both ways ----------------------------------------------------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.parametrize(("name", "engine"), [(n, e) for e in ENGINES for n in (NAMES if e == "torch" else ELSEWHERE)])
def test_there_and_back(results: Callable[[str], dict[str, Any]], engine: str, name: str) -> None:
    found = results(engine)[name]
    assert "error" not in found, found["error"]
    assert found["there"]["verified"], found["text"]
    assert found["back"]["verified"], found["back_text"]
    assert found["arrays"] - found["equal"] == SUMMED.get(name, 0), found["unequal"]


@pytest.mark.slow
def test_a_twin_has_the_same_names_and_logits(results: Callable[[str], dict[str, Any]]) -> None:
    found = results("torch")["twin resnet18"]
    assert found["there"]["verified"], found["text"]
    assert all(row["target"] == row["source"] for row in found["there"]["rows"])


@pytest.mark.slow
@pytest.mark.parametrize("name", CHECKS)
def test_with_keras(results: Callable[[str], dict[str, Any]], name: str) -> None:
    found = results("torch")[f"check {name}"]
    assert "error" not in found, found["error"]


# What is said where two models are not one ---------------------------------------------------------------------------
def network(seed: int = 0, *, epsilon: float = 1e-5, stride: int = 2, classes: int = 4, extra: Any = None) -> Any:
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=stride, padding=1), nn.BatchNorm2d(6, eps=epsilon), nn.ReLU(),
        *([extra] if extra is not None else []), nn.Conv2d(6, 6, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(6, classes),
    )  # fmt: skip
    for x in (*model.parameters(), *model.buffers()):
        if x.is_floating_point():
            x.data.copy_(torch.rand(x.shape, generator=generator) - (0.5 if x.ndim > 1 else -0.1))
    return model.eval()


def images(size: int = 12) -> Any:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(7))


def test_between_two_of_one_framework() -> None:
    source, target = network(0), network(1)
    report = ag.transfer(source, target, inputs=images())
    assert report.verified
    assert report.error <= report.allowed < 1e-5
    assert {row.matched for row in report.rows} == {"name"}
    for name, x in source.state_dict().items():
        np.testing.assert_array_equal(target.state_dict()[name], x)
    with torch.no_grad():
        assert torch.equal(source(images()), target(images()))


def test_inputs_are_made_where_none_are_given() -> None:
    assert ag.transfer(nn.Linear(4, 3), nn.Linear(4, 3)).verified


def test_the_epsilon_is_named_and_shown_to_be_all() -> None:
    report = ag.transfer(network(0), network(1, epsilon=1e-3), inputs=images())
    assert not report.verified
    assert report.explained
    assert len(report.differences) == 1
    assert "'1'" in report.differences[0]
    assert "1e-05" in report.differences[0] or "1e-5" in report.differences[0]
    assert report.error > 10 * report.allowed
    assert [row.target for row in report.rows if row.differs] == ["1"]


def test_a_stride_that_is_elsewhere_is_named() -> None:
    report = ag.transfer(network(0, stride=2), network(1, stride=1), inputs=images())
    assert not report.verified
    assert any("stride" in x for x in report.differences), report.differences


def test_an_activation_that_is_missing_is_placed() -> None:
    class Without(nn.Module):
        def __init__(self, model: Any) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: Any) -> Any:
            for number, layer in enumerate(self.model):
                x = x if number == 2 else layer(x)
            return x

    report = ag.transfer(network(0), Without(network(1)), inputs=images())
    assert not report.verified
    assert any("relu" in x.lower() for x in report.differences), report.differences
    assert {row.matched for row in report.rows} == {"structure"}


def test_a_wrong_transfer_is_never_called_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal shapes prove nothing: weights that arrive damaged must show in the end."""
    from agnostic_torch import transfer

    assign = transfer.assign

    def damaged(model: Any, values: Any) -> None:
        assign(model, {k: x * np.float32(1.001) if k == "6.weight" else x for k, x in values.items()})

    monkeypatch.setattr(transfer, "assign", damaged)
    report = ag.transfer(network(0), network(1), inputs=images())
    assert not report.verified
    assert not report.explained or report.differences


def test_what_has_no_counterpart_is_named_and_nothing_is_changed() -> None:
    target = network(1, classes=5)
    before = {name: x.clone() for name, x in target.state_dict().items()}
    with pytest.raises(InvalidWeights, match=r"'6' \(dense, weight \(5, 6\).*'6' .* weight \(4, 6\)") as error:
        ag.transfer(network(0), target, inputs=images())
    assert "no weight was changed" in str(error.value)
    for name, x in target.state_dict().items():
        assert torch.equal(x, before[name]), name


def test_what_is_left_over_is_named() -> None:
    with pytest.raises(
        InvalidWeights, match=r"left over, such as '3.0'.*: give the target a layer for '3.0'; no weight"
    ):
        ag.transfer(network(0, extra=nn.Sequential(nn.Conv2d(6, 6, 1), nn.ReLU())), network(1), inputs=images())


def test_an_array_that_two_layers_share_is_not_given_two_sets_of_numbers() -> None:
    class Words(nn.Module):
        def __init__(self, *, tied: bool) -> None:
            super().__init__()
            self.words, self.out = nn.Embedding(9, 4), nn.Linear(4, 9, bias=False)
            if tied:
                self.out.weight = self.words.weight

        def forward(self, x: Any) -> Any:
            return self.out(self.words(x).tanh())

    x, tied = torch.arange(6).reshape(2, 3), Words(tied=True)
    before = tied.words.weight.detach().clone()
    with pytest.raises(InvalidWeights, match=r"'words.weight' .* shares its array with 'out.weight'"):
        ag.transfer(Words(tied=False), tied, inputs=x)
    assert torch.equal(tied.words.weight, before)
    assert ag.transfer(tied, Words(tied=False), inputs=x).verified


class Placed(nn.Module):
    """Words and where they stand, of which a short input uses a part."""

    def __init__(self, many: int, name: str = "places") -> None:
        super().__init__()
        self.words, self.out, self.name = nn.Embedding(9, 4), nn.Linear(4, 3), name
        self.register_parameter(name, nn.Parameter(torch.randn(1, many, 4)))

    def forward(self, x: Any) -> Any:
        return self.out(self.words(x) + getattr(self, self.name)[:, : x.shape[1]])


def test_a_table_is_carried_over_as_a_whole_or_not_at_all() -> None:
    x = torch.arange(6).reshape(2, 3)
    source, target = Placed(7), Placed(7, "positions")
    assert ag.transfer(source, target, inputs=x).verified
    assert torch.equal(target.positions, source.places)
    longer = Placed(8, "positions")
    with pytest.raises(InvalidWeights, match=r"'positions' of the target has the shape \(1, 8, 4\).*\(1, 7, 4\).*20"):
        ag.transfer(source, longer, inputs=x)
    assert ag.transfer(longer, nn.Sequential(Placed(3)), inputs=x).verified, "all that the target has is given"


def test_that_a_source_has_half_precision_is_said_once() -> None:
    source = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).bfloat16()
    report = ag.transfer(source, nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)),
                         inputs=torch.randn(2, 4, dtype=torch.bfloat16))  # fmt: skip
    assert not report.verified
    assert report.explained
    (said,) = report.differences
    assert "A computes in bfloat16, B in float32" in said


def test_branches_that_begin_alike_are_told_apart() -> None:
    class Branches(nn.Module):
        def __init__(self, first: str) -> None:
            super().__init__()
            self.first = first
            names = ("p", "q") if first == "long" else ("r", "s")
            for name in names:
                self.add_module(name, nn.Conv2d(3, 4, 1))
            self.more = nn.Conv2d(4, 4, 3, padding=1)
            self.long, self.short = names if first == "long" else names[::-1]

        def forward(self, x: Any) -> Any:
            def long() -> Any:
                return self.more(getattr(self, self.long)(x).relu())

            def short() -> Any:
                return getattr(self, self.short)(x)

            a, b = (long(), short()) if self.first == "long" else (short(), long())
            return (a + b).relu().mean((2, 3))

    source, target = Branches("short"), Branches("long")
    report = ag.transfer(source, target, inputs=images())
    assert report.verified, report
    assert {row.target: row.source for row in report.rows} == {"p": "s", "q": "r", "more": "more"}


def test_inputs_that_are_not_finite() -> None:
    with pytest.raises(InvalidInput, match="elements that are NaN or infinite"):
        ag.transfer(network(0), network(1), inputs=images() * float("nan"))


def test_every_module_of_pytorch_with_weights_stands_in_the_docs() -> None:
    assert not missing(torch.nn, nn.Module, r"Parameter\(|register_parameter")


def test_outputs_that_do_not_depend_on_the_inputs_prove_nothing() -> None:
    source = network(0)
    source[6].weight.data.zero_()
    report = ag.transfer(source, network(1), inputs=images())
    assert any("outputs prove nothing" in note for note in report.notes)
    assert not ag.transfer(network(0), network(1), inputs=images()).notes


def test_a_model_that_is_random_at_inference() -> None:
    class Noise(nn.Module):
        def forward(self, x: Any) -> Any:
            return x + torch.randn_like(x)

    with pytest.raises(InvalidInput, match="is random"):
        ag.transfer(network(0, extra=Noise()), network(1), inputs=images())


def test_inputs_of_the_wrong_shape() -> None:
    with pytest.raises(InvalidInput, match="give inputs= that both models take"):
        ag.transfer(nn.Linear(4, 3), nn.Linear(5, 3))


def test_the_report_is_a_table_and_json() -> None:
    report = ag.transfer(network(0), network(1, epsilon=1e-3), inputs=images())
    text = str(report)
    assert "weight bias running_mean running_var" in text
    assert "* layer '1': " in text
    assert json.loads(json.dumps(report.json()))["verified"] is False


# Command line -------------------------------------------------------------------------------------------------------
MODELS = """
def torch_model(seed=0):
    import torch
    from torch import nn
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)).eval()

def keras_model():
    import keras
    from keras import layers
    return keras.Sequential([
        keras.Input((8, 8, 3)), layers.Conv2D(4, 3, activation="relu"), layers.Flatten(), layers.Dense(5)])

def keras_other():
    import keras
    from keras import layers
    return keras.Sequential([
        keras.Input((8, 8, 3)), layers.Conv2D(4, 3, activation="tanh"), layers.Flatten(), layers.Dense(5)])
"""


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prepared_processes: None) -> Path:
    if importlib.util.find_spec("keras") is None:  # importing it here would take longer than the test
        pytest.skip("keras is not installed")
    (tmp_path / "models.py").write_text(MODELS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_the_command_both_ways(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from agnostic.cli import main

    engine = "tensorflow" if importlib.util.find_spec("tensorflow") else "torch"
    arguments = ["transfer", "models.py:torch_model", "models.py:keras_model", "--engine", engine, "--out", "a.keras"]
    assert main(arguments) == 0
    assert "rows reordered" in capsys.readouterr().out
    assert main(["transfer", "a.keras", "models.py:torch_model", "--out", "b.safetensors", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["verified"] is True
    from safetensors.numpy import load_file

    torch.manual_seed(0)
    original = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)).state_dict()
    for name, x in load_file(models / "b.safetensors").items():
        np.testing.assert_array_equal(x, original[name].numpy(), err_msg=name)
    assert sorted(p.name for p in models.iterdir() if p.is_file()) == ["a.keras", "b.safetensors", "models.py"]


@pytest.mark.slow
def test_what_was_transferred_compares_as_the_same(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The two commands, one after the other, as a user gives them; and a file of weights for a function's model."""
    from agnostic.cli import main
    from agnostic.files import write_png

    for number in range(2):
        write_png(models / "photos" / f"{number}.png", np.random.default_rng(number).random((8, 8, 3)))
    make, model = "models.py:torch_model", "models.py:keras_model"
    assert main(["transfer", make, model, "--engine", "torch", "--out", "a.weights.h5"]) == 0
    compare = [
        "compare",
        make,
        model,
        "--images",
        "photos",
        "--size",
        "8",
        "--engine-b",
        "torch",
        "--html",
        "page.html",
    ]
    assert main([*compare, "--weights-b", "a.weights.h5"]) == 0, capsys.readouterr()
    assert (models / "page.html").stat().st_size > 1000


@pytest.mark.slow
def test_the_command_says_that_two_models_differ(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from agnostic.cli import main

    assert main(["transfer", "models.py:torch_model", "models.py:keras_other", "--out", "a.weights.h5"]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert re.search(r"layer 'conv2d': At layer 'conv2d' \(\S*models\.py:\d+\) tanh stands where A has relu\.", said)
    assert main(["transfer", "models.py:torch_model", "models.py:keras_model", "--out", "a.pth"]) == 2
    assert "cannot be written to 'a.pth': give a name that ends in .keras" in capsys.readouterr().err


ANY_SIZE = """
from pathlib import Path

def torch_model():
    import torch
    from torch import nn

    class Told(nn.Sequential):
        def forward(self, x):
            with open(Path(__file__).with_name("shapes"), "a") as file:
                print(*x.shape[1:], x.device.type, file=file)
            return super().forward(x)

    torch.manual_seed(0)
    return Told(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3)).eval()

def keras_model(size=(None, None)):
    import keras
    from keras import layers
    return keras.Sequential([keras.Input((*size, 3)), layers.Conv2D(4, 3, activation="relu"), layers.Conv2D(2, 3)])

def keras_small():
    return keras_model((16, 16))
"""


@pytest.mark.slow
def test_size_card_and_device_of_the_command(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Images have the size asked for, not the card's, and the card is in the file that is written."""
    from agnostic.cli import main

    (models / "any.py").write_text(ANY_SIZE)
    card = {"range": [-1, 1], "size": [16, 16], "class_names": ["cat", "dog"]}
    (models / "card.json").write_text(json.dumps(card))
    command = ["transfer", "any.py:torch_model", "any.py:keras_model", "--engine", "torch", "--card", "card.json"]
    places = ["--from", "torch", "--to", "keras", "--device", "cpu"]
    assert main([*command, *places, "--size", "12", "20", "--out", "a.keras"]) == 0, capsys.readouterr()
    shapes = set((models / "shapes").read_text().splitlines())
    assert shapes == {"3 12 20 cpu"}
    with zipfile.ZipFile(models / "a.keras") as archive:
        held = json.loads(next(archive.read(name) for name in archive.namelist() if "agnostic" in name))
    assert held["class_names"] == ["cat", "dog"]
    assert held["size"] == [16, 16]
    capsys.readouterr()
    (models / "shapes").unlink()
    assert main([*command, *places, "--out", "b.weights.h5"]) == 0, capsys.readouterr()
    assert set((models / "shapes").read_text().splitlines()) == {"3 16 16 cpu"}  # the card's
    capsys.readouterr()
    small = ["transfer", "any.py:torch_model", "any.py:keras_small", "--engine", "torch", "--out", "c.weights.h5"]
    assert main([*small, "--size", "12x20"]) == 2
    said = "any.py:keras_small takes images of 16 x 16 pixels, not 12 x 20: leave out size"
    assert said in capsys.readouterr().err
    assert main([*command, *places[:-1], "cuda:77", "--out", "c.weights.h5"]) == 2
    assert "the device 'cuda:77' cannot be used" in capsys.readouterr().err
    assert main([*command, "--device", "cpu", "--out", "c.weights.h5"]) == 2
    assert "give the backend as well" in capsys.readouterr().err
    assert not (models / "c.weights.h5").exists()


def test_a_file_of_no_known_format(capsys: pytest.CaptureFixture[str]) -> None:
    from agnostic.cli import main

    assert main(["transfer", "resnet18", "resnet18", "--out", "weights.h6"]) == 2
    assert "ends in .pth, .pt, .safetensors, .keras" in capsys.readouterr().err


def test_a_trace_is_a_source_as_well_as_one_side_of_a_comparison(tmp_path: Path) -> None:
    from agnostic.registry import model_backend
    from agnostic.transfer.verb import into, of_trace

    source, target = network(0), nn.Sequential(network(1))
    path = ag.trace(source, images(), tmp_path / "a.trace")
    assert not ag.compare(path, target).same
    assert into(model_backend(target), target, of_trace(path), "target").verified
    assert ag.compare(path, target).same


def test_a_format_of_another_backend_is_refused_before_a_process_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from agnostic.transfer import processes

    def unwanted(*_: Any, **__: Any) -> Any:
        raise AssertionError("a process was started")

    monkeypatch.setattr(processes, "started", unwanted)
    with pytest.raises(InvalidInput, match=r"is a model of Keras.*'out.pth'.*\.keras"):
        processes.between("torchvision:resnet18", "resnet18", tmp_path / "out.pth", target_backend="keras")
    with pytest.raises(InvalidInput, match=r"is a model of PyTorch.*'out.keras'"):
        processes.between("resnet18", "torchvision:resnet18", tmp_path / "out.keras")
