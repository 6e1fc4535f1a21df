"""Two records against each other, as a comparison that users see."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from agnostic.compare import learned, pictures, unrecorded
from agnostic.compare.layerwise import layers
from agnostic.compare.learned import Learned
from agnostic.compare.programs import ProgramPair, compared
from agnostic.compare.recording import Record
from agnostic.compare.report import Comparison
from agnostic.compare.results import Divergence, Row
from agnostic.compare.settings import unseen
from agnostic.errors import InvalidInput
from agnostic.program.nodes import Array
from agnostic.text import counted


def compare_records(
    a: Record, b: Record, chosen: Mapping[str, str] | None = None, *, strict: bool = False
) -> Comparison:
    """Compare two records.

    Args:
        chosen: B's layer for layers of A, which the user knows better.
        strict: whether inner differences that the outputs do not show count.

    Raises:
        InvalidInput: they were recorded for other inputs.
        UnknownName: a chosen layer did not run.
    """
    _check_inputs(a, b)
    notes = [*a.notes, *b.notes, *_fed(a, b)]
    programs, reason = _programs(a, b)
    found = (
        _by_layers(a, b, [*notes, reason])
        if programs is None
        else _by_programs((a, programs), b, chosen, notes)
    )  # fmt: skip
    return replace(found, strict=strict)


def _programs(a: Record, b: Record) -> tuple[ProgramPair | None, str]:
    """What the programs say, or why they say nothing."""
    reasons = [f"{x.title}: {x.reason}" if x.reason else "" for x in (a, b) if x.program is None]
    if a.program is not None and b.program is not None:
        try:
            return compared(a.program, b.program), ""
        except InvalidInput as error:
            reasons = [str(error)]
    return None, f"compared by what the layers return, not by the operators that run: {'; '.join(reasons)}"


def _by_programs(
    a: tuple[Record, ProgramPair], b: Record, chosen: Mapping[str, str] | None, notes: list[str]
) -> Comparison:
    first, programs = a
    matched = layers((first, programs.a.first[0]), (b, programs.theirs), chosen)
    learns = _learned(first, b, matched.names, different=not programs.same)
    divergences = (*programs.explained, *learns.divergences)
    equal = [
        (first.descriptions[matched.calls_a[i].name], b.descriptions[matched.calls_b[j].name])
        for j, i in matched.pairs.items() if matched.equal(j)
    ]  # fmt: skip
    return Comparison(
        a=first.model,
        b=b.model,
        table=tuple(_marked(matched.rows(), programs.explained, same=programs.same)),
        divergences=divergences,
        unmatched_a=matched.unmatched[0],
        unmatched_b=matched.unmatched[1],
        output=(*programs.rows, *learns.rows),
        weights=matched.weights(),
        notes=(*notes, *learns.notes, *unseen(equal)),
        pictures=tuple(pictures.of(matched, programs.explained)),
        remarks=programs.remarks(matched),
        inputs=_inputs(first, b),
        classes=_classes(programs),
    )


def _classes(programs: ProgramPair) -> str:
    """Whether the class with the highest score changed, where there are classes."""
    outputs = list(programs.a.run.outputs.values()), list(programs.b.run.outputs.values())
    if any(len(x) != 1 for x in outputs) or outputs[0][0].shape != outputs[1][0].shape:
        return ""
    x, y = (found[0] for found in outputs)
    if x.ndim != 2 or x.shape[1] < 2 or x.dtype.kind != "f":
        return ""
    changed = int((np.argmax(x, 1) != np.argmax(y, 1)).sum())
    many = counted(len(x), "input")
    if not changed:
        return f"The highest-scoring class is the same for {many}."
    return f"The highest-scoring class is another one for {changed} of {many}."


def _marked(rows: Sequence[Row], found: Sequence[Divergence], *, same: bool) -> Iterator[Row]:
    """The rows with those marked that a difference is at."""
    places = {x.b: x.kind for x in reversed(found)}
    for row in rows:
        verdict = places.get(row.b.partition(" (call")[0], row.verdict)
        yield replace(row, verdict="inside" if same and verdict == "shows" else verdict)


def _by_layers(a: Record, b: Record, notes: list[str]) -> Comparison:
    found = unrecorded.compare(a, b)
    learns = _learned(a, b, found.names, different=bool(found.divergences))
    return Comparison(
        a=a.model,
        b=b.model,
        table=tuple(_marked(found.rows, found.divergences, same=not found.divergences)),
        divergences=(*found.divergences, *learns.divergences),
        unmatched_a=found.unmatched[0],
        unmatched_b=found.unmatched[1],
        output=(*found.output, *learns.rows),
        notes=(*notes, *learns.notes),
        inputs=_inputs(a, b),
    )


def _learned(a: Record, b: Record, names: Mapping[str, str], *, different: bool) -> Learned:
    holds = [bool(x.trace is not None and x.trace.about["learning"]) for x in (a, b)]
    if not any(holds):
        return Learned()
    if a.trace is None or b.trace is None:
        said = "gradients and updates are compared only between two traces: record B with agnostic trace as well"
        return Learned(notes=(said,))
    return learned.compare(a, b, names, different=different)


# Inputs --------------------------------------------------------------------------------------------------------------
def _check_inputs(a: Record, b: Record) -> None:
    one, two = a.inputs, b.inputs
    same = one.form == two.form and list(one.arrays) == list(two.arrays)
    if same and all(np.array_equal(x, two.arrays[k]) for k, x in one.arrays.items()):
        return
    if len(a.fed) == len(b.fed) and all(_numbers(x, y) for x, y in zip(a.fed, b.fed, strict=True)):
        return  # each side may have been given its own layout of the same numbers
    shapes = [", ".join(str(x.shape) for x in r.inputs.arrays.values()) for r in (a, b)]
    what = f"inputs of shape {shapes[0]} and {shapes[1]}" if shapes[0] != shapes[1] else "other numbers of equal shape"
    raise InvalidInput(f"the traces were recorded for different inputs ({what}): record both for the same ones")


def _numbers(x: Array, y: Array) -> bool:
    """Whether two inputs hold the same numbers, in whatever order of axes."""
    if x.size != y.size or x.ndim != y.ndim:
        return False
    axes = tuple(range(x.ndim))
    turns = [axes, (0, *axes[2:], 1), (0, axes[-1], *axes[1:-1])] if x.ndim > 2 else [axes]
    return any(y.transpose(t).shape == x.shape and np.allclose(x, y.transpose(t)) for t in turns)


def _inputs(a: Record, b: Record) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return tuple(map(_said, a.fed)), tuple(map(_said, b.fed))


def _said(x: Array) -> str:
    return f"{x.dtype} {x.shape}"


def _fed(a: Record, b: Record) -> Iterator[str]:
    """A sentence where the sides are fed differently."""
    if [x.shape for x in a.fed] != [x.shape for x in b.fed]:
        yield "A is fed {}; B is fed {}".format(*("; ".join(x) for x in _inputs(a, b)))
