"""Axes in another order compute the same numbers: the pass is judged by running both programs in NumPy.

Both run in float64 with sums in another order: about n u for the longest sum, n = 54 products here, u = 2^-53.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agnostic.port.laid import Factor, common, flat, grouped, natural, reshaped, size
from agnostic.port.laying import laid_out
from agnostic.port.layout import LaidOut
from agnostic.program.builder import Builder
from agnostic.program.evaluate import run
from agnostic.program.nodes import Program, Value

TOLERANCE = 54 * 4 * 2.0**-53


def agrees(builder: Builder, **outputs: Any) -> LaidOut:
    """Lay a program out channels last, run it and the original, and compare."""
    program: Program = builder.program("Test", "none", outputs)
    laid = laid_out(program, -1)
    generator = np.random.default_rng(0)
    arrays = {x.name: generator.standard_normal(x.value.shape) for x in program.leaves if x.array is None}
    right = run(program, arrays, arrays)
    moved = {name: laid.weights[name](x) if name in laid.weights else x for name, x in arrays.items()}
    inputs = {name: arrays[name].transpose(order) for name, order in laid.inputs.items()}
    found = run(laid.program, inputs, moved)
    for path, order in laid.outputs.items():
        np.testing.assert_allclose(found[path], right[path].transpose(order), rtol=0, atol=TOLERANCE * 100)
    return laid


def image(builder: Builder) -> Any:
    """A convolution of an image with its channels first."""
    x = builder.leaf("x", "input", (2, 3, 8, 8), "float64")
    kernel = builder.leaf("kernel", "parameter", (6, 3, 3, 3), "float64")
    return builder.emit("convolution", x, kernel, None, stride=(1, 1), padding=((1, 1), (1, 1)), dilation=(1, 1))


def test_a_flatten_and_a_product_reorder_the_weight_and_move_nothing() -> None:
    builder = Builder()
    flat_ = builder.emit("reshape", image(builder), shape=(2, 384))
    weight = builder.leaf("weight", "parameter", (5, 384), "float64")
    laid = agrees(builder, y=builder.emit("linear", flat_, weight, None))
    assert laid.moves == ()
    assert laid.inputs == {"x": (0, 2, 3, 1)}
    assert not laid.weights["weight"].is_nothing


def test_tokens_heads_and_attention_move_nothing() -> None:
    builder = Builder()
    tokens = builder.emit("permute", builder.emit("reshape", image(builder), shape=(2, 6, 64)), axes=(0, 2, 1))
    weight = builder.leaf("weight", "parameter", (18, 6), "float64")
    split = builder.emit("reshape", builder.emit("linear", tokens, weight, None), shape=(2, 64, 3, 2, 3))
    parts = builder.emit("permute", split, axes=(2, 0, 3, 1, 4))
    query, key, value = (builder.emit("select", parts, axis=0, index=i) for i in range(3))
    scores = builder.emit(
        "softmax", builder.emit("matmul", query, builder.emit("permute", key, axes=(0, 1, 3, 2))), axis=3
    )
    for context in (builder.emit("matmul", scores, value), builder.emit("attention", query, key, value)):
        joined = builder.emit("reshape", builder.emit("permute", context, axes=(0, 2, 1, 3)), shape=(2, 64, 6))
        laid = agrees(builder, y=joined)
        assert laid.moves == ()


def test_windows_are_moved_once_there_and_once_back() -> None:
    builder = Builder()
    x = builder.emit("permute", image(builder), axes=(0, 2, 3, 1))
    split = builder.emit("permute", builder.emit("reshape", x, shape=(2, 2, 4, 2, 4, 6)), axes=(0, 1, 3, 2, 4, 5))
    windows = builder.emit("reshape", split, shape=(8, 16, 6))
    weight = builder.leaf("weight", "parameter", (6, 6), "float64")
    y = builder.emit("linear", builder.emit("softmax", windows, axis=1), weight, None)
    back = builder.emit("permute", builder.emit("reshape", y, shape=(2, 2, 2, 4, 4, 6)), axes=(0, 1, 3, 2, 4, 5))
    laid = agrees(builder, y=builder.emit("add", x, builder.emit("reshape", back, shape=(2, 8, 8, 6))))
    assert len(laid.moves) == 2


@pytest.mark.parametrize(
    ("operator", "attributes"),
    [
        ("reduce", {"function": "mean", "axes": (1,), "keep": True}), ("reduce", {"function": "max", "axes": (2, 3)}),
        ("softmax", {"axis": 1}), ("slice", {"axis": 1, "start": 1, "stop": 5}), ("select", {"axis": 1, "index": 2}),
        ("pad", {"widths": ((0, 0), (1, 2), (0, 0), (3, 0))}), ("roll", {"shifts": (1, 2), "axes": (1, 3)}),
        ("flip", {"axes": (1, 2)}), ("argmax", {"axis": 1}), ("cumulative", {"axis": 1}),
        ("variance", {"axes": (1,), "correction": 1}), ("tile", {"counts": (1, 2, 1, 1)}),
        ("layer_norm", {"axes": (-3, -2, -1), "epsilon": 1e-5}), ("group_norm", {"groups": 3, "epsilon": 1e-5}),
        ("adaptive_average_pool", {"sizes": (1, 1)}), ("max_pool", {"kernel": (2, 2), "stride": (2, 2),
         "padding": ((0, 0), (1, 1)), "dilation": (1, 1)}),
        ("resize", {"sizes": (5, 9), "method": "bilinear"}), ("expand", {"shape": (2, 6, 8, 8)}),
    ],
)  # fmt: skip
def test_each_operator_finds_its_axes(operator: str, attributes: dict[str, Any]) -> None:
    builder = Builder()
    x = image(builder)
    y = builder.emit(operator, x, **attributes)
    vector = builder.leaf("vector", "parameter", (1, 6, 1, 1), "float64")
    scaled = builder.emit("multiply", x, vector)
    laid = agrees(
        builder, y=y, joined=builder.emit("concatenate", (x, scaled), axis=1), sum=builder.emit("add", x, scaled)
    )
    assert not any(move.operator in ("multiply", "add", "concatenate") for move in laid.moves)


def test_a_weight_in_two_orders_stays_as_the_source_has_it() -> None:
    builder = Builder()
    x = builder.leaf("x", "input", (4, 6), "float64")
    weight = builder.leaf("weight", "parameter", (6, 6), "float64")
    zeros = builder.emit("reduce", builder.emit("multiply", x, 0.0), function="sum", axes=(1,))
    rows = builder.emit("embedding", weight, builder.emit("cast", zeros, dtype="int64"))
    y = builder.emit("linear", rows, weight, None)
    assert agrees(builder, y=y).weights == {}


@given(st.lists(st.integers(2, 4), min_size=1, max_size=5), st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_factors_are_dealt_out_so_that_axes_have_their_lengths(sizes: list[int], lengths: list[int]) -> None:
    factors = tuple(map(Factor, sizes))
    found = grouped(factors, lengths)
    if found is not None:
        axes, _ = found
        assert [size(axis) for axis in axes] == lengths
        assert size(flat(axes)) == size(factors)
    shared = common(factors, tuple(map(Factor, reversed(sizes))))
    assert shared is None or int(np.prod(shared)) == size(factors)


def test_a_reshape_that_cuts_where_no_border_is_has_no_view() -> None:
    x = natural(Value(1, (4, 6), "float64"))
    assert reshaped(x, (8, 3)) is not None
    assert reshaped(natural(Value(1, (2, 3), "float64")), (3, 2)) is None


@pytest.mark.parametrize("returned", [False, True])
def test_a_sum_of_products_takes_and_gives_axes_in_any_order(returned: bool) -> None:
    """Heads that are merged with the batch and split again; what is returned as well stays moved."""
    builder = Builder()
    x = builder.leaf("x", "input", (2, 5, 3, 4), "float64")
    heads = builder.emit("permute", x, axes=(0, 2, 1, 3))
    scores = builder.emit("einsum", (heads, heads), equation="bhid,bhjd->bhij")
    mixed = builder.emit(
        "reshape", builder.emit("einsum", (scores, heads), equation="bhij,bhjd->bhid"), shape=(6, 5, 4)
    )
    back = builder.emit("permute", builder.emit("reshape", mixed, shape=(2, 3, 5, 4)), axes=(0, 2, 1, 3))
    merged = builder.emit("reshape", back, shape=(2, 5, 12))
    laid = agrees(builder, y=merged, **({"heads": heads} if returned else {}))
    assert len(laid.moves) == returned
    products = [n.attributes["equation"] for n in laid.program.nodes if n.operator == "einsum"]
    if not returned:
        assert products == ["bihd,bjhd->bhij", "bhij,bjhd->bihd"]


def test_an_image_whose_channels_the_model_moves_has_them_last() -> None:
    builder = Builder()
    x = builder.leaf("x", "input", (2, 3, 8, 6), "float64")
    rows = builder.emit("permute", x, axes=(0, 2, 3, 1))
    laid = agrees(builder, y=builder.emit("reduce", rows, function="mean", axes=(1,), keep=False))
    assert laid.inputs["x"] == (0, 2, 3, 1)
    assert not laid.moves
