"""Wrong inputs and layers chosen by themselves, on the engine of this process."""

from __future__ import annotations

import http.client
import urllib.error
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers as kl

import agnostic as ag

GOOD = np.zeros((2, 12, 12, 3), np.float32)
X, Y = np.zeros((2, 4), np.float32), np.zeros((2, 5), np.float32)


class Own(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = kl.Conv2D(4, 3, name="conv"), kl.Dense(2, name="head")

    def call(self, x: Any) -> Any:
        return self.head(keras.ops.mean(self.conv(x), (1, 2)))


def _graph() -> keras.Model:
    image = keras.Input((12, 12, 3))
    return keras.Model(image, kl.Dense(3, name="head")(kl.Flatten()(kl.Conv2D(4, 3, name="conv")(image))))


def _two() -> keras.Model:
    a, b = keras.Input((4,), name="a"), keras.Input((5,), name="b")
    return keras.Model({"a": a, "b": b}, kl.Dense(3, name="head")(kl.Concatenate()([a, b])))


own = Own()
own(GOOD)
graph, two = _graph(), _two()
sequential = keras.Sequential([keras.Input((12, 12, 3)), kl.Conv2D(4, 3, name="conv")])


def refused(message: str, model: keras.Model, inputs: Any, layer: Any = 0) -> None:
    with pytest.raises(ag.InvalidInput, match=message) as raised:
        ag.capture(model, inputs, layer)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 500


@pytest.mark.parametrize("model", [graph, own, sequential], ids=["graph", "own", "sequential"])
def test_a_wrong_input_is_one_sentence(model: keras.Model) -> None:
    takes = "" if model is own else r": it takes float32 \(None, 12, 12, 3\)"
    for inputs, given in [
        (np.zeros((2, 3, 12, 12), np.float32), r"float32 \(2, 3, 12, 12\)"),
        (GOOD[0], r"float32 \(12, 12, 3\)"),
        (GOOD[None], r"float32 \(1, 2, 12, 12, 3\)"),
        (np.zeros((2, 12, 12, 4), np.float32), r"float32 \(2, 12, 12, 4\)"),
        (GOOD.tolist(), r"a list of 2 \(a list of 12 \(\.\.\.\), a list of 12 \(\.\.\.\)\)"),
        ([GOOD[0], GOOD[1]], r"a list of 2 \(float32 \(12, 12, 3\)"),
        ((GOOD, GOOD), r"\(float32 \(2, 12, 12, 3\), float32"),
        (None, "None"),
        ("photo.png", "a str"),
        (3, "3"),
    ]:
        # PyTorch's own layers name themselves in its errors.
        refused(f"does not take {given}.*(?:{takes}|: it fails at layer)", model, inputs, "conv")
    for inputs in (np.array([GOOD, None], object), np.array(["a"]), np.array(["2020"], "datetime64[D]")):
        refused("array of numbers of up to 64 bits, not of", model, inputs, "conv")
    refused("masked", model, np.ma.masked_less(GOOD, 1), "conv")


def test_what_keras_would_drop_is_refused() -> None:
    refused(r"complex64 .*\(the model's inputs are real numbers\)", graph, GOOD.astype(np.complex64))
    refused(r"the model has 1 input, and is given 2", sequential, (GOOD, GOOD))
    refused(r"it takes float32 \(None, 4\), float32 \(None, 5\)", two, {"a": Y, "b": X})
    refused(r"\{'a': float32 \(2, 4\)\}: it takes", two, {"a": X})


def test_what_the_model_takes_is_not_refused() -> None:
    for inputs in (GOOD.astype(">f4"), GOOD.astype(np.float64), GOOD.astype(np.uint8), GOOD[:, ::-1], GOOD > 0):
        assert tuple(ag.capture(graph, inputs, "conv")["conv"].shape) == (2, 10, 10, 4)
    for inputs in ({"a": X, "b": Y}, (X, Y), [X, Y]):
        assert tuple(ag.capture(two, inputs, "head")["head"].shape) == (2, 3)
    try:  # no images: an empty record, or one sentence where the engine cannot
        assert ag.capture(graph, GOOD[:0], "conv")["conv"].shape[0] == 0
    except ag.InvalidInput as error:
        assert "does not take float32 (0, 12, 12, 3)" in str(error)  # noqa: PT017


def test_layers_takes_and_refuses_the_same() -> None:
    assert [x.name for x in ag.layers(two, {"a": X, "b": Y})][-1] == "head"
    for inputs in (np.zeros((2, 3, 12, 12), np.float32), GOOD[0], "photo.png", (GOOD, GOOD), [["a"]]):
        with pytest.raises(ag.InvalidInput, match="does not take") as raised:
            ag.layers(graph, inputs)
        assert "\n" not in str(raised.value)


def test_layers_are_chosen_by_themselves() -> None:
    conv, head = own.conv, own.head
    record = ag.capture(own, GOOD, [head, conv, 0])
    assert list(record) == ["head", "conv"]
    assert record[conv] is record["conv"] is record[1] is record[-1]
    assert conv in record
    assert list(ag.capture(graph, GOOD, graph.layers[1:3])) == [x.name for x in graph.layers[1:3]]
    for model in (own, graph):
        layer = model.conv if model is own else model.get_layer("conv")
        with ag.watch(model, layer) as record:
            model(GOOD)
        assert tuple(record[layer].shape) == (2, 10, 10, 4)
        output = keras.ops.convert_to_numpy(ag.submodel(model, layer)(GOOD))
        np.testing.assert_array_equal(output, record.numpy()["conv"])
    for wrong in (kl.Dense(3), graph, None, True, 1.5, conv.kernel, graph.output):
        refused("a layer is chosen by a name, .* or a layer of the model, not by", own, GOOD, wrong)
    for wrong in (kl.Dense(3), None, True, graph):
        with pytest.raises(ag.UnknownName, match="is not recorded here"):
            record[wrong]


@pytest.mark.parametrize(
    "failure",
    [
        urllib.error.URLError("no such host"),
        http.client.IncompleteRead(b"half"),
        None,
    ],
    ids=lambda x: type(x).__name__,
)
def test_weights_of_keras_that_cannot_be_fetched(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], failure: Exception | None
) -> None:
    def retrieve(origin: str, path: str, progress: Any) -> None:
        if failure is not None:
            raise failure
        Path(path).write_bytes(b"not the file of this checksum")

    monkeypatch.setattr("keras.src.utils.file_utils.urlretrieve", retrieve)
    monkeypatch.setattr("keras.src.utils.file_utils.config.keras_home", lambda: str(tmp_path))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    with pytest.raises(ag.InvalidWeights, match=r"cannot get the weights of keras:MobileNet \(.*give their file"):
        ag.load("keras:MobileNet")
    assert capsys.readouterr().out == ""  # standard output is the answer of a command


def test_a_second_engine_in_one_process_is_one_sentence() -> None:
    engine = keras.config.backend()
    other = "jax" if engine == "torch" else "torch"
    with pytest.raises(ag.InvalidInput, match=f"loaded with the engine '{engine}'.*start another for '{other}'"):
        ag.load("efficientnet_lite0", backend="keras", engine=other, weights="random")
