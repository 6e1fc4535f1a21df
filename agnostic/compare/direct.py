"""Models of this process: recorded, written to a trace, and compared with a record."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agnostic.compare import learning
from agnostic.compare.comparing import compare_records
from agnostic.compare.feeding import turned
from agnostic.compare.inputs import Inputs, collect
from agnostic.compare.learning import Update
from agnostic.compare.live import Live
from agnostic.compare.recording import Record, layouts, record
from agnostic.compare.report import Comparison
from agnostic.compare.stored import write
from agnostic.compare.traces import SUFFIX, is_trace, writing
from agnostic.errors import InvalidInput
from agnostic.registry import Model, backend_of

if TYPE_CHECKING:
    from agnostic.optimizers.specs import Spec


def recorded(model: Model, inputs: Any) -> Record:
    """The record of a model that another is to be compared with.

    Args:
        inputs: as in :func:`agnostic.compare`.

    Raises:
        InvalidInput: the inputs do not fit or are not finite, or the model is random.
    """
    return record(Live(model, collect(backend_of(model), model, inputs)), first=True)


def trace_model(
    model: Model,
    inputs: Any,
    path: str | os.PathLike[str],
    *,
    spec: str | None = None,
    gradients: bool = False,
    update: tuple[Spec, int | Sequence[float]] | None = None,
) -> Path:
    """See :func:`agnostic.trace`.

    Args:
        spec: the specification of the model.
    """
    live = Live(model, collect(backend_of(model), model, inputs), spec)
    steps = None if update is None else Update(*update)
    if not is_trace(path):
        raise InvalidInput(f"the name of a trace ends in {SUFFIX}, and {str(path)!r} does not")
    with writing(path, len(live.names)) as (writer, about):
        found = record(live, first=True)
        learns = gradients or steps is not None
        if learns:
            found.layouts = layouts(live)
        about.update(write(found, writer, weights=learns))
        about["learning"] = learning.write(live, writer, gradients=gradients, update=steps)
    return Path(path)


def against(
    a: Record, model: Model, inputs: Any = None, *, map: Mapping[str, str] | None = None, spec: str | None = None,
    strict: bool = False,
) -> Comparison:  # fmt: skip
    """Compare a live model, B, with a record, which is A.

    Args:
        inputs: None: those of the record.
        spec: the specification of the model.
    """
    given: Inputs = a.inputs if inputs is None else collect(backend_of(model), model, inputs)
    other = backend_of(model)
    if a.model["backend"] != other.name and _has_axes(given) and (wanted := a.returns()):
        given = turned(other, model, given, wanted)
    b = record(Live(model, given, spec), first=False)
    return compare_records(a, b, map, strict=strict)


def _has_axes(given: Inputs) -> bool:
    """Whether frameworks may order the axes of inputs otherwise; of one image, its own form tells."""
    ranks = [x.ndim for x in given.arrays.values() if x.dtype.kind == "f"]
    return given.kind == "native" and max(ranks, default=0) > 2 and (given.form != "array" or ranks != [4])
