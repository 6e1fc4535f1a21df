"""A record with what computes it, and the verdict: how far the outputs of two records are apart."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from agnostic.compare import match, noise
from agnostic.compare.canonical import canonical
from agnostic.compare.replay import Evaluate, Values, floors, outputs
from agnostic.compare.sides import Side, first
from agnostic.errors import InvalidInput
from agnostic.program.nodes import Array
from agnostic.program.runs import Run
from agnostic.text import counted

TRUSTED = 0.05
"""How far a replay in float64 may be from the run itself, relative to its output; beyond, it is another program."""


@dataclass(eq=False)
class Recorded:
    """A run with what computes its operators.

    Attributes:
        run: the run.
        evaluate: its backend's.
        exact: the outputs in float64; they are computed when they are asked for.

    Raises:
        InvalidInput: it cannot be replayed; says why.
    """

    run: Run
    evaluate: Evaluate

    def __post_init__(self) -> None:
        if self.run.notes:
            notes = "; ".join(self.run.notes)
            raise InvalidInput(f"{self.run.program.name} cannot be run again from its record: {notes}")
        self.run = canonical(self.run)

    @functools.cached_property
    def first(self) -> tuple[Side, match.Table]:
        """See :func:`agnostic.compare.sides.first`."""
        return first(self.run, self.evaluate)

    @functools.cached_property
    def exact(self) -> dict[str, Array]:
        """What the run gives in float64.

        Raises:
            InvalidInput: the replay is not what ran.
        """
        if "first" in vars(self):
            return self.checked({path: self.first[0].arrays[value] for path, value in self.run.program.outputs})
        return self.checked(outputs(Values(self.run, self.evaluate)))

    @functools.cached_property
    def floors(self) -> dict[str, float]:
        """What arithmetic does to each output, as a root mean square."""
        return floors(self.run, self.exact)

    def check(self) -> None:
        """Replay the run.

        Raises:
            InvalidInput: it cannot be replayed; says why.
        """
        _ = self.first, self.exact

    def checked(self, exact: dict[str, Array]) -> dict[str, Array]:
        """The outputs of a replay, if they are those of the run.

        Raises:
            InvalidInput: they are not.
        """
        found = floors(self.run, exact)
        for path, value in self.run.program.outputs:
            scale = noise.rms(exact[path])
            limit = max(TRUSTED * scale, noise.least(scale, value.dtype))  # an output of zeros has a floor as well
            if value.dtype in ("float32", "float64") and found[path] > limit and np.isfinite(scale):
                raise InvalidInput(f"{self.run.program.name} run again from its record gives something else")
        return exact


@dataclass(frozen=True)
class Judged:
    """One output of both models.

    Attributes:
        path: in A's result.
        shape: of A's.
        error: root mean square of the difference.
        floor: what arithmetic explains.
        scale: root mean square of A's output.
    """

    path: str
    shape: tuple[int, ...]
    error: float
    floor: float
    scale: float

    @property
    def floors(self) -> float:
        """The error in units of the floor."""
        return self.error / self.floor if self.floor else (0.0 if self.error == 0 else float("inf"))

    @property
    def same(self) -> bool:
        """Whether arithmetic explains the error."""
        return self.floors <= noise.THRESHOLD


def judged(a: Recorded, b: Recorded) -> list[Judged]:
    """The outputs of both, each with what arithmetic explains: the floor of the coarser side.

    Half precision against more digits is no matter of arithmetic: there it is the finer side's floor.

    Raises:
        InvalidInput: the models return other numbers of arrays, or other shapes.
    """
    ours, theirs = a.run.program.outputs, b.run.program.outputs
    if len(ours) != len(theirs):
        raise InvalidInput(f"A returns {counted(len(ours), 'array')}, B {len(theirs)}")
    found, halves = [], (_halves(a.run), _halves(b.run))
    for (path, _), (other, _) in zip(ours, theirs, strict=True):
        x, y = a.run.outputs[path], b.run.outputs[other]
        turned = _turned(a.exact[path], b.exact[other], y, x.shape, of_one_framework(a.run, b.run))
        floor = _floor(halves, a.floors[path], b.floors[other])
        error = float("inf") if turned is None else noise.difference(x, turned)
        found.append(Judged(path, x.shape, error, floor, noise.rms(a.exact[path])))
    return found


def _halves(run: Run) -> bool:
    """Whether some of its numbers have half precision."""
    return any(v.dtype in ("float16", "bfloat16") for node in run.program.nodes for v in node.outputs)


def _floor(halves: tuple[bool, bool], ours: float, theirs: float) -> float:
    if halves[0] != halves[1]:
        return theirs if halves[0] else ours
    return max(ours, theirs)


def _turned(exact: Array, other: Array, y: Array, shape: tuple[int, ...], alike: bool) -> Array | None:
    """B's output with its axes in A's order: in one framework as it is, if it fits; else the nearest."""
    orders = _orders(y.shape, shape, alike)
    if not orders:
        return y.reshape(shape) if y.size == int(np.prod(shape)) else None
    return y.transpose(min(orders, key=lambda order: match.distance(exact, other.transpose(order))))


def _orders(given: tuple[int, ...], shape: tuple[int, ...], alike: bool) -> list[tuple[int, ...]]:
    return [tuple(range(len(given)))] if alike and given == shape else match.layouts(given, shape)


def of_one_framework(a: Run, b: Run) -> bool:
    """Whether two runs are of one framework."""
    return a.program.framework == b.program.framework


def coarsest(run: Run) -> str:
    """The type with the fewest digits that a run computes in."""
    types = {v.dtype for node in run.program.nodes for v in node.outputs if v.dtype in noise.UNIT_ROUNDOFF}
    return max(types, key=noise.unit, default="")


def exactly_alike(a: Recorded, b: Recorded) -> bool:
    """Whether both give the same outputs in float64."""
    alike = of_one_framework(a.run, b.run)
    pairs = zip(a.run.program.outputs, b.run.program.outputs, strict=True)
    return all(permuted(a.exact[path], b.exact[other], alike) for (path, _), (other, _) in pairs)


def permuted(x: Array, y: Array, alike: bool, loose: float = match.LOOSE) -> bool:
    """Whether two outputs are equal but for the order in which frameworks have their axes."""
    return apart(x, y, alike) <= loose


def apart(x: Array, y: Array, alike: bool) -> float:
    """How far two outputs are apart, relative to the first, in the order of axes in which they are nearest."""
    orders = _orders(y.shape, x.shape, alike)
    return min((match.distance(x, y.transpose(order)) for order in orders), default=float("inf"))
