"""Recurrent layers, one layer and direction at a time. Axes are (time, batch, features)."""

from __future__ import annotations

from typing import Any

import numpy as np

from agnostic.program.nodes import Array
from agnostic.program.vocabulary import Shape, operator, size
from agnostic.reference.activations import activate


def _sigmoid(x: Array) -> Array:
    return activate("sigmoid", x)


def _shape(
    x: Shape, h: Any, kernel: Shape, recurrent: Shape, *biases: Any, batch_first: bool = False, **attributes: Any
) -> Any:
    return (*x[:2], recurrent[1]), (x[0 if batch_first else 1], recurrent[1])


def _lstm_shape(
    x: Shape, h: Any, c: Any, kernel: Shape, recurrent: Shape, *rest: Any, batch_first: bool = False, **attributes: Any
) -> Any:
    batch = x[0 if batch_first else 1]
    return (*x[:2], recurrent[1]), (batch, recurrent[1]), (batch, recurrent[0] // 4)


def _flops(x: Shape, h: Any, kernel: Shape, recurrent: Shape, *rest: Any, out: Any, **attributes: Any) -> int:
    return 2 * x[0] * x[1] * (size(kernel) + size(recurrent))


def _lstm_flops(
    x: Shape, h: Any, c: Any, kernel: Shape, recurrent: Shape, input_bias: Any = None, recurrent_bias: Any = None,
    projection: Any = None, mask: Any = None, *, out: Any, **attributes: Any,
) -> int:  # fmt: skip
    return _flops(x, h, kernel, recurrent, out=out) + 2 * x[0] * x[1] * size(projection or (0,))


def _started(state: Array | None, x: Array, units: int) -> Array:
    return np.zeros((x.shape[1], units), x.dtype) if state is None else state


def _turned(x: Array, batch_first: bool) -> Array:
    return np.swapaxes(x, 0, 1) if batch_first else x


def _times(x: Array, reverse: bool) -> range:
    return range(len(x) - 1, -1, -1) if reverse else range(len(x))


def _chosen(mask: Array | None, t: int, new: Array, old: Array | int, batch_first: bool) -> Array:
    """What is new where the place is seen, else what was."""
    if mask is None:
        return new
    return np.where(_turned(mask, batch_first)[t].astype(bool)[:, None], new, old)


@operator(shape=_lstm_shape, flops=_lstm_flops)
def lstm(
    x: Array, h: Array | None, c: Array | None, kernel: Array, recurrent: Array, input_bias: Array | None = None,
    recurrent_bias: Array | None = None, projection: Array | None = None, mask: Array | None = None, *,
    zeros: bool = True, reverse: bool = False, batch_first: bool = False,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """The long short-term memory: all outputs, the last output and the last cell state.

    i, f, o = sigmoid, g = tanh of W x + b + R h + d, in the order i, f, g, o; c' = f c + i g; h' = o tanh(c').

    Args:
        x: (time, batch, I).
        h: (batch, O); None: zeros.
        c: (batch, units); None: zeros.
        kernel: W, (4 units, I).
        recurrent: R, (4 units, O).
        input_bias, recurrent_bias: b and d, (4 units,).
        projection: (O, units): h' is multiplied by it.
        mask: (time, batch), whether a place is seen; where it is not, the states stay. None: all places are seen.
        zeros: what is given where a place is not seen: zeros, else the state h.
        reverse: from the last time to the first.
        batch_first: x, the mask and all outputs are (batch, time, ...).

    Source: Hochreiter, Schmidhuber, 1997; Gers et al., 2000.
    """
    x = _turned(x, batch_first)
    bias = sum(b for b in (input_bias, recurrent_bias) if b is not None)
    fixed = x @ kernel.T + bias
    h, c = _started(h, fixed, recurrent.shape[1]), _started(c, fixed, len(recurrent) // 4)
    outputs = np.zeros((*x.shape[:2], h.shape[-1]), fixed.dtype)
    for t in _times(x, reverse):
        i, f, g, o = np.split(fixed[t] + h @ recurrent.T, 4, axis=-1)
        cell = _sigmoid(f) * c + _sigmoid(i) * np.tanh(g)
        new = _sigmoid(o) * np.tanh(cell)
        new = new if projection is None else new @ projection.T
        outputs[t] = _chosen(mask, t, new, 0 if zeros else h, batch_first)
        h, c = _chosen(mask, t, new, h, batch_first), _chosen(mask, t, cell, c, batch_first)
    return _turned(outputs, batch_first), h, c


@operator(shape=_shape, flops=_flops)
def gru(
    x: Array, h: Array | None, kernel: Array, recurrent: Array, input_bias: Array | None = None,
    recurrent_bias: Array | None = None, mask: Array | None = None, *, reset_after: bool = True, zeros: bool = True,
    reverse: bool = False, batch_first: bool = False,
) -> tuple[Array, Array]:  # fmt: skip
    """The gated recurrent unit: all outputs, and the last one.

    r, z = sigmoid of W x + b + R h + d; n = tanh(W x + b + r (R h + d)); h' = (1 - z) n + z h; gates in the order
    r, z, n. Without ``reset_after`` n = tanh(W x + b + R (r h) + d).

    Args:
        x: (time, batch, I).
        h: (batch, units); None: zeros.
        kernel: W, (3 units, I).
        recurrent: R, (3 units, units).
        input_bias, recurrent_bias: b and d, (3 units,).
        mask, zeros: as in ``lstm``.
        reset_after: see above.
        reverse: from the last time to the first.
        batch_first: x, the mask and all outputs are (batch, time, ...).

    Source: Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder", 2014, versions 3 and 1.
    """
    x = _turned(x, batch_first)
    fixed = x @ kernel.T + (0 if input_bias is None else input_bias)
    second = np.zeros(len(recurrent), fixed.dtype) if recurrent_bias is None else recurrent_bias
    h = _started(h, fixed, recurrent.shape[1])
    units = h.shape[-1]
    outputs = np.zeros((*x.shape[:2], units), fixed.dtype)
    for t in _times(x, reverse):
        xr, xz, xn = np.split(fixed[t], 3, axis=-1)
        gates = h @ recurrent[: 2 * units].T + second[: 2 * units]
        r, z = _sigmoid(xr + gates[:, :units]), _sigmoid(xz + gates[:, units:])
        last, offset = recurrent[2 * units :].T, second[2 * units :]
        n = np.tanh(xn + (r * (h @ last + offset) if reset_after else (r * h) @ last + offset))
        new = (1 - z) * n + z * h
        outputs[t] = _chosen(mask, t, new, 0 if zeros else h, batch_first)
        h = _chosen(mask, t, new, h, batch_first)
    return _turned(outputs, batch_first), h


@operator(shape=_shape, flops=_flops)
def rnn(
    x: Array, h: Array | None, kernel: Array, recurrent: Array, input_bias: Array | None = None,
    recurrent_bias: Array | None = None, mask: Array | None = None, *, function: str = "tanh", zeros: bool = True,
    reverse: bool = False, batch_first: bool = False,
) -> tuple[Array, Array]:  # fmt: skip
    """H' = f(W x + b + R h + d): all outputs, and the last one. Source: Elman, 1990.

    Args:
        mask, zeros: as in ``lstm``.
        function: ``"tanh"`` or ``"relu"``.
        reverse: whether it runs from the last place to the first.
        batch_first: whether the batch comes before time.
    """
    x = _turned(x, batch_first)
    bias = sum(b for b in (input_bias, recurrent_bias) if b is not None)
    fixed = x @ kernel.T + bias
    h = _started(h, fixed, recurrent.shape[1])
    outputs = np.zeros((*x.shape[:2], h.shape[-1]), fixed.dtype)
    for t in _times(x, reverse):
        new = activate(function, fixed[t] + h @ recurrent.T)
        outputs[t] = _chosen(mask, t, new, 0 if zeros else h, batch_first)
        h = _chosen(mask, t, new, h, batch_first)
    return _turned(outputs, batch_first), h
