"""What guards watch on TensorFlow; see :mod:`agnostic_keras.guards`."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import tensorflow as tf
from tensorflow.python.framework import op_callbacks

from agnostic.guards import Flow
from agnostic.patching import held

Tensor: TypeAlias = Any  # tf.Tensor: TensorFlow has no types


def uncompiled() -> contextlib.AbstractContextManager[None]:
    """Compiled code, compiled before or not, runs as it was written inside."""
    return held("functions run eagerly", _functions_run_eagerly)


@contextlib.contextmanager
def _functions_run_eagerly() -> Iterator[None]:
    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        with warnings.catch_warnings():
            # That pipelines of data stay compiled, which fit() makes one of.
            warnings.filterwarnings("ignore", "Even though the `tf.config.experimental_run_functions_eagerly`")
            yield
    finally:
        tf.config.run_functions_eagerly(before)


def concrete(x: Any) -> Tensor | None:
    """An array's values, also while it is differentiated; None while it is traced, when it has none."""
    x = tf.convert_to_tensor(x)
    return x if hasattr(x, "numpy") else None


def on_gradient(x: Tensor, function: Callable[[Tensor], None]) -> Tensor:
    """``x``, such that ``function`` is called with its gradient on the way back."""

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def identity(x: Tensor) -> Any:
        def back(gradient: Tensor) -> Tensor:
            function(gradient)
            return gradient

        return tf.identity(x), back

    return identity(x)


@contextlib.contextmanager
def before_gradients(function: Callable[[Any], None]) -> Iterator[None]:
    """Inside, ``function`` is called with what a tape is asked to differentiate."""
    original = tf.GradientTape.gradient

    def gradient(self: Any, target: Any, *args: Any, **kwargs: Any) -> Any:
        function(target)
        return original(self, target, *args, **kwargs)

    tf.GradientTape.gradient = gradient
    try:
        yield
    finally:
        tf.GradientTape.gradient = original


@contextlib.contextmanager
def following(flow: Flow) -> Iterator[None]:
    """Inside, ``flow`` is told of each operation of this thread."""

    def ran(name: str, inputs: Any, attributes: Any, outputs: Any, op_name: Any = None, graph: Any = None) -> None:
        if graph is None:
            flow.operation(name, _floating(inputs), _floating(outputs))

    op_callbacks.add_op_callback(ran)
    try:
        yield
    finally:
        op_callbacks.remove_op_callback(ran)


def _floating(arrays: Any) -> list[Tensor]:
    return [x for x in arrays if x.dtype.is_floating]


def base(x: Tensor) -> None:
    """The array that another one is a view of: nothing is changed in place here."""
