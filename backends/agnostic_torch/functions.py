"""Functions that are replaced while a model runs, by their names: in modules, as functions, methods or operators."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from agnostic.contracts.attribution import FunctionRules, Standardization
from agnostic.patching import patched
from agnostic_torch.taps import leaves

_CONVOLUTIONS = {f"conv{kind}{rank}d" for kind in ("", "_transpose") for rank in (1, 2, 3)}
_BINARY = {"matmul", "bmm", "mm", "mv", "dot", "einsum"}
_ARITHMETIC = {
    "mul": "mul", "multiply": "mul", "div": "div", "divide": "div", "true_divide": "div", "add": "add", "sub": "sub",
    "subtract": "sub", "rsub": "rsub",
}  # fmt: skip
"""Functions of two numbers each, and what they do."""
_ELEMENTWISE = {
    **{x: x for x in (
        "relu", "relu6", "gelu", "silu", "mish", "elu", "celu", "selu", "leaky_relu", "rrelu", "hardtanh", "hardswish",
        "softplus", "tanh", "sigmoid", "prelu", "clamp", "clip", "threshold", "hardshrink", "softshrink", "rsqrt",
        "exp", "reciprocal", "log_sigmoid",
    )},
    "hardsigmoid": "hard_sigmoid", "clamp_min": "relu", "expit": "sigmoid",
}  # fmt: skip
"""Functions of one number each, and what the contract calls them."""


@contextlib.contextmanager
def replaced_functions(rules: FunctionRules | None, inputs: Any) -> Iterator[None]:
    """Inside, rules take the place of functions of what depends on the inputs.

    Args:
        rules: None to leave functions alone.
        inputs: what the model is called with.
    """
    if rules is None:
        yield
        return
    # Functions that are written in Python are seen by what they call.
    names = ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic")
    with patched([(F, name, lambda *_: False) for name in names]), _Replaced(rules, leaves(inputs)):
        yield


class _Replaced(TorchFunctionMode):
    def __init__(self, rules: FunctionRules, inputs: Iterable[Tensor]) -> None:
        super().__init__()
        self._rules = rules
        # The tensors are kept, so that no other takes their identity.
        self._dependent = {id(x): x for x in inputs}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not any(map(self._depends, leaves((args, kwargs)))):
            return func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        in_place = _is_in_place(name)
        # What a rule gives may be differentiated by what the array was before.
        given = (self._before(args[0]), *args[1:]) if in_place else args
        result = self._replacement(_plain(name), func, given, kwargs, in_place)
        if result is None:
            result = func(*args, **kwargs)
        elif in_place:
            result = args[0].copy_(result)
        if not isinstance(result, Tensor) or not self._rules.is_frozen(result):
            self._dependent.update((id(x), x) for x in leaves(result))
        return result

    def _before(self, x: Tensor) -> Tensor:
        """A copy of what is to be changed in place, of which all is known that was known of it."""
        copy = x.clone()
        if self._depends(x):
            self._dependent[id(copy)] = copy
        self._rules.changed(x, copy)
        return copy

    def _depends(self, x: Tensor) -> bool:
        return id(x) in self._dependent

    def _replacement(self, name: str, func: Any, args: Any, kwargs: Mapping[str, Any], in_place: bool) -> Any:
        """What a rule gives; None where there is none for the function."""
        if name == "linear" or name in _CONVOLUTIONS:
            return self._linear(name, func, *args, **kwargs)
        if name in ("addmm", "baddbmm") and not kwargs and self._depends(args[1]) and not self._depends(args[0]):
            function = torch.mm if name == "addmm" else torch.bmm
            found = self._product(function, args[1], args[2])
            return self._rules.shifted(found, args[0])
        if name in _ELEMENTWISE:
            return self._elementwise(_ELEMENTWISE[name], func, args, kwargs, in_place)
        if name in _ARITHMETIC:
            return self._arithmetic(_ARITHMETIC[name], args, kwargs)
        if name in _BINARY:
            return self._binary(name, func, args, kwargs)
        if name in ("softmax", "scaled_dot_product_attention"):
            return self._attention(name, func, args, kwargs)
        handlers: dict[str, Callable[..., Any]] = {
            "batch_norm": self._batch_norm, "layer_norm": self._layer_norm, "group_norm": self._group_norm,
            "rms_norm": self._rms_norm,
        }  # fmt: skip
        return handlers[name](func, *args, **kwargs) if name in handlers else None

    def _linear(
        self, name: str, func: Any, input: Tensor, weight: Tensor, bias: Tensor | None = None, *rest: Any, **more: Any
    ) -> Any:
        if self._depends(weight):
            return None
        spatial = name != "linear"
        if bias is not None and spatial:
            bias = bias.reshape(-1, *(1,) * (weight.dim() - 2))
        return self._rules.linear(lambda x, w: func(x, w, None, *rest, **more), input, weight, bias, spatial=spatial)

    def _elementwise(self, name: str, func: Any, args: Any, kwargs: Mapping[str, Any], in_place: bool) -> Any:
        x, rest, named = _first(args, kwargs)
        if any(map(self._depends, leaves((rest, named)))):
            return None
        return self._rules.elementwise(name, lambda y: func(y.clone() if in_place else y, *rest, **named), x)

    def _binary(self, name: str, func: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
        first, operands = (args[0], args[1:]) if name == "einsum" else (None, args)
        if len(operands) == 1 and isinstance(operands[0], list | tuple):
            operands = tuple(operands[0])
        if len(operands) != 2 or kwargs or not all(isinstance(x, Tensor) for x in operands):
            return None
        a, b = operands
        return self._product(torch.matmul if first is None else lambda x, y: torch.einsum(first, x, y), a, b)

    def _arithmetic(self, name: str, args: Any, kwargs: Mapping[str, Any]) -> Any:
        """Of two arrays, or of one and a constant, which may be a plain number."""
        if len(args) != 2 or kwargs:
            return None
        (a, b), name = (args[::-1], "sub") if name == "rsub" else (args, name)
        if self._depends(a) and self._depends(b):
            if name == "mul":
                return self._rules.product(torch.mul, a, b)
            return self._rules.quotient(a, b) if name == "div" else None
        x, other = (a, b) if self._depends(a) else (b, a)
        if not x.is_floating_point() or (name == "div" and x is b):
            return None
        constant = torch.as_tensor(other, dtype=x.dtype, device=x.device)
        if name == "sub" and x is b:
            return self._rules.shifted(self._rules.scaled(x, -torch.ones_like(constant), None), constant)
        if name in ("add", "sub"):
            return self._rules.shifted(x, -constant if name == "sub" else constant)
        return self._rules.scaled(x, constant if name == "mul" else 1 / constant, None)

    def _product(self, function: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor) -> Any:
        """Of matrices: of two that depend on the inputs, or of one with a constant."""
        if self._depends(a) and self._depends(b):
            return self._rules.product(function, a, b)
        if self._depends(a):
            return self._rules.linear(function, a, b, None, spatial=False)
        return self._rules.linear(lambda x, w: function(w, x), b, a, None, spatial=False)

    def _attention(self, name: str, func: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
        if name == "softmax":
            x, rest, named = _first(args, kwargs)
            axis = named.get("dim", rest[0] if rest else None)
            if axis not in (-1, x.dim() - 1):
                return None
            return self._rules.softmax(lambda y: func(y, *rest, **named), x)
        names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
        given = dict(zip(names, args, strict=False)) | dict(kwargs)
        query, key, value = (given.pop(x) for x in ("query", "key", "value"))
        return self._rules.attention(
            lambda q, k, v: func(q, k, v, **given), query, key, value, lambda: _weights(query, key, given)
        )

    def _batch_norm(
        self, func: Any, input: Tensor, weight: Any, bias: Any, mean: Any, variance: Any, training: bool,
        momentum: float, epsilon: float, *rest: Any,
    ) -> Any:  # fmt: skip
        if training or mean is None:
            return None
        shape = (1, -1, *(1,) * (input.dim() - 2))
        scale = torch.rsqrt(variance + epsilon)
        scale = scale if weight is None else scale * weight
        offset = -mean * scale if bias is None else bias - mean * scale
        return self._rules.scaled(input, scale.reshape(shape), offset.reshape(shape))

    def _layer_norm(self, func: Any, input: Tensor, normalized_shape: Any, weight: Any = None, bias: Any = None,
                    eps: float = 1e-5, *rest: Any) -> Any:  # fmt: skip
        axes = tuple(range(input.dim() - len(normalized_shape), input.dim()))
        norm = Standardization(axes, tuple(input.shape), True, eps, weight, bias)
        return self._rules.standardized(lambda x: func(x, normalized_shape, weight, bias, eps, *rest), input, norm)

    def _rms_norm(
        self, func: Any, input: Tensor, normalized_shape: Any, weight: Any = None, eps: float | None = None
    ) -> Any:
        axes = tuple(range(input.dim() - len(normalized_shape), input.dim()))
        least = torch.finfo(input.dtype).eps if eps is None else eps
        norm = Standardization(axes, tuple(input.shape), False, least, weight, None)
        return self._rules.standardized(lambda x: func(x, normalized_shape, weight, eps), input, norm)

    def _group_norm(self, func: Any, input: Tensor, num_groups: int, weight: Any = None, bias: Any = None,
                    eps: float = 1e-5, *rest: Any) -> Any:  # fmt: skip
        shape = (len(input), num_groups, input.shape[1] // num_groups, *input.shape[2:])
        along = (-1, *(1,) * (input.dim() - 2))
        scale, offset = (None if x is None else x.reshape(along) for x in (weight, bias))
        norm = Standardization(tuple(range(2, len(shape))), shape, True, eps, scale, offset)
        return self._rules.standardized(lambda x: func(x, num_groups, weight, bias, eps, *rest), input, norm)


def _first(args: Any, kwargs: Mapping[str, Any]) -> tuple[Tensor, Any, dict[str, Any]]:
    """The first argument of a function, which is called ``input``, and the others."""
    named = dict(kwargs)
    return (args[0], args[1:], named) if args else (named.pop("input"), (), named)


def _is_in_place(name: str) -> bool:
    """Whether a function changes its first argument: x.add_(y), or x += y, which is __iadd__ beside __add__."""
    if name.startswith("__") and name.endswith("__"):
        return name.startswith("__i") and hasattr(Tensor, name.replace("__i", "__", 1))
    return name.endswith("_")


def _plain(name: str) -> str:
    """A function's name without what says that it is an operator or in place."""
    if name.startswith("__") and name.endswith("__"):
        name = name.strip("_")
        return {"imul": "mul", "rmul": "mul", "iadd": "add", "radd": "add", "itruediv": "div", "truediv": "div",
                "isub": "sub", "imatmul": "matmul"}.get(name, name)  # fmt: skip
    return name.rstrip("_")


def _weights(query: Tensor, key: Tensor, given: Mapping[str, Any]) -> Tensor:
    """(N, heads, queries, keys): the softmax inside of a fused attention."""
    scale = given.get("scale") or 1 / math.sqrt(query.shape[-1])
    if given.get("enable_gqa"):
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
    scores = query @ key.transpose(-2, -1) * scale
    mask = given.get("attn_mask")
    if given.get("is_causal"):
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask
    return scores.softmax(-1)
