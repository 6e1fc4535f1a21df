"""Records on disk: what goes in comes out, without a framework, one array at a time, and damage is told."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import agnostic as ag
from agnostic.layers import Layer
from agnostic.taps.records import Activations

torch = pytest.importorskip("torch")
nn = torch.nn
ROOT = Path(__file__).parents[2]


class Pair(NamedTuple):
    """What a layer may return."""

    first: Any
    rest: Any


class Inner(nn.Module):
    def forward(self, x: Any) -> Any:
        return {"pair": Pair(x, [x.argmax(1), x > 0]), "none": None, "scale": 2.5}


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act, self.inner, self.never = nn.Conv2d(3, 4, 3), nn.Sigmoid(), Inner(), nn.ReLU()

    def forward(self, x: Any) -> Any:
        return self.inner(self.act(self.act(self.conv(x))))["pair"].first


def saved(folder: Path, dtype: Any = torch.float32) -> tuple[Any, Path]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, x = Network().to(dtype), torch.rand(2, 3, 8, 8, dtype=dtype)
    record = ag.capture(model, x, ["conv", "act", "inner"])
    record.save(folder / "r.safetensors", note={"photo": "cat.jpg"})
    return record, folder / "r.safetensors"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
def test_what_goes_in_comes_out(tmp_path: Path, dtype: str) -> None:
    record, path = saved(tmp_path, getattr(torch, dtype))
    found = ag.taps.open(path)
    assert list(found) == ["conv", "act", "inner"]
    assert found.layer("conv") == record.layer("conv")
    assert found.axes("conv") == "NCHW"
    assert found.dtype("conv") == dtype
    assert found.note == {"photo": "cat.jpg"}
    assert found.about["model"] == "Network"
    assert found.about["inputs"] == {"": f"torch.{dtype} (2, 3, 8, 8)"}
    plain = record.numpy()
    np.testing.assert_array_equal(found["conv"], plain["conv"])
    assert found["conv"].dtype == plain["conv"].dtype
    assert len(found.calls("act")) == 2
    for one, other in zip(found.calls("act"), plain.calls("act"), strict=True):
        np.testing.assert_array_equal(one, other)
    inner, expected = found["inner"], plain["inner"]
    assert (inner["none"], inner["scale"]) == (None, 2.5)
    first, (index, positive) = inner["pair"]
    np.testing.assert_array_equal(first, expected["pair"].first)
    np.testing.assert_array_equal(index, expected["pair"].rest[0])
    np.testing.assert_array_equal(positive, expected["pair"].rest[1])
    assert (index.dtype, positive.dtype) == (np.int64, np.bool_)
    assert "conv: (2, 4, 6, 6)" in repr(found)
    if dtype == "bfloat16":  # two bytes a number, and readable by others
        from safetensors.torch import load_file

        tensor = load_file(path)["conv"]
        assert tensor.dtype == torch.bfloat16
        assert torch.equal(tensor, record["conv"])
    found.save(tmp_path / "again.safetensors", note=found.note)
    again = ag.taps.open(tmp_path / "again.safetensors")
    np.testing.assert_array_equal(again["conv"], found["conv"])


@pytest.mark.parametrize("shape", [(), (0, 3), (1,), (2, 0), (3, 5)])
def test_arrays_of_every_type_and_shape(tmp_path: Path, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    types = "float64 float32 float16 int64 int32 int16 int8 uint64 uint32 uint16 uint8 bool complex64 complex128 >f4"
    arrays = {t.replace(">f4", "big"): (rng.standard_normal(shape) * 3).astype(t) for t in types.split()}
    layers = {name: Layer(name, "Some", None, None, None, 0) for name in arrays}
    Activations(layers, {name: [x] for name, x in arrays.items()}, lambda x: x).save(tmp_path / "a.st")
    found = ag.taps.open(tmp_path / "a.st")
    for name, x in arrays.items():
        assert (found[name].shape, found[name].dtype) == (x.shape, x.dtype.newbyteorder("="))
        np.testing.assert_array_equal(found[name], x)


def test_a_watched_record_and_layers_that_did_not_run(tmp_path: Path) -> None:
    model = Network()
    with ag.watch(model, ["conv", "never"]) as record:
        model(torch.rand(1, 3, 8, 8))
        model(torch.rand(1, 3, 9, 9))
    record.save(tmp_path / "w.st")
    found = ag.taps.open(tmp_path / "w.st")
    assert [x.shape for x in found.calls("conv")] == [(1, 4, 6, 6), (1, 4, 7, 7)]
    assert found.calls("never") == []
    with pytest.raises(ag.UnknownName, match="'conv'"):
        found["cnov"]


def test_reading_needs_no_framework_and_reads_lazily(tmp_path: Path) -> None:
    _, path = saved(tmp_path)
    code = (
        f"import sys; sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'backends')!r}]\n"
        f"import agnostic as ag; r = ag.taps.open({str(path)!r})\n"
        "import agnostic.taps.stored as s; opened = []; real = s.open_regular\n"
        "s.open_regular = lambda p: (opened.append(p), real(p))[1]\n"
        "repr(r); len(r); r.axes('conv'); assert not opened\n"
        "r['conv'].sum(); assert len(opened) == 1\n"
        "print(sorted({'torch', 'keras', 'jax', 'tensorflow', 'safetensors'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n", done.stderr


def test_damage_is_told(tmp_path: Path) -> None:
    record, path = saved(tmp_path)
    whole, rng = path.read_bytes(), random.Random(0)
    plain, other = record.numpy(), tmp_path / "other.st"
    for _ in range(150):
        data = bytearray(whole)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        other.write_bytes(data)
        try:
            found = ag.taps.open(other)
            same = [np.array_equal(found["conv"], plain["conv"]), len(found.calls("act")), found["inner"]["scale"]]
        except ag.InvalidInput as error:
            assert "\n" not in str(error)  # noqa: PT017
        else:
            assert same == [True, 2, 2.5]  # blanks at the end of the header
    for data in (b"", whole[:7], whole[:100], whole[:-1], whole + b"\0", b"\xff" * 8 + whole[8:]):
        other.write_bytes(data)
        with pytest.raises(ag.InvalidInput, match="cannot read the record"):
            ag.taps.open(other)
    from safetensors.numpy import save_file

    save_file({"a": np.zeros(3)}, other)
    with pytest.raises(ag.InvalidInput, match="it has no header of a record"):
        ag.taps.open(other)
    with pytest.raises(ag.InvalidInput, match="cannot read"):
        ag.taps.open(tmp_path / "none.st")


def test_headers_made_up(tmp_path: Path) -> None:
    """A right checksum does not make a header right."""
    from agnostic.taps import format

    _, path = saved(tmp_path)
    whole = path.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + length])
    said = json.loads(header["__metadata__"]["agnostic"])
    deep: Any = {"array": "conv"}
    for _ in range(50):
        deep = {"list": [deep]}
    for change in (
        {"version": 2}, {"calls": {}}, {"calls": {**said["calls"], "conv": [{"array": "act"}]}}, {"layers": 3},
        {"calls": {**said["calls"], "conv": [deep]}}, {"calls": {**said["calls"], "conv": [["array"]]}},
        {"checksums": {}}, {"layers": {**said["layers"], "conv": {"name": "conv"}}},
    ):  # fmt: skip
        text = json.dumps({**said, **change})
        entries = {
            name: (e["dtype"], e["shape"], *e["data_offsets"]) for name, e in header.items() if name != "__metadata__"
        }
        header["__metadata__"] = {"agnostic": text, "checksum": format.checksum(text, entries)}
        encoded = json.dumps(header).encode()
        (tmp_path / "m.st").write_bytes(len(encoded).to_bytes(8, "little") + encoded + whole[8 + length :])
        with pytest.raises(ag.InvalidInput, match=r"cannot read the record"):
            ag.taps.open(tmp_path / "m.st")


def test_what_no_file_can_hold(tmp_path: Path) -> None:
    layers = {"a": Layer("a", "Some", None, None, None, 0)}
    for value in (object(), np.array(["words"])):
        with pytest.raises(ag.InvalidInput, match="layer 'a' returned"):
            Activations(layers, {"a": [value]}, lambda x: x).save(tmp_path / "a.st")
    with pytest.raises(ag.InvalidInput, match="a note holds what JSON can"):
        Activations(layers, {}, lambda x: x).save(tmp_path / "a.st", note={"x": {1, 2}})
    assert not list(tmp_path.iterdir())


def test_wrong_paths_and_notes_are_one_sentence(tmp_path):
    model = torch.nn.Sequential(torch.nn.Linear(2, 2))
    record = ag.capture(model, torch.zeros(1, 2), "0")
    for path, said in ((None, "not None"), (3, "not 3"), (b"a.safetensors", "not a bytes"), ("a\0b", "null character")):
        for call in (ag.taps.open, record.save):
            with pytest.raises(ag.InvalidInput, match=f"a path .*{said}"):
                call(path)
    deep = []
    for _ in range(3000):
        deep = [deep]
    for note, said in (("photo", "a note is a dict"), ({"a": deep}, "a note holds"), ({"a": {1}}, "a note holds")):
        with pytest.raises(ag.InvalidInput, match=said):
            record.save(tmp_path / "a.safetensors", note)
    assert not list(tmp_path.iterdir())
