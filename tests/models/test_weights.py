"""Weights: read without executing code, and refused in one sentence where they cannot serve."""

import io
import json
import os
import pickle
import struct
from collections import OrderedDict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save, save_file

from agnostic.errors import InvalidWeights
from agnostic.models.weights import fit
from agnostic_torch.weights import read_weights, set_weights, weights


def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        OrderedDict(conv=torch.nn.Conv2d(3, 4, 3), bn=torch.nn.BatchNorm2d(4), fc=torch.nn.Linear(4, 2))
    )


def torch_bytes(value, **options):
    file = io.BytesIO()
    torch.save(value, file, **options)
    return file.getvalue()


def refusal(path):
    """The sentence with which a file is refused."""
    with pytest.raises(InvalidWeights) as caught:
        read_weights(path)
    said = str(caught.value)
    assert str(path) in said
    assert "\n" not in said
    return said


# Reading ------------------------------------------------------------------------------------------------------------
def new(state):
    return torch_bytes(state)


def old(state):
    return torch_bytes(state, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize(("name", "write"), [("a.safetensors", save), ("a.pth", new), ("a.pt", new), ("old.pth", old)])
def test_what_was_written_is_read(tmp_path, name, write):
    state = network().state_dict()
    path = tmp_path / name
    path.write_bytes(write(state))
    read = read_weights(path)
    assert read.keys() == state.keys()
    assert all(np.array_equal(read[key], state[key].numpy()) for key in state)


@pytest.mark.parametrize("keys", [("state_dict",), ("model",), ("epoch", "model", "state_dict")])
def test_a_checkpoint_of_a_training_script_is_unwrapped(tmp_path, keys):
    state = network().state_dict()
    nested = state
    for key in reversed(keys):
        nested = {"epoch": 3, "loss": torch.ones(()), key: nested} if key != "epoch" else nested
    torch.save(nested, tmp_path / "a.pth")
    assert read_weights(tmp_path / "a.pth").keys() == state.keys()


# Putting in and taking out ------------------------------------------------------------------------------------------
def test_weights_go_out_and_in():
    source, target = network(), network()
    with torch.no_grad():
        for p in source.parameters():
            p.add_(1)
    taken = weights(source)
    set_weights(target, taken)
    assert all(
        torch.equal(a, b) for a, b in zip(source.state_dict().values(), target.state_dict().values(), strict=True)
    )


def test_what_was_taken_out_is_a_copy():
    model = network()
    taken = weights(model)
    before = taken["conv.weight"].copy()
    with torch.no_grad():
        model.conv.weight.zero_()
    assert np.array_equal(taken["conv.weight"], before)


def test_weights_are_cast_to_the_models_dtype():
    taken = weights(network().bfloat16())
    assert taken["conv.weight"].dtype == np.float32
    target = network().double()
    set_weights(target, taken)
    assert target.conv.weight.dtype == torch.float64
    assert np.array_equal(weights(target)["conv.weight"], taken["conv.weight"])


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "module._orig_mod."])
def test_the_prefix_of_a_wrapper_is_understood(prefix):
    model = network()
    changed = {f"{prefix}{name}": value + 1 for name, value in weights(model).items()}
    before = weights(model)
    set_weights(model, changed)
    assert np.array_equal(weights(model)["fc.bias"], before["fc.bias"] + 1)


def test_a_prefix_that_the_model_itself_has_stays():
    model = torch.nn.ModuleDict({"model": torch.nn.Linear(2, 2)})
    set_weights(model, weights(model))
    with pytest.raises(InvalidWeights, match=r"'model\.weight'"):
        set_weights(model, {"weight": np.zeros((2, 2)), "bias": np.zeros(2)})


def test_the_counter_of_batches_may_be_missing():
    model = network()
    set_weights(model, {name: value for name, value in weights(model).items() if "num_batches" not in name})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda w: w.pop("fc.weight"), "1 of the model's 9 entries are missing, such as 'fc.weight'"),
        (lambda w: w.update(head=np.zeros(1)), "the model does not know 1 entry, such as 'head'"),
        (
            lambda w: w.update({"a": np.zeros(1), "fc.weights": w.pop("fc.weight")}),
            "'fc.weight' and the model does not know 2 entries, such as 'fc.weights'",
        ),
        (lambda w: w.update({"fc.bias": np.zeros(5)}), r"entry 'fc.bias' has the shape (5,) and the model's has (2,)"),
    ],
)
def test_what_does_not_fit_is_named_and_changes_nothing(change, said):
    model = network()
    values = {name: value + 1 for name, value in weights(model).items()}
    change(values)
    before = weights(model)
    with pytest.raises(InvalidWeights) as caught:
        set_weights(model, values)
    assert said in str(caught.value)
    after = weights(model)
    assert all(np.array_equal(before[name], after[name]) for name in before)


names = st.lists(st.text("abc.", min_size=1, max_size=4), unique=True, min_size=1, max_size=5)


@given(names, st.sampled_from(["", "module.", "module.module."]))
def test_every_expected_name_finds_its_own(expected, prefix):
    shapes = {name: (i,) for i, name in enumerate(expected)}
    assert fit(shapes, {prefix + name: shape for name, shape in shapes.items()}) == {n: prefix + n for n in expected}


# Files that cannot serve --------------------------------------------------------------------------------------------
class MakeFolder:
    """Unpickling it creates a folder."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("kind", ["zip", "old", "nested", "raw2", "raw5"])
def test_a_pickle_that_executes_code_is_refused_and_executes_nothing(tmp_path, kind):
    witness = tmp_path / "executed"
    evil = MakeFolder(witness)
    data = {
        "zip": lambda: torch_bytes(evil),
        "old": lambda: torch_bytes(evil, _use_new_zipfile_serialization=False),
        "nested": lambda: torch_bytes({"conv.weight": torch.ones(1), "extra": [evil]}),
        "raw2": lambda: pickle.dumps(evil, 2),
        "raw5": lambda: pickle.dumps(evil, 5),
    }[kind]()
    path = tmp_path / "a.pth"
    path.write_bytes(data)
    said = refusal(path)
    assert not witness.exists()
    if kind != "raw5":  # which fails before the first instruction that names the code
        assert f"would execute code ({os.mkdir.__module__}.mkdir)" in said
        assert ".safetensors" in said

    # The file is as dangerous as the test says.
    if kind.startswith("raw"):
        pickle.loads(data)
        assert witness.exists()


def test_a_whole_pickled_model_is_refused(tmp_path):
    path = tmp_path / "a.pth"
    torch.save(network(), path)
    assert "would execute code (torch.nn.modules" in refusal(path)


HEADER = json.dumps({"w": {"dtype": "F32", "shape": [1000, 1000], "data_offsets": [0, 4_000_000]}}).encode()
LYING = json.dumps({"w": {"dtype": "F32", "shape": [1000, 1000], "data_offsets": [0, 4]}}).encode()


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.pth", b"", "is empty"),
        ("a.safetensors", b"", "is empty"),
        ("a.pth", b"<!DOCTYPE html><html><body>404 Not Found</body></html>", "is a web page"),
        ("a.safetensors", b"\n<html>", "is a web page"),
        ("a.pth", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        ("a.pth", b"just some text", "damaged, cut off, or no weight file"),
        ("a.pth", bytes(range(256)), "damaged, cut off, or no weight file"),
        ("a.safetensors", struct.pack("<Q", 1 << 60) + b"{}", "no whole safetensors file"),
        ("a.safetensors", struct.pack("<Q", len(HEADER)) + HEADER + b"1234", "no whole safetensors file"),
        ("a.safetensors", struct.pack("<Q", len(LYING)) + LYING + b"1234", "no whole safetensors file"),
        ("a.h5", b"\x89HDF\r\n", "names end in .safetensors, .pth"),
        ("a.pth", torch_bytes([1, 2]), "holds list, and no tensors by name"),
        ("a.pth", torch_bytes({}), "and no tensors by name"),
        ("a.pth", torch_bytes({"epoch": 1, "lr": 0.1}), "a dict of 'epoch', 'lr', and no tensors by name"),
        ("a.pth", torch_bytes(torch.ones(3)), "holds Tensor"),
    ],
)
def test_a_file_that_is_no_weights_is_refused(tmp_path, name, data, said):
    path = tmp_path / name
    path.write_bytes(data)
    assert said in refusal(path)


@pytest.mark.parametrize("name", ["a.safetensors", "zip.pth", "old.pth"])
@settings(max_examples=40, deadline=None)
@given(fraction=st.floats(0, 1, exclude_max=True))
def test_a_cut_off_file_is_refused(tmp_path_factory, name, fraction):
    write = {"a.safetensors": save, "zip.pth": new, "old.pth": old}[name]
    data = write(network().state_dict())
    path = tmp_path_factory.mktemp("cut") / name
    path.write_bytes(data[: int(len(data) * fraction)])
    refusal(path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("name", ["a.safetensors", "zip.pth", "old.pth"])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_damage_is_refused_or_harmless(tmp_path_factory, name, data):
    content = bytearray({"a.safetensors": save, "zip.pth": new, "old.pth": old}[name](network().state_dict()))
    for position in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)):
        content[position] ^= data.draw(st.integers(1, 255))
    path = tmp_path_factory.mktemp("damaged") / name
    path.write_bytes(content)
    try:
        result = read_weights(path)
    except InvalidWeights as refused:
        result = str(refused)
    assert "\n" not in result if isinstance(result, str) else all(isinstance(x, np.ndarray) for x in result.values())


def test_a_missing_file_names_the_one_beside_it(tmp_path):
    save_file(network().state_dict(), tmp_path / "resnet.safetensors")
    said = refusal(tmp_path / "resnet.safetensor")
    assert "there is no such file; did you mean 'resnet.safetensors'?" in said
    assert "it is a folder" in refusal(tmp_path)
    assert "there is no such file" in refusal(tmp_path / "nowhere" / "a.pth")
