"""Operators that run once for each place of an axis: those between ``loop_start`` and the ``loop_end`` that follows.

They may stand inside each other. :func:`agnostic.program.loops.unrolled` writes them out, which defines them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agnostic.errors import InvalidInput
from agnostic.program.nodes import Array
from agnostic.program.vocabulary import Shape, operator

LOOPED = frozenset({"loop_start", "loop_end"})
"""The two, neither of which computes anything alone."""


def _start_shape(sequences: Sequence[Shape], states: Sequence[Shape], *, axes: Sequence[int]) -> Any:
    slices = (shape[:axis] + shape[axis + 1 :] for shape, axis in zip(sequences, axes, strict=True))
    return (*slices, *states)


@operator(shape=_start_shape)
def loop_start(sequences: Sequence[Array], states: Sequence[Array], *, axes: tuple[int, ...]) -> Any:
    """x[t] of each sequence, and the states before t, for t = 0, 1, ...

    Args:
        sequences: of one length, along their ``axes``.
        states: at the first place; at each later one they are those that ``loop_end`` is given at the place before.
        axes: along which the sequences run, from 0.
    """
    raise InvalidInput("loop_start has no value of its own: write the program out by unrolled()")


def _end_shape(output: Shape, states: Sequence[Shape], mask: Any = None, *, axis: int, length: int, hidden: Any) -> Any:
    return ((*output[:axis], length, *output[axis:]), *states)


@operator(shape=_end_shape)
def loop_end(
    output: Array, states: Sequence[Array], mask: Array | None = None, *, axis: int, length: int,
    hidden: str | int = "zeros",
) -> Any:  # fmt: skip
    """The outputs of all places, stacked, and the last states.

    Args:
        output: at a place.
        states: after it.
        mask: booleans (length, batch): where False, states stay, and the output is ``hidden``.
        axis: of the places among the outputs.
        length: the number of places.
        hidden: ``"zeros"``; ``"last"``: the output before, at first zeros; the number of a state, as it was before.
    """
    raise InvalidInput("loop_end has no value of its own: write the program out by unrolled()")
