"""Capability: run a model with numbers added to what its layers return, for attribution."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from agnostic.contracts.capability import Capability, Model

Array = Any
"""A native array."""


@dataclass(frozen=True)
class ForwardPass:
    """What one forward pass gave.

    Attributes:
        values: the outputs of the named layers, with what was added.
        output: what the model returned, as it is.
        arrays: the arrays in ``output``, in order.
        logits: for each of ``arrays``, what it was computed from where it is the result of a softmax or a sigmoid;
            None elsewhere.
    """

    values: Mapping[str, Array]
    output: Any
    arrays: tuple[Array, ...]
    logits: tuple[Array | None, ...]


class FunctionRules:
    """What takes the place of a framework's functions while a model runs; here, the functions themselves.

    A backend calls these for what the model computes from its inputs, whatever it is written as: layers, functions,
    methods or operators. Arrays are native. A *constant* is what does not depend on the model's inputs.
    """

    def linear(
        self, function: Callable[[Array, Array], Array], x: Array, weight: Array, bias: Array | None, *, spatial: bool
    ) -> Array:
        """A dense layer, a convolution, or a product with a constant.

        Args:
            function: from x and weight to the result without its bias; linear in each of the two.
            x, weight: its arguments.
            bias: broadcasts over the result; None where there is none.
            spatial: whether it is a convolution.
        """
        found = function(x, weight)
        return found if bias is None else found + bias

    def shifted(self, x: Array, offset: Array) -> Array:
        """The sum of x and a constant."""
        return x + offset

    def scaled(self, x: Array, scale: Array, offset: Array | None) -> Array:
        """Batch norm by given statistics: ``scale * x + offset``, with constants that broadcast; None is no offset."""
        return x * scale if offset is None else x * scale + offset

    def elementwise(self, name: str, function: Callable[[Array], Array], x: Array) -> Array:
        """An activation: each number of the result depends on one number.

        Args:
            name: ``"relu"``, ``"sigmoid"``, ``"hard_sigmoid"``, ``"rsqrt"``, ``"exp"``; others as they come.
            function: what it computes.
            x: its argument.
        """
        return function(x)

    def product(self, function: Callable[[Array, Array], Array], a: Array, b: Array) -> Array:
        """A product of two arrays that both depend on the inputs, element by element or of matrices."""
        return function(a, b)

    def quotient(self, a: Array, b: Array) -> Array:
        """``a / b`` of two arrays that both depend on the inputs."""
        return a / b

    def standardized(self, function: Callable[[Array], Array], x: Array, norm: Standardization) -> Array:
        """Layer norm, group norm or RMS norm.

        Args:
            function: what it computes.
            x: its argument.
            norm: the same in numbers.
        """
        return function(x)

    def softmax(self, function: Callable[[Array], Array], x: Array) -> Array:
        """A softmax over the last axis."""
        return function(x)

    def attention(
        self, function: Callable[[Array, Array, Array], Array], query: Array, key: Array, value: Array,
        weights: Callable[[], Array],
    ) -> Array:  # fmt: skip
        """A fused attention.

        Args:
            function: what it computes.
            query, key, value: its arguments.
            weights: computes its weights, (N, heads, queries, keys).
        """
        return function(query, key, value)

    def is_frozen(self, x: Array) -> bool:
        """Whether a result of these functions is to count as a constant."""
        return False

    def changed(self, x: Array, before: Array) -> None:
        """An array is about to be changed in place: what is known of it is so of ``before``, a copy."""


@dataclass(frozen=True)
class Standardization:
    """Of :meth:`FunctionRules.standardized`: ``(x - mean) / sqrt(variance + epsilon) * scale + offset``.

    Attributes:
        axes: of the statistics, in an array of ``shape``.
        shape: that x is given first; the result has x's own again before scale and offset.
        centred: False where the mean is taken for zero.
        epsilon: under the root.
        scale, offset: constants that broadcast over x; None for one and zero.
    """

    axes: tuple[int, ...]
    shape: tuple[int, ...]
    centred: bool
    epsilon: float
    scale: Array | None
    offset: Array | None


class Attributions(Protocol):
    """Forward passes whose derivatives explain an output; :mod:`agnostic.attribution` has the methods."""

    def forward(self, model: Model, inputs: Any, rules: FunctionRules | None = None) -> ForwardPass:
        """Run the model in inference mode, without gradients.

        Args:
            inputs: as in :func:`agnostic.capture`.
            rules: what takes the place of functions inside of the model.
        """

    def perturbed(
        self, model: Model, inputs: Any, added: Mapping[str, Array], rules: FunctionRules | None = None
    ) -> ForwardPass:
        """Run the model in inference mode, with an array added to the output of each named layer.

        It can be differentiated by the gradients of the same backend with respect to the inputs and to what is added:
        the gradient with respect to zeros that are added is the gradient with respect to the layer's output.

        Args:
            inputs: as in :func:`agnostic.capture`.
            added: by layer name, of the shape of the layer's output; for layers that run once and return one array.
            rules: what takes the place of functions inside of the model.

        Raises:
            InvalidInput: a layer returns no single array.
        """

    def guided(self) -> AbstractContextManager[list[None]]:
        """Inside, a ReLU or ReLU6 passes a gradient back only where it is positive.

        It may be written as a layer, a function or a method.

        Yields:
            A list that has one entry for each ReLU that has run.
        """


ATTRIBUTION: Capability[Attributions] = Capability("attribution", Attributions, "attribute outputs to pixels")
