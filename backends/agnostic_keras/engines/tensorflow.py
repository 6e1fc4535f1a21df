"""Keras on TensorFlow: the ascent is one tf.function with a symbolic loop."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import keras
import tensorflow as tf

from agnostic_keras.engines import in_own_types
from agnostic_keras.engines import sent as sent
from agnostic_keras.engines import staged as staged
from agnostic_keras.engines.tensorflow_guards import base as base
from agnostic_keras.engines.tensorflow_guards import before_gradients as before_gradients
from agnostic_keras.engines.tensorflow_guards import concrete as concrete
from agnostic_keras.engines.tensorflow_guards import following as following
from agnostic_keras.engines.tensorflow_guards import on_gradient as on_gradient
from agnostic_keras.engines.tensorflow_guards import uncompiled as uncompiled
from agnostic_keras.engines.tensorflow_layers import convolution as convolution
from agnostic_keras.engines.tensorflow_layers import max_pool as max_pool

Tensor: TypeAlias = Any  # tf.Tensor: TensorFlow has no types
UNEVEN_AVERAGES_REPEAT = False
"""Whether an average pool that pads more on one side pads with the border's numbers, instead of counting none there."""
SYMMETRIC = "symmetric"
EXACT_FRAMES = "never"
SAME_IS_FIRST = False
UNSEEN_GIVES_STATE = False
"""Whether a recurrent layer gives its initial state, instead of zeros, until the first place that a mask shows."""
CUBIC = (-0.5, "renormalize")
"""Of resizing without antialias: the cubic's slope, and what is beyond the border; see ``resize_matrix``."""
REFUSALS: tuple[type[Exception], ...] = (
    tf.errors.InvalidArgumentError,
    tf.errors.UnimplementedError,
    tf.errors.NotFoundError,
)
"""What this engine raises, beside Python's own errors, where an operation does not take what it is given."""


tanh, maximum, minimum = tf.tanh, tf.maximum, tf.minimum
in_float64 = in_own_types


def irfft2(real: Tensor, imaginary: Tensor, shape: tuple[int, int]) -> Tensor:
    """See :meth:`agnostic.ops.Ops.irfft2`."""
    inverse = tf.signal.irfft2d(tf.complex(real, imaginary), shape)
    return inverse * tf.constant((shape[0] * shape[1]) ** 0.5, inverse.dtype)


def norm(x: Tensor, axis: Any, keepdims: bool) -> Tensor:
    """See :meth:`agnostic.ops.Ops.norm`."""
    total = tf.reduce_sum(tf.square(x), axis, keepdims)
    # The root of 0 has no gradient: see agnostic.ops.safe_sqrt.
    one, zero = tf.ones_like(total), tf.zeros_like(total)
    return tf.where(total == 0, zero, tf.sqrt(tf.where(total == 0, one, total)))


def known(x: Tensor) -> None:
    """See :meth:`agnostic.ops.Ops.known`: nearly all is traced."""


def value_and_gradient(function: Callable[[Any], Tensor], x: Any) -> tuple[Tensor, Any]:
    """An array-valued function at ``x``, an array or a tuple of them, and the gradient of the sum of its values.

    It is zero where nothing connects them.
    """
    with tf.GradientTape() as tape:
        tape.watch(x)
        values = function(x)
    return values, tape.gradient(values, x, unconnected_gradients=tf.UnconnectedGradients.ZERO)


def dense(gradient: Any) -> Tensor:
    """A gradient as an array, where TensorFlow gives an embedding's as slices, and others may be sparse."""
    if isinstance(gradient, tf.SparseTensor):
        return tf.sparse.to_dense(gradient)
    return tf.convert_to_tensor(gradient) if isinstance(gradient, tf.IndexedSlices) else gradient


def is_compiling() -> bool:
    """Whether this very moment is inside a trace, whose arrays have no values yet."""
    return bool(tf.inside_function())


EMPTY_BATCHES = False
"""On the CPU, convolutions of a batch of no samples return the shape of their input."""


def without_gradients(function: Callable[[Any], Any], inputs: Any) -> Any:
    """``function(inputs)``, run eagerly."""
    return function(inputs)


def compiled(model: keras.Layer, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A function of arrays that runs a model, compiled once for each shape; the model's state stays as it is."""

    @tf.function(autograph=False)  # type: ignore[untyped-decorator]
    def traced(values: list[Tensor], inputs: Any) -> Any:
        # As arguments: reading variables would be half of the graph, and most of the time that it takes to trace it.
        with keras.StatelessScope(state_mapping=list(zip(model.variables, values, strict=True))):
            return function(inputs)

    handles: list[tuple[Any, Any]] = []

    def run(inputs: Any) -> Any:
        if not handles:
            handles.extend((x.value.handle, x.value.dtype) for x in model.variables)
        # Each of hundreds of variables takes a third of what tf.convert_to_tensor takes.
        return traced([tf.raw_ops.ReadVariableOp(resource=handle, dtype=dtype) for handle, dtype in handles], inputs)

    return run


def shapes(function: Callable[[Any], Any], inputs: Any) -> None:
    """Run a function for the shapes that it meets, without computing values."""
    tf.function(lambda x: [function(x), None][1], autograph=False).get_concrete_function(inputs)


eagerly = contextlib.nullcontext
"""A model's own call is not compiled; for what may be, there is ``uncompiled``, which slows down all that runs."""


weights_kept = contextlib.nullcontext
"""Variables hold their values at all times here."""


programs: Any = None
"""Arrays of TensorFlow cannot be written to: rules are traced."""


def climber(network: Any) -> Callable[..., Any]:
    """Steps of a micro-batch as one tf.function with a symbolic loop; traced once for each shape.

    Returns:
        As :func:`agnostic_keras.engines.jax.climber`.
    """

    @tf.function(autograph=False)  # type: ignore[untyped-decorator]
    def compiled(parameters: Tensor, state: Any, schedule: Any, data: Any) -> tuple[Tensor, ...]:
        steps = next(iter(schedule.values())).shape[0]
        probes = network.probes(parameters)

        def step(t: Tensor, parameters: Tensor, state: Any, seen: tuple[tf.TensorArray, ...]) -> tuple[Any, ...]:
            now = tf.nest.map_structure(lambda x: x[t], schedule)
            values, (gradient, received, of_pixels) = value_and_gradient(
                lambda point: network.score(point, now, data), (parameters, *probes)
            )
            parameters, state = network.update(parameters, gradient, of_pixels, state, now)
            now_seen = values, network.finite(gradient), network.reached(received)
            return t + 1, parameters, state, tuple(all_.write(t, x) for all_, x in zip(seen, now_seen, strict=True))

        first, last = ({name: array[t] for name, array in schedule.items()} for t in (0, -1))
        parts = network.parts_reached(parameters, probes[0], first, data)
        seen = tuple(tf.TensorArray(dtype, steps) for dtype in (parameters.dtype, tf.bool, tf.bool))
        _, parameters, state, seen = tf.while_loop(
            lambda t, *_: t < steps, step, (tf.constant(0), parameters, state, seen),
            parallel_iterations=1, maximum_iterations=steps,
        )  # fmt: skip
        parts |= network.parts_reached(parameters, probes[0], last, data)
        return network.display(parameters, data), parameters, state, *(x.stack() for x in seen), parts

    climb: Callable[..., Any] = compiled
    return climb


def fetching(arrays: Sequence[Tensor]) -> Callable[[], Sequence[Tensor]]:
    """TensorFlow copies to main memory when numbers are asked for, and waits then for all that it was asked for."""
    return lambda: arrays


# Gradients; see agnostic_keras.gradients -----------------------------------------------------------------------------
def pullback(
    function: Callable[..., list[Tensor]],
    inputs: Sequence[Tensor],
    cotangents: Callable[[list[Tensor]], list[Tensor]],
) -> list[Tensor | None]:
    """See :func:`agnostic_keras.gradients.pullback`."""
    # New tensors: the same one may be given twice, and would be one input to the tape.
    inputs = [tf.identity(x) for x in inputs]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = function(*inputs)
    found = tape.gradient(outputs, inputs, cotangents(outputs))
    # An embedding's gradient is a list of rows, the same row several times.
    return [g if g is None else tf.convert_to_tensor(g) for g in found]


def per_sample(
    function: Callable[..., list[Tensor]],
    inputs: Sequence[Tensor],
    batch: Sequence[Tensor],
    cotangents: Callable[[list[Tensor]], list[Tensor]],
) -> list[Tensor]:
    """See :func:`agnostic_keras.gradients.per_sample`."""
    inputs = [tf.identity(x) for x in inputs]

    def one(rows: Sequence[Tensor]) -> list[Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = function(*inputs, *rows)
        weights = cotangents(outputs)
        found = tape.gradient(outputs, inputs, weights, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return [tf.convert_to_tensor(g) for g in found]

    return list(tf.vectorized_map(one, list(batch)))


def jacobian(function: Callable[..., list[Tensor]], inputs: Sequence[Tensor]) -> list[list[Tensor]]:
    """See :func:`agnostic_keras.gradients.jacobian`."""
    inputs = [tf.identity(x) for x in inputs]
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(inputs)
        outputs = function(*inputs)
    zero = tf.UnconnectedGradients.ZERO
    return [list(tape.jacobian(y, inputs, unconnected_gradients=zero)) for y in outputs]
