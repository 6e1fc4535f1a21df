"""Both worlds agree: one matrix over the frameworks. What is computed: cases.py; how near is near: tolerances.py."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from agnostic.testing import operations
from tests.parity import tolerances

FRAMEWORKS = ("torch", "keras-torch", "keras-jax", "keras-tensorflow")
KERAS = FRAMEWORKS[1:]

# The first test that asks for a framework waits for its process.
pytestmark = pytest.mark.slow


def in_area(results: dict[str, np.ndarray], area: str) -> Iterator[tuple[str, np.ndarray]]:
    names = [name for name in results if name.startswith(f"{area}/")]
    assert names, f"nothing was computed in {area}"
    yield from ((name, results[name]) for name in names)


def assert_all_near(ours: dict, right: dict, area: str, allowed: Callable[[str, np.ndarray], float]) -> None:
    """All arrays of an area; a failure names each that is not near, with its distance and what is allowed."""
    wrong = []
    for name, array in in_area(right, area):
        assert ours[name].shape == array.shape, name
        distance, most = tolerances.distance(ours[name], array), allowed(name, array)
        if not distance <= most:
            wrong.append(f"{name}: {distance:.2e}, allowed {most:.2e}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_every_operation_equals_the_reference(results: Callable, framework: str) -> None:
    ours = results(framework)
    for name, right in in_area(results("numpy"), "ops"):
        assert ours[name].shape == right.shape, name
        np.testing.assert_allclose(
            ours[name].astype(np.float64), right.astype(np.float64), rtol=0, atol=operations.tolerance(right),
            err_msg=name,
        )  # fmt: skip


@pytest.mark.parametrize("framework", KERAS)
def test_the_embedded_network_has_the_same_layers(results: Callable, framework: str) -> None:
    ours, theirs = (json.loads(str(results(f)["listing"])) for f in (framework, "torch"))
    assert [x[0] for x in ours] == [x[0] for x in theirs]
    assert ours == theirs


@pytest.mark.parametrize("framework", KERAS)
def test_every_layer_of_the_embedded_network_is_within_the_noise_floor(results: Callable, framework: str) -> None:
    single, right = results("torch"), results("torch-float64")
    assert len(list(in_area(right, "taps"))) > 150
    assert_all_near(results(framework), right, "taps", lambda name, array: tolerances.smooth(single[name], array))


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_photographs_are_recognized(results: Callable, framework: str) -> None:
    espresso, egyptian_cat = 967, 285
    assert results(framework)["taps/logits"].argmax(1).tolist() == [espresso, egyptian_cat]


@pytest.mark.parametrize("framework", KERAS)
def test_gradients_of_objectives(results: Callable, framework: str) -> None:
    single, right = results("torch"), results("torch-float64")
    assert_all_near(results(framework), right, "gradients", lambda name, array: tolerances.smooth(single[name], array))


@pytest.mark.parametrize("framework", KERAS)
def test_maps_of_attribution(results: Callable, framework: str) -> None:
    single, right, ours = results("torch"), results("torch-float64"), results(framework)
    layers = [name for name, _ in in_area(right, "explanations") if name.endswith("layer")]
    assert [str(ours[name]) for name in layers] == [str(right[name]) for name in layers]
    right = {name: array for name, array in right.items() if name not in layers}
    assert len(list(in_area(right, "explanations"))) == 24
    assert_all_near(ours, right, "explanations", lambda name, array: tolerances.smooth(single[name], array))


@pytest.mark.parametrize("area", ["ascents/smooth", "ascents/paired"])
@pytest.mark.parametrize("framework", KERAS)
def test_ten_steps_of_each_recipe_without_kinks(results: Callable, framework: str, area: str) -> None:
    single, right = results("torch"), results("torch-float64")
    assert_all_near(results(framework), right, area, lambda name, array: tolerances.smooth(single[name], array))


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_ten_steps_of_each_recipe_on_the_embedded_network(results: Callable, framework: str) -> None:
    single, right = results("torch"), results("torch-float64")

    def allowed(name: str, array: np.ndarray) -> float:
        case = name.removeprefix("ascents/")
        moved = [right[f"moved {run}/{case}"] for run in range(tolerances.MOVED_RUNS)]
        return tolerances.kinked(moved, single[name], array)

    assert_all_near(results(framework), right, "ascents/embedded", allowed)


def test_the_tolerances_catch_a_wrong_epsilon(results: Callable) -> None:
    """1e-5 for 1e-3 in one batch normalization of the twenty-first layer, the smallest fault that users report."""
    single, right = results("torch"), results("torch-float64")
    name = "taps/blocks.2.0.bn2"
    before, after = right["taps/blocks.2.0.conv_dw"], right[name]
    # What is wrong with a normalization is a factor a channel; ratios of the variances of the real layer.
    variance = before.var(axis=(0, 2, 3))
    factor = np.sqrt((variance + 1e-3) / (variance + 1e-5))
    broken = after * factor[None, :, None, None]
    assert tolerances.distance(broken, after) > 10 * tolerances.smooth(single[name], after)
