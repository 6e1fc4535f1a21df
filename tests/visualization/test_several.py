"""Pictures for one input of a model that has several; the same on Keras: tests/keras/engine/test_several.py."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
nn = torch.nn

import agnostic as ag  # noqa: E402
from agnostic.errors import InvalidInput, UnknownName  # noqa: E402

ROOT = Path(__file__).parents[2]
channel = ag.objectives.channel
AGE = np.array([[1.0, -2.0]])


class Aged(nn.Module):
    """A photo and two numbers."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.conv, self.act = nn.Conv2d(channels, 6, 3, padding=1), nn.Tanh()
        self.years, self.mix = nn.Linear(2, 6), nn.Conv2d(6, 4, 3)
        self.head = nn.Linear(4, 3)

    def forward(self, image: Any, age: Any) -> Any:
        x = self.act(self.conv(image)) * (1 + self.years(age))[:, :, None, None]
        return self.head(self.act(self.mix(x)).mean((2, 3)))


class Twins(nn.Module):
    """Two photos through one tower."""

    def __init__(self) -> None:
        super().__init__()
        self.tower = nn.Sequential(nn.Conv2d(3, 5, 3), nn.Tanh())
        self.last = nn.Conv2d(5, 4, 3)

    def forward(self, left: Any, right: Any) -> Any:
        return self.last(self.tower(left) - self.tower(right))


class Worded(nn.Module):
    """One dict of token ids, a sound and a photo."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.sound = nn.Embedding(10, 4), nn.Conv1d(2, 4, 3)
        self.look = nn.Conv2d(1, 4, 3)

    def forward(self, batch: Any) -> Any:
        said = self.words(batch["words"]).mean(1) + self.sound(batch["sound"]).mean(2)
        return torch.tanh(self.look(batch["photo"])) * said[:, :, None, None]


def seeded(make: Any, *args: Any) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make(*args).eval()


def bound(model: Any, forward: Any) -> Any:
    """The model with its other inputs written into it, of the photo alone: the judge."""
    made = copy.deepcopy(model)
    made.__class__ = type("Bound", (type(model),), {"forward": forward})
    return made


def draw(model: Any, objective: Any, **options: Any) -> Any:
    return ag.visualize(model, objective, **{"steps": 3, "size": 12, "dtype": "float32", **options})


@pytest.mark.parametrize("recipe", ["fourier", "classic"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_picture_is_that_of_the_model_with_its_other_inputs_bound(recipe: str, dtype: str) -> None:
    model = seeded(Aged)
    age = torch.tensor(AGE, dtype=torch.float32)
    judge = bound(model, lambda self, x: Aged.forward(self, x, age.to(x.dtype).expand(len(x), -1)))
    ways = [(None, AGE), {"age": AGE}, {"image": None, "age": torch.tensor(AGE)}, (None, np.repeat(AGE, 3, 0))]
    for layer in ("mix", "act"):  # 'act' runs twice, and both calls see the picture: the last one counts
        right = draw(judge, channel(layer, [0, 1, 2]), recipe=recipe, dtype=dtype)
        for inputs in ways:
            ours = draw(model, channel(layer, [0, 1, 2]), recipe=recipe, dtype=dtype, inputs=inputs)
            assert np.array_equal(ours, right)
            assert np.array_equal(ours.scores, right.scores)


def test_each_image_may_have_inputs_of_its_own() -> None:
    model, start = seeded(Aged), np.full((12, 12, 3), 0.4)
    ages = np.array([[1.0, -2.0], [3.0, 0.5], [0.0, 0.0]])
    options = {"start": start, "recipe": ag.recipes.fourier()}
    together = draw(model, channel("mix", [1, 1, 1]), inputs=(None, ages), micro_batch=2, **options)
    for i, age in enumerate(ages):
        alone = draw(model, channel("mix", [1, 1, 1]), inputs=(None, age[None]), **options)
        np.testing.assert_allclose(together.scores[0, i], alone.scores[0, i], rtol=1e-5)
    with pytest.raises(
        InvalidInput, match=r"the input 'age' has 2 rows for 3 images: give a batch of 1 .*, or one row"
    ):
        draw(model, channel("mix", [0, 1, 2]), inputs=(None, ages[:2]))


def test_an_example_gives_the_shape_and_names_give_the_place() -> None:
    model = seeded(Twins)
    right, left = np.random.default_rng(0).random((2, 1, 3, 10, 14)).astype(np.float32)
    pictures = [
        ag.visualize(model, channel("last", 0), inputs=inputs, image=image, steps=2)
        for inputs, image in (((left, right), 0), ((left, right), "left"), ({"left": left, "right": right}, "left"))
    ]
    assert all(x.shape == (1, 10, 14, 3) and np.array_equal(x, pictures[0]) for x in pictures)
    named = ag.visualize(model, channel("last", 0), inputs={"right": right}, size=(10, 14), steps=2)
    assert np.array_equal(named, pictures[0])
    assert not np.array_equal(ag.visualize(model, channel("last", 0), inputs=(left, right), image=1, steps=2), named)


def test_a_shared_tower_is_looked_at_where_it_sees_the_picture() -> None:
    model = seeded(Twins)
    other = np.random.default_rng(0).random((1, 3, 12, 12)).astype(np.float32)
    alone = draw(bound(model, lambda self, x: self.tower(x)), channel("tower.1", [3, 0]))
    for inputs in ({"right": other}, {"left": other}):
        seen = draw(model, channel("tower.1", [3, 0]), inputs=inputs)
        assert seen.remarks == ("", "")
        assert np.array_equal(seen, alone)


def test_only_what_lies_below_the_layer_runs() -> None:
    model, ran = seeded(Aged), []
    model.head.register_forward_hook(lambda *_: ran.append(1))
    draw(model, channel("mix", 0), inputs=(None, AGE))
    first = len(ran)
    draw(model, channel("mix", 0), inputs=(None, AGE), steps=9)
    # A run that looks at the model is whole; the steps are not.
    assert len(ran) <= 2 * first
    assert first <= 2


def test_tokens_sounds_and_a_dict_as_the_only_input() -> None:
    model = seeded(Worded)
    rest = {"words": np.array([[1, 2, 3]]), "sound": np.ones((1, 2, 7))}
    pictures = [
        draw(model, channel("look", [0, 1]), inputs=inputs, image=image)
        for inputs, image in (({**rest, "photo": None}, None), (({**rest, "photo": None},), None))
    ]
    assert pictures[0].shape == (2, 12, 12, 1)
    assert np.array_equal(*pictures)
    example = ag.visualize(model, channel("look", 0), inputs={**rest, "photo": np.zeros((1, 1, 9, 8))}, steps=1)
    assert example.shape == (1, 9, 8, 1)
    record = ag.capture(model, ag.prepare(model, np.zeros((2, 12, 12, 1)), inputs={**rest, "photo": None}), "look")
    assert record["look"].shape == (2, 4, 10, 10)


def test_volumes_beside_a_picture_and_images_channels_last() -> None:
    class Scanned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scan, self.conv = nn.Conv3d(1, 4, 3), nn.Conv2d(2, 4, 3)

        def forward(self, volume: Any, photo: Any) -> Any:
            return self.conv(photo.permute(0, 3, 1, 2)) + self.scan(volume).mean((2, 3, 4))[:, :, None, None]

    volume = np.ones((1, 1, 4, 5, 6))
    for inputs in ((volume, None), {"volume": volume}):
        assert draw(seeded(Scanned), channel("conv", 0), inputs=inputs).shape == (1, 12, 12, 2)
    example = ag.visualize(seeded(Scanned), channel("conv", 0), inputs=(volume, np.zeros((1, 9, 8, 2))), steps=1)
    assert example.shape == (1, 9, 8, 2)


def test_prepare_fills_in_one_input() -> None:
    model, photos = seeded(Aged), np.zeros((2, 12, 12, 3), np.uint8)
    ag.set_card(model, {"range": [-1, 1]})
    image, age = ag.prepare(model, photos, inputs=(None, AGE))
    assert torch.equal(image, torch.full((2, 3, 12, 12), -1.0))
    assert torch.equal(age, torch.tensor(AGE, dtype=torch.float32).expand(2, 2))
    assert set(ag.prepare(model, photos, inputs={"age": AGE})) == {"image", "age"}
    assert model(**ag.prepare(model, photos, inputs={"age": AGE})).shape == (2, 3)
    assert torch.equal(ag.prepare(model, photos), image)
    with pytest.raises(InvalidInput, match="has 3 rows for 2 images"):
        ag.prepare(model, photos, inputs=(None, np.zeros((3, 2))))


class Keyed(Aged):
    """The numbers by name alone, among whatever else is named."""

    def forward(self, image: Any, **others: Any) -> Any:
        return super().forward(image, others["age"])


class Masked(Aged):
    def forward(self, image: Any, age: Any, mask: Any = None) -> Any:
        return super().forward(image, age if mask is None else age * mask)


class Nested(Aged):
    def forward(self, batch: Any, age: Any) -> Any:
        return super().forward(batch["view"]["image"], age)


class Writing(Aged):
    """Changes both of its inputs."""

    def forward(self, image: Any, age: Any) -> Any:
        image *= 2
        age += 1
        return super().forward(image, age)


def test_inputs_by_other_names_nested_and_left_empty() -> None:
    right = draw(seeded(Aged), channel("mix", 1), inputs=(None, AGE))
    photo = np.zeros((1, 3, 12, 12))
    for make, inputs, options in (
        (Keyed, {"image": None, "age": AGE}, {}),
        (Masked, (None, AGE, None), {}),
        (Masked, {"age": AGE, "mask": None}, {}),
        (Masked, {"age": AGE, "mask": np.ones((1, 1))}, {}),
        (Nested, ({"view": {"image": None}}, AGE), {}),
        (Nested, ({"view": {"image": photo}}, AGE), {"image": "batch.view.image", "size": None}),
        (Nested, {"batch": {"view": {"image": photo}}, "age": AGE}, {"image": "image", "size": None}),
    ):
        assert np.array_equal(draw(seeded(make), channel("mix", 1), inputs=inputs, **options), right)


@pytest.mark.parametrize("recipe", ["fourier", "classic"])
def test_a_model_that_writes_into_its_inputs_is_given_the_same_in_each_step(recipe: str) -> None:
    judge = bound(seeded(Aged), lambda self, x: Aged.forward(self, 2 * x, torch.tensor(AGE + 1).to(x.dtype)))
    age, objective = AGE.astype(np.float32), channel("mix", [1]) - 0.1 * ag.objectives.total_variation()
    ours = draw(seeded(Writing), objective, inputs=(None, age), recipe=recipe)
    right = draw(judge, objective, recipe=recipe)
    np.testing.assert_array_equal(ours.scores, right.scores)
    assert np.array_equal(ours, right)
    assert np.array_equal(age, AGE)


def test_a_layer_that_gives_several_rows_for_an_image_is_refused() -> None:
    class Stacked(Twins):
        def forward(self, left: Any, right: Any) -> Any:
            first, second = self.tower(torch.cat([left, right])).chunk(2)
            return self.last(first - second)

    model, other = seeded(Stacked), np.ones((1, 3, 12, 12))
    for layer in ("tower.0", "tower.1"):
        with pytest.raises(InvalidInput, match=rf"layer '{layer}' gives 4 rows for a batch of 2.*one for each"):
            draw(model, channel(layer, 0), inputs=(None, other))
    assert draw(model, channel("last", [0, 1]), inputs=(None, other)).shape == (2, 12, 12, 3)


MISTAKES = {
    "none given": (Aged, {}, r"takes the input 'age' besides the input 'image' .*inputs=\(None, age\)"),
    "the others alone": (Aged, {"inputs": AGE}, r"takes 2 inputs \(image, age\), .*inputs=\(None, age\)"),
    "too few": (Aged, {"inputs": {"image": None}}, "inputs has image: give age as well"),
    "another name": (Aged, {"inputs": {"ago": AGE}}, r"no input 'ago' \(they are 'image', 'age'\); did you mean 'age'"),
    "another image": (Aged, {"inputs": (None, AGE), "image": "imag"}, "no input 'imag'.*did you mean 'image'"),
    "no such position": (Aged, {"inputs": (None, AGE), "image": 2}, "no input 2: the model has 2 inputs"),
    "no picture": (Aged, {"inputs": (None, AGE), "image": 1}, "the input 'age' is .*: give a batch of images"),
    "wrong width": (Aged, {"inputs": (None, np.ones((1, 3)))}, "does not take these inputs with any tried images"),
    "two pictures": (
        Twins, {"inputs": (np.zeros((1, 3, 9, 9)),) * 2, "size": None},
        r"which input of Twins .*'left': float64 \(1, 3, 9, 9\).*such as image='left', or give None in its place",
    ),
    "no picture at all": (
        Worded, {"inputs": {"batch": np.array([[1, 2]])}, "size": None},
        r"no place for the image of Worded \('batch': int64 \(1, 2\)\): give None there",
    ),
    "no such position by name": (Aged, {"inputs": {"age": AGE}, "image": -1}, "no input -1: the model has 2 inputs"),
    "not a number": (
        Aged, {"inputs": (None, AGE * np.nan), "layer": "mix"}, "layer 'mix' gives numbers that are not finite",
    ),
    "size and example": (Aged, {"inputs": (np.zeros((1, 3, 9, 9)), AGE)}, "leave out size and channels_in"),
    "objects": (Aged, {"inputs": (None, np.array([[None]]))}, "the input 'age' is an array of numbers"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_one_sentence(mistake: str) -> None:
    make, options, said = MISTAKES[mistake]
    layer = {Aged: "conv", Worded: "look"}.get(make, "last")
    objective = channel(options.get("layer", layer), 0)
    options = {name: x for name, x in options.items() if name != "layer"}
    with pytest.raises((InvalidInput, UnknownName), match=said) as caught:
        draw(seeded(make), objective, **options)
    assert "\n" not in str(caught.value)


def test_a_layer_that_the_picture_does_not_reach_is_told_before_any_step() -> None:
    steps: list[int] = []
    with pytest.raises(
        InvalidInput, match=r"layer 'years' does not depend on the input 'image'.*another input as image="
    ):
        draw(seeded(Aged), ag.objectives.neuron("years", 0), inputs=(None, AGE), on_step=steps.append)
    assert not steps


def test_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "docs" / "several-inputs.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, "docs/several-inputs.md", "exec"), names)  # noqa: S102
    assert capsys.readouterr().out.splitlines() == re.findall(r"print\(.*\)  # (.*)", text)
