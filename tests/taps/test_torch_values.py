"""Records of tensors that are not dense arrays of numbers, and of layers that PyTorch computes by other ways."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import agnostic as ag
from agnostic.errors import InvalidInput

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*(nested tensors|quantiz|Sparse|sparse|ComplexHalf)", "ignore:.*beta state"
)

X = torch.tensor([[0.5, 1.0, 0.0, 2.0], [0.0, 0.25, 1.5, 0.5]])


class Converted(nn.Module):
    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function, self.layer = function, nn.Identity()

    def forward(self, x: Tensor) -> Any:
        return self.layer(self.function(x))


def nested(x: Tensor, **options: Any) -> Tensor:
    return torch.nested.nested_tensor([x[0], x[1, :3]], **options)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.quantize_per_tensor(x, 0.25, 0, torch.quint8),
        lambda x: torch.quantize_per_channel(x, torch.tensor([0.25, 0.125]), torch.zeros(2), 0, torch.qint8),
        Tensor.to_sparse,
        Tensor.to_sparse_csr,
        lambda x: x.to(torch.float8_e4m3fn),
        lambda x: torch.complex(x, torch.zeros_like(x)).conj(),
        lambda x: torch.complex(x, torch.zeros_like(x)).to(torch.complex32),
        nested,
        lambda x: nested(x, layout=torch.jagged),
    ],
    ids=["quantized", "per channel", "sparse", "csr", "float8", "conjugate", "complex32", "nested", "jagged"],
)
def test_any_tensor_can_be_recorded_printed_and_turned_into_numpy(function: Callable[[Tensor], Any]) -> None:
    model = Converted(function)
    with ag.watch(model, "layer", nonfinite="raise") as watched, ag.watch(model, "layer", detach=True) as detached:
        model(X)
    ag.layers(model, X)
    for record in (ag.capture(model, X, "layer"), watched, detached):
        assert "layer" in repr(record)
        found = record.numpy()["layer"]
        if isinstance(found, list):
            np.testing.assert_array_equal(found[0], X[0])
            np.testing.assert_array_equal(found[1], X[1, :3])
        else:
            np.testing.assert_array_equal(found, X)


@pytest.mark.parametrize("function", [Tensor.to_sparse, nested, lambda x: x.to(torch.float8_e5m2), torch.complex])
def test_what_is_not_finite_in_them_is_found(function: Callable[..., Any]) -> None:
    model = Converted((lambda x: torch.complex(x, x)) if function is torch.complex else function)
    with pytest.raises(ag.NonFinite, match="'layer'"), ag.watch(model, nonfinite="raise"):
        model(X / X)


def test_the_meta_device_has_no_numbers() -> None:
    record = ag.capture(nn.Sequential(nn.Linear(4, 2, device="meta")), torch.ones(1, 4, device="meta"), "0")
    assert record["0"].shape == (1, 2)
    with pytest.raises(InvalidInput, match="meta device, which keeps no numbers"):
        record.numpy()


# The fused transformer ------------------------------------------------------------------------------------------------
class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor, padding: Tensor) -> Tensor:
        return self.head(self.encoder(x, src_key_padding_mask=padding))


def test_a_padded_transformer_is_recorded_layer_by_layer_each_time() -> None:
    model = Encoder().eval()
    x, padding = torch.rand(2, 5, 8), torch.zeros(2, 5, dtype=torch.bool)
    padding[1, 3:] = True
    names = ["encoder.layers.0", "encoder.layers.1.linear1", "encoder", "head"]
    records = [ag.capture(model, (x, padding), names).numpy() for _ in range(3)]
    submodel = ag.submodel(model, names)
    with torch.no_grad(), ag.watch(model, names, nonfinite="raise") as watched:
        model(x, padding)
    with torch.no_grad():
        cut = [dict(zip(names, (y.numpy() for y in submodel(x, padding)), strict=True)) for _ in range(2)]
    assert [y.calls for y in ag.layers(model, (x, padding)) if y.name in names] == [1, 1, 1, 1]
    for record in (*records, *cut, watched.numpy()):
        assert record["encoder"].shape == (2, 5, 8)
        for name in names:
            np.testing.assert_array_equal(record[name], records[0][name])
    assert torch.backends.mha.get_fastpath_enabled()
