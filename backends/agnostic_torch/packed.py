"""Packed sequences, which ``torch.export`` cannot follow, kept as padded arrays with the length of each sequence.

A packed sequence has as many numbers as its sequences have together, which depends on lengths: values, not shapes.
Inside :func:`padded` packing keeps the padded array, recurrent layers call one operator that is told the lengths, and
unpacking gives zeros from each length on, as torch does.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from agnostic.patching import patched

OPERATOR = "padded_recurrent"

torch.library.define(
    f"agnostic::{OPERATOR}",
    "(Tensor input, Tensor lengths, Tensor[] hx, Tensor[] params, str kind, bool has_biases, int num_layers, "
    "bool bidirectional, bool batch_first) -> Tensor[]",
)


@torch.library.register_fake(f"agnostic::{OPERATOR}")  # type: ignore[untyped-decorator]
def _shapes(
    x: Tensor, lengths: Tensor, hx: list[Tensor], params: list[Tensor], kind: str, has_biases: bool, num_layers: int,
    bidirectional: bool, batch_first: bool,
) -> list[Tensor]:  # fmt: skip
    return [x.new_empty(*x.shape[:2], hx[0].shape[-1] * (2 if bidirectional else 1)), *map(torch.empty_like, hx)]


def longest(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[int]:
    """How long the longest sequence is each time that a model packs some."""
    found: list[int] = []
    if not any(isinstance(module, nn.RNNBase) for module in model.modules()):
        return found

    def packed(original: Any, x: Tensor, lengths: Tensor, batch_first: bool) -> Any:
        found.append(int(lengths.max()))
        return original(x, lengths, batch_first)

    with patched([(torch._VF, "_pack_padded_sequence", packed)]), torch.no_grad():
        model(*args, **kwargs)
    return found


@contextlib.contextmanager
def padded(counts: list[int]) -> Iterator[None]:
    """Inside, sequences that are packed stay padded.

    Args:
        counts: see :func:`longest`; without any nothing is changed.
    """
    if not counts:
        yield
        return
    left = iter(counts)
    # By the tensor that stands for the number of sequences at each time, which is kept so that no other gets its id.
    known: dict[int, tuple[Tensor, Tensor, bool]] = {}

    def pack(original: Any, x: Tensor, lengths: Tensor, batch_first: bool) -> tuple[Tensor, Tensor]:
        sizes = torch.zeros(next(left), dtype=torch.int64)
        known[id(sizes)] = (sizes, lengths, batch_first)
        return x, sizes

    def unpack(
        original: Any, data: Tensor, sizes: Tensor, batch_first: bool, value: float, total: int
    ) -> tuple[Tensor, Tensor]:
        _, lengths, laid = known[id(sizes)]
        x = data if laid else data.transpose(0, 1)
        x = x[:, : len(sizes)]
        x = nn.functional.pad(x, (0, 0) * (x.dim() - 2) + (0, total - x.shape[1]))
        if value:
            seen = torch.arange(total)[None] < lengths[:, None]
            x = torch.where(seen.reshape(*seen.shape, *(1,) * (x.dim() - 2)), x, value)
        return (x if batch_first else x.transpose(0, 1)), lengths

    def forward(original: Any, layer: nn.RNNBase, x: Any, hx: Any = None) -> Any:
        if not isinstance(x, PackedSequence) or id(x.batch_sizes) not in known:
            return original(layer, x, hx)
        _, lengths, laid = known[id(x.batch_sizes)]
        states = [hx] if isinstance(hx, Tensor) else list(hx or _zeros(layer, x.data, laid))
        if hx is not None and x.sorted_indices is not None:
            states = [state.index_select(1, x.sorted_indices) for state in states]
        mode = layer.mode.lower()
        # By name: the list that a layer keeps of them is not what torch.export knows as its parameters.
        weights = [getattr(layer, name) for name in layer._flat_weights_names]
        y, *last = getattr(torch.ops.agnostic, OPERATOR)(
            x.data, lengths, states, weights, mode, layer.bias, layer.num_layers, layer.bidirectional, laid
        )
        if x.unsorted_indices is not None:
            last = [state.index_select(1, x.unsorted_indices) for state in last]
        packed = PackedSequence(y, x.batch_sizes, x.sorted_indices, x.unsorted_indices)
        return packed, (tuple(last) if len(last) > 1 else last[0])

    layers: list[tuple[Any, str, Any]] = [(kind, "forward", forward) for kind in (nn.RNN, nn.LSTM, nn.GRU)]
    functions: list[tuple[Any, str, Any]] = [
        (torch._VF, "_pack_padded_sequence", pack),
        (torch._VF, "_pad_packed_sequence", unpack),
    ]
    with patched([*layers, *functions]):
        yield


def _zeros(layer: nn.RNNBase, x: Tensor, batch_first: bool) -> list[Tensor]:
    batch = x.shape[0 if batch_first else 1]
    count = layer.num_layers * (2 if layer.bidirectional else 1)
    sizes = [layer.proj_size or layer.hidden_size, *([layer.hidden_size] if isinstance(layer, nn.LSTM) else [])]
    return [x.new_zeros(count, batch, size) for size in sizes]
