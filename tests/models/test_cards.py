"""Preprocessing, and the card that travels with a model."""

import copy
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st

import agnostic as ag
from agnostic.errors import InvalidInput
from agnostic.models.attached import attach, card_of
from agnostic.models.cards import ModelCard, Preprocessing
from agnostic.models.classes import imagenet_classes
from agnostic.reference.ops import NumpyOps

ops = NumpyOps()
TORCHVISION = Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
LITE = Preprocessing(mean=(127.0,) * 3, std=(128.0,) * 3, scale=255.0)
CAFFE = Preprocessing(mean=(103.939, 116.779, 123.68), std=(1.0,) * 3, scale=255.0, channel_order="BGR")


def by_the_formula(p, images):
    if p.channel_order == "BGR":
        images = images[..., ::-1]
    return (images * p.scale - np.array(p.mean)) / np.array(p.std)


@pytest.mark.parametrize("p", [TORCHVISION, LITE, CAFFE], ids=["torchvision", "lite", "caffe"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_apply_is_the_formula(p, dtype):
    images = np.random.default_rng(0).random((2, 5, 4, 3)).astype(dtype)
    result = p.apply(ops, images)
    assert result.dtype == dtype
    expected = by_the_formula(p, images.astype(np.float64))
    # Four roundings (two constants, the product, the difference) of numbers of at most scale/std + mean/std; the
    # formula in float64 has three of its own.
    largest = p.scale / min(p.std) + max(np.array(p.mean) / np.array(p.std))
    u = np.finfo(dtype).eps / 2
    np.testing.assert_allclose(result, expected, rtol=0, atol=(4 * u + 3 * 2**-53) * largest)


def test_known_pixels_of_the_lite_networks():
    pixels = np.array([[0, 127, 255]], np.uint8) / 255.0
    np.testing.assert_allclose(LITE.apply(ops, pixels), [[-127 / 128, 0.0, 1.0]], rtol=0, atol=4 * 2**-53 * 3)


def test_images_stay_as_they_are():
    images = np.full((1, 2, 2, 3), 0.5)
    CAFFE.apply(ops, images)
    assert (images == 0.5).all()


@given(st.floats(0.01, 300), st.floats(-200, 200), st.floats(0.01, 300))
def test_flipping_twice_is_not_flipping(scale, mean, std):
    rgb = Preprocessing((mean,) * 3, (std,) * 3, scale)
    bgr = Preprocessing((mean,) * 3, (std,) * 3, scale, "BGR")
    images = np.random.default_rng(1).random((1, 2, 2, 3))
    np.testing.assert_array_equal(bgr.apply(ops, images[..., ::-1]), rgb.apply(ops, images))


def test_another_number_of_channels_is_refused():
    with pytest.raises(InvalidInput, match="for 3 channels and the images have 1"):
        LITE.apply(ops, np.zeros((1, 2, 2, 1)))


@pytest.mark.parametrize(
    "wrong",
    [
        {"mean": (0.0,), "std": (1.0, 1.0)},
        {"mean": (), "std": ()},
        {"mean": (0.0,), "std": (0.0,)},
        {"mean": (float("nan"),), "std": (1.0,)},
        {"mean": (0.0,), "std": (1.0,), "channel_order": "GBR"},
    ],
)
def test_a_preprocessing_that_cannot_be_is_refused(wrong):
    with pytest.raises(InvalidInput):
        Preprocessing(**wrong)


def test_a_card_travels_with_copies():
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 1, 1))
    assert card_of(model) is None
    card = ModelCard("file.py:make", LITE, (8, 8), ("a",))
    attach(model, card)
    assert card_of(model) == card_of(copy.deepcopy(model)) == card
    assert list(model.state_dict()) == ["0.weight", "0.bias"]


def test_timm_models_describe_themselves():
    model = timm.create_model("resnet18", pretrained=False)
    card = card_of(model)
    assert card is not None
    assert (card.spec, card.size, card.preprocessing) == ("timm:resnet18.a1_in1k", (224, 224), TORCHVISION)
    assert card.class_names == imagenet_classes()
    model.reset_classifier(7)
    assert card_of(model).class_names is None


def test_a_card_as_people_write_it(tmp_path: Path) -> None:
    from agnostic.models.attached import card_of
    from agnostic.models.cards import card_as_given

    path = tmp_path / "card.json"
    path.write_text('{"range": [-1, 1], "size": [4, 6], "class_names": ["cat", "dog"]}')
    (tmp_path / "model.py").write_text(
        "import torch\ndef make():\n    return torch.nn.Sequential(torch.nn.Conv2d(1, 2, (4, 6)), torch.nn.Flatten())\n"
    )
    model = ag.load(f"{tmp_path}/model.py:make", card=path)
    assert card_of(model).class_names == ("cat", "dog")
    given = ag.prepare(model, np.array([[0, 255]] * 4, np.uint8).repeat(3, 1))
    assert given.shape == (1, 1, 4, 6)
    assert (float(given.min()), float(given.max())) == (-1, 1)
    assert ag.visualize(model, ag.objectives.logit("dog"), steps=1).shape == (1, 4, 6, 1)
    ag.set_card(model, {"range": [0, 255], "mean": 51, "std": [2]})
    assert float(ag.prepare(model, np.zeros((4, 6), np.uint8)).max()) == -25.5
    for wrong, words in (
        ({"sice": 3}, "`sice`.*some of range, mean"), ({"std": 0}, "std is positive"), ({"range": [1, 1]}, "range"),
        ({"size": [0, 3]}, r"size"), ({"mean": float("nan")}, "finite"), ([], "not a card"),
        ({"mean": [1, 2], "std": [1, 2, 3]}, "2 and 3"),
    ):  # fmt: skip
        with pytest.raises(ag.InvalidInput, match=words):
            card_as_given(wrong)
    path.write_text("{")
    with pytest.raises(ag.InvalidInput, match="it is not JSON"):
        ag.set_card(model, path)
