"""Counting floating-point operations while a model runs: two for each multiply-add. See :class:`agnostic.layers.Layer`.

Seen are operators, so products that are written as functions count as those in modules do. Without gradients some
operators arrive whole (linear, matmul), and otherwise as what they are made of (addmm, bmm): both are known.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class Flops(TorchDispatchMode):
    """Inside, ``total`` grows by what each operator costs."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # As in agnostic_torch.taps: True would import torch._dynamo, for 4 seconds, with the first operation.
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        count = _COUNTS.get(func._schema.name.removeprefix("aten::"))
        if count is not None and isinstance(output, Tensor | tuple):
            self.total += 2 * count(args, output[0] if isinstance(output, tuple) else output)
        return output


Count = Callable[[tuple[Any, ...], Tensor], int]
"""Multiply-adds, of an operator's arguments and its output."""


def _product(first: int) -> Count:
    """Of a matrix product whose left factor stands at this place: each output sums over the length of its last axis."""
    return lambda args, output: output.numel() * int(args[first].shape[-1])


def _convolution(transposed: bool | None = None) -> Count:
    """Each position (of the input, for a transposed one) meets every number of the kernel once."""

    def count(args: tuple[Any, ...], output: Tensor) -> int:
        x, kernel = args[0], args[1]
        backwards = bool(args[6]) if transposed is None else transposed
        positions = (x if backwards else output).shape[-(kernel.ndim - 2) :]
        batch = x.shape[0] if x.ndim == kernel.ndim else 1
        return int(batch * math.prod(positions) * kernel.numel())

    return count


def _attention(args: tuple[Any, ...], output: Tensor) -> int:
    """Queries times keys, and weights times values."""
    query, key, value = args[:3]
    return int(math.prod(query.shape[:-1]) * key.shape[-2] * (query.shape[-1] + value.shape[-1]))


def _einsum(args: tuple[Any, ...], output: Tensor) -> int:
    """Of two operands; those of more are multiplied in an order that is not known here, and count as one product."""
    left = args[0].replace(" ", "").partition("->")[0].split(",")
    if len(left) < 2 or "." in args[0]:
        return 0
    pairs = (
        (letter, n) for word, x in zip(left, args[1], strict=True) for letter, n in zip(word, x.shape, strict=True)
    )
    return math.prod(dict(pairs).values())


def _recurrent(args: tuple[Any, ...], output: Tensor) -> int:
    """Every step of every sequence meets both matrices."""
    return int(math.prod(args[0].shape[:-1]) * (args[1].numel() + args[2].numel()))


def _recurrent_whole(place: int) -> Count:
    """Of an operator that is given all weights of all layers, at this place of its arguments."""
    return lambda args, output: int(math.prod(args[0].shape[:-1]) * sum(w.numel() for w in args[place] if w.ndim == 2))


_COUNTS: Mapping[str, Count] = {
    "mm": _product(0), "bmm": _product(0), "mv": _product(0), "matmul": _product(0), "linear": _product(0),
    "addmm": _product(1), "addbmm": lambda args, output: int(args[1].numel() * args[2].shape[-1]),
    "baddbmm": _product(1), "addmv": _product(1), "dot": _product(0), "vdot": _product(0), "inner": _product(0),
    "bilinear": lambda args, output: int(math.prod(output.shape[:-1]) * args[2].numel()), "einsum": _einsum,
    "convolution": _convolution(), "_convolution": _convolution(), "mkldnn_convolution": _convolution(False),
    **{f"conv{n}d": _convolution(False) for n in (1, 2, 3)},
    **{f"conv_transpose{n}d": _convolution(True) for n in (1, 2, 3)},
    "scaled_dot_product_attention": _attention, "_scaled_dot_product_flash_attention_for_cpu": _attention,
    "_scaled_dot_product_flash_attention": _attention, "_scaled_dot_product_efficient_attention": _attention,
    "_scaled_dot_product_cudnn_attention": _attention, "_scaled_dot_product_attention_math": _attention,
    "mkldnn_rnn_layer": _recurrent, "_cudnn_rnn": _recurrent_whole(1),
    "lstm": _recurrent_whole(2), "gru": _recurrent_whole(2), "rnn_tanh": _recurrent_whole(2),
    "rnn_relu": _recurrent_whole(2),
}  # fmt: skip
"""By operator."""
