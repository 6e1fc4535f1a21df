"""Runs of Keras models, where the engine's dispatcher can be listened to; see :mod:`agnostic.contracts.recording`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from agnostic.program.nodes import Array, Node
from agnostic.program.runs import Run
from agnostic_keras import engines
from agnostic_keras.calls import run
from agnostic_keras.layers import named_layers


def obstacle(model: keras.Layer) -> str | None:
    """See :meth:`agnostic.contracts.recording.Recordings.obstacle`."""
    if keras.config.backend() != "torch":
        return f"operators of Keras are recorded on the torch engine alone, and it runs on {keras.config.backend()}"
    return None


def record(model: keras.Layer, inputs: Any) -> Run:
    """See :meth:`agnostic.contracts.recording.Recordings.record`."""
    found: Run = engines.current().record(model, named_layers(model), lambda: run(model, inputs))
    return found


def evaluates(operator: str) -> bool:
    """See :meth:`agnostic.contracts.recording.Recordings.evaluates`."""
    engine = engines.current()
    return hasattr(engine, "evaluates") and bool(engine.evaluates(operator))


def evaluate(node: Node, operands: Sequence[Any]) -> tuple[Array, ...]:
    """See :meth:`agnostic.contracts.recording.Recordings.evaluate`."""
    found: tuple[Array, ...] = engines.current().evaluate(node, operands)
    return found
