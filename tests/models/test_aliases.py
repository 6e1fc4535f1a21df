"""Keras' names for torchvision's VGG, against Keras' own list where the architectures are the same."""

import pytest
import torch
import torchvision

from agnostic.models.aliases import aliases_of

# The layer names of keras.applications.VGG16 and VGG19 (keras 3.15, keras/src/applications/vgg16.py, vgg19.py).
CONVOLUTIONS = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}


def keras_names(model):
    for block, count in enumerate(CONVOLUTIONS[model], 1):
        yield from (f"block{block}_conv{i}" for i in range(1, count + 1))
        yield f"block{block}_pool"
    yield from ("fc1", "fc2", "predictions")


def build(name):
    with torch.device("meta"):  # no memory, no weights: the names are enough
        return torchvision.models.get_model(name, weights=None)


def aliases(model):
    from agnostic_torch.layers import family

    leaves = [(n, type(m).__name__) for n, m in model.named_modules() if not list(m.children())]
    return aliases_of(family(model), leaves)


@pytest.mark.parametrize("name", sorted(CONVOLUTIONS))
def test_keras_names_come_in_keras_order(name):
    own = [alias for (alias,) in aliases(build(name)).values() if "relu" not in alias]
    assert own == list(keras_names(name))


def test_vgg16_layers_are_the_ones_meant():
    found = aliases(build("vgg16"))
    expected = {
        "features.0": "block1_conv1",
        "features.1": "block1_relu1",
        "features.2": "block1_conv2",
        "features.4": "block1_pool",
        "features.17": "block4_conv1",
        "features.28": "block5_conv3",
        "features.30": "block5_pool",
        "classifier.0": "fc1",
        "classifier.1": "fc1_relu",
        "classifier.3": "fc2",
        "classifier.6": "predictions",
    }
    assert {name: found[name] for name in expected} == {name: (alias,) for name, alias in expected.items()}
    assert not {"classifier.2", "avgpool"} & set(found)


@pytest.mark.parametrize("name", ["vgg11", "vgg13_bn", "vgg16_bn", "vgg19_bn"])
def test_every_alias_names_one_layer_of_its_kind(name):
    model = build(name)
    found = aliases(model)
    kinds = {"conv": "Conv2d", "bn": "BatchNorm2d", "relu": "ReLU", "pool": "MaxPool2d"}
    names = [alias for (alias,) in found.values()]
    assert len(set(names)) == len(names)
    for layer, (alias,) in found.items():
        word = alias.split("_")[-1].rstrip("0123456789")
        assert type(model.get_submodule(layer)).__name__ == kinds.get(word, "Linear")


def test_a_head_of_ones_own_still_ends_in_predictions():
    model = build("vgg11")
    model.classifier = torch.nn.Sequential(torch.nn.Linear(512 * 49, 10))
    assert aliases(model)["classifier.0"] == ("predictions",)


def test_other_classes_have_no_aliases():
    assert aliases(build("resnet18")) == {}


def test_the_described_twin_answers_to_the_same_names():
    from agnostic.models.twins import card

    assert card("vgg16").aliases["features.0"] == ("block1_conv1",)
    assert card("vgg16").aliases["classifier.6"] == ("predictions",)
    assert card("resnet50").aliases == {}
