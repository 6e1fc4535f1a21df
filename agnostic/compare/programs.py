"""Two models compared by the operators that run: the verdict is about their outputs, and what explains it is proven."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from agnostic.compare.explain import Judged, Recorded, explain, judged
from agnostic.compare.inputs import Inputs, prepared
from agnostic.compare.report import Divergence, Row
from agnostic.compare.say import divergences
from agnostic.compare.sides import Side, second
from agnostic.contracts.recording import RECORDING
from agnostic.errors import InvalidInput
from agnostic.registry import Model, backend_of


@dataclass(frozen=True, eq=False)
class ProgramPair:
    """What the programs of two models say.

    Attributes:
        outputs: each output of both.
        a, b: the records.
        theirs: B's values, with those of A's that they are equal to.
    """

    outputs: tuple[Judged, ...]
    a: Recorded
    b: Recorded
    theirs: Side

    @property
    def same(self) -> bool:
        """Whether arithmetic explains all that differs at the outputs."""
        return all(x.same for x in self.outputs)

    @functools.cached_property
    def explained(self) -> tuple[tuple[Divergence, ...], bool]:
        """What makes the outputs differ, and whether B without it gives A's outputs."""
        if self.same:
            return (), False
        found = explain(self.a, self.b, self.theirs)
        worst = max(self.outputs, key=lambda x: x.floors)
        after = found.left * worst.scale / worst.floor if worst.floor else 0.0
        return tuple(divergences(found, worst.floors, after)), found.proven

    @property
    def rows(self) -> tuple[Row, ...]:
        """The outputs as rows of the table."""
        return tuple(
            Row("output", "output", "output", x.shape, None, None, x.floors, x.error, x.floor, x.scale)
            for x in self.outputs
        )


def recorded(model: Model, inputs: Inputs) -> Recorded:
    """A run of a model, operator by operator.

    Raises:
        InvalidInput: it cannot be recorded, or not run again from its record; says why.
    """
    backend = backend_of(model)
    if RECORDING not in backend:
        raise InvalidInput(f"the backend {backend.name!r} records no operators")
    recording = backend[RECORDING]
    obstacle = recording.obstacle(model)
    if obstacle is not None:
        raise InvalidInput(obstacle)
    try:
        run = recording.record(model, prepared(backend, model, inputs))
    except (RuntimeError, ValueError, TypeError, IndexError, KeyError) as error:
        if isinstance(error, InvalidInput):
            raise
        said = " ".join(str(error).split())[:200] or type(error).__name__
        raise InvalidInput(f"{type(model).__name__} does not run to its end ({said})") from error
    return Recorded(run, recording.evaluate)


def compared(a: Recorded, b: Recorded) -> ProgramPair:
    """What two records say.

    Raises:
        InvalidInput: the models return other numbers of arrays.
    """
    ours, table = a.first
    theirs = second(b.run, b.evaluate, ours, table)
    if not any(theirs.apart.values()):  # else B went on with A's numbers
        b.exact = b.checked({path: theirs.arrays[value] for path, value in b.run.program.outputs})
    return ProgramPair(tuple(judged(a, b)), a, b, theirs)
