"""Layers chosen by the framework's own objects, by Layer objects and by indices of any kind; records asked by them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import agnostic as ag
from agnostic.errors import InvalidInput, UnknownName


def net() -> nn.Sequential:
    return nn.Sequential(nn.Sequential(nn.Linear(3, 4), nn.ReLU()), nn.Linear(4, 2))


X = torch.ones(2, 3)


def test_layers_are_chosen_by_themselves() -> None:
    model = net()
    listed = {layer.name: layer for layer in ag.layers(model, X)}
    # A Sequential can be iterated over, and is one layer all the same.
    for chosen in (model[0], [model[0]], listed["0"], [listed["0"]], "0"):
        assert list(ag.capture(model, X, chosen)) == ["0"]
    assert list(ag.capture(model, X, [model[1], listed["0.0"], "0.1", np.int64(0)])) == ["1", "0.0", "0.1", "0"]
    with ag.watch(model, (model[1], listed["0.1"])) as record:
        model(X)
    assert list(record) == ["1", "0.1"]
    assert ag.submodel(model, [model[0][0], model[1]])(X)[0].shape == (2, 4)


def test_records_are_asked_by_place_and_by_layers() -> None:
    model = net()
    record = ag.capture(model, X, ["1", "0.0"])
    for found in (record, record.numpy()):
        for key, name in ((0, "1"), (np.int64(-1), "0.0"), (model[0][0], "0.0"), (record.layer("1"), "1")):
            assert found[key] is found[name]
            assert found.axes(key) == found.axes(name)
        assert model[1] in found
        assert model[0] not in found
    with pytest.raises(UnknownName, match="no layer 2 in this record: it has 2"):
        record[2]
    with pytest.raises(UnknownName, match="'a ReLU' is not recorded here"):
        record[nn.ReLU()]


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (nn.ReLU(), "or a layer of the model, not by a ReLU"),
        ([nn.Sequential()], "or a layer of the model, not by a Sequential"),
        (None, "not by None"),
        (2.0, "not by 2.0"),
        ([True], "not by True"),
        (b"0", "not by"),
    ],
)
def test_what_is_no_layer_of_the_model_is_one_sentence(chosen: object, message: str) -> None:
    for verb in (
        lambda: ag.capture(net(), X, chosen),
        lambda: ag.submodel(net(), chosen),
        lambda: ag.watch(net(), chosen).__enter__(),
    ):
        with pytest.raises(InvalidInput, match=message):
            verb()
