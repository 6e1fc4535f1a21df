"""``trace`` and ``compare``: record a run of a model, and compare two models."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agnostic.compare.comparing import compare_records
from agnostic.compare.direct import against, recorded, trace_model
from agnostic.compare.report import Comparison
from agnostic.compare.stored import opened
from agnostic.compare.traces import Trace
from agnostic.errors import InvalidInput
from agnostic.registry import Model

if TYPE_CHECKING:
    from agnostic.optimizers.specs import Spec


def trace(
    model: Model,
    inputs: Any,
    path: str | os.PathLike[str],
    *,
    gradients: bool = False,
    update: tuple[Spec, int | Sequence[float]] | None = None,
) -> Path:
    """Record a run of a model in a file: its program, that is every operator that ran, its weights and its outputs.

    Args:
        model: a native model; its mode (train, eval) is not changed.
        inputs: as in :func:`compare`.
        path: of the file; its name ends in ``.trace``.
        gradients: record the gradients of a loss as well: half the mean square of each output, added up.
        update: (a specification of an optimizer, a number of steps or the learning rate of each): record the weights
            after those steps on that loss, and the gradients of each step.

    Returns:
        The path.

    Raises:
        InvalidInput: the inputs do not fit or are not finite, the model is random, or the file cannot be written.

    Example:
        >>> path = ag.trace(model, images, "model.trace")
        >>> ag.compare(path, model).same
        True
    """
    return trace_model(model, inputs, path, gradients=gradients, update=update)


def compare(
    a: Any, b: Any, inputs: Any = None, *, map: Mapping[str, str] | None = None, strict: bool = False
) -> Comparison:
    """Find where B, a version of A, computes something else, and why.

    Args:
        a, b: native models, specifications for :func:`agnostic.load`, or trace files.
        inputs: the inputs of both models: images (N, H, W, C), uint8 or in [0, 1], which go through each model's own
            preprocessing; or an array, tuple or dict as A takes them. None if A is a trace: the inputs of the trace.
        map: B's layer for layers of A that are not to be matched by themselves.
        strict: whether models are different as well whose outputs agree and that differ inside.

    Returns:
        The table of layers, ``same``, ``first_divergence`` and ``diagnosis``; ``print`` shows all, ``html(path)``
        writes a page.

    Raises:
        InvalidInput: the inputs do not fit, or two runs of A differ.

    Example:
        >>> import copy
        >>> other = copy.deepcopy(model)
        >>> other.norm.eps = 0.1
        >>> found = ag.compare(model, other, images)
        >>> found.same, str(found.first_divergence), found.diagnosis.mistake
        (False, 'norm', 'batch_norm_epsilon')
    """
    from agnostic.compare.processes import compare_in_processes, needs_process

    if needs_process(a) or needs_process(b):
        return compare_in_processes(a, b, inputs, map=map, strict=strict)
    if isinstance(a, str | os.PathLike):
        first = opened(Trace(a))
    elif inputs is None:
        raise InvalidInput("no inputs are given to compare the models on: give inputs")
    else:
        first = recorded(a, inputs)
    if isinstance(b, str | os.PathLike):
        return compare_records(first, opened(Trace(b)), map, strict=strict)
    return against(first, b, inputs if isinstance(a, str | os.PathLike) else None, map=map, strict=strict)
