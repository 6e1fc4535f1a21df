"""The framework: layers, and networks that run them in turn."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from agnostic_tiny.tape import Tensor


class Layer:
    """A layer with its weights by name; ``axes`` are the letters of its output."""

    axes = "NC"

    def __init__(self, **weights: Any) -> None:
        self.weights = {name: Tensor(np.asarray(x, np.float32)) for name, x in weights.items()}


class Conv(Layer):
    """A convolution without padding: kernel (k, k, inputs, outputs)."""

    axes = "NHWC"

    def __call__(self, x: Tensor) -> Tensor:
        kernel = self.weights["kernel"]
        if x.ndim != 4 or x.shape[3] != kernel.shape[2]:
            raise ValueError(f"a convolution of {kernel.shape[2]} channels (N, H, W, C) was given {x.shape}")
        rows, columns = (np.arange(n - kernel.shape[0] + 1)[:, None] + np.arange(kernel.shape[0]) for n in x.shape[1:3])
        windows = x[:, rows[:, None, :, None], columns[None, :, None, :]]
        return np.einsum("nyxijc,ijck->nyxk", windows, kernel) + self.weights["bias"]


class ReLU(Layer):
    """The larger of x and 0."""

    axes = "NHWC"

    def __call__(self, x: Tensor) -> Tensor:
        return np.maximum(x, 0.0)


class Mean(Layer):
    """The mean over positions."""

    def __call__(self, x: Tensor) -> Tensor:
        return np.mean(x, axis=(1, 2))


class Dense(Layer):
    """A product with a matrix: kernel (inputs, outputs)."""

    def __call__(self, x: Tensor) -> Tensor:
        return x @ self.weights["kernel"] + self.weights["bias"]


class Network:
    """Layers by name, in the order in which they run."""

    def __init__(self, layers: Mapping[str, Layer]) -> None:
        self.layers = dict(layers)
        self.hooks: list[Callable[..., Tensor]] = []

    def __call__(self, x: Any) -> Any:
        """The output of the last layer; a hook is called as ``hook(name, run, x)`` in place of each layer."""
        x = x if isinstance(x, Tensor) else Tensor(np.asarray(x, np.float32))
        for name, layer in self.layers.items():
            for hook in self.hooks:
                layer = functools.partial(hook, name, layer)
            x = layer(x)
        return x

    @contextmanager
    def hooked(self, hook: Callable[..., Tensor]) -> Iterator[None]:
        """Inside, each layer runs through the hook."""
        self.hooks.append(hook)
        try:
            yield
        finally:
            self.hooks.remove(hook)

    def parameters(self) -> dict[str, Tensor]:
        """Every weight by its layer's name and its own."""
        return {f"{name}.{key}": x for name, layer in self.layers.items() for key, x in layer.weights.items()}


def net(seed: int = 0) -> Network:
    """A small network: (N, H, W, 3) to (N, 5)."""
    rng = np.random.default_rng(seed)
    conv = Conv(kernel=rng.normal(0, 0.3, (3, 3, 3, 4)), bias=rng.normal(0, 0.1, 4))
    return Network(
        {
            "conv": conv,
            "relu": ReLU(),
            "mean": Mean(),
            "dense": Dense(kernel=rng.normal(0, 0.5, (4, 5)), bias=[0.0] * 5),
        }
    )
