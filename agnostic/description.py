"""What one layer computes, described without any framework.

A description is what comparing, diagnosing and transferring share: :mod:`agnostic.reference.layers` executes it in
NumPy, and two descriptions of one kind can be compared entry by entry.

Conventions, which every backend keeps:

- Arrays are channels-last, ``(N, *spatial, C)``, whatever the framework's layout. ``data_format`` in a config says
  what the native layout is, and ``axis`` where it appears refers to the native layout.
- Weights have Keras' names and layouts: kernels ``(*size, inputs / groups, outputs)``, transposed ones ``(*size,
  outputs, inputs)``, depthwise ones ``(*size, channels, multiplier)``; gates are in the order ``ifco`` (LSTM) and
  ``zrh`` (GRU).
- Padding is ``"valid"``, ``"same"`` (TensorFlow's, which depends on the size), or (low, high) for each spatial axis.
- ``momentum`` of a batch norm is the share of the old statistic that is kept: 0.99, where PyTorch says 0.01.
- ``activation`` is a name of :mod:`agnostic.reference.activations`, with its parameters in ``activation_options``; a
  layer without one has ``"linear"``. A function that is none of these is ``"other"``.

==================== =================================================================================================
kind                 config beside ``class``, ``framework``, ``dtype`` and ``training``
==================== =================================================================================================
conv                 rank, kernel_size, strides, padding, padding_mode, dilation, groups, activation
depthwise_conv       the same without groups: kernel (*size, C, M)
separable_conv       the same: depthwise_kernel, pointwise_kernel
conv_transpose       rank, kernel_size, strides, dilation, groups, crop: (low, high) cut from the full output
dense                activation: kernel (inputs, outputs)
einsum_dense         equation, activation
batch_norm           axis, epsilon, momentum, unbiased: whether the running variance is
layer_norm, rms_norm axes: those that are reduced, negative; epsilon
group_norm           groups, epsilon
unit_norm            axes
activation           activation, activation_options; prelu has the weight alpha
max_pool             rank, pool_size, strides, padding, dilation, ceil_mode
average_pool         the same and count_include_pad, divisor; uneven: "replicate" where unequal padding repeats the edge
adaptive_pool        rank, output_size, mode
global_average_pool  rank, keepdims; global_max_pool alike
flatten              order: "channels_first" or "channels_last"; start, end
reshape, permute     shape; dims: without the batch, from 1
padding, crop        padding: pairs; mode, value
resize               size or scale, interpolation, align_corners, half_pixel, antialias; cubic, edges
pixel_shuffle        factor, inverse
dropout              rate; noise, stochastic_depth alike
embedding            padding_index
lstm, gru, rnn       units, layers, bidirectional, return_sequences, activation, recurrent_activation, reset_after
attention            heads, key_dim, scale, causal
add, multiply, ...   nothing; concatenate has axis
scale                gamma: one factor per channel; normalization: mean, variance; rescaling: factor, offset
block                a layer that holds others
other                anything without a description
==================== =================================================================================================
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class LayerDescription:
    """One layer.

    Attributes:
        name: in its model.
        kind: one of the table above.
        config: the hyperparameters: numbers, strings, booleans and tuples of them, so that JSON can carry them.
            ``class`` is the framework's own class; ``overridden`` is true where that class is a subclass that computes
            in a way of its own, so that the description may not be the whole truth.
        weights: by Keras' names, in its layout.
    """

    name: str
    kind: str
    config: Mapping[str, Any] = field(default_factory=dict)
    weights: Mapping[str, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # JSON turns tuples into lists; a description that was read again equals the one that was written.
        frozen = {key: _frozen(value) for key, value in self.config.items()}
        object.__setattr__(self, "config", types.MappingProxyType(frozen))

    def __reduce__(self) -> Any:
        # A mapping proxy cannot be copied or sent to another process.
        return type(self), (self.name, self.kind, dict(self.config), dict(self.weights))

    @property
    def framework(self) -> str:
        """``"torch"``, ``"keras"``, or ``""`` where it is not known."""
        return str(self.config.get("framework", ""))

    def replace(self, *, kind: str | None = None, weights: Mapping[str, Array] | None = None, **config: Any) -> Any:
        """The same layer with other entries of its config; a weight that is given as None is taken out."""
        changed = {**self.weights, **(weights or {})}
        return LayerDescription(
            self.name,
            kind or self.kind,
            {**self.config, **config},
            {name: x for name, x in changed.items() if x is not None},
        )


def _frozen(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(_frozen(x) for x in value)
    if isinstance(value, Mapping):
        return {str(key): _frozen(x) for key, x in value.items()}
    # NumPy's numbers have no JSON.
    return value.item() if isinstance(value, np.generic) else value
