"""Choosing layers by exact name, alias, glob, index and kind."""

import fnmatch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agnostic.errors import InvalidInput, UnknownName
from agnostic.layers import Layer, is_glob, select


def layer(name, kind="Conv2d", aliases=()):
    return Layer(name, kind, (None, 8, 4, 4), "NCHW", 8, 10, aliases=aliases)


LAYERS = [
    layer("features.0", aliases=("block1_conv1",)),
    layer("features.1", "ReLU"),
    layer("blocks.3", "Sequential"),
    layer("blocks.3.0", "MBConv"),
    layer("blocks.3.1", "MBConv"),
    layer("blocks.3.1.conv"),
    layer("head", "Linear", aliases=("features.2",)),
]


def names(*selectors):
    return [x.name for x in select(LAYERS, selectors)]


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("features.0", ["features.0"]),
        ("block1_conv1", ["features.0"]),
        ("features.2", ["head"]),
        ("blocks.3.*", ["blocks.3.0", "blocks.3.1"]),
        ("blocks.**", ["blocks.3", "blocks.3.0", "blocks.3.1", "blocks.3.1.conv"]),
        ("**.conv", ["blocks.3.1.conv"]),
        ("*", ["features.0", "head"]),  # the first by its alias, which has no dot
        ("features.?", ["features.0", "features.1", "head"]),
        ("features.[!1]", ["features.0", "head"]),
        ("block[1-3]_conv*", ["features.0"]),
        ("kind:Conv2d", ["features.0", "blocks.3.1.conv"]),
        ("kind:conv2D", ["features.0", "blocks.3.1.conv"]),
        (0, ["features.0"]),
        (-1, ["head"]),
    ],
)
def test_selectors(selector, expected):
    assert names(selector) == expected


def test_order_is_that_of_the_selectors_and_each_layer_comes_once():
    assert names("head", "blocks.3.*", -1, "block1_conv1", "features.0") == [
        "head", "blocks.3.0", "blocks.3.1", "features.0",
    ]  # fmt: skip


def test_a_name_that_looks_like_a_pattern_is_found_exactly():
    odd = [layer("a*"), layer("ab"), layer("kind:b")]
    assert [x.name for x in select(odd, "a*")] == ["a*"]
    assert [x.name for x in select(odd, "kind:b")] == ["kind:b"]


@pytest.mark.parametrize(
    ("selector", "message"),
    [
        ("features.00", r"no layer 'features.00' in VGG16 \(7 layers\); did you mean 'features.0'"),
        ("block1_con1", "did you mean 'block1_conv1'"),
        ("blocks.4.*", "no layer matches 'blocks.4.*' in VGG16"),
        ("kind:Conv3d", "no layer of kind 'Conv3d' in VGG16; its kinds are Conv2d, Linear, MBConv, ReLU, Sequential"),
        (7, "no layer 7 in VGG16: it has 7 layers, 0 to 6"),
        (-8, "no layer -8"),
    ],
)
def test_unknown(selector, message):
    with pytest.raises(UnknownName, match=message):
        select(LAYERS, selector, model="VGG16")


@pytest.mark.parametrize("selector", [True, 1.0, None, ["features.0"]])
def test_not_a_selector(selector):
    with pytest.raises(InvalidInput, match="a layer is chosen by a name"):
        select(LAYERS, [selector])


def test_nothing_to_choose():
    with pytest.raises(InvalidInput, match="no layer is given"):
        select(LAYERS, [])
    with pytest.raises(UnknownName, match="no layer 0 in the model: it has no layers"):
        select([], 0)
    with pytest.raises(UnknownName, match=r"no layer 'conv' in the model \(0 layers\)"):
        select([], "conv")


COMPONENT = st.text("ab1_", min_size=1, max_size=4)


@given(st.lists(COMPONENT, min_size=1, max_size=4), st.data())
def test_each_star_in_place_of_a_component_matches(parts, data):
    name = ".".join(parts)
    starred = ".".join("*" if data.draw(st.booleans()) else part for part in parts)
    assert [x.name for x in select([layer(name)], starred)] == [name]
    if is_glob(starred):
        with pytest.raises(UnknownName):
            select([layer(f"{name}.more")], starred)
        assert select([layer(f"{name}.more")], f"{starred}.**")


@given(st.lists(COMPONENT, max_size=6), st.text("ab1_*?", min_size=1, max_size=5))
def test_without_dots_a_glob_is_that_of_the_file_system(parts, glob):
    expected = [part for part in dict.fromkeys(parts) if fnmatch.fnmatchcase(part, glob)]
    layers = [layer(part) for part in dict.fromkeys(parts)]
    if expected and is_glob(glob):
        found = [x.name for x in select(layers, glob)]
        assert found == expected
    elif not expected:
        with pytest.raises(UnknownName):
            select(layers, glob)


def test_spatial():
    assert layer("a").spatial
    assert not Layer("a", "Linear", (None, 3), "NC", 3, 1).spatial
    assert not Layer("a", "LSTM", None, None, None, 1).spatial
