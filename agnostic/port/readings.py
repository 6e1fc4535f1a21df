"""A model's program at several sizes of its inputs, each read once, in the words that a port is written from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from agnostic.contracts.program import PROGRAM
from agnostic.contracts.weights import WEIGHTS
from agnostic.errors import AgnosticError, InvalidInput
from agnostic.port.complexes import in_pairs, weights_in_pairs
from agnostic.port.constants import outputs_computed, simple_constants
from agnostic.port.folding import Folded, folded
from agnostic.port.padding import SIZED
from agnostic.port.precision import in_float32, narrowest
from agnostic.port.sample import Shape, arrays, sampled
from agnostic.port.sizes import Differ
from agnostic.program import custom
from agnostic.program.builder import NodeOrigin
from agnostic.program.custom import CustomOperator
from agnostic.program.nodes import Array, Program, Value
from agnostic.program.passes import folded as constants_folded
from agnostic.program.passes import from_zeros, simplified, sized_constants, without_identities
from agnostic.registry import Backend, Model

Shapes = tuple[Shape, ...]
"""Of each array of the inputs."""


class Readings:
    """Reads a model at sizes of its inputs.

    Args:
        backend: the model's.
        model: what to read.
        inputs: what it is called with.
        operators: that users have taught.

    Attributes:
        given: the shapes of the inputs.
        weights: the model's, by name.
    """

    def __init__(self, backend: Backend, model: Model, inputs: Any, operators: Mapping[str, CustomOperator]) -> None:
        self._backend, self._model, self._inputs, self._operators = backend, model, inputs, operators
        self.given: Shapes = tuple(tuple(int(n) for n in x.shape) for x in arrays(inputs))
        self.weights: Mapping[str, Array] = weights_in_pairs(backend[WEIGHTS].weights(model))
        self._raw: dict[Shapes, Program | AgnosticError] = {}
        self._folded: dict[tuple[Shapes, bool], Folded] = {}

    @property
    def dtype(self) -> str:
        """The narrowest type that the model computes in."""
        return narrowest(self.raw(self.given))

    def raw(self, shapes: Shapes) -> Program:
        """What the model computes.

        Raises:
            AgnosticError: it cannot be read, or does not take inputs of these shapes.
        """
        if shapes not in self._raw:
            inputs = self._inputs if shapes == self.given else sampled(self._backend, self._inputs, shapes)
            try:
                found = self._backend[PROGRAM].program(self._model, inputs, self._operators.keys())
                self._raw[shapes] = custom.with_meanings(found, self._operators)
            except AgnosticError as error:
                self._raw[shapes] = error
        known = self._raw[shapes]
        if isinstance(known, AgnosticError):
            raise known
        return known

    def at(self, shapes: Shapes, tables: bool = False) -> Folded:
        """The program that is written; ``tables`` as in :func:`agnostic.program.passes.folded`.

        Raises:
            AgnosticError: as :meth:`raw`, or places are looked up that a table has not.
        """
        key = (shapes, tables)
        if key not in self._folded:
            program = simplified(self._plain(shapes), SIZED, tables)
            _check_places(program)
            self._folded[key] = self._written(program)
        return self._folded[key]

    def check_alike(self, all_shapes: Sequence[Shapes]) -> None:
        """Raise Differ where the model calls other operators at another size, whatever of these is constant."""
        if len({len(without_identities(self.raw(shapes), SIZED).nodes) for shapes in all_shapes}) > 1:
            raise Differ("they have different operators")

    def computed(self, all_shapes: Sequence[Shapes]) -> list[Folded]:
        """The programs at several sizes, in which constants that depend on the size are computed.

        Raises:
            Differ: they have different operators.
        """
        self.check_alike(all_shapes)
        programs = [without_identities(self._plain(shapes), SIZED) for shapes in all_shapes]
        sized = sized_constants(programs)
        return [self._written(from_zeros(constants_folded(program, sized=sized))) for program in programs]

    def _plain(self, shapes: Shapes) -> Program:
        return in_float32(self.raw(shapes))

    def _written(self, program: Program) -> Folded:
        found = folded(in_pairs(program), self.weights)
        return replace(found, program=simple_constants(outputs_computed(found.program)))


def _check_places(program: Program) -> None:
    """Refuse a program that looks up rows which a table has not, as by positions beyond the longest input.

    Readers see shapes alone, and take any place.

    Raises:
        InvalidInput: says which row, and in which layer.
    """
    known = {leaf.value: leaf.array for leaf in program.leaves if leaf.array is not None}
    for node in program.nodes:
        if node.operator in ("embedding", "take"):
            table, ids = node.operands[:2]
            assert isinstance(table, Value)
            rows = table.shape[node.attributes.get("axis", 0)]
            places = known.get(ids) if isinstance(ids, Value) else None
            if places is not None and places.size and not -rows <= places.min() <= places.max() < rows:
                found = places.max() if places.max() >= rows else places.min()
                raise InvalidInput(f"row {found} of a table of {rows} is looked up in {NodeOrigin.of(node)}")
