"""Faults made by a rule instead of by hand: one operator of one run, or one weight, is changed.

An operator is changed while it runs, at the line where it stands in :mod:`tests.compare.architectures`: another
setting, another operand, another order, left out, applied twice, replaced. Which ones exist, the run itself tells.
"""

from __future__ import annotations

import copy
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from agnostic_torch.taps import without_fast_attention
from tests.compare import architectures

Change = Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]


@dataclass(frozen=True)
class Mutation:
    """What is done to one operator or weight.

    Attributes:
        name: of the change.
        mistakes: keys that name it rightly.
        change: gives the result instead of the operator's.
    """

    name: str
    mistakes: tuple[str, ...]
    change: Change


@dataclass(frozen=True)
class Fault:
    """A network and its faulty copy.

    Attributes:
        name: architecture, place and change.
        mistakes: keys that are right.
        a, b, inputs: for :func:`agnostic.compare`.
        line: of the operator in the source; None for a weight.
        file: that source.
        layers: the layers at that line, or of that weight.
    """

    name: str
    mistakes: tuple[str, ...]
    a: nn.Module
    b: nn.Module
    inputs: Any
    line: int | None
    layers: frozenset[str]
    file: str = architectures.__file__


# Changes of one operator ---------------------------------------------------------------------------------------------
def _argument(index: int, name: str, value: Callable[[Any], Any]) -> Change:
    def change(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        schema = function._schema.arguments
        full = [args[k] if k < len(args) else kwargs.get(x.name, x.default_value) for k, x in enumerate(schema)]
        if schema[index].kwarg_only:
            return function(*args, **{**kwargs, name: value(full[index])})
        positional = [x for x, s in zip(full, schema, strict=True) if not s.kwarg_only]
        positional[index] = value(positional[index])
        named = {s.name: x for x, s in zip(full, schema, strict=True) if s.kwarg_only and s.name in kwargs}
        return function(*positional, **named)

    return change


def _instead(other: Callable[..., Any]) -> Change:
    return lambda function, args, kwargs: other(*args)


def _function(other: Callable[[Tensor], Tensor]) -> Change:
    return lambda function, args, kwargs: other(args[0])


def _twice(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return function(function(*args, **kwargs), *args[1:], **kwargs)


def _first(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return args[0].clone()


def _turned(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return function(args[1], args[0], *args[2:], **kwargs)


def _parts(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return tuple(reversed(function(*args, **kwargs)))


_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.nn.functional.gelu, "gelu": torch.relu, "silu": torch.relu, "sigmoid": torch.tanh,
    "tanh": torch.sigmoid, "hardswish": torch.nn.functional.silu, "hardsigmoid": torch.sigmoid,
    "leaky_relu": torch.relu,
}  # fmt: skip


def mutations_of(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Mutation]:
    """What can be done to one call."""
    name = function._schema.name.removeprefix("aten::").strip("_")
    tensors = [x for x in args if isinstance(x, Tensor)]
    alike = len(tensors) == 2 and tensors[0].shape == tensors[1].shape
    numbers = len(args) > 1 and isinstance(args[1], int | float) and not isinstance(args[1], bool)
    index = {x.name: k for k, x in enumerate(function._schema.arguments)}
    if "eps" in index and name.startswith("native"):
        kind = {"native_batch_norm": "batch_norm_epsilon", "native_layer_norm": "layer_norm_epsilon"}
        yield Mutation("epsilon", (kind.get(name, "norm_epsilon"),), _argument(index["eps"], "eps", lambda x: 0.05))
    if name == "native_group_norm":
        yield Mutation("groups", ("norm_groups",), _argument(index["group"], "group", lambda x: 1))
    if name in _ACTIVATIONS:
        missing = ("activation_missing", "layer_skipped", "layer_missing")
        yield Mutation("replaced", ("activation_differs", "activation_slope"), _function(_ACTIVATIONS[name]))
        yield Mutation("left out", missing, _first)
        yield Mutation("twice", ("activation_doubled",), _twice)
    if name == "gelu":
        yield Mutation("approximate", ("gelu_tanh",), _argument(1, "approximate", lambda x: "tanh"))
    if name == "leaky_relu":
        yield Mutation("slope", ("activation_slope",), _argument(1, "negative_slope", lambda x: 0.01))
    if name in ("softmax", "safe_softmax"):
        yield Mutation("axis", ("softmax_axis",), _argument(1, "dim", lambda d: d - 1))
        yield Mutation("left out", ("activation_missing",), _first)
    if name == "avg_pool2d" and any(args[3] if len(args) > 3 else ()):
        yield Mutation("counts", ("average_pool_padding",), _argument(5, "count_include_pad", lambda x: not x))
        yield Mutation("maximum", ("pool_kind",), _instead(lambda x, *o: torch.nn.functional.max_pool2d(x, *o[:3])))
    if name == "upsample_bilinear2d":
        yield Mutation(
            "corners", ("align_corners",), _argument(index["align_corners"], "align_corners", lambda x: True)
        )
    if name in ("mul", "div", "add", "sub") and numbers:
        factor = ("constant_factor", "attention_scale", "scale_missing", "constant_offset", "preprocessing_range")
        yield Mutation("number", factor, _argument(1, "other", lambda x: x * 1.5))
    if name == "add" and alike:
        yield Mutation("left out", ("residual_missing", "attention_mask"), _first)
    if name == "mul" and len(tensors) == 2 and tensors[0].shape == torch.broadcast_shapes(*(x.shape for x in tensors)):
        yield Mutation("left out", ("scale_missing", "layer_missing"), _first)
    if name in ("sub", "div") and len(tensors) == 2 and alike:
        yield Mutation("turned", ("layer_order", "constant_factor"), _turned)
    if name == "cat" and len({x.shape for x in args[0]}) == 1:
        yield Mutation("order", ("concatenation_order",), _argument(0, "tensors", lambda x: list(reversed(x))))
    if name == "stack":
        yield Mutation("order", ("concatenation_order",), _argument(0, "tensors", lambda x: list(reversed(x))))
    if name == "bmm" and alike and args[0].shape[1] == args[0].shape[2]:
        yield Mutation("turned", ("layer_order",), _turned)
    if name in ("split", "unbind") and args[0].is_floating_point():
        yield Mutation("parts", ("wrong_part", "layer_order", "sequence_step", "reversed"), _parts)
    if name in ("triu", "tril"):
        yield Mutation("diagonal", ("attention_mask",), _argument(1, "diagonal", lambda x: x + 1))
    if name == "masked_fill":
        yield Mutation("filled with 0", ("attention_mask",), _argument(2, "value", lambda x: 0.0))
        yield Mutation("inverted", ("attention_mask",), lambda f, a, k: f(a[0], ~a[1].flip(-1), a[2]))
        yield Mutation("left out", ("attention_mask", "layer_missing"), _first)
    if name == "select" and args[0].is_floating_point() and args[0].shape[args[1]] > 1:
        yield Mutation(
            "index", ("sequence_step", "weights_permuted"), _argument(2, "index", lambda x: 1 if x == 0 else 0)
        )
    if name == "roll":
        yield Mutation(
            "direction", ("direction", "features_permuted"), _argument(1, "shifts", lambda s: [-x for x in s])
        )
    if name == "constant_pad_nd":
        sides = _argument(1, "pad", lambda p: [x for k in range(0, len(p), 2) for x in (p[k + 1], p[k])])
        yield Mutation("sides", ("padding", "pad_then_stride", "same_padding"), sides)
    if name == "exp":
        yield Mutation("replaced", ("activation_differs",), _instead(torch.nn.functional.softplus))


Line = tuple[str, int]
Place = tuple[Line, str, int]
"""A call: its file and line, its operator, and how many of that operator ran at that line before."""


class _Calls(TorchDispatchMode):
    """Sees each call; one of them may be changed."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __init__(self, at: Place | None = None, mutation: str = "") -> None:
        super().__init__()
        self.at, self.mutation = at, mutation
        self.counts: Counter[tuple[Line, str]] = Counter()
        self.found: list[tuple[Place, Mutation]] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        line, name = _line(), str(function)
        if line is None:
            return function(*args, **kwargs)
        place = line, name, self.counts[line, name]
        self.counts[line, name] += 1
        if self.at is None:
            self.found += [(place, mutation) for mutation in mutations_of(function, args, kwargs)]
        if place == self.at:
            mutation = next(m for m in mutations_of(function, args, kwargs) if m.name == self.mutation)
            return mutation.change(function, args, kwargs)
        return function(*args, **kwargs)


_WHOLE = ("linear", os.sep.join(("nn", "modules", "rnn")))
"""Modules of torch whose layers are one operator."""


def _line() -> Line | None:
    """The line of an architecture's source; None inside of a product, whose parts are its own business."""
    frame: Any = sys._getframe(2)
    while frame is not None:
        if frame.f_code.co_filename in architectures.FILES:
            return frame.f_code.co_filename, int(frame.f_lineno)
        if frame.f_code.co_name in ("linear", "forward") and any(x in frame.f_code.co_filename for x in _WHOLE):
            return None
        frame = frame.f_back
    return None


def _changed(model: nn.Module, at: Place, mutation: str) -> nn.Module:
    other = copy.deepcopy(model)

    def forward(*inputs: Any) -> Any:
        with _Calls(at, mutation):
            return type(other).forward(other, *inputs)

    vars(other)["forward"] = forward
    return other


# Changes of one weight -----------------------------------------------------------------------------------------------
_WEIGHTS: dict[str, tuple[tuple[str, ...], Callable[[Tensor], Tensor]]] = {
    "flipped": (("kernel_flipped", "weights_permuted", "channel_order"), lambda p: p.flip(-1)),
    "scaled": (("weights_scaled",), lambda p: p * 1.3),
    "zero": (("bias_missing", "weights_differ", "weights_scaled"), torch.zeros_like),
    "rolled": (("weights_permuted", "gate_order", "groups"), lambda p: p.roll(1, 0)),
    "halved": (("gate_order", "weights_permuted"), lambda p: p.roll(len(p) // 2, 0)),
    "others": (("weights_differ",), lambda p: p + torch.linspace(-1, 1, p.numel()).view_as(p)),
    "transposed": (("kernel_transposed",), lambda p: p.mT.reshape(p.shape) if p.ndim == 2 else p),
}


def _outputs(model: nn.Module, inputs: Any) -> Tensor:
    given = [torch.from_numpy(x) for x in (inputs if isinstance(inputs, tuple) else (inputs,))]
    with torch.no_grad(), without_fast_attention():  # one operator, in which nothing can be changed
        found = model(*given)
    parts = list(found.values()) if isinstance(found, dict) else found if isinstance(found, tuple) else [found]
    return torch.cat([x.flatten() for x in parts]) if len(parts) > 1 else parts[0]


def faults(seed: int, count: int) -> Iterator[Fault]:
    """So many faults, drawn from all that there are.

    Args:
        seed: of the drawing.
        count: how many.
    """
    rng = np.random.default_rng(seed)
    drawn = 0
    while drawn < count:
        name = list(architectures.ARCHITECTURES)[int(rng.integers(len(architectures.ARCHITECTURES)))]
        a, inputs = architectures.made(name)
        fault = _of_weight(name, a, inputs, rng) if rng.random() < 0.3 else _of_operator(name, a, inputs, rng)
        before, after = _outputs(a, inputs), None if fault is None else _outputs(fault.b, inputs)
        if after is None or after.shape != before.shape or not torch.isfinite(after).all():
            continue
        if (before - after).abs().max() > 1e-3 * before.abs().max():  # else it is no fault on these inputs
            drawn += 1
            yield fault


def _of_operator(name: str, a: nn.Module, inputs: Any, rng: np.random.Generator) -> Fault | None:
    with _Calls() as calls:
        _outputs(a, inputs)
    place, mutation = calls.found[int(rng.integers(len(calls.found)))]
    b = _changed(a, place, mutation.name)
    (file, line), operator, count = place
    title = f"{name}: line {line}, {operator} {count}: {mutation.name}"
    return Fault(title, mutation.mistakes, a, b, inputs, line, frozenset(), file)


def _of_weight(name: str, a: nn.Module, inputs: Any, rng: np.random.Generator) -> Fault | None:
    names = [n for n, p in a.named_parameters() if p.numel() > 2]
    chosen, how = names[int(rng.integers(len(names)))], list(_WEIGHTS)[int(rng.integers(len(_WEIGHTS)))]
    mistakes, change = _WEIGHTS[how]
    b = copy.deepcopy(a)
    parameter = b.get_parameter(chosen)
    parameter.data = change(parameter.data).clone()
    layer = chosen.rpartition(".")[0]
    return Fault(f"{name}: {chosen}: {how}", mistakes, a, b, inputs, None, frozenset({layer, layer.rpartition(".")[0]}))


def judged(fault: Fault) -> dict[str, Any]:
    """Whether a fault was seen, located, named and proven."""
    return said(fault, lambda first, best: _is_there(fault, first, best))


def said(fault: Any, is_there: Callable[[Any, Any], bool]) -> dict[str, Any]:
    """What a comparison says of a fault.

    Args:
        fault: has a name, two models, their inputs and the mistakes that are right.
        is_there: whether the first divergence and its best finding are at its place.
    """
    import agnostic as ag

    start = {"name": fault.name, "seen": False, "located": False, "named": False, "proven": False}
    try:
        found = ag.compare(fault.a, fault.b, fault.inputs)
    except Exception as error:  # noqa: BLE001 - a crash is a miss, and is shown as one
        return {**start, "mistake": "CRASH", "said": f"{type(error).__name__}: {str(error)[:300]}"}
    first = found.first_divergence
    if first is None:
        return {**start, "mistake": None, "said": "the same"}
    best = first.findings[0] if first.findings else None
    return {
        **start, "seen": True, "located": is_there(first, best),
        "named": best is not None and best.mistake in fault.mistakes, "proven": best is not None and best.proven,
        "mistake": None if best is None else best.mistake,
        "said": f"{first.where}: {best}; {len(found.divergences)} places",
    }  # fmt: skip


def _is_there(fault: Fault, first: Any, best: Any) -> bool:
    names = {x.partition(" (call")[0] for x in (first.a, first.b, first.after)}
    if fault.line is None:
        return bool(names & fault.layers)
    places = {best.place_a, best.place_b} if best is not None else set()
    near = {str(fault.line + k) for k in (-1, 0, 1)}
    return any(place.rpartition(":")[2] in near for place in places) or bool(names & _layers_at(fault))


def _layers_at(fault: Fault) -> set[str]:
    """The layers that are named at the line of a fault, or at the lines beside it."""
    assert fault.line is not None
    with open(fault.file, encoding="utf-8") as source:
        lines = source.read().splitlines()
    text = " ".join(lines[fault.line - 2 : fault.line + 1])
    return {
        name for name, _ in fault.a.named_modules() for part in (name.split(".")[0], name.split(".")[-1])
        if part and f"self.{part}" in text
    }  # fmt: skip
