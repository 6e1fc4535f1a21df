"""Run a program in NumPy: the reference for frameworks and for every pass over programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from types import MappingProxyType

import numpy as np

from agnostic.errors import InvalidInput, nearest
from agnostic.program.loops import unrolled
from agnostic.program.nodes import Array, Node, Program, Value
from agnostic.program.vocabulary import evaluate


def run(
    program: Program, inputs: Mapping[str, Array], weights: Mapping[str, Array], dtype: type = np.float64
) -> dict[str, Array]:
    """The outputs of a program.

    Args:
        program: what to run.
        inputs: arrays by the names of the program's inputs, with the shapes that the program was read with.
        weights: parameters and buffers by name, such as a backend's ``weights(model)``; others are ignored.
        dtype: floating-point leaves are cast to it: ``numpy.float64`` or ``numpy.float32``.

    Returns:
        By the paths of :attr:`Program.outputs`.

    Raises:
        InvalidInput: an input or a weight is missing or has another shape than the program's.
    """
    program = unrolled(program)
    wanted = {value for _, value in program.outputs}
    found = {value: leaf for value, leaf in leaves(program, inputs, weights, dtype).items() if value in wanted}
    for node, arrays in walk(program, inputs, weights, dtype):
        found |= {value: array for value, array in zip(node.outputs, arrays, strict=True) if value in wanted}
    return {path: found[value] for path, value in program.outputs}


def walk(
    program: Program,
    inputs: Mapping[str, Array],
    weights: Mapping[str, Array],
    dtype: type = np.float64,
    given_values: Mapping[Value, Array] = MappingProxyType({}),
) -> Iterator[tuple[Node, tuple[Array, ...]]]:
    """Yield each node with its outputs, in order, those of a loop for each place; arrays no longer read are freed.

    Args:
        program, inputs, weights, dtype: as for :func:`run`.
        given_values: outputs of nodes that are not computed, such as operators without a reference.

    Raises:
        InvalidInput: as :func:`run`.
    """
    arrays, program = leaves(program, inputs, weights, dtype), unrolled(program)
    uses = Counter(value for node in program.nodes for value in node.reads)
    for node in program.nodes:
        # Overflow is the model's result, not an error of this function.
        with np.errstate(all="ignore"):
            results = tuple(given_values[value] for value in node.outputs if value in given_values)
            results = results or evaluate(node, arrays.__getitem__)
        yield node, results
        arrays.update((value, x) for value, x in zip(node.outputs, results, strict=True) if uses[value])
        for value in node.reads:
            uses[value] -= 1
            if not uses[value]:
                arrays.pop(value, None)


def leaves(
    program: Program, inputs: Mapping[str, Array], weights: Mapping[str, Array], dtype: type = np.float64
) -> dict[Value, Array]:
    """The arrays of the leaves, checked against the program.

    Raises:
        InvalidInput: as :func:`run`.
    """
    found: dict[Value, Array] = {}
    for leaf in program.leaves:
        if leaf.array is not None:
            array = leaf.array
        else:
            given, what = (inputs, "input") if leaf.role == "input" else (weights, leaf.role)
            if leaf.name not in given:
                raise InvalidInput(f"{what} {leaf.name!r} is missing{nearest(leaf.name, given)}")
            array = np.asarray(given[leaf.name])
            if array.shape != leaf.value.shape:
                raise InvalidInput(
                    f"{what} {leaf.name!r} has shape {array.shape}, and the program was read with {leaf.value.shape}"
                )
        found[leaf.value] = array.astype(dtype) if array.dtype.kind == "f" else array
    return found
