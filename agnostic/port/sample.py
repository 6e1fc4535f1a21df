"""Inputs of other sizes than those given, to find which lengths of a model may change."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from agnostic.contracts.calls import CALLS
from agnostic.port.layout import channel_axis
from agnostic.program.nodes import Program
from agnostic.registry import Backend

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Variation:
    """One way in which the sizes of inputs may change.

    Attributes:
        name: the sizes that change: ``"batch"``, ``"batch and image size"``, ``"batch and length"``.
        shapes: the shape of each array of the inputs, for each size at which the model is read; the given one first.
        checked: the shapes at one more size, which is used only to compare the port.
        spare: one more size, used where ``checked`` has to take part in the writing.
    """

    name: str
    shapes: tuple[tuple[Shape, ...], ...]
    checked: tuple[Shape, ...]
    spare: tuple[Shape, ...]

    @property
    def is_between(self) -> bool:
        """Whether no length of the size that is only compared is larger than the largest that is read."""
        return all(
            n <= max(lengths)
            for n, *lengths in (
                found for array in zip(self.checked, *self.shapes, strict=True) for found in zip(*array, strict=True)
            )
        )

    @property
    def surer(self) -> Variation:
        """Read at one more size, and compared at another."""
        return Variation(self.name, (*self.shapes, self.checked), self.spare, self.spare)


def arrays(inputs: Any) -> list[Any]:
    """The arrays in tuples, lists and dicts, in order."""
    if isinstance(inputs, Mapping):
        return [x for value in inputs.values() for x in arrays(value)]
    if isinstance(inputs, list | tuple):
        return [x for value in inputs for x in arrays(value)]
    return [inputs] if hasattr(inputs, "shape") and hasattr(inputs, "dtype") else []


def with_arrays(inputs: Any, function: Callable[[Any], Any]) -> Any:
    """The same structure with each array replaced."""
    if isinstance(inputs, Mapping):
        return type(inputs)({key: with_arrays(value, function) for key, value in inputs.items()})  # type: ignore[call-arg]
    if isinstance(inputs, list | tuple):
        return type(inputs)(with_arrays(value, function) for value in inputs)
    return function(inputs) if hasattr(inputs, "shape") and hasattr(inputs, "dtype") else inputs


def sampled(backend: Backend, inputs: Any, shapes: Sequence[Shape], seed: int = 0) -> Any:
    """Inputs of other shapes: floating-point numbers are drawn from those given, which a model may need in some range,
    and from a normal distribution where these are all equal; others are repeated.
    """
    generator = np.random.default_rng(seed)
    given = iter(shapes)

    def one(x: Any) -> Any:
        shape = next(given)
        array = x if isinstance(x, np.ndarray) else backend[CALLS].numpy(x)
        if array.dtype.kind == "f":
            varies = array.size and np.any(array != array.flat[0])
            new = (
                generator.choice(array.ravel(), shape)
                if varies
                else generator.standard_normal(shape).astype(array.dtype)
            )
        else:
            new = np.resize(array, shape) if array.size else np.zeros(shape, array.dtype)
            if array.ndim == 1 and array.size > 1 and np.all(array[:-1] >= array[1:]):
                new = np.sort(new)[::-1].copy()  # lengths of sequences, the longest first
        return new if isinstance(x, np.ndarray) else backend[CALLS].native(new, x)

    return with_arrays(inputs, one)


FreeAxes = Mapping[int, Sequence[int]]
"""The axes whose length may change, by the index of the array."""

Length = Callable[[int, int], int]
"""A function of an axis' length and its index among the free axes, to another length."""

STEP = 32
"""The step between image sizes for a model that halves them five times."""


def variations(program: Program, inputs: Any) -> list[Variation]:
    """The ways in which input sizes may change, the freest first; the last one changes only the batch."""
    given = [tuple(int(n) for n in x.shape) for x in arrays(inputs)]
    batch = given[0][0] if given and given[0] else 1
    batches = (batch, batch + 1, batch + 3) if batch > 1 else (2, 3, 5)

    def batched(shapes: Sequence[Shape], n: int) -> tuple[Shape, ...]:
        return tuple((n, *s[1:]) if s and s[0] == batch else s for s in shapes)

    def variation(name: str, axes: FreeAxes, others: Sequence[Length], checked: Length, spare: Length) -> Variation:
        read = [given, *(_changed(given, axes, other) for other in others)]
        shapes = tuple(batched(found, n) for found, n in zip(read, batches, strict=False))
        unseen, last = (
            batched(_changed(given, axes, length), batches[2] if len(others) == 1 else batches[1])
            for length in (checked, spare)
        )
        return Variation(name, shapes, unseen, last)

    found = []
    axes = _free_axes(program, given)
    if axes:
        # Multiples hide what happens where a stride does not divide the size; an odd size shows it.
        found = [
            variation("batch and image size", axes, [_multiple, _odd], _other_odd, _third_odd),
            variation(
                f"batch and image size in steps of {STEP}", axes, [_multiple, _stepped], _other_stepped, _third_stepped
            ),
            variation("batch and image size in whole multiples", axes, [_multiple], _other_multiple, _third_multiple),
        ]
    elif given and len(given[0]) > 1:
        length = given[0][1]
        axes = {i: [1] for i, s in enumerate(given) if len(s) > 1 and s[1] == length}
        longer: list[Length] = [lambda n, k: n + 3, lambda n, k: 2 * n + 4]
        found = [variation("batch and length", axes, longer, lambda n, k: n + 6, lambda n, k: n + 7)]
        if length > 5:
            # A table of positions may be no longer than what is given.
            shorter = [lambda n, k: n - 1, lambda n, k: n - 3]
            name = f"batch and length up to {length}"
            found.append(variation(name, axes, shorter, lambda n, k: n - 2, lambda n, k: n - 4))
        for other, places in _other_lengths(program, given, length).items():
            name = f"batch and length of {' and '.join(other)}"
            found.append(variation(name, places, longer, lambda n, k: n + 6, lambda n, k: n + 7))
    return [*found, variation("batch", {}, [_multiple], _multiple, _multiple)]


def _other_lengths(program: Program, given: Sequence[Shape], first: int) -> Mapping[tuple[str, ...], FreeAxes]:
    """Axes of further inputs that have a length of their own, such as the number of a graph's edges, by their names."""
    leaves = program.of_role("input")
    if len(leaves) != len(given):
        return {}
    lengths: dict[int, list[int]] = {}
    for place, (leaf, shape) in enumerate(zip(leaves, given, strict=True)):
        # A matrix of numbers has features there, which weights belong to.
        if len(shape) > 1 and shape[1] != first and (len(shape) > 2 or leaf.value.dtype.startswith(("int", "uint"))):
            lengths.setdefault(shape[1], []).append(place)
    return {tuple(leaves[i].name for i in places): {i: [1] for i in places} for places in lengths.values()}


def _multiple(n: int, k: int) -> int:
    return n * (2 + k % 2)


def _other_multiple(n: int, k: int) -> int:
    return n * (3 - k % 2)


def _odd(n: int, k: int) -> int:
    return (n + 5 + 4 * k) | 1


def _other_odd(n: int, k: int) -> int:
    return (n + 11 - 4 * k) | 1


def _third_odd(n: int, k: int) -> int:
    return (n + 17 + 8 * k) | 1


def _third_stepped(n: int, k: int) -> int:
    return n + STEP * (5 - k)


def _third_multiple(n: int, k: int) -> int:
    return n * (4 + k % 2)


def _stepped(n: int, k: int) -> int:
    return n + STEP * (1 + 2 * k)


def _other_stepped(n: int, k: int) -> int:
    return n + STEP * (3 - k)


def _changed(given: Sequence[Shape], axes: FreeAxes, length: Length) -> list[Shape]:
    """The shapes with other lengths for the free axes of each array."""
    return [
        tuple(length(n, axes[i].index(a)) if a in axes.get(i, ()) else n for a, n in enumerate(shape))
        for i, shape in enumerate(given)
    ]


def _free_axes(program: Program, given: Sequence[Shape]) -> FreeAxes:
    """The height and width axes of each array that is an image, or has the size of one."""
    leaves = program.of_role("input")
    spatial: dict[int, list[int]] = {}
    if len(leaves) == len(given):
        for place, leaf in enumerate(leaves):
            axis = channel_axis(leaf.value, program)
            if axis is not None:
                spatial[place] = [a for a in range(1, len(given[place])) if a != axis % len(given[place])]
    for place, shape in enumerate(given):
        # An array that is added to an image has to change its size with it.
        like = next((i for i in spatial if place not in spatial and shape[2:] == given[i][2:] and len(shape) > 2), None)
        if like is not None:
            spatial[place] = spatial[like]
    return spatial
