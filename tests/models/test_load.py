"""A model by its specification."""

import os
import subprocess
import sys
import types

import numpy as np
import pytest
import torch
import torchvision

from agnostic.errors import InvalidInput, InvalidWeights, MissingDependency, UnknownName
from agnostic.models.attached import card_of
from agnostic.models.cards import Preprocessing
from agnostic.models.classes import imagenet_classes
from agnostic.models.load import load
from agnostic.models.specs import parse, parse_weights
from agnostic.registry import Backend


# Specifications -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "family", "name", "path", "backend"),
    [
        ("efficientnet_lite0", "embedded", "lite0", None, None),
        ("torchvision:vgg16", "torchvision", "vgg16", None, "torch"),
        ("timm:resnet18.a1_in1k", "timm", "resnet18.a1_in1k", None, "torch"),
        ("keras:VGG16", "keras", "VGG16", None, "keras"),
        ("folder/model.keras", "file", "", "folder/model.keras", "keras"),
        ("my.folder/file.py:make_model", "function", "make_model", "my.folder/file.py", None),
        (r"C:\models\file.py:make", "function", "make", r"C:\models\file.py", None),
    ],
)
def test_the_forms_of_a_specification(text, family, name, path, backend):
    spec = parse(text)
    assert (spec.family, spec.name, spec.backend) == (family, name, backend)
    assert (None if spec.path is None else str(spec.path)) == path


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("efficientnet_lite", UnknownName, "did you mean 'efficientnet_lite"),
        ("vgg11", UnknownName, "'torchvision:vgg16'"),
        ("pytorch:vgg16", UnknownName, "'torchvision:vgg16'"),
        ("", UnknownName, "'efficientnet_lite0'"),
        ("file.py", InvalidInput, "write 'file.py:make_model'"),
        ("file.py:", InvalidInput, "write 'file.py:make_model'"),
        ("file.py:a b", InvalidInput, "write 'file.py:make_model'"),
        ("torchvision:", InvalidInput, "names no model"),
        (None, InvalidInput, "not by None"),
    ],
)
def test_what_is_no_specification(text, error, said):
    with pytest.raises(error) as caught:
        load(text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_forms_of_weights(tmp_path):
    assert parse_weights(None) == parse_weights("default") == "default"
    assert parse_weights("random") == "random"
    assert parse_weights(str(tmp_path)) == parse_weights(tmp_path) == tmp_path
    for wrong in ("", 5):
        with pytest.raises(InvalidInput):
            parse_weights(wrong)


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"backend": "keras"}, InvalidInput, "made by the backend 'torch', not by 'keras'"),
        ({"engine": "jax"}, InvalidInput, "give backend='keras' as well"),
        ({"engine": "jacks"}, UnknownName, "there are torch, jax, tensorflow; did you mean 'jax'"),
    ],
)
def test_options_that_contradict_the_specification(options, error, said):
    with pytest.raises(error, match=said):
        load("torchvision:vgg11", **options)


def test_an_engine_that_is_not_the_loaded_one(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras", types.SimpleNamespace())
    monkeypatch.setattr(Backend, "engine", "tensorflow")
    with pytest.raises(InvalidInput, match="loaded with the engine 'tensorflow', and a process has only one"):
        load("keras:VGG16", engine="jax")


def test_an_unknown_backend():
    with pytest.raises(UnknownName, match=r"no backend 'torc'.*did you mean 'torch'"):
        load("efficientnet_lite0", backend="torc")


def test_specifications_are_read_without_any_framework():
    code = (
        "import sys, agnostic.models.load, agnostic.models.cards, agnostic.models.aliases\n"
        "assert not {'torch', 'torchvision', 'timm', 'keras', 'jax', 'tensorflow'} & set(sys.modules)\n"
    )
    subprocess.run(
        [sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )


# Random weights -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("spec", ["efficientnet_lite0", "torchvision:squeezenet1_1", "timm:test_vit"])
def test_random_weights_are_the_same_every_time_and_leave_the_generator_alone(spec):
    if spec.startswith("timm"):
        pytest.importorskip("timm")
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = load(spec, weights="random")
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    second = load(spec, weights="random")
    weights = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in weights)
    assert any(p.std() > 0 for p in first.parameters())
    assert not first.training


# torchvision --------------------------------------------------------------------------------------------------------
def test_a_model_of_torchvision_has_the_card_of_its_default_weights():
    card = card_of(load("torchvision:squeezenet1_1", weights="random"))
    assert card.preprocessing == Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    assert (card.spec, card.size, card.class_names) == ("torchvision:squeezenet1_1", (224, 224), imagenet_classes())


def test_a_model_that_normalizes_by_itself_has_no_card_and_fetches_no_backbone(offline):
    model = load("torchvision:ssdlite320_mobilenet_v3_large", weights="random")
    assert card_of(model) is None


def test_an_unknown_model_of_torchvision():
    with pytest.raises(UnknownName, match=r"no model 'vgg61' in torchvision .*did you mean .*'vgg16'"):
        load("torchvision:vgg61")


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """No network, and an empty cache of torch's in the folder that is returned."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # the port named discard, where nothing listens
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch" / "hub" / "checkpoints"


def test_default_weights_that_cannot_be_fetched(offline):
    with pytest.raises(InvalidWeights) as caught:
        load("torchvision:squeezenet1_1")
    said = str(caught.value)
    assert "cannot get the weights of torchvision:squeezenet1_1 from https://download.pytorch.org/" in said
    assert "give their file as weights=..." in said
    assert "\n" not in said


CACHED = torchvision.models.SqueezeNet1_1_Weights.DEFAULT.url.rpartition("/")[2]


def test_default_weights_come_from_torchvisions_own_cache(offline):
    expected = {name: torch.full_like(x, 0.5) for name, x in torchvision.models.squeezenet1_1().state_dict().items()}
    offline.mkdir(parents=True)
    torch.save(expected, offline / CACHED)
    model = load("torchvision:squeezenet1_1")
    assert all(torch.equal(x, expected[name]) for name, x in model.state_dict().items())


class Fail:
    """Unpickling it would end the test."""

    def __reduce__(self):
        return pytest.fail, ("code was executed",)


def test_code_in_a_cached_file_is_not_executed(offline):
    offline.mkdir(parents=True)
    torch.save({"weight": Fail()}, offline / CACHED)
    with pytest.raises(InvalidWeights, match="cannot get the weights"):
        load("torchvision:squeezenet1_1")


# Weight files -------------------------------------------------------------------------------------------------------
def test_weights_from_a_file(tmp_path):
    source = torchvision.models.squeezenet1_1()
    torch.save({"state_dict": {f"module.{k}": v for k, v in source.state_dict().items()}}, tmp_path / "a.pth")
    model = load("torchvision:squeezenet1_1", weights=tmp_path / "a.pth")
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), source.parameters(), strict=True))


def test_the_embedded_network_takes_a_checkpoint_of_timms(tmp_path):
    timm = pytest.importorskip("timm")
    source = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    torch.save(source.state_dict(), tmp_path / "a.pth")
    model = load("efficientnet_lite0", backend="torch", weights=tmp_path / "a.pth")
    assert torch.equal(model.classifier.weight, source.classifier.weight)


@pytest.mark.parametrize("spec", ["torchvision:squeezenet1_1", "efficientnet_lite0", "timm:test_vit"])
def test_weights_of_another_network_are_refused(tmp_path, spec):
    if spec.startswith("timm"):
        pytest.importorskip("timm")
    path = tmp_path / "a.pth"
    torch.save(torch.nn.Linear(2, 2).state_dict(), path)
    with pytest.raises(InvalidWeights) as caught:
        load(spec, weights=path)
    assert str(caught.value).startswith(f"{path} does not fit {spec}: ")
    assert "such as 'weight'" in str(caught.value)


# timm ---------------------------------------------------------------------------------------------------------------
def test_a_model_of_timm_has_its_card():
    pytest.importorskip("timm")
    card = card_of(load("timm:test_vit.r160_in1k", weights="random"))
    assert (card.spec, card.size) == ("timm:test_vit.r160_in1k", (160, 160))


@pytest.mark.parametrize(
    ("spec", "said"),
    [("timm:resnet81", "no model 'resnet81' in timm.*'resnet18'"), ("timm:resnet18.a9_in1k", "'resnet18.a1_in1k'")],
)
def test_an_unknown_model_of_timm(spec, said):
    pytest.importorskip("timm")
    with pytest.raises(UnknownName, match=said):
        load(spec)


def test_weights_of_timm_that_cannot_be_fetched(monkeypatch, tmp_path):
    pytest.importorskip("timm")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InvalidWeights, match=r"cannot get the weights of timm:test_vit from huggingface\.co"):
        load("timm:test_vit")


def test_timm_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingDependency, match="pip install timm"):
        load("timm:resnet18")


# A function in a file -----------------------------------------------------------------------------------------------
@pytest.fixture
def file(tmp_path):
    (tmp_path / "parts.py").write_text("import torch\nCHANNELS = 4\n")
    path = tmp_path / "mine.py"
    path.write_text(
        "from parts import CHANNELS, torch\n"
        "from dataclasses import dataclass\n"
        "@dataclass\n"
        "class Options:\n"
        "    channels: int = CHANNELS\n"
        "def make_model():\n"
        "    return torch.nn.Conv2d(3, Options().channels, 3)\n"
        "def make_number():\n"
        "    return 5\n"
        "def make_late(size):\n"
        "    return None\n"
        "def make_error():\n"
        "    raise RuntimeError('of mine\\nin two lines')\n"
    )
    return path


def test_a_function_makes_the_model(file):
    before = list(sys.path)
    model = load(f"{file}:make_model")
    assert model.weight.shape == (4, 3, 3, 3)
    assert card_of(model) is None
    assert sys.path == before


def test_weights_for_what_a_function_makes(file, tmp_path):
    state = {"weight": torch.ones(4, 3, 3, 3), "bias": torch.zeros(4)}
    torch.save(state, tmp_path / "a.pth")
    assert np.array_equal(load(f"{file}:make_model", weights=tmp_path / "a.pth").weight.detach(), state["weight"])
    torch.save({"weight": torch.ones(1)}, tmp_path / "b.pth")
    with pytest.raises(InvalidWeights, match=r"b\.pth does not fit .*mine\.py:make_model: .* missing, such as 'bias'"):
        load(f"{file}:make_model", weights=tmp_path / "b.pth")


@pytest.mark.parametrize(
    ("function", "options", "error", "said"),
    [
        ("make_modle", {}, UnknownName, "no function 'make_modle' in .*did you mean 'make_model'"),
        ("make_number", {}, InvalidInput, "int is not a model"),
        ("make_late", {}, InvalidInput, "make_late failed with TypeError: .*'size'"),
        ("make_error", {}, InvalidInput, "make_error failed with RuntimeError: of mine$"),
        ("make_model", {"weights": "random"}, InvalidInput, "leave out weights='random'"),
        ("make_model", {"backend": "keras"}, InvalidInput, "makes a model of the backend 'torch', not of 'keras'"),
    ],
)
def test_a_function_that_makes_none(file, function, options, error, said):
    with pytest.raises(error, match=said):
        load(f"{file}:{function}", **options)


def test_a_file_that_fails(tmp_path):
    with pytest.raises(InvalidInput, match=r"no file .*there\.py"):
        load(f"{tmp_path / 'there.py'}:make")
    (tmp_path / "bad.py").write_text("def make(:\n")
    with pytest.raises(InvalidInput, match=r"bad\.py failed with SyntaxError"):
        load(f"{tmp_path / 'bad.py'}:make")
