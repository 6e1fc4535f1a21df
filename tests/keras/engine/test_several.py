"""Pictures for one input of a Keras model that has several, on the engine of this process."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers as kl

import agnostic as ag
from agnostic.errors import InvalidInput, UnknownName

channel = ag.objectives.channel
AGE = np.array([[1.0, -2.0]])


def patients(*, dicts: bool = False, fixed: bool = False) -> keras.Model:
    """A photo beside two numbers; or with the numbers written into it, as the judge."""
    keras.utils.set_random_seed(0)
    image, age = keras.Input((None, None, 3), name="image"), keras.Input((2,), name="age")
    bytes_ = kl.Rescaling(1 / 255, name="bytes")(image)
    seen = kl.Conv2D(6, 3, activation="tanh", name="conv")(bytes_)
    years = kl.Dense(6, name="years")
    factors = kl.Reshape((1, 1, 6), name="factors")(years(age))
    mixed = kl.Conv2D(4, 3, activation="tanh", name="mix")
    out = mixed(kl.Multiply(name="times")([seen, factors]))
    out = kl.Dense(3, name="head")(kl.GlobalAveragePooling2D(name="mean")(out))
    model = keras.Model({"image": image, "age": age} if dicts else [image, age], out)
    if not fixed:
        return model
    numbers = keras.ops.convert_to_numpy(keras.ops.stop_gradient(years(AGE.astype(np.float32))))
    judged = mixed(kl.Lambda(lambda x: keras.ops.multiply(x, numbers[:, None, None]), name="times")(seen))
    return keras.Model(image, kl.GlobalAveragePooling2D(name="mean")(judged))


@keras.saving.register_keras_serializable("agnostic-tests")
class Written(keras.Model):
    """Token ids beside a photo, called by position or name."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.words, self.conv = kl.Embedding(9, 4, name="words"), kl.Conv2D(4, 3, name="conv")

    def call(self, ids: Any, image: Any) -> Any:
        return self.conv(image) * keras.ops.mean(self.words(ids), 1)[:, None, None]


def draw(model: Any, objective: Any, **options: Any) -> Any:
    return ag.visualize(model, objective, **{"steps": 3, "size": 12, "dtype": "float32", **options})


def test_a_picture_is_that_of_the_model_with_its_other_inputs_bound() -> None:
    listed, named, judge = patients(), patients(dicts=True), patients(fixed=True)
    right = draw(judge, channel("mix", [0, 1, 2]), micro_batch=2)
    ways = [
        (listed, (None, AGE)), (listed, {"age": AGE}), (named, {"image": None, "age": AGE}),
        (listed, [None, np.repeat(AGE, 3, 0)]),
    ]  # fmt: skip
    for model, inputs in ways:
        ours = draw(model, channel("mix", [0, 1, 2]), inputs=inputs, micro_batch=2)
        assert ours.remarks == ("",) * 3
        # The Rescaling says the range of the photo, whichever input comes first; a product is rounded as the judge's.
        np.testing.assert_allclose(ours.scores, right.scores, rtol=1e-3, atol=1e-5)
    low = draw(listed, channel("mix", [0, 1]), inputs=(None, AGE), dtype="bfloat16", recipe="classic")
    assert low.shape == (2, 12, 12, 3)
    example = ag.visualize(listed, channel("mix", 0), inputs=(np.zeros((1, 9, 10, 3)), AGE), steps=1)
    assert example.shape == (1, 9, 10, 3)
    ages = np.array([[1.0, -2.0], [3.0, 0.5], [0.0, 0.0]])
    together = draw(
        listed, channel("mix", [1, 1, 1]), inputs=(None, ages), micro_batch=2, start=np.full((12, 12, 3), 0.4)
    )
    firsts = [
        draw(listed, channel("mix", 1), inputs=(None, x[None]), start=np.full((12, 12, 3), 0.4), steps=1).scores[0, 0]
        for x in ages[:1]
    ]
    np.testing.assert_allclose(together.scores[0, :1], firsts, rtol=1e-3)
    assert len(set(together.scores[0].round(6))) == 3


def test_models_without_declared_inputs() -> None:
    model = Written()
    ids = np.array([[1, 2, 3]])
    model(ids, np.zeros((1, 8, 8, 3), np.float32))
    pictures = [
        draw(model, channel("conv", 1), inputs=x) for x in ((ids, None), {"ids": ids}, {"ids": ids, "image": None})
    ]
    assert all(np.array_equal(x, pictures[0]) for x in pictures)
    by_name = ag.capture(model, {"ids": ids, "image": np.ones((1, 8, 8, 3), np.float32)}, "conv").numpy()["conv"]
    by_position = ag.capture(model, (ids, np.ones((1, 8, 8, 3), np.float32)), "conv").numpy()["conv"]
    assert np.array_equal(by_name, by_position)


def test_a_shared_tower_is_looked_at_where_it_sees_the_picture() -> None:
    keras.utils.set_random_seed(0)
    tower = keras.Sequential([kl.Conv2D(5, 3, name="conv"), kl.Activation("tanh", name="act")], name="tower")
    left, right = keras.Input((12, 12, 3), name="left"), keras.Input((12, 12, 3), name="right")
    model = keras.Model([left, right], kl.Subtract(name="minus")([tower(left), tower(right)]))
    other = np.random.default_rng(0).random((1, 12, 12, 3)).astype(np.float32)
    pictures = [draw(model, channel("tower.act", 3), inputs=x) for x in ({"right": other}, {"left": other})]
    assert np.array_equal(*pictures)
    assert pictures[0].remarks == ("",)
    with pytest.raises(InvalidInput, match=r"which input of .*such as image='left', or give None in its place"):
        draw(model, channel("minus", 0), inputs=(other, other), size=None)
    other_way = draw(model, channel("minus", 0), inputs=(other, None))
    assert not np.array_equal(other_way, draw(model, channel("minus", 0), inputs=(None, other)))


class Batched(Written):
    """One dict, whose names are not in the order in which Keras sorts them."""

    def call(self, batch: Any) -> Any:
        return super().call(batch["ids"]["words"], batch["image"])


class Stacked(keras.Model):
    """Two photos as one batch."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act = kl.Conv2D(4, 3, name="conv"), kl.Activation("tanh", name="act")

    def call(self, left: Any, right: Any) -> Any:
        x = self.act(self.conv(keras.ops.concatenate([left, right])))
        count = keras.ops.shape(left)[0]
        return x[:count] - x[count:]


def test_one_dict_in_any_order_and_layers_of_several_rows() -> None:
    model, ids, photo = Batched(), {"words": np.array([[1, 2, 3]])}, np.zeros((1, 8, 8, 3), np.float32)
    model({"image": photo, "ids": ids})
    pictures = [
        draw(model, channel("conv", 1), inputs=x)
        for x in ({"image": None, "ids": ids}, {"ids": ids, "image": None}, ({"ids": ids, "image": None},))
    ]
    assert all(np.array_equal(x, pictures[0]) for x in pictures)
    stacked = Stacked()
    stacked(photo, photo)
    for layer in ("conv", "act"):
        with pytest.raises(InvalidInput, match=f"layer '{layer}' gives 4 rows for a batch of 2.*one for each"):
            draw(stacked, channel(layer, 0), inputs=(None, np.ones((1, 12, 12, 3))))


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="arrays of the other engines do not change in place")
def test_a_model_that_writes_into_its_inputs_is_given_the_same_in_each_step() -> None:
    class Adds(kl.Layer):
        def call(self, x: Any) -> Any:
            return x.add_(1) if self.name == "in_place" else x + 1

    def make(name: str) -> keras.Model:
        keras.utils.set_random_seed(0)
        image, age = keras.Input((None, None, 3), name="image"), keras.Input((2,), name="age")
        factors = kl.Reshape((1, 1, 4))(kl.Dense(4)(Adds(name=name)(age)))
        return keras.Model([image, age], kl.Multiply(name="mix")([kl.Conv2D(4, 3)(image), factors]))

    assert np.array_equal(*[draw(make(x), channel("mix", 1), inputs=(None, AGE)) for x in ("in_place", "anew")])


def test_prepare_fills_in_one_input() -> None:
    model, photos = patients(), np.full((2, 12, 12, 3), 255, np.uint8)
    image, age = ag.prepare(model, photos, inputs=(None, AGE))
    assert keras.ops.convert_to_numpy(image).min() == 255
    assert tuple(age.shape) == (2, 2)
    prepared = ag.prepare(patients(dicts=True), photos, inputs={"age": AGE})
    assert ag.capture(patients(dicts=True), prepared, "mix")["mix"].shape[0] == 2


def test_mistakes_are_one_sentence() -> None:
    model = patients()
    cases = [
        ({}, "mix", r"takes the input 'age' besides the input 'image'.*inputs=\(None, age\)"),
        ({"inputs": {"ago": AGE}}, "mix", "no input 'ago'.*did you mean 'age'"),
        ({"inputs": (None, np.repeat(AGE, 2, 0))}, "mix", "the input 'age' has 2 rows for 1 image"),
        ({"inputs": (None, np.ones((1, 3)))}, "mix", "does not take these inputs with images of 12 x 12.*the others"),
        ({"inputs": (None, AGE), "image": "age"}, "mix", "the input 'age' is .*4 dimensions"),
        ({"inputs": (None, AGE)}, "years", "layer 'years' does not depend on the input 'image'"),
    ]
    for options, layer, said in cases:
        with pytest.raises((InvalidInput, UnknownName), match=said) as caught:
            draw(model, ag.objectives.neuron(layer, 0), **options)
        assert "\n" not in str(caught.value)


def test_an_ensemble_is_the_mean_of_its_members_each_in_its_own_range() -> None:
    members = []
    for mean in (0.5, 0.2):
        image = keras.Input((None, None, 3))
        out = kl.Dense(3, name="head")(kl.GlobalAveragePooling2D()(kl.Conv2D(4, 3, activation="tanh")(image)))
        members.append(keras.Model(image, out, name=f"net{mean * 10:.0f}"))
        ag.set_card(members[-1], {"mean": mean, "std": 0.5, "range": [0, 1], "class_names": ["cat", "dog", "owl"]})
    both = ag.ensemble(members)
    photo = np.random.default_rng(0).random((2, 12, 16, 3)).astype(np.float32)
    found = keras.ops.convert_to_numpy(both(ag.prepare(both, photo)))
    each = [keras.ops.convert_to_numpy(x(ag.prepare(x, photo))) for x in members]
    # A mean of two numbers, and the preprocessing in another order of the same two operations: a few roundings.
    np.testing.assert_allclose(found, np.mean(each, 0), rtol=0, atol=8 * np.finfo(np.float32).eps)
    images = draw(both, ag.objectives.logit("owl") + ag.objectives.logit(0, layer="net2.head"), steps=2)
    assert images.labels[0].startswith("owl + ")
    assert images.scores[-1] > images.scores[0]


@pytest.mark.parametrize("kind", ["all", "grouped"])
def test_a_head_of_keras_is_what_it_gives_before_the_projection_of_the_output(kind: str) -> None:
    keras.utils.set_random_seed(0)
    image = keras.Input((12, 12, 3))
    x = kl.Reshape((9, 8))(kl.Conv2D(8, 4, strides=4, name="patches")(image))
    attention = (
        kl.MultiHeadAttention(2, 4, name="mha") if kind == "all" else kl.GroupQueryAttention(4, 2, 1, name="mha")
    )
    model = keras.Model(image, kl.GlobalAveragePooling1D()(attention(x, x)))
    photo = np.random.default_rng(0).random((12, 12, 3)).astype(np.float32).clip(0.02, 0.98)
    seen = ag.recipes.fourier(views=ag.recipes.classic().views, preprocess=False)
    found = draw(model, ag.objectives.head(attention.name, [0, 1]), recipe=seen, start=photo, size=None)
    tokens = keras.Model(image, x)(photo[None])
    query, key, value = (
        keras.ops.convert_to_numpy(getattr(attention, f"_{part}_dense")(tokens)).astype(np.float64)[0]
        for part in ("query", "key", "value")
    )
    weights = np.exp(np.einsum("qhc,khc->hqk", query, np.broadcast_to(key, query.shape)) / 2)  # the root of 4 channels
    given = np.einsum("hqk,khc->hqc", weights / weights.sum(2, keepdims=True), np.broadcast_to(value, query.shape))
    # Sums of 48 and 8 products in float32.
    np.testing.assert_allclose(found.scores[0], np.square(given).mean((1, 2)), rtol=1e-4)
    assert (found.scores[-1] > found.scores[0]).all()
