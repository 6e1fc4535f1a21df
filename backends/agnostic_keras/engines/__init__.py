"""What the engines of Keras do differently: gradients, compilation, the loop. One module each, the same functions.

- ``climber(network)`` makes a function of (parameters, state, schedule, data, on_step) that climbs a micro-batch and
  returns (pixels, scores, finite gradients); network: an :class:`agnostic_keras.ascent.Network`.
- ``convolution(layer, x, kernel, bias)`` is what a Conv2D or DepthwiseConv2D computes before its activation, and
  ``max_pool(layer, x)`` what a MaxPooling2D does, channels last whatever the layer's own layout: the numbers of the
  layer's own call, with a gradient for ``x`` alone, as fast as the engine can be.
- ``value_and_gradient``, ``is_compiling``, ``without_gradients``, ``shapes``, ``eagerly``: see their docstrings.
- ``pullback``, ``per_sample``, ``jacobian``: see :mod:`agnostic_keras.gradients`; ``tanh``, ``maximum``, ``minimum``,
  ``irfft2``: see :mod:`agnostic_keras.ops`.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import keras

from agnostic.errors import InvalidInput

NAMES = ("torch", "jax", "tensorflow")


@functools.cache
def current() -> ModuleType:
    """The module of the engine that Keras runs on in this process."""
    name = keras.config.backend()
    if name not in NAMES:
        raise InvalidInput(
            f"Keras runs on {name!r} here, which cannot differentiate: set KERAS_BACKEND to {', '.join(NAMES)} "
            "before keras is imported"
        )
    return importlib.import_module(f"{__name__}.{name}")


def pads(layer: Any, sizes: Sequence[int], window: Sequence[int]) -> list[tuple[int, int]]:
    """(before, after) each spatial axis, as Keras pads on every engine.

    Args:
        layer: a convolution or a pooling, which says ``padding`` and ``strides``.
        sizes: of the input.
        window: how far the kernel reaches, dilation counted.
    """
    if layer.padding == "valid":
        return [(0, 0)] * len(sizes)
    totals = [max((-(-n // s) - 1) * s + k - n, 0) for n, s, k in zip(sizes, layer.strides, window, strict=True)]
    return [(total // 2, total - total // 2) for total in totals]
