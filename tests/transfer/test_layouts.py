"""Weights of PyTorch in Keras' layouts, number by number; that layers compute the same with them is for parity/."""

from __future__ import annotations

import numpy as np
import pytest

from agnostic.errors import InvalidInput, InvalidWeights
from agnostic.transfer.layouts import flattened_rows, to_canonical


def test_two_biases_that_are_added_are_one() -> None:
    arrays = {
        "weight_ih": np.ones((4, 1)),
        "weight_hh": np.ones((4, 1)),
        "bias_ih": np.arange(4.0),
        "bias_hh": np.ones(4),
    }
    np.testing.assert_array_equal(to_canonical("lstm", arrays)["bias"], [1, 2, 3, 4])
    with pytest.raises(InvalidWeights, match="not one of them"):
        to_canonical("lstm", {name: x for name, x in arrays.items() if name != "bias_hh"})


def test_the_gates_of_a_gru_change_places_and_its_biases_stay_apart() -> None:
    arrays = {  # rows r, z, n
        "weight_ih": np.array([[1.0], [2], [3]]), "weight_hh": np.array([[4.0], [5], [6]]),
        "bias_ih": np.array([7.0, 8, 9]), "bias_hh": np.array([10.0, 11, 12]),
    }  # fmt: skip
    keras = to_canonical("gru", arrays)
    assert keras["kernel"].tolist() == [[2, 1, 3]]
    assert keras["recurrent_kernel"].tolist() == [[5, 4, 6]]
    assert keras["bias"].tolist() == [[8, 7, 9], [11, 10, 12]]


def test_kernels_have_their_outputs_last() -> None:
    weight = np.arange(6.0).reshape(6, 1, 1, 1)  # output c * M + m, for C = 3 and M = 2
    depthwise = to_canonical("depthwise_conv", {"weight": weight}, channels=3)
    assert depthwise["kernel"][0, 0].tolist() == [[0, 1], [2, 3], [4, 5]]
    weight = np.arange(24.0).reshape(2, 3, 4)  # 1d: output, input, place
    assert to_canonical("conv", {"weight": weight})["kernel"][3, 2, 1] == weight[1, 2, 3]
    # Inputs 0 and 1 are read by outputs 0 to 2 alone, inputs 2 and 3 by outputs 3 to 5.
    weight = np.arange(1.0, 13.0).reshape(4, 3, 1)
    kernel = to_canonical("conv_transpose", {"weight": weight}, groups=2)["kernel"][0]
    expected = np.zeros((6, 4))
    expected[:3, :2], expected[3:, 2:] = weight[:2, :, 0].T, weight[2:, :, 0].T
    np.testing.assert_array_equal(kernel, expected)


def test_an_attention_has_its_projections_by_head() -> None:
    packed = np.arange(48.0).reshape(12, 4)
    keras = to_canonical(
        "attention",
        {"in_proj_weight": packed, "in_proj_bias": np.arange(12.0), "out_proj.weight": packed[:4]},
        heads=2,
    )
    for row, name in enumerate(("query", "key", "value")):
        for head in range(2):
            rows = slice(4 * row + 2 * head, 4 * row + 2 * head + 2)
            np.testing.assert_array_equal(keras[f"{name}_kernel"][:, head], packed[rows].T)
            np.testing.assert_array_equal(keras[f"{name}_bias"][head], np.arange(12.0)[rows])
    np.testing.assert_array_equal(keras["output_kernel"].reshape(4, 4), packed[:4].T)
    apart = {f"{x}_proj_weight": packed[4 * i : 4 * i + 4] for i, x in enumerate("qkv")}
    np.testing.assert_array_equal(to_canonical("attention", apart, heads=2)["key_kernel"], keras["key_kernel"])


def test_flattened_features() -> None:
    image = np.random.default_rng(0).normal(size=(3, 4, 5))
    keras = image.transpose(1, 2, 0).reshape(-1)
    np.testing.assert_array_equal(image.reshape(-1)[flattened_rows(3, 20)], keras)


def test_wrong_names_name_the_right_ones() -> None:
    with pytest.raises(InvalidInput, match="no rule to transfer a layer of kind 'fold'"):
        to_canonical("fold", {})
    with pytest.raises(InvalidWeights, match="did you mean 'running_var'"):
        to_canonical("batch_norm", {"running_vars": np.ones(3)})
