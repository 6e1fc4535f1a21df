"""Records, without a framework: NumPy arrays stand for the native ones."""

import pickle

import numpy as np
import pytest

from agnostic.errors import InvalidInput, UnknownName
from agnostic.layers import Layer
from agnostic.taps.records import Activations


def layer(name, axes="NC", aliases=()):
    return Layer(name, "Dense", (None, 2), axes, 2, 6, aliases=aliases)


def halves(x):
    return np.asarray(x) / 2


@pytest.fixture
def record():
    dense = layer("dense.0", aliases=("fc1", "first"))
    layers = {"fc1": dense, "dense.1": layer("dense.1", None), "cell": layer("cell")}
    return Activations(layers, {"dense.0": [4], "cell": [1, 2]}, halves)


def test_it_is_a_mapping_in_the_order_of_its_layers(record):
    assert list(record) == ["fc1", "dense.1", "cell"]
    assert len(record) == 3
    assert record["fc1"] == record["dense.0"] == record["first"] == 4
    assert "first" in record
    assert "dense.2" not in record
    assert record.axes("first") == "NC"
    assert record.axes("dense.1") is None


def test_calls(record):
    assert record.calls("cell") == [1, 2]
    assert record.calls("dense.1") == []
    with pytest.raises(InvalidInput, match="layer 'cell' ran 2 times: choose one of"):
        record["cell"]
    with pytest.raises(InvalidInput, match=r"layer 'dense.1' has not run"):
        record["dense.1"]
    with pytest.raises(UnknownName, match=r"'sell' is not recorded here \(fc1, dense.1, cell\); did you mean 'cell'"):
        record.calls("sell")


def test_a_list_of_calls_that_is_changed_changes_no_record(record):
    record.calls("cell").clear()
    assert record.calls("cell") == [1, 2]


def test_numpy_keeps_everything_but_the_type(record):
    converted = record.numpy()
    assert list(converted) == list(record)
    assert converted["first"] == 2
    assert converted.calls("cell") == [0.5, 1]
    assert converted.axes("fc1") == "NC"
    # It is NumPy already.
    assert converted.numpy()["fc1"] == 2


def test_other_keys_for_a_live_record():
    calls = {"dense.0": []}
    record = Activations({"dense.0": layer("dense.0")}, calls, halves).rekeyed({"fc1": layer("dense.0")})
    calls["dense.0"].append(7)
    assert dict(record) == {"fc1": 7}


def test_it_says_what_it_holds_and_can_be_stored(record):
    assert repr(record) == "Activations(fc1: int, dense.1: not run, cell: 2 x int)"
    assert pickle.loads(pickle.dumps(record)).calls("cell") == [1, 2]
    wide = Activations({"a": layer("a")}, {"a": [np.zeros((2, 3))]}, halves)
    assert repr(wide) == "Activations(a: (2, 3))"
