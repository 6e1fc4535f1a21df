"""What one model does on inputs: its program where its operators can be recorded, else what its layers return."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from agnostic.compare.calls import LayerCall
from agnostic.compare.inputs import Inputs
from agnostic.compare.judging import Recorded
from agnostic.compare.layouts import Layout
from agnostic.compare.live import Live
from agnostic.compare.repeating import check_repeatable
from agnostic.compare.traces import Trace
from agnostic.contracts.recording import RECORDING
from agnostic.description import LayerDescription
from agnostic.errors import InvalidInput
from agnostic.program.runs import Run
from agnostic.text import counted

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Returned:
    """What a layer returned, or the model.

    Attributes:
        name, number: which call of which layer; ``""`` for the model.
        read: gives the array, in the framework's own layout.
        dtype: its type; that of the array but for bfloat16.
    """

    name: str
    number: int
    read: Callable[[], Array]
    dtype: str

    @property
    def label(self) -> str:
        """The layer's name, with the number of the call from the second on."""
        return self.name if not self.number else f"{self.name} (call {self.number + 1})"


@dataclass(eq=False)
class Record:
    """What one model did.

    Attributes:
        model: facts: class, spec, backend, engine, versions, dtype, training, preprocessing.
        inputs: as they were given.
        fed: what the model itself was called with.
        descriptions: of the layers, by name, in the order in which they were made.
        program: the operators that ran; None where they could not be recorded.
        reason: why not, as a sentence without a full stop.
        returned: where there is no program: what the layers returned, in order.
        outputs: where there is no program: what the model returned.
        notes: sentences on what could not be measured.
        layouts: where a trace holds gradients: how the first input of each layer is laid out.
        trace: the file, if it was read from one.
    """

    model: dict[str, Any]
    inputs: Inputs
    fed: list[Array]
    descriptions: Mapping[str, LayerDescription]
    program: Recorded | None = None
    reason: str = ""
    returned: list[Returned] = field(default_factory=list)
    outputs: list[Returned] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    layouts: Mapping[str, Layout] = field(default_factory=dict)
    trace: Trace | None = None

    @property
    def title(self) -> str:
        """What the model is called in a sentence."""
        return str(self.model["spec"] or self.model["class"])

    def returns(self) -> list[Array]:
        """What the model returned."""
        if self.program is not None:
            return list(self.program.run.outputs.values())
        return [x.read() for x in self.outputs]


def record(live: Live, *, first: bool) -> Record:
    """Run a model, and write down what it does.

    Args:
        first: whether it is the one that another is compared with: it must give the same each time that it runs, and
            must run to its end.

    Raises:
        InvalidInput: the model does not take the inputs, or gives something else every time.
    """
    given = live.given()
    items = list(given.values()) if isinstance(given, dict) else given if isinstance(given, tuple) else [given]
    fed = [x if isinstance(x, np.ndarray) else live.numpy(x) for x in items]
    found = Record(live.about, live.inputs, fed, live.descriptions)
    try:
        found.program = _program(live, given, first=first)
    except InvalidInput as error:
        found.reason = str(error)
    if found.program is None:
        _list(live, found, first=first)
    if first:
        check_repeatable(live, found.returns())
    if live.training and found.program is not None and not _trains(found.program.run):
        names = [x.name for x in live.descriptions.values() if x.config.get("training") and x.kind in _TRAINED]
        if names:
            found.notes.append(
                f"{live.title} fixes training for {', '.join(map(repr, names[:3]))}, and computes as in inference "
                "where it is itself called for inference, as here"
            )
    return found


_TRAINED = ("batch_norm", "dropout")
"""Kinds of layers that compute otherwise in training."""


def _trains(run: Run) -> bool:
    """Whether something ran as in training."""
    return bool(run.drawn) or any(node.operator == "batch_norm_training" for node in run.program.nodes)


def _program(live: Live, given: Any, *, first: bool) -> Recorded:
    if RECORDING not in live.backend:
        raise InvalidInput(f"the backend {live.backend.name!r} records no operators")
    recording = live.backend[RECORDING]
    obstacle = recording.obstacle(live.model)
    if obstacle is not None:
        raise InvalidInput(obstacle)
    with live.explaining():
        found = Recorded(recording.record(live.model, given), recording.evaluate)
    if first:
        found.check()  # B's replay is one beside A's: what both compute, it does not compute again
    return found


def _list(live: Live, found: Record, *, first: bool) -> None:
    """Run a model for what its layers return."""

    def around(call: LayerCall) -> Sequence[Any]:
        results = call.run()
        for x in results[:1]:
            found.returned.append(_returned(live, call.name, call.number, x))
        return results

    try:
        outputs = live.run(around)
    except InvalidInput as error:
        # A model that fails on its way differs from the other before: that is what is looked for.
        if first or not found.returned:
            raise
        found.notes.append(f"B does not run to its end: {error}")
        outputs = ()
    if not found.returned and not outputs:
        raise InvalidInput(f"{live.title} has {counted(len(live.names), 'layer')} and returns no array")
    found.outputs = [_returned(live, "", k, x) for k, x in enumerate(outputs)]


def _returned(live: Live, name: str, number: int, x: Any) -> Returned:
    array = np.array(live.numpy(x))  # a layer behind may work in place
    return Returned(name, number, lambda: array, live.backend.ops.dtype(x))


# Layouts, for gradients ----------------------------------------------------------------------------------------------
def layouts(live: Live) -> dict[str, Layout]:
    """How the first input of each layer is laid out."""
    found: dict[str, Layout] = {}

    def around(call: LayerCall) -> Sequence[Any]:
        for layout in call.layouts[:1]:
            found.setdefault(call.name, layout)
        results = call.run()
        call.output_layouts(results)
        return results

    live.run(around)
    return found
