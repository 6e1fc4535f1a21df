"""Gradients of a loss, and what an optimizer makes of them; see :mod:`agnostic.compare.learning`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import tree

from agnostic.optimizers.build import build
from agnostic_keras import engines
from agnostic_keras.ops import KerasOps
from agnostic_keras.taps import check_built, predict
from agnostic_keras.weights import _variables

_ops = KerasOps()


def gradients(model: keras.Layer, inputs: Any) -> dict[str, np.ndarray[Any, Any]]:
    """See :meth:`agnostic.contracts.learning.LearningSteps.gradients`."""
    names = {id(v): name for name, v in _variables(model).items()}
    found = zip(model.trainable_variables, _gradients(model, inputs), strict=True)
    return {names[id(v)]: _ops.numpy(g) for v, g in found if g is not None and id(v) in names}


def steps(
    model: keras.Layer, inputs: Any, spec: Any, rates: Sequence[float]
) -> Iterator[tuple[dict[str, np.ndarray[Any, Any]], dict[str, np.ndarray[Any, Any]]]]:
    """See :meth:`agnostic.contracts.learning.LearningSteps.steps`."""
    variables = _variables(model)
    names = {id(v): name for name, v in variables.items()}
    before = {name: np.array(_ops.numpy(v.value)) for name, v in variables.items()}
    try:
        optimizer = build(spec, model)
        for rate in rates:
            optimizer.learning_rate = rate
            pairs = zip(_gradients(model, inputs), model.trainable_variables, strict=True)
            moving = [(g, v) for g, v in pairs if g is not None]
            used = {names[id(v)]: np.array(_ops.numpy(g)) for g, v in moving if id(v) in names}
            optimizer.apply([g for g, _ in moving], [v for _, v in moving])
            trainable = {id(v) for v in model.trainable_variables}
            yield used, {name: np.array(_ops.numpy(v.value)) for name, v in variables.items() if id(v) in trainable}
    finally:
        for name, v in variables.items():
            v.assign(before[name])


def _gradients(model: keras.Layer, inputs: Any) -> list[Any]:
    check_built(model)
    variables = model.trainable_variables

    def loss(*values: Any) -> list[Any]:
        with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
            outputs = tree.flatten(predict(model, inputs))
        floating = [x for x in outputs if "float" in keras.backend.standardize_dtype(x.dtype)]
        return [keras.ops.mean(keras.ops.square(x)) / 2 for x in floating]

    values = [v.value for v in variables]
    found: list[Any] = engines.current().pullback(loss, values, lambda ys: [keras.ops.ones_like(y) for y in ys])
    return found
