"""Counting floating-point operations of layers by their kinds and shapes: two for each multiply-add.

Keras' operations are not seen on all engines, and shapes are computed without values where the engine can; so what a
layer of the user's own multiplies is not known. See :class:`agnostic.layers.Layer`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
from keras import layers as kl
from keras import tree

Shape = tuple[int, ...]


def flops(layer: keras.Layer, inputs: Any, output: Any) -> int | None:
    """What a call of a layer costs, without its children; None where that is not known.

    Args:
        inputs: the arguments of the call, in any structure.
    """
    shapes = [tuple(x.shape) for x in tree.flatten((inputs, output)) if hasattr(x, "shape")]
    if any(None in shape for shape in shapes):
        return None
    given = [tuple(x.shape) for x in tree.flatten(inputs) if hasattr(x, "shape")]
    made = next((tuple(x.shape) for x in tree.flatten(output) if hasattr(x, "shape")), ())
    for cls in type(layer).__mro__:
        if cls in _COUNTS:
            return 2 * _COUNTS[cls](layer, given, made)
    if isinstance(layer, kl.RNN | kl.TimeDistributed):
        return None  # what it calls for each step is seen once, or not at all
    if isinstance(layer, _FREE) or layer._flatten_layers(False, False):
        return 0
    # A matrix or a kernel that this table does not know what is done with.
    return None if any(len(v.shape) > 1 for v in layer.weights) else 0


Count = Callable[[Any, list[Shape], Shape], int]
"""Multiply-adds, of a layer, the shapes of its inputs, and that of its output."""


def _positions(layer: Any, shape: Shape) -> int:
    """Of a batch of arrays with channels, the number of places."""
    channels = 1 if layer.data_format == "channels_first" else len(shape) - 1
    return math.prod(shape) // max(shape[channels], 1)


def _size(variable: Any) -> int:
    return math.prod(variable.shape)


def _convolution(layer: Any, given: list[Shape], made: Shape) -> int:
    return _positions(layer, made) * _size(layer.kernel)


def _transposed(layer: Any, given: list[Shape], made: Shape) -> int:
    return _positions(layer, given[0]) * _size(layer.kernel)


def _separable(layer: Any, given: list[Shape], made: Shape) -> int:
    return _positions(layer, made) * (_size(layer.depthwise_kernel) + _size(layer.pointwise_kernel))


def _dense(layer: Any, given: list[Shape], made: Shape) -> int:
    return math.prod(given[0][:-1]) * _size(layer.kernel)


def _einsum_dense(layer: Any, given: list[Shape], made: Shape) -> int:
    # Each letter of the equation once: those of the kernel, and those of the output that are not the kernel's.
    kernel, _, result = layer.equation.partition(",")[2].partition("->")
    ellipsis = len(made) - len(result.replace("...", ""))
    letters = result.replace("...", "." * ellipsis)
    return _size(layer.kernel) * math.prod(n for letter, n in zip(letters, made, strict=True) if letter not in kernel)


def _recurrent(layer: Any, given: list[Shape], made: Shape) -> int:
    return math.prod(given[0][:-1]) * (_size(layer.cell.kernel) + _size(layer.cell.recurrent_kernel))


def _heads(layer: Any, given: list[Shape], made: Shape) -> int:
    # The projections are layers inside, and count there.
    query, value = given[0], given[min(1, len(given) - 1)]
    depths = layer._key_dim + layer._value_dim
    total: int = query[0] * layer._num_heads * math.prod(query[1:-1]) * math.prod(value[1:-1]) * depths
    return total


def _dot_attention(layer: Any, given: list[Shape], made: Shape) -> int:
    query, value = given[:2]
    return math.prod(query[:-1]) * value[-2] * (query[-1] + value[-1])


_COUNTS: dict[type, Count] = {
    **{getattr(kl, f"{kind}Conv{n}D"): _convolution for kind in ("", "Depthwise") for n in (1, 2, 3)
       if hasattr(kl, f"{kind}Conv{n}D")},
    **{getattr(kl, f"Conv{n}DTranspose"): _transposed for n in (1, 2, 3)},
    **{getattr(kl, f"SeparableConv{n}D"): _separable for n in (1, 2)},
    kl.Dense: _dense, kl.EinsumDense: _einsum_dense,
    kl.SimpleRNN: _recurrent, kl.LSTM: _recurrent, kl.GRU: _recurrent,
    kl.MultiHeadAttention: _heads, kl.Attention: _dot_attention,
}  # fmt: skip
_FREE = (kl.Embedding, kl.PReLU, kl.SimpleRNNCell, kl.LSTMCell, kl.GRUCell)
"""Kinds whose weights are looked up or multiplied number by number, or count in the layer around them."""
