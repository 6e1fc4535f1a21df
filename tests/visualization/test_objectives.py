"""Objectives are values: they add, scale and multiply as numbers do, say what they show, and mean what they say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import agnostic as ag
from agnostic.models.attached import attach
from agnostic.models.cards import ModelCard, Preprocessing
from agnostic.reference.ops import NumpyOps
from agnostic.visualization import objectives as o
from agnostic.visualization.ascent import Ascent
from agnostic.visualization.recipes import classic
from agnostic.visualization.robustness import Crops
from agnostic.visualization.taps import Tap

ops = NumpyOps()
SHAPE = (6, 5, 3)
RNG = np.random.default_rng(0)
VALUES = {
    "a": RNG.standard_normal((4, 7, 3, 2)),
    "b": RNG.standard_normal((4, 2, 3, 7)),
    o.OUTPUT: RNG.standard_normal((4, 7)),
}
AXES = {"a": "NCHW", "b": "NHWC", o.OUTPUT: "NC"}


def evaluate(
    objective: Any, views: int = 1, values: dict[str, Any] = VALUES, axes: dict[str, str] = AXES
) -> np.ndarray:
    """(images,): the value of an objective for the first rows of the values."""
    recipe = classic(views=Crops(count=views, low=1, high=1, noise=0)) if views > 1 else classic()
    ascent = Ascent(objective, recipe, SHAPE, 0, None, {}, 1)
    images = range(ascent.count)
    rows = len(images) * views
    taps = {name: Tap(name, value[:rows], axes[name]) for name, value in values.items()}
    return ascent.score(ops, lambda inputs: taps, ascent.initial(images), {}, ascent.arrays(images), {})


def mean(layer: str, row: int, channel: int) -> float:
    return float(np.moveaxis(VALUES[layer][row], AXES[layer].index("C") - 1, 0)[channel].mean())


# Algebra --------------------------------------------------------------------------------------------------------------
numbers = st.floats(-3, 3).filter(lambda x: x == 0 or abs(x) > 1e-3)
indices = st.integers(0, 6)


@st.composite
def terms(draw: Any, count: int) -> Any:
    """(objective, its value for each image), of ``count`` images or of one."""
    n = draw(st.sampled_from([1, count]))
    layer = draw(st.sampled_from(["a", "b"]))
    chosen = draw(st.lists(indices, min_size=n, max_size=n))
    rows = range(count)
    match draw(st.sampled_from(["channel", "deepdream", "logit", "neuron"])):
        case "channel":
            return o.channel(layer, chosen), np.array([mean(layer, r, chosen[r % n]) for r in rows])
        case "logit":
            return o.logit(chosen), np.array([VALUES[o.OUTPUT][r, chosen[r % n]] for r in rows])
        case "neuron":
            return o.neuron("a", chosen, (2, 1)), np.array([VALUES["a"][r, chosen[r % n], 2, 1] for r in rows])
    return o.deepdream(layer), np.array([np.square(VALUES[layer][r]).mean() for r in rows])


@st.composite
def composed(draw: Any, count: int, depth: int = 3) -> Any:
    if depth == 0 or draw(st.booleans()):
        return draw(terms(count))
    (left, x), kind = draw(composed(count, depth - 1)), draw(st.sampled_from(["+", "-", "*", "2+", "2-", "2*", "neg"]))
    if kind == "neg":
        return -left, -x
    if kind.startswith("2"):
        number = draw(numbers)
        if draw(st.booleans()):
            return {"2+": left + number, "2-": left - number, "2*": left * number}[kind], {
                "2+": x + number, "2-": x - number, "2*": x * number
            }[kind]  # fmt: skip
        return {"2+": number + left, "2-": number - left, "2*": number * left}[kind], {
            "2+": number + x, "2-": number - x, "2*": number * x
        }[kind]  # fmt: skip
    right, y = draw(composed(count, depth - 1))
    return {"+": left + right, "-": left - right, "*": left * right}[kind], {"+": x + y, "-": x - y, "*": x * y}[kind]


@given(data=st.data(), count=st.integers(1, 4))
def test_objectives_are_added_scaled_and_multiplied_as_their_values_are(data: Any, count: int) -> None:
    objective, expected = data.draw(composed(count))
    # One term of all images decides the count; an objective of one image applies to all of them.
    both = objective + 0 * o.channel("a", [0] * count)
    assert both.count == len(both.labels()) == count
    # Up to eight terms of at most 3 and 3 numbers of at most 3, multiplied: float64 leaves 12 digits of the largest.
    np.testing.assert_allclose(evaluate(both), expected, rtol=1e-9, atol=1e-9)


def test_objectives_of_different_counts_do_not_combine() -> None:
    for combine in (lambda x, y: x + y, lambda x, y: x - y, lambda x, y: x * y):
        with pytest.raises(ag.InvalidInput, match="objectives of 2 and 3 images cannot be combined"):
            combine(o.channel("a", [0, 1]), o.logit([0, 1, 2]))


@pytest.mark.parametrize("other", ["x", None])
def test_what_is_no_number_does_not_combine(other: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        o.channel("a", 0) + other


def test_sums_of_pythons_own() -> None:
    total = sum([o.channel("a", 0), o.channel("a", 1)])
    assert evaluate(total)[0] == pytest.approx(mean("a", 0, 0) + mean("a", 0, 1))


def test_a_composition_prints_as_what_made_it() -> None:
    objective = o.channel("conv", [1, 2]) - 0.5 * o.deepdream("block")
    assert objective.labels() == ("conv:1 + -1 * 0.5 * block:deepdream", "conv:2 + -1 * 0.5 * block:deepdream")
    assert repr(o.channel("conv", range(2))) == "Channel(layer='conv', channels=(0, 1))"
    names = {name: getattr(o, name) for name in dir(o)}
    assert eval(repr(objective), names) == objective  # noqa: S307 - our own text


def test_objectives_are_values() -> None:
    assert o.channel("a", [1, 2]) + 1 == o.channel("a", (1, 2)) + 1.0
    assert hash(o.channel("a", 1)) == hash(o.channel("a", [1]))
    assert o.channel("a", np.int64(3)) == o.channel("a", 3)
    assert o.logit([np.int32(3), "zebra"]) == o.logit((3, "zebra"))


@pytest.mark.parametrize(
    ("objective", "label"),
    [
        (o.channel("a", 5), "a:5"),
        (o.neuron("a", 5), "a:5"),
        (o.neuron("a", 5, (1, 2)), "a:5@1,2"),
        (o.logit(7), "class 7"),
        (o.direction("a", [1, 2]), "a:direction 0"),
        (o.deepdream("a"), "a:deepdream"),
        (o.diversity("a"), "a:diversity"),
        (o.total_variation(), "total variation"),
        (2 * o.channel("a", 5), "2 * a:5"),
    ],
)
def test_labels(objective: Any, label: str) -> None:
    assert objective.labels() == (label,)


def test_the_names_are_those_of_the_functions() -> None:
    assert all(callable(getattr(ag.objectives, name)) for name in o.names())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: o.channel("a", []), "non-empty sequence of integers"),
        (lambda: o.channel("a", True), "not True"),
        (lambda: o.channel("a", 1.5), "not 1.5"),
        (lambda: o.channel("a", [0, "1"]), "not "),
        (lambda: o.channel("a", None), "not None"),
        (lambda: o.channel("a", np.array(3)), "not array"),
        (lambda: o.neuron("a", []), "non-empty"),
        (lambda: o.neuron("a", 0, "5"), "two integers from 0, not '5'"),
        (lambda: o.neuron("a", 0, (1, -1)), r"two integers from 0, not \(1, -1\)"),
        (lambda: o.neuron("a", 0, (1, 2, 3, 4)), "two integers from 0"),
        (lambda: o.logit([]), "no class is given"),
        (lambda: o.logit(1.5), "not 1.5"),
        (lambda: o.logit([True]), "not True"),
        (lambda: o.direction("a", [[[1.0]]]), r"not \(1, 1, 1\)"),
        (lambda: o.direction("a", [1.0, np.nan]), "finite"),
        (lambda: o.direction("a", ["x"]), "finite"),
        (lambda: o.direction("a", [[1.0, 2.0], [3.0]]), "finite"),
        (lambda: o.direction("a", np.zeros((0, 7))), r"not \(0, 7\)"),
        (lambda: o.cosine("a", np.zeros(7)), "no direction to be near to"),
        (lambda: o.token("a", "last"), "a number from 0, or 'class', not 'last'"),
        (lambda: o.head("a", 4, 4), r"0 to their number - 1, not \(4,\) of 4"),
        (lambda: o.interpolation(o.logit([1, 2]), o.logit(0), 3), "not of 2 and 1 images in 3"),
        (lambda: o.interpolation(o.logit(1), o.logit(0), 1), "at least 2 steps"),
        (lambda: o.caricature("a", np.zeros((4, 4))), "a photo is a file or an array"),
        (lambda: o.caricature("a", np.zeros((4, 4, 3), np.uint8), power=-1), "not -1"),
        (lambda: o.style("a", []), "give one photo or several"),
        (lambda: o.function(3, "a"), "a function f"),
    ],
)
def test_wrong_arguments(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(ag.InvalidInput, match=words):
        make()


# Meaning --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("layer", ["a", "b"])
def test_a_neuron_is_one_channel_at_one_position(layer: str) -> None:
    height, width = (3, 2) if layer == "a" else (2, 3)
    for y, x in ((0, 0), (1, 1), (height - 1, width - 1)):
        value = VALUES[layer][1, 4, y, x] if layer == "a" else VALUES[layer][1, y, x, 4]
        assert evaluate(o.neuron(layer, [0, 4], (y, x)))[1] == value
    centre = evaluate(o.neuron(layer, [0, 4], (height // 2, width // 2)))
    np.testing.assert_array_equal(evaluate(o.neuron(layer, [0, 4])), centre)
    with pytest.raises(ag.InvalidInput, match=f"it is {height} high and {width} wide"):
        evaluate(o.neuron(layer, 0, (height, 0)))


def test_a_direction_is_a_dot_product_with_the_mean_activation() -> None:
    vectors = RNG.standard_normal((2, 7))
    found = evaluate(o.direction("a", vectors))
    np.testing.assert_allclose(found, [(VALUES["a"][i].mean((1, 2)) * vectors[i]).sum() for i in range(2)], rtol=1e-12)
    unit = evaluate(o.direction("b", np.eye(7)[3]))
    np.testing.assert_allclose(unit, evaluate(o.channel("b", 3)), rtol=1e-12)


def test_a_direction_keeps_its_own_vector() -> None:
    vector = np.ones(7)
    objective = o.direction("a", vector)
    vector[:] = 0
    assert evaluate(objective)[0] != 0


def cosines(value: np.ndarray) -> np.ndarray:
    """(images, images): the cosine similarity of the images' channel correlations. value: (images, C, H, W)."""
    flat = value.reshape(*value.shape[:2], -1)
    gram = np.stack([x @ x.T for x in flat]).reshape(len(flat), -1)
    gram /= np.linalg.norm(gram, axis=1, keepdims=True)
    return gram @ gram.T


def test_diversity_is_minus_the_mean_similarity_with_the_others() -> None:
    found = evaluate(o.channel("a", [0] * 3) * 0 + o.diversity("a"))
    similar = cosines(VALUES["a"][:3])
    np.testing.assert_allclose(found, -(similar.sum(1) - 1) / 2, rtol=1e-12)


def test_diversity_compares_no_image_with_itself_among_several_views() -> None:
    found = evaluate(o.channel("a", [0] * 2) * 0 + o.diversity("a"), views=2)
    # Rows 0 and 1 are views of one image, 2 and 3 of the other; each view is compared with the other image's.
    similar = cosines(VALUES["a"])
    np.testing.assert_allclose(
        found[0], -np.mean([similar[0, 2] + similar[0, 3], similar[1, 2] + similar[1, 3]]) / 2, rtol=1e-12
    )


def test_equal_images_are_as_alike_as_can_be() -> None:
    same = {"a": np.repeat(VALUES["a"][:1], 4, 0)}
    np.testing.assert_allclose(evaluate(o.channel("a", [0] * 4) * 0 + o.diversity("a"), values=same), -1, rtol=1e-12)


def test_diversity_couples_and_others_do_not() -> None:
    assert o.diversity("a").coupled
    assert (o.channel("a", [1, 1]) + 2 * o.diversity("a")).coupled
    assert not (o.channel("a", 1) + o.deepdream("b") - o.total_variation()).coupled


def test_total_variation_is_the_mean_step_between_neighbours() -> None:
    ascent = Ascent(o.total_variation(), classic(), SHAPE, 0, None, {}, 1)
    image = RNG.random((1, *SHAPE))
    found = ascent.score(ops, lambda inputs: {}, image, {}, ascent.arrays(range(1)), {})
    expected = np.abs(np.diff(image[0], axis=0)).mean() + np.abs(np.diff(image[0], axis=1)).mean()
    assert found[0] == pytest.approx(expected, rel=1e-13)
    flat = ascent.score(ops, lambda inputs: {}, np.ones((1, *SHAPE)), {}, ascent.arrays(range(1)), {})
    assert flat[0] == 0


def test_the_value_of_an_image_is_the_mean_over_its_views() -> None:
    found = evaluate(o.channel("a", [2, 5]), views=2)
    expected = [(mean("a", 0, 2) + mean("a", 1, 2)) / 2, (mean("a", 2, 5) + mean("a", 3, 5)) / 2]
    np.testing.assert_allclose(found, expected, rtol=1e-13)


# In an ascent ---------------------------------------------------------------------------------------------------------
def test_diversity_makes_images_differ(network: Any) -> None:
    # Of values in [0, 1] this network sees little but its own offsets, which are the same for all images.
    attach(network, ModelCard("tiny", Preprocessing((0.0,) * 3, (1.0,) * 3, scale=255.0), (16, 16)))
    alike = {"size": 16, "steps": 40, "dtype": "float32", "recipe": ag.recipes.fourier(views=classic().views)}
    same = ag.objectives.channel("block", [3, 3])
    plain = ag.visualize(network, same, **alike)
    diverse = ag.visualize(network, same + 5 * ag.objectives.diversity("block"), **alike)

    def similarity(images: Any) -> float:
        record = ag.capture(network, np.moveaxis(np.asarray(images), -1, 1) * 255, "block").numpy()
        return float(cosines(np.asarray(record["block"], np.float64))[0, 1])

    assert similarity(diverse) < 0.5 < 0.9 < similarity(plain)  # 0.05 and 0.99
    assert diverse.labels == ("block:3 + 5 * block:diversity",) * 2


def test_less_total_variation_is_smoother(network: Any) -> None:
    def roughness(weight: float) -> float:
        objective = ag.objectives.channel("down", 3) - weight * ag.objectives.total_variation()
        image = np.asarray(ag.visualize(network, objective, size=16, steps=20, dtype="float32")[0])
        return float(np.abs(np.diff(image, axis=0)).mean())

    assert roughness(10.0) < 0.7 * roughness(0.0)


@pytest.mark.parametrize(
    "objective",
    [
        o.neuron("block", 2), o.neuron("head", 2), o.logit(2), o.logit(2, layer="head"),
        o.direction("block", np.ones(8)), o.deepdream("block"),
        o.channel("down", 1) * o.channel("block", 2), o.channel("down", 1) + 2 * o.logit(0),
    ],
)  # fmt: skip
def test_every_objective_climbs(network: Any, objective: Any) -> None:
    still = ag.recipes.fourier(views=classic().views)
    scores = ag.visualize(network, objective, recipe=still, size=16, steps=10, dtype="float32").scores
    assert scores[-1, 0] > scores[0, 0]
