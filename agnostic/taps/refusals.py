"""What a model says when it cannot take its inputs, in one sentence.

What a model takes, only the model knows, so nothing is refused beforehand: it is run, and its error is explained
here, with what was given, the layer that refused it, and what that layer takes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from agnostic.arrays import describe
from agnostic.contracts.inputs import INPUTS
from agnostic.contracts.layers import LAYERS
from agnostic.errors import AgnosticError, InvalidInput
from agnostic.registry import Backend, Model


@contextmanager
def refusals(backend: Backend, model: Model, inputs: Any) -> Iterator[None]:
    """Inside, a model that cannot take its inputs raises InvalidInput, from its own error.

    Args:
        inputs: what it is called with, for the sentence.
    """
    try:
        yield
    except AgnosticError:
        raise
    except Exception as error:
        if not backend[INPUTS].is_refusal(error):
            raise
        layer = _failing(backend, model, error)
        expected = backend[LAYERS].expected(model, layer)
        if layer is None:
            what = "it fails" if expected is None else f"it takes {expected}"
        else:
            what = f"it fails at layer {layer!r}" + ("" if expected is None else f", which takes {expected}")
        raise InvalidInput(
            f"{type(model).__name__} does not take {describe(inputs)}: {what} ({_first_line(error)})"
            + ("; images go through agnostic.prepare(model, images) first" if _like_images(inputs) else "")
        ) from error


def _failing(backend: Backend, model: Model, error: Exception) -> str | None:
    """The innermost of the model's layers whose code was running, read from the error's frames."""
    found, frames = None, error.__traceback__
    while frames is not None:
        own = frames.tb_frame.f_locals.get("self")
        if own is not None:
            found = backend[LAYERS].layer_name(model, own) or found
        frames = frames.tb_next
    return found


def _first_line(error: Exception) -> str:
    # Without colours, and without the names that TensorFlow gives to its kernels.
    text = re.sub(r"\x1b\[[0-9;]*m|\{\{[^}]*\}\} ?| \[Op:\w+\]( name:)?", "", str(error))
    lines = [line.strip() for line in text.splitlines() if line.strip() and "Exception encountered" not in line]
    return (lines or [type(error).__name__])[0][:200]


def _like_images(inputs: Any) -> bool:
    """Whether one array was given that may be images as they are read."""
    return isinstance(inputs, np.ndarray) and inputs.ndim in (3, 4) and (inputs.dtype == np.uint8 or _channels(inputs))


def _channels(array: np.ndarray[Any, Any]) -> bool:
    return array.shape[-1] in (1, 3)
