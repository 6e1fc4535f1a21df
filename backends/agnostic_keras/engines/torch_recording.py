"""Runs of Keras on the torch engine, recorded as torch's own; see :mod:`agnostic_torch.recording`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import torch

from agnostic.patching import patched
from agnostic.program.runs import Run
from agnostic_torch.recording import Recorder
from agnostic_torch.recording import evaluate as evaluate
from agnostic_torch.recording import evaluates as evaluates


def record(model: keras.Layer, layers: Mapping[str, keras.Layer], run: Callable[[], Sequence[torch.Tensor]]) -> Run:
    """The operators of a run.

    Args:
        model: the model.
        layers: those inside it, by name.
        run: runs it.
    """
    names = {id(layer): name for name, layer in layers.items()}
    recorder = Recorder(type(model).__name__, "keras", {"": type(model).__name__, **{
        name: type(layer).__name__ for name, layer in layers.items()
    }})  # fmt: skip
    for variable in model.variables:
        if isinstance(variable.value, torch.Tensor):
            recorder.leaf(variable.value, variable.path, "parameter" if variable.trainable else "buffer")

    def call(original: Callable[..., Any], layer: Any, *args: Any, **kwargs: Any) -> Any:
        return recorder.layer(names.get(id(layer)), lambda *a, **k: original(layer, *a, **k), layer, args, kwargs)

    with patched([(keras.Layer, "__call__", call)]), recorder.recording():
        return recorder.run(run())
