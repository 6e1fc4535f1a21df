"""Functions that are replaced while a model runs, by their names: those of the engine that all of Keras leads to."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import keras
from keras.src import backend
from keras.src.ops import nn as nn_operations

from agnostic.contracts.attribution import FunctionRules, Standardization
from agnostic.patching import Replacement, patched

Array = Any

_ELEMENTWISE = (
    "relu", "relu6", "sigmoid", "tanh", "softplus", "softsign", "silu", "squareplus", "log_sigmoid", "leaky_relu",
    "hard_sigmoid", "hard_silu", "elu", "selu", "gelu", "celu", "hard_tanh", "tanh_shrink", "soft_shrink",
    "hard_shrink", "threshold", "sparse_plus", "sparse_sigmoid",
)  # fmt: skip
_VIEWS = ("reshape", "transpose", "expand_dims", "squeeze", "broadcast_to")


def replaced_functions(rules: FunctionRules | None) -> AbstractContextManager[None]:
    """Inside, rules, if there are any, take the place of functions of what is no constant."""
    return patched([] if rules is None else _patches(rules))


def _patches(rules: FunctionRules) -> list[tuple[Any, str, Replacement]]:
    """What takes the place of each function."""
    constants, guarded = _Constants(rules), _Guard().guarded
    products, others = _Products(rules, constants), _Others(rules, constants)
    handlers: dict[tuple[Any, str], Callable[..., Any]] = {
        (backend.nn, "conv"): products.convolution, (backend.nn, "depthwise_conv"): products.convolution,
        (backend.nn, "conv_transpose"): products.convolution, (backend.nn, "separable_conv"): products.separable,
        (backend.numpy, "matmul"): products.product, (backend.numpy, "tensordot"): products.product,
        (backend.numpy, "einsum"): products.einsum, (backend.numpy, "multiply"): products.multiply,
        (backend.numpy, "divide"): products.divide, (backend.numpy, "true_divide"): products.divide,
        (backend.numpy, "add"): products.add, (backend.numpy, "subtract"): products.subtract,
        (backend.nn, "batch_normalization"): others.batch_norm,
        (nn_operations, "_layer_normalization"): others.layer_norm, (backend.nn, "softmax"): others.softmax,
        (nn_operations, "_rms_normalization"): others.rms_norm,
        (backend.nn, "dot_product_attention"): others.attention,
    }  # fmt: skip
    found: list[tuple[Any, str, Replacement]] = [
        (owner, name, guarded(handler)) for (owner, name), handler in handlers.items() if hasattr(owner, name)
    ]
    elementwise = [(backend.nn, name) for name in _ELEMENTWISE] + [(backend.math, "rsqrt")]
    elementwise += [(backend.numpy, name) for name in ("tanh", "clip", "exp", "reciprocal")]
    found += [(owner, name, guarded(others.elementwise, name)) for owner, name in elementwise]
    views = [(backend.numpy, name) for name in _VIEWS] + [(backend.core, "cast"), (backend.core, "convert_to_tensor")]
    return found + [(owner, name, guarded(constants.view)) for owner, name in views]


class _Guard:
    """Keeps handlers from what they call themselves."""

    def __init__(self) -> None:
        self._busy = False

    def guarded(self, handler: Callable[..., Any], *first: Any) -> Replacement:
        """A handler that is not called by what a handler calls."""

        def call(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            if self._busy:
                return original(*args, **kwargs)
            self._busy = True
            try:
                return handler(*first, original, *args, **kwargs)
            finally:
                self._busy = False

        return call


class _Constants:
    """What does not depend on the model's inputs: weights, numbers, and what follows from these alone."""

    def __init__(self, rules: FunctionRules) -> None:
        self._rules = rules
        # The arrays are kept, so that no other takes their identity.
        self._known: dict[int, Array] = {}

    def has(self, x: Any) -> bool:
        """Whether this is one."""
        is_array = keras.ops.is_tensor(x) and not isinstance(x, keras.Variable)
        return not is_array or not len(x.shape) or id(x) in self._known or self._rules.is_frozen(x)

    def add(self, x: Array) -> Array:
        """The array, which is one from now on."""
        self._known[id(x)] = x
        return x

    def view(self, original: Any, x: Any, *args: Any, **kwargs: Any) -> Array:
        """A function that moves numbers."""
        found = original(x, *args, **kwargs)
        return self.add(found) if self.has(x) else found


class _Products:
    """Handlers of products and sums."""

    def __init__(self, rules: FunctionRules, constants: _Constants) -> None:
        self._rules, self._constants = rules, constants

    def _bilinear(self, function: Callable[[Array, Array], Array], a: Any, b: Any, *, spatial: bool = False) -> Array:
        """A product of two that depend on the inputs, or of one with a constant."""
        constants = self._constants.has(a), self._constants.has(b)
        a, b = backend.convert_to_tensor(a), backend.convert_to_tensor(b)
        if all(constants):
            return self._constants.add(function(a, b))
        if not any(constants):
            return self._rules.product(function, a, b)
        if constants[1]:
            return self._rules.linear(function, a, b, None, spatial=spatial)
        return self._rules.linear(lambda x, w: function(w, x), b, a, None, spatial=spatial)

    def convolution(self, original: Any, inputs: Array, kernel: Any, *args: Any, **kwargs: Any) -> Array:
        return self._bilinear(lambda x, w: original(x, w, *args, **kwargs), inputs, kernel, spatial=True)

    def separable(
        self, original: Any, inputs: Array, depthwise_kernel: Any, pointwise_kernel: Any, strides: Any = 1,
        padding: str = "valid", data_format: str | None = None, dilation_rate: Any = 1,
    ) -> Array:  # fmt: skip
        spread = self._bilinear(
            lambda x, w: backend.nn.depthwise_conv(x, w, strides, padding, data_format, dilation_rate),
            inputs, depthwise_kernel, spatial=True,
        )  # fmt: skip
        return self._bilinear(
            lambda x, w: backend.nn.conv(x, w, 1, "valid", data_format, 1), spread, pointwise_kernel, spatial=True
        )

    def product(self, original: Any, x1: Any, x2: Any, **kwargs: Any) -> Array:
        return self._bilinear(lambda a, b: original(a, b, **kwargs), x1, x2)

    def einsum(self, original: Any, subscripts: str, *operands: Any, **kwargs: Any) -> Array:
        if len(operands) != 2:
            return original(subscripts, *operands, **kwargs)
        return self._bilinear(lambda a, b: original(subscripts, a, b, **kwargs), *operands)

    def multiply(self, original: Any, x1: Any, x2: Any) -> Array:
        constants = self._constants.has(x1), self._constants.has(x2)
        if all(constants):
            return self._constants.add(original(x1, x2))
        if not any(constants):
            return self._rules.product(original, x1, x2)
        x, scale = (x2, x1) if constants[0] else (x1, x2)
        return self._rules.scaled(x, self._like(scale, x), None)

    def divide(self, original: Any, x1: Any, x2: Any) -> Array:
        constants = self._constants.has(x1), self._constants.has(x2)
        if not any(constants):
            return self._rules.quotient(x1, x2)
        if constants[0]:
            found = original(x1, x2)
            return self._constants.add(found) if all(constants) else found
        return self._rules.scaled(x1, 1 / self._like(x2, x1), None)

    def add(self, original: Any, x1: Any, x2: Any) -> Array:
        constants = self._constants.has(x1), self._constants.has(x2)
        if all(constants) or not any(constants):
            found = original(x1, x2)
            return self._constants.add(found) if all(constants) else found
        x, offset = (x2, x1) if constants[0] else (x1, x2)
        return self._rules.shifted(x, self._like(offset, x))

    def subtract(self, original: Any, x1: Any, x2: Any) -> Array:
        constants = self._constants.has(x1), self._constants.has(x2)
        if all(constants) or not any(constants):
            found = original(x1, x2)
            return self._constants.add(found) if all(constants) else found
        if constants[1]:
            return self._rules.shifted(x1, -self._like(x2, x1))
        return self._rules.shifted(self._rules.scaled(x2, self._like(-1, x2), None), self._like(x1, x2))

    @staticmethod
    def _like(constant: Any, x: Array) -> Array:
        """A constant as an array of the type of x."""
        return backend.cast(backend.convert_to_tensor(constant), x.dtype)


class _Others:
    """Handlers of activations, norms and attention."""

    def __init__(self, rules: FunctionRules, constants: _Constants) -> None:
        self._rules, self._constants = rules, constants

    def elementwise(self, name: str, original: Any, x: Any, *args: Any, **kwargs: Any) -> Array:
        if self._constants.has(x):
            return self._constants.add(original(x, *args, **kwargs))
        return self._rules.elementwise(name, lambda y: original(y, *args, **kwargs), x)

    def batch_norm(
        self, original: Any, x: Array, mean: Any, variance: Any, axis: int, offset: Any = None, scale: Any = None,
        epsilon: float = 1e-3,
    ) -> Array:  # fmt: skip
        if not self._constants.has(mean):
            return original(x, mean, variance, axis, offset, scale, epsilon)
        slope = keras.ops.rsqrt(backend.convert_to_tensor(variance) + epsilon)
        slope = slope if scale is None else slope * backend.convert_to_tensor(scale)
        shift = -backend.convert_to_tensor(mean) * slope
        shift = shift if offset is None else shift + backend.convert_to_tensor(offset)
        shape = [1] * len(x.shape)
        shape[axis] = -1
        slope, shift = (backend.cast(keras.ops.reshape(y, shape), x.dtype) for y in (slope, shift))
        return self._rules.scaled(x, slope, shift)

    def layer_norm(
        self, original: Any, x: Array, gamma: Any = None, beta: Any = None, axis: Any = -1,
        epsilon: float | None = None, **kwargs: Any,
    ) -> Array:  # fmt: skip
        given = {"gamma": gamma, "beta": beta, "axis": axis, "epsilon": epsilon, **kwargs}
        if kwargs.get("rms_scaling"):
            return original(x, **given)
        return self._standardized(lambda y: original(y, **given), x, gamma, beta, axis, epsilon, centred=True)

    def rms_norm(
        self, original: Any, x: Array, scale: Any = None, axis: Any = -1, epsilon: float | None = None
    ) -> Array:
        given = {"scale": scale, "axis": axis, "epsilon": epsilon}
        return self._standardized(lambda y: original(y, **given), x, scale, None, axis, epsilon, centred=False)

    def _standardized(
        self, function: Callable[[Array], Array], x: Array, scale: Any, offset: Any, axis: int | Sequence[int],
        epsilon: float | None, *, centred: bool,
    ) -> Array:  # fmt: skip
        axes = sorted(k % len(x.shape) for k in ([axis] if isinstance(axis, int) else axis))
        shape = [n if k in axes else 1 for k, n in enumerate(x.shape)]
        along = [None if y is None else keras.ops.reshape(backend.convert_to_tensor(y), shape) for y in (scale, offset)]
        least = backend.epsilon() if epsilon is None else epsilon
        norm = Standardization(tuple(axes), tuple(x.shape), centred, least, along[0], along[1])
        return self._rules.standardized(function, x, norm)

    def softmax(self, original: Any, x: Array, axis: Any = -1) -> Array:
        if axis not in (-1, len(x.shape) - 1) or self._constants.has(x):
            return original(x, axis)
        return self._rules.softmax(lambda y: original(y, axis), x)

    def attention(self, original: Any, query: Array, key: Array, value: Array, *args: Any, **kwargs: Any) -> Array:
        names = ("bias", "mask", "scale", "is_causal", "flash_attention", "attn_logits_soft_cap")
        given = dict(zip(names, args, strict=False)) | kwargs
        return self._rules.attention(
            lambda q, k, v: original(q, k, v, **given), query, key, value, lambda: _weights(query, key, given)
        )


def _weights(query: Array, key: Array, given: Mapping[str, Any]) -> Array:
    """(N, heads, queries, keys): the softmax inside of a fused attention of arrays (N, places, heads, channels)."""
    ops = keras.ops
    groups = query.shape[2] // key.shape[2]
    key = ops.repeat(key, groups, 2) if groups > 1 else key
    scale = given.get("scale") or 1 / math.sqrt(query.shape[-1])
    scores = ops.einsum("nqhc,nkhc->nhqk", query, key) * scale
    if given.get("bias") is not None:
        scores = scores + given["bias"]
    mask = given.get("mask")
    if given.get("is_causal"):
        mask = ops.tril(ops.ones(scores.shape[-2:], "bool"))
    if mask is not None:
        scores = ops.where(ops.cast(mask, "bool"), scores, -1e30)
    return ops.softmax(scores, -1)
