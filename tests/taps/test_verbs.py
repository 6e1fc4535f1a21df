"""Choosing layers and preparing images, on a torch model."""

import numpy as np
import pytest

import agnostic as ag
from agnostic.errors import InvalidInput, UnknownName
from agnostic.models.attached import attach
from agnostic.models.cards import ModelCard, Preprocessing
from agnostic.taps.verbs import prepare

torch = pytest.importorskip("torch")
nn = torch.nn


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.unused = nn.Linear(4, 4)
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(4, 4), nn.Tanh()) for _ in range(3)])
        self.spare = nn.ModuleList([nn.Linear(4, 4)])
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return self.head(x)


@pytest.fixture
def model():
    return Network().eval()


X = torch.ones(1, 4)


@pytest.mark.parametrize(
    ("selectors", "expected"),
    [
        ("head", ["head"]),
        ("blocks.*", ["blocks.0", "blocks.1", "blocks.2"]),
        ("blocks.*.1", ["blocks.0.1", "blocks.1.1", "blocks.2.1"]),
        (["head", "blocks.0.*"], ["head", "blocks.0.0", "blocks.0.1"]),
        ("kind:tanh", ["blocks.0.1", "blocks.1.1", "blocks.2.1"]),
        (0, ["blocks.0"]),
        ([-2, 1], None),
        # Layers that did not run are left out of what a pattern chooses.
        ("kind:Linear", ["blocks.0.0", "blocks.1.0", "blocks.2.0", "head"]),
        (["head", "*"], ["head"]),
        (["head", "head", 9], ["head"]),
    ],
)
def test_selectors(model, selectors, expected):
    if expected is None:
        with pytest.raises(InvalidInput, match=r"'unused'|'spare.0'"):
            ag.capture(model, X, selectors)
    else:
        assert list(ag.capture(model, X, selectors)) == expected


def test_layers_that_did_not_run(model):
    for selectors in ("unused", ["unused", "*"], "spare.*", ["spare.*", "blocks.**"]):
        with pytest.raises(InvalidInput, match=r"layer '(unused|spare.0)' \(Linear\) did not run"):
            ag.capture(model, X, selectors)


def test_unknown_layers(model):
    with pytest.raises(UnknownName, match=r"no layer 'haed' in Network \(12 layers\); did you mean 'head'\?"):
        ag.capture(model, X, "haed")
    for verb in (lambda names: ag.watch(model, names).__enter__(), lambda names: ag.submodel(model, names)):
        with pytest.raises(UnknownName, match=r"no layer matches 'blocks.7.*'"):
            verb("blocks.7.*")
    with pytest.raises(InvalidInput, match="no layer is given"):
        ag.capture(model, X, [])


def test_names_need_no_run(model):
    runs = []
    model.register_forward_pre_hook(lambda module, args: runs.append(1))
    part = ag.submodel(model, "blocks.*")
    with ag.watch(model, ["head", "kind:Tanh"]):
        pass
    assert runs == []
    assert len(part(X)) == 3
    ag.submodel(model, -4)
    assert len(runs) > 1


def test_a_record_is_found_by_all_names():
    layer = nn.Linear(2, 2)
    model = nn.ModuleDict({"a": layer, "b": layer})
    model.forward = lambda x: model["a"](x)
    record = ag.capture(model, torch.ones(1, 2), "b")
    assert list(record) == ["b"]
    assert record["a"] is record["b"]
    assert "a" in record
    assert "c" not in record
    assert list(record.numpy()) == ["b"]


def test_no_model():
    with pytest.raises(InvalidInput, match="is not a model of a registered backend"):
        ag.capture("resnet18", X, "head")


# Images --------------------------------------------------------------------------------------------------------------
@pytest.fixture
def network():
    model = nn.Sequential(nn.Conv2d(3, 2, 1))
    attach(model, ModelCard("a model", Preprocessing((1, 2, 3), (2, 4, 8), 255, "BGR"), (4, 4)))
    return model


def test_images_are_prepared_as_the_card_says(network):
    image = np.array([0, 51, 255], np.uint8) * np.ones((5, 4, 1), np.uint8)
    # Blue first: ((255, 51, 0) - (1, 2, 3)) / (2, 4, 8), exact in float32.
    expected = torch.tensor([127, 12.25, -0.375])
    for given in (image, image[None], image / 255, (image / 255).astype(np.float32)):
        prepared = prepare(network, given, size=(5, 4))
        assert prepared.shape == (1, 3, 5, 4)
        assert prepared.dtype == torch.float32
        # 51 / 255 * 255 is rounded three times, each by 2^-24 of at most 51 / 4; mean / std adds one more.
        torch.testing.assert_close(prepared[0, :, 0, 0], expected, rtol=0, atol=4 * 2**-24 * 128)
    assert prepare(network.double(), image).dtype == torch.float64
    assert ag.capture(network, prepare(network, image, size=(5, 4)), "0")["0"].shape == (1, 2, 5, 4)


def test_images_without_a_card_stay_as_they_are():
    image = np.linspace(0, 1, 8, dtype=np.float32).reshape(1, 2, 4, 1)
    assert np.array_equal(prepare(nn.Conv2d(1, 2, 1), image).numpy(), image.transpose(0, 3, 1, 2))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4)), r"shape \(N, H, W, 3\), channels last, not \(4, 4\)"),
        (np.zeros((1, 3, 4, 4)), r"not \(1, 3, 4, 4\)"),
        (np.zeros((0, 4, 4, 3)), r"not \(0, 4, 4, 3\)"),
        (np.zeros((4, 4, 3), int), "not int64"),
        (np.full((4, 4, 3), 255.0), "divide by 255"),
        (np.full((4, 4, 3), np.nan), "finite"),
    ],
)
def test_images_that_cannot_be_prepared(network, image, message):
    with pytest.raises(InvalidInput, match=message):
        prepare(network, image)


# Devices -------------------------------------------------------------------------------------------------------------
def test_inputs_are_moved_to_the_device_of_the_model():
    model = nn.Sequential(nn.Linear(3, 2), nn.ReLU()).to("meta")
    for given in (torch.ones(4, 3), np.ones((4, 3), np.float32), [torch.ones(4, 3)], {"input": torch.ones(4, 3)}):
        given = tuple(given) if isinstance(given, list) else given
        record = ag.capture(model, given, "0")
        assert (record["0"].device.type, record["0"].shape) == ("meta", (4, 2))
    # The caller's own is not touched, and gradients flow through the move.
    assert torch.ones(4, 3).device.type == "cpu"
    with pytest.raises(InvalidInput, match="the input is on the device 'meta', where it has no values"):
        ag.capture(nn.Sequential(nn.Linear(3, 2)), torch.ones(4, 3, device="meta"), "0")


def test_a_model_on_several_devices_is_left_to_move_its_arrays():
    class Parts(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 2, device="meta")

        def forward(self, x):
            assert x.device.type == "cpu"
            return self.second(self.first(x).to("meta"))

    assert ag.capture(Parts(), torch.ones(1, 3), "second")["second"].device.type == "meta"
