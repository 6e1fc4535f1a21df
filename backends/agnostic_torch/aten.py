"""Each operator of torch in the words of the vocabulary.

A reader takes a call, with its arguments by the names of torch's own schema, and writes nodes. In-place operators have
no reader of their own: ``relu_`` is ``relu``, and then a write (:mod:`agnostic_torch.functional`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx

from agnostic.program.builder import Builder
from agnostic.program.nodes import Value
from agnostic.program.operators.products import explicit
from agnostic.tables import filling


class Unreadable(Exception):
    """An operator is asked for something that has no translation; the message completes "operator X ..."."""


@dataclass
class Call:
    """One call of an operator.

    Attributes:
        node: in the graph.
        builder: where to write.
        read: the value of a node of the graph.
        given: the arguments by the names of the operator's schema, defaults filled in, tensors as values.
        seen: the names of those that the reader looked at.
    """

    node: fx.Node
    builder: Builder
    read: Callable[[fx.Node], Any]
    given: dict[str, Any] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)

    def read_operands(self) -> None:
        """Fill :attr:`given`."""
        schema = getattr(self.node.target, "_schema", None)
        if schema is None:
            raise Unreadable("is no operator of torch's own")
        args = [self._held(a) for a in self.node.args]
        kwargs = {name: self._held(a) for name, a in self.node.kwargs.items()}
        for place, argument in enumerate(schema.arguments):
            if place < len(args):
                self.given[argument.name] = args[place]
            elif argument.name in kwargs:
                self.given[argument.name] = kwargs[argument.name]
            else:
                self.given[argument.name] = self._held(argument.default_value)

    def _held(self, argument: Any) -> Any:
        if isinstance(argument, fx.Node):
            return self.read(argument)
        if isinstance(argument, list | tuple):
            return tuple(self._held(a) for a in argument)
        return argument

    def __getitem__(self, name: str) -> Any:
        self.seen.add(name)
        return self.given[name]

    def get(self, name: str, default: Any = None) -> Any:
        """An argument, or the default where the operator has none of that name."""
        self.seen.add(name)
        return self.given.get(name, default)

    @property
    def name(self) -> str:
        """Of the operator; one that works in place has the name of the other, whose values it gives."""
        found = name_of(self.node.target)
        if found.startswith("__"):
            return re.sub("^__i(?=and|or|xor|lshift|rshift)", "__", found)  # as in x |= y
        return found.removesuffix("_")

    @property
    def x(self) -> Any:
        """The first argument."""
        return self.first(1)[0]

    def first(self, count: int) -> list[Any]:
        """The first arguments, whatever their names."""
        self.seen |= set(list(self.given)[:count])
        return list(self.given.values())[:count]

    def check_seen(self) -> None:
        """Raise Unreadable where an option is given that the reader did not look at."""
        for argument in self.node.target._schema.arguments:  # type: ignore[union-attr]
            name = argument.name
            is_option = argument.has_default_value() or argument.kwarg_only
            if not is_option or name in self.seen or name in _WITHOUT_EFFECT:
                continue
            if not argument.has_default_value() or self.given[name] != self._held(argument.default_value):
                raise Unreadable(f"has {name}={self.given[name]}")

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the output, as torch says."""
        return tuple(int(n) for n in self.node.meta["val"].shape)

    @property
    def dtype(self) -> str:
        """The type of the output, as torch says."""
        return str(self.node.meta["val"].dtype).removeprefix("torch.")

    def emit(self, operator: str, *operands: Any, **attributes: Any) -> Value:
        """Write a node of one output."""
        value: Value = self.builder.emit(operator, *operands, **attributes)
        return value

    def emit_several(self, operator: str, *operands: Any, **attributes: Any) -> tuple[Value, ...]:
        """Write a node of several outputs."""
        values: tuple[Value, ...] = self.builder.emit(operator, *operands, **attributes)
        return values


_WITHOUT_EFFECT = frozenset((
    "dtype", "layout", "device", "pin_memory", "memory_format", "non_blocking", "copy", "generator",
    "cudnn_enabled", "cudnn_enable", "sorted", "stable", "scale_grad_by_freq", "sparse", "padding_idx",
    "check_errors", "output_size", "implicit", "out_int32", "enabled", "track_running_stats", "half_to_float",
    "compute_mode", "path", "names", "requires_grad", "start_dim", "end_dim",
))  # fmt: skip
"""Options that change no number of a result, or its type or shape, which are known."""

Reader = Callable[[Call], Any]
READERS: dict[str, Reader] = {}
reads = filling(READERS)
"""Make a function the reader of operators, by their names without overload."""


def name_of(target: Any) -> str:
    """An operator's name without its namespace and overload: ``"conv2d"`` of ``aten.conv2d.padding``."""
    packet = getattr(target, "overloadpacket", None)
    return str(getattr(packet or target, "__name__", target)).rpartition(".")[2]


def _axis(axis: int, rank: int) -> int:
    return int(axis) % max(rank, 1)


def _axes(axes: Any, rank: int) -> tuple[int, ...] | None:
    if axes is None or (isinstance(axes, tuple) and not axes):
        return None
    return tuple(_axis(a, rank) for a in (axes if isinstance(axes, tuple) else (axes,)))


def _many(numbers: Any, rank: int) -> tuple[int, ...]:
    numbers = numbers if isinstance(numbers, list | tuple) else (numbers,)
    return tuple(int(n) for n in numbers) if len(numbers) == rank else (int(numbers[0]),) * rank


# Products and convolutions --------------------------------------------------------------------------------------------
@reads("linear")
def _linear(c: Call) -> Value:
    return c.emit("linear", c["input"], c["weight"], c["bias"])


@reads("matmul", "mm", "bmm", "mv", "dot", "vdot", "inner")
def _matmul(c: Call) -> Value:
    a, b = c.first(2)
    return c.emit("matmul", a, b)


@reads("addmm", "baddbmm", "addmv", "addbmm")
def _addmm(c: Call) -> Value:
    start, a, b = c.first(3)
    product = c.emit("matmul", a, b)
    if c["alpha"] != 1:
        product = c.emit("multiply", product, c["alpha"])
    if c["beta"] != 1:
        start = c.emit("multiply", start, c["beta"])
    return c.emit("add", start, product)


@reads("outer", "ger")
def _outer(c: Call) -> Value:
    a, b = c.first(2)
    return c.emit("outer", a, b)


@reads("bilinear")
def _bilinear(c: Call) -> Value:
    lead = "abcdefgh"[: len(c["input1"].shape) - 1]
    operands = (c["input1"], c["weight"], c["input2"])
    y = c.emit("einsum", operands, equation=f"{lead}i,oij,{lead}j->{lead}o")
    return y if c["bias"] is None else c.emit("add", y, c["bias"])


@reads("cosine_similarity")
def _cosine(c: Call) -> Value:
    a, b, epsilon = c["x1"], c["x2"], float(c["eps"])
    axes = (_axis(c["dim"], len(c.shape) + 1),)
    product = c.emit("reduce", c.emit("multiply", a, b), function="sum", axes=axes)
    lengths = []
    for x in (a, b):
        along = (axes[0] - (len(c.shape) + 1 - len(x.shape)),)
        lengths.append(c.emit("maximum", c.emit("norm", x, axes=along), epsilon))
    return c.emit("divide", product, c.emit("multiply", *lengths))


@reads("pairwise_distance")
def _pairwise_distance(c: Call) -> Value:
    gap = c.emit("add", c.emit("subtract", c["x1"], c["x2"]), float(c["eps"]))
    return c.emit("norm", gap, order=float(c["p"]), axes=(len(gap.shape) - 1,), keep=bool(c["keepdim"]))


@reads("cdist")
def _cdist(c: Call) -> Value:
    a, b = c["x1"], c["x2"]
    gap = c.emit(
        "subtract", c.emit("reshape", a, shape=(*a.shape[:-1], 1, a.shape[-1])),
        c.emit("reshape", b, shape=(*b.shape[:-2], 1, *b.shape[-2:])),
    )  # fmt: skip
    return c.emit("norm", gap, order=float(c["p"]), axes=(len(gap.shape) - 1,))


@reads("einsum")
def _einsum(c: Call) -> Value:
    operands = c["tensors"]
    return c.emit("einsum", operands, equation=explicit(c["equation"], [len(x.shape) for x in operands]))


@reads("conv1d", "conv2d", "conv3d")
def _convolution(c: Call) -> Value:
    x, weight = c["input"], c["weight"]
    rank = len(weight.shape) - 2
    single = len(x.shape) == rank + 1
    x = c.emit("reshape", x, shape=(1, *x.shape)) if single else x
    stride, dilation = _many(c["stride"], rank), _many(c["dilation"], rank)
    padding = _padding(c["padding"], weight.shape[2:], dilation)
    y = c.emit(
        "convolution", x, weight, c["bias"], stride=stride, padding=padding, dilation=dilation, groups=int(c["groups"])
    )
    return c.emit("reshape", y, shape=y.shape[1:]) if single else y


def _padding(padding: Any, kernel: Sequence[int], dilation: Sequence[int]) -> tuple[tuple[int, int], ...]:
    if padding == "valid":
        return ((0, 0),) * len(kernel)
    if padding == "same":
        totals = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        return tuple((total // 2, total - total // 2) for total in totals)
    return tuple((p, p) for p in _many(padding, len(kernel)))


@reads("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def _transposed(c: Call) -> Value:
    x, weight = c["input"], c["weight"]
    rank = len(weight.shape) - 2
    single = len(x.shape) == rank + 1
    x = c.emit("reshape", x, shape=(1, *x.shape)) if single else x
    y = c.emit(
        "transposed_convolution", x, weight, c["bias"], stride=_many(c["stride"], rank),
        crop=tuple((p, p) for p in _many(c["padding"], rank)), extra=_many(c["output_padding"], rank),
        dilation=_many(c["dilation"], rank), groups=int(c["groups"]),
    )  # fmt: skip
    return c.emit("reshape", y, shape=y.shape[1:]) if single else y


# Normalizations -------------------------------------------------------------------------------------------------------
@reads("batch_norm")
def _batch_norm(c: Call) -> Value:
    if c["training"]:
        return c.emit("batch_norm_training", c["input"], c["weight"], c["bias"], epsilon=c["eps"])
    return c.emit(
        "batch_norm", c["input"], c["running_mean"], c["running_var"], c["weight"], c["bias"], epsilon=c["eps"],
        momentum=float(c["momentum"]),
    )  # fmt: skip


@reads("instance_norm")
def _instance_norm(c: Call) -> Value:
    x = c["input"]
    if not c["use_input_stats"]:
        return c.emit("batch_norm", x, c["running_mean"], c["running_var"], c["weight"], c["bias"], epsilon=c["eps"])
    return c.emit("group_norm", x, c["weight"], c["bias"], groups=x.shape[1], epsilon=c["eps"])


@reads("layer_norm")
def _layer_norm(c: Call) -> Value:
    axes = tuple(range(-len(c["normalized_shape"]), 0))
    return c.emit("layer_norm", c["input"], c["weight"], c["bias"], axes=axes, epsilon=c["eps"])


@reads("rms_norm")
def _rms_norm(c: Call) -> Value:
    axes = tuple(range(-len(c["normalized_shape"]), 0))
    epsilon = c["eps"] if c["eps"] is not None else torch.finfo(c.node.meta["val"].dtype).eps
    return c.emit("rms_norm", c["input"], c["weight"], axes=axes, epsilon=epsilon)


@reads("group_norm")
def _group_norm(c: Call) -> Value:
    return c.emit("group_norm", c["input"], c["weight"], c["bias"], groups=int(c["num_groups"]), epsilon=c["eps"])


@reads("_weight_norm", "_weight_norm_interface")
def _weight_norm(c: Call) -> Value:
    v, g = c["v"], c["g"]
    # -1 stands for no axis here, not for the last one.
    axes = tuple(a for a in range(len(v.shape)) if a != int(c["dim"]))
    length = c.emit("norm", v, axes=axes, keep=bool(g.shape))
    return c.emit("multiply", v, c.emit("divide", g, length))


# Activations ----------------------------------------------------------------------------------------------------------
def _named(function: str, **options: str) -> Reader:
    """The reader of an activation; ``options`` are its options' names to torch's."""

    def reader(c: Call) -> Value:
        return c.emit("activation", c.x, function=function, **{ours: c[theirs] for ours, theirs in options.items()})

    return reader


READERS.update(
    {
        "relu": _named("relu"),
        "relu6": _named("relu6"),
        "hardtanh": _named("hard_tanh", low="min_val", high="max_val"),
        "leaky_relu": _named("leaky_relu", negative_slope="negative_slope"),
        "celu": _named("celu", alpha="alpha"),
        "selu": _named("selu"),
        "silu": _named("silu"),
        "mish": _named("mish"),
        "sigmoid": _named("sigmoid"),
        "log_sigmoid": _named("log_sigmoid"),
        "hardsigmoid": _named("hard_sigmoid"),
        "hardswish": _named("hard_silu"),
        "tanh": _named("tanh"),
        "softplus": _named("softplus", beta="beta", threshold="threshold"),
        "softshrink": _named("soft_shrink", threshold="lambd"),
        "hardshrink": _named("hard_shrink", threshold="lambd"),
        "threshold": _named("threshold", threshold="threshold", value="value"),
    }
)


_SELU = 1.6732632423543772, 1.0507009873554805
"""Alpha and scale of a SELU, which the dispatcher knows as an ELU."""


@reads("elu")
def _elu(c: Call) -> Value:
    if c["input_scale"] != 1:
        raise Unreadable(f"has input_scale={c['input_scale']}")
    if (c["alpha"], c["scale"]) == _SELU:
        return c.emit("activation", c["self"], function="selu")
    y = c.emit("activation", c["self"], function="elu", alpha=c["alpha"])
    return y if c["scale"] == 1 else c.emit("multiply", y, c["scale"])


@reads("gelu")
def _gelu(c: Call) -> Value:
    return c.emit("activation", c["self"], function="gelu_tanh" if c["approximate"] == "tanh" else "gelu")


@reads("glu")
def _glu(c: Call) -> Value:
    return c.emit("activation", c["self"], function="glu", axis=_axis(c["dim"], len(c["self"].shape)))


@reads("rrelu", "rrelu_with_noise")
def _rrelu(c: Call) -> Value:
    if c["training"]:
        raise Unreadable("draws random slopes in training mode")
    slope = (c["lower"] + c["upper"]) / 2
    return c.emit("activation", c.x, function="leaky_relu", negative_slope=slope)


@reads("prelu")
def _prelu(c: Call) -> Value:
    return c.emit("prelu", c["self"], c["weight"])


@reads("softmax", "_softmax")
def _softmax(c: Call) -> Value:
    return c.emit("softmax", c.x, axis=_axis(c["dim"], len(c.x.shape)))


@reads("log_softmax", "_log_softmax")
def _log_softmax(c: Call) -> Value:
    return c.emit("log_softmax", c.x, axis=_axis(c["dim"], len(c.x.shape)))


@reads("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout")
def _dropout(c: Call) -> Value:
    name = c.name
    options: dict[str, Any] = {"axes": (0, 1)} if name.startswith("feature") else {}
    if "alpha" in name:
        options["noise"] = "alpha"
    return c.emit("dropout", c.x, rate=float(c["p"]), training=bool(c["train"]), **options)


# Pooling --------------------------------------------------------------------------------------------------------------
def _batched(c: Call, x: Value, rank: int) -> tuple[Value, bool]:
    single = len(x.shape) == rank + 1
    return (c.emit("reshape", x, shape=(1, *x.shape)) if single else x), single


def _unbatched(c: Call, y: Value, single: bool) -> Value:
    return c.emit("reshape", y, shape=y.shape[1:]) if single else y


def _dimensions(c: Call) -> int:
    return next(n for n in (1, 2, 3) if f"{n}d" in c.name)


@reads("max_pool1d", "max_pool2d", "max_pool3d", "max_pool1d_with_indices",
       "max_pool2d_with_indices", "max_pool3d_with_indices")  # fmt: skip
def _max_pool(c: Call) -> Any:
    rank = _dimensions(c)
    kernel = _many(c["kernel_size"], rank)
    x, single = _batched(c, c["self"], rank)
    attributes = {
        "kernel": kernel, "stride": _many(c["stride"], rank) if c["stride"] else kernel,
        "padding": tuple((p, p) for p in _many(c["padding"], rank)), "dilation": _many(c["dilation"], rank),
        "ceil_mode": bool(c["ceil_mode"]),
    }  # fmt: skip
    y = c.emit("max_pool", x, **attributes)
    y = _unbatched(c, y, single)
    if "indices" not in c.name:
        return y
    return y, _unbatched(c, c.emit("max_pool_places", x, **attributes), single) if _wants(c, 1) else None


def _wants(c: Call, index: int) -> bool:
    """Whether one of several results is read."""
    return any(user.args[1] == index and user.users for user in c.node.users if name_of(user.target) == "getitem")


@reads("max_unpool2d", "max_unpool3d")
def _max_unpool(c: Call) -> Value:
    """The numbers at their places in an image of zeros."""
    x, lead = c["self"], c["self"].shape[: len(c["self"].shape) - _dimensions(c)]
    flat = (*lead, math.prod(c.shape[len(lead) :]))
    zeros = c.emit("full", 0, shape=flat, dtype=x.dtype)
    line, places = (c.emit("reshape", v, shape=(*lead, math.prod(x.shape[len(lead) :]))) for v in (x, c["indices"]))
    return c.emit("reshape", c.emit("scatter", zeros, places, line, axis=len(lead)), shape=c.shape)


@reads("avg_pool1d", "avg_pool2d", "avg_pool3d")
def _average_pool(c: Call) -> Value:
    rank = _dimensions(c)
    kernel = _many(c["kernel_size"], rank)
    x, single = _batched(c, c["self"], rank)
    y = c.emit(
        "average_pool", x, kernel=kernel, stride=_many(c["stride"], rank) if c["stride"] else kernel,
        padding=tuple((p, p) for p in _many(c["padding"], rank)), ceil_mode=bool(c["ceil_mode"]),
        count_padding=bool(c["count_include_pad"]), divisor=c.get("divisor_override"),
    )  # fmt: skip
    return _unbatched(c, y, single)


def _adaptive(c: Call, operator: str) -> Value:
    rank = _dimensions(c)
    x, single = _batched(c, c["self"], rank)
    return _unbatched(c, c.emit(operator, x, sizes=_many(c["output_size"], rank)), single)


@reads("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d")
def _adaptive_average_pool(c: Call) -> Value:
    return _adaptive(c, "adaptive_average_pool")


@reads("adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d")
def _adaptive_max_pool(c: Call) -> Any:
    return _adaptive(c, "adaptive_max_pool"), None


# Shapes ---------------------------------------------------------------------------------------------------------------
@reads("view", "reshape", "_unsafe_view", "flatten", "unflatten", "squeeze", "unsqueeze", "view_as", "reshape_as")
def _reshape(c: Call) -> Value:
    if not isinstance(c.node.meta["val"], torch.Tensor) or c.get("dtype") is not None:
        raise Unreadable("looks at the bits of another type")
    return c.emit("reshape", c.x, shape=c.shape)


@reads("permute")
def _permute(c: Call) -> Value:
    rank = len(c["self"].shape)
    return c.emit("permute", c["self"], axes=tuple(_axis(a, rank) for a in c["dims"]))


@reads("transpose", "swapaxes", "swapdims", "t", "numpy_T", "mT")
def _transpose(c: Call) -> Value:
    rank = len(c["self"].shape)
    axes = list(range(rank))
    name = c.name
    if name in ("t", "numpy_T"):
        axes.reverse()
    else:
        first, second = (-2, -1) if name == "mT" else c.first(3)[1:]
        a, b = _axis(first, rank), _axis(second, rank)
        axes[a], axes[b] = axes[b], axes[a]
    return c.emit("permute", c["self"], axes=tuple(axes))


@reads("movedim", "moveaxis")
def _movedim(c: Call) -> Value:
    rank = len(c["self"].shape)
    source, target = _axes(c["source"], rank) or (), _axes(c["destination"], rank) or ()
    axes = [a for a in range(rank) if a not in source]
    for place, axis in sorted(zip(target, source, strict=True)):
        axes.insert(place, axis)
    return c.emit("permute", c["self"], axes=tuple(axes))


@reads("expand", "expand_as", "broadcast_to")
def _expand(c: Call) -> Value:
    return c.emit("expand", c["self"], shape=c.shape)


@reads(
    "contiguous", "clone", "alias", "lift_fresh_copy", "lift", "positive", "resolve_conj", "resolve_neg", "alias_copy",
    "real_identity",
)  # fmt: skip
def _identity(c: Call) -> Value:
    return c.emit("identity", c.x)


@reads("detach", "detach_copy")
def _detach(c: Call) -> Value:
    return stopped(c.builder, c.x)


def stopped(builder: Builder, x: Value) -> Value:
    """A value that passes no gradient on. It is x itself where no gradient would reach a weight or an input, and where
    it is a weight, which would be no layer's own then.
    """
    own, operator, options = builder.leaf_of(x), "identity", {}
    left, seen = [] if own is not None and own.role == "parameter" else [x], {x}
    while left:
        value = left.pop()
        leaf, giver = builder.leaf_of(value), builder.giver(value)
        if not value.dtype.startswith(("float", "bfloat", "complex")):
            continue  # such as what argmax gives
        if leaf is not None and leaf.role in ("input", "parameter"):
            operator, options = "unary", {"function": "stop_gradient"}
            break
        if giver is not None and giver.attributes.get("function") != "stop_gradient":
            left += set(giver.reads) - seen
            seen.update(giver.reads)
    found: Value = builder.emit(operator, x, dtype=x.dtype, **options)
    return found


@reads("to", "type_as", "_to_copy", "float", "double", "half", "bfloat16", "int", "long", "bool", "_cast_Float")
def _cast(c: Call) -> Value:
    if isinstance(c.x, Value) and c.x.dtype == c.dtype:
        return c.emit("identity", c.x)
    return c.emit("cast", c.x, dtype=c.dtype)


@reads("slice")
def _slice(c: Call) -> Value:
    x = c["self"]
    axis = _axis(c["dim"], len(x.shape))
    start, stop, step = slice(c["start"], c["end"], c["step"]).indices(x.shape[axis])
    return c.emit("slice", x, axis=axis, start=start, stop=max(stop, start), step=step)


@reads("narrow")
def _narrow(c: Call) -> Value:
    axis = _axis(c["dim"], len(c["self"].shape))
    start = int(c["start"]) % max(c["self"].shape[axis], 1)
    return c.emit("slice", c["self"], axis=axis, start=start, stop=start + int(c["length"]))


@reads("select")
def _select(c: Call) -> Value:
    axis = _axis(c["dim"], len(c["self"].shape))
    return c.emit("select", c["self"], axis=axis, index=int(c["index"]) % c["self"].shape[axis])


@reads("split", "split_with_sizes", "chunk", "tensor_split", "unsafe_split", "unsafe_chunk", "hsplit", "vsplit")
def _split(c: Call) -> tuple[Value, ...]:
    name = c.name
    fixed = {"hsplit": 1, "vsplit": 0}.get(name)
    axis = _axis(c["dim"] if fixed is None else fixed, len(c["self"].shape))
    parts, start = [], 0
    for tensor in c.node.meta["val"]:
        length = int(tensor.shape[axis])
        parts.append(c.emit("slice", c["self"], axis=axis, start=start, stop=start + length))
        start += length
    return tuple(parts)


@reads("unbind")
def _unbind(c: Call) -> tuple[Value, ...]:
    axis = _axis(c["dim"], len(c["self"].shape))
    return tuple(c.emit("select", c["self"], axis=axis, index=i) for i in range(c["self"].shape[axis]))


@reads("cat", "concat", "concatenate")
def _concatenate(c: Call) -> Value:
    parts = c["tensors"]
    rank = max(len(x.shape) for x in parts)
    axis = _axis(c["dim"], rank)
    if axis == 0 and len(parts) > 1 and all(x is parts[0] for x in parts):
        # Such as anchors, once for each image: another batch has another count.
        return c.emit("tile", parts[0], counts=(len(parts), *(1 for _ in range(1, rank))))
    return c.emit("concatenate", parts, axis=axis)


@reads("hstack", "vstack", "column_stack", "dstack")
def _joined(c: Call) -> Value:
    parts, name = c["tensors"], c.name
    if name == "hstack":
        return c.emit("concatenate", parts, axis=0 if len(parts[0].shape) < 2 else 1)
    if name == "vstack":
        return c.emit("concatenate", tuple(_rows(c, x) for x in parts), axis=0)
    raise Unreadable("is not translated; write torch.cat or torch.stack")


def _rows(c: Call, x: Value) -> Value:
    return x if len(x.shape) > 1 else c.emit("reshape", x, shape=(1, *x.shape) if x.shape else (1, 1))


@reads("stack")
def _stack(c: Call) -> Value:
    parts = c["tensors"]
    axis = _axis(c["dim"], len(parts[0].shape) + 1)
    if axis == 0 and len(parts) > 1 and all(x is parts[0] for x in parts):
        one = c.emit("reshape", parts[0], shape=(1, *parts[0].shape))
        return c.emit("tile", one, counts=(len(parts), *(1 for _ in parts[0].shape)))
    return c.emit("stack", parts, axis=axis)


@reads("pad", "constant_pad_nd", "reflection_pad1d", "reflection_pad2d", "reflection_pad3d",
       "replication_pad1d", "replication_pad2d", "replication_pad3d", "zero_pad2d")  # fmt: skip
def _pad(c: Call) -> Value:
    x, name = c["self"], c.name
    given = c.get("pad") if c.get("pad") is not None else c["padding"]
    widths = [(0, 0)] * len(x.shape)
    # torch counts from the last axis.
    for i in range(len(given) // 2):
        widths[-1 - i] = (int(given[2 * i]), int(given[2 * i + 1]))
    mode = "reflect" if "reflection" in name else "replicate" if "replication" in name else c.get("mode") or "constant"
    value = float(c.get("value") or 0.0)
    return c.emit("pad", x, widths=tuple(widths), mode=mode, value=value)


@reads("roll")
def _roll(c: Call) -> Value:
    x = c["self"]
    if not c["dims"]:
        flat = c.emit("reshape", x, shape=(-1,))
        return c.emit("reshape", c.emit("roll", flat, shifts=c["shifts"], axes=(0,)), shape=x.shape)
    return c.emit("roll", x, shifts=tuple(map(int, c["shifts"])), axes=_axes(c["dims"], len(x.shape)))


@reads("flip")
def _flip(c: Call) -> Value:
    return c.emit("flip", c["self"], axes=_axes(c["dims"], len(c["self"].shape)) or ())


@reads("repeat", "tile")
def _tile(c: Call) -> Value:
    x = c["self"]
    counts = tuple(map(int, c.get("repeats") if c.get("repeats") is not None else c["dims"]))
    if len(counts) < len(x.shape):
        counts = (1,) * (len(x.shape) - len(counts)) + counts
    return c.emit("tile", x, counts=counts)


@reads("repeat_interleave")
def _repeat(c: Call) -> Value:
    if not isinstance(c["repeats"], int):
        raise Unreadable("repeats by a tensor of counts")
    x = c["self"]
    if c["dim"] is None:
        return c.emit("repeat", c.emit("reshape", x, shape=(-1,)), count=c["repeats"], axis=0)
    return c.emit("repeat", x, count=c["repeats"], axis=_axis(c["dim"], len(x.shape)))


@reads("tril", "triu")
def _triangle(c: Call) -> Value:
    return c.emit("triangle", c["self"], diagonal=int(c["diagonal"]), upper=c.name == "triu")


@reads("unfold")
def _unfold(c: Call) -> Value:
    axis = _axis(c["dimension"], len(c["self"].shape))
    return c.emit("unfold", c["self"], axis=axis, length=int(c["size"]), step=int(c["step"]))


def _windows(c: Call) -> dict[str, tuple[int, ...]]:
    names = {"kernel": "kernel_size", "stride": "stride", "padding": "padding", "dilation": "dilation"}
    return {ours: _many(c[theirs], 2) for ours, theirs in names.items()}


@reads("im2col")
def _patches(c: Call) -> Value:
    x, single = _batched(c, c["self"], 2)
    return _unbatched(c, c.emit("patches", x, **_windows(c)), single)


@reads("col2im")
def _overlap_add(c: Call) -> Value:
    x, single = _batched(c, c["self"], 1)
    return _unbatched(c, c.emit("overlap_add", x, sizes=_many(c["output_size"], 2), **_windows(c)), single)


@reads("pixel_shuffle")
def _pixel_shuffle(c: Call) -> Value:
    x, r = c["self"], int(c["upscale_factor"])
    *lead, channels, height, width = x.shape
    n = len(lead)
    blocks = c.emit("reshape", x, shape=(*lead, channels // r**2, r, r, height, width))
    axes = (*range(n), n, n + 3, n + 1, n + 4, n + 2)
    return c.emit("reshape", c.emit("permute", blocks, axes=axes), shape=c.shape)


@reads("pixel_unshuffle")
def _pixel_unshuffle(c: Call) -> Value:
    x, r = c["self"], int(c["downscale_factor"])
    *lead, channels, height, width = x.shape
    n = len(lead)
    blocks = c.emit("reshape", x, shape=(*lead, channels, height // r, r, width // r, r))
    axes = (*range(n), n, n + 2, n + 4, n + 1, n + 3)
    return c.emit("reshape", c.emit("permute", blocks, axes=axes), shape=c.shape)


@reads("channel_shuffle", "native_channel_shuffle")
def _channel_shuffle(c: Call) -> Value:
    x, groups = c["self"], int(c["groups"])
    batch, channels, *sizes = x.shape
    blocks = c.emit("reshape", x, shape=(batch, groups, channels // groups, *sizes))
    axes = (0, 2, 1, *range(3, 3 + len(sizes)))
    return c.emit("reshape", c.emit("permute", blocks, axes=axes), shape=x.shape)


@reads("meshgrid")
def _meshgrid(c: Call) -> tuple[Value, ...]:
    tensors, order = c["tensors"], list(range(len(c["tensors"])))
    if c.get("indexing") == "xy" and len(order) > 1:
        order[:2] = [1, 0]
    shape = tuple(int(n) for n in c.node.meta["val"][0].shape)
    grids = []
    for i, x in enumerate(tensors):
        laid = [1] * len(shape)
        laid[order[i]] = -1
        grids.append(c.emit("expand", c.emit("reshape", x, shape=tuple(laid)), shape=shape))
    return tuple(grids)


@reads("diagonal", "linalg_diagonal", "trace")
def _diagonal(c: Call) -> Value:
    x, trace = c.x, c.name == "trace"
    rank = len(x.shape)
    first, second = _axis(c.get("dim1", 0), rank), _axis(c.get("dim2", 1), rank)
    offset, count = int(c.get("offset", 0)), c.shape[-1] if c.shape else min(x.shape)
    x = c.emit("permute", x, axes=(*(a for a in range(rank) if a not in (first, second)), first, second))
    rows, columns = max(-offset, 0), max(offset, 0)
    places = [c.emit("arange", start, start + count, 1, dtype="int64", length=count) for start in (rows, columns)]
    found = c.emit("index", x, (*(None,) * (rank - 2), *places))
    return c.emit("reduce", found, function="sum", axes=(0,)) if trace else found


@reads("real")
def _real(c: Call) -> Value:
    return c.emit("unary", c.x, function="real") if c.x.dtype.startswith("complex") else c.emit("identity", c.x)


@reads("conj", "_conj", "conj_physical", "_conj_physical")
def _conjugate(c: Call) -> Value:
    return c.emit("unary", c.x, function="conjugate") if c.x.dtype.startswith("complex") else c.emit("identity", c.x)


@reads("complex", "polar")
def _complex(c: Call) -> Value:
    a, b = _pair(c)
    if c.name == "polar":
        cosine, sine = (c.emit("unary", b, function=function) for function in ("cos", "sin"))
        a, b = c.emit("multiply", a, cosine), c.emit("multiply", a, sine)
    return c.emit("as_complex", c.emit("stack", (a, b), axis=len(c.shape)))


@reads("view_as_complex")
def _as_complex(c: Call) -> Value:
    return c.emit("as_complex", c.x)


@reads("view_as_real")
def _as_real(c: Call) -> Value:
    return c.emit("as_real", c.x)


# Reductions -----------------------------------------------------------------------------------------------------------
@reads("median", "kthvalue")
def _in_order(c: Call) -> Any:
    """The k-th smallest number along an axis, and its place; the median is the lower one of two."""
    x = c["self"]
    along = c.get("dim") is not None
    if not along:
        x = c.emit("reshape", x, shape=(-1,))
    axis = _axis(c["dim"], len(x.shape)) if along else 0
    k = int(c.get("k") or (x.shape[axis] + 1) // 2)
    ordered: Any = c.emit("top", x, count=k, axis=axis, largest=False)
    found = [c.emit("select", y, axis=axis, index=k - 1) for y in ordered]
    if along and c["keepdim"]:
        shape = (*x.shape[:axis], 1, *x.shape[axis + 1 :])
        found = [c.emit("reshape", y, shape=shape) for y in found]
    return tuple(found) if along else found[0]


def _reduce(function: str) -> Reader:
    def reader(c: Call) -> Value:
        axes = _axes(c.get("dim"), len(c["self"].shape))
        return c.emit("reduce", c["self"], function=function, axes=axes, keep=bool(c.get("keepdim", False)))

    return reader


READERS.update(
    {
        "sum": _reduce("sum"),
        "mean": _reduce("mean"),
        "prod": _reduce("product"),
        "amax": _reduce("max"),
        "amin": _reduce("min"),
        "any": _reduce("any"),
        "all": _reduce("all"),
        "logsumexp": _reduce("logsumexp"),
    }
)


def _extreme(function: str, place: str, elementwise: str) -> Reader:
    """The three operators that torch calls ``max``: of two tensors, along an axis with places, and of all."""

    def reader(c: Call) -> Any:
        if c.get("other") is not None:
            return c.emit(elementwise, c["self"], c["other"])
        if c.get("dim") is None:
            return c.emit("reduce", c["self"], function=function)
        axis, keep = _axis(c["dim"], len(c["self"].shape)), bool(c["keepdim"])
        largest = c.emit("reduce", c["self"], function=function, axes=(axis,), keep=keep)
        return largest, c.emit(place, c["self"], axis=axis, keep=keep, dtype="int64")

    return reader


READERS.update({"max": _extreme("max", "argmax", "maximum"), "min": _extreme("min", "argmin", "minimum")})


@reads("aminmax")
def _both_extremes(c: Call) -> tuple[Value, Value]:
    x = c["self"]
    axes = None if c["dim"] is None else (_axis(c["dim"], len(x.shape)),)
    low, high = (c.emit("reduce", x, function=word, axes=axes, keep=bool(c["keepdim"])) for word in ("min", "max"))
    return low, high


@reads("argmax", "argmin")
def _place(c: Call) -> Value:
    axis = None if c["dim"] is None else _axis(c["dim"], len(c["self"].shape))
    return c.emit(c.name, c["self"], axis=axis, keep=bool(c["keepdim"]))


def _variance(c: Call, root: bool) -> Value:
    correction = c.get("correction")
    if correction is None:
        correction = 1 if c.get("unbiased", True) else 0
    axes = _axes(c.get("dim"), len(c["self"].shape))
    keep = bool(c.get("keepdim", False))
    return c.emit("variance", c["self"], axes=axes, keep=keep, correction=float(correction), root=root)


@reads("var")
def _var(c: Call) -> Value:
    return _variance(c, False)


@reads("std")
def _std(c: Call) -> Value:
    return _variance(c, True)


@reads("var_mean", "std_mean")
def _var_mean(c: Call) -> tuple[Value, Value]:
    axes = _axes(c.get("dim"), len(c["self"].shape))
    mean = c.emit("reduce", c["self"], function="mean", axes=axes, keep=bool(c.get("keepdim", False)))
    return _variance(c, c.name == "std_mean"), mean


@reads("linalg_vector_norm", "norm")
def _norm(c: Call) -> Value:
    order = c.get("ord", c.get("p", 2))
    axes = _axes(c.get("dim"), len(c["self"].shape))
    order = 2.0 if order is None else float(order)
    return c.emit("norm", c["self"], order=order, axes=axes, keep=bool(c.get("keepdim", False)))


@reads("frobenius_norm")
def _frobenius(c: Call) -> Value:
    return c.emit("norm", c["self"], axes=_axes(c["dim"], len(c["self"].shape)), keep=bool(c["keepdim"]))


@reads("cummax", "cummin")
def _running_extreme(c: Call) -> tuple[Value, None]:
    function = c.name.removeprefix("cum")
    return c.emit("cumulative", c["self"], function=function, axis=_axis(c["dim"], len(c["self"].shape))), None


@reads("cumsum", "cumprod")
def _cumulative(c: Call) -> Value:
    function = {"cumsum": "sum", "cumprod": "product"}[c.name]
    return c.emit("cumulative", c["self"], function=function, axis=_axis(c["dim"], len(c["self"].shape)))


@reads("topk")
def _top(c: Call) -> Any:
    axis = _axis(c["dim"], len(c["self"].shape))
    return c.emit_several("top", c["self"], count=int(c["k"]), axis=axis, largest=bool(c["largest"]))


@reads("sort", "argsort")
def _sort(c: Call) -> Any:
    axis = _axis(c["dim"], len(c["self"].shape))
    count = c["self"].shape[axis]
    found = c.emit_several("top", c["self"], count=count, axis=axis, largest=bool(c["descending"]))
    return found[1] if c.name == "argsort" else found


# Element by element ---------------------------------------------------------------------------------------------------
def _unary(function: str) -> Reader:
    return lambda c: c.emit("unary", c.x, function=function)


READERS.update(
    {
        theirs: _unary(ours)
        for theirs, ours in {
            "neg": "negative", "abs": "absolute", "absolute": "absolute", "sign": "sign", "exp": "exp", "exp2": "exp2",
            "expm1": "expm1", "log": "log", "log2": "log2", "log10": "log10", "log1p": "log1p", "sqrt": "sqrt",
            "rsqrt": "rsqrt", "reciprocal": "reciprocal", "square": "square", "sin": "sin", "cos": "cos", "tan": "tan",
            "asin": "asin", "acos": "acos", "atan": "atan", "arctan": "atan", "sinh": "sinh", "cosh": "cosh",
            "asinh": "asinh", "acosh": "acosh", "atanh": "atanh", "erf": "erf", "special_erf": "erf", "floor": "floor",
            "ceil": "ceil", "trunc": "truncate", "fix": "truncate", "frac": "fraction",
            "logical_not": "not", "isnan": "is_nan", "isinf": "is_infinite", "isfinite": "is_finite",
            "erfinv": "erfinv", "i0": "i0", "special_i0": "i0", "angle": "angle", "imag": "imaginary",
        }.items()
    }
)  # fmt: skip


@reads("round")
def _round(c: Call) -> Value:
    if not c.get("decimals"):
        return c.emit("unary", c.x, function="round")
    factor = 10.0 ** int(c["decimals"])
    return c.emit("divide", c.emit("unary", c.emit("multiply", c.x, factor), function="round"), factor)


def _pair(c: Call) -> tuple[Any, Any]:
    first, second = c.first(2)
    return first, second


def _binary(function: str) -> Reader:
    return lambda c: c.emit("binary", *_pair(c), function=function)


READERS.update(
    {
        theirs: _binary(ours)
        for theirs, ours in {
            "eq": "equal", "ne": "not_equal", "lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal",
            "logical_and": "and", "logical_or": "or", "logical_xor": "xor", "atan2": "atan2",
            "floor_divide": "floor_divide", "remainder": "remainder", "fmod": "fmod",
            "gcd": "gcd", "lcm": "lcm",
        }.items()
    }
)  # fmt: skip


def _bitwise(word: str) -> Reader:
    def reader(c: Call) -> Value:
        boolean = isinstance(c.x, Value) and c.x.dtype == "bool"
        return c.emit("binary", *_pair(c), function=word if boolean else f"bit_{word}")

    return reader


for _word in ("and", "or", "xor"):
    READERS[f"bitwise_{_word}"] = READERS[f"__{_word}__"] = _bitwise(_word)


@reads("hypot")
def _hypotenuse(c: Call) -> Value:
    a, b = (c.emit("unary", x, function="square") for x in _pair(c))
    return c.emit("unary", c.emit("add", a, b), function="sqrt")


@reads("erfc", "special_erfc")
def _erfc(c: Call) -> Value:
    return c.emit("subtract", 1.0, c.emit("unary", c.x, function="erf"))


@reads("signbit")
def _signbit(c: Call) -> Value:
    return c.emit("binary", c.x, 0, function="less")


@reads("copysign")
def _copysign(c: Call) -> Value:
    x, sign = _pair(c)
    size = c.emit("unary", x, function="absolute")
    is_negative = c.emit("binary", sign, 0, function="less")
    return c.emit("where", is_negative, c.emit("unary", size, function="negative"), size, dtype=c.dtype)


@reads("__rshift__", "bitwise_right_shift", "__lshift__", "bitwise_left_shift")
def _shift(c: Call) -> Value:
    x, places = _pair(c)
    factor = 2**places if isinstance(places, int) else c.emit("power", 2, places)
    if any(word in c.name for word in ("lshift", "left")):
        return c.emit("multiply", x, factor)
    return c.emit("binary", x, factor, function="floor_divide")


@reads("bitwise_not")
def _not(c: Call) -> Value:
    if c.x.dtype != "bool":
        return c.emit("subtract", -1, c.x)
    return c.emit("unary", c.x, function="not")


def _scaled(c: Call, x: Any, factor: Any) -> Any:
    if factor == 1:
        return x
    return x * factor if isinstance(x, int | float) else c.emit("multiply", x, factor)


@reads("add")
def _add(c: Call) -> Value:
    if c["self"] is not None and c.dtype == "bool":
        return c.emit("binary", c["self"], c["other"], function="or")
    return c.emit("add", c["self"], _scaled(c, c["other"], c.get("alpha", 1)))


@reads("sub", "subtract")
def _subtract(c: Call) -> Value:
    return c.emit("subtract", c["self"], _scaled(c, c["other"], c.get("alpha", 1)))


@reads("rsub")
def _rsub(c: Call) -> Value:
    return c.emit("subtract", c["other"], _scaled(c, c["self"], c.get("alpha", 1)))


@reads("mul", "multiply")
def _multiply(c: Call) -> Value:
    if c.dtype == "bool":
        return c.emit("binary", *_pair(c), function="and")
    return c.emit("multiply", *_pair(c))


@reads("div", "divide", "true_divide")
def _divide(c: Call) -> Value:
    mode = c.get("rounding_mode")
    if mode == "floor":
        return c.emit("binary", *_pair(c), function="floor_divide")
    if mode == "trunc":
        return c.emit("binary", *_pair(c), function="truncated_divide")
    return c.emit("divide", *_pair(c))


@reads("pow", "float_power")
def _power(c: Call) -> Value:
    return c.emit("power", *_pair(c))


@reads("maximum", "minimum", "fmax", "fmin")
def _larger(c: Call) -> Value:
    return c.emit("maximum" if "max" in c.name else "minimum", *_pair(c))


@reads("clamp", "clip", "clamp_min", "clamp_max")
def _clip(c: Call) -> Value:
    return c.emit("clip", c["self"], c.get("min"), c.get("max"))


@reads("where")
def _where(c: Call) -> Value:
    if "self" not in c.given:
        raise Unreadable("of one argument gives places whose number depends on the data")
    return c.emit("where", c["condition"], c["self"], c["other"], dtype=c.dtype)


@reads("masked_fill")
def _masked_fill(c: Call) -> Value:
    return c.emit("where", c["mask"], c["value"], c["self"], dtype=c["self"].dtype)


@reads("addcmul", "addcdiv")
def _addcmul(c: Call) -> Value:
    operator = "multiply" if c.name == "addcmul" else "divide"
    part = c.emit(operator, c["tensor1"], c["tensor2"])
    return c.emit("add", c["self"], _scaled(c, part, c["value"]))


@reads("lerp")
def _lerp(c: Call) -> Value:
    way = c.emit("subtract", c["end"], c["self"])
    return c.emit("add", c["self"], c.emit("multiply", way, c["weight"]))


# Places ---------------------------------------------------------------------------------------------------------------
@reads("embedding")
def _embedding(c: Call) -> Value:
    return c.emit("embedding", c["weight"], c["indices"])


@reads("embedding_renorm")
def _renormed(c: Call) -> Value:
    """The rows that are looked up are made at most so long; the others are never read."""
    table, order = c["self"], float(c["norm_type"])
    length = c.emit("norm", table, order=order, axes=(1,), keep=True)
    # Source: torch/aten/src/ATen/native/Embedding.cpp adds 1e-7.
    factor = c.emit("divide", float(c["max_norm"]), c.emit("add", length, 1e-7))
    is_long = c.emit("binary", length, float(c["max_norm"]), function="greater")
    return c.emit("multiply", table, c.emit("where", is_long, factor, 1.0, dtype=table.dtype))


@reads("embedding_bag", "_embedding_bag", "_embedding_bag_forward_only")
def _bags(c: Call) -> tuple[Any, ...]:
    """Sums, means or maxima of rows: of each row of a matrix of ids, or from each offset to the next."""
    ids, offsets, mode, ignored = c["indices"], c["offsets"], int(c["mode"]), c.get("padding_idx")
    weights = c.get("per_sample_weights")
    count = offsets.shape[0] - int(bool(c["include_last_offset"]))
    length = _spacing(c, offsets, ids.shape[0])
    rows = c.emit("embedding", c["weight"], ids)
    if weights is not None:
        rows = c.emit("multiply", rows, c.emit("reshape", weights, shape=(*weights.shape, 1)))
    counted = None if ignored in (None, -1) else c.emit("binary", ids, int(ignored) % c["weight"].shape[0],
                                                        function="not_equal")  # fmt: skip
    if length is not None:
        rows = c.emit("reshape", rows, shape=(count, length, rows.shape[-1]))
        inside = None if counted is None else c.emit("reshape", counted, shape=(count, length))
    else:
        inside = _members(c, offsets, count, ids.shape[0])
        inside = inside if counted is None else c.emit("binary", inside, counted, function="and")
    return _pooled_rows(c, rows, inside, mode), None, None, None


def _spacing(c: Call, offsets: Value, count: int) -> int | None:
    """The length of bags that all have the same one, as those of a matrix of ids; None where they may differ."""
    given = next((node for node in c.builder.nodes if offsets in node.outputs), None)
    if given is None or given.operator != "arange" or given.operands[0] != 0:
        return None
    step = given.operands[2]
    return step if isinstance(step, int) and step * offsets.shape[0] == count else None


def _members(c: Call, offsets: Value, bags: int, count: int) -> Value:
    """Which of so many rows is in which bag, (bags, rows)."""
    starts = c.emit("slice", offsets, axis=0, start=0, stop=bags)
    places = c.emit("arange", 0, count, 1, dtype="int64", length=count)
    begun = c.emit("binary", c.emit("reshape", places, shape=(1, count)), c.emit("reshape", starts, shape=(bags, 1)),
                   function="greater_equal")  # fmt: skip
    last = c.emit("reduce", c.emit("cast", begun, dtype="int64"), function="sum", axes=(0,))
    which = c.emit("arange", 1, bags + 1, 1, dtype="int64", length=bags)
    return c.emit("binary", c.emit("reshape", which, shape=(bags, 1)), c.emit("reshape", last, shape=(1, count)),
                  function="equal")  # fmt: skip


def _pooled_rows(c: Call, rows: Value, inside: Value | None, mode: int) -> Value:
    """The sum (0), mean (1) or largest (2) of the rows of each bag, given bag by bag or all together."""
    word, dtype = ("sum", "mean", "max")[mode], rows.dtype
    if inside is None:
        return c.emit("reduce", rows, function=word, axes=(1,))
    if mode == 2:
        line = rows if len(rows.shape) == 3 else c.emit("reshape", rows, shape=(1, *rows.shape))
        mask = c.emit("reshape", inside, shape=(*inside.shape, 1))
        best = c.emit("reduce", c.emit("where", mask, line, -math.inf, dtype=dtype), function="max", axes=(1,))
        some = c.emit("reduce", inside, function="any", axes=(1,), keep=True)
        return c.emit("where", some, best, 0.0, dtype=dtype)
    share = c.emit("cast", inside, dtype=dtype)
    equation = "blf,bl->bf" if len(rows.shape) == 3 else "lf,bl->bf"
    total = c.emit("einsum", (rows, share), equation=equation)
    if mode == 0:
        return total
    count = c.emit("maximum", c.emit("reduce", share, function="sum", axes=(1,), keep=True), 1.0)
    return c.emit("divide", total, count)


@reads("index_select")
def _take(c: Call) -> Value:
    return c.emit("take", c["self"], c["index"], axis=_axis(c["dim"], len(c["self"].shape)))


@reads("gather")
def _gather(c: Call) -> Value:
    return c.emit("gather", c["self"], c["index"], axis=_axis(c["dim"], len(c["self"].shape)))


def _indices(c: Call) -> tuple[Any, ...]:
    if any(map(is_mask, c["indices"])):
        raise Unreadable("picks by a mask, which gives a number of places that depends on the data")
    return tuple(c["indices"])


def is_mask(index: Any) -> bool:
    """Whether an index says of each place whether it is taken."""
    return isinstance(index, Value) and index.dtype in ("bool", "uint8")


@reads("index")
def _index(c: Call) -> Value:
    return c.emit("index", c["self"], _indices(c))


@reads("index_put")
def _write(c: Call) -> Value:
    return c.emit("write", c["self"], _indices(c), c["values"], accumulate=bool(c["accumulate"]))


@reads("scatter", "scatter_add")
def _scatter(c: Call) -> Value:
    value = c.get("src") if c.get("src") is not None else c.get("value")
    options: dict[str, Any] = {"accumulate": c.name == "scatter_add" or c.get("reduce") is not None}
    if c.get("reduce") == "multiply":
        options["function"] = "product"
    axis = _axis(c["dim"], len(c["self"].shape))
    return c.emit("scatter", c["self"], c["index"], value, axis=axis, **options)


@reads("one_hot")
def _one_hot(c: Call) -> Value:
    return c.emit("one_hot", c["self"], classes=int(c["num_classes"]), dtype="int64")


@reads("copy", "fill", "zero")
def _overwritten(c: Call) -> Value:
    value = 0 if c.name.startswith("zero") else c.get("src", c.get("value"))
    if not isinstance(value, Value):
        return c.emit("full", value, shape=c["self"].shape, dtype=c["self"].dtype)
    if value.shape != c["self"].shape:
        value = c.emit("expand", value, shape=c["self"].shape)
    same = value.dtype == c["self"].dtype
    return c.emit("identity", value) if same else c.emit("cast", value, dtype=c["self"].dtype)


# Attention and recurrent layers ---------------------------------------------------------------------------------------
@reads("scaled_dot_product_attention")
def _attention(c: Call) -> Value:
    if c["dropout_p"]:
        raise Unreadable(f"drops {c['dropout_p']} of its weights at random")
    query, key, value = c["query"], c["key"], c["value"]
    return c.emit(
        "attention", query, key, value, c["attn_mask"], scale=None if c["scale"] is None else float(c["scale"]),
        causal=bool(c["is_causal"]), shared_heads=bool(c["enable_gqa"]),
    )  # fmt: skip


@reads("lstm", "gru", "rnn_tanh", "rnn_relu")
def _recurrent(c: Call) -> Any:
    if "data" in c.given:
        raise Unreadable("runs over packed sequences")
    if c["dropout"] and c["train"]:
        raise Unreadable("drops numbers at random between its layers")
    name = c.name
    operator, extra = {"rnn_tanh": ("rnn", {"function": "tanh"}), "rnn_relu": ("rnn", {"function": "relu"})}.get(
        name, (name, {})
    )
    starts = list(c["hx"]) if operator == "lstm" else [c["hx"]]
    return _levels(c, operator, starts, None, extra)


@reads("padded_recurrent")
def _padded_recurrent(c: Call) -> Any:
    word, _, function = str(c["kind"]).partition("_")
    return _levels(c, word, list(c["hx"]), c["lengths"], {"function": function} if function else {})


def _levels(c: Call, operator: str, starts: list[Any], lengths: Any, extra: dict[str, Any]) -> tuple[Value, ...]:
    """The levels and directions of a recurrent layer; of padded sequences with the length of each."""
    x = c["input"]
    if c["batch_first"]:
        x = c.emit("permute", x, axes=(1, 0, 2))
    mask = [] if lengths is None else [_before(c, x.shape[0], lengths)]
    directions = 2 if c["bidirectional"] else 1
    count = len(c["params"]) // (c["num_layers"] * directions)
    lasts: list[list[Value]] = [[] for _ in starts]
    for level in range(c["num_layers"]):
        runs = []
        for direction in range(directions):
            place = level * directions + direction
            weights = c["params"][place * count : (place + 1) * count]
            states = [c.emit("select", s, axis=0, index=place) for s in starts]
            kernel, recurrent, *rest = weights
            biases = rest[:2] if c["has_biases"] else [None, None]
            projection = rest[-1:] if len(rest) in (1, 3) else []
            if mask:
                projection = [*(projection or [None] * (operator == "lstm")), *mask]
            run, *final = c.emit_several(
                operator, x, *states, kernel, recurrent, *biases, *projection, reverse=bool(direction), **extra
            )
            runs.append(run)
            for kept, value in zip(lasts, final, strict=True):
                kept.append(value)
        x = runs[0] if len(runs) == 1 else c.emit("concatenate", tuple(runs), axis=2)
    if c["batch_first"]:
        x = c.emit("permute", x, axes=(1, 0, 2))
    return (x, *(c.emit("stack", tuple(kept), axis=0) for kept in lasts))


def _before(c: Call, count: int, lengths: Value) -> Value:
    """(time, batch): whether a time is within a sequence."""
    times = c.emit("reshape", c.emit("arange", 0, count, dtype=lengths.dtype, length=count), shape=(count, 1))
    return c.emit("binary", times, lengths, function="less", dtype="bool")


def _gates(c: Call, h: Value) -> tuple[Value, Value]:
    return c.emit("linear", c["input"], c["w_ih"], c["b_ih"]), c.emit("linear", h, c["w_hh"], c["b_hh"])


def _split_gates(c: Call, x: Value, count: int) -> list[Value]:
    size = x.shape[-1] // count
    return [c.emit("slice", x, axis=-1, start=i * size, stop=(i + 1) * size) for i in range(count)]


@reads("lstm_cell")
def _lstm_cell(c: Call) -> tuple[Value, Value]:
    h, cell = c["hx"]
    i, f, g, o = _split_gates(c, c.emit("add", *_gates(c, h)), 4)
    i, f, o = (c.emit("activation", x, function="sigmoid") for x in (i, f, o))
    kept, new = c.emit("multiply", f, cell), c.emit("multiply", i, c.emit("activation", g, function="tanh"))
    cell = c.emit("add", kept, new)
    return c.emit("multiply", o, c.emit("activation", cell, function="tanh")), cell


@reads("gru_cell")
def _gru_cell(c: Call) -> Value:
    h = c["hx"]
    (xr, xz, xn), (hr, hz, hn) = (_split_gates(c, x, 3) for x in _gates(c, h))
    r, z = (c.emit("activation", c.emit("add", *pair), function="sigmoid") for pair in ((xr, hr), (xz, hz)))
    n = c.emit("activation", c.emit("add", xn, c.emit("multiply", r, hn)), function="tanh")
    return c.emit("add", n, c.emit("multiply", z, c.emit("subtract", h, n)))


@reads("rnn_tanh_cell", "rnn_relu_cell")
def _rnn_cell(c: Call) -> Value:
    function = "relu" if "relu" in c.name else "tanh"
    return c.emit("activation", c.emit("add", *_gates(c, c["hx"])), function=function)


# Resampling -----------------------------------------------------------------------------------------------------------
def _resize(method: str, **fixed: Any) -> Reader:
    def reader(c: Call) -> Value:
        x = c.x
        rank = len(x.shape) - 2
        given = c.get("scale_factors")
        if given is None:
            given = [c.get(f"scales_{axis}", c.get("scales")) for axis in "dhw"[3 - rank :]]
        scales = tuple(None if s is None else float(s) for s in given)
        attributes = {"align_corners": bool(c.get("align_corners", False)), **fixed}
        if any(s is not None for s in scales) and not attributes["align_corners"]:
            attributes["scales"] = scales
        return c.emit("resize", x, sizes=c.shape[2:], method=method, **attributes)

    return reader


for _rank_name in ("1d", "2d", "3d"):
    READERS[f"upsample_nearest{_rank_name}"] = _resize("nearest", half_pixel=False)
    READERS[f"_upsample_nearest_exact{_rank_name}"] = _resize("nearest")
READERS.update(
    {
        "upsample_linear1d": _resize("bilinear"),
        "upsample_bilinear2d": _resize("bilinear"),
        "upsample_trilinear3d": _resize("bilinear"),
        "upsample_bicubic2d": _resize("bicubic"),
        "_upsample_bilinear2d_aa": _resize("bilinear", antialias=True),
        "_upsample_bicubic2d_aa": _resize("bicubic", antialias=True, cubic=-0.5),
    }
)


@reads("grid_sampler", "grid_sampler_2d", "grid_sampler_3d")
def _sample(c: Call) -> Value:
    methods, fills = ("bilinear", "nearest", "bicubic"), ("zeros", "border", "reflection")
    return c.emit(
        "sample", c["input"], c["grid"], method=methods[c["interpolation_mode"]], fill=fills[c["padding_mode"]],
        align_corners=bool(c["align_corners"]),
    )  # fmt: skip


@reads("affine_grid_generator")
def _affine_grid(c: Call) -> Value:
    """The places (column, row, ...) that affine maps give for those of an image."""
    sizes, rank = [int(n) for n in c["size"]][2:], len(c["size"]) - 2
    lines = []
    for axis, n in enumerate(sizes):
        # The ends are the middles of the first and the last pixel, or else their outer borders.
        at_middles = bool(c["align_corners"])
        line = c.emit("arange", 0 if at_middles else 1, 2 * n, 2, dtype=c.dtype, length=n)
        line = c.emit("divide", line, max(n - 1, 1) if at_middles else n)
        line = c.emit("subtract", line, 0.0 if at_middles and n == 1 else 1.0)
        line = c.emit("reshape", line, shape=[-1 if a == axis else 1 for a in range(rank)])
        lines.append(c.emit("expand", line, shape=sizes))
    ones = c.emit("full", 1, shape=sizes, dtype=c.dtype)
    base = c.emit("reshape", c.emit("stack", (*lines[::-1], ones), axis=rank), shape=(-1, rank + 1))
    grid = c.emit("matmul", base, c.emit("permute", c["theta"], axes=(0, 2, 1)))
    return c.emit("reshape", grid, shape=c.shape)


# Constants ------------------------------------------------------------------------------------------------------------
_FILL = {"zeros": 0, "new_zeros": 0, "zeros_like": 0, "ones": 1, "new_ones": 1, "ones_like": 1,
         "empty": 0, "new_empty": 0, "empty_like": 0}  # fmt: skip


@reads(*_FILL)
def _filled(c: Call) -> Value:
    return c.emit("full", _FILL[c.name], shape=c.shape, dtype=c.dtype)


@reads("full", "new_full", "full_like", "scalar_tensor")
def _full(c: Call) -> Value:
    value = c.get("fill_value", c.get("s"))
    return c.emit("full", value, shape=c.shape, dtype=c.dtype)


@reads("arange")
def _arange(c: Call) -> Value:
    start, step = c.get("start", 0), c.get("step", 1)
    return c.emit("arange", start or 0, c["end"], step, dtype=c.dtype, length=c.shape[0])


@reads("linspace")
def _linspace(c: Call) -> Value:
    return c.emit("linspace", float(c["start"]), float(c["end"]), count=int(c["steps"]), dtype=c.dtype)


@reads("eye")
def _eye(c: Call) -> Value:
    return c.emit("eye", rows=c.shape[0], columns=c.shape[1], dtype=c.dtype)


@reads("rand", "randn", "rand_like", "randn_like", "bernoulli", "randint", "randperm", "normal", "uniform")
def _random(c: Call) -> Value:
    raise Unreadable("draws random numbers")


@reads("_assert_async", "_assert_tensor_metadata", "_assert_scalar", "sym_constrain_range_for_size",
       "sym_constrain_range", "sym_size")  # fmt: skip
def _nothing(c: Call) -> None:
    return None


# Matrices -------------------------------------------------------------------------------------------------------------
@reads("linalg_inv", "inverse", "linalg_inv_ex")
def _inverse(c: Call) -> Any:
    return _checked(c, c.emit("inverse", c.x))


@reads("linalg_det", "det")
def _determinant(c: Call) -> Value:
    return c.emit("determinant", c.x)


@reads("logdet", "linalg_slogdet", "slogdet")
def _log_determinant(c: Call) -> Any:
    value = c.emit("determinant", c.x)
    if c.name == "logdet":
        return c.emit("unary", value, function="log")
    size = c.emit("unary", value, function="absolute")
    return c.emit("unary", value, function="sign"), c.emit("unary", size, function="log")


@reads("linalg_cholesky", "cholesky", "linalg_cholesky_ex")
def _cholesky(c: Call) -> Any:
    return _checked(c, c.emit("cholesky", c.x, upper=bool(c["upper"])))


@reads("linalg_solve", "linalg_solve_ex")
def _solve(c: Call) -> Any:
    a, b = c["A"], c["B"]
    if not c.get("left", True) or (len(b.shape) > 1 and len(b.shape) != len(a.shape)):
        raise Unreadable("solves from the right, or for a batch of vectors")
    return _checked(c, c.emit("solve", a, b))


def _checked(c: Call, x: Value) -> Any:
    """An operator that says besides whether it failed."""
    return (x, None) if c.name.endswith("_ex") else x


# Fourier --------------------------------------------------------------------------------------------------------------
def _fourier(axes: int | None, *, inverse: bool, half: bool) -> Reader:
    def reader(c: Call) -> Value:
        x = c["self"]
        rank, given, sizes = len(x.shape), c.get("dim"), c.get("s", c.get("n"))
        if given is None:
            last = axes if axes is not None else rank if sizes is None else len(sizes)
            given = tuple(range(-last, 0))
        along = tuple(_axis(a, rank) for a in (given if isinstance(given, tuple) else (given,)))
        if sizes is not None:
            wanted = list(_many(sizes, len(along)))
            if half and inverse:
                wanted[-1] = wanted[-1] // 2 + 1
            x = _cut_or_filled(c, x, along, wanted)
        return _transformed(c, x, along, inverse, half, c.get("norm") or "backward")

    return reader


def _cut_or_filled(c: Call, x: Value, axes: Sequence[int], sizes: Sequence[int]) -> Value:
    """Cut or filled with zeros at the end of axes."""
    for axis, size in zip(axes, sizes, strict=True):
        if size == -1 or size == x.shape[axis]:
            continue
        if size < x.shape[axis]:
            x = c.emit("slice", x, axis=axis, start=0, stop=size)
        else:
            after = size - x.shape[axis]
            x = c.emit("pad", x, widths=tuple((0, after if a == axis else 0) for a in range(len(x.shape))))
    return x


def _transformed(c: Call, x: Value, axes: tuple[int, ...], inverse: bool, half: bool, norm: str) -> Value:
    length = c.shape[axes[-1]] if half and inverse else None
    return c.emit("fourier", x, axes=axes, inverse=inverse, half=half, length=length, norm=norm)


for _suffix, _count in (("", 1), ("2", 2), ("n", None)):
    READERS[f"fft_fft{_suffix}"] = _fourier(_count, inverse=False, half=False)
    READERS[f"fft_ifft{_suffix}"] = _fourier(_count, inverse=True, half=False)
    READERS[f"fft_rfft{_suffix}"] = _fourier(_count, inverse=False, half=True)
    READERS[f"fft_irfft{_suffix}"] = _fourier(_count, inverse=True, half=True)


@reads("_fft_r2c", "_fft_c2c", "_fft_c2r")
def _transform(c: Call) -> Value:
    name, axes = c.name, tuple(_axis(a, len(c["self"].shape)) for a in c["dim"])
    inverse = name == "_fft_c2r" or not c.get("forward", True)
    half = name == "_fft_c2r" or bool(c.get("onesided", False))
    # Numbers are divided by nothing, the root of their count, or their count, whichever way.
    norm = ("forward", "ortho", "backward") if inverse else ("backward", "ortho", "forward")
    return _transformed(c, c["self"], axes, inverse, half, norm[int(c["normalization"])])


@reads("fft_fftshift", "fft_ifftshift")
def _shifted(c: Call) -> Value:
    x = c["self"]
    axes = _axes(c["dim"], len(x.shape)) or tuple(range(len(x.shape)))
    back = c.name == "fft_ifftshift"
    shifts = tuple((x.shape[a] + 1) // 2 if back else x.shape[a] // 2 for a in axes)
    return c.emit("roll", x, shifts=shifts, axes=axes)
