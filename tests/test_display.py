"""How values show themselves: short at a prompt, escaped in a notebook, whatever their names hold."""

from __future__ import annotations

import copy
import inspect
import io
import typing
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import agnostic as ag
from agnostic import display
from tests.test_pages import Parsed

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

NAME = "<img src=x onerror=alert(1)>\x1b[2J" + "long" * 40
"""A layer's name as a hostile file may have it."""

LONGEST = 500
"""What a repr may have: a line or a few at a prompt."""

ELSEWHERE = {
    "Backend": "its subclasses show themselves",
    "ModelCard": "a card is shown with the model it belongs to",
    "Taps": "scikit-learn shows its estimators",
}
"""Return types without an example here, and why."""


def network(name: str) -> nn.Module:
    net = nn.Sequential()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net.add_module(name, nn.Conv2d(3, 4, 3, padding=1))
        for i in range(12):
            net.add_module(f"{name}{i}", nn.BatchNorm2d(4))
        net.add_module("head", nn.Conv2d(4, 2, 3))
    return net.eval()


@pytest.fixture(scope="module", params=["conv", NAME], ids=["plain", "hostile"])
def shown(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One value of every type that a public function returns."""
    name, folder = request.param, tmp_path_factory.mktemp("display")
    net, inputs = network(name), np.random.default_rng(0).random((2, 3, 8, 8), np.float32)
    other = copy.deepcopy(net)
    other[1].eps = 1e-1
    record = ag.capture(net, torch.from_numpy(inputs), "**")
    record.save(folder / "record.safetensors")
    images = ag.visualize(net, ag.objectives.channel(name, range(4)), size=8, steps=1)
    comparison = ag.compare(net, other, inputs)
    spec = ag.optimizers.Adam(learning_rate=0.1, weight_decay=0.1)
    generator = ag.augmentation.ImageDataGenerator(rotation_range=40, zoom_range=[0.5, 2], width_shift_range=0.2)
    augmentation = ag.augmentation.Augmentation(rotation=(-40, 40), zoom=(0.8, 1.25), horizontal_flip=0.5)
    groups = ag.optimizers.groups(net, {"kind:BatchNorm2d": {"weight_decay": 0.0}, "head": {"trainable": False}})
    values = [
        ag.layers(net, inputs), ag.layers(net, inputs)[:3], record, ag.taps.open(folder / "record.safetensors"),
        images, images[0], images + 1, ag.program(net, torch.from_numpy(inputs)), comparison, comparison.diagnosis,
        comparison.first_divergence, ag.transfer(net, copy.deepcopy(net), inputs=inputs), groups, groups.groups[0],
        spec, *trained(net, spec, groups), generator, generator.flow(np.zeros((2, 4, 4, 3))),
        augmentation, augmentation.parameters(0, 0, (4, 4)), augmentation.with_targets(inputs, seed=0, layout="NCHW"),
        augmentation.dataset([inputs[0]] * 3, 0), ag.data.Ragged.from_lists([[1], [2, 3]]),
        ag.data.shuffle(list(range(1000)), seed=0), *folders(folder),
        ag.port(network("conv"), "keras", inputs, check=False),
        *attributions(net, name), *stored(net, folder), ag.custom_operator(name, to="torch")(lambda x: 2 * x),
        ag.objectives.channel(name, range(4096)), ag.objectives.neuron(name, range(64)),
        ag.objectives.direction(name, np.ones((2, 4))), ag.objectives.logit(range(1000)), ag.objectives.deepdream(name),
        ag.objectives.caricature(name, np.zeros((4, 4, 3)), name=name),
        ag.objectives.concept_vector(net, name, [np.zeros((8, 8, 3))] * 2, [np.ones((8, 8, 3))] * 2, name=name),
        ag.objectives.diversity(name), ag.objectives.total_variation(), *map(ag.recipes.get, ag.recipes.names()),
    ]  # fmt: skip
    return {f"{number}: {type(value).__name__}": value for number, value in enumerate(values)}


def folders(folder: Path) -> Iterator[Any]:
    """A folder of images, its batches, and Keras' two ways to read folders."""
    from agnostic.files import write_png

    pandas = pytest.importorskip("pandas")
    for number in range(4):
        where = folder / "photos" / f"class <b>{number % 2}"
        where.mkdir(parents=True, exist_ok=True)
        write_png(where / f"{number}.png", np.zeros((4, 4, 3), np.uint8))
    images = ag.data.ImageFolder(folder / "photos", size=(4, 4))
    yield images
    yield images.batches(2)
    yield images.batches(2).load(0, images.batches(2).spans(0)[0])
    generator = ag.augmentation.ImageDataGenerator()
    yield generator.flow_from_directory(folder / "photos", target_size=(4, 4))
    table = pandas.DataFrame({"filename": [str(path) for path in (folder / "photos").rglob("*.png")], "class": "a"})
    yield generator.flow_from_dataframe(table, target_size=(4, 4))


def stored(net: nn.Module, folder: Path) -> Iterator[Any]:
    """A store of activations, and what is asked of it."""
    pytest.importorskip("zarr")
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), np.uint8)
    store = ag.extract(net, images, [net[0]], folder / "acts.zarr", reduce="mean")
    yield store
    yield ag.top(store, next(iter(store)), 0)
    yield ag.similar(store)


def attributions(net: nn.Module, name: str) -> Iterator[Any]:
    """Maps of a layer, and what a judge says of a method."""
    images = np.random.default_rng(0).random((2, 8, 8, 3), np.float32)

    def first(ops: Any, output: Any) -> Any:
        return ops.mean(output[:, 0], (1, 2))

    # Its weights stand in a model of its own: the judge shuffles them for a while.
    net = copy.deepcopy(net)
    yield ag.explain(net, images, target=first, layer=name)
    yield ag.attribution.judge(net, images, methods=["gradient"], target=first, steps=1)


def trained(net: nn.Module, spec: Any, groups: Any) -> Iterator[Any]:
    """An optimizer after a step, and its state as data."""
    optimizer = ag.optimizers.build(spec, groups, native=False)
    sum(p.sum() for p in net.parameters()).backward()
    optimizer.step()
    yield optimizer
    yield ag.optimizers.read(optimizer, net)
    yield next(iter(ag.optimizers.read(optimizer, net).states.values()))


def test_a_repr_is_short_printable_and_without_numbers_of_arrays(shown: dict[str, Any]) -> None:
    for name, value in shown.items():
        text = repr(value)
        assert len(text) <= LONGEST, f"{name}: {len(text)} characters: {text[:2000]}"
        assert " object at 0x" not in text, name
        assert text.replace("\n", "").isprintable(), name
        assert "array([[[" not in text, name
        assert "tensor(" not in text, name


def test_a_notebook_is_given_text_and_never_markup(shown: dict[str, Any]) -> None:
    seen = 0
    for name, value in shown.items():
        page = value._repr_html_() if hasattr(type(value), "_repr_html_") else None
        if page is None:
            continue
        seen += 1
        parsed = Parsed(page)
        tags = {element[0].removeprefix("/") for element in parsed.elements}
        assert tags <= {
            "div", "p", "strong", "table", "thead", "tbody", "tr", "th", "td", "pre", "figure", "figcaption", "img"
        }, name  # fmt: skip
        assert all("onerror" not in element for element in parsed.elements), name
        assert "\x1b" not in page, name
        assert tags <= {"div", "p", "strong", "pre"} or len(parsed.elements) > 10, f"{name} shows nothing"
    assert seen >= 7


def test_an_image_is_shown_as_a_picture(shown: dict[str, Any]) -> None:
    from PIL import Image

    batch, single, outside = (x for x in shown.values() if type(x).__name__ == "Images")
    with Image.open(io.BytesIO(batch._repr_png_())) as picture:
        assert picture.size == (4 * 8 + 5 * 5, 8 + 2 * 5)
    with Image.open(io.BytesIO(single._repr_png_())) as picture:
        assert picture.size == (8, 8)
        np.testing.assert_array_equal(np.asarray(picture), np.rint(np.asarray(single) * 255))
    assert single._repr_html_() is None
    assert outside._repr_png_() is None, "what leaves [0, 1] is no picture"
    assert batch._repr_html_().count("<figure") == 4


def test_some_of_the_images_keep_their_labels(shown: dict[str, Any]) -> None:
    images = next(x for x in shown.values() if type(x).__name__ == "Images")
    assert images[1].labels == images.labels[1:2]
    assert images[::2].labels == images.labels[::2]
    assert images[[3, 0], :4].labels == (images.labels[3], images.labels[0])
    np.testing.assert_array_equal(images[1:3].scores, images.scores[:, 1:3])
    assert not hasattr(images.mean(axis=0), "labels")
    assert isinstance(images[0, 0, 0, 0], np.float32)


def test_a_printed_table_has_every_layer(shown: dict[str, Any]) -> None:
    layers = next(x for x in shown.values() if type(x).__name__ == "Layers")
    lines = str(layers).splitlines()
    assert len(lines) == 1 + len(layers) == 15
    assert "4 x" not in lines[0]
    assert "N x 4 x 8 x 8  NCHW" in lines[1]


def test_every_type_that_a_public_function_returns_has_an_example(shown: dict[str, Any]) -> None:
    known = {cls.__name__ for value in shown.values() for cls in type(value).__mro__}
    missing = {cls.__name__ for cls in returned()} - known - ELSEWHERE.keys()
    assert not missing, f"give tests/test_display.py an example of {', '.join(sorted(missing))}"


def returned() -> set[type]:
    """The classes of ours that public functions, and public methods of public classes, say they return."""
    functions: list[Any] = []
    for name in ag.__all__:
        value = getattr(ag, name)
        members = [getattr(value, x) for x in value.__all__] if isinstance(value, ModuleType) else [value]
        for member in members:
            if inspect.isclass(member):
                functions += [x for key, x in inspect.getmembers(member, inspect.isfunction) if not key.startswith("_")]
            elif callable(member):
                functions.append(member)
    found: set[type] = set()
    for function in functions:
        try:
            hints = typing.get_type_hints(inspect.unwrap(function))
        except NameError:  # names that only type checkers import
            continue
        found |= set(_classes(hints.get("return")))
    return found


def _classes(hint: Any) -> Iterator[type]:
    for argument in typing.get_args(hint):
        yield from _classes(argument)
    if inspect.isclass(hint) and hint.__module__.startswith("agnostic"):
        yield hint


# The parts ------------------------------------------------------------------------------------------------------------


def test_the_middle_of_a_long_name_is_left_out() -> None:
    assert display.shortened("block1_conv1") == "block1_conv1"
    text = display.shortened("a" * 50 + "z" * 50, 20)
    assert (len(text), text) == (20, "aaaaa...zzzzzzzzzzzz")


def test_a_list_says_how_many_it_leaves_out() -> None:
    assert display.listed(["a", "b"]) == "a, b"
    assert display.listed(["abc"] * 100, room=20) == "abc, abc, abc, abc, and 96 more"
    assert display.listed([]) == ""
    assert display.listed(["x" * 50], room=20).startswith("x"), "one is always shown"


def test_a_specification_prints_as_the_call_that_makes_it() -> None:
    o = ag.optimizers
    names = vars(o)
    for kind in o.KINDS.values():
        spec = kind(learning_rate=0.25, weight_decay=0.5)
        assert eval(repr(spec), dict(names)) == spec  # noqa: S307 - our own text
    assert repr(o.SGD(0.1, momentum=0.9)) == "SGD(learning_rate=0.1, momentum=0.9)"
    augmentation = ag.augmentation.Augmentation(rotation=(-1, 1), order=0)
    assert eval(repr(augmentation), vars(ag.augmentation)) == augmentation  # noqa: S307 - our own text
    channel = ag.objectives.channel("conv", range(3, 70))
    assert eval(repr(channel), vars(ag.objectives)) == channel  # noqa: S307 - our own text
