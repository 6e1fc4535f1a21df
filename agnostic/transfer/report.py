"""The report of a transfer: layer by layer, and whether both models compute the same."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from agnostic import display
from agnostic.renamed import old_names
from agnostic.text import counted, printable


@dataclass(frozen=True)
class TransferRow:
    """One group of weights of the target.

    Attributes:
        target, source: the layers' names.
        kind: of layer; see :mod:`agnostic.transfer.layouts`.
        arrays: the entries that were set, by Keras' names.
        matched: ``"name"``, ``"data"`` (both layers received the same input), ``"order"``.
        error: of the layer's output for the source's input, relative to the output's greatest magnitude; None if it
            cannot be separated, as inside a stack.
        floor: the rounding error of float32 in the source, in the same unit; 0 if it was not measured.
        input_error: of the layer's input, against the input of the source layer: the root mean square of the
            difference, relative to that of the input.
        notes: changes other than moving axes, and fixes.
        differs: whether the error is larger than rounding explains.
    """

    target: str
    source: str
    kind: str
    arrays: tuple[str, ...]
    matched: Literal["name", "data", "order"]
    error: float | None
    floor: float
    input_error: float | None
    notes: tuple[str, ...] = ()
    differs: bool = False


@dataclass(frozen=True, repr=False)
class TransferReport:
    """The result of :func:`agnostic.transfer`.

    Attributes:
        source, target: the names of the two models.
        rows: one per group of weights of the target, in execution order.
        error: of the target's outputs against the source's float64 outputs if there are any, else its own, relative
            to their greatest magnitude; the whole models were run.
        floor: the rounding error of float32 on the other side, in the same unit.
        allowed: the largest error that rounding explains.
        fixed_error: the error with the fixes of the rows applied, for this measurement only; None if there are none.
        differences: one sentence per difference of the architectures; empty if they are equal.
        notes: further remarks.
        inputs: the shapes of the inputs of both models, as text.
        details: further data for the command line.

    Example:
        >>> print(ag.transfer(model, copy.deepcopy(model), inputs=ag.prepare(model, images)).verdict)
        Sequential computes what Sequential does: ...
    """

    source: str
    target: str
    rows: tuple[TransferRow, ...]
    error: float
    floor: float
    allowed: float
    fixed_error: float | None = None
    differences: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    inputs: str = ""
    details: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def verified(self) -> bool:
        """Whether the target computes the same as the source, up to rounding."""
        return self.error <= self.allowed and not self.differences

    @property
    def explained(self) -> bool:
        """Whether it does, or would after the fixes of the rows."""
        return self.verified or (self.fixed_error is not None and self.fixed_error <= self.allowed)

    def json(self) -> dict[str, Any]:
        """The report as JSON values.

        Returns:
            Lists, dicts, strings, numbers and None; a number that is not finite becomes None.
        """
        found = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "details"}
        found["rows"] = [dataclasses.asdict(row) for row in self.rows]
        for row in found["rows"]:
            for key in ("error", "input_error"):
                row[key] = _finite(row[key])
        found["error"], found["fixed_error"] = _finite(self.error), _finite(self.fixed_error)
        return {**found, "verified": self.verified, "explained": self.explained}

    @property
    def verdict(self) -> str:
        """One sentence."""
        off = f"the outputs differ by {self.error:.1e} of their largest magnitude, and rounding explains"
        if self.verified:
            return f"{self.target} computes what {self.source} does: {off} {self.allowed:.1e}"
        if self.explained:
            return (
                f"{self.target} has the weights of {self.source}, but differs in "
                f"{counted(len(self.differences), 'place')}, "
                f"listed above: {off} {self.allowed:.1e}; with these fixes they differ by {self.fixed_error:.1e}"
            )
        fixed = "" if self.fixed_error is None else f" (with the known fixes: {self.fixed_error:.1e})"
        return f"{self.target} does NOT compute what {self.source} does: {off} {self.allowed:.1e}{fixed}"

    def __repr__(self) -> str:
        return f"<TransferReport: {counted(len(self.rows), 'layer')}; {display.shortened(self.verdict, 280)}>"

    def _repr_html_(self) -> str:
        rows = [_cells(row) for row in self.rows]
        return display.table(self.verdict, _TITLES, rows, [*self.differences, *self.notes])

    def __str__(self) -> str:
        from rich import box
        from rich.console import Console
        from rich.table import Table

        table = Table(box=box.SIMPLE, pad_edge=False)
        for title in _TITLES:
            table.add_column(title, justify="right" if title in ("error", "floor") else "left")
        for row in self.rows:
            table.add_row(*map(printable, _cells(row)))
        text = io.StringIO()
        Console(file=text, width=1000, markup=False, highlight=False, emoji=False, color_system=None).print(table)
        lines = [line.rstrip() for line in text.getvalue().splitlines()]
        lines += [f"* {difference}" for difference in self.differences]
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join(map(printable, [*lines, self.verdict]))


_TITLES = ("target", "source", "kind", "arrays", "by", "error", "floor", "")


def _cells(row: TransferRow) -> tuple[str, ...]:
    """The cells of a row in the table."""
    return (
        row.target, row.source, row.kind, " ".join(row.arrays), row.matched, _number(row.error),
        _number(row.floor or None), ("* " if row.differs else "") + "; ".join(row.notes),
    )  # fmt: skip


def _number(x: float | None) -> str:
    return "" if x is None else f"{x:.1e}"


def _finite(x: float | None) -> float | None:
    return None if x is None or x != x or x in (float("inf"), float("-inf")) else x


if not TYPE_CHECKING:
    __getattr__ = old_names(__name__, {"Row": "TransferRow"})
