"""The listing of torch modules: order, shapes, axes, names."""

import pytest

import agnostic as ag
from agnostic.errors import InvalidInput
from agnostic.models.attached import attach
from agnostic.models.cards import ModelCard, Preprocessing

torch = pytest.importorskip("torch")
torchvision = pytest.importorskip("torchvision")
nn = torch.nn
CNBlockConfig = torchvision.models.convnext.CNBlockConfig


def axes(model, *shape):
    return {layer.name: layer.axes for layer in ag.layers(model, torch.zeros(shape) if shape else None)}


def test_what_a_listing_says():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8 * 36, 5))
    conv, norm, flat, head = ag.layers(model, torch.zeros(2, 3, 8, 8))
    assert (conv.name, conv.kind, conv.shape, conv.axes, conv.channels) == ("0", "Conv2d", (None, 8, 6, 6), "NCHW", 8)
    assert conv.parameters == 8 * 3 * 9 + 8  # 8 kernels of 3 x 3 x 3, 8 biases
    assert norm.parameters == 16
    assert (flat.shape, flat.axes, flat.parameters) == ((None, 288), "NC", 0)
    assert head.channels == 5
    assert conv.spatial
    assert not head.spatial


def test_layers_come_in_the_order_in_which_they_run():
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.last, self.unused, self.holder = nn.Tanh(), nn.Linear(2, 2), nn.ModuleList([nn.Linear(2, 2)])
            self.first = nn.Sequential(nn.Linear(2, 2))

        def forward(self, x):
            return self.last(self.holder[0](self.first(x)))

    found = ag.layers(Backwards(), torch.zeros(1, 2))
    # The list that holds layers is none.
    assert [layer.name for layer in found] == ["first", "first.0", "holder.0", "last", "unused"]
    assert [layer.calls for layer in found] == [1, 1, 1, 1, 0]
    assert (found[-1].shape, found[-1].axes, found[-1].parameters) == (None, None, 6)


def test_outputs_that_are_no_array_have_no_shape():
    (lstm,) = ag.layers(nn.Sequential(nn.LSTM(3, 4)), torch.zeros(2, 1, 3))
    assert (lstm.shape, lstm.axes, lstm.calls) == (None, None, 1)


class FirstToken(nn.Module):
    """Attention from one token alone, as the class attention of timm's xcit, cait and volo."""

    def forward(self, x):
        return x[:, 0].unsqueeze(1)


# Axes, told by the code of the networks themselves -------------------------------------------------------------------
CASES = {
    "sequence": (nn.Sequential(nn.Conv1d(2, 4, 3), nn.BatchNorm1d(4), nn.ReLU()), (1, 2, 9), ["NCL"] * 3),
    "volume": (nn.Sequential(nn.Conv3d(1, 2, 3), nn.MaxPool3d(2), nn.ReLU()), (1, 1, 6, 6, 6), ["NCDHW"] * 3),
    "features": (nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU()), (2, 3), ["NC"] * 3),
    "tokens": (nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.GELU()), (2, 5, 3), ["NLC"] * 3),
    "channels last": (nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.GELU()), (2, 5, 5, 3), ["NHWC"] * 3),
    "no batch": (nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU()), (2, 6, 6), ["CHW"] * 2),
    "to tokens": (
        nn.Sequential(nn.Conv2d(2, 4, 3), nn.Flatten(2), torchvision.ops.Permute([0, 2, 1]), nn.Linear(4, 3)),
        (1, 2, 6, 6),
        ["NCHW", "NCL", "NLC", "NLC"],
    ),
    "sequence first": (
        nn.TransformerEncoderLayer(6, 2, 8, norm_first=True),
        (5, 2, 6),
        ["LNC", None, "LNC", "LNC", "LNC", "LNC", "LNC", "LNC", None],
    ),
    "batch first": (
        nn.TransformerEncoderLayer(6, 2, 8, batch_first=True),
        (5, 2, 6),
        [None, "NLC", "NLC", "NLC", "NLC", "NLC", "NLC", "NLC", None],
    ),
    "a token of its own": (nn.Sequential(nn.LayerNorm(4), FirstToken(), nn.Linear(4, 6)), (2, 5, 4), ["NLC"] * 3),
    "windows in the batch": (nn.Sequential(nn.LayerNorm(4), nn.Flatten(0, 1)), (2, 5, 4), ["NLC", None]),
    "grey": (nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()), (), ["NCHW", "NCHW", "NC"]),
    "unknown": (nn.Sequential(nn.ReLU()), (1, 3, 4, 4), ["NCHW"]),
    "too many": (nn.Sequential(nn.ReLU()), (1, 1, 1, 1, 1, 1), [None]),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_axes(case):
    model, shape, expected = case
    assert list(axes(model.eval(), *shape).values()) == expected


def test_channels_moved_by_a_function():
    class Block(nn.Module):
        """Channels last inside, channels first outside, as in ConvNeXt."""

        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.act = nn.Conv2d(3, 8, 3), nn.LayerNorm(8), nn.GELU()

        def forward(self, x):
            return self.act(self.norm(self.conv(x).permute(0, 2, 3, 1))).permute(0, 3, 1, 2)

    found = axes(nn.Sequential(Block(), nn.ReLU()), 1, 3, 8, 8)
    assert found == {"0": "NCHW", "0.conv": "NCHW", "0.norm": "NHWC", "0.act": "NHWC", "1": "NCHW"}


def test_axes_follow_the_operators_to_a_layer_without_parameters():
    class Gated(nn.Module):
        """As in a gated block: the activation sees a part of what a dense layer made, after another convolution ran."""

        def __init__(self):
            super().__init__()
            self.fc, self.conv, self.act, self.last = (
                nn.Linear(3, 24),
                nn.Conv2d(12, 12, 3, padding=1),
                nn.GELU(),
                nn.ReLU(),
            )

        def forward(self, x):
            gate, value = self.fc(x.permute(0, 2, 3, 1)).split(12, -1)
            value = self.conv(value.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
            return self.last((self.act(gate) * value).transpose(1, 3))

    # All sides are of one length, so that no shape tells the layout.
    found = axes(Gated().eval(), 1, 3, 12, 12)
    assert found == {"fc": "NHWC", "conv": "NCHW", "act": "NHWC", "last": "NCWH"}


def test_axes_of_swin():
    model = torchvision.models.swin_transformer.SwinTransformer([4, 4], 16, [1, 1], [2, 2], [4, 4], num_classes=3)
    found = axes(model.eval(), 1, 3, 32, 32)
    # swin_transformer.py: "B H W C" from the patch embedding's Permute on, NCHW after self.permute.
    assert found["features.0.0"] == "NCHW"
    assert {found[name] for name in ("features.0.1", "features.1.0", "features.1.0.attn", "features.2")} == {"NHWC"}
    assert [found[name] for name in ("permute", "avgpool", "flatten", "head")] == ["NCHW", "NCHW", "NC", "NC"]


class Steps(nn.Module):
    """Functions between modules: each entry is a module, which is listed, or a function."""

    def __init__(self, *steps):
        super().__init__()
        self.steps = steps
        for number, step in enumerate(steps):
            if isinstance(step, nn.Module):
                self.add_module(f"{number}", step)

    def forward(self, x):
        for step in self.steps:
            x = step(x)
        return x


def _windows(x):  # (N, H, W, C) to (N x windows, 2 x 2 positions, C)
    n, h, w, c = x.shape
    return x.reshape(n, h // 2, 2, w // 2, 2, c).transpose(2, 3).reshape(-1, 4, c)


def _image(x):  # and back
    return x.reshape(2, 4, 4, 2, 2, 8).transpose(2, 3).reshape(2, 8, 8, 8)


# All lengths are 8 where that is possible, so that no shape tells anything; what is right is told by the code.
FOLLOWED = {
    "tokens of an image": (
        lambda: Steps(nn.Conv2d(3, 8, 1), lambda x: x.view(2, 8, 64).mT, nn.GELU(), lambda x: x.mT, nn.GELU()),
        ["NCHW", "NLC", "NCL"],
    ),
    "tokens mixed by a product": (
        lambda: Steps(
            nn.Conv2d(3, 8, 1), nn.Flatten(2), nn.Linear(64, 8), nn.GELU(), lambda x: x.transpose(1, 2),
            nn.Linear(8, 8), nn.GELU(),
        ),
        ["NCHW", "NCL", "NCL", "NCL", "NLC", "NLC"],
    ),
    "windows in a row": (
        lambda: Steps(
            nn.Conv2d(3, 8, 1), lambda x: x.permute(0, 2, 3, 1), nn.LayerNorm(8), _windows, nn.Linear(8, 8), nn.ReLU(),
            _image, nn.Identity(),
        ),
        ["NCHW", "NHWC", None, None, "NHWC"],
    ),
    "heads of an attention": (
        lambda: Steps(
            nn.Conv2d(3, 8, 1), nn.Flatten(2), lambda x: x.mT.reshape(2, 64, 2, 4).transpose(1, 2), nn.Identity(),
            lambda x: (x @ x.mT).softmax(-1) @ x, lambda x: x.transpose(1, 2).flatten(2), nn.Identity(),
        ),
        ["NCHW", "NCL", None, "NLC"],
    ),
    "patches by a product": (
        lambda: Steps(
            lambda x: x.reshape(2, 3, 2, 4, 2, 4).permute(0, 2, 4, 3, 5, 1).reshape(2, 4, 48), nn.Linear(48, 8),
            nn.LayerNorm(8),
        ),
        ["NLC", "NLC"],
    ),
    "channels shuffled between groups": (
        lambda: Steps(
            nn.Conv2d(3, 8, 1), lambda x: x.view(2, 2, 4, 8, 8).transpose(1, 2).reshape(2, 8, 8, 8), nn.ReLU(),
        ),
        ["NCHW", "NCHW"],
    ),
    "pixels from channels": (
        lambda: Steps(
            nn.PixelUnshuffle(2), nn.Conv2d(12, 16, 1),
            lambda x: x.view(2, 4, 2, 2, 4, 4).permute(0, 1, 4, 2, 5, 3).reshape(2, 4, 8, 8), nn.ReLU(),
        ),
        ["NCHW", "NCHW", "NCHW"],
    ),
    "a class token": (
        lambda: Steps(
            nn.Conv2d(3, 8, 1), lambda x: torch.cat([torch.zeros(1, 1, 8).expand(2, -1, -1), x.flatten(2).mT], 1),
            nn.Dropout(), lambda x: x[:, 0], nn.Identity(),
        ),
        ["NCHW", "NLC", "NC"],
    ),
    "an operator that nobody knows": (
        lambda: Steps(nn.Conv2d(3, 8, 1), lambda x: torch.linalg.inv(x), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.ReLU()),
        ["NCHW", None, "NCHW", "NCHW"],
    ),
    "mean over the channels": (
        lambda: Steps(nn.Conv2d(3, 8, 1), lambda x: x.mean(1), nn.ReLU()),
        ["NCHW", "NHW"],
    ),
    "recurrent": (
        lambda: Steps(nn.Embedding(9, 8), nn.GRU(8, 8, batch_first=True), lambda x: x[0], nn.Identity()),
        ["NLC", None, "NLC"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FOLLOWED)
def test_axes_are_followed_or_unknown(name):
    make, expected = FOLLOWED[name]
    x = torch.zeros(2, 8, dtype=torch.int64) if name == "recurrent" else torch.randn(2, 3, 8, 8)
    assert [layer.axes for layer in ag.layers(make().eval(), x)] == expected


CONVNEXT = [CNBlockConfig(8, 16, 1), CNBlockConfig(16, None, 1)]


def test_axes_of_convnext_and_vit():
    # convnext.py: a block permutes to channels last for LayerNorm and Linear and back again.
    found = axes(torchvision.models.ConvNeXt(CONVNEXT).eval(), 1, 3, 32, 32)
    assert [found[f"features.1.0.block.{i}"] for i in range(7)] == ["NCHW", *["NHWC"] * 5, "NCHW"]
    assert found["features.1.0"] == found["features.2.0"] == "NCHW"
    vit = torchvision.models.VisionTransformer(32, 16, 2, 2, 16, 32, num_classes=3)
    found = axes(vit.eval(), 1, 3, 32, 32)
    assert (found["conv_proj"], found["heads.head"]) == ("NCHW", "NC")
    assert {found["encoder"], found["encoder.layers.encoder_layer_0.mlp"], found["encoder.ln"]} == {"NLC"}


# Inputs --------------------------------------------------------------------------------------------------------------
def test_the_size_of_the_card_is_used():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    assert ag.layers(model)[0].shape == (None, 4, 222, 222)
    attach(model, ModelCard("a model", Preprocessing((0,) * 3, (1,) * 3), (10, 12), aliases={"1": ("relu",)}))
    assert ag.layers(model)[0].shape == (None, 4, 8, 10)
    assert list(ag.capture(model, torch.zeros(1, 3, 4, 4), "relu")) == ["relu"]


def test_inputs_that_cannot_be_inferred():
    # 72 = 6 x 12 positions: no square leaves so many, and there are several others.
    oblong = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.MaxPool2d(8), nn.Flatten(), nn.Linear(4 * 72, 2))
    with pytest.raises(InvalidInput, match=r"does not declare the shapes of its inputs.* give .* inputs=.* size="):
        ag.layers(oblong)
    assert ag.layers(oblong, size=(48, 96))[0].shape == (None, 4, 48, 96)


def test_vgg_answers_to_its_keras_names():
    with torch.device("meta"):
        model = torchvision.models.vgg16(weights=None).eval()
    layers = {layer.name: layer for layer in ag.layers(model)}
    assert layers["features.0"].aliases == ("block1_conv1",)
    assert layers["classifier.6"].aliases == ("predictions",)
    assert layers["features.0"].shape == (None, 64, 224, 224)


def test_a_shared_module_lists_its_other_names():
    block = nn.Sequential(nn.Linear(2, 2))
    first, inner = ag.layers(nn.Sequential(block, block), torch.zeros(1, 2))
    assert (first.name, first.aliases, first.calls) == ("0", ("1",), 2)
    assert (inner.name, inner.aliases, inner.calls) == ("0.0", ("1.0",), 2)
