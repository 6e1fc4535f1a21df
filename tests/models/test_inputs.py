"""What the inputs of a model look like, found by running it, whatever is registered first."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import agnostic as ag
from agnostic.models.inputs import inputs_of
from agnostic.registry import backend_of

torch = pytest.importorskip("torch")
nn, F = torch.nn, torch.nn.functional


class HeadFirst(nn.Module):
    def __init__(self, stem: Any = None) -> None:
        super().__init__()
        self.head, self.stem = nn.Linear(8, 5), stem or nn.Conv2d(3, 8, 3)

    def forward(self, x: Any) -> Any:
        return self.head(self.stem(x).mean((2, 3)))


class Patches(nn.Module):
    """A linear stem on patches of 7 x 7 grey pixels, 16 of them."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head, self.place = nn.Linear(49, 8), nn.Linear(8, 3), nn.Parameter(torch.zeros(1, 16, 8))

    def forward(self, x: Any) -> Any:
        n, c, h, w = x.shape
        x = x.reshape(n, c, h // 7, 7, w // 7, 7).permute(0, 2, 4, 1, 3, 5).reshape(n, h * w // 49, c * 49)
        return self.head((self.embed(x) + self.place).mean(1))


class ChannelsLast(HeadFirst):
    def forward(self, x: Any) -> Any:
        return super().forward(x.permute(0, 3, 1, 2))


class Dense(nn.Module):
    """A dense layer on rows that a view makes, which takes one large image for many rows."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(784, 10)

    def forward(self, x: Any) -> Any:
        return self.dense(x.view(-1, 784))


class LeNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head, self.one, self.two = nn.Linear(400, 10), nn.Conv2d(1, 6, 5), nn.Conv2d(6, 16, 5)

    def forward(self, x: Any) -> Any:
        return self.head(F.max_pool2d(self.two(F.max_pool2d(self.one(x), 2)), 2).view(-1, 400))


class Depth(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.colour, self.depth = nn.Conv2d(3, 4, 3), nn.Conv2d(1, 4, 3)

    def forward(self, x: Any) -> Any:
        return (self.colour(x[:, :3]) + self.depth(x[:, 3:])).mean((2, 3))


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.vector, self.image = nn.Linear(10, 4), nn.Conv2d(3, 4, 3)

    def forward(self, image: Any, vector: Any) -> Any:
        return self.image(image).mean((2, 3)) + self.vector(vector)


def _grey(side: int) -> Any:
    left = ((side - 2) // 2 - 2) // 2
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 8, 3),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(8 * left**2, 9),
    )


FOUND = {
    "head registered first": (HeadFirst, [("NCHW", (1, 3, 40, 40))]),
    "pixel unshuffle": (
        lambda: HeadFirst(nn.Sequential(nn.PixelUnshuffle(4), nn.Conv2d(48, 8, 3))), [("NCHW", (1, 3, 40, 40))]
    ),
    "linear patches": (Patches, [("NCHW", (1, 1, 28, 28))]),
    "channels last": (ChannelsLast, [("NHWC", (1, 40, 40, 3))]),
    "dense on channels": (lambda: nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4)), [("NHWC", (1, 40, 40, 3))]),
    "view": (Dense, [("NCHW", (1, 1, 28, 28))]),
    "perceptron": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(3072, 10)), [("NCHW", (1, 3, 32, 32))]),
    "LeNet": (LeNet, [("NCHW", (1, 1, 32, 32))]),
    "28 x 28": (lambda: _grey(28), [("NCHW", (1, 1, 28, 28))]),
    "two parts of the channels": (Depth, [("NCHW", (1, 4, 40, 40))]),
    "two inputs": (Two, [("NCHW", (1, 3, 40, 40)), ("NC", (1, 10))]),
    "tokens": (lambda: nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 2)), [("NL", (1, 16))]),
    "sequence": (lambda: nn.Sequential(nn.Conv1d(2, 4, 3)), [("NCL", (1, 2, 64))]),
    "volume": (lambda: nn.Sequential(nn.Conv3d(1, 2, 3, 4)), [("NCDHW", (1, 1, 16, 112, 112))]),
    "transposed convolution": (lambda: nn.Sequential(nn.ConvTranspose2d(2, 4, 2)), [("NCHW", (1, 2, 40, 40))]),
    "normalization": (lambda: nn.Sequential(nn.BatchNorm2d(5), nn.Conv2d(5, 2, 3)), [("NCHW", (1, 5, 40, 40))]),
    "features": (lambda: nn.Linear(20, 3), [("NC", (1, 20))]),
    "recurrent": (lambda: nn.LSTM(7, 5, batch_first=True), [("NLC", (1, 64, 7))]),
}  # fmt: skip


@pytest.mark.parametrize("case", FOUND.values(), ids=FOUND)
def test_inputs_are_found_by_running(case: Any) -> None:
    make, expected = case
    model = make().eval()
    for _ in range(2):  # the second time it is remembered
        found = inputs_of(backend_of(model), model, near=40)
        assert [(x.axes, x.shape) for x in found] == expected
    assert any(layer.calls for layer in ag.layers(model)) or not ag.layers(model)


def test_a_changed_model_is_found_again() -> None:
    model = HeadFirst().eval()
    assert ag.layers(model, size=8)[0].shape == (None, 8, 6, 6)
    model.stem = nn.Conv2d(1, 8, 3)
    assert inputs_of(backend_of(model), model, near=8)[0].shape == (1, 1, 8, 8)


@pytest.mark.parametrize("make", [HeadFirst, ChannelsLast, Patches], ids=lambda x: x.__name__)
def test_every_verb_takes_the_same_images(make: Any) -> None:
    model = make().eval()
    channels = 1 if make is Patches else 3
    photo = np.random.default_rng(0).random((28, 28, channels), np.float32)
    given = ag.prepare(model, photo)
    assert given.shape == ((1, 28, 28, 3) if make is ChannelsLast else (1, channels, 28, 28))
    assert torch.isfinite(model(given)).all()
    images = ag.visualize(model, ag.objectives.logit(0), steps=2, size=28, recipe="classic")
    assert images.shape == (1, 28, 28, channels)


def test_what_cannot_be_found_can_be_given() -> None:
    class Hidden(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kernel = nn.Parameter(torch.zeros(2, 7, 3, 3))

        def forward(self, x: Any) -> Any:
            return F.conv2d(x, self.kernel)

    model = nn.Sequential(Hidden())
    with pytest.raises(ag.InvalidInput, match=r"trial runs did not find them .*inputs=.*size=.*channels_in="):
        ag.layers(model)
    assert ag.layers(model, size=(8, 9), channels_in=7)[0].shape == (None, 2, 6, 7)
    assert ag.layers(model, np.zeros((1, 7, 5, 5), np.float32))[0].shape == (None, 2, 3, 3)
    with pytest.raises(ag.InvalidInput, match="leave out size and channels_in"):
        ag.layers(model, np.zeros((1, 7, 5, 5)), size=8)


def test_a_part_before_a_dense_head_takes_any_size() -> None:
    model = _grey(28).eval()
    images = ag.visualize(model, ag.objectives.channel("2", 0), steps=2, size=(20, 36), recipe="classic")
    assert images.shape == (1, 20, 36, 1)
    assert ag.visualize(model, ag.objectives.logit(0), steps=1).shape == (1, 28, 28, 1)  # its own
    with pytest.raises(ag.InvalidInput, match=r"does not take images of 20 x 36 pixels \(.*\): choose another size"):
        ag.visualize(model, ag.objectives.logit(0), steps=1, size=(20, 36))


def test_photos_are_resized_and_cut_to_the_models_size(tmp_path: Any) -> None:
    from agnostic.files import write_png

    model = _grey(28).eval()
    photo = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
    write_png(tmp_path / "photo.png", photo)
    given = ag.prepare(model, photo)
    assert given.shape == (1, 1, 28, 28)
    assert torch.equal(given, ag.prepare(model, tmp_path / "photo.png"))
    # The same in floating point, but for the roundings of grey and of resizing to 1/255 each.
    assert (ag.prepare(model, photo / 255) - given).abs().max() < 2 / 255
    # It is the middle square that is shown; a cubic reaches two pixels beyond the cut.
    inner = slice(2, -2)
    assert torch.equal(given[..., inner], ag.prepare(model, photo[:, 15:75])[..., inner])
