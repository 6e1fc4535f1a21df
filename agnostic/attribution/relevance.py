"""Layer-wise relevance propagation: rules for functions, under which pixel times gradient is a pixel's relevance.

A rule gives the function's own numbers, with another gradient: the relevance of an array is the array times the
gradient that comes to it. Sums, pooling and movements of numbers then need no rule.

Source: Samek, Montavon, Lapuschkin, Anders, Müller, "Explaining deep neural networks and beyond", 2021, section III.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from agnostic.contracts.attribution import FunctionRules, Standardization
from agnostic.ops import Array, Ops

GATES = frozenset({"sigmoid", "hard_sigmoid", "rsqrt", "exp", "reciprocal"})
"""Elementwise functions whose result only weighs what it is multiplied with."""

_NEAR = 1e-12
"""Below this a number counts as 0, and nothing is divided by it."""


@dataclass(frozen=True)
class _Linear:
    """What a linear function and the constants after it gave.

    Attributes:
        total: the result, with bias.
        positive: the sum of the positive contributions of the inputs; None where no rule needs it.
        bias: None where there is none.
        gamma: of the rule.
    """

    total: Array
    positive: Array | None
    bias: Array | None
    gamma: float


class Relevance(FunctionRules):
    """Rules of relevance.

    Linear functions have the epsilon rule, or the gamma rule where gamma is above 0. Batch norm after a linear function
    is a part of it. Activations hand on what they get. Of a product, the factor that is no gate gets all, and two of
    the same kind half each; weights of attention are gates. Standard deviations of layer norms are constants.

    Args:
        ops: the operations.
        epsilon: added to the size of what relevance is divided by, above 0.
        gamma: how much more positive contributions count in convolutions, at least 0.
        dense_gamma: the same in other linear functions.

    Source: Bach et al., 2015, equation 58 (epsilon); Montavon et al., "Layer-wise relevance propagation: an overview",
    2019, section 10.2.1 (gamma), with inputs of both signs as in Andéol et al., 2021; Arras et al., 2017, section 3
    (gates); Achtibat et al., "AttnLRP", 2024, sections 3.3.2 (products) and 3.3.3 (norms); Ali et al., "XAI for
    transformers", 2022 (constant attention).
    """

    def __init__(self, ops: Ops, *, epsilon: float, gamma: float, dense_gamma: float) -> None:
        self._ops, self._epsilon = ops, epsilon
        self._gammas = {True: gamma, False: dense_gamma}
        # Arrays are kept beside what is known of them, so that no other takes their identity.
        self._linear: dict[int, tuple[Array, _Linear]] = {}
        self._gates: dict[int, Array] = {}
        self._frozen: dict[int, Array] = {}

    def linear(
        self, function: Callable[[Array, Array], Array], x: Array, weight: Array, bias: Array | None, *, spatial: bool
    ) -> Array:
        """The epsilon or the gamma rule."""
        ops, gamma, positive = self._ops, self._gammas[spatial], None
        if gamma:
            positive = function(ops.maximum(x, 0), ops.maximum(weight, 0))
            positive = positive + function(ops.minimum(x, 0), ops.minimum(weight, 0))
        total = function(x, weight)
        return self._given(_Linear(total if bias is None else total + bias, positive, bias, gamma))

    def shifted(self, x: Array, offset: Array) -> Array:
        """Of the result of a linear function: a bias."""
        known = self._linear.get(id(x))
        if known is None:
            return x + offset
        found = known[1]
        bias = offset if found.bias is None else found.bias + offset
        return self._given(_Linear(found.total + offset, found.positive, bias, found.gamma))

    def scaled(self, x: Array, scale: Array, offset: Array | None) -> Array:
        """Of the result of a linear function: a part of its weights and bias."""
        known = self._linear.get(id(x))
        if known is None:
            return super().scaled(x, scale, offset)
        found, positive = known[1], None
        if found.positive is not None:
            positive = self._ops.where(scale > 0, found.positive, self._negative(found)) * scale
        bias = offset if found.bias is None else super().scaled(found.bias, scale, offset)
        return self._given(_Linear(super().scaled(found.total, scale, offset), positive, bias, found.gamma))

    def _negative(self, found: _Linear) -> Array:
        """The sum of the negative contributions of the inputs."""
        own = found.total if found.bias is None else found.total - found.bias
        return own - found.positive

    def _given(self, found: _Linear) -> Array:
        """The result of a linear function, with the gradient of its rule."""
        ops, chosen = self._ops, found.total
        if found.positive is not None:
            more, less = found.positive, self._negative(found)
            if found.bias is not None:
                more, less = more + ops.maximum(found.bias, 0), less + ops.minimum(found.bias, 0)
            chosen = chosen + found.gamma * ops.where(found.total > 0, more, less)
        below = ops.where(chosen >= 0, chosen + self._epsilon, chosen - self._epsilon)
        result = self._with_gradient(found.total, chosen, found.total / below)
        self._linear[id(result)] = result, found
        return result

    def _with_gradient(self, value: Array, path: Array, slope: Array) -> Array:
        """The value, with the gradient of ``slope * path``, whose slope is constant."""
        ops = self._ops
        return ops.stop_gradient(value) + (path - ops.stop_gradient(path)) * ops.stop_gradient(slope)

    def elementwise(self, name: str, function: Callable[[Array], Array], x: Array) -> Array:
        """All relevance is handed on."""
        ops = self._ops
        value = function(ops.stop_gradient(x))
        is_zero = ops.abs(x) < _NEAR
        slope = ops.where(is_zero, value * 0, value / ops.where(is_zero, x * 0 + 1, x))
        result = self._with_gradient(value, x, slope)
        if name in GATES:
            self._gates[id(result)] = result
        return result

    def product(self, function: Callable[[Array, Array], Array], a: Array, b: Array) -> Array:
        """All to the factor that is no gate; to two of the same kind half each."""
        stopped = self._ops.stop_gradient
        gates = id(a) in self._gates, id(b) in self._gates
        if gates == (True, False):
            return function(stopped(a), b)
        if gates == (False, True):
            return function(a, stopped(b))
        return (function(a, stopped(b)) + function(stopped(a), b)) * 0.5

    def quotient(self, a: Array, b: Array) -> Array:
        """All to the numerator."""
        return a / self._ops.stop_gradient(b)

    def standardized(self, function: Callable[[Array], Array], x: Array, norm: Standardization) -> Array:
        """The standard deviation is a constant."""
        ops = self._ops
        y = ops.reshape(x, norm.shape)
        y = y - ops.mean(y, norm.axes, keepdims=True) if norm.centred else y
        variance = ops.mean(ops.square(y), norm.axes, keepdims=True)
        y = ops.reshape(y / ops.stop_gradient(ops.sqrt(variance + norm.epsilon)), ops.shape(x))
        y = y if norm.scale is None else y * norm.scale
        return y if norm.offset is None else y + norm.offset

    def softmax(self, function: Callable[[Array], Array], x: Array) -> Array:
        """A constant."""
        found = self._ops.stop_gradient(function(x))
        self._frozen[id(found)] = found
        return found

    def attention(
        self, function: Callable[[Array, Array, Array], Array], query: Array, key: Array, value: Array,
        weights: Callable[[], Array],
    ) -> Array:  # fmt: skip
        """All to the values."""
        return function(self._ops.stop_gradient(query), self._ops.stop_gradient(key), value)

    def is_frozen(self, x: Array) -> bool:
        """Weights of attention are."""
        return id(x) in self._frozen

    def changed(self, x: Array, before: Array) -> None:
        """It is no longer what a function gave; the copy is."""
        if (known := self._linear.pop(id(x), None)) is not None:
            self._linear[id(before)] = before, known[1]
        for kept in (self._gates, self._frozen):
            if kept.pop(id(x), None) is not None:
                kept[id(before)] = before
