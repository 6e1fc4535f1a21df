"""Each operation of ``keras.ops`` in the words of the vocabulary.

A reader takes a call, with its tensors by the names of the operation's own ``call`` and its options as the operation's
attributes, and writes nodes. Layers have no readers, since they run as operations, but for the few of :data:`LAYERS`.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import keras
import numpy as np
from keras import tree
from keras.src.utils import numerical_utils

from agnostic.program.builder import Builder
from agnostic.program.nodes import Node, Value
from agnostic.program.operators.products import explicit
from agnostic.tables import filling
from agnostic_keras import engines


class Unreadable(Exception):
    """Something has no translation; the message says what, and completes "operation X ..." where a reader raises it."""


class Recorder(Protocol):
    """What readers write with; see :class:`agnostic_keras.program.Recorder`."""

    @property
    def builder(self) -> Builder: ...
    @property
    def loops(self) -> bool: ...
    @property
    def depth(self) -> int: ...
    def attempt(self) -> AbstractContextManager[None]: ...
    def value(self, x: Any) -> Any: ...
    def symbolic(self, result: Any) -> Any: ...
    def emit(self, operator: str, *operands: Any, **attributes: Any) -> Any: ...


@dataclass
class Call:
    """One call of an operation.

    Attributes:
        op: the operation, with its options.
        given: the arguments of its ``call`` by name, symbolic tensors as values.
        spec: the symbolic tensors that it gives.
        recorder: where to write.
    """

    op: Any
    given: dict[str, Any]
    spec: Any
    recorder: Recorder

    @classmethod
    def of(cls, operation: Any, args: Any, kwargs: Any, recorder: Recorder, spec: Any) -> Call:
        """The call with these arguments."""
        bound = inspect.signature(operation.call).bind(*args, **kwargs)
        bound.apply_defaults()
        return cls(operation, {name: recorder.value(x) for name, x in bound.arguments.items()}, spec, recorder)

    def __getitem__(self, name: str) -> Any:
        return self.given[name]

    @property
    def x(self) -> Any:
        """The first argument."""
        return next(iter(self.given.values()))

    @property
    def rank(self) -> int:
        """The number of axes of the first argument."""
        return len(self.x.shape)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the output."""
        return tuple(self.spec.shape)

    @property
    def dtype(self) -> str:
        """The type of the output."""
        return str(keras.backend.standardize_dtype(self.spec.dtype))

    def real(self, *values: Any) -> list[Any]:
        """The values, integers among them as numbers of the output's type: a product of both is real."""
        if not _is_real(self.dtype):
            return list(values)
        whole = [isinstance(x, Value) and not _is_real(x.dtype) for x in values]
        return [self.emit("cast", x, dtype=self.dtype) if cast else x for x, cast in zip(values, whole, strict=True)]

    def emit(self, operator: str, *operands: Any, **attributes: Any) -> Value:
        """Write a node of one output."""
        value: Value = self.recorder.builder.emit(operator, *operands, **attributes)
        return value

    def emit_several(self, operator: str, *operands: Any, **attributes: Any) -> tuple[Value, ...]:
        """Write a node of several outputs."""
        values: tuple[Value, ...] = self.recorder.builder.emit(operator, *operands, **attributes)
        return values


def _is_real(dtype: str) -> bool:
    return "float" in dtype or "complex" in dtype


Reader = Callable[[Call], Any]
READERS: dict[str, Reader] = {}
"""By the operation's class."""


OWN_SHAPES = {
    "Conv", "DepthwiseConv", "BatchNorm", "Digitize", "AdaptiveAveragePool", "AdaptiveMaxPool", "DotProductAttention",
    "Real", "Imag", "Angle", "Polar", "Einsum",
}  # fmt: skip
"""Operations for which Keras tells no shape, or a wrong one: of groups, without a scale, of wider
values, of complex numbers, or of axes with capital letters."""
reads = filling(READERS)
"""Make a function the reader of operations, by the names of their classes."""


def _axis(axis: int, rank: int) -> int:
    return int(axis) % max(rank, 1)


def _axes(axes: Any, rank: int) -> tuple[int, ...] | None:
    if axes is None:
        return None
    return tuple(_axis(a, rank) for a in (axes if isinstance(axes, list | tuple) else (axes,)))


def _many(numbers: Any, rank: int) -> tuple[int, ...]:
    return tuple(int(n) for n in numbers) if isinstance(numbers, list | tuple) else (int(numbers),) * rank


# Products -------------------------------------------------------------------------------------------------------------
@reads("Matmul")
def _matmul(c: Call) -> Value:
    a, b = c.real(c["x1"], c["x2"])
    if len(b.shape) == 2 and c.recorder.builder.is_weight(b):
        return c.emit("linear", a, c.emit("permute", b, axes=(1, 0)))
    return c.emit("matmul", a, b)


@reads("Dot")
def _dot(c: Call) -> Value:
    a, b = c["x1"], c["x2"]
    if not (isinstance(a, Value) and isinstance(b, Value) and a.shape and b.shape):
        return c.emit("multiply", a, b)
    if len(b.shape) <= 2:
        return c.emit("matmul", *c.real(a, b))
    return _contracted(c, a, b, (len(a.shape) - 1,), (len(b.shape) - 2,))


@reads("Tensordot")
def _tensordot(c: Call) -> Value:
    a, b, axes = c["x1"], c["x2"], c.op.axes
    if isinstance(axes, int):
        n = len(a.shape)
        return _contracted(c, a, b, tuple(range(n - axes, n)), tuple(range(axes)))
    left, right = (_axes(x, len(y.shape)) or () for x, y in zip(axes, (a, b), strict=True))
    return _contracted(c, a, b, left, right)


_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


def _contracted(c: Call, a: Value, b: Value, left: Sequence[int], right: Sequence[int]) -> Value:
    first = list(_LETTERS[: len(a.shape)])
    second = list(_LETTERS[len(a.shape) : len(a.shape) + len(b.shape)])
    for i, j in zip(left, right, strict=True):
        second[j] = first[i]
    kept = [x for i, x in enumerate(first) if i not in left] + [x for j, x in enumerate(second) if j not in right]
    return c.emit("einsum", tuple(c.real(a, b)), equation=f"{''.join(first)},{''.join(second)}->{''.join(kept)}")


@reads("Inner")
def _inner(c: Call) -> Value:
    a, b = c["x1"], c["x2"]
    return _contracted(c, a, b, (len(a.shape) - 1,), (len(b.shape) - 1,))


@reads("Vdot")
def _vdot(c: Call) -> Value:
    a, b = (c.emit("reshape", x, shape=(-1,)) for x in (c["x1"], c["x2"]))
    return c.emit("matmul", a, b)


@reads("Outer")
def _outer(c: Call) -> Value:
    a, b = (c.emit("reshape", x, shape=(-1,)) for x in (c["x1"], c["x2"]))
    return c.emit("outer", a, b)


@reads("Einsum")
def _einsum(c: Call) -> Value:
    dtypes = {x.dtype for x in c["operands"]}
    dtype = dtypes.pop() if len(dtypes) == 1 else keras.backend.result_type(*dtypes)
    operands = tuple(x if x.dtype == dtype else c.emit("cast", x, dtype=dtype) for x in c["operands"])
    equation = explicit(c.op.subscripts, [len(x.shape) for x in operands])
    return c.emit("einsum", operands, dtype=dtype, equation=equation)


# Convolutions ---------------------------------------------------------------------------------------------------------
def _channel_axis(data_format: str | None) -> int:
    first = (data_format or keras.config.image_data_format()) == "channels_first"
    return 1 if first else -1


def _sizes(x: Value, channel_axis: int) -> tuple[int, ...]:
    return x.shape[2:] if channel_axis == 1 else x.shape[1:-1]


def _same(sizes: Sequence[int], window: Sequence[int], stride: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """What SAME pads, of which the smaller half comes first. Source: TensorFlow, "tf.nn", notes on padding."""
    totals = [max((-(-n // s) - 1) * s + k - n, 0) for n, k, s in zip(sizes, window, stride, strict=True)]
    return tuple((total // 2, total - total // 2) for total in totals)


def _windows(c: Call, x: Value, kernel: Sequence[int], dilation: Any = 1) -> dict[str, Any]:
    """Stride, padding and dilation of a convolution or a pooling, and where the channels are."""
    axis = _channel_axis(c.op.data_format)
    rank = len(x.shape) - 2
    stride = _many(c.op.strides if c.op.strides is not None else tuple(kernel), rank)
    spread = _many(dilation, rank)
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, spread, strict=True)]
    same = c.op.padding == "same"
    padding = _same(_sizes(x, axis), reach, stride) if same else ((0, 0),) * rank
    options = {"stride": stride, "padding": padding, "dilation": spread, "channel_axis": axis}
    return {**options, "same": True} if same else options


def _turned(c: Call, kernel: Value) -> Value:
    """(*size, I, O) to (O, I, *size)."""
    rank = len(kernel.shape)
    return c.emit("permute", kernel, axes=(rank - 1, rank - 2, *range(rank - 2)))


@reads("Conv")
def _conv(c: Call) -> Value:
    x, kernel = c["inputs"], c["kernel"]
    options = _windows(c, x, kernel.shape[:-2], c.op.dilation_rate)
    if c.op.padding == "causal":
        [size], [spread] = kernel.shape[:-2], options["dilation"]
        options["padding"] = (((size - 1) * spread, 0),)
    groups = x.shape[options["channel_axis"]] // kernel.shape[-2]
    return c.emit("convolution", x, _turned(c, kernel), groups=groups, **options)


@reads("DepthwiseConv")
def _depthwise(c: Call) -> Value:
    return _each_channel(c, c["inputs"], c["kernel"])


def _each_channel(c: Call, x: Value, kernel: Value) -> Value:
    *size, channels, times = kernel.shape
    options = _windows(c, x, size, c.op.dilation_rate)
    rank = len(size)
    turned = c.emit("permute", kernel, axes=(rank, rank + 1, *range(rank)))
    turned = c.emit("reshape", turned, shape=(channels * times, 1, *size))
    return c.emit("convolution", x, turned, groups=channels, **options)


@reads("SeparableConv")
def _separable(c: Call) -> Value:
    y = _each_channel(c, c["inputs"], c["depthwise_kernel"])
    kernel, axis = c["pointwise_kernel"], _channel_axis(c.op.data_format)
    ones = (1,) * (len(kernel.shape) - 2)
    return c.emit(
        "convolution", y, _turned(c, kernel), stride=ones, padding=((0, 0),) * len(ones), dilation=ones,
        channel_axis=axis,
    )  # fmt: skip


def _crop(size: int, stride: int, padding: str, extra: int | None) -> tuple[int, int]:
    """What Keras cuts from the full output of one axis, whose length is ``(n - 1) * stride + size``.

    Source: Keras 3, ``backend.common.backend_utils``, the conversion for JAX.
    """
    if padding == "valid":
        return 0, -(max(size, stride) - size if extra is None else extra)
    total = stride + size - 2 if extra is None else size + size % 2 - 2 + extra
    left = min(total // 2 + total % 2, size - 1)
    return size - 1 - left, size - 1 - (total - left)


@reads("ConvTranspose")
def _transposed(c: Call) -> Value:
    x, kernel = c["inputs"], c["kernel"]
    *size, _, _ = kernel.shape
    rank = len(size)
    stride, spread = _many(c.op.strides, rank), _many(c.op.dilation_rate, rank)
    extra = (None,) * rank if c.op.output_padding is None else _many(c.op.output_padding, rank)
    crop = [_crop((k - 1) * d + 1, s, c.op.padding, e) for k, d, s, e in zip(size, spread, stride, extra, strict=True)]
    return c.emit(
        "transposed_convolution", x, _turned(c, kernel), stride=stride, crop=tuple((a, max(b, 0)) for a, b in crop),
        extra=tuple(max(-b, 0) for _, b in crop), dilation=spread, channel_axis=_channel_axis(c.op.data_format),
    )  # fmt: skip


# Pooling --------------------------------------------------------------------------------------------------------------
@reads("MaxPool")
def _max_pool(c: Call) -> Value:
    kernel = _many(c.op.pool_size, c.rank - 2)
    return c.emit("max_pool", c.x, kernel=kernel, **_windows(c, c.x, kernel))


@reads("AveragePool")
def _average_pool(c: Call) -> Value:
    kernel = _many(c.op.pool_size, c.rank - 2)
    x, options = c.x, _windows(c, c.x, kernel)
    del options["dilation"]
    uneven = any(low != high for low, high in options["padding"])
    if uneven and engines.current().UNEVEN_AVERAGES_REPEAT:
        around = [(0, 0), *options["padding"]]
        around.insert(1 if options["channel_axis"] == 1 else c.rank - 1, (0, 0))
        x = c.emit("pad", x, widths=tuple(around), mode="replicate")
        options = {**options, "padding": ((0, 0),) * (c.rank - 2), "same": False}
    return c.emit("average_pool", x, kernel=kernel, count_padding=False, **options)


@reads("AdaptiveAveragePool", "AdaptiveMaxPool")
def _adaptive(c: Call) -> Value:
    operator = {"AdaptiveAveragePool": "adaptive_average_pool", "AdaptiveMaxPool": "adaptive_max_pool"}
    sizes = _many(c.op.output_size, c.rank - 2)
    return c.emit(operator[type(c.op).__name__], c.x, sizes=sizes, channel_axis=_channel_axis(c.op.data_format))


# Normalizations -------------------------------------------------------------------------------------------------------
@reads("BatchNorm")
def _batch_norm(c: Call) -> Value:
    axis = _axis(c.op.axis, c.rank)
    axis = -1 if axis == c.rank - 1 else axis
    operands = [c[name] for name in ("x", "mean", "variance", "scale", "offset")]
    return c.emit("batch_norm", *operands, epsilon=float(c.op.epsilon), channel_axis=axis)


@reads("LayerNorm", "RMSNorm")
def _layer_norm(c: Call) -> Value:
    x, rank = c["x"], c.rank
    along = sorted(_axes(c.op.axis, rank) or ())
    epsilon = keras.config.epsilon() if c.op.epsilon is None else float(c.op.epsilon)
    rest = [a for a in range(rank) if a not in along]
    order = (*rest, *along)
    axes = tuple(range(-len(along), 0))
    y = x if order == tuple(range(rank)) else c.emit("permute", x, axes=order)
    if getattr(c.op, "rms_scaling", False):
        # Keras scales by the deviation, which knows the mean, and does not take the mean away.
        spread = c.emit("variance", y, axes=tuple(a % rank for a in axes), keep=True)
        y = c.emit("multiply", y, c.emit("unary", c.emit("add", spread, epsilon), function="rsqrt"))
        y = y if c["gamma"] is None else c.emit("multiply", y, c["gamma"])
    elif type(c.op).__name__ == "RMSNorm":
        y = c.emit("rms_norm", y, c["scale"], axes=axes, epsilon=epsilon)
    else:
        y = c.emit("layer_norm", y, c["gamma"], c["beta"], axes=axes, epsilon=epsilon)
    return y if order == tuple(range(rank)) else c.emit("permute", y, axes=tuple(np.argsort(order).tolist()))


@reads("Moments")
def _moments(c: Call) -> tuple[Value, Value]:
    axes = _axes(c.op.axes, c.rank)
    mean = c.emit("reduce", c.x, function="mean", axes=axes, keep=bool(c.op.keepdims))
    return mean, c.emit("variance", c.x, axes=axes, keep=bool(c.op.keepdims))


# Activations ----------------------------------------------------------------------------------------------------------
def _named(function: str, **options: str) -> Reader:
    """The reader of an activation; ``options`` are its options' names to those of the operation."""

    def reader(c: Call) -> Value:
        found = {ours: float(getattr(c.op, theirs)) for ours, theirs in options.items()}
        return c.emit("activation", c.x, function=function, **found)

    return reader


READERS.update(
    {
        "Relu": _named("relu"),
        "Relu6": _named("relu6"),
        "Sigmoid": _named("sigmoid"),
        "SparseSigmoid": _named("sparse_sigmoid"),
        "Softplus": _named("softplus"),
        "Softsign": _named("softsign"),
        "SoftShrink": _named("soft_shrink", threshold="threshold"),
        "SparsePlus": _named("sparse_plus"),
        "Silu": _named("silu"),
        "Squareplus": _named("squareplus", b="b"),
        "LogSigmoid": _named("log_sigmoid"),
        "LeakyRelu": _named("leaky_relu", negative_slope="negative_slope"),
        "HardSigmoid": _named("hard_sigmoid"),
        "HardSilu": _named("hard_silu"),
        "Elu": _named("elu", alpha="alpha"),
        "Selu": _named("selu"),
        "Celu": _named("celu", alpha="alpha"),
        "TanhShrink": _named("tanh_shrink"),
        "HardTanh": _named("hard_tanh"),
        "HardShrink": _named("hard_shrink", threshold="threshold"),
        "Threshold": _named("threshold", threshold="threshold", value="default_value"),
        "Tanh": _named("tanh"),
    }
)


@reads("Gelu")
def _gelu(c: Call) -> Value:
    return c.emit("activation", c.x, function="gelu_tanh" if c.op.approximate else "gelu")


@reads("Glu")
def _glu(c: Call) -> Value:
    return c.emit("activation", c.x, function="glu", axis=_axis(c.op.axis, c.rank))


@reads("Softmax", "LogSoftmax")
def _softmax(c: Call) -> Value:
    operator = {"Softmax": "softmax", "LogSoftmax": "log_softmax"}[type(c.op).__name__]
    if c.op.axis is None:
        flat = c.emit(operator, c.emit("reshape", c.x, shape=(-1,)), axis=0)
        return c.emit("reshape", flat, shape=c.x.shape)
    if isinstance(c.op.axis, int):
        return c.emit(operator, c.x, axis=_axis(c.op.axis, c.rank))
    along = _axes(c.op.axis, c.rank) or ()
    order = (*(a for a in range(c.rank) if a not in along), *along)
    turned = c.emit("permute", c.x, axes=order)
    flat = c.emit("reshape", turned, shape=(*turned.shape[: c.rank - len(along)], -1))
    y = c.emit("reshape", c.emit(operator, flat, axis=len(flat.shape) - 1), shape=turned.shape)
    return c.emit("permute", y, axes=tuple(np.argsort(order).tolist()))


@reads("Sparsemax")
def _sparsemax(c: Call) -> Value:
    """Source: Martins, Astudillo, "From Softmax to Sparsemax", 2016, algorithm 1."""
    x, axis = c.x, _axis(c.op.axis, c.rank)
    n = x.shape[axis]
    z, _ = c.emit_several("top", x, count=n, axis=axis)
    total = c.emit("cumulative", z, function="sum", axis=axis)
    shape = tuple(n if a == axis else 1 for a in range(c.rank))
    places = c.emit("reshape", c.emit("arange", 1, n + 1, dtype=x.dtype, length=n), shape=shape)
    inside = c.emit(
        "binary", c.emit("add", c.emit("multiply", places, z), 1.0), total, function="greater", dtype="bool"
    )
    support = c.emit("cast", inside, dtype=x.dtype)
    count = c.emit("reduce", support, function="sum", axes=(axis,), keep=True)
    # Keras 3.15 sums the running sums, where the paper takes the last of them.
    chosen = c.emit("reduce", c.emit("multiply", support, total), function="sum", axes=(axis,), keep=True)
    threshold = c.emit("divide", c.emit("subtract", chosen, 1.0), count)
    return c.emit("maximum", c.emit("subtract", x, threshold), 0.0)


# Element by element ---------------------------------------------------------------------------------------------------
def _unary(function: str) -> Reader:
    return lambda c: c.emit("unary", c.x, function=function)


READERS.update(
    {
        theirs: _unary(ours)
        for theirs, ours in {
            "Absolute": "absolute", "Abs": "absolute", "Fabs": "absolute", "Negative": "negative", "Sign": "sign",
            "Exp": "exp", "Exp2": "exp2", "Expm1": "expm1", "Log": "log", "Log2": "log2", "Log10": "log10",
            "Log1p": "log1p", "Sqrt": "sqrt", "Rsqrt": "rsqrt", "Reciprocal": "reciprocal", "Square": "square",
            "Sin": "sin", "Cos": "cos", "Tan": "tan", "Arcsin": "asin", "Arccos": "acos", "Arctan": "atan",
            "Sinh": "sinh", "Cosh": "cosh", "Arcsinh": "asinh", "Arccosh": "acosh", "Arctanh": "atanh", "Erf": "erf",
            "Floor": "floor", "Ceil": "ceil", "Trunc": "truncate", "LogicalNot": "not", "Isnan": "is_nan",
            "Isinf": "is_infinite", "Isfinite": "is_finite", "Erfinv": "erfinv", "I0": "i0",
        }.items()
    }
)  # fmt: skip


def _pair(c: Call) -> tuple[Any, Any]:
    first, second = list(c.given.values())[:2]
    return first, second


def _binary(function: str) -> Reader:
    return lambda c: c.emit("binary", *_pair(c), function=function)


READERS.update(
    {
        theirs: _binary(ours)
        for theirs, ours in {
            "Equal": "equal", "NotEqual": "not_equal", "Less": "less", "LessEqual": "less_equal",
            "Greater": "greater", "GreaterEqual": "greater_equal", "LogicalAnd": "and", "LogicalOr": "or",
            "LogicalXor": "xor", "Arctan2": "atan2", "FloorDivide": "floor_divide", "Mod": "remainder", "Fmod": "fmod",
            "Gcd": "gcd", "Lcm": "lcm", "Nextafter": "next_after",
        }.items()
    }
)  # fmt: skip


def _is_boolean(x: Any) -> bool:
    return isinstance(x, bool) or (isinstance(x, Value) and x.dtype == "bool")


def _arithmetic(operator: str, boolean: str | None = None) -> Reader:
    def reader(c: Call) -> Value:
        if boolean is not None and c.dtype == "bool":
            return c.emit("binary", *_pair(c), function=boolean)
        return c.emit(operator, *_pair(c))

    return reader


READERS.update(
    {
        "Add": _arithmetic("add", "or"),
        "Subtract": _arithmetic("subtract"),
        "Multiply": _arithmetic("multiply", "and"),
        "Divide": _arithmetic("divide"),
        "TrueDivide": _arithmetic("divide"),
        "Power": _arithmetic("power"),
        "Maximum": _arithmetic("maximum"),
        "Minimum": _arithmetic("minimum"),
    }
)


def _bitwise(word: str) -> Reader:
    def reader(c: Call) -> Value:
        boolean = all(map(_is_boolean, _pair(c)))
        return c.emit("binary", *_pair(c), function=word if boolean else f"bit_{word}")

    return reader


for _word in ("and", "or", "xor"):
    READERS[f"Bitwise{_word.title()}"] = _bitwise(_word)


@reads("BitwiseNot", "BitwiseInvert")
def _not(c: Call) -> Value:
    if not _is_boolean(c.x):
        return c.emit("subtract", c.emit("unary", c.x, function="negative"), 1)
    return c.emit("unary", c.x, function="not")


@reads("DivideNoNan")
def _divide_no_nan(c: Call) -> Value:
    a, b = _pair(c)
    zero = c.emit("binary", b, 0, function="equal", dtype="bool")
    safe = c.emit("where", zero, 1.0, b, dtype=c.dtype)
    return c.emit("where", zero, 0.0, c.emit("divide", a, safe), dtype=c.dtype)


@reads("Logaddexp")
def _logaddexp(c: Call) -> Value:
    a, b = _pair(c)
    apart = c.emit("unary", c.emit("unary", c.emit("subtract", a, b), function="absolute"), function="negative")
    rest = c.emit("unary", c.emit("unary", apart, function="exp"), function="log1p")
    return c.emit("add", c.emit("maximum", a, b), rest)


@reads("Hypot")
def _hypot(c: Call) -> Value:
    a, b = (c.emit("unary", x, function="square") for x in _pair(c))
    return c.emit("unary", c.emit("add", a, b), function="sqrt")


@reads("Erfc")
def _erfc(c: Call) -> Value:
    return c.emit("subtract", 1.0, c.emit("unary", c.x, function="erf"))


@reads("Cbrt")
def _cube_root(c: Call) -> Value:
    size = c.emit("power", c.emit("unary", c.x, function="absolute"), 1 / 3)
    return c.emit("multiply", c.emit("unary", c.x, function="sign"), size)


@reads("Deg2rad", "Rad2deg")
def _angle(c: Call) -> Value:
    return c.emit("multiply", c.x, math.pi / 180 if type(c.op).__name__ == "Deg2rad" else 180 / math.pi)


@reads("Isposinf", "Isneginf")
def _infinite(c: Call) -> Value:
    return c.emit("binary", c.x, math.inf if type(c.op).__name__ == "Isposinf" else -math.inf, function="equal")


@reads("Round")
def _round(c: Call) -> Value:
    if not c.op.decimals:
        return c.emit("unary", c.x, function="round")
    factor = 10.0**c.op.decimals
    return c.emit("divide", c.emit("unary", c.emit("multiply", c.x, factor), function="round"), factor)


@reads("Clip")
def _clip(c: Call) -> Value:
    return c.emit("clip", c.x, *(c.recorder.value(bound) for bound in (c.op.x_min, c.op.x_max)))


@reads("NanToNum")
def _nan_to_num(c: Call) -> Value:
    limit = float(np.finfo(c.dtype).max)
    high = limit if c.op.posinf is None else c.op.posinf
    low = -limit if c.op.neginf is None else c.op.neginf
    missing = c.emit("unary", c.x, function="is_nan", dtype="bool")
    y = c.emit("where", missing, c.op.nan, c.x, dtype=c.dtype)
    for bound, value in ((math.inf, high), (-math.inf, low)):
        y = c.emit("where", c.emit("binary", y, bound, function="equal", dtype="bool"), value, y, dtype=c.dtype)
    return y


@reads("Where")
def _where(c: Call) -> Value:
    if c["x1"] is None:
        raise Unreadable("of one argument gives places whose number depends on the data")
    condition = c["condition"]
    if not _is_boolean(condition):
        condition = c.emit("cast", condition, dtype="bool")
    return c.emit("where", condition, c["x1"], c["x2"], dtype=c.dtype)


@reads("Cast", "SaturateCast")
def _cast(c: Call) -> Value:
    same = isinstance(c.x, Value) and c.x.dtype == c.dtype
    if not same and type(c.op).__name__ == "SaturateCast" and "int" in c.dtype:
        limits = np.iinfo(c.dtype)
        return c.emit("cast", c.emit("clip", c.x, int(limits.min), int(limits.max)), dtype=c.dtype)
    return c.emit("identity", c.x) if same else c.emit("cast", c.x, dtype=c.dtype)


@reads("StopGradient")
def _stopped(c: Call) -> Value:
    if c.x.dtype.startswith(("float", "bfloat", "complex")):
        return c.emit("unary", c.x, function="stop_gradient")
    return c.emit("identity", c.x)


@reads("Copy", "ConvertToTensor", "Array")
def _identity(c: Call) -> Value:
    return c.emit("identity", c.x) if c.x.dtype == c.dtype else c.emit("cast", c.x, dtype=c.dtype)


@reads("Conjugate", "Conj", "Real", "Imag", "Angle")
def _part(c: Call) -> Value:
    """Of complex numbers; a real one is its own conjugate."""
    name, x = type(c.op).__name__, c.x
    is_complex = x.dtype.startswith("complex")
    real = {"complex64": "float32", "complex128": "float64"}.get(x.dtype, x.dtype)
    if name in ("Conjugate", "Conj"):
        return c.emit("unary", x, function="conjugate") if is_complex else c.emit("identity", x)
    if is_complex:
        words = {"Real": "real", "Imag": "imaginary", "Angle": "angle"}
        return c.emit("unary", x, function=words[name], dtype=real)
    if name == "Angle":
        below = c.emit("binary", x, 0, function="less", dtype="bool")
        return c.emit("where", below, math.pi, 0.0, dtype=real)
    return c.emit("identity", x) if name == "Real" else c.emit("full", 0, shape=x.shape, dtype=x.dtype)


@reads("Polar")
def _polar(c: Call) -> Value:
    length, angle = _pair(c)
    parts = (c.emit("multiply", length, c.emit("unary", angle, function=word)) for word in ("cos", "sin"))
    return c.emit("as_complex", c.emit("stack", tuple(parts), axis=len(length.shape)), dtype="complex64")


# Reductions -----------------------------------------------------------------------------------------------------------
def _reduce(function: str) -> Reader:
    def reader(c: Call) -> Value:
        if getattr(c.op, "initial", None) is not None:
            raise Unreadable(f"has initial={c.op.initial}")
        axes = _axes(c.op.axis, c.rank)
        return c.emit("reduce", c.x, function=function, axes=axes, keep=bool(getattr(c.op, "keepdims", False)))

    return reader


READERS.update(
    {
        "Sum": _reduce("sum"),
        "Mean": _reduce("mean"),
        "Prod": _reduce("product"),
        "Max": _reduce("max"),
        "Amax": _reduce("max"),
        "Min": _reduce("min"),
        "Amin": _reduce("min"),
        "Any": _reduce("any"),
        "All": _reduce("all"),
        "Logsumexp": _reduce("logsumexp"),
    }
)


@reads("Var", "Std")
def _variance(c: Call) -> Value:
    root = type(c.op).__name__ == "Std"
    return c.emit("variance", c.x, axes=_axes(c.op.axis, c.rank), keep=bool(c.op.keepdims), root=root)


@reads("Average")
def _average(c: Call) -> Value:
    axes, weights = _axes(c.op.axis, c.rank), c["weights"]
    if weights is None:
        return c.emit("reduce", c.x, function="mean", axes=axes)
    if weights.shape != c.x.shape:
        shape = [1] * c.rank
        for axis, length in zip(axes or (), weights.shape, strict=True):
            shape[axis] = length
        weights = c.emit("expand", c.emit("reshape", weights, shape=tuple(shape)), shape=c.x.shape)
    total = c.emit("reduce", c.emit("multiply", c.x, weights), function="sum", axes=axes)
    return c.emit("divide", total, c.emit("reduce", weights, function="sum", axes=axes))


@reads("CountNonzero")
def _count_nonzero(c: Call) -> Value:
    there = c.emit("binary", c.x, 0, function="not_equal", dtype="bool")
    counted = c.emit("cast", there, dtype=c.dtype)
    return c.emit("reduce", counted, function="sum", axes=_axes(c.op.axis, c.rank))


@reads("Norm")
def _norm(c: Call) -> Value:
    axes = _axes(c.op.axis, c.rank)
    order = c.op.ord
    along = range(c.rank) if axes is None else axes
    if len(along) == 2 and order not in (None, "fro", "euclidean"):
        return _matrix_norm(c, tuple(along), order)
    order = 2.0 if order in (None, "fro", "euclidean") else float(order)
    return c.emit("norm", c.x, order=order, axes=axes, keep=bool(c.op.keepdims))


def _matrix_norm(c: Call, axes: tuple[int, ...], order: Any) -> Value:
    """Of singular values, or the largest or smallest sum of a column or row.

    Source: Golub, Van Loan, "Matrix Computations", section 2.3.
    """
    rest = tuple(axis for axis in range(c.rank) if axis not in axes)
    x = c.emit("permute", c.x, axes=(*rest, *axes))
    if order == "nuc" or abs(order) == 2:
        _, lengths, _ = c.emit_several("svd", x)
    else:
        size = c.emit("unary", x, function="absolute")
        lengths = c.emit("reduce", size, function="sum", axes=(c.rank - (2 if abs(order) == 1 else 1),))
    function = "sum" if order == "nuc" else "max" if order > 0 else "min"
    found = c.emit("reduce", lengths, function=function, axes=(len(rest),))
    kept = tuple(1 if axis in axes else n for axis, n in enumerate(c.x.shape))
    return c.emit("reshape", found, shape=kept) if c.op.keepdims else found


@reads("Cumsum", "Cumprod")
def _cumulative(c: Call) -> Value:
    function = {"Cumsum": "sum", "Cumprod": "product"}[type(c.op).__name__]
    x, axis = (c.emit("reshape", c.x, shape=(-1,)), 0) if c.op.axis is None else (c.x, _axis(c.op.axis, c.rank))
    return c.emit("cumulative", x, function=function, axis=axis)


@reads("Argmax", "Argmin")
def _place(c: Call) -> Value:
    axis = None if c.op.axis is None else _axis(c.op.axis, c.rank)
    return c.emit(type(c.op).__name__.lower(), c.x, axis=axis, keep=bool(c.op.keepdims), dtype=c.dtype)


@reads("TopK")
def _top(c: Call) -> Any:
    return c.emit_several("top", c.x, count=int(c.op.k), axis=c.rank - 1, largest=True)


@reads("Sort", "Argsort")
def _sort(c: Call) -> Any:
    x, axis = (c.emit("reshape", c.x, shape=(-1,)), 0) if c.op.axis is None else (c.x, _axis(c.op.axis, c.rank))
    values, places = c.emit_several("top", x, count=x.shape[axis], axis=axis, largest=False)
    return values if type(c.op).__name__ == "Sort" else places


# Shapes ---------------------------------------------------------------------------------------------------------------
@reads("Reshape", "ExpandDims", "Squeeze", "Ravel")
def _reshape(c: Call) -> Value:
    return c.emit("reshape", c.x, shape=c.shape)


@reads("Transpose")
def _transpose(c: Call) -> Value:
    axes = tuple(reversed(range(c.rank))) if c.op.axes is None else tuple(_axis(a, c.rank) for a in c.op.axes)
    return c.emit("permute", c.x, axes=axes)


@reads("Swapaxes")
def _swap(c: Call) -> Value:
    axes = list(range(c.rank))
    a, b = _axis(c.op.axis1, c.rank), _axis(c.op.axis2, c.rank)
    axes[a], axes[b] = axes[b], axes[a]
    return c.emit("permute", c.x, axes=tuple(axes))


@reads("Moveaxis")
def _moveaxis(c: Call) -> Value:
    source, target = _axes(c.op.source, c.rank) or (), _axes(c.op.destination, c.rank) or ()
    axes = [a for a in range(c.rank) if a not in source]
    for place, axis in sorted(zip(target, source, strict=True)):
        axes.insert(place, axis)
    return c.emit("permute", c.x, axes=tuple(axes))


@reads("BroadcastTo")
def _expand(c: Call) -> Value:
    return c.emit("expand", c.x, shape=c.shape)


@reads("Concatenate")
def _concatenate(c: Call) -> Value:
    parts = c["xs"]
    return c.emit("concatenate", parts, axis=_axis(c.op.axis, len(parts[0].shape)))


@reads("Append")
def _append(c: Call) -> Value:
    parts = _pair(c)
    if c.op.axis is None:
        return c.emit("concatenate", tuple(c.emit("reshape", x, shape=(-1,)) for x in parts), axis=0)
    return c.emit("concatenate", parts, axis=_axis(c.op.axis, c.rank))


@reads("Hstack", "Vstack", "Dstack")
def _joined(c: Call) -> Value:
    name, parts = type(c.op).__name__, c["xs"]
    least, axis = {"Hstack": (1, 1), "Vstack": (2, 0), "Dstack": (3, 2)}[name]

    def grown(x: Value) -> Value:
        shape = x.shape
        if name == "Dstack" and len(shape) == 1:
            shape = (1, *shape)
        while len(shape) < least:
            shape = (*shape, 1) if name == "Dstack" and len(shape) == 2 else (1, *shape)
        return c.emit("reshape", x, shape=shape)

    parts = tuple(map(grown, parts))
    return c.emit("concatenate", parts, axis=0 if len(parts[0].shape) == 1 else axis)


@reads("Stack")
def _stack(c: Call) -> Value:
    return c.emit("stack", c["x"], axis=_axis(c.op.axis, len(c["x"][0].shape) + 1))


@reads("Split", "ArraySplit", "Hsplit", "Vsplit", "Dsplit")
def _split(c: Call) -> tuple[Value, ...]:
    name = type(c.op).__name__
    fixed = {"Hsplit": 1 if c.rank > 1 else 0, "Vsplit": 0, "Dsplit": 2}
    axis = _axis(fixed.get(name, getattr(c.op, "axis", 0)), c.rank)
    parts, start = [], 0
    for symbol in tree.flatten(c.spec):
        length = int(symbol.shape[axis])
        parts.append(c.emit("slice", c.x, axis=axis, start=start, stop=start + length))
        start += length
    return tuple(parts)


@reads("Unstack")
def _unstack(c: Call) -> tuple[Value, ...]:
    axis = _axis(c.op.axis, c.rank)
    return tuple(c.emit("select", c.x, axis=axis, index=i) for i in range(c.x.shape[axis]))


@reads("Pad")
def _pad(c: Call) -> Value:
    modes = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular",
             "symmetric": engines.current().SYMMETRIC}  # fmt: skip
    if c.op.mode not in modes:
        raise Unreadable(f"has mode={c.op.mode!r}")
    widths = c.op.pad_width
    if isinstance(widths, int):
        widths = ((widths, widths),) * c.rank
    widths = tuple((int(a), int(b)) for a, b in (widths if len(widths) == c.rank else tuple(widths) * c.rank))
    mode = modes[c.op.mode]
    if mode == "symmetric":
        return _mirrored(c, c.x, widths)
    return c.emit("pad", c.x, widths=widths, mode=mode, value=float(c["constant_values"] or 0.0))


def _mirrored(c: Call, x: Value, widths: Sequence[tuple[int, int]]) -> Value:
    """Padding that repeats the border's own number too."""
    for axis, (low, high) in enumerate(widths):
        n = x.shape[axis]
        ends = [(0, low), (n - high, n)]
        sides = [
            c.emit("flip", c.emit("slice", x, axis=axis, start=start, stop=stop), axes=(axis,))
            if stop > start
            else None
            for start, stop in ends
        ]
        parts = tuple(part for part in (sides[0], x, sides[1]) if part is not None)
        x = c.emit("concatenate", parts, axis=axis) if len(parts) > 1 else x
    return x


@reads("Roll")
def _roll(c: Call) -> Value:
    if c.op.axis is None:
        flat = c.emit("reshape", c.x, shape=(-1,))
        return c.emit("reshape", c.emit("roll", flat, shifts=(int(c.op.shift),), axes=(0,)), shape=c.x.shape)
    axes = _axes(c.op.axis, c.rank) or ()
    return c.emit("roll", c.x, shifts=_many(c.op.shift, len(axes)), axes=axes)


@reads("Flip", "Fliplr", "Flipud")
def _flip(c: Call) -> Value:
    given = {"Fliplr": 1, "Flipud": 0}.get(type(c.op).__name__, getattr(c.op, "axis", None))
    axes = tuple(range(c.rank)) if given is None else _axes(given, c.rank)

    # A recurrent layer that runs backwards turns its outputs, and Bidirectional turns them back.
    def find(x: Value) -> Node | None:
        giver = c.recorder.builder.giver(x)
        if giver is not None and giver.operator == "identity" and isinstance(giver.operands[0], Value):
            return find(giver.operands[0])
        return giver

    giver = find(c.x)
    if giver is not None and giver.operator == "permute":
        order, turned = giver.attributes["axes"], giver.operands[0]
        inner = find(turned) if isinstance(turned, Value) else None
        back = {order[axis] for axis in axes or ()}
        if inner is not None and inner.operator == "flip" and back == set(inner.attributes["axes"]):
            return c.emit("permute", inner.operands[0], axes=order)
    if giver is not None and giver.operator == "flip" and tuple(giver.attributes["axes"]) == axes:
        return c.emit("identity", giver.operands[0])
    return c.emit("flip", c.x, axes=axes)


@reads("Rot90")
def _quarter_turns(c: Call) -> Value:
    a, b = (_axis(x, c.rank) for x in c.op.axes)
    order = list(range(c.rank))
    order[a], order[b] = order[b], order[a]
    match c.op.k % 4:
        case 0:
            return c.emit("identity", c.x)
        case 1:
            return c.emit("permute", c.emit("flip", c.x, axes=(b,)), axes=tuple(order))
        case 2:
            return c.emit("flip", c.x, axes=(a, b))
    return c.emit("flip", c.emit("permute", c.x, axes=tuple(order)), axes=(b,))


@reads("Tile")
def _tile(c: Call) -> Value:
    counts = _many(c.op.repeats, 1)
    return c.emit("tile", c.x, counts=(1,) * (c.rank - len(counts)) + counts)


@reads("Repeat")
def _repeat(c: Call) -> Value:
    repeats = np.asarray(c.op.repeats)
    x, axis = (c.emit("reshape", c.x, shape=(-1,)), 0) if c.op.axis is None else (c.x, _axis(c.op.axis, c.rank))
    if repeats.size == 1:
        return c.emit("repeat", x, count=int(repeats.reshape(())), axis=axis)
    places = c.recorder.value(np.repeat(np.arange(x.shape[axis]), repeats))
    return c.emit("take", x, places, axis=axis)


@reads("Tril", "Triu")
def _triangle(c: Call) -> Value:
    return c.emit("triangle", c.x, diagonal=int(c.op.k), upper=type(c.op).__name__ == "Triu")


@reads("Diagonal", "Trace")
def _diagonal(c: Call) -> Value:
    a, b = _axis(c.op.axis1, c.rank), _axis(c.op.axis2, c.rank)
    turned = c.emit("permute", c.x, axes=(a, b, *(i for i in range(c.rank) if i not in (a, b))))
    rows, columns = np.diagonal(np.arange(math.prod(turned.shape[:2])).reshape(turned.shape[:2]), c.op.offset), None
    rows, columns = np.divmod(rows, turned.shape[1])
    picked = c.emit("index", turned, (c.recorder.value(rows), c.recorder.value(columns)))
    if type(c.op).__name__ == "Trace":
        return c.emit("reduce", picked, function="sum", axes=(0,))
    return c.emit("permute", picked, axes=(*range(1, len(picked.shape)), 0))


@reads("Meshgrid")
def _meshgrid(c: Call) -> tuple[Value, ...]:
    tensors, order = c["x"], list(range(len(c["x"])))
    if c.op.indexing == "xy" and len(order) > 1:
        order[:2] = [1, 0]
    shape = tuple(tree.flatten(c.spec)[0].shape)
    grids = []
    for i, x in enumerate(tensors):
        laid = [1] * len(shape)
        laid[order[i]] = -1
        grids.append(c.emit("expand", c.emit("reshape", x, shape=tuple(laid)), shape=shape))
    return tuple(grids)


@reads("DepthToSpace")
def _depth_to_space(c: Call) -> Value:
    x, r = c.x, int(c.op.block_size)
    if c.op.data_format == "channels_last":
        n, h, w, channels = x.shape
        blocks = c.emit("reshape", x, shape=(n, h, w, r, r, channels // r**2))
        return c.emit("reshape", c.emit("permute", blocks, axes=(0, 1, 3, 2, 4, 5)), shape=c.shape)
    n, channels, h, w = x.shape
    blocks = c.emit("reshape", x, shape=(n, channels // r**2, r, r, h, w))
    return c.emit("reshape", c.emit("permute", blocks, axes=(0, 1, 4, 2, 5, 3)), shape=c.shape)


@reads("SpaceToDepth")
def _space_to_depth(c: Call) -> Value:
    x, r = c.x, int(c.op.block_size)
    if c.op.data_format == "channels_last":
        n, h, w, channels = x.shape
        blocks = c.emit("reshape", x, shape=(n, h // r, r, w // r, r, channels))
        return c.emit("reshape", c.emit("permute", blocks, axes=(0, 1, 3, 2, 4, 5)), shape=c.shape)
    n, channels, h, w = x.shape
    blocks = c.emit("reshape", x, shape=(n, channels, h // r, r, w // r, r))
    return c.emit("reshape", c.emit("permute", blocks, axes=(0, 1, 3, 5, 2, 4)), shape=c.shape)


@reads("Unfold")
def _unfold(c: Call) -> Value:
    names = ("kernel_size", "stride", "padding", "dilation")
    kernel, stride, padding, dilation = (_many(getattr(c.op, name), 2) for name in names)
    return c.emit("patches", c.x, kernel=kernel, stride=stride, padding=padding, dilation=dilation)


@reads("Fold")
def _fold(c: Call) -> Value:
    names = ("output_size", "kernel_size", "stride", "padding", "dilation")
    sizes, kernel, stride, padding, dilation = (_many(getattr(c.op, name), 2) for name in names)
    return c.emit("overlap_add", c.x, sizes=sizes, kernel=kernel, stride=stride, padding=padding, dilation=dilation)


@reads("ViewAsComplex")
def _as_complex(c: Call) -> Value:
    return c.emit("as_complex", c.x)


@reads("ViewAsReal")
def _as_real(c: Call) -> Value:
    return c.emit("as_real", c.x)


# Places ---------------------------------------------------------------------------------------------------------------
@reads("GetItem")
def _item(c: Call) -> Value:
    x, key = c["x"], c["key"]
    keys = list(key) if isinstance(key, tuple) else [key]
    used = sum(k is not None and k is not Ellipsis for k in keys)
    place = next((i for i, k in enumerate(keys) if k is Ellipsis), None)
    whole = [slice(None)] * (c.rank - used)
    keys = keys + whole if place is None else keys[:place] + whole + keys[place + 1 :]
    if any(isinstance(k, Value) for k in keys):
        return _picked(c, x, keys)
    # From the last axis, so that the places of those before it stay.
    axis = c.rank
    for k in reversed([k for k in keys if k is not None]):
        axis -= 1
        if isinstance(k, slice):
            bounds = slice(*(c.recorder.value(b) for b in (k.start, k.stop, k.step)))
            start, stop, step = bounds.indices(x.shape[axis])
            if step < 0:
                places = c.recorder.value(np.arange(start, stop, step))
                x = c.emit("take", x, places, axis=axis)
            elif (start, stop, step) != (0, x.shape[axis], 1):
                x = c.emit("slice", x, axis=axis, start=start, stop=max(stop, start), step=step)
        else:
            x = c.emit("select", x, axis=axis, index=int(k) % x.shape[axis])
    return c.emit("reshape", x, shape=c.shape)


def _picked(c: Call, x: Value, keys: list[Any]) -> Value:
    if any(_is_boolean(k) for k in keys):
        raise Unreadable("picks by a mask, which gives a number of places that depends on the data")
    if any(k is None or (isinstance(k, slice) and k != slice(None)) for k in keys):
        raise Unreadable("mixes tensors of places with slices or new axes")
    indices = tuple(None if isinstance(k, slice) else k for k in keys)
    return c.emit("index", x, indices)


@reads("Take")
def _take(c: Call) -> Value:
    x, ids = c["x"], c["indices"]
    if not isinstance(ids, Value):
        ids = c.recorder.value(np.asarray(ids))
    if c.op.axis is None:
        x, axis = c.emit("reshape", x, shape=(-1,)), 0
    else:
        axis = _axis(c.op.axis, len(x.shape))
    if not isinstance(ids, Value):
        return c.emit("select", x, axis=axis, index=int(ids) % x.shape[axis])
    if "int" not in ids.dtype:
        ids = c.emit("cast", ids, dtype="int32")
    if axis == 0 and len(x.shape) == 2 and c.recorder.builder.is_weight(x):
        return c.emit("embedding", x, ids)
    return c.emit("take", x, ids, axis=axis)


@reads("TakeAlongAxis")
def _gather(c: Call) -> Value:
    x, ids = c["x"], c["indices"]
    if c.op.axis is None:
        return c.emit("gather", c.emit("reshape", x, shape=(-1,)), c.emit("reshape", ids, shape=(-1,)), axis=0)
    return c.emit("gather", x, ids, axis=_axis(c.op.axis, c.rank))


def _hot(c: Call, ids: Value, count: int, dtype: str) -> Value:
    """1 at the place of each id along a new last axis; a place that no class has is zero everywhere."""
    if "int" not in ids.dtype:
        ids = c.emit("cast", ids, dtype="int32")
    classes = c.emit("arange", 0, count, dtype=ids.dtype, length=count)
    hot = c.emit("binary", c.emit("reshape", ids, shape=(*ids.shape, 1)), classes, function="equal", dtype="bool")
    result: Value = c.emit("cast", hot, dtype=dtype)
    return result


@reads("OneHot")
def _one_hot(c: Call) -> Value:
    if c.op.sparse:
        raise Unreadable("is sparse")
    hot = _hot(c, c.x, int(c.op.num_classes), c.dtype)
    axis = _axis(c.op.axis, c.rank + 1)
    if axis == c.rank:
        return hot
    order = list(range(c.rank))
    order.insert(axis, c.rank)
    return c.emit("permute", hot, axes=tuple(order))


@reads("MultiHot")
def _multi_hot(c: Call) -> Value:
    if c.op.sparse:
        raise Unreadable("is sparse")
    hot = _hot(c, c.x, int(c.op.num_classes), c.dtype)
    return c.emit("reduce", hot, function="max", axes=(1 if c.rank > 1 else 0,))


@reads("Digitize")
def _digitize(c: Call) -> Value:
    x, bins = c["x"], c["bins"]
    bins = bins if isinstance(bins, Value) else c.recorder.value(np.asarray(bins, np.float32))
    beyond = c.emit("binary", c.emit("reshape", x, shape=(*x.shape, 1)), bins, function="greater_equal", dtype="bool")
    return c.emit("reduce", c.emit("cast", beyond, dtype="int32"), function="sum", axes=(len(x.shape),))


@reads("SliceUpdate")
def _slice_update(c: Call) -> Value:
    x, updates = c["inputs"], c["updates"]
    starts = c["start_indices"]
    if isinstance(starts, Value):
        leaf = c.recorder.builder.leaf_of(starts)
        if leaf is None or leaf.array is None:
            raise Unreadable("begins at places that depend on the data")
        starts = leaf.array.tolist()
    steps = [
        (axis, int(start), int(start) + length)
        for axis, (start, length) in enumerate(zip(starts, updates.shape, strict=True))
        if length != x.shape[axis]
    ]
    wholes = [x]
    for axis, start, stop in steps[:-1]:
        wholes.append(c.emit("slice", wholes[-1], axis=axis, start=start, stop=stop))
    for whole, (axis, start, stop) in zip(reversed(wholes), reversed(steps), strict=False):
        updates = c.emit("update", whole, updates, axis=axis, start=start, stop=stop)
    return c.emit("identity", updates)


@reads("Slice")
def _slice(c: Call) -> Value:
    starts = c["start_indices"]
    x: Value = c["inputs"]
    if isinstance(starts, Value):
        raise Unreadable("begins at places that depend on the data")
    for axis, (start, length) in enumerate(zip(starts, c.shape, strict=True)):
        x = c.emit("slice", x, axis=axis, start=int(start), stop=int(start) + length)
    return x


# Attention ------------------------------------------------------------------------------------------------------------
@reads("DotProductAttention")
def _attention(c: Call) -> Value:
    query, key, value = (c.emit("permute", c[name], axes=(0, 2, 1, 3)) for name in ("query", "key", "value"))
    mask, bias = c["mask"], c["bias"]
    if mask is not None:
        # A query that sees no key sees all of them alike, which minus infinity would not give.
        hidden = -0.7 * float(np.finfo(np.float32).max)
        bias = c.emit("where", mask, 0.0 if bias is None else bias, hidden, dtype=query.dtype)
    scale = None if c["scale"] is None else float(c["scale"])
    shared = key.shape[1] != query.shape[1]
    y = c.emit(
        "attention", query, key, value, bias, scale=scale, causal=bool(c.op.is_causal),
        shared_heads=shared,
    )  # fmt: skip
    return c.emit("permute", y, axes=(0, 2, 1, 3))


# Fourier --------------------------------------------------------------------------------------------------------------
def _parts(c: Call, x: Value) -> tuple[Value, Value]:
    """Real and imaginary part, which Keras keeps apart."""
    pairs = c.emit("as_real", x, dtype=c.x.dtype if isinstance(c.x, Value) else None)
    last = len(pairs.shape) - 1
    return c.emit("select", pairs, axis=last, index=0), c.emit("select", pairs, axis=last, index=1)


def _complex(c: Call) -> Value:
    return c.emit("as_complex", c.emit("stack", tuple(c.x), axis=len(c.x[0].shape)), dtype="complex64")


@reads("FFT", "FFT2", "IFFT2")
def _fourier(c: Call) -> tuple[Value, ...]:
    name, x = type(c.op).__name__, _complex(c)
    axes = tuple(range(len(x.shape)))[-1 if name == "FFT" else -2 :]
    pairs = c.emit("as_real", c.emit("fourier", x, axes=axes, inverse=name == "IFFT2"), dtype=c.x[0].dtype)
    return tuple(c.emit("select", pairs, axis=len(x.shape), index=i) for i in (0, 1))


def _with_length(c: Call, x: Value, length: int | None) -> Value:
    """X cut, or padded with zeros, to a length of its last axis."""
    last, n = len(x.shape) - 1, x.shape[-1]
    if length is None or length == n:
        return x
    cut: Value = c.emit("pad", x, widths=((0, 0),) * last + ((0, length - n),))  # a negative number cuts
    return cut


@reads("RFFT")
def _real_fourier(c: Call) -> tuple[Value, Value]:
    x = _with_length(c, c.x, c.op.fft_length)
    return _parts(c, c.emit("fourier", x, axes=(len(x.shape) - 1,), half=True, dtype="complex64"))


@reads("IRFFT")
def _real_inverse(c: Call) -> Value:
    x = _complex(c)
    length = 2 * (x.shape[-1] - 1) if c.op.fft_length is None else int(c.op.fft_length)
    bins = length // 2 + 1
    if x.shape[-1] != bins:
        axis = len(x.shape) - 1
        parts = tuple(c.emit("pad", part, widths=((0, 0),) * axis + ((0, bins - part.shape[-1]),)) for part in c.x)
        x = c.emit("as_complex", c.emit("stack", parts, axis=axis + 1), dtype="complex64")
    axes = (len(x.shape) - 1,)
    return c.emit("fourier", x, axes=axes, inverse=True, half=True, length=length, dtype=c.x[0].dtype)


@reads("Scatter")
def _scattered(c: Call) -> Value:
    empty = c.emit("full", 0, shape=tuple(map(int, c.op.shape)), dtype=c["values"].dtype)
    return c.emit("write", empty, _columns(c, c["indices"]), c["values"], accumulate=True)


@reads("ScatterUpdate")
def _updated(c: Call) -> Value:
    if c.op.reduction not in (None, "add"):
        raise Unreadable(f"has reduction={c.op.reduction!r}")
    places, updates = _columns(c, c["indices"]), c["updates"]
    if isinstance(updates, list | tuple):
        updates = c.recorder.value(np.asarray(updates, c["inputs"].dtype))
    return c.emit("write", c["inputs"], places, updates, accumulate=c.op.reduction == "add")


def _columns(c: Call, indices: Any) -> tuple[Value, ...]:
    """Places along each of the first axes, from an array whose last axis holds them."""
    indices = indices if isinstance(indices, Value) else c.recorder.value(np.asarray(indices))
    last = len(indices.shape) - 1
    return tuple(c.emit("select", indices, axis=last, index=i) for i in range(indices.shape[-1]))


@reads("STFT")
def _short_time_fourier(c: Call) -> tuple[Value, Value]:
    """Windows of the signal, times the window function, transformed."""
    x, length, padded = c.x, int(c.op.sequence_length), int(c.op.fft_length)
    last = c.rank - 1
    if c.op.center:
        x = c.emit("pad", x, widths=((0, 0),) * last + ((padded // 2, padded // 2),), mode="reflect")
    before = (padded - length) // 2
    frames = c.emit("unfold", x, axis=last, length=padded, step=int(c.op.sequence_stride))
    window = np.pad(window_of(c.op, length), (before, padded - length - before))
    frames = c.emit("multiply", frames, c.recorder.value(window.astype(np.float32 if x.dtype != "float64" else float)))
    return _parts(c, c.emit("fourier", frames, axes=(last + 1,), half=True, dtype="complex64"))


def window_of(op: Any, length: int) -> Any:
    """The window function of an operation, in its periodic form.

    Source: Harris, "On the Use of Windows for Harmonic Analysis", 1978.
    """
    waves = np.cos(2 * np.pi * np.arange(length) / length)
    match op.window:
        case "hann":
            return 0.5 - 0.5 * waves
        case "hamming":
            return 0.54 - 0.46 * waves
        case None:
            return np.ones(length)
    return keras.ops.convert_to_numpy(op.window)


# Matrices -------------------------------------------------------------------------------------------------------------
_MATRICES: dict[str, tuple[str, dict[str, str]]] = {
    "Inv": ("inverse", {}), "Det": ("determinant", {}), "Cholesky": ("cholesky", {"upper": "upper"}),
    "Solve": ("solve", {}), "SolveTriangular": ("triangular_solve", {"lower": "lower"}), "Eigh": ("eigh", {}),
    "LuFactor": ("lu", {}), "Slogdet": ("log_determinant", {}), "Logdet": ("log_determinant", {}), "Qr": ("qr", {}),
    "SVD": ("svd", {"full": "full_matrices"}),
}  # fmt: skip
"""The operator of each operation, with its options' names to those of the operation."""


@reads(*_MATRICES)
def _matrices(c: Call) -> Any:
    name = type(c.op).__name__
    operator, names = _MATRICES[name]
    options: dict[str, Any] = {ours: bool(getattr(c.op, theirs)) for ours, theirs in names.items()}
    if name == "Qr":
        options["complete"] = c.op.mode == "complete"
    results = c.recorder.builder.emit(operator, *c.given.values(), **options)
    return results[1] if name == "Logdet" or (name == "SVD" and not c.op.compute_uv) else results


# Images ---------------------------------------------------------------------------------------------------------------
@reads("Resize")
def _resize(c: Call) -> Value:
    x, axis = c["images"], _channel_axis(c.op.data_format)
    single = len(x.shape) == 3
    x = c.emit("reshape", x, shape=(1, *x.shape)) if single else x
    height, width = map(int, c.op.size)
    if c.op.crop_to_aspect_ratio:
        x = _cropped(c, x, axis, (height, width))
    elif c.op.pad_to_aspect_ratio:
        x = _padded(c, x, axis, (height, width))
    # What is widened is a filter; and a widened one is Keys' own on every engine.
    widened = bool(c.op.antialias) and c.op.interpolation not in ("nearest", "area")
    cubic, edges = (-0.5, "renormalize") if widened else engines.current().CUBIC
    y = c.emit(
        "resize", x, sizes=(height, width), method=c.op.interpolation, antialias=widened, cubic=cubic, edges=edges,
        channel_axis=axis,
    )  # fmt: skip
    return c.emit("reshape", y, shape=y.shape[1:]) if single else y


def _cropped(c: Call, x: Value, channel_axis: int, wanted: tuple[int, int]) -> Value:
    height, width = _sizes(x, channel_axis)
    kept = (
        max(min(height, int(float(width * wanted[0]) / wanted[1])), 1),
        max(min(width, int(float(height * wanted[1]) / wanted[0])), 1),
    )
    first = 2 if channel_axis == 1 else 1
    for place, (old, new) in enumerate(zip((height, width), kept, strict=True)):
        start = int(float(old - new) / 2)
        x = c.emit("slice", x, axis=first + place, start=start, stop=start + new)
    return x


def _padded(c: Call, x: Value, channel_axis: int, wanted: tuple[int, int]) -> Value:
    height, width = _sizes(x, channel_axis)
    grown = (
        max(height, int(float(width * wanted[0]) / wanted[1])),
        max(width, int(float(height * wanted[1]) / wanted[0])),
    )
    # Keras puts as much on both sides, and pads one axis at most.
    before = [int(float(new - old) / 2) for new, old in zip(grown, (height, width), strict=True)]
    before = [before[0], 0] if before[0] > 0 else before
    spatial = [(n, n) for n in before]
    widths = ((0, 0), (0, 0), *spatial) if channel_axis == 1 else ((0, 0), *spatial, (0, 0))
    return c.emit("pad", x, widths=widths, value=float(c.op.fill_value))


@reads("RGBToGrayscale")
def _grayscale(c: Call) -> Value:
    axis = c.rank - 3 if _channel_axis(c.op.data_format) == 1 else c.rank - 1
    shape = [1] * c.rank
    shape[axis] = 3
    weights = c.recorder.value(np.array([0.2989, 0.5870, 0.1140], np.float32).reshape(shape))
    return c.emit("reduce", c.emit("multiply", c.x, weights), function="sum", axes=(axis,), keep=True)


# Constants ------------------------------------------------------------------------------------------------------------
@reads("ZerosLike", "OnesLike", "EmptyLike")
def _filled(c: Call) -> Value:
    return c.emit("full", 1 if type(c.op).__name__ == "OnesLike" else 0, shape=c.shape, dtype=c.dtype)


@reads("FullLike", "Full")
def _full(c: Call) -> Value:
    value = c["fill_value"]
    if not isinstance(value, Value):
        return c.emit("full", value, shape=c.shape, dtype=c.dtype)
    return c.emit("expand", value, shape=c.shape)


Creation = Callable[[Builder, Mapping[str, Any], tuple[int, ...], str], Value | None]
"""Writes an array that is made of numbers alone, by the arguments, its shape and its type; None: a constant."""


def _ranged(builder: Builder, given: Mapping[str, Any], shape: tuple[int, ...], dtype: str) -> Value | None:
    start, stop = (0, given["start"]) if given.get("stop") is None else (given["start"], given["stop"])
    step = 1 if given.get("step") is None else given["step"]
    value: Value = builder.emit("arange", start, stop, step, dtype=dtype, length=shape[0])
    return value


def _filling(number: int | None) -> Creation:
    def write(builder: Builder, given: Mapping[str, Any], shape: tuple[int, ...], dtype: str) -> Value | None:
        value: Value = builder.emit("full", given["fill_value"] if number is None else number, shape=shape, dtype=dtype)
        return value

    return write


CREATIONS: Mapping[str, Creation] = {
    "arange": _ranged, "ones": _filling(1), "zeros": _filling(0), "full": _filling(None),
}  # fmt: skip
"""By the function of ``keras.ops``."""


@reads("Size")
def _size(c: Call) -> Value:
    return c.emit("full", math.prod(c.x.shape), shape=(), dtype=c.dtype)


# Whole layers ---------------------------------------------------------------------------------------------------------
LayerReader = Callable[..., Any]


_NOISES = {"AlphaDropout": "alpha", "GaussianDropout": "gaussian"}
"""What layers of dropout put in the place of a number, where it is no zero."""


def _dropout(recorder: Recorder, layer: Any, x: Any, *args: Any, training: Any = None, **kwargs: Any) -> Any:
    rate = float(getattr(layer, "rate", 0.0))
    if training:
        raise Unreadable(f"a layer of class {type(layer).__name__} draws random numbers")
    if not rate:
        return NotImplemented
    shape = getattr(layer, "noise_shape", None)
    if shape is None and hasattr(layer, "_get_noise_shape"):
        drawn = zip(layer._get_noise_shape(x), x.shape, strict=True)
        shape = tuple(None if n != 1 or given == 1 else 1 for n, given in drawn)
    options: dict[str, Any] = {}
    if shape is not None:
        options["axes"] = tuple(axis for axis, n in enumerate(shape) if n != 1)
    if type(layer).__name__ in _NOISES:
        options["noise"] = _NOISES[type(layer).__name__]
    return recorder.symbolic(recorder.emit("dropout", recorder.value(x), rate=rate, **options))


def _up_sampled(recorder: Recorder, layer: Any, x: Any) -> Any:
    if getattr(layer, "interpolation", "nearest") != "nearest":
        return NotImplemented
    value = recorder.value(x)
    axis = _channel_axis(getattr(layer, "data_format", "channels_last"))
    factors = _many(layer.size, len(value.shape) - 2)
    sizes = tuple(n * factor for n, factor in zip(_sizes(value, axis), factors, strict=True))
    scales = tuple(map(float, factors))
    y = recorder.emit("resize", value, sizes=sizes, method="nearest", scales=scales, channel_axis=axis)
    return recorder.symbolic(y)


def _prelu(recorder: Recorder, layer: Any, x: Any) -> Any:
    slope, rank = recorder.value(layer.alpha), len(x.shape)
    long = [axis for axis, n in enumerate(slope.shape, rank - len(slope.shape)) if n > 1]
    if len(long) > 1:
        return NotImplemented
    axis = long[0] if long else rank - 1
    flat = recorder.emit("reshape", slope, shape=(-1,))
    axis = -1 if axis == rank - 1 else axis
    return recorder.symbolic(recorder.emit("prelu", recorder.value(x), flat, channel_axis=axis))


def _group_norm(recorder: Recorder, layer: Any, x: Any) -> Any:
    rank = len(x.shape)
    if layer.axis not in (-1, 1, rank - 1):
        return NotImplemented
    axis = -1 if layer.axis in (-1, rank - 1) else 1
    weights = [recorder.value(w) if used else None
               for w, used in ((layer.gamma, layer.scale), (layer.beta, layer.center))]  # fmt: skip
    epsilon = float(layer.epsilon)
    return recorder.symbolic(
        recorder.emit(
            "group_norm", recorder.value(x), *weights, groups=int(layer.groups), epsilon=epsilon, channel_axis=axis
        )
    )


def _batch_norm_layer(
    recorder: Recorder, layer: Any, x: Any, *args: Any, training: Any = None, mask: Any = None, **kwargs: Any
) -> Any:
    """As its own call, with the momentum, which is told in no operation."""
    learns = training and layer.trainable
    if learns and (mask is not None or layer.renorm):
        return NotImplemented
    rank, value = len(x.shape), recorder.value(x)
    axis = _axis(layer.axis, rank)
    options = {"epsilon": float(layer.epsilon), "channel_axis": -1 if axis == rank - 1 else axis}
    scale = recorder.value(layer.gamma) if layer.scale else None
    offset = recorder.value(layer.beta) if layer.center else None
    if learns:
        return recorder.symbolic(recorder.emit("batch_norm_training", value, scale, offset, **options))
    statistics = [recorder.value(v) for v in (layer.moving_mean, layer.moving_variance)]
    momentum = round(1.0 - float(layer.momentum), 12)
    return recorder.symbolic(
        recorder.emit("batch_norm", value, *statistics, scale, offset, **options, momentum=momentum)
    )


def _flattened(recorder: Recorder, layer: Any, x: Any) -> Any:
    """As its own call, with the number of images known."""
    value = recorder.value(x)
    if layer.data_format == "channels_first" and len(value.shape) > 1:
        value = recorder.emit("permute", value, axes=(0, *range(2, len(value.shape)), 1))
    size = math.prod(value.shape[1:])
    return recorder.symbolic(recorder.emit("reshape", value, shape=(value.shape[0], size)))


def _time_distributed(recorder: Recorder, layer: Any, x: Any, *args: Any, mask: Any = None, **kwargs: Any) -> Any:
    """All times at once, as one long batch; Keras runs them one after the other, which is the same in inference."""
    if mask is not None and layer.layer._call_has_mask_arg:
        return NotImplemented
    batch, times, *rest = recorder.value(x).shape
    flat = keras.ops.reshape(x, (batch * times, *rest))
    y = layer.layer(flat)
    return tree.map_structure(lambda z: keras.ops.reshape(z, (batch, times, *z.shape[1:])), y)


def _einsum_dense(recorder: Recorder, layer: Any, x: Any, *args: Any, training: Any = None) -> Any:
    """A product over the last axes with a matrix, which a kernel of more axes is."""
    left, right = layer.equation.replace(" ", "").split("->")
    given, kernel = left.split(",")
    summed = [letter for letter in given if letter in kernel and letter not in right]
    new = kernel[len(summed) :]
    plain = "." not in layer.equation and len(set(given)) == len(given) and layer.quantization_mode is None
    ends = given[len(given) - len(summed) :] == kernel[: len(summed)] == "".join(summed)
    if not plain or not summed or not ends or right != given[: len(given) - len(summed)] + new:
        return NotImplemented
    value, weight = recorder.value(x), recorder.value(layer.kernel)
    before = value.shape[: len(value.shape) - len(summed)]
    size, units = math.prod(weight.shape[: len(summed)]), math.prod(weight.shape[len(summed) :])
    shape = weight.shape[len(summed) :]
    bias = None if layer.bias is None else recorder.value(layer.bias)
    if bias is not None and bias.shape != shape:
        return NotImplemented

    def flat(y: Value, shape: tuple[int, ...]) -> Value:
        return y if y.shape == shape else recorder.emit("reshape", y, shape=shape)

    matrix = recorder.emit("permute", flat(weight, (size, units)), axes=(1, 0))
    y = recorder.emit("linear", flat(value, (*before, size)), matrix, None if bias is None else flat(bias, (units,)))
    symbol = recorder.symbolic(flat(y, (*before, *shape)))
    return symbol if layer.activation is None else layer.activation(symbol)


def _conv_lstm_cell(recorder: Recorder, cell: Any, x: Any, states: Any, training: Any = None, **kwargs: Any) -> Any:
    """All gates of an image as one convolution each of the input and of the state; Keras runs one a gate."""
    if (training and (cell.dropout or cell.recurrent_dropout)) or cell.data_format != "channels_last":
        return NotImplemented
    h, c = states
    rank, ones = cell.rank, (1,) * cell.rank

    def convolved(x: Any, kernel: Any, bias: Any, **options: Any) -> Any:
        y = keras.ops.conv(x, kernel, **options)
        return y if bias is None else keras.ops.add(y, bias)

    bias = cell.bias if cell.use_bias else None
    given = convolved(x, cell.kernel, bias, strides=cell.strides, padding=cell.padding,
                      dilation_rate=cell.dilation_rate, data_format=cell.data_format)  # fmt: skip
    kept = convolved(h, cell.recurrent_kernel, None, strides=ones, padding="same", data_format=cell.data_format)
    gates = keras.ops.split(keras.ops.add(given, kept), 4, axis=rank + 1)
    i, f, o = (cell.recurrent_activation(gates[place]) for place in (0, 1, 3))
    c = keras.ops.add(keras.ops.multiply(f, c), keras.ops.multiply(i, cell.activation(gates[2])))
    h = keras.ops.multiply(o, cell.activation(c))
    return h, [h, c]


def _looked_up(recorder: Recorder, layer: Any, x: Any) -> Any:
    """The place of each integer in a vocabulary, which Keras holds in a table of TensorFlow's.

    Source: Keras 3, ``IndexLookup.call``.
    """
    keys, values = (np.asarray(part) for part in layer.lookup_table.export())
    several = layer.num_oov_indices > 1 and not layer.invert
    if several and getattr(layer, "oov_method", None) == "farmhash":
        raise Unreadable("a layer of class IntegerLookup hashes the integers that it does not know")
    hot = keras.ops.equal(keras.ops.expand_dims(x, -1), keys.astype(x.dtype))
    found = keras.ops.sum(keras.ops.where(hot, values.astype("int64"), 0), axis=-1)
    other: Any = int(layer._default_value)
    if several:
        other = keras.ops.mod(x, layer.num_oov_indices) + layer._oov_start_index()
    found = keras.ops.where(keras.ops.any(hot, axis=-1), found, other)
    if layer.mask_token is not None:
        found = keras.ops.where(keras.ops.equal(x, int(layer._mask_key)), int(layer._mask_value), found)
    if layer.output_mode == "int":
        return keras.ops.cast(found, "int64")
    depth = layer.max_tokens if layer.pad_to_max_tokens else layer._frozen_vocab_size
    counted = layer.output_mode == "tf_idf"
    mode = "count" if counted else layer.output_mode
    y = numerical_utils.encode_categorical_inputs(found, output_mode=mode, depth=depth, dtype=layer.dtype)
    return keras.ops.multiply(y, np.asarray(layer.idf_weights_const)) if counted else y


def of_text(layer: Any) -> str:
    """Why a layer has no translation whose results TensorFlow computes from text; numbers it hashes as their digits."""
    kind = type(layer).__name__
    done = "hashes its inputs as text" if kind in ("Hashing", "HashedCrossing") else "looks up text"
    return f"a layer of class {kind} {done}: run it before the model, and read the model that takes what it gives"


def _text(recorder: Recorder, layer: Any, *args: Any, **kwargs: Any) -> Any:
    raise Unreadable(of_text(layer))


TEXT = ("StringLookup", "TextVectorization", "Hashing", "HashedCrossing")
"""Layers that work on text."""

LAYERS: Mapping[str, LayerReader] = {
    "IntegerLookup": _looked_up,
    **dict.fromkeys(TEXT, _text),
    "ConvLSTMCell": _conv_lstm_cell,
    **dict.fromkeys(
        ("Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "AlphaDropout", "GaussianDropout"),
        _dropout,
    ),
    **{f"UpSampling{n}D": _up_sampled for n in (1, 2, 3)},
    "PReLU": _prelu,
    "EinsumDense": _einsum_dense,
    "GroupNormalization": _group_norm,
    "BatchNormalization": _batch_norm_layer,
    "Flatten": _flattened,
    "TimeDistributed": _time_distributed,
}
"""Layers that are one operator of the vocabulary where their own call is several; by class. NotImplemented: run it."""
