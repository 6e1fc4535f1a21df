"""Which call of a layer a picture is made for, where a model has several inputs: the last one that depends on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from agnostic.contracts.taps import TAPS
from agnostic.errors import InvalidInput
from agnostic.models.call import ModelCall
from agnostic.registry import Backend, Model


def calls_reached(
    backend: Backend,
    model: Model,
    call: ModelCall,
    pictures: Callable[[int], npt.NDArray[np.float32]],
    layers: Sequence[str],
) -> Mapping[str, int]:
    """For each layer the number, from 0, of the last of its calls that depends on the picture.

    Measured: a call depends on it whose output differs between two pictures, all else being equal. So a tower that two
    inputs share is looked at where it sees the picture.

    Args:
        pictures: a picture, a batch of one as the model takes it, by number.
        layers: names.

    Raises:
        InvalidInput: no call of a layer depends on the picture, or none of its outputs is finite.
    """
    records = [backend[TAPS].capture(model, call.native(backend, model, pictures(i)), layers).numpy() for i in (0, 1)]
    found = {}
    for layer in layers:
        calls = list(zip(*(record.calls(layer) for record in records), strict=False))
        differ = [i for i, (a, b) in enumerate(calls) if not _equal(a, b)]
        if any(not _finite(a) for pair in calls for a in pair) and not differ:
            raise InvalidInput(
                f"layer {layer!r} gives numbers that are not finite for a picture of noise: check the model's weights "
                "and the inputs that were given"
            )
        if not differ:
            raise InvalidInput(
                f"layer {layer!r} does not depend on the input {call.label!r} that the picture is made for: it gives "
                "the same for two pictures of noise; choose a layer that this input reaches, or another input as image="
            )
        found[layer] = differ[-1]
    return found


def _finite(a: Any) -> bool:
    return not isinstance(a, np.ndarray) or a.dtype.kind not in "fc" or bool(np.isfinite(a).all())


def _equal(a: Any, b: Any) -> bool:
    return (
        isinstance(a, np.ndarray) and isinstance(b, np.ndarray) and np.array_equal(a, b, equal_nan=a.dtype.kind in "fc")
    )
