"""The report of a transfer: layer by layer, and whether both models compute the same."""

from __future__ import annotations

import dataclasses
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from agnostic import display
from agnostic.renamed import old_names
from agnostic.text import counted, printable


@dataclass(frozen=True)
class TransferRow:
    """One group of weights of the target.

    Attributes:
        target, source: the layers' names.
        kind: of layer, or ``"parameter"``; where weights went by name, the layer's class.
        arrays: the entries that were set, by the target's names.
        matched: ``"name"``, ``"structure"``, or ``"order"``: where the two programs differ around the layer.
        notes: changes other than moving numbers.
        differs: whether the layer computes something else than its counterpart.
    """

    target: str
    source: str
    kind: str
    arrays: tuple[str, ...]
    matched: Literal["name", "structure", "order"]
    notes: tuple[str, ...] = ()
    differs: bool = False


@dataclass(frozen=True, repr=False)
class TransferReport:
    """The result of :func:`agnostic.transfer`.

    Attributes:
        source, target: the names of the two models.
        rows: one per group of weights of the target, in execution order.
        error: of the output that differs most: the root mean square of the difference, relative to that of the output.
        floor: what arithmetic does to that output, in the same unit.
        allowed: the largest error that arithmetic explains.
        verified: whether the target computes the same as the source, as :func:`agnostic.compare` finds.
        explained: whether it does, or does once the differences are undone, which was tried.
        differences: one sentence per difference of the architectures; empty if the outputs agree.
        notes: further remarks.
        inputs: the shapes of the target's inputs, as text.

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
    verified: bool
    explained: bool
    differences: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    inputs: str = ""

    def json(self) -> dict[str, Any]:
        """The report as JSON values.

        Returns:
            Lists, dicts, strings, numbers and None; a number that is not finite becomes None.
        """
        found = dataclasses.asdict(self)
        for key in ("error", "floor", "allowed"):
            found[key] = found[key] if math.isfinite(found[key]) else None
        return found

    @property
    def verdict(self) -> str:
        """One sentence."""
        off = f"the outputs differ by {self.error:.1e} in the mean square, and arithmetic explains {self.allowed:.1e}"
        if self.verified:
            return f"{self.target} computes what {self.source} does: {off}"
        if self.explained:
            return (
                f"{self.target} has the weights of {self.source}, but differs in "
                f"{counted(len(self.differences), 'place')}: {off}; without these it computes the same"
            )
        return f"{self.target} does NOT compute what {self.source} does: {off}"

    def __repr__(self) -> str:
        return f"<TransferReport: {counted(len(self.rows), 'layer')}; {display.shortened(self.verdict, 280)}>"

    def _repr_html_(self) -> str:
        rows = _grouped(self.rows)
        return display.table(self.verdict, _TITLES, rows, [*self.differences, *self.notes])

    def __str__(self) -> str:
        from rich import box
        from rich.console import Console
        from rich.table import Table

        table = Table(box=box.SIMPLE, pad_edge=False)
        for title in _TITLES:
            table.add_column(title)
        for cells in _grouped(self.rows):
            table.add_row(*map(printable, cells))
        text = io.StringIO()
        Console(file=text, width=1000, markup=False, highlight=False, emoji=False, color_system=None).print(table)
        lines = [line.rstrip() for line in text.getvalue().splitlines()]
        lines += [f"* {difference}" for difference in self.differences]
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join(map(printable, [*lines, self.verdict]))


_TITLES = ("target", "source", "kind", "arrays", "by", "")


def _grouped(rows: Sequence[TransferRow]) -> list[tuple[str, ...]]:
    """The lines of the table: layers whose names differ in numbers alone are one line, where the first stands."""
    groups: dict[Any, list[TransferRow]] = {}
    for row in rows:
        names = (_numberless(row.target), _numberless(row.source))
        notes = tuple(map(_numberless, row.notes))
        groups.setdefault((names, row.kind, row.arrays, row.matched, notes, row.differs), []).append(row)
    return [_cells(group) for group in groups.values()]


def _numberless(text: str) -> str:
    return re.sub(r"\d+", "#", text)


def _cells(group: Sequence[TransferRow]) -> tuple[str, ...]:
    """The cells of a line."""
    row = group[0]
    more = f" (and {len(group) - 1} alike, to {group[-1].target})" if len(group) > 1 else ""
    return (
        row.target + more, row.source, row.kind, " ".join(row.arrays), row.matched,
        ("* " if row.differs else "") + "; ".join(row.notes),
    )  # fmt: skip


if not TYPE_CHECKING:
    __getattr__ = old_names(__name__, {"Row": "TransferRow"})
