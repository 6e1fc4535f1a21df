"""Run models from source that :mod:`agnostic.port` wrote. See :mod:`agnostic.contracts.ported`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from agnostic.contracts.ported import first_outputs
from agnostic_keras import engines
from agnostic_keras.calls import in_order, intercept
from agnostic_keras.layers import named_layers
from agnostic_keras.ops import ops_for


def run(
    model: keras.Model, inputs: Sequence[npt.NDArray[Any]], layers: Sequence[str],
    keep: Callable[[str, npt.NDArray[Any]], None],
) -> list[npt.NDArray[Any]]:  # fmt: skip
    """See :meth:`agnostic.contracts.ported.PortedModels.run`."""
    ops = ops_for()
    known = named_layers(model)
    wanted = [name for name in layers if name in known]
    given = inputs[0] if len(inputs) == 1 else list(inputs)
    with intercept(model, wanted, first_outputs(lambda name, x: keep(name, np.asarray(ops.numpy(x))))):
        result = engines.current().without_gradients(lambda x: model(x, training=False), given)
    return [np.asarray(ops.numpy(x)) for x in in_order(result) if keras.ops.is_tensor(x)]
