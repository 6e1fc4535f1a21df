"""Maps of attribution on torch, against PyTorch's own gradients and closed forms; parity is tests/parity's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
nn = torch.nn
F = torch.nn.functional

import agnostic as ag  # noqa: E402
from agnostic.attribution import METHODS  # noqa: E402
from agnostic.attribution.maps import enlarged  # noqa: E402
from agnostic.errors import InvalidInput, NonFinite, UnknownName  # noqa: E402

CARD = {"range": [0, 1]}
IMAGES = np.random.default_rng(0).random((2, 16, 16, 3)).astype(np.float32)
X = torch.from_numpy(IMAGES.transpose(0, 3, 1, 2).copy())


class Small(nn.Module):
    """Two convolutions and one ReLU that runs twice and changes its input in place."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 8, 3, stride=2, padding=1)
        self.relu, self.head = nn.ReLU(inplace=True), nn.Linear(8, 5)

    def features(self, x: Any) -> Any:
        """The last layer with height and width."""
        return self.conv2(self.relu(self.conv1(x)))

    def forward(self, x: Any) -> Any:
        return self.head(self.relu(self.features(x)).mean((2, 3)))


class Patches(nn.Module):
    """Patches of 4 by 4 pixels, a class token before them, one attention: only the class token reaches the output."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.token = nn.Conv2d(3, 8, 4, 4), nn.Parameter(torch.randn(1, 1, 8))
        self.norm, self.attention = nn.LayerNorm(8), nn.MultiheadAttention(8, 2, batch_first=True)
        self.last, self.head = nn.LayerNorm(8), nn.Linear(8, 5)

    def forward(self, x: Any) -> Any:
        x = torch.cat([self.token.expand(len(x), -1, -1), self.patches(x).flatten(2).transpose(1, 2)], 1)
        y = self.norm(x)
        x = self.last(x + self.attention(y, y, y)[0])
        return self.head(x[:, 0])


def made(cls: type[Any], **options: Any) -> Any:
    """A model with weights of a fixed seed, which takes images in [0, 1] as they are."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = cls(**options)
    ag.set_card(model, CARD)
    return model


@pytest.fixture(scope="module")
def small() -> Any:
    """The small network."""
    return made(Small)


def pixel_gradients(model: Any, classes: list[int]) -> np.ndarray:
    x = X.clone().requires_grad_()
    scores = model(x)[range(len(X)), classes]
    (gradient,) = torch.autograd.grad(scores.sum(), x)
    return gradient.permute(0, 2, 3, 1).double().numpy()


def test_the_target_is_the_highest_class_unless_another_is_asked_for(small: Any) -> None:
    with torch.no_grad():
        logits = small(X)
    found = ag.explain(small, IMAGES, method="gradient")
    assert found.classes == tuple(logits.argmax(1).tolist())
    np.testing.assert_allclose(found.probabilities, logits.softmax(1).max(1).values, rtol=1e-5)
    np.testing.assert_allclose(found.scores, logits.max(1).values, rtol=1e-5)
    for target, classes in ((3, [3, 3]), ([1, 4], [1, 4]), ("2", [2, 2])):
        found = ag.explain(small, IMAGES, target=target, method="gradient_x_input")
        right = (pixel_gradients(small, classes) * IMAGES).sum(-1)
        np.testing.assert_allclose(found.maps, right, atol=1e-6 * np.abs(right).max())
        assert found.labels == tuple(f"class {i}" for i in classes)


def test_scores_are_those_before_a_softmax(small: Any) -> None:
    class Probable(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = small

        def forward(self, x: Any) -> Any:
            return self.net(x).softmax(1)

    plain = ag.explain(small, IMAGES, target=2, method="gradient")
    found = ag.explain(made(Probable), IMAGES, target=2, method="gradient")
    np.testing.assert_array_equal(found.maps, plain.maps)
    np.testing.assert_allclose(found.probabilities, plain.probabilities, rtol=1e-5)


def test_integrated_gradients_add_up_to_the_difference_of_the_scores(small: Any) -> None:
    found = ag.explain(small, IMAGES, target=1, method="integrated_gradients", steps=256)
    with torch.no_grad():
        difference = small(X)[:, 1] - small(torch.zeros_like(X))[:, 1]
    # The quadrature of a function with kinks: its error falls with the number of points.
    np.testing.assert_allclose(found.maps.sum((1, 2)), difference, atol=2e-3 * float(difference.abs().max()))


def test_a_class_activation_map_is_of_the_last_layer_and_its_mean_gradients(small: Any) -> None:
    for parameter in small.parameters():
        parameter.grad = None
    features = small.features(X)
    features.retain_grad()
    # A copy, since the ReLU changes its input in place.
    small.head(small.relu(features.clone()).mean((2, 3)))[:, 3].sum().backward()
    gradient, value = features.grad.double().numpy(), features.detach().double().numpy()
    right = {
        "grad_cam": (gradient.mean((2, 3), keepdims=True) * value).sum(1),
        "layer_cam": (np.maximum(gradient, 0) * value).sum(1),
    }
    for method, sums in right.items():
        found = ag.explain(small, IMAGES, target=3, method=method)
        assert found.layer == "conv2"  # the ReLU runs twice
        expected = enlarged(np.maximum(sums, 0), (16, 16))
        np.testing.assert_allclose(found.maps, expected, atol=1e-6 * expected.max())
    assert all(p.grad is not None for p in small.parameters())  # the user's own gradients stay


def test_guided_gradients_pass_only_where_they_are_positive(small: Any) -> None:
    x = X.clone().requires_grad_()
    first = small.conv1(x)
    second = small.conv2(F.relu(first))
    scores = small.head(F.relu(second).mean((2, 3)))[:, 0].sum()
    (at_second,) = torch.autograd.grad(scores, second, retain_graph=True)
    (at_relu,) = torch.autograd.grad(second, first, at_second.clamp(min=0), retain_graph=True)
    # The gradient that comes to the first ReLU is that of its output: the same as its input's where it is positive.
    (at_output,) = torch.autograd.grad(small.conv2(y := F.relu(first).detach().requires_grad_()), y,
                                       at_second.clamp(min=0))  # fmt: skip
    (right,) = torch.autograd.grad(first, x, at_output.clamp(min=0) * (first > 0))
    expected = right.abs().amax(1).numpy()
    assert not torch.equal(at_relu, at_output.clamp(min=0) * (first > 0))
    found = ag.explain(small, IMAGES, target=0, method="guided_backpropagation")
    np.testing.assert_allclose(found.maps, expected, atol=1e-6 * expected.max())


@pytest.mark.parametrize("kind", [nn.ReLU6, lambda: nn.Hardtanh(0.0, 2.0)])
def test_bounded_rectifiers_are_guided_as_well(kind: Any) -> None:
    model = made(lambda: nn.Sequential(nn.Conv2d(3, 4, 3), kind(), nn.Flatten(), nn.Linear(4 * 14 * 14, 2)))
    plain = ag.explain(model, IMAGES, target=0, method="gradient").maps
    assert not np.allclose(ag.explain(model, IMAGES, target=0, method="guided_backpropagation").maps, plain)


def test_a_model_without_a_rectifier_is_not_guided() -> None:
    model = made(lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 14 * 14, 2)))
    with pytest.raises(InvalidInput, match="no ReLU"):
        ag.explain(model, IMAGES, method="guided_backpropagation")


def test_hidden_squares_of_a_linear_model_have_a_closed_form() -> None:
    """The score falls by the sum of weight times pixel in the square."""
    model = made(lambda: nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 2)))
    weight = model[1].weight[1].detach().reshape(3, 16, 16).permute(1, 2, 0).double().numpy()
    product = (weight * IMAGES).sum(-1)
    total, count = np.zeros((2, 16, 16)), np.zeros((16, 16))
    for top in (0, 2, 4, 6, 8, 10, 12):
        for left in (0, 2, 4, 6, 8, 10, 12):
            part = np.s_[..., top : top + 4, left : left + 4]
            total[part] += product[part].sum((1, 2))[:, None, None]
            count[part] += 1
    found = ag.explain(model, IMAGES, target=1, method="occlusion", window=4)
    np.testing.assert_allclose(found.maps, total / count, atol=2e-6 * np.abs(model(X).detach().numpy()).max())


@pytest.mark.parametrize("method", ["rise", "score_cam", "occlusion", "grad_cam", "grad_cam_plus_plus", "smoothgrad"])
def test_a_model_that_looks_at_one_corner_is_found_out(method: str) -> None:
    class Corner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)
            nn.init.constant_(self.conv.weight, 0.5)
            nn.init.zeros_(self.conv.bias)

        def forward(self, x: Any) -> Any:
            y = F.relu(self.conv(x))
            return torch.stack([y[:, :, :6, :6].mean((1, 2, 3)), -y.mean((1, 2, 3))], 1)

    images = np.zeros((1, 16, 16, 3), np.float32)
    images[0, :6, :6] = 0.9  # a class activation map shows where the features are; they are in the corner as well
    images[0] += 0.05
    found = ag.explain(made(Corner), images, target=0, method=method, samples=400 if method == "rise" else None)
    inside = found.maps[0, :6, :6].mean()
    assert inside > 2 * np.abs(found.maps[0, 8:, 8:]).mean()


def test_tokens_are_drawn_as_the_grid_of_their_patches() -> None:
    model = made(Patches)
    found = ag.explain(model, IMAGES, target=2, method="layer_cam")
    # After the last attention the class token alone counts: no gradient comes to the patches there.
    assert found.layer == "norm"
    assert found.maps.shape == (2, 16, 16)
    x = X.clone()
    patches = model.patches(x).flatten(2).transpose(1, 2)
    tokens = torch.cat([model.token.expand(2, -1, -1), patches], 1).detach()
    y = model.norm(tokens).detach().requires_grad_()
    out = model.head(model.last(tokens + model.attention(y, y, y)[0])[:, 0])[:, 2].sum()
    (gradient,) = torch.autograd.grad(out, y)
    right = (gradient.clamp(min=0) * y)[:, 1:].sum(2).clamp(min=0).reshape(2, 4, 4).detach().numpy()
    np.testing.assert_allclose(found.maps, enlarged(right, (16, 16)), atol=1e-5 * right.max())


def test_the_map_of_a_class_is_not_weighed_by_itself() -> None:
    """Where the logits are a map, the score is of one of its channels; a model of nothing else has no other layer."""
    torch.manual_seed(0)
    features, classes = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU()), nn.Conv2d(6, 4, 1)
    both, alone = nn.Sequential(features, classes).eval(), nn.Sequential(nn.Conv2d(3, 4, 1)).eval()
    with torch.no_grad():
        classes.bias.fill_(-100.0)  # below zero everywhere: its own map would be empty
    for model in (both, alone):
        ag.set_card(model, CARD)

    def third(ops: Any, output: Any) -> Any:
        return ops.mean(output[:, 3], (1, 2))

    found = ag.explain(both, IMAGES, target=third)
    assert found.layer == "0"
    assert found.maps.max() > 0
    assert ag.explain(alone, IMAGES, target=third).layer == "0"


def test_a_detector_that_returns_an_entry_for_each_image() -> None:
    class Detector(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features, self.scores = nn.Conv2d(3, 6, 3, stride=2), nn.Conv2d(6, 2, 1)

        def forward(self, x: Any) -> Any:
            found = self.scores(self.features(x).relu()).flatten(2)
            return [{"boxes": torch.zeros(found.shape[-1], 4), "scores": one[0]} for one in found]

    def best(ops: Any, output: Any) -> Any:
        return torch.stack([one["scores"].max() for one in output])

    model = Detector().eval()
    found = ag.explain(model, IMAGES, target=best, size=16)
    assert (found.layer, found.maps.shape) == ("features", (2, 16, 16))


def test_the_layer_is_found_however_much_follows_the_last_attention() -> None:
    class Tailed(Patches):
        """Fourteen more layers of tokens, of which the class token alone counts."""

        def __init__(self) -> None:
            super().__init__()
            self.tail = nn.ModuleList(nn.LayerNorm(8) for _ in range(14))

        def forward(self, x: Any) -> Any:
            x = torch.cat([self.token.expand(len(x), -1, -1), self.patches(x).flatten(2).transpose(1, 2)], 1)
            y = self.norm(x)
            x = x + self.attention(y, y, y)[0]
            for layer in self.tail:
                x = layer(x)
            return self.head(x[:, 0])

    found = ag.explain(made(Tailed), IMAGES, target=2)
    assert found.layer == "norm"
    assert found.maps.max() > 0


def test_a_function_explains_what_is_no_class() -> None:
    class Mask(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 2, 3, padding=1)

        def forward(self, x: Any) -> Any:
            return {"mask": self.conv(x), "size": torch.tensor(3)}

    model = made(Mask)
    with pytest.raises(InvalidInput, match=r"target=f\(ops, output\)"):
        ag.explain(model, IMAGES, method="gradient")
    seen = ag.explain(model, IMAGES, target=lambda ops, y: ops.sum(y["mask"][:, 1, 5, 5:6], -1), method="gradient")
    assert seen.classes is None
    assert seen.probabilities == (None, None)
    assert (seen.maps[:, 4:7, 4:7] > 0).all()
    assert (np.delete(np.delete(seen.maps, [4, 5, 6], 1), [4, 5, 6], 2) == 0).all()
    with pytest.raises(InvalidInput, match=r"one score per image, of shape \(2,\), not \(2, 2\)"):
        ag.explain(model, IMAGES, target=lambda ops, y: y["mask"][:, :, 5, 5], method="gradient")


def test_what_else_a_model_takes_is_given_beside_the_image() -> None:
    class Aged(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.age, self.head = nn.Conv2d(3, 4, 3), nn.Linear(2, 4), nn.Linear(4, 3)

        def forward(self, image: Any, age: Any) -> Any:
            return self.head((self.conv(image).relu() * self.age(age)[:, :, None, None]).mean((2, 3)))

    model, ages = made(Aged), np.array([[1.0, 2.0], [-3.0, 0.5]], np.float32)
    together = ag.explain(model, IMAGES, target=1, inputs={"age": ages}, micro_batch=1, method="gradient")
    alone = [
        ag.explain(model, IMAGES[i : i + 1], target=1, inputs={"age": ages[i : i + 1]}, method="gradient").maps[0]
        for i in range(2)
    ]
    np.testing.assert_allclose(together.maps, alone, rtol=1e-6)


def test_results_depend_neither_on_the_micro_batch_nor_on_the_modes_around(small: Any) -> None:
    small.train()
    for method in METHODS.keys() - {"attention_rollout"}:
        one = ag.explain(small, IMAGES, target=1, method=method, samples=5, micro_batch=1)
        with torch.no_grad():
            many = ag.explain(small, IMAGES, target=1, method=method, samples=5)
        # Another number of rows gives another order of summation.
        np.testing.assert_allclose(one.maps, many.maps, atol=1e-4 * np.abs(one.maps).max(), err_msg=method)
    assert small.training
    small.eval()


def test_mistakes_are_told(small: Any) -> None:
    with pytest.raises(UnknownName, match=r"'grad_camm'.*did you mean 'grad_cam'"):
        ag.explain(small, IMAGES, method="grad_camm")
    with pytest.raises(InvalidInput, match="no class 7"):
        ag.explain(small, IMAGES, target=7)
    with pytest.raises(InvalidInput, match="no class names to find 'cat' by"):
        ag.explain(small, IMAGES, target="cat")
    with pytest.raises(InvalidInput, match="3 targets for 2 images"):
        ag.explain(small, IMAGES, target=[1, 2, 3])
    with pytest.raises(InvalidInput, match="'head' is no grid"):
        ag.explain(small, IMAGES, layer="head")
    with pytest.raises(InvalidInput, match=r"'relu' is no grid.*2 calls"):
        ag.explain(small, IMAGES, layer="relu")
    with pytest.raises(InvalidInput, match="steps"):
        ag.explain(small, IMAGES, method="integrated_gradients", steps=0)
    broken = made(Small)
    with torch.no_grad():
        broken.head.bias.fill_(float("nan"))
    with pytest.raises(NonFinite, match="not finite"):
        ag.explain(broken, IMAGES, target=0, method="gradient")


def test_an_explanation_shows_itself(small: Any) -> None:
    found = ag.explain(small, IMAGES, target=0)
    assert repr(found) == "<Explanation of 2 images by grad_cam at 'conv2': class 0, class 0>"
    assert found.overlays().shape == (2, 16, 16, 3)
    assert found.overlays().dtype == np.uint8
    assert found._repr_html_().count("<img") == 2


def test_a_judge_tells_maps_from_random_ones_and_marks_those_that_do_not_need_the_weights(small: Any) -> None:
    class Blob(nn.Module):
        """Sure of class 0 where the middle is bright."""

        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 2, 1)
            nn.init.constant_(self.conv.weight, 1.0)

        def forward(self, x: Any) -> Any:
            middle = self.conv(x).relu()[:, 0, 5:11, 5:11].mean((1, 2))
            return torch.stack([4 * middle, 2 + 0 * middle], 1)

    model = made(Blob)
    before = {name: x.clone() for name, x in model.state_dict().items()}
    images = np.full((1, 16, 16, 3), 0.1, np.float32)
    images[:, 5:11, 5:11] = 0.9
    found = {one.method: one for one in ag.attribution.judge(model, images, methods=["gradient_x_input"], target=0)}
    right, random = found["gradient_x_input"], found["random"]
    assert right.deletion < random.deletion - 0.1
    assert right.insertion > random.insertion
    assert right.blind  # all weights are equal: shuffled, they are the same
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())
    (one, _) = ag.attribution.judge(small, IMAGES, methods=["gradient"], target=0, steps=2)
    assert not one.blind
    assert "random" in repr(ag.attribution.judge(small, IMAGES, methods=[], target=0, steps=1))
