"""Inputs that a model scales by itself before its first layer: then the two models are given different numbers."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from agnostic import axes
from agnostic.program.nodes import Array, Value, readers_of
from agnostic.program.vocabulary import evaluate
from agnostic.transfer.orders import dimensions
from agnostic.transfer.uses import Uses

_SCALES = frozenset({"add", "subtract", "multiply", "divide", "cast", "identity", "maximum"})


@dataclass(frozen=True, eq=False)
class InputScaling:
    """Where the source is given x, the target is to be given ``(x - offset) / gain``.

    Attributes:
        gain, offset: one number, or one per channel.
        axis: of the channels in the target's inputs.
    """

    gain: Array
    offset: Array
    axis: int

    def turned(self, x: Array) -> Array:
        """The target's input for the source's, which has its axes in the target's order already."""
        shape = [1] * x.ndim
        shape[self.axis] = -1
        gain, offset = (v.reshape(shape) if v.size > 1 else v for v in (self.gain, self.offset))
        return ((x.astype(np.float64) - offset) / gain).astype(x.dtype)

    def said(self, source: str, target: str) -> str:
        """A sentence."""
        shift = "" if not self.offset.any() else f" + {_numbers(-self.offset / self.gain)}"
        return (
            f"{target} prepares its inputs itself: give it x * {_numbers(1 / self.gain)}{shift} where {source} gets x"
        )


def _numbers(x: Array) -> str:
    rounded = [f"{float(v):.5g}" for v in x]
    return rounded[0] if len(set(rounded)) == 1 else f"({', '.join(rounded)})"


def preparation(source: Uses, target: Uses) -> InputScaling | None:
    """How the two prepare their one input differently; None where they do not."""
    ours, theirs = _line(source), _line(target)
    if ours is None or theirs is None or len({x.size for x in (*ours[:2], *theirs[:2])} - {1}) > 1:
        return None
    gain, offset = theirs[0] / ours[0], (theirs[1] - ours[1]) / ours[0]
    if np.allclose(gain, 1, atol=1e-6) and np.allclose(offset, 0, atol=1e-6):
        return None
    offset = np.where(np.abs(offset) < 1e-6 * np.abs(gain), 0.0, offset)
    gain, offset = np.broadcast_arrays(gain, offset)
    return InputScaling(gain, offset, theirs[2])


def prepares(found: Uses) -> set[Value]:
    """The values between a program's input and its first layer."""
    inputs = found.program.of_role("input")
    return set(_chain(found, inputs[0].value)) if len(inputs) == 1 else set()


def _chain(found: Uses, value: Value) -> list[Value]:
    """An input, and what is made of it by numbers alone, up to where anything else begins."""
    users, chain = readers_of(found.program.nodes), [value]
    while len(here := users.get(chain[-1], [])) == 1 and here[0].operator in _SCALES:
        others = [v for v in here[0].reads if v != chain[-1]]
        names = [found.weights.names(v) for v in others]
        shaped = here[0].outputs[0].shape == value.shape
        if not shaped or any(x is None or not x <= found.weights.buffers for x in names):
            break
        chain.append(here[0].outputs[0])
    return chain


def _array(given: Mapping[Value, Array], found: Uses, value: Value) -> Array:
    return given[value] if value in given else found.weights.value(value, {})


def _line(found: Uses) -> tuple[Array, Array, int] | None:
    """(gain, offset, the axis of the channels) of what is done to the input; None where it is no line per channel."""
    inputs = found.program.of_role("input")
    if len(inputs) != 1 or not inputs[0].value.dtype.startswith(("float", "bfloat")):
        return None
    value = inputs[0].value
    chain = _chain(found, value)
    letters = axes.letters(dimensions(found.program)[value]) or ""
    axis = letters.index("C") if "C" in letters else len(value.shape) - 1
    nodes = {node.outputs[0]: node for node in found.program.nodes}
    ends = []
    for start in (0.0, 1.0, 2.0):
        held: Array = np.full(value.shape, start)
        before = value
        for step in chain[1:]:
            given = {before: held}
            (held,) = evaluate(nodes[step], functools.partial(_array, given, found))
            before = step
        ends.append(np.moveaxis(np.asarray(held, np.float64), axis, -1).reshape(-1, value.shape[axis]))
    offset, gain = ends[0], ends[1] - ends[0]
    if not np.allclose(ends[2], 2 * gain + offset) or any(not np.allclose(x, x[:1]) for x in (gain, offset)):
        return None
    if (gain == 0).any():
        return None
    same = all(np.allclose(x[0], x[0, 0]) for x in (gain, offset))
    return (gain[0, :1], offset[0, :1], axis) if same else (gain[0], offset[0], axis)
