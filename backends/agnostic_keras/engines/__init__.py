"""What the engines of Keras do differently: gradients, compilation, the loop. One module each, the same functions.

An engine's module has the loop and the gradients; its layers and its guards lie beside it and come in through it.

- ``climber(network)`` makes a function of (parameters, state, schedule, data, on_step) that climbs a micro-batch and
  returns the pixels and, for each step and image, the score, whether the gradient is finite, and whether the network
  passed back any gradient; network: an :class:`agnostic_keras.ascent.Network`.
- ``convolution(layer, x, kernel, bias)`` is what a Conv2D or DepthwiseConv2D computes before its activation, and
  ``max_pool(layer, x)`` what a MaxPooling2D does, channels last whatever the layer's own layout: the numbers of the
  layer's own call, with a gradient for ``x`` alone, as fast as the engine can be.
- ``compiled(model, function)`` is a function of arrays that runs a model, compiled where the engine compiles.
- ``in_float64(variables)`` is a context in which their model computes in float64, if the engine can, and says so.
- ``value_and_gradient``, ``is_compiling``, ``dense``, ``without_gradients``, ``shapes``, ``eagerly``,
  ``EMPTY_BATCHES``: see their docstrings.
- ``staged``, ``sent``, ``fetching``: see :mod:`agnostic_keras.copies`.
- ``pullback``, ``per_sample``, ``jacobian``: see :mod:`agnostic_keras.gradients`; ``tanh``, ``maximum``, ``minimum``,
  ``irfft2``, ``norm``, ``known``: see :mod:`agnostic_keras.ops`.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
from collections.abc import Callable, Iterator, Sequence
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


def in_own_types(variables: Sequence[keras.Variable]) -> contextlib.AbstractContextManager[bool]:
    """Of ``in_float64``, where there is no other way: variables keep their types, and functions take no two types."""
    return contextlib.nullcontext(False)


def staged(model: keras.Layer, batch: Any) -> Any:
    """Where the engine says nothing of its memory: the batch itself."""
    return batch


def sent(model: keras.Layer, make: Callable[[], Any]) -> Any:
    """Where the engine itself copies in the order of what it is asked for."""
    return make()


def pads(layer: Any, sizes: Sequence[int], window: Sequence[int]) -> list[tuple[int, int]]:
    """(before, after) each spatial axis, as Keras pads on every engine.

    Args:
        layer: a convolution or a pooling, which says its padding, strides and dilation.
        sizes: of the input.
        window: of the kernel or the pool.
    """
    if layer.padding == "valid":
        return [(0, 0)] * len(sizes)
    totals = [max((-(-n // s) - 1) * s + k - n, 0) for n, s, k in _axes(layer, sizes, window)]
    return [(total // 2, total - total // 2) for total in totals]


def pads_back(layer: Any, sizes: Sequence[int], window: Sequence[int]) -> list[tuple[int, int]]:
    """What to put around the gradient of a convolution's output, stretched by its strides, to convolve it back.

    Args as for :func:`pads`. Source: Dumoulin, Visin, "A guide to convolution arithmetic for deep learning", 2016.
    """
    found = []
    for (n, s, k), (low, high) in zip(_axes(layer, sizes, window), pads(layer, sizes, window), strict=True):
        outputs = (n + low + high - k) // s + 1
        found.append((k - 1 - low, n - 1 - (outputs - 1) * s + low))
    return found


def _axes(layer: Any, sizes: Sequence[int], window: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """(size, stride, how far the window reaches) along each axis."""
    dilation = getattr(layer, "dilation_rate", (1,) * len(sizes))
    for n, s, k, d in zip(sizes, layer.strides, window, dilation, strict=True):
        yield n, s, (k - 1) * d + 1
