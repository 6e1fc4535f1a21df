"""Operations of ``keras.ops`` as other operations of it: what the vocabulary has no word for, and needs none.

Each function takes an operation, with its options as attributes, and the symbolic tensors that its ``call`` is given.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from agnostic.tables import filling
from agnostic_keras import engines
from agnostic_keras.operations import Unreadable, window_of

Composed = Callable[..., Any]
COMPOSED: dict[str, Composed] = {}
"""By the operation's class."""
composes = filling(COMPOSED)


def _at(x: Any, axis: int, place: slice) -> Any:
    """A part of one axis."""
    keys: list[Any] = [slice(None)] * len(x.shape)
    keys[axis] = place
    return x[tuple(keys)]


# Comparisons ----------------------------------------------------------------------------------------------------------
@composes("Isclose", "AllClose")
def _close(op: Any, a: Any, b: Any, rtol: Any = None, atol: Any = None) -> Any:
    rtol, atol = (getattr(op, "rtol", 1e-5), getattr(op, "atol", 1e-8)) if rtol is None else (rtol, atol)
    near = ops.logical_or(ops.abs(ops.subtract(a, b)) <= ops.abs(b) * rtol + atol, ops.equal(a, b))
    if op.equal_nan:
        near = ops.logical_or(near, ops.logical_and(ops.isnan(a), ops.isnan(b)))
    return ops.all(near) if type(op).__name__ == "AllClose" else near


@composes("IsIn")
def _is_in(op: Any, x: Any, among: Any) -> Any:
    found = ops.any(ops.equal(ops.expand_dims(x, -1), ops.reshape(among, (-1,))), axis=-1)
    return ops.logical_not(found) if op.invert else found


@composes("Fmax", "Fmin")
def _known(op: Any, a: Any, b: Any) -> Any:
    """The larger or smaller number; of one that is not a number, the other."""
    a, b = (ops.convert_to_tensor(x) if not hasattr(x, "shape") else x for x in (a, b))
    both = ops.maximum(a, b) if type(op).__name__ == "Fmax" else ops.minimum(a, b)
    return ops.where(ops.isnan(a), b, ops.where(ops.isnan(b), a, both))


@composes("Heaviside")
def _step(op: Any, x: Any, at_zero: Any) -> Any:
    side = ops.where(ops.equal(x, 0), at_zero, ops.where(x > 0, 1, 0))
    return ops.where(ops.isnan(x), x, side)


@composes("Signbit")
def _sign_bit(op: Any, x: Any) -> Any:
    return x < 0 if "int" in x.dtype else ops.where(ops.equal(x, 0), 1 / x < 0, x < 0)


@composes("SearchSorted")
def _place_in(op: Any, sequence: Any, values: Any) -> Any:
    values = ops.expand_dims(values, -1)
    before = ops.less(sequence, values) if op.side == "left" else ops.less_equal(sequence, values)
    return ops.sum(ops.cast(before, "int32"), axis=-1)


@composes("Select")
def _select(op: Any, conditions: Sequence[Any], choices: Sequence[Any], default: Any = 0) -> Any:
    for condition, choice in reversed(list(zip(conditions, choices, strict=True))):
        default = ops.where(condition, choice, default)
    return default


@composes("InTopK")
def _in_top(op: Any, targets: Any, predictions: Any) -> Any:
    own = ops.take_along_axis(predictions, ops.expand_dims(targets, -1), axis=-1)
    above = ops.sum(ops.cast(predictions > own, "int32"), axis=-1)
    return ops.logical_and(above < op.k, ops.isfinite(own[..., 0]))


# Element by element ---------------------------------------------------------------------------------------------------
@composes("BitwiseLeftShift", "LeftShift", "BitwiseRightShift", "RightShift", "Ldexp")
def _shifted(op: Any, x: Any, count: Any) -> Any:
    factor = ops.power(2, count) if hasattr(count, "shape") else 2**count
    return ops.floor_divide(x, factor) if "Right" in type(op).__name__ else ops.multiply(x, factor)


@composes("Logaddexp2")
def _log_of_sum(op: Any, a: Any, b: Any) -> Any:
    two = math.log(2)
    return ops.logaddexp(ops.multiply(a, two), ops.multiply(b, two)) / two


@composes("Sinc")
def _sinc(op: Any, x: Any) -> Any:
    turn = math.pi * ops.where(ops.equal(x, 0), 1.0, x)
    return ops.where(ops.equal(x, 0), 1.0, ops.sin(turn) / turn)


@composes("Isreal")
def _is_real(op: Any, x: Any) -> Any:
    return ops.equal(ops.imag(x), 0) if "complex" in x.dtype else ops.ones_like(x, dtype="bool")


@composes("UnravelIndex")
def _unraveled(op: Any, places: Any) -> Any:
    sizes = [math.prod(op.shape[axis + 1 :]) for axis in range(len(op.shape))]
    return tuple(ops.mod(ops.floor_divide(places, n), length) for n, length in zip(sizes, op.shape, strict=True))


# Statistics -----------------------------------------------------------------------------------------------------------
@composes("Ptp")
def _range(op: Any, x: Any) -> Any:
    options = {"axis": op.axis, "keepdims": op.keepdims}
    return ops.max(x, **options) - ops.min(x, **options)


@composes("Nansum", "Nanprod", "Nanmean", "Nanvar", "Nanstd", "Nanmax", "Nanmin")
def _of_known(op: Any, x: Any) -> Any:
    """A reduction that leaves out what is not a number."""
    name, options = type(op).__name__, {"axis": op.axis, "keepdims": op.keepdims}
    missing = ops.isnan(x)
    if name in ("Nansum", "Nanprod"):
        return ops.sum(ops.where(missing, 0, x), **options) if name == "Nansum" else ops.prod(
            ops.where(missing, 1, x), **options)  # fmt: skip
    if name in ("Nanmax", "Nanmin"):
        worst = -math.inf if name == "Nanmax" else math.inf
        found = (ops.max if name == "Nanmax" else ops.min)(ops.where(missing, worst, x), **options)
        return ops.where(ops.all(missing, **options), math.nan, found)
    there = ops.cast(ops.logical_not(missing), x.dtype)
    if name == "Nanmean":
        return ops.sum(ops.where(missing, 0, x), **options) / ops.sum(there, **options)
    kept = {"axis": op.axis, "keepdims": True}
    mean = ops.sum(ops.where(missing, 0, x), **kept) / ops.sum(there, **kept)
    spread = ops.sum(ops.where(missing, 0, ops.square(x - mean)), **options) / ops.sum(there, **options)
    return ops.sqrt(spread) if name == "Nanstd" else spread


@composes("Nanargmax", "Nanargmin")
def _place_of_known(op: Any, x: Any) -> Any:
    options = {"axis": op.axis, "keepdims": op.keepdims}
    if type(op).__name__ == "Nanargmax":
        return ops.argmax(ops.where(ops.isnan(x), -math.inf, x), **options)
    return ops.argmin(ops.where(ops.isnan(x), math.inf, x), **options)


@composes("Nancumsum", "Nancumprod")
def _running_known(op: Any, x: Any) -> Any:
    if type(op).__name__ == "Nancumsum":
        return ops.cumsum(ops.where(ops.isnan(x), 0, x), axis=op.axis)
    return ops.cumprod(ops.where(ops.isnan(x), 1, x), axis=op.axis)


@composes("Quantile", "Percentile", "Median", "Nanquantile", "Nanpercentile", "Nanmedian")
def _quantile(op: Any, x: Any, q: Any = 0.5) -> Any:
    """Between the two numbers of the sorted ones that are nearest to the place q (n - 1)."""
    name = type(op).__name__
    if isinstance(q, keras.KerasTensor):
        raise Unreadable("at shares that depend on the data")
    shares = np.asarray(ops.convert_to_numpy(q) if ops.is_tensor(q) else q, float)
    shares = shares / 100 if name.lower().endswith("percentile") else shares
    rank = len(x.shape)
    axes = range(rank) if op.axis is None else op.axis if isinstance(op.axis, list | tuple) else (op.axis,)
    along = [axis % rank for axis in axes]
    rest = [axis for axis in range(rank) if axis not in along]
    n = math.prod(x.shape[axis] for axis in along)
    turned = ops.reshape(ops.transpose(x, (*rest, *along)), (*(x.shape[a] for a in rest), n))
    given = [] if name.lower().endswith("median") else [q]
    line = ops.cast(turned, op.compute_output_spec(x, *given).dtype)
    between = _between_known(line, op) if name.startswith("Nan") else _between(line, op)
    kept = [1 if a in along else x.shape[a] for a in range(rank)] if op.keepdims else [x.shape[a] for a in rest]
    found = [ops.reshape(between(float(share)), kept) for share in shares.reshape(-1)]
    return found[0] if shares.ndim == 0 else ops.stack(found, axis=0)


def _between_known(line: Any, op: Any) -> Callable[[float], Any]:
    """As :func:`_between`, of the numbers that are some: the places depend on how many."""
    missing = ops.isnan(line)
    count = ops.sum(ops.cast(ops.logical_not(missing), line.dtype), axis=-1, keepdims=True)
    line = ops.sort(ops.where(missing, math.inf, line))
    method = getattr(op, "method", "linear")

    def at(share: float) -> Any:
        place = ops.maximum(share * (count - 1), 0.0)
        low, high = ops.floor(place), ops.ceil(place)
        whole = {"lower": low, "higher": high, "nearest": ops.round(place)}
        if method in whole:
            found = ops.take_along_axis(line, ops.cast(whole[method], "int32"), axis=-1)
        else:
            first, second = (ops.take_along_axis(line, ops.cast(x, "int32"), axis=-1) for x in (low, high))
            found = (first + second) / 2 if method == "midpoint" else first + (second - first) * (place - low)
        return ops.where(count > 0, found, math.nan)

    return at


def _between(line: Any, op: Any) -> Callable[[float], Any]:
    """A function of a share: what lies there among the sorted numbers of a line."""
    line = ops.sort(line)
    last = line[..., -1]  # no number if one of them is none: then nothing lies anywhere

    def at(share: float) -> Any:
        found = between(share)
        return ops.where(ops.isnan(last), last, found)

    def between(share: float) -> Any:
        place = share * (line.shape[-1] - 1)
        low, high = line[..., math.floor(place)], line[..., math.ceil(place)]
        match getattr(op, "method", "linear"):
            case "lower":
                return low
            case "higher":
                return high
            case "nearest":
                return line[..., round(place)]
            case "midpoint":
                return (low + high) / 2
        return low + (high - low) * (place - math.floor(place))

    return at


@composes("Corrcoef")
def _correlations(op: Any, x: Any) -> Any:
    apart = x - ops.mean(x, axis=-1, keepdims=True)
    size = ops.sqrt(ops.sum(ops.square(apart), axis=-1, keepdims=True))
    unit = apart / size
    return ops.clip(ops.matmul(unit, ops.transpose(unit)), -1, 1)


@composes("PSNR")
def _signal_to_noise(op: Any, a: Any, b: Any) -> Any:
    return 20 * math.log10(op.max_val) - 10 * ops.log10(ops.mean(ops.square(a - b)))


@composes("Histogram")
def _histogram(op: Any, x: Any) -> Any:
    low, high = op.range or (ops.min(x), ops.max(x))
    edges = ops.stack([low + (high - low) * (i / op.bins) for i in range(op.bins + 1)])
    edges = ops.cast(edges, x.dtype)
    last = np.arange(op.bins) == op.bins - 1
    column = ops.expand_dims(x, -1)
    below = ops.logical_or(column < _at(edges, 0, slice(1, None)), ops.logical_and(last, ops.equal(column, edges[-1])))
    inside = ops.logical_and(column >= _at(edges, 0, slice(None, -1)), below)
    return ops.sum(ops.cast(inside, x.dtype), axis=0), edges


# Distances ------------------------------------------------------------------------------------------------------------
@composes("CDist")
def _distances(op: Any, x: Any, y: Any) -> Any:
    return ops.sqrt(ops.sum(ops.square(ops.expand_dims(x, -2) - ops.expand_dims(y, -3)), axis=-1))


@composes("Normalize")
def _normalized(op: Any, x: Any) -> Any:
    tiny = keras.config.epsilon() if op.epsilon is None else op.epsilon
    if op.order == 2:
        return x * ops.minimum(ops.rsqrt(ops.sum(ops.square(x), axis=op.axis, keepdims=True)), 1.0 / tiny)
    return x / ops.maximum(ops.norm(x, ord=op.order, axis=op.axis, keepdims=True), tiny)


# Losses ---------------------------------------------------------------------------------------------------------------
@composes("BinaryCrossentropy")
def _binary_entropy(op: Any, target: Any, output: Any) -> Any:
    if op.from_logits:
        return ops.relu(output) - output * target + ops.log1p(ops.exp(-ops.abs(output)))
    tiny = keras.config.epsilon()
    p = ops.clip(output, tiny, 1 - tiny)
    return -(target * ops.log(p) + (1 - target) * ops.log(1 - p))


@composes("CategoricalCrossentropy", "SparseCategoricalCrossentropy")
def _entropy(op: Any, target: Any, output: Any) -> Any:
    if type(op).__name__.startswith("Sparse"):
        target = target[..., 0] if len(target.shape) == len(output.shape) else target
        target = ops.one_hot(target, output.shape[op.axis], axis=op.axis, dtype=output.dtype)
    if op.from_logits:
        logs = ops.log_softmax(output, axis=op.axis)
    else:
        tiny = keras.config.epsilon()
        logs = ops.log(ops.clip(output / ops.sum(output, axis=op.axis, keepdims=True), tiny, 1 - tiny))
    return -ops.sum(target * logs, axis=op.axis)


@composes("CTCDecode")
def _decoded(op: Any, inputs: Any, lengths: Any) -> Any:
    """The likeliest class at each time, repetitions once and blanks left out; what is left stands first, then -1."""
    if op.strategy != "greedy":
        raise Unreadable(f"has strategy={op.strategy!r}")
    classes, times = inputs.shape[-1], np.arange(inputs.shape[1], dtype="int32")
    blank = classes - 1 if op.mask_index is None else op.mask_index
    beyond = ops.greater_equal(times, ops.expand_dims(ops.cast(lengths, "int32"), -1))
    places = ops.where(beyond, blank, ops.cast(ops.argmax(inputs, axis=-1), "int32"))
    scores = -ops.sum(ops.where(beyond, 0.0, ops.max(inputs, axis=-1)), axis=1, keepdims=True)
    if op.merge_repeated:
        again = ops.equal(places[:, 1:], places[:, :-1])
        rest = ops.where(again, blank, places[:, 1:])
        places = ops.concatenate([places[:, :1], rest], axis=1)
    gone = ops.equal(places, blank)
    order = ops.argsort(ops.where(gone, len(times), times), axis=-1)
    found = ops.take_along_axis(ops.where(gone, -1, places), order, axis=-1)
    return ops.cast(ops.expand_dims(found, 0), "int32"), scores


# Matrices -------------------------------------------------------------------------------------------------------------
def _turned(x: Any) -> Any:
    return ops.swapaxes(x, -1, -2)


def _smallest(s: Any, x: Any, least: float | None) -> Any:
    """Singular values below this share of the largest are rounding errors, if nobody says otherwise."""
    share = max(x.shape[-2:]) * float(np.finfo(x.dtype).eps) if least is None else least
    return s[..., :1] * share


@composes("Pinv")
def _pseudo_inverse(op: Any, x: Any) -> Any:
    u, s, v = ops.svd(x, full_matrices=False)
    kept = s > _smallest(s, x, op.rcond)
    inverse = ops.where(kept, 1.0 / ops.where(kept, s, 1.0), 0.0)
    return ops.matmul(_turned(v) * ops.expand_dims(inverse, -2), _turned(u))


@composes("Lstsq")
def _least_squares(op: Any, a: Any, b: Any) -> Any:
    columns = b if len(b.shape) > 1 else ops.expand_dims(b, -1)
    found = ops.matmul(ops.pinv(a, op.rcond), columns)
    return found if len(b.shape) > 1 else found[..., 0]


@composes("MatrixRank")
def _rank(op: Any, x: Any) -> Any:
    _, s, _ = ops.svd(x, full_matrices=False)
    return ops.sum(ops.cast(s > (_smallest(s, x, None) if op.tol is None else op.tol), "int32"), axis=-1)


@composes("CholeskyInverse")
def _inverse_of_factor(op: Any, x: Any) -> Any:
    factor = _turned(ops.triu(x)) if op.upper else ops.tril(x)
    return ops.inv(ops.matmul(factor, _turned(factor)))


# Arrays ---------------------------------------------------------------------------------------------------------------
@composes("Diff")
def _differences(op: Any, x: Any) -> Any:
    for _ in range(op.n):
        late, early = _at(x, op.axis, slice(1, None)), _at(x, op.axis, slice(None, -1))
        x = ops.not_equal(late, early) if x.dtype == "bool" else late - early
    return x


@composes("Trapezoid")
def _trapezoid(op: Any, y: Any) -> Any:
    sums = (_at(y, op.axis, slice(1, None)) + _at(y, op.axis, slice(None, -1))) / 2
    if op.x is None:
        return ops.sum(sums * op.dx, axis=op.axis)
    steps = ops.diff(op.x, axis=op.axis if len(op.x.shape) > 1 else -1)
    if len(op.x.shape) == 1:
        shape = [1] * len(y.shape)
        shape[op.axis] = -1
        steps = ops.reshape(steps, shape)
    return ops.sum(sums * steps, axis=op.axis)


@composes("Cross")
def _cross(op: Any, a: Any, b: Any) -> Any:
    a, b = ops.moveaxis(a, op.axisa, -1), ops.moveaxis(b, op.axisb, -1)
    if a.shape[-1] == b.shape[-1] == 2:
        return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]
    a, b = (x if x.shape[-1] == 3 else ops.pad(x, [(0, 0)] * (len(x.shape) - 1) + [(0, 1)]) for x in (a, b))
    parts = [a[..., i] * b[..., j] - a[..., j] * b[..., i] for i, j in ((1, 2), (2, 0), (0, 1))]
    return ops.moveaxis(ops.stack(parts, axis=-1), -1, op.axisc)


@composes("Diag", "Diagflat")
def _diagonal(op: Any, x: Any) -> Any:
    if type(op).__name__ == "Diagflat":
        x = ops.reshape(x, (-1,))
    if len(x.shape) == 2:
        return ops.diagonal(x, offset=op.k)
    n = x.shape[0] + abs(op.k)
    padded = ops.pad(x, ((max(-op.k, 0), max(op.k, 0)),))
    return ops.where(np.eye(n, k=op.k, dtype=bool), ops.expand_dims(padded, 1), 0)


@composes("Kron")
def _kronecker(op: Any, a: Any, b: Any) -> Any:
    rank = max(len(a.shape), len(b.shape))
    first = (1,) * (rank - len(a.shape)) + tuple(a.shape)
    second = (1,) * (rank - len(b.shape)) + tuple(b.shape)
    outer = ops.reshape(a, [n for m in first for n in (m, 1)]) * ops.reshape(b, [n for m in second for n in (1, m)])
    return ops.reshape(outer, [m * n for m, n in zip(first, second, strict=True)])


@composes("Vander")
def _powers(op: Any, x: Any) -> Any:
    n = x.shape[0] if op.N is None else op.N
    powers = np.arange(n) if op.increasing else np.arange(n)[::-1].copy()
    return ops.power(ops.expand_dims(x, -1), powers.astype(x.dtype))


@composes("Linspace", "Logspace", "Geomspace")
def _spaced(op: Any, start: Any, stop: Any) -> Any:
    match type(op).__name__:
        case "Logspace":
            return ops.power(float(op.base), _line(op, start, stop))
        case "Geomspace":
            return ops.exp(_line(op, ops.log(start), ops.log(stop)))
    if op.retstep:
        raise Unreadable("gives its step too, which has no translation yet")
    return _line(op, start, stop)


def _line(op: Any, start: Any, stop: Any) -> Any:
    steps = max(op.num - 1 if op.endpoint else op.num, 1)
    parts = [start + (stop - start) * (i / steps) for i in range(op.num)]
    return ops.stack(parts, axis=op.axis)


@composes("ExtractSequences")
def _frames(op: Any, x: Any) -> Any:
    count = 1 + (x.shape[-1] - op.sequence_length) // op.sequence_stride
    places = np.arange(op.sequence_length) + op.sequence_stride * np.arange(count)[:, None]
    return ops.take(x, places, axis=-1)


@composes("ISTFT")
def _signal(op: Any, x: Any) -> Any:
    """Frames back at their places, each times the window over the sum of its squares at each place."""
    frames = ops.irfft(x, op.fft_length)
    *batch, count, length = frames.shape
    start = length // 2 if op.center else 0
    stop = op.length + start if op.length is not None else op.sequence_stride * (count - 1) + length - start
    if op.window is not None:
        frames = frames * _synthesis(op, length, count).astype(frames.dtype)
    flat = ops.reshape(ops.swapaxes(frames, -1, -2), (-1, length, count))
    whole = op.sequence_stride * (count - 1) + length
    signal = ops.fold(flat, (1, whole), (1, length), stride=(1, op.sequence_stride))
    return ops.reshape(signal, (*batch, whole))[..., start:stop]


def _synthesis(op: Any, length: int, count: int) -> Any:
    """By the sum of the frames that lie over each place, if the engine knows it; else by that of the middle.

    Source: Keras 3, ``keras.ops.istft``: torch.istft, and TensorFlow's ``inverse_stft_window_fn``.
    """
    window, step = window_of(op, op.sequence_length), op.sequence_stride
    before = (length - op.sequence_length) // 2
    window = np.pad(window, (before, length - op.sequence_length - before))
    centred = op.center and op.sequence_length == length
    if {"always": True, "centred": centred, "never": False}[engines.current().EXACT_FRAMES]:
        total = np.zeros(step * (count - 1) + length)
        for i in range(count):
            total[i * step : i * step + length] += window**2
        total = np.where(total > 1e-11, total, 1.0)
        return np.stack([window / total[i * step : i * step + length] for i in range(count)])
    return window / _folded(window**2, step)


def _folded(x: Any, step: int) -> Any:
    """The sum of all numbers that are a multiple of so many places away, at each place."""
    return np.array([x[i % step :: step].sum() for i in range(len(x))])


@composes("Correlate")
def _correlated(op: Any, a: Any, b: Any) -> Any:
    """Sums of products with the second signal at each place where it meets the first."""
    n, m = a.shape[0], b.shape[0]
    dtype = op.compute_output_spec(a, b).dtype
    a, b = ops.cast(a, dtype), ops.cast(b, dtype)
    kernel, padded = ops.reshape(b, (m, 1, 1)), ops.pad(a, ((m - 1, m - 1),))
    every = ops.conv(ops.reshape(padded, (1, -1, 1)), kernel, data_format="channels_last")
    every = ops.reshape(every, (-1,))
    if op.mode == "full":
        return every
    same = n if engines.current().SAME_IS_FIRST else max(n, m)
    length = same if op.mode == "same" else max(n, m) - min(n, m) + 1
    start = (n + m - 1 - length) // 2
    return _at(every, 0, slice(start, start + length))


@composes("Rearrange")
def _rearranged(op: Any, x: Any, pattern: str, **lengths: int) -> Any:
    """Axes are split, moved and joined. Source: Rogozhnikov, "Einops", 2022, section 3."""
    left, right = (
        [group.strip("()").split() for group in re.findall(r"\(.*?\)|\w+", side)] for side in pattern.split("->")
    )
    sizes = dict(lengths)
    for names, n in zip(left, x.shape, strict=True):
        for name in names:
            rest = math.prod(sizes[other] for other in names if other in sizes)
            sizes.setdefault(name, n // rest)
    given, wanted = ([name for names in side for name in names] for side in (left, right))
    x = ops.transpose(ops.reshape(x, [sizes[name] for name in given]), [given.index(name) for name in wanted])
    return ops.reshape(x, [math.prod(sizes[name] for name in names) for names in right])


@composes("SegmentSum", "SegmentMax", "SegmentMin", "SegmentProd")
def _segments(op: Any, data: Any, ids: Any) -> Any:
    if op.num_segments is None:
        raise Unreadable("without num_segments gives a number of segments that depends on the data")
    inside = ops.equal(ops.expand_dims(ids, 0), np.arange(op.num_segments, dtype=ids.dtype)[:, None])
    inside = ops.reshape(inside, (*inside.shape, *(1,) * (len(data.shape) - 1)))
    reduction, missing = {
        "SegmentSum": (ops.sum, 0), "SegmentProd": (ops.prod, 1), "SegmentMax": (ops.max, -math.inf),
        "SegmentMin": (ops.min, math.inf),
    }[type(op).__name__]  # fmt: skip
    return reduction(ops.where(inside, ops.expand_dims(data, 0), missing), axis=1)


# Loops whose length is known ------------------------------------------------------------------------------------------
@composes("Map", "VectorizedMap")
def _mapped(op: Any, first: Any, second: Any = None) -> Any:
    function, given = (first, second) if callable(first) else (op.function, first)
    count = keras.tree.flatten(given)[0].shape[0]
    results = [function(keras.tree.map_structure(lambda x, i=i: x[i], given)) for i in range(count)]
    return keras.tree.map_structure(lambda *parts: ops.stack(parts, axis=0), *results)


@composes("Scan")
def _scanned(op: Any, function: Any, carry: Any, xs: Any = None) -> Any:
    count = op.length if xs is None else keras.tree.flatten(xs)[0].shape[0]
    outputs: list[Any] = [None] * count
    for i in reversed(range(count)) if op.reverse else range(count):
        carry, outputs[i] = function(carry, keras.tree.map_structure(lambda x, i=i: x[i], xs))
    stacked = keras.tree.map_structure(lambda *parts: None if parts[0] is None else ops.stack(parts, axis=0), *outputs)
    return carry, stacked


@composes("AssociativeScan")
def _running(op: Any, function: Any, elements: Any) -> Any:
    """The first element, it with the second, and so on; Keras takes them together in another order."""
    flat = keras.tree.flatten(elements)
    axis, count = op.axis % len(flat[0].shape), flat[0].shape[op.axis]

    def at(i: int) -> Any:
        return keras.tree.map_structure(lambda x: _at(x, axis, slice(i, i + 1)), elements)

    order = [*reversed(range(count))] if op.reverse else [*range(count)]
    results = [at(order[0])]
    for i in order[1:]:
        results.append(function(results[-1], at(i)))
    results = results[::-1] if op.reverse else results
    return keras.tree.map_structure(lambda *parts: ops.concatenate(parts, axis=axis), *results)


@composes("Cond")
def _either(op: Any, condition: Any, first: Any, second: Any) -> Any:
    """Both, and one of them is taken."""
    if not isinstance(condition, keras.KerasTensor):
        return first() if condition else second()
    return _chosen(ops.cast(condition, "bool"), first(), second())


def _chosen(condition: Any, first: Any, second: Any) -> Any:
    return keras.tree.map_structure(lambda a, b: None if a is None else ops.where(condition, a, b), first, second)


@composes("Switch")
def _switched(op: Any, index: Any, branches: Any, *operands: Any) -> Any:
    if not isinstance(index, keras.KerasTensor):
        return branches[min(max(int(index), 0), len(branches) - 1)](*operands)
    results = [branch(*operands) for branch in branches]
    found = results[-1]
    for place in reversed(range(len(results) - 1)):
        found = _chosen(index <= place, results[place], found)
    return found


@composes("WhileLoop")
def _looped(op: Any, values: Any) -> Any:
    """A loop that ends by numbers that are known."""
    several, count = isinstance(values, list | tuple), 0
    while op.maximum_iterations is None or count < op.maximum_iterations:
        goes_on = op.cond(*values) if several else op.cond(values)
        if isinstance(goes_on, keras.KerasTensor):
            raise Unreadable("ends when the data say so")
        if not goes_on:
            break
        values = op.body(*values) if several else op.body(values)
        count += 1
    return values


@composes("ForiLoop")
def _counted(op: Any, value: Any) -> Any:
    for i in range(op.lower, op.upper):
        value = op.body_fun(i, value)
    return value


# What has no translation ----------------------------------------------------------------------------------------------
REFUSED = {
    "Argpartition": "leaves the order of most places open, which engines fill as they like",
    "CTCLoss": "is a loss, which no layer needs in inference",
    "Eig": "gives complex numbers, which Keras takes for real ones",
    "JVP": "is a derivative",
    "View": "reads the bits of a number as another type",
}
"""Why an operation is refused, to complete "operation X ..."."""
