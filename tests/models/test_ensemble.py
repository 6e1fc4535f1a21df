"""Several models as one: each in its own range, and objectives that look at any of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import agnostic as ag
from agnostic.errors import InvalidInput

NAMES = ("cat", "dog", "owl")


def network(seed: int, mean: float, names: tuple[str, ...] = NAMES, channels: int = 3) -> nn.Module:
    torch.manual_seed(seed)
    made = nn.Sequential(
        nn.Conv2d(channels, 4, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, len(names))
    ).eval()
    ag.set_card(made, {"mean": mean, "std": 0.5, "range": [0, 1], "size": [12, 16], "class_names": list(names)})
    return made


def test_an_ensemble_returns_the_mean_of_its_members_each_in_its_own_range() -> None:
    members = [network(0, 0.5), network(1, 0.2), network(2, 0.9)]
    both = ag.ensemble(members)
    photo = np.random.default_rng(0).random((2, 12, 16, 3)).astype(np.float32)
    found = both(ag.prepare(both, photo)).detach().numpy()
    each = [member(ag.prepare(member, photo)).detach().numpy() for member in members]
    assert np.abs(each[0] - each[1]).max() > 0.01
    # A mean of three numbers, and the preprocessing in another order of the same two operations: a few roundings.
    np.testing.assert_allclose(found, np.mean(each, 0), rtol=0, atol=8 * np.finfo(np.float32).eps)
    assert [x.name for x in ag.layers(both)][:2] == ["0", "0.0"]


def test_an_image_for_an_ensemble_excites_all_members_in_their_own_layers() -> None:
    members = [network(0, 0.5), network(1, 0.2)]
    both = ag.ensemble(members)
    options = {"size": 12, "steps": 3, "recipe": "jitter", "dtype": "float32"}
    classes = ag.visualize(both, ag.objectives.logit(["dog", "owl"]), **options)
    assert classes.labels == ("dog", "owl")
    assert classes.shape == (2, 12, 12, 3)  # the card's size would be 12 x 16
    assert (classes.scores[-1] > classes.scores[0]).all()
    # The score of a sum over layers is the sum of the scores that the members give to one image.
    objectives = [ag.objectives.channel(f"{i}.1", 2) for i in (0, 1)]
    start = np.random.default_rng(1).random((12, 12, 3)).astype(np.float32)
    quick = {"start": start, "steps": 1, "recipe": ag.recipes.fourier(views=ag.recipes.classic().views)}
    summed = ag.visualize(both, objectives[0] + objectives[1], **quick).scores[0]
    single = [ag.visualize(both, x, **quick).scores[0] for x in objectives]
    own = [
        ag.visualize(x, ag.objectives.channel("1", 2), **quick, dtype="float32").scores[0] for x in members
    ]  # the preprocessing of each is inside the ensemble, and outside alone
    np.testing.assert_allclose(summed, np.sum(single, 0), rtol=0, atol=1e-6)
    np.testing.assert_allclose(single, own, rtol=0, atol=1e-6)


def test_members_that_know_other_classes_have_no_common_names_and_give_all_outputs() -> None:
    both = ag.ensemble([network(0, 0.5), network(1, 0.5, NAMES[:2])])
    outputs = both(ag.prepare(both, np.zeros((1, 12, 16, 3), np.float32)))
    assert [tuple(x.shape) for x in outputs] == [(1, 3), (1, 2)]
    found = ag.visualize(both, ag.objectives.logit(1, layer="1.4"), size=12, steps=1)
    assert found.labels == ("class 1",)


def test_what_cannot_be_one_is_told() -> None:
    with pytest.raises(InvalidInput, match=r"^an ensemble is made of two models or more, not of 1$"):
        ag.ensemble([network(0, 0.5)])
    with pytest.raises(
        InvalidInput, match=r"^an ensemble is of models that take the same images, not NCHW, 1 channels"
    ):
        ag.ensemble([network(0, 0.5), network(0, 0.5, channels=1)])
