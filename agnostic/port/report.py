"""What a port says of itself: the verdict, layer by layer, the transposes that remain, what is not free."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agnostic.pages import render
from agnostic.port.check import Found
from agnostic.port.sources import Draft
from agnostic.renamed import old_names
from agnostic.text import counted


@dataclass(frozen=True)
class PortReport:
    """What was ported, and how well.

    Attributes:
        draft: what was written.
        to: the target's backend.
        free: what may change of the inputs' sizes.
        notes: what a reader should know.
        found: how far outputs and layers are apart; () where nothing was run.
    """

    draft: Draft = field(repr=False)
    to: str
    free: str
    notes: tuple[str, ...]
    found: tuple[Found, ...] = field(repr=False)

    @property
    def is_same(self) -> bool:
        """Whether all outputs are within the source's own float32 floor; False where nothing was run."""
        outputs = [x for x in self.found if not x.name]
        return bool(outputs) and all(x.is_same for x in outputs)

    @property
    def first(self) -> Found | None:
        """The first layer, in the order of the run, that is not within the floor."""
        return next((x for x in self.found if x.name and not x.is_same), None)

    @property
    def verdict(self) -> str:
        """One sentence."""
        name = self.draft.program.name
        if self.draft.stubs:
            left = list(dict.fromkeys(stub.function for stub in self.draft.stubs))
            return (
                f"{name} was written for {self.to}, and not run: {counted(len(left), 'function')} to fill in "
                f"({', '.join(left)}), which the test beside the source tests."
            )
        if not self.found:
            return f"{name} was written for {self.to}, and not run."
        outputs, layers = [x for x in self.found if not x.name], [x for x in self.found if x.name]
        worst = max(outputs, key=lambda x: x.error)
        numbers = f"the outputs differ by {worst.error:.1e}, the source's own float32 by {worst.floor:.1e}"
        if self.is_same:
            agree = sum(x.is_same for x in layers)
            return (
                f"{name} computes the same in {self.to}: {numbers}; {agree} of {counted(len(layers), 'layer')} agree."
            )
        where = f"; the first layer that differs is {self.first.name!r}" if self.first else ""
        return f"{name} does not compute the same in {self.to}: {numbers}{where}."

    def __str__(self) -> str:
        moves = Counter(move.operator for move in self.draft.laid.moves)
        lines = [self.verdict, f"Free: {self.free}."]
        said = ", ".join(f"{count} for {operator}" for operator, count in moves.most_common())
        total = sum(moves.values())
        verb = "remains" if total == 1 else "remain"
        lines.append(f"{counted(total, 'transpose')} {verb}{': ' + said if said else ''}.")
        return "\n".join([*lines, *self.notes])

    def html(self) -> str:
        """The report as a page."""
        rows = [
            (x.name or f"output {x.partner}".strip(), ("given", "another")[x.case], f"{x.error:.1e}", f"{x.floor:.1e}",
             "same" if x.is_same else "differs")
            for x in self.found
        ]  # fmt: skip
        title = f"{self.draft.program.name} in {self.to}"
        return render(
            "port.html", {"title": title, "lines": str(self).splitlines(), "rows": rows}, style="comparison.css"
        )


if not TYPE_CHECKING:
    __getattr__ = old_names(__name__, {"Report": "PortReport"})
