"""What a transfer did, layer by layer, and whether the target now computes what the source does."""

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
    """One slot of the target.

    Attributes:
        target, source: the layers' names.
        kind: of layer; see :mod:`agnostic.transfer.layouts`.
        arrays: the entries that were set, by Keras' names.
        matched: ``"name"``, ``"data"`` (it was handed what the source's layer was handed), ``"order"``.
        error: of the layer's output for the source's input, relative to the output's greatest magnitude; None where it
            cannot be told apart, as inside a stack.
        floor: the same of float32 alone in the source; 0 where it was not measured.
        input_error: what the layers before handed over, against what the source's handed over: the root of the mean
            square of the difference over that of the input.
        notes: what was done beside moving axes, and what to fix.
        differs: whether the error is more than arithmetic explains.
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
    """What :func:`agnostic.transfer` did.

    Attributes:
        source, target: what the two models are called.
        rows: one per group of weights of the target, in execution order.
        error: of the target's outputs against the source's float64 outputs where there are any, else its own, relative
            to their greatest magnitude; the whole models were run.
        floor: the same of the other side's float32.
        allowed: the greatest error that arithmetic explains.
        fixed_error: the error with the fixes of the rows applied, for this measurement only; None where there are none.
        differences: where the architectures differ, one sentence each; empty where they are equal.
        notes: what else there is to know.
        inputs: what both models were run on, for people.
        details: what the command line shows beside it.

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
        """Whether the target computes what the source does, as far as float32 goes."""
        return self.error <= self.allowed and not self.differences

    @property
    def explained(self) -> bool:
        """Whether it does, or would once the fixes of the rows are applied."""
        return self.verified or (self.fixed_error is not None and self.fixed_error <= self.allowed)

    def json(self) -> dict[str, Any]:
        """As what JSON can carry.

        Returns:
            Lists, dicts, texts, numbers and None; what is not finite becomes None.
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
        off = f"the outputs differ by {self.error:.1e} of their greatest magnitude, and arithmetic explains"
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
    """What a table says of a row."""
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
