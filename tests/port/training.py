"""What a ported Keras model does when it is trained: a program, since Keras reads its engine once per process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np


def weighted(outputs: list[Any], xp: Any) -> Any:
    """A loss whose gradients are of one size: outputs times fixed numbers between -1 and 1."""
    total = 0.0
    for y in outputs:
        numbers = np.cos(np.arange(int(np.prod(y.shape)))).reshape(tuple(y.shape))
        total = total + (y * xp(numbers, y)).sum()
    return total


def main(folder: Path) -> None:
    """For each model in a folder: gradients and statistics of an inference and of a training step."""
    import keras
    import torch

    from agnostic.models.load import executed
    from agnostic_keras.layers import named_layers

    def like(numbers: Any, y: Any) -> Any:
        return torch.as_tensor(numbers, dtype=y.dtype)

    for source in sorted(folder.glob("*.py")):
        model = executed(source).make_model()
        drops = {}
        for name, layer in named_layers(model).items():
            if isinstance(layer, keras.layers.Dropout):
                drops[name] = [layer.rate, str(layer.noise_shape)]
                layer.rate = 0.0
        x = torch.from_numpy(np.load(source.with_suffix(".npy")))
        found: dict[str, Any] = {}
        for mode in (False, True):
            for variable in model.trainable_variables:
                variable.value.grad = None
            weighted(keras.tree.flatten(model(x, training=mode)), like).backward()
            for variable in model.weights:
                name = variable.path.partition("/")[2]
                value = variable.value.detach()
                if variable.trainable:
                    value = torch.zeros_like(value) if variable.value.grad is None else variable.value.grad
                found[f"{mode}/{name}"] = value.numpy().copy()
        found["fits"] = np.array(model._call_has_training_arg)
        np.savez(source.with_suffix(".found.npz"), drops=np.array(repr(drops)), **found)
