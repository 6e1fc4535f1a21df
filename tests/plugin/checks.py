"""Run where agnostic-tiny is installed: everything that it brings, by the public names, and what the kit says of it."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import agnostic_tiny
import numpy as np
import pytest
from agnostic_tiny import learning, looking, storing
from agnostic_tiny.networks import net
from agnostic_tiny.tape import Tensor

import agnostic as ag
from agnostic import contracts, registry
from agnostic.contracts.program import PROGRAM
from agnostic.contracts.taps import TAPS
from agnostic.testing import Subject, run

SUBJECT = Subject("tiny", net, layer="conv", recipes=("classic",))
PIXELS = np.random.default_rng(0).random((4, 8, 8, 3), np.float32)
TINY = registry.get_backend("tiny")
PROVIDED = [key for key in contracts.ALL if key in TINY]


def test_it_is_found_by_its_entry_point() -> None:
    assert "site" in agnostic_tiny.__file__
    assert list(registry.registrations())[:2] == ["torch", "keras"]
    for value in (net(), Tensor([1.0]), ag.optimizers.build(ag.optimizers.SGD(0.1), net())):
        assert ag.backend_of(value).name == "tiny"
    assert registry.owner(np.zeros(1)) is None


def test_it_conforms() -> None:
    assert run(SUBJECT) == []


@pytest.mark.parametrize("key", PROVIDED, ids=lambda key: key.name)
def test_a_missing_method_is_named_with_what_it_must_return(key, monkeypatch) -> None:
    implementation = TINY.implementation(key)
    for member in key.members:
        if key.returns(member).endswith("| None"):
            continue
        with monkeypatch.context() as patch:
            patch.setattr(type(implementation), member, getattr(key.contract, member))
            (said,) = run(SUBJECT, [key.name])
            assert said.startswith(f"{key.name}: {member!r} is missing; it must return {key.returns(member)}: ")
            assert said.partition(": ")[2].rpartition(": ")[2]  # what it is for
            with pytest.raises(ag.InvalidInput, match=rf"the backend 'tiny' cannot .* has no {member}\(\)"):
                registry.Backend(agnostic_tiny.registration)[key]


WRONG = {
    "layers": (looking.Layers, "tree", lambda right: lambda self, model: right(self, model)[:-1]),
    "inputs": (looking.Inputs, "is_refusal", lambda right: lambda self, error: False),
    "taps": (looking.Taps, "submodel", lambda right: lambda self, model, layers: model),
    "calls": (looking.Calls, "run", lambda right: lambda self, model, inputs, seed=0: (model(inputs) * 2,)),
    "description": (looking.Descriptions, "describe", lambda right: lambda self, model, names=None: right(self, model)),
    "weights": (storing.Weights, "set_weights", lambda right: lambda self, model, values: None),
    "models": (storing.Models, "load", lambda right: lambda self, spec, weights, *, trust=False: net()),
    "data": (storing.Data, "take", lambda right: lambda self, array, order: array),
    "augmentation": (storing.Augmentations, "apply", lambda right: lambda self, a, images, *rest: images),
    "ops": (learning.TinyOps, "tanh", lambda right: lambda self, x: x),
    "gradients": (learning.Gradients, "pullback", lambda right: lambda self, f, x, c: [v * 0 for v in x]),
    "ascent": (learning, "_climb", lambda right: lambda model, ascent, images, dtype: _standing(right, images)),
    "optimizers": (learning.Optimizers, "members", lambda right: lambda self, params: iter(())),
    "learning": (learning.Optimizer, "step", lambda right: lambda self, gradients, rate: right(self, gradients, -rate)),
}


def _standing(right, images):
    from agnostic.visualization.ascent import Climbed

    count = len(images)
    return Climbed(images, np.zeros((count, 16, 16, 3), np.float32), np.zeros((2, count)), np.ones(count, bool))


@pytest.mark.parametrize("name", WRONG)
def test_a_broken_promise_is_told_with_the_method(name, monkeypatch) -> None:
    holder, member, broken = WRONG[name]
    monkeypatch.setattr(holder, member, broken(getattr(holder, member)))
    said = run(SUBJECT, [name])
    assert said, f"nobody notices a wrong {member}"
    assert all(one.startswith(f"{name}, ") for one in said)


def test_what_it_does_not_provide_is_one_sentence() -> None:
    with pytest.raises(
        ag.InvalidInput, match="the backend 'tiny' cannot read the program of a model: its Registration"
    ):
        ag.program(net(), PIXELS)
    assert PROGRAM not in TINY
    with pytest.raises(AttributeError, match=r"no attribute 'capture'.* such as backend\[TAPS\]\.capture"):
        _ = TINY.capture
    assert TINY[TAPS].capture(net(), PIXELS, ["conv"])["conv"].shape == (4, 6, 6, 4)


def test_models_are_loaded_and_looked_into() -> None:
    model = ag.load("tiny:net")
    assert [layer.name for layer in ag.layers(model)] == ["conv", "relu", "mean", "dense"]
    with pytest.raises(ag.UnknownName, match="'tiny:net'"):
        ag.load("tiny:nest")
    with pytest.raises(ag.UnknownName, match=r"no model 'nets'.*'tiny:net'"):
        ag.load("nets")
    images = ag.visualize(model, ag.objectives.logit(1), recipe="classic", size=8, steps=4)
    assert (images.scores[-1] > images.scores[0]).all()
    with pytest.raises(NotImplementedError, match="no rule for"):
        ag.visualize(model, ag.objectives.channel("conv", 0), recipe="fourier", size=8, steps=2)


def test_data_and_augmentation_come_in_its_own_arrays() -> None:
    moved = ag.augmentation.Augmentation(rotation=(-9, 9))(Tensor(PIXELS), seed=1)
    assert isinstance(moved, Tensor)
    assert isinstance(ag.data.pad_sequences([Tensor([1, 2]), Tensor([3])]), Tensor)
    with TemporaryDirectory() as folder:
        from PIL import Image

        for index, pixels in enumerate((PIXELS * 255).astype(np.uint8)):
            (Path(folder) / "a").mkdir(exist_ok=True)
            Image.fromarray(pixels).save(Path(folder) / "a" / f"{index}.png")
        batches = ag.data.ImageFolder(folder, (8, 8), resizer="tiny").batches(2, seed=0)
        assert [type(images) for images, _ in batches.tiny()] == [Tensor, Tensor]
        assert [type(images) for images, _ in batches.view("tiny")] == [Tensor, Tensor]


def test_optimizers_are_converted_from_pytorch() -> None:
    torch = pytest.importorskip("torch")
    ours = net()
    theirs = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(4, 5))
    source = torch.optim.SGD(theirs.parameters(), 0.1, momentum=0.5)
    theirs(torch.ones(1, 3, 3, 3)).sum().backward()
    source.step()
    moved = ag.optimizers.convert(source, "tiny", ours)
    kernel = source.state[theirs[0].weight]["momentum_buffer"].numpy().transpose(2, 3, 1, 0)
    assert np.allclose(moved.state["conv.kernel"]["momentum"], kernel)


def test_traces_are_written_and_compared() -> None:
    with TemporaryDirectory() as folder:
        one, two = net(), net()
        ag.trace(one, PIXELS, f"{folder}/one.trace")
        assert ag.compare(f"{folder}/one.trace", two).same
        two.layers["conv"].weights["kernel"].value *= 1.5
        found = ag.compare(one, two, PIXELS)
        assert not found.same
        assert str(found.first_divergence) == "conv"


def test_the_contracts_are_in_one_place() -> None:
    assert {key.contract.__name__ for key in contracts.ALL} == set(contracts.__all__) - {"ALL"}
