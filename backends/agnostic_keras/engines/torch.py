"""Keras on PyTorch: eager autograd."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import torch

from agnostic.patching import held
from agnostic_keras.engines.torch_guards import base as base
from agnostic_keras.engines.torch_guards import before_gradients as before_gradients
from agnostic_keras.engines.torch_guards import concrete as concrete
from agnostic_keras.engines.torch_guards import following as following
from agnostic_keras.engines.torch_guards import on_gradient as on_gradient
from agnostic_keras.engines.torch_layers import convolution as convolution
from agnostic_keras.engines.torch_layers import max_pool as max_pool
from agnostic_torch.calls import wide
from agnostic_torch.copies import fetching as fetching
from agnostic_torch.copies import sent as sent
from agnostic_torch.copies import staged as staged
from agnostic_torch.gradients import jacobian as jacobian
from agnostic_torch.gradients import per_sample as per_sample
from agnostic_torch.gradients import pullback as pullback
from agnostic_torch.ops import TorchOps

Tensor = torch.Tensor
UNEVEN_AVERAGES_REPEAT = True
"""Whether an average pool that pads more on one side pads with the border's numbers, instead of counting none there."""
SYMMETRIC = "replicate"
"""What ``keras.ops.pad`` does in mode ``"symmetric"``."""
EXACT_FRAMES = "centred"
"""Whether an inverse Fourier transform of windows knows that fewer of them lie over the ends: "always", "never", or
"centred": where they are, and as long as the window."""
SAME_IS_FIRST = True
"""Whether a correlation of mode ``"same"`` is as long as the first signal, and not as the longer one."""
UNSEEN_GIVES_STATE = False
"""Whether a recurrent layer gives its initial state, instead of zeros, until the first place that a mask shows."""
CUBIC = (-0.75, "clamp")
"""Of resizing without antialias: the cubic's slope, and what is beyond the border; see ``resize_matrix``."""
REFUSALS: tuple[type[Exception], ...] = ()
"""What this engine raises, beside Python's own errors, where an operation does not take what it is given."""
tanh = torch.tanh


@contextlib.contextmanager
def in_float64(variables: Sequence[keras.Variable]) -> Iterator[bool]:
    """Inside, the model of these variables computes in float64; whether it does."""
    with wide([variable.value for variable in variables]):
        yield True


def irfft2(real: Tensor, imaginary: Tensor, shape: tuple[int, int]) -> Tensor:
    """See :meth:`agnostic.ops.Ops.irfft2`."""
    found: Tensor = torch.fft.irfft2(torch.complex(real, imaginary), s=shape, norm="ortho")
    return found


def maximum(a: Tensor, b: Any) -> Tensor:
    """See :meth:`agnostic.ops.Ops.maximum`."""
    return torch.maximum(a, torch.as_tensor(b, dtype=a.dtype, device=a.device))


def minimum(a: Tensor, b: Any) -> Tensor:
    """See :meth:`agnostic.ops.Ops.minimum`."""
    return torch.minimum(a, torch.as_tensor(b, dtype=a.dtype, device=a.device))


norm, known = TorchOps().norm, TorchOps().known


def value_and_gradient(function: Callable[[Any], Tensor], x: Any) -> tuple[Tensor, Any]:
    """An array-valued function at ``x``, an array or a tuple of them, and the gradient of the sum of its values.

    It is zero where nothing connects them.
    """
    leaves = [leaf.detach().requires_grad_() for leaf in (x if isinstance(x, tuple) else (x,))]
    with torch.enable_grad():
        values = function(tuple(leaves) if isinstance(x, tuple) else leaves[0])
        if values.requires_grad:
            found = torch.autograd.grad(values.sum(), leaves, allow_unused=True, materialize_grads=True)
        else:
            found = tuple(map(torch.zeros_like, leaves))
    return values.detach(), found if isinstance(x, tuple) else found[0]


def dense(gradient: Any) -> Any:
    """A gradient as an array, where a sparse one came."""
    return gradient.to_dense() if isinstance(gradient, Tensor) and gradient.layout != torch.strided else gradient


def is_compiling() -> bool:
    """Whether this very moment is inside a trace, whose arrays have no values yet."""
    return torch.compiler.is_compiling()


EMPTY_BATCHES = True
"""A batch of no samples is computed like any other."""


def without_gradients(function: Callable[[Any], Any], inputs: Any) -> Any:
    """``function(inputs)``, run eagerly, nothing kept for a backward pass."""
    with eagerly(), torch.no_grad():
        return function(inputs)


def compiled(model: keras.Layer, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A function of arrays that runs a model, as it was written; the model's state stays as it is."""

    def run(inputs: Any) -> Any:
        with keras.StatelessScope():
            return without_gradients(function, inputs)

    return run


shapes = without_gradients
"""Run a function for the shapes that it meets: on PyTorch not every operation has a meta form, so for its values."""


def eagerly() -> contextlib.AbstractContextManager[Any]:
    """Compiled code runs as it was written inside; a tap inside of it would be missed."""
    if "torch._dynamo" not in sys.modules or torch.compiler.is_compiling():
        return contextlib.nullcontext()
    return held("stance", lambda: torch.compiler.set_stance("force_eager"))


uncompiled = eagerly
"""Compiled code, compiled before or not, runs as it was written inside."""


weights_kept = contextlib.nullcontext
"""Variables hold their values at all times here."""


def programs() -> Any:
    """Update rules as operations in place, see :class:`agnostic_torch.fusion.FusedUpdates`."""
    from agnostic_torch.fusion import FusedUpdates

    return FusedUpdates()


def _score(network: Any, now: Any, data: Any, point: Any) -> Any:
    """The score of a step's parameters and probes; the point comes last, for partial."""
    return network.score(point, now, data)


def climber(network: Any) -> Callable[..., Any]:
    """Steps of a micro-batch as a loop of eager autograd.

    Returns:
        As :func:`agnostic_keras.engines.jax.climber`.
    """

    def climb(parameters: Tensor, state: Any, schedule: Any, data: Any) -> tuple[Any, ...]:
        seen, probes = [], network.probes(parameters)
        first, last = ({name: array[t] for name, array in schedule.items()} for t in (0, -1))
        with eagerly():
            parts = network.parts_reached(parameters, probes[0], first, data)
            for t in range(len(next(iter(schedule.values())))):
                now = {name: array[t] for name, array in schedule.items()}
                score = functools.partial(_score, network, now, data)
                values, (gradient, received, of_pixels) = value_and_gradient(score, (parameters, *probes))
                with torch.no_grad():
                    parameters, state = network.update(parameters, gradient, of_pixels, state, now)
                    seen.append((values, network.finite(gradient), network.reached(received)))
            parts = parts | network.parts_reached(parameters, probes[0], last, data)
            with torch.no_grad():
                stacked = (torch.stack(x) for x in zip(*seen, strict=True))
                return network.display(parameters, data), parameters, state, *stacked, parts

    return climb
