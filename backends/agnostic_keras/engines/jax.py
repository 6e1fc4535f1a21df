"""Keras on jax: pure functions, jitted; the whole ascent is one scan."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import keras
from jax import lax
from jax.experimental.sparse import JAXSparse
from jax.interpreters.partial_eval import dce_jaxpr

from agnostic_keras.engines import in_own_types
from agnostic_keras.engines import sent as sent
from agnostic_keras.engines import staged as staged
from agnostic_keras.engines.jax_guards import base as base
from agnostic_keras.engines.jax_guards import before_gradients as before_gradients
from agnostic_keras.engines.jax_guards import concrete as concrete
from agnostic_keras.engines.jax_guards import following as following
from agnostic_keras.engines.jax_guards import on_gradient as on_gradient
from agnostic_keras.engines.jax_guards import uncompiled as uncompiled
from agnostic_keras.engines.jax_guards import weights_kept as weights_kept
from agnostic_keras.engines.jax_layers import convolution as convolution
from agnostic_keras.engines.jax_layers import max_pool as max_pool

Array = jax.Array
UNEVEN_AVERAGES_REPEAT = False
"""Whether an average pool that pads more on one side pads with the border's numbers, instead of counting none there."""
SYMMETRIC = "symmetric"
EXACT_FRAMES = "always"
SAME_IS_FIRST = False
UNSEEN_GIVES_STATE = True
"""Whether a recurrent layer gives its initial state, instead of zeros, until the first place that a mask shows."""
CUBIC = (-0.5, "renormalize")
"""Of resizing without antialias: the cubic's slope, and what is beyond the border; see ``resize_matrix``."""
REFUSALS: tuple[type[Exception], ...] = ()
"""What this engine raises, beside Python's own errors, where an operation does not take what it is given."""
Function = Callable[..., list[Array]]
Cotangents = Callable[[list[Array]], list[Array]]
tanh, maximum, minimum = jnp.tanh, jnp.maximum, jnp.minimum
in_float64 = in_own_types


def irfft2(real: Array, imaginary: Array, shape: tuple[int, int]) -> Array:
    """See :meth:`agnostic.ops.Ops.irfft2`."""
    return jnp.fft.irfft2(lax.complex(real, imaginary), s=shape, norm="ortho")


def norm(x: Array, axis: Any, keepdims: bool) -> Array:
    """See :meth:`agnostic.ops.Ops.norm`."""
    total = jnp.sum(jnp.square(x), axis, keepdims=keepdims)
    # The root of 0 has no gradient: see agnostic.ops.safe_sqrt.
    return jnp.where(total == 0, 0, jnp.sqrt(jnp.where(total == 0, 1, total)))


def known(x: Array) -> None:
    """See :meth:`agnostic.ops.Ops.known`: jax computes while the program goes on."""


def value_and_gradient(function: Callable[[Any], Array], x: Any) -> tuple[Array, Any]:
    """An array-valued function at ``x``, an array or a tuple of them, and the gradient of the sum of its values.

    It is zero where nothing connects them.
    """

    def total(x: Any) -> tuple[Array, Array]:
        values = function(x)
        return values.sum(), values

    (_, values), gradient = jax.value_and_grad(total, has_aux=True)(x)
    return values, gradient


def dense(gradient: Any) -> Any:
    """A gradient as an array, where a sparse one came."""
    return gradient.todense() if isinstance(gradient, JAXSparse) else gradient


def is_compiling() -> bool:
    """Whether this very moment is inside a trace, whose arrays have no values yet."""
    return isinstance(jnp.zeros(()), jax.core.Tracer)


EMPTY_BATCHES = True
"""A batch of no samples is computed like any other."""


def without_gradients(function: Callable[[Any], Any], inputs: Any) -> Any:
    """``function(inputs)``, run eagerly."""
    return function(inputs)


def compiled(model: keras.Layer, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A function of arrays that runs a model, compiled once for each shape; the model's state stays as it is."""

    @jax.jit
    def traced(values: list[Array], inputs: Any) -> Any:
        # As arguments: weights may change between calls, and as constants they would be folded for minutes.
        with keras.StatelessScope(state_mapping=list(zip(model.variables, values, strict=True))):
            return function(inputs)

    return lambda inputs: traced([x.value for x in model.variables], inputs)


def shapes(function: Callable[[Any], Any], inputs: Any) -> None:
    """Run a function for the shapes that it meets, without computing values."""
    jax.eval_shape(lambda x: [function(x), None][1], inputs)


eagerly = contextlib.nullcontext
"""A model's own call is not compiled; for what may be, there is ``uncompiled``, which slows down all that runs."""


programs: Any = None
"""Arrays of jax cannot be written to: rules are traced."""


def climber(network: Any) -> Callable[..., Any]:
    """Steps of a micro-batch as one jitted scan; compiled once for each shape and number of steps.

    Returns:
        From parameters, state, schedule and data to what is shown, parameters and state after the last step, and for
        each step the scores, whether gradients were finite, whether they reached the images; and the parts that did.
    """

    @jax.jit
    def compiled(parameters: Array, state: Any, schedule: Any, data: Any) -> tuple[Array, ...]:
        probes = network.probes(parameters)

        def step(carry: tuple[Array, Any], now: Any) -> tuple[tuple[Array, Any], tuple[Array, ...]]:
            parameters, state = carry
            scores, (gradient, received, of_pixels) = value_and_gradient(
                lambda point: network.score(point, now, data), (parameters, *probes)
            )
            seen = scores, network.finite(gradient), network.reached(received)
            return network.update(parameters, gradient, of_pixels, state, now), seen

        first, last = ({name: array[t] for name, array in schedule.items()} for t in (0, -1))
        parts = network.parts_reached(parameters, probes[0], first, data)
        (parameters, state), seen = lax.scan(step, (parameters, state), schedule)
        parts |= network.parts_reached(parameters, probes[0], last, data)
        return network.display(parameters, data), parameters, state, *seen, parts

    return compiled


def fetching(arrays: Sequence[Array]) -> Callable[[], Sequence[Array]]:
    """Copies begin now, each after what computes its array, and after nothing else."""
    for x in arrays:
        x.copy_to_host_async()
    return lambda: arrays


# Gradients; see agnostic_keras.gradients -----------------------------------------------------------------------------
def pullback(function: Function, inputs: Sequence[Array], cotangents: Cotangents) -> list[Array | None]:
    """See :func:`agnostic_keras.gradients.pullback`."""
    outputs, forward = jax.linearize(function, *inputs)
    # jax answers 0 where nothing is connected: what the linear program does not need is not.
    program = jax.make_jaxpr(forward)(*inputs).jaxpr
    _, needed = dce_jaxpr(program, [True] * len(program.outvars))
    transpose = jax.linear_transpose(forward, *inputs)
    found = transpose([w.astype(y.dtype) for y, w in zip(outputs, cotangents(outputs), strict=True)])
    return [g if connected else None for g, connected in zip(found, needed, strict=True)]


def per_sample(
    function: Function, inputs: Sequence[Array], batch: Sequence[Array], cotangents: Cotangents
) -> list[Array]:
    """See :func:`agnostic_keras.gradients.per_sample`."""

    def total(x: tuple[Array, ...], rows: tuple[Array, ...]) -> Array:
        outputs = function(*x, *rows)
        terms = [(y * w).sum() for y, w in zip(outputs, cotangents(outputs), strict=True)]
        return jnp.stack(terms).sum()

    return list(jax.vmap(jax.grad(total), (None, 0))(tuple(inputs), tuple(batch)))


def jacobian(function: Function, inputs: Sequence[Array]) -> list[list[Array]]:
    """See :func:`agnostic_keras.gradients.jacobian`."""
    return [list(row) for row in jax.jacrev(function, tuple(range(len(inputs))))(*inputs)]
