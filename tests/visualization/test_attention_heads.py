"""The heads of attention layers, whose frameworks compute all of them in one function."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import agnostic as ag
from agnostic.errors import InvalidInput

head = ag.objectives.head


class Patches(nn.Module):
    """Patches, an attention, and a mean."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.kind, self.patches = kind, nn.Conv2d(3, 8, 4, stride=4)
        first = kind != "second"
        if kind == "encoder":
            self.block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)
        else:
            self.attention = nn.MultiheadAttention(8, 2, batch_first=first, bias=kind != "plain")

    def forward(self, photo: torch.Tensor) -> torch.Tensor:
        x = self.patches(photo).flatten(2).transpose(1, 2)
        if self.kind == "encoder":
            return self.block(x).mean(1)
        if self.kind == "second":
            x = x.transpose(0, 1)
            return self.attention(x, x, x)[0].mean(0)
        return self.attention(x, x, x, need_weights=self.kind == "plain")[0].mean(1)


def by_hand(model: Patches, photo: np.ndarray) -> np.ndarray:
    """(heads,): the mean square of what each gives, from the weights of the layer in float64."""
    attention = model.block.self_attn if model.kind == "encoder" else model.attention
    double = {name: x.detach().double().numpy() for name, x in attention.named_parameters()}
    with torch.no_grad():
        x = model.patches(torch.from_numpy(photo).permute(0, 3, 1, 2)).flatten(2).transpose(1, 2)[0].double().numpy()
    together = x @ double["in_proj_weight"].T + double.get("in_proj_bias", 0)
    query, key, value = (part.reshape(-1, 2, 4).transpose(1, 0, 2) for part in np.split(together, 3, 1))
    weights = np.exp(query @ key.transpose(0, 2, 1) / 2)  # the root of four channels
    found: np.ndarray = np.square(weights / weights.sum(2, keepdims=True) @ value).mean((1, 2))
    return found


@pytest.mark.parametrize("kind", ["first", "second", "plain", "encoder"])
def test_a_head_of_pytorch_is_what_it_gives_before_the_projection_of_the_output(kind: str) -> None:
    model = Patches(kind).eval()
    layer = "block.self_attn" if kind == "encoder" else "attention"
    photo = np.random.default_rng(0).random((12, 12, 3)).astype(np.float32)
    seen = ag.recipes.fourier(views=ag.recipes.classic().views, preprocess=False)
    found = ag.visualize(model, head(layer, [0, 1]), recipe=seen, start=photo, steps=4, dtype="float32")
    assert found.labels == (f"{layer}:head 0", f"{layer}:head 1")
    # The start is a photo in [0, 1] within [0.01, 0.99]; sums of 48 and 8 products in float32.
    np.testing.assert_allclose(found.scores[0], by_hand(model, photo.clip(0.01, 0.99)[None]), rtol=1e-4)
    assert (found.scores[-1] > found.scores[0]).all()
    assert {x.name: x.heads for x in ag.layers(model)}[layer] == 2


def test_heads_that_are_not_there_are_told() -> None:
    model = Patches("first").eval()
    for objective, words in (
        (head("attention", 2), r"^no head 2 in layer 'attention': it has 2, from 0$"),
        (head("attention", 1, 4), r"^layer 'attention' has 2 heads, not 4: leave it out$"),
        (head("patches", 1), r"^layer 'patches' \(Conv2d\) is no attention that is known: say how many heads "),
    ):
        with pytest.raises(InvalidInput, match=words):
            ag.visualize(model, objective, size=12, steps=1)
