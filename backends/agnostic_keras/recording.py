"""Runs of Keras models on any engine; see :mod:`agnostic.contracts.recording`.

The operators are those of :mod:`agnostic_keras.program`, which reads the model as it is called on these inputs; what
the run gives is what the engine gives. Whether the one stands for the other, a replay tells.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
from keras import tree

from agnostic.program.exact import evaluated
from agnostic.program.nodes import Array, Node, Value
from agnostic.program.runs import Run
from agnostic.program.vocabulary import operators
from agnostic_keras import calls
from agnostic_keras.custom import CustomCall
from agnostic_keras.program import arrays_of, read


def obstacle(model: keras.Layer) -> str | None:
    """See :meth:`agnostic.contracts.recording.Recordings.obstacle`."""
    return None


def record(model: keras.Layer, inputs: Any) -> Run:
    """See :meth:`agnostic.contracts.recording.Recordings.record`."""
    recorder, program = read(model, inputs)
    by_result = {call.results: call for call in recorder.customs}
    nodes = tuple(_computable(node, by_result, recorder.value) for node in program.nodes)
    arrays = arrays_of(program, model, inputs)
    results = [np.array(calls.numpy(x)) for x in calls.returned(model, inputs)]
    outputs = {path: x for (path, _), x in zip(program.outputs, results, strict=True)}
    program = replace(program, nodes=nodes)
    return Run(program, arrays, frozenset(), outputs, (), tuple(recorder.layers))


def evaluates(operator: str) -> bool:
    """See :meth:`agnostic.contracts.recording.Recordings.evaluates`."""
    return operator in operators()


def evaluate(node: Node, operands: Sequence[Any]) -> tuple[Array, ...]:
    """See :meth:`agnostic.contracts.recording.Recordings.evaluate`."""
    return evaluated(node, operands)


@dataclass(frozen=True)
class _Engines:
    """What the engine makes of an operator that has no translation: a meaning as in ``custom``.

    Attributes:
        call: of that operator.
        symbols: the symbolic tensors that it was called with, in order.
    """

    call: CustomCall
    symbols: tuple[Any, ...]
    flops: None = None

    def reference(self, *operands: Array) -> tuple[Array, ...]:
        """Its results."""
        places = {id(symbol): x for symbol, x in zip(self.symbols, operands, strict=True)}
        return tuple(np.array(calls.numpy(x)) for x in self.call.on(lambda symbol: places[id(symbol)]))


def _computable(node: Node, by_result: Mapping[tuple[Value, ...], CustomCall], value: Callable[[Any], Value]) -> Node:
    if node.operator != "custom":
        return node
    call = by_result[node.outputs]
    symbols = tuple(x for x in tree.flatten((call.args, call.kwargs)) if isinstance(x, keras.KerasTensor))
    attributes = {**node.attributes, "meaning": _Engines(call, symbols)}
    return replace(node, operands=(tuple(map(value, symbols)),), attributes=attributes)
