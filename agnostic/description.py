"""What one layer is, described without any framework: its kind, the settings that a comparison reads, its weights.

What a layer computes is in the program of its model (:mod:`agnostic.program`).

Conventions, which every backend keeps:

- Weights have Keras' names and layouts: kernels ``(*size, inputs / groups, outputs)``, transposed ones ``(*size,
  outputs, inputs)``, depthwise ones ``(*size, channels, multiplier)``; gates are in the order ``ifco`` (LSTM) and
  ``zrh`` (GRU).
- Padding is ``"valid"``, ``"same"`` (TensorFlow's, which depends on the size), or (low, high) for each spatial axis.
- ``momentum`` of a batch norm is the share of the old statistic that is kept: 0.99, where PyTorch says 0.01.
- ``activation`` is a name of :mod:`agnostic.reference.activations`, with its parameters in ``activation_options``. A
  function that is none of these is ``"other"``.

================================================= ====================================================================
kind                                              config beside ``class``, ``framework``, ``dtype`` and ``training``
================================================= ====================================================================
conv, depthwise_conv, separable_conv,             strides, padding
conv_transpose, max_pool, average_pool
batch_norm                                        epsilon, momentum
layer_norm, rms_norm, group_norm                  epsilon
activation                                        activation, activation_options; prelu has the weight alpha
dense, einsum_dense, embedding, lstm, gru, rnn,   nothing
attention, scale, normalization, flatten, ...
block                                             a layer that holds others
other                                             anything that a backend does not know
================================================= ====================================================================
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
            ``class`` is the framework's own class.
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


def _frozen(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(_frozen(x) for x in value)
    if isinstance(value, Mapping):
        return {str(key): _frozen(x) for key, x in value.items()}
    # NumPy's numbers have no JSON.
    return value.item() if isinstance(value, np.generic) else value
