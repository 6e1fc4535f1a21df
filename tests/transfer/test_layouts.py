"""Each way between the layouts is undone by the other, to the last bit, whatever the sizes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agnostic.errors import InvalidInput, InvalidWeights
from agnostic.transfer import layouts
from agnostic.transfer.layouts import KINDS, from_canonical, to_canonical

SIZES = st.integers(1, 4)


@st.composite
def torch_layers(draw: st.DrawFn) -> tuple[str, dict, dict, dict]:
    """(kind, PyTorch's arrays, facts for to_canonical, facts for from_canonical)."""
    kind = draw(st.sampled_from(KINDS))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    size = tuple(draw(st.lists(SIZES, min_size=1, max_size=3)))
    a, b, groups = draw(SIZES), draw(SIZES), draw(SIZES)
    there: dict = {}
    back: dict = {}
    match kind:
        case "conv":
            shapes = {"weight": (a * groups, b, *size), "bias": (a * groups,)}
        case "depthwise_conv":
            shapes, there = {"weight": (a * b, 1, *size), "bias": (a * b,)}, {"channels": a}
        case "conv_transpose":
            shapes = {"weight": (a * groups, b, *size), "bias": (b * groups,)}
            there = back = {"groups": groups}
        case "dense":
            shapes = {"weight": (a, b), "bias": (a,)}
        case "batch_norm":
            shapes = dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (a,))
        case "layer_norm":
            shapes = dict.fromkeys(("weight", "bias"), (a, *size))
            there = back = {"channels_first": draw(st.booleans())}
        case "group_norm":
            shapes = dict.fromkeys(("weight", "bias"), (a,))
        case "rms_norm" | "prelu":
            shapes = {"weight": (a,)}
        case "embedding":
            shapes = {"weight": (a, b)}
        case "lstm" | "gru" | "rnn":
            rows = len(layouts.GATES[kind]) * a
            shapes = {"weight_ih": (rows, b), "weight_hh": (rows, a), "bias_ih": (rows,), "bias_hh": (rows,)}
        case "attention":
            width, there = a * groups, {"heads": groups}
            out = {"out_proj.weight": (width, width), "out_proj.bias": (width,), "in_proj_bias": (3 * width,)}
            if packed := draw(st.booleans()):
                shapes = {"in_proj_weight": (3 * width, width), **out}
            else:
                shapes = {f"{x}_proj_weight": (width, n) for x, n in zip("qkv", (width, a, b), strict=True)} | out
            back = {"packed": packed}
    optional = [name for name in shapes if name in ("bias", "in_proj_bias", "out_proj.bias")]
    left_out = draw(st.sets(st.sampled_from(optional))) if optional else set()
    arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items() if name not in left_out}
    if kind in ("lstm", "rnn"):
        arrays["bias_hh"] = np.zeros_like(arrays["bias_hh"])  # else the sum is all that can come back
    return kind, arrays, there, back


@settings(deadline=None, max_examples=300)
@given(torch_layers())
def test_from_torch_and_back(layer: tuple[str, dict, dict, dict]) -> None:
    kind, arrays, there, back = layer
    returned = from_canonical(kind, to_canonical(kind, arrays, **there), **back)
    assert returned.keys() == arrays.keys()
    for name, x in arrays.items():
        np.testing.assert_array_equal(returned[name], x, strict=True)


@settings(deadline=None, max_examples=300)
@given(torch_layers())
def test_from_keras_and_back(layer: tuple[str, dict, dict, dict]) -> None:
    kind, arrays, there, back = layer
    keras = to_canonical(kind, arrays, **there)
    returned = to_canonical(kind, from_canonical(kind, keras, **back), **there)
    assert returned.keys() == keras.keys()
    for name, x in keras.items():
        np.testing.assert_array_equal(returned[name], x, strict=True)


def test_two_biases_that_are_added_are_one() -> None:
    arrays = {
        "weight_ih": np.ones((4, 1)),
        "weight_hh": np.ones((4, 1)),
        "bias_ih": np.arange(4.0),
        "bias_hh": np.ones(4),
    }
    keras = to_canonical("lstm", arrays)
    np.testing.assert_array_equal(keras["bias"], [1, 2, 3, 4])
    back = from_canonical("lstm", keras)
    np.testing.assert_array_equal(back["bias_ih"] + back["bias_hh"], arrays["bias_ih"] + arrays["bias_hh"])


def test_the_gates_of_a_gru_change_places_and_its_biases_stay_apart() -> None:
    arrays = {  # rows r, z, n
        "weight_ih": np.array([[1.0], [2], [3]]), "weight_hh": np.array([[4.0], [5], [6]]),
        "bias_ih": np.array([7.0, 8, 9]), "bias_hh": np.array([10.0, 11, 12]),
    }  # fmt: skip
    keras = to_canonical("gru", arrays)
    assert keras["kernel"].tolist() == [[2, 1, 3]]
    assert keras["recurrent_kernel"].tolist() == [[5, 4, 6]]
    assert keras["bias"].tolist() == [[8, 7, 9], [11, 10, 12]]


def test_a_gru_that_resets_before_has_no_counterpart() -> None:
    keras = {"kernel": np.ones((1, 3)), "recurrent_kernel": np.ones((1, 3)), "bias": np.ones(3)}
    with pytest.raises(InvalidWeights, match="reset_after=True"):
        from_canonical("gru", keras)


def test_the_order_of_a_depthwise_kernel_with_a_multiplier() -> None:
    weight = np.arange(6.0).reshape(6, 1, 1, 1)  # output c * M + m, for C = 3 and M = 2
    assert to_canonical("depthwise_conv", {"weight": weight}, channels=3)["kernel"][0, 0].tolist() == [
        [0, 1],
        [2, 3],
        [4, 5],
    ]


def test_weights_between_the_groups_are_refused() -> None:
    with pytest.raises(InvalidWeights, match="between the groups"):
        from_canonical("conv_transpose", {"kernel": np.ones((1, 1, 4, 4))}, groups=2)


@given(SIZES, SIZES, SIZES)
def test_flattened_features(channels: int, height: int, width: int) -> None:
    image = np.random.default_rng(0).normal(size=(channels, height, width))
    keras = image.transpose(1, 2, 0).reshape(-1)
    np.testing.assert_array_equal(image.reshape(-1)[layouts.flattened_rows(channels, height * width)], keras)


def test_a_separable_convolution_is_two_layers() -> None:
    rng = np.random.default_rng(0)
    weights = {
        "depthwise_kernel": rng.normal(size=(3, 3, 2, 2)), "pointwise_kernel": rng.normal(size=(1, 1, 4, 5)),
        "bias": rng.normal(size=5),
    }  # fmt: skip
    joined = layouts.join_separable(*layouts.split_separable(weights))
    for name, x in weights.items():
        np.testing.assert_array_equal(joined[name], x)


def test_a_slope_at_each_position_is_refused() -> None:
    with pytest.raises(InvalidWeights, match="shared_axes"):
        from_canonical("prelu", {"alpha": np.arange(8.0).reshape(2, 2, 2)})
    assert from_canonical("prelu", {"alpha": np.arange(2.0).reshape(1, 1, 2)})["weight"].tolist() == [0, 1]


def test_wrong_names_name_the_right_ones() -> None:
    with pytest.raises(InvalidInput, match="no rule to transfer a layer of kind 'fold'"):
        to_canonical("fold", {})
    with pytest.raises(InvalidWeights, match="did you mean 'running_var'"):
        to_canonical("batch_norm", {"running_vars": np.ones(3)})
