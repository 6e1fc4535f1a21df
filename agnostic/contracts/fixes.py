"""Capability: say how to fix a mistake that a comparison found, in code of the framework."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from agnostic.contracts.capability import Capability


@dataclass(frozen=True)
class SourceForm:
    """How an operator stands in a framework's source; "" where it has no such form.

    Attributes:
        layer: a class of layers, without the number of its axes; with further arguments in parentheses.
        function: the same of a function. Of several forms, divided by ``|``, the first is written.
        sign: signs of Python, divided by spaces.
        text: a text among the arguments of what is called.
        unary: whether it has one operand, and no argument that another operator has as well.
    """

    layer: str = ""
    function: str = ""
    sign: str = ""
    text: str = ""
    unary: bool = False


class Fixes(Protocol):
    """Texts of fixes. The module imports no framework, since traces are compared without one."""

    def setting(self, layer: str, kind: str, operator: str, name: str, value: Any, *, line: bool = False) -> str | None:
        """Code that gives a layer of ``model`` another setting; None where there is none that runs.

        Args:
            layer: its name.
            kind: its class.
            operator, name: the operator and its attribute, as :mod:`agnostic.compare.lowering` names them; the function
                of an ``activation`` that the layer applies by itself, ``"linear"`` for none.
            value: the right one.
            line: whether the user's source has a line for the operator, which in some frameworks no layer of theirs
                computes then.
        """

    def weight(self, role: str, name: str, undo: str) -> str | None:
        """Code that puts other numbers into a weight of ``model``; None where there is none that runs.

        Args:
            role: ``"parameter"`` or ``"buffer"``.
            name: of the weight.
            undo: an expression over ``p``, the numbers that it holds.
        """

    def copied(self, to: tuple[str, str], source: tuple[str, str]) -> str | None:
        """Code that copies a weight of ``other`` into one of ``model``, each by role and name; None as above."""

    def reading(self, model: str, role: str, name: str) -> str | None:
        """An expression for a weight of a model as a NumPy array, as the framework keeps it; None as above.

        Args:
            model: what the code calls the model.
            role, name: of the weight.
        """

    def writing(self, role: str, name: str, array: str) -> str | None:
        """Code that puts a NumPy array, given as an expression, into a weight of ``model``; None as above."""

    def settings(self, layer: str, source: str) -> str | None:
        """Code that gives a layer of ``model`` the settings of one of ``other``, of the same class; None as above.

        Args:
            layer, source: their names.
        """

    def layer(self, name: str, source: str | None) -> str | None:
        """Code that puts a copy of a layer of ``other`` in the place of one of ``model``; None as above.

        Args:
            name: of the layer of ``model``.
            source: of the layer of ``other``; None: nothing is computed there.
        """

    def spelled(self, kind: str) -> SourceForm:
        """How an operator is written, by its kind in :mod:`agnostic.compare.lowering`."""

    def packages(self) -> tuple[str, ...]:
        """The modules of the framework's functions, by their whole names."""

    def parameters(self, name: str) -> tuple[str, ...]:
        """What a class or a function calls the arguments that are often given without a name, in order."""

    def keyword(self, kind: str, name: str) -> str | None:
        """What an argument is called that is an attribute of an operator, or its ``"text"``; None where none is."""

    def padding(
        self, name: str, kernel: Sequence[int], attributes: Mapping[str, Any], pairs: Sequence[tuple[int, int]]
    ) -> str | None:
        """The word for a window's padding; None where there is none that means it.

        Args:
            name: the layer's class.
            kernel: sizes of the window.
            attributes: of its operator.
            pairs: what is before and after each axis.
        """


FIXES: Capability[Fixes] = Capability("fixes", Fixes, "say how a mistake is fixed")
