"""What a port into Keras wrote, read back as the operators that it stands for.

A written file has functions and classes of its own for what Keras lacks (:mod:`agnostic_keras.helpers`). Followed into,
they are many small operators; here a call of one is the operator that it was written for, so that a model that goes
there and back is the model again. They are known by their code, not by their names: a function that somebody changed is
read as any other.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from types import CodeType, FunctionType
from typing import Any

import keras

from agnostic.patching import Replacement
from agnostic.tables import filling
from agnostic_keras.helpers import HELPERS
from agnostic_keras.layers import named_layers
from agnostic_keras.operations import Recorder

Emit = Callable[..., Any]
Reader = Callable[[Emit, Mapping[str, Any]], Any]
"""From a function that writes a node, and the arguments of a call by name, to values; None: follow the call."""

READERS: dict[str, Reader] = {}
reads = filling(READERS)

PLACES = {"max_pool_places": (0,), "top": (1,)}
"""Which results of a helper are places, not numbers."""


def patches(recorder: Recorder, model: keras.Layer) -> list[tuple[Any, str, Replacement]]:
    """What is replaced while a model is read: the helpers in the modules of its classes."""

    def through(name: str) -> Replacement:
        def call(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            bound = inspect.signature(original).bind(*args, **kwargs)
            bound.apply_defaults()
            given = {key: recorder.value(x) for key, x in bound.arguments.items()}
            found = READERS[name](recorder.emit, given)
            if found is None:
                return original(*args, **kwargs)
            results = found if isinstance(found, tuple) else (found,)
            for place in PLACES.get(name, ()):
                results = (*results[:place], recorder.builder.retype(results[place], "int32"), *results[place + 1 :])
            return recorder.symbolic(results if isinstance(found, tuple) else results[0])

        return call

    modules = {id(names): names for names in _globals(model)}
    return [
        (_Module(names), name, through(name))
        for names in modules.values()
        for name in READERS
        if isinstance(names.get(name), FunctionType) and _is_ours(names[name].__code__, name)
    ]


def is_ours(kind: type) -> bool:
    """Whether a class is one that a port writes: its ``call`` is."""
    function = vars(kind).get("call")
    return (
        kind.__name__ in HELPERS and isinstance(function, FunctionType) and _is_ours(function.__code__, kind.__name__)
    )


class _Module:
    """The names of a module, which may be known to nobody else any more."""

    def __init__(self, names: dict[str, Any]) -> None:
        self.__dict__ = names


def _globals(model: keras.Layer) -> Iterator[dict[str, Any]]:
    for layer in (model, *named_layers(model).values()):
        function = getattr(type(layer).call, "__wrapped__", type(layer).call)
        names = getattr(function, "__globals__", {})
        if not str(names.get("__name__")).startswith("keras."):
            yield names


@functools.cache
def _code(name: str) -> CodeType:
    """The code of a helper: of a class that of its ``call``."""
    # What is called through an imported name is compiled in a way of its own.
    outer = compile(f"import keras, numpy as np\nfrom keras import layers, ops\n{HELPERS[name]}", name, "exec")
    found = next(x for x in outer.co_consts if isinstance(x, CodeType) and x.co_name == name)
    return next((x for x in found.co_consts if isinstance(x, CodeType) and x.co_name == "call"), found)


def _is_ours(code: CodeType, name: str) -> bool:
    return _are_equal(code, _code(name))


def _are_equal(one: CodeType, other: CodeType) -> bool:
    """Whether two functions do the same: all of their code but for where it stands."""
    if (one.co_code, one.co_names, one.co_varnames) != (other.co_code, other.co_names, other.co_varnames):
        return False
    if len(one.co_consts) != len(other.co_consts):
        return False
    return all(
        _are_equal(a, b) if isinstance(a, CodeType) and isinstance(b, CodeType) else (type(a), a) == (type(b), b)
        for a, b in zip(one.co_consts, other.co_consts, strict=True)
    )


# Normalizations and attention -----------------------------------------------------------------------------------------
@reads("standardize")
def _standardize(emit: Emit, a: Mapping[str, Any]) -> Any:
    rank = len(a["x"].shape)
    axes = sorted(axis % rank for axis in (a["axis"] if isinstance(a["axis"], tuple) else (a["axis"],)))
    if axes != list(range(rank - len(axes), rank)):
        return None
    return emit("layer_norm", a["x"], None, None, axes=tuple(range(-len(axes), 0)), epsilon=a["epsilon"])


@reads("standardize_groups")
def _standardize_groups(emit: Emit, a: Mapping[str, Any]) -> Any:
    options = {"groups": a["groups"], "epsilon": a["epsilon"], "channel_axis": -1}
    return emit("group_norm", a["x"], None, None, **options)


def _options(a: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: a[name] for name in names}


def _attended(emit: Emit, a: Mapping[str, Any], **options: Any) -> Any:
    options |= {"scale": a["scale"]} if a["scale"] is not None else {}
    return emit("attention", a["query"], a["key"], a["value"], a["mask"], causal=bool(a["causal"]), **options)


@reads("masked_attention")
def _masked_attention(emit: Emit, a: Mapping[str, Any]) -> Any:
    return _attended(emit, a, place_axis=-3)


@reads("general_attention")
def _general_attention(emit: Emit, a: Mapping[str, Any]) -> Any:
    return _attended(emit, a, shared_heads=bool(a["shared_heads"]), place_axis=-3 if a["heads_last"] else -2)


# Windows --------------------------------------------------------------------------------------------------------------
def _pooled(emit: Emit, operator: str, a: Mapping[str, Any], *names: str) -> Any:
    given = _options(a, "kernel", "padding", "ceil_mode", *names)
    return emit(operator, a["x"], stride=a["strides"], channel_axis=-1, **given)


@reads("max_pool")
def _max_pool(emit: Emit, a: Mapping[str, Any]) -> Any:
    return _pooled(emit, "max_pool", a, "dilation")


@reads("max_pool_places")
def _max_pool_places(emit: Emit, a: Mapping[str, Any]) -> Any:
    return _pooled(emit, "max_pool_places", a, "dilation")


@reads("average_pool")
def _average_pool(emit: Emit, a: Mapping[str, Any]) -> Any:
    divisor = {"divisor": a["divisor"]} if a["divisor"] is not None else {}
    return _pooled(emit, "average_pool", {**a, **divisor}, "count_padding", *divisor)


@reads("adaptive_mean")
def _adaptive_mean(emit: Emit, a: Mapping[str, Any]) -> Any:
    return emit("adaptive_average_pool", a["x"], sizes=a["sizes"], channel_axis=-1)


@reads("adaptive_max")
def _adaptive_max(emit: Emit, a: Mapping[str, Any]) -> Any:
    return emit("adaptive_max_pool", a["x"], sizes=a["sizes"], channel_axis=-1)


def _many(numbers: Any, rank: int) -> tuple[int, ...]:
    return (numbers,) * rank if isinstance(numbers, int) else tuple(numbers)


@reads("grouped_conv")
def _grouped(emit: Emit, a: Mapping[str, Any]) -> Any:
    rank = len(a["kernel"].shape) - 2
    kernel = emit("permute", a["kernel"], axes=(rank + 1, rank, *range(rank)))
    return emit(
        "convolution", a["x"], kernel, stride=_many(a["strides"], rank), padding=((0, 0),) * rank,
        dilation=_many(a["dilation_rate"], rank), groups=a["groups"], channel_axis=-1,
    )  # fmt: skip


@reads("conv_transpose")
def _transposed(emit: Emit, a: Mapping[str, Any]) -> Any:
    rank = len(a["kernel"].shape) - 2
    kernel = emit("permute", a["kernel"], axes=(rank, rank + 1, *range(rank)))
    return emit(
        "transposed_convolution", a["x"], kernel, stride=a["strides"], dilation=a["dilation"], groups=a["groups"],
        crop=tuple((low, max(high, 0)) for low, high in a["crop"]), channel_axis=-1,
        extra=tuple(max(-high, 0) for _, high in a["crop"]),
    )  # fmt: skip


@reads("resize")
def _resize(emit: Emit, a: Mapping[str, Any]) -> Any:
    given = _options(a, "sizes", "method", "align_corners", "half_pixel", "antialias", "cubic", "scales")
    return emit("resize", a["x"], channel_axis=-1, **given)


@reads("pad")
def _pad(emit: Emit, a: Mapping[str, Any]) -> Any:
    return emit("pad", a["x"], **_options(a, "widths", "mode", "value"))


@reads("unfold")
def _unfold(emit: Emit, a: Mapping[str, Any]) -> Any:
    return emit("unfold", a["x"], **_options(a, "axis", "length", "step"))


@reads("patches")
def _patches(emit: Emit, a: Mapping[str, Any]) -> Any:
    return emit("patches", a["x"], stride=a["strides"], **_options(a, "kernel", "padding", "dilation"))


@reads("overlap_add")
def _overlap_add(emit: Emit, a: Mapping[str, Any]) -> Any:
    return emit("overlap_add", a["x"], stride=a["strides"], **_options(a, "sizes", "kernel", "padding", "dilation"))


@reads("sample")
def _sample(emit: Emit, a: Mapping[str, Any]) -> Any:
    return emit("sample", a["x"], a["grid"], **_options(a, "method", "fill", "align_corners"))


# Places ---------------------------------------------------------------------------------------------------------------
@reads("pick")
def _pick(emit: Emit, a: Mapping[str, Any]) -> Any:
    return emit("index", a["x"], (None,) * a["axis"] + a["indices"])


@reads("pick_apart")
def _pick_apart(emit: Emit, a: Mapping[str, Any]) -> Any:
    return emit("index", a["x"], a["indices"])


@reads("write")
def _write(emit: Emit, a: Mapping[str, Any]) -> Any:
    return emit("write", a["x"], a["indices"], a["value"], accumulate=bool(a["add"]))


@reads("scatter")
def _scatter(emit: Emit, a: Mapping[str, Any]) -> Any:
    given = {"accumulate": True, "function": a["reduce"]} if a["reduce"] else {}
    return emit("scatter", a["x"], a["ids"], a["value"], axis=a["axis"], **given)


@reads("top")
def _top(emit: Emit, a: Mapping[str, Any]) -> Any:
    return emit("top", a["x"], count=a["count"], axis=a["axis"], largest=bool(a["largest"]))


@reads("update")
def _update(emit: Emit, a: Mapping[str, Any]) -> Any:
    stop = a["x"].shape[a["axis"]] if a["stop"] is None else a["stop"]
    return emit("update", a["x"], a["value"], axis=a["axis"], start=a["start"], stop=stop, step=a["step"])


# Recurrent layers -----------------------------------------------------------------------------------------------------
_RECURRENT = ("kernel", "recurrent", "input_bias", "recurrent_bias")


@reads("lstm")
def _lstm(emit: Emit, a: Mapping[str, Any]) -> Any:
    operands = (a[name] for name in ("x", "h", "c", *_RECURRENT, "projection", "mask"))
    return emit("lstm", *operands, **_options(a, "zeros", "reverse", "batch_first"))


@reads("gru")
def _gru(emit: Emit, a: Mapping[str, Any]) -> Any:
    operands = (a[name] for name in ("x", "h", *_RECURRENT, "mask"))
    return emit("gru", *operands, **_options(a, "reset_after", "zeros", "reverse", "batch_first"))


@reads("rnn")
def _rnn(emit: Emit, a: Mapping[str, Any]) -> Any:
    operands = (a[name] for name in ("x", "h", *_RECURRENT, "mask"))
    return emit("rnn", *operands, function=a["activation"], **_options(a, "zeros", "reverse", "batch_first"))
