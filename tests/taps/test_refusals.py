"""Wrong inputs: one sentence each, and nothing that a model itself takes is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import agnostic as ag
from agnostic.errors import InvalidInput


class Nested(nn.Module):
    """Takes whatever its function makes of it, as detection models take lists of images."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, images: list[torch.Tensor]) -> torch.Tensor:
        return self.conv(torch.stack(images))


def net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 2)).train()


GOOD = np.zeros((2, 3, 8, 8), np.float32)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (np.zeros((2, 8, 8, 3), np.float32), r"float32 \(2, 8, 8, 3\): it fails at layer '0', which takes float32 "
         r"\(N, 3, H, W\) .*; images go through agnostic.prepare"),
        (GOOD.astype(np.uint8), r"does not take uint8 \(2, 3, 8, 8\): .*prepare"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), r"does not take uint8 \(2, 3, 8, 8\)"),
        (np.zeros((2, 3, 9, 9), np.float32), r"it fails at layer '3', which takes float32 \(\.\.\., 144\)"),
        (np.zeros((3, 3), np.float32), r"float32 \(3, 3\): it fails at layer '0'"),
        (np.zeros((2, 3, 2, 2), np.float32), "at layer '0'"),
        (GOOD.astype(complex), r"complex128 \(2, 3, 8, 8\)"),
        (GOOD > 0, r"bool \(2, 3, 8, 8\)"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.float16), r"does not take float16"),
        (GOOD.tolist(), r"a list of 2 \(a list of 3"),
        ([[1.0, 2.0], [3.0]], "a list of 2"),
        (None, "does not take None"),
        ("photo.png", "does not take a str"),
        (3, "does not take 3"),
        ({"image": GOOD}, r"\{'image': float32"),
        ((GOOD, GOOD), r"\(float32 \(2, 3, 8, 8\), float32"),
        (np.array([GOOD, None], object), r"array of numbers of up to 64 bits, not of object \(2,\)"),
        (np.array(["a"]), "not of <U1"),
        (np.array(["2020-01-01"], "datetime64[D]"), "not of datetime64"),
        (GOOD.astype(np.longdouble), "not of float128|not of longdouble"),
        (np.zeros(2, [("a", "f4")]), "array of numbers"),
        (np.ma.masked_less(GOOD, 1), r"masked array, .*give x\.filled"),
        (np.zeros((2, 3, 8, 8)).tolist(), r"a list of 2 \(a list of 3 \(\.\.\.\), a list of 3 \(\.\.\.\)\): "),
    ],
)  # fmt: skip
def test_a_wrong_input_is_one_sentence(inputs: Any, message: str) -> None:
    model = net()
    verbs = [lambda: ag.capture(model, inputs, "3"), lambda: ag.layers(model, inputs)]
    for verb in verbs[: 1 if inputs is None else 2]:  # layers() without inputs finds some
        with pytest.raises(InvalidInput, match=message) as raised:
            verb()
        assert "\n" not in str(raised.value)
    assert model.training


@pytest.mark.parametrize(
    "inputs",
    [
        GOOD.astype(">f4"), GOOD.astype(np.float64), GOOD.astype(np.float16), GOOD[::-1, :, ::-1], GOOD[:0],
        np.broadcast_to(GOOD[:1], (4, 3, 8, 8)), np.ma.masked_array(GOOD), torch.from_numpy(GOOD),
    ],
    ids=["big-endian", "float64", "float16", "strides", "no images", "read-only", "masked", "tensor"],
)  # fmt: skip
def test_what_the_model_takes_is_not_refused(inputs: Any) -> None:
    record = ag.capture(net(), inputs, "3")
    assert record["3"].shape == (len(inputs), 2)
    assert record.numpy()["3"].shape == (len(inputs), 2)


def test_a_model_that_takes_a_list_is_given_one() -> None:
    images = [torch.zeros(3, 8, 8), torch.zeros(3, 8, 8)]
    assert ag.capture(Nested(), images, "conv")["conv"].shape == (2, 4, 6, 6)
    assert ag.capture(Nested(), [GOOD[0], GOOD[1]], "conv")["conv"].shape == (2, 4, 6, 6)


def test_nested_tensors_are_inputs() -> None:
    model = nn.Sequential(nn.Linear(8, 3))
    rows = [torch.ones(3, 8), torch.zeros(2, 8)]
    for _ in range(2):  # the first run is watched more closely than the next ones
        record = ag.capture(model, torch.nested.nested_tensor(rows, layout=torch.jagged), "0")
        assert [x.shape for x in record.numpy()["0"]] == [(3, 3), (2, 3)]
    with pytest.raises(InvalidInput, match="does not take a Tensor: it fails"):  # the older kind has no shape
        ag.capture(model, torch.nested.nested_tensor(rows, layout=torch.strided), "0")


def test_what_chooses_no_layer_is_not_blamed_on_the_inputs() -> None:
    model = net()
    record = ag.capture(model, GOOD, ["0", "1"])
    for wrong in (torch.tensor(0), torch.tensor([0]), True, model[0].weight):
        with pytest.raises(InvalidInput, match="a layer is chosen by a name"):
            ag.capture(model, GOOD, wrong)
    with pytest.raises(ag.UnknownName, match="not recorded here"):
        record[True]


def test_a_lack_of_memory_is_no_wrong_input() -> None:
    class Large(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Identity()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise torch.OutOfMemoryError("out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        ag.capture(Large(), torch.ones(1), "layer")


# Models that are not trained any more ---------------------------------------------------------------------------------
def test_models_and_runs_in_inference_mode() -> None:
    with torch.inference_mode():
        made = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
    x = torch.ones(1, 3)
    for _ in range(2):
        assert ag.capture(made, x, "0")["0"].shape == (1, 2)

    class Inside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 2), nn.ReLU(inplace=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.inference_mode():
                return self.b(self.a(x))

    model = Inside()
    expected = model.a(x).detach()
    for _ in range(3):
        torch.testing.assert_close(ag.capture(model, x, ["a", "b"])["a"], expected)
    with ag.watch(model, "a", nonfinite="raise") as record, torch.inference_mode():
        model(x)
    torch.testing.assert_close(record["a"], expected)
    with torch.inference_mode():
        assert ag.submodel(model, "a")(x).shape == (1, 2)
        assert ag.capture(model, torch.ones(1, 3), "a")["a"].shape == (1, 2)


def test_what_torch_export_made_is_looked_into() -> None:
    x = torch.ones(1, 3)
    exported = torch.export.export(nn.Sequential(nn.Linear(3, 2), nn.ReLU()), (x,), strict=False)
    model = torch.export.unflatten(exported)
    assert ag.capture(model, x, "0")["0"].shape == (1, 2)
    flat = exported.module()
    before = [module.training for module in flat.modules()]
    with pytest.raises(ag.UnknownName, match="no layer '0'"):  # one flat graph, that calls no layers
        ag.capture(flat, x, "0")
    with ag.watch(flat, nonfinite="raise"):
        flat(x)
    assert [module.training for module in flat.modules()] == before
