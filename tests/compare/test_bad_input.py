"""What cannot be compared is said in one sentence."""

from __future__ import annotations

import copy
import hashlib
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import agnostic as ag
from agnostic.cli import main
from tests.compare.test_traces import MODEL

torch = pytest.importorskip("torch")
nn = torch.nn


def _model(width: int = 4, seed: int = 0) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.Dropout(0.5)
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(width * 256, 5)).eval()


@pytest.fixture
def trace(tmp_path: Path, images: np.ndarray[Any, Any]) -> Path:
    return ag.trace(_model(), images, tmp_path / "a.trace")


def test_other_weights_are_said_to_be_others(images: np.ndarray[Any, Any]) -> None:
    found = ag.compare(_model(), _model(seed=1), images)
    assert str(found.first_divergence) == "0"
    assert found.weights == (3, 2)  # the batch norms are alike
    assert "the weights differ: in 2 of 3" in str(found)


def test_shapes_that_do_not_fit(images: np.ndarray[Any, Any]) -> None:
    with pytest.raises(ag.InvalidInput, match=r"does not take images inputs of shape \(3, 8, 8, 3\)"):
        ag.compare(_model(), _model(), images[:, :8, :8])


def test_two_traces_of_other_inputs(trace: Path, tmp_path: Path, images: np.ndarray[Any, Any]) -> None:
    other = ag.trace(_model(), images[:2], tmp_path / "b.trace")
    with pytest.raises(ag.InvalidInput, match=r"different inputs .*\(3, 16, 16, 3\) and \(2, 16, 16, 3\)"):
        ag.compare(trace, other)
    third = ag.trace(_model(), images * np.float32(0.5), tmp_path / "c.trace")
    with pytest.raises(ag.InvalidInput, match="other numbers of equal shape"):
        ag.compare(trace, third)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_inputs_that_are_no_numbers(value: float, images: np.ndarray[Any, Any]) -> None:
    images = images.copy()
    images[1, 2, 3, 0] = value
    with pytest.raises(ag.InvalidInput, match="1 of 2304 elements that are NaN or infinite"):
        ag.compare(_model(), _model(), images)


def test_a_random_model_is_named_with_its_layer(images: np.ndarray[Any, Any]) -> None:
    a = _model()
    a[3].train()
    with pytest.raises(ag.InvalidInput, match=r"random.* from layer '3' \(Dropout\) on; call model.eval\(\) first"):
        ag.compare(a, _model(), images)


def test_a_random_version_is_a_difference(images: np.ndarray[Any, Any]) -> None:
    b = _model()
    b[3].train()
    assert str(ag.compare(_model(), b, images).first_divergence) == "3"


def test_nothing_to_compare_on() -> None:
    with pytest.raises(ag.InvalidInput, match="give inputs"):
        ag.compare(_model(), _model())


def test_a_layer_that_is_not_there(images: np.ndarray[Any, Any]) -> None:
    with pytest.raises(ag.UnknownName, match="no layer '9' runs in A"):
        ag.compare(_model(), _model(), images, map={"9": "0"})


def test_a_version_that_fails_on_its_way(images: np.ndarray[Any, Any]) -> None:
    b = _model()
    b[0].padding = (0, 0)
    found = ag.compare(_model(), b, images)
    assert str(found.first_divergence) == "0"
    assert any("does not run to its end" in note for note in found.notes)


def _cut(data: bytes) -> bytes:
    return data[:-100]


def _cut_header(data: bytes) -> bytes:
    return data[:500]


def _flipped(data: bytes) -> bytes:
    changed = bytearray(data)
    changed[-1] ^= 0x10
    return bytes(changed)


def _foreign(data: bytes) -> bytes:
    return b"PK\x03\x04" + data


def _no_metadata(data: bytes) -> bytes:
    header = json.dumps({"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    return struct.pack("<Q", len(header)) + header + b"\0\0\0\0"


def _huge_header(data: bytes) -> bytes:
    return struct.pack("<Q", 1 << 50) + data[8:]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_cut, "is cut off"), (_cut_header, "cut off inside its header"), (_flipped, "damaged"), (_foreign, "no trace"),
        (_no_metadata, "no trace"), (_huge_header, "no trace"), (lambda data: b"", "no trace"),
    ],
)  # fmt: skip
def test_a_damaged_trace(
    damage: Callable[[bytes], bytes], said: str, trace: Path, images: np.ndarray[Any, Any]
) -> None:
    trace.write_bytes(damage(trace.read_bytes()))
    with pytest.raises(ag.InvalidInput, match=said) as error:
        ag.compare(trace, _model())
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        # JSON may write a float as a whole number that no integer type holds.
        (lambda about: about["program"]["outputs"][0].update(floor=10**30), ""),
        (lambda about: about["program"].update(outputs=[]), "the program gives nothing"),
        (lambda about: about.update(program=None), "holds no output of its model"),
        (lambda about: about["program"]["nodes"].reverse(), "refers to nothing"),
        (lambda about: about["program"]["nodes"][0].update(operator="os.system"), "is not installed"),
        (lambda about: about["program"]["nodes"][0].update(operands=[[[[]]]]), "does not fit its operands"),
        (lambda about: about["program"]["values"].append(about["program"]["values"][0]), "described twice"),
    ],
)
def test_a_signed_trace_of_another_writer(change: Callable[[Any], Any], said: str, trace: Path) -> None:
    content = trace.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    about = json.loads(header["__metadata__"]["agnostic"])
    change(about)
    header["__metadata__"] = {"checksum": "0" * 64, "agnostic": json.dumps(about)}
    text = json.dumps(header).encode()
    whole = struct.pack("<Q", len(text)) + text
    whole = whole.replace(b"0" * 64, hashlib.sha256(whole).hexdigest().encode(), 1)
    trace.write_bytes(whole + content[8 + length :])
    if not said:
        assert not ag.compare(trace, _model()).divergences
        return
    with pytest.raises(ag.InvalidInput, match=said):
        ag.compare(trace, _model())


def test_no_trace_at_all(tmp_path: Path) -> None:
    with pytest.raises(ag.InvalidInput, match="no such file"):
        ag.compare(tmp_path / "a.trace", _model())


def test_a_trace_that_fails_leaves_nothing(tmp_path: Path, images: np.ndarray[Any, Any]) -> None:
    with pytest.raises(ag.InvalidInput):
        ag.trace(_model(), images[:, :8], tmp_path / "a.trace")
    assert list(tmp_path.iterdir()) == []


def test_safetensors_reads_a_trace(trace: Path) -> None:
    from safetensors import safe_open

    with safe_open(trace, "np") as file:
        about = json.loads(file.metadata()["agnostic"])
        assert file.get_tensor(about["program"]["outputs"][0]["tensor"]).shape == (3, 5)
        weights = dict(map(tuple, about["program"]["arrays"]))
        kernel = next(number for name, _, number in about["program"]["leaves"] if name == "0.weight")
        assert file.get_tensor(weights[kernel]).shape == (4, 3, 3, 3)
    assert about["format"] == "agnostic-trace"


def test_a_header_that_outgrows_its_room(tmp_path: Path) -> None:
    from agnostic.compare.traces import Trace, writing

    x = np.arange(100_000.0)
    with writing(tmp_path / "a.trace", 0) as (writer, about):
        writer.add("0", x)
        about.update({**MODEL, "notes": ["y" * 200_000]})
    assert np.array_equal(Trace(tmp_path / "a.trace").read("0"), x)


# The command line ----------------------------------------------------------------------------------------------------
FILE = """
import torch
from torch import nn

def make(p=0):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1 - p), nn.BatchNorm2d(4, eps=1e-5), nn.ReLU()).eval()

def other():
    model = make()
    model[1].eps = 1e-3
    return model
"""


@pytest.mark.slow
@pytest.mark.usefixtures("prepared_processes")
def test_the_command_line(tmp_path: Path, images: np.ndarray[Any, Any], capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "m.py").write_text(FILE)
    np.save(tmp_path / "x.npy", images)
    inputs = ["--inputs", str(tmp_path / "x.npy")]
    specs = [f"{tmp_path}/m.py:{name}" for name in ("make", "other")]
    page = tmp_path / "report.html"
    assert main(["compare", *specs, *inputs, "--html", str(page), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["first_divergence"]["b"] == "1"
    assert page.read_text().startswith("<!doctype html>")
    assert "http" not in page.read_text().replace("http-equiv", "")
    for name, spec in zip("ab", specs, strict=True):
        update = ["--gradients", "--optimizer", "SGD(0.1, momentum=0.9)", "--rates", "0.1,0.01"]
        assert main(["trace", spec, *inputs, "--out", str(tmp_path / f"{name}.trace"), *update]) == 0
    capsys.readouterr()
    assert main(["compare", str(tmp_path / "a.trace"), str(tmp_path / "b.trace")]) == 1
    printed = capsys.readouterr().out
    assert "first at layer '1'" in printed
    assert "update: kernel" in printed
    assert main(["compare", str(tmp_path / "a.trace"), str(tmp_path / "a.trace")]) == 0
    capsys.readouterr()
    assert main(["compare", str(tmp_path / "a.trace"), "keras:NoSuchNet"]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


TRACED = ["trace", "torchvision:resnet18", "--inputs", "x.npy", "--out", "a.trace"]


def test_wrong_use(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    np.save("x.npy", np.zeros((1, 8, 8, 3), np.float32))
    for arguments, said in (
        (["compare", "a.trace", "b.trace"], "no such file"),
        (["compare", "torchvision:resnet18", "torchvision:resnet18"], "give --images or --inputs"),
        (["trace", "torchvision:resnet18", "--inputs", "y.npy", "--out", "a.trace"], "'y.npy': there is no such file"),
        (["compare", "a.trace", "b.trace", "--map", "x"], "--map takes"),
        (["trace", "torchvision:resnet18", "--images", "empty", "--out", "a.trace"], "has no photos"),
        (["trace", "torchvision:resnet18", "--images", str(tmp_path), "--out", "a.bin"], "ends in .trace"),
        ([*TRACED, "--steps", "2"], "give --optimizer as well"),
        ([*TRACED, "--optimizer", "Adm"], "did you mean 'Adam'"),
        ([*TRACED, "--optimizer", "Adam", "--rates", "1,a"], "--rates takes numbers"),
        ([*TRACED, "--optimizer", "Adam", "--rates", "1,2", "--steps", "2"], "leave out --steps"),
    ):
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert said in error
        assert len(error.strip().splitlines()) == 1


def test_names_are_escaped(tmp_path: Path, images: np.ndarray[Any, Any]) -> None:
    name = "<script>alert(1)</script>"
    a = nn.Sequential()
    a.add_module(name.replace(".", ""), nn.Conv2d(3, 4, 3))
    b = copy.deepcopy(a)
    b[0].bias.data += 1
    ag.compare(a, b, images).html(tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert "<script" not in text
    assert "&lt;script&gt;" in text


def test_a_missing_framework(monkeypatch: pytest.MonkeyPatch, trace: Path, tmp_path: Path) -> None:
    # The other process finds a package keras that is none.
    (tmp_path / "keras.py").write_text("raise ModuleNotFoundError(\"No module named 'keras'\", name='keras')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ag.MissingDependency, match="needs the package 'keras': pip install"):
        ag.compare(trace, "keras:VGG16")


class _Alternating(nn.Module):  # type: ignore[misc]
    """Rounds otherwise in each other run, as kernels of an accelerator that are chosen by the shape do."""

    def __init__(self, factor: float, drawn: bool = False) -> None:
        super().__init__()
        self.factor, self.drawn, self.runs = factor, drawn, 0
        self.generator = np.random.default_rng(0)

    def forward(self, x: Any) -> Any:
        self.runs += 1
        size = self.generator.normal() if self.drawn else self.runs % 2
        return x * (1 + self.factor * size)


class _Amplifying(nn.Module):  # type: ignore[misc]
    """Subtracts what is almost equal: one rounding before it is 3e-4 of what it returns."""

    def forward(self, x: Any) -> Any:
        return 1e4 * (x - x.mean(dim=(1, 2, 3), keepdim=True))


def _amplified(factor: float, drawn: bool = False) -> Any:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), _Alternating(factor, drawn), nn.Identity(), _Amplifying()).eval()
    with torch.no_grad():
        # Just below 1 and just above it, where a rounding has other sizes: one of one size would cancel in the mean.
        model[0].weight.normal_(0, 1e-4, generator=torch.Generator().manual_seed(0))
        model[0].bias.copy_(torch.tensor([0.999, 1.001, 0.9995, 1.0005]))
    return model


@pytest.mark.parametrize("factor", [2.0**-23, 2.0**-11])
def test_a_rounding_that_falls_otherwise_in_each_run_is_not_randomness(
    factor: float, tmp_path: Path, images: np.ndarray[Any, Any]
) -> None:
    a = _amplified(factor)
    with torch.no_grad():
        x = torch.from_numpy(images.transpose(0, 3, 1, 2))
        first, second = a(x), a(x)
    # The network makes of it what used to be called random: more than 1000 roundings of its output.
    assert (first - second).square().mean() > (1e3 * 2.0**-25) ** 2 * first.square().mean()
    assert ag.trace(a, images, tmp_path / "a.trace").is_file()


def test_numbers_that_a_layer_draws_by_itself_are_randomness(tmp_path: Path, images: np.ndarray[Any, Any]) -> None:
    # Drawn by a generator that no seed of the framework reaches.
    with pytest.raises(ag.InvalidInput, match=r"is random: .* from layer '1' \(_Alternating\) on"):
        ag.trace(_amplified(0.05, drawn=True), images, tmp_path / "a.trace")


def test_numbers_that_code_between_layers_draws_are_randomness(tmp_path: Path, images: np.ndarray[Any, Any]) -> None:
    class Functional(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.relu = nn.Conv2d(3, 4, 3), nn.ReLU()

        def forward(self, x: Any) -> Any:
            return self.relu(nn.functional.dropout(self.conv(x), 0.1, training=True))

    with pytest.raises(ag.InvalidInput, match=r"is random: .*, in the code before layer 'relu'"):
        ag.trace(Functional().eval(), images, tmp_path / "a.trace")


def test_a_model_that_is_not_there_fails_before_anything_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], images: np.ndarray[Any, Any]
) -> None:
    from agnostic.compare import processes

    monkeypatch.setattr(processes, "started", lambda *_, **__: pytest.fail("a process was started"))
    np.save(tmp_path / "x.npy", images)
    options = ["--inputs", str(tmp_path / "x.npy"), "--out", str(tmp_path / "a.trace")]
    for arguments in ([str(tmp_path / "none.keras")], ["torchvision:resnet18", "--weights", str(tmp_path / "no.pth")]):
        assert main(["trace", *arguments, *options]) == 2
        assert "agnostic: " in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["x.npy"]
