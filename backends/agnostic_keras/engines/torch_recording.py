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
    path: list[tuple[str, str]] = []

    def call(original: Callable[..., Any], layer: Any, *args: Any, **kwargs: Any) -> Any:
        inner = names.get(id(layer), path[-1][0] if path else "")
        path.append((inner, type(layer).__name__))
        if len(path) == 1:
            recorder.given((args, kwargs))
        try:
            return original(layer, *args, **kwargs)
        finally:
            path.pop()
            if not path:
                recorder.stop()

    recorder.place = lambda: path[-1] if path else ("", "")
    with patched([(keras.Layer, "__call__", call)]), recorder.recording():
        return recorder.run(run())
