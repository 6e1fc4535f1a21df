"""What each objective of a layer means: computed by hand, as a value, and in ascents of tokens, rows and volumes."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import agnostic as ag
from agnostic.files import write_png
from agnostic.layers import Layer
from agnostic.reference.ops import NumpyOps
from agnostic.visualization import objectives as o
from agnostic.visualization.ascent import Ascent
from agnostic.visualization.recipes import classic
from agnostic.visualization.taps import Tap

torch = pytest.importorskip("torch")
nn = torch.nn
ops = NumpyOps()
RNG = np.random.default_rng(0)
IMAGE = RNG.standard_normal((4, 6, 3, 2))  # N C H W
TOKENS = RNG.standard_normal((4, 7, 6))  # N L C: a class token and a grid of 3 x 2 patches
VOLUME = RNG.standard_normal((4, 6, 2, 3, 2))
ROW = RNG.standard_normal((4, 6, 5))
HEADS = RNG.standard_normal((4, 3, 7, 2))  # an attention's own axes, which have no letters
VALUES = {"image": (IMAGE, "NCHW"), "tokens": (TOKENS, "NLC"), "volume": (VOLUME, "NCDHW"), "row": (ROW, "NCL")}
LISTING = {
    name: Layer(name, "Any", (None, *value.shape[1:]), axes, 6, 0) for name, (value, axes) in VALUES.items()
}  # fmt: skip
SHAPE = (12, 8, 3)
PHOTO = np.random.default_rng(1).integers(0, 256, (16, 16, 3), np.uint8)


def view(measured: Any = None) -> o.ModelLookup:
    layers = {**LISTING, "heads": Layer("heads", "Any", (None, 3, 7, 2), None, None, 0)}
    return o.ModelLookup(layers.__getitem__, lambda c: (int(c), f"class {c}"), SHAPE[:2], lambda layer, photo: measured)


def evaluate(objective: Any, measured: Any = None) -> np.ndarray:
    """(images,): the value of an objective, resolved, for the first rows of the values."""
    resolved = objective.resolve(view(measured))
    ascent = Ascent(resolved, classic(), SHAPE, 0, None, LISTING, 1)
    images = range(ascent.count)
    taps = {name: Tap(name, value[: ascent.count], axes) for name, (value, axes) in VALUES.items()}
    taps["heads"] = Tap("heads", HEADS[: ascent.count], "")
    return ascent.score(ops, lambda inputs: taps, ascent.initial(images), {}, ascent.arrays(images), {})


# Meaning --------------------------------------------------------------------------------------------------------------
def test_a_channel_is_a_mean_over_all_positions_and_of_tokens_over_the_patches() -> None:
    found = {name: evaluate(o.channel(name, [4, 1])) for name in VALUES}
    for name in ("image", "volume", "row"):
        means = VALUES[name][0].reshape(4, 6, -1).mean(2)
        np.testing.assert_allclose(found[name], [means[0, 4], means[1, 1]], rtol=1e-13)
    np.testing.assert_allclose(found["tokens"], [TOKENS[0, 1:, 4].mean(), TOKENS[1, 1:, 1].mean()], rtol=1e-13)


def test_a_neuron_and_a_position_are_places_in_images_patches_rows_and_volumes() -> None:
    assert evaluate(o.neuron("volume", 4, (1, 2, 0))) == VOLUME[0, 4, 1, 2, 0]
    assert evaluate(o.neuron("row", 4, 3)) == ROW[0, 4, 3]
    assert evaluate(o.neuron("tokens", 4, (2, 1))) == TOKENS[0, 1 + 2 * 2 + 1, 4]
    assert evaluate(o.neuron("tokens", 4)) == TOKENS[0, 1 + 1 * 2 + 1, 4]  # the centre of 3 x 2
    assert evaluate(o.position("tokens", (0, 1))) == pytest.approx(np.square(TOKENS[0, 2]).mean())
    assert evaluate(o.position("image", (2, 1))) == pytest.approx(np.square(IMAGE[0, :, 2, 1]).mean())
    for wrong, words in (
        (o.neuron("row", 0, 5), "it is 5 positions"),
        (o.position("tokens", (3, 0)), "3 high and 2 wide"),
    ):
        with pytest.raises(ag.InvalidInput, match=words):
            evaluate(wrong)


def test_a_token_is_one_of_the_row() -> None:
    np.testing.assert_array_equal(evaluate(o.token("tokens", "class", [4, 1])), [TOKENS[0, 0, 4], TOKENS[1, 0, 1]])
    assert evaluate(o.token("tokens", 3)) == pytest.approx(np.square(TOKENS[0, 3]).mean())
    with pytest.raises(ag.InvalidInput, match="no token 7 in layer 'tokens': it has 7, 0 to 6"):
        evaluate(o.token("tokens", 7))
    with pytest.raises(ag.InvalidInput, match=r"returns no row of tokens \(axes NCHW\)"):
        evaluate(o.token("image", 0))


def test_a_head_is_its_part_of_the_channels_or_of_its_own_axis() -> None:
    parts = np.square(IMAGE).reshape(4, 3, -1).mean(2)
    np.testing.assert_allclose(evaluate(o.head("image", [2, 0], 3)), [parts[0, 2], parts[1, 0]], rtol=1e-13)
    own = np.square(HEADS).mean((2, 3))
    np.testing.assert_allclose(evaluate(o.head("heads", [1, 2], 3)), [own[0, 1], own[1, 2]], rtol=1e-13)
    with pytest.raises(ag.InvalidInput, match="not those of 4 heads"):
        evaluate(o.head("image", 0, 4))
    with pytest.raises(ag.InvalidInput, match="no one axis is that of 5 heads"):
        evaluate(o.head("heads", 0, 5))


def test_a_cosine_is_that_of_each_position() -> None:
    vectors = RNG.standard_normal((2, 6))
    flat = IMAGE.reshape(4, 6, -1)
    expected = [
        np.mean([flat[i, :, p] @ vectors[i] / np.linalg.norm(flat[i, :, p]) for p in range(6)])
        / np.linalg.norm(vectors[i])
        for i in range(2)
    ]
    np.testing.assert_allclose(evaluate(o.cosine("image", vectors)), expected, rtol=1e-12)
    # Direction times cosine, as the Activation Atlas has it, is an objective like any other.
    both = evaluate(o.direction("image", vectors) * o.cosine("image", vectors))
    np.testing.assert_allclose(both, np.array(expected) * evaluate(o.direction("image", vectors)), rtol=1e-12)


def test_an_interpolation_goes_from_one_to_the_other_and_starts_alike() -> None:
    between = o.interpolation(o.channel("image", 1), o.channel("image", 4), 3)
    means = IMAGE.mean((2, 3))
    np.testing.assert_allclose(
        evaluate(between), [means[0, 1], (means[1, 1] + means[1, 4]) / 2, means[2, 4]], rtol=1e-13
    )
    assert between.labels() == (
        "1 * image:1 + 0 * image:4",
        "0.5 * image:1 + 0.5 * image:4",
        "0 * image:1 + 1 * image:4",
    )
    ascent = Ascent(between, ag.recipes.fourier(), SHAPE, 0, None, LISTING, 1)
    start, schedule = ascent.initial(range(3)), ascent.schedule(range(3))
    assert np.array_equal(start[0], start[2])
    assert np.array_equal(schedule["matrices"][:, :2], schedule["matrices"][:, 4:])


def test_alignment_compares_neighbours() -> None:
    flat = IMAGE[:3].reshape(3, -1)
    steps = np.square(np.diff(flat, axis=0)).mean(1) / np.square(flat).mean()
    expected = [-steps[0], -(steps[0] + steps[1]) / 2, -steps[1]]
    found = evaluate(o.channel("image", [0] * 3) * 0 + o.alignment("image"))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_a_caricature_points_where_the_photo_does() -> None:
    seen = RNG.standard_normal((1, 6, 6))
    x, unit = IMAGE[0].reshape(6, -1), seen[0] / np.linalg.norm(seen)
    dot = (x * unit).sum()
    expected = dot * max(dot / np.linalg.norm(x), 0.1) ** 2
    assert evaluate(o.caricature("image", PHOTO, power=2), seen) == pytest.approx(expected, rel=1e-12)
    same = evaluate(o.caricature("image", PHOTO, power=3), IMAGE[:1].reshape(1, 6, -1))
    assert same == pytest.approx(np.linalg.norm(x), rel=1e-12)  # the cosine is one


def test_a_style_is_the_correlations_of_channels() -> None:
    seen = RNG.standard_normal((1, 6, 9))
    gram, target = (y @ y.T / y.shape[1] for y in (IMAGE[0].reshape(6, -1), seen[0]))
    expected = -np.square(gram - target).mean() / np.square(target).mean()
    assert evaluate(o.style("image", PHOTO), seen) == pytest.approx(expected, rel=1e-12)
    # Places do not matter.
    shuffled = IMAGE[:1].reshape(1, 6, -1)[:, :, ::-1]
    assert evaluate(o.style("image", PHOTO), shuffled) == pytest.approx(0, abs=1e-28)


# Functions of the user ------------------------------------------------------------------------------------------------
def contrast(ops: Any, taps: Any) -> Any:
    """Of the module, so that it can be pickled."""
    return ops.mean(ops.square(taps["image"][:, 0] - taps["image"][:, 1]), (1, 2)) + 0 * taps["tokens"][:, 2, 0]


def test_a_function_sees_channels_first_whatever_the_layout() -> None:
    found = evaluate(o.function(contrast, ["image", "tokens"]))
    assert found == pytest.approx(np.square(IMAGE[0, 0] - IMAGE[0, 1]).mean(), rel=1e-12)
    seen: list[Any] = []
    evaluate(o.function(lambda ops, taps: [seen.append(taps["tokens"].shape), taps["tokens"][:, 4, 2]][1], "tokens"))
    assert set(seen) == {(3, 6, 7), (1, 6, 7)}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda ops, t: ops.sum(t["image"]), r"one number per row, of shape \(3,\) here, not shape \(\)"),
        (lambda ops, t: 1.0, "not float"),
        (lambda ops, t: t["image"][:, 0, 0, 0] if t["image"][0, 0, 0, 0] > 0 else 1, "branches on the numbers"),
        (lambda ops, t: np.mean(t["image"], (1, 2, 3)), "uses the attribute 'mean'|gives an array to NumPy"),
        (lambda ops, t: t["image"].mean((1, 2, 3)), "uses the attribute 'mean' of an array, which .*: use ops.mean"),
        (lambda ops, t: (t["image"] * np.ones((6, 3, 2)))[:, 0, 0, 0], "with one of NumPy, .*wrap that in ops.asarray"),
        (lambda ops, t: t["image"][:, [0, 1]][:, 0, 0, 0], "indexes an array with an array"),
        (lambda ops, t: ops.relu(t["image"]), "uses ops.relu"),
        (lambda ops, t: 0 * t["image"][:, 0, 0, 0], "does not depend on 'image'"),
        (lambda ops, t: t["image"][:, 0, 0, 0] - ops.mean(t["image"]), "mixes the rows of a batch"),
    ],
)
def test_a_function_that_cannot_be_differentiated_everywhere_is_told_before_the_ascent(wrong: Any, words: str) -> None:
    with pytest.raises(ag.InvalidInput, match=words):
        evaluate(o.function(wrong, "image", name="mine"))


def test_a_function_may_mix_rows_if_it_says_so() -> None:
    mixing = o.function(lambda ops, t: t["image"][:, 0, 0, 0] - ops.mean(t["image"]), "image", mixes=True)
    assert mixing.coupled
    assert evaluate(mixing) == pytest.approx(IMAGE[0, 0, 0, 0] - IMAGE[:1].mean())


# Values ---------------------------------------------------------------------------------------------------------------
EVERY = [
    o.channel("image", 3), -o.channel("image", 3), o.neuron("row", 2, 4), o.position("image"), o.token("tokens", 2, 1),
    o.head("image", 1, 3), o.logit(2), o.direction("image", np.ones(6), "up"), o.cosine("image", np.ones(6)),
    o.interpolation(o.logit(1), o.logit(2), 3), o.deepdream("image"), o.caricature("image", PHOTO),
    o.style("image", [PHOTO, PHOTO], name=["a", "b"]), o.function(contrast, ["image", "tokens"]),
    o.channel("image", [1, 1]) + o.diversity("image"), o.alignment("image"), 2 * o.total_variation(),
]  # fmt: skip


@pytest.mark.parametrize("objective", EVERY, ids=repr)
def test_objectives_are_values_that_pickle_and_print(objective: Any) -> None:
    again = pickle.loads(pickle.dumps(objective))
    assert again == objective
    assert hash(again) == hash(objective)
    assert objective != 3 * objective
    assert len(objective.labels()) == objective.count
    assert "array(" not in repr(objective)
    assert len(repr(objective)) < 200


def test_other_numbers_are_other_objectives() -> None:
    assert o.direction("image", np.ones(6)) != o.direction("image", np.arange(6))
    assert o.direction("image", np.ones(6)) != o.cosine("image", np.ones(6))
    assert o.style("image", PHOTO) != o.style("image", PHOTO[::-1])
    assert o.style("image", PHOTO, name="a") != o.style("image", PHOTO, name="b")


# In ascents -----------------------------------------------------------------------------------------------------------
class Tokens(nn.Module):
    """A transformer of one block: a class token and 4 x 4 patches, with its heads visible."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, stride=4)
        self.first = nn.Parameter(torch.ones(1, 1, 8))
        self.query, self.key, self.value, self.out = (nn.Linear(8, 8) for _ in range(4))
        self.joined, self.block = nn.Identity(), nn.LayerNorm(8)
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.first.expand(len(x), -1, -1), x], 1)
        q, k, v = (f(x).unflatten(-1, (2, 4)).transpose(1, 2) for f in (self.query, self.key, self.value))
        y = torch.softmax(q @ k.transpose(-1, -2) / 2, -1) @ v
        x = self.block(x + self.out(self.joined(y.transpose(1, 2).flatten(2))))
        return self.head(x[:, 0])


class Rows(nn.Module):
    """A convolution over the rows of an image as a sequence, and one over the image as a volume."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Conv2d(3, 4, 3, padding=1)
        self.row = nn.Conv1d(4, 6, 3)
        self.volume = nn.Conv3d(4, 5, 3, padding=1)
        self.head = nn.Linear(11, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.image(x)
        row = self.row(x.flatten(2)).tanh()
        volume = self.volume(torch.stack([x, x.flip(-1)], 2)).tanh()
        return self.head(torch.cat([row.mean(2), volume.mean((2, 3, 4))], 1))


def seeded(model: type[nn.Module]) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return model().eval()


STILL = {"recipe": ag.recipes.fourier(views=classic().views), "size": 16, "steps": 8}


@pytest.mark.parametrize(
    "objective",
    [
        o.channel("block", [2, 5]), o.neuron("block", 3, (1, 2)), o.position("block", (0, 3)), o.token("block"),
        o.token("block", "class", [1, 2]), o.token("block", 5, 1), o.head("joined", [0, 1], 2), o.head("value", 1, 2),
        o.cosine("block", np.arange(8) - 3), o.interpolation(o.logit(1), o.logit(3), 3) + 0.1 * o.alignment("block"),
        o.caricature("patches", PHOTO), o.style("patches", PHOTO), -o.channel("block", 2),
        o.function(lambda ops, t: ops.max(t["patches"][:, 2], (1, 2)), "patches", name="brightest"),
    ],
    ids=repr,
)  # fmt: skip
def test_objectives_of_tokens_climb(objective: Any) -> None:
    images = ag.visualize(seeded(Tokens), objective, **STILL)
    assert (images.scores[-1] > images.scores[0]).all()
    assert images.remarks == ("",) * objective.count


@pytest.mark.parametrize("layer", ["row", "volume"])
def test_convolutions_of_rows_and_volumes_are_drawn(layer: str) -> None:
    model = seeded(Rows)
    images = ag.visualize(model, o.channel(layer, [1, 4]), **STILL)
    assert (images.scores[-1] > images.scores[0]).all()
    shown = torch.tensor(np.moveaxis(np.asarray(images), -1, 1).copy())
    found = ag.capture(model, shown, layer)[layer].flatten(2).mean(2)
    grey = ag.capture(model, torch.full_like(shown, 0.5), layer)[layer].flatten(2).mean(2)
    assert (found[[0, 1], [1, 4]] > grey[[0, 1], [1, 4]]).all()


@pytest.mark.parametrize("channels_last", [False, True])
def test_what_takes_rows_is_drawn_as_images_one_pixel_high(channels_last: bool) -> None:
    class Sound(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Conv1d(2, 6, 5), nn.Tanh(), nn.Conv1d(6, 4, 3, stride=2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.net(x.transpose(1, 2) if channels_last else x).mean(2)

    model = seeded(Sound)
    options = {"steps": 8, "channels_in": 2}
    images = ag.visualize(model, o.channel("net.2", [1, 3]), size=40, **options)
    assert images.shape == (2, 1, 40, 2)
    with torch.no_grad():
        rows = torch.from_numpy(np.asarray(images)[:, 0].copy())
        grey = torch.full_like(rows, 0.5)
        found, before = (model(x if channels_last else x.transpose(1, 2)) for x in (rows, grey))
    assert (found[[0, 1], [1, 3]] > before[[0, 1], [1, 3]]).all()
    with pytest.raises(ag.InvalidInput, match="a row has a length and no height: give size=40"):
        ag.visualize(model, o.channel("net.2", 1), size=(20, 40), **options)


def test_what_takes_volumes_is_drawn_as_frames_side_by_side() -> None:
    class Video(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv3d(3, 4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(x).tanh().mean((2, 3, 4))

    model, seen = seeded(Video), []
    ag.set_card(model, {"range": [0, 1]})
    images = ag.visualize(
        model, o.neuron("conv", 2, (1, 3, 4)), size=12, recipe=STILL["recipe"], steps=8, every=8,
        on_images=lambda number, done, pixels: seen.append(pixels),
    )  # fmt: skip
    frames = images.shape[2] // 12
    assert images.shape == (1, 12, frames * 12, 3)
    np.testing.assert_array_equal(seen[-1], np.asarray(images))
    video = torch.from_numpy(np.asarray(images).reshape(1, 12, frames, 12, 3).transpose(0, 4, 2, 1, 3).copy())
    with torch.no_grad():
        found, before = (float(model.conv(x)[0, 2, 1, 3, 4]) for x in (video, torch.full_like(video, 0.5)))
    assert found > before
    # The neuron sees frames 1 to 3 alone: the others stay as they started.
    start = ag.visualize(model, o.neuron("conv", 2, (1, 3, 4)), size=12, recipe=STILL["recipe"], steps=1)
    moved = np.abs(np.asarray(images) - np.asarray(start)).reshape(12, frames, 12, 3).max((0, 2, 3))
    assert (moved[1:4] > 0).all()
    assert (moved[[0, *range(4, frames)]] == 0).all()


def test_places_of_a_row_are_no_patches() -> None:
    """14 places would be 3 x 3 patches and 5 tokens before them."""
    model = nn.Sequential(nn.Flatten(1, 2), nn.Conv1d(48, 6, 3), nn.Tanh()).eval()
    images = ag.visualize(model, o.neuron("1", [2, 2], (13,)) + 0 * o.channel("1", 2), **STILL)
    assert (images.scores[-1] > images.scores[0]).all()
    scored = [
        ag.visualize(seeded(Tokens), o.neuron("block", 3, place), start=PHOTO, recipe=STILL["recipe"], steps=1).scores
        for place in ((6,), (1, 2))
    ]
    assert scored[0] == scored[1]
    with pytest.raises(ag.InvalidInput, match=r"no position \(14\) in layer '1': it is 14 positions"):
        ag.visualize(model, o.neuron("1", 2, (14,)), **STILL)
    shown = torch.tensor(np.moveaxis(np.asarray(images), -1, 1).copy())
    exact = ag.visualize(model, o.channel("1", 2), start=np.asarray(images)[:1], recipe=STILL["recipe"], steps=1)
    assert exact.scores[0, 0] == pytest.approx(model[:2](shown[:1])[0, 2].mean().item(), abs=1e-5)


def test_a_patch_is_drawn_where_it_is() -> None:
    images = ag.visualize(seeded(Tokens), o.neuron("patches", 1, (0, 3)), **STILL, seed=1)
    start = ag.visualize(seeded(Tokens), o.neuron("patches", 1, (0, 3)), **{**STILL, "steps": 1}, seed=1)
    moved = np.abs(np.asarray(images[0]) - np.asarray(start[0])).mean(2)
    assert moved[:4, 12:].mean() > 1.5 * moved[8:, :8].mean()


def test_the_ends_of_an_interpolation_have_no_remark_of_a_silent_part() -> None:
    images = ag.visualize(seeded(Tokens), o.interpolation(o.logit(1), o.logit(3), 3), **STILL)
    assert images.remarks == ("", "", "")


def test_crops_cannot_compare_places() -> None:
    with pytest.raises(
        ag.InvalidInput, match=r"'patches:photo 0' compares places .* 'fourier' move: use recipe='jitter'"
    ):
        ag.visualize(seeded(Tokens), o.caricature("patches", PHOTO), size=16, steps=1)


def test_a_style_comes_nearer_to_the_photos() -> None:
    model = seeded(Tokens)
    images = ag.visualize(model, o.style("patches", PHOTO), **{**STILL, "steps": 60})
    assert images.scores[-1, 0] > 0.5 * images.scores[0, 0] < 0


# Concepts -------------------------------------------------------------------------------------------------------------
def red_and_blue(n: int = 12) -> tuple[list[np.ndarray], list[np.ndarray]]:
    rng = np.random.default_rng(2)
    noise = rng.integers(0, 120, (2, n, 16, 16, 3)).astype(np.uint8)
    noise[0, ..., 0] += 120
    noise[1, ..., 2] += 120
    return list(noise[0]), list(noise[1])


@pytest.mark.parametrize("method", ["mean", "probe"])
def test_a_concept_is_found_and_its_accuracy_is_that_of_photos_held_out(method: str, tmp_path: Path) -> None:
    model = seeded(Rows)
    red, blue = red_and_blue()
    found = o.concept_vector(model, "image", red, blue, method=method, name="red")
    assert np.linalg.norm(found.vector) == pytest.approx(1, rel=1e-12)
    assert (found.layer, found.photos, found.accuracy, found.name) == ("image", (12, 12), 1.0, "red")
    # A coin's answer is right half of the time: photos of one kind cannot be told apart.
    alike = o.concept_vector(model, "image", red[:6], red[6:], method=method, held_out=0.5)
    assert alike.accuracy is not None
    assert alike.accuracy < 1
    for i, photo in enumerate(red):
        write_png(tmp_path / "red" / f"{i}.png", photo)
    again = o.concept_vector(model, "image", tmp_path / "red", blue, method=method)
    assert again.name == "red"
    assert {again} != {alike}
    objective = o.concept(found)
    assert objective.labels() == ("image:red",)
    image = np.asarray(ag.visualize(model, objective, **{**STILL, "steps": 30}))[0]
    assert image[..., 0].mean() > image[..., 2].mean()


def test_a_probe_is_the_minimum_of_its_loss() -> None:
    from agnostic.visualization.concepts import _logistic

    rng = np.random.default_rng(3)
    x, shows = rng.standard_normal((20, 5)), np.arange(20) < 8
    vector, threshold = _logistic(x, shows)
    scale = np.square(x - x.mean(0)).sum() / len(x)
    balance = np.where(shows, 0.5 / 0.4, 0.5 / 0.6)

    def loss(w: np.ndarray, t: float) -> float:
        return float((balance * np.logaddexp(0, np.where(shows, -1, 1) * (x @ w - t))).sum() + scale * (w @ w) / 2)

    best = loss(vector, threshold)
    for _ in range(20):  # a convex function rises in every direction from its minimum
        step = 1e-3 * rng.standard_normal(6)
        assert loss(vector + step[:5], threshold + step[5]) > best


def test_concepts_need_photos_that_differ(tmp_path: Path) -> None:
    model, (red, blue) = seeded(Rows), red_and_blue(3)
    for arguments, words in (
        (("image", red[:1], blue), "at least 2 photos"),
        (("image", tmp_path, blue), "has no photos: files that end in"),
        (("image", tmp_path / "none", blue), "no folder of photos"),
        (("image", red, [*red]), "gives the same for photos"),
    ):
        with pytest.raises(ag.InvalidInput, match=words):
            o.concept_vector(model, *arguments, method="mean", held_out=0)
