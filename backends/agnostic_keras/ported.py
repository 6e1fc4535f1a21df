"""Run models from source that :mod:`agnostic.port` wrote. See :mod:`agnostic.contracts.ported`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from agnostic_keras.calls import in_order
from agnostic_keras.layers import named_layers
from agnostic_keras.ops import ops_for
from agnostic_keras.taps import watch


def run(
    model: keras.Model, inputs: Sequence[npt.NDArray[Any]], layers: Sequence[str]
) -> tuple[list[npt.NDArray[Any]], Mapping[str, npt.NDArray[Any]]]:
    """See :meth:`agnostic.contracts.ported.PortedModels.run`."""
    ops = ops_for()
    known = named_layers(model)
    wanted = [name for name in layers if name in known]
    with watch(model, wanted, detach=True) as record:
        result = model(inputs[0] if len(inputs) == 1 else list(inputs), training=False)
    found = {}
    for name in wanted:
        calls = record.calls(name)
        if calls and hasattr(calls[0], "shape"):
            found[name] = np.asarray(ops.numpy(calls[0]))
    return [np.asarray(ops.numpy(x)) for x in in_order(result) if keras.ops.is_tensor(x)], found
