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


def _flops(x: Shape, h: Any, *shapes: Any, out: Any, **attributes: Any) -> int:
    return sum(2 * x[0] * x[1] * size(matrix) for matrix in shapes if matrix is not None and len(matrix) == 2)


def _lstm_flops(x: Shape, h: Any, c: Any, *shapes: Any, out: Any, **attributes: Any) -> int:
    return _flops(x, h, *shapes, out=out)


def _started(state: Array | None, x: Array, units: int) -> Array:
    return np.zeros((x.shape[1], units), x.dtype) if state is None else state


def _turned(x: Array, batch_first: bool) -> Array:
    return np.swapaxes(x, 0, 1) if batch_first else x


def _times(x: Array, reverse: bool) -> range:
    return range(len(x) - 1, -1, -1) if reverse else range(len(x))


def _seen(t: int, lengths: Array | None) -> Any:
    return True if lengths is None else (t < lengths)[:, None]


@operator(shape=_lstm_shape, flops=_lstm_flops)
def lstm(
    x: Array, h: Array | None, c: Array | None, kernel: Array, recurrent: Array, input_bias: Array | None = None,
    recurrent_bias: Array | None = None, projection: Array | None = None, lengths: Array | None = None, *,
    reverse: bool = False, batch_first: bool = False,
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
        lengths: (batch,); from its length on, a sequence keeps its states and gives zeros. None: all are whole.
        reverse: from the last time to the first.
        batch_first: x and all outputs are (batch, time, ...).

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
        seen = _seen(t, lengths)
        h, c = np.where(seen, new, h), np.where(seen, cell, c)
        outputs[t] = np.where(seen, new, 0)
    return _turned(outputs, batch_first), h, c


@operator(shape=_shape, flops=_flops)
def gru(
    x: Array, h: Array | None, kernel: Array, recurrent: Array, input_bias: Array | None = None,
    recurrent_bias: Array | None = None, lengths: Array | None = None, *, reset_after: bool = True,
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
        lengths: as in ``lstm``.
        reset_after: see above.
        reverse: from the last time to the first.
        batch_first: x and all outputs are (batch, time, ...).

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
        new, seen = (1 - z) * n + z * h, _seen(t, lengths)
        h = np.where(seen, new, h)
        outputs[t] = np.where(seen, new, 0)
    return _turned(outputs, batch_first), h


@operator(shape=_shape, flops=_flops)
def rnn(
    x: Array, h: Array | None, kernel: Array, recurrent: Array, input_bias: Array | None = None,
    recurrent_bias: Array | None = None, lengths: Array | None = None, *, function: str = "tanh", reverse: bool = False,
    batch_first: bool = False,
) -> tuple[Array, Array]:  # fmt: skip
    """H' = f(W x + b + R h + d): all outputs, and the last one. Source: Elman, 1990.

    Args:
        lengths: as in ``lstm``.
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
        new, seen = activate(function, fixed[t] + h @ recurrent.T), _seen(t, lengths)
        h = np.where(seen, new, h)
        outputs[t] = np.where(seen, new, 0)
    return _turned(outputs, batch_first), h
